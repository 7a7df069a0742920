//! The ring's own simulated disk, under the log: a second opinion on what a crash may leave, with
//! operations that take their time, overtake each other, and fail.

use std::path::Path;
use std::time::Duration;

use fastrand::Rng;
use sextant_ring::disk::Disk;
use sextant_ring::driver::{FileDone, FileOp, Files};
use sextant_ring::sim::{SimFiles, World, seeds};
use sextant_segment::{AppendError, Log};

use crate::rig::{Backend, Rig, any_durability, any_retention, payload_of, small_options};

struct Sim {
    world: World,
    files: SimFiles,
}

impl Files for Sim {
    fn submit(&mut self, ticket: u64, op: FileOp) {
        self.files.submit(ticket, op);
    }
}

impl Backend for Sim {
    fn disk(&self) -> Box<dyn Disk> {
        Box::new(self.world.disk())
    }

    fn waiting(&self) -> usize {
        self.files.in_flight()
    }

    fn run(&mut self, _: usize) -> FileDone {
        self.files.wait().expect("an operation under way ends")
    }

    fn stop(&mut self) {
        self.files = self.world.files();
    }
}

fn act(rig: &mut Rig<Sim>, rng: &mut Rng) {
    match rng.u8(..9) {
        0..4 => match rig.append(rng.u8(..), &payload_of(rng, 1500), rng.u64(..1 << 48)) {
            Ok(_) | Err(AppendError::Backlog | AppendError::ReadOnly) => {}
            Err(AppendError::Full) => {
                rig.compact();
            }
            Err(error) => panic!("{error}"),
        },
        4..6 => rig.commit(),
        6 => {
            rig.now = rig.backend.world.now();
            rig.run(0);
        }
        7 => {
            rig.checkpoint(rng.u64(..=rig.log.last().0 + 1));
            if rng.u8(..20) == 0 {
                rig.retain(rng.u64(..1 << 48));
            }
        }
        _ => {
            if let Some(seq) = rng.choice(rig.kept.keys().copied().collect::<Vec<u64>>()) {
                match rng.bool() {
                    true => rig.retire(seq),
                    false => rig.fetch(seq, rng.bool().then(|| rng.u32(..2000))),
                }
            }
        }
    }
}

#[test]
fn what_was_durable_survives_crashes_and_errors_of_the_simulated_disk() {
    let (mut poisonings, mut fetched, mut unreadable) = (0, 0, 0);
    for seed in seeds(160) {
        eprintln!("SEXTANT_SEED={seed}");
        let world = World::new(seed);
        let mut rng = world.random();
        let mut options = small_options(any_durability(&mut rng));
        options.bytes_max = u64::from(rng.u32(16..64)) << 10;
        options.retention = any_retention(&mut rng, options.bytes_max);
        let backend = Sim { world: world.clone(), files: world.files() };
        let mut rig = Rig::open(backend, Path::new("/log"), options);
        for round in 0..rng.u32(1..6) {
            if round > 0 && rng.bool() {
                world.plan(|plan| {
                    plan.write_error = 0.01;
                    plan.sync_error = 0.02;
                    plan.read_error = 0.05;
                });
            }
            for _ in 0..rng.u32(..400) {
                act(&mut rig, &mut rng);
            }
            poisonings += u32::from(rig.log.read_only().is_some());
            world.crash_disk();
            world.plan(|plan| {
                (plan.write_error, plan.sync_error, plan.read_error) = (0.0, 0.0, 0.0);
            });
            while rng.u8(..3) == 0 {
                world.fail_disk(None, rng.u64(..12), 5);
                let _ = Log::open(&world.disk(), &rig.dir, rig.options.clone());
                world.crash_disk();
            }
            rig.now = rig.now + Duration::from_millis(1);
            rig.reopen();
        }
        (fetched, unreadable) = (fetched + rig.fetched, unreadable + rig.unreadable);
    }
    if std::env::var_os("SEXTANT_SEED").is_none() {
        assert!(poisonings > 10, "{poisonings}");
        assert!(fetched > 500 && unreadable > 20, "{fetched} fetched, {unreadable} unreadable");
    }
}
