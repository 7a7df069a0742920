//! What a driver promises a core, operation by operation: each ends once, what is cancelled ends
//! with what it came to, and nothing that has ended touches what came after it. Both ends of a
//! connection belong to one driver here, and there is no core.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sextant_ring::driver::{
    Completion, Driver, Group, Kind, Listener, Op, Outcome, Outgoing, RxBuf, Socket, Token,
    is_starved,
};
use sextant_ring::epoll::Epoll;
use sextant_ring::mesh::Remote;
use sextant_ring::uring::Uring;

use crate::harness::{Buffers, Host, Stage};

/// Three tests of one check: one for each driver.
macro_rules! checks {
    ($($name:ident: $seeds:literal seeds;)+) => {
        mod sim {
            $(#[test] fn $name() {
                crate::harness::simulate($seeds, |stage| super::on_sim(stage, super::$name));
            })+
        }
        mod uring {
            $(#[test] fn $name() {
                crate::harness::on_uring(|stage| super::on_uring(stage, super::$name));
            })+
        }
        mod epoll {
            $(#[test] fn $name() {
                crate::harness::on_epoll(|stage| super::on_epoll(stage, super::$name));
            })+
        }
    };
}

checks! {
    a_receive_without_a_buffer_ends_and_goes_on_when_one_comes_back: 20 seeds;
    a_cancelled_receive_ends_once_and_leaves_what_comes_later: 20 seeds;
    a_cancel_that_races_with_bytes_loses_none: 40 seeds;
    a_cancel_of_what_has_ended_ends_nothing_else: 20 seeds;
    the_end_of_a_stream_is_met_by_every_receive: 20 seeds;
    a_cancelled_accept_leaves_its_callers_waiting: 20 seeds;
    a_shutdown_ends_what_is_under_way: 20 seeds;
    a_connection_that_nobody_takes_over_stays: 20 seeds;
}

const BUFFERS: Buffers = Buffers { small: (4, 64), bulk: (1, 4096) };

fn on_sim(stage: &mut Stage, check: fn(&mut Rig<'_>)) {
    stage.buffers(BUFFERS);
    let Stage::Sim { world, .. } = &*stage else { panic!("a simulated stage") };
    // A driver that says that a pool is empty when it is not would be armed again by a core.
    world.plan(|plan| (plan.starve, plan.lasting_ends) = (0.0, 0.0));
    let mut driver = world.driver(Remote::sim());
    let gone = world.driver(Remote::sim()).remote();
    let remote = driver.remote();
    let pass = |limit| {
        let limit = world.now() + limit;
        let _ = world.step(std::slice::from_ref(&remote), limit);
    };
    check(&mut Rig::new(stage.listener(), &mut driver, &pass, gone));
}

fn on_uring(stage: &mut Stage, check: fn(&mut Rig<'_>)) {
    stage.buffers(BUFFERS);
    let Stage::Kernel { host: Host::Uring(options), .. } = &*stage else { panic!("a ring") };
    let mut driver = Uring::new(options, Remote::host().unwrap()).unwrap();
    let gone = Uring::new(options, Remote::host().unwrap()).unwrap().remote();
    check(&mut Rig::new(stage.listener(), &mut driver, &|_| {}, gone));
}

fn on_epoll(stage: &mut Stage, check: fn(&mut Rig<'_>)) {
    stage.buffers(BUFFERS);
    let Stage::Kernel { host: Host::Epoll(options), .. } = &*stage else { panic!("no ring") };
    let mut driver = Epoll::new(options, Remote::host().unwrap()).unwrap();
    let gone = Epoll::new(options, Remote::host().unwrap()).unwrap().remote();
    check(&mut Rig::new(stage.listener(), &mut driver, &|_| {}, gone));
}

/// A driver without a core.
struct Rig<'a> {
    driver: &'a mut dyn Driver,
    /// Passes virtual time, so much at most.
    pass: &'a dyn Fn(Duration),
    /// Of a driver that is no more.
    gone: Remote,
    listener: Arc<Listener>,
    last: u64,
}

impl<'a> Rig<'a> {
    fn new(
        listener: Arc<Listener>,
        driver: &'a mut dyn Driver,
        pass: &'a dyn Fn(Duration),
        gone: Remote,
    ) -> Rig<'a> {
        Rig { driver, pass, gone, listener, last: 0 }
    }

    fn submit(&mut self, kind: Kind, op: Op) -> Token {
        self.last += 1;
        let token = Token::new(kind, self.last);
        self.submit_as(token, op);
        token
    }

    fn submit_as(&mut self, token: Token, op: Op) {
        if let Err(op) = self.driver.submit(token, op) {
            // There is room again after an enter.
            self.driver.enter(Some(Duration::ZERO)).unwrap();
            self.driver.submit(token, op).unwrap();
        }
    }

    fn receive(&mut self, socket: Socket) -> Token {
        self.submit(Kind::Recv, Op::Recv { socket, group: Group::Small })
    }

    fn accept(&mut self) -> Token {
        let listener = Arc::clone(&self.listener);
        self.submit(Kind::Accept, Op::Accept { listener })
    }

    fn connect(&mut self) -> Token {
        let to = self.listener.addr().unwrap();
        self.submit(Kind::Connect, Op::Connect { to })
    }

    fn cancel(&mut self, target: Token, socket: Option<Socket>) {
        let cancel = self.submit(Kind::Cancel, Op::Cancel { target, socket });
        self.until_done(cancel);
    }

    fn send(&mut self, socket: Socket, bytes: &[u8]) {
        let data = Outgoing::One(Bytes::copy_from_slice(bytes));
        let token = self.submit(Kind::Send, Op::Send { socket, data });
        let sent = self.next();
        assert!(sent.token == token && matches!(sent.outcome, Outcome::Sent(Ok(()))), "{sent:?}");
    }

    fn close(&mut self, socket: Socket) {
        let token = self.submit(Kind::Close, Op::Close { socket });
        self.until_done(token);
    }

    /// The next completion within a while.
    fn within(&mut self, wait: Duration) -> Option<Completion> {
        const STEP: Duration = Duration::from_millis(5);
        let mut waited = Duration::ZERO;
        loop {
            if let Some(completion) = self.driver.completed() {
                return Some(completion);
            }
            if waited >= wait {
                return None;
            }
            self.driver.enter(Some(STEP)).unwrap();
            (self.pass)(STEP);
            waited += STEP;
        }
    }

    fn next(&mut self) -> Completion {
        self.within(Duration::from_secs(20)).expect("something ends")
    }

    /// Nothing happens.
    fn rests(&mut self) {
        let more = self.within(Duration::from_millis(30));
        assert!(more.is_none(), "{more:?}");
    }

    /// Waits until an operation without a result of its own has ended, and nothing else did.
    fn until_done(&mut self, token: Token) {
        let done = self.next();
        assert!(done.token == token && matches!(done.outcome, Outcome::Done), "{done:?}");
    }

    /// Both ends of a new connection.
    fn pair(&mut self) -> (Socket, Socket) {
        let accept = self.accept();
        let connect = self.connect();
        let (mut ours, mut theirs) = (None, None);
        while ours.is_none() || theirs.is_none() {
            match self.next() {
                Completion { token, outcome: Outcome::Socket(Ok(socket)), .. } => {
                    let end = if token == connect { &mut ours } else { &mut theirs };
                    assert!(end.replace(socket).is_none(), "one connection");
                }
                other => panic!("{other:?}"),
            }
        }
        let cancel = self.submit(Kind::Cancel, Op::Cancel { target: accept, socket: None });
        for _ in 0..2 {
            let ended = self.next();
            assert!(!ended.more && [accept, cancel].contains(&ended.token), "{ended:?}");
        }
        (ours.unwrap(), theirs.unwrap())
    }

    /// Copies what was received, and gives the buffer back.
    fn take(&mut self, buf: RxBuf) -> Vec<u8> {
        let bytes = self.driver.received(&buf).to_vec();
        self.driver.release(buf);
        bytes
    }

    /// Waits for the bytes of a receive that goes on.
    fn bytes(&mut self, receive: Token) -> Vec<u8> {
        let completion = self.next();
        assert!(completion.token == receive && completion.more, "{completion:?}");
        match completion.outcome {
            Outcome::Recv(Ok(Some(buf))) => self.take(buf),
            other => panic!("{other:?}"),
        }
    }

    /// Receives until so many bytes are there, then cancels.
    fn receive_all(&mut self, socket: Socket, len: usize) -> Vec<u8> {
        let receive = self.receive(socket);
        let mut got = Vec::new();
        while got.len() < len {
            got.extend(self.bytes(receive));
        }
        self.cancel_receive(receive, socket);
        got
    }

    fn cancel_receive(&mut self, receive: Token, socket: Socket) {
        let op = Op::Cancel { target: receive, socket: Some(socket) };
        let cancel = self.submit(Kind::Cancel, op);
        let mut left = vec![receive, cancel];
        while !left.is_empty() {
            let ended = self.next();
            assert!(left.contains(&ended.token) && !ended.more, "{ended:?}");
            left.retain(|&token| token != ended.token);
            if let Outcome::Recv(result) = ended.outcome {
                assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ECANCELED));
            }
        }
    }

    /// Gives both ends up, after which nothing is under way.
    fn end(&mut self, sockets: [Socket; 2]) {
        sockets.into_iter().for_each(|socket| self.close(socket));
        assert_eq!(self.driver.in_flight(), 0);
        self.rests();
    }
}

fn a_receive_without_a_buffer_ends_and_goes_on_when_one_comes_back(rig: &mut Rig<'_>) {
    let (ours, theirs) = rig.pair();
    let sent: Vec<u8> = (0..1000).map(|n| n as u8).collect();
    let mut got = Vec::new();
    let data = Outgoing::One(Bytes::from(sent.clone()));
    let send = rig.submit(Kind::Send, Op::Send { socket: ours, data });
    let mut starved = 0;
    'receives: while got.len() < sent.len() {
        let receive = rig.receive(theirs);
        let mut loans = Vec::new();
        loop {
            let completion = rig.next();
            if completion.token == send {
                assert!(matches!(completion.outcome, Outcome::Sent(Ok(()))), "{completion:?}");
                continue;
            }
            assert_eq!(completion.token, receive);
            match completion.outcome {
                Outcome::Recv(Ok(Some(buf))) => {
                    assert!(completion.more);
                    got.extend_from_slice(rig.driver.received(&buf));
                    loans.push(buf);
                }
                Outcome::Recv(Err(error)) => {
                    assert!(is_starved(&error) && !completion.more, "{error}");
                    starved += 1;
                    // It is over: bytes that wait are no reason to tell it again.
                    rig.rests();
                    break;
                }
                other => panic!("{other:?}"),
            }
            if got.len() == sent.len() {
                loans.into_iter().for_each(|buf| rig.driver.release(buf));
                rig.cancel_receive(receive, theirs);
                break 'receives;
            }
        }
        loans.into_iter().for_each(|buf| rig.driver.release(buf));
    }
    assert!(got == sent && starved > 0, "{} bytes, {starved} times starved", got.len());
    rig.end([ours, theirs]);
}

fn a_cancelled_receive_ends_once_and_leaves_what_comes_later(rig: &mut Rig<'_>) {
    let (ours, theirs) = rig.pair();
    let receive = rig.receive(theirs);
    rig.rests();
    rig.cancel_receive(receive, theirs);
    rig.send(ours, b"later");
    rig.rests();
    assert_eq!(rig.receive_all(theirs, 5), b"later");
    rig.end([ours, theirs]);
}

fn a_cancel_that_races_with_bytes_loses_none(rig: &mut Rig<'_>) {
    const ROUNDS: u8 = 60;
    let (ours, theirs) = rig.pair();
    let mut got = Vec::new();
    for round in 0..ROUNDS {
        let data = Outgoing::One(Bytes::copy_from_slice(&[round]));
        let send = rig.submit(Kind::Send, Op::Send { socket: ours, data });
        let receive = rig.receive(theirs);
        let op = Op::Cancel { target: receive, socket: Some(theirs) };
        let cancel = rig.submit(Kind::Cancel, op);
        let mut left = vec![send, receive, cancel];
        while !left.is_empty() {
            let completion = rig.next();
            assert!(left.contains(&completion.token), "{completion:?} came too late");
            if !completion.more {
                left.retain(|&token| token != completion.token);
            }
            match completion.outcome {
                Outcome::Recv(Ok(Some(buf))) => got.extend(rig.take(buf)),
                Outcome::Recv(Err(error)) => {
                    assert_eq!(error.raw_os_error(), Some(libc::ECANCELED));
                }
                Outcome::Sent(Ok(())) | Outcome::Done => {}
                other => panic!("{other:?}"),
            }
        }
    }
    let rest = usize::from(ROUNDS) - got.len();
    if rest > 0 {
        got.extend(rig.receive_all(theirs, rest));
    }
    assert_eq!(got, (0..ROUNDS).collect::<Vec<_>>());
    rig.end([ours, theirs]);
}

fn a_cancel_of_what_has_ended_ends_nothing_else(rig: &mut Rig<'_>) {
    let (ours, theirs) = rig.pair();
    let former = rig.receive(theirs);
    rig.rests();
    rig.cancel_receive(former, theirs);
    // On the same socket, whose receive is another one now.
    let receive = rig.receive(theirs);
    rig.cancel(former, Some(theirs));
    rig.send(ours, b"1");
    assert_eq!(rig.bytes(receive), b"1");
    rig.cancel_receive(receive, theirs);
    rig.end([ours, theirs]);
    // In its next life, mostly in the same place of the driver's table.
    let (ours, theirs) = rig.pair();
    let receive_next = rig.receive(theirs);
    rig.cancel(receive, Some(theirs));
    rig.cancel(former, Some(theirs));
    rig.send(ours, b"2");
    assert_eq!(rig.bytes(receive_next), b"2");
    rig.cancel_receive(receive_next, theirs);
    rig.end([ours, theirs]);
}

fn the_end_of_a_stream_is_met_by_every_receive(rig: &mut Rig<'_>) {
    let (ours, theirs) = rig.pair();
    rig.send(ours, b"last words");
    let op = Op::Shutdown { socket: ours, how: std::net::Shutdown::Write };
    let shutdown = rig.submit(Kind::Shutdown, op);
    rig.until_done(shutdown);
    let mut got = Vec::new();
    for _ in 0..3 {
        let receive = rig.receive(theirs);
        loop {
            let completion = rig.next();
            assert_eq!(completion.token, receive);
            match completion.outcome {
                Outcome::Recv(Ok(Some(buf))) => got.extend(rig.take(buf)),
                Outcome::Recv(Ok(None)) => break assert!(!completion.more),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(got, b"last words");
    // The other direction is open.
    rig.send(theirs, b"heard");
    assert_eq!(rig.receive_all(ours, 5), b"heard");
    rig.end([ours, theirs]);
}

fn a_cancelled_accept_leaves_its_callers_waiting(rig: &mut Rig<'_>) {
    let accept = rig.accept();
    rig.rests();
    let cancel = rig.submit(Kind::Cancel, Op::Cancel { target: accept, socket: None });
    for _ in 0..2 {
        let ended = rig.next();
        assert!(!ended.more && [accept, cancel].contains(&ended.token), "{ended:?}");
        if let Outcome::Socket(result) = ended.outcome {
            assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ECANCELED));
        }
    }
    let connect = rig.connect();
    let early = rig.within(Duration::from_millis(50));
    let mut sockets = Vec::new();
    if let Some(completion) = early {
        assert_eq!(completion.token, connect, "nobody accepts");
        sockets.push(completion);
    }
    let accept = rig.accept();
    while sockets.len() < 2 {
        sockets.push(rig.next());
    }
    let sockets = sockets.into_iter().map(|completion| match completion.outcome {
        Outcome::Socket(Ok(socket)) => socket,
        other => panic!("{other:?}"),
    });
    let sockets: Vec<Socket> = sockets.collect();
    let cancel = rig.submit(Kind::Cancel, Op::Cancel { target: accept, socket: None });
    for _ in 0..2 {
        let ended = rig.next();
        assert!([accept, cancel].contains(&ended.token), "{ended:?}");
    }
    rig.end([sockets[0], sockets[1]]);
}

fn a_shutdown_ends_what_is_under_way(rig: &mut Rig<'_>) {
    let (ours, theirs) = rig.pair();
    // More than both kernels' buffers hold.
    let data = Outgoing::One(Bytes::from(vec![1; 24_000_000]));
    let send = rig.submit(Kind::Send, Op::Send { socket: ours, data });
    let receive = rig.receive(ours);
    rig.rests();
    let op = Op::Shutdown { socket: ours, how: std::net::Shutdown::Both };
    let shutdown = rig.submit(Kind::Shutdown, op);
    let mut left = vec![send, receive, shutdown];
    while !left.is_empty() {
        let ended = rig.next();
        assert!(left.contains(&ended.token) && !ended.more, "{ended:?}");
        left.retain(|&token| token != ended.token);
        let failed = match &ended.outcome {
            Outcome::Sent(result) => result.is_err(),
            Outcome::Recv(result) => matches!(result, Ok(None) | Err(_)),
            _ => true,
        };
        assert!(failed, "{ended:?}");
    }
    rig.end([ours, theirs]);
}

fn a_connection_that_nobody_takes_over_stays(rig: &mut Rig<'_>) {
    let (ours, theirs) = rig.pair();
    let op = Op::HandOver { socket: theirs, to: rig.gone.clone() };
    let hand_over = rig.submit(Kind::HandOver, op);
    let ended = rig.next();
    let failed = matches!(ended.outcome, Outcome::Socket(Err(_)));
    assert!(ended.token == hand_over && failed, "{ended:?}");
    rig.send(ours, b"still here");
    assert_eq!(rig.receive_all(theirs, 10), b"still here");
    rig.end([ours, theirs]);
}
