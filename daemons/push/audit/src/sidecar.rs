//! A sealed segment's index in a file beside it: `0000000042.idx` of `0000000042.seg`. It is
//! derived from the segment, and made anew from it where it is missing or damaged.
//!
//! ```text
//!   0        96                                                     end
//!   ┌────────┬─────────┬─────────┬─ ─┬─────────────────────────────┐
//!   │ header │ summary │ summary │   │ filters                     │
//!   └────────┴─────────┴─────────┴─ ─┴─────────────────────────────┘
//!              88 bytes each            as the summaries say
//! ```
//!
//! Numbers are little-endian. The header has a checksum of its own, so that an opening can tell
//! what a segment holds from its first bytes; all behind it has another.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sextant_ring::disk::{Disk, HostDisk};
use sextant_segment::SegmentId;

use crate::fact::Stages;
use crate::index::{Chunk, Filters, Kind, Summary};

const MAGIC: [u8; 8] = *b"SXTNTAIX";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 96;
const SUMMARY_BYTES: usize = 88;
const SUFFIX: &str = ".idx";

/// What its header says of a sidecar's segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) segment: u32,
    pub(crate) log_id: u64,
    /// The number of the segment's first record, and how many there are.
    pub(crate) first_seq: u64,
    pub(crate) records: u64,
    pub(crate) facts: u64,
    pub(crate) first_at: u64,
    pub(crate) last_at: u64,
}

/// Why there is no sidecar to be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SidecarError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it is damaged, or of something else")]
    Damaged,
}

/// The file of a segment's sidecar.
pub(crate) fn path(dir: &Path, segment: SegmentId) -> PathBuf {
    dir.join(format!("{:010}{SUFFIX}", segment.0))
}

/// The segment that a file is the sidecar of, or was to be.
pub(crate) fn segment_of(name: &str) -> Option<SegmentId> {
    let digits = name.strip_suffix(".new").unwrap_or(name).strip_suffix(SUFFIX)?;
    let is_number = digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().ok()).flatten().map(SegmentId)
}

/// Writes a sidecar, durably, in one step.
pub(crate) fn write(dir: &Path, head: Head, chunk: &Chunk) -> io::Result<()> {
    HostDisk.replace(&path(dir, SegmentId(head.segment)), &encode(head, chunk))
}

/// Removes the sidecar of a segment that is gone, if there is one. One that stays is removed by the
/// next opening.
pub(crate) fn remove(dir: &Path, segment: SegmentId) {
    match fs::remove_file(path(dir, segment)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(segment = segment.0, %error, "an index could not be removed");
        }
        _ => {}
    }
}

fn encode(head: Head, chunk: &Chunk) -> Vec<u8> {
    let body_bytes = chunk.summaries.len() * SUMMARY_BYTES + chunk.filters.len();
    let mut out = Vec::with_capacity(HEAD_BYTES + body_bytes);
    out.resize(HEAD_BYTES, 0);
    chunk.summaries.iter().for_each(|summary| put_summary(&mut out, summary));
    out.extend_from_slice(&chunk.filters);
    let crc = crc32c::crc32c(&out[HEAD_BYTES..]);
    let (summaries, filter_bytes) = (chunk.summaries.len() as u64, chunk.filters.len() as u64);
    out[..HEAD_BYTES].copy_from_slice(&head.encode(summaries, filter_bytes, crc));
    out
}

/// Appends numbers.
#[derive(Default)]
struct Put(Vec<u8>);

impl Put {
    fn u16(&mut self, value: u16) -> &mut Put {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn u32(&mut self, value: u32) -> &mut Put {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn u64(&mut self, value: u64) -> &mut Put {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }
}

/// Reads numbers from bytes of which there are enough.
struct Take<'a>(&'a [u8]);

impl Take<'_> {
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let (bytes, rest) = self.0.split_first_chunk().expect("its length was looked at before");
        self.0 = rest;
        *bytes
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.bytes())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }
}

impl Head {
    /// The number of the first record behind the segment.
    pub(crate) fn next_seq(&self) -> u64 {
        self.first_seq.saturating_add(self.records)
    }

    fn encode(self, summaries: u64, filter_bytes: u64, body_crc: u32) -> [u8; HEAD_BYTES] {
        let mut put = Put(MAGIC.to_vec());
        put.u32(VERSION).u32(self.segment).u64(self.log_id);
        put.u64(self.first_seq).u64(self.records).u64(self.facts);
        put.u64(self.first_at).u64(self.last_at);
        put.u64(summaries).u64(filter_bytes);
        put.u32(body_crc);
        put.0.resize(HEAD_BYTES - 4, 0);
        let crc = crc32c::crc32c(&put.0);
        put.u32(crc);
        put.0.try_into().expect("it was filled up to this length")
    }

    /// The header, and what it says of what follows: summaries, bytes of filters, checksum.
    fn decode(bytes: &[u8]) -> Option<(Head, u64, u64, u32)> {
        let bytes = bytes.first_chunk::<HEAD_BYTES>()?;
        let crc = Take(&bytes[HEAD_BYTES - 4..]).u32();
        if bytes[..8] != MAGIC || crc != crc32c::crc32c(&bytes[..HEAD_BYTES - 4]) {
            return None;
        }
        let mut take = Take(&bytes[8..]);
        if take.u32() != VERSION {
            return None;
        }
        let head = Head {
            segment: take.u32(),
            log_id: take.u64(),
            first_seq: take.u64(),
            records: take.u64(),
            facts: take.u64(),
            first_at: take.u64(),
            last_at: take.u64(),
        };
        Some((head, take.u64(), take.u64(), take.u32()))
    }
}

fn put_summary(out: &mut Vec<u8>, summary: &Summary) {
    let start = out.len();
    let mut put = Put(std::mem::take(out));
    put.u64(summary.seq).u32(summary.offset).u32(summary.stored_bytes);
    put.u64(summary.message_min).u64(summary.message_max);
    put.u64(summary.first_at).u64(summary.last_at).u64(summary.app_bits);
    put.u32(summary.facts).u32(summary.device_min).u32(summary.device_max);
    put.u32(summary.filter_at).u16(summary.message_blocks).u16(summary.device_blocks);
    put.u16(summary.app_min).u16(summary.app_max).u16(summary.stages.bits());
    put.u16(summary.kind as u16);
    put.0.resize(start + SUMMARY_BYTES, 0);
    *out = put.0;
}

fn take_summary(bytes: &[u8]) -> Option<Summary> {
    let mut take = Take(bytes);
    let (seq, offset, stored_bytes) = (take.u64(), take.u32(), take.u32());
    let (message_min, message_max) = (take.u64(), take.u64());
    let (first_at, last_at, app_bits) = (take.u64(), take.u64(), take.u64());
    let (facts, device_min, device_max) = (take.u32(), take.u32(), take.u32());
    let (filter_at, message_blocks, device_blocks) = (take.u32(), take.u16(), take.u16());
    let (app_min, app_max, stages) = (take.u16(), take.u16(), Stages::from_bits(take.u16()));
    let code = take.u16();
    let kind = [Kind::Facts, Kind::Event].into_iter().find(|kind| *kind as u16 == code)?;
    Some(Summary {
        seq,
        kind,
        offset,
        stored_bytes,
        facts,
        message_min,
        message_max,
        device_min,
        device_max,
        first_at,
        last_at,
        app_min,
        app_max,
        app_bits,
        stages,
        filter_at,
        message_blocks,
        device_blocks,
    })
}

/// What the header of a segment's sidecar says, without a look at the rest.
pub(crate) fn head(dir: &Path, segment: SegmentId) -> Result<Head, SidecarError> {
    let mut bytes = [0; HEAD_BYTES];
    fs::File::open(path(dir, segment))?.read_exact_at(&mut bytes, 0)?;
    let (head, ..) = Head::decode(&bytes).ok_or(SidecarError::Damaged)?;
    (head.segment == segment.0).then_some(head).ok_or(SidecarError::Damaged)
}

/// Reads a sidecar whose header was `expected`. The filters stay in the file, which is mapped:
/// it is replaced by others, and never written to.
pub(crate) fn load(dir: &Path, expected: &Head) -> Result<Chunk, SidecarError> {
    let view = HostDisk.view(&path(dir, SegmentId(expected.segment)))?;
    let all = view.bytes(0, usize::try_from(view.len()).map_err(|_| SidecarError::Damaged)?);
    decode(&all, expected).ok_or(SidecarError::Damaged)
}

fn decode(all: &bytes::Bytes, expected: &Head) -> Option<Chunk> {
    let (head, summaries, filter_bytes, crc) = Head::decode(all)?;
    let body = &all[HEAD_BYTES..];
    let summary_bytes = summaries.checked_mul(SUMMARY_BYTES as u64)?;
    let fits = summary_bytes.checked_add(filter_bytes)? == body.len() as u64;
    if head != *expected || !fits || crc != crc32c::crc32c(body) {
        return None;
    }
    let (summaries, _) = body.split_at_checked(usize::try_from(summary_bytes).ok()?)?;
    let filters = all.slice(HEAD_BYTES + summaries.len()..);
    let summaries = summaries.chunks_exact(SUMMARY_BYTES).map(take_summary);
    let summaries = summaries.collect::<Option<Vec<Summary>>>()?;
    let in_order = summaries.is_sorted_by(|a, b| a.seq < b.seq);
    in_order.then_some(Chunk { summaries, filters: Filters::Mapped(filters), damaged: false })
}

/// For fuzzing: any bytes as the summaries and filters of an index, signed as whoever can compute a
/// checksum would. The first byte is the number of summaries. Whatever they say can be asked.
#[doc(hidden)]
pub fn fuzz_index(bytes: &[u8]) {
    let Some((summaries, body)) = bytes.split_first() else { return };
    let summaries = u64::from(*summaries);
    let filter_bytes = (body.len() as u64).wrapping_sub(summaries * SUMMARY_BYTES as u64);
    let head = Head {
        segment: 7,
        log_id: 8,
        first_seq: 1,
        records: summaries,
        facts: u64::MAX,
        first_at: 0,
        last_at: u64::MAX,
    };
    let signed = head.encode(summaries, filter_bytes, crc32c::crc32c(body));
    let all = bytes::Bytes::from([&signed, body].concat());
    let Some(chunk) = decode(&all, &head) else { return };
    for summary in &chunk.summaries {
        let query = crate::Query {
            message: Some(summary.message_max),
            device: Some(summary.device_max),
            ..crate::Query::default()
        };
        let _ = summary.may_match(&query, &chunk.filters);
    }
    assert_eq!(encode(head, &chunk).len(), all.len());
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::fact::{Event, EventKind, Fact, Stage};
    use crate::index::{ChunkBuilder, Place};

    const HEAD: Head = Head {
        segment: 7,
        log_id: 8,
        first_seq: 1,
        records: 3,
        facts: 300,
        first_at: 5,
        last_at: 6,
    };

    fn chunk() -> Chunk {
        let mut builder = ChunkBuilder::default();
        for seq in [1u64, 2] {
            let facts: Vec<Fact> = (0..150u32)
                .map(|n| Fact {
                    message: 1000 * seq + u64::from(n) * 9,
                    at: 5,
                    device: n * 77,
                    app: 70 + n as u16 % 3,
                    stage: Stage::Dropped,
                    reason: 3,
                })
                .collect();
            builder.push_facts(&facts, Place { seq, offset: 600, stored_bytes: 900 });
        }
        let (actor, detail) = ("me".into(), (*b"{}").into());
        let event = Event { message: 4, at: 6, app: 1, kind: EventKind(2), actor, detail };
        builder.push_event(&event, Place { seq: 3, offset: 1600, stored_bytes: 90 });
        builder.finish()
    }

    #[test]
    fn a_sidecar_comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let chunk = chunk();
        write(dir.path(), HEAD, &chunk).unwrap();
        assert_eq!(head(dir.path(), SegmentId(7)).unwrap(), HEAD);
        let back = load(dir.path(), &HEAD).unwrap();
        assert_eq!(back.summaries, chunk.summaries);
        assert_eq!(back.filters[..], chunk.filters[..]);
        assert!(!back.filters.is_empty());
        assert!(load(dir.path(), &Head { facts: 301, ..HEAD }).is_err(), "of something else");
        assert!(matches!(head(dir.path(), SegmentId(8)), Err(SidecarError::Io(_))));
    }

    #[test]
    fn no_flipped_bit_and_no_cut_goes_unseen() {
        let whole = encode(HEAD, &chunk());
        assert!(decode(&Bytes::from(whole.clone()), &HEAD).is_some());
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            assert!(decode(&Bytes::from(flipped), &HEAD).is_none(), "byte {at}");
            assert!(decode(&Bytes::from(whole[..at].to_vec()), &HEAD).is_none(), "cut at {at}");
        }
    }

    #[test]
    fn names_are_told_from_others() {
        let name = |text: &str| segment_of(text).map(|segment| segment.0);
        assert_eq!(name("0000000042.idx"), Some(42));
        assert_eq!(name("0000000042.idx.new"), Some(42));
        for other in ["0000000042.seg", "42.idx", "+000000042.idx", "9999999999.idx", ".idx"] {
            assert_eq!(name(other), None, "{other}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn a_signed_sidecar_may_say_anything_and_panics_nobody(
            mut bytes in proptest::collection::vec(any::<u8>(), 1..1000)
        ) {
            bytes[0] %= 12;
            fuzz_index(&bytes);
        }
    }
}
