//! What senders ask for, as JSON says it, and what of it is kept with a message.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sextant_policy::Schedule;
use sextant_policy::schedule::ScheduleError;
use sextant_service::config::Span;
use uuid::Uuid;

use crate::strict;

/// Devices of `devices` at most.
pub const DEVICES_MAX: usize = 1000;
/// The longest name of a message, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// A message to be sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Whom it is for.
    pub target: Target,
    /// What people call it, at most [`NAME_BYTES_MAX`] long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What is shown.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::option")]
    pub notification: Option<Notification>,
    /// What the app gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Map<String, Value>>,
    /// The variables of all targets; those that come with a list go before them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vars: Option<Map<String, Value>>,
    /// The class whose rules apply; `operational` where it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// What kind of message it is: caps and content rules may look at that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// How long after it is due it is still sent; what its class says where it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Span>,
    /// A newer message of the app with this key takes the place of this one where it was not
    /// delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collapse_key: Option<String>,
    /// When it is due, if not at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<When>,
    /// Messages a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
    /// Only those of the target that are used for tests.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub test: bool,
    /// Nothing is sent: what would become of it is told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// Of a message within a batch or a stream: see the header `Idempotency-Key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

/// Whom a message is for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// One device, by its id.
    Device(String),
    /// Some devices, at most [`DEVICES_MAX`].
    Devices(Vec<String>),
    /// Whoever has this alias.
    Alias(String),
    /// A list that was uploaded.
    List(Uuid),
    /// Whoever subscribed to a topic.
    Topic(String),
    /// Whoever an expression over tags and attributes names.
    Expression(String),
    /// All devices of the app; only `true` says anything.
    Everyone(bool),
}

impl Default for Target {
    fn default() -> Target {
        Target::Devices(Vec::new())
    }
}

/// What is shown on a device. All texts may have variables.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notification {
    /// The line above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The address of a picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Where a click leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// The number at the app's icon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub badge: Option<u32>,
    /// What is heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sound: Option<String>,
}

/// When a message is due.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// At an instant: `2026-11-24T10:00:00Z`.
    At(String),
    /// When the device's own clock shows it: `2026-11-24T10:00`.
    Local(String),
}

impl When {
    /// The schedule that it says.
    ///
    /// # Errors
    /// It says none, or one of the other kind; what is wrong.
    pub fn parse(&self) -> Result<Schedule, String> {
        let (text, is_local) = match self {
            When::At(text) => (text, false),
            When::Local(text) => (text, true),
        };
        let schedule: Schedule = text.parse().map_err(|error: ScheduleError| error.to_string())?;
        match (schedule, is_local) {
            (Schedule::At(_), false) | (Schedule::Local(_), true) => Ok(schedule),
            (Schedule::At(_), true) => Err("`local` has no offset from UTC".to_owned()),
            (Schedule::Local(_), false) => Err("`at` ends with `Z` or an offset".to_owned()),
        }
    }
}

/// What a message is kept with, as JSON: all that its API tells of how it was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stored {
    /// As it was asked for.
    pub request: Request,
    /// Who asked.
    pub sender: String,
    /// The app's number.
    pub app: u16,
    /// When it was accepted, in milliseconds since 1970.
    pub accepted_ms: u64,
    /// When it expires for the last of its devices.
    pub expires_ms: u64,
    /// 0 to 9, as its class said; 9 goes first.
    pub priority: u8,
    /// How long after it is due it is sent, in milliseconds.
    pub ttl_ms: u64,
    /// Names of its target that no device has.
    pub unknown: u64,
    /// It tells devices that this message was taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recall_of: Option<u64>,
    /// It is held for review.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub review: Option<sextant_policy::Review>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_by: Option<HeldBy>,
}

/// Why a message is held.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldBy {
    /// `content_review` or `class_review`.
    pub reason: String,
    /// The content rule, if one holds it.
    pub rule: Option<String>,
    /// What that says.
    pub text: String,
}

/// How far a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A reviewer has yet to look at it.
    Held,
    /// It is due later.
    Scheduled,
    /// It goes to devices.
    Running,
    /// Nobody is left whom it could go to.
    Finished,
    /// Its sender took it back.
    Recalled,
    /// A reviewer did not let it pass, or nobody came.
    Rejected,
    /// Its sender took it back before it was reviewed.
    Withdrawn,
}

impl State {
    /// As the API has it.
    pub const fn name(self) -> &'static str {
        match self {
            State::Held => "held",
            State::Scheduled => "scheduled",
            State::Running => "running",
            State::Finished => "finished",
            State::Recalled => "recalled",
            State::Rejected => "rejected",
            State::Withdrawn => "withdrawn",
        }
    }

    /// Whether nothing more is sent.
    pub const fn is_over(self) -> bool {
        !matches!(self, State::Held | State::Scheduled | State::Running)
    }
}

/// What somebody may do in an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads all of it.
    Read,
    /// Reads, and passes or rejects what is held.
    Review,
    /// Reads, sends, and registers devices.
    Send,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_the_api_says_it() {
        let text = r#"{"target":{"expression":"city:sz and not vip"},"name":"sale",
            "notification":{"title":"Hi {{name}}","badge":1},"data":{"a":[1]},"vars":{"name":"x"},
            "class":"marketing","ttl":"24h","schedule":{"local":"2026-11-24T09:00"},"rate":1000}"#;
        let request: Request = serde_json::from_str(text).expect("all of it is known");
        assert_eq!(request.target, Target::Expression("city:sz and not vip".to_owned()));
        assert_eq!(request.schedule, Some(When::Local("2026-11-24T09:00".to_owned())));
        let json = serde_json::to_string(&request).expect("plain data");
        assert_eq!(serde_json::from_str::<Request>(&json).expect("as written"), request);
    }

    #[test]
    fn an_unknown_key_and_a_target_of_two_kinds_are_refused() {
        for wrong in [
            r#"{"target":{"device":"a"},"titel":"x"}"#,
            r#"{"target":{"device":"a","alias":"b"}}"#,
            r#"{"target":{"group":"a"}}"#,
            r#"{"name":"x"}"#,
        ] {
            assert!(serde_json::from_str::<Request>(wrong).is_err(), "{wrong}");
        }
    }
}
