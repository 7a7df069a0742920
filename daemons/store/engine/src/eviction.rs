//! Keys that go when memory is short: `maxmemory` and its policies.
//!
//! Which key has not been used for longest, or is used least, is not kept; some keys are drawn by
//! chance, and of those the one goes that is worst, or one that was found to be worse at an earlier
//! draw. A command makes no more than a few keys go, and what a large value takes is freed in
//! slices, so that memory may stand above its limit for a while: that is no fault as long as it
//! gets less.

use sextant_keyspace::{Frequency, Sample};

use crate::engine::Engine;
use crate::notify::Class;

/// Keys that go at once, at most.
const KEYS_MAX: usize = 32;
/// Elements of values that are freed at a time.
const SHED: usize = 256;
/// Keys that are remembered from earlier draws.
const POOL: usize = 16;

/// Which keys go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Choice {
    #[default]
    None,
    Idle,
    Random,
    /// The one that expires first.
    Soonest,
}

/// A key that may go: the higher its number, the sooner.
struct Candidate {
    badness: u64,
    db: usize,
    key: Vec<u8>,
}

/// When and which keys go.
#[derive(Default)]
pub(crate) struct Eviction {
    /// Bytes that the databases may take; zero is no limit.
    bytes_max: u64,
    choice: Choice,
    /// Only keys that expire.
    volatile: bool,
    samples: usize,
    /// The worst that were drawn, the very worst last.
    pool: Vec<Candidate>,
}

impl Eviction {
    fn offer(&mut self, db: usize, sample: Sample<'_>) {
        let badness = match self.choice {
            Choice::Soonest => u64::MAX - sample.expire.unwrap_or(u64::MAX),
            _ => u64::from(sample.idle),
        };
        let is_known = |known: &Candidate| known.db == db && known.key == sample.key;
        if self.pool.iter().any(is_known) {
            return;
        }
        let at = self.pool.partition_point(|known| known.badness < badness);
        if self.pool.len() == POOL {
            if at == 0 {
                return;
            }
            self.pool.remove(0);
            self.pool.insert(at - 1, Candidate { badness, db, key: sample.key.to_vec() });
        } else {
            self.pool.insert(at, Candidate { badness, db, key: sample.key.to_vec() });
        }
    }
}

impl Engine {
    /// Takes the settings of eviction.
    pub(crate) fn set_eviction(&mut self) {
        let number = |name: &str| self.settings.get(name).parse::<u64>().unwrap_or(0);
        let (bytes_max, samples) = (number("maxmemory"), number("maxmemory-samples") as usize);
        let (factor, decay) = (number("lfu-log-factor") as u32, number("lfu-decay-time") as u32);
        let policy = self.settings.get("maxmemory-policy");
        let choice = match policy.split('-').next_back() {
            Some("lru" | "lfu") => Choice::Idle,
            Some("random") => Choice::Random,
            Some("ttl") => Choice::Soonest,
            _ => Choice::None,
        };
        let volatile = policy.starts_with("volatile");
        let frequency = policy.ends_with("lfu");
        let frequency = frequency.then_some(Frequency { log_factor: factor, decay_minutes: decay });
        self.keys.set_frequency(frequency);
        self.eviction = Eviction { bytes_max, choice, volatile, samples, pool: Vec::new() };
    }

    /// Whether the databases take more than they may.
    #[inline]
    pub(crate) fn is_over_memory(&self) -> bool {
        let max = self.eviction.bytes_max;
        max > 0 && self.keys.memory_bytes() > max
    }

    /// Makes some keys go if memory is short; returns false if it stays so.
    pub(crate) fn evict(&mut self) -> bool {
        let mut gone = 0;
        while self.is_over_memory() {
            // What was deleted already is worth more than what may be.
            if self.keys.shed(SHED) {
                gone += 1;
            } else if self.is_over_memory() && !self.evict_one() {
                return gone > 0;
            }
            gone += 1;
            if gone >= KEYS_MAX {
                break;
            }
        }
        true
    }

    fn evict_one(&mut self) -> bool {
        let victim = match self.eviction.choice {
            Choice::None => None,
            Choice::Random => self.draw(),
            Choice::Idle | Choice::Soonest => self.worst(),
        };
        let Some((db, key)) = victim else { return false };
        let was_there = self.keys.is_there(db, &key);
        if self.keys.delete(db, &key) {
            self.counts.evicted += 1;
            self.notices.note(Class::EVICTED, "evicted", db, &key);
        }
        // A key whose time had come is gone by the look at it.
        was_there
    }

    /// A key by chance, each database's turn being as likely as the next one's.
    fn draw(&mut self) -> Option<(usize, Vec<u8>)> {
        let databases = self.keys.databases();
        let first = self.counts.evicted as usize;
        for at in 0..databases {
            let (db, mut drawn) = ((first + at) % databases, None);
            if self.keys.count(db) > 0 {
                let volatile = self.eviction.volatile;
                self.keys.sample(db, volatile, 1, |sample| drawn = Some(sample.key.to_vec()));
            }
            if let Some(key) = drawn {
                return Some((db, key));
            }
        }
        None
    }

    /// The worst key of those that are drawn now, and of those that were kept.
    fn worst(&mut self) -> Option<(usize, Vec<u8>)> {
        let (samples, volatile) = (self.eviction.samples, self.eviction.volatile);
        for db in 0..self.keys.databases() {
            let keys = if volatile { self.keys.volatile(db) } else { self.keys.count(db) };
            if keys > 0 {
                let eviction = &mut self.eviction;
                self.keys.sample(db, volatile, samples, |sample| eviction.offer(db, sample));
            }
        }
        while let Some(Candidate { db, key, .. }) = self.eviction.pool.pop() {
            let found = self.keys.peek(db, &key);
            let found = found.filter(|found| !volatile || self.keys.expires_at(*found).is_some());
            if found.is_some() {
                return Some((db, key));
            }
        }
        None
    }
}
