//! `redis-server`, as a process of its own that ends with its owner, and connections to it.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sextant_resp::{encode_command, skip};

use crate::words::Words;

/// How long a reply may take before it is none.
const PATIENCE: Duration = Duration::from_secs(5);

/// A server.
#[derive(Debug)]
pub struct Peer {
    process: Child,
    folder: tempfile::TempDir,
}

impl Peer {
    /// Starts a server.
    ///
    /// # Panics
    /// There is no `redis-server`, or it does not start.
    pub fn start() -> Peer {
        let folder = tempfile::tempdir().expect("there is room for a socket");
        let options: &[(&str, &str)] = &[
            ("--port", "0"),
            ("--unixsocket", "socket"),
            ("--save", ""),
            ("--appendonly", "no"),
            ("--enable-debug-command", "yes"),
            ("--proto-max-bulk-len", "536870912"),
        ];
        let mut command = Command::new("redis-server");
        let process = command
            .args(options.iter().flat_map(|(name, value)| [name, value]))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed: run `cargo xtask setup`");
        let peer = Peer { process, folder };
        let begun = Instant::now();
        while UnixStream::connect(peer.path()).is_err() {
            assert!(begun.elapsed() < PATIENCE, "redis-server answers");
            std::thread::sleep(Duration::from_millis(5));
        }
        peer
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// A connection.
    ///
    /// # Panics
    /// The server takes none.
    pub fn connect(&self) -> Connection {
        let stream = UnixStream::connect(self.path()).expect("redis-server takes connections");
        stream.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
        stream.set_write_timeout(Some(PATIENCE)).expect("it is a socket");
        Connection { stream, unread: Vec::new() }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It has nothing that is worth keeping.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A connection to a server.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    unread: Vec<u8>,
}

impl Connection {
    /// Says commands, all at once.
    ///
    /// # Panics
    /// The server takes them too slowly.
    pub fn say<'a>(&mut self, commands: impl Iterator<Item = &'a Words>) {
        let mut bytes = Vec::new();
        commands.for_each(|words| encode_command(&mut bytes, words));
        // A server that has closed the connection has said why.
        if let Err(error) = self.stream.write_all(&bytes) {
            assert!(error.kind() == ErrorKind::BrokenPipe, "{error}");
        }
    }

    /// The next reply, or none if the server has none, or has closed.
    pub fn hear(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(reply) = self.heard() {
                return Some(reply);
            }
            if self.read() == 0 {
                return None;
            }
        }
    }

    /// A reply that has arrived already.
    ///
    /// # Panics
    /// It is none.
    fn heard(&mut self) -> Option<Vec<u8>> {
        let len = skip(&self.unread).expect("redis-server speaks its protocol")?;
        Some(self.unread.drain(..len).collect())
    }

    /// Replies that have arrived already.
    ///
    /// # Panics
    /// The socket is none.
    pub fn rest(&mut self) -> Vec<Vec<u8>> {
        self.stream.set_nonblocking(true).expect("it is a socket");
        while self.read() > 0 {}
        self.stream.set_nonblocking(false).expect("it is a socket");
        std::iter::from_fn(|| self.heard()).collect()
    }

    fn read(&mut self) -> usize {
        let mut bytes = [0; 64 << 10];
        let count = self.stream.read(&mut bytes).unwrap_or(0);
        self.unread.extend_from_slice(&bytes[..count]);
        count
    }

    /// Says a command, and hears the reply.
    ///
    /// # Panics
    /// There is none.
    pub fn ask(&mut self, line: &str) -> Vec<u8> {
        let words: Words = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        self.say(std::iter::once(&words));
        self.hear().expect("redis-server answers")
    }

    /// Waits until the server has done all that it was told before by whomever: it answers what
    /// came together in one go, so that the second answer is behind all others.
    pub fn settle(&mut self) {
        self.ask("PING");
        self.ask("PING");
    }
}
