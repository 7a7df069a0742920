//! Two codecs of other people must read in our bytes what we meant, and we in theirs: every
//! packet goes ours → theirs → ours and comes back the same.
//!
//! `mqtt-protocol-core` covers both versions and all packets. `rumqttc` covers both versions
//! too; what it is known to do otherwise is listed, with the reason, in [`rumqttc_reads`].

use std::num::NonZeroU16;
use std::sync::Arc;

use bytes::BytesMut;
use mqtt_protocol_core::mqtt::packet::{v3_1_1 as core311, v5_0 as core5};
use proptest::prelude::*;
use rumqttc::mqttbytes::v4 as rumq311;
use rumqttc::v5::mqttbytes::v5 as rumq5;
use sextant_mqtt::{
    ConnAckProperties, DisconnectProperties, Packet, PacketId, PacketType, ReasonCode,
    RetainHandling, Secret, Version, frame,
};

use crate::packets::{any_packet, decoded, encoded};

/// Parses `$body` as the packet `$type` of mqtt-protocol-core and writes it again.
macro_rules! core {
    ($type:path, $body:expr) => {{
        let (packet, used) = <$type>::parse($body).map_err(|error| format!("{error:?}"))?;
        assert_eq!(used, $body.len(), "all bytes were read");
        Ok(packet.to_continuous_buffer())
    }};
}

fn through_core(version: Version, bytes: &[u8]) -> Result<Vec<u8>, String> {
    let whole = frame(bytes, u32::MAX).unwrap().unwrap();
    let body = whole.body;
    let flags = whole.first_byte & 15;
    match (version, whole.packet_type().unwrap()) {
        (Version::V311, PacketType::Publish) => core311::Publish::parse(flags, Arc::from(body))
            .map(|(packet, _)| packet.to_continuous_buffer())
            .map_err(|error| format!("{error:?}")),
        (Version::V5, PacketType::Publish) => core5::Publish::parse(flags, Arc::from(body))
            .map(|(packet, _)| packet.to_continuous_buffer())
            .map_err(|error| format!("{error:?}")),
        (Version::V311, kind) => match kind {
            PacketType::Connect => core!(core311::Connect, body),
            PacketType::ConnAck => core!(core311::Connack, body),
            PacketType::PubAck => core!(core311::Puback, body),
            PacketType::PubRec => core!(core311::Pubrec, body),
            PacketType::PubRel => core!(core311::Pubrel, body),
            PacketType::PubComp => core!(core311::Pubcomp, body),
            PacketType::Subscribe => core!(core311::Subscribe, body),
            PacketType::SubAck => core!(core311::Suback, body),
            PacketType::Unsubscribe => core!(core311::Unsubscribe, body),
            PacketType::UnsubAck => core!(core311::Unsuback, body),
            PacketType::PingReq => core!(core311::Pingreq, body),
            PacketType::PingResp => core!(core311::Pingresp, body),
            PacketType::Disconnect => core!(core311::Disconnect, body),
            PacketType::Publish | PacketType::Auth => unreachable!(),
        },
        (Version::V5, kind) => match kind {
            PacketType::Connect => core!(core5::Connect, body),
            PacketType::ConnAck => core!(core5::Connack, body),
            PacketType::PubAck => core!(core5::Puback, body),
            PacketType::PubRec => core!(core5::Pubrec, body),
            PacketType::PubRel => core!(core5::Pubrel, body),
            PacketType::PubComp => core!(core5::Pubcomp, body),
            PacketType::Subscribe => core!(core5::Subscribe, body),
            PacketType::SubAck => core!(core5::Suback, body),
            PacketType::Unsubscribe => core!(core5::Unsubscribe, body),
            PacketType::UnsubAck => core!(core5::Unsuback, body),
            PacketType::PingReq => core!(core5::Pingreq, body),
            PacketType::PingResp => core!(core5::Pingresp, body),
            PacketType::Disconnect => core!(core5::Disconnect, body),
            PacketType::Auth => core!(core5::Auth, body),
            PacketType::Publish => unreachable!(),
        },
    }
}

fn through_rumqttc(version: Version, bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut input = BytesMut::from(bytes);
    let mut output = BytesMut::new();
    match version {
        Version::V311 => rumq311::Packet::read(&mut input, usize::MAX)
            .and_then(|packet| packet.write(&mut output, usize::MAX))
            .map_err(|error| format!("{error:?}"))?,
        Version::V5 => rumq5::Packet::read(&mut input, None)
            .and_then(|packet| {
                check_fields(&decoded(bytes, version), &packet);
                packet.write(&mut output, None)
            })
            .map_err(|error| format!("{error:?}"))?,
    };
    assert!(input.is_empty(), "all bytes were read");
    Ok(output.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn mqtt_protocol_core_and_we_mean_the_same(
        (version, packet) in any_packet()
            .prop_filter("what mqtt-protocol-core reads", |(_, packet)| core_reads(packet)),
    ) {
        let ours = encoded(&packet, version);
        let theirs = through_core(version, &ours)
            .map_err(|error| TestCaseError::fail(format!("{error} for {ours:x?}")))?;
        prop_assert_eq!(decoded(&theirs, version), packet);
    }

    #[test]
    fn rumqttc_and_we_mean_the_same(
        (version, packet) in any_packet()
            .prop_filter("what rumqttc reads", |(version, packet)| rumqttc_reads(*version, packet)),
    ) {
        let ours = encoded(&packet, version);
        let theirs = through_rumqttc(version, &ours)
            .map_err(|error| TestCaseError::fail(format!("{error} for {ours:x?}")))?;
        prop_assert_eq!(decoded(&theirs, version), packet);
    }
}

/// The fields that rumqttc reads in an MQTT 5 packet are ours, one by one, so that no two of one
/// kind are swapped.
fn check_fields(packet: &Packet<'_>, theirs: &rumq5::Packet) {
    match (packet, theirs) {
        (Packet::Publish(ours), rumq5::Packet::Publish(theirs)) => {
            assert_eq!(ours.delivery.dup(), theirs.dup);
            assert_eq!(ours.delivery.qos() as u8, theirs.qos as u8);
            assert_eq!(ours.delivery.packet_id().map_or(0, PacketId::get), theirs.pkid);
            assert_eq!(ours.retain, theirs.retain);
            assert_eq!((ours.topic.as_bytes(), ours.payload), (&*theirs.topic, &*theirs.payload));
            let properties = theirs.properties.clone().unwrap_or_default();
            assert_eq!(ours.properties.message_expiry_s, properties.message_expiry_interval);
            assert_eq!(ours.properties.response_topic, properties.response_topic.as_deref());
            assert_eq!(ours.properties.content_type, properties.content_type.as_deref());
            assert_eq!(ours.properties.topic_alias.map(NonZeroU16::get), properties.topic_alias);
        }
        (Packet::Subscribe(ours), rumq5::Packet::Subscribe(theirs)) => {
            for (ours, theirs) in ours.subscriptions.iter().zip(&theirs.filters) {
                assert_eq!(ours.filter, theirs.path);
                assert_eq!(ours.qos as u8, theirs.qos as u8);
                assert_eq!(ours.no_local, theirs.nolocal);
                assert_eq!(ours.retain_as_published, theirs.preserve_retain);
                let rule = format!("{:?}", theirs.retain_forward_rule);
                let expected = match ours.retain_handling {
                    RetainHandling::Send => "OnEverySubscribe",
                    RetainHandling::SendIfNew => "OnNewSubscribe",
                    RetainHandling::DoNotSend => "Never",
                };
                assert_eq!(rule, expected);
            }
        }
        (Packet::Connect(ours), rumq5::Packet::Connect(theirs, will, login)) => {
            assert_eq!(
                (ours.client_id, ours.clean_start),
                (&*theirs.client_id, theirs.clean_start)
            );
            assert_eq!(ours.keep_alive_s, theirs.keep_alive);
            let properties = theirs.properties.clone().unwrap_or_default();
            assert_eq!(ours.properties.session_expiry_s, properties.session_expiry_interval);
            assert_eq!(ours.properties.topic_alias_max, properties.topic_alias_max);
            let problem_info = ours.properties.request_problem_info.map(u8::from);
            assert_eq!(problem_info, properties.request_problem_info);
            assert_eq!(ours.user_name, login.as_ref().map(|login| &*login.username));
            assert_eq!(ours.will.is_some(), will.is_some());
            if let (Some(ours), Some(theirs)) = (ours.will, will) {
                assert_eq!(
                    (ours.topic.as_bytes(), ours.payload),
                    (&*theirs.topic, &*theirs.message)
                );
                assert_eq!((ours.qos as u8, ours.retain), (theirs.qos as u8, theirs.retain));
            }
        }
        (Packet::ConnAck(ours), rumq5::Packet::ConnAck(theirs)) => {
            assert_eq!(ours.session_present, theirs.session_present);
            let Some(properties) = &theirs.properties else {
                assert_eq!(ours.properties, ConnAckProperties::default());
                return;
            };
            assert_eq!(ours.properties.server_keep_alive_s, properties.server_keep_alive);
            assert_eq!(ours.properties.topic_alias_max, properties.topic_alias_max);
            assert_eq!(ours.properties.receive_max.map(NonZeroU16::get), properties.receive_max);
            assert_eq!(ours.properties.response_info, properties.response_information.as_deref());
            let shared = ours.properties.shared_available.map(u8::from);
            assert_eq!(shared, properties.shared_subscription_available);
            let wildcards = ours.properties.wildcards_available.map(u8::from);
            assert_eq!(wildcards, properties.wildcard_subscription_available);
        }
        _ => {}
    }
}

/// Table 2-6 lists 0x8C for DISCONNECT, section 3.14.2.1 does not: we take it, they do not.
fn core_reads(packet: &Packet<'_>) -> bool {
    !matches!(packet, Packet::Disconnect(disconnect)
        if disconnect.reason == ReasonCode::BadAuthenticationMethod)
}

/// Where rumqttc 0.25 is known to do otherwise.
fn rumqttc_reads(version: Version, packet: &Packet<'_>) -> bool {
    match packet {
        // An empty user name or password is to it as none, and a password is text.
        Packet::Connect(connect) => {
            let password = connect.password.map(Secret::expose);
            connect.user_name != Some("")
                && password.is_none_or(|bytes| !bytes.is_empty() && str::from_utf8(bytes).is_ok())
        }
        // It knows no AUTH, and wants the property length that may be left out.
        Packet::Auth(_) => false,
        Packet::Disconnect(disconnect) => {
            version == Version::V311
                || (disconnect.properties != DisconnectProperties::default() && core_reads(packet))
        }
        _ => true,
    }
}
