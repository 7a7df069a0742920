//! Why a message was not sent, or not yet: one byte in the audit log, a name in the API, a
//! sentence for people.
//!
//! Codes never change their meaning and are never given again. Zero is no reason; codes from 128
//! on are the platform's own.
//!
//! | code | name | what happened |
//! |---|---|---|
//! | 1 | `expired` | the time to live had ended |
//! | 2 | `scheduled` | its time has not come in the device's zone |
//! | 3 | `outside_hours` | outside the hours of its class, on the device's clock |
//! | 4 | `quiet_hours` | in the quiet hours of the app, on the device's clock |
//! | 5 | `expires_outside_hours` | it expires before the hours of its class begin |
//! | 6 | `expires_in_quiet_hours` | it expires before the app's quiet hours end |
//! | 7 | `no_hours` | the hours of the class and the quiet hours leave no minute of the day |
//! | 8 | `beyond_schedule` | its time is further ahead than schedules may be |
//! | 20 | `frequency_cap` | the device has had as many messages as a cap lets through |
//! | 21 | `daily_quota` | the device has had as many messages of the class as a day may have |
//! | 22 | `expires_before_cap` | it expires before a cap lets it through |
//! | 23 | `expires_before_quota` | it expires before the device's next day |
//! | 24 | `sender_quota` | the credential has sent as many as a day allows |
//! | 25 | `throttled` | it waits for its turn |
//! | 40 | `content_rejected` | a content rule rejected it |
//! | 41 | `content_review` | a content rule holds it for review |
//! | 42 | `class_review` | every message of its class is reviewed |
//! | 43 | `review_rejected` | a reviewer rejected it |
//! | 44 | `review_expired` | nobody reviewed it in time |
//! | 45 | `unknown_class` | there is no such class |
//! | 60 | `recalled` | its sender took it back |
//! | 61 | `replaced` | a newer message with its collapse key took its place |
//! | 62 | `duplicate` | a message with its idempotency key was accepted before |
//! | 63 | `template` | a variable was missing, or the result too long |
//! | 80 | `device_gone` | the device is not registered, or no longer |
//! | 81 | `queue_full` | too much waits for the device |
//! | 82 | `undeliverable` | the broker could not keep or send it |

use serde::{Serialize, Serializer};

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $name:literal, $text:literal;)+) => {
        /// Why a message was not sent, or not yet.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum Reason {
            $($(#[$doc])* #[doc = $text] $variant = $code,)+
        }

        impl Reason {
            /// All there are, by code.
            pub const ALL: &[Reason] = &[$(Reason::$variant),+];

            /// What the audit log calls it.
            pub const fn code(self) -> u8 {
                self as u8
            }

            /// The reason of a code, if this version knows it.
            pub const fn from_code(code: u8) -> Option<Reason> {
                match code {
                    $($code => Some(Reason::$variant),)+
                    _ => None,
                }
            }

            /// What the API calls it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Reason::$variant => $name,)+
                }
            }

            /// A sentence for people, without its full stop.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Reason::$variant => $text,)+
                }
            }
        }
    };
}

reasons! {
    Expired = 1, "expired", "the time to live had ended";
    Scheduled = 2, "scheduled", "its time has not come in the device's zone";
    OutsideHours = 3, "outside_hours", "outside the hours of its class, on the device's clock";
    QuietHours = 4, "quiet_hours", "in the quiet hours of the app, on the device's clock";
    ExpiresOutsideHours = 5, "expires_outside_hours",
        "it expires before the hours of its class begin";
    ExpiresInQuietHours = 6, "expires_in_quiet_hours",
        "it expires before the app's quiet hours end";
    NoHours = 7, "no_hours",
        "the hours of the class and the quiet hours leave no minute of the day";
    BeyondSchedule = 8, "beyond_schedule", "its time is further ahead than schedules may be";
    FrequencyCap = 20, "frequency_cap", "the device has had as many messages as a cap lets through";
    DailyQuota = 21, "daily_quota",
        "the device has had as many messages of the class as a day may have";
    ExpiresBeforeCap = 22, "expires_before_cap", "it expires before a cap lets it through";
    ExpiresBeforeQuota = 23, "expires_before_quota", "it expires before the device's next day";
    SenderQuota = 24, "sender_quota", "the credential has sent as many as a day allows";
    Throttled = 25, "throttled", "it waits for its turn";
    ContentRejected = 40, "content_rejected", "a content rule rejected it";
    ContentReview = 41, "content_review", "a content rule holds it for review";
    ClassReview = 42, "class_review", "every message of its class is reviewed";
    ReviewRejected = 43, "review_rejected", "a reviewer rejected it";
    ReviewExpired = 44, "review_expired", "nobody reviewed it in time";
    UnknownClass = 45, "unknown_class", "there is no such class";
    Recalled = 60, "recalled", "its sender took it back";
    Replaced = 61, "replaced", "a newer message with its collapse key took its place";
    Duplicate = 62, "duplicate", "a message with its idempotency key was accepted before";
    Template = 63, "template", "a variable was missing, or the result too long";
    DeviceGone = 80, "device_gone", "the device is not registered, or no longer";
    QueueFull = 81, "queue_full", "too much waits for the device";
    Undeliverable = 82, "undeliverable", "the broker could not keep or send it";
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text())
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_gives_its_reason_and_nothing_else_does() {
        let known: Vec<u8> = (0..=255).filter(|code| Reason::from_code(*code).is_some()).collect();
        let all: Vec<u8> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(known, all);
        for reason in Reason::ALL {
            assert_eq!(Reason::from_code(reason.code()), Some(*reason));
        }
    }

    #[test]
    fn the_table_of_the_documentation_is_the_code() {
        let source = include_str!("reason.rs");
        for reason in Reason::ALL {
            let row =
                format!("//! | {} | `{}` | {} |", reason.code(), reason.name(), reason.text());
            assert!(source.contains(&row), "{row}");
        }
        let rows = source.lines().filter(|line| line.starts_with("//! | ")).count();
        assert_eq!(rows, Reason::ALL.len() + 1, "a head, and a row for each");
    }
}
