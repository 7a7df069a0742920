//! What one core of the store daemon does: instances with their logs, and the connections of their
//! clients.
//!
//! - `shard`: the core's [`App`](sextant_ring::core::App).
//! - `keeper`: an instance's log: group commit, restoring, compaction.
//! - `image`: what spares the next start the log, after an orderly end.
//! - `connection`: what is known of a connection.

mod connection;
mod image;
mod keeper;
mod shard;

pub use keeper::{Keeper, PART_BYTES, RestoreError, Restored};
pub use shard::{Act, Command, Instance, Message, Shard};
