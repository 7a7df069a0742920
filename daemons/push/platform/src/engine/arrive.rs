//! What the cores tell: who comes and goes, and what became of what they were given.

use roaring::RoaringBitmap;
use sextant_audit::Stage;
use sextant_policy::Reason;

use super::{Engine, Link, Timer};
use crate::copies::AT_MOST_ONCE;
use crate::model::State;
use crate::told::{Moved, Order, Told};

/// How long what came back from a device that is there waits before it is tried again.
const RETRY_MS: u64 = 1000;

/// What became of one message on some devices, told together.
struct Run {
    message: u64,
    what: Moved,
    at: u64,
    devices: Vec<u32>,
}

impl Engine {
    /// Takes in what a core tells, in its order.
    pub fn tell(&mut self, core: u16, told: Vec<Told>, now: u64) {
        let mut run: Option<Run> = None;
        for told in told {
            if let Told::Moved { message, device, at, what } = told {
                match &mut run {
                    Some(run) if (run.message, run.what, run.at) == (message, what, at) => {
                        run.devices.push(device);
                    }
                    _ => {
                        let next = Run { message, what, at, devices: vec![device] };
                        if let Some(run) = run.replace(next) {
                            self.moved(run, now);
                        }
                    }
                }
                continue;
            }
            if let Some(run) = run.take() {
                self.moved(run, now);
            }
            self.heard(core, told, now);
        }
        if let Some(run) = run {
            self.moved(run, now);
        }
    }

    fn heard(&mut self, core: u16, told: Told, now: u64) {
        match told {
            Told::Arrived { client_id, session } => match self.registry.number(&client_id) {
                Some(device) => self.arrived(core, &client_id, session, device),
                None => {
                    self.strangers.insert(client_id, (core, session));
                }
            },
            Told::Left { device, session } => self.left(device, session),
            Told::LeftUnknown { client_id, session } => {
                if self.strangers.get(&client_id).is_some_and(|(_, other)| *other == session) {
                    self.strangers.remove(&client_id);
                }
                // It became known while this was on its way.
                if let Some(device) = self.registry.number(&client_id) {
                    self.left(device, session);
                }
            }
            Told::Published { client_id, topic, payload, ticket } => {
                self.published(core, &client_id, topic, &payload, ticket, now);
            }
            Told::Moved { .. } => unreachable!("these are taken together"),
        }
    }

    /// A device is connected.
    pub(super) fn arrived(&mut self, core: u16, client_id: &str, session: u64, device: u32) {
        let Some(app) = self.registry.app_of(device) else { return };
        let before = self.links.get(&device).filter(|link| link.session == session);
        let in_flight = before.map_or(0, |link| link.in_flight);
        let link = Link { session, core, in_flight, online: true, skipped: false };
        self.links.insert(device, link);
        self.online.insert(device);
        let client_id = client_id.into();
        self.orders.push((core, Order::Known { client_id, session, device, app }));
        self.looks.insert(device);
    }

    fn left(&mut self, device: u32, session: u64) {
        let Some(link) = self.links.get_mut(&device).filter(|link| link.session == session) else {
            return;
        };
        link.online = false;
        self.online.remove(device);
        if link.in_flight == 0 {
            self.links.remove(&device);
        }
    }

    fn moved(&mut self, run: Run, now: u64) {
        let Run { message: number, what, at, mut devices } = run;
        devices.sort_unstable();
        devices.dedup();
        if !matches!(what, Moved::Sent) {
            self.make_room(&devices);
        }
        let (stage, reason) = match what {
            Moved::Sent => (Stage::Sent, 0),
            Moved::SentAtMostOnce => (Stage::Sent, AT_MOST_ONCE),
            Moved::Acknowledged => (Stage::Acknowledged, 0),
            Moved::Refused => (Stage::Dropped, Reason::Undeliverable.code()),
            Moved::Returned => return self.returned(number, &devices, at, now),
        };
        let Some(message) = self.messages.get_mut(&number) else { return };
        let app = message.app;
        message.reach(stage, reason, &devices, at, |_| {});
        for device in devices {
            self.fact(number, app, device, stage, reason, at);
        }
        if !matches!(what, Moved::Sent) {
            self.finish_if_settled(number, now);
        }
    }

    /// Something is on its way to these devices no more.
    fn make_room(&mut self, devices: &[u32]) {
        for device in devices {
            let Some(link) = self.links.get_mut(device) else { continue };
            link.in_flight = link.in_flight.saturating_sub(1);
            if std::mem::take(&mut link.skipped) {
                self.looks.insert(*device);
            }
            if !link.online && link.in_flight == 0 {
                self.links.remove(device);
            }
        }
    }

    /// A core has a message no more that these devices did not get.
    fn returned(&mut self, number: u64, devices: &[u32], at: u64, now: u64) {
        let Some(message) = self.messages.get_mut(&number) else { return };
        let (app, state) = (message.app, message.state);
        message.copies.return_to_queue(devices);
        let open: Vec<u32> =
            devices.iter().copied().filter(|device| message.copies.is_pending(*device)).collect();
        match state {
            State::Recalled => self.lose(number, &open, Stage::Recalled, Reason::Recalled, now),
            _ if state.is_over() => {}
            _ => {
                self.uncount(number, app, &open, at);
                for device in &open {
                    self.fact(number, app, *device, Stage::Queued, 0, at);
                    if self.online.contains(*device) {
                        self.timers.insert((now + RETRY_MS, Timer::Retry(*device)));
                    }
                }
                if let Some(message) = self.messages.get(&number)
                    && !message.copies.is_many()
                {
                    for device in &open {
                        let waiting = self.by_device.entry(*device).or_default();
                        if !waiting.contains(&number) {
                            waiting.push(number);
                        }
                    }
                }
            }
        }
    }

    /// What came back before it was sent counts for nothing.
    fn uncount(&mut self, number: u64, app: u16, devices: &[u32], at: u64) {
        let Some(content) = self.content(number) else { return };
        let Some(message) = self.messages.get(&number) else { return };
        let unsent = |device: &u32| !message.copies.has_reached(*device, Stage::Sent);
        let unsent: RoaringBitmap = devices.iter().copied().filter(unsent).collect();
        if unsent.is_empty() || content.plan.rules().is_empty() {
            return;
        }
        for (zone, devices) in self.by_zone(app, &unsent) {
            let zone = self.zones.get(zone.unwrap_or(content.plan.zone()));
            for device in devices {
                self.counters.undo(device, content.plan.rules(), at, zone);
            }
        }
    }

    /// A device is no more: what waits for it is lost.
    pub(super) fn gone(&mut self, device: u32, now: u64) {
        self.links.remove(&device);
        self.online.remove(device);
        self.counters.forget(device);
        let waiting = self.by_device.remove(&device).unwrap_or_default();
        let is_for = |number: &&u64| {
            self.messages.get(number).is_some_and(|message| !message.copies.is_done(device))
        };
        let many: Vec<u64> = self.many.iter().filter(is_for).copied().collect();
        for number in waiting.into_iter().chain(many) {
            self.lose(number, &[device], Stage::Dropped, Reason::DeviceGone, now);
            self.finish_if_settled(number, now);
        }
    }

    /// Devices that are connected.
    pub fn online(&self) -> &RoaringBitmap {
        &self.online
    }
}
