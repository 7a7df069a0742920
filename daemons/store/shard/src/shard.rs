//! One core: instances, and the connections of their clients.
//!
//! ```text
//!   on_data ─► input ─► parser ─► engine ─► output ──(gate kept?)──► waiting ─► ring
//!                 ▲        a budget a turn      │ no
//!                 └── queue of the instance     └─► held, until the log says so
//!
//!   on_turn_end: for each instance that something happened to:
//!                journal ─► log, commit, replies, a share of the log's upkeep
//! ```
//!
//! An instance executes no more than its budget in a turn, so a neighbour's commands wait for
//! that long at most.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hashbrown::HashMap;
use sextant_engine::{ClientId, Engine, Executed, Next, Peer, Room};
use sextant_resp::{Limits, Parsed, key_ahead};
use sextant_ring::core::{App, CloseReason, ConnId, Cx};
use sextant_ring::driver::{FileDone, Listener};
use sextant_ring::time::{Clock, Time};
use sextant_ring::wheel::TimerId;
use tracing::{debug, error, info, warn};

use crate::connection::Connection;
use crate::keeper::Keeper;

/// Commands that an instance executes before it looks at the clock.
const COMMANDS_A_LOOK: usize = 64;
/// How long an instance executes in a turn, unless a single command takes longer.
const BUDGET: Duration = Duration::from_micros(500);
/// Changes that one flush gives to the log at most, but for those of a single command.
const JOURNAL_BYTES: usize = 256 << 10;
/// Replies of a connection that wait for its peer, before no more commands of it are executed.
const UNSENT_MAX: usize = 1 << 20;
/// Input of a connection that waits for its turn, before nothing more is read from it.
const INPUT_MAX: usize = 256 << 10;
/// Commands whose keys are looked for ahead of time: of a connection, and of all in a turn, so that
/// the processor's cache has room for them.
const AHEAD_A_CLIENT: usize = 64;
const AHEAD_MAX: usize = 1024;
/// What is handed to the ring in one piece.
const PIECE_BYTES: usize = 256 << 10;
/// Replies of a connection whose peer does not take them, before it is closed.
const OUTPUT_MAX: usize = 1 << 30;

/// Something that is done to an instance by its core, or to none.
pub type Act = Box<dyn FnOnce(Option<&mut Instance>) + Send>;

/// What the control plane tells a core.
pub enum Command {
    /// An instance begins here.
    Open(Box<Instance>),
    /// An instance ends: its clients are closed, its log settled and closed.
    Close {
        /// The instance's number.
        id: u32,
        /// Called once the log is closed.
        done: Box<dyn FnOnce() + Send>,
    },
    /// Something is done to an instance, or to none if there is none of that number.
    With {
        /// The instance's number.
        id: u32,
        /// What.
        act: Act,
    },
    /// The core stops by then.
    Stop {
        /// When clients have to be gone.
        deadline: Time,
    },
}

/// What cores are told.
pub enum Message {
    /// By the control plane.
    Command(Command),
    /// By the core itself: there is more to do.
    Continue,
}

/// A database instance with its log.
pub struct Instance {
    /// Its number: no other of the daemon has it.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// What executes its commands.
    pub engine: Engine,
    /// What keeps it; an instance in memory alone has none.
    pub keeper: Option<Keeper>,
    /// Where its clients connect to.
    pub listeners: Vec<Arc<Listener>>,
    /// Clients at once.
    pub connections_max: u32,
    state: State,
}

#[derive(Default)]
struct State {
    listeners: Vec<usize>,
    clients: HashMap<ClientId, ConnId, foldhash::fast::RandomState>,
    /// Connections whose commands wait for a turn.
    queue: VecDeque<ConnId>,
    /// Connections whose replies wait for the log.
    held: Vec<ConnId>,
    /// Keys of commands that arrived in this turn, and whose memory was asked for.
    ahead: Vec<(usize, u64)>,
    /// Something happened in this turn.
    active: bool,
    timer: Option<(TimerId, Time)>,
    /// When this turn's budget ends.
    until: Option<Instant>,
    left: usize,
    closing: Option<Box<dyn FnOnce() + Send>>,
    /// It ends, and has left an image, or tried to.
    imaged: bool,
}

impl Instance {
    /// An instance, before it is given to its core. Its log was read.
    pub fn new(id: u32, name: String, mut engine: Engine, keeper: Option<Keeper>) -> Instance {
        engine.restore();
        let state = State::default();
        let listeners = Vec::new();
        Instance { id, name, engine, keeper, listeners, connections_max: 10_000, state }
    }

    /// Whether commands have to wait for the log.
    fn is_behind(&mut self) -> bool {
        let Some(keeper) = &self.keeper else { return false };
        keeper.is_behind() || self.engine.keyspace().journal().bytes().len() >= JOURNAL_BYTES
    }

    fn kept(&self) -> u64 {
        self.keeper.as_ref().map_or(u64::MAX, Keeper::kept)
    }
}

/// One core of the daemon.
pub struct Shard {
    /// By slot. A slot's number is in its log's tickets and in its timers.
    instances: Vec<Option<Box<Instance>>>,
    /// Slots by the number of a listener.
    by_listener: HashMap<usize, usize, foldhash::fast::RandomState>,
    /// By the connection's index.
    connections: Vec<Option<Box<Connection>>>,
    active: Vec<usize>,
    continued: bool,
    stopping: bool,
    on_turn: Box<dyn FnMut() + Send>,
}

type Context = Cx<Message>;

impl Shard {
    /// A core without instances. `on_turn` is called once a turn: a sign of life.
    pub fn new(on_turn: Box<dyn FnMut() + Send>) -> Shard {
        Shard {
            instances: Vec::new(),
            by_listener: HashMap::default(),
            connections: Vec::new(),
            active: Vec::new(),
            continued: false,
            stopping: false,
            on_turn,
        }
    }

    /// A slot that no instance has.
    fn free_slot(&mut self) -> usize {
        if let Some(slot) = self.instances.iter().position(Option::is_none) {
            return slot;
        }
        self.instances.push(None);
        self.instances.len() - 1
    }

    fn open(&mut self, cx: &mut Context, mut instance: Box<Instance>) {
        let slot = match &instance.keeper {
            Some(keeper) => usize::from(keeper.ticket_space()) - 1,
            None => self.free_slot(),
        };
        if self.instances.len() <= slot {
            self.instances.resize_with(slot + 1, || None);
        }
        assert!(self.instances[slot].is_none(), "an instance's ticket space is its own");
        instance.engine.set_now(cx.clock().unix_ms);
        for listener in instance.listeners.drain(..) {
            let Some(number) = cx.listen(listener) else {
                error!(instance = instance.name, "there are too many listeners on this core");
                continue;
            };
            instance.state.listeners.push(number);
            self.by_listener.insert(number, slot);
        }
        info!(instance = instance.name, "open");
        self.instances[slot] = Some(instance);
        self.activate(slot);
    }

    fn slot_of(&self, id: u32) -> Option<usize> {
        let is_it = |found: &Option<Box<Instance>>| found.as_ref().is_some_and(|i| i.id == id);
        self.instances.iter().position(is_it)
    }

    fn close(&mut self, cx: &mut Context, slot: usize, done: Box<dyn FnOnce() + Send>) {
        let Some(instance) = &mut self.instances[slot] else { return };
        for number in std::mem::take(&mut instance.state.listeners) {
            cx.unlisten(number);
            self.by_listener.remove(&number);
        }
        instance.state.closing = Some(done);
        if let Some(keeper) = &mut instance.keeper {
            keeper.settle();
        }
        let conns: Vec<ConnId> = instance.state.clients.values().copied().collect();
        for conn in conns {
            self.end(conn);
            cx.finish(conn);
        }
        self.activate(slot);
    }

    fn activate(&mut self, slot: usize) {
        if let Some(instance) = &mut self.instances[slot]
            && !std::mem::replace(&mut instance.state.active, true)
        {
            self.active.push(slot);
        }
    }

    fn connection(&mut self, conn: ConnId) -> Option<&mut Connection> {
        let found = self.connections.get_mut(conn.index())?.as_deref_mut();
        found.filter(|found| found.conn == conn)
    }

    /// Forgets a connection.
    fn end(&mut self, conn: ConnId) {
        let Some(place) = self.connections.get_mut(conn.index()) else { return };
        let Some(gone) = place.take_if(|found| found.conn == conn) else { return };
        if let Some(instance) = &mut self.instances[gone.instance] {
            instance.engine.disconnect(gone.client);
            instance.state.clients.remove(&gone.client);
        }
        // Whoever waited for what it did may go on.
        self.activate(gone.instance);
    }

    /// Executes what a connection has asked for, as far as its instance's budget goes.
    fn pump(&mut self, cx: &mut Context, conn: ConnId) {
        let Some(connection) =
            self.connections.get_mut(conn.index()).and_then(Option::as_deref_mut)
        else {
            return;
        };
        if connection.conn != conn || connection.closing {
            return;
        }
        let slot = connection.instance;
        let Some(instance) = self.instances[slot].as_deref_mut() else { return };
        let held = instance.engine.output(connection.client).map_or(0, |output| output.len());
        let unsent = held + connection.waiting_bytes + cx.unsent(conn);
        let mut stopped = unsent > UNSENT_MAX || instance.engine.is_waiting(connection.client);
        while !stopped && connection.unread() >= connection.wanted.max(1) {
            if !instance.may_execute() {
                if !std::mem::replace(&mut connection.queued, true) {
                    instance.state.queue.push_back(conn);
                }
                break;
            }
            stopped = execute_one(instance, connection);
        }
        connection.compact();
        self.pause_if_full(cx, conn);
        self.activate(slot);
        self.hold_or_send(cx, conn);
    }

    /// Stops reading from a connection that has sent more than is executed for it, and goes on
    /// when it has not.
    fn pause_if_full(&mut self, cx: &mut Context, conn: ConnId) {
        let Some(connection) = self.connection(conn) else { return };
        let is_full = connection.unread() > INPUT_MAX && connection.unread() >= connection.wanted;
        let pause = is_full || connection.closing;
        if pause != std::mem::replace(&mut connection.paused, pause) {
            match pause {
                true => cx.pause(conn),
                false => cx.resume(conn),
            }
        }
    }

    /// Sends a client's replies, or keeps them until the log has what they tell.
    fn hold_or_send(&mut self, cx: &mut Context, conn: ConnId) {
        let Some(connection) =
            self.connections.get_mut(conn.index()).and_then(Option::as_deref_mut)
        else {
            return;
        };
        let Some(instance) = self.instances[connection.instance].as_deref_mut() else { return };
        let kept = instance.kept();
        let gate = instance.engine.gate(connection.client);
        if instance.keeper.as_ref().is_some_and(|keeper| keeper.is_lost(gate)) {
            // What it would be told never came to be.
            self.end(conn);
            cx.abort(conn);
            return;
        }
        if gate > kept {
            if !std::mem::replace(&mut connection.held, true) {
                instance.state.held.push(conn);
            }
            return;
        }
        if let Some(output) = instance.engine.output(connection.client) {
            let is_short = output.is_plain() && output.len() <= PIECE_BYTES / 8;
            let is_first = is_short && connection.waiting.is_empty();
            if is_first && (output.is_empty() || cx.send_copy(conn, output.bytes()).is_ok()) {
                output.clear();
            }
            let waiting = &mut connection.waiting;
            let mut bytes = 0;
            output.take(|piece| {
                bytes += piece.len();
                waiting.push_back(piece);
            });
            connection.waiting_bytes += bytes;
        }
        self.send_waiting(cx, conn);
    }

    /// Hands to the ring what it has room for.
    fn send_waiting(&mut self, cx: &mut Context, conn: ConnId) {
        let Some(connection) = self.connection(conn) else { return };
        while let Some(piece) = connection.waiting.front_mut() {
            let Some(room) = cx.room(conn) else { break };
            let count = piece.len().min(PIECE_BYTES);
            if room < count {
                cx.tell_drained(conn);
                break;
            }
            let part: Bytes = piece.split_to(count);
            if piece.is_empty() {
                connection.waiting.pop_front();
            }
            connection.waiting_bytes -= count;
            if cx.send(conn, part).is_err() {
                break;
            }
        }
        if connection.waiting_bytes > OUTPUT_MAX {
            warn!("a client that does not take its replies is closed");
            self.end(conn);
            cx.abort(conn);
        } else if connection.closing && connection.waiting.is_empty() && !connection.held {
            self.end(conn);
            cx.finish(conn);
        }
    }

    /// What clients were told that had not just asked.
    fn tell(&mut self, cx: &mut Context, slot: usize) {
        loop {
            let Some(instance) = self.instances[slot].as_deref_mut() else { return };
            let Some((client, executed)) = instance.engine.next_told() else { return };
            let Some(conn) = instance.state.clients.get(&client).copied() else { continue };
            if let Some(connection) = self.connection(conn) {
                connection.closing |= executed.next == Next::Close;
            }
            self.hold_or_send(cx, conn);
            // It may have more to say, now that it waits no longer.
            if executed.next == Next::Ready {
                self.pump(cx, conn);
            }
        }
    }

    /// The turn's end for one instance.
    fn settle(&mut self, cx: &mut Context, slot: usize) {
        let clock = cx.clock();
        if let Some(instance) = self.instances[slot].as_deref_mut() {
            instance.engine.set_now(clock.unix_ms);
            for key in instance.state.ahead.drain(..) {
                instance.engine.prefetch_value(key);
            }
        }
        let mut more = self.drain_queue(cx, slot);
        self.tell(cx, slot);
        let Some(instance) = self.instances[slot].as_deref_mut() else { return };
        more |= instance.engine.tick();
        if let Some(keeper) = &mut instance.keeper {
            more |= keeper.compact(instance.engine.keyspace(), cx);
            keeper.flush(instance.engine.keyspace(), clock.unix_ms);
            keeper.commit(cx, clock.now);
        }
        instance.find_room();
        self.tell(cx, slot);
        self.release(cx, slot);
        self.arm(cx, slot, clock);
        if more {
            self.activate(slot);
        }
        self.finish_closing(cx, slot, clock);
    }

    /// Sends replies that waited for the log.
    fn release(&mut self, cx: &mut Context, slot: usize) {
        let Some(instance) = self.instances[slot].as_deref_mut() else { return };
        if instance.state.held.is_empty() {
            return;
        }
        for conn in std::mem::take(&mut instance.state.held) {
            let Some(connection) = self.connection(conn) else { continue };
            connection.held = false;
            self.hold_or_send(cx, conn);
            self.queue_again(slot, conn);
        }
    }

    /// Lets a connection take its turn whose commands had to wait until its replies were sent.
    fn queue_again(&mut self, slot: usize, conn: ConnId) {
        let Some(connection) = self.connection(conn) else { return };
        let has_more = connection.unread() >= connection.wanted.max(1);
        if !has_more || connection.held || std::mem::replace(&mut connection.queued, true) {
            return;
        }
        if let Some(instance) = self.instances[slot].as_deref_mut() {
            instance.state.queue.push_back(conn);
            self.activate(slot);
        }
    }

    /// Lets those go on whose commands had to wait; returns whether some still do although nothing
    /// but their turn is missing.
    fn drain_queue(&mut self, cx: &mut Context, slot: usize) -> bool {
        let Some(instance) = self.instances[slot].as_deref_mut() else { return false };
        for _ in 0..instance.state.queue.len() {
            let Some(instance) = self.instances[slot].as_deref_mut() else { return false };
            if !instance.may_execute() {
                break;
            }
            let Some(conn) = instance.state.queue.pop_front() else { break };
            if let Some(connection) = self.connection(conn) {
                connection.queued = false;
                self.pump(cx, conn);
            }
        }
        let Some(instance) = self.instances[slot].as_deref_mut() else { return false };
        let waits = !instance.state.queue.is_empty();
        waits && instance.keeper.as_ref().is_none_or(|keeper| !keeper.is_behind())
    }

    /// Sees to it that the instance is looked at when something is due.
    fn arm(&mut self, cx: &mut Context, slot: usize, clock: Clock) {
        let Some(instance) = self.instances[slot].as_deref_mut() else { return };
        let engine = instance.engine.deadline().map(|unix_ms| {
            let wait = unix_ms.saturating_sub(clock.unix_ms).max(1);
            clock.now + Duration::from_millis(wait)
        });
        let log = instance.keeper.as_ref().and_then(Keeper::deadline);
        let Some(due) = engine.into_iter().chain(log).min() else { return };
        if let Some((timer, at)) = instance.state.timer {
            if at <= due {
                return;
            }
            cx.disarm(timer);
        }
        instance.state.timer = cx.arm(due, slot as u64).map(|timer| (timer, due));
    }

    fn finish_closing(&mut self, cx: &mut Context, slot: usize, clock: Clock) {
        let Some(instance) = self.instances[slot].as_deref_mut() else { return };
        if instance.state.closing.is_none() {
            return;
        }
        if let Some(keeper) = &mut instance.keeper {
            if keeper.is_settled() && !keeper.is_closed() {
                let keys = instance.engine.keyspace();
                if !std::mem::replace(&mut instance.state.imaged, true) {
                    keeper.write_image(keys, &mut self.on_turn);
                    keeper.commit(cx, clock.now);
                }
                if keeper.is_settled() {
                    keeper.close(cx);
                }
            }
            if !keeper.is_closed() {
                return;
            }
        }
        if let Some(mut gone) = self.instances[slot].take() {
            if let Some((timer, _)) = gone.state.timer {
                cx.disarm(timer);
            }
            info!(instance = gone.name, "closed");
            if let Some(done) = gone.state.closing.take() {
                done();
            }
        }
    }

    fn command(&mut self, cx: &mut Context, command: Command) {
        match command {
            Command::Open(instance) => self.open(cx, instance),
            Command::Close { id, done } => match self.slot_of(id) {
                Some(slot) => self.close(cx, slot, done),
                None => done(),
            },
            Command::With { id, act } => {
                let slot = self.slot_of(id);
                act(slot.and_then(|slot| self.instances[slot].as_deref_mut()));
                slot.into_iter().for_each(|slot| self.activate(slot));
            }
            Command::Stop { deadline } => cx.stop(deadline),
        }
    }
}

impl Instance {
    /// Whether another command may be executed in this turn.
    fn may_execute(&mut self) -> bool {
        if self.is_behind() || self.state.closing.is_some() {
            return false;
        }
        let state = &mut self.state;
        if state.left == 0 {
            let now = Instant::now();
            let until = *state.until.get_or_insert(now + BUDGET);
            if now >= until {
                return false;
            }
            state.left = COMMANDS_A_LOOK;
        }
        state.left -= 1;
        true
    }

    /// Asks for the memory that commands which have just arrived will need.
    fn look_ahead(&mut self, client: ClientId, data: &[u8]) {
        let mut at = 0;
        for _ in 0..AHEAD_A_CLIENT {
            let Some((key, next)) = key_ahead(data, at) else { return };
            if self.state.ahead.len() >= AHEAD_MAX {
                return;
            }
            let key = self.engine.prefetch(client, &data[key]);
            self.state.ahead.push(key);
            at = next;
        }
    }

    /// Says to the engine whether commands may change anything.
    fn find_room(&mut self) {
        let Some(keeper) = &mut self.keeper else { return };
        let room = match keeper.log().read_only() {
            Some(_) => Room::ReadOnly,
            None if keeper.has_room() => Room::Enough,
            None => Room::Full,
        };
        self.engine.set_room(room);
    }
}

/// Executes a connection's next command, if it is whole; returns whether it is the last for now.
fn execute_one(instance: &mut Instance, connection: &mut Connection) -> bool {
    let Connection { parser, input, done, client, .. } = connection;
    match parser.parse(&input[*done..]) {
        Ok(Parsed::Command { args, consumed }) => {
            let Executed { next, .. } = instance.engine.execute(*client, args);
            *done += consumed;
            connection.wanted = 1;
            connection.closing = next == Next::Close;
            next != Next::Ready
        }
        Ok(Parsed::Nothing { consumed }) => {
            *done += consumed;
            connection.wanted = 1;
            false
        }
        Ok(Parsed::Incomplete { at_least }) => {
            connection.wanted = connection.unread() + at_least;
            false
        }
        Err(error) => {
            if let Some(output) = instance.engine.output(*client) {
                output.protocol_error(&error);
            }
            connection.closing = true;
            true
        }
    }
}

impl App for Shard {
    type Message = Message;

    fn on_accept(&mut self, cx: &mut Context, conn: ConnId, listener: usize) {
        let Some(slot) = self.by_listener.get(&listener).copied() else {
            cx.abort(conn);
            return;
        };
        let Some(instance) = self.instances[slot].as_deref_mut() else {
            cx.abort(conn);
            return;
        };
        if instance.state.clients.len() >= instance.connections_max as usize || self.stopping {
            let _ = cx.send_copy(conn, b"-ERR max number of clients reached\r\n");
            cx.finish(conn);
            return;
        }
        instance.engine.set_now(cx.clock().unix_ms);
        let client = instance.engine.connect(Peer::default());
        instance.state.clients.insert(client, conn);
        let connection = Connection::new(conn, slot, client, Limits::default());
        if self.connections.len() <= conn.index() {
            self.connections.resize_with(conn.index() + 1, || None);
        }
        self.connections[conn.index()] = Some(Box::new(connection));
        cx.ask_peer(conn);
        self.activate(slot);
    }

    fn on_peer(&mut self, _: &mut Context, conn: ConnId, addr: std::io::Result<SocketAddr>) {
        let Some(connection) = self.connection(conn) else { return };
        let (slot, client) = (connection.instance, connection.client);
        if let (Ok(addr), Some(instance)) = (addr, self.instances[slot].as_deref_mut()) {
            instance.engine.set_address(client, addr.to_string());
        }
    }

    fn on_data(&mut self, cx: &mut Context, conn: ConnId, data: &[u8]) {
        let Some(connection) = self.connection(conn) else { return };
        if connection.closing {
            return;
        }
        connection.input.extend_from_slice(data);
        if connection.unread() < connection.wanted {
            return;
        }
        let (slot, client) = (connection.instance, connection.client);
        let is_new = !std::mem::replace(&mut connection.queued, true);
        let Some(instance) = self.instances[slot].as_deref_mut() else { return };
        if is_new {
            instance.state.queue.push_back(conn);
            instance.look_ahead(client, data);
            self.activate(slot);
        }
        // What it sends without a pause must not fill the memory before its turn.
        self.pause_if_full(cx, conn);
    }

    fn on_drained(&mut self, cx: &mut Context, conn: ConnId) {
        self.send_waiting(cx, conn);
        self.pump(cx, conn);
    }

    fn on_close(&mut self, _: &mut Context, conn: ConnId, reason: CloseReason) {
        if let CloseReason::Failed(error) = reason {
            debug!(%error, "a connection failed");
        }
        self.end(conn);
    }

    fn on_timer(&mut self, cx: &mut Context, key: u64) {
        let slot = key as usize;
        if let Some(Some(instance)) = self.instances.get_mut(slot) {
            instance.state.timer = None;
            instance.engine.set_now(cx.clock().unix_ms);
            self.activate(slot);
        }
    }

    fn on_message(&mut self, cx: &mut Context, message: Message) {
        match message {
            Message::Command(command) => self.command(cx, command),
            Message::Continue => self.continued = false,
        }
    }

    fn on_file(&mut self, cx: &mut Context, done: FileDone) {
        let slot = ((done.ticket >> 48) as usize).wrapping_sub(1);
        let clock = cx.clock();
        let Some(Some(instance)) = self.instances.get_mut(slot) else { return };
        if let Some(keeper) = &mut instance.keeper {
            keeper.handle(done, cx, clock);
        }
        instance.engine.set_now(clock.unix_ms);
        self.activate(slot);
    }

    fn on_turn_end(&mut self, cx: &mut Context) {
        (self.on_turn)();
        let active = std::mem::take(&mut self.active);
        for slot in &active {
            if let Some(instance) = self.instances[*slot].as_deref_mut() {
                instance.state.active = false;
            }
        }
        for slot in &active {
            self.settle(cx, *slot);
            if let Some(instance) = self.instances[*slot].as_deref_mut() {
                (instance.state.until, instance.state.left) = (None, 0);
            }
        }
        if !self.active.is_empty() && !std::mem::replace(&mut self.continued, true) {
            let core = cx.core();
            cx.tell(core, Message::Continue);
        }
    }

    fn on_stop(&mut self, cx: &mut Context) {
        self.stopping = true;
        for slot in 0..self.instances.len() {
            if self.instances[slot].is_some() {
                self.close(cx, slot, Box::new(|| {}));
            }
        }
    }

    fn is_busy(&self) -> bool {
        self.instances.iter().any(Option::is_some)
    }
}
