//! What operators ask of a core's clients: to be told of them, and to end them.
//!
//! A core looks at a bounded number of sessions and of bytes for one question, and says where to
//! go on; so a core with a million sessions stalls for nobody's listing.

use std::net::SocketAddr;

use sextant_mqtt::ReasonCode;
use sextant_ring::core::ConnId;
use sextant_ring::slot::SlotId;
use tokio::sync::oneshot;

use super::conn::Stage;
use super::session::Session;
use super::store::Gated;
use super::{Broker, Context, Then};
use crate::bans::Banned;
use crate::control::clients::{
    Client, ClientDetail, Connection, Evicted, Kicked, Listed, Listing, Subscribed,
};
use crate::meters::Closed;

/// Sessions that are looked at for one question.
const LOOKED_AT_MAX: usize = 4096;
/// Bytes of identifiers that are looked at for one question, and of filters that are told; the
/// last one may go beyond.
const BYTES_MAX: usize = 1 << 20;
/// Connections that are closed for one question, each with all that its end brings.
const EVICTED_MAX: usize = 256;
/// Peer addresses that are asked for at a time; whoever asks for more is not told.
const PEERS_ASKED_MAX: usize = 64;

/// Somebody who is told of a client as soon as its peer address is known.
pub(super) struct PeerAsked {
    conn: ConnId,
    detail: ClientDetail,
    reply: oneshot::Sender<Option<ClientDetail>>,
}

impl Broker {
    /// Tells of clients, as many as one look finds.
    pub(super) fn list_clients(&self, cx: &Context, listing: &Listing) -> Listed {
        let span = self.sessions.span();
        let end = span.min(listing.from.saturating_add(LOOKED_AT_MAX));
        let mut clients = Vec::new();
        let mut bytes = 0;
        for at in listing.from..end {
            if clients.len() >= listing.limit || bytes >= BYTES_MAX {
                return Listed { clients, next: Some(at) };
            }
            let slot = self.sessions.id_at(at);
            let Some(session) = slot.and_then(|slot| self.sessions.get(slot)) else { continue };
            bytes += session.client_id.len();
            if listing.like.matches(&session.client_id) {
                bytes += session.owner.name().len();
                clients.push(self.client(cx, session));
            }
        }
        Listed { clients, next: (end < span).then_some(end) }
    }

    fn client(&self, cx: &Context, session: &Session) -> Client {
        let held = session.conn.and_then(|conn| self.conns.get(conn.index())?.as_ref());
        let connection = held.and_then(|held| match &held.stage {
            Stage::Online { link, .. } => Some(Connection {
                version: link.version(),
                keep_alive_s: link.keep_alive_s(),
                unsent_bytes: cx.unsent(held.id),
            }),
            Stage::Awaiting { .. }
            | Stage::Waiting { .. }
            | Stage::Verifying { .. }
            | Stage::Proving { .. } => None,
        });
        Client {
            client_id: session.client_id.clone(),
            user: session.owner.name().into(),
            connection,
            since: session.since,
            session_expiry_s: session.expiry_s,
            subscriptions: session.subscriptions.len(),
            queued: session.queue.len(),
            queued_bytes: session.queue.bytes(),
            in_flight: session.flight.inflight_len(),
        }
    }

    /// Tells of one client. One that is connected is told of when the kernel has said where it
    /// comes from.
    pub(super) fn tell_client(
        &mut self,
        cx: &mut Context,
        client_id: &str,
        reply: oneshot::Sender<Option<ClientDetail>>,
    ) {
        let slot = self.sessions.of_client(client_id);
        let Some(session) = slot.and_then(|slot| self.sessions.get(slot)) else {
            // Whoever asked may have gone; so everywhere below.
            let _ = reply.send(None);
            return;
        };
        let mut bytes = 0;
        let told = session.subscriptions.iter().take_while(|held| {
            let room = bytes < BYTES_MAX;
            bytes += held.filter.len();
            room
        });
        let filters = told.map(|held| Subscribed {
            filter: (*held.filter).into(),
            qos: held.qos,
            no_local: held.no_local,
            retain_as_published: held.retain_as_published,
            subscription_id: held.subscription_id,
        });
        let filters = filters.collect();
        let detail = ClientDetail { client: self.client(cx, session), filters, peer: None };
        match session.conn {
            Some(conn) if self.peers_asked.len() < PEERS_ASKED_MAX => {
                cx.ask_peer(conn);
                self.peers_asked.push(PeerAsked { conn, detail, reply });
            }
            _ => {
                let _ = reply.send(Some(detail));
            }
        }
    }

    /// The kernel has said where a connection comes from, or does not know. Of one behind a proxy,
    /// that has said it.
    pub(super) fn peer_known(&mut self, conn: ConnId, peer: Option<SocketAddr>) {
        let told = self.conn(conn).and_then(|held| held.transport()?.peer());
        let peer = told.or(peer);
        for asked in self.peers_asked.extract_if(.., |asked| asked.conn == conn) {
            let _ = asked.reply.send(Some(ClientDetail { peer, ..asked.detail }));
        }
    }

    /// Of a connection that has ended the kernel says nothing any more.
    pub(super) fn give_up_on_peers(&mut self) {
        let gone: Vec<ConnId> = self.peers_asked.iter().map(|asked| asked.conn).collect();
        for conn in gone {
            if self.conn(conn).is_none() {
                self.peer_known(conn, None);
            }
        }
    }

    /// Ends a client's connection, and its session with it if `session`; that is on disk when it
    /// is answered.
    pub(super) fn kick(
        &mut self,
        cx: &mut Context,
        client_id: &str,
        session: bool,
        reply: oneshot::Sender<Kicked>,
    ) {
        let Some(slot) = self.sessions.of_client(client_id) else {
            let _ = reply.send(Kicked::Unknown);
            return;
        };
        let connected = self.kick_slot(cx, slot);
        if !session {
            let _ = reply.send(if connected { Kicked::Done } else { Kicked::NotConnected });
            return;
        }
        // Without its connection it may have ended.
        if self.sessions.get(slot).is_some() {
            self.end_session(cx, slot);
        }
        let ticket = self.open_ticket(cx, Then::Kicked(reply));
        self.store.gate(Gated::Part(ticket));
    }

    /// Ends the connections of whoever is banned, as many as one look finds.
    pub(super) fn evict(&mut self, cx: &mut Context, from: usize) -> Evicted {
        let unix_ms = cx.clock().unix_ms;
        let span = self.sessions.span();
        let end = span.min(from.saturating_add(LOOKED_AT_MAX));
        let mut disconnected = 0;
        for at in from..end {
            if disconnected == EVICTED_MAX {
                return Evicted { disconnected, next: Some(at) };
            }
            let Some(slot) = self.sessions.id_at(at) else { continue };
            let Some(session) = self.sessions.get(slot) else { continue };
            let banned = self.bans.refuses(Banned::User, session.owner.name(), unix_ms)
                || self.bans.refuses(Banned::Client, &session.client_id, unix_ms);
            disconnected += usize::from(banned && self.kick_slot(cx, slot));
        }
        Evicted { disconnected, next: (end < span).then_some(end) }
    }

    /// Ends the connection of a session; whether it had one.
    fn kick_slot(&mut self, cx: &mut Context, slot: SlotId) -> bool {
        let Some(conn) = self.sessions.get(slot).and_then(|session| session.conn) else {
            return false;
        };
        self.disconnect(cx, conn, ReasonCode::AdministrativeAction, Closed::Kicked);
        true
    }
}
