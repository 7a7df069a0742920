//! Messages of a shared subscription whose member is gone for good.
//!
//! What a session had not acknowledged at QoS 1 when it ended, or had not got yet, goes to another
//! member of its group, wherever that is (section 4.8.2). It is delivered anew, to the group alone:
//! in the log before it is sent, at QoS 1, under another identifier. What is in flight at QoS 2 ends
//! with its session `[MQTT-4.8.2-5]`.
//!
//! Which group a message came for its topic says, so a message that is on disk alone is read first.
//! One that the session would have got without the group stays its own, and ends with it. What
//! waits here is as much as waited for sessions before; a crash takes it.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use sextant_mqtt::{QoS, topic};
use sextant_ring::slot::SlotId;

use super::message::{Delivery, Incoming, Message, Publication};
use super::recall::{Loaded, READ_AHEAD};
use super::records::MessageRecord;
use super::shares::{Chosen, shared};
use super::{Broker, Context, timer};
use crate::meters::Dropped;

/// Messages that a turn hands on.
const AT_ONCE: usize = 1024;

/// What a session was subscribed to that is no more.
struct Gone {
    groups: Box<[Rc<str>]>,
    /// Not shared with anybody.
    own: Box<[Rc<str>]>,
}

/// A message that is somebody else's now.
pub(super) struct HandedOn {
    delivery: Delivery,
    member: Rc<Gone>,
}

impl Broker {
    /// Takes what another member of a group may get from what a session leaves that ends.
    pub(super) fn take_for_others(&mut self, slot: SlotId, left: &mut Vec<Delivery>) {
        let Some(session) = self.sessions.get(slot) else { return };
        let filters = session.subscriptions.iter().map(|held| held.filter.clone());
        let (groups, own): (Vec<_>, Vec<_>) = filters.partition(|held| shared(held).is_some());
        if groups.is_empty() {
            return;
        }
        let member = Rc::new(Gone { groups: groups.into(), own: own.into() });
        let is_shared =
            |delivery: &mut Delivery| delivery.qos == QoS::AtLeastOnce && delivery.is_kept();
        let for_others = left.extract_if(.., is_shared);
        self.handed_on
            .extend(for_others.map(|delivery| HandedOn { delivery, member: Rc::clone(&member) }));
    }

    /// Gives what has no member any more to others, as far as the disk keeps up and for a moment
    /// only: a session may leave very much.
    pub(super) fn hand_on(&mut self, cx: &mut Context) {
        if self.handed_on.is_empty() {
            return;
        }
        for _ in 0..AT_ONCE {
            if self.store.log.is_backlogged() {
                return;
            }
            let Some(next) = self.handed_on.front() else { break };
            let held = Rc::clone(&next.delivery.held);
            let loaded = self.store.load(&held);
            self.store.release(held);
            if let Ok(Loaded::Away) = loaded {
                for next in self.handed_on.iter().take(READ_AHEAD) {
                    self.store.ask(&next.delivery.held, None, cx);
                }
                return;
            }
            let Some(HandedOn { delivery, member }) = self.handed_on.pop_front() else { return };
            if delivery.held.is_expired(cx.clock().unix_ms) {
                self.settle(cx, delivery, Some(Dropped::Expired));
                continue;
            }
            let given = match loaded {
                Ok(Loaded::Here(record)) => self.give_to_another(cx, &record, &member),
                _ => false,
            };
            match given {
                // Its receipt counts whoever has it now.
                true => self.store.release(delivery.held),
                false => self.settle(cx, delivery, Some(Dropped::SessionEnded)),
            }
        }
        if self.handed_on.is_empty() {
            self.handed_on = VecDeque::new();
        } else {
            // It goes on with a turn that comes whatever else happens.
            let _ = cx.arm(cx.now(), timer::key(timer::HANDED_ON, 0));
        }
    }

    /// Gives a message to another member of the group that it came for; whether there is one.
    fn give_to_another(&mut self, cx: &mut Context, record: &MessageRecord, gone: &Gone) -> bool {
        let name = &*record.topic;
        if gone.own.iter().any(|filter| topic::matches(filter, name)) {
            return false;
        }
        let is_for = |key: &&Rc<str>| shared(key).is_some_and(|held| topic::matches(held, name));
        let Some(key) = gone.groups.iter().find(is_for) else { return false };
        let Some(core) = self.shares.choose_core(key) else { return false };
        let chosen: [Chosen; 1] = [(core, Arc::from(&**key))];
        let incoming = Incoming {
            shares: &chosen,
            for_groups_alone: true,
            receipt: record.receipt,
            ..Incoming::of(record, QoS::AtLeastOnce)
        };
        let core = usize::from(core);
        if core != cx.core() {
            let publication = Publication::new(&incoming, None);
            let (keep, deliver, answer) = (false, true, None);
            cx.tell(core, Message::Publish { publication, keep, deliver, answer });
            return true;
        }
        match self.deliver(cx, &incoming, false, None) {
            Ok(delivered) => {
                self.let_go_of(delivered);
                true
            }
            Err(_) => false,
        }
    }
}
