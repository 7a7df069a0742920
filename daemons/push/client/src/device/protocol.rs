//! One connection of a device, without socket and clock: bytes and time go in, bytes come out.
//!
//! ```text
//!   CONNECT ─► CONNACK ─► SUBSCRIBE ─► SUBACK ─► PUBLISH of a message ─► Inbox ─► PUBACK
//!                                                PUBLISH of receipts  ─► PUBACK ─► Inbox
//! ```

use std::num::{NonZeroU16, NonZeroU32};

use sextant_mqtt::{
    Ack, ClientEvent, ClientHandshake, ClientLink, ClientStep, Connect, DecodeError, Delivery,
    EncodeError, Fault, Frame, Inbound, Packet, PacketId, PacketType, Publish, PublishProperties,
    QoS, ReasonCode, Secret, Subscription, Version,
};

use super::outbox::Channel;

/// The largest packet that is taken, bytes.
const PACKET_BYTES_MAX: u32 = 1 << 20;
/// How many messages the broker sends before the first is acknowledged.
const RECEIVE_MAX: NonZeroU16 = NonZeroU16::new(32).expect("it is not zero");
/// What a publish has beside payload and topic, bytes, generously.
const PUBLISH_OVERHEAD: usize = 32;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    #[error("the broker refuses the device: {0:?}")]
    Refused(ReasonCode),
    #[error("the broker refuses the subscription: {0:?}")]
    NotSubscribed(ReasonCode),
    #[error("the broker does not take what the device says: {0:?}")]
    NotNow(ReasonCode),
    #[error("the broker closed the connection: {0:?}")]
    Closed(ReasonCode),
    #[error("the broker breaks the protocol: {0}")]
    Fault(#[from] Fault),
    #[error("the broker sends what is no MQTT: {0}")]
    Decode(#[from] DecodeError),
    #[error("a packet cannot be made: {0}")]
    Encode(#[from] EncodeError),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("the broker did not answer in time")]
    Silence,
    #[error("the device stops")]
    Stopped,
}

/// Where things go that come.
pub(crate) trait Inbox {
    /// The subscription is made.
    fn subscribed(&mut self);
    /// A message for the device; acknowledged when this returns.
    fn deliver(&mut self, payload: &[u8]);
    /// The publish under way was taken, or refused. Whether the connection is of use still: one on
    /// which the same would be said again at once is not.
    fn acknowledged(&mut self, refused: Option<ReasonCode>) -> bool;
}

/// The topics of a device.
#[derive(Debug)]
pub(crate) struct Topics {
    push: String,
    receipts: String,
    topics: String,
}

impl Topics {
    pub(crate) fn new(device: &str) -> Topics {
        let below = |name: &str| format!("d/{device}/{name}");
        Topics { push: below("push"), receipts: below("receipts"), topics: below("topics") }
    }
}

/// What CONNECT says.
pub(crate) struct Hello<'a> {
    pub(crate) device: &'a str,
    pub(crate) token: &'a str,
    pub(crate) keep_alive_s: u16,
    pub(crate) session_expiry_s: u32,
}

enum Stage {
    Handshake(ClientHandshake),
    Live(ClientLink),
    /// The handshake failed.
    Gone,
}

impl Stage {
    /// Takes the broker's answer to CONNECT.
    fn connected(self, frame: &Frame<'_>) -> Result<ClientLink, End> {
        let unexpected = End::Fault(Fault::Unexpected(frame.packet_type()?));
        match self {
            Stage::Handshake(begun) => match begun.handle(frame)? {
                ClientStep::Connected(link, _) => Ok(link),
                ClientStep::Refused(connack) => Err(End::Refused(connack.reason)),
                ClientStep::Auth(..) => Err(unexpected),
            },
            Stage::Live(_) | Stage::Gone => Err(unexpected),
        }
    }
}

/// Acknowledges a message.
fn acknowledge(
    now_ms: u64,
    link: &mut ClientLink,
    delivery: Delivery,
    out: &mut Vec<u8>,
) -> Result<(), End> {
    match delivery {
        Delivery::AtMostOnce => Ok(()),
        Delivery::AtLeastOnce { packet_id, .. } => {
            let ack = Ack::new(packet_id, ReasonCode::Success);
            Ok(link.send(now_ms, &Packet::PubAck(ack), out)?)
        }
        // The subscription is for QoS 1 at most [MQTT-3.8.4-8].
        Delivery::ExactlyOnce { .. } => Err(Fault::Unexpected(PacketType::Publish).into()),
    }
}

pub(crate) struct Protocol<'t> {
    topics: &'t Topics,
    stage: Stage,
    inbound: Inbound,
    out: Vec<u8>,
    packet_id: PacketId,
    publishing: Option<PacketId>,
    is_subscribed: bool,
}

impl<'t> Protocol<'t> {
    pub(crate) fn start(
        now_ms: u64,
        hello: &Hello<'_>,
        topics: &'t Topics,
    ) -> Result<Protocol<'t>, End> {
        let mut connect = Connect {
            clean_start: false,
            keep_alive_s: hello.keep_alive_s,
            user_name: Some(hello.device),
            password: Some(Secret::new(hello.token.as_bytes())),
            ..Connect::new(Version::V5, hello.device)
        };
        connect.properties.session_expiry_s = Some(hello.session_expiry_s);
        connect.properties.receive_max = Some(RECEIVE_MAX);
        connect.properties.packet_bytes_max = NonZeroU32::new(PACKET_BYTES_MAX);
        let mut out = Vec::new();
        let handshake = ClientHandshake::start(now_ms, &connect, &mut out)?;
        Ok(Protocol {
            topics,
            stage: Stage::Handshake(handshake),
            inbound: Inbound::new(PACKET_BYTES_MAX),
            out,
            packet_id: PacketId::MIN,
            publishing: None,
            is_subscribed: false,
        })
    }

    /// What is to be written; the caller takes from its front what was.
    pub(crate) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    pub(crate) fn is_subscribed(&self) -> bool {
        self.is_subscribed
    }

    /// When [`Protocol::handle_timeout`] has something to do.
    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        match &self.stage {
            Stage::Live(link) => link.deadline(),
            _ => None,
        }
    }

    pub(crate) fn handle_timeout(&mut self, now_ms: u64) -> Result<(), End> {
        if let Stage::Live(link) = &mut self.stage {
            link.handle_timeout(now_ms, &mut self.out)?;
        }
        Ok(())
    }

    /// Takes bytes of the broker.
    pub(crate) fn handle_input(
        &mut self,
        now_ms: u64,
        mut input: &[u8],
        inbox: &mut dyn Inbox,
    ) -> Result<(), End> {
        let Protocol { topics, stage, inbound, out, packet_id, publishing, is_subscribed } = self;
        while let Some(frame) = inbound.next_frame(&mut input)? {
            let Stage::Live(link) = &mut *stage else {
                let begun = std::mem::replace(stage, Stage::Gone);
                let mut link = begun.connected(&frame)?;
                let filter = Subscription::new(&topics.push, QoS::AtLeastOnce);
                link.subscribe(now_ms, *packet_id, &[filter], out)?;
                *stage = Stage::Live(link);
                continue;
            };
            match link.handle_frame(&frame)? {
                ClientEvent::Publish { topic, publish } => {
                    if *topic == *topics.push {
                        inbox.deliver(publish.payload);
                    }
                    acknowledge(now_ms, link, publish.delivery, out)?;
                }
                ClientEvent::SubAck(suback) => {
                    let reason = suback.reasons.iter().next().unwrap_or_default();
                    if reason.is_error() {
                        return Err(End::NotSubscribed(reason));
                    }
                    *is_subscribed = true;
                    inbox.subscribed();
                }
                ClientEvent::PubAck(ack) if *publishing == Some(ack.packet_id) => {
                    *publishing = None;
                    if !inbox.acknowledged(ack.reason.is_error().then_some(ack.reason)) {
                        return Err(End::NotNow(ack.reason));
                    }
                }
                ClientEvent::Disconnect(disconnect) => {
                    return Err(End::Closed(disconnect.reason));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// How long the payload of a publish may be, if one can be sent now.
    pub(crate) fn publish_bytes_max(&self) -> Option<usize> {
        let Stage::Live(link) = &self.stage else { return None };
        if !self.is_subscribed || self.publishing.is_some() {
            return None;
        }
        let overhead = PUBLISH_OVERHEAD + self.topics.receipts.len();
        Some((link.peer_packet_bytes_max() as usize).saturating_sub(overhead))
    }

    /// Publishes what the outbox says.
    pub(crate) fn publish(
        &mut self,
        now_ms: u64,
        channel: Channel,
        payload: &[u8],
    ) -> Result<(), End> {
        let Stage::Live(link) = &mut self.stage else { return Ok(()) };
        self.packet_id = self.packet_id.next();
        let publish = Publish {
            delivery: Delivery::AtLeastOnce { packet_id: self.packet_id, dup: false },
            retain: false,
            topic: match channel {
                Channel::Receipts => &self.topics.receipts,
                Channel::Topics => &self.topics.topics,
            },
            properties: PublishProperties::default(),
            payload,
        };
        link.send(now_ms, &Packet::Publish(publish), &mut self.out)?;
        self.publishing = Some(self.packet_id);
        Ok(())
    }

    /// Says goodbye.
    pub(crate) fn disconnect(&mut self, now_ms: u64) {
        if let Stage::Live(link) = &mut self.stage {
            // A broker that takes no packet of this size is left without.
            let reason = ReasonCode::NORMAL_DISCONNECTION;
            let _ = link.disconnect(now_ms, reason, &mut self.out);
        }
    }
}
