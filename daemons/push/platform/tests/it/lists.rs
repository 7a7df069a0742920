//! Lists that are uploaded.

use sextant_devices::ListFormat;
use sextant_platform::Refusal;
use sextant_platform::model::State;

use crate::world::World;

fn upload(world: &mut World, format: ListFormat, text: &str) -> uuid::Uuid {
    let (app, now) = (world.app, world.now);
    let list = world.engine().begin_list(app, format, now).expect("room");
    for piece in text.as_bytes().chunks(7) {
        world.engine().feed_list(list, piece, now).expect("lines");
    }
    let summary = world.engine().end_list(list, now).expect("lines");
    world.turn();
    summary.list
}

fn to_list(list: uuid::Uuid) -> String {
    format!(
        r#"{{"target":{{"list":"{list}"}},"vars":{{"name":"you","n":1}},
            "notification":{{"title":"Hi {{{{name}}}}, {{{{n}}}}"}}}}"#
    )
}

#[test]
fn each_device_of_a_list_has_variables_of_its_own_even_after_a_crash() {
    let mut world = World::new();
    world.register_many(5);
    let list = upload(
        &mut world,
        ListFormat::Csv,
        "device,name\nd3,Zoe\nd1,\"A \"\"b\"\"\"\nnobody,x\nd3,again\n",
    );
    let plain = upload(&mut world, ListFormat::Ndjson, "\"d0\"\n\"d4\"\n");
    let id = world.send(&to_list(list));
    let other = world.send(&to_list(plain));
    world.crash();
    for number in 0..5 {
        world.connect(&format!("d{number}"));
    }
    world.settle();
    let numbers: Vec<u32> = (0..5)
        .map(|number| world.engine().registry().number(&format!("d{number}")).expect("there"))
        .collect();
    assert_eq!(world.reached(id), [numbers[1], numbers[3]].into());
    assert_eq!(world.said(id, numbers[3])["notification"]["title"], "Hi Zoe, 1");
    assert_eq!(world.said(id, numbers[1])["notification"]["title"], "Hi A \"b\", 1");
    assert_eq!(world.said(other, numbers[4])["notification"]["title"], "Hi you, 1");
    assert_eq!((world.state(id), world.message(id).unknown), (State::Finished, 1));
}

#[test]
fn a_list_that_is_wrong_is_given_up_whole() {
    let mut world = World::new();
    world.register_many(2);
    let (app, now) = (world.app, world.now);
    let list = world.engine().begin_list(app, ListFormat::Ndjson, now).expect("room");
    let fed = world.engine().feed_list(list, b"\"d0\"\nnot json\n", now);
    assert!(matches!(fed, Err(Refusal::Invalid { part: "list", .. })), "{fed:?}");
    assert!(world.engine().end_list(list, now).is_err());
    assert!(world.submit(&to_list(list)).is_err());
}

#[test]
fn a_list_goes_after_a_day_unless_a_message_needs_it() {
    let mut world = World::new();
    world.register_many(2);
    let (needed, other) = (
        upload(&mut world, ListFormat::Ndjson, "{\"device\":\"d0\",\"vars\":{\"name\":\"x\"}}\n"),
        upload(&mut world, ListFormat::Ndjson, "\"d1\"\n"),
    );
    let text = to_list(needed).replacen('{', "{\"ttl\":\"3d\",", 1);
    let id = world.send(&text);
    world.pass(86_401);
    assert!(world.submit(&to_list(other)).is_err());
    world.crash();
    world.connect("d0");
    world.settle();
    let device = world.engine().registry().number("d0").expect("there");
    assert_eq!(world.said(id, device)["notification"]["title"], "Hi x, 1");
}
