//! What a daemon's main thread does with its cores. It joins `sextant-ring`, which knows no
//! daemon, and a daemon's settings, which know no ring.
//!
//! - [`driver`]: what the cores ask the kernel through, chosen once.
//! - [`layout`]: how many there are, which is the data's from its first start on.
//! - [`threads`]: starting them, and seeing that none ends by itself.
//! - [`outside`]: messages to them from threads that are no cores.
//!
//! ```text
//!   layout ──► how many ─┐
//!   driver ──► of a kind ┴─► threads ──► core 0 … core n ◄── outside ── control plane, helpers
//! ```

pub mod driver;
pub mod layout;
pub mod outside;
pub mod threads;
