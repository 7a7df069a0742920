//! The process as a whole: a panic ends it, and its data directory is its own.
//!
//! A thread that panicked may have left shared state half changed, and a daemon whose one core is
//! gone looks healthy to nobody; so a panic anywhere ends the process at once, and what is durable
//! is what the log holds. The service manager starts it again.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

/// Makes every panic of this process say where and why, with what was logged before it, and abort.
///
/// Goes before the first thread is started.
pub fn abort_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed").to_owned();
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let what = panic.payload_as_str().unwrap_or("no message").to_owned();
        let backtrace = std::backtrace::Backtrace::capture().to_string();
        tracing::error!(thread = name, place, backtrace, "panic: {what}");
        crate::telemetry::flush();
        // Said again in plain text: the logger may be what panicked, or not be there yet.
        let _ = writeln!(io::stderr(), "thread {name} panicked at {place}: {what}");
        std::process::abort();
    }));
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataDirError {
    /// Another process has it. The operator's fault.
    #[error(
        "{} is in use by {}: two daemons must not share a data directory",
        .path.display(),
        .holder.map_or("another process".to_owned(), |pid| format!("process {pid}"))
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process that has it, as far as it told.
        holder: Option<u32>,
    },
    /// Anybody may write to it. The operator's fault.
    #[error("{} may be written to by anybody (mode {mode:03o}): chmod 0700 it", .path.display())]
    Unsafe {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file system refused.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// A data directory that this process alone uses, as long as this value lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Holds the `flock`; the kernel lets go of it when the process ends, however it ends.
    _lock: File,
}

const LOCK_NAME: &str = "LOCK";

impl DataDir {
    /// Makes the directory (mode 0700) if it is not there, and locks it.
    ///
    /// # Errors
    ///
    /// It is in use, unsafe, or the file system refuses.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, DataDirError> {
        let path = path.into();
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| DataDirError::Io { action, path, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(io("create directory", &path))?;
        let metadata = fs::metadata(&path).map_err(io("look at", &path))?;
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o002 != 0 {
            return Err(DataDirError::Unsafe { path, mode });
        }
        let lock_path = path.join(LOCK_NAME);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
            .open(&lock_path)
            .map_err(io("open", &lock_path))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(DataDirError::InUse { path, holder: holder(&mut lock) });
            }
            Err(error) => return Err(io("lock", &lock_path)(error.into())),
        }
        sign(&mut lock).map_err(io("write", &lock_path))?;
        Ok(Self { path, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether `metadata` is of something that only its owner, who is this user or root, may
    /// write.
    pub(crate) fn is_private(metadata: &fs::Metadata) -> bool {
        let owner = metadata.uid();
        let ours = owner == rustix::process::geteuid().as_raw() || owner == 0;
        ours && metadata.permissions().mode() & 0o077 == 0
    }
}

/// Leaves this process's id in the lock file, for the error of whoever comes next.
fn sign(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.seek(SeekFrom::Start(0))?;
    writeln!(lock, "{}", std::process::id())
}

fn holder(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_told_who_has_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data/push");
        let first = DataDir::open(&path).unwrap();
        let error = DataDir::open(&path).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
        drop(first);
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn the_directory_is_made_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data/push");
        let data = DataDir::open(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(data.path()), 0o700);
        assert_eq!(mode(&path.join(LOCK_NAME)), 0o600);
    }

    #[test]
    fn a_directory_that_anybody_may_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = DataDir::open(dir.path()).unwrap_err();
        assert!(matches!(error, DataDirError::Unsafe { mode: 0o777, .. }), "{error}");
    }

    #[test]
    fn a_lock_that_is_a_symbolic_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, dir.path().join(LOCK_NAME)).unwrap();
        assert!(matches!(DataDir::open(dir.path()), Err(DataDirError::Io { .. })));
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    }
}
