//! Finds blocks by the hash of their keys: extendible hashing over pages of 4 KiB that live in the
//! heap themselves.
//!
//! ```text
//!   hash   63 ───────── 38 │ 37 ── 6 │ 5 ──── 0
//!          top bits: which │         │ bucket   the slot keeps both in its upper half,
//!          page, by as     │         │ within   its lower half is where the block is
//!          many as needed  │         │ the page
//!
//!   directory ──► page: 64 buckets of eight slots, a cache line each
//!                 ┌──────────┬──────┬─────────────────┐
//!                 │ overflow │ head │ 6 slots         │ bucket 0
//!                 ├──────────┴──────┴─────────────────┤
//!                 │ 8 slots                           │ bucket 1 … 63
//!                 └───────────────────────────────────┘
//! ```
//!
//! What finds its bucket full goes to the next, and the bucket's overflow bit says that something
//! did; a removal moves such entries back, so the bits tell the truth. A page that is seven eighths
//! full becomes two. So no operation is longer than the work on a page, however many entries there
//! are, but for the directory, which doubles: four bytes for each few hundred entries.
//!
//! Splitting needs no key: a slot has the bits. A [`Cursor`] names a place in the space of hashes,
//! not in memory, so a scan that goes on for days sees everything that was there all the time,
//! whatever splits meanwhile.

use std::io::{self, Read, Write};

use crate::heap::{Heap, OutOfMemory, Ref};
use crate::image::{ImageError, In, Out, put_ref, take_ref};
use crate::prefetch::prefetch;

const PAGE_BYTES: usize = 4096;
const BUCKETS: usize = 64;
const SLOTS: usize = 8;
const BUCKET_BYTES: usize = SLOTS * 8;
/// Slots that the page's own words take.
const WORDS: usize = 2;
/// A page with more entries is split.
const ENTRIES_MAX: u32 = (BUCKETS * SLOTS) as u32 * 7 / 8;
/// Top bits of the hash that a slot keeps.
const TOP_BITS: u32 = 26;
const BUCKET_BITS: u32 = BUCKETS.trailing_zeros();

/// What a slot keeps of a hash: its top bits, and the bucket.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Tag(u32);

impl Tag {
    fn new(hash: u64) -> Tag {
        let top = (hash >> (64 - TOP_BITS)) as u32;
        Tag(top << BUCKET_BITS | (hash as u32 & (BUCKETS as u32 - 1)))
    }

    fn bucket(self) -> usize {
        (self.0 & (BUCKETS as u32 - 1)) as usize
    }

    fn top(self) -> u32 {
        self.0 >> BUCKET_BITS
    }
}

/// Where an entry stands, until the index changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    page: Ref,
    /// Slot in the page, bucket after bucket.
    slot: u16,
}

/// Where a scan goes on. Zero is where it begins, and where it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Cursor(pub u64);

/// Entries by hash.
#[derive(Default)]
pub(crate) struct Index {
    /// Pages by the top bits of the hash; as many as two to the power of `depth`.
    directory: Vec<Ref>,
    depth: u32,
    len: u64,
}

impl Index {
    /// An index without entries, and without memory.
    pub(crate) fn new() -> Index {
        Index::default()
    }

    /// Entries.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn write_image(&self, out: &mut Out<impl Write>) -> io::Result<()> {
        out.number(u64::from(self.depth))?;
        out.number(self.len)?;
        out.number(self.directory.len() as u64)?;
        self.directory.iter().try_for_each(|page| put_ref(out, *page))
    }

    pub(crate) fn read_image(image: &mut In<impl Read>) -> Result<Index, ImageError> {
        let (depth, len) = (image.small()?, image.number()?);
        let count = image.count()?;
        if count != 0 && (depth > TOP_BITS || count != 1 << depth) {
            return Err(ImageError::Damaged("an index has another depth than its directory"));
        }
        let mut directory = Vec::new();
        for _ in 0..count {
            directory.push(take_ref(image)?);
        }
        Ok(Index { directory, depth, len })
    }

    /// Memory outside of the heap, in bytes.
    pub(crate) fn directory_bytes(&self) -> usize {
        self.directory.capacity() * size_of::<Ref>()
    }

    fn page_of(&self, hash: u64) -> Option<Ref> {
        let at = if self.depth == 0 { 0 } else { (hash >> (64 - self.depth)) as usize };
        self.directory.get(at).copied()
    }

    /// Finds the entry of a hash for which `is_it` holds.
    #[inline]
    pub(crate) fn find(
        &self,
        heap: &Heap,
        hash: u64,
        mut is_it: impl FnMut(Ref) -> bool,
    ) -> Option<(Place, Ref)> {
        let page = self.page_of(hash)?;
        let bytes = Page(&heap.from(page)[..PAGE_BYTES]);
        let tag = Tag::new(hash);
        let mut bucket = tag.bucket();
        for _ in 0..BUCKETS {
            for (at, word) in bytes.bucket(bucket).enumerate() {
                if (word >> 32) as u32 == tag.0 && word as u32 != 0 && is_it(Ref(word as u32)) {
                    let slot = (bucket * SLOTS + first_slot(bucket) + at) as u16;
                    return Some((Place { page, slot }, Ref(word as u32)));
                }
            }
            if bytes.overflow() & (1 << bucket) == 0 {
                return None;
            }
            bucket = (bucket + 1) % BUCKETS;
        }
        None
    }

    /// Asks for the memory of a hash's bucket.
    #[inline]
    pub(crate) fn prefetch_bucket(&self, heap: &Heap, hash: u64) {
        if let Some(page) = self.page_of(hash) {
            prefetch(&heap.from(page)[Tag::new(hash).bucket() * BUCKET_BYTES..]);
            prefetch(heap.from(page));
        }
    }

    /// Asks for the block of the entry that a hash's bucket has, if it has one: the bucket itself
    /// should have been asked for.
    #[inline]
    pub(crate) fn prefetch_block(&self, heap: &Heap, hash: u64) {
        const LINE_BYTES: usize = 64;
        let Some(page) = self.page_of(hash) else { return };
        let tag = Tag::new(hash);
        let page = Page(&heap.from(page)[..PAGE_BYTES]);
        let mut words = page.bucket(tag.bucket());
        if let Some(word) = words.find(|word| (word >> 32) as u32 == tag.0 && *word as u32 != 0) {
            let block = heap.from(Ref(word as u32));
            prefetch(block);
            prefetch(block.get(LINE_BYTES..).unwrap_or(block));
        }
    }

    /// Says that an entry's block has moved.
    pub(crate) fn moved(&mut self, heap: &mut Heap, place: Place, to: Ref) {
        let mut page = PageMut(&mut heap.from_mut(place.page)[..PAGE_BYTES]);
        let word = page.as_ref().word(place.slot as usize);
        page.put(place.slot as usize, word >> 32 << 32 | u64::from(to.0));
    }

    /// Adds an entry. The caller knows that there is none with its key.
    ///
    /// # Errors
    /// [`OutOfMemory`]; nothing has changed then.
    pub(crate) fn insert(
        &mut self,
        heap: &mut Heap,
        hash: u64,
        block: Ref,
    ) -> Result<Place, OutOfMemory> {
        if self.directory.is_empty() {
            let page = heap.alloc(PAGE_BYTES)?;
            PageMut(&mut heap.from_mut(page)[..PAGE_BYTES]).clear(0);
            self.directory.push(page);
        }
        for _ in 0..TOP_BITS {
            let page = self.page_of(hash).expect("there is a directory");
            let count = Page(&heap.from(page)[..PAGE_BYTES]).count();
            if count < ENTRIES_MAX || !self.split(heap, hash, page)? {
                break;
            }
        }
        let page = self.page_of(hash).expect("there is a directory");
        let mut bytes = PageMut(&mut heap.from_mut(page)[..PAGE_BYTES]);
        let slot = bytes.insert(Tag::new(hash), block)?;
        self.len += 1;
        Ok(Place { page, slot: slot as u16 })
    }

    /// Makes two pages of one; returns whether it could. It cannot where a slot keeps no further
    /// bit, which takes more entries of like hashes than memory has room for.
    fn split(&mut self, heap: &mut Heap, hash: u64, old: Ref) -> Result<bool, OutOfMemory> {
        let depth = Page(&heap.from(old)[..PAGE_BYTES]).depth();
        if depth == TOP_BITS {
            return Ok(false);
        }
        let new = heap.alloc(PAGE_BYTES)?;
        if depth == self.depth {
            self.directory = self.directory.iter().flat_map(|page| [*page, *page]).collect();
            self.depth += 1;
        }
        let mut words = [0u64; BUCKETS * SLOTS];
        let page = Page(&heap.from(old)[..PAGE_BYTES]);
        for (at, word) in words.iter_mut().enumerate().skip(WORDS) {
            *word = page.word(at);
        }
        let bit = TOP_BITS - 1 - depth;
        for (at, side) in [(old, 0), (new, 1)] {
            let mut page = PageMut(&mut heap.from_mut(at)[..PAGE_BYTES]);
            page.clear(depth + 1);
            for word in &words[WORDS..] {
                let tag = Tag((word >> 32) as u32);
                if *word as u32 != 0 && tag.top() >> bit & 1 == side {
                    page.insert(tag, Ref(*word as u32)).expect("half of a page has room");
                }
            }
        }
        // The pages' places in the directory: those of the hash's first `depth` bits, the second
        // half of them the new page's.
        let span = 1usize << (self.depth - depth);
        let prefix = if depth == 0 { 0 } else { (hash >> (64 - depth)) as usize };
        let from = prefix * span;
        for place in &mut self.directory[from + span / 2..from + span] {
            *place = new;
        }
        Ok(true)
    }

    /// Takes an entry out.
    pub(crate) fn remove(&mut self, heap: &mut Heap, place: Place) {
        let mut page = PageMut(&mut heap.from_mut(place.page)[..PAGE_BYTES]);
        page.remove(place.slot as usize);
        self.len -= 1;
    }

    /// Calls `each` for entries from a place in the space of hashes on, at least `count` of them
    /// or up to the end, and tells where to go on. An entry that is there from a scan's beginning
    /// to its end is met at least once; one that comes or goes meanwhile may be.
    pub(crate) fn scan(
        &self,
        heap: &Heap,
        cursor: Cursor,
        count: usize,
        mut each: impl FnMut(Ref),
    ) -> Cursor {
        let (mut prefix, mut bucket) = cursor_parts(cursor);
        let mut met = 0;
        if self.directory.is_empty() {
            return Cursor(0);
        }
        // Empty buckets count too, so that a call's work has a limit.
        let (mut looked, looks) = (0, count.saturating_mul(10).saturating_add(BUCKETS));
        loop {
            let page = self.directory[(prefix >> (TOP_BITS - self.depth)) as usize];
            let bytes = Page(&heap.from(page)[..PAGE_BYTES]);
            while bucket < BUCKETS as u32 {
                met += bytes.homed(bucket as usize, &mut each);
                (bucket, looked) = (bucket + 1, looked + 1);
                if met >= count || looked > looks {
                    break;
                }
            }
            if bucket == BUCKETS as u32 {
                let span = 1u32 << (TOP_BITS - bytes.depth());
                prefix = (prefix & !(span - 1)) + span;
                bucket = 0;
                if prefix >> TOP_BITS != 0 {
                    return Cursor(0);
                }
            }
            if met >= count || looked > looks {
                return Cursor(u64::from(prefix) << BUCKET_BITS | u64::from(bucket));
            }
        }
    }

    /// An entry by chance: `random` gives numbers.
    pub(crate) fn sample(&self, heap: &Heap, mut random: impl FnMut() -> u64) -> Option<Ref> {
        if self.len == 0 {
            return None;
        }
        loop {
            // Pages differ little in how full they are, so that each entry has about the same
            // chance; a slot without an entry is drawn again.
            let page = self.page_of(random())?;
            let bytes = Page(&heap.from(page)[..PAGE_BYTES]);
            for _ in 0..64 {
                let slot = random() as usize % (BUCKETS * SLOTS);
                let word = if slot < WORDS { 0 } else { bytes.word(slot) };
                if word as u32 != 0 {
                    return Some(Ref(word as u32));
                }
            }
            if bytes.count() > 0 {
                let from = random() as usize % (BUCKETS * SLOTS);
                let slots = (from..BUCKETS * SLOTS).chain(0..from).filter(|slot| *slot >= WORDS);
                let word = slots.map(|slot| bytes.word(slot)).find(|word| *word as u32 != 0);
                return word.map(|word| Ref(word as u32));
            }
        }
    }

    /// Takes entries out, up to `count` of them, and calls `each` with their blocks; returns
    /// whether there are more. Nothing else may be done with the index any more: it is for an index
    /// that is given up, a little at a time.
    pub(crate) fn drain(
        &mut self,
        heap: &mut Heap,
        count: usize,
        mut each: impl FnMut(&mut Heap, Ref),
    ) -> bool {
        let mut taken = 0;
        while taken < count {
            let Some(page) = self.directory.pop() else { break };
            // A page stands in the directory several times, side by side.
            if self.directory.last() == Some(&page) {
                continue;
            }
            for slot in WORDS..BUCKETS * SLOTS {
                let word = Page(&heap.from(page)[..PAGE_BYTES]).word(slot);
                if word as u32 != 0 {
                    each(heap, Ref(word as u32));
                    taken += 1;
                }
            }
            heap.free(page);
        }
        self.len = self.len.saturating_sub(taken as u64);
        !self.directory.is_empty()
    }
}

fn cursor_parts(cursor: Cursor) -> (u32, u32) {
    let prefix = (cursor.0 >> BUCKET_BITS) as u32 & ((1 << TOP_BITS) - 1);
    (prefix, cursor.0 as u32 & (BUCKETS as u32 - 1))
}

/// The first slot of a bucket that holds entries.
fn first_slot(bucket: usize) -> usize {
    if bucket == 0 { WORDS } else { 0 }
}

#[derive(Clone, Copy)]
struct Page<'a>(&'a [u8]);

impl<'a> Page<'a> {
    #[inline]
    fn word(self, slot: usize) -> u64 {
        let bytes = self.0[slot * 8..slot * 8 + 8].try_into().expect("eight bytes");
        u64::from_le_bytes(bytes)
    }

    fn overflow(self) -> u64 {
        self.word(0)
    }

    fn count(self) -> u32 {
        self.word(1) as u32
    }

    fn depth(self) -> u32 {
        (self.word(1) >> 32) as u32
    }

    #[inline]
    fn bucket(self, bucket: usize) -> impl Iterator<Item = u64> + 'a {
        let from = bucket * BUCKET_BYTES;
        self.0[from..from + BUCKET_BYTES]
            .chunks_exact(8)
            .map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes")))
            .skip(first_slot(bucket))
    }

    /// Entries whose own bucket this is, wherever they stand.
    fn homed(self, home: usize, each: &mut impl FnMut(Ref)) -> usize {
        let mut met = 0;
        let mut bucket = home;
        for _ in 0..BUCKETS {
            for word in self.bucket(bucket) {
                if word as u32 != 0 && Tag((word >> 32) as u32).bucket() == home {
                    each(Ref(word as u32));
                    met += 1;
                }
            }
            if self.overflow() & (1 << bucket) == 0 {
                break;
            }
            bucket = (bucket + 1) % BUCKETS;
        }
        met
    }
}

struct PageMut<'a>(&'a mut [u8]);

impl PageMut<'_> {
    fn as_ref(&self) -> Page<'_> {
        Page(self.0)
    }

    fn put(&mut self, slot: usize, word: u64) {
        self.0[slot * 8..slot * 8 + 8].copy_from_slice(&word.to_le_bytes());
    }

    fn clear(&mut self, depth: u32) {
        self.0.fill(0);
        self.put(1, u64::from(depth) << 32);
    }

    fn insert(&mut self, tag: Tag, block: Ref) -> Result<usize, OutOfMemory> {
        let mut bucket = tag.bucket();
        for _ in 0..BUCKETS {
            let from = bucket * SLOTS;
            let free = (from + first_slot(bucket)..from + SLOTS)
                .find(|slot| self.as_ref().word(*slot) as u32 == 0);
            if let Some(slot) = free {
                self.put(slot, u64::from(tag.0) << 32 | u64::from(block.0));
                let head = self.as_ref().word(1);
                self.put(1, head + 1);
                return Ok(slot);
            }
            let overflow = self.as_ref().overflow();
            self.put(0, overflow | 1 << bucket);
            bucket = (bucket + 1) % BUCKETS;
        }
        Err(OutOfMemory)
    }

    /// Takes an entry out, and moves those back that had gone past its bucket.
    fn remove(&mut self, slot: usize) {
        assert!(self.as_ref().word(slot) as u32 != 0, "an entry is removed once");
        let head = self.as_ref().word(1);
        self.put(1, head - 1);
        let mut hole = slot;
        loop {
            self.put(hole, 0);
            let bucket = hole / SLOTS;
            if self.as_ref().overflow() & (1 << bucket) == 0 {
                return;
            }
            match self.past(bucket) {
                Some(from) => {
                    let word = self.as_ref().word(from);
                    self.put(hole, word);
                    hole = from;
                }
                None => {
                    let overflow = self.as_ref().overflow();
                    self.put(0, overflow & !(1 << bucket));
                    return;
                }
            }
        }
    }

    /// An entry that stands behind a bucket, and whose own is this one or before it.
    fn past(&self, bucket: usize) -> Option<usize> {
        let page = self.as_ref();
        for ahead in 1..BUCKETS {
            let at = (bucket + ahead) % BUCKETS;
            for slot in at * SLOTS + first_slot(at)..(at + 1) * SLOTS {
                let word = page.word(slot);
                let home = Tag((word >> 32) as u32).bucket();
                // How far it is from home, and how far this bucket is behind.
                if word as u32 != 0 && (at + BUCKETS - home) % BUCKETS >= ahead {
                    return Some(slot);
                }
            }
            if page.overflow() & (1 << at) == 0 {
                return None;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Entries are blocks of eight bytes that hold their hash.
    fn make(heap: &mut Heap, hash: u64) -> Ref {
        let at = heap.alloc(8).expect("there is memory");
        heap.from_mut(at)[..8].copy_from_slice(&hash.to_le_bytes());
        at
    }

    fn hash_of(heap: &Heap, at: Ref) -> u64 {
        u64::from_le_bytes(heap.from(at)[..8].try_into().expect("eight bytes"))
    }

    fn find(index: &Index, heap: &Heap, hash: u64) -> Option<(Place, Ref)> {
        index.find(heap, hash, |at| hash_of(heap, at) == hash)
    }

    /// With few bits of difference buckets and pages are as uneven as can be.
    fn uneven(random: &mut fastrand::Rng) -> u64 {
        let hash = random.u64(..);
        match random.u8(0..3) {
            0 => hash & !0x3f | u64::from(random.u8(0..3)),
            1 => hash >> 20,
            _ => hash,
        }
    }

    #[test]
    fn an_index_holds_what_a_map_holds() {
        for seed in 0..8 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut heap, mut index, mut map) = (Heap::new(), Index::new(), HashMap::new());
            for _ in 0..40_000 {
                let hash = uneven(&mut random);
                if map.contains_key(&hash) {
                    continue;
                }
                if random.u32(0..10) < 6 {
                    let at = make(&mut heap, hash);
                    index.insert(&mut heap, hash, at).expect("there is memory");
                    map.insert(hash, at);
                } else if let Some(gone) = map.keys().next().copied() {
                    let (place, at) = find(&index, &heap, gone).expect("it is in the map");
                    index.remove(&mut heap, place);
                    heap.free(at);
                    map.remove(&gone);
                    assert_eq!(find(&index, &heap, gone), None, "seed {seed}");
                }
                assert_eq!(index.len(), map.len() as u64);
            }
            for (hash, at) in &map {
                let (_, found) = find(&index, &heap, *hash).expect("it is there");
                assert_eq!(found, *at, "seed {seed}");
            }
            let mut drained = 0;
            while index.drain(&mut heap, 100, |heap, at| {
                heap.free(at);
                drained += 1;
            }) {}
            assert_eq!(drained, map.len());
            assert_eq!(heap.used_bytes(), 0, "nothing is left of an index that is given up");
        }
    }

    #[test]
    fn a_scan_meets_what_is_there_from_its_beginning_to_its_end() {
        for seed in 0..8 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut heap, mut index) = (Heap::new(), Index::new());
            let stays: Vec<u64> = (0..3000).map(|_| uneven(&mut random)).collect();
            let mut passing = Vec::new();
            for hash in &stays {
                let at = make(&mut heap, *hash);
                index.insert(&mut heap, *hash, at).expect("there is memory");
            }
            let mut met = std::collections::HashSet::new();
            let mut cursor = Cursor(0);
            let mut calls = 0;
            loop {
                cursor = index.scan(&heap, cursor, 10, |at| {
                    met.insert(hash_of(&heap, at));
                });
                calls += 1;
                assert!(calls < 100_000, "a scan ends");
                if cursor == Cursor(0) {
                    break;
                }
                // It splits and shrinks meanwhile.
                for _ in 0..40 {
                    let hash = uneven(&mut random);
                    if find(&index, &heap, hash).is_none() && passing.len() < 20_000 {
                        let at = make(&mut heap, hash);
                        index.insert(&mut heap, hash, at).expect("there is memory");
                        passing.push(hash);
                    }
                    if random.bool() && !passing.is_empty() {
                        let gone = passing.swap_remove(random.usize(0..passing.len()));
                        let (place, at) = find(&index, &heap, gone).expect("it is there");
                        index.remove(&mut heap, place);
                        heap.free(at);
                    }
                }
            }
            assert!(stays.iter().all(|hash| met.contains(hash)), "seed {seed}");
        }
    }

    #[test]
    fn chance_meets_every_entry() {
        let (mut heap, mut index) = (Heap::new(), Index::new());
        let mut random = fastrand::Rng::with_seed(3);
        assert_eq!(index.sample(&heap, || 1), None);
        for _ in 0..20 {
            let hash = random.u64(..);
            let at = make(&mut heap, hash);
            index.insert(&mut heap, hash, at).expect("there is memory");
        }
        let mut met = std::collections::HashSet::new();
        for _ in 0..2000 {
            met.insert(index.sample(&heap, || random.u64(..)).expect("there are entries"));
        }
        assert_eq!(met.len(), 20);
    }

    #[test]
    fn entries_of_one_hash_have_a_limit_and_no_panic() {
        let (mut heap, mut index) = (Heap::new(), Index::new());
        let mut inserted = 0u64;
        for n in 0..600 {
            let at = make(&mut heap, n);
            inserted += u64::from(index.insert(&mut heap, 42, at).is_ok());
        }
        assert_eq!((inserted, index.len()), (510, 510));
    }
}
