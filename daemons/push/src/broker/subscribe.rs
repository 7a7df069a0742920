//! Subscriptions: who holds which filter on this core, and which other cores have subscribers of
//! one.

use std::sync::Arc;

use sextant_mqtt::topic::Filter;
use sextant_mqtt::{
    PacketId, ReasonCode, RetainHandling, Subscribe, Subscription, Unsubscribe, Version,
};
use sextant_ring::core::ConnId;
use sextant_ring::slot::SlotId;

use super::conn::{Answer, Stage};
use super::message::{Delivery, Message, device_of};
use super::records::{Fact, Subscribed};
use super::session::Subscriber;
use super::shares::shared;
use super::store::Gated;
use super::{Broker, Context, Then};
use crate::home::home;
use crate::meters::Dropped;

/// Subscriptions of one session.
const SUBSCRIPTIONS_MAX: usize = 1024;

impl Broker {
    pub(super) fn subscribe(
        &mut self,
        cx: &mut Context,
        conn: ConnId,
        slot: SlotId,
        subscribe: &Subscribe<'_>,
    ) {
        let id = subscribe.properties.subscription_id.map_or(0, sextant_mqtt::SubscriptionId::get);
        let packet_id = subscribe.packet_id;
        // [MQTT-2.2.1-6], [MQTT-3.8.4-2]
        let later = self.answer_later(cx, conn, Answer::Suback(packet_id, Box::default()));
        let Some((ticket, number)) = later else { return };
        // [MQTT-3.8.4-5], [MQTT-3.8.4-6]
        let reasons = subscribe
            .subscriptions
            .iter()
            .map(|subscription| self.subscribe_one(cx, conn, slot, &subscription, id, ticket))
            .collect();
        if let Some(busy) = self.conn(conn).and_then(|held| held.busy.as_mut()) {
            busy.answers.replace(number, Answer::Suback(packet_id, reasons));
        }
        self.store.gate(Gated::Part(ticket));
        self.look_at_device(slot);
        self.claim_waiting(cx, slot);
    }

    pub(super) fn unsubscribe(
        &mut self,
        cx: &mut Context,
        conn: ConnId,
        slot: SlotId,
        unsubscribe: &Unsubscribe<'_>,
    ) {
        let packet_id = unsubscribe.packet_id;
        let later = self.answer_later(cx, conn, Answer::Unsuback(packet_id, Box::default()));
        let Some((ticket, number)) = later else { return };
        let mut reasons = Vec::new();
        // [MQTT-3.10.4-6]
        for filter in unsubscribe.filters.iter() {
            let Some(session) = self.sessions.get_mut(slot) else { return };
            // [MQTT-3.10.4-1]
            let at = session.subscriptions.iter().position(|held| *held.filter == *filter);
            let Some(at) = at else {
                // [MQTT-3.10.4-5]
                reasons.push(ReasonCode::NoSubscriptionExisted);
                continue;
            };
            session.subscriptions.swap_remove(at);
            if session.is_persistent() {
                self.store.fact(&Fact::Unsubscribed(session.number, filter.into()));
            }
            // [MQTT-3.10.4-2], [MQTT-3.10.4-3]: what it has in flight or queued is not touched.
            self.drop_filter(cx, slot, filter);
            reasons.push(ReasonCode::Success);
        }
        if let Some(busy) = self.conn(conn).and_then(|held| held.busy.as_mut()) {
            busy.answers.replace(number, Answer::Unsuback(packet_id, reasons.into()));
        }
        self.store.gate(Gated::Part(ticket));
        self.look_at_device(slot);
    }

    /// A place among a connection's answers, and the ticket that opens it.
    fn answer_later(
        &mut self,
        cx: &mut Context,
        conn: ConnId,
        answer: Answer,
    ) -> Option<(SlotId, u32)> {
        let number = self.conn(conn)?.busy().answers.push(answer);
        Some((self.open_ticket(cx, Then::Answer(conn, number)), number))
    }

    fn subscribe_one(
        &mut self,
        cx: &mut Context,
        conn: ConnId,
        slot: SlotId,
        subscription: &Subscription<'_>,
        subscription_id: u32,
        ticket: SlotId,
    ) -> ReasonCode {
        let filter = subscription.filter;
        let v311 = match self.conn(conn).map(|held| &held.stage) {
            Some(Stage::Online { link, .. }) => link.version() == Version::V311,
            _ => return ReasonCode::UnspecifiedError,
        };
        let says_why = !v311 && self.settings.suback_reasons;
        let refuse = |reason| if says_why { reason } else { ReasonCode::UnspecifiedError };
        let Ok(parsed) = Filter::parse(filter) else {
            return refuse(ReasonCode::TopicFilterInvalid);
        };
        let Some(session) = self.sessions.get_mut(slot) else {
            return ReasonCode::UnspecifiedError;
        };
        if !session.owner.principal().is_some_and(|principal| principal.may_subscribe(filter)) {
            return refuse(ReasonCode::NotAuthorized);
        }
        let subscribed = Subscribed {
            filter: self.filters.name(filter),
            qos: subscription.qos,
            no_local: subscription.no_local,
            retain_as_published: subscription.retain_as_published,
            subscription_id,
        };
        // [MQTT-3.8.4-3], [MQTT-3.8.4-4]: a second one for the same filter takes the place of the
        // first.
        let at = session.subscriptions.iter().position(|held| *held.filter == *filter);
        match at {
            Some(at) => session.subscriptions.replace(at, subscribed.clone()),
            None if session.subscriptions.len() >= SUBSCRIPTIONS_MAX => {
                return refuse(ReasonCode::QuotaExceeded);
            }
            None => session.subscriptions.push(subscribed.clone()),
        }
        if session.is_persistent() {
            self.store.fact(&Fact::Subscribed(session.number, subscribed.clone()));
        }
        if at.is_some() && parsed.share.is_none() {
            // No other core hears of that.
            let _ = self.filters.remove(filter, |held| held.session == slot);
            self.subscriptions -= 1;
        } else if at.is_some() {
            self.drop_filter(cx, slot, filter);
        }
        self.hold_filter(cx, slot, &subscribed, Some(ticket));
        // [MQTT-3.3.1-9], [MQTT-3.3.1-10], [MQTT-3.3.1-11], [3.1.1: MQTT-3.8.4-3]
        let wants_retained = match subscription.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => at.is_none(),
            RetainHandling::DoNotSend => false,
        };
        // Of what is retained a group gets nothing (section 4.8.2).
        if wants_retained && parsed.share.is_none() {
            self.ask_retained(cx, slot, &subscribed, ticket);
            self.tell_levels(cx, filter, subscriber(slot, &subscribed));
        }
        // [MQTT-3.8.4-7], [3.1.1: MQTT-3.8.4-6]
        subscription.qos.granted()
    }

    /// Enters a subscription among this core's filters, and tells the others of a new one. The
    /// ticket waits until they know, whoever was the first to have it.
    pub(super) fn hold_filter(
        &mut self,
        cx: &mut Context,
        slot: SlotId,
        subscribed: &Subscribed,
        ticket: Option<SlotId>,
    ) {
        let subscriber = subscriber(slot, subscribed);
        self.receivers_change(cx);
        self.subscriptions += 1;
        if let Some(inner) = shared(&subscribed.filter) {
            return self.join_share(cx, (&subscribed.filter, inner), subscriber, ticket);
        }
        let first = self.filters.insert(&subscribed.filter, subscriber);
        if first && !is_at_home(&subscribed.filter, cx) {
            self.announce(cx, &subscribed.filter, true, ticket);
        } else if let Some(ticket) = ticket {
            self.wait_until_heard(&subscribed.filter, ticket);
        }
    }

    fn drop_filter(&mut self, cx: &mut Context, slot: SlotId, filter: &str) {
        self.receivers_change(cx);
        if let Some(inner) = shared(filter) {
            self.subscriptions -= 1;
            return self.leave_share(cx, (filter, inner), slot);
        }
        let last = self.filters.remove(filter, |held| held.session == slot);
        assert!(last.is_some(), "a session's subscriptions are among the filters");
        self.subscriptions -= 1;
        if last == Some(true) && !is_at_home(filter, cx) {
            self.announce(cx, filter, false, None);
        }
    }

    fn announce(&mut self, cx: &mut Context, filter: &str, has: bool, ticket: Option<SlotId>) {
        let filter: Arc<str> = filter.into();
        let heard = ticket.map(|ticket| {
            let heard = self.open_ticket(cx, Then::Heard(Arc::clone(&filter)));
            self.announced.insert(Arc::clone(&filter), heard);
            self.wait_until_heard(&filter, ticket);
            heard
        });
        let core = cx.core() as u16;
        self.tell_others(cx, heard, |ticket| Message::Interest {
            filter: Arc::clone(&filter),
            core,
            has,
            ticket,
        });
        if let Some(heard) = heard {
            self.part_done(cx, heard, 0, None);
        }
    }

    /// Makes a question wait until other cores know of a filter that they may have yet to hear of.
    fn wait_until_heard(&mut self, filter: &str, ticket: SlotId) {
        let heard = self.announced.get(filter).copied();
        if let Some(heard) = heard.and_then(|heard| self.tickets.get_mut(heard)) {
            heard.then.push(Then::Part(ticket));
            self.add_part(ticket);
        }
    }

    pub(super) fn note_interest(
        &mut self,
        cx: &mut Context,
        filter: &str,
        core: u16,
        has: bool,
        ticket: Option<u64>,
    ) {
        // Told again of what is known already, it still holds the filter once.
        let _ = self.interest.remove(filter, |held| *held == core);
        if has {
            self.interest.insert(&filter.into(), core);
        }
        if let Some(ticket) = ticket {
            let done = Message::Stored { ticket, recipients: 0, refused: None };
            cx.tell(usize::from(core), done);
        }
    }

    /// Drops what a session's client may not subscribe to any more.
    pub(super) fn drop_forbidden(&mut self, cx: &mut Context, slot: SlotId) {
        let Some(session) = self.sessions.get_mut(slot) else { return };
        let Some(principal) = session.owner.principal() else { return };
        let forbidden =
            session.subscriptions.take_if(|held| !principal.may_subscribe(&held.filter));
        let (number, persistent) = (session.number, session.is_persistent());
        for Subscribed { filter, .. } in forbidden {
            self.drop_filter(cx, slot, &filter);
            if persistent {
                self.store.fact(&Fact::Unsubscribed(number, (*filter).into()));
            }
        }
    }

    /// Ends a session: its subscriptions, what was queued for it, and its memory.
    pub(super) fn end_session(&mut self, cx: &mut Context, slot: SlotId) {
        let Some(session) = self.sessions.get_mut(slot) else { return };
        assert!(session.conn.is_none(), "a session ends after its connection");
        let will = session.will.take();
        let queued = session.queue.take();
        queued.iter().for_each(|delivery| delivery.leaves_queue(session.number));
        // [MQTT-4.8.2-5]: with the session, and goes to nobody else of a group.
        let ids: Vec<PacketId> = session.flight.inflight().map(|(id, _)| id).collect();
        let mut left: Vec<Delivery> =
            ids.into_iter().filter_map(|id| session.flight.cancel(id)).collect();
        left.extend(queued);
        if let Some(timer) = session.timer.take() {
            cx.disarm(timer);
        }
        let record = session.record.take();
        let number = session.number;
        self.take_for_others(slot, &mut left);
        for delivery in left {
            self.finish(cx, slot, delivery, Some(Dropped::SessionEnded));
        }
        if let Some((position, bytes)) = record {
            self.store.fact(&Fact::Ended(number));
            self.store.log.retire(position, bytes);
        }
        self.forget_device(slot);
        let Some(session) = self.sessions.remove(slot) else { return };
        for subscribed in session.subscriptions.iter() {
            self.drop_filter(cx, slot, &subscribed.filter);
        }
        if let Some(will) = will {
            self.end_will(cx, will);
        }
    }
}

fn subscriber(session: SlotId, subscribed: &Subscribed) -> Subscriber {
    Subscriber {
        session,
        subscription_id: subscribed.subscription_id,
        qos: subscribed.qos,
        no_local: subscribed.no_local,
        retain_as_published: subscribed.retain_as_published,
    }
}

/// Whether publishers know where the subscribers of a filter are without being told: a device's
/// own, on the core that is the device's home.
fn is_at_home(filter: &str, cx: &Context) -> bool {
    device_of(filter).is_some_and(|device| home(device, cx.cores()) == cx.core())
}
