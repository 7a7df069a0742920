//! Clients that wait for a key.
//!
//! A command that finds nothing says what it waits for ([`Call::wait`](crate::call::Call::wait)).
//! When such a key has changed, and is of the type that is waited for, the command is done again,
//! from its own words.

use std::collections::{BTreeSet, VecDeque};

use hashbrown::HashMap;
use sextant_keyspace::Type;
use sextant_resp::OwnedArgs;

use crate::client::ClientId;
use crate::output::Output;

/// What a command waits for.
pub(crate) struct Wait {
    /// Keys of the client's database.
    pub(crate) keys: Vec<Vec<u8>>,
    /// What one of them has to be.
    pub(crate) kind: Type,
    /// That a key is gone is worth another look as well.
    pub(crate) gone_too: bool,
    /// Milliseconds since 1970 at which it gives up.
    pub(crate) deadline: Option<u64>,
    /// The reply of a command that gives up.
    pub(crate) give_up: fn(&mut Output),
}

/// A client that waits.
pub(crate) struct Waiting {
    pub(crate) wait: Wait,
    pub(crate) command: OwnedArgs,
    pub(crate) db: usize,
    pub(crate) since: u64,
}

/// Who waits for what.
#[derive(Default)]
pub(crate) struct Blocking {
    by_key: HashMap<(usize, Vec<u8>), VecDeque<ClientId>, foldhash::fast::RandomState>,
    deadlines: BTreeSet<(u64, ClientId)>,
    count: usize,
}

impl Blocking {
    /// Clients that wait.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn add(&mut self, id: ClientId, waiting: &Waiting) {
        self.count += 1;
        for key in &waiting.wait.keys {
            let queue = self.by_key.entry((waiting.db, key.clone())).or_default();
            if !queue.contains(&id) {
                queue.push_back(id);
            }
        }
        self.deadlines.extend(waiting.wait.deadline.map(|deadline| (deadline, id)));
    }

    pub(crate) fn remove(&mut self, id: ClientId, waiting: &Waiting) {
        self.count -= 1;
        for key in &waiting.wait.keys {
            let name = (waiting.db, key.clone());
            if let Some(queue) = self.by_key.get_mut(&name) {
                queue.retain(|other| *other != id);
                if queue.is_empty() {
                    self.by_key.remove(&name);
                }
            }
        }
        if let Some(deadline) = waiting.wait.deadline {
            self.deadlines.remove(&(deadline, id));
        }
    }

    /// Changes when a client gives up.
    pub(crate) fn set_deadline(
        &mut self,
        id: ClientId,
        waiting: &mut Waiting,
        deadline: Option<u64>,
    ) {
        if let Some(old) = waiting.wait.deadline {
            self.deadlines.remove(&(old, id));
        }
        self.deadlines.extend(deadline.map(|deadline| (deadline, id)));
        waiting.wait.deadline = deadline;
    }

    /// Who waits for a key, the longest first.
    pub(crate) fn waiting_for(&self, db: usize, key: &[u8]) -> Vec<ClientId> {
        let queue = self.by_key.get(&(db, key.to_vec()));
        queue.map_or_else(Vec::new, |queue| queue.iter().copied().collect())
    }

    /// When the first gives up.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// One who gives up now.
    pub(crate) fn overdue(&self, now: u64) -> Option<ClientId> {
        self.deadlines.first().filter(|(deadline, _)| *deadline <= now).map(|(_, id)| *id)
    }
}
