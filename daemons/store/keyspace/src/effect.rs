//! Effects: what changed, in the form that the log keeps and a start applies again.
//!
//! An effect says what is so from now on, never how it came to be: the value of a field, and not
//! "one more". So a log whose oldest part was removed needs only the truth about what that part
//! alone told, written once more at its end: see [`Keyspace::relocate`](crate::Keyspace::relocate).
//!
//! The effects of one command, or of one transaction, stand behind each other in the
//! [`Journal`] and become durable together or not at all.
//!
//! ```text
//!   opcode u8 │ operands        numbers are LEB128, byte strings have their length before them
//! ```
//!
//! Two kinds of name: what is small is named by database and key, what is large by the number of
//! its object, so that renaming it is one small effect.

use crate::entry::Kind;

/// What an effect on a collection is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target<'a> {
    /// A small one: the database's identifier, and the key.
    Named(u32, &'a [u8]),
    /// A large one: its object's number.
    Object(u32),
}

/// An end of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Where LPUSH adds.
    Left,
    /// Where RPUSH adds.
    Right,
}

/// A change. All databases are named by their identifiers, which [`Effect::Databases`] gives; times
/// are milliseconds since 1970, and zero for never.
#[expect(missing_docs, reason = "what the parts of each are is said with it")]
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Effect<'a> {
    /// The key is this string, and expires then, if that is not zero.
    Set { db: u32, key: &'a [u8], expire: u64, value: &'a [u8] },
    /// The key is gone.
    Delete { db: u32, key: &'a [u8] },
    /// The key expires then; never, if that is zero.
    Expire { db: u32, key: &'a [u8], expire: u64 },
    /// The key is this small collection, whole.
    Put { db: u32, key: &'a [u8], expire: u64, kind: Kind, value: &'a [u8] },
    /// The key is this object, which is empty from now on if `fresh`.
    Bind { db: u32, key: &'a [u8], expire: u64, object: u32, shape: u8, fresh: bool },
    /// The key is the object's name no more, though the object lives.
    Unbind { db: u32, key: &'a [u8] },
    /// The databases' identifiers, in order. Those of others are empty from now on.
    Databases { ids: &'a [u8] },
    /// Something beside the databases has this value; none, if that is empty.
    Meta { name: &'a [u8], value: &'a [u8] },
    /// A hash has this field.
    HashSet { target: Target<'a>, field: &'a [u8], value: &'a [u8] },
    /// A hash has not.
    HashDelete { target: Target<'a>, field: &'a [u8] },
    /// A set has this member.
    SetAdd { target: Target<'a>, member: &'a [u8] },
    /// A set has not.
    SetRemove { target: Target<'a>, member: &'a [u8] },
    /// A sorted set has this member, with the score of these bits.
    ZsetAdd { target: Target<'a>, member: &'a [u8], score: u64 },
    /// A sorted set has not.
    ZsetRemove { target: Target<'a>, member: &'a [u8] },
    /// A small list, or a node of a large one, has one more element.
    ListPush { target: Target<'a>, node: u64, side: Side, element: &'a [u8] },
    /// So many fewer.
    ListPop { target: Target<'a>, node: u64, side: Side, count: u64 },
    /// A node of a large list is this, whole; gone, if that is empty. `base` is a number that no
    /// other base has: a node knows that of its own.
    ListNode { object: u32, node: u64, base: u64, value: &'a [u8] },
    /// A part of a large string is this, whole; gone, if that is empty.
    StringPart { object: u32, part: u64, base: u64, value: &'a [u8] },
    /// In a part of a large string these bytes are there.
    StringPatch { object: u32, part: u64, at: u64, value: &'a [u8] },
    /// Something of a stream, in the words of its own module.
    Stream { object: u32, item: u8, name: &'a [u8], value: &'a [u8] },
}

/// Why bytes are no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("these bytes are no effect")]
pub struct NoEffect;

/// Effects that wait to be given to the log.
#[derive(Debug, Default)]
pub struct Journal {
    bytes: Vec<u8>,
    /// Nothing is kept while this is set: there is no log, or it is being read.
    off: bool,
}

impl Journal {
    /// A journal that keeps nothing.
    pub fn off() -> Journal {
        Journal { bytes: Vec::new(), off: true }
    }

    /// Whether it keeps what it is given.
    pub fn is_on(&self) -> bool {
        !self.off
    }

    /// From now on it does, or does not.
    pub fn set_on(&mut self, on: bool) {
        self.off = !on;
    }

    /// What waits.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Forgets what waited, which the log has taken.
    pub fn clear(&mut self) {
        const KEEP: usize = 1 << 20;
        self.bytes.clear();
        if self.bytes.capacity() > KEEP {
            self.bytes.shrink_to(KEEP);
        }
    }

    /// Adds an effect.
    #[inline]
    pub fn note(&mut self, effect: Effect<'_>) {
        if !self.off {
            encode(&mut self.bytes, effect);
        }
    }
}

const SET: u8 = 1;
const DELETE: u8 = 2;
const EXPIRE: u8 = 3;
const PUT: u8 = 4;
const BIND: u8 = 5;
const UNBIND: u8 = 6;
const DATABASES: u8 = 7;
const META: u8 = 8;
const HASH_SET: u8 = 9;
const HASH_DELETE: u8 = 10;
const SET_ADD: u8 = 11;
const SET_REMOVE: u8 = 12;
const ZSET_ADD: u8 = 13;
const ZSET_REMOVE: u8 = 14;
const LIST_PUSH: u8 = 15;
const LIST_POP: u8 = 16;
const LIST_NODE: u8 = 17;
const STRING_PART: u8 = 18;
const STRING_PATCH: u8 = 19;
const STREAM: u8 = 20;
/// The target is an object.
const OBJECT: u8 = 0x80;

/// Appends an effect's bytes.
pub(crate) fn encode(to: &mut Vec<u8>, effect: Effect<'_>) {
    match effect {
        Effect::Set { db, key, expire, value } => {
            to.push(SET);
            put_named(to, db, key);
            put_number(to, expire);
            put_bytes(to, value);
        }
        Effect::Delete { db, key } => {
            to.push(DELETE);
            put_named(to, db, key);
        }
        Effect::Expire { db, key, expire } => {
            to.push(EXPIRE);
            put_named(to, db, key);
            put_number(to, expire);
        }
        Effect::Put { db, key, expire, kind, value } => {
            to.push(PUT);
            put_named(to, db, key);
            put_number(to, expire);
            to.push(kind as u8);
            put_bytes(to, value);
        }
        Effect::Bind { db, key, expire, object, shape, fresh } => {
            to.push(BIND);
            put_named(to, db, key);
            put_number(to, expire);
            put_number(to, u64::from(object));
            to.push(shape);
            to.push(u8::from(fresh));
        }
        Effect::Unbind { db, key } => {
            to.push(UNBIND);
            put_named(to, db, key);
        }
        Effect::Databases { ids } => {
            to.push(DATABASES);
            put_bytes(to, ids);
        }
        Effect::Meta { name, value } => {
            to.push(META);
            put_bytes(to, name);
            put_bytes(to, value);
        }
        Effect::HashSet { target, field, value } => {
            put_target(to, HASH_SET, target);
            put_bytes(to, field);
            put_bytes(to, value);
        }
        Effect::HashDelete { target, field } => {
            put_target(to, HASH_DELETE, target);
            put_bytes(to, field);
        }
        Effect::SetAdd { target, member } => {
            put_target(to, SET_ADD, target);
            put_bytes(to, member);
        }
        Effect::SetRemove { target, member } => {
            put_target(to, SET_REMOVE, target);
            put_bytes(to, member);
        }
        Effect::ZsetAdd { target, member, score } => {
            put_target(to, ZSET_ADD, target);
            put_bytes(to, member);
            to.extend_from_slice(&score.to_le_bytes());
        }
        Effect::ZsetRemove { target, member } => {
            put_target(to, ZSET_REMOVE, target);
            put_bytes(to, member);
        }
        Effect::ListPush { target, node, side, element } => {
            put_target(to, LIST_PUSH, target);
            put_number(to, node);
            to.push(side as u8);
            put_bytes(to, element);
        }
        Effect::ListPop { target, node, side, count } => {
            put_target(to, LIST_POP, target);
            put_number(to, node);
            to.push(side as u8);
            put_number(to, count);
        }
        Effect::ListNode { object, node, base, value } => {
            put_part(to, LIST_NODE, object, node);
            put_number(to, base);
            put_bytes(to, value);
        }
        Effect::StringPart { object, part, base, value } => {
            put_part(to, STRING_PART, object, part);
            put_number(to, base);
            put_bytes(to, value);
        }
        Effect::StringPatch { object, part, at, value } => {
            put_part(to, STRING_PATCH, object, part);
            put_number(to, at);
            put_bytes(to, value);
        }
        Effect::Stream { object, item, name, value } => {
            to.push(STREAM);
            put_number(to, u64::from(object));
            to.push(item);
            put_bytes(to, name);
            put_bytes(to, value);
        }
    }
}

fn put_number(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

fn put_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    put_number(to, bytes.len() as u64);
    to.extend_from_slice(bytes);
}

fn put_named(to: &mut Vec<u8>, db: u32, key: &[u8]) {
    put_number(to, u64::from(db));
    put_bytes(to, key);
}

fn put_part(to: &mut Vec<u8>, opcode: u8, object: u32, part: u64) {
    to.push(opcode);
    put_number(to, u64::from(object));
    put_number(to, part);
}

fn put_target(to: &mut Vec<u8>, opcode: u8, target: Target<'_>) {
    match target {
        Target::Named(db, key) => {
            to.push(opcode);
            put_named(to, db, key);
        }
        Target::Object(object) => {
            to.push(opcode | OBJECT);
            put_number(to, u64::from(object));
        }
    }
}

/// Takes effects off bytes that [`encode`] wrote.
pub struct Effects<'a> {
    bytes: &'a [u8],
}

impl<'a> Effects<'a> {
    /// The effects in these bytes.
    pub fn new(bytes: &'a [u8]) -> Effects<'a> {
        Effects { bytes }
    }

    /// The bytes that were not looked at yet.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    fn byte(&mut self) -> Result<u8, NoEffect> {
        let (first, rest) = self.bytes.split_first().ok_or(NoEffect)?;
        self.bytes = rest;
        Ok(*first)
    }

    fn number(&mut self) -> Result<u64, NoEffect> {
        let (mut number, mut shift) = (0u64, 0);
        loop {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                return Err(NoEffect);
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
            shift += 7;
        }
    }

    fn small(&mut self) -> Result<u32, NoEffect> {
        u32::try_from(self.number()?).map_err(|_| NoEffect)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], NoEffect> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or(NoEffect)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn bytes(&mut self) -> Result<&'a [u8], NoEffect> {
        let count = usize::try_from(self.number()?).map_err(|_| NoEffect)?;
        self.take(count)
    }

    fn side(&mut self) -> Result<Side, NoEffect> {
        match self.byte()? {
            0 => Ok(Side::Left),
            1 => Ok(Side::Right),
            _ => Err(NoEffect),
        }
    }

    fn kind(&mut self) -> Result<Kind, NoEffect> {
        match self.byte()? {
            bits @ 2..=6 => Ok(Kind::from_bits(bits)),
            _ => Err(NoEffect),
        }
    }

    fn target(&mut self, opcode: u8) -> Result<Target<'a>, NoEffect> {
        match opcode & OBJECT {
            0 => Ok(Target::Named(self.small()?, self.bytes()?)),
            _ => Ok(Target::Object(self.small()?)),
        }
    }

    fn decode(&mut self) -> Result<Effect<'a>, NoEffect> {
        let opcode = self.byte()?;
        Ok(match opcode {
            SET => {
                let (db, key, expire) = (self.small()?, self.bytes()?, self.number()?);
                Effect::Set { db, key, expire, value: self.bytes()? }
            }
            DELETE => Effect::Delete { db: self.small()?, key: self.bytes()? },
            EXPIRE => {
                Effect::Expire { db: self.small()?, key: self.bytes()?, expire: self.number()? }
            }
            PUT => {
                let (db, key, expire) = (self.small()?, self.bytes()?, self.number()?);
                Effect::Put { db, key, expire, kind: self.kind()?, value: self.bytes()? }
            }
            BIND => {
                let (db, key, expire) = (self.small()?, self.bytes()?, self.number()?);
                let (object, shape) = (self.small()?, self.byte()?);
                Effect::Bind { db, key, expire, object, shape, fresh: self.byte()? != 0 }
            }
            UNBIND => Effect::Unbind { db: self.small()?, key: self.bytes()? },
            DATABASES => Effect::Databases { ids: self.bytes()? },
            META => Effect::Meta { name: self.bytes()?, value: self.bytes()? },
            LIST_NODE => {
                let (object, node, base) = (self.small()?, self.number()?, self.number()?);
                Effect::ListNode { object, node, base, value: self.bytes()? }
            }
            STRING_PART => {
                let (object, part, base) = (self.small()?, self.number()?, self.number()?);
                Effect::StringPart { object, part, base, value: self.bytes()? }
            }
            STRING_PATCH => {
                let (object, part, at) = (self.small()?, self.number()?, self.number()?);
                Effect::StringPatch { object, part, at, value: self.bytes()? }
            }
            STREAM => {
                let (object, item) = (self.small()?, self.byte()?);
                Effect::Stream { object, item, name: self.bytes()?, value: self.bytes()? }
            }
            _ => return self.decode_targeted(opcode),
        })
    }

    fn decode_targeted(&mut self, opcode: u8) -> Result<Effect<'a>, NoEffect> {
        let target = self.target(opcode)?;
        Ok(match opcode & !OBJECT {
            HASH_SET => Effect::HashSet { target, field: self.bytes()?, value: self.bytes()? },
            HASH_DELETE => Effect::HashDelete { target, field: self.bytes()? },
            SET_ADD => Effect::SetAdd { target, member: self.bytes()? },
            SET_REMOVE => Effect::SetRemove { target, member: self.bytes()? },
            ZSET_ADD => {
                let member = self.bytes()?;
                let score = self.take(8)?.try_into().map_err(|_| NoEffect)?;
                Effect::ZsetAdd { target, member, score: u64::from_le_bytes(score) }
            }
            ZSET_REMOVE => Effect::ZsetRemove { target, member: self.bytes()? },
            LIST_PUSH => {
                let (node, side) = (self.number()?, self.side()?);
                Effect::ListPush { target, node, side, element: self.bytes()? }
            }
            LIST_POP => {
                let (node, side) = (self.number()?, self.side()?);
                Effect::ListPop { target, node, side, count: self.number()? }
            }
            _ => return Err(NoEffect),
        })
    }
}

impl<'a> Iterator for Effects<'a> {
    type Item = Result<Effect<'a>, NoEffect>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.bytes.is_empty() {
            return None;
        }
        let effect = self.decode();
        if effect.is_err() {
            self.bytes = &[];
        }
        Some(effect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effects_are_read_as_they_were_written() {
        let (named, object) = (Target::Named(300, b"key"), Target::Object(70_000));
        let (db, key, expire) = (7, &b"k"[..], 1 << 47);
        let effects = [
            Effect::Set { db, key, expire, value: &[0; 300] },
            Effect::Delete { db, key: b"" },
            Effect::Expire { db, key, expire: 0 },
            Effect::Put { db, key, expire, kind: Kind::Zset, value: b"v" },
            Effect::Bind { db, key, expire, object: u32::MAX, shape: 3, fresh: true },
            Effect::Unbind { db, key },
            Effect::Databases { ids: b"ids" },
            Effect::Meta { name: b"n", value: b"" },
            Effect::HashSet { target: named, field: b"f", value: b"v" },
            Effect::HashDelete { target: object, field: b"f" },
            Effect::SetAdd { target: object, member: b"m" },
            Effect::SetRemove { target: named, member: b"m" },
            Effect::ZsetAdd { target: named, member: b"m", score: f64::INFINITY.to_bits() },
            Effect::ZsetRemove { target: object, member: b"m" },
            Effect::ListPush { target: named, node: 0, side: Side::Right, element: b"e" },
            Effect::ListPop { target: object, node: u64::MAX, side: Side::Left, count: 9 },
            Effect::ListNode { object: 1, node: 1 << 63, base: 5, value: b"" },
            Effect::StringPart { object: 1, part: 2, base: 1 << 40, value: b"v" },
            Effect::StringPatch { object: 1, part: 2, at: 3, value: b"v" },
            Effect::Stream { object: 1, item: 2, name: b"n", value: b"v" },
        ];
        let mut journal = Journal::default();
        effects.iter().for_each(|effect| journal.note(*effect));
        let read: Vec<_> = Effects::new(journal.bytes()).map(|e| e.expect("an effect")).collect();
        assert_eq!(read, effects);
        for cut in 1..journal.bytes().len() {
            // Never a panic, and never more effects than there were.
            assert!(Effects::new(&journal.bytes()[..cut]).count() <= effects.len());
        }
    }

    #[test]
    fn a_journal_that_is_off_keeps_nothing() {
        let mut journal = Journal::off();
        journal.note(Effect::Delete { db: 1, key: b"k" });
        assert!(journal.bytes().is_empty() && !journal.is_on());
    }
}
