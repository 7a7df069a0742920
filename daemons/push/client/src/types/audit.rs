//! What the daemon wrote down.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

/// Something that was written down.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Entry {
    /// A device and a message came to a stage.
    Fact(Fact),
    /// Something happened to a message, or somebody did something.
    Event(Event),
}

/// A device and a message came to a stage.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Fact {
    /// Its place among all that was written down.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// The message.
    pub message: Uuid,
    /// The device.
    pub device: String,
    /// `accepted`, `queued`, `sent`, `acknowledged`, `shown`, `clicked`, `dropped`, `expired`,
    /// `recalled`, or one of a later version.
    pub stage: String,
    /// Why, such as `daily_quota`.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Something happened to a message, or somebody did something.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct Event {
    /// Its place among all that was written down.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// The message, if it is about one.
    #[serde(default)]
    pub message: Option<Uuid>,
    /// `requested`, `judged`, `held`, `approved`, `recalled`, … or one of a later version.
    pub event: String,
    /// Who did it.
    #[serde(default)]
    pub actor: Option<String>,
    /// More of it.
    #[serde(default)]
    pub detail: Value,
}

/// Which entries to read, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// Only of this message.
    pub message: Option<Uuid>,
    /// Only of this device.
    pub device: Option<String>,
    /// Not before this moment.
    pub from: Option<Timestamp>,
    /// Before this moment.
    pub to: Option<Timestamp>,
    /// Only facts of these stages; all if empty.
    pub stages: Vec<String>,
    /// Whether there are events among them; the daemon's choice if `None`.
    pub events: Option<bool>,
    /// Newest first.
    pub newest: bool,
    /// How many a page, at most 1,000; the daemon's choice if `None`.
    pub limit: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_and_events_are_told_apart_by_their_kind() {
        let id = Uuid::from_u128(5);
        let fact = format!(
            r#"{{"kind":"fact","seq":1,"at":"2026-11-23T10:00:00.000Z","message":"{id}",
                "device":"phone-1","stage":"dropped","reason":"daily_quota"}}"#
        );
        let Entry::Fact(fact) = serde_json::from_str(&fact).unwrap() else { panic!("a fact") };
        assert_eq!((fact.message, fact.stage.as_str()), (id, "dropped"));
        let event = r#"{"kind":"event","seq":2,"at":"2026-11-23T10:00:00Z","message":null,
            "event":"held","actor":"crm","detail":{"rule":"words"}}"#;
        let Entry::Event(event) = serde_json::from_str(event).unwrap() else { panic!("an event") };
        assert_eq!((event.message, event.event.as_str()), (None, "held"));
    }
}
