//! What is done to the stream of a key. Each method changes it, notes that for the log and touches
//! the key, or does nothing at all.

use crate::keyspace::{Found, Keyspace, Refused};
use crate::object::Object;
use crate::stream::log::Word;
use crate::stream::node::NodeLimits;
use crate::stream::{Consumer, FieldList, Stream, StreamId};

/// A node has never more bytes than this, whatever the settings say, but for a single entry.
const NODE_BYTES_MAX: usize = 64 << 10;
/// Nor more entries.
const NODE_ENTRIES_MAX: usize = 4096;
/// A group with more pending entries than this is freed a little at a time.
const FREED_AT_ONCE_MAX: usize = 64;

/// What a stream shall be cut to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// So many entries.
    Newest(u64),
    /// Entries from this identifier on.
    From(StreamId),
}

/// How the front of a stream is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trim {
    /// What is kept.
    pub keep: Keep,
    /// Whole nodes alone are removed, so that some more stay.
    pub about: bool,
    /// So many entries are removed at most; zero is no limit.
    pub limit: u64,
}

impl Stream {
    /// Cuts the front off. Returns how many entries went, and the last of them.
    pub(super) fn trim(&mut self, trim: Trim) -> Option<(u64, StreamId)> {
        let (mut gone, mut last) = (0, None);
        while let Some(mut first) = self.nodes.first_entry() {
            let (base, node) = (*first.key(), first.get_mut());
            let entries = node.len() as u64;
            let past_limit = trim.limit != 0 && gone + entries > trim.limit;
            let (is_enough, whole) = match trim.keep {
                Keep::Newest(count) => (self.len <= count, self.len - entries >= count),
                Keep::From(id) => (base >= id, node.last() < id),
            };
            if is_enough || past_limit || (trim.about && !whole) {
                break;
            }
            if whole {
                last = Some(node.last());
                self.remove_node(base);
                (gone, self.len) = (gone + entries, self.len - entries);
                continue;
            }
            let count = match trim.keep {
                Keep::Newest(count) => (self.len - count) as usize,
                Keep::From(id) => id.prev().map_or(0, |below| node.count_up_to(base, below)),
            };
            let before = node.bytes();
            last = node.remove_front(base, count).or(last);
            self.node_bytes = self.node_bytes + node.bytes() as u64 - before as u64;
            (gone, self.len) = (gone + count as u64, self.len - count as u64);
            break;
        }
        last.map(|last| (gone, last))
    }

    /// Finds what a group shall be given, `count` entries at most, and moves the group on.
    fn take_new(&mut self, group: &[u8], count: usize) -> Vec<StreamId> {
        let Some(of) = self.groups.get(group) else { return Vec::new() };
        let (mut last_id, mut read) = (of.last_id(), of.entries_read());
        let Some(from) = last_id.next() else { return Vec::new() };
        let mut ids = Vec::new();
        for entry in self.range(from, StreamId::MAX).take(count) {
            read = match read {
                Some(read) if !self.has_gap_from(entry.id) => Some(read + 1),
                _ => self.number_of(entry.id),
            };
            last_id = entry.id;
            ids.push(entry.id);
        }
        if !ids.is_empty() {
            self.with_group(group, |group| group.set(last_id, read));
        }
        ids
    }
}

impl Keyspace {
    /// The stream of a key that was found.
    ///
    /// # Errors
    /// [`Refused::WrongType`].
    pub fn stream_at(&self, found: Found) -> Result<&Stream, Refused> {
        match self.object(found) {
            Some(Object::Stream(stream)) => Ok(stream),
            _ => Err(Refused::WrongType),
        }
    }

    /// Finds a key, and its stream.
    ///
    /// # Errors
    /// [`Refused::WrongType`].
    pub fn stream(&mut self, db: usize, key: &[u8]) -> Result<Option<&Stream>, Refused> {
        match self.find(db, key) {
            Some(found) => self.stream_at(found).map(Some),
            None => Ok(None),
        }
    }

    /// The number of a key's stream.
    fn stream_number(&mut self, db: usize, key: &[u8]) -> Result<Option<u32>, Refused> {
        let Some(found) = self.find(db, key) else { return Ok(None) };
        self.stream_at(found)?;
        Ok(self.object_number(found))
    }

    fn ensure_stream(&mut self, db: usize, key: &[u8]) -> Result<u32, Refused> {
        if let Some(number) = self.stream_number(db, key)? {
            return Ok(number);
        }
        let (_, number) = self.bind(db, key, None, Object::Stream(Stream::default()), None)?;
        Ok(number)
    }

    pub(super) fn with_stream<R>(
        &mut self,
        number: u32,
        change: impl FnOnce(&mut Stream) -> R,
    ) -> R {
        let changed = self.objects.with(number, |object| match object {
            Object::Stream(stream) => change(stream),
            _ => panic!("a stream is a stream"),
        });
        changed.expect("the object of a key is there")
    }

    pub(crate) fn node_limits(&self) -> NodeLimits {
        let limit = |set: usize, max: usize| if set == 0 { max } else { set.min(max) };
        NodeLimits {
            bytes: limit(self.encoding.stream_node_bytes_max, NODE_BYTES_MAX),
            entries: limit(self.encoding.stream_node_entries_max, NODE_ENTRIES_MAX),
        }
    }

    /// Makes an empty stream of a key that is not there.
    ///
    /// # Errors
    /// See [`Refused`]; nothing has changed then.
    pub fn stream_create(&mut self, db: usize, key: &[u8]) -> Result<(), Refused> {
        self.ensure_stream(db, key)?;
        self.touch(db, key);
        Ok(())
    }

    /// Adds an entry, above the last identifier of the stream; a key that is not there is made.
    ///
    /// # Errors
    /// See [`Refused`]; nothing has changed then.
    pub fn stream_add(
        &mut self,
        db: usize,
        key: &[u8],
        id: StreamId,
        fields: &FieldList,
    ) -> Result<(), Refused> {
        let number = self.ensure_stream(db, key)?;
        let (limits, packed) = (self.node_limits(), fields.packed());
        let added = self.with_stream(number, |stream| {
            assert!(id > stream.last_id, "entries rise: who adds one asks first");
            stream.insert(id, packed, limits);
            stream.last_id = id;
            stream.added = stream.added.saturating_add(1);
            stream.added
        });
        self.note_stream(number, Word::Entry { id, added, fields: packed.bytes });
        self.touch(db, key);
        Ok(())
    }

    /// Removes entries; returns how many were there.
    ///
    /// # Errors
    /// [`Refused::WrongType`].
    pub fn stream_delete(
        &mut self,
        db: usize,
        key: &[u8],
        ids: &[StreamId],
    ) -> Result<u64, Refused> {
        let Some(number) = self.stream_number(db, key)? else { return Ok(0) };
        let mut count = 0;
        for id in ids {
            let removed = self.with_stream(number, |stream| {
                let removed = stream.remove(*id);
                if removed {
                    stream.max_deleted = stream.max_deleted.max(*id);
                }
                removed
            });
            if removed {
                self.note_stream(number, Word::EntryGone { id: *id });
                count += 1;
            }
        }
        if count > 0 {
            self.touch(db, key);
        }
        Ok(count)
    }

    /// Cuts the front of a stream off; returns how many entries went.
    ///
    /// # Errors
    /// [`Refused::WrongType`].
    pub fn stream_trim(&mut self, db: usize, key: &[u8], trim: Trim) -> Result<u64, Refused> {
        let Some(number) = self.stream_number(db, key)? else { return Ok(0) };
        let trimmed = self.with_stream(number, |stream| stream.trim(trim));
        let Some((count, last)) = trimmed else { return Ok(0) };
        self.note_stream(number, Word::Trimmed { up_to: last });
        self.touch(db, key);
        Ok(count)
    }

    /// Sets what a stream knows of its past: the last identifier, how many entries were ever added
    /// and the highest that was deleted. Returns whether there is a stream.
    ///
    /// # Errors
    /// [`Refused::WrongType`].
    pub fn stream_set_state(
        &mut self,
        db: usize,
        key: &[u8],
        last_id: StreamId,
        added: u64,
        max_deleted: StreamId,
    ) -> Result<bool, Refused> {
        let Some(number) = self.stream_number(db, key)? else { return Ok(false) };
        self.with_stream(number, |stream| {
            assert!(stream.top_id().is_none_or(|top| top <= last_id), "no entry is above the last");
            (stream.last_id, stream.added, stream.max_deleted) = (last_id, added, max_deleted);
        });
        self.note_stream_state(number);
        self.touch(db, key);
        Ok(true)
    }

    /// Makes a group, or sets how far it has read. Returns whether there is a stream.
    ///
    /// # Errors
    /// [`Refused::WrongType`].
    pub fn group_set(
        &mut self,
        db: usize,
        key: &[u8],
        group: &[u8],
        last_id: StreamId,
        entries_read: Option<u64>,
    ) -> Result<bool, Refused> {
        let Some(number) = self.stream_number(db, key)? else { return Ok(false) };
        self.with_stream(number, |stream| {
            stream.ensure_group(group);
            stream.with_group(group, |group| group.set(last_id, entries_read));
        });
        self.note_stream(number, Word::Group { group, last_id, entries_read });
        self.touch(db, key);
        Ok(true)
    }

    /// Removes a group; returns whether it was there.
    ///
    /// # Errors
    /// [`Refused::WrongType`].
    pub fn group_destroy(&mut self, db: usize, key: &[u8], group: &[u8]) -> Result<bool, Refused> {
        let Some(number) = self.stream_number(db, key)? else { return Ok(false) };
        if !self.destroy_group(number, group) {
            return Ok(false);
        }
        self.note_stream(number, Word::GroupGone { group });
        self.touch(db, key);
        Ok(true)
    }

    pub(super) fn destroy_group(&mut self, number: u32, group: &[u8]) -> bool {
        let taken = self.with_stream(number, |stream| stream.take_group(group));
        let Some(taken) = taken else { return false };
        let pending: usize = taken.groups().map(|(_, group)| group.pending_len()).sum();
        if pending > FREED_AT_ONCE_MAX {
            self.bury_apart(Object::Stream(taken));
        }
        true
    }

    /// Makes sure that a group has a consumer, who is seen now. Returns whether it is new; nothing,
    /// if there is no such group.
    ///
    /// # Errors
    /// [`Refused::WrongType`].
    pub fn consumer_ensure(
        &mut self,
        db: usize,
        key: &[u8],
        group: &[u8],
        consumer: &[u8],
    ) -> Result<Option<bool>, Refused> {
        let (Some(number), now) = (self.stream_number(db, key)?, self.now) else { return Ok(None) };
        let ensured = self.with_stream(number, |stream| {
            stream.with_group(group, |group| {
                let (_, is_new) = group.ensure_consumer(consumer);
                let active = group.consumer(consumer).and_then(Consumer::active);
                group.set_times(consumer, now, active);
                is_new
            })
        });
        if ensured == Some(true) {
            self.note_stream(number, Word::Consumer { group, consumer, seen: now, active: None });
            self.touch(db, key);
        }
        Ok(ensured)
    }

    /// Removes a consumer; returns how many entries it had pending, if it was there.
    ///
    /// # Errors
    /// [`Refused::WrongType`].
    pub fn consumer_delete(
        &mut self,
        db: usize,
        key: &[u8],
        group: &[u8],
        consumer: &[u8],
    ) -> Result<Option<u64>, Refused> {
        let Some(number) = self.stream_number(db, key)? else { return Ok(None) };
        let removed = self.with_stream(number, |stream| {
            stream.with_group(group, |group| group.remove_consumer(consumer)).flatten()
        });
        let Some(pending) = removed else { return Ok(None) };
        self.note_stream(number, Word::ConsumerGone { group, consumer });
        self.touch(db, key);
        Ok(Some(pending.len() as u64))
    }

    /// Gives a consumer entries that none of its group was given, `count` at most. They are pending
    /// with it, if it is to acknowledge them. Returns which they are: they follow each other.
    ///
    /// # Errors
    /// [`Refused::WrongType`].
    pub fn deliver(
        &mut self,
        db: usize,
        key: &[u8],
        group: &[u8],
        consumer: &[u8],
        count: usize,
        to_acknowledge: bool,
    ) -> Result<Vec<StreamId>, Refused> {
        let Some(number) = self.stream_number(db, key)? else { return Ok(Vec::new()) };
        let ids = self.with_stream(number, |stream| stream.take_new(group, count));
        if ids.is_empty() {
            return Ok(ids);
        }
        self.note_group(number, group);
        if to_acknowledge {
            let now = self.now;
            self.hand_over(number, group, consumer, ids.iter().map(|id| (*id, now, 1)));
        }
        self.touch(db, key);
        Ok(ids)
    }

    /// Entries are pending with this consumer from now on: which, when they were given last and how
    /// many times.
    ///
    /// # Errors
    /// [`Refused::WrongType`].
    pub fn claim(
        &mut self,
        db: usize,
        key: &[u8],
        group: &[u8],
        consumer: &[u8],
        claimed: &[(StreamId, u64, u64)],
    ) -> Result<(), Refused> {
        let Some(number) = self.stream_number(db, key)? else { return Ok(()) };
        let is_there = self.with_stream(number, |stream| stream.groups.contains_key(group));
        if is_there && !claimed.is_empty() {
            self.hand_over(number, group, consumer, claimed.iter().copied());
            self.touch(db, key);
        }
        Ok(())
    }

    /// Makes entries pending with a consumer, who got something now.
    fn hand_over(
        &mut self,
        number: u32,
        group: &[u8],
        consumer: &[u8],
        entries: impl Iterator<Item = (StreamId, u64, u64)> + Clone,
    ) {
        let now = self.now;
        self.with_stream(number, |stream| {
            stream.with_group(group, |group| {
                group.set_times(consumer, now, Some(now));
                entries.clone().for_each(|(id, at, count)| group.put(id, consumer, at, count));
            });
        });
        let active = Some(now);
        self.note_stream(number, Word::Consumer { group, consumer, seen: now, active });
        for (id, delivered, count) in entries {
            self.note_stream(number, Word::Pending { group, consumer, id, delivered, count });
        }
    }

    /// Gives a consumer once more what it has pending above an identifier, `count` at most, and
    /// counts that for entries that are still in the stream. Returns which they are.
    ///
    /// # Errors
    /// [`Refused::WrongType`].
    pub fn deliver_again(
        &mut self,
        db: usize,
        key: &[u8],
        group: &[u8],
        consumer: &[u8],
        above: StreamId,
        count: usize,
    ) -> Result<Vec<StreamId>, Refused> {
        let (Some(number), now) = (self.stream_number(db, key)?, self.now) else {
            return Ok(Vec::new());
        };
        let (mut ids, mut again) = (Vec::new(), Vec::new());
        self.with_stream(number, |stream| {
            let Some(of) = stream.groups.get(group) else { return };
            let (Some(from), Some(who)) = (above.next(), of.consumer(consumer)) else { return };
            ids.extend(who.pending(from, StreamId::MAX).take(count));
            for id in ids.iter().filter(|id| stream.has(**id)) {
                let pending = of.pending_entry(*id).expect("what a consumer has, its group has");
                again.push((*id, pending.count.saturating_add(1)));
            }
            stream.with_group(group, |group| {
                again.iter().for_each(|(id, count)| group.put(*id, consumer, now, *count));
            });
        });
        for (id, count) in &again {
            let (id, count, delivered) = (*id, *count, now);
            self.note_stream(number, Word::Pending { group, consumer, id, delivered, count });
        }
        if !again.is_empty() {
            self.touch(db, key);
        }
        Ok(ids)
    }

    /// Entries are pending no more; returns how many were.
    ///
    /// # Errors
    /// [`Refused::WrongType`].
    pub fn acknowledge(
        &mut self,
        db: usize,
        key: &[u8],
        group: &[u8],
        ids: &[StreamId],
    ) -> Result<u64, Refused> {
        let Some(number) = self.stream_number(db, key)? else { return Ok(0) };
        let mut count = 0;
        for id in ids {
            let done = self.with_stream(number, |stream| {
                stream.with_group(group, |group| group.acknowledge(*id)).unwrap_or(false)
            });
            if done {
                self.note_stream(number, Word::PendingGone { group, id: *id });
                count += 1;
            }
        }
        if count > 0 {
            self.touch(db, key);
        }
        Ok(count)
    }
}
