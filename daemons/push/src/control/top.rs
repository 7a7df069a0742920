//! Who and what there is most of: what cores count while somebody looks, and for no longer.

use std::time::Duration;

use tokio::sync::oneshot;

/// How many of a kind a core keeps apart while it counts. Of all that was counted, a number is too
/// high by one part in so many at most, and who has more than that is among them.
pub const TOP_COUNTERS: usize = 512;

/// A count that begins on a core, in place of an earlier one.
#[derive(Debug)]
pub struct TopBegin {
    /// It ends by itself after this long, if nobody asks for it.
    pub longest: Duration,
}

/// What was counted since it began; it ends with that.
#[derive(Debug)]
pub struct TopEnd {
    /// How many of each kind are wanted at most.
    pub limit: usize,
    /// Answered at once; `None` if nothing was counted.
    pub reply: oneshot::Sender<Option<Topped>>,
}

/// What a core has counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topped {
    /// How long it counted.
    pub window: Duration,
    /// Clients by PUBLISH packets, both ways.
    pub messages: Vec<Heavy>,
    /// Clients by the bytes of these.
    pub bytes: Vec<Heavy>,
    /// Topics by PUBLISH packets received.
    pub topics: Vec<Heavy>,
}

/// One of those that there is most of, and how much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heavy {
    /// The client's identifier, or the topic.
    pub name: String,
    /// How much, at most.
    pub count: u64,
    /// By how much that may be too high.
    pub error: u64,
    /// What of it was surely received from it, and sent to it.
    pub ways: [u64; 2],
}
