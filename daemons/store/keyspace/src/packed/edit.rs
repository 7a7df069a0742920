//! Edits of packed sequences: what has to become of the bytes, and a buffer that does it.

use std::ops::Range;

use super::word::{self, Needle};
use super::{
    EMPTY, HEADER_BYTES, ITEMS_MAX, PACKED_BYTES_MAX, Packed, PackedError, Word, validate,
};

/// An edit, to be applied by whoever owns the bytes.
///
/// ```text
///   │ count │ … │ remove bytes │ … │   ──►   │ count │ … │ insert bytes │ … │
///               at                                      at
/// ```
///
/// Either the owner makes the hole itself, calls [`Splice::write`] on it and puts the count into
/// the first two bytes, or has room behind the bytes and leaves all of it to [`Splice::apply`].
#[derive(Clone, Copy, Debug)]
pub struct Splice<'w> {
    /// Where bytes are removed and inserted.
    pub at: usize,
    /// How many are removed.
    pub remove: usize,
    /// How many are inserted.
    pub insert: usize,
    /// How many items there are after that.
    pub count: u16,
    words: &'w [Word<'w>],
}

impl<'w> Splice<'w> {
    /// # Panics
    /// There would be more than [`ITEMS_MAX`] items or [`PACKED_BYTES_MAX`] bytes.
    fn new(
        packed: Packed<'_>,
        range: Range<usize>,
        items: usize,
        words: &'w [Word<'w>],
    ) -> Splice<'w> {
        let insert = words.iter().map(|word| Needle::new(*word).item_bytes()).sum();
        let count = packed.len() - items + words.len();
        assert!(count <= ITEMS_MAX, "a packed sequence has a count of 16 bits");
        let splice =
            Splice { at: range.start, remove: range.len(), insert, count: count as u16, words };
        let bytes = splice.bytes_after(packed.bytes().len());
        assert!(bytes <= PACKED_BYTES_MAX, "a packed sequence of {bytes} bytes is too long");
        splice
    }

    /// How long the bytes are after the edit, if they are `bytes` long before it.
    pub fn bytes_after(&self, bytes: usize) -> usize {
        bytes - self.remove + self.insert
    }

    /// Writes what is inserted.
    ///
    /// # Panics
    /// `hole` is not [`Splice::insert`] bytes long.
    pub fn write(&self, hole: &mut [u8]) {
        assert_eq!(hole.len(), self.insert, "the hole is as large as what goes there");
        let mut at = 0;
        for word in self.words {
            at += Needle::new(*word).write(&mut hole[at..]);
        }
    }

    /// Edits the packed sequence that the first `len` bytes of `room` are; returns how many they
    /// are after that.
    ///
    /// # Panics
    /// `room` is too short for the outcome, or the bytes are not those that the edit is of.
    pub fn apply(&self, room: &mut [u8], len: usize) -> usize {
        let behind = self.at + self.remove;
        room.copy_within(behind..len, self.at + self.insert);
        self.write(&mut room[self.at..self.at + self.insert]);
        room[..HEADER_BYTES].copy_from_slice(&self.count.to_le_bytes());
        self.bytes_after(len)
    }
}

/// Edits of a sequence. None changes it; each says what to splice.
///
/// # Panics
/// All panic if there would be more than [`ITEMS_MAX`] items or [`PACKED_BYTES_MAX`] bytes.
impl Packed<'_> {
    /// Words behind the last item.
    pub fn push_back<'w>(self, words: &'w [Word<'w>]) -> Splice<'w> {
        let end = self.bytes().len();
        Splice::new(self, end..end, 0, words)
    }

    /// Words before the first item, the first of them first.
    pub fn push_front<'w>(self, words: &'w [Word<'w>]) -> Splice<'w> {
        Splice::new(self, HEADER_BYTES..HEADER_BYTES, 0, words)
    }

    /// Words before the item of an index, or behind the last one.
    ///
    /// # Panics
    /// The index is greater than the number of items.
    pub fn insert_at<'w>(self, index: usize, words: &'w [Word<'w>]) -> Splice<'w> {
        let at = self.offset(index);
        Splice::new(self, at..at, 0, words)
    }

    /// Another word in place of the item that has these bytes.
    pub fn replace<'w>(self, item: Range<usize>, word: &'w Word<'w>) -> Splice<'w> {
        Splice::new(self, item, 1, std::slice::from_ref(word))
    }

    /// Without the items of these indexes.
    ///
    /// # Panics
    /// The range is not one of items.
    pub fn remove(self, items: Range<usize>) -> Splice<'static> {
        assert!(items.start <= items.end, "a range of items");
        let range = self.offset(items.start)..self.offset(items.end);
        Splice::new(self, range, items.len(), &[])
    }

    /// Without the item that begins at byte `offset` and those behind it, `items` in all: for who
    /// has found it already.
    ///
    /// # Panics
    /// There are less items.
    pub fn remove_from(self, offset: usize, items: usize) -> Splice<'static> {
        let mut end = offset;
        for _ in 0..items {
            end += word::item_bytes(&self.bytes()[end..]);
        }
        Splice::new(self, offset..end, items, &[])
    }
}

/// A packed sequence that owns its bytes. The default one has no items and no memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackedBuf {
    /// Empty, or a packed sequence.
    bytes: Vec<u8>,
}

impl PackedBuf {
    /// A sequence without items.
    pub const fn new() -> PackedBuf {
        PackedBuf { bytes: Vec::new() }
    }

    /// A sequence of bytes from outside.
    ///
    /// # Errors
    /// As [`validate`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<PackedBuf, PackedError> {
        validate(&bytes)?;
        Ok(PackedBuf { bytes })
    }

    /// The sequence to be read, and its edits.
    pub fn packed(&self) -> Packed<'_> {
        Packed::new(self.bytes())
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        if self.bytes.is_empty() { &EMPTY } else { &self.bytes }
    }

    /// Bytes allocated.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Items.
    pub fn len(&self) -> usize {
        self.packed().len()
    }

    /// Whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts words behind the last item.
    ///
    /// # Panics
    /// This and all other edits as those of [`Packed`].
    pub fn push_back(&mut self, words: &[Word<'_>]) {
        let splice = self.packed().push_back(words);
        self.apply(&splice);
    }

    /// Puts words before the first item, the first of them first.
    pub fn push_front(&mut self, words: &[Word<'_>]) {
        let splice = self.packed().push_front(words);
        self.apply(&splice);
    }

    /// Puts words before the item of an index, or behind the last one.
    pub fn insert_at(&mut self, index: usize, words: &[Word<'_>]) {
        let splice = self.packed().insert_at(index, words);
        self.apply(&splice);
    }

    /// Puts another word in place of the item that has these bytes.
    pub fn replace(&mut self, item: Range<usize>, word: Word<'_>) {
        let splice = self.packed().replace(item, &word);
        self.apply(&splice);
    }

    /// Removes the items of these indexes.
    pub fn remove(&mut self, items: Range<usize>) {
        let splice = self.packed().remove(items);
        self.apply(&splice);
    }

    /// Removes the item that begins at byte `offset` and those behind it, `items` in all.
    pub fn remove_from(&mut self, offset: usize, items: usize) {
        let splice = self.packed().remove_from(offset, items);
        self.apply(&splice);
    }

    /// Keeps the items before an index; returns the others.
    pub fn split_off(&mut self, index: usize) -> PackedBuf {
        let (len, at) = (self.len(), self.packed().offset(index));
        if index == len {
            return PackedBuf::new();
        }
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.bytes.len() - at);
        bytes.extend_from_slice(&((len - index) as u16).to_le_bytes());
        bytes.extend_from_slice(&self.bytes[at..]);
        self.bytes.truncate(at);
        self.bytes[..HEADER_BYTES].copy_from_slice(&(index as u16).to_le_bytes());
        PackedBuf { bytes }
    }

    /// Puts the items of another sequence behind the last one.
    pub fn append(&mut self, other: Packed<'_>) {
        let count = self.len() + other.len();
        assert!(count <= ITEMS_MAX, "a packed sequence has a count of 16 bits");
        if other.is_empty() {
            return;
        }
        self.begin();
        self.bytes.extend_from_slice(&other.bytes()[HEADER_BYTES..]);
        let bytes = self.bytes.len();
        assert!(bytes <= PACKED_BYTES_MAX, "a packed sequence of {bytes} bytes is too long");
        self.bytes[..HEADER_BYTES].copy_from_slice(&(count as u16).to_le_bytes());
    }

    /// Gives back memory beyond the bytes.
    pub fn shrink_to_fit(&mut self) {
        self.bytes.shrink_to_fit();
    }

    fn begin(&mut self) {
        if self.bytes.is_empty() {
            self.bytes.extend_from_slice(&EMPTY);
        }
    }

    fn apply(&mut self, splice: &Splice<'_>) {
        self.begin();
        let len = self.bytes.len();
        let after = splice.bytes_after(len);
        self.bytes.resize(len.max(after), 0);
        splice.apply(&mut self.bytes, len);
        self.bytes.truncate(after);
    }
}
