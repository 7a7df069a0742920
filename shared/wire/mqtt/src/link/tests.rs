use super::*;
use crate::decode::frame;
use crate::handshake::{AcceptOptions, AwaitingConnect, ServerLimits};
use crate::packet::{ConnAck, Connect, Delivery, Subscription, Subscriptions};
use crate::property::{
    ConnAckProperties, PublishProperties, SubscribeProperties, SubscriptionId, SubscriptionIds,
};
use Version::{V5, V311};

const ID: PacketId = PacketId::MIN;

fn link_of(connect: &Connect<'_>, limits: &ServerLimits) -> Link {
    let mut bytes = Vec::new();
    Packet::Connect(*connect).encode(connect.version, &mut bytes).unwrap();
    let frame = frame(&bytes, u32::MAX).unwrap().unwrap();
    let (connecting, _) = AwaitingConnect::new(0, limits).handle(0, &frame, limits).unwrap();
    let accepted = AcceptOptions::default();
    connecting.accept(0, limits, &accepted, &mut Vec::new()).unwrap()
}

fn link(version: Version) -> Link {
    link_of(&Connect::new(version, "c"), &ServerLimits::default())
}

fn publish(delivery: Delivery, topic: &str) -> Packet<'_> {
    let properties = PublishProperties::default();
    Packet::Publish(Publish { delivery, retain: false, topic, properties, payload: b"" })
}

fn qos1(packet_id: u16) -> Packet<'static> {
    let packet_id = PacketId::new(packet_id).unwrap();
    publish(Delivery::AtLeastOnce { packet_id, dup: false }, "t")
}

#[test]
fn an_idle_link_is_small() {
    assert_eq!(size_of::<Link>(), 40);
    assert!(link(V5).rare.is_none());
}

// [MQTT-3.1.0-2]
#[test]
fn mqtt_3_1_0_2_a_second_connect_is_a_protocol_error() {
    let connect = Packet::Connect(Connect::new(V5, "c"));
    let fault = link(V5).handle(0, connect).unwrap_err();
    assert_eq!(fault, Fault::SecondConnect);
    assert_eq!(fault.reason(), ReasonCode::ProtocolError);
    assert!(fault.is_violation());
    // One of another version could not even be decoded.
    let other = frame(b"\x10\x0D\x00\x04MQTT\x09\x02\0\0\0\x01c", 100).unwrap().unwrap();
    assert_eq!(link(V5).handle_frame(0, &other), Err(Fault::SecondConnect));
}

#[test]
fn packets_of_a_server_are_a_protocol_error() {
    let reasons = [ReasonCode::Success];
    let (properties, reasons) = (AckProperties::default(), ReasonCodes::new(&reasons));
    for packet in [
        Packet::ConnAck(crate::ConnAck::default()),
        Packet::SubAck(SubAck { packet_id: ID, properties, reasons }),
        Packet::UnsubAck(UnsubAck { packet_id: ID, properties, reasons }),
        Packet::PingResp,
    ] {
        let fault = link(V5).handle(0, packet).unwrap_err();
        assert_eq!(fault, Fault::Unexpected(packet.packet_type()));
    }
}

// [MQTT-3.1.2-22]
#[test]
fn mqtt_3_1_2_22_the_keep_alive_ends_after_one_and_a_half() {
    let mut connect = Connect::new(V311, "c");
    connect.keep_alive_s = 10;
    let mut link = link_of(&connect, &ServerLimits::default());
    assert_eq!(link.deadline(), Some(15_000));
    assert_eq!(link.handle_timeout(14_999), Ok(()));
    link.handle(14_000, Packet::PingReq).unwrap();
    assert_eq!(link.handle_timeout(15_000), Ok(()));
    let fault = link.handle_timeout(29_000).unwrap_err();
    assert_eq!(fault, Fault::KeepAliveTimeout);
    assert_eq!(fault.reason(), ReasonCode::KeepAliveTimeout);
    assert!(!fault.is_violation());
    connect.keep_alive_s = 0;
    let never = link_of(&connect, &ServerLimits::default());
    assert_eq!((never.deadline(), never.handle_timeout(u64::MAX)), (None, Ok(())));
}

// [MQTT-3.3.4-7]
#[test]
fn mqtt_3_3_4_7_more_than_receive_maximum_in_flight_is_a_fault() {
    let limits =
        ServerLimits { receive_max: NonZeroU16::new(2).unwrap(), ..ServerLimits::default() };
    let mut link = link_of(&Connect::new(V5, "c"), &limits);
    link.handle(0, qos1(1)).unwrap();
    let packet_id = PacketId::new(2).unwrap();
    link.handle(0, publish(Delivery::ExactlyOnce { packet_id, dup: false }, "t")).unwrap();
    link.handle(0, publish(Delivery::AtMostOnce, "t")).unwrap();
    assert!(link.is_receive_full());
    let out = &mut Vec::new();
    // A PUBREC of success keeps the room taken, PUBCOMP gives it back.
    link.pubrec(packet_id, ReasonCode::Success, out).unwrap();
    assert_eq!(link.receiving(), 2);
    link.pubcomp(packet_id, ReasonCode::PacketIdentifierNotFound, out).unwrap();
    assert_eq!(link.receiving(), 2);
    link.pubcomp(packet_id, ReasonCode::Success, out).unwrap();
    assert_eq!(link.receiving(), 1);
    link.handle(0, publish(Delivery::ExactlyOnce { packet_id, dup: false }, "t")).unwrap();
    link.pubrec(packet_id, ReasonCode::QuotaExceeded, out).unwrap();
    link.puback(ID, ReasonCode::Success, out).unwrap();
    assert_eq!(link.receiving(), 0);
    link.handle(0, qos1(1)).unwrap();
    link.handle(0, qos1(2)).unwrap();
    let fault = link.handle(0, qos1(3)).unwrap_err();
    assert_eq!(fault.reason(), ReasonCode::ReceiveMaximumExceeded);
}

#[test]
fn a_client_of_3_1_1_has_no_receive_maximum_but_fills_it() {
    let mut link = link(V311);
    for packet_id in 1..=100 {
        link.handle(0, qos1(packet_id)).unwrap();
    }
    assert!(link.is_receive_full());
    for _ in 0..37 {
        link.forget_received();
    }
    assert!(!link.is_receive_full());
}

// [MQTT-3.3.4-6]
#[test]
fn mqtt_3_3_4_6_a_client_sends_no_subscription_identifier() {
    let ids = [SubscriptionId::new(1).unwrap()];
    let subscription_ids = SubscriptionIds::new(&ids);
    let properties = PublishProperties { subscription_ids, ..PublishProperties::default() };
    let delivery = Delivery::AtMostOnce;
    let packet = Publish { delivery, retain: false, topic: "t", properties, payload: b"" };
    let fault = link(V5).handle(0, Packet::Publish(packet)).unwrap_err();
    assert_eq!(fault, Fault::SubscriptionIdFromClient);
}

// [MQTT-3.3.2-7]
#[test]
fn mqtt_3_3_2_7_an_alias_is_resolved_within_one_connection() {
    let aliased = |topic| {
        let topic_alias = NonZeroU16::new(1);
        let properties = PublishProperties { topic_alias, ..PublishProperties::default() };
        let delivery = Delivery::AtMostOnce;
        Packet::Publish(Publish { delivery, retain: false, topic, properties, payload: b"" })
    };
    let mut first = link(V5);
    for topic in ["a/b", ""] {
        let Ok(Event::Publish { topic, .. }) = first.handle(0, aliased(topic)) else { panic!() };
        assert_eq!(&*topic, "a/b");
    }
    let fault = link(V5).handle(0, aliased("")).unwrap_err();
    assert_eq!(fault, Fault::TopicAliasUnknown(1));
}

#[test]
fn names_and_filters_beyond_the_limits_are_faults() {
    let topics = TopicLimits { bytes_max: 100, levels_max: 2 };
    let limits = ServerLimits { topics, ..ServerLimits::default() };
    let mut link = link_of(&Connect::new(V5, "c"), &limits);
    assert!(link.handle(0, publish(Delivery::AtMostOnce, "a/b")).is_ok());
    let fault = link.handle(0, publish(Delivery::AtMostOnce, "a/b/c")).unwrap_err();
    assert_eq!(fault.reason(), ReasonCode::TopicNameInvalid);
    let list =
        [Subscription::new("a", QoS::AtMostOnce), Subscription::new("a/b/#", QoS::AtMostOnce)];
    let subscribe = Packet::Subscribe(Subscribe {
        packet_id: ID,
        properties: SubscribeProperties::default(),
        subscriptions: Subscriptions::new(&list),
    });
    let fault = link.handle(0, subscribe).unwrap_err();
    assert_eq!(fault.reason(), ReasonCode::TopicFilterInvalid);
}

// [MQTT-4.12.0-7], [MQTT-4.12.1-1]
#[test]
fn mqtt_4_12_0_6_auth_needs_the_method_of_connect() {
    let auth = |auth_method, reason| {
        let properties = AuthProperties { auth_method, ..AuthProperties::default() };
        Packet::Auth(Auth { reason, properties })
    };
    let again = ReasonCode::ReAuthenticate;
    let without = link(V5).handle(0, auth(Some("m"), again)).unwrap_err();
    assert_eq!(without, Fault::AuthenticationMethod);
    let out = &mut Vec::new();
    assert_eq!(link(V5).auth(again, None, out), Err(EncodeError::Forbidden));

    let mut connect = Connect::new(V5, "c");
    connect.properties.auth_method = Some("m");
    let mut link = link_of(&connect, &ServerLimits::default());
    assert!(matches!(link.handle(0, auth(Some("m"), again)), Ok(Event::Auth(_))));
    // [MQTT-4.12.1-1]
    let other = link.handle(0, auth(Some("n"), again)).unwrap_err();
    assert_eq!(other, Fault::AuthenticationMethod);
    let success = link.handle(0, auth(Some("m"), ReasonCode::Success)).unwrap_err();
    assert_eq!(success, Fault::ReasonNotAllowed(ReasonCode::Success));
    link.auth(ReasonCode::Success, Some(b"x"), out).unwrap();
    assert_eq!(out, b"\xF0\x0A\x00\x08\x15\0\x01m\x16\0\x01x");
}

#[test]
fn a_session_of_expiry_0_is_not_made_to_last() {
    let disconnect = |session_expiry_s| {
        let properties = DisconnectProperties { session_expiry_s, ..Default::default() };
        Packet::Disconnect(Disconnect { reason: ReasonCode::Success, properties })
    };
    let fault = link(V5).handle(0, disconnect(Some(1))).unwrap_err();
    assert_eq!(fault, Fault::SessionExpiryRaised);
    assert!(link(V5).handle(0, disconnect(Some(0))).is_ok());
    let mut connect = Connect::new(V5, "c");
    connect.properties.session_expiry_s = Some(5);
    let mut lasting = link_of(&connect, &ServerLimits::default());
    assert!(lasting.handle(0, disconnect(Some(100))).is_ok());
}

// [MQTT-3.1.2-29]
#[test]
fn mqtt_3_1_2_29_problem_information_is_left_out_where_it_is_not_wanted() {
    let properties = AckProperties { reason_string: Some("why"), ..AckProperties::default() };
    let puback = Packet::PubAck(Ack { packet_id: ID, reason: ReasonCode::Success, properties });
    let mut connect = Connect::new(V5, "c");
    for (wants, len) in [(None, 12), (Some(true), 12), (Some(false), 4)] {
        connect.properties.request_problem_info = wants;
        let mut link = link_of(&connect, &ServerLimits::default());
        let mut out = Vec::new();
        link.send(&puback, &mut out).unwrap();
        assert_eq!(out.len(), len, "{wants:?}");
        // DISCONNECT may say why in any case.
        let mut out = Vec::new();
        link.disconnect(ReasonCode::ServerBusy, Some("why"), &mut out).unwrap();
        assert_eq!(out.len(), 10);
    }
}

// [MQTT-3.1.2-24], [MQTT-3.14.2-3]
#[test]
fn mqtt_3_1_2_24_no_packet_is_larger_than_the_client_takes() {
    let mut connect = Connect::new(V5, "c");
    connect.properties.packet_bytes_max = std::num::NonZeroU32::new(8);
    let limits = ServerLimits::default();
    let mut bytes = Vec::new();
    Packet::Connect(connect).encode(V5, &mut bytes).unwrap();
    let connect_frame = frame(&bytes, 1000).unwrap().unwrap();
    let connecting = AwaitingConnect::new(0, &limits).handle(0, &connect_frame, &limits).unwrap().0;
    let accepted = AcceptOptions::default();
    let refused = connecting.accept(0, &limits, &accepted, &mut Vec::new());
    assert!(matches!(refused, Err(EncodeError::TooLarge { max: 8, .. })));

    connect.properties.packet_bytes_max = std::num::NonZeroU32::new(20);
    let mut link = link_of(&connect, &limits);
    assert_eq!(link.peer_packet_bytes_max(), 20);
    let mut out = Vec::new();
    let head = PublishHead::new(Delivery::AtMostOnce, "t", 14);
    link.publish_head(&head, &mut out).unwrap();
    assert_eq!(out.len() + 14, 20);
    out.clear();
    let head = PublishHead::new(Delivery::AtMostOnce, "t", 15);
    let error = EncodeError::TooLarge { len: 21, max: 20 };
    assert_eq!(link.publish_head(&head, &mut out), Err(error));
    assert!(out.is_empty());
    // A reason string that does not fit is left out.
    link.disconnect(ReasonCode::ServerBusy, Some(&"why".repeat(9)), &mut out).unwrap();
    assert_eq!(out, [0xE0, 1, 0x89]);
}

// [MQTT-3.2.2-19], [MQTT-3.2.2-20], [MQTT-3.4.2-2], [MQTT-3.4.2-3], [MQTT-3.5.2-2]
// [MQTT-3.5.2-3], [MQTT-3.6.2-2], [MQTT-3.6.2-3], [MQTT-3.7.2-2], [MQTT-3.7.2-3]
// [MQTT-3.9.2-1], [MQTT-3.9.2-2], [MQTT-3.11.2-1], [MQTT-3.11.2-2], [MQTT-3.14.2-3]
// [MQTT-3.14.2-4], [MQTT-3.15.2-2], [MQTT-3.15.2-3]
#[test]
fn words_for_a_person_are_left_out_where_they_would_not_fit() {
    let pairs = [("name", "value")];
    for (reason_string, pairs) in [(Some("why"), &[][..]), (None, &pairs[..])] {
        let user_properties = UserProperties::new(pairs);
        let properties = AckProperties { reason_string, user_properties };
        let ack = Ack { packet_id: ID, reason: ReasonCode::Success, properties };
        let codes = [ReasonCode::Success];
        let reasons = ReasonCodes::new(&codes);
        let auth_method = Some("m");
        let packets = [
            Packet::PubAck(ack),
            Packet::PubRec(ack),
            Packet::PubRel(ack),
            Packet::PubComp(ack),
            Packet::SubAck(SubAck { packet_id: ID, properties, reasons }),
            Packet::UnsubAck(UnsubAck { packet_id: ID, properties, reasons }),
            Packet::ConnAck(ConnAck {
                session_present: false,
                reason: ReasonCode::Success,
                properties: ConnAckProperties {
                    reason_string,
                    user_properties,
                    ..ConnAckProperties::default()
                },
            }),
            Packet::Disconnect(Disconnect {
                reason: ReasonCode::ServerBusy,
                properties: DisconnectProperties {
                    reason_string,
                    user_properties,
                    ..DisconnectProperties::default()
                },
            }),
            Packet::Auth(Auth {
                reason: ReasonCode::ContinueAuthentication,
                properties: AuthProperties {
                    auth_method,
                    reason_string,
                    user_properties,
                    ..AuthProperties::default()
                },
            }),
        ];
        for packet in packets {
            let whole = packet.encoded_len(V5).unwrap();
            let bare = without_problem_info(&packet).encoded_len(V5).unwrap();
            assert!(bare < whole, "{packet:?}");
            for (max, len) in [(whole, whole), (whole - 1, bare), (bare, bare)] {
                let mut out = Vec::new();
                encode_within(&packet, V5, max as u32, &mut out).unwrap();
                assert_eq!(out.len(), len, "{packet:?} within {max}");
            }
        }
    }
}

#[test]
fn a_server_of_3_1_1_sends_no_disconnect() {
    let mut out = Vec::new();
    link(V311).disconnect(ReasonCode::ServerBusy, None, &mut out).unwrap();
    assert!(out.is_empty());
}

// [MQTT-3.1.2-26], [MQTT-3.1.2-27], [MQTT-3.3.2-11]
#[test]
fn mqtt_3_1_2_27_without_a_topic_alias_maximum_no_alias_is_given() {
    let limits = ServerLimits { outbound_alias_max: 16, ..ServerLimits::default() };
    let mut connect = Connect::new(V5, "c");
    assert_eq!(link_of(&connect, &limits).outbound_alias("t"), None);
    connect.properties.topic_alias_max = Some(1);
    let mut link = link_of(&connect, &limits);
    let one = NonZeroU16::MIN;
    assert_eq!(link.outbound_alias("t"), Some(OutboundAlias::Establish(one)));
    assert_eq!(link.outbound_alias("t"), Some(OutboundAlias::Use(one)));
    assert_eq!(link.outbound_alias("u"), None);
}

// [MQTT-3.1.2-26], [MQTT-3.1.2-27], [MQTT-3.3.2-11]
#[test]
fn mqtt_3_1_2_26_an_alias_that_many_share_is_told_once_and_not_above_the_maximum() {
    let limits = ServerLimits { outbound_alias_max: 16, ..ServerLimits::default() };
    let mut connect = Connect::new(V5, "c");
    let (one, two) = (NonZeroU16::MIN, NonZeroU16::MIN.saturating_add(1));
    assert!(!link_of(&connect, &limits).takes_aliases());
    assert_eq!(link_of(&connect, &limits).shared_alias(one, 7), None);
    connect.properties.topic_alias_max = Some(1);
    let mut link = link_of(&connect, &limits);
    assert_eq!(link.shared_alias(two, 7), None);
    assert_eq!(link.shared_alias(one, 7), Some(OutboundAlias::Establish(one)));
    link.note_shared_alias(one, 7);
    assert_eq!(link.shared_alias(one, 7), Some(OutboundAlias::Use(one)));
    assert_eq!(link.shared_alias(one, 8), Some(OutboundAlias::Establish(one)));
}

// [MQTT-2.2.1-6], [MQTT-3.8.4-1], [MQTT-3.8.4-2], [MQTT-3.10.4-4], [MQTT-3.12.4-1]
#[test]
fn mqtt_3_8_4_and_3_10_4_and_3_12_4_every_request_has_its_answer() {
    let mut link = link(V5);
    let mut out = Vec::new();
    link.suback(ID, &[ReasonCode::GrantedQos1, ReasonCode::NotAuthorized], &mut out).unwrap();
    link.unsuback(ID, &[ReasonCode::NoSubscriptionExisted], &mut out).unwrap();
    link.pingresp(&mut out).unwrap();
    link.pubrel(ID, ReasonCode::Success, &mut out).unwrap();
    let expected = b"\x90\x05\0\x01\0\x01\x87\xB0\x04\0\x01\0\x11\xD0\0\x62\x02\0\x01";
    assert_eq!(out, expected);
}
