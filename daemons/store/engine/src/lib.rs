//! One store instance without I/O: what its clients say, what is done, and what they are answered.
//!
//! - [`engine`](Engine): the way of a command.
//! - `command`, `commands`: the table of commands, and what each does, a module a family.
//! - `info`: the table, told to others.
//! - `call`: what a command's handler works with. `fault`: why it did not.
//! - `client`, `output`, `blocking`, `notify`: connections, what is sent to them, those that wait,
//!   and news of keys.
//! - `admission`: what a client may. `pubsub`, `tracking`: what it is told unasked.
//! - `geohash`: places as numbers.
//! - `acl`: users. `settings`: CONFIG's. `stats`: what is counted and timed. `eviction`: keys that
//!   go when memory is short.
//! - `words`: numbers, ranges and patterns as Redis reads them.
//!
//! Values are in `sextant-keyspace`, the protocol is in `sextant-resp`.

mod acl;
mod admission;
mod blocking;
mod call;
mod client;
mod command;
mod commands;
mod engine;
mod eviction;
mod fault;
mod geohash;
mod info;
#[cfg(test)]
mod measure;
mod notify;
mod output;
mod pubsub;
mod settings;
mod stats;
mod tracking;
mod words;

pub use client::{ClientId, Peer};
pub use engine::{Counts, Engine, Executed, Next, Options, Room};
pub use info::CommandInfo;
pub use output::Output;
