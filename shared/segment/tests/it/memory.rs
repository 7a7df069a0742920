//! A disk in memory that forgets. What was written and not synced is lost at a power failure, each
//! 512-byte sector on its own: it comes back as it was when last synced, or as any write since left
//! it. Names are as forgetful: a file's making, renaming or removal stays or not, each on its own,
//! until its directory is synced. Which of them, a seed says.
//!
//! A sync that fails behaves like the kernel's: what it could not write counts as clean afterwards,
//! so that the next sync succeeds without having written it.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use fastrand::Rng;
use sextant_ring::disk::{Disk, Entry, LiveBytes, View};
use sextant_ring::driver::{File, FileDone, FileOp, FileOutput, Files, OpenMode};

use crate::FileNames;
use crate::rig::Backend;

const SECTOR: usize = 512;

#[derive(Clone, Default)]
struct Inode {
    /// What a reader sees.
    live: Vec<u8>,
    /// What survives.
    durable: Vec<u8>,
    /// What each sector was left as by the writes since the last sync.
    dirty: BTreeMap<usize, Vec<Vec<u8>>>,
}

impl Inode {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.live.len() < end {
            self.live.resize(end, 0);
        }
        self.live[offset..end].copy_from_slice(bytes);
        for sector in offset / SECTOR..end.div_ceil(SECTOR) {
            let from = sector * SECTOR;
            let to = (from + SECTOR).min(self.live.len());
            self.dirty.entry(sector).or_default().push(self.live[from..to].to_vec());
        }
    }

    fn sync(&mut self) {
        self.durable.resize(self.live.len(), 0);
        for sector in std::mem::take(&mut self.dirty).into_keys() {
            let from = sector * SECTOR;
            let to = (from + SECTOR).min(self.live.len());
            self.durable[from..to].copy_from_slice(&self.live[from..to]);
        }
    }

    /// Each unsynced sector survives with probability `keep`, in any of its versions.
    fn lose(&mut self, rng: &mut Rng, keep: f64) {
        if rng.f64() < keep {
            self.durable.resize(self.live.len().max(self.durable.len()), 0);
        }
        for (sector, versions) in std::mem::take(&mut self.dirty) {
            let from = sector * SECTOR;
            let version = &versions[rng.usize(..versions.len())];
            if rng.f64() < keep && from < self.durable.len() {
                let to = (from + version.len()).min(self.durable.len());
                self.durable[from..to].copy_from_slice(&version[..to - from]);
            }
        }
        self.live = self.durable.clone();
    }
}

/// What a change of a directory leaves under each name that it touches.
type NameChange = Vec<(PathBuf, Option<u64>)>;

#[derive(Clone, Default)]
struct State {
    inodes: HashMap<u64, Inode>,
    made: u64,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    unsynced: Vec<NameChange>,
    /// Bytes that all files together may have.
    capacity: Option<u64>,
    /// Blocking calls that succeed before all of them fail.
    calls_left: Option<u32>,
}

impl State {
    fn make(&mut self) -> u64 {
        self.made += 1;
        self.inodes.insert(self.made, Inode::default());
        self.made
    }

    fn change(&mut self, change: NameChange) {
        apply(&mut self.names, &change);
        self.unsynced.push(change);
    }

    fn sync_names(&mut self) {
        for change in std::mem::take(&mut self.unsynced) {
            apply(&mut self.durable_names, &change);
        }
    }

    fn number(&self, path: &Path) -> io::Result<u64> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn inode(&mut self, path: &Path) -> io::Result<&mut Inode> {
        let number = self.number(path)?;
        Ok(self.inodes.get_mut(&number).expect("a name has an inode"))
    }

    fn room_for(&self, number: u64, end: usize) -> io::Result<()> {
        let Some(capacity) = self.capacity else { return Ok(()) };
        let used: usize = self.names.values().map(|n| self.inodes[n].live.len()).sum();
        let grows = end.saturating_sub(self.inodes[&number].live.len());
        match (used + grows) as u64 <= capacity {
            true => Ok(()),
            false => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn call(&mut self) -> io::Result<()> {
        match &mut self.calls_left {
            Some(0) => Err(io::Error::other("the power is gone")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

fn apply(names: &mut BTreeMap<PathBuf, u64>, change: &NameChange) {
    for (path, number) in change {
        match number {
            Some(number) => names.insert(path.clone(), *number),
            None => names.remove(path),
        };
    }
}

/// The disk, shared by the log that opens on it and the operations that follow.
#[derive(Clone, Default)]
pub(crate) struct MemoryDisk(Arc<Mutex<State>>);

impl MemoryDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics with the lock")
    }

    /// A copy that shares nothing.
    pub(crate) fn fork(&self) -> MemoryDisk {
        MemoryDisk(Arc::new(Mutex::new(self.state().clone())))
    }

    /// The power fails, and comes back.
    pub(crate) fn power_failure(&self, rng: &mut Rng, keep: f64) {
        let mut state = self.state();
        state.calls_left = None;
        for change in std::mem::take(&mut state.unsynced) {
            if rng.f64() < keep {
                apply(&mut state.durable_names, &change);
            }
        }
        state.names = state.durable_names.clone();
        let mut numbers: Vec<u64> = state.inodes.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            if let Some(inode) = state.inodes.get_mut(&number) {
                inode.lose(rng, keep);
            }
        }
    }

    /// Lets that many blocking calls succeed, then none until the next power failure.
    pub(crate) fn fail_after(&self, calls: Option<u32>) {
        self.state().calls_left = calls;
    }

    pub(crate) fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    pub(crate) fn bytes(&self, path: &Path) -> Vec<u8> {
        self.state().inode(path).expect("the file is there").live.clone()
    }

    /// Changes a file behind everyone's back, for good.
    pub(crate) fn tamper(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let inode = state.inode(path).expect("the file is there");
        change(&mut inode.live);
        inode.durable = inode.live.clone();
        inode.dirty.clear();
    }

    /// Makes a file of these bytes.
    pub(crate) fn place(&self, path: &Path, bytes: &[u8]) {
        let mut state = self.state();
        let number = state.make();
        state.change(vec![(path.to_owned(), Some(number))]);
        state.sync_names();
        drop(state);
        self.tamper(path, |content| *content = bytes.to_vec());
    }

    pub(crate) fn unlink(&self, path: &Path) {
        let mut state = self.state();
        state.change(vec![(path.to_owned(), None)]);
        state.sync_names();
    }

    pub(crate) fn names_in(&self, dir: &Path) -> Vec<String> {
        let state = self.state();
        let names = state.names.keys().filter(|path| path.parent() == Some(dir));
        names.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let state = self.state();
        let name = |path: &PathBuf| path.file_name().map(|n| n.to_string_lossy().into_owned());
        state.names.keys().filter_map(name).collect()
    }
}

struct LiveFile {
    disk: MemoryDisk,
    number: u64,
    len: u64,
}

impl LiveBytes for LiveFile {
    fn read(&self, offset: u64, len: usize) -> Bytes {
        let state = self.disk.state();
        let live = &state.inodes[&self.number].live;
        let end = live.len().min(self.len as usize);
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(end);
        Bytes::copy_from_slice(&live[from..from.saturating_add(len).min(end)])
    }

    fn len(&self) -> u64 {
        self.len
    }
}

impl Disk for MemoryDisk {
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut state = self.state();
        state.call()?;
        let entries = state.names.iter().filter(|(path, _)| path.parent() == Some(dir));
        Ok(entries
            .map(|(path, number)| Entry {
                name: path.file_name().expect("a file").to_string_lossy().into_owned(),
                len: state.inodes[number].live.len() as u64,
            })
            .collect())
    }

    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        self.state().call()
    }

    fn view(&self, path: &Path) -> io::Result<View> {
        let mut state = self.state();
        state.call()?;
        let number = state.number(path)?;
        let len = state.inodes[&number].live.len() as u64;
        drop(state);
        Ok(View::live(Arc::new(LiveFile { disk: self.clone(), number, len })))
    }

    fn overwrite(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let alive = state.call();
        let inode = state.inode(path)?;
        inode.write(offset as usize, bytes);
        alive?;
        inode.sync();
        Ok(())
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".new");
        let temporary = PathBuf::from(temporary);
        let mut state = self.state();
        let alive = state.call();
        let number = state.make();
        state.change(vec![(temporary.clone(), Some(number))]);
        state.room_for(number, bytes.len())?;
        state.inodes.get_mut(&number).expect("just made").write(0, bytes);
        alive?;
        state.inodes.get_mut(&number).expect("just made").sync();
        state.change(vec![(temporary, None), (path.to_owned(), Some(number))]);
        state.sync_names();
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let alive = state.call();
        state.number(path)?;
        state.change(vec![(path.to_owned(), None)]);
        alive?;
        state.sync_names();
        Ok(())
    }
}

/// What goes wrong with an operation that a test picks.
pub(crate) type Fault = Box<dyn FnMut(&FileOp) -> Option<io::ErrorKind>>;

/// Operations on a [`MemoryDisk`], carried out when and in the order that the test chooses.
#[derive(Default)]
pub(crate) struct MemoryFiles {
    pub(crate) disk: MemoryDisk,
    waiting: Vec<(u64, FileOp)>,
    open: HashMap<File, u64>,
    handles: FileNames,
    pub(crate) fault: Option<Fault>,
}

impl Files for MemoryFiles {
    fn submit(&mut self, ticket: u64, op: FileOp) {
        self.waiting.push((ticket, op));
    }
}

impl Backend for MemoryFiles {
    fn disk(&self) -> Box<dyn Disk> {
        Box::new(self.disk.clone())
    }

    fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn run(&mut self, at: usize) -> FileDone {
        let (ticket, mut op) = self.waiting.remove(at);
        let fault = self.fault.as_mut().and_then(|fault| fault(&op));
        let result = match fault {
            None if let FileOp::Read { file, offset, buf } = &mut op => {
                let state = self.disk.state();
                let live = &state.inodes[&self.open[file]].live;
                let from = (*offset as usize).min(live.len());
                buf.clear();
                buf.push(&live[from..]);
                Ok(FileOutput::Done)
            }
            None => self.carry_out(&op),
            Some(kind) => {
                self.fail(&op);
                Err(kind.into())
            }
        };
        let buf = match op {
            FileOp::Read { buf, .. } | FileOp::Write { buf, .. } => Some(buf),
            FileOp::WriteSync { buf, .. } => Some(buf),
            _ => None,
        };
        FileDone { ticket, result, buf }
    }

    fn stop(&mut self) {
        self.waiting.clear();
        self.open.clear();
        self.fault = None;
    }
}

impl MemoryFiles {
    /// Another process, on the same disk.
    pub(crate) fn on(disk: MemoryDisk) -> MemoryFiles {
        MemoryFiles { disk, ..MemoryFiles::default() }
    }

    pub(crate) fn open_files(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn waiting_ops(&self) -> impl Iterator<Item = &FileOp> {
        self.waiting.iter().map(|(_, op)| op)
    }

    /// The process is killed: each operation under way has begun or not.
    pub(crate) fn kill(&mut self, rng: &mut Rng) {
        for (_, op) in std::mem::take(&mut self.waiting) {
            if rng.bool() {
                self.interrupt(&op);
            }
        }
        self.stop();
    }

    /// The process is killed, and the power fails.
    pub(crate) fn power_failure(&mut self, rng: &mut Rng, keep: f64) {
        self.kill(rng);
        self.disk.power_failure(rng, keep);
    }

    fn carry_out(&mut self, op: &FileOp) -> io::Result<FileOutput> {
        let mut state = self.disk.state();
        match op {
            FileOp::Open { path, mode } => {
                let number = match (mode, state.number(path)) {
                    (OpenMode::CreateNew, Ok(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
                    (OpenMode::CreateNew, Err(_)) => {
                        let number = state.make();
                        state.change(vec![(path.clone(), Some(number))]);
                        number
                    }
                    (_, number) => number?,
                };
                let name = self.handles.next();
                self.open.insert(name, number);
                return Ok(FileOutput::Opened(name));
            }
            FileOp::Read { .. } => unreachable!("reads have a buffer to fill"),
            FileOp::Write { file, offset, buf } | FileOp::WriteSync { file, offset, buf } => {
                let number = self.open[file];
                state.room_for(number, *offset as usize + buf.len())?;
                let inode = state.inodes.get_mut(&number).expect("an open file has an inode");
                inode.write(*offset as usize, buf);
                if let FileOp::WriteSync { .. } = op {
                    inode.sync();
                }
            }
            FileOp::Sync { file } => {
                let number = self.open[file];
                state.inodes.get_mut(&number).expect("an open file has an inode").sync();
            }
            FileOp::Map { file, len } => {
                let number = self.open[file];
                assert!(state.inodes[&number].live.len() as u64 >= *len, "mapped past its end");
                let live = LiveFile { disk: self.disk.clone(), number, len: *len };
                return Ok(FileOutput::Mapped(View::live(Arc::new(live))));
            }
            FileOp::Close { file } => {
                self.open.remove(file).expect("a file is closed once");
            }
            FileOp::Rename { from, to } => {
                let number = state.number(from)?;
                state.change(vec![(from.clone(), None), (to.clone(), Some(number))]);
            }
            FileOp::Link { from, to } => {
                let number = state.number(from)?;
                if state.number(to).is_ok() {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                state.change(vec![(to.clone(), Some(number))]);
            }
            FileOp::Remove { path } => {
                state.number(path)?;
                state.change(vec![(path.clone(), None)]);
            }
            FileOp::SyncDir { .. } => state.sync_names(),
        }
        Ok(FileOutput::Done)
    }

    /// What an operation leaves behind that the power failure cuts short: its writes are under
    /// way, its sync is not done.
    fn interrupt(&mut self, op: &FileOp) {
        match op {
            FileOp::Write { file, offset, buf } | FileOp::WriteSync { file, offset, buf } => {
                self.inode(*file, |inode| inode.write(*offset as usize, buf));
            }
            FileOp::Rename { .. } | FileOp::Link { .. } | FileOp::Remove { .. } => {
                let _ = self.carry_out(op);
            }
            _ => {}
        }
    }

    /// What an operation leaves behind that fails.
    fn fail(&mut self, op: &FileOp) {
        match op {
            FileOp::Write { file, offset, buf } => {
                let half = &buf[..buf.len() / 2];
                self.inode(*file, |inode| inode.write(*offset as usize, half));
            }
            FileOp::WriteSync { file, offset, buf } => self.inode(*file, |inode| {
                inode.write(*offset as usize, buf);
                inode.dirty.clear();
            }),
            FileOp::Sync { file } => self.inode(*file, |inode| inode.dirty.clear()),
            _ => {}
        }
    }

    fn inode(&mut self, file: File, change: impl FnOnce(&mut Inode)) {
        let number = self.open[&file];
        change(self.disk.state().inodes.get_mut(&number).expect("an open file has an inode"));
    }
}
