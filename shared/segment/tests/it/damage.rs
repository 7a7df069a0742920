//! Damage that no crash explains: flipped bits, zeroed and exchanged bytes, files that are gone.
//! Whatever the damage, no wrong payload is ever returned; damage below a durable mark opens the
//! log read-only with every byte left as it is; damage above it is cut.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use sextant_segment::{
    AppendError, Corruption, Durability, Log, OpenError, Options, ReadError, Recovery, SegmentId,
};

use crate::memory::{MemoryDisk, MemoryFiles};
use crate::rig::{Kept, Rig, small_options};

const DIR: &str = "/log";

fn segment_path(number: u32) -> PathBuf {
    Path::new(DIR).join(format!("{number:010}.seg"))
}

/// A log with two sealed segments, an active one and one that is ready.
struct Sample {
    disk: MemoryDisk,
    options: Options,
    kept: BTreeMap<u64, Kept>,
    /// In the active segment: the last commit, which no mark covers.
    last_commit: Range<usize>,
    /// The first record of that commit.
    last_commit_seq: u64,
    active: u32,
}

fn sample() -> Sample {
    let options = Options {
        segment_bytes_max: 4096,
        record_bytes_max: 600,
        ..small_options(Durability::Always)
    };
    let mut rig = Rig::open(MemoryFiles::default(), Path::new(DIR), options);
    let append = |rig: &mut Rig<MemoryFiles>, len: usize| {
        let payload: Vec<u8> = (0..len).map(|i| (i * 7 + len) as u8).collect();
        rig.append(len as u8, &payload, len as u64).expect("there is room").position
    };
    let mut len = 0;
    while rig.log.oldest().is_some_and(|oldest| oldest.id == SegmentId(1)) {
        len = (len + 37) % 300;
        let position = append(&mut rig, len);
        if len % 3 == 0 {
            rig.drain();
        }
        if position.segment == SegmentId(3) && position.offset > 2600 {
            break;
        }
    }
    rig.drain();
    let first = append(&mut rig, 100);
    append(&mut rig, 0);
    append(&mut rig, 33);
    rig.drain();
    let last_commit_seq = rig.log.last().0 - 2;
    let start = first.offset as usize - 32;
    let last_commit = start..start + 32 + 128 + 24 + 64;
    let names = rig.backend.disk.names();
    assert_eq!(names.len(), 4, "two sealed, one active, one ready: {names:?}");
    let (disk, options, kept) = (rig.backend.disk.clone(), rig.options, rig.kept);
    Sample { disk, options, kept, last_commit, last_commit_seq, active: 3 }
}

impl Sample {
    /// Opens a copy after a change to one of its files. Whatever it holds must be what was
    /// appended.
    fn opened(
        &self,
        number: u32,
        change: impl FnOnce(&mut Vec<u8>),
    ) -> (Log, Recovery, MemoryDisk) {
        let disk = self.disk.fork();
        disk.tamper(&segment_path(number), change);
        let before = contents(&disk);
        let (log, recovery) =
            Log::open(&disk, Path::new(DIR), self.options.clone()).expect("damage is no error");
        self.check(&log);
        if recovery.read_only.is_some() {
            assert_eq!(contents(&disk), before, "a damaged log is left as it is");
        }
        (log, recovery, disk)
    }

    /// Nothing wrong is returned, and what is returned is in order.
    fn check(&self, log: &Log) {
        let mut cursor = log.records();
        let mut next = 1;
        while let Some(record) = cursor.next(log) {
            let Ok(record) = record else {
                assert!(log.read_only().is_some());
                assert!(cursor.next(log).is_none());
                break;
            };
            let seq = record.seq.0;
            assert!(seq == next || (seq > next && log.read_only().is_some()), "{seq}, not {next}");
            assert_eq!(record.payload, self.kept[&seq].payload);
            next = seq + 1;
        }
        for (seq, kept) in &self.kept {
            match log.load(kept.position) {
                Ok(record) => {
                    assert_eq!(record.seq.0, *seq);
                    assert_eq!((record.kind, &record.payload[..]), (kept.kind, &kept.payload[..]));
                }
                Err(error) => {
                    assert!(log.read_only().is_some() || *seq >= self.last_commit_seq, "{error}");
                }
            }
        }
    }

    fn used(&self, number: u32) -> usize {
        let bytes = self.disk.bytes(&segment_path(number));
        bytes.iter().rposition(|byte| *byte != 0).expect("there is a header") + 1
    }
}

fn contents(disk: &MemoryDisk) -> Vec<(String, Vec<u8>)> {
    let read = |name: String| {
        let bytes = disk.bytes(&Path::new(DIR).join(&name));
        (name, bytes)
    };
    disk.names().into_iter().map(read).collect()
}

#[test]
fn a_flipped_bit_below_the_mark_makes_the_log_read_only_and_changes_nothing() {
    let sample = sample();
    for number in 1..=sample.active {
        let end = match number == sample.active {
            true => sample.last_commit.start,
            false => sample.used(number),
        };
        for at in 0..end {
            let (mut log, recovery, _) = sample.opened(number, |bytes| bytes[at] ^= 1 << (at % 8));
            assert!(recovery.read_only.is_some(), "byte {at} of segment {number}: {recovery:?}");
            assert_eq!(log.append(1, &[b"x"], 0), Err(AppendError::ReadOnly));
            assert!(log.is_settled());
        }
    }
}

#[test]
fn a_flipped_bit_in_the_last_commit_is_cut_and_nothing_below_is_lost() {
    let sample = sample();
    let last = sample.kept.len() as u64;
    for at in sample.last_commit.clone() {
        for bit in [0, 7] {
            let (_, recovery, disk) = sample.opened(sample.active, |bytes| bytes[at] ^= 1 << bit);
            assert_eq!(recovery.read_only, None, "byte {at}");
            assert!(recovery.torn_bytes > 0, "byte {at}: {recovery:?}");
            assert!((sample.last_commit_seq - 1..last).contains(&recovery.last.0), "byte {at}");
            assert_stays_repaired(&sample, &disk, &recovery);
        }
    }
}

/// Cut bytes are gone for good: the next opening finds nothing to cut, and the log goes on.
fn assert_stays_repaired(sample: &Sample, disk: &MemoryDisk, recovery: &Recovery) {
    let dir = Path::new(DIR);
    let (mut log, again) = Log::open(disk, dir, sample.options.clone()).expect("it opens");
    assert_eq!((again.torn_bytes, again.read_only), (0, None));
    assert_eq!((again.last, again.records), (recovery.last, recovery.records));
    let appended = log.append(9, &[b"after"], 9).expect("it goes on");
    assert_eq!(appended.seq.0, recovery.last.0 + 1);
    assert_eq!(log.load(appended.position).expect("just appended").payload, &b"after"[..]);
}

#[test]
fn a_flipped_bit_where_nothing_was_written_loses_nothing() {
    let sample = sample();
    let last = sample.kept.len() as u64;
    let places = (1..=sample.active + 1).flat_map(|number| {
        let used = if number > sample.active { 0 } else { sample.used(number) };
        let from = if number == sample.active { sample.last_commit.end } else { used };
        (from..4096).step_by(5).map(move |at| (number, at))
    });
    for (number, at) in places {
        let (_, recovery, disk) = sample.opened(number, |bytes| bytes[at] ^= 0x10);
        assert_eq!((recovery.read_only, recovery.last.0), (None, last), "{number}:{at}");
        assert_eq!(recovery.torn_bytes > 0, number == sample.active, "{number}:{at}");
        assert_stays_repaired(&sample, &disk, &recovery);
    }
}

#[test]
fn after_an_orderly_end_every_flipped_bit_of_every_record_is_corruption() {
    let mut sample = sample();
    let dir = Path::new(DIR);
    let (log, recovery) = Log::open(&sample.disk, dir, sample.options.clone()).expect("it opens");
    assert_eq!(recovery.last.0, sample.kept.len() as u64);
    drop(log);
    // The opening has marked what it found, as an orderly end does.
    sample.last_commit_seq = u64::MAX;
    for at in 0..sample.last_commit.end {
        let (_, recovery, _) = sample.opened(sample.active, |bytes| bytes[at] ^= 1 << (at % 8));
        assert!(recovery.read_only.is_some(), "byte {at}");
    }
    for at in sample.last_commit.end..sample.last_commit.end + 32 {
        let (_, recovery, _) = sample.opened(sample.active, |bytes| bytes[at] ^= 1 << (at % 8));
        assert_eq!(recovery.read_only, None, "only the mark is damaged");
        assert_eq!(recovery.last.0, sample.kept.len() as u64);
    }
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_and_stays_cut() {
    let sample = sample();
    for at in sample.last_commit.clone() {
        for fill in [0x00, 0xFF] {
            let (_, recovery, disk) =
                sample.opened(sample.active, |bytes| bytes[at..sample.last_commit.end].fill(fill));
            assert_eq!(recovery.read_only, None, "byte {at}");
            assert!(recovery.last.0 >= sample.last_commit_seq - 1);
            assert_stays_repaired(&sample, &disk, &recovery);
        }
    }
}

#[test]
fn a_hole_of_any_sector_below_the_mark_is_corruption() {
    let sample = sample();
    for number in 1..=sample.active {
        let end = match number == sample.active {
            true => sample.last_commit.start / 512 * 512,
            false => sample.used(number).next_multiple_of(512),
        };
        for at in (0..end).step_by(512) {
            let (_, recovery, _) = sample.opened(number, |bytes| bytes[at..at + 512].fill(0));
            assert!(recovery.read_only.is_some(), "byte {at} of segment {number}");
        }
    }
}

#[test]
fn a_segment_that_is_gone_is_corruption() {
    let sample = sample();
    for number in 2..=3 {
        let disk = sample.disk.fork();
        disk.unlink(&segment_path(number));
        // The one that was ready had no record, so with the active one gone it has to go as well.
        if number == 3 {
            disk.unlink(&segment_path(4));
        }
        let (log, recovery) =
            Log::open(&disk, Path::new(DIR), sample.options.clone()).expect("it opens");
        assert_eq!(recovery.read_only, Some(Corruption::Missing(SegmentId(number))));
        sample.check(&log);
        let lost = sample.kept.values().find(|kept| kept.position.segment.0 == number);
        let position = lost.expect("there were records").position;
        assert_eq!(log.load(position), Err(ReadError::Nowhere(position)));
    }
}

#[test]
fn the_active_segment_gone_from_before_a_ready_one_is_corruption() {
    let sample = sample();
    let disk = sample.disk.fork();
    disk.unlink(&segment_path(3));
    let (_, recovery) = Log::open(&disk, Path::new(DIR), sample.options).expect("it opens");
    assert_eq!(recovery.read_only, Some(Corruption::Missing(SegmentId(3))));
}

/// The numbers would begin anew, and with them everything that was ever told about the log.
#[test]
fn a_ready_segment_that_is_all_there_is_is_corruption() {
    let sample = sample();
    let disk = sample.disk.fork();
    (1..=3).for_each(|number| disk.unlink(&segment_path(number)));
    let (_, recovery) = Log::open(&disk, Path::new(DIR), sample.options).expect("it opens");
    let damaged = Corruption::Damaged { segment: SegmentId(4), offset: 512 };
    assert_eq!(recovery.read_only, Some(damaged));
}

#[test]
fn a_ready_segment_that_is_gone_is_no_loss() {
    let sample = sample();
    let disk = sample.disk.fork();
    disk.unlink(&segment_path(4));
    let (_, recovery) = Log::open(&disk, Path::new(DIR), sample.options).expect("it opens");
    assert_eq!((recovery.read_only, recovery.last.0), (None, sample.kept.len() as u64));
}

#[test]
fn a_segment_of_another_log_or_place_is_not_taken_for_ones_own() {
    let sample = sample();
    let other_disk = MemoryDisk::default();
    let other = Options { id: 1, ..sample.options.clone() };
    drop(Log::open(&other_disk, Path::new(DIR), other).expect("it opens"));
    let foreign = other_disk.bytes(&segment_path(1));
    let (_, recovery, _) = sample.opened(1, |bytes| *bytes = foreign.clone());
    assert_eq!(recovery.read_only, Some(Corruption::Foreign(SegmentId(2))));

    let second = sample.disk.bytes(&segment_path(2));
    let (_, recovery, _) = sample.opened(1, |bytes| *bytes = second.clone());
    assert_eq!(recovery.read_only, Some(Corruption::Header(SegmentId(1))));
}

#[test]
fn a_file_of_the_wrong_length_is_corruption() {
    let sample = sample();
    for number in 1..=sample.active {
        for len in [0, 100, 512, 2000, 4095, 4097, 8192] {
            let (_, recovery, _) = sample.opened(number, |bytes| bytes.resize(len, 0));
            let header = Corruption::Header(SegmentId(number));
            assert_eq!(recovery.read_only, Some(header), "{len}");
        }
    }
}

/// A payload is chosen by clients, who may know the format. What they cannot know is the log's id.
#[test]
fn a_record_inside_a_payload_or_at_another_offset_is_not_a_record() {
    let sample = sample();
    let (start, end) = (sample.last_commit.start, sample.last_commit.end);
    // All of the last commit again, behind the end, as stale bytes of an earlier use would be.
    let (_, recovery, _) = sample.opened(sample.active, |bytes| {
        let copy = bytes[start..end].to_vec();
        bytes[end..end + copy.len()].copy_from_slice(&copy);
    });
    assert_eq!((recovery.read_only, recovery.last.0), (None, sample.kept.len() as u64));
    assert_eq!(recovery.torn_bytes, (end - start) as u64 - 7, "the last byte was padding");
}

#[test]
fn a_segment_of_a_later_version_is_refused_and_left_alone() {
    let sample = sample();
    let disk = sample.disk.fork();
    disk.tamper(&segment_path(2), |bytes| {
        bytes[8] = 3;
        let crc = crc32c(&bytes[..508]);
        bytes[508..512].copy_from_slice(&crc.to_le_bytes());
    });
    let before = contents(&disk);
    let error = Log::open(&disk, Path::new(DIR), sample.options).expect_err("it is refused");
    assert!(matches!(error, OpenError::Version { segment: SegmentId(2), version: 3 }), "{error}");
    assert_eq!(contents(&disk), before);
}

/// CRC-32C a bit at a time, so that the format is not checked against its own library.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0x82F6_3B78 } else { 0 }
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_as_a_segment_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..6000),
        keep_header in any::<bool>(),
        number in 1u32..4,
    ) {
        // With every mark destroyed nothing tells what was durable.
        let sample = Sample { last_commit_seq: 0, ..sample() };
        let disk = sample.disk.fork();
        disk.tamper(&segment_path(number), |content| {
            let header = content[..512].to_vec();
            *content = bytes;
            if keep_header {
                content.resize(4096, 0);
                content[..512].copy_from_slice(&header);
            }
        });
        if let Ok((log, _)) = Log::open(&disk, Path::new(DIR), sample.options.clone()) {
            sample.check(&log);
        }
        // And as the only one.
        let alone = MemoryDisk::default();
        alone.place(&segment_path(number), &disk.bytes(&segment_path(number)));
        if let Ok((log, _)) = Log::open(&alone, Path::new(DIR), sample.options.clone()) {
            let mut cursor = log.records();
            while let Some(Ok(record)) = cursor.next(&log) {
                prop_assert_eq!(&record.payload[..], &sample.kept[&record.seq.0].payload[..]);
            }
        }
    }

    #[test]
    fn any_changes_of_any_bytes_never_bring_out_a_wrong_payload(
        changes in proptest::collection::vec((1u32..=4, 0usize..4096, any::<u8>()), 1..40),
    ) {
        let sample = Sample { last_commit_seq: 0, ..sample() };
        let disk = sample.disk.fork();
        for (number, at, byte) in changes {
            disk.tamper(&segment_path(number), |content| content[at] = byte);
        }
        if let Ok((log, _)) = Log::open(&disk, Path::new(DIR), sample.options.clone()) {
            sample.check(&log);
        }
    }

    #[test]
    fn a_position_that_nobody_was_given_is_an_error_or_a_record(bits in any::<u64>(), at in 0u32..4096) {
        let sample = sample();
        let (log, _) =
            Log::open(&sample.disk.fork(), Path::new(DIR), sample.options.clone()).expect("opens");
        let small = u64::from(at % 5) << 32 | u64::from(at);
        for bits in [bits, small] {
            let position = sextant_segment::Position::from_bits(bits);
            if let Ok(record) = log.load(position) {
                prop_assert_eq!(&record.payload[..], &sample.kept[&record.seq.0].payload[..]);
            }
        }
    }
}
