//! A quota that is used up, and a disk that is.

use std::path::Path;
use std::process::Command;

use sextant_audit::{Fact, Options, WriteError, Writer};

use crate::rig::{all_facts, any_fact, check, open, rng, small, sorted};

const TMPFS: &str = "SEXTANT_AUDIT_TMPFS";

/// Writes until it is refused; tells what was taken.
fn fill(writer: &mut Writer) -> (Vec<Fact>, WriteError) {
    let mut rng = rng();
    let mut taken = Vec::new();
    loop {
        let facts: Vec<Fact> = (0..100).map(|_| any_fact(&mut rng, 1000)).collect();
        match writer.facts(&facts) {
            Ok(()) => taken.extend(facts),
            Err(refusal) => return (taken, refusal),
        }
    }
}

#[test]
fn what_finds_no_room_is_refused_and_nothing_is_half_written() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = Options { bytes_max: 512 << 10, ..small() };
    let (mut writer, reader, _) = open(dir.path(), &options);
    let (taken, refusal) = fill(&mut writer);
    assert_eq!(refusal, WriteError::Full);
    assert_eq!(writer.flush(), Err(WriteError::Full), "what gathers is still not durable");
    let waiting = writer.gathering();
    assert!(waiting > 0 && waiting <= 500, "{waiting}");
    assert_eq!(all_facts(&reader).len() + waiting, taken.len());
    check(dir.path(), &writer);
    assert_eq!(writer.close(), Err(WriteError::Full));
    // With more room it goes on.
    let (mut writer, reader, opened) = open(dir.path(), &small());
    assert_eq!(opened.facts as usize, taken.len() - waiting);
    writer.facts(&taken[..500]).expect("there is room");
    writer.flush().expect("there is room");
    assert_eq!(all_facts(&reader).len(), taken.len() - waiting + 500);
    check(dir.path(), &writer);
}

#[test]
fn what_may_not_stay_goes_although_there_is_no_room_for_more() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let age_max = Some(std::time::Duration::from_secs(10));
    let retention = sextant_audit::Retention { bytes_max: None, age_max };
    let (mut writer, reader, _) = open(dir.path(), &Options { retention, ..small() });
    for segment in [6, 7] {
        let obstacle = dir.path().join(format!("{segment:010}.seg.new"));
        std::fs::create_dir(obstacle).expect("it is not there");
    }
    let (_, refusal) = fill(&mut writer);
    assert_eq!(refusal, WriteError::Full);
    let before = all_facts(&reader).len();
    writer.tick(20_000).expect("nothing is due yet");
    assert_eq!(writer.tick(20_100), Err(WriteError::Full));
    let left = all_facts(&reader).len();
    assert!(left < before / 2 && left > 0, "{left} of {before}");
    check(dir.path(), &writer);
}

/// Not a test of its own: what happens on a file system of two megabytes.
#[test]
fn on_a_small_disk() {
    let Some(dir) = std::env::var_os(TMPFS) else { return };
    let dir = Path::new(&dir).join("audit");
    let (mut writer, reader, _) = open(&dir, &small());
    let (taken, refusal) = fill(&mut writer);
    assert_eq!(refusal, WriteError::Full);
    assert!(taken.len() > 100_000, "{}", taken.len());
    let waiting = writer.gathering();
    let found = all_facts(&reader);
    assert_eq!(found.len() + waiting, taken.len());
    check(&dir, &writer);
    let spare = dir.with_file_name("spare");
    std::fs::remove_file(spare).expect("it took room");
    writer.tick(3_600_000).expect("nothing failed for good");
    writer.flush().expect("there is room now");
    assert_eq!(sorted(all_facts(&reader)), sorted(taken), "nothing was lost or written twice");
    check(&dir, &writer);
}

#[test]
fn a_full_file_system_refuses_facts_and_loses_none() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mount = "mount -t tmpfs -o size=2m none \"$1\" || exit 99; \
                 head -c 300000 /dev/zero > \"$1/spare\" || exit 98; shift; exec \"$@\"";
    let child = Command::new("unshare")
        .args(["--mount", "sh", "-c", mount, "sh"])
        .arg(dir.path())
        .arg(std::env::current_exe().expect("this test"))
        .args(["--exact", "full::on_a_small_disk", "--nocapture"])
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
