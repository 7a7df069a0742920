//! MQTT clients of a load: publishers, subscribers, clients that only stay connected, and clients
//! that come and go. They speak MQTT 3.1.1, which all peers do, without keep-alive where nothing
//! else is said, so that an idle connection is idle.

use sextant_load::fleet::SessionError;
use sextant_load::{Recorder, Session};
use sextant_mqtt::{
    ClientHandshake, Connect, Frame, Inbound, Packet, PacketId, QoS, Subscribe,
    SubscribeProperties, Subscription, Subscriptions, Version,
};
use sextant_ring::time::Time;

/// Bytes of a payload, where nothing else is said: the first eight are the publisher's clock at the
/// intended start.
pub(crate) const PAYLOAD_BYTES: usize = 100;
/// The topic of a fan-out: with it and such a payload a PUBLISH has 110 bytes.
pub(crate) const TOPIC: &str = "bench1";
pub(crate) const PACKET_BYTES_MAX: u32 = 1 << 20;
/// A keep-alive that is longer than any run, in seconds: rumqttd serves no client without one.
pub(crate) const KEEP_ALIVE_S: u16 = 600;

const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const PUBACK: u8 = 0x40;
const SUBACK: u8 = 0x90;
const DISCONNECT: [u8; 2] = [0xe0, 0];

/// What a client is there for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Publishes to a topic, payloads of so many bytes.
    Publisher(String, QoS, usize),
    /// Is subscribed to a topic.
    Subscriber(String, QoS),
    /// Only stays.
    Idle,
    /// Leaves once its CONNECT is answered: its connection is the operation.
    Visitor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before its CONNACK.
    Connecting,
    /// Before its SUBACK.
    Subscribing,
    Ready,
    /// Has left.
    Gone,
}

/// One client.
pub(crate) struct Client {
    part: Part,
    id: String,
    keep_alive_s: u16,
    state: State,
    /// Of the publish that is begun next, at QoS 1.
    packet_id: PacketId,
    /// When the connection of a visitor should have begun.
    intended: Time,
    inbound: Inbound,
}

impl Client {
    /// The client with this number, which makes its name unlike that of any other.
    pub(crate) fn new(part: Part, number: u64) -> Client {
        Client {
            part,
            id: format!("bench-{number}"),
            keep_alive_s: 0,
            state: State::Connecting,
            packet_id: PacketId::MIN,
            intended: Time::ZERO,
            inbound: Inbound::new(PACKET_BYTES_MAX),
        }
    }

    /// The same, but it says that it will not be silent for longer than [`KEEP_ALIVE_S`].
    pub(crate) fn with_keep_alive(part: Part, number: u64) -> Client {
        Client { keep_alive_s: KEEP_ALIVE_S, ..Client::new(part, number) }
    }

    fn take(
        &mut self,
        now: Time,
        frame: &Frame<'_>,
        out: &mut Vec<u8>,
        recorder: &mut Recorder,
    ) -> Result<(), SessionError> {
        match (self.state, frame.first_byte & 0xf0) {
            (State::Connecting, CONNACK) if frame.body == [0, 0] => match &self.part {
                Part::Subscriber(topic, qos) => {
                    subscribe(topic, *qos, out)?;
                    self.state = State::Subscribing;
                }
                Part::Visitor => {
                    recorder.record(self.intended, now);
                    out.extend_from_slice(&DISCONNECT);
                    self.state = State::Gone;
                }
                Part::Publisher(..) | Part::Idle => self.state = State::Ready,
            },
            (State::Subscribing, SUBACK) if frame.body.last().is_some_and(|qos| *qos < 0x80) => {
                self.state = State::Ready;
            }
            (State::Connecting, CONNACK) => return Err("the server refuses the client".into()),
            (State::Subscribing, SUBACK) => {
                return Err("the server refuses the subscription".into());
            }
            (State::Ready, PUBACK) if matches!(self.part, Part::Publisher(..)) => {}
            (State::Ready, PUBLISH) => {
                let Part::Subscriber(topic, _) = &self.part else {
                    return Err("a message for somebody else".into());
                };
                let found = Arrived::of(frame, topic).ok_or("another message than was sent")?;
                if let Some(id) = found.packet_id {
                    out.extend_from_slice(&[PUBACK, 2, id[0], id[1]]);
                }
                recorder.record(found.sent, now);
            }
            _ => return Err(format!("a packet of type {:#04x}", frame.first_byte).into()),
        }
        Ok(())
    }
}

pub(crate) fn subscribe(topic: &str, qos: QoS, out: &mut Vec<u8>) -> Result<(), SessionError> {
    let subscription = [Subscription::new(topic, qos)];
    let subscribe = Packet::Subscribe(Subscribe {
        packet_id: PacketId::MIN,
        subscriptions: Subscriptions::new(&subscription),
        properties: SubscribeProperties::default(),
    });
    Ok(subscribe.encode(Version::V311, out)?)
}

/// What a subscriber has to know of a PUBLISH. There are millions of them a second: what a whole
/// decoder takes for each would be what the load can do at most.
pub(crate) struct Arrived {
    /// When it should have been sent.
    pub(crate) sent: Time,
    packet_id: Option<[u8; 2]>,
}

impl Arrived {
    pub(crate) fn of(frame: &Frame<'_>, topic: &str) -> Option<Arrived> {
        let (len, rest) = frame.body.split_first_chunk()?;
        let rest = rest.strip_prefix(topic.as_bytes())?;
        if usize::from(u16::from_be_bytes(*len)) != topic.len() {
            return None;
        }
        let (packet_id, payload) = match frame.first_byte {
            PUBLISH => (None, rest),
            // At QoS 1, whether a duplicate or not.
            0x32 | 0x3a => rest.split_first_chunk().map(|(id, payload)| (Some(*id), payload))?,
            _ => return None,
        };
        let sent = Time::from_nanos(u64::from_le_bytes(*payload.first_chunk()?));
        Some(Arrived { sent, packet_id })
    }
}

/// Gives the packets that are whole by now to `take`.
pub(crate) fn each_frame(
    inbound: &mut Inbound,
    mut input: &[u8],
    mut take: impl FnMut(&Frame<'_>) -> Result<(), SessionError>,
) -> Result<(), SessionError> {
    while let Some(frame) = inbound.next_frame(&mut input)? {
        take(&frame)?;
    }
    Ok(())
}

/// Appends a PUBLISH whose payload begins with a time.
pub(crate) fn publish(
    topic: &str,
    packet_id: Option<PacketId>,
    payload_bytes: usize,
    sent: Time,
    out: &mut Vec<u8>,
) {
    let flags = u8::from(packet_id.is_some()) << 1;
    let id = packet_id.map(PacketId::get);
    publish_head(flags, topic, id, payload_bytes, out);
    out.extend_from_slice(&sent.as_nanos().to_le_bytes());
    out.resize(out.len() + payload_bytes - 8, b'.');
}

/// Appends all of a PUBLISH but its payload. `flags` are the lower bits of its first byte.
pub(crate) fn publish_head(
    flags: u8,
    topic: &str,
    packet_id: Option<u16>,
    payload_bytes: usize,
    out: &mut Vec<u8>,
) {
    let remaining = 2 + topic.len() + 2 * usize::from(packet_id.is_some()) + payload_bytes;
    assert!(remaining < 1 << 14, "a length of one or two bytes");
    out.push(PUBLISH | flags);
    if remaining < 128 {
        out.push(remaining as u8);
    } else {
        out.extend_from_slice(&[remaining as u8 | 0x80, (remaining >> 7) as u8]);
    }
    out.extend_from_slice(&(topic.len() as u16).to_be_bytes());
    out.extend_from_slice(topic.as_bytes());
    if let Some(id) = packet_id {
        out.extend_from_slice(&id.to_be_bytes());
    }
}

impl Session for Client {
    fn handle_connected(&mut self, now: Time, out: &mut Vec<u8>) -> Result<(), SessionError> {
        let mut connect = Connect::new(Version::V311, &self.id);
        connect.keep_alive_s = self.keep_alive_s;
        // What it answers is looked at here: it is the same four bytes for everybody.
        ClientHandshake::start(now.as_millis(), &connect, out)?;
        Ok(())
    }

    fn handle_input(
        &mut self,
        now: Time,
        input: &[u8],
        out: &mut Vec<u8>,
        recorder: &mut Recorder,
    ) -> Result<(), SessionError> {
        let mut inbound = std::mem::replace(&mut self.inbound, Inbound::new(PACKET_BYTES_MAX));
        each_frame(&mut inbound, input, |frame| self.take(now, frame, out, recorder))?;
        self.inbound = inbound;
        Ok(())
    }

    fn begin(&mut self, intended: Time, out: &mut Vec<u8>) -> Result<(), SessionError> {
        match &self.part {
            Part::Visitor => self.intended = intended,
            Part::Publisher(topic, qos, payload_bytes) if self.state == State::Ready => {
                let id = (*qos != QoS::AtMostOnce).then_some(self.packet_id);
                publish(topic, id, *payload_bytes, intended, out);
                self.packet_id = self.packet_id.next();
            }
            _ => return Err("it cannot publish".into()),
        }
        Ok(())
    }

    fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    fn handle_closed(&mut self, _now: Time, _recorder: &mut Recorder) -> Result<(), SessionError> {
        match self.state {
            State::Gone => Ok(()),
            _ => Err("the server closed the connection".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::floor::FRAME_BYTES;

    fn ready(part: Part, frames: &[&[u8]]) -> Client {
        let mut client = Client::new(part, 0);
        let mut out = Vec::new();
        client.handle_connected(Time::ZERO, &mut out).unwrap();
        for frame in frames {
            client.handle_input(Time::ZERO, frame, &mut out, &mut Recorder::default()).unwrap();
        }
        assert!(client.is_ready());
        client
    }

    #[test]
    fn a_publish_is_as_long_as_a_frame_of_the_floor() {
        let part = Part::Publisher(TOPIC.into(), QoS::AtMostOnce, PAYLOAD_BYTES);
        let mut client = ready(part, &[&[CONNACK, 2, 0, 0]]);
        let mut out = Vec::new();
        client.begin(Time::from_nanos(7), &mut out).unwrap();
        assert_eq!(out.len(), FRAME_BYTES);
    }

    #[test]
    fn what_a_publisher_sends_a_subscriber_takes_and_acknowledges() {
        for (qos, bytes) in [(QoS::AtMostOnce, 100), (QoS::AtLeastOnce, 1024)] {
            let part = Part::Publisher("p/17".into(), qos, bytes);
            let mut publisher = ready(part, &[&[CONNACK, 2, 0, 0]]);
            let part = Part::Subscriber("p/17".into(), qos);
            let answers: [&[u8]; 2] = [&[CONNACK, 2, 0, 0], &[SUBACK, 3, 0, 1, qos as u8]];
            let mut subscriber = ready(part, &answers);
            let (mut packet, mut answer) = (Vec::new(), Vec::new());
            let mut recorder = Recorder::default();
            for _ in 0..3 {
                publisher.begin(Time::from_nanos(7), &mut packet).unwrap();
            }
            subscriber
                .handle_input(Time::from_nanos(9), &packet, &mut answer, &mut recorder)
                .unwrap();
            assert_eq!(recorder.done(), 3);
            let acks: &[u8] = &[PUBACK, 2, 0, 1, PUBACK, 2, 0, 2, PUBACK, 2, 0, 3];
            assert_eq!(answer, if qos == QoS::AtMostOnce { &[][..] } else { acks });
        }
    }
}
