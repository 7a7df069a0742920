//! Whatever is changed in an audit is found, and it is said where.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use sextant_audit::{
    Damage, Expected, Hash, Head, OpenError, Position, Query, ReadError, Reader, Report, SegmentId,
    What, Writer, verify,
};
use sextant_segment::{Passed, Record, SegmentFile};

use crate::rig::{any_event, any_fact, check, open, rng, small};

fn segment_path(dir: &Path, segment: u32) -> PathBuf {
    dir.join(format!("{segment:010}.seg"))
}

/// A closed audit of so many small records in one segment.
fn small_audit(dir: &Path, records: u64) -> Head {
    let mut rng = rng();
    let (mut writer, ..) = open(dir, &small());
    for record in 0..records {
        if record % 3 == 2 {
            writer.event(&any_event(&mut rng, 1000)).expect("there is room");
        } else {
            let facts: Vec<_> = (0..20).map(|_| any_fact(&mut rng, 1000)).collect();
            writer.facts(&facts).expect("there is room");
            writer.flush().expect("nothing fails");
        }
    }
    assert_eq!(writer.head().seq, records);
    writer.close().expect("nothing fails")
}

/// A closed audit of several segments.
fn large_audit(dir: &Path) -> Head {
    let mut rng = rng();
    let (mut writer, ..) = open(dir, &small());
    fill(&mut writer, &mut rng, 200);
    writer.close().expect("nothing fails")
}

fn fill(writer: &mut Writer, rng: &mut fastrand::Rng, blocks: u64) {
    for block in 0..blocks {
        let facts: Vec<_> = (0..500).map(|_| any_fact(rng, 1000 + block)).collect();
        writer.facts(&facts).expect("there is room");
    }
}

fn report(dir: &Path, expected: Option<Head>) -> Report {
    verify(dir, expected, |_| ()).expect("it can be listed")
}

fn records(dir: &Path, segment: u32) -> Vec<Record> {
    let file = SegmentFile::open(dir, SegmentId(segment), 64 << 10).expect("it is a segment");
    let records = file.items().filter_map(|passed| match passed.expect("nothing is damaged") {
        Passed::Record(record) => Some(record),
        _ => None,
    });
    records.collect()
}

/// A segment's bytes, as somebody changes them who knows how checksums are made.
struct Forger {
    path: PathBuf,
    segment: u32,
    bytes: Vec<u8>,
}

impl Forger {
    fn open(dir: &Path, segment: u32) -> Forger {
        let path = segment_path(dir, segment);
        let bytes = fs::read(&path).expect("it is there");
        Forger { path, segment, bytes }
    }

    fn record(&mut self, record: &Record) -> &mut [u8] {
        let start = record.position.offset as usize;
        &mut self.bytes[start..start + record.stored_bytes() as usize]
    }

    fn number<const N: usize>(&self, at: usize) -> [u8; N] {
        self.bytes[at..at + N].try_into().expect("so many bytes are so many bytes")
    }

    /// Where the item at an offset ends.
    fn end(&self, at: usize) -> usize {
        at + (u32::from_le_bytes(self.number(at)) as usize).next_multiple_of(8)
    }

    /// Makes the checksum of the item at an offset right.
    fn sign(&mut self, offset: u32) {
        let at = offset as usize;
        let length = u32::from_le_bytes(self.number(at));
        let end = self.end(at);
        let mut signed = self.bytes[16..24].to_vec();
        signed.extend_from_slice(&self.segment.to_le_bytes());
        signed.extend_from_slice(&offset.to_le_bytes());
        signed.extend_from_slice(&length.to_le_bytes());
        signed.extend_from_slice(&self.bytes[at + 8..end]);
        let crc = crc32c::crc32c(&signed);
        self.bytes[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
    }

    fn write(&self) {
        fs::write(&self.path, &self.bytes).expect("it can be written");
    }
}

fn found(position: Position, what: What) -> Vec<Damage> {
    vec![Damage { position, what }]
}

#[test]
fn a_whole_audit_is_told_so_and_progress_is_too() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let head = large_audit(dir.path());
    let mut last = None;
    let report = verify(dir.path(), Some(head), |progress| last = Some(progress));
    let report = report.expect("it can be listed");
    assert_eq!((report.head, report.expected), (head, Some(Expected::Met)));
    assert_eq!((report.damage, report.torn), (Vec::new(), None));
    assert_eq!((report.records, report.facts, report.first_seq), (head.seq, 100_000, 1));
    assert!(fs::read_dir(dir.path()).expect("it is there").count() > 4);
    assert!(last.is_none_or(|last| last.records <= head.seq));
}

#[test]
fn each_changed_byte_of_an_audit_is_found() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let head = small_audit(dir.path(), 9);
    let path = segment_path(dir.path(), 1);
    let all = fs::read(&path).expect("it is there");
    let used = all.iter().rposition(|byte| *byte != 0).expect("it was written to") + 1;
    let file = fs::File::options().write(true).open(&path).expect("it can be written");
    let unused = (used..all.len()).step_by(997);
    for at in (0..used).chain(unused) {
        file.write_all_at(&[all[at] ^ 1 << (at % 8)], at as u64).expect("it can be written");
        let report = report(dir.path(), Some(head));
        assert!(!report.is_whole() || report.torn.is_some(), "byte {at} of {used}");
        file.write_all_at(&all[at..=at], at as u64).expect("it can be written");
    }
    assert!(report(dir.path(), Some(head)).is_whole());
    assert!(used > 2000, "{used}");
}

#[test]
fn the_record_that_is_changed_is_named() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let head = small_audit(dir.path(), 9);
    for record in records(dir.path(), 1) {
        let mut forger = Forger::open(dir.path(), 1);
        let byte = &mut forger.record(&record)[50];
        *byte ^= 1;
        forger.write();
        let seq = record.seq.0;
        let found = report(dir.path(), Some(head));
        let what = What::Changed { first: seq, next: seq + 1 };
        let mut expected = vec![Damage { position: record.position, what }];
        if seq == head.seq {
            assert_eq!(found.expected, Some(Expected::Missed));
        }
        expected.truncate(1);
        assert_eq!(found.damage, expected);
        assert_eq!(found.records, head.seq - 1);
        forger.record(&record)[50] ^= 1;
        forger.write();
    }
}

#[test]
fn a_record_changed_with_a_right_checksum_breaks_the_chain() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let head = small_audit(dir.path(), 9);
    let records = records(dir.path(), 1);
    let mut forger = Forger::open(dir.path(), 1);
    let event = &records[2];
    // A digit of its detail.
    let at = event.stored_bytes() as usize - 1;
    let at = forger.record(event)[..at].iter().rposition(u8::is_ascii_digit).expect("one");
    forger.record(event)[at] ^= 1;
    forger.sign(event.position.offset);
    forger.write();
    let broken = report(dir.path(), None);
    assert_eq!(broken.damage, found(records[3].position, What::Chain(3)));

    // The last record: nothing continues it but what was published.
    forger.record(event)[at] ^= 1;
    forger.sign(event.position.offset);
    let last = &records[8];
    let at = forger.record(last).iter().rposition(u8::is_ascii_digit).expect("one");
    forger.record(last)[at] ^= 1;
    forger.sign(last.position.offset);
    forger.write();
    assert!(report(dir.path(), None).is_whole());
    let missed = report(dir.path(), Some(head));
    assert_eq!(missed.damage, found(last.position, What::NotExpected(9)));
    assert_eq!(missed.expected, Some(Expected::Missed));

    // A time that is only in the header of the log's record.
    forger.record(last)[at] ^= 1;
    forger.record(last)[16] ^= 1;
    forger.sign(last.position.offset);
    forger.write();
    assert_eq!(report(dir.path(), Some(head)).damage, found(last.position, What::Time(9)));

    // A kind: facts are no event.
    forger.record(last)[16] ^= 1;
    forger.record(last)[22] = 1;
    forger.sign(last.position.offset);
    forger.write();
    assert_eq!(report(dir.path(), Some(head)).damage, found(last.position, What::Unreadable(9)));
}

#[test]
fn a_record_that_was_cut_out_and_two_that_were_exchanged_are_found() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let head = small_audit(dir.path(), 9);
    let records = records(dir.path(), 1);
    let whole = Forger::open(dir.path(), 1);

    // Nothing is there instead.
    let mut forger = Forger::open(dir.path(), 1);
    forger.record(&records[4]).fill(0);
    forger.write();
    let what = What::Changed { first: 5, next: 6 };
    assert_eq!(report(dir.path(), Some(head)).damage, found(records[4].position, what));

    // What follows moves up, with its checksums made right.
    let mut forger = Forger::open(dir.path(), 1);
    let start = records[4].position.offset as usize;
    let span = records[4].stored_bytes() as usize;
    forger.bytes.copy_within(start + span.., start);
    let end = forger.bytes.iter().rposition(|byte| *byte != 0).expect("not all is gone");
    let mut at = start;
    while at <= end {
        forger.sign(at as u32);
        at = forger.end(at);
    }
    forger.write();
    let cut = report(dir.path(), Some(head));
    let place = Position { segment: SegmentId(1), offset: start as u32 };
    assert_eq!(cut.damage, found(place, What::Missing { first: 5, next: 6 }));

    // And what follows is numbered anew.
    let mut at = start;
    while at <= end {
        let seq = u64::from_le_bytes(forger.number(at + 8));
        forger.bytes[at + 8..at + 16].copy_from_slice(&(seq - 1).to_le_bytes());
        forger.sign(at as u32);
        at = forger.end(at);
    }
    forger.write();
    let cut = report(dir.path(), Some(head));
    assert!(cut.damage.iter().any(|damage| damage.what == What::Chain(4)), "{:?}", cut.damage);
    assert_eq!(cut.expected, Some(Expected::Missed));

    // Two exchange their numbers.
    let mut forger = whole;
    for (record, seq) in [(&records[4], 6u64), (&records[5], 5)] {
        forger.record(record)[8..16].copy_from_slice(&seq.to_le_bytes());
        forger.sign(record.position.offset);
    }
    forger.write();
    let swapped = report(dir.path(), Some(head)).damage;
    assert!(swapped.iter().any(|damage| damage.what == What::OutOfOrder(5)), "{swapped:?}");
}

#[test]
fn an_end_that_was_cut_off_is_found_by_the_head_that_was_published() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let head = small_audit(dir.path(), 9);
    let last = records(dir.path(), 1).pop().expect("there are some");
    let before = report(dir.path(), None);
    let mut forger = Forger::open(dir.path(), 1);
    // With the mark that its commit begins with.
    forger.bytes[last.position.offset as usize - 32..].fill(0);
    forger.write();
    let cut = report(dir.path(), None);
    assert!(cut.is_whole() && cut.torn.is_none(), "nobody can know: {cut:?}");
    assert_eq!((cut.head.seq, before.head), (8, head));
    let cut = report(dir.path(), Some(head));
    assert_eq!(cut.expected, Some(Expected::Missed));
    let start = Position { segment: SegmentId(1), offset: 0 };
    assert_eq!(cut.damage, found(start, What::CutOff { first: 9, last: 9 }));
    let other = Head { seq: 3, hash: Hash([7; 32]) };
    let other = report(dir.path(), Some(other));
    assert!(matches!(other.damage[..], [Damage { what: What::NotExpected(3), .. }]));
}

#[test]
fn segments_that_are_missing_foreign_or_damaged_are_named() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let head = large_audit(dir.path());
    let start = |segment| Position { segment: SegmentId(segment), offset: 0 };
    let whats = |position| {
        let report = report(dir.path(), Some(head));
        let at = report.damage.into_iter().filter(|damage| damage.position == position);
        at.map(|damage| damage.what).collect::<Vec<What>>()
    };
    let (second, away) = (segment_path(dir.path(), 2), dir.path().join("away"));
    fs::rename(&second, &away).expect("it is there");
    assert_eq!(whats(start(2)), [What::SegmentMissing]);
    let of_another = tempfile::tempdir().expect("a temporary directory");
    large_audit(of_another.path());
    fs::copy(segment_path(of_another.path(), 2), &second).expect("there is room");
    assert_eq!(whats(start(2)), [What::Foreign]);
    fs::write(&second, b"nothing").expect("there is room");
    assert_eq!(whats(start(2)), [What::Segment]);
    fs::rename(&away, &second).expect("it is there");
    assert!(report(dir.path(), Some(head)).is_whole());

    // Its end: the seal and what is before it.
    let mut forger = Forger::open(dir.path(), 2);
    let last = records(dir.path(), 2).pop().expect("there are some");
    let end = last.position.offset as usize;
    forger.bytes[end..].fill(0);
    forger.write();
    assert_eq!(whats(last.position), [What::Unsealed]);
    let missing = report(dir.path(), Some(head)).damage;
    let what = What::Missing { first: last.seq.0, next: last.seq.0 + 1 };
    assert!(missing.iter().any(|damage| damage.what == what), "{missing:?}");

    let all = sextant_segment::segments_in(dir.path()).expect("it can be listed");
    let last = all.iter().rev().find(|segment| !records(dir.path(), segment.0).is_empty());
    let last = last.expect("not all are empty");
    for segment in all.iter().filter(|segment| *segment >= last) {
        fs::remove_file(segment_path(dir.path(), segment.0)).expect("it is there");
    }
    assert_eq!(whats(start(last.0))[0], What::SegmentMissing);
}

#[test]
fn of_a_damaged_audit_the_rest_is_still_read_and_nothing_is_added() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let head = large_audit(dir.path());
    let (writer, reader, opened) = open(dir.path(), &small());
    assert_eq!(opened.head, head);
    let damaged = records(dir.path(), 1).swap_remove(3);
    let mut forger = Forger::open(dir.path(), 1);
    forger.record(&damaged)[99] ^= 1;
    forger.write();
    let query = Query { limit: 10_000, ..Query::default() };
    let (mut entries, mut unreadable) = (0, Vec::new());
    let exported = reader.each(&query, |_| {
        entries += 1;
        std::ops::ControlFlow::Continue(())
    });
    unreadable.extend(exported.unreadable);
    assert_eq!(unreadable, [ReadError::Corrupt(damaged.position)]);
    assert_eq!(entries, 100_000 - 500);
    let scanned = reader.scan_facts(0, |_, _| ());
    assert_eq!((scanned.facts, scanned.unreadable.len()), (100_000 - 500, 1));
    drop(writer);
    // Damage in the segment that an opening reads.
    let last = sextant_segment::segments_in(dir.path()).expect("it can be listed");
    let last = last.iter().rev().find(|segment| !records(dir.path(), segment.0).is_empty());
    let last = last.expect("not all are empty").0;
    let first = records(dir.path(), last).swap_remove(0);
    let mut forger = Forger::open(dir.path(), last);
    forger.record(&first)[99] ^= 1;
    forger.write();
    let refused = Writer::open(dir.path(), small()).expect_err("it is damaged");
    assert!(matches!(refused, OpenError::Damaged(_)), "{refused}");
}

#[test]
fn at_rest_an_audit_is_read_without_a_writer_and_as_far_as_it_is_whole() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    large_audit(dir.path());
    let count = |reader: &Reader| {
        let counted = reader.each(&Query::default(), |_| std::ops::ControlFlow::Continue(()));
        let scanned = reader.scan_facts(0, |_, _| ());
        assert_eq!((counted.entries, scanned.facts), (scanned.facts, counted.entries));
        assert_eq!(counted.unreadable, scanned.unreadable);
        (counted.entries, counted.unreadable)
    };
    let at_rest = || Reader::open(dir.path()).expect("it can be listed");
    let before = fs::read_dir(dir.path()).expect("it is there").count();
    assert_eq!(count(&at_rest()), (100_000, Vec::new()));
    fs::remove_file(dir.path().join("0000000002.idx")).expect("it is there");
    assert_eq!(count(&at_rest()), (100_000, Vec::new()));
    assert_eq!(fs::read_dir(dir.path()).expect("it is there").count(), before - 1);
    let in_second = records(dir.path(), 2).len() as u64 * 500;
    fs::write(segment_path(dir.path(), 2), b"nothing").expect("there is room");
    let start = Position { segment: SegmentId(2), offset: 0 };
    assert_eq!(count(&at_rest()), (100_000 - in_second, vec![ReadError::Corrupt(start)]));
    assert!(matches!(Writer::open(dir.path(), small()), Err(OpenError::Damaged(_))));
}

/// As whoever knows how checksums are made may change what they are made of.
#[test]
fn whatever_a_record_says_nobody_panics_over_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let head = small_audit(dir.path(), 9);
    let records = records(dir.path(), 1);
    let whole = fs::read(segment_path(dir.path(), 1)).expect("it is there");
    let mut rng = rng();
    let (mut refused, mut unreadable) = (0, 0);
    for _ in 0..400 {
        let mut forger = Forger::open(dir.path(), 1);
        for _ in 0..rng.u32(1..4) {
            let record = &records[rng.usize(..records.len())];
            let bytes = forger.record(record);
            for _ in 0..rng.u32(1..5) {
                // Not of what fills it up to a multiple of eight bytes, which says nothing.
                let at = rng.usize(8..24 + record.payload.len());
                bytes[at] =
                    if rng.bool() { rng.u8(..) } else { [0, 0x7F, 0x80, 0xFF][rng.usize(..4)] };
            }
            forger.sign(record.position.offset);
        }
        forger.write();
        let report = report(dir.path(), Some(head));
        assert!(!report.is_whole() || report.torn.is_some() || forger.bytes == whole);
        let reader = Reader::open(dir.path()).expect("it can be listed");
        let query = Query { limit: 10_000, ..Query::default() };
        for newest_first in [false, true] {
            let page = reader.query(&Query { newest_first, ..query.clone() });
            assert!(page.entries.len() <= 400, "no more than was written");
            unreadable += page.unreadable.len();
        }
        let mut lines = Vec::new();
        reader.export(&query, &mut lines).expect("memory takes it");
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            serde_json::from_slice::<serde_json::Value>(line).expect("each line is JSON");
        }
        refused += u32::from(Writer::open(dir.path(), small()).is_err());
        fs::remove_dir_all(dir.path()).and_then(|()| fs::create_dir(dir.path())).expect("a test's");
        fs::write(segment_path(dir.path(), 1), &whole).expect("there is room");
    }
    assert!(refused > 50 && unreadable > 50, "{refused} refused, {unreadable} unreadable");
}

#[test]
fn beside_a_writer_and_its_retention_nothing_is_found_wrong() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let retention = sextant_audit::Retention { bytes_max: Some(768 << 10), age_max: None };
    let options = sextant_audit::Options { retention, ..small() };
    let (mut writer, reader, _) = open(dir.path(), &options);
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let verifies = scope.spawn(|| {
            let mut checked = 0;
            while !is_done.load(Ordering::Relaxed) {
                let report = report(dir.path(), None);
                assert!(report.is_whole(), "{:?}", report.damage);
                checked += report.records;
            }
            checked
        });
        let reads = scope.spawn(|| {
            let mut found = 0;
            while !is_done.load(Ordering::Relaxed) {
                let page = reader.query(&Query { message: Some(7), ..Query::default() });
                assert_eq!(page.unreadable, []);
                found += page.entries.len();
            }
            found
        });
        let mut rng = rng();
        for round in 0..600 {
            fill(&mut writer, &mut rng, 2);
            writer.tick(round).expect("nothing fails");
        }
        is_done.store(true, Ordering::Relaxed);
        assert!(verifies.join().expect("it found nothing") > 100);
        assert!(reads.join().expect("it found nothing") > 100);
    });
    check(dir.path(), &writer);
}
