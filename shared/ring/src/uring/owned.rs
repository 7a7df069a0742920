//! Operations that own memory while the kernel works on it, and those that take several steps.
//! Each is a small state machine: [`Owned::start`] gives its first entries, [`Owned::advance`]
//! takes a result and gives the next, until [`Step::End`].
//!
//! What the kernel is pointed to lies on the heap behind a `Box`, `Vec`, [`Bytes`] or [`IoBuf`],
//! so that moving the `Owned` moves nothing that the kernel knows.

use std::ffi::CString;
use std::fs;
use std::io;
use std::mem::ManuallyDrop;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bytes::Bytes;
use io_uring::types::{DestinationSlot, Fd, Fixed, FsyncFlags};
use io_uring::{IoUring, opcode, squeue};

use super::check;
use super::socket::{PROCESS_FD, entry_of, socket_of};
use crate::buf::IoBuf;
use crate::disk::View;
use crate::driver::{File, FileOp, FileOutput, Op, OpenMode, Outcome, Outgoing, Socket, Token};
use crate::mesh::Remote;

/// What an operation wants next.
pub(super) enum Step {
    /// Nothing until another of its entries completes.
    Wait,
    /// One entry.
    Push(squeue::Entry),
    /// Two entries, the second to start when the first has fully succeeded.
    PushPair(squeue::Entry, squeue::Entry),
    /// It is over; `close` is a table entry that is to be closed.
    End { outcome: Outcome, close: Option<u32> },
}

pub(super) struct Owned {
    token: Token,
    ring: usize,
    work: Work,
}

enum Work {
    Send(Send),
    SendTo(Box<SendTo>),
    Connect(Box<Connect>),
    PeerAddr {
        entry: u32,
        addr: Box<libc::sockaddr_storage>,
        len: usize,
    },
    HandOver(HandOver),
    Open {
        path: CString,
        flags: i32,
    },
    Read {
        file: i32,
        offset: u64,
        buf: IoBuf,
    },
    Write(Write),
    Sync {
        file: i32,
    },
    Map {
        file: i32,
        len: u64,
    },
    Close {
        file: i32,
    },
    Rename {
        from: CString,
        to: CString,
    },
    Link {
        from: CString,
        to: CString,
    },
    Remove {
        path: CString,
    },
    SyncDir {
        path: CString,
        dir: Option<i32>,
    },
    /// Of an operation that was refused at once.
    Refused(Option<io::Error>),
}

struct Send {
    entry: u32,
    data: Outgoing,
    gathered: Option<Box<Gathered>>,
}

struct Gathered {
    header: libc::msghdr,
    runs: Vec<libc::iovec>,
}

struct SendTo {
    socket: u32,
    data: Bytes,
    addr: RawAddr,
}

/// A connection on its way to another core. Room on one of that core's rings is taken first.
struct HandOver {
    entry: u32,
    to: Remote,
    /// The number of the other core's ring on which there is room for it.
    ring: usize,
}

struct Connect {
    addr: RawAddr,
    slot: Option<u32>,
    one: libc::c_int,
    stage: ConnectStage,
    cancelled: bool,
}

#[derive(Clone, Copy)]
enum ConnectStage {
    Socket,
    NoDelay,
    Connect,
}

struct Write {
    file: i32,
    offset: u64,
    buf: IoBuf,
    written: usize,
    sync: bool,
    /// Results of the linked pair that have not arrived.
    pending: u8,
    result: i32,
    sync_result: i32,
}

impl Owned {
    /// An operation that is carried out on a ring of that number.
    pub(super) fn new(token: Token, ring: usize, op: Op) -> Owned {
        let work = match op {
            Op::Send { socket, data } => {
                Work::Send(Send { entry: entry_of(socket), data, gathered: None })
            }
            Op::SendTo { socket, to, data } => {
                Work::SendTo(Box::new(SendTo { socket: socket.0, data, addr: RawAddr::new(to) }))
            }
            Op::Connect { to } => Work::Connect(Box::new(Connect {
                addr: RawAddr::new(to),
                slot: None,
                one: 1,
                cancelled: false,
                stage: ConnectStage::Socket,
            })),
            Op::PeerAddr { socket } => Work::PeerAddr {
                entry: entry_of(socket),
                addr: Box::new(empty_addr()),
                len: V4_LEN,
            },
            Op::HandOver { socket, to } => Work::HandOver(HandOver::new(socket, to)),
            Op::File(op) => file_work(op).unwrap_or_else(|error| Work::Refused(Some(error))),
            other => unreachable!("{other:?} owns nothing"),
        };
        Owned { token, ring, work }
    }

    /// The ring that it is carried out on.
    pub(super) fn ring(&self) -> usize {
        self.ring
    }

    pub(super) fn token(&self) -> Token {
        self.token
    }

    /// Lets a connect take no further step.
    pub(super) fn cancel(&mut self) {
        if let Work::Connect(connect) = &mut self.work {
            connect.cancelled = true;
        }
    }

    pub(super) fn start(&mut self) -> Step {
        match &mut self.work {
            Work::Send(send) => Step::Push(send.entry()),
            Work::SendTo(send) => Step::Push(send.entry()),
            Work::Connect(connect) => connect.entry(),
            Work::PeerAddr { entry, addr, len } => Step::Push(peer_addr_entry(*entry, addr, *len)),
            Work::HandOver(hand_over) => hand_over.start(),
            Work::Open { path, flags } => Step::Push(
                opcode::OpenAt::new(Fd(libc::AT_FDCWD), path.as_ptr())
                    .flags(*flags)
                    .mode(0o600)
                    .build(),
            ),
            Work::Read { file, offset, buf } => {
                buf.clear();
                Step::Push(read_entry(*file, *offset, buf))
            }
            Work::Write(write) => write.entries(),
            Work::Sync { file } => Step::Push(sync_entry(*file)),
            Work::Map { file, len } => file_end(map(*file, *len).map(FileOutput::Mapped), None),
            Work::Close { file } => Step::Push(opcode::Close::new(Fd(*file)).build()),
            Work::Rename { from, to } => Step::Push(
                opcode::RenameAt::new(
                    Fd(libc::AT_FDCWD),
                    from.as_ptr(),
                    Fd(libc::AT_FDCWD),
                    to.as_ptr(),
                )
                .build(),
            ),
            Work::Link { from, to } => Step::Push(
                opcode::LinkAt::new(
                    Fd(libc::AT_FDCWD),
                    from.as_ptr(),
                    Fd(libc::AT_FDCWD),
                    to.as_ptr(),
                )
                .build(),
            ),
            Work::Remove { path } => {
                Step::Push(opcode::UnlinkAt::new(Fd(libc::AT_FDCWD), path.as_ptr()).build())
            }
            Work::SyncDir { path, .. } => Step::Push(
                opcode::OpenAt::new(Fd(libc::AT_FDCWD), path.as_ptr())
                    .flags(libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC)
                    .build(),
            ),
            Work::Refused(error) => {
                file_end(Err(error.take().unwrap_or(io::ErrorKind::InvalidInput.into())), None)
            }
        }
    }

    pub(super) fn advance(&mut self, result: i32, second: bool) -> Step {
        match &mut self.work {
            Work::Send(send) => send.advance(result),
            Work::SendTo(_) => {
                Step::End { outcome: Outcome::Sent(check(result).map(drop)), close: None }
            }
            Work::Connect(connect) => connect.advance(self.ring, result),
            Work::PeerAddr { entry, addr, len } => {
                let v6 = i32::from(addr.ss_family) == libc::AF_INET6;
                if result >= 0 && v6 && *len == V4_LEN {
                    *len = V6_LEN;
                    return Step::Push(peer_addr_entry(*entry, addr, *len));
                }
                let parsed = check(result).and_then(|_| parse_storage(addr));
                Step::End { outcome: Outcome::PeerAddr(parsed), close: None }
            }
            Work::HandOver(hand_over) => hand_over.advance(result),
            Work::Open { .. } => {
                file_end(check(result).map(|fd| FileOutput::Opened(File(fd as i32))), None)
            }
            Work::Read { file, offset, buf } => read_on(*file, *offset, buf, result),
            Work::Write(write) => write.advance(result, second),
            Work::SyncDir { dir, .. } => sync_dir(dir, result),
            Work::Sync { .. }
            | Work::Close { .. }
            | Work::Rename { .. }
            | Work::Link { .. }
            | Work::Remove { .. }
            | Work::Map { .. }
            | Work::Refused(_) => file_end(check(result).map(|_| FileOutput::Done), None),
        }
    }
}

fn file_end(result: io::Result<FileOutput>, buf: Option<IoBuf>) -> Step {
    Step::End { outcome: Outcome::File(result, buf), close: None }
}

fn file_work(op: FileOp) -> io::Result<Work> {
    Ok(match op {
        FileOp::Open { path, mode } => {
            let flags = match mode {
                OpenMode::Read => libc::O_RDONLY,
                OpenMode::Write => libc::O_RDWR,
                OpenMode::CreateNew => libc::O_RDWR | libc::O_CREAT | libc::O_EXCL,
            };
            Work::Open { path: c_path(&path)?, flags: flags | libc::O_CLOEXEC }
        }
        FileOp::Read { file, offset, buf } => Work::Read { file: file.0, offset, buf },
        FileOp::Write { file, offset, buf } => Work::Write(Write::new(file, offset, buf, false)),
        FileOp::WriteSync { file, offset, buf } => Work::Write(Write::new(file, offset, buf, true)),
        FileOp::Sync { file } => Work::Sync { file: file.0 },
        FileOp::Map { file, len } => Work::Map { file: file.0, len },
        FileOp::Close { file } => Work::Close { file: file.0 },
        FileOp::Rename { from, to } => Work::Rename { from: c_path(&from)?, to: c_path(&to)? },
        FileOp::Link { from, to } => Work::Link { from: c_path(&from)?, to: c_path(&to)? },
        FileOp::Remove { path } => Work::Remove { path: c_path(&path)? },
        FileOp::SyncDir { path } => Work::SyncDir { path: c_path(&path)?, dir: None },
    })
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

impl Send {
    /// Sends all that is left; the kernel goes on by itself until everything is taken
    /// (`MSG_WAITALL`), and reports less only if it was interrupted.
    fn entry(&mut self) -> squeue::Entry {
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        match &self.data {
            Outgoing::One(bytes) => {
                opcode::Send::new(Fixed(self.entry), bytes.as_ptr(), bytes.len() as u32)
                    .flags(flags)
                    .build()
            }
            Outgoing::Many(runs) => {
                let runs = runs
                    .iter()
                    .map(|run| libc::iovec {
                        iov_base: run.as_ptr().cast_mut().cast(),
                        iov_len: run.len(),
                    })
                    .collect();
                let mut gathered = Box::new(Gathered { header: empty_header(), runs });
                gathered.header.msg_iov = gathered.runs.as_mut_ptr();
                gathered.header.msg_iovlen = gathered.runs.len();
                let header = &raw const gathered.header;
                self.gathered = Some(gathered);
                opcode::SendMsg::new(Fixed(self.entry), header).flags(flags as u32).build()
            }
        }
    }

    fn advance(&mut self, result: i32) -> Step {
        let interrupted = [-libc::EINTR, -libc::EAGAIN].contains(&result);
        let sent = match check(result) {
            Ok(sent) => sent as usize,
            Err(_) if interrupted => 0,
            Err(error) => return Step::End { outcome: Outcome::Sent(Err(error)), close: None },
        };
        if sent >= self.data.len() {
            return Step::End { outcome: Outcome::Sent(Ok(())), close: None };
        }
        self.data.skip(sent);
        Step::Push(self.entry())
    }
}

impl SendTo {
    fn entry(&self) -> squeue::Entry {
        let fd = Fd((self.socket & !PROCESS_FD) as i32);
        opcode::Send::new(fd, self.data.as_ptr(), self.data.len() as u32)
            .dest_addr(self.addr.as_ptr())
            .dest_addr_len(self.addr.len)
            .build()
    }
}

impl Connect {
    fn entry(&mut self) -> Step {
        let slot = Fixed(self.slot.unwrap_or(0));
        Step::Push(match self.stage {
            ConnectStage::Socket => {
                let family = i32::from(self.addr.storage.ss_family);
                opcode::Socket::new(family, libc::SOCK_STREAM, 0)
                    .file_index(Some(DestinationSlot::auto_target()))
                    .build()
            }
            ConnectStage::NoDelay => opcode::SetSockOpt::new(
                slot,
                libc::IPPROTO_TCP as u32,
                libc::TCP_NODELAY as u32,
                (&raw const self.one).cast(),
                size_of::<libc::c_int>() as u32,
            )
            .build(),
            ConnectStage::Connect => {
                opcode::Connect::new(slot, self.addr.as_ptr(), self.addr.len).build()
            }
        })
    }

    fn advance(&mut self, ring: usize, result: i32) -> Step {
        match (self.stage, check(result)) {
            (ConnectStage::Socket, Ok(slot)) if self.cancelled => {
                let error = io::Error::from_raw_os_error(libc::ECANCELED);
                Step::End { outcome: Outcome::Socket(Err(error)), close: Some(slot) }
            }
            (ConnectStage::Socket, Ok(slot)) => {
                self.slot = Some(slot);
                self.stage = ConnectStage::NoDelay;
                self.entry()
            }
            // A kernel that cannot set the option makes a slower connection, not none.
            (ConnectStage::NoDelay, _) if !self.cancelled => {
                self.stage = ConnectStage::Connect;
                self.entry()
            }
            (ConnectStage::Connect, Ok(_)) => {
                let socket = socket_of(ring, self.slot.expect("the first stage made it"));
                Step::End { outcome: Outcome::Socket(Ok(socket)), close: None }
            }
            (ConnectStage::NoDelay, _) => {
                let error = io::Error::from_raw_os_error(libc::ECANCELED);
                Step::End { outcome: Outcome::Socket(Err(error)), close: self.slot }
            }
            (_, Err(error)) => Step::End { outcome: Outcome::Socket(Err(error)), close: self.slot },
        }
    }
}

impl Write {
    fn new(file: File, offset: u64, buf: IoBuf, sync: bool) -> Write {
        Write { file: file.0, offset, buf, written: 0, sync, pending: 0, result: 0, sync_result: 0 }
    }

    fn entries(&mut self) -> Step {
        let rest = &self.buf[self.written..];
        let write = opcode::Write::new(Fd(self.file), rest.as_ptr(), rest.len() as u32)
            .offset(self.offset + self.written as u64)
            .build();
        if self.sync {
            self.pending = 2;
            Step::PushPair(write, sync_entry(self.file))
        } else {
            self.pending = 1;
            Step::Push(write)
        }
    }

    fn advance(&mut self, result: i32, second: bool) -> Step {
        self.pending -= 1;
        if second {
            self.sync_result = result;
        } else {
            self.result = result;
        }
        if self.pending > 0 {
            return Step::Wait;
        }
        match check(self.result) {
            // A write of nothing makes no progress: the disk's end.
            Ok(0) if self.written < self.buf.len() => {
                self.end(Err(io::Error::from_raw_os_error(libc::ENOSPC)))
            }
            Ok(written) => {
                self.written += written as usize;
                if self.written < self.buf.len() {
                    return self.entries();
                }
                let synced = if self.sync { check(self.sync_result).map(drop) } else { Ok(()) };
                self.end(synced)
            }
            Err(error) => self.end(Err(error)),
        }
    }

    fn end(&mut self, result: io::Result<()>) -> Step {
        let buf = std::mem::replace(&mut self.buf, IoBuf::with_capacity(1));
        file_end(result.map(|()| FileOutput::Done), Some(buf))
    }
}

fn sync_entry(file: i32) -> squeue::Entry {
    opcode::Fsync::new(Fd(file)).flags(FsyncFlags::DATASYNC).build()
}

fn read_entry(file: i32, offset: u64, buf: &mut IoBuf) -> squeue::Entry {
    let at = buf.len();
    let room = buf.room() as u32;
    buf.set_len(buf.capacity());
    let start = buf[at..].as_mut_ptr();
    buf.set_len(at);
    opcode::Read::new(Fd(file), start, room).offset(offset + at as u64).build()
}

fn read_on(file: i32, offset: u64, buf: &mut IoBuf, result: i32) -> Step {
    let ended = match check(result) {
        Ok(0) => Ok(FileOutput::Done),
        Ok(read) => {
            buf.set_len(buf.len() + read as usize);
            if buf.room() > 0 {
                return Step::Push(read_entry(file, offset, buf));
            }
            Ok(FileOutput::Done)
        }
        Err(error) => Err(error),
    };
    file_end(ended, Some(std::mem::replace(buf, IoBuf::with_capacity(1))))
}

/// Opens the directory, syncs it, closes it.
fn sync_dir(dir: &mut Option<i32>, result: i32) -> Step {
    match (*dir, check(result)) {
        (None, Ok(fd)) => {
            *dir = Some(fd as i32);
            Step::Push(opcode::Fsync::new(Fd(fd as i32)).build())
        }
        (None, Err(error)) => file_end(Err(error), None),
        (Some(fd), synced) => {
            // SAFETY: the descriptor was opened by this operation's first step, and nobody else
            // knows it.
            #[allow(unsafe_code)]
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
            file_end(synced.map(|_| FileOutput::Done), None)
        }
    }
}

#[allow(unsafe_code)]
fn map(file: i32, len: u64) -> io::Result<View> {
    // SAFETY: the descriptor came from an open of this driver and was not closed; `ManuallyDrop`
    // keeps it open.
    let file = ManuallyDrop::new(unsafe { fs::File::from_raw_fd(file) });
    View::map(&file, len)
}

impl HandOver {
    fn new(socket: Socket, to: Remote) -> HandOver {
        HandOver { entry: entry_of(socket), to, ring: 0 }
    }

    fn start(&mut self) -> Step {
        /// `IORING_MSG_RING_CQE_SKIP`: the other core is told by the mesh, not by a completion.
        const SKIP: u32 = 1;
        let failed = |errno| {
            let error = io::Error::from_raw_os_error(errno);
            Step::End { outcome: Outcome::Socket(Err(error)), close: None }
        };
        if self.to.ring().is_none() {
            return failed(libc::ENOTCONN);
        }
        let Some(ring) = self.to.take_room() else { return failed(libc::ENFILE) };
        self.ring = ring;
        let Some(fd) = self.to.ring_at(ring) else { return failed(libc::ENOTCONN) };
        let auto = DestinationSlot::auto_target();
        Step::Push(
            opcode::MsgRingSendFd::new(Fd(fd), Fixed(self.entry), auto, 0)
                .opcode_flags(SKIP)
                .build(),
        )
    }

    fn advance(&mut self, result: i32) -> Step {
        let socket = check(result).map(|there| socket_of(self.ring, there));
        let close = socket.is_ok().then_some(self.entry);
        if socket.is_err() {
            self.to.give_room(self.ring);
            // It may have stopped accepting for want of just this entry.
            self.to.notify();
        }
        Step::End { outcome: Outcome::Socket(socket), close }
    }
}

/// A socket address as the kernel takes it.
struct RawAddr {
    storage: libc::sockaddr_storage,
    len: libc::socklen_t,
}

impl RawAddr {
    #[allow(unsafe_code)]
    fn new(addr: SocketAddr) -> RawAddr {
        let addr = socket2::SockAddr::from(addr);
        let len = addr.len();
        let mut storage = empty_addr();
        // SAFETY: `addr` points to `len` initialised bytes, at most the size of a
        // `sockaddr_storage`; the two do not overlap.
        unsafe {
            std::ptr::copy_nonoverlapping(
                addr.as_ptr().cast::<u8>(),
                (&raw mut storage).cast::<u8>(),
                len as usize,
            );
        }
        RawAddr { storage, len }
    }

    fn as_ptr(&self) -> *const libc::sockaddr {
        (&raw const self.storage).cast()
    }
}

#[allow(unsafe_code)]
fn empty_addr() -> libc::sockaddr_storage {
    // SAFETY: a `sockaddr_storage` is made of integers: all zeros is a value.
    unsafe { std::mem::zeroed() }
}

#[allow(unsafe_code)]
fn empty_header() -> libc::msghdr {
    // SAFETY: a `msghdr` is made of integers and pointers: all zeros is a value.
    unsafe { std::mem::zeroed() }
}

/// What a multishot receive of datagrams is laid out by: room for an address, none for control.
pub(super) fn recv_header() -> libc::msghdr {
    let mut header = empty_header();
    header.msg_namelen = size_of::<libc::sockaddr_in6>() as u32;
    header
}

fn parse_storage(addr: &libc::sockaddr_storage) -> io::Result<SocketAddr> {
    let bytes: [u8; size_of::<libc::sockaddr_in6>()] = {
        let start = (&raw const *addr).cast::<u8>();
        // SAFETY: a `sockaddr_storage` is larger than a `sockaddr_in6`, and all of it is
        // initialised (zeroed when made).
        #[allow(unsafe_code)]
        unsafe { std::slice::from_raw_parts(start, size_of::<libc::sockaddr_in6>()) }
            .try_into()
            .expect("the slice has that length")
    };
    parse_addr(&bytes)
}

/// Parses a `sockaddr_in` or `sockaddr_in6` from its bytes.
pub(super) fn parse_addr(bytes: &[u8]) -> io::Result<SocketAddr> {
    let short = || io::Error::from(io::ErrorKind::InvalidData);
    let (family, rest) = bytes.split_first_chunk::<2>().ok_or_else(short)?;
    let (port, rest) = rest.split_first_chunk::<2>().ok_or_else(short)?;
    let port = u16::from_be_bytes(*port);
    match i32::from(u16::from_ne_bytes(*family)) {
        libc::AF_INET => {
            let ip = rest.first_chunk::<4>().ok_or_else(short)?;
            Ok(SocketAddr::new(Ipv4Addr::from(*ip).into(), port))
        }
        libc::AF_INET6 => {
            let (flow, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
            let (ip, rest) = rest.split_first_chunk::<16>().ok_or_else(short)?;
            let scope = rest.first_chunk::<4>().ok_or_else(short)?;
            let (flow, scope) = (u32::from_be_bytes(*flow), u32::from_ne_bytes(*scope));
            Ok(SocketAddrV6::new(Ipv6Addr::from(*ip), port, flow, scope).into())
        }
        _ => Err(io::Error::from(io::ErrorKind::Unsupported)),
    }
}

/// `SO_PEERNAME` of `asm-generic/socket.h`: like `getpeername`, for a socket without descriptor.
const SO_PEERNAME: u32 = 28;
/// `SOCKET_URING_OP_GETSOCKOPT` of `linux/io_uring.h`.
const GETSOCKOPT: u32 = 2;

/// The kernel refuses to tell fewer bytes than it was asked for (`EINVAL`): so the length of an
/// IPv4 address is asked for first, and that of an IPv6 one if the answer says that it is one.
const V4_LEN: usize = size_of::<libc::sockaddr_in>();
const V6_LEN: usize = size_of::<libc::sockaddr_in6>();

/// An entry that asks for the first `len` bytes of the address of a connection's peer.
fn peer_addr_entry(entry: u32, addr: &mut libc::sockaddr_storage, len: usize) -> squeue::Entry {
    assert!(len <= size_of::<libc::sockaddr_storage>());
    let (addr, len) = ((&raw mut *addr).cast_const().cast(), len as u32);
    let level = libc::SOL_SOCKET as u32;
    as_getter(opcode::SetSockOpt::new(Fixed(entry), level, SO_PEERNAME, addr, len).build())
}

/// The `io-uring` crate builds only the command that sets an option; the one that gets it differs
/// in bytes 8…11 of the entry (`cmd_op`).
#[allow(unsafe_code)]
fn as_getter(setter: squeue::Entry) -> squeue::Entry {
    // SAFETY: an entry is a `repr(C)` wrapper of the kernel's 64-byte structure, made of
    // integers; `transmute` checks the size.
    let mut bytes: [u8; 64] = unsafe { std::mem::transmute(setter) };
    bytes[8..12].copy_from_slice(&GETSOCKOPT.to_ne_bytes());
    // SAFETY: as above.
    unsafe { std::mem::transmute(bytes) }
}

/// Whether the kernel tells a socket's peer through the ring: asked of a datagram socket that is
/// connected to itself.
pub(super) fn probe_peer_addr(ring: &mut IoUring) -> bool {
    let connected = || {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect(socket.local_addr()?)?;
        io::Result::Ok(socket)
    };
    let Ok(socket) = connected() else { return false };
    let mut addr = Box::new(empty_addr());
    let (fd, level) = (Fd(socket.as_raw_fd()), libc::SOL_SOCKET as u32);
    let start = (&raw mut *addr).cast_const().cast();
    let entry = opcode::SetSockOpt::new(fd, level, SO_PEERNAME, start, V4_LEN as u32).build();
    let entry = as_getter(entry);
    // SAFETY: `addr` lives until the completion was seen; if waiting for it fails, it is leaked.
    #[allow(unsafe_code)]
    let pushed = unsafe { ring.submission().push(&entry) }.is_ok();
    assert!(pushed, "a new ring is empty");
    if ring.submit_and_wait(1).is_err() {
        Box::leak(addr);
        return false;
    }
    let answered = ring.completion().next().is_some_and(|cqe| cqe.result() > 0);
    answered && parse_storage(&addr).ok() == socket.local_addr().ok()
}
