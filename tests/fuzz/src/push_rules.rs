//! Any text as a rule, a topic and a filter: a rule reads back as it is printed, and whoever may
//! subscribe to a filter may subscribe to every topic that the filter matches.

use sextant_mqtt::topic;
use sextant_push::auth::rules::{Names, Rule, Rules};

pub(crate) fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut lines = text.splitn(5, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (rule, filter, name, client, user) = (line(), line(), line(), line(), line());
    let Ok(rule) = Rule::parse(rule) else { return };
    let printed = rule.to_string();
    assert_eq!(Rule::parse(&printed).as_ref(), Ok(&rule), "{printed:?}");
    let names = Names { client, user };
    let rules: Rules = [rule].into_iter().collect();
    let covers = rules.may_subscribe(filter, names);
    let (Ok(parsed), Ok(())) = (topic::Filter::parse(filter), topic::check_name(name)) else {
        return;
    };
    if covers && parsed.matches(name) {
        assert!(rules.may_subscribe(name, names), "{printed:?} covers {filter:?}, not {name:?}");
    }
    // Of a rule for both, publishing and subscribing allow the same topics.
    if printed.starts_with("all ") {
        assert_eq!(rules.may_publish(name, names), rules.may_subscribe(name, names), "{name:?}");
    }
}
