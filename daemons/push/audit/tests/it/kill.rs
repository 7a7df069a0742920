//! A process that is killed at random moments. It tells what it has flushed; the next one has to
//! find all of that, in a chain that is whole.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use fastrand::Rng;
use sextant_audit::{Fact, Stage, Writer, verify};

use crate::rig::{all_facts, open, rng, small};

const CHILD: &str = "SEXTANT_AUDIT_CHILD";

/// The fact of a number: what a child writes, and all of it is known from the number.
fn fact(number: u64) -> Fact {
    let mut rng = Rng::with_seed(number);
    Fact {
        message: number / 7,
        at: 1_000_000 + number,
        device: rng.u32(..),
        app: rng.u16(..),
        stage: Stage::ALL[rng.usize(..9)],
        reason: rng.u8(..),
    }
}

/// The facts that are there, which have to be the first so many.
fn found(reader: &sextant_audit::Reader) -> u64 {
    let mut facts = all_facts(reader);
    facts.sort_by_key(|fact| fact.at);
    for (number, found) in (0..).zip(&facts) {
        assert_eq!(*found, fact(number), "fact {number}");
    }
    facts.len() as u64
}

/// Not a test of its own: what the killed process does. It writes as fast as it can, and tells
/// each flush on its standard output.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let (mut writer, _, opened): (Writer, _, _) = open(Path::new(&dir), &small());
    let mut out = std::io::stdout();
    let mut rng = Rng::new();
    let mut next = opened.facts;
    loop {
        for _ in 0..rng.u32(1..20) {
            let facts: Vec<Fact> = (next..next + rng.u64(1..500)).map(fact).collect();
            writer.facts(&facts).expect("there is room");
            next += facts.len() as u64;
        }
        writer.flush().expect("nothing fails");
        writeln!(out, "flushed {next} {}.", writer.head()).expect("the parent listens");
    }
}

#[test]
fn what_was_flushed_before_a_kill_is_there_after_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("audit");
    let mut rng = rng();
    let mut flushed = 0;
    for _ in 0..12 {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "kill::child", "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .expect("this test runs again");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let reader = std::thread::spawn(move || {
            let mut last = None;
            while let Some(Ok(line)) = lines.next() {
                // A line that was cut short lacks its full stop.
                let told = line.strip_prefix("flushed ").and_then(|line| line.strip_suffix('.'));
                if let Some((facts, head)) = told.and_then(|told| told.split_once(' ')) {
                    let facts: u64 = facts.parse().expect("a number");
                    last = Some((facts, head.parse().expect("a head")));
                }
            }
            last
        });
        std::thread::sleep(Duration::from_millis(rng.u64(20..250)));
        child.kill().expect("it runs until it is killed");
        child.wait().expect("it was killed");
        let told = reader.join().expect("it only reads");
        // As it was left, and after it was opened.
        let before = verify(&path, told.map(|(_, head)| head), |_| ());
        let (writer, reader, opened) = open(&path, &small());
        let after = verify(&path, told.map(|(_, head)| head), |_| ()).expect("it can be listed");
        if let (Ok(before), true) = (before, told.is_some()) {
            assert!(before.is_whole(), "{:?}", before.damage);
            assert!(before.torn.is_none() || opened.torn_bytes > 0);
        }
        assert!(after.is_whole() && after.torn.is_none(), "{after:?}");
        assert_eq!(after.head, writer.head());
        flushed = told.map_or(flushed, |(facts, _)| facts);
        let found = found(&reader);
        assert!(found >= flushed, "{flushed} flushed, {found} found");
        assert_eq!(found, opened.facts);
    }
    assert!(flushed > 0, "nothing was ever flushed");
}
