//! The clients: connections on one ring, on a thread of their own, and the operations that they
//! begin by a schedule. What they say is a [`Session`]'s affair; the fleet connects, sends,
//! receives, keeps the time and counts.
//!
//! ```text
//!   connect all ─► warm up ─► measure ─► drain ─► close        Held, with a pace
//!                  warm up ─► measure ─► drain ─► close        PerOperation
//!   connect all ─► hold, until told                            Held, Pace::Idle
//!   connect all ─► warm up ─► measure ─► drain ─► hold …       Held, with Load::hold
//! ```
//!
//! The thread sleeps while there is time, and spins through the last two milliseconds before an
//! operation is due: a timer of the ring is not exact enough. It wants a CPU of its own. On the
//! server's host it had better not sleep at all ([`Load::spin`]): whoever sends to a socket whose
//! reader sleeps pays for waking it, and that would be the server.

mod app;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use sextant_ring::core::{Core, Envelope, Limits};
use sextant_ring::mesh::{Port, Remote, mesh};
use sextant_ring::time::{Clock, Time};
use sextant_ring::uring::{Options, Uring};

use self::app::{App, Order};
use crate::cpu::{CpuError, ProcessCpu, pin};
use crate::recorder::{Recorder, Summary};

/// What went wrong with a session, in its protocol's words.
pub type SessionError = Box<dyn std::error::Error + Send + Sync>;

/// The client's end of one connection, without I/O: bytes and time in, bytes out.
///
/// An operation carries its intended start, or the session remembers it, so that the session can
/// tell the recorder once it is done; it may be done on many sessions, each of which tells.
pub trait Session {
    /// The connection stands: appends what the client says first.
    ///
    /// # Errors
    /// What it wants to say cannot be said.
    fn handle_connected(&mut self, now: Time, out: &mut Vec<u8>) -> Result<(), SessionError>;

    /// Bytes arrived: records what is done with them, appends what the client answers.
    ///
    /// # Errors
    /// The server refuses, or does not speak the protocol. The load is given up.
    fn handle_input(
        &mut self,
        now: Time,
        input: &[u8],
        out: &mut Vec<u8>,
        recorder: &mut Recorder,
    ) -> Result<(), SessionError>;

    /// Begins an operation that should start at `intended`: appends its bytes.
    ///
    /// # Errors
    /// It cannot be said.
    fn begin(&mut self, intended: Time, out: &mut Vec<u8>) -> Result<(), SessionError>;

    /// Whether operations may begin.
    fn is_ready(&self) -> bool;

    /// The server closed the connection.
    ///
    /// # Errors
    /// Unless that is how an operation of this protocol ends.
    fn handle_closed(&mut self, now: Time, recorder: &mut Recorder) -> Result<(), SessionError> {
        let _ = (now, recorder);
        Err("the server closed the connection".into())
    }
}

/// Which connections there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// So many from the start to the end.
    Held {
        /// How many.
        count: u32,
        /// How many of them begin operations, in turn: the first ones.
        operating: u32,
        /// Connections that are being made at once.
        connecting_max: u32,
    },
    /// Each operation has a connection of its own, which the server ends.
    PerOperation {
        /// Connections at once; an operation that finds as many waits, and is late.
        at_once_max: u32,
    },
}

impl Connections {
    fn at_once_max(self) -> u32 {
        match self {
            Connections::Held { count, .. } => count,
            Connections::PerOperation { at_once_max } => at_once_max,
        }
    }
}

/// When operations begin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Never: connections are held until [`Fleet::finish`].
    Idle,
    /// So many a second, whatever becomes of them: an open loop.
    PerSecond(f64),
    /// The next begin as soon as there is room for them: a closed loop, for finding out what a
    /// server does at most. Latencies are then those of a full queue.
    Saturated {
        /// Operations under way at most.
        window: u32,
        /// How many begin together, in one write if they have one connection. One by one, a server
        /// that is quick finds less waiting at each look than a slow one, and two servers are given
        /// different work.
        lot: u32,
    },
}

/// What a fleet shall do.
#[derive(Clone, Debug)]
pub struct Load {
    /// The server's addresses, in turn. (Connections from one address of this host to one other
    /// are bounded by the number of ephemeral ports.)
    pub targets: Vec<SocketAddr>,
    /// Which connections there are.
    pub connections: Connections,
    /// When operations begin.
    pub pace: Pace,
    /// How often [`Recorder::record`] is told of one operation: 1, or the number of receivers.
    pub completions: u32,
    /// Before the window.
    pub warm_up: Duration,
    /// The window.
    pub measure: Duration,
    /// How long to wait, after the window, for what is under way.
    pub drain_max: Duration,
    /// How long connecting may take without any connection becoming ready.
    pub patience: Duration,
    /// Never sleep while operations run.
    pub spin: bool,
    /// Once measured, hold the connections until [`Fleet::finish`].
    pub hold: bool,
    /// The server's process.
    pub server: Option<u32>,
    /// The CPU for the fleet's thread, as [`pin`] counts.
    pub cpu: Option<usize>,
}

impl Load {
    /// One operation at a time over one held connection, two seconds, for one server.
    pub fn new(targets: Vec<SocketAddr>) -> Load {
        Load {
            targets,
            connections: Connections::Held { count: 1, operating: 1, connecting_max: 128 },
            pace: Pace::Saturated { window: 1, lot: 1 },
            completions: 1,
            warm_up: Duration::from_millis(500),
            measure: Duration::from_secs(2),
            drain_max: Duration::from_secs(2),
            patience: Duration::from_secs(10),
            spin: false,
            hold: false,
            server: None,
            cpu: None,
        }
    }

    fn check(&self) -> Result<(), LoadError> {
        let connections = match self.connections {
            Connections::Held { count, operating, connecting_max } => {
                operating <= count && count > 0 && connecting_max > 0
            }
            Connections::PerOperation { at_once_max } => at_once_max > 0 && self.pace != Pace::Idle,
        };
        let pace = match (self.pace, self.connections) {
            (Pace::Idle, _) => true,
            (_, Connections::Held { operating: 0, .. }) => false,
            (Pace::PerSecond(rate), _) => rate.is_finite() && rate > 0.0,
            (Pace::Saturated { window, lot }, _) => (1..=window).contains(&lot),
        };
        let rules = [
            (!self.targets.is_empty(), "a load has a target"),
            (connections, "connections are made, and no more operate than there are"),
            (pace, "a pace is positive, and somebody keeps it"),
            (self.completions > 0, "an operation is done at least once"),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(LoadError::Load(rule)),
            None => Ok(()),
        }
    }
}

/// Why a load did not go as it should have. Then there is no outcome: a load of which a part
/// failed measures something else.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The caller's mistake.
    #[error("this load makes no sense: {0}")]
    Load(&'static str),
    /// The generator has no ring, no thread or no CPU to run on.
    #[error("the load generator cannot run")]
    Generator(#[source] std::io::Error),
    /// A connection was not made.
    #[error("connection {number} to {to} was not made")]
    Connect {
        /// Which, counted from zero.
        number: u64,
        /// To where.
        to: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A connection broke.
    #[error("connection {number} broke")]
    Broken {
        /// Which, counted from zero.
        number: u64,
        /// Why.
        source: std::io::Error,
    },
    /// A session failed.
    #[error("the session of connection {number} failed")]
    Session {
        /// Which, counted from zero.
        number: u64,
        /// Why.
        source: SessionError,
    },
    /// The server does not take what it is sent.
    #[error("the server leaves {bytes} bytes of connection {number} unread")]
    Unread {
        /// Which, counted from zero.
        number: u64,
        /// Bytes that wait here.
        bytes: usize,
    },
    /// Connections do not become ready.
    #[error("only {ready} of {count} connections are ready, and no more became so in time")]
    Stuck {
        /// Those that are.
        ready: u32,
        /// Those that shall be.
        count: u32,
    },
    /// The server's CPU time is not to be had: it has ended, most likely.
    #[error(transparent)]
    Server(#[from] CpuError),
}

/// What a load came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Until all held connections were ready.
    pub connecting: Duration,
    /// The window as it was.
    pub elapsed: Duration,
    /// Operations that began in the window.
    pub begun: u64,
    /// Completions in the window, of operations that began in it or before.
    pub completed: u64,
    /// Completions that never came, of operations of the window: what the server dropped, or had
    /// not done when the time to drain was over.
    pub missing: u64,
    /// From the intended start to each completion.
    pub latency: Summary,
    /// From the intended start to the actual one: what the generator itself adds to a latency.
    pub lateness: Summary,
    /// What the server used in the window.
    pub server_cpu: Option<Duration>,
    /// What the fleet's thread used in the window.
    pub client_cpu: Duration,
}

impl Outcome {
    /// Completions a second.
    pub fn per_second(&self) -> f64 {
        self.completed as f64 / self.elapsed.as_secs_f64()
    }

    /// The server's CPU time for each completion, in nanoseconds.
    pub fn server_ns_each(&self) -> Option<f64> {
        let cpu = self.server_cpu.filter(|_| self.completed > 0)?;
        Some(cpu.as_nanos() as f64 / self.completed as f64)
    }
}

/// A load that runs.
pub struct Fleet {
    thread: JoinHandle<Result<Option<Outcome>, LoadError>>,
    port: Port<Envelope<Order>>,
    shown: Arc<Shown>,
}

/// How far a load has come.
#[derive(Debug, Default)]
struct Shown {
    ready: AtomicU32,
    measured: AtomicBool,
    /// From the call of each held connection until it was ready, once all are.
    connects: OnceLock<Summary>,
}

impl Fleet {
    /// Starts a load. `session` makes the session of each connection from its number, counted from
    /// zero: those that operate come first.
    ///
    /// # Errors
    /// The load makes no sense, the server is gone, or there is no thread to be had. What goes
    /// wrong later is told by [`Fleet::wait`].
    pub fn start<S: Session + 'static>(
        load: Load,
        session: impl FnMut(u64) -> S + Send + 'static,
    ) -> Result<Fleet, LoadError> {
        load.check()?;
        let server = load.server.map(ProcessCpu::of).transpose()?;
        let remote = Remote::host().map_err(LoadError::Generator)?;
        let mut ports = mesh(std::slice::from_ref(&remote), 1, 16);
        let (Some(outside), Some(inside)) = (ports.pop(), ports.pop()) else {
            unreachable!("a mesh of one core and one outsider has two ports")
        };
        let shown = Arc::new(Shown::default());
        let shows = Arc::clone(&shown);
        let run = move || run(load, server, session, remote, inside, shows);
        let thread = std::thread::Builder::new().name("load".into()).spawn(run);
        Ok(Fleet { thread: thread.map_err(LoadError::Generator)?, port: outside, shown })
    }

    /// Held connections that are ready.
    pub fn ready(&self) -> u32 {
        self.shown.ready.load(Ordering::Relaxed)
    }

    /// How long held connections took from their call until they were ready; once all are.
    pub fn connects(&self) -> Option<Summary> {
        self.shown.connects.get().copied()
    }

    /// Whether the window is over and what was under way is done, or given up.
    pub fn is_measured(&self) -> bool {
        self.shown.measured.load(Ordering::Relaxed)
    }

    /// Whether the load is over, in one way or the other.
    pub fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the end of a load that ends by itself. `None` of one that was idle.
    ///
    /// # Errors
    /// What went wrong.
    pub fn wait(self) -> Result<Option<Outcome>, LoadError> {
        match self.thread.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Ends the load now.
    ///
    /// # Errors
    /// What went wrong before.
    pub fn finish(mut self) -> Result<Option<Outcome>, LoadError> {
        self.port.send(0, Envelope::Message(Order::Stop));
        self.port.flush();
        self.wait()
    }
}

fn run<S: Session>(
    load: Load,
    server: Option<ProcessCpu>,
    session: impl FnMut(u64) -> S,
    remote: Remote,
    port: Port<Envelope<Order>>,
    shown: Arc<Shown>,
) -> Result<Option<Outcome>, LoadError> {
    if let Some(cpu) = load.cpu {
        pin(cpu).map_err(LoadError::Generator)?;
    }
    // Connections that are closing have their slots for a moment.
    let sockets = load.connections.at_once_max().saturating_add(1024);
    let options = Options { sockets_max: sockets, ..Options::default() };
    let limits = Limits {
        connections_max: sockets,
        send_bytes_max: App::<S, fn(u64) -> S>::UNREAD_BYTES_MAX,
        ..Limits::default()
    };
    let driver = Uring::new(&options, remote).map_err(LoadError::Generator)?;
    let app = App::new(load, server, session, shown);
    let core = Core::new(driver, app, port, Vec::new(), limits, Clock::read());
    core.run().map_err(LoadError::Generator)?.into_outcome()
}
