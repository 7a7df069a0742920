//! The push platform: who is sent what, what became of it, and why.
//!
//! ```text
//!   API ──► Handle ──► ledger thread: Engine ──orders──► cores of the broker
//!                         │     ▲                            │
//!                   log, audit  └───────── told ◄────────────┘
//! ```
//!
//! - [`Engine`]: all of it as one state machine over two logs; [`ledger`] gives it a thread.
//! - [`model`]: what senders ask for; [`strict`]: how it is read. [`Refusal`]: why it is not done.
//! - [`copies`]: how far a message has come on each of its devices.
//! - [`told`]: what passes between the platform and the broker's cores.
//! - [`id`]: the names of messages.
//!
//! The devices are those of `sextant-devices`, the rules those of `sextant-policy`, and what
//! happened is told to `sextant-audit`.

pub mod copies;
pub mod engine;
pub mod id;
pub mod ledger;
pub mod model;
mod options;
mod records;
mod refusal;
pub mod strict;
pub mod time;
pub mod told;

pub use engine::{Engine, OpenError, Opened};
pub use options::Options;
pub use refusal::Refusal;
