//! What a simulated world does to those who live in it: its limits, its delays, and the faults
//! that it commits, each with a probability.

use std::ops::RangeInclusive;
use std::time::Duration;

/// A world's limits, delays and faults. Delays, orders and the cuts in streams are drawn from the
/// seed always; every fault is off until a test turns it on. Probabilities are from 0 to 1.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Plan {
    /// Sockets that one driver can hold, for drivers made from now on.
    pub sockets_max: u32,
    /// Operations that one driver takes between two enters, for drivers made from now on.
    pub submissions_max: usize,
    /// Completions that one driver has room for until they are looked at, for drivers made from
    /// now on. What comes when it is full is seen only after a later enter, and as long as there is
    /// any of that no enter starts an operation. A lasting operation may end with a completion that
    /// found no room.
    pub completions_max: usize,
    /// Small receive buffers: their number and size in bytes, for drivers made from now on.
    pub small: (u16, u32),
    /// Bulk receive buffers: their number and size in bytes, for drivers made from now on.
    pub bulk: (u16, u32),
    /// Buffers for datagrams: their number and size in bytes, for drivers made from now on.
    pub datagrams: (u16, u32),
    /// Bytes of one direction of a connection that may be under way or unread.
    pub window_bytes: usize,
    /// Connections that wait to be accepted on one address; more are refused.
    pub backlog_max: usize,
    /// Datagrams that wait to be received on one socket; more are dropped.
    pub datagrams_max: usize,

    /// How long an operation takes that only the local kernel is concerned with.
    pub local_delay: RangeInclusive<Duration>,
    /// How long bytes are under way.
    pub network_delay: RangeInclusive<Duration>,
    /// How long a file operation takes.
    pub disk_delay: RangeInclusive<Duration>,
    /// How long a core is busy after a turn before it can be turned again.
    pub turn_delay: RangeInclusive<Duration>,
    /// How long a core that stalls is not turned.
    pub stall_time: RangeInclusive<Duration>,

    /// A receive, or a piece of a stream on its way, is cut short.
    pub cut: f64,
    /// A lasting operation ends together with a success ([`Completion::more`] is false).
    ///
    /// [`Completion::more`]: crate::driver::Completion::more
    pub lasting_ends: f64,
    /// A cancellation is done before what it cancels: that may yet succeed, and ends later.
    pub cancel_late: f64,
    /// A core gets no processor for [`Plan::stall_time`] after a turn, while everything else goes
    /// on.
    pub stall: f64,

    /// A piece of a stream does not arrive, and both ends see a reset instead.
    pub reset: f64,
    /// A connection attempt is refused, though somebody listens.
    pub refuse: f64,
    /// A receive finds its pool empty though it is not. Only while at least one buffer of the
    /// pool is on loan: no kernel says so otherwise, and nobody would arm the receive again.
    pub starve: f64,
    /// Taking a connection over fails with `ENFILE`.
    pub hand_over: f64,
    /// A poll ends though there is nothing to receive.
    pub poll_early: f64,
    /// A datagram is lost.
    pub datagram_lost: f64,
    /// A datagram arrives twice.
    pub datagram_twice: f64,
    /// A datagram is overtaken by later ones.
    pub datagram_late: f64,
    /// Opening, reading or mapping a file fails with `EIO`.
    pub read_error: f64,
    /// A write fails with `EIO`, with any part of it written.
    pub write_error: f64,
    /// A sync fails with `EIO`; what it should have made durable never will be, unless it is
    /// written again.
    pub sync_error: f64,
    /// An enter returns before anything happened.
    pub wake_early: f64,
    /// A core that was notified is not woken: it finds out when it is turned for another reason.
    pub wake_lost: f64,
}

impl Default for Plan {
    fn default() -> Plan {
        let micros = |from, to| Duration::from_micros(from)..=Duration::from_micros(to);
        Plan {
            sockets_max: 16_384,
            submissions_max: 256,
            completions_max: 4096,
            small: (64, 2048),
            bulk: (16, 16 * 1024),
            datagrams: (64, 2048),
            window_bytes: 64 * 1024,
            backlog_max: 1024,
            datagrams_max: 256,
            local_delay: micros(1, 40),
            network_delay: micros(20, 400),
            disk_delay: micros(50, 2000),
            turn_delay: micros(1, 20),
            stall_time: micros(10_000, 2_000_000),
            cut: 0.25,
            lasting_ends: 0.02,
            cancel_late: 0.0,
            stall: 0.0,
            reset: 0.0,
            refuse: 0.0,
            starve: 0.0,
            hand_over: 0.0,
            poll_early: 0.0,
            datagram_lost: 0.0,
            datagram_twice: 0.0,
            datagram_late: 0.0,
            read_error: 0.0,
            write_error: 0.0,
            sync_error: 0.0,
            wake_early: 0.0,
            wake_lost: 0.0,
        }
    }
}

/// What is done to a file, as far as failing it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Access {
    /// Opening it, making it included.
    Open,
    /// Reading or viewing it.
    Read,
    /// Writing to it.
    Write,
    /// Making its content durable.
    Sync,
    /// Mapping it.
    Map,
    /// Renaming it.
    Rename,
    /// Giving it a second name.
    Link,
    /// Removing it.
    Remove,
    /// Making a directory's entries durable.
    SyncDir,
}
