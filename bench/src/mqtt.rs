//! MQTT clients of a load: a publisher, subscribers, and clients that only stay connected. They
//! speak MQTT 3.1.1, which all peers do, without keep-alive, so that an idle connection is idle.

use sextant_load::fleet::SessionError;
use sextant_load::{Recorder, Session};
use sextant_mqtt::{
    ClientEvent, ClientHandshake, ClientLink, ClientStep, Connect, Delivery, Frame, Inbound,
    PacketId, PublishHead, QoS, Subscription, Version,
};
use sextant_ring::time::Time;

/// Bytes of a payload: the first eight are the publisher's clock at the intended start.
pub(crate) const PAYLOAD_BYTES: usize = 100;
/// The topic of a fan-out: with it a PUBLISH has 110 bytes.
pub(crate) const TOPIC: &str = "bench1";
pub(crate) const PACKET_BYTES_MAX: u32 = 1 << 20;

/// What a client is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Publisher,
    Subscriber,
    /// Only stays.
    Idle,
}

enum State {
    Connecting(ClientHandshake),
    Subscribing(ClientLink),
    Ready(ClientLink),
    /// Before its first byte, or after a fault.
    Nothing,
}

/// One client.
pub(crate) struct Client {
    part: Part,
    id: String,
    state: State,
    inbound: Inbound,
}

impl Client {
    /// The client with this number, which makes its name unlike that of any other.
    pub(crate) fn new(part: Part, number: u64) -> Client {
        let inbound = Inbound::new(PACKET_BYTES_MAX);
        Client { part, id: format!("bench-{number}"), state: State::Nothing, inbound }
    }

    fn step(
        part: Part,
        state: State,
        frame: &Frame<'_>,
        now: Time,
        out: &mut Vec<u8>,
    ) -> Result<State, SessionError> {
        match state {
            State::Connecting(handshake) => match handshake.handle(frame)? {
                ClientStep::Connected(mut link, _) if part == Part::Subscriber => {
                    let wanted = [Subscription::new(TOPIC, QoS::AtMostOnce)];
                    link.subscribe(now.as_millis(), PacketId::MIN, &wanted, out)?;
                    Ok(State::Subscribing(link))
                }
                ClientStep::Connected(link, _) => Ok(State::Ready(link)),
                ClientStep::Refused(connack) => {
                    Err(format!("the server refuses: {:?}", connack.reason).into())
                }
                ClientStep::Auth(..) => Err("the server wants to authenticate".into()),
            },
            State::Subscribing(mut link) => match link.handle_frame(frame)? {
                ClientEvent::SubAck(suback) if suback.reasons.iter().all(|r| !r.is_error()) => {
                    Ok(State::Ready(link))
                }
                other => Err(format!("no SUBACK but {other:?}").into()),
            },
            State::Ready(_) | State::Nothing => Err("nothing was asked for".into()),
        }
    }
}

/// Of a PUBLISH at QoS 0 to the one topic that there is. A thousand subscribers get millions of them
/// a second: what a whole decoder takes for each would be what the load can do at most.
pub(crate) fn stamp(frame: &Frame<'_>) -> Option<[u8; 8]> {
    const PUBLISH: u8 = 3 << 4;
    let (len, rest) = frame.body.split_first_chunk()?;
    let payload = rest.strip_prefix(TOPIC.as_bytes())?;
    let is_it = frame.first_byte == PUBLISH && usize::from(u16::from_be_bytes(*len)) == TOPIC.len();
    payload.first_chunk().copied().filter(|_| is_it)
}

impl Session for Client {
    fn handle_connected(&mut self, now: Time, out: &mut Vec<u8>) -> Result<(), SessionError> {
        let connect = Connect::new(Version::V311, &self.id);
        self.state = State::Connecting(ClientHandshake::start(now.as_millis(), &connect, out)?);
        Ok(())
    }

    fn handle_input(
        &mut self,
        now: Time,
        mut input: &[u8],
        out: &mut Vec<u8>,
        recorder: &mut Recorder,
    ) -> Result<(), SessionError> {
        while let Some(frame) = self.inbound.next_frame(&mut input)? {
            if !matches!(self.state, State::Ready(_)) {
                let state = std::mem::replace(&mut self.state, State::Nothing);
                self.state = Client::step(self.part, state, &frame, now, out)?;
                continue;
            }
            let stamp = stamp(&frame).ok_or("something else than a message of the fan-out")?;
            recorder.record(Time::from_nanos(u64::from_le_bytes(stamp)), now);
        }
        Ok(())
    }

    fn begin(&mut self, intended: Time, out: &mut Vec<u8>) -> Result<(), SessionError> {
        let State::Ready(link) = &mut self.state else { return Err("not connected".into()) };
        let head = PublishHead::new(Delivery::AtMostOnce, TOPIC, PAYLOAD_BYTES);
        link.publish_head(intended.as_millis(), &head, out)?;
        let at = out.len();
        out.resize(at + PAYLOAD_BYTES, b'.');
        out[at..at + 8].copy_from_slice(&intended.as_nanos().to_le_bytes());
        Ok(())
    }

    fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::floor::FRAME_BYTES;

    #[test]
    fn a_publish_is_as_long_as_a_frame_of_the_floor() {
        let mut client = Client::new(Part::Publisher, 0);
        let mut out = Vec::new();
        client.handle_connected(Time::ZERO, &mut out).unwrap();
        let connack = [0x20, 2, 0, 0];
        client.handle_input(Time::ZERO, &connack, &mut out, &mut Recorder::default()).unwrap();
        assert!(client.is_ready());
        out.clear();
        client.begin(Time::from_nanos(7), &mut out).unwrap();
        assert_eq!(out.len(), FRAME_BYTES);
    }
}
