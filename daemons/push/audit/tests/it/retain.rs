//! What goes for its age or its size, and what stays whole.

use std::time::Duration;

use sextant_audit::{Fact, Options, Query, Retention, Writer, verify};

use crate::rig::{all, all_facts, any_fact, check, open, rng, small};

fn options(retention: Retention) -> Options {
    Options { retention, ..small() }
}

/// Writes until the first segments are gone; tells all that was written.
fn write_past(writer: &mut Writer, rounds: u64) -> Vec<Fact> {
    let mut rng = rng();
    let mut written = Vec::new();
    for round in 0..rounds {
        let now = 1_000_000 + round * 1000;
        let facts: Vec<Fact> = (0..500).map(|_| any_fact(&mut rng, now)).collect();
        writer.facts(&facts).expect("retention makes room");
        written.extend(facts);
        writer.tick(now).expect("nothing fails");
        writer.tick(now + 100).expect("nothing fails");
    }
    written
}

#[test]
fn by_size_the_newest_stay_and_are_whole() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let retention = Retention { bytes_max: Some(768 << 10), age_max: None };
    let options = options(retention);
    let (mut writer, reader, _) = open(dir.path(), &options);
    let before = writer.head();
    let written = write_past(&mut writer, 800);
    let left = all_facts(&reader);
    assert!(left.len() > 20_000 && left.len() < written.len() / 2, "{}", left.len());
    let newest = sorted_times(&written[written.len() - 10_000..]);
    assert_eq!(sorted_times(&left[left.len() - 10_000..]), newest);
    check(dir.path(), &writer);
    let report = verify(dir.path(), Some(before), |_| ()).expect("it can be listed");
    assert!(report.is_whole() && report.first_seq > 100, "{report:?}");
    assert_ne!(report.anchor, sextant_audit::Hash::NONE);
    let early = sextant_audit::Head { seq: 1, ..before };
    let report = verify(dir.path(), Some(early), |_| ()).expect("it can be listed");
    assert_eq!(report.expected, Some(sextant_audit::Expected::Removed));

    let names = || {
        let names = std::fs::read_dir(dir.path()).expect("it is there");
        names.map(|entry| entry.expect("it is there").file_name().into_string().expect("ASCII"))
    };
    let count = |suffix: &str| names().filter(|name| name.ends_with(suffix)).count();
    assert!(count(".idx") < count(".seg"), "indexes go with their segments");
    let head = writer.close().expect("nothing fails");
    let (_, reader, opened) = open(dir.path(), &options);
    assert_eq!((opened.head, opened.first_seq), (head, report.first_seq));
    assert_eq!(all_facts(&reader), left);
}

fn sorted_times(facts: &[Fact]) -> Vec<u64> {
    let mut times: Vec<u64> = facts.iter().map(|fact| fact.at).collect();
    times.sort_unstable();
    times
}

#[test]
fn by_age_old_segments_go_while_readers_read_on() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let age_max = Some(Duration::from_secs(100));
    let (mut writer, reader, _) =
        open(dir.path(), &options(Retention { bytes_max: None, age_max }));
    write_past(&mut writer, 120);
    let query = Query { limit: 1, ..Query::default() };
    let page = reader.query(&query);
    writer.tick(1_000_000 + 150_000).expect("nothing fails");
    let left = all(&reader, &Query { after: page.after, limit: 10_000, ..query });
    assert!(!left.is_empty() && left.len() < 59_999, "{}", left.len());
    let now = 1_000_000 + 150_000;
    let oldest = left.iter().map(sextant_audit::Entry::at).min().expect("something is left");
    assert!(oldest < now, "the newest segment stays");
    check(dir.path(), &writer);
    writer.tick(now + 10_000_000).expect("nothing fails");
    check(dir.path(), &writer);
}
