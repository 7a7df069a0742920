//! The heap's part of an image: which pages are in use, and their bytes.

use std::io::{self, Read, Write};

use super::{CHUNK_BYTES, CLASSES, Chunk, Heap, PAGE_BYTES, Page, map_anon, map_chunk};
use crate::image::{ImageError, In, Out};

const ABSENT: u64 = 0;
const RUNS: u64 = 1;
const WHOLE: u64 = 2;
const COVERED: u64 = 3;

impl Heap {
    pub(crate) fn write_image(&self, out: &mut Out<impl Write>) -> io::Result<()> {
        out.number(self.chunks.len() as u64)?;
        for (number, chunk) in self.chunks.iter().enumerate() {
            match chunk {
                Chunk::Absent => out.number(ABSENT)?,
                Chunk::Covered => out.number(COVERED)?,
                Chunk::Whole { map } => {
                    out.number(WHOLE)?;
                    out.number(map.len() as u64)?;
                }
                Chunk::Runs { taken, .. } => {
                    out.number(RUNS)?;
                    out.number(*taken)?;
                    for bit in (0..64).filter(|bit| taken >> bit & 1 == 1) {
                        self.pages[number * 64 + bit].write_image(out)?;
                    }
                }
            }
        }
        for head in self.heads {
            out.number(u64::from(head))?;
        }
        for number in [self.room_from as u64, self.used_bytes, self.held_bytes] {
            out.number(number)?;
        }
        for chunk in &self.chunks {
            match chunk {
                Chunk::Absent | Chunk::Covered => {}
                Chunk::Whole { map } => out.raw(map)?,
                Chunk::Runs { map, taken } => {
                    for span in spans(*taken) {
                        out.raw(&map[span.start * PAGE_BYTES..span.end * PAGE_BYTES])?;
                    }
                }
            }
        }
        Ok(())
    }

    pub(crate) fn read_image(image: &mut In<impl Read>) -> Result<Heap, ImageError> {
        let full = |_| ImageError::Damaged("there is no memory for it");
        let mut heap = Heap::new();
        let chunks = image.count()?;
        for number in 0..chunks {
            let chunk = match image.number()? {
                ABSENT => Chunk::Absent,
                COVERED => Chunk::Covered,
                WHOLE => {
                    let bytes = image.count()?;
                    if bytes == 0 || bytes.div_ceil(CHUNK_BYTES) > chunks - number {
                        return Err(ImageError::Damaged("a block is longer than its place"));
                    }
                    Chunk::Whole { map: map_anon(bytes).map_err(full)? }
                }
                RUNS => {
                    let taken = image.number()?;
                    heap.pages.resize((number + 1) * 64, Page::NEW);
                    for bit in (0..64).filter(|bit| taken >> bit & 1 == 1) {
                        heap.pages[number * 64 + bit] = Page::read_image(image)?;
                    }
                    Chunk::Runs { map: map_chunk(number).map_err(full)?, taken }
                }
                _ => return Err(ImageError::Damaged("a chunk is of no kind")),
            };
            heap.chunks.push(chunk);
        }
        heap.pages.resize(chunks * 64, Page::NEW);
        for class in 0..CLASSES {
            heap.heads[class] = image.small()?;
        }
        heap.room_from = image.count()?;
        (heap.used_bytes, heap.held_bytes) = (image.number()?, image.number()?);
        heap.check()?;
        for chunk in &mut heap.chunks {
            match chunk {
                Chunk::Absent | Chunk::Covered => {}
                Chunk::Whole { map } => image.raw(map)?,
                Chunk::Runs { map, taken } => {
                    for span in spans(*taken) {
                        image.raw(&mut map[span.start * PAGE_BYTES..span.end * PAGE_BYTES])?;
                    }
                }
            }
        }
        Ok(heap)
    }

    /// Whether what pages say of each other can be: checksums keep out what is no image of ours,
    /// and this what would panic.
    fn check(&self) -> Result<(), ImageError> {
        let damaged = ImageError::Damaged("a page of the heap is not what it can be");
        let within = |page: u32| page == super::NONE || (page as usize) < self.pages.len();
        let pages = self.pages.iter().all(|page| {
            within(page.first)
                && within(page.next)
                && within(page.prev)
                && (page.class as usize) < CLASSES
        });
        match pages && self.heads.iter().all(|head| within(*head)) {
            true => Ok(()),
            false => Err(damaged),
        }
    }
}

/// The pages that are taken, those side by side together.
fn spans(taken: u64) -> impl Iterator<Item = std::ops::Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let left = taken.checked_shr(at)?;
        let start = at + if left == 0 { return None } else { left.trailing_zeros() };
        let length = (taken >> start).trailing_ones();
        at = start + length;
        Some(start as usize..at as usize)
    })
}

impl Page {
    fn write_image(&self, out: &mut Out<impl Write>) -> io::Result<()> {
        let Page { first, class, used, fresh, free, next, prev } = *self;
        let (class, used) = (u32::from(class), u32::from(used));
        for part in [first, class, used, fresh, free, next, prev] {
            out.bytes(&part.to_le_bytes())?;
        }
        Ok(())
    }

    fn read_image(image: &mut In<impl Read>) -> Result<Page, ImageError> {
        let mut parts = [0u32; 7];
        for part in &mut parts {
            *part = crate::image::take_ref(image)?.0;
        }
        let [first, class, used, fresh, free, next, prev] = parts;
        let narrow = |_| ImageError::Damaged("a page of the heap is not what it can be");
        let (class, used) =
            (u8::try_from(class).map_err(narrow)?, u16::try_from(used).map_err(narrow)?);
        Ok(Page { first, class, used, fresh, free, next, prev })
    }
}
