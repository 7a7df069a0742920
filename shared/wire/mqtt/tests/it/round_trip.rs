//! What is encoded decodes to the same packet, and what is decoded encodes to the same bytes.

use proptest::prelude::*;
use sextant_mqtt::{Inbound, Packet, Version, frame};

use crate::packets::{any_packet, decoded, encoded};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn every_packet_survives_the_wire((version, packet) in any_packet()) {
        let bytes = encoded(&packet, version);
        let again = decoded(&bytes, version);
        prop_assert_eq!(again, packet);
        // Our own encoding is canonical: bytes decode and encode to themselves.
        prop_assert_eq!(encoded(&again, version), bytes);
    }

    #[test]
    fn a_cut_or_a_flipped_bit_is_never_a_panic(
        (version, packet) in any_packet(),
        cut in any::<prop::sample::Index>(),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..4),
    ) {
        let mut bytes = encoded(&packet, version);
        prop_assert_eq!(frame(&bytes[..cut.index(bytes.len())], u32::MAX), Ok(None));
        for (at, bit) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        if let Ok(Some(whole)) = frame(&bytes, u32::MAX) {
            for version in [Version::V311, Version::V5] {
                if let Ok(packet) = Packet::decode(&whole, version) {
                    let again = encoded(&packet, version);
                    prop_assert_eq!(decoded(&again, version), packet);
                }
            }
        }
    }

    #[test]
    fn a_stream_cut_anywhere_holds_the_same_packets(
        packets in proptest::collection::vec(crate::packets::packet(Version::V5), 1..8),
        chunk in 1usize..64,
    ) {
        let stream: Vec<u8> =
            packets.iter().flat_map(|packet| encoded(packet, Version::V5)).collect();
        let mut inbound = Inbound::new(u32::MAX);
        let mut expected = packets.iter();
        for chunk in stream.chunks(chunk) {
            let mut input = chunk;
            while let Some(frame) = inbound.next_frame(&mut input).unwrap() {
                let packet = Packet::decode(&frame, Version::V5).unwrap();
                prop_assert_eq!(Some(&packet), expected.next());
            }
        }
        prop_assert_eq!(expected.next(), None);
        prop_assert_eq!(inbound.partial_len(), 0);
    }
}
