//! The mesh: bounded queues between each pair of cores. A core that is asleep is woken by whoever
//! sends it something, one that is awake is not: the protocol is in `sleeper.rs`.
//!
//! A message that finds its queue full waits on the sender's side ([`Port::backlog`] tells how
//! many do), is tried again every turn, and keeps its place in the order. Whoever feeds a mesh
//! from outside stops while there is a backlog.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rtrb::{Consumer, Producer, RingBuffer};
use rustix::event::{EventfdFlags, eventfd};

use crate::sleeper::Sleeper;

/// What other threads know of a core: how to wake it, and where its ring is.
#[derive(Clone, Debug)]
pub struct Remote(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    sleeper: Sleeper,
    notified: AtomicBool,
    /// How often it was notified.
    wakes: AtomicU64,
    /// `None` in a simulation, which looks at `notified` instead.
    event: Option<OwnedFd>,
    /// The rings' descriptors, -1 where there is none; in a simulation the core's number comes
    /// first.
    rings: [AtomicI32; RINGS_MAX],
    /// Entries of each ring's descriptor table that nobody has taken or been promised. The core
    /// takes from them for its own connections, others for those that they hand over.
    rooms: [AtomicU32; RINGS_MAX],
    /// Descriptors that other cores gave to this one and that it has not used yet; `None` unless
    /// its driver takes them this way.
    handed: Mutex<Option<VecDeque<OwnedFd>>>,
}

/// The most rings that a core can have.
pub(crate) const RINGS_MAX: usize = 64;

impl Remote {
    /// For a core that sleeps in the kernel.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn host() -> io::Result<Remote> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Remote::new(Some(event)))
    }

    /// For a simulated core.
    pub fn sim() -> Remote {
        Remote::new(None)
    }

    fn new(event: Option<OwnedFd>) -> Remote {
        Remote(Arc::new(Inner {
            sleeper: Sleeper::new(),
            notified: AtomicBool::new(false),
            wakes: AtomicU64::new(0),
            event,
            rings: [const { AtomicI32::new(-1) }; RINGS_MAX],
            rooms: [const { AtomicU32::new(0) }; RINGS_MAX],
            handed: Mutex::new(None),
        }))
    }

    /// Wakes the core if it sleeps, and tells whether it did. Call it after whatever it shall find
    /// was put in its place.
    pub fn wake(&self) -> bool {
        let sleeps = self.0.sleeper.rouse();
        if sleeps {
            self.notify();
        }
        sleeps
    }

    /// Wakes the core whether it said that it sleeps or not.
    pub fn notify(&self) {
        self.0.wakes.fetch_add(1, Ordering::Relaxed);
        self.0.notified.store(true, Ordering::Release);
        if let Some(event) = &self.0.event {
            // A full counter (EAGAIN) means that a wake is pending already.
            let _ = rustix::io::write(event, &1u64.to_ne_bytes());
        }
    }

    /// Announces that the core is about to sleep. It must look at its queues once more before
    /// it does.
    pub(crate) fn announce_sleep(&self) {
        self.0.sleeper.announce_sleep();
    }

    pub(crate) fn announce_awake(&self) {
        self.0.sleeper.announce_awake();
    }

    /// How often the core was woken.
    pub(crate) fn wakes(&self) -> u64 {
        self.0.wakes.load(Ordering::Relaxed)
    }

    /// Takes note of a wake: the next one notifies again.
    pub(crate) fn acknowledge(&self) -> bool {
        self.0.notified.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn event(&self) -> Option<BorrowedFd<'_>> {
        self.0.event.as_ref().map(AsFd::as_fd)
    }

    pub(crate) fn set_ring(&self, ring: RawFd) {
        self.set_rings([(ring, 0)].into_iter());
    }

    /// Makes the core's rings known, with the room in their tables, or, without any, that it has
    /// none any more.
    pub(crate) fn set_rings(&self, mut rings: impl Iterator<Item = (RawFd, u32)>) {
        for (ring, room) in self.0.rings.iter().zip(&self.0.rooms) {
            let (fd, free) = rings.next().unwrap_or((-1, 0));
            room.store(free, Ordering::Relaxed);
            ring.store(fd, Ordering::Release);
        }
        assert!(rings.next().is_none(), "a core has at most {RINGS_MAX} rings");
    }

    /// The core's first ring, once it has one.
    pub(crate) fn ring(&self) -> Option<RawFd> {
        self.ring_at(0)
    }

    /// One of the core's rings.
    pub(crate) fn ring_at(&self, number: usize) -> Option<RawFd> {
        Some(self.0.rings.get(number)?.load(Ordering::Acquire)).filter(|&fd| fd >= 0)
    }

    /// Takes an entry of the table of the first ring that has room, and tells which; it is for
    /// one connection. [`Remote::give_room`] gives it back.
    pub(crate) fn take_room(&self) -> Option<usize> {
        let less = |room: u32| room.checked_sub(1);
        let mut rooms = self.0.rooms.iter();
        rooms.position(|room| room.fetch_update(Ordering::AcqRel, Ordering::Relaxed, less).is_ok())
    }

    /// Gives an entry of a ring's table back, once nothing is in it any more.
    pub(crate) fn give_room(&self, ring: usize) {
        self.0.rooms[ring].fetch_add(1, Ordering::AcqRel);
    }

    /// Entries that are free in all tables.
    pub(crate) fn room(&self) -> u32 {
        self.0.rooms.iter().map(|room| room.load(Ordering::Relaxed)).sum()
    }

    fn handed(&self) -> MutexGuard<'_, Option<VecDeque<OwnedFd>>> {
        self.0.handed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the core takes descriptors of the process.
    pub(crate) fn open_to_descriptors(&self) {
        self.handed().get_or_insert_default();
    }

    /// The core takes no descriptors any more; those that it has not used are closed.
    pub(crate) fn close_to_descriptors(&self) {
        let left = self.handed().take();
        drop(left);
    }

    /// Gives the core a descriptor, or gives it back if the core takes none. There is no bound
    /// but that of the process on its descriptors.
    pub(crate) fn hand(&self, fd: OwnedFd) -> Result<(), OwnedFd> {
        match &mut *self.handed() {
            Some(handed) => {
                handed.push_back(fd);
                Ok(())
            }
            None => Err(fd),
        }
    }

    /// Takes the descriptor of that number out, if it was handed to this core. They are asked for
    /// in about the order in which they came.
    pub(crate) fn take_handed(&self, number: RawFd) -> Option<OwnedFd> {
        let mut handed = self.handed();
        let handed = handed.as_mut()?;
        let at = handed.iter().position(|fd| fd.as_raw_fd() == number)?;
        handed.remove(at)
    }
}

struct Outlet<M> {
    queue: Producer<M>,
    waiting: VecDeque<M>,
    remote: Remote,
    pushed: bool,
}

/// One core's end of the mesh, or that of a thread which only sends.
pub struct Port<M> {
    me: usize,
    outlets: Vec<Option<Outlet<M>>>,
    inlets: Vec<Consumer<M>>,
    /// Messages to the core itself.
    own: VecDeque<M>,
    /// Where draining goes on, so that no inlet starves the others.
    next: usize,
    /// Cores that were woken.
    wakes: u64,
}

/// Connects cores, each given by its remote, and `outsiders` further threads that only send,
/// with queues of `capacity` messages. Returns the cores' ports, then the outsiders'.
pub fn mesh<M>(remotes: &[Remote], outsiders: usize, capacity: usize) -> Vec<Port<M>> {
    assert!(!remotes.is_empty(), "a mesh has cores");
    assert!(capacity > 0, "a queue holds something");
    let mut ports: Vec<Port<M>> = (0..remotes.len() + outsiders)
        .map(|me| Port {
            me,
            outlets: Vec::new(),
            inlets: Vec::new(),
            own: VecDeque::new(),
            next: 0,
            wakes: 0,
        })
        .collect();
    for from in 0..ports.len() {
        for (to, remote) in remotes.iter().enumerate() {
            if from == to {
                ports[from].outlets.push(None);
                continue;
            }
            let (queue, inlet) = RingBuffer::new(capacity);
            ports[to].inlets.push(inlet);
            ports[from].outlets.push(Some(Outlet {
                queue,
                waiting: VecDeque::new(),
                remote: remote.clone(),
                pushed: false,
            }));
        }
    }
    ports
}

impl<M> Port<M> {
    /// This port's own number; a core's messages to it come back to itself.
    pub fn me(&self) -> usize {
        self.me
    }

    /// The number of cores.
    pub fn cores(&self) -> usize {
        self.outlets.len()
    }

    /// The remote of another core.
    pub fn remote(&self, core: usize) -> Option<&Remote> {
        self.outlets[core].as_ref().map(|outlet| &outlet.remote)
    }

    /// Sends a message to a core. It is seen there after [`Port::flush`].
    pub fn send(&mut self, to: usize, message: M) {
        let Some(outlet) = &mut self.outlets[to] else {
            self.own.push_back(message);
            return;
        };
        outlet.pushed = true;
        if outlet.waiting.is_empty() {
            if let Err(rtrb::PushError::Full(message)) = outlet.queue.push(message) {
                outlet.waiting.push_back(message);
            }
        } else {
            outlet.waiting.push_back(message);
        }
    }

    /// Whether a message to a core would find its queue full.
    pub fn is_full(&self, to: usize) -> bool {
        self.outlets[to]
            .as_ref()
            .is_some_and(|outlet| !outlet.waiting.is_empty() || outlet.queue.is_full())
    }

    /// Times that [`Port::flush`] found a core asleep and woke it.
    pub fn wakes(&self) -> u64 {
        self.wakes
    }

    /// Messages that found their queue full and wait here.
    pub fn backlog(&self) -> usize {
        self.outlets.iter().flatten().map(|outlet| outlet.waiting.len()).sum()
    }

    /// Moves what waits into the queues as far as there is room, and wakes the cores that were
    /// sent something.
    pub fn flush(&mut self) {
        for outlet in self.outlets.iter_mut().flatten() {
            if outlet.queue.is_abandoned() {
                // The core has ended: nobody will read what waits for it.
                outlet.waiting.clear();
            }
            while let Some(message) = outlet.waiting.pop_front() {
                if let Err(rtrb::PushError::Full(message)) = outlet.queue.push(message) {
                    outlet.waiting.push_front(message);
                    break;
                }
                outlet.pushed = true;
            }
            if std::mem::take(&mut outlet.pushed) {
                self.wakes += u64::from(outlet.remote.wake());
            }
        }
    }

    /// The next message that has arrived.
    pub fn receive(&mut self) -> Option<M> {
        if let Some(message) = self.own.pop_front() {
            return Some(message);
        }
        let inlets = self.inlets.len();
        for _ in 0..inlets {
            let inlet = &mut self.inlets[self.next];
            self.next = (self.next + 1) % inlets;
            if let Ok(message) = inlet.pop() {
                return Some(message);
            }
        }
        None
    }

    /// Messages that have arrived.
    pub fn arrived(&self) -> usize {
        self.own.len() + self.inlets.iter().map(Consumer::slots).sum::<usize>()
    }

    /// Whether nothing has arrived.
    pub fn is_empty(&self) -> bool {
        self.own.is_empty() && self.inlets.iter().all(Consumer::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_keep_their_order_past_a_full_queue() {
        let remotes = [Remote::sim(), Remote::sim()];
        let mut ports = mesh::<u32>(&remotes, 0, 4);
        let mut receiver = ports.pop().unwrap();
        let mut sender = ports.pop().unwrap();
        for n in 0..10 {
            sender.send(1, n);
        }
        assert_eq!(sender.backlog(), 6);
        let mut got = Vec::new();
        for _ in 0..4 {
            sender.flush();
            while let Some(n) = receiver.receive() {
                got.push(n);
            }
        }
        assert_eq!(got, (0..10).collect::<Vec<_>>());
        assert_eq!(sender.backlog(), 0);
    }

    #[test]
    fn only_a_core_that_said_it_sleeps_is_notified() {
        let remotes = [Remote::sim(), Remote::sim()];
        let mut ports = mesh::<u32>(&remotes, 1, 4);
        assert_eq!(ports.len(), 3);
        let mut outsider = ports.pop().unwrap();
        outsider.send(0, 1);
        outsider.flush();
        assert!(!remotes[0].acknowledge());
        remotes[0].announce_sleep();
        outsider.send(0, 2);
        outsider.flush();
        assert!(remotes[0].acknowledge());
        assert!(!remotes[1].acknowledge());
        assert_eq!(
            (ports[0].receive(), ports[0].receive(), ports[0].receive()),
            (Some(1), Some(2), None)
        );
    }

    #[test]
    fn a_message_to_oneself_comes_back() {
        let remotes = [Remote::sim()];
        let mut port = mesh::<u32>(&remotes, 0, 1).pop().unwrap();
        port.send(0, 7);
        assert!(!port.is_empty());
        assert_eq!(port.receive(), Some(7));
    }

    #[test]
    fn every_message_arrives_with_both_sides_on_threads_of_their_own() {
        let remotes = [Remote::host().unwrap(), Remote::host().unwrap()];
        let mut ports = mesh::<u64>(&remotes, 0, 16);
        let mut receiver = ports.pop().unwrap();
        let mut sender = ports.pop().unwrap();
        const MESSAGES: u64 = 100_000;
        let remote = remotes[1].clone();
        let consumer = std::thread::spawn(move || {
            let mut expected = 0;
            while expected < MESSAGES {
                while let Some(n) = receiver.receive() {
                    assert_eq!(n, expected);
                    expected += 1;
                }
                remote.announce_sleep();
                if receiver.is_empty() && expected < MESSAGES {
                    let event = remote.event().unwrap();
                    let mut fds =
                        [rustix::event::PollFd::new(&event, rustix::event::PollFlags::IN)];
                    let limit = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
                    assert_eq!(
                        rustix::event::poll(&mut fds, Some(&limit)).unwrap(),
                        1,
                        "lost wake"
                    );
                    let _ = rustix::io::read(event, &mut [0u8; 8]);
                }
                remote.announce_awake();
            }
        });
        for n in 0..MESSAGES {
            sender.send(1, n);
            sender.flush();
        }
        while sender.backlog() > 0 {
            sender.flush();
            std::thread::yield_now();
        }
        consumer.join().unwrap();
    }
}
