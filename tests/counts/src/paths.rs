//! The paths that are counted. Each is set up, gone so many times, and checked to have done what
//! it should.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sextant_mqtt::{
    Ack, Connect, Delivery, Inbound, Packet, PacketId, PublishHead, QoS, ReasonCode, ServerLimits,
    SessionLimits, Subscribe, SubscribeProperties, Subscription, Subscriptions, Version, Will,
    WillProperties, topic,
};
use sextant_push::auth::Authenticator;
use sextant_push::auth::hasher::Hasher;
use sextant_push::auth::token::TokenKey;
use sextant_push::broker::{Broker, Message, Parts, Settings, Shared, Transports, restore};
use sextant_push::control::Command;
use sextant_push::control::platform::{Devices, Dispatch, Known, Platform, Told};
use sextant_push::meters::Names;
use sextant_push::presence::Audience;
use sextant_push::tls::Endpoint;
use sextant_ring::core::{App, CloseReason, ConnId, Core, Cx, Envelope, Limits};
use sextant_ring::disk::HostDisk;
use sextant_ring::driver::{FileDone, FileOp, Files, Listener};
use sextant_ring::mesh::{Port, Remote, mesh};
use sextant_ring::time::{Clock, Time};
use sextant_segment::{Durability, Log, Options};
use sextant_service::metrics::Builder;
use sextant_service::notify::Heartbeats;

use crate::store;
use crate::wire::Wire;

/// Something that is done often.
#[derive(Clone, Copy)]
pub struct PathOf {
    /// Its name.
    pub name: &'static str,
    /// What is done once.
    pub what: &'static str,
    /// Does it so many times.
    pub run: fn(u64),
}

/// All of them.
pub const PATHS: [PathOf; 12] = [
    PathOf { name: "mqtt-decode", what: "a QoS 1 PUBLISH of 100 bytes is decoded", run: decode },
    PathOf { name: "mqtt-encode", what: "the head of a PUBLISH is encoded", run: encode },
    PathOf { name: "mqtt-match", what: "a topic is matched with a filter", run: matching },
    PathOf { name: "mesh-message", what: "a message goes to another core", run: message },
    PathOf { name: "ring-echo", what: "110 bytes are received and sent back", run: echo },
    PathOf { name: "ring-fan-out", what: "110 bytes are sent, to one of 100", run: fan_out },
    PathOf { name: "segment-append", what: "200 bytes are appended, 64 a commit", run: append },
    PathOf { name: "push-fan-out", what: "QoS 0 is delivered, to one of 100", run: push_fan_out },
    PathOf { name: "push-burst", what: "as one of 20 that come together", run: push_burst },
    PathOf {
        name: "push-dispatch",
        what: "a device, one of 100, gets and acknowledges a message",
        run: push_dispatch,
    },
    PathOf { name: "store-set", what: "a SET of 64 bytes is executed and noted", run: store::set },
    PathOf { name: "store-get", what: "a GET of 64 bytes is executed", run: store::get },
];

/// Receivers of a fan-out.
const RECEIVERS: u64 = 100;
const PAYLOAD: [u8; 100] = [7; 100];
const TOPIC: &str = "t/measure";

fn publish(qos: QoS) -> Vec<u8> {
    let packet_id = PacketId::new(7).filter(|_| qos != QoS::AtMostOnce);
    let delivery = Delivery::new(qos, packet_id, false).expect("an identifier where it is needed");
    let mut bytes = Vec::new();
    PublishHead::new(delivery, TOPIC, PAYLOAD.len())
        .encode(Version::V311, &mut bytes)
        .expect("a topic that can be said");
    bytes.extend_from_slice(&PAYLOAD);
    bytes
}

fn decode(times: u64) {
    let bytes = publish(QoS::AtLeastOnce);
    let mut inbound = Inbound::new(1 << 20);
    for _ in 0..times {
        let mut input = &bytes[..];
        let frame = inbound.next_frame(&mut input).expect("a header").expect("a whole packet");
        let packet = Packet::decode(&frame, Version::V311).expect("a packet");
        assert!(matches!(std::hint::black_box(packet), Packet::Publish(_)));
    }
}

fn encode(times: u64) {
    let mut out = Vec::new();
    for _ in 0..times {
        out.clear();
        let head = PublishHead::new(Delivery::AtMostOnce, TOPIC, PAYLOAD.len());
        head.encode(Version::V5, &mut out).expect("a topic that can be said");
        std::hint::black_box(&out);
    }
}

fn matching(times: u64) {
    let (filter, name) = std::hint::black_box(("d/+/state/#", "d/lamp-4711/state/on/since"));
    for _ in 0..times {
        assert!(std::hint::black_box(topic::matches(filter, std::hint::black_box(name))));
    }
}

fn message(times: u64) {
    let remotes = [Remote::sim(), Remote::sim()];
    let mut ports = mesh::<u64>(&remotes, 0, 64);
    let mut receiver = ports.pop().expect("two ports");
    let mut sender = ports.pop().expect("two ports");
    for n in 0..times {
        sender.send(1, n);
        sender.flush();
        assert_eq!(receiver.receive(), Some(n));
    }
}

/// Sends back what it gets, or to everybody.
struct Echo {
    all: Option<Vec<ConnId>>,
}

impl App for Echo {
    type Message = ();

    fn on_accept(&mut self, _cx: &mut Cx<()>, conn: ConnId, _listener: usize) {
        self.all.iter_mut().for_each(|all| all.push(conn));
    }

    fn on_data(&mut self, cx: &mut Cx<()>, conn: ConnId, data: &[u8]) {
        match &self.all {
            None => cx.send_copy(conn, data).expect("there is room"),
            Some(all) => {
                let shared = cx.share(0, data);
                for conn in all {
                    cx.send_shared(*conn, &shared).expect("there is room");
                }
            }
        }
    }

    fn on_close(&mut self, _cx: &mut Cx<()>, _conn: ConnId, _reason: CloseReason) {}
}

/// A core on a wire.
struct Bench<A: App> {
    core: Core<Wire, A>,
    now: Time,
    /// Of those beside the cores, who may tell them something.
    outsiders: Vec<Port<Envelope<A::Message>>>,
}

impl<A: App> Bench<A> {
    fn new(app: A, limits: Limits) -> Bench<A> {
        Bench::with_outsiders(app, limits, 0)
    }

    fn with_outsiders(app: A, limits: Limits, count: usize) -> Bench<A> {
        let wire = Wire::new();
        let mut outsiders = mesh(&[sextant_ring::driver::Driver::remote(&wire)], count, 64);
        let port = outsiders.remove(0);
        let addr = "127.0.0.1:1883".parse().expect("an address");
        let listeners = vec![Arc::new(Listener::sim(addr))];
        let now = Time::from_nanos(1);
        let clock = Clock { now, unix_ms: 1_800_000_000_000 };
        let core = Core::new(wire, app, port, listeners, limits, clock);
        let mut bench = Bench { core, now, outsiders };
        bench.turns(50);
        bench
    }

    fn turns(&mut self, count: u32) {
        for _ in 0..count {
            self.now = self.now + Duration::from_micros(10);
            let clock = Clock { now: self.now, unix_ms: 1_800_000_000_000 };
            self.core.turn(clock).expect("the wire does not fail");
        }
    }

    fn connect(&mut self) -> u32 {
        let socket = self.core.driver_mut().connect();
        self.turns(2);
        socket
    }
}

fn echo(times: u64) {
    let mut bench = Bench::new(Echo { all: None }, Limits::default());
    let socket = bench.connect();
    for _ in 0..times {
        bench.core.driver_mut().put(socket, &[5; 110]);
        bench.turns(1);
    }
    bench.turns(1);
    assert_eq!(bench.core.driver().sends, times);
}

fn fan_out(times: u64) {
    let mut bench = Bench::new(Echo { all: Some(Vec::new()) }, Limits::default());
    let sockets: Vec<u32> = (0..RECEIVERS).map(|_| bench.connect()).collect();
    for _ in 0..times / RECEIVERS {
        bench.core.driver_mut().put(sockets[0], &[5; 110]);
        bench.turns(2);
    }
    assert_eq!(bench.core.driver().sends, times);
}

/// Carries file operations out at once, in the order in which they were asked for.
#[derive(Default)]
struct Now {
    wire: Wire,
    asked: Vec<(u64, FileOp)>,
}

impl Files for Now {
    fn submit(&mut self, ticket: u64, op: FileOp) {
        self.asked.push((ticket, op));
    }
}

fn append(times: u64) {
    const A_COMMIT: u64 = 64;
    let dir = tempfile::tempdir().expect("a folder");
    let options = Options {
        segment_bytes_min: 4 << 20,
        segment_bytes_max: 4 << 20,
        bytes_max: 64 << 20,
        durability: Durability::Always,
        ..Options::new(0x5EED, 1)
    };
    let (mut log, _) = Log::open(&HostDisk, dir.path(), options).expect("a new log");
    let mut files = Now::default();
    let payload = [9; 200];
    let settle = |log: &mut Log, files: &mut Now| {
        while let Some((ticket, op)) = (!files.asked.is_empty()).then(|| files.asked.remove(0)) {
            let (result, buf) = files.wire.work(op);
            let _ = log.handle(FileDone { ticket, result, buf }, files, Time::ZERO);
        }
    };
    for n in 0..times {
        log.append(1, &[&payload], 0).expect("there is room");
        if n % A_COMMIT == A_COMMIT - 1 {
            log.commit(&mut files, Time::ZERO);
            settle(&mut log, &mut files);
        }
    }
    log.commit(&mut files, Time::ZERO);
    settle(&mut log, &mut files);
    assert_eq!(log.ackable().0, times);
}

fn broker(
    endpoint: Option<Arc<Endpoint>>,
    platform: Option<Arc<dyn Platform>>,
) -> (Bench<Broker>, tempfile::TempDir) {
    let outsiders = usize::from(platform.is_some());
    let dir = tempfile::tempdir().expect("a folder");
    let options = Options { record_bytes_max: 1 << 20, ..Options::new(0x5EED, 1) };
    let restored = restore(&HostDisk, dir.path(), options).expect("a new log");
    let mut builder = Builder::new("push", "0");
    let names = Names::declare(&mut builder);
    let metrics = builder.build(1);
    let key = TokenKey::from_bytes([7; 32]);
    let hasher = Hasher::spawn(1, Arc::new(|_, _, _| {})).expect("a thread");
    let parts = Parts {
        auth: Arc::new(Authenticator::new(&sextant_push::config::Auth::default(), key)),
        bans: Arc::default(),
        endpoint,
        hasher,
        presence: Audience::default(),
        platform,
        heartbeat: Heartbeats::new(1).core(0),
        shared: Arc::new(Shared::default()),
        names,
        metrics: metrics.core(0),
    };
    let settings = Settings {
        server: ServerLimits {
            packet_bytes_max: NonZeroU32::new(1 << 20).expect("not zero"),
            ..ServerLimits::default()
        },
        session: SessionLimits { inflight_max: 32, received_max: 32 },
        connections_max: 1 << 20,
        queue_messages_max: 1000,
        queue_bytes_max: 1 << 20,
        send_queue_bytes_max: 1 << 20,
        send_queue_messages_max: 1000,
        retained_bytes_max: 1 << 20,
        device_waiting_max: 100,
        receipts_max: 100,
        slow_client_timeout: Duration::from_secs(10),
        will_grace: Duration::ZERO,
        log_bytes_max: 64 << 20,
        transports: Transports::default(),
        suback_reasons: true,
        limits: sextant_push::config::Limits::default(),
    };
    let limits = Limits { send_bytes_max: 8 << 20, ..Limits::default() };
    let broker = Broker::new(settings, parts, restored, 1);
    (Bench::with_outsiders(broker, limits, outsiders), dir)
}

fn packet(packet: &Packet<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(Version::V311, &mut bytes).expect("a packet that can be said");
    bytes
}

/// A broker with clients that only stay.
pub struct Idle {
    bench: Bench<Broker>,
    _dir: tempfile::TempDir,
    clients: u64,
}

impl Idle {
    /// Without any so far.
    pub fn new() -> Idle {
        Idle::served(None)
    }

    /// As [`new`](Self::new), with TLS.
    pub fn served(endpoint: Option<Arc<Endpoint>>) -> Idle {
        let (bench, dir) = broker(endpoint, None);
        Idle { bench, _dir: dir, clients: 0 }
    }

    /// So many more come.
    pub fn connect(&mut self, count: u64) {
        for _ in 0..count {
            connect(&mut self.bench, &format!("idle-{:06}", self.clients));
            self.clients += 1;
        }
    }

    /// One more comes, within what `exchange` puts around its CONNECT: it is given bytes that were
    /// sent to it, and gives what it sends, until that is nothing.
    pub fn connect_within(&mut self, exchange: impl FnMut(&[u8], &[u8]) -> Vec<u8>) {
        self.connect_in_pieces(0, usize::MAX, exchange);
    }

    /// As [`connect_within`](Self::connect_within), with a will of so many bytes, and sending no
    /// more bytes than `piece` at a time.
    pub fn connect_in_pieces(
        &mut self,
        will_bytes: usize,
        piece: usize,
        mut exchange: impl FnMut(&[u8], &[u8]) -> Vec<u8>,
    ) {
        let name = format!("idle-{:06}", self.clients);
        self.clients += 1;
        let mut connect = Connect::new(Version::V311, &name);
        let payload = vec![7; will_bytes];
        if will_bytes > 0 {
            connect.will = Some(Will {
                topic: TOPIC,
                payload: &payload,
                qos: QoS::AtMostOnce,
                retain: false,
                properties: WillProperties::default(),
            });
        }
        let hello = packet(&Packet::Connect(connect));
        let socket = self.bench.connect();
        let mut got = Vec::new();
        loop {
            let bytes = exchange(&got, &hello);
            if bytes.is_empty() {
                return;
            }
            self.bench.core.driver_mut().sent = Some(Vec::new());
            for piece in bytes.chunks(piece) {
                self.bench.core.driver_mut().put(socket, piece);
                self.bench.turns(1);
            }
            self.bench.turns(3);
            got = self.bench.core.driver_mut().sent.take().unwrap_or_default();
        }
    }
}

impl Default for Idle {
    fn default() -> Idle {
        Idle::new()
    }
}

fn connect(bench: &mut Bench<Broker>, name: &str) -> u32 {
    let socket = bench.connect();
    let bytes = packet(&Packet::Connect(Connect::new(Version::V311, name)));
    let before = bench.core.driver().sends;
    bench.core.driver_mut().put(socket, &bytes);
    bench.turns(4);
    assert_eq!(bench.core.driver().sends, before + 1, "it was answered");
    socket
}

fn push_fan_out(times: u64) {
    deliver(times, 1);
}

fn push_burst(times: u64) {
    deliver(times, 20);
}

/// As many messages at a time as are in a burst go to all receivers.
fn deliver(times: u64, burst: usize) {
    let (mut bench, _dir) = broker(None, None);
    let subscription = [Subscription::new(TOPIC, QoS::AtMostOnce)];
    let subscribe = packet(&Packet::Subscribe(Subscribe {
        packet_id: PacketId::new(1).expect("not zero"),
        subscriptions: Subscriptions::new(&subscription),
        properties: SubscribeProperties::default(),
    }));
    for n in 0..RECEIVERS {
        let socket = connect(&mut bench, &format!("receiver-{n}"));
        bench.core.driver_mut().put(socket, &subscribe);
        bench.turns(20);
    }
    let publisher = connect(&mut bench, "publisher");
    let bytes = publish(QoS::AtMostOnce).repeat(burst);
    let go = |bench: &mut Bench<Broker>| {
        bench.core.driver_mut().put(publisher, &bytes);
        bench.turns(2);
    };
    // What only the first time takes is not counted: pages, lists, and what the allocator makes
    // of them.
    go(&mut bench);
    let before = bench.core.driver().sends;
    let rounds = times / RECEIVERS / burst as u64;
    (0..rounds).for_each(|_| go(&mut bench));
    assert_eq!(bench.core.driver().sends - before, rounds * RECEIVERS);
}

/// A platform that keeps what it is told until somebody looks.
#[derive(Default)]
struct Notebook(Mutex<Vec<Told>>);

impl Platform for Notebook {
    fn tell(&self, _core: u16, told: Vec<Told>) {
        self.0.lock().expect("one thread").extend(told);
    }

    fn is_behind(&self) -> bool {
        false
    }
}

impl Notebook {
    fn take(&self) -> Vec<Told> {
        std::mem::take(&mut self.0.lock().expect("one thread"))
    }
}

/// Messages of the platform go to all devices, which acknowledge them.
fn push_dispatch(times: u64) {
    let platform = Arc::new(Notebook::default());
    let (mut bench, _dir) = broker(None, Some(Arc::<Notebook>::clone(&platform)));
    let command = |bench: &mut Bench<Broker>, command| {
        bench.outsiders[0].send(0, Envelope::Message(Message::Command(command)));
        bench.outsiders[0].flush();
        bench.turns(2);
    };
    let mut sockets = Vec::new();
    for n in 0..RECEIVERS as u32 {
        let name = format!("receiver-{n}");
        let socket = connect(&mut bench, &name);
        let topic = format!("d/{name}/push");
        let subscription = [Subscription::new(&topic, QoS::AtLeastOnce)];
        let subscribe = packet(&Packet::Subscribe(Subscribe {
            packet_id: PacketId::new(1).expect("not zero"),
            subscriptions: Subscriptions::new(&subscription),
            properties: SubscribeProperties::default(),
        }));
        bench.core.driver_mut().put(socket, &subscribe);
        bench.turns(20);
        let told = platform.take();
        let [Told::Arrived { client_id, session }] = &told[..] else { panic!("{told:?}") };
        let (client_id, session) = (client_id.clone(), *session);
        command(&mut bench, Command::Known(Known { client_id, session, device: n, app: 1 }));
        sockets.push(socket);
    }
    let devices = Arc::new((0..RECEIVERS as u32).collect());
    let go = |bench: &mut Bench<Broker>, round: u64| {
        let dispatch = Dispatch {
            message: round,
            expires_at: 0,
            payload: PAYLOAD.to_vec().into(),
            devices: Devices::Many(Arc::clone(&devices)),
            app: 1,
        };
        command(bench, Command::Dispatch(Arc::new(dispatch)));
        // Identifiers are given one after the other.
        let packet_id = u16::try_from(round).ok().and_then(PacketId::new).expect("few rounds");
        let ack = packet(&Packet::PubAck(Ack::new(packet_id, ReasonCode::Success)));
        for socket in &sockets {
            bench.core.driver_mut().put(*socket, &ack);
        }
        bench.turns(2);
        assert_eq!(platform.take().len() as u64, 2 * RECEIVERS, "sent and acknowledged");
    };
    // What only the first time takes is not counted.
    go(&mut bench, 1);
    let before = bench.core.driver().sends;
    let rounds = times / RECEIVERS;
    (2..2 + rounds).for_each(|round| go(&mut bench, round));
    assert_eq!(bench.core.driver().sends - before, rounds * RECEIVERS);
}
