//! Credentials, devices and what is told of them.

use sextant_devices::Update;
use sextant_platform::Refusal;
use sextant_platform::model::{Role, State};

use crate::world::{TO_ALL, World};

#[test]
fn a_key_is_known_until_it_is_removed_also_after_a_crash() {
    let mut world = World::new();
    let (app, now) = (world.app, world.now);
    let (credential, key) =
        world.engine().make_key(app, "crm", Role::Send, "admin", now).expect("a name");
    assert!(key.starts_with("spk_") && key.len() > 40);
    let again = world.engine().make_key(app, "crm", Role::Read, "admin", now);
    assert!(matches!(again, Err(Refusal::Conflict(_))));
    world.turn();
    world.crash();
    assert_eq!(world.engine().keys().find(&key), Some(credential));
    assert_eq!(world.engine().keys().find(&key[..key.len() - 1]), None);
    world.engine().remove_key(app, "crm", "admin", now).expect("it is there");
    assert_eq!(world.engine().keys().find(&key), None);
    world.turn();
    world.crash();
    assert_eq!(world.engine().keys().find(&key), None);
}

#[test]
fn a_removed_device_gets_nothing_more_and_its_tokens_end() {
    let mut world = World::new();
    let old = world.register("a");
    world.connect("a");
    world.turn();
    let (app, now) = (world.app, world.now);
    world.engine().revoke_tokens(app, "a", "admin", now).expect("it is there");
    world.turn();
    assert_eq!(world.broker.kicked, ["a"]);
    assert_eq!(world.engine().generations().least("a"), 1);
    world.disconnect("a");
    world.turn();
    let id = world.send(TO_ALL);
    world.engine().remove(app, "a", "admin", now).expect("it is there");
    world.turn();
    assert_eq!(world.funnel(id).dropped.get("device_gone"), Some(&1));
    assert_eq!(world.state(id), State::Finished);
    world.crash();
    assert_eq!(world.engine().generations().least("a"), 2);
    let new = world.register("a");
    assert_ne!(new, old);
    world.connect("a");
    world.settle();
    assert_eq!(world.got(id, new), 0);
}

#[test]
fn an_id_stays_in_its_app_and_devices_are_told_as_they_are() {
    let mut world = World::new();
    world.register("a");
    let (app, now) = (world.app, world.now);
    world.engine().make_app("other", "admin", now).expect("a name");
    let moved = world
        .engine()
        .register(&sextant_devices::Device::new("a", "other", "ios"), now)
        .expect_err("it is another's");
    assert!(matches!(moved, Refusal::Conflict(_)));
    let update = Update { set_tags: vec!["vip".to_owned()], ..Update::default() };
    world.engine().update(app, "a", &update, now).expect("a tag");
    world.turn();
    world.crash();
    let device = world.engine().device(app, "a").expect("it is there");
    assert_eq!((device.tags, device.online), (vec!["vip".to_owned()], false));
    let (total, page) =
        world.engine().find_devices(app, Some("vip"), None, 10).expect("an expression");
    assert_eq!((total, page.len()), (1, 1));
}

#[test]
fn a_message_that_is_forgotten_is_told_of_by_the_audit() {
    let mut world = World::new();
    let device = world.register("a");
    world.connect("a");
    world.turn();
    let id = world.send(r#"{"target":{"device":"a"},"name":"first","data":{}}"#);
    world.settle();
    world.pass(2);
    // As many as are kept, and more.
    for _ in 0..20_001 {
        world.submit(r#"{"target":{"device":"a"},"data":{}}"#).expect("it is taken");
        if world.engine().status().open_messages > 500 {
            world.settle();
        }
    }
    world.settle();
    let view = world.message(id);
    assert_eq!(view.request.get("name").and_then(|name| name.as_str()), Some("first"));
    assert_eq!((view.state, view.funnel.delivered), (State::Finished, 1));
    let receipt = format!(r#"{{"receipts":[{{"id":"{id}","event":"clicked"}}]}}"#);
    let now = world.now;
    let first = world.engine().take_receipts("a", receipt.as_bytes(), now).expect("a receipt");
    let second = world.engine().take_receipts("a", receipt.as_bytes(), now).expect("a receipt");
    assert_eq!((first.accepted, second.accepted, second.repeated), (1, 0, 1));
    world.turn();
    world.pass(30);
    let third = world.engine().take_receipts("a", receipt.as_bytes(), now).expect("a receipt");
    assert_eq!((third.accepted, third.repeated), (0, 1));
    assert_eq!(world.funnel(id).clicked, 1);
    assert_eq!(world.got(id, device), 1);
    let (app, number) = (world.app, world.number(id));
    let (waiting, recall) = world.engine().recall(app, number, "crm", now).expect("once");
    world.settle();
    let recall = world.engine().ids().uuid(recall.expect("the device had it"));
    assert_eq!((waiting, world.said(recall, device)["type"].as_str()), (0, Some("recall")));
    let again = world.engine().recall(app, number, "crm", now);
    assert!(matches!(again, Err(Refusal::Conflict(_))), "{again:?}");
}
