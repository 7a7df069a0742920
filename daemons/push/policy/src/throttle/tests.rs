use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn rate(per_second: u32) -> Option<Rate> {
    Rate::per_second(per_second)
}

/// Everything that may go at an instant, in pieces of `budget`.
fn drain(throttle: &mut Throttle, now_ms: u64, budget: u32) -> Vec<Grant> {
    std::iter::from_fn(|| throttle.next(now_ms, budget)).collect()
}

fn sum(grants: &[Grant], campaign: u64) -> u64 {
    let of = grants.iter().filter(|grant| grant.campaign == campaign);
    of.map(|grant| u64::from(grant.messages)).sum()
}

#[test]
fn a_transactional_message_overtakes_a_broadcast_in_its_midst() {
    let mut throttle = Throttle::new(10);
    throttle.set_overall(Rate::with_burst(1000, 100), 0);
    throttle.add(1, 7, 2, None, 100_000, 0).expect("room");
    assert_eq!(throttle.next(0, 50), Some(Grant { campaign: 1, messages: 50 }));
    throttle.add(2, 7, 9, None, 1, 0).expect("room");
    assert_eq!(throttle.next(0, 50), Some(Grant { campaign: 2, messages: 1 }));
    assert_eq!(throttle.next(0, 50), Some(Grant { campaign: 1, messages: 14 }));
    assert_eq!(sum(&drain(&mut throttle, 0, 50), 1), 35, "the rest of the burst");
    assert_eq!(
        (throttle.pending(2), throttle.end(2), throttle.pending(2)),
        (Some(0), Some(0), None)
    );
}

/// Xiaomi's: an app of 1,000 a second beside one of 100,000.
#[test]
fn an_app_has_its_rate_whatever_the_others_do() {
    let mut throttle = Throttle::new(10);
    throttle.set_app(1, rate(1_000), 0);
    throttle.set_app(2, rate(100_000), 0);
    throttle.add(10, 1, 5, None, 1_000_000, 0).expect("room");
    throttle.add(20, 2, 5, None, 1_000_000, 0).expect("room");
    let all: Vec<Grant> = (0..=10_000).flat_map(|now| drain(&mut throttle, now, 1000)).collect();
    assert_eq!(sum(&all, 10), 10_000 + 50);
    assert_eq!(sum(&all, 20), 1_000_000);
}

#[test]
fn campaigns_of_an_app_share_and_so_do_apps() {
    let mut throttle = Throttle::new(100);
    throttle.set_overall(rate(10_000), 0);
    throttle.add(1, 1, 5, None, 1_000_000, 0).expect("room");
    for campaign in 2..=9 {
        throttle.add(campaign, 2, 5, None, 1_000_000, 0).expect("room");
    }
    let all: Vec<Grant> = (0..=10_000).flat_map(|now| drain(&mut throttle, now, 17)).collect();
    let of_first = sum(&all, 1);
    assert!(of_first.abs_diff(50_000) < 500, "{of_first}");
    for campaign in 2..=9 {
        let of_other = sum(&all, campaign);
        assert!(of_other.abs_diff(50_000 / 8) < 200, "{campaign}: {of_other}");
    }
}

#[test]
fn who_waits_is_waited_for_no_longer_than_it_takes() {
    let mut throttle = Throttle::new(10);
    throttle.add(1, 1, 5, Rate::with_burst(10, 1), 3, 1_000).expect("room");
    assert_eq!(throttle.next(1_000, 9), Some(Grant { campaign: 1, messages: 1 }));
    assert_eq!((throttle.next(1_000, 9), throttle.wake_at()), (None, Some(1_100)));
    assert_eq!(throttle.next(1_099, 9), None);
    assert_eq!(throttle.next(1_100, 9), Some(Grant { campaign: 1, messages: 1 }));
    assert_eq!((throttle.next(1_100, 9), throttle.wake_at()), (None, Some(1_200)));
    // A faster rate is not waited for as long.
    assert!(throttle.set_rate(1, Rate::with_burst(1000, 1), 1_101));
    assert_eq!(throttle.next(1_102, 9), Some(Grant { campaign: 1, messages: 1 }));
    assert_eq!((throttle.next(1_300, 9), throttle.wake_at()), (None, None));
    assert!(throttle.more(1, 1) && !throttle.more(2, 1));
    assert_eq!(throttle.next(1_300, 9), Some(Grant { campaign: 1, messages: 1 }));
}

#[test]
fn a_clock_that_is_set_back_stops_nobody() {
    let hour = 3_600_000;
    let mut throttle = Throttle::new(10);
    throttle.set_overall(Rate::with_burst(2, 1), hour);
    throttle.set_app(1, Rate::with_burst(2, 1), hour);
    throttle.add(1, 1, 5, Rate::with_burst(2, 1), 100, hour).expect("room");
    throttle.add(2, 1, 5, None, 100, hour).expect("room");
    let sent = |throttle: &mut Throttle, now| drain(throttle, now, 9).len();
    assert_eq!((sent(&mut throttle, hour), sent(&mut throttle, hour + 500)), (1, 1));
    assert_eq!(sent(&mut throttle, 0), 0);
    let later: usize = (1..=100).map(|tick| sent(&mut throttle, tick * 100)).sum();
    assert!((19..=20).contains(&later), "{later}");
    // A reading that is a little early is none that adds.
    let jitter: usize = (0..100).map(|tick| sent(&mut throttle, 10_000 - tick % 2)).sum();
    assert_eq!(jitter, 0);
}

#[test]
fn campaigns_that_cannot_be_are_refused() {
    let mut throttle = Throttle::new(1);
    assert_eq!(throttle.add(1, 1, 10, None, 1, 0), Err(ThrottleError::Priority { priority: 10 }));
    throttle.add(1, 1, 9, None, 1, 0).expect("room");
    assert_eq!(throttle.add(1, 1, 9, None, 1, 0), Err(ThrottleError::Known { campaign: 1 }));
    assert_eq!(throttle.add(2, 1, 9, None, 1, 0), Err(ThrottleError::TooMany { max: 1 }));
    assert_eq!((Rate::per_second(0), Rate::with_burst(1, 0)), (None, None));
    assert_eq!(Rate::per_second(RATE_MAX + 1), None);
    assert_eq!((throttle.end(1), throttle.end(1), throttle.next(0, 1)), (Some(1), None, None));
    assert!(throttle.apps.is_empty() && throttle.turns.iter().all(VecDeque::is_empty));
}

#[test]
fn coming_and_going_leaves_nothing_behind() {
    let mut throttle = Throttle::new(10);
    for round in 0..1000 {
        throttle.add(round, round as u16 % 3, 5, Rate::with_burst(1, 1), 2, round).expect("room");
        throttle.set_rate(round, Rate::with_burst(2, 1), round);
        if round % 2 == 0 {
            drain(&mut throttle, round, 10);
        }
        throttle.end(round);
    }
    assert!(throttle.apps.is_empty() && throttle.turns.iter().all(VecDeque::is_empty));
    drain(&mut throttle, 10_000, 1);
    assert!(throttle.waiting.is_empty());
}

/// Thousands that wait for their own rates or their apps' are out of the way.
#[test]
fn a_call_costs_the_same_when_thousands_wait() {
    let mut throttle = Throttle::new(20_001);
    throttle.set_app(1, Rate::with_burst(1, 1), 0);
    for campaign in 0..10_000 {
        throttle.add(campaign, 1, 5, None, 10, 0).expect("room");
        throttle.add(10_000 + campaign, 2, 5, Rate::with_burst(1, 1), 10, 0).expect("room");
    }
    drain(&mut throttle, 0, 10);
    throttle.add(99_999, 3, 0, None, 1_000_000, 0).expect("room");
    for now in 1..900 {
        assert_eq!(throttle.next(now, 64), Some(Grant { campaign: 99_999, messages: 64 }));
    }
    // One app, and the campaigns of the other: each is looked at once, not at every call.
    assert_eq!(throttle.waiting.len(), 10_001);
}

#[derive(Clone, Debug)]
enum Step {
    Pause(u64),
    Next(u32),
    Add { app: u16, priority: u8, rate: u32, pending: u64 },
    More(usize, u64),
    End(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u64..400).prop_map(Step::Pause),
        8 => (0u32..200).prop_map(Step::Next),
        2 => (0u16..3, 0u8..3, 0u32..300, 0u64..500).prop_map(|(app, priority, rate, pending)| {
            Step::Add { app, priority, rate, pending }
        }),
        1 => (any::<usize>(), 1u64..100).prop_map(|(which, messages)| Step::More(which, messages)),
        1 => any::<usize>().prop_map(Step::End),
    ]
}

/// What each name was granted, and when.
type Sent = BTreeMap<String, Vec<(u64, u64)>>;

/// In no window of a second, and in none of any other length, more than rate and burst.
fn keeps(sent: &[(u64, u64)], rate: Rate) -> bool {
    (0..sent.len()).all(|first| {
        let mut sum = 0;
        sent[first..].iter().all(|(at_ms, messages)| {
            sum += messages;
            let length_ms = at_ms - sent[first].0;
            sum * 1000 <= u64::from(rate.per_second) * length_ms + u64::from(rate.burst) * 1000
        })
    })
}

/// Whether somebody could send: what [`Throttle::next`] has to find.
fn could(throttle: &Throttle, now_ms: u64) -> bool {
    let open = |bucket: &Option<Bucket>| {
        let mut bucket = *bucket;
        has(&mut bucket, now_ms) > 0
    };
    open(&throttle.overall)
        && throttle.campaigns.values().any(|campaign| {
            campaign.pending > 0
                && open(&campaign.bucket)
                && open(&throttle.apps[&campaign.app].bucket)
        })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400, failure_persistence: None, ..Default::default()
    })]

    #[test]
    fn no_rate_is_exceeded_nothing_idles_and_the_urgent_go_first(
        steps in proptest::collection::vec(step(), 1..150),
        overall in prop_oneof![Just(0u32), 1u32..2000],
        of_app in prop_oneof![Just(0u32), 1u32..1000],
    ) {
        let mut throttle = Throttle::new(20);
        throttle.set_overall(rate(overall), 0);
        throttle.set_app(1, rate(of_app), 0);
        let (mut now, mut number) = (0, 0);
        let mut sent = Sent::new();
        let mut rates: BTreeMap<u64, Option<Rate>> = BTreeMap::new();
        let mut pending: BTreeMap<u64, u64> = BTreeMap::new();
        let pick = |pending: &BTreeMap<u64, u64>, which: usize| {
            (!pending.is_empty()).then(|| *pending.keys().nth(which % pending.len()).expect("within"))
        };
        for step in steps {
            match step {
                Step::Pause(pause) => now += pause,
                Step::Add { app, priority, rate: of, pending: messages } => {
                    number += 1;
                    if throttle.add(number, app, priority, rate(of), messages, now).is_ok() {
                        rates.insert(number, rate(of));
                        pending.insert(number, messages);
                    }
                }
                Step::More(which, messages) => {
                    if let Some(campaign) = pick(&pending, which) {
                        prop_assert!(throttle.more(campaign, messages));
                        *pending.get_mut(&campaign).expect("picked") += messages;
                    }
                }
                Step::End(which) => {
                    if let Some(campaign) = pick(&pending, which) {
                        prop_assert_eq!(throttle.end(campaign), pending.remove(&campaign));
                    }
                }
                Step::Next(budget) => {
                    let could_send = could(&throttle, now) && budget > 0;
                    let Some(Grant { campaign, messages }) = throttle.next(now, budget) else {
                        prop_assert!(!could_send, "somebody could have sent");
                        if let (true, Some(wake)) = (budget > 0, throttle.wake_at()) {
                            prop_assert!(wake > now);
                            prop_assert!(wake == now + 1 || !could(&throttle, wake - 1));
                        }
                        continue;
                    };
                    prop_assert!(could_send && (1..=budget).contains(&messages));
                    let left = pending.get_mut(&campaign).expect("it is being sent");
                    prop_assert!(*left >= u64::from(messages));
                    *left -= u64::from(messages);
                    let app = throttle.campaigns[&campaign].app;
                    for name in ["all".to_owned(), format!("app {app}"), format!("{campaign}")] {
                        sent.entry(name).or_default().push((now, u64::from(messages)));
                    }
                    // Nobody more urgent could have sent.
                    let priority = throttle.campaigns[&campaign].priority;
                    let mut above = Throttle::new(0);
                    std::mem::swap(&mut above.campaigns, &mut throttle.campaigns);
                    std::mem::swap(&mut above.apps, &mut throttle.apps);
                    let overtaken = above.campaigns.values().any(|other| {
                        let mut own = other.bucket;
                        let mut of_app = above.apps[&other.app].bucket;
                        other.priority > priority && other.pending > 0
                            && has(&mut own, now) > 0 && has(&mut of_app, now) > 0
                    });
                    std::mem::swap(&mut above.campaigns, &mut throttle.campaigns);
                    std::mem::swap(&mut above.apps, &mut throttle.apps);
                    prop_assert!(!overtaken);
                }
            }
        }
        let none = Vec::new();
        let of = |name: &str| sent.get(name).unwrap_or(&none);
        prop_assert!(rate(overall).is_none_or(|rate| keeps(of("all"), rate)));
        prop_assert!(rate(of_app).is_none_or(|rate| keeps(of("app 1"), rate)));
        for (campaign, rate) in rates {
            prop_assert!(rate.is_none_or(|rate| keeps(of(&campaign.to_string()), rate)));
        }
    }
}
