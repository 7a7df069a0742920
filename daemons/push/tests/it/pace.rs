//! Clients that do not keep up, and those that ask for more than fits anywhere at once.

use std::collections::BTreeSet;
use std::time::Duration;

use sextant_mqtt::{QoS, Version};

use crate::client::{Parting, Profile};
use crate::play::Play;
use crate::rig::Setup;

const Q0: QoS = QoS::AtMostOnce;
const Q1: QoS = QoS::AtLeastOnce;
const Q2: QoS = QoS::ExactlyOnce;
const SOON: Duration = Duration::from_secs(10);

/// A subscriber to `t/#` at QoS 0 that reads nothing, and a publisher.
fn slow_reader(seed: u64, setup: Setup, version: Version) -> (Play, usize, usize) {
    let mut play = Play::new(seed, setup);
    let slow = play.add(Profile::persistent("slow", version));
    let publisher = play.add(Profile::persistent("publisher", Version::V5));
    play.ensure_subscribed(slow, "t/#", Q0);
    play.connect(publisher);
    play.settle();
    play.clients[slow].pause_reading();
    (play, slow, publisher)
}

fn received(play: &Play, client: usize) -> Vec<usize> {
    play.clients[client].inbox.iter().map(|(id, ..)| *id).collect()
}

/// Publishes many messages to one who does not read, a number of them at a time, then has them
/// read; gives all that were published and those that arrived.
fn fall_behind(play: &mut Play, slow: usize, publisher: usize, together: usize) -> [Vec<usize>; 2] {
    let mut sent = Vec::new();
    for n in 0..2000 / together {
        // Of one topic mostly: they are gathered.
        let topic = if n % 7 == 6 { "t/b" } else { "t/a" };
        sent.extend((0..together).map(|_| play.publish(publisher, topic, Q0, false, 400)));
        play.pass(Duration::from_millis(2));
    }
    play.clients[slow].resume_reading();
    let last = *sent.last().unwrap();
    play.until("the newest arrives", SOON, |play| play.model.got(slow, last) > 0);
    [sent, received(play, slow)]
}

#[test]
fn who_falls_behind_gets_the_newest_at_qos_0_and_all_in_their_order() {
    for (seed, together) in [1, 5, 40].into_iter().enumerate() {
        for (cores, version) in [(1, Version::V311), (2, Version::V5)] {
            let setup = Setup { cores, send_queue_messages_max: 50, ..Setup::default() };
            let (mut play, slow, publisher) = slow_reader(seed as u64, setup, version);
            let [sent, got] = fall_behind(&mut play, slow, publisher, together);
            assert!(got.is_sorted(), "{together} together came out of order");
            assert!(got.len() < sent.len(), "some were dropped: {} of {}", got.len(), sent.len());
            assert_eq!(got[got.len() - 50..], sent[sent.len() - 50..], "the newest are there");
            assert_eq!(play.clients[slow].told, None, "on the same connection");
            play.finish();
        }
    }
}

#[test]
fn what_waits_for_a_slow_reader_is_bounded_by_its_bytes_too() {
    let setup = Setup { send_queue_messages_max: 100_000, ..Setup::default() };
    let (mut play, slow, publisher) = slow_reader(3, setup, Version::V5);
    let [sent, got] = fall_behind(&mut play, slow, publisher, 5);
    let newest = (32 << 10) / (400 + 128 + 32);
    assert_eq!(got[got.len() - newest..], sent[sent.len() - newest..], "as many as have room");
    assert!(got.len() < 1500, "{} of 2000 arrived", got.len());
    play.finish();
}

#[test]
fn what_expires_while_it_waits_for_a_slow_reader_is_not_sent() {
    let (mut play, slow, publisher) = slow_reader(4, Setup::default(), Version::V5);
    let mut sent = Vec::new();
    for _ in 0..500 {
        let id = play.publish(publisher, "t/a", Q0, false, 400);
        play.model.messages[id].expires = true;
        sent.push(id);
        play.pass(Duration::from_millis(2));
    }
    play.pass_quickly(Duration::from_secs(2));
    let fresh = play.publish(publisher, "t/a", Q0, false, 400);
    play.pass(Duration::from_millis(5));
    play.clients[slow].resume_reading();
    play.until("what is new arrives", SOON, |play| play.model.got(slow, fresh) > 0);
    let got = received(&play, slow);
    assert_eq!(play.model.got(slow, sent[499]), 0, "its second was over");
    assert!(got.is_sorted() && got.len() < 450, "{got:?}");
    play.finish();
}

/// Publishes in turn to more topics than there are aliases, some together, at each QoS; gives how
/// many messages came by alias, to a subscriber that takes as many aliases and reads now and then.
fn published_again_and_again(seed: u64, cores: usize, alias_max: u16, reads_late: bool) -> u32 {
    let setup = Setup { cores, send_queue_messages_max: 20, ..Setup::default() };
    let mut play = Play::new(seed, setup);
    let publisher = play.add(Profile::persistent("publisher", Version::V5));
    let subscribers: Vec<usize> = (0..4)
        .map(|n| {
            let mut profile = Profile::persistent(&format!("subscriber {n}"), Version::V5);
            profile.alias_max = if n == 0 { 0 } else { alias_max };
            play.add(profile)
        })
        .collect();
    for subscriber in &subscribers {
        play.ensure_subscribed(*subscriber, "some/#", Q2);
    }
    play.connect(publisher);
    play.settle();
    for round in 0..300usize {
        // Most of the time the same few; now and then all of them move on.
        let topic = format!("some/topic/{}", round / 100 * 5 + play.rng.usize(0..5));
        let qos = [Q0, Q0, Q0, Q1, Q2][play.rng.usize(0..5)];
        for _ in 0..play.rng.usize(1..8) {
            play.publish(publisher, &topic, qos, false, 300);
        }
        let slow = subscribers[1 + round % 3];
        match round % 40 {
            5 if reads_late => play.clients[slow].pause_reading(),
            35 => subscribers.iter().for_each(|all| play.clients[*all].resume_reading()),
            20 if round % 80 == 20 => play.part(subscribers[2], Parting::Reset),
            _ => {}
        }
        play.pass(Duration::from_millis(1));
        if play.clients[subscribers[2]].is_offline() {
            play.connect(subscribers[2]);
        }
    }
    subscribers.iter().for_each(|all| play.clients[*all].resume_reading());
    play.settle();
    assert_eq!(play.clients[subscribers[0]].by_alias, 0, "it takes none");
    let came = subscribers[1..].iter().map(|n| play.clients[*n].by_alias).sum();
    play.finish();
    came
}

// [MQTT-3.1.2-26], [MQTT-3.1.2-27], [MQTT-3.3.2-11]
#[test]
fn mqtt_3_3_2_11_aliases_stand_for_the_right_topics_whoever_takes_how_many_and_reads_when() {
    for seed in 0..8 {
        for (alias_max, reads_late) in [(1, false), (2, true), (3, false), (9, true)] {
            let came =
                published_again_and_again(seed, 1 + seed as usize % 2, alias_max, reads_late);
            assert!(came > 100, "{came} came by alias, of those who take {alias_max}");
        }
    }
}

/// Keeps far more than may wait for a client at once, and has it all asked for.
fn ask_for_all(cores: usize, qos: QoS, kept: QoS, interlude: impl FnOnce(&mut Play, usize)) {
    let setup = Setup { cores, send_queue_bytes_max: 8 << 10, ..Setup::default() };
    let mut play = Play::new(cores as u64, Setup { queue_messages_max: 100, ..setup });
    let publisher = play.add(Profile::persistent("publisher", Version::V5));
    play.connect(publisher);
    let all: Vec<usize> =
        (0..1000).map(|n| play.publish(publisher, &format!("r/{n}"), kept, true, 300)).collect();
    play.settle();
    let late = play.add(Profile::persistent("late", Version::V5));
    play.connect(late);
    play.settle();
    play.clients[late].pause_reading();
    assert!(play.subscribe(late, "#", qos));
    play.pass(Duration::from_millis(100));
    interlude(&mut play, late);
    play.clients[late].resume_reading();
    let ended = play.clients[late].is_offline();
    if ended {
        play.ensure_subscribed(late, "#", qos);
    }
    play.until("all that is retained arrives", SOON, |play| {
        received(play, late).into_iter().collect::<BTreeSet<_>>().len() == all.len()
    });
    let got = received(&play, late);
    assert!(ended || got.len() == all.len(), "{} of {} messages", got.len(), all.len());
    play.finish();
}

#[test]
fn a_subscriber_to_everything_gets_all_that_is_retained_at_its_own_pace() {
    for cores in [1, 3] {
        for (qos, kept) in [(Q0, Q1), (Q1, Q1), (Q2, Q2), (Q2, Q0)] {
            ask_for_all(cores, qos, kept, |_, _| {});
        }
    }
}

#[test]
fn who_goes_while_it_is_given_what_is_retained_leaves_nothing_behind() {
    for cores in [1, 3] {
        for (qos, kept) in [(Q0, Q1), (Q1, Q1)] {
            for how in [Parting::Reset, Parting::Disconnect] {
                ask_for_all(cores, qos, kept, |play, late| {
                    play.part(late, how);
                    play.pass(Duration::from_millis(100));
                    let left = play.rig.unfinished();
                    let searches = left.iter().any(|what| what.contains("searches"));
                    assert!(!searches, "{left:?}");
                });
            }
        }
    }
}
