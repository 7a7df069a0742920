//! Redis' protocol, RESP2 and RESP3, without I/O: requests and replies, for both ends.
//!
//! Bytes go in and bytes come out; no socket is touched here. To read a request copies none of
//! its bytes and, once a connection has seen a command as long, allocates nothing. No input of a
//! peer can make this crate panic, read a byte more than a few times, or allocate more than a
//! small multiple of what has arrived.
//!
//! ```text
//!             the server's end                                   the client's end
//!
//!  unread bytes ──► RequestParser ──► Args<'_>  ◄──── bytes ◄──── encode_command
//!                        │             │  words of a command, where they were received
//!                        │             ▼
//!                        │            OwnedArgs  kept after the buffer is gone
//!                        ▼
//!                  ProtocolError
//!                        │
//!                        ▼
//!   socket bytes ◄──── Reply  ◄───── the daemon
//!                 (appends, for the
//!                  version spoken)  ─────────── bytes ──────────► ReplyParser ──► Value
//!                                                                 skip ──► where a reply ends
//! ```
//!
//! What is accepted, what it means and what is answered is as in Redis 7.2, its leniency
//! included: where this and the protocol's description differ, clients have grown used to the
//! server.
//!
//! Every length is in bytes.

mod ahead;
mod args;
mod client;
mod double;
mod error;
mod inline;
mod number;
mod reply;
mod request;
mod value;

pub use ahead::key_ahead;
pub use args::{Args, OwnedArgs};
pub use client::{ReplyLimits, ReplyParser, encode_command, skip};
pub use double::{DOUBLE_BYTES_MAX, DoubleBuf};
pub use error::{ProtocolError, ReplyError};
pub use reply::{Deferred, Reply};
pub use request::{
    ARGS_MAX, BULK_BYTES_MAX, INLINE_BYTES_MAX, Limits, Parsed, REQUEST_BYTES_MAX, RequestParser,
    UNAUTHENTICATED_ARGS_MAX, UNAUTHENTICATED_BULK_BYTES_MAX,
};
pub use value::Value;
