use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::zones::{ZoneId, Zones};

const HOUR_MS: u64 = 3_600_000;
/// Noon, 1 May 2026, in UTC.
const NOON_MS: u64 = 1_777_636_800_000;

fn cap(name: &str, limit: u8, span_ms: u64) -> CountRule {
    CountRule { key: name.into(), limit, period: Period::Span(span_ms) }
}

fn daily(name: &str, limit: u8) -> CountRule {
    CountRule { key: name.into(), limit, period: Period::Day }
}

fn counters(rules: &[CountRule]) -> Counters {
    let mut counters = Counters::new(CountLimits::default());
    counters.adopt(rules).expect("few");
    counters
}

const ONE: &[RuleId] = &[RuleId(0)];
const BOTH: &[RuleId] = &[RuleId(0), RuleId(1)];

/// vivo's: five operational messages a day a user.
#[test]
fn the_sixth_message_of_a_day_waits_for_midnight_on_the_devices_clock() {
    let mut zones = Zones::new();
    let shanghai = zones.intern("Asia/Shanghai").expect("a zone");
    let shanghai = zones.get(shanghai);
    let mut counters = counters(&[daily("class operational", 5)]);
    for minute in 0..5 {
        let at = NOON_MS + minute * 60_000;
        assert_eq!(counters.admit(7, ONE, at, shanghai), Ok(()));
        counters.note(7, ONE, at, shanghai);
    }
    let midnight = NOON_MS + 4 * HOUR_MS;
    let capped = Err(Capped { rule: RuleId(0), until_ms: midnight });
    assert_eq!(counters.admit(7, ONE, NOON_MS + 300_000, shanghai), capped);
    assert_eq!(counters.admit(7, ONE, midnight - 1, shanghai), capped);
    assert_eq!(counters.admit(7, ONE, midnight, shanghai), Ok(()));
    assert_eq!(counters.admit(8, ONE, NOON_MS + 300_000, shanghai), Ok(()));
    // In New York the day is younger.
    let utc = zones.get(ZoneId::UTC);
    assert_eq!(counters.admit(7, ONE, midnight, utc).expect_err("still today").rule, RuleId(0));
}

#[test]
fn of_several_caps_the_one_that_lets_through_last_is_told() {
    let zones = Zones::new();
    let utc = zones.get(ZoneId::UTC);
    let mut counters = counters(&[cap("hour", 1, HOUR_MS), daily("day", 1)]);
    counters.note(1, BOTH, NOON_MS, utc);
    let capped = counters.admit(1, BOTH, NOON_MS, utc).expect_err("both");
    assert_eq!(capped, Capped { rule: RuleId(1), until_ms: NOON_MS + 12 * HOUR_MS });
    let capped = counters.admit(1, ONE, NOON_MS, utc).expect_err("the hour");
    assert!((HOUR_MS..=HOUR_MS * 7 / 6).contains(&(capped.until_ms - NOON_MS)), "{capped:?}");
}

#[test]
fn what_was_not_sent_is_taken_back() {
    let zones = Zones::new();
    let utc = zones.get(ZoneId::UTC);
    let mut counters = counters(&[cap("hour", 2, HOUR_MS), daily("day", 2)]);
    counters.note(1, BOTH, NOON_MS, utc);
    counters.note(1, BOTH, NOON_MS + HOUR_MS / 2, utc);
    assert!(counters.admit(1, BOTH, NOON_MS + HOUR_MS / 2, utc).is_err());
    counters.undo(1, BOTH, NOON_MS, utc);
    assert_eq!(counters.admit(1, BOTH, NOON_MS + HOUR_MS / 2, utc), Ok(()));
    // What was never counted, or so long ago that it no longer is, changes nothing.
    counters.undo(1, BOTH, NOON_MS - 24 * HOUR_MS, utc);
    counters.undo(2, BOTH, NOON_MS, utc);
    counters.note(1, BOTH, NOON_MS + HOUR_MS / 2, utc);
    assert!(counters.admit(1, BOTH, NOON_MS + HOUR_MS / 2, utc).is_err());
}

#[test]
fn a_rule_keeps_its_counts_when_its_limit_changes_and_not_when_its_span_does() {
    let zones = Zones::new();
    let utc = zones.get(ZoneId::UTC);
    let mut counters = counters(&[cap("a", 1, HOUR_MS)]);
    counters.note(1, ONE, NOON_MS, utc);
    let rules = [daily("b", 1), cap("a", 2, HOUR_MS)];
    assert_eq!(counters.adopt(&rules), Ok(vec![RuleId(1), RuleId(0)]));
    assert_eq!(counters.admit(1, BOTH, NOON_MS, utc), Ok(()));
    counters.note(1, BOTH, NOON_MS, utc);
    assert!(counters.admit(1, ONE, NOON_MS, utc).is_err());
    assert!(counters.admit(1, &[RuleId(1)], NOON_MS, utc).is_err());
    assert_eq!(counters.adopt(&[cap("a", 1, 2 * HOUR_MS)]), Ok(vec![RuleId(2)]));
    // Who still names the rules of before is told of no cap, and counts nothing.
    counters.note(1, BOTH, NOON_MS, utc);
    assert_eq!(counters.admit(1, &[RuleId(0), RuleId(1), RuleId(2)], NOON_MS, utc), Ok(()));
    counters.note(1, &[RuleId(2), RuleId(77)], NOON_MS, utc);
    assert_eq!((counters.counters(), counters.sweep(1, NOON_MS), counters.counters()), (3, 2, 1));
}

#[test]
fn rules_have_numbers_for_a_life_and_run_out_of_them() {
    let mut counters = Counters::new(CountLimits::default());
    for life in 0..16 {
        let rules: Vec<CountRule> =
            (0..4096).map(|rule| daily(&format!("{life}.{rule}"), 1)).collect();
        assert!(counters.adopt(&rules).is_ok(), "{life}");
    }
    assert_eq!(counters.adopt(&[daily("one more", 1)]), Err(TooManyRules));
    assert_eq!(counters.slots.iter().filter(|slot| slot.live).count(), 4096);
    assert_eq!(counters.key(RuleId(1)), Some("0.1"), "gone, and not forgotten");
}

#[test]
fn a_clock_that_is_set_back_does_no_harm() {
    let zones = Zones::new();
    let utc = zones.get(ZoneId::UTC);
    let mut counters = counters(&[cap("hour", 2, HOUR_MS)]);
    counters.note(1, ONE, NOON_MS, utc);
    counters.note(1, ONE, NOON_MS - 1_200_000, utc);
    assert!(counters.admit(1, ONE, NOON_MS - 1_200_000, utc).is_err());
    assert!(counters.admit(1, ONE, NOON_MS, utc).is_err());
    // Far ahead, and back.
    counters.note(2, ONE, NOON_MS + 1000 * HOUR_MS, utc);
    counters.note(2, ONE, NOON_MS + 1000 * HOUR_MS, utc);
    assert_eq!(counters.admit(2, ONE, NOON_MS, utc), Ok(()));
    counters.note(2, ONE, NOON_MS, utc);
    assert_eq!(counters.admit(2, ONE, NOON_MS, utc), Ok(()));
}

#[test]
fn beyond_the_bounds_messages_go_through_uncounted() {
    let zones = Zones::new();
    let utc = zones.get(ZoneId::UTC);
    let mut counters = Counters::new(CountLimits { devices_max: 1000, counters_max: 2 });
    counters.adopt(&[daily("day", 1)]).expect("few");
    for device in [1, 2, 3, 1000, u32::MAX] {
        counters.note(device, ONE, NOON_MS, utc);
    }
    assert_eq!((counters.counters(), counters.uncounted()), (2, 3));
    assert!(counters.admit(2, ONE, NOON_MS, utc).is_err());
    assert_eq!(counters.admit(3, ONE, NOON_MS, utc), Ok(()));
    counters.forget(1);
    counters.forget(u32::MAX);
    counters.note(3, ONE, NOON_MS, utc);
    assert!(counters.admit(3, ONE, NOON_MS, utc).is_err());
    counters.sweep(10, NOON_MS + 72 * HOUR_MS);
    assert_eq!((counters.counters(), counters.arena.len()), (0, 0));
    assert!(counters.pages.iter().all(Option::is_none));
}

/// Everything that was said since the last snapshot, replayed.
fn again(records: &[Vec<u8>], rules: &[CountRule], now_ms: u64) -> Counters {
    let mut again = counters(rules);
    for record in records {
        again.replay(record, now_ms).expect("as written");
    }
    again
}

#[test]
fn records_are_of_what_changed() {
    let zones = Zones::new();
    let utc = zones.get(ZoneId::UTC);
    let rules = [daily("day", 2), cap("hour", 2, HOUR_MS)];
    let mut counters = counters(&rules);
    let mut log = Vec::new();
    let write = |counters: &mut Counters, log: &mut Vec<Vec<u8>>| {
        let before = log.len();
        log.extend(std::iter::from_fn(|| counters.take_record(NOON_MS)));
        log.len() - before
    };
    assert_eq!(write(&mut counters, &mut log), 1, "the rules");
    counters.note(1, BOTH, NOON_MS, utc);
    counters.note(200, BOTH, NOON_MS, utc);
    counters.note(70_000, BOTH, NOON_MS, utc);
    assert_eq!((write(&mut counters, &mut log), write(&mut counters, &mut log)), (2, 0));
    counters.note(1, BOTH, NOON_MS, utc);
    assert_eq!(write(&mut counters, &mut log), 1);
    counters.forget(200);
    assert_eq!(write(&mut counters, &mut log), 1);
    let mut snapshot = Vec::new();
    counters.all_changed();
    assert_eq!(write(&mut counters, &mut snapshot), 3);
    for log in [&log, &snapshot] {
        let again = again(log, &rules, NOON_MS);
        assert!(again.admit(1, &[RuleId(0)], NOON_MS, utc).is_err());
        assert!(again.admit(1, &[RuleId(1)], NOON_MS, utc).is_err());
        assert_eq!(again.admit(70_000, BOTH, NOON_MS, utc), Ok(()));
        assert_eq!(again.counters(), 4);
    }
    // A rule that is gone, and a day that is.
    assert_eq!(self::again(&log, &rules[..1], NOON_MS).counters(), 2);
    assert_eq!(self::again(&log, &rules, NOON_MS + 240 * HOUR_MS).counters(), 0);
}

#[test]
fn a_record_that_is_cut_is_refused() {
    let zones = Zones::new();
    let rules = [daily("day", 2), cap("hour", 2, HOUR_MS)];
    let mut counters = counters(&rules);
    counters.note(1, BOTH, NOON_MS, zones.get(ZoneId::UTC));
    let first = counters.take_record(NOON_MS).expect("the rules");
    let page = counters.take_record(NOON_MS).expect("a page");
    assert_eq!(again(&[], &rules, NOON_MS).replay(&page, NOON_MS), Err(Unreadable));
    for end in 0..first.len() {
        assert_eq!(again(&[], &rules, NOON_MS).replay(&first[..end], NOON_MS), Err(Unreadable));
    }
    // An empty page is a page, too.
    for end in (0..page.len()).filter(|end| *end != 2) {
        let mut again = again(std::slice::from_ref(&first), &rules, NOON_MS);
        assert_eq!(again.replay(&page[..end], NOON_MS), Err(Unreadable), "{end}");
        assert_eq!(again.counters(), 0);
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// A device has so many milliseconds later a message, if it may.
    Send(u32, u64),
    Undo(u32),
    Sweep,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let pause = prop_oneof![0u64..1000, 0u64..HOUR_MS, 0u64..40 * HOUR_MS];
    prop_oneof![
        12 => (0u32..4, pause).prop_map(|(device, pause)| Step::Send(device * 300, pause)),
        1 => (0u32..4).prop_map(|device| Step::Undo(device * 300)),
        1 => Just(Step::Sweep),
        1 => Just(Step::Restart),
    ]
}

/// What each device has had: when, by a list.
#[derive(Default)]
struct Lists(BTreeMap<u32, Vec<u64>>);

impl Lists {
    fn since(&self, device: u32, from_ms: u64) -> usize {
        self.0.get(&device).map_or(0, |had| had.iter().filter(|at| **at > from_ms).count())
    }

    fn on_day(&self, device: u32, now_ms: u64, zone: &Zone) -> usize {
        let day = zone.day(now_ms);
        self.0.get(&device).map_or(0, |had| had.iter().filter(|at| zone.day(**at) == day).count())
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400, failure_persistence: None, ..Default::default()
    })]

    #[test]
    fn no_span_has_more_than_its_cap_and_no_day_more_than_its_quota(
        steps in proptest::collection::vec(step(), 1..200),
        span_ms in prop_oneof![Just(SPAN_MS_MIN), SPAN_MS_MIN..60 * HOUR_MS],
        limit in 1u8..6,
        quota in 1u8..6,
        zone in proptest::sample::select(vec!["Europe/Berlin", "Asia/Kathmandu", "Africa/Cairo"]),
    ) {
        let mut zones = Zones::new();
        let id = zones.intern(zone).expect("a zone");
        let zone = zones.get(id);
        let rules = [cap("cap", limit, span_ms), daily("quota", quota)];
        let mut counters = counters(&rules);
        let mut lists = Lists::default();
        let mut log = Vec::new();
        let mut now = NOON_MS;
        for step in steps {
            match step {
                Step::Send(device, pause) => {
                    now += pause;
                    let in_span = lists.since(device, now - span_ms);
                    // What is forgotten a sixth too late, and a bucket's rounding.
                    let in_longer = lists.since(device, now - span_ms * 7 / 6 - 7);
                    let of_day = lists.on_day(device, now, zone);
                    let of_cap = counters.admit(device, ONE, now, zone);
                    let of_quota = counters.admit(device, &[RuleId(1)], now, zone);
                    prop_assert_eq!(of_quota.is_err(), of_day >= usize::from(quota));
                    prop_assert!(of_cap.is_err() || in_span < usize::from(limit));
                    prop_assert!(of_cap.is_ok() || in_longer >= usize::from(limit));
                    for capped in [of_cap, of_quota].into_iter().filter_map(Result::err) {
                        let rule = &[capped.rule];
                        prop_assert!(capped.until_ms > now);
                        prop_assert!(counters.admit(device, rule, capped.until_ms, zone).is_ok());
                        prop_assert!(counters.admit(device, rule, capped.until_ms - 1, zone).is_err());
                    }
                    if counters.admit(device, BOTH, now, zone).is_ok() {
                        counters.note(device, BOTH, now, zone);
                        lists.0.entry(device).or_default().push(now);
                    }
                }
                Step::Undo(device) => {
                    if let Some(last) = lists.0.get_mut(&device).and_then(Vec::pop) {
                        counters.undo(device, BOTH, last, zone);
                    }
                }
                Step::Sweep => drop(counters.sweep(2, now)),
                Step::Restart => {
                    log.extend(std::iter::from_fn(|| counters.take_record(now)));
                    counters = again(&log, &rules, now);
                }
            }
        }
    }

    #[test]
    fn no_record_panics(
        records in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..8),
        now in any::<u64>(),
    ) {
        let mut counters = counters(&[daily("a", 1), cap("b", 3, HOUR_MS)]);
        let rules = counters.take_record(now).expect("the rules");
        counters.replay(&rules, now).expect("as written");
        for mut record in records {
            let _ = counters.replay(&record, now);
            record.insert(0, 2);
            let _ = counters.replay(&record, now);
        }
        prop_assert!(counters.counters() < 1000);
    }
}
