//! Draining (section 4.11 of MQTT 5): whoever is connected is told of another server and
//! disconnected, evenly over the time that was given, and whoever comes is told of it, too. An MQTT
//! 3.1.1 client, which cannot be told, is closed, and finds that this server is not available.
//! Sessions stay, with what waits for them.
//!
//! A restart ends it: then this server is to serve again.

use std::time::Duration;

use sextant_mqtt::{Connecting, Disconnect, DisconnectProperties, Packet, ReasonCode};
use sextant_ring::core::ConnId;
use sextant_ring::time::Time;

use super::conn::Stage;
use super::presence::End;
use super::{Broker, Context, timer};
use crate::control::drain::{Drained, Draining};
use crate::meters::{Closed, ConnectRefused};

/// How often some are sent away.
const STEP: Duration = Duration::from_millis(50);

/// One core's part of a draining.
pub(super) struct Drain {
    draining: Draining,
    began: Time,
    /// Who was connected when it began, and was not looked at yet.
    left: Vec<ConnId>,
    all: usize,
    sent_away: usize,
    armed: bool,
}

impl Drain {
    fn reason(&self) -> ReasonCode {
        match self.draining.moved {
            true => ReasonCode::ServerMoved,
            false => ReasonCode::UseAnotherServer,
        }
    }

    /// How many are to be left by now.
    fn left_at(&self, now: Time) -> usize {
        let (passed, over) = (now.since(self.began).as_nanos(), self.draining.over.as_nanos());
        if passed >= over {
            return 0;
        }
        (self.all as u128 * (over - passed)).div_ceil(over) as usize
    }
}

impl Broker {
    /// Begins to drain, or ends it.
    pub(super) fn drain(&mut self, cx: &mut Context, draining: Option<Draining>) {
        let armed = self.drain.as_ref().is_some_and(|drain| drain.armed);
        self.drain = draining.map(|draining| {
            let held = self.conns.iter().flatten();
            let online = held.filter(|held| matches!(held.stage, Stage::Online { .. }));
            let left: Vec<ConnId> = online.map(|held| held.id).collect();
            let (all, sent_away) = (left.len(), 0);
            Box::new(Drain { draining, began: cx.now(), left, all, sent_away, armed })
        });
        self.send_away(cx);
    }

    pub(super) fn drain_state(&self) -> Option<Drained> {
        let drain = self.drain.as_ref()?;
        let there = |conn: &&ConnId| {
            let held = self.conns.get(conn.index()).and_then(Option::as_ref);
            held.is_some_and(|held| held.id == **conn)
        };
        let left = drain.left.iter().filter(there).count();
        Some(Drained { draining: drain.draining.clone(), left, sent_away: drain.sent_away })
    }

    /// Sends away as many as are due.
    pub(super) fn send_away(&mut self, cx: &mut Context) {
        while let Some(drain) = &mut self.drain
            && drain.left.len() > drain.left_at(cx.now())
        {
            let Some(conn) = drain.left.pop() else { break };
            self.redirect(cx, conn);
        }
        let Some(drain) = self.drain.as_mut().filter(|drain| !drain.armed) else { return };
        if !drain.left.is_empty() {
            // Without a timer left the next tick goes on.
            let timer = cx.arm(cx.now() + STEP, timer::key(timer::DRAIN, 0));
            drain.armed = timer.is_some();
        }
    }

    pub(super) fn drain_timer(&mut self, cx: &mut Context) {
        if let Some(drain) = &mut self.drain {
            drain.armed = false;
        }
        self.send_away(cx);
    }

    fn redirect(&mut self, cx: &mut Context, conn: ConnId) {
        if self.conn(conn).is_none() {
            return;
        }
        let Some(drain) = &mut self.drain else { return };
        drain.sent_away += 1;
        let (reason, server) = (drain.reason(), drain.draining.server.clone());
        let server_reference = Some(&*server);
        let properties = DisconnectProperties { server_reference, ..Default::default() };
        let disconnect = Packet::Disconnect(Disconnect { reason, properties });
        // [MQTT-4.13.2-1]: closed behind it.
        self.write(cx, conn, |link, out| link.send(&disconnect, out));
        self.closes(cx, conn, Closed::Redirected);
        self.detach(cx, conn, End { reason: Some(reason), ..End::silent(Closed::Redirected) });
        cx.finish(conn);
    }

    /// Refuses a CONNECT while this server drains; gives it back if it does not.
    pub(super) fn turn_away(
        &mut self,
        cx: &mut Context,
        conn: ConnId,
        connecting: Connecting,
    ) -> Option<Connecting> {
        let Some(drain) = &self.drain else { return Some(connecting) };
        let (reason, server) = (drain.reason(), drain.draining.server.clone());
        self.meters.connect_refused(ConnectRefused::Redirected);
        let version = connecting.version();
        let mut answer = Vec::new();
        // [MQTT-4.13.2-1]
        // One that the client does not take is not sent; it is closed all the same.
        let _ = connecting.redirect(reason, &server, &mut answer);
        self.refuse_with_answer(cx, conn, version, answer);
        None
    }
}
