//! Time zones: what the clock on the wall shows at an instant, and when it shows a time.
//!
//! A zone is the list of its offsets from 1970 to 2120, read once from the IANA database that is
//! part of the program, so that two machines decide alike and nothing is read while messages wait.
//! Instants are milliseconds since 1970. A wall time is counted the same way, as if its clock were
//! UTC's.
//!
//! ```text
//!   wall  │        ╱│ ◄ gap: 02:30 is never shown. The first instant after it stands for it
//!         │      ╱  │      ╱ ╱ ◄ overlap: 02:30 is shown twice. The first stands for it
//!         │    ╱  ╱ │    ╱ ╱
//!         └─────────┴──────────── instant
//! ```
//!
//! Both are one rule: [`Zone::first_at`] is the first instant at which the clock shows that time
//! or a later one. Where a whole day is skipped (Apia, 30 December 2011) that is the midnight that
//! begins the next.

use std::collections::HashMap;

use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};

/// The longest name that is looked for, in bytes.
pub const ZONE_NAME_BYTES_MAX: usize = 64;

const DAY_MS: i64 = 86_400_000;
/// 1 January 2120. Later offsets are taken to be the last one before.
const KNOWN_UNTIL_MS: i64 = 4_733_510_400_000;
/// More changes of an offset than any zone has until then (Morocco's, four a year with Ramadan).
const SHIFTS_MAX: usize = 4096;
/// No clock is further from UTC than this; the database allows a little less than 26 hours.
const OFFSET_MS_MAX: i64 = 26 * 3_600_000;

/// A zone among those of its [`Zones`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ZoneId(u16);

impl ZoneId {
    /// UTC, which every [`Zones`] has.
    pub const UTC: ZoneId = ZoneId(0);
}

/// The database has no such zone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{name}\" is no time zone of the IANA database")]
pub struct UnknownZone {
    /// What was asked for, cut where it is too long to be a name.
    pub name: Box<str>,
}

/// From an instant on, a clock is this far ahead of UTC.
#[derive(Clone, Copy, Debug)]
struct Shift {
    from_ms: i64,
    offset_ms: i64,
}

/// What the clocks of a place show.
#[derive(Debug)]
pub struct Zone {
    name: Box<str>,
    /// By instant, no two alike behind each other; the first is from the beginning of time.
    shifts: Box<[Shift]>,
}

impl Zone {
    fn utc() -> Zone {
        let always = Shift { from_ms: i64::MIN, offset_ms: 0 };
        Zone { name: "UTC".into(), shifts: Box::new([always]) }
    }

    fn read(name: &str, zone: &TimeZone) -> Zone {
        let offset_ms = |at| i64::from(zone.to_offset(at).seconds()) * 1000;
        let first = Shift { from_ms: i64::MIN, offset_ms: offset_ms(Timestamp::UNIX_EPOCH) };
        let mut shifts = vec![first];
        for transition in zone.following(Timestamp::UNIX_EPOCH).take(SHIFTS_MAX) {
            let from_ms = transition.timestamp().as_millisecond();
            let shift =
                Shift { from_ms, offset_ms: i64::from(transition.offset().seconds()) * 1000 };
            if from_ms >= KNOWN_UNTIL_MS {
                break;
            }
            assert!(shift.offset_ms.abs() <= OFFSET_MS_MAX, "the database is part of the program");
            // Some transitions change a zone's abbreviation alone.
            if shifts.last().is_some_and(|last| last.offset_ms != shift.offset_ms) {
                shifts.push(shift);
            }
        }
        Zone { name: name.into(), shifts: shifts.into() }
    }

    /// The name in the IANA database.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The offset at an instant, in milliseconds ahead of UTC, and the instant at which it ends.
    pub(crate) fn offset_at(&self, at_ms: u64) -> (i64, u64) {
        let at = signed(at_ms);
        let next = self.shifts.partition_point(|shift| shift.from_ms <= at);
        assert!(next > 0, "the first is from the beginning of time");
        let until = self.shifts.get(next).map_or(u64::MAX, |shift| shift.from_ms as u64);
        (self.shifts[next - 1].offset_ms, until)
    }

    /// What the clock shows at an instant, in milliseconds since it showed 1970 began.
    pub fn wall(&self, at_ms: u64) -> i64 {
        signed(at_ms) + self.offset_at(at_ms).0
    }

    /// The day that the calendar shows at an instant, counted from 1 January 1970.
    pub fn day(&self, at_ms: u64) -> i64 {
        self.wall(at_ms).div_euclid(DAY_MS)
    }

    /// The first instant at which the calendar shows a later day than at `at_ms`.
    pub fn next_day(&self, at_ms: u64) -> u64 {
        self.first_at((self.day(at_ms) + 1) * DAY_MS)
    }

    /// The first instant at which the clock shows `wall_ms` or later; none is before 1970.
    pub fn first_at(&self, wall_ms: i64) -> u64 {
        // Offsets that ended so long before cannot have shown it.
        let long_before = wall_ms.saturating_sub(OFFSET_MS_MAX);
        let skip = self.shifts.partition_point(|shift| shift.from_ms <= long_before);
        let shifts = &self.shifts[skip.saturating_sub(1)..];
        // The first offset under which the clock comes so far before the offset ends.
        let reached = shifts.windows(2).position(|pair| {
            let shown_last = pair[1].from_ms + pair[0].offset_ms;
            wall_ms < shown_last
        });
        let shift = shifts[reached.unwrap_or(shifts.len() - 1)];
        let at = wall_ms.saturating_sub(shift.offset_ms).max(shift.from_ms);
        at.max(0) as u64
    }
}

/// An instant as a number that has a sign; what is beyond is as good as never.
pub(crate) fn signed(at_ms: u64) -> i64 {
    // Room is left for an offset.
    i64::try_from(at_ms).unwrap_or(i64::MAX).min(i64::MAX - 2 * OFFSET_MS_MAX)
}

/// The zones that devices and apps name. Each is read when it is first named and then kept: the
/// database has about 600, at 4 KiB or less.
#[derive(Debug)]
pub struct Zones {
    database: TimeZoneDatabase,
    zones: Vec<Zone>,
    by_name: HashMap<Box<str>, ZoneId>,
}

impl Default for Zones {
    fn default() -> Zones {
        Zones::new()
    }
}

impl Zones {
    /// UTC alone.
    pub fn new() -> Zones {
        Zones {
            database: TimeZoneDatabase::bundled(),
            zones: vec![Zone::utc()],
            by_name: HashMap::from([("UTC".into(), ZoneId::UTC)]),
        }
    }

    /// The zone of an IANA name, in any case.
    ///
    /// # Errors
    /// The database does not have it.
    pub fn intern(&mut self, name: &str) -> Result<ZoneId, UnknownZone> {
        if let Some(id) = self.by_name.get(name) {
            return Ok(*id);
        }
        let unknown = || UnknownZone { name: name.chars().take(ZONE_NAME_BYTES_MAX).collect() };
        if name.len() > ZONE_NAME_BYTES_MAX {
            return Err(unknown());
        }
        let zone = self.database.get(name).map_err(|_| unknown())?;
        let canonical = zone.iana_name().ok_or_else(unknown)?;
        if let Some(id) = self.by_name.get(canonical) {
            return Ok(*id);
        }
        let id = ZoneId(u16::try_from(self.zones.len()).map_err(|_| unknown())?);
        self.zones.push(Zone::read(canonical, &zone));
        // Under its own spelling alone: others are not counted, and would be without end.
        self.by_name.insert(canonical.into(), id);
        Ok(id)
    }

    /// A zone that was interned here.
    pub fn get(&self, id: ZoneId) -> &Zone {
        self.zones
            .get(usize::from(id.0))
            .expect("an identifier is given by the zones it is used on")
    }
}

#[cfg(test)]
mod tests;
