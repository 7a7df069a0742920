//! One core of the store in virtual time: network and disk are simulated, on one thread and from
//! one seed; only the code under test is real. Clients are scripted, the machine crashes, and a
//! model keeps watch over what was acknowledged.
//!
//! - [`rig`]: a core with instances over one simulated machine; starting, stopping, crashing it.
//! - [`client`]: a client that writes what it is told to and reads replies.
//! - [`local`]: an engine without a core: the model, and a look at what was restored.
//! - [`history`]: what clients asked and were told, and whether it is true.
//! - [`random`]: plays with everything at once. A failure prints its seed: `SEXTANT_SEED=… cargo
//!   test -p sextant-shard --release --test it random::`; a range, `SEXTANT_SEED=0..8000`, plays
//!   them all.
//! - [`faults`]: a disk that is full, that fails, that forgets.
//! - [`manners`]: clients that are slow, large, many, or gone.

#![allow(clippy::unwrap_used)]

mod client;
mod faults;
mod history;
mod local;
mod manners;
mod random;
mod rig;
