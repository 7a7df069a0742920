//! The operations on files as a kernel would carry them out. Each takes effect at one moment
//! between its start and its completion; [`FileOp::WriteSync`] at two, and a crash may come
//! between them.

use std::io;
use std::path::{Path, PathBuf};

use super::disk::InodeRef;
use super::ops::Work;
use super::plan::Access;
use super::state::{OpenFile, State, rule};
use crate::buf::IoBuf;
use crate::driver::{File, FileOp, FileOutput, OpenMode, Outcome, Token};

/// A file operation under way.
pub(super) enum FileWork {
    Open {
        path: PathBuf,
        mode: OpenMode,
    },
    Read {
        inode: InodeRef,
        offset: u64,
        buf: IoBuf,
    },
    Write {
        inode: InodeRef,
        offset: u64,
        buf: IoBuf,
        sync: bool,
    },
    /// The second half of a write with a sync.
    WriteSynced {
        inode: InodeRef,
        buf: IoBuf,
        mark: u64,
    },
    Sync {
        inode: InodeRef,
        mark: u64,
    },
    Map {
        inode: InodeRef,
        len: u64,
    },
    Close,
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Link {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    SyncDir {
        path: PathBuf,
        mark: u64,
    },
    /// An operation on a file that was not opened for it.
    Forbidden {
        buf: IoBuf,
    },
}

impl State {
    pub(super) fn start_file(&mut self, core: usize, token: Token, op: FileOp) {
        // What a sync covers is settled now: what was completed before it was asked for.
        let mark = self.store.mark();
        let work = match op {
            FileOp::Open { path, mode } => FileWork::Open { path, mode },
            FileOp::Read { file, offset, buf } => {
                FileWork::Read { inode: self.file(core, file).0, offset, buf }
            }
            FileOp::Write { file, offset, buf } => self.write_work(core, file, offset, buf, false),
            FileOp::WriteSync { file, offset, buf } => {
                self.write_work(core, file, offset, buf, true)
            }
            FileOp::Sync { file } => FileWork::Sync { inode: self.file(core, file).0, mark },
            FileOp::Map { file, len } => FileWork::Map { inode: self.file(core, file).0, len },
            FileOp::Close { file } => {
                self.file(core, file);
                self.cores[core].files.remove(&file.0);
                FileWork::Close
            }
            FileOp::Rename { from, to } => FileWork::Rename { from, to },
            FileOp::Link { from, to } => FileWork::Link { from, to },
            FileOp::Remove { path } => FileWork::Remove { path },
            FileOp::SyncDir { path } => FileWork::SyncDir { path, mark },
        };
        let op = self.add_op(core, token, Work::File(work));
        let at = self.after_disk();
        self.schedule_op(at, core, op);
    }

    fn write_work(
        &mut self,
        core: usize,
        file: File,
        offset: u64,
        buf: IoBuf,
        sync: bool,
    ) -> FileWork {
        let (inode, mode) = self.file(core, file);
        if mode == OpenMode::Read {
            return FileWork::Forbidden { buf };
        }
        FileWork::Write { inode, offset, buf, sync }
    }

    fn file(&mut self, core: usize, file: File) -> (InodeRef, OpenMode) {
        let open = self.cores[core].files.get(&file.0);
        rule!(self, open.is_some(), "an operation on {file:?}, which is not open");
        let open = open.expect("the rule holds");
        (InodeRef::clone(&open.inode), open.mode)
    }

    pub(super) fn go_on_with_file(&mut self, core: usize, op: u64) {
        let pending = self.cores[core].ops.get_mut(&op).expect("the caller has seen it");
        // Its place is kept until the completion, by something that does nothing.
        let work = std::mem::replace(&mut pending.work, Work::File(FileWork::Close));
        let Work::File(work) = work else { panic!("the caller has seen that it is on a file") };
        let (result, buf) = match work {
            FileWork::Write { inode, offset, buf, sync: true } => {
                match self.write(&inode, offset, &buf) {
                    Ok(()) => {
                        let mark = self.store.mark();
                        let second = Work::File(FileWork::WriteSynced { inode, buf, mark });
                        self.cores[core].ops.get_mut(&op).expect("it goes on").work = second;
                        let at = self.after_disk();
                        self.schedule_op(at, core, op);
                        return;
                    }
                    Err(error) => (Err(error), Some(buf)),
                }
            }
            work => self.carry_out(core, work),
        };
        self.complete(core, op, Outcome::File(result, buf), false);
    }

    /// Does what a dying core asked of the disk; nobody hears of it.
    pub(super) fn carry_out_file(&mut self, core: usize, op: u64) {
        let pending = self.cores[core].ops.get_mut(&op).expect("the caller has seen it");
        let work = std::mem::replace(&mut pending.work, Work::File(FileWork::Close));
        if let Work::File(work) = work {
            let _ = self.carry_out(core, work);
        }
    }

    fn carry_out(
        &mut self,
        core: usize,
        work: FileWork,
    ) -> (io::Result<FileOutput>, Option<IoBuf>) {
        match work {
            FileWork::Open { path, mode } => (self.open(core, &path, mode), None),
            FileWork::Read { inode, offset, mut buf } => {
                let result = self.fault(Access::Read).map(|()| {
                    buf.set_len(buf.capacity());
                    let len = inode.lock().read_into(offset, &mut buf);
                    buf.set_len(len);
                    FileOutput::Done
                });
                (result, Some(buf))
            }
            FileWork::Write { inode, offset, buf, .. } => {
                (self.write(&inode, offset, &buf).map(|()| FileOutput::Done), Some(buf))
            }
            FileWork::WriteSynced { inode, buf, mark } => {
                (self.sync(&inode, mark).map(|()| FileOutput::Done), Some(buf))
            }
            FileWork::Sync { inode, mark } => {
                (self.sync(&inode, mark).map(|()| FileOutput::Done), None)
            }
            FileWork::Map { inode, len } => {
                let result =
                    self.fault(Access::Map).and_then(|()| inode.view(len).map(FileOutput::Mapped));
                (result, None)
            }
            FileWork::Close => (Ok(FileOutput::Done), None),
            FileWork::Rename { from, to } => {
                let result =
                    self.fault(Access::Rename).and_then(|()| self.store.rename(&from, &to));
                (result.map(|()| FileOutput::Done), None)
            }
            FileWork::Link { from, to } => {
                let result = self.fault(Access::Link).and_then(|()| self.store.link(&from, &to));
                (result.map(|()| FileOutput::Done), None)
            }
            FileWork::Remove { path } => {
                let result = self.fault(Access::Remove).and_then(|()| self.store.remove(&path));
                (result.map(|()| FileOutput::Done), None)
            }
            FileWork::SyncDir { path, mark } => {
                let result =
                    self.fault(Access::SyncDir).and_then(|()| self.store.sync_dir(&path, mark));
                (result.map(|()| FileOutput::Done), None)
            }
            FileWork::Forbidden { buf } => {
                (Err(io::Error::from_raw_os_error(libc::EBADF)), Some(buf))
            }
        }
    }

    fn open(&mut self, core: usize, path: &Path, mode: OpenMode) -> io::Result<FileOutput> {
        self.fault(Access::Open)?;
        let inode = self.store.open(path, mode)?;
        self.last_file += 1;
        let file = File(self.last_file);
        if self.cores[core].alive {
            self.cores[core].files.insert(file.0, OpenFile { inode, mode });
        }
        Ok(FileOutput::Opened(file))
    }

    /// Fails one access in so many, or the one that a test has chosen.
    pub(super) fn fault(&mut self, access: Access) -> io::Result<()> {
        let chance = match access {
            Access::Open | Access::Read | Access::Map => self.plan.read_error,
            Access::Write => self.plan.write_error,
            Access::Sync | Access::SyncDir => self.plan.sync_error,
            Access::Rename | Access::Link | Access::Remove => 0.0,
        };
        let code = self.store.chosen_fault(access);
        match code.or_else(|| self.chance(chance).then_some(libc::EIO)) {
            Some(code) => Err(io::Error::from_raw_os_error(code)),
            None => Ok(()),
        }
    }

    pub(super) fn write(&mut self, inode: &InodeRef, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let failed = self.fault(Access::Write);
        let room = self.store.room_for(inode, offset, bytes.len());
        let len = match &failed {
            Ok(()) => room,
            Err(_) => self.rng.usize(..=room),
        };
        self.store.write(inode, offset, &bytes[..len]);
        failed?;
        if len < bytes.len() {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        Ok(())
    }

    pub(super) fn sync(&mut self, inode: &InodeRef, mark: u64) -> io::Result<()> {
        let failed = self.fault(Access::Sync);
        match &failed {
            Ok(()) => inode.lock().sync(mark),
            Err(_) => inode.lock().forget(mark),
        }
        failed
    }
}
