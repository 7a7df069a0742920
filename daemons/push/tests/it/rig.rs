//! A simulated machine with the broker on it: some cores, their logs on one disk, one listener,
//! and a way in for senders.

use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sextant_mqtt::{ServerLimits, SessionLimits};
use sextant_push::auth::Authenticator;
use sextant_push::auth::hasher::Hasher;
use sextant_push::auth::token::TokenKey;
use sextant_push::broker::{Broker, Message, Parts, Settings, Shared, Transports, restore};
use sextant_push::config::Limits;
use sextant_push::control::{Command, CoreStatus};
use sextant_push::meters::Names;
use sextant_push::presence::Audience;
use sextant_ring::core::{self, Core, Envelope};
use sextant_ring::driver::{Driver, Listener};
use sextant_ring::mesh::{Port, Remote, mesh};
use sextant_ring::sim::{Plan, SimDriver, SimPeer, Turn, World};
use sextant_segment::{Durability, Log, Options};
use sextant_service::metrics::Builder;
use sextant_service::notify::Heartbeats;
use tokio::sync::oneshot;

use crate::platform::Fake;

/// Where the broker listens.
const ADDR: &str = "127.0.0.1:1883";

/// What a stored message takes besides its packet, at most: as the daemon reckons.
const RECORD_OVERHEAD_BYTES: u32 = 64 << 10;

/// How the broker is set up.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) cores: usize,
    pub(crate) packet_bytes_max: u32,
    pub(crate) receive_max: u16,
    pub(crate) inflight_max: u16,
    pub(crate) send_queue_bytes_max: usize,
    pub(crate) send_queue_messages_max: usize,
    pub(crate) queue_messages_max: usize,
    pub(crate) session_expiry_max_s: u32,
    pub(crate) receipts_max: usize,
    pub(crate) device_waiting_max: usize,
    pub(crate) mesh_capacity: usize,
    pub(crate) log_bytes_max: u64,
    /// What the last core's log writes at once, if it is less than the others'.
    pub(crate) last_commit_bytes_max: Option<u32>,
    pub(crate) durability: Durability,
    /// Of the first core's log, if it is another.
    pub(crate) first_durability: Option<Durability>,
    pub(crate) hot_bytes: u32,
    /// How long the disk waits for what nobody waits for.
    pub(crate) linger: Duration,
    pub(crate) will_grace: Duration,
    pub(crate) limits: Limits,
    /// `None`: the broker has none.
    pub(crate) platform: Option<Fake>,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            cores: 1,
            packet_bytes_max: 8 << 10,
            receive_max: 16,
            inflight_max: 16,
            send_queue_bytes_max: 32 << 10,
            send_queue_messages_max: 1000,
            queue_messages_max: 100_000,
            session_expiry_max_s: 7 * 24 * 3600,
            receipts_max: 1000,
            device_waiting_max: 1000,
            mesh_capacity: 64,
            log_bytes_max: 64 << 20,
            last_commit_bytes_max: None,
            durability: Durability::Always,
            first_durability: None,
            // So that nearly everything that was queued is read back from the disk.
            hot_bytes: 0,
            linger: Duration::from_millis(20),
            will_grace: Duration::from_secs(1),
            limits: Limits::default(),
            platform: None,
        }
    }
}

impl Setup {
    fn settings(&self) -> Settings {
        let server = ServerLimits {
            packet_bytes_max: NonZeroU32::new(self.packet_bytes_max).unwrap(),
            receive_max: NonZeroU16::new(self.receive_max).unwrap(),
            session_expiry_max_s: self.session_expiry_max_s,
            outbound_alias_max: 3,
            ..ServerLimits::default()
        };
        let session =
            SessionLimits { inflight_max: self.inflight_max, received_max: self.receive_max * 2 };
        Settings {
            server,
            session,
            connections_max: 1000,
            queue_messages_max: self.queue_messages_max,
            queue_bytes_max: 64 << 20,
            send_queue_bytes_max: self.send_queue_bytes_max,
            send_queue_messages_max: self.send_queue_messages_max,
            retained_bytes_max: 1 << 20,
            device_waiting_max: self.device_waiting_max,
            receipts_max: self.receipts_max,
            slow_client_timeout: Duration::from_secs(10),
            will_grace: self.will_grace,
            log_bytes_max: self.log_bytes_max,
            transports: Transports::default(),
            suback_reasons: true,
            limits: self.limits.clone(),
        }
    }

    fn log_options(&self, core: usize) -> Options {
        let record_bytes_max = self.packet_bytes_max + RECORD_OVERHEAD_BYTES;
        let last = core + 1 == self.cores;
        Options {
            segment_bytes_min: (record_bytes_max + 8192).next_multiple_of(4096),
            segment_bytes_max: 256 << 10,
            bytes_max: self.log_bytes_max,
            record_bytes_max,
            commit_bytes_max: self.last_commit_bytes_max.filter(|_| last).unwrap_or(64 << 10),
            backlog_bytes_max: 4 * record_bytes_max,
            durability: self.first_durability.filter(|_| core == 0).unwrap_or(self.durability),
            hot_bytes: self.hot_bytes,
            linger: self.linger,
            ..Options::new(0x5e17_a917 + core as u64, core as u16 + 1)
        }
    }
}

/// No password is checked in these tests: clients are anonymous.
fn hasher() -> Hasher {
    static HASHER: OnceLock<Hasher> = OnceLock::new();
    let spawn = || Hasher::spawn(1, Arc::new(|_, _, _| panic!("nobody has a password"))).unwrap();
    HASHER.get_or_init(spawn).clone()
}

/// Whether a core has something to do; one that has finished may still have something cancelled.
fn is_turning(core: &Core<SimDriver, Broker>) -> bool {
    !core.is_finished() || core.driver().in_flight() > 0
}

/// The machine.
pub(crate) struct Rig {
    pub(crate) world: World,
    pub(crate) setup: Setup,
    cores: Vec<Core<SimDriver, Broker>>,
    outsider: Option<Port<Envelope<Message>>>,
    /// Times that the broker was started.
    pub(crate) starts: u32,
}

impl Rig {
    /// A machine on which the broker runs, with what `plan` makes of its limits and faults.
    pub(crate) fn new(seed: u64, setup: Setup, plan: impl FnOnce(&mut Plan)) -> Rig {
        let world = World::new(seed);
        world.plan(plan);
        world.set_unix_ms(1_800_000_000_000);
        let mut rig = Rig { world, setup, cores: Vec::new(), outsider: None, starts: 0 };
        rig.start();
        rig
    }

    pub(crate) fn is_running(&self) -> bool {
        !self.cores.is_empty()
    }

    /// Records of messages in the log of a core that does not run.
    pub(crate) fn messages_on_disk(&self, core: usize) -> usize {
        self.kinds_on_disk(core).into_iter().filter(|kind| *kind == 1).count()
    }

    /// What kinds of records, in their order, are in the log of a core that does not run.
    pub(crate) fn kinds_on_disk(&self, core: usize) -> Vec<u8> {
        assert!(self.cores.is_empty(), "it is stopped first");
        let dir = PathBuf::from(format!("log/{core}"));
        let (log, _) = Log::open(&self.world.disk(), &dir, self.setup.log_options(core)).unwrap();
        let mut cursor = log.records();
        let records = std::iter::from_fn(|| cursor.next(&log));
        records.map(|record| record.unwrap().kind).collect()
    }

    /// Starts the broker from what is on the disk.
    pub(crate) fn start(&mut self) {
        assert!(self.cores.is_empty(), "it is stopped first");
        self.starts += 1;
        self.try_to_start(3);
    }

    fn try_to_start(&mut self, tries: u32) {
        let count = self.setup.cores;
        let mut builder = Builder::new("push", "0");
        let names = Names::declare(&mut builder);
        let metrics = builder.build(count);
        let heartbeats = Heartbeats::new(count);
        let shared = Arc::new(Shared::default());
        let key = TokenKey::from_bytes([7; 32]);
        let auth = Arc::new(Authenticator::new(&sextant_push::config::Auth::default(), key));
        let remotes: Vec<Remote> = (0..count).map(|_| Remote::sim()).collect();
        let mut ports = mesh(&remotes, 1, self.setup.mesh_capacity);
        self.outsider = ports.pop();
        let listener = Arc::new(Listener::sim(ADDR.parse().unwrap()));
        for (core, (remote, port)) in remotes.into_iter().zip(ports).enumerate() {
            let parts = Parts {
                auth: Arc::clone(&auth),
                bans: Arc::default(),
                endpoint: None,
                hasher: hasher(),
                presence: Audience::default(),
                platform: self.setup.platform.as_ref().map(Fake::platform),
                heartbeat: heartbeats.core(core),
                shared: Arc::clone(&shared),
                names,
                metrics: metrics.core(core),
            };
            let settings = self.setup.settings();
            let limits = core::Limits {
                connections_max: 1000,
                timers_max: 1 << 16,
                send_bytes_max: settings.send_queue_bytes_max
                    + 2 * self.setup.packet_bytes_max as usize
                    + 64 * 1024,
                // Fewer than there are clients: what goes to many takes several turns.
                sends_max: 3,
                ..core::Limits::default()
            };
            let options = self.setup.log_options(core);
            options.check().unwrap();
            let dir = PathBuf::from(format!("log/{core}"));
            let restored = match restore(&self.world.disk(), &dir, options) {
                Ok(restored) => restored,
                Err(error) => {
                    // A fault that was to come: the machine is started again.
                    assert!(tries > 0, "{error}");
                    self.crash();
                    return self.try_to_start(tries - 1);
                }
            };
            let broker = Broker::new(settings, parts, restored, count);
            let driver = self.world.driver(remote);
            let listeners = vec![Arc::clone(&listener)];
            let clock = self.world.clock();
            self.cores.push(Core::new(driver, broker, port, listeners, limits, clock));
        }
    }

    /// The power fails: what was not synced is there or not.
    pub(crate) fn crash(&mut self) {
        self.world.crash_disk();
        self.cores.clear();
        self.outsider = None;
    }

    /// Asks all cores to stop within two seconds.
    pub(crate) fn ask_to_stop(&mut self) {
        let deadline = self.world.now() + Duration::from_secs(2);
        for core in 0..self.cores.len() {
            self.insist(core, Command::Stop { deadline });
        }
    }

    /// Whether all cores have stopped. Each ends by itself, as a thread does. If clients had gone
    /// before, nothing may be left of it; a connection that was on its way to it may be otherwise.
    pub(crate) fn has_stopped(&mut self, clients_had_gone: bool) -> bool {
        let world = &self.world;
        self.cores.retain(|core| {
            let turning = is_turning(core);
            if !turning && clients_had_gone {
                world.assert_quiet(core.driver());
            }
            turning
        });
        if self.cores.is_empty() {
            self.outsider = None;
        }
        self.cores.is_empty()
    }

    /// Lets some time pass in which the cores do what they have to.
    pub(crate) fn pass(&mut self, time: Duration) {
        let limit = self.world.now() + time;
        loop {
            let running: Vec<usize> =
                (0..self.cores.len()).filter(|n| is_turning(&self.cores[*n])).collect();
            let remotes: Vec<Remote> = running.iter().map(|n| self.cores[*n].remote()).collect();
            match self.world.step(&remotes, limit) {
                Some(at) => self.world.turn(&mut self.cores[running[at]]),
                None => return,
            }
        }
    }

    pub(crate) fn connect(&self) -> SimPeer {
        self.world.connect(ADDR.parse::<SocketAddr>().unwrap())
    }

    fn has_room(&self, core: usize) -> bool {
        self.outsider.as_ref().is_some_and(|port| !port.is_full(core))
    }

    /// Sends a command to a core, as the control plane does; whether there was room.
    pub(crate) fn command(&mut self, core: usize, command: Command) -> bool {
        let Some(port) = self.outsider.as_mut().filter(|port| !port.is_full(core)) else {
            return false;
        };
        port.send(core, Envelope::Message(Message::Command(command)));
        port.flush();
        true
    }

    /// Sends a command as soon as there is room.
    pub(crate) fn insist(&mut self, core: usize, command: Command) {
        for _ in 0..10_000 {
            if self.has_room(core) {
                assert!(self.command(core, command), "there is room");
                return;
            }
            self.pass(Duration::from_micros(100));
        }
        panic!("a core that runs takes a command within a second");
    }

    /// Asks every core something, and waits for the answers.
    pub(crate) fn ask<T>(&mut self, question: impl Fn(oneshot::Sender<T>) -> Command) -> Vec<T> {
        let mut answers = Vec::new();
        for core in 0..self.cores.len() {
            let (reply, mut answer) = oneshot::channel();
            self.insist(core, question(reply));
            let answered = (0..10_000).find_map(|_| {
                self.pass(Duration::from_micros(100));
                answer.try_recv().ok()
            });
            answers.push(answered.expect("a core that runs answers within a second"));
        }
        answers
    }

    pub(crate) fn status(&mut self) -> Vec<CoreStatus> {
        self.ask(|reply| Command::Status { reply })
    }

    /// What the cores have not finished, in words; nothing when all is quiet.
    pub(crate) fn unfinished(&self) -> Vec<String> {
        let told = self.cores.iter().enumerate();
        told.flat_map(|(n, core)| {
            core.app().unfinished().into_iter().map(move |what| format!("core {n}: {what}"))
        })
        .collect()
    }
}
