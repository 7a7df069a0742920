//! A driver without a kernel: its peers are this program, which puts bytes in and takes note of
//! what comes out. So what is counted is the loop and what stands on it, and nothing else. Files
//! are the host's, worked on at once.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use sextant_ring::buf::IoBuf;
use sextant_ring::caps::Caps;
use sextant_ring::disk::View;
use sextant_ring::driver::{
    Completion, Driver, File, FileOp, FileOutput, Group, Kind, Op, OpenMode, Outcome, Outgoing,
    RxBuf, Socket, Token,
};
use sextant_ring::mesh::Remote;

const SOCKETS_MAX: u32 = 1 << 16;

/// The driver.
pub struct Wire {
    caps: Caps,
    remote: Remote,
    ready: VecDeque<Completion>,
    accept: Option<Token>,
    /// The receive that is under way on each socket.
    receives: Vec<Option<Token>>,
    /// Receive buffers, by their numbers.
    buffers: Vec<Vec<u8>>,
    spare: Vec<u16>,
    files: HashMap<File, fs::File>,
    opened: i32,
    /// Sends that were asked for.
    pub sends: u64,
    /// Where all that is sent goes, if somebody wants it.
    pub sent: Option<Vec<u8>>,
}

impl Wire {
    /// A driver that nothing has happened on.
    pub fn new() -> Wire {
        Wire {
            caps: Caps { driver: "wire", sockets_max: SOCKETS_MAX, ..Caps::default() },
            remote: Remote::sim(),
            ready: VecDeque::new(),
            accept: None,
            receives: Vec::with_capacity(SOCKETS_MAX as usize),
            buffers: Vec::new(),
            spare: Vec::new(),
            files: HashMap::new(),
            opened: 0,
            sends: 0,
            sent: None,
        }
    }

    /// A peer connects. Tells the number of its socket.
    pub fn connect(&mut self) -> u32 {
        let token = self.accept.expect("the core accepts");
        let number = self.receives.len() as u32;
        self.receives.push(None);
        let outcome = Outcome::Socket(Ok(Socket::new(number)));
        self.ready.push_back(Completion { token, outcome, more: true });
        number
    }

    /// A peer sends bytes.
    pub fn put(&mut self, socket: u32, bytes: &[u8]) {
        let token = self.receives[socket as usize].expect("the core receives");
        let id = self.spare.pop().unwrap_or_else(|| {
            self.buffers.push(Vec::new());
            u16::try_from(self.buffers.len() - 1).expect("few buffers are out at once")
        });
        let buffer = &mut self.buffers[usize::from(id)];
        buffer.clear();
        buffer.extend_from_slice(bytes);
        let lent = RxBuf::new(Group::Small, id, bytes.len() as u32);
        let outcome = Outcome::Recv(Ok(Some(lent)));
        self.ready.push_back(Completion { token, outcome, more: true });
    }

    fn end(&mut self, token: Token, outcome: Outcome) {
        self.ready.push_back(Completion { token, outcome, more: false });
    }

    fn cancel(&mut self, target: Token) {
        let cancelled = || io::Error::from_raw_os_error(125);
        if self.accept.take_if(|token| *token == target).is_some() {
            return self.end(target, Outcome::Socket(Err(cancelled())));
        }
        let armed = self.receives.iter_mut().find(|token| **token == Some(target));
        if armed.and_then(Option::take).is_some() {
            self.end(target, Outcome::Recv(Err(cancelled())));
        }
    }

    /// Carries a file operation out.
    pub fn work(&mut self, op: FileOp) -> (io::Result<FileOutput>, Option<IoBuf>) {
        let done = |result: io::Result<()>| result.map(|()| FileOutput::Done);
        match op {
            FileOp::Open { path, mode } => {
                let mut options = fs::OpenOptions::new();
                options.read(true).write(mode != OpenMode::Read);
                let opened = options.create_new(mode == OpenMode::CreateNew).open(path);
                let named = opened.map(|file| {
                    let name = File::new(self.opened);
                    self.opened += 1;
                    self.files.insert(name, file);
                    FileOutput::Opened(name)
                });
                (named, None)
            }
            FileOp::Read { file, offset, mut buf } => {
                buf.set_len(buf.capacity());
                let read = self.files[&file].read_at(&mut buf, offset);
                buf.set_len(*read.as_ref().unwrap_or(&0));
                (read.map(|_| FileOutput::Done), Some(buf))
            }
            // What syncing costs is the kernel's affair.
            FileOp::Write { file, offset, buf } | FileOp::WriteSync { file, offset, buf } => {
                (done(self.files[&file].write_all_at(&buf, offset)), Some(buf))
            }
            FileOp::Map { file, len } => {
                (View::map(&self.files[&file], len).map(FileOutput::Mapped), None)
            }
            FileOp::Close { file } => {
                self.files.remove(&file);
                (done(Ok(())), None)
            }
            FileOp::Rename { from, to } => (done(fs::rename(from, to)), None),
            FileOp::Link { from, to } => (done(fs::hard_link(from, to)), None),
            FileOp::Remove { path } => (done(fs::remove_file(path)), None),
            _ => (done(Ok(())), None),
        }
    }
}

impl Default for Wire {
    fn default() -> Wire {
        Wire::new()
    }
}

impl Driver for Wire {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn submit(&mut self, token: Token, op: Op) -> Result<(), Op> {
        match op {
            Op::Accept { .. } => self.accept = Some(token),
            Op::Recv { socket, .. } => self.receives[socket.number() as usize] = Some(token),
            Op::Send { data, .. } => {
                self.sends += 1;
                if let Some(sent) = &mut self.sent {
                    match &data {
                        Outgoing::One(bytes) => sent.extend_from_slice(bytes),
                        Outgoing::Many(all) => sent.extend(all.iter().flatten()),
                    }
                }
                self.end(token, Outcome::Sent(Ok(())));
            }
            Op::Cancel { target, .. } => {
                self.cancel(target);
                self.end(token, Outcome::Done);
            }
            Op::PeerAddr { .. } => {
                let peer = SocketAddr::from(([127, 0, 0, 1], 4000));
                self.end(token, Outcome::PeerAddr(Ok(peer)));
            }
            Op::File(op) => {
                let (result, buf) = self.work(op);
                self.end(token, Outcome::File(result, buf));
            }
            Op::Shutdown { socket, .. } | Op::Close { socket } => {
                if let Some(receive) = self.receives[socket.number() as usize].take() {
                    self.end(receive, Outcome::Recv(Ok(None)));
                }
                self.end(token, Outcome::Done);
            }
            _ => {
                assert!(token.kind() != Kind::HandOver, "there is one core");
                self.end(token, Outcome::Done);
            }
        }
        Ok(())
    }

    fn enter(&mut self, _wait: Option<Duration>) -> io::Result<()> {
        Ok(())
    }

    fn completed(&mut self) -> Option<Completion> {
        self.ready.pop_front()
    }

    fn received(&self, buf: &RxBuf) -> &[u8] {
        &self.buffers[usize::from(buf.id())][..buf.len()]
    }

    #[allow(clippy::needless_pass_by_value)] // The trait's.
    fn release(&mut self, buf: RxBuf) {
        self.spare.push(buf.id());
    }

    fn remote(&self) -> Remote {
        self.remote.clone()
    }

    fn bind_udp(&mut self, _addr: SocketAddr) -> io::Result<(Socket, SocketAddr)> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn in_flight(&self) -> usize {
        0
    }
}
