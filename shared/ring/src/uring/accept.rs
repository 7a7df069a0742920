//! Accepting over several rings. To the core it is one lasting operation; to the kernel it is a
//! few one-shot accepts at a time, on the first ring that has room, never more than there are free
//! entries in its table.
//!
//! Why not a multishot accept: it takes callers off the listener's queue until the table is full,
//! and then one more, which it loses. A one-shot accept costs an entry of the submission queue for
//! each connection, which is little beside what the connection itself costs.
//!
//! With all tables full, callers wait in the listener's queue until something is closed.

use std::io;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::Arc;

use io_uring::types::{DestinationSlot, Fd};
use io_uring::{opcode, squeue};

use crate::driver::{Listener, Token, listener_fd};

/// One-shot accepts of one listener at a time, while there is much room.
const AT_ONCE: u32 = 16;

/// An accept that its core has asked for.
pub(super) struct Accepting {
    pub(super) token: Token,
    fd: RawFd,
    /// It stays open for as long as the kernel may look at it.
    _listener: Arc<Listener>,
    /// One-shot accepts under way, by ring.
    pub(super) armed: Vec<u32>,
    /// Why it ends, once its one-shot accepts have.
    pub(super) ending: Option<io::Error>,
}

impl Accepting {
    pub(super) fn new(token: Token, listener: Arc<Listener>, rings: usize) -> Accepting {
        let fd = listener_fd(&listener).expect("a listener of the host's");
        Accepting { token, fd, _listener: listener, armed: vec![0; rings], ending: None }
    }

    /// How many more one-shot accepts there shall be while `room` entries are free in all.
    pub(super) fn wanted(&self, room: u32) -> u32 {
        if self.ending.is_some() {
            return 0;
        }
        // The last entries are taken one by one: connects want some too.
        let at_once = (room / 4).clamp(1, AT_ONCE);
        at_once.saturating_sub(self.armed.iter().sum())
    }

    /// Whether it takes no callers for want of room.
    pub(super) fn is_deaf(&self) -> bool {
        self.ending.is_none() && self.armed.iter().all(|&armed| armed == 0)
    }

    pub(super) fn is_over(&self) -> bool {
        self.ending.is_some() && self.armed.iter().all(|&armed| armed == 0)
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
