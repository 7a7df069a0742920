//! Checkpoints: the log's user says which records an opening need not read again, and the log says
//! it to the next opening.
//!
//! ```text
//!   segment 7            segment 8                     segment 9
//!  │H│mark│ckpt│ … │    │H│mark│ckpt│ … records … │   │H│mark│ckpt│ … │ckpt│ … │
//!           │                    │      ▲                       │         │
//!           └─ of 6              └ of 7 └──── needed from here ─┴─────────┘
//! ```
//!
//! Each segment but the first begins with one. It repeats what the newest said, and tells of the
//! segment before what an opening would have to read it for: so that knows all about a segment
//! whose records are not needed from the first bytes of the next.

use crate::error::ReadOnly;
use crate::format::{
    self, CHECKPOINT_BYTES, Checkpoint, HEADER_BYTES, Item, Key, MARK_BYTES,
    VERSION_WITH_CHECKPOINTS,
};
use crate::log::{Log, Segment};
use crate::position::Seq;

/// What a segment's first items say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    pub(crate) first_seq: u64,
    /// Of a segment that begins with one.
    pub(crate) checkpoint: Option<Checkpoint>,
}

impl Start {
    /// Reads the first items; `bytes` begins behind the header.
    pub(crate) fn read(key: Key, bytes: &[u8]) -> Option<Start> {
        let Ok(Item::Mark { seq: first_seq, .. }) = format::decode(key, HEADER_BYTES, bytes) else {
            return None;
        };
        if first_seq == 0 {
            return None;
        }
        let behind = bytes.get(MARK_BYTES as usize..).unwrap_or_default();
        let checkpoint = match format::decode(key, format::FIRST_CHECKPOINT, behind) {
            Ok(Item::Checkpoint { seq, checkpoint }) if seq == first_seq => Some(checkpoint),
            _ => None,
        };
        Some(Start { first_seq, checkpoint })
    }
}

impl Log {
    /// Says that an opening from now on need not read the records below `seq`: whatever they told
    /// is told by later ones, or kept durably elsewhere. [`Recovery::from`](crate::Recovery::from)
    /// will say so, and [`Log::records`] begin there. They stay where they are, and can be read,
    /// until their segments are [removed](Log::remove_when_durable); as long as they are there,
    /// an opening takes their checksums for right.
    ///
    /// It is written with the next commit, or at the start of the next segment if there is no
    /// room: until then an opening reads more, and loses nothing. The highest that was ever said
    /// holds; a number behind the last record means all of them.
    ///
    /// # Errors
    /// Why the log takes nothing.
    pub fn checkpoint(&mut self, seq: Seq) -> Result<(), ReadOnly> {
        if let Some(reason) = self.read_only {
            return Err(reason);
        }
        let needed = seq.0.min(self.next_seq);
        self.checkpoint_due |= needed > self.needed;
        self.needed = self.needed.max(needed);
        Ok(())
    }

    /// Whether the active segment has nothing in it and has to begin with a checkpoint.
    pub(crate) fn is_bare(&self) -> bool {
        let is_required =
            |active: &Segment| active.number > 1 && active.version >= VERSION_WITH_CHECKPOINTS;
        self.tail == HEADER_BYTES && is_required(self.active())
    }

    /// Adds the checkpoint that is due to what is committed next, if there is room that is not
    /// kept for relocating.
    pub(crate) fn place_checkpoint(&mut self) {
        let pending = self.commit.pending_bytes() + u64::from(CHECKPOINT_BYTES + MARK_BYTES);
        if !self.checkpoint_due || pending > u64::from(self.options.backlog_bytes_max) {
            return;
        }
        // Without room it waits for the next segment, which begins with it in any case.
        self.checkpoint_due = false;
        let has_room = self.active().version >= VERSION_WITH_CHECKPOINTS
            && self.fits(CHECKPOINT_BYTES)
            && self.leaves_room(CHECKPOINT_BYTES);
        if has_room {
            self.put_checkpoint();
        }
    }

    pub(crate) fn put_checkpoint(&mut self) {
        let before = self.segments.iter().rev().nth(1);
        let checkpoint = Checkpoint {
            needed: self.needed,
            stored_bytes: before.map_or(0, |before| before.stored_bytes),
            newest_unix_ms: before.map_or(0, |before| before.newest_unix_ms),
        };
        let (seq, tail) = (self.next_seq, &mut self.tail);
        let active = self.segments.back().expect("a log that takes appends has a segment");
        let bytes_max = self.options.commit_bytes_max;
        let batch = self.commit.open_batch(active, tail, seq, CHECKPOINT_BYTES, bytes_max);
        let bytes = format::checkpoint(active.key, *tail, seq, checkpoint);
        batch.bytes.extend_from_slice(&bytes);
        *tail += CHECKPOINT_BYTES;
        self.commit.marked = false;
        self.checkpoint_due = false;
    }
}
