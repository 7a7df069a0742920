mod disk;
mod wrong;

use std::collections::BTreeMap;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::*;
use crate::buf::IoBuf;
use crate::core::{Cx, Envelope, Limits};
use crate::disk::Disk;
use crate::driver::{
    Completion, Driver, File, FileOp, FileOutput, Files, Group, Kind, Listener, Op, OpenMode,
    Outcome, Outgoing, RxBuf, Socket, Token, is_starved,
};
use crate::mesh::mesh;

const LIMIT: Duration = Duration::from_secs(30);

fn addr(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A driver turned by hand.
struct Rig {
    world: World,
    driver: SimDriver,
    seen: Vec<Completion>,
    last_token: u64,
}

impl Rig {
    fn new(world: &World) -> Rig {
        let driver = world.driver(Remote::sim());
        Rig { world: world.clone(), driver, seen: Vec::new(), last_token: 0 }
    }

    fn start(&mut self, op: Op) -> Token {
        self.last_token += 1;
        let kind = match &op {
            Op::Accept { .. } => Kind::Accept,
            Op::Connect { .. } => Kind::Connect,
            Op::Recv { .. } => Kind::Recv,
            Op::Poll { .. } => Kind::Poll,
            Op::Send { .. } => Kind::Send,
            Op::RecvFrom { .. } => Kind::RecvFrom,
            Op::SendTo { .. } => Kind::SendTo,
            Op::PeerAddr { .. } => Kind::Peer,
            Op::Cancel { .. } => Kind::Cancel,
            Op::Shutdown { .. } => Kind::Shutdown,
            Op::HandOver { .. } => Kind::HandOver,
            Op::Close { .. } => Kind::Close,
            Op::File(_) => Kind::File,
        };
        let token = Token::new(kind, self.last_token);
        self.driver.submit(token, op).expect("there is room");
        self.driver.enter(None).unwrap();
        token
    }

    /// The next completion of an operation, if there is one within the limit.
    fn next(&mut self, token: Token) -> Option<Completion> {
        let remote = [self.driver.remote()];
        let limit = self.world.now() + LIMIT;
        loop {
            if let Some(at) = self.seen.iter().position(|seen| seen.token == token) {
                return Some(self.seen.remove(at));
            }
            self.world.step(&remote, limit)?;
            while let Some(completion) = self.driver.completed() {
                self.seen.push(completion);
            }
            self.driver.enter(None).unwrap();
        }
    }

    fn end(&mut self, op: Op) -> Outcome {
        let token = self.start(op);
        let completion = self.next(token).expect("it ends");
        assert!(!completion.more);
        completion.outcome
    }

    fn socket(&mut self, token: Token) -> io::Result<Socket> {
        match self.next(token).expect("it ends").outcome {
            Outcome::Socket(result) => result,
            other => panic!("{other:?}"),
        }
    }

    fn listen(&mut self, port: u16) -> (Token, Arc<Listener>) {
        let listener = Arc::new(Listener::sim(addr(port)));
        (self.start(Op::Accept { listener: Arc::clone(&listener) }), listener)
    }

    /// Accepts one connection of a scripted peer.
    fn accepted(&mut self, port: u16) -> (Socket, SimPeer) {
        let (accept, _listener) = self.listen(port);
        let peer = self.world.connect(addr(port));
        let socket = self.socket(accept).unwrap();
        self.start(Op::Cancel { target: accept, socket: None });
        (socket, peer)
    }

    /// The next thing a receive yields; the bytes are copied and the buffer goes back.
    fn recv(&mut self, token: Token) -> (io::Result<Option<Vec<u8>>>, bool) {
        let completion = self.next(token).expect("something arrives");
        let Outcome::Recv(result) = completion.outcome else { panic!("{completion:?}") };
        let result = result.map(|buf| buf.map(|buf| self.take(buf)));
        (result, completion.more)
    }

    fn take(&mut self, buf: RxBuf) -> Vec<u8> {
        let bytes = self.driver.received(&buf).to_vec();
        assert_eq!(bytes.len(), buf.len());
        self.driver.release(buf);
        bytes
    }

    /// Reads until the peer is done.
    fn read_to_end(&mut self, socket: Socket, group: Group) -> Vec<u8> {
        let mut all = Vec::new();
        let mut token = self.start(Op::Recv { socket, group });
        loop {
            let (result, more) = self.recv(token);
            match result {
                Ok(Some(bytes)) => all.extend(bytes),
                Ok(None) => {
                    assert!(!more, "the end is the end");
                    return all;
                }
                Err(error) => assert!(is_starved(&error), "{error}"),
            }
            if !more {
                token = self.start(Op::Recv { socket, group });
            }
        }
    }

    fn pass(&self, millis: u64) {
        self.world.run_for(&mut [], Duration::from_millis(millis));
    }

    fn file(&mut self, op: FileOp) -> (io::Result<FileOutput>, Option<IoBuf>) {
        match self.end(Op::File(op)) {
            Outcome::File(result, buf) => (result, buf),
            other => panic!("{other:?}"),
        }
    }

    fn open(&mut self, path: &str, mode: OpenMode) -> io::Result<File> {
        match self.file(FileOp::Open { path: path.into(), mode }).0? {
            FileOutput::Opened(file) => Ok(file),
            other => panic!("{other:?}"),
        }
    }

    fn write(&mut self, file: File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut buf = IoBuf::with_capacity(bytes.len());
        assert_eq!(buf.push(bytes), bytes.len());
        let (result, buf) = self.file(FileOp::Write { file, offset, buf });
        assert!(buf.is_some(), "a write gives its buffer back");
        result.map(drop)
    }

    fn read(&mut self, file: File, offset: u64) -> io::Result<Vec<u8>> {
        let buf = IoBuf::with_capacity(8192);
        let (result, buf) = self.file(FileOp::Read { file, offset, buf });
        result.map(|_| buf.expect("a read gives its buffer back").to_vec())
    }
}

fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> i32 {
    result.expect_err("it fails").raw_os_error().expect("it is the system's")
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8).collect()
}

#[test]
fn a_stream_arrives_whole_and_in_order_however_it_is_cut() {
    for seed in seeds(50) {
        let world = World::new(seed);
        let mut rig = Rig::new(&world);
        let (socket, mut peer) = rig.accepted(1);
        let sent = pattern(world.random().usize(1..300_000));
        peer.send(&sent);
        peer.close();
        assert!(rig.read_to_end(socket, Group::Bulk) == sent, "seed {seed}");
        rig.end(Op::Close { socket });
        world.assert_quiet(&rig.driver);
    }
}

#[test]
fn a_send_ends_once_the_window_has_let_all_of_it_through() {
    for seed in seeds(20) {
        let world = World::new(seed);
        let mut rig = Rig::new(&world);
        let (socket, peer) = rig.accepted(1);
        peer.pause_reading();
        let sent = Bytes::from(pattern(200_000));
        let runs = vec![sent.slice(..70_000), sent.slice(70_000..)];
        let send = rig.start(Op::Send { socket, data: Outgoing::Many(runs) });
        assert!(rig.next(send).is_none(), "the peer does not read");
        peer.resume_reading();
        let done = rig.next(send).expect("the peer reads");
        assert!(matches!(done.outcome, Outcome::Sent(Ok(()))), "{done:?}");
        rig.pass(100);
        assert!(peer.received() == sent);
        rig.end(Op::Shutdown { socket, how: Shutdown::Write });
        rig.pass(100);
        assert!(peer.is_finished() && !peer.is_reset());
        let outcome = rig.end(Op::Send { socket, data: Outgoing::One(sent) });
        let Outcome::Sent(result) = outcome else { panic!("{outcome:?}") };
        assert_eq!(errno(result), libc::EPIPE);
        rig.end(Op::Close { socket });
        world.assert_quiet(&rig.driver);
    }
}

#[test]
fn an_empty_pool_ends_a_receive_and_loses_nothing() {
    for seed in seeds(20) {
        let world = World::new(seed);
        world.plan(|plan| plan.small = (2, 100));
        let mut rig = Rig::new(&world);
        let (socket, peer) = rig.accepted(1);
        peer.send(&pattern(5000));
        let mut held = Vec::new();
        let mut recv = rig.start(Op::Recv { socket, group: Group::Small });
        loop {
            let completion = rig.next(recv).expect("it ends");
            match completion.outcome {
                Outcome::Recv(Ok(Some(buf))) => held.push(buf),
                Outcome::Recv(result) => {
                    assert_eq!(errno(result), libc::ENOBUFS);
                    assert!(!completion.more);
                    break;
                }
                other => panic!("{other:?}"),
            }
            if !completion.more {
                recv = rig.start(Op::Recv { socket, group: Group::Small });
            }
        }
        assert_eq!(held.len(), 2);
        let mut all: Vec<u8> = held.into_iter().flat_map(|buf| rig.take(buf)).collect();
        peer.finish();
        all.extend(rig.read_to_end(socket, Group::Small));
        assert!(all == pattern(5000));
    }
}

#[test]
fn a_close_is_a_reset_if_something_was_not_read_and_an_end_otherwise() {
    for seed in seeds(20) {
        let world = World::new(seed);
        let mut rig = Rig::new(&world);
        let (socket, peer) = rig.accepted(1);
        let send = Op::Send { socket, data: Outgoing::One(Bytes::from_static(b"bye")) };
        assert!(matches!(rig.end(send), Outcome::Sent(Ok(()))));
        rig.end(Op::Close { socket });
        rig.pass(100);
        assert_eq!(peer.received(), b"bye");
        assert!(peer.is_closed() && !peer.is_reset());

        let (socket, peer) = rig.accepted(2);
        peer.send(b"unheard");
        rig.pass(100);
        rig.end(Op::Close { socket });
        rig.pass(100);
        assert!(peer.is_reset());
    }
}

#[test]
fn who_sends_to_a_peer_that_has_closed_is_reset() {
    for seed in seeds(20) {
        let world = World::new(seed);
        let mut rig = Rig::new(&world);
        let (socket, mut peer) = rig.accepted(1);
        peer.close();
        assert_eq!(rig.read_to_end(socket, Group::Small), b"");
        let first = rig.end(Op::Send { socket, data: Outgoing::One(Bytes::from_static(b"a")) });
        assert!(matches!(first, Outcome::Sent(Ok(()))), "{first:?}");
        rig.pass(100);
        let outcome = rig.end(Op::Send { socket, data: Outgoing::One(Bytes::from_static(b"b")) });
        let Outcome::Sent(result) = outcome else { panic!("{outcome:?}") };
        assert_eq!(errno(result), libc::EPIPE);
        rig.end(Op::Close { socket });
        world.assert_quiet(&rig.driver);
    }
}

#[test]
fn a_reset_ends_a_receive_behind_what_had_arrived() {
    for seed in seeds(20) {
        let world = World::new(seed);
        let mut rig = Rig::new(&world);
        let (socket, mut peer) = rig.accepted(1);
        peer.send(b"first");
        rig.pass(100);
        peer.reset();
        rig.pass(100);
        let mut all = Vec::<u8>::new();
        let error = loop {
            let recv = rig.start(Op::Recv { socket, group: Group::Small });
            let mut more = true;
            let mut result = Ok(None);
            while more && result.is_ok() {
                (result, more) = rig.recv(recv);
                if let Ok(bytes) = &result {
                    all.extend_from_slice(bytes.as_ref().expect("no end before the error"));
                }
            }
            if result.is_err() {
                break result;
            }
        };
        assert_eq!(errno(error), libc::ECONNRESET);
        assert_eq!(all, b"first");
        let outcome = rig.end(Op::PeerAddr { socket });
        let Outcome::PeerAddr(result) = outcome else { panic!("{outcome:?}") };
        assert_eq!(errno(result), libc::ENOTCONN);
    }
}

#[test]
fn what_arrives_before_a_failure_is_the_beginning_of_what_was_sent() {
    let mut failed = 0;
    for seed in seeds(100) {
        let world = World::new(seed);
        let mut rig = Rig::new(&world);
        let (socket, mut peer) = rig.accepted(1);
        world.plan(|plan| plan.reset = 0.05);
        let sent = pattern(100_000);
        peer.send(&sent);
        peer.finish();
        let mut got = Vec::<u8>::new();
        let mut recv = rig.start(Op::Recv { socket, group: Group::Bulk });
        loop {
            let (result, more) = rig.recv(recv);
            match result {
                Ok(Some(bytes)) => got.extend(bytes),
                Ok(None) => break assert!(got == sent, "seed {seed}"),
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
                    failed += 1;
                    break;
                }
            }
            if !more {
                recv = rig.start(Op::Recv { socket, group: Group::Bulk });
            }
        }
        assert!(sent.starts_with(&got), "seed {seed}: bytes after a gap");
        peer.close();
    }
    if std::env::var_os("SEXTANT_SEED").is_none() {
        assert!(failed > 10, "{failed} failures");
    }
}

#[test]
fn nobody_is_connected_where_nobody_listens() {
    for seed in seeds(20) {
        let world = World::new(seed);
        let mut rig = Rig::new(&world);
        let outcome = rig.end(Op::Connect { to: addr(9) });
        let Outcome::Socket(result) = outcome else { panic!("{outcome:?}") };
        assert_eq!(errno(result), libc::ECONNREFUSED);

        let (accept, listener) = rig.listen(9);
        let peer = world.connect(addr(9));
        let socket = rig.socket(accept).unwrap();
        rig.pass(10);
        assert!(peer.is_connected());
        rig.end(Op::Cancel { target: accept, socket: None });
        drop(listener);
        let late = world.connect(addr(9));
        rig.pass(10);
        assert!(late.is_refused());
        rig.end(Op::Close { socket });
        world.assert_quiet(&rig.driver);
    }
}

#[test]
fn cores_connect_to_a_scripted_server() {
    let world = World::new(1);
    let mut rig = Rig::new(&world);
    let server = world.listen(addr(80));
    let connect = rig.start(Op::Connect { to: addr(80) });
    let socket = rig.socket(connect).unwrap();
    let peer = server.accept().expect("it has arrived");
    let Outcome::PeerAddr(Ok(at)) = rig.end(Op::PeerAddr { socket }) else { panic!() };
    assert_eq!(at, addr(80));
    peer.send(b"hello");
    peer.finish();
    assert_eq!(rig.read_to_end(socket, Group::Small), b"hello");
}

#[test]
fn a_full_table_takes_no_more_connections() {
    let world = World::new(1);
    world.plan(|plan| {
        plan.sockets_max = 1;
        plan.lasting_ends = 0.0;
    });
    let mut rig = Rig::new(&world);
    let (accept, _listener) = rig.listen(1);
    let _first = world.connect(addr(1));
    rig.socket(accept).unwrap();
    let second = world.connect(addr(1));
    assert_eq!(errno(rig.socket(accept)), libc::ENFILE);
    rig.pass(100);
    assert!(second.is_closed());
    let connect = rig.start(Op::Connect { to: addr(1) });
    assert_eq!(errno(rig.socket(connect)), libc::ENFILE);
}

#[test]
fn every_core_that_accepts_on_an_address_gets_some() {
    let world = World::new(1);
    world.plan(|plan| plan.lasting_ends = 0.0);
    let mut rigs = [Rig::new(&world), Rig::new(&world)];
    let listener = Arc::new(Listener::sim(addr(1)));
    for rig in &mut rigs {
        rig.start(Op::Accept { listener: Arc::clone(&listener) });
    }
    let peers: Vec<SimPeer> = (0..100).map(|_| world.connect(addr(1))).collect();
    world.run_for(&mut [], Duration::from_secs(1));
    assert!(peers.iter().all(SimPeer::is_connected));
    let mut accepted = [0, 0];
    for (rig, accepted) in rigs.iter_mut().zip(&mut accepted) {
        while rig.driver.completed().is_some() {
            *accepted += 1;
        }
    }
    assert_eq!(accepted[0] + accepted[1], 100);
    assert!(accepted.iter().all(|&n| n > 10), "{accepted:?}");
}

#[test]
fn a_cancelled_receive_loses_no_byte() {
    for seed in seeds(50) {
        let world = World::new(seed);
        let mut rig = Rig::new(&world);
        let (socket, mut peer) = rig.accepted(1);
        let sent = pattern(20_000);
        peer.send(&sent);
        let mut all = Vec::new();
        for round in 0.. {
            let recv = rig.start(Op::Recv { socket, group: Group::Small });
            let cancel = rig.start(Op::Cancel { target: recv, socket: Some(socket) });
            loop {
                let (result, more) = rig.recv(recv);
                match result {
                    Ok(bytes) => all.extend(bytes.expect("it does not close before")),
                    Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ECANCELED)),
                }
                if !more {
                    break;
                }
            }
            assert!(matches!(rig.next(cancel).unwrap().outcome, Outcome::Done));
            if round == 5 {
                break;
            }
        }
        peer.close();
        all.extend(rig.read_to_end(socket, Group::Small));
        assert!(all == sent);
    }
}

#[test]
fn a_connection_moves_with_what_it_has_not_read() {
    for seed in seeds(20) {
        let world = World::new(seed);
        world.plan(|plan| plan.sockets_max = 1);
        let (mut here, mut there) = (Rig::new(&world), Rig::new(&world));
        let (other, _other_peer) = there.accepted(2);
        let (socket, peer) = here.accepted(1);
        peer.send(b"hello");
        peer.finish();
        let to = there.driver.remote();
        let outcome = here.end(Op::HandOver { socket, to: to.clone() });
        let Outcome::Socket(result) = outcome else { panic!("{outcome:?}") };
        assert_eq!(errno(result), libc::ENFILE);
        there.end(Op::Close { socket: other });
        let Outcome::Socket(Ok(moved)) = here.end(Op::HandOver { socket, to }) else { panic!() };
        world.assert_quiet(&here.driver);
        assert_eq!(there.read_to_end(moved, Group::Small), b"hello");
    }
}

#[test]
#[should_panic(expected = "SEXTANT_SEED=7")]
fn an_operation_on_a_closed_socket_is_a_bug() {
    let mut rig = Rig::new(&World::new(7));
    let (socket, _peer) = rig.accepted(1);
    rig.end(Op::Close { socket });
    rig.start(Op::Recv { socket, group: Group::Small });
}

#[test]
#[should_panic(expected = "SEXTANT_SEED=7")]
fn a_close_with_an_operation_under_way_is_a_bug() {
    let mut rig = Rig::new(&World::new(7));
    let (socket, _peer) = rig.accepted(1);
    rig.start(Op::Recv { socket, group: Group::Small });
    rig.start(Op::Close { socket });
}

#[test]
#[should_panic(expected = "on loan")]
fn a_buffer_that_was_kept_is_found_out() {
    let world = World::new(7);
    let mut rig = Rig::new(&world);
    let (socket, peer) = rig.accepted(1);
    peer.send(b"hello");
    let recv = rig.start(Op::Recv { socket, group: Group::Small });
    let Outcome::Recv(Ok(Some(_kept))) = rig.next(recv).unwrap().outcome else { panic!() };
    world.assert_quiet(&rig.driver);
}

#[test]
fn a_driver_takes_so_many_operations_and_gives_back_the_next() {
    let world = World::new(1);
    world.plan(|plan| plan.submissions_max = 2);
    let mut rig = Rig::new(&world);
    let cancel = |n| (Token::new(Kind::Cancel, n), Op::Cancel { target: Token(n), socket: None });
    for n in 0..2 {
        let (token, op) = cancel(n);
        assert!(rig.driver.submit(token, op).is_ok());
    }
    let (token, op) = cancel(77);
    let refused = rig.driver.submit(token, op);
    assert!(matches!(refused, Err(Op::Cancel { target: Token(77), .. })));
    rig.driver.enter(None).unwrap();
    assert!(rig.driver.submit(token, refused.unwrap_err()).is_ok());
    assert_eq!(rig.driver.in_flight(), 3);
}

#[test]
fn datagrams_are_lost_doubled_and_overtaken_only_when_asked_for() {
    for faulty in [false, true] {
        let world = World::new(3);
        if faulty {
            world.plan(|plan| {
                plan.datagram_lost = 0.1;
                plan.datagram_twice = 0.1;
                plan.datagram_late = 0.1;
            });
        }
        let mut rig = Rig::new(&world);
        let (socket, at) = rig.driver.bind_udp(addr(0)).unwrap();
        assert_eq!(errno(rig.driver.bind_udp(at)), libc::EADDRINUSE);
        let peer = world.bind_udp(addr(0)).unwrap();
        let mut recv = rig.start(Op::RecvFrom { socket, group: Group::Datagram });
        let mut got = Vec::new();
        for n in 0..200u8 {
            peer.send_to(at, &[n]);
        }
        while let Some(completion) = rig.next(recv) {
            let Outcome::RecvFrom(Ok((from, buf))) = completion.outcome else { panic!() };
            assert_eq!(from, peer.local_addr());
            got.extend(rig.take(buf));
            if !completion.more {
                recv = rig.start(Op::RecvFrom { socket, group: Group::Datagram });
            }
        }
        let expected: Vec<u8> = (0..200).collect();
        assert_eq!(got == expected, !faulty);
        let data = Bytes::from_static(b"back");
        rig.end(Op::SendTo { socket, to: peer.local_addr(), data });
        if !faulty {
            rig.pass(10);
            assert_eq!(peer.receive(), Some((at, Bytes::from_static(b"back"))));
        }
    }
}

/// Sends back what arrives, and tells another core about each connection.
struct Echo {
    told: u64,
}

impl App for Echo {
    type Message = u64;

    fn on_accept(&mut self, cx: &mut Cx<u64>, _conn: crate::core::ConnId, _listener: usize) {
        let other = (cx.core() + 1) % cx.cores();
        cx.tell(other, 1);
    }

    fn on_data(&mut self, cx: &mut Cx<u64>, conn: crate::core::ConnId, data: &[u8]) {
        if cx.send_copy(conn, data).is_err() {
            cx.abort(conn);
        }
    }

    fn on_close(
        &mut self,
        _cx: &mut Cx<u64>,
        _conn: crate::core::ConnId,
        _reason: crate::core::CloseReason,
    ) {
    }

    fn on_message(&mut self, _cx: &mut Cx<u64>, message: u64) {
        self.told += message;
    }
}

fn cores(world: &World, count: usize, port: u16) -> Vec<Core<SimDriver, Echo>> {
    let remotes: Vec<Remote> = (0..count).map(|_| Remote::sim()).collect();
    let listener = Arc::new(Listener::sim(addr(port)));
    mesh::<Envelope<u64>>(&remotes, 0, 16)
        .into_iter()
        .zip(&remotes)
        .map(|(port, remote)| {
            let driver = world.driver(remote.clone());
            let listeners = vec![Arc::clone(&listener)];
            let app = Echo { told: 0 };
            Core::new(driver, app, port, listeners, Limits::default(), world.clock())
        })
        .collect()
}

fn turns<A: App>(cores: &mut [Core<SimDriver, A>]) -> Vec<&mut dyn Turn> {
    cores.iter_mut().map(|core| core as &mut dyn Turn).collect()
}

fn echo_run(seed: u64, harm: bool) -> u64 {
    let world = World::new(seed);
    if harm {
        world.plan(|plan| {
            plan.reset = 0.02;
            plan.refuse = 0.02;
            plan.starve = 0.1;
            plan.wake_early = 0.1;
            plan.small = (4, 512);
        });
    }
    let mut cores = cores(&world, 3, 1);
    world.run_for(&mut turns(&mut cores), Duration::from_millis(1));
    let peers: Vec<SimPeer> = (0..20).map(|_| world.connect(addr(1))).collect();
    for peer in &peers {
        peer.send(&pattern(10_000));
        peer.finish();
    }
    let done = || peers.iter().all(SimPeer::is_closed);
    assert!(world.run_until(&mut turns(&mut cores), LIMIT, done), "seed {seed}");
    if !harm {
        for peer in &peers {
            assert!(pattern(10_000).starts_with(&peer.received()), "seed {seed}");
        }
        let told: u64 = cores.iter().map(|core| core.app().told).sum();
        assert_eq!(told, 20, "every message has arrived");
    }
    let deadline = world.now() + Duration::from_secs(1);
    for core in &mut cores {
        core.app_mut().1.stop(deadline);
        core.remote().notify();
    }
    assert!(world.run_to_end(&mut turns(&mut cores), Duration::from_secs(10)), "seed {seed}");
    world.run_for(&mut [], Duration::from_secs(1));
    for core in &cores {
        world.assert_quiet(core.driver());
    }
    world.trace()
}

#[test]
fn one_seed_is_one_run() {
    for harm in [false, true] {
        for seed in seeds(20) {
            assert_eq!(echo_run(seed, harm), echo_run(seed, harm), "seed {seed}");
        }
        assert_ne!(echo_run(1, harm), echo_run(2, harm));
    }
}

#[test]
fn a_lost_wake_is_made_up_for_only_by_the_next_one() {
    let world = World::new(1);
    world.plan(|plan| plan.wake_lost = 1.0);
    let mut cores = cores(&world, 2, 1);
    world.run_for(&mut turns(&mut cores), Duration::from_secs(1));
    let told = |cores: &[Core<SimDriver, Echo>]| cores.iter().map(|core| core.app().told).sum();
    let _peer = world.connect(addr(1));
    world.run_for(&mut turns(&mut cores), Duration::from_secs(1));
    let so_far: u64 = told(&cores);
    assert_eq!(so_far, 0, "the message lies there");
    world.plan(|plan| plan.wake_lost = 0.0);
    cores.iter().for_each(|core| core.remote().notify());
    world.run_for(&mut turns(&mut cores), Duration::from_secs(1));
    assert_eq!(told(&cores), 1);
}

#[test]
fn a_dropped_driver_resets_its_connections() {
    let world = World::new(1);
    let mut cores = cores(&world, 2, 1);
    world.run_for(&mut turns(&mut cores), Duration::from_millis(1));
    let peers: Vec<SimPeer> = (0..4).map(|_| world.connect(addr(1))).collect();
    world.run_for(&mut turns(&mut cores), Duration::from_secs(1));
    assert!(peers.iter().all(|peer| peer.is_connected() && !peer.is_closed()));
    drop(cores);
    world.run_for(&mut [], Duration::from_secs(1));
    assert!(peers.iter().all(SimPeer::is_reset));
    let late = world.connect(addr(1));
    world.run_for(&mut [], Duration::from_secs(1));
    assert!(late.is_refused());
}
