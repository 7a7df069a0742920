//! An instance made of its settings: its databases restored from its log, its listeners bound.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use anyhow::{Context, bail};
use sextant_engine::{Engine, Options};
use sextant_ring::disk::HostDisk;
use sextant_ring::driver::Listener;
use sextant_segment as segment;
use sextant_service::activation::{Activation, listen_soon, tcp_listener};
use sextant_shard::{Instance, Keeper, PART_BYTES};
use tracing::info;

use crate::config::{self, Durability, Keeping};

/// The default instance's number, and its name.
pub const DEFAULT: u32 = 1;
/// Its name in the log, and of its directory.
pub const DEFAULT_NAME: &str = "default";

/// Segment files of an instance: small first ones, since most instances are small.
const SEGMENT_BYTES_MIN: u32 = 512 << 10;
const SEGMENT_BYTES_MAX: u32 = 64 << 20;
/// All of them together, while no limit is configured.
const LOG_BYTES_MAX: u64 = 1 << 40;

/// The directory of an instance's log.
pub fn dir(data: &Path, name: &str) -> PathBuf {
    data.join("instances").join(name).join("log")
}

/// Makes the default instance; its log is in `ticket_space` of its core. Blocks until its log is
/// read.
///
/// # Errors
/// Its log or an address is not to be had.
pub fn open_default(
    settings: &config::Instance,
    data: &Path,
    ticket_space: u16,
    activation: &mut Activation,
) -> anyhow::Result<Instance> {
    let seed = random()?;
    let mut engine = Engine::new(&Options {
        seed,
        databases: settings.databases as usize,
        journal: settings.durability != Keeping::Nothing,
        clock: nanoseconds,
    });
    let keeper = match settings.durability {
        Keeping::Nothing => None,
        Keeping::Log(durability) => {
            let dir = dir(data, DEFAULT_NAME);
            let options = segment::Options {
                segment_bytes_min: SEGMENT_BYTES_MIN,
                segment_bytes_max: SEGMENT_BYTES_MAX,
                bytes_max: LOG_BYTES_MAX,
                record_bytes_max: PART_BYTES as u32,
                hot_bytes: 0,
                durability: of_log(durability),
                ..segment::Options::new(random()?, ticket_space)
            };
            let began = Instant::now();
            let (keeper, restored) = Keeper::open(&HostDisk, &dir, options, engine.keyspace())
                .with_context(|| format!("cannot open the log in {}", dir.display()))?;
            keeper.tell(DEFAULT_NAME, &restored);
            info!(instance = DEFAULT_NAME, ms = began.elapsed().as_millis() as u64, "restored");
            Some(keeper)
        }
    };
    let mut instance = Instance::new(DEFAULT, DEFAULT_NAME.to_owned(), engine, keeper);
    instance.connections_max = settings.connections_max;
    instance.listeners = listeners(settings, activation)?;
    Ok(instance)
}

/// Nanoseconds since the first call.
fn nanoseconds() -> u64 {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    BEGAN.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// A durability in the log's words.
fn of_log(durability: Durability) -> segment::Durability {
    match durability {
        Durability::Always => segment::Durability::Always,
        Durability::Every(span) => segment::Durability::Every(span.get()),
        Durability::Os => segment::Durability::Os,
    }
}

fn random() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).context("no random numbers")?;
    Ok(u64::from_ne_bytes(bytes))
}

/// Binds the addresses of an instance, or takes the sockets that were passed for it.
fn listeners(
    settings: &config::Instance,
    activation: &mut Activation,
) -> anyhow::Result<Vec<Arc<Listener>>> {
    let passed = activation.take(DEFAULT_NAME);
    let mut bound = Vec::new();
    if passed.is_empty() {
        for addr in &settings.listen {
            bound.push(listen_soon(*addr, "sextant-store")?);
        }
    } else {
        for fd in passed {
            bound.push(tcp_listener(fd)?);
        }
    }
    let mut listeners = Vec::new();
    for listener in bound {
        let addr = listener.local_addr()?;
        if settings.protected_mode && !addr.ip().to_canonical().is_loopback() {
            bail!(
                "{addr} is not a loopback address, and any client may do anything: set \
                 default.protected_mode = false where others keep strangers away"
            );
        }
        // Accepted connections inherit it: short replies do not wait for company.
        socket2::SockRef::from(&listener).set_tcp_nodelay(true)?;
        listeners.push(Arc::new(Listener::new(listener)?));
    }
    if let Some(path) = &settings.unix_socket {
        listeners.push(Arc::new(unix_listener(path, settings.unix_socket_mode)?));
    }
    Ok(listeners)
}

fn unix_listener(path: &Path, mode: config::Mode) -> anyhow::Result<Listener> {
    let in_vain = || format!("cannot listen on {}", path.display());
    // One that a daemon has left which was killed; a live one would be served by another process,
    // and that holds the data directory.
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(in_vain);
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(in_vain)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode.0)).with_context(in_vain)?;
    Listener::unix(listener).with_context(in_vain)
}
