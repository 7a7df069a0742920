//! The lane that makes a copy of the log as it is at one moment, while it goes on: for a backup, or
//! for a replica to begin with.
//!
//! ```text
//!   Linking (sealed segments, oldest first) ► SyncingDir ► OpeningSource ► OpeningCopy
//!      │                                                                     │
//!      │   whole ◄ SyncingEnd ◄ Clearing ◄ Naming ◄ Syncing ◄ Writing ⇄ Reading
//!      └── error, anywhere ► Undoing: what was made goes, newest first
//! ```
//!
//! Sealed segments never change, so they get a second name. The active one is copied as far as it
//! was written when the copy began, and zeros behind that. It gets its name last, when all others
//! have theirs for good: until then the copy ends in a sealed segment, and an opening says that the
//! next one is missing. So half a snapshot is never taken for a whole one, whatever a crash leaves.

use std::io;
use std::path::PathBuf;

use sextant_ring::buf::IoBuf;
use sextant_ring::driver::{File, FileDone, FileOp, FileOutput, Files, OpenMode};

use crate::error::SnapshotError;
use crate::format;
use crate::log::{Lane, Log};
use crate::position::{SegmentId, Seq};

/// What one read and one write copy.
const CHUNK_BYTES: u32 = 256 << 10;

/// A copy of a log that is whole and durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The last record in it.
    pub last: Seq,
    /// Its segments.
    pub segments: usize,
    /// Bytes that were copied; all others it shares with the log, until that removes them.
    pub copied_bytes: u64,
}

/// What is made, settled when the snapshot begins.
struct Plan {
    dir: PathBuf,
    /// Sealed segments, oldest first.
    sealed: Vec<u32>,
    active: u32,
    /// Of the active one: how much was written, and its size.
    written: u32,
    size: u32,
    last: Seq,
    /// Names that were made, and are taken back if the rest fails.
    made: Vec<PathBuf>,
}

#[derive(Clone, Copy)]
enum Stage {
    /// The first so many sealed segments are linked, the next is being.
    Linking(usize),
    SyncingDir,
    OpeningSource,
    OpeningCopy {
        source: File,
    },
    Reading {
        source: File,
        copy: File,
        at: u32,
    },
    Writing {
        source: File,
        copy: File,
        end: u32,
    },
    Syncing {
        source: File,
        copy: File,
    },
    /// A second name, since a renaming would replace what is not this snapshot's.
    Naming,
    Clearing,
    SyncingEnd,
    Undoing(SnapshotError),
}

#[derive(Default)]
pub(crate) struct SnapshotLane {
    work: Option<(Plan, Stage)>,
    done: Option<Result<Snapshot, SnapshotError>>,
}

impl SnapshotLane {
    /// Whether segments have to stay until they have their second name.
    pub(crate) fn holds_segments(&self) -> bool {
        let needs = |stage: &Stage| {
            matches!(stage, Stage::Linking(_) | Stage::SyncingDir | Stage::OpeningSource)
        };
        self.work.as_ref().is_some_and(|(_, stage)| needs(stage))
    }
}

impl Log {
    /// Begins a copy of the log in a directory: all that was written, and so all that is
    /// [durable](Log::durable), at this moment. The directory is the caller's: it exists, is empty,
    /// and is on the log's file system. The copy opens as a log; it shares the sealed segments'
    /// files with this one, which neither ever changes. [`Log::next_snapshot`] tells when it is
    /// whole and durable.
    ///
    /// # Errors
    /// See [`SnapshotError`]; nothing was begun then.
    pub fn snapshot(&mut self, dir: PathBuf, files: &mut impl Files) -> Result<(), SnapshotError> {
        if self.snapshot.work.is_some() {
            return Err(SnapshotError::Busy);
        }
        if self.read_only.is_some() {
            return Err(SnapshotError::ReadOnly);
        }
        // The segment whose seal is not written yet is the one that is copied.
        let sealed: Vec<u32> =
            self.segments.iter().take_while(|held| held.sealed).map(|held| held.number).collect();
        let source = self.segments.get(sealed.len()).expect("the active segment is not sealed");
        let plan = Plan {
            dir,
            active: source.number,
            written: source.written,
            size: source.size,
            last: self.written,
            sealed,
            made: Vec::new(),
        };
        self.snapshot.done = None;
        self.link_next(plan, 0, files);
        Ok(())
    }

    /// What came of a [`Log::snapshot`] that has ended; told once. After an error nothing is left
    /// of it but, at worst, files in its directory that do not open as a log.
    pub fn next_snapshot(&mut self) -> Option<Result<Snapshot, SnapshotError>> {
        self.snapshot.done.take()
    }

    fn go_on(&mut self, plan: Plan, stage: Stage, op: FileOp, files: &mut impl Files) {
        self.snapshot.work = Some((plan, stage));
        self.submit(files, Lane::Snapshot, op);
    }

    fn link_next(&mut self, mut plan: Plan, at: usize, files: &mut impl Files) {
        let Some(number) = plan.sealed.get(at).copied() else {
            let path = plan.dir.clone();
            return self.go_on(plan, Stage::SyncingDir, FileOp::SyncDir { path }, files);
        };
        let name = format::file_name(number);
        let (from, to) = (self.dir.join(&name), plan.dir.join(&name));
        plan.made.push(to.clone());
        self.go_on(plan, Stage::Linking(at), FileOp::Link { from, to }, files);
    }

    pub(crate) fn snapshot_done(&mut self, done: FileDone, files: &mut impl Files) {
        let (mut plan, stage) = self.snapshot.work.take().expect("a completion of what was asked");
        let output = match (done.result, stage) {
            (_, Stage::Undoing(error)) => return self.undo_next(plan, error, files),
            (Ok(output), _) => output,
            (Err(error), _) => return self.undo(plan, stage, &error, files),
        };
        match (stage, output) {
            (Stage::Linking(at), _) => self.link_next(plan, at + 1, files),
            (Stage::SyncingDir, _) => {
                let path = self.dir.join(format::file_name(plan.active));
                let op = FileOp::Open { path, mode: OpenMode::Read };
                self.go_on(plan, Stage::OpeningSource, op, files);
            }
            (Stage::OpeningSource, FileOutput::Opened(source)) => {
                let path = plan.dir.join(format::temp_name(plan.active));
                plan.made.push(path.clone());
                let op = FileOp::Open { path, mode: OpenMode::CreateNew };
                self.go_on(plan, Stage::OpeningCopy { source }, op, files);
            }
            (Stage::OpeningCopy { source }, FileOutput::Opened(copy)) => {
                let buf = IoBuf::with_capacity(CHUNK_BYTES.min(plan.size) as usize);
                self.copy_next(plan, (source, copy), 0, buf, files);
            }
            (Stage::Reading { source, copy, at }, _) => {
                let buf = done.buf.expect("a read gives its buffer back");
                self.write_chunk(plan, (source, copy), at, buf, files);
            }
            (Stage::Writing { source, copy, end }, _) if end == plan.size => {
                let op = FileOp::Sync { file: copy };
                self.go_on(plan, Stage::Syncing { source, copy }, op, files);
            }
            (Stage::Writing { source, copy, end }, _) => {
                let buf = done.buf.expect("a write gives its buffer back");
                self.copy_next(plan, (source, copy), end, buf, files);
            }
            (Stage::Syncing { source, copy }, _) => {
                self.submit(files, Lane::Close, FileOp::Close { file: source });
                self.submit(files, Lane::Close, FileOp::Close { file: copy });
                let from = plan.dir.join(format::temp_name(plan.active));
                let to = plan.dir.join(format::file_name(plan.active));
                plan.made.push(to.clone());
                self.go_on(plan, Stage::Naming, FileOp::Link { from, to }, files);
            }
            (Stage::Naming, _) => {
                let path = plan.dir.join(format::temp_name(plan.active));
                self.go_on(plan, Stage::Clearing, FileOp::Remove { path }, files);
            }
            (Stage::Clearing, _) => {
                let path = plan.dir.clone();
                self.go_on(plan, Stage::SyncingEnd, FileOp::SyncDir { path }, files);
            }
            (Stage::SyncingEnd, _) => {
                self.snapshot.done = Some(Ok(Snapshot {
                    last: plan.last,
                    segments: plan.sealed.len() + 1,
                    copied_bytes: u64::from(plan.written),
                }));
            }
            (Stage::OpeningSource | Stage::OpeningCopy { .. } | Stage::Undoing(_), _) => {
                panic!("opening a file opens it");
            }
        }
    }

    /// Reads the next piece of what was written; behind that there is nothing to read.
    fn copy_next(
        &mut self,
        plan: Plan,
        (source, copy): (File, File),
        at: u32,
        mut buf: IoBuf,
        files: &mut impl Files,
    ) {
        buf.clear();
        if at >= plan.written {
            return self.write_chunk(plan, (source, copy), at, buf, files);
        }
        let op = FileOp::Read { file: source, offset: u64::from(at), buf };
        self.go_on(plan, Stage::Reading { source, copy, at }, op, files);
    }

    /// Writes what was read, and zeros in place of what was not written when the copy began: its
    /// commit may be under way, and be torn in the copy.
    fn write_chunk(
        &mut self,
        plan: Plan,
        (source, copy): (File, File),
        at: u32,
        mut buf: IoBuf,
        files: &mut impl Files,
    ) {
        let len = (buf.capacity() as u32).min(plan.size - at);
        let written = plan.written.saturating_sub(at).min(len) as usize;
        if buf.len() < written {
            let error = io::ErrorKind::UnexpectedEof.into();
            return self.undo(plan, Stage::Reading { source, copy, at }, &error, files);
        }
        buf.set_len(len as usize);
        buf[written..].fill(0);
        let stage = Stage::Writing { source, copy, end: at + len };
        let op = FileOp::Write { file: copy, offset: u64::from(at), buf };
        self.go_on(plan, stage, op, files);
    }

    fn undo(&mut self, mut plan: Plan, stage: Stage, error: &io::Error, files: &mut impl Files) {
        tracing::warn!(dir = %plan.dir.display(), %error, "a snapshot could not be made");
        // What was not this snapshot's to make is not its to remove.
        if let (
            Stage::Linking(_) | Stage::OpeningCopy { .. } | Stage::Naming,
            io::ErrorKind::AlreadyExists,
        ) = (stage, error.kind())
        {
            plan.made.pop();
        }
        let open = match stage {
            Stage::OpeningCopy { source } => vec![source],
            Stage::Reading { source, copy, .. }
            | Stage::Writing { source, copy, .. }
            | Stage::Syncing { source, copy } => vec![source, copy],
            _ => Vec::new(),
        };
        for file in open {
            self.submit(files, Lane::Close, FileOp::Close { file });
        }
        let error = SnapshotError::Io { segment: SegmentId(plan.active), kind: error.kind() };
        self.undo_next(plan, error, files);
    }

    /// Takes back what was made last: the segment without which the rest is no log goes first.
    fn undo_next(&mut self, mut plan: Plan, error: SnapshotError, files: &mut impl Files) {
        match plan.made.pop() {
            Some(path) => {
                self.go_on(plan, Stage::Undoing(error), FileOp::Remove { path }, files);
            }
            None => self.snapshot.done = Some(Err(error)),
        }
    }
}
