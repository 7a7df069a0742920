//! One connection, a thousand and eight thousand, with both ends in this process.

use std::collections::BTreeMap;
use std::time::Duration;

use sextant_ring::core::{CloseReason, ConnId, Cx};

use crate::harness::{Event, Msg, Role, Stage, need_descriptors, on_all_drivers, stop_all};

on_all_drivers! {
    one_connection_echoes: 20 seeds;
    a_thousand_connections_echo: 2 seeds;
    eight_thousand_connections_echo: 1 seeds;
}

fn one_connection_echoes(stage: &mut Stage) {
    crowd(stage, 1);
}

fn a_thousand_connections_echo(stage: &mut Stage) {
    crowd(stage, 1000);
}

fn eight_thousand_connections_echo(stage: &mut Stage) {
    crowd(stage, 8000);
}

/// What the caller of that number says in a round.
fn words(number: u64, round: u8) -> [u8; 110] {
    let mut words = [round; 110];
    words[..8].copy_from_slice(&number.to_le_bytes());
    words
}

struct Caller {
    number: u64,
    got: Vec<u8>,
}

/// Everybody calls and has one answer; then all speak at once, have another, and hang up.
fn crowd(stage: &mut Stage, connections: u64) {
    const ROUNDS: u8 = 2;
    /// Calls that wait to be accepted at once: a listener's queue is short.
    const CALLING: u64 = 100;
    stage.sockets_max(connections as u32 + 64);
    if stage.is_epoll() {
        // Both ends, and what else this process and its other tests have open.
        need_descriptors(2 * connections + 500);
    }
    let listener = stage.listener();
    let to = listener.addr().unwrap();
    let mut closed = 0;
    let server = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Data(conn, data) => cx.send_copy(conn, &data).unwrap(),
        Event::Closed(_, reason) => {
            assert!(matches!(reason, CloseReason::PeerClosed), "{reason:?}");
            closed += 1;
            if closed == connections {
                assert_eq!(cx.stats().accepted, connections);
                assert_eq!(cx.stats().received_bytes, connections * 110 * u64::from(ROUNDS));
                stop_all(cx);
            }
        }
        Event::Start | Event::Accepted(..) | Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    let mut callers: BTreeMap<ConnId, Caller> = BTreeMap::new();
    let (mut called, mut answered, mut round) = (0, 0, 1);
    let client = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Start => {
            while called < connections.min(CALLING) {
                cx.connect(to, called);
                called += 1;
            }
        }
        Event::Connected(number, result) => {
            let conn = result.unwrap();
            cx.send_copy(conn, &words(number, 1)).unwrap();
            callers.insert(conn, Caller { number, got: Vec::new() });
        }
        Event::Data(conn, data) => {
            let caller = callers.get_mut(&conn).expect("it is open");
            caller.got.extend(data);
            if caller.got.len() < 110 {
                return;
            }
            assert_eq!(std::mem::take(&mut caller.got), words(caller.number, round));
            answered += 1;
            if called < connections {
                cx.connect(to, called);
                called += 1;
            }
            if answered < connections {
                return;
            }
            answered = 0;
            round += 1;
            for (&conn, caller) in &callers {
                if round > ROUNDS {
                    cx.finish(conn);
                } else {
                    cx.send_copy(conn, &words(caller.number, round)).unwrap();
                }
            }
        }
        Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    let limits = |limits: &mut sextant_ring::core::Limits| {
        limits.connections_max = connections as u32 + 64;
        // Who hangs up first waits for the other, however busy this host is.
        limits.linger = Duration::from_secs(30);
    };
    stage.play(vec![
        Role::new(server).listening(&listener).limits(limits),
        Role::new(client).limits(limits),
    ]);
}
