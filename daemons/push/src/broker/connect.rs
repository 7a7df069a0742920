//! From a connection's first bytes to its session, and from its end to that of its session.

use std::sync::atomic::Ordering;

use sextant_mqtt::{
    AcceptOptions, AwaitingConnect, Connect, Connecting, Link, PacketType, ReasonCode, Version,
    frame,
};
use sextant_ring::core::{ConnId, SendError};
use sextant_ring::slot::SlotId;
use sextant_segment::AppendError;
use tracing::{debug, warn};

use super::admit::Admitted;
use super::conn::{Conn, Stage};
use super::gather::Gathered;
use super::presence::End;
use super::records::{self, Fact};
use super::session::{Owner, Session};
use super::store::Gated;
use super::transport;
use super::{Broker, Context, timer};
use crate::auth::{Credentials, Decision, Principal, Refusal, Verified};
use crate::bans::Banned;
use crate::home::home;
use crate::meters::{Closed, ConnectRefused};

impl Broker {
    // [MQTT-4.2.0-1]: TCP.
    pub(super) fn accepted(&mut self, cx: &mut Context, conn: ConnId) {
        // [MQTT-3.2.0-1], [MQTT-3.14.0-1]: what is not online yet is closed without a DISCONNECT.
        let awaiting = AwaitingConnect::new(cx.now().as_millis(), &self.settings.server);
        let deadline = awaiting.deadline();
        let held = Conn::new(conn, Stage::Awaiting { awaiting, gathered: Gathered::default() });
        *self.conns.reach(conn.index()) = Some(held);
        self.arm_conn(cx, conn, deadline);
    }

    pub(super) fn arm_conn(&mut self, cx: &mut Context, conn: ConnId, deadline_ms: u64) {
        let deadline = sextant_ring::time::Time::from_nanos(deadline_ms.saturating_mul(1_000_000));
        let timer = cx.arm(deadline, timer::key(timer::CONN, conn.to_bits()));
        if timer.is_none() {
            warn!("no timer left: a connection goes without its timeout");
        }
        if let Some(held) = self.conn(conn) {
            held.timer = timer;
        }
    }

    /// The time of a connection that is not online yet may be over, or that of its client.
    pub(super) fn conn_timer(&mut self, cx: &mut Context, conn: ConnId) {
        let now = cx.now().as_millis();
        let Some(held) = self.conn(conn) else { return };
        held.timer = None;
        let (over, next) = match &held.stage {
            Stage::Awaiting { awaiting, .. } => {
                (awaiting.handle_timeout(now).is_err(), Some(awaiting.deadline()))
            }
            Stage::Verifying { .. } | Stage::Proving { .. } => (true, None),
            Stage::Online { session, .. } => {
                let session = *session;
                return self.expiry_timer(cx, conn, session);
            }
            Stage::Waiting { .. } => return,
        };
        match next.filter(|_| !over) {
            Some(deadline) => self.arm_conn(cx, conn, deadline),
            None => {
                self.closes(cx, conn, Closed::ConnectTimeout);
                self.forget_conn(cx, conn);
                cx.finish(conn);
            }
        }
    }

    /// Bytes of MQTT arrived on a connection.
    pub(super) fn received_mqtt(&mut self, cx: &mut Context, conn: ConnId, data: &[u8]) {
        let Some(held) = self.conn(conn) else { return };
        match &mut held.stage {
            Stage::Awaiting { gathered, .. } if gathered.is_empty() => {
                self.read_connect(cx, conn, data, None);
            }
            Stage::Awaiting { gathered, .. } => {
                if let Some(bytes) = gathered.add(data) {
                    self.read_connect(cx, conn, &bytes, None);
                }
            }
            Stage::Waiting { bytes, .. } => {
                bytes.extend_from_slice(data);
                cx.pause(conn);
            }
            Stage::Verifying { bytes } => bytes.extend_from_slice(data),
            Stage::Proving { gathered } => {
                if let Some(bytes) = gathered.add(data) {
                    self.read_proof(cx, conn, bytes);
                }
            }
            Stage::Online { .. } => self.read_packets(cx, conn, data),
        }
    }

    /// Looks at all that a connection has sent so far, which begins with its CONNECT.
    pub(super) fn read_connect(
        &mut self,
        cx: &mut Context,
        conn: ConnId,
        bytes: &[u8],
        verified: Option<Principal>,
    ) {
        self.end_burst(cx);
        let limits = self.settings.server;
        let now = cx.now().as_millis();
        let first = match frame(bytes, limits.packet_bytes_max.get()) {
            Ok(Some(first)) => first,
            Ok(None) => return self.await_more(cx, conn, bytes),
            Err(error) => {
                debug!(%error, "a first packet that is none");
                self.closes(cx, conn, Closed::Malformed);
                self.drop_conn(cx, conn, Vec::new());
                return;
            }
        };
        let awaiting = AwaitingConnect::new(now, &limits);
        // [MQTT-3.1.4-1]
        let (connecting, connect) = match awaiting.handle(now, &first, &limits) {
            Ok(connect) => connect,
            Err(refused) => {
                debug!(%refused, "CONNECT refused");
                self.meters.connect_refused(ConnectRefused::Invalid);
                let mut answer = Vec::new();
                refused.answer(&mut answer);
                self.drop_conn(cx, conn, answer);
                return;
            }
        };
        let assigned;
        // [MQTT-3.1.3-5], [MQTT-3.1.3-6], [MQTT-3.1.3-7]
        let client_id = if connect.client_id.is_empty() {
            let before = self.wills.name_of(conn).map(str::to_owned);
            assigned = before.unwrap_or_else(|| self.assign_client_id(cx));
            assigned.as_str()
        } else {
            connect.client_id
        };
        let at_home = home(client_id, cx.cores());
        if at_home != cx.core() {
            return self.send_home(cx, conn, at_home, bytes);
        }
        if !self.traces.is_empty() {
            self.trace_connect(cx, conn, client_id, &connect, first.total_len);
        }
        let Some(connecting) = self.turn_away(cx, conn, connecting) else { return };
        let unix_ms = cx.clock().unix_ms;
        if self.bans.refuses(Banned::Client, client_id, unix_ms) {
            return self.refuse(cx, conn, connecting, Refusal::Banned);
        }
        if verified.is_none() {
            match self.admit(cx, conn, bytes) {
                Admitted::Now => {}
                Admitted::Later => return,
                Admitted::Never(wait) => return self.refuse_storm(cx, conn, connecting, wait),
            }
        }
        let principal = match verified {
            Some(principal) => principal.connected_as(client_id),
            None if connect.properties.auth_method.is_some() => {
                return self.prove(cx, conn, connecting, &connect, client_id, bytes);
            }
            None => match self.authenticate(cx, conn, client_id, &connect, bytes) {
                Ok(Some(principal)) => principal,
                Ok(None) => return,
                Err(refusal) => return self.refuse(cx, conn, connecting, refusal),
            },
        };
        if self.bans.refuses(Banned::User, principal.name(), unix_ms) {
            return self.refuse(cx, conn, connecting, Refusal::Banned);
        }
        let rest = &bytes[first.total_len..];
        let opened = self.open(cx, conn, connecting, &connect, client_id, principal, bytes);
        if opened && !rest.is_empty() {
            self.read_packets(cx, conn, rest);
        }
    }

    /// A CONNECT that is cut off is waited for; what is none is not `[MQTT-3.1.0-1]`.
    fn await_more(&mut self, cx: &mut Context, conn: ConnId, bytes: &[u8]) {
        if bytes.first().is_some_and(|first| first >> 4 != PacketType::Connect as u8) {
            debug!("a first packet that is no CONNECT");
            self.meters.connect_refused(ConnectRefused::Invalid);
            return self.drop_conn(cx, conn, Vec::new());
        }
        let max = self.settings.server.packet_bytes_max.get();
        if let Some(Stage::Awaiting { gathered, .. }) = self.conn(conn).map(|held| &mut held.stage)
        {
            *gathered = Gathered::cut_off(bytes.to_vec(), 0, max);
        }
    }

    /// A client identifier that nobody has, at home on this core.
    fn assign_client_id(&self, cx: &Context) -> String {
        loop {
            let mut random = [0u8; 10];
            // Without randomness from the system there is no daemon: it started with some.
            getrandom::fill(&mut random).expect("the system has randomness");
            let id = random.iter().fold("auto-".to_owned(), |id, byte| format!("{id}{byte:02x}"));
            // [MQTT-3.2.2-16]
            if home(&id, cx.cores()) == cx.core() && self.sessions.of_client(&id).is_none() {
                return id;
            }
        }
    }

    /// Who the client is; `None` while a password is being checked.
    fn authenticate(
        &mut self,
        cx: &mut Context,
        conn: ConnId,
        client_id: &str,
        connect: &Connect<'_>,
        bytes: &[u8],
    ) -> Result<Option<Principal>, Refusal> {
        let credentials = Credentials {
            client_id,
            user_name: connect.user_name,
            password: connect.password.map(sextant_mqtt::Secret::expose),
            version: connect.version,
        };
        let device = self.conn(conn).and_then(|held| held.transport()?.device().map(str::to_owned));
        let certified = device.and_then(|device| self.auth.decide_certified(&credentials, &device));
        let decide = || self.auth.decide(&credentials, cx.clock().unix_ms);
        match certified.unwrap_or_else(decide) {
            Decision::Admitted(principal) => Ok(Some(principal)),
            Decision::Refused(refusal) => Err(refusal),
            Decision::Verify(verification) => {
                self.verify(cx, conn, verification)?;
                cx.pause(conn);
                if let Some(held) = self.conn(conn) {
                    held.stage = Stage::Verifying { bytes: bytes.to_vec() };
                }
                Ok(None)
            }
        }
    }

    pub(super) fn verified(&mut self, cx: &mut Context, conn: ConnId, result: Verified) {
        let limits = self.settings.server;
        let now = cx.now().as_millis();
        let Some(held) = self.conn(conn) else { return };
        let Stage::Verifying { bytes } = &mut held.stage else { return };
        let bytes = std::mem::take(bytes);
        let awaiting = AwaitingConnect::new(now, &limits);
        held.stage = Stage::Awaiting { awaiting, gathered: Gathered::default() };
        cx.resume(conn);
        match result {
            Verified::Admitted(principal) => self.read_connect(cx, conn, &bytes, Some(principal)),
            Verified::Refused(refusal) => {
                let first = frame(&bytes, limits.packet_bytes_max.get()).ok().flatten();
                let awaiting = AwaitingConnect::new(now, &limits);
                let read = first.map(|first| awaiting.handle(now, &first, &limits));
                let Some(Ok((connecting, _))) = read else {
                    unreachable!("it was read before it was verified")
                };
                self.refuse(cx, conn, connecting, refusal);
            }
        }
    }

    pub(super) fn refuse(
        &mut self,
        cx: &mut Context,
        conn: ConnId,
        connecting: Connecting,
        why: Refusal,
    ) {
        self.meters.connect_refused(match why {
            // [MQTT-3.1.4-2]
            Refusal::BadCredentials => ConnectRefused::Credentials,
            Refusal::NotAuthorized | Refusal::Method => ConnectRefused::NotAuthorized,
            // [MQTT-3.1.3-8]
            Refusal::ClientIdNotValid => ConnectRefused::Invalid,
            Refusal::Banned => ConnectRefused::Banned,
            Refusal::Unavailable => ConnectRefused::Unavailable,
            Refusal::Busy => ConnectRefused::Busy,
        });
        self.refuse_with(cx, conn, connecting, why.into());
    }

    pub(super) fn refuse_with(
        &mut self,
        cx: &mut Context,
        conn: ConnId,
        connecting: Connecting,
        reason: ReasonCode,
    ) {
        self.refuse_because(cx, conn, connecting, reason, None);
    }

    pub(super) fn refuse_because(
        &mut self,
        cx: &mut Context,
        conn: ConnId,
        connecting: Connecting,
        reason: ReasonCode,
        why: Option<&str>,
    ) {
        let version = connecting.version();
        let mut answer = Vec::new();
        // [MQTT-4.12.0-4], [MQTT-4.13.2-1]
        // One that the client does not take is not sent; it is closed all the same.
        let _ = connecting.refuse(reason, why, &mut answer);
        self.refuse_with_answer(cx, conn, version, answer);
    }

    /// Refuses a CONNECT with a CONNACK that is made.
    pub(super) fn refuse_with_answer(
        &mut self,
        cx: &mut Context,
        conn: ConnId,
        version: Version,
        answer: Vec<u8>,
    ) {
        if self.is_traced(conn) {
            self.trace_sent(cx, conn, version, &answer);
        }
        self.drop_conn(cx, conn, answer);
    }

    /// Makes or resumes the session, and accepts; whether the connection is online then. `bytes`
    /// is all that it has sent.
    #[allow(clippy::too_many_arguments)]
    fn open(
        &mut self,
        cx: &mut Context,
        conn: ConnId,
        connecting: Connecting,
        connect: &Connect<'_>,
        client_id: &str,
        principal: Principal,
        bytes: &[u8],
    ) -> bool {
        if self.store.log.read_only().is_some() {
            self.meters.connect_refused(ConnectRefused::Unavailable);
            self.refuse_with(cx, conn, connecting, ReasonCode::ServerUnavailable);
            return false;
        }
        let online = self.shared.online.load(Ordering::Relaxed);
        if online >= self.settings.connections_max || cx.is_stopping() {
            self.meters.connect_refused(ConnectRefused::Busy);
            self.refuse_with(cx, conn, connecting, ReasonCode::ServerBusy);
            return false;
        }
        let forbidden = |topic: &str| topic.starts_with('$') || !principal.may_publish(topic);
        if connect.will.as_ref().is_some_and(|will| forbidden(will.topic)) {
            self.refuse(cx, conn, connecting, Refusal::NotAuthorized);
            return false;
        }
        // [MQTT-3.1.3-2]
        let found = self.sessions.of_client(client_id);
        let owner =
            found.and_then(|slot| self.sessions.get(slot)).map(|session| session.owner.name());
        if owner.is_some_and(|owner| owner != principal.name()) {
            // Another user's session, and what is queued for it, is not to be had by its name.
            self.refuse(cx, conn, connecting, Refusal::NotAuthorized);
            return false;
        }
        self.take_over(cx, client_id);
        // Without its connection it may have ended.
        let found = self.sessions.of_client(client_id);
        let (session_present, kept) = match found {
            // [MQTT-3.1.2-4], [MQTT-3.1.4-4], [3.1.1: MQTT-3.1.2-6]
            Some(session) if connect.clean_start => {
                let kept = self.sessions.get(session).is_some_and(Session::is_persistent);
                self.end_session(cx, session);
                (false, kept)
            }
            found => (found.is_some(), false),
        };
        match self.say_will(cx, conn, connect, (client_id, principal.name())) {
            // To be told that it begins anew, and to find its old session after a crash, would be a
            // lie; and so it would be to say that a will is taken which a crash takes back.
            Ok(said) if said || kept => {
                self.wait_for_disk(cx, conn, principal, bytes);
                return false;
            }
            Ok(_) => {}
            Err(AppendError::Backlog) if self.store.is_behind() => {
                self.wait_for_disk(cx, conn, principal, bytes);
                return false;
            }
            Err(error) => {
                warn!(%error, "a will cannot be kept");
                self.meters.connect_refused(ConnectRefused::Unavailable);
                self.refuse_with(cx, conn, connecting, ReasonCode::QuotaExceeded);
                return false;
            }
        }
        // [MQTT-3.1.2-5], [MQTT-3.1.2-6]
        let session = match found.filter(|_| session_present) {
            Some(session) => session,
            None => self.new_session(client_id, principal.clone()),
        };
        if let Some(session) = self.sessions.get_mut(session) {
            session.owner = Owner::Known(principal);
            session.expiry_s = connecting.session_expiry_s();
        }
        // A session that cannot be kept is not promised.
        let accepted = if self.keep_session(cx, session) {
            self.accept(cx, conn, session, connecting, connect, session_present)
        } else {
            self.meters.connect_refused(ConnectRefused::Unavailable);
            self.refuse_with(cx, conn, connecting, ReasonCode::QuotaExceeded);
            false
        };
        if !accepted && !session_present {
            self.end_session(cx, session);
        }
        accepted
    }

    /// Goes on with a CONNECT once what was said is on disk.
    fn wait_for_disk(
        &mut self,
        cx: &mut Context,
        conn: ConnId,
        principal: Principal,
        bytes: &[u8],
    ) {
        let Some(held) = self.conn(conn) else { return };
        held.stage = Stage::Verifying { bytes: bytes.to_vec() };
        cx.pause(conn);
        self.store.gate(Gated::Connect(conn, principal));
    }

    /// Sends the CONNACK, and joins the connection and its session.
    fn accept(
        &mut self,
        cx: &mut Context,
        conn: ConnId,
        slot: SlotId,
        connecting: Connecting,
        connect: &Connect<'_>,
        session_present: bool,
    ) -> bool {
        let auth_data = self.take_answer(conn);
        let Some(session) = self.sessions.get(slot) else { return false };
        let options = AcceptOptions {
            session_present,
            auth_data: auth_data.as_ref().map(String::as_bytes),
            assigned_client_id: connect.client_id.is_empty().then_some(&*session.client_id),
            ..AcceptOptions::default()
        };
        let mut answer = Vec::new();
        let now = cx.now().as_millis();
        // [MQTT-3.1.4-5]
        let version = connecting.version();
        let accepted = connecting.accept(now, &self.settings.server, &options, &mut answer);
        if accepted.is_ok() && self.is_traced(conn) {
            self.trace_sent(cx, conn, version, &answer);
        }
        match accepted.ok().filter(|_| self.send(cx, conn, &mut answer).is_ok()) {
            Some(link) => {
                self.give_will(conn, slot);
                self.attach(cx, conn, slot, link);
                self.came(cx, slot, session_present);
                true
            }
            None => {
                self.drop_conn(cx, conn, Vec::new());
                false
            }
        }
    }

    fn new_session(&mut self, client_id: &str, principal: Principal) -> SlotId {
        let number = self.next_number;
        self.next_number += 1;
        let limits = self.settings.session;
        let owner = Owner::Known(principal);
        self.sessions.insert(Session::new(client_id.into(), owner, number, limits))
    }

    /// Joins a connection and its session.
    fn attach(&mut self, cx: &mut Context, conn: ConnId, slot: SlotId, link: Link) {
        let watched = link.deadline().is_some();
        let peer_receive_max = link.peer_receive_max();
        if self.conn(conn).is_some() {
            self.aliases.came(&link);
        }
        if let Some(held) = self.conn(conn) {
            if let Some(timer) = held.timer.take() {
                cx.disarm(timer);
            }
            held.stage = Stage::Online { link, session: slot };
            self.shared.online.fetch_add(1, Ordering::Relaxed);
        }
        if watched {
            self.watch(cx);
        }
        if let Some(expiry) = self.expiry(cx, slot) {
            self.arm_conn(cx, conn, expiry);
        }
        self.receivers_change(cx);
        let unix_ms = cx.clock().unix_ms;
        let Some(session) = self.sessions.get_mut(slot) else { return };
        if let Some(timer) = session.timer.take() {
            cx.disarm(timer);
        }
        session.conn = Some(conn);
        session.since = unix_ms;
        // [MQTT-4.4.0-1], [3.1.1: MQTT-4.4.0-1]
        session.flight.resume(peer_receive_max);
        self.note_presence(slot);
        self.note_shares(cx, slot, true);
        self.drop_forbidden(cx, slot);
        self.look_at_device(slot);
        self.resend(cx, slot);
        self.claim_waiting(cx, slot);
    }

    /// Gives a session that outlives its connection its record in the log, if it has none; whether
    /// all is as it should be then.
    fn keep_session(&mut self, cx: &mut Context, slot: SlotId) -> bool {
        let Some(session) = self.sessions.get_mut(slot) else { return false };
        // [MQTT-3.1.2-23]
        if session.record.is_some() || session.expiry_s == 0 {
            return true;
        }
        let mut content = Vec::new();
        session.to_record().put(&mut content);
        let unix_ms = cx.clock().unix_ms;
        match self.store.replace(records::SESSION, &content, None, unix_ms) {
            Ok(record) => {
                session.record = Some(record);
                true
            }
            Err(error) => {
                warn!(%error, "a session cannot be kept");
                false
            }
        }
    }

    /// Says on disk that a session has, or has lost, its connection.
    fn note_presence(&mut self, slot: SlotId) {
        let Some(session) = self.sessions.get(slot) else { return };
        if session.is_persistent() {
            let left_at = if session.conn.is_some() { 0 } else { session.since.max(1) };
            self.store.fact(&Fact::Presence(session.number, session.expiry_s, left_at));
        }
    }

    /// An older connection of the same client gives way `[MQTT-3.1.4-3]`,
    /// `[3.1.1: MQTT-3.1.4-2]`.
    fn take_over(&mut self, cx: &mut Context, client_id: &str) {
        let session = self.sessions.of_client(client_id).and_then(|slot| self.sessions.get(slot));
        if let Some(older) = session.and_then(|session| session.conn) {
            self.disconnect(cx, older, ReasonCode::SessionTakenOver, Closed::Server);
        }
    }

    /// Ends a connection, with the reason where the client's version has one.
    pub(super) fn disconnect(
        &mut self,
        cx: &mut Context,
        conn: ConnId,
        reason: ReasonCode,
        why: Closed,
    ) {
        if self.conn(conn).is_none() {
            return;
        }
        // [MQTT-3.14.4-1], [MQTT-3.14.4-2], [MQTT-4.13.1-1], [3.1.1: MQTT-4.8.0-1]
        self.write(cx, conn, |link, out| link.disconnect(reason, None, out));
        self.closes(cx, conn, why);
        self.detach(cx, conn, End { reason: Some(reason), ..End::silent(why) });
        cx.finish(conn);
    }

    /// Ends a connection that has no session, with this last packet, if it is not empty.
    pub(super) fn drop_conn(&mut self, cx: &mut Context, conn: ConnId, mut last: Vec<u8>) {
        // [MQTT-3.1.4-6]: what it sent behind its CONNECT is not looked at.
        if !last.is_empty() {
            // It may be gone; then there is nobody to tell.
            let _ = self.send(cx, conn, &mut last);
        }
        self.forget_conn(cx, conn);
        cx.finish(conn);
    }

    /// Forgets a connection; gives the session that it had.
    pub(super) fn forget_conn(&mut self, cx: &mut Context, conn: ConnId) -> Option<SlotId> {
        self.conn(conn)?;
        let mut held = self.conns.get_mut(conn.index())?.take()?;
        self.say_goodbye(cx, &mut held);
        if held.paused {
            self.stop_throttling(cx, conn);
        }
        if !self.traces.is_empty() {
            self.trace_gone(conn);
        }
        if let Some(timer) = held.timer {
            cx.disarm(timer);
        }
        self.verifying.remove(&conn.to_bits());
        self.drop_waiting_will(conn);
        if let Some(reading) = held.apart.and_then(|apart| apart.reading) {
            self.stop_reading(cx, *reading);
        }
        match held.stage {
            Stage::Online { session, link } => {
                self.shared.online.fetch_sub(1, Ordering::Relaxed);
                self.aliases.went(&link);
                if link.deadline().is_some() {
                    self.unwatch();
                }
                Some(session)
            }
            Stage::Waiting { turn, .. } => {
                self.admission.leave(turn);
                None
            }
            Stage::Awaiting { .. } | Stage::Verifying { .. } | Stage::Proving { .. } => None,
        }
    }

    /// Parts a session from its connection. Its will is published unless its client left in good
    /// order.
    pub(super) fn detach(&mut self, cx: &mut Context, conn: ConnId, end: End) {
        let Some(slot) = self.forget_conn(cx, conn) else { return };
        self.receivers_change(cx);
        let clock = cx.clock();
        let Some(session) = self.sessions.get_mut(slot) else { return };
        session.conn = None;
        session.since = clock.unix_ms;
        let ends = session.expiry_s == 0;
        self.went(cx, slot, end);
        self.look_at_device(slot);
        self.note_shares(cx, slot, false);
        let Some(session) = self.sessions.get_mut(slot) else { return };
        let waits = session.will_due_at().is_some_and(|due| due > clock.unix_ms);
        // [MQTT-3.1.2-8], [MQTT-3.1.2-10]
        match session.will.take() {
            Some(will) if end.in_order => self.forget_will(&will),
            // The log has it for the next start.
            Some(_) if cx.is_stopping() => {}
            Some(will) if waits => session.will = Some(will),
            Some(will) => self.publish_will(cx, will),
            None => {}
        }
        // [MQTT-4.1.0-1], [MQTT-4.1.0-2]
        if ends {
            self.end_session(cx, slot);
            return;
        }
        if let Some(session) = self.sessions.get_mut(slot) {
            session.flight.shrink();
        }
        self.note_presence(slot);
        self.arm_session(cx, slot);
    }

    /// Arms the timer of a session without connection: for its will, then for its end.
    pub(super) fn arm_session(&mut self, cx: &mut Context, slot: SlotId) {
        let unix_ms = cx.clock().unix_ms;
        let Some(session) = self.sessions.get_mut(slot) else { return };
        let Some(due) = session.due_at() else { return };
        // No longer than from now on, whatever the wall clock said when the client left.
        let longest = due.saturating_sub(session.since);
        let wait = std::time::Duration::from_millis(due.saturating_sub(unix_ms).min(longest));
        let key = timer::key(timer::SESSION, slot.index() as u64);
        session.timer = cx.arm(cx.now() + wait, key);
    }

    /// What the timer of a session was armed for is due, even if the wall clock was set back
    /// meanwhile.
    pub(super) fn session_timer(&mut self, cx: &mut Context, index: u64) {
        let unix_ms = cx.clock().unix_ms;
        let Some(slot) = self.sessions.id_at(index as usize) else { return };
        let Some(session) = self.sessions.get_mut(slot) else { return };
        session.timer = None;
        if session.conn.is_some() {
            return;
        }
        let unix_ms = unix_ms.max(session.due_at().unwrap_or(0));
        if session.will_due_at().is_some_and(|due| due <= unix_ms)
            && let Some(will) = session.will.take()
        {
            self.publish_will(cx, will);
        }
        let Some(session) = self.sessions.get_mut(slot) else { return };
        if session.ends_at().is_some_and(|end| end <= unix_ms) {
            self.end_session(cx, slot);
        } else {
            self.arm_session(cx, slot);
        }
    }

    /// Appends a packet to what a connection sends. One that its client does not take is left
    /// out: the standard asks for no more.
    pub(super) fn write(
        &mut self,
        cx: &mut Context,
        conn: ConnId,
        encode: impl FnOnce(&mut Link, &mut Vec<u8>) -> Result<(), sextant_mqtt::EncodeError>,
    ) {
        let mut out = std::mem::take(&mut self.scratch);
        out.clear();
        let encoded = match self.conn(conn).map(|held| &mut held.stage) {
            Some(Stage::Online { link, .. }) => {
                encode(link, &mut out).is_ok().then(|| link.version())
            }
            _ => None,
        };
        if let Some(version) = encoded
            && self.is_traced(conn)
        {
            self.trace_sent(cx, conn, version, &out);
        }
        let full = encoded.is_some()
            && !out.is_empty()
            && self.send(cx, conn, &mut out) == Err(SendError::Full);
        self.scratch = out;
        if full {
            self.cut_off(cx, conn);
        }
    }

    /// Sends a packet, or several; they are framed in place.
    pub(super) fn send(
        &mut self,
        cx: &mut Context,
        conn: ConnId,
        packet: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        let transport = self.conn(conn).and_then(Conn::transport_mut);
        transport::send(cx, conn, transport, packet, None)
    }
}

impl Session {
    fn will_due_at(&self) -> Option<u64> {
        let will = self.will.as_ref()?;
        let delay_s = will.said.delay_s.min(self.expiry_s);
        Some((self.since + u64::from(delay_s) * 1000).max(will.not_before))
    }

    /// When a session without connection ends; `None` is never.
    pub(super) fn ends_at(&self) -> Option<u64> {
        (self.expiry_s != u32::MAX).then(|| self.since + u64::from(self.expiry_s) * 1000)
    }

    fn due_at(&self) -> Option<u64> {
        [self.will_due_at(), self.ends_at()].into_iter().flatten().min()
    }
}
