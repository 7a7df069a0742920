//! Cores that play scripted roles. A scenario gives each core a closure that hears every event;
//! what it finds out goes into state that the scenario shares with its closures. A play is over
//! when every core has stopped.
//!
//! In the simulation all cores are turned on the test's thread; on io_uring and on epoll each has
//! a thread of its own, as in a daemon, and a play that takes too long is a failure.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Barrier, Mutex, MutexGuard, mpsc};
use std::time::{Duration, Instant};

use fastrand::Rng;
use sextant_ring::core::{App, CloseReason, ConnId, Core, Cx, Envelope, Limits, UdpId};
use sextant_ring::disk::{Disk, HostDisk};
use sextant_ring::driver::{Driver, FileDone, Listener};
use sextant_ring::epoll::Epoll;
use sextant_ring::mesh::{Port, Remote, mesh};
use sextant_ring::sim::{SimDriver, Turn, World, seeds};
use sextant_ring::time::{Clock, Time};
use sextant_ring::uring::Uring;
use sextant_ring::{epoll, uring};

/// How long a play may take, in real or in virtual time.
const PLAY_MAX: Duration = Duration::from_secs(60);

/// Messages that fit in a queue of the mesh.
const QUEUE: usize = 64;

/// What cores tell each other in these tests.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Msg {
    /// Stop, within so long.
    Stop(Duration),
    Number(u64),
    Addr(SocketAddr),
}

/// What an app can hear.
#[derive(Debug)]
pub(crate) enum Event {
    Start,
    /// A connection, and the number of its listener.
    Accepted(ConnId, usize),
    Connected(u64, io::Result<ConnId>),
    Handed(ConnId, Msg, Vec<u8>),
    HandOverFailed(ConnId),
    Data(ConnId, Vec<u8>),
    Peer(io::Result<SocketAddr>),
    Drained(ConnId),
    Closed(ConnId, CloseReason),
    Datagram(UdpId, SocketAddr, Vec<u8>),
    Timer(u64),
    Message(Msg),
    File(FileDone),
    Stopping,
}

type Script = Box<dyn FnMut(&mut Cx<Msg>, Event) + Send>;

/// A core's part in a play.
pub(crate) struct Role {
    pub(crate) script: Script,
    pub(crate) listeners: Vec<Arc<Listener>>,
    pub(crate) limits: Limits,
    /// Where to put the datagram socket that the core shall have.
    pub(crate) udp: Option<Shared<Option<(UdpId, SocketAddr)>>>,
}

impl Role {
    pub(crate) fn new(script: impl FnMut(&mut Cx<Msg>, Event) + Send + 'static) -> Role {
        Role {
            script: Box::new(script),
            listeners: Vec::new(),
            limits: Limits::default(),
            udp: None,
        }
    }

    pub(crate) fn listening(mut self, listener: &Arc<Listener>) -> Role {
        self.listeners.push(Arc::clone(listener));
        self
    }

    pub(crate) fn limits(mut self, change: impl FnOnce(&mut Limits)) -> Role {
        change(&mut self.limits);
        self
    }

    pub(crate) fn udp(mut self, at: &Shared<Option<(UdpId, SocketAddr)>>) -> Role {
        self.udp = Some(at.clone());
        self
    }
}

/// Ends the play: this core stops, and tells the others to. What is left then has a second.
pub(crate) fn stop_all(cx: &mut Cx<Msg>) {
    let grace = Duration::from_secs(1);
    for core in 0..cx.cores() {
        if core != cx.core() {
            cx.tell(core, Msg::Stop(grace));
        }
    }
    cx.stop(cx.now() + grace);
}

/// State that a scenario shares with its scripts.
pub(crate) struct Shared<T>(Arc<Mutex<T>>);

impl<T> Shared<T> {
    pub(crate) fn new(value: T) -> Shared<T> {
        Shared(Arc::new(Mutex::new(value)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap()
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Shared<T> {
        Shared(Arc::clone(&self.0))
    }
}

struct Actor(Script);

impl App for Actor {
    type Message = Msg;

    fn on_start(&mut self, cx: &mut Cx<Msg>) {
        (self.0)(cx, Event::Start);
    }

    fn on_accept(&mut self, cx: &mut Cx<Msg>, conn: ConnId, listener: usize) {
        (self.0)(cx, Event::Accepted(conn, listener));
    }

    fn on_connect(&mut self, cx: &mut Cx<Msg>, key: u64, result: io::Result<ConnId>) {
        (self.0)(cx, Event::Connected(key, result));
    }

    fn on_handed(&mut self, cx: &mut Cx<Msg>, conn: ConnId, note: Msg, data: &[u8]) {
        (self.0)(cx, Event::Handed(conn, note, data.to_vec()));
    }

    fn on_hand_over_failed(&mut self, cx: &mut Cx<Msg>, conn: ConnId, _error: io::Error) {
        (self.0)(cx, Event::HandOverFailed(conn));
    }

    fn on_data(&mut self, cx: &mut Cx<Msg>, conn: ConnId, data: &[u8]) {
        (self.0)(cx, Event::Data(conn, data.to_vec()));
    }

    fn on_peer(&mut self, cx: &mut Cx<Msg>, _conn: ConnId, addr: io::Result<SocketAddr>) {
        (self.0)(cx, Event::Peer(addr));
    }

    fn on_drained(&mut self, cx: &mut Cx<Msg>, conn: ConnId) {
        (self.0)(cx, Event::Drained(conn));
    }

    fn on_close(&mut self, cx: &mut Cx<Msg>, conn: ConnId, reason: CloseReason) {
        (self.0)(cx, Event::Closed(conn, reason));
    }

    fn on_datagram(&mut self, cx: &mut Cx<Msg>, socket: UdpId, from: SocketAddr, data: &[u8]) {
        (self.0)(cx, Event::Datagram(socket, from, data.to_vec()));
    }

    fn on_timer(&mut self, cx: &mut Cx<Msg>, key: u64) {
        (self.0)(cx, Event::Timer(key));
    }

    fn on_message(&mut self, cx: &mut Cx<Msg>, message: Msg) {
        if let Msg::Stop(grace) = message {
            cx.stop(cx.now() + grace);
            return;
        }
        (self.0)(cx, Event::Message(message));
    }

    fn on_file(&mut self, cx: &mut Cx<Msg>, done: FileDone) {
        (self.0)(cx, Event::File(done));
    }

    fn on_stop(&mut self, cx: &mut Cx<Msg>) {
        (self.0)(cx, Event::Stopping);
    }
}

/// A driver's buffers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Buffers {
    pub(crate) small: (u16, u32),
    pub(crate) bulk: (u16, u32),
}

/// Where a play takes place.
pub(crate) enum Stage {
    Sim { world: World, ports: Cell<u16> },
    Kernel { dir: tempfile::TempDir, host: Host, rng: Rng },
}

/// What of the kernel's stands behind the cores, and how it is laid out.
#[derive(Clone, Debug)]
pub(crate) enum Host {
    Uring(uring::Options),
    Epoll(epoll::Options),
}

impl Stage {
    pub(crate) fn is_sim(&self) -> bool {
        matches!(self, Stage::Sim { .. })
    }

    pub(crate) fn is_epoll(&self) -> bool {
        matches!(self, Stage::Kernel { host: Host::Epoll(_), .. })
    }

    /// Random numbers, from the seed in the simulation.
    pub(crate) fn random(&mut self) -> Rng {
        match self {
            Stage::Sim { world, .. } => world.random(),
            Stage::Kernel { rng, .. } => rng.fork(),
        }
    }

    /// Lays out the receive buffers of drivers made from now on.
    pub(crate) fn buffers(&mut self, buffers: Buffers) {
        match self {
            Stage::Sim { world, .. } => world.plan(|plan| {
                plan.small = buffers.small;
                plan.bulk = buffers.bulk;
            }),
            Stage::Kernel { host: Host::Uring(options), .. } => {
                (options.small, options.bulk) = (buffers.small, buffers.bulk);
            }
            Stage::Kernel { host: Host::Epoll(options), .. } => {
                (options.small, options.bulk) = (buffers.small, buffers.bulk);
            }
        }
    }

    /// Sets how many sockets drivers made from now on can hold.
    pub(crate) fn sockets_max(&mut self, max: u32) {
        match self {
            Stage::Sim { world, .. } => world.plan(|plan| plan.sockets_max = max),
            Stage::Kernel { host: Host::Uring(options), .. } => options.sockets_max = max,
            Stage::Kernel { host: Host::Epoll(options), .. } => options.sockets_max = max,
        }
    }

    /// A new listener.
    pub(crate) fn listener(&self) -> Arc<Listener> {
        let addr = self.free_addr();
        Arc::new(match self {
            Stage::Sim { .. } => Listener::sim(addr),
            Stage::Kernel { .. } => {
                Listener::new(std::net::TcpListener::bind("127.0.0.1:0").unwrap()).unwrap()
            }
        })
    }

    /// An address on which nobody listens.
    pub(crate) fn free_addr(&self) -> SocketAddr {
        match self {
            Stage::Sim { ports, .. } => {
                ports.set(ports.get() + 1);
                SocketAddr::from(([127, 0, 0, 1], ports.get()))
            }
            Stage::Kernel { .. } => {
                let bound = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                bound.local_addr().unwrap()
            }
        }
    }

    /// An address at which calls are not answered for as long as the second value lives.
    pub(crate) fn deaf_addr(&self) -> (SocketAddr, Box<dyn std::any::Any>) {
        match self {
            Stage::Sim { world, .. } => {
                let far = Duration::from_secs(30);
                world.plan(|plan| plan.network_delay = far..=far);
                (self.free_addr(), Box::new(()))
            }
            Stage::Kernel { .. } => {
                use socket2::{Domain, Socket, Type};
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
                socket.listen(0).unwrap();
                let addr = socket.local_addr().unwrap().as_socket().unwrap();
                // The one call that its backlog has room for.
                let call = std::net::TcpStream::connect(addr).unwrap();
                (addr, Box::new((socket, call)))
            }
        }
    }

    /// The time there, virtual or real.
    pub(crate) fn now(&self) -> Time {
        match self {
            Stage::Sim { world, .. } => world.now(),
            Stage::Kernel { .. } => Clock::read().now,
        }
    }

    /// An empty directory.
    pub(crate) fn dir(&self) -> PathBuf {
        match self {
            Stage::Sim { .. } => "data".into(),
            Stage::Kernel { dir, .. } => dir.path().join("data"),
        }
    }

    /// The disk that the cores' files are on.
    pub(crate) fn disk(&self) -> Box<dyn Disk> {
        match self {
            Stage::Sim { world, .. } => Box::new(world.disk()),
            Stage::Kernel { .. } => Box::new(HostDisk),
        }
    }

    /// Lets the roles play until every core has stopped, with nothing left behind.
    pub(crate) fn play(&mut self, roles: Vec<Role>) {
        match self {
            Stage::Sim { world, .. } => {
                let cores = play_simulated(world, roles, false);
                // What nobody waits for, such as the close of a connection that was refused.
                world.run_for(&mut [], Duration::from_secs(1));
                for core in &cores {
                    world.assert_quiet(core.driver());
                }
            }
            Stage::Kernel { host, .. } => play_on_kernel(host, roles),
        }
    }

    /// As [`Stage::play`], for cores that stop at different times: each takes down with it what
    /// others send it afterwards.
    pub(crate) fn play_until_each_stops(&mut self, roles: Vec<Role>) {
        match self {
            Stage::Sim { world, .. } => drop(play_simulated(world, roles, true)),
            Stage::Kernel { host, .. } => play_on_kernel(host, roles),
        }
    }
}

fn core_of<D: Driver>(
    driver: D,
    role: Role,
    port: Port<Envelope<Msg>>,
    clock: Clock,
) -> Core<D, Actor> {
    let Role { script, listeners, limits, udp } = role;
    let mut core = Core::new(driver, Actor(script), port, listeners, limits, clock);
    if let Some(at) = udp {
        *at.lock() = Some(core.bind_udp(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap());
    }
    core
}

/// Returns the finished cores, unless each shall be dropped as it finishes.
fn play_simulated(world: &World, roles: Vec<Role>, drop_each: bool) -> Vec<Core<SimDriver, Actor>> {
    let remotes: Vec<Remote> = roles.iter().map(|_| Remote::sim()).collect();
    let ports = mesh(&remotes, 0, QUEUE);
    let mut playing: Vec<_> = roles
        .into_iter()
        .zip(ports)
        .zip(&remotes)
        .map(|((role, port), remote)| {
            core_of(world.driver(remote.clone()), role, port, world.clock())
        })
        .collect();
    let mut finished = Vec::new();
    let limit = world.now() + PLAY_MAX;
    while !playing.is_empty() {
        let remotes: Vec<Remote> = playing.iter().map(Turn::remote).collect();
        let Some(next) = world.step(&remotes, limit) else {
            let stuck: Vec<_> = playing.iter().map(Core::driver).collect();
            panic!("the play does not end, on cores {stuck:?} of {world:?}");
        };
        world.turn(&mut playing[next]);
        if playing[next].is_finished() {
            let core = playing.remove(next);
            if !drop_each {
                finished.push(core);
            }
        }
    }
    finished
}

/// Says when a core's thread ends, and how.
struct Ending {
    core: usize,
    to: mpsc::Sender<(usize, bool)>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.to.send((self.core, !std::thread::panicking()));
    }
}

fn play_on_kernel(host: &Host, roles: Vec<Role>) {
    let remotes: Vec<Remote> = roles.iter().map(|_| Remote::host().unwrap()).collect();
    let ports = mesh(&remotes, 0, QUEUE);
    // Nothing can be handed to a core whose ring is not there yet.
    let ready = Arc::new(Barrier::new(roles.len()));
    let (to, endings) = mpsc::channel();
    let mut playing: Vec<usize> = (0..roles.len()).collect();
    let cast = roles.into_iter().zip(ports).zip(remotes).enumerate();
    for (number, ((role, port), remote)) in cast {
        let ending = Ending { core: number, to: to.clone() };
        let (host, ready) = (host.clone(), Arc::clone(&ready));
        let run = move || {
            let ending = ending;
            let clock = Clock::read();
            match host {
                Host::Uring(options) => {
                    let driver = Uring::new(&options, remote).unwrap();
                    let core = core_of(driver, role, port, clock);
                    ready.wait();
                    run_to_the_last_completion(core, ending.core);
                }
                Host::Epoll(options) => {
                    let driver = Epoll::new(&options, remote).unwrap();
                    let core = core_of(driver, role, port, clock);
                    ready.wait();
                    run_to_the_last_completion(core, ending.core);
                }
            }
        };
        // It is not joined: one that never ends would take the test with it.
        std::thread::Builder::new().name(format!("core {number}")).spawn(run).unwrap();
    }
    let deadline = Instant::now() + PLAY_MAX;
    while !playing.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        let (core, well) = endings
            .recv_timeout(left)
            .unwrap_or_else(|_| panic!("the play does not end, on cores {playing:?}"));
        assert!(well, "core {core} failed");
        playing.retain(|&other| other != core);
    }
}

fn run_to_the_last_completion<D: Driver>(mut core: Core<D, Actor>, number: usize) {
    while !core.is_finished() {
        core.turn(Clock::read()).unwrap();
    }
    // What nobody waits for, such as the close of a connection that was refused.
    let deadline = Instant::now() + Duration::from_secs(5);
    while core.driver().in_flight() > 0 {
        core.turn(Clock::read()).unwrap();
        let left = core.driver().in_flight();
        assert!(Instant::now() < deadline, "core {number}: {left} operations never end");
    }
}

/// Runs a scenario in the simulation: plainly with every other seed, and with a driver that wakes
/// early, ends lasting operations all the time and is short of buffers with the rest. The first
/// few runs are repeated, and have to be the same.
pub(crate) fn simulate(count: u64, scenario: impl Fn(&mut Stage)) {
    const REPEATED: usize = 4;
    for (n, seed) in seeds(count).enumerate() {
        let trace = simulate_once(seed, &scenario);
        if n < REPEATED {
            assert_eq!(trace, simulate_once(seed, &scenario), "seed {seed} had two outcomes");
        }
    }
}

fn simulate_once(seed: u64, scenario: &impl Fn(&mut Stage)) -> u64 {
    let world = World::new(seed);
    if seed % 2 == 1 {
        world.plan(|plan| {
            plan.wake_early = 0.1;
            plan.lasting_ends = 0.2;
            plan.starve = 0.1;
            plan.poll_early = 0.2;
            plan.cut = 0.5;
            plan.submissions_max = 8;
            plan.completions_max = 4;
            plan.cancel_late = 0.3;
        });
    }
    world.disk().create_dir_all("data".as_ref()).unwrap();
    scenario(&mut Stage::Sim { world: world.clone(), ports: Cell::new(0) });
    world.trace()
}

/// Runs a scenario on io_uring. Where the host forbids it, the test fails unless whoever runs it
/// has said so: nothing is skipped in silence.
pub(crate) fn on_uring(scenario: impl Fn(&mut Stage)) {
    let options = uring::Options { sockets_max: SOCKETS_MAX, ..uring::Options::default() };
    if let Err(error) = Uring::new(&options, Remote::host().unwrap()) {
        const WITHOUT: &str = "SEXTANT_TESTS_WITHOUT_IO_URING";
        assert!(
            std::env::var_os(WITHOUT).is_some(),
            "this host has no io_uring ({error}); {WITHOUT}=1 leaves these tests out"
        );
        eprintln!("left out, by {WITHOUT}: {error}");
        return;
    }
    on_kernel(&Host::Uring(options), scenario);
}

/// Runs a scenario on epoll.
pub(crate) fn on_epoll(scenario: impl Fn(&mut Stage)) {
    let options = epoll::Options { sockets_max: SOCKETS_MAX, ..epoll::Options::default() };
    on_kernel(&Host::Epoll(options), scenario);
}

/// Runs a scenario on epoll with one seed.
pub(crate) fn on_epoll_once(scenario: impl Fn(&mut Stage)) {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::Epoll(epoll::Options::default());
    scenario(&mut Stage::Kernel { dir, host, rng: Rng::with_seed(0) });
}

/// Sockets of a driver, unless a scenario says otherwise.
const SOCKETS_MAX: u32 = 1024;

fn on_kernel(host: &Host, scenario: impl Fn(&mut Stage)) {
    for seed in seeds(2) {
        let dir = tempfile::tempdir().unwrap();
        HostDisk.create_dir_all(&dir.path().join("data")).unwrap();
        scenario(&mut Stage::Kernel { dir, host: host.clone(), rng: Rng::with_seed(seed) });
    }
}

/// A listener on which thousands of callers can wait.
pub(crate) fn wide_listener(ip: [u8; 4]) -> Arc<Listener> {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((ip, 0)).into()).unwrap();
    socket.listen(4096).unwrap();
    Arc::new(Listener::new(socket.into()).unwrap())
}

/// Three tests of one scenario: one for each driver.
macro_rules! on_all_drivers {
    ($($(#[$meta:meta])* $name:ident: $seeds:literal seeds;)+) => {
        mod sim {
            $($(#[$meta])* #[test] fn $name() { crate::harness::simulate($seeds, super::$name); })+
        }
        mod uring {
            $($(#[$meta])* #[test] fn $name() { crate::harness::on_uring(super::$name); })+
        }
        mod epoll {
            $($(#[$meta])* #[test] fn $name() { crate::harness::on_epoll(super::$name); })+
        }
    };
}
pub(crate) use on_all_drivers;

/// Bytes of which each position can be told from its neighbours.
pub(crate) fn payload(rng: &mut Rng, len: usize) -> Vec<u8> {
    let salt = rng.u8(..);
    (0..len).map(|n| (n % 251) as u8 ^ salt).collect()
}

/// Sees to it that this process may have so many descriptors.
pub(crate) fn need_descriptors(wanted: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < wanted) {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
    let now = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    assert!(
        now >= wanted,
        "this test needs {wanted} descriptors, and this process may have {now}: raise the hard \
         limit (ulimit -Hn, LimitNOFILE=)"
    );
}
