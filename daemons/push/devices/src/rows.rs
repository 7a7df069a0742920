//! What is known of each device, in bytes, one behind the other in segments of 64 KiB. An
//! allocation for each would cost a quarter more.
//!
//! ```text
//!   row   len:2  number:4  content…        number is u32::MAX when the row is dead
//!   position   segment:16 ‖ offset:16
//! ```
//!
//! A row that changes is written anew at the end. A segment of which a quarter is dead is emptied:
//! what lives in it moves to the end, at most 64 KiB at once, and so four bytes for each that died.

/// The bytes of a segment.
const SEGMENT_BYTES: usize = 1 << 16;
/// Segments at most: positions have 16 bits for them.
const SEGMENTS_MAX: usize = 1 << 16;
/// What comes before a row's content.
const HEAD: usize = 6;
/// The longest content.
pub(crate) const ROW_BYTES_MAX: usize = 8192;
/// The number of a row that is dead, and the position of no row.
pub(crate) const NONE: u32 = u32::MAX;

const _: () = assert!(ROW_BYTES_MAX + HEAD < SEGMENT_BYTES / 4);

#[derive(Debug)]
struct Segment {
    /// Empty of a segment that is not in use.
    bytes: Box<[u8]>,
    used: u32,
    dead: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Rows {
    segments: Vec<Segment>,
    /// Segments that are not in use.
    spare: Vec<u16>,
    /// Where rows are written; there is none before the first.
    current: u16,
}

fn split(position: u32) -> (usize, usize) {
    ((position >> 16) as usize, (position & 0xFFFF) as usize)
}

impl Rows {
    /// Whether a row and those that it makes move have room.
    pub(crate) fn has_room(&self) -> bool {
        // What moves fills less than a segment, and the row begins another at most.
        self.spare.len() + (SEGMENTS_MAX - self.segments.len()) >= 3
    }

    /// Writes a row, and says where it is.
    ///
    /// # Panics
    /// There is no room.
    pub(crate) fn push(&mut self, number: u32, content: &[u8]) -> u32 {
        assert!(content.len() <= ROW_BYTES_MAX, "what a device may have is bounded");
        let len = HEAD + content.len();
        let fits = |segment: &Segment| segment.used as usize + len <= SEGMENT_BYTES;
        if !self.segments.get(usize::from(self.current)).is_some_and(fits) {
            self.begin();
        }
        let segment = &mut self.segments[usize::from(self.current)];
        let offset = segment.used as usize;
        let row = &mut segment.bytes[offset..offset + len];
        row[..2].copy_from_slice(&(content.len() as u16).to_le_bytes());
        row[2..HEAD].copy_from_slice(&number.to_le_bytes());
        row[HEAD..].copy_from_slice(content);
        segment.used += len as u32;
        u32::from(self.current) << 16 | offset as u32
    }

    fn begin(&mut self) {
        let fresh = Segment { bytes: vec![0; SEGMENT_BYTES].into_boxed_slice(), used: 0, dead: 0 };
        self.current = match self.spare.pop() {
            Some(spare) => {
                self.segments[usize::from(spare)] = fresh;
                spare
            }
            None => {
                assert!(self.segments.len() < SEGMENTS_MAX, "room was asked for before");
                self.segments.push(fresh);
                (self.segments.len() - 1) as u16
            }
        };
    }

    /// The content of a row that lives.
    pub(crate) fn get(&self, position: u32) -> &[u8] {
        let (segment, offset) = split(position);
        let bytes = &self.segments[segment].bytes[offset..];
        &bytes[HEAD..HEAD + usize::from(u16::from_le_bytes([bytes[0], bytes[1]]))]
    }

    /// Ends a row. If that makes others move, `moved` is told their numbers and new positions.
    pub(crate) fn kill(&mut self, position: u32, moved: impl FnMut(u32, u32)) {
        let len = HEAD + self.get(position).len();
        let (at, offset) = split(position);
        let segment = &mut self.segments[at];
        segment.bytes[offset + 2..offset + HEAD].copy_from_slice(&NONE.to_le_bytes());
        segment.dead += len as u32;
        let is_current = at == usize::from(self.current);
        if !is_current && segment.dead * 4 >= segment.used {
            self.empty(at, moved);
        }
    }

    fn empty(&mut self, at: usize, mut moved: impl FnMut(u32, u32)) {
        let gone = Segment { bytes: Box::default(), used: 0, dead: 0 };
        let old = std::mem::replace(&mut self.segments[at], gone);
        let mut rest = &old.bytes[..old.used as usize];
        while let Some((head, behind)) = rest.split_first_chunk::<HEAD>() {
            let [a, b, number @ ..] = *head;
            let (content, next) = behind.split_at(usize::from(u16::from_le_bytes([a, b])));
            let number = u32::from_le_bytes(number);
            if number != NONE {
                moved(number, self.push(number, content));
            }
            rest = next;
        }
        self.spare.push(at as u16);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn rows_stay_themselves_while_others_come_and_go() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut rows = Rows::default();
        let mut live = HashMap::<u32, (u32, Vec<u8>)>::new();
        for _ in 0..200_000 {
            let number = random.u32(..3000);
            if let Some((position, content)) = live.remove(&number) {
                assert_eq!(rows.get(position), content);
                rows.kill(position, |number, to| {
                    live.get_mut(&number).expect("only rows that live move").0 = to;
                });
            }
            if random.u8(..8) != 0 {
                let content = vec![number as u8; random.usize(..200)];
                live.insert(number, (rows.push(number, &content), content));
            }
        }
        for (position, content) in live.values() {
            assert_eq!(rows.get(*position), content);
        }
        let bytes = live.values().map(|(_, content)| HEAD + content.len()).sum::<usize>();
        let used = rows.segments.iter().map(|segment| segment.bytes.len()).sum::<usize>();
        assert!(used < bytes * 4 / 3 + 2 * SEGMENT_BYTES, "{used} for {bytes}");
    }
}
