//! The simulated disk: files with a page cache in front of what is durable.
//!
//! ```text
//!   Inode.data       what a read sees
//!   Inode.dirty      sector ─► what is durable of it, and every unsynced version since
//!   Store.names      what a look-up sees
//!   Store.undone     changes of directories that no SyncDir has made durable
//! ```
//!
//! A crash keeps of each dirty sector any of its versions, or none; of a file's length any that
//! it had since it was synced; of the directories' changes any. A sync covers the writes that
//! were complete when it was asked for. What a failed sync should have covered stays dirty for
//! good: the cache shows it, no later sync makes it durable (Linux marks such pages clean).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use fastrand::Rng;

use super::World;
use super::plan::Access;
use crate::disk::{Disk, Entry, LiveBytes, View};
use crate::driver::OpenMode;

/// What a disk writes as a whole or not at all.
const SECTOR: u64 = 512;

/// Versions of one sector that are kept apart; the oldest is forgotten first.
const VERSIONS_MAX: usize = 8;

struct Version {
    mark: u64,
    bytes: Bytes,
    /// A sync of it failed.
    forgotten: bool,
}

/// What there is of a sector beside what a read sees.
#[derive(Default)]
struct Dirty {
    durable: Bytes,
    versions: Vec<Version>,
}

/// A file's content.
#[derive(Default)]
pub(super) struct Inode {
    number: u64,
    data: Vec<u8>,
    dirty: BTreeMap<u64, Dirty>,
    durable_len: u64,
    /// Lengths since the last sync, each with the mark of the write that made it.
    lens: Vec<(u64, u64)>,
}

/// A file, shared by its directory entry, whoever has it open and whoever views it.
#[derive(Clone, Default)]
pub(super) struct InodeRef(Arc<Mutex<Inode>>);

impl InodeRef {
    pub(super) fn lock(&self) -> MutexGuard<'_, Inode> {
        // A panic with the lock held is a failed test; what is dropped meanwhile may go on.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A live view of the first `len` bytes.
    pub(super) fn view(&self, len: u64) -> io::Result<View> {
        if (self.lock().data.len() as u64) < len {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "file shorter than its map"));
        }
        Ok(View::live(Arc::new(Live { inode: self.clone(), len })))
    }
}

struct Live {
    inode: InodeRef,
    len: u64,
}

impl LiveBytes for Live {
    fn read(&self, offset: u64, len: usize) -> Bytes {
        let inode = self.inode.lock();
        let there = self.len.min(inode.data.len() as u64);
        let start = offset.min(there);
        let end = start.saturating_add(len as u64).min(there);
        Bytes::copy_from_slice(&inode.data[start as usize..end as usize])
    }

    fn len(&self) -> u64 {
        self.len
    }
}

impl Inode {
    pub(super) fn read_into(&self, offset: u64, buf: &mut [u8]) -> usize {
        let start = offset.min(self.data.len() as u64) as usize;
        let len = buf.len().min(self.data.len() - start);
        buf[..len].copy_from_slice(&self.data[start..start + len]);
        len
    }

    fn sector_bytes(&self, sector: u64) -> Range<usize> {
        let len = self.data.len();
        let start = ((sector * SECTOR) as usize).min(len);
        start..(start + SECTOR as usize).min(len)
    }

    fn write(&mut self, offset: u64, bytes: &[u8], mark: u64) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len() as u64;
        let sectors = offset / SECTOR..end.div_ceil(SECTOR);
        for sector in sectors.clone() {
            if !self.dirty.contains_key(&sector) {
                let durable = Bytes::copy_from_slice(&self.data[self.sector_bytes(sector)]);
                self.dirty.insert(sector, Dirty { durable, versions: Vec::new() });
            }
        }
        if end > self.data.len() as u64 {
            self.data.resize(end as usize, 0);
            self.lens.push((mark, end));
        }
        self.data[offset as usize..end as usize].copy_from_slice(bytes);
        let written =
            self.sector_bytes(sectors.start).start..self.sector_bytes(sectors.end - 1).end;
        let mut rest = Bytes::copy_from_slice(&self.data[written]);
        for sector in sectors {
            let bytes = rest.split_to(rest.len().min(SECTOR as usize));
            let dirty = self.dirty.get_mut(&sector).expect("it was put there above");
            if dirty.versions.len() == VERSIONS_MAX {
                dirty.versions.remove(0);
            }
            dirty.versions.push(Version { mark, bytes, forgotten: false });
        }
    }

    /// Makes durable what was written up to `mark`.
    pub(super) fn sync(&mut self, mark: u64) {
        self.dirty.retain(|_, dirty| {
            let covered = |version: &Version| version.mark <= mark && !version.forgotten;
            if let Some(newest) = dirty.versions.iter().rposition(covered) {
                dirty.durable = dirty.versions.drain(..=newest).next_back().expect("one").bytes;
            }
            !dirty.versions.is_empty()
        });
        for (_, len) in self.lens.extract_if(.., |(at, _)| *at <= mark) {
            self.durable_len = self.durable_len.max(len);
        }
    }

    /// What a failed sync does to what was written up to `mark`.
    pub(super) fn forget(&mut self, mark: u64) {
        for version in self.dirty.values_mut().flat_map(|dirty| &mut dirty.versions) {
            version.forgotten |= version.mark <= mark;
        }
    }

    fn is_durable(&self) -> bool {
        self.dirty.is_empty() && self.lens.is_empty()
    }

    /// The file as it is found after a crash.
    fn after_crash(&self, rng: &mut Rng, luck: Luck) -> Inode {
        let mut len = self.durable_len;
        if let Some(&(_, newest)) = self.lens.last() {
            len = match luck {
                Luck::All => newest,
                Luck::None => len,
                Luck::Each => {
                    let chosen = rng.usize(..=self.lens.len());
                    self.lens.get(chosen).map_or(len, |&(_, len)| len)
                }
            };
        }
        let mut data = self.data.clone();
        for (&sector, dirty) in &self.dirty {
            let versions = dirty.versions.len();
            let kept = match luck {
                Luck::All => versions,
                Luck::None => 0,
                Luck::Each => rng.usize(..=versions),
            };
            let bytes = match kept.checked_sub(1) {
                Some(version) => &dirty.versions[version].bytes,
                None => &dirty.durable,
            };
            let place = self.sector_bytes(sector);
            let (written, beyond) = data[place].split_at_mut(bytes.len());
            written.copy_from_slice(bytes);
            beyond.fill(0);
        }
        data.resize(len as usize, 0);
        Inode {
            number: self.number,
            data,
            dirty: BTreeMap::new(),
            durable_len: len,
            lens: Vec::new(),
        }
    }
}

/// How a crash treats what was not synced.
#[derive(Clone, Copy, Debug)]
enum Luck {
    All,
    None,
    Each,
}

impl Luck {
    fn draw(rng: &mut Rng) -> Luck {
        match rng.u8(..8) {
            0 => Luck::All,
            1 => Luck::None,
            _ => Luck::Each,
        }
    }
}

#[derive(Clone)]
enum Change {
    Created { path: PathBuf, inode: InodeRef },
    Renamed { from: PathBuf, to: PathBuf, inode: InodeRef },
    Removed { path: PathBuf, inode: InodeRef },
}

impl Change {
    fn inode(&self) -> &InodeRef {
        match self {
            Change::Created { inode, .. }
            | Change::Renamed { inode, .. }
            | Change::Removed { inode, .. } => inode,
        }
    }

    fn is_in(&self, dir: &Path) -> bool {
        match self {
            Change::Created { path, .. } | Change::Removed { path, .. } => parent(path) == dir,
            Change::Renamed { from, to, .. } => parent(from) == dir || parent(to) == dir,
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, InodeRef>) {
        let is_at = |names: &BTreeMap<PathBuf, InodeRef>, path: &Path, inode: &InodeRef| {
            names.get(path).is_some_and(|there| Arc::ptr_eq(&there.0, &inode.0))
        };
        match self {
            Change::Created { path, inode } => {
                names.insert(path.clone(), inode.clone());
            }
            Change::Renamed { from, to, inode } => {
                if is_at(names, from, inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), inode.clone());
            }
            Change::Removed { path, inode } => {
                if is_at(names, path, inode) {
                    names.remove(path);
                }
            }
        }
    }
}

struct Failure {
    access: Option<Access>,
    /// Accesses of the kind that still succeed.
    spared: u64,
    code: i32,
}

/// Everything on the disk.
pub(super) struct Store {
    names: BTreeMap<PathBuf, InodeRef>,
    durable_names: BTreeMap<PathBuf, InodeRef>,
    undone: Vec<(u64, Change)>,
    dirs: BTreeSet<PathBuf>,
    last_mark: u64,
    last_inode: u64,
    used: u64,
    pub(super) limit: u64,
    failures: Vec<Failure>,
}

impl Default for Store {
    fn default() -> Store {
        Store {
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            undone: Vec::new(),
            dirs: BTreeSet::new(),
            last_mark: 0,
            last_inode: 0,
            used: 0,
            limit: u64::MAX,
            failures: Vec::new(),
        }
    }
}

/// A path without its `.` parts, so that each file has one name.
fn clean(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

fn not_found() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOENT)
}

impl Store {
    /// The newest write or change.
    pub(super) fn mark(&self) -> u64 {
        self.last_mark
    }

    fn next_mark(&mut self) -> u64 {
        self.last_mark += 1;
        self.last_mark
    }

    pub(super) fn fail(&mut self, access: Option<Access>, spared: u64, code: i32) {
        self.failures.push(Failure { access, spared, code });
    }

    pub(super) fn chosen_fault(&mut self, access: Access) -> Option<i32> {
        let mut code = None;
        self.failures.retain_mut(|failure| {
            if failure.access.is_some_and(|of| of != access) || code.is_some() {
                return true;
            }
            let due = failure.spared == 0;
            if due {
                code = Some(failure.code);
            } else {
                failure.spared -= 1;
            }
            !due
        });
        code
    }

    fn has_dir(&self, dir: &Path) -> bool {
        dir.as_os_str().is_empty() || dir == Path::new("/") || self.dirs.contains(dir)
    }

    fn look_up(&self, path: &Path) -> io::Result<InodeRef> {
        self.names.get(&clean(path)).cloned().ok_or_else(not_found)
    }

    fn change(&mut self, change: Change) {
        let mark = self.next_mark();
        change.apply(&mut self.names);
        self.undone.push((mark, change));
    }

    fn new_inode(&mut self) -> InodeRef {
        self.last_inode += 1;
        let inode = Inode { number: self.last_inode, ..Inode::default() };
        InodeRef(Arc::new(Mutex::new(inode)))
    }

    pub(super) fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<InodeRef> {
        if mode != OpenMode::CreateNew {
            return self.look_up(path);
        }
        let path = clean(path);
        if self.names.contains_key(&path) || self.has_dir(&path) {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        if !self.has_dir(parent(&path)) {
            return Err(not_found());
        }
        let inode = self.new_inode();
        self.change(Change::Created { path, inode: inode.clone() });
        Ok(inode)
    }

    /// How many of `len` bytes at `offset` there is room for.
    pub(super) fn room_for(&self, inode: &InodeRef, offset: u64, len: usize) -> usize {
        let now = inode.lock().data.len() as u64;
        let free = self.limit.saturating_sub(self.used);
        let end = (offset + len as u64).min(now.saturating_add(free));
        end.saturating_sub(offset) as usize
    }

    pub(super) fn write(&mut self, inode: &InodeRef, offset: u64, bytes: &[u8]) {
        let mark = self.next_mark();
        let mut inode = inode.lock();
        let before = inode.data.len() as u64;
        inode.write(offset, bytes, mark);
        self.used += inode.data.len() as u64 - before;
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (clean(from), clean(to));
        let inode = self.look_up(&from)?;
        if !self.has_dir(parent(&to)) {
            return Err(not_found());
        }
        if self.has_dir(&to) {
            return Err(io::Error::from_raw_os_error(libc::EISDIR));
        }
        if from == to {
            return Ok(());
        }
        if let Some(replaced) = self.names.get(&to) {
            self.used -= replaced.lock().data.len() as u64;
        }
        self.change(Change::Renamed { from, to, inode });
        Ok(())
    }

    pub(super) fn link(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (clean(from), clean(to));
        let inode = self.look_up(&from)?;
        if self.names.contains_key(&to) || self.has_dir(&to) {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        if !self.has_dir(parent(&to)) {
            return Err(not_found());
        }
        // Each name counts, so that removing one gives back what it took.
        self.used += inode.lock().data.len() as u64;
        self.change(Change::Created { path: to, inode });
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        let path = clean(path);
        let inode = self.look_up(&path)?;
        self.used -= inode.lock().data.len() as u64;
        self.change(Change::Removed { path, inode });
        Ok(())
    }

    /// Makes a directory's changes durable, up to `mark`; with them what had happened before to
    /// the same files in other directories.
    pub(super) fn sync_dir(&mut self, dir: &Path, mark: u64) -> io::Result<()> {
        let dir = clean(dir);
        if !self.has_dir(&dir) {
            return Err(not_found());
        }
        let undone = std::mem::take(&mut self.undone);
        let mut covered = vec![false; undone.len()];
        for at in (0..undone.len()).rev() {
            let (when, change) = &undone[at];
            let same_file = |later: usize| {
                covered[later] && Arc::ptr_eq(&undone[later].1.inode().0, &change.inode().0)
            };
            covered[at] =
                *when <= mark && (change.is_in(&dir) || (at + 1..undone.len()).any(same_file));
        }
        for ((mark, change), covered) in undone.into_iter().zip(covered) {
            if covered {
                change.apply(&mut self.durable_names);
            } else {
                self.undone.push((mark, change));
            }
        }
        Ok(())
    }

    /// The disk as it is found after a crash.
    pub(super) fn crash(&mut self, rng: &mut Rng) {
        let luck = Luck::draw(rng);
        // A journal keeps changes in order; not every file system has one.
        let in_order = rng.bool();
        let kept_of_journal = rng.usize(..=self.undone.len());
        for (at, (_, change)) in std::mem::take(&mut self.undone).into_iter().enumerate() {
            let kept = match luck {
                Luck::All => true,
                Luck::None => false,
                Luck::Each if in_order => at < kept_of_journal,
                Luck::Each => rng.bool(),
            };
            if kept {
                change.apply(&mut self.durable_names);
            }
        }
        let luck = Luck::draw(rng);
        let mut found: BTreeMap<u64, InodeRef> = BTreeMap::new();
        self.used = 0;
        for inode in self.durable_names.values_mut() {
            let number = inode.lock().number;
            let after = found.entry(number).or_insert_with(|| {
                let after = inode.lock().after_crash(rng, luck);
                InodeRef(Arc::new(Mutex::new(after)))
            });
            *inode = after.clone();
            self.used += inode.lock().data.len() as u64;
        }
        self.names = self.durable_names.clone();
        self.failures.clear();
    }

    /// Whether a crash now would lose nothing.
    pub(super) fn is_durable(&self) -> bool {
        self.undone.is_empty() && self.names.values().all(|inode| inode.lock().is_durable())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let dir = clean(dir);
        if !self.has_dir(&dir) {
            return Err(not_found());
        }
        let in_dir = self.names.iter().filter(|(path, _)| parent(path) == dir);
        let mut entries: Vec<Entry> = in_dir
            .filter_map(|(path, inode)| {
                let name = path.file_name()?.to_str()?.to_owned();
                Some(Entry { name, len: inode.lock().data.len() as u64 })
            })
            .collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn create_dir_all(&mut self, dir: &Path) -> io::Result<()> {
        let dir = clean(dir);
        for at in dir.ancestors() {
            if self.names.contains_key(at) {
                return Err(io::Error::from_raw_os_error(libc::ENOTDIR));
            }
        }
        self.dirs.extend(dir.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn replace(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let path = clean(path);
        if path.file_name().is_none() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let dir = parent(&path).to_owned();
        if !self.has_dir(&dir) {
            return Err(not_found());
        }
        let inode = self.new_inode();
        if self.room_for(&inode, 0, bytes.len()) < bytes.len() {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        self.write(&inode, 0, bytes);
        inode.lock().sync(self.last_mark);
        if let Some(replaced) = self.names.get(&path) {
            self.used -= replaced.lock().data.len() as u64;
        }
        self.change(Change::Created { path, inode });
        self.sync_dir(&dir, self.last_mark)
    }
}

/// The simulated disk as a daemon's start-up sees it. Its calls take no time, and what [`Disk`]
/// calls durable is. [`World::fail_disk`] fails them too.
#[derive(Clone)]
pub struct SimDisk(pub(super) World);

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimDisk")
    }
}

impl Disk for SimDisk {
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut state = self.0.lock();
        state.fault(Access::Read)?;
        state.store.list(dir)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.fault(Access::Open)?;
        state.store.create_dir_all(dir)
    }

    fn view(&self, path: &Path) -> io::Result<View> {
        let mut state = self.0.lock();
        state.fault(Access::Map)?;
        let inode = state.store.look_up(path)?;
        let len = inode.lock().data.len() as u64;
        inode.view(len)
    }

    fn overwrite(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock();
        let inode = state.store.look_up(path)?;
        state.write(&inode, offset, bytes)?;
        let mark = state.store.mark();
        state.sync(&inode, mark)
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock();
        state.fault(Access::Write)?;
        if let Err(error) = state.fault(Access::Sync).and_then(|()| state.fault(Access::Rename)) {
            // The host's disk has written the new content beside the old by then.
            let mut beside = path.as_os_str().to_owned();
            beside.push(".new");
            state.store.replace(Path::new(&beside), bytes)?;
            return Err(error);
        }
        state.store.replace(path, bytes)?;
        state.fault(Access::SyncDir)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.fault(Access::Remove)?;
        state.store.remove(path)?;
        let mark = state.store.mark();
        let path = clean(path);
        state.store.sync_dir(parent(&path), mark)
    }
}
