//! This core's subscribers of the broker's own topics ([`crate::sys`]).

use std::sync::Arc;

use sextant_mqtt::{QoS, topic};
use sextant_ring::slot::SlotId;

use super::encodings::Shared;
use super::message::Incoming;
use super::publish::Wanted;
use super::session::Subscriber;
use super::{Broker, Context};
use crate::sys::{Level, PREFIX};

fn incoming<'a>((topic, payload): &'a Level, retain: bool) -> Incoming<'a> {
    Incoming { payload, retain, ..Incoming::at_most_once(topic) }
}

impl Broker {
    /// The control plane says how the daemon stands: who has subscribed is told what has changed.
    pub(super) fn take_levels(&mut self, cx: &mut Context, levels: &Arc<[Level]>) {
        let before = std::mem::replace(&mut self.levels, Arc::clone(levels));
        for level in levels.iter().filter(|level| !before.contains(level)) {
            // At QoS 0, and kept nowhere, nothing can be refused.
            let _ = self.deliver(cx, &incoming(level, false), false, None);
        }
    }

    /// A session has subscribed: of what its filter matches it is told all.
    pub(super) fn tell_levels(&mut self, cx: &mut Context, filter: &str, subscriber: Subscriber) {
        if !filter.starts_with(PREFIX) {
            return;
        }
        let slot: SlotId = subscriber.session;
        let subscriber =
            Subscriber { qos: QoS::AtMostOnce, retain_as_published: true, ..subscriber };
        for level in Arc::clone(&self.levels).iter() {
            if topic::matches(filter, level.0) {
                let incoming = incoming(level, true);
                let group = [(slot, subscriber)];
                let wanted = Wanted::of(&group, &incoming);
                self.send_once(cx, slot, &mut Shared::new(&incoming), &wanted, false);
            }
        }
    }
}
