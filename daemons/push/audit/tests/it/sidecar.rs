//! Indexes beside segments that are lost, damaged, or of something else: what is found stays the
//! same, and they are made anew.

use std::fs;
use std::path::{Path, PathBuf};

use fastrand::Rng;
use sextant_audit::{Fact, Query, Reader};

use crate::rig::{all, all_facts, any_fact, broadcast, fact_of, open, rng, small};

fn sidecars(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("it is there");
    let paths = entries.map(|entry| entry.expect("it is there").path());
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|end| end == "idx")).collect();
    paths.sort();
    paths
}

fn written(dir: &Path, rng: &mut Rng) -> Vec<Fact> {
    let (mut writer, ..) = open(dir, &small());
    let mut written = Vec::new();
    for n in 0..400 {
        let facts = match n % 3 {
            0 => broadcast(n, 150, 1000 + n),
            _ => (0..450).map(|_| any_fact(rng, 1000 + n)).collect(),
        };
        writer.facts(&facts).expect("there is room");
        written.extend(facts);
    }
    writer.close().expect("nothing fails");
    written
}

fn check(reader: &Reader, written: &[Fact], rng: &mut Rng) {
    for _ in 0..20 {
        let (message, device) = (rng.u64(..40), rng.u32(..200));
        let query = Query { message: Some(message), device: Some(device), ..Query::default() };
        let found: Vec<Fact> = all(reader, &query).iter().map(fact_of).collect();
        let is_asked = |fact: &&Fact| (fact.message, fact.device) == (message, device);
        assert_eq!(found.len(), written.iter().filter(is_asked).count());
    }
}

#[test]
fn indexes_that_are_lost_or_of_something_else_are_made_anew_by_an_opening() {
    let mut rng = rng();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let written = written(dir.path(), &mut rng);
    let paths = sidecars(dir.path());
    let whole: Vec<Vec<u8>> =
        paths.iter().map(|path| fs::read(path).expect("it is there")).collect();
    assert!(paths.len() > 3, "{paths:?}");
    fs::remove_file(&paths[0]).expect("it is there");
    fs::copy(&paths[2], &paths[1]).expect("there is room");
    fs::write(&paths[3], &whole[3][..50]).expect("there is room");
    fs::write(dir.path().join("0000000099.idx"), b"of a segment that is gone")
        .expect("there is room");
    fs::write(paths[0].with_extension("idx.new"), b"half").expect("there is room");
    let (_, reader, opened) = open(dir.path(), &small());
    assert_eq!((opened.indexes_rebuilt, opened.facts), (3, written.len() as u64));
    check(&reader, &written, &mut rng);
    let paths_now = sidecars(dir.path());
    assert_eq!(paths_now, paths, "strangers are gone");
    for (path, whole) in paths.iter().zip(&whole) {
        assert_eq!(&fs::read(path).expect("it is there"), whole, "{path:?}");
    }
    assert!(!paths[0].with_extension("idx.new").exists());
}

#[test]
fn an_index_that_is_damaged_behind_its_header_is_made_anew_when_it_is_asked() {
    let mut rng = rng();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let written = written(dir.path(), &mut rng);
    let paths = sidecars(dir.path());
    let whole: Vec<Vec<u8>> =
        paths.iter().map(|path| fs::read(path).expect("it is there")).collect();
    for (path, whole) in paths.iter().zip(&whole) {
        let mut bytes = whole.clone();
        match rng.u8(..3) {
            0 => bytes.truncate(rng.usize(96..whole.len())),
            1 => bytes[96..].iter_mut().for_each(|byte| *byte = rng.u8(..)),
            _ => bytes[rng.usize(96..whole.len())] ^= 1 << rng.u8(..8),
        }
        fs::write(path, bytes).expect("there is room");
    }
    let (mut writer, reader, opened) = open(dir.path(), &small());
    assert_eq!(opened.indexes_rebuilt, 0, "an opening reads headers alone");
    check(&reader, &written, &mut rng);
    writer.tick(1).expect("nothing fails");
    for (path, whole) in paths.iter().zip(&whole) {
        assert_eq!(&fs::read(path).expect("it is there"), whole, "{path:?}");
    }
    assert_eq!(all_facts(&reader).len(), written.len());
}

#[test]
fn whatever_is_written_over_segments_and_indexes_no_answer_is_invented() {
    let mut rng = rng();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let written: std::collections::HashSet<Fact> =
        written(dir.path(), &mut rng).into_iter().collect();
    let files: Vec<(PathBuf, Vec<u8>)> = fs::read_dir(dir.path())
        .expect("it is there")
        .map(|entry| entry.expect("it is there").path())
        .map(|path| (path.clone(), fs::read(&path).expect("it is there")))
        .collect();
    for _ in 0..30 {
        let (writer, reader, _) = open(dir.path(), &small());
        for (path, whole) in &files {
            let mut bytes = whole.clone();
            for _ in 0..rng.u32(..6) {
                let at = rng.usize(..bytes.len());
                let end = (at + rng.usize(1..2000)).min(bytes.len());
                bytes[at..end].iter_mut().for_each(|byte| *byte = rng.u8(..));
            }
            // Of the same length: what is mapped must not become shorter.
            fs::write(path.with_extension("over"), &bytes).expect("there is room");
            fs::rename(path.with_extension("over"), path).expect("it is there");
        }
        for newest_first in [false, true] {
            let query = Query { events: false, newest_first, limit: 10_000, ..Query::default() };
            let page = reader.query(&query);
            assert!(page.entries.iter().all(|entry| written.contains(&fact_of(entry))));
        }
        let mut scanned = 0;
        reader.scan_facts(0, |_, fact| {
            assert!(written.contains(fact));
            scanned += 1;
        });
        assert!(scanned <= written.len());
        let report = sextant_audit::verify(dir.path(), None, |_| ()).expect("it can be listed");
        assert!(report.facts <= written.len() as u64);
        drop((writer, reader));
        for (path, whole) in &files {
            fs::write(path, whole).expect("there is room");
        }
        for path in sidecars(dir.path()) {
            assert!(files.iter().any(|(known, _)| *known == path), "{path:?}");
        }
    }
}
