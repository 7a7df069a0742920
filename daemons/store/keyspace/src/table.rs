//! A table in the heap: the fields of a large hash, the members of a large set. Both parts of an
//! item are byte strings.

use std::collections::HashSet;
use std::hash::BuildHasher;
use std::io::{self, Read, Write};

use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;

use crate::entry::{item_bytes, read_item, write_item_head};
use crate::heap::{Heap, OutOfMemory, Ref};
use crate::image::{ImageError, In, Out};
use crate::index::{Cursor, Index, Place};

/// The heap of an instance, and how its keys are hashed.
pub struct Pool {
    pub(crate) heap: Heap,
    hasher: SeedableRandomState,
    seed: u64,
}

impl Pool {
    /// An empty heap. The seed is secret: who knows it could make keys of one hash.
    pub(crate) fn new(seed: u64) -> Pool {
        let hasher = SeedableRandomState::with_seed(seed, SharedSeed::global_fixed());
        Pool { heap: Heap::new(), hasher, seed }
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    #[inline]
    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    /// The parts of an item.
    pub(crate) fn item(&self, at: Ref) -> (&[u8], &[u8]) {
        let block = self.heap.from(at);
        let (key, value) = read_item(block, 0);
        (&block[key], &block[value])
    }

    fn make_item(&mut self, key: &[u8], value: &[u8]) -> Result<Ref, OutOfMemory> {
        let at = self.heap.alloc(item_bytes(key.len(), value.len()))?;
        self.write_item(at, key, value);
        Ok(at)
    }

    fn write_item(&mut self, at: Ref, key: &[u8], value: &[u8]) {
        let block = self.heap.from_mut(at);
        let from = write_item_head(block, 0, key, value.len());
        block[from..from + value.len()].copy_from_slice(value);
    }
}

/// Items by their keys.
#[derive(Default)]
pub struct Table {
    index: Index,
    /// Bytes of keys and values.
    payload_bytes: u64,
}

impl Table {
    /// A table without items.
    pub fn new() -> Table {
        Table::default()
    }

    pub(crate) fn write_image(&self, out: &mut Out<impl Write>) -> io::Result<()> {
        out.number(self.payload_bytes)?;
        self.index.write_image(out)
    }

    pub(crate) fn read_image(image: &mut In<impl Read>) -> Result<Table, ImageError> {
        let payload_bytes = image.number()?;
        Ok(Table { index: Index::read_image(image)?, payload_bytes })
    }

    /// Items.
    pub fn len(&self) -> u64 {
        self.index.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Bytes of keys and values.
    pub fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    fn find(&self, pool: &Pool, key: &[u8]) -> Option<(Place, Ref)> {
        self.index.find(&pool.heap, pool.hash(key), |at| pool.item(at).0 == key)
    }

    /// Where an item of this key is; it stays there until it gets a value of another length.
    pub fn locate(&self, pool: &Pool, key: &[u8]) -> Option<Ref> {
        self.find(pool, key).map(|(_, at)| at)
    }

    /// The value of a key.
    pub fn get<'p>(&self, pool: &'p Pool, key: &[u8]) -> Option<&'p [u8]> {
        self.find(pool, key).map(|(_, at)| pool.item(at).1)
    }

    /// Whether there is such a key.
    pub fn contains(&self, pool: &Pool, key: &[u8]) -> bool {
        self.find(pool, key).is_some()
    }

    /// Gives a key this value; returns where the item is, and whether it is a new one.
    ///
    /// # Errors
    /// [`OutOfMemory`]; nothing has changed then.
    pub fn insert(
        &mut self,
        pool: &mut Pool,
        key: &[u8],
        value: &[u8],
    ) -> Result<(Ref, bool), OutOfMemory> {
        let Some((place, at)) = self.find(pool, key) else {
            let at = pool.make_item(key, value)?;
            let hash = pool.hash(key);
            if let Err(error) = self.index.insert(&mut pool.heap, hash, at) {
                pool.heap.free(at);
                return Err(error);
            }
            self.payload_bytes += (key.len() + value.len()) as u64;
            return Ok((at, true));
        };
        let old_bytes = pool.item(at).1.len();
        let bytes = item_bytes(key.len(), value.len());
        let at = if Heap::rounded(bytes) == pool.heap.capacity(at) {
            pool.write_item(at, key, value);
            at
        } else {
            let new = pool.make_item(key, value)?;
            self.index.moved(&mut pool.heap, place, new);
            pool.heap.free(at);
            new
        };
        self.payload_bytes = self.payload_bytes + value.len() as u64 - old_bytes as u64;
        Ok((at, false))
    }

    /// Takes an item out; returns whether there was one.
    pub fn remove(&mut self, pool: &mut Pool, key: &[u8]) -> bool {
        let Some((place, at)) = self.find(pool, key) else { return false };
        let (key, value) = pool.item(at);
        self.payload_bytes -= (key.len() + value.len()) as u64;
        self.index.remove(&mut pool.heap, place);
        pool.heap.free(at);
        true
    }

    /// See [`Index::scan`].
    pub fn scan<'p>(
        &self,
        pool: &'p Pool,
        cursor: Cursor,
        count: usize,
        mut each: impl FnMut(&'p [u8], &'p [u8]),
    ) -> Cursor {
        self.index.scan(&pool.heap, cursor, count, |at| {
            let (key, value) = pool.item(at);
            each(key, value);
        })
    }

    /// Calls `each` for every item, once.
    pub fn for_each(&self, pool: &Pool, mut each: impl FnMut(&[u8], &[u8])) {
        let mut cursor = Cursor(0);
        loop {
            cursor = self.scan(pool, cursor, 4096, &mut each);
            if cursor == Cursor(0) {
                return;
            }
        }
    }

    /// All items, each once.
    pub fn items<'a>(&'a self, pool: &'a Pool) -> Items<'a> {
        Items { table: self, pool, next: Some(Cursor(0)), met: Vec::new() }
    }

    /// So many different items by chance, or all if there are no more. The work is that of the
    /// items chosen, or of all if those are a good part of them.
    pub fn choose<'a>(
        &'a self,
        pool: &'a Pool,
        count: usize,
        random: &mut fastrand::Rng,
    ) -> Vec<(&'a [u8], &'a [u8])> {
        /// Items for each one chosen from which on they are drawn one by one.
        const SPARSE: u64 = 3;
        if (count as u64).saturating_mul(SPARSE) > self.len() {
            return choose(self.items(pool), self.len(), count, random);
        }
        let (mut chosen, mut seen) = (Vec::with_capacity(count), HashSet::new());
        // Most are drawn at once, since two thirds of all are left to the last.
        for _ in 0..count.saturating_mul(8) + 1000 {
            if chosen.len() == count {
                return chosen;
            }
            let at = self.index.sample(&pool.heap, || random.u64(..));
            let at = at.expect("a table with items has one");
            if seen.insert(at) {
                chosen.push(pool.item(at));
            }
        }
        choose(self.items(pool), self.len(), count, random)
    }

    /// An item by chance.
    pub fn sample<'p>(
        &self,
        pool: &'p Pool,
        random: impl FnMut() -> u64,
    ) -> Option<(&'p [u8], &'p [u8])> {
        self.index.sample(&pool.heap, random).map(|at| pool.item(at))
    }

    /// Gives up to `count` items back; returns whether there are more. For a table that is given
    /// up.
    pub fn drain(&mut self, pool: &mut Pool, count: usize) -> bool {
        self.index.drain(&mut pool.heap, count, Heap::free)
    }
}

/// The items of a table.
#[derive(Clone)]
pub struct Items<'a> {
    table: &'a Table,
    pool: &'a Pool,
    /// Where those are that are not met yet.
    next: Option<Cursor>,
    met: Vec<Ref>,
}

impl<'a> Iterator for Items<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        const BATCH: usize = 64;
        loop {
            if let Some(at) = self.met.pop() {
                return Some(self.pool.item(at));
            }
            let from = self.next.take()?;
            let met = &mut self.met;
            let to = self.table.index.scan(&self.pool.heap, from, BATCH, |at| met.push(at));
            self.next = (to != Cursor(0)).then_some(to);
        }
    }
}

/// So many of `len` items by chance, in their order; all if there are no more.
pub(crate) fn choose<T>(
    items: impl Iterator<Item = T>,
    len: u64,
    count: usize,
    random: &mut fastrand::Rng,
) -> Vec<T> {
    let (mut left, mut wanted) = (len, (count as u64).min(len));
    let mut chosen = Vec::with_capacity(wanted as usize);
    for item in items {
        if wanted == 0 {
            break;
        }
        if random.u64(..left) < wanted {
            chosen.push(item);
            wanted -= 1;
        }
        left -= 1;
    }
    chosen
}
