//! The store daemon: Redis' protocol over segment files, durable by default, each database instance
//! on one core.
//!
//! - [`config`] has the settings.
//! - [`daemon`] is everything put together, from start to stop.
//! - [`instances`] makes an instance of its settings and its log.
//! - [`meters`] is what `/metrics` tells.
//!
//! What a core does is in `sextant-shard`, what a command does in `sextant-engine`, how values lie
//! in memory and in the log in `sextant-keyspace`.

pub mod config;
pub mod daemon;
pub mod instances;
pub mod meters;
