//! A log that an ordinary thread owns, on the host's own file system.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sextant_ring::time::Time;
use sextant_segment::{
    AppendError, BlockingLog, Durability, Options, ReadOnly, Recovery, Retention, SegmentId, Seq,
};

const TMPFS: &str = "SEXTANT_SEGMENT_BLOCKING_TMPFS";

fn small(durability: Durability) -> Options {
    Options {
        segment_bytes_min: 16 << 10,
        segment_bytes_max: 64 << 10,
        record_bytes_max: 4 << 10,
        commit_bytes_max: 8 << 10,
        backlog_bytes_max: 16 << 10,
        durability,
        ..Options::new(7, 3)
    }
}

fn payload(seq: u64) -> Vec<u8> {
    vec![seq as u8; (seq * 37 % 1500) as usize]
}

fn open(dir: &Path, options: &Options) -> (BlockingLog, Recovery) {
    BlockingLog::open(dir, options.clone()).expect("it opens")
}

fn append(log: &mut BlockingLog, unix_ms: u64) -> Result<Seq, AppendError> {
    let next = log.log().last().0 + 1;
    log.append(1, &[&payload(next)], unix_ms).map(|appended| appended.seq)
}

/// Checks each record that is there, and tells the last.
fn check(log: &BlockingLog) -> u64 {
    let (mut cursor, mut last) = (log.log().records(), 0);
    while let Some(record) = cursor.next(log.log()) {
        let record = record.expect("nothing is damaged");
        assert_eq!(record.payload, payload(record.seq.0), "of record {}", record.seq);
        last = record.seq.0;
    }
    last
}

#[test]
fn what_was_flushed_is_there_when_the_log_is_opened_again() {
    for durability in
        [Durability::Always, Durability::Every(Duration::from_secs(1)), Durability::Os]
    {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let options = small(durability);
        let (mut log, recovery) = open(dir.path(), &options);
        assert!(recovery.created);
        for step in 0..1000 {
            append(&mut log, 0).expect("there is room, and the disk is waited for");
            if step % 7 == 0 {
                log.write().expect("the disk takes it");
            }
        }
        log.flush().expect("the disk takes it");
        assert_eq!(log.log().durable(), Seq(1000));
        assert!(log.log().segments().count() > 5);
        // As a crash ends it: nothing is closed.
        drop(log);
        let (log, recovery) = open(dir.path(), &options);
        assert_eq!((recovery.last, recovery.torn_bytes), (Seq(1000), 0), "{durability:?}");
        assert_eq!(check(&log), 1000);
        log.close().expect("nothing failed");
    }
}

#[test]
fn a_torn_tail_is_cut_and_what_was_flushed_stays() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = small(Durability::Os);
    let (mut log, _) = open(dir.path(), &options);
    for _ in 0..5 {
        append(&mut log, 0).expect("there is room");
    }
    log.flush().expect("the disk takes it");
    let torn = log.append(1, &[b"torn"], 0).expect("there is room").position;
    log.write().expect("the kernel takes it");
    drop(log);
    let file = fs::File::options().write(true).open(dir.path().join("0000000001.seg"));
    file.and_then(|file| file.write_all_at(b"x", u64::from(torn.offset) + 24)).expect("writable");
    let (log, recovery) = open(dir.path(), &options);
    assert_eq!((recovery.last, recovery.read_only), (Seq(5), None));
    assert!(recovery.torn_bytes > 0, "{recovery:?}");
    assert_eq!(check(&log), 5);
}

#[test]
fn the_next_segment_is_prepared_a_few_steps_with_each_write_and_in_time() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = Options {
        segment_bytes_min: 8 << 20,
        segment_bytes_max: 8 << 20,
        commit_bytes_max: 256 << 10,
        backlog_bytes_max: 1 << 20,
        record_bytes_max: 64 << 10,
        ..small(Durability::Os)
    };
    let (mut log, _) = open(dir.path(), &options);
    let (next, ready) = (dir.path().join("0000000002.seg.new"), dir.path().join("0000000002.seg"));
    let (mut len, mut writes) = (0, 0);
    while !ready.exists() {
        let appended = log.append(1, &[&[1; 64 << 10]], 0).expect("there is room");
        assert_eq!(appended.position.segment, SegmentId(1), "it is ready before it is needed");
        log.write().expect("the disk takes it");
        let now = fs::metadata(&next).map_or(0, |meta| meta.len());
        assert!(now <= len + (1 << 20), "{now} after {len}");
        (len, writes) = (now.max(len), writes + u32::from(now > 0));
    }
    assert!(writes >= 8, "{writes}");
}

#[test]
fn an_append_that_finds_no_segment_is_refused_and_taken_once_there_is_one() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (mut log, _) = open(dir.path(), &small(Durability::Os));
    let obstacle = dir.path().join("0000000002.seg.new");
    fs::create_dir(&obstacle).expect("it is not there");
    let refusal = loop {
        if let Err(refusal) = append(&mut log, 0) {
            break refusal;
        }
    };
    assert_eq!(refusal, AppendError::Full);
    let accepted = log.log().last();
    log.flush().expect("what was accepted is safe");
    fs::remove_dir(&obstacle).expect("it was left alone");
    assert_eq!(append(&mut log, 0), Err(AppendError::Full), "it is not tried again so soon");
    log.tick(Time::ZERO + Duration::from_secs(60)).expect("nothing failed");
    assert_eq!(append(&mut log, 0), Ok(Seq(accepted.0 + 1)));
    log.flush().expect("the disk takes it");
    assert_eq!(check(&log), accepted.0 + 1);
}

#[test]
fn after_a_failed_write_everything_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (mut log, _) = open(dir.path(), &small(Durability::Os));
    let path = dir.path().join("0000000001.seg");
    fs::remove_file(&path).and_then(|()| fs::create_dir(&path)).expect("it is a test's directory");
    append(&mut log, 0).expect("nobody knows yet");
    let poisoned = log.flush().expect_err("the file cannot be opened for writing");
    assert!(matches!(poisoned, ReadOnly::Poisoned { segment: SegmentId(1), .. }), "{poisoned}");
    assert_eq!(log.write(), Err(poisoned));
    assert_eq!(append(&mut log, 0), Err(AppendError::ReadOnly));
    assert_eq!(log.close(), Err(poisoned));
}

#[test]
fn retention_lets_the_oldest_go_and_a_snapshot_opens_as_a_log() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let retention = Retention { bytes_max: Some(256 << 10), age_max: None };
    let options = Options { retention, ..small(Durability::Os) };
    let (mut log, _) = open(&dir.path().join("log"), &options);
    let mut left = Seq(1);
    for unix_ms in 0..3000 {
        append(&mut log, unix_ms).expect("retention makes room");
        log.write().expect("the disk takes it");
        if let Some(going) = log.retain(unix_ms) {
            assert_eq!(going.start, left);
            left = going.end;
            assert_eq!(log.log().first(), left);
        }
        assert!(log.log().file_bytes() <= (256 + 64) << 10);
    }
    assert!(left > Seq(1000), "{left}");
    let files = fs::read_dir(dir.path().join("log")).expect("it is there").count();
    assert!(files <= log.log().segments().count() + 1, "removed files are gone: {files}");

    let copy = dir.path().join("copy");
    fs::create_dir(&copy).expect("it is not there");
    log.snapshot(copy.clone()).expect("nothing failed");
    let last = log.log().last().0;
    assert_eq!((check(&log), check(&open(&copy, &options).0)), (last, last));
}

/// Not a test of its own: what happens on a file system of two megabytes.
#[test]
fn on_a_small_disk() {
    let Some(dir) = std::env::var_os(TMPFS) else { return };
    let dir = Path::new(&dir).join("log");
    let options = Options {
        segment_bytes_min: 256 << 10,
        segment_bytes_max: 256 << 10,
        ..small(Durability::Os)
    };
    let (mut log, _) = open(&dir, &options);
    let refusal = loop {
        if let Err(refusal) = append(&mut log, 0) {
            break refusal;
        }
    };
    assert_eq!(refusal, AppendError::Full);
    let accepted = log.log().last().0;
    log.flush().expect("what was accepted is safe");
    assert!(log.log().file_bytes() > 1 << 20, "the disk was used: {}", log.log().file_bytes());
    assert_eq!(check(&log), accepted);
    let oldest = log.log().oldest().expect("there is one").id;
    log.log_mut().remove_when_durable(oldest, Seq(0)).expect("it is the oldest");
    log.tick(Time::ZERO + Duration::from_secs(60)).expect("nothing failed");
    assert_eq!(append(&mut log, 0), Ok(Seq(accepted + 1)), "room was made, and is found");
    log.close().expect("nothing failed");
    assert_eq!(check(&open(&dir, &options).0), accepted + 1);
}

#[test]
fn a_full_file_system_refuses_appends_and_loses_none() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mount = "mount -t tmpfs -o size=2m none \"$1\" || exit 99; shift; exec \"$@\"";
    let child = Command::new("unshare")
        .args(["--mount", "sh", "-c", mount, "sh"])
        .arg(dir.path())
        .arg(std::env::current_exe().expect("this test"))
        .args(["--exact", "blocking::on_a_small_disk", "--nocapture"])
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
    assert!(fs::read_dir(dir.path()).expect("it is there").next().is_none(), "not mounted");
}
