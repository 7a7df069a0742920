//! Apps that do anything at any time, in a world that fails at any time: whatever happens, no
//! byte is lost, doubled or out of place on a connection that lives, each connection ends at most
//! once, and every core stops in time. What fails on purpose does so in the simulation only.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use fastrand::Rng;
use sextant_ring::core::{CloseReason, ConnId, Cx, Limits, SendError};

use crate::harness::{
    Buffers, Event, Host, Msg, Role, Stage, on_epoll, on_uring, simulate, stop_all,
};

#[test]
fn whatever_apps_do_and_whatever_fails_no_byte_goes_astray() {
    simulate(150, |stage| chaos(stage, false));
}

#[test]
fn whatever_apps_do_every_byte_that_was_sent_in_order_arrives() {
    simulate(150, |stage| chaos(stage, true));
}

#[test]
fn whatever_apps_do_every_byte_that_was_sent_in_order_arrives_on_io_uring() {
    on_uring(|stage| (0..5).for_each(|_| chaos(stage, true)));
}

#[test]
fn whatever_apps_do_every_byte_that_was_sent_in_order_arrives_on_epoll() {
    on_epoll(|stage| (0..5).for_each(|_| chaos(stage, true)));
}

/// The byte at a place of every stream.
fn byte_at(at: u32) -> u8 {
    (at % 251) as u8
}

/// What is known of a stream: it goes along when the connection moves.
#[derive(Clone, Copy, Debug, Default)]
struct Stream {
    /// Bytes read.
    at: u32,
    /// Bytes there will be, if the peer said that it will end in order: the first byte is 1 then,
    /// and the next four tell.
    orderly: bool,
    total: u32,
    /// Nothing is sent back any more.
    mute: bool,
}

const HEADER: u32 = 5;

/// The key of the timer for stopping; the others name connections.
const STOP: u64 = u32::MAX as u64;

impl Stream {
    fn pack(self) -> u64 {
        u64::from(self.at)
            | u64::from(self.total) << 30
            | u64::from(self.orderly) << 60
            | u64::from(self.mute) << 61
    }

    fn unpack(bits: u64) -> Stream {
        let low = (1 << 30) - 1;
        Stream {
            at: (bits & low) as u32,
            total: (bits >> 30 & low) as u32,
            orderly: bits >> 60 & 1 == 1,
            mute: bits >> 61 & 1 == 1,
        }
    }

    fn read(&mut self, data: &[u8]) {
        for &byte in data {
            match self.at {
                0 => self.orderly = byte == 1,
                1..HEADER => self.total |= u32::from(byte) << (8 * (self.at - 1)),
                at => assert_eq!(byte, byte_at(at), "at {at} of {}", self.total),
            }
            self.at += 1;
        }
        assert!(self.at < HEADER || self.at <= self.total, "{self:?}");
    }
}

/// Sends back what it reads, when nothing else comes to its mind.
struct Moody {
    rng: Rng,
    streams: HashMap<ConnId, Stream>,
    /// It neither ends connections nor stops by itself.
    patient: bool,
}

impl Moody {
    fn hear(&mut self, cx: &mut Cx<Msg>, event: Event) {
        match event {
            Event::Start if self.patient => {}
            Event::Start => {
                let stop_after = Duration::from_millis(self.rng.u64(1..60));
                cx.arm(cx.now() + stop_after, STOP).unwrap();
            }
            Event::Accepted(conn, _) => {
                let before = self.streams.insert(conn, Stream::default());
                assert!(before.is_none(), "an identifier is used once");
                self.whim(cx, conn);
            }
            Event::Handed(conn, Msg::Number(bits), data) => {
                let before = self.streams.insert(conn, Stream::unpack(bits));
                assert!(before.is_none(), "an identifier is used once");
                if !data.is_empty() {
                    self.data(cx, conn, &data);
                }
            }
            Event::HandOverFailed(conn) => {
                assert!(self.streams.contains_key(&conn));
                cx.resume(conn);
            }
            Event::Data(conn, data) => self.data(cx, conn, &data),
            Event::Drained(conn) => assert!(self.streams.contains_key(&conn)),
            Event::Peer(_) | Event::Stopping => {}
            Event::Closed(conn, reason) => {
                let stream = self.streams.remove(&conn).expect("it ends once");
                if stream.orderly && self.patient {
                    assert!(matches!(reason, CloseReason::PeerClosed), "{reason:?}");
                    assert_eq!(stream.at, stream.total, "the end came too early");
                }
            }
            Event::Timer(STOP) => {
                let grace = Duration::from_millis(self.rng.u64(0..20));
                cx.stop(cx.now() + grace);
            }
            Event::Timer(key) => {
                let conn = ConnId::from_bits(key);
                if self.rng.u8(..4) == 0 && self.streams.contains_key(&conn) && !cx.is_stopping() {
                    self.give_away(cx, conn, b"");
                } else {
                    cx.resume(conn);
                }
            }
            other => panic!("{other:?}"),
        }
    }

    fn data(&mut self, cx: &mut Cx<Msg>, conn: ConnId, data: &[u8]) {
        assert!(!data.is_empty(), "no bytes are no event");
        if self.rng.u8(..8) == 0 && cx.cores() > 1 && !cx.is_stopping() {
            // Away with it, unread.
            self.give_away(cx, conn, data);
            return;
        }
        let stream = self.streams.get_mut(&conn).expect("it is open");
        stream.read(data);
        if !stream.mute {
            match cx.send_copy(conn, data) {
                Ok(()) => {}
                Err(SendError::Full) => stream.mute = true,
                Err(error) => panic!("{error} while its data arrives"),
            }
        }
        self.whim(cx, conn);
    }

    fn give_away(&mut self, cx: &mut Cx<Msg>, conn: ConnId, unread: &[u8]) {
        let stream = self.streams[&conn];
        // The last core is the client.
        let servers = cx.cores() - 1;
        let other = (cx.core() + self.rng.usize(1..servers)) % servers;
        cx.hand_over(conn, other, Msg::Number(stream.pack()), unread);
        // What is known of it stays here too, in case that it cannot move.
    }

    fn whim(&mut self, cx: &mut Cx<Msg>, conn: ConnId) {
        match self.rng.u8(..40) {
            0 | 1 => {
                cx.pause(conn);
                let soon = cx.now() + Duration::from_micros(self.rng.u64(0..4000));
                if cx.arm(soon, conn.to_bits()).is_none() {
                    cx.resume(conn);
                }
            }
            2 => {
                cx.pause(conn);
                cx.resume(conn);
            }
            3 => cx.ask_peer(conn),
            4 if !cx.is_stopping() => self.give_away(cx, conn, b""),
            5 if !cx.is_stopping() => {
                cx.pause(conn);
                self.give_away(cx, conn, b"");
            }
            6 if !self.patient => {
                cx.finish(conn);
                self.streams.remove(&conn);
            }
            7 if !self.patient => {
                cx.abort(conn);
                self.streams.remove(&conn);
            }
            8 if !self.patient => {
                cx.part(conn);
                self.streams.remove(&conn);
            }
            _ => {}
        }
    }
}

struct Call {
    total: u32,
    orderly: bool,
    sent: u32,
    back: u32,
}

impl Call {
    fn byte(&self, at: u32) -> u8 {
        match at {
            0 => u8::from(self.orderly),
            1..HEADER => (self.total >> (8 * (at - 1))) as u8,
            at => byte_at(at),
        }
    }
}

/// Calls, sends its stream in steps, reads what comes back, and calls again.
fn caller(
    mut rng: Rng,
    to: SocketAddr,
    stop_after: Duration,
) -> impl FnMut(&mut Cx<Msg>, Event) + Send {
    let mut calls: HashMap<ConnId, Call> = HashMap::new();
    let mut connects = 8;
    let mut over = false;
    move |cx, event| match event {
        Event::Start => {
            (0..connects).for_each(|key| cx.connect(to, key));
            cx.arm(cx.now() + stop_after, STOP).unwrap();
        }
        Event::Connected(key, result) => {
            connects -= 1;
            let again = match result {
                Ok(conn) => {
                    let call = Call {
                        total: rng.u32(HEADER..40_000),
                        orderly: rng.bool(),
                        sent: 0,
                        back: 0,
                    };
                    calls.insert(conn, call);
                    cx.arm(cx.now(), conn.to_bits()).is_none()
                }
                // Refused: by chance, or since they have stopped.
                Err(_) => true,
            };
            if again && key < 40 && !over {
                connects += 1;
                cx.connect(to, key + 8);
            }
        }
        Event::Timer(STOP) => {
            // It calls no more, and stops when all have ended.
            over = true;
            if connects == 0 && cx.connections() == 0 {
                stop_all(cx);
            } else {
                cx.arm(cx.now() + Duration::from_millis(5), STOP).unwrap();
            }
        }
        Event::Timer(key) => {
            let conn = ConnId::from_bits(key);
            let Some(call) = calls.get_mut(&conn) else { return };
            let next = rng.u32(call.sent..=call.total);
            let bytes: Vec<u8> = (call.sent..next).map(|at| call.byte(at)).collect();
            call.sent = next;
            cx.send_copy(conn, &bytes).unwrap();
            let abrupt = !call.orderly && rng.u8(..4) == 0;
            if call.sent == call.total || abrupt {
                calls.remove(&conn);
                if abrupt {
                    cx.abort(conn);
                } else {
                    cx.finish(conn);
                }
                if !over {
                    connects += 1;
                    cx.connect(to, 0);
                }
                return;
            }
            let soon = cx.now() + Duration::from_micros(rng.u64(0..3000));
            cx.arm(soon, key).unwrap();
        }
        Event::Data(conn, data) => {
            let call = calls.get_mut(&conn).expect("it is open");
            for &byte in &data {
                assert!(call.back < call.sent, "more came back than was sent");
                assert_eq!(byte, call.byte(call.back), "at {}", call.back);
                call.back += 1;
            }
        }
        Event::Closed(conn, _) => {
            assert!(calls.remove(&conn).is_some(), "it ends once");
        }
        Event::Stopping => {}
        other => panic!("{other:?}"),
    }
}

/// How long a play may take that hangs nowhere.
const PATIENCE: Duration = Duration::from_secs(10);

/// Three servers and a client. If `gentle`, nothing fails but what has to be put up with.
fn chaos(stage: &mut Stage, gentle: bool) {
    let mut rng = stage.random();
    match stage {
        Stage::Sim { world, .. } => world.plan(|plan| {
            plan.small = (rng.u16(2..8), rng.u32(16..600));
            plan.bulk = (rng.u16(1..4), rng.u32(600..5000));
            plan.submissions_max = rng.usize(2..20);
            plan.window_bytes = rng.usize(500..70_000);
            plan.completions_max = rng.usize(1..40);
            plan.cancel_late = rng.f64();
            plan.stall = [0.0, 0.01][rng.usize(..2)];
            plan.stall_time = Duration::from_micros(100)..=Duration::from_millis(20);
            if !gentle {
                plan.reset = rng.f64() * 0.01;
                plan.refuse = rng.f64() * 0.1;
                plan.hand_over = rng.f64() * 0.3;
                plan.sockets_max = rng.u32(4..20);
            }
        }),
        Stage::Kernel { .. } => {
            let small = (1 << rng.u16(1..4), 1 << rng.u32(6..12));
            stage.buffers(Buffers { small, bulk: (1 << rng.u16(0..3), 4096) });
        }
    }
    if let Stage::Kernel { host: Host::Uring(options), .. } = stage {
        // Several rings a core, most of the time.
        options.table_max = rng.u32(8..200);
        options.sockets_max = 128;
    }
    let listener = stage.listener();
    let limits = |limits: &mut Limits, rng: &mut Rng| {
        limits.turn_max = rng.usize(1..10);
        limits.send_bytes_max = rng.usize(1000..100_000);
        limits.linger = Duration::from_millis(rng.u64(1..50));
        limits.park_after = Duration::from_millis(rng.u64(0..8));
        if !gentle {
            limits.connections_max = rng.u32(3..20);
        }
    };
    let mut roles = Vec::new();
    for _ in 0..3 {
        let mut app = Moody { rng: rng.fork(), streams: HashMap::new(), patient: gentle };
        let role = Role::new(move |cx, event| app.hear(cx, event));
        roles.push(role.listening(&listener).limits(|l| limits(l, &mut rng)));
    }
    let client =
        caller(rng.fork(), listener.addr().unwrap(), Duration::from_millis(rng.u64(10..80)));
    // Long enough to tell a server that does not notice the end of a stream.
    roles.push(Role::new(client).limits(|limits| limits.linger = PATIENCE * 2));
    drop(listener);
    let began = stage.now();
    stage.play_until_each_stops(roles);
    let took = stage.now().since(began);
    assert!(took < PATIENCE, "it took {took:?}");
}
