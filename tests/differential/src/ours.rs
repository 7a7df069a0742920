//! The engine, in process, with clients by number.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{SystemTime, UNIX_EPOCH};

use sextant_engine::{ClientId, Engine, Next, Options, Peer};
use sextant_resp::{OwnedArgs, skip};

use crate::words::Words;

/// What stands for a reply when the engine panics.
const PANIC: &[u8] = b"-PANIC see above\r\n";

/// An engine and its clients.
pub struct Ours {
    engine: Engine,
    clients: Vec<ClientId>,
}

/// The time for both servers: milliseconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970");
    u64::try_from(since.as_millis()).expect("and not that much later")
}

fn peer() -> Peer {
    Peer { address: "somewhere".to_owned(), local: "here".to_owned(), unix: true }
}

fn instance() -> Engine {
    let mut engine = Engine::new(&Options { seed: 7, databases: 16, journal: true, clock: || 0 });
    engine.set_now(now());
    engine
}

impl Ours {
    /// An engine with so many clients.
    pub fn new(clients: usize) -> Ours {
        let mut engine = instance();
        let clients = (0..clients).map(|_| engine.connect(peer())).collect();
        Ours { engine, clients }
    }

    /// Says a command: what is replied, and what the client does next.
    pub fn say(&mut self, client: usize, words: &Words) -> (Vec<Vec<u8>>, Next) {
        let command = OwnedArgs::from_words(words.iter().map(Vec::as_slice));
        let id = self.clients[client];
        // A game is over with the reply that is none, so that nobody looks at what is left.
        let executed = catch_unwind(AssertUnwindSafe(|| self.engine.execute(id, command.args())));
        match executed {
            Ok(executed) => (self.heard(client), executed.next),
            Err(_) => (vec![PANIC.to_vec()], Next::Ready),
        }
    }

    /// What was sent to a client since.
    ///
    /// # Panics
    /// It is no reply.
    pub fn heard(&mut self, client: usize) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        if let Some(output) = self.engine.output(self.clients[client]) {
            output.take(|bytes| sent.extend_from_slice(&bytes));
        }
        let mut replies = Vec::new();
        while !sent.is_empty() {
            let len = skip(&sent).expect("the engine speaks its protocol");
            let rest = sent.split_off(len.expect("and in whole replies"));
            replies.push(std::mem::replace(&mut sent, rest));
        }
        replies
    }

    /// Whether a client waits.
    pub fn is_waiting(&self, client: usize) -> bool {
        self.engine.is_waiting(self.clients[client])
    }

    /// A client ends its connection, and makes another.
    pub fn reconnect(&mut self, client: usize) {
        self.engine.disconnect(self.clients[client]);
        self.clients[client] = self.engine.connect(peer());
    }

    /// It is later; what is due is done.
    pub fn catch_up(&mut self) {
        self.engine.set_now(now());
        while self.engine.tick() {}
        while self.engine.next_told().is_some() {}
    }

    /// Another engine, of what this one has noted.
    ///
    /// # Panics
    /// What was noted cannot be read.
    pub fn replayed(&mut self) -> Ours {
        let mut engine = instance();
        engine.keyspace().begin_replay();
        let noted = self.engine.keyspace().journal().bytes().to_vec();
        engine.keyspace().apply(&noted).expect("what was noted can be read");
        engine.keyspace().end_replay();
        let client = engine.connect(peer());
        Ours { engine, clients: vec![client] }
    }
}
