//! Nothing is allocated on the paths that must not: decoding anything, handling a QoS 0 publish,
//! and encoding it for its receivers into a buffer that has room.

use allocation_counter::measure;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use sextant_mqtt::{
    AcceptOptions, AwaitingConnect, Connect, Delivery, Event, ForwardProperties, Inbound, Link,
    Packet, PayloadFormat, Publish, PublishHead, PublishProperties, QoS, ReasonCode, ServerLimits,
    Session, SessionLimits, UserProperties, Version, frame,
};

use crate::packets::{any_packet, encoded};

fn link(version: Version) -> Link {
    let limits = ServerLimits::default();
    let bytes = encoded(&Packet::Connect(Connect::new(version, "c")), version);
    let frame = frame(&bytes, u32::MAX).unwrap().unwrap();
    let (connecting, _) = AwaitingConnect::new(0, &limits).handle(0, &frame, &limits).unwrap();
    connecting.accept(0, &limits, &AcceptOptions::default(), &mut Vec::new()).unwrap()
}

#[test]
fn decoding_allocates_nothing() {
    let mut runner = TestRunner::deterministic();
    for _ in 0..2000 {
        let (version, packet) = any_packet().new_tree(&mut runner).unwrap().current();
        let bytes = encoded(&packet, version);
        let info = measure(|| {
            let frame = frame(&bytes, u32::MAX).unwrap().unwrap();
            let packet = Packet::decode(&frame, version).unwrap();
            if let Packet::Publish(publish) = packet {
                publish.properties.user_properties.iter().for_each(drop);
                publish.properties.subscription_ids.iter().for_each(drop);
            }
        });
        assert_eq!(info.count_total, 0, "{packet:?}");
    }
}

#[test]
fn a_qos_0_publish_goes_through_without_an_allocation() {
    for version in [Version::V311, Version::V5] {
        let pairs = [("name", "value")];
        let properties = match version {
            Version::V311 => PublishProperties::default(),
            Version::V5 => PublishProperties {
                payload_format: Some(PayloadFormat::Text),
                user_properties: UserProperties::new(&pairs),
                ..PublishProperties::default()
            },
        };
        let publish = Packet::Publish(Publish {
            delivery: Delivery::AtMostOnce,
            retain: false,
            topic: "d/1/state",
            properties,
            payload: &[7; 100],
        });
        let bytes = encoded(&publish, version).repeat(3);
        let (mut from, to) = (link(version), link(version));
        let mut inbound = Inbound::new(1000);
        let mut out = Vec::with_capacity(1000);
        let mut forward = Vec::with_capacity(100);
        let info = measure(|| {
            let mut input = &bytes[..];
            while let Some(frame) = inbound.next_frame(&mut input).unwrap() {
                let Ok(Event::Publish { topic, publish }) = from.handle_frame(1, &frame) else {
                    panic!("a publish")
                };
                forward.clear();
                publish.properties.write_forward(&mut forward);
                let head = PublishHead {
                    forward: ForwardProperties::trusted(&forward),
                    ..PublishHead::new(Delivery::AtMostOnce, &topic, publish.payload.len())
                };
                to.publish_head(&head, &mut out).unwrap();
                out.extend_from_slice(publish.payload);
            }
        });
        assert_eq!(info.count_total, 0);
        assert_eq!(out, bytes);
    }
}

#[test]
fn exchanges_allocate_once_and_not_for_each_message() {
    let mut session = Session::new(SessionLimits::default());
    session.begin(QoS::AtLeastOnce, [0u64; 4]).unwrap();
    let mut link = link(Version::V5);
    let mut out = Vec::with_capacity(100);
    let info = measure(|| {
        for _ in 0..1000 {
            out.clear();
            let packet_id = session.begin(QoS::ExactlyOnce, [1; 4]).unwrap();
            session.pubrec(packet_id, ReasonCode::Success);
            link.pubrel(packet_id, ReasonCode::Success, &mut out).unwrap();
            session.pubcomp(packet_id);
            session.receive(packet_id);
            link.pubrec(packet_id, ReasonCode::Success, &mut out).unwrap();
            session.release(packet_id);
            link.pubcomp(packet_id, ReasonCode::Success, &mut out).unwrap();
        }
    });
    assert!(info.count_total <= 1, "{} allocations", info.count_total);
}
