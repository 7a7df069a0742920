//! Timers fire once, in order, not before their time, and never after they were disarmed.

use std::time::Duration;

use sextant_ring::core::Cx;
use sextant_ring::time::Time;

use crate::harness::{Event, Msg, Role, Shared, Stage, on_all_drivers, stop_all};

on_all_drivers! {
    timers_fire_in_time_and_in_order: 30 seeds;
    a_core_without_anything_to_do_sleeps: 10 seeds;
}

/// By how much a timer may be late: two ticks of the wheel, and what a busy host adds.
fn late_max(stage: &Stage) -> Duration {
    if stage.is_sim() { Duration::from_millis(3) } else { Duration::from_secs(5) }
}

fn timers_fire_in_time_and_in_order(stage: &mut Stage) {
    let mut rng = stage.random();
    let late_max = late_max(stage);
    let mut deadlines: Vec<Time> = Vec::new();
    let mut disarmed = Vec::new();
    let mut left = 0;
    let mut last = Time::ZERO;
    let script = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Start => {
            for key in 0..200u64 {
                let deadline = cx.now() + Duration::from_micros(rng.u64(0..200_000));
                let timer = cx.arm(deadline, key).unwrap();
                deadlines.push(deadline);
                disarmed.push(key % 3 == 0);
                if key % 3 == 0 {
                    assert!(cx.disarm(timer));
                    assert!(!cx.disarm(timer));
                } else {
                    left += 1;
                }
            }
        }
        Event::Timer(key) => {
            let deadline = deadlines[key as usize];
            assert!(!disarmed[key as usize], "it was disarmed");
            assert!(cx.now() >= deadline, "{deadline} at {}", cx.now());
            assert!(cx.now().since(deadline) <= late_max, "{deadline} at {}", cx.now());
            // In order, by the wheel's tick.
            assert!(deadline + Duration::from_micros(1100) >= last, "{deadline} after {last}");
            last = last.max(deadline);
            disarmed[key as usize] = true;
            left -= 1;
            if rng.u8(..4) == 0 && key < 200 {
                // Another one, from within.
                let deadline = cx.now() + Duration::from_millis(rng.u64(0..20));
                let key = deadlines.len() as u64;
                cx.arm(deadline, key).unwrap();
                deadlines.push(deadline);
                disarmed.push(false);
                left += 1;
            }
            if left == 0 {
                stop_all(cx);
            }
        }
        Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    stage.play(vec![Role::new(script)]);
}

fn a_core_without_anything_to_do_sleeps(stage: &mut Stage) {
    let turns = Shared::new((0, 0));
    let seen = turns.clone();
    let script = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Start => {
            cx.arm(cx.now() + Duration::from_millis(50), 0).unwrap();
            cx.arm(cx.now() + Duration::from_millis(400), 1).unwrap();
        }
        Event::Timer(0) => seen.lock().0 = cx.stats().turns,
        Event::Timer(_) => {
            seen.lock().1 = cx.stats().turns;
            stop_all(cx);
        }
        Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    if let Stage::Sim { world, .. } = stage {
        world.plan(|plan| plan.wake_early = 0.0);
    }
    stage.play(vec![Role::new(script)]);
    let (from, to) = *turns.lock();
    assert!(to - from <= 30, "{} turns in 350 ms of nothing", to - from);
}
