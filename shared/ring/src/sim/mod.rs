//! A simulated machine: its network, its disk and its clocks, all of them drawn from one seed.
//! Cores with a [`SimDriver`] live in a [`World`], as many as a test likes, all on one thread.
//! Two runs of one seed are the same run, turn for turn ([`World::trace`] says so).
//!
//! ```text
//!    test ──► SimPeer, SimUdp, SimDisk, Plan
//!      │               │
//!      ▼               ▼
//!    World ── events in virtual time ── completions ──► SimDriver ──► Core, App
//!      └──────────── run_until: whose turn is it ───────────────────────┘
//! ```
//!
//! What it promises: an operation completes at a random later time; operations are overtaken by
//! others unless they concern one direction of one stream; streams are cut at random; a lasting
//! operation may end with any of its completions; completions that find no room come late; what
//! was cancelled may have succeeded; clocks leap, cores stall, the whole machine stands still; and
//! errors have the numbers that Linux gives them.
//! [`Plan`] turns faults on. The rules of [`Driver`](crate::driver::Driver) are checked: an
//! operation on a socket that was closed, two receives at once on one, a close with operations
//! under way are panics that name the seed.
//!
//! What there is none of: late notifications of zero-copy sends, since no operation of the ring
//! sends without a copy.
//!
//! What it leaves to others: no time passes in a turn, and nothing happens between a core's look
//! at its queues and its sleep. Races between threads are for the mesh's own tests.

mod disk;
mod driver;
mod files;
mod net;
mod ops;
mod peer;
mod plan;
mod state;

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use self::disk::SimDisk;
pub use self::driver::{SimDriver, SimFiles};
pub use self::peer::{SimListener, SimPeer, SimUdp};
pub use self::plan::{Access, Plan};
use self::state::{Next, State};
use crate::core::{App, Core};
use crate::mesh::Remote;
use crate::time::{Clock, Time};

/// Something that a [`World`] turns: a core.
pub trait Turn {
    /// Takes one turn.
    fn turn(&mut self, clock: Clock);

    /// The remote of its driver, by which the world knows it.
    fn remote(&self) -> Remote;

    /// Whether it is not to be turned any more.
    fn is_finished(&self) -> bool {
        false
    }
}

impl<A: App> Turn for Core<SimDriver, A> {
    fn turn(&mut self, clock: Clock) {
        if let Err(error) = Core::turn(self, clock) {
            panic!("a simulated driver failed: {error}");
        }
    }

    fn remote(&self) -> Remote {
        crate::driver::Driver::remote(self.driver())
    }

    fn is_finished(&self) -> bool {
        Core::is_finished(self)
    }
}

/// A simulated machine. Clones are handles of the same one.
#[derive(Clone)]
pub struct World(Arc<Mutex<State>>);

impl World {
    /// A machine with an empty disk, in which everything random comes from `seed`.
    pub fn new(seed: u64) -> World {
        World(Arc::new(Mutex::new(State::new(seed))))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic with the lock held is a failed test; what is dropped meanwhile may go on.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is(&self, other: &World) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.lock().seed
    }

    /// A source of random numbers of its own for a test, that follows from the seed.
    pub fn random(&self) -> fastrand::Rng {
        self.lock().rng.fork()
    }

    /// Changes limits, delays and faults from now on.
    pub fn plan(&self, change: impl FnOnce(&mut Plan)) {
        change(&mut self.lock().plan);
    }

    /// A driver for one core.
    pub fn driver(&self, remote: Remote) -> SimDriver {
        SimDriver::new(self.clone(), remote)
    }

    /// The disk.
    pub fn disk(&self) -> SimDisk {
        SimDisk(self.clone())
    }

    /// The disk's files without a core.
    pub fn files(&self) -> SimFiles {
        SimFiles::new(self.driver(Remote::sim()))
    }

    // --- Time ---

    /// Virtual time, on the monotonic clock.
    pub fn now(&self) -> Time {
        Time::from_nanos(self.lock().now)
    }

    /// Both clocks.
    pub fn clock(&self) -> Clock {
        let state = self.lock();
        Clock { now: Time::from_nanos(state.now), unix_ms: state.unix_ms() }
    }

    /// Sets the wall clock, as an operator or a time server would.
    pub fn set_unix_ms(&self, unix_ms: u64) {
        self.lock().set_unix_ms(unix_ms);
    }

    /// Moves the wall clock by so many milliseconds, back if it is negative.
    pub fn leap_unix_ms(&self, by: i64) {
        let mut state = self.lock();
        let unix_ms = state.unix_ms().saturating_add_signed(by);
        state.set_unix_ms(unix_ms);
    }

    /// Suspends the machine and all around it, as one that is paused and goes on later: nothing
    /// happens for so long, both clocks show it afterwards, and deadlines are found to have passed
    /// before anything that was under way has arrived. (A core that stalls while everything else
    /// goes on is [`Plan::stall`].)
    pub fn suspend(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).expect("a pause that 584 years are enough for");
        self.lock().suspend(nanos);
    }

    /// A number that sums up everything that has happened: equal for equal runs.
    pub fn trace(&self) -> u64 {
        self.lock().trace()
    }

    /// Passes time until one of the cores has something to do, and tells which, by its place in
    /// `cores`; `None` when nothing happens until `limit`, which it then is. The caller turns the
    /// core with [`World::turn`].
    pub fn step(&self, cores: &[Remote], limit: Time) -> Option<usize> {
        let numbers: Vec<usize> = cores
            .iter()
            .map(|remote| remote.ring().expect("a core of this world") as usize)
            .collect();
        match self.lock().next(limit.as_nanos(), |core| numbers.contains(&core)) {
            Next::Core(core) => numbers.iter().position(|&number| number == core),
            Next::Limit => None,
        }
    }

    /// Turns a core once.
    pub fn turn(&self, core: &mut dyn Turn) {
        core.turn(self.clock());
        // The core is asleep from here until it is turned again.
        core.remote().announce_sleep();
    }

    /// Lets time pass, and turns whichever core has something to do, until `done` says so or
    /// `limit` has passed. Tells whether it was `done`: that is asked before every turn, and every
    /// millisecond while something happens between turns.
    pub fn run_until(
        &self,
        cores: &mut [&mut dyn Turn],
        limit: Duration,
        mut done: impl FnMut() -> bool,
    ) -> bool {
        self.run(cores, limit, |_| done())
    }

    /// As [`World::run_until`] without a condition.
    pub fn run_for(&self, cores: &mut [&mut dyn Turn], time: Duration) {
        self.run(cores, time, |_| false);
    }

    /// As [`World::run_until`], until all cores are finished. Tells whether they are.
    pub fn run_to_end(&self, cores: &mut [&mut dyn Turn], limit: Duration) -> bool {
        self.run(cores, limit, |cores| cores.iter().all(|core| core.is_finished()))
    }

    fn run(
        &self,
        cores: &mut [&mut dyn Turn],
        limit: Duration,
        mut done: impl FnMut(&[&mut dyn Turn]) -> bool,
    ) -> bool {
        let mut running: Vec<(usize, Remote)> =
            cores.iter().enumerate().map(|(n, core)| (n, core.remote())).collect();
        let limit = self.now() + limit;
        while !done(cores) {
            running.retain(|(n, _)| !cores[*n].is_finished());
            let remotes: Vec<Remote> = running.iter().map(|(_, remote)| remote.clone()).collect();
            let next = self.lock().next_event().map_or(Time::NEVER, Time::from_nanos);
            let look_again = next.max(self.now() + Duration::from_millis(1)).min(limit);
            match self.step(&remotes, look_again) {
                Some(at) => self.turn(&mut *cores[running[at].0]),
                None if look_again == limit => return done(cores),
                None => {}
            }
        }
        true
    }

    // --- The other side ---

    /// A scripted peer that calls `to`.
    pub fn connect(&self, to: SocketAddr) -> SimPeer {
        SimPeer::connect(self.clone(), to)
    }

    /// A scripted server, for cores that connect to it.
    pub fn listen(&self, addr: SocketAddr) -> SimListener {
        SimListener::new(self.clone(), addr)
    }

    /// A scripted datagram socket; port 0 gets a free one.
    ///
    /// # Errors
    /// `EADDRINUSE`.
    pub fn bind_udp(&self, addr: SocketAddr) -> std::io::Result<SimUdp> {
        SimUdp::bind(self.clone(), addr)
    }

    // --- Harm ---

    /// Ends all cores at once, as a power failure does, and leaves on the disk what one might
    /// find there: of every sector that was not synced any version or none, of every change of a
    /// directory that was not synced the change or not. The cores' drivers are of no use any
    /// more; new ones find the disk as it is now.
    pub fn crash_disk(&self) {
        let mut state = self.lock();
        for core in 0..state.cores.len() {
            state.kill(core);
        }
        let State { store, rng, .. } = &mut *state;
        store.crash(rng);
    }

    /// Whether a crash now would lose nothing that was written.
    pub fn is_durable(&self) -> bool {
        self.lock().store.is_durable()
    }

    /// The disk's size in bytes of content: writes past it fail with `ENOSPC`, after what there
    /// was room for.
    pub fn disk_limit(&self, bytes: u64) {
        self.lock().store.limit = bytes;
    }

    /// Fails one access to the disk with an error number: the first of its kind (`None`: of any)
    /// after `spared` more have succeeded. A crash forgets failures that have not come about.
    pub fn fail_disk(&self, access: Option<Access>, spared: u64, errno: i32) {
        self.lock().store.fail(access, spared, errno);
    }

    /// Panics if a driver holds anything: a buffer on loan, an operation under way, a connection.
    /// (Datagram sockets are its own until it is dropped.)
    pub fn assert_quiet(&self, driver: &SimDriver) {
        assert!(driver.is_in(self), "the driver lives in another world");
        let found = driver::leftovers(self, driver.core());
        assert!(
            found.is_empty(),
            "core {} is not quiet: {} [SEXTANT_SEED={}]",
            driver.core(),
            found.join(", "),
            self.seed()
        );
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        write!(f, "World(seed {}, {})", state.seed, Time::from_nanos(state.now))
    }
}

/// The seeds that a random test plays: those in the environment's `SEXTANT_SEED`, one (`7`) or
/// several (`1000..2000`), or else the first `count`.
///
/// # Panics
/// When it is set to something else.
pub fn seeds(count: u64) -> std::ops::Range<u64> {
    let Ok(asked) = std::env::var("SEXTANT_SEED") else { return 0..count };
    let number = |text: &str| text.parse::<u64>().ok();
    let range = match asked.split_once("..") {
        Some((from, to)) => number(from).zip(number(to)),
        None => number(&asked).and_then(|seed| Some((seed, seed.checked_add(1)?))),
    };
    let (from, to) = range.unwrap_or_else(|| panic!("SEXTANT_SEED is 7 or 7..9, not {asked:?}"));
    from..to
}

#[cfg(test)]
mod tests;
