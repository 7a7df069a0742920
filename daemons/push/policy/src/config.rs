//! The settings of the rules: every key that exists, its default, and which values go together.
//!
//! ```toml
//! time_zone = "Asia/Shanghai"                 # of devices that tell none, and of quotas' days
//!
//! [classes.marketing]
//! priority = 2
//! hours = "09:00-21:00"                       # on the device's clock
//! per_day = 2
//!
//! [apps.shop]
//! quiet_hours = { hours = "22:00-08:00", action = "delay" }
//!
//! [caps.weekly]
//! messages = 10
//! per = "7d"
//!
//! [[content]]
//! name = "gambling"
//! when = { keywords = ["casino", "赌博"] }
//! outcome = "review"
//! reason = "mentions gambling"
//! ```
//!
//! # Where the defaults come from
//! What vendors' push services do, whose rules senders know: vivo lets operational messages
//! through from 07:00 to 23:00 only and gives a user five of an app a day; Xiaomi sends 1,000 to
//! 100,000 messages a second, by the app's size; JPush has one `cid` for a request however often
//! it is sent. Huawei's test messages are a class without hours, quota and caps, sent to devices
//! that are marked as such.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sextant_service::config::Span;

pub use crate::content::rules::{Condition, ContentRule, Outcome};
use crate::counters::{SPAN_MS_MAX, SPAN_MS_MIN};
use crate::hours::{Action, Hours, QuietHours};
use crate::throttle::{PRIORITY_MAX, RATE_MAX};

/// Classes at most.
pub const CLASSES_MAX: usize = 256;
/// Apps with rules of their own at most.
pub const APPS_MAX: usize = 10_000;
/// Caps at most.
pub const CAPS_MAX: usize = 1_000;
/// Credentials with quotas of their own at most.
pub const CREDENTIALS_MAX: usize = 10_000;
/// The longest name of a class, an app, a cap or a category, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// The longest time to live, in milliseconds: 366 days.
pub const TTL_MS_MAX: u64 = 366 * 86_400_000;
const AHEAD_MS_MAX: u64 = 10 * 366 * 86_400_000;
const KEYS_MAX: u32 = 100_000_000;

/// One thing that is wrong with a [`Policy`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The dotted key, such as `classes.marketing.priority`.
    pub key: String,
    /// What is wrong.
    pub what: String,
}

/// A policy that cannot be run with: all that is wrong with it, one a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError {
    /// Never empty.
    pub faults: Vec<Fault>,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            let end = if index > 0 { "\n" } else { "" };
            write!(f, "{end}`{}`: {}", fault.key, fault.what)?;
        }
        Ok(())
    }
}

impl std::error::Error for PolicyError {}

/// Collects faults.
#[derive(Debug, Default)]
pub(crate) struct Faults(pub(crate) Vec<Fault>);

impl Faults {
    pub(crate) fn add(&mut self, key: impl fmt::Display, what: impl fmt::Display) {
        self.0.push(Fault { key: key.to_string(), what: what.to_string() });
    }

    pub(crate) fn require(&mut self, holds: bool, key: impl fmt::Display, what: impl fmt::Display) {
        if !holds {
            self.add(key, what);
        }
    }
}

/// The rules of sending.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// The IANA zone of devices and apps that tell none, and of the days of senders' quotas.
    pub time_zone: String,
    /// How far ahead a message may be scheduled.
    pub schedule_ahead_max: Span,
    /// Kinds of messages, by name: in the daemon's settings the three of the defaults, and those
    /// that are written.
    pub classes: BTreeMap<String, Class>,
    /// What is particular to apps, by name.
    pub apps: BTreeMap<String, AppRules>,
    /// Frequency caps, by name.
    pub caps: BTreeMap<String, Cap>,
    /// How fast messages go out.
    pub throttle: ThrottleRules,
    /// How many messages a day senders may send.
    pub quotas: Quotas,
    /// What messages may say, in the order in which it is looked at: the first rule that fits
    /// decides, and what none fits is allowed.
    pub content: Vec<ContentRule>,
    /// Messages that people look at first.
    pub review: ReviewRules,
    /// Keys that senders give to messages.
    pub keys: KeyRules,
}

impl Default for Policy {
    fn default() -> Policy {
        let class = Class::default();
        let transactional = Class {
            priority: 9,
            quiet_hours: false,
            capped: false,
            ttl: Span::days(3),
            ..class.clone()
        };
        let operational = Class {
            priority: 5,
            hours: Hours::new((7, 0), (23, 0)).unwrap_or(Hours::ALL),
            per_day: 5,
            ..class.clone()
        };
        let marketing = Class {
            priority: 2,
            hours: Hours::new((9, 0), (21, 0)).unwrap_or(Hours::ALL),
            per_day: 2,
            ..class
        };
        let named = |name: &str, class| (name.to_owned(), class);
        Policy {
            time_zone: "UTC".to_owned(),
            schedule_ahead_max: Span::days(366),
            classes: BTreeMap::from([
                named("transactional", transactional),
                named("operational", operational),
                named("marketing", marketing),
            ]),
            apps: BTreeMap::new(),
            caps: BTreeMap::new(),
            throttle: ThrottleRules::default(),
            quotas: Quotas::default(),
            content: Vec::new(),
            review: ReviewRules::default(),
            keys: KeyRules::default(),
        }
    }
}

/// A kind of messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Class {
    /// 0 to 9; 9 goes first.
    pub priority: u8,
    /// When they may go out, on the device's clock. Outside they wait.
    pub hours: Hours,
    /// Messages that a device may have a day of its calendar; 0 is no limit.
    pub per_day: u8,
    /// What becomes of those beyond: `delay` is until the device's next day.
    pub beyond: Action,
    /// Whether the quiet hours of apps apply.
    pub quiet_hours: bool,
    /// Whether frequency caps apply; messages of other classes are not counted by them either.
    pub capped: bool,
    /// How long after it is due a message is still sent, where it does not say itself.
    pub ttl: Span,
    /// Whether each is held until somebody has approved it.
    pub review: bool,
}

impl Default for Class {
    /// No hours and no limits, and a day to live.
    fn default() -> Class {
        Class {
            priority: 5,
            hours: Hours::ALL,
            per_day: 0,
            beyond: Action::Drop,
            quiet_hours: true,
            capped: true,
            ttl: Span::days(1),
            review: false,
        }
    }
}

/// What is particular to an app.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AppRules {
    /// The IANA zone of devices that tell none; none is that of the policy.
    pub time_zone: Option<String>,
    /// When its devices are left alone.
    pub quiet_hours: Option<QuietHours>,
    /// Messages a second; none is what all apps have, 0 no limit.
    pub messages_per_second: Option<u32>,
}

/// So many messages in so much time, for each device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cap {
    /// 1 to 255.
    pub messages: u8,
    /// In any stretch of so long, a minute to 400 days; what goes out is forgotten at the latest a
    /// sixth of it too late.
    pub per: Span,
    /// Only for messages of this app.
    #[serde(default)]
    pub app: Option<String>,
    /// Only for messages of this category.
    #[serde(default)]
    pub category: Option<String>,
    /// What becomes of those beyond.
    #[serde(default = "dropped")]
    pub beyond: Action,
}

fn dropped() -> Action {
    Action::Drop
}

/// How fast messages go out, in messages a second; 0 is no limit. A twentieth of a second's may go
/// at once after a pause.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ThrottleRules {
    /// All together.
    pub messages_per_second: u32,
    /// Each app.
    pub app_messages_per_second: u32,
    /// Each campaign that does not say itself.
    pub campaign_messages_per_second: u32,
}

/// How many messages a day senders may send, each device's copy counted; 0 is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quotas {
    /// Each credential.
    pub per_day: u64,
    /// Credentials that have another, by name.
    pub credentials: BTreeMap<String, u64>,
}

/// Messages that people look at first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReviewRules {
    /// How long a message waits for a reviewer.
    pub hold_max: Span,
    /// Whether who sent a message may approve it.
    pub own_messages: bool,
}

impl Default for ReviewRules {
    fn default() -> ReviewRules {
        ReviewRules { hold_max: Span::days(3), own_messages: false }
    }
}

/// Keys that senders give to messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeyRules {
    /// How long an idempotency key names its message.
    pub idempotency_keep: Span,
    /// Idempotency keys at most, of all apps; beyond, the oldest is forgotten.
    pub idempotency_max: u32,
}

impl Default for KeyRules {
    fn default() -> KeyRules {
        KeyRules { idempotency_keep: Span::days(1), idempotency_max: 1_000_000 }
    }
}

/// Whether it can name a class, an app, a cap or a category: 1 to [`NAME_BYTES_MAX`] of `a` to
/// `z`, digits, `.`, `_` and `-`.
pub fn is_name(name: &str) -> bool {
    let known =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(known)
}

const NAME: &str = "a name is 1 to 64 of a-z, 0-9, \".\", \"_\" and \"-\"";

impl Policy {
    /// What can be said without reading zones, patterns and hosts.
    pub(crate) fn check(&self, faults: &mut Faults) {
        let ahead_ms = self.schedule_ahead_max.get().as_millis();
        faults.require(
            ahead_ms <= u128::from(AHEAD_MS_MAX),
            "schedule_ahead_max",
            "must be 3660d (ten years) or less",
        );
        faults.require(!self.classes.is_empty(), "classes", "there must be one");
        for (what, count, max) in [
            ("classes", self.classes.len(), CLASSES_MAX),
            ("apps", self.apps.len(), APPS_MAX),
            ("caps", self.caps.len(), CAPS_MAX),
            ("quotas.credentials", self.quotas.credentials.len(), CREDENTIALS_MAX),
        ] {
            faults.require(count <= max, what, format_args!("there may be {max} at most"));
        }
        self.check_classes(faults);
        self.check_apps(faults);
        self.check_caps(faults);
        for (key, rate) in [
            ("throttle.messages_per_second", self.throttle.messages_per_second),
            ("throttle.app_messages_per_second", self.throttle.app_messages_per_second),
            ("throttle.campaign_messages_per_second", self.throttle.campaign_messages_per_second),
        ] {
            check_rate(faults, key, rate);
        }
        faults.require(
            (60_000..=u128::from(TTL_MS_MAX)).contains(&self.review.hold_max.get().as_millis()),
            "review.hold_max",
            "must be between 1m and 366d",
        );
        self.check_keys(faults);
    }

    fn check_classes(&self, faults: &mut Faults) {
        for (name, class) in &self.classes {
            let key = format!("classes.{name}");
            faults.require(is_name(name), &key, NAME);
            faults.require(
                class.priority <= PRIORITY_MAX,
                format_args!("{key}.priority"),
                "must be 0 to 9",
            );
            let ttl_ms = class.ttl.get().as_millis();
            faults.require(
                (1000..=u128::from(TTL_MS_MAX)).contains(&ttl_ms),
                format_args!("{key}.ttl"),
                "must be between 1s and 366d",
            );
        }
    }

    fn check_apps(&self, faults: &mut Faults) {
        for (name, app) in &self.apps {
            let key = format!("apps.{name}");
            faults.require(is_name(name), &key, NAME);
            if let Some(rate) = app.messages_per_second {
                check_rate(faults, &format!("{key}.messages_per_second"), rate);
            }
            let Some(quiet) = app.quiet_hours else { continue };
            for (class_name, class) in self.classes.iter().filter(|(_, class)| class.quiet_hours) {
                let never = !class.hours.share_a_minute(quiet.hours.outside());
                faults.require(
                    !never,
                    format_args!("{key}.quiet_hours"),
                    format_args!("no minute of the day is left to class \"{class_name}\""),
                );
            }
        }
    }

    fn check_caps(&self, faults: &mut Faults) {
        for (name, cap) in &self.caps {
            let key = format!("caps.{name}");
            faults.require(is_name(name), &key, NAME);
            faults.require(cap.messages > 0, format_args!("{key}.messages"), "must be 1 to 255");
            let span_ms = cap.per.get().as_millis();
            let spans = u128::from(SPAN_MS_MIN)..=u128::from(SPAN_MS_MAX);
            faults.require(
                spans.contains(&span_ms),
                format_args!("{key}.per"),
                "must be between 1m and 400d",
            );
            for (part, name) in [("app", &cap.app), ("category", &cap.category)] {
                let fits = name.as_ref().is_none_or(|name| is_name(name));
                faults.require(fits, format_args!("{key}.{part}"), NAME);
            }
        }
    }

    fn check_keys(&self, faults: &mut Faults) {
        faults.require(
            (1000..=u128::from(TTL_MS_MAX)).contains(&self.keys.idempotency_keep.get().as_millis()),
            "keys.idempotency_keep",
            "must be between 1s and 366d",
        );
        faults.require(
            (1..=KEYS_MAX).contains(&self.keys.idempotency_max),
            "keys.idempotency_max",
            format_args!("must be 1 to {KEYS_MAX}"),
        );
    }
}

fn check_rate(faults: &mut Faults, key: &str, rate: u32) {
    faults.require(
        rate <= RATE_MAX,
        key,
        format_args!("must be at most {RATE_MAX}; 0 is no limit"),
    );
}

#[cfg(test)]
mod tests;
