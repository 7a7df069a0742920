//! What MQTT 3.1.1 and 5 promise, by mosquitto's clients where they can tell, else by single
//! packets.

use std::num::{NonZeroU16, NonZeroU32};
use std::time::{Duration, Instant};

use sextant_mqtt::{
    Ack, Connect, ConnectProperties, Delivery, Packet, PacketId, PayloadFormat, Publish,
    PublishProperties, QoS, ReasonCode, RetainHandling, Subscribe, SubscribeProperties,
    Subscription, SubscriptionId, Subscriptions, UserProperties, Version, Will, WillProperties,
};
use sextant_tests::{Daemon, Mqtt, Options, Received, Sub, publish, until};

const VERSIONS: [&str; 2] = ["mqttv311", "mqttv5"];

/// A CONNECT of MQTT 5 for a session that outlives its connection by an hour.
fn persistent(client_id: &str) -> Connect<'_> {
    let session_expiry_s = Some(3600);
    Connect {
        clean_start: false,
        properties: ConnectProperties { session_expiry_s, ..ConnectProperties::default() },
        ..Connect::new(Version::V5, client_id)
    }
}

fn session_present(connack: &Received) -> bool {
    match connack.packet() {
        Packet::ConnAck(connack) => connack.session_present,
        other => panic!("{other:?} is no CONNACK"),
    }
}

fn subscribe_to(mqtt: &mut Mqtt, id: Option<SubscriptionId>, subscription: Subscription<'_>) {
    let packet_id = PacketId::new(60_000).unwrap();
    let properties = SubscribeProperties { subscription_id: id, ..SubscribeProperties::default() };
    let list = [subscription];
    let subscriptions = Subscriptions::new(&list);
    mqtt.send(&Packet::Subscribe(Subscribe { packet_id, properties, subscriptions }));
    mqtt.receive_where(|packet| match packet {
        Packet::SubAck(suback) if suback.packet_id == packet_id => Some(()),
        _ => None,
    });
}

fn disconnect_reason(received: &[Received]) -> ReasonCode {
    match received.last().map(Received::packet) {
        Some(Packet::Disconnect(disconnect)) => disconnect.reason,
        other => panic!("no DISCONNECT at the end, but {other:?}"),
    }
}

// [MQTT-4.2.0-1]
#[test]
fn mosquitto_sub_gets_what_mosquitto_pub_sends_at_each_qos() {
    let daemon = Daemon::start();
    for version in VERSIONS {
        let topic = format!("qos/{version}");
        let mut sub = Sub::start(daemon.mqtt(), &["-V", version, "-q", "2", "-t", &topic]);
        for qos in ["0", "1", "2"] {
            for sender in VERSIONS {
                let payload = format!("{qos} from {sender}");
                publish(daemon.mqtt(), &["-V", sender, "-q", qos, "-t", &topic, "-m", &payload]);
                let message = sub.message();
                assert_eq!((message.payload, message.qos.to_string().as_str()), (payload, qos));
                assert!(!message.retain);
            }
        }
    }
}

// [MQTT-3.8.4-8]
#[test]
fn a_subscription_bounds_the_qos_of_what_it_gets() {
    let daemon = Daemon::start();
    let mut sub = Sub::start(daemon.mqtt(), &["-q", "1", "-t", "bounded"]);
    publish(daemon.mqtt(), &["-q", "2", "-t", "bounded", "-m", "x"]);
    assert_eq!(sub.message().qos, 1);
}

// [MQTT-3.3.1-5], [MQTT-3.3.1-9], [3.1.1: MQTT-3.3.1-6], [3.1.1: MQTT-3.3.1-8],
// [3.1.1: MQTT-3.1.2-7]
#[test]
fn a_retained_message_waits_for_its_subscribers_until_it_is_removed() {
    let mut daemon = Daemon::start();
    publish(daemon.mqtt(), &["-r", "-q", "1", "-t", "retained/a", "-m", "old"]);
    publish(daemon.mqtt(), &["-r", "-q", "1", "-t", "retained/a", "-m", "new"]);
    for version in VERSIONS {
        let mut sub = Sub::start_unacknowledged(
            daemon.mqtt(),
            &["-V", version, "-q", "1", "-t", "retained/#"],
        );
        let message = sub.message();
        assert_eq!((message.payload.as_str(), message.retain), ("new", true));
    }
    daemon.kill();
    daemon.start_again();
    let mut mqtt = Mqtt::clean(daemon.mqtt(), "after the restart");
    mqtt.subscribe("retained/a", QoS::AtLeastOnce);
    assert_eq!(mqtt.message().text(), "new");
    // An empty payload removes it, and reaches those who are there [MQTT-3.3.1-6].
    publish(daemon.mqtt(), &["-r", "-n", "-q", "1", "-t", "retained/a"]);
    assert_eq!(mqtt.message().payload, b"");
    let mut late = Mqtt::clean(daemon.mqtt(), "late");
    late.subscribe("retained/#", QoS::AtLeastOnce);
    publish(daemon.mqtt(), &["-q", "1", "-t", "retained/b", "-m", "live"]);
    assert_eq!(late.message().text(), "live", "nothing retained came before it");
}

// [MQTT-3.1.2-7], [MQTT-3.1.2-8]
#[test]
fn a_will_is_published_when_its_client_is_gone_without_a_word() {
    let daemon = Daemon::start();
    let mut watcher = Sub::start(daemon.mqtt(), &["-q", "1", "-t", "wills/#"]);
    for version in VERSIONS {
        let topic = format!("wills/{version}");
        let mut victim = Sub::start(
            daemon.mqtt(),
            &[
                "-V",
                version,
                "-t",
                "unused",
                "--will-topic",
                &topic,
                "--will-payload",
                "gone",
                "--will-qos",
                "1",
            ],
        );
        victim.lines().kill();
        let will = watcher.message();
        assert_eq!((will.topic, will.payload.as_str(), will.qos), (topic, "gone", 1));
    }
}

// [MQTT-3.14.4-3], [3.1.1: MQTT-3.14.4-3], [MQTT-3.1.2-10]
#[test]
fn a_client_that_says_goodbye_takes_its_will_along() {
    let daemon = Daemon::start();
    let mut watcher = Sub::start(daemon.mqtt(), &["-q", "1", "-t", "wills/#"]);
    for version in VERSIONS {
        // It disconnects when it has got one message.
        let mut polite = Sub::start(
            daemon.mqtt(),
            &["-V", version, "-C", "1", "-t", "end", "--will-topic", "wills/no"],
        );
        publish(daemon.mqtt(), &["-t", "end", "-m", "x"]);
        assert!(polite.lines().end().0);
    }
    publish(daemon.mqtt(), &["-q", "1", "-t", "wills/sentinel", "-m", "x"]);
    assert_eq!(watcher.message().topic, "wills/sentinel");
}

// [MQTT-4.7.2-1], [MQTT-3.3.2-3]
#[test]
fn wildcards_match_levels_and_leave_dollar_topics_alone() {
    let daemon = Daemon::start();
    let all = ["a/+/c", "a/#", "+", "#", "+/c", "$SYS/#"];
    let mut subs: Vec<Sub> =
        all.iter().map(|filter| Sub::start(daemon.mqtt(), &["-q", "1", "-t", filter])).collect();
    for topic in ["a", "a/b/c", "a/b", "/c", "end/of/it"] {
        publish(daemon.mqtt(), &["-q", "1", "-t", topic, "-m", topic]);
    }
    // Whether a client may publish there is the broker's affair; `#` must not get it.
    sextant_tests::try_publish(daemon.mqtt(), &["-q", "0", "-t", "$SYS/x", "-m", "sys"]);
    publish(daemon.mqtt(), &["-q", "1", "-t", "end/of/it", "-m", "last"]);
    assert_eq!(subs[0].payloads(1), ["a/b/c"]);
    assert_eq!(subs[1].payloads(3), ["a", "a/b/c", "a/b"]);
    assert_eq!(subs[2].payloads(1), ["a"]);
    assert_eq!(subs[3].payloads(6), ["a", "a/b/c", "a/b", "/c", "end/of/it", "last"]);
    assert_eq!(subs[4].payloads(1), ["/c"]);
}

/// Subscribes with a session that is kept, leaves, and gives what a client finds on its return
/// after `interlude`.
fn offline_queue(version: &str, mut interlude: impl FnMut(&mut Daemon)) {
    let mut daemon = Daemon::start();
    let args = ["-V", version, "-i", "keeper", "-c", "-x", "3600", "-q", "2", "-t", "queue/#"];
    let args: Vec<&str> = match version {
        "mqttv311" => args.iter().filter(|arg| !["-x", "3600"].contains(*arg)).copied().collect(),
        _ => args.to_vec(),
    };
    Sub::start(daemon.mqtt(), &args).lines().kill();
    until("the broker has noticed that the client is gone", || {
        (daemon.api().status()["connections"] == 0).then_some(())
    });
    let mut expected = Vec::new();
    for number in 0..20 {
        let (payload, qos) = (format!("m{number:02}"), if number % 2 == 0 { "1" } else { "2" });
        publish(daemon.mqtt(), &["-q", qos, "-t", "queue/x", "-m", &payload]);
        expected.push(payload);
    }
    interlude(&mut daemon);
    let mut back = Sub::start_unacknowledged(daemon.mqtt(), &args);
    let mut got = back.payloads(20);
    // Those of QoS 2 are shown when their exchange is complete, and so after those of QoS 1.
    let odd = ['1', '3', '5', '7', '9'];
    let by_qos = |two: bool| got.iter().filter(move |payload| payload.ends_with(odd) == two);
    assert!(by_qos(false).is_sorted() && by_qos(true).is_sorted(), "{got:?}");
    got.sort();
    assert_eq!(got, expected);
    publish(daemon.mqtt(), &["-q", "1", "-t", "queue/x", "-m", "live"]);
    assert_eq!(back.message().payload, "live", "and nothing twice");
}

// [MQTT-4.5.0-1], [3.1.1: MQTT-3.1.2-5]
#[test]
fn a_persistent_session_gets_what_came_while_it_was_away() {
    for version in VERSIONS {
        offline_queue(version, |_| {});
    }
}

#[test]
fn an_offline_queue_survives_a_stop() {
    for version in VERSIONS {
        offline_queue(version, |daemon| {
            daemon.stop();
            daemon.start_again();
        });
    }
}

// [MQTT-3.1.2-23]
#[test]
fn an_offline_queue_survives_kill_9() {
    for version in VERSIONS {
        offline_queue(version, |daemon| {
            daemon.kill();
            daemon.start_again();
        });
    }
}

// [MQTT-3.1.2-5], [MQTT-3.2.2-3]
#[test]
fn a_subscription_survives_kill_9_with_its_session() {
    let mut daemon = Daemon::start();
    let (mut keeper, _) = Mqtt::connect(daemon.mqtt(), &persistent("keeper"));
    keeper.subscribe("kept", QoS::AtLeastOnce);
    daemon.kill();
    daemon.start_again();
    let (mut keeper, connack) = Mqtt::connect(daemon.mqtt(), &persistent("keeper"));
    assert!(session_present(&connack));
    publish(daemon.mqtt(), &["-q", "1", "-t", "kept", "-m", "after"]);
    assert_eq!(keeper.message().text(), "after");
}

// [MQTT-3.1.2-4], [MQTT-3.1.2-6], [MQTT-3.1.4-4], [MQTT-3.2.2-2], [MQTT-3.2.2-3]
#[test]
fn a_clean_start_forgets_the_session() {
    let daemon = Daemon::start();
    let (mut first, connack) = Mqtt::connect(daemon.mqtt(), &persistent("c"));
    assert!(!session_present(&connack));
    first.subscribe("forgotten", QoS::AtLeastOnce);
    first.disconnect();
    let clean = Connect { clean_start: true, ..persistent("c") };
    let (mut second, connack) = Mqtt::connect(daemon.mqtt(), &clean);
    assert!(!session_present(&connack));
    publish(daemon.mqtt(), &["-q", "1", "-t", "forgotten", "-m", "lost"]);
    second.subscribe("new", QoS::AtLeastOnce);
    publish(daemon.mqtt(), &["-q", "1", "-t", "new", "-m", "found"]);
    assert_eq!(second.message().text(), "found");
}

#[test]
fn mqtt_5_properties_pass_through_mosquittos_clients() {
    let daemon = Daemon::start();
    let mut sub = Sub::start(daemon.mqtt(), &["-V", "mqttv5", "-q", "1", "-t", "props"]);
    publish(
        daemon.mqtt(),
        &[
            "-V",
            "mqttv5",
            "-q",
            "1",
            "-t",
            "props",
            "-m",
            "x",
            "-D",
            "publish",
            "user-property",
            "colour",
            "blue",
            "-D",
            "publish",
            "content-type",
            "text/plain",
            "-D",
            "publish",
            "response-topic",
            "answers/1",
            "-D",
            "publish",
            "correlation-data",
            "c0ffee",
            "-D",
            "publish",
            "payload-format-indicator",
            "1",
            "-D",
            "publish",
            "message-expiry-interval",
            "600",
        ],
    );
    let properties = sub.message().properties;
    assert_eq!(properties["user-properties"]["colour"], "blue");
    assert_eq!(properties["content-type"], "text/plain");
    assert_eq!(properties["response-topic"], "answers/1");
    assert_eq!(properties["correlation-data"], "c0ffee");
    assert_eq!(properties["payload-format-indicator"], 1);
    let expiry = properties["message-expiry-interval"].as_u64().unwrap();
    assert!((590..=600).contains(&expiry), "{expiry}");
}

// [MQTT-3.3.2-4], [MQTT-3.3.2-15], [MQTT-3.3.2-16], [MQTT-3.3.2-17], [MQTT-3.3.2-20]
#[test]
fn properties_and_expiry_survive_the_offline_queue() {
    let mut daemon = Daemon::start();
    let (mut keeper, _) = Mqtt::connect(daemon.mqtt(), &persistent("keeper"));
    keeper.subscribe("props", QoS::ExactlyOnce);
    keeper.disconnect();
    let pairs = [("a", "1"), ("b", "2"), ("a", "3")];
    let properties = PublishProperties {
        payload_format: Some(PayloadFormat::Text),
        message_expiry_s: Some(600),
        content_type: Some("text/plain"),
        response_topic: Some("answers"),
        correlation_data: Some(&[0, 255, 1]),
        user_properties: UserProperties::new(&pairs),
        ..PublishProperties::default()
    };
    let mut sender = Mqtt::clean(daemon.mqtt(), "sender");
    let reason = sender.publish_with("props", b"x", QoS::ExactlyOnce, false, properties);
    assert!(!reason.is_error(), "{reason:?}");
    let sent = Instant::now();
    until("more than a second has passed", || {
        (sent.elapsed() > Duration::from_millis(1100)).then_some(())
    });
    daemon.kill();
    daemon.start_again();
    let (mut keeper, _) = Mqtt::connect(daemon.mqtt(), &persistent("keeper"));
    let message = keeper.message();
    let got = message.publish().properties;
    // [MQTT-3.3.2-6]
    let expiry = got.message_expiry_s.unwrap();
    assert!((500..600).contains(&expiry), "{expiry} of 600 seconds are left");
    assert_eq!(got, PublishProperties { message_expiry_s: Some(expiry), ..properties });
}

// [MQTT-3.3.2-5]
#[test]
fn a_message_that_expired_is_not_delivered() {
    let daemon = Daemon::start();
    let (mut keeper, _) = Mqtt::connect(daemon.mqtt(), &persistent("keeper"));
    keeper.subscribe("short", QoS::AtLeastOnce);
    keeper.disconnect();
    let mut sender = Mqtt::clean(daemon.mqtt(), "sender");
    let one = PublishProperties { message_expiry_s: Some(1), ..PublishProperties::default() };
    sender.publish_with("short", b"stale", QoS::AtLeastOnce, false, one);
    sender.publish("short", b"fresh", QoS::AtLeastOnce);
    let sent = Instant::now();
    until("its second has passed", || (sent.elapsed() > Duration::from_millis(1500)).then_some(()));
    let (mut keeper, _) = Mqtt::connect(daemon.mqtt(), &persistent("keeper"));
    assert_eq!(keeper.message().text(), "fresh");
}

// [MQTT-4.1.0-1], [MQTT-4.1.0-2]
#[test]
fn a_session_ends_when_its_expiry_has_passed() {
    let daemon = Daemon::start();
    let mut connect = persistent("brief");
    connect.properties.session_expiry_s = Some(1);
    let (mut brief, _) = Mqtt::connect(daemon.mqtt(), &connect);
    brief.subscribe("x", QoS::AtLeastOnce);
    let (again, connack) = Mqtt::connect(daemon.mqtt(), &connect);
    assert!(session_present(&connack), "it lasts while a connection does");
    again.disconnect();
    until("the session has ended", || (daemon.api().status()["sessions"] == 0).then_some(()));
    let (_, connack) = Mqtt::connect(daemon.mqtt(), &connect);
    assert!(!session_present(&connack));
}

// [MQTT-3.3.4-9], [MQTT-3.3.4-10], [MQTT-4.9.0-2], [MQTT-4.9.0-3]
#[test]
fn a_clients_receive_maximum_bounds_what_is_in_flight_to_it() {
    let daemon = Daemon::start();
    let mut connect = Connect::new(Version::V5, "narrow");
    connect.properties.receive_max = NonZeroU16::new(2);
    let (mut narrow, _) = Mqtt::connect(daemon.mqtt(), &connect);
    narrow.subscribe("flow", QoS::AtLeastOnce);
    let mut sender = Mqtt::clean(daemon.mqtt(), "sender");
    for number in 0..5 {
        sender.publish("flow", format!("{number}").as_bytes(), QoS::AtLeastOnce);
    }
    let first = narrow.message_unanswered();
    let second = narrow.message_unanswered();
    // Whatever was to come before the answer to a ping has come.
    narrow.send(&Packet::PingReq);
    assert!(matches!(narrow.receive().packet(), Packet::PingResp));
    for (message, next) in [(first, "2"), (second, "3")] {
        let packet_id = message.publish().delivery.packet_id().unwrap();
        narrow.send(&Packet::PubAck(Ack::new(packet_id, ReasonCode::Success)));
        assert_eq!(narrow.message_unanswered().text(), next);
    }
}

#[test]
fn more_publishes_in_flight_than_the_broker_takes_end_the_connection() {
    let daemon = Daemon::start();
    let connect = Connect::new(Version::V5, "greedy");
    let (mut greedy, connack) = Mqtt::connect(daemon.mqtt(), &connect);
    let Packet::ConnAck(connack) = connack.packet() else { panic!("{connack:?}") };
    assert_eq!(connack.properties.receive_max.map(NonZeroU16::get), Some(64));
    for number in 1..=65 {
        let packet_id = PacketId::new(number).unwrap();
        let delivery = Delivery::ExactlyOnce { packet_id, dup: false };
        let properties = PublishProperties::default();
        let (retain, topic, payload) = (false, "flow", &b"x"[..]);
        greedy.send(&Packet::Publish(Publish { delivery, retain, topic, properties, payload }));
    }
    // [MQTT-3.3.4-7]
    assert_eq!(disconnect_reason(&greedy.receive_to_end()), ReasonCode::ReceiveMaximumExceeded);
}

// [MQTT-3.3.2-12]
#[test]
fn a_topic_alias_stands_for_its_topic() {
    let daemon = Daemon::start();
    let mut receiver = Mqtt::clean(daemon.mqtt(), "receiver");
    receiver.subscribe("long/#", QoS::AtLeastOnce);
    let connect = Connect::new(Version::V5, "sender");
    let (mut sender, connack) = Mqtt::connect(daemon.mqtt(), &connect);
    let Packet::ConnAck(connack) = connack.packet() else { panic!("{connack:?}") };
    let alias_max = connack.properties.topic_alias_max.unwrap();
    assert_eq!(alias_max, 16);
    let alias = |alias| PublishProperties {
        topic_alias: NonZeroU16::new(alias),
        ..PublishProperties::default()
    };
    sender.publish_with("long/name", b"1", QoS::AtLeastOnce, false, alias(16));
    sender.publish_with("", b"2", QoS::AtLeastOnce, false, alias(16));
    for payload in ["1", "2"] {
        let message = receiver.message();
        assert_eq!((message.topic.as_str(), message.text().as_str()), ("long/name", payload));
    }
    let delivery = Delivery::AtMostOnce;
    let properties = alias(alias_max + 1);
    let (retain, topic, payload) = (false, "long/name", &b"3"[..]);
    sender.send(&Packet::Publish(Publish { delivery, retain, topic, properties, payload }));
    // [MQTT-3.3.2-9]
    assert_eq!(disconnect_reason(&sender.receive_to_end()), ReasonCode::TopicAliasInvalid);
}

#[test]
fn members_of_a_group_share_what_mosquitto_pub_sends_and_get_nothing_retained() {
    let daemon = Daemon::start();
    publish(daemon.mqtt(), &["-r", "-q", "1", "-t", "jobs/0", "-m", "retained"]);
    let filter = "$share/workers/jobs/#";
    let mut workers: Vec<Sub> = VERSIONS
        .into_iter()
        .cycle()
        .take(4)
        .map(|version| Sub::start(daemon.mqtt(), &["-V", version, "-q", "1", "-t", filter]))
        .collect();
    let mut all = Sub::start(daemon.mqtt(), &["-q", "1", "-t", "jobs/1"]);
    // By one publisher: each core has turns of its own.
    let mut publisher = Mqtt::clean(daemon.mqtt(), "publisher");
    for n in 0..40 {
        publisher.publish("jobs/1", n.to_string().as_bytes(), QoS::AtLeastOnce);
    }
    let mut got = Vec::new();
    for worker in &mut workers {
        got.extend((0..10).map(|_| worker.message().payload.parse::<u32>().unwrap()));
    }
    got.sort_unstable();
    assert!(got.into_iter().eq(0..40), "each once, and ten for each of them");
    (0..40).for_each(|n| assert_eq!(all.message().payload, n.to_string()));
}

#[test]
fn what_nobody_of_a_group_is_there_for_waits_for_one_of_its_sessions() {
    let daemon = Daemon::start();
    let filter = "$share/workers/jobs/#";
    for name in ["first", "second"] {
        let (mut member, _) = Mqtt::connect(daemon.mqtt(), &persistent(name));
        assert_eq!(member.subscribe(filter, QoS::AtLeastOnce), ReasonCode::GrantedQos1);
        member.disconnect();
    }
    // By one publisher: each core has turns of its own.
    let mut publisher = Mqtt::clean(daemon.mqtt(), "publisher");
    for payload in ["a", "b", "c", "d"] {
        publisher.publish("jobs/x", payload.as_bytes(), QoS::AtLeastOnce);
    }
    let mut got = Vec::new();
    for name in ["first", "second"] {
        let (mut member, _) = Mqtt::connect(daemon.mqtt(), &persistent(name));
        got.extend((0..2).map(|_| member.message().text()));
    }
    got.sort_unstable();
    assert_eq!(got, ["a", "b", "c", "d"]);
}

// [MQTT-3.1.2-22]
#[test]
fn the_broker_says_how_it_stands_on_topics_of_its_own() {
    let daemon = Daemon::start_with(Options::config("[mqtt]\nsys_interval = \"100ms\"\n"));
    let _other = Mqtt::clean(daemon.mqtt(), "other");
    let mut everything = Sub::start(daemon.mqtt(), &["-t", "#"]);
    let mut watcher = Sub::start(daemon.mqtt(), &["-q", "1", "-t", "$SYS/broker/clients/+"]);
    until("three clients are told of", || {
        let message = watcher.message();
        let told = (message.topic.as_str(), message.payload.as_str());
        (told == ("$SYS/broker/clients/connected", "3")).then_some(())
    });
    let version = format!("sextant-push {}", env!("CARGO_PKG_VERSION"));
    let mut late = Sub::start_unacknowledged(daemon.mqtt(), &["-t", "$SYS/broker/version"]);
    let message = late.message();
    assert_eq!((message.payload, message.retain), (version, true));
    let mut client = Mqtt::clean(daemon.mqtt(), "forger");
    let reason = client.publish("$SYS/broker/version", b"mine", QoS::AtLeastOnce);
    assert_eq!(reason, ReasonCode::NotAuthorized);
    let will = Some(Will {
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "$SYS/broker/version",
        payload: b"mine",
        properties: WillProperties::default(),
    });
    let connect = Connect { will, ..Connect::new(Version::V5, "by will") };
    let (_, connack) = Mqtt::try_connect(daemon.mqtt(), &connect);
    let Packet::ConnAck(connack) = connack.packet() else { panic!("{connack:?}") };
    assert_eq!(connack.reason, ReasonCode::NotAuthorized);
    // [MQTT-4.7.2-1]
    publish(daemon.mqtt(), &["-t", "plain", "-m", "x"]);
    assert_eq!(everything.message().topic, "plain", "wildcards do not match these topics");
}

#[test]
fn a_client_that_is_silent_past_its_keep_alive_is_disconnected() {
    let daemon = Daemon::start();
    let connect = Connect { keep_alive_s: 1, ..Connect::new(Version::V5, "silent") };
    let (mut silent, _) = Mqtt::connect(daemon.mqtt(), &connect);
    let began = Instant::now();
    assert_eq!(disconnect_reason(&silent.receive_to_end()), ReasonCode::KeepAliveTimeout);
    let took = began.elapsed();
    assert!(took > Duration::from_millis(1400) && took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_long_keep_alive_is_shortened_by_the_server() {
    let daemon = Daemon::start_with(Options::config("[mqtt]\nkeep_alive_max = \"30s\"\n"));
    for asked in [0, 31, 65_535] {
        let connect = Connect { keep_alive_s: asked, ..Connect::new(Version::V5, "patient") };
        let (_, connack) = Mqtt::connect(daemon.mqtt(), &connect);
        let Packet::ConnAck(connack) = connack.packet() else { panic!("{connack:?}") };
        assert_eq!(connack.properties.server_keep_alive_s, Some(30), "asked for {asked}");
    }
}

#[test]
fn the_second_connection_of_a_client_takes_over_from_the_first() {
    let daemon = Daemon::start();
    let (mut first, _) = Mqtt::connect(daemon.mqtt(), &persistent("twin"));
    first.subscribe("twin", QoS::AtLeastOnce);
    let (mut second, connack) = Mqtt::connect(daemon.mqtt(), &persistent("twin"));
    assert!(session_present(&connack));
    // [MQTT-3.1.4-3]
    assert_eq!(disconnect_reason(&first.receive_to_end()), ReasonCode::SessionTakenOver);
    publish(daemon.mqtt(), &["-q", "1", "-t", "twin", "-m", "x"]);
    assert_eq!(second.message().text(), "x");
}

// [MQTT-3.1.3-6], [MQTT-3.1.3-7]
#[test]
fn a_client_without_a_name_is_given_one() {
    let daemon = Daemon::start();
    let (_, connack) = Mqtt::connect(daemon.mqtt(), &Connect::new(Version::V5, ""));
    let Packet::ConnAck(connack) = connack.packet() else { panic!("{connack:?}") };
    assert!(connack.properties.assigned_client_id.is_some_and(|id| !id.is_empty()));
    let mut sub = Sub::start(daemon.mqtt(), &["-V", "mqttv311", "-t", "x"]);
    publish(daemon.mqtt(), &["-t", "x", "-m", "y"]);
    assert_eq!(sub.message().payload, "y");
}

// [MQTT-3.3.1-11], [MQTT-3.3.1-13], [MQTT-3.3.4-3], [MQTT-3.8.3-3]
#[test]
fn subscription_options_are_kept() {
    let daemon = Daemon::start();
    let mut sender = Mqtt::clean(daemon.mqtt(), "sender");
    sender.publish_with("o/old", b"old", QoS::AtLeastOnce, true, PublishProperties::default());
    let mut client = Mqtt::clean(daemon.mqtt(), "client");
    let id = SubscriptionId::new(268_435_455);
    let subscription = Subscription {
        no_local: true,
        retain_as_published: true,
        retain_handling: RetainHandling::DoNotSend,
        ..Subscription::new("o/#", QoS::AtLeastOnce)
    };
    subscribe_to(&mut client, id, subscription);
    client.publish("o/own", b"own", QoS::AtLeastOnce);
    sender.publish_with("o/new", b"new", QoS::AtLeastOnce, true, PublishProperties::default());
    let message = client.message();
    assert_eq!(message.text(), "new", "neither the retained one nor the client's own");
    let publish = message.publish();
    assert!(publish.retain, "retain as published");
    assert_eq!(publish.properties.subscription_ids.iter().collect::<Vec<_>>(), [id.unwrap()]);
}

// [MQTT-4.6.0-6]
#[test]
fn messages_of_one_client_keep_their_order() {
    let daemon = Daemon::start();
    let mut receiver = Mqtt::clean(daemon.mqtt(), "receiver");
    receiver.subscribe("order/#", QoS::AtLeastOnce);
    let mut sender = Mqtt::clean(daemon.mqtt(), "sender");
    for number in 0..500 {
        let qos = if number % 3 == 0 { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
        // [MQTT-4.6.0-5] is about one topic and one QoS.
        let topic = format!("order/{}", qos as u8);
        sender.publish(&topic, format!("{number}").as_bytes(), qos);
    }
    let mut last = [None, None, None];
    for _ in 0..500 {
        let message = receiver.message();
        let of_topic: usize = message.topic["order/".len()..].parse().unwrap();
        let number: u32 = message.text().parse().unwrap();
        assert!(last[of_topic] < Some(number), "{number} after {:?}", last[of_topic]);
        last[of_topic] = Some(number);
    }
}

#[test]
fn a_payload_that_just_fits_passes() {
    let daemon = Daemon::start();
    let mut mqtt = Mqtt::clean(daemon.mqtt(), "large");
    mqtt.subscribe("large", QoS::AtLeastOnce);
    let payload: Vec<u8> = (0..(1 << 20) - 64).map(|index| index as u8).collect();
    assert!(!mqtt.publish("large", &payload, QoS::AtLeastOnce).is_error());
    assert!(mqtt.message().payload == payload);
}

// [MQTT-3.1.2-24]
#[test]
fn a_client_gets_no_packet_larger_than_it_takes() {
    let daemon = Daemon::start();
    let mut connect = Connect::new(Version::V5, "small");
    connect.properties.packet_bytes_max = NonZeroU32::new(256);
    let (mut small, _) = Mqtt::connect(daemon.mqtt(), &connect);
    small.subscribe("size", QoS::AtLeastOnce);
    let mut sender = Mqtt::clean(daemon.mqtt(), "sender");
    sender.publish("size", &[b'x'; 300], QoS::AtLeastOnce);
    sender.publish("size", b"fits", QoS::AtLeastOnce);
    // [MQTT-3.1.2-25]
    assert_eq!(small.message().text(), "fits");
    assert!(daemon.api().metric("sextant_push_messages_dropped_total", "too_large") >= 1.0);
}

#[test]
fn a_message_reaches_hundreds_of_subscribers() {
    let daemon = Daemon::start();
    let mut all: Vec<Mqtt> =
        (0..300).map(|n| Mqtt::clean(daemon.mqtt(), &format!("client {n}"))).collect();
    for mqtt in &mut all {
        assert!(!mqtt.subscribe("everybody", QoS::AtLeastOnce).is_error());
    }
    publish(daemon.mqtt(), &["-q", "1", "-t", "everybody", "-m", "x"]);
    for mqtt in &mut all {
        assert_eq!(mqtt.message().text(), "x");
    }
    assert_eq!(daemon.api().status()["connections"], 300);
}
