//! Files without a ring: a few threads that block in the core's stead. An operation is a job in a
//! bounded queue; what it came to waits in a list until the driver looks, and wakes the driver if
//! that sleeps.
//!
//! ```text
//!   driver ── job ──► queue ──► thread, thread      (started with the first job)
//!      ▲                              │
//!      └──── wake, if asleep ── done ◄┘
//! ```
//!
//! Whether the driver sleeps is said under the same lock under which a result is put down: so
//! either the driver sees the result before it sleeps, or the thread sees that it sleeps.
//!
//! Jobs that a dropped driver had not seen begin are dropped with it; those that a thread is at
//! are waited for, so that nothing writes to a file once its core is gone.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use slab::Slab;

use crate::buf::IoBuf;
use crate::disk::View;
use crate::driver::{Completion, File, FileOp, FileOutput, OpenMode, Outcome, Token};
use crate::mesh::Remote;

/// One core's files, and the threads that work on them.
pub(super) struct FilePool {
    open: Slab<Arc<fs::File>>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    threads_max: usize,
    waiting_max: usize,
    in_flight: usize,
}

struct Shared {
    jobs: Mutex<Jobs>,
    more: Condvar,
    done: Mutex<DoneList>,
    remote: Remote,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    over: bool,
}

#[derive(Default)]
struct DoneList {
    list: Vec<Done>,
    /// The driver sleeps, or is about to.
    asleep: bool,
}

struct Job {
    token: Token,
    work: Work,
}

enum Work {
    Open { path: PathBuf, mode: OpenMode },
    Read { file: Arc<fs::File>, offset: u64, buf: IoBuf },
    Write { file: Arc<fs::File>, offset: u64, buf: IoBuf, sync: bool },
    Sync { file: Arc<fs::File> },
    Map { file: Arc<fs::File>, len: u64 },
    Close { file: Arc<fs::File> },
    Rename { from: PathBuf, to: PathBuf },
    Link { from: PathBuf, to: PathBuf },
    Remove { path: PathBuf },
    SyncDir { path: PathBuf },
}

struct Done {
    token: Token,
    result: io::Result<Output>,
    buf: Option<IoBuf>,
}

enum Output {
    Nothing,
    Opened(fs::File),
    Mapped(View),
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FilePool {
    pub(super) fn new(threads_max: usize, waiting_max: usize, remote: Remote) -> FilePool {
        assert!(threads_max > 0 && waiting_max > 0, "files are worked on by somebody");
        let shared =
            Shared { jobs: Mutex::default(), more: Condvar::new(), done: Mutex::default(), remote };
        FilePool {
            open: Slab::new(),
            shared: Arc::new(shared),
            threads: Vec::new(),
            threads_max,
            waiting_max,
            in_flight: 0,
        }
    }

    /// Whether as many operations wait as may.
    pub(super) fn is_full(&self) -> bool {
        self.in_flight >= self.waiting_max + self.threads_max
    }

    /// Starts an operation, or tells at once how it ended.
    pub(super) fn start(&mut self, token: Token, op: FileOp) -> Option<Completion> {
        let work = match self.work(op) {
            Ok(work) => work,
            Err((error, buf)) => return Some(ended(token, Err(error), buf)),
        };
        if let Err(error) = self.start_threads() {
            return Some(ended(token, Err(error), work.into_buf()));
        }
        self.in_flight += 1;
        locked(&self.shared.jobs).waiting.push_back(Job { token, work });
        self.shared.more.notify_one();
        None
    }

    /// An operation with the file that it names, which it keeps open until it has ended.
    fn work(&mut self, op: FileOp) -> Result<Work, (io::Error, Option<IoBuf>)> {
        let find = |file: File| {
            let found = usize::try_from(file.0).ok().and_then(|at| self.open.get(at));
            found.map(Arc::clone).ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
        };
        let bare = |error| (error, None);
        Ok(match op {
            FileOp::Open { path, mode } => Work::Open { path, mode },
            FileOp::Read { file, offset, buf } => match find(file) {
                Ok(file) => Work::Read { file, offset, buf },
                Err(error) => return Err((error, Some(buf))),
            },
            FileOp::Write { file, offset, buf } => match find(file) {
                Ok(file) => Work::Write { file, offset, buf, sync: false },
                Err(error) => return Err((error, Some(buf))),
            },
            FileOp::WriteSync { file, offset, buf } => match find(file) {
                Ok(file) => Work::Write { file, offset, buf, sync: true },
                Err(error) => return Err((error, Some(buf))),
            },
            FileOp::Sync { file } => Work::Sync { file: find(file).map_err(bare)? },
            FileOp::Map { file, len } => Work::Map { file: find(file).map_err(bare)?, len },
            FileOp::Close { file } => {
                find(file).map_err(bare)?;
                Work::Close { file: self.open.remove(file.0 as usize) }
            }
            FileOp::Rename { from, to } => Work::Rename { from, to },
            FileOp::Link { from, to } => Work::Link { from, to },
            FileOp::Remove { path } => Work::Remove { path },
            FileOp::SyncDir { path } => Work::SyncDir { path },
        })
    }

    /// Starts the threads with the first job; with one of them it can do.
    fn start_threads(&mut self) -> io::Result<()> {
        if !self.threads.is_empty() {
            return Ok(());
        }
        while self.threads.len() < self.threads_max {
            let shared = Arc::clone(&self.shared);
            let name = format!("file-{}", self.threads.len());
            match std::thread::Builder::new().name(name).spawn(move || shared.serve()) {
                Ok(thread) => self.threads.push(thread),
                Err(error) if self.threads.is_empty() => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "fewer threads for files than wanted");
                    break;
                }
            }
        }
        Ok(())
    }

    /// Moves what has ended to `to`.
    pub(super) fn collect(&mut self, to: &mut VecDeque<Completion>) {
        if self.in_flight == 0 {
            return;
        }
        let list = {
            let mut done = locked(&self.shared.done);
            done.asleep = false;
            std::mem::take(&mut done.list)
        };
        self.in_flight -= list.len();
        for Done { token, result, buf } in list {
            let result = result.map(|output| match output {
                Output::Nothing => FileOutput::Done,
                Output::Mapped(view) => FileOutput::Mapped(view),
                Output::Opened(file) => {
                    let at = self.open.insert(Arc::new(file));
                    FileOutput::Opened(File(i32::try_from(at).expect("files are few")))
                }
            });
            to.push_back(ended(token, result, buf));
        }
    }

    /// Announces that the driver is about to sleep, unless something has ended by now: then it
    /// returns false.
    pub(super) fn may_sleep(&self) -> bool {
        if self.in_flight == 0 {
            return true;
        }
        let mut done = locked(&self.shared.done);
        done.asleep = done.list.is_empty();
        done.asleep
    }
}

impl Drop for FilePool {
    fn drop(&mut self) {
        {
            let mut jobs = locked(&self.shared.jobs);
            jobs.over = true;
            jobs.waiting.clear();
        }
        self.shared.more.notify_all();
        for thread in self.threads.drain(..) {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

fn ended(token: Token, result: io::Result<FileOutput>, buf: Option<IoBuf>) -> Completion {
    Completion { token, outcome: Outcome::File(result, buf), more: false }
}

impl Shared {
    /// What a thread does: one job after the other, until there will be no more.
    fn serve(&self) {
        while let Some(Job { token, work }) = self.next() {
            let (result, buf) = work.carry_out();
            let mut done = locked(&self.done);
            done.list.push(Done { token, result, buf });
            let asleep = std::mem::take(&mut done.asleep);
            drop(done);
            if asleep {
                self.remote.notify();
            }
        }
    }

    fn next(&self) -> Option<Job> {
        let mut jobs = locked(&self.jobs);
        loop {
            if jobs.over {
                return None;
            }
            match jobs.waiting.pop_front() {
                Some(job) => return Some(job),
                None => jobs = self.more.wait(jobs).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

impl Work {
    fn into_buf(self) -> Option<IoBuf> {
        match self {
            Work::Read { buf, .. } | Work::Write { buf, .. } => Some(buf),
            _ => None,
        }
    }

    fn carry_out(self) -> (io::Result<Output>, Option<IoBuf>) {
        let nothing = |result: io::Result<()>| (result.map(|()| Output::Nothing), None);
        match self {
            Work::Open { path, mode } => (open(&path, mode).map(Output::Opened), None),
            Work::Read { file, offset, mut buf } => {
                let result = read(&file, offset, &mut buf);
                (result.map(|()| Output::Nothing), Some(buf))
            }
            Work::Write { file, offset, buf, sync } => {
                let written = write(&file, offset, &buf);
                let result = if sync { written.and_then(|()| file.sync_data()) } else { written };
                (result.map(|()| Output::Nothing), Some(buf))
            }
            Work::Sync { file } => nothing(file.sync_data()),
            Work::Map { file, len } => (View::map(&file, len).map(Output::Mapped), None),
            Work::Close { file } => {
                drop(file);
                nothing(Ok(()))
            }
            Work::Rename { from, to } => nothing(fs::rename(from, to)),
            Work::Link { from, to } => nothing(fs::hard_link(from, to)),
            Work::Remove { path } => nothing(fs::remove_file(path)),
            Work::SyncDir { path } => nothing(sync_dir(&path)),
        }
    }
}

fn open(path: &Path, mode: OpenMode) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.read(true).mode(0o600);
    match mode {
        OpenMode::Read => {}
        OpenMode::Write => drop(options.write(true)),
        OpenMode::CreateNew => drop(options.write(true).create_new(true)),
    }
    options.open(path)
}

/// Reads until the buffer or the file is at its end.
fn read(file: &fs::File, offset: u64, buf: &mut IoBuf) -> io::Result<()> {
    let mut at = 0;
    buf.set_len(buf.capacity());
    let result = loop {
        match file.read_at(&mut buf[at..], offset + at as u64) {
            Ok(0) => break Ok(()),
            Ok(read) => at += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    buf.set_len(at);
    result
}

/// Writes everything. A write that makes no progress has met the disk's end.
fn write(file: &fs::File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let mut at = 0;
    while at < bytes.len() {
        match file.write_at(&bytes[at..], offset + at as u64) {
            Ok(0) => return Err(io::Error::from_raw_os_error(libc::ENOSPC)),
            Ok(written) => at += written,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn sync_dir(path: &Path) -> io::Result<()> {
    fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path)?.sync_all()
}
