//! Expressions and targets against a look at each device.

use proptest::prelude::*;

use super::model::{App, any_device, device};
use super::{of, registry};
use crate::expression::{Compare, Leaf, Node, Pattern, TextKey};
use crate::{
    By, Device, Entry, EvaluateError, Expression, Gather, Limits, Listed, Name, Registry, Resolved,
    RoaringBitmap, Target, Unknown, Value, Version,
};

fn matches(pattern: &Pattern, text: &str) -> bool {
    match pattern.is_prefix {
        true => text.starts_with(&*pattern.text),
        false => *text == *pattern.text,
    }
}

/// Whether an expression says a device, looked at alone.
fn holds(node: &Node, entry: &Entry) -> bool {
    match node {
        Node::And(parts) => parts.iter().all(|part| holds(part, entry)),
        Node::Or(parts) => parts.iter().any(|part| holds(part, entry)),
        Node::Not(part) => !holds(part, entry),
        Node::Leaf(leaf) => leaf_holds(leaf, entry),
    }
}

fn leaf_holds(leaf: &Leaf, entry: &Entry) -> bool {
    let device = &entry.device;
    match leaf {
        Leaf::Tag(pattern) => device.tags.iter().any(|tag| matches(pattern, tag)),
        Leaf::Text(key, pattern) => {
            let text = match key {
                TextKey::Platform => Some(&device.platform),
                TextKey::AppVersion => device.app_version.as_ref(),
                TextKey::Language => device.language.as_ref(),
                TextKey::TimeZone => device.time_zone.as_ref(),
            };
            let lower = |pattern: &Pattern| Pattern {
                text: pattern.text.to_ascii_lowercase().into(),
                ..pattern.clone()
            };
            text.is_some_and(|text| match key {
                TextKey::Language => matches(&lower(pattern), &text.to_ascii_lowercase()),
                _ => matches(pattern, text),
            })
        }
        Leaf::Attribute(key, pattern) => match device.attributes.get(&**key) {
            Some(Value::Text(text)) => matches(pattern, text),
            Some(Value::Number(number)) => {
                pattern.number == Some(*number) || pattern.is_prefix && pattern.text.is_empty()
            }
            None => false,
        },
        Leaf::Alias(alias) => device.alias.as_deref() == Some(&**alias),
        Leaf::Test(is) => device.test == *is,
        Leaf::Number(key, compare, than) => match device.attributes.get(&**key) {
            Some(Value::Number(number)) => compare.holds(number.get(), than.get()),
            _ => false,
        },
        Leaf::Version(compare, than) => {
            let version = device.app_version.as_deref().and_then(Version::parse);
            version.is_some_and(|version| compare.holds(version, than.value))
        }
        Leaf::Registered(compare, than) => {
            than.value.holds(*compare, (entry.registered_at / 1000) as i64)
        }
    }
}

/// The devices of an app of which an expression holds, one by one.
fn scan(registry: &Registry, app: &str, node: &Node) -> RoaringBitmap {
    let entries = (0..registry.len()).filter_map(|number| registry.entry(number));
    let of_app = entries.filter(|entry| entry.device.app == app);
    of_app.filter(|entry| holds(node, entry)).map(|entry| entry.number).collect()
}

fn leaf() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "a",
        "b",
        "b*",
        "*",
        "\"big spender\"",
        "missing",
        "18",
        "platform:ios",
        "platform:*",
        "city:sz",
        "city:s*",
        "city:\"New York\"",
        "age:18",
        "age:\"18\"",
        "age:*",
        "k:*",
        "x:y",
        "age >= 18",
        "age < 17.5",
        "age != 18",
        "age = 17",
        "k > 16",
        "city > 0",
        "x > 0",
        "app_version >= 1.2",
        "app_version = 1",
        "app_version != 1",
        "app_version:1.*",
        "app_version:1",
        "lang:zh",
        "lang:ZH*",
        "language:zh-hant-tw",
        "lang:zh-*",
        "lang:*",
        "timezone:UTC",
        "timezone:Asia/*",
        "alias:zoe",
        "alias:nobody",
        "test:true",
        "test:false",
        "registered >= 2023-11-15",
        "registered > 2023-11-15",
        "registered = 2023-11-15",
        "registered <= \"2023-11-15T12:00:00Z\"",
        "registered != 2023-11-15",
        "registered < 1970-01-01",
    ])
}

fn text() -> impl Strategy<Value = String> {
    leaf().prop_map(str::to_owned).prop_recursive(5, 32, 3, |inner| {
        let some = || prop::collection::vec(inner.clone(), 2..4);
        prop_oneof![
            2 => some().prop_map(|parts| format!("({})", parts.join(" and "))),
            2 => some().prop_map(|parts| format!("({})", parts.join(" or "))),
            1 => inner.clone().prop_map(|part| format!("not {part}")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn an_expression_names_the_devices_of_which_it_holds(
        devices in prop::collection::vec(any_device(), 0..80),
        texts in prop::collection::vec(text(), 1..12),
    ) {
        let mut registry = registry();
        let apps = App::ALL.map(|app| (registry.add_app(app.name()).unwrap().0, app.name()));
        for (place, device) in devices.iter().enumerate() {
            // Of some ids more than one device came, and the last is it.
            registry.register(device, 1_700_000_000_000 + place as u64 * 10_000_000).unwrap();
        }
        for text in texts {
            let expression = Expression::parse(&text).unwrap();
            for (app, name) in apps {
                let scanned = scan(&registry, name, &expression.0);
                prop_assert_eq!(&registry.evaluate(app, &expression).unwrap(), &scanned, "{}", text);
                let explained = registry.explain(app, &expression).unwrap();
                prop_assert_eq!(explained.devices, scanned.len(), "{}", text);
            }
        }
    }
}

#[test]
fn a_large_registry_says_what_a_scan_says() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut registry = of(Limits::default());
    for number in 0..150_000u32 {
        let mut device = Device::new(&format!("d{number}"), "shop", "ios");
        device.tags.extend((0..3).map(|_| format!("t{}", random.u32(..400).isqrt())));
        device.tags.extend((random.u8(..4) == 0).then(|| format!("rare{}", random.u32(..40_000))));
        let number = Value::Number(random.i32(0..1000).into());
        device.attributes.extend((random.u8(..3) > 0).then(|| ("age".to_owned(), number)));
        device.app_version = Some(format!("{}.{}", random.u8(1..4), random.u8(..30)));
        let at = 1_700_000_000_000 + random.u64(..100 * 86_400_000);
        registry.register(&device, at).unwrap();
    }
    let texts = [
        "t1 and age < 100",
        "t0 and rare1* and age >= 500 and registered >= 2024-01-01",
        "not t1 and not t2 and (t3 or not rare*)",
        "app_version >= 2.5 and app_version < 3.10 and registered < 2023-12-24",
        "rare7* or (t19 and not age:*)",
        "rare12 or rare39999 or age:17 and t18",
        "not (registered > 2023-11-20 or age != 5)",
    ];
    for text in texts {
        let expression = Expression::parse(text).unwrap();
        let devices = registry.evaluate(0, &expression).unwrap();
        assert_eq!(devices, scan(&registry, "shop", &expression.0), "{text}");
        assert!(!devices.is_empty(), "{text} should prove something");
    }
    let everyone = registry.resolve(0, Target::Everyone).unwrap().devices;
    let groups = registry.groups(0, By::AppVersion, &everyone);
    assert_eq!(groups.len(), 90);
    assert_eq!(groups.iter().map(|group| group.devices.len()).sum::<u64>(), 150_000);
}

#[test]
fn an_explanation_counts_each_part() {
    let mut registry = of(Limits::default());
    for number in 0..10 {
        let mut device = Device::new(&format!("d{number}"), "shop", "ios");
        device.tags.extend((number < 6).then(|| "a".to_owned()));
        device.tags.extend((number > 3).then(|| "b".to_owned()));
        registry.register(&device, 0).unwrap();
    }
    let expression = Expression::parse("a and not (b or c)").unwrap();
    let explained = registry.explain(0, &expression).unwrap();
    let flat = |explained: &crate::Explained| (explained.part.clone(), explained.devices);
    assert_eq!(flat(&explained), ("and".into(), 4));
    assert_eq!(flat(&explained.parts[0]), ("a".into(), 6));
    assert_eq!(flat(&explained.parts[1]), ("not".into(), 4));
    let any = &explained.parts[1].parts[0];
    assert_eq!(flat(any), ("or".into(), 6));
    assert_eq!(any.parts.iter().map(flat).collect::<Vec<_>>(), [("b".into(), 6), ("c".into(), 0)]);
    let nowhere = Some(EvaluateError::UnknownApp);
    assert_eq!(registry.evaluate(1, &expression).err(), nowhere);
    assert_eq!(registry.explain(1, &expression).err(), nowhere);
    assert_eq!(registry.resolve(1, Target::Everyone).err(), nowhere);
}

#[test]
fn patterns_that_cover_too_much_are_refused() {
    let mut registry = of(Limits::default());
    for number in 0..300 {
        let mut device = Device::new(&format!("d{number}"), "shop", "ios");
        device.tags.extend((0..64).map(|tag| format!("t{number}-{tag}")));
        registry.register(&device, 0).unwrap();
    }
    let text = vec!["t*"; 50].join(" or ");
    let many = Expression::parse(&text).unwrap();
    assert_eq!(registry.evaluate(0, &many).unwrap().len(), 300);
    let text = vec!["t*"; 60].join(" or ");
    let too_many = Expression::parse(&text).unwrap();
    assert_eq!(registry.evaluate(0, &too_many), Err(EvaluateError::TooBroad));
}

#[test]
fn targets_name_devices() {
    let mut registry = of(Limits::default());
    registry.add_app("blog").unwrap();
    for (id, app, alias) in [("d0", "shop", "zoe"), ("d1", "shop", "zoe"), ("d2", "blog", "zoe")] {
        let mut device = device(id);
        (device.app, device.alias) = (app.into(), Some(alias.into()));
        registry.register(&device, 0).unwrap();
    }
    let set = |numbers: &[u32]| numbers.iter().copied().collect::<RoaringBitmap>();
    let found = |numbers| Resolved { devices: set(numbers), ..Resolved::default() };
    let unknown = |line, name: &str| Unknown { line, name: name.into() };
    assert_eq!(registry.resolve(0, Target::Device("d1")).unwrap(), found(&[1]));
    assert_eq!(registry.resolve(0, Target::Alias("zoe")).unwrap(), found(&[0, 1]));
    assert_eq!(registry.resolve(1, Target::Alias("zoe")).unwrap(), found(&[2]));
    assert_eq!(registry.resolve(0, Target::Everyone).unwrap(), found(&[0, 1]));
    let expression = Expression::parse("not alias:bob").unwrap();
    assert_eq!(registry.resolve(1, Target::Expression(&expression)).unwrap(), found(&[2]));
    // A device of another app is as unknown as one that is none.
    let elsewhere = registry.resolve(0, Target::Device("d2")).unwrap();
    assert_eq!((elsewhere.unknown, elsewhere.examples), (1, vec![unknown(1, "d2")]));
    let names = [
        (1, Name::Device("d1")),
        (3, Name::Device("nobody")),
        (4, Name::Alias("zoe")),
        (5, Name::Alias("bob")),
        (6, Name::Device("d0")),
    ];
    let mut names = names.into_iter().map(|(line, name)| Listed { line, name });
    let resolved = registry.resolve(0, Target::List(&mut names)).unwrap();
    let expected = Resolved {
        devices: set(&[0, 1]),
        repeated: 1,
        unknown: 2,
        examples: vec![unknown(3, "nobody"), unknown(5, "bob")],
    };
    assert_eq!(resolved, expected);
}

#[test]
fn a_list_may_be_gathered_while_devices_come_and_go() {
    let mut registry = of(Limits::default());
    for id in ["d0", "d1", "d2"] {
        registry.register(&device(id), 0).unwrap();
    }
    let mut gather = Gather::new(0);
    let mut add = |registry: &Registry, id: &str| {
        gather.add(registry, Listed { line: 1, name: Name::Device(id) }).to_vec()
    };
    assert_eq!(add(&registry, "d0"), [0]);
    assert!(add(&registry, "d0").is_empty());
    assert_eq!(add(&registry, "d1"), [1]);
    registry.remove("d0", 0).unwrap();
    for _ in 0..200 {
        add(&registry, &"é".repeat(1000));
    }
    let resolved = gather.finish(&registry);
    assert_eq!(resolved.devices.iter().collect::<Vec<_>>(), [1]);
    assert_eq!((resolved.repeated, resolved.unknown), (1, 200));
    assert_eq!(resolved.examples.len(), 100);
    assert_eq!(resolved.examples[0].name, "é".repeat(128));
}

#[test]
fn devices_are_grouped_by_what_they_have() {
    let mut registry = of(Limits::default());
    let zones = [Some("Asia/Tokyo"), None, Some("UTC"), Some("Asia/Tokyo")];
    for (number, zone) in zones.into_iter().enumerate() {
        let mut device = device(&format!("d{number}"));
        device.time_zone = zone.map(str::to_owned);
        device.tags.extend((number > 1).then(|| "b".to_owned()));
        registry.register(&device, 0).unwrap();
    }
    let all = registry.resolve(0, Target::Everyone).unwrap().devices;
    let groups = |devices: &RoaringBitmap| {
        let groups = registry.groups(0, By::TimeZone, devices).into_iter();
        groups.map(|group| (group.value, group.devices.iter().collect())).collect::<Vec<_>>()
    };
    let whole = [(Some("Asia/Tokyo"), vec![0, 3]), (Some("UTC"), vec![2]), (None, vec![1])];
    assert_eq!(groups(&all), whole);
    assert_eq!(groups(&RoaringBitmap::from([2, 77])), [(Some("UTC"), vec![2])]);
    assert_eq!(registry.tag_counts(0, &all), [("a", 4), ("b", 2)]);
    assert_eq!(registry.tag_counts(0, &RoaringBitmap::from([0])), [("a", 1)]);
    assert!(
        registry.tag_counts(7, &all).is_empty()
            && registry.groups(7, By::Platform, &all).is_empty()
    );
}

#[test]
fn comparisons_are_those_of_numbers() {
    assert!(Compare::LessOrEqual.holds(1, 1) && !Compare::Less.holds(1, 1));
    assert!(Compare::GreaterOrEqual.holds(1, 1) && !Compare::Greater.holds(1, 1));
    assert!(Compare::NotEqual.holds(1, 2) && !Compare::Equal.holds(1, 2));
}
