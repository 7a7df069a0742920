//! The store daemon: Redis' protocol over segment files, durable by default, each database instance
//! on one core.
//!
//! - [`config`]: settings.

pub mod config;
