use proptest::prelude::*;

use super::*;

fn at(text: &str) -> u64 {
    text.parse::<Timestamp>().expect("an instant").as_millisecond() as u64
}

#[test]
fn an_offset_makes_an_instant_and_none_a_time_of_each_clock() {
    let eight = at("2026-12-24T08:00:00Z");
    for text in ["2026-12-24T08:00:00Z", "2026-12-24T09:00:00+01:00", "2026-12-24T03:00-05:00"] {
        assert_eq!(text.parse(), Ok(Schedule::At(eight)), "{text}");
    }
    for text in ["2026-12-24T08:00", "2026-12-24T08:00:00", "2026-12-24T08:00:00.000"] {
        assert_eq!(text.parse(), Ok(Schedule::Local(eight as i64)), "{text}");
    }
}

#[test]
fn what_is_no_time_is_refused_and_not_guessed() {
    for text in [
        "",
        "2026-12-24",
        "tomorrow",
        "2026-12-24 08:00",
        "2026-13-24T08:00",
        "2026-02-30T08:00",
        "2026-12-24T25:00",
        "2026-12-24T08:00[Europe/Berlin]",
        "2026-12-24T08:00:00+01:00:00",
        "2026-12-24T08:00+1",
        "1969-12-31T23:59:59Z",
        "1969-12-31T23:59",
        "2026-12-24T08:00:00.Z",
        "2026-12-24T08:00:00.1234567890Z",
        "+002026-12-24T08:00",
        "2026-12-24T08:00Z ",
        "２026-12-24T08:00",
        "2026-12-24T08:00:00Z2026-12-24T08:00:00Z2026-12-24T08:00:00Z",
    ] {
        assert!(text.parse::<Schedule>().is_err(), "{text}");
    }
}

#[test]
fn christmas_at_nine_is_due_once_for_each_offset() {
    let mut zones = Zones::new();
    let mut id = |name| zones.intern(name).expect("a zone");
    let (berlin, paris) = (id("Europe/Berlin"), id("Europe/Paris"));
    let (shanghai, kathmandu) = (id("Asia/Shanghai"), id("Asia/Kathmandu"));
    let schedule: Schedule = "2026-12-24T09:00".parse().expect("a time");
    let groups = schedule.groups(&zones, [paris, ZoneId::UTC, shanghai, berlin, kathmandu, paris]);
    let expected = [
        Due { at_ms: at("2026-12-24T01:00:00Z"), zones: vec![shanghai] },
        Due { at_ms: at("2026-12-24T03:15:00Z"), zones: vec![kathmandu] },
        Due { at_ms: at("2026-12-24T08:00:00Z"), zones: vec![berlin, paris] },
        Due { at_ms: at("2026-12-24T09:00:00Z"), zones: vec![ZoneId::UTC] },
    ];
    assert_eq!(groups, expected);
    let instant = Schedule::At(5).groups(&zones, [paris, shanghai]);
    assert_eq!(instant, [Due { at_ms: 5, zones: vec![paris, shanghai] }]);
}

#[test]
fn nobody_is_due_after_the_last() {
    let mut zones = Zones::new();
    let schedule: Schedule = "2011-12-30T09:00".parse().expect("a time");
    for name in jiff::tz::TimeZoneDatabase::bundled().available() {
        let id = zones.intern(name.as_str()).expect("a zone");
        assert!(schedule.due_in(zones.get(id)) <= schedule.last(), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_schedule_is_read_as_it_is_written(second in 0u64..4_000_000_000, local: bool) {
        let ms = second * 1000;
        let schedule = if local { Schedule::Local(ms as i64) } else { Schedule::At(ms) };
        prop_assert_eq!(schedule.to_string().parse(), Ok(schedule));
        let json = serde_json::to_string(&schedule).expect("a text");
        prop_assert_eq!(serde_json::from_str::<Schedule>(&json).expect("as written"), schedule);
    }

    #[test]
    fn no_text_panics(text in ".{0,50}", near in "[0-9TZ:.+-]{10,40}") {
        let _ = (text.parse::<Schedule>(), near.parse::<Schedule>());
    }
}
