//! Which driver stands behind the cores, and how many sockets it may hold. All cores have the same
//! kind, since they share listeners and hand connections to each other; so it is chosen once,
//! before the first core starts.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use sextant_ring::mesh::Remote;
use sextant_ring::{epoll, uring};
use tracing::warn;

/// What the cores ask the kernel through: `"auto"`, `"io_uring"` or `"epoll"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Driver {
    /// io_uring where kernel and sandbox allow it, else epoll.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// io_uring, or no start.
    #[serde(rename = "io_uring")]
    IoUring,
    /// epoll, with a few threads for files.
    #[serde(rename = "epoll")]
    Epoll,
}

impl Driver {
    /// All of them, as they are written.
    pub const NAMES: [&str; 3] = ["auto", "io_uring", "epoll"];
}

/// Why there is no driver.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DriverError {
    /// io_uring is configured, and the host does not have it.
    #[error(
        "cannot make an io_uring: is it forbidden here (sysctl kernel.io_uring_disabled, a seccomp \
         profile), or the kernel older than 6.1? driver = \"auto\" does without where it has to"
    )]
    Forbidden(#[source] io::Error),
    /// A core cannot have its own.
    #[error("cannot make a core's {0}")]
    Core(&'static str, #[source] io::Error),
}

/// Connections of one core beyond the clients': those that are being refused, or are closing.
const SPARE_CONNECTIONS: u32 = 256;
/// Descriptors that connections leave to logs, HTTP and everything else, where they count against
/// the process's limit.
const OTHER_DESCRIPTORS: u32 = 1024;

/// What the cores of this process run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// Sockets are entries of each ring's own table.
    IoUring,
    /// Sockets are descriptors of the process.
    Epoll,
}

impl Chosen {
    /// Chooses as configured; `auto` is io_uring if a small ring can be made here.
    ///
    /// # Errors
    /// io_uring is configured and cannot be used.
    pub fn choose(configured: Driver) -> Result<Chosen, DriverError> {
        match configured {
            Driver::Epoll => Ok(Chosen::Epoll),
            Driver::IoUring => {
                probe().map_err(DriverError::Forbidden)?;
                Ok(Chosen::IoUring)
            }
            Driver::Auto => match probe() {
                Ok(()) => Ok(Chosen::IoUring),
                Err(error) => {
                    warn!(
                        %error,
                        "io_uring cannot be used here (sysctl kernel.io_uring_disabled, a seccomp \
                         profile, or a kernel older than 6.1): the cores run on epoll"
                    );
                    Ok(Chosen::Epoll)
                }
            },
        }
    }

    /// Its name, as in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Chosen::IoUring => "io_uring",
            Chosen::Epoll => "epoll",
        }
    }

    /// Sockets that each of `cores` shall be able to hold, so that there is room for
    /// `connections_max` in all: its share of them, which a hash makes nearly even, and an eighth
    /// of all for those that are on their way to another core.
    pub fn sockets_max(self, connections_max: u32, cores: usize) -> u32 {
        let limit = raise_descriptors();
        let share = connections_max / u32::try_from(cores).unwrap_or(u32::MAX).max(1);
        let wanted = share
            .saturating_add(connections_max / 8)
            .min(connections_max)
            .saturating_add(SPARE_CONNECTIONS);
        match self {
            // The limit bounds a ring's table; a core has as many rings as it takes.
            Chosen::IoUring => wanted,
            Chosen::Epoll => {
                let left = limit.saturating_sub(OTHER_DESCRIPTORS.min(limit / 4));
                if connections_max > left {
                    warn!(
                        connections_max,
                        possible = left,
                        "fewer connections than configured: raise LimitNOFILE"
                    );
                }
                wanted.min(left / u32::try_from(cores).unwrap_or(u32::MAX)).max(1)
            }
        }
    }
}

/// Whether a ring can be made here, by making a small one.
fn probe() -> io::Result<()> {
    let options = uring::Options {
        submissions: 8,
        completions: 16,
        sockets_max: 8,
        small: (1, 4096),
        bulk: (1, 4096),
        ..uring::Options::default()
    };
    uring::Uring::new(&options, Remote::host()?).map(drop)
}

/// Raises the process's limit on descriptors as far as it may, and tells it.
fn raise_descriptors() -> u32 {
    const MOST: u64 = 1 << 20;
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(MOST);
    if limit.current.is_some_and(|current| current < most) {
        let raised = Rlimit { current: Some(most), maximum: limit.maximum };
        // If not, there are fewer connections.
        let _ = setrlimit(Resource::Nofile, raised);
    }
    let now = getrlimit(Resource::Nofile).current.unwrap_or(MOST);
    u32::try_from(now.min(MOST)).unwrap_or(u32::MAX)
}

/// Makes a core's ring.
///
/// # Errors
/// The system's, as [`uring::Uring::new`].
pub fn io_uring(sockets_max: u32, remote: Remote) -> Result<uring::Uring, DriverError> {
    let options = uring::Options { sockets_max, ..uring::Options::default() };
    uring::Uring::new(&options, remote).map_err(|error| DriverError::Core("io_uring", error))
}

/// Makes a core's epoll instance.
///
/// # Errors
/// The system's, as [`epoll::Epoll::new`].
pub fn epoll(sockets_max: u32, remote: Remote) -> Result<epoll::Epoll, DriverError> {
    let options = epoll::Options { sockets_max, ..epoll::Options::default() };
    epoll::Epoll::new(&options, remote).map_err(|error| DriverError::Core("epoll instance", error))
}
