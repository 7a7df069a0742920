//! The bytes of a segment: what `FORMAT.md` describes, and nothing more. Encoding goes into memory
//! that the caller owns. Decoding trusts no length and no offset, and tells only whether the bytes
//! are what this log wrote at this very place.
//!
//! ```text
//!   record   0        4        8                16           22   23   24
//!            ┌────────┬────────┬────────────────┬────────────┬────┬────┬───────────┬─────┐
//!            │ length │ crc32c │ seq            │ unix_ms    │kind│flag│ payload … │ 0 … │
//!            └────────┴────────┴────────────────┴────────────┴────┴────┴───────────┴─────┘
//!            u32      u32      u64              u48          u8   u8               to a multiple of 8
//! ```

use bytes::{BufMut, BytesMut};

/// The format that this program writes, and the newest that it reads.
pub(crate) const VERSION: u16 = 2;

/// The first format that has [checkpoints](Item::Checkpoint).
pub(crate) const VERSION_WITH_CHECKPOINTS: u16 = 2;

const MAGIC: [u8; 8] = *b"SXTNTSEG";

/// A segment's header: one sector of its own, written before the segment is used.
pub(crate) const HEADER_BYTES: u32 = 512;

/// What precedes a payload.
pub(crate) const RECORD_HEADER_BYTES: u32 = 24;

/// A durable mark, which begins each commit.
pub(crate) const MARK_BYTES: u32 = 32;

/// The seal, which ends a full segment.
pub(crate) const SEAL_BYTES: u32 = 24;

/// A checkpoint, which each segment but the first begins with, and which may stand anywhere.
pub(crate) const CHECKPOINT_BYTES: u32 = 40;

/// Where a segment's first checkpoint stands: behind the header and a mark.
pub(crate) const FIRST_CHECKPOINT: u32 = HEADER_BYTES + MARK_BYTES;

/// What an append leaves free, so that the segment can always be sealed.
pub(crate) const RESERVED_BYTES: u32 = MARK_BYTES + SEAL_BYTES;

/// All records begin at a multiple of this.
pub(crate) const ALIGN: u32 = 8;

const UNIX_MS_MAX: u64 = (1 << 48) - 1;

const FLAG_RECORD: u8 = 0;
const FLAG_MARK: u8 = 1;
const FLAG_SEAL: u8 = 2;
const FLAG_CHECKPOINT: u8 = 3;

const _: () = assert!(HEADER_BYTES.is_multiple_of(ALIGN));
const _: () = assert!(MARK_BYTES == RECORD_HEADER_BYTES + 8 && MARK_BYTES.is_multiple_of(ALIGN));
const _: () =
    assert!(CHECKPOINT_BYTES == RECORD_HEADER_BYTES + 16 && CHECKPOINT_BYTES.is_multiple_of(ALIGN));
const _: () = assert!(SEAL_BYTES == RECORD_HEADER_BYTES && SEAL_BYTES.is_multiple_of(ALIGN));

/// The bytes that a record of this payload takes in its segment: header and padding included.
pub fn stored_bytes(payload_bytes: usize) -> u32 {
    let all = payload_bytes.saturating_add(RECORD_HEADER_BYTES as usize);
    let all = all.checked_next_multiple_of(ALIGN as usize).unwrap_or(usize::MAX);
    u32::try_from(all).unwrap_or(u32::MAX / ALIGN * ALIGN)
}

/// What a segment's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) version: u16,
    pub(crate) log_id: u64,
    pub(crate) number: u32,
    pub(crate) size: u32,
}

/// Why a header is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadHeader {
    /// Whole, but of a version that this program does not know.
    Newer(u16),
    Damaged,
}

impl SegmentHeader {
    pub(crate) fn encode(self) -> [u8; HEADER_BYTES as usize] {
        let mut out = [0; HEADER_BYTES as usize];
        out[0..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&self.version.to_le_bytes());
        out[12..16].copy_from_slice(&self.number.to_le_bytes());
        out[16..24].copy_from_slice(&self.log_id.to_le_bytes());
        out[24..32].copy_from_slice(&u64::from(self.size).to_le_bytes());
        let crc = crc32c::crc32c(&out[..508]);
        out[508..512].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<SegmentHeader, BadHeader> {
        let Some(bytes) = bytes.first_chunk::<{ HEADER_BYTES as usize }>() else {
            return Err(BadHeader::Damaged);
        };
        if bytes[0..8] != MAGIC || u32_at(bytes, 508) != crc32c::crc32c(&bytes[..508]) {
            return Err(BadHeader::Damaged);
        }
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        match version {
            0 => return Err(BadHeader::Damaged),
            1..=VERSION => {}
            _ => return Err(BadHeader::Newer(version)),
        }
        let size = u32::try_from(u64_at(bytes, 24)).map_err(|_| BadHeader::Damaged)?;
        if size < HEADER_BYTES + RESERVED_BYTES || !size.is_multiple_of(ALIGN) {
            return Err(BadHeader::Damaged);
        }
        Ok(SegmentHeader { version, log_id: u64_at(bytes, 16), number: u32_at(bytes, 12), size })
    }
}

/// What keys the checksums of one segment's records, so that no record is valid in another
/// segment, in another log, or for someone who does not know the log's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(u32);

impl Key {
    pub(crate) fn new(log_id: u64, number: u32) -> Key {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&log_id.to_le_bytes());
        bytes[8..].copy_from_slice(&number.to_le_bytes());
        Key(crc32c::crc32c(&bytes))
    }

    /// The checksum of a record at `offset`: over the offset, the length, and all that follows
    /// the checksum itself, padding included.
    fn checksum(self, offset: u32, length: u32, rest: &[u8]) -> u32 {
        let mut place = [0; 8];
        place[..4].copy_from_slice(&offset.to_le_bytes());
        place[4..].copy_from_slice(&length.to_le_bytes());
        crc32c::crc32c_append(crc32c::crc32c_append(self.0, &place), rest)
    }
}

/// What is in a segment beside its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// A record of the log's user.
    Record { seq: u64, unix_ms: u64, kind: u8, payload_bytes: u32 },
    /// The start of a commit: the next record's number, and the last that was durable when this
    /// was written.
    Mark { seq: u64, durable: u64 },
    /// What recovery need not read: the next record's number, and what follows.
    Checkpoint { seq: u64, checkpoint: Checkpoint },
    /// The end of the segment: the number of the next segment's first record.
    Seal { seq: u64 },
}

/// What a checkpoint says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// Records below this number are not needed for recovery.
    pub(crate) needed: u64,
    /// Of the segment before: the bytes of its records, and their latest time.
    pub(crate) stored_bytes: u64,
    pub(crate) newest_unix_ms: u64,
}

impl Item {
    /// Bytes from the start of this item to the start of the next.
    pub(crate) fn span(&self) -> u32 {
        match self {
            Item::Record { payload_bytes, .. } => stored_bytes(*payload_bytes as usize),
            Item::Mark { .. } => MARK_BYTES,
            Item::Checkpoint { .. } => CHECKPOINT_BYTES,
            Item::Seal { .. } => SEAL_BYTES,
        }
    }
}

/// Why no item is at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoItem {
    /// The header that would be there is all zeros: never written.
    Unwritten,
    /// Something else than what was written.
    Damaged,
}

/// The whole length that the item at the start of `bytes` claims, if it can be true at all:
/// `room` is what is left in its segment.
pub(crate) fn claimed_span(bytes: &[u8], room: u32) -> Result<u32, NoItem> {
    let Some(header) = bytes.first_chunk::<{ RECORD_HEADER_BYTES as usize }>() else {
        return match bytes.iter().all(|byte| *byte == 0) {
            true => Err(NoItem::Unwritten),
            false => Err(NoItem::Damaged),
        };
    };
    let length = u32_at(header, 0);
    if length == 0 && header.iter().all(|byte| *byte == 0) {
        return Err(NoItem::Unwritten);
    }
    if length < RECORD_HEADER_BYTES || length > room {
        return Err(NoItem::Damaged);
    }
    let span = stored_bytes((length - RECORD_HEADER_BYTES) as usize);
    if span <= room { Ok(span) } else { Err(NoItem::Damaged) }
}

/// Decodes the item at `offset` of a segment; `bytes` begins there, and ends with the segment or
/// before.
pub(crate) fn decode(key: Key, offset: u32, bytes: &[u8]) -> Result<Item, NoItem> {
    let room = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let span = claimed_span(bytes, room)? as usize;
    let length = u32_at(bytes, 0);
    if u32_at(bytes, 4) != key.checksum(offset, length, &bytes[8..span]) {
        return Err(NoItem::Damaged);
    }
    let seq = u64_at(bytes, 8);
    let payload_bytes = length - RECORD_HEADER_BYTES;
    match (bytes[23], payload_bytes) {
        (FLAG_RECORD, _) => {
            Ok(Item::Record { seq, unix_ms: u48_at(bytes, 16), kind: bytes[22], payload_bytes })
        }
        (FLAG_MARK, 8) => Ok(Item::Mark { seq, durable: u64_at(bytes, 24) }),
        (FLAG_CHECKPOINT, 16) => {
            let checkpoint = Checkpoint {
                needed: u64_at(bytes, 24),
                stored_bytes: u64_at(bytes, 32),
                newest_unix_ms: u48_at(bytes, 16),
            };
            Ok(Item::Checkpoint { seq, checkpoint })
        }
        (FLAG_SEAL, 0) => Ok(Item::Seal { seq }),
        _ => Err(NoItem::Damaged),
    }
}

/// Whether the bytes might begin a durable mark: cheap, and right unless it says yes.
pub(crate) fn resembles_mark(bytes: &[u8]) -> bool {
    bytes.len() >= MARK_BYTES as usize && u32_at(bytes, 0) == MARK_BYTES && bytes[23] == FLAG_MARK
}

/// Whether the bytes might begin an item: cheap, and right unless it says yes.
pub(crate) fn resembles_item(bytes: &[u8]) -> bool {
    let Some(header) = bytes.first_chunk::<{ RECORD_HEADER_BYTES as usize }>() else {
        return false;
    };
    let length = u32_at(header, 0);
    match header[23] {
        FLAG_RECORD => length >= RECORD_HEADER_BYTES && u64_at(header, 8) > 0,
        FLAG_MARK => length == MARK_BYTES,
        FLAG_SEAL => length == SEAL_BYTES,
        FLAG_CHECKPOINT => length == CHECKPOINT_BYTES,
        _ => false,
    }
}

/// Appends a record to `out`; it will stand at `offset` of its segment.
pub(crate) fn put_record(
    out: &mut BytesMut,
    key: Key,
    offset: u32,
    (seq, unix_ms, kind): (u64, u64, u8),
    parts: &[&[u8]],
) {
    let payload_bytes: usize = parts.iter().map(|part| part.len()).sum();
    let span = stored_bytes(payload_bytes) as usize;
    let start = out.len();
    let length = RECORD_HEADER_BYTES + payload_bytes as u32;
    out.reserve(span);
    out.put_u32_le(length);
    out.put_u32_le(0);
    out.put_u64_le(seq);
    out.put_slice(&unix_ms.min(UNIX_MS_MAX).to_le_bytes()[..6]);
    out.put_u8(kind);
    out.put_u8(FLAG_RECORD);
    for part in parts {
        out.put_slice(part);
    }
    out.resize(start + span, 0);
    sign(&mut out[start..], key, offset);
}

/// The durable mark that stands at `offset`.
pub(crate) fn mark(key: Key, offset: u32, seq: u64, durable: u64) -> [u8; MARK_BYTES as usize] {
    let mut out = [0; MARK_BYTES as usize];
    out[0..4].copy_from_slice(&MARK_BYTES.to_le_bytes());
    out[8..16].copy_from_slice(&seq.to_le_bytes());
    out[23] = FLAG_MARK;
    out[24..32].copy_from_slice(&durable.to_le_bytes());
    sign(&mut out, key, offset);
    out
}

/// The checkpoint that stands at `offset`.
pub(crate) fn checkpoint(
    key: Key,
    offset: u32,
    seq: u64,
    checkpoint: Checkpoint,
) -> [u8; CHECKPOINT_BYTES as usize] {
    let Checkpoint { needed, stored_bytes, newest_unix_ms } = checkpoint;
    let mut out = [0; CHECKPOINT_BYTES as usize];
    out[0..4].copy_from_slice(&CHECKPOINT_BYTES.to_le_bytes());
    out[8..16].copy_from_slice(&seq.to_le_bytes());
    out[16..22].copy_from_slice(&newest_unix_ms.min(UNIX_MS_MAX).to_le_bytes()[..6]);
    out[23] = FLAG_CHECKPOINT;
    out[24..32].copy_from_slice(&needed.to_le_bytes());
    out[32..40].copy_from_slice(&stored_bytes.to_le_bytes());
    sign(&mut out, key, offset);
    out
}

/// The seal that stands at `offset`.
pub(crate) fn seal(key: Key, offset: u32, seq: u64) -> [u8; SEAL_BYTES as usize] {
    let mut out = [0; SEAL_BYTES as usize];
    out[0..4].copy_from_slice(&SEAL_BYTES.to_le_bytes());
    out[8..16].copy_from_slice(&seq.to_le_bytes());
    out[23] = FLAG_SEAL;
    sign(&mut out, key, offset);
    out
}

fn sign(item: &mut [u8], key: Key, offset: u32) {
    let crc = key.checksum(offset, u32_at(item, 0), &item[8..]);
    item[4..8].copy_from_slice(&crc.to_le_bytes());
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes are four bytes"))
}

fn u48_at(bytes: &[u8], at: usize) -> u64 {
    let mut whole = [0; 8];
    whole[..6].copy_from_slice(&bytes[at..at + 6]);
    u64::from_le_bytes(whole)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes are eight bytes"))
}

/// The name of a segment's file.
pub(crate) fn file_name(number: u32) -> String {
    format!("{number:010}.seg")
}

/// The name of a segment's file while it is prepared.
pub(crate) fn temp_name(number: u32) -> String {
    format!("{number:010}.seg{TEMP_SUFFIX}")
}

/// What the names of files end with that were not finished.
pub(crate) const TEMP_SUFFIX: &str = ".new";

/// The inverse of [`file_name`].
pub(crate) fn number_of(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".seg")?;
    let number = digits.parse().ok()?;
    (number > 0 && file_name(number) == name).then_some(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: Key = Key(0x1234_5678);

    #[test]
    fn a_header_comes_back_and_no_flipped_bit_goes_unseen() {
        let header = SegmentHeader {
            version: VERSION,
            log_id: 0xDEAD_BEEF_0BAD_F00D,
            number: 7,
            size: 1 << 20,
        };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&flipped), Err(BadHeader::Damaged), "bit {bit}");
        }
    }

    #[test]
    fn a_header_of_a_later_version_is_told_from_a_damaged_one() {
        let header = SegmentHeader { version: 1, log_id: 1, number: 1, size: 4096 };
        let mut bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header), "the first one is read");
        bytes[8..10].copy_from_slice(&(VERSION + 1).to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Err(BadHeader::Damaged));
        let crc = crc32c::crc32c(&bytes[..508]);
        bytes[508..512].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Err(BadHeader::Newer(VERSION + 1)));
    }

    #[test]
    fn marks_seals_and_checkpoints_come_back() {
        let mark = mark(KEY, 512, 9, 8);
        assert_eq!(decode(KEY, 512, &mark), Ok(Item::Mark { seq: 9, durable: 8 }));
        assert!(resembles_mark(&mark));
        let seal = seal(KEY, 544, 9);
        assert_eq!(decode(KEY, 544, &seal), Ok(Item::Seal { seq: 9 }));
        assert!(!resembles_mark(&seal));
        let said = Checkpoint { needed: 4, stored_bytes: 96, newest_unix_ms: UNIX_MS_MAX };
        let checkpoint = checkpoint(KEY, 544, 9, said);
        let item = Item::Checkpoint { seq: 9, checkpoint: said };
        assert_eq!(decode(KEY, 544, &checkpoint), Ok(item));
        assert!(!resembles_mark(&checkpoint));
    }

    #[test]
    fn zeros_are_unwritten_and_nothing_else_is() {
        assert_eq!(decode(KEY, 512, &[0; 64]), Err(NoItem::Unwritten));
        assert_eq!(decode(KEY, 512, &[]), Err(NoItem::Unwritten));
        assert_eq!(decode(KEY, 512, &[0, 0, 1]), Err(NoItem::Damaged));
        let mut bytes = [0; 64];
        bytes[20] = 1;
        assert_eq!(decode(KEY, 512, &bytes), Err(NoItem::Damaged));
    }

    #[test]
    fn file_names_are_numbers_of_ten_digits() {
        assert_eq!(file_name(12), "0000000012.seg");
        assert_eq!(number_of("0000000012.seg"), Some(12));
        for name in ["12.seg", "0000000000.seg", "0000000012.seg.new", "+000000012.seg", "a.seg"] {
            assert_eq!(number_of(name), None, "{name}");
        }
        assert_eq!(number_of(&file_name(u32::MAX)), Some(u32::MAX));
    }

    proptest! {
        #[test]
        fn a_record_comes_back_from_its_place_and_from_no_other(
            payload in proptest::collection::vec(any::<u8>(), 0..100),
            (seq, unix_ms, kind) in (any::<u64>(), 0..=UNIX_MS_MAX, any::<u8>()),
            split in 0usize..100,
            flip in any::<prop::sample::Index>(),
        ) {
            let (a, b) = payload.split_at(split.min(payload.len()));
            let mut out = BytesMut::new();
            put_record(&mut out, KEY, 1024, (seq, unix_ms, kind), &[a, b]);
            let item = Item::Record { seq, unix_ms, kind, payload_bytes: payload.len() as u32 };
            prop_assert_eq!(out.len() as u32, item.span());
            prop_assert_eq!(decode(KEY, 1024, &out), Ok(item));
            prop_assert_eq!(&out[24..24 + payload.len()], &payload[..]);
            prop_assert_eq!(decode(KEY, 1032, &out), Err(NoItem::Damaged));
            prop_assert_eq!(decode(Key(1), 1024, &out), Err(NoItem::Damaged));
            prop_assert_eq!(decode(KEY, 1024, &out[..out.len() - 1]), Err(NoItem::Damaged));
            let bit = flip.index(out.len() * 8);
            out[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(decode(KEY, 1024, &out), Err(NoItem::Damaged));
        }

        #[test]
        fn arbitrary_bytes_are_never_taken_for_more_than_they_are(
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
            offset in any::<u32>(),
        ) {
            if let Ok(item) = decode(KEY, offset, &bytes) {
                prop_assert!(item.span() as usize <= bytes.len());
            }
            let _ = SegmentHeader::decode(&bytes);
        }
    }
}
