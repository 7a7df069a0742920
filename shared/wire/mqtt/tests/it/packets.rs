//! Strategies for every packet. What a packet borrows is leaked: a test process is short, and
//! packets stay `Copy`.

use std::num::{NonZeroU16, NonZeroU32};

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use sextant_mqtt::{
    Ack, AckProperties, Auth, AuthProperties, ConnAck, ConnAckProperties, Connect,
    ConnectProperties, Delivery, Disconnect, DisconnectProperties, Filters, Packet, PacketId,
    PacketType, PayloadFormat, Publish, PublishProperties, QoS, ReasonCode, ReasonCodes,
    RetainHandling, Secret, SubAck, Subscribe, SubscribeProperties, Subscription, SubscriptionId,
    SubscriptionIds, Subscriptions, UnsubAck, Unsubscribe, UnsubscribeProperties, UserProperties,
    Version, Will, WillProperties,
};

fn leak<T: 'static + Clone>(list: Vec<T>) -> &'static [T] {
    Vec::leak(list)
}

/// Words of one to four bytes a character, and now and then a long one.
pub(crate) fn text() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        8 => "[a-zé€𝄞 #+/$]{0,12}",
        1 => "[a-z]{120,140}",
    ]
    .prop_map(|text| &*text.leak())
}

fn bytes() -> impl Strategy<Value = &'static [u8]> {
    vec(any::<u8>(), 0..20).prop_map(leak)
}

pub(crate) fn topic() -> impl Strategy<Value = &'static str> {
    "\\$?[a-zé€]{1,3}(/[a-z]{0,3}){0,4}".prop_map(|text| &*text.leak())
}

fn filter() -> impl Strategy<Value = &'static str> {
    "(\\$share/[a-z]{1,3}/)?([a-z]{1,3}|\\+)(/([a-z]{0,3}|\\+)){0,3}(/#)?"
        .prop_map(|text| &*text.leak())
}

pub(crate) fn packet_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|value| PacketId::new(value).unwrap())
}

fn non_zero_u16() -> impl Strategy<Value = NonZeroU16> {
    (1..=u16::MAX).prop_map(|value| NonZeroU16::new(value).unwrap())
}

fn non_zero_u32() -> impl Strategy<Value = NonZeroU32> {
    (1..=u32::MAX).prop_map(|value| NonZeroU32::new(value).unwrap())
}

fn qos() -> impl Strategy<Value = QoS> {
    (0u8..3).prop_map(|value| QoS::from_u8(value).unwrap())
}

fn user_properties() -> impl Strategy<Value = UserProperties<'static>> {
    vec((text(), text()), 0..3).prop_map(|pairs| UserProperties::new(leak(pairs)))
}

fn payload_format() -> impl Strategy<Value = PayloadFormat> {
    prop_oneof![Just(PayloadFormat::Bytes), Just(PayloadFormat::Text)]
}

fn reason(packet: PacketType) -> impl Strategy<Value = ReasonCode> {
    let allowed: Vec<_> =
        ReasonCode::ALL.iter().copied().filter(|reason| reason.allowed_in(packet)).collect();
    prop::sample::select(allowed)
}

fn subscription_id() -> impl Strategy<Value = SubscriptionId> {
    prop_oneof![1u32..300, 1u32..=268_435_455].prop_map(|value| SubscriptionId::new(value).unwrap())
}

prop_compose! {
    fn connect_properties()(
        session_expiry_s in of(any::<u32>()),
        receive_max in of(non_zero_u16()),
        packet_bytes_max in of(non_zero_u32()),
        topic_alias_max in of(any::<u16>()),
        request_response_info in of(any::<bool>()),
        request_problem_info in of(any::<bool>()),
        auth in of((text(), of(bytes()))),
        user_properties in user_properties(),
    ) -> ConnectProperties<'static> {
        ConnectProperties {
            session_expiry_s, receive_max, packet_bytes_max, topic_alias_max,
            request_response_info, request_problem_info, user_properties,
            auth_method: auth.map(|(method, _)| method),
            auth_data: auth.and_then(|(_, data)| data).map(Secret::new),
        }
    }
}

prop_compose! {
    fn will()(
        qos in qos(),
        retain in any::<bool>(),
        topic in topic(),
        payload in bytes(),
        will_delay_s in of(any::<u32>()),
        payload_format in of(payload_format()),
        message_expiry_s in of(any::<u32>()),
        content_type in of(text()),
        response_topic in of(topic()),
        correlation_data in of(bytes()),
        user_properties in user_properties(),
    ) -> Will<'static> {
        let properties = WillProperties {
            will_delay_s, payload_format, message_expiry_s, content_type, response_topic,
            correlation_data, user_properties,
        };
        Will { qos, retain, topic, payload, properties }
    }
}

prop_compose! {
    fn connect(version: Version)(
        clean_start in any::<bool>(),
        keep_alive_s in any::<u16>(),
        client_id in text(),
        will in of(will()),
        login in of((text(), of(bytes()))),
        properties in connect_properties(),
    ) -> Packet<'static> {
        let mut connect = Connect {
            version, clean_start, keep_alive_s, client_id, will,
            user_name: login.map(|(name, _)| name),
            password: login.and_then(|(_, password)| password).map(Secret::new),
            properties,
        };
        if version == Version::V311 {
            connect.properties = ConnectProperties::default();
            connect.will = will.map(|will| Will { properties: WillProperties::default(), ..will });
        }
        Packet::Connect(connect)
    }
}

prop_compose! {
    fn connack_limits()(
        session_expiry_s in of(any::<u32>()),
        receive_max in of(non_zero_u16()),
        qos_max in of(prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce)]),
        retain_available in of(any::<bool>()),
        packet_bytes_max in of(non_zero_u32()),
        topic_alias_max in of(any::<u16>()),
        wildcards_available in of(any::<bool>()),
        subscription_ids_available in of(any::<bool>()),
        shared_available in of(any::<bool>()),
        server_keep_alive_s in of(any::<u16>()),
    ) -> ConnAckProperties<'static> {
        ConnAckProperties {
            session_expiry_s, receive_max, qos_max, retain_available, packet_bytes_max,
            topic_alias_max, wildcards_available, subscription_ids_available, shared_available,
            server_keep_alive_s, ..ConnAckProperties::default()
        }
    }
}

prop_compose! {
    fn connack(version: Version)(
        session_present in any::<bool>(),
        reason in reason(PacketType::ConnAck),
        limits in connack_limits(),
        assigned_client_id in of(text()),
        reason_string in of(text()),
        response_info in of(text()),
        server_reference in of(text()),
        auth in of((text(), of(bytes()))),
        user_properties in user_properties(),
    ) -> Packet<'static> {
        // Of the codes of MQTT 5 the ones that 3.1.1 keeps.
        let reason = ReasonCode::from_connack_code(reason.connack_code(version), version).unwrap();
        let properties = match version {
            Version::V311 => ConnAckProperties::default(),
            Version::V5 => ConnAckProperties {
                assigned_client_id, reason_string, response_info, server_reference,
                user_properties,
                auth_method: auth.map(|(method, _)| method),
                auth_data: auth.and_then(|(_, data)| data).map(Secret::new),
                ..limits
            },
        };
        let session_present = session_present && reason == ReasonCode::Success;
        Packet::ConnAck(ConnAck { session_present, reason, properties })
    }
}

fn delivery() -> impl Strategy<Value = Delivery> {
    (qos(), packet_id(), any::<bool>())
        .prop_map(|(qos, packet_id, dup)| Delivery::new(qos, Some(packet_id), dup).unwrap())
}

prop_compose! {
    fn publish_properties()(
        payload_format in of(payload_format()),
        message_expiry_s in of(any::<u32>()),
        topic_alias in of(non_zero_u16()),
        response_topic in of(topic()),
        correlation_data in of(bytes()),
        ids in vec(subscription_id(), 0..3),
        content_type in of(text()),
        user_properties in user_properties(),
    ) -> PublishProperties<'static> {
        PublishProperties {
            payload_format, message_expiry_s, topic_alias, response_topic, correlation_data,
            content_type, user_properties,
            subscription_ids: SubscriptionIds::new(leak(ids)),
        }
    }
}

prop_compose! {
    fn publish(version: Version)(
        delivery in delivery(),
        retain in any::<bool>(),
        topic in topic(),
        no_topic in any::<bool>(),
        properties in publish_properties(),
        payload in prop_oneof![bytes(), vec(any::<u8>(), 100..300).prop_map(leak)],
    ) -> Packet<'static> {
        let properties = match version {
            Version::V311 => PublishProperties::default(),
            Version::V5 => properties,
        };
        let topic = if no_topic && properties.topic_alias.is_some() { "" } else { topic };
        Packet::Publish(Publish { delivery, retain, topic, properties, payload })
    }
}

prop_compose! {
    fn ack_properties(version: Version)(
        reason_string in of(text()),
        user_properties in user_properties(),
    ) -> AckProperties<'static> {
        match version {
            Version::V311 => AckProperties::default(),
            Version::V5 => AckProperties { reason_string, user_properties },
        }
    }
}

fn ack(version: Version) -> impl Strategy<Value = Packet<'static>> {
    let of_kind = move |kind: PacketType, make: fn(Ack<'static>) -> Packet<'static>| {
        (packet_id(), reason(kind), ack_properties(version)).prop_map(
            move |(packet_id, reason, properties)| {
                let reason = if version == Version::V311 { ReasonCode::Success } else { reason };
                make(Ack { packet_id, reason, properties })
            },
        )
    };
    prop_oneof![
        of_kind(PacketType::PubAck, Packet::PubAck),
        of_kind(PacketType::PubRec, Packet::PubRec),
        of_kind(PacketType::PubRel, Packet::PubRel),
        of_kind(PacketType::PubComp, Packet::PubComp),
    ]
}

prop_compose! {
    fn subscription(version: Version)(
        filter in filter(),
        qos in qos(),
        no_local in any::<bool>(),
        retain_as_published in any::<bool>(),
        retain_handling in prop_oneof![
            Just(RetainHandling::Send),
            Just(RetainHandling::SendIfNew),
            Just(RetainHandling::DoNotSend),
        ],
    ) -> Subscription<'static> {
        match version {
            Version::V311 => Subscription::new(filter, qos),
            Version::V5 => Subscription {
                filter, qos, retain_as_published, retain_handling,
                no_local: no_local && !filter.starts_with("$share/"),
            },
        }
    }
}

prop_compose! {
    fn subscribe(version: Version)(
        packet_id in packet_id(),
        subscription_id in of(subscription_id()),
        user_properties in user_properties(),
        list in vec(subscription(version), 1..4),
    ) -> Packet<'static> {
        let properties = match version {
            Version::V311 => SubscribeProperties::default(),
            Version::V5 => SubscribeProperties { subscription_id, user_properties },
        };
        let subscriptions = Subscriptions::new(leak(list));
        Packet::Subscribe(Subscribe { packet_id, properties, subscriptions })
    }
}

prop_compose! {
    fn suback(version: Version)(
        packet_id in packet_id(),
        properties in ack_properties(version),
        list in vec(reason(PacketType::SubAck), 1..5),
    ) -> Packet<'static> {
        let list = list.into_iter().map(|reason| {
            ReasonCode::from_u8(reason.suback_code(version)).unwrap()
        });
        let reasons = ReasonCodes::new(leak(list.collect()));
        Packet::SubAck(SubAck { packet_id, properties, reasons })
    }
}

prop_compose! {
    fn unsubscribe(version: Version)(
        packet_id in packet_id(),
        user_properties in user_properties(),
        list in vec(filter(), 1..4),
    ) -> Packet<'static> {
        let properties = match version {
            Version::V311 => UnsubscribeProperties::default(),
            Version::V5 => UnsubscribeProperties { user_properties },
        };
        Packet::Unsubscribe(Unsubscribe { packet_id, properties, filters: Filters::new(leak(list)) })
    }
}

prop_compose! {
    fn unsuback(version: Version)(
        packet_id in packet_id(),
        properties in ack_properties(version),
        list in vec(reason(PacketType::UnsubAck), 1..5),
    ) -> Packet<'static> {
        let list = if version == Version::V311 { Vec::new() } else { list };
        Packet::UnsubAck(UnsubAck { packet_id, properties, reasons: ReasonCodes::new(leak(list)) })
    }
}

prop_compose! {
    fn disconnect(version: Version)(
        reason in reason(PacketType::Disconnect),
        session_expiry_s in of(any::<u32>()),
        reason_string in of(text()),
        server_reference in of(text()),
        user_properties in user_properties(),
    ) -> Packet<'static> {
        Packet::Disconnect(match version {
            Version::V311 => Disconnect::default(),
            Version::V5 => Disconnect {
                reason,
                properties: DisconnectProperties {
                    session_expiry_s, reason_string, server_reference, user_properties,
                },
            },
        })
    }
}

prop_compose! {
    fn auth()(
        reason in reason(PacketType::Auth),
        method in text(),
        data in of(bytes()),
        reason_string in of(text()),
        user_properties in user_properties(),
    ) -> Packet<'static> {
        let properties = AuthProperties {
            auth_method: Some(method),
            auth_data: data.map(Secret::new),
            reason_string,
            user_properties,
        };
        Packet::Auth(Auth { reason, properties })
    }
}

/// Any packet that a client or a server can send in `version`.
pub(crate) fn packet(version: Version) -> BoxedStrategy<Packet<'static>> {
    let both = prop_oneof![
        2 => connect(version),
        2 => connack(version),
        4 => publish(version),
        2 => ack(version),
        2 => subscribe(version),
        1 => suback(version),
        1 => unsubscribe(version),
        1 => unsuback(version),
        1 => disconnect(version),
        1 => prop_oneof![Just(Packet::PingReq), Just(Packet::PingResp)],
    ];
    match version {
        Version::V311 => both.boxed(),
        Version::V5 => prop_oneof![15 => both, 1 => auth()].boxed(),
    }
}

/// A version and a packet of it.
pub(crate) fn any_packet() -> impl Strategy<Value = (Version, Packet<'static>)> {
    prop_oneof![Just(Version::V311), Just(Version::V5)]
        .prop_flat_map(|version| (Just(version), packet(version)))
}

/// The packet's bytes.
pub(crate) fn encoded(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    packet.encode(version, &mut out).unwrap();
    assert_eq!(packet.encoded_len(version), Ok(out.len()));
    out
}

/// The one packet that `bytes` are.
pub(crate) fn decoded(bytes: &[u8], version: Version) -> Packet<'_> {
    let frame = sextant_mqtt::frame(bytes, u32::MAX).unwrap().unwrap();
    assert_eq!(frame.total_len, bytes.len());
    Packet::decode(&frame, version).unwrap()
}
