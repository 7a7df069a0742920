//! The memory of one instance for its keys and small values: blocks of bytes, named by where they
//! are rather than by pointers, so that the whole can be written to a file and read back.
//!
//! ```text
//!   chunk 0 (2 MiB)               chunk 1                      chunk 2 .. 4 (one block of 5 MiB)
//!  ┌──────┬──────┬─ ─ ─┬──────┐  ┌─────────────┬─ ─ ─┬──────┐  ┌───────────────────────────────┐
//!  │ run  │ run  │     │ free │  │ run         │     │ free │  │                               │
//!  │ 40 B │ 96 B │     │ page │  │ 8 pages     │     │ page │  │                               │
//!  └──────┴──────┴─ ─ ─┴──────┘  └─────────────┴─ ─ ─┴──────┘  └───────────────────────────────┘
//!     64 pages of 32 KiB            blocks of more than 4 KiB
//! ```
//!
//! A run holds blocks of one size. What is never handed out is never touched, so it costs no
//! memory. A run whose last block comes back is pages again, and a chunk without a run goes back to
//! the system. Blocks are multiples of eight bytes; up to 256 bytes there is a size for each, above
//! that eight for each doubling, so a block wastes an eighth at most.

mod image;

use memmap2::{Advice, MmapMut, MmapOptions};

/// Bytes of a chunk.
const CHUNK_BYTES: usize = 2 << 20;
/// Bytes of a page; 64 of them are a chunk, a bit each.
const PAGE_BYTES: usize = CHUNK_BYTES / 64;
/// Blocks up to this size live in runs of one page, larger ones in runs of eight.
const SMALL_MAX: usize = 4096;
const LONG_RUN_PAGES: usize = 8;
/// Blocks up to this size live in runs; larger ones have chunks of their own.
const RUN_BLOCK_MAX: usize = 32 << 10;
/// Sizes that are multiples of eight.
const FINE_MAX: usize = 256;
const CLASSES: usize = FINE_MAX / 8 + 8 * 7;

const UNIT: usize = 8;
const UNIT_BITS: u32 = 3;
const CHUNK_UNIT_BITS: u32 = (CHUNK_BYTES / UNIT).trailing_zeros();
const PAGE_UNIT_BITS: u32 = (PAGE_BYTES / UNIT).trailing_zeros();
const NONE: u32 = u32::MAX;

/// Where a block is, in units of eight bytes from the start of the heap. Never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ref(pub(crate) u32);

/// There is no memory for a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the instance holds as much as it can address, or the system has no memory")]
pub struct OutOfMemory;

/// What a page is part of.
#[derive(Clone, Copy)]
struct Page {
    /// The first page of its run.
    first: u32,
    /// Of the first page: the class of its blocks.
    class: u8,
    /// Blocks that are handed out.
    used: u16,
    /// Where memory begins that was never handed out, in units from the start of the run.
    fresh: u32,
    /// A free block, in units from the start of the run, whose first bytes name the next; zero is
    /// written as one more than it is, so that zero means none.
    free: u32,
    /// The runs of the class that have a free block, as a list.
    next: u32,
    prev: u32,
}

impl Page {
    const NEW: Page =
        Page { first: 0, class: 0, used: 0, fresh: 0, free: 0, next: NONE, prev: NONE };
}

enum Chunk {
    /// Not mapped.
    Absent,
    /// Runs; a bit for each page that is in one.
    Runs { map: MmapMut, taken: u64 },
    /// One block.
    Whole { map: MmapMut },
    /// A block that began in a chunk before reaches into this one.
    Covered,
}

/// Blocks of bytes.
pub struct Heap {
    chunks: Vec<Chunk>,
    pages: Vec<Page>,
    /// For each class the first run that has a free block.
    heads: [u32; CLASSES],
    /// No chunk of runs before this one has a free page.
    room_from: usize,
    /// Bytes of blocks that are handed out.
    used_bytes: u64,
    /// Bytes of pages that are in runs, and of whole blocks.
    held_bytes: u64,
}

impl Default for Heap {
    fn default() -> Heap {
        Heap::new()
    }
}

/// The class of a block of so many bytes.
fn class_of(bytes: usize) -> usize {
    if bytes <= FINE_MAX {
        return bytes.div_ceil(UNIT).max(1) - 1;
    }
    // 257..=288 is the first above the fine ones.
    let doubling = (bytes - 1).ilog2();
    let step = 1usize << (doubling - 3);
    let within = (bytes - (1 << doubling)).div_ceil(step);
    FINE_MAX / UNIT + (doubling as usize - 8) * 8 + within - 1
}

const fn class_bytes(class: usize) -> usize {
    if class < FINE_MAX / UNIT {
        return (class + 1) * UNIT;
    }
    let above = class - FINE_MAX / UNIT;
    let doubling = 8 + above / 8;
    (1 << doubling) + (above % 8 + 1) * (1 << (doubling - 3))
}

const SIZES: [u32; CLASSES] = {
    let mut sizes = [0; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        sizes[class] = class_bytes(class) as u32;
        class += 1;
    }
    sizes
};

const _: () = assert!(SIZES[CLASSES - 1] as usize == RUN_BLOCK_MAX);

impl Heap {
    /// What a heap can address.
    pub const BYTES_MAX: u64 = (1 << 32) * UNIT as u64;

    /// An empty heap. It takes no memory before the first block.
    pub fn new() -> Heap {
        Heap {
            chunks: Vec::new(),
            pages: Vec::new(),
            heads: [NONE; CLASSES],
            room_from: 0,
            used_bytes: 0,
            held_bytes: 0,
        }
    }

    /// Bytes of blocks that are handed out, each rounded up to its size.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// Bytes that the heap has from the system for blocks, but for pages that were never touched.
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes + (self.pages.len() * size_of::<Page>()) as u64
    }

    /// What a block for so many bytes really takes.
    pub fn rounded(bytes: usize) -> usize {
        if bytes > RUN_BLOCK_MAX {
            return bytes.next_multiple_of(PAGE_BYTES);
        }
        SIZES[class_of(bytes)] as usize
    }

    /// A block of at least so many bytes. What it holds is undefined.
    ///
    /// # Errors
    /// [`OutOfMemory`]; nothing has changed then.
    pub fn alloc(&mut self, bytes: usize) -> Result<Ref, OutOfMemory> {
        if bytes > RUN_BLOCK_MAX {
            return self.alloc_whole(bytes);
        }
        let class = class_of(bytes);
        if self.heads[class] == NONE {
            self.new_run(class)?;
        }
        let first = self.heads[class];
        let size = SIZES[class];
        let page = self.pages[first as usize];
        let start = first << PAGE_UNIT_BITS;
        let (unit, free, fresh) = if page.free > 0 {
            let unit = start + (page.free - 1);
            (unit, self.u32_at(unit), page.fresh)
        } else {
            (start + page.fresh, 0, page.fresh + (size >> UNIT_BITS))
        };
        let page = &mut self.pages[first as usize];
        (page.free, page.fresh, page.used) = (free, fresh, page.used + 1);
        let run_units = run_pages(size as usize) << PAGE_UNIT_BITS;
        if free == 0 && fresh as usize + (size >> UNIT_BITS) as usize > run_units {
            self.unlink(first, class);
        }
        self.used_bytes += u64::from(size);
        Ok(Ref(unit))
    }

    /// Takes a block back.
    pub fn free(&mut self, at: Ref) {
        let chunk = (at.0 >> CHUNK_UNIT_BITS) as usize;
        if let Chunk::Whole { map } = &self.chunks[chunk] {
            let bytes = map.len();
            self.used_bytes -= bytes as u64;
            self.held_bytes -= bytes as u64;
            for covered in chunk..chunk + bytes.div_ceil(CHUNK_BYTES) {
                self.chunks[covered] = Chunk::Absent;
            }
            self.room_from = self.room_from.min(chunk);
            return;
        }
        let first = self.pages[(at.0 >> PAGE_UNIT_BITS) as usize].first;
        let page = self.pages[first as usize];
        let (class, size) = (page.class as usize, SIZES[page.class as usize]);
        let run_units = run_pages(size as usize) << PAGE_UNIT_BITS;
        let was_full = page.free == 0 && (page.fresh + (size >> UNIT_BITS)) as usize > run_units;
        assert!(page.used > 0, "a block is freed once");
        self.used_bytes -= u64::from(size);
        if page.used == 1 {
            if !was_full {
                self.unlink(first, class);
            }
            self.free_run(first, run_pages(size as usize));
            return;
        }
        self.put_u32(at.0, page.free);
        let page = &mut self.pages[first as usize];
        page.free = at.0 - (first << PAGE_UNIT_BITS) + 1;
        page.used -= 1;
        if was_full {
            self.link(first, class);
        }
    }

    /// Bytes that a block has room for.
    pub fn capacity(&self, at: Ref) -> usize {
        match &self.chunks[(at.0 >> CHUNK_UNIT_BITS) as usize] {
            Chunk::Whole { map } => map.len(),
            _ => {
                let first = self.pages[(at.0 >> PAGE_UNIT_BITS) as usize].first;
                SIZES[self.pages[first as usize].class as usize] as usize
            }
        }
    }

    /// Everything from the start of a block to the end of its chunk.
    #[inline]
    pub fn from(&self, at: Ref) -> &[u8] {
        match &self.chunks[(at.0 >> CHUNK_UNIT_BITS) as usize] {
            Chunk::Runs { map, .. } | Chunk::Whole { map } => &map[within(at)..],
            Chunk::Absent | Chunk::Covered => panic!("no block begins here"),
        }
    }

    /// The same, to write to.
    #[inline]
    pub fn from_mut(&mut self, at: Ref) -> &mut [u8] {
        match &mut self.chunks[(at.0 >> CHUNK_UNIT_BITS) as usize] {
            Chunk::Runs { map, .. } | Chunk::Whole { map } => &mut map[within(at)..],
            Chunk::Absent | Chunk::Covered => panic!("no block begins here"),
        }
    }

    fn u32_at(&self, unit: u32) -> u32 {
        let bytes = self.from(Ref(unit))[..4].try_into().expect("four bytes");
        u32::from_le_bytes(bytes)
    }

    fn put_u32(&mut self, unit: u32, value: u32) {
        self.from_mut(Ref(unit))[..4].copy_from_slice(&value.to_le_bytes());
    }

    /// Makes a run of a class, the first of its list.
    fn new_run(&mut self, class: usize) -> Result<(), OutOfMemory> {
        let pages = run_pages(SIZES[class] as usize);
        let (chunk, bit) = self.find_pages(pages)?;
        let first = (chunk * 64 + bit) as u32;
        let Chunk::Runs { taken, .. } = &mut self.chunks[chunk] else {
            panic!("pages are found in chunks of runs");
        };
        *taken |= mask(pages) << bit;
        // The heap's first unit is no block, since its number is zero.
        let fresh = if first == 0 { SIZES[class] >> UNIT_BITS } else { 0 };
        for page in first..first + pages as u32 {
            self.pages[page as usize] = Page { first, class: class as u8, fresh, ..Page::NEW };
        }
        self.held_bytes += (pages * PAGE_BYTES) as u64;
        self.link(first, class);
        Ok(())
    }

    /// Finds so many free pages side by side.
    fn find_pages(&mut self, pages: usize) -> Result<(usize, usize), OutOfMemory> {
        let mut all_full = true;
        for at in self.room_from..self.chunks.len() {
            let Chunk::Runs { taken, .. } = &self.chunks[at] else { continue };
            if let Some(bit) = free_bits(*taken, pages) {
                return Ok((at, bit));
            }
            all_full &= *taken == u64::MAX;
            if all_full {
                self.room_from = at + 1;
            }
        }
        let at = self.free_chunks(1)?;
        self.chunks[at] = Chunk::Runs { map: map_chunk(at)?, taken: 0 };
        self.room_from = self.room_from.min(at);
        Ok((at, 0))
    }

    /// So many chunks side by side that are not in use.
    fn free_chunks(&mut self, count: usize) -> Result<usize, OutOfMemory> {
        let mut length = 0;
        for (at, chunk) in self.chunks.iter().enumerate() {
            length = if matches!(chunk, Chunk::Absent) { length + 1 } else { 0 };
            if length == count {
                return Ok(at + 1 - count);
            }
        }
        let at = self.chunks.len() - length;
        if (at + count) as u64 * CHUNK_BYTES as u64 > Heap::BYTES_MAX {
            return Err(OutOfMemory);
        }
        self.chunks.resize_with(at + count, || Chunk::Absent);
        self.pages.resize(self.chunks.len() * 64, Page::NEW);
        Ok(at)
    }

    fn alloc_whole(&mut self, bytes: usize) -> Result<Ref, OutOfMemory> {
        let bytes = bytes.checked_next_multiple_of(PAGE_BYTES).ok_or(OutOfMemory)?;
        let count = bytes.div_ceil(CHUNK_BYTES);
        if self.chunks.is_empty() {
            // Number zero is no block's.
            self.chunks.push(Chunk::Absent);
            self.pages.resize(64, Page::NEW);
            let map = map_anon(CHUNK_BYTES)?;
            self.chunks[0] = Chunk::Runs { map, taken: 0 };
        }
        let at = self.free_chunks(count)?;
        let map = map_anon(bytes)?;
        self.chunks[at] = Chunk::Whole { map };
        for covered in &mut self.chunks[at + 1..at + count] {
            *covered = Chunk::Covered;
        }
        self.used_bytes += bytes as u64;
        self.held_bytes += bytes as u64;
        Ok(Ref((at as u32) << CHUNK_UNIT_BITS))
    }

    fn free_run(&mut self, first: u32, pages: usize) {
        let (chunk, bit) = (first as usize / 64, first as usize % 64);
        self.held_bytes -= (pages * PAGE_BYTES) as u64;
        let Chunk::Runs { taken, .. } = &mut self.chunks[chunk] else {
            panic!("a run is in a chunk of runs");
        };
        *taken &= !(mask(pages) << bit);
        // The first chunk stays: its first unit is nobody's.
        if *taken == 0 && chunk > 0 {
            self.chunks[chunk] = Chunk::Absent;
        }
        self.room_from = self.room_from.min(chunk);
    }

    fn link(&mut self, first: u32, class: usize) {
        let next = self.heads[class];
        let page = &mut self.pages[first as usize];
        (page.next, page.prev) = (next, NONE);
        if next != NONE {
            self.pages[next as usize].prev = first;
        }
        self.heads[class] = first;
    }

    fn unlink(&mut self, first: u32, class: usize) {
        let Page { next, prev, .. } = self.pages[first as usize];
        match prev {
            NONE => self.heads[class] = next,
            prev => self.pages[prev as usize].next = next,
        }
        if next != NONE {
            self.pages[next as usize].prev = prev;
        }
    }
}

fn within(at: Ref) -> usize {
    ((at.0 & ((1 << CHUNK_UNIT_BITS) - 1)) as usize) << UNIT_BITS
}

fn run_pages(block_bytes: usize) -> usize {
    if block_bytes <= SMALL_MAX { 1 } else { LONG_RUN_PAGES }
}

fn mask(pages: usize) -> u64 {
    u64::MAX >> (64 - pages)
}

/// The first place of so many clear bits side by side.
fn free_bits(taken: u64, count: usize) -> Option<usize> {
    let mut free = !taken;
    for _ in 1..count {
        free &= free >> 1;
    }
    // The shifts brought zeros in at the top, so what is left has room.
    (free != 0).then(|| free.trailing_zeros() as usize)
}

/// Memory for a chunk of runs.
fn map_chunk(number: usize) -> Result<MmapMut, OutOfMemory> {
    let map = map_anon(CHUNK_BYTES)?;
    if number > 0 {
        // Without it there are more misses in the processor's tables, and nothing else. A small
        // instance has its first chunk alone, and touches little of that.
        let _ = map.advise(Advice::HugePage);
    }
    Ok(map)
}

fn map_anon(bytes: usize) -> Result<MmapMut, OutOfMemory> {
    MmapOptions::new().len(bytes).map_anon().map_err(|_| OutOfMemory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_the_smallest_that_has_room() {
        for bytes in 1..=RUN_BLOCK_MAX {
            let class = class_of(bytes);
            assert!(class_bytes(class) >= bytes, "{bytes}");
            assert!(class == 0 || class_bytes(class - 1) < bytes, "{bytes}");
            assert!(class_bytes(class) * 8 <= bytes * 9 + 64, "{bytes} wastes an eighth at most");
        }
    }

    #[test]
    fn blocks_keep_what_was_written_to_them_and_never_overlap() {
        let seed = 7;
        let mut random = fastrand::Rng::with_seed(seed);
        let mut heap = Heap::new();
        let mut held: Vec<(Ref, usize, u8)> = Vec::new();
        for step in 0..60_000u32 {
            if held.len() < 3000 && random.u32(0..100) < 55 {
                let bytes = match random.u32(0..1000) {
                    0 => random.usize(32 << 10..5 << 20),
                    1..50 => random.usize(256..40 << 10),
                    _ => random.usize(1..256),
                };
                let at = heap.alloc(bytes).expect("there is memory");
                assert!(heap.capacity(at) >= bytes);
                assert_eq!(heap.capacity(at), Heap::rounded(bytes));
                heap.from_mut(at)[..bytes].fill(step as u8);
                held.push((at, bytes, step as u8));
            } else if !held.is_empty() {
                let (at, bytes, fill) = held.swap_remove(random.usize(0..held.len()));
                assert!(heap.from(at)[..bytes].iter().all(|byte| *byte == fill), "seed {seed}");
                heap.free(at);
            }
        }
        let used: usize = held.iter().map(|(_, bytes, _)| Heap::rounded(*bytes)).sum();
        assert_eq!(heap.used_bytes(), used as u64);
        for (at, bytes, fill) in held {
            assert!(heap.from(at)[..bytes].iter().all(|byte| *byte == fill), "seed {seed}");
            heap.free(at);
        }
        assert_eq!((heap.used_bytes(), heap.held_bytes), (0, 0));
        let mapped = heap.chunks.iter().filter(|chunk| !matches!(chunk, Chunk::Absent)).count();
        assert!(mapped <= 1, "what is free goes back to the system");
    }
}
