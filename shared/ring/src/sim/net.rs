//! The simulated network: connections as pairs of ends, listeners, datagrams.
//!
//! ```text
//!   end A                                                       end B
//!   outbox ── pump, cut into pieces ──► B.wire ── arrive ──► B.queue ── receive
//!             while B.wire + B.queue < the window
//! ```
//!
//! An end's `wire` and `queue` are what comes in; its `outbox` is what a send operation or a
//! scripted peer has given to it and the window has not yet let through. Pieces of one direction
//! keep their order; everything else is at liberty.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Weak};

use bytes::Bytes;

use super::ops::Work;
use super::state::{Event, SocketKind, State};
use crate::driver::{Listener, Outcome, Socket};

pub(super) type EndId = u64;

/// Whose an end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Core {
        core: usize,
        socket: Socket,
    },
    Peer,
    /// Nobody has accepted it yet.
    Backlog,
    /// It was closed; what it had sent still arrives.
    Gone,
}

#[derive(Debug)]
enum Piece {
    Data(Bytes),
    Fin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fin {
    No,
    /// To be sent behind what is in the outbox.
    Wanted,
    Sent,
}

/// One end of a connection.
#[derive(Debug)]
pub(super) struct End {
    pub(super) owner: Owner,
    /// The other end, once there is one.
    pub(super) peer: Option<EndId>,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    /// The operation that waits for the connection.
    pub(super) connect: Option<u64>,

    wire: VecDeque<Piece>,
    wire_bytes: usize,
    last_arrival: u64,
    pub(super) queue: VecDeque<Bytes>,
    pub(super) queue_bytes: usize,
    /// The other end has sent its last byte, and all have arrived.
    pub(super) eof: bool,
    /// What the next operation is told, once.
    pub(super) error: Option<i32>,
    /// A reset was sent or has arrived.
    pub(super) dead: bool,
    pub(super) read_shut: bool,

    pub(super) outbox: VecDeque<Bytes>,
    pub(super) fin: Fin,

    /// Of a scripted peer: it does not read.
    pub(super) paused: bool,
    /// Of a scripted peer: what it has read and was not asked for.
    pub(super) read: Vec<u8>,
    pub(super) refused: bool,
}

impl End {
    fn new(owner: Owner, local: SocketAddr, remote: SocketAddr) -> End {
        End {
            owner,
            peer: None,
            local,
            remote,
            connect: None,
            wire: VecDeque::new(),
            wire_bytes: 0,
            last_arrival: 0,
            queue: VecDeque::new(),
            queue_bytes: 0,
            eof: false,
            error: None,
            dead: false,
            read_shut: false,
            outbox: VecDeque::new(),
            fin: Fin::No,
            paused: false,
            read: Vec::new(),
            refused: false,
        }
    }

    /// Whether a receive has something to say.
    pub(super) fn is_readable(&self) -> bool {
        self.queue_bytes > 0 || self.eof || self.dead || self.read_shut
    }

    /// The error for an operation on a connection that failed: the cause for the first one that
    /// asks, as in Linux (`sk_err`).
    pub(super) fn take_error(&mut self) -> Option<i32> {
        self.error.take()
    }
}

/// Who listens on an address.
#[derive(Default)]
pub(super) struct Listening {
    /// It listens for as long as one of these is alive.
    handles: Vec<Weak<Listener>>,
    /// Accepts that are armed: core and operation.
    accepts: Vec<(usize, u64)>,
    backlog: VecDeque<EndId>,
}

impl Listening {
    fn is_open(&self) -> bool {
        self.handles.iter().any(|handle| handle.strong_count() > 0)
    }
}

/// A bound datagram socket.
pub(super) struct DatagramPort {
    /// `None` for a scripted one.
    pub(super) owner: Option<(usize, Socket)>,
    pub(super) queue: VecDeque<(SocketAddr, Bytes)>,
}

#[derive(Default)]
pub(super) struct Net {
    pub(super) ends: BTreeMap<EndId, End>,
    last_end: EndId,
    listening: BTreeMap<SocketAddr, Listening>,
    pub(super) datagrams: BTreeMap<SocketAddr, DatagramPort>,
    ports_used: u32,
}

/// The first port of those that are given to callers who name none (Linux' default range).
const EPHEMERAL_FIRST: u16 = 32_768;
const EPHEMERAL_COUNT: u32 = 28_232;

impl Net {
    fn ephemeral(&mut self, near: IpAddr) -> SocketAddr {
        let ip = if near.is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { near };
        let port = EPHEMERAL_FIRST + (self.ports_used % EPHEMERAL_COUNT) as u16;
        self.ports_used += 1;
        SocketAddr::new(ip, port)
    }

    fn add_end(&mut self, end: End) -> EndId {
        self.last_end += 1;
        self.ends.insert(self.last_end, end);
        self.last_end
    }

    /// An end that is about to call `to`.
    pub(super) fn new_caller(&mut self, owner: Owner, to: SocketAddr) -> EndId {
        let local = self.ephemeral(to.ip());
        self.add_end(End::new(owner, local, to))
    }

    /// Adds a datagram socket; port 0 gets a free one.
    pub(super) fn bind_datagram(
        &mut self,
        mut addr: SocketAddr,
        owner: Option<(usize, Socket)>,
    ) -> io::Result<SocketAddr> {
        if addr.port() == 0 {
            addr.set_port(self.ephemeral(addr.ip()).port());
        }
        if self.datagrams.contains_key(&addr) {
            return Err(io::Error::from_raw_os_error(libc::EADDRINUSE));
        }
        self.datagrams.insert(addr, DatagramPort { owner, queue: VecDeque::new() });
        Ok(addr)
    }
}

/// Where a listener listens.
pub(super) fn addr_of(listener: &Listener) -> SocketAddr {
    listener.addr().expect("a listener of a simulated network has an address")
}

/// Finds what is bound to an address, or else to its port on every address.
fn bound<T>(map: &mut BTreeMap<SocketAddr, T>, to: SocketAddr) -> Option<&mut T> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let at = if map.contains_key(&to) { to } else { SocketAddr::new(any, to.port()) };
    map.get_mut(&at)
}

impl State {
    pub(super) fn end(&mut self, end: EndId) -> Option<&mut End> {
        self.net.ends.get_mut(&end)
    }

    // --- Listening and connecting ---

    pub(super) fn listen(&mut self, listener: &Arc<Listener>) {
        let listening = self.net.listening.entry(addr_of(listener)).or_default();
        listening.handles.retain(|handle| handle.strong_count() > 0);
        if !listening.handles.iter().any(|handle| handle.as_ptr() == Arc::as_ptr(listener)) {
            listening.handles.push(Arc::downgrade(listener));
        }
    }

    pub(super) fn arm_accept(&mut self, listener: &Arc<Listener>, core: usize, op: u64) {
        self.listen(listener);
        let to = addr_of(listener);
        self.net.listening.entry(to).or_default().accepts.push((core, op));
        let at = self.after_local();
        self.schedule(at, Event::Accept { to });
    }

    pub(super) fn disarm_accept(&mut self, to: SocketAddr, core: usize, op: u64) {
        if let Some(listening) = self.net.listening.get_mut(&to) {
            listening.accepts.retain(|&armed| armed != (core, op));
        }
    }

    /// Takes the next connection that waits on an address.
    pub(super) fn take_backlog(&mut self, to: SocketAddr) -> Option<EndId> {
        self.net.listening.get_mut(&to)?.backlog.pop_front()
    }

    /// Closes the addresses on which nobody listens any more.
    pub(super) fn net_sweep(&mut self) {
        let closed = |listening: &Listening| listening.accepts.is_empty() && !listening.is_open();
        if !self.net.listening.values().any(closed) {
            return;
        }
        let gone: Vec<SocketAddr> = self
            .net
            .listening
            .iter()
            .filter(|(_, listening)| closed(listening))
            .map(|(&addr, _)| addr)
            .collect();
        for addr in gone {
            let listening = self.net.listening.remove(&addr).expect("it was just there");
            for end in listening.backlog {
                self.abandon(end);
            }
        }
    }

    pub(super) fn syn_arrives(&mut self, from: EndId, to: SocketAddr) {
        let Some(caller) = self.end(from) else { return };
        if caller.dead {
            // It was given up on the way.
            self.net.ends.remove(&from);
            return;
        }
        let local = caller.local;
        let refuse = self.plan.refuse;
        let refused = self.chance(refuse);
        let backlog_max = self.plan.backlog_max;
        let open = bound(&mut self.net.listening, to)
            .is_some_and(|listening| listening.is_open() && listening.backlog.len() < backlog_max);
        if refused || !open {
            let caller = self.end(from).expect("it was just there");
            caller.refused = true;
            caller.dead = true;
            caller.outbox.clear();
            if caller.owner == Owner::Gone {
                self.net.ends.remove(&from);
                return;
            }
        } else {
            let mut server = End::new(Owner::Backlog, to, local);
            server.peer = Some(from);
            let server = self.net.add_end(server);
            self.end(from).expect("it was just there").peer = Some(server);
            let listening = bound(&mut self.net.listening, to).expect("it was just there");
            listening.backlog.push_back(server);
            let at = self.after_local();
            self.schedule(at, Event::Accept { to });
            let at = self.after_network();
            self.schedule(at, Event::Pump { end: from });
        }
        let caller = self.end(from).expect("it was just there");
        if let (Owner::Core { core, .. }, Some(op)) = (caller.owner, caller.connect) {
            let at = self.after_network();
            self.schedule_op(at, core, op);
        }
    }

    /// Brings those who wait on an address together with those who accept there, any of them.
    pub(super) fn match_accepts(&mut self, to: SocketAddr) {
        while let Some(listening) = bound(&mut self.net.listening, to) {
            if listening.backlog.is_empty() || listening.accepts.is_empty() {
                return;
            }
            let end = listening.backlog.pop_front().expect("it is not empty");
            let chosen = self.rng.usize(..listening.accepts.len());
            let (core, op) = listening.accepts[chosen];
            let lasts = self.lasts(core);
            let (result, more) = match self.cores[core].open_socket(SocketKind::Stream(end)) {
                Some(socket) => {
                    self.end(end).expect("it waited").owner = Owner::Core { core, socket };
                    (Ok(socket), lasts)
                }
                None => {
                    // As Linux does: it is taken from the queue, and then there is no room.
                    self.abandon(end);
                    (Err(io::Error::from_raw_os_error(libc::ENFILE)), false)
                }
            };
            if !more {
                let listening = bound(&mut self.net.listening, to).expect("it was just there");
                listening.accepts.swap_remove(chosen);
            }
            self.complete(core, op, Outcome::Socket(result), more);
        }
    }

    // --- Streams ---

    /// Moves what is to be sent onto the wire as far as the window allows.
    pub(super) fn pump(&mut self, end: EndId) {
        let window = self.plan.window_bytes;
        loop {
            let Some(sender) = self.net.ends.get_mut(&end) else { return };
            let (Some(peer), false) = (sender.peer, sender.dead) else { return };
            let Some(first) = sender.outbox.front_mut() else { break };
            let first_len = first.len();
            let Some(receiver) = self.net.ends.get(&peer) else { return };
            let room = window.saturating_sub(receiver.wire_bytes + receiver.queue_bytes);
            let mut len = first_len.min(room);
            if len == 0 {
                return;
            }
            let cut = self.plan.cut;
            if self.chance(cut) {
                len = self.rng.usize(1..=len);
            }
            let sender = self.end(end).expect("it was just there");
            let first = sender.outbox.front_mut().expect("it was just there");
            let piece = first.split_to(len);
            if first.is_empty() {
                sender.outbox.pop_front();
            }
            self.put_on_wire(peer, Piece::Data(piece));
        }
        let sender = self.end(end).expect("it was just there");
        if sender.fin == Fin::Wanted {
            sender.fin = Fin::Sent;
            if let Some(peer) = sender.peer {
                self.put_on_wire(peer, Piece::Fin);
            }
        }
        self.sending_goes_on(end);
        self.clean_up(end);
    }

    fn put_on_wire(&mut self, to: EndId, piece: Piece) {
        let earliest = self.after_network();
        let Some(receiver) = self.end(to) else { return };
        let at = earliest.max(receiver.last_arrival);
        receiver.last_arrival = at;
        if let Piece::Data(data) = &piece {
            receiver.wire_bytes += data.len();
        }
        receiver.wire.push_back(piece);
        self.schedule(at, Event::Arrive { end: to });
    }

    pub(super) fn arrive(&mut self, end: EndId) {
        let reset = self.plan.reset;
        let reset = self.chance(reset);
        let Some(receiver) = self.end(end) else { return };
        if receiver.dead {
            // Nothing is taken behind a gap.
            receiver.wire.clear();
            receiver.wire_bytes = 0;
            return;
        }
        let Some(piece) = receiver.wire.pop_front() else { return };
        if reset {
            self.send_reset(end);
            if let Some(receiver) = self.end(end) {
                // It fails at this end too, as if something in between had sent the resets.
                receiver.dead = false;
                self.reset_arrives(end);
            }
            return;
        }
        match piece {
            Piece::Data(data) => {
                receiver.wire_bytes -= data.len();
                if receiver.owner == Owner::Gone {
                    self.abandon(end);
                    return;
                }
                receiver.queue_bytes += data.len();
                receiver.queue.push_back(data);
            }
            Piece::Fin => receiver.eof = true,
        }
        self.became_readable(end);
        self.clean_up(end);
    }

    pub(super) fn reset_arrives(&mut self, end: EndId) {
        let Some(receiver) = self.end(end) else { return };
        if receiver.dead {
            self.clean_up(end);
            return;
        }
        receiver.dead = true;
        receiver.wire.clear();
        receiver.wire_bytes = 0;
        // As Linux has it: who has seen the end of the stream meets a broken pipe.
        receiver.error = Some(if receiver.eof { libc::EPIPE } else { libc::ECONNRESET });
        self.cut_sending(end);
        self.became_readable(end);
        self.clean_up(end);
    }

    /// Drops what an end still had to send; an operation that waits for that fails.
    pub(super) fn cut_sending(&mut self, end: EndId) {
        let Some(sender) = self.end(end) else { return };
        let lost = !sender.outbox.is_empty();
        sender.outbox.clear();
        if lost
            && let Owner::Core { core, socket } = sender.owner
            && let Some(op) = self.cores[core].socket(socket).and_then(|entry| entry.sending)
            && let Some(pending) = self.cores[core].ops.get_mut(&op)
            && let Work::Send { cut, .. } = &mut pending.work
        {
            *cut = true;
        }
        self.sending_goes_on(end);
    }

    fn sending_goes_on(&mut self, end: EndId) {
        if let Some(Owner::Core { core, socket }) = self.end(end).map(|end| end.owner)
            && let Some(op) = self.cores[core].socket(socket).and_then(|entry| entry.sending)
        {
            let at = self.after_local();
            self.schedule_op(at, core, op);
        }
    }

    /// Lets whoever reads from an end know that it can.
    pub(super) fn became_readable(&mut self, end: EndId) {
        let Some(receiver) = self.end(end) else { return };
        match receiver.owner {
            Owner::Core { core, socket } => {
                if let Some(op) = self.cores[core].socket(socket).and_then(|entry| entry.receiving)
                {
                    let at = self.after_local();
                    self.schedule_op(at, core, op);
                }
            }
            Owner::Peer if !receiver.paused && receiver.queue_bytes > 0 => {
                let bytes = self.consume(end, usize::MAX);
                self.end(end).expect("it was just there").read.extend_from_slice(&bytes);
            }
            Owner::Peer | Owner::Backlog | Owner::Gone => {}
        }
    }

    /// Takes up to `max` bytes that have arrived, which lets the other end send more.
    pub(super) fn consume(&mut self, end: EndId, max: usize) -> Vec<u8> {
        let Some(receiver) = self.end(end) else { return Vec::new() };
        let mut taken = Vec::with_capacity(max.min(receiver.queue_bytes));
        while let Some(first) = receiver.queue.front_mut() {
            let len = first.len().min(max - taken.len());
            if len == 0 {
                break;
            }
            taken.extend_from_slice(&first.split_to(len));
            if first.is_empty() {
                receiver.queue.pop_front();
            }
        }
        receiver.queue_bytes -= taken.len();
        if let Some(peer) = receiver.peer {
            let at = self.after_network();
            self.schedule(at, Event::Pump { end: peer });
        }
        taken
    }

    /// Ends sending, behind what is still to be sent.
    pub(super) fn finish_sending(&mut self, end: EndId) {
        let at = self.after_local();
        if let Some(sender) = self.end(end)
            && sender.fin == Fin::No
            && !sender.dead
        {
            sender.fin = Fin::Wanted;
            self.schedule(at, Event::Pump { end });
        }
    }

    /// What `close` does: the end of the stream behind what was sent, or a reset if something
    /// that arrived was never read.
    pub(super) fn close_end(&mut self, end: EndId) {
        let Some(closing) = self.end(end) else { return };
        if closing.queue_bytes > 0 {
            self.abandon(end);
            return;
        }
        closing.owner = Owner::Gone;
        self.finish_sending(end);
        self.clean_up(end);
    }

    /// Resets a connection and forgets this end of it.
    pub(super) fn abandon(&mut self, end: EndId) {
        self.send_reset(end);
        if let Some(closing) = self.end(end) {
            closing.owner = Owner::Gone;
            self.clean_up(end);
        }
    }

    pub(super) fn send_reset(&mut self, end: EndId) {
        let earliest = self.after_network();
        let in_order = self.rng.bool();
        let Some(sender) = self.end(end) else { return };
        if std::mem::replace(&mut sender.dead, true) {
            return;
        }
        sender.outbox.clear();
        sender.wire.clear();
        sender.wire_bytes = 0;
        let Some(peer) = sender.peer else { return };
        if let Some(receiver) = self.end(peer) {
            // It may overtake what is under way, which then never arrives.
            let at = if in_order { earliest.max(receiver.last_arrival) } else { earliest };
            self.schedule(at, Event::Reset { end: peer });
        }
    }

    /// Forgets an end that was closed and that nothing can happen to any more. One whose call has
    /// not arrived yet is forgotten when it does.
    fn clean_up(&mut self, end: EndId) {
        if let Some(closed) = self.end(end)
            && closed.owner == Owner::Gone
            && (closed.peer.is_some() || closed.refused)
            && (closed.dead || (closed.eof && closed.fin == Fin::Sent))
        {
            self.net.ends.remove(&end);
        }
    }

    // --- Datagrams ---

    pub(super) fn send_datagram(&mut self, mut from: SocketAddr, to: SocketAddr, data: &Bytes) {
        if from.ip().is_unspecified() {
            from.set_ip(to.ip());
        }
        let (lost, twice, late) =
            (self.plan.datagram_lost, self.plan.datagram_twice, self.plan.datagram_late);
        let copies = if self.chance(twice) { 2 } else { 1 };
        for _ in 0..copies {
            if self.chance(lost) {
                continue;
            }
            // Without a fault they keep their order, as on a loopback device.
            let mut at = self.now + self.plan.network_delay.start().as_nanos() as u64;
            if self.chance(late) {
                at = self.after_network() + self.plan.network_delay.end().as_nanos() as u64;
            }
            self.schedule(at, Event::Datagram { from, to, data: data.clone() });
        }
    }

    pub(super) fn datagram_arrives(&mut self, from: SocketAddr, to: SocketAddr, data: Bytes) {
        let max = self.plan.datagrams_max;
        let Some(port) = bound(&mut self.net.datagrams, to) else { return };
        if port.queue.len() >= max {
            return;
        }
        port.queue.push_back((from, data));
        if let Some((core, socket)) = port.owner
            && let Some(op) = self.cores[core].socket(socket).and_then(|entry| entry.receiving)
        {
            let at = self.after_local();
            self.schedule_op(at, core, op);
        }
    }
}
