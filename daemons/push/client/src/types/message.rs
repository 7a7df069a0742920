//! Messages, whom they are for, and what became of them.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::sender::Problem;

/// Whom a message is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// One device.
    Device(String),
    /// Up to 1,000 devices.
    Devices(Vec<String>),
    /// All devices of this alias.
    Alias(String),
    /// The devices of an uploaded list.
    List(Uuid),
    /// The subscribers of a topic.
    Topic(String),
    /// The devices that an expression is true of: `city:sz and not vip`.
    Expression(String),
    /// All devices of the app.
    #[serde(serialize_with = "write_true", deserialize_with = "read_true")]
    Everyone,
}

fn write_true<S: Serializer>(serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bool(true)
}

fn read_true<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    match bool::deserialize(deserializer)? {
        true => Ok(()),
        false => Err(serde::de::Error::custom("`everyone` is true or absent")),
    }
}

/// What a device shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// Its headline; `{{name}}` stands for a variable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Its text, with variables as in the title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The address of a picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// What a click opens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// The number at the app's icon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub badge: Option<u32>,
    /// The name of a sound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sound: Option<String>,
}

/// When a message is sent, if not at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// To all at this moment.
    At(Timestamp),
    /// To each device when its own clock on the wall shows this.
    Local(DateTime),
}

/// A message to send.
///
/// ```
/// use sextant_push_client::types::{MessageRequest, Notification, Target};
///
/// let sale = MessageRequest {
///     notification: Some(Notification { title: Some("Sale".into()), ..Default::default() }),
///     category: Some("news".into()),
///     ..MessageRequest::to(Target::Everyone)
/// };
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MessageRequest {
    /// Whom it is for.
    pub target: Target,
    /// What people call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What is shown; this or `data` or both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notification: Option<Notification>,
    /// What the app is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Map<String, Value>>,
    /// Values of variables, for devices whose list gives none.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub vars: Map<String, Value>,
    /// The class, which the policy's rules are about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// What it is about: people turn categories off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// How long it waits for a device that is not there; sent in whole seconds, rounded up.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "write_span")]
    pub ttl: Option<Duration>,
    /// A later message of this key takes the place of one that still waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collapse_key: Option<String>,
    /// When it is sent; at once if `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// At most so many devices a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
    /// Only to the test devices of the target.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub test: bool,
    /// What makes a second request the same one, at most 128 bytes. Without it the client makes
    /// one of its own, which holds for its own attempts. It is not part of the message.
    #[serde(skip)]
    pub idempotency_key: Option<String>,
}

impl MessageRequest {
    /// A message without any content yet.
    pub fn to(target: Target) -> MessageRequest {
        MessageRequest {
            target,
            name: None,
            notification: None,
            data: None,
            vars: Map::new(),
            class: None,
            category: None,
            ttl: None,
            collapse_key: None,
            schedule: None,
            rate: None,
            test: false,
            idempotency_key: None,
        }
    }
}

/// Writes a span of time as the daemon reads it.
pub(crate) fn span(duration: Duration) -> String {
    let rounds_up = u64::from(duration.subsec_nanos() > 0);
    format!("{}s", duration.as_secs().saturating_add(rounds_up))
}

#[expect(clippy::ref_option, reason = "serde gives it so")]
fn write_span<S: Serializer>(ttl: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_some(&ttl.map(span))
}

/// Where a message is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum State {
    /// It waits for a review.
    Held,
    /// It waits for its time.
    Scheduled,
    /// It is being sent.
    Running,
    /// Nothing more will happen.
    Finished,
    /// It was taken back.
    Recalled,
    /// A review rejected it.
    Rejected,
    /// It was taken back before anybody was sent it.
    Withdrawn,
    /// A state that this version does not know.
    #[serde(other)]
    Unknown,
}

impl State {
    /// Whether this state is the last one.
    pub const fn is_final(self) -> bool {
        matches!(self, State::Finished | State::Recalled | State::Rejected | State::Withdrawn)
    }
}

/// A message, as the daemon knows it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct Message {
    /// Its name for good.
    pub id: Uuid,
    /// The app whose devices it is for.
    pub app: String,
    /// What people call it.
    #[serde(default)]
    pub name: Option<String>,
    /// Where it is on its way.
    pub state: State,
    /// The class, which the policy's rules are about.
    pub class: String,
    /// What it is about.
    #[serde(default)]
    pub category: Option<String>,
    /// Larger goes first.
    #[serde(default)]
    pub priority: u8,
    /// The name of the app key, or `admin`.
    pub sender: String,
    /// Whom it is for.
    pub target: Target,
    /// What is shown.
    #[serde(default)]
    pub notification: Option<Notification>,
    /// What the app is given.
    #[serde(default)]
    pub data: Option<Map<String, Value>>,
    /// How many devices it is for.
    pub targets: u64,
    /// How many names of the target are no device.
    #[serde(default)]
    pub unknown: u64,
    /// When the daemon had it.
    pub accepted_at: Timestamp,
    /// When it is no longer delivered.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    /// When it is sent, if not at once.
    #[serde(default)]
    pub schedule: Option<Schedule>,
    /// A later message of this key takes its place.
    #[serde(default)]
    pub collapse_key: Option<String>,
    /// At most so many devices a second.
    #[serde(default)]
    pub rate: Option<u32>,
    /// Only to test devices.
    #[serde(default)]
    pub test: bool,
    /// The message that this one takes back.
    #[serde(default)]
    pub recall_of: Option<Uuid>,
    /// What a review said.
    #[serde(default)]
    pub review: Option<Value>,
    /// What became of it.
    pub funnel: Funnel,
}

/// A message that was sent.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Sent {
    /// The message, durable.
    pub message: Message,
    /// Its key, as given or as made.
    pub idempotency_key: String,
    /// The daemon had it before, under the same key.
    pub replayed: bool,
}

/// What became of one message of a batch or a stream.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Outcome {
    /// Its key, as given or as made: with it the same message can be sent again.
    pub idempotency_key: String,
    /// The message, durable; or why it was refused.
    pub result: Result<Message, Problem>,
}

/// How the policy judges a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Judgement {
    /// It may be sent.
    Allowed,
    /// It would wait for a review.
    Held,
    /// It would be refused.
    Rejected,
    /// A judgement that this version does not know.
    #[serde(other)]
    Unknown,
}

/// What sending a message would do. All numbers are of devices.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct DryRun {
    /// How the policy judges it.
    pub judgement: Judgement,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
    /// Whom it is for.
    pub targets: u64,
    /// Who of them is connected.
    pub online: u64,
    /// Who would be sent it at once.
    pub now: u64,
    /// Who would be sent it later, by reason.
    #[serde(default)]
    pub later: BTreeMap<String, u64>,
    /// Who would never be sent it, by reason.
    #[serde(default)]
    pub never: BTreeMap<String, u64>,
}

/// What taking a message back did.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Recalled {
    /// The message.
    pub id: Uuid,
    /// How many devices will not get it.
    pub withdrawn: u64,
    /// The message that takes it back from those who have it.
    #[serde(default)]
    pub recall_message: Option<Uuid>,
}

/// What became of a message: numbers of distinct devices.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Funnel {
    /// Whom it is for.
    pub targeted: u64,
    /// Those that no rule dropped.
    pub eligible: u64,
    /// Those it was queued for.
    pub queued: u64,
    /// Those it was sent to.
    pub sent: u64,
    /// Those that acknowledged it.
    pub delivered: u64,
    /// Those that showed it.
    pub shown: u64,
    /// Those where it was clicked.
    pub clicked: u64,
    /// Those that were not there in time.
    pub expired: u64,
    /// Those it was taken back from.
    pub recalled: u64,
    /// Those that rules dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Those that rules dropped.
    pub dropped_total: u64,
    /// Those it waits for.
    pub pending: u64,
    /// Those it was sent to that have not acknowledged it yet.
    pub in_flight: u64,
    /// From accepted, or due, to acknowledged.
    pub latency_ms: Option<Latency>,
    /// By time, where that was asked for.
    pub series: Vec<FunnelPoint>,
    /// By what devices are, where that was asked for.
    pub groups: Vec<FunnelPart>,
}

/// A distribution of latencies, milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Latency {
    /// How many there were.
    pub count: u64,
    /// Half took at most so long.
    pub p50: f64,
    /// Nine of ten took at most so long.
    pub p90: f64,
    /// Ninety-nine of a hundred took at most so long.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

/// A funnel within a span of time.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct FunnelPoint {
    /// When the span began.
    pub at: Timestamp,
    /// Those it was sent to.
    #[serde(default)]
    pub sent: u64,
    /// Those that acknowledged it.
    #[serde(default)]
    pub delivered: u64,
    /// Those that showed it.
    #[serde(default)]
    pub shown: u64,
    /// Those where it was clicked.
    #[serde(default)]
    pub clicked: u64,
}

/// A funnel of those devices that have something in common.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct FunnelPart {
    /// What they have in common: a version, a platform; `None` where they have none.
    pub value: Option<String>,
    /// Whom it is for.
    #[serde(default)]
    pub targeted: u64,
    /// Those it was sent to.
    #[serde(default)]
    pub sent: u64,
    /// Those that acknowledged it.
    #[serde(default)]
    pub delivered: u64,
    /// Those that showed it.
    #[serde(default)]
    pub shown: u64,
    /// Those where it was clicked.
    #[serde(default)]
    pub clicked: u64,
}

/// What a funnel is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum By {
    /// Time: [`Funnel::series`].
    Time,
    /// The app's version: [`Funnel::groups`], as all that follow.
    Version,
    /// The platform.
    Platform,
    /// The language.
    Language,
    /// Tags: a device counts for each of its own.
    Tag,
}

impl By {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            By::Time => "time",
            By::Version => "version",
            By::Platform => "platform",
            By::Language => "language",
            By::Tag => "tag",
        }
    }
}

/// A message's state and numbers, told as they change.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct Live {
    /// Where it is on its way.
    pub state: State,
    /// What became of it so far.
    pub funnel: Funnel,
}

/// Which messages to list, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageQuery {
    /// Only those in this state.
    pub state: Option<State>,
    /// How many a page, at most 1,000; the daemon's choice if `None`.
    pub limit: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn targets_are_written_and_read_as_the_contract_says() {
        let list = Uuid::from_u128(7);
        for (target, expected) in [
            (Target::Device("d".into()), json!({"device": "d"})),
            (Target::Devices(vec!["a".into(), "b".into()]), json!({"devices": ["a", "b"]})),
            (Target::Alias("u".into()), json!({"alias": "u"})),
            (Target::List(list), json!({"list": list.to_string()})),
            (Target::Topic("news".into()), json!({"topic": "news"})),
            (Target::Expression("vip".into()), json!({"expression": "vip"})),
            (Target::Everyone, json!({"everyone": true})),
        ] {
            assert_eq!(serde_json::to_value(&target).unwrap(), expected);
            assert_eq!(serde_json::from_value::<Target>(expected).unwrap(), target);
        }
        assert!(serde_json::from_value::<Target>(json!({"everyone": false})).is_err());
    }

    #[test]
    fn a_request_says_what_it_has_and_no_more() {
        let request = MessageRequest {
            data: Some(Map::from_iter([("a".into(), json!(1))])),
            ttl: Some(Duration::from_millis(1500)),
            schedule: Some(Schedule::Local("2026-11-24T09:00:00".parse().unwrap())),
            idempotency_key: Some("k".into()),
            ..MessageRequest::to(Target::Topic("news".into()))
        };
        let expected = json!({
            "target": {"topic": "news"}, "data": {"a": 1}, "ttl": "2s",
            "schedule": {"local": "2026-11-24T09:00:00"},
        });
        assert_eq!(serde_json::to_value(&request).unwrap(), expected);
    }

    #[test]
    fn words_and_fields_of_later_versions_are_passed_over() {
        let live = r#"{"state":"resting","funnel":{"targeted":3,"slept":1},"mood":"fine"}"#;
        let live: Live = serde_json::from_str(live).unwrap();
        assert_eq!((live.state, live.funnel.targeted), (State::Unknown, 3));
    }
}
