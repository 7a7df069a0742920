//! Clients that are slow, large, many, or gone.

use std::time::Duration;

use sextant_resp::Value;

use crate::client::{Client, encode, ok, words};
use crate::rig::{Rig, Setup};

#[test]
fn ten_megabytes_go_in_and_out() {
    let mut rig = Rig::new(1, Setup::default(), |_| ());
    let mut client = Client::new(&rig, 0);
    let value: Vec<u8> = (0..10 << 20).map(|at: u32| (at / 7) as u8).collect();
    let set = vec![b"SET".to_vec(), b"k".to_vec(), value.clone()];
    assert_eq!(client.ask_words(&mut rig, &set), ok());
    let got = client.ask(&mut rig, "GET k");
    assert!(got == Some(Value::Bulk(value.into())));
}

#[test]
fn a_hundred_thousand_commands_at_once_do_not_keep_others_waiting() {
    let setup = Setup { instances: 2, ..Setup::default() };
    let mut rig = Rig::new(1, setup, |_| ());
    let (mut many, mut other) = (Client::new(&rig, 0), Client::new(&rig, 0));
    let mut neighbour = Client::new(&rig, 1);
    let mut bytes = Vec::new();
    (0..100_000).for_each(|_| encode(&mut bytes, &words("INCR n")));
    many.peer.send(&bytes);
    rig.pass(Duration::from_millis(5));
    for client in [&mut other, &mut neighbour] {
        for _ in 0..20 {
            let turns = rig.turns();
            assert_eq!(client.ask(&mut rig, "PING"), Some(Value::Simple("PONG".into())));
            assert!(rig.turns() - turns < 400, "{} turns", rig.turns() - turns);
        }
    }
    assert!(rig.until(|| many.has(100_000)));
    let right = (1..=100_000).map(Value::Int);
    assert!(many.replies.iter().cloned().eq(right), "replies come in their order");
}

#[test]
fn half_a_command_is_waited_for() {
    let mut rig = Rig::new(1, Setup::default(), |_| ());
    let (mut half, mut other) = (Client::new(&rig, 0), Client::new(&rig, 0));
    half.peer.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nab");
    rig.pass(Duration::from_secs(60));
    assert_eq!(other.ask(&mut rig, "EXISTS k"), Some(Value::Int(0)));
    half.peer.send(b"cde\r\n");
    assert!(rig.until(|| half.has(1)));
    assert_eq!(other.ask(&mut rig, "STRLEN k"), Some(Value::Int(5)));
}

#[test]
fn a_client_that_reads_nothing_gets_everything_later_and_costs_others_nothing() {
    let mut rig = Rig::new(1, Setup::default(), |_| ());
    let (mut slow, mut other) = (Client::new(&rig, 0), Client::new(&rig, 0));
    let set = vec![b"SET".to_vec(), b"k".to_vec(), vec![b'v'; 10_000]];
    assert_eq!(slow.ask_words(&mut rig, &set), ok());
    slow.peer.pause_reading();
    let asked: Vec<_> = (0..2000).map(|_| words("GET k")).collect();
    slow.send(&asked);
    rig.pass(Duration::from_secs(1));
    let waits = rig.with(0, |instance| instance.engine.counts().commands);
    assert!(waits < 500, "replies of {waits} commands are in memory");
    assert_eq!(other.ask(&mut rig, "PING"), Some(Value::Simple("PONG".into())));
    slow.peer.resume_reading();
    assert!(rig.until(|| slow.has(2000)));
}

#[test]
fn replies_that_wait_for_the_disk_do_not_fill_the_memory() {
    let mut rig = Rig::new(1, Setup::default(), |_| ());
    let mut client = Client::new(&rig, 0);
    let set = vec![b"SET".to_vec(), b"k".to_vec(), vec![b'v'; 10_000]];
    assert_eq!(client.ask_words(&mut rig, &set), ok());
    rig.pass(Duration::from_millis(100));
    rig.world.plan(|plan| {
        plan.disk_delay = Duration::from_secs(5)..=Duration::from_secs(5);
    });
    let mut asked = vec![words("INCR n")];
    asked.extend((0..5000).map(|_| words("GET k")));
    client.send(&asked);
    rig.pass(Duration::from_secs(1));
    let done = rig.with(0, |instance| instance.engine.counts().commands);
    assert!(done < 500, "replies of {done} commands are in memory");
    rig.world.plan(|plan| plan.disk_delay = Duration::ZERO..=Duration::ZERO);
    assert!(rig.until(|| client.has(5001)));
}

#[test]
fn what_follows_a_command_that_waits_is_done_after_it() {
    let mut rig = Rig::new(1, Setup::default(), |_| ());
    let (mut client, mut other) = (Client::new(&rig, 0), Client::new(&rig, 0));
    assert_eq!(client.ask(&mut rig, "SET k 0"), ok());
    assert_eq!(other.ask(&mut rig, "CLIENT PAUSE 1000 WRITE"), ok());
    client.send(&[words("APPEND k 1")]);
    rig.pass(Duration::from_millis(50));
    client.send(&[words("APPEND k 22"), words("GET k")]);
    rig.pass(Duration::from_millis(50));
    assert!(!client.has(1), "nothing is answered in a pause");
    assert!(rig.until(|| client.has(3)));
    let replies: Vec<Value> = client.replies.drain(..).collect();
    assert_eq!(replies, [Value::Int(2), Value::Int(4), Value::Bulk("0122".into())]);
}
