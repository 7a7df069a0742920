//! A driver for hosts that forbid io_uring (Docker's default seccomp profile does): non-blocking
//! sockets, one epoll instance per core, and a few threads for files.
//!
//! A socket is registered once, for both directions, edge-triggered: the kernel tells when it
//! *becomes* readable or writable, and the driver remembers it (`socket`) until a call finds
//! otherwise. So nothing is ever registered again, and a send is tried when it is submitted.
//!
//! ```text
//!   submit ─► send, close, …: done at once ─────────────────────────┐
//!      │                                                            ▼
//!      └────► receive, accept, what did not fit: waits       ready ─► completed()
//!                        │                                          ▲
//!   enter ─► epoll_wait ─┴─► can go on ─► work ──── one call each ──┘
//! ```
//!
//! The calls that receive and accept are made by [`Driver::completed`] itself, one for each
//! completion that it gives: a core that has released the last buffer before it asks for more
//! bytes needs one buffer, which stays in the processor's cache. A connection receives once
//! between two enters, so that none holds up the others.
//!
//! Sockets are descriptors of the process and count against its limit. One that moves to another
//! core leaves this epoll instance, goes through the other's [`Remote`], and is registered there
//! when it is first used.

mod files;
mod pool;
mod socket;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashMap;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, accept_with, getpeername};
use slab::Slab;

use self::files::FilePool;
use self::pool::Pool;
use self::socket::{Datagram, Out, Sending, Sock, Stop};
use crate::caps::Caps;
use crate::driver::{
    Completion, Driver, Group, Listener, ListenerKind, Op, Outcome, Outgoing, RxBuf, Socket, Token,
};
use crate::mesh::Remote;

/// Both directions, and urgent data, at which a receive stops short.
const INTEREST: Interest = Interest::READABLE.add(Interest::WRITABLE).add(Interest::PRIORITY);
/// Names the waker's events.
const WAKER: usize = usize::MAX;
/// Names of events with this bit are accepts' numbers, the others descriptors.
const LISTENER: usize = 1 << 32;
/// Events that one enter takes.
const EVENTS_MAX: usize = 1024;
/// Connections accepted from one listener between two enters.
const ACCEPTS_MAX: u16 = 256;
/// Datagrams received on one socket between two enters.
const DATAGRAMS_MAX: u8 = 64;
/// Datagrams that wait for one socket to take them; what comes on top is lost.
const DATAGRAMS_WAITING_MAX: usize = 1024;

/// How a driver is laid out.
#[derive(Clone, Debug)]
pub struct Options {
    /// Sockets at once; each is a descriptor of the process.
    pub sockets_max: u32,
    /// Small receive buffers: their number and size in bytes.
    pub small: (u16, u32),
    /// Bulk receive buffers: their number and size in bytes.
    pub bulk: (u16, u32),
    /// Buffers for datagrams: their number and size in bytes.
    pub datagrams: (u16, u32),
    /// Threads that work on files. They start with the first file operation.
    pub file_threads: usize,
    /// File operations that may wait for a thread.
    pub files_waiting_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            sockets_max: 16_384,
            small: (256, 8 * 1024),
            bulk: (64, 64 * 1024),
            datagrams: (1024, 2048),
            file_threads: 2,
            files_waiting_max: 4096,
        }
    }
}

/// Sockets by readiness, files by threads.
pub struct Epoll {
    poll: Poll,
    events: Events,
    /// By descriptor.
    sockets: Vec<Option<Sock>>,
    open: u32,
    listeners: Slab<Accepting>,
    /// Accepts under way, by what they are cancelled with.
    accepts: HashMap<Token, usize>,
    /// By the number of their [`Group`]; that for datagrams comes with the first such socket.
    pools: Vec<Pool>,
    /// Connects under way, which are cancelled by their token alone.
    connects: HashMap<Token, Socket>,
    ready: VecDeque<Completion>,
    /// What can go on, named like its events; and what can go on after the next enter.
    work: VecDeque<usize>,
    later: Vec<usize>,
    /// Counts enters: everyone has a share of each round.
    round: u32,
    files: FilePool,
    /// A file operation was given back since the last enter.
    refused: bool,
    /// The last enter did not ask the kernel.
    skipped: bool,
    in_flight: usize,
    remote: Remote,
    caps: Caps,
    options: Options,
}

/// A listener on which this core accepts. It is registered for that long.
struct Accepting {
    listener: Arc<Listener>,
    token: Token,
    readable: bool,
    queued: bool,
    /// The round of the driver in which it last accepted, and how often it did.
    served: (u32, u16),
}

impl Epoll {
    /// Makes an epoll instance.
    ///
    /// # Errors
    /// The kernel's: no descriptor left (`EMFILE`, `ENFILE`), too little memory.
    pub fn new(options: &Options, remote: Remote) -> io::Result<Epoll> {
        let poll = Poll::new()?;
        if let Some(event) = remote.event() {
            let source = &mut SourceFd(&event.as_raw_fd());
            poll.registry().register(source, mio::Token(WAKER), Interest::READABLE)?;
        }
        remote.open_to_descriptors();
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let limit = limit.map_or(u32::MAX, |limit| u32::try_from(limit).unwrap_or(u32::MAX));
        let caps = Caps {
            driver: "epoll",
            sockets_max: options.sockets_max.min(limit),
            process_descriptors: true,
            incremental_buffers: false,
            deferred_work: false,
            parking: false,
            peer_addr: true,
        };
        Ok(Epoll {
            poll,
            events: Events::with_capacity(EVENTS_MAX),
            sockets: Vec::new(),
            open: 0,
            listeners: Slab::new(),
            accepts: HashMap::new(),
            pools: vec![
                Pool::new(Group::Small, options.small),
                Pool::new(Group::Bulk, options.bulk),
            ],
            connects: HashMap::new(),
            ready: VecDeque::new(),
            work: VecDeque::new(),
            later: Vec::new(),
            round: 0,
            files: FilePool::new(options.file_threads, options.files_waiting_max, remote.clone()),
            refused: false,
            skipped: false,
            in_flight: 0,
            remote,
            caps,
            options: options.clone(),
        })
    }

    fn end(&mut self, token: Token, outcome: Outcome) {
        self.ready.push_back(Completion { token, outcome, more: false });
    }

    fn go_on_with(&mut self, token: Token, outcome: Outcome) {
        self.ready.push_back(Completion { token, outcome, more: true });
    }

    fn register(&self, fd: &OwnedFd, name: usize) -> Result<(), Errno> {
        let registered = self.poll.registry().register(
            &mut SourceFd(&fd.as_raw_fd()),
            mio::Token(name),
            INTEREST,
        );
        registered.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::NOMEM))
    }

    /// Takes a socket in, under its descriptor's number.
    fn insert(&mut self, sock: Sock) -> Socket {
        let at = index_of(&sock.fd);
        if self.sockets.len() <= at {
            self.sockets.resize_with(at + 1, || None);
        }
        assert!(self.sockets[at].is_none(), "a descriptor is open once");
        self.sockets[at] = Some(sock);
        self.open += 1;
        Socket(at as u32)
    }

    /// The socket of that name; one that another core has handed over is taken in.
    fn sock(&mut self, socket: Socket) -> &mut Sock {
        let at = socket.0 as usize;
        if self.sockets.get(at).is_none_or(Option::is_none) {
            let fd = self.remote.take_handed(socket.0 as RawFd).expect("a socket of this driver");
            let mut sock = Sock::new(fd, Out::Nothing);
            sock.broken = self.register(&sock.fd, at).err();
            self.insert(sock);
        }
        self.sockets[at].as_mut().expect("it is there by now")
    }

    /// Takes a socket out, to close it or to hand it over.
    fn take(&mut self, socket: Socket) -> OwnedFd {
        self.sock(socket);
        let sock = self.sockets[socket.0 as usize].take().expect("it was just there");
        assert!(sock.is_idle(), "a socket goes after its last operation");
        self.open -= 1;
        sock.fd
    }

    /// Lets a socket go on, when the core next asks, if it can.
    fn queue(&mut self, socket: Socket) {
        let sock = self.sock(socket);
        if sock.can_go_on() && !std::mem::replace(&mut sock.queued, true) {
            self.work.push_back(socket.0 as usize);
        }
    }

    fn start_accept(&mut self, token: Token, listener: Arc<Listener>) {
        match self.watch(token, listener) {
            Ok(number) => self.queue_accept(number),
            Err(error) => self.end(token, Outcome::Socket(Err(error))),
        }
    }

    fn watch(&mut self, token: Token, listener: Arc<Listener>) -> io::Result<usize> {
        let socket = socket_of(&listener);
        rustix::io::ioctl_fionbio(socket, true)?;
        let number = self.listeners.vacant_key();
        let source = &mut SourceFd(&socket.as_raw_fd());
        self.poll.registry().register(source, mio::Token(LISTENER | number), Interest::READABLE)?;
        let held = Accepting { listener, token, readable: true, queued: false, served: (0, 0) };
        self.listeners.insert(held);
        self.accepts.insert(token, number);
        Ok(number)
    }

    fn queue_accept(&mut self, number: usize) {
        let accepting = &mut self.listeners[number];
        if accepting.readable && !std::mem::replace(&mut accepting.queued, true) {
            self.work.push_back(LISTENER | number);
        }
    }

    /// Accepts one connection. What is left waits its turn behind the others' work.
    fn accept(&mut self, number: usize) {
        // The accept that was queued may have ended; one that has its number tries in vain at worst.
        let Some(accepting) = self.listeners.get_mut(number) else { return };
        accepting.queued = false;
        if !accepting.readable {
            return;
        }
        let served = if accepting.served.0 == self.round { accepting.served.1 } else { 0 };
        if served >= ACCEPTS_MAX {
            accepting.queued = true;
            self.later.push(LISTENER | number);
            return;
        }
        accepting.served = (self.round, served + 1);
        let token = accepting.token;
        let full = self.open >= self.options.sockets_max;
        let accepted = if full { Err(Errno::NFILE) } else { accept_one(&accepting.listener) };
        match accepted {
            Ok(None) => accepting.readable = false,
            Ok(Some(fd)) => {
                let taken = self.register(&fd, index_of(&fd));
                match taken {
                    Ok(()) => {
                        let socket = self.insert(Sock::new(fd, Out::Nothing));
                        self.go_on_with(token, Outcome::Socket(Ok(socket)));
                        self.queue_accept(number);
                    }
                    Err(error) => self.end_accept(number, error),
                }
            }
            Err(error) => self.end_accept(number, error),
        }
    }

    /// Ends an accept. The next one on that listener finds who waits there: the kernel tells of
    /// them when it is registered anew.
    fn end_accept(&mut self, number: usize, error: Errno) {
        let Accepting { listener, token, .. } = self.listeners.remove(number);
        self.accepts.remove(&token);
        // It is of no use here, whether it was registered or not.
        let _ = self.poll.registry().deregister(&mut SourceFd(&socket_of(&listener).as_raw_fd()));
        self.end(token, Outcome::Socket(Err(error.into())));
    }

    fn start_connect(&mut self, token: Token, to: SocketAddr) {
        let full = self.open >= self.options.sockets_max;
        let begun = if full { Err(Errno::NFILE) } else { begin_connect(to) };
        let begun = begun.and_then(|(fd, connected)| {
            self.register(&fd, index_of(&fd))?;
            Ok((fd, connected))
        });
        match begun {
            Err(error) => self.end(token, Outcome::Socket(Err(error.into()))),
            Ok((fd, true)) => {
                let socket = self.insert(Sock::new(fd, Out::Nothing));
                self.end(token, Outcome::Socket(Ok(socket)));
            }
            Ok((fd, false)) => {
                let mut sock = Sock::new(fd, Out::Connect(token));
                sock.writable = false;
                let socket = self.insert(sock);
                self.connects.insert(token, socket);
            }
        }
    }

    fn end_connect(&mut self, socket: Socket, token: Token, result: io::Result<()>) {
        self.connects.remove(&token);
        self.sock(socket).out = Out::Nothing;
        if result.is_err() {
            drop(self.take(socket));
        }
        self.end(token, Outcome::Socket(result.map(|()| socket)));
    }

    fn start_receive(&mut self, token: Token, socket: Socket, group: Group) {
        let sock = self.sock(socket);
        assert!(sock.receiving.is_none(), "one receive at a time on a socket");
        if let Some(error) = sock.broken {
            return self.end(token, Outcome::Recv(Err(error.into())));
        }
        sock.receiving = Some((token, group));
        self.queue(socket);
    }

    fn end_receive(&mut self, socket: Socket, token: Token, error: Option<io::Error>) {
        let sock = self.sock(socket);
        let datagram = sock.is_datagram();
        sock.receiving = None;
        let outcome = match error {
            Some(error) if datagram => Outcome::RecvFrom(Err(error)),
            Some(error) => Outcome::Recv(Err(error)),
            None => Outcome::Recv(Ok(None)),
        };
        self.end(token, outcome);
    }

    /// One receive, as long as the socket has not had its share.
    fn receive(&mut self, socket: Socket) {
        let sock = self.sockets[socket.0 as usize].as_mut().expect("it can go on");
        let (token, group) = sock.receiving.expect("it receives");
        let datagram = sock.is_datagram();
        sock.served = (self.round, sock.served_in(self.round) + 1);
        let mut from = None;
        let received = self.pools[group as usize].receive(|room| {
            if !datagram {
                return sock.receive(room);
            }
            let (len, sender) = sock.receive_from(room)?;
            from = Some(sender);
            Ok(len)
        });
        match (received, from) {
            (Some(Ok(buf)), Some(from)) => {
                self.go_on_with(token, Outcome::RecvFrom(Ok((from, buf))));
            }
            (Some(Ok(buf)), None) => self.go_on_with(token, Outcome::Recv(Ok(Some(buf)))),
            (Some(Err(Stop::Empty)), _) => {}
            (Some(Err(Stop::Ended)), _) => self.end_receive(socket, token, None),
            (Some(Err(Stop::Failed(error))), _) => self.end_receive(socket, token, Some(error)),
            (None, _) => {
                let starved = io::Error::from_raw_os_error(libc::ENOBUFS);
                self.end_receive(socket, token, Some(starved));
            }
        }
    }

    fn start_send(&mut self, token: Token, socket: Socket, mut data: Outgoing) {
        let sock = self.sock(socket);
        assert!(matches!(sock.out, Out::Nothing), "one send at a time on a connection");
        if let Some(error) = sock.broken {
            return self.end(token, Outcome::Sent(Err(error.into())));
        }
        let sent = if sock.writable { sock.transmit(&mut data) } else { Ok(false) };
        match sent {
            Ok(false) => {
                sock.out = Out::Send(Box::new(Sending { token, data }));
            }
            Ok(true) => self.end(token, Outcome::Sent(Ok(()))),
            Err(error) => self.end(token, Outcome::Sent(Err(error))),
        }
    }

    fn end_send(&mut self, socket: Socket, token: Token, result: io::Result<()>) {
        self.sock(socket).out = Out::Nothing;
        self.end(token, Outcome::Sent(result));
    }

    /// A datagram that the socket does not take yet waits behind those that it did not take
    /// either.
    fn start_send_to(&mut self, token: Token, socket: Socket, to: SocketAddr, data: Bytes) {
        let sock = self.sock(socket);
        let Out::Datagrams(waiting) = &sock.out else { panic!("a datagram socket") };
        let waits = waiting.len();
        let sent = match waits {
            0 if sock.writable => sock.transmit_to(to, &data),
            DATAGRAMS_WAITING_MAX.. => Err(io::Error::from_raw_os_error(libc::ENOBUFS)),
            _ => Ok(false),
        };
        match (sent, &mut sock.out) {
            (Ok(false), Out::Datagrams(waiting)) => {
                waiting.push_back(Datagram { token, to, data });
            }
            (sent, _) => self.end(token, Outcome::Sent(sent.map(drop))),
        }
    }

    /// Goes on with what waits for the socket to take it.
    fn go_on_sending(&mut self, socket: Socket) {
        let sock = self.sockets[socket.0 as usize].as_mut().expect("it can go on");
        match std::mem::replace(&mut sock.out, Out::Nothing) {
            Out::Nothing => {}
            Out::Connect(token) => {
                let connected = sock.connected();
                sock.out = Out::Connect(token);
                if let Some(result) = connected {
                    self.end_connect(socket, token, result);
                }
            }
            Out::Send(mut sending) => match sock.transmit(&mut sending.data) {
                Ok(false) => sock.out = Out::Send(sending),
                Ok(true) => self.end_send(socket, sending.token, Ok(())),
                Err(error) => self.end_send(socket, sending.token, Err(error)),
            },
            Out::Datagrams(mut waiting) => {
                while let Some(next) = waiting.pop_front() {
                    match sock.transmit_to(next.to, &next.data) {
                        Ok(false) => {
                            waiting.push_front(next);
                            break;
                        }
                        sent => {
                            let outcome = Outcome::Sent(sent.map(drop));
                            let token = next.token;
                            self.ready.push_back(Completion { token, outcome, more: false });
                        }
                    }
                }
                sock.out = Out::Datagrams(waiting);
            }
        }
    }

    /// Goes on with a socket that is in the list of those that can.
    fn serve(&mut self, at: usize) {
        let socket = Socket(at as u32);
        let Some(Some(sock)) = self.sockets.get_mut(at) else { return };
        sock.queued = false;
        if sock.can_send() {
            self.go_on_sending(socket);
        }
        let Some(Some(sock)) = self.sockets.get_mut(at) else { return };
        let share = if sock.is_datagram() { DATAGRAMS_MAX } else { 1 };
        if sock.can_receive() && sock.served_in(self.round) < share {
            self.receive(socket);
        }
        let Some(Some(sock)) = self.sockets.get_mut(at) else { return };
        if !sock.can_go_on() || sock.queued {
            return;
        }
        sock.queued = true;
        if sock.served_in(self.round) < share {
            self.work.push_back(at);
        } else {
            self.later.push(at);
        }
    }

    /// Ends the operation of that name, if it still waits: on `socket`, or, without one, an accept
    /// or a connect.
    fn cancel(&mut self, target: Token, socket: Option<Socket>) {
        let cancelled = || io::Error::from_raw_os_error(libc::ECANCELED);
        if let Some(socket) = socket {
            let sock = self.sock(socket);
            if sock.receiving.is_some_and(|(token, _)| token == target) {
                self.end_receive(socket, target, Some(cancelled()));
            } else if matches!(&sock.out, Out::Send(sending) if sending.token == target) {
                self.end_send(socket, target, Err(cancelled()));
            }
        } else if let Some(&socket) = self.connects.get(&target) {
            self.end_connect(socket, target, Err(cancelled()));
        } else if let Some(&number) = self.accepts.get(&target) {
            self.end_accept(number, Errno::CANCELED);
        }
    }

    fn shut_down(&mut self, socket: Socket, how: std::net::Shutdown) {
        let how = match how {
            std::net::Shutdown::Read => rustix::net::Shutdown::Read,
            std::net::Shutdown::Write => rustix::net::Shutdown::Write,
            std::net::Shutdown::Both => rustix::net::Shutdown::Both,
        };
        let sock = self.sock(socket);
        // It fails where the peer was faster, and then what waits finds that out too.
        let _ = rustix::net::shutdown(&sock.fd, how);
        sock.look_again();
        self.queue(socket);
    }

    fn hand_over(&mut self, socket: Socket, to: &Remote) -> io::Result<Socket> {
        let fd = self.take(socket);
        // It is of no use here, whether it was registered or not.
        let _ = self.poll.registry().deregister(&mut SourceFd(&fd.as_raw_fd()));
        match to.hand(fd) {
            Ok(()) => Ok(socket),
            Err(fd) => {
                let mut sock = Sock::new(fd, Out::Nothing);
                sock.broken = self.register(&sock.fd, socket.0 as usize).err();
                self.insert(sock);
                Err(io::Error::from_raw_os_error(libc::ENOTCONN))
            }
        }
    }

    fn peer_addr(&mut self, socket: Socket) -> io::Result<SocketAddr> {
        let peer = getpeername(&self.sock(socket).fd)?.ok_or(io::ErrorKind::NotConnected)?;
        SocketAddr::try_from(peer).map_err(|_| io::ErrorKind::Unsupported.into())
    }

    /// Takes note of what the kernel has told.
    fn observe(&mut self) {
        for event in &self.events {
            match event.token().0 {
                WAKER => {
                    self.remote.acknowledge();
                }
                name if name & LISTENER != 0 => {
                    let Some(accepting) = self.listeners.get_mut(name & !LISTENER) else {
                        continue;
                    };
                    accepting.readable = true;
                    if !std::mem::replace(&mut accepting.queued, true) {
                        self.work.push_back(name);
                    }
                }
                at => {
                    // An event of a socket that was closed meanwhile finds none, or one that
                    // looks once in vain.
                    let Some(Some(sock)) = self.sockets.get_mut(at) else { continue };
                    sock.observe(event);
                    if sock.can_go_on() && !std::mem::replace(&mut sock.queued, true) {
                        self.work.push_back(at);
                    }
                }
            }
        }
    }
}

/// The place of a descriptor in the table, and its events' name.
fn index_of(fd: &OwnedFd) -> usize {
    usize::try_from(fd.as_raw_fd()).expect("an open descriptor is not negative")
}

fn socket_of(listener: &Listener) -> &OwnedFd {
    let ListenerKind::Os(socket) = &listener.kind else { panic!("a listener of the host's") };
    socket
}

/// Accepts one connection, if one waits. Those that failed while they waited are passed over
/// (accept(2): errors of the new connection are told by the accept).
fn accept_one(listener: &Listener) -> Result<Option<OwnedFd>, Errno> {
    const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);
    loop {
        match accept_with(socket_of(listener), FLAGS) {
            Ok(fd) => return Ok(Some(fd)),
            Err(Errno::AGAIN) => return Ok(None),
            Err(
                Errno::INTR
                | Errno::CONNABORTED
                | Errno::NETDOWN
                | Errno::PROTO
                | Errno::NOPROTOOPT
                | Errno::HOSTDOWN
                | Errno::NONET
                | Errno::HOSTUNREACH
                | Errno::NETUNREACH,
            ) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Begins to connect, and tells whether that was all.
fn begin_connect(to: SocketAddr) -> Result<(OwnedFd, bool), Errno> {
    const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let fd = rustix::net::socket_with(family, SocketType::STREAM, FLAGS, None)?;
    // Without it a connection is slower, and still one.
    let _ = rustix::net::sockopt::set_tcp_nodelay(&fd, true);
    match rustix::net::connect(&fd, &to) {
        Ok(()) => Ok((fd, true)),
        Err(Errno::INPROGRESS | Errno::INTR) => Ok((fd, false)),
        Err(error) => Err(error),
    }
}

impl Driver for Epoll {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn submit(&mut self, token: Token, op: Op) -> Result<(), Op> {
        assert!(token.0 >> 60 == 0, "the highest bits of a token are the driver's");
        if matches!(op, Op::File(_)) && self.files.is_full() {
            self.refused = true;
            return Err(op);
        }
        self.in_flight += 1;
        match op {
            Op::Accept { listener } => self.start_accept(token, listener),
            Op::Connect { to } => self.start_connect(token, to),
            Op::Recv { socket, group } | Op::RecvFrom { socket, group } => {
                self.start_receive(token, socket, group);
            }
            Op::Send { socket, data } => self.start_send(token, socket, data),
            Op::SendTo { socket, to, data } => self.start_send_to(token, socket, to, data),
            // A receive that waits costs nothing here: see `Caps::parking`.
            Op::Poll { .. } => self.end(token, Outcome::Done),
            Op::PeerAddr { socket } => {
                let peer = self.peer_addr(socket);
                self.end(token, Outcome::PeerAddr(peer));
            }
            Op::Cancel { target, socket } => {
                self.cancel(target, socket);
                self.end(token, Outcome::Done);
            }
            Op::Shutdown { socket, how } => {
                self.shut_down(socket, how);
                self.end(token, Outcome::Done);
            }
            Op::HandOver { socket, to } => {
                let handed = self.hand_over(socket, &to);
                self.end(token, Outcome::Socket(handed));
            }
            Op::Close { socket } => {
                drop(self.take(socket));
                self.end(token, Outcome::Done);
            }
            Op::File(op) => self.ready.extend(self.files.start(token, op)),
        }
        Ok(())
    }

    fn enter(&mut self, wait: Option<Duration>) -> io::Result<()> {
        /// How long a caller that has a file operation to get rid of waits at most for another
        /// one to end.
        const REFUSED_WAIT: Duration = Duration::from_millis(1);
        self.round = self.round.wrapping_add(1);
        self.work.extend(self.later.drain(..));
        self.files.collect(&mut self.ready);
        // Sends mostly end at once: the core hears of that before the kernel is asked again, so
        // that an answer costs one wait and not two. Every other time the kernel is asked anyway.
        self.skipped = !self.ready.is_empty() && !self.skipped;
        if self.skipped {
            return Ok(());
        }
        let idle = self.ready.is_empty() && self.work.is_empty();
        let refused = std::mem::take(&mut self.refused);
        let wait = match wait {
            Some(Duration::ZERO) if idle && refused => Some(REFUSED_WAIT),
            wait if idle => wait,
            _ => Some(Duration::ZERO),
        };
        let may_wait = wait == Some(Duration::ZERO) || self.files.may_sleep();
        let wait = if may_wait { wait } else { Some(Duration::ZERO) };
        match self.poll.poll(&mut self.events, wait) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        self.observe();
        self.files.collect(&mut self.ready);
        Ok(())
    }

    fn completed(&mut self) -> Option<Completion> {
        loop {
            if let Some(completion) = self.ready.pop_front() {
                self.in_flight -= usize::from(!completion.more);
                return Some(completion);
            }
            match self.work.pop_front()? {
                name if name & LISTENER != 0 => self.accept(name & !LISTENER),
                at => self.serve(at),
            }
        }
    }

    fn received(&self, buf: &RxBuf) -> &[u8] {
        self.pools[buf.group as usize].bytes(buf)
    }

    fn release(&mut self, buf: RxBuf) {
        self.pools[buf.group as usize].release(&buf);
    }

    fn remote(&self) -> Remote {
        self.remote.clone()
    }

    fn bind_udp(&mut self, addr: SocketAddr) -> io::Result<(Socket, SocketAddr)> {
        if self.pools.len() <= Group::Datagram as usize {
            self.pools.push(Pool::new(Group::Datagram, self.options.datagrams));
        }
        let socket = std::net::UdpSocket::bind(addr)?;
        socket.set_nonblocking(true)?;
        let addr = socket.local_addr()?;
        let fd = OwnedFd::from(socket);
        self.register(&fd, index_of(&fd))?;
        Ok((self.insert(Sock::new(fd, Out::Datagrams(VecDeque::new()))), addr))
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }
}

impl Drop for Epoll {
    fn drop(&mut self) {
        // From here on nothing is handed to this core.
        self.remote.close_to_descriptors();
    }
}
