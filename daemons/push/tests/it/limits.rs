//! How fast clients may come and publish: storms in virtual time.

use std::time::Duration;

use sextant_mqtt::{Connect, Packet, QoS, ReasonCode, Version};
use sextant_push::config::Limits;
use sextant_push::control::CoreStatus;
use sextant_ring::time::Time;
use sextant_service::config::{Bytes, Span};

use crate::client::{Parting, Profile};
use crate::model::From;
use crate::play::Play;
use crate::rig::Setup;

const SECOND: Duration = Duration::from_secs(1);

fn limited(cores: usize, limits: Limits) -> Setup {
    Setup { cores, limits, ..Setup::default() }
}

/// Cores that let so many in a second, after the storm of so many clients has begun: each of them
/// a moment behind the one before, so that their order is known.
fn storm(cores: usize, clients: usize, limits: Limits) -> Play {
    let mut play = Play::planned(5, limited(cores, limits), |plan| {
        plan.network_delay = Duration::from_micros(200)..=Duration::from_micros(200);
        plan.local_delay = Duration::from_micros(5)..=Duration::from_micros(5);
    });
    // The cores know one another, and have what a second brings.
    play.pass(2 * SECOND);
    for n in 0..clients {
        let version = if n % 2 == 0 { Version::V5 } else { Version::V311 };
        let client = play.add(Profile::clean(&format!("client-{n}"), version));
        play.connect(client);
        play.pass(Duration::from_millis(3));
    }
    play
}

/// When each client came online, if it did within so long.
fn arrivals(play: &mut Play, within: Duration) -> Vec<Option<Time>> {
    let mut arrivals = vec![None; play.clients.len()];
    let until = play.rig.world.now() + within;
    while play.rig.world.now() < until {
        for (arrival, client) in arrivals.iter_mut().zip(&play.clients) {
            if arrival.is_none() && client.is_online() {
                *arrival = Some(play.rig.world.now());
            }
        }
        play.pass(Duration::from_millis(2));
    }
    arrivals
}

fn sum(play: &mut Play, what: impl Fn(&CoreStatus) -> u64) -> u64 {
    play.rig.status().iter().map(what).sum()
}

fn leave(play: &mut Play) {
    for client in 0..play.clients.len() {
        play.part(client, Parting::Disconnect);
    }
    play.pass_quickly(SECOND);
    play.finish();
}

#[test]
fn a_storm_of_connects_is_let_in_at_its_rate_and_in_its_order() {
    let limits =
        Limits { connects_per_second: 20, connect_wait_max: Span::secs(60), ..Limits::default() };
    let mut play = storm(1, 100, limits);
    let begun = play.rig.world.now() - Duration::from_millis(300);
    assert!((72..=76).contains(&sum(&mut play, |core| core.connects_waiting)));
    let arrivals = arrivals(&mut play, 6 * SECOND);
    let order: Vec<Time> = arrivals.iter().map(|arrival| arrival.expect("none starves")).collect();
    assert!(order.is_sorted(), "{order:?}");
    // Twenty at once, and the others at twenty a second.
    let took = order[99].since(begun);
    assert!((Duration::from_millis(3800)..Duration::from_millis(4100)).contains(&took), "{took:?}");
    for (n, arrival) in order.iter().enumerate().skip(20) {
        let due = Duration::from_millis(50) * (n as u32 - 20);
        let after = arrival.since(begun);
        assert!(after + Duration::from_millis(50) > due, "{n}: {after:?}");
        let seen = due.max(Duration::from_millis(300));
        assert!(after < seen + Duration::from_millis(100), "{n}: {after:?}");
    }
    let delayed = sum(&mut play, |core| core.connects_delayed);
    assert!((76..=80).contains(&delayed), "{delayed}");
    assert_eq!(sum(&mut play, |core| core.connects_waiting), 0);
    leave(&mut play);
}

#[test]
fn cores_let_in_their_shares_and_a_connect_timeout_does_not_count_the_wait() {
    let limits =
        Limits { connects_per_second: 10, connect_wait_max: Span::secs(60), ..Limits::default() };
    let mut play = storm(3, 200, limits);
    // The default timeout of a CONNECT is ten seconds.
    let arrivals = arrivals(&mut play, 30 * SECOND);
    assert!(arrivals.iter().all(Option::is_some), "none starves");
    let begun = arrivals.iter().flatten().min().copied().unwrap();
    for second in 1..15 {
        let within = begun + SECOND * second;
        let came = arrivals.iter().flatten().filter(|arrival| **arrival <= within).count();
        // At once the burst, and one more of each core; the storm took most of a second.
        assert!(came <= 10 + 3 + 10 * (second as usize + 1), "{came} within {second} s");
    }
    leave(&mut play);
}

#[test]
fn who_would_wait_too_long_is_told_at_once_and_when_to_come() {
    let limits =
        Limits { connects_per_second: 10, connect_wait_max: Span::secs(2), ..Limits::default() };
    let mut play = storm(1, 50, limits);
    let arrivals = arrivals(&mut play, 4 * SECOND);
    // Ten at once, then those whose turn comes within two seconds of their arrival.
    for (n, arrival) in arrivals.iter().enumerate() {
        let (client, told) = (&play.clients[n], play.clients[n].told);
        match n {
            0..30 => assert!(arrival.is_some(), "{n}: {told:?}"),
            36.. => {
                assert!(arrival.is_none(), "{n}");
                let reason = match client.profile.version {
                    Version::V5 => ReasonCode::ConnectionRateExceeded,
                    Version::V311 => ReasonCode::ServerUnavailable,
                };
                assert_eq!(told, Some(reason), "{n}");
            }
            _ => {}
        }
    }
    let came = arrivals.iter().flatten().count() as u64;
    assert_eq!(sum(&mut play, |core| core.connects_refused), 50 - came);
    leave(&mut play);
}

#[test]
fn no_more_wait_than_may_and_who_gives_up_gives_its_place_to_the_next() {
    let limits = Limits {
        connects_per_second: 10,
        connects_waiting_max: 5,
        connect_wait_max: Span::secs(60),
        ..Limits::default()
    };
    let mut play = storm(1, 20, limits);
    assert_eq!(sum(&mut play, |core| core.connects_waiting), 5);
    assert_eq!(sum(&mut play, |core| core.connects_refused), 5);
    for waiting in 11..14 {
        play.part(waiting, Parting::Reset);
    }
    play.pass(Duration::from_millis(20));
    assert_eq!(sum(&mut play, |core| core.connects_waiting), 2);
    let begun = play.rig.world.now();
    let arrivals = arrivals(&mut play, SECOND);
    let last = arrivals[14].expect("it has its turn").since(begun);
    assert!(last < Duration::from_millis(300), "those before it are gone: {last:?}");
    leave(&mut play);
}

#[test]
fn a_crash_and_a_stop_while_many_wait_leave_nothing() {
    for stop in [false, true] {
        let limits = Limits { connects_per_second: 5, ..Limits::default() };
        let mut play = storm(2, 20, limits);
        match stop {
            true => play.stop(),
            false => play.crash(),
        }
        play.rig.start();
        for client in 0..play.clients.len() {
            play.part(client, Parting::Reset);
        }
        play.pass_quickly(10 * SECOND);
        play.finish();
    }
}

/// PUBLISH packets that the cores have read.
fn read(play: &mut Play) -> u64 {
    sum(play, |core| core.messages_in)
}

/// Publishers that have far more to say than they may, and a subscriber to all of it.
fn flood(cores: usize, publishers: usize, qos: QoS, len: usize, limits: Limits) -> Play {
    let setup = Setup { send_queue_bytes_max: 1 << 20, ..limited(cores, limits) };
    let mut play = Play::new(6, setup);
    for n in 0..publishers {
        play.add(Profile::clean(&format!("publisher-{n}"), Version::V5));
        play.connect(n);
    }
    let subscriber = play.add(Profile::clean("subscriber", Version::V5));
    play.ensure_subscribed(subscriber, "t/#", QoS::AtMostOnce);
    play.pass(2 * SECOND);
    for n in 0..600 {
        for client in 0..publishers {
            play.publish(client, "t/a", qos, false, len);
        }
        if n % 100 == 0 {
            play.pass(Duration::from_millis(1));
        }
    }
    play
}

#[test]
fn a_client_that_floods_is_read_from_at_its_rate_and_not_cut() {
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let limits = Limits { client_messages_per_second: 50, ..Limits::default() };
        let mut play = flood(2, 2, qos, 40, limits);
        let begun = play.rig.world.now();
        for _ in 0..5 {
            play.pass_quickly(SECOND);
            let took = play.rig.world.now().since(begun).as_secs_f64();
            let came = read(&mut play) as f64;
            // Two seconds' worth at once, and then the rate, of both.
            let expected = 2.0 * (100.0 + 50.0 * took);
            assert!((came / expected - 1.0).abs() < 0.1, "{qos:?}: {came} of {expected}");
        }
        assert!(sum(&mut play, |core| core.throttled) >= 1);
        // All of it comes at last, and nobody was cut.
        play.until("all is read", 20 * SECOND, |play| {
            play.pass_quickly(SECOND / 4);
            read(play) == 1200
        });
        let subscriber = &play.clients[2];
        assert_eq!(subscriber.inbox.len(), 1200, "{qos:?}");
        play.pass_quickly(3 * SECOND);
        assert_eq!(sum(&mut play, |core| core.throttled), 0);
        play.finish();
    }
}

#[test]
fn a_client_that_sends_too_many_bytes_is_read_from_at_its_rate() {
    let limits = Limits { client_bytes_per_second: Bytes::kib(40), ..Limits::default() };
    let mut play = flood(1, 1, QoS::AtMostOnce, 1000, limits);
    let begun = play.rig.world.now();
    for _ in 0..8 {
        play.pass_quickly(SECOND);
        let took = play.rig.world.now().since(begun).as_secs_f64();
        // A packet has some bytes besides its payload.
        let expected = (80.0 + 40.0 * took) * 1024.0 / 1010.0;
        let came = read(&mut play) as f64;
        assert!((came / expected - 1.0).abs() < 0.1, "{came} of {expected}");
    }
    play.pass_quickly(10 * SECOND);
    play.finish();
}

#[test]
fn what_all_may_publish_together_is_shared_by_those_who_do() {
    let limits = Limits { messages_per_second: 200, ..Limits::default() };
    let mut play = flood(1, 5, QoS::AtMostOnce, 40, limits);
    let begun = play.rig.world.now();
    for _ in 0..8 {
        play.pass_quickly(SECOND);
        let took = play.rig.world.now().since(begun).as_secs_f64();
        let (came, expected) = (read(&mut play) as f64, 400.0 + 200.0 * took);
        assert!((came / expected - 1.0).abs() < 0.1, "{came} of {expected}");
    }
    let mut each = [0i32; 5];
    for (id, ..) in &play.clients[5].inbox {
        if let From::Client(client) = play.model.messages[*id].from {
            each[client] += 1;
        }
    }
    // Apart from what came at once, before anybody waited.
    assert!(each.iter().all(|came| *came > 250), "{each:?}");
    play.pass_quickly(10 * SECOND);
    assert_eq!(read(&mut play), 3000);
    play.finish();
}

// [MQTT-3.1.2-22]
#[test]
fn mqtt_3_1_2_22_a_client_is_not_cut_while_it_is_not_read_from() {
    let limits = Limits { client_messages_per_second: 1, ..Limits::default() };
    let mut play = Play::new(7, limited(1, limits));
    play.pass(2 * SECOND);
    let peer = play.rig.connect();
    let mut bytes = Vec::new();
    let connect = Connect { keep_alive_s: 1, ..Connect::new(Version::V311, "raw") };
    Packet::Connect(connect).encode(Version::V311, &mut bytes).unwrap();
    for _ in 0..10 {
        bytes.extend_from_slice(b"\x30\x04\0\x01tx");
    }
    // It speaks once, and then there is nothing to hear of it but what it had said.
    peer.send(&bytes);
    play.pass_quickly(6 * SECOND);
    assert!(!peer.is_closed(), "it has more to say");
    assert!((7..=9).contains(&read(&mut play)));
    play.pass_quickly(3 * SECOND);
    assert_eq!(read(&mut play), 10);
    play.pass_quickly(5 * SECOND);
    assert!(peer.is_closed(), "it has been silent since it was read from again");
    play.finish();
}

#[test]
fn a_throttled_client_that_leaves_leaves_nothing_and_comes_back_as_it_was() {
    let limits =
        Limits { client_messages_per_second: 10, messages_per_second: 100, ..Limits::default() };
    let mut play = flood(2, 4, QoS::AtLeastOnce, 40, limits);
    play.pass(SECOND);
    let before = read(&mut play);
    assert!(before <= 4 * 31 + 8, "{before}");
    for client in 0..4 {
        play.part(client, Parting::Reset);
    }
    play.pass(SECOND / 10);
    assert_eq!(sum(&mut play, |core| core.throttled), 0);
    for client in 0..4 {
        play.connect(client);
        for _ in 0..50 {
            play.publish(client, "t/b", QoS::AtMostOnce, false, 20);
        }
    }
    play.pass(SECOND / 2);
    let after = read(&mut play);
    assert!(after - before <= 4 * 10, "a new connection brings nothing new: {}", after - before);
    play.pass_quickly(60 * SECOND);
    play.finish();
}
