//! What several cores do together: messages, connections that move, one listener for all.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use sextant_ring::core::{ConnId, Cx};

use crate::harness::{Event, Msg, Role, Shared, Stage, on_all_drivers, payload, stop_all};

on_all_drivers! {
    messages_arrive_in_order_and_wake_who_sleeps: 20 seeds;
    a_connection_moves_with_every_byte_in_both_directions: 60 seeds;
    a_paused_connection_moves_with_what_it_held: 60 seeds;
    a_connection_that_ends_while_it_moves_is_heard_of_on_the_other_core: 60 seeds;
    cores_stop_in_time_while_connections_move: 100 seeds;
    all_cores_accept_on_one_listener: 10 seeds;
    a_connection_knows_its_peer: 20 seeds;
}

fn messages_arrive_in_order_and_wake_who_sleeps(stage: &mut Stage) {
    const ROUNDS: u64 = 50;
    const BURST: u64 = 200;
    // Core 0 sends bursts larger than the queue; core 1 sends each message back; the next burst
    // follows when all of the last are back, so that both sleep in between.
    let mut next = 0;
    let ping = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Start => (0..BURST).for_each(|n| cx.tell(1, Msg::Number(n))),
        Event::Message(Msg::Number(n)) => {
            assert_eq!(n, next);
            next += 1;
            if next == ROUNDS * BURST {
                stop_all(cx);
            } else if next % BURST == 0 {
                (next..next + BURST).for_each(|n| cx.tell(1, Msg::Number(n)));
            }
        }
        Event::Stopping => assert_eq!(cx.backlog(), 0),
        other => panic!("{other:?}"),
    };
    let pong = |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Message(message) => cx.tell(0, message),
        Event::Start | Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    stage.play(vec![Role::new(ping), Role::new(pong)]);
}

struct Call {
    sent: Vec<u8>,
    at: usize,
    got: Vec<u8>,
}

/// Calls, sends in steps while the answer arrives, and expects `greeting` and then all that it
/// has sent.
fn talker(
    calls: usize,
    to: SocketAddr,
    mut rng: fastrand::Rng,
    greeting: Vec<u8>,
) -> impl FnMut(&mut Cx<Msg>, Event) + Send {
    let mut open: HashMap<ConnId, Call> = HashMap::new();
    let mut ended = 0;
    move |cx, event| match event {
        Event::Start => (0..calls).for_each(|key| cx.connect(to, key as u64)),
        Event::Connected(_, result) => {
            let conn = result.unwrap();
            let len = rng.usize(10..50_000);
            let sent = payload(&mut rng, len);
            let at = rng.usize(1..=sent.len());
            cx.send_copy(conn, &sent[..at]).unwrap();
            open.insert(conn, Call { sent, at, got: Vec::new() });
            cx.arm(cx.now() + Duration::from_micros(rng.u64(0..3000)), conn.to_bits()).unwrap();
        }
        Event::Timer(key) => {
            let conn = ConnId::from_bits(key);
            let call = open.get_mut(&conn).expect("it was connected");
            if call.at == call.sent.len() {
                return;
            }
            let next = rng.usize(call.at..=call.sent.len());
            cx.send_copy(conn, &call.sent[call.at..next]).unwrap();
            call.at = next;
            if next < call.sent.len() {
                let soon = cx.now() + Duration::from_micros(rng.u64(0..3000));
                cx.arm(soon, key).unwrap();
            }
        }
        Event::Data(conn, data) => {
            let call = open.get_mut(&conn).expect("it is open");
            call.got.extend(data);
            let expected: Vec<u8> = greeting.iter().chain(&call.sent).copied().collect();
            assert!(expected.starts_with(&call.got), "other bytes came back");
            if call.got.len() == expected.len() {
                cx.finish(conn);
                ended += 1;
                if ended == calls {
                    stop_all(cx);
                }
            }
        }
        Event::Stopping => {}
        other => panic!("{other:?}"),
    }
}

/// Takes connections over and sends back what they send.
fn taker(moved: &Shared<usize>) -> impl FnMut(&mut Cx<Msg>, Event) + Send + use<> {
    let moved = moved.clone();
    move |cx, event| match event {
        Event::Handed(conn, note, data) => {
            assert_eq!(note, Msg::Number(42));
            *moved.lock() += 1;
            cx.send_copy(conn, &data).unwrap();
        }
        Event::Data(conn, data) => cx.send_copy(conn, &data).unwrap(),
        Event::Start | Event::Closed(..) | Event::Stopping => {}
        other => panic!("{other:?}"),
    }
}

fn a_connection_moves_with_every_byte_in_both_directions(stage: &mut Stage) {
    const CALLS: usize = 10;
    let listener = stage.listener();
    let greeting = payload(&mut stage.random(), 100_000);
    let hello = greeting.clone();
    // Says something long on accept, and gives the connection away with its first bytes.
    let giver = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Accepted(conn, _) => cx.send_copy(conn, &hello).unwrap(),
        Event::Data(conn, data) => cx.hand_over(conn, 1, Msg::Number(42), &data),
        Event::Start | Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    let moved = Shared::new(0);
    let talker = talker(CALLS, listener.addr().unwrap(), stage.random(), greeting);
    stage.play(vec![
        Role::new(giver).listening(&listener),
        Role::new(taker(&moved)),
        Role::new(talker),
    ]);
    assert_eq!(*moved.lock(), CALLS);
}

fn a_paused_connection_moves_with_what_it_held(stage: &mut Stage) {
    const CALLS: usize = 10;
    let listener = stage.listener();
    let moved = Shared::new(0);
    let mut first: HashMap<ConnId, Vec<u8>> = HashMap::new();
    // Keeps the first bytes, pauses, and gives the connection away a little later.
    let giver = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Data(conn, data) => {
            let before = first.insert(conn, data);
            assert!(before.is_none(), "it is paused");
            cx.pause(conn);
            cx.arm(cx.now() + Duration::from_micros(500), conn.to_bits()).unwrap();
        }
        Event::Timer(key) => {
            let conn = ConnId::from_bits(key);
            cx.hand_over(conn, 1, Msg::Number(42), &first[&conn]);
        }
        Event::Start | Event::Accepted(..) | Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    let talker = talker(CALLS, listener.addr().unwrap(), stage.random(), Vec::new());
    stage.play(vec![
        Role::new(giver).listening(&listener),
        Role::new(taker(&moved)),
        Role::new(talker),
    ]);
    assert_eq!(*moved.lock(), CALLS);
}

fn a_connection_that_ends_while_it_moves_is_heard_of_on_the_other_core(stage: &mut Stage) {
    const CALLS: u64 = 12;
    let listener = stage.listener();
    let to = listener.addr().unwrap();
    let client = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Start => (0..CALLS).for_each(|key| cx.connect(to, key)),
        Event::Connected(key, result) => {
            let conn = result.unwrap();
            cx.send_copy(conn, b"abc").unwrap();
            if key % 2 == 0 {
                cx.finish(conn);
            } else {
                cx.arm(cx.now() + Duration::from_micros(key * 100), conn.to_bits()).unwrap();
            }
        }
        Event::Timer(key) => cx.abort(ConnId::from_bits(key)),
        Event::Closed(..) | Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    let giver = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Data(conn, data) => cx.hand_over(conn, 1, Msg::Number(0), &data),
        Event::Closed(..) => {
            // It was reset before its first byte was read.
            cx.tell(1, Msg::Number(1));
        }
        Event::Start | Event::Accepted(..) | Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    let mut open = HashSet::new();
    let mut ended = 0;
    let taker = move |cx: &mut Cx<Msg>, event: Event| {
        match event {
            Event::Handed(conn, _, data) => {
                assert!(b"abc".starts_with(&data[..]) && !data.is_empty());
                assert!(open.insert(conn));
            }
            Event::Data(conn, _) => assert!(open.contains(&conn)),
            Event::Closed(conn, _) => {
                assert!(open.remove(&conn));
                ended += 1;
            }
            Event::Message(_) => ended += 1,
            Event::Start | Event::Stopping => {}
            other => panic!("{other:?}"),
        }
        if ended == CALLS && !cx.is_stopping() {
            stop_all(cx);
        }
    };
    stage.play(vec![Role::new(giver).listening(&listener), Role::new(taker), Role::new(client)]);
}

fn cores_stop_in_time_while_connections_move(stage: &mut Stage) {
    const CALLS: u64 = 20;
    const GRACE: Duration = Duration::from_millis(2);
    let listener = stage.listener();
    let to = listener.addr().unwrap();
    let mut rng = stage.random();
    // Two cores pass the connections to and fro, keep them open, and stop at about the same time.
    let mut ball = |listens: bool| {
        let delay = Duration::from_micros(rng.u64(0..8_000));
        let mut accepted = 0;
        let mut connections = HashSet::new();
        let role = Role::new(move |cx: &mut Cx<Msg>, event: Event| match event {
            Event::Accepted(conn, _) => {
                connections.insert(conn);
                accepted += 1;
                if accepted == CALLS {
                    cx.tell(0, Msg::Number(0));
                    cx.tell(1, Msg::Number(0));
                }
            }
            Event::Message(_) => drop(cx.arm(cx.now() + delay, 0).unwrap()),
            Event::Timer(_) => cx.stop(cx.now() + GRACE),
            Event::Data(conn, data) if !cx.is_stopping() => {
                connections.remove(&conn);
                cx.hand_over(conn, 1 - cx.core(), Msg::Number(42), &data);
            }
            Event::Handed(conn, _, data) => {
                connections.insert(conn);
                cx.send_copy(conn, &data).unwrap();
            }
            Event::Data(conn, data) => cx.send_copy(conn, &data).unwrap(),
            // The other core has stopped already.
            Event::HandOverFailed(conn) => cx.abort(conn),
            Event::Closed(conn, _) => assert!(connections.remove(&conn), "it ended twice"),
            Event::Start | Event::Stopping => {}
            other => panic!("{other:?}"),
        });
        if listens { role.listening(&listener) } else { role }
    };
    // It would play for ever: that its connections end is the cores' doing.
    let mut open = 0;
    let client = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Start => (0..CALLS).for_each(|key| cx.connect(to, key)),
        Event::Connected(_, Err(_)) if cx.is_stopping() => {}
        Event::Connected(_, result) => {
            cx.send_copy(result.unwrap(), b"ball").unwrap();
            open += 1;
        }
        Event::Data(conn, data) => cx.send_copy(conn, &data).unwrap(),
        Event::Closed(..) => {
            open -= 1;
            if open == 0 {
                cx.stop(cx.now());
            }
        }
        Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    stage.play_until_each_stops(vec![ball(true), ball(false), Role::new(client)]);
}

fn all_cores_accept_on_one_listener(stage: &mut Stage) {
    const CALLS: u64 = 60;
    let listener = stage.listener();
    let to = listener.addr().unwrap();
    let server = || {
        Role::new(|cx: &mut Cx<Msg>, event: Event| match event {
            Event::Accepted(conn, _) => {
                let core = cx.core() as u8;
                cx.send_copy(conn, &[core]).unwrap();
            }
            Event::Start | Event::Closed(..) | Event::Stopping => {}
            other => panic!("{other:?}"),
        })
        .listening(&listener)
    };
    let served = Shared::new(HashMap::<u8, u64>::new());
    let told = served.clone();
    let client = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Start => (0..CALLS).for_each(|key| cx.connect(to, key)),
        Event::Connected(_, Err(_)) if cx.is_stopping() => {}
        Event::Connected(_, result) => drop(result.unwrap()),
        Event::Data(_, data) => {
            let mut served = told.lock();
            *served.entry(data[0]).or_default() += 1;
            if served.values().sum::<u64>() == CALLS {
                stop_all(cx);
            }
        }
        Event::Closed(..) | Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    stage.play(vec![server(), server(), Role::new(client)]);
    let served = served.lock();
    // The kernel gives them to whom it likes; the simulation to any.
    let fair = !stage.is_sim() || served.len() == 2;
    assert!(fair, "{served:?}");
}

fn a_connection_knows_its_peer(stage: &mut Stage) {
    const CALLS: u64 = 10;
    let listener = stage.listener();
    let to = listener.addr().unwrap();
    let mut peers = HashSet::new();
    let server = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Accepted(conn, _) => cx.ask_peer(conn),
        Event::Peer(addr) => {
            let addr = addr.unwrap();
            assert!(addr.ip().is_loopback() && addr.port() != 0, "{addr}");
            assert!(peers.insert(addr), "two with one address");
            if peers.len() as u64 == CALLS {
                stop_all(cx);
            }
        }
        Event::Start | Event::Closed(..) | Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    let client = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Start => (0..CALLS).for_each(|key| cx.connect(to, key)),
        // The server may have known all of them before the last call is known here.
        Event::Connected(_, Err(_)) if cx.is_stopping() => {}
        Event::Connected(_, result) => cx.ask_peer(result.unwrap()),
        Event::Peer(addr) => assert_eq!(addr.unwrap(), to),
        Event::Closed(..) | Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    stage.play(vec![Role::new(server).listening(&listener), Role::new(client)]);
}
