//! One item of a packed sequence: what it says, and its spelling.

use crate::strings::canonical_int;

/// The most data bytes with a head of one byte, and of two.
const SHORT_MAX: usize = 0x3F;
const MIDDLE_MAX: usize = 0x1FFF;

const SHORT: u8 = 0x80;
const MIDDLE: u8 = 0xC0;
const LONG: u8 = 0xE0;
const INT: u8 = 0xF0;

/// The longest head: of bytes of any length, and of an integer with its data.
const HEAD_BYTES_MAX: usize = 9;

/// The longest length of a head and its data, in groups of seven bits: a `u32` and a few.
const BACK_BYTES_MAX: usize = 5;

/// An item: bytes, or the integer whose decimal form they are.
///
/// Two words are equal if they stand for the same bytes, provided that [`Word::from_bytes`] or a
/// packed sequence made them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word<'a> {
    /// Bytes that are no decimal form of an `i64`.
    Bytes(&'a [u8]),
    /// What is as bytes its shortest decimal form.
    Int(i64),
}

impl<'a> Word<'a> {
    /// The word of some bytes: an integer if they are the shortest decimal form of an `i64`.
    pub fn from_bytes(bytes: &'a [u8]) -> Word<'a> {
        canonical_int(bytes).map_or(Word::Bytes(bytes), Word::Int)
    }

    /// The bytes that the word stands for; an integer is written into `scratch`.
    pub fn as_bytes<'b>(&'b self, scratch: &'b mut [u8; 20]) -> &'b [u8] {
        match self {
            Word::Bytes(bytes) => bytes,
            Word::Int(n) => format(*n, scratch),
        }
    }

    /// How many bytes the word stands for.
    pub fn len(&self) -> usize {
        match self {
            Word::Bytes(bytes) => bytes.len(),
            Word::Int(n) => {
                let digits = n.unsigned_abs().checked_ilog10().unwrap_or(0) as usize + 1;
                digits + usize::from(*n < 0)
            }
        }
    }

    /// Whether the word stands for no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the word stands for these bytes.
    pub fn eq_bytes(&self, bytes: &[u8]) -> bool {
        match self {
            Word::Bytes(held) => *held == bytes,
            Word::Int(n) => canonical_int(bytes) == Some(*n),
        }
    }
}

fn format(n: i64, scratch: &mut [u8; 20]) -> &[u8] {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(n).as_bytes();
    scratch[..digits.len()].copy_from_slice(digits);
    &scratch[..digits.len()]
}

/// A word as an item has it: a head, which has all of an integer in it, and data.
pub(super) struct Needle<'a> {
    head: [u8; HEAD_BYTES_MAX],
    head_bytes: usize,
    data: &'a [u8],
}

impl<'a> Needle<'a> {
    /// Bytes that are a decimal form become an integer, whoever made the word.
    pub(super) fn new(word: Word<'a>) -> Needle<'a> {
        let word = match word {
            Word::Bytes(bytes) => Word::from_bytes(bytes),
            Word::Int(_) => word,
        };
        let mut head = [0; HEAD_BYTES_MAX];
        let (head_bytes, data) = match word {
            Word::Int(n) => (int_head(n, &mut head), &[][..]),
            Word::Bytes(data) => (bytes_head(data.len(), &mut head), data),
        };
        Needle { head, head_bytes, data }
    }

    fn head(&self) -> &[u8] {
        &self.head[..self.head_bytes]
    }

    /// Whether these bytes begin with an item of this word.
    pub(super) fn begins(&self, bytes: &[u8]) -> bool {
        bytes
            .strip_prefix(self.head())
            .and_then(|rest| rest.get(..self.data.len()))
            .is_some_and(|data| data == self.data)
    }

    /// What an item of it takes.
    pub(super) fn item_bytes(&self) -> usize {
        let length = self.head_bytes + self.data.len();
        length + back_bytes(length)
    }

    /// Writes an item of it to the beginning of `to`; returns what it takes.
    pub(super) fn write(&self, to: &mut [u8]) -> usize {
        let length = self.head_bytes + self.data.len();
        to[..self.head_bytes].copy_from_slice(self.head());
        to[self.head_bytes..length].copy_from_slice(self.data);
        length + self.write_back(&mut to[length..])
    }

    /// Writes the length of head and data to the beginning of `to`; returns what that takes.
    fn write_back(&self, to: &mut [u8]) -> usize {
        let mut rest = self.head_bytes + self.data.len();
        let size = back_bytes(rest);
        for byte in to[..size].iter_mut().rev() {
            *byte = (rest & 0x7F) as u8 | 0x80;
            rest >>= 7;
        }
        to[0] &= 0x7F;
        size
    }
}

fn int_head(n: i64, head: &mut [u8; HEAD_BYTES_MAX]) -> usize {
    if let Ok(n @ 0..=0x7F) = u8::try_from(n) {
        head[0] = n;
        return 1;
    }
    let size = int_bytes(n);
    head[0] = INT | size as u8;
    head[1..].copy_from_slice(&n.to_le_bytes());
    1 + size
}

/// How many bytes of two's complement a number needs.
fn int_bytes(n: i64) -> usize {
    let bits = 65 - (n ^ (n >> 63)).leading_zeros() as usize;
    bits.div_ceil(8)
}

fn bytes_head(length: usize, head: &mut [u8; HEAD_BYTES_MAX]) -> usize {
    if length <= SHORT_MAX {
        head[0] = SHORT | length as u8;
        1
    } else if length <= MIDDLE_MAX {
        head[0] = MIDDLE | (length >> 8) as u8;
        head[1] = length as u8;
        2
    } else {
        let length = u32::try_from(length).expect("no word is longer than a packed may be");
        head[0] = LONG;
        head[1..5].copy_from_slice(&length.to_le_bytes());
        5
    }
}

/// How many bytes the length of a head and its data is written in.
fn back_bytes(length: usize) -> usize {
    match length {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        0x20_0000..0x1000_0000 => 4,
        _ => BACK_BYTES_MAX,
    }
}

/// The bytes of the head and of the data of the item that the bytes begin with.
fn spans(bytes: &[u8]) -> (usize, usize) {
    match bytes[0] {
        0..SHORT => (1, 0),
        head @ SHORT..MIDDLE => (1, usize::from(head & 0x3F)),
        head @ MIDDLE..LONG => (2, usize::from(head & 0x1F) << 8 | usize::from(bytes[1])),
        head @ LONG..INT => {
            assert_eq!(head, LONG, "there is no such head");
            (5, u32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]) as usize)
        }
        head => (1, usize::from(head & 0x0F)),
    }
}

/// The bytes of the whole item that the bytes begin with.
pub(super) fn item_bytes(bytes: &[u8]) -> usize {
    let (head, data) = spans(bytes);
    head + data + back_bytes(head + data)
}

/// The bytes of the whole item that the bytes end with.
pub(super) fn item_bytes_back(bytes: &[u8]) -> usize {
    let mut length = 0;
    for (group, byte) in bytes.iter().rev().take(BACK_BYTES_MAX).enumerate() {
        length |= usize::from(byte & 0x7F) << (7 * group);
        if byte & 0x80 == 0 {
            return length + group + 1;
        }
    }
    panic!("an item ends in its length");
}

/// What the item says that the bytes begin with.
pub(super) fn read(bytes: &[u8]) -> Word<'_> {
    let (head, length) = spans(bytes);
    let data = &bytes[head..head + length];
    match bytes[0] {
        n @ 0..SHORT => Word::Int(i64::from(n)),
        SHORT..INT => Word::Bytes(data),
        _ => {
            let sign = if data.last().is_some_and(|top| top & 0x80 != 0) { 0xFF } else { 0 };
            let mut whole = [sign; 8];
            whole[..length].copy_from_slice(data);
            Word::Int(i64::from_le_bytes(whole))
        }
    }
}

/// What the item takes that the bytes begin with, if there is one and it is spelt as a
/// [`Needle`] writes it.
pub(super) fn check(bytes: &[u8]) -> Option<usize> {
    let head_bytes = match *bytes.first()? {
        0..MIDDLE => 1,
        MIDDLE..LONG => 2,
        LONG => 5,
        0xF1..=0xF8 => 1,
        _ => return None,
    };
    bytes.get(head_bytes - 1)?;
    let (head, data) = spans(bytes);
    let length = head.checked_add(data)?;
    bytes.get(..length)?;
    let needle = Needle::new(read(bytes));
    if !needle.begins(bytes) || needle.head_bytes + needle.data.len() != length {
        return None;
    }
    let mut back = [0; BACK_BYTES_MAX];
    let size = needle.write_back(&mut back);
    bytes[length..].starts_with(&back[..size]).then_some(length + size)
}
