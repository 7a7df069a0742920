//! What goes for its age or its size, what is told of it, and what stays.

use std::path::Path;
use std::time::Duration;

use fastrand::Rng;
use sextant_segment::{AppendError, Durability, Options, Retention, SegmentId, Seq};

use crate::memory::MemoryFiles;
use crate::rig::{Rig, small_options};

fn rig(retention: Retention) -> Rig<MemoryFiles> {
    let options = Options { retention, ..small_options(Durability::Always) };
    Rig::open(MemoryFiles::default(), Path::new("/log"), options)
}

fn append(rig: &mut Rig<MemoryFiles>, unix_ms: u64) {
    match rig.append(1, &[unix_ms as u8; 300], unix_ms) {
        Ok(_) => {}
        Err(AppendError::Backlog) => rig.drain(),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn by_size_the_oldest_segments_go_and_appends_never_wait_for_it() {
    let bytes_max = 48 << 10;
    let mut rig = rig(Retention { bytes_max: Some(bytes_max), age_max: None });
    let mut left = Seq(1);
    for unix_ms in 0..3000 {
        append(&mut rig, unix_ms);
        if let Some(told) = rig.retain(unix_ms) {
            assert_eq!(told.start, left, "what is told follows what was told before");
            left = told.end;
        }
        rig.drain();
        // Until the next turn, one more segment may have been prepared.
        let file_bytes = rig.log.file_bytes();
        assert!(file_bytes <= bytes_max + bytes_max / 4, "{file_bytes}");
    }
    assert!(left > Seq(1000), "{left}");
    assert!(rig.log.file_bytes() > bytes_max / 2, "no more goes than has to");
    rig.verify();
    rig.reopen();
}

#[test]
fn by_age_a_segment_goes_when_its_latest_record_is_old_enough() {
    let mut rig = rig(Retention { bytes_max: None, age_max: Some(Duration::from_secs(1)) });
    let mut unix_ms = 5000;
    while rig.log.segments().filter(|info| info.sealed).count() < 3 {
        unix_ms += 10;
        append(&mut rig, unix_ms);
        rig.drain();
    }
    let newest: Vec<u64> = rig.log.segments().map(|info| info.newest_unix_ms).collect();
    let firsts: Vec<u64> = (1..=4)
        .map(|id| {
            let kept = rig.kept.iter().find(|(_, kept)| kept.position.segment == SegmentId(id));
            *kept.expect("it has a record").0
        })
        .collect();
    assert_eq!(rig.retain(newest[0] + 999), None);
    let told = rig.retain(newest[0] + 1000);
    assert_eq!(told, Some(Seq(1)..Seq(firsts[1])));
    assert_eq!(rig.retain(newest[0] + 1000), None, "it is told once");
    let told = rig.retain(u64::MAX);
    assert_eq!(told, Some(Seq(firsts[1])..Seq(firsts[3])), "the active one stays");
    // None is gone before that is durable, and a crash brings all of them back.
    rig.backend.power_failure(&mut Rng::with_seed(1), 0.0);
    rig.reopen();
    assert_eq!(rig.retain(u64::MAX), Some(Seq(1)..Seq(firsts[3])));
    rig.drain();
    assert_eq!(rig.progress.removed, Some(SegmentId(3)));
    assert_eq!(rig.backend.disk.names().first().map(String::as_str), Some("0000000004.seg"));
    rig.backend.power_failure(&mut Rng::with_seed(1), 0.0);
    let recovery = rig.reopen();
    assert_eq!((recovery.from, rig.log.first()), (Seq(firsts[3]), Seq(firsts[3])));
}

/// What a checkpoint spares an opening from reading still goes when its time has come.
#[test]
fn the_age_of_segments_that_no_opening_reads_is_known() {
    let mut rig = rig(Retention { bytes_max: None, age_max: Some(Duration::from_secs(1)) });
    for unix_ms in 0..200 {
        append(&mut rig, unix_ms);
        rig.drain();
    }
    rig.checkpoint(u64::MAX);
    rig.settle();
    let newest: Vec<u64> = rig.log.segments().map(|info| info.newest_unix_ms).collect();
    assert!(newest.len() > 4);
    for newest in &newest[..newest.len() - 1] {
        rig.reopen();
        assert_eq!(rig.retain(newest + 999), None);
        assert!(rig.retain(newest + 1000).is_some());
        rig.drain();
    }
}

#[test]
fn without_limits_nothing_goes() {
    let mut rig = rig(Retention::default());
    for unix_ms in 0..100 {
        append(&mut rig, unix_ms);
        rig.drain();
    }
    assert_eq!(rig.retain(u64::MAX), None);
    assert_eq!(rig.log.first(), Seq(1));
}
