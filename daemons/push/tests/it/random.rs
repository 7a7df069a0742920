//! Plays with everything at once: which client does what, when the network fails and the machine
//! crashes is drawn from the seed.

use std::time::Duration;

use fastrand::Rng;
use sextant_mqtt::{QoS, Version};
use sextant_ring::sim::{Access, seeds};
use sextant_segment::Durability;

use crate::client::{Parting, Profile, WillOf};
use crate::model::From;
use crate::play::Play;
use crate::rig::Setup;

const TOPICS: [&str; 4] = ["t/a", "t/b", "t/c/d", "u"];
const FILTERS: [&str; 9] = ["t/#", "t/+", "t/a", "t/b", "t/c/d", "+/a", "#", "r/#", "r/+/x"];

/// What a play is made of.
struct Temper {
    /// How often something of a kind happens, in so many of 1000 steps.
    crash: u32,
    stop: u32,
    sync_error: u32,
    part: u32,
    connect: u32,
    publish: u32,
    retain: u32,
    subscribe: u32,
    unsubscribe: u32,
    clean: u32,
    push: u32,
    slow: u32,
    leap: u32,
    suspend: u32,
    steps: u32,
    bulk: bool,
}

impl Temper {
    fn draw(rng: &mut Rng) -> Temper {
        let crashes = rng.u8(..4);
        Temper {
            crash: [0, 4, 10, 20][usize::from(crashes)],
            stop: [0, 0, 4][rng.usize(..3)],
            sync_error: [0, 0, 0, 3][rng.usize(..4)],
            part: [2, 10, 40][rng.usize(..3)],
            connect: 150,
            publish: [100, 300, 600][rng.usize(..3)],
            retain: [0, 60][rng.usize(..2)],
            subscribe: [10, 40][rng.usize(..2)],
            unsubscribe: [0, 15][rng.usize(..2)],
            clean: [0, 4][rng.usize(..2)],
            push: [0, 60, 200][rng.usize(..3)],
            slow: [0, 10][rng.usize(..2)],
            leap: [0, 0, 4][rng.usize(..3)],
            suspend: [0, 0, 3][rng.usize(..3)],
            steps: rng.u32(200..900),
            bulk: rng.u8(..4) == 0,
        }
    }
}

fn qos(rng: &mut Rng) -> QoS {
    QoS::from_u8(rng.u8(0..3)).unwrap()
}

fn version(rng: &mut Rng) -> Version {
    if rng.bool() { Version::V5 } else { Version::V311 }
}

/// Clients 0 to 3 keep their sessions, 4 and 5 do not, 6 and 7 are devices. Some of each have a
/// will.
fn cast(play: &mut Play) {
    for n in 0..8 {
        let version = version(&mut play.rng);
        let mut profile = match n {
            0..=3 => Profile::persistent(&format!("keeper-{n}"), version),
            4..=5 => Profile::clean(&format!("guest-{n}"), version),
            _ => Profile::persistent(&format!("device-{n}"), version),
        };
        if play.rng.u8(..3) == 0 {
            profile.receive_max = Some(play.rng.u16(1..8));
        }
        profile.keep_alive_s = [0, 0, 1, 60][play.rng.usize(..4)];
        if n % 3 == 1 {
            let (qos, topic) = (qos(&mut play.rng), TOPICS[play.rng.usize(..TOPICS.len())]);
            let delay_s = [0, 0, 1][play.rng.usize(..3)];
            let message = play.model.new_message(From::Will(n), topic, qos, false, 30);
            profile.will = Some(WillOf { message, delay_s });
        }
        play.add(profile);
    }
}

fn act(play: &mut Play, temper: &Temper) {
    let roll = |play: &mut Play, of_1000: u32| play.rng.u32(..1000) < of_1000;
    if roll(play, temper.crash) {
        play.crash();
    }
    if roll(play, temper.stop) && play.rig.is_running() {
        play.stop();
    }
    if roll(play, temper.leap) {
        play.leap_anywhere();
    }
    if roll(play, temper.suspend) {
        let longest = [20_000, 5_000_000][play.rng.usize(..2)];
        let time = Duration::from_micros(play.rng.u64(1..longest));
        play.suspend(time);
    }
    if !play.rig.is_running() {
        // It is down for a while.
        if play.rng.u8(..10) == 0 {
            play.rig.start();
        }
        return;
    }
    if roll(play, temper.sync_error) {
        play.rig.world.fail_disk(Some(Access::Sync), play.rng.u64(..10), 5);
    }
    let client = play.rng.usize(..play.clients.len());
    if roll(play, temper.connect) && play.clients[client].is_offline() {
        if roll(play, temper.clean) {
            play.clients[client].want_clean();
        }
        play.connect(client);
    }
    if roll(play, temper.part) {
        let how = [Parting::Reset, Parting::Close, Parting::Disconnect][play.rng.usize(..3)];
        play.part(client, how);
    }
    // A takeover.
    if roll(play, temper.part / 4) {
        play.connect(client);
    }
    if roll(play, temper.slow) {
        play.clients[client].pause_reading();
    }
    if roll(play, temper.slow * 4) {
        play.clients[client].resume_reading();
    }
    if roll(play, temper.slow) {
        play.clients[client].lazy ^= true;
    }
    if roll(play, temper.publish) && play.clients[client].outbox_len() < 40 {
        let (qos, topic) = (qos(&mut play.rng), TOPICS[play.rng.usize(..TOPICS.len())]);
        for _ in 0..play.rng.usize(1..6) {
            let most = if temper.bulk { 6000 } else { 200 };
            let len = play.rng.usize(1..most);
            let id = play.publish(client, topic, qos, false, len);
            let v5 = play.clients[client].profile.version == Version::V5;
            play.model.messages[id].expires = v5 && play.rng.u8(..20) == 0;
        }
    }
    if roll(play, temper.retain) && client < 4 {
        // One sender and one QoS a topic: what comes last is then known.
        let (qos, name) = [(QoS::AtLeastOnce, "x"), (QoS::ExactlyOnce, "y")][play.rng.usize(..2)];
        let len = if play.rng.u8(..4) == 0 { 0 } else { play.rng.usize(1..100) };
        play.publish(client, &format!("r/{client}/{name}"), qos, true, len);
    }
    if roll(play, temper.subscribe) {
        let device = format!("d/{}/#", play.clients[client].profile.name);
        let mut filter = FILTERS[play.rng.usize(..FILTERS.len())];
        if client >= 6 && play.rng.bool() {
            filter = &device;
        }
        let (mut qos, no_local) = (qos(&mut play.rng), play.rng.u8(..5) == 0);
        if client >= 6 {
            // At QoS 0 nothing is promised.
            qos = qos.max(QoS::AtLeastOnce);
        }
        play.clients[client].subscribe(&[filter], qos, no_local, &mut play.model);
    }
    if roll(play, temper.unsubscribe) {
        let filters = play.model.filters(client);
        if !filters.is_empty() {
            let filter = &filters[play.rng.usize(..filters.len())];
            play.clients[client].unsubscribe(filter, &mut play.model);
        }
    }
    if roll(play, temper.push) {
        let to = match play.rng.u8(..3) {
            0 => Err(TOPICS[play.rng.usize(..TOPICS.len())]),
            _ => Ok(play.rng.usize(6..8)),
        };
        let ttl = [Duration::from_millis(300), Duration::from_secs(86_400)][play.rng.usize(..2)];
        let (qos, len) = (qos(&mut play.rng), play.rng.usize(1..300));
        play.push(to, qos, ttl, len);
    }
}

fn random_play(seed: u64) -> (u64, u64) {
    let mut rng = Rng::with_seed(seed ^ 0x005e_87a9);
    let temper = Temper::draw(&mut rng);
    // A log that is not synced at once keeps its promises as long as the power does not fail.
    let lasting = temper.crash == 0 && temper.sync_error == 0;
    let laxer = [Durability::Every(Duration::from_millis(20)), Durability::Os];
    let durability = if lasting && rng.bool() { laxer[rng.usize(..2)] } else { Durability::Always };
    let setup = Setup {
        cores: 1 + (seed % 3) as usize,
        inflight_max: [2, 16][rng.usize(..2)],
        send_queue_bytes_max: [8 << 10, 64 << 10][rng.usize(..2)],
        durability,
        hot_bytes: [0, 0, 2000, 16 << 20][rng.usize(..4)],
        linger: Duration::from_millis([0, 20][rng.usize(..2)]),
        will_grace: Duration::from_millis([0, 20, 1000][rng.usize(..3)]),
        mesh_capacity: [2, 8, 64][rng.usize(..3)],
        ..Setup::default()
    };
    let mut play = Play::planned(seed, setup, |plan| {
        plan.reset = [0.0, 0.0, 0.002][rng.usize(..3)];
        plan.refuse = [0.0, 0.05][rng.usize(..2)];
        plan.starve = [0.0, 0.01][rng.usize(..2)];
        plan.hand_over = [0.0, 0.05][rng.usize(..2)];
        plan.wake_early = [0.0, 0.05][rng.usize(..2)];
        plan.wake_lost = [0.0, 0.0, 0.2][rng.usize(..3)];
        if rng.bool() {
            plan.disk_delay = Duration::from_micros(50)..=Duration::from_micros(20_000);
        }
        if rng.bool() {
            plan.small = (8, 256);
            plan.bulk = (4, 4096);
        }
        plan.lasting_ends = [0.02, 0.3][rng.usize(..2)];
        plan.cancel_late = [0.0, 0.5][rng.usize(..2)];
        plan.completions_max = [2, 4096, 4096][rng.usize(..3)];
        plan.submissions_max = [4, 256, 256][rng.usize(..3)];
        plan.stall = [0.0, 0.001, 0.02][rng.usize(..3)];
        plan.stall_time = Duration::from_micros(100)..=Duration::from_millis(40);
    });
    play.pieces = rng.bool();
    play.model.clients_may_be_late = play.pieces || temper.suspend > 0;
    play.model.refusals = temper.sync_error > 0;
    cast(&mut play);
    for _ in 0..temper.steps {
        act(&mut play, &temper);
        let time = Duration::from_micros(play.rng.u64(50..3000));
        play.pass(time);
        let poisoned = temper.sync_error > 0
            && play.rig.is_running()
            && play.rng.u8(..20) == 0
            && play.rig.status().iter().any(|status| status.log_read_only);
        if poisoned {
            // Whoever runs the broker starts it again.
            play.crash();
        }
    }
    if temper.sync_error > 0 {
        // Faults that were still to come are forgotten.
        play.rig.crash();
    }
    play.finish();
    (play.model.deliveries, play.rig.world.trace())
}

#[test]
fn what_was_acknowledged_is_delivered_whatever_happens() {
    for seed in seeds(1000) {
        random_play(seed);
    }
}

#[test]
fn a_seed_plays_the_same_play_every_time() {
    for seed in [3, 4, 5] {
        assert_eq!(random_play(seed), random_play(seed), "seed {seed}");
    }
}
