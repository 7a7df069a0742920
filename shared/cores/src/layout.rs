//! How many cores there are. What a core keeps is in files of its own, and which core that is
//! depends on their number: so the number is the data's, from its first start on. It is in the file
//! `cores` of the data directory, in decimal.

use std::io;
use std::path::{Path, PathBuf};

use sextant_ring::disk::{Disk, HostDisk};
use tracing::warn;

/// More cores than this are not asked for by a machine, but by a typing error.
pub const CORES_MAX: u16 = 128;

/// Why the data cannot be served by so many cores.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// The file is damaged.
    #[error("{} does not hold a number of cores", .0.display())]
    NoNumber(PathBuf),
    /// Another number is configured. The operator's to mend.
    #[error(
        "the data in {} is laid out for {laid_out} cores, and cannot be served by {wanted}: set \
         cores = {laid_out}, or leave it out",
        .data.display()
    )]
    Other {
        /// The data directory.
        data: PathBuf,
        /// The data's number of cores.
        laid_out: usize,
        /// The number that is configured.
        wanted: usize,
    },
    /// The file system refused.
    #[error("cannot read or write {}", .0.display())]
    Io(PathBuf, #[source] io::Error),
}

/// The number of cores: what is configured, else (0) one per CPU that this process may use.
pub fn cores(configured: u16) -> usize {
    match configured {
        0 => std::thread::available_parallelism()
            .map_or(1, |cpus| cpus.get().min(usize::from(CORES_MAX))),
        cores => usize::from(cores),
    }
}

/// The number of cores for the data in a directory, which is laid out for it if it is new.
///
/// # Errors
/// It is laid out for another number than the one configured, or the file system refuses.
pub fn lay_out(configured: u16, data: &Path) -> Result<usize, LayoutError> {
    let path = data.join("cores");
    let wanted = cores(configured);
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let laid_out: usize = text
                .trim()
                .parse()
                .ok()
                .filter(|cores| (1..=usize::from(CORES_MAX)).contains(cores))
                .ok_or(LayoutError::NoNumber(path))?;
            if laid_out != wanted && configured != 0 {
                return Err(LayoutError::Other { data: data.to_owned(), laid_out, wanted });
            }
            if laid_out != wanted {
                warn!(laid_out, cpus = wanted, "the data is laid out for another number of cores");
            }
            Ok(laid_out)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            match HostDisk.replace(&path, format!("{wanted}\n").as_bytes()) {
                Ok(()) => Ok(wanted),
                Err(error) => Err(LayoutError::Io(path, error)),
            }
        }
        Err(error) => Err(LayoutError::Io(path, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_start_says_how_many_cores_the_data_has() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(lay_out(3, dir.path()).unwrap(), 3);
        assert_eq!(std::fs::read_to_string(dir.path().join("cores")).unwrap(), "3\n");
        assert_eq!(lay_out(3, dir.path()).unwrap(), 3);
        assert_eq!(lay_out(0, dir.path()).unwrap(), 3, "whatever the CPUs");
        let error = lay_out(4, dir.path()).unwrap_err();
        assert!(error.to_string().contains("set cores = 3"), "{error}");
    }

    #[test]
    fn a_damaged_number_is_said() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "many", "0", "129", "-1"] {
            std::fs::write(dir.path().join("cores"), text).unwrap();
            let error = lay_out(0, dir.path()).unwrap_err();
            assert!(matches!(error, LayoutError::NoNumber(_)), "{text}: {error}");
        }
        let error = lay_out(1, &dir.path().join("nowhere")).unwrap_err();
        assert!(matches!(error, LayoutError::Io(..)), "{error}");
    }
}
