//! The limits of the platform, each with its default.

use std::path::PathBuf;

use sextant_devices::Limits;
use sextant_policy::CountLimits;

/// What the platform takes at most, and where it keeps it.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where its log (`log`) and its audit (`audit`) are.
    pub dir: PathBuf,
    /// Of the audit.
    pub audit: sextant_audit::Options,
    /// The log's files together, in bytes: 8 GiB.
    pub log_bytes_max: u64,
    /// Of the registry.
    pub devices: Limits,
    /// What devices have had.
    pub counters: CountLimits,
    /// Messages that are not over: 1,000,000. One for a single device takes about 300 bytes of
    /// memory, one for many a bit or two for each of its devices.
    pub messages_open_max: usize,
    /// Messages that are over and are told of from memory: 20,000. Of those before them the audit
    /// tells.
    pub messages_kept_max: usize,
    /// The longest message as a device gets it, in bytes: 16 KiB.
    pub payload_bytes_max: usize,
    /// Messages on their way to one device: 8. Those of the two highest priorities may be as many
    /// more.
    pub window: u8,
    /// Lists at once that no message needs: 1,000.
    pub lists_max: usize,
    /// Credentials of an app: 100.
    pub keys_per_app: usize,
}

impl Options {
    /// The defaults, in a directory.
    pub fn new(dir: PathBuf) -> Options {
        Options {
            dir,
            audit: sextant_audit::Options::default(),
            log_bytes_max: 8 << 30,
            devices: Limits::default(),
            counters: CountLimits::default(),
            messages_open_max: 1_000_000,
            messages_kept_max: 20_000,
            payload_bytes_max: 16 << 10,
            window: 8,
            lists_max: 1_000,
            keys_per_app: 100,
        }
    }
}
