//! The power fails at any moment, and any subset of what was not synced is lost. Everything that
//! was durable has to be there afterwards, in order and unchanged, and nothing that was torn.
//!
//! A failed test prints the seed of its round; `SEXTANT_SEED` plays that round alone.

use std::path::Path;
use std::time::Duration;

use fastrand::Rng;
use sextant_ring::sim::seeds;
use sextant_segment::{AppendError, Durability, Log, Options};

use crate::memory::MemoryFiles;
use crate::rig::{Backend, Rig, any_durability, any_retention, payload_of, small_options};

const DIR: &str = "/log";

/// What came up in a round, so that a test can tell that it tested something.
#[derive(Debug, Default)]
struct Seen {
    torn: u32,
    removed: u32,
    checkpoints: u32,
    /// Openings that did not have to read all.
    from_checkpoints: u32,
    retained: u32,
    segments: u32,
    interrupted_openings: u32,
    backlogs: u32,
    fulls: u32,
}

/// Says which seed was playing when a test failed.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with SEXTANT_SEED={}", self.0);
        }
    }
}

fn options(rng: &mut Rng) -> Options {
    let mut options = small_options(any_durability(rng));
    options.bytes_max = u64::from(rng.u32(16..64)) << 10;
    options.retention = any_retention(rng, options.bytes_max);
    options.linger = Duration::from_millis(if rng.bool() { 0 } else { rng.u64(1..20) });
    options
}

/// One random thing that a daemon or its driver does.
fn act(rig: &mut Rig<MemoryFiles>, rng: &mut Rng, seen: &mut Seen) {
    match rng.u8(..16) {
        0..5 => {
            let payload = payload_of(rng, 1500);
            match rig.append(rng.u8(..), &payload, rng.u64(..1 << 48)) {
                Ok(_) => {}
                Err(AppendError::Backlog) => seen.backlogs += 1,
                Err(AppendError::Full) => {
                    seen.fulls += 1;
                    rig.compact();
                }
                Err(error) => panic!("{error}"),
            }
        }
        5..8 => rig.commit(),
        8..13 => {
            rig.run(rng.usize(..));
        }
        13 => {
            rig.now = rig.now + Duration::from_millis(rng.u64(..8));
        }
        14 => {
            if let Some(seq) = rng.choice(rig.kept.keys().copied().collect::<Vec<u64>>()) {
                match rng.bool() {
                    true => rig.retire(seq),
                    false => rig.fetch(seq, rng.bool().then(|| rng.u32(..2000))),
                }
            }
        }
        _ => match rng.u8(..12) {
            0 => {
                rig.compact();
            }
            1 => rig.log.settle(),
            2 => rig.verify(),
            3..6 => {
                rig.checkpoint(rng.u64(..=rig.log.last().0 + 1));
                seen.checkpoints += 1;
            }
            6 => seen.retained += u32::from(rig.retain(rng.u64(..1 << 48)).is_some()),
            _ => {}
        },
    }
    seen.removed += u32::from(rig.progress.removed.take().is_some());
}

/// Loses power, and opens the log until that works; some openings are cut short as well.
fn lose_power(rig: &mut Rig<MemoryFiles>, rng: &mut Rng, seen: &mut Seen) {
    let keep = [0.0, 0.5, 0.9, 1.0][rng.usize(..4)];
    rig.backend.power_failure(rng, keep);
    while rng.u8(..3) == 0 {
        rig.backend.disk.fail_after(Some(rng.u32(..10)));
        let opened = Log::open(&*rig.backend.disk(), &rig.dir, rig.options.clone());
        seen.interrupted_openings += u32::from(opened.is_err());
        rig.backend.disk.power_failure(rng, keep);
    }
    let recovery = rig.reopen();
    seen.torn += u32::from(recovery.torn_bytes > 0);
    seen.from_checkpoints += u32::from(recovery.from > rig.log.first());
    seen.segments = seen.segments.max(recovery.segments as u32);
}

#[test]
fn what_was_durable_survives_every_power_failure() {
    let mut seen = Seen::default();
    for seed in seeds(400).map(Seed) {
        let mut rng = Rng::with_seed(seed.0);
        let options = options(&mut rng);
        let mut rig = Rig::open(MemoryFiles::default(), Path::new(DIR), options);
        for _ in 0..rng.u32(1..8) {
            for _ in 0..rng.u32(..400) {
                act(&mut rig, &mut rng, &mut seen);
            }
            // A process that ends leaves the kernel's cache as it is. The next one goes on from
            // there, and may lose power in its turn.
            match rng.bool() {
                true => lose_power(&mut rig, &mut rng, &mut seen),
                false => {
                    rig.backend.kill(&mut rng);
                    rig.reopen();
                }
            }
        }
        lose_power(&mut rig, &mut rng, &mut seen);
    }
    if std::env::var_os("SEXTANT_SEED").is_none() {
        assert!(seen.torn > 30 && seen.removed > 100 && seen.segments > 4, "{seen:?}");
        assert!(seen.interrupted_openings > 100, "{seen:?}");
        assert!(seen.checkpoints > 100 && seen.retained > 20, "{seen:?}");
        assert!(seen.from_checkpoints > 100, "{seen:?}");
        assert!(seen.backlogs > 100 && seen.fulls > 100, "{seen:?}");
    }
}

/// What an opening found it may act upon, so it has to be durable from then on, although the
/// process before it ended without a sync.
#[test]
fn what_an_opening_found_is_durable() {
    for seed in seeds(200).map(Seed) {
        let mut rng = Rng::with_seed(seed.0);
        let options = options(&mut rng);
        let mut rig = Rig::open(MemoryFiles::default(), Path::new(DIR), options);
        for _ in 0..4 {
            for _ in 0..rng.u32(..200) {
                act(&mut rig, &mut rng, &mut Seen::default());
            }
            rig.backend.kill(&mut rng);
            rig.reopen();
            rig.backend.power_failure(&mut rng, 0.0);
            rig.reopen();
        }
    }
}

/// The same few hundred steps, cut off at every operation in turn.
#[test]
fn a_power_failure_at_every_operation_of_a_run_loses_nothing_durable() {
    for seed in seeds(6).map(Seed) {
        for stop in 0.. {
            let mut rng = Rng::with_seed(seed.0);
            let options = options(&mut rng);
            let mut rig = Rig::open(MemoryFiles::default(), Path::new(DIR), options);
            let mut operations = 0;
            for _ in 0..400 {
                let before = rig.backend.waiting();
                act(&mut rig, &mut rng, &mut Seen::default());
                operations += usize::from(rig.backend.waiting() < before);
                if operations > stop {
                    break;
                }
            }
            let finished = operations <= stop;
            let mut luck = Rng::with_seed(seed.0 ^ stop as u64);
            rig.backend.power_failure(&mut luck, [0.0, 0.5, 1.0][stop % 3]);
            rig.reopen();
            if finished {
                break;
            }
        }
    }
}

#[test]
fn a_seal_that_was_torn_from_its_mark_is_written_again_with_one() {
    let mut rig =
        Rig::open(MemoryFiles::default(), Path::new(DIR), small_options(Durability::Always));
    for _ in 0..3 {
        rig.append(1, &[7; 1136], 0).expect("there is room");
    }
    rig.drain();
    // Between the end of the records and that of the segment is room for a mark and a seal, and
    // for no second mark.
    let path = Path::new("/log/0000000001.seg");
    let tail = 512 + 32 + 3 * 1160;
    assert!((4096 - 88..=4096 - 56).contains(&tail));
    let position = rig.append(1, b"next", 0).expect("the next segment is ready").position;
    assert_eq!(position.segment.0, 2);
    rig.commit();
    rig.run(0);
    rig.backend.kill(&mut Rng::with_seed(1));
    rig.backend.disk.tamper(path, |bytes| bytes[tail + 32..].fill(0));
    rig.backend.disk.tamper(Path::new("/log/0000000002.seg"), |bytes| bytes[512..].fill(0));
    rig.kept.pop_last();
    let recovery = rig.reopen();
    assert_eq!(recovery.last.0, 3);
    for _ in 0..20 {
        rig.append(1, &[7; 100], 0).expect("there is room");
        rig.drain();
    }
    rig.verify();
    rig.reopen();
}

/// `kill -9` cannot show a missing sync, since the kernel's cache survives it. So here, whenever
/// the log lets something be acknowledged, everything that is not synced is lost on a copy of the
/// disk, and the copy is opened.
#[test]
fn an_acknowledgement_follows_the_sync_that_covers_it() {
    let mut acknowledgements = 0;
    for seed in seeds(12).map(Seed) {
        let mut rng = Rng::with_seed(seed.0);
        let mut options = options(&mut rng);
        options.durability = Durability::Always;
        let mut rig = Rig::open(MemoryFiles::default(), Path::new(DIR), options);
        for _ in 0..400 {
            let before = rig.ackable;
            act(&mut rig, &mut rng, &mut Seen::default());
            if rig.ackable == before {
                continue;
            }
            acknowledgements += 1;
            let copy = rig.backend.disk.fork();
            copy.power_failure(&mut rng, 0.0);
            let (_, recovery) = Log::open(&copy, &rig.dir, rig.options.clone()).expect("it opens");
            assert_eq!(recovery.read_only, None);
            assert!(recovery.last.0 >= rig.ackable, "{} of {}", recovery.last, rig.ackable);
        }
    }
    assert!(acknowledgements > 100, "{acknowledgements}");
}
