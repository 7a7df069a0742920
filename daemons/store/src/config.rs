//! The daemon's settings: every key that exists, its default, and which values go together.
//!
//! [`Config`] is what `--print-config` shows. Of the database instances only the one that is there
//! without anybody making it is among them: [`Instance`] under `[default]`.

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sextant_cores::layout::{self, CORES_MAX};
use sextant_service::config::{Bytes, DurabilityError, Faults};
use sextant_service::{admin, telemetry};

pub use sextant_cores::driver::Driver;
pub use sextant_service::config::Durability;

/// The admin port where none is configured.
pub const ADMIN_PORT: u16 = 7702;
/// The port of the default instance where none is configured. Redis' own is left to Redis.
pub const REDIS_PORT: u16 = 6380;
/// Addresses of one instance.
pub const LISTEN_MAX: usize = 16;
/// Databases of one instance.
pub const DATABASES_MAX: u32 = 16_384;
/// Connections at once, and instances, that can be configured.
const CONNECTIONS_MAX: u32 = 10_000_000;
const INSTANCES_MAX: u32 = 100_000;
/// The longest path of a unix socket, bytes: `sun_path` of unix(7), less the zero that ends it.
const UNIX_PATH_BYTES_MAX: usize = 107;
/// With less memory an instance holds next to nothing.
const MEMORY_MIN: Bytes = Bytes::mib(1);

/// The settings of `sextant-store`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The directory of logs and token.
    pub data: PathBuf,
    /// Threads that serve clients; 0 is one per CPU. The data's, from the first start on.
    pub cores: u16,
    /// What the cores ask the kernel through.
    pub driver: Driver,
    /// Logs.
    pub telemetry: telemetry::Settings,
    /// The admin port and the HTTP API on it.
    pub admin: admin::Settings,
    /// What the daemon holds at most.
    pub limits: Limits,
    /// The instance that is there without anybody making it.
    pub default: Instance,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            data: PathBuf::from("./data/store"),
            cores: 0,
            driver: Driver::default(),
            telemetry: telemetry::Settings::default(),
            admin: admin::Settings::on(ADMIN_PORT),
            limits: Limits::default(),
            default: Instance::default(),
        }
    }
}

/// The settings under `[limits]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Connections at once, of all instances together.
    pub connections_max: u32,
    /// Database instances.
    pub instances_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { connections_max: 20_000, instances_max: 10_000 }
    }
}

/// A database instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Whether it is served.
    pub enabled: bool,
    /// Where clients connect to.
    pub listen: Vec<SocketAddr>,
    /// Where clients of this machine connect to, besides.
    pub unix_socket: Option<PathBuf>,
    /// Who may connect to that: permission bits, in octal.
    pub unix_socket_mode: Mode,
    /// Whether `listen` may only hold addresses that nobody but this machine reaches: without it
    /// anybody who reaches one may do anything.
    pub protected_mode: bool,
    /// When a change counts as kept.
    pub durability: Keeping,
    /// Memory that its keys and clients may take; 0 is no limit.
    pub memory_max: Bytes,
    /// Connections at once.
    pub connections_max: u32,
    /// Databases that SELECT chooses from.
    pub databases: u32,
}

impl Default for Instance {
    fn default() -> Self {
        Instance {
            enabled: true,
            listen: vec![SocketAddr::from(([127, 0, 0, 1], REDIS_PORT))],
            unix_socket: None,
            unix_socket_mode: Mode(0o700),
            protected_mode: true,
            durability: Keeping::Log(Durability::Always),
            memory_max: Bytes::new(0),
            connections_max: 10_000,
            databases: 16,
        }
    }
}

/// When a change counts as kept: `"none"`, or what a [`Durability`] is: `"always"`, `"os"`, or a
/// length of time such as `"50ms"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// Nothing is on disk: all is gone when the daemon ends.
    Nothing,
    /// It is, in a log.
    Log(Durability),
}

impl FromStr for Keeping {
    type Err = DurabilityError;

    fn from_str(text: &str) -> Result<Self, DurabilityError> {
        match text {
            "none" => Ok(Keeping::Nothing),
            _ => Ok(Keeping::Log(text.parse()?)),
        }
    }
}

impl fmt::Display for Keeping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Keeping::Nothing => f.write_str("none"),
            Keeping::Log(durability) => durability.fmt(f),
        }
    }
}

/// Permission bits, such as `"0700"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(pub u32);

/// Why a text is no permission bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected permission bits in octal, 0000 to 0777, such as \"0770\"")]
pub struct ModeError;

impl FromStr for Mode {
    type Err = ModeError;

    fn from_str(text: &str) -> Result<Self, ModeError> {
        let octal = (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        let bits = u32::from_str_radix(text, 8).ok().filter(|bits| octal && *bits <= 0o777);
        bits.map(Mode).ok_or(ModeError)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl Serialize for Keeping {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Keeping {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error| de::Error::custom(format_args!("{error}; or \"none\"")))
    }
}

impl Serialize for Mode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl Config {
    /// The number of cores of data that is new: what is configured, else one per CPU that this
    /// process may use.
    pub fn cores(&self) -> usize {
        layout::cores(self.cores)
    }
}

impl Limits {
    fn check(&self, faults: &mut Faults<'_>) {
        let counts = [
            ("limits.connections_max", self.connections_max, CONNECTIONS_MAX),
            ("limits.instances_max", self.instances_max, INSTANCES_MAX),
        ];
        for (key, value, max) in counts {
            let sane = (1..=max).contains(&value);
            faults.require(key, sane, format_args!("must be 1 to {max}"));
        }
    }
}

impl Instance {
    fn check(&self, limits: &Limits, faults: &mut Faults<'_>) {
        let somewhere = !self.enabled || !self.listen.is_empty() || self.unix_socket.is_some();
        faults.require(
            "default.listen",
            somewhere,
            "needs an address, unless there is default.unix_socket: default.enabled = false serves \
             nobody",
        );
        self.check_listen(faults);
        if let Some(path) = &self.unix_socket {
            check_unix_path(path, faults);
        }
        if let Keeping::Log(durability) = self.durability
            && let Err(what) = durability.check()
        {
            faults.add("default.durability", what);
        }
        faults.require(
            "default.memory_max",
            self.memory_max.get() == 0 || self.memory_max >= MEMORY_MIN,
            format_args!("must be {MEMORY_MIN} or more; 0 is no limit"),
        );
        let most = limits.connections_max;
        faults.require(
            "default.connections_max",
            (1..=most).contains(&self.connections_max),
            format_args!("must be 1 to limits.connections_max, which is {most}"),
        );
        faults.require(
            "default.databases",
            (1..=DATABASES_MAX).contains(&self.databases),
            format_args!("must be 1 to {DATABASES_MAX}"),
        );
    }

    fn check_listen(&self, faults: &mut Faults<'_>) {
        let few = self.listen.len() <= LISTEN_MAX;
        faults.require("default.listen", few, format_args!("must be {LISTEN_MAX} or fewer"));
        let mut seen = HashSet::new();
        for (index, addr) in self.listen.iter().enumerate() {
            let key = format!("default.listen[{index}]");
            let new = addr.port() == 0 || seen.insert(addr);
            faults.require(&key, new, "is there twice");
            faults.require(
                &key,
                !self.protected_mode || addr.ip().to_canonical().is_loopback(),
                format_args!(
                    "anybody who reaches {addr} could read and change everything: listen on \
                     127.0.0.1 alone, or, where others keep them away, set default.protected_mode \
                     = false"
                ),
            );
        }
    }
}

fn check_unix_path(path: &Path, faults: &mut Faults<'_>) {
    let len = path.as_os_str().as_bytes().len();
    faults.require(
        "default.unix_socket",
        (1..=UNIX_PATH_BYTES_MAX).contains(&len),
        format_args!("must be a path of 1 to {UNIX_PATH_BYTES_MAX} bytes"),
    );
}

impl sextant_service::config::Config for Config {
    fn check(&self, faults: &mut Faults<'_>) {
        let cores = format!("must be {CORES_MAX} or less; 0 is one per CPU");
        faults.require("cores", self.cores <= CORES_MAX, cores);
        faults.require("data", !self.data.as_os_str().is_empty(), "must not be empty");
        self.telemetry.check(faults);
        self.admin.check(faults);
        self.limits.check(faults);
        self.default.check(&self.limits, faults);
    }
}

#[cfg(test)]
mod tests;
