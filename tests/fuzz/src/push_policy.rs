//! Any bytes as what senders, targets and files give to the rules of sending. The first says what
//! the rest is.
//!
//! | first | rest |
//! |---|---|
//! | 0 | a text with variables, a line end, a target's values |
//! | 1 | the same of a payload: with whatever values, it stays the document that it was |
//! | 2 | a schedule: it reads as it is printed |
//! | 3 | records of counters, each with its length before: what is taken is written again |
//! | 4 | a record of a sender's quota |
//! | 5 | a message before rules about content |
//! | 6 | part of a day, and whether the next instant in it is in it |

use std::sync::LazyLock;

use sextant_policy::config::{Condition, ContentRule, Outcome};
use sextant_policy::counters::Period;
use sextant_policy::template::TemplateLimits;
use sextant_policy::{
    Content, CountLimits, CountRule, Counters, Draft, Hours, Missing, Names, Policy, Rules,
    Schedule, SenderQuotas, Template, Values, When, ZoneId, Zones, when,
};

const NOW_MS: u64 = 1_777_636_800_000;
const DAY_MS: u64 = 86_400_000;

pub(crate) fn run(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    match (kind, std::str::from_utf8(rest)) {
        (3, _) => counters(rest),
        (4, _) => quota(rest),
        (0 | 1, Ok(text)) => template(*kind == 1, text),
        (2, Ok(text)) => schedule(text),
        (5, Ok(text)) => content(text),
        (6, Ok(text)) => hours(text),
        _ => {}
    }
}

fn template(is_payload: bool, text: &str) {
    let (source, values) = text.split_once('\n').unwrap_or((text, "{}"));
    let (mut names, limits) = (Names::new(), TemplateLimits::default());
    let parse = if is_payload { Template::json } else { Template::text };
    let Ok(template) = parse(source, &mut names, &limits) else { return };
    let Ok(values) = Values::of_json(&names, values) else { return };
    let mut out = String::new();
    if template.render(&names, &values, Missing::Empty, &mut out).is_err() || !is_payload {
        return;
    }
    let read = |json: &str| serde_json::from_str::<serde_json::Value>(json);
    // Numbers that are too large for a document in memory are none of the template's.
    let Ok(before) = read(source) else { return };
    assert!(is_alike(&before, &read(&out).expect("a payload stays a document")), "{out}");
}

/// Whether two documents differ in their texts alone.
fn is_alike(a: &serde_json::Value, b: &serde_json::Value) -> bool {
    use serde_json::Value::{Array, Object, String};
    match (a, b) {
        (String(_), String(_)) => true,
        (Array(a), Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_alike(a, b)),
        (Object(a), Object(b)) => {
            a.len() == b.len()
                && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| is_alike(a, b)))
        }
        (a, b) => a == b,
    }
}

fn schedule(text: &str) {
    if let Ok(schedule) = text.parse::<Schedule>() {
        // A year of more than four digits is printed, and is no schedule.
        assert_eq!(schedule.to_string().parse(), Ok(schedule));
        let zones = Zones::new();
        assert!(schedule.due_in(zones.get(ZoneId::UTC)) <= schedule.last());
    }
}

fn counting() -> Counters {
    let rule = |key: &str, limit, period| CountRule { key: key.into(), limit, period };
    let mut counters = Counters::new(CountLimits::default());
    let hour = Period::Span(3_600_000);
    counters.adopt(&[rule("d", 2, Period::Day), rule("h", 3, hour)]).expect("two");
    counters
}

fn counters(mut bytes: &[u8]) {
    let mut read = counting();
    let mut own = counting();
    let rules = own.take_record(NOW_MS).expect("the rules");
    read.replay(&rules, NOW_MS).expect("as written");
    while let Some((length, rest)) = bytes.split_first() {
        let (record, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        let _ = read.replay(record, NOW_MS);
        bytes = rest;
    }
    read.all_changed();
    let mut again = counting();
    while let Some(record) = read.take_record(NOW_MS) {
        again.replay(&record, NOW_MS).expect("as written");
    }
    assert_eq!(again.counters(), read.counters());
}

fn quota(record: &[u8]) {
    let zones = Zones::new();
    let utc = zones.get(ZoneId::UTC);
    let mut quotas = SenderQuotas::new();
    if quotas.replay(record, NOW_MS, utc).is_err() {
        return;
    }
    let written: Vec<Vec<u8>> = quotas.records(NOW_MS, utc).collect();
    let mut again = SenderQuotas::new();
    for record in &written {
        again.replay(record, NOW_MS, utc).expect("as written");
    }
    assert_eq!(again.records(NOW_MS, utc).collect::<Vec<_>>(), written);
}

static RULES: LazyLock<Rules> = LazyLock::new(|| {
    let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let conditions = [
        Condition::Keywords(list(&["casino", "a", "aa", "赌博", "straße"])),
        Condition::Pattern(r"(?i)\bwin\s+\d+".to_owned()),
        Condition::LinksTo(list(&["evil.example", "bücher.example"])),
        Condition::LinksOutside(list(&["shop.example"])),
        Condition::LongerThan(100),
    ];
    let rules = conditions.into_iter().zip(0..).map(|(when, number)| ContentRule {
        name: format!("r{number}"),
        when,
        outcome: Outcome::Review,
        reason: String::new(),
        apps: Vec::new(),
        classes: Vec::new(),
        categories: Vec::new(),
    });
    let policy = Policy { content: rules.collect(), ..Policy::default() };
    let draft = Draft::new(policy).expect("a policy");
    draft.adopt(&mut Zones::new(), &mut Counters::new(CountLimits::default())).expect("few")
});

fn content(text: &str) {
    let (title, rest) = text.split_once('\n').unwrap_or((text, ""));
    let (text, link) = rest.split_once('\n').unwrap_or((rest, ""));
    let content = Content { title, text, links: &[link], category: None };
    let _ = RULES.judge("marketing", "shop", &content);
}

fn hours(text: &str) {
    let Ok(hours) = text.parse::<Hours>() else { return };
    assert_eq!(hours.to_string().parse(), Ok(hours));
    let zones = Zones::new();
    let utc = zones.get(ZoneId::UTC);
    match when(NOW_MS, utc, hours, None, u64::MAX) {
        When::Now => assert!(hours.contain(utc, NOW_MS)),
        When::At(at_ms, _) => {
            assert!(hours.contain(utc, at_ms) && !hours.contain(utc, at_ms - 1));
            assert!(NOW_MS < at_ms && at_ms < NOW_MS + DAY_MS);
        }
        When::Never(reason) => panic!("{hours} are never: {reason}"),
    }
}
