//! One scripted life of a log, in which everything happens that a log does: appends, segments that
//! end and begin, compaction, retention, checkpoints, a snapshot, an orderly end. Each of its
//! operations fails in turn, with each error that a disk has. And a disk that is full indeed.

use std::cell::Cell;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use sextant_ring::driver::FileOp;
use sextant_ring::time::Time;
use sextant_segment::{AppendError, Durability, Log, Options, ReadOnly, Retention, SnapshotError};

use crate::host::HostFiles;
use crate::memory::MemoryFiles;
use crate::rig::{Backend, Rig, small_options};

const TMPFS: &str = "SEXTANT_SEGMENT_TMPFS";
const COPY: &str = "/copy";

/// What a life came to.
#[derive(Debug, Default)]
struct Life {
    snapshot: Option<Result<(), SnapshotError>>,
    compacted: bool,
    retained: bool,
}

/// Plays the life. Nothing in it depends on whether anything fails but what is refused then.
fn live(rig: &mut Rig<MemoryFiles>) -> Life {
    let mut life = Life::default();
    for step in 0..220u64 {
        let payload = vec![step as u8; (step * 31 % 400) as usize];
        match rig.append(1, &payload, step) {
            Ok(_) | Err(AppendError::Backlog | AppendError::Full | AppendError::ReadOnly) => {}
            Err(error) => panic!("{error}"),
        }
        match step {
            60 | 130 => rig.checkpoint(step / 2),
            80 => {
                let begun = rig.log.snapshot(PathBuf::from(COPY), &mut rig.backend);
                life.snapshot = begun.err().map(Err);
            }
            100 => life.compacted = rig.log.read_only().is_none() && rig.compact(),
            160 => life.retained = rig.retain(step).is_some(),
            _ => {}
        }
        rig.commit();
        for _ in 0..3 {
            rig.run(0);
        }
        if let Some(outcome) = rig.log.next_snapshot() {
            life.snapshot = Some(outcome.map(|_| ()));
        }
        rig.now = rig.now + Duration::from_millis(400);
    }
    // What is tried again after a while has had its while.
    for _ in 0..3 {
        rig.now = rig.now + Duration::from_secs(60);
        rig.drain();
    }
    if let Some(outcome) = rig.log.next_snapshot() {
        life.snapshot = Some(outcome.map(|_| ()));
    }
    rig.settle();
    life
}

fn close(rig: &mut Rig<MemoryFiles>) {
    rig.log.close(&mut rig.backend);
    while rig.backend.waiting() > 0 {
        rig.run_unchecked();
    }
    assert!(rig.log.is_closed());
}

fn new_rig(durability: Durability) -> Rig<MemoryFiles> {
    let retention = Retention { bytes_max: None, age_max: Some(Duration::from_millis(90)) };
    let options = Options { retention, ..small_options(durability) };
    Rig::open(MemoryFiles::default(), Path::new("/log"), options)
}

/// Fails the operation of this number, if it is not a close, whose outcome nobody waits for; counts
/// all others.
fn fail_nth(rig: &mut Rig<MemoryFiles>, nth: u64, kind: ErrorKind) -> Rc<Cell<u64>> {
    let count = Rc::new(Cell::new(0));
    let counter = Rc::clone(&count);
    rig.backend.fault = Some(Box::new(move |op| {
        if matches!(op, FileOp::Close { .. }) {
            return None;
        }
        counter.set(counter.get() + 1);
        (counter.get() == nth).then_some(kind)
    }));
    count
}

#[test]
fn each_operation_of_a_life_fails_with_each_error_and_what_was_acknowledged_is_there() {
    let errors = [ErrorKind::Other, ErrorKind::StorageFull, ErrorKind::QuotaExceeded];
    for durability in
        [Durability::Always, Durability::Every(Duration::from_millis(700)), Durability::Os]
    {
        let mut whole = new_rig(durability);
        let count = fail_nth(&mut whole, u64::MAX, ErrorKind::Other);
        let life = live(&mut whole);
        assert!(life.compacted && life.retained, "{life:?}");
        assert_eq!(life.snapshot, Some(Ok(())));
        let operations = count.get();
        assert!(operations > 100, "{operations}");
        let (mut poisoned, mut snapshots) = (0, 0);
        for nth in 1..=operations {
            for kind in errors {
                let mut rig = new_rig(durability);
                fail_nth(&mut rig, nth, kind);
                let life = live(&mut rig);
                if let Some(reason) = rig.log.read_only() {
                    poisoned += 1;
                    let named =
                        matches!(reason, ReadOnly::Poisoned { kind: named, .. } if named == kind);
                    assert!(named, "operation {nth}: {reason:?} of {kind}");
                    let refused = rig.append(1, b"more", 0);
                    assert_eq!(refused, Err(AppendError::ReadOnly), "operation {nth}");
                }
                if let Some(Err(SnapshotError::Io { kind: named, .. })) = life.snapshot {
                    snapshots += 1;
                    assert_eq!(named, kind, "operation {nth}");
                }
                rig.verify();
                close(&mut rig);
                assert_eq!(rig.backend.open_files(), 0, "operation {nth}");
                rig.backend.power_failure(&mut Rng::with_seed(nth), 0.5);
                rig.reopen();
            }
        }
        let durability = format!("{durability:?}");
        assert!(poisoned > 30 && snapshots > 10, "{durability}: {poisoned}, {snapshots}");
    }
}

/// Not a test of its own: what happens on a file system of two megabytes.
#[test]
fn on_a_small_disk() {
    let Some(dir) = std::env::var_os(TMPFS) else { return };
    let dir = Path::new(&dir).join("log");
    let options = Options {
        segment_bytes_min: 256 << 10,
        segment_bytes_max: 256 << 10,
        record_bytes_max: 4 << 10,
        ..Options::new(1, 1)
    };
    let mut rig = Rig::open(HostFiles::default(), &dir, options);
    let fill = |rig: &mut Rig<HostFiles>| loop {
        let len = (rig.log.last().0 * 37 % 4096) as usize;
        match rig.append(1, &vec![len as u8; len], 0) {
            Ok(_) => {}
            Err(AppendError::Full) => break,
            // An attempt that failed is being cleaned up after.
            Err(AppendError::Backlog) => assert!(rig.backend.waiting() > 0 || rig.log.is_settled()),
            Err(error) => panic!("{error}"),
        }
        rig.drain();
    };
    fill(&mut rig);
    assert_eq!((rig.log.read_only(), rig.ackable), (None, rig.log.last().0));
    assert!(rig.log.file_bytes() > 1 << 20, "the disk was used: {}", rig.log.file_bytes());
    rig.verify();
    let before = rig.log.last();
    for _ in 0..5 {
        // Room is made, and is found.
        let seqs: Vec<u64> = rig.kept.keys().copied().take(200).collect();
        seqs.into_iter().for_each(|seq| rig.retire(seq));
        let oldest = rig.log.oldest().expect("there is one");
        rig.log.remove_when_durable(oldest.id, rig.log.last()).expect("it is the oldest");
        rig.going.insert(oldest.id);
        rig.drain();
        rig.now = rig.log.deadline().unwrap_or(Time::ZERO).max(rig.now);
        rig.drain();
        fill(&mut rig);
    }
    assert!(rig.log.last().0 > before.0 + 100, "{before}, then {}", rig.log.last());
    rig.settle();
    rig.verify();
    drop(std::mem::take(&mut rig.backend));
    rig.reopen();
    assert!(Log::open(&*rig.backend.disk(), &dir, rig.options.clone()).is_ok());
}

#[test]
fn a_full_file_system_refuses_appends_and_takes_them_again_when_there_is_room() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mount = "mount -t tmpfs -o size=2m none \"$1\" || exit 99; shift; exec \"$@\"";
    let child = Command::new("unshare")
        .args(["--mount", "sh", "-c", mount, "sh"])
        .arg(dir.path())
        .arg(std::env::current_exe().expect("this test"))
        .args(["--exact", "life::on_a_small_disk", "--nocapture"])
        .env(TMPFS, dir.path())
        .output();
    let child = match child {
        // `unshare` itself ends with 1 where it may not, a test that fails with 101.
        Ok(child) if matches!(child.status.code(), Some(1 | 99)) => {
            let told = String::from_utf8_lossy(&child.stderr).into_owned();
            return crate::lacks("MOUNT", &told);
        }
        Ok(child) => child,
        Err(error) => return crate::lacks("MOUNT", &error),
    };
    let told = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{told}");
    assert!(std::fs::read_dir(dir.path()).expect("it is there").next().is_none(), "not mounted");
}
