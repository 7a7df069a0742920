//! The crate from outside: what it writes and reads against itself and against two codecs of
//! other people, its session against a model, and both ends of a connection against each other.

#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing fails, as it should")]

mod allocations;
mod differential;
mod oracle;
mod packets;
mod pairing;
mod round_trip;
