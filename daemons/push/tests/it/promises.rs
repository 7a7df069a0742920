//! Whose messages wait for the disk before they are acknowledged.

use std::time::Duration;

use sextant_mqtt::{QoS, Version};

use crate::client::Profile;
use crate::play::Play;
use crate::rig::Setup;

const SLOW: Duration = Duration::from_secs(2);

/// Whether a message is acknowledged though the disk has taken nothing since it was published.
fn is_acknowledged_at_once(cores: usize, qos: QoS, subscriber: Profile) -> bool {
    let mut play = Play::new(cores as u64, Setup { cores, ..Setup::default() });
    let publisher = play.add(Profile::clean("publisher", Version::V5));
    let subscriber = play.add(subscriber);
    play.ensure_subscribed(subscriber, "t/#", QoS::ExactlyOnce);
    play.settle();
    play.rig.world.plan(|plan| plan.disk_delay = SLOW..=SLOW);
    let message = play.publish(publisher, "t/1", qos, false, 100);
    play.pass(Duration::from_millis(200));
    let at_once = play.model.messages[message].acknowledged.is_some();
    play.rig.world.plan(|plan| plan.disk_delay = Duration::ZERO..=Duration::ZERO);
    play.settle();
    play.finish();
    at_once
}

// [MQTT-4.3.2-4]
#[test]
fn a_message_waits_for_the_disk_if_somebody_is_left_after_a_crash_to_get_it() {
    for cores in 1..=3 {
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let gone = Profile::clean("subscriber", Version::V5);
            assert!(is_acknowledged_at_once(cores, qos, gone), "{cores} cores, {qos:?}");
            let left = Profile::persistent("subscriber", Version::V5);
            assert!(!is_acknowledged_at_once(cores, qos, left), "{cores} cores, {qos:?}");
        }
    }
}
