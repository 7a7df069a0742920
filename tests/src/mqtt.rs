//! An MQTT client that does what it is told, right or wrong: a socket and the codec.
//!
//! It keeps no session and answers nothing by itself, save [`Mqtt::message`], which acknowledges.
//! Packets that come while another is waited for are kept, in order.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use sextant_mqtt::{
    Ack, Connect, Delivery, Packet, PacketId, Publish, PublishProperties, QoS, ReasonCode,
    Subscribe, SubscribeProperties, Subscription, Subscriptions, Version, frame,
};

use crate::wait::DEADLINE;

/// A connection to a broker.
#[derive(Debug)]
pub struct Mqtt {
    stream: TcpStream,
    version: Version,
    /// Bytes received that are no whole packet yet.
    bytes: Vec<u8>,
    kept: VecDeque<Received>,
    next_id: PacketId,
}

/// A packet that was received.
#[derive(Clone, Debug)]
pub struct Received {
    bytes: Vec<u8>,
    version: Version,
}

impl Received {
    /// The packet.
    ///
    /// # Panics
    /// The broker sent what is none.
    #[track_caller]
    pub fn packet(&self) -> Packet<'_> {
        let decoded = frame(&self.bytes, u32::MAX)
            .map(|frame| frame.map(|frame| Packet::decode(&frame, self.version)));
        match decoded {
            Ok(Some(Ok(packet))) => packet,
            other => panic!("the broker sent {:02x?}: {other:?}", self.bytes),
        }
    }
}

/// A message that was received.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: Vec<u8>,
    /// The packet as it came.
    pub received: Received,
}

impl Message {
    /// The packet as it came.
    ///
    /// # Panics
    /// It is no PUBLISH: a bug here.
    #[track_caller]
    pub fn publish(&self) -> Publish<'_> {
        match self.received.packet() {
            Packet::Publish(publish) => publish,
            other => panic!("{other:?} is no PUBLISH"),
        }
    }

    /// The payload as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

impl Mqtt {
    /// A connection without a CONNECT.
    ///
    /// # Panics
    /// Nobody listens.
    #[track_caller]
    pub fn open(addr: SocketAddr, version: Version) -> Mqtt {
        let stream = match TcpStream::connect_timeout(&addr, DEADLINE) {
            Ok(stream) => stream,
            Err(error) => panic!("no connection to {addr}: {error}"),
        };
        stream.set_nodelay(true).ok();
        stream.set_write_timeout(Some(DEADLINE)).ok();
        let (bytes, kept) = (Vec::new(), VecDeque::new());
        Mqtt { stream, version, bytes, kept, next_id: PacketId::MIN }
    }

    /// A connection that was accepted, with its CONNACK.
    ///
    /// # Panics
    /// It is refused.
    #[track_caller]
    pub fn connect(addr: SocketAddr, connect: &Connect<'_>) -> (Mqtt, Received) {
        let (mqtt, connack) = Mqtt::try_connect(addr, connect);
        match connack.packet() {
            Packet::ConnAck(connack) if connack.reason == ReasonCode::Success => {}
            other => panic!("CONNECT was answered with {other:?}"),
        }
        (mqtt, connack)
    }

    /// A connection, and the answer to its CONNECT whatever it is.
    ///
    /// # Panics
    /// There is none.
    #[track_caller]
    pub fn try_connect(addr: SocketAddr, connect: &Connect<'_>) -> (Mqtt, Received) {
        let mut mqtt = Mqtt::open(addr, connect.version);
        mqtt.send(&Packet::Connect(*connect));
        let answer = mqtt.receive();
        (mqtt, answer)
    }

    /// A clean MQTT 5 connection.
    ///
    /// # Panics
    /// It is refused.
    #[track_caller]
    pub fn clean(addr: SocketAddr, client_id: &str) -> Mqtt {
        Mqtt::connect(addr, &Connect::new(Version::V5, client_id)).0
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends a packet.
    ///
    /// # Panics
    /// It cannot be encoded, or the connection is gone.
    #[track_caller]
    pub fn send(&mut self, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        if let Err(error) = packet.encode(self.version, &mut bytes) {
            panic!("{packet:?} cannot be sent: {error}");
        }
        self.send_bytes(&bytes);
    }

    /// Sends bytes.
    ///
    /// # Panics
    /// The connection is gone.
    #[track_caller]
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        if let Err(error) = self.stream.write_all(bytes) {
            panic!("cannot send {} bytes: {error}", bytes.len());
        }
    }

    /// The next packet.
    ///
    /// # Panics
    /// None comes in time, or the connection is closed.
    #[track_caller]
    pub fn receive(&mut self) -> Received {
        match self.kept.pop_front() {
            Some(received) => received,
            None => self.receive_new(),
        }
    }

    /// The next packet, or nothing if the broker closed the connection.
    ///
    /// # Panics
    /// Neither comes about in time.
    #[track_caller]
    pub fn receive_or_end(&mut self) -> Option<Received> {
        if let Some(received) = self.kept.pop_front() {
            return Some(received);
        }
        match self.read_packet(DEADLINE) {
            Ok(received) => Some(received),
            Err(End::Closed) => None,
            Err(End::Time) => panic!("neither a packet nor an end within {DEADLINE:?}"),
        }
    }

    /// Packets until the broker closes the connection.
    ///
    /// # Panics
    /// It does not in time.
    #[track_caller]
    pub fn receive_to_end(&mut self) -> Vec<Received> {
        std::iter::from_fn(|| self.receive_or_end()).collect()
    }

    /// The first packet of which `pick` makes something; others are kept for later.
    ///
    /// # Panics
    /// None comes in time, or the connection is closed.
    #[track_caller]
    pub fn receive_where<T>(&mut self, pick: impl Fn(&Packet<'_>) -> Option<T>) -> T {
        if let Some(at) = self.kept.iter().position(|kept| pick(&kept.packet()).is_some())
            && let Some(picked) = self.kept.remove(at).and_then(|kept| pick(&kept.packet()))
        {
            return picked;
        }
        loop {
            let received = self.receive_new();
            match pick(&received.packet()) {
                Some(picked) => return picked,
                None => self.kept.push_back(received),
            }
        }
    }

    #[track_caller]
    fn receive_new(&mut self) -> Received {
        match self.read_packet(DEADLINE) {
            Ok(received) => received,
            Err(End::Closed) => panic!("the broker closed the connection"),
            Err(End::Time) => panic!("no packet within {DEADLINE:?}"),
        }
    }

    fn read_packet(&mut self, limit: Duration) -> Result<Received, End> {
        let began = Instant::now();
        loop {
            match frame(&self.bytes, u32::MAX) {
                Ok(Some(frame)) => {
                    let rest = self.bytes.split_off(frame.total_len);
                    let bytes = std::mem::replace(&mut self.bytes, rest);
                    return Ok(Received { bytes, version: self.version });
                }
                Ok(None) => {}
                Err(error) => panic!("the broker sent {:02x?}: {error}", self.bytes),
            }
            let left = limit.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Err(End::Time);
            }
            self.stream.set_read_timeout(Some(left)).ok();
            let mut buffer = [0; 64 << 10];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(End::Closed),
                Ok(len) => self.bytes.extend_from_slice(&buffer[..len]),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::Interrupted => {}
                    _ => return Err(End::Closed),
                },
            }
        }
    }

    fn id(&mut self) -> PacketId {
        let id = self.next_id;
        self.next_id = id.next();
        id
    }

    /// Subscribes, and gives the reason code.
    ///
    /// # Panics
    /// There is no answer.
    #[track_caller]
    pub fn subscribe(&mut self, filter: &str, qos: QoS) -> ReasonCode {
        let packet_id = self.id();
        self.send(&Packet::Subscribe(Subscribe {
            packet_id,
            properties: SubscribeProperties::default(),
            subscriptions: Subscriptions::new(&[Subscription::new(filter, qos)]),
        }));
        self.receive_where(|packet| match packet {
            Packet::SubAck(suback) if suback.packet_id == packet_id => suback.reasons.iter().next(),
            _ => None,
        })
    }

    /// Publishes, and goes through what its QoS asks for; gives the reason code of PUBACK or
    /// PUBREC.
    ///
    /// # Panics
    /// There is no answer.
    #[track_caller]
    pub fn publish(&mut self, topic: &str, payload: &[u8], qos: QoS) -> ReasonCode {
        self.publish_with(topic, payload, qos, false, PublishProperties::default())
    }

    /// As [`publish`](Self::publish), retained if `retain` and with properties.
    ///
    /// # Panics
    /// There is no answer.
    #[track_caller]
    pub fn publish_with(
        &mut self,
        topic: &str,
        payload: &[u8],
        qos: QoS,
        retain: bool,
        properties: PublishProperties<'_>,
    ) -> ReasonCode {
        let packet_id = self.id();
        let Some(delivery) = Delivery::new(qos, Some(packet_id), false) else {
            panic!("{qos:?} has a packet identifier");
        };
        self.send(&Packet::Publish(Publish { delivery, retain, topic, properties, payload }));
        let reason = match qos {
            QoS::AtMostOnce => return ReasonCode::Success,
            _ => self.receive_where(|packet| match packet {
                Packet::PubAck(ack) | Packet::PubRec(ack) if ack.packet_id == packet_id => {
                    Some(ack.reason)
                }
                _ => None,
            }),
        };
        if qos == QoS::ExactlyOnce && !reason.is_error() {
            self.send(&Packet::PubRel(Ack::new(packet_id, ReasonCode::Success)));
            self.receive_where(|packet| match packet {
                Packet::PubComp(ack) if ack.packet_id == packet_id => Some(()),
                _ => None,
            });
        }
        reason
    }

    /// The next message, acknowledged; a QoS 2 exchange is completed.
    ///
    /// # Panics
    /// None comes in time.
    #[track_caller]
    pub fn message(&mut self) -> Message {
        let message = self.message_unanswered();
        match message.publish().delivery {
            Delivery::AtMostOnce => {}
            Delivery::AtLeastOnce { packet_id, .. } => {
                self.send(&Packet::PubAck(Ack::new(packet_id, ReasonCode::Success)));
            }
            Delivery::ExactlyOnce { packet_id, .. } => {
                self.send(&Packet::PubRec(Ack::new(packet_id, ReasonCode::Success)));
                self.receive_where(|packet| match packet {
                    Packet::PubRel(ack) if ack.packet_id == packet_id => Some(()),
                    _ => None,
                });
                self.send(&Packet::PubComp(Ack::new(packet_id, ReasonCode::Success)));
            }
        }
        message
    }

    /// The next message, not acknowledged.
    ///
    /// # Panics
    /// None comes in time.
    #[track_caller]
    pub fn message_unanswered(&mut self) -> Message {
        let at = self.kept.iter().position(|kept| matches!(kept.packet(), Packet::Publish(_)));
        let received = match at.and_then(|at| self.kept.remove(at)) {
            Some(received) => received,
            None => loop {
                let received = self.receive_new();
                match received.packet() {
                    Packet::Publish(_) => break received,
                    _ => self.kept.push_back(received),
                }
            },
        };
        let Packet::Publish(publish) = received.packet() else {
            panic!("{received:?} is no PUBLISH");
        };
        let (topic, payload) = (publish.topic.to_owned(), publish.payload.to_vec());
        Message { topic, payload, received }
    }

    /// Sends PINGREQ, and waits for the answer: everything sent before has been handled then.
    ///
    /// # Panics
    /// There is no answer.
    #[track_caller]
    pub fn ping(&mut self) -> Duration {
        let began = Instant::now();
        self.send(&Packet::PingReq);
        self.receive_where(|packet| matches!(packet, Packet::PingResp).then_some(()));
        began.elapsed()
    }

    /// Leaves in good order.
    ///
    /// # Panics
    /// The connection is gone.
    #[track_caller]
    pub fn disconnect(mut self) {
        self.send(&Packet::Disconnect(sextant_mqtt::Disconnect::default()));
        self.stream.shutdown(std::net::Shutdown::Write).ok();
        self.receive_to_end();
    }
}

#[derive(Debug)]
enum End {
    Closed,
    Time,
}
