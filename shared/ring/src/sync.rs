//! The atomics of the wake protocol, in one place, so that its model in `tests/wake_model.rs` can
//! put loom's in theirs.

pub(crate) use std::sync::atomic::{AtomicBool, Ordering, fence};
