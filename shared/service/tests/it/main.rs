//! The crate's public surface as a daemon uses it: processes, sockets and files are real.
//!
//! - `http`: the admin server against clients that behave and clients that do not. Time is
//!   tokio's paused clock, which jumps to the next timer when nothing can run.
//! - `child`: whole processes. The test binary starts itself again in a role.

#![allow(clippy::unwrap_used)]

mod child;
mod http;
