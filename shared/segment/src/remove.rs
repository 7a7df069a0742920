//! The lane that removes the oldest segments. One at a time, each made durable before the next
//! goes: otherwise a crash could bring an older one back and leave a gap, which recovery would
//! have to take for corruption.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use sextant_ring::driver::{FileDone, FileOp, Files};
use sextant_ring::time::Time;

use crate::error::RemoveError;
use crate::log::{Lane, Log, Segment};
use crate::position::{SegmentId, Seq};

const RETRY: Duration = Duration::from_secs(5);

/// A segment that nobody can read any more, and whose file is on its way out.
struct Going {
    number: u32,
    size: u32,
    path: PathBuf,
    /// The name is gone; the directory may not be synced yet.
    unlinked: bool,
}

#[derive(Default)]
pub(crate) struct RemoveLane {
    /// The oldest segments, in order, and what has to be durable before each may go.
    queue: VecDeque<(u32, Seq)>,
    going: Option<Going>,
    busy: bool,
    retry_at: Option<Time>,
}

impl RemoveLane {
    /// How many of the oldest segments are asked to go.
    pub(crate) fn queued_in(&self, segments: &VecDeque<Segment>) -> usize {
        assert!(self.queue.len() <= segments.len(), "only segments are queued");
        self.queue.len()
    }

    /// Whether a segment waits for its removal.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.queue.is_empty()
    }

    pub(crate) fn retry_at(&self) -> Option<Time> {
        self.retry_at
    }

    pub(crate) fn file_bytes(&self) -> u64 {
        self.going.as_ref().map_or(0, |going| u64::from(going.size))
    }
}

impl Log {
    /// Asks that the oldest segment be removed once the record `seq`, and with it all that was
    /// [relocated](Log::relocate) before, is durable. It also stays until a record behind it is.
    /// Until it is gone it can be read; what was read from it stays valid.
    ///
    /// # Errors
    /// See [`RemoveError`].
    pub fn remove_when_durable(&mut self, segment: SegmentId, seq: Seq) -> Result<(), RemoveError> {
        if self.read_only.is_some() {
            return Err(RemoveError::ReadOnly);
        }
        match self.oldest() {
            Some(oldest) if oldest.id == segment && !oldest.sealed => {
                Err(RemoveError::NotSealed(segment))
            }
            Some(oldest) if oldest.id == segment => {
                self.remove.queue.push_back((segment.0, seq.min(self.last())));
                Ok(())
            }
            _ => Err(RemoveError::NotOldest(segment)),
        }
    }

    /// What has to be durable before the next segment goes: what its caller said, and the first
    /// record behind it, from which recovery learns where the numbers go on.
    fn removal_needs(&self) -> Option<Seq> {
        let (number, seq) = *self.remove.queue.front()?;
        let oldest = self.segments.front().expect("a queued segment is still there");
        assert_eq!(oldest.number, number, "segments go in order");
        Some(seq.max(Seq(oldest.last_seq + 1)))
    }

    /// Whether a removal waits for records that were appended and that nothing else would sync.
    pub(crate) fn removal_waits_for_sync(&self) -> bool {
        self.removal_needs().is_some_and(|seq| self.durable < seq && seq <= self.last())
    }

    pub(crate) fn start_remove(&mut self, files: &mut impl Files, now: Time) {
        if self.remove.busy || self.remove.retry_at.is_some_and(|at| now < at) {
            return;
        }
        if self.remove.going.is_none() {
            let needs = self.removal_needs();
            if self.snapshot.holds_segments() {
                return;
            }
            if !self.commit.names_durable || needs.is_none_or(|seq| self.durable < seq) {
                return;
            }
            self.remove.queue.pop_front();
            let oldest = self.segments.pop_front().expect("a queued segment is still there");
            assert!(oldest.sealed && !self.segments.is_empty(), "the active segment stays");
            let Segment { number, size, path, .. } = oldest;
            self.segments_bytes -= u64::from(size);
            self.remove.going = Some(Going { number, size, path, unlinked: false });
        }
        self.remove_step(files);
    }

    fn remove_step(&mut self, files: &mut impl Files) {
        let Some(going) = &self.remove.going else { return };
        let op = match going.unlinked {
            false => FileOp::Remove { path: going.path.clone() },
            true => FileOp::SyncDir { path: self.dir.clone() },
        };
        self.remove.busy = true;
        self.remove.retry_at = None;
        self.submit(files, Lane::Remove, op);
    }

    pub(crate) fn remove_done(
        &mut self,
        done: FileDone,
        files: &mut impl Files,
        now: Time,
    ) -> Option<SegmentId> {
        assert!(self.remove.busy, "a completion that nobody asked for");
        self.remove.busy = false;
        let going = self.remove.going.as_mut().expect("busy with a segment");
        match done.result {
            Err(error) if going.unlinked || error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %going.path.display(), %error, "could not remove a segment");
                self.remove.retry_at = Some(now + RETRY);
                None
            }
            _ if !going.unlinked => {
                going.unlinked = true;
                self.remove_step(files);
                None
            }
            _ => {
                self.close_unused(files);
                self.remove.going.take().map(|going| SegmentId(going.number))
            }
        }
    }
}
