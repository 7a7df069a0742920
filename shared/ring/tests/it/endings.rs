//! How connections and cores end: each connection is heard of once, and nothing stays behind
//! (the harness looks for what does).

use std::collections::{HashMap, HashSet};
use std::io;
use std::time::Duration;

use bytes::Bytes;
use sextant_ring::core::{CloseReason, ConnId, Cx};
use sextant_ring::time::Time;

use crate::harness::{Event, Msg, Role, Shared, Stage, on_all_drivers, stop_all};

on_all_drivers! {
    a_peer_may_close_in_any_state_and_is_heard_of_once: 60 seeds;
    a_refused_connect_says_so: 10 seeds;
    connections_past_the_limit_are_closed_and_the_others_live: 20 seeds;
    a_stopping_core_ends_what_is_left_at_its_deadline: 20 seeds;
    a_stopping_core_is_finished_once_its_app_ended_everything: 20 seeds;
    a_finished_connection_ends_though_its_peer_does_not: 20 seeds;
    a_core_that_does_not_accept_lets_callers_wait: 20 seeds;
}

/// What a caller does with its connection, by its key.
const MANNERS: u64 = 8;

fn a_peer_may_close_in_any_state_and_is_heard_of_once(stage: &mut Stage) {
    const CALLS: u64 = MANNERS * 4;
    let listener = stage.listener();
    let to = listener.addr().unwrap();
    let mut keys: HashMap<ConnId, u64> = HashMap::new();
    let mut ended = 0;
    let flood = Bytes::from(vec![7; 300_000]);
    let client = move |cx: &mut Cx<Msg>, event: Event| {
        match event {
            Event::Start => (0..CALLS).for_each(|key| cx.connect(to, key)),
            Event::Connected(key, result) => {
                let conn = result.unwrap();
                keys.insert(conn, key);
                match key % MANNERS {
                    0 => cx.abort(conn),
                    1 => cx.finish(conn),
                    2 => {
                        cx.send_copy(conn, b"x").unwrap();
                        cx.abort(conn);
                    }
                    3 => {
                        cx.send(conn, flood.clone()).unwrap();
                        cx.abort(conn);
                    }
                    4 => {
                        cx.send(conn, flood.clone()).unwrap();
                        cx.finish(conn);
                    }
                    // The server ends it, or floods it; see there.
                    5 => cx.send_copy(conn, b"bye").unwrap(),
                    6 => cx.send_copy(conn, b"end").unwrap(),
                    _ => cx.send_copy(conn, b"all").unwrap(),
                }
                if key % MANNERS < 5 {
                    ended += 1;
                }
            }
            Event::Data(conn, _) => {
                // It has begun to flood: that is enough.
                assert_eq!(keys[&conn] % MANNERS, 7);
                cx.abort(conn);
                ended += 1;
            }
            Event::Closed(conn, _) => {
                assert!(matches!(keys[&conn] % MANNERS, 5 | 6), "of {:?}", keys[&conn]);
                ended += 1;
            }
            Event::Stopping => {}
            other => panic!("{other:?}"),
        }
        if ended == CALLS {
            ended = 0;
            cx.tell(0, Msg::Number(CALLS));
        }
    };
    let mut open: HashSet<ConnId> = HashSet::new();
    let mut seen = 0;
    let mut expected = u64::MAX;
    let flood = Bytes::from(vec![9; 500_000]);
    let server = move |cx: &mut Cx<Msg>, event: Event| {
        match event {
            Event::Start | Event::Stopping => {}
            Event::Accepted(conn, _) => {
                assert!(open.insert(conn), "an identifier is used once");
                seen += 1;
            }
            Event::Data(conn, data) => {
                assert!(open.contains(&conn), "data after the end");
                match data[0] {
                    b'b' => {
                        cx.finish(conn);
                        open.remove(&conn);
                    }
                    b'e' => {
                        cx.abort(conn);
                        open.remove(&conn);
                    }
                    b'a' => cx.send(conn, flood.clone()).unwrap(),
                    _ => {}
                }
            }
            Event::Closed(conn, _) => assert!(open.remove(&conn), "it ended twice"),
            Event::Message(Msg::Number(calls)) => expected = calls,
            other => panic!("{other:?}"),
        }
        if seen == expected && open.is_empty() && !cx.is_stopping() {
            stop_all(cx);
        }
    };
    stage.play(vec![Role::new(server).listening(&listener), Role::new(client)]);
}

fn a_refused_connect_says_so(stage: &mut Stage) {
    let to = stage.free_addr();
    stage.play(vec![Role::new(move |cx, event| match event {
        Event::Start => cx.connect(to, 77),
        Event::Connected(key, result) => {
            assert_eq!(key, 77);
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
            stop_all(cx);
        }
        Event::Stopping => {}
        other => panic!("{other:?}"),
    })]);
}

fn connections_past_the_limit_are_closed_and_the_others_live(stage: &mut Stage) {
    const MAX: u64 = 3;
    const CALLS: u64 = 8;
    let listener = stage.listener();
    let to = listener.addr().unwrap();
    let server = |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Data(conn, data) => cx.send_copy(conn, &data).unwrap(),
        Event::Stopping => {
            assert_eq!((cx.stats().accepted, cx.stats().refused), (MAX, CALLS - MAX));
        }
        Event::Start | Event::Accepted(..) | Event::Closed(..) => {}
        other => panic!("{other:?}"),
    };
    let mut closed = 0;
    let mut alive: HashSet<ConnId> = HashSet::new();
    let client = move |cx: &mut Cx<Msg>, event: Event| {
        match event {
            Event::Start => (0..CALLS).for_each(|key| cx.connect(to, key)),
            Event::Connected(_, result) => {
                // One that is refused may be reset before it is known here.
                if let Ok(conn) = result {
                    let _ = cx.send_copy(conn, b"?");
                } else {
                    closed += 1;
                }
            }
            Event::Data(conn, data) => {
                assert_eq!(data, b"?");
                alive.insert(conn);
            }
            Event::Closed(conn, _) if !cx.is_stopping() => {
                assert!(!alive.contains(&conn), "one of the first was closed");
                closed += 1;
            }
            Event::Closed(..) | Event::Stopping => {}
            other => panic!("{other:?}"),
        }
        if alive.len() as u64 == MAX && closed == CALLS - MAX && !cx.is_stopping() {
            stop_all(cx);
        }
    };
    stage.play(vec![
        Role::new(server).listening(&listener).limits(|limits| limits.connections_max = 3),
        Role::new(client),
    ]);
}

fn a_stopping_core_ends_what_is_left_at_its_deadline(stage: &mut Stage) {
    const CALLS: usize = 5;
    const GRACE: Duration = Duration::from_millis(100);
    let listener = stage.listener();
    let to = listener.addr().unwrap();
    let mut accepted = 0;
    let stopped: Shared<Vec<(Time, Time)>> = Shared::new(Vec::new());
    let told = stopped.clone();
    let mut deadline = Time::NEVER;
    let server = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Accepted(conn, _) => {
            accepted += 1;
            // What a peer does not read does not hold up the end either.
            cx.send(conn, Bytes::from(vec![1; 1 << 20])).unwrap();
            if accepted == CALLS {
                deadline = cx.now() + GRACE;
                cx.stop(deadline);
            }
        }
        Event::Closed(_, reason) => {
            assert!(matches!(reason, CloseReason::Stopped), "{reason:?}");
            told.lock().push((deadline, cx.now()));
        }
        Event::Start | Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    // The client hears nothing while it pauses: it stops at a time of its own.
    let client = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Start => {
            (0..CALLS).for_each(|key| cx.connect(to, key as u64));
            cx.arm(cx.now() + GRACE * 10, 0).unwrap();
        }
        Event::Connected(_, result) => cx.pause(result.unwrap()),
        Event::Timer(_) => cx.stop(cx.now()),
        Event::Closed(..) | Event::Data(..) | Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    stage.play(vec![Role::new(server).listening(&listener), Role::new(client)]);
    let stopped = stopped.lock();
    assert_eq!(stopped.len(), CALLS);
    for (deadline, at) in stopped.iter() {
        assert!(at >= deadline, "ended {at}, before {deadline}");
        assert!(at.since(*deadline) < Duration::from_secs(2), "ended {at}, long after {deadline}");
    }
}

fn a_stopping_core_is_finished_once_its_app_ended_everything(stage: &mut Stage) {
    const FAR: Duration = Duration::from_secs(50);
    let listener = stage.listener();
    let to = listener.addr().unwrap();
    let mut open = Vec::new();
    let server = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Accepted(conn, _) => {
            open.push(conn);
            if open.len() == 4 {
                cx.stop(cx.now() + FAR);
            }
        }
        Event::Stopping => {
            for conn in open.drain(..) {
                cx.send_copy(conn, b"goodbye").unwrap();
                cx.finish(conn);
            }
        }
        Event::Start => {}
        other => panic!("{other:?}"),
    };
    let mut got: HashMap<ConnId, Vec<u8>> = HashMap::new();
    let began = Shared::new((Time::ZERO, Time::ZERO));
    let times = began.clone();
    let mut closed = 0;
    let client = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Start => {
            times.lock().0 = cx.now();
            (0..4).for_each(|key| cx.connect(to, key));
        }
        Event::Connected(_, result) => {
            got.insert(result.unwrap(), Vec::new());
        }
        Event::Data(conn, data) => got.get_mut(&conn).expect("it is open").extend(data),
        Event::Closed(conn, reason) => {
            assert!(matches!(reason, CloseReason::PeerClosed), "{reason:?}");
            assert_eq!(got[&conn], b"goodbye");
            closed += 1;
            if closed == 4 {
                times.lock().1 = cx.now();
                cx.stop(cx.now() + FAR);
            }
        }
        Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    stage.play(vec![Role::new(server).listening(&listener), Role::new(client)]);
    let (from, to) = *began.lock();
    assert!(to.since(from) < FAR / 2, "it took until {to}");
}

fn a_finished_connection_ends_though_its_peer_does_not(stage: &mut Stage) {
    let listener = stage.listener();
    let to = listener.addr().unwrap();
    let server = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Accepted(conn, _) => {
            cx.send(conn, Bytes::from(vec![1; 1 << 20])).unwrap();
            cx.finish(conn);
            cx.arm(cx.now() + Duration::from_millis(400), 0).unwrap();
        }
        Event::Timer(_) => {
            assert_eq!(cx.connections(), 0, "it lingers for longer than it may");
            stop_all(cx);
        }
        Event::Start | Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    let client = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Start => cx.connect(to, 0),
        Event::Connected(_, result) => cx.pause(result.unwrap()),
        Event::Closed(..) | Event::Data(..) | Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    let lingering = |limits: &mut sextant_ring::core::Limits| {
        limits.linger = Duration::from_millis(100);
    };
    stage.play(vec![Role::new(server).listening(&listener).limits(lingering), Role::new(client)]);
}

fn a_core_that_does_not_accept_lets_callers_wait(stage: &mut Stage) {
    let listener = stage.listener();
    let to = listener.addr().unwrap();
    let mut open_at = Time::NEVER;
    let server = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Start => {
            // The simulated network learns of a listener with the first accept on it.
            cx.set_accepting(true);
        }
        Event::Accepted(conn, _) if open_at == Time::NEVER => {
            cx.set_accepting(false);
            open_at = cx.now() + Duration::from_millis(50);
            cx.arm(open_at, 0).unwrap();
            cx.send_copy(conn, b"first").unwrap();
        }
        Event::Accepted(conn, _) => {
            cx.send_copy(conn, b"later").unwrap();
        }
        Event::Timer(_) => cx.set_accepting(true),
        Event::Closed(..) | Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    let mut answered = 0;
    let client = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Start => cx.connect(to, 0),
        Event::Connected(key, result) => {
            result.unwrap();
            if key == 0 {
                (1..4).for_each(|key| cx.connect(to, key));
            }
        }
        Event::Data(_, data) => {
            // Both words have five letters, and may arrive in pieces.
            answered += data.len();
            if answered == 4 * 5 {
                stop_all(cx);
            }
        }
        Event::Closed(..) | Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    stage.play(vec![Role::new(server).listening(&listener), Role::new(client)]);
}
