//! A message for so many sessions that its record does not name them all.

use std::time::Duration;

use sextant_mqtt::{QoS, Version};

use crate::client::{Parting, Profile};
use crate::play::Play;
use crate::rig::Setup;

const SUBSCRIBERS: usize = 600;

/// So many sessions on one core, of which each third is away.
fn crowd(seed: u64, setup: Setup) -> (Play, usize) {
    let mut play = Play::new(seed, setup);
    let publisher = play.add(Profile::persistent("publisher", Version::V5));
    for n in 0..SUBSCRIBERS {
        let version = [Version::V311, Version::V5][n % 2];
        let subscriber = play.add(Profile::persistent(&format!("subscriber-{n}"), version));
        let qos = [QoS::AtLeastOnce, QoS::ExactlyOnce][n % 5 / 4];
        play.ensure_subscribed(subscriber, "t/#", qos);
        if n % 3 == 0 {
            play.part(subscriber, Parting::Reset);
        }
    }
    play.connect(publisher);
    play.until("the publisher is there", Duration::from_secs(5), |play| {
        play.clients[publisher].is_settled()
    });
    (play, publisher)
}

#[test]
fn a_message_for_more_sessions_than_its_record_names_reaches_all_through_a_crash() {
    for (seed, millis) in [0, 1, 3, 30].into_iter().enumerate() {
        let (mut play, publisher) = crowd(seed as u64, Setup { cores: 1, ..Setup::default() });
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::ExactlyOnce] {
            play.publish(publisher, "t/1", qos, false, 100);
        }
        play.pass(Duration::from_millis(millis));
        play.crash();
        play.rig.start();
        play.settle();
    }
}

#[test]
fn whom_a_message_was_for_is_known_when_the_segment_that_names_them_is_gone() {
    let setup = Setup { cores: 1, log_bytes_max: 2 << 20, ..Setup::default() };
    let (mut play, publisher) = crowd(9, setup);
    let message = play.publish(publisher, "t/1", QoS::ExactlyOnce, false, 100);
    play.pass(Duration::from_millis(300));
    // Records that nobody needs, until all segments were written anew.
    for _ in 0..500 {
        play.publish(publisher, "r/1", QoS::AtLeastOnce, true, 7000);
        play.pass(Duration::from_millis(20));
    }
    play.crash();
    play.rig.start();
    play.settle();
    let got = (2..play.clients.len()).filter(|client| play.model.got(*client, message) == 1);
    assert_eq!(got.count(), SUBSCRIBERS - 1);
}
