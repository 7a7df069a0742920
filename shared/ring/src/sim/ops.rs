//! The operations on sockets as a kernel would carry them out: how each begins, goes on and ends.
//! Those on files are in [`files`](super::files).

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;

use super::files::FileWork;
use super::net::{EndId, Owner, addr_of};
use super::state::{CoreState, Direction, Event, Of, SocketKind, State, rule};
use crate::driver::{Group, Listener, Op, Outcome, Outgoing, RxBuf, Socket, Token};
use crate::mesh::Remote;

/// The largest datagram (the 16-bit length of UDP less both headers).
const DATAGRAM_BYTES_MAX: usize = 65_507;

/// An operation under way.
pub(super) enum Work {
    Accept { listener: Arc<Listener> },
    Connect { socket: Option<Socket> },
    Recv { socket: Socket, group: Group },
    Poll { socket: Socket },
    Send { socket: Socket, cut: bool },
    RecvFrom { socket: Socket, group: Group },
    SendTo { socket: Socket, len: usize },
    PeerAddr { socket: Socket },
    Cancel { target: Token },
    Shutdown { socket: Socket, how: Shutdown },
    HandOver { socket: Socket, to: Remote },
    Close { socket: Socket },
    File(FileWork),
}

impl Work {
    /// The socket whose operation this is.
    pub(super) fn of(&self) -> Option<Of> {
        let (socket, direction) = match *self {
            Work::Recv { socket, .. } | Work::Poll { socket } | Work::RecvFrom { socket, .. } => {
                (socket, Direction::In)
            }
            Work::Send { socket, .. } => (socket, Direction::Out),
            Work::SendTo { socket, .. }
            | Work::PeerAddr { socket }
            | Work::Shutdown { socket, .. } => (socket, Direction::Other),
            // The socket leaves with these, or stays without them.
            Work::HandOver { .. } | Work::Close { .. } => return None,
            Work::Accept { .. } | Work::Connect { .. } | Work::Cancel { .. } | Work::File(_) => {
                return None;
            }
        };
        Some(Of { socket, direction })
    }
}

fn errno<T>(code: i32) -> io::Result<T> {
    Err(io::Error::from_raw_os_error(code))
}

impl State {
    /// Begins an operation.
    pub(super) fn start(&mut self, core: usize, token: Token, op: Op) {
        self.note(&[core as u64, token.0]);
        tracing::trace!(core, token = token.0, ?op, now = self.now, "starts");
        match op {
            Op::Accept { listener } => {
                let op = self.add_op(core, token, Work::Accept { listener: Arc::clone(&listener) });
                self.arm_accept(&listener, core, op);
            }
            Op::Connect { to } => self.start_connect(core, token, to),
            Op::Recv { socket, group } => {
                self.stream_of(core, socket, "Recv");
                self.start_on(core, token, Work::Recv { socket, group });
            }
            Op::Poll { socket } => {
                self.stream_of(core, socket, "Poll");
                self.start_on(core, token, Work::Poll { socket });
            }
            Op::Send { socket, data } => self.start_send(core, token, socket, data),
            Op::RecvFrom { socket, group } => {
                self.datagram_of(core, socket, "RecvFrom");
                self.start_on(core, token, Work::RecvFrom { socket, group });
            }
            Op::SendTo { socket, to, data } => {
                let from = self.datagram_of(core, socket, "SendTo");
                let len = data.len();
                if len <= DATAGRAM_BYTES_MAX {
                    self.send_datagram(from, to, &data);
                }
                self.start_on(core, token, Work::SendTo { socket, len });
            }
            Op::PeerAddr { socket } => {
                self.stream_of(core, socket, "PeerAddr");
                self.start_on(core, token, Work::PeerAddr { socket });
            }
            Op::Shutdown { socket, how } => {
                self.stream_of(core, socket, "Shutdown");
                self.start_on(core, token, Work::Shutdown { socket, how });
            }
            Op::Cancel { target, .. } => {
                let op = self.add_op(core, token, Work::Cancel { target });
                let at = self.after_local();
                self.schedule_op(at, core, op);
            }
            Op::HandOver { socket, to } => {
                self.stream_of(core, socket, "HandOver");
                self.start_leaving(core, token, socket, Work::HandOver { socket, to });
            }
            Op::Close { socket } => {
                self.start_leaving(core, token, socket, Work::Close { socket });
            }
            Op::File(file_op) => self.start_file(core, token, file_op),
        }
    }

    /// Begins an operation that counts as one of its socket's.
    fn start_on(&mut self, core: usize, token: Token, work: Work) {
        let Of { socket, direction } = work.of().expect("it is a socket's");
        let is_poll = matches!(work, Work::Poll { .. });
        let op = self.add_op(core, token, work);
        let entry = self.cores[core].socket(socket).expect("the caller has seen it");
        entry.operations += 1;
        let taken = match direction {
            Direction::In => entry.receiving.replace(op),
            Direction::Out => entry.sending.replace(op),
            Direction::Other => None,
        };
        rule!(self, taken.is_none(), "two operations of a kind at once on {socket:?}");
        let waits = direction == Direction::In;
        let early = self.plan.poll_early;
        let early = is_poll && self.chance(early);
        if !waits || early || self.has_input(core, socket) {
            let at = self.after_local();
            self.schedule_op(at, core, op);
        }
    }

    fn has_input(&mut self, core: usize, socket: Socket) -> bool {
        match self.cores[core].socket(socket).expect("the caller has seen it").kind {
            SocketKind::Stream(end) => self.end(end).is_some_and(|end| end.is_readable()),
            SocketKind::Datagram(addr) => {
                self.net.datagrams.get(&addr).is_some_and(|port| !port.queue.is_empty())
            }
        }
    }

    fn start_leaving(&mut self, core: usize, token: Token, socket: Socket, work: Work) {
        self.kind_of(core, socket, "Close or HandOver");
        let entry = self.cores[core].socket(socket).expect("it was just there");
        let operations = entry.operations;
        entry.leaving = true;
        rule!(self, operations == 0, "{operations} operations under way on {socket:?}, which goes");
        let op = self.add_op(core, token, work);
        let at = self.after_local();
        self.schedule_op(at, core, op);
    }

    fn start_connect(&mut self, core: usize, token: Token, to: SocketAddr) {
        let end = self.net.new_caller(Owner::Peer, to);
        let socket = self.cores[core].open_socket(SocketKind::Stream(end));
        let op = self.add_op(core, token, Work::Connect { socket });
        let Some(socket) = socket else {
            self.net.ends.remove(&end);
            let at = self.after_local();
            self.schedule_op(at, core, op);
            return;
        };
        let caller = self.end(end).expect("it was just made");
        caller.owner = Owner::Core { core, socket };
        caller.connect = Some(op);
        let at = self.after_network();
        self.schedule(at, Event::Syn { from: end, to });
    }

    fn start_send(&mut self, core: usize, token: Token, socket: Socket, data: Outgoing) {
        let end = self.stream_of(core, socket, "Send");
        let runs = match data {
            Outgoing::One(bytes) => vec![bytes],
            Outgoing::Many(runs) => runs,
        };
        let fits = !runs.is_empty() && runs.len() <= Outgoing::RUNS_MAX;
        rule!(self, fits, "a send of {} runs", runs.len());
        let sender = self.end(end).expect("a socket has its end");
        let cut = sender.dead || sender.fin != super::net::Fin::No;
        if !cut {
            sender.outbox.extend(runs.into_iter().filter(|run| !run.is_empty()));
        }
        self.start_on(core, token, Work::Send { socket, cut });
        let at = self.after_local();
        self.schedule(at, Event::Pump { end });
    }

    fn kind_of(&mut self, core: usize, socket: Socket, what: &str) -> SocketKind {
        let entry = self.cores[core].socket(socket).map(|entry| (entry.kind, entry.leaving));
        rule!(self, entry.is_some(), "{what} on {socket:?}, which was closed");
        let (kind, leaving) = entry.expect("the rule holds");
        rule!(self, !leaving, "{what} on {socket:?}, which is being closed or handed over");
        kind
    }

    fn stream_of(&mut self, core: usize, socket: Socket, what: &str) -> EndId {
        let kind = self.kind_of(core, socket, what);
        let SocketKind::Stream(end) = kind else {
            panic!("{what} on a datagram socket [SEXTANT_SEED={}]", self.seed)
        };
        end
    }

    fn datagram_of(&mut self, core: usize, socket: Socket, what: &str) -> SocketAddr {
        let kind = self.kind_of(core, socket, what);
        let SocketKind::Datagram(addr) = kind else {
            panic!("{what} on a connection [SEXTANT_SEED={}]", self.seed)
        };
        addr
    }

    /// Lets an operation go on, for whatever reason it was scheduled.
    pub(super) fn go_on(&mut self, core: usize, op: u64) {
        let Some(pending) = self.cores[core].ops.get(&op) else { return };
        match pending.work {
            Work::Accept { .. } => {}
            Work::Connect { socket } => self.end_connect(core, op, socket),
            Work::Recv { socket, group } => self.receive(core, op, socket, group),
            Work::Poll { .. } => self.complete(core, op, Outcome::Done, false),
            Work::Send { socket, cut } => self.end_send(core, op, socket, cut),
            Work::RecvFrom { socket, group } => self.receive_from(core, op, socket, group),
            Work::SendTo { len, .. } => {
                let result = if len > DATAGRAM_BYTES_MAX { errno(libc::EMSGSIZE) } else { Ok(()) };
                self.complete(core, op, Outcome::Sent(result), false);
            }
            Work::PeerAddr { socket } => {
                let end = self.end_of(core, socket);
                let end = self.end(end).expect("a socket has its end");
                let result = if end.dead { errno(libc::ENOTCONN) } else { Ok(end.remote) };
                self.complete(core, op, Outcome::PeerAddr(result), false);
            }
            Work::Cancel { target } => self.cancel(core, op, target),
            Work::Shutdown { socket, how } => {
                let end = self.end_of(core, socket);
                self.shut_down(end, how);
                self.complete(core, op, Outcome::Done, false);
            }
            Work::HandOver { socket, ref to } => {
                let to = to.ring().and_then(|ring| usize::try_from(ring).ok());
                self.hand_over(core, op, socket, to);
            }
            Work::Close { socket } => {
                self.close_socket(core, socket);
                self.complete(core, op, Outcome::Done, false);
            }
            Work::File(_) => self.go_on_with_file(core, op),
        }
    }

    fn end_of(&mut self, core: usize, socket: Socket) -> EndId {
        match self.cores[core].socket(socket).expect("an operation keeps its socket").kind {
            SocketKind::Stream(end) => end,
            SocketKind::Datagram(_) => panic!("checked when the operation began"),
        }
    }

    fn end_connect(&mut self, core: usize, op: u64, socket: Option<Socket>) {
        let result = match socket {
            None => errno(libc::ENFILE),
            Some(socket) => {
                let end = self.end_of(core, socket);
                let caller = self.end(end).expect("a socket has its end");
                caller.connect = None;
                if caller.refused {
                    self.net.ends.remove(&end);
                    self.cores[core].free_socket(socket);
                    errno(libc::ECONNREFUSED)
                } else {
                    Ok(socket)
                }
            }
        };
        self.complete(core, op, Outcome::Socket(result), false);
    }

    fn end_send(&mut self, core: usize, op: u64, socket: Socket, cut: bool) {
        let end = self.end_of(core, socket);
        let sender = self.end(end).expect("a socket has its end");
        let result = if cut {
            errno(sender.take_error().unwrap_or(libc::EPIPE))
        } else if sender.outbox.is_empty() {
            Ok(())
        } else {
            return;
        };
        self.complete(core, op, Outcome::Sent(result), false);
    }

    /// How many bytes one receive takes of those that are there.
    fn cut_len(&mut self, len: usize) -> usize {
        let cut = self.plan.cut;
        if len > 1 && self.chance(cut) {
            if self.rng.bool() { 1 } else { self.rng.usize(1..len) }
        } else {
            len
        }
    }

    /// Takes a buffer for a receive, or `None` if the pool is empty, or is said to be.
    fn lend(&mut self, core: usize, group: Group) -> Option<(u16, usize)> {
        let starve = self.plan.starve;
        let starve = self.chance(starve);
        let pool = self.cores[core].pool(group);
        if pool.free.is_empty() || (starve && pool.on_loan() > 0) {
            return None;
        }
        let chosen = self.rng.usize(..pool.free.len());
        let id = pool.free.swap_remove(chosen);
        pool.lent[usize::from(id)] = true;
        Some((id, pool.bytes))
    }

    fn receive(&mut self, core: usize, op: u64, socket: Socket, group: Group) {
        let end = self.end_of(core, socket);
        let receiver = self.end(end).expect("a socket has its end");
        let there = receiver.queue_bytes;
        if there == 0 {
            let result = if let Some(error) = receiver.take_error() {
                errno(error)
            } else if receiver.is_readable() {
                Ok(None)
            } else {
                return;
            };
            self.complete(core, op, Outcome::Recv(result), false);
            return;
        }
        let Some((id, room)) = self.lend(core, group) else {
            self.complete(core, op, Outcome::Recv(errno(libc::ENOBUFS)), false);
            return;
        };
        let len = self.cut_len(there.min(room));
        let bytes = self.consume(end, len);
        assert!(bytes.len() == len, "what was counted is there");
        let more = self.lasts(core);
        let buf = RxBuf { group, ring: 0, id, offset: 0, len: len as u32, shared: false };
        let outcome = Outcome::Recv(Ok(Some(buf)));
        self.complete_with(core, op, outcome, more, Some((group, id, bytes)));
        if more && self.has_input(core, socket) {
            let at = self.after_local();
            self.schedule_op(at, core, op);
        }
    }

    fn receive_from(&mut self, core: usize, op: u64, socket: Socket, group: Group) {
        if !self.has_input(core, socket) {
            return;
        }
        let Some((id, room)) = self.lend(core, group) else {
            self.complete(core, op, Outcome::RecvFrom(errno(libc::ENOBUFS)), false);
            return;
        };
        let (from, data) = self.next_datagram(core, socket);
        let bytes = data[..data.len().min(room)].to_vec();
        let more = self.lasts(core);
        let buf = RxBuf { group, ring: 0, id, offset: 0, len: bytes.len() as u32, shared: false };
        let outcome = Outcome::RecvFrom(Ok((from, buf)));
        self.complete_with(core, op, outcome, more, Some((group, id, bytes)));
        if more && self.has_input(core, socket) {
            let at = self.after_local();
            self.schedule_op(at, core, op);
        }
    }

    fn next_datagram(&mut self, core: usize, socket: Socket) -> (SocketAddr, Bytes) {
        let SocketKind::Datagram(addr) =
            self.cores[core].socket(socket).expect("an operation keeps its socket").kind
        else {
            panic!("checked when the operation began")
        };
        let port = self.net.datagrams.get_mut(&addr).expect("a socket has its port");
        port.queue.pop_front().expect("there is input")
    }

    fn shut_down(&mut self, end: EndId, how: Shutdown) {
        let connection = self.end(end).expect("a socket has its end");
        if connection.dead {
            return;
        }
        if how != Shutdown::Write {
            connection.read_shut = true;
            self.became_readable(end);
        }
        if how != Shutdown::Read {
            self.cut_sending(end);
            self.finish_sending(end);
        }
    }

    /// Ends the operation of that name, unless it is past that.
    fn cancel(&mut self, core: usize, op: u64, target: Token) {
        let found = self.cores[core]
            .ops
            .iter()
            .find(|(number, pending)| pending.token == target && **number != op)
            .map(|(&number, _)| number);
        let late = self.plan.cancel_late;
        let late = self.chance(late);
        let cancel_first = late || self.rng.bool();
        if cancel_first {
            self.complete(core, op, Outcome::Done, false);
        }
        match found {
            Some(op) if late => {
                let at = self.after_local();
                self.schedule(at, Event::Cancelled { core, op });
            }
            Some(found) => self.end_cancelled(core, found),
            None => {}
        }
        if !cancel_first {
            self.complete(core, op, Outcome::Done, false);
        }
    }

    /// Ends an operation whose cancellation was done before, unless it has ended by itself.
    pub(super) fn end_late(&mut self, core: usize, op: u64) {
        if self.cores[core].ops.contains_key(&op) {
            self.end_cancelled(core, op);
        }
    }

    fn end_cancelled(&mut self, core: usize, op: u64) {
        let cancelled = libc::ECANCELED;
        let outcome = match &self.cores[core].ops[&op].work {
            Work::Accept { listener } => {
                let addr = addr_of(listener);
                self.disarm_accept(addr, core, op);
                Outcome::Socket(errno(cancelled))
            }
            &Work::Connect { socket: Some(socket) } => {
                let end = self.end_of(core, socket);
                self.abandon(end);
                self.cores[core].free_socket(socket);
                Outcome::Socket(errno(cancelled))
            }
            Work::Recv { .. } => Outcome::Recv(errno(cancelled)),
            Work::Poll { .. } => Outcome::Done,
            Work::RecvFrom { .. } => Outcome::RecvFrom(errno(cancelled)),
            &Work::Send { socket, cut: false } => {
                let end = self.end_of(core, socket);
                let sender = self.end(end).expect("a socket has its end");
                if sender.outbox.is_empty() {
                    return;
                }
                sender.outbox.clear();
                Outcome::Sent(errno(cancelled))
            }
            // Too short, or too far on, to be stopped.
            Work::Connect { socket: None }
            | Work::Send { .. }
            | Work::SendTo { .. }
            | Work::PeerAddr { .. }
            | Work::Cancel { .. }
            | Work::Shutdown { .. }
            | Work::HandOver { .. }
            | Work::Close { .. }
            | Work::File(_) => return,
        };
        self.complete(core, op, outcome, false);
    }

    fn hand_over(&mut self, core: usize, op: u64, socket: Socket, to: Option<usize>) {
        let end = self.end_of(core, socket);
        let fails = self.plan.hand_over;
        let fails = self.chance(fails);
        let result = match to.and_then(|to| self.cores.get_mut(to)) {
            Some(target) if target.alive => {
                let there = if fails { None } else { target.open_socket(SocketKind::Stream(end)) };
                there.ok_or(libc::ENFILE)
            }
            _ => Err(libc::EBADF),
        };
        match result {
            Ok(there) => {
                self.cores[core].free_socket(socket);
                let to = to.expect("it was found");
                self.end(end).expect("a socket has its end").owner =
                    Owner::Core { core: to, socket: there };
            }
            Err(_) => {
                self.cores[core].socket(socket).expect("it stays").leaving = false;
            }
        }
        let result = result.map_err(io::Error::from_raw_os_error);
        self.complete(core, op, Outcome::Socket(result), false);
    }

    fn close_socket(&mut self, core: usize, socket: Socket) {
        let entry = self.cores[core].socket(socket).expect("it is being closed");
        match entry.kind {
            SocketKind::Stream(end) => self.close_end(end),
            SocketKind::Datagram(addr) => {
                self.net.datagrams.remove(&addr);
            }
        }
        self.cores[core].free_socket(socket);
    }

    /// Forgets that an operation of a socket was under way, once its completion was looked at.
    pub(super) fn looked_at(&mut self, core: usize, of: Of) {
        let Some(entry) = self.cores[core].socket(of.socket) else { return };
        entry.operations -= 1;
        match of.direction {
            Direction::In => entry.receiving = None,
            Direction::Out => entry.sending = None,
            Direction::Other => {}
        }
    }

    /// Ends a core as the death of its process would: its connections are reset, and what it
    /// had asked of the disk is done or not.
    pub(super) fn kill(&mut self, core: usize) {
        if !std::mem::replace(&mut self.cores[core].alive, false) {
            return;
        }
        let ops: Vec<u64> = self.cores[core].ops.keys().copied().collect();
        for op in ops {
            match &self.cores[core].ops[&op].work {
                Work::Accept { listener } => {
                    let addr = addr_of(listener);
                    self.disarm_accept(addr, core, op);
                }
                Work::File(_) if self.rng.bool() => self.carry_out_file(core, op),
                _ => {}
            }
        }
        let state: &mut CoreState = &mut self.cores[core];
        state.ops.clear();
        state.ready.clear();
        state.overflown.clear();
        state.files.clear();
        let entries: Vec<SocketKind> =
            state.sockets.iter_mut().filter_map(|slot| slot.entry.take()).map(|e| e.kind).collect();
        state.sockets.clear();
        state.free_sockets.clear();
        for kind in entries {
            match kind {
                SocketKind::Stream(end) => self.abandon(end),
                SocketKind::Datagram(addr) => {
                    self.net.datagrams.remove(&addr);
                }
            }
        }
    }
}
