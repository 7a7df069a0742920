use super::*;
use crate::property::PayloadFormat;
use Version::{V5, V311};

/// The packet of `first_byte` and `body`, with a remaining length that is right.
fn decode_body(version: Version, first_byte: u8, body: &[u8]) -> Result<(), DecodeError> {
    let mut bytes = vec![first_byte];
    wire::Sink::variable(&mut bytes, body.len() as u32);
    bytes.extend_from_slice(body);
    let frame = frame(&bytes, u32::MAX)?.expect("the frame is whole");
    assert_eq!(frame.total_len, bytes.len());
    Packet::decode(&frame, version).map(drop)
}

#[track_caller]
fn refused(version: Version, first_byte: u8, body: &[u8], error: DecodeError) {
    assert_eq!(decode_body(version, first_byte, body), Err(error));
}

#[track_caller]
fn taken(version: Version, first_byte: u8, body: &[u8]) {
    assert_eq!(decode_body(version, first_byte, body), Ok(()));
}

/// CONNECT of MQTT 5 with these flags, property block and payload.
fn connect5(flags: u8, properties: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut body = b"\x00\x04MQTT\x05".to_vec();
    body.extend_from_slice(&[flags, 0, 60, properties.len() as u8]);
    body.extend_from_slice(properties);
    body.extend_from_slice(payload);
    body
}

fn connect311(flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut body = b"\x00\x04MQTT\x04".to_vec();
    body.extend_from_slice(&[flags, 0, 60]);
    body.extend_from_slice(payload);
    body
}

/// PUBLISH of MQTT 5, QoS 0, topic "a", with this property block.
fn publish5(properties: &[u8]) -> Vec<u8> {
    let mut body = b"\x00\x01a".to_vec();
    body.push(properties.len() as u8);
    body.extend_from_slice(properties);
    body
}

#[test]
fn a_frame_waits_until_it_is_whole() {
    let bytes = [0x30, 5, 0, 1, b'a', b'h', b'i', 0xC0];
    for cut in 0..7 {
        assert_eq!(frame(&bytes[..cut], 100), Ok(None), "{cut} bytes");
    }
    let whole = frame(&bytes, 100).unwrap().unwrap();
    assert_eq!((whole.total_len, whole.body), (7, &bytes[2..7]));
    assert_eq!(whole.packet_type(), Ok(PacketType::Publish));
}

// [MQTT-1.5.5-1]
#[test]
fn mqtt_1_5_5_1_a_remaining_length_is_in_its_shortest_form() {
    assert_eq!(frame(&[0x30, 0x80, 0x00], 100), Err(DecodeError::VariableInteger));
    assert_eq!(frame(&[0x30, 0xFF, 0x80, 0x00], 100), Err(DecodeError::VariableInteger));
    let five = [0x30, 0xFF, 0xFF, 0xFF, 0xFF];
    assert_eq!(frame(&five, u32::MAX), Err(DecodeError::VariableInteger));
    assert_eq!(frame(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F], u32::MAX), Ok(None));
}

// [MQTT-3.2.2-15]
#[test]
fn mqtt_3_2_2_15_a_packet_that_is_too_large_is_refused_by_its_header() {
    assert_eq!(frame(&[0x30, 100], 101), Err(DecodeError::TooLarge { len: 102, max: 101 }));
    assert_eq!(frame(&[0x30, 100], 102), Ok(None));
    let largest = [0x30, 0xFF, 0xFF, 0xFF, 0x7F];
    let len = crate::REMAINING_LEN_MAX + 5;
    assert_eq!(frame(&largest, 1), Err(DecodeError::TooLarge { len, max: 1 }));
}

// [MQTT-2.1.3-1], [MQTT-3.6.1-1], [MQTT-3.8.1-1], [MQTT-3.10.1-1], [MQTT-3.14.1-1],
// [MQTT-3.15.1-1]
#[test]
fn mqtt_2_1_3_1_reserved_flags_are_as_listed() {
    for first_byte in 0..=u8::MAX {
        let (kind, flags) = (first_byte >> 4, first_byte & 15);
        let permitted = match kind {
            0 => false,
            3 => flags & 0b110 != 0b110 && (flags & 0b110 != 0 || flags & 0b1000 == 0),
            6 | 8 | 10 => flags == 0b0010,
            _ => flags == 0,
        };
        assert_eq!(frame(&[first_byte], 100).is_ok(), permitted, "{first_byte:#04x}");
        let made = Frame { first_byte, body: &[], total_len: 2 };
        let bad_first_byte = matches!(
            Packet::decode(&made, V5),
            Err(DecodeError::ReservedPacketType(_)
                | DecodeError::ReservedFlags { .. }
                | DecodeError::QosReserved
                | DecodeError::DupOnQos0)
        );
        assert_eq!(bad_first_byte, !permitted, "{first_byte:#04x}");
    }
}

// [MQTT-3.3.1-4]
#[test]
fn mqtt_3_3_1_4_qos_3_is_malformed() {
    assert_eq!(frame(&[0x36], 100), Err(DecodeError::QosReserved));
}

// [MQTT-3.3.1-2]
#[test]
fn mqtt_3_3_1_2_dup_on_qos_0_is_malformed() {
    assert_eq!(frame(&[0x38], 100), Err(DecodeError::DupOnQos0));
}

// [MQTT-1.5.4-1], [MQTT-3.1.3-4], [MQTT-3.3.2-1]
#[test]
fn mqtt_1_5_4_1_ill_formed_utf_8_is_malformed() {
    for text in [&b"\xFF\xFF"[..], b"\xED\xA0\x80", b"\xC0\xAF", b"\xF8\x88", b"\xE2\x82"] {
        let mut topic = vec![0, text.len() as u8];
        topic.extend_from_slice(text);
        refused(V311, 0x30, &topic, DecodeError::IllFormedString);
        refused(V311, 0x10, &connect311(2, &topic), DecodeError::IllFormedString);
    }
}

// [MQTT-1.5.4-2], [MQTT-4.7.3-2]
#[test]
fn mqtt_1_5_4_2_the_null_character_is_malformed() {
    refused(V311, 0x30, b"\x00\x02a\x00", DecodeError::NullCharacter);
    refused(V5, 0x10, &connect5(2, &[], b"\x00\x01\x00"), DecodeError::NullCharacter);
    refused(V5, 0x30, &publish5(b"\x03\x00\x01\x00"), DecodeError::NullCharacter);
}

// [MQTT-1.5.4-3]
#[test]
fn mqtt_1_5_4_3_a_byte_order_mark_is_a_character() {
    let bytes = b"\x30\x07\x00\x04\xEF\xBB\xBFax";
    let frame = frame(bytes, 100).unwrap().unwrap();
    let Ok(Packet::Publish(publish)) = Packet::decode(&frame, V311) else { panic!() };
    assert_eq!(publish.topic, "\u{FEFF}a");
}

// [MQTT-1.5.7-1]
#[test]
fn mqtt_1_5_7_1_both_strings_of_a_user_property_are_checked() {
    taken(V5, 0x30, &publish5(b"\x26\x00\x01a\x00\x01b"));
    refused(V5, 0x30, &publish5(b"\x26\x00\x01\xFF\x00\x01b"), DecodeError::IllFormedString);
    refused(V5, 0x30, &publish5(b"\x26\x00\x01a\x00\x01\0"), DecodeError::NullCharacter);
    refused(V5, 0x30, &publish5(b"\x26\x00\x01a"), DecodeError::Truncated);
}

// [MQTT-2.2.1-2]
#[test]
fn mqtt_2_2_1_2_a_qos_0_publish_has_no_packet_identifier() {
    let bytes = b"\x30\x05\x00\x01a\x00\x07";
    let frame = frame(bytes, 100).unwrap().unwrap();
    let Ok(Packet::Publish(publish)) = Packet::decode(&frame, V311) else { panic!() };
    assert_eq!((publish.delivery, publish.payload), (Delivery::AtMostOnce, &b"\x00\x07"[..]));
}

// [MQTT-2.2.1-3]
#[test]
fn mqtt_2_2_1_3_packet_identifier_0_is_malformed() {
    for version in [V311, V5] {
        for first_byte in [0x40, 0x50, 0x62, 0x70, 0x82, 0x90, 0xA2, 0xB0] {
            refused(version, first_byte, &[0, 0, 0, 0], DecodeError::PacketIdZero);
        }
        refused(version, 0x32, b"\x00\x01a\x00\x00\x00", DecodeError::PacketIdZero);
    }
}

// [MQTT-2.2.2-1]
#[test]
fn mqtt_2_2_2_1_properties_are_not_left_out() {
    refused(V5, 0x30, b"\x00\x01a", DecodeError::Truncated);
    refused(V5, 0x82, b"\x00\x01", DecodeError::Truncated);
    refused(V5, 0x20, &[0, 0], DecodeError::Truncated);
    taken(V5, 0x20, &[0, 0, 0]);
}

#[test]
fn a_property_of_another_packet_is_malformed() {
    // Receive Maximum in PUBLISH, an identifier that does not exist, and one of two bytes.
    refused(V5, 0x30, &publish5(&[0x21, 0, 1]), DecodeError::PropertyNotAllowed(0x21));
    refused(V5, 0x30, &publish5(&[0x2B, 0]), DecodeError::PropertyNotAllowed(0x2B));
    refused(V5, 0x30, &publish5(&[0x83, 1]), DecodeError::PropertyNotAllowed(0x83));
}

#[test]
fn a_property_that_occurs_twice_is_a_protocol_error() {
    refused(V5, 0x30, &publish5(&[1, 0, 1, 0]), DecodeError::PropertyTwice(1));
    assert_eq!(DecodeError::PropertyTwice(1).reason(), ReasonCode::ProtocolError);
    let twice = [0x11, 0, 0, 0, 1, 0x11, 0, 0, 0, 1];
    refused(V5, 0x10, &connect5(2, &twice, &[0, 0]), DecodeError::PropertyTwice(0x11));
}

#[test]
fn forbidden_values_of_properties_are_protocol_errors() {
    let forbidden = |id| DecodeError::PropertyValue(id);
    refused(V5, 0x30, &publish5(&[0x01, 2]), forbidden(0x01));
    refused(V5, 0x30, &publish5(&[0x0B, 0]), forbidden(0x0B));
    refused(V5, 0x82, &[0, 1, 2, 0x0B, 0, 0, 1, b'a', 0], forbidden(0x0B));
    for (id, value) in [(0x21, &[0, 0][..]), (0x27, &[0, 0, 0, 0]), (0x17, &[2]), (0x19, &[2])] {
        let properties = [&[id], value].concat();
        refused(V5, 0x10, &connect5(2, &properties, &[0, 0]), forbidden(id));
    }
    for (id, value) in [(0x24, 2), (0x25, 2), (0x28, 2), (0x29, 2), (0x2A, 2)] {
        refused(V5, 0x20, &[0, 0, 2, id, value], forbidden(id));
    }
    refused(V5, 0x20, &[0, 0, 3, 0x21, 0, 0], forbidden(0x21));
    assert_eq!(forbidden(1).reason(), ReasonCode::ProtocolError);
}

#[test]
fn mqtt_3_1_0_connect_of_both_versions_is_taken_apart() {
    let body = connect5(
        0b1110_1110,
        &[0x11, 0, 0, 0, 9, 0x21, 0, 7],
        b"\x00\x01c\x02\x01\x01\x00\x01w\x00\x02hi\x00\x01u\x00\x02\xFF\x00",
    );
    let frame = Frame { first_byte: 0x10, body: &body, total_len: 0 };
    let Ok(Packet::Connect(connect)) = Packet::decode(&frame, V311) else { panic!() };
    assert_eq!((connect.version, connect.client_id, connect.keep_alive_s), (V5, "c", 60));
    assert!(connect.clean_start);
    assert_eq!(connect.properties.session_expiry_s, Some(9));
    assert_eq!(connect.properties.receive_max.unwrap().get(), 7);
    let will = connect.will.unwrap();
    assert_eq!((will.qos, will.retain), (QoS::AtLeastOnce, true));
    assert_eq!((will.topic, will.payload), ("w", &b"hi"[..]));
    assert_eq!(will.properties.payload_format, Some(PayloadFormat::Text));
    assert_eq!(connect.user_name, Some("u"));
    assert_eq!(connect.password.unwrap().expose(), b"\xFF\x00");

    let body = connect311(0, b"\x00\x01c");
    let frame = Frame { first_byte: 0x10, body: &body, total_len: 0 };
    let Ok(Packet::Connect(connect)) = Packet::decode(&frame, V5) else { panic!() };
    assert_eq!(connect.version, V311);
    assert_eq!(connect.session_expiry_s(), u32::MAX);
}

// [MQTT-3.1.2-1]
#[test]
fn mqtt_3_1_2_1_another_protocol_name_is_malformed() {
    refused(V5, 0x10, b"\x00\x04MQTX\x05\x02\0\0\0\0\0", DecodeError::ProtocolName);
    refused(V5, 0x10, b"\x00\x04mqtt\x04\x02\0\0\0\0", DecodeError::ProtocolName);
}

// [MQTT-3.1.2-2]
#[test]
fn mqtt_3_1_2_2_another_version_is_not_supported() {
    let version = |level| DecodeError::ProtocolVersion(level);
    refused(V5, 0x10, b"\x00\x04MQTT\x06\x02\0\0\0\0\0", version(6));
    refused(V5, 0x10, b"\x00\x04MQTT\x03\x02\0\0\0\0", version(3));
    refused(V5, 0x10, b"\x00\x06MQIsdp\x03\x02\0\0\0\0", version(3));
    assert_eq!(version(6).reason(), ReasonCode::UnsupportedProtocolVersion);
}

// [MQTT-3.1.2-3]
#[test]
fn mqtt_3_1_2_3_the_reserved_connect_flag_is_0() {
    refused(V5, 0x10, &connect5(3, &[], &[0, 0]), DecodeError::ConnectFlags);
    refused(V311, 0x10, &connect311(3, &[0, 0]), DecodeError::ConnectFlags);
}

// [MQTT-3.1.2-11], [MQTT-3.1.2-13]
#[test]
fn mqtt_3_1_2_11_and_13_will_flags_without_a_will_are_malformed() {
    for flags in [0b0_1000, 0b1_0000, 0b10_0000] {
        refused(V5, 0x10, &connect5(flags, &[], &[0, 0]), DecodeError::WillFlags);
        refused(V311, 0x10, &connect311(flags, &[0, 0]), DecodeError::WillFlags);
    }
}

// [MQTT-3.1.2-12]
#[test]
fn mqtt_3_1_2_12_a_will_of_qos_3_is_malformed() {
    let payload = b"\x00\x00\x00\x01w\x00\x00";
    refused(V311, 0x10, &connect311(0b1_1110, payload), DecodeError::WillFlags);
}

// [3.1.1: MQTT-3.1.2-22]
#[test]
fn mqtt_3_1_2_22_of_3_1_1_a_password_needs_a_user_name() {
    let payload = b"\x00\x01c\x00\x01p";
    let error = DecodeError::PasswordWithoutUserName;
    refused(V311, 0x10, &connect311(0b0100_0010, payload), error);
    taken(V5, 0x10, &connect5(0b0100_0010, &[], payload));
}

// [MQTT-3.1.3-1], [MQTT-3.1.2-16], [MQTT-3.1.2-17], [MQTT-3.1.2-18], [MQTT-3.1.2-19]
#[test]
fn mqtt_3_1_3_1_a_connect_holds_what_its_flags_say_and_no_more() {
    refused(V311, 0x10, &connect311(2, b"\x00\x01cx"), DecodeError::TrailingBytes);
    refused(V311, 0x10, &connect311(0b1000_0010, b"\x00\x01c"), DecodeError::Truncated);
    refused(V5, 0x10, &connect5(0b1100_0010, &[], b"\0\x01c\0\x01u"), DecodeError::Truncated);
}

// [MQTT-4.7.3-1]
#[test]
fn a_will_needs_a_topic_name() {
    let will = |topic: &[u8]| [b"\x00\x00", topic, b"\x00\x00"].concat();
    refused(V311, 0x10, &connect311(0b110, &will(b"\x00\x00")), DecodeError::TopicName);
    refused(V311, 0x10, &connect311(0b110, &will(b"\x00\x03a/#")), DecodeError::TopicName);
}

#[test]
fn authentication_data_needs_a_method() {
    let error = DecodeError::AuthenticationMethodMissing;
    refused(V5, 0x10, &connect5(2, &[0x16, 0, 1, 0], &[0, 0]), error);
    refused(V5, 0xF0, &[0x18, 4, 0x16, 0, 1, 0], error);
    taken(V5, 0xF0, &[0x18, 4, 0x15, 0, 1, b'm']);
    taken(V5, 0xF0, &[]);
}

#[test]
fn a_debugged_connect_shows_no_secret() {
    let body = connect5(0b1100_0010, b"\x15\0\x01m\x16\0\x02pw", b"\0\x01c\0\x01u\0\x06secret");
    let frame = Frame { first_byte: 0x10, body: &body, total_len: 0 };
    let shown = format!("{:?}", Packet::decode(&frame, V5).unwrap());
    assert!(!shown.contains("secret") && !shown.contains("115, 101"), "{shown}");
    assert!(shown.contains("Secret(6 bytes)") && shown.contains("Secret(2 bytes)"), "{shown}");
}

// [MQTT-3.2.2-1]
#[test]
fn mqtt_3_2_2_1_reserved_connack_flags_are_0() {
    refused(V5, 0x20, &[2, 0, 0], DecodeError::ConnectFlags);
}

// [MQTT-3.2.2-6]
#[test]
fn mqtt_3_2_2_6_a_refusal_has_no_session() {
    refused(V5, 0x20, &[1, 0x87, 0], DecodeError::SessionPresent);
    refused(V311, 0x20, &[1, 5], DecodeError::SessionPresent);
    taken(V311, 0x20, &[1, 0]);
}

// [MQTT-3.2.2-8]
#[test]
fn mqtt_3_2_2_8_a_connack_has_one_of_its_reason_codes() {
    refused(V5, 0x20, &[0, 0x8E, 0], DecodeError::ReasonCode(0x8E));
    refused(V5, 0x20, &[0, 5, 0], DecodeError::ReasonCode(5));
    refused(V311, 0x20, &[0, 6], DecodeError::ReasonCode(6));
}

// [MQTT-3.3.2-2], [MQTT-4.7.0-1]
#[test]
fn mqtt_3_3_2_2_a_topic_name_has_no_wildcard() {
    for topic in [&b"\x00\x01#"[..], b"\x00\x03a/+", b"\x00\x02a#"] {
        refused(V311, 0x30, topic, DecodeError::TopicName);
    }
}

// [MQTT-4.7.3-1], [3.1.1: MQTT-4.7.3-1]
#[test]
fn an_empty_topic_name_needs_an_alias() {
    refused(V311, 0x30, b"\x00\x00", DecodeError::TopicName);
    refused(V5, 0x30, b"\x00\x00\x00", DecodeError::TopicMissing);
    assert_eq!(DecodeError::TopicMissing.reason(), ReasonCode::ProtocolError);
    taken(V5, 0x30, b"\x00\x00\x03\x23\x00\x01");
}

// [MQTT-3.3.2-8]
#[test]
fn mqtt_3_3_2_8_topic_alias_0_is_invalid() {
    refused(V5, 0x30, b"\x00\x01a\x03\x23\x00\x00", DecodeError::TopicAliasZero);
    assert_eq!(DecodeError::TopicAliasZero.reason(), ReasonCode::TopicAliasInvalid);
}

// [MQTT-3.3.2-14]
#[test]
fn mqtt_3_3_2_14_a_response_topic_has_no_wildcard() {
    refused(V5, 0x30, &publish5(b"\x08\x00\x01+"), DecodeError::TopicName);
    refused(V5, 0x30, &publish5(b"\x08\x00\x00"), DecodeError::TopicName);
    taken(V5, 0x30, &publish5(b"\x08\x00\x01r"));
}

#[test]
fn mqtt_3_4_2_an_acknowledgement_may_leave_out_success() {
    for first_byte in [0x40, 0x50, 0x62, 0x70] {
        taken(V5, first_byte, &[0, 1]);
        taken(V5, first_byte, &[0, 1, 0]);
        taken(V5, first_byte, &[0, 1, 0, 0]);
        refused(V5, first_byte, &[0, 1, 0, 0, 0], DecodeError::TrailingBytes);
        taken(V311, first_byte, &[0, 1]);
        refused(V311, first_byte, &[0, 1, 0], DecodeError::TrailingBytes);
        refused(V311, first_byte, &[0], DecodeError::Truncated);
    }
}

// [MQTT-3.4.2-1], [MQTT-3.6.2-1], [MQTT-3.7.2-1]
#[test]
fn mqtt_3_4_2_1_an_acknowledgement_has_one_of_its_reason_codes() {
    taken(V5, 0x40, &[0, 1, 0x10]);
    refused(V5, 0x40, &[0, 1, 0x92], DecodeError::ReasonCode(0x92));
    taken(V5, 0x62, &[0, 1, 0x92]);
    refused(V5, 0x62, &[0, 1, 0x10], DecodeError::ReasonCode(0x10));
    refused(V5, 0x70, &[0, 1, 0x87], DecodeError::ReasonCode(0x87));
}

// [MQTT-3.8.3-2]
#[test]
fn mqtt_3_8_3_2_a_subscribe_has_a_subscription() {
    refused(V311, 0x82, &[0, 1], DecodeError::EmptyList);
    refused(V5, 0x82, &[0, 1, 0], DecodeError::EmptyList);
    assert_eq!(DecodeError::EmptyList.reason(), ReasonCode::ProtocolError);
}

// [MQTT-3.8.3-4]
#[test]
fn mqtt_3_8_3_4_no_local_is_not_for_shared_subscriptions() {
    let shared = |options| [&b"\x00\x01\x00\x00\x0A$share/g/a"[..], &[options]].concat();
    refused(V5, 0x82, &shared(4), DecodeError::NoLocalOnShared);
    taken(V5, 0x82, &shared(0));
}

// [MQTT-3.8.3-5], [3.1.1: MQTT-3-8.3-4]
#[test]
fn mqtt_3_8_3_5_reserved_subscription_options_are_0() {
    for options in [0x40, 0x80] {
        let error = DecodeError::SubscriptionOptions;
        refused(V5, 0x82, &[0, 1, 0, 0, 1, b'a', options], error);
    }
    refused(V311, 0x82, &[0, 1, 0, 1, b'a', 4], DecodeError::SubscriptionOptions);
    refused(V311, 0x82, &[0, 1, 0, 1, b'a', 3], DecodeError::QosReserved);
    refused(V5, 0x82, &[0, 1, 0, 0, 1, b'a', 0x30], DecodeError::RetainHandling);
}

// [MQTT-4.7.1-1], [MQTT-4.7.1-2], [MQTT-4.8.2-1], [MQTT-4.8.2-2]
#[test]
fn mqtt_4_7_1_ill_formed_filters_are_refused() {
    for filter in ["", "a/#/b", "a#", "a/b+", "$share/g", "$share//a", "$share/+/a", "$share/g/"] {
        let mut body = vec![0, 1, 0, filter.len() as u8];
        body.extend_from_slice(filter.as_bytes());
        refused(V311, 0xA2, &body, DecodeError::TopicFilter);
        body.push(0);
        refused(V311, 0x82, &body, DecodeError::TopicFilter);
    }
}

// [MQTT-3.9.3-2], [3.1.1: MQTT-3.9.3-2]
#[test]
fn mqtt_3_9_3_2_a_suback_has_one_of_its_reason_codes() {
    taken(V5, 0x90, &[0, 1, 0, 0, 1, 2, 0x8F]);
    refused(V5, 0x90, &[0, 1, 0, 3], DecodeError::ReasonCode(3));
    refused(V5, 0x90, &[0, 1, 0], DecodeError::EmptyList);
    taken(V311, 0x90, &[0, 1, 2, 0x80]);
    refused(V311, 0x90, &[0, 1, 0x87], DecodeError::ReasonCode(0x87));
}

// [MQTT-3.10.3-2]
#[test]
fn mqtt_3_10_3_2_an_unsubscribe_has_a_filter() {
    refused(V311, 0xA2, &[0, 1], DecodeError::EmptyList);
    refused(V5, 0xA2, &[0, 1, 0], DecodeError::EmptyList);
}

// [MQTT-3.11.3-2]
#[test]
fn mqtt_3_11_an_unsuback_has_reasons_in_mqtt_5_only() {
    taken(V311, 0xB0, &[0, 1]);
    refused(V311, 0xB0, &[0, 1, 0], DecodeError::TrailingBytes);
    taken(V5, 0xB0, &[0, 1, 0, 0x11]);
    refused(V5, 0xB0, &[0, 1, 0], DecodeError::EmptyList);
    refused(V5, 0xB0, &[0, 1, 0, 1], DecodeError::ReasonCode(1));
}

#[test]
fn a_ping_has_no_body() {
    for first_byte in [0xC0, 0xD0] {
        taken(V5, first_byte, &[]);
        refused(V5, first_byte, &[0], DecodeError::TrailingBytes);
    }
}

// [MQTT-3.14.2-1]
#[test]
fn mqtt_3_14_2_a_disconnect_may_leave_out_its_reason() {
    taken(V311, 0xE0, &[]);
    refused(V311, 0xE0, &[0], DecodeError::TrailingBytes);
    taken(V5, 0xE0, &[]);
    taken(V5, 0xE0, &[4]);
    taken(V5, 0xE0, &[0x8E, 0]);
    refused(V5, 0xE0, &[1], DecodeError::ReasonCode(1));
}

// [MQTT-3.15.2-1]
#[test]
fn mqtt_3_15_2_1_auth_is_of_mqtt_5_and_has_one_of_its_reason_codes() {
    refused(V311, 0xF0, &[], DecodeError::ReservedPacketType(15));
    refused(V5, 0xF0, &[0x87, 4, 0x15, 0, 1, b'm'], DecodeError::ReasonCode(0x87));
    refused(V5, 0xF0, &[0x18], DecodeError::Truncated);
}

#[test]
fn every_cut_of_a_packet_is_an_error_and_none_a_panic() {
    let bodies: [(u8, Vec<u8>); 3] = [
        (0x10, connect5(0b1110_1110, &[0x21, 0, 7], b"\0\x01c\x02\x01\x01\0\x01w\0\0\0\0\0\0")),
        (0x82, b"\x00\x01\x02\x0B\x05\x00\x03a/b\x00".to_vec()),
        (0x40, b"\x00\x01\x00\x04\x1F\x00\x01r".to_vec()),
    ];
    for (first_byte, body) in bodies {
        taken(V5, first_byte, &body);
        // A PUBACK may end after its identifier or its reason.
        for cut in (0..body.len()).filter(|&cut| first_byte != 0x40 || !(2..=3).contains(&cut)) {
            assert!(decode_body(V5, first_byte, &body[..cut]).is_err(), "cut at {cut}");
        }
    }
}
