//! Devices as the daemon keeps them, and lists of them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// What a device is: all that a sender says of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceEntry {
    /// `android`, `ios`, `web` or what else there is; required.
    pub platform: String,
    /// The app's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_version: Option<String>,
    /// Whose it is; several devices may have the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// Words that expressions look for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Names with values that expressions look for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, Value>,
    /// Where its clock is: `Asia/Shanghai`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// `zh-CN`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Whether it is one of the app's test devices.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub test: bool,
}

/// A device, as the daemon knows it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct Device {
    /// Its id, which is its MQTT client id.
    pub device: String,
    /// What it is.
    #[serde(flatten)]
    pub entry: DeviceEntry,
    /// When it was first heard of.
    pub registered_at: Timestamp,
    /// When what it is changed last.
    pub updated_at: Timestamp,
    /// Whether it is connected.
    pub online: bool,
    /// How many messages wait for it.
    #[serde(default)]
    pub pending: u64,
}

/// A change of what a device is. What is `None` stays; `Some(None)` is no value from now on.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DeviceUpdate {
    /// The platform.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// The app's version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_version: Option<Option<String>>,
    /// Whose it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alias: Option<Option<String>>,
    /// Where its clock is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<Option<String>>,
    /// Its language.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<Option<String>>,
    /// Whether it is one of the app's test devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<bool>,
    /// Tags to add.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub set_tags: Vec<String>,
    /// Tags to take away.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove_tags: Vec<String>,
    /// Attributes to set.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub set_attributes: BTreeMap<String, Value>,
    /// Attributes to take away.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove_attributes: Vec<String>,
}

/// What an import of devices did.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Import {
    /// New ones.
    pub registered: u64,
    /// Those that are something else now.
    pub updated: u64,
    /// Those that are what they were.
    pub unchanged: u64,
    /// Lines that were refused.
    pub refused: u64,
    /// The first hundred of them.
    #[serde(default)]
    pub errors: Vec<LineError>,
}

/// Why a line was refused.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct LineError {
    /// Its number, from 1.
    pub line: u64,
    /// Why.
    pub detail: String,
}

/// What a device says to the broker to be let in.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Token {
    /// Whose it is.
    pub device: String,
    /// The password of its MQTT connection.
    pub token: String,
    /// Until when.
    pub expires_at: Timestamp,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token")
            .field("device", &self.device)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// What the lines of a list look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListFormat {
    /// `{"device":"d1","vars":{"name":"Li"}}` or `{"alias":"u"}` a line.
    Ndjson,
    /// A head line `device,name,…` or `alias,…`, and a row a line.
    Csv,
}

impl ListFormat {
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            ListFormat::Ndjson => "application/x-ndjson",
            ListFormat::Csv => "text/csv",
        }
    }
}

/// A list that was uploaded.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct ListUpload {
    /// Its name, for [`Target::List`](super::Target::List).
    pub list: Uuid,
    /// How many devices it has.
    pub devices: u64,
    /// Lines whose device was there before.
    pub repeated: u64,
    /// Lines whose device the app does not have.
    pub unknown: u64,
    /// Some of those.
    #[serde(default)]
    pub examples: Vec<ListProblem>,
    /// Until when it is kept, unless a message needs it longer.
    pub expires_at: Timestamp,
}

/// A line of a list that names no device of the app.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct ListProblem {
    /// Its number, from 1.
    pub line: u64,
    /// The name.
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_change_tells_no_value_from_no_change() {
        let update = DeviceUpdate { alias: Some(None), ..DeviceUpdate::default() };
        assert_eq!(serde_json::to_value(&update).unwrap(), json!({"alias": null}));
    }

    #[test]
    fn a_token_is_not_in_what_debug_prints() {
        let token = Token {
            device: "d".into(),
            token: "sxd1.secret".into(),
            expires_at: Timestamp::UNIX_EPOCH,
        };
        assert!(!format!("{token:?}").contains("secret"));
    }
}
