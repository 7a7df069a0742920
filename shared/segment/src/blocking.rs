//! A log that an ordinary thread owns: one that may wait for the disk, and has no ring. Each file
//! operation is carried out on that thread, by the host's own file system.
//!
//! ```text
//!   append ──► commit buffer          memory alone, unless that is full
//!   write  ──► the kernel             what a crash of the process cannot take
//!   flush  ──► the disk               what no crash can take
//! ```
//!
//! What waits longest is the preparation of the next segment, which is as long as the segment. It
//! is done a few steps at a time, with each [`BlockingLog::write`]; an append that needs the
//! segment earlier does the rest at once. Reading is [`Log`]'s own, by its maps; others than the
//! owner read with [`SegmentFile`](crate::SegmentFile).

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sextant_ring::buf::IoBuf;
use sextant_ring::disk::{HostDisk, View};
use sextant_ring::driver::{File, FileDone, FileOp, FileOutput, Files, OpenMode};
use sextant_ring::time::Time;

use crate::error::{AppendError, OpenError, ReadOnly, SnapshotError};
use crate::log::{Appended, Lane, Log};
use crate::options::Options;
use crate::position::Seq;
use crate::recover::Recovery;
use crate::snapshot::Snapshot;

/// Operations of a segment's preparation that are carried out with one write: each zeroes 256 KiB
/// or syncs what was zeroed.
const PREPARE_STEPS: u32 = 4;

/// How often an append that found no room is tried again, each time after all has been done that
/// could make room.
const ATTEMPTS: u32 = 3;

/// A [`Log`] whose operations are carried out where they are asked for.
///
/// Time is what [`BlockingLog::tick`] was told last: it decides when an attempt that failed is
/// repeated, and when [`Durability::Every`](crate::Durability::Every) writes.
#[derive(Debug)]
pub struct BlockingLog {
    log: Log,
    files: HostFiles,
    now: Time,
}

impl BlockingLog {
    /// Opens the log in a directory, or makes a new one there: see [`Log::open`].
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(dir: &Path, options: Options) -> Result<(BlockingLog, Recovery), OpenError> {
        let (log, recovery) = Log::open(&HostDisk, dir, options)?;
        let log = BlockingLog { log, files: HostFiles::default(), now: Time::ZERO };
        Ok((log, recovery))
    }

    /// The log, for reading and for what it can tell.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The log, for what needs no file at once: checkpoints, the counting of live bytes, removals.
    /// What that asks of the disk is done with the next [`BlockingLog::write`].
    pub fn log_mut(&mut self) -> &mut Log {
        &mut self.log
    }

    /// Takes a record: see [`Log::append`]. It waits for the disk where that has to make room.
    ///
    /// # Errors
    /// See [`AppendError`], without [`Backlog`](AppendError::Backlog): nothing was accepted then.
    /// [`Full`](AppendError::Full) may pass: the disk is asked again by a later append, no sooner
    /// than a second after the last time.
    pub fn append(
        &mut self,
        kind: u8,
        parts: &[&[u8]],
        unix_ms: u64,
    ) -> Result<Appended, AppendError> {
        for _ in 0..ATTEMPTS {
            match self.log.append(kind, parts, unix_ms) {
                Err(AppendError::Backlog) => self.settle(),
                Err(AppendError::Full) => break,
                outcome => return outcome,
            }
        }
        self.work(u32::MAX);
        match self.log.append(kind, parts, unix_ms) {
            Err(AppendError::Backlog) => Err(AppendError::Full),
            outcome => outcome,
        }
    }

    /// Hands what was appended to the kernel; under [`Durability::Always`](crate::Durability) it
    /// is durable then, under [`Durability::Every`](crate::Durability) that happens when it is
    /// due. Does a few steps of what else there is to do. Once after what belongs together was
    /// appended.
    ///
    /// # Errors
    /// Why the log takes nothing any more: a write or sync failed, now or before.
    pub fn write(&mut self) -> Result<(), ReadOnly> {
        self.work(PREPARE_STEPS);
        self.log.read_only().map_or(Ok(()), Err)
    }

    /// Makes all that was appended durable, whatever the [`Durability`](crate::Durability), and
    /// returns then.
    ///
    /// # Errors
    /// As [`BlockingLog::write`]: what of it is on the disk nobody can say.
    pub fn flush(&mut self) -> Result<(), ReadOnly> {
        while self.log.durable() < self.log.last() {
            if let Some(reason) = self.log.read_only() {
                return Err(reason);
            }
            self.log.settle();
            self.log.commit(&mut self.files, self.now);
            let done = self.files.next(false).expect("what is not durable is written or synced");
            self.take(done);
        }
        self.log.read_only().map_or(Ok(()), Err)
    }

    /// Says what time it is on the monotonic clock, and does what is due by it.
    ///
    /// # Errors
    /// As [`BlockingLog::write`].
    pub fn tick(&mut self, now: Time) -> Result<(), ReadOnly> {
        self.now = self.now.max(now);
        self.write()
    }

    /// Removes what may not stay: see [`Log::retain`], which tells the same. The segments are gone
    /// on return, unless the disk refused; then it is asked again later.
    pub fn retain(&mut self, unix_ms: u64) -> Option<Range<Seq>> {
        let going = self.log.retain(unix_ms);
        if going.is_some() {
            self.work(PREPARE_STEPS);
        }
        going
    }

    /// Makes a copy that opens as a log: see [`Log::snapshot`].
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub fn snapshot(&mut self, to: PathBuf) -> Result<Snapshot, SnapshotError> {
        self.log.snapshot(to, &mut self.files)?;
        loop {
            if let Some(outcome) = self.log.next_snapshot() {
                return outcome;
            }
            let done = self.files.next(true).expect("a snapshot asks until it has ended");
            self.take(done);
        }
    }

    /// Makes all durable, marks the log's end as such, and closes its files.
    ///
    /// # Errors
    /// As [`BlockingLog::write`].
    pub fn close(mut self) -> Result<(), ReadOnly> {
        self.settle();
        let outcome = self.log.read_only().map_or(Ok(()), Err);
        self.log.close(&mut self.files);
        while let Some(done) = self.files.next(true) {
            self.take(done);
        }
        assert!(self.log.is_closed(), "nothing is open when nothing is left to do");
        outcome
    }

    /// Writes, syncs and prepares all that there is.
    fn settle(&mut self) {
        self.log.settle();
        self.work(u32::MAX);
    }

    /// Carries out what the log asks for, of a segment's preparation no more than so many steps.
    fn work(&mut self, prepare_steps: u32) {
        let mut steps_left = prepare_steps;
        loop {
            self.log.commit(&mut self.files, self.now);
            let done = match self.files.next(false) {
                Some(done) => done,
                None if steps_left == 0 => return,
                None => {
                    steps_left -= 1;
                    let Some(done) = self.files.next(true) else { return };
                    done
                }
            };
            self.take(done);
        }
    }

    fn take(&mut self, done: FileDone) {
        // What it changed is asked of the log where it matters.
        let _ = self.log.handle(done, &mut self.files, self.now);
    }
}

/// File operations in the order in which they are asked for, but those that prepare a segment:
/// they wait until they are wanted.
#[derive(Debug, Default)]
struct HostFiles {
    waiting: VecDeque<(u64, FileOp)>,
    preparing: VecDeque<(u64, FileOp)>,
    open: HashMap<File, fs::File>,
    names: i32,
}

impl Files for HostFiles {
    fn submit(&mut self, ticket: u64, op: FileOp) {
        let lane = (ticket >> 32) as u16;
        let queue =
            if lane == Lane::Prepare as u16 { &mut self.preparing } else { &mut self.waiting };
        queue.push_back((ticket, op));
    }
}

impl HostFiles {
    /// Carries out the next operation; one that prepares a segment only if asked to, and last.
    fn next(&mut self, preparing: bool) -> Option<FileDone> {
        let prepares = || preparing.then(|| self.preparing.pop_front()).flatten();
        let (ticket, op) = self.waiting.pop_front().or_else(prepares)?;
        let (result, buf) = self.carry_out(op);
        Some(FileDone { ticket, result, buf })
    }

    fn carry_out(&mut self, op: FileOp) -> (io::Result<FileOutput>, Option<IoBuf>) {
        let done = |()| FileOutput::Done;
        match op {
            FileOp::Open { path, mode } => (self.open(&path, mode).map(FileOutput::Opened), None),
            FileOp::Read { file, offset, mut buf } => {
                let read = read_up_to(self.file(file), offset, &mut buf);
                (read.map(done), Some(buf))
            }
            FileOp::Write { file, offset, buf } => {
                (self.file(file).write_all_at(&buf, offset).map(done), Some(buf))
            }
            FileOp::WriteSync { file, offset, buf } => {
                let file = self.file(file);
                let written = file.write_all_at(&buf, offset).and_then(|()| file.sync_data());
                (written.map(done), Some(buf))
            }
            FileOp::Sync { file } => (self.file(file).sync_data().map(done), None),
            FileOp::Map { file, len } => {
                (View::map(self.file(file), len).map(FileOutput::Mapped), None)
            }
            FileOp::Close { file } => {
                self.open.remove(&file).expect("a file is closed once");
                (Ok(FileOutput::Done), None)
            }
            FileOp::Rename { from, to } => (fs::rename(from, to).map(done), None),
            FileOp::Link { from, to } => (fs::hard_link(from, to).map(done), None),
            FileOp::Remove { path } => (fs::remove_file(path).map(done), None),
            FileOp::SyncDir { path } => {
                let synced = fs::File::open(path).and_then(|dir| dir.sync_all());
                (synced.map(done), None)
            }
        }
    }

    fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<File> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(mode != OpenMode::Read)
            .create_new(mode == OpenMode::CreateNew)
            .mode(0o600)
            .open(path)?;
        self.names += 1;
        self.open.insert(File::new(self.names), file);
        Ok(File::new(self.names))
    }

    fn file(&self, file: File) -> &fs::File {
        self.open.get(&file).expect("the log names files that it has opened and not closed")
    }
}

/// Fills a buffer as far as the file goes.
fn read_up_to(file: &fs::File, offset: u64, buf: &mut IoBuf) -> io::Result<()> {
    buf.set_len(buf.capacity());
    let read = fill_at(file, offset, buf);
    buf.set_len(*read.as_ref().unwrap_or(&0));
    read.map(|_| ())
}

/// Reads until the bytes are full or the file ends, and tells how many there are.
pub(crate) fn fill_at(file: &fs::File, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
