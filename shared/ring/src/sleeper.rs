//! When a producer has to wake a consumer: the half of the mesh's wake protocol that is made of
//! atomics. A queue costs a few nanoseconds, a wake a system call; so a consumer says when it goes
//! to sleep, and a producer wakes it only then.
//!
//! ```text
//!   producer                      consumer
//!   push                          asleep = true
//!   fence                         fence
//!   asleep? ── yes ── notify      queues empty? ── no ── asleep = false, go on
//!           └─ no ── done                       └─ yes ─ sleep until notified
//! ```
//!
//! Both fences are sequentially consistent: at least one side sees what the other wrote, so no
//! message is left behind with its consumer asleep. `tests/wake_model.rs` compiles this file with
//! loom's atomics and tries every interleaving, with and without each fence.
//!
//! How a consumer sleeps, and how it is notified, is its driver's affair. A notification has to
//! stay for a consumer that is only about to sleep, as an eventfd's does.

use crate::sync::{AtomicBool, Ordering, fence};

#[derive(Debug)]
pub(crate) struct Sleeper {
    asleep: AtomicBool,
}

impl Sleeper {
    /// Of a consumer that is awake.
    pub(crate) fn new() -> Sleeper {
        Sleeper { asleep: AtomicBool::new(false) }
    }

    /// For a producer that has pushed: whether it has to notify the consumer. Of several that ask
    /// at once one is told so.
    pub(crate) fn rouse(&self) -> bool {
        fence(Ordering::SeqCst);
        let (yes, no) = (true, false);
        // One who comes too late writes nothing over what the consumer has said since.
        self.asleep.load(Ordering::Relaxed)
            && self.asleep.compare_exchange(yes, no, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// The consumer is about to sleep. It must look at its queues once more before it does.
    pub(crate) fn announce_sleep(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The consumer looks at its queues again.
    pub(crate) fn announce_awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }
}
