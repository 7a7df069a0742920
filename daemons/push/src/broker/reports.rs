//! What devices tell the platform: publications of a client to its own `d/{client}/receipts` and
//! `d/{client}/topics`. They go to the platform and to nobody else, and are answered when it has
//! settled them.
//!
//! Whoever gets no answer publishes again, and the platform is told again: it knows what it has
//! counted. So nothing of them is in the log, nor is the packet identifier of one at QoS 2; and a
//! duplicate is answered no sooner than the platform has it on disk, whatever became of the first.

use bytes::Bytes;
use sextant_mqtt::{Publish, QoS, ReasonCode, Received};
use sextant_ring::core::ConnId;
use sextant_ring::slot::SlotId;

use super::conn::Answer;
use super::packets::Flow;
use super::store::Gated;
use super::{Broker, Context, Map, Then};
use crate::control::platform::{RECEIPTS_BYTES_MAX, ReceiptTopic, Settled, Told};
use crate::meters::PublishRefused;

/// Publications of a core that wait to be settled, and their bytes. They are those of connections
/// that have ended, too, so that what a client may have unanswered does not bound them.
const UNSETTLED_MAX: usize = 1 << 16;
const UNSETTLED_BYTES_MAX: usize = 64 << 20;

/// Publications that wait to be settled, by their tickets.
#[derive(Default)]
pub(super) struct Unsettled {
    /// With their bytes.
    all: Map<SlotId, u32>,
    bytes: usize,
}

impl Unsettled {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is room for one more, of so many bytes.
    fn has_room(&self, bytes: usize) -> bool {
        self.all.len() < UNSETTLED_MAX && self.bytes + bytes <= UNSETTLED_BYTES_MAX
    }

    fn insert(&mut self, ticket: SlotId, bytes: usize) {
        assert!(bytes <= RECEIPTS_BYTES_MAX, "what is longer was refused");
        self.bytes += bytes;
        self.all.insert(ticket, bytes as u32);
    }

    /// Whether it was there.
    fn remove(&mut self, ticket: SlotId) -> bool {
        let bytes = self.all.remove(&ticket);
        self.bytes -= bytes.unwrap_or(0) as usize;
        bytes.is_some()
    }
}

/// What the platform is told with a publication to a client's own topic.
fn report(topic: &str, client_id: &str) -> Option<ReceiptTopic> {
    let rest = topic.strip_prefix("d/")?.strip_prefix(client_id)?;
    match rest {
        "/receipts" => Some(ReceiptTopic::Receipts),
        "/topics" => Some(ReceiptTopic::Topics),
        _ => None,
    }
}

impl Broker {
    /// Whether a publication is for the platform alone.
    #[inline]
    pub(super) fn is_report(&self, slot: SlotId, topic: &str) -> Option<ReceiptTopic> {
        self.devices.as_ref()?;
        report(topic, &self.sessions.get(slot)?.client_id)
    }

    /// Tells the platform what a client published to it. That it is to be retained says nothing.
    pub(super) fn reported(
        &mut self,
        cx: &mut Context,
        conn: ConnId,
        slot: SlotId,
        topic: ReceiptTopic,
        publish: &Publish<'_>,
    ) -> Flow {
        self.end_burst(cx);
        let bytes = publish.payload.len();
        let has_room = self.devices.as_ref().is_some_and(|it| it.unsettled.has_room(bytes));
        if bytes > RECEIPTS_BYTES_MAX || !has_room {
            self.meters.publish_refused(PublishRefused::NoRoom);
            return self.refuse_publish(cx, conn, publish, ReasonCode::QuotaExceeded);
        }
        let ticket = match publish.delivery.packet_id() {
            None => 0,
            Some(packet_id) => {
                let Some(session) = self.sessions.get_mut(slot) else { return Flow::Ended };
                let answer = match publish.delivery.qos() {
                    QoS::ExactlyOnce => Answer::Pubrec(packet_id),
                    _ => Answer::Puback(packet_id),
                };
                if publish.delivery.qos() == QoS::ExactlyOnce
                    && session.flight.receive(packet_id) == Received::Full
                {
                    return self.refuse_publish(cx, conn, publish, ReasonCode::QuotaExceeded);
                }
                let Some(held) = self.conn(conn) else { return Flow::Ended };
                let number = held.busy().answers.push(answer);
                let ticket = self.open_ticket(cx, Then::Answer(conn, number));
                if publish.delivery.qos() == QoS::ExactlyOnce {
                    // Nor is a session forgotten in which an exchange was begun.
                    self.add_part(ticket);
                    self.store.gate(Gated::Part(ticket));
                }
                if let Some(devices) = &mut self.devices {
                    devices.unsettled.insert(ticket, bytes);
                }
                // Zero is nobody's.
                ticket.to_bits() + 1
            }
        };
        let Some(session) = self.sessions.get(slot) else { return Flow::Ended };
        let client_id = session.client_id.clone();
        let payload = Bytes::copy_from_slice(publish.payload);
        self.tell_platform(|| Told::Receipts { client_id, topic, payload, ticket });
        Flow::Continue
    }

    /// The platform has a publication, or refuses it.
    pub(super) fn settled(&mut self, cx: &mut Context, settled: Settled) {
        let Some(ticket) = settled.ticket.checked_sub(1).map(SlotId::from_bits) else { return };
        let Some(devices) = &mut self.devices else { return };
        if devices.unsettled.remove(ticket) {
            let refused = settled.refused.then_some(ReasonCode::ImplementationSpecificError);
            self.part_done(cx, ticket, 0, refused);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_to_be_settled_is_bounded_in_number_and_in_bytes() {
        let ticket = |n: usize| SlotId::from_bits(n as u64);
        let mut unsettled = Unsettled::default();
        let fill = |unsettled: &mut Unsettled, bytes| {
            let mut count = unsettled.len();
            while unsettled.has_room(bytes) {
                unsettled.insert(ticket(count), bytes);
                count += 1;
            }
            count
        };
        assert_eq!(fill(&mut unsettled, RECEIPTS_BYTES_MAX), 1024);
        assert_eq!(fill(&mut unsettled, 0), UNSETTLED_MAX);
        assert!(unsettled.remove(ticket(0)) && !unsettled.remove(ticket(0)));
        assert!(unsettled.has_room(RECEIPTS_BYTES_MAX));
        (1..UNSETTLED_MAX).for_each(|n| assert!(unsettled.remove(ticket(n))));
        assert_eq!((unsettled.len(), unsettled.bytes), (0, 0));
    }

    #[test]
    fn a_report_is_to_ones_own_topics_and_to_no_others() {
        assert_eq!(report("d/a/receipts", "a"), Some(ReceiptTopic::Receipts));
        assert_eq!(report("d/a/topics", "a"), Some(ReceiptTopic::Topics));
        for other in ["d/b/receipts", "d/a/push", "d/a/receipts/", "d/a/receiptsx", "d/ab/topics"] {
            assert_eq!(report(other, "a"), None, "{other}");
        }
        assert_eq!(report("e/a/receipts", "a"), None);
        assert_eq!(report("d/a/b/topics", "a/b"), Some(ReceiptTopic::Topics));
    }
}
