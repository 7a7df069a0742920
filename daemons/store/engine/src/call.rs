//! A command that is being done: what its handler works with.

use sextant_keyspace::{Found, Keyspace};
use sextant_resp::OwnedArgs;

use crate::blocking::Wait;
use crate::client::{Client, ClientId};
use crate::command::Spec;
use crate::engine::Engine;
use crate::notify::Class;
use crate::output::Output;

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A client, by a command of its own.
    Client,
    /// A client's transaction.
    Transaction,
    /// A script.
    Script,
    /// A client that had waited, again.
    Woken,
}

/// A command that is being done. Its words are the handler's other argument.
pub(crate) struct Call<'e> {
    pub(crate) engine: &'e mut Engine,
    pub(crate) id: ClientId,
    /// The database that is selected.
    pub(crate) db: usize,
    /// Where the reply goes. The client's own output is elsewhere while its command is done.
    pub(crate) out: Output,
    pub(crate) caller: Caller,
    pub(crate) spec: &'static Spec,
    /// Its number in the table.
    pub(crate) number: u16,
    /// What the command waits for instead of a reply.
    pub(crate) wait: Option<Wait>,
    /// The words that it is done again with then, if those are not its own.
    pub(crate) again: Option<OwnedArgs>,
}

impl Call<'_> {
    /// The databases.
    #[inline]
    pub(crate) fn keys(&mut self) -> &mut Keyspace {
        &mut self.engine.keys
    }

    /// The client. A script has the client that called it.
    pub(crate) fn client(&mut self) -> &mut Client {
        self.engine.clients.get_mut(self.id).expect("a client is there while its command is done")
    }

    /// Milliseconds since 1970.
    pub(crate) fn now(&self) -> u64 {
        self.engine.keys.now()
    }

    /// Finds a key that is read, and counts whether it was there.
    pub(crate) fn look(&mut self, key: &[u8]) -> Option<Found> {
        let found = self.engine.keys.find(self.db, key);
        if found.is_some() {
            self.engine.counts.hits += 1;
        } else {
            self.engine.counts.misses += 1;
            self.notify(Class::MISS, "keymiss", key);
        }
        found
    }

    /// Waits, if this caller may; if not, nothing happens and the handler answers what a command
    /// that gives up would.
    #[must_use]
    pub(crate) fn wait(&mut self, wait: Wait) -> bool {
        let may = matches!(self.caller, Caller::Client | Caller::Woken);
        if may {
            self.wait = Some(wait);
        }
        may
    }

    /// Tells of something that happened to a key, to those who have asked for such news.
    #[inline]
    pub(crate) fn notify(&mut self, class: Class, event: &'static str, key: &[u8]) {
        self.engine.notices.note(class, event, self.db, key);
    }
}
