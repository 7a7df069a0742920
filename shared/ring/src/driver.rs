//! The seam between a core and whatever carries out its operations. [`Driver`] takes operations
//! and gives completions; a core never knows whether a kernel, a simulation or something else
//! stands behind it. Dispatch is static.
//!
//! An operation *owns* the memory that it reads or fills, and its completion gives that memory
//! back. So a driver may hand the memory to a kernel, and nothing a caller does can make it
//! dangle.
//!
//! Three kinds of operation last: [`Op::Accept`], [`Op::Recv`] and [`Op::RecvFrom`] complete many
//! times under one token. Each completion says whether more will follow ([`Completion::more`]);
//! once one says no, the operation is over and has to be submitted again.
//!
//! A socket has at most one receive or poll, and one send, under way at a time.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};

use crate::buf::IoBuf;
use crate::caps::Caps;
use crate::disk::View;
use crate::mesh::Remote;

/// Names an operation in its completion.
///
/// ```text
///   bits 63…60   the driver's own, zero in a token
///   bits 59…56   the kind of operation
///   bits 55…0    its number, which the driver gives back unread
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// What an operation is, as far as its token tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Kind {
    Accept,
    Connect,
    Recv,
    Send,
    Peer,
    Cancel,
    Shutdown,
    Close,
    HandOver,
    RecvFrom,
    SendTo,
    File,
    Poll,
    /// What a core does without waiting for it: the close of a socket that never became a
    /// connection, the cancellation of an accept.
    Refuse,
}

impl Token {
    /// Bits of a number.
    pub const NUMBER_BITS: u32 = 56;

    const KINDS: [Kind; 14] = [
        Kind::Accept,
        Kind::Connect,
        Kind::Recv,
        Kind::Send,
        Kind::Peer,
        Kind::Cancel,
        Kind::Shutdown,
        Kind::Close,
        Kind::HandOver,
        Kind::RecvFrom,
        Kind::SendTo,
        Kind::File,
        Kind::Poll,
        Kind::Refuse,
    ];

    /// The token of an operation of this kind.
    pub fn new(kind: Kind, number: u64) -> Token {
        assert!(number >> Token::NUMBER_BITS == 0, "a token's number has 56 bits");
        Token(u64::from(kind as u8) << Token::NUMBER_BITS | number)
    }

    /// The kind of operation.
    pub fn kind(self) -> Kind {
        Token::KINDS[(self.0 >> Token::NUMBER_BITS & 15) as usize]
    }

    /// The operation's number.
    pub fn number(self) -> u64 {
        self.0 & ((1 << Token::NUMBER_BITS) - 1)
    }
}

/// A socket as its driver knows it: an entry of a ring's own table, or a descriptor of the
/// process. Meaningless to any other driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Socket(pub(crate) u32);

impl Socket {
    /// For a driver that is not of this crate: a number of its own.
    pub const fn new(number: u32) -> Socket {
        Socket(number)
    }

    /// The driver's own number.
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// An open file as its driver knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct File(pub(crate) i32);

impl File {
    /// For a driver that is not of this crate: a number of its own.
    pub const fn new(number: i32) -> File {
        File(number)
    }

    /// The driver's own number.
    pub const fn number(self) -> i32 {
        self.0
    }
}

/// Which pool of receive buffers an operation draws from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Group {
    /// Many small buffers: for connections that mostly wait.
    Small,
    /// Few large ones: for connections that send in bulk.
    Bulk,
    /// Buffers that each take one datagram whole.
    Datagram,
}

/// A receive buffer on loan from the driver. It goes back with [`Driver::release`]; a buffer
/// that does not is missing from its pool for good.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a buffer that is not released is lost to its pool"]
pub struct RxBuf {
    /// The pool that it came from.
    pub group: Group,
    /// Which of the driver's pools of that kind, if it has several.
    pub(crate) ring: u8,
    pub(crate) id: u16,
    pub(crate) offset: u32,
    pub(crate) len: u32,
    /// Whether the kernel goes on filling this buffer behind these bytes, so that it returns to
    /// the pool only with a later loan.
    pub(crate) shared: bool,
}

impl RxBuf {
    /// For a driver that is not of this crate: `len` bytes in a buffer that has a number of its
    /// own.
    pub const fn new(group: Group, id: u16, len: u32) -> RxBuf {
        RxBuf { group, ring: 0, id, offset: 0, len, shared: false }
    }

    /// The driver's own number for the buffer.
    pub const fn id(&self) -> u16 {
        self.id
    }

    /// Bytes received into this buffer.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether nothing was received (an empty datagram).
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Bytes to send, in order, as one operation. The payloads are shared, never copied.
#[derive(Clone, Debug)]
pub enum Outgoing {
    /// The common case: one run of bytes.
    One(Bytes),
    /// Several, gathered by the kernel. Never empty, at most [`Outgoing::RUNS_MAX`].
    Many(Vec<Bytes>),
}

impl Outgoing {
    /// The most runs that one operation gathers (`UIO_MAXIOV` is 1024; past a few dozen the
    /// work a run costs is no longer amortised).
    pub const RUNS_MAX: usize = 64;

    /// All bytes together.
    pub fn len(&self) -> usize {
        match self {
            Outgoing::One(bytes) => bytes.len(),
            Outgoing::Many(runs) => runs.iter().map(Bytes::len).sum(),
        }
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops the first `sent` bytes, which are fewer than there are.
    pub(crate) fn skip(&mut self, mut sent: usize) {
        match self {
            Outgoing::One(bytes) => bytes.advance(sent),
            Outgoing::Many(runs) => {
                let whole = runs
                    .iter()
                    .take_while(|run| {
                        let over = run.len() <= sent;
                        sent -= if over { run.len() } else { 0 };
                        over
                    })
                    .count();
                runs.drain(..whole);
                runs[0].advance(sent);
            }
        }
    }
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// It must exist; for reading.
    Read,
    /// It must exist; for reading and writing.
    Write,
    /// It must not exist; for reading and writing.
    CreateNew,
}

/// An operation on files. Paths are absolute or relative to the process's directory.
#[derive(Debug)]
pub enum FileOp {
    /// Opens a file, mode 0600 if it is made.
    Open {
        /// Its path.
        path: PathBuf,
        /// How.
        mode: OpenMode,
    },
    /// Reads up to the buffer's capacity at `offset`; the buffer's length is set to what was
    /// read, less than its capacity only at the end of the file.
    Read {
        /// From which file.
        file: File,
        /// Bytes from its start.
        offset: u64,
        /// Where to.
        buf: IoBuf,
    },
    /// Writes the whole buffer at `offset`: short writes are continued.
    Write {
        /// To which file.
        file: File,
        /// Bytes from its start.
        offset: u64,
        /// What.
        buf: IoBuf,
    },
    /// [`FileOp::Write`], then [`FileOp::Sync`] if it succeeded; one completion for both.
    WriteSync {
        /// To which file.
        file: File,
        /// Bytes from its start.
        offset: u64,
        /// What.
        buf: IoBuf,
    },
    /// Makes all earlier *completed* writes of the file durable (`fdatasync`).
    Sync {
        /// Which file.
        file: File,
    },
    /// Maps the file's first `len` bytes for reading.
    Map {
        /// Which file.
        file: File,
        /// Bytes from its start.
        len: u64,
    },
    /// Closes the file. Maps of it stay valid.
    Close {
        /// Which file.
        file: File,
    },
    /// Renames a file, replacing the target. Durable only after [`FileOp::SyncDir`].
    Rename {
        /// The old path.
        from: PathBuf,
        /// The new one.
        to: PathBuf,
    },
    /// Gives a file a second name, which must not exist. Durable only after [`FileOp::SyncDir`].
    Link {
        /// A path of the file.
        from: PathBuf,
        /// The new one, on the same file system.
        to: PathBuf,
    },
    /// Removes a file. Durable only after [`FileOp::SyncDir`].
    Remove {
        /// Its path.
        path: PathBuf,
    },
    /// Makes a directory's entries durable.
    SyncDir {
        /// Its path.
        path: PathBuf,
    },
}

impl FileOp {
    /// The buffer that the operation reads into or writes from.
    pub(crate) fn into_buf(self) -> Option<IoBuf> {
        match self {
            FileOp::Read { buf, .. }
            | FileOp::Write { buf, .. }
            | FileOp::WriteSync { buf, .. } => Some(buf),
            _ => None,
        }
    }
}

/// What a [`FileOp`] came to. A failed operation gives its buffer back where it had one.
#[derive(Debug)]
pub struct FileDone {
    /// What the caller named the operation.
    pub ticket: u64,
    /// How it ended.
    pub result: io::Result<FileOutput>,
    /// The buffer of a read or write.
    pub buf: Option<IoBuf>,
}

/// Where file operations are asked for: a core's [`Cx`](crate::core::Cx), or a stand-in in tests.
/// Each ends in one [`FileDone`] with the same ticket, in any order.
pub trait Files {
    /// Starts an operation, named by `ticket`. One too many ends with `EAGAIN` and has done
    /// nothing; its [`FileDone`] gives the buffer back.
    fn submit(&mut self, ticket: u64, op: FileOp);
}

/// What a successful [`FileOp`] yields.
#[derive(Debug)]
pub enum FileOutput {
    /// Nothing beyond its success.
    Done,
    /// The file that was opened.
    Opened(File),
    /// The bytes of the file that was mapped.
    Mapped(View),
}

/// An operation.
#[derive(Debug)]
pub enum Op {
    /// Accepts connections until cancelled or out of room.
    Accept {
        /// Whose.
        listener: Arc<Listener>,
    },
    /// Opens a TCP connection.
    Connect {
        /// The peer.
        to: SocketAddr,
    },
    /// Receives until the peer is done, the pool is empty, or cancelled.
    Recv {
        /// On which socket.
        socket: Socket,
        /// Into which pool's buffers.
        group: Group,
    },
    /// Ends once a receive would have something to say: bytes, the peer's end, an error. It may
    /// end earlier. Instead of a receive, where that costs less for a connection that waits.
    Poll {
        /// On which socket.
        socket: Socket,
    },
    /// Sends all bytes: short sends are continued.
    Send {
        /// On which socket.
        socket: Socket,
        /// What.
        data: Outgoing,
    },
    /// Receives datagrams until the pool is empty or cancelled.
    RecvFrom {
        /// On which socket.
        socket: Socket,
        /// Into which pool's buffers.
        group: Group,
    },
    /// Sends one datagram.
    SendTo {
        /// On which socket.
        socket: Socket,
        /// The peer.
        to: SocketAddr,
        /// What.
        data: Bytes,
    },
    /// Tells a connection's peer address; an error on one of a unix socket, which has none.
    PeerAddr {
        /// Which connection.
        socket: Socket,
    },
    /// Ends the operation named `target`, if it is still under way. That operation completes on
    /// its own, with `ECANCELED` or with whatever it came to; so does this one.
    Cancel {
        /// Which operation.
        target: Token,
        /// Whose operation it is, if a socket's. None of [`Op::Accept`] and [`Op::Connect`].
        socket: Option<Socket>,
    },
    /// Ends sending, or sending and receiving, on a connection: what is under way there completes.
    Shutdown {
        /// Which connection.
        socket: Socket,
        /// What ends.
        how: std::net::Shutdown,
    },
    /// Gives a connection to another core's driver. It must have no operation under way here. On
    /// success it is closed here and open there, under the socket that the outcome names.
    HandOver {
        /// Which connection.
        socket: Socket,
        /// The other core.
        to: Remote,
    },
    /// Gives a socket up. It must have no operation under way.
    Close {
        /// Which socket.
        socket: Socket,
    },
    /// Works on a file.
    File(FileOp),
}

/// How an operation ended, or went on.
#[derive(Debug)]
pub enum Outcome {
    /// Of [`Op::Accept`] and [`Op::Connect`]: a socket of this driver. Of [`Op::HandOver`]: one of
    /// the other core's driver; after an error the connection is still open here.
    Socket(io::Result<Socket>),
    /// Of [`Op::Recv`]: bytes; `None` when the peer is done; or an error, among which
    /// [`is_starved`] means that the pool was empty.
    Recv(io::Result<Option<RxBuf>>),
    /// Of [`Op::RecvFrom`].
    RecvFrom(io::Result<(SocketAddr, RxBuf)>),
    /// Of [`Op::Send`] and [`Op::SendTo`]: nothing or an error; what was sent is given up.
    Sent(io::Result<()>),
    /// Of [`Op::PeerAddr`].
    PeerAddr(io::Result<SocketAddr>),
    /// Of [`Op::File`].
    File(io::Result<FileOutput>, Option<IoBuf>),
    /// Of [`Op::Poll`], [`Op::Cancel`], [`Op::Shutdown`] and [`Op::Close`]: it is done, whatever it
    /// found.
    Done,
}

/// One answer to one operation.
#[derive(Debug)]
pub struct Completion {
    /// Which operation.
    pub token: Token,
    /// What it came to.
    pub outcome: Outcome,
    /// Whether more completions of the same operation follow.
    pub more: bool,
}

/// Whether an error means that a pool of receive buffers was empty. It is no fault of the
/// connection: it is armed again when a buffer comes back.
pub fn is_starved(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOBUFS)
}

/// A listening socket, shared by the cores that accept from it, whose drivers are of one kind:
/// whether an accept waits is a property of the socket, and kinds differ in what they need.
#[derive(Debug)]
pub struct Listener {
    pub(crate) kind: ListenerKind,
    addr: Option<SocketAddr>,
}

#[derive(Debug)]
pub(crate) enum ListenerKind {
    Os(OwnedFd),
    /// Of a simulated network, which finds it by its address.
    Sim,
}

impl Listener {
    /// Adopts a listening socket of the process. It stays open for as long as a core holds it.
    ///
    /// # Errors
    /// When the socket does not tell its own address.
    pub fn new(listener: TcpListener) -> io::Result<Listener> {
        let addr = listener.local_addr()?;
        Listener::adopt(listener.into(), Some(addr))
    }

    /// Adopts a listening unix socket of the process, as [`Listener::new`] does. Its connections
    /// have no peer address: [`Op::PeerAddr`] ends in an error. Its path is the caller's to remove.
    ///
    /// # Errors
    /// When the socket cannot be made to wait.
    pub fn unix(listener: UnixListener) -> io::Result<Listener> {
        Listener::adopt(listener.into(), None)
    }

    fn adopt(fd: OwnedFd, addr: Option<SocketAddr>) -> io::Result<Listener> {
        // An io_uring operation on a non-blocking descriptor does not wait either.
        rustix::io::ioctl_fionbio(&fd, false)?;
        Ok(Listener { kind: ListenerKind::Os(fd), addr })
    }

    /// A listener of a simulated network.
    pub fn sim(addr: SocketAddr) -> Listener {
        Listener { kind: ListenerKind::Sim, addr: Some(addr) }
    }

    /// The address that it listens on; `None` of a unix socket.
    pub fn addr(&self) -> Option<SocketAddr> {
        self.addr
    }
}

/// Carries out operations. One driver belongs to one core and one thread.
pub trait Driver {
    /// What this driver and its kernel can do, and its limits.
    fn caps(&self) -> &Caps;

    /// Starts an operation, or gives it back when there is no room before the next
    /// [`Driver::enter`].
    ///
    /// # Errors
    /// The operation itself.
    fn submit(&mut self, token: Token, op: Op) -> Result<(), Op>;

    /// Hands what was submitted to the kernel, and waits until there is a completion, `wait` has
    /// passed, or the waker was woken
    /// through its [`Remote`]. A `wait` of zero does not wait; `None` waits without end.
    ///
    /// # Errors
    /// Only those after which the driver is of no use any more.
    fn enter(&mut self, wait: Option<Duration>) -> io::Result<()>;

    /// The next completion that has arrived.
    fn completed(&mut self) -> Option<Completion>;

    /// The bytes of a receive buffer.
    fn received(&self, buf: &RxBuf) -> &[u8];

    /// Returns a receive buffer to its pool.
    fn release(&mut self, buf: RxBuf);

    /// What other threads need to wake this driver's [`Driver::enter`] and to hand it sockets.
    fn remote(&self) -> Remote;

    /// Adopts a bound datagram socket.
    ///
    /// # Errors
    /// When the address cannot be bound.
    fn bind_udp(&mut self, addr: SocketAddr) -> io::Result<(Socket, SocketAddr)>;

    /// Operations whose last completion has not been seen.
    fn in_flight(&self) -> usize;
}

pub(crate) fn listener_fd(listener: &Listener) -> Option<RawFd> {
    use std::os::fd::AsRawFd;
    match &listener.kind {
        ListenerKind::Os(socket) => Some(socket.as_raw_fd()),
        ListenerKind::Sim => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_keeps_its_kind_and_number() {
        for (n, kind) in Token::KINDS.into_iter().enumerate() {
            assert_eq!(kind as usize, n);
            for number in [0, 5, (1 << Token::NUMBER_BITS) - 1] {
                let token = Token::new(kind, number);
                assert_eq!((token.kind(), token.number()), (kind, number));
                assert_eq!(token.0 >> 60, 0, "the highest bits are the driver's");
            }
        }
    }
}
