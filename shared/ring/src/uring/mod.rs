//! The kernel's io_uring as a driver: one ring, made and used on one thread.
//!
//! Memory that the kernel reads or writes belongs to this driver until the completion arrives:
//! sends, addresses and file buffers in `owned`, receive buffers in the two pools. A driver that
//! is dropped cancels everything and reaps it; should the kernel not give something back in
//! time, that memory is leaked rather than freed under it.
//!
//! Connections are *direct descriptors*: entries of the ring's own table, which do not count
//! against the process's limit. Listeners, datagram sockets and files are ordinary ones.
//!
//! The user data of an operation:
//!
//! ```text
//!   0000 token          an operation without memory of its own
//!   1000 0…0 n…n        entry n of `owned`
//!   1001 0…0 n…n        the second operation of entry n, linked behind the first
//!   1111 1…1            the waker's poll; 1111 1…10 an operation that nobody waits for
//! ```

mod buffers;
mod owned;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fd, Fixed, RecvMsgOut, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue};
use slab::Slab;
use tracing::warn;

use self::buffers::BufRing;
use self::owned::{Owned, Step};
use crate::caps::Caps;
use crate::driver::{
    Completion, Driver, Group, Kind, Listener, Op, Outcome, RxBuf, Socket, Token, listener_fd,
};
use crate::mesh::Remote;

const OWNED: u64 = 1 << 63;
const SECOND: u64 = 1 << 60;
const WAKER: u64 = u64::MAX;
const NOBODY: u64 = u64::MAX - 1;

/// A socket whose number has this bit is a descriptor of the process, not of the ring's table.
const PROCESS_FD: u32 = 1 << 31;

/// How a ring is laid out.
#[derive(Clone, Debug)]
pub struct Options {
    /// Entries of the submission queue.
    pub submissions: u32,
    /// Entries of the completion queue.
    pub completions: u32,
    /// Entries of the ring's own descriptor table, bounded by `RLIMIT_NOFILE`.
    pub sockets_max: u32,
    /// Small receive buffers: their number (a power of two) and size in bytes.
    pub small: (u16, u32),
    /// Bulk receive buffers: their number (a power of two) and size in bytes.
    pub bulk: (u16, u32),
    /// Buffers for datagrams: their number (a power of two) and size in bytes, 64 of which the
    /// sender's address takes.
    pub datagrams: (u16, u32),
}

impl Default for Options {
    fn default() -> Options {
        Options {
            submissions: 1024,
            completions: 8192,
            sockets_max: 16_384,
            small: (256, 8 * 1024),
            bulk: (64, 64 * 1024),
            datagrams: (1024, 2048),
        }
    }
}

/// A ring of the kernel's.
pub struct Uring {
    // Dropped by hand: first everything under way is reaped, then the ring goes, and only then
    // the memory that it knew.
    ring: ManuallyDrop<IoUring>,
    /// By the number of their [`Group`]; that for datagrams comes with the first such socket.
    pools: ManuallyDrop<Vec<BufRing>>,
    owned: ManuallyDrop<Slab<Owned>>,
    /// Where the connects under way are in `owned`: they take several steps, so that their tokens
    /// mean nothing to the kernel.
    connects: HashMap<Token, usize>,
    /// What a multishot receive of datagrams reads its layout from, for as long as it is armed.
    recv_header: ManuallyDrop<Box<libc::msghdr>>,
    /// Open for as long as the ring may look at them.
    listeners: Vec<Arc<Listener>>,
    udp: Vec<OwnedFd>,
    datagrams: (u16, u32),
    remote: Remote,
    caps: Caps,
    ready: VecDeque<Completion>,
    /// Entries that found the submission queue full, each with what is linked to it.
    spilled: VecDeque<Vec<squeue::Entry>>,
    in_flight: usize,
    waker_armed: bool,
}

impl Uring {
    /// Makes a ring on the calling thread, which has to be the one that uses it.
    ///
    /// # Errors
    /// The kernel's: io_uring forbidden (`EPERM`, `ENOSYS`), too old (`EINVAL`), too little
    /// memory, a descriptor table past `RLIMIT_NOFILE` (`EMFILE`).
    pub fn new(options: &Options, remote: Remote) -> io::Result<Uring> {
        let mut ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(options.completions)
            .build(options.submissions)?;
        ring.submitter().register_files_sparse(options.sockets_max)?;
        let mut incremental = true;
        let small = BufRing::new(&ring, Group::Small, options.small, &mut incremental)?;
        let bulk = BufRing::new(&ring, Group::Bulk, options.bulk, &mut incremental)?;
        let caps = Caps {
            driver: "io_uring",
            sockets_max: options.sockets_max,
            process_descriptors: false,
            incremental_buffers: incremental,
            deferred_work: true,
            peer_addr: owned::probe_peer_addr(&mut ring),
        };
        remote.set_ring(ring.as_raw_fd());
        Ok(Uring {
            ring: ManuallyDrop::new(ring),
            pools: ManuallyDrop::new(vec![small, bulk]),
            owned: ManuallyDrop::new(Slab::new()),
            connects: HashMap::new(),
            recv_header: ManuallyDrop::new(Box::new(owned::recv_header())),
            listeners: Vec::new(),
            udp: Vec::new(),
            datagrams: options.datagrams,
            remote,
            caps,
            ready: VecDeque::new(),
            spilled: VecDeque::new(),
            in_flight: 0,
            waker_armed: false,
        })
    }

    fn room(&mut self) -> usize {
        let queue = self.ring.submission();
        queue.capacity() - queue.len()
    }

    /// Queues entries, all or none. What they point to has to stay where it is until they
    /// complete: memory of `owned`, a pool, `recv_header` or `listeners`.
    #[allow(unsafe_code)]
    fn push(&mut self, entries: &[squeue::Entry]) {
        if self.room() < entries.len() || !self.spilled.is_empty() {
            self.flush();
        }
        if self.room() < entries.len() {
            self.spilled.push_back(entries.to_vec());
            return;
        }
        // SAFETY: every entry of this driver points to no memory, or to memory on the heap that
        // `owned`, `pools` or `recv_header` keeps: none of it is moved or freed before the
        // operation's last completion was seen (`Drop` included).
        let pushed = unsafe { self.ring.submission().push_multiple(entries) };
        assert!(pushed.is_ok(), "there is room");
    }

    /// Hands queued entries over without waiting, to make room, and queues what had found none.
    /// The kernel takes nothing while its completions have overflown; then they stay spilled
    /// until completions were drained.
    #[allow(unsafe_code)]
    fn flush(&mut self) {
        let _ = self.ring.submit();
        while let Some(entries) = self.spilled.pop_front() {
            if self.room() < entries.len() {
                self.spilled.push_front(entries);
                return;
            }
            // SAFETY: as in `push`, from where these entries come.
            let pushed = unsafe { self.ring.submission().push_multiple(&entries) };
            assert!(pushed.is_ok(), "there is room");
        }
    }

    fn start_owned(&mut self, mut owned: Owned) {
        let step = owned.start();
        let token = owned.token();
        let at = self.owned.insert(owned);
        if token.kind() == Kind::Connect {
            self.connects.insert(token, at);
        }
        self.carry_on(at, step);
    }

    /// Lets a connect that is under way go no further than it is, and gives the user data of what
    /// the kernel has of it.
    fn cancelled_connect(&mut self, token: Token) -> Option<u64> {
        let at = *self.connects.get(&token)?;
        self.owned[at].cancel();
        Some(OWNED | at as u64)
    }

    /// Does what an owned operation wants next: further entries, or its end.
    fn carry_on(&mut self, at: usize, step: Step) {
        let data = OWNED | at as u64;
        match step {
            Step::Wait => {}
            Step::Push(entry) => self.push(&[entry.user_data(data)]),
            Step::PushPair(first, second) => {
                let first = first.flags(squeue::Flags::IO_LINK).user_data(data);
                self.push(&[first, second.user_data(data | SECOND)]);
            }
            Step::End { outcome, close } => {
                let token = self.owned.remove(at).token();
                if token.kind() == Kind::Connect {
                    self.connects.remove(&token);
                }
                if let Some(slot) = close {
                    self.push(&[opcode::Close::new(Fixed(slot)).build().user_data(NOBODY)]);
                }
                self.in_flight -= 1;
                self.ready.push_back(Completion { token, outcome, more: false });
            }
        }
    }

    fn arm_waker(&mut self) {
        if let Some(fd) = self.remote.event().map(|event| event.as_raw_fd())
            && !self.waker_armed
        {
            let poll = opcode::PollAdd::new(Fd(fd), libc::POLLIN as u32).multi(true).build();
            self.push(&[poll.user_data(WAKER)]);
            self.waker_armed = true;
        }
    }

    fn translate(&mut self, cqe: &cqueue::Entry) {
        let (data, result, flags) = (cqe.user_data(), cqe.result(), cqe.flags());
        match data {
            NOBODY => {}
            WAKER => {
                self.waker_armed = cqueue::more(flags);
                self.remote.acknowledge();
            }
            _ if data & OWNED != 0 => {
                let at = (data & !(OWNED | SECOND)) as usize;
                let step = self.owned[at].advance(result, data & SECOND != 0);
                self.carry_on(at, step);
            }
            _ => self.translate_plain(Token(data), result, flags),
        }
    }

    fn translate_plain(&mut self, token: Token, result: i32, flags: u32) {
        let more = cqueue::more(flags);
        let outcome = match token.kind() {
            Kind::Accept => Outcome::Socket(check(result).map(Socket)),
            Kind::Recv => {
                Outcome::Recv(check(result).map(|len| self.lend(len, flags).filter(|_| len > 0)))
            }
            Kind::RecvFrom => Outcome::RecvFrom(
                check(result)
                    .and_then(|len| self.lend(len, flags).ok_or(io::ErrorKind::InvalidData.into()))
                    .and_then(|buf| self.datagram(buf)),
            ),
            _ => Outcome::Done,
        };
        if !more {
            self.in_flight -= 1;
        }
        self.ready.push_back(Completion { token, outcome, more });
    }

    fn lend(&mut self, len: u32, flags: u32) -> Option<RxBuf> {
        let id = cqueue::buffer_select(flags)?;
        let pool = &mut self.pools[BufRing::pool_of(id)];
        let buf = pool.lend(id, len, cqueue::buffer_more(flags));
        if len == 0 {
            pool.release(&buf);
            return None;
        }
        Some(buf)
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
        self.push(&[opcode::AsyncCancel2::new(CancelBuilder::any()).build().user_data(NOBODY)]);
        for _ in 0..ROUNDS {
            if self.in_flight == 0 && !self.waker_armed {
                return true;
            }
            if self.enter_kernel(Some(Duration::from_millis(20))).is_err() {
                return false;
            }
            while let Some(cqe) = self.next_cqe() {
                self.translate(&cqe);
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

    fn next_cqe(&mut self) -> Option<cqueue::Entry> {
        self.ring.completion().next()
    }

    #[allow(unsafe_code)]
    fn enter_kernel(&mut self, wait: Option<Duration>) -> io::Result<()> {
        let queued = self.ring.submission().len();
        let entered = match wait {
            Some(Duration::ZERO) => {
                // Deferred work runs only in an enter that asks for events.
                let flags = EnterFlags::GETEVENTS.bits();
                // SAFETY: no argument is passed, and the queued entries are valid (`push`).
                unsafe {
                    self.ring.submitter().enter::<libc::sigset_t>(queued as u32, 0, flags, None)
                }
            }
            Some(wait) => {
                let limit = Timespec::from(wait);
                self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&limit))
            }
            None => self.ring.submit_and_wait(1),
        };
        match entered {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // Timed out, interrupted, or the completion queue has to be drained first.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }
}

impl Driver for Uring {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn submit(&mut self, token: Token, op: Op) -> Result<(), Op> {
        // The most entries that one operation queues at once.
        if self.room() < 2 {
            return Err(op);
        }
        self.in_flight += 1;
        let entry = match op {
            Op::Accept { listener } => {
                let fd = listener_fd(&listener).expect("a listener of the host's");
                if !self.listeners.iter().any(|held| Arc::ptr_eq(held, &listener)) {
                    self.listeners.push(listener);
                }
                opcode::AcceptMulti::new(Fd(fd)).allocate_file_index(true).build()
            }
            Op::Recv { socket, group } => {
                opcode::RecvMulti::new(Fixed(socket.0), group as u16).build()
            }
            Op::RecvFrom { socket, group } => {
                let header: *const libc::msghdr = &raw const **self.recv_header;
                let fd = Fd((socket.0 & !PROCESS_FD) as i32);
                opcode::RecvMsgMulti::new(fd, header, group as u16).build()
            }
            Op::Cancel { target, .. } => {
                let data = self.cancelled_connect(target).unwrap_or(target.0);
                opcode::AsyncCancel2::new(CancelBuilder::user_data(data)).build()
            }
            Op::Shutdown { socket, how } => {
                let how = match how {
                    std::net::Shutdown::Read => libc::SHUT_RD,
                    std::net::Shutdown::Write => libc::SHUT_WR,
                    std::net::Shutdown::Both => libc::SHUT_RDWR,
                };
                opcode::Shutdown::new(Fixed(socket.0), how).build()
            }
            Op::Close { socket } => opcode::Close::new(Fixed(socket.0)).build(),
            Op::Send { .. }
            | Op::SendTo { .. }
            | Op::Connect { .. }
            | Op::PeerAddr { .. }
            | Op::HandOver { .. }
            | Op::File(_) => {
                self.start_owned(Owned::new(token, op));
                return Ok(());
            }
        };
        self.push(&[entry.user_data(token.0)]);
        Ok(())
    }

    fn enter(&mut self, wait: Option<Duration>) -> io::Result<()> {
        self.arm_waker();
        if !self.spilled.is_empty() {
            self.flush();
        }
        let wait = if self.ready.is_empty() && self.spilled.is_empty() {
            wait
        } else {
            Some(Duration::ZERO)
        };
        self.enter_kernel(wait)
    }

    fn completed(&mut self) -> Option<Completion> {
        while self.ready.is_empty() {
            let cqe = self.next_cqe()?;
            self.translate(&cqe);
        }
        self.ready.pop_front()
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
            let pool = BufRing::new(&self.ring, Group::Datagram, self.datagrams, &mut false)?;
            self.pools.push(pool);
        }
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
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // From here on nothing is handed to this ring, nor to whatever gets its descriptor next.
        self.remote.set_ring(-1);
        let reaped = self.reap();
        // SAFETY: each of the four is dropped at most once, here, and `self` is not used after.
        // The ring goes first; the memory that it knew follows only if nothing was under way.
        unsafe {
            ManuallyDrop::drop(&mut self.ring);
            if reaped {
                ManuallyDrop::drop(&mut self.pools);
                ManuallyDrop::drop(&mut self.owned);
                ManuallyDrop::drop(&mut self.recv_header);
            }
        }
        if !reaped {
            warn!(in_flight = self.in_flight, "the kernel holds on to operations: memory leaked");
        }
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
