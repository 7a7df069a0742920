//! Bytes on connections: all of them, in order, however they are cut and held up.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use sextant_ring::core::{CloseReason, ConnId, Cx, SendError};

use crate::harness::{Buffers, Event, Msg, Role, Shared, Stage, on_all_drivers, payload, stop_all};

on_all_drivers! {
    every_byte_comes_back_on_one_connection: 40 seeds;
    every_byte_comes_back_on_a_hundred_connections: 6 seeds;
    a_slow_reader_fills_the_senders_queue_and_gets_everything: 20 seeds;
    what_was_sent_before_finish_arrives_before_the_end: 40 seeds;
    many_connections_share_few_receive_buffers: 20 seeds;
    what_a_peer_sent_before_it_closed_is_read_after_a_pause: 60 seeds;
    large_payloads_of_many_sizes_leave_in_order: 20 seeds;
    a_turn_that_sends_to_a_crowd_sends_to_some_of_it_and_later_turns_to_the_rest: 40 seeds;
}

/// Sends back what arrives. Sends wait here while the connection's queue is full.
struct Echo {
    waiting: HashMap<ConnId, Vec<u8>>,
}

impl Echo {
    fn new() -> Echo {
        Echo { waiting: HashMap::new() }
    }

    fn hear(&mut self, cx: &mut Cx<Msg>, event: Event) {
        match event {
            Event::Start | Event::Accepted(..) | Event::Stopping => {}
            Event::Data(conn, data) => match cx.send_copy(conn, &data) {
                Ok(()) => {}
                Err(SendError::Full) => {
                    self.waiting.insert(conn, data);
                    cx.pause(conn);
                }
                Err(error) => panic!("{error} while its data arrives"),
            },
            Event::Drained(conn) => {
                let data = self.waiting.remove(&conn).expect("a send was refused");
                cx.send_copy(conn, &data).expect("half of the queue is free");
                cx.resume(conn);
            }
            Event::Closed(conn, CloseReason::PeerClosed) => {
                self.waiting.remove(&conn);
            }
            other => panic!("{other:?}"),
        }
    }
}

struct Caller {
    sent: Vec<u8>,
    got: Vec<u8>,
}

/// Calls `count` times, sends something on each connection, and ends each when it came back.
fn echo_client(
    count: usize,
    to: std::net::SocketAddr,
    mut rng: fastrand::Rng,
    max: usize,
) -> impl FnMut(&mut Cx<Msg>, Event) + Send {
    let mut calls: HashMap<ConnId, Caller> = HashMap::new();
    let mut done = 0;
    move |cx, event| match event {
        Event::Start => (0..count).for_each(|key| cx.connect(to, key as u64)),
        Event::Connected(_, result) => {
            let conn = result.unwrap();
            let len = rng.usize(1..max);
            let sent = payload(&mut rng, len);
            let half = sent.len() / 2;
            cx.send_copy(conn, &sent[..half]).unwrap();
            cx.send(conn, Bytes::copy_from_slice(&sent[half..])).unwrap();
            calls.insert(conn, Caller { sent, got: Vec::new() });
        }
        Event::Data(conn, data) => {
            let call = calls.get_mut(&conn).expect("it is connected");
            call.got.extend(data);
            assert!(call.sent.starts_with(&call.got), "other bytes came back");
            if call.sent.len() == call.got.len() {
                cx.finish(conn);
                done += 1;
                if done == count {
                    stop_all(cx);
                }
            }
        }
        Event::Stopping => {}
        other => panic!("{other:?}"),
    }
}

fn echo(stage: &mut Stage, count: usize, max: usize) {
    let listener = stage.listener();
    let client = echo_client(count, listener.addr().unwrap(), stage.random(), max);
    let mut server = Echo::new();
    stage.play(vec![
        Role::new(move |cx, event| server.hear(cx, event)).listening(&listener),
        Role::new(client),
    ]);
}

fn every_byte_comes_back_on_one_connection(stage: &mut Stage) {
    echo(stage, 1, 400_000);
}

fn every_byte_comes_back_on_a_hundred_connections(stage: &mut Stage) {
    echo(stage, 100, 20_000);
}

fn many_connections_share_few_receive_buffers(stage: &mut Stage) {
    stage.buffers(Buffers { small: (4, 512), bulk: (2, 4096) });
    let listener = stage.listener();
    let client = echo_client(30, listener.addr().unwrap(), stage.random(), 60_000);
    let mut server = Echo::new();
    let starved = Shared::new(0);
    let seen = starved.clone();
    let serve = move |cx: &mut Cx<Msg>, event: Event| {
        *seen.lock() = cx.stats().starved;
        server.hear(cx, event);
    };
    stage.play(vec![Role::new(serve).listening(&listener), Role::new(client)]);
    // On epoll a buffer is taken only when the core asks, which has released the last one by then.
    assert_eq!(*starved.lock() == 0, stage.is_epoll(), "how often the pools were empty");
}

/// Offers bytes to a connection until its queue is full or all are taken.
struct Source {
    bytes: Bytes,
    at: usize,
    refusals: u32,
}

impl Source {
    fn new(bytes: Vec<u8>) -> Source {
        Source { bytes: bytes.into(), at: 0, refusals: 0 }
    }

    /// Whether everything was taken.
    fn pour(&mut self, cx: &mut Cx<Msg>, conn: ConnId) -> bool {
        while self.at < self.bytes.len() {
            let piece = self.bytes.slice(self.at..(self.at + 10_000).min(self.bytes.len()));
            let len = piece.len();
            match cx.send(conn, piece) {
                Ok(()) => self.at += len,
                Err(SendError::Full) => {
                    self.refusals += 1;
                    return false;
                }
                Err(SendError::Closed) => panic!("closed before everything was sent"),
                Err(other) => panic!("{other}"),
            }
        }
        true
    }
}

const SEND_MAX: usize = 64 * 1024;

fn a_slow_reader_fills_the_senders_queue_and_gets_everything(stage: &mut Stage) {
    let listener = stage.listener();
    let to = listener.addr().unwrap();
    // More than both kernels' buffers and the queue hold together.
    let len = if stage.is_sim() { 400_000 } else { 24_000_000 };
    let sent = payload(&mut stage.random(), len);
    let refusals = Shared::new(0);

    let mut source = Source::new(sent.clone());
    let told = refusals.clone();
    let sender = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Start => cx.connect(to, 0),
        Event::Connected(_, result) => {
            let conn = result.unwrap();
            assert!(!source.pour(cx, conn), "the queue has a limit");
            assert!(cx.unsent(conn) <= SEND_MAX);
        }
        Event::Drained(conn) => {
            if source.pour(cx, conn) {
                cx.finish(conn);
            }
            *told.lock() = source.refusals;
            assert!(cx.unsent(conn) <= SEND_MAX);
        }
        Event::Stopping => {}
        other => panic!("{other:?}"),
    };

    let mut got = Vec::new();
    let mut reading = None;
    let mut last_seen = 0;
    let reader = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Accepted(conn, _) => {
            cx.pause(conn);
            reading = Some(conn);
            cx.arm(cx.now() + Duration::from_millis(20), 0).unwrap();
        }
        Event::Timer(_) => {
            cx.resume(reading.expect("it was accepted"));
        }
        Event::Data(conn, data) => {
            got.extend(data);
            // It stops to think every now and then, a hundred times at most.
            if got.len() - last_seen > len / 100 {
                last_seen = got.len();
                cx.pause(conn);
                cx.arm(cx.now() + Duration::from_millis(1), 0).unwrap();
            }
        }
        Event::Closed(_, CloseReason::PeerClosed) => {
            assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
            stop_all(cx);
        }
        Event::Start | Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    stage.play(vec![
        Role::new(reader).listening(&listener),
        Role::new(sender).limits(|limits| limits.send_bytes_max = SEND_MAX),
    ]);
    assert!(*refusals.lock() > 1, "the sender was held up again and again");
}

fn what_was_sent_before_finish_arrives_before_the_end(stage: &mut Stage) {
    let listener = stage.listener();
    let to = listener.addr().unwrap();
    let mut rng = stage.random();
    let len = rng.usize(0..1_000_000);
    let sent = payload(&mut rng, len);
    let answer = sent.clone();
    // The server answers a connection at once, and ends it in the same breath.
    let server = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Accepted(conn, _) => {
            cx.send_copy(conn, &answer).unwrap();
            cx.finish(conn);
            assert_eq!(cx.send_copy(conn, b"late"), Err(SendError::Closed));
        }
        Event::Start | Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    let mut got = Vec::new();
    let client = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Start => cx.connect(to, 0),
        Event::Connected(_, result) => {
            // It speaks too, which must not cost it the answer.
            cx.send_copy(result.unwrap(), b"hello").unwrap();
        }
        Event::Data(_, data) => got.extend(data),
        Event::Closed(_, CloseReason::PeerClosed) => {
            assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
            stop_all(cx);
        }
        Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    stage.play(vec![Role::new(server).listening(&listener), Role::new(client)]);
}

fn what_a_peer_sent_before_it_closed_is_read_after_a_pause(stage: &mut Stage) {
    let listener = stage.listener();
    let to = listener.addr().unwrap();
    let mut rng = stage.random();
    let len = rng.usize(1..30_000);
    let sent = payload(&mut rng, len);
    let expected = sent.clone();
    let client = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Start => cx.connect(to, 0),
        Event::Connected(_, result) => {
            let conn = result.unwrap();
            cx.send_copy(conn, &sent).unwrap();
            cx.finish(conn);
        }
        Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    let mut got = Vec::new();
    let mut reading = None;
    let pause = Duration::from_micros(rng.u64(0..5_000));
    let server = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Accepted(conn, _) => reading = Some(conn),
        Event::Data(conn, data) => {
            // One bite, then a pause, in which the rest and the end arrive.
            got.extend(data);
            cx.pause(conn);
            cx.arm(cx.now() + pause, 0).unwrap();
        }
        Event::Timer(_) => cx.resume(reading.expect("it was accepted")),
        Event::Closed(_, CloseReason::PeerClosed) => {
            assert!(got == expected, "{} of {} bytes", got.len(), expected.len());
            stop_all(cx);
        }
        Event::Start | Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    stage.play(vec![Role::new(server).listening(&listener), Role::new(client)]);
}

fn large_payloads_of_many_sizes_leave_in_order(stage: &mut Stage) {
    let listener = stage.listener();
    let to = listener.addr().unwrap();
    let mut rng = stage.random();
    let mut pieces = Vec::new();
    for _ in 0..rng.usize(1..300) {
        // Around the sizes at which an outbox copies, closes a run, or sends in several steps.
        let len = match rng.u8(..4) {
            0 => rng.usize(0..20),
            1 => rng.usize(1000..1050),
            2 => rng.usize(0..10_000),
            _ => rng.usize(65_000..66_000),
        };
        pieces.push((payload(&mut rng, len), rng.bool()));
    }
    let expected: Vec<u8> = pieces.iter().flat_map(|(piece, _)| piece).copied().collect();
    let client = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Start => cx.connect(to, 0),
        Event::Connected(_, result) => {
            let conn = result.unwrap();
            for (piece, copy) in pieces.drain(..) {
                if copy {
                    cx.send_copy(conn, &piece).unwrap();
                } else {
                    cx.send(conn, piece.into()).unwrap();
                }
            }
            cx.finish(conn);
        }
        Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    let mut got = Vec::new();
    let server = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Data(_, data) => got.extend(data),
        Event::Closed(_, CloseReason::PeerClosed) => {
            assert!(got == expected, "{} of {} bytes", got.len(), expected.len());
            stop_all(cx);
        }
        Event::Start | Event::Accepted(..) | Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    let client = Role::new(client).limits(|limits| {
        limits.send_bytes_max = 64 << 20;
        // The whole transfer happens after the finish.
        limits.linger = Duration::from_secs(30);
    });
    stage.play(vec![Role::new(server).listening(&listener), client]);
}

/// What a member of the crowd is sent in a round: sometimes a word of its own, and what all are.
fn crowd_words(member: usize, round: u8) -> (Vec<u8>, [u8; 3]) {
    let own = (member + usize::from(round)).is_multiple_of(7);
    (vec![100 + round; usize::from(own)], [round; 3])
}

fn a_turn_that_sends_to_a_crowd_sends_to_some_of_it_and_later_turns_to_the_rest(stage: &mut Stage) {
    const CROWD: usize = 60;
    const ROUNDS: u8 = 5;
    let listener = stage.listener();
    let to = listener.addr().unwrap();
    let sends_max = stage.random().usize(1..12);
    let mut crowd: Vec<ConnId> = Vec::new();
    let mut rounds = 0..ROUNDS;
    let mut sends_before = 0;
    let serve = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Accepted(conn, _) => {
            crowd.push(conn);
            if crowd.len() == CROWD {
                cx.tell(cx.core(), Msg::Number(0));
            }
        }
        Event::Message(Msg::Number(turn)) => {
            let sends = cx.stats().sends;
            let started = sends - sends_before;
            let most = (sends_max + (sends_max / 4).max(1)) as u64;
            assert!(turn == 0 || started <= most, "{started} sends in a turn");
            sends_before = sends;
            if let Some(round) = rounds.next() {
                let shared = cx.share(0, &crowd_words(0, round).1);
                for (member, &conn) in crowd.iter().enumerate() {
                    let own = crowd_words(member, round).0;
                    if !own.is_empty() {
                        cx.send_copy(conn, &own).unwrap();
                    }
                    cx.send_shared(conn, &shared).unwrap();
                }
                cx.tell(cx.core(), Msg::Number(turn + 1));
            }
        }
        Event::Start | Event::Stopping | Event::Closed(..) => {}
        other => panic!("{other:?}"),
    };
    let mut calls: HashMap<ConnId, Vec<u8>> = HashMap::new();
    let all_words = |member| {
        let words = (0..ROUNDS).map(|round| crowd_words(member, round));
        words.flat_map(|(own, all)| [own, all.to_vec()].concat()).collect()
    };
    let wanted: Vec<Vec<u8>> = (0..CROWD).map(all_words).collect();
    let mut whole = 0;
    let call = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Start => (0..CROWD).for_each(|key| cx.connect(to, key as u64)),
        Event::Connected(_, result) => drop(calls.insert(result.unwrap(), Vec::new())),
        Event::Data(conn, data) => {
            let got = calls.get_mut(&conn).unwrap();
            got.extend_from_slice(&data);
            // Who is which member is the server's affair.
            assert!(wanted.iter().any(|all| all.starts_with(got)), "{got:?}");
            if got.ends_with(&[ROUNDS - 1; 3]) {
                assert!(wanted.contains(got), "{got:?}");
                whole += 1;
            }
            if whole == CROWD {
                stop_all(cx);
            }
        }
        Event::Stopping | Event::Closed(..) => {}
        other => panic!("{other:?}"),
    };
    let serve = Role::new(serve).listening(&listener).limits(|limits| limits.sends_max = sends_max);
    stage.play(vec![serve, Role::new(call)]);
}
