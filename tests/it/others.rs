//! What trips other brokers: each test is named by something that one of them was seen to get
//! wrong. What is not here is proven elsewhere: a topic that begins with U+FEFF, a keep-alive of
//! zero and overlapping subscriptions in `conformance`, the Receive Maximum in `smoke`.

use std::time::{Duration, Instant};

use sextant_mqtt::{
    Ack, Connect, Delivery, Packet, Publish, PublishProperties, QoS, ReasonCode, Version,
};
use sextant_tests::{Daemon, Mqtt, Options, Sub, until, until_for};

use crate::api::with_user;

fn kept(client_id: &str, expiry_s: u32) -> Connect<'_> {
    let mut connect = Connect { clean_start: false, ..Connect::new(Version::V5, client_id) };
    connect.properties.session_expiry_s = Some(expiry_s);
    connect
}

fn memory(daemon: &Daemon) -> u64 {
    daemon.api().metric("process_resident_memory_bytes", "") as u64
}

/// Publishes at QoS 0 without waiting.
fn send(mqtt: &mut Mqtt, topic: &str, payload: &[u8], retain: bool) {
    let (delivery, properties) = (Delivery::AtMostOnce, PublishProperties::default());
    mqtt.send(&Packet::Publish(Publish { delivery, retain, topic, properties, payload }));
}

/// Publishes numbered messages at QoS 1, some in flight at a time.
fn send_all(mqtt: &mut Mqtt, topic: &str, count: usize, payload_bytes: usize) {
    const TOGETHER: usize = 50;
    for first in (0..count).step_by(TOGETHER) {
        for number in first..count.min(first + TOGETHER) {
            let mut payload = number.to_string().into_bytes();
            payload.resize(payload_bytes, b' ');
            let packet_id = sextant_mqtt::PacketId::new((number - first + 1) as u16).unwrap();
            let delivery = Delivery::AtLeastOnce { packet_id, dup: false };
            let properties = PublishProperties::default();
            let payload = &payload[..];
            let publish = Publish { delivery, retain: false, topic, properties, payload };
            mqtt.send(&Packet::Publish(publish));
        }
        for _ in first..count.min(first + TOGETHER) {
            let reason = mqtt.receive_where(|packet| match packet {
                Packet::PubAck(ack) => Some(ack.reason),
                _ => None,
            });
            assert!(!reason.is_error(), "{reason:?}");
        }
    }
}

/// The number that a payload begins with.
fn number(mqtt: &mut Mqtt) -> usize {
    mqtt.message().text().trim_end().parse().unwrap()
}

/// Others drop what is new for a client that reads too late, or hold all of it in memory.
#[test]
fn who_reads_late_gets_the_newest_in_order_and_what_it_missed_is_counted() {
    const MESSAGES: usize = 40_000;
    let config = "[mqtt]\nsend_queue_bytes_max = \"1MiB\"\nsend_queue_messages_max = 500\n";
    let daemon = Daemon::start_with(Options::config(config));
    let mut late = Mqtt::clean(daemon.mqtt(), "late");
    late.subscribe("flood", QoS::AtMostOnce);
    let mut sender = Mqtt::clean(daemon.mqtt(), "sender");
    for number in 0..MESSAGES {
        let mut payload = number.to_string().into_bytes();
        payload.resize(1000, b' ');
        send(&mut sender, "flood", &payload, false);
        if number % 100 == 99 {
            sender.ping();
        }
    }
    let mut got = Vec::new();
    while got.last() != Some(&(MESSAGES - 1)) {
        got.push(number(&mut late));
    }
    assert!(got.is_sorted_by(|a, b| a < b), "in order, and each once");
    let newest = &got[got.len() - 500..];
    assert!(newest.iter().copied().eq(MESSAGES - 500..MESSAGES), "from {} on", newest[0]);
    let dropped = daemon.api().metric("sextant_push_messages_dropped_total", "slow_client");
    println!("{} of {MESSAGES} arrived, {dropped} were dropped", got.len());
    assert_eq!(got.len() + dropped as usize, MESSAGES);
    assert!(dropped > 0.0, "it fell behind");
}

/// Others send what is retained again and again, or all at once, until their memory ends.
#[test]
fn a_subscriber_to_everything_gets_a_hundred_thousand_retained_messages_in_bounded_memory() {
    const MESSAGES: usize = 100_000;
    let daemon = Daemon::start_with(Options::config("[log]\ndurability = \"os\"\n"));
    let mut sender = Mqtt::clean(daemon.mqtt(), "sender");
    let payload = [b'r'; 100];
    for number in 0..MESSAGES {
        send(&mut sender, &format!("r/{}/{number}", number % 100), &payload, true);
        if number % 500 == 499 {
            sender.ping();
        }
    }
    let api = daemon.api();
    until("all of them are retained", || {
        (api.metric("sextant_push_retained_messages", "") as usize == MESSAGES).then_some(())
    });
    let before = memory(&daemon);
    for (qos, client_id) in [(QoS::AtMostOnce, "at most"), (QoS::AtLeastOnce, "at least")] {
        let mut all = Mqtt::clean(daemon.mqtt(), client_id);
        let began = Instant::now();
        assert_eq!(all.subscribe("r/#", qos), qos.granted());
        let mut seen = vec![false; MESSAGES];
        for _ in 0..MESSAGES {
            let message = all.message();
            let number: usize = message.topic.rsplit('/').next().unwrap().parse().unwrap();
            assert!(message.publish().retain);
            assert!(!std::mem::replace(&mut seen[number], true), "{number} came twice");
        }
        println!("all within {:?} at {qos:?}", began.elapsed());
        all.ping();
    }
    let grown = memory(&daemon).saturating_sub(before);
    println!("the daemon's memory grew by {} KiB from {} MiB", grown >> 10, before >> 20);
    assert!(grown < 32 << 20, "by {grown} bytes");
    assert_eq!(api.metric("sextant_push_messages_dropped_total", "queue_full"), 0.0);
    assert_eq!(api.metric("sextant_push_messages_dropped_total", "slow_client"), 0.0);
}

/// Others hold the queues of clients that are away in memory.
#[test]
fn what_is_queued_for_who_is_away_is_on_disk_and_takes_little_memory() {
    const MESSAGES: usize = 50_000;
    let config = "[mqtt]\nqueue_messages_max = 100000\nqueue_bytes_max = \"128MiB\"\n\
                  [log]\ndurability = \"os\"\n";
    let mut daemon = Daemon::start_with(Options::config(config));
    let (mut away, _) = Mqtt::connect(daemon.mqtt(), &kept("away", 3600));
    away.subscribe("q", QoS::AtLeastOnce);
    away.disconnect();
    let mut sender = Mqtt::clean(daemon.mqtt(), "sender");
    send_all(&mut sender, "q", 1000, 1024);
    let before = memory(&daemon);
    send_all(&mut sender, "q", MESSAGES - 1000, 1024);
    let grown = memory(&daemon).saturating_sub(before);
    let each = grown / (MESSAGES as u64 - 1000);
    println!("{each} bytes of memory for each message of 1,024 bytes");
    assert!(each < 800, "{each} bytes for each message that waits");
    // Half of them, then the other half from what is on the disk.
    let (mut away, _) = Mqtt::connect(daemon.mqtt(), &kept("away", 3600));
    let half: Vec<usize> = (0..MESSAGES / 2).map(|_| number(&mut away)).collect();
    assert!(half.iter().copied().eq((0..1000).chain(0..MESSAGES / 2 - 1000)));
    away.ping();
    drop(away);
    daemon.stop();
    daemon.start_again();
    let restarted = memory(&daemon);
    println!("{} MiB of memory after a restart with {} messages", restarted >> 20, MESSAGES / 2);
    let (mut away, _) = Mqtt::connect(daemon.mqtt(), &kept("away", 3600));
    // What was in flight may come again.
    let mut next = number(&mut away);
    assert!(next + 64 >= MESSAGES / 2 - 1000 && next <= MESSAGES / 2 - 1000, "{next}");
    while next < MESSAGES - 1001 {
        let following = number(&mut away);
        assert_eq!(following, next + 1);
        next = following;
    }
}

/// Others forget, when they start again, that a session was to end.
#[test]
fn a_session_ends_in_time_across_a_restart_and_nothing_is_left_of_it() {
    let mut daemon = Daemon::start();
    for name in ["short 1", "short 2", "short 3"] {
        let (mut mqtt, _) = Mqtt::connect(daemon.mqtt(), &kept(name, 2));
        mqtt.subscribe("s/#", QoS::AtLeastOnce);
    }
    let (mut long, _) = Mqtt::connect(daemon.mqtt(), &kept("long", 3600));
    long.subscribe("s/#", QoS::AtLeastOnce);
    long.disconnect();
    daemon.kill();
    daemon.start_again();
    let api = daemon.api();
    let level = |name: &str| api.metric(&format!("sextant_push_{name}"), "") as i64;
    until_for(Duration::from_secs(15), "only the long session is there", || {
        ((level("sessions"), level("subscriptions")) == (1, 1)).then_some(())
    });
    let (_long, connack) = Mqtt::connect(daemon.mqtt(), &kept("long", 3600));
    assert!(matches!(connack.packet(), Packet::ConnAck(connack) if connack.session_present));
    let (_short, connack) = Mqtt::connect(daemon.mqtt(), &kept("short 1", 2));
    assert!(matches!(connack.packet(), Packet::ConnAck(connack) if !connack.session_present));
}

/// Others count the sessions of clients that are long gone.
#[test]
fn sessions_of_who_came_once_are_forgotten() {
    let daemon = Daemon::start();
    let api = daemon.api();
    let live: Vec<Mqtt> =
        (0..5).map(|n| Mqtt::clean(daemon.mqtt(), &format!("live {n}"))).collect();
    for n in 0..200 {
        let name = format!("once {n}");
        let expiry_s = n % 2;
        let (mut mqtt, _) = Mqtt::connect(daemon.mqtt(), &kept(&name, expiry_s));
        mqtt.subscribe(&format!("s/{n}"), QoS::AtLeastOnce);
    }
    until_for(Duration::from_secs(15), "the live clients alone have sessions", || {
        let sessions = api.metric("sextant_push_sessions", "");
        let held = api.metric("sextant_push_subscriptions", "");
        (sessions as usize == live.len() && held == 0.0).then_some(())
    });
}

// [MQTT-3.1.2-26], [MQTT-3.3.2-11]
/// Others announce that they may use topic aliases, and never do.
#[test]
fn mqtt_3_1_2_26_a_topic_that_is_published_again_comes_by_its_alias_to_who_takes_one() {
    let daemon = Daemon::start();
    let mut connect = Connect::new(Version::V5, "takes two");
    connect.properties.topic_alias_max = Some(2);
    let (mut takes, _) = Mqtt::connect(daemon.mqtt(), &connect);
    let mut none = Mqtt::clean(daemon.mqtt(), "takes none");
    // It can announce aliases, and then takes a PUBLISH without a topic for an error: it is to be
    // spared them as long as it does not.
    let mut sub = Sub::start(daemon.mqtt(), &["-V", "5", "-t", "long/#", "-q", "1"]);
    takes.subscribe("long/#", QoS::AtLeastOnce);
    none.subscribe("long/#", QoS::AtLeastOnce);
    let mut sender = Mqtt::clean(daemon.mqtt(), "sender");
    let topics: Vec<String> = (0..3).map(|n| format!("long/topic/of/device/{n}")).collect();
    let mut names = std::collections::HashMap::new();
    let (mut by_alias, mut bytes) = (0, [0, 0]);
    for round in 0..60 {
        let topic = &topics[round / 2 % 3];
        let qos = if round % 4 == 0 { QoS::AtLeastOnce } else { QoS::AtMostOnce };
        sender.publish(topic, round.to_string().as_bytes(), qos);
        let message = takes.message();
        let publish = message.publish();
        if let Some(alias) = publish.properties.topic_alias {
            assert!(alias.get() <= 2, "{alias}");
            if !publish.topic.is_empty() {
                names.insert(alias, publish.topic.to_owned());
            }
            by_alias += u32::from(publish.topic.is_empty());
            assert_eq!(names.get(&alias), Some(topic));
        } else {
            assert_eq!(publish.topic, topic);
        }
        let plain = none.message();
        assert_eq!(
            (plain.topic.as_str(), plain.publish().properties.topic_alias),
            (&**topic, None)
        );
        bytes[0] += publish.topic.len();
        bytes[1] += plain.topic.len();
        let seen = sub.message();
        assert_eq!((&seen.topic, seen.payload), (topic, round.to_string()));
    }
    println!("{by_alias} of 60 came by alias; {} bytes of topics, not {}", bytes[0], bytes[1]);
    assert!(by_alias > 30, "{by_alias} of 60 came by alias");
}

/// Others answer a subscription that is not allowed as if it were, or always with the same code.
#[test]
fn a_subscription_that_is_not_allowed_is_refused_with_the_code_that_was_configured() {
    for (says_why, v5) in [(true, ReasonCode::NotAuthorized), (false, ReasonCode::UnspecifiedError)]
    {
        let config = with_user();
        let config = format!("mqtt.suback_reasons = {says_why}\n{config}");
        let daemon = Daemon::start_with(Options::config(&config));
        let refused = [(Version::V311, ReasonCode::UnspecifiedError), (Version::V5, v5)];
        for (version, expected) in refused {
            let mut connect = Connect::new(version, "c");
            (connect.user_name, connect.password) =
                (Some("dashboard"), Some(sextant_mqtt::Secret::new(b"geheim")));
            let (mut mqtt, _) = Mqtt::connect(daemon.mqtt(), &connect);
            assert_eq!(mqtt.subscribe("others/#", QoS::AtLeastOnce), expected);
            assert_eq!(mqtt.subscribe("d/+/x", QoS::AtLeastOnce), ReasonCode::GrantedQos1);
        }
    }
}

/// Others let an acknowledgement that is no answer to anything end the connection, or take it for
/// the answer to something else.
#[test]
fn an_acknowledgement_of_nothing_harms_nobody() {
    let daemon = Daemon::start();
    let mut mqtt = Mqtt::clean(daemon.mqtt(), "c");
    let id = sextant_mqtt::PacketId::new(77).unwrap();
    mqtt.send(&Packet::PubAck(Ack::new(id, ReasonCode::Success)));
    mqtt.send(&Packet::PubComp(Ack::new(id, ReasonCode::PacketIdentifierNotFound)));
    mqtt.ping();
}
