//! Streams: their entries out of packed nodes, then what they know, then their groups.
//!
//! ```text
//!   nodes · (first id, listpack)…
//!   length · last id                 from version 2 on: first id · greatest deleted · added
//!   groups · (name · last id · [entries read]
//!             · pending · (id, time, count)…
//!             · consumers · (name · seen · [active, from version 3 on] · held · id…)…)…
//!
//!   a node:   count · deleted · names · name… · 0
//!             (flags · ms - first · seq - first · [names] · (name ·) value… · words)…
//! ```

use bytes::Bytes;

use crate::decode::Budget;
use crate::error::{RdbError, Stop, corrupt};
use crate::input::Input;
use crate::node::{Form, Listpack, Node, Word};
use crate::value::{BATCH_ELEMENTS, Elements, Pending, StreamEntry, StreamId, StreamState};

const BAD: RdbError = RdbError::Corrupt("a node of a stream is damaged");
/// The entry was deleted.
const DELETED: i64 = 1;
/// The entry has the names of the node's first.
const SAME_NAMES: i64 = 2;

/// What is next. Every count but the first is of what is left.
enum Part {
    NodeCount,
    Nodes(u64),
    State,
    GroupCount,
    Groups,
    Pending(u64),
    ConsumerCount,
    Consumers(u64),
    Held { held: u64, consumers: u64 },
}

/// Reads the value of a stream.
pub(crate) struct StreamDecoder {
    version: u8,
    part: Part,
    node: Option<EntryNode>,
    groups: u64,
}

impl StreamDecoder {
    pub(crate) fn new(version: u8) -> StreamDecoder {
        StreamDecoder { version, part: Part::NodeCount, node: None, groups: 0 }
    }

    /// The next batch; none after the last.
    pub(crate) fn next(&mut self, input: &mut Input<'_>) -> Result<Option<Elements>, Stop> {
        loop {
            if let Some(node) = &mut self.node {
                let entries = node.batch()?;
                if !entries.is_empty() {
                    return Ok(Some(Elements::Entries(entries)));
                }
                self.node = None;
            }
            match self.part {
                Part::NodeCount => self.part = Part::Nodes(input.whole(Input::length)?),
                Part::Nodes(0) => self.part = Part::State,
                Part::Nodes(left) => {
                    let (first, words) = input.two_strings()?;
                    self.node = Some(EntryNode::new(&first, words)?);
                    self.part = Part::Nodes(left - 1);
                }
                Part::State => {
                    let state = input.whole(|input| self.state(input))?;
                    self.part = Part::GroupCount;
                    return Ok(Some(Elements::State(state)));
                }
                Part::GroupCount => {
                    self.groups = input.whole(Input::length)?;
                    self.part = Part::Groups;
                }
                Part::Groups if self.groups == 0 => return Ok(None),
                Part::Groups => return self.group(input).map(Some),
                Part::Pending(0) => self.part = Part::ConsumerCount,
                Part::Pending(left) => {
                    let (pending, left) = records(input, left, pending)?;
                    self.part = Part::Pending(left);
                    return Ok(Some(Elements::Pending(pending)));
                }
                Part::ConsumerCount => self.part = Part::Consumers(input.whole(Input::length)?),
                Part::Consumers(0) => {
                    self.groups -= 1;
                    self.part = Part::Groups;
                }
                Part::Consumers(left) => return self.consumer(input, left).map(Some),
                Part::Held { held: 0, consumers } => self.part = Part::Consumers(consumers),
                Part::Held { held, consumers } => {
                    let (ids, held) = records(input, held, raw_id)?;
                    self.part = Part::Held { held, consumers };
                    return Ok(Some(Elements::Held(ids)));
                }
            }
        }
    }

    fn state(&self, input: &mut Input<'_>) -> Result<StreamState, Stop> {
        let len = input.length()?;
        let last_id = id(input)?;
        let mut state = StreamState { len, last_id, added: len, ..StreamState::default() };
        if self.version >= 2 {
            state.first_id = id(input)?;
            state.max_deleted = id(input)?;
            state.added = input.length()?;
        }
        Ok(state)
    }

    fn group(&mut self, input: &mut Input<'_>) -> Result<Elements, Stop> {
        let (group, pending) = input.whole(|input| {
            let start = input.at;
            input.skip_string()?;
            let last_id = id(input)?;
            let entries_read = if self.version >= 2 { Some(input.length()?) } else { None };
            let pending = input.length()?;
            let end = std::mem::replace(&mut input.at, start);
            let name = input.string()?;
            input.at = end;
            let entries_read = entries_read.filter(|read| i64::try_from(*read).is_ok());
            Ok((Elements::Group { name, last_id, entries_read }, pending))
        })?;
        self.part = Part::Pending(pending);
        Ok(group)
    }

    fn consumer(&mut self, input: &mut Input<'_>, left: u64) -> Result<Elements, Stop> {
        let (consumer, held) = input.whole(|input| {
            let start = input.at;
            input.skip_string()?;
            let seen_ms = time(input)?.unwrap_or(0);
            let active_ms = if self.version >= 3 { time(input)? } else { Some(seen_ms) };
            let held = input.length()?;
            let end = std::mem::replace(&mut input.at, start);
            let name = input.string()?;
            input.at = end;
            Ok((Elements::Consumer { name, seen_ms, active_ms }, held))
        })?;
        self.part = Part::Held { held, consumers: left - 1 };
        Ok(consumer)
    }
}

/// Records of few bytes: as many as have arrived and a batch takes, and how many are left.
fn records<T>(
    input: &mut Input<'_>,
    mut left: u64,
    read: impl Fn(&mut Input<'_>) -> Result<T, Stop>,
) -> Result<(Vec<T>, u64), Stop> {
    let mut batch = Vec::new();
    while left > 0 && batch.len() < BATCH_ELEMENTS {
        match input.whole(&read) {
            Ok(record) => batch.push(record),
            Err(Stop::More) if !batch.is_empty() => break,
            Err(stop) => return Err(stop),
        }
        left -= 1;
    }
    Ok((batch, left))
}

fn id(input: &mut Input<'_>) -> Result<StreamId, Stop> {
    Ok(StreamId { ms: input.length()?, seq: input.length()? })
}

fn raw_id(input: &mut Input<'_>) -> Result<StreamId, Stop> {
    Ok(StreamId::from_bytes(input.array()?))
}

fn time(input: &mut Input<'_>) -> Result<Option<u64>, Stop> {
    Ok(u64::try_from(i64::from_le_bytes(input.array()?)).ok())
}

fn pending(input: &mut Input<'_>) -> Result<Pending, Stop> {
    let id = raw_id(input)?;
    let delivered_ms = time(input)?.unwrap_or(0);
    Ok(Pending { id, delivered_ms, count: input.length()? })
}

/// A node of entries.
struct EntryNode {
    node: Node,
    first: StreamId,
    names: Vec<Bytes>,
}

impl EntryNode {
    fn new(first: &[u8], words: Bytes) -> Result<EntryNode, Stop> {
        let Ok(first) = <[u8; 16]>::try_from(first) else {
            return corrupt("a node of a stream has no place");
        };
        let mut node = Node::new(words, Form::Listpack)?;
        number(&mut node)?;
        number(&mut node)?;
        let mut names = Vec::new();
        for _ in 0..number(&mut node)? {
            names.push(text(&mut node)?);
        }
        number(&mut node)?;
        Ok(EntryNode { node, first: StreamId::from_bytes(first), names })
    }

    fn batch(&mut self) -> Result<Vec<StreamEntry>, RdbError> {
        let (mut batch, mut budget) = (Vec::new(), Budget::new());
        while budget.has_room()
            && let Some(flags) = self.node.word()?
        {
            let Word::Number(flags) = flags else { return Err(BAD) };
            let entry = self.entry(flags)?;
            if flags & DELETED == 0 {
                for (name, value) in &entry.fields {
                    budget.spend(name.len() + value.len());
                }
                batch.push(entry);
            }
        }
        Ok(batch)
    }

    fn entry(&mut self, flags: i64) -> Result<StreamEntry, RdbError> {
        let node = &mut self.node;
        let ms = self.first.ms.wrapping_add_signed(number(node)?);
        let seq = self.first.seq.wrapping_add_signed(number(node)?);
        let mut fields = Vec::new();
        if flags & SAME_NAMES != 0 {
            for name in &self.names {
                fields.push((name.clone(), text(node)?));
            }
        } else {
            for _ in 0..number(node)? {
                fields.push((text(node)?, text(node)?));
            }
        }
        number(node)?;
        if fields.is_empty() {
            return Err(RdbError::Corrupt("an entry of a stream has no fields"));
        }
        Ok(StreamEntry { id: StreamId { ms, seq }, fields })
    }
}

fn number(node: &mut Node) -> Result<i64, RdbError> {
    match node.word()? {
        Some(Word::Number(number)) => Ok(number),
        _ => Err(BAD),
    }
}

fn text(node: &mut Node) -> Result<Bytes, RdbError> {
    node.text()?.ok_or(BAD)
}

/// The most entries of a node that is written, as Redis has it by default.
const NODE_ENTRIES: usize = 100;
/// A node that has reached as many bytes gets no further entry.
const NODE_BYTES: usize = 4096;

/// Entries from the front, as one node: its first place, its words, and how many it took.
/// There is at least one.
pub(crate) fn write_node(entries: &[StreamEntry]) -> (StreamId, Vec<u8>, usize) {
    let mut taken = 0;
    let mut bytes = 0;
    for entry in entries.iter().take(NODE_ENTRIES) {
        let fields = entry.fields.iter().map(|(name, value)| name.len() + value.len() + 2);
        bytes += fields.sum::<usize>();
        if taken > 0 && bytes > NODE_BYTES {
            break;
        }
        taken += 1;
    }
    let (first, mut words) = (&entries[0], Listpack::new());
    words.push_number(taken as i64);
    words.push_number(0);
    words.push_number(first.fields.len() as i64);
    for (name, _) in &first.fields {
        words.push_text(name);
    }
    words.push_number(0);
    for entry in &entries[..taken] {
        write_entry(&mut words, first, entry);
    }
    (first.id, words.finish(), taken)
}

fn write_entry(words: &mut Listpack, first: &StreamEntry, entry: &StreamEntry) {
    let names = |entry: &StreamEntry| entry.fields.len();
    let is_same = names(first) == names(entry)
        && first.fields.iter().zip(&entry.fields).all(|(one, other)| one.0 == other.0);
    words.push_number(if is_same { SAME_NAMES } else { 0 });
    words.push_number(entry.id.ms.wrapping_sub(first.id.ms) as i64);
    words.push_number(entry.id.seq.wrapping_sub(first.id.seq) as i64);
    if !is_same {
        words.push_number(names(entry) as i64);
    }
    for (name, value) in &entry.fields {
        if !is_same {
            words.push_text(name);
        }
        words.push_text(value);
    }
    let count = if is_same { names(entry) + 3 } else { names(entry) * 2 + 4 };
    words.push_number(count as i64);
}
