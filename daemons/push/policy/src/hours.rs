//! Hours of the day, and when a message may go out by them.
//!
//! A minute is within `22:00-07:00` if that is what the clock on the wall shows, whatever happened
//! to the clock: an hour that is shown twice is within twice, one that is skipped is not there.
//! [`when`] puts the hours of a class, the quiet hours of an app and a message's end together:
//!
//! ```text
//!   class    ───────├═══════════════════════════┤───     07:00-23:00
//!   quiet    ═══┤─────────────────────────├═════════     21:00-06:00
//!   may go   ───────├═════════════════════┤─────────
//!            ▲ asked here: At(07:00), or Never if it expires before
//! ```

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::reason::Reason;
use crate::zones::{self, Zone};

const DAY_MINUTES: u16 = 24 * 60;
const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = DAY_MINUTES as i64 * MINUTE_MS;
/// Changes of the clock that are looked across for an hour that may be. Four are a year's in the
/// worst zone, and each day between two has every minute.
const SHIFTS_MAX: usize = 8;

/// A part of the day on a clock on the wall, such as `07:00-23:00`, the end not included. One that
/// ends before it begins crosses midnight; `00:00-24:00` is the whole day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hours {
    /// In minutes since midnight, below 24 × 60.
    from: u16,
    /// The same; 24 × 60 is midnight at the end.
    until: u16,
}

impl Hours {
    /// The whole day.
    pub const ALL: Hours = Hours { from: 0, until: DAY_MINUTES };

    /// From a minute of the day until another, as they are told by a clock: hour, minute. None if
    /// that is no time of day, or if both are the same.
    pub const fn new(from: (u16, u16), until: (u16, u16)) -> Option<Hours> {
        let hours = Hours { from: from.0 * 60 + from.1, until: until.0 * 60 + until.1 };
        let valid = from.1 < 60
            && until.1 < 60
            && hours.from < DAY_MINUTES
            && hours.until <= DAY_MINUTES
            && hours.from != hours.until
            && !(hours.from == 0 && hours.until == 0);
        if valid { Some(hours) } else { None }
    }

    /// How long until a clock that shows `of_day_ms` shows a time within; 0 if it does.
    fn wait_ms(self, of_day_ms: i64) -> i64 {
        let (from, until) = (i64::from(self.from) * MINUTE_MS, i64::from(self.until) * MINUTE_MS);
        let within = match from < until {
            true => (from..until).contains(&of_day_ms),
            false => of_day_ms >= from || of_day_ms < until,
        };
        if within { 0 } else { (from - of_day_ms).rem_euclid(DAY_MS) }
    }

    /// The hours that are not these; none of the whole day.
    pub fn outside(self) -> Option<Hours> {
        let from = self.until % DAY_MINUTES;
        let until = if self.from == 0 { DAY_MINUTES } else { self.from };
        (from != until && from != until % DAY_MINUTES).then_some(Hours { from, until })
    }

    /// Whether a minute of the day is within both; none is within what is no hours.
    pub(crate) fn share_a_minute(self, other: Option<Hours>) -> bool {
        // If two parts of a day meet, one of them begins within the other.
        let begins_in = |a: Hours, b: Hours| b.wait_ms(i64::from(a.from) * MINUTE_MS) == 0;
        other.is_some_and(|other| begins_in(self, other) || begins_in(other, self))
    }

    /// Whether the clock of `zone` shows a time within at an instant.
    pub fn contain(self, zone: &Zone, at_ms: u64) -> bool {
        self.wait_ms(zone.wall(at_ms).rem_euclid(DAY_MS)) == 0
    }
}

/// A text that is no part of a day.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{found}\" is no part of a day: write two times that differ, such as \"07:00-23:00\"")]
pub struct HoursError {
    /// What was written.
    pub found: String,
}

impl FromStr for Hours {
    type Err = HoursError;

    fn from_str(text: &str) -> Result<Hours, HoursError> {
        let time = |text: &str| {
            let (hour, minute) = text.split_once(':')?;
            let two = |part: &str| match part.as_bytes() {
                [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => {
                    Some(u16::from(tens - b'0') * 10 + u16::from(ones - b'0'))
                }
                _ => None,
            };
            Some((two(hour)?, two(minute)?))
        };
        text.split_once('-')
            .and_then(|(from, until)| Hours::new(time(from)?, time(until)?))
            .ok_or_else(|| HoursError { found: text.chars().take(64).collect() })
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, until) = (self.from, self.until);
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, until / 60, until % 60)
    }
}

impl Serialize for Hours {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hours {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Hours, D::Error> {
        struct HoursVisitor;
        impl Visitor<'_> for HoursVisitor {
            type Value = Hours;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a part of the day, such as \"07:00-23:00\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Hours, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(HoursVisitor)
    }
}

/// What becomes of a message that may not go out now: `"delay"` or `"drop"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It waits until it may, or expires.
    #[default]
    Delay,
    /// It is dropped.
    Drop,
}

/// Hours in which devices are left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuietHours {
    /// On the device's clock.
    pub hours: Hours,
    /// What becomes of messages in them.
    #[serde(default)]
    pub action: Action,
}

/// When a message may go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At once.
    Now,
    /// Not before an instant, in milliseconds since 1970, and why not before.
    At(u64, Reason),
    /// Not at all.
    Never(Reason),
}

/// When a message may go out that could from `from_ms` on and expires at `expires_ms` (both in
/// milliseconds since 1970; it is expired at that instant): at the first instant within `hours`
/// and outside of `quiet`, on the clock of `zone`. [`When::Now`] is `from_ms`.
///
/// Quiet hours that drop do so too if the hours of its class would have it wait until they hold.
pub fn when(
    from_ms: u64,
    zone: &Zone,
    hours: Hours,
    quiet: Option<QuietHours>,
    expires_ms: u64,
) -> When {
    if from_ms >= expires_ms {
        return When::Never(Reason::Expired);
    }
    let drops = quiet.filter(|quiet| quiet.action == Action::Drop).map(|quiet| quiet.hours);
    let delays = quiet.filter(|quiet| quiet.action == Action::Delay).map(|quiet| quiet.hours);
    let open = match delays.map(Hours::outside) {
        Some(None) => return When::Never(Reason::NoHours),
        Some(Some(open)) => open,
        None => Hours::ALL,
    };
    let Some((at_ms, reason)) = first_within(from_ms, zone, hours, open, expires_ms) else {
        return When::Never(Reason::NoHours);
    };
    if at_ms >= expires_ms {
        return When::Never(match reason {
            Reason::QuietHours => Reason::ExpiresInQuietHours,
            _ => Reason::ExpiresOutsideHours,
        });
    }
    if drops.is_some_and(|drops| drops.contain(zone, at_ms)) {
        return When::Never(Reason::QuietHours);
    }
    if at_ms == from_ms { When::Now } else { When::At(at_ms, reason) }
}

/// The first instant from `from_ms` on that is within both, or some instant past `until_ms`; and
/// which of the two it waited for last. None if they have no minute in common.
fn first_within(
    from_ms: u64,
    zone: &Zone,
    class: Hours,
    open: Hours,
    until_ms: u64,
) -> Option<(u64, Reason)> {
    let mut reason = Reason::OutsideHours;
    let mut at = from_ms;
    for _ in 0..SHIFTS_MAX {
        let (offset_ms, shift_at) = zone.offset_at(at);
        let of_day = |at: u64| (zones::signed(at) + offset_ms).rem_euclid(DAY_MS);
        // While the clock runs evenly, what is not met within a day never is.
        let day_later = at.saturating_add(2 * DAY_MS as u64);
        while at < shift_at && at <= day_later {
            if at >= until_ms {
                return Some((at, reason));
            }
            let (for_class, for_open) = (class.wait_ms(of_day(at)), open.wait_ms(of_day(at)));
            if for_class == 0 && for_open == 0 {
                return Some((at, reason));
            }
            let quiet_ends_last = for_open > for_class;
            reason = if quiet_ends_last { Reason::QuietHours } else { Reason::OutsideHours };
            at = at.saturating_add(for_class.max(for_open) as u64);
        }
        if at < shift_at {
            return None;
        }
        at = shift_at;
    }
    None
}

#[cfg(test)]
mod tests;
