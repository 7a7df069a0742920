//! Keys that senders give to messages. An **idempotency key** names one message of an app, however
//! often it is sent: who repeats a request that was not answered gets the message of the first.
//!
//! It is not kept by itself. A message's own record says its key, and its owner says it here again
//! after a restart, oldest first.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// The longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;

/// A key that cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// It has no bytes.
    #[error("the key is empty")]
    Empty,
    /// It has too many bytes.
    #[error("the key is {bytes} bytes long: at most {max}")]
    TooLong {
        /// How many it has.
        bytes: usize,
        /// How many it may have.
        max: usize,
    },
    /// It has a control character, which would be lost or worse where keys are shown.
    #[error("the key has a control character")]
    Control,
}

fn check(key: &str, max: usize) -> Result<(), KeyError> {
    match key.len() {
        0 => Err(KeyError::Empty),
        bytes if bytes > max => Err(KeyError::TooLong { bytes, max }),
        _ if key.chars().any(char::is_control) => Err(KeyError::Control),
        _ => Ok(()),
    }
}

/// What [`IdempotencyKeys::claim`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nobody used the key: it names this message now.
    New,
    /// It names another message.
    Taken(u64),
}

#[derive(Debug)]
struct Key {
    app: u16,
    key: Box<str>,
    hash: u64,
    /// None: it was released.
    message: Option<u64>,
    expires_ms: u64,
}

/// Which message an idempotency key names, for a while. What is beyond the bound goes oldest
/// first, of whatever app.
#[derive(Debug)]
pub struct IdempotencyKeys {
    keep_ms: u64,
    keys_max: usize,
    hasher: RandomState,
    /// By age; each has a number, one above that of the key before.
    keys: VecDeque<Key>,
    first: u64,
    /// The hash and the number of each key that was not released.
    numbers: HashTable<(u64, u64)>,
}

impl IdempotencyKeys {
    /// Keys name their messages for `keep_ms`, and the last `keys_max` do.
    pub fn new(keep_ms: u64, keys_max: usize) -> IdempotencyKeys {
        IdempotencyKeys {
            keep_ms,
            keys_max: keys_max.max(1),
            hasher: RandomState::default(),
            keys: VecDeque::new(),
            first: 0,
            numbers: HashTable::new(),
        }
    }

    /// Gives a key of an app to a message, unless it names one already.
    ///
    /// # Errors
    /// It is none: empty, too long, or with control characters.
    pub fn claim(
        &mut self,
        app: u16,
        key: &str,
        message: u64,
        now_ms: u64,
    ) -> Result<Claim, KeyError> {
        check(key, IDEMPOTENCY_KEY_BYTES_MAX)?;
        self.expire(now_ms);
        let hash = self.hasher.hash_one((app, key));
        if let Some(message) = self.get(app, key, now_ms) {
            return Ok(Claim::Taken(message));
        }
        // One that expired behind others that have not yet: the clock was set back between.
        self.release(app, key);
        if self.keys.len() >= self.keys_max {
            self.drop_oldest();
        }
        let number = self.first + self.keys.len() as u64;
        let expires_ms = now_ms.saturating_add(self.keep_ms);
        let key = Key { app, key: key.into(), hash, message: Some(message), expires_ms };
        self.keys.push_back(key);
        self.numbers.insert_unique(hash, (hash, number), |(hash, _)| *hash);
        Ok(Claim::New)
    }

    /// The message that a key names.
    pub fn get(&self, app: u16, key: &str, now_ms: u64) -> Option<u64> {
        let number = self.find(app, key, self.hasher.hash_one((app, key)))?;
        let found = &self.keys[(number - self.first) as usize];
        found.message.filter(|_| now_ms < found.expires_ms)
    }

    /// The key names nothing any longer: its message was refused after all.
    pub fn release(&mut self, app: u16, key: &str) {
        let hash = self.hasher.hash_one((app, key));
        if let Some(number) = self.find(app, key, hash) {
            self.keys[(number - self.first) as usize].message = None;
            self.unlink(hash, number);
        }
    }

    /// Forgets the keys that have expired; how many are left. Each is forgotten once, so calls
    /// cost no more than claims did.
    pub fn expire(&mut self, now_ms: u64) -> usize {
        while self.keys.front().is_some_and(|key| key.expires_ms <= now_ms) {
            self.drop_oldest();
        }
        self.numbers.len()
    }

    fn find(&self, app: u16, key: &str, hash: u64) -> Option<u64> {
        let same = |&(other, number): &(u64, u64)| {
            let entry = &self.keys[(number - self.first) as usize];
            other == hash && entry.app == app && &*entry.key == key
        };
        self.numbers.find(hash, same).map(|(_, number)| *number)
    }

    fn drop_oldest(&mut self) {
        if let Some(key) = self.keys.pop_front() {
            if key.message.is_some() {
                self.unlink(key.hash, self.first);
            }
            self.first += 1;
        }
    }

    fn unlink(&mut self, hash: u64, number: u64) {
        match self.numbers.find_entry(hash, |(_, other)| *other == number) {
            Ok(entry) => drop(entry.remove()),
            Err(_) => panic!("a key that was not released has its number in the table"),
        }
    }
}

#[cfg(test)]
mod tests;
