//! What this core tells of clients that come and go ([`crate::presence`]).
//!
//! An event is noted where it happens and told at the turn's end: to tell of it is to publish,
//! which may end other connections, and that is noted in turn. Of a client that nobody watches
//! nothing is noted.

use std::collections::VecDeque;

use sextant_mqtt::ReasonCode;
use sextant_ring::slot::SlotId;

use super::conn::Stage;
use super::message::Incoming;
use super::session::Session;
use super::{Broker, Context};
use crate::meters::Closed;
use crate::presence::{Audience, Change, Event, topic};

/// How a connection ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) why: Closed,
    /// Of the DISCONNECT that was sent or received.
    pub(super) reason: Option<ReasonCode>,
    /// Whether its client left in good order, so that its will is not published.
    pub(super) in_order: bool,
}

impl End {
    /// Without a DISCONNECT.
    pub(super) fn silent(why: Closed) -> End {
        End { why, reason: None, in_order: false }
    }
}

/// What this core has to tell.
pub(super) struct Presence {
    audience: Audience,
    /// As many as connections that begin or end in one turn.
    noted: VecDeque<Event>,
}

impl Presence {
    pub(super) fn new(audience: Audience) -> Presence {
        Presence { audience, noted: VecDeque::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.noted.len()
    }
}

impl Broker {
    /// A session has got its connection.
    pub(super) fn came(&mut self, cx: &Context, slot: SlotId, session_present: bool) {
        let Some(session) = self.sessions.get(slot) else { return };
        let held = session.conn.and_then(|conn| self.conns.get(conn.index())?.as_ref());
        let Some(Stage::Online { link, .. }) = held.map(|held| &held.stage) else { return };
        let change = Change::Online {
            version: link.version(),
            keep_alive_s: link.keep_alive_s(),
            session_present,
        };
        self.note(cx, slot, change);
    }

    /// A session has lost its connection.
    pub(super) fn went(&mut self, cx: &Context, slot: SlotId, end: End) {
        self.note(cx, slot, Change::Offline { why: end.why.name(), reason: end.reason });
    }

    fn note(&mut self, cx: &Context, slot: SlotId, change: Change) {
        let Some(session) = self.sessions.get(slot) else { return };
        if self.presence.audience.outlet.is_none() && !self.is_watched(cx, session) {
            return;
        }
        let event = Event {
            at: cx.clock().unix_ms,
            client_id: session.client_id.clone(),
            user: session.owner.name().into(),
            session_expiry_s: session.expiry_s,
            change,
        };
        self.presence.noted.push_back(event);
    }

    /// Whether somebody may have subscribed to what is told of a client.
    fn is_watched(&self, cx: &Context, session: &Session) -> bool {
        if !self.presence.audience.topic || cx.is_stopping() {
            return false;
        }
        let topic = topic(&session.client_id);
        self.shares.len() > 0
            || self.filters.matches(&topic, |_| {}) > 0
            || self.interest.matches(&topic, |_| {}) > 0
    }

    /// Tells what was noted in this turn.
    pub(super) fn tell_presence(&mut self, cx: &mut Context) {
        while let Some(event) = self.presence.noted.pop_front() {
            if self.presence.audience.topic && !cx.is_stopping() {
                let (topic, payload) = (topic(&event.client_id), event.to_json());
                let incoming = Incoming { payload: &payload, ..Incoming::at_most_once(&topic) };
                // At QoS 0, and kept nowhere, nothing can be refused.
                let _ = self.route(cx, &incoming, None);
            }
            if let Some(outlet) = &self.presence.audience.outlet {
                outlet.tell(event);
            }
        }
    }
}
