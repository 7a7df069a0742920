//! How a key and its value lie in a block of the heap.
//!
//! ```text
//!   a key of a database                                  a field, member or the like in a table
//!  ┌──────┬────────┬───────────┬──────┬──────┬─────┬───────┐   ┌──────┬──────┬─────┬───────┐
//!  │ kind │ access │ expire at │ klen │ vlen │ key │ value │   │ klen │ vlen │ key │ value │
//!  └──────┴────────┴───────────┴──────┴──────┴─────┴───────┘   └──────┴──────┴─────┴───────┘
//!    u8     u24      u48, if      varint varint
//!                    flagged
//! ```
//!
//! The lengths are LEB128. `expire at` is milliseconds since 1970. `access` is what eviction goes
//! by.

use std::ops::Range;

/// What a key's value is, and how it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A string's bytes.
    Bytes = 0,
    /// A string that is the decimal form of an integer: its eight bytes.
    Int = 1,
    /// A small hash: fields and values in turn, packed.
    Hash = 2,
    /// A small set: members, packed.
    Set = 3,
    /// A small set of integers, in order, eight bytes each.
    Ints = 4,
    /// A small sorted set: members and scores in turn by score, packed.
    Zset = 5,
    /// A small list: elements, packed, behind the eight bytes of its base's number.
    List = 6,
    /// Anything larger: the number of its object, four bytes.
    Object = 7,
}

impl Kind {
    pub(crate) fn from_bits(bits: u8) -> Kind {
        match bits & 0x0f {
            0 => Kind::Bytes,
            1 => Kind::Int,
            2 => Kind::Hash,
            3 => Kind::Set,
            4 => Kind::Ints,
            5 => Kind::Zset,
            6 => Kind::List,
            7 => Kind::Object,
            other => panic!("a block's kind is one of eight, and not {other}"),
        }
    }
}

const EXPIRES: u8 = 0x10;
/// The expiry queue knows of the key.
pub(crate) const QUEUED: u8 = 0x20;
const EXPIRE_BYTES: usize = 6;
const FIXED_BYTES: usize = 4;

/// The latest time that a key can expire at, in milliseconds since 1970.
pub const EXPIRE_MAX: u64 = (1 << 48) - 1;

/// A key's header, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) queued: bool,
    pub(crate) access: u32,
    pub(crate) expire: Option<u64>,
    pub(crate) key: Range<usize>,
    pub(crate) value: Range<usize>,
}

/// What is written before the key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Front {
    pub(crate) kind: Kind,
    pub(crate) queued: bool,
    pub(crate) access: u32,
    pub(crate) expire: Option<u64>,
}

#[inline]
pub(crate) fn read_head(block: &[u8]) -> Head {
    let flags = block[0];
    let access = u32::from_le_bytes([block[1], block[2], block[3], 0]);
    let (expire, lengths) = if flags & EXPIRES != 0 {
        (Some(read_expire(block)), FIXED_BYTES + EXPIRE_BYTES)
    } else {
        (None, FIXED_BYTES)
    };
    let (key, value) = read_item(block, lengths);
    Head { kind: Kind::from_bits(flags), queued: flags & QUEUED != 0, access, expire, key, value }
}

fn read_expire(block: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    bytes[..EXPIRE_BYTES].copy_from_slice(&block[FIXED_BYTES..FIXED_BYTES + EXPIRE_BYTES]);
    u64::from_le_bytes(bytes)
}

/// The key of a block of a database.
#[inline]
pub(crate) fn key_of(block: &[u8]) -> &[u8] {
    let lengths = if block[0] & EXPIRES != 0 { FIXED_BYTES + EXPIRE_BYTES } else { FIXED_BYTES };
    let (key, _) = read_item(block, lengths);
    &block[key]
}

/// Key and value of an item that begins at `at`.
#[inline]
pub(crate) fn read_item(block: &[u8], at: usize) -> (Range<usize>, Range<usize>) {
    let (key_bytes, at) = read_length(block, at);
    let (value_bytes, at) = read_length(block, at);
    (at..at + key_bytes, at + key_bytes..at + key_bytes + value_bytes)
}

/// Bytes that a block needs.
pub(crate) fn block_bytes(expires: bool, key_bytes: usize, value_bytes: usize) -> usize {
    let expire = if expires { EXPIRE_BYTES } else { 0 };
    FIXED_BYTES + expire + item_bytes(key_bytes, value_bytes)
}

/// Bytes that an item needs.
pub(crate) fn item_bytes(key_bytes: usize, value_bytes: usize) -> usize {
    length_bytes(key_bytes) + length_bytes(value_bytes) + key_bytes + value_bytes
}

/// Writes everything before the value; returns where the value begins.
pub(crate) fn write_head(block: &mut [u8], front: Front, key: &[u8], value_bytes: usize) -> usize {
    let expires = if front.expire.is_some() { EXPIRES } else { 0 };
    let queued = if front.queued { QUEUED } else { 0 };
    block[0] = front.kind as u8 | expires | queued;
    block[1..4].copy_from_slice(&front.access.to_le_bytes()[..3]);
    let mut at = FIXED_BYTES;
    if let Some(expire) = front.expire {
        assert!(expire <= EXPIRE_MAX, "times are checked where they come from");
        block[at..at + EXPIRE_BYTES].copy_from_slice(&expire.to_le_bytes()[..EXPIRE_BYTES]);
        at += EXPIRE_BYTES;
    }
    write_item_head(block, at, key, value_bytes)
}

/// Writes an item's lengths and key at `at`; returns where its value begins.
pub(crate) fn write_item_head(block: &mut [u8], at: usize, key: &[u8], value: usize) -> usize {
    let at = write_length(block, at, key.len());
    let at = write_length(block, at, value);
    block[at..at + key.len()].copy_from_slice(key);
    at + key.len()
}

/// Gives a short string that never expires another value of the same length; returns whether it is
/// one.
#[inline]
pub(crate) fn overwrite_plain(block: &mut [u8], kind: Kind, access: u32, value: &[u8]) -> bool {
    let is_plain = block[0] == Kind::Bytes as u8 || block[0] == Kind::Int as u8;
    if !is_plain {
        return false;
    }
    let (_, held) = read_item(block, FIXED_BYTES);
    if held.len() != value.len() {
        return false;
    }
    block[0] = kind as u8;
    set_access(block, access);
    block[held].copy_from_slice(value);
    true
}

#[inline]
pub(crate) fn set_access(block: &mut [u8], access: u32) {
    block[1..4].copy_from_slice(&access.to_le_bytes()[..3]);
}

pub(crate) fn set_queued(block: &mut [u8], queued: bool) {
    block[0] = block[0] & !QUEUED | if queued { QUEUED } else { 0 };
}

/// Whether the value of a block can get another length where it stands, but for moving its bytes.
pub(crate) fn same_length_bytes(one: usize, other: usize) -> bool {
    length_bytes(one) == length_bytes(other)
}

/// Writes the length of a value anew, which takes as many bytes as the old one.
pub(crate) fn set_value_bytes(block: &mut [u8], head: &Head, value_bytes: usize) {
    let at = head.key.start - length_bytes(head.value.len());
    write_length(block, at, value_bytes);
}

#[inline(always)]
fn read_length(block: &[u8], mut at: usize) -> (usize, usize) {
    let first = block[at];
    at += 1;
    if first < 0x80 {
        return (first as usize, at);
    }
    read_long_length(block, first, at)
}

#[cold]
fn read_long_length(block: &[u8], first: u8, mut at: usize) -> (usize, usize) {
    let (mut length, mut shift) = ((first & 0x7f) as usize, 7);
    loop {
        let byte = block[at];
        at += 1;
        length |= ((byte & 0x7f) as usize) << shift;
        if byte < 0x80 {
            return (length, at);
        }
        shift += 7;
    }
}

fn write_length(block: &mut [u8], mut at: usize, mut length: usize) -> usize {
    while length >= 0x80 {
        block[at] = length as u8 | 0x80;
        length >>= 7;
        at += 1;
    }
    block[at] = length as u8;
    at + 1
}

fn length_bytes(length: usize) -> usize {
    ((length | 1).ilog2() as usize) / 7 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_read_as_it_was_written() {
        for key_bytes in [0, 1, 127, 128, 20_000] {
            for (value_bytes, expire) in [(0, None), (127, Some(0)), (70_000, Some(EXPIRE_MAX))] {
                let key = vec![b'k'; key_bytes];
                let bytes = block_bytes(expire.is_some(), key_bytes, value_bytes);
                let mut block = vec![0; bytes];
                let front = Front { kind: Kind::Zset, queued: true, access: 0xabcdef, expire };
                let at = write_head(&mut block, front, &key, value_bytes);
                assert_eq!(at + value_bytes, bytes);
                let head = read_head(&block);
                assert_eq!((head.kind, head.queued, head.access), (Kind::Zset, true, 0xabcdef));
                assert_eq!((head.expire, head.value), (expire, at..bytes));
                assert_eq!(&block[head.key], key_of(&block));
                set_queued(&mut block, false);
                assert!(!read_head(&block).queued);
            }
        }
    }
}
