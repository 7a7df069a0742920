//! What one core of the store daemon does: instances with their logs, and the connections of their
//! clients.
//!
//! - `shard`: the core's [`App`](sextant_ring::core::App).
//! - `keeper`: an instance's log: group commit, restoring, compaction.
//! - `connection`: what is known of a connection.

mod connection;
mod keeper;
mod shard;

pub use keeper::{Keeper, PART_BYTES, RestoreError, Restored};
pub use shard::{Command, Instance, Message, Shard};
