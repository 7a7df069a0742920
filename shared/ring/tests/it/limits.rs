//! Where something runs out: descriptors, connections, room in a queue. Who is there already is
//! served on, who waits is served later, and nothing spins.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use rustix::process::{Resource, Rlimit, setrlimit};
use sextant_ring::core::{CloseReason, ConnId, Cx, SendError};

use crate::harness::{Event, Msg, Role, Shared, Stage, on_all_drivers, stop_all};

on_all_drivers! {
    without_descriptors_callers_wait_and_are_served_when_others_have_gone: 20 seeds;
    a_consumer_that_does_not_read_is_paused_then_shed_and_the_others_get_everything: 20 seeds;
}

/// Sockets of each core.
const SOCKETS: u64 = 4;
/// Cores that call; each has as many connections as it may have sockets.
const CALLERS: usize = 3;

/// Calls until it was served as often as it shall be, stays for a while each time, and leaves.
fn persistent_caller(
    to: SocketAddr,
    stay: Duration,
    served: Shared<usize>,
) -> impl FnMut(&mut Cx<Msg>, Event) + Send {
    let mut open: HashSet<ConnId> = HashSet::new();
    const AGAIN: u64 = u64::MAX >> 1;
    move |cx, event| match event {
        Event::Start => (0..SOCKETS).for_each(|key| cx.connect(to, key)),
        Event::Connected(_, result) => match result {
            Ok(conn) => cx.send_copy(conn, b"?").unwrap(),
            // Refused, or there is no socket for it here yet.
            Err(_) => drop(cx.arm(cx.now() + Duration::from_millis(20), AGAIN).unwrap()),
        },
        Event::Data(conn, data) => {
            assert_eq!(data, b"?");
            assert!(open.insert(conn), "it was answered before");
            cx.arm(cx.now() + stay, conn.to_bits()).unwrap();
        }
        Event::Timer(AGAIN) => cx.connect(to, 0),
        Event::Timer(key) => {
            let conn = ConnId::from_bits(key);
            assert!(open.remove(&conn), "one that was served was closed");
            cx.finish(conn);
            let mut served = served.lock();
            *served += 1;
            if *served == CALLERS * SOCKETS as usize {
                stop_all(cx);
            }
        }
        Event::Closed(conn, _) if !cx.is_stopping() => {
            // A ring gives up the connection for which it finds no place; the caller tries again.
            assert!(!open.contains(&conn), "one that was served was closed");
            cx.arm(cx.now() + Duration::from_millis(20), AGAIN).unwrap();
        }
        Event::Closed(..) | Event::Stopping => {}
        other => panic!("{other:?}"),
    }
}

fn without_descriptors_callers_wait_and_are_served_when_others_have_gone(stage: &mut Stage) {
    stage.sockets_max(SOCKETS as u32);
    let listener = stage.listener();
    let to = listener.addr().unwrap();
    let (served, turns, most) = (Shared::new(0), Shared::new(0), Shared::new(0));
    let (told_turns, told_most) = (turns.clone(), most.clone());
    let server = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Data(conn, data) => {
            let mut most = told_most.lock();
            *most = (*most).max(cx.connections());
            cx.send_copy(conn, &data).unwrap();
        }
        Event::Stopping => *told_turns.lock() = cx.stats().turns,
        Event::Start | Event::Accepted(..) | Event::Closed(..) => {}
        other => panic!("{other:?}"),
    };
    let mut roles = vec![Role::new(server).listening(&listener)];
    let stay = Duration::from_millis(100);
    for _ in 0..CALLERS {
        roles.push(Role::new(persistent_caller(to, stay, served.clone())));
    }
    stage.play(roles);
    assert_eq!(*most.lock() as u64, SOCKETS, "connections at once");
    // An accept that fails is tried again 50 ms later; one that spun would take thousands.
    assert!(*turns.lock() < 2000, "{} turns", turns.lock());
}

/// Bytes that one consumer gets, and bytes that may wait for it.
const STREAM: usize = 3_000_000;
const WAITING_MAX: usize = 50_000;

fn a_consumer_that_does_not_read_is_paused_then_shed_and_the_others_get_everything(
    stage: &mut Stage,
) {
    const CONSUMERS: usize = 4;
    const PIECE: usize = 10_000;
    let stream = if stage.is_sim() { STREAM / 10 } else { STREAM * 3 };
    let listener = stage.listener();
    let to = listener.addr().unwrap();
    let piece = Bytes::from((0..PIECE).map(|n| n as u8).collect::<Vec<_>>());
    let mut offered: HashMap<ConnId, usize> = HashMap::new();
    let mut shed = HashSet::new();
    // Feeds each as fast as it takes it. One that has not taken half of what waits within the
    // time is shed.
    let server = move |cx: &mut Cx<Msg>, event: Event| {
        let fed = match event {
            Event::Data(conn, _) => {
                assert!(offered.insert(conn, 0).is_none());
                conn
            }
            Event::Drained(conn) => conn,
            Event::Timer(key) => {
                let conn = ConnId::from_bits(key);
                let stuck = offered.get(&conn).is_some_and(|&at| at < stream);
                if stuck && cx.unsent(conn) > 0 {
                    assert!(cx.unsent(conn) <= WAITING_MAX);
                    cx.abort(conn);
                    assert_eq!(cx.send_copy(conn, b"x"), Err(SendError::Closed));
                    offered.remove(&conn);
                    assert!(shed.insert(conn), "it was shed before");
                    cx.tell(1, Msg::Number(shed.len() as u64));
                }
                return;
            }
            Event::Start | Event::Accepted(..) | Event::Stopping => return,
            Event::Closed(conn, CloseReason::PeerClosed) => {
                assert_eq!(offered.remove(&conn), Some(stream), "it left too early");
                return;
            }
            other => panic!("{other:?}"),
        };
        let at = offered.get_mut(&fed).expect("it is fed");
        if *at == 0 {
            cx.arm(cx.now() + Duration::from_secs(2), fed.to_bits()).unwrap();
        }
        while *at < stream && cx.send(fed, piece.clone()).is_ok() {
            *at += PIECE;
        }
    };
    let mut got: HashMap<ConnId, usize> = HashMap::new();
    let mut slow = None;
    let mut done = 0;
    let mut told = false;
    let client = move |cx: &mut Cx<Msg>, event: Event| {
        match event {
            Event::Start => (0..CONSUMERS as u64).for_each(|key| cx.connect(to, key)),
            Event::Connected(key, result) => {
                let conn = result.unwrap();
                cx.send_copy(conn, b"f").unwrap();
                got.insert(conn, 0);
                if key == 0 {
                    slow = Some(conn);
                    cx.pause(conn);
                }
            }
            Event::Data(conn, data) => {
                assert_ne!(Some(conn), slow, "it is paused");
                let at = got.get_mut(&conn).expect("it is open");
                for byte in data {
                    assert_eq!(byte, (*at % PIECE) as u8);
                    *at += 1;
                }
                if *at == stream {
                    done += 1;
                    cx.finish(conn);
                }
            }
            Event::Message(message) => {
                assert_eq!(message, Msg::Number(1), "only the slow one is shed");
                told = true;
            }
            Event::Closed(conn, _) => assert_eq!(Some(conn), slow, "only the slow one is closed"),
            Event::Stopping => {}
            other => panic!("{other:?}"),
        }
        if told && done == CONSUMERS - 1 && !cx.is_stopping() {
            cx.abort(slow.expect("it was connected"));
            stop_all(cx);
        }
    };
    stage.play(vec![
        Role::new(server).listening(&listener).limits(|limits| limits.send_bytes_max = WAITING_MAX),
        Role::new(client),
    ]);
}

/// The variable that tells this program to be the server of the next test.
const STARVED_SERVER: &str = "SEXTANT_STARVED_SERVER";

/// An epoll server whose process has no descriptor left while callers wait: in a process of its
/// own, since all tests of this one share its descriptors.
#[test]
fn an_epoll_core_goes_on_serving_when_its_process_has_no_descriptor_left() {
    const NAME: &str =
        "limits::an_epoll_core_goes_on_serving_when_its_process_has_no_descriptor_left";
    if std::env::var_os(STARVED_SERVER).is_some() {
        return crate::harness::on_epoll_once(be_a_starved_server);
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture", "--test-threads", "1"])
        .env(STARVED_SERVER, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = child.unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let addr = lines.find_map(|line| line.strip_prefix("serves ").map(str::to_owned)).unwrap();
    call_a_starved_server(addr.parse().unwrap());
    // It stops when it is told to, and says how often it turned.
    let rest: Vec<String> = lines.collect();
    assert!(child.wait().unwrap().success(), "{rest:?}");
}

/// Callers of that server, more than it has descriptors for.
const CALLERS_IN_ALL: usize = 60;
/// Descriptors that it may have for them, or a few more: the limit is on their numbers, which may
/// have gaps.
const ROOM: u64 = 30;

fn call_a_starved_server(addr: SocketAddr) {
    let call = |_| TcpStream::connect(addr).unwrap();
    let mut callers: Vec<TcpStream> = (0..CALLERS_IN_ALL).map(call).collect();
    for caller in &mut callers {
        caller.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        caller.write_all(b"?").unwrap();
    }
    let is_served = |caller: &mut TcpStream| match caller.read(&mut [0; 1]) {
        Ok(len) => {
            assert_eq!(len, 1, "a caller that waits is not turned away");
            true
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
            false
        }
    };
    // They are accepted in order: the first are served, and the next one is not.
    let served = callers.iter_mut().map(is_served).take_while(|served| *served).count();
    assert!((5..CALLERS_IN_ALL).contains(&served), "{served} served");
    // Those go on being served while others wait.
    callers[0].write_all(b"!").unwrap();
    assert!(is_served(&mut callers[0]));
    // Once they have gone, the others are accepted, as many at a time.
    while !callers.is_empty() {
        callers.drain(..served.min(callers.len()));
        let now = callers.len().min(served);
        for caller in &mut callers[..now] {
            caller.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            assert!(is_served(caller), "one that waited was forgotten");
        }
    }
    let mut last = TcpStream::connect(addr).unwrap();
    last.write_all(b"stop").unwrap();
    let _ = last.read(&mut [0; 1]);
}

fn be_a_starved_server(stage: &mut Stage) {
    let listener = stage.listener();
    let addr = listener.addr().unwrap();
    let served = Shared::new((0, 0));
    let told = served.clone();
    let server = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Start => {
            let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
            let limit = Rlimit { current: Some(open + ROOM), maximum: Some(open + ROOM) };
            setrlimit(Resource::Nofile, limit).unwrap();
            println!("\nserves {addr}");
        }
        Event::Data(_, data) if data == b"stop" => stop_all(cx),
        Event::Data(conn, data) => cx.send_copy(conn, &data).unwrap(),
        Event::Stopping => *told.lock() = (cx.stats().accepted, cx.stats().turns),
        Event::Accepted(..) | Event::Closed(..) => {}
        other => panic!("{other:?}"),
    };
    stage.play(vec![Role::new(server).listening(&listener)]);
    let (accepted, turns) = *served.lock();
    assert_eq!(accepted, CALLERS_IN_ALL as u64 + 1, "each was accepted once");
    assert!(turns < 2000, "{turns} turns: it spun");
}
