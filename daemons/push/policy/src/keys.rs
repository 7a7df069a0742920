//! Keys that senders give to messages. An **idempotency key** names one message of an app, however
//! often it is sent: who repeats a request that was not answered gets the message of the first. A
//! **collapse key** names what a message is about: on each device the newest takes the place of the
//! one before, unless that was delivered.
//!
//! Neither is kept by itself. A message's own record says its keys, and its owner says them here
//! again after a restart, oldest first.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// The longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;
/// The longest collapse key, in bytes.
pub const COLLAPSE_KEY_BYTES_MAX: usize = 64;

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
    /// As many collapse keys are in use as may be.
    #[error("{max} messages have collapse keys that are in use")]
    Full {
        /// The limit.
        max: usize,
    },
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

#[derive(Clone, Copy, Debug)]
struct Newest {
    device: u32,
    key: u32,
    message: u64,
}

#[derive(Debug)]
struct Name {
    key: Box<str>,
    hash: u64,
    uses: u32,
}

/// The newest undelivered message of each device and collapse key, 16 bytes each and a little for
/// the table; a key is held once, however many devices have a message with it.
#[derive(Debug)]
pub struct CollapseKeys {
    entries_max: usize,
    hasher: RandomState,
    newest: HashTable<Newest>,
    names: Vec<Name>,
    free_names: Vec<u32>,
    by_name: HashTable<(u64, u32)>,
}

impl CollapseKeys {
    /// At most `entries_max` messages at once have keys that are in use.
    pub fn new(entries_max: usize) -> CollapseKeys {
        CollapseKeys {
            entries_max,
            hasher: RandomState::default(),
            newest: HashTable::new(),
            names: Vec::new(),
            free_names: Vec::new(),
            by_name: HashTable::new(),
        }
    }

    /// A message with a key is queued for a device; tells the one whose place it takes.
    ///
    /// # Errors
    /// The key is none, or there are too many: the message replaces none, and none replaces it.
    pub fn put(&mut self, device: u32, key: &str, message: u64) -> Result<Option<u64>, KeyError> {
        check(key, COLLAPSE_KEY_BYTES_MAX)?;
        let named = self.name(key);
        if named.is_none() && self.newest.len() >= self.entries_max {
            return Err(KeyError::Full { max: self.entries_max });
        }
        let number = named.unwrap_or_else(|| self.add_name(key));
        let hasher = &self.hasher;
        let full = self.newest.len() >= self.entries_max;
        let slot = self.newest.entry(
            hasher.hash_one((device, number)),
            |entry| (entry.device, entry.key) == (device, number),
            |entry| hasher.hash_one((entry.device, entry.key)),
        );
        match slot {
            Entry::Occupied(mut entry) => {
                let before = std::mem::replace(&mut entry.get_mut().message, message);
                Ok((before != message).then_some(before))
            }
            Entry::Vacant(_) if full => Err(KeyError::Full { max: self.entries_max }),
            Entry::Vacant(entry) => {
                entry.insert(Newest { device, key: number, message });
                self.names[number as usize].uses += 1;
                Ok(None)
            }
        }
    }

    /// A message is queued no longer: it was delivered, dropped, or has expired. Tells whether it
    /// was the newest with its key.
    pub fn done(&mut self, device: u32, key: &str, message: u64) -> bool {
        let Some(number) = self.name(key) else { return false };
        let found = self.newest.find_entry(self.hasher.hash_one((device, number)), |entry| {
            (entry.device, entry.key, entry.message) == (device, number, message)
        });
        let Ok(entry) = found else { return false };
        entry.remove();
        self.release_name(number);
        true
    }

    /// The newest message of a device with a key.
    pub fn get(&self, device: u32, key: &str) -> Option<u64> {
        let number = self.name(key)?;
        let same = |entry: &Newest| (entry.device, entry.key) == (device, number);
        self.newest.find(self.hasher.hash_one((device, number)), same).map(|entry| entry.message)
    }

    /// Messages that have keys.
    pub fn len(&self) -> usize {
        self.newest.len()
    }

    /// Whether no message has a key.
    pub fn is_empty(&self) -> bool {
        self.newest.is_empty()
    }

    fn name(&self, key: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(key);
        let same = |&(_, number): &(u64, u32)| &*self.names[number as usize].key == key;
        self.by_name.find(hash, same).map(|(_, number)| *number)
    }

    fn add_name(&mut self, key: &str) -> u32 {
        let hash = self.hasher.hash_one(key);
        let name = Name { key: key.into(), hash, uses: 0 };
        let number = match self.free_names.pop() {
            Some(number) => {
                self.names[number as usize] = name;
                number
            }
            None => {
                self.names.push(name);
                u32::try_from(self.names.len() - 1).expect("names are no more than entries")
            }
        };
        self.by_name.insert_unique(hash, (hash, number), |(hash, _)| *hash);
        number
    }

    fn release_name(&mut self, number: u32) {
        let name = &mut self.names[number as usize];
        name.uses -= 1;
        if name.uses > 0 {
            return;
        }
        let hash = name.hash;
        name.key = "".into();
        match self.by_name.find_entry(hash, |(_, other)| *other == number) {
            Ok(entry) => drop(entry.remove()),
            Err(_) => panic!("a name in use is in the table"),
        }
        self.free_names.push(number);
    }
}

#[cfg(test)]
mod tests;
