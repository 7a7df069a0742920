use proptest::prelude::*;

use super::*;
use crate::zones::{ZoneId, Zones};

fn hours(text: &str) -> Hours {
    text.parse().expect("a part of the day")
}

fn at(text: &str) -> u64 {
    text.parse::<jiff::Timestamp>().expect("an instant").as_millisecond() as u64
}

fn quiet(text: &str, action: Action) -> Option<QuietHours> {
    Some(QuietHours { hours: hours(text), action })
}

#[test]
fn a_part_of_the_day_is_written_as_it_is_read() {
    for text in ["07:00-23:00", "22:00-07:00", "00:00-24:00", "23:59-00:00", "00:00-00:01"] {
        let read = hours(text);
        let json = serde_json::to_string(&read).expect("a text");
        assert_eq!(serde_json::from_str::<Hours>(&json).expect("as written"), read, "{text}");
    }
    for text in [
        "",
        "7-23",
        "07:00",
        "07:00-07:00",
        "00:00-00:00",
        "24:00-07:00",
        "07:60-08:00",
        "07:00-24:01",
        "07:00 - 23:00",
        "+7:00-23:00",
        "07:00-23:00-",
        "٠٧:٠٠-٢٣:٠٠",
    ] {
        assert!(text.parse::<Hours>().is_err(), "{text}");
    }
}

#[test]
fn the_rest_of_the_day_is_the_other_part() {
    let rest = |text: &str| hours(text).outside().map(|hours| hours.to_string());
    assert_eq!(rest("07:00-23:00").as_deref(), Some("23:00-07:00"));
    assert_eq!(rest("22:00-07:00").as_deref(), Some("07:00-22:00"));
    assert_eq!(rest("00:00-07:00").as_deref(), Some("07:00-24:00"));
    assert_eq!(rest("07:00-24:00").as_deref(), Some("00:00-07:00"));
    assert_eq!(rest("22:00-00:00").as_deref(), Some("00:00-22:00"));
    assert_eq!(rest("00:00-24:00"), None);
}

/// A user of vivo's in Shanghai: operational messages from 07:00 to 23:00.
#[test]
fn an_operational_message_of_the_night_waits_for_the_morning() {
    let mut zones = Zones::new();
    let shanghai = zones.intern("Asia/Shanghai").expect("a zone");
    let shanghai = zones.get(shanghai);
    let day = hours("07:00-23:00");
    let night = at("2026-05-01T15:00:00Z");
    let morning = at("2026-05-01T23:00:00Z");
    let never = u64::MAX;
    assert_eq!(when(night - 1, shanghai, day, None, never), When::Now);
    assert_eq!(when(night, shanghai, day, None, never), When::At(morning, Reason::OutsideHours));
    let expires = When::Never(Reason::ExpiresOutsideHours);
    assert_eq!(when(night, shanghai, day, None, morning), expires);
    assert_eq!(
        when(night, shanghai, day, None, morning + 1),
        When::At(morning, Reason::OutsideHours)
    );
    assert_eq!(when(night, shanghai, day, None, night), When::Never(Reason::Expired));
}

#[test]
fn quiet_hours_delay_or_drop() {
    let zones = Zones::new();
    let utc = zones.get(ZoneId::UTC);
    let (day, never) = (hours("07:00-23:00"), u64::MAX);
    let evening = at("2026-05-01T22:30:00Z");
    let delay = quiet("22:00-08:00", Action::Delay);
    let morning = When::At(at("2026-05-02T08:00:00Z"), Reason::QuietHours);
    assert_eq!(when(evening, utc, day, delay, never), morning);
    let dropped = When::Never(Reason::QuietHours);
    let drop = quiet("22:00-08:00", Action::Drop);
    assert_eq!(when(evening, utc, day, drop, never), dropped);
    // The class would have it wait until 07:00, and then it would be dropped.
    assert_eq!(when(evening + 3_600_000, utc, day, drop, never), dropped);
    let early = quiet("22:00-06:00", Action::Drop);
    let seven = When::At(at("2026-05-02T07:00:00Z"), Reason::OutsideHours);
    assert_eq!(when(evening + 3_600_000, utc, day, early, never), seven);
    let expires = When::Never(Reason::ExpiresInQuietHours);
    assert_eq!(when(evening, utc, day, delay, evening + 3_600_000), expires);
}

#[test]
fn hours_that_share_no_minute_are_never() {
    let zones = Zones::new();
    let utc = zones.get(ZoneId::UTC);
    let (night, quiet) = (hours("22:00-06:00"), quiet("21:00-07:00", Action::Delay));
    assert_eq!(when(0, utc, night, quiet, u64::MAX), When::Never(Reason::NoHours));
    let all = super::tests::quiet("00:00-24:00", Action::Delay);
    assert_eq!(when(0, utc, Hours::ALL, all, u64::MAX), When::Never(Reason::NoHours));
    assert!(!night.share_a_minute(hours("21:00-07:00").outside()));
    assert!(night.share_a_minute(hours("21:00-05:59").outside()));
}

#[test]
fn an_hour_that_a_clock_skips_is_not_waited_for_on_that_day() {
    let mut zones = Zones::new();
    let berlin = zones.intern("Europe/Berlin").expect("a zone");
    let berlin = zones.get(berlin);
    let skipped = hours("02:00-03:00");
    let day_before = at("2026-03-28T12:00:00Z");
    let next = at("2026-03-30T00:00:00Z");
    let expected = When::At(next, Reason::OutsideHours);
    assert_eq!(when(day_before, berlin, skipped, None, u64::MAX), expected);
    // And one that is shown twice is within twice.
    let twice = at("2026-10-25T00:00:00Z");
    assert_eq!(when(twice, berlin, skipped, None, u64::MAX), When::Now);
    assert_eq!(when(twice + 7_199_999, berlin, skipped, None, u64::MAX), When::Now);
    let short = hours("02:00-02:30");
    let between = When::At(twice + 3_600_000, Reason::OutsideHours);
    assert_eq!(when(twice + 1_800_000, berlin, short, None, u64::MAX), between);
}

#[test]
fn the_ends_of_time_do_no_harm() {
    let mut zones = Zones::new();
    for name in ["Pacific/Kiritimati", "Pacific/Pago_Pago"] {
        let id = zones.intern(name).expect("a zone");
        let zone = zones.get(id);
        for from in [0, 1, u64::MAX / 2, u64::MAX - 1] {
            let _ = when(
                from,
                zone,
                hours("07:00-23:00"),
                quiet("22:00-08:00", Action::Delay),
                u64::MAX,
            );
        }
    }
}

/// What [`when`] promises, minute by minute, by the library's own clock.
fn by_minutes(
    from_ms: u64,
    zone: &jiff::tz::TimeZone,
    class: Hours,
    quiet: Option<QuietHours>,
    expires_ms: u64,
) -> Option<u64> {
    let shows = |at_ms: u64| {
        let stamp = jiff::Timestamp::from_millisecond(at_ms as i64).expect("a time");
        let clock = zone.to_datetime(stamp);
        clock.hour() as u16 * 60 + clock.minute() as u16
    };
    let within = |hours: Hours, minute: u16| match hours.from < hours.until {
        true => hours.from <= minute && minute < hours.until,
        false => hours.from <= minute || minute < hours.until,
    };
    let delays = quiet.filter(|quiet| quiet.action == Action::Delay);
    let minutes = (from_ms / 60_000 + 1..).map(|minute| minute * 60_000).take(4 * 1440);
    let first =
        std::iter::once(from_ms).chain(minutes).take_while(|at| *at < expires_ms).find(|at| {
            let minute = shows(*at);
            within(class, minute) && !delays.is_some_and(|quiet| within(quiet.hours, minute))
        })?;
    let drops = quiet.filter(|quiet| quiet.action == Action::Drop);
    (!drops.is_some_and(|quiet| within(quiet.hours, shows(first)))).then_some(first)
}

fn any_hours() -> impl Strategy<Value = Hours> {
    let minute = || (0u16..24, prop_oneof![Just(0u16), Just(30), 0u16..60]);
    (minute(), minute()).prop_filter_map("the same", |(from, until)| Hours::new(from, until))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1500, failure_persistence: None, ..Default::default()
    })]

    #[test]
    fn the_first_minute_that_both_allow_is_found(
        name in proptest::sample::select(vec![
            "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Pacific/Apia",
            "Africa/Cairo", "America/Sao_Paulo", "Australia/Lord_Howe", "Africa/Casablanca",
            "Pacific/Chatham", "UTC",
        ]),
        start in 473_385_600_000u64..1_900_000_000_000,
        around in -180_000_000i64..20_000_000,
        near in any::<bool>(),
        class in prop_oneof![any_hours(), Just(Hours::ALL)],
        quiet in proptest::option::of((any_hours(), any::<bool>())),
        ttl in 0u64..300_000_000,
    ) {
        let library = jiff::tz::TimeZoneDatabase::bundled().get(name).expect("a zone");
        let mut zones = Zones::new();
        let id = zones.intern(name).expect("a zone");
        let mut from = start;
        let stamp = jiff::Timestamp::from_millisecond(start as i64).expect("a time");
        if near && let Some(change) = library.following(stamp).next() {
            from = change.timestamp().as_millisecond().saturating_add(around) as u64;
        }
        let quiet = quiet.map(|(hours, drops)| QuietHours {
            hours,
            action: if drops { Action::Drop } else { Action::Delay },
        });
        let expires = from + ttl;
        let expected = by_minutes(from, &library, class, quiet, expires);
        match when(from, zones.get(id), class, quiet, expires) {
            When::Now => prop_assert_eq!(Some(from), expected),
            When::At(at, _) => prop_assert_eq!(Some(at), expected),
            When::Never(_) => prop_assert_eq!(None, expected),
        }
    }
}
