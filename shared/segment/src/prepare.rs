//! The lane that prepares the next segment, so that an accepted append never waits for the file
//! system to find room, and never learns that there is none.
//!
//! ```text
//!   Opening ► Zeroing ⇄ Syncing ► Mapping ► Renaming ► SyncingDir ► ready
//!      │         │ (a chunk at a time,          │           │
//!      └─────────┴─ a sync every few MiB) ──────┴───────────┴─ error ► Undoing ► wait, try again
//! ```
//!
//! The file has a temporary name until it is zeroed and synced, so that recovery finds under a
//! segment's name only files of full length.

use std::io;
use std::time::Duration;

use sextant_ring::buf::IoBuf;
use sextant_ring::disk::View;
use sextant_ring::driver::{File, FileDone, FileOp, FileOutput, Files, OpenMode};
use sextant_ring::time::Time;

use crate::format::{self, HEADER_BYTES, MARK_BYTES, RESERVED_BYTES, SegmentHeader, stored_bytes};
use crate::log::{Lane, Log};

/// What one write zeroes.
const CHUNK_BYTES: u32 = 256 << 10;

/// What is zeroed between two syncs: without them one long sync of the whole segment would stand
/// in the way of the commits.
const SYNC_BYTES: u32 = 4 << 20;

const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// A segment that was not used yet.
pub(crate) struct Ready {
    pub(crate) number: u32,
    pub(crate) version: u16,
    pub(crate) size: u32,
    pub(crate) view: View,
    /// Not open if an earlier process prepared it.
    pub(crate) file: Option<File>,
}

#[derive(Default)]
enum Stage {
    #[default]
    Idle,
    Opening,
    /// All below `end` is zeroed once this write completes.
    Zeroing {
        file: File,
        end: u32,
    },
    Syncing {
        file: File,
        end: u32,
    },
    Mapping(File),
    Renaming(File, View),
    SyncingDir(File, View),
    Undoing,
}

#[derive(Default)]
pub(crate) struct PrepareLane {
    stage: Stage,
    number: u32,
    size: u32,
    /// Attempts that failed since the last success.
    failures: u32,
    retry_at: Option<Time>,
}

impl PrepareLane {
    /// Whether a segment is being prepared and nothing has gone wrong so far.
    pub(crate) fn is_under_way(&self) -> bool {
        !matches!(self.stage, Stage::Idle | Stage::Undoing) && self.failures == 0
    }

    pub(crate) fn retry_at(&self) -> Option<Time> {
        self.retry_at.filter(|_| matches!(self.stage, Stage::Idle))
    }

    pub(crate) fn file_bytes(&self) -> u64 {
        match self.stage {
            Stage::Idle => 0,
            _ => u64::from(self.size),
        }
    }
}

impl Log {
    pub(crate) fn start_prepare(&mut self, files: &mut impl Files, now: Time) {
        if self.ready.is_some() || !matches!(self.prepare.stage, Stage::Idle) {
            return;
        }
        if self.prepare.retry_at.is_some_and(|at| now < at) {
            return;
        }
        self.prepare.retry_at = None;
        if !self.is_predecessor_sealed() || (!self.starved && !self.is_half_full()) {
            return;
        }
        let Some(size) = self.next_segment_bytes() else { return };
        self.prepare.number = self.active().number + 1;
        self.prepare.size = size;
        self.prepare.stage = Stage::Opening;
        let path = self.dir.join(format::temp_name(self.prepare.number));
        self.submit(files, Lane::Prepare, FileOp::Open { path, mode: OpenMode::CreateNew });
    }

    /// Whether a segment could be prepared now, as far as is known.
    pub(crate) fn can_prepare(&self) -> bool {
        self.prepare.failures == 0 && self.next_segment_bytes().is_some()
    }

    /// Whether the segment before the active one is sealed on the disk. Recovery relies on it:
    /// behind a segment without a seal it expects one empty segment, not two.
    fn is_predecessor_sealed(&self) -> bool {
        self.segments.iter().rev().nth(1).is_none_or(|segment| segment.sealed)
    }

    fn is_half_full(&self) -> bool {
        let active = self.active();
        let record = stored_bytes(self.options.record_bytes_max as usize);
        let left = active.size.saturating_sub(self.tail);
        left < (active.size / 2).max(record.saturating_add(MARK_BYTES + RESERVED_BYTES))
    }

    /// The next segment's size: twice the active one's, within the limits, and never less than a
    /// record needs. It does not shrink with what the quota leaves: small segments would waste
    /// more of it.
    pub(crate) fn wanted_segment_bytes(&self) -> u32 {
        let (min, top) = (self.options.segment_bytes_min, self.options.segment_bytes_top());
        self.active().size.saturating_mul(2).clamp(min, top)
    }

    /// That size, unless the quota forbids the segment.
    fn next_segment_bytes(&self) -> Option<u32> {
        let size = self.wanted_segment_bytes();
        let fits = self.file_bytes() + u64::from(size) <= self.options.bytes_max;
        (fits && self.active().number < u32::MAX).then_some(size)
    }

    pub(crate) fn prepare_done(&mut self, done: FileDone, files: &mut impl Files, now: Time) {
        let stage = std::mem::take(&mut self.prepare.stage);
        if self.read_only.is_some() {
            self.abandon(&stage, files);
            if let Ok(FileOutput::Opened(file)) = done.result {
                self.submit(files, Lane::Close, FileOp::Close { file });
            }
            return;
        }
        let output = match (done.result, &stage) {
            (_, Stage::Undoing) => {
                let wait = RETRY_MIN * 2u32.saturating_pow(self.prepare.failures - 1).min(64);
                self.prepare.retry_at = Some(now + wait.min(RETRY_MAX));
                return;
            }
            (Ok(output), _) => output,
            (Err(error), _) => return self.undo_prepare(&stage, &error, files),
        };
        match (stage, output) {
            (Stage::Opening, FileOutput::Opened(file)) => self.zero(file, 0, done.buf, files),
            (Stage::Zeroing { file, end }, _) if self.is_sync_due(end) => {
                self.prepare.stage = Stage::Syncing { file, end };
                self.submit(files, Lane::Prepare, FileOp::Sync { file });
            }
            (Stage::Syncing { file, end }, _) if end == self.prepare.size => {
                self.prepare.stage = Stage::Mapping(file);
                let len = u64::from(self.prepare.size);
                self.submit(files, Lane::Prepare, FileOp::Map { file, len });
            }
            (Stage::Zeroing { file, end } | Stage::Syncing { file, end }, _) => {
                self.zero(file, end, done.buf, files);
            }
            (Stage::Mapping(file), FileOutput::Mapped(view)) => {
                self.prepare.stage = Stage::Renaming(file, view);
                let from = self.dir.join(format::temp_name(self.prepare.number));
                let to = self.dir.join(format::file_name(self.prepare.number));
                self.submit(files, Lane::Prepare, FileOp::Rename { from, to });
            }
            (Stage::Renaming(file, view), _) => {
                self.prepare.stage = Stage::SyncingDir(file, view);
                let path = self.dir.clone();
                self.submit(files, Lane::Prepare, FileOp::SyncDir { path });
            }
            (Stage::SyncingDir(file, view), _) => {
                let PrepareLane { number, size, .. } = self.prepare;
                self.prepare.failures = 0;
                self.ready =
                    Some(Ready { number, version: format::VERSION, size, view, file: Some(file) });
            }
            (Stage::Idle | Stage::Undoing | Stage::Opening | Stage::Mapping(_), _) => {
                panic!("a completion that nobody asked for");
            }
        }
    }

    fn is_sync_due(&self, end: u32) -> bool {
        end == self.prepare.size || end.is_multiple_of(SYNC_BYTES)
    }

    /// Zeroes the next chunk. The first begins with the segment's header.
    fn zero(&mut self, file: File, at: u32, buf: Option<IoBuf>, files: &mut impl Files) {
        let len = CHUNK_BYTES.min(self.prepare.size - at) as usize;
        let mut buf = buf.unwrap_or_else(|| IoBuf::zeroed(len));
        buf.set_len(len);
        let header = &mut buf[..HEADER_BYTES as usize];
        match at {
            0 => header.copy_from_slice(
                &SegmentHeader {
                    version: format::VERSION,
                    log_id: self.id,
                    number: self.prepare.number,
                    size: self.prepare.size,
                }
                .encode(),
            ),
            _ => header.fill(0),
        }
        self.prepare.stage = Stage::Zeroing { file, end: at + len as u32 };
        self.submit(files, Lane::Prepare, FileOp::Write { file, offset: u64::from(at), buf });
    }

    fn undo_prepare(&mut self, stage: &Stage, error: &io::Error, files: &mut impl Files) {
        if self.prepare.failures == 0 {
            tracing::warn!(
                dir = %self.dir.display(), number = self.prepare.number, %error,
                "could not prepare the next segment: appends are refused once this one is full"
            );
        }
        self.prepare.failures = self.prepare.failures.saturating_add(1);
        let path = match stage {
            Stage::SyncingDir(..) => self.dir.join(format::file_name(self.prepare.number)),
            _ => self.dir.join(format::temp_name(self.prepare.number)),
        };
        self.abandon(stage, files);
        self.prepare.stage = Stage::Undoing;
        self.submit(files, Lane::Prepare, FileOp::Remove { path });
    }

    fn abandon(&mut self, stage: &Stage, files: &mut impl Files) {
        let file = match *stage {
            Stage::Idle | Stage::Opening | Stage::Undoing => return,
            Stage::Zeroing { file, .. } | Stage::Syncing { file, .. } | Stage::Mapping(file) => {
                file
            }
            Stage::Renaming(file, _) | Stage::SyncingDir(file, _) => file,
        };
        self.submit(files, Lane::Close, FileOp::Close { file });
    }
}
