//! What end-to-end tests of the daemons share: daemons in folders of their own, their HTTP API,
//! real MQTT clients, and a raw one that can misbehave.
//!
//! ```text
//!   Daemon ── a process of target/release, ports and data of its own, ended with the test
//!     ├─ Api      its HTTP: messages, receipts, tokens, metrics
//!     ├─ Sub, publish     mosquitto's clients
//!     ├─ Script   tests/clients/*.py, on paho
//!     ├─ Authority  certificates, in files
//!     ├─ Web      frames of WebSocket, right or wrong
//!     └─ Mqtt     a socket and the codec of sextant-mqtt: any packet, any bytes
//! ```
//!
//! Everything here panics when something is not as a test needs it, at the line of the test that
//! asked. Nothing sleeps for a fixed time: [`until`] polls, with a deadline.
//!
//! The tests use loopback alone, each process and each daemon an address of its own in 127/8, so
//! that any number of them run beside each other and beside a daemon on the usual ports.

mod api;
mod certs;
mod daemon;
mod http;
mod mqtt;
mod tools;
mod wait;
mod web;

pub use api::{Answer, Api};
pub use certs::Authority;
pub use daemon::{Daemon, Kind, Options, binary, free_addr};
pub use http::{Asked, HttpServer, Reply};
pub use mqtt::{Message, Mqtt, Received};
pub use tools::{
    Lines, Message as Line, Script, Sub, command, publish, python, schemathesis, try_publish,
};
pub use wait::{DEADLINE, until, until_for};
pub use web::{BINARY, Web};
