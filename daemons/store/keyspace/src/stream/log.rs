//! What the log has of streams, and how it is read again.
//!
//! ```text
//!   item            name                         value
//!   state           –                            last id, highest deleted, entries added
//!   entry           id, entries added with it    fields and values
//!   entry gone      id
//!   trimmed         id of the last that went
//!   group           group                        last id, 1 + entries read or 0
//!   group gone      group
//!   consumer        group, consumer              seen, 1 + active or 0
//!   consumer gone   group, consumer
//!   pending         id, group                    delivered, count, consumer
//!   pending gone    id, group
//! ```
//!
//! Identifiers are 16 bytes, numbers LEB128; of two names the first has its length before it.
//!
//! An entry raises the last identifier and the count of entries to its own, and a removed one the
//! highest deleted identifier; whatever else happens to those is noted as the state. So when the
//! record goes that one of them came from, the state is noted too. An entry that is noted again
//! says zero for the count, which raises nothing.

use crate::apply::{ApplyError, OBJECTS_MAX};
use crate::effect::{Effect, NoEffect};
use crate::keyspace::Keyspace;
use crate::object::{Object, Shape};
use crate::stream::id::ID_BYTES;
use crate::stream::node::{
    FieldList, NodeLimits, PackedFields, push_bytes, push_number, take_bytes, take_number,
};
use crate::stream::{Stream, StreamId};

const STATE: u8 = 0;
const ENTRY: u8 = 1;
const ENTRY_GONE: u8 = 2;
const TRIMMED: u8 = 3;
const GROUP: u8 = 4;
const GROUP_GONE: u8 = 5;
const CONSUMER: u8 = 6;
const CONSUMER_GONE: u8 = 7;
const PENDING: u8 = 8;
const PENDING_GONE: u8 = 9;

/// Whether an item is an entry: each is noted once, so nobody has to remember which ones were.
pub(crate) fn is_entry(item: u8) -> bool {
    item == ENTRY
}

/// What the log has of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word<'a> {
    State { last_id: StreamId, max_deleted: StreamId, added: u64 },
    Entry { id: StreamId, added: u64, fields: &'a [u8] },
    EntryGone { id: StreamId },
    Trimmed { up_to: StreamId },
    Group { group: &'a [u8], last_id: StreamId, entries_read: Option<u64> },
    GroupGone { group: &'a [u8] },
    Consumer { group: &'a [u8], consumer: &'a [u8], seen: u64, active: Option<u64> },
    ConsumerGone { group: &'a [u8], consumer: &'a [u8] },
    Pending { group: &'a [u8], consumer: &'a [u8], id: StreamId, delivered: u64, count: u64 },
    PendingGone { group: &'a [u8], id: StreamId },
}

fn take_id(from: &mut &[u8]) -> Option<StreamId> {
    let (id, rest) = from.split_first_chunk::<ID_BYTES>()?;
    *from = rest;
    Some(StreamId::from_bytes(id))
}

fn push_option(to: &mut Vec<u8>, number: Option<u64>) {
    push_number(to, number.map_or(0, |number| number.saturating_add(1)));
}

fn take_option(from: &mut &[u8]) -> Option<Option<u64>> {
    Some(take_number(from)?.checked_sub(1))
}

impl<'a> Word<'a> {
    /// Writes it; returns its item.
    pub(super) fn encode(self, name: &mut Vec<u8>, value: &mut Vec<u8>) -> u8 {
        match self {
            Word::State { last_id, max_deleted, added } => {
                value.extend_from_slice(&last_id.to_bytes());
                value.extend_from_slice(&max_deleted.to_bytes());
                push_number(value, added);
                STATE
            }
            Word::Entry { id, added, .. } => {
                name.extend_from_slice(&id.to_bytes());
                push_number(name, added);
                ENTRY
            }
            Word::EntryGone { id } => {
                name.extend_from_slice(&id.to_bytes());
                ENTRY_GONE
            }
            Word::Trimmed { up_to } => {
                name.extend_from_slice(&up_to.to_bytes());
                TRIMMED
            }
            Word::Group { group, last_id, entries_read } => {
                name.extend_from_slice(group);
                value.extend_from_slice(&last_id.to_bytes());
                push_option(value, entries_read);
                GROUP
            }
            Word::GroupGone { group } => {
                name.extend_from_slice(group);
                GROUP_GONE
            }
            Word::Consumer { group, consumer, seen, active } => {
                push_bytes(name, group);
                name.extend_from_slice(consumer);
                push_number(value, seen);
                push_option(value, active);
                CONSUMER
            }
            Word::ConsumerGone { group, consumer } => {
                push_bytes(name, group);
                name.extend_from_slice(consumer);
                CONSUMER_GONE
            }
            Word::Pending { group, consumer, id, delivered, count } => {
                name.extend_from_slice(&id.to_bytes());
                name.extend_from_slice(group);
                push_number(value, delivered);
                push_number(value, count);
                value.extend_from_slice(consumer);
                PENDING
            }
            Word::PendingGone { group, id } => {
                name.extend_from_slice(&id.to_bytes());
                name.extend_from_slice(group);
                PENDING_GONE
            }
        }
    }

    pub(super) fn decode(item: u8, mut name: &'a [u8], mut value: &'a [u8]) -> Option<Word<'a>> {
        let word = match item {
            STATE => {
                let (last_id, max_deleted) = (take_id(&mut value)?, take_id(&mut value)?);
                Word::State { last_id, max_deleted, added: take_number(&mut value)? }
            }
            ENTRY => {
                let (id, added) = (take_id(&mut name)?, take_number(&mut name)?);
                let fields = std::mem::take(&mut value);
                Word::Entry { id, added, fields }
            }
            ENTRY_GONE => Word::EntryGone { id: take_id(&mut name)? },
            TRIMMED => Word::Trimmed { up_to: take_id(&mut name)? },
            GROUP => {
                let group = std::mem::take(&mut name);
                let (last_id, entries_read) = (take_id(&mut value)?, take_option(&mut value)?);
                Word::Group { group, last_id, entries_read }
            }
            GROUP_GONE => Word::GroupGone { group: std::mem::take(&mut name) },
            CONSUMER => {
                let (group, consumer) = (take_bytes(&mut name)?, std::mem::take(&mut name));
                let (seen, active) = (take_number(&mut value)?, take_option(&mut value)?);
                Word::Consumer { group, consumer, seen, active }
            }
            CONSUMER_GONE => {
                let (group, consumer) = (take_bytes(&mut name)?, std::mem::take(&mut name));
                Word::ConsumerGone { group, consumer }
            }
            PENDING => {
                let (id, group) = (take_id(&mut name)?, std::mem::take(&mut name));
                let (delivered, count) = (take_number(&mut value)?, take_number(&mut value)?);
                let consumer = std::mem::take(&mut value);
                Word::Pending { group, consumer, id, delivered, count }
            }
            PENDING_GONE => {
                let (id, group) = (take_id(&mut name)?, std::mem::take(&mut name));
                Word::PendingGone { group, id }
            }
            _ => return None,
        };
        (name.is_empty() && value.is_empty()).then_some(word)
    }
}

impl Keyspace {
    pub(super) fn note_stream(&mut self, object: u32, word: Word<'_>) {
        if !self.journal.is_on() {
            return;
        }
        let (mut name, mut value) = (Vec::new(), Vec::new());
        let item = word.encode(&mut name, &mut value);
        let value = match &word {
            Word::Entry { fields, .. } => fields,
            _ => value.as_slice(),
        };
        self.journal.note(Effect::Stream { object, item, name: &name, value });
    }

    /// Notes what a stream knows of its past.
    pub(super) fn note_stream_state(&mut self, number: u32) {
        let Some(Object::Stream(stream)) = self.objects.get(number) else { return };
        let (last_id, max_deleted, added) = (stream.last_id, stream.max_deleted, stream.added);
        self.note_stream(number, Word::State { last_id, max_deleted, added });
    }

    /// Notes how far a group has read.
    pub(super) fn note_group(&mut self, number: u32, group: &[u8]) {
        let Some(Object::Stream(stream)) = self.objects.get(number) else { return };
        let Some(of) = stream.group(group) else { return };
        let (last_id, entries_read) = (of.last_id(), of.entries_read());
        self.note_stream(number, Word::Group { group, last_id, entries_read });
    }

    /// Applies what a log has of a stream. What is told of one that is not there makes it.
    pub(crate) fn apply_stream(
        &mut self,
        object: u32,
        item: u8,
        name: &[u8],
        value: &[u8],
    ) -> Result<(), ApplyError> {
        let word = Word::decode(item, name, value).ok_or(NoEffect)?;
        if object > OBJECTS_MAX {
            return Err(NoEffect.into());
        }
        self.objects.ensure(object, Shape::Stream);
        if let Word::GroupGone { group } = word {
            self.destroy_group(object, group);
            return Ok(());
        }
        let limits = self.node_limits();
        let mut taken = Ok(());
        self.with_stream(object, |stream| taken = stream.take_word(word, limits));
        Ok(taken?)
    }

    /// Notes again what a log has of a stream, if it is so.
    pub(crate) fn relocate_stream(
        &mut self,
        object: u32,
        item: u8,
        name: &[u8],
        value: &[u8],
    ) -> bool {
        let Some(word) = Word::decode(item, name, value) else { return false };
        let Some(Object::Stream(stream)) = self.objects.get(object) else { return false };
        let gives_state = match word {
            Word::State { .. } => true,
            Word::Entry { id, added, .. } => {
                id == stream.last_id || (added != 0 && added == stream.added)
            }
            Word::EntryGone { id } => id == stream.max_deleted,
            _ => false,
        };
        let (mut list, mut holder) = (FieldList::new(), Vec::new());
        let again = match word {
            Word::Entry { id, .. } => stream.entry(id).map(|entry| {
                entry.fields().for_each(|(name, value)| list.push(name, value));
                Word::Entry { id, added: 0, fields: list.packed().bytes }
            }),
            Word::Group { group, .. } => stream.group(group).map(|of| {
                let (last_id, entries_read) = (of.last_id(), of.entries_read());
                Word::Group { group, last_id, entries_read }
            }),
            Word::Consumer { group, consumer, .. } => {
                let of = stream.group(group).and_then(|of| of.consumer(consumer));
                of.map(|of| {
                    let (seen, active) = (of.seen(), of.active());
                    Word::Consumer { group, consumer, seen, active }
                })
            }
            Word::Pending { group, id, .. } => {
                let of = stream.group(group);
                let pending = of.and_then(|of| Some((of, of.pending_entry(id)?)));
                pending.map(|(of, pending)| {
                    holder.extend_from_slice(of.holder(pending).name());
                    let (delivered, count) = (pending.delivered, pending.count);
                    let consumer = &holder;
                    Word::Pending { group, consumer, id, delivered, count }
                })
            }
            _ => None,
        };
        if let Some(word) = again {
            self.note_stream(object, word);
        }
        if gives_state {
            self.note_stream_state(object);
        }
        gives_state || again.is_some()
    }
}

impl Stream {
    /// Applies a word.
    pub(super) fn take_word(&mut self, word: Word<'_>, limits: NodeLimits) -> Result<(), NoEffect> {
        match word {
            Word::Entry { id, fields, .. } if id != StreamId::MIN => {
                self.insert(id, PackedFields::check(fields).ok_or(NoEffect)?, limits);
            }
            Word::Entry { .. } => return Err(NoEffect),
            _ => {}
        }
        self.apply(word);
        Ok(())
    }

    /// Applies what concerns the stream itself; an entry was put in before.
    fn apply(&mut self, word: Word<'_>) {
        match word {
            Word::State { last_id, max_deleted, added } => {
                // No entry is above the last, whatever a log says.
                self.last_id = last_id.max(self.top_id().unwrap_or_default());
                (self.max_deleted, self.added) = (max_deleted, added);
            }
            Word::Entry { id, added, .. } => {
                self.last_id = self.last_id.max(id);
                self.added = self.added.max(added);
            }
            Word::EntryGone { id } => {
                self.remove(id);
                self.max_deleted = self.max_deleted.max(id);
            }
            Word::Trimmed { up_to } => self.remove_up_to(up_to),
            Word::GroupGone { group } => drop(self.take_group(group)),
            Word::Group { group, .. }
            | Word::Consumer { group, .. }
            | Word::Pending { group, .. } => {
                self.ensure_group(group);
                self.apply_to_group(group, word);
            }
            Word::ConsumerGone { group, .. } | Word::PendingGone { group, .. } => {
                self.apply_to_group(group, word);
            }
        }
    }

    fn apply_to_group(&mut self, group: &[u8], word: Word<'_>) {
        self.with_group(group, |group| match word {
            Word::Group { last_id, entries_read, .. } => group.set(last_id, entries_read),
            Word::Consumer { consumer, seen, active, .. } => {
                group.set_times(consumer, seen, active);
            }
            Word::ConsumerGone { consumer, .. } => drop(group.remove_consumer(consumer)),
            Word::Pending { consumer, id, delivered, count, .. } => {
                group.put(id, consumer, delivered, count);
            }
            Word::PendingGone { id, .. } => drop(group.acknowledge(id)),
            _ => {}
        });
    }
}
