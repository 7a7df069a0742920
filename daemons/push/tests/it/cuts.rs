//! Whole exchanges of QoS 2, cut behind every single byte of either direction: the connection ends
//! in order or by a reset, or the power fails. Both sides go on as the standard says; in every case
//! the message has come exactly once, and nothing is left.

use std::time::Duration;

use sextant_mqtt::{QoS, Version};

use crate::client::{Client, Fuse, Parting, Profile, Way};
use crate::play::Play;
use crate::rig::Setup;

const SOON: Duration = Duration::from_secs(10);

/// Whose connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Publisher,
    /// Who finds the message in its queue when it connects.
    Subscriber,
}

/// What happens at that byte.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Connection(Parting),
    /// The machine, and all connections with it.
    Crash,
}

const FAULTS: [Fault; 3] =
    [Fault::Connection(Parting::Close), Fault::Connection(Parting::Reset), Fault::Crash];

/// Plays an exchange that is cut behind so many bytes; whether there were as many.
fn cut(cores: usize, version: Version, whose: Whose, way: Way, fault: Fault, bytes: usize) -> bool {
    let mut play = Play::new(bytes as u64, Setup { cores, ..Setup::default() });
    let publisher = play.add(Profile::persistent("publisher", version));
    let subscriber = play.add(Profile::persistent("subscriber", version));
    play.ensure_subscribed(subscriber, "t/#", QoS::ExactlyOnce);
    play.settle();
    let victim = match whose {
        Whose::Publisher => publisher,
        Whose::Subscriber => subscriber,
    };
    play.part(victim, Parting::Close);
    play.pass(Duration::from_millis(5));
    let message = play.publish(publisher, "t/a", QoS::ExactlyOnce, false, 12);
    if whose == Whose::Subscriber {
        play.until("it is published", SOON, |play| play.clients[publisher].is_settled());
    }
    let how = match fault {
        Fault::Connection(how) => how,
        Fault::Crash => Parting::Reset,
    };
    play.clients[victim].fuse = Some(Fuse { way, left: bytes, how, blown: false });
    play.connect(victim);
    let blown = |client: &Client| client.fuse.is_some_and(|fuse| fuse.blown);
    play.until("the exchange is over, or cut", SOON, |play| {
        let got = play.model.got(subscriber, message) > 0;
        blown(&play.clients[victim]) || got && play.clients.iter().all(Client::is_settled)
    });
    let was_cut = blown(&play.clients[victim]);
    if was_cut && matches!(fault, Fault::Crash) {
        play.crash();
    }
    play.clients[victim].fuse = None;
    if !play.rig.is_running() {
        play.rig.start();
    }
    play.settle();
    let got = play.model.got(subscriber, message);
    assert_eq!(got, 1, "{version:?} on {cores} cores: {whose:?}, {way:?} {bytes}, {fault:?}");
    play.finish();
    was_cut
}

/// Cuts behind every byte, until there is none left to cut behind.
fn cut_everywhere(cores: usize, version: Version) {
    for whose in [Whose::Publisher, Whose::Subscriber] {
        for way in [Way::Sent, Way::Received] {
            for fault in FAULTS {
                let all = (1..).take_while(|bytes| cut(cores, version, whose, way, fault, *bytes));
                let count = all.count();
                assert!(count > 10, "{whose:?}, {way:?}: an exchange has more than {count} bytes");
            }
        }
    }
}

// [MQTT-4.3.3-8], [MQTT-4.3.3-12], [3.1.1: MQTT-4.4.0-1]
#[test]
fn exactly_once_through_a_cut_behind_any_byte_in_mqtt_3() {
    cut_everywhere(1, Version::V311);
}

#[test]
fn exactly_once_through_a_cut_behind_any_byte_in_mqtt_3_across_cores() {
    cut_everywhere(2, Version::V311);
}

// [MQTT-4.3.3-8], [MQTT-4.3.3-12], [MQTT-4.4.0-1]
#[test]
fn exactly_once_through_a_cut_behind_any_byte_in_mqtt_5() {
    cut_everywhere(1, Version::V5);
}

#[test]
fn exactly_once_through_a_cut_behind_any_byte_in_mqtt_5_across_cores() {
    cut_everywhere(2, Version::V5);
}
