//! File operations on the host's own file system, carried out when and in the order that the test
//! chooses.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;

use sextant_ring::buf::IoBuf;
use sextant_ring::disk::{Disk, HostDisk, View};
use sextant_ring::driver::{File, FileDone, FileOp, FileOutput, Files, OpenMode};

use crate::FileNames;
use crate::rig::Backend;

#[derive(Default)]
pub(crate) struct HostFiles {
    waiting: Vec<(u64, FileOp)>,
    open: HashMap<File, fs::File>,
    names: FileNames,
}

impl Files for HostFiles {
    fn submit(&mut self, ticket: u64, op: FileOp) {
        self.waiting.push((ticket, op));
    }
}

impl Backend for HostFiles {
    fn disk(&self) -> Box<dyn Disk> {
        Box::new(HostDisk)
    }

    fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn run(&mut self, at: usize) -> FileDone {
        let (ticket, op) = self.waiting.remove(at);
        let (result, buf) = self.carry_out(op);
        FileDone { ticket, result, buf }
    }

    fn stop(&mut self) {
        self.waiting.clear();
        self.open.clear();
    }
}

impl HostFiles {
    fn carry_out(&mut self, op: FileOp) -> (io::Result<FileOutput>, Option<IoBuf>) {
        let done = |()| FileOutput::Done;
        match op {
            FileOp::Open { path, mode } => {
                let file = fs::OpenOptions::new()
                    .read(true)
                    .write(mode != OpenMode::Read)
                    .create_new(mode == OpenMode::CreateNew)
                    .open(path);
                let opened = file.map(|file| {
                    let name = self.names.next();
                    self.open.insert(name, file);
                    FileOutput::Opened(name)
                });
                (opened, None)
            }
            FileOp::Read { file, offset, mut buf } => {
                buf.set_len(buf.capacity());
                let read = self.open[&file].read_at(&mut buf, offset);
                buf.set_len(*read.as_ref().unwrap_or(&0));
                (read.map(|_| FileOutput::Done), Some(buf))
            }
            FileOp::Write { file, offset, buf } => {
                (self.open[&file].write_all_at(&buf, offset).map(done), Some(buf))
            }
            FileOp::WriteSync { file, offset, buf } => {
                let file = &self.open[&file];
                let written = file.write_all_at(&buf, offset).and_then(|()| file.sync_data());
                (written.map(done), Some(buf))
            }
            FileOp::Sync { file } => (self.open[&file].sync_data().map(done), None),
            FileOp::Map { file, len } => {
                (View::map(&self.open[&file], len).map(FileOutput::Mapped), None)
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
}
