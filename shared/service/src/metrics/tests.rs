use super::*;

use std::collections::BTreeMap;

/// A strict reader of the text format: every family has its help and type before its samples and
/// appears once, every name and label is well formed, every series appears once.
fn parse(page: &str) -> BTreeMap<String, f64> {
    assert!(page.ends_with('\n'), "the last line ends");
    let mut series = BTreeMap::new();
    let mut families: BTreeMap<&str, &str> = BTreeMap::new();
    let (mut helped, mut current) = ("", "");
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            helped = help.split_once(' ').expect("a help text").0;
        } else if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, kind) = typed.split_once(' ').expect("a type");
            assert_eq!(name, helped, "the type follows the help");
            assert!(["counter", "gauge", "summary"].contains(&kind), "{line}");
            assert!(families.insert(name, kind).is_none(), "{name} comes twice");
            current = name;
        } else {
            assert!(!line.starts_with('#') && !line.is_empty(), "{line}");
            let (id, value) = line.rsplit_once(' ').expect("a value");
            let (name, labels) = match id.split_once('{') {
                Some((name, labels)) => (name, labels.strip_suffix('}').expect("a bracket")),
                None => (id, ""),
            };
            let family = match families[current] {
                "summary" => name.trim_end_matches("_sum").trim_end_matches("_count"),
                _ => name,
            };
            assert_eq!(family, current, "samples stand with their family");
            assert!(text::is_metric_name(name), "{name}");
            check_labels(labels);
            let value = match value {
                "+Inf" => f64::INFINITY,
                "-Inf" => f64::NEG_INFINITY,
                number => number.parse().expect("a number"),
            };
            assert!(series.insert(id.to_owned(), value).is_none(), "{id} comes twice");
        }
    }
    series
}

fn check_labels(mut rest: &str) {
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"").expect("a label with a value in quotes");
        assert!(text::is_metric_name(name), "{name}");
        let mut escaped = false;
        let end = after
            .find(|c: char| {
                let closes = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                closes
            })
            .expect("a closing quote");
        rest = after[end + 1..].trim_start_matches(',');
    }
}

#[test]
fn the_page_is_valid_and_sums_all_cores() {
    let mut builder = Builder::new("push", "0.1.0");
    let accepted = builder.counter("push_accepted_total", "Connections accepted.");
    let [qos0, _, qos2] = builder.counters("push_in_total", "Messages in.", "qos", ["0", "1", "2"]);
    let open = builder.gauge("push_connections", "Connections open.");
    let fsync = builder.latency("push_fsync_seconds", "Time of a sync,\nwith \\ in it.");
    builder.gauge_fn("push_ready", "Ready.", || 1.0);
    builder.collect("push_log_bytes", "By log.", "log", |series| {
        series.add("a\"b\\c\nd", 1.5);
        series.add("a\"b\\c\nd", 9.0);
        series.add("e", f64::INFINITY);
    });
    let registry = builder.build(2);
    let (first, second) = (registry.core(0), registry.core(1));
    first.inc(accepted);
    second.add(accepted, 2);
    first.inc(qos0);
    second.add(qos2, u64::from(u32::MAX) * 4);
    first.shift(open, 5);
    second.shift(open, -7);
    for ms in 1..=1_000 {
        second.record(fsync, Duration::from_millis(ms));
    }
    first.record(fsync, Duration::from_secs(100_000));

    let series = parse(&registry.render(Instant::now()));
    assert_eq!(series["push_accepted_total"], 3.0);
    assert_eq!(series["push_in_total{qos=\"0\"}"], 1.0);
    assert_eq!(series["push_in_total{qos=\"1\"}"], 0.0);
    assert_eq!(series["push_in_total{qos=\"2\"}"], 17_179_869_180.0);
    assert_eq!(series["push_connections"], -2.0);
    assert_eq!(series["push_log_bytes{log=\"a\\\"b\\\\c\\nd\"}"], 1.5);
    assert_eq!(series["push_log_bytes{log=\"e\"}"], f64::INFINITY);
    assert_eq!(series["push_fsync_seconds_count"], 1_001.0);
    assert!((series["push_fsync_seconds_sum"] - 500.5 - 3_600.0).abs() < 0.001);
    let p99 = series["push_fsync_seconds{quantile=\"0.99\"}"];
    assert!((0.98..1.01).contains(&p99), "{p99}");
    assert_eq!(series["sextant_build_info{daemon=\"push\",version=\"0.1.0\"}"], 1.0);
    assert!(series["process_open_fds"] > 0.0);
    assert_eq!((registry.total(accepted), registry.level(open)), (3, -2));
    assert_eq!(registry.distribution(fsync).len(), 1_001);
}

#[test]
fn quantiles_without_observations_are_not_a_number() {
    let mut builder = Builder::default();
    builder.latency("a_seconds", "A.");
    let series = parse(&builder.build(1).render(Instant::now()));
    assert!(series["a_seconds{quantile=\"0.5\"}"].is_nan());
    assert_eq!(series["a_seconds_count"], 0.0);
}

#[test]
fn the_numbers_of_two_cores_share_no_cache_line() {
    let mut builder = Builder::default();
    builder.counter("a_total", "A.");
    let registry = builder.build(2);
    let address = |index: usize| std::ptr::from_ref(registry.writers[index].word(0)) as usize;
    assert_eq!(address(0) % 128, 0);
    assert!(address(0).abs_diff(address(1)) >= 128);
}

#[test]
#[should_panic(expected = "have an owner")]
fn the_words_of_a_core_are_given_out_once() {
    let registry = Builder::default().build(1);
    let _one = registry.core(0);
    let _two = registry.core(0);
}

#[test]
#[should_panic(expected = "end in _total")]
fn a_counter_must_say_that_it_is_one() {
    Builder::default().counter("accepted", "A.");
}

#[test]
#[should_panic(expected = "declared twice")]
fn a_family_is_declared_once() {
    let mut builder = Builder::default();
    builder.gauge("a", "A.");
    builder.gauge("a", "A.");
}
