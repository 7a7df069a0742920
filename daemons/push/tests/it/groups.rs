//! Groups of shared subscriptions whose members leave for good.

use std::time::Duration;

use sextant_mqtt::{QoS, Version};
use sextant_push::home::home;

use crate::client::{Parting, Profile};
use crate::play::Play;
use crate::rig::Setup;

const MESSAGES: usize = 30;
const SOON: Duration = Duration::from_secs(10);

/// A client identifier that is at home on a core.
fn name_at(core: usize, cores: usize, what: &str) -> String {
    (0..).map(|n| format!("{what}-{n}")).find(|name| home(name, cores) == core).unwrap()
}

/// How a member leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaves {
    /// With its connection: its session does not outlive that.
    AtOnce,
    /// By beginning anew, with messages in flight.
    Anew,
    /// The same, when it had gone before anything was published.
    AnewAfterAbsence,
}

/// Three members, the first of which acknowledges nothing and leaves. How often the other two got
/// each message.
fn leave(cores: usize, hot_bytes: u32, qos: QoS, how: Leaves) -> Vec<u32> {
    let setup = Setup { cores, hot_bytes, inflight_max: 4, ..Setup::default() };
    let mut play = Play::new(41, setup);
    let members: Vec<usize> = (0..3)
        .map(|n| {
            let name = name_at(n % cores, cores, &format!("member-{n}"));
            let profile = match how {
                Leaves::AtOnce if n == 0 => Profile::clean(&name, Version::V5),
                _ => Profile::persistent(&name, Version::V5),
            };
            play.add(profile)
        })
        .collect();
    let publisher = play.add(Profile::persistent("publisher", Version::V311));
    for member in &members {
        play.ensure_subscribed(*member, "$share/g/t/#", qos);
    }
    play.settle();
    let first = members[0];
    play.clients[first].lazy = true;
    if how == Leaves::AnewAfterAbsence {
        // It has messages in its queue if nobody is there.
        members.iter().for_each(|member| play.part(*member, Parting::Reset));
        play.pass(Duration::from_millis(5));
    }
    let sent: Vec<usize> =
        (0..MESSAGES).map(|_| play.publish(publisher, "t/a", qos, false, 20)).collect();
    play.until("all is published", SOON, |play| play.clients[publisher].is_settled());
    play.pass(Duration::from_millis(20));
    play.part(first, Parting::Reset);
    play.clients[first].lazy = false;
    if how != Leaves::AtOnce {
        play.clients[first].want_clean();
        play.pass(Duration::from_millis(5));
        play.connect(first);
    }
    play.pass(Duration::from_millis(50));
    play.settle();
    let got = |id: &usize| members[1..].iter().map(|member| play.model.got(*member, *id)).sum();
    let got = sent.iter().map(got).collect();
    play.finish();
    got
}

#[test]
fn what_a_member_had_not_acknowledged_at_qos_1_goes_to_another_when_its_session_ends() {
    for cores in 1..=3 {
        for hot_bytes in [0, 1 << 20] {
            for how in [Leaves::AtOnce, Leaves::Anew, Leaves::AnewAfterAbsence] {
                let got = leave(cores, hot_bytes, QoS::AtLeastOnce, how);
                let all = got.iter().all(|count| *count == 1);
                assert!(all, "{cores} cores, {hot_bytes} bytes, {how:?}: {got:?}");
            }
        }
    }
}

// [MQTT-4.8.2-5]
#[test]
fn mqtt_4_8_2_5_what_a_member_had_not_completed_at_qos_2_goes_to_nobody_else() {
    for cores in 1..=3 {
        let got = leave(cores, 0, QoS::ExactlyOnce, Leaves::Anew);
        assert!(got.iter().all(|count| *count <= 1), "{cores} cores: {got:?}");
        assert!(got.contains(&0), "{cores} cores: the first had some in flight");
    }
}
