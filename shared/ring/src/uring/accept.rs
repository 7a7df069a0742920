//! Accepting over several rings. To the core it is one lasting operation; to the kernel it is a
//! few one-shot accepts at a time, on the first ring that has room, never more than there are free
//! entries in its table.
//!
//! Why not a multishot accept: it takes callers off the listener's queue until the table is full,
//! and then one more, which it loses. A one-shot accept costs an entry of the submission queue for
//! each connection, which is little beside what the connection itself costs.
//!
//! With all tables full, callers wait in the listener's queue until something is closed.
//!
//! A one-shot accept that waits holds an entry of a table and some 400 bytes of the kernel's. So
//! those of all listeners share a number: with few of them each has several, and a burst of callers
//! is taken in one turn; with many each has one, and one caller is taken a turn.

use std::io;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::Arc;

use io_uring::types::{DestinationSlot, Fd};
use io_uring::{opcode, squeue};

use crate::driver::{Listener, Token, listener_fd};

/// One-shot accepts of one listener at a time, while there is much room.
const AT_ONCE: u32 = 16;

/// One-shot accepts that the listeners share, if there are fewer than so many.
const IN_ALL: u32 = 64;

/// One-shot accepts that each of so many listeners may have at a time.
pub(super) fn share(listeners: usize) -> u32 {
    let listeners = u32::try_from(listeners).unwrap_or(u32::MAX).max(1);
    (IN_ALL / listeners).clamp(1, AT_ONCE)
}

/// An accept that its core has asked for.
pub(super) struct Accepting {
    token: Token,
    fd: RawFd,
    /// It stays open for as long as the kernel may look at it.
    _listener: Arc<Listener>,
    /// One-shot accepts under way, by ring.
    pub(super) armed: Vec<u32>,
    /// It is among those that want more of them.
    pub(super) wants: bool,
    /// Why it ends, once its one-shot accepts have.
    pub(super) ending: Option<io::Error>,
}

impl Accepting {
    pub(super) fn new(token: Token, listener: Arc<Listener>, rings: usize) -> Accepting {
        let fd = listener_fd(&listener).expect("a listener of the host's");
        let armed = vec![0; rings];
        Accepting { token, fd, _listener: listener, armed, wants: false, ending: None }
    }

    fn armed_in_all(&self) -> u32 {
        self.armed.iter().sum()
    }

    /// How many more one-shot accepts there shall be while `room` entries are free in all, of its
    /// `share`.
    pub(super) fn wanted(&self, room: u32, share: u32) -> u32 {
        // The last entries are taken one by one: connects want some too.
        (room / 4).clamp(1, share).saturating_sub(self.armed_in_all())
    }

    /// Whether it has its share.
    pub(super) fn is_content(&self, share: u32) -> bool {
        self.armed_in_all() >= share
    }

    /// Whether it takes no callers for want of room.
    pub(super) fn is_deaf(&self) -> bool {
        self.ending.is_none() && self.armed_in_all() == 0
    }

    pub(super) fn is_over(&self) -> bool {
        self.ending.is_some() && self.armed_in_all() == 0
    }

    pub(super) fn entry(&self) -> squeue::Entry {
        opcode::Accept::new(Fd(self.fd), ptr::null_mut(), ptr::null_mut())
            .file_index(Some(DestinationSlot::auto_target()))
            .build()
            .user_data(self.token.0)
    }
}

/// Whether an accept that failed so is worth repeating at once: it was the caller who went away.
pub(super) fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ECONNABORTED | libc::EINTR | libc::EAGAIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_share_the_accepts_that_wait() {
        assert_eq!([0, 1, 4, 5, 64, 65, 10_000].map(share), [16, 16, 16, 12, 1, 1, 1]);
        let in_all = |listeners: u32| (1..=listeners).map(|n| share(n as usize)).sum::<u32>();
        assert_eq!((in_all(4), in_all(64)), (64, 211), "who comes later has less");
    }
}
