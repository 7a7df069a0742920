//! How fast clients may come and publish: storms in virtual time.

use std::time::Duration;

use sextant_mqtt::{ReasonCode, Version};
use sextant_push::config::Limits;
use sextant_push::control::CoreStatus;
use sextant_ring::time::Time;
use sextant_service::config::Span;

use crate::client::{Parting, Profile};
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
