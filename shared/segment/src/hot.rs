//! The newest bytes of a log, in memory of its own: what was written stays until so many newer
//! bytes have been written. A read of them is neither a page fault nor an operation.
//!
//! ```text
//!    ── on disk alone ──┬───────── hot: at most hot_bytes ─────────┬── waiting ──► tail
//!       read by fetch   │ run │ run │ run │ …                 │ run │  commit lane
//!                       └─ one written batch each, oldest first ───┘
//! ```
//!
//! Why not the page cache under the log's map: it may evict a page at any moment, and then reading
//! it stalls the core, and kills the process where the disk has a bad sector. Locking it takes
//! `RLIMIT_MEMLOCK` (8 MiB by default), and pins as much memory as this does. The batches are
//! there anyway, filled by the appends; keeping them costs no copy.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// What keeping a run takes beside its bytes, about.
const RUN_OVERHEAD_BYTES: usize = 96;

struct Run {
    segment: u32,
    offset: u32,
    bytes: Bytes,
    cost: usize,
}

#[derive(Default)]
pub(crate) struct Hot {
    /// In the order of the log.
    runs: VecDeque<Run>,
    bytes: usize,
    bytes_max: usize,
}

impl Hot {
    pub(crate) fn new(bytes_max: u32) -> Hot {
        Hot { bytes_max: bytes_max as usize, ..Hot::default() }
    }

    /// Keeps a batch that was written, whose memory is of this capacity; gives back the memory of
    /// one that had to go, if nobody reads it.
    pub(crate) fn push(
        &mut self,
        segment: u32,
        offset: u32,
        bytes: Bytes,
        capacity: usize,
    ) -> Option<BytesMut> {
        let follows = |last: &Run| {
            (last.segment, last.offset as usize + last.bytes.len()) <= (segment, offset as usize)
        };
        assert!(self.runs.back().is_none_or(follows), "runs come in the order of the log");
        let cost = capacity.max(bytes.len()) + RUN_OVERHEAD_BYTES;
        self.bytes += cost;
        self.runs.push_back(Run { segment, offset, bytes, cost });
        let mut spare: Option<BytesMut> = None;
        while self.bytes > self.bytes_max {
            let Some(gone) = self.runs.pop_front() else { break };
            self.bytes -= gone.cost;
            let memory = gone.bytes.try_into_mut().ok();
            let larger = |memory: &BytesMut| {
                spare.as_ref().is_none_or(|spare| spare.capacity() < memory.capacity())
            };
            spare = memory.filter(larger).or(spare);
        }
        spare
    }

    /// The bytes from `offset` of a segment to the end of their run.
    pub(crate) fn get(&self, segment: u32, offset: u32) -> Option<Bytes> {
        let behind =
            self.runs.partition_point(|run| (run.segment, run.offset) <= (segment, offset));
        let run = self.runs.get(behind.checked_sub(1)?)?;
        let at = (offset - run.offset.min(offset)) as usize;
        (run.segment == segment && at < run.bytes.len()).then(|| run.bytes.slice(at..))
    }

    /// Memory in use.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_runs_stay_and_the_oldest_go() {
        let cost = 64 + RUN_OVERHEAD_BYTES;
        let mut hot = Hot::new(3 * cost as u32);
        for n in 0..4u8 {
            let spare = hot.push(1, 512 + u32::from(n) * 64, vec![n; 64].into(), 64);
            assert_eq!(spare.is_some(), n == 3, "the first goes when the fourth comes");
        }
        assert_eq!(hot.get(1, 512), None);
        assert_eq!(hot.get(1, 576 + 24).expect("kept"), vec![1; 40]);
        assert_eq!(hot.get(1, 767).expect("kept"), &[3][..]);
        assert_eq!(hot.get(1, 768), None);
        assert_eq!(hot.get(2, 600), None);
        assert_eq!(hot.bytes(), 3 * cost);
    }

    #[test]
    fn a_window_of_nothing_keeps_nothing() {
        let mut hot = Hot::new(0);
        assert!(hot.push(1, 512, vec![0; 64].into(), 64).is_some());
        assert_eq!((hot.bytes(), hot.get(1, 512)), (0, None));
    }
}
