//! A group of consumers: what each was given and has not acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use crate::stream::StreamId;

/// Memory of a pending entry in its two places, about.
const PENDING_BYTES: u64 = 96;
/// Memory of a consumer beside its name and what it has, about.
const CONSUMER_BYTES: u64 = 160;

/// An entry that was given to a consumer, who has not acknowledged it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// When it was given last, in milliseconds since 1970.
    pub delivered: u64,
    /// How many times.
    pub count: u64,
    consumer: u64,
}

/// Who reads as one of a group.
#[derive(Debug, Default)]
pub struct Consumer {
    name: Box<[u8]>,
    seen: u64,
    active: Option<u64>,
    pending: BTreeSet<StreamId>,
}

impl Consumer {
    /// Its name.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// When it asked for something last, in milliseconds since 1970. After a restart this is when
    /// it got something, since asking in vain is not logged.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// When it got something last.
    pub fn active(&self) -> Option<u64> {
        self.active
    }

    /// How many entries it has not acknowledged.
    pub fn pending_len(&self) -> usize {
        self.pending.len()
    }

    /// Those of a range, in order.
    pub fn pending(
        &self,
        from: StreamId,
        to: StreamId,
    ) -> impl DoubleEndedIterator<Item = StreamId> + '_ {
        self.pending.range(from..=to.max(from)).copied().filter(move |id| *id <= to)
    }
}

/// A group of consumers.
#[derive(Debug, Default)]
pub struct Group {
    last_id: StreamId,
    entries_read: Option<u64>,
    pending: BTreeMap<StreamId, Pending>,
    consumers: BTreeMap<u64, Consumer>,
    names: BTreeMap<Box<[u8]>, u64>,
    next: u64,
    consumer_bytes: u64,
}

impl Group {
    /// The last entry that any of its consumers was given.
    pub fn last_id(&self) -> StreamId {
        self.last_id
    }

    /// How many entries of the stream it was given, if that is known.
    pub fn entries_read(&self) -> Option<u64> {
        self.entries_read
    }

    /// Entries that are not acknowledged.
    pub fn pending_len(&self) -> usize {
        self.pending.len()
    }

    /// Those of a range, in order.
    pub fn pending(
        &self,
        from: StreamId,
        to: StreamId,
    ) -> impl DoubleEndedIterator<Item = (StreamId, &Pending)> {
        let range = self.pending.range(from..=to.max(from));
        range.filter(move |(id, _)| **id <= to).map(|(id, pending)| (*id, pending))
    }

    /// One of them.
    pub fn pending_entry(&self, id: StreamId) -> Option<&Pending> {
        self.pending.get(&id)
    }

    /// Who has a pending entry.
    pub fn holder(&self, pending: &Pending) -> &Consumer {
        self.consumers.get(&pending.consumer).expect("who has something pending is there")
    }

    /// The consumers by name.
    pub fn consumers(&self) -> impl Iterator<Item = &Consumer> {
        self.names.values().map(|number| &self.consumers[number])
    }

    /// How many those are.
    pub fn consumers_len(&self) -> usize {
        self.consumers.len()
    }

    /// A consumer.
    pub fn consumer(&self, name: &[u8]) -> Option<&Consumer> {
        self.consumers.get(self.names.get(name)?)
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        PENDING_BYTES * self.pending.len() as u64 + self.consumer_bytes
    }

    /// Sets how far it has read.
    pub(super) fn set(&mut self, last_id: StreamId, entries_read: Option<u64>) {
        (self.last_id, self.entries_read) = (last_id, entries_read);
    }

    /// A consumer's number, and whether it is new.
    pub(super) fn ensure_consumer(&mut self, name: &[u8]) -> (u64, bool) {
        if let Some(number) = self.names.get(name) {
            return (*number, false);
        }
        let number = self.next;
        self.next += 1;
        self.names.insert(name.into(), number);
        self.consumers.insert(number, Consumer { name: name.into(), ..Consumer::default() });
        self.consumer_bytes += CONSUMER_BYTES + 2 * name.len() as u64;
        (number, true)
    }

    /// Sets when a consumer asked, and got something.
    pub(super) fn set_times(&mut self, name: &[u8], seen: u64, active: Option<u64>) {
        let (number, _) = self.ensure_consumer(name);
        let consumer = self.consumers.get_mut(&number).expect("it was made sure of");
        (consumer.seen, consumer.active) = (seen, active);
    }

    /// Removes a consumer and what it has pending; returns that, if it was there.
    pub(super) fn remove_consumer(&mut self, name: &[u8]) -> Option<BTreeSet<StreamId>> {
        let number = self.names.remove(name)?;
        let consumer = self.consumers.remove(&number).expect("a name is of a consumer");
        self.consumer_bytes -= CONSUMER_BYTES + 2 * name.len() as u64;
        for id in &consumer.pending {
            self.pending.remove(id);
        }
        Some(consumer.pending)
    }

    /// An entry is pending with a consumer, and with no other.
    pub(super) fn put(&mut self, id: StreamId, name: &[u8], delivered: u64, count: u64) {
        let (number, _) = self.ensure_consumer(name);
        let pending = Pending { delivered, count, consumer: number };
        if let Some(old) = self.pending.insert(id, pending)
            && old.consumer != number
            && let Some(consumer) = self.consumers.get_mut(&old.consumer)
        {
            consumer.pending.remove(&id);
        }
        self.consumers.get_mut(&number).expect("it was made sure of").pending.insert(id);
    }

    /// An entry is pending no more; returns whether it was.
    pub(super) fn acknowledge(&mut self, id: StreamId) -> bool {
        let Some(old) = self.pending.remove(&id) else { return false };
        let consumer = self.consumers.get_mut(&old.consumer);
        consumer.expect("who has something pending is there").pending.remove(&id)
    }

    /// Frees a part of it; returns whether there is more. It is of no other use then.
    pub(super) fn shed(&mut self) -> bool {
        if self.pending.pop_first().is_some() {
            return true;
        }
        self.names.pop_first();
        let Some(mut consumer) = self.consumers.first_entry() else { return false };
        if consumer.get_mut().pending.pop_first().is_none() {
            consumer.remove();
        }
        true
    }
}
