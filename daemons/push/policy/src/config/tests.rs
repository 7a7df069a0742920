use proptest::prelude::*;

use super::*;
use crate::decide::Draft;

fn read(toml: &str) -> Result<Policy, String> {
    toml::from_str(toml).map_err(|error| error.to_string())
}

/// What is wrong with a policy, by key.
fn faults(toml: &str) -> Vec<String> {
    let policy = read(toml).expect("it reads");
    match Draft::new(policy) {
        Ok(_) => Vec::new(),
        Err(error) => error.faults.into_iter().map(|fault| fault.key).collect(),
    }
}

#[test]
fn the_defaults_are_a_policy_and_are_written_as_they_are_read() {
    let policy = Policy::default();
    let written = toml::to_string(&policy).expect("plain data");
    assert_eq!(read(&written).as_ref(), Ok(&policy), "{written}");
    assert_eq!(read("").as_ref(), Ok(&policy));
    let json = serde_json::to_string(&policy).expect("plain data");
    assert_eq!(serde_json::from_str::<Policy>(&json).expect("as written"), policy);
    Draft::new(policy).expect("the defaults");
}

/// The example of the module's documentation.
#[test]
fn the_example_is_a_policy() {
    let source = include_str!("../config.rs");
    let example: String = source
        .lines()
        .skip_while(|line| *line != "//! ```toml")
        .skip(1)
        .take_while(|line| *line != "//! ```")
        .map(|line| format!("{}\n", line.trim_start_matches("//!")))
        .collect();
    let policy = read(&example).expect("it reads");
    assert_eq!(policy.classes["marketing"].per_day, 2);
    assert_eq!(policy.caps["weekly"].beyond, Action::Drop);
    Draft::new(policy).expect("it is one");
}

#[test]
fn an_unknown_or_unfit_key_is_named() {
    for (toml, name) in [
        ("colour = 1", "colour"),
        ("[classes.a]\nprioity = 1", "prioity"),
        ("[classes.a]\nhours = \"7-23\"", "hours"),
        ("[classes.a]\nttl = 5", "ttl"),
        ("[classes.a]\nper_day = 256", "per_day"),
        ("[caps.a]\nmessages = 1", "per"),
        ("[apps.a]\nquiet_hours = { hours = \"22:00-07:00\", action = \"wait\" }", "quiet_hours"),
        ("[[content]]\nname = \"a\"\nwhen = { words = [] }\noutcome = \"allow\"", "words"),
        ("[[content]]\nname = \"a\"\nwhen = \"never\"\noutcome = \"allow\"", "never"),
        ("[[content]]\nname = \"a\"\nwhen = \"always\"\noutcome = \"maybe\"", "maybe"),
    ] {
        let error = read(toml).expect_err(toml);
        assert!(error.contains(name), "{toml}: {error}");
    }
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let toml = r#"
        time_zone = "Europe/Bielefeld"
        schedule_ahead_max = "4000d"
        [classes.Marketing]
        priority = 10
        ttl = "0s"
        [classes.night]
        hours = "23:00-05:00"
        [apps."my app"]
        time_zone = "Mars"
        messages_per_second = 10000001
        [apps.shop]
        quiet_hours = { hours = "22:00-06:00" }
        [caps.a]
        messages = 0
        per = "59s"
        app = "My app"
        category = ""
        [caps.b]
        messages = 1
        per = "401d"
        [throttle]
        messages_per_second = 10000001
        [review]
        hold_max = "1s"
        [keys]
        idempotency_keep = "0s"
        idempotency_max = 0
        [[content]]
        name = "a"
        when = { pattern = "(" }
        outcome = "reject"
    "#;
    let mut told = faults(toml);
    told.sort();
    let mut expected = vec![
        "time_zone",
        "schedule_ahead_max",
        "classes.Marketing",
        "classes.Marketing.priority",
        "classes.Marketing.ttl",
        "apps.my app",
        "apps.my app.time_zone",
        "apps.my app.messages_per_second",
        "apps.shop.quiet_hours",
        "caps.a.messages",
        "caps.a.per",
        "caps.a.app",
        "caps.a.category",
        "caps.b.per",
        "throttle.messages_per_second",
        "review.hold_max",
        "keys.idempotency_keep",
        "keys.idempotency_max",
        "content[0].when.pattern",
    ];
    expected.sort_unstable();
    assert_eq!(told, expected);
    let error = Draft::new(read(toml).expect("it reads")).expect_err("faults");
    assert!(error.to_string().contains("\n`caps.b.per`: must be between 1m and 400d"), "{error}");
}

#[test]
fn there_are_classes_and_not_too_many_of_anything() {
    assert_eq!(faults("classes = {}"), ["classes"]);
    let many: String = (0..=CLASSES_MAX).map(|at| format!("[classes.c{at}]\n")).collect();
    assert_eq!(faults(&many), ["classes"]);
    let many: String =
        (0..=CAPS_MAX).map(|at| format!("[caps.c{at}]\nmessages = 1\nper = \"1h\"\n")).collect();
    assert_eq!(faults(&many), ["caps"]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_settings_panic(
        text in ".{0,60}",
        key in "[a-z_.]{1,12}",
        number in any::<i64>(),
        hours in "[0-9:-]{0,12}",
        zone in "[A-Za-z/_]{0,20}",
    ) {
        for toml in [
            text,
            format!("{key} = {number}"),
            format!("[classes.a]\nhours = \"{hours}\"\nttl = \"{}s\"", number.unsigned_abs()),
            format!("time_zone = \"{zone}\""),
            format!("[caps.a]\nmessages = 1\nper = \"{}ms\"", number.unsigned_abs()),
        ] {
            if let Ok(policy) = read(&toml) {
                let _ = Draft::new(policy);
            }
        }
    }
}
