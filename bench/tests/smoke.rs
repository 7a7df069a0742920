//! The program itself, in runs of a moment: that they end well and leave their results where they
//! belong. How fast anything is, is asserted nowhere.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

fn bench(args: &[&str], out: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sextant-bench"));
    command.args(args).arg("--out").arg(out).env("TMPDIR", out);
    command.output().unwrap()
}

#[track_caller]
fn runs(args: &[&str], name: &str, sides: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let output = bench(args, dir.path());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let table = std::fs::read_to_string(dir.path().join(format!("{name}.md"))).unwrap();
    for side in sides {
        assert!(table.contains(&format!("| {side} | **")), "{side} is not in {table}");
    }
    for ending in ["json", "svg"] {
        assert!(dir.path().join(format!("{name}.{ending}")).is_file());
    }
    let left = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(left, 3, "nothing else is left behind");
}

#[test]
fn servers_of_the_floor_echo() {
    let sides = ["ring", "bare epoll", "ring on epoll"];
    runs(&["floor", "--quick", "--case", "echo, saturated"], "floor", &sides);
}

#[test]
fn servers_of_the_floor_fan_out() {
    let sides = ["ring", "bare epoll", "ring on epoll"];
    runs(&["floor", "--quick", "--case", "fan-out, saturated"], "floor", &sides);
}

#[test]
fn servers_of_the_floor_accept() {
    let sides = ["ring", "bare epoll", "ring on epoll"];
    runs(&["floor", "--quick", "--case", "accept, 4,000"], "floor", &sides);
}

#[test]
fn cores_wake_each_other() {
    let sides = ["to itself", "ping-pong across", "bare eventfd, ping-pong"];
    runs(&["wake", "--quick", "--case", "one message"], "wake", &sides);
}

#[test]
fn writers_append() {
    // Only the log: fio need not be there to test this.
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let args = ["--writers", "8", "--payload-bytes", "200", "--warm-up-ms", "10"];
    let output = Command::new(env!("CARGO_BIN_EXE_sextant-bench"))
        .args(["write-log", "--dir"])
        .arg(log)
        .args(args)
        .args(["--measure-ms", "100"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(found["acknowledged"].as_u64().is_some_and(|n| n > 0), "{found}");
}

#[test]
fn a_case_that_does_not_exist_is_answered_with_those_that_do() {
    let dir = tempfile::tempdir().unwrap();
    let output = bench(&["floor", "--case", "nonsense"], dir.path());
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("fan-out, saturated"), "{said}");
}
