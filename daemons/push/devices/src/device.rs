//! What is registered of a device, as the registry's caller says and hears it, and the draft that
//! everything inside is written from.

use std::collections::{BTreeMap, BTreeSet};

use crate::Refused;
use crate::limits::{Limits, ceiling};
use crate::syntax::{
    BUILT_IN_KEYS, Version, is_id, is_language, is_platform, is_text, is_time_zone,
};

/// A finite number; there is one zero.
#[derive(Clone, Copy, Debug)]
pub struct Number(f64);

impl Number {
    /// `None` if `value` is not finite.
    pub fn new(value: f64) -> Option<Number> {
        // Adding zero makes a negative zero positive.
        value.is_finite().then_some(Number(value + 0.0))
    }

    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Number) -> bool {
        self.0 == other.0
    }
}

impl Eq for Number {}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Number) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Number) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl From<i32> for Number {
    fn from(value: i32) -> Number {
        Number(f64::from(value))
    }
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number, which expressions compare.
    Number(Number),
}

/// What a device registers; [`syntax`](crate::syntax) says how each of it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The client id that it connects to the broker with.
    pub id: String,
    /// Its app, which has to be known.
    pub app: String,
    /// `android`, `ios`, `web`, `harmony`, `linux` or another.
    pub platform: String,
    /// The app's version.
    pub app_version: Option<String>,
    /// The app's own name of who uses it; several devices may have the same.
    pub alias: Option<String>,
    /// Its tags.
    pub tags: BTreeSet<String>,
    /// Its attributes by their keys, of which none is one of [`BUILT_IN_KEYS`].
    pub attributes: BTreeMap<String, Value>,
    /// The IANA name of its time zone.
    pub time_zone: Option<String>,
    /// Its language, `zh-CN`.
    pub language: Option<String>,
    /// It is used for tests. Nothing here treats it in another way.
    pub test: bool,
}

impl Device {
    /// A device of which nothing more is known.
    pub fn new(id: &str, app: &str, platform: &str) -> Device {
        Device {
            id: id.to_owned(),
            app: app.to_owned(),
            platform: platform.to_owned(),
            app_version: None,
            alias: None,
            tags: BTreeSet::new(),
            attributes: BTreeMap::new(),
            time_zone: None,
            language: None,
            test: false,
        }
    }
}

/// A device as the registry has it. Times are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number, which is its own among those of all apps.
    pub number: u32,
    /// What it registered.
    pub device: Device,
    /// When it was registered first.
    pub registered_at: u64,
    /// When something of it changed last.
    pub updated_at: u64,
    /// How often its tokens were revoked.
    pub token_generation: u32,
}

/// What is to become of something that a device may have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Edit {
    /// It stays.
    #[default]
    Keep,
    /// It becomes this.
    Set(String),
    /// The device has it no more.
    Clear,
}

impl Edit {
    fn apply(&self, to: &mut Option<String>) {
        match self {
            Edit::Keep => {}
            Edit::Set(value) => *to = Some(value.clone()),
            Edit::Clear => *to = None,
        }
    }
}

/// A change of a part of a device. What is removed is removed before the rest is set; removing
/// what is not there is no error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// Another platform.
    pub platform: Option<String>,
    /// See [`Device::app_version`].
    pub app_version: Edit,
    /// See [`Device::alias`].
    pub alias: Edit,
    /// See [`Device::time_zone`].
    pub time_zone: Edit,
    /// See [`Device::language`].
    pub language: Edit,
    /// Whether it is used for tests.
    pub test: Option<bool>,
    /// Tags that it no longer has.
    pub remove_tags: Vec<String>,
    /// Tags that it has from now on.
    pub set_tags: Vec<String>,
    /// Keys of attributes that it no longer has.
    pub remove_attributes: Vec<String>,
    /// Attributes that it has from now on.
    pub set_attributes: Vec<(String, Value)>,
}

impl Update {
    pub(crate) fn apply(&self, device: &mut Device) {
        if let Some(platform) = &self.platform {
            device.platform.clone_from(platform);
        }
        self.app_version.apply(&mut device.app_version);
        self.alias.apply(&mut device.alias);
        self.time_zone.apply(&mut device.time_zone);
        self.language.apply(&mut device.language);
        device.test = self.test.unwrap_or(device.test);
        for tag in &self.remove_tags {
            device.tags.remove(tag);
        }
        device.tags.extend(self.set_tags.iter().cloned());
        for key in &self.remove_attributes {
            device.attributes.remove(key);
        }
        device.attributes.extend(self.set_attributes.iter().cloned());
    }
}

/// A part of a device that may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Field {
    /// See [`Device::app`].
    App,
    /// See [`Device::platform`].
    Platform,
    /// See [`Device::app_version`].
    AppVersion,
    /// See [`Device::alias`].
    Alias,
    /// See [`Device::tags`].
    Tags,
    /// See [`Device::attributes`].
    Attributes,
    /// See [`Device::time_zone`].
    TimeZone,
    /// See [`Device::language`].
    Language,
    /// See [`Device::test`].
    Test,
    /// See [`Entry::token_generation`].
    TokenGeneration,
}

/// An attribute's value that belongs to somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scalar<'a> {
    Text(&'a str),
    Number(Number),
}

/// A device, borrowed from its caller, from a record or from the registry. Tags and attributes
/// ascend, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Draft<'a> {
    pub(crate) id: &'a str,
    pub(crate) app: u16,
    pub(crate) platform: &'a str,
    pub(crate) app_version: Option<&'a str>,
    pub(crate) alias: Option<&'a str>,
    pub(crate) tags: Vec<&'a str>,
    pub(crate) attributes: Vec<(&'a str, Scalar<'a>)>,
    pub(crate) time_zone: Option<&'a str>,
    pub(crate) language: Option<&'a str>,
    pub(crate) test: bool,
    pub(crate) registered_at: u64,
    pub(crate) updated_at: u64,
    pub(crate) token_generation: u32,
}

impl<'a> Draft<'a> {
    pub(crate) fn of(device: &'a Device, app: u16, now: u64) -> Draft<'a> {
        let scalar = |value: &'a Value| match value {
            Value::Text(text) => Scalar::Text(text),
            Value::Number(number) => Scalar::Number(*number),
        };
        let attributes = device.attributes.iter();
        Draft {
            id: &device.id,
            app,
            platform: &device.platform,
            app_version: device.app_version.as_deref(),
            alias: device.alias.as_deref(),
            tags: device.tags.iter().map(String::as_str).collect(),
            attributes: attributes.map(|(key, value)| (&**key, scalar(value))).collect(),
            time_zone: device.time_zone.as_deref(),
            language: device.language.as_deref(),
            test: device.test,
            registered_at: now,
            updated_at: now,
            token_generation: 0,
        }
    }

    pub(crate) fn to_device(&self, app: &str) -> Device {
        let value = |scalar: &Scalar<'_>| match scalar {
            Scalar::Text(text) => Value::Text((*text).to_owned()),
            Scalar::Number(number) => Value::Number(*number),
        };
        let attributes = self.attributes.iter();
        Device {
            id: self.id.to_owned(),
            app: app.to_owned(),
            platform: self.platform.to_owned(),
            app_version: self.app_version.map(str::to_owned),
            alias: self.alias.map(str::to_owned),
            tags: self.tags.iter().map(|tag| (*tag).to_owned()).collect(),
            attributes: attributes.map(|(key, at)| ((*key).to_owned(), value(at))).collect(),
            time_zone: self.time_zone.map(str::to_owned),
            language: self.language.map(str::to_owned),
            test: self.test,
        }
    }

    /// What is not as in `old`.
    pub(crate) fn differs(&self, old: &Draft<'_>) -> Vec<Field> {
        let all = [
            (Field::App, self.app != old.app),
            (Field::Platform, self.platform != old.platform),
            (Field::AppVersion, self.app_version != old.app_version),
            (Field::Alias, self.alias != old.alias),
            (Field::Tags, self.tags != old.tags),
            (Field::Attributes, self.attributes != old.attributes),
            (Field::TimeZone, self.time_zone != old.time_zone),
            (Field::Language, self.language != old.language),
            (Field::Test, self.test != old.test),
            (Field::TokenGeneration, self.token_generation != old.token_generation),
        ];
        all.into_iter().filter(|(_, differs)| *differs).map(|(field, _)| field).collect()
    }

    /// Whether everything is written as it must be, within `limits`.
    pub(crate) fn check(&self, limits: &Limits) -> Result<(), Refused> {
        let has = |text: Option<&str>, is: &dyn Fn(&str) -> bool| text.is_none_or(is);
        let quoted = |text: &str| text.chars().take(ceiling::TEXT_BYTES).collect();
        if !is_id(self.id) {
            return Err(Refused::Id);
        }
        if !is_platform(self.platform) {
            return Err(Refused::Platform);
        }
        if !has(self.app_version, &|text| Version::parse(text).is_some()) {
            return Err(Refused::AppVersion);
        }
        if !has(self.time_zone, &is_time_zone) {
            return Err(Refused::TimeZone);
        }
        if !has(self.language, &is_language) {
            return Err(Refused::Language);
        }
        if !has(self.alias, &|text| is_text(text, limits.value_bytes)) {
            return Err(Refused::Alias { bytes_max: limits.value_bytes });
        }
        if self.tags.len() > limits.tags_per_device {
            return Err(Refused::TooManyTags { max: limits.tags_per_device });
        }
        if let Some(tag) = self.tags.iter().find(|tag| !is_text(tag, limits.tag_bytes)) {
            return Err(Refused::Tag { tag: quoted(tag), bytes_max: limits.tag_bytes });
        }
        if self.attributes.len() > limits.attributes_per_device {
            return Err(Refused::TooManyAttributes { max: limits.attributes_per_device });
        }
        for (key, value) in &self.attributes {
            if !is_text(key, limits.key_bytes) || BUILT_IN_KEYS.contains(key) {
                return Err(Refused::Key { key: quoted(key), bytes_max: limits.key_bytes });
            }
            if matches!(value, Scalar::Text(text) if !is_text(text, limits.value_bytes)) {
                return Err(Refused::Value { key: quoted(key), bytes_max: limits.value_bytes });
            }
        }
        Ok(())
    }
}
