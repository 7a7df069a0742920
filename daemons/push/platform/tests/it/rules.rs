//! What the rules hold back, and for how long.

use sextant_devices::Device;
use sextant_platform::Refusal;
use sextant_platform::engine::Submitted;
use sextant_platform::model::State;
use sextant_policy::Policy;

use crate::world::{TO_ALL, World, free_policy};

fn policy(toml: &str) -> Policy {
    serde_json::from_str(toml).expect("a policy")
}

fn in_zone(id: &str, zone: &str) -> Device {
    Device { time_zone: Some(zone.to_owned()), ..Device::new(id, "shop", "android") }
}

#[test]
fn a_class_keeps_its_hours_on_each_devices_clock() {
    // At noon in UTC it is 20:00 in Shanghai, and 01:00 of the next day in Auckland.
    let mut world =
        World::with(policy(r#"{"classes":{"operational":{"hours":"07:00-23:00","ttl":"2d"}}}"#));
    let shanghai = world.register_as(&in_zone("shanghai", "Asia/Shanghai"));
    let auckland = world.register_as(&in_zone("auckland", "Pacific/Auckland"));
    for id in ["shanghai", "auckland"] {
        world.connect(id);
    }
    let id = world.send(TO_ALL);
    world.settle();
    assert_eq!(world.reached(id), [shanghai].into());
    world.pass(5 * 3600 + 3599);
    world.settle();
    assert_eq!(world.got(id, auckland), 0);
    world.pass(1);
    world.settle();
    assert_eq!(world.got(id, auckland), 1);
    assert_eq!(world.state(id), State::Finished);
}

#[test]
fn a_local_schedule_is_kept_wherever_the_device_is() {
    let mut world = World::new();
    let tokyo = world.register_as(&in_zone("tokyo", "Asia/Tokyo"));
    let berlin = world.register_as(&in_zone("berlin", "Europe/Berlin"));
    for id in ["tokyo", "berlin"] {
        world.connect(id);
    }
    world.turn();
    let day = day_of(world.now + 86_400_000);
    let text = format!(
        r#"{{"target":{{"everyone":true}},"schedule":{{"local":"{day}T09:00"}},"data":{{}}}}"#
    );
    let id = world.send(&text);
    assert_eq!(world.state(id), State::Scheduled);
    // Nine o'clock in Tokyo is midnight in UTC, and in Berlin eight in the morning.
    world.pass(12 * 3600 - 1);
    world.settle();
    assert!(world.reached(id).is_empty());
    world.pass(1);
    world.settle();
    assert_eq!(world.reached(id), [tokyo].into());
    world.pass(8 * 3600);
    world.settle();
    assert_eq!(world.got(id, berlin), 1);
    assert_eq!(world.state(id), State::Finished);
}

fn day_of(ms: u64) -> String {
    sextant_platform::time::Time(ms).to_string()[..10].to_owned()
}

#[test]
fn a_scheduled_message_survives_a_crash_and_goes_when_it_is_due() {
    let mut world = World::new();
    let device = world.register("a");
    let at = sextant_platform::time::Time(world.now + 3_600_000);
    let text = format!(r#"{{"target":{{"device":"a"}},"schedule":{{"at":"{at}"}},"data":{{}}}}"#);
    let id = world.send(&text);
    world.crash();
    world.connect("a");
    world.pass(3599);
    world.settle();
    assert_eq!((world.got(id, device), world.state(id)), (0, State::Scheduled));
    world.pass(1);
    world.settle();
    assert_eq!((world.got(id, device), world.state(id)), (1, State::Finished));
}

#[test]
fn a_device_has_so_many_messages_a_day_and_the_counts_survive_a_crash() {
    let mut world =
        World::with(policy(r#"{"classes":{"operational":{"per_day":2,"beyond":"drop"}}}"#));
    let device = world.register("a");
    world.connect("a");
    let mut ids = vec![world.send(TO_ALL), world.send(TO_ALL)];
    world.settle();
    world.pass(11);
    world.crash();
    world.connect("a");
    world.turn();
    ids.push(world.send(TO_ALL));
    world.settle();
    let got: Vec<u32> = ids.iter().map(|id| world.got(*id, device)).collect();
    assert_eq!(got, [1, 1, 0]);
    let funnel = world.funnel(ids[2]);
    assert_eq!(funnel.dropped.get("daily_quota"), Some(&1));
    assert_eq!((funnel.targeted, funnel.eligible), (1, 0));
}

#[test]
fn a_dry_run_tells_what_would_become_of_a_message_and_sends_nothing() {
    let mut world = World::with(policy(
        r#"{"classes":{"operational":{"hours":"07:00-23:00","per_day":1,"beyond":"drop"}}}"#,
    ));
    let had = world.register_as(&in_zone("had", "UTC"));
    world.register_as(&in_zone("late", "Pacific/Auckland"));
    world.register_as(&in_zone("free", "UTC"));
    world.connect("had");
    world.turn();
    world.send(r#"{"target":{"device":"had"},"data":{}}"#);
    world.settle();
    let request = r#"{"target":{"everyone":true},"data":{},"dry_run":true}"#;
    let request = serde_json::from_str(request).expect("a request");
    let (app, now) = (world.app, world.now);
    let Ok(Submitted::Dry(run)) = world.engine().submit(app, "crm", request, now) else {
        panic!("a dry run");
    };
    assert_eq!((run.targets, run.online, run.now), (3, 1, 1));
    assert_eq!(run.later.get("outside_hours"), Some(&1));
    assert_eq!(run.never.get("daily_quota"), Some(&1));
    assert_eq!(run.judgement, "allowed");
    world.settle();
    assert_eq!(world.broker.got.keys().filter(|(device, _)| *device == had).count(), 1);
}

#[test]
fn what_a_rule_holds_goes_when_somebody_else_has_passed_it() {
    let mut world = World::with(policy(
        r#"{"classes":{"operational":{}},"content":[
            {"name":"gambling","when":{"keywords":["casino"]},"outcome":"review","reason":"gambling"},
            {"name":"spam","when":{"keywords":["viagra"]},"outcome":"reject","reason":"no"}]}"#,
    ));
    let device = world.register("a");
    world.connect("a");
    let text = |title: &str| {
        format!(r#"{{"target":{{"everyone":true}},"notification":{{"title":"{title}"}}}}"#)
    };
    assert!(matches!(
        world.submit(&text("Buy Viagra")),
        Err(Refusal::Content { rule: Some(rule), .. }) if rule == "spam"
    ));
    let (held, other) = (world.send(&text("Casino!")), world.send(&text("my casino")));
    world.settle();
    world.crash();
    world.connect("a");
    world.settle();
    assert_eq!((world.state(held), world.got(held, device)), (State::Held, 0));
    let (app, now) = (world.app, world.now);
    assert_eq!(world.engine().held(app).count(), 2);
    let (number, other_number) = (world.number(held), world.number(other));
    let own = world.engine().review(number, true, "crm", "", now);
    assert!(matches!(own, Err(Refusal::Forbidden(_))), "{own:?}");
    world.engine().review(number, true, "eve", "fine", now).expect("another's");
    world.engine().review(other_number, false, "eve", "no", now).expect("another's");
    world.settle();
    assert_eq!((world.got(held, device), world.got(other, device)), (1, 0));
    world.pass(2);
    world.crash();
    assert_eq!((world.state(held), world.state(other)), (State::Finished, State::Rejected));
    let review = world.message(held).review.expect("it was held");
    assert_eq!((review.by.as_deref(), review.note.as_deref()), (Some("eve"), Some("fine")));
    let again = world.engine().review(number, true, "eve", "", now);
    assert!(matches!(again, Err(Refusal::Conflict(_))), "{again:?}");
}

#[test]
fn nobody_who_comes_too_late_passes_a_message() {
    let mut policy = free_policy();
    if let Some(class) = policy.classes.get_mut("operational") {
        class.review = true;
    }
    let mut world = World::with(policy);
    world.register("a");
    let id = world.send(TO_ALL);
    world.pass(3 * 86_400);
    assert_eq!(world.state(id), State::Rejected);
}

#[test]
fn a_sender_has_so_many_a_day() {
    let mut policy = free_policy();
    policy.quotas.per_day = 5;
    let mut world = World::with(policy);
    world.register_many(3);
    world.send(TO_ALL);
    let refused = world.submit(TO_ALL);
    assert!(matches!(refused, Err(Refusal::Quota(_))), "{refused:?}");
    assert!(world.submit_as("other", TO_ALL).is_ok());
}

#[test]
fn other_rules_hold_at_once_also_for_what_waits() {
    let mut policy = free_policy();
    if let Some(class) = policy.classes.get_mut("operational") {
        class.hours = "00:00-01:00".parse().expect("hours");
    }
    let mut world = World::with(policy);
    let device = world.register("a");
    world.connect("a");
    let id = world.send(TO_ALL);
    world.settle();
    assert_eq!(world.got(id, device), 0);
    let now = world.now;
    let draft = sextant_policy::decide::Draft::new(free_policy()).expect("a policy");
    world.engine().set_rules(draft, now).expect("it holds");
    world.disconnect("a");
    world.turn();
    world.connect("a");
    world.settle();
    assert_eq!(world.got(id, device), 1);
}

#[test]
fn a_message_that_comes_back_is_not_held_back_by_its_own_count() {
    for crashes in [false, true] {
        let mut world =
            World::with(policy(r#"{"classes":{"operational":{"per_day":1,"beyond":"drop"}}}"#));
        let device = world.register("a");
        world.connect("a");
        world.turn();
        let id = world.send(TO_ALL);
        assert_eq!(world.got(id, device), 1);
        world.turn();
        if crashes {
            world.pass(11);
            world.crash();
        } else {
            world.disconnect("a");
        }
        world.turn();
        world.connect("a");
        world.settle();
        assert_eq!((world.got(id, device), world.state(id)), (2, State::Finished), "{crashes}");
        let funnel = world.funnel(id);
        assert_eq!((funnel.delivered, funnel.dropped_total), (1, 0));
        // It was counted once all the same.
        let next = world.send(TO_ALL);
        world.settle();
        assert_eq!(world.funnel(next).dropped.get("daily_quota"), Some(&1));
    }
}
