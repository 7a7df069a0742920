//! Segments read by others than the log's owner.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use fastrand::Rng;
use sextant_segment::{
    BlockingLog, Durability, ItemsEnd, Options, Passed, Position, ReadError, SegmentFile,
    SegmentId, Seq, segments_in,
};

const RECORD_BYTES_MAX: u32 = 4 << 10;

fn options() -> Options {
    Options {
        segment_bytes_min: 16 << 10,
        segment_bytes_max: 16 << 10,
        record_bytes_max: RECORD_BYTES_MAX,
        durability: Durability::Os,
        ..Options::new(7, 3)
    }
}

fn payload(seq: u64) -> Vec<u8> {
    vec![seq as u8 | 1; (seq * 37 % 500) as usize + 1]
}

/// A log of so many records, each written by itself, and where they are.
fn written(dir: &Path, records: u64) -> (BlockingLog, Vec<(Position, u32)>) {
    let (mut log, _) = BlockingLog::open(dir, options()).expect("it opens");
    let places = (1..=records).map(|seq| {
        let appended = log.append(seq as u8, &[&payload(seq)], seq).expect("there is room");
        log.write().expect("the disk takes it");
        (appended.position, appended.stored_bytes)
    });
    let places = places.collect();
    (log, places)
}

fn open(dir: &Path, segment: SegmentId) -> SegmentFile {
    SegmentFile::open(dir, segment, RECORD_BYTES_MAX).expect("it is a segment")
}

fn path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:010}.seg"))
}

fn overwrite(dir: &Path, number: u32, offset: u32, bytes: &[u8]) {
    let file = fs::File::options().write(true).open(path(dir, number)).expect("it is there");
    file.write_all_at(bytes, u64::from(offset)).expect("it can be written");
}

/// The numbers of the records that are passed.
fn seqs(passed: impl Iterator<Item = Passed>) -> Vec<u64> {
    let record = |passed| match passed {
        Passed::Record(record) => {
            assert_eq!(record.payload, payload(record.seq.0), "of record {}", record.seq);
            assert_eq!((record.kind, record.unix_ms), (record.seq.0 as u8, record.seq.0));
            Some(record.seq.0)
        }
        _ => None,
    };
    passed.filter_map(record).collect()
}

#[test]
fn beside_its_owner_a_log_is_read_record_by_record_and_from_end_to_end() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (mut log, places) = written(dir.path(), 200);
    for (seq, (position, stored_bytes)) in (1..).zip(&places) {
        let file = open(dir.path(), position.segment);
        for guess in [0, *stored_bytes, u32::MAX] {
            let record = file.read(position.offset, guess).expect("it is there");
            assert_eq!((record.seq, &record.payload[..]), (Seq(seq), &payload(seq)[..]));
        }
        let elsewhere = file.read(position.offset + 8, 100);
        assert!(elsewhere.is_err(), "no record begins there");
    }
    let mut found = Vec::new();
    for segment in segments_in(dir.path()).expect("it can be listed") {
        let file = open(dir.path(), segment);
        let mut items = file.items();
        found.extend(seqs(items.by_ref().map(|passed| passed.expect("nothing is damaged"))));
        let sealed = log.log().segments().any(|info| info.id == segment && info.sealed);
        let end = if sealed { ItemsEnd::Sealed } else { ItemsEnd::Unwritten };
        assert_eq!(items.end(), Some(end));
        assert!(items.is_rest_zero().expect("it can be read"));
    }
    assert_eq!(found, (1..=200).collect::<Vec<u64>>());
    let oldest = log.log().oldest().expect("there is one").id;
    log.log_mut().remove_when_durable(oldest, Seq(0)).expect("it is the oldest");
    log.write().expect("nothing failed");
    let gone = SegmentFile::open(dir.path(), oldest, RECORD_BYTES_MAX).expect_err("it is gone");
    assert_eq!(gone, ReadError::Removed(Position { segment: oldest, offset: 0 }));
}

#[test]
fn a_way_that_ended_goes_on_when_more_was_written() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (mut log, _) = written(dir.path(), 3);
    let file = open(dir.path(), SegmentId(1));
    let mut items = file.items();
    assert_eq!(seqs(items.by_ref().map(|passed| passed.expect("nothing is damaged"))), [1, 2, 3]);
    log.append(4, &[&payload(4)], 4).expect("there is room");
    log.write().expect("the disk takes it");
    assert_eq!(items.next(), None, "an end is an end");
    let rest = file.items_from(items.place().offset);
    assert_eq!(seqs(rest.map(|passed| passed.expect("nothing is damaged"))), [4]);
    assert_eq!(file.items_from(u32::MAX).next(), None);
}

#[test]
fn marks_tell_what_was_durable() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (log, _) = written(dir.path(), 10);
    log.close().expect("nothing failed");
    let file = open(dir.path(), SegmentId(1));
    let last = file.items().map(|passed| passed.expect("nothing is damaged")).last();
    assert_eq!(last, Some(Passed::Mark { next: Seq(11), durable: Seq(10) }));
}

#[test]
fn what_is_damaged_is_told_once_and_passed_over() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (log, places) = written(dir.path(), 20);
    log.close().expect("nothing failed");
    let (third, fourth) = (places[2].0, places[3].0);
    overwrite(dir.path(), 1, third.offset + 24, b"\0");
    let file = open(dir.path(), SegmentId(1));
    assert_eq!(file.read(third.offset, 100), Err(ReadError::Corrupt(third)));
    let mut items = file.items();
    let mut found = Vec::new();
    let error = loop {
        match items.next().expect("the damage is still to come") {
            Ok(passed) => found.push(passed),
            Err(error) => break error,
        }
    };
    assert_eq!((error, items.next()), (ReadError::Corrupt(third), None));
    assert_eq!(seqs(found.into_iter()), [1, 2]);
    assert!(items.skip_damage().expect("it can be read"));
    // The commit of the fourth begins with its mark.
    assert_eq!(items.place().offset, fourth.offset - 32);
    let rest = seqs(items.map(|passed| passed.expect("the rest is whole")));
    assert_eq!(rest, (4..=20).collect::<Vec<u64>>());
}

#[test]
fn a_sector_of_zeros_looks_unwritten_and_is_passed_over() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (log, _) = written(dir.path(), 20);
    log.close().expect("nothing failed");
    overwrite(dir.path(), 1, 512, &[0; 512]);
    let file = open(dir.path(), SegmentId(1));
    let mut items = file.items();
    assert_eq!((items.next(), items.end()), (None, Some(ItemsEnd::Unwritten)));
    assert!(!items.is_rest_zero().expect("it can be read"));
    assert!(items.skip_damage().expect("it can be read"));
    let rest = seqs(items.by_ref().map(|passed| passed.expect("the rest is whole")));
    assert_eq!(rest.last(), Some(&20));
    assert!(!items.skip_damage().expect("it can be read"), "nothing is behind the end");
}

#[test]
fn a_header_that_is_not_the_segments_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    drop(written(dir.path(), 3));
    let refused = |number| {
        let refused = SegmentFile::open(dir.path(), SegmentId(number), RECORD_BYTES_MAX);
        let position = Position { segment: SegmentId(number), offset: 0 };
        assert_eq!(refused.expect_err("it is none"), ReadError::Corrupt(position));
    };
    fs::copy(path(dir.path(), 1), path(dir.path(), 2)).expect("there is room");
    refused(2);
    fs::write(path(dir.path(), 3), b"SXTNTSEG").expect("there is room");
    refused(3);
    fs::File::options()
        .write(true)
        .open(path(dir.path(), 1))
        .and_then(|file| file.set_len(8192))
        .expect("it can be cut");
    refused(1);
}

#[test]
fn a_record_longer_than_the_reader_takes_is_damage() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (mut log, _) = BlockingLog::open(dir.path(), options()).expect("it opens");
    let position = log.append(1, &[&[1; 2000]], 0).expect("there is room").position;
    log.flush().expect("the disk takes it");
    let file = SegmentFile::open(dir.path(), SegmentId(1), 1000).expect("it is a segment");
    assert_eq!(file.read(position.offset, 2024), Err(ReadError::Corrupt(position)));
    let last = file.items().last();
    assert_eq!(last, Some(Err(ReadError::Corrupt(position))));
}

#[test]
fn of_random_bytes_nothing_is_a_record_and_the_search_ends() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = Rng::with_seed(seed);
    let dir = tempfile::tempdir().expect("a temporary directory");
    drop(written(dir.path(), 3));
    for round in 0..20 {
        let mut bytes: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(15 << 10).collect();
        if round % 2 == 0 {
            // Each word may begin an item.
            bytes
                .chunks_exact_mut(8)
                .for_each(|word| word[..4].copy_from_slice(&900u32.to_le_bytes()));
        }
        overwrite(dir.path(), 1, 512, &bytes);
        let file = open(dir.path(), SegmentId(1));
        let mut items = file.items();
        assert!(matches!(items.next(), Some(Err(ReadError::Corrupt(_)))));
        assert!(!items.skip_damage().expect("it can be read"));
        assert_eq!(items.end(), Some(ItemsEnd::Damaged));
        let offset = rng.u32(..);
        assert!(file.read(offset, rng.u32(..)).is_err(), "at {offset}");
    }
}
