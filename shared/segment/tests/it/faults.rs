//! Operations that fail. A failed write or sync of records poisons the log; a segment that cannot
//! be prepared or removed is tried again. Neither takes anything back that was promised.

use std::cell::Cell;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use sextant_ring::driver::{FileOp, OpenMode};
use sextant_segment::{AppendError, Durability, OpenError, Options, ReadOnly, SegmentId};

use crate::memory::{Fault, MemoryDisk, MemoryFiles};
use crate::rig::{Rig, small_options};

const DIR: &str = "/log";

fn rig(durability: Durability) -> Rig<MemoryFiles> {
    Rig::open(MemoryFiles::default(), Path::new(DIR), small_options(durability))
}

/// Fails the operations for which `picks` says so.
fn failing(kind: ErrorKind, mut picks: impl FnMut(&FileOp) -> bool + 'static) -> Option<Fault> {
    Some(Box::new(move |op| picks(op).then_some(kind)))
}

fn is_record_write(op: &FileOp) -> bool {
    matches!(op, FileOp::WriteSync { .. })
}

/// Appends, commits and runs until there are `segments` segments behind the log, or it stops.
fn work(rig: &mut Rig<MemoryFiles>, segments: u32) {
    for step in 0..2000u32 {
        let payload = vec![step as u8; (step * 31 % 400) as usize];
        match rig.append(1, &payload, 0) {
            Ok(appended) if appended.position.segment.0 > segments => break,
            Ok(_) | Err(AppendError::Backlog) => {}
            Err(AppendError::ReadOnly) => break,
            Err(AppendError::Full) => {
                rig.compact();
                rig.now = rig.now + Duration::from_secs(1);
            }
            Err(error) => panic!("{error}"),
        }
        rig.commit();
        for _ in 0..3 {
            rig.run(0);
        }
    }
    rig.drain();
}

#[test]
fn a_failed_sync_poisons_the_log_for_good() {
    let mut rig = rig(Durability::Always);
    rig.append(1, b"safe", 0).expect("there is room");
    rig.drain();
    rig.backend.fault = failing(ErrorKind::Other, is_record_write);
    let lost = rig.append(1, b"lost", 0).expect("it is not known yet").position;
    rig.drain();
    assert!(rig.progress.poisoned);
    let poisoned = ReadOnly::Poisoned { segment: SegmentId(1), kind: ErrorKind::Other };
    assert_eq!(rig.log.read_only(), Some(poisoned));
    assert_eq!((rig.ackable, rig.log.last().0), (1, 2));

    rig.backend.fault = None;
    assert_eq!(rig.append(1, b"more", 0), Err(AppendError::ReadOnly));
    rig.drain();
    assert_eq!(rig.log.ackable().0, 1, "it is not tried again");
    assert_eq!(rig.log.load(lost).expect("it is still in memory").payload, &b"lost"[..]);
    assert_eq!(rig.log.deadline(), None);
    rig.verify();
}

/// After a failed sync the kernel takes its pages for clean, and shows them although the disk does
/// not have them. An opening that found such records must not trust a mere sync.
#[test]
fn records_found_after_a_failed_sync_are_written_again() {
    let mut rig = rig(Durability::Always);
    rig.append(1, b"safe", 0).expect("there is room");
    rig.drain();
    rig.backend.fault = failing(ErrorKind::Other, is_record_write);
    rig.append(1, &[7; 1400], 0).expect("it is not known yet");
    rig.drain();
    let recovery = rig.reopen();
    assert_eq!((recovery.last.0, recovery.torn_bytes), (2, 0), "the cache still shows it");
    rig.backend.power_failure(&mut Rng::with_seed(1), 0.0);
    assert_eq!(rig.reopen().last.0, 2);
}

#[test]
fn commits_found_after_a_failed_sync_of_all_of_them_are_written_again() {
    let mut rig = rig(Durability::Os);
    for _ in 0..6 {
        rig.append(1, &[7; 400], 0).expect("there is room");
        rig.drain();
    }
    assert_eq!((rig.ackable, rig.durable), (6, 0));
    rig.backend.fault = failing(ErrorKind::Other, |op| matches!(op, FileOp::Sync { .. }));
    rig.log.settle();
    rig.drain();
    assert!(rig.progress.poisoned);
    assert_eq!(rig.reopen().last.0, 6);
    rig.backend.power_failure(&mut Rng::with_seed(1), 0.0);
    assert_eq!(rig.reopen().last.0, 6);
}

#[test]
fn every_operation_may_fail_and_no_promise_is_broken() {
    for durability in
        [Durability::Always, Durability::Every(Duration::from_millis(1)), Durability::Os]
    {
        let mut poisonings = 0;
        for nth in 0.. {
            let mut rig = rig(durability);
            let count = Rc::new(Cell::new(0));
            let counter = count.clone();
            rig.backend.fault = failing(ErrorKind::Other, move |_| {
                counter.set(counter.get() + 1);
                counter.get() == nth + 1
            });
            work(&mut rig, 4);
            rig.now = rig.now + Duration::from_secs(60);
            rig.drain();
            let poisoned = rig.log.read_only().is_some();
            poisonings += u32::from(poisoned);
            assert_eq!(rig.progress.poisoned, poisoned);
            assert!(poisoned || rig.log.segments().count() > 1, "the log goes on");
            rig.verify();
            rig.backend.power_failure(&mut Rng::with_seed(nth), 0.5);
            rig.reopen();
            if count.get() <= nth {
                break;
            }
        }
        assert!(poisonings > 3, "{durability:?}: {poisonings}");
    }
}

#[test]
fn a_segment_that_cannot_be_opened_for_writing_poisons_the_log() {
    let mut rig = rig(Durability::Always);
    rig.backend.fault = failing(ErrorKind::PermissionDenied, |op| {
        matches!(op, FileOp::Open { mode: OpenMode::Write, .. })
    });
    rig.append(1, b"x", 0).expect("it is not known yet");
    rig.drain();
    assert!(rig.progress.poisoned);
    assert_eq!(rig.ackable, 0);
}

#[test]
fn a_full_disk_refuses_appends_and_takes_them_again_when_there_is_room() {
    let mut rig = rig(Durability::Always);
    rig.backend.disk.set_capacity(Some(9000));
    let mut accepted = 0;
    let refusal = loop {
        match rig.append(1, &[accepted as u8; 100], 0) {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
        rig.drain();
    };
    assert_eq!(refusal, AppendError::Full);
    assert!(accepted > 20, "the first segment was used to its end");
    assert_eq!(rig.log.read_only(), None);
    assert_eq!(rig.ackable, accepted, "what was accepted is safe");

    // As long as the disk is full, it is asked again only after a while.
    rig.drain();
    let retry = rig.log.deadline().expect("it will be tried again");
    assert!(retry > rig.now);
    rig.now = retry;
    rig.drain();
    assert_eq!(rig.append(1, b"x", 0), Err(AppendError::Full));
    assert!(rig.log.deadline().expect("and again") > rig.now + Duration::from_secs(1));

    rig.backend.disk.set_capacity(None);
    rig.progress.room = false;
    rig.now = rig.log.deadline().expect("and again");
    rig.drain();
    assert!(rig.progress.room, "it is told that there is room");
    let appended = rig.append(1, b"again", 0).expect("there is room");
    assert_eq!(appended.position.segment, SegmentId(2));
    rig.settle();
    assert!(!rig.backend.disk.names().iter().any(|name| name.ends_with(".new")));
    rig.reopen();
}

#[test]
fn no_half_made_segment_outlives_a_failure_to_make_one() {
    for failing_step in 0..6 {
        let mut rig = rig(Durability::Always);
        rig.backend.fault = failing(ErrorKind::StorageFull, move |op| match op {
            FileOp::Open { mode: OpenMode::CreateNew, .. } => failing_step == 0,
            FileOp::Write { .. } => failing_step == 1,
            FileOp::Sync { .. } => failing_step == 2,
            FileOp::Map { .. } => failing_step == 3,
            FileOp::Rename { .. } => failing_step == 4,
            _ => false,
        });
        work(&mut rig, 1);
        if failing_step < 5 {
            assert_eq!(rig.backend.disk.names(), ["0000000001.seg"], "step {failing_step}");
        }
        rig.backend.fault = None;
        rig.now = rig.now + Duration::from_secs(60);
        work(&mut rig, 2);
        assert!(rig.log.last().0 > 20 && rig.log.read_only().is_none());
        rig.reopen();
    }
}

#[test]
fn a_directory_that_cannot_be_synced_delays_the_next_segment_and_loses_nothing() {
    let mut rig = rig(Durability::Always);
    rig.append(1, b"first", 0).expect("there is room");
    rig.drain();
    rig.backend.fault = failing(ErrorKind::Other, |op| matches!(op, FileOp::SyncDir { .. }));
    work(&mut rig, 1);
    assert_eq!(rig.log.read_only(), None);
    assert_eq!(rig.log.segments().count(), 1, "a name that may vanish is not used");
    assert_eq!(rig.backend.disk.names(), ["0000000001.seg"]);
    rig.backend.fault = None;
    rig.now = rig.now + Duration::from_secs(60);
    work(&mut rig, 2);
    assert!(rig.log.segments().count() > 1);
    rig.reopen();
}

#[test]
fn a_segment_that_cannot_be_removed_is_tried_again() {
    for fail_unlink in [true, false] {
        let mut rig = rig(Durability::Always);
        work(&mut rig, 3);
        rig.backend.fault = failing(ErrorKind::Other, move |op| match op {
            FileOp::Remove { .. } => fail_unlink,
            FileOp::SyncDir { .. } => !fail_unlink,
            _ => false,
        });
        assert!(rig.compact());
        rig.drain();
        assert_eq!(rig.progress.removed, None);
        assert_eq!(rig.log.read_only(), None);
        let bytes = rig.log.file_bytes();

        rig.backend.fault = None;
        rig.now = rig.log.deadline().expect("it will be tried again");
        rig.drain();
        assert_eq!(rig.progress.removed, Some(SegmentId(1)));
        assert!(rig.log.file_bytes() < bytes);
        rig.verify();
        rig.reopen();
    }
}

#[test]
fn a_disk_that_refuses_the_first_segment_refuses_the_log() {
    let disk = MemoryDisk::default();
    disk.set_capacity(Some(100));
    let options = small_options(Durability::Always);
    let error = sextant_segment::Log::open(&disk, Path::new(DIR), options).expect_err("no room");
    let OpenError::Io { path, source } = error else { panic!("{error}") };
    assert_eq!(path, PathBuf::from("/log/0000000001.seg"));
    assert_eq!(source.kind(), ErrorKind::StorageFull);
}

#[test]
fn limits_that_do_not_fit_together_refuse_the_log() {
    let options = Options { segment_bytes_min: 100, ..small_options(Durability::Always) };
    let error = sextant_segment::Log::open(&MemoryDisk::default(), Path::new(DIR), options);
    assert!(matches!(error, Err(OpenError::Options(_))));
}
