//! The registry against a model that is a map of devices, and targets against a scan of it.

mod model;
mod targets;

use proptest::prelude::*;

use self::model::{App, Model, Op, device, op, update};
use super::*;
use crate::device::Draft;
use crate::record::Record;

fn registry() -> Registry {
    Registry::new(Limits::default()).unwrap()
}

fn of(limits: Limits) -> Registry {
    let mut registry = Registry::new(limits).unwrap();
    registry.add_app("shop").unwrap();
    registry
}

/// All that a registry knows, in bytes.
fn dump(registry: &Registry) -> Vec<Vec<u8>> {
    registry.records().collect()
}

fn replayed<'a>(records: impl IntoIterator<Item = &'a Vec<u8>>) -> Registry {
    let mut registry = registry();
    for record in records {
        registry.replay(record).unwrap();
    }
    registry
}

/// What an operation gave, with what its record is compared by.
fn apply(registry: &mut Registry, op: &Op, now: u64) -> Result<Option<Change>, Refused> {
    match op {
        Op::Register(device) => registry.register(device, now).map(Some),
        Op::Update(id, update) => registry.update(id, update, now).map(Some),
        Op::Remove(id) => registry.remove(id, now).map(Some),
        Op::Revoke(id) => registry.revoke_tokens(id, now).map(Some),
        Op::Release => {
            registry.release(now);
            Ok(None)
        }
    }
}

/// What an operation appends to the log.
fn logged(registry: &mut Registry, op: &Op, now: u64, log: &mut Vec<Vec<u8>>) {
    match op {
        Op::Release => log.extend(registry.release(now).1),
        _ => log.extend(apply(registry, op, now).ok().flatten().and_then(|change| change.record)),
    }
}

/// A time for each operation, in which some are hours apart.
fn time(place: usize) -> u64 {
    1_700_000_000_000 + place as u64 * 1_000_003
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_registry_is_a_map_of_devices(ops in prop::collection::vec(op(), 0..200)) {
        let mut registry = registry();
        App::ALL.iter().for_each(|app| assert!(registry.add_app(app.name()).is_ok()));
        let mut model = Model::default();
        for (place, op) in ops.iter().enumerate() {
            let now = time(place);
            let change = apply(&mut registry, op, now).map(|change| change.map(|c| (c.number, c.what)));
            prop_assert_eq!(change, model.apply(op, now), "{:?}", op);
            prop_assert_eq!(registry.len() as usize, model.entries.len());
            prop_assert_eq!(registry.retired() as usize, model.retired.len());
        }
        for id in model::ids() {
            prop_assert_eq!(registry.get(&id), model.entries.get(&id).cloned());
            let number = registry.number(&id);
            prop_assert_eq!(number.and_then(|number| registry.id(number)), number.map(|_| &*id));
            let generation = model.entries.get(&id).map(|entry| entry.token_generation);
            prop_assert_eq!(registry.token_generation(&id), generation);
        }
    }

    #[test]
    fn records_make_the_same_registry_again(
        ops in prop::collection::vec(op(), 0..150),
        more in prop::collection::vec(op(), 0..30),
    ) {
        let mut registry = registry();
        let mut log = Vec::new();
        for app in App::ALL {
            log.extend(registry.add_app(app.name()).unwrap().1);
        }
        for (place, op) in ops.iter().enumerate() {
            logged(&mut registry, op, time(place), &mut log);
        }
        let snapshot = dump(&registry);
        let mut again = replayed(&log);
        let mut from_snapshot = replayed(&snapshot);
        prop_assert_eq!(&dump(&again), &snapshot);
        prop_assert_eq!(&dump(&from_snapshot), &snapshot);
        // A record that is replayed twice changes nothing.
        for record in &snapshot {
            from_snapshot.replay(record).unwrap();
        }
        prop_assert_eq!(&dump(&from_snapshot), &snapshot);
        for (place, op) in more.iter().enumerate() {
            let now = time(ops.len() + place);
            let change = apply(&mut registry, op, now);
            prop_assert_eq!(&apply(&mut again, op, now), &change);
            prop_assert_eq!(&apply(&mut from_snapshot, op, now), &change);
        }
    }

    #[test]
    fn a_snapshot_may_be_taken_while_things_change(
        before in prop::collection::vec(op(), 0..100),
        meanwhile in prop::collection::vec((op(), 0usize..4), 0..60),
    ) {
        let mut registry = registry();
        App::ALL.iter().for_each(|app| assert!(registry.add_app(app.name()).is_ok()));
        for (place, op) in before.iter().enumerate() {
            apply(&mut registry, op, time(place)).ok();
        }
        let mut log = Vec::new();
        let mut snapshot = Snapshot::default();
        for (place, (op, records)) in meanwhile.iter().enumerate() {
            log.extend((0..*records).map_while(|_| registry.next_record(&mut snapshot)));
            // Nothing that is said of an app comes before the app: the owner tells apps first.
            while log.len() < 1 + App::ALL.len() {
                log.extend(registry.next_record(&mut snapshot));
            }
            logged(&mut registry, op, time(before.len() + place), &mut log);
        }
        log.extend(std::iter::from_fn(|| registry.next_record(&mut snapshot)));
        prop_assert_eq!(dump(&replayed(&log)), dump(&registry));
    }

    #[test]
    fn no_bytes_break_a_registry(
        ops in prop::collection::vec(op(), 0..40),
        changes in prop::collection::vec((any::<u16>(), any::<u16>(), any::<u8>()), 0..60),
    ) {
        let mut registry = registry();
        let mut log = Vec::new();
        for app in App::ALL {
            log.extend(registry.add_app(app.name()).unwrap().1);
        }
        for (place, op) in ops.iter().enumerate() {
            logged(&mut registry, op, time(place), &mut log);
        }
        let mut broken = Registry::new(Limits::default()).unwrap();
        for (at, byte, to) in changes {
            let at = usize::from(at) % log.len();
            let byte = usize::from(byte) % log[at].len();
            log[at][byte] = to;
        }
        for record in &log {
            broken.replay(record).ok();
        }
        // Whatever it took makes sense.
        prop_assert_eq!(dump(&replayed(&dump(&broken))), dump(&broken));
    }
}

/// Enough devices and changes for rows to move, tables to grow and bitmaps to have containers.
#[test]
fn a_large_registry_stays_itself_while_devices_change() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut registry = registry();
    let mut log = Vec::new();
    for app in App::ALL {
        log.extend(registry.add_app(app.name()).unwrap().1);
    }
    let mut model = Model::default();
    for place in 0..150_000 {
        let id = format!("d{}", random.u32(..100_000).isqrt() * random.u32(1..80));
        let op = match random.u32(..1000) {
            0 => Op::Release,
            1..200 => Op::Remove(id),
            200..220 => Op::Revoke(id),
            220..400 => Op::Update(id, update(&["a", "b"], &["c"])),
            _ => Op::Register(random_device(&id, &mut random)),
        };
        let change = apply(&mut registry, &op, time(place));
        let expected = model.apply(&op, time(place));
        let what = change.clone().map(|change| change.map(|change| (change.number, change.what)));
        assert_eq!(what, expected, "{op:?}");
        log.extend(change.ok().flatten().and_then(|change| change.record));
        if let Op::Release = op {
            log.push(Record::Released { before: time(place) }.put());
        }
    }
    for (id, entry) in &model.entries {
        assert_eq!(registry.get(id).as_ref(), Some(entry));
    }
    let snapshot = dump(&registry);
    assert_eq!(dump(&replayed(&log)), snapshot);
    assert_eq!(dump(&replayed(&snapshot)), snapshot);
    let everyone = registry.resolve(0, Target::Everyone).unwrap().devices;
    let tags = model.entries.values().filter(|entry| entry.device.app == "shop");
    let with_c = tags.filter(|entry| entry.device.tags.contains("c")).count() as u64;
    let counts = registry.tag_counts(0, &everyone);
    assert_eq!(counts.iter().find(|(tag, _)| *tag == "c").map(|(_, count)| *count), Some(with_c));
}

fn random_device(id: &str, random: &mut fastrand::Rng) -> Device {
    let mut device = Device::new(id, App::ALL[random.usize(..2)].name(), "ios");
    device.alias = (random.u8(..4) > 0).then(|| format!("u{}", random.u32(..50_000)));
    device.tags.extend((0..random.u8(..4)).map(|_| ["a", "b", "c", "d"][random.usize(..4)].into()));
    let text = Value::Text("x".repeat(random.usize(1..100)));
    device.attributes.extend((random.u8(..3) == 0).then(|| ("text".to_owned(), text)));
    let number = Value::Number(random.i32(..).into());
    device.attributes.extend((random.u8(..3) == 0).then(|| ("number".to_owned(), number)));
    device
}

#[test]
fn a_registry_may_be_moved_to_and_read_by_other_threads() {
    fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Registry>();
    is_send_and_sync::<Expression>();
}

#[test]
fn what_is_so_already_has_no_record() {
    let mut registry = of(Limits::default());
    let mut device = Device::new("d1", "shop", "ios");
    device.tags.insert("vip".into());
    let first = registry.register(&device, 5).unwrap();
    assert_eq!((first.number, first.what), (0, What::Registered));
    assert!(first.record.is_some());
    let second = registry.register(&device, 9).unwrap();
    assert_eq!(second, Change { number: 0, what: What::Unchanged, record: None });
    assert_eq!(registry.get("d1").unwrap().updated_at, 5);
    let update = Update { set_tags: vec!["vip".into()], ..Update::default() };
    assert_eq!(registry.update("d1", &update, 9).unwrap().what, What::Unchanged);
    let update = Update { alias: Edit::Set("zoe".into()), ..Update::default() };
    let change = registry.update("d1", &update, 9).unwrap();
    assert_eq!(change.what, What::Updated(vec![Field::Alias]));
    let entry = registry.get("d1").unwrap();
    assert_eq!((entry.registered_at, entry.updated_at), (5, 9));
}

#[test]
fn a_number_is_given_out_again_only_when_it_was_released() {
    const HOUR: u64 = 3_600_000;
    let mut registry = of(Limits::default());
    let put = |registry: &mut Registry, id: &str| {
        registry.register(&Device::new(id, "shop", "ios"), 0).unwrap().number
    };
    assert_eq!(
        (0..4).map(|n| put(&mut registry, &n.to_string())).collect::<Vec<_>>(),
        [0, 1, 2, 3]
    );
    registry.remove("2", 0).unwrap();
    registry.remove("1", 2 * HOUR).unwrap();
    assert_eq!(put(&mut registry, "4"), 4);
    assert_eq!(registry.release(HOUR - 1), (0, None));
    let (count, record) = registry.release(2 * HOUR + 1);
    assert_eq!((count, record.is_some(), registry.retired()), (1, true, 1));
    assert_eq!(put(&mut registry, "5"), 2);
    assert_eq!(put(&mut registry, "6"), 5);
    assert_eq!(registry.release(3 * HOUR).0, 1);
    assert_eq!(put(&mut registry, "2"), 1);
}

#[test]
fn no_token_outlives_its_device() {
    let mut registry = of(Limits::default());
    let device = Device::new("d1", "shop", "ios");
    registry.register(&device, 0).unwrap();
    assert_eq!(registry.token_generation("d1"), Some(0));
    let change = registry.revoke_tokens("d1", 1).unwrap();
    assert_eq!(change.what, What::Updated(vec![Field::TokenGeneration]));
    assert_eq!(registry.token_generation("d1"), Some(1));
    assert_eq!(registry.register(&device, 2).unwrap().what, What::Unchanged);
    registry.remove("d1", 3).unwrap();
    assert_eq!(registry.token_generation("d1"), None);
    registry.register(&device, 4).unwrap();
    assert_eq!(registry.token_generation("d1"), Some(2));
    assert_eq!(registry.revoke_tokens("d2", 4), Err(Refused::UnknownDevice));
}

#[test]
fn what_a_device_cannot_have_is_refused() {
    let mut registry = of(Limits::default());
    let check = |change: &dyn Fn(&mut Device), refused: &Refused| {
        let mut registry = of(Limits::default());
        let mut device = Device::new("d1", "shop", "ios");
        change(&mut device);
        assert_eq!(registry.register(&device, 0).as_ref(), Err(refused));
        assert_eq!(dump(&registry), dump(&of(Limits::default())));
    };
    let text = |len| "x".repeat(len);
    let key = |key: &str| Refused::Key { key: key.into(), bytes_max: 64 };
    let attribute = |key: &str, value: &str| (key.to_owned(), Value::Text(value.to_owned()));
    check(&|d| d.id = "a/b".into(), &Refused::Id);
    check(&|d| d.id = text(129), &Refused::Id);
    check(&|d| d.app = "other".into(), &Refused::UnknownApp);
    check(&|d| d.platform = "iOS".into(), &Refused::Platform);
    check(&|d| d.app_version = Some("new".into()), &Refused::AppVersion);
    check(&|d| d.time_zone = Some("+08:00".into()), &Refused::TimeZone);
    check(&|d| d.time_zone = Some("Asia/Shangai".into()), &Refused::TimeZone);
    check(&|d| d.language = Some("zh_CN".into()), &Refused::Language);
    check(&|d| d.alias = Some(text(129)), &Refused::Alias { bytes_max: 128 });
    let tag = |tag: &str| Refused::Tag { tag: tag.into(), bytes_max: 64 };
    check(&|d| d.tags.extend([text(65)]), &tag(&text(65)));
    check(&|d| d.tags.extend([String::new()]), &tag(""));
    check(&|d| d.tags.extend(["a\n".to_owned()]), &tag("a\n"));
    check(&|d| d.tags.extend((0..65).map(|n| n.to_string())), &Refused::TooManyTags { max: 64 });
    check(&|d| d.attributes.extend([attribute("platform", "a")]), &key("platform"));
    check(&|d| d.attributes.extend([attribute("", "a")]), &key(""));
    let value = Refused::Value { key: "k".into(), bytes_max: 128 };
    check(&|d| d.attributes.extend([attribute("k", &text(129))]), &value);
    let many = (0..33).map(|n| attribute(&format!("k{n}"), "v")).collect::<Vec<_>>();
    let refused = Refused::TooManyAttributes { max: 32 };
    check(&|d| d.attributes.extend(many.clone()), &refused);
    assert_eq!(registry.add_app("Shop"), Err(Refused::AppName));
    assert_eq!(registry.remove("d1", 0), Err(Refused::UnknownDevice));
    assert_eq!(registry.update("d1", &Update::default(), 0), Err(Refused::UnknownDevice));
    assert!(Number::new(f64::NAN).is_none() && Number::new(f64::INFINITY).is_none());
    assert_eq!(Number::new(-0.0).unwrap().get().to_bits(), 0);
}

#[test]
fn what_an_app_and_a_registry_take_is_bounded() {
    let few = Limits {
        apps: 1,
        devices: 3,
        numbers: 4,
        devices_per_alias: 2,
        tags_per_app: 3,
        keys_per_app: 2,
        values_per_app: 4,
        ..Limits::default()
    };
    let mut registry = of(few);
    assert_eq!(registry.add_app("blog"), Err(Refused::AppsFull { max: 1 }));
    let mut put = |id: &str, change: &dyn Fn(&mut Device)| {
        let mut device = Device::new(id, "shop", "ios");
        change(&mut device);
        let result = registry.register(&device, 0).map(|_| ());
        (result, registry.len())
    };
    let tags = |tags: &'static str| {
        move |d: &mut Device| d.tags.extend(tags.split(' ').map(str::to_owned))
    };
    let text = |key: &'static str, value: &'static str| {
        move |d: &mut Device| {
            d.attributes.insert(key.to_owned(), Value::Text(value.to_owned()));
        }
    };
    let alias = |d: &mut Device| d.alias = Some("zoe".into());
    assert_eq!(put("1", &tags("a b c")), (Ok(()), 1));
    assert_eq!(put("2", &tags("c d")), (Err(Refused::TagsFull { max: 3 }), 1));
    assert_eq!(put("1", &tags("a")), (Ok(()), 1));
    assert_eq!(put("2", &tags("c d")), (Ok(()), 2));
    // The platform is a value too.
    assert_eq!(put("1", &text("k", "a")), (Ok(()), 2));
    assert_eq!(put("2", &text("l", "a")), (Ok(()), 2));
    assert_eq!(put("1", &text("m", "a")), (Err(Refused::KeysFull { max: 2 }), 2));
    assert_eq!(put("1", &text("l", "b")), (Ok(()), 2));
    assert_eq!(put("2", &text("l", "c")), (Ok(()), 2));
    assert_eq!(put("3", &text("l", "d")), (Ok(()), 3));
    assert_eq!(put("3", &text("l", "e")), (Err(Refused::ValuesFull { max: 4 }), 3));
    assert_eq!(put("4", &alias), (Err(Refused::DevicesFull { max: 3 }), 3));
    assert_eq!((put("1", &alias), put("2", &alias)), ((Ok(()), 3), (Ok(()), 3)));
    assert_eq!(put("3", &alias), (Err(Refused::AliasFull { max: 2 }), 3));
    assert_eq!((put("1", &tags("a")), put("3", &alias)), ((Ok(()), 3), (Ok(()), 3)));
    registry.remove("3", 0).unwrap();
    registry.register(&Device::new("4", "shop", "ios"), 0).unwrap();
    registry.remove("4", 0).unwrap();
    let refused = registry.register(&Device::new("5", "shop", "ios"), 0);
    assert_eq!(refused, Err(Refused::NumbersFull { max: 4 }));
    registry.release(u64::MAX);
    assert!(registry.register(&Device::new("5", "shop", "ios"), 0).is_ok());
}

#[test]
fn words_that_no_device_has_are_forgotten() {
    let mut registry = of(Limits::default());
    assert_eq!(registry.usage(0), Some(Usage::default()));
    let mut device = device("d1");
    device.attributes.insert("city".into(), Value::Text("sz".into()));
    device.attributes.insert("age".into(), Value::Number(18.into()));
    device.test = true;
    registry.register(&device, 0).unwrap();
    let usage = Usage { devices: 1, tests: 1, tags: 1, keys: 2, values: 2 };
    assert_eq!(registry.usage(0), Some(usage));
    // A key that has a number in the place of a text is the same key.
    device.attributes.insert("city".into(), Value::Number(1.into()));
    registry.register(&device, 0).unwrap();
    assert_eq!(registry.usage(0), Some(Usage { values: 1, ..usage }));
    registry.remove("d1", 0).unwrap();
    assert_eq!((registry.usage(0), registry.usage(1)), (Some(Usage::default()), None));
}

#[test]
fn limits_that_cannot_be_are_refused() {
    let zero = Registry::new(Limits { devices: 0, ..Limits::default() }).map(|_| ());
    let message = zero.unwrap_err().to_string();
    assert_eq!(message, "`devices` is 0, and must be 1 to 4294967294");
    let much = Limits { tags_per_device: 257, ..Limits::default() };
    assert_eq!(Registry::new(much).map(|_| ()).unwrap_err().name, "tags_per_device");
}

#[test]
fn the_largest_device_has_a_row() {
    let most = Limits {
        tags_per_device: 256,
        attributes_per_device: 256,
        tag_bytes: 255,
        key_bytes: 255,
        value_bytes: 255,
        ..Limits::default()
    };
    let mut registry = of(most);
    let mut device = Device::new(&"d".repeat(128), "shop", &"p".repeat(32));
    device.alias = Some("a".repeat(255));
    device.tags.extend((0..256).map(|n| format!("{n:0>255}")));
    let number = Value::Number(Number::new(1e300).unwrap());
    device.attributes.extend((0..256).map(|n| (format!("{n:0>255}"), number.clone())));
    let record = registry.register(&device, u64::MAX).unwrap().record.unwrap();
    assert_eq!(registry.entry(0).unwrap().device, device);
    let mut again = of(Limits::default());
    again.replay(&record).unwrap();
    assert_eq!(again.entry(0).unwrap().device, device);
}

#[test]
fn a_time_zone_that_is_no_more_stays_with_its_device() {
    let mut atlantis = device("d1");
    atlantis.time_zone = Some("Asia/Atlantis".into());
    let record = Record::Device { number: 0, draft: Draft::of(&atlantis, 0, 0) }.put();
    let mut registry = of(Limits::default());
    registry.replay(&record).unwrap();
    assert!(registry.update("d1", &update(&["b"], &[]), 1).is_ok());
    assert_eq!(registry.get("d1").unwrap().device.time_zone, atlantis.time_zone);
    atlantis.id = "d2".into();
    assert_eq!(registry.register(&atlantis, 1), Err(Refused::TimeZone));
}

#[test]
fn records_that_contradict_each_other_are_refused() {
    let mut registry = of(Limits::default());
    let mut records = Vec::new();
    for id in ["d1", "d2"] {
        records.extend(registry.register(&Device::new(id, "shop", "ios"), 0).unwrap().record);
    }
    let mut other = of(Limits::default());
    let contradiction = |result: Result<(), ReplayError>| {
        assert!(matches!(result, Err(ReplayError::Contradiction(_))), "{result:?}");
    };
    contradiction(Registry::new(Limits::default()).unwrap().replay(&records[0]));
    other.register(&Device::new("d2", "shop", "ios"), 0).unwrap();
    contradiction(other.replay(&records[0]));
    contradiction(other.replay(&records[1]));
    other.remove("d2", 0).unwrap();
    contradiction(other.replay(&records[0]));
    other.replay(&records[1]).unwrap();
    assert_eq!(other.number("d2"), Some(1));
    assert_eq!(other.replay(b"\x02\x01\x01\x04shop"), Err(ReplayError::Unreadable));
}

#[test]
fn an_update_removes_before_it_sets() {
    let mut registry = of(Limits::default());
    let mut before = device("d1");
    before.app = "shop".into();
    registry.register(&before, 0).unwrap();
    let update = update(&["b"], &["a", "b"]);
    registry.update("d1", &update, 1).unwrap();
    let tags = registry.get("d1").unwrap().device.tags;
    assert!(tags.contains("b") && !tags.contains("a"));
}
