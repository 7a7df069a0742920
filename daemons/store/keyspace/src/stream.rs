//! A stream: entries in order, and groups of consumers that share them.
//!
//! ```text
//!   nodes   base 5-0 ──► packed entries      groups   name ──► last delivered, entries read
//!           base 9-3 ──► packed entries                         ├─ pending: entry ──► consumer, when
//!           …                                                   └─ consumers: name ──► its pending
//! ```
//!
//! An entry is found in O(log n) and a bounded walk through its node. What a group holds as pending
//! stays when the entry goes, as Redis has it. What changes is in `stream/change.rs`, what of it the
//! log has in `stream/log.rs`.

mod change;
mod group;
mod id;
mod image;
mod log;
mod node;
mod range;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;

pub use change::{Keep, Trim};
pub use group::{Consumer, Group, Pending};
pub use id::StreamId;
pub use node::{Entry, FieldList, Fields};
pub use range::{Entries, EntriesBack};

pub(crate) use log::is_entry;
use node::{Node, NodeLimits, PackedFields};

/// Memory of a node beside its bytes, about.
const NODE_BYTES: u64 = 80;
/// Memory of a group beside what is in it, about.
const GROUP_BYTES: u64 = 160;

/// Entries in order, and the groups that read them.
#[derive(Debug, Default)]
pub struct Stream {
    nodes: BTreeMap<StreamId, Node>,
    len: u64,
    last_id: StreamId,
    max_deleted: StreamId,
    added: u64,
    groups: BTreeMap<Box<[u8]>, Group>,
    node_bytes: u64,
    group_bytes: u64,
}

impl Stream {
    /// Entries.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is none. An empty stream is still a value.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The highest identifier that an entry had, or that was set in its place.
    pub fn last_id(&self) -> StreamId {
        self.last_id
    }

    /// The highest identifier that was deleted, but for trimming.
    pub fn max_deleted(&self) -> StreamId {
        self.max_deleted
    }

    /// How many entries were ever added.
    pub fn added(&self) -> u64 {
        self.added
    }

    /// The first entry's identifier.
    pub fn first_id(&self) -> Option<StreamId> {
        let (base, node) = self.nodes.first_key_value()?;
        Some(node.read(*base, node.start()).0.id)
    }

    /// The last entry's identifier.
    pub fn top_id(&self) -> Option<StreamId> {
        self.nodes.last_key_value().map(|(_, node)| node.last())
    }

    /// An entry.
    pub fn entry(&self, id: StreamId) -> Option<Entry<'_>> {
        self.range(id, id).next()
    }

    /// Whether there is such an entry.
    pub fn has(&self, id: StreamId) -> bool {
        self.entry(id).is_some()
    }

    /// Nodes that the entries are in.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// The groups by name.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = (&[u8], &Group)> {
        self.groups.iter().map(|(name, group)| (&**name, group))
    }

    /// A group.
    pub fn group(&self, name: &[u8]) -> Option<&Group> {
        self.groups.get(name)
    }

    /// Which entry of all that were ever added this is, if that can be told: the number of entries
    /// up to it, whether they are there or not.
    pub fn number_of(&self, id: StreamId) -> Option<u64> {
        if self.added == 0 {
            return Some(0);
        }
        let Some(first) = self.first_id() else {
            return (id <= self.last_id).then_some(self.added);
        };
        if id >= self.last_id {
            return (id == self.last_id).then_some(self.added);
        }
        // Nothing is missing between the first entry and the last.
        if self.max_deleted != StreamId::MIN && self.max_deleted >= first {
            return None;
        }
        let before = self.added.saturating_sub(self.len);
        match id.cmp(&first) {
            std::cmp::Ordering::Less => Some(before),
            std::cmp::Ordering::Equal => Some(before + 1),
            std::cmp::Ordering::Greater => None,
        }
    }

    /// Whether an entry from here on was deleted, so that counting on is no way to tell how many
    /// were read.
    fn has_gap_from(&self, id: StreamId) -> bool {
        self.max_deleted != StreamId::MIN
            && self.first_id().is_some_and(|first| first <= self.max_deleted)
            && id <= self.max_deleted
    }

    /// Entries that a group has not been given, if that can be told. It is below zero if somebody
    /// said that the group was given more than there ever were.
    pub fn lag(&self, group: &Group) -> Option<i64> {
        if self.added == 0 {
            return Some(0);
        }
        let read = match group.entries_read() {
            Some(read) if !self.has_gap_from(group.last_id()) => read,
            _ => self.number_of(group.last_id())?,
        };
        Some(self.added.wrapping_sub(read) as i64)
    }

    /// Memory that it takes, in bytes, about.
    pub(crate) fn payload_bytes(&self) -> u64 {
        self.node_bytes + NODE_BYTES * self.nodes.len() as u64 + self.group_bytes
    }

    /// Frees about `count` nodes, pending entries and the like; returns whether there are more.
    pub(crate) fn shed(&mut self, count: usize) -> bool {
        for _ in 0..count {
            if self.nodes.pop_first().is_some() {
                continue;
            }
            let Some(mut group) = self.groups.first_entry() else { return false };
            if !group.get_mut().shed() {
                group.remove();
            }
        }
        true
    }

    /// Puts an entry where it belongs; one of the same identifier goes.
    fn insert(&mut self, id: StreamId, fields: PackedFields<'_>, limits: NodeLimits) {
        if self.top_id().is_some_and(|top| id <= top) {
            self.remove(id);
        }
        self.len += 1;
        let Some((base, node)) = self.nodes.range_mut(..=id).next_back() else {
            return self.add_node(id, Node::new(id, fields));
        };
        let (base, before) = (*base, node.bytes());
        if node.has_room(base, id, fields, limits) {
            node.insert(base, id, fields);
            self.node_bytes = self.node_bytes + node.bytes() as u64 - before as u64;
            return;
        }
        let above = (id < node.last()).then(|| node.split(base, id));
        node.close();
        let gone = node.len() == 0;
        self.node_bytes = self.node_bytes + node.bytes() as u64 - before as u64;
        if gone {
            self.remove_node(base);
        }
        if let Some((base, node)) = above {
            self.add_node(base, node);
        }
        self.add_node(id, Node::new(id, fields));
    }

    fn add_node(&mut self, base: StreamId, node: Node) {
        self.node_bytes += node.bytes() as u64;
        let old = self.nodes.insert(base, node);
        assert!(old.is_none(), "a node's base is its own");
    }

    fn remove_node(&mut self, base: StreamId) -> Node {
        let node = self.nodes.remove(&base).expect("it was found just now");
        self.node_bytes -= node.bytes() as u64;
        node
    }

    /// Removes an entry; returns whether it was there.
    fn remove(&mut self, id: StreamId) -> bool {
        let Some((base, node)) = self.nodes.range_mut(..=id).next_back() else { return false };
        let (base, before) = (*base, node.bytes());
        if !node.remove(base, id) {
            return false;
        }
        self.len -= 1;
        let empty = node.len() == 0;
        self.node_bytes = self.node_bytes + node.bytes() as u64 - before as u64;
        if empty {
            self.remove_node(base);
        }
        true
    }

    /// Removes all entries up to one, that too.
    fn remove_up_to(&mut self, id: StreamId) {
        while let Some(mut first) = self.nodes.first_entry() {
            let (base, node) = (*first.key(), first.get_mut());
            if base > id {
                return;
            }
            if node.last() <= id {
                self.len -= node.len() as u64;
                self.remove_node(base);
                continue;
            }
            let (count, before) = (node.count_up_to(base, id), node.bytes());
            node.remove_front(base, count);
            self.len -= count as u64;
            self.node_bytes = self.node_bytes + node.bytes() as u64 - before as u64;
            return;
        }
    }

    /// Changes a group, and keeps account of its memory.
    fn with_group<R>(&mut self, name: &[u8], change: impl FnOnce(&mut Group) -> R) -> Option<R> {
        let group = self.groups.get_mut(name)?;
        let before = group.memory_bytes();
        let result = change(group);
        self.group_bytes = self.group_bytes + group.memory_bytes() - before;
        Some(result)
    }

    /// Makes sure that there is a group of this name; returns whether it is new.
    fn ensure_group(&mut self, name: &[u8]) -> bool {
        if self.groups.contains_key(name) {
            return false;
        }
        self.group_bytes += GROUP_BYTES + name.len() as u64;
        self.groups.insert(name.into(), Group::default());
        true
    }

    /// Takes a group out, as a stream that has nothing else, so that it is freed like one.
    fn take_group(&mut self, name: &[u8]) -> Option<Stream> {
        let group = self.groups.remove(name)?;
        let bytes = group.memory_bytes() + GROUP_BYTES + name.len() as u64;
        self.group_bytes -= bytes;
        let groups = BTreeMap::from([(Box::default(), group)]);
        Some(Stream { groups, group_bytes: bytes, ..Stream::default() })
    }
}
