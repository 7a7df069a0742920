//! A peer that resets a connection in every state of it; one that has said its last word; and
//! identifiers that outlive theirs.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use sextant_ring::core::{CloseReason, ConnId, Cx, Limits, SendError};

use crate::harness::{Event, Msg, Role, Shared, Stage, on_all_drivers, stop_all};

on_all_drivers! {
    a_reset_ends_a_connection_in_every_state: 100 seeds;
    who_parts_sends_what_waits_and_then_waits_for_nobody: 20 seeds;
    an_identifier_of_a_former_life_finds_nothing: 20 seeds;
}

/// What a server is at when its peer resets the connection, by the byte with which the peer asks.
const IDLE: u8 = 0;
const SENDING: u8 = 1;
const PAUSED: u8 = 2;
const FLUSHING: u8 = 3;
const LINGERING: u8 = 4;
const MOVING: u8 = 5;
/// Without having asked for anything.
const SILENT: u8 = 6;
const PARTING: u8 = 7;
const STATES: u8 = 8;

/// What one of two servers knows of its connections.
#[derive(Default)]
struct Server {
    open: HashSet<ConnId>,
    /// The callers have gone.
    over: bool,
}

/// The timer that looks whether everything has ended; the others name paused connections.
const LOOK: u64 = u64::MAX >> 1;

impl Server {
    fn enter_state(&mut self, cx: &mut Cx<Msg>, conn: ConnId, state: u8, flood: &Bytes) {
        match state {
            IDLE => {}
            SENDING => cx.send(conn, flood.clone()).unwrap(),
            PAUSED => {
                cx.pause(conn);
                cx.arm(cx.now() + Duration::from_millis(6), conn.to_bits()).unwrap();
            }
            FLUSHING | LINGERING => {
                if state == FLUSHING {
                    cx.send(conn, flood.clone()).unwrap();
                }
                cx.finish(conn);
                self.open.remove(&conn);
            }
            PARTING => {
                cx.send(conn, flood.clone()).unwrap();
                cx.part(conn);
                self.open.remove(&conn);
            }
            MOVING => {
                cx.send_copy(conn, b"moving").unwrap();
                cx.hand_over(conn, 1, Msg::Number(0), &[state]);
                self.open.remove(&conn);
            }
            other => panic!("nobody asks for {other}"),
        }
    }

    fn hear(&mut self, cx: &mut Cx<Msg>, event: Event, flood: &Bytes) {
        match event {
            Event::Accepted(conn, _) => {
                assert!(self.open.insert(conn), "an identifier is used once");
                // The caller does not read it, so that its end is a reset.
                cx.send_copy(conn, b"unread").unwrap();
            }
            Event::Handed(conn, _, data) => {
                assert_eq!(data, [MOVING]);
                assert!(self.open.insert(conn), "an identifier is used once");
            }
            Event::Data(conn, data) => {
                assert!(self.open.contains(&conn) && data.len() == 1);
                self.enter_state(cx, conn, data[0], flood);
            }
            Event::Closed(conn, _) => assert!(self.open.remove(&conn), "it ended twice"),
            Event::Timer(LOOK) | Event::Message(_) => {
                self.over |= matches!(event, Event::Message(_));
                if !self.open.is_empty() || cx.connections() > 0 {
                    cx.arm(cx.now() + Duration::from_millis(5), LOOK).unwrap();
                } else if cx.core() == 0 {
                    // Behind the last connection that moves there.
                    cx.tell(1, Msg::Number(0));
                } else if !cx.is_stopping() {
                    stop_all(cx);
                }
            }
            Event::Timer(key) => cx.resume(ConnId::from_bits(key)),
            Event::Start | Event::Stopping => {}
            other => panic!("{other:?}"),
        }
    }
}

fn a_reset_ends_a_connection_in_every_state(stage: &mut Stage) {
    const CALLS: u64 = STATES as u64 * 8;
    let listener = stage.listener();
    let to = listener.addr().unwrap();
    let mut rng = stage.random();
    // More than both kernels' buffers hold.
    let flood = Bytes::from(vec![9; if stage.is_sim() { 300_000 } else { 12_000_000 }]);
    let patient = |limits: &mut Limits| {
        limits.send_bytes_max = 13_000_000;
        // Longer than the play may take: that nobody is there any more has to be noticed.
        limits.linger = Duration::from_secs(50);
    };
    let server = || {
        let (mut server, flood) = (Server::default(), flood.clone());
        Role::new(move |cx, event| server.hear(cx, event, &flood)).limits(patient)
    };
    let mut left = CALLS;
    let client = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Start => (0..CALLS).for_each(|key| cx.connect(to, key)),
        Event::Connected(key, result) => {
            let conn = result.unwrap();
            cx.pause(conn);
            let state = (key % u64::from(STATES)) as u8;
            if state != SILENT {
                cx.send_copy(conn, &[state]).unwrap();
            }
            let soon = cx.now() + Duration::from_micros(rng.u64(0..8000));
            cx.arm(soon, conn.to_bits()).unwrap();
        }
        Event::Timer(key) => {
            cx.abort(ConnId::from_bits(key));
            left -= 1;
            if left == 0 {
                cx.tell(0, Msg::Number(0));
            }
        }
        Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    let began = stage.now();
    stage.play(vec![server().listening(&listener), server(), Role::new(client)]);
    let took = stage.now().since(began);
    assert!(took < Duration::from_secs(30), "it took {took:?}: somebody waited for the dead");
}

fn who_parts_sends_what_waits_and_then_waits_for_nobody(stage: &mut Stage) {
    const CALLS: u64 = 12;
    let listener = stage.listener();
    let to = listener.addr().unwrap();
    let flood = Bytes::from(vec![7; if stage.is_sim() { 300_000 } else { 12_000_000 }]);
    let (answer, long) = (flood.clone(), flood.len());
    let server = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Data(conn, data) => {
            if data == b"l" {
                cx.send(conn, answer.clone()).unwrap();
            }
            cx.part(conn);
            assert_eq!(cx.send_copy(conn, b"late"), Err(SendError::Closed));
            cx.part(conn);
        }
        Event::Start | Event::Accepted(..) | Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    let mut expected = HashMap::new();
    let client = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Start => (0..CALLS).for_each(|key| cx.connect(to, key)),
        Event::Connected(key, result) => {
            let conn = result.unwrap();
            let (word, bytes) = if key % 2 == 0 { (b"l", long) } else { (b"s", 0) };
            cx.send_copy(conn, word).unwrap();
            expected.insert(conn, bytes);
        }
        Event::Data(conn, data) => *expected.get_mut(&conn).unwrap() -= data.len(),
        Event::Closed(conn, reason) => {
            assert!(matches!(reason, CloseReason::PeerClosed), "{reason:?}");
            assert_eq!(expected.remove(&conn), Some(0));
            if expected.is_empty() {
                stop_all(cx);
            }
        }
        Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    let patient = |limits: &mut Limits| {
        limits.send_bytes_max = 13_000_000;
        limits.linger = Duration::from_secs(50);
    };
    let began = stage.now();
    stage.play(vec![Role::new(server).listening(&listener).limits(patient), Role::new(client)]);
    let took = stage.now().since(began);
    assert!(took < Duration::from_secs(30), "it took {took:?}: somebody was waited for");
}

fn an_identifier_of_a_former_life_finds_nothing(stage: &mut Stage) {
    const LIVES: usize = 12;
    let listener = stage.listener();
    let to = listener.addr().unwrap();
    let reused = Shared::new(0);
    let told = reused.clone();
    let mut former: Vec<ConnId> = Vec::new();
    let mut told_peer = HashMap::new();
    let server = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Accepted(conn, _) => {
            assert!(!former.contains(&conn), "an identifier is used once");
            *told.lock() += usize::from(former.iter().any(|old| old.index() == conn.index()));
            cx.ask_peer(conn);
            told_peer.insert(conn, 0);
        }
        Event::Peer(addr) => assert!(addr.is_ok(), "{addr:?}"),
        Event::Data(conn, data) => {
            // Whatever is done to those who were here does nothing to who is here now.
            for &old in &former {
                assert_eq!(cx.send_copy(old, b"late"), Err(SendError::Closed));
                assert_eq!(cx.unsent(old), 0);
                cx.ask_peer(old);
                cx.pause(old);
                cx.hand_over(old, 1, Msg::Number(0), b"late");
                cx.finish(old);
                cx.abort(old);
            }
            cx.send_copy(conn, &data).unwrap();
            if data.contains(&b'.') {
                cx.finish(conn);
                // The timer of its lingering outlives it, and fires into another life.
                former.push(conn);
            }
        }
        Event::Start | Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    let mut lives = 0;
    let mut said = 0;
    let client = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Start => cx.connect(to, 0),
        Event::Connected(_, result) => {
            said = 0;
            cx.send_copy(result.unwrap(), b"1").unwrap();
        }
        Event::Data(conn, data) => {
            // A few words, spread over more time than the last connection may linger.
            assert_eq!(data.len(), 1);
            said += 1;
            if said <= 5 {
                cx.arm(cx.now() + Duration::from_millis(2), conn.to_bits()).unwrap();
            }
        }
        Event::Timer(key) => {
            let word = if said == 5 { b"." } else { b"w" };
            cx.send_copy(ConnId::from_bits(key), word).unwrap();
        }
        Event::Closed(..) => {
            assert_eq!(said, 6, "a connection ended before its last word");
            lives += 1;
            if lives == LIVES {
                stop_all(cx);
            } else {
                cx.connect(to, 0);
            }
        }
        Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    stage.play(vec![
        Role::new(server)
            .listening(&listener)
            .limits(|limits| limits.linger = Duration::from_millis(5)),
        Role::new(client),
    ]);
    assert!(*reused.lock() > 0, "no slot was used twice");
}
