//! Clients sent to another server, in virtual time.

use std::time::Duration;

use sextant_mqtt::{QoS, ReasonCode, Version};
use sextant_push::control::Command;
use sextant_push::control::drain::Draining;

use crate::client::{Client, Parting, Profile};
use crate::play::Play;
use crate::rig::Setup;

const SECOND: Duration = Duration::from_secs(1);

fn drain(play: &mut Play, draining: Option<&Draining>) {
    play.rig.ask(|reply| Command::Drain { draining: draining.cloned(), reply });
}

/// Clients that are there, and those that were sent away, of all cores.
fn drained(play: &mut Play) -> (usize, usize) {
    let all = play.rig.ask(|reply| Command::Drained { reply });
    all.into_iter()
        .flatten()
        .fold((0, 0), |(left, away), core| (left + core.left, away + core.sent_away))
}

fn online(play: &Play) -> usize {
    play.clients.iter().filter(|client| client.is_online()).count()
}

fn crowd(cores: usize, clients: usize) -> Play {
    let mut play = Play::new(9, Setup { cores, ..Setup::default() });
    for n in 0..clients {
        let version = if n % 2 == 0 { Version::V5 } else { Version::V311 };
        play.add(Profile::persistent(&format!("client-{n}"), version));
    }
    play.settle();
    play
}

#[test]
fn clients_are_sent_away_evenly_and_those_who_come_at_once() {
    for moved in [false, true] {
        let mut play = crowd(2, 120);
        let draining = Draining { server: "other:1883".into(), moved, over: 10 * SECOND };
        drain(&mut play, Some(&draining));
        let begun = play.rig.world.now();
        for _ in 0..11 {
            play.pass_quickly(SECOND);
            let passed = play.rig.world.now().since(begun).as_secs_f64();
            let expected = (120.0 * (1.0 - passed / 10.0)).max(0.0);
            assert!((online(&play) as f64 - expected).abs() <= 5.0, "after {passed} s");
            let (left, away) = drained(&mut play);
            assert_eq!(left + away, 120);
        }
        assert_eq!((online(&play), drained(&mut play)), (0, (0, 120)));
        let reason = match moved {
            true => ReasonCode::ServerMoved,
            false => ReasonCode::UseAnotherServer,
        };
        let told = |client: &Client| match client.profile.version {
            Version::V5 => client.told == Some(reason),
            Version::V311 => client.told.is_none(),
        };
        assert!(play.clients.iter().all(told));
        for client in [0, 1] {
            play.connect(client);
        }
        play.pass_quickly(SECOND);
        assert_eq!(play.clients[0].told, Some(reason));
        assert_eq!(play.clients[1].told, Some(ReasonCode::ServerUnavailable));
        assert_eq!(online(&play), 0);
        drain(&mut play, None);
        play.settle();
        let kept = |client: &Client| client.session_present == Some(true);
        assert!(play.clients.iter().all(kept), "sessions stay");
        play.clients.iter_mut().for_each(|client| client.told = None);
        play.finish();
    }
}

#[test]
fn a_drain_of_no_time_takes_all_at_once_and_another_takes_its_place() {
    let mut play = crowd(3, 30);
    let slow = Draining { server: "a".into(), moved: false, over: 1000 * SECOND };
    drain(&mut play, Some(&slow));
    play.pass_quickly(SECOND);
    assert!(online(&play) >= 27);
    play.part(0, Parting::Reset);
    play.pass_quickly(SECOND);
    let fast = Draining { over: Duration::ZERO, ..slow };
    drain(&mut play, Some(&fast));
    play.pass_quickly(SECOND / 2);
    assert_eq!(online(&play), 0);
    // A restart ends it.
    play.crash();
    play.rig.start();
    play.settle();
    play.finish();
}

#[test]
fn what_waits_for_a_client_that_was_sent_away_is_there_when_it_comes_back() {
    let mut play = crowd(2, 2);
    play.ensure_subscribed(0, "t/#", QoS::AtLeastOnce);
    let at_once = Draining { server: "a".into(), moved: false, over: Duration::ZERO };
    drain(&mut play, Some(&at_once));
    play.pass_quickly(SECOND / 4);
    drain(&mut play, None);
    play.connect(1);
    play.pass_quickly(SECOND / 4);
    play.publish(1, "t/a", QoS::ExactlyOnce, false, 10);
    play.pass_quickly(SECOND);
    play.settle();
    assert_eq!(play.clients[0].inbox.len(), 1);
    play.finish();
}
