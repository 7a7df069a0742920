//! Traces of clients, packet by packet, in virtual time.

use std::time::Duration;

use sextant_mqtt::{QoS, Version};
use sextant_push::control::Command;
use sextant_push::control::trace::{TraceEvent, Traced, Tracing};
use sextant_push::home::home;
use tokio::sync::mpsc;

use crate::client::{Parting, Profile};
use crate::play::Play;
use crate::rig::Setup;

const SECOND: Duration = Duration::from_secs(1);

fn trace(play: &mut Play, client_id: &str, entries: usize) -> mpsc::Receiver<Traced> {
    let (sink, traced) = mpsc::channel(entries);
    let core = home(client_id, play.rig.setup.cores);
    let tracing = Tracing { client_id: client_id.to_owned(), payloads: true, sink };
    assert!(play.rig.command(core, Command::Trace(tracing)), "the core takes a command");
    play.pass(Duration::from_millis(5));
    traced
}

/// What was told since, in words: `> ` is what the client sent.
fn told(traced: &mut mpsc::Receiver<Traced>) -> Vec<String> {
    let mut words = Vec::new();
    while let Ok(Traced { event, lost, .. }) = traced.try_recv() {
        if lost > 0 {
            words.push(format!("{lost} lost"));
        }
        words.push(match event {
            TraceEvent::Began { connected } => format!("began {connected}"),
            TraceEvent::In(packet) => format!("> {}", packet.packet),
            TraceEvent::Out(packet) => format!("< {}", packet.packet),
            TraceEvent::Dropped { messages } => format!("dropped {messages}"),
            TraceEvent::Closed { why } => format!("closed {why}"),
        });
    }
    words
}

#[test]
fn every_packet_of_an_exchange_is_told_in_its_order() {
    for version in [Version::V311, Version::V5] {
        let mut play = Play::new(1, Setup { cores: 2, ..Setup::default() });
        play.pass(SECOND);
        let mut traced = trace(&mut play, "lamp", 100);
        assert_eq!(told(&mut traced), ["began false"]);
        let lamp = play.add(Profile::clean("lamp", version));
        play.ensure_subscribed(lamp, "t/#", QoS::ExactlyOnce);
        let begun = ["> CONNECT", "< CONNACK", "> SUBSCRIBE", "< SUBACK"];
        assert_eq!(told(&mut traced), begun);
        play.publish(lamp, "t/a", QoS::ExactlyOnce, false, 10);
        play.settle();
        let mut exchange = told(&mut traced);
        exchange.sort();
        let mut expected = ["PUBLISH", "PUBREC", "PUBREL", "PUBCOMP"]
            .iter()
            .flat_map(|packet| [format!("> {packet}"), format!("< {packet}")])
            .collect::<Vec<_>>();
        expected.sort();
        assert_eq!(exchange, expected);
        play.kick(lamp);
        play.pass(SECOND);
        let last = told(&mut traced);
        match version {
            Version::V5 => assert_eq!(last, ["< DISCONNECT", "closed kicked"]),
            Version::V311 => assert_eq!(last, ["closed kicked"]),
        }
        play.settle();
        play.part(lamp, Parting::Reset);
        play.pass(SECOND);
        let again = told(&mut traced);
        assert_eq!(again[..2], ["> CONNECT", "< CONNACK"]);
        assert!(again.last().unwrap().starts_with("closed "), "{again:?}");
        drop(traced);
        play.finish();
    }
}

#[test]
fn messages_of_bursts_and_of_fan_outs_are_told_each() {
    for cores in [1, 3] {
        let setup = Setup { cores, send_queue_bytes_max: 1 << 20, ..Setup::default() };
        let mut play = Play::new(2, setup);
        let publisher = play.add(Profile::clean("publisher", Version::V5));
        play.connect(publisher);
        for name in ["lamp", "door", "roof"] {
            let client = play.add(Profile::clean(name, Version::V5));
            play.ensure_subscribed(client, "t/#", QoS::AtMostOnce);
        }
        for _ in 0..20 {
            play.publish(publisher, "t/a", QoS::AtMostOnce, false, 30);
        }
        play.settle();
        // The burst is known when the trace begins, and goes on when it ends.
        let mut traced = trace(&mut play, "lamp", 1000);
        for n in 0..100 {
            let topic = if n % 30 == 29 { "t/b" } else { "t/a" };
            play.publish(publisher, topic, QoS::AtMostOnce, false, 30);
        }
        play.settle();
        play.pass(SECOND);
        let words = told(&mut traced);
        assert_eq!(words.len(), 101, "{words:?}");
        assert!(words[1..].iter().all(|word| word == "< PUBLISH"), "{words:?}");
        drop(traced);
        play.pass(SECOND);
        play.publish(publisher, "t/a", QoS::AtMostOnce, false, 30);
        play.settle();
        assert_eq!(play.clients[1].inbox.len(), 121);
        play.finish();
    }
}

#[test]
fn what_a_slow_reader_misses_is_counted_and_nobody_waits_for_it() {
    let mut play = Play::new(3, Setup::default());
    let lamp = play.add(Profile::clean("lamp", Version::V311));
    play.ensure_subscribed(lamp, "t/#", QoS::AtMostOnce);
    let mut traced = trace(&mut play, "lamp", 4);
    for _ in 0..50 {
        play.publish(lamp, "t/a", QoS::AtMostOnce, false, 30);
    }
    play.settle();
    play.pass(SECOND);
    assert_eq!(play.clients[lamp].inbox.len(), 50);
    assert_eq!(told(&mut traced).len(), 4);
    play.publish(lamp, "t/a", QoS::AtMostOnce, false, 30);
    play.settle();
    play.pass(SECOND);
    // One hundred, of which three were told.
    assert_eq!(told(&mut traced), ["97 lost", "> PUBLISH", "< PUBLISH"]);
    play.finish();
}
