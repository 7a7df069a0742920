//! A file out of keys and values, appended to a buffer that the caller drains.

use crate::crc64::Sum;
use crate::decode::types;
use crate::input::STRING_BYTES_MAX;
use crate::reader::op;
use crate::stream::write_node;
use crate::value::{Elements, Group, Header, Kind, Stream, StreamId, Value};

/// The version that is written: that of Redis 7.0, which later servers load too.
pub const VERSION: u16 = 10;
/// The most bytes of one entry of a stream, its names and values together.
const ENTRY_BYTES_MAX: usize = 1 << 30;
/// The longest text that can be a number in an encoding shorter than itself.
const NUMBER_BYTES_MAX: usize = 11;

/// Why something cannot be written. Nothing was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// A string, or an entry of a stream, that no server would load.
    #[error("{0} bytes are too long")]
    TooLong(u64),
    /// Elements that do not belong to the key that was begun, or are more than was said.
    #[error("elements that do not belong to the key")]
    Elements,
    /// A kind of value that cannot be written this way: a stream piece by piece, or a module's.
    #[error("a value of this kind is not written so")]
    Kind,
    /// Fewer elements than was said at the key's beginning, or the key before is not ended.
    #[error("a key has fewer elements than was said")]
    Unfinished,
}

/// Writes a file. Every call appends to the `out` it is given; what that holds may be taken away
/// between calls.
pub struct Writer {
    sum: Sum,
    db: Option<u64>,
    /// What was begun, and how many elements it still wants.
    open: Option<(Kind, u64)>,
}

impl Writer {
    /// Begins a file.
    pub fn new(out: &mut Vec<u8>) -> Writer {
        let mut writer = Writer { sum: Sum::new(), db: None, open: None };
        writer.add(out, |out| out.extend_from_slice(format!("REDIS{VERSION:04}").as_bytes()));
        writer
    }

    /// Says something about the file, before the first key.
    pub fn aux(&mut self, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        self.add(out, |out| {
            out.push(op::AUX);
            put_string(name, out);
            put_string(value, out);
        });
    }

    /// A library of functions by its source, before the first key.
    pub fn function(&mut self, source: &[u8], out: &mut Vec<u8>) -> Result<(), WriteError> {
        fits(source)?;
        self.add(out, |out| {
            out.push(op::FUNCTION);
            put_string(source, out);
        });
        Ok(())
    }

    /// Says how many keys of a database follow, and how many of them expire.
    pub fn sizes(&mut self, db: u64, keys: u64, volatile: u64, out: &mut Vec<u8>) {
        self.select(db, out);
        self.add(out, |out| {
            out.push(op::SIZES);
            put_length(keys, out);
            put_length(volatile, out);
        });
    }

    /// A key with all its value.
    pub fn key(
        &mut self,
        header: &Header,
        value: &Value,
        out: &mut Vec<u8>,
    ) -> Result<(), WriteError> {
        if header.kind != value.kind() {
            return Err(WriteError::Kind);
        }
        check(value)?;
        self.header(header, value_type(header.kind)?, out)?;
        self.add(out, |out| put_value(value, out));
        Ok(())
    }

    /// Begins a list, a set, a sorted set or a hash of so many elements.
    pub fn begin(
        &mut self,
        header: &Header,
        len: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), WriteError> {
        if matches!(header.kind, Kind::Text | Kind::Stream) {
            return Err(WriteError::Kind);
        }
        self.header(header, value_type(header.kind)?, out)?;
        self.add(out, |out| put_length(len, out));
        self.open = Some((header.kind, len));
        Ok(())
    }

    /// Elements of the key that was begun.
    pub fn elements(&mut self, elements: &Elements, out: &mut Vec<u8>) -> Result<(), WriteError> {
        let Some((kind, left)) = self.open else { return Err(WriteError::Elements) };
        let (of, len) = match elements {
            Elements::List(words) => (Kind::List, words.len()),
            Elements::Set(words) => (Kind::Set, words.len()),
            Elements::ZSet(pairs) => (Kind::ZSet, pairs.len()),
            Elements::Hash(pairs) => (Kind::Hash, pairs.len()),
            _ => return Err(WriteError::Elements),
        };
        let left = left.checked_sub(len as u64).ok_or(WriteError::Elements)?;
        if of != kind {
            return Err(WriteError::Elements);
        }
        match elements {
            Elements::List(words) | Elements::Set(words) => {
                words.iter().try_for_each(|word| fits(word))?;
                self.add(out, |out| words.iter().for_each(|word| put_string(word, out)));
            }
            Elements::ZSet(pairs) => {
                pairs.iter().try_for_each(|pair| fits(&pair.0))?;
                self.add(out, |out| put_scored(pairs, out));
            }
            Elements::Hash(pairs) => {
                pairs.iter().try_for_each(|pair| fits(&pair.0).and(fits(&pair.1)))?;
                self.add(out, |out| put_pairs(pairs, out));
            }
            _ => return Err(WriteError::Elements),
        }
        self.open = Some((kind, left));
        Ok(())
    }

    /// Ends the key that was begun.
    pub fn end(&mut self) -> Result<(), WriteError> {
        match self.open.take() {
            Some((_, 0)) => Ok(()),
            _ => Err(WriteError::Unfinished),
        }
    }

    /// Ends the file.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<(), WriteError> {
        if self.open.is_some() {
            return Err(WriteError::Unfinished);
        }
        self.add(out, |out| out.push(op::END));
        out.extend_from_slice(&self.sum.value().to_le_bytes());
        Ok(())
    }

    fn header(
        &mut self,
        header: &Header,
        value_type: u8,
        out: &mut Vec<u8>,
    ) -> Result<(), WriteError> {
        if self.open.is_some() {
            return Err(WriteError::Unfinished);
        }
        fits(&header.key)?;
        self.select(header.db, out);
        self.add(out, |out| {
            if let Some(ms) = header.expire_ms {
                out.push(op::EXPIRE_MS);
                out.extend_from_slice(&ms.to_le_bytes());
            }
            if let Some(seconds) = header.idle_seconds {
                out.push(op::IDLE);
                put_length(seconds, out);
            }
            if let Some(frequency) = header.frequency {
                out.extend([op::FREQUENCY, frequency]);
            }
            out.push(value_type);
            put_string(&header.key, out);
        });
        Ok(())
    }

    fn select(&mut self, db: u64, out: &mut Vec<u8>) {
        if self.db.replace(db) != Some(db) {
            self.add(out, |out| {
                out.push(op::DATABASE);
                put_length(db, out);
            });
        }
    }

    fn add(&mut self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        let start = out.len();
        write(out);
        self.sum.add(&out[start..]);
    }
}

/// The type that a kind is written as.
pub(crate) fn value_type(kind: Kind) -> Result<u8, WriteError> {
    Ok(match kind {
        Kind::Text => types::TEXT,
        Kind::List => types::LIST,
        Kind::Set => types::SET,
        Kind::ZSet => types::ZSET_2,
        Kind::Hash => types::HASH,
        Kind::Stream => types::STREAM_2,
        Kind::Module => return Err(WriteError::Kind),
    })
}

fn fits(string: &[u8]) -> Result<(), WriteError> {
    let len = string.len() as u64;
    if len > STRING_BYTES_MAX { Err(WriteError::TooLong(len)) } else { Ok(()) }
}

/// Whether a value can be written.
pub(crate) fn check(value: &Value) -> Result<(), WriteError> {
    match value {
        Value::Text(text) => fits(text),
        Value::List(words) | Value::Set(words) => words.iter().try_for_each(|word| fits(word)),
        Value::ZSet(pairs) => pairs.iter().try_for_each(|pair| fits(&pair.0)),
        Value::Hash(pairs) => pairs.iter().try_for_each(|pair| fits(&pair.0).and(fits(&pair.1))),
        Value::Stream(stream) => stream.entries.iter().try_for_each(|entry| {
            let fields = entry.fields.iter().map(|(name, value)| name.len() + value.len());
            let bytes: usize = fields.sum();
            let len = bytes as u64;
            if bytes > ENTRY_BYTES_MAX { Err(WriteError::TooLong(len)) } else { Ok(()) }
        }),
    }
}

/// The bytes of a value that [`check`] let pass.
pub(crate) fn put_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Text(text) => put_string(text, out),
        Value::List(words) | Value::Set(words) => {
            put_length(words.len() as u64, out);
            words.iter().for_each(|word| put_string(word, out));
        }
        Value::ZSet(pairs) => {
            put_length(pairs.len() as u64, out);
            put_scored(pairs, out);
        }
        Value::Hash(pairs) => {
            put_length(pairs.len() as u64, out);
            put_pairs(pairs, out);
        }
        Value::Stream(stream) => put_stream(stream, out),
    }
}

fn put_scored(pairs: &[(bytes::Bytes, f64)], out: &mut Vec<u8>) {
    for (member, score) in pairs {
        put_string(member, out);
        out.extend_from_slice(&score.to_le_bytes());
    }
}

fn put_pairs(pairs: &[(bytes::Bytes, bytes::Bytes)], out: &mut Vec<u8>) {
    for (name, value) in pairs {
        put_string(name, out);
        put_string(value, out);
    }
}

fn put_stream(stream: &Stream, out: &mut Vec<u8>) {
    let mut nodes = 0;
    let mut written = Vec::new();
    let mut entries = stream.entries.as_slice();
    while !entries.is_empty() {
        let (first, words, taken) = write_node(entries);
        put_plain(&first.bytes(), &mut written);
        put_plain(&words, &mut written);
        entries = &entries[taken..];
        nodes += 1;
    }
    put_length(nodes, out);
    out.append(&mut written);
    put_length(stream.entries.len() as u64, out);
    put_id(stream.state.last_id, out);
    put_id(stream.entries.first().map(|entry| entry.id).unwrap_or_default(), out);
    put_id(stream.state.max_deleted, out);
    put_length(stream.state.added, out);
    put_length(stream.groups.len() as u64, out);
    for group in &stream.groups {
        put_group(group, out);
    }
}

fn put_group(group: &Group, out: &mut Vec<u8>) {
    put_string(&group.name, out);
    put_id(group.last_id, out);
    put_length(group.entries_read.unwrap_or(u64::MAX), out);
    put_length(group.pending.len() as u64, out);
    for pending in &group.pending {
        out.extend_from_slice(&pending.id.bytes());
        out.extend_from_slice(&pending.delivered_ms.to_le_bytes());
        put_length(pending.count, out);
    }
    put_length(group.consumers.len() as u64, out);
    for consumer in &group.consumers {
        put_string(&consumer.name, out);
        out.extend_from_slice(&consumer.seen_ms.to_le_bytes());
        put_length(consumer.held.len() as u64, out);
        for id in &consumer.held {
            out.extend_from_slice(&id.bytes());
        }
    }
}

fn put_id(id: StreamId, out: &mut Vec<u8>) {
    put_length(id.ms, out);
    put_length(id.seq, out);
}

fn put_length(length: u64, out: &mut Vec<u8>) {
    match length {
        0..=0x3f => out.push(length as u8),
        0x40..=0x3fff => out.extend_from_slice(&(0x4000 | length as u16).to_be_bytes()),
        0x4000..=0xffff_ffff => {
            out.push(0x80);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
        _ => {
            out.push(0x81);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
}

fn put_plain(string: &[u8], out: &mut Vec<u8>) {
    put_length(string.len() as u64, out);
    out.extend_from_slice(string);
}

/// A string, as a number where that is what it reads as.
fn put_string(string: &[u8], out: &mut Vec<u8>) {
    let Some(number) = number_of(string) else { return put_plain(string, out) };
    if let Ok(number) = i8::try_from(number) {
        out.extend([0xc0, number as u8]);
    } else if let Ok(number) = i16::try_from(number) {
        out.push(0xc1);
        out.extend_from_slice(&number.to_le_bytes());
    } else {
        out.push(0xc2);
        out.extend_from_slice(&number.to_le_bytes());
    }
}

/// The number that is written exactly as this text.
fn number_of(text: &[u8]) -> Option<i32> {
    if text.is_empty() || text.len() > NUMBER_BYTES_MAX {
        return None;
    }
    let number = std::str::from_utf8(text).ok()?.parse::<i32>().ok()?;
    (itoa::Buffer::new().format(number).as_bytes() == text).then_some(number)
}
