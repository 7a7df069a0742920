//! Completions, cancellations and clocks that go wrong.

use super::*;

#[test]
fn completions_that_find_no_room_come_with_later_enters_and_nothing_starts_before() {
    let world = World::new(1);
    world.plan(|plan| plan.completions_max = 2);
    let mut driver = world.driver(Remote::sim());
    let open = |n: u64| {
        let path = PathBuf::from(format!("{n}"));
        let op = Op::File(FileOp::Open { path, mode: OpenMode::CreateNew });
        (Token::new(Kind::File, n), op)
    };
    let begin = |driver: &mut SimDriver, n| {
        let (token, op) = open(n);
        driver.submit(token, op).expect("there is room");
    };
    (0..5).for_each(|n| begin(&mut driver, n));
    driver.enter(None).unwrap();
    world.run_for(&mut [], Duration::from_secs(1));
    begin(&mut driver, 5);
    let mut found = Vec::new();
    for expected in [2, 2, 1, 0] {
        let seen = std::iter::from_fn(|| driver.completed()).count();
        assert_eq!(seen, expected);
        found.push(world.disk().list(Path::new("")).unwrap().len());
        driver.enter(None).unwrap();
    }
    assert_eq!(found, [5; 4], "the sixth was not started while others had no room");
    world.run_for(&mut [], Duration::from_secs(1));
    assert_eq!(std::iter::from_fn(|| driver.completed()).count(), 1);
    assert_eq!((driver.in_flight(), world.disk().list(Path::new("")).unwrap().len()), (0, 6));
}

#[test]
fn what_was_cancelled_may_succeed_after_its_cancellation_is_done() {
    let mut late = 0;
    for seed in seeds(100) {
        let world = World::new(seed);
        world.plan(|plan| {
            plan.cancel_late = 1.0;
            plan.network_delay = Duration::from_micros(1)..=Duration::from_micros(80);
        });
        let mut rig = Rig::new(&world);
        let (socket, peer) = rig.accepted(1);
        let recv = rig.start(Op::Recv { socket, group: Group::Small });
        peer.send(&pattern(5000));
        let cancel = rig.start(Op::Cancel { target: recv, socket: Some(socket) });
        let mut cancelled = false;
        let remote = [rig.driver.remote()];
        let limit = world.now() + LIMIT;
        'receiving: loop {
            world.step(&remote, limit).expect("a cancelled receive ends");
            while let Some(completion) = rig.driver.completed() {
                cancelled |= completion.token == cancel;
                if completion.token != recv {
                    continue;
                }
                if let Outcome::Recv(Ok(Some(buf))) = completion.outcome {
                    late += u32::from(cancelled);
                    rig.driver.release(buf);
                }
                if !completion.more {
                    break 'receiving;
                }
            }
            rig.driver.enter(None).unwrap();
        }
    }
    if std::env::var_os("SEXTANT_SEED").is_none() {
        assert!(late > 10, "{late}");
    }
}

#[test]
fn after_a_suspension_deadlines_have_passed_and_nothing_has_arrived() {
    let world = World::new(1);
    let mut rig = Rig::new(&world);
    let (socket, peer) = rig.accepted(1);
    let recv = rig.start(Op::Recv { socket, group: Group::Small });
    peer.send(b"late");
    rig.driver.enter(Some(Duration::from_secs(1))).unwrap();
    let before = world.clock();
    world.suspend(Duration::from_secs(3600));
    assert_eq!(world.clock().unix_ms - before.unix_ms, 3_600_000);
    assert_eq!(world.step(&[rig.driver.remote()], world.now()), Some(0), "it is woken at once");
    assert_eq!(world.now().since(before.now).as_secs(), 3600);
    assert!(rig.driver.completed().is_none());
    rig.driver.enter(None).unwrap();
    assert!(matches!(rig.next(recv).unwrap().outcome, Outcome::Recv(Ok(Some(_)))));
}

#[test]
fn a_core_that_stalls_is_not_turned_and_finds_everything_afterwards() {
    let world = World::new(1);
    let mut rig = Rig::new(&world);
    let (socket, peer) = rig.accepted(1);
    rig.start(Op::Recv { socket, group: Group::Small });
    world.plan(|plan| {
        plan.stall = 1.0;
        plan.stall_time = Duration::from_secs(1)..=Duration::from_secs(1);
    });
    rig.driver.enter(None).unwrap();
    let before = world.now();
    peer.send(b"hello");
    let woken = world.step(&[rig.driver.remote()], before + LIMIT);
    assert_eq!(woken, Some(0));
    assert!(world.now().since(before) >= Duration::from_secs(1));
    assert!(rig.driver.completed().is_some());
}

#[test]
fn the_wall_clock_leaps_and_the_monotonic_one_does_not() {
    let world = World::new(1);
    let before = world.clock();
    world.leap_unix_ms(-7_200_000);
    assert_eq!(world.clock(), Clock { unix_ms: before.unix_ms - 7_200_000, ..before });
    world.leap_unix_ms(10_800_000);
    assert_eq!(world.clock(), Clock { unix_ms: before.unix_ms + 3_600_000, ..before });
}

#[test]
fn the_commit_is_told_in_full_or_not_at_all() {
    let commit = super::state::commit();
    let is_hash =
        |text: &str| text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(commit.as_deref().is_none_or(is_hash), "{commit:?}");
}
