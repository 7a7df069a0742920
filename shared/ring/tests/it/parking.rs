//! Connections that wait for long: parked or not, they miss nothing.

use std::collections::HashMap;
use std::time::Duration;

use sextant_ring::core::{CloseReason, ConnId, Cx, Limits};

use crate::harness::{
    Event, Host, Msg, Role, Shared, Stage, on_all_drivers, on_uring, payload, stop_all,
    wide_listener,
};

on_all_drivers! {
    what_happens_to_a_connection_that_waits_is_noticed: 60 seeds;
    a_core_whose_connections_all_wait_sleeps: 10 seeds;
}

const PARK_AFTER: Duration = Duration::from_millis(4);

fn parking(limits: &mut Limits) {
    limits.park_after = PARK_AFTER;
}

/// What befalls a connection, by its key, each time that it has waited.
const FATES: u64 = 6;

/// Each connection waits, is sent something, waits again, and then meets its fate.
fn what_happens_to_a_connection_that_waits_is_noticed(stage: &mut Stage) {
    const CALLS: u64 = FATES * 3;
    let listener = stage.listener();
    let to = listener.addr().unwrap();
    let mut rng = stage.random();
    let mut calls: HashMap<ConnId, (u64, Vec<u8>, usize)> = HashMap::new();
    let mut client = {
        let mut rng = rng.fork();
        move |cx: &mut Cx<Msg>, event: Event| match event {
            Event::Start => (0..CALLS).for_each(|key| cx.connect(to, key)),
            Event::Connected(key, result) => {
                let conn = result.unwrap();
                let len = rng.usize(2..4000);
                let mut sent = payload(&mut rng, len);
                sent[0] = key as u8;
                cx.send_copy(conn, &sent[..1]).unwrap();
                calls.insert(conn, (key, sent, 0));
                let soon = PARK_AFTER * 3 + Duration::from_micros(rng.u64(0..2000));
                cx.arm(cx.now() + soon, conn.to_bits()).unwrap();
            }
            // The first time it sends the rest, the second time it ends.
            Event::Timer(at) => {
                let conn = ConnId::from_bits(at & !(1 << 62));
                let Some((key, sent, _)) = calls.get(&conn) else { return };
                if at & 1 << 62 == 0 {
                    cx.send_copy(conn, &sent[1..]).unwrap();
                    let soon = PARK_AFTER * 3 + Duration::from_micros(rng.u64(0..2000));
                    cx.arm(cx.now() + soon, at | 1 << 62).unwrap();
                } else if key % FATES < 2 {
                    assert_eq!(calls[&conn].2, calls[&conn].1.len(), "everything came back");
                    if key % FATES == 0 {
                        cx.finish(conn);
                    } else {
                        cx.abort(conn);
                    }
                    calls.remove(&conn);
                }
            }
            Event::Data(conn, data) => {
                let (_, sent, back) = calls.get_mut(&conn).expect("it is open");
                assert_eq!(data, sent[*back..*back + data.len()]);
                *back += data.len();
            }
            Event::Closed(conn, _) => {
                let (key, sent, back) = calls.remove(&conn).expect("it ends once");
                assert!(key % FATES >= 2 && back == sent.len(), "{key}: {back} came back");
            }
            Event::Stopping => {}
            other => panic!("{other:?}"),
        }
    };
    let parked = Shared::new(0);
    let ended = Shared::new(0);
    let mut server = || {
        let (parked, ended, mut rng) = (parked.clone(), ended.clone(), rng.fork());
        let mut open: HashMap<ConnId, (u64, bool)> = HashMap::new();
        move |cx: &mut Cx<Msg>, event: Event| {
            match event {
                Event::Accepted(conn, _) => drop(open.insert(conn, (u64::MAX, false))),
                Event::Handed(conn, Msg::Number(key), data) => {
                    open.insert(conn, (key, true));
                    cx.send_copy(conn, &data).unwrap();
                }
                Event::Data(conn, data) => {
                    let (key, _) = open.get_mut(&conn).expect("it is open");
                    if *key == u64::MAX {
                        *key = u64::from(data[0]);
                        let soon = PARK_AFTER * 3 + Duration::from_micros(rng.u64(0..2500));
                        cx.arm(cx.now() + soon, conn.to_bits()).unwrap();
                        if *key % FATES >= 4 {
                            // It ends here, long after the last byte.
                            cx.arm(cx.now() + PARK_AFTER * 12, conn.to_bits() | 1 << 62).unwrap();
                        }
                    }
                    cx.send_copy(conn, &data).unwrap();
                }
                // At about the time that the rest arrives.
                Event::Timer(at) if at & 1 << 62 == 0 => {
                    let conn = ConnId::from_bits(at);
                    let Some(&(key, _)) = open.get(&conn) else { return };
                    match key % FATES {
                        2 => {
                            open.remove(&conn);
                            cx.hand_over(conn, 1 - cx.core(), Msg::Number(key), b"");
                        }
                        3 | 4 => {
                            cx.pause(conn);
                            cx.resume(conn);
                        }
                        _ => {}
                    }
                    if key % FATES == 3 {
                        cx.arm(cx.now() + PARK_AFTER * 12, at | 1 << 62).unwrap();
                    }
                }
                Event::Timer(at) => {
                    let conn = ConnId::from_bits(at & !(1 << 62));
                    if let Some((key, _)) = open.remove(&conn) {
                        if key % 2 == 0 {
                            cx.abort(conn);
                        } else {
                            cx.finish(conn);
                        }
                        *ended.lock() += 1;
                    }
                }
                Event::Closed(conn, reason) => {
                    let (key, _) = open.remove(&conn).expect("it ends once");
                    let well = matches!(reason, CloseReason::PeerClosed);
                    assert!(well || key % FATES == 1, "{key}: {reason:?}");
                    *ended.lock() += 1;
                }
                Event::Message(_) | Event::Start => {}
                Event::Stopping => *parked.lock() += cx.stats().parked,
                other => panic!("{other:?}"),
            }
            // Those that were handed over are ended by the core that has them now.
            let moved: Vec<ConnId> =
                open.iter().filter(|(_, (_, moved))| *moved).map(|(&conn, _)| conn).collect();
            for conn in moved {
                open.get_mut(&conn).expect("it is there").1 = false;
                cx.arm(cx.now() + PARK_AFTER * 12, conn.to_bits() | 1 << 62).unwrap();
            }
            if *ended.lock() == CALLS && !cx.is_stopping() {
                stop_all(cx);
            }
        }
    };
    let epoll = stage.is_epoll();
    let roles = vec![
        Role::new(server()).listening(&listener).limits(parking),
        Role::new(server()).limits(parking),
        Role::new(move |cx, event| client(cx, event)).limits(parking),
    ];
    stage.play(roles);
    let parked = *parked.lock();
    // A core that was busy for long may find that a connection has not waited.
    assert!(if epoll { parked == 0 } else { parked >= CALLS }, "{parked} parked");
}

fn a_core_whose_connections_all_wait_sleeps(stage: &mut Stage) {
    const CALLS: u64 = 20;
    const WAIT: Duration = Duration::from_millis(300);
    let listener = stage.listener();
    let to = listener.addr().unwrap();
    let mut turns = 0;
    let server = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Accepted(..) if cx.stats().accepted == CALLS => {
            cx.arm(cx.now() + PARK_AFTER * 5, 0).unwrap();
        }
        Event::Timer(0) => {
            turns = cx.stats().turns;
            cx.arm(cx.now() + WAIT, 1).unwrap();
        }
        Event::Timer(_) => {
            // It may be woken early, and does not wake by itself.
            let turns = cx.stats().turns - turns;
            assert!(turns < 20, "{turns} turns in {WAIT:?}");
            stop_all(cx);
        }
        Event::Start | Event::Accepted(..) | Event::Closed(..) | Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    let client = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Start => (0..CALLS).for_each(|key| cx.connect(to, key)),
        Event::Connected(_, result) => drop(result.unwrap()),
        Event::Closed(..) | Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    stage.play(vec![
        Role::new(server).listening(&listener).limits(parking),
        Role::new(client).limits(parking),
    ]);
}

/// Kernel memory of connections that wait, with a receive armed and parked: for the
/// documentation of `core/parking.rs`.
#[test]
#[ignore = "a measurement; run it alone, with --nocapture"]
fn slab_of_connections_that_wait() {
    const CALLS: u64 = 10_000;
    /// Bytes in use of each of the kernel's caches.
    fn slabs() -> HashMap<String, i64> {
        let info = std::fs::read_to_string("/proc/slabinfo").unwrap();
        info.lines()
            .skip(2)
            .map(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                let number = |at: usize| words[at].parse::<i64>().unwrap();
                (words[0].to_owned(), number(1) * number(3))
            })
            .collect()
    }
    on_uring(|stage| {
        if let Stage::Kernel { host: Host::Uring(options), .. } = stage {
            options.sockets_max = CALLS as u32 + 100;
        }
        let listener = wide_listener([127, 0, 1, 1]);
        let to = listener.addr().unwrap();
        let mut armed = HashMap::new();
        let server = move |cx: &mut Cx<Msg>, event: Event| match event {
            Event::Accepted(..) if cx.stats().accepted == CALLS => {
                cx.arm(cx.now() + Duration::from_secs(1), 0).unwrap();
            }
            Event::Timer(0) => {
                armed = slabs();
                assert_eq!(cx.stats().parked, 0);
                cx.arm(cx.now() + Duration::from_secs(9), 1).unwrap();
            }
            Event::Timer(_) => {
                assert_eq!(cx.stats().parked, CALLS);
                let parked = slabs();
                let change = |name| (armed[name] - parked[name]) / CALLS as i64;
                for name in armed.keys().filter(|name| change(*name).abs() > 20) {
                    eprintln!("{name}: {} bytes less for each of {CALLS}", change(name));
                }
                stop_all(cx);
            }
            Event::Start | Event::Accepted(..) | Event::Closed(..) | Event::Stopping => {}
            other => panic!("{other:?}"),
        };
        let mut begun = 50;
        let client = move |cx: &mut Cx<Msg>, event: Event| match event {
            Event::Start => (0..begun).for_each(|key| cx.connect(to, key)),
            Event::Connected(_, result) => {
                // Nothing is armed on this side.
                cx.pause(result.unwrap());
                if begun < CALLS {
                    begun += 1;
                    cx.connect(to, begun);
                }
            }
            Event::Closed(..) | Event::Stopping => {}
            other => panic!("{other:?}"),
        };
        let many = |limits: &mut Limits| {
            limits.connections_max = CALLS as u32 + 100;
            limits.park_after = Duration::from_secs(3);
        };
        stage.play(vec![
            Role::new(server).listening(&listener).limits(many),
            Role::new(client).limits(many),
        ]);
    });
}
