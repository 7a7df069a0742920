//! Shared subscriptions, `$share/GROUP/FILTER` (section 4.8.2): of the sessions that hold one, each
//! message goes to one.
//!
//! Which one is decided in two steps. The core that a message is published on knows how many of a
//! group's members each core has, and gives the message to each core as often, in turn, as it has
//! members that are connected; and if none is, as it has members at all. That core gives it to its
//! members in turn, those first that are connected and keep up. A group whose members are all away
//! has it queued for one of them; at QoS 0 it is dropped, as for any subscriber who is away.
//!
//! What was decided for a QoS 2 message that goes to another core is in its record, so that it is
//! the same after a crash.

use std::rc::Rc;
use std::sync::Arc;

use sextant_mqtt::QoS;
use sextant_mqtt::topic::Filter;
use sextant_ring::slot::{SlotId, Slots};

use super::filters::Filters;
use super::message::Message;
use super::session::Subscriber;
use super::{Broker, Context, Map};

/// Groups are bounded by subscriptions, and those by the log's quota and the sessions' limits.
const GROUPS_MAX: u32 = 1 << 24;

/// A group's members that are looked at to find one that can take a message.
const LOOKED_AT_MAX: usize = 64;

/// The cores that were chosen for a message, each with the group that it was chosen for.
pub(super) type Chosen = (u16, Arc<str>);

/// A core's part of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Members that are connected.
    pub(super) online: u32,
    /// All members.
    pub(super) members: u32,
}

struct Group {
    key: Arc<str>,
    /// Those on this core.
    members: Vec<Subscriber>,
    /// By core, those that have members.
    parts: Vec<(u16, Part)>,
    /// Whose turn it is among members, and among cores.
    turn: u32,
    core_turn: u32,
}

/// The groups that have members anywhere.
pub(super) struct Shares {
    groups: Slots<Group>,
    by_key: Map<Arc<str>, SlotId>,
    by_filter: Filters<SlotId>,
}

impl Default for Shares {
    fn default() -> Shares {
        Shares {
            groups: Slots::new(GROUPS_MAX),
            by_key: Map::default(),
            by_filter: Filters::default(),
        }
    }
}

/// What a shared subscription's messages are matched with; `None` for any other filter.
pub(super) fn shared(filter: &str) -> Option<&str> {
    if !filter.starts_with("$share/") {
        return None;
    }
    let parsed = Filter::parse(filter).ok()?;
    parsed.share.map(|_| parsed.filter)
}

impl Group {
    fn part(&mut self, core: u16) -> &mut Part {
        let at = self.parts.iter().position(|(of, _)| *of == core).unwrap_or_else(|| {
            self.parts.push((core, Part::default()));
            self.parts.len() - 1
        });
        &mut self.parts[at].1
    }

    /// The core whose turn it is.
    fn choose(&mut self) -> Option<u16> {
        let online: u32 = self.parts.iter().map(|(_, part)| part.online).sum();
        let weight = |part: &Part| if online > 0 { part.online } else { part.members };
        let total: u32 = self.parts.iter().map(|(_, part)| weight(part)).sum();
        let mut turn = self.core_turn.checked_rem(total)?;
        self.core_turn = turn + 1;
        for (core, part) in &self.parts {
            match turn.checked_sub(weight(part)) {
                Some(rest) => turn = rest,
                None => return Some(*core),
            }
        }
        None
    }
}

impl Shares {
    pub(super) fn len(&self) -> usize {
        self.groups.len()
    }

    fn group(&mut self, key: &str, filter: &str) -> SlotId {
        if let Some(group) = self.by_key.get(key) {
            return *group;
        }
        let key: Arc<str> = key.into();
        let group = Group {
            key: Arc::clone(&key),
            members: Vec::new(),
            parts: Vec::new(),
            turn: 0,
            core_turn: 0,
        };
        let Ok(group) = self.groups.insert(group) else {
            panic!("groups are bounded by subscriptions")
        };
        self.by_filter.insert(&filter.into(), group);
        self.by_key.insert(key, group);
        group
    }

    /// The core whose turn it is, of those that have members of a group.
    pub(super) fn choose_core(&mut self, key: &str) -> Option<u16> {
        let slot = *self.by_key.get(key)?;
        self.groups.get_mut(slot)?.choose()
    }

    /// Says what a core has of a group; one that has no members anywhere is forgotten.
    fn set(&mut self, key: &str, filter: &str, core: u16, part: Part) {
        let slot = self.group(key, filter);
        let Some(group) = self.groups.get_mut(slot) else { return };
        *group.part(core) = part;
        group.parts.retain(|(_, part)| part.members > 0);
        if group.parts.is_empty() {
            self.groups.remove(slot);
            self.by_key.remove(key);
            let _ = self.by_filter.remove(filter, |held| *held == slot);
        }
    }
}

impl Broker {
    /// A session of this core becomes a member of a group; the ticket waits until other cores know
    /// of it.
    pub(super) fn join_share(
        &mut self,
        cx: &mut Context,
        (key, filter): (&str, &str),
        member: Subscriber,
        ticket: Option<SlotId>,
    ) {
        let online = self.sessions.get(member.session).is_some_and(|held| held.conn.is_some());
        let slot = self.shares.group(key, filter);
        let Some(group) = self.shares.groups.get_mut(slot) else { return };
        group.members.push(member);
        let part = group.part(cx.core() as u16);
        part.members += 1;
        part.online += u32::from(online);
        let part = *part;
        self.tell_share(cx, key, part, ticket);
    }

    /// A session of this core is a member no more.
    pub(super) fn leave_share(
        &mut self,
        cx: &mut Context,
        (key, filter): (&str, &str),
        session: SlotId,
    ) {
        let online = self.sessions.get(session).is_some_and(|held| held.conn.is_some());
        let Some(slot) = self.shares.by_key.get(key).copied() else { return };
        let Some(group) = self.shares.groups.get_mut(slot) else { return };
        let Some(at) = group.members.iter().position(|held| held.session == session) else {
            return;
        };
        group.members.remove(at);
        let part = group.part(cx.core() as u16);
        part.members -= 1;
        part.online -= u32::from(online);
        let part = *part;
        self.shares.set(key, filter, cx.core() as u16, part);
        self.tell_share(cx, key, part, None);
    }

    /// A session has come to a connection, or left it.
    pub(super) fn note_shares(&mut self, cx: &mut Context, session: SlotId, online: bool) {
        let Some(held) = self.sessions.get(session) else { return };
        let keys = held.subscriptions.iter().filter(|held| shared(&held.filter).is_some());
        let keys: Vec<Rc<str>> = keys.map(|held| held.filter.clone()).collect();
        for key in keys {
            let slot = self.shares.by_key.get(&*key).copied();
            let Some(group) = slot.and_then(|slot| self.shares.groups.get_mut(slot)) else {
                continue;
            };
            let part = group.part(cx.core() as u16);
            match online {
                true => part.online += 1,
                false => part.online -= 1,
            }
            let part = *part;
            self.tell_share(cx, &key, part, None);
        }
    }

    fn tell_share(&mut self, cx: &mut Context, key: &str, part: Part, ticket: Option<SlotId>) {
        let (key, core): (Arc<str>, _) = (key.into(), cx.core() as u16);
        self.tell_others(cx, ticket, |ticket| Message::Share {
            key: Arc::clone(&key),
            core,
            part,
            ticket,
        });
    }

    /// Another core says what it has of a group.
    pub(super) fn note_share(
        &mut self,
        cx: &mut Context,
        key: &str,
        core: u16,
        part: Part,
        ticket: Option<u64>,
    ) {
        if let Some(filter) = shared(key) {
            self.shares.set(key, filter, core, part);
        }
        if let Some(ticket) = ticket {
            let done = Message::Stored { ticket, recipients: 0, refused: None };
            cx.tell(usize::from(core), done);
        }
    }

    /// The cores that a message goes to for the groups which it matches: one for each.
    pub(super) fn choose_shares(&mut self, topic: &str) -> Vec<Chosen> {
        let mut chosen = Vec::new();
        if self.shares.by_filter.is_empty() {
            return chosen;
        }
        let Shares { groups, by_filter, .. } = &mut self.shares;
        by_filter.matches(topic, |matching| {
            for slot in matching {
                let Some(group) = groups.get_mut(*slot) else { continue };
                if let Some(core) = group.choose() {
                    chosen.push((core, Arc::clone(&group.key)));
                }
            }
        });
        chosen
    }

    /// The member of a group whose turn it is, of those on this core.
    pub(super) fn choose_member(
        &mut self,
        cx: &Context,
        key: &str,
        qos: QoS,
    ) -> Option<Subscriber> {
        let limit = self.settings.send_queue_bytes_max;
        let slot = self.shares.by_key.get(key)?;
        let group = self.shares.groups.get_mut(*slot)?;
        let count = group.members.len();
        let first = (group.turn as usize).checked_rem(count)?;
        let mut best: Option<(u8, usize)> = None;
        for at in (0..count.min(LOOKED_AT_MAX)).map(|nth| (first + nth) % count) {
            let member = group.members[at];
            let Some(session) = self.sessions.get(member.session) else { continue };
            let rank = match session.conn {
                Some(conn) if session.queue.is_empty() && cx.unsent(conn) < limit => 3,
                Some(_) => 2,
                None if session.is_persistent() && qos.min(member.qos) > QoS::AtMostOnce => 1,
                None => continue,
            };
            if best.is_none_or(|(than, _)| rank > than) {
                best = Some((rank, at));
            }
            if rank == 3 {
                break;
            }
        }
        let (_, at) = best?;
        group.turn = at as u32 + 1;
        Some(group.members[at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(parts: &[(u16, u32, u32)]) -> Shares {
        let mut shares = Shares::default();
        for (core, online, members) in parts {
            let part = Part { online: *online, members: *members };
            shares.set("$share/g/t/#", "t/#", *core, part);
        }
        shares
    }

    fn choose(shares: &mut Shares, times: usize) -> Vec<u16> {
        let slot = shares.by_key["$share/g/t/#"];
        let group = shares.groups.get_mut(slot).unwrap();
        (0..times).map(|_| group.choose().unwrap()).collect()
    }

    #[test]
    fn cores_have_their_turns_by_the_members_that_are_connected() {
        let mut shares = shares(&[(0, 2, 2), (1, 0, 5), (2, 1, 1)]);
        assert_eq!(choose(&mut shares, 6), [0, 0, 2, 0, 0, 2]);
    }

    #[test]
    fn with_nobody_connected_all_members_count() {
        let mut shares = shares(&[(0, 0, 1), (1, 0, 2)]);
        assert_eq!(choose(&mut shares, 6), [0, 1, 1, 0, 1, 1]);
    }

    #[test]
    fn a_group_without_members_is_forgotten() {
        let mut shares = shares(&[(0, 0, 1), (1, 0, 2)]);
        shares.set("$share/g/t/#", "t/#", 0, Part::default());
        assert_eq!(shares.len(), 1);
        shares.set("$share/g/t/#", "t/#", 1, Part::default());
        assert_eq!((shares.len(), shares.by_key.len()), (0, 0));
        assert!(shares.by_filter.is_empty());
    }
}
