//! What a driver can do. Probed once, when the driver is made, and said in the log; code asks
//! these fields and never the kernel's version.

use std::fmt;

/// A driver's abilities and limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// Which driver: `io_uring`, `epoll` or `sim`.
    pub driver: &'static str,
    /// The most sockets that the driver can hold at once.
    pub sockets_max: u32,
    /// Sockets are descriptors of the process: all cores' together, and all else that the process
    /// has open, count against `RLIMIT_NOFILE`.
    pub process_descriptors: bool,
    /// Receive buffers are filled in pieces, so that a small receive does not take a whole one
    /// (`IOU_PBUF_RING_INC`, Linux 6.12).
    pub incremental_buffers: bool,
    /// Completions run only when the loop asks for them (`DEFER_TASKRUN`, Linux 6.1).
    pub deferred_work: bool,
    /// A connection that waits costs less with a poll armed than with a receive.
    pub parking: bool,
    /// A connection's peer is told through the ring (`SOCKET_URING_OP_GETSOCKOPT`, Linux 6.7).
    pub peer_addr: bool,
}

impl fmt::Display for Caps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: up to {} sockets", self.driver, self.sockets_max)?;
        if self.process_descriptors {
            write!(f, " (descriptors of the process)")?;
        }
        for (has, name) in [
            (self.incremental_buffers, "incremental buffers"),
            (self.deferred_work, "deferred task work"),
            (self.parking, "parking"),
            (self.peer_addr, "peer addresses"),
        ] {
            write!(f, ", {}{name}", if has { "" } else { "no " })?;
        }
        Ok(())
    }
}
