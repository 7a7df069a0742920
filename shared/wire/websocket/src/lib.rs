//! The server's end of WebSocket (RFC 6455) without I/O, for protocols that are a stream of bytes
//! inside binary messages, as MQTT is: where a frame or a message ends means nothing to them.
//!
//! ```text
//!  socket bytes ──► upgrade ──► answer, and from here on frames
//!  socket bytes ──► Receiver ──► payload, unmasked        (and pongs, to be sent)
//!  payload ──► Head::of(len) + payload ──► socket         (one binary message each)
//! ```
//!
//! Payload is handed on as it arrives, so a frame may be as long as its client likes and takes no
//! memory here. What is kept is bounded: a request of [`REQUEST_BYTES_MAX`] by the caller, a head
//! of 14 bytes and a control frame of 125 by [`Receiver`]. No input of a peer can make this crate
//! panic. Extensions (compression) are not offered.

mod frame;
mod upgrade;

pub use frame::{Close, Fault, Head, NORMAL_CLOSURE, Receiver, close};
pub use upgrade::{Policy, REQUEST_BYTES_MAX, Refusal, Upgrade, upgrade};
