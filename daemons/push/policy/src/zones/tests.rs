use jiff::civil::DateTime;
use jiff::tz::AmbiguousOffset;
use proptest::prelude::*;

use super::*;

fn zone(name: &str) -> Zone {
    let mut zones = Zones::new();
    let id = zones.intern(name).expect("a zone of the database");
    zones.zones.swap_remove(usize::from(id.0))
}

fn wall(text: &str) -> i64 {
    let time: DateTime = text.parse().expect("a date and a time");
    TimeZone::UTC.to_timestamp(time).expect("a year of four digits").as_millisecond()
}

fn instant(text: &str) -> u64 {
    text.parse::<Timestamp>().expect("an instant").as_millisecond() as u64
}

#[test]
fn times_that_a_clock_skips_or_shows_twice_are_decided() {
    for (zone_name, shown, due, what) in [
        ("Europe/Berlin", "2026-12-24T09:00", "2026-12-24T08:00:00Z", "a winter's morning"),
        ("Europe/Berlin", "2026-03-29T02:30", "2026-03-29T01:00:00Z", "a gap ends at 03:00"),
        ("Europe/Berlin", "2026-03-29T03:00", "2026-03-29T01:00:00Z", "behind the gap"),
        ("Europe/Berlin", "2026-10-25T02:30", "2026-10-25T00:30:00Z", "the first of two"),
        ("Europe/Berlin", "2026-10-25T03:00", "2026-10-25T02:00:00Z", "behind the overlap"),
        ("America/New_York", "2026-03-08T02:30", "2026-03-08T07:00:00Z", "a gap"),
        ("America/New_York", "2026-11-01T01:30", "2026-11-01T05:30:00Z", "an overlap"),
        ("America/Sao_Paulo", "2018-11-04T00:00", "2018-11-04T03:00:00Z", "no midnight"),
        ("America/Sao_Paulo", "2026-11-01T00:00", "2026-11-01T03:00:00Z", "no summer time now"),
        ("Africa/Cairo", "2026-04-24T00:30", "2026-04-23T22:00:00Z", "a gap at midnight"),
        ("Africa/Cairo", "2026-10-29T23:30", "2026-10-29T20:30:00Z", "an overlap before midnight"),
        ("Asia/Kathmandu", "2026-12-24T09:00", "2026-12-24T03:15:00Z", "a quarter of an hour"),
        ("Australia/Lord_Howe", "2026-10-04T02:15", "2026-10-03T15:30:00Z", "a gap of 30 minutes"),
        ("Australia/Lord_Howe", "2026-04-05T01:45", "2026-04-04T14:45:00Z", "an overlap of 30"),
        ("Pacific/Apia", "2011-12-30T09:00", "2011-12-30T10:00:00Z", "a day that was not"),
        ("Pacific/Apia", "2011-12-29T23:59", "2011-12-30T09:59:00Z", "the last minute before"),
        ("Pacific/Kiritimati", "2026-12-24T09:00", "2026-12-23T19:00:00Z", "the first to wake"),
        ("UTC", "2026-12-24T09:00", "2026-12-24T09:00:00Z", "no place"),
    ] {
        let zone = zone(zone_name);
        let due = instant(due);
        assert_eq!(zone.first_at(wall(shown)), due, "{zone_name} {shown}: {what}");
    }
}

#[test]
fn names_are_found_in_any_case_and_once() {
    let mut zones = Zones::new();
    let berlin = zones.intern("Europe/Berlin").expect("a zone");
    assert_eq!(zones.intern("europe/BERLIN"), Ok(berlin));
    assert_eq!(zones.intern("utc"), Ok(ZoneId::UTC));
    assert_eq!((zones.get(berlin).name(), zones.zones.len()), ("Europe/Berlin", 2));
    for name in ["", "Europe", "Europe/Bielefeld", "+02:00", "Etc/Unknown", &"x".repeat(100)] {
        assert!(zones.intern(name).is_err(), "{name}");
    }
    assert_eq!(zones.zones.len(), 2);
}

#[test]
fn every_zone_of_the_database_is_read() {
    let mut zones = Zones::new();
    let database = TimeZoneDatabase::bundled();
    for name in database.available() {
        zones.intern(name.as_str()).expect("a zone of the database");
    }
    assert!((400..1000).contains(&zones.zones.len()), "{}", zones.zones.len());
    let shifts: usize = zones.zones.iter().map(|zone| zone.shifts.len()).sum();
    // 2.4 MB if every zone there is were named.
    assert!(shifts * size_of::<Shift>() < 4 << 20, "{shifts}");
}

#[test]
fn the_ends_of_time_are_instants_too() {
    for name in ["Pacific/Kiritimati", "Pacific/Pago_Pago", "UTC"] {
        let zone = zone(name);
        for at in [0, 1, u64::MAX / 2, u64::MAX] {
            let _ = (zone.wall(at), zone.day(at), zone.next_day(at));
        }
        assert_eq!(zone.first_at(i64::MIN), 0);
        assert!(zone.first_at(i64::MAX) > u64::MAX / 4);
    }
}

const NAMES: [&str; 12] = [
    "Africa/Cairo",
    "Africa/Casablanca",
    "America/New_York",
    "America/Sao_Paulo",
    "America/St_Johns",
    "Asia/Gaza",
    "Asia/Kathmandu",
    "Asia/Shanghai",
    "Australia/Lord_Howe",
    "Europe/Dublin",
    "Pacific/Apia",
    "Pacific/Chatham",
];

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000, failure_persistence: None, ..Default::default()
    })]

    #[test]
    fn clocks_show_what_the_library_says(
        at in 0..KNOWN_UNTIL_MS,
        name in proptest::sample::select(&NAMES[..]),
    ) {
        let library = TimeZoneDatabase::bundled().get(name).expect("a zone");
        let stamp = Timestamp::from_millisecond(at).expect("before 2120");
        let offset_ms = i64::from(library.to_offset(stamp).seconds()) * 1000;
        prop_assert_eq!(zone(name).wall(at as u64), at + offset_ms);
    }

    #[test]
    fn a_time_is_first_shown_when_the_library_says(
        minute in 1_000_000i64..KNOWN_UNTIL_MS / 60_000 - 3000,
        near in any::<bool>(),
        name in proptest::sample::select(&NAMES[..]),
    ) {
        let library = TimeZoneDatabase::bundled().get(name).expect("a zone");
        let mut time = minute * 60_000;
        if near {
            // Within two hours of a change, where there is one.
            let stamp = Timestamp::from_millisecond(time).expect("before 2120");
            if let Some(change) = library.following(stamp).next() {
                let at = change.timestamp().as_millisecond();
                time = at + i64::from(change.offset().seconds()) * 1000
                    + (minute % 240 - 120) * 60_000;
            }
        }
        prop_assume!(time < KNOWN_UNTIL_MS - 2 * DAY_MS);
        let shown = TimeZone::UTC.to_datetime(Timestamp::from_millisecond(time).expect("a time"));
        let ambiguous = library.to_ambiguous_timestamp(shown);
        let expected = match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { .. } => ambiguous.compatible().expect("a time"),
            AmbiguousOffset::Fold { .. } => ambiguous.earlier().expect("a time"),
            AmbiguousOffset::Gap { .. } => {
                let behind = ambiguous.later().expect("a time");
                let just_after = Timestamp::from_millisecond(behind.as_millisecond() + 1).expect("a time");
                library.preceding(just_after).next().expect("the gap's end").timestamp()
            }
        };
        prop_assert_eq!(zone(name).first_at(time) as i64, expected.as_millisecond());
    }
}
