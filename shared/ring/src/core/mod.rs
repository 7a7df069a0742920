//! A core: one thread's connections, timers, files and its end of the mesh, driven by
//! [`Core::turn`]. A daemon's own logic is an [`App`]; the core calls it, and it acts through
//! [`Cx`]. Nothing that the app asks for happens inside the call: operations start at the turn's
//! end, so what an app sends on one connection within a turn leaves together.
//!
//! A connection's life:
//!
//! ```text
//!  accept ─┐                     ┌── abort, error, peer closed ───────────┐
//!  connect ┼─► Open ── finish ─► Flushing ─► Lingering ── peer closed, ─► Closing ─► free
//!  handed ─┘    │                 (outbox     (reads and     2 s           (until its last
//!               │                  empties)    drops)                      operation ended)
//!               └── hand over ─► Moving ─► free here, Open on another core
//! ```
//!
//! The app hears of the end of a connection ([`App::on_close`]) exactly once, unless it ended the
//! connection itself with [`Cx::finish`], [`Cx::abort`] or [`Cx::hand_over`]; from then on its
//! identifier finds nothing.

mod cx;
mod ending;
mod moving;
mod opening;
mod parking;
mod receiving;
mod sending;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, warn};

use self::parking::Parking;
use crate::driver::{
    Completion, Driver, FileDone, FileOp, Files, Group, Kind, Listener, Op, Outcome, RxBuf, Socket,
    Token, is_starved,
};
use crate::mesh::{Port, Remote};
pub use crate::outbox::Shared;
use crate::outbox::{Outbox, Pages, Printed, shed_spare};
use crate::slot::{SlotId, Slots};
use crate::time::{Clock, Time};
use crate::wheel::{TimerId, Wheel};

/// Names a connection for as long as the app may speak of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(SlotId);

impl ConnId {
    /// The connection's slot: small, dense, used again. For a side table of one's own.
    pub fn index(self) -> usize {
        self.0.index()
    }

    /// The identifier as a number below 2⁵⁶, for example as a timer's key.
    pub fn to_bits(self) -> u64 {
        self.0.to_bits()
    }

    /// The inverse of [`ConnId::to_bits`].
    pub fn from_bits(bits: u64) -> ConnId {
        ConnId(SlotId::from_bits(bits))
    }
}

/// Names a datagram socket of a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UdpId(usize);

/// Why a connection is no more.
#[derive(Debug)]
pub enum CloseReason {
    /// The peer ended it in order.
    PeerClosed,
    /// The connection failed.
    Failed(io::Error),
    /// The core is stopping and its time to drain is over.
    Stopped,
}

/// Why bytes were not taken for sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// As many bytes wait as the connection may have waiting. [`App::on_drained`] tells when it
    /// is worth another try.
    #[error("the connection's send queue is full")]
    Full,
    /// There is no such connection any more.
    #[error("the connection is closed")]
    Closed,
}

/// A daemon's logic on one core.
pub trait App: Sized {
    /// What cores tell each other.
    type Message: Send + 'static;

    /// The core is about to take its first turn.
    fn on_start(&mut self, _cx: &mut Cx<Self::Message>) {}

    /// A connection was accepted, from the listener of that number: its place among those that the
    /// core was made with, or what [`Cx::listen`] gave.
    fn on_accept(&mut self, cx: &mut Cx<Self::Message>, conn: ConnId, listener: usize);

    /// A [`Cx::connect`] with this key ended.
    fn on_connect(&mut self, _cx: &mut Cx<Self::Message>, _key: u64, _result: io::Result<ConnId>) {}

    /// A connection arrived from another core, with what [`Cx::hand_over`] gave along and the
    /// bytes that were read there. Further bytes follow by [`App::on_data`].
    fn on_handed(
        &mut self,
        _cx: &mut Cx<Self::Message>,
        _conn: ConnId,
        _note: Self::Message,
        _data: &[u8],
    ) {
    }

    /// A connection could not be handed over: it is still here, open and paused.
    fn on_hand_over_failed(&mut self, cx: &mut Cx<Self::Message>, conn: ConnId, _error: io::Error) {
        cx.abort(conn);
    }

    /// Bytes arrived.
    fn on_data(&mut self, cx: &mut Cx<Self::Message>, conn: ConnId, data: &[u8]);

    /// The peer's address, asked for with [`Cx::ask_peer`].
    fn on_peer(
        &mut self,
        _cx: &mut Cx<Self::Message>,
        _conn: ConnId,
        _addr: io::Result<SocketAddr>,
    ) {
    }

    /// A connection on which a send was refused has less than half of its limit waiting.
    fn on_drained(&mut self, _cx: &mut Cx<Self::Message>, _conn: ConnId) {}

    /// A connection ended that the app did not end itself.
    fn on_close(&mut self, cx: &mut Cx<Self::Message>, conn: ConnId, reason: CloseReason);

    /// A datagram arrived.
    fn on_datagram(
        &mut self,
        _cx: &mut Cx<Self::Message>,
        _socket: UdpId,
        _from: SocketAddr,
        _data: &[u8],
    ) {
    }

    /// A timer is due.
    fn on_timer(&mut self, _cx: &mut Cx<Self::Message>, _key: u64) {}

    /// A message arrived from another core, from this one, or from outside the mesh.
    fn on_message(&mut self, _cx: &mut Cx<Self::Message>, _message: Self::Message) {}

    /// A file operation ended.
    fn on_file(&mut self, _cx: &mut Cx<Self::Message>, _done: FileDone) {}

    /// Everything that this turn brought was handled; what was asked for goes out next.
    fn on_turn_end(&mut self, _cx: &mut Cx<Self::Message>) {}

    /// [`Cx::stop`] was called: no connection is accepted any more. The app ends those that it
    /// has; the core ends those that are left when the time is over, and goes on turning while
    /// [`App::is_busy`].
    fn on_stop(&mut self, _cx: &mut Cx<Self::Message>) {}

    /// Whether a stopping core has to go on turning for the app's sake.
    fn is_busy(&self) -> bool {
        false
    }
}

/// What travels between cores.
pub enum Envelope<M> {
    /// An app's message.
    Message(M),
    /// A connection that now belongs to the receiver's driver.
    Connection(Handed<M>),
}

/// A connection on its way to another core.
pub struct Handed<M> {
    socket: Socket,
    data: Vec<u8>,
    note: M,
}

/// A core's limits.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once, and connects under way. One more is accepted and closed at once.
    pub connections_max: u32,
    /// Listeners at once, those included that the core is made with. On io_uring each that waits
    /// for a caller holds one of the driver's sockets.
    pub listeners_max: u32,
    /// File operations under way at once.
    pub files_max: u32,
    /// Timers at once.
    pub timers_max: u32,
    /// Bytes that may wait to be sent on one connection.
    pub send_bytes_max: usize,
    /// Completions, and messages, that one turn handles. If that is less than the sends that a turn
    /// starts, what a fan-out has under way grows from turn to turn.
    pub turn_max: usize,
    /// Sends that one turn starts, or a quarter more.
    pub sends_max: usize,
    /// How long a finished connection waits for its peer to close.
    pub linger: Duration,
    /// How long a connection has received nothing when it is parked, where that saves memory; it
    /// may take twice as long until it is. `Duration::MAX` parks none.
    pub park_after: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_max: 16_384,
            listeners_max: 1 << 16,
            files_max: 1 << 20,
            timers_max: 1 << 20,
            send_bytes_max: 1 << 20,
            turn_max: 4096,
            sends_max: 2048,
            linger: Duration::from_secs(2),
            park_after: Duration::from_secs(30),
        }
    }
}

/// What a core has counted since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Turns taken.
    pub turns: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections closed on arrival because there were as many as allowed, or no descriptor, or
    /// because their listener had just been taken away.
    pub refused: u64,
    /// Times that a pool of receive buffers was found empty.
    pub starved: u64,
    /// Times that a connection was parked.
    pub parked: u64,
    /// Bytes received on connections.
    pub received_bytes: u64,
    /// Send operations.
    pub sends: u64,
    /// Bytes given to send operations.
    pub sent_bytes: u64,
    /// Messages taken from the mesh, connections that moved here included.
    pub messages: u64,
    /// Times that this core woke another one. Messages and wakes are the same events seen from
    /// both sides: over all cores, `messages / wakes_received` messages share one wake.
    pub wakes_sent: u64,
    /// Times that this core was woken, by another core or from outside the mesh.
    pub wakes_received: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// The last bytes leave; then it lingers.
    Flushing,
    Lingering,
    /// The last bytes leave; then it closes.
    Parting,
    Moving,
    Closing,
}

impl Phase {
    /// Whether nothing is received any more, and what is sent is the last.
    fn is_last(self) -> bool {
        matches!(self, Phase::Flushing | Phase::Lingering | Phase::Parting)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rx {
    /// No receive is under way, and none is wanted.
    Off,
    Armed,
    /// Armed, and nothing was received since the hand of the clock last passed: see `parking.rs`.
    Quiet,
    /// Cancelled, for a pause, a move or a change of pool; what arrives meanwhile counts.
    Cancelling,
    /// The pool was empty; it is on the starved list.
    Starved,
    /// Cancelled, to be parked unless something arrives meanwhile.
    Parking,
    /// A poll is under way instead: see `parking.rs`.
    Parked,
}

struct Conn {
    socket: Socket,
    phase: Phase,
    rx: Rx,
    group: Group,
    paused: bool,
    dirty: bool,
    /// A send was refused since the outbox was last below half.
    refused: bool,
    /// Receives in a row that speak for the other pool.
    streak: u8,
    operations: u8,
    sending: u32,
    outbox: Outbox,
    /// Bytes that arrived while paused or moving.
    held: Option<Box<Held>>,
}

/// Bytes, in a box since few connections have any: an idle connection is small.
#[derive(Default)]
struct Held(Vec<u8>);

const _: () = assert!(size_of::<Conn>() <= 40, "there are many idle connections");

/// Identifiers of slots fit a token's number.
const GENERATION_BITS: u32 = Token::NUMBER_BITS - 32;

/// Timer keys with this bit are the core's own.
const CORE_TIMER: u64 = 1 << 63;
/// The core's timer for accepting again; the others name the connection that lingers.
const ACCEPT_TIMER: u64 = CORE_TIMER | (1 << 62);
/// The core's timer for the end of draining.
const STOP_TIMER: u64 = CORE_TIMER | (1 << 61);
/// The core's timer for looking for connections to park.
const PARK_TIMER: u64 = CORE_TIMER | (1 << 60);

/// A listener, and whether an accept is under way on it.
struct Acceptor {
    listener: Arc<Listener>,
    armed: bool,
}

/// A request that was not even begun.
enum Declined {
    Connect(u64, io::Error),
    File(FileDone),
}

/// What an [`App`] acts through.
pub struct Cx<M> {
    clock: Clock,
    limits: Limits,
    stats: Stats,
    conns: Slots<Conn>,
    wheel: Wheel,
    port: Port<Envelope<M>>,
    remote: Remote,
    /// Operations that start at the turn's end.
    ops: VecDeque<(Token, Op)>,
    /// What this turn sends to many.
    pages: Pages,
    /// Between turns it is empty, and keeps its memory.
    printed: Printed,
    /// Connections whose outbox has to be looked at.
    dirty: Vec<ConnId>,
    /// Those of earlier turns that had more to send to than a turn does. Each has something in its
    /// outbox and nothing under way, or has ended.
    left: VecDeque<ConnId>,
    starved: VecDeque<ConnId>,
    parking: Parking,
    /// Connections to go on reading.
    resumed: VecDeque<ConnId>,
    /// Their slots' identifiers name the accepts: what an accept brings late, after its listener
    /// was taken away, is not taken for a call to the listener that has the number now.
    acceptors: Slots<Acceptor>,
    accepting: bool,
    /// An accept has failed, and a timer is armed for accepting again.
    backing_off: bool,
    udp: Vec<Socket>,
    connects: Slots<u64>,
    files: Slots<u64>,
    /// What was asked for past a limit; the app is told with the next turn.
    declined: VecDeque<Declined>,
    /// Where moving connections go, and with which note.
    moves: HashMap<ConnId, (usize, M)>,
    /// Moving connections that may have come to rest.
    resting: Vec<ConnId>,
    stop: Option<Time>,
    stop_told: bool,
}

/// One core.
pub struct Core<D: Driver, A: App> {
    driver: D,
    app: A,
    cx: Cx<A::Message>,
    started: bool,
    /// Whether a buffer came back since starved connections were last armed.
    released: bool,
    /// Whether this turn has handled every completion that had arrived.
    drained: bool,
    /// When spare memory is looked at next.
    sheds_at: Time,
}

impl<D: Driver, A: App> Core<D, A> {
    /// A core with its driver, its end of the mesh, and the sockets that it accepts from, which
    /// are numbered from 0; [`Cx::listen`] adds further ones.
    pub fn new(
        driver: D,
        app: A,
        port: Port<Envelope<A::Message>>,
        listeners: Vec<Arc<Listener>>,
        limits: Limits,
        clock: Clock,
    ) -> Core<D, A> {
        assert!(limits.connections_max > 0 && limits.turn_max > 0 && limits.sends_max > 0);
        let mut acceptors = Slots::with_generation_bits(limits.listeners_max, GENERATION_BITS);
        for listener in listeners {
            let added = acceptors.insert(Acceptor { listener, armed: false });
            assert!(added.is_ok(), "a core begins with no more listeners than it may have");
        }
        let cx = Cx {
            clock,
            stats: Stats::default(),
            conns: Slots::with_generation_bits(limits.connections_max, GENERATION_BITS),
            wheel: Wheel::new(limits.timers_max, clock.now),
            port,
            remote: driver.remote(),
            ops: VecDeque::new(),
            pages: Pages::default(),
            printed: Printed::default(),
            dirty: Vec::new(),
            left: VecDeque::new(),
            starved: VecDeque::new(),
            parking: Parking::new(limits.park_after, driver.caps().parking),
            resumed: VecDeque::new(),
            acceptors,
            accepting: true,
            backing_off: false,
            udp: Vec::new(),
            connects: Slots::with_generation_bits(limits.connections_max, GENERATION_BITS),
            files: Slots::with_generation_bits(limits.files_max, GENERATION_BITS),
            declined: VecDeque::new(),
            moves: HashMap::new(),
            resting: Vec::new(),
            stop: None,
            stop_told: false,
            limits,
        };
        Core {
            driver,
            app,
            cx,
            started: false,
            released: false,
            drained: false,
            sheds_at: clock.now,
        }
    }

    /// Binds a datagram socket, and tells its address.
    ///
    /// # Errors
    /// The system's, for example when the address is in use.
    pub fn bind_udp(&mut self, addr: SocketAddr) -> io::Result<(UdpId, SocketAddr)> {
        let (socket, addr) = self.driver.bind_udp(addr)?;
        self.cx.udp.push(socket);
        let id = UdpId(self.cx.udp.len() - 1);
        self.arm_udp(id.0);
        Ok((id, addr))
    }

    /// The app.
    pub fn app(&self) -> &A {
        &self.app
    }

    /// The app and what it acts through.
    pub fn app_mut(&mut self) -> (&mut A, &mut Cx<A::Message>) {
        (&mut self.app, &mut self.cx)
    }

    /// The driver.
    pub fn driver(&self) -> &D {
        &self.driver
    }

    /// The driver, for one whose other ends are played by the caller.
    pub fn driver_mut(&mut self) -> &mut D {
        &mut self.driver
    }

    /// Turns until the core was stopped and everything ended.
    ///
    /// # Errors
    /// When the driver is of no use any more.
    pub fn run(mut self) -> io::Result<A> {
        while !self.is_finished() {
            self.turn(Clock::read())?;
        }
        Ok(self.app)
    }

    /// Whether a stopped core has nothing left to do.
    pub fn is_finished(&self) -> bool {
        self.cx.stop_told
            && self.cx.conns.is_empty()
            && self.cx.ops.is_empty()
            && self.cx.files.is_empty()
            && self.cx.connects.is_empty()
            && self.cx.declined.is_empty()
            && self.cx.port.backlog() == 0
            && !self.app.is_busy()
    }

    /// One turn: messages, completions, timers, then one enter that submits and waits.
    ///
    /// Messages go first: what another core sent before it caused, by whatever way, a completion
    /// of this turn is seen before that completion.
    ///
    /// # Errors
    /// When the driver is of no use any more.
    pub fn turn(&mut self, clock: Clock) -> io::Result<()> {
        self.cx.clock = clock;
        self.cx.stats.turns += 1;
        self.shed_spare();
        if !std::mem::replace(&mut self.started, true) {
            self.app.on_start(&mut self.cx);
            self.cx.arm_accepts();
        }
        let mut busy = self.drain_messages();
        self.tell_declined();
        self.drained = !self.drain_completions();
        busy |= !self.drained;
        self.fire_timers();
        self.deliver_held();
        self.tell_stop();
        self.end_overdue();
        self.app.on_turn_end(&mut self.cx);
        self.rearm_starved();
        self.start_moves();
        self.submit_ops();
        self.flush_outboxes();
        self.cx.port.flush();
        busy |= !self.submit_ops();
        self.enter(busy)
    }

    /// Gives memory back that only a busier time needed.
    fn shed_spare(&mut self) {
        const EVERY: Duration = Duration::from_secs(10);
        if self.cx.clock.now >= self.sheds_at {
            self.sheds_at = self.cx.clock.now + EVERY;
            shed_spare();
        }
    }

    fn enter(&mut self, busy: bool) -> io::Result<()> {
        /// How soon messages that found a full queue are tried again.
        const RETRY: Duration = Duration::from_micros(200);
        let more = busy
            || !self.cx.port.is_empty()
            || !self.cx.resumed.is_empty()
            || !self.cx.left.is_empty()
            || !self.cx.declined.is_empty();
        if more || self.is_finished() {
            return self.driver.enter(Some(Duration::ZERO));
        }
        let mut wait = self.cx.wheel.next_wait(self.cx.clock.now);
        if self.cx.port.backlog() > 0 {
            wait = Some(wait.map_or(RETRY, |wait| wait.min(RETRY)));
        }
        self.cx.remote.announce_sleep();
        if !self.cx.port.is_empty() {
            wait = Some(Duration::ZERO);
        }
        let entered = self.driver.enter(wait);
        self.cx.remote.announce_awake();
        entered
    }

    /// Returns whether there may be more.
    fn drain_completions(&mut self) -> bool {
        for _ in 0..self.cx.limits.turn_max {
            let Some(completion) = self.driver.completed() else { return false };
            self.dispatch(completion);
        }
        true
    }

    fn drain_messages(&mut self) -> bool {
        // As many as have arrived by now: more than a turn's share only after a storm, and bounded
        // by the queues' capacity.
        for _ in 0..self.cx.port.arrived() {
            match self.cx.port.receive() {
                None => return false,
                Some(Envelope::Message(message)) => self.app.on_message(&mut self.cx, message),
                Some(Envelope::Connection(handed)) => self.take_handed(handed),
            }
            self.cx.stats.messages += 1;
        }
        !self.cx.port.is_empty()
    }

    /// Those that are declined in answer wait for the next turn.
    fn tell_declined(&mut self) {
        for _ in 0..self.cx.declined.len() {
            match self.cx.declined.pop_front() {
                Some(Declined::Connect(key, error)) => {
                    self.app.on_connect(&mut self.cx, key, Err(error));
                }
                Some(Declined::File(done)) => self.app.on_file(&mut self.cx, done),
                None => return,
            }
        }
    }

    fn fire_timers(&mut self) {
        for _ in 0..self.cx.limits.turn_max {
            let Some(key) = self.cx.wheel.fire(self.cx.clock.now) else { return };
            match key {
                ACCEPT_TIMER => {
                    self.cx.backing_off = false;
                    self.cx.arm_accepts();
                }
                // It only wakes the core: see `end_overdue`.
                STOP_TIMER => {}
                PARK_TIMER => self.cx.pass_hand(),
                _ if key & CORE_TIMER != 0 => {
                    let conn = ConnId::from_bits(key & !CORE_TIMER);
                    if self.cx.conns.get(conn.0).is_some_and(|c| c.phase.is_last()) {
                        self.cx.close(conn);
                    }
                }
                _ => self.app.on_timer(&mut self.cx, key),
            }
        }
    }

    fn dispatch(&mut self, completion: Completion) {
        let Completion { token: at, outcome, more } = completion;
        let (kind, bits) = (at.kind(), at.number());
        match (kind, outcome) {
            (Kind::Accept, Outcome::Socket(result)) => self.on_accept(bits, result, more),
            (Kind::Connect, Outcome::Socket(result)) => self.on_connect(bits, result),
            (Kind::HandOver, Outcome::Socket(result)) => self.on_moved(bits, result),
            (Kind::RecvFrom, Outcome::RecvFrom(result)) => {
                self.on_datagram(bits as usize, result, more);
            }
            (Kind::File, Outcome::File(result, buf)) => {
                let id = SlotId::from_bits(bits);
                let ticket = self.cx.files.remove(id).expect("a file operation ends once");
                self.app.on_file(&mut self.cx, FileDone { ticket, result, buf });
            }
            (Kind::Recv, Outcome::Recv(result)) => {
                self.on_recv(ConnId::from_bits(bits), result, more);
            }
            (Kind::Send, Outcome::Sent(result)) => self.on_sent(ConnId::from_bits(bits), result),
            (Kind::Peer, Outcome::PeerAddr(addr)) => {
                let conn = ConnId::from_bits(bits);
                if self.is_open(conn) {
                    self.app.on_peer(&mut self.cx, conn, addr);
                }
                self.end_operation(conn);
            }
            (Kind::Poll, Outcome::Done) => self.on_polled(ConnId::from_bits(bits)),
            (Kind::Cancel | Kind::Shutdown, Outcome::Done) => {
                self.end_operation(ConnId::from_bits(bits));
            }
            (Kind::Close, Outcome::Done) => {
                let gone = self.cx.conns.remove(SlotId::from_bits(bits));
                assert!(gone.is_some_and(|c| c.operations == 1), "a slot is freed once, and last");
            }
            (Kind::SendTo, Outcome::Sent(_)) | (Kind::Refuse, Outcome::Done) => {}
            (kind, outcome) => panic!("a {kind:?} cannot end in {outcome:?}"),
        }
    }

    fn is_open(&self, conn: ConnId) -> bool {
        self.cx.conns.get(conn.0).is_some_and(|c| c.phase == Phase::Open)
    }

    /// Returns whether all operations have started.
    fn submit_ops(&mut self) -> bool {
        while let Some((token, op)) = self.cx.ops.pop_front() {
            if let Err(op) = self.driver.submit(token, op) {
                self.cx.ops.push_front((token, op));
                return false;
            }
        }
        true
    }
}
