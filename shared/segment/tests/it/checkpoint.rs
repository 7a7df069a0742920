//! What an opening reads and does not read once it was told from where on, and what that does to
//! everything else that it finds out.

use std::path::{Path, PathBuf};

use fastrand::Rng;
use sextant_ring::driver::FileOp;
use sextant_segment::{
    AppendError, Corruption, Durability, Log, Options, ReadError, ReadOnly, SegmentId, Seq,
};

use crate::memory::MemoryFiles;
use crate::rig::{Backend, Rig, payload_of, small_options};

const DIR: &str = "/log";

fn path(number: u32) -> PathBuf {
    Path::new(DIR).join(format!("{number:010}.seg"))
}

fn rig() -> Rig<MemoryFiles> {
    let options = Options { segment_bytes_max: 4096, ..small_options(Durability::Always) };
    Rig::open(MemoryFiles::default(), Path::new(DIR), options)
}

/// Appends until that many segments stand before the active one, and all is written.
fn fill(rig: &mut Rig<MemoryFiles>, sealed: usize) {
    while rig.log.segments().filter(|info| info.sealed).count() < sealed {
        let seq = rig.log.last().0;
        match rig.append(seq as u8, &vec![seq as u8; (seq * 31 % 300) as usize], seq * 10) {
            Ok(_) => {}
            Err(AppendError::Backlog) => rig.drain(),
            Err(error) => panic!("{error}"),
        }
        if seq.is_multiple_of(3) {
            rig.drain();
        }
    }
    rig.drain();
}

/// Makes everything behind a segment's first sectors something else.
fn spoil(rig: &Rig<MemoryFiles>, number: u32) {
    rig.backend.disk.tamper(&path(number), |bytes| bytes[1024..].fill(0xA5));
}

fn first_of(rig: &Rig<MemoryFiles>, segment: u32) -> u64 {
    let is_in = |(seq, kept): (&u64, &crate::rig::Kept)| {
        (kept.position.segment == SegmentId(segment)).then_some(*seq)
    };
    rig.kept.iter().find_map(is_in).expect("the segment has a record")
}

#[test]
fn an_opening_reads_nothing_behind_the_first_items_of_segments_below_a_checkpoint() {
    let mut rig = rig();
    fill(&mut rig, 5);
    let from = first_of(&rig, 4) + 2;
    rig.checkpoint(from);
    rig.settle();
    let accounts: Vec<_> = rig.log.segments().collect();
    (1..=3).for_each(|number| spoil(&rig, number));
    let disk = rig.backend.disk.clone();
    let (log, recovery) = Log::open(&disk, &rig.dir, rig.options.clone()).expect("it opens");
    assert_eq!((recovery.read_only, recovery.from), (None, Seq(from)));
    assert_eq!((recovery.last, recovery.records), (rig.log.last(), rig.kept.len() as u64));
    let found: Vec<_> = log.segments().collect();
    assert_eq!(found, accounts, "what is in them is known without reading them");
    let mut cursor = log.records();
    for (seq, kept) in rig.kept.range(from..) {
        let record = cursor.next(&log).expect("it is there").expect("it is whole");
        assert_eq!((record.seq.0, &record.payload[..]), (*seq, &kept.payload[..]));
    }
    assert!(cursor.next(&log).is_none());
    // Whoever does read what nobody needs learns that it is damaged.
    let spoiled = rig.kept.values().find(|kept| kept.position.offset > 1024).expect("there is one");
    assert_eq!(log.load(spoiled.position), Err(ReadError::Corrupt(spoiled.position)));
}

#[test]
fn where_no_record_is_needed_reading_in_order_looks_at_no_old_segment() {
    let mut rig = rig();
    fill(&mut rig, 5);
    rig.checkpoint(rig.log.last().0 + 1);
    rig.settle();
    (1..=5).for_each(|number| spoil(&rig, number));
    let disk = rig.backend.disk.clone();
    let (mut log, recovery) = Log::open(&disk, &rig.dir, rig.options.clone()).expect("it opens");
    assert_eq!((recovery.read_only, recovery.from.0), (None, rig.log.last().0 + 1));
    let mut cursor = log.records();
    assert!(cursor.next(&log).is_none(), "none is needed, and none is damaged that is");
    log.append(1, &[b"next"], 1).expect("a sound log takes it");
    log.commit(&mut rig.backend, rig.now);
    while rig.backend.waiting() > 0 {
        let done = rig.backend.run(0);
        let _ = log.handle(done, &mut rig.backend, rig.now);
        log.commit(&mut rig.backend, rig.now);
    }
    let next = cursor.next(&log).expect("it is written").expect("it is whole");
    assert_eq!((next.seq, &next.payload[..]), (recovery.from, &b"next"[..]));
}

#[test]
fn damage_to_what_is_needed_is_found() {
    for number in 4..=5 {
        let mut rig = rig();
        fill(&mut rig, 5);
        rig.checkpoint(first_of(&rig, 4) + 2);
        rig.settle();
        spoil(&rig, number);
        let disk = rig.backend.disk.clone();
        let (log, recovery) = Log::open(&disk, &rig.dir, rig.options.clone()).expect("it opens");
        let told = recovery.read_only.expect("damage is told");
        assert!(
            matches!(told, Corruption::Damaged { segment, .. } if segment == SegmentId(number)),
            "{told:?} in {number}"
        );
        assert_eq!(log.read_only(), Some(ReadOnly::Corrupt(told)));
    }
}

#[test]
fn damage_to_the_first_items_of_a_segment_that_is_not_needed_is_found() {
    for offset in [520, 530, 550, 570] {
        for number in 2..=3 {
            let mut rig = rig();
            fill(&mut rig, 5);
            rig.checkpoint(first_of(&rig, 5));
            rig.settle();
            rig.backend.disk.tamper(&path(number), |bytes| bytes[offset] ^= 4);
            let disk = rig.backend.disk.clone();
            let opened = Log::open(&disk, &rig.dir, rig.options.clone());
            let (_, recovery) = opened.expect("damage is no error");
            assert!(recovery.read_only.is_some(), "byte {offset} of {number}");
        }
    }
}

#[test]
fn a_checkpoint_is_repeated_by_all_segments_behind_it() {
    let mut rig = rig();
    fill(&mut rig, 2);
    let from = rig.log.last().0;
    rig.checkpoint(from);
    fill(&mut rig, 6);
    assert_eq!(rig.reopen().from, Seq(from));
    fill(&mut rig, 8);
    rig.checkpoint(from - 1);
    rig.settle();
    assert_eq!(rig.reopen().from, Seq(from), "the highest holds");
    rig.checkpoint(u64::MAX);
    rig.settle();
    let next = Seq(rig.log.last().0 + 1);
    assert_eq!(rig.reopen().from, next, "nothing is needed");
    assert!(rig.log.records().next(&rig.log).is_none());
    fill(&mut rig, 9);
    assert_eq!(rig.reopen().from, next);
}

#[test]
fn a_checkpoint_is_durable_when_the_log_is_settled_and_no_crash_takes_it_then() {
    for (durability, seed) in [(Durability::Always, 1), (Durability::Os, 2)] {
        let options = small_options(durability);
        let mut rig = Rig::open(MemoryFiles::default(), Path::new(DIR), options);
        for _ in 0..3 {
            rig.append(1, b"x", 0).expect("there is room");
        }
        rig.checkpoint(3);
        assert!(!rig.log.is_settled());
        rig.settle();
        rig.backend.power_failure(&mut Rng::with_seed(seed), 0.0);
        assert_eq!(rig.reopen().from, Seq(3));
    }
}

/// A checkpoint that nothing follows changes nothing that was acknowledged.
#[test]
fn a_checkpoint_alone_is_one_commit_and_many_of_a_turn_are_one() {
    let mut rig = rig();
    for _ in 0..4 {
        rig.append(1, b"x", 0).expect("there is room");
    }
    rig.settle();
    (1..=4).for_each(|seq| rig.checkpoint(seq));
    rig.commit();
    let writes = rig.backend.waiting_ops().map(|op| match op {
        FileOp::WriteSync { buf, .. } => buf.len(),
        other => panic!("{other:?}"),
    });
    assert_eq!(writes.collect::<Vec<usize>>(), [32 + 40]);
    rig.drain();
    rig.checkpoint(4);
    rig.commit();
    assert_eq!(rig.backend.waiting_ops().count(), 0, "it was said before");
    assert_eq!(rig.reopen().from, Seq(4));
}

#[test]
fn checkpoints_leave_a_full_log_the_room_to_be_made_smaller() {
    for seed in 0..10 {
        let mut rng = Rng::with_seed(seed);
        let options = Options { bytes_max: 65536, ..small_options(Durability::Always) };
        let mut rig = Rig::open(MemoryFiles::default(), Path::new(DIR), options);
        let mut fulls = 0;
        for _ in 0..1500 {
            match rig.append(1, &payload_of(&mut rng, 1500), 0) {
                Ok(_) => rig.retire(rng.u64(1..=rig.log.last().0)),
                Err(AppendError::Backlog) => rig.drain(),
                Err(AppendError::Full) => {
                    fulls += 1;
                    // As many as anybody cares to ask for.
                    for seq in rig.checkpoint..(rig.checkpoint + 40).min(rig.log.last().0) {
                        rig.checkpoint(seq + 1);
                        rig.drain();
                    }
                    assert!(rig.compact_patiently(), "seed {seed}: no room to move anything");
                    rig.drain();
                }
                Err(error) => panic!("seed {seed}: {error}"),
            }
        }
        assert!(fulls > 10, "seed {seed}: {fulls}");
        rig.reopen();
    }
}

#[test]
fn a_log_that_is_read_only_takes_no_checkpoint() {
    let mut rig = rig();
    rig.append(1, b"x", 0).expect("there is room");
    rig.backend.fault = Some(Box::new(|op| {
        matches!(op, FileOp::WriteSync { .. }).then_some(std::io::ErrorKind::Other)
    }));
    rig.drain();
    assert_eq!(rig.log.checkpoint(Seq(1)), Err(rig.log.read_only().expect("it is poisoned")));
}

/// Segments of version 1 have no checkpoints: they stay as they are, and those behind them tell.
#[test]
fn a_log_of_version_1_goes_on_in_version_2() {
    let mut rig = rig();
    for _ in 0..5 {
        rig.append(1, &[1; 200], 7).expect("there is room");
    }
    rig.settle();
    let as_version_1 = |bytes: &mut Vec<u8>| {
        bytes[8..10].copy_from_slice(&1u16.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..508]);
        bytes[508..512].copy_from_slice(&crc.to_le_bytes());
    };
    rig.backend.disk.tamper(&path(1), as_version_1);
    assert_eq!(rig.reopen().from, Seq(1));
    // Its active segment cannot hold one; the next one does.
    rig.checkpoint(5);
    rig.settle();
    assert_eq!(rig.reopen().from, Seq(1));
    rig.checkpoint(5);
    fill(&mut rig, 3);
    let version = |rig: &Rig<MemoryFiles>, number| rig.backend.disk.bytes(&path(number))[8];
    assert_eq!((version(&rig, 1), version(&rig, 2)), (1, 2));
    assert_eq!(rig.reopen().from, Seq(5));
    rig.checkpoint(first_of(&rig, 3));
    rig.settle();
    spoil(&rig, 1);
    spoil(&rig, 2);
    let disk = rig.backend.disk.clone();
    let (_, recovery) = Log::open(&disk, &rig.dir, rig.options.clone()).expect("it opens");
    assert_eq!((recovery.read_only, recovery.from), (None, Seq(first_of(&rig, 3))));
}
