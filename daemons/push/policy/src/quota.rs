//! How many messages a day a sender may send. A day is one of the policy's calendar, the same for
//! all; each device's copy counts, since that is what costs.
//!
//! What was used is kept by credential until the day ends; a crash forgets what was used since the
//! last [`records`](SenderQuotas::records), so that a sender may send that much more on that day.

use std::collections::HashMap;

use crate::bytes::{Put, Take, Unreadable};
use crate::zones::Zone;

/// Senders whose use is kept at once.
pub const SENDERS_MAX: usize = 100_000;
/// The longest name of a credential, in bytes.
pub const CREDENTIAL_BYTES_MAX: usize = 128;

const VERSION: u8 = 1;

/// A sender has none left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{asked} messages are more than the {left} that are left of {limit} today")]
pub struct QuotaExceeded {
    /// What was asked for.
    pub asked: u64,
    /// What is left today.
    pub left: u64,
    /// What a day allows.
    pub limit: u64,
    /// When the next day begins, in milliseconds since 1970.
    pub resets_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Used {
    day: i64,
    messages: u64,
}

/// What each sender has used today.
#[derive(Clone, Debug, Default)]
pub struct SenderQuotas {
    used: HashMap<Box<str>, Used>,
    /// The day for which those of others were let go.
    cleared: i64,
}

impl SenderQuotas {
    /// Nobody has used anything.
    pub fn new() -> SenderQuotas {
        SenderQuotas::default()
    }

    /// Takes `messages` of what a credential may send on the day that the calendar of `zone`
    /// shows, all or none; tells how many are left. A limit of 0 is none.
    ///
    /// # Errors
    /// There are not so many left. Where [`SENDERS_MAX`] others have sent today, none are.
    pub fn take(
        &mut self,
        credential: &str,
        messages: u64,
        limit: u64,
        now_ms: u64,
        zone: &Zone,
    ) -> Result<u64, QuotaExceeded> {
        if limit == 0 {
            return Ok(u64::MAX);
        }
        let day = zone.day(now_ms);
        let before = self.used_on(credential, day);
        let left = limit.saturating_sub(before);
        let is_new = !self.used.contains_key(credential);
        let has_room = !is_new || self.has_room(day) && credential.len() <= CREDENTIAL_BYTES_MAX;
        if messages > left || !has_room {
            let left = if has_room { left } else { 0 };
            let resets_ms = zone.next_day(now_ms);
            return Err(QuotaExceeded { asked: messages, left, limit, resets_ms });
        }
        self.used.insert(credential.into(), Used { day, messages: before + messages });
        Ok(left - messages)
    }

    /// Gives back what was taken on the day of `taken_ms` and not sent.
    pub fn give_back(&mut self, credential: &str, messages: u64, taken_ms: u64, zone: &Zone) {
        if let Some(used) = self.used.get_mut(credential)
            && used.day == zone.day(taken_ms)
        {
            used.messages = used.messages.saturating_sub(messages);
        }
    }

    /// What a credential has used on the day of `now_ms`.
    pub fn used(&self, credential: &str, now_ms: u64, zone: &Zone) -> u64 {
        self.used_on(credential, zone.day(now_ms))
    }

    fn used_on(&self, credential: &str, day: i64) -> u64 {
        let used = self.used.get(credential).filter(|used| used.day == day);
        used.map_or(0, |used| used.messages)
    }

    /// Whether another sender can be kept; those of other days make room, once a day.
    fn has_room(&mut self, day: i64) -> bool {
        if self.used.len() >= SENDERS_MAX && self.cleared != day {
            self.used.retain(|_, used| used.day == day);
            self.cleared = day;
        }
        self.used.len() < SENDERS_MAX
    }

    /// What was used on the day of `now_ms`, to be [`replay`](SenderQuotas::replay)ed after a
    /// restart. Each record replaces what was said of its credential before.
    pub fn records(&self, now_ms: u64, zone: &Zone) -> impl Iterator<Item = Vec<u8>> {
        let day = zone.day(now_ms);
        self.used.iter().filter(move |(_, used)| used.day == day).map(|(credential, used)| {
            let mut out = vec![VERSION];
            out.text(credential);
            out.number(used.day.max(0) as u64);
            out.number(used.messages);
            out
        })
    }

    /// Takes in a record. What is of another day than that of `now_ms` is left out.
    ///
    /// # Errors
    /// The record is none of this version's.
    pub fn replay(&mut self, record: &[u8], now_ms: u64, zone: &Zone) -> Result<(), Unreadable> {
        let mut from = Take::new(record);
        if from.byte()? != VERSION {
            return Err(Unreadable);
        }
        let credential = from.text()?;
        let day = i64::try_from(from.number()?).map_err(|_| Unreadable)?;
        let messages = from.number()?;
        if !from.is_empty() || credential.len() > CREDENTIAL_BYTES_MAX {
            return Err(Unreadable);
        }
        let known = self.used.contains_key(credential);
        if day == zone.day(now_ms) && (known || self.has_room(day)) {
            self.used.insert(credential.into(), Used { day, messages });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zones::Zones;

    const NOON_MS: u64 = 1_798_718_400_000;
    const DAY_MS: u64 = 86_400_000;

    #[test]
    fn a_day_allows_so_many_and_the_next_as_many_again() {
        let mut zones = Zones::new();
        let id = zones.intern("Asia/Shanghai").expect("a zone");
        let shanghai = zones.get(id);
        let mut quotas = SenderQuotas::new();
        assert_eq!(quotas.take("shop", 70, 100, NOON_MS, shanghai), Ok(30));
        let error = quotas.take("shop", 31, 100, NOON_MS, shanghai).expect_err("31 of 30");
        assert_eq!((error.asked, error.left, error.limit), (31, 30, 100));
        // Noon in UTC is 20:00 in Shanghai.
        assert_eq!(error.resets_ms, NOON_MS + 4 * 3_600_000);
        assert_eq!(quotas.take("shop", 30, 100, NOON_MS, shanghai), Ok(0));
        assert_eq!(quotas.take("other", 100, 100, NOON_MS, shanghai), Ok(0));
        assert_eq!(quotas.take("shop", 100, 100, error.resets_ms, shanghai), Ok(0));
    }

    #[test]
    fn what_was_not_sent_is_given_back_on_its_own_day() {
        let zones = Zones::new();
        let utc = zones.get(crate::ZoneId::UTC);
        let mut quotas = SenderQuotas::new();
        quotas.take("shop", 80, 100, NOON_MS, utc).expect("80 of 100");
        quotas.give_back("shop", 50, NOON_MS - DAY_MS, utc);
        assert_eq!(quotas.used("shop", NOON_MS, utc), 80);
        quotas.give_back("shop", 50, NOON_MS, utc);
        assert_eq!(quotas.used("shop", NOON_MS, utc), 30);
        assert_eq!(quotas.take("free", u64::MAX, 0, NOON_MS, utc), Ok(u64::MAX));
        assert_eq!(quotas.used("free", NOON_MS, utc), 0);
    }

    #[test]
    fn records_bring_back_the_day() {
        let zones = Zones::new();
        let utc = zones.get(crate::ZoneId::UTC);
        let mut quotas = SenderQuotas::new();
        quotas.take("a", 80, 100, NOON_MS, utc).expect("80 of 100");
        quotas.take("b", 1, 100, NOON_MS - DAY_MS, utc).expect("yesterday");
        let mut again = SenderQuotas::new();
        for record in quotas.records(NOON_MS, utc) {
            again.replay(&record, NOON_MS, utc).expect("as written");
            for end in 0..record.len() {
                assert_eq!(
                    SenderQuotas::new().replay(&record[..end], NOON_MS, utc),
                    Err(Unreadable)
                );
            }
        }
        assert_eq!((again.used("a", NOON_MS, utc), again.used.len()), (80, 1));
    }

    #[test]
    fn senders_beyond_the_bound_wait_for_the_next_day() {
        let zones = Zones::new();
        let utc = zones.get(crate::ZoneId::UTC);
        let mut quotas = SenderQuotas::new();
        for number in 0..SENDERS_MAX {
            quotas.take(&number.to_string(), 1, 9, NOON_MS, utc).expect("room");
        }
        assert!(quotas.take("late", 1, 9, NOON_MS, utc).is_err());
        assert_eq!(quotas.take("0", 1, 9, NOON_MS, utc), Ok(7));
        assert_eq!(quotas.take("late", 1, 9, NOON_MS + DAY_MS, utc), Ok(8));
        assert_eq!(quotas.used.len(), 1);
    }
}
