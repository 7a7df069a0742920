//! Plays with one turn of events each.

use std::time::Duration;

use sextant_mqtt::{QoS, ReasonCode, Version};
use sextant_push::control::Command;
use sextant_push::control::clients::{Like, Listing};
use sextant_push::home::home;
use sextant_segment::Durability;

use crate::client::{Parting, Profile, WillOf};
use crate::model::{From, MsgId};
use crate::play::Play;
use crate::rig::Setup;

const Q1: QoS = QoS::AtLeastOnce;
const Q2: QoS = QoS::ExactlyOnce;
const DAY: Duration = Duration::from_secs(86_400);
const SOON: Duration = Duration::from_secs(10);

/// A name that is at home on a core.
fn name_at(core: usize, cores: usize, what: &str) -> String {
    (0..).map(|n| format!("{what}-{n}")).find(|name| home(name, cores) == core).unwrap()
}

fn cores(cores: usize) -> Setup {
    Setup { cores, ..Setup::default() }
}

/// A publisher on core 0 and a subscriber on the last core, both with sessions that are kept, the
/// latter subscribed to `t/#` at QoS 2.
fn pair(seed: u64, setup: Setup) -> (Play, usize, usize) {
    let count = setup.cores;
    let mut play = Play::new(seed, setup);
    let publisher = Profile::persistent(&name_at(0, count, "publisher"), Version::V5);
    let subscriber = Profile::persistent(&name_at(count - 1, count, "subscriber"), Version::V311);
    let (publisher, subscriber) = (play.add(publisher), play.add(subscriber));
    play.ensure_subscribed(subscriber, "t/#", Q2);
    play.connect(publisher);
    play.settle();
    (play, publisher, subscriber)
}

/// Crashes at one moment after another of what `start` sets off, until it is over before the
/// crash; each time everything has to come out right.
fn crash_at_every_moment(count: usize, step: Duration, start: impl Fn(&mut Play, usize, usize)) {
    for moment in 0.. {
        let (mut play, publisher, subscriber) = pair(u64::from(moment), cores(count));
        start(&mut play, publisher, subscriber);
        play.pass(step * moment);
        let over = play.clients.iter().all(crate::client::Client::is_settled)
            && play.model.owed().is_none();
        play.crash();
        play.finish();
        if over {
            assert!(moment > 3, "it took some time");
            return;
        }
    }
}

// [MQTT-4.3.3-10], [MQTT-4.3.3-11]
#[test]
fn a_crash_at_any_moment_of_qos_2_neither_loses_nor_doubles_a_message() {
    for count in 1..=3 {
        crash_at_every_moment(count, Duration::from_micros(250), |play, publisher, _| {
            for _ in 0..3 {
                play.publish(publisher, "t/a", Q2, false, 100);
            }
        });
    }
}

#[test]
fn a_crash_after_a_crash_at_any_moment_of_qos_2_changes_nothing() {
    for moment in 0..60 {
        let (mut play, publisher, _) = pair(moment, cores(2));
        for _ in 0..3 {
            play.publish(publisher, "t/a", Q2, false, 100);
        }
        play.pass(Duration::from_micros(3000 + 700 * (moment % 8)));
        play.crash();
        play.rig.start();
        for client in 0..2 {
            play.connect(client);
        }
        play.pass(Duration::from_micros(200 * moment));
        play.crash();
        play.finish();
    }
}

/// The subscriber's core has much to write first, and the publisher's nothing.
#[test]
fn a_qos_2_message_that_comes_again_is_answered_no_sooner_than_it_is_where_it_has_to_be() {
    let last_commit_bytes_max = Some(4 << 10);
    let (mut play, publisher, subscriber) =
        pair(1, Setup { last_commit_bytes_max, inflight_max: 100, ..cores(2) });
    play.pass(Duration::from_secs(1));
    let disk = Duration::from_millis(100);
    play.rig.world.plan(|plan| plan.disk_delay = disk..=disk);
    for _ in 0..16 {
        play.publish(subscriber, "t/b", Q1, false, 2000);
    }
    let before = play.rig.world.now();
    let message = play.publish(publisher, "t/a", Q2, false, 100);
    for _ in 0..3 {
        play.pass(disk / 5);
        play.part(publisher, Parting::Reset);
        play.connect(publisher);
    }
    play.until("it is acknowledged", SOON, |play| {
        play.model.messages[message].acknowledged.is_some()
    });
    let took = play.rig.world.now().since(before);
    assert!(took >= 5 * disk, "{took:?}");
    play.finish();
}

/// A log that acknowledges before it syncs gives a number twice if the power fails in between. What
/// another core durably took in under that number must not stand for what has it now.
#[test]
fn what_a_core_relays_after_it_forgot_what_it_relayed_before_is_taken_in() {
    let mut forgot = 0;
    for durability in [Durability::Every(Duration::from_secs(2)), Durability::Os] {
        for seed in 0..10 {
            let first_durability = Some(durability);
            let (mut play, publisher, subscriber) =
                pair(seed, Setup { first_durability, ..cores(2) });
            // Such a log may forget, too, that an identifier was released.
            play.clients.iter_mut().for_each(|client| client.reuses_ids = false);
            // The sessions are there to stay.
            play.stop();
            play.rig.start();
            play.connect(publisher);
            play.connect(subscriber);
            play.settle();
            let mut published = 0;
            for life in 0..3 {
                for _ in 0..5 + 2 * life {
                    play.publish(publisher, "t/a", Q2, false, 100);
                }
                play.until("all is received", Duration::from_millis(500), |play| {
                    play.clients.iter().all(crate::client::Client::is_settled)
                        && play.model.owed().is_none()
                });
                published += 5 + 2 * life;
                play.crash();
                forgot += u32::from(play.rig.messages_on_disk(0) < published);
                play.rig.start();
                play.connect(publisher);
                play.connect(subscriber);
                play.settle();
            }
            play.finish();
        }
    }
    assert!(forgot > 10, "{forgot}");
}

/// That a retained message went is a small change, and records of what the same core relayed behind
/// it say that all before was taken in. With one of them on the disk, and not that change, nobody
/// would clear the topic any more.
#[test]
fn what_clears_a_retained_message_is_on_disk_before_what_was_relayed_behind_it() {
    let mut torn = 0;
    for seed in 0..400 {
        // What its core takes in within one turn is more than it writes at once.
        let setup = Setup { last_commit_bytes_max: Some(4096), ..cores(2) };
        let (mut play, publisher, _) = pair(seed, setup);
        let topic = name_at(1, 2, "r/x");
        play.publish(publisher, &topic, Q2, true, 100);
        play.settle();
        // While the first one is committed the others gather, and are relayed together.
        play.publish(publisher, "t/a", Q2, false, 100);
        play.publish(publisher, &topic, Q2, true, 0);
        for _ in 0..14 {
            play.publish(publisher, "t/a", Q2, false, 800);
        }
        play.pass(Duration::from_micros(3000 + 100 * (seed % 80)));
        play.crash();
        // The retained one and the first one are there, and not all that came behind them.
        torn += u32::from((3..16).contains(&play.rig.messages_on_disk(1)));
        play.finish();
    }
    assert!(torn > 100, "{torn}");
}

#[test]
fn a_crash_while_connections_move_home_leaves_their_sessions_whole() {
    for moment in 0..40 {
        let (mut play, publisher, subscriber) = pair(moment, cores(3));
        for client in [publisher, subscriber] {
            play.part(client, Parting::Reset);
            play.publish(publisher, "t/a", Q2, false, 100);
            play.connect(client);
        }
        play.pass(Duration::from_micros(50 * moment));
        play.crash();
        play.finish();
    }
}

#[test]
fn what_waits_for_a_device_waits_across_restarts() {
    for count in 1..=3 {
        let mut play = Play::new(7, cores(count));
        let device = play.add(Profile::persistent("device-1", Version::V5));
        // The cores know one another.
        play.pass(Duration::from_millis(5));
        play.push(Ok(device), Q1, DAY, 50);
        play.push(Ok(device), Q2, DAY, 50);
        let short = play.push(Ok(device), Q1, Duration::from_secs(2), 50);
        play.until("the pushes are accepted", SOON, |play| {
            play.pushes.iter().all(|push| matches!(push.answer, Some(Ok(1))))
        });
        play.crash();
        play.rig.start();
        play.pass_quickly(Duration::from_secs(3));
        play.stop();
        play.rig.start();
        play.ensure_subscribed(device, "d/device-1/#", Q2);
        play.settle();
        let message = play.pushes[short].message;
        assert_eq!(play.model.got(device, message), 0, "its time was over");
        assert_eq!(play.clients[device].inbox.len(), 2);
        play.finish();
    }
}

#[test]
fn a_device_gets_what_was_pushed_while_it_was_away_and_the_broker_down() {
    let mut play = Play::new(8, cores(2));
    let device = play.add(Profile::persistent("device-1", Version::V311));
    play.ensure_subscribed(device, "d/+/push", Q1);
    play.part(device, Parting::Reset);
    for _ in 0..10 {
        play.push(Ok(device), Q1, DAY, 500);
    }
    play.until("the pushes are accepted", SOON, |play| {
        play.pushes.iter().all(|push| matches!(push.answer, Some(Ok(1))))
    });
    play.crash();
    play.rig.start();
    play.connect(device);
    play.settle();
    let got: Vec<usize> = play.clients[device].inbox.iter().map(|(id, ..)| *id).collect();
    let sent: Vec<usize> = play.pushes.iter().map(|push| push.message).collect();
    assert_eq!(got, sent, "all of them, in their order");
    play.finish();
}

/// When a watcher gets the will of a client that is lost, in milliseconds; `None` if it does not
/// within ten seconds.
fn will_after(expiry_s: u32, delay_s: u32, back_after: Option<Duration>) -> Option<u64> {
    let mut play = Play::new(9, cores(2));
    let watcher = play.add(Profile::clean("watcher", Version::V5));
    play.ensure_subscribed(watcher, "w/#", Q1);
    let mut profile = Profile::persistent("mortal", Version::V5);
    profile.expiry_s = expiry_s;
    let will = play.model.new_message(From::Will(1), "w/mortal", Q1, false, 20);
    profile.will = Some(WillOf { message: will, delay_s });
    let mortal = play.add(profile);
    play.connect(mortal);
    play.settle();
    let lost = play.now_ms();
    play.part(mortal, Parting::Reset);
    if let Some(after) = back_after {
        play.pass_quickly(after);
        play.clients[mortal].profile.will = None;
        play.connect(mortal);
    }
    for _ in 0..1000 {
        if play.model.got(watcher, will) > 0 {
            return Some(play.now_ms() - lost);
        }
        play.pass(Duration::from_millis(10));
    }
    None
}

// [MQTT-3.1.2-8], [MQTT-3.1.3-9]
#[test]
fn a_will_waits_for_its_delay_or_the_end_of_its_session_and_not_if_its_client_is_back() {
    let near = |found: Option<u64>, expected: u64| {
        let found = found.expect("the will is published");
        assert!((expected..expected + 100).contains(&found), "{found} ms, not {expected}");
    };
    near(will_after(5, 0, None), 0);
    near(will_after(5, 2, None), 2000);
    near(will_after(1, 2, None), 1000);
    assert_eq!(will_after(5, 2, Some(Duration::from_millis(1500))), None);
}

#[test]
fn a_will_does_not_wait_for_a_wall_clock_that_was_set_back() {
    let mut play = Play::new(9, cores(1));
    let watcher = play.add(Profile::clean("watcher", Version::V5));
    play.ensure_subscribed(watcher, "w/#", Q1);
    let mut profile = Profile::persistent("mortal", Version::V5);
    let will = play.model.new_message(From::Will(1), "w/mortal", Q1, false, 20);
    profile.will = Some(WillOf { message: will, delay_s: 2 });
    let mortal = play.add(profile);
    play.connect(mortal);
    play.settle();
    play.part(mortal, Parting::Reset);
    play.pass(Duration::from_millis(100));
    play.leap(-3_600_000);
    play.pass_quickly(Duration::from_millis(1700));
    assert_eq!(play.model.got(watcher, will), 0, "it waits for its delay");
    play.pass_quickly(Duration::from_millis(400));
    assert_eq!(play.model.got(watcher, will), 1);
}

#[test]
fn what_waits_expires_by_a_wall_clock_that_was_set_right_after_a_start() {
    let mut play = Play::new(9, cores(1));
    let device = play.add(Profile::persistent("device-1", Version::V5));
    let push = play.push(Ok(device), Q1, Duration::from_secs(60), 50);
    play.until("it is accepted", SOON, |play| play.pushes[push].answer == Some(Ok(1)));
    play.crash();
    play.leap(-3_600_000);
    play.rig.start();
    play.pass_quickly(Duration::from_secs(10));
    assert_eq!(play.rig.status()[0].held, 1);
    play.leap(51_000);
    play.pass_quickly(Duration::from_secs(2));
    assert_eq!(play.rig.status()[0].held, 0, "its minute is over");
}

/// Two sessions of one core, of which the second subscribes to what the first is just subscribing
/// to: it is told so when the publisher's core knows, though it is not the one that is waited for.
#[test]
fn a_second_subscriber_is_told_no_sooner_than_others_know_of_the_first() {
    for seed in 0..20 {
        let setup = Setup { durability: Durability::Os, mesh_capacity: 2, ..cores(2) };
        let mut play = Play::new(seed, setup);
        let [publisher, first, second] =
            [(1, "publisher"), (0, "first"), (0, "second")].map(|(core, what)| {
                play.add(Profile::persistent(&name_at(core, 2, what), Version::V5))
            });
        (0..3).for_each(|client| play.connect(client));
        play.settle();
        // So much is on its way to the publisher's core that it hears of the filter late.
        for n in 0..100 {
            let filter = format!("many/{n}");
            assert!(play.subscribe(first, &filter, Q1));
        }
        assert!(play.subscribe(first, "t/a", Q1) && play.subscribe(second, "t/a", Q1));
        play.until("the second is told", SOON, |play| play.model.is_granted(second, "t/a"));
        let message = play.publish(publisher, "t/a", Q1, false, 50);
        play.until("it arrives", SOON, |play| play.model.messages[message].acknowledged.is_some());
        play.settle();
        assert_eq!(play.model.got(second, message), 1, "seed {seed}");
    }
}

// [MQTT-3.1.2-23], [MQTT-4.1.0-2]
#[test]
fn a_session_lives_as_long_as_was_asked_for_across_a_crash_too() {
    for (away, present) in [(1000, true), (4500, true), (5500, false)] {
        let mut play = Play::new(10, cores(1));
        let mut profile = Profile::persistent("guest", Version::V5);
        profile.expiry_s = 5;
        let guest = play.add(profile);
        play.ensure_subscribed(guest, "t/a", Q1);
        play.part(guest, Parting::Reset);
        play.pass(Duration::from_millis(50));
        play.crash();
        play.rig.start();
        play.pass_quickly(Duration::from_millis(away - 50));
        play.connect(guest);
        play.settle();
        assert_eq!(play.clients[guest].session_present, Some(present), "after {away} ms");
        play.finish();
    }
}

// [MQTT-3.1.4-3]
#[test]
fn a_second_connection_takes_the_session_over_and_the_first_is_told() {
    let mut play = Play::new(11, cores(3));
    let first = play.add(Profile::persistent("twin", Version::V5));
    let second = play.add(Profile::persistent("twin", Version::V5));
    let other = play.add(Profile::persistent("other", Version::V5));
    play.ensure_subscribed(first, "t/#", Q1);
    play.model.subscribing(second, "t/#", Q1, false);
    for round in 0..10 {
        let (from, to) = if round % 2 == 0 { (first, second) } else { (second, first) };
        play.connect(to);
        play.until("the first is told", SOON, |play| play.clients[from].told.is_some());
        assert_eq!(play.clients[from].told, Some(ReasonCode::SessionTakenOver));
        play.until("the second is there", SOON, |play| play.clients[to].is_online());
        assert_eq!(play.clients[to].session_present, Some(true));
    }
    // The last of them has what both have subscribed to.
    play.connect(other);
    let message = play.publish(other, "t/a", Q1, false, 10);
    play.until("it arrives", SOON, |play| play.model.got(first, message) == 1);
    assert_eq!(play.model.got(second, message), 0);
}

#[test]
fn a_full_log_refuses_with_the_reason_and_loses_nothing() {
    let setup = Setup { log_bytes_max: 512 << 10, ..cores(1) };
    let (mut play, publisher, subscriber) = pair(12, setup);
    let blunt = play.add(Profile::persistent("blunt", Version::V311));
    play.connect(blunt);
    play.part(subscriber, Parting::Reset);
    play.until("the log is full", Duration::from_secs(60), |play| {
        if play.clients[publisher].outbox_len() < 10 {
            play.publish(publisher, "t/a", Q1, false, 3000);
            play.publish(publisher, "t/b", Q2, false, 3000);
        }
        play.clients[publisher].refusals.len() > 10
    });
    let refusals = &play.clients[publisher].refusals;
    assert!(refusals.iter().all(|(_, reason)| *reason == ReasonCode::QuotaExceeded));
    // Without words for a refusal, a client of 3.1.1 is cut off, and its message kept by itself.
    let kept = play.publish(blunt, "t/c", Q2, false, 3000);
    play.until("a client of 3.1.1 is cut off", SOON, |play| play.clients[blunt].is_offline());
    assert_eq!(play.model.messages[kept].acknowledged, None);
    play.crash();
    play.rig.start();
    play.settle();
    assert!(play.model.messages[kept].acknowledged.is_some(), "there is room again");
    play.finish();
}

#[test]
fn a_full_disk_refuses_with_the_reason_and_loses_nothing() {
    let (mut play, publisher, subscriber) = pair(13, cores(2));
    play.part(subscriber, Parting::Reset);
    play.rig.world.disk_limit(700 << 10);
    let mut published = 0;
    play.until("the disk is full", Duration::from_secs(60), |play| {
        if play.clients[publisher].outbox_len() < 10 {
            play.publish(publisher, "t/a", Q1, false, 3000);
            published += 1;
        }
        play.clients[publisher].refusals.len() > 10
    });
    let refusals = &play.clients[publisher].refusals;
    assert!(refusals.iter().all(|(_, reason)| *reason == ReasonCode::QuotaExceeded));
    assert!(published > 50, "most was taken");
    // What is published at QoS 2 waits for room rather than being delivered here and not there.
    let waiting = play.publish(publisher, "t/b", Q2, false, 3000);
    play.pass_quickly(Duration::from_secs(2));
    play.rig.world.disk_limit(u64::MAX);
    play.pass_quickly(Duration::from_secs(40));
    assert!(play.model.messages[waiting].acknowledged.is_some());
    let after = play.publish(publisher, "t/a", Q1, false, 3000);
    play.settle();
    assert!(play.model.messages[after].acknowledged.is_some(), "there is room again");
    play.finish();
}

#[test]
fn a_slow_reader_gets_large_messages_of_qos_2_on_one_connection() {
    for persistent in [true, false] {
        let setup = Setup { send_queue_bytes_max: 8 << 10, inflight_max: 32, ..cores(2) };
        let (mut play, publisher, subscriber) = pair(14, setup);
        play.clients[subscriber].profile.persistent = persistent;
        play.clients[subscriber].pause_reading();
        for _ in 0..80 {
            play.publish(publisher, "t/a", Q2, false, 7000);
        }
        play.pass_quickly(Duration::from_secs(1));
        play.clients[subscriber].resume_reading();
        play.until("everything arrives", SOON, |play| play.clients[subscriber].inbox.len() == 80);
        assert_eq!(play.clients[subscriber].told, None, "on the same connection");
        play.clients[subscriber].profile.persistent = true;
        play.finish();
    }
}

#[test]
fn a_subscription_that_was_granted_brings_what_is_retained_whatever_happens() {
    for seed in 0..10 {
        let (mut play, publisher, _) = pair(seed, cores(3));
        for topic in ["r/a", "r/b", "r/c", "r/d"] {
            play.publish(publisher, topic, Q1, true, 100);
        }
        play.settle();
        let late = play.add(Profile::persistent("late", Version::V5));
        play.ensure_subscribed(late, "r/#", Q2);
        play.crash();
        play.rig.start();
        play.settle();
        play.pass(Duration::from_millis(100));
        let mut got: Vec<usize> = play.clients[late].inbox.iter().map(|(id, ..)| *id).collect();
        got.sort_unstable();
        assert_eq!(got, [0, 1, 2, 3]);
        play.finish();
    }
}

#[test]
fn a_retained_message_that_follows_its_removal_is_there_after_a_crash() {
    for seed in 0..20 {
        let (mut play, publisher, _) = pair(seed, cores(2));
        for len in [50, 0, 60, 0, 70] {
            play.publish(publisher, "r/a", Q1, true, len);
        }
        play.settle();
        play.crash();
        play.finish();
    }
}

// [MQTT-3.1.2-4]
#[test]
fn a_client_that_was_told_that_it_begins_anew_has_begun_anew() {
    for seed in 0..30 {
        let (mut play, publisher, subscriber) = pair(seed, cores(2));
        play.part(subscriber, Parting::Reset);
        play.publish(publisher, "t/a", Q2, false, 10);
        play.settle();
        play.part(subscriber, Parting::Reset);
        play.publish(publisher, "t/a", Q1, false, 10);
        play.pass(Duration::from_millis(20));
        play.clients[subscriber].want_clean();
        play.connect(subscriber);
        play.until("it is told", SOON, |play| play.clients[subscriber].session_present.is_some());
        let before = play.clients[subscriber].inbox.len();
        play.crash();
        play.rig.start();
        play.publish(publisher, "t/a", Q1, false, 10);
        play.settle();
        assert_eq!(play.clients[subscriber].inbox.len(), before, "it subscribed to nothing since");
        play.finish();
    }
}

/// Live and retained, one message may be on its way to a session twice, at different QoS.
#[test]
fn two_copies_of_one_message_at_different_qos_are_told_apart_after_a_crash() {
    for moment in 0..60 {
        let (mut play, publisher, subscriber) = pair(moment, cores(1));
        play.subscribe(subscriber, "r/#", Q1);
        play.settle();
        play.clients[subscriber].pause_reading();
        play.publish(publisher, "r/a", Q2, true, 100);
        play.pass(Duration::from_millis(10));
        play.subscribe(subscriber, "r/#", Q2);
        play.pass(Duration::from_millis(10));
        play.clients[subscriber].resume_reading();
        play.pass(Duration::from_micros(50 * moment));
        play.crash();
        play.finish();
    }
}

/// Messages that a subscriber was sent while it was away.
fn away(qos: QoS, messages: usize) -> (Play, usize, usize) {
    let (mut play, publisher, subscriber) = pair(11, cores(1));
    play.part(subscriber, Parting::Disconnect);
    play.pass(Duration::from_millis(5));
    for _ in 0..messages {
        play.publish(publisher, "t/a", qos, false, 300);
    }
    play.until("they are kept", SOON, |play| play.clients[publisher].is_settled());
    (play, publisher, subscriber)
}

#[test]
fn a_message_that_cannot_be_read_back_is_dropped_and_the_others_arrive_in_order() {
    for (qos, spared) in [(Q1, 0), (Q1, 3), (Q1, 5), (Q2, 0), (Q2, 3), (Q2, 5)] {
        let (mut play, _, subscriber) = away(qos, 6);
        play.rig.world.fail_disk(Some(sextant_ring::sim::Access::Read), spared, 5);
        play.connect(subscriber);
        play.until("the others arrive", SOON, |play| play.clients[subscriber].inbox.len() == 5);
        play.pass(Duration::from_millis(200));
        let inbox: Vec<_> = play.clients[subscriber].inbox.iter().map(|(id, ..)| *id).collect();
        assert_eq!(inbox.len(), 5, "{qos:?} {spared}");
        assert!(inbox.is_sorted(), "{qos:?} {spared}: {inbox:?}");
        assert!(play.clients[subscriber].is_online());
        let status = play.rig.status();
        assert!(!status[0].log_read_only && status[0].held == 0, "{status:?}");
    }
}

#[test]
fn a_session_waits_for_a_slow_disk_and_the_others_do_not() {
    let (mut play, publisher, subscriber) = away(Q1, 40);
    // The next segment is ready: nothing but reading needs the disk.
    play.pass(Duration::from_millis(200));
    let live = play.add(Profile::clean("live", Version::V5));
    play.ensure_subscribed(live, "t/#", QoS::AtMostOnce);
    let second = Duration::from_secs(1);
    play.rig.world.plan(|plan| plan.disk_delay = second..=second);
    play.connect(subscriber);
    play.pass(Duration::from_millis(20));
    let before = play.rig.world.now();
    for _ in 0..10 {
        play.publish(publisher, "t/a", QoS::AtMostOnce, false, 50);
    }
    play.until("what is live arrives", SOON, |play| play.clients[live].inbox.len() == 10);
    let took = play.rig.world.now().since(before);
    assert!(took < Duration::from_millis(100), "{took:?}");
    assert_eq!(play.clients[subscriber].inbox.iter().filter(|(_, qos, _)| *qos == Q1).count(), 0);
    play.rig.world.plan(|plan| plan.disk_delay = Duration::ZERO..=Duration::from_millis(1));
    play.settle();
    play.finish();
}

/// Members of a group `g` on all cores, subscribed to `t/#` at QoS 2, and two of a group `h`; the
/// publisher's core is the first.
fn groups(seed: u64, count: usize) -> (Play, usize, Vec<usize>) {
    let mut play = Play::new(seed, cores(count));
    let publisher = play.add(Profile::persistent(&name_at(0, count, "publisher"), Version::V5));
    let mut members = Vec::new();
    for n in 0..6 {
        let version = [Version::V311, Version::V5][n % 2];
        let name = name_at(n % count, count, &format!("member-{n}"));
        members.push(play.add(Profile::persistent(&name, version)));
        play.ensure_subscribed(members[n], "$share/g/t/#", Q2);
    }
    for member in &members[..2] {
        play.ensure_subscribed(*member, "$share/h/t/+", Q2);
    }
    play.connect(publisher);
    play.settle();
    (play, publisher, members)
}

#[test]
fn members_of_a_group_have_their_turns() {
    for count in 1..=3 {
        let (mut play, publisher, members) = groups(count as u64, count);
        for member in &members[..2] {
            assert!(play.clients[*member].unsubscribe("$share/h/t/+", &mut play.model));
        }
        play.settle();
        for qos in [QoS::AtMostOnce, Q1, Q2].into_iter().cycle().take(60) {
            play.publish(publisher, "t/a", qos, false, 20);
        }
        play.until("everything arrives", SOON, |play| {
            members.iter().map(|member| play.clients[*member].inbox.len()).sum::<usize>() == 60
        });
        for member in &members {
            assert_eq!(play.clients[*member].inbox.len(), 10, "of {count} cores");
        }
        play.finish();
    }
}

/// Connections end and the daemon crashes while a group is published to: each message has to reach
/// the group, and at QoS 2 one member once.
fn share_through_anything(seed: u64, count: usize) {
    let (mut play, publisher, members) = groups(seed, count);
    let mut sent = Vec::new();
    for _ in 0..40 {
        if play.rig.is_running() {
            for _ in 0..play.rng.usize(0..6) {
                let qos = [QoS::AtMostOnce, Q1, Q2, Q2][play.rng.usize(..4)];
                sent.push(play.publish(publisher, "t/a", qos, false, 30));
            }
        } else {
            play.rig.start();
        }
        let client = play.rng.usize(..play.clients.len());
        match play.rng.u8(..8) {
            0 | 1 => play.part(client, Parting::Reset),
            2..=5 if play.clients[client].is_offline() => play.connect(client),
            6 if play.rng.bool() => play.crash(),
            _ => {}
        }
        let time = Duration::from_micros(play.rng.u64(0..4000));
        play.pass(time);
    }
    if !play.rig.is_running() {
        play.rig.start();
    }
    play.settle();
    let got = |play: &Play, id: MsgId, members: &[usize]| -> u32 {
        members.iter().map(|member| play.model.got(*member, id)).sum()
    };
    play.until("both groups have everything", Duration::from_secs(30), |play| {
        let kept = sent.iter().filter(|id| play.model.messages[**id].qos > QoS::AtMostOnce);
        kept.clone().all(|id| got(play, *id, &members) >= 1)
    });
    play.pass(Duration::from_millis(100));
    for id in sent {
        let (qos, all) = (play.model.messages[id].qos, got(&play, id, &members));
        // A message to both groups may reach one session for both, which then has it once.
        let fits = match qos {
            Q2 => (1..=2).contains(&all),
            Q1 => all >= 1,
            QoS::AtMostOnce => all <= 2,
        };
        let message = &play.model.messages[id];
        assert!(fits, "seed {seed}: message {id} came {all} times: {message:?}");
        let others = got(&play, id, &members[2..]);
        assert!(qos != Q2 || others <= 1, "seed {seed}: message {id} came to two members of g");
    }
    play.finish();
}

#[test]
fn a_group_has_each_message_through_lost_connections_and_crashes() {
    for seed in 0..200 {
        share_through_anything(seed, 1 + seed as usize % 3);
    }
}

/// Publishes at random what a burst is made of, and what ends one; each subscriber's core has to
/// give it all of that once, and in its order.
fn bursts(seed: u64, count: usize) {
    // Nothing waits for a window, so that the order is one of all QoS together.
    let inflight_max = 2000;
    let setup = Setup { send_queue_bytes_max: 1 << 20, inflight_max, ..cores(count) };
    let mut play = Play::new(seed, setup);
    let publisher = play.add(Profile::clean(&name_at(0, count, "publisher"), Version::V5));
    let mut subscribers = Vec::new();
    for n in 0..6 {
        let version = [Version::V311, Version::V5][n % 2];
        let name = name_at(n % count, count, &format!("subscriber-{n}"));
        let subscriber = play.add(Profile::clean(&name, version));
        play.ensure_subscribed(subscriber, ["#", "t/+", "t/a"][n / 2], Q1);
        subscribers.push(subscriber);
    }
    let comes_and_goes = play.add(Profile::clean(&name_at(0, count, "guest"), Version::V5));
    play.connect(publisher);
    play.connect(comes_and_goes);
    play.settle();
    let mut sent = Vec::new();
    let mut topic = "t/a";
    for _ in 0..20 {
        for _ in 0..play.rng.usize(1..60) {
            if play.rng.u8(..8) == 0 {
                topic = ["t/a", "t/b", "u"][play.rng.usize(..3)];
            }
            let qos = if play.rng.u8(..12) == 0 { Q1 } else { QoS::AtMostOnce };
            let len = if play.rng.u8(..20) == 0 { 3000 } else { 40 };
            sent.push(play.publish(publisher, topic, qos, false, len));
        }
        match play.rng.u8(..4) {
            0 if play.clients[comes_and_goes].is_online() => {
                play.subscribe(comes_and_goes, "t/#", QoS::AtMostOnce);
            }
            1 => play.part(comes_and_goes, Parting::Reset),
            2 if play.clients[comes_and_goes].is_offline() => play.connect(comes_and_goes),
            _ => {}
        }
        let time = Duration::from_micros(play.rng.u64(0..3000));
        play.pass(time);
    }
    play.settle();
    for (n, subscriber) in subscribers.into_iter().enumerate() {
        let takes = |id: &MsgId| match n / 2 {
            0 => true,
            1 => play.model.messages[*id].topic.starts_with("t/"),
            _ => play.model.messages[*id].topic == "t/a",
        };
        let expected: Vec<MsgId> = sent.iter().copied().filter(takes).collect();
        let got: Vec<MsgId> = play.clients[subscriber].inbox.iter().map(|(id, ..)| *id).collect();
        let differ = got.iter().zip(&expected).position(|(got, expected)| got != expected);
        assert_eq!((got.len(), differ), (expected.len(), None), "seed {seed}: subscriber {n}");
    }
    play.finish();
}

#[test]
fn messages_that_come_together_reach_everybody_once_and_in_their_order() {
    for seed in 0..60 {
        bursts(seed, 1 + seed as usize % 3);
    }
}

#[test]
fn a_kick_at_any_moment_of_qos_2_neither_loses_nor_doubles_a_message() {
    for moment in 0..60 {
        let (mut play, publisher, subscriber) = pair(moment, cores(2));
        for _ in 0..3 {
            play.publish(publisher, "t/a", Q2, false, 100);
        }
        play.pass(Duration::from_micros(250) * moment as u32);
        play.kick(subscriber);
        play.pass(Duration::from_micros(700));
        play.kick(publisher);
        play.finish();
    }
}

#[test]
fn operators_are_told_of_each_client_by_its_core_alone() {
    let (mut play, publisher, subscriber) = pair(1, cores(2));
    play.part(publisher, Parting::Reset);
    play.pass(SOON);
    for (client, connected) in [(publisher, false), (subscriber, true)] {
        let name = play.clients[client].profile.name.clone();
        let told = play.rig.ask(|reply| Command::Client { client_id: name.clone(), reply });
        let told: Vec<_> = told.into_iter().flatten().collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(*told[0].client.client_id, *name);
        assert_eq!(told[0].client.connection.is_some(), connected);
        assert_eq!(told[0].peer.is_some(), connected, "{told:?}");
        assert_eq!(told[0].filters.len(), usize::from(connected));
    }
    let listed = play.rig.ask(|reply| {
        Command::Clients(Listing { from: 0, limit: 10, like: Like::default(), reply })
    });
    assert_eq!(listed.iter().map(|listed| listed.clients.len()).collect::<Vec<_>>(), [1, 1]);
    play.finish();
}
