//! kill -9 in the middle of ten thousand publishes, with a publisher and a subscriber on paho that
//! connect again by themselves.
//!
//! What the publisher was told is safe must reach the subscriber; and under QoS 2 nothing may
//! reach it twice, although publisher and broker both go on in the middle of exchanges.
//!
//! And whoever is gone together with the daemon leaves a will, if it does not come back.

use std::time::{Duration, Instant};

use sextant_tests::{Daemon, Options, Script, Sub, publish};

const MESSAGES: usize = 10_000;
/// How long ten thousand messages and two restarts may take on a slow disk.
const ALL: Duration = Duration::from_secs(150);

/// What a subscriber got, by number of the message: how many times.
struct Got(Vec<u32>);

impl Got {
    fn take(&mut self, line: &str) {
        assert!(!line.starts_with("session lost"), "the broker has forgotten the session");
        if let Some(number) = line.strip_prefix("got ").and_then(|text| text.parse::<usize>().ok())
        {
            self.0[number] += 1;
        }
    }

    fn missing(&self) -> Vec<usize> {
        (0..self.0.len()).filter(|number| self.0[*number] == 0).collect()
    }

    fn doubled(&self) -> Vec<usize> {
        (0..self.0.len()).filter(|number| self.0[*number] > 1).collect()
    }
}

/// Publishes while the broker is killed at three thousand and at six thousand acknowledgements.
fn publish_through_kills(version: &str, qos: &str) -> Got {
    let mut daemon = Daemon::start();
    let args = ["--version", version, "--qos", qos, "--topic", "numbers"];
    let mut subscriber = Script::start("subscriber", daemon.mqtt(), &args);
    subscriber.lines.line_with("subscribed");
    let count = MESSAGES.to_string();
    let args = [&args[..], &["--count", &count]].concat();
    let mut publisher = Script::start("publisher", daemon.mqtt(), &args);
    for kill_at in [3000, 6000] {
        publisher.lines.find_for(ALL, "progress", |line| {
            line.strip_prefix("acked ")?.parse().ok().filter(|acked: &usize| *acked >= kill_at)
        });
        daemon.kill();
        daemon.start_again();
    }
    publisher.lines.find_for(ALL, "all acknowledged", |line| (line == "done").then_some(()));
    let mut got = Got(vec![0; MESSAGES]);
    let began = Instant::now();
    while !got.missing().is_empty() {
        let left = ALL.saturating_sub(began.elapsed());
        assert!(!left.is_zero(), "acknowledged and lost: {:?}", got.missing());
        for line in subscriber.lines.drain() {
            got.take(&line);
        }
        if !got.missing().is_empty() {
            let missing = got.missing();
            let what = format!("{} more, from {:?} on", missing.len(), missing.first());
            subscriber.lines.find_for(left, &what, |line| {
                got.take(line);
                Some(())
            });
        }
    }
    // Whatever else is on its way comes before this.
    publish(daemon.mqtt(), &["-q", qos, "-t", "numbers", "-m", "end"]);
    subscriber.lines.find_for(ALL, "the last message", |line| {
        got.take(line);
        (line == "got end").then_some(())
    });
    got
}

#[test]
fn nothing_acknowledged_at_qos_1_is_lost_by_kill_9_in_mqtt_3() {
    assert!(publish_through_kills("4", "1").missing().is_empty());
}

#[test]
fn nothing_acknowledged_at_qos_1_is_lost_by_kill_9_in_mqtt_5() {
    assert!(publish_through_kills("5", "1").missing().is_empty());
}

#[test]
fn everything_at_qos_2_comes_exactly_once_through_kill_9_in_mqtt_3() {
    let got = publish_through_kills("4", "2");
    assert!(got.doubled().is_empty(), "twice: {:?}", got.doubled());
}

#[test]
fn everything_at_qos_2_comes_exactly_once_through_kill_9_in_mqtt_5() {
    let got = publish_through_kills("5", "2");
    assert!(got.doubled().is_empty(), "twice: {:?}", got.doubled());
}

// [MQTT-3.1.2-8]
#[test]
fn who_is_gone_with_a_daemon_that_was_killed_leaves_a_will_and_who_comes_back_does_not() {
    let mut daemon = Daemon::start_with(Options::config("[mqtt]\nwill_grace = \"5s\""));
    let of_client = |name: &'static str| {
        let will = ["--will-topic", "wills", "--will-payload", name, "--will-qos", "1"];
        [&["-i", name, "-t", "unused"], &will[..]].concat()
    };
    let kept = |name: &'static str| [&of_client(name)[..], &["-c", "-q", "1"]].concat();
    let mut lost = Sub::start(daemon.mqtt(), &of_client("lost"));
    let mut lost_and_kept = Sub::start(daemon.mqtt(), &kept("lost, with a session"));
    let mut back = Sub::start(daemon.mqtt(), &of_client("back"));
    let mut back_and_kept = Sub::start(daemon.mqtt(), &kept("back, with a session"));
    daemon.kill();
    lost.lines().kill();
    lost_and_kept.lines().kill();
    daemon.start_again();
    let mut watcher = Sub::start(daemon.mqtt(), &["-q", "1", "-t", "wills"]);
    for back in [&mut back, &mut back_and_kept] {
        back.lines().line_with("Subscribed (mid:");
    }
    let mut gone = watcher.payloads(2);
    gone.sort_unstable();
    assert_eq!(gone, ["lost", "lost, with a session"]);
    // What was published is not published again.
    daemon.kill();
    daemon.start_again();
    watcher.lines().line_with("Subscribed (mid:");
    for back in [&mut back, &mut back_and_kept] {
        back.lines().line_with("Subscribed (mid:");
        back.lines().kill();
    }
    let mut gone = watcher.payloads(2);
    gone.sort_unstable();
    assert_eq!(gone, ["back", "back, with a session"]);
}
