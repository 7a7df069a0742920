//! Random plays in which the process dies: nothing that was accepted is lost, nothing counts twice.
//! `SEXTANT_SEED` names a seed, or a range `0..1000`.

use std::collections::{BTreeMap, BTreeSet};

use sextant_platform::model::State;
use uuid::Uuid;

use crate::world::World;

/// What a message was asked for, and what is known of it.
struct Accepted {
    id: Uuid,
    targets: BTreeSet<u32>,
    recalled: bool,
}

fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("SEXTANT_SEED") else { return 0..12 };
    let range = text.split_once("..").map(|(from, to)| (from.parse(), to.parse()));
    match range {
        Some((Ok(from), Ok(to))) => from..to,
        _ => text.parse().map(|seed: u64| seed..seed + 1).expect("a seed"),
    }
}

#[test]
fn nothing_accepted_is_lost_and_nobody_is_counted_twice_whenever_the_process_dies() {
    for seed in seeds() {
        println!("seed {seed}");
        play(seed);
    }
}

fn play(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut world = World::new();
    let count = random.u32(3..60);
    let devices: Vec<(String, u32)> = (0..count)
        .map(|number| {
            let id = format!("d{number}");
            let device = world.register(&id);
            (id, device)
        })
        .collect();
    world.turn();
    let mut accepted: Vec<Accepted> = Vec::new();
    let mut shown: BTreeMap<Uuid, BTreeSet<u32>> = BTreeMap::new();
    for _ in 0..random.usize(20..200) {
        match random.u32(0..100) {
            0..=19 => {
                let (json, targets) = request(&mut random, &devices);
                let id = world.submit(&json).expect("it is taken");
                // Durable with the commit of this turn, and promised then.
                world.turn();
                accepted.push(Accepted { id, targets, recalled: false });
            }
            20..=39 => world.connect(&devices[random.usize(0..devices.len())].0),
            40..=49 => world.disconnect(&devices[random.usize(0..devices.len())].0),
            50..=69 => world.acknowledge(random.usize(0..20)),
            70..=79 => world.pass(random.u64(0..4)),
            80..=84 => receipt(&mut random, &mut world, &devices, &accepted, &mut shown),
            85..=87 => recall(&mut random, &mut world, &mut accepted),
            88..=92 => world.crash(),
            _ => world.turn(),
        }
    }
    for (id, _) in &devices {
        world.connect(id);
    }
    for _ in 0..5 {
        world.settle();
        world.pass(2);
    }
    for Accepted { id, targets, recalled } in &accepted {
        let (state, funnel) = (world.state(*id), world.funnel(*id));
        assert_eq!(funnel.targeted, targets.len() as u64, "{seed}: {id}");
        let reached = world.reached(*id);
        assert!(reached.is_subset(targets), "{seed}: {id} reached others");
        if *recalled {
            assert_eq!(state, State::Recalled, "{seed}: {id}");
        } else {
            assert_eq!(&reached, targets, "{seed}: {id} is lost for some");
            assert_eq!(state, State::Finished, "{seed}: {id}: {funnel:?}");
            assert_eq!(funnel.delivered, targets.len() as u64, "{seed}: {id}");
        }
        let said = shown.get(id).map_or(0, |devices| devices.len() as u64);
        assert_eq!(funnel.shown, said, "{seed}: {id}");
        assert!(funnel.sent <= funnel.targeted && funnel.delivered <= funnel.sent, "{funnel:?}");
        assert_eq!((funnel.pending, funnel.in_flight), (0, 0), "{seed}: {id}");
    }
}

fn request(random: &mut fastrand::Rng, devices: &[(String, u32)]) -> (String, BTreeSet<u32>) {
    let class = random.choice(["operational", "marketing", "transactional"]).expect("some");
    if random.u32(0..3) == 0 {
        let targets = devices.iter().map(|(_, number)| *number).collect();
        return (
            format!(r#"{{"target":{{"everyone":true}},"class":"{class}","data":{{}}}}"#),
            targets,
        );
    }
    let some = random.choose_multiple(devices, random.clone().usize(1..=devices.len()));
    let ids: Vec<&str> = some.iter().map(|(id, _)| id.as_str()).collect();
    let targets = some.iter().map(|(_, number)| *number).collect();
    let ids = serde_json::to_string(&ids).expect("texts");
    (format!(r#"{{"target":{{"devices":{ids}}},"class":"{class}","data":{{}}}}"#), targets)
}

fn receipt(
    random: &mut fastrand::Rng,
    world: &mut World,
    devices: &[(String, u32)],
    accepted: &[Accepted],
    shown: &mut BTreeMap<Uuid, BTreeSet<u32>>,
) {
    let Some(message) = random.choice(accepted) else { return };
    let (id, number) = &devices[random.usize(0..devices.len())];
    if !message.targets.contains(number) {
        return;
    }
    let json = format!(r#"{{"receipts":[{{"id":"{}","event":"shown"}}]}}"#, message.id);
    let now = world.now;
    world.engine().take_receipts(id, json.as_bytes(), now).expect("a receipt");
    // Acknowledged with the commit.
    world.turn();
    shown.entry(message.id).or_default().insert(*number);
}

fn recall(random: &mut fastrand::Rng, world: &mut World, accepted: &mut [Accepted]) {
    if accepted.is_empty() {
        return;
    }
    let at = random.usize(0..accepted.len());
    let message = &mut accepted[at];
    let (app, number, now) = (world.app, world.number(message.id), world.now);
    if world.engine().recall(app, number, "crm", now).is_ok() {
        world.turn();
        message.recalled = true;
    }
}
