//! What is kept of a key's use, and keys by chance: what an instance goes by when its memory is
//! short.
//!
//! ```text
//!   a key's 24 bits    by recency: seconds, of when it was used last
//!                      by frequency: minutes, 16 bits │ counter, 8 bits
//! ```
//!
//! The counter is logarithmic: the higher it stands, the less likely a use makes it higher; and it
//! falls by one for each so many minutes without a use.

use crate::entry::{key_of, read_head, set_access};
use crate::expiry::Due;
use crate::heap::Ref;
use crate::keyspace::{Found, Keyspace};
use crate::object::Object;

/// The counter of a key that is new.
const COUNTER_NEW: u32 = 5;

/// How the uses of a key are counted, by frequency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frequency {
    /// How much harder each next step is.
    pub log_factor: u32,
    /// Minutes after which an unused key's counter falls by one; never, if zero.
    pub decay_minutes: u32,
}

/// A key that was drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Seconds since it was used; by frequency, 255 less its counter.
    pub idle: u32,
    /// When it expires, in milliseconds since 1970.
    pub expire: Option<u64>,
}

impl Keyspace {
    /// From now on uses are kept by frequency, or by recency. What is kept of keys until now is
    /// read in the new way, and is right only once they are used.
    pub fn set_frequency(&mut self, frequency: Option<Frequency>) {
        self.frequency = frequency;
    }

    /// From now on looks at keys count as no use, or do.
    pub fn set_untouched(&mut self, untouched: bool) {
        self.untouched = untouched;
    }

    fn minutes(&self) -> u32 {
        (self.now / 60_000) as u32 & 0xffff
    }

    /// A key's counter, as it stands after it has fallen.
    fn counter(&self, access: u32, frequency: Frequency) -> u32 {
        let passed = self.minutes().wrapping_sub(access >> 8) & 0xffff;
        let fallen = passed.checked_div(frequency.decay_minutes).unwrap_or(0);
        (access & 0xff).saturating_sub(fallen)
    }

    /// What a key that is written is marked with: `before` is what it had, if it was there.
    pub(crate) fn access_written(&self, before: Option<u32>) -> u32 {
        match (self.frequency, before) {
            (None, _) => self.clock,
            (Some(_), Some(access)) => access,
            (Some(_), None) => self.minutes() << 8 | COUNTER_NEW,
        }
    }

    /// Marks a key as used now.
    #[cold]
    pub(crate) fn mark_used(&mut self, at: Ref) {
        if self.untouched {
            return;
        }
        let access = match self.frequency {
            None => self.clock,
            Some(frequency) => {
                let before = read_head(self.pool.heap.from(at)).access;
                let counter = self.counter(before, frequency);
                let above = f64::from(counter.saturating_sub(COUNTER_NEW));
                let chance = 1.0 / (above * f64::from(frequency.log_factor) + 1.0);
                let more = counter < 255 && self.random.f64() < chance;
                self.minutes() << 8 | (counter + u32::from(more))
            }
        };
        set_access(self.pool.heap.from_mut(at), access);
    }

    /// Seconds since a key was used; none if uses are kept by frequency.
    pub fn idle_seconds(&self, found: Found) -> Option<u32> {
        let access = self.head(found).access;
        self.frequency.is_none().then(|| self.clock.wrapping_sub(access) & 0x00ff_ffff)
    }

    /// A key's counter; none if uses are kept by recency.
    pub fn frequency(&self, found: Found) -> Option<u8> {
        let access = self.head(found).access;
        self.frequency.map(|frequency| self.counter(access, frequency) as u8)
    }

    /// Memory that a key and its value take, in bytes, about.
    pub fn memory_of(&self, found: Found) -> u64 {
        const SLOT: usize = 8;
        let block = self.pool.heap.capacity(found.at) + SLOT;
        block as u64 + self.object(found).map_or(0, Object::payload_bytes)
    }

    /// Keys of a database, those whose time has come among them; to count them is not to see them.
    pub fn count(&self, db: usize) -> u64 {
        self.dbs[db].index.len()
    }

    /// Draws up to `count` keys of a database, of those that expire if `volatile`, and calls `each`
    /// with them. A key may be drawn twice.
    pub fn sample(
        &mut self,
        db: usize,
        volatile: bool,
        count: usize,
        mut each: impl FnMut(Sample<'_>),
    ) {
        const TRIES: usize = 4;
        let mut drawn = 0;
        for _ in 0..count * TRIES {
            let at = match volatile {
                false => {
                    let (index, random) = (&self.dbs[db].index, &mut self.random);
                    index.sample(&self.pool.heap, || random.u64(..))
                }
                true => self.sample_volatile(db),
            };
            let Some(at) = at else { continue };
            let block = self.pool.heap.from(at);
            let head = read_head(block);
            let idle = match self.frequency {
                None => self.clock.wrapping_sub(head.access) & 0x00ff_ffff,
                Some(frequency) => 255 - self.counter(head.access, frequency).min(255),
            };
            if !volatile || head.expire.is_some() {
                each(Sample { key: key_of(block), idle, expire: head.expire });
                drawn += 1;
            }
            if drawn == count {
                break;
            }
        }
    }

    fn sample_volatile(&mut self, db: usize) -> Option<Ref> {
        const ENTRIES: usize = 1024;
        let mut random = self.random.clone();
        self.random.u64(..);
        let queued = self
            .expiry
            .sample(&mut random, ENTRIES)
            .find_map(|due| (self.slot_of(due.db) == Some(db)).then(|| self.named_by(due))?);
        if queued.is_some() || self.dbs[db].volatile == 0 {
            return queued;
        }
        // The queue is full of what is gone: a look at the keys themselves.
        let index = &self.dbs[db].index;
        (0..ENTRIES).find_map(|_| {
            let at = index.sample(&self.pool.heap, || random.u64(..))?;
            read_head(self.pool.heap.from(at)).expire.map(|_| at)
        })
    }

    /// The key that an entry of the queue is about, if that is there and expires.
    pub(crate) fn named_by(&self, due: Due) -> Option<Ref> {
        let (heap, pool, db) = (&self.pool.heap, &self.pool, self.slot_of(due.db)?);
        let is_it = |at| pool.hash(key_of(heap.from(at))) == due.hash;
        let (_, at) = self.dbs[db].index.find(heap, due.hash, is_it)?;
        read_head(heap.from(at)).expire.map(|_| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effect::Journal;

    fn keyspace() -> Keyspace {
        let mut keys = Keyspace::new(7, 2, Journal::off());
        keys.set_now(1_700_000_000_000);
        keys
    }

    #[test]
    fn a_counter_rises_with_uses_and_falls_with_time() {
        let mut keys = keyspace();
        keys.set_frequency(Some(Frequency { log_factor: 10, decay_minutes: 1 }));
        keys.set(0, b"k", b"v", None).expect("there is memory");
        let read = |keys: &Keyspace| {
            let found = keys.peek(0, b"k").expect("it is there");
            keys.frequency(found).expect("frequencies are kept")
        };
        assert_eq!(read(&keys), 5);
        for _ in 0..1000 {
            keys.find(0, b"k");
        }
        let after = read(&keys);
        assert!((10..40).contains(&after), "{after}");
        keys.set_now(keys.now() + 3 * 60_000);
        assert_eq!(read(&keys), after - 3);
        keys.set_untouched(true);
        keys.find(0, b"k");
        assert_eq!(read(&keys), after - 3);
    }

    #[test]
    fn keys_are_drawn_of_all_or_of_those_that_expire() {
        let mut keys = keyspace();
        for n in 0..100u32 {
            let expire = (n % 10 == 0).then_some(keys.now() + 1000);
            keys.set(0, format!("k{n}").as_bytes(), b"v", expire).expect("there is memory");
        }
        let (mut all, mut volatile) = (0, 0);
        keys.sample(0, false, 50, |_| all += 1);
        keys.sample(0, true, 50, |sample| {
            assert!(sample.expire.is_some() && sample.key.ends_with(b"0"));
            volatile += 1;
        });
        assert_eq!((all, volatile), (50, 50));
        keys.sample(1, false, 5, |_| panic!("there is none"));
        keys.sample(1, true, 5, |_| panic!("there is none"));
    }
}
