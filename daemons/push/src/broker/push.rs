//! Messages that senders push over HTTP: taken in, kept for a device that has no session yet,
//! and answered once they are where they have to be.

use std::rc::Rc;

use sextant_mqtt::{QoS, ReasonCode, topic};
use sextant_ring::slot::SlotId;
use tokio::sync::oneshot;

use super::message::{Delivery, Held, Incoming};
use super::records::{self, Fact, Progress, put_receipt};
use super::store::Gated;
use super::{Broker, Context, Then};
use crate::control::{Push, PushError, Receipt, Target};

impl Broker {
    /// A sender's message. Its receipt is on disk before it is answered.
    pub(super) fn push(
        &mut self,
        cx: &mut Context,
        push: &Push,
        reply: oneshot::Sender<Result<u32, PushError>>,
    ) {
        self.meters.core.inc(self.meters.names.pushes);
        let unix_ms = cx.clock().unix_ms;
        let (device, name) = match &push.target {
            Target::Device(device) => (Some(device.as_str()), push.target.topic()),
            Target::Topic(topic) => (None, topic.clone()),
        };
        let receipt = Receipt {
            id: push.id,
            topic: name.clone(),
            device: device.map(str::to_owned),
            qos: push.qos as u8,
            accepted_at: push.accepted_at,
            expires_at: push.expires_at,
            ..Receipt::default()
        };
        let knows_all = self.introduced == cx.cores();
        if cx.is_stopping() || !knows_all {
            // Whoever asked may have gone; so everywhere below.
            let _ = reply.send(Err(PushError::Unavailable));
            return;
        }
        let mut content = Vec::new();
        put_receipt(&receipt, &mut content);
        let refused = match self.store.replace(records::RECEIPT, &content, None, unix_ms) {
            Ok(record) => {
                self.receipts.insert(receipt, record, &mut self.store);
                None
            }
            Err(error) => Some(push_error(self.refused_by(error))),
        };
        if let Some(refused) = refused {
            let _ = reply.send(Err(refused));
            return;
        }
        let ticket = self.open_ticket(cx, Then::Push { id: push.id, reply, counted: 0 });
        let incoming = Incoming {
            topic: &name,
            payload: &push.payload,
            forward: &[],
            expires_at: push.expires_at,
            qos: push.qos,
            retain: push.retain,
            from: None,
            publisher: None,
            origin: None,
            receipt: Some((cx.core() as u16, push.id)),
            device,
            shares: &[],
            for_groups_alone: false,
        };
        match self.route(cx, &incoming, Some(ticket)) {
            Ok(recipients) => {
                self.count_recipients(cx, push.id, recipients);
                if let Some(Then::Push { counted, .. }) =
                    self.tickets.get_mut(ticket).and_then(|ticket| ticket.then.first_mut())
                {
                    *counted = recipients;
                }
                self.add_part(ticket);
                self.store.gate(Gated::Part(ticket));
                self.part_done(cx, ticket, recipients, None);
            }
            Err(reason) => self.part_done(cx, ticket, 0, Some(reason)),
        }
    }

    fn count_recipients(&mut self, cx: &Context, id: u128, count: u32) {
        if count > 0 {
            let at = cx.clock().unix_ms;
            self.receipts.advance(id, Progress::Recipients(count), at, &mut self.store);
        }
    }

    /// All parts of a push are answered; it has so many recipients, of which the receipt knows so
    /// many.
    pub(super) fn answer_push(
        &mut self,
        cx: &mut Context,
        id: u128,
        (recipients, counted): (u32, u32),
        refused: Option<ReasonCode>,
        reply: oneshot::Sender<Result<u32, PushError>>,
    ) {
        self.count_recipients(cx, id, recipients - counted);
        if refused.is_none() && recipients > counted {
            // The receipt is to know of those on other cores before the sender does.
            let ticket = self.open_ticket(cx, Then::Push { id, reply, counted: recipients });
            if let Some(ticket) = self.tickets.get_mut(ticket) {
                ticket.recipients = recipients;
            }
            self.store.gate(Gated::Part(ticket));
            return;
        }
        let answer = match refused {
            None => Ok(recipients),
            Some(reason) if recipients > 0 => Err(PushError::Partly(reason)),
            Some(reason) => {
                self.receipts.remove(id, &mut self.store);
                Err(push_error(reason))
            }
        };
        let _ = reply.send(answer);
    }

    /// Whether one more message may wait for a device.
    pub(super) fn check_waiting(&self, device: &str) -> Result<(), ReasonCode> {
        let waiting = self.waiting.get(device).map_or(0, std::collections::VecDeque::len);
        match waiting < self.settings.device_waiting_max {
            true => Ok(()),
            false => Err(ReasonCode::QuotaExceeded),
        }
    }

    /// A session may be what messages have waited for: those that it takes are queued.
    pub(super) fn claim_waiting(&mut self, cx: &mut Context, slot: SlotId) {
        let unix_ms = cx.clock().unix_ms;
        let Some(session) = self.sessions.get(slot) else { return };
        let Some(waiting) = self.waiting.remove(&*session.client_id) else { return };
        let device = session.client_id.clone();
        let mut still = std::collections::VecDeque::new();
        for held in waiting {
            if held.is_expired(unix_ms) {
                // Its timer counts it.
                still.push_back(held);
                continue;
            }
            let granted = held.topic.as_ref().and_then(|topic| self.granted(slot, topic));
            match granted {
                None => still.push_back(held),
                Some((granted, ids)) => {
                    let qos = held.qos.min(granted);
                    self.claim(cx, slot, held, qos, ids);
                }
            }
        }
        if !still.is_empty() {
            self.waiting.insert(device, still);
        }
    }

    /// The QoS with which a session takes a topic, and the identifiers of its subscriptions.
    pub(super) fn granted(&self, slot: SlotId, name: &str) -> Option<(QoS, Box<[u32]>)> {
        let session = self.sessions.get(slot)?;
        let matching =
            || session.subscriptions.iter().filter(|held| topic::matches(&held.filter, name));
        let qos = matching().map(|held| held.qos).max()?;
        let ids = matching().map(|held| held.subscription_id).filter(|id| *id != 0).collect();
        Some((qos, ids))
    }

    fn claim(
        &mut self,
        cx: &mut Context,
        slot: SlotId,
        held: Rc<Held>,
        qos: QoS,
        subscription_ids: Box<[u32]>,
    ) {
        let claimed = Fact::Claimed(held.id);
        // A client that asked for QoS 0 gets at QoS 0 what waited for it, now that it is here.
        let qos_queued = qos.max(QoS::AtLeastOnce);
        let (retain, tracked, device) = (false, true, 0);
        let delivery =
            Delivery { held, qos: qos_queued, retain, tracked, device, subscription_ids };
        if qos == QoS::AtMostOnce {
            self.store.fact(&claimed);
            return self.send_when_read(cx, slot, delivery);
        }
        match self.sessions.get(slot).filter(|session| session.is_persistent()) {
            Some(session) => {
                let queued = Fact::Queued(session.number, delivery.queued());
                self.store.facts_together(&[claimed, queued]);
            }
            None => self.store.fact(&claimed),
        }
        self.offer(cx, slot, delivery, None);
    }

    /// Takes an expired message away from the device that it waited for; whether it did.
    pub(super) fn stop_waiting(&mut self, held: &Rc<Held>) -> bool {
        let Some(device) = &held.waits_for else { return false };
        let Some(waiting) = self.waiting.get_mut(&**device) else { return false };
        let Some(at) = waiting.iter().position(|other| Rc::ptr_eq(other, held)) else {
            return false;
        };
        let taken = waiting.remove(at);
        if waiting.is_empty() {
            self.waiting.remove(&**device);
        }
        self.store.fact(&Fact::Claimed(held.id));
        if let Some(taken) = taken {
            self.store.release(taken);
        }
        true
    }
}

fn push_error(reason: ReasonCode) -> PushError {
    match reason {
        ReasonCode::QuotaExceeded => PushError::NoRoom,
        ReasonCode::PacketTooLarge => PushError::TooLarge,
        _ => PushError::Unavailable,
    }
}
