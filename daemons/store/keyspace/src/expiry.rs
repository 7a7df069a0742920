//! Which key may expire next: a heap of times and hashes. A key is in it once, but for those whose
//! time was made earlier; one that turns out to live longer is put back when it is met.
//!
//! A key that goes before its time leaves its entry behind. When there are many of those, all
//! entries are looked at in turn, a few at a time, and what is about nothing is left out.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Read, Write};

use crate::image::{ImageError, In, Out};

/// A key whose time may have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Due {
    at: u64,
    /// The hash of the key.
    pub(crate) hash: u64,
    /// The identifier of its database.
    pub(crate) db: u32,
}

/// Entries of keys that are no more are swept out when there are this many more than twice the keys.
const STALE_MAX: u64 = 64;

#[derive(Default)]
pub(crate) struct ExpiryQueue {
    queue: BinaryHeap<Reverse<Due>>,
    /// While stale entries are swept out: what was not looked at yet.
    old: BinaryHeap<Reverse<Due>>,
    /// The last that was taken out of `old`.
    swept: Option<Due>,
}

impl ExpiryQueue {
    pub(crate) fn push(&mut self, at: u64, hash: u64, db: u32) {
        self.queue.push(Reverse(Due { at, hash, db }));
    }

    pub(crate) fn next(&self) -> Option<u64> {
        let first = |queue: &BinaryHeap<Reverse<Due>>| queue.peek().map(|due| due.0.at);
        first(&self.queue).into_iter().chain(first(&self.old)).min()
    }

    pub(crate) fn is_due(&self, now: u64) -> bool {
        self.next().is_some_and(|at| at <= now)
    }

    /// The next one, if its time has come.
    pub(crate) fn pop(&mut self, now: u64) -> Option<Due> {
        if !self.is_due(now) {
            return None;
        }
        // The greater of two that are reversed is the one that is due first.
        let from =
            if self.old.peek() > self.queue.peek() { &mut self.old } else { &mut self.queue };
        from.pop().map(|due| due.0)
    }

    /// The next entry of a sweep, which the caller pushes again if its key is there; so many keys
    /// expire. A sweep begins when there are many more entries than keys.
    pub(crate) fn sweep(&mut self, keys: u64) -> Option<Due> {
        if self.old.is_empty() {
            if self.queue.len() as u64 <= 2 * keys + STALE_MAX {
                return None;
            }
            std::mem::swap(&mut self.old, &mut self.queue);
            self.swept = None;
        }
        loop {
            let due = self.old.pop()?.0;
            // Of several that say the same one is enough.
            if self.swept.replace(due) != Some(due) {
                return Some(due);
            }
        }
    }

    pub(crate) fn write_image(&self, out: &mut Out<impl Write>) -> io::Result<()> {
        out.number((self.queue.len() + self.old.len()) as u64)?;
        self.queue.iter().chain(&self.old).try_for_each(|Reverse(due)| {
            [due.at, due.hash, u64::from(due.db)].into_iter().try_for_each(|part| out.number(part))
        })
    }

    pub(crate) fn read_image(&mut self, image: &mut In<impl Read>) -> Result<(), ImageError> {
        let mut queue = Vec::new();
        for _ in 0..image.count()? {
            let (at, hash, db) = (image.number()?, image.number()?, image.small()?);
            queue.push(Reverse(Due { at, hash, db }));
        }
        self.queue = queue.into();
        Ok(())
    }

    /// Entries from one by chance on, up to so many.
    pub(crate) fn sample(
        &self,
        random: &mut fastrand::Rng,
        count: usize,
    ) -> impl Iterator<Item = Due> {
        let (queue, old) = (self.queue.as_slice(), self.old.as_slice());
        let len = queue.len() + old.len();
        let from = if len == 0 { 0 } else { random.usize(..len) };
        let at = move |at: usize| queue.get(at).unwrap_or_else(|| &old[at - queue.len()]).0;
        (from..len).chain(0..from).take(count).map(at)
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        ((self.queue.capacity() + self.old.capacity()) * size_of::<Due>()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_leaves_out_what_is_gone_and_keeps_the_order() {
        let mut expiry = ExpiryQueue::default();
        (0..1000).for_each(|at| expiry.push(at, at % 10, 1));
        assert_eq!(expiry.sweep(500), None);
        // Ten keys are there, each with its last entry's time; the second sweep finds what is double.
        for _ in 0..2000 {
            let Some(due) = expiry.sweep(10) else { break };
            expiry.push(990 + due.hash, due.hash, due.db);
        }
        assert!(expiry.queue.len() + expiry.old.len() <= 84, "few are about nothing");
        let mut times = Vec::new();
        while let Some(due) = expiry.pop(2000) {
            assert_eq!(due.at, 990 + due.hash);
            times.push(due.at);
        }
        assert!(times.is_sorted());
        times.dedup();
        assert_eq!(times, (990..1000).collect::<Vec<_>>());
    }
}
