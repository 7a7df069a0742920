//! One thread per core, each with its own ring: the loop that every daemon stands on.
//!
//! ```text
//!            App: a daemon's own logic, per core
//!             │ callbacks                ▲
//!             ▼ Cx: send, arm, hand over │
//!   ┌──────────────── Core ──────────────────┐   Port   ┌─ other cores ─┐
//!   │ connections · timers · files · turn()  │◄────────►│               │
//!   └───────────────────┬────────────────────┘          └───────────────┘
//!                 Driver │ operations, completions
//!          ┌────────────┼───────────────┐
//!        Uring        Epoll             Sim
//!      (io_uring)  (without it)  (a seed, virtual time)
//! ```
//!
//! - [`core`]: connections, timers, files and the turn that drives them.
//! - [`driver`]: the seam; [`uring`], [`epoll`] and [`sim`] stand behind it.
//! - [`mesh`]: queues between cores.
//! - [`disk`], [`buf`]: files at start-up, and memory for files.
//! - [`memory`]: what the allocator keeps though it is free.
//! - [`wheel`], [`slot`], [`table`], [`time`], [`caps`]: the parts.

pub mod buf;
pub mod caps;
pub mod core;
pub mod disk;
pub mod driver;
pub mod epoll;
pub mod memory;
pub mod mesh;
mod outbox;
pub mod sim;
mod sleeper;
pub mod slot;
mod sync;
pub mod table;
pub mod time;
pub mod uring;
pub mod wheel;
