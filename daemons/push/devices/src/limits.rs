//! What the registry takes at most, each with a default that is written beside it. The bounds of
//! the second table hold whatever is configured: what a row in memory can say.
//!
//! Lowering a limit refuses what comes from then on; what is in the log already stays.

/// The longest device id, in bytes.
pub const ID_BYTES_MAX: usize = 128;
/// The longest name of an app, in bytes.
pub const APP_BYTES_MAX: usize = 64;
/// The longest name of a platform, in bytes.
pub const PLATFORM_BYTES_MAX: usize = 32;
/// The longest version of an app, in bytes.
pub const VERSION_BYTES_MAX: usize = 64;
/// The longest name of a time zone, in bytes.
pub const TIME_ZONE_BYTES_MAX: usize = 64;

/// What no configuration exceeds.
pub(crate) mod ceiling {
    pub(crate) const APPS: usize = u16::MAX as usize;
    pub(crate) const PER_DEVICE: usize = 256;
    pub(crate) const TEXT_BYTES: usize = 255;
    pub(crate) const DISTINCT: usize = 1 << 30;
    pub(crate) const NUMBERS: u32 = u32::MAX - 1;
}

/// What a registry takes at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Apps. 1,000; never above 65,535.
    pub apps: usize,
    /// Devices of all apps. 10,000,000.
    pub devices: u32,
    /// Numbers in use: those of devices, and those of removed devices that were not released.
    /// 50,000,000.
    pub numbers: u32,
    /// Devices that have the same alias. 100; finding and changing one looks at all of them.
    pub devices_per_alias: usize,
    /// Tags of a device. 64; never above 256.
    pub tags_per_device: usize,
    /// Attributes of a device. 32; never above 256.
    pub attributes_per_device: usize,
    /// Bytes of a tag. 64; never above 255.
    pub tag_bytes: usize,
    /// Bytes of an attribute's key. 64; never above 255.
    pub key_bytes: usize,
    /// Bytes of an alias, and of an attribute's value. 128; never above 255.
    pub value_bytes: usize,
    /// Distinct tags of an app. 100,000.
    pub tags_per_app: usize,
    /// Distinct keys of an app's attributes. 10,000.
    pub keys_per_app: usize,
    /// Distinct texts that the attributes of an app's devices have as values, with the distinct
    /// platforms, versions, languages and time zones. 1,000,000; one that a single device has
    /// costs about 200 bytes. Numbers are not counted.
    pub values_per_app: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            apps: 1000,
            devices: 10_000_000,
            numbers: 50_000_000,
            devices_per_alias: 100,
            tags_per_device: 64,
            attributes_per_device: 32,
            tag_bytes: 64,
            key_bytes: 64,
            value_bytes: 128,
            tags_per_app: 100_000,
            keys_per_app: 10_000,
            values_per_app: 1_000_000,
        }
    }
}

/// A limit that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is {value}, and must be 1 to {max}")]
pub struct LimitError {
    /// Which.
    pub name: &'static str,
    /// What it is.
    pub value: usize,
    /// What it may be at most.
    pub max: usize,
}

impl Limits {
    pub(crate) fn check(&self) -> Result<(), LimitError> {
        let all = [
            ("apps", self.apps, ceiling::APPS),
            ("devices", self.devices as usize, ceiling::NUMBERS as usize),
            ("numbers", self.numbers as usize, ceiling::NUMBERS as usize),
            ("devices_per_alias", self.devices_per_alias, 10_000),
            ("tags_per_device", self.tags_per_device, ceiling::PER_DEVICE),
            ("attributes_per_device", self.attributes_per_device, ceiling::PER_DEVICE),
            ("tag_bytes", self.tag_bytes, ceiling::TEXT_BYTES),
            ("key_bytes", self.key_bytes, ceiling::TEXT_BYTES),
            ("value_bytes", self.value_bytes, ceiling::TEXT_BYTES),
            ("tags_per_app", self.tags_per_app, ceiling::DISTINCT),
            ("keys_per_app", self.keys_per_app, ceiling::DISTINCT),
            ("values_per_app", self.values_per_app, ceiling::DISTINCT),
        ];
        let wrong = all.into_iter().find(|(_, value, max)| *value == 0 || value > max);
        wrong.map_or(Ok(()), |(name, value, max)| Err(LimitError { name, value, max }))
    }
}
