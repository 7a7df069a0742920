//! What the platform sends to devices: brought to their sessions, some each turn, taken back, and
//! told of when it comes to its end.
//!
//! ```text
//!   Dispatch ─► One ──────────────► its session: offer ─► queue, flight ─► send ─► Sent
//!           └─► Many ─► jobs ─► some a turn ┘   │                                 Acknowledged
//!                                               └─ none, full, ended, expired ──► Returned
//! ```
//!
//! Such a delivery is like any other but in this: its content is in memory, shared by all who are
//! to get it, and nothing of it is in the log. The platform has that, and dispatches again what a
//! restart takes. Its topic is each receiver's own, and is made when it is sent.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use roaring::RoaringBitmap;
use sextant_mqtt::{Delivery as Wire, PublishHead, QoS, SubscriptionIds};
use sextant_ring::slot::SlotId;
use sextant_segment::Position;

use super::conn::Stage;
use super::devices::{GO_ON, Takes, push_topic};
use super::encodings::{seconds_left, subscription_ids};
use super::message::{Delivery, Held, Incoming, Pushed};
use super::records::MessageRecord;
use super::trace::Sent;
use super::{Broker, Context, timer, transport};
use crate::control::platform::{self, Devices, NotTaken, Told, Withdraw};
use crate::meters::Dropped;

/// Devices that a turn sends to, if what they get is short.
const AT_ONCE: usize = 1024;
/// A device counts once more for each so many bytes that it gets.
const BYTES_OF_ONE: usize = 4096;
/// Devices, and messages in their queues, that a turn looks at for the price of one device that it
/// sends to.
const LOOKS: usize = 8;

/// What goes on in the next turn, in this order. There is as much of it as the platform asks for
/// without waiting for what comes of it.
pub(super) type Jobs = VecDeque<Job>;

/// Something for many devices.
pub(super) enum Job {
    Dispatch(Dispatching),
    Withdraw(Withdrawing),
}

/// A message on its way to many.
pub(super) struct Dispatching {
    held: Rc<Held>,
    devices: Arc<RoaringBitmap>,
    /// Who is next, or comes behind that; `None` when all had it.
    next: Option<u32>,
    /// What was withdrawn meanwhile: from these devices; `None`: from all.
    withdrawn: Vec<Option<Arc<RoaringBitmap>>>,
}

/// A message that is being taken back.
pub(super) struct Withdrawing {
    withdraw: Withdraw,
    /// The device, or the slot where it is from all of them, that is next, or comes behind that.
    next: Option<u32>,
}

impl Dispatching {
    fn is_withdrawn_from(&self, device: u32) -> bool {
        let covers = |from: &Option<Arc<RoaringBitmap>>| {
            from.as_ref().is_none_or(|devices| devices.contains(device))
        };
        self.withdrawn.iter().any(covers)
    }
}

/// The next devices of a set, so many at most; `next` is where to go on.
fn take_some(devices: &RoaringBitmap, next: &mut Option<u32>, limit: usize) -> Vec<u32> {
    let Some(from) = *next else { return Vec::new() };
    let some: Vec<u32> = devices.range(from..).take(limit).collect();
    *next = some.last().and_then(|last| last.checked_add(1)).filter(|_| some.len() == limit);
    some
}

impl Held {
    /// A message of the platform: on no disk, and in no table.
    fn pushed(dispatch: &platform::Dispatch) -> Rc<Held> {
        let record = MessageRecord {
            expires_at: dispatch.expires_at,
            qos: QoS::AtLeastOnce as u8,
            payload: dispatch.payload.clone(),
            ..MessageRecord::default()
        };
        let (message, app, record) = (dispatch.message, dispatch.app, Rc::new(record));
        Rc::new(Held {
            id: 0,
            position: Cell::new(Position::from_bits(0)),
            stored_bytes: Cell::new(0),
            bytes: u32::try_from(dispatch.payload.len()).unwrap_or(u32::MAX),
            expires_at: dispatch.expires_at,
            qos: QoS::AtLeastOnce,
            topic: None,
            timer: Cell::new(None),
            expired: Cell::new(false),
            queued_in: RefCell::default(),
            receipt: None,
            waits_for: None,
            retained: false,
            pushed: Some(Box::new(Pushed { message, app, record })),
        })
    }
}

impl Broker {
    /// The platform sends a message.
    pub(super) fn dispatch(&mut self, cx: &mut Context, dispatch: &platform::Dispatch) {
        let Some(devices) = &mut self.devices else { return };
        let held = Held::pushed(dispatch);
        match &dispatch.devices {
            Devices::One(device) => self.send_to_device(cx, &held, *device),
            Devices::Many(many) => devices.jobs.push_back(Job::Dispatch(Dispatching {
                held,
                devices: Arc::clone(many),
                next: Some(0),
                withdrawn: Vec::new(),
            })),
        }
    }

    /// The platform takes a message back. From whom its turn has not come yet it is as good as
    /// taken back already.
    pub(super) fn withdraw(&mut self, withdraw: Withdraw) {
        let Some(devices) = &mut self.devices else { return };
        for job in &mut devices.jobs {
            if let Job::Dispatch(dispatching) = job
                && dispatching.held.is_pushed(withdraw.message)
            {
                dispatching.withdrawn.push(withdraw.devices.clone());
            }
        }
        devices.jobs.push_front(Job::Withdraw(Withdrawing { withdraw, next: Some(0) }));
    }

    /// Goes on with what is for many, for a moment only.
    pub(super) fn go_on_dispatching(&mut self, cx: &mut Context) {
        if self.devices.as_ref().is_none_or(|devices| devices.jobs.is_empty()) {
            return;
        }
        self.end_burst(cx);
        let mut left = AT_ONCE;
        while left > 0 {
            let Some(job) = self.devices.as_mut().and_then(|devices| devices.jobs.pop_front())
            else {
                return;
            };
            let (done, rest) = match job {
                Job::Dispatch(dispatching) => self.dispatch_some(cx, dispatching, left),
                Job::Withdraw(withdrawing) => self.withdraw_some(cx, withdrawing, left),
            };
            left -= done.min(left);
            if let (Some(rest), Some(devices)) = (rest, &mut self.devices) {
                devices.jobs.push_front(rest);
            }
        }
        if self.devices.as_ref().is_some_and(|devices| !devices.jobs.is_empty()) {
            // It goes on with a turn that comes whatever else happens.
            let _ = cx.arm(cx.now(), timer::key(timer::PLATFORM, GO_ON));
        }
    }

    fn dispatch_some(
        &mut self,
        cx: &mut Context,
        mut job: Dispatching,
        limit: usize,
    ) -> (usize, Option<Job>) {
        let each = 1 + job.held.bytes as usize / BYTES_OF_ONE;
        let some = take_some(&job.devices, &mut job.next, (limit / each).max(1));
        for device in &some {
            match job.is_withdrawn_from(*device) {
                true => self.tell_returned(cx, &job.held, *device),
                false => self.send_to_device(cx, &job.held, *device),
            }
        }
        let rest = job.next.is_some().then_some(Job::Dispatch(job));
        (some.len() * each, rest)
    }

    fn withdraw_some(
        &mut self,
        cx: &mut Context,
        mut job: Withdrawing,
        limit: usize,
    ) -> (usize, Option<Job>) {
        let limit = limit * LOOKS;
        let Some(devices) = &self.devices else { return (0, None) };
        // Devices, or slots, and the sessions there.
        let some: Vec<(u32, Option<SlotId>)> = match &job.withdraw.devices {
            Some(from) => {
                let some = take_some(from, &mut job.next, limit);
                some.into_iter().map(|device| (device, devices.session(device))).collect()
            }
            None => {
                let (from, span) = (job.next.unwrap_or(0) as usize, self.sessions.span());
                let end = span.min(from + limit);
                job.next = (end < span).then_some(end as u32);
                (from..end).map(|at| (at as u32, self.sessions.id_at(at))).collect()
            }
        };
        let mut looks = 0;
        for (at, slot) in some {
            looks += 1;
            looks += slot.map_or(0, |slot| self.take_back(cx, job.withdraw.message, slot));
            if looks >= limit {
                // It goes on behind this one, if there is anybody.
                job.next = at.checked_add(1);
                break;
            }
        }
        let rest = job.next.is_some().then_some(Job::Withdraw(job));
        (looks.div_ceil(LOOKS), rest)
    }

    /// Takes a message out of a session's queue, and tells how many were in it. What is in flight
    /// stays.
    fn take_back(&mut self, cx: &mut Context, message: u64, slot: SlotId) -> usize {
        let queued = self.sessions.get(slot).map_or(0, |session| session.queue.len());
        while let Some(delivery) =
            self.sessions.get_mut(slot).and_then(|session| session.take_pushed(message))
        {
            self.settle(cx, delivery, Some(Dropped::SessionEnded));
        }
        queued
    }

    /// Sends a message to a device, or returns it.
    fn send_to_device(&mut self, cx: &mut Context, held: &Rc<Held>, device: u32) {
        let Some(pushed) = &held.pushed else { return };
        let found = self.devices.as_ref().and_then(|devices| devices.find(device, pushed.app));
        let takes = found.and_then(|(slot, takes)| Some((slot, takes, takes.qos()?)));
        let Some((slot, takes, qos)) = takes.filter(|_| !held.is_expired(cx.clock().unix_ms))
        else {
            return self.tell_returned(cx, held, device);
        };
        let subscription_ids = match takes {
            Takes::Identified(_) => self.ids_of_device(slot),
            _ => Box::default(),
        };
        let held = Rc::clone(held);
        let (retain, tracked) = (false, false);
        let delivery = Delivery { held, qos, retain, tracked, device, subscription_ids };
        match qos {
            QoS::AtMostOnce => self.send_to_device_once(cx, slot, &delivery),
            _ => {
                let incoming = Incoming::of(&pushed.record, qos);
                self.offer(cx, slot, delivery, Some(&incoming));
            }
        }
    }

    fn ids_of_device(&self, slot: SlotId) -> Box<[u32]> {
        let topic = self.sessions.get(slot).map(|session| push_topic(&session.client_id));
        topic.and_then(|topic| self.granted(slot, &topic)).map(|(_, ids)| ids).unwrap_or_default()
    }

    /// Sends a message at QoS 0, or returns it: it waits for nobody here.
    fn send_to_device_once(&mut self, cx: &mut Context, slot: SlotId, delivery: &Delivery) {
        let Some(pushed) = &delivery.held.pushed else { return };
        let (message, app, record) = (pushed.message, pushed.app, &pushed.record);
        let (device, at) = (delivery.device, cx.clock().unix_ms);
        let returned = Told::Returned { message, device, app, at };
        let Some(session) = self.sessions.get(slot) else { return };
        let topic = push_topic(&session.client_id);
        let Some(conn) = session.conn else { return self.tell_platform(|| returned) };
        if self.is_behind(cx, conn, self.settings.send_queue_bytes_max) {
            if cx.unsent(conn) > 0 {
                self.note_blocked(cx, conn);
            }
            return self.tell_platform(|| returned);
        }
        let Some(held) = self.conns.get_mut(conn.index()).and_then(Option::as_mut) else {
            return self.tell_platform(|| returned);
        };
        let Stage::Online { link, .. } = &mut held.stage else {
            return self.tell_platform(|| returned);
        };
        let ids = subscription_ids(&delivery.subscription_ids);
        let head = PublishHead {
            message_expiry_s: seconds_left(record.expires_at, at),
            subscription_ids: SubscriptionIds::new(&ids),
            ..PublishHead::new(Wire::AtMostOnce, &topic, record.payload.len())
        };
        self.scratch.clear();
        if link.publish_head(&head, &mut self.scratch).is_err() {
            self.meters.dropped(Dropped::TooLarge);
            let why = NotTaken::TooLarge;
            return self.tell_platform(|| Told::Dropped { message, device, app, at, why });
        }
        let bytes = self.scratch.len() + record.payload.len();
        let payload = Some(record.payload.clone());
        let sent =
            transport::send(cx, conn, held.transport_mut(), &mut self.scratch, payload).is_ok();
        if !sent {
            return self.tell_platform(|| returned);
        }
        if self.is_traced(conn) {
            let (topic, payload, qos, retain, id) = (&*topic, &*record.payload, 0, false, None);
            self.trace_publish(cx, conn, &Sent { topic, payload, qos, retain, id, bytes });
        }
        self.count_sent(conn, 1, bytes);
        self.meters.core.inc(self.meters.names.delivered[0]);
        self.tell_platform(|| Told::Sent { message, device, app, at, last: true });
    }

    fn tell_returned(&mut self, cx: &Context, held: &Held, device: u32) {
        let Some(pushed) = &held.pushed else { return };
        let (message, app, at) = (pushed.message, pushed.app, cx.clock().unix_ms);
        self.tell_platform(|| Told::Returned { message, device, app, at });
    }

    /// A message of the platform was put in flight.
    pub(super) fn tell_sent(&mut self, cx: &Context, pushed: &Pushed, device: u32) {
        let (message, app, at) = (pushed.message, pushed.app, cx.clock().unix_ms);
        self.tell_platform(|| Told::Sent { message, device, app, at, last: false });
    }

    /// A message of the platform leaves a session: acknowledged, or for a reason.
    pub(super) fn tell_settled(
        &mut self,
        cx: &Context,
        pushed: &Pushed,
        device: u32,
        dropped: Option<Dropped>,
    ) {
        let (message, app, at) = (pushed.message, pushed.app, cx.clock().unix_ms);
        let not_taken = match dropped {
            None => {
                return self.tell_platform(|| Told::Acknowledged { message, device, app, at });
            }
            Some(Dropped::TooLarge) => NotTaken::TooLarge,
            Some(Dropped::Refused) => NotTaken::Refused,
            // The platform has it, and sees for itself what is to become of it.
            Some(_) => return self.tell_platform(|| Told::Returned { message, device, app, at }),
        };
        dropped.into_iter().for_each(|why| self.meters.dropped(why));
        self.tell_platform(|| Told::Dropped { message, device, app, at, why: not_taken });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_taken_piece_by_piece_and_each_device_once() {
        let devices: RoaringBitmap = [0, 1, 5, 70_000, u32::MAX - 1, u32::MAX].into();
        for limit in 1..=7 {
            let (mut next, mut taken, mut pieces) = (Some(0), Vec::new(), 0);
            while next.is_some() {
                let some = take_some(&devices, &mut next, limit);
                assert!(some.len() <= limit);
                taken.extend(some);
                pieces += 1;
            }
            assert!(taken.iter().copied().eq(&devices), "{taken:?}");
            assert!(pieces <= devices.len() as usize / limit + 1);
        }
        assert!(take_some(&devices, &mut None, 1).is_empty());
    }
}
