//! Draining: all clients are sent to another server, evenly over some time.

use std::sync::Arc;
use std::time::Duration;

/// Where clients go, and how fast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draining {
    /// The other server, as clients are told it: `HOST` or `HOST:PORT`.
    pub server: Arc<str>,
    /// Whether they are to use it from now on (reason 0x9D), rather than for now (0x9C).
    pub moved: bool,
    /// Over how long those that are connected are sent away.
    pub over: Duration,
}

/// How a core's draining stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drained {
    /// What was asked for.
    pub draining: Draining,
    /// Connections of clients that are still there.
    pub left: usize,
    /// Those that were sent away.
    pub sent_away: usize,
}
