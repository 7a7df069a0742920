//! A disk that is full, and one that fails.

use std::time::Duration;

use sextant_resp::Value;
use sextant_ring::sim::{Access, seeds};

use crate::client::{Client, bulk, is_misconf, ok, words};
use crate::rig::{Rig, Setup};

fn set_much(key: &str, bytes: usize) -> Vec<Vec<u8>> {
    vec![b"SET".to_vec(), key.as_bytes().to_vec(), vec![b'v'; bytes]]
}

/// Writes until the disk is full; returns how many were taken.
fn fill(rig: &mut Rig, client: &mut Client) -> usize {
    for taken in 0..200 {
        let reply = client.ask_words(rig, &set_much(&format!("filling:{taken}"), 60_000));
        if is_misconf(&reply) {
            return taken;
        }
        assert_eq!(reply, ok());
    }
    panic!("the disk is never full");
}

#[test]
fn on_a_full_disk_writes_are_refused_and_reads_go_on_until_there_is_room() {
    for seed in seeds(10) {
        let mut rig = Rig::new(seed, Setup::default(), |_| ());
        let mut client = Client::new(&rig, 0);
        assert_eq!(client.ask(&mut rig, "SET first 1"), ok());
        assert_eq!(client.ask(&mut rig, "SET short 1 PX 300"), ok());
        rig.world.disk_limit(2 << 20);
        let taken = fill(&mut rig, &mut client);
        assert!(taken > 10, "seed {seed}: {taken}");
        // What expires is noted as well.
        rig.pass(Duration::from_secs(1));
        assert_eq!(client.ask(&mut rig, "GET short"), Some(Value::Null), "seed {seed}");
        assert_eq!(client.ask(&mut rig, "GET first"), bulk("1"), "seed {seed}");
        assert!(is_misconf(&client.ask(&mut rig, "SET first 2")));
        rig.world.disk_limit(u64::MAX);
        rig.pass(Duration::from_secs(30));
        assert_eq!(client.ask(&mut rig, "SET first 2"), ok(), "seed {seed}");
        rig.crash();
        rig.start(|_, found| {
            assert_eq!(Some(found.ask("GET first")), bulk("2"));
            assert_eq!(found.ask("EXISTS short"), Value::Int(0));
            let last = found.ask(&format!("STRLEN filling:{}", taken - 1));
            assert_eq!(last, Value::Int(60_000));
        });
    }
}

#[test]
fn a_large_value_that_the_disk_has_no_room_for_stops_nobody_who_reads() {
    let mut rig = Rig::new(1, Setup::default(), |_| ());
    let (mut client, mut other) = (Client::new(&rig, 0), Client::new(&rig, 0));
    assert_eq!(client.ask(&mut rig, "SET first 1"), ok());
    rig.world.disk_limit(1 << 20);
    rig.pass(Duration::from_millis(100));
    client.send(&[set_much("large", 5_000_000)]);
    rig.pass(Duration::from_secs(2));
    assert!(!client.has(1), "it is not durable");
    assert_eq!(other.ask(&mut rig, "GET first"), bulk("1"));
    assert!(is_misconf(&other.ask(&mut rig, "SET first 2")));
    rig.world.disk_limit(u64::MAX);
    assert!(rig.until(|| client.has(1)), "it is durable once there is room");
    rig.crash();
    rig.start(|_, found| assert_eq!(found.ask("STRLEN large"), Value::Int(5_000_000)));
}

#[test]
fn after_a_failed_sync_writes_are_refused_and_nobody_is_told_what_is_lost() {
    for seed in seeds(20) {
        for access in [Access::Write, Access::Sync] {
            let mut rig = Rig::new(seed, Setup::default(), |_| ());
            let (mut client, mut other) = (Client::new(&rig, 0), Client::new(&rig, 0));
            assert_eq!(client.ask(&mut rig, "SET kept 1"), ok());
            rig.pass(Duration::from_millis(100));
            rig.world.fail_disk(Some(access), 0, 5);
            let lost = client.ask(&mut rig, "SET lost 1");
            assert!(lost != ok(), "seed {seed}: it was acknowledged");
            assert!(rig.is_read_only(0), "seed {seed}");
            assert_eq!(other.ask(&mut rig, "GET kept"), bulk("1"), "seed {seed}");
            assert!(is_misconf(&other.ask(&mut rig, "SET kept 2")), "seed {seed}");
            let told = other.ask(&mut rig, "GET lost");
            assert_eq!(told, None, "seed {seed}: what is lost is told");
            assert!(rig.stop(), "seed {seed}: it does not stop");
            rig.start(|_, found| assert_eq!(Some(found.ask("GET kept")), bulk("1")));
            let mut client = Client::new(&rig, 0);
            assert_eq!(client.ask_words(&mut rig, &words("SET kept 3")), ok(), "seed {seed}");
        }
    }
}
