//! What either end of a connection keeps when the connection is gone (section 4.1): the QoS 1
//! and 2 messages it sent and that are not answered to the end, and the identifiers of QoS 2
//! messages it received and that are not released.
//!
//! The queue of messages that wait for room, subscriptions and expiry are the daemon's; so is
//! making any of it durable, for which a session can be walked and restored.
//!
//! ```text
//!                 ┌─ PUBACK ──────────────────────────────► Acknowledged / Refused
//! begin(QoS 1) ─► AwaitPuback
//! begin(QoS 2) ─► AwaitPubrec ── PUBREC ──► AwaitPubcomp ── PUBCOMP ──► Completed
//!                 └─ PUBREC ≥ 0x80 ─► Refused
//!
//! flights, in the order they were begun:
//! | sent on this connection ............ | unsent: to be sent again | <- begin() appends
//!   `counted` of them use the peer's       (only after resume())
//!   Receive Maximum
//! ```

use std::collections::VecDeque;

use crate::packet::{PacketId, QoS};
use crate::reason::ReasonCode;

/// The most messages in flight, whatever the limits say. Finding an identifier that is free can
/// take a look at each message in flight, once the identifiers have gone round.
pub const INFLIGHT_MAX: u16 = 8192;

/// The most identifiers reserved for SUBSCRIBE and UNSUBSCRIBE.
pub const RESERVED_MAX: u16 = 1024;

/// How much a session may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// Messages in flight to the peer; more than [`INFLIGHT_MAX`] counts as that many.
    pub inflight_max: u16,
    /// QoS 2 messages of the peer that are not released. A peer that is told a Receive Maximum
    /// can have twice as many after a reconnect: those of before, and new ones.
    pub received_max: u16,
}

impl Default for SessionLimits {
    fn default() -> Self {
        SessionLimits { inflight_max: 64, received_max: 128 }
    }
}

/// A message in flight, and what the peer must say next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inflight<M> {
    /// QoS 1: PUBACK. To be sent again as PUBLISH with DUP `[MQTT-3.3.1-1]`.
    AwaitPuback(M),
    /// QoS 2: PUBREC. To be sent again as PUBLISH with DUP `[MQTT-3.3.1-1]`.
    AwaitPubrec(M),
    /// QoS 2, the message is the peer's: PUBCOMP. To be sent again as PUBREL.
    AwaitPubcomp,
}

/// What a PUBACK meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Puback<M> {
    /// The message arrived.
    Acknowledged(M),
    /// The peer refused it; it is not sent again.
    Refused(M),
    /// Nothing with this identifier is in flight.
    Unknown,
    /// What is in flight with this identifier awaits something else: a protocol error.
    WrongState,
}

/// What a PUBREC meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pubrec<M> {
    /// The message arrived; send PUBREL `[MQTT-4.3.3-4]`.
    Release(M),
    /// The PUBREL was asked for again; send it again.
    ReleaseAgain,
    /// The peer refused the message: the exchange is over `[MQTT-4.3.3-4]`.
    Refused(M),
    /// Nothing with this identifier is in flight; in MQTT 5 send PUBREL with
    /// [`ReasonCode::PacketIdentifierNotFound`], in 3.1.1 PUBREL.
    Unknown,
    /// What is in flight with this identifier awaits something else: a protocol error.
    WrongState,
}

/// What a PUBCOMP meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pubcomp {
    /// The exchange is over.
    Completed,
    /// Nothing with this identifier is in flight.
    Unknown,
    /// What is in flight with this identifier awaits something else: a protocol error.
    WrongState,
}

/// Whether a QoS 2 PUBLISH is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// It is: deliver it, then send PUBREC `[MQTT-4.3.3-8]`.
    First,
    /// It was delivered before: send PUBREC only `[MQTT-4.3.3-10]`.
    Duplicate,
    /// Too many are unreleased ([`SessionLimits::received_max`]): refuse it with
    /// [`ReasonCode::QuotaExceeded`], or close.
    Full,
}

/// Whether a PUBREL found its PUBLISH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    /// It did: send PUBCOMP `[MQTT-4.3.3-11]`.
    Known,
    /// It did not: send PUBCOMP, in MQTT 5 with [`ReasonCode::PacketIdentifierNotFound`].
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    AwaitPuback,
    AwaitPubrec,
    AwaitPubcomp,
    /// The identifier of a SUBSCRIBE or UNSUBSCRIBE.
    Reserved,
}

#[derive(Debug)]
struct Flight<M> {
    /// Present exactly in `AwaitPuback` and `AwaitPubrec`.
    message: Option<M>,
    packet_id: PacketId,
    state: State,
    /// Something was sent for it on this connection.
    sent: bool,
    /// It uses the peer's Receive Maximum.
    counted: bool,
}

impl<M> Flight<M> {
    fn inflight(&self) -> Option<Inflight<&M>> {
        match self.state {
            State::AwaitPuback => self.message.as_ref().map(Inflight::AwaitPuback),
            State::AwaitPubrec => self.message.as_ref().map(Inflight::AwaitPubrec),
            State::AwaitPubcomp => Some(Inflight::AwaitPubcomp),
            State::Reserved => None,
        }
    }
}

/// The boxed part, absent from a session that has never had anything in flight.
#[derive(Debug)]
struct Exchanges<M> {
    flights: VecDeque<Flight<M>>,
    /// Unreleased QoS 2 identifiers of the peer, ascending.
    received: Vec<PacketId>,
    /// How many flights at the back wait for [`Session::resend`].
    unsent: usize,
    /// How many flights are `counted`.
    counted: u16,
    /// How many flights are `Reserved`.
    reserved: u16,
    /// The identifiers do not ascend from the first flight on (65,535 wrapping to 1), so that
    /// they cannot be searched by halving.
    unordered: bool,
}

impl<M> Default for Exchanges<M> {
    fn default() -> Self {
        Exchanges {
            flights: VecDeque::new(),
            received: Vec::new(),
            unsent: 0,
            counted: 0,
            reserved: 0,
            unordered: false,
        }
    }
}

/// How far `id` is behind `first`, going up and from 65,535 to 1.
fn distance(first: PacketId, id: PacketId) -> u16 {
    let (first, id) = (first.get(), id.get());
    if id >= first { id - first } else { id.wrapping_sub(first).wrapping_sub(1) }
}

impl<M> Exchanges<M> {
    fn position(&self, packet_id: PacketId) -> Option<usize> {
        let first = self.flights.front()?.packet_id;
        if first == packet_id {
            return Some(0);
        }
        if self.unordered {
            return self.flights.iter().position(|flight| flight.packet_id == packet_id);
        }
        let wanted = distance(first, packet_id);
        self.flights.binary_search_by_key(&wanted, |each| distance(first, each.packet_id)).ok()
    }

    /// The first free identifier after `last`. There is one: flights are fewer than identifiers.
    fn free_id(&mut self, last: PacketId) -> PacketId {
        let mut candidate = last.next();
        let Some(first) = self.flights.front() else { return candidate };
        if !self.unordered {
            // In order, all that is in flight lies between the first and the last.
            if candidate != first.packet_id {
                return candidate;
            }
            self.unordered = true;
        }
        assert!(self.flights.len() < usize::from(u16::MAX), "an identifier is free");
        while self.position(candidate).is_some() {
            candidate = candidate.next();
        }
        candidate
    }

    fn push(&mut self, flight: Flight<M>) {
        self.counted += u16::from(flight.counted);
        self.reserved += u16::from(flight.state == State::Reserved);
        self.flights.push_back(flight);
    }

    /// Takes the flights that need not be sent again, having been answered, off the front of the
    /// unsent ones.
    fn skip_sent(&mut self) {
        while self.unsent > 0 && self.flights[self.flights.len() - self.unsent].sent {
            self.unsent -= 1;
        }
    }

    fn remove(&mut self, index: usize) -> Option<M> {
        if index >= self.flights.len() - self.unsent {
            self.unsent -= 1;
        }
        let flight = self.flights.remove(index)?;
        self.skip_sent();
        self.counted -= u16::from(flight.counted);
        self.reserved -= u16::from(flight.state == State::Reserved);
        if self.flights.is_empty() {
            self.unordered = false;
        }
        flight.message
    }
}

/// The exchanges of a session, generic over the handle `M` of a message.
///
/// Symmetrical: a server has one for each client, a client one for its server. 16 bytes while
/// nothing was ever in flight.
#[derive(Debug)]
pub struct Session<M> {
    exchanges: Option<Box<Exchanges<M>>>,
    inflight_max: u16,
    received_max: u16,
    /// The peer's Receive Maximum on this connection.
    peer_receive_max: u16,
    last_id: PacketId,
}

impl<M> Session<M> {
    /// A session without exchanges, on a connection without a Receive Maximum.
    pub fn new(limits: SessionLimits) -> Self {
        Session {
            exchanges: None,
            inflight_max: limits.inflight_max.min(INFLIGHT_MAX),
            received_max: limits.received_max,
            peer_receive_max: u16::MAX,
            // The first identifier will be 1.
            last_id: PacketId::MIN.previous(),
        }
    }

    /// Whether nothing is in flight in either direction and no identifier is reserved.
    pub fn is_empty(&self) -> bool {
        self.exchanges.as_ref().is_none_or(|all| all.flights.is_empty() && all.received.is_empty())
    }

    /// Messages in flight to the peer.
    pub fn inflight_len(&self) -> usize {
        self.exchanges.as_ref().map_or(0, |all| all.flights.len() - usize::from(all.reserved))
    }

    /// QoS 2 messages of the peer that are not released.
    pub fn received_len(&self) -> usize {
        self.exchanges.as_ref().map_or(0, |all| all.received.len())
    }

    /// Frees what an empty session holds of memory; for one whose connection is idle or gone.
    pub fn shrink(&mut self) {
        if self.is_empty() {
            self.exchanges = None;
        }
    }

    /// Whether [`Session::begin`] would take a message: the window is the lesser of ours and the
    /// peer's Receive Maximum `[MQTT-3.3.4-9]`, and what must be sent again goes first
    /// `[MQTT-4.6.0-1]`.
    pub fn has_room(&self) -> bool {
        let Some(all) = &self.exchanges else {
            return self.inflight_max > 0 && self.peer_receive_max > 0;
        };
        all.unsent == 0
            && all.counted < self.peer_receive_max
            && self.inflight_len() < usize::from(self.inflight_max)
    }

    /// Puts a QoS 1 or 2 message in flight under a free identifier `[MQTT-2.2.1-4]`, with which
    /// the caller sends its PUBLISH.
    ///
    /// # Errors
    /// There is no room; the message is given back.
    ///
    /// # Panics
    /// `qos` is 0, which has no exchange.
    pub fn begin(&mut self, qos: QoS, message: M) -> Result<PacketId, M> {
        assert!(qos > QoS::AtMostOnce, "QoS 0 has no packet identifier");
        // [MQTT-4.9.0-1], [MQTT-4.9.0-2]
        if !self.has_room() {
            return Err(message);
        }
        let all = self.exchanges.get_or_insert_default();
        // [MQTT-4.3.2-1], [MQTT-4.3.3-1]
        let packet_id = all.free_id(self.last_id);
        self.last_id = packet_id;
        all.push(Flight {
            message: Some(message),
            packet_id,
            state: match qos {
                // [MQTT-4.3.2-3], [MQTT-4.3.3-3]
                QoS::ExactlyOnce => State::AwaitPubrec,
                _ => State::AwaitPuback,
            },
            sent: true,
            counted: true,
        });
        Ok(packet_id)
    }

    /// Reserves an identifier for a SUBSCRIBE or UNSUBSCRIBE, until [`Session::free_id`] or
    /// [`Session::resume`]. `None` while [`RESERVED_MAX`] are.
    pub fn reserve_id(&mut self) -> Option<PacketId> {
        let all = self.exchanges.get_or_insert_default();
        if all.reserved >= RESERVED_MAX || all.unsent > 0 {
            return None;
        }
        let packet_id = all.free_id(self.last_id);
        self.last_id = packet_id;
        let state = State::Reserved;
        all.push(Flight { message: None, packet_id, state, sent: true, counted: false });
        Some(packet_id)
    }

    /// Frees an identifier that [`Session::reserve_id`] gave; whether it was reserved.
    pub fn free_id(&mut self, packet_id: PacketId) -> bool {
        match self.find(packet_id) {
            Some((all, index)) if all.flights[index].state == State::Reserved => {
                all.remove(index);
                true
            }
            _ => false,
        }
    }

    fn find(&mut self, packet_id: PacketId) -> Option<(&mut Exchanges<M>, usize)> {
        let all = self.exchanges.as_deref_mut()?;
        let index = all.position(packet_id)?;
        Some((all, index))
    }

    /// A PUBACK came.
    pub fn puback(&mut self, packet_id: PacketId, reason: ReasonCode) -> Puback<M> {
        let Some((all, index)) = self.find(packet_id) else { return Puback::Unknown };
        match all.flights[index].state {
            State::AwaitPuback => {}
            State::Reserved => return Puback::Unknown,
            State::AwaitPubrec | State::AwaitPubcomp => return Puback::WrongState,
        }
        match all.remove(index) {
            Some(message) if reason.is_error() => Puback::Refused(message),
            Some(message) => Puback::Acknowledged(message),
            None => Puback::Unknown,
        }
    }

    /// A PUBREC came. With an error the exchange is over; otherwise the message is the peer's
    /// and is not sent again `[MQTT-4.3.3-6]`.
    pub fn pubrec(&mut self, packet_id: PacketId, reason: ReasonCode) -> Pubrec<M> {
        let Some((all, index)) = self.find(packet_id) else { return Pubrec::Unknown };
        let flight = &mut all.flights[index];
        match flight.state {
            // [MQTT-4.4.0-2]
            State::AwaitPubrec if reason.is_error() => {
                all.remove(index).map_or(Pubrec::Unknown, Pubrec::Refused)
            }
            State::AwaitPubrec => {
                // [MQTT-4.3.3-5]
                flight.state = State::AwaitPubcomp;
                flight.sent = true;
                let message = flight.message.take();
                all.skip_sent();
                message.map_or(Pubrec::Unknown, Pubrec::Release)
            }
            State::AwaitPubcomp => {
                flight.sent = true;
                all.skip_sent();
                Pubrec::ReleaseAgain
            }
            State::AwaitPuback => Pubrec::WrongState,
            State::Reserved => Pubrec::Unknown,
        }
    }

    /// A PUBCOMP came; that it may say "not found" changes nothing.
    pub fn pubcomp(&mut self, packet_id: PacketId) -> Pubcomp {
        let Some((all, index)) = self.find(packet_id) else { return Pubcomp::Unknown };
        match all.flights[index].state {
            State::AwaitPubcomp => {
                all.remove(index);
                Pubcomp::Completed
            }
            State::AwaitPuback | State::AwaitPubrec => Pubcomp::WrongState,
            State::Reserved => Pubcomp::Unknown,
        }
    }

    /// Ends an exchange whose PUBLISH cannot be sent, being too large for the peer
    /// `[MQTT-3.1.2-25]`; `None` where no message is in flight under the identifier.
    pub fn cancel(&mut self, packet_id: PacketId) -> Option<M> {
        let (all, index) = self.find(packet_id)?;
        match all.flights[index].state {
            State::AwaitPuback | State::AwaitPubrec => all.remove(index),
            State::AwaitPubcomp | State::Reserved => None,
        }
    }

    /// A connection was established, whose peer takes `peer_receive_max` publishes at once
    /// (65,535 where it did not say). What is in flight must be sent again before anything new
    /// `[MQTT-4.4.0-1]`: call [`Session::resend`]. Reserved identifiers are free again.
    pub fn resume(&mut self, peer_receive_max: u16) {
        self.peer_receive_max = peer_receive_max;
        let Some(all) = &mut self.exchanges else { return };
        all.flights.retain(|flight| flight.state != State::Reserved);
        for flight in &mut all.flights {
            flight.sent = false;
            flight.counted = false;
        }
        all.unsent = all.flights.len();
        all.counted = 0;
        all.reserved = 0;
        if all.flights.is_empty() {
            all.unordered = false;
        }
    }

    /// The next exchange to go on with after [`Session::resume`], in the original order
    /// `[MQTT-4.6.0-1]`: the caller sends its PUBLISH with DUP, or its PUBREL. To be called until
    /// `None`, and again after each acknowledgement: the peer's Receive Maximum holds here too.
    pub fn resend(&mut self) -> Option<(PacketId, Inflight<&M>)> {
        let all = self.exchanges.as_deref_mut()?;
        if all.unsent == 0 {
            return None;
        }
        let index = all.flights.len() - all.unsent;
        let flight = &mut all.flights[index];
        let publish = matches!(flight.state, State::AwaitPuback | State::AwaitPubrec);
        if publish && all.counted >= self.peer_receive_max {
            return None;
        }
        flight.sent = true;
        flight.counted = publish;
        all.counted += u16::from(publish);
        all.skip_sent();
        let flight = &all.flights[index];
        flight.inflight().map(|inflight| (flight.packet_id, inflight))
    }

    /// Everything in flight to the peer, in order; for a checkpoint.
    pub fn inflight(&self) -> impl Iterator<Item = (PacketId, Inflight<&M>)> {
        let flights = self.exchanges.iter().flat_map(|all| all.flights.iter());
        flights.filter_map(|flight| Some((flight.packet_id, flight.inflight()?)))
    }

    /// Puts back an exchange from a durable record, in the order in which they were begun. There
    /// may be more than [`SessionLimits::inflight_max`], which may have been higher before.
    ///
    /// # Errors
    /// The identifier is in flight already, or [`INFLIGHT_MAX`] are; the exchange is given back.
    pub fn restore_inflight(
        &mut self,
        packet_id: PacketId,
        inflight: Inflight<M>,
    ) -> Result<(), Inflight<M>> {
        let full = self.inflight_len() >= usize::from(INFLIGHT_MAX);
        let all = self.exchanges.get_or_insert_default();
        if full || all.position(packet_id).is_some() {
            return Err(inflight);
        }
        if let (Some(first), Some(last)) = (all.flights.front(), all.flights.back()) {
            let first = first.packet_id;
            all.unordered |= distance(first, packet_id) < distance(first, last.packet_id);
        }
        let (state, message) = match inflight {
            Inflight::AwaitPuback(message) => (State::AwaitPuback, Some(message)),
            Inflight::AwaitPubrec(message) => (State::AwaitPubrec, Some(message)),
            Inflight::AwaitPubcomp => (State::AwaitPubcomp, None),
        };
        self.last_id = packet_id;
        all.push(Flight { message, packet_id, state, sent: false, counted: false });
        all.unsent += 1;
        Ok(())
    }

    /// A QoS 2 PUBLISH came.
    pub fn receive(&mut self, packet_id: PacketId) -> Received {
        if self.received_len() >= usize::from(self.received_max) {
            let known = self.exchanges.as_ref().map(|all| all.received.binary_search(&packet_id));
            return if let Some(Ok(_)) = known { Received::Duplicate } else { Received::Full };
        }
        match self.restore_received(packet_id) {
            true => Received::First,
            false => Received::Duplicate,
        }
    }

    /// A PUBREL came; or a PUBREC with an error is sent, which ends the exchange as well
    /// `[MQTT-4.3.3-9]`.
    pub fn release(&mut self, packet_id: PacketId) -> Released {
        let Some(all) = &mut self.exchanges else { return Released::Unknown };
        match all.received.binary_search(&packet_id) {
            Ok(index) => {
                all.received.remove(index);
                Released::Known
            }
            Err(_) => Released::Unknown,
        }
    }

    /// The unreleased QoS 2 identifiers of the peer, ascending; for a checkpoint.
    pub fn received(&self) -> impl Iterator<Item = PacketId> {
        self.exchanges.iter().flat_map(|all| all.received.iter().copied())
    }

    /// Puts back an unreleased identifier from a durable record, whatever
    /// [`SessionLimits::received_max`] is now; whether it was not there yet.
    pub fn restore_received(&mut self, packet_id: PacketId) -> bool {
        let received = &mut self.exchanges.get_or_insert_default().received;
        match received.binary_search(&packet_id) {
            Ok(_) => false,
            Err(index) => {
                received.insert(index, packet_id);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const OK: ReasonCode = ReasonCode::Success;
    const NO: ReasonCode = ReasonCode::QuotaExceeded;

    fn id(value: u16) -> PacketId {
        PacketId::new(value).unwrap()
    }

    fn session(inflight_max: u16) -> Session<u32> {
        Session::new(SessionLimits { inflight_max, received_max: 4 })
    }

    fn resent(session: &mut Session<u32>) -> Vec<(u16, Option<u32>)> {
        let mut all = Vec::new();
        while let Some((packet_id, inflight)) = session.resend() {
            let message = match inflight {
                Inflight::AwaitPuback(message) | Inflight::AwaitPubrec(message) => Some(*message),
                Inflight::AwaitPubcomp => None,
            };
            all.push((packet_id.get(), message));
        }
        all
    }

    #[test]
    fn an_empty_session_is_16_bytes_and_a_message_in_flight_16_more() {
        assert_eq!(size_of::<Session<Arc<[u8; 4]>>>(), 16);
        assert_eq!(size_of::<Flight<Arc<[u8; 4]>>>(), 16);
        assert_eq!(size_of::<Exchanges<Arc<[u8; 4]>>>(), 72);
        let mut session = session(2);
        assert!(session.exchanges.is_none());
        session.begin(QoS::AtLeastOnce, 1).unwrap();
        session.puback(id(1), OK);
        session.shrink();
        assert!(session.exchanges.is_none() && session.is_empty());
        assert_eq!(session.begin(QoS::AtLeastOnce, 1), Ok(id(2)), "identifiers go on");
    }

    // [MQTT-4.3.2-3]
    #[test]
    fn mqtt_4_3_2_a_puback_ends_a_qos_1_exchange() {
        let mut session = session(4);
        assert_eq!(session.begin(QoS::AtLeastOnce, 10), Ok(id(1)));
        assert_eq!(session.begin(QoS::AtLeastOnce, 11), Ok(id(2)));
        assert_eq!(
            session.puback(id(2), ReasonCode::NoMatchingSubscribers),
            Puback::Acknowledged(11)
        );
        assert_eq!(session.puback(id(2), OK), Puback::Unknown);
        assert_eq!(session.puback(id(1), NO), Puback::Refused(10));
        assert!(session.is_empty());
    }

    // [MQTT-4.3.3-3], [MQTT-4.3.3-5]
    #[test]
    fn mqtt_4_3_3_a_qos_2_exchange_has_four_steps() {
        let mut session = session(1);
        assert_eq!(session.begin(QoS::ExactlyOnce, 7), Ok(id(1)));
        assert_eq!(session.pubcomp(id(1)), Pubcomp::WrongState);
        assert_eq!(session.puback(id(1), OK), Puback::WrongState);
        assert_eq!(session.pubrec(id(1), OK), Pubrec::Release(7));
        assert_eq!(session.pubrec(id(1), OK), Pubrec::ReleaseAgain);
        // [MQTT-3.3.4-9]: a PUBREC of success gives no room back, PUBCOMP does.
        assert_eq!(session.begin(QoS::AtLeastOnce, 8), Err(8));
        assert_eq!(session.pubcomp(id(1)), Pubcomp::Completed);
        assert_eq!(session.pubcomp(id(1)), Pubcomp::Unknown);
        assert_eq!(session.begin(QoS::AtLeastOnce, 8), Ok(id(2)));
        assert_eq!(session.pubrec(id(2), OK), Pubrec::WrongState);
        assert_eq!(session.pubrec(id(9), OK), Pubrec::Unknown);
    }

    // [MQTT-4.4.0-2]
    #[test]
    fn mqtt_4_3_3_4_a_pubrec_with_an_error_ends_the_exchange_and_gives_its_room_back() {
        let mut session = session(1);
        session.begin(QoS::ExactlyOnce, 7).unwrap();
        assert_eq!(session.pubrec(id(1), NO), Pubrec::Refused(7));
        assert!(session.has_room() && session.is_empty());
    }

    // [MQTT-3.3.4-9], [MQTT-4.9.0-1], [MQTT-4.9.0-2]
    #[test]
    fn mqtt_3_3_4_9_the_window_is_the_lesser_of_both_ends() {
        let mut session = session(3);
        session.resume(2);
        session.begin(QoS::AtLeastOnce, 1).unwrap();
        session.begin(QoS::AtLeastOnce, 2).unwrap();
        assert_eq!(session.begin(QoS::AtLeastOnce, 3), Err(3));
        session.resume(u16::MAX);
        while session.resend().is_some() {}
        session.begin(QoS::AtLeastOnce, 3).unwrap();
        assert_eq!(session.begin(QoS::AtLeastOnce, 4), Err(4));
    }

    // [MQTT-4.4.0-1], [MQTT-4.3.3-6]
    #[test]
    fn mqtt_4_4_0_1_everything_unanswered_is_sent_again_in_its_order() {
        let mut session = session(8);
        for message in 1..=5 {
            let qos = if message % 2 == 0 { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
            session.begin(qos, message).unwrap();
        }
        session.pubrec(id(2), OK);
        session.puback(id(3), OK);
        assert!(session.resend().is_none(), "and at no other time");
        session.resume(u16::MAX);
        assert_eq!(session.begin(QoS::AtLeastOnce, 9), Err(9), "what is old goes first");
        let again = [(1, Some(1)), (2, None), (4, Some(4)), (5, Some(5))];
        assert_eq!(resent(&mut session), again);
        assert_eq!(session.begin(QoS::AtLeastOnce, 9), Ok(id(6)));
    }

    #[test]
    fn what_is_sent_again_keeps_to_the_receive_maximum_of_the_new_connection() {
        let mut session = session(8);
        for message in 1..=4 {
            session.begin(QoS::ExactlyOnce, message).unwrap();
        }
        session.pubrec(id(3), OK);
        session.resume(1);
        assert_eq!(resent(&mut session), [(1, Some(1))]);
        assert_eq!(session.pubrec(id(1), NO), Pubrec::Refused(1));
        assert_eq!(resent(&mut session), [(2, Some(2)), (3, None)]);
        // An exchange that was answered before it was sent again is not sent.
        assert_eq!(session.pubrec(id(4), OK), Pubrec::Release(4));
        assert_eq!(session.pubrec(id(2), OK), Pubrec::Release(2));
        assert_eq!(session.pubcomp(id(2)), Pubcomp::Completed);
        assert_eq!(resent(&mut session), []);
        assert_eq!(session.inflight().count(), 2);
    }

    // [MQTT-2.2.1-4], [MQTT-4.3.2-1], [MQTT-4.3.3-1]
    #[test]
    fn mqtt_2_2_1_3_an_identifier_in_use_is_not_given_again() {
        let mut session = session(3);
        let stuck = session.begin(QoS::AtLeastOnce, 0).unwrap();
        let mut seen = 0u32;
        for message in 1..=200_000 {
            let packet_id = session.begin(QoS::AtLeastOnce, message).unwrap();
            assert_ne!(packet_id, stuck);
            seen += u32::from(packet_id == id(65_535));
            assert_eq!(session.puback(packet_id, OK), Puback::Acknowledged(message));
        }
        assert_eq!(seen, 3, "the identifiers went round");
        assert_eq!(session.puback(stuck, OK), Puback::Acknowledged(0));
    }

    #[test]
    fn reserved_identifiers_are_of_the_same_numbers_and_end_with_the_connection() {
        let mut session = session(1);
        let subscribe = session.reserve_id().unwrap();
        assert_eq!(session.begin(QoS::AtLeastOnce, 1), Ok(id(2)), "it takes no room");
        assert_eq!(session.puback(subscribe, OK), Puback::Unknown);
        assert_eq!(session.pubrec(subscribe, OK), Pubrec::Unknown);
        assert_eq!(session.pubcomp(subscribe), Pubcomp::Unknown);
        assert_eq!(session.cancel(subscribe), None);
        assert!(!session.free_id(id(2)));
        assert!(session.free_id(subscribe) && !session.free_id(subscribe));
        for _ in 0..RESERVED_MAX {
            session.reserve_id().unwrap();
        }
        assert_eq!(session.reserve_id(), None);
        session.resume(10);
        assert_eq!((session.inflight_len(), resent(&mut session)), (1, vec![(2, Some(1))]));
    }

    // [MQTT-3.1.2-25]
    #[test]
    fn mqtt_3_1_2_25_a_publish_that_cannot_be_sent_is_cancelled() {
        let mut session = session(1);
        let packet_id = session.begin(QoS::ExactlyOnce, 1).unwrap();
        assert_eq!(session.cancel(packet_id), Some(1));
        assert_eq!(session.cancel(packet_id), None);
        assert!(session.has_room());
    }

    // [MQTT-4.3.3-10]
    #[test]
    fn mqtt_4_3_3_10_a_qos_2_message_is_delivered_once() {
        let mut session = session(1);
        assert_eq!(session.receive(id(5)), Received::First);
        assert_eq!(session.receive(id(5)), Received::Duplicate);
        session.resume(9);
        assert_eq!(session.receive(id(5)), Received::Duplicate);
        assert_eq!(session.release(id(5)), Released::Known);
        assert_eq!(session.release(id(5)), Released::Unknown);
        assert_eq!(session.receive(id(5)), Received::First);
    }

    #[test]
    fn what_the_peer_can_make_a_session_hold_is_bounded() {
        let mut session = session(1);
        for value in [9, 1, 5, 3] {
            assert_eq!(session.receive(id(value)), Received::First);
        }
        assert_eq!(session.receive(id(2)), Received::Full);
        assert_eq!(session.receive(id(9)), Received::Duplicate);
        let all: Vec<_> = session.received().map(PacketId::get).collect();
        assert_eq!((all, session.received_len()), (vec![1, 3, 5, 9], 4));
    }

    #[test]
    fn a_session_is_restored_from_its_records() {
        let mut session = session(3);
        session.restore_inflight(id(65_535), Inflight::AwaitPubcomp).unwrap();
        session.restore_inflight(id(1), Inflight::AwaitPubrec(8)).unwrap();
        let twice = Inflight::AwaitPuback(9);
        assert_eq!(session.restore_inflight(id(1), twice), Err(twice));
        session.restore_inflight(id(4), Inflight::AwaitPuback(9)).unwrap();
        session.restore_inflight(id(5), Inflight::AwaitPubcomp).unwrap();
        assert!(session.restore_received(id(7)) && !session.restore_received(id(7)));
        assert!(!session.has_room());
        let walked: Vec<_> = session.inflight().map(|(packet_id, _)| packet_id.get()).collect();
        assert_eq!(walked, [65_535, 1, 4, 5], "more than the limit");
        session.resume(u16::MAX);
        let again = [(65_535, None), (1, Some(8)), (4, Some(9)), (5, None)];
        assert_eq!(resent(&mut session), again);
        assert_eq!(session.pubcomp(id(65_535)), Pubcomp::Completed);
        assert_eq!(session.begin(QoS::AtLeastOnce, 1), Err(1));
        assert_eq!(session.pubcomp(id(5)), Pubcomp::Completed);
        assert_eq!(session.begin(QoS::AtLeastOnce, 1), Ok(id(6)));
    }

    #[test]
    fn records_out_of_order_are_found_as_well() {
        let mut session = session(100);
        for value in [500, 3, 65_000, 499, 501] {
            session.restore_inflight(id(value), Inflight::AwaitPuback(u32::from(value))).unwrap();
        }
        session.resume(u16::MAX);
        while session.resend().is_some() {}
        assert_eq!(session.begin(QoS::AtLeastOnce, 0), Ok(id(502)));
        for value in [3, 501, 499, 500, 65_000] {
            assert_eq!(session.puback(id(value), OK), Puback::Acknowledged(u32::from(value)));
        }
    }
}
