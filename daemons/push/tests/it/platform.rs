//! Devices, and a sender platform that is told of them: what it dispatches, and what becomes of
//! that.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use roaring::RoaringBitmap;
use sextant_mqtt::{
    Connect, Packet, PacketId, QoS, ReasonCode, Subscribe, SubscribeProperties, Subscription,
    SubscriptionId, Subscriptions, Version, frame,
};
use sextant_push::control::Command;
use sextant_push::control::platform::{
    Devices, Dispatch, Known, Platform, RECEIPTS_BYTES_MAX, ReceiptTopic, Settled, Told, Withdraw,
};
use sextant_push::home::home;

use crate::client::{Parting, Profile};
use crate::model::{From, MsgId};
use crate::play::Play;
use crate::rig::Setup;

const Q0: QoS = QoS::AtMostOnce;
const Q1: QoS = QoS::AtLeastOnce;
const Q2: QoS = QoS::ExactlyOnce;
const APP: u16 = 7;

/// A platform that writes down what it is told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fake(Arc<Mutex<Heard>>);

#[derive(Debug, Default)]
struct Heard {
    told: Vec<(u16, Told)>,
    /// How much each turn told.
    turns: Vec<usize>,
    behind: bool,
}

impl Platform for Fake {
    fn tell(&self, core: u16, told: Vec<Told>) {
        assert!(!told.is_empty(), "it is told something");
        let mut heard = self.0.lock().unwrap();
        heard.turns.push(told.len());
        heard.told.extend(told.into_iter().map(|told| (core, told)));
    }

    fn is_behind(&self) -> bool {
        self.0.lock().unwrap().behind
    }
}

impl Fake {
    pub(crate) fn platform(&self) -> Arc<dyn Platform> {
        Arc::new(self.clone())
    }

    /// What it was told since it was asked last.
    pub(crate) fn take(&self) -> Vec<(u16, Told)> {
        std::mem::take(&mut self.0.lock().unwrap().told)
    }

    fn turns(&self) -> Vec<usize> {
        std::mem::take(&mut self.0.lock().unwrap().turns)
    }

    pub(crate) fn set_behind(&self, behind: bool) {
        self.0.lock().unwrap().behind = behind;
    }
}

/// What becomes of messages, by letters: sent, sent for the last time, acknowledged, returned,
/// dropped; each with message and device.
fn ends(told: &[(u16, Told)]) -> Vec<(char, u64, u32)> {
    let end = |told: &Told| {
        Some(match *told {
            Told::Sent { message, device, last: false, .. } => ('s', message, device),
            Told::Sent { message, device, .. } => ('S', message, device),
            Told::Acknowledged { message, device, .. } => ('a', message, device),
            Told::Returned { message, device, .. } => ('r', message, device),
            Told::Dropped { message, device, .. } => ('d', message, device),
            _ => return None,
        })
    };
    told.iter().filter_map(|(_, told)| end(told)).collect()
}

/// Clients that are devices, numbered from 100 on, with their platform.
struct Scene {
    play: Play,
    fake: Fake,
}

fn device(client: usize) -> u32 {
    100 + client as u32
}

impl Scene {
    fn new(seed: u64, setup: Setup) -> Scene {
        let fake = Fake::default();
        let platform = Some(fake.clone());
        Scene { play: Play::new(seed, Setup { platform, ..setup }), fake }
    }

    fn core(&self, client: usize) -> usize {
        home(&self.play.clients[client].profile.name, self.play.rig.setup.cores)
    }

    fn topic(&self, client: usize, what: &str) -> String {
        format!("d/{}/{what}", self.play.clients[client].profile.name)
    }

    /// A client that is subscribed to what is pushed to it.
    fn add(&mut self, profile: Profile, qos: QoS) -> usize {
        let client = self.play.add(profile);
        let topic = self.topic(client, "push");
        self.play.ensure_subscribed(client, &topic, qos);
        client
    }

    /// Such a client, which the platform has made known.
    fn device(&mut self, profile: Profile, qos: QoS) -> usize {
        let client = self.add(profile, qos);
        let session = self.arrival(client);
        self.know(client, session);
        client
    }

    /// The session of a client that arrives; nothing else is told.
    fn arrival(&mut self, client: usize) -> u64 {
        self.play.pass(Duration::from_millis(5));
        let name = self.play.clients[client].profile.name.clone();
        match &self.fake.take()[..] {
            [(core, Told::Arrived { client_id, session })] if **client_id == *name => {
                assert_eq!(usize::from(*core), self.core(client));
                *session
            }
            other => panic!("{other:?}"),
        }
    }

    fn know(&mut self, client: usize, session: u64) {
        let client_id = self.play.clients[client].profile.name.as_str().into();
        let known = Known { client_id, session, device: device(client), app: APP };
        self.command(self.core(client), Command::Known(known));
    }

    fn command(&mut self, core: usize, command: Command) {
        self.play.rig.insist(core, command);
        self.play.pass(Duration::from_millis(1));
    }

    fn message(&mut self, len: usize) -> MsgId {
        let message = self.play.model.new_message(From::Platform, "push", Q1, false, len);
        self.play.model.sent(message);
        message
    }

    fn payload(&self, message: MsgId) -> Bytes {
        self.play.model.messages[message].payload(message).into()
    }

    /// Dispatches a message, new or not, to devices of a core.
    fn dispatch(&mut self, core: usize, message: MsgId, devices: Devices, expires_at: u64) {
        let payload = self.payload(message);
        let message = message as u64;
        let dispatch = Dispatch { message, expires_at, payload, devices, app: APP };
        self.command(core, Command::Dispatch(Arc::new(dispatch)));
    }

    /// Sends a new message to one device.
    fn send(&mut self, client: usize, len: usize) -> u64 {
        let message = self.message(len);
        self.dispatch(self.core(client), message, Devices::One(device(client)), 0);
        message as u64
    }

    /// What became of messages since it was asked last, when some time has passed.
    fn ends(&mut self) -> Vec<(char, u64, u32)> {
        self.play.pass(Duration::from_millis(50));
        ends(&self.fake.take())
    }

    fn got(&self, client: usize, message: u64) -> u32 {
        self.play.model.got(client, message as MsgId)
    }
}

#[test]
fn a_message_is_sent_to_a_known_device_and_told_of_until_it_is_acknowledged() {
    for version in [Version::V311, Version::V5] {
        for qos in [Q1, Q2] {
            let mut scene = Scene::new(1, Setup { cores: 2, ..Setup::default() });
            let phone = scene.device(Profile::persistent("phone", version), qos);
            // Small, and larger than what is copied.
            for len in [10, 5000] {
                let message = scene.send(phone, len);
                let expected = [('s', message, device(phone)), ('a', message, device(phone))];
                assert_eq!(scene.ends(), expected);
                assert_eq!(scene.got(phone, message), 1);
            }
            assert!(scene.play.clients[phone].inbox.iter().all(|(_, qos, _)| *qos == Q1));
            scene.play.finish();
        }
    }
}

#[test]
fn a_message_for_many_comes_to_each_of_them_and_returns_from_whoever_is_not_here() {
    let mut scene = Scene::new(2, Setup { cores: 2, ..Setup::default() });
    let versions = [Version::V311, Version::V5];
    let clients: Vec<usize> = (0..20)
        .map(|n| {
            let profile = Profile::clean(&format!("phone-{n}"), versions[n % 2]);
            scene.device(profile, if n % 5 == 0 { Q0 } else { Q1 })
        })
        .collect();
    let message = scene.message(100);
    for core in 0..2 {
        let here: Vec<usize> =
            clients.iter().copied().filter(|client| scene.core(*client) == core).collect();
        // Numbers that nobody has, before and behind.
        let mut devices: RoaringBitmap = here.iter().map(|client| device(*client)).collect();
        devices.extend(1_000_000..1_005_000);
        devices.extend([0, u32::MAX]);
        scene.dispatch(core, message, Devices::Many(Arc::new(devices)), 0);
        scene.play.pass(Duration::from_millis(50));
        let told = scene.fake.take();
        let mut ends = ends(&told);
        ends.sort_unstable();
        let mut expected = Vec::new();
        for client in &here {
            let device = device(*client);
            match client % 5 == 0 {
                true => expected.push(('S', message as u64, device)),
                false => {
                    expected.push(('s', message as u64, device));
                    expected.push(('a', message as u64, device));
                }
            }
        }
        let nobody = (1_000_000..1_005_000).chain([0, u32::MAX]);
        expected.extend(nobody.map(|device| ('r', message as u64, device)));
        expected.sort_unstable();
        assert_eq!(ends, expected);
        let turns = scene.fake.turns();
        assert!(turns.len() >= 5 && turns.iter().all(|told| *told <= 1100), "{turns:?}");
    }
    assert!(clients.iter().all(|client| scene.got(*client, message as u64) == 1));
    scene.play.finish();
}

/// A device of a session that is kept, which acknowledges nothing, and has some messages in flight
/// and some in its queue.
fn lazy(seed: u64, profile: Profile, setup: Setup) -> (Scene, usize, Vec<u64>) {
    let mut scene = Scene::new(seed, Setup { inflight_max: 2, ..setup });
    let phone = scene.device(profile, Q1);
    scene.play.clients[phone].lazy = true;
    let messages: Vec<u64> = (0..5).map(|_| scene.send(phone, 100)).collect();
    let phone_number = device(phone);
    let expected = [('s', messages[0], phone_number), ('s', messages[1], phone_number)];
    assert_eq!(scene.ends(), expected);
    (scene, phone, messages)
}

#[test]
fn what_was_not_acknowledged_is_sent_again_on_the_sessions_next_connection() {
    for version in [Version::V311, Version::V5] {
        let profile = Profile::persistent("phone", version);
        let (mut scene, phone, messages) = lazy(3, profile, Setup::default());
        let number = device(phone);
        scene.play.part(phone, Parting::Reset);
        scene.play.pass(Duration::from_millis(5));
        let told = scene.fake.take();
        let [(_, Told::Left { device, session })] = &told[..] else { panic!("{told:?}") };
        assert_eq!(*device, number);
        let session = *session;
        // In vain: it is not connected.
        let late = scene.send(phone, 100);
        assert_eq!(scene.ends(), [('r', late, number)]);
        scene.play.clients[phone].lazy = false;
        scene.play.connect(phone);
        scene.play.settle();
        let told = scene.fake.take();
        let arrived = Told::Arrived { client_id: "phone".into(), session };
        assert_eq!(told[0].1, arrived, "it is the same session");
        let [first, second, rest @ ..] = &messages[..] else { panic!() };
        let mut expected = vec![('a', *first, number), ('a', *second, number)];
        for message in rest {
            expected.extend([('s', *message, number), ('a', *message, number)]);
        }
        let mut ends = ends(&told);
        ends.sort_unstable();
        expected.sort_unstable();
        assert_eq!(ends, expected, "what was sent is not told again");
        let got: Vec<u32> = messages.iter().map(|message| scene.got(phone, *message)).collect();
        assert_eq!(got, [2, 2, 1, 1, 1]);
        scene.play.finish();
    }
}

#[test]
fn what_a_session_has_not_acknowledged_returns_when_it_ends() {
    // With its connection, by a clean start, and by its time.
    for how in 0..3 {
        let profile = match how {
            0 => Profile::clean("phone", Version::V5),
            1 => Profile::persistent("phone", Version::V5),
            _ => Profile { expiry_s: 2, ..Profile::persistent("phone", Version::V5) },
        };
        let (mut scene, phone, messages) = lazy(4, profile, Setup::default());
        scene.play.clients[phone].lazy = false;
        scene.play.part(phone, Parting::Close);
        match how {
            0 => {}
            1 => {
                scene.play.clients[phone].want_clean();
                scene.play.connect(phone);
            }
            _ => scene.play.pass_quickly(Duration::from_secs(4)),
        }
        let number = device(phone);
        let mut ends = scene.ends();
        ends.sort_unstable();
        let expected: Vec<_> = messages.iter().map(|message| ('r', *message, number)).collect();
        assert_eq!(ends, expected, "{how}");
        assert!(messages[2..].iter().all(|message| scene.got(phone, *message) == 0));
        let late = scene.send(phone, 100);
        assert_eq!(scene.ends(), [('r', late, number)], "nobody is known to be it");
        scene.play.finish();
    }
}

#[test]
fn a_clean_start_is_another_session_that_is_to_be_known_anew() {
    let mut scene = Scene::new(5, Setup::default());
    let phone = scene.add(Profile::persistent("phone", Version::V5), Q1);
    let before = scene.arrival(phone);
    scene.know(phone, before);
    scene.play.part(phone, Parting::Disconnect);
    scene.play.clients[phone].want_clean();
    scene.play.connect(phone);
    scene.play.settle();
    let told = scene.fake.take();
    assert!(matches!(told[..], [(_, Told::Left { .. })]), "it has yet to subscribe: {told:?}");
    scene.play.ensure_subscribed(phone, "d/phone/push", Q1);
    let session = scene.arrival(phone);
    assert!(session > before);
    // What was said of the session before says nothing of this one.
    scene.know(phone, before);
    let early = scene.send(phone, 10);
    assert_eq!(scene.ends(), [('r', early, device(phone))]);
    scene.know(phone, session);
    let message = scene.send(phone, 10);
    assert_eq!(scene.ends(), [('s', message, device(phone)), ('a', message, device(phone))]);
    scene.play.finish();
}

#[test]
fn a_queue_that_is_full_returns_what_it_has_no_room_for() {
    let setup = Setup { queue_messages_max: 2, ..Setup::default() };
    let profile = Profile::persistent("phone", Version::V5);
    let mut scene = Scene::new(6, Setup { inflight_max: 2, ..setup });
    let phone = scene.device(profile, Q1);
    scene.play.clients[phone].lazy = true;
    let messages: Vec<u64> = (0..6).map(|_| scene.send(phone, 100)).collect();
    let number = device(phone);
    let told = scene.ends();
    let expected = [('s', 0), ('s', 1), ('r', 4), ('r', 5)];
    assert_eq!(told, expected.map(|(end, at)| (end, messages[at], number)));
    scene.play.clients[phone].lazy = false;
    scene.play.settle();
    assert_eq!(scene.ends().len(), 2 + 4, "two sent before, and two sent now");
    scene.play.finish();
}

#[test]
fn what_expires_in_a_queue_returns() {
    let profile = Profile::persistent("phone", Version::V311);
    let (mut scene, phone, _) = lazy(7, profile, Setup::default());
    let number = device(phone);
    let message = scene.message(10);
    let expires_at = scene.play.rig.world.clock().unix_ms + 500;
    scene.dispatch(scene.core(phone), message, Devices::One(number), expires_at);
    scene.play.pass(Duration::from_secs(1));
    assert_eq!(scene.ends(), [], "its turn has not come");
    scene.play.clients[phone].lazy = false;
    scene.play.settle();
    assert!(scene.ends().contains(&('r', message as u64, number)));
    assert_eq!(scene.got(phone, message as u64), 0);
    // And one that is over when it comes.
    scene.dispatch(scene.core(phone), message, Devices::One(number), expires_at);
    assert_eq!(scene.ends(), [('r', message as u64, number)]);
    scene.play.finish();
}

#[test]
fn what_is_withdrawn_leaves_the_queue_and_what_is_in_flight_stays() {
    for (all, seed) in [(true, 8), (false, 9)] {
        let profile = Profile::persistent("phone", Version::V5);
        let (mut scene, phone, messages) = lazy(seed, profile, Setup::default());
        let number = device(phone);
        let from: RoaringBitmap = (0..1000).collect();
        let from = Arc::new(from);
        for message in [messages[0], messages[3], 999] {
            let devices = (!all).then(|| Arc::clone(&from));
            scene.command(0, Command::Withdraw(Withdraw { message, devices }));
        }
        assert_eq!(scene.ends(), [('r', messages[3], number)]);
        // From somebody else.
        let devices = Some(Arc::new(RoaringBitmap::from([number + 1])));
        scene.command(0, Command::Withdraw(Withdraw { message: messages[4], devices }));
        assert_eq!(scene.ends(), []);
        scene.play.clients[phone].lazy = false;
        scene.play.settle();
        let got: Vec<u32> = messages.iter().map(|message| scene.got(phone, *message)).collect();
        assert_eq!(got, [1, 1, 1, 0, 1]);
        scene.play.finish();
    }
}

#[test]
fn what_is_withdrawn_while_it_is_on_its_way_to_many_reaches_nobody_more() {
    let mut scene = Scene::new(10, Setup::default());
    let phone = scene.device(Profile::clean("phone", Version::V5), Q1);
    let message = scene.message(10) as u64;
    let number = device(phone);
    for from in [None, Some(Arc::new(RoaringBitmap::from([number])))] {
        let devices: RoaringBitmap = (0..5000).collect();
        let payload = scene.payload(message as MsgId);
        let devices = Devices::Many(Arc::new(devices));
        let dispatch = Dispatch { message, expires_at: 0, payload, devices, app: APP };
        scene.play.rig.insist(0, Command::Dispatch(Arc::new(dispatch)));
        scene.play.rig.insist(0, Command::Withdraw(Withdraw { message, devices: from }));
        let ends = scene.ends();
        assert_eq!(ends.len(), 5000);
        assert!(ends.iter().all(|(end, ..)| *end == 'r'));
    }
    assert_eq!(scene.got(phone, message), 0);
    scene.play.finish();
}

#[test]
fn at_qos_0_a_message_is_sent_at_once_or_returns() {
    for version in [Version::V311, Version::V5] {
        let mut scene = Scene::new(11, Setup::default());
        let phone = scene.device(Profile::persistent("phone", version), Q0);
        let number = device(phone);
        let message = scene.send(phone, 100);
        assert_eq!(scene.ends(), [('S', message, number)]);
        scene.play.clients[phone].pause_reading();
        let sent: Vec<u64> = (0..200).map(|_| scene.send(phone, 2000)).collect();
        let told = scene.ends();
        assert_eq!(told.len(), sent.len(), "each once");
        let on_their_way = told.iter().filter(|(end, ..)| *end == 'S').count();
        assert!((10..150).contains(&on_their_way), "{on_their_way}");
        assert!(told[on_their_way..].iter().all(|(end, ..)| *end == 'r'));
        scene.play.clients[phone].resume_reading();
        scene.play.pass(Duration::from_secs(1));
        let got = sent.iter().filter(|message| scene.got(phone, **message) == 1).count();
        assert_eq!(got, on_their_way);
        let message = scene.send(phone, 100);
        assert_eq!(scene.ends(), [('S', message, number)], "it keeps up again");
        scene.play.finish();
    }
}

#[test]
fn who_takes_nothing_for_long_is_cut_though_all_that_it_does_not_take_returns() {
    for qos in [Q0, Q1] {
        let mut scene = Scene::new(28, Setup { inflight_max: 100, ..Setup::default() });
        let phone = scene.device(Profile::clean("phone", Version::V5), qos);
        scene.play.clients[phone].pause_reading();
        for _ in 0..200 {
            scene.send(phone, 2000);
        }
        scene.play.pass_quickly(Duration::from_secs(12));
        let told = scene.fake.take();
        let left = told.iter().any(|(_, told)| matches!(told, Told::Left { .. }));
        assert!(left, "the broker has given it up");
        scene.play.finish();
    }
}

#[test]
fn a_message_that_is_larger_than_a_client_takes_is_dropped() {
    for qos in [Q0, Q1] {
        let mut scene = Scene::new(12, Setup::default());
        let profile = Profile { packet_bytes_max: 300, ..Profile::clean("phone", Version::V5) };
        let phone = scene.device(profile, qos);
        let message = scene.send(phone, 400);
        assert_eq!(scene.ends(), [('d', message, device(phone))]);
        let message = scene.send(phone, 100);
        assert_eq!(scene.ends()[0].1, message);
        assert_eq!(scene.got(phone, message), 1);
        scene.play.finish();
    }
}

#[test]
fn who_gives_its_subscription_up_has_left_and_arrives_when_it_subscribes_again() {
    let mut scene = Scene::new(13, Setup::default());
    let phone = scene.device(Profile::clean("phone", Version::V5), Q1);
    let number = device(phone);
    // Another filter that matches changes nothing.
    scene.play.ensure_subscribed(phone, "d/+/push", Q1);
    scene.play.clients[phone].unsubscribe("d/phone/push", &mut scene.play.model);
    scene.play.settle();
    assert_eq!(scene.fake.take(), []);
    scene.play.clients[phone].unsubscribe("d/+/push", &mut scene.play.model);
    scene.play.settle();
    let told = scene.fake.take();
    assert!(matches!(told[..], [(0, Told::Left { device, .. })] if device == number), "{told:?}");
    let message = scene.send(phone, 10);
    assert_eq!(scene.ends(), [('r', message, number)]);
    scene.play.ensure_subscribed(phone, "d/phone/push", Q1);
    scene.arrival(phone);
    // It is known still.
    let message = scene.send(phone, 10);
    assert_eq!(scene.ends(), [('s', message, number), ('a', message, number)]);
    scene.play.finish();
}

#[test]
fn who_leaves_before_it_is_known_is_told_by_its_name() {
    let mut scene = Scene::new(14, Setup::default());
    let phone = scene.add(Profile::clean("phone", Version::V311), Q1);
    let session = scene.arrival(phone);
    scene.play.part(phone, Parting::Reset);
    scene.play.pass(Duration::from_millis(5));
    let left = Told::LeftUnknown { client_id: "phone".into(), session };
    assert_eq!(scene.fake.take(), [(0, left)]);
    // Too late.
    scene.know(phone, session);
    let message = scene.send(phone, 10);
    assert_eq!(scene.ends(), [('r', message, device(phone))]);
    scene.play.finish();
}

#[test]
fn a_device_of_another_app_is_sent_nothing() {
    let mut scene = Scene::new(15, Setup::default());
    let phone = scene.device(Profile::clean("phone", Version::V311), Q1);
    let (message, devices) = (77, Devices::One(device(phone)));
    let payload = Bytes::from_static(b"x");
    let dispatch = Dispatch { message, expires_at: 0, payload, devices, app: APP + 1 };
    scene.command(0, Command::Dispatch(Arc::new(dispatch)));
    assert_eq!(scene.ends(), [('r', 77, device(phone))]);
    scene.play.finish();
}

#[test]
fn a_restart_forgets_what_was_dispatched_and_the_platform_sends_it_again() {
    for crash in [true, false] {
        let profile = Profile::persistent("phone", Version::V5);
        let (mut scene, phone, messages) = lazy(16, profile, Setup::default());
        let number = device(phone);
        match crash {
            true => scene.play.crash(),
            false => scene.play.stop(),
        }
        assert_eq!(scene.play.rig.messages_on_disk(0), 0);
        scene.fake.take();
        scene.play.clients[phone].lazy = false;
        scene.play.rig.start();
        scene.play.connect(phone);
        let session = scene.arrival(phone);
        assert_eq!(scene.play.clients[phone].session_present, Some(true));
        assert_eq!(scene.got(phone, messages[0]), 1, "nothing came again by itself");
        // It is to be known anew.
        scene.know(phone, session);
        for message in &messages {
            scene.dispatch(0, *message as MsgId, Devices::One(number), 0);
        }
        scene.play.settle();
        let ends = scene.ends();
        let acknowledged = |message: &u64| ends.contains(&('a', *message, number));
        assert!(messages.iter().all(acknowledged), "{ends:?}");
        scene.play.finish();
    }
}

#[test]
fn what_is_pushed_to_a_member_of_a_group_that_ends_goes_to_no_other() {
    let mut scene = Scene::new(17, Setup::default());
    let phone = scene.device(Profile::clean("phone", Version::V5), Q1);
    let other = scene.device(Profile::clean("other", Version::V5), Q1);
    for client in [phone, other] {
        scene.play.ensure_subscribed(client, "$share/g/d/#", Q1);
    }
    scene.play.clients[phone].lazy = true;
    let message = scene.send(phone, 10);
    scene.play.pass(Duration::from_millis(5));
    scene.play.part(phone, Parting::Reset);
    assert_eq!(scene.ends(), [('s', message, device(phone)), ('r', message, device(phone))]);
    assert_eq!(scene.got(other, message), 0);
    scene.play.finish();
}

#[test]
fn a_message_that_a_client_refuses_is_dropped() {
    let mut scene = Scene::new(24, Setup::default());
    let phone = scene.device(Profile::persistent("phone", Version::V5), Q1);
    scene.play.clients[phone].refuses = true;
    let message = scene.send(phone, 10);
    assert_eq!(scene.ends(), [('s', message, device(phone)), ('d', message, device(phone))]);
    scene.play.clients[phone].refuses = false;
    scene.play.finish();
}

#[test]
fn a_number_that_is_another_devices_now_finds_that_one() {
    let mut scene = Scene::new(25, Setup::default());
    let before = scene.device(Profile::clean("before", Version::V5), Q1);
    let after = scene.add(Profile::clean("after", Version::V5), Q1);
    let session = scene.arrival(after);
    let number = device(before);
    let known = Known { client_id: "after".into(), session, device: number, app: APP };
    scene.command(0, Command::Known(known));
    let mut sent = || {
        let message = scene.message(10);
        scene.dispatch(0, message, Devices::One(number), 0);
        assert_eq!(scene.ends(), [('s', message as u64, number), ('a', message as u64, number)]);
        (scene.got(before, message as u64), scene.got(after, message as u64))
    };
    assert_eq!(sent(), (0, 1));
    scene.play.part(before, Parting::Disconnect);
    scene.play.pass(Duration::from_millis(5));
    let told = scene.fake.take();
    assert!(matches!(told[..], [(0, Told::LeftUnknown { .. })]), "{told:?}");
    let message = scene.message(10);
    scene.dispatch(0, message, Devices::One(number), 0);
    assert_eq!(scene.ends().len(), 2, "it is there still");
    assert_eq!(scene.got(after, message as u64), 1);
    scene.play.finish();
}

#[test]
fn nothing_of_what_the_platform_sends_is_in_the_log() {
    let kinds = |messages: usize| {
        let mut scene = Scene::new(26, Setup { inflight_max: 2, ..Setup::default() });
        let phone = scene.device(Profile::persistent("phone", Version::V5), Q1);
        // Some are acknowledged, some are in flight, and some in the queue.
        for n in 0..messages {
            scene.play.clients[phone].lazy = n >= messages / 2;
            scene.send(phone, 10);
        }
        scene.play.pass(Duration::from_secs(1));
        scene.play.stop();
        let kinds = scene.play.rig.kinds_on_disk(0);
        scene.play.clients[phone].lazy = false;
        scene.play.finish();
        kinds
    };
    let none = kinds(0);
    assert!(none.len() > 1);
    assert_eq!(kinds(40), none);
}

#[test]
fn a_message_says_what_its_subscription_is_called_and_how_long_it_lives() {
    for qos in [Q0, Q1] {
        let mut scene = Scene::new(27, Setup::default());
        scene.play.pass(Duration::from_secs(1));
        let peer = scene.play.rig.connect();
        let mut bytes = Vec::new();
        let connect = Connect::new(Version::V5, "raw");
        Packet::Connect(connect).encode(Version::V5, &mut bytes).unwrap();
        let subscriptions = [Subscription::new("d/raw/#", qos)];
        let subscription_id = SubscriptionId::new(9);
        let subscribe = Subscribe {
            packet_id: PacketId::MIN,
            properties: SubscribeProperties { subscription_id, ..Default::default() },
            subscriptions: Subscriptions::new(&subscriptions),
        };
        Packet::Subscribe(subscribe).encode(Version::V5, &mut bytes).unwrap();
        peer.send(&bytes);
        scene.play.pass(Duration::from_millis(50));
        let told = scene.fake.take();
        let [(0, Told::Arrived { session, .. })] = told[..] else { panic!("{told:?}") };
        let known = Known { client_id: "raw".into(), session, device: 5, app: APP };
        scene.command(0, Command::Known(known));
        peer.received();
        let message = scene.message(10);
        let expires_at = scene.play.rig.world.clock().unix_ms + 90_000;
        scene.dispatch(0, message, Devices::One(5), expires_at);
        scene.play.pass(Duration::from_millis(50));
        let bytes = peer.received();
        let whole = frame(&bytes, u32::MAX).unwrap().expect("a packet");
        let Ok(Packet::Publish(publish)) = Packet::decode(&whole, Version::V5) else {
            panic!("{bytes:?}")
        };
        assert_eq!((publish.topic, publish.delivery.qos()), ("d/raw/push", qos));
        assert_eq!(publish.payload, &scene.payload(message)[..]);
        let ids: Vec<u32> =
            publish.properties.subscription_ids.iter().map(SubscriptionId::get).collect();
        assert_eq!((ids, publish.properties.message_expiry_s), (vec![9], Some(90)));
        drop(peer);
        scene.play.pass(Duration::from_millis(50));
        scene.play.finish();
    }
}

// --- What devices tell ---

/// The tickets of what was told of a client's publications, and nothing else.
fn tickets(told: &[(u16, Told)], name: &str) -> Vec<(ReceiptTopic, u64)> {
    let ticket = |(_, told): &(u16, Told)| match told {
        Told::Receipts { client_id, topic, ticket, .. } if **client_id == *name => {
            (*topic, *ticket)
        }
        other => panic!("{other:?}"),
    };
    told.iter().map(ticket).collect()
}

#[test]
fn what_a_device_reports_is_answered_when_it_is_settled_and_is_nobody_elses() {
    for version in [Version::V311, Version::V5] {
        for qos in [Q1, Q2] {
            let mut scene = Scene::new(18, Setup { cores: 2, ..Setup::default() });
            let nosy = scene.play.add(Profile::clean("nosy", Version::V5));
            let phone = scene.play.add(Profile::persistent("phone", version));
            scene.play.connect(phone);
            scene.play.ensure_subscribed(nosy, "d/phone/receipts", Q1);
            scene.play.settle();
            let topics = [ReceiptTopic::Receipts, ReceiptTopic::Topics];
            for (name, topic) in ["receipts", "topics"].into_iter().zip(topics) {
                let name = scene.topic(phone, name);
                let message = scene.play.publish(phone, &name, qos, true, 10);
                scene.play.pass(Duration::from_secs(2));
                assert_eq!(scene.play.model.messages[message].acknowledged, None);
                let told = scene.fake.take();
                let [(_, Told::Receipts { payload, .. })] = &told[..] else { panic!("{told:?}") };
                assert_eq!(*payload, scene.payload(message));
                let [(told_topic, ticket)] = tickets(&told, "phone")[..] else { panic!() };
                assert_eq!(told_topic, topic);
                let core = scene.core(phone);
                scene.command(core, Command::Settled(Settled { ticket, refused: false }));
                // Once more is one time too many, and does no harm.
                scene.command(core, Command::Settled(Settled { ticket, refused: true }));
                scene.play.pass(Duration::from_millis(50));
                assert!(scene.play.model.messages[message].acknowledged.is_some());
                assert_eq!(scene.got(nosy, message as u64), 0);
                // It was not retained either; so nobody is to look for it.
                scene.play.model.messages[message].retain = false;
            }
            let name = scene.topic(phone, "receipts");
            scene.play.publish(phone, &name, Q0, false, 10);
            scene.play.pass(Duration::from_millis(50));
            let told = tickets(&scene.fake.take(), "phone");
            assert_eq!(told, [(ReceiptTopic::Receipts, 0)]);
            scene.play.finish();
        }
    }
}

#[test]
fn a_report_that_is_refused_is_told_so_or_its_client_is_cut() {
    for version in [Version::V311, Version::V5] {
        let mut scene = Scene::new(19, Setup::default());
        let phone = scene.play.add(Profile::persistent("phone", version));
        scene.play.connect(phone);
        scene.play.settle();
        let message = scene.play.publish(phone, "d/phone/receipts", Q1, false, 10);
        scene.play.pass(Duration::from_millis(50));
        let [(_, ticket)] = tickets(&scene.fake.take(), "phone")[..] else { panic!() };
        scene.command(0, Command::Settled(Settled { ticket, refused: true }));
        scene.play.pass(Duration::from_millis(50));
        let reason = ReasonCode::ImplementationSpecificError;
        match version {
            Version::V5 => assert_eq!(scene.play.clients[phone].refusals, [(message, reason)]),
            Version::V311 => {
                assert!(scene.play.clients[phone].is_offline());
                // It says it again.
                scene.play.connect(phone);
                scene.play.pass(Duration::from_millis(50));
                let [(_, ticket)] = tickets(&scene.fake.take(), "phone")[..] else { panic!() };
                scene.command(0, Command::Settled(Settled { ticket, refused: false }));
            }
        }
        scene.play.finish();
    }
}

#[test]
fn a_report_of_qos_2_that_comes_again_is_told_again_and_waits_for_its_own_answer() {
    let mut scene = Scene::new(20, Setup::default());
    let phone = scene.play.add(Profile::persistent("phone", Version::V5));
    scene.play.connect(phone);
    scene.play.settle();
    let message = scene.play.publish(phone, "d/phone/receipts", Q2, false, 10);
    scene.play.pass(Duration::from_millis(50));
    let [(_, first)] = tickets(&scene.fake.take(), "phone")[..] else { panic!() };
    scene.play.part(phone, Parting::Reset);
    scene.play.connect(phone);
    scene.play.pass(Duration::from_millis(50));
    let [(_, second)] = tickets(&scene.fake.take(), "phone")[..] else { panic!() };
    // The first was asked on a connection that is gone.
    scene.command(0, Command::Settled(Settled { ticket: first, refused: false }));
    scene.play.pass(Duration::from_millis(50));
    assert_eq!(scene.play.model.messages[message].acknowledged, None);
    scene.command(0, Command::Settled(Settled { ticket: second, refused: false }));
    scene.play.settle();
    assert!(scene.play.model.messages[message].acknowledged.is_some());
    scene.play.finish();
}

#[test]
fn a_report_that_is_too_long_is_refused() {
    let mut scene = Scene::new(21, Setup { packet_bytes_max: 128 << 10, ..Setup::default() });
    let phone = scene.play.add(Profile::clean("phone", Version::V5));
    scene.play.connect(phone);
    scene.play.settle();
    // The payload begins with eight bytes of its own.
    let most = RECEIPTS_BYTES_MAX - 8;
    let fits = scene.play.publish(phone, "d/phone/receipts", Q1, false, most);
    let message = scene.play.publish(phone, "d/phone/receipts", Q1, false, most + 1);
    scene.play.pass(Duration::from_millis(50));
    let [(_, ticket)] = tickets(&scene.fake.take(), "phone")[..] else { panic!() };
    scene.command(0, Command::Settled(Settled { ticket, refused: false }));
    scene.play.settle();
    assert!(scene.play.model.messages[fits].acknowledged.is_some());
    let refused = [(message, ReasonCode::QuotaExceeded)];
    assert_eq!(scene.play.clients[phone].refusals, refused);
    scene.play.finish();
}

#[test]
fn without_a_platform_such_topics_are_like_others() {
    let mut play = Play::new(22, Setup::default());
    let phone = play.add(Profile::persistent("phone", Version::V5));
    play.ensure_subscribed(phone, "d/phone/#", Q1);
    let message = play.publish(phone, "d/phone/receipts", Q1, false, 10);
    play.settle();
    assert_eq!(play.model.got(phone, message), 1);
    let unknown = Withdraw { message: 1, devices: None };
    play.rig.insist(0, Command::Withdraw(unknown));
    play.finish();
}

#[test]
fn clients_are_not_read_from_while_the_platform_is_behind() {
    let mut scene = Scene::new(23, Setup { cores: 2, ..Setup::default() });
    let phone = scene.device(Profile::persistent("phone", Version::V5), Q1);
    let other = scene.play.add(Profile::clean("other", Version::V311));
    scene.play.connect(other);
    scene.play.settle();
    scene.fake.set_behind(true);
    scene.play.pass(Duration::from_secs(1));
    let sent: Vec<u64> = (0..3).map(|_| scene.send(phone, 10)).collect();
    let published: Vec<MsgId> =
        (0..3).map(|_| scene.play.publish(other, "t/a", Q1, false, 10)).collect();
    scene.play.pass(Duration::from_secs(3));
    // What was read at once when it was found behind is answered; nothing after that.
    let more = scene.play.publish(other, "t/a", Q1, false, 10);
    let ends = ends(&scene.fake.take());
    scene.play.pass(Duration::from_secs(3));
    assert_eq!(scene.fake.take(), []);
    assert_eq!(scene.play.model.messages[more].acknowledged, None);
    assert!(sent.iter().all(|message| ends.contains(&('s', *message, device(phone)))));
    assert!(ends.iter().filter(|(end, ..)| *end == 'a').count() < 3, "{ends:?}");
    scene.fake.set_behind(false);
    scene.play.pass(Duration::from_millis(50));
    let acknowledged = |id: &MsgId| scene.play.model.messages[*id].acknowledged.is_some();
    assert!(published.iter().chain([&more]).all(acknowledged));
    scene.play.finish();
}
