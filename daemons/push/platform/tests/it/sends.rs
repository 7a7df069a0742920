//! Messages and whom they reach.

use sextant_platform::Refusal;
use sextant_platform::model::State;
use sextant_platform::told::{Told, Topic};

use crate::world::{TO_ALL, World};

#[test]
fn a_message_to_everyone_reaches_who_is_there_at_once_and_the_others_when_they_come() {
    let mut world = World::new();
    world.register_many(40);
    for number in 0..20 {
        world.connect(&format!("d{number}"));
    }
    world.turn();
    let id = world.send(TO_ALL);
    world.settle();
    let funnel = world.funnel(id);
    assert_eq!((funnel.targeted, funnel.sent, funnel.delivered, funnel.pending), (40, 20, 20, 20));
    assert_eq!((funnel.queued, funnel.eligible), (20, 40));
    assert_eq!(world.state(id), State::Running);
    for number in 20..40 {
        world.connect(&format!("d{number}"));
    }
    world.settle();
    let funnel = world.funnel(id);
    assert_eq!((funnel.delivered, funnel.pending, funnel.in_flight), (40, 0, 0));
    assert_eq!(world.state(id), State::Finished);
    assert_eq!(funnel.latency_ms.map(|_| ()), Some(()));
}

#[test]
fn a_message_to_one_device_says_what_it_was_asked_to() {
    let mut world = World::new();
    let device = world.register("phone");
    world.connect("phone");
    let id = world.send(
        r#"{"target":{"device":"phone"},"vars":{"name":"Li \"x\""},
            "notification":{"title":"Hi {{name}}","badge":2},"data":{"a":[1,{"b":null}]}}"#,
    );
    world.settle();
    assert_eq!(
        world.said(id, device),
        serde_json::json!({"id": id, "type": "message",
            "notification": {"title": "Hi Li \"x\"", "badge": 2}, "data": {"a": [1, {"b": null}]}})
    );
    assert_eq!(world.state(id), State::Finished);
}

#[test]
fn an_urgent_message_overtakes_a_broadcast_that_waits_with_it() {
    let mut world = World::new();
    let device = world.register("phone");
    let slow = world.send(r#"{"target":{"everyone":true},"class":"marketing","data":{}}"#);
    let urgent = world.send(r#"{"target":{"device":"phone"},"class":"transactional","data":{}}"#);
    world.connect("phone");
    world.turn();
    let order: Vec<u64> = world.broker.flying.iter().map(|(message, _)| *message).collect();
    assert_eq!(order, [world.number(urgent), world.number(slow)]);
    assert_eq!(world.got(slow, device), 1);
}

#[test]
fn no_more_is_on_its_way_to_a_device_than_there_is_room_for_and_all_arrives() {
    let mut world = World::new();
    let device = world.register("phone");
    world.connect("phone");
    let ids: Vec<_> = (0..50).map(|_| world.send(TO_ALL)).collect();
    assert_eq!(world.broker.flying.len(), 8);
    world.settle();
    for id in ids {
        assert_eq!(world.got(id, device), 1);
    }
}

#[test]
fn what_a_lost_session_had_comes_again_under_the_same_id_and_counts_once() {
    let mut world = World::new();
    let device = world.register("phone");
    world.connect("phone");
    let id = world.send(TO_ALL);
    world.disconnect("phone");
    world.turn();
    assert_eq!(world.funnel(id).pending, 1);
    world.connect("phone");
    world.settle();
    assert_eq!(world.got(id, device), 2);
    let funnel = world.funnel(id);
    assert_eq!((funnel.sent, funnel.delivered), (1, 1));
}

#[test]
fn a_newer_message_takes_the_place_of_one_with_its_key_that_waits() {
    let mut world = World::new();
    let (a, b) = (world.register("a"), world.register("b"));
    world.connect("b");
    let score = |text: &str| {
        format!(
            r#"{{"target":{{"everyone":true}},"collapse_key":"score","data":{{"s":"{text}"}}}}"#
        )
    };
    let first = world.send(&score("1:0"));
    world.settle();
    let second = world.send(&score("2:0"));
    world.connect("a");
    world.settle();
    assert_eq!((world.got(first, a), world.got(first, b)), (0, 1));
    assert_eq!((world.got(second, a), world.got(second, b)), (1, 1));
    assert_eq!(world.funnel(first).dropped.get("replaced"), Some(&1));
    assert_eq!(world.state(first), State::Finished);
}

#[test]
fn a_recalled_message_goes_to_nobody_more_and_who_had_it_is_told() {
    let mut world = World::new();
    let (a, b) = (world.register("a"), world.register("b"));
    world.connect("a");
    let id = world.send(TO_ALL);
    world.settle();
    let (app, number, now) = (world.app, world.number(id), world.now);
    let (withdrawn, recall) = world.engine().recall(app, number, "crm", now).expect("once");
    assert_eq!(withdrawn, 1);
    world.connect("b");
    world.settle();
    assert_eq!((world.got(id, a), world.got(id, b)), (1, 0));
    let recall = world.engine().ids().uuid(recall.expect("one device had it"));
    assert_eq!(world.said(recall, a), serde_json::json!({"id": id, "type": "recall"}));
    assert_eq!(world.got(recall, b), 0);
    assert_eq!(world.state(id), State::Recalled);
    let funnel = world.funnel(id);
    assert_eq!((funnel.recalled, funnel.delivered), (1, 1));
    assert!(matches!(world.engine().recall(app, number, "crm", now), Err(Refusal::Conflict(_))));
}

#[test]
fn a_message_expires_for_those_who_did_not_come() {
    let mut world = World::new();
    world.register_many(20);
    world.connect("d3");
    let id = world.send(r#"{"target":{"everyone":true},"ttl":"1m","data":{}}"#);
    world.settle();
    world.pass(61);
    world.connect("d4");
    world.settle();
    let funnel = world.funnel(id);
    assert_eq!((funnel.delivered, funnel.expired, funnel.pending), (1, 19, 0));
    assert_eq!(world.state(id), State::Finished);
}

#[test]
fn a_repeated_request_is_the_message_of_the_first() {
    let mut world = World::new();
    world.register("a");
    let text = r#"{"target":{"device":"a"},"data":{},"idempotency_key":"k1"}"#;
    let first = world.send(text);
    assert_eq!(world.send(text), first);
    world.crash();
    assert_eq!(world.send(text), first);
    world.pass(2 * 86_400);
    assert_ne!(world.send(text), first);
}

#[test]
fn a_request_that_is_wrong_by_itself_is_refused_even_where_its_key_names_a_message() {
    let mut world = World::new();
    world.register("a");
    let with = |more: &str| {
        format!(r#"{{"target":{{"device":"a"}},"data":{{}},"idempotency_key":"k1"{more}}}"#)
    };
    let first = world.send(&with(""));
    for (wrong, part) in [
        (r#","rate":10000001"#, "rate"),
        (r#","ttl":"0s""#, "ttl"),
        (r#","class":"A""#, "class"),
        (r#","schedule":{"at":"tomorrow"}"#, "schedule"),
        (r#","name":"""#, "name"),
    ] {
        match world.submit(&with(wrong)) {
            Err(Refusal::Invalid { part: found, .. }) => assert_eq!(found, part),
            other => panic!("{wrong}: {other:?}"),
        }
    }
    assert_eq!(world.send(&with(r#","rate":10"#)), first);
}

#[test]
fn a_rate_holds_back_what_is_beyond_it() {
    let mut world = World::new();
    world.register_many(100);
    for number in 0..100 {
        world.connect(&format!("d{number}"));
    }
    world.turn();
    let id = world.send(r#"{"target":{"everyone":true},"rate":10,"data":{}}"#);
    for tenths in 0..50 {
        world.settle();
        assert_eq!(world.funnel(id).sent, tenths + 1);
        world.pass_ms(100);
    }
}

#[test]
fn devices_subscribe_to_topics_and_say_what_was_shown() {
    let mut world = World::new();
    let a = world.register("a");
    world.register("b");
    world.connect("a");
    let say = |topic, payload: &str, ticket| Told::Published {
        client_id: "a".into(),
        topic,
        payload: payload.to_owned().into(),
        ticket,
    };
    let now = world.now;
    let topics = say(Topic::Topics, r#"{"subscribe":["news","sport"],"unsubscribe":["x"]}"#, 7);
    world.engine().tell(0, vec![topics], now);
    world.turn();
    assert_eq!(world.broker.settled, [(7, false)]);
    let id = world.send(r#"{"target":{"topic":"news"},"data":{}}"#);
    world.settle();
    assert_eq!(world.reached(id), [a].into());
    let shown = format!(
        r#"{{"receipts":[{{"id":"{id}","event":"shown"}},{{"id":"{id}","event":"clicked"}},
            {{"id":"{id}","event":"shown"}}]}}"#
    );
    for _ in 0..2 {
        let receipts = say(Topic::Receipts, &shown, 8);
        world.engine().tell(0, vec![receipts], now);
        world.turn();
    }
    let wrong = say(Topic::Receipts, "{", 9);
    world.engine().tell(0, vec![wrong], now);
    world.turn();
    assert_eq!(world.broker.settled[1..], [(8, false), (8, false), (9, true)]);
    let funnel = world.funnel(id);
    assert_eq!((funnel.shown, funnel.clicked), (1, 1));
}

#[test]
fn a_device_that_registers_while_it_is_connected_gets_what_is_sent_to_it() {
    let mut world = World::new();
    world.connect("late");
    world.turn();
    let late = world.register("late");
    let id = world.send(r#"{"target":{"device":"late"},"data":{}}"#);
    world.settle();
    assert_eq!(world.got(id, late), 1);
}

#[test]
fn a_request_that_cannot_be_says_which_part() {
    let mut world = World::new();
    world.register("a");
    let long = "x".repeat(20_000);
    for (json, part) in [
        (r#"{"target":{"device":"b"},"data":{}}"#.to_owned(), "target"),
        (r#"{"target":{"device":"a"}}"#.to_owned(), "notification"),
        (r#"{"target":{"device":"a"},"data":{},"class":"none"}"#.to_owned(), "class"),
        (r#"{"target":{"device":"a"},"data":{},"ttl":"1000d"}"#.to_owned(), "ttl"),
        (r#"{"target":{"device":"a"},"data":{},"rate":0}"#.to_owned(), "rate"),
        (r#"{"target":{"expression":"a and"},"data":{}}"#.to_owned(), "expression"),
        (r#"{"target":{"everyone":false},"data":{}}"#.to_owned(), "target"),
        (r#"{"target":{"device":"a"},"data":{"x":"{{y}}"}}"#.to_owned(), "vars"),
        (r#"{"target":{"device":"a"},"data":{"x":"{{"}}"#.to_owned(), "notification"),
        (format!(r#"{{"target":{{"device":"a"}},"data":{{"x":"{long}"}}}}"#), "notification"),
        (
            r#"{"target":{"device":"a"},"data":{},"schedule":{"at":"2026-01-01T10:00"}}"#
                .to_owned(),
            "schedule",
        ),
        (r#"{"target":{"devices":[]},"data":{}}"#.to_owned(), "devices"),
    ] {
        match world.submit(&json) {
            Err(Refusal::Invalid { part: found, .. }) => assert_eq!(found, part, "{json}"),
            other => panic!("{json}: {other:?}"),
        }
    }
    let now = world.now;
    assert_eq!(world.engine().status().open_messages, 0);
    assert!(world.engine().make_app("Not A Name", "admin", now).is_err());
}

#[test]
fn what_expires_for_a_device_that_never_comes_leaves_nothing_behind() {
    let mut world = World::new();
    world.register("a");
    for _ in 0..50 {
        world.send(r#"{"target":{"device":"a"},"ttl":"1m","data":{}}"#);
    }
    let app = world.app;
    assert_eq!(world.engine().device(app, "a").expect("it is there").pending, 50);
    world.pass(61);
    assert_eq!(world.engine().waiting(), 0);
    assert_eq!(world.engine().status().open_messages, 0);
}
