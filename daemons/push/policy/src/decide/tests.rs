use proptest::prelude::*;
use sextant_service::config::Span;

use super::*;
use crate::config::{AppRules, Cap, Class, Condition, ContentRule};
use crate::counters::CountLimits;

const HOUR_MS: u64 = 3_600_000;

fn at(text: &str) -> u64 {
    text.parse::<jiff::Timestamp>().expect("an instant").as_millisecond() as u64
}

fn hours(text: &str) -> Hours {
    text.parse().expect("a part of the day")
}

fn ready(policy: Policy, zones: &mut Zones, counters: &mut Counters) -> Rules {
    Draft::new(policy).expect("a policy").adopt(zones, counters).expect("few")
}

struct World {
    zones: Zones,
    rules: Rules,
    counters: Counters,
}

impl World {
    fn new(change: impl FnOnce(&mut Policy)) -> World {
        let mut policy = Policy { time_zone: "Asia/Shanghai".to_owned(), ..Policy::default() };
        change(&mut policy);
        let mut zones = Zones::new();
        let mut counters = Counters::new(CountLimits::default());
        let rules = ready(policy, &mut zones, &mut counters);
        World { zones, rules, counters }
    }

    fn message(&self, class: &str, accepted: &str) -> Message {
        let plan = self.rules.plan(class, "shop", None).expect("a class");
        let ttl_ms = plan.ttl_ms;
        Message { plan, accepted_ms: at(accepted), schedule: None, ttl_ms }
    }

    fn decide(&self, message: &Message, device: Device, now_ms: u64) -> Decision {
        decide(message, device, State { zones: &self.zones, counters: &self.counters }, now_ms)
    }

    fn send(&mut self, message: &Message, device: Device, now_ms: u64) -> Decision {
        let decision = self.decide(message, device, now_ms);
        if decision == Decision::Now {
            let zone = self.zones.get(device.zone.unwrap_or(message.plan.zone()));
            self.counters.note(device.number, message.plan.rules(), now_ms, zone);
        }
        decision
    }
}

const ANYBODY: Device = Device { number: 7, zone: None };

#[test]
fn a_code_to_log_in_goes_out_at_night_and_an_offer_waits() {
    let mut world = World::new(|_| {});
    let night = "2026-05-01T18:00:00Z";
    let now = at(night);
    assert_eq!(world.send(&world.message("transactional", night), ANYBODY, now), Decision::Now);
    let nine = Decision::At(at("2026-05-02T01:00:00Z"), Reason::OutsideHours.into());
    assert_eq!(world.decide(&world.message("marketing", night), ANYBODY, now), nine);
    // In New York it is two in the afternoon.
    let new_york = world.zones.intern("America/New_York").expect("a zone");
    let there = Device { zone: Some(new_york), ..ANYBODY };
    assert_eq!(world.decide(&world.message("marketing", night), there, now), Decision::Now);
}

#[test]
fn the_third_offer_of_a_day_is_dropped_and_says_by_which_rule() {
    let mut world = World::new(|_| {});
    let noon = "2026-05-01T04:00:00Z";
    let message = world.message("marketing", noon);
    for minute in 0..2 {
        assert_eq!(world.send(&message, ANYBODY, at(noon) + minute * 60_000), Decision::Now);
    }
    let Decision::Never(why) = world.send(&message, ANYBODY, at(noon) + HOUR_MS) else {
        panic!("the third");
    };
    assert_eq!(why.reason, Reason::DailyQuota);
    assert_eq!(why.rule.and_then(|rule| world.counters.key(rule)), Some("class marketing"));
    let tomorrow = world.message("marketing", "2026-05-02T04:00:00Z");
    assert_eq!(world.decide(&tomorrow, ANYBODY, at("2026-05-02T04:00:00Z")), Decision::Now);
}

#[test]
fn beyond_a_cap_that_delays_a_message_waits_into_the_next_hours() {
    let cap = Cap {
        messages: 1,
        per: Span::secs(12 * 3600),
        app: None,
        category: None,
        beyond: Action::Delay,
    };
    let mut world = World::new(|policy| drop(policy.caps.insert("half-day".to_owned(), cap)));
    let noon = "2026-05-01T04:00:00Z";
    let message = world.message("marketing", noon);
    assert_eq!(world.send(&message, ANYBODY, at(noon)), Decision::Now);
    // Midnight to two in the night, and the class begins at nine.
    let decision = world.decide(&message, ANYBODY, at(noon) + HOUR_MS);
    let Decision::At(until, why) = decision else { panic!("{decision:?}") };
    assert_eq!((until, why.reason), (at("2026-05-02T01:00:00Z"), Reason::FrequencyCap));
    assert_eq!(world.decide(&message, ANYBODY, until), Decision::Now);
    let short = Message { ttl_ms: 2 * HOUR_MS, ..message.clone() };
    let Decision::Never(why) = world.decide(&short, ANYBODY, at(noon) + HOUR_MS) else {
        panic!("it expires before");
    };
    assert_eq!(why.reason, Reason::ExpiresBeforeCap);
    // What a cap does not count goes out, and so does what was taken back.
    assert_eq!(
        world.decide(&world.message("transactional", noon), ANYBODY, at(noon)),
        Decision::Now
    );
    let zone = world.zones.get(message.plan.zone());
    world.counters.undo(ANYBODY.number, message.plan.rules(), at(noon), zone);
    assert_eq!(world.decide(&message, ANYBODY, at(noon) + HOUR_MS), Decision::Now);
}

#[test]
fn a_plan_of_before_a_reload_is_held_by_what_is_still_there() {
    let mut world = World::new(|_| {});
    let noon = "2026-05-01T04:00:00Z";
    let message = world.message("marketing", noon);
    assert_eq!(world.send(&message, ANYBODY, at(noon)), Decision::Now);
    let mut policy = world.rules.policy().clone();
    policy.classes.remove("operational");
    policy.classes.get_mut("marketing").expect("it is there").per_day = 1;
    let bad = Policy { time_zone: "Mars".to_owned(), ..policy.clone() };
    assert!(Draft::new(bad).is_err());
    assert_eq!(world.send(&message, ANYBODY, at(noon)), Decision::Now);
    world.rules = ready(policy.clone(), &mut world.zones, &mut world.counters);
    let Decision::Never(why) = world.send(&message, ANYBODY, at(noon)) else { panic!("the third") };
    assert_eq!(why.reason, Reason::DailyQuota);
    policy.classes.get_mut("marketing").expect("it is there").per_day = 0;
    world.rules = ready(policy, &mut world.zones, &mut world.counters);
    assert_eq!(world.send(&message, ANYBODY, at(noon)), Decision::Now);
}

#[test]
fn a_cap_is_for_its_app_and_its_category() {
    let cap = |app: Option<&str>, category: Option<&str>| Cap {
        messages: 1,
        per: Span::days(1),
        app: app.map(str::to_owned),
        category: category.map(str::to_owned),
        beyond: Action::Drop,
    };
    let world = World::new(|policy| {
        policy.caps.insert("all".to_owned(), cap(None, None));
        policy.caps.insert("news".to_owned(), cap(None, Some("news")));
        policy.caps.insert("shop".to_owned(), cap(Some("shop"), None));
        policy.caps.insert("shop-news".to_owned(), cap(Some("shop"), Some("news")));
    });
    let names = |class, app, category| {
        let plan = world.rules.plan(class, app, category).expect("a class");
        let names = plan.rules().iter().filter_map(|rule| world.counters.key(*rule));
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(names("operational", "bank", None), ["class operational", "cap all"]);
    let all = ["class operational", "cap all", "cap news", "cap shop", "cap shop-news"];
    assert_eq!(names("operational", "shop", Some("news")), all);
    assert_eq!(names("transactional", "shop", Some("news")), Vec::<String>::new());
    assert_eq!(world.rules.plan("other", "shop", None), None);
}

#[test]
fn quiet_hours_are_those_of_the_app() {
    let quiet = |action| QuietHours { hours: hours("12:00-14:00"), action };
    let world = World::new(|policy| {
        let shop = AppRules { quiet_hours: Some(quiet(Action::Delay)), ..AppRules::default() };
        let zone = Some("Europe/Berlin".to_owned());
        let bank =
            AppRules { quiet_hours: Some(quiet(Action::Drop)), time_zone: zone, ..shop.clone() };
        policy.apps.extend([("shop".to_owned(), shop), ("bank".to_owned(), bank)]);
    });
    let noon = "2026-05-01T04:30:00Z";
    let message = world.message("marketing", noon);
    let two = Decision::At(at("2026-05-01T06:00:00Z"), Reason::QuietHours.into());
    assert_eq!(world.decide(&message, ANYBODY, at(noon)), two);
    assert_eq!(
        world.decide(&world.message("transactional", noon), ANYBODY, at(noon)),
        Decision::Now
    );
    let plan = world.rules.plan("operational", "bank", None).expect("a class");
    let noon = at("2026-05-01T10:30:00Z");
    let of_bank = Message { plan, accepted_ms: noon, ..message };
    let dropped = Decision::Never(Reason::QuietHours.into());
    assert_eq!(world.decide(&of_bank, ANYBODY, noon), dropped);
}

#[test]
fn a_greeting_at_nine_is_due_by_each_clock_and_lives_from_then_on() {
    let mut world = World::new(|_| {});
    let new_york = world.zones.intern("America/New_York").expect("a zone");
    let there = Device { number: 8, zone: Some(new_york) };
    let accepted = "2026-12-01T00:00:00Z";
    let schedule = Some("2026-12-24T09:00".parse().expect("a time"));
    let message = Message { schedule, ..world.message("marketing", accepted) };
    let here_at = at("2026-12-24T01:00:00Z");
    let there_at = at("2026-12-24T14:00:00Z");
    let scheduled = Why::from(Reason::Scheduled);
    assert_eq!(world.decide(&message, ANYBODY, at(accepted)), Decision::At(here_at, scheduled));
    assert_eq!(world.decide(&message, there, here_at), Decision::At(there_at, scheduled));
    assert_eq!(world.decide(&message, ANYBODY, here_at), Decision::Now);
    let expired = Decision::Never(Reason::Expired.into());
    assert_eq!(world.decide(&message, ANYBODY, here_at + message.ttl_ms), expired);
    // At eight it is due, and the hours of its class begin at nine.
    let eight = Message { schedule: Some("2026-12-24T08:00".parse().expect("a time")), ..message };
    let nine = Decision::At(here_at, Reason::OutsideHours.into());
    assert_eq!(world.decide(&eight, ANYBODY, at(accepted)), nine);
    // What was due before it was accepted is due at once.
    let late = Message { accepted_ms: here_at, schedule: Some(Schedule::At(0)), ..eight };
    assert_eq!(world.decide(&late, ANYBODY, here_at), Decision::Now);
    let (now, day_ms) = (at(accepted), 86_400_000);
    assert_eq!(world.rules.check_schedule(Schedule::At(now + 366 * day_ms), now), Ok(()));
    let beyond = Schedule::At(now + 366 * day_ms + 1);
    assert_eq!(world.rules.check_schedule(beyond, now), Err(Reason::BeyondSchedule));
}

#[test]
fn what_a_message_says_and_its_class_decide_who_looks_at_it() {
    let keyword = |name: &str, word: &str, outcome| ContentRule {
        name: name.to_owned(),
        when: Condition::Keywords(vec![word.to_owned()]),
        outcome,
        reason: String::new(),
        apps: Vec::new(),
        classes: Vec::new(),
        categories: Vec::new(),
    };
    let world = World::new(|policy| {
        policy.classes.insert("news".to_owned(), Class { review: true, ..Class::default() });
        policy.content = vec![
            keyword("fine", "weather", Outcome::Allow),
            keyword("look", "loan", Outcome::Review),
            keyword("no", "casino", Outcome::Reject),
        ];
    });
    let judge = |class, text| match world.rules.judge(
        class,
        "shop",
        &Content { text, ..Content::default() },
    ) {
        Judgement::Allowed => None,
        Judgement::Held { reason, rule, .. } | Judgement::Rejected { reason, rule, .. } => {
            Some((reason, rule))
        }
    };
    assert_eq!(judge("marketing", "shoes"), None);
    assert_eq!(judge("marketing", "a casino in any weather"), None);
    assert_eq!(judge("marketing", "a loan"), Some((Reason::ContentReview, Some("look"))));
    assert_eq!(judge("marketing", "casino"), Some((Reason::ContentRejected, Some("no"))));
    assert_eq!(judge("news", "the weather"), Some((Reason::ClassReview, None)));
    assert_eq!(judge("other", "shoes"), Some((Reason::UnknownClass, None)));
    let long = "x".repeat(16 << 10);
    assert_eq!(judge("marketing", &long), None);
    let click = Content { text: &long, links: &["x"], ..Content::default() };
    let judgement = world.rules.judge("marketing", "shop", &click);
    assert!(matches!(judgement, Judgement::Rejected { rule: None, .. }), "{judgement:?}");
    let judgement = world.rules.judge("news", "shop", &Content::default());
    let json = serde_json::to_string(&judgement).expect("plain data");
    assert_eq!(json, r#"{"held":{"reason":"class_review","rule":null,"text":""}}"#);
}

#[test]
fn rates_and_quotas_are_those_of_the_policy() {
    let world = World::new(|policy| {
        policy.throttle.app_messages_per_second = 100_000;
        policy.throttle.messages_per_second = 0;
        let shop = AppRules { messages_per_second: Some(1_000), ..AppRules::default() };
        let bank = AppRules { messages_per_second: Some(0), ..AppRules::default() };
        policy.apps.extend([("shop".to_owned(), shop), ("bank".to_owned(), bank)]);
        policy.quotas.per_day = 10;
        policy.quotas.credentials.insert("big".to_owned(), 1_000_000);
    });
    assert_eq!(world.rules.overall_rate(), None);
    assert_eq!(world.rules.app_rate("shop"), Rate::per_second(1_000));
    assert_eq!(world.rules.app_rate("bank"), None);
    assert_eq!(world.rules.app_rate("other"), Rate::per_second(100_000));
    assert_eq!(world.rules.campaign_rate(), None);
    assert_eq!((world.rules.sender_limit("big"), world.rules.sender_limit("me")), (1_000_000, 10));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300, failure_persistence: None, ..Default::default()
    })]

    /// Whoever asks again when it is told to comes to an end, and sends within the rules.
    #[test]
    fn who_waits_as_told_sends_or_learns_why_not(
        accepted in 1_700_000_000_000u64..1_800_000_000_000,
        messages in 1usize..20,
        local in proptest::option::of(0i64..400),
        ttl_hours in 1u64..200,
        per_day in 0u8..4,
        delays in any::<bool>(),
        span_hours in 1u64..100,
        zone in proptest::sample::select(vec!["Africa/Cairo", "America/New_York", "Asia/Kathmandu"]),
    ) {
        let beyond = if delays { Action::Delay } else { Action::Drop };
        let mut world = World::new(|policy| {
            let class = Class { hours: hours("09:00-21:00"), per_day, beyond, ..Class::default() };
            policy.classes.insert("c".to_owned(), class);
            let quiet = QuietHours { hours: hours("12:30-14:00"), action: Action::Delay };
            let shop = AppRules { quiet_hours: Some(quiet), ..AppRules::default() };
            policy.apps.insert("shop".to_owned(), shop);
            let per = Span::secs(span_hours * 3600);
            let cap = Cap { messages: 2, per, app: None, category: None, beyond };
            policy.caps.insert("cap".to_owned(), cap);
        });
        let id = world.zones.intern(zone).expect("a zone");
        let device = Device { number: 1, zone: Some(id) };
        let plan = world.rules.plan("c", "shop", None).expect("a class");
        let schedule = local.map(|hour| Schedule::Local(accepted as i64 + hour * HOUR_MS as i64));
        let ttl_ms = ttl_hours * HOUR_MS;
        let message = Message { plan, accepted_ms: accepted, schedule, ttl_ms };
        let (mut now, mut sent) = (accepted, Vec::new());
        for _ in 0..messages {
            let end = (0..10).find_map(|_| match world.send(&message, device, now) {
                Decision::Now => Some(true),
                Decision::Never(_) => Some(false),
                Decision::At(at_ms, _) => {
                    assert!(at_ms > now, "{at_ms} is not after {now}");
                    now = at_ms;
                    None
                }
            });
            match end {
                Some(true) => sent.push(now),
                Some(false) => break,
                None => panic!("it waits for ever"),
            }
        }
        let zone = world.zones.get(id);
        let due = message.schedule.map_or(0, |schedule| schedule.due_in(zone)).max(accepted);
        for (number, at_ms) in sent.iter().enumerate() {
            prop_assert!((due..due + ttl_ms).contains(at_ms));
            prop_assert!(hours("09:00-21:00").contain(zone, *at_ms));
            prop_assert!(!hours("12:30-14:00").contain(zone, *at_ms));
            let of_day = sent.iter().filter(|other| zone.day(**other) == zone.day(*at_ms)).count();
            prop_assert!(per_day == 0 || of_day <= usize::from(per_day));
            let third = sent.get(number + 2);
            prop_assert!(third.is_none_or(|third| third - at_ms >= span_hours * HOUR_MS));
        }
    }
}

/// Run alone: `cargo nextest run --release -p sextant-policy --run-ignored only --no-capture`.
#[test]
#[ignore = "measures, and says what it found"]
fn measure() {
    const DEVICES: u32 = 1_000_000;
    let cap = |messages, days| Cap {
        messages,
        per: Span::days(days),
        app: None,
        category: None,
        beyond: Action::Drop,
    };
    let mut world = World::new(|policy| drop(policy.caps.insert("week".to_owned(), cap(10, 7))));
    let names = ["Asia/Shanghai", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"];
    let ids = names.map(|name| world.zones.intern(name).expect("a zone"));
    let device = |number: u32| Device { number, zone: Some(ids[number as usize % 4]) };
    let noon = "2026-05-01T04:00:00Z";
    let (message, now) = (world.message("operational", noon), at(noon));
    let each = |what: &str, world: &mut World, call: &mut dyn FnMut(&mut World, Device)| {
        let begin = std::time::Instant::now();
        (0..DEVICES).for_each(|number| call(world, device(number)));
        println!("{what}: {:.0} ns", begin.elapsed().as_nanos() as f64 / f64::from(DEVICES));
    };
    let mut decided = [0u32; 3];
    let mut count = |decision| match decision {
        Decision::Now => decided[0] += 1,
        Decision::At(..) => decided[1] += 1,
        Decision::Never(_) => decided[2] += 1,
    };
    each("decide, nothing counted yet", &mut world, &mut |world, device| {
        count(world.decide(&message, device, now));
    });
    let memory = allocation_counter::measure(|| {
        each("note under two rules", &mut world, &mut |world, device| {
            let zone = world.zones.get(device.zone.expect("it has one"));
            world.counters.note(device.number, message.plan.rules(), now, zone);
        });
    });
    println!("bytes of a device under two rules: {}", memory.bytes_current / i64::from(DEVICES));
    println!("as it says itself: {}", world.counters.memory_bytes() / DEVICES as usize);
    each("decide, counted under two rules", &mut world, &mut |world, device| {
        count(world.decide(&message, device, now));
    });
    let local = Some("2026-05-01T09:00".parse().expect("a time"));
    let scheduled = Message { schedule: local, ..message.clone() };
    each("decide, by local time", &mut world, &mut |world, device| {
        count(world.decide(&scheduled, device, now));
    });
    println!("now, later, never: {decided:?}");
    let begin = std::time::Instant::now();
    let records: Vec<Vec<u8>> = std::iter::from_fn(|| world.counters.take_record(now)).collect();
    let bytes: usize = records.iter().map(Vec::len).sum();
    println!("records: {} of {bytes} bytes, {:?}", records.len(), begin.elapsed());
    let mut again = Counters::new(CountLimits::default());
    again.adopt(&counts_of(world.rules.policy())).expect("few");
    let begin = std::time::Instant::now();
    records.iter().for_each(|record| again.replay(record, now).expect("as written"));
    println!("replay: {:?}, {} counters", begin.elapsed(), again.counters());
    let begin = std::time::Instant::now();
    let freed = world.counters.sweep(usize::MAX, now + 30 * 24 * HOUR_MS);
    println!("sweep: {:?}, {freed} freed", begin.elapsed());
    templates();
    judgements();
    throttles();
}

fn templates() {
    use crate::template::{Missing, Names, Template, TemplateLimits, Values};
    const TIMES: u32 = 1_000_000;
    let mut names = Names::new();
    let limits = TemplateLimits::default();
    let text = Template::text("Hello {{name}}, {{count}} new", &mut names, &limits);
    let text = text.expect("a template");
    let source =
        r#"{"title":"Hello {{name}}","body":"{{count}} new in {{city|default:\"town\"}}"}"#;
    let payload = Template::json(source, &mut names, &limits).expect("a payload");
    let object = r#"{"name":"Ada Lovelace","count":3,"city":"London","more":"unused"}"#;
    let values = Values::of_json(&names, object).expect("an object");
    let mut out = String::new();
    let mut time = |what: &str, call: &mut dyn FnMut(&mut String)| {
        let begin = std::time::Instant::now();
        for _ in 0..TIMES {
            out.clear();
            call(&mut out);
        }
        println!("{what}: {:.0} ns", begin.elapsed().as_nanos() as f64 / f64::from(TIMES));
    };
    time("values of a target from JSON", &mut |_| {
        std::hint::black_box(Values::of_json(&names, object).expect("an object"));
    });
    time("a text rendered", &mut |out| {
        text.render(&names, &values, Missing::Error, out).expect("it fits");
    });
    time("a payload rendered", &mut |out| {
        payload.render(&names, &values, Missing::Error, out).expect("it fits");
    });
    println!("{out}");
}

fn judgements() {
    let rule = |name: String, when| ContentRule {
        name,
        when,
        outcome: Outcome::Reject,
        reason: String::new(),
        apps: Vec::new(),
        classes: Vec::new(),
        categories: Vec::new(),
    };
    let words = (0..10_000).map(|number| format!("keyword{number}")).collect();
    let hosts = vec!["evil.example".to_owned()];
    let world = World::new(|policy| {
        policy.content = vec![
            rule("words".to_owned(), Condition::Keywords(words)),
            rule("pattern".to_owned(), Condition::Pattern(r"(?i)win \d+ (eur|usd)".to_owned())),
            rule("hosts".to_owned(), Condition::LinksTo(hosts)),
        ];
    });
    let text = "Guten Tag, Ihre Bestellung ist unterwegs: https://shop.example/o/17 – danke!";
    let content = Content { title: "Ihre Bestellung", text, ..Content::default() };
    let words: Vec<String> = (0..100_000u64)
        .map(|number| format!("{:x}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
        .collect();
    let mut kept = None;
    let many = rule("many".to_owned(), Condition::Keywords(words));
    let begin = std::time::Instant::now();
    let memory = allocation_counter::measure(|| {
        kept = Some(World::new(|policy| policy.content = vec![many.clone()]));
    });
    drop(kept);
    println!("100,000 keywords of 16 bytes: {:?}, {memory:?}", begin.elapsed());
    let begin = std::time::Instant::now();
    for _ in 0..10_000 {
        assert_eq!(world.rules.judge("operational", "shop", &content), Judgement::Allowed);
    }
    println!("judge, 10,000 keywords, a pattern, a host: {:?}", begin.elapsed() / 10_000);
}

fn throttles() {
    use crate::throttle::Throttle;
    let mut throttle = Throttle::new(10_000);
    throttle.set_overall(Rate::per_second(1_000_000), 0);
    for campaign in 0..10_000 {
        let rate = Rate::per_second(1_000);
        throttle.add(campaign, campaign as u16 % 100, 5, rate, 1 << 40, 0).expect("room");
    }
    let begin = std::time::Instant::now();
    let (mut grants, mut messages) = (0u32, 0u64);
    for now in 0..2_000 {
        while let Some(grant) = throttle.next(now, 256) {
            grants += 1;
            messages += u64::from(grant.messages);
        }
    }
    let each = begin.elapsed() / grants.max(1);
    println!(
        "throttle, 10,000 campaigns: {grants} grants, {each:?} each, {messages} messages in 2 s"
    );
}
