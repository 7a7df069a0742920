//! Both ends of a connection against each other in virtual time: the client's handshake and link,
//! the server's, and a session at either end, over a byte stream that is cut into random pieces,
//! stalls, and breaks with bytes lost. Whatever happens, QoS 2 is delivered exactly once, QoS 1
//! at least once, QoS 0 at most once, each first in its order.

use std::collections::VecDeque;
use std::num::NonZeroU16;

use sextant_mqtt::{
    AcceptOptions, Ack, AwaitingConnect, ClientEvent, ClientHandshake, ClientLink, ClientStep,
    Connect, Delivery, Event, Fault, Frame, Inbound, Inflight, Link, OutboundAlias, Packet,
    PacketId, Puback, Pubcomp, Publish, PublishHead, Pubrec, QoS, ReasonCode, Received, Released,
    ServerLimits, Session, SessionLimits, Version,
};

const OK: ReasonCode = ReasonCode::Success;

enum State {
    Closed,
    Awaiting(AwaitingConnect),
    Server(Link),
    Handshake(ClientHandshake),
    Client(ClientLink),
}

/// A message and how it is sent; its number is its payload, and its topic follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Message {
    number: u32,
    qos: QoS,
}

impl Message {
    fn topic(self) -> &'static str {
        ["d/1", "d/2", "a/b/c", "x", "long/topic/name"][self.number as usize % 5]
    }
}

/// Either end.
struct End {
    version: Version,
    limits: ServerLimits,
    session_limits: SessionLimits,
    state: State,
    session: Session<Message>,
    inbound: Inbound,
    /// Written and not yet on the wire.
    out: Vec<u8>,
    waiting: VecDeque<Message>,
    delivered: Vec<Message>,
}

impl End {
    fn new(version: Version, limits: ServerLimits, session_limits: SessionLimits) -> End {
        End {
            version,
            limits,
            session_limits,
            state: State::Closed,
            session: Session::new(session_limits),
            inbound: Inbound::new(1000),
            out: Vec::new(),
            waiting: VecDeque::new(),
            delivered: Vec::new(),
        }
    }

    fn is_connected(&self) -> bool {
        matches!(self.state, State::Server(_) | State::Client(_))
    }

    fn close(&mut self) {
        self.state = State::Closed;
        self.inbound = Inbound::new(1000);
        self.out.clear();
    }

    /// What a process does that ends and starts again with what it wrote down.
    fn restart(&mut self) {
        self.close();
        let mut restored = Session::new(self.session_limits);
        for (packet_id, inflight) in self.session.inflight() {
            let inflight = match inflight {
                Inflight::AwaitPuback(&message) => Inflight::AwaitPuback(message),
                Inflight::AwaitPubrec(&message) => Inflight::AwaitPubrec(message),
                Inflight::AwaitPubcomp => Inflight::AwaitPubcomp,
            };
            restored.restore_inflight(packet_id, inflight).unwrap();
        }
        for packet_id in self.session.received() {
            assert!(restored.restore_received(packet_id));
        }
        self.session = restored;
    }

    fn send(&mut self, now_ms: u64, packet: &Packet<'_>) {
        match &mut self.state {
            State::Server(link) => link.send(packet, &mut self.out).unwrap(),
            State::Client(link) => link.send(now_ms, packet, &mut self.out).unwrap(),
            _ => panic!("not connected"),
        }
    }

    fn publish(&mut self, now_ms: u64, delivery: Delivery, message: Message) {
        let payload = message.number.to_be_bytes();
        let mut head = PublishHead::new(delivery, message.topic(), payload.len());
        let alias = match &mut self.state {
            State::Server(link) => link.outbound_alias(message.topic()),
            State::Client(link) => link.outbound_alias(message.topic(), 2),
            _ => panic!("not connected"),
        };
        match alias {
            Some(OutboundAlias::Establish(alias)) => head.topic_alias = Some(alias),
            Some(OutboundAlias::Use(alias)) => (head.topic, head.topic_alias) = ("", Some(alias)),
            None => {}
        }
        match &mut self.state {
            State::Server(link) => link.publish_head(&head, &mut self.out).unwrap(),
            State::Client(link) => link.publish_head(now_ms, &head, &mut self.out).unwrap(),
            _ => panic!("not connected"),
        }
        self.out.extend_from_slice(&payload);
    }

    /// Sends again what must be, then what waits, as far as there is room.
    fn pump(&mut self, now_ms: u64) {
        while let Some((packet_id, inflight)) = self.session.resend() {
            let dup = true;
            match inflight {
                Inflight::AwaitPuback(&message) => {
                    self.publish(now_ms, Delivery::AtLeastOnce { packet_id, dup }, message);
                }
                Inflight::AwaitPubrec(&message) => {
                    self.publish(now_ms, Delivery::ExactlyOnce { packet_id, dup }, message);
                }
                Inflight::AwaitPubcomp => {
                    self.send(now_ms, &Packet::PubRel(Ack::new(packet_id, OK)));
                }
            }
        }
        while let Some(&message) = self.waiting.front() {
            let packet_id = match message.qos {
                QoS::AtMostOnce => None,
                qos => match self.session.begin(qos, message) {
                    Ok(packet_id) => Some(packet_id),
                    Err(_) => return,
                },
            };
            self.waiting.pop_front();
            let delivery = Delivery::new(message.qos, packet_id, false).unwrap();
            self.publish(now_ms, delivery, message);
        }
    }

    fn receive(&mut self, now_ms: u64, mut input: &[u8]) -> Result<(), Fault> {
        let mut inbound = std::mem::replace(&mut self.inbound, Inbound::new(0));
        while let Some(frame) = inbound.next_frame(&mut input)? {
            self.handle(now_ms, &frame)?;
            if matches!(self.state, State::Closed) {
                return Ok(());
            }
        }
        self.inbound = inbound;
        Ok(())
    }

    fn handle(&mut self, now_ms: u64, frame: &Frame<'_>) -> Result<(), Fault> {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Closed => panic!("bytes for a closed connection"),
            State::Awaiting(awaiting) => {
                let (connecting, connect) = awaiting.handle(now_ms, frame, &self.limits).unwrap();
                assert!(connect.version == self.version && !connect.clean_start);
                let options = AcceptOptions { session_present: true, ..AcceptOptions::default() };
                let accepted = connecting.accept(now_ms, &self.limits, &options, &mut self.out);
                let link = accepted.unwrap();
                self.session.resume(link.peer_receive_max());
                self.state = State::Server(link);
            }
            State::Handshake(handshake) => {
                let ClientStep::Connected(link, connack) = handshake.handle(frame)? else {
                    panic!("refused")
                };
                assert!(connack.session_present);
                self.session.resume(link.peer_receive_max());
                self.state = State::Client(link);
            }
            State::Server(mut link) => {
                let event = link.handle_frame(now_ms, frame)?;
                self.state = State::Server(link);
                match event {
                    Event::Publish { topic, publish } => self.deliver(now_ms, &topic, &publish),
                    Event::PubAck(ack) => self.puback(&ack),
                    Event::PubRec(ack) => self.pubrec(now_ms, &ack),
                    Event::PubRel(ack) => self.pubrel(now_ms, &ack),
                    Event::PubComp(ack) => self.pubcomp(&ack),
                    Event::PingReq => self.send(now_ms, &Packet::PingResp),
                    other => panic!("{other:?}"),
                }
            }
            State::Client(mut link) => {
                let event = link.handle_frame(frame)?;
                self.state = State::Client(link);
                match event {
                    ClientEvent::Publish { topic, publish } => {
                        self.deliver(now_ms, &topic, &publish);
                    }
                    ClientEvent::PubAck(ack) => self.puback(&ack),
                    ClientEvent::PubRec(ack) => self.pubrec(now_ms, &ack),
                    ClientEvent::PubRel(ack) => self.pubrel(now_ms, &ack),
                    ClientEvent::PubComp(ack) => self.pubcomp(&ack),
                    ClientEvent::PingResp => {}
                    other => panic!("{other:?}"),
                }
            }
        }
        self.pump(now_ms);
        Ok(())
    }

    fn deliver(&mut self, now_ms: u64, topic: &str, publish: &Publish<'_>) {
        let number = u32::from_be_bytes(publish.payload.try_into().unwrap());
        let message = Message { number, qos: publish.delivery.qos() };
        assert_eq!(topic, message.topic());
        match publish.delivery {
            Delivery::AtMostOnce => self.delivered.push(message),
            Delivery::AtLeastOnce { packet_id, .. } => {
                self.delivered.push(message);
                self.send(now_ms, &Packet::PubAck(Ack::new(packet_id, OK)));
            }
            Delivery::ExactlyOnce { packet_id, .. } => {
                match self.session.receive(packet_id) {
                    Received::First => self.delivered.push(message),
                    Received::Duplicate => assert!(publish.delivery.dup()),
                    Received::Full => panic!("the session holds too much"),
                }
                self.send(now_ms, &Packet::PubRec(Ack::new(packet_id, OK)));
            }
        }
    }

    fn puback(&mut self, ack: &Ack<'_>) {
        let outcome = self.session.puback(ack.packet_id, ack.reason);
        assert!(matches!(outcome, Puback::Acknowledged(_)), "{outcome:?}");
    }

    fn pubrec(&mut self, now_ms: u64, ack: &Ack<'_>) {
        let outcome = self.session.pubrec(ack.packet_id, ack.reason);
        assert!(matches!(outcome, Pubrec::Release(_)), "{outcome:?}");
        self.send(now_ms, &Packet::PubRel(Ack::new(ack.packet_id, OK)));
    }

    fn pubrel(&mut self, now_ms: u64, ack: &Ack<'_>) {
        // Unknown where the PUBCOMP of an earlier connection was lost.
        let reason = match (self.session.release(ack.packet_id), self.version) {
            (Released::Unknown, Version::V5) => ReasonCode::PacketIdentifierNotFound,
            _ => OK,
        };
        self.send(now_ms, &Packet::PubComp(Ack::new(ack.packet_id, reason)));
    }

    fn pubcomp(&mut self, ack: &Ack<'_>) {
        assert_eq!(self.session.pubcomp(ack.packet_id), Pubcomp::Completed);
    }
}

/// Both ends and what lies between them.
struct World {
    random: fastrand::Rng,
    now_ms: u64,
    client: End,
    server: End,
    /// Bytes on their way.
    up: VecDeque<u8>,
    down: VecDeque<u8>,
    client_receive_max: Option<NonZeroU16>,
    next: u32,
    breaks: u32,
    timeouts: u32,
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = fastrand::Rng::with_seed(seed);
        let version = if random.bool() { Version::V311 } else { Version::V5 };
        let limits = ServerLimits {
            receive_max: NonZeroU16::new(random.u16(1..8)).unwrap(),
            inbound_alias_max: random.u16(..4),
            outbound_alias_max: random.u16(..4),
            ..ServerLimits::default()
        };
        let mut session =
            || SessionLimits { inflight_max: random.u16(1..8), received_max: u16::MAX };
        let (ours, theirs) = (session(), session());
        let client_receive_max = NonZeroU16::new(random.u16(..5));
        World {
            now_ms: 0,
            client: End::new(version, limits, ours),
            server: End::new(version, limits, theirs),
            up: VecDeque::new(),
            down: VecDeque::new(),
            client_receive_max,
            next: 0,
            breaks: 0,
            timeouts: 0,
            random,
        }
    }

    fn connect(&mut self) {
        self.up.clear();
        self.down.clear();
        self.client.close();
        self.server.close();
        let mut connect = Connect::new(self.client.version, "c");
        connect.clean_start = false;
        connect.keep_alive_s = 10;
        connect.properties.session_expiry_s = Some(1000);
        connect.properties.receive_max = self.client_receive_max;
        connect.properties.topic_alias_max = Some(2);
        let handshake =
            ClientHandshake::start(self.now_ms, &connect, &mut self.client.out).unwrap();
        self.client.state = State::Handshake(handshake);
        let awaiting = AwaitingConnect::new(self.now_ms, &self.server.limits);
        self.server.state = State::Awaiting(awaiting);
    }

    /// Moves some bytes of one direction, cut anywhere, to its other end.
    fn carry(&mut self, upwards: bool) {
        let (from, to, wire) = match upwards {
            true => (&mut self.client, &mut self.server, &mut self.up),
            false => (&mut self.server, &mut self.client, &mut self.down),
        };
        wire.extend(from.out.drain(..));
        if wire.is_empty() || matches!(to.state, State::Closed) {
            return;
        }
        let len = self.random.usize(1..=wire.len().min(40));
        let chunk: Vec<u8> = wire.drain(..len).collect();
        to.receive(self.now_ms, &chunk).unwrap();
    }

    /// Lets time pass without a byte arriving, up to the next deadline of either end or beyond.
    fn stall(&mut self) {
        self.now_ms += self.random.u64(..20_000);
        let (now_ms, server) = (self.now_ms, &mut self.server);
        let silent = match &server.state {
            State::Server(link) => link.handle_timeout(now_ms),
            State::Awaiting(awaiting) => awaiting.handle_timeout(now_ms),
            _ => Ok(()),
        };
        let unanswered = match &mut self.client.state {
            State::Client(link) => link.handle_timeout(now_ms, &mut self.client.out),
            _ => Ok(()),
        };
        if silent.is_err() || unanswered.is_err() {
            self.timeouts += 1;
            self.connect();
        }
    }

    fn queue(&mut self, upwards: bool) -> Message {
        let qos = QoS::from_u8(self.random.u8(..3)).unwrap();
        let message = Message { number: self.next, qos };
        self.next += 1;
        let (now_ms, end) =
            (self.now_ms, if upwards { &mut self.client } else { &mut self.server });
        end.waiting.push_back(message);
        if end.is_connected() {
            end.pump(now_ms);
        }
        message
    }

    fn turn(&mut self, sent: &mut [Vec<Message>; 2]) {
        match self.random.u8(..100) {
            0..=19 => {
                let upwards = self.random.bool();
                sent[usize::from(upwards)].push(self.queue(upwards));
            }
            20..=94 => {
                let upwards = self.random.bool();
                self.carry(upwards);
            }
            95..=97 => self.stall(),
            98 => {
                self.breaks += 1;
                self.connect();
            }
            _ => {
                self.breaks += 1;
                self.client.close();
                self.server.restart();
                self.connect();
            }
        }
    }

    /// Carries until nothing is in flight or waiting.
    fn settle(&mut self) {
        let busy = |end: &End| {
            !end.is_connected() || end.session.inflight_len() > 0 || !end.waiting.is_empty()
        };
        for _ in 0..100_000 {
            if !busy(&self.client)
                && !busy(&self.server)
                && self.client.out.is_empty()
                && self.server.out.is_empty()
                && self.up.is_empty()
                && self.down.is_empty()
            {
                return;
            }
            self.carry(true);
            self.carry(false);
        }
        panic!("the ends do not come to rest");
    }
}

/// Checks what one end delivered of what the other sent.
fn check(sent: &[Message], delivered: &[Message]) {
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let of = |list: &[Message]| -> Vec<u32> {
            list.iter().filter(|message| message.qos == qos).map(|message| message.number).collect()
        };
        let (sent, delivered) = (of(sent), of(delivered));
        let mut first = Vec::new();
        for number in &delivered {
            if !first.contains(number) {
                first.push(*number);
            }
        }
        match qos {
            QoS::AtMostOnce => {
                assert_eq!(first, delivered, "QoS 0 is never delivered twice");
                assert!(first.is_sorted() && first.iter().all(|number| sent.contains(number)));
            }
            QoS::AtLeastOnce => assert_eq!(first, sent, "QoS 1, first deliveries"),
            QoS::ExactlyOnce => assert_eq!(delivered, sent, "QoS 2"),
        }
    }
}

#[test]
fn both_ends_agree_whatever_happens_to_the_bytes_between_them() {
    let first = fastrand::u64(..);
    let (mut breaks, mut timeouts, mut delivered) = (0, 0, 0);
    for seed in (first..).take(150) {
        println!("seed {seed}");
        let mut world = World::new(seed);
        let mut sent = [Vec::new(), Vec::new()];
        world.connect();
        for _ in 0..3000 {
            world.turn(&mut sent);
        }
        world.settle();
        assert_eq!(world.client.session.received_len() + world.server.session.received_len(), 0);
        check(&sent[1], &world.server.delivered);
        check(&sent[0], &world.client.delivered);
        breaks += world.breaks;
        timeouts += world.timeouts;
        delivered += world.client.delivered.len() + world.server.delivered.len();
    }
    println!("{delivered} delivered, {breaks} breaks, {timeouts} timeouts");
    assert!(breaks > 1000 && timeouts > 100, "the test breaks what it means to break");
}

#[test]
fn an_idle_client_keeps_its_connection_for_a_year() {
    let mut world = World::new(7);
    world.connect();
    world.settle();
    let year_ms = 365 * 24 * 3600 * 1000;
    let mut pings = 0u64;
    while world.now_ms < year_ms {
        let State::Client(link) = &mut world.client.state else { panic!("connected") };
        world.now_ms = link.deadline().unwrap();
        link.handle_timeout(world.now_ms, &mut world.client.out).unwrap();
        pings += u64::from(!world.client.out.is_empty());
        let State::Server(link) = &world.server.state else { panic!("connected") };
        link.handle_timeout(world.now_ms).unwrap();
        world.settle();
    }
    assert_eq!(pings, year_ms / 10_000);
}

#[test]
fn packet_identifiers_of_subscribe_and_publish_are_one_space() {
    let mut session: Session<u32> = Session::new(SessionLimits::default());
    let mut taken: Vec<PacketId> = Vec::new();
    for message in 0..60 {
        let packet_id = match message % 2 {
            0 => session.reserve_id().unwrap(),
            _ => session.begin(QoS::AtLeastOnce, message).unwrap(),
        };
        assert!(!taken.contains(&packet_id));
        taken.push(packet_id);
    }
}
