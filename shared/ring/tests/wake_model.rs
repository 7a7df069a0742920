//! The wake protocol of the mesh under loom: `src/sleeper.rs`, the very file, with loom's atomics
//! in place of the processor's. Every interleaving of producers and consumer is tried, and every
//! value that a load may legally see. A wake that is lost leaves the consumer asleep with nobody
//! left to wake it, which loom reports as a deadlock.
//!
//! `rtrb` knows nothing of loom; a bounded queue with its orderings stands in. The event stands for
//! an eventfd: it stays set until the consumer has seen it.
//!
//! That the model can fail at all is tested too: without the producer's fence, and without the
//! consumer's, a wake is lost.

#![allow(clippy::unwrap_used)]

#[path = "../src/sleeper.rs"]
mod sleeper;

/// In place of the crate's module of that name.
mod sync {
    pub(crate) use loom::sync::atomic::{AtomicBool, Ordering};

    loom::thread_local! {
        /// Whether the thread goes without fences.
        pub(crate) static UNFENCED: std::cell::Cell<bool> = std::cell::Cell::new(false);
    }

    pub(crate) fn fence(order: Ordering) {
        if !UNFENCED.with(std::cell::Cell::get) {
            loom::sync::atomic::fence(order);
        }
    }
}

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use self::sleeper::Sleeper;

/// A queue of one producer and one consumer, as far as its counters go: the messages are their
/// numbers. The tail is released by a push and acquired by a look, as in `rtrb`.
struct Queue {
    tail: AtomicUsize,
    head: AtomicUsize,
    capacity: usize,
}

impl Queue {
    fn new(capacity: usize) -> Queue {
        Queue { tail: AtomicUsize::new(0), head: AtomicUsize::new(0), capacity }
    }

    fn push(&self) -> bool {
        let tail = self.tail.load(Ordering::Relaxed);
        if tail - self.head.load(Ordering::Acquire) == self.capacity {
            return false;
        }
        self.tail.store(tail + 1, Ordering::Release);
        true
    }

    fn is_empty(&self) -> bool {
        self.head.load(Ordering::Relaxed) == self.tail.load(Ordering::Acquire)
    }

    fn pop(&self) -> bool {
        if self.is_empty() {
            return false;
        }
        let head = self.head.load(Ordering::Relaxed);
        self.head.store(head + 1, Ordering::Release);
        true
    }
}

/// An eventfd and whoever waits for it.
struct Event {
    set: Mutex<bool>,
    changed: Condvar,
}

impl Event {
    fn new() -> Event {
        Event { set: Mutex::new(false), changed: Condvar::new() }
    }

    fn notify(&self) {
        *self.set.lock().unwrap() = true;
        self.changed.notify_one();
    }

    fn wait(&self) {
        let mut set = self.set.lock().unwrap();
        while !*set {
            set = self.changed.wait(set).unwrap();
        }
        *set = false;
    }
}

struct World {
    sleeper: Sleeper,
    event: Event,
    queues: Vec<Queue>,
}

impl World {
    fn new(producers: usize, capacity: usize) -> Arc<World> {
        let queues = (0..producers).map(|_| Queue::new(capacity)).collect();
        Arc::new(World { sleeper: Sleeper::new(), event: Event::new(), queues })
    }

    /// `Port::flush`: pushes what there is room for, then wakes; what is left waits for a later
    /// turn.
    fn produce(&self, queue: usize, messages: usize) {
        let mut left = messages;
        while left > 0 {
            let before = left;
            while left > 0 && self.queues[queue].push() {
                left -= 1;
            }
            if left < before && self.sleeper.rouse() {
                self.event.notify();
            }
            if left > 0 {
                thread::yield_now();
            }
        }
    }

    /// `Core::turn`: takes messages until all have come, and sleeps in between.
    fn consume(&self, messages: usize) {
        let mut taken = 0;
        loop {
            for queue in &self.queues {
                while queue.pop() {
                    taken += 1;
                }
            }
            if taken == messages {
                return;
            }
            self.sleeper.announce_sleep();
            if self.queues.iter().all(Queue::is_empty) {
                self.event.wait();
            }
            self.sleeper.announce_awake();
        }
    }
}

/// Who goes without fences.
#[derive(Clone, Copy, PartialEq)]
enum Unfenced {
    Nobody,
    Producers,
    Consumer,
}

fn check(producers: usize, messages: usize, capacity: usize, unfenced: Unfenced) {
    let mut model = loom::model::Builder::new();
    // Enough to lose a wake (see below); without a bound two producers take hours.
    model.preemption_bound = Some(3);
    model.check(move || {
        let world = World::new(producers, capacity);
        let threads: Vec<_> = (0..producers)
            .map(|queue| {
                let world = Arc::clone(&world);
                thread::spawn(move || {
                    sync::UNFENCED.with(|it| it.set(unfenced == Unfenced::Producers));
                    world.produce(queue, messages);
                })
            })
            .collect();
        sync::UNFENCED.with(|it| it.set(unfenced == Unfenced::Consumer));
        world.consume(producers * messages);
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn no_wake_is_lost_of_one_producer() {
    check(1, 2, 2, Unfenced::Nobody);
}

#[test]
fn no_wake_is_lost_of_two_producers() {
    check(2, 1, 1, Unfenced::Nobody);
}

#[test]
fn no_wake_is_lost_of_messages_that_found_the_queue_full() {
    check(1, 3, 1, Unfenced::Nobody);
}

#[test]
#[should_panic = "deadlock"]
fn without_the_producers_fence_a_wake_is_lost() {
    check(1, 1, 1, Unfenced::Producers);
}

#[test]
#[should_panic = "deadlock"]
fn without_the_consumers_fence_a_wake_is_lost() {
    check(1, 1, 1, Unfenced::Consumer);
}
