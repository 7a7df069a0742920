//! Packed nodes: small collections as one string, in the five forms that Redis has had.
//!
//! ```text
//!   listpack  u32 bytes · u16 items  · (head · word · length backwards)…   · ff
//!   ziplist   u32 bytes · u32 offset · u16 items · (length of previous · head · word)… · ff
//!   zipmap    u8 pairs · (length · name · length · u8 spare · value · spare)… · ff
//!   intset    u32 width · u32 numbers · numbers of 2, 4 or 8 bytes
//!   plain     one word, the whole string
//! ```
//!
//! Numbers are little-endian, but for lengths within a ziplist. What these numbers say is checked
//! as the words are taken, one at a time; counts and ways backwards are not needed and not used.

use bytes::Bytes;

use crate::error::RdbError;
use crate::input::decimal;

const END: u8 = 0xff;
const BAD: RdbError = RdbError::Corrupt("a packed node is damaged");

/// How a node is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Listpack,
    Ziplist,
    Zipmap,
    Intset,
    Plain,
}

/// A node, and how many of its bytes are read.
#[derive(Debug)]
pub(crate) struct Node {
    bytes: Bytes,
    at: usize,
    form: Form,
    /// Of an intset, the bytes of a number.
    width: usize,
}

/// A word of a listpack: a number where it is one.
pub(crate) enum Word {
    Number(i64),
    Text(Bytes),
}

impl Word {
    fn into_text(self) -> Bytes {
        match self {
            Word::Number(number) => decimal(number),
            Word::Text(text) => text,
        }
    }
}

impl Node {
    /// A node, whose head is checked.
    pub(crate) fn new(bytes: Bytes, form: Form) -> Result<Node, RdbError> {
        let mut node = Node { bytes, at: 0, form, width: 0 };
        match form {
            Form::Listpack | Form::Ziplist => {
                let len = node.bytes.len() as u64;
                let said = u64::from(u32::from_le_bytes(node.array()?));
                node.at = if form == Form::Listpack { 6 } else { 10 };
                if said != len || node.bytes.last() != Some(&END) || node.at >= node.bytes.len() {
                    return Err(BAD);
                }
            }
            Form::Zipmap => {
                node.at = 1;
                if node.bytes.len() < 2 || node.bytes.last() != Some(&END) {
                    return Err(BAD);
                }
            }
            Form::Intset => {
                let width = u32::from_le_bytes(node.array()?);
                let numbers = u64::from(u32::from_le_bytes(node.array()?));
                let len = (node.bytes.len() - node.at) as u64;
                if !matches!(width, 2 | 4 | 8) || numbers * u64::from(width) != len {
                    return Err(BAD);
                }
                node.width = width as usize;
            }
            Form::Plain => {}
        }
        Ok(node)
    }

    /// The next word as text.
    pub(crate) fn text(&mut self) -> Result<Option<Bytes>, RdbError> {
        Ok(match self.form {
            Form::Listpack => self.word()?.map(Word::into_text),
            Form::Ziplist => self.ziplist_word()?,
            Form::Zipmap => self.zipmap_name()?,
            Form::Intset => self.intset_number()?.map(decimal),
            Form::Plain => self.plain(),
        })
    }

    /// The word that belongs to the one before.
    pub(crate) fn partner(&mut self) -> Result<Bytes, RdbError> {
        match self.form {
            Form::Zipmap => self.zipmap_value(),
            _ => self.text()?.ok_or(BAD),
        }
    }

    /// The next word of a listpack.
    pub(crate) fn word(&mut self) -> Result<Option<Word>, RdbError> {
        debug_assert_eq!(self.form, Form::Listpack, "only a listpack has such words");
        if self.is_at_end()? {
            return Ok(None);
        }
        let start = self.at;
        let head = self.byte()?;
        let word = match head {
            0..=0x7f => Word::Number(i64::from(head)),
            0x80..=0xbf => Word::Text(self.slice(u64::from(head & 0x3f))?),
            0xc0..=0xdf => {
                let bits = u16::from(head & 0x1f) << 8 | u16::from(self.byte()?);
                Word::Number(i64::from((bits << 3) as i16 >> 3))
            }
            0xe0..=0xef => {
                let len = u64::from(head & 0x0f) << 8 | u64::from(self.byte()?);
                Word::Text(self.slice(len)?)
            }
            0xf0 => {
                let len = u32::from_le_bytes(self.array()?);
                Word::Text(self.slice(u64::from(len))?)
            }
            0xf1 => Word::Number(i64::from(i16::from_le_bytes(self.array()?))),
            0xf2 => Word::Number(self.int24()?),
            0xf3 => Word::Number(i64::from(i32::from_le_bytes(self.array()?))),
            0xf4 => Word::Number(i64::from_le_bytes(self.array()?)),
            _ => return Err(BAD),
        };
        self.slice(backwards_bytes(self.at - start) as u64)?;
        Ok(Some(word))
    }

    fn ziplist_word(&mut self) -> Result<Option<Bytes>, RdbError> {
        if self.is_at_end()? {
            return Ok(None);
        }
        if self.byte()? == 0xfe {
            self.array::<4>()?;
        }
        let head = self.byte()?;
        let number = match head {
            0..=0x3f => return self.slice(u64::from(head)).map(Some),
            0x40..=0x7f => {
                let len = u64::from(head & 0x3f) << 8 | u64::from(self.byte()?);
                return self.slice(len).map(Some);
            }
            0x80..=0xbf => {
                let len = u32::from_be_bytes(self.array()?);
                return self.slice(u64::from(len)).map(Some);
            }
            0xc0 => i64::from(i16::from_le_bytes(self.array()?)),
            0xd0 => i64::from(i32::from_le_bytes(self.array()?)),
            0xe0 => i64::from_le_bytes(self.array()?),
            0xf0 => self.int24()?,
            0xfe => i64::from(i8::from_le_bytes(self.array()?)),
            0xf1..=0xfd => i64::from(head - 0xf1),
            _ => return Err(BAD),
        };
        Ok(Some(decimal(number)))
    }

    fn zipmap_name(&mut self) -> Result<Option<Bytes>, RdbError> {
        if self.is_at_end()? {
            return Ok(None);
        }
        let len = self.zipmap_length()?;
        self.slice(len).map(Some)
    }

    fn zipmap_value(&mut self) -> Result<Bytes, RdbError> {
        let len = self.zipmap_length()?;
        let spare = self.byte()?;
        let value = self.slice(len)?;
        self.slice(u64::from(spare))?;
        Ok(value)
    }

    fn zipmap_length(&mut self) -> Result<u64, RdbError> {
        match self.byte()? {
            254 => Ok(u64::from(u32::from_le_bytes(self.array()?))),
            END => Err(BAD),
            len => Ok(u64::from(len)),
        }
    }

    fn intset_number(&mut self) -> Result<Option<i64>, RdbError> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        Ok(Some(match self.width {
            2 => i64::from(i16::from_le_bytes(self.array()?)),
            4 => i64::from(i32::from_le_bytes(self.array()?)),
            _ => i64::from_le_bytes(self.array()?),
        }))
    }

    fn plain(&mut self) -> Option<Bytes> {
        let is_read = self.at > 0;
        self.at = 1;
        (!is_read).then(|| std::mem::take(&mut self.bytes))
    }

    /// Whether the mark of the end is next, which has to be the last byte.
    fn is_at_end(&self) -> Result<bool, RdbError> {
        match self.bytes.get(self.at) {
            Some(&END) if self.at + 1 == self.bytes.len() => Ok(true),
            Some(&END) | None => Err(BAD),
            Some(_) => Ok(false),
        }
    }

    fn slice(&mut self, len: u64) -> Result<Bytes, RdbError> {
        let rest = (self.bytes.len() - self.at) as u64;
        if len > rest {
            return Err(BAD);
        }
        let start = self.at;
        self.at += len as usize;
        Ok(self.bytes.slice(start..self.at))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RdbError> {
        let array = self.bytes[self.at..].first_chunk().ok_or(BAD)?;
        self.at += N;
        Ok(*array)
    }

    fn byte(&mut self) -> Result<u8, RdbError> {
        Ok(self.array::<1>()?[0])
    }

    fn int24(&mut self) -> Result<i64, RdbError> {
        let [low, middle, high] = self.array()?;
        Ok(i64::from(i32::from_le_bytes([0, low, middle, high]) >> 8))
    }
}

/// The bytes of the length that follows a word of a listpack, for the way backwards.
fn backwards_bytes(word: usize) -> usize {
    match word {
        0..=127 => 1,
        128..=16382 => 2,
        16383..=2_097_150 => 3,
        2_097_151..=268_435_454 => 4,
        _ => 5,
    }
}

/// A listpack that is being written.
pub(crate) struct Listpack {
    bytes: Vec<u8>,
    words: usize,
}

impl Listpack {
    pub(crate) fn new() -> Listpack {
        Listpack { bytes: vec![0; 6], words: 0 }
    }

    pub(crate) fn push_number(&mut self, number: i64) {
        let start = self.bytes.len();
        if let Ok(small) = u8::try_from(number)
            && small < 128
        {
            self.bytes.push(small);
        } else if let Ok(short) = i16::try_from(number) {
            self.bytes.push(0xf1);
            self.bytes.extend_from_slice(&short.to_le_bytes());
        } else if let Ok(long) = i32::try_from(number) {
            self.bytes.push(0xf3);
            self.bytes.extend_from_slice(&long.to_le_bytes());
        } else {
            self.bytes.push(0xf4);
            self.bytes.extend_from_slice(&number.to_le_bytes());
        }
        self.close(start);
    }

    pub(crate) fn push_text(&mut self, text: &[u8]) {
        let start = self.bytes.len();
        let len = text.len();
        match len {
            0..=0x3f => self.bytes.push(0x80 | len as u8),
            0x40..=0xfff => self.bytes.extend([0xe0 | (len >> 8) as u8, len as u8]),
            _ => {
                self.bytes.push(0xf0);
                self.bytes.extend_from_slice(&(len as u32).to_le_bytes());
            }
        }
        self.bytes.extend_from_slice(text);
        self.close(start);
    }

    /// Writes the word's length for the way backwards: 7 bits a byte, the highest first, each
    /// byte but the first with its top bit set.
    fn close(&mut self, start: usize) {
        let word = self.bytes.len() - start;
        let bytes = backwards_bytes(word);
        for byte in (0..bytes).rev() {
            let bits = (word >> (7 * byte)) as u8 & 0x7f;
            let goes_on = if byte + 1 == bytes { 0 } else { 0x80 };
            self.bytes.push(bits | goes_on);
        }
        self.words += 1;
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.bytes.push(END);
        let len = u32::try_from(self.bytes.len()).expect("who writes a listpack keeps it short");
        let words = u16::try_from(self.words).unwrap_or(u16::MAX);
        self.bytes[..4].copy_from_slice(&len.to_le_bytes());
        self.bytes[4..6].copy_from_slice(&words.to_le_bytes());
        self.bytes
    }
}
