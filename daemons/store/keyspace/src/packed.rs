//! Small collections in one byte string: a small hash costs little more than its bytes. It is
//! walked from either end; who looks for something in it compares encoded bytes.
//!
//! ```text
//!   count u16 │ item │ item │ …          item = head │ data │ back
//!
//!   head   0nnnnnnn                       the integer n, 0 … 127
//!          10llllll                       l bytes of data
//!          110lllll llllllll              l bytes, high bits first
//!          11100000 u32                   so many bytes
//!          1111nnnn  n in 1 … 8           an integer in n bytes, two's complement
//!   back   the length of head and data in groups of seven bits, the lowest in the last byte; a
//!          byte with its high bit set has another one before it
//! ```
//!
//! Numbers are little endian where nothing else is said. One content has one spelling: bytes that
//! are the decimal form of an `i64` are an integer, everything has its shortest form. So two items
//! are equal when their bytes are.
//!
//! The memory is somebody else's: an edit is a [`Splice`], which says what has to become of the
//! bytes. [`PackedBuf`] owns its bytes and applies them itself. [`validate`] is for bytes from
//! outside.

mod edit;
#[cfg(test)]
mod tests;
mod word;

use std::ops::Range;

pub use edit::{PackedBuf, Splice};
use word::Needle;
pub use word::Word;

/// Bytes before the first item.
const HEADER_BYTES: usize = 2;

/// The most items: what the count has room for. Callers turn to other structures long before.
pub const ITEMS_MAX: usize = u16::MAX as usize;

/// The most bytes of a packed sequence, its count included: 1 GiB.
pub const PACKED_BYTES_MAX: usize = 1 << 30;

/// The bytes of a sequence without items.
pub const EMPTY: [u8; HEADER_BYTES] = [0; HEADER_BYTES];

/// A packed sequence to be read.
///
/// Its bytes were made here or were [validated](validate). Reading others gives wrong items or
/// panics, and is never undefined.
#[derive(Clone, Copy, Debug)]
pub struct Packed<'a>(&'a [u8]);

impl<'a> Packed<'a> {
    /// Reads bytes that were made here or were [validated](validate).
    ///
    /// # Panics
    /// They are less than two.
    pub fn new(bytes: &'a [u8]) -> Packed<'a> {
        assert!(bytes.len() >= HEADER_BYTES, "a packed sequence begins with its count");
        Packed(bytes)
    }

    /// The bytes.
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// Items.
    pub fn len(self) -> usize {
        usize::from(u16::from_le_bytes([self.0[0], self.0[1]]))
    }

    /// Whether there are no items.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The items with the bytes that each takes, from either end.
    pub fn iter(self) -> Iter<'a> {
        Iter { bytes: self.0, front: HEADER_BYTES, back: self.0.len(), left: self.len() }
    }

    /// The item of an index, walked to from the nearer end.
    pub fn nth(self, index: usize) -> Option<(Range<usize>, Word<'a>)> {
        let behind = self.len().checked_sub(index + 1)?;
        if behind < index { self.iter().nth_back(behind) } else { self.iter().nth(index) }
    }

    /// The item that begins at this byte, or none if the bytes end there: for who has found the
    /// one before it.
    pub fn item_at(self, offset: usize) -> Option<(Range<usize>, Word<'a>)> {
        let rest = self.0.get(offset..).filter(|rest| !rest.is_empty())?;
        Some((offset..offset + word::item_bytes(rest), word::read(rest)))
    }

    /// The index and the bytes of the first item that is `word`.
    pub fn find(self, word: Word<'_>) -> Option<(usize, Range<usize>)> {
        self.find_every(word, 1)
    }

    /// Like [`Packed::find`] among the items 0, `stride`, 2 × `stride` and so on: with 2, the
    /// fields of a hash.
    ///
    /// # Panics
    /// The stride is 0.
    pub fn find_every(self, word: Word<'_>, stride: usize) -> Option<(usize, Range<usize>)> {
        assert_ne!(stride, 0, "every zeroth item is none");
        let needle = Needle::new(word);
        let mut at = HEADER_BYTES;
        for index in 0..self.len() {
            let rest = &self.0[at..];
            let end = at + word::item_bytes(rest);
            if index.is_multiple_of(stride) && needle.begins(rest) {
                return Some((index, at..end));
            }
            at = end;
        }
        None
    }

    /// Where the item of an index begins, or where the bytes end.
    ///
    /// # Panics
    /// There are less items.
    fn offset(self, index: usize) -> usize {
        assert!(index <= self.len(), "the index is inside or at the end");
        self.nth(index).map_or(self.0.len(), |(range, _)| range.start)
    }
}

impl<'a> IntoIterator for Packed<'a> {
    type Item = (Range<usize>, Word<'a>);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// The items of a [`Packed`], each with the bytes that it takes.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    bytes: &'a [u8],
    front: usize,
    back: usize,
    left: usize,
}

impl<'a> Iterator for Iter<'a> {
    type Item = (Range<usize>, Word<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let rest = &self.bytes[self.front..self.back];
        let end = self.front + word::item_bytes(rest);
        let range = self.front..end;
        self.front = end;
        Some((range, word::read(rest)))
    }

    fn nth(&mut self, n: usize) -> Option<Self::Item> {
        for _ in 0..n {
            self.left = self.left.checked_sub(1)?;
            self.front += word::item_bytes(&self.bytes[self.front..self.back]);
        }
        self.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl DoubleEndedIterator for Iter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let start = self.back - word::item_bytes_back(&self.bytes[self.front..self.back]);
        let range = start..self.back;
        self.back = start;
        Some((range.clone(), word::read(&self.bytes[range])))
    }
}

impl ExactSizeIterator for Iter<'_> {}

/// Why bytes are no packed sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PackedError {
    /// They are fewer than the count, or more than [`PACKED_BYTES_MAX`].
    #[error("{bytes} bytes are too few or too many")]
    Size {
        /// How many there are.
        bytes: usize,
    },
    /// The item at this offset is cut off, has a head that there is none of, or is not spelt as
    /// this module does.
    #[error("there is no item at byte {offset}")]
    Item {
        /// Where it begins.
        offset: usize,
    },
    /// Bytes are left behind the last item.
    #[error("the items end at byte {offset}, the bytes do not")]
    Trailing {
        /// Where the last item ends.
        offset: usize,
    },
}

/// Whether bytes are a packed sequence, every item spelt as this module does: reading what was
/// found valid never panics, and finds what is in it. Linear in the bytes.
///
/// # Errors
/// What is wrong first.
pub fn validate(bytes: &[u8]) -> Result<(), PackedError> {
    if !(HEADER_BYTES..=PACKED_BYTES_MAX).contains(&bytes.len()) {
        return Err(PackedError::Size { bytes: bytes.len() });
    }
    let mut offset = HEADER_BYTES;
    for _ in 0..Packed(bytes).len() {
        offset += word::check(&bytes[offset..]).ok_or(PackedError::Item { offset })?;
    }
    if offset < bytes.len() {
        return Err(PackedError::Trailing { offset });
    }
    Ok(())
}
