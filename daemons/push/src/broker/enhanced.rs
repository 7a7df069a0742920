//! Enhanced authentication (MQTT 5, section 4.12): a client that names a method in its CONNECT
//! proves who it is in AUTH packets, before its CONNACK or at any time after.
//!
//! ```text
//!   CONNECT, method ──► [home core] ──► begin ──► AUTH 0x18 ──► Stage::Proving
//!                                                                   │ AUTH 0x18
//!                              as any other that was let in ◄── finish ──► CONNACK 0x86
//!   online: AUTH 0x19 ──► begin ──► AUTH 0x18 … AUTH 0x18 ──► finish ──► AUTH 0x00
//!                                                                   └──► DISCONNECT 0x87
//! ```
//!
//! Its CONNECT waits with the connection, and is read again when the client has proved who it is,
//! as after the check of a password. Whoever authenticates again stays who it was: its session is
//! that user's. What it may do is then what it may do by the rules of now.

use sextant_mqtt::{
    Auth, AwaitingConnect, Connect, Connecting, ConnectingEvent, Fault, ReasonCode, frame,
};
use sextant_ring::core::ConnId;
use sextant_ring::slot::SlotId;
use tracing::debug;

use super::conn::Stage;
use super::gather::Gathered;
use super::packets::Flow;
use super::session::Owner;
use super::{Broker, Context};
use crate::auth::{Principal, Proving, Refusal};
use crate::meters::Closed;

/// What a connection has of an enhanced authentication.
#[derive(Debug)]
pub(super) enum Enhanced {
    /// The client is to prove who it is.
    Proving(Proving),
    /// It has; its CONNACK says this.
    Proved(String),
}

impl Broker {
    /// A CONNECT names a method. `bytes` is all that the connection has sent.
    pub(super) fn prove(
        &mut self,
        cx: &mut Context,
        conn: ConnId,
        mut connecting: Connecting,
        connect: &Connect<'_>,
        client_id: &str,
        bytes: &[u8],
    ) {
        let method = connect.properties.auth_method.unwrap_or_default();
        let data = connect.properties.auth_data.map(sextant_mqtt::Secret::expose);
        let (proving, challenge) =
            match self.auth.begin(method, client_id, data.unwrap_or_default()) {
                Ok(begun) => begun,
                // [MQTT-4.12.0-1]: to let it in would tell it that its method succeeded.
                Err(refusal) => return self.refuse(cx, conn, connecting, refusal),
            };
        let mut out = Vec::new();
        // [MQTT-4.12.0-2]
        let written = connecting.challenge(Some(challenge.as_bytes()), &mut out);
        if written.is_err() || self.send(cx, conn, &mut out).is_err() {
            // It takes no packet as large as that.
            return self.drop_conn(cx, conn, Vec::new());
        }
        let Some(held) = self.conn(conn) else { return };
        held.set_enhanced(Enhanced::Proving(proving));
        held.stage = Stage::Proving { gathered: Gathered::default() };
        // What it sent behind its CONNECT without waiting is looked at, and refused.
        self.read_proof(cx, conn, bytes.to_vec());
    }

    /// Looks at what came behind a CONNECT whose client is to prove who it is; `bytes` begins with
    /// that.
    pub(super) fn read_proof(&mut self, cx: &mut Context, conn: ConnId, bytes: Vec<u8>) {
        self.end_burst(cx);
        let limits = self.settings.server;
        let now = cx.now().as_millis();
        let Some(held) = self.conn(conn) else { return };
        let Stage::Proving { gathered } = &mut held.stage else { return };
        let first = frame(&bytes, limits.packet_bytes_max.get()).ok().flatten();
        let awaiting = AwaitingConnect::new(now, &limits);
        let Some(Ok((mut connecting, _))) =
            first.as_ref().map(|first| awaiting.handle(now, first, &limits))
        else {
            unreachable!("it was read before a proof was asked for")
        };
        let connect_len = first.map_or(0, |first| first.total_len);
        let second = match frame(&bytes[connect_len..], limits.packet_bytes_max.get()) {
            Ok(Some(second)) => second,
            Ok(None) => {
                *gathered = Gathered::cut_off(bytes, connect_len, limits.packet_bytes_max.get());
                return;
            }
            Err(error) => {
                let reason = Fault::from(error).reason();
                self.meters.closed(Closed::Malformed);
                return self.refuse_with(cx, conn, connecting, reason);
            }
        };
        // [MQTT-3.1.2-30]
        let auth = match connecting.handle(now, &second) {
            Ok(ConnectingEvent::Auth(auth)) => auth,
            Ok(ConnectingEvent::Disconnect(_)) => {
                self.meters.closed(Closed::Disconnected);
                return self.drop_conn(cx, conn, Vec::new());
            }
            Err(fault) => {
                debug!(%fault, "a client broke a rule while it authenticated");
                self.meters.closed(Closed::Protocol);
                return self.refuse_with(cx, conn, connecting, fault.reason());
            }
        };
        match self.finish_proof(conn, &auth) {
            Ok(principal) => {
                let mut rest = bytes[..connect_len].to_vec();
                rest.extend_from_slice(&bytes[connect_len + second.total_len..]);
                self.proved(cx, conn, &rest, principal);
            }
            // [MQTT-4.12.0-4]
            Err(refusal) => self.refuse(cx, conn, connecting, refusal),
        }
    }

    /// A client has proved who it is: its CONNECT goes on, with what came behind the proof.
    fn proved(&mut self, cx: &mut Context, conn: ConnId, bytes: &[u8], principal: Principal) {
        let awaiting = AwaitingConnect::new(cx.now().as_millis(), &self.settings.server);
        let Some(held) = self.conn(conn) else { return };
        held.stage = Stage::Awaiting { awaiting, gathered: Gathered::default() };
        self.read_connect(cx, conn, bytes, Some(principal));
    }

    /// Takes a proof; what is to be said for it waits with the connection.
    fn finish_proof(&mut self, conn: ConnId, auth: &Auth<'_>) -> Result<Principal, Refusal> {
        let data = auth.properties.auth_data.map(sextant_mqtt::Secret::expose);
        let held = self.conn(conn).ok_or(Refusal::BadCredentials)?;
        let Some(Enhanced::Proving(proving)) = held.take_enhanced() else {
            return Err(Refusal::BadCredentials);
        };
        let (principal, answer) = proving.finish(data.unwrap_or_default())?;
        held.set_enhanced(Enhanced::Proved(answer));
        Ok(principal)
    }

    /// What a CONNACK says of a proof.
    pub(super) fn take_answer(&mut self, conn: ConnId) -> Option<String> {
        match self.conn(conn)?.take_enhanced()? {
            Enhanced::Proved(answer) => Some(answer),
            Enhanced::Proving(_) => None,
        }
    }

    /// A client that is online authenticates again, or goes on with it.
    pub(super) fn authenticate_again(
        &mut self,
        cx: &mut Context,
        conn: ConnId,
        slot: SlotId,
        auth: &Auth<'_>,
    ) -> Flow {
        let again = match auth.reason {
            ReasonCode::ReAuthenticate => self.begin_again(cx, conn, slot, auth),
            _ => self.finish_again(cx, conn, slot, auth),
        };
        if let Err(reason) = again {
            // [MQTT-4.12.1-2]
            self.disconnect(cx, conn, reason, Closed::Protocol);
        }
        if self.conn(conn).is_some() { Flow::Continue } else { Flow::Ended }
    }

    fn begin_again(
        &mut self,
        cx: &mut Context,
        conn: ConnId,
        slot: SlotId,
        auth: &Auth<'_>,
    ) -> Result<(), ReasonCode> {
        let Some(session) = self.sessions.get(slot) else { return Ok(()) };
        // [MQTT-4.12.1-1]: the link has compared it with that of CONNECT.
        let method = auth.properties.auth_method.unwrap_or_default();
        let data = auth.properties.auth_data.map(sextant_mqtt::Secret::expose);
        let begun = self.auth.begin(method, &session.client_id, data.unwrap_or_default());
        let (proving, challenge) = begun.map_err(|refusal| match refusal {
            // By a change of the configuration.
            Refusal::Method => ReasonCode::BadAuthenticationMethod,
            _ => ReasonCode::NotAuthorized,
        })?;
        if let Some(held) = self.conn(conn) {
            held.set_enhanced(Enhanced::Proving(proving));
        }
        self.write(cx, conn, |link, out| {
            link.auth(ReasonCode::ContinueAuthentication, Some(challenge.as_bytes()), out)
        });
        Ok(())
    }

    fn finish_again(
        &mut self,
        cx: &mut Context,
        conn: ConnId,
        slot: SlotId,
        auth: &Auth<'_>,
    ) -> Result<(), ReasonCode> {
        let Some(held) = self.conn(conn) else { return Ok(()) };
        if !matches!(held.enhanced(), Some(Enhanced::Proving(_))) {
            return Err(ReasonCode::ProtocolError); // Nothing was asked.
        }
        let refused = |_: Refusal| ReasonCode::NotAuthorized;
        let principal = self.finish_proof(conn, auth).map_err(refused)?;
        let answer = self.take_answer(conn).unwrap_or_default();
        let Some(session) = self.sessions.get_mut(slot) else { return Ok(()) };
        if session.owner.name() != principal.name() {
            return Err(ReasonCode::NotAuthorized);
        }
        session.owner = Owner::Known(principal);
        self.drop_forbidden(cx, slot);
        self.look_at_device(slot);
        self.write(cx, conn, |link, out| {
            link.auth(ReasonCode::Success, Some(answer.as_bytes()), out)
        });
        Ok(())
    }
}
