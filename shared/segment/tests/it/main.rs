//! The log against everything that is not the log: an oracle, the host's file system, a disk that
//! forgets what was not synced, damage, faults, full disks, and `kill -9`.

mod checkpoint;
mod crash;
mod damage;
mod faults;
mod fetch;
mod host;
mod kernel;
mod kill;
mod life;
mod limits;
mod memory;
mod oracle;
mod retain;
mod rig;
mod sim;
mod snapshot;

use std::path::PathBuf;

use sextant_ring::driver::{File, FileOp, FileOutput, Files, OpenMode};
use sextant_ring::sim::{SimFiles, World};

/// Names for the open files of a stand-in for a driver. Only drivers make such names, so they are
/// borrowed from a simulated one.
struct FileNames {
    files: SimFiles,
    given: u64,
}

impl Default for FileNames {
    fn default() -> FileNames {
        FileNames { files: World::new(0).files(), given: 0 }
    }
}

impl FileNames {
    /// A name that was not given before.
    fn next(&mut self) -> File {
        self.given += 1;
        let path = PathBuf::from(format!("/{}", self.given));
        self.files.submit(0, FileOp::Open { path, mode: OpenMode::CreateNew });
        match self.files.wait().expect("it ends").result {
            Ok(FileOutput::Opened(file)) => file,
            other => panic!("{other:?}"),
        }
    }
}
