//! A simulated machine with one core of the store on it: some instances, each with its log on one
//! disk and a listener of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sextant_engine::{Engine, Options as EngineOptions};
use sextant_ring::core::{self, App, Core, Envelope};
use sextant_ring::driver::{Driver, Listener};
use sextant_ring::mesh::{Remote, mesh};
use sextant_ring::sim::{Plan, SimDriver, SimPeer, Turn, World};
use sextant_ring::time::Time;
use sextant_segment::{Durability, Options};
use sextant_shard::{Command, Instance, Keeper, Message, PART_BYTES, Shard};

use tempfile::TempDir;

use crate::local::Local;

/// Databases of an instance.
pub(crate) const DATABASES: usize = 4;
const START_MS: u64 = 1_800_000_000_000;

/// How the core is set up.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) instances: usize,
    pub(crate) durability: Durability,
    pub(crate) log_bytes_max: u64,
    pub(crate) segment_bytes_max: u32,
    pub(crate) commit_bytes_max: u32,
    pub(crate) hot_bytes: u32,
    pub(crate) send_bytes_max: usize,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            instances: 1,
            durability: Durability::Always,
            log_bytes_max: 64 << 20,
            segment_bytes_max: 512 << 10,
            commit_bytes_max: 64 << 10,
            hot_bytes: 0,
            send_bytes_max: 1 << 20,
        }
    }
}

impl Setup {
    fn log_options(&self, instance: usize) -> Options {
        let record_bytes_max = PART_BYTES as u32;
        let segment_bytes_min = record_bytes_max + 8192;
        let options = Options {
            segment_bytes_min,
            segment_bytes_max: self.segment_bytes_max.max(segment_bytes_min),
            bytes_max: self.log_bytes_max,
            record_bytes_max,
            commit_bytes_max: self.commit_bytes_max,
            backlog_bytes_max: 4 * record_bytes_max,
            durability: self.durability,
            hot_bytes: self.hot_bytes,
            ..Options::new(0x5707_e000 + instance as u64, instance as u16 + 1)
        };
        options.check().unwrap();
        options
    }
}

/// The machine.
pub(crate) struct Rig {
    pub(crate) world: World,
    pub(crate) setup: Setup,
    core: Option<Core<SimDriver, Shard>>,
    dir: TempDir,
    pub(crate) starts: u64,
}

impl Rig {
    /// A machine on which the core runs, with what `plan` makes of its limits and faults.
    pub(crate) fn new(seed: u64, setup: Setup, plan: impl FnOnce(&mut Plan)) -> Rig {
        let world = World::new(seed);
        world.plan(plan);
        world.set_unix_ms(START_MS);
        let dir = tempfile::tempdir().unwrap();
        let mut rig = Rig { world, setup, core: None, dir, starts: 0 };
        rig.start(|_, _| ());
        rig
    }

    /// Starts the core from what is on the disk; shows each instance's databases before that.
    pub(crate) fn start(&mut self, mut look: impl FnMut(usize, &mut Local)) {
        assert!(self.core.is_none(), "it is stopped first");
        self.starts += 1;
        let remote = Remote::sim();
        let port = mesh::<Envelope<Message>>(std::slice::from_ref(&remote), 0, 64).remove(0);
        let limits =
            core::Limits { send_bytes_max: self.setup.send_bytes_max, ..core::Limits::default() };
        let shard = Shard::new(Box::new(|| {}));
        let driver = self.world.driver(remote);
        let clock = self.world.clock();
        let mut core = Core::new(driver, shard, port, Vec::new(), limits, clock);
        for number in 0..self.setup.instances {
            let seed = self.world.seed() ^ self.starts << 32;
            let options = EngineOptions { seed, databases: DATABASES, journal: true, clock: || 0 };
            let mut engine = Engine::new(&options);
            // The image is a file of the host's.
            let dir = self.dir.path().join(number.to_string());
            std::fs::create_dir_all(&dir).unwrap();
            let disk = self.world.disk();
            let log = self.setup.log_options(number);
            let (keeper, _) = Keeper::open(&disk, &dir, log, engine.keyspace()).unwrap();
            let mut local = Local::over(engine);
            local.set_now(clock.unix_ms);
            look(number, &mut local);
            let engine = local.into_engine();
            let name = format!("instance-{number}");
            let mut instance = Instance::new(number as u32, name, engine, Some(keeper));
            instance.listeners = vec![Arc::new(Listener::sim(address(number)))];
            let (shard, cx) = core.app_mut();
            shard.on_message(cx, Message::Command(Command::Open(Box::new(instance))));
        }
        self.core = Some(core);
        self.pass(Duration::from_micros(500));
    }

    /// Does something to an instance.
    pub(crate) fn with<T: Send + 'static>(
        &mut self,
        number: usize,
        act: impl FnOnce(&mut Instance) -> T + Send + 'static,
    ) -> T {
        let (tell, told) = std::sync::mpsc::channel();
        let act = Box::new(move |instance: Option<&mut Instance>| {
            tell.send(act(instance.expect("there is one"))).unwrap();
        });
        let (shard, cx) = self.core.as_mut().expect("it runs").app_mut();
        shard.on_message(cx, Message::Command(Command::With { id: number as u32, act }));
        told.recv().unwrap()
    }

    pub(crate) fn is_read_only(&mut self, number: usize) -> bool {
        let look =
            |instance: &mut Instance| instance.keeper.as_ref().unwrap().log().read_only().is_some();
        self.with(number, look)
    }

    /// The number of the oldest segment of an instance's log.
    pub(crate) fn oldest_segment(&mut self, number: usize) -> u32 {
        let look = |instance: &mut Instance| {
            instance.keeper.as_ref().unwrap().log().oldest().map_or(0, |oldest| oldest.id.0)
        };
        self.with(number, look)
    }

    /// The power fails: what was not synced is there or not.
    pub(crate) fn crash(&mut self) {
        self.world.crash_disk();
        self.core = None;
    }

    /// The process ends at once; the machine goes on.
    pub(crate) fn kill(&mut self) {
        self.core = None;
        self.pass(Duration::from_millis(50));
    }

    /// The core ends in order; whether it did, within a time.
    pub(crate) fn stop(&mut self) -> bool {
        let deadline = self.world.now() + Duration::from_secs(2);
        let core = self.core.as_mut().expect("it runs");
        core.app_mut().1.stop(deadline);
        core.remote().notify();
        let mut core = self.core.take().expect("it runs");
        let world = self.world.clone();
        world.run_to_end(&mut [&mut core], Duration::from_secs(20))
    }

    /// Lets some time pass in which the core does what it has to.
    pub(crate) fn pass(&mut self, time: Duration) {
        let limit = self.world.now() + time;
        self.pass_to(limit);
    }

    fn pass_to(&mut self, limit: Time) {
        loop {
            let remotes: Vec<Remote> =
                self.core.iter().map(|core| Driver::remote(core.driver())).collect();
            match self.world.step(&remotes, limit) {
                Some(_) => self.world.turn(self.core.as_mut().expect("it has a turn")),
                None => return,
            }
        }
    }

    /// Lets time pass until it is so; whether it came so, within twenty seconds.
    pub(crate) fn until(&mut self, mut is_so: impl FnMut() -> bool) -> bool {
        for _ in 0..100_000 {
            if is_so() {
                return true;
            }
            self.pass(Duration::from_micros(200));
        }
        false
    }

    /// Turns that the core has taken since it began.
    pub(crate) fn turns(&mut self) -> u64 {
        self.core.as_mut().map_or(0, |core| core.app_mut().1.stats().turns)
    }

    pub(crate) fn connect(&self, instance: usize) -> SimPeer {
        self.world.connect(address(instance))
    }
}

fn address(instance: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 6379 + instance as u16))
}
