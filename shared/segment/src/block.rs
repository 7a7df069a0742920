//! Many small facts in one record. A record costs 24 bytes before its payload; a fact in a block
//! costs two bytes before its own (three from 128 bytes on). Which record kind is a block is for
//! the log's user to say.
//!
//! ```text
//!   payload of a block:  │ length (varint) │ kind (u8) │ bytes … │ length │ kind │ bytes … │
//! ```
//!
//! `length` counts the bytes behind the kind, seven bits a byte, the lowest first (LEB128).

use bytes::{Buf, Bytes};

/// The longest varint: a `u32` in groups of seven bits.
const VARINT_BYTES_MAX: usize = 5;

/// Gathers facts for one record, up to a limit.
#[derive(Clone, Debug)]
pub struct BlockBuilder {
    payload: Vec<u8>,
    facts: u32,
    bytes_max: usize,
}

impl BlockBuilder {
    /// A block whose payload is at most `bytes_max` long; no more than the log's
    /// `record_bytes_max`.
    pub fn new(bytes_max: u32) -> BlockBuilder {
        BlockBuilder { payload: Vec::new(), facts: 0, bytes_max: bytes_max as usize }
    }

    /// Takes a fact, its bytes the concatenation of `parts`; tells whether there was room. In an
    /// empty block there is room for every fact of up to `bytes_max − 6` bytes.
    #[must_use]
    pub fn push(&mut self, kind: u8, parts: &[&[u8]]) -> bool {
        let bytes = parts.iter().fold(0usize, |sum, part| sum.saturating_add(part.len()));
        let Ok(length) = u32::try_from(bytes) else { return false };
        let need = varint_bytes(length) + 1;
        if self.bytes_max - self.payload.len() < need.saturating_add(bytes) {
            return false;
        }
        self.put_varint(length);
        self.payload.push(kind);
        for part in parts {
            self.payload.extend_from_slice(part);
        }
        self.facts += 1;
        true
    }

    fn put_varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.payload.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.payload.push(value as u8);
    }

    /// What is appended as the record's payload.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Facts in the block.
    pub fn facts(&self) -> u32 {
        self.facts
    }

    /// Whether there is no fact in the block.
    pub fn is_empty(&self) -> bool {
        self.facts == 0
    }

    /// Forgets the facts and keeps the memory.
    pub fn clear(&mut self) {
        self.payload.clear();
        self.facts = 0;
    }
}

/// The bytes that a fact takes in its block.
fn varint_bytes(value: u32) -> usize {
    (1..VARINT_BYTES_MAX).find(|n| value >> (7 * n) == 0).unwrap_or(VARINT_BYTES_MAX)
}

/// A small thing that was said in a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// What its writer called it.
    pub kind: u8,
    /// Its content, shared with the block's record.
    pub bytes: Bytes,
}

impl Fact {
    /// The bytes that it takes in its block: what [`Log::retire`](crate::Log::retire) may be told
    /// when it is no longer needed.
    pub fn stored_bytes(&self) -> u32 {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        length.saturating_add(varint_bytes(length) as u32 + 1)
    }
}

/// A block's payload is not what a [`BlockBuilder`] makes. Since the record's checksum was right,
/// the fault is its writer's, or the record is no block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the payload is not a block of facts")]
pub struct FactError;

/// The facts of a block in order. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Facts {
    rest: Bytes,
}

impl Facts {
    /// The facts in the payload of a block record.
    pub fn new(payload: Bytes) -> Facts {
        Facts { rest: payload }
    }

    fn take(&mut self) -> Option<Fact> {
        let length = self.take_varint()? as usize;
        if self.rest.len() <= length {
            return None;
        }
        let kind = self.rest.get_u8();
        Some(Fact { kind, bytes: self.rest.split_to(length) })
    }

    fn take_varint(&mut self) -> Option<u32> {
        let mut value = 0u64;
        for group in 0..VARINT_BYTES_MAX {
            let byte = *self.rest.get(group)?;
            value |= u64::from(byte & 0x7F) << (7 * group);
            if byte & 0x80 == 0 {
                // One number has one spelling.
                let value = u32::try_from(value).ok().filter(|v| varint_bytes(*v) == group + 1)?;
                self.rest.advance(group + 1);
                return Some(value);
            }
        }
        None
    }
}

impl Iterator for Facts {
    type Item = Result<Fact, FactError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let fact = self.take().ok_or(FactError);
        if fact.is_err() {
            self.rest = Bytes::new();
        }
        Some(fact)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_small_fact_costs_two_bytes_more_than_its_content() {
        let mut block = BlockBuilder::new(100);
        assert!(block.push(7, &[b"ab", b"c"]));
        assert_eq!(block.payload(), [3, 7, b'a', b'b', b'c']);
        let fact = Fact { kind: 7, bytes: Bytes::from_static(b"abc") };
        assert_eq!(fact.stored_bytes(), 5);
        assert_eq!(Facts::new(Bytes::from(block.payload().to_vec())).next(), Some(Ok(fact)));
    }

    #[test]
    fn a_block_takes_what_fits_and_nothing_of_what_does_not() {
        let mut block = BlockBuilder::new(10);
        assert!(block.push(1, &[b"12345"]));
        assert!(!block.push(2, &[b"12"]));
        assert!(block.push(3, &[b"1"]));
        assert_eq!((block.facts(), block.payload().len()), (2, 10));
        assert!(!block.push(4, &[]));
        block.clear();
        assert!(block.is_empty() && block.push(4, &[]));
    }

    #[test]
    fn what_is_no_block_ends_with_an_error() {
        for broken in [
            &[5][..],
            &[5, 1, 2],
            &[0x80],
            &[0x80, 0x00, 1],
            &[0xFF, 0xFF, 0xFF, 0xFF, 0x7F, 1],
            &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01, 1],
        ] {
            let mut facts = Facts::new(Bytes::copy_from_slice(broken));
            assert_eq!(facts.next(), Some(Err(FactError)), "{broken:?}");
            assert_eq!(facts.next(), None);
        }
    }

    proptest! {
        #[test]
        fn facts_come_back_in_order(
            said in proptest::collection::vec(
                (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..300)), 0..50)
        ) {
            let mut block = BlockBuilder::new(4096);
            let taken: Vec<Fact> = said
                .into_iter()
                .filter(|(kind, bytes)| block.push(*kind, &[bytes]))
                .map(|(kind, bytes)| Fact { kind, bytes: Bytes::from(bytes) })
                .collect();
            let stored: u32 = taken.iter().map(Fact::stored_bytes).sum();
            prop_assert_eq!(stored as usize, block.payload().len());
            let back: Result<Vec<Fact>, FactError> =
                Facts::new(Bytes::copy_from_slice(block.payload())).collect();
            prop_assert_eq!(back, Ok(taken));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let len = bytes.len();
            let read: usize = Facts::new(Bytes::from(bytes))
                .filter_map(Result::ok)
                .map(|fact| fact.stored_bytes() as usize)
                .sum();
            prop_assert!(read <= len);
        }
    }
}
