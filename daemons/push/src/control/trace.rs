//! Traces, as operators read them: what one client is sent and sends, packet by packet, and how its
//! connections begin and end.
//!
//! A trace is a bounded channel from the client's home core to whoever reads it. What finds it full
//! is dropped and counted, and the next that fits says how many were; so no reader slows a core.

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::mpsc;

/// What a channel of a trace holds.
pub const TRACE_ENTRIES_MAX: usize = 1024;
/// Bytes of a text in a trace; what is longer is cut.
pub const TRACE_TEXT_BYTES_MAX: usize = 512;
/// Bytes of a payload in a trace; what is longer is cut.
pub const TRACE_PAYLOAD_BYTES_MAX: usize = 1024;

/// A trace that begins. It ends when nobody reads it any more.
#[derive(Debug)]
pub struct Tracing {
    /// The client, there or not.
    pub client_id: String,
    /// Whether payloads are wanted.
    pub payloads: bool,
    /// To whoever reads it.
    pub sink: mpsc::Sender<Traced>,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traced {
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// What happened before it and after the last that was told, and is lost.
    pub lost: u64,
    /// What.
    pub event: TraceEvent,
}

/// What may happen to a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum TraceEvent {
    /// The trace has begun.
    Began {
        /// Whether the client is connected.
        connected: bool,
    },
    /// It sent a packet.
    In(TracedPacket),
    /// It was sent a packet.
    Out(TracedPacket),
    /// QoS 0 messages were not sent, since it does not take what waits for it.
    Dropped {
        /// How many.
        messages: u64,
    },
    /// A connection of its ended.
    Closed {
        /// Why, as the metrics name it.
        why: &'static str,
    },
}

/// A packet, as far as a trace tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TracedPacket {
    /// Its type, as the standard writes it.
    pub packet: &'static str,
    /// Its length, without the framing of a transport.
    pub bytes: usize,
    /// The topic of a PUBLISH.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// The QoS of a PUBLISH.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qos: Option<u8>,
    /// The packet identifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u16>,
    /// It was sent before.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dup: bool,
    /// The RETAIN flag of a PUBLISH.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub retain: bool,
    /// The length of a payload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_bytes: Option<usize>,
    /// The payload, if it is wanted; not all of it where it is long.
    #[serde(skip)]
    pub payload: Option<Bytes>,
    /// The reason codes of an answer or of a DISCONNECT.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<u8>,
    /// What else there is to say, for people: filters, what a CONNECT asks for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}
