//! The kernel's io_uring as a driver: one ring or several, made and used on one thread.
//!
//! Memory that the kernel reads or writes belongs to this driver until the completion arrives:
//! sends, addresses and file buffers in `owned`, receive buffers in the pools of each ring. A
//! driver that is dropped cancels everything and reaps it; should the kernel not give something
//! back in time, that memory is leaked rather than freed under it.
//!
//! Connections are *direct descriptors*: entries of a ring's own table, which do not count
//! against the process's limit. Listeners, datagram sockets and files are ordinary ones.
//!
//! `RLIMIT_NOFILE` bounds each table. Where one is too small for the sockets that the driver shall
//! hold, it has further rings, filled one after the other; an operation on a socket goes to the
//! ring that the socket is on:
//!
//! ```text
//!   listeners, files, datagrams, waker ─► ring 0 ◄── waits here
//!   connections ─┬──────────────────────►   ▲
//!                ├─► ring 1 ── bell ────────┤     entered when there is work on them
//!                └─► ring 2 ── bell ────────┘
//! ```
//!
//! The user data of an operation:
//!
//! ```text
//!   0000 token          an operation without memory of its own
//!   1000 0…0 n…n        entry n of `owned`
//!   1001 0…0 n…n        the second operation of entry n, linked behind the first
//!   1100 token          a close, which frees an entry; 1100 1…1 one that nobody waits for
//!   1110 0…0 n…n        the poll of ring n's bell
//!   1111 1…1            the waker's poll; 1111 1…10 an operation that nobody waits for
//! ```

mod accept;
mod buffers;
mod owned;
mod ring;
mod socket;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fd, Fixed, RecvMsgOut};
use io_uring::{cqueue, opcode, squeue};
use slab::Slab;
use tracing::{debug, warn};

use self::accept::Accepting;
use self::owned::{Owned, Step};
use self::ring::Ring;
use self::socket::{ENTRIES_MAX, PROCESS_FD, entry_of, ring_of, socket_of};
use crate::caps::Caps;
use crate::driver::{Completion, Driver, Kind, Listener, Op, Outcome, RxBuf, Socket, Token};
use crate::mesh::{RINGS_MAX, Remote};

const OWNED: u64 = 1 << 63;
const SECOND: u64 = 1 << 60;
const CLOSE: u64 = 0b1100 << 60;
/// In place of a token, behind [`CLOSE`].
const CLOSE_NOBODY: u64 = (1 << 60) - 1;
const BELL: u64 = 0b1110 << 60;
const WAKER: u64 = u64::MAX;
const NOBODY: u64 = u64::MAX - 1;

/// How a driver's rings are laid out.
#[derive(Clone, Debug)]
pub struct Options {
    /// Entries of the first ring's submission queue.
    pub submissions: u32,
    /// Entries of the first ring's completion queue.
    pub completions: u32,
    /// Entries of both queues of each further ring. What one queue has no room for waits in the
    /// kernel, or here, for the next turn.
    pub further_queues: (u32, u32),
    /// Connections that the driver can hold, over as many rings as that takes.
    pub sockets_max: u32,
    /// Entries that one ring's descriptor table has at most. `RLIMIT_NOFILE` bounds it too, as
    /// it stands when the driver is made.
    pub table_max: u32,
    /// Small receive buffers of the first ring: their number (a power of two) and size in bytes.
    pub small: (u16, u32),
    /// Bulk receive buffers of the first ring: their number (a power of two) and size in bytes.
    pub bulk: (u16, u32),
    /// Small receive buffers of each further ring.
    ///
    /// Rings cannot share a pool, so this is memory per connection: 384 KiB for both kinds are 20
    /// bytes for each connection of a table of 20,000. A pool has to hold what arrives between two
    /// turns; what it does not is received a turn later.
    pub further_small: (u16, u32),
    /// Bulk receive buffers of each further ring.
    pub further_bulk: (u16, u32),
    /// Buffers for datagrams: their number (a power of two) and size in bytes, 64 of which the
    /// sender's address takes.
    pub datagrams: (u16, u32),
}

impl Default for Options {
    fn default() -> Options {
        Options {
            submissions: 1024,
            completions: 8192,
            further_queues: (256, 2048),
            sockets_max: 16_384,
            table_max: ENTRIES_MAX,
            small: (256, 8 * 1024),
            bulk: (64, 64 * 1024),
            further_small: (32, 4 * 1024),
            further_bulk: (4, 64 * 1024),
            datagrams: (1024, 2048),
        }
    }
}

impl Options {
    /// The size of each ring's table: full ones, and a last one with the rest.
    fn tables(&self) -> io::Result<Vec<u32>> {
        use rustix::process::{Resource, getrlimit};
        assert!(self.sockets_max > 0 && self.table_max > 0, "a driver holds something");
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let most = self.table_max.min(ENTRIES_MAX).min(limit.max(1));
        let rings = self.sockets_max.div_ceil(most) as usize;
        if rings > RINGS_MAX {
            let why = format!(
                "{} connections in tables of {most} take {rings} rings, and a core has at most \
                 {RINGS_MAX}: raise RLIMIT_NOFILE",
                self.sockets_max
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let mut tables = vec![most; rings];
        tables[rings - 1] = self.sockets_max - most * (rings as u32 - 1);
        Ok(tables)
    }
}

/// One or several rings of the kernel's.
pub struct Uring {
    /// The first is the one that is waited on. They are dropped before the memory that they know.
    rings: Vec<Ring>,
    owned: Slab<Owned>,
    /// What a multishot receive of datagrams reads its layout from, for as long as it is armed.
    recv_header: Box<libc::msghdr>,
    /// Where the connects under way are in `owned`: they take several steps, so that their tokens
    /// mean nothing to the kernel.
    connects: HashMap<Token, usize>,
    accepts: HashMap<Token, Accepting>,
    /// Those that have less than their share of one-shot accepts; who has waited longest is first.
    wanting: VecDeque<Token>,
    /// Whether there may be accepts to arm.
    room_changed: bool,
    /// Whether it was said that nothing can be accepted, and the tables were not half empty since.
    said_full: bool,
    /// The ring that completions are taken from next.
    reading: usize,
    udp: Vec<OwnedFd>,
    datagrams: (u16, u32),
    remote: Remote,
    caps: Caps,
    ready: VecDeque<Completion>,
    in_flight: usize,
    waker_armed: bool,
    /// Of each ring, whether the first polls its bell.
    bells_armed: Vec<bool>,
}

impl Uring {
    /// Makes the rings on the calling thread, which has to be the one that uses them.
    ///
    /// # Errors
    /// The kernel's: io_uring forbidden (`EPERM`, `ENOSYS`), too old (`EINVAL`), too little
    /// memory; `EMFILE` if the process has no descriptors left for the rings. `InvalidInput` if it
    /// took more than 64 rings to hold so many connections.
    pub fn new(options: &Options, remote: Remote) -> io::Result<Uring> {
        let mut incremental = true;
        let tables = options.tables()?;
        let mut rings = Vec::new();
        for (number, &entries) in tables.iter().enumerate() {
            rings.push(Ring::new(options, entries, number > 0, &mut incremental)?);
        }
        let caps = Caps {
            driver: "io_uring",
            sockets_max: options.sockets_max,
            process_descriptors: false,
            incremental_buffers: incremental,
            deferred_work: true,
            parking: true,
            peer_addr: owned::probe_peer_addr(rings[0].kernel()),
        };
        if rings.len() > 1 {
            debug!(rings = rings.len(), "one descriptor table is too small");
        }
        remote.set_rings(rings.iter().map(Ring::fd).zip(tables));
        let bells_armed = vec![false; rings.len()];
        Ok(Uring {
            rings,
            owned: Slab::new(),
            recv_header: Box::new(owned::recv_header()),
            connects: HashMap::new(),
            accepts: HashMap::new(),
            wanting: VecDeque::new(),
            room_changed: true,
            said_full: false,
            reading: 0,
            udp: Vec::new(),
            datagrams: options.datagrams,
            remote,
            caps,
            ready: VecDeque::new(),
            in_flight: 0,
            waker_armed: false,
            bells_armed,
        })
    }

    /// The number of rings.
    pub fn rings(&self) -> usize {
        self.rings.len()
    }

    // --- Operations of several steps ---

    fn start_owned(&mut self, token: Token, op: Op) {
        let mut ring = place_of(&op);
        if matches!(op, Op::Connect { .. }) {
            let Some(with_room) = self.remote.take_room() else {
                let error = io::Error::from_raw_os_error(libc::ENFILE);
                let outcome = Outcome::Socket(Err(error));
                self.complete(token, outcome, false);
                return;
            };
            ring = with_room;
        }
        let mut owned = Owned::new(token, ring, op);
        let step = owned.start();
        let at = self.owned.insert(owned);
        if token.kind() == Kind::Connect {
            self.connects.insert(token, at);
        }
        self.carry_on(at, step);
    }

    /// Lets a connect that is under way go no further than it is, and gives its ring and the user
    /// data of what the kernel has of it.
    fn cancelled_connect(&mut self, token: Token) -> Option<(usize, u64)> {
        let at = *self.connects.get(&token)?;
        let owned = &mut self.owned[at];
        owned.cancel();
        Some((owned.ring(), OWNED | at as u64))
    }

    /// Does what an owned operation wants next: further entries, or its end.
    fn carry_on(&mut self, at: usize, step: Step) {
        let data = OWNED | at as u64;
        let ring = self.owned[at].ring();
        match step {
            Step::Wait => {}
            Step::Push(entry) => self.rings[ring].push(&[entry.user_data(data)]),
            Step::PushPair(first, second) => {
                let first = first.flags(squeue::Flags::IO_LINK).user_data(data);
                self.rings[ring].push(&[first, second.user_data(data | SECOND)]);
            }
            Step::End { outcome, close } => {
                let token = self.owned.remove(at).token();
                if token.kind() == Kind::Connect {
                    self.connects.remove(&token);
                    if close.is_none() {
                        self.settle(ring, &outcome);
                    }
                }
                if let Some(entry) = close {
                    let close = opcode::Close::new(Fixed(entry)).build();
                    self.rings[ring].push(&[close.user_data(CLOSE | CLOSE_NOBODY)]);
                }
                self.complete(token, outcome, false);
            }
        }
    }

    fn complete(&mut self, token: Token, outcome: Outcome, more: bool) {
        if !more {
            self.in_flight -= 1;
        }
        self.ready.push_back(Completion { token, outcome, more });
    }

    // --- Room in the tables ---

    /// An operation ended for which an entry was taken beforehand: its own now, or free again.
    fn settle(&mut self, ring: usize, outcome: &Outcome) {
        if !matches!(outcome, Outcome::Socket(Ok(_))) {
            self.remote.give_room(ring);
        }
        self.room_changed = true;
    }

    /// Arms accepts where there is room: of those that want some, in turn.
    fn use_room(&mut self) {
        if !std::mem::take(&mut self.room_changed) {
            return;
        }
        let share = accept::share(self.accepts.len());
        for _ in 0..self.wanting.len() {
            if self.remote.room() == 0 {
                break;
            }
            let token = self.wanting.pop_front().expect("it was counted");
            let accepting = self.accepts.get_mut(&token).expect("who wants accepts is known");
            for _ in 0..accepting.wanted(self.remote.room(), share) {
                let Some(ring) = self.remote.take_room() else { break };
                accepting.armed[ring] += 1;
                self.rings[ring].push(&[accepting.entry()]);
            }
            accepting.wants = !accepting.is_content(share);
            if accepting.wants {
                self.wanting.push_back(token);
            }
        }
        let deaf = self.wanting.iter().any(|token| self.accepts[token].is_deaf());
        if deaf && !self.said_full {
            let sockets_max = self.caps.sockets_max;
            warn!(sockets_max, "no descriptor left: callers wait until connections are closed");
            self.said_full = true;
        } else if self.remote.room() > self.caps.sockets_max / 2 {
            self.said_full = false;
        }
    }

    // --- Accepting ---

    fn start_accepting(&mut self, token: Token, listener: Arc<Listener>) {
        let accepting = Accepting::new(token, listener, self.rings.len());
        let before = self.accepts.insert(token, accepting);
        assert!(before.is_none(), "an accept's token is used again after its end");
        self.want_accepts(token);
    }

    /// Has more one-shot accepts armed when there is room.
    fn want_accepts(&mut self, token: Token) {
        let accepting = self.accepts.get_mut(&token).expect("it is under way");
        if !std::mem::replace(&mut accepting.wants, true) {
            self.wanting.push_back(token);
        }
        self.room_changed = true;
    }

    fn accepted(&mut self, ring: usize, token: Token, result: i32) {
        let accepting = self.accepts.get_mut(&token);
        let accepting = accepting.expect("an accept is known until its last one-shot has ended");
        let result = check(result).map(|entry| socket_of(ring, entry));
        accepting.armed[ring] -= 1;
        let ending = accepting.ending.is_some();
        let outcome = Outcome::Socket(result);
        self.settle(ring, &outcome);
        match outcome {
            Outcome::Socket(Err(error)) if !ending && !accept::is_passing(&error) => {
                self.end_accepting(token, error);
            }
            Outcome::Socket(Err(_)) => {}
            accepted => self.complete(token, accepted, true),
        }
        self.finish_accepting(token);
    }

    /// Begins the end of an accept: no caller is taken any more, but those under way are.
    fn end_accepting(&mut self, token: Token, why: io::Error) {
        let accepting = self.accepts.get_mut(&token).expect("it is under way");
        accepting.ending.get_or_insert(why);
        if std::mem::take(&mut accepting.wants) {
            self.wanting.retain(|&other| other != token);
        }
        for (ring, _) in accepting.armed.iter().enumerate().filter(|(_, armed)| **armed > 0) {
            let all = CancelBuilder::user_data(token.0).all();
            let cancel = opcode::AsyncCancel2::new(all).build();
            self.rings[ring].push(&[cancel.user_data(NOBODY)]);
        }
    }

    /// Goes on with an accept of which a one-shot has ended, or tells that it is over.
    fn finish_accepting(&mut self, token: Token) {
        let accepting = &self.accepts[&token];
        if accepting.ending.is_none() {
            self.want_accepts(token);
        } else if accepting.is_over() {
            let ended = self.accepts.remove(&token).expect("it was just there");
            let error = ended.ending.expect("it is over");
            self.complete(token, Outcome::Socket(Err(error)), false);
        }
    }

    // --- Cancelling ---

    fn cancel(&mut self, token: Token, target: Token, socket: Option<Socket>) {
        if self.accepts.contains_key(&target) {
            self.end_accepting(target, io::Error::from_raw_os_error(libc::ECANCELED));
            self.complete(token, Outcome::Done, false);
            self.finish_accepting(target);
            return;
        }
        let at = (socket.map_or(0, ring_of), target.0);
        let (ring, data) = self.cancelled_connect(target).unwrap_or(at);
        let cancel = opcode::AsyncCancel2::new(CancelBuilder::user_data(data)).build();
        self.rings[ring].push(&[cancel.user_data(token.0)]);
    }

    // --- Completions ---

    fn translate(&mut self, ring: usize, cqe: &cqueue::Entry) {
        let (data, result, flags) = (cqe.user_data(), cqe.result(), cqe.flags());
        match data {
            NOBODY => {}
            WAKER => {
                self.waker_armed = cqueue::more(flags);
                self.remote.acknowledge();
                // Perhaps a core gives back the room for a connection that it could not hand over.
                self.room_changed = true;
            }
            // A close has freed an entry.
            _ if data & BELL == CLOSE => {
                self.remote.give_room(ring);
                self.room_changed = true;
                if data != CLOSE | CLOSE_NOBODY {
                    self.complete(Token(data & !CLOSE), Outcome::Done, false);
                }
            }
            // What it rang for is found by looking at the ring.
            _ if data & BELL == BELL => {
                self.bells_armed[(data & !BELL) as usize] = cqueue::more(flags);
            }
            _ if data & OWNED != 0 => {
                let at = (data & !(OWNED | SECOND)) as usize;
                let step = self.owned[at].advance(result, data & SECOND != 0);
                self.carry_on(at, step);
            }
            _ => self.translate_plain(ring, Token(data), result, flags),
        }
    }

    fn translate_plain(&mut self, ring: usize, token: Token, result: i32, flags: u32) {
        let outcome = match token.kind() {
            Kind::Accept => return self.accepted(ring, token, result),
            Kind::Recv => Outcome::Recv(check(result).map(|len| self.lend(ring, len, flags))),
            Kind::RecvFrom => Outcome::RecvFrom(
                check(result)
                    .and_then(|len| {
                        self.lend(ring, len, flags).ok_or(io::ErrorKind::InvalidData.into())
                    })
                    .and_then(|buf| self.datagram(buf)),
            ),
            _ => Outcome::Done,
        };
        self.complete(token, outcome, cqueue::more(flags));
    }

    fn lend(&mut self, ring: usize, len: u32, flags: u32) -> Option<RxBuf> {
        self.rings[ring].lend(ring, len, flags)
    }

    /// Splits a datagram's buffer into the sender's address and the bytes behind it.
    fn datagram(&mut self, mut buf: RxBuf) -> io::Result<(SocketAddr, RxBuf)> {
        let whole = self.received(&buf);
        let parsed = RecvMsgOut::parse(whole, &self.recv_header)
            .map_err(|()| io::Error::from(io::ErrorKind::InvalidData))
            .and_then(|out| {
                let payload = out.payload_data();
                Ok((owned::parse_addr(out.name_data())?, payload.len() as u32))
            });
        match parsed {
            Ok((from, len)) => {
                buf.offset += buf.len - len;
                buf.len = len;
                Ok((from, buf))
            }
            Err(error) => {
                self.release(buf);
                Err(error)
            }
        }
    }

    /// Ends everything under way, as far as the kernel does so in time.
    fn reap(&mut self) -> bool {
        const ROUNDS: usize = 100;
        let accepts: Vec<Token> = self.accepts.keys().copied().collect();
        for token in accepts {
            self.end_accepting(token, io::Error::from_raw_os_error(libc::ECANCELED));
            self.finish_accepting(token);
        }
        for ring in &mut self.rings {
            let cancel = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
            ring.push(&[cancel.user_data(NOBODY)]);
        }
        for _ in 0..ROUNDS {
            if self.in_flight == 0 && !self.waker_armed && !self.bells_armed.contains(&true) {
                return true;
            }
            if self.enter_rings(Some(Duration::from_millis(20))).is_err() {
                return false;
            }
            while let Some((ring, cqe)) = self.next_cqe() {
                self.translate(ring, &cqe);
            }
            for completion in std::mem::take(&mut self.ready) {
                if let Outcome::Recv(Ok(Some(buf))) | Outcome::RecvFrom(Ok((_, buf))) =
                    completion.outcome
                {
                    self.release(buf);
                }
            }
        }
        false
    }

    /// The next completion of any ring. Each is read to its end before the next one.
    fn next_cqe(&mut self) -> Option<(usize, cqueue::Entry)> {
        let rings = self.rings.len();
        for _ in 0..rings {
            if let Some(cqe) = self.rings[self.reading].next_cqe() {
                return Some((self.reading, cqe));
            }
            self.reading = (self.reading + 1) % rings;
        }
        None
    }

    // --- Waiting ---

    /// Has the first ring poll what can wake it.
    fn arm_polls(&mut self) {
        let poll = |fd| opcode::PollAdd::new(Fd(fd), libc::POLLIN as u32).multi(true).build();
        if let Some(fd) = self.remote.event().map(|event| event.as_raw_fd())
            && !self.waker_armed
        {
            self.rings[0].push(&[poll(fd).user_data(WAKER)]);
            self.waker_armed = true;
        }
        for ring in 1..self.rings.len() {
            if let Some(fd) = self.rings[ring].bell_fd()
                && !self.bells_armed[ring]
            {
                self.rings[0].push(&[poll(fd).user_data(BELL | ring as u64)]);
                self.bells_armed[ring] = true;
            }
        }
    }

    fn enter_rings(&mut self, wait: Option<Duration>) -> io::Result<()> {
        let [first, further @ ..] = &mut self.rings[..] else { unreachable!("there is a ring") };
        if wait == Some(Duration::ZERO) {
            first.run()?;
            return further.iter_mut().try_for_each(Ring::run);
        }
        for ring in further.iter_mut() {
            ring.run()?;
            ring.set_bell();
        }
        // Work that comes from here on rings; what came before is seen.
        fence(Ordering::SeqCst);
        let idle = !further.iter_mut().any(|ring| ring.has_completions() || ring.has_work());
        let entered = if idle { first.wait(wait) } else { first.run() };
        for ring in further {
            ring.rest_bell();
            ring.run()?;
        }
        entered
    }
}

/// The ring that an operation belongs on, as far as it says.
fn place_of(op: &Op) -> usize {
    match op {
        Op::Recv { socket, .. }
        | Op::Poll { socket }
        | Op::Send { socket, .. }
        | Op::RecvFrom { socket, .. }
        | Op::SendTo { socket, .. }
        | Op::PeerAddr { socket }
        | Op::Shutdown { socket, .. }
        | Op::HandOver { socket, .. }
        | Op::Close { socket }
        | Op::Cancel { socket: Some(socket), .. } => ring_of(*socket),
        Op::Accept { .. } | Op::Connect { .. } | Op::Cancel { .. } | Op::File(_) => 0,
    }
}

impl Driver for Uring {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn submit(&mut self, token: Token, op: Op) -> Result<(), Op> {
        let ring = place_of(&op);
        // The most entries that one operation queues at once; accepts are queued by `enter`.
        if self.rings[ring].room() < 2 {
            return Err(op);
        }
        self.in_flight += 1;
        let entry = match op {
            Op::Accept { listener } => {
                self.start_accepting(token, listener);
                return Ok(());
            }
            Op::Recv { socket, group } => {
                opcode::RecvMulti::new(Fixed(entry_of(socket)), group as u16).build()
            }
            Op::Poll { socket } => {
                let readable = (libc::POLLIN | libc::POLLRDHUP) as u32;
                opcode::PollAdd::new(Fixed(entry_of(socket)), readable).build()
            }
            Op::RecvFrom { socket, group } => {
                let header: *const libc::msghdr = &raw const *self.recv_header;
                let fd = Fd((socket.0 & !PROCESS_FD) as i32);
                opcode::RecvMsgMulti::new(fd, header, group as u16).build()
            }
            Op::Cancel { target, socket } => {
                self.cancel(token, target, socket);
                return Ok(());
            }
            Op::Shutdown { socket, how } => {
                let how = match how {
                    std::net::Shutdown::Read => libc::SHUT_RD,
                    std::net::Shutdown::Write => libc::SHUT_WR,
                    std::net::Shutdown::Both => libc::SHUT_RDWR,
                };
                opcode::Shutdown::new(Fixed(entry_of(socket)), how).build()
            }
            Op::Close { socket } => {
                let close = opcode::Close::new(Fixed(entry_of(socket))).build();
                self.rings[ring].push(&[close.user_data(CLOSE | token.0)]);
                return Ok(());
            }
            Op::Send { .. }
            | Op::SendTo { .. }
            | Op::Connect { .. }
            | Op::PeerAddr { .. }
            | Op::HandOver { .. }
            | Op::File(_) => {
                self.start_owned(token, op);
                return Ok(());
            }
        };
        self.rings[ring].push(&[entry.user_data(token.0)]);
        Ok(())
    }

    fn enter(&mut self, wait: Option<Duration>) -> io::Result<()> {
        self.arm_polls();
        self.use_room();
        let mut at_once = !self.ready.is_empty();
        for ring in self.rings.iter_mut().filter(|ring| ring.has_spilled()) {
            ring.flush();
            at_once |= ring.has_spilled();
        }
        // Each turn begins with another ring.
        self.reading = (self.reading + 1) % self.rings.len();
        self.enter_rings(if at_once { Some(Duration::ZERO) } else { wait })
    }

    fn completed(&mut self) -> Option<Completion> {
        while self.ready.is_empty() {
            let (ring, cqe) = self.next_cqe()?;
            self.translate(ring, &cqe);
        }
        self.ready.pop_front()
    }

    fn received(&self, buf: &RxBuf) -> &[u8] {
        self.rings[usize::from(buf.ring)].received(buf)
    }

    fn release(&mut self, buf: RxBuf) {
        self.rings[usize::from(buf.ring)].release(&buf);
    }

    fn remote(&self) -> Remote {
        self.remote.clone()
    }

    fn bind_udp(&mut self, addr: SocketAddr) -> io::Result<(Socket, SocketAddr)> {
        self.rings[0].add_datagrams(self.datagrams)?;
        let socket = std::net::UdpSocket::bind(addr)?;
        let addr = socket.local_addr()?;
        let fd = OwnedFd::from(socket);
        let number = fd.as_raw_fd() as u32 | PROCESS_FD;
        self.udp.push(fd);
        Ok((Socket(number), addr))
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        // From here on nothing is handed to these rings, nor to whatever gets their descriptors
        // next.
        self.remote.set_rings([].into_iter());
        if self.reap() {
            return;
        }
        warn!(in_flight = self.in_flight, "the kernel holds on to operations: memory leaked");
        self.rings.iter_mut().for_each(Ring::leak_pools);
        std::mem::forget(std::mem::take(&mut self.owned));
        let header = Box::new(owned::recv_header());
        std::mem::forget(std::mem::replace(&mut self.recv_header, header));
    }
}

fn check(result: i32) -> io::Result<u32> {
    u32::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{App, CloseReason, ConnId, Core, Cx, Limits};
    use crate::driver::{FileDone, FileOp, FileOutput, Files, OpenMode};
    use crate::mesh::mesh;
    use crate::time::Clock;
    use bytes::Bytes;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    struct Echo {
        peer: Option<SocketAddr>,
        closed: usize,
        synced: bool,
    }

    impl App for Echo {
        type Message = ();

        fn on_start(&mut self, cx: &mut Cx<()>) {
            let path = std::env::temp_dir().join(format!("sextant-ring-{}", std::process::id()));
            let _ = std::fs::remove_file(&path);
            cx.submit(1, FileOp::Open { path, mode: OpenMode::CreateNew });
        }

        fn on_accept(&mut self, cx: &mut Cx<()>, conn: ConnId, _listener: usize) {
            cx.ask_peer(conn);
        }

        fn on_peer(&mut self, _cx: &mut Cx<()>, _conn: ConnId, addr: io::Result<SocketAddr>) {
            self.peer = Some(addr.unwrap());
        }

        fn on_data(&mut self, cx: &mut Cx<()>, conn: ConnId, data: &[u8]) {
            cx.send(conn, Bytes::copy_from_slice(data)).unwrap();
        }

        fn on_close(&mut self, cx: &mut Cx<()>, _conn: ConnId, reason: CloseReason) {
            assert!(matches!(reason, CloseReason::PeerClosed), "{reason:?}");
            self.closed += 1;
            cx.stop(cx.now());
        }

        fn on_file(&mut self, cx: &mut Cx<()>, done: FileDone) {
            match (done.ticket, done.result.unwrap()) {
                (1, FileOutput::Opened(file)) => {
                    let mut buf = crate::buf::IoBuf::with_capacity(4096);
                    buf.push(b"hello");
                    cx.submit(2, FileOp::WriteSync { file, offset: 0, buf });
                }
                (2, FileOutput::Done) => {
                    assert_eq!(&*done.buf.unwrap(), b"hello");
                    self.synced = true;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn tables_hold_what_is_asked_for_and_no_more_than_a_core_can_have() {
        let options =
            |sockets_max, table_max| Options { sockets_max, table_max, ..Options::default() };
        assert_eq!(options(64, 64).tables().unwrap(), [64]);
        assert_eq!(options(65, 64).tables().unwrap(), [64, 1]);
        assert_eq!(options(64 * 8, 8).tables().unwrap(), [8; RINGS_MAX]);
        let error = options(64 * 8 + 1, 8).tables().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_ring_echoes_tells_peers_and_writes_files() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let remote = Remote::host().unwrap();
            let options = Options { sockets_max: 64, ..Options::default() };
            let driver = Uring::new(&options, remote.clone()).unwrap();
            assert!(driver.caps().peer_addr, "Linux 6.7 and later have it");
            let port = mesh(&[remote], 0, 16).pop().unwrap();
            let listener = Arc::new(Listener::new(listener).unwrap());
            let app = Echo { peer: None, closed: 0, synced: false };
            let core =
                Core::new(driver, app, port, vec![listener], Limits::default(), Clock::read());
            core.run().unwrap()
        });
        let mut client = TcpStream::connect(addr).unwrap();
        let sent: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
        let mut writer = client.try_clone().unwrap();
        let copy = sent.clone();
        let writing = std::thread::spawn(move || writer.write_all(&copy).unwrap());
        let mut got = vec![0; sent.len()];
        client.read_exact(&mut got).unwrap();
        writing.join().unwrap();
        assert!(got == sent);
        let local = client.local_addr().unwrap();
        drop(client);
        let app = server.join().unwrap();
        assert_eq!((app.peer, app.closed, app.synced), (Some(local), 1, true));
    }
}
