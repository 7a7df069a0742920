//! Listeners that come and go while a core runs.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sextant_ring::core::{ConnId, Cx, Limits};
use sextant_ring::driver::Listener;

use crate::harness::{
    Event, Msg, Role, Shared, Stage, need_descriptors, on_all_drivers, on_epoll, on_uring, payload,
    stop_all,
};

on_all_drivers! {
    each_call_is_told_of_its_own_listener_while_numbers_are_used_again: 40 seeds;
    who_calls_a_listener_that_was_taken_away_is_refused: 40 seeds;
    a_thousand_listeners_are_served: 1 seeds;
    a_listener_waits_while_nothing_is_accepted: 10 seeds;
}

/// A listener at an address that no other test uses, so that who calls it late reaches nobody.
fn listener(stage: &Stage) -> Arc<Listener> {
    if stage.is_sim() {
        return stage.listener();
    }
    Arc::new(Listener::new(TcpListener::bind("127.0.3.1:0").unwrap()).unwrap())
}

fn addr_of(listener: &Listener) -> SocketAddr {
    listener.addr().expect("it is no unix socket")
}

/// Calls each of these that it is told of, a few times at once. Who is answered is answered by its
/// place in the list; the others are hung up on, or refused. `answered` counts the first.
fn impatient_caller(
    addresses: Vec<SocketAddr>,
    answered: Shared<u64>,
) -> impl FnMut(&mut Cx<Msg>, Event) + Send {
    const CALLS: usize = 5;
    let mut called: BTreeMap<ConnId, u64> = BTreeMap::new();
    move |cx, event| match event {
        Event::Message(Msg::Number(place)) => {
            (0..CALLS).for_each(|_| cx.connect(addresses[place as usize], place));
        }
        Event::Connected(place, Ok(conn)) => assert_eq!(called.insert(conn, place), None),
        Event::Connected(_, Err(_)) | Event::Start | Event::Stopping => {}
        Event::Data(conn, data) => {
            let place = called.remove(&conn).expect("it is answered once");
            assert_eq!(data, [place as u8], "the call was taken for another's");
            *answered.lock() += 1;
            cx.finish(conn);
        }
        Event::Closed(conn, _) => drop(called.remove(&conn).expect("it was not answered")),
        other => panic!("{other:?}"),
    }
}

fn each_call_is_told_of_its_own_listener_while_numbers_are_used_again(stage: &mut Stage) {
    const LISTENERS: u64 = 30;
    let mut rng = stage.random();
    let all: Vec<Arc<Listener>> = (0..LISTENERS).map(|_| listener(stage)).collect();
    let addresses = all.iter().map(|listener| addr_of(listener)).collect();
    let mut fresh = (0..).zip(all);
    let (_, first) = fresh.next().expect("there is one");
    let mut places = BTreeMap::from([(0, 0)]);
    let answered = Shared::new(0);
    let client = Role::new(impatient_caller(addresses, answered.clone()));
    let server = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Start => assert!(cx.arm(cx.now(), 0).is_some()),
        Event::Accepted(conn, number) => {
            cx.send_copy(conn, &[places[&number] as u8]).unwrap();
        }
        Event::Timer(_) => {
            let Some((place, next)) = fresh.next() else { return stop_all(cx) };
            // Mostly in place of another one, whose callers are on their way.
            let gone = rng.choice(places.keys().copied()).filter(|_| rng.u8(..4) > 0);
            if let Some(number) = gone {
                cx.unlisten(number);
                cx.unlisten(number);
                places.remove(&number);
            }
            let number = cx.listen(next).unwrap();
            assert!(gone.is_none_or(|gone| gone == number), "its number is used again");
            assert_eq!(places.insert(number, place), None, "{number} is in use");
            cx.tell(1, Msg::Number(place));
            let pause = Duration::from_micros(rng.u64(0..20_000));
            cx.arm(cx.now() + pause, 0).unwrap();
        }
        Event::Data(..) => panic!("nobody speaks"),
        Event::Closed(..) | Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    stage.play(vec![Role::new(server).listening(&first), client]);
    assert!(*answered.lock() > 0, "nobody was answered");
}

fn who_calls_a_listener_that_was_taken_away_is_refused(stage: &mut Stage) {
    const STAYS: u64 = 0;
    const GOES: u64 = 1;
    let (stays, goes) = (listener(stage), listener(stage));
    let (to_stays, to_goes) = (addr_of(&stays), addr_of(&goes));
    let mut goes = Some(goes);
    let server = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Start => {
            let number = cx.listen(goes.take().expect("a core starts once"));
            assert_eq!(number, Some(1), "those given at the start come first");
        }
        Event::Accepted(conn, number) => cx.send_copy(conn, &[number as u8]).unwrap(),
        Event::Data(conn, data) => cx.send_copy(conn, &data).unwrap(),
        Event::Message(Msg::Number(number)) => cx.unlisten(number as usize),
        Event::Closed(..) | Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    // Calls both; the one that goes until it is refused, and then the other one still serves, as
    // does the connection that was there before.
    let (mut before, mut late) = (None, false);
    let client = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Start => cx.connect(to_goes, GOES),
        Event::Connected(GOES, Ok(_)) | Event::Connected(STAYS, Ok(_)) => {}
        Event::Connected(GOES, Err(error)) => {
            let gone = [ErrorKind::ConnectionRefused, ErrorKind::ConnectionReset];
            assert!(gone.contains(&error.kind()), "{error}");
            assert!(before.is_some(), "it was called before it was there");
            cx.connect(to_stays, STAYS);
        }
        Event::Data(conn, data) if before.is_none() => {
            assert_eq!(data, [GOES as u8]);
            before = Some(conn);
            cx.tell(0, Msg::Number(GOES));
            cx.connect(to_goes, GOES);
        }
        Event::Data(conn, data) if before == Some(conn) => {
            assert_eq!(data, b"s");
            stop_all(cx);
        }
        Event::Data(conn, data) if data == [STAYS as u8] => {
            cx.finish(conn);
            cx.send_copy(before.expect("it was served"), b"s").unwrap();
        }
        // Accepted just before the end: it is served.
        Event::Data(conn, data) => {
            assert_eq!(data, [GOES as u8]);
            cx.abort(conn);
            late = true;
            cx.connect(to_goes, GOES);
        }
        Event::Closed(conn, _) if !cx.is_stopping() => {
            assert_ne!(Some(conn), before, "what was accepted before stays");
            cx.arm(cx.now() + Duration::from_millis(5), GOES).unwrap();
        }
        Event::Timer(_) => cx.connect(to_goes, GOES),
        Event::Closed(..) | Event::Stopping => {}
        other => panic!("{other:?}, late {late}"),
    };
    stage.play(vec![Role::new(server).listening(&stays), Role::new(client)]);
}

fn a_thousand_listeners_are_served(stage: &mut Stage) {
    const LISTENERS: u32 = 1000;
    stage.sockets_max(2 * LISTENERS + 64);
    if !stage.is_sim() {
        need_descriptors(4 * u64::from(LISTENERS) + 500);
    }
    let mut listeners: Vec<_> = (0..=LISTENERS).map(|_| listener(stage)).collect();
    let addresses: Vec<SocketAddr> = listeners.iter().map(|listener| addr_of(listener)).collect();
    let one_more = listeners.pop();
    let server = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Start => {
            for (expected, listener) in listeners.drain(..).enumerate() {
                assert_eq!(cx.listen(listener), Some(expected));
            }
            assert_eq!(cx.listen(one_more.clone().expect("there is")), None, "past the limit");
        }
        Event::Accepted(conn, number) => cx.send_copy(conn, &[(number % 251) as u8]).unwrap(),
        Event::Closed(..) | Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    let (mut called, mut answered) = (BTreeMap::new(), 0);
    let client = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Start => assert!(cx.arm(cx.now() + Duration::from_millis(100), 0).is_some()),
        Event::Timer(_) => {
            for (number, &to) in addresses.iter().take(LISTENERS as usize).enumerate() {
                cx.connect(to, number as u64);
            }
        }
        Event::Connected(number, conn) => {
            called.insert(conn.unwrap(), number);
        }
        Event::Data(conn, data) => {
            assert_eq!(data, [(called[&conn] % 251) as u8]);
            cx.finish(conn);
            answered += 1;
            if answered == LISTENERS {
                stop_all(cx);
            }
        }
        Event::Closed(..) | Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    let limits = |limits: &mut Limits| limits.listeners_max = LISTENERS;
    stage.play(vec![Role::new(server).limits(limits), Role::new(client)]);
}

fn a_listener_waits_while_nothing_is_accepted(stage: &mut Stage) {
    const PAUSE: Duration = Duration::from_millis(100);
    let (listener, short) = (listener(stage), listener(stage));
    let to = addr_of(&listener);
    let mut given = Some((listener, short));
    let mut open_at = None;
    let server = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Start => {
            cx.set_accepting(false);
            let (listener, short) = given.take().expect("a core starts once");
            assert_eq!(cx.listen(short), Some(0));
            assert_eq!(cx.listen(listener), Some(1));
            cx.unlisten(0);
            cx.arm(cx.now() + PAUSE, 0).unwrap();
        }
        Event::Timer(_) => {
            open_at = Some(cx.now());
            cx.set_accepting(true);
            cx.tell(1, Msg::Addr(to));
        }
        Event::Accepted(conn, number) => {
            assert!(open_at.is_some_and(|open_at| cx.now() >= open_at) && number == 1);
            cx.send_copy(conn, b"!").unwrap();
        }
        Event::Closed(..) | Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    let client = move |cx: &mut Cx<Msg>, event: Event| match event {
        // In the simulation nobody listens before the first accept, and it is refused.
        Event::Start => cx.connect(to, 0),
        Event::Message(Msg::Addr(called)) => {
            assert_eq!(to, called);
            cx.arm(cx.now() + PAUSE, 0).unwrap();
        }
        Event::Timer(_) => cx.connect(to, 1),
        Event::Data(_, data) => {
            assert_eq!(data, b"!");
            stop_all(cx);
        }
        Event::Connected(..) | Event::Closed(..) | Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    stage.play(vec![Role::new(server), Role::new(client)]);
}

#[test]
fn a_unix_socket_is_served_on_io_uring() {
    on_uring(unix_socket);
}

#[test]
fn a_unix_socket_is_served_on_epoll() {
    on_epoll(unix_socket);
}

/// Sends, and reads as much; then hangs up.
fn speak_to(path: PathBuf, sent: &[u8]) {
    let mut reading = UnixStream::connect(path).unwrap();
    let mut writing = reading.try_clone().unwrap();
    let mut got = vec![0; sent.len()];
    std::thread::scope(|scope| {
        scope.spawn(move || writing.write_all(sent).unwrap());
        reading.read_exact(&mut got).unwrap();
    });
    assert!(got == sent);
}

fn unix_socket(stage: &mut Stage) {
    const BYTES: usize = 3_000_000;
    let path = stage.dir().join("socket");
    let bound = UnixListener::bind(&path).unwrap();
    let listener = Listener::unix(bound).unwrap();
    assert_eq!(listener.addr(), None);
    let mut listener = Some(Arc::new(listener));
    let sent = payload(&mut stage.random(), BYTES);
    let (mut client, mut asked) = (None, false);
    let server = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Start => {
            assert_eq!(cx.listen(listener.take().expect("a core starts once")), Some(0));
            let (path, sent) = (path.clone(), sent.clone());
            client = Some(std::thread::spawn(move || speak_to(path, &sent)));
        }
        Event::Accepted(conn, number) => {
            assert_eq!(number, 0);
            cx.ask_peer(conn);
        }
        Event::Peer(peer) => {
            assert!(peer.is_err(), "{peer:?} is no address");
            asked = true;
        }
        Event::Data(conn, data) => cx.send_copy(conn, &data).unwrap(),
        Event::Closed(_, reason) => {
            assert!(asked, "{reason:?}");
            client.take().expect("one client").join().unwrap();
            cx.unlisten(0);
            cx.arm(cx.now(), 0).unwrap();
        }
        // Its socket is closed soon.
        Event::Timer(_) => match UnixStream::connect(&path) {
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
                stop_all(cx);
            }
            Ok(_) => assert!(cx.arm(cx.now() + Duration::from_millis(2), 0).is_some()),
        },
        Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    let limits = |limits: &mut Limits| limits.send_bytes_max = 2 * BYTES;
    stage.play(vec![Role::new(server).limits(limits)]);
}
