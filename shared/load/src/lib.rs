//! The load generator: many client connections on one ring, an open loop, and what the server's
//! process used meanwhile.
//!
//! ```text
//!   Schedule ── intended times ──► Fleet ── Session::begin ──► bytes ──► server
//!                                    ▲                                     │
//!   Recorder ◄── intended, now ── Session::handle_input ◄── bytes ◄────────┘
//!   ProcessCpu, read when the measured window opens and when it closes
//! ```
//!
//! - [`schedule`]: when operations shall start, whatever became of those before.
//! - [`recorder`]: latencies from the intended start, so that nothing is omitted when the server
//!   or the generator itself is late.
//! - [`cpu`]: the CPU time of another process, exact to the nanosecond, and pinning.
//! - [`fleet`]: the connections. A protocol plugs in as a sans-IO [`Session`](fleet::Session).

pub mod cpu;
pub mod fleet;
pub mod recorder;
pub mod schedule;

pub use cpu::{CpuError, ProcessCpu, pin};
pub use fleet::{Connections, Fleet, Load, LoadError, Outcome, Pace, Session};
pub use recorder::{Recorder, Summary};
pub use schedule::{Schedule, Steady};
