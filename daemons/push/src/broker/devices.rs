//! Sessions that are devices of the sender platform ([`crate::control::platform`]): which one is
//! which device, and what the platform is to be told of them.
//!
//! ```text
//!   CONNECT, SUBSCRIBE ──► takes d/{client}/push? ──Arrived──► platform ──Known──► entry, by_device
//!   the connection or the subscription goes ──Left──► platform          the session ends: forgotten
//! ```
//!
//! An entry stands beside its session, under the number of the same slot: so a session is no larger
//! for it, and where no platform is there is nothing. What is told waits until the turn's end.

use std::sync::Arc;
use std::time::Duration;

use sextant_mqtt::QoS;
use sextant_ring::slot::SlotId;
use sextant_ring::table::Table;

use super::dispatch::Jobs;
use super::reports::Unsettled;
use super::{Broker, Context, Map, timer};
use crate::control::platform::{Known, Platform, Told};

/// What its timers are for: to see whether the platform keeps up again, and to go on with what is
/// for many.
const LOOK: u64 = 0;
pub(super) const GO_ON: u64 = 1;

/// What is known of a session.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Entry {
    device: u32,
    app: u16,
    known: bool,
    takes: Takes,
}

/// How a session takes what is sent to `d/{client}/push` now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Takes {
    /// It is not connected, or not subscribed.
    #[default]
    Nothing,
    AtMostOnce,
    AtLeastOnce,
    /// The same, by subscriptions of which some have identifiers.
    Identified(QoS),
}

impl Takes {
    pub(super) fn qos(self) -> Option<QoS> {
        match self {
            Takes::Nothing => None,
            Takes::AtMostOnce => Some(QoS::AtMostOnce),
            Takes::AtLeastOnce => Some(QoS::AtLeastOnce),
            Takes::Identified(qos) => Some(qos),
        }
    }
}

/// The devices of a core, and its way to the platform.
pub(super) struct Devices {
    platform: Arc<dyn Platform>,
    /// By the number of the session's slot.
    entries: Table<Entry>,
    by_device: Map<u32, SlotId>,
    /// What is told at the turn's end.
    told: Vec<Told>,
    pub(super) jobs: Jobs,
    /// Publications that the platform has yet to settle.
    pub(super) unsettled: Unsettled,
    /// Whether the platform could not keep up at the last turn's end.
    pub(super) behind: bool,
    /// A turn is due that looks whether it does again.
    looks_again: bool,
}

impl Devices {
    pub(super) fn new(platform: Arc<dyn Platform>) -> Devices {
        Devices {
            platform,
            entries: Table::default(),
            by_device: Map::default(),
            told: Vec::new(),
            jobs: Jobs::default(),
            unsettled: Unsettled::default(),
            behind: false,
            looks_again: false,
        }
    }

    /// Notes something for the turn's end.
    pub(super) fn tell(&mut self, told: Told) {
        self.told.push(told);
    }

    /// Devices whose sessions are here.
    pub(super) fn len(&self) -> usize {
        self.by_device.len()
    }

    /// The session of an app's device, and how it takes messages now.
    pub(super) fn find(&self, device: u32, app: u16) -> Option<(SlotId, Takes)> {
        let slot = *self.by_device.get(&device)?;
        let entry = self.entries.get(slot.index()).filter(|entry| entry.app == app)?;
        Some((slot, entry.takes))
    }

    /// The session of a device.
    pub(super) fn session(&self, device: u32) -> Option<SlotId> {
        self.by_device.get(&device).copied()
    }

    /// Forgets which device a slot is.
    fn forget(&mut self, slot: SlotId) {
        let Some(entry) = self.entries.get_mut(slot.index()) else { return };
        if std::mem::take(&mut entry.known) && self.by_device.get(&entry.device) == Some(&slot) {
            self.by_device.remove(&entry.device);
        }
    }
}

/// Where a device is sent to.
pub(super) fn push_topic(client_id: &str) -> String {
    ["d/", client_id, "/push"].concat()
}

impl Broker {
    /// Notes something for the platform, if there is one.
    pub(super) fn tell_platform(&mut self, told: impl FnOnce() -> Told) {
        if let Some(devices) = &mut self.devices {
            devices.tell(told());
        }
    }

    /// A session got its connection, or its subscriptions changed: the platform is told if it takes
    /// what is pushed to it from now on, or no longer.
    pub(super) fn look_at_device(&mut self, slot: SlotId) {
        if self.devices.is_none() {
            return;
        }
        let Some(session) = self.sessions.get(slot) else { return };
        let takes = match session.conn {
            Some(_) => self.granted(slot, &push_topic(&session.client_id)),
            None => None,
        };
        let takes = takes.map_or(Takes::Nothing, |(qos, ids)| match qos.min(QoS::AtLeastOnce) {
            qos if !ids.is_empty() => Takes::Identified(qos),
            QoS::AtMostOnce => Takes::AtMostOnce,
            _ => Takes::AtLeastOnce,
        });
        let Some(devices) = &mut self.devices else { return };
        let (number, client_id) = (session.number, &session.client_id);
        let entry = devices.entries.reach(slot.index());
        let before = std::mem::replace(&mut entry.takes, takes);
        let (device, known) = (entry.device, entry.known);
        match (before == Takes::Nothing, takes == Takes::Nothing) {
            (true, false) => {
                devices.tell(Told::Arrived { client_id: client_id.clone(), session: number });
            }
            (false, true) if known => devices.tell(Told::Left { device, session: number }),
            (false, true) => {
                devices.tell(Told::LeftUnknown { client_id: client_id.clone(), session: number });
            }
            _ => {}
        }
    }

    /// A session ends.
    pub(super) fn forget_device(&mut self, slot: SlotId) {
        if let Some(devices) = &mut self.devices {
            devices.forget(slot);
            if let Some(entry) = devices.entries.get_mut(slot.index()) {
                *entry = Entry::default();
            }
        }
    }

    /// The platform says which device a session is of.
    pub(super) fn know(&mut self, known: &Known) {
        let Known { ref client_id, session, device, app } = *known;
        let found = self.sessions.of_client(client_id);
        let is_it =
            |slot: &SlotId| self.sessions.get(*slot).is_some_and(|held| held.number == session);
        let (Some(slot), Some(devices)) = (found.filter(is_it), &mut self.devices) else { return };
        devices.forget(slot);
        if let Some(before) = devices.by_device.insert(device, slot)
            && let Some(entry) = devices.entries.get_mut(before.index())
        {
            // A number has one session.
            entry.known = false;
        }
        let entry = devices.entries.reach(slot.index());
        (entry.device, entry.app, entry.known) = (device, app, true);
    }

    /// Tells the platform what was noted in this turn.
    pub(super) fn tell_noted(&mut self, cx: &Context) {
        let Some(devices) = self.devices.as_mut().filter(|held| !held.told.is_empty()) else {
            return;
        };
        // The next turn is much like this one.
        let next = Vec::with_capacity(devices.told.len().min(1024));
        let told = std::mem::replace(&mut devices.told, next);
        devices.platform.tell(cx.core() as u16, told);
    }

    /// Asks the platform whether it keeps up.
    pub(super) fn look_at_platform(&mut self, cx: &mut Context) {
        /// How soon one that does not is asked again.
        const PAUSE: Duration = Duration::from_millis(5);
        let Some(devices) = &mut self.devices else { return };
        devices.behind = devices.platform.is_behind();
        if devices.behind && !devices.looks_again {
            let timer = cx.arm(cx.now() + PAUSE, timer::key(timer::PLATFORM, LOOK));
            devices.looks_again = timer.is_some();
        }
    }

    /// The turn's end looks at the platform, and goes on with what it asked for.
    pub(super) fn platform_timer(&mut self, number: u64) {
        if let Some(devices) = self.devices.as_mut().filter(|_| number == LOOK) {
            devices.looks_again = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_a_session_is_small() {
        assert!(size_of::<Entry>() <= 8, "{}", size_of::<Entry>());
    }
}
