//! Copies of a log that goes on: what is in them, what a failure or a crash leaves of them.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use fastrand::Rng;
use sextant_ring::driver::FileOp;
use sextant_ring::sim::seeds;
use sextant_segment::{
    AppendError, Durability, Log, Options, ReadOnly, Recovery, Seq, Snapshot, SnapshotError,
};

use crate::host::HostFiles;
use crate::memory::MemoryFiles;
use crate::rig::{Backend, Kept, Rig, any_durability, payload_of, small_options};

const DIR: &str = "/log";
const COPY: &str = "/copy";

fn rig(options: Options) -> Rig<MemoryFiles> {
    Rig::open(MemoryFiles::default(), Path::new(DIR), options)
}

fn append_some<B: Backend>(rig: &mut Rig<B>, rng: &mut Rng, records: usize) {
    for _ in 0..records {
        let payload = payload_of(rng, 1500);
        match rig.append(rng.u8(..), &payload, rng.u64(..1 << 48)) {
            Ok(_) => {}
            Err(AppendError::Backlog) => rig.drain(),
            Err(AppendError::Full) => {
                rig.compact();
                rig.drain();
            }
            Err(error) => panic!("{error}"),
        }
        rig.commit();
        rig.run(rng.usize(..));
    }
}

/// Opens a copy, and checks that it holds what was there.
fn check_copy(
    disk: &dyn sextant_ring::disk::Disk,
    dir: &Path,
    options: Options,
    kept: &BTreeMap<u64, Kept>,
) -> Recovery {
    let (log, recovery) = Log::open(disk, dir, options).expect("it opens");
    assert_eq!(recovery.read_only, None);
    assert_eq!(recovery.torn_bytes, 0);
    let mut cursor = log.records();
    let mut found = 0;
    while let Some(record) = cursor.next(&log) {
        let record = record.expect("nothing is damaged");
        let kept = &kept[&record.seq.0];
        assert_eq!((record.kind, record.unix_ms), (kept.kind, kept.unix_ms));
        assert_eq!((record.position, record.payload), (kept.position, kept.payload.clone().into()));
        found += 1;
    }
    assert_eq!(found, recovery.records);
    recovery
}

/// Works until the snapshot has ended.
fn outcome<B: Backend>(rig: &mut Rig<B>) -> Result<Snapshot, SnapshotError> {
    loop {
        if let Some(outcome) = rig.log.next_snapshot() {
            return outcome;
        }
        assert!(rig.run(0), "a snapshot ends");
    }
}

#[test]
fn a_snapshot_holds_what_was_written_when_it_began_while_the_log_goes_on() {
    for seed in seeds(60) {
        eprintln!("SEXTANT_SEED={seed}");
        let mut rng = Rng::with_seed(seed);
        let mut rig = rig(small_options(any_durability(&mut rng)));
        let records = rng.usize(..200);
        append_some(&mut rig, &mut rng, records);
        let (durable, written) = (rig.log.durable(), rig.log.last());
        let mut all = rig.kept.clone();
        rig.log.snapshot(PathBuf::from(COPY), &mut rig.backend).expect("none is under way");
        let again = rig.log.snapshot(PathBuf::from("/other"), &mut rig.backend);
        assert_eq!(again, Err(SnapshotError::Busy));
        let told = loop {
            append_some(&mut rig, &mut rng, 1);
            all.append(&mut rig.kept.clone());
            if let Some(outcome) = rig.log.next_snapshot() {
                break outcome.expect("nothing fails");
            }
        };
        assert!(told.last >= durable && told.last <= written, "{told:?}");
        // It was durable when that was said.
        let disk = rig.backend.disk.fork();
        disk.power_failure(&mut rng, 0.0);
        let recovery = check_copy(&disk, Path::new(COPY), rig.options.clone(), &all);
        assert_eq!((recovery.last, recovery.segments), (told.last, told.segments));
        rig.drain();
        rig.verify();
        rig.reopen();
    }
}

#[test]
fn a_snapshot_outlives_the_segments_of_its_log_and_is_a_log_of_its_own() {
    let mut rng = Rng::with_seed(5);
    let mut rig = rig(small_options(Durability::Always));
    append_some(&mut rig, &mut rng, 60);
    rig.drain();
    let all = rig.kept.clone();
    rig.log.snapshot(PathBuf::from(COPY), &mut rig.backend).expect("none is under way");
    outcome(&mut rig).expect("nothing fails");
    for _ in 0..20 {
        append_some(&mut rig, &mut rng, 10);
        rig.compact_patiently();
        rig.drain();
    }
    assert!(rig.log.oldest().expect("there is one").id.0 > 4, "its log has moved on");
    check_copy(&rig.backend.disk, Path::new(COPY), rig.options.clone(), &all);
    // Both are written to, and neither sees what the other writes.
    let before = rig.kept.clone();
    let mut copy = Rig::over(
        MemoryFiles::on(rig.backend.disk.clone()),
        Path::new(COPY),
        rig.options.clone(),
        all,
    );
    append_some(&mut copy, &mut rng, 40);
    copy.drain();
    copy.verify();
    assert_eq!(rig.kept, before);
    rig.verify();
    rig.reopen();
    copy.reopen();
}

/// Every operation of a snapshot fails in turn: it is told, and what is left is no log.
#[test]
fn a_snapshot_that_fails_at_any_operation_leaves_nothing_that_opens_as_one() {
    let mut failures = 0;
    for fail_at in 0.. {
        let mut rig = rig(small_options(Durability::Always));
        append_some(&mut rig, &mut Rng::with_seed(3), 120);
        rig.drain();
        let mut left = fail_at;
        // The outcome of a close changes nothing.
        rig.backend.fault = Some(Box::new(move |op| {
            if matches!(op, FileOp::Close { .. }) {
                return None;
            }
            left -= 1;
            let kind = [ErrorKind::Other, ErrorKind::StorageFull, ErrorKind::QuotaExceeded];
            (left == -1).then_some(kind[fail_at as usize % 3])
        }));
        rig.log.snapshot(PathBuf::from(COPY), &mut rig.backend).expect("none is under way");
        let told = outcome(&mut rig);
        rig.backend.fault = None;
        rig.drain();
        assert_eq!(rig.log.read_only(), None, "the log is none the worse");
        rig.verify();
        let disk = rig.backend.disk.clone();
        match told {
            Ok(_) => {
                check_copy(&disk, Path::new(COPY), rig.options.clone(), &rig.kept);
                break;
            }
            Err(error) => assert!(matches!(error, SnapshotError::Io { .. }), "{error}"),
        }
        failures += 1;
        let left = disk.names_in(Path::new(COPY));
        assert!(left.is_empty(), "failed at {fail_at}: {left:?}");
        assert_eq!(rig.backend.open_files(), rig.log.open_files(), "failed at {fail_at}");
        // The next one works.
        rig.log.snapshot(PathBuf::from(COPY), &mut rig.backend).expect("none is under way");
        outcome(&mut rig).expect("nothing fails");
        check_copy(&disk, Path::new(COPY), rig.options.clone(), &rig.kept);
        rig.reopen();
    }
    assert!(failures > 10, "{failures}");
}

/// What is found of a snapshot after a power failure is whole, or says that it is not.
#[test]
fn a_power_failure_at_any_operation_of_a_snapshot_leaves_a_whole_one_or_none() {
    let (mut whole, mut half) = (0, 0);
    for seed in seeds(40) {
        for stop in 0..60 {
            let mut rng = Rng::with_seed(seed);
            let mut rig = rig(small_options(Durability::Always));
            append_some(&mut rig, &mut rng, 100);
            rig.drain();
            rig.log.snapshot(PathBuf::from(COPY), &mut rig.backend).expect("none is under way");
            let ended = (0..stop).any(|_| !rig.run(0));
            let told = rig.log.next_snapshot();
            let mut luck = Rng::with_seed(seed << 8 | stop);
            let keep = [0.0, 0.3, 0.7, 1.0][luck.usize(..4)];
            rig.backend.power_failure(&mut luck, keep);
            let names = rig.backend.disk.names_in(Path::new(COPY));
            let disk = rig.backend.disk.fork();
            if names.iter().any(|name| name.ends_with(".seg")) {
                let (log, recovery) =
                    Log::open(&disk, Path::new(COPY), rig.options.clone()).expect("it opens");
                match recovery.read_only {
                    None => {
                        assert_eq!(recovery.last, Seq(rig.log.last().0), "{names:?}");
                        assert_eq!(recovery.records, rig.kept.len() as u64, "{names:?}");
                        whole += 1;
                    }
                    Some(reason) => {
                        assert_eq!(log.read_only(), Some(ReadOnly::Corrupt(reason)));
                        assert!(told.is_none(), "it was said to be durable");
                        half += 1;
                    }
                }
            } else {
                assert!(told.is_none(), "it was said to be durable");
            }
            rig.reopen();
            if ended {
                break;
            }
        }
    }
    assert!(whole > 20 && half > 200, "{whole} whole, {half} half");
}

#[test]
fn a_snapshot_into_a_directory_that_is_not_empty_takes_nothing_from_it() {
    let mut rig = rig(small_options(Durability::Always));
    append_some(&mut rig, &mut Rng::with_seed(3), 120);
    rig.drain();
    let segments = rig.log.segments().count() as u32;
    // In the place of a segment that is linked, of the copy, and of its temporary name.
    for name in [
        "0000000002.seg".to_owned(),
        format!("{segments:010}.seg"),
        format!("{segments:010}.seg.new"),
    ] {
        let foreign = Path::new(COPY).join(&name);
        rig.backend.disk.place(&foreign, b"somebody else's");
        rig.log.snapshot(PathBuf::from(COPY), &mut rig.backend).expect("none is under way");
        assert!(matches!(outcome(&mut rig), Err(SnapshotError::Io { .. })), "{name}");
        rig.drain();
        assert_eq!(rig.backend.disk.names_in(Path::new(COPY)), [name]);
        assert_eq!(rig.backend.disk.bytes(&foreign), b"somebody else's");
        rig.backend.disk.unlink(&foreign);
    }
}

#[test]
fn a_log_that_is_read_only_is_not_copied() {
    let mut rig = rig(small_options(Durability::Always));
    rig.append(1, b"x", 0).expect("there is room");
    rig.backend.fault =
        Some(Box::new(|op| matches!(op, FileOp::WriteSync { .. }).then_some(ErrorKind::Other)));
    rig.drain();
    let refused = rig.log.snapshot(PathBuf::from(COPY), &mut rig.backend);
    assert_eq!(refused, Err(SnapshotError::ReadOnly));
}

#[test]
fn a_snapshot_on_the_host_shares_the_sealed_segments() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let copy = dir.path().join("copy");
    std::fs::create_dir(&copy).expect("there is room");
    let options = small_options(Durability::Always);
    let mut rig = Rig::open(HostFiles::default(), &dir.path().join("log"), options);
    append_some(&mut rig, &mut Rng::with_seed(3), 60);
    rig.drain();
    rig.log.snapshot(copy.clone(), &mut rig.backend).expect("none is under way");
    let told = outcome(&mut rig).expect("nothing fails");
    let recovery = check_copy(&*rig.backend.disk(), &copy, rig.options.clone(), &rig.kept);
    assert_eq!((recovery.last, recovery.segments), (told.last, told.segments));
    let links = |name: &str| std::fs::metadata(copy.join(name)).expect("it is there").nlink();
    assert_eq!(links("0000000001.seg"), 2);
    assert_eq!(links(&format!("{:010}.seg", told.segments)), 1);
}
