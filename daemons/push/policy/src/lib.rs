//! The rules of sending: which message may be sent, and for each device whether now, later or
//! never, and why. Pure logic: no files, no threads, and time is an argument, in milliseconds
//! since 1970. Whoever owns the state keeps it on disk, by the records that some parts give.
//!
//! ```text
//!   a request   keys        the same request as before?
//!               quota       has its sender any left?
//!               content     allowed, held for review, rejected     (Rules::judge)
//!               review      held → approved by another than its sender
//!   a campaign  throttle    whose turn is it, how many may go
//!   a device    decide      schedule, hours, quiet hours, caps: now, at, never   (why: reason)
//!               counters    what the device has had
//!               keys        does it replace a message that waits?
//!               template    what it says to this device
//! ```
//!
//! A [`Policy`] is read, checked as a [`Draft`], and adopted as [`Rules`], at the start and at each
//! reload. [`config`] has every setting and its default. [`reason`] has the codes that the audit log
//! keeps.

pub mod bytes;
pub mod config;
pub mod content;
pub mod counters;
pub mod decide;
pub mod hours;
pub mod keys;
pub mod quota;
pub mod reason;
pub mod review;
pub mod schedule;
pub mod template;
pub mod throttle;
pub mod zones;

pub use bytes::Unreadable;
pub use config::{Policy, PolicyError};
pub use content::Content;
pub use counters::{Capped, CountLimits, CountRule, Counters, RuleId};
pub use decide::{Decision, Device, Draft, Judgement, Message, Plan, Rules, State, Why, decide};
pub use hours::{Action, Hours, QuietHours, When, when};
pub use keys::{Claim, IdempotencyKeys, KeyError};
pub use quota::{QuotaExceeded, SenderQuotas};
pub use reason::Reason;
pub use review::{Review, ReviewError};
pub use schedule::{Due, Schedule};
pub use template::{Missing, Names, Template, Values};
pub use throttle::{Grant, Rate, Throttle};
pub use zones::{Zone, ZoneId, Zones};
