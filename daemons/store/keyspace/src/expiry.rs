//! Which key may expire next: a heap of times and hashes. A key is in it once, but for those whose
//! time was made earlier; one that turns out to live longer is put back when it is met.

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

#[derive(Default)]
pub(crate) struct ExpiryQueue {
    queue: BinaryHeap<Reverse<Due>>,
}

impl ExpiryQueue {
    pub(crate) fn push(&mut self, at: u64, hash: u64, db: u32) {
        self.queue.push(Reverse(Due { at, hash, db }));
    }

    pub(crate) fn next(&self) -> Option<u64> {
        self.queue.peek().map(|due| due.0.at)
    }

    pub(crate) fn is_due(&self, now: u64) -> bool {
        self.next().is_some_and(|at| at <= now)
    }

    /// The next one, if its time has come.
    pub(crate) fn pop(&mut self, now: u64) -> Option<Due> {
        if !self.is_due(now) {
            return None;
        }
        self.queue.pop().map(|due| due.0)
    }

    pub(crate) fn write_image(&self, out: &mut Out<impl Write>) -> io::Result<()> {
        out.number(self.queue.len() as u64)?;
        self.queue.iter().try_for_each(|Reverse(due)| {
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
        let all = self.queue.as_slice();
        let from = if all.is_empty() { 0 } else { random.usize(..all.len()) };
        (from..all.len()).chain(0..from).take(count).map(|at| all[at].0)
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        (self.queue.capacity() * size_of::<Due>()) as u64
    }
}
