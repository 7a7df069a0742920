//! Any bytes, in either version: decoding does not panic, and what decodes is encoded to bytes
//! that decode to the same packet.

use sextant_mqtt::{ForwardProperties, Packet, Version, frame, topic};

pub(crate) fn run(bytes: &[u8]) {
    if let Ok(Some(whole)) = frame(bytes, u32::MAX) {
        for version in [Version::V311, Version::V5] {
            let Ok(packet) = Packet::decode(&whole, version) else { continue };
            // A CONNECT says its version itself.
            let mut encoded = Vec::new();
            packet.encode(version, &mut encoded).expect("what was decoded can be encoded");
            assert_eq!(packet.encoded_len(version), Ok(encoded.len()));
            let again = frame(&encoded, u32::MAX).expect("a header").expect("a whole frame");
            assert_eq!(again.total_len, encoded.len());
            assert_eq!(Packet::decode(&again, version), Ok(packet));
            if let Packet::Publish(publish) = packet {
                let mut forward = Vec::new();
                publish.properties.write_forward(&mut forward);
                ForwardProperties::parse(&forward).expect("forwarded properties are well formed");
            }
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let (filter, name) = text.split_once('\n').unwrap_or((text, text));
        if let (Ok(filter), Ok(())) = (topic::Filter::parse(filter), topic::check_name(name)) {
            let matched = filter.matches(name);
            assert!(filter.has_wildcard() || matched == (filter.filter == name));
        }
    }
}
