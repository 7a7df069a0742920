//! From the log to the devices: who is ready, whose turn it is, and what the rules say of each.
//!
//! A device that waits for something and is there is *ready*. The throttle says which message has
//! its turn and how many of its devices; the rules say of each of these: now, later, or never.

use std::sync::Arc;

use roaring::RoaringBitmap;
use sextant_audit::Stage;
use sextant_devices::By;
use sextant_policy::{Decision, Device, Reason, State as RuleState, ZoneId, decide};

use super::{Content, Engine, Map, Timer};
use crate::model::State;
use crate::told::{Devices, Dispatch, Order};

/// Messages to devices that one run sends at most; the next goes on.
const SENDS_AT_ONCE: u32 = 1 << 15;
/// Timers that one run looks at.
const TIMERS_AT_ONCE: usize = 4096;
/// From this priority on, what waits for room on the way to a device has twice as much.
const URGENT: u8 = 8;

/// What leaves in one run: the devices of a message on a core.
#[derive(Default)]
struct Leaving {
    /// In the order in which they are to leave.
    groups: Vec<(u64, u16, Vec<u32>)>,
    at: Map<(u64, u16), usize>,
    /// What says something else to each device.
    own: Vec<(u64, u16, u32, bytes::Bytes)>,
}

impl Leaving {
    fn add(&mut self, message: u64, core: u16, device: u32) {
        let next = self.groups.len();
        let at = *self.at.entry((message, core)).or_insert(next);
        if at == next {
            self.groups.push((message, core, Vec::new()));
        }
        self.groups[at].2.push(device);
    }
}

impl Engine {
    /// Does what is due.
    pub(super) fn pass_time(&mut self, now: u64) {
        for _ in 0..TIMERS_AT_ONCE {
            let Some((at, timer)) = self.timers.first().copied() else { return };
            if at > now {
                return;
            }
            self.timers.pop_first();
            match timer {
                Timer::Due(number) => self.start(number, now),
                Timer::Deferred(number) => self.end_deferral(at, number, now),
                Timer::Retry(device) => {
                    self.looks.insert(device);
                }
                Timer::Review(number) => self.review_expires(number, now),
                Timer::Expire(number) => self.expire(number, now),
            }
        }
    }

    /// A message goes from now on.
    pub(super) fn start(&mut self, number: u64, now: u64) {
        let Some(message) = self.messages.get_mut(&number) else { return };
        if message.state != State::Scheduled {
            return;
        }
        message.state = State::Running;
        let (app, is_many) = (message.app, message.copies.is_many());
        let pending = message.copies.pending();
        let away: Vec<u32> = (&pending - &self.online).iter().collect();
        let mut new = Vec::new();
        message.copies.reach(Stage::Queued, 0, &away, |device| new.push(device));
        for device in new {
            self.fact(number, app, device, Stage::Queued, 0, now);
        }
        if is_many {
            self.many.insert(number);
            self.make_all_ready(number, &pending, now);
        } else {
            for device in &pending {
                self.by_device.entry(device).or_default().push(number);
                if self.online.contains(device) {
                    self.make_ready(number, device, now);
                }
            }
        }
        self.finish_if_settled(number, now);
    }

    fn make_all_ready(&mut self, number: u64, devices: &RoaringBitmap, now: u64) {
        let online = devices & &self.online;
        let Some(message) = self.messages.get_mut(&number) else { return };
        let new = message.copies.make_all_ready(&online);
        self.ask_for_turns(number, new, now);
    }

    fn make_ready(&mut self, number: u64, device: u32, now: u64) {
        let Some(message) = self.messages.get_mut(&number) else { return };
        if message.state == State::Running && message.copies.make_ready(device) {
            self.ask_for_turns(number, 1, now);
        }
    }

    fn ask_for_turns(&mut self, number: u64, count: u64, now: u64) {
        if count == 0 || self.throttle.more(number, count) {
            return;
        }
        let Some(message) = self.messages.get(&number) else { return };
        let rate = message.rate.or_else(|| match message.copies.is_many() {
            true => self.rules.campaign_rate(),
            false => None,
        });
        let (app, priority) = (message.app, message.priority);
        if let Err(error) = self.throttle.add(number, app, priority, rate, count, now) {
            tracing::error!(message = number, %error, "a message has no turn");
        }
    }

    /// Looks for what waits for devices that have come, or have room again.
    pub(super) fn look(&mut self, now: u64) {
        const LOOKS_AT_ONCE: usize = 8192;
        let looks: Vec<u32> = self.looks.iter().copied().take(LOOKS_AT_ONCE).collect();
        for device in looks {
            self.looks.remove(&device);
            let is_there = self.links.get(&device).is_some_and(|link| link.online);
            if is_there {
                self.look_for(device, now);
            }
        }
    }

    fn look_for(&mut self, device: u32, now: u64) {
        if let Some(waiting) = self.by_device.remove(&device) {
            let mut left = Vec::with_capacity(waiting.len());
            for number in waiting {
                let Some(message) = self.messages.get(&number) else { continue };
                if message.state.is_over() || message.copies.is_done(device) {
                    continue;
                }
                left.push(number);
                self.make_ready(number, device, now);
            }
            if !left.is_empty() {
                self.by_device.insert(device, left);
            }
        }
        let is_for = |number: &&u64| {
            self.messages.get(number).is_some_and(|message| message.copies.is_pending(device))
        };
        let many: Vec<u64> = self.many.iter().filter(is_for).copied().collect();
        for number in many {
            self.make_ready(number, device, now);
        }
    }

    /// Sends what may be sent; whether more may be at once.
    pub(super) fn dispatch(&mut self, now: u64) -> bool {
        let mut leaving = Leaving::default();
        let mut budget = SENDS_AT_ONCE;
        let mut devices = Vec::new();
        let mut settled = Vec::new();
        while let Some(grant) = self.throttle.next(now, budget) {
            budget -= grant.messages.min(budget);
            let number = grant.campaign;
            let Some(message) = self.messages.get_mut(&number) else {
                self.throttle.end(number);
                continue;
            };
            message.copies.take_ready(grant.messages, &mut devices);
            let own = message.rate.is_some();
            let is_limited =
                own || message.copies.is_many() && self.rules.campaign_rate().is_some();
            let left = message.copies.ready();
            if left == 0 && !is_limited {
                self.throttle.end(number);
            }
            if devices.is_empty() {
                continue;
            }
            let Some(content) = self.content(number) else {
                self.lose(number, &devices, Stage::Dropped, Reason::Undeliverable, now);
                settled.push(number);
                continue;
            };
            self.send(number, &content, &devices, &mut leaving, now);
            settled.push(number);
        }
        self.leave(leaving);
        for number in settled {
            self.finish_if_settled(number, now);
        }
        budget == 0
    }

    /// Sends a message to those of these devices that may have it now.
    fn send(
        &mut self,
        number: u64,
        content: &Content,
        devices: &[u32],
        leaving: &mut Leaving,
        now: u64,
    ) {
        let Some(message) = self.messages.get(&number) else { return };
        let (app, priority) = (message.app, message.priority);
        let window = match priority >= URGENT {
            true => self.options.window.saturating_mul(2),
            false => self.options.window,
        };
        let mut going: Vec<(u32, u16)> = Vec::with_capacity(devices.len());
        for device in devices {
            let Some(link) = self.links.get_mut(device).filter(|link| link.online) else {
                continue;
            };
            match link.in_flight < window {
                true => going.push((*device, link.core)),
                false => link.skipped = true,
            }
        }
        if !content.plan.is_free() || message.schedule.is_some() {
            self.ask_rules(number, content, app, &mut going, now);
        }
        let mut left = Vec::with_capacity(going.len());
        for (device, core) in going {
            if content.payload.is_none() {
                let Some(payload) = self.render(number, content, device) else {
                    self.lose(number, &[device], Stage::Dropped, Reason::Template, now);
                    continue;
                };
                leaving.own.push((number, core, device, payload));
            } else {
                leaving.add(number, core, device);
            }
            if let Some(link) = self.links.get_mut(&device) {
                link.in_flight = link.in_flight.saturating_add(1);
            }
            left.push(device);
        }
        left.sort_unstable();
        if let Some(message) = self.messages.get_mut(&number) {
            message.copies.depart(&left);
        }
    }

    /// Leaves those in `going` that the rules let have a message now, and counts it for them.
    fn ask_rules(
        &mut self,
        number: u64,
        content: &Content,
        app: u16,
        going: &mut Vec<(u32, u16)>,
        now: u64,
    ) {
        let Some(message) = self.messages.get(&number) else { return };
        let asked = sextant_policy::Message {
            plan: content.plan.clone(),
            accepted_ms: message.accepted_ms,
            schedule: message.schedule,
            ttl_ms: message.ttl_ms,
        };
        // What was sent and came back was counted then: it is not held back by itself.
        let again = sextant_policy::Message { plan: content.plan.again(), ..asked.clone() };
        let devices: RoaringBitmap = going.iter().map(|(device, _)| *device).collect();
        let before: RoaringBitmap = devices
            .iter()
            .filter(|device| message.copies.has_reached(*device, Stage::Sent))
            .collect();
        let zones = self.by_zone(app, &devices);
        let mut later: Vec<(u64, u32, Reason)> = Vec::new();
        let mut never: Vec<(u32, Reason)> = Vec::new();
        let mut may = RoaringBitmap::new();
        for (zone, devices) in zones {
            let clock = zone.unwrap_or(asked.plan.zone());
            for device in devices {
                let state = RuleState { zones: &self.zones, counters: &self.counters };
                let asked = if before.contains(device) { &again } else { &asked };
                match decide(asked, Device { number: device, zone }, state, now) {
                    Decision::Now => {
                        let clock = self.zones.get(clock);
                        self.counters.note(device, asked.plan.rules(), now, clock);
                        may.insert(device);
                    }
                    Decision::At(at, why) => later.push((at, device, why.reason)),
                    Decision::Never(why) => never.push((device, why.reason)),
                }
            }
        }
        going.retain(|(device, _)| may.contains(*device));
        for (at, device, reason) in later {
            let mut one = RoaringBitmap::new();
            one.insert(device);
            if self.defer(number, &one, at) {
                self.fact(number, app, device, Stage::Queued, reason.code(), now);
            }
        }
        for (device, reason) in never {
            let stage = match reason {
                Reason::Expired => Stage::Expired,
                _ => Stage::Dropped,
            };
            self.lose(number, &[device], stage, reason, now);
        }
    }

    /// Hands over to the cores what leaves.
    fn leave(&mut self, leaving: Leaving) {
        for (number, core, mut devices) in leaving.groups {
            let Some(content) = self.content(number) else { continue };
            let Some(payload) = content.payload.clone() else { continue };
            let devices = match devices.as_slice() {
                [one] => Devices::One(*one),
                _ => {
                    devices.sort_unstable();
                    Devices::Many(Arc::new(devices.into_iter().collect()))
                }
            };
            self.order_dispatch(number, core, payload, devices);
        }
        for (number, core, device, payload) in leaving.own {
            self.order_dispatch(number, core, payload, Devices::One(device));
        }
    }

    fn order_dispatch(&mut self, number: u64, core: u16, payload: bytes::Bytes, devices: Devices) {
        let Some(message) = self.messages.get(&number) else { return };
        let (app, expires_at) = (message.app, message.expires_ms);
        let dispatch = Dispatch { message: number, app, expires_at, payload, devices };
        self.orders.push((core, Order::Dispatch(Arc::new(dispatch))));
    }

    /// Lets devices wait for a message until a time; whether any of them did not before.
    pub(super) fn defer(&mut self, number: u64, devices: &RoaringBitmap, until: u64) -> bool {
        let waiting = self.deferred.entry((until, number)).or_default();
        let before = waiting.len();
        *waiting |= devices;
        let is_new = waiting.len() > before;
        self.timers.insert((until, Timer::Deferred(number)));
        is_new
    }

    fn end_deferral(&mut self, at: u64, number: u64, now: u64) {
        let Some(devices) = self.deferred.remove(&(at, number)) else { return };
        let Some(message) = self.messages.get(&number) else { return };
        match message.state {
            // The first of them whose time has come.
            State::Scheduled => self.start_some(number, &devices, now),
            State::Running => self.ready_again(number, &devices, now),
            _ => {}
        }
    }

    fn ready_again(&mut self, number: u64, devices: &RoaringBitmap, now: u64) {
        self.make_all_ready(number, devices, now);
    }

    /// A message at a local time begins where its time comes first.
    fn start_some(&mut self, number: u64, devices: &RoaringBitmap, now: u64) {
        let Some(message) = self.messages.get_mut(&number) else { return };
        message.state = State::Running;
        if message.copies.is_many() {
            self.many.insert(number);
        } else {
            for device in message.copies.pending() {
                self.by_device.entry(device).or_default().push(number);
            }
        }
        self.ready_again(number, devices, now);
    }

    /// A message's time is over for all who have not got it.
    fn expire(&mut self, number: u64, now: u64) {
        let Some(message) = self.messages.get(&number) else { return };
        if message.state.is_over() {
            return;
        }
        let flying = message.copies.in_flight();
        let open: Vec<u32> = (message.copies.pending() | &flying).iter().collect();
        self.withdraw_orders(number, &flying);
        self.lose(number, &open, Stage::Expired, Reason::Expired, now);
        if let Some(message) = self.messages.get_mut(&number) {
            message.state = State::Running;
        }
        self.finish_if_settled(number, now);
    }

    /// Has the cores take a message out of the queues of devices.
    pub(super) fn withdraw_orders(&mut self, number: u64, devices: &RoaringBitmap) {
        let mut by_core: Map<u16, RoaringBitmap> = Map::default();
        for device in devices {
            if let Some(link) = self.links.get(&device) {
                by_core.entry(link.core).or_default().insert(device);
            }
        }
        for (core, devices) in by_core {
            let devices = Arc::new(devices);
            self.orders.push((core, Order::Withdraw { message: number, devices }));
        }
    }

    /// Devices by their time zones; none of those that tell none.
    pub(super) fn by_zone(
        &mut self,
        app: u16,
        devices: &RoaringBitmap,
    ) -> Vec<(Option<ZoneId>, RoaringBitmap)> {
        let zones = &mut self.zones;
        let mut known = |name: Option<&str>| name.and_then(|name| zones.intern(name).ok());
        if devices.len() == 1 {
            let entry = devices.min().and_then(|device| self.registry.entry(device));
            let zone = entry.and_then(|entry| entry.device.time_zone);
            return vec![(known(zone.as_deref()), devices.clone())];
        }
        let groups = self.registry.groups(app, By::TimeZone, devices);
        let mut rest = devices.clone();
        let mut by_zone: Vec<_> = groups
            .into_iter()
            .map(|group| {
                rest -= &group.devices;
                (known(group.value), group.devices)
            })
            .collect();
        // Those that are of another app by now.
        if !rest.is_empty() {
            by_zone.push((None, rest));
        }
        by_zone
    }
}
