//! Cores of more connections than one descriptor table has entries: several rings to a core.

use std::cell::Cell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use sextant_ring::core::{ConnId, Cx};
use sextant_ring::driver::Listener;
use sextant_ring::uring::Options;

use crate::harness::{
    Event, Host, Msg, Role, Shared, Stage, on_uring, payload, stop_all, wide_listener,
};

fn lay_out(stage: &mut Stage, change: impl FnOnce(&mut Options)) {
    match stage {
        Stage::Kernel { host: Host::Uring(options), .. } => change(options),
        _ => panic!("rings are io_uring's"),
    }
}

#[test]
fn more_connections_than_the_process_may_have_descriptors_echo_close_and_come_again() {
    let once = Cell::new(false);
    on_uring(|stage| {
        if !once.replace(true) {
            multitude(stage);
        }
    });
}

/// Connections of the multitude. Both ends are in this process.
const MULTITUDE: u64 = 24_000;

/// Calls all listeners in turn, a few at a time; once all are answered ends all, and once more.
struct Crowd {
    to: Vec<SocketAddr>,
    begun: u64,
    open: HashMap<ConnId, u64>,
    answered: u64,
    round: u32,
}

impl Crowd {
    const AT_ONCE: u64 = 64;

    fn call(&mut self, cx: &mut Cx<Msg>) {
        if self.begun < MULTITUDE {
            let to = self.to[self.begun as usize % self.to.len()];
            cx.connect(to, self.begun);
            self.begun += 1;
        }
    }

    fn hear(&mut self, cx: &mut Cx<Msg>, event: Event) {
        match event {
            Event::Start => (0..Crowd::AT_ONCE).for_each(|_| self.call(cx)),
            Event::Connected(key, result) => {
                let conn = result.unwrap();
                assert!(self.open.insert(conn, key).is_none());
                self.call(cx);
                if self.open.len() as u64 == MULTITUDE {
                    for (&conn, key) in &self.open {
                        cx.send_copy(conn, &key.to_le_bytes()).unwrap();
                    }
                }
            }
            Event::Data(conn, data) => {
                assert_eq!(data, self.open[&conn].to_le_bytes(), "in one piece, as it was sent");
                self.answered += 1;
                if self.answered == MULTITUDE {
                    self.open.keys().for_each(|&conn| cx.finish(conn));
                    cx.arm(cx.now() + Duration::from_millis(1), 0).unwrap();
                }
            }
            Event::Timer(_) if cx.connections() > 0 => {
                cx.arm(cx.now() + Duration::from_millis(1), 0).unwrap();
            }
            Event::Timer(_) if self.round == 0 => {
                let to = std::mem::take(&mut self.to);
                *self = Crowd { to, begun: 0, open: HashMap::new(), answered: 0, round: 1 };
                (0..Crowd::AT_ONCE).for_each(|_| self.call(cx));
            }
            Event::Timer(_) => stop_all(cx),
            Event::Stopping => {}
            other => panic!("{other:?}"),
        }
    }
}

fn multitude(stage: &mut Stage) {
    lay_out(stage, |options| options.sockets_max = MULTITUDE as u32 + 100);
    // Several addresses: one has only so many ports that callers can call from.
    let listeners: Vec<Arc<Listener>> = (1..=4).map(|n| wide_listener([127, 0, 1, n])).collect();
    let (mut open, mut most) = (0, 0);
    let server = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Accepted(..) => {
            open += 1;
            most = open.max(most);
        }
        Event::Data(conn, data) => cx.send_copy(conn, &data).unwrap(),
        Event::Closed(..) => open -= 1,
        Event::Stopping => {
            assert_eq!((open, most, cx.stats().refused), (0, MULTITUDE, 0));
            assert_eq!(cx.stats().accepted, 2 * MULTITUDE);
        }
        Event::Start => {}
        other => panic!("{other:?}"),
    };
    let to = listeners.iter().map(|listener| listener.addr().unwrap()).collect();
    let mut crowd = Crowd { to, begun: 0, open: HashMap::new(), answered: 0, round: 0 };
    let most = |role: Role| {
        role.limits(|limits| {
            limits.connections_max = MULTITUDE as u32 + 100;
            limits.linger = Duration::from_secs(20);
        })
    };
    let server = listeners.iter().fold(Role::new(server), Role::listening);
    stage.play(vec![most(server), most(Role::new(move |cx, event| crowd.hear(cx, event)))]);
}

#[test]
fn whatever_comes_and_goes_no_entry_of_any_table_is_lost() {
    on_uring(churn);
}

/// Entries of all tables of a core: two of them serve and two call.
const SOCKETS: usize = 4 * 64;
const SERVERS: usize = 2;

/// One call of the churn: what it has sent, and how much of it came back.
struct Call {
    sent: Vec<u8>,
    back: usize,
}

struct Churn {
    rng: Rng,
    to: SocketAddr,
    calls_left: u32,
    connecting: usize,
    open: HashMap<ConnId, Call>,
    /// Once everything has ended: as many as there are entries, all at once.
    last: bool,
    answered: usize,
    /// Callers that hold as many as there are entries, all answered.
    done: usize,
}

impl Churn {
    fn call(&mut self, cx: &mut Cx<Msg>) {
        while !self.last
            && self.calls_left > 0
            && self.connecting + self.open.len() < SOCKETS * 3 / 4
        {
            self.calls_left -= 1;
            self.connecting += 1;
            cx.connect(self.to, 0);
        }
        if self.connecting == 0 && self.open.is_empty() && !cx.is_stopping() {
            cx.arm(cx.now() + Duration::from_millis(1), u64::MAX >> 1).unwrap();
        }
    }

    fn connected(&mut self, cx: &mut Cx<Msg>, conn: ConnId) {
        let len = if self.last { 1 } else { self.rng.usize(2..3000) };
        let sent = payload(&mut self.rng, len);
        cx.send_copy(conn, &sent).unwrap();
        self.open.insert(conn, Call { sent, back: 0 });
        if !self.last && self.rng.u8(..5) == 0 {
            let soon = cx.now() + Duration::from_micros(self.rng.u64(0..3000));
            cx.arm(soon, conn.to_bits()).unwrap();
        }
    }

    fn data(&mut self, cx: &mut Cx<Msg>, conn: ConnId, data: &[u8]) {
        let call = self.open.get_mut(&conn).expect("it is open");
        assert_eq!(data, &call.sent[call.back..call.back + data.len()]);
        call.back += data.len();
        if call.back < call.sent.len() {
            return;
        }
        self.answered += 1;
        if !self.last {
            self.open.remove(&conn);
            cx.finish(conn);
            self.call(cx);
        } else if self.answered == SOCKETS {
            (SERVERS..cx.cores()).for_each(|caller| cx.tell(caller, Msg::Number(1)));
        }
    }

    fn hear(&mut self, cx: &mut Cx<Msg>, event: Event) {
        match event {
            Event::Start => self.call(cx),
            Event::Connected(_, result) => {
                self.connecting -= 1;
                match result {
                    Ok(conn) => self.connected(cx, conn),
                    Err(error) => {
                        // Entries may be taken by connections that linger.
                        assert!(!self.last, "an entry was lost: {error}");
                        assert_eq!(error.raw_os_error(), Some(libc::ENFILE));
                    }
                }
                self.call(cx);
            }
            Event::Data(conn, data) => self.data(cx, conn, &data),
            Event::Timer(key) if key == u64::MAX >> 1 => {
                if cx.connections() > 0 {
                    cx.arm(cx.now() + Duration::from_millis(1), key).unwrap();
                } else if !self.last {
                    self.last = true;
                    self.answered = 0;
                    self.connecting = SOCKETS;
                    (0..SOCKETS).for_each(|key| cx.connect(self.to, key as u64));
                }
            }
            Event::Timer(key) => {
                let conn = ConnId::from_bits(key);
                if self.open.remove(&conn).is_some() {
                    cx.abort(conn);
                    self.call(cx);
                }
            }
            Event::Message(_) => {
                self.done += 1;
                if self.done == cx.cores() - SERVERS {
                    stop_all(cx);
                }
            }
            Event::Closed(conn, _) => {
                assert!(!self.last || cx.is_stopping(), "one of the last was closed");
                assert!(self.open.remove(&conn).is_some(), "it ended twice");
                self.call(cx);
            }
            Event::Stopping => {}
            other => panic!("{other:?}"),
        }
    }
}

fn churn(stage: &mut Stage) {
    lay_out(stage, |options| {
        options.sockets_max = SOCKETS as u32;
        options.table_max = 64;
        (options.small, options.bulk) = ((8, 1024), (2, 4096));
        (options.further_small, options.further_bulk) = ((4, 512), (2, 2048));
    });
    let listener = stage.listener();
    let moved = Shared::new(0);
    let server = |mut rng: Rng| {
        let moved = moved.clone();
        let script = move |cx: &mut Cx<Msg>, event: Event| match event {
            // One of the last.
            Event::Data(conn, data) if data.len() == 1 => cx.send_copy(conn, &data).unwrap(),
            // Further bytes arrive behind these, on whichever core.
            Event::Data(conn, data) => match rng.u8(..20) {
                0..4 => cx.hand_over(conn, 1 - cx.core(), Msg::Number(0), &data),
                4 => cx.abort(conn),
                _ => cx.send_copy(conn, &data).unwrap(),
            },
            Event::Handed(conn, _, data) => {
                *moved.lock() += 1;
                cx.send_copy(conn, &data).unwrap();
            }
            // There is no room on the other core, and what was to go along is here.
            Event::HandOverFailed(conn) => cx.abort(conn),
            Event::Start | Event::Accepted(..) | Event::Closed(..) | Event::Stopping => {}
            other => panic!("{other:?}"),
        };
        Role::new(script).listening(&listener)
    };
    let caller = |rng: Rng| {
        let mut churn = Churn {
            rng,
            to: listener.addr().unwrap(),
            calls_left: 2000,
            connecting: 0,
            open: HashMap::new(),
            last: false,
            answered: 0,
            done: 0,
        };
        Role::new(move |cx, event| churn.hear(cx, event))
    };
    let roles = vec![
        server(stage.random()),
        server(stage.random()),
        caller(stage.random()),
        caller(stage.random()),
    ];
    stage.play(roles);
    assert!(*moved.lock() > 100, "{} connections moved", *moved.lock());
}
