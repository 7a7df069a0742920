//! Random use, compared with a map at every step.

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use sextant_segment::{AppendError, Durability, Options, Retention};

use crate::host::HostFiles;
use crate::memory::MemoryFiles;
use crate::rig::{Backend, Rig, small_options};

#[derive(Clone, Debug)]
enum Step {
    Append {
        kind: u8,
        len: u16,
        fill: u8,
    },
    Commit,
    Run {
        choice: usize,
    },
    Wait {
        ms: u8,
    },
    Hurry,
    Drain,
    Retire {
        seq: prop::sample::Index,
    },
    Fetch {
        seq: prop::sample::Index,
        guess: Option<u32>,
    },
    Checkpoint {
        seq: prop::sample::Index,
    },
    Retain {
        unix_ms: u64,
    },
    Compact,
    Verify,
    Settle,
    /// The process ends without a word.
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (any::<u8>(), 0u16..=1500, any::<u8>())
            .prop_map(|(kind, len, fill)| Step::Append { kind, len, fill }),
        6 => Just(Step::Commit),
        8 => any::<usize>().prop_map(|choice| Step::Run { choice }),
        1 => (1u8..20).prop_map(|ms| Step::Wait { ms }),
        1 => Just(Step::Hurry),
        2 => Just(Step::Drain),
        6 => any::<prop::sample::Index>().prop_map(|seq| Step::Retire { seq }),
        6 => (any::<prop::sample::Index>(), proptest::option::of(0u32..2000))
            .prop_map(|(seq, guess)| Step::Fetch { seq, guess }),
        3 => any::<prop::sample::Index>().prop_map(|seq| Step::Checkpoint { seq }),
        1 => (0u64..3000).prop_map(|unix_ms| Step::Retain { unix_ms }),
        2 => Just(Step::Compact),
        1 => Just(Step::Verify),
        1 => Just(Step::Settle),
        1 => Just(Step::Reopen),
    ]
}

fn durability() -> impl Strategy<Value = Durability> {
    prop_oneof![
        Just(Durability::Always),
        Just(Durability::Every(Duration::from_millis(5))),
        Just(Durability::Os),
    ]
}

fn retention() -> impl Strategy<Value = Retention> {
    let bytes_max = proptest::option::of(16u64..=64).prop_map(|kib| kib.map(|kib| kib << 10));
    let age_max = proptest::option::of(1u64..2000).prop_map(|ms| ms.map(Duration::from_millis));
    (bytes_max, age_max).prop_map(|(bytes_max, age_max)| Retention { bytes_max, age_max })
}

fn options() -> impl Strategy<Value = Options> {
    let linger = prop_oneof![Just(0), 1u64..40].prop_map(Duration::from_millis);
    (durability(), retention(), linger).prop_map(|(durability, retention, linger)| Options {
        retention,
        linger,
        ..small_options(durability)
    })
}

fn play<B: Backend>(rig: &mut Rig<B>, steps: Vec<Step>) {
    for step in steps {
        match step {
            Step::Append { kind, len, fill } => {
                let payload = vec![fill; len as usize];
                match rig.append(kind, &payload, u64::from(len)) {
                    Ok(_) => {}
                    Err(AppendError::Backlog) => rig.drain(),
                    Err(AppendError::Full) => {
                        rig.compact();
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            Step::Commit => rig.commit(),
            Step::Run { choice } => {
                rig.run(choice);
            }
            Step::Wait { ms } => {
                rig.now = rig.now + Duration::from_millis(u64::from(ms));
                rig.commit();
            }
            Step::Hurry => rig.log.hurry(),
            Step::Drain => rig.drain(),
            Step::Retire { seq } if !rig.kept.is_empty() => {
                let seq = *seq.get(&rig.kept.keys().copied().collect::<Vec<u64>>());
                rig.retire(seq);
            }
            Step::Fetch { seq, guess } if !rig.kept.is_empty() => {
                let seq = *seq.get(&rig.kept.keys().copied().collect::<Vec<u64>>());
                rig.fetch(seq, guess);
            }
            Step::Retire { .. } | Step::Fetch { .. } => {}
            Step::Checkpoint { seq } => {
                let below = rig.log.last().0 + 2;
                rig.checkpoint(seq.index(below as usize) as u64);
            }
            Step::Retain { unix_ms } => {
                rig.retain(unix_ms);
            }
            Step::Compact => {
                rig.compact();
            }
            Step::Verify => rig.verify(),
            Step::Settle => rig.settle(),
            Step::Reopen => {
                rig.reopen();
            }
        }
    }
    rig.verify();
    rig.settle();
    rig.log.close(&mut rig.backend);
    while rig.run(0) {}
    assert!(rig.log.is_closed());
    rig.reopen();
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(20))]

    #[test]
    fn the_log_holds_what_was_appended_on_the_host(
        steps in proptest::collection::vec(step(), 1..250),
        options in options(),
    ) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("log");
        play(&mut Rig::open(HostFiles::default(), &path, options), steps);
    }
}

proptest! {
    #![proptest_config(config(256))]

    #[test]
    fn the_log_holds_what_was_appended_in_memory(
        steps in proptest::collection::vec(step(), 1..500),
        options in options(),
    ) {
        let backend = MemoryFiles::default();
        play(&mut Rig::open(backend, Path::new("/log"), options), steps);
    }
}
