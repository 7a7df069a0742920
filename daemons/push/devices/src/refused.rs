//! Why the registry does not take something.

use crate::limits::APP_BYTES_MAX;
use crate::syntax::BUILT_IN_KEYS;

/// Why a device was not taken, and is as before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The name of an app is none.
    #[error("an app is named by 1 to {APP_BYTES_MAX} of a-z, 0-9, `.`, `_` and `-`")]
    AppName,
    /// There is no app of this name.
    #[error("there is no such app")]
    UnknownApp,
    /// There is no device of this id.
    #[error("there is no such device")]
    UnknownDevice,
    /// The id is none.
    #[error(
        "a device id has 1 to 128 bytes, none of them `/`, `+`, `#` or null, and does not begin \
         with `$`"
    )]
    Id,
    /// The platform is none.
    #[error("a platform is 1 to 32 of a-z, 0-9, `.`, `_` and `-`")]
    Platform,
    /// The version is none.
    #[error("a version is one to six numbers with dots between them, and perhaps `-` and more")]
    AppVersion,
    /// There is no such time zone.
    #[error("there is no time zone of this name; they are written like `Asia/Shanghai`")]
    TimeZone,
    /// The language is not written as it must be.
    #[error("a language is written like `zh`, `zh-CN` or `zh-Hant-TW`")]
    Language,
    /// The alias is none.
    #[error("an alias has 1 to {bytes_max} bytes, and no control characters")]
    Alias {
        /// How long it may be.
        bytes_max: usize,
    },
    /// A tag is none.
    #[error("the tag {tag:?}: a tag has 1 to {bytes_max} bytes, and no control characters")]
    Tag {
        /// Which, or its beginning.
        tag: String,
        /// How long it may be.
        bytes_max: usize,
    },
    /// The key of an attribute is none.
    #[error(
        "the attribute {key:?}: a key has 1 to {bytes_max} bytes, no control characters, and is \
         none of {}", BUILT_IN_KEYS.join(", ")
    )]
    Key {
        /// Which, or its beginning.
        key: String,
        /// How long it may be.
        bytes_max: usize,
    },
    /// The value of an attribute is none.
    #[error("the attribute {key:?}: a value has 1 to {bytes_max} bytes, no control characters")]
    Value {
        /// Of which key.
        key: String,
        /// How long it may be.
        bytes_max: usize,
    },
    /// The device has too many tags.
    #[error("a device has {max} tags at most")]
    TooManyTags {
        /// How many it may have.
        max: usize,
    },
    /// The device has too many attributes.
    #[error("a device has {max} attributes at most")]
    TooManyAttributes {
        /// How many it may have.
        max: usize,
    },
    /// Too many devices have the alias already.
    #[error("{max} devices have this alias, and no more may")]
    AliasFull {
        /// How many may.
        max: usize,
    },
    /// The app's devices have too many distinct tags.
    #[error("the app has {max} distinct tags, and no more are taken")]
    TagsFull {
        /// How many there may be.
        max: usize,
    },
    /// The app's devices have too many distinct keys.
    #[error("the app has {max} distinct keys of attributes, and no more are taken")]
    KeysFull {
        /// How many there may be.
        max: usize,
    },
    /// The app's devices have too many distinct values.
    #[error("the app has {max} distinct values of attributes, and no more are taken")]
    ValuesFull {
        /// How many there may be.
        max: usize,
    },
    /// There are too many apps.
    #[error("there are {max} apps, and no more are taken")]
    AppsFull {
        /// How many there may be.
        max: usize,
    },
    /// There are too many devices.
    #[error("there are {max} devices, and no more are taken")]
    DevicesFull {
        /// How many there may be.
        max: u32,
    },
    /// Too many numbers are in use, most likely since those of removed devices were not released.
    #[error("{max} numbers are in use, those of removed devices among them, and there are no more")]
    NumbersFull {
        /// How many may be.
        max: u32,
    },
    /// What is known of all devices takes the 4 GiB that there are for it.
    #[error("what is known of the devices takes 4 GiB, and there is no more room")]
    RowsFull,
    /// Tokens were revoked so often that there is no generation left.
    #[error("there is no generation of tokens left")]
    GenerationsFull,
}

/// A record that cannot be replayed. What came before it is in the registry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// It has another version, or is damaged.
    #[error("a record of the registry has a form that this version does not know")]
    Unreadable,
    /// It says what cannot be so after the records before it: they were not replayed in order, or
    /// some are missing.
    #[error("a record of the registry contradicts those before it: {0}")]
    Contradiction(&'static str),
    /// It says of a device what no device can have.
    #[error("a record of the registry says what cannot be: {0}")]
    Refused(#[from] Refused),
}
