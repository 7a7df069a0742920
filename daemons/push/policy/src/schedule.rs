//! When a message is due: at an instant, or at a time that each device's own clock shows.
//!
//! ```text
//!   2026-12-24T08:00:00Z           one instant for all
//!   2026-12-24T09:00:00+01:00      the same
//!   2026-12-24T09:00               nine o'clock wherever the device is: as many instants as there
//!                                  are offsets among the devices' zones
//! ```
//!
//! A time that a clock skips is due at the first instant after the gap, one that it shows twice
//! the first time ([`Zone::first_at`](crate::Zone::first_at)). A device without a zone of its own
//! has its app's.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::zones::{Zone, ZoneId, Zones};

/// The longest time that is read, in bytes: nanoseconds and an offset.
const TEXT_BYTES_MAX: usize = 40;

/// When a message is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Schedule {
    /// At an instant, in milliseconds since 1970.
    At(u64),
    /// When a device's clock shows this, in milliseconds since it showed 1970 began.
    Local(i64),
}

/// A text that is no time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{found}\" is no time from 1970 on: write \"2026-12-24T09:00:00+01:00\" for an instant, \
     \"2026-12-24T09:00\" for that time on each device's clock"
)]
pub struct ScheduleError {
    /// What was written.
    pub found: String,
}

/// Devices that are due together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// The instant, in milliseconds since 1970.
    pub at_ms: u64,
    /// The zones in which it is due then, by number.
    pub zones: Vec<ZoneId>,
}

impl Schedule {
    /// The instant at which it is due for devices of a zone, in milliseconds since 1970.
    pub fn due_in(self, zone: &Zone) -> u64 {
        match self {
            Schedule::At(at_ms) => at_ms,
            Schedule::Local(wall_ms) => zone.first_at(wall_ms),
        }
    }

    /// The instants at which it is due for devices of these zones, the earliest first.
    pub fn groups(self, zones: &Zones, of: impl IntoIterator<Item = ZoneId>) -> Vec<Due> {
        let mut groups: BTreeMap<u64, Vec<ZoneId>> = BTreeMap::new();
        for id in of {
            groups.entry(self.due_in(zones.get(id))).or_default().push(id);
        }
        let mut groups: Vec<Due> =
            groups.into_iter().map(|(at_ms, zones)| Due { at_ms, zones }).collect();
        for group in &mut groups {
            group.zones.sort_unstable();
            group.zones.dedup();
        }
        groups
    }

    /// The last instant at which it can be due for anybody, in milliseconds since 1970.
    pub fn last(self) -> u64 {
        const BEHIND_MS_MAX: i64 = 12 * 3_600_000;
        match self {
            Schedule::At(at_ms) => at_ms,
            Schedule::Local(wall_ms) => wall_ms.saturating_add(BEHIND_MS_MAX).max(0) as u64,
        }
    }
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Schedule, ScheduleError> {
        let read = || match shape(text)? {
            Shape::Instant => {
                let at: Timestamp = text.parse().ok()?;
                u64::try_from(at.as_millisecond()).ok().map(Schedule::At)
            }
            Shape::Local => {
                let wall: DateTime = text.parse().ok()?;
                // As if the clock were UTC's.
                let at = TimeZone::UTC.to_timestamp(wall).ok()?.as_millisecond();
                (at >= 0).then_some(Schedule::Local(at))
            }
        };
        read().ok_or_else(|| ScheduleError { found: text.chars().take(TEXT_BYTES_MAX).collect() })
    }
}

enum Shape {
    Instant,
    Local,
}

/// Which of the two a text is, if it has a date, a `T` and a time: what is read knows more forms,
/// and takes some that are not what they seem.
fn shape(text: &str) -> Option<Shape> {
    let bytes = text.as_bytes();
    let form = b"dddd-dd-ddTdd:dd";
    let fits = |(byte, form): (&u8, &u8)| match form {
        b'd' => byte.is_ascii_digit(),
        _ => byte == form,
    };
    if !(form.len()..=TEXT_BYTES_MAX).contains(&bytes.len()) || !bytes.iter().zip(form).all(fits) {
        return None;
    }
    let mut rest = &bytes[form.len()..];
    if let [b':', b'0'..=b'9', b'0'..=b'9', tail @ ..] = rest {
        rest = tail;
        if let [b'.', fraction @ ..] = rest {
            let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
            rest = &fraction[digits..];
            if !(1..=9).contains(&digits) {
                return None;
            }
        }
    }
    match rest {
        [] => Some(Shape::Local),
        [b'Z' | b'z'] => Some(Shape::Instant),
        [b'+' | b'-', b'0'..=b'9', b'0'..=b'9', b':', b'0'..=b'9', b'0'..=b'9'] => {
            Some(Shape::Instant)
        }
        _ => None,
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ms, mark) = match *self {
            Schedule::At(at_ms) => (crate::zones::signed(at_ms), "Z"),
            Schedule::Local(wall_ms) => (wall_ms, ""),
        };
        match Timestamp::from_millisecond(ms) {
            Ok(at) => write!(f, "{}{mark}", TimeZone::UTC.to_datetime(at)),
            Err(_) => f.write_str("after all times"),
        }
    }
}

impl Serialize for Schedule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Schedule, D::Error> {
        struct ScheduleVisitor;
        impl Visitor<'_> for ScheduleVisitor {
            type Value = Schedule;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time, such as \"2026-12-24T09:00\" or \"2026-12-24T09:00:00Z\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Schedule, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(ScheduleVisitor)
    }
}

#[cfg(test)]
mod tests;
