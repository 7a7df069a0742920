//! What waits to be sent on one connection at QoS 0: messages behind others that are being read
//! from the disk, and those that its socket has no room for.
//!
//! ```text
//!   send_once ──► outbox of the ring, up to send_queue_bytes_max ──► socket
//!       │              ▲ a share of that, each time it has been emptied
//!       └► OnceQueue ──┘
//!            └─► the oldest is dropped when more wait than may
//! ```
//!
//! What was handed to the ring is not taken back: it may be sent in part. So a client that does not
//! keep up gets what was on its way when it fell behind, then, of what came since, the newest. An
//! encoded packet is shared by all who wait for it; each of them is charged for it in full.
//!
//! A packet that waits names its topic in full, whatever aliases the client knows: those may stand
//! for other topics when its turn comes.

use std::collections::VecDeque;

use bytes::Bytes;
use sextant_mqtt::{Packet, Publish, QoS, Version, frame};
use sextant_ring::core::ConnId;
use sextant_ring::slot::SlotId;

use super::conn::{Conn, Stage};
use super::encodings::{Shared, seconds_left};
use super::message::{Delivery, Incoming};
use super::publish::Wanted;
use super::recall::{Loaded, Part};
use super::records::Progress;
use super::transport::{self, Framing, framing};
use super::{Broker, Context};
use crate::meters::Dropped;

/// What a packet that waits takes beside its bytes, about.
const ENTRY_BYTES: usize = 128;

/// A message that waits to be sent at QoS 0.
pub(super) enum Once {
    /// It waited for the device.
    Claimed(Delivery),
    Ready(Ready),
}

/// A packet as it is to be sent.
pub(super) struct Ready {
    /// In its framing.
    pub(super) packet: Bytes,
    /// Milliseconds since 1970; zero is never.
    pub(super) expires_at: u64,
    pub(super) receipt: Option<(u16, u128)>,
}

impl Ready {
    fn cost_bytes(&self) -> usize {
        self.packet.len() + ENTRY_BYTES
    }
}

/// What waits on one connection, in its order.
#[derive(Default)]
pub(super) struct OnceQueue {
    all: VecDeque<Once>,
    /// Packets among them, and what they are charged with.
    packets: usize,
    bytes: usize,
}

impl OnceQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Adds a message that waited for the device. There are as many as may wait for a device.
    pub(super) fn push_claimed(&mut self, delivery: Delivery) {
        self.all.push_back(Once::Claimed(delivery));
    }

    /// The oldest packet, if it has to make room for another.
    fn give_way(&mut self, next: &Ready, limits: (usize, usize)) -> Option<Ready> {
        let (packets_max, bytes_max) = limits;
        if self.packets < packets_max && self.bytes + next.cost_bytes() <= bytes_max {
            return None;
        }
        let oldest = self.all.iter().position(|once| matches!(once, Once::Ready(_)))?;
        match self.remove(oldest) {
            Some(Once::Ready(ready)) => Some(ready),
            _ => None,
        }
    }

    fn push(&mut self, ready: Ready) {
        self.packets += 1;
        self.bytes += ready.cost_bytes();
        self.all.push_back(Once::Ready(ready));
    }

    fn remove(&mut self, at: usize) -> Option<Once> {
        let once = self.all.remove(at)?;
        if let Once::Ready(ready) = &once {
            self.packets -= 1;
            self.bytes -= ready.cost_bytes();
        }
        Some(once)
    }
}

impl Broker {
    /// What is handed to the ring for a connection that has fallen behind: little, since what is
    /// newer cannot take its place any more.
    pub(super) fn refill_bytes_max(&self) -> usize {
        (self.settings.send_queue_bytes_max / 8).max(1)
    }

    /// Whether a connection takes nothing more at QoS 0 for now.
    pub(super) fn is_behind(&self, cx: &Context, conn: ConnId, unsent_max: usize) -> bool {
        let held = self.conns.get(conn.index()).and_then(Option::as_ref);
        cx.unsent(conn) >= unsent_max || held.is_some_and(Conn::holds_once)
    }

    /// Lets a message wait for a connection.
    pub(super) fn queue_once(
        &mut self,
        cx: &mut Context,
        conn: ConnId,
        shared: &mut Shared<'_>,
        wanted: &Wanted<'_>,
        tracked: bool,
    ) {
        let unix_ms = cx.clock().unix_ms;
        let incoming = shared.incoming();
        let receipt = incoming.receipt.filter(|_| tracked);
        let Some(held) = self.conns.get(conn.index()).and_then(Option::as_ref) else { return };
        let framing = framing(held.transport());
        let Stage::Online { link, .. } = &held.stage else { return };
        let packet = shared.kept(&mut self.scratch, link, wanted, framing, unix_ms);
        match packet {
            Some(packet) => {
                let ready = Ready { packet, expires_at: incoming.expires_at, receipt };
                if !self.is_behind(cx, conn, usize::MAX) {
                    // From now on it is not sent to directly.
                    self.receivers_change(cx);
                }
                self.let_wait(cx, conn, ready);
            }
            None => {
                self.meters.dropped(Dropped::TooLarge);
                self.count(cx, receipt, Progress::Dropped);
            }
        }
    }

    /// Lets a packet wait for a connection, in whose place the oldest go.
    pub(super) fn let_wait(&mut self, cx: &mut Context, conn: ConnId, ready: Ready) {
        let limits = (self.settings.send_queue_messages_max, self.settings.send_queue_bytes_max);
        loop {
            let Some(held) = self.conn(conn) else { return };
            let once = &mut held.reading_or_new().once;
            let Some(oldest) = once.give_way(&ready, limits) else {
                once.push(ready);
                break;
            };
            self.meters.dropped(Dropped::SlowClient);
            if self.is_traced(conn) {
                self.trace_dropped(cx, conn, 1);
            }
            self.count(cx, oldest.receipt, Progress::Dropped);
        }
        if cx.unsent(conn) > 0 {
            self.note_blocked(cx, conn);
        }
    }

    /// Sends at QoS 0 what waits for a connection, as far as it is in memory and the connection
    /// takes it.
    pub(super) fn send_waiting(&mut self, cx: &mut Context, conn: ConnId, slot: SlotId) {
        let refill_bytes_max = self.refill_bytes_max();
        loop {
            let reading = self.conn(conn).and_then(|held| held.reading_mut());
            let Some(reading) = reading.filter(|reading| !reading.once.is_empty()) else { break };
            if cx.unsent(conn) >= refill_bytes_max {
                self.note_blocked(cx, conn);
                break;
            }
            match reading.once.remove(0) {
                Some(Once::Ready(ready)) => self.send_ready(cx, conn, ready),
                Some(Once::Claimed(delivery)) => {
                    if let Some(delivery) = self.send_claimed(cx, conn, slot, delivery) {
                        if let Some(held) = self.conn(conn) {
                            held.reading_or_new().once.all.push_front(Once::Claimed(delivery));
                        }
                        break;
                    }
                }
                None => break,
            }
        }
        if let Some(held) = self.conn(conn)
            && held.reading().is_some_and(super::recall::Reading::is_idle)
        {
            held.read_nothing();
        }
    }

    /// Sends a message that waited for a device; gives it back while it is being read.
    fn send_claimed(
        &mut self,
        cx: &mut Context,
        conn: ConnId,
        slot: SlotId,
        delivery: Delivery,
    ) -> Option<Delivery> {
        match self.store.load(&delivery.held) {
            Ok(Loaded::Here(record)) => {
                let receipt = delivery.receipt();
                let incoming = Incoming { receipt, ..Incoming::of(&record, QoS::AtMostOnce) };
                let wanted = Wanted::of(&[], &incoming);
                // While it is sent nothing waits, so that it goes out.
                let behind_it = self.take_waiting(conn);
                self.send_once(cx, slot, &mut Shared::new(&incoming), &wanted, true);
                if let Some(held) = self.conn(conn).filter(|_| !behind_it.is_empty()) {
                    held.reading_or_new().once = behind_it;
                }
                self.store.release(delivery.held);
                None
            }
            Ok(Loaded::Away) => {
                self.await_message(cx, conn, Part::Once, &delivery.held);
                Some(delivery)
            }
            Err(_) => {
                self.settle(cx, delivery, Some(Dropped::Unreadable));
                None
            }
        }
    }

    fn take_waiting(&mut self, conn: ConnId) -> OnceQueue {
        let reading = self.conn(conn).and_then(|held| held.reading_mut());
        reading.map(|reading| std::mem::take(&mut reading.once)).unwrap_or_default()
    }

    fn send_ready(&mut self, cx: &mut Context, conn: ConnId, ready: Ready) {
        let unix_ms = cx.clock().unix_ms;
        let Ready { packet, expires_at, receipt } = ready;
        if expires_at != 0 && expires_at <= unix_ms {
            self.meters.dropped(Dropped::Expired);
            return self.count(cx, receipt, Progress::Expired(1));
        }
        let traced = self.is_traced(conn);
        let Some(held) = self.conn(conn) else { return };
        let framing = framing(held.transport());
        let Stage::Online { link, .. } = &held.stage else { return };
        let version = link.version();
        let packet = match seconds_left(expires_at, unix_ms) {
            // [MQTT-3.3.2-6]: less the time that it waited.
            Some(left) if version == Version::V5 => {
                let renew = |publish: &mut Publish<'_>| {
                    publish.properties.message_expiry_s = Some(left);
                };
                rewritten(&packet, framing, Version::V5, renew).unwrap_or(packet)
            }
            _ => packet,
        };
        let bytes = packet.len();
        let copy = traced.then(|| packet.clone());
        let progress = match transport::send_framed(cx, conn, held.transport_mut(), packet) {
            Ok(()) => {
                self.count_sent(conn, 1, bytes);
                if let Some(packet) = copy {
                    self.trace_framed(cx, conn, version, framing, &packet);
                }
                self.meters.core.inc(self.meters.names.delivered[0]);
                Progress::Sent
            }
            Err(_) => {
                self.meters.dropped(Dropped::SlowClient);
                Progress::Dropped
            }
        };
        self.count(cx, receipt, progress);
    }

    /// The connection that something waited for ends.
    pub(super) fn drop_waiting(&mut self, cx: &mut Context, queue: OnceQueue) {
        for once in queue.all {
            match once {
                Once::Claimed(delivery) => self.settle(cx, delivery, Some(Dropped::SessionEnded)),
                Once::Ready(ready) => {
                    self.meters.dropped(Dropped::SessionEnded);
                    self.count(cx, ready.receipt, Progress::Dropped);
                }
            }
        }
    }
}

/// What is in a frame of this server.
pub(super) fn unframed(framed: &[u8], framing: Framing) -> Option<&[u8]> {
    match framing {
        Framing::Plain => Some(framed),
        // A frame of a server has no mask: two bytes, and the length where it does not fit there.
        Framing::WebSocket => match framed.get(1)? {
            126 => framed.get(4..),
            127 => framed.get(10..),
            _ => framed.get(2..),
        },
    }
}

/// A PUBLISH with a change; `None` if it is none.
pub(super) fn rewritten<'p>(
    framed: &'p [u8],
    framing: Framing,
    version: Version,
    change: impl FnOnce(&mut Publish<'p>),
) -> Option<Bytes> {
    let packet = unframed(framed, framing)?;
    let whole = frame(packet, u32::MAX).ok()??;
    let Ok(Packet::Publish(mut publish)) = Packet::decode(&whole, version) else { return None };
    change(&mut publish);
    let mut out = Vec::new();
    Packet::Publish(publish).encode(version, &mut out).ok()?;
    framing.apply(&mut out);
    Some(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sextant_mqtt::PublishProperties;

    fn ready(number: u8, bytes: usize) -> Ready {
        Ready { packet: Bytes::from(vec![number; bytes]), expires_at: 0, receipt: None }
    }

    fn offered(queue: &mut OnceQueue, next: Ready, limits: (usize, usize)) -> Vec<u8> {
        let dropped = std::iter::from_fn(|| queue.give_way(&next, limits));
        let dropped = dropped.map(|ready| ready.packet[0]).collect();
        queue.push(next);
        dropped
    }

    fn left(queue: &mut OnceQueue) -> Vec<u8> {
        std::iter::from_fn(|| match queue.remove(0)? {
            Once::Ready(ready) => Some(ready.packet[0]),
            Once::Claimed(_) => None,
        })
        .collect()
    }

    #[test]
    fn the_oldest_give_way_past_the_limit_of_messages() {
        let mut queue = OnceQueue::default();
        let dropped: Vec<u8> =
            (0..10).flat_map(|n| offered(&mut queue, ready(n, 10), (3, usize::MAX))).collect();
        assert_eq!(dropped, [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(left(&mut queue), [7, 8, 9]);
        assert_eq!((queue.packets, queue.bytes), (0, 0));
    }

    #[test]
    fn the_oldest_give_way_past_the_limit_of_bytes_and_one_always_has_room() {
        let limits = (usize::MAX, 3 * (100 + ENTRY_BYTES));
        let mut queue = OnceQueue::default();
        (0..3).for_each(|n| assert!(offered(&mut queue, ready(n, 100), limits).is_empty()));
        assert_eq!(offered(&mut queue, ready(3, 200), limits), [0, 1]);
        assert_eq!(offered(&mut queue, ready(4, 10_000), limits), [2, 3]);
        assert_eq!(left(&mut queue), [4]);
    }

    #[test]
    fn a_packet_that_waited_says_what_is_left_of_its_life_in_either_framing() {
        let publish = |expiry_s| {
            let message_expiry_s = Some(expiry_s);
            let properties = PublishProperties { message_expiry_s, ..Default::default() };
            let delivery = sextant_mqtt::Delivery::AtMostOnce;
            Publish { delivery, retain: false, topic: "t/a", properties, payload: &[7; 200] }
        };
        for framing in [Framing::Plain, Framing::WebSocket] {
            let [mut before, mut after] = [(), ()].map(|()| Vec::new());
            Packet::Publish(publish(60)).encode(Version::V5, &mut before).unwrap();
            Packet::Publish(publish(7)).encode(Version::V5, &mut after).unwrap();
            framing.apply(&mut before);
            framing.apply(&mut after);
            let renewed = rewritten(&before, framing, Version::V5, |publish| {
                publish.properties.message_expiry_s = Some(7);
            });
            assert_eq!(renewed.as_deref(), Some(&*after));
        }
    }
}
