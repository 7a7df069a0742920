//! MQTT 3.1.1 and 5.0 without I/O: the codec, and the state of a connection and a session.
//!
//! Bytes and time go in, bytes and deadlines come out; no socket and no clock is touched here.
//! Nothing is allocated to decode a packet or to handle and encode a QoS 0 publish. No input of
//! a peer can make this crate panic.
//!
//! ```text
//!  socket bytes ──► Inbound ──► Frame ──► Packet<'_> ──► Link ──► Event<'_> ──► the daemon
//!                  (whole       (header   (borrowed,     (rules of one               │
//!                   frames)      + body)   validated)     network connection)        ▼
//!  socket bytes ◄───────────── Vec<u8> ◄── Link::send, publish_head ◄──────────── Session<M>
//!                                                        (what outlives a connection: packet
//!                                                         ids, in-flight messages)
//! ```
//!
//! * [`frame`] and [`Packet`] are the codec, [`PublishHead`] the encoder of a fan-out.
//! * [`topic`] knows names, filters and how they match.
//! * [`Inbound`] cuts a byte stream into frames.
//! * [`AwaitingConnect`] → [`Connecting`] → [`Link`] is the server's end of one connection,
//!   [`ClientHandshake`] → [`ClientLink`] the client's.
//! * [`Session`] is what either end keeps when the connection is gone.
//!
//! Rules are named by their tags in the MQTT 5.0 standard, `[MQTT-3.1.2-24]`; those of the 3.1.1
//! standard, which numbers differently, as `[3.1.1: MQTT-3.1.2-22]`. Time is a monotonic count
//! of milliseconds, named `now_ms`; every length is in bytes.

mod alias;
mod client;
mod decode;
mod encode;
mod error;
mod handshake;
mod inbound;
mod link;
mod packet;
mod property;
mod reason;
mod session;
pub mod topic;
mod wire;

pub use alias::{OutboundAlias, Topic};
pub use client::{ClientEvent, ClientHandshake, ClientLink, ClientStep};
pub use decode::{Frame, frame, frame_needs};
pub use encode::PublishHead;
pub use error::{DecodeError, EncodeError, Fault};
pub use handshake::{
    AcceptOptions, AwaitingConnect, ConnectRefused, Connecting, ConnectingEvent, ServerLimits,
};
pub use inbound::Inbound;
pub use link::{Event, Link};
pub use packet::{
    Ack, Auth, ConnAck, Connect, Delivery, Disconnect, Filters, Packet, PacketId, PacketType,
    Publish, QoS, ReasonCodes, RetainHandling, Secret, SubAck, Subscribe, Subscription,
    Subscriptions, UnsubAck, Unsubscribe, Version, Will,
};
pub use property::{
    AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties,
    ForwardProperties, PayloadFormat, PublishProperties, SubscribeProperties, SubscriptionId,
    SubscriptionIds, UnsubscribeProperties, UserProperties, WillProperties,
};
pub use reason::ReasonCode;
pub use session::{
    INFLIGHT_MAX, Inflight, Puback, Pubcomp, Pubrec, RESERVED_MAX, Received, Released, Session,
    SessionLimits,
};

/// The largest value of a variable byte integer, and so of a packet's remaining length, bytes.
pub const REMAINING_LEN_MAX: u32 = 268_435_455;
