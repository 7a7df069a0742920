//! The settings of the sender platform.

use serde::{Deserialize, Serialize};
use sextant_audit::Retention;
use sextant_policy::Policy;
use sextant_policy::decide::Draft;
use sextant_service::config::{Bytes, Faults, Span};

/// The smallest audit: four segments of the smallest size, twice.
const AUDIT_BYTES_MIN: u64 = 16 << 20;

/// The settings under `[platform]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// Whether there is one: without it devices are not registered, and only `/v1/messages` pushes.
    pub enabled: bool,
    /// Devices of all apps at most.
    pub devices_max: u32,
    /// Messages that are not over at most.
    pub messages_open_max: u32,
    /// The longest message as a device gets it.
    pub payload_bytes_max: Bytes,
    /// Messages on their way to one device at once; of urgent ones twice as many.
    pub window: u8,
    /// What the files of its log may be together. Full, it takes no messages.
    pub log_bytes_max: Bytes,
    /// What the files of the audit may be together: the oldest goes first.
    pub audit_bytes_max: Bytes,
    /// What the audit says goes once it is this old; zero is as long as there is room.
    pub audit_keep: Span,
    /// How often a post to an app's webhook is tried, over half a second, one, two and so on, before
    /// what it says is a dead letter.
    pub webhook_attempts: u32,
    /// The rules of sending.
    pub policy: Policy,
}

impl Default for Platform {
    fn default() -> Self {
        Platform {
            enabled: true,
            devices_max: 10_000_000,
            messages_open_max: 1_000_000,
            payload_bytes_max: Bytes::kib(16),
            window: 8,
            log_bytes_max: Bytes::gib(8),
            audit_bytes_max: Bytes::gib(32),
            audit_keep: Span::secs(0),
            webhook_attempts: 8,
            policy: Policy::default(),
        }
    }
}

impl Platform {
    pub(super) fn check(&self, faults: &mut Faults<'_>) {
        faults.require(
            "platform.devices_max",
            (1..=1_000_000_000).contains(&self.devices_max),
            "must be 1 to 1000000000",
        );
        faults.require(
            "platform.messages_open_max",
            (1..=10_000_000).contains(&self.messages_open_max),
            "must be 1 to 10000000",
        );
        faults.require(
            "platform.payload_bytes_max",
            (Bytes::new(256)..=Bytes::kib(64)).contains(&self.payload_bytes_max),
            "must be 256B to 64KiB",
        );
        faults.require("platform.window", self.window > 0, "must be 1 or more");
        faults.require(
            "platform.log_bytes_max",
            self.log_bytes_max >= Bytes::mib(64),
            "must be 64MiB or more",
        );
        faults.require(
            "platform.audit_bytes_max",
            self.audit_bytes_max >= Bytes::new(AUDIT_BYTES_MIN),
            "must be 16MiB or more",
        );
        faults.require(
            "platform.webhook_attempts",
            (1..=100).contains(&self.webhook_attempts),
            "must be 1 to 100",
        );
        if let Err(error) = Draft::new(self.policy.clone()) {
            for fault in error.faults {
                faults.add(&format!("platform.policy.{}", fault.key), fault.what);
            }
        }
    }

    /// The limits of the platform in a directory.
    pub fn options(&self, dir: std::path::PathBuf) -> sextant_platform::Options {
        let keep = self.audit_keep.get();
        let retention = Retention {
            bytes_max: Some(self.audit_bytes_max.get()),
            age_max: (!keep.is_zero()).then_some(keep),
        };
        let audit = sextant_audit::Options {
            bytes_max: self.audit_bytes_max.get().saturating_mul(2),
            retention,
            ..sextant_audit::Options::default()
        };
        let devices = sextant_devices::Limits {
            devices: self.devices_max,
            numbers: self.devices_max.saturating_mul(5),
            ..sextant_devices::Limits::default()
        };
        sextant_platform::Options {
            audit,
            devices,
            log_bytes_max: self.log_bytes_max.get(),
            messages_open_max: self.messages_open_max as usize,
            payload_bytes_max: self.payload_bytes_max.as_usize(),
            window: self.window,
            ..sextant_platform::Options::new(dir)
        }
    }
}
