//! Wills: what clients leave to be published when they are lost.
//!
//! A will is in the log from before its client is let in until it is published, or not to be any
//! more: so it outlives the daemon, whatever its session does. It has a number of its own there.
//! The record of the message that publishes it says that it is published, so that a crash leaves
//! it published or not, and never both. At QoS 0, which promises less, a fact behind the message
//! says so.
//!
//! A daemon that ends has closed the connections of all its clients. What they leave is not
//! published when it starts again, but a *grace* later: whoever comes back until then was not lost
//! (section 3.1.2.5: a new connection before the Will Delay Interval is over). So it is when the
//! daemon was asked to end: nobody would be there to hear of anybody.
//!
//! ```text
//!   CONNECT ── record ──► waiting ── disk has it ──► session ──► published, or forgotten
//!                                                       │             ▲
//!                              after a start, no room   └─► put off ──┘
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashSet;
use sextant_mqtt::{Connect, QoS, ReasonCode};
use sextant_ring::core::ConnId;
use sextant_ring::slot::SlotId;
use sextant_ring::time::Time;
use sextant_segment::{AppendError, Position};
use tracing::warn;

use super::message::Incoming;
use super::records::{self, Fact, Publisher, WillRecord};
use super::tickets::Then;
use super::{Broker, Context, Map, timer};

/// Wills that are published in one go; the core does other things between.
const AT_ONCE: usize = 256;
/// Until a core that does not take a will is asked again.
const AGAIN: Duration = Duration::from_millis(500);
/// How often it is asked.
const TRIES_MAX: u8 = 120;

/// A will that is in the log.
#[derive(Debug)]
pub(super) struct Will {
    pub(super) said: WillRecord,
    place: (Position, u32),
    /// It is not published before, in milliseconds since 1970: its client may come back.
    pub(super) not_before: u64,
    tries: u8,
}

/// When a will is tried next, in milliseconds of the core's clock, and its number.
type Due = (u64, u64);

/// The wills that no session has.
#[derive(Default)]
pub(super) struct Wills {
    /// Of connections that wait for the disk to have them.
    waiting: Map<u64, Box<Will>>,
    /// Of sessions that are gone, until they are published.
    put_off: BTreeMap<Due, Box<Will>>,
    /// Those of them that are not published if their client comes back.
    by_client: Map<Box<str>, Due>,
    /// The timer for the first of them.
    armed: Option<Time>,
    /// Found at the start, of clients without a session, and such as a later one took the place
    /// of.
    found: Vec<Will>,
    outdated: Vec<Will>,
}

impl Wills {
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.put_off.len().max(self.by_client.len())
    }

    /// The will of a connection that waited for the disk.
    fn take_waiting(&mut self, conn: ConnId) -> Option<Box<Will>> {
        if self.waiting.is_empty() {
            return None;
        }
        self.waiting.remove(&conn.to_bits())
    }

    /// The client identifier that a connection which waits for the disk was given.
    pub(super) fn name_of(&self, conn: ConnId) -> Option<&str> {
        self.waiting.get(&conn.to_bits()).map(|will| &*will.said.client_id)
    }

    fn put_off(&mut self, will: Box<Will>, until_ms: u64) -> Due {
        let due = (until_ms, will.said.number);
        self.put_off.insert(due, will);
        due
    }

    /// Takes the will of a client that came back before it was published.
    fn take_of(&mut self, client_id: &str, user: &str) -> Option<Box<Will>> {
        if self.by_client.is_empty() {
            return None;
        }
        let due = *self.by_client.get(client_id)?;
        if self.put_off.get(&due).is_some_and(|will| *will.said.user != *user) {
            return None;
        }
        self.by_client.remove(client_id);
        self.put_off.remove(&due)
    }

    /// Takes the next will whose time has come.
    fn next(&mut self, now_ms: u64) -> Option<Box<Will>> {
        let first = self.put_off.first_entry().filter(|first| first.key().0 <= now_ms)?;
        let (due, will) = first.remove_entry();
        if self.by_client.get(&will.said.client_id) == Some(&due) {
            self.by_client.remove(&will.said.client_id);
        }
        Some(will)
    }

    fn find(&mut self, number: u64) -> Option<&mut Will> {
        let put_off = self.put_off.values_mut();
        let all = put_off.chain(self.waiting.values_mut());
        all.map(|will| &mut **will).find(|will| will.said.number == number)
    }
}

impl WillRecord {
    fn new(number: u64, client_id: &str, user: &str, will: &sextant_mqtt::Will<'_>) -> WillRecord {
        let mut forward = Vec::new();
        // [MQTT-3.1.3-10]
        will.properties.publish().write_forward(&mut forward);
        WillRecord {
            number,
            client_id: client_id.into(),
            user: user.into(),
            topic: will.topic.into(),
            payload: Bytes::copy_from_slice(will.payload),
            forward: forward.into(),
            qos: will.qos,
            // [MQTT-3.1.2-14], [MQTT-3.1.2-15]
            retain: will.retain,
            expiry_s: will.properties.message_expiry_s.unwrap_or(0),
            delay_s: will.properties.will_delay_s.unwrap_or(0),
        }
    }
}

impl Broker {
    /// Puts the will of a CONNECT in the log; whether the connection has to wait for the disk
    /// then.
    pub(super) fn say_will(
        &mut self,
        cx: &Context,
        conn: ConnId,
        connect: &Connect<'_>,
        (client_id, user): (&str, &str),
    ) -> Result<bool, AppendError> {
        let Some(will) = &connect.will else { return Ok(false) };
        if self.wills.waiting.contains_key(&conn.to_bits()) {
            return Ok(false);
        }
        let said = WillRecord::new(self.next_number, client_id, user, will);
        let mut content = Vec::new();
        said.put(&mut content);
        let place = self.store.replace(records::WILL, &content, None, cx.clock().unix_ms)?;
        self.next_number += 1;
        let will = Will { said, place, not_before: 0, tries: 0 };
        self.wills.waiting.insert(conn.to_bits(), Box::new(will));
        Ok(true)
    }

    /// A client is let in: its will is its session's, and that of an earlier connection is
    /// forgotten `[MQTT-3.1.2-7]`, `[MQTT-3.1.3-9]`.
    pub(super) fn give_will(&mut self, conn: ConnId, slot: SlotId) {
        let Some(session) = self.sessions.get_mut(slot) else { return };
        let will = self.wills.take_waiting(conn);
        let before = std::mem::replace(&mut session.will, will);
        let put_off = self.wills.take_of(&session.client_id, session.owner.name());
        before.into_iter().chain(put_off).for_each(|will| self.forget_will(&will));
    }

    /// A connection is gone before its client was let in.
    pub(super) fn drop_waiting_will(&mut self, conn: ConnId) {
        if let Some(will) = self.wills.take_waiting(conn) {
            self.forget_will(&will);
        }
    }

    /// A will is not to be published any more.
    pub(super) fn forget_will(&mut self, will: &Will) {
        self.store.fact(&Fact::WillGone(will.said.number));
        let (position, bytes) = will.place;
        self.store.log.retire(position, bytes);
    }

    /// Publishes the will of a session that ends, unless its client may come back yet.
    pub(super) fn end_will(&mut self, cx: &mut Context, will: Box<Will>) {
        let left_ms = will.not_before.saturating_sub(cx.clock().unix_ms);
        if left_ms == 0 {
            return self.publish_will(cx, will);
        }
        self.await_client(cx, will, left_ms);
    }

    fn await_client(&mut self, cx: &mut Context, will: Box<Will>, left_ms: u64) {
        let client_id = will.said.client_id.clone();
        let due = self.wills.put_off(will, cx.now().as_millis() + left_ms);
        self.wills.by_client.insert(client_id, due);
        self.arm_wills(cx);
    }

    /// Publishes a will, or tries to later.
    pub(super) fn publish_will(&mut self, cx: &mut Context, mut will: Box<Will>) {
        let again_ms = (cx.now() + AGAIN).as_millis();
        if self.introduced < cx.cores() {
            // Who is subscribed on other cores is not known yet.
            let soon_ms = cx.now().as_millis() + 10;
            self.wills.put_off(will, soon_ms);
            return self.arm_wills(cx);
        }
        let said = &will.said;
        let lasting = said.qos > QoS::AtMostOnce || said.retain;
        let incoming = Incoming {
            payload: &said.payload,
            forward: &said.forward,
            expires_at: match said.expiry_s {
                0 => 0,
                seconds => cx.clock().unix_ms + u64::from(seconds) * 1000,
            },
            qos: said.qos,
            retain: said.retain,
            publisher: lasting.then_some(Publisher::of_will(said.number)),
            ..Incoming::at_most_once(&said.topic)
        };
        let ticket = lasting.then(|| self.open_ticket(cx, Then::Nobody));
        let refused = self.route(cx, &incoming, ticket).err();
        if let Some(ticket) = ticket {
            self.part_done(cx, ticket, 0, refused);
        }
        match refused {
            None if lasting => self.store.log.retire(will.place.0, will.place.1),
            None => self.forget_will(&will),
            Some(ReasonCode::QuotaExceeded) if will.tries < TRIES_MAX => {
                will.tries += 1;
                self.wills.put_off(will, again_ms);
                self.arm_wills(cx);
            }
            Some(reason) => {
                warn!(?reason, topic = &*will.said.topic, "a will was not kept");
                self.forget_will(&will);
            }
        }
    }

    /// Publishes what was put off, as far as its time has come.
    pub(super) fn wills_timer(&mut self, cx: &mut Context) {
        self.wills.armed = None;
        for _ in 0..AT_ONCE {
            if self.store.log.is_backlogged() {
                break;
            }
            let Some(will) = self.wills.next(cx.now().as_millis()) else { break };
            self.publish_will(cx, will);
        }
        self.arm_wills(cx);
    }

    /// Arms the timer for the first will that was put off, if it is not.
    pub(super) fn arm_wills(&mut self, cx: &mut Context) {
        /// The core has other things to do as well.
        const PAUSE: Duration = Duration::from_millis(5);
        let Some(((due_ms, _), _)) = self.wills.put_off.first_key_value() else { return };
        let due = Time::from_nanos(due_ms.saturating_mul(1_000_000)).max(cx.now() + PAUSE);
        if self.wills.armed.is_some_and(|armed| armed <= due) {
            return;
        }
        if cx.arm(due, timer::key(timer::WILLS, 0)).is_some() {
            self.wills.armed = Some(due);
        }
    }

    // --- From the log ---

    /// Puts back the wills that were found. Of one client that has several the last counts: it was
    /// about to take the place of those before it.
    pub(super) fn load_wills(&mut self, mut found: Vec<(WillRecord, (Position, u32))>) {
        found.sort_unstable_by_key(|(said, _)| std::cmp::Reverse(said.number));
        let mut clients: HashSet<Box<str>> = HashSet::new();
        for (said, place) in found {
            let last = clients.insert(said.client_id.clone());
            let session = self.sessions.of_client(&said.client_id);
            let will = Will { said, place, not_before: 0, tries: 0 };
            match session.and_then(|slot| self.sessions.get_mut(slot)) {
                _ if !last => self.wills.outdated.push(will),
                Some(session) if *session.owner.name() == *will.said.user => {
                    session.will = Some(Box::new(will));
                }
                _ => self.wills.found.push(will),
            }
        }
    }

    /// With the loop running: from now on clients may come back.
    pub(super) fn start_wills(&mut self, cx: &mut Context) {
        for will in std::mem::take(&mut self.wills.outdated) {
            self.forget_will(&will);
        }
        let grace_ms = self.settings.will_grace.as_millis() as u64;
        for mut will in std::mem::take(&mut self.wills.found) {
            will.not_before = cx.clock().unix_ms + grace_ms;
            self.await_client(cx, Box::new(will), grace_ms);
        }
    }

    /// Appends a will's record again, if it is the one at a position.
    pub(super) fn move_will(
        &mut self,
        said: &WillRecord,
        position: Position,
        unix_ms: u64,
    ) -> Result<(), AppendError> {
        let session = self.sessions.of_client(&said.client_id);
        let of_session = session.and_then(|slot| self.sessions.get_mut(slot)?.will.as_deref_mut());
        let is_it = |will: &&mut Will| will.place.0 == position;
        let held = match of_session.filter(is_it) {
            Some(will) => Some(will),
            None => self.wills.find(said.number).filter(is_it),
        };
        let Some(will) = held else { return Ok(()) };
        let mut content = Vec::new();
        will.said.put(&mut content);
        will.place = self.store.replace(records::WILL, &content, Some(will.place), unix_ms)?;
        Ok(())
    }
}
