//! Statements of the MQTT standards that the other tests here do not prove, by single packets
//! against the daemon. The numbers above a test are those of `daemons/push/conformance.toml`.

use std::time::{Duration, Instant};

use sextant_mqtt::{
    Ack, Auth, AuthProperties, Connect, Delivery, Disconnect, Filters, Packet, PacketId, Publish,
    PublishProperties, QoS, ReasonCode, RetainHandling, Secret, Subscribe, SubscribeProperties,
    Subscription, SubscriptionId, Subscriptions, Unsubscribe, UnsubscribeProperties,
    UserProperties, Version, Will, WillProperties,
};
use sextant_tests::{Daemon, Mqtt, Options, Received, until};

use crate::api::with_user;

const VERSIONS: [Version; 2] = [Version::V311, Version::V5];

fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

/// A CONNECT for a session that is kept.
fn kept(version: Version, client_id: &str) -> Connect<'_> {
    let mut connect = Connect { clean_start: false, ..Connect::new(version, client_id) };
    if version == Version::V5 {
        connect.properties.session_expiry_s = Some(3600);
    }
    connect
}

fn is_session_present(connack: &Received) -> bool {
    matches!(connack.packet(), Packet::ConnAck(connack) if connack.session_present)
}

/// Sends a PUBLISH as it is told, and waits for nothing.
fn send(mqtt: &mut Mqtt, topic: &str, payload: &str, delivery: Delivery) {
    let (properties, payload) = (PublishProperties::default(), payload.as_bytes());
    mqtt.send(&Packet::Publish(Publish { delivery, retain: false, topic, properties, payload }));
}

fn retain(mqtt: &mut Mqtt, topic: &str, payload: &str) {
    let properties = PublishProperties::default();
    let reason = mqtt.publish_with(topic, payload.as_bytes(), QoS::AtLeastOnce, true, properties);
    assert!(!reason.is_error(), "{reason:?}");
}

/// Sends one SUBSCRIBE, and gives the reason codes of its SUBACK.
fn subscribe(
    mqtt: &mut Mqtt,
    number: u16,
    subscription_id: Option<SubscriptionId>,
    list: &[Subscription<'_>],
) -> Vec<ReasonCode> {
    let properties = SubscribeProperties { subscription_id, ..SubscribeProperties::default() };
    let subscriptions = Subscriptions::new(list);
    mqtt.send(&Packet::Subscribe(Subscribe { packet_id: id(number), properties, subscriptions }));
    mqtt.receive_where(|packet| match packet {
        Packet::SubAck(suback) if suback.packet_id == id(number) => {
            Some(suback.reasons.iter().collect())
        }
        _ => None,
    })
}

fn unsubscribe(mqtt: &mut Mqtt, number: u16, filters: &[&str]) -> Vec<ReasonCode> {
    let properties = UnsubscribeProperties::default();
    let filters = Filters::new(filters);
    mqtt.send(&Packet::Unsubscribe(Unsubscribe { packet_id: id(number), properties, filters }));
    mqtt.receive_where(|packet| match packet {
        Packet::UnsubAck(unsuback) if unsuback.packet_id == id(number) => {
            Some(unsuback.reasons.iter().collect())
        }
        _ => None,
    })
}

/// The next message is this one: nothing came before it.
#[track_caller]
fn next_is(mqtt: &mut Mqtt, payload: &str) {
    assert_eq!(mqtt.message().text(), payload);
}

/// The reason of the CONNACK or DISCONNECT that a connection ended with.
#[track_caller]
fn ended_with(mqtt: &mut Mqtt) -> ReasonCode {
    let all = mqtt.receive_to_end();
    match all.last().map(Received::packet) {
        Some(Packet::ConnAck(connack)) => connack.reason,
        Some(Packet::Disconnect(disconnect)) => {
            assert_eq!(disconnect.properties.session_expiry_s, None);
            disconnect.reason
        }
        other => panic!("it ended with {other:?}"),
    }
}

fn has_passed(time: Duration) {
    let began = Instant::now();
    until("the time has passed", || (began.elapsed() > time).then_some(()));
}

// --- CONNECT ---

// [MQTT-3.1.2-9], [MQTT-3.1.3-3], [MQTT-3.1.3-4], [MQTT-3.1.3-11], [MQTT-3.1.3-12]
// [MQTT-3.1.4-1], [MQTT-3.2.2-7], [3.1.1: MQTT-3.1.4-1]
#[test]
fn a_connect_that_lacks_a_field_or_has_a_bad_string_is_malformed() {
    let daemon = Daemon::start();
    let cases: [(&str, u8, &[u8]); 6] = [
        ("no client identifier", 0b10, b""),
        ("a bad client identifier", 0b10, b"\x00\x01\xFF"),
        ("a will without a topic", 0b110, b"\x00\x01a\x00"),
        ("a will without a payload", 0b110, b"\x00\x01a\x00\x00\x01w"),
        ("a bad will topic", 0b110, b"\x00\x01a\x00\x00\x01\xFF\x00\x00"),
        ("a bad user name", 0b1000_0010, b"\x00\x01a\x00\x01\xFF"),
    ];
    for (what, flags, payload) in cases {
        let body = [b"\x00\x04MQTT\x05", &[flags, 0, 0, 0][..], payload].concat();
        let mut mqtt = Mqtt::open(daemon.mqtt(), Version::V5);
        mqtt.send_bytes(&[&[0x10, body.len() as u8][..], &body].concat());
        assert_eq!(ended_with(&mut mqtt), ReasonCode::MalformedPacket, "{what}");
    }
    let mut old = Mqtt::open(daemon.mqtt(), Version::V311);
    old.send_bytes(b"\x10\x0D\x00\x04MQTT\x04\x02\x00\x00\x00\x01\xFF");
    assert!(old.receive_to_end().is_empty(), "there is no return code for it");
}

// [MQTT-3.1.3-2], [MQTT-3.1.3-5], [MQTT-3.1.4-5]
#[test]
fn client_identifiers_of_letters_and_digits_are_taken_and_told_apart() {
    let daemon = Daemon::start();
    let letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for version in VERSIONS {
        for name in ["a", "A", &letters[..23], &letters[20..43], &letters[39..62]] {
            let (_, first) = Mqtt::connect(daemon.mqtt(), &kept(version, name));
            assert_eq!(is_session_present(&first), version == Version::V5, "{name}");
        }
    }
}

// [MQTT-3.1.3-6], [MQTT-3.1.3-7], [MQTT-3.2.2-16]
#[test]
fn clients_without_a_name_are_given_different_ones() {
    let daemon = Daemon::start();
    let mut names = Vec::new();
    let mut connections = Vec::new();
    for _ in 0..5 {
        let (mqtt, connack) = Mqtt::connect(daemon.mqtt(), &Connect::new(Version::V5, ""));
        let Packet::ConnAck(connack) = connack.packet() else { panic!("{connack:?}") };
        names.push(connack.properties.assigned_client_id.unwrap().to_owned());
        connections.push(mqtt);
    }
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 5);
    // The name is its own: who comes with it takes over.
    let (_second, _) = Mqtt::connect(daemon.mqtt(), &Connect::new(Version::V5, &names[0]));
    until("one of them is told", || (daemon.api().status()["connections"] == 5).then_some(()));
}

// [MQTT-4.12.0-1], [MQTT-3.2.2-7]
#[test]
fn an_authentication_method_that_is_not_offered_is_refused() {
    let daemon = Daemon::start();
    let mut connect = Connect::new(Version::V5, "scram");
    connect.properties.auth_method = Some("SCRAM-SHA-256");
    let mut mqtt = Mqtt::open(daemon.mqtt(), Version::V5);
    mqtt.send(&Packet::Connect(connect));
    assert_eq!(ended_with(&mut mqtt), ReasonCode::BadAuthenticationMethod);
}

// [MQTT-3.1.3-8], [MQTT-3.2.2-7]
#[test]
fn a_client_identifier_that_is_another_devices_is_refused() {
    let daemon = Daemon::start_with(Options::config(&with_user()));
    let token = daemon.api().device_token("lamp");
    let mut mqtt = Mqtt::open(daemon.mqtt(), Version::V5);
    mqtt.send(&Packet::Connect(Connect {
        user_name: Some("lamp"),
        password: Some(Secret::new(token.as_bytes())),
        ..Connect::new(Version::V5, "door")
    }));
    assert_eq!(ended_with(&mut mqtt), ReasonCode::ClientIdentifierNotValid);
}

// [MQTT-4.12.0-6], [MQTT-4.12.0-7], [MQTT-4.12.1-2]
#[test]
fn without_an_authentication_method_there_is_no_authenticating_again() {
    let daemon = Daemon::start();
    let (mut mqtt, connack) = Mqtt::connect(daemon.mqtt(), &Connect::new(Version::V5, "plain"));
    let Packet::ConnAck(connack) = connack.packet() else { panic!("{connack:?}") };
    assert_eq!(connack.properties.auth_method, None);
    let properties = AuthProperties { auth_method: Some("m"), ..AuthProperties::default() };
    mqtt.send(&Packet::Auth(Auth { reason: ReasonCode::ReAuthenticate, properties }));
    assert!(ended_with(&mut mqtt).is_error());
}

// [MQTT-3.1.4-2], [MQTT-3.1.4-6], [MQTT-3.2.2-7], [MQTT-4.12.0-4], [MQTT-4.13.2-1]
#[test]
fn behind_a_connect_that_is_refused_nothing_is_acted_upon() {
    let daemon = Daemon::start_with(Options::config(&with_user()));
    for version in VERSIONS {
        let login = |password: &'static [u8]| Connect {
            user_name: Some("dashboard"),
            password: Some(Secret::new(password)),
            ..Connect::new(version, "dashboard")
        };
        let mut bytes = Vec::new();
        Packet::Connect(login(b"wrong")).encode(version, &mut bytes).unwrap();
        let properties = PublishProperties::default();
        let (delivery, topic, payload) = (Delivery::AtMostOnce, "d/lamp/cmd", &b"smuggled"[..]);
        Packet::Publish(Publish { delivery, retain: true, topic, properties, payload })
            .encode(version, &mut bytes)
            .unwrap();
        let mut wrong = Mqtt::open(daemon.mqtt(), version);
        wrong.send_bytes(&bytes);
        assert_eq!(ended_with(&mut wrong), ReasonCode::BadUserNameOrPassword);
        let (mut right, _) = Mqtt::connect(daemon.mqtt(), &login(b"geheim"));
        right.subscribe("d/+/#", QoS::AtMostOnce);
        right.publish("d/lamp/cmd", b"sent", QoS::AtLeastOnce);
        next_is(&mut right, "sent");
    }
}

// [MQTT-3.2.0-1], [MQTT-3.2.0-2], [MQTT-3.1.4-5], [MQTT-3.1.2-5], [3.1.1: MQTT-3.1.2-5]
#[test]
fn one_connack_comes_before_what_waited() {
    let daemon = Daemon::start();
    for version in VERSIONS {
        let (mut keeper, _) = Mqtt::connect(daemon.mqtt(), &kept(version, "keeper"));
        keeper.subscribe("wait", QoS::AtLeastOnce);
        keeper.disconnect();
        Mqtt::clean(daemon.mqtt(), "sender").publish("wait", b"waited", QoS::AtLeastOnce);
        let mut keeper = Mqtt::open(daemon.mqtt(), version);
        keeper.send(&Packet::Connect(kept(version, "keeper")));
        assert!(is_session_present(&keeper.receive()), "CONNACK is the first");
        next_is(&mut keeper, "waited");
        keeper.send(&Packet::PingReq);
        assert!(matches!(keeper.receive().packet(), Packet::PingResp), "there is no other");
    }
}

// [3.1.1: MQTT-3.1.2-6], [3.1.1: MQTT-3.1.4-2]
#[test]
fn a_clean_session_of_3_1_1_is_taken_over_without_a_word_and_begins_anew() {
    let daemon = Daemon::start();
    let clean = Connect::new(Version::V311, "twin");
    let (mut first, _) = Mqtt::connect(daemon.mqtt(), &clean);
    first.subscribe("t", QoS::AtLeastOnce);
    let (mut second, connack) = Mqtt::connect(daemon.mqtt(), &clean);
    assert!(!is_session_present(&connack));
    assert!(first.receive_to_end().is_empty());
    second.publish("t", b"nobody's", QoS::AtLeastOnce);
    second.subscribe("t", QoS::AtLeastOnce);
    second.publish("t", b"its own", QoS::AtLeastOnce);
    next_is(&mut second, "its own");
}

// [MQTT-3.1.2-22], [MQTT-3.2.2-22]
#[test]
fn a_keep_alive_holds_as_it_was_asked_for_and_0_ends_nothing() {
    let daemon = Daemon::start();
    let with = |keep_alive_s, name| Connect { keep_alive_s, ..Connect::new(Version::V5, name) };
    let old = Connect { keep_alive_s: 0, ..Connect::new(Version::V311, "silent") };
    let (mut silent, _) = Mqtt::connect(daemon.mqtt(), &old);
    let (mut brief, connack) = Mqtt::connect(daemon.mqtt(), &with(1, "brief"));
    let Packet::ConnAck(connack) = connack.packet() else { panic!("{connack:?}") };
    assert_eq!(connack.properties.server_keep_alive_s, None, "its own holds");
    let (_, connack) = Mqtt::connect(daemon.mqtt(), &with(0, "endless"));
    let Packet::ConnAck(connack) = connack.packet() else { panic!("{connack:?}") };
    assert!(connack.properties.server_keep_alive_s > Some(60), "it is told what holds instead");
    assert_eq!(ended_with(&mut brief), ReasonCode::KeepAliveTimeout);
    silent.ping();
}

// --- Wills ---

// [MQTT-3.1.2-14], [MQTT-3.1.2-15], [MQTT-3.1.3-10], [MQTT-3.1.2-8]
#[test]
fn a_will_is_retained_if_it_asks_for_that_and_keeps_the_order_of_its_properties() {
    let daemon = Daemon::start();
    let mut watcher = Mqtt::clean(daemon.mqtt(), "watcher");
    watcher.subscribe("w/#", QoS::AtLeastOnce);
    let pairs = [("b", "1"), ("a", "2"), ("b", "3")];
    for (topic, retain) in [("w/live", false), ("w/kept", true)] {
        let mut connect = Connect::new(Version::V5, "mortal");
        let user_properties = UserProperties::new(&pairs);
        connect.will = Some(Will {
            qos: QoS::AtLeastOnce,
            retain,
            topic,
            payload: b"gone",
            properties: WillProperties { user_properties, ..WillProperties::default() },
        });
        drop(Mqtt::connect(daemon.mqtt(), &connect));
        let message = watcher.message();
        assert_eq!(message.topic, topic);
        let got: Vec<_> = message.publish().properties.user_properties.iter().collect();
        assert_eq!(got, pairs);
    }
    let mut late = Mqtt::clean(daemon.mqtt(), "late");
    late.subscribe("w/#", QoS::AtLeastOnce);
    let message = late.message();
    assert_eq!((message.topic.as_str(), message.publish().retain), ("w/kept", true));
}

// --- PUBLISH, retained ---

// [MQTT-3.3.1-8], [MQTT-3.3.1-12], [3.1.1: MQTT-3.3.1-9], [3.1.1: MQTT-3.3.1-8]
#[test]
fn retain_is_for_who_comes_later_and_other_messages_do_not_touch_what_is_retained() {
    let daemon = Daemon::start();
    for version in VERSIONS {
        let (mut live, _) = Mqtt::connect(daemon.mqtt(), &Connect::new(version, "live"));
        live.subscribe("r", QoS::AtLeastOnce);
        let mut sender = Mqtt::clean(daemon.mqtt(), "sender");
        retain(&mut sender, "r", "kept");
        sender.publish("r", b"passing", QoS::AtLeastOnce);
        for payload in ["kept", "passing"] {
            let message = live.message();
            assert_eq!((message.text().as_str(), message.publish().retain), (payload, false));
        }
        let (mut late, _) = Mqtt::connect(daemon.mqtt(), &Connect::new(version, "late"));
        late.subscribe("r", QoS::AtLeastOnce);
        let message = late.message();
        assert_eq!((message.text().as_str(), message.publish().retain), ("kept", true));
        retain(&mut sender, "r", "");
    }
}

// [MQTT-3.3.1-6], [MQTT-3.3.1-7]
#[test]
fn an_empty_message_is_delivered_and_never_retained() {
    let daemon = Daemon::start();
    let mut live = Mqtt::clean(daemon.mqtt(), "live");
    live.subscribe("r", QoS::AtLeastOnce);
    retain(&mut live, "r", "");
    next_is(&mut live, "");
    let mut late = Mqtt::clean(daemon.mqtt(), "late");
    late.subscribe("r", QoS::AtLeastOnce);
    late.publish("r", b"live", QoS::AtLeastOnce);
    next_is(&mut late, "live");
}

// [MQTT-3.3.1-9], [MQTT-3.3.1-10], [MQTT-3.3.1-11], [MQTT-3.8.4-3], [MQTT-3.8.4-4]
// [3.1.1: MQTT-3.8.4-3]
#[test]
fn a_subscription_that_is_made_again_brings_retained_messages_as_it_says() {
    let daemon = Daemon::start();
    let mut mqtt = Mqtt::clean(daemon.mqtt(), "client");
    retain(&mut mqtt, "r/a", "kept");
    let handled = |retain_handling| Subscription {
        retain_handling,
        ..Subscription::new("r/a", QoS::AtLeastOnce)
    };
    let [send, if_new, never] =
        [RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend].map(handled);
    // Each with what comes of it before a message that is sent next.
    let steps = [(if_new, true), (if_new, false), (never, false), (send, true), (send, true)];
    for (number, (subscription, brings)) in (1..).zip(steps) {
        subscribe(&mut mqtt, number, None, &[subscription]);
        mqtt.publish("r/a", b"live", QoS::AtMostOnce);
        if brings {
            next_is(&mut mqtt, "kept");
        }
        next_is(&mut mqtt, "live");
    }
    let (mut old, _) = Mqtt::connect(daemon.mqtt(), &Connect::new(Version::V311, "old"));
    for number in 1..3 {
        subscribe(&mut old, number, None, &[Subscription::new("r/a", QoS::AtMostOnce)]);
        next_is(&mut old, "kept");
    }
}

// --- PUBLISH, to a subscriber ---

// [MQTT-3.3.4-2], [MQTT-3.3.4-3], [MQTT-3.3.4-4], [MQTT-3.3.2-3]
#[test]
fn overlapping_subscriptions_bring_one_message_with_all_identifiers() {
    let daemon = Daemon::start();
    let mut mqtt = Mqtt::clean(daemon.mqtt(), "client");
    let filters = [("o/#", QoS::AtMostOnce), ("o/+", QoS::ExactlyOnce), ("o/a", QoS::AtLeastOnce)];
    for (number, (filter, qos)) in (1..).zip(filters) {
        let id = SubscriptionId::new(number);
        subscribe(&mut mqtt, number as u16, id, &[Subscription::new(filter, qos)]);
    }
    mqtt.publish("o/a", b"once", QoS::ExactlyOnce);
    mqtt.publish("o/b/c", b"next", QoS::ExactlyOnce);
    let message = mqtt.message();
    assert_eq!(message.text(), "once");
    assert_eq!(message.publish().delivery.qos(), QoS::ExactlyOnce);
    let ids = message.publish().properties.subscription_ids;
    let mut ids: Vec<u32> = ids.iter().map(SubscriptionId::get).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3]);
    let message = mqtt.message();
    assert_eq!(message.text(), "next", "no second copy");
    let ids = message.publish().properties.subscription_ids;
    assert_eq!(ids.iter().map(SubscriptionId::get).collect::<Vec<_>>(), [1]);
}

// [MQTT-1.5.4-3], [MQTT-4.7.3-4], [MQTT-3.3.2-3]
#[test]
fn names_are_compared_as_they_are_written() {
    let daemon = Daemon::start();
    let mut mqtt = Mqtt::clean(daemon.mqtt(), "client");
    mqtt.subscribe("\u{FEFF}caf\u{E9}/A", QoS::AtMostOnce);
    for other in
        ["caf\u{E9}/A", "\u{FEFF}cafe\u{301}/A", "\u{FEFF}caf\u{E9}/a", "\u{FEFF}caf\u{E9}/A/"]
    {
        mqtt.publish(other, b"other", QoS::AtMostOnce);
    }
    mqtt.publish("\u{FEFF}caf\u{E9}/A", b"same", QoS::AtMostOnce);
    let message = mqtt.message();
    assert_eq!((message.topic.as_str(), message.text().as_str()), ("\u{FEFF}caf\u{E9}/A", "same"));
}

// [MQTT-3.3.2-17], [MQTT-3.3.2-18]
#[test]
fn user_properties_keep_their_order_and_their_doubles() {
    let daemon = Daemon::start();
    let mut mqtt = Mqtt::clean(daemon.mqtt(), "client");
    mqtt.subscribe("p", QoS::AtLeastOnce);
    let pairs = [("z", "1"), ("a", "2"), ("z", "1"), ("", "")];
    let user_properties = UserProperties::new(&pairs);
    let properties = PublishProperties { user_properties, ..PublishProperties::default() };
    mqtt.publish_with("p", b"x", QoS::AtLeastOnce, false, properties);
    let message = mqtt.message();
    assert_eq!(message.publish().properties.user_properties.iter().collect::<Vec<_>>(), pairs);
}

// [MQTT-3.3.2-13], [MQTT-3.3.2-19], [MQTT-3.8.3-1], [MQTT-3.10.3-1], [MQTT-4.13.1-1]
#[test]
fn bad_strings_in_properties_and_filters_are_malformed() {
    let daemon = Daemon::start();
    let cases: [(&str, &[u8]); 4] = [
        ("a response topic", b"\x30\x08\x00\x01a\x04\x08\x00\x01\xFF"),
        ("a content type", b"\x30\x08\x00\x01a\x04\x03\x00\x01\xFF"),
        ("a filter to subscribe to", b"\x82\x07\x00\x01\x00\x00\x01\xFF\x00"),
        ("a filter to unsubscribe from", b"\xA2\x06\x00\x01\x00\x00\x01\xFF"),
    ];
    for (what, bytes) in cases {
        let mut mqtt = Mqtt::clean(daemon.mqtt(), "rude");
        mqtt.send_bytes(bytes);
        assert_eq!(ended_with(&mut mqtt), ReasonCode::MalformedPacket, "{what}");
    }
}

// [MQTT-3.3.1-1], [MQTT-3.3.1-3], [MQTT-4.3.2-2], [MQTT-4.3.3-2], [MQTT-4.3.3-7], [MQTT-4.4.0-1]
// [3.1.1: MQTT-4.4.0-1]
#[test]
fn what_is_sent_again_has_dup_and_nothing_else_has() {
    let daemon = Daemon::start();
    for version in VERSIONS {
        let (mut keeper, _) = Mqtt::connect(daemon.mqtt(), &kept(version, "keeper"));
        keeper.subscribe("dup", QoS::ExactlyOnce);
        let mut sender = Mqtt::clean(daemon.mqtt(), "sender");
        let properties =
            PublishProperties { message_expiry_s: Some(2), ..PublishProperties::default() };
        let deliveries = [
            Delivery::AtLeastOnce { packet_id: id(7), dup: true },
            Delivery::ExactlyOnce { packet_id: id(8), dup: true },
        ];
        for delivery in deliveries {
            let (topic, payload) = ("dup", &b"x"[..]);
            let publish = Publish { delivery, retain: false, topic, properties, payload };
            sender.send(&Packet::Publish(publish));
        }
        let flight =
            |mqtt: &mut Mqtt| [(); 2].map(|()| mqtt.message_unanswered().publish().delivery);
        let first = flight(&mut keeper);
        assert!(first.iter().all(|delivery| !delivery.dup()), "{first:?}");
        has_passed(Duration::from_millis(2500));
        keeper.ping();
        drop(keeper);
        let (mut keeper, _) = Mqtt::connect(daemon.mqtt(), &kept(version, "keeper"));
        let again = flight(&mut keeper);
        assert!(again.iter().all(|delivery| delivery.dup()), "{again:?}");
        assert_eq!(again.map(Delivery::packet_id), first.map(Delivery::packet_id));
        keeper.send(&Packet::Disconnect(Disconnect::default()));
        let clean = Connect { clean_start: true, ..kept(version, "keeper") };
        Mqtt::connect(daemon.mqtt(), &clean).0.disconnect();
    }
}

// [MQTT-4.3.3-4], [MQTT-4.4.0-2], [MQTT-2.2.1-5]
#[test]
fn a_pubrec_is_answered_with_pubrel_unless_it_refuses() {
    let daemon = Daemon::start();
    let mut mqtt = Mqtt::clean(daemon.mqtt(), "client");
    mqtt.subscribe("q", QoS::ExactlyOnce);
    for reason in [ReasonCode::UnspecifiedError, ReasonCode::Success] {
        mqtt.publish("q", b"x", QoS::ExactlyOnce);
        let packet_id = mqtt.message_unanswered().publish().delivery.packet_id().unwrap();
        mqtt.send(&Packet::PubRec(Ack::new(packet_id, reason)));
        mqtt.send(&Packet::PingReq);
        match mqtt.receive().packet() {
            Packet::PubRel(ack) => {
                assert_eq!((reason, ack.packet_id), (ReasonCode::Success, packet_id));
            }
            Packet::PingResp => assert!(reason.is_error()),
            other => panic!("{reason:?} was answered with {other:?}"),
        }
    }
}

// --- PUBLISH, from a client ---

// [MQTT-3.3.4-1], [MQTT-2.2.1-5], [MQTT-4.3.1-1], [MQTT-4.3.2-4], [MQTT-4.3.2-5], [MQTT-4.3.3-8]
// [MQTT-4.3.3-10], [MQTT-4.3.3-11], [MQTT-4.3.3-12]
#[test]
fn an_exchange_is_answered_as_its_qos_asks_and_its_identifier_is_free_afterwards() {
    let daemon = Daemon::start();
    for version in VERSIONS {
        let mut receiver = Mqtt::clean(daemon.mqtt(), "receiver");
        receiver.subscribe("x", QoS::AtMostOnce);
        let (mut mqtt, _) = Mqtt::connect(daemon.mqtt(), &Connect::new(version, "sender"));
        send(&mut mqtt, "x", "zero", Delivery::AtMostOnce);
        mqtt.send(&Packet::PingReq);
        assert!(matches!(mqtt.receive().packet(), Packet::PingResp), "QoS 0 has no answer");
        for (payload, dup) in [("one", false), ("another", true)] {
            send(&mut mqtt, "x", payload, Delivery::AtLeastOnce { packet_id: id(9), dup });
            let answer = mqtt.receive();
            let Packet::PubAck(ack) = answer.packet() else { panic!("no PUBACK") };
            assert_eq!(ack.packet_id, id(9));
        }
        for payload in ["two", "and two"] {
            for dup in [false, true] {
                send(&mut mqtt, "x", payload, Delivery::ExactlyOnce { packet_id: id(9), dup });
                let answer = mqtt.receive();
                let Packet::PubRec(ack) = answer.packet() else { panic!("no PUBREC") };
                assert_eq!((ack.packet_id, ack.reason.is_error()), (id(9), false));
            }
            mqtt.send(&Packet::PubRel(Ack::new(id(9), ReasonCode::Success)));
            let answer = mqtt.receive();
            let Packet::PubComp(ack) = answer.packet() else { panic!("no PUBCOMP") };
            assert_eq!((ack.packet_id, ack.reason), (id(9), ReasonCode::Success));
        }
        for payload in ["zero", "one", "another", "two", "and two"] {
            let message = receiver.message();
            assert_eq!(message.text(), payload, "each once");
            assert_eq!(message.publish().delivery, Delivery::AtMostOnce);
        }
    }
}

// [MQTT-4.3.3-13]
#[test]
fn an_exchange_of_a_message_that_expired_is_completed() {
    let daemon = Daemon::start();
    let mut mqtt = Mqtt::clean(daemon.mqtt(), "client");
    let delivery = Delivery::ExactlyOnce { packet_id: id(1), dup: false };
    let properties =
        PublishProperties { message_expiry_s: Some(1), ..PublishProperties::default() };
    let (retain, topic, payload) = (true, "short", &b"x"[..]);
    mqtt.send(&Packet::Publish(Publish { delivery, retain, topic, properties, payload }));
    assert!(matches!(mqtt.receive().packet(), Packet::PubRec(ack) if !ack.reason.is_error()));
    has_passed(Duration::from_millis(1500));
    mqtt.send(&Packet::PubRel(Ack::new(id(1), ReasonCode::Success)));
    let answer = mqtt.receive();
    let Packet::PubComp(ack) = answer.packet() else { panic!("no PUBCOMP") };
    assert_eq!((ack.packet_id, ack.reason), (id(1), ReasonCode::Success));
}

// [MQTT-4.3.3-9], [MQTT-3.5.2-1], [3.1.1: MQTT-3.3.5-2]
#[test]
fn a_publish_that_is_not_allowed_is_refused_and_leaves_its_identifier_free() {
    let daemon = Daemon::start();
    let mut mqtt = Mqtt::clean(daemon.mqtt(), "client");
    mqtt.subscribe("x", QoS::AtMostOnce);
    let delivery = Delivery::ExactlyOnce { packet_id: id(5), dup: false };
    send(&mut mqtt, "$SYS/mine", "refused", delivery);
    let answer = mqtt.receive();
    let Packet::PubRec(ack) = answer.packet() else { panic!("no PUBREC") };
    assert_eq!((ack.packet_id, ack.reason), (id(5), ReasonCode::NotAuthorized));
    send(&mut mqtt, "x", "new", delivery);
    next_is(&mut mqtt, "new");
    let (mut old, _) = Mqtt::connect(daemon.mqtt(), &Connect::new(Version::V311, "old"));
    send(&mut old, "$SYS/mine", "refused", delivery);
    assert!(old.receive_to_end().is_empty(), "3.1.1 has no word for it");
}

// --- SUBSCRIBE and UNSUBSCRIBE ---

// [MQTT-3.8.4-5], [MQTT-3.8.4-6], [MQTT-3.8.4-7], [MQTT-3.9.3-1], [3.1.1: MQTT-3.8.4-6]
#[test]
fn each_filter_is_granted_or_refused_in_its_place() {
    let daemon = Daemon::start_with(Options::config(&with_user()));
    for version in VERSIONS {
        let (mut mqtt, _) = Mqtt::connect(
            daemon.mqtt(),
            &Connect {
                user_name: Some("dashboard"),
                password: Some(Secret::new(b"geheim")),
                ..Connect::new(version, "dashboard")
            },
        );
        let list = [
            Subscription::new("d/a/#", QoS::AtLeastOnce),
            Subscription::new("secret", QoS::AtMostOnce),
            Subscription::new("d/b/#", QoS::ExactlyOnce),
            Subscription::new("d/c/#", QoS::AtMostOnce),
        ];
        let refusal = match version {
            Version::V311 => ReasonCode::UnspecifiedError,
            Version::V5 => ReasonCode::NotAuthorized,
        };
        let granted =
            [ReasonCode::GrantedQos1, refusal, ReasonCode::GrantedQos2, ReasonCode::Success];
        assert_eq!(subscribe(&mut mqtt, 77, None, &list), granted);
    }
}

// [MQTT-3.10.4-1], [MQTT-3.10.4-2], [MQTT-3.10.4-3], [MQTT-3.10.4-5], [MQTT-3.10.4-6]
// [MQTT-3.11.3-1]
#[test]
fn unsubscribing_ends_that_subscription_and_completes_what_is_in_flight() {
    let daemon = Daemon::start();
    let mut mqtt = Mqtt::clean(daemon.mqtt(), "client");
    for (number, filter) in [(1, "u/+"), (2, "u/a"), (3, "v")] {
        subscribe(&mut mqtt, number, None, &[Subscription::new(filter, QoS::ExactlyOnce)]);
    }
    mqtt.publish("v", b"in flight", QoS::ExactlyOnce);
    let flying = mqtt.message_unanswered().publish().delivery.packet_id().unwrap();
    let reasons = unsubscribe(&mut mqtt, 4, &["u/#", "v", "u/+", "U/A"]);
    let [gone, none] = [ReasonCode::Success, ReasonCode::NoSubscriptionExisted];
    assert_eq!(reasons, [none, gone, gone, none]);
    mqtt.send(&Packet::PubRec(Ack::new(flying, ReasonCode::Success)));
    mqtt.receive_where(|packet| match packet {
        Packet::PubRel(ack) if ack.packet_id == flying => Some(()),
        _ => None,
    });
    mqtt.send(&Packet::PubComp(Ack::new(flying, ReasonCode::Success)));
    for (topic, payload) in [("v", "lost"), ("u/b", "lost"), ("u/a", "still there")] {
        mqtt.publish(topic, payload.as_bytes(), QoS::AtMostOnce);
    }
    next_is(&mut mqtt, "still there");
}

// --- DISCONNECT ---

// [MQTT-3.14.4-1], [MQTT-3.14.4-2], [MQTT-3.14.2-2], [MQTT-3.1.4-3]
#[test]
fn nothing_comes_behind_the_brokers_disconnect() {
    let daemon = Daemon::start();
    let (mut first, _) = Mqtt::connect(daemon.mqtt(), &kept(Version::V5, "twin"));
    first.subscribe("t", QoS::AtLeastOnce);
    let (mut second, _) = Mqtt::connect(daemon.mqtt(), &kept(Version::V5, "twin"));
    second.publish("t", b"x", QoS::AtLeastOnce);
    next_is(&mut second, "x");
    let all = first.receive_to_end();
    let Packet::Disconnect(disconnect) = all[0].packet() else { panic!("{all:?}") };
    assert_eq!((all.len(), disconnect.reason), (1, ReasonCode::SessionTakenOver));
    assert_eq!(disconnect.properties.session_expiry_s, None);
}

// --- Shared subscriptions ---

/// Members of one group, each with the QoS that it is granted, and one who publishes.
fn group<const N: usize>(daemon: &Daemon, granted: [QoS; N]) -> (Mqtt, [Mqtt; N]) {
    let mut number = 0;
    let members = granted.map(|qos| {
        number += 1;
        let name = format!("member {number}");
        let (mut member, _) = Mqtt::connect(daemon.mqtt(), &kept(Version::V5, &name));
        assert_eq!(member.subscribe("$share/g/s", qos), qos.granted());
        member
    });
    (Mqtt::clean(daemon.mqtt(), "sender"), members)
}

/// The message that came to a member, if one did.
fn got(member: &mut Mqtt) -> Option<Delivery> {
    member.send(&Packet::PingReq);
    let received = member.receive();
    match received.packet() {
        Packet::PingResp => None,
        Packet::Publish(publish) => {
            let delivery = publish.delivery;
            member.receive_where(|packet| matches!(packet, Packet::PingResp).then_some(()));
            Some(delivery)
        }
        other => panic!("{other:?} is no PUBLISH"),
    }
}

// [MQTT-4.8.2-3]
#[test]
fn a_member_of_a_group_gets_messages_with_the_qos_that_it_was_granted() {
    let daemon = Daemon::start();
    let granted = [QoS::AtMostOnce, QoS::AtLeastOnce];
    let (mut sender, mut members) = group(&daemon, granted);
    sender.publish("s", b"x", QoS::ExactlyOnce);
    sender.publish("s", b"x", QoS::ExactlyOnce);
    for (member, qos) in members.iter_mut().zip(granted) {
        assert_eq!(member.message().publish().delivery.qos(), qos);
    }
}

// [MQTT-4.8.2-6]
#[test]
fn what_a_member_refuses_goes_to_nobody_else() {
    let daemon = Daemon::start();
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let (mut sender, mut members) = group(&daemon, [qos; 2]);
        sender.publish("s", b"x", qos);
        let taker = until("somebody has it", || {
            members.iter_mut().position(|member| got(member).is_some())
        });
        let refusal = Ack::new(PacketId::MIN, ReasonCode::UnspecifiedError);
        members[taker].send(&match qos {
            QoS::AtLeastOnce => Packet::PubAck(refusal),
            _ => Packet::PubRec(refusal),
        });
        assert_eq!(got(&mut members[taker]), None);
        assert_eq!(got(&mut members[1 - taker]), None, "{qos:?}");
        for (number, mut member) in (1..).zip(members) {
            member.send(&Packet::Disconnect(Disconnect::default()));
            let name = format!("member {number}");
            let clean = Connect { clean_start: true, ..Connect::new(Version::V5, &name) };
            Mqtt::connect(daemon.mqtt(), &clean).0.disconnect();
        }
    }
}

// [MQTT-4.8.2-4], [MQTT-4.8.2-5]
#[test]
fn a_qos_2_message_of_a_group_stays_with_the_member_that_it_went_to() {
    let daemon = Daemon::start();
    let (mut sender, members) = group(&daemon, [QoS::ExactlyOnce; 2]);
    let mut members = members.map(Some);
    sender.publish("s", b"x", QoS::ExactlyOnce);
    let taker = until("somebody has it", || {
        members.iter_mut().position(|member| member.as_mut().and_then(got).is_some())
    });
    members[taker] = None;
    let name = format!("member {}", taker + 1);
    let (mut back, _) = Mqtt::connect(daemon.mqtt(), &kept(Version::V5, &name));
    let again = back.message_unanswered().publish().delivery;
    assert!(again.dup(), "{again:?}");
    // It leaves for good before the exchange is complete.
    let clean = Connect { clean_start: true, ..kept(Version::V5, &name) };
    let (_, connack) = Mqtt::connect(daemon.mqtt(), &clean);
    assert!(!is_session_present(&connack));
    let other = members[1 - taker].as_mut().unwrap();
    assert_eq!(got(other), None);
}
