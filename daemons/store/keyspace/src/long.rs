//! A long string: parts of 64 KiB, so that a change is logged and made where it is, and an answer
//! is given piece by piece without a copy.

use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::Bytes;

use crate::image::{ImageError, In, Out};

/// Bytes of a part; the last may be shorter.
pub const PART_BYTES: usize = 64 << 10;

/// A part of a long string.
#[derive(Clone)]
pub(crate) struct Part {
    /// Whoever is being answered may hold it too; then a change makes a copy.
    pub(crate) bytes: Arc<Vec<u8>>,
    /// The number of the record that has it whole.
    pub(crate) base: u64,
}

/// A string in parts.
#[derive(Clone, Default)]
pub struct Long {
    parts: Vec<Part>,
    len: usize,
}

/// A part as a piece of an answer.
struct Shared(Arc<Vec<u8>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// What a write came to for one part.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// It is new, or has nothing of what it was.
    Whole(usize),
    /// These bytes of it changed.
    Patch(usize, std::ops::Range<usize>),
}

impl Long {
    pub(crate) fn write_image(&self, out: &mut Out<impl Write>) -> io::Result<()> {
        out.number(self.parts.len() as u64)?;
        self.parts.iter().try_for_each(|part| {
            out.number(part.base)?;
            out.string(&part.bytes)
        })
    }

    pub(crate) fn read_image(image: &mut In<impl Read>) -> Result<Long, ImageError> {
        let mut long = Long::default();
        for _ in 0..image.count()? {
            let (base, bytes) = (image.number()?, Arc::new(image.string()?));
            long.parts.push(Part { bytes, base });
        }
        long.count();
        Ok(long)
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The parts in order, to be sent without a copy.
    pub fn pieces(&self) -> impl Iterator<Item = Bytes> + '_ {
        self.parts.iter().map(|part| Bytes::from_owner(Shared(Arc::clone(&part.bytes))))
    }

    /// The parts in order.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> + '_ {
        self.parts.iter().map(|part| part.bytes.as_slice())
    }

    /// Appends the bytes of a range to `to`.
    pub fn copy_range(&self, range: std::ops::Range<usize>, to: &mut Vec<u8>) {
        let mut at = range.start;
        let end = range.end.min(self.len);
        while at < end {
            let part = &self.parts[at / PART_BYTES].bytes;
            let from = at % PART_BYTES;
            let until = part.len().min(from + (end - at));
            to.extend_from_slice(&part[from..until]);
            at += until - from;
        }
    }

    /// The byte at a place before the end.
    pub fn byte(&self, at: usize) -> u8 {
        self.parts[at / PART_BYTES].bytes[at % PART_BYTES]
    }

    pub(crate) fn part(&self, part: usize) -> Option<&Part> {
        self.parts.get(part)
    }

    pub(crate) fn set_base(&mut self, part: usize, base: u64) {
        self.parts[part].base = base;
    }

    /// Writes bytes at a place, with zeros up to there; tells for each part what changed.
    pub(crate) fn write(&mut self, at: usize, bytes: &[u8], mut changed: impl FnMut(Written)) {
        self.fill(at, &mut changed);
        let mut done = 0;
        while done < bytes.len() {
            let (number, from) = ((at + done) / PART_BYTES, (at + done) % PART_BYTES);
            let count = (PART_BYTES - from).min(bytes.len() - done);
            let piece = &bytes[done..done + count];
            if number == self.parts.len() {
                self.parts.push(Part { bytes: Arc::new(piece.to_vec()), base: 0 });
                changed(Written::Whole(number));
            } else {
                let part = Arc::make_mut(&mut self.parts[number].bytes);
                if part.len() < from + count {
                    part.resize(from + count, 0);
                }
                part[from..from + count].copy_from_slice(piece);
                match count == part.len() {
                    true => changed(Written::Whole(number)),
                    false => changed(Written::Patch(number, from..from + count)),
                }
            }
            done += count;
        }
        self.len = self.len.max(at + bytes.len());
    }

    /// Makes it at least so long, with zeros.
    fn fill(&mut self, until: usize, changed: &mut impl FnMut(Written)) {
        while self.len < until {
            let (number, from) = (self.len / PART_BYTES, self.len % PART_BYTES);
            let count = (PART_BYTES - from).min(until - self.len);
            if number == self.parts.len() {
                self.parts.push(Part { bytes: Arc::new(vec![0; count]), base: 0 });
                changed(Written::Whole(number));
            } else {
                Arc::make_mut(&mut self.parts[number].bytes).resize(from + count, 0);
                changed(Written::Patch(number, from..from + count));
            }
            self.len += count;
        }
    }

    /// Sets a part as a log has it. Parts that are not there yet come later.
    pub(crate) fn put_part(&mut self, part: usize, base: u64, bytes: &[u8]) {
        if self.parts.len() <= part {
            let empty = Part { bytes: Arc::new(Vec::new()), base: 0 };
            self.parts.resize(part + 1, empty);
        }
        self.parts[part] = Part { bytes: Arc::new(bytes.to_vec()), base };
        self.count();
    }

    /// Changes a part as a log says. What is said of a part that is not there is of one whose base
    /// comes later.
    pub(crate) fn patch_part(&mut self, part: usize, at: usize, bytes: &[u8]) {
        let Some(part) = self.parts.get_mut(part).filter(|part| part.base != 0) else { return };
        let part = Arc::make_mut(&mut part.bytes);
        let end = (at + bytes.len()).min(PART_BYTES);
        if part.len() < end {
            part.resize(end, 0);
        }
        if let Some(room) = part.get_mut(at..end) {
            room.copy_from_slice(&bytes[..end - at]);
        }
    }

    /// Counts the length anew, after parts were set one by one.
    pub(crate) fn count(&mut self) {
        self.len = self.parts.iter().map(|part| part.bytes.len()).sum();
    }

    /// Whether every part is there, and all but the last are full, as they are but while a log is
    /// read.
    pub(crate) fn is_whole(&self) -> bool {
        let Some((last, full)) = self.parts.split_last() else { return false };
        full.iter().all(|part| part.bytes.len() == PART_BYTES) && !last.bytes.is_empty()
    }

    /// Takes up to `count` parts off the end; returns whether there are more.
    pub(crate) fn shed(&mut self, count: usize) -> bool {
        self.parts.truncate(self.parts.len().saturating_sub(count));
        !self.parts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_whatever_the_parts() {
        let mut random = fastrand::Rng::with_seed(5);
        let (mut long, mut plain) = (Long::default(), Vec::new());
        let mut copy = Long::default();
        for _ in 0..200 {
            let at = random.usize(0..plain.len() + 100_000);
            let bytes: Vec<u8> = (0..random.usize(1..200_000)).map(|_| random.u8(..)).collect();
            if plain.len() < at + bytes.len() {
                plain.resize(at + bytes.len(), 0);
            }
            plain[at..at + bytes.len()].copy_from_slice(&bytes);
            let mut changed = Vec::new();
            long.write(at, &bytes, |written| changed.push(written));
            for written in changed {
                match written {
                    Written::Whole(part) => copy.put_part(part, 1, &long.parts[part].bytes),
                    Written::Patch(part, range) => {
                        copy.patch_part(part, range.start, &long.parts[part].bytes[range]);
                    }
                }
            }
            copy.count();
            if plain.len() > 2_000_000 {
                break;
            }
        }
        assert_eq!((long.len(), copy.len()), (plain.len(), plain.len()));
        assert!(long.slices().flatten().eq(&plain));
        assert!(copy.slices().flatten().eq(&plain), "the changes tell the whole");
        let mut part = Vec::new();
        long.copy_range(70_000..200_000, &mut part);
        assert_eq!(part, plain[70_000..200_000]);
        assert_eq!(long.byte(70_001), plain[70_001]);
    }
}
