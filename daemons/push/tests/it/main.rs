//! The whole broker in virtual time: cores, network and disk are simulated, on one thread and
//! from one seed; only the code under test is real. Clients and senders are scripted, the machine
//! crashes, and a model keeps watch over what was promised.
//!
//! - [`rig`]: cores over one simulated machine; starting, stopping, crashing them.
//! - [`client`]: an MQTT client that keeps all rules and forgets nothing.
//! - [`model`]: what was promised to whom, and whether it was kept.
//! - [`play`]: clients, senders and the machine together, and the way to a quiet end.
//! - [`random`]: plays with everything at once. A failure prints its seed:
//!   `SEXTANT_SEED=… cargo test -p sextant-push --release --test it random::`. A range, such as
//!   `SEXTANT_SEED=0..8000`, plays them all, `SEXTANT_SIM_TELL=1` tells what happens, and
//!   `cargo xtask sim` plays seeds that nobody has played.
//! - [`cuts`]: exchanges of QoS 2, cut behind every byte.
//! - [`devices`]: random plays with a sender platform.
//! - [`drains`]: clients sent to another server.
//! - [`groups`]: members of groups that leave for good.
//! - [`limits`]: how fast clients may come and publish.
//! - [`scenes`]: plays with one turn of events each.
//! - [`pace`]: such plays of clients that do not keep up.
//! - [`platform`]: devices, and a sender platform that is told of them.
//! - [`traces`]: clients traced packet by packet.
//! - [`wills`]: clients that are lost together with the daemon.

#![allow(clippy::unwrap_used)]

mod client;
mod cuts;
mod devices;
mod drains;
mod groups;
mod limits;
mod many;
mod model;
mod pace;
mod platform;
mod play;
mod promises;
mod random;
mod rig;
mod scenes;
mod traces;
mod wills;
