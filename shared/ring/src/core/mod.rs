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

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, warn};

use crate::driver::{
    Completion, Driver, FileDone, FileOp, Files, Group, Kind, Listener, Op, Outcome, RxBuf, Socket,
    Token, is_starved,
};
use crate::mesh::{Port, Remote};
use crate::outbox::Outbox;
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

    /// A connection was accepted, from the listener of that number.
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
    /// Connections at once. One more is accepted and closed at once.
    pub connections_max: u32,
    /// Timers at once.
    pub timers_max: u32,
    /// Bytes that may wait to be sent on one connection.
    pub send_bytes_max: usize,
    /// Completions, and messages, that one turn handles.
    pub turn_max: usize,
    /// How long a finished connection waits for its peer to close.
    pub linger: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_max: 16_384,
            timers_max: 1 << 20,
            send_bytes_max: 1 << 20,
            turn_max: 1024,
            linger: Duration::from_secs(2),
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
    /// Connections closed on arrival because there were as many as allowed, or no descriptor.
    pub refused: u64,
    /// Times that a pool of receive buffers was found empty.
    pub starved: u64,
    /// Bytes received on connections.
    pub received_bytes: u64,
    /// Send operations.
    pub sends: u64,
    /// Bytes given to send operations.
    pub sent_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    Flushing,
    Lingering,
    Moving,
    Closing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rx {
    /// No receive is under way, and none is wanted.
    Off,
    Armed,
    /// Cancelled, for a pause, a move or a change of pool; what arrives meanwhile counts.
    Cancelling,
    /// The pool was empty; it is on the starved list.
    Starved,
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
    held: Option<Vec<u8>>,
}

/// Identifiers of slots fit a token's number.
const GENERATION_BITS: u32 = Token::NUMBER_BITS - 32;

/// Timer keys with this bit are the core's own.
const CORE_TIMER: u64 = 1 << 63;
/// The core's timer for accepting again; the others name the connection that lingers.
const ACCEPT_TIMER: u64 = CORE_TIMER | (1 << 62);
/// The core's timer for the end of draining.
const STOP_TIMER: u64 = CORE_TIMER | (1 << 61);

struct Acceptor {
    listener: Arc<Listener>,
    armed: bool,
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
    /// Connections whose outbox has to be looked at.
    dirty: Vec<ConnId>,
    starved: VecDeque<ConnId>,
    /// Connections to go on reading.
    resumed: VecDeque<ConnId>,
    acceptors: Vec<Acceptor>,
    accepting: bool,
    udp: Vec<Socket>,
    connects: Slots<u64>,
    files: Slots<u64>,
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
}

impl<D: Driver, A: App> Core<D, A> {
    /// A core with its driver, its end of the mesh, and the sockets that it accepts from.
    pub fn new(
        driver: D,
        app: A,
        port: Port<Envelope<A::Message>>,
        listeners: Vec<Arc<Listener>>,
        limits: Limits,
        clock: Clock,
    ) -> Core<D, A> {
        assert!(limits.connections_max > 0 && limits.turn_max > 0);
        let acceptors =
            listeners.into_iter().map(|listener| Acceptor { listener, armed: false }).collect();
        let cx = Cx {
            clock,
            stats: Stats::default(),
            conns: Slots::with_generation_bits(limits.connections_max, GENERATION_BITS),
            wheel: Wheel::new(limits.timers_max, clock.now),
            port,
            remote: driver.remote(),
            ops: VecDeque::new(),
            dirty: Vec::new(),
            starved: VecDeque::new(),
            resumed: VecDeque::new(),
            acceptors,
            accepting: true,
            udp: Vec::new(),
            connects: Slots::with_generation_bits(limits.connections_max, GENERATION_BITS),
            files: Slots::with_generation_bits(1 << 20, GENERATION_BITS),
            moves: HashMap::new(),
            resting: Vec::new(),
            stop: None,
            stop_told: false,
            limits,
        };
        Core { driver, app, cx, started: false, released: false }
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
        if !std::mem::replace(&mut self.started, true) {
            self.app.on_start(&mut self.cx);
            self.cx.arm_accepts();
        }
        let mut busy = self.drain_messages();
        busy |= self.drain_completions();
        self.fire_timers();
        self.deliver_held();
        self.tell_stop();
        self.end_overdue();
        self.app.on_turn_end(&mut self.cx);
        self.rearm_starved();
        self.start_moves();
        self.flush_outboxes();
        self.cx.port.flush();
        busy |= !self.submit_ops();
        self.enter(busy)
    }

    fn enter(&mut self, busy: bool) -> io::Result<()> {
        /// How soon messages that found a full queue are tried again.
        const RETRY: Duration = Duration::from_micros(200);
        let more = busy || !self.cx.port.is_empty() || !self.cx.resumed.is_empty();
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
        }
        !self.cx.port.is_empty()
    }

    fn take_handed(&mut self, handed: Handed<A::Message>) {
        match self.cx.adopt(handed.socket) {
            Ok(conn) => {
                self.app.on_handed(&mut self.cx, conn, handed.note, &handed.data);
                self.cx.arm_recv(conn);
            }
            Err(socket) => self.cx.refuse(socket),
        }
    }

    fn fire_timers(&mut self) {
        for _ in 0..self.cx.limits.turn_max {
            let Some(key) = self.cx.wheel.fire(self.cx.clock.now) else { return };
            match key {
                ACCEPT_TIMER => self.cx.arm_accepts(),
                // It only wakes the core: see `end_overdue`.
                STOP_TIMER => {}
                _ if key & CORE_TIMER != 0 => {
                    let conn = ConnId::from_bits(key & !CORE_TIMER);
                    let over = |c: &Conn| matches!(c.phase, Phase::Flushing | Phase::Lingering);
                    if self.cx.conns.get(conn.0).is_some_and(over) {
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
            (Kind::Accept, Outcome::Socket(result)) => self.on_accept(bits as usize, result, more),
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

    fn on_accept(&mut self, acceptor: usize, result: io::Result<Socket>, more: bool) {
        /// Without a descriptor left, accepting again at once would only spin.
        const BACK_OFF: Duration = Duration::from_millis(50);
        let failed = result.is_err();
        match result {
            Ok(socket) if self.cx.stop.is_some() => self.cx.refuse(socket),
            Ok(socket) => match self.cx.adopt(socket) {
                Ok(conn) => {
                    self.cx.stats.accepted += 1;
                    self.app.on_accept(&mut self.cx, conn, acceptor);
                    self.cx.arm_recv(conn);
                }
                Err(socket) => self.cx.refuse(socket),
            },
            Err(error) if self.cx.stop.is_some() => debug!(%error, "accepting ended"),
            Err(error) => warn!(%error, "cannot accept"),
        }
        if more {
            return;
        }
        self.cx.acceptors[acceptor].armed = false;
        if self.cx.stop.is_some() {
            return;
        }
        if failed {
            let _ = self.cx.wheel.arm(self.cx.clock.now + BACK_OFF, ACCEPT_TIMER);
        } else {
            self.cx.arm_accepts();
        }
    }

    fn on_connect(&mut self, bits: u64, result: io::Result<Socket>) {
        let key = self.cx.connects.remove(SlotId::from_bits(bits)).expect("a connect ends once");
        let adopted = result.and_then(|socket| {
            self.cx.adopt(socket).map_err(|socket| {
                self.cx.refuse(socket);
                io::Error::from_raw_os_error(libc::ENFILE)
            })
        });
        let conn = adopted.as_ref().ok().copied();
        self.app.on_connect(&mut self.cx, key, adopted);
        if let Some(conn) = conn {
            self.cx.arm_recv(conn);
        }
    }

    fn on_moved(&mut self, bits: u64, result: io::Result<Socket>) {
        let conn = ConnId::from_bits(bits);
        let (core, note) = self.cx.moves.remove(&conn).expect("a move ends once");
        match result {
            Ok(socket) => {
                let c = self.cx.conns.remove(conn.0).expect("a moving connection has its slot");
                let data = c.held.unwrap_or_default();
                let handed = Handed { socket, data, note };
                self.cx.port.send(core, Envelope::Connection(handed));
            }
            Err(error) => {
                let c = self.cx.conns.get_mut(conn.0).expect("a moving connection has its slot");
                c.operations -= 1;
                c.phase = Phase::Open;
                c.paused = true;
                self.app.on_hand_over_failed(&mut self.cx, conn, error);
            }
        }
    }

    fn on_recv(&mut self, conn: ConnId, result: io::Result<Option<RxBuf>>, more: bool) {
        let ended = match result {
            Ok(Some(buf)) => {
                self.take_bytes(conn, &buf);
                self.released = true;
                self.driver.release(buf);
                None
            }
            // The end is behind what is held: it is met again by the next receive.
            Ok(None) if self.cx.conns.get(conn.0).is_some_and(Conn::is_held_up) => None,
            Ok(None) => Some(CloseReason::PeerClosed),
            Err(error) if is_starved(&error) => {
                self.cx.stats.starved += 1;
                let c = self.cx.conns.get_mut(conn.0).expect("an operation keeps the slot");
                if c.rx == Rx::Armed {
                    c.rx = Rx::Starved;
                    self.cx.starved.push_back(conn);
                }
                None
            }
            Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => None,
            Err(error) => Some(CloseReason::Failed(error)),
        };
        if !more {
            let c = self.cx.conns.get_mut(conn.0).expect("an operation keeps the slot");
            if c.rx != Rx::Starved {
                c.rx = Rx::Off;
            }
        }
        if let Some(reason) = ended {
            self.end(conn, reason);
        }
        if !more {
            self.end_operation(conn);
            let rearm = |c: &Conn| c.rx == Rx::Off;
            if self.cx.conns.get(conn.0).is_some_and(rearm) {
                self.cx.arm_recv(conn);
            }
        }
    }

    fn take_bytes(&mut self, conn: ConnId, buf: &RxBuf) {
        let data = self.driver.received(buf);
        self.cx.stats.received_bytes += data.len() as u64;
        let c = self.cx.conns.get_mut(conn.0).expect("an operation keeps the slot");
        match c.phase {
            Phase::Open if !c.paused && c.held.is_none() => {
                let other_pool = c.prefers_other_pool(data.len());
                self.app.on_data(&mut self.cx, conn, data);
                if other_pool && self.is_open(conn) {
                    self.cx.cancel_recv(conn);
                }
            }
            Phase::Open | Phase::Moving => {
                c.held.get_or_insert_default().extend_from_slice(data);
            }
            Phase::Flushing | Phase::Lingering | Phase::Closing => {}
        }
    }

    fn deliver_held(&mut self) {
        for _ in 0..self.cx.resumed.len() {
            let Some(conn) = self.cx.resumed.pop_front() else { return };
            let Some(c) = self.cx.conns.get_mut(conn.0) else { continue };
            if c.phase != Phase::Open || c.paused {
                continue;
            }
            if let Some(held) = c.held.take().filter(|held| !held.is_empty()) {
                self.app.on_data(&mut self.cx, conn, &held);
            }
            self.cx.arm_recv(conn);
        }
    }

    fn on_sent(&mut self, conn: ConnId, result: io::Result<()>) {
        let half = self.cx.limits.send_bytes_max / 2;
        let c = self.cx.conns.get_mut(conn.0).expect("an operation keeps the slot");
        c.sending = 0;
        let drained = c.refused && c.outbox.len() < half && c.phase == Phase::Open;
        match result {
            Ok(()) => {
                if drained {
                    c.refused = false;
                }
                self.cx.mark_dirty(conn);
            }
            Err(error) => {
                c.outbox = Outbox::Empty;
                self.end(conn, CloseReason::Failed(error));
            }
        }
        self.end_operation(conn);
        if drained && self.is_open(conn) {
            self.app.on_drained(&mut self.cx, conn);
        }
    }

    fn on_datagram(&mut self, socket: usize, result: io::Result<(SocketAddr, RxBuf)>, more: bool) {
        match result {
            Ok((from, buf)) => {
                let data = self.driver.received(&buf);
                self.app.on_datagram(&mut self.cx, UdpId(socket), from, data);
                self.released = true;
                self.driver.release(buf);
            }
            Err(error) => debug!(%error, "receiving datagrams"),
        }
        if !more && self.cx.stop.is_none() {
            self.arm_udp(socket);
        }
    }

    fn arm_udp(&mut self, socket: usize) {
        let op = Op::RecvFrom { socket: self.cx.udp[socket], group: Group::Datagram };
        self.cx.ops.push_back((Token::new(Kind::RecvFrom, socket as u64), op));
    }

    /// A connection came to an end that the app did not ask for, or had asked for earlier.
    fn end(&mut self, conn: ConnId, reason: CloseReason) {
        let Some(c) = self.cx.conns.get(conn.0) else { return };
        let phase = c.phase;
        if phase == Phase::Moving {
            // The other core meets the end of the stream, or the error, by itself.
            return;
        }
        self.cx.close(conn);
        if phase == Phase::Open {
            self.app.on_close(&mut self.cx, conn, reason);
        }
    }

    fn end_operation(&mut self, conn: ConnId) {
        let c = self.cx.conns.get_mut(conn.0).expect("an operation keeps the slot");
        assert!(c.operations > 0, "an operation ends once");
        c.operations -= 1;
        if c.operations == 0 && c.phase == Phase::Closing {
            self.cx.give_up(conn);
        } else if c.operations == 0 && c.phase == Phase::Moving {
            self.cx.resting.push(conn);
        }
    }

    fn rearm_starved(&mut self) {
        if self.cx.starved.is_empty() || !std::mem::take(&mut self.released) {
            return;
        }
        while let Some(conn) = self.cx.starved.pop_front() {
            if self.cx.conns.get(conn.0).is_some_and(|c| c.rx == Rx::Starved) {
                self.cx.arm_recv(conn);
            }
        }
    }

    fn start_moves(&mut self) {
        while let Some(conn) = self.cx.resting.pop() {
            let Some(c) = self.cx.conns.get_mut(conn.0) else { continue };
            let idle = c.operations == 0 && c.outbox.is_empty() && c.rx == Rx::Off;
            if c.phase == Phase::Moving && idle {
                let (core, _) = self.cx.moves[&conn];
                let to = self.cx.port.remote(core).expect("it is another core").clone();
                c.operations = 1;
                let op = Op::HandOver { socket: c.socket, to };
                self.cx.ops.push_back((Token::new(Kind::HandOver, conn.to_bits()), op));
            }
        }
    }

    fn flush_outboxes(&mut self) {
        let mut dirty = std::mem::take(&mut self.cx.dirty);
        for conn in dirty.drain(..) {
            let Some(c) = self.cx.conns.get_mut(conn.0) else { continue };
            c.dirty = false;
            if c.sending > 0 || c.phase == Phase::Closing {
                continue;
            }
            if !c.outbox.is_empty() {
                let data = c.outbox.take();
                c.sending = data.len() as u32;
                c.operations += 1;
                self.cx.stats.sends += 1;
                self.cx.stats.sent_bytes += data.len() as u64;
                let op = Op::Send { socket: c.socket, data };
                self.cx.ops.push_back((Token::new(Kind::Send, conn.to_bits()), op));
            } else if c.phase == Phase::Flushing {
                c.phase = Phase::Lingering;
                c.operations += 1;
                let op = Op::Shutdown { socket: c.socket, how: Shutdown::Write };
                self.cx.ops.push_back((Token::new(Kind::Shutdown, conn.to_bits()), op));
            }
        }
        self.cx.dirty = dirty;
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

    fn tell_stop(&mut self) {
        if self.cx.stop.is_none() || std::mem::replace(&mut self.cx.stop_told, true) {
            return;
        }
        for (n, acceptor) in self.cx.acceptors.iter().enumerate() {
            if acceptor.armed {
                let op = Op::Cancel { target: Token::new(Kind::Accept, n as u64) };
                self.cx.ops.push_back((Token::new(Kind::Refuse, 0), op));
            }
        }
        for n in 0..self.cx.udp.len() {
            let op = Op::Cancel { target: Token::new(Kind::RecvFrom, n as u64) };
            self.cx.ops.push_back((Token::new(Kind::Refuse, 0), op));
        }
        self.app.on_stop(&mut self.cx);
    }

    /// Ends what is left past the deadline of a stop, connections included that only arrive then,
    /// from another core or of a connect.
    fn end_overdue(&mut self) {
        if self.cx.stop.is_none_or(|deadline| self.cx.clock.now < deadline) {
            return;
        }
        let all: Vec<ConnId> = self.cx.conns.iter().map(|(id, _)| ConnId(id)).collect();
        for conn in all {
            self.end(conn, CloseReason::Stopped);
        }
    }
}

impl Conn {
    /// Whether its app has not been given everything that was received.
    fn is_held_up(&self) -> bool {
        self.phase == Phase::Open && (self.paused || self.held.is_some())
    }

    /// Counts a receive, and changes the pool when enough in a row speak for the other one.
    /// The caller then ends the receive, so that the next one draws from the new pool.
    fn prefers_other_pool(&mut self, len: usize) -> bool {
        const BULKY: usize = 1024;
        let (speaks, other, enough) = match self.group {
            Group::Small => (len >= BULKY, Group::Bulk, 8),
            Group::Bulk | Group::Datagram => (len < BULKY, Group::Small, 64),
        };
        self.streak = if speaks { self.streak + 1 } else { 0 };
        if self.streak < enough {
            return false;
        }
        self.streak = 0;
        self.group = other;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_is_small() {
        assert!(size_of::<Conn>() <= 88, "{}", size_of::<Conn>());
    }
}
