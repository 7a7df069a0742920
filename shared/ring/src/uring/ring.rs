//! One ring of the kernel's, with its receive pools and its descriptor table. A driver has one
//! that it waits on and, where one table is too small, further ones beside it.
//!
//! A further ring is never waited on. Deferred work on it sets a flag in the memory that it shares
//! with the kernel, which costs a load to look at; and it rings a bell, an eventfd that the first
//! ring polls, for a driver that is asleep. (Polling the further ring's own descriptor wakes
//! nobody under `DEFER_TASKRUN`.) While the driver is awake its bells are at rest: otherwise each
//! batch of completions would ring once more for a driver that is about to read them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, squeue};
use rustix::event::{EventfdFlags, eventfd};

use super::Options;
use super::buffers::BufRing;
use crate::driver::{Group, RxBuf};

/// Whether bells rest while the driver is awake. Setting a bell right again and then looking for
/// work orders a store before a load, as the kernel, which adds work and then looks at the bell,
/// has to. It does so where an atomic read-modify-write is a full barrier, as on x86.
const BELLS_REST: bool = cfg!(target_arch = "x86_64");

pub(super) struct Ring {
    // Dropped before the pools that it knows. Its driver has reaped what was under way by then.
    ring: IoUring,
    /// By the number of their [`Group`]; that for datagrams comes with the first such socket.
    pools: Vec<BufRing>,
    /// Entries that found the submission queue full, each with what is linked to it.
    spilled: VecDeque<Vec<squeue::Entry>>,
    /// Of a further ring.
    bell: Option<OwnedFd>,
}

impl Ring {
    /// Makes a ring with a table of so many entries. `incremental` becomes false where the kernel
    /// cannot fill buffers in pieces.
    pub(super) fn new(
        options: &Options,
        entries: u32,
        further: bool,
        incremental: &mut bool,
    ) -> io::Result<Ring> {
        let (submissions, completions) = if further {
            options.further_queues
        } else {
            (options.submissions, options.completions)
        };
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(completions)
            .build(submissions)?;
        ring.submitter().register_files_sparse(entries)?;
        let (small, bulk) = if further {
            (options.further_small, options.further_bulk)
        } else {
            (options.small, options.bulk)
        };
        let small = BufRing::new(&ring, Group::Small, small, incremental)?;
        let bulk = BufRing::new(&ring, Group::Bulk, bulk, incremental)?;
        let mut bell = None;
        if further {
            let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            ring.submitter().register_eventfd(fd.as_raw_fd())?;
            bell = Some(fd);
        }
        let mut made = Ring { ring, pools: vec![small, bulk], spilled: VecDeque::new(), bell };
        made.rest_bell();
        Ok(made)
    }

    pub(super) fn kernel(&mut self) -> &mut IoUring {
        &mut self.ring
    }

    pub(super) fn fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }

    pub(super) fn bell_fd(&self) -> Option<RawFd> {
        self.bell.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Entries that fit in the submission queue.
    pub(super) fn room(&mut self) -> usize {
        let queue = self.ring.submission();
        queue.capacity() - queue.len()
    }

    /// Queues entries, all or none, behind those that were queued before. What they point to has
    /// to stay where it is until they complete.
    #[allow(unsafe_code)]
    pub(super) fn push(&mut self, entries: &[squeue::Entry]) {
        if self.room() < entries.len() || self.has_spilled() {
            self.flush();
        }
        if self.room() < entries.len() || self.has_spilled() {
            self.spilled.push_back(entries.to_vec());
            return;
        }
        // SAFETY: every entry of this driver points to no memory, or to memory on the heap that
        // its `owned`, `pools`, `recv_header` or `listeners` keeps: none of it is moved or freed
        // before the operation's last completion was seen (the driver's `Drop` included).
        let pushed = unsafe { self.ring.submission().push_multiple(entries) };
        assert!(pushed.is_ok(), "there is room");
    }

    /// Hands queued entries over without waiting, to make room, and queues what had found none.
    /// The kernel takes nothing while its completions have overflown; then they stay spilled
    /// until completions were drained.
    #[allow(unsafe_code)]
    pub(super) fn flush(&mut self) {
        let _ = self.ring.submit();
        while let Some(entries) = self.spilled.pop_front() {
            if self.room() < entries.len() {
                self.spilled.push_front(entries);
                return;
            }
            // SAFETY: as in `push`, from where these entries come.
            let pushed = unsafe { self.ring.submission().push_multiple(&entries) };
            assert!(pushed.is_ok(), "there is room");
        }
    }

    pub(super) fn has_spilled(&self) -> bool {
        !self.spilled.is_empty()
    }

    /// Whether an enter would do anything: hand entries over, run deferred work, or fetch
    /// completions that had found no room.
    pub(super) fn has_work(&mut self) -> bool {
        let queue = self.ring.submission();
        !queue.is_empty() || queue.taskrun() || queue.cq_overflow()
    }

    /// Whether completions have arrived.
    pub(super) fn has_completions(&mut self) -> bool {
        !self.ring.completion().is_empty()
    }

    pub(super) fn next_cqe(&mut self) -> Option<cqueue::Entry> {
        self.ring.completion().next()
    }

    /// Lets deferred work ring the bell.
    pub(super) fn set_bell(&mut self) {
        if BELLS_REST && self.bell.is_some() {
            self.ring.completion().enable_eventfd();
        }
    }

    /// Keeps the bell from ringing.
    pub(super) fn rest_bell(&mut self) {
        if BELLS_REST && self.bell.is_some() {
            self.ring.completion().disable_eventfd();
        }
    }

    /// Hands over what is queued and runs deferred work, without waiting, if there is any.
    #[allow(unsafe_code)]
    pub(super) fn run(&mut self) -> io::Result<()> {
        if !self.has_work() {
            return Ok(());
        }
        let queued = self.ring.submission().len();
        // Deferred work runs only in an enter that asks for events.
        let flags = EnterFlags::GETEVENTS.bits();
        // SAFETY: no argument is passed, and the queued entries are valid (`push`).
        forgiven(unsafe {
            self.ring.submitter().enter::<libc::sigset_t>(queued as u32, 0, flags, None)
        })
    }

    /// Hands over what is queued and waits for a completion; without end if `None`.
    pub(super) fn wait(&mut self, limit: Option<Duration>) -> io::Result<()> {
        forgiven(match limit {
            Some(limit) => {
                let limit = Timespec::from(limit);
                self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&limit))
            }
            None => self.ring.submit_and_wait(1),
        })
    }

    /// Adds the pool for datagrams, if it is not there.
    pub(super) fn add_datagrams(&mut self, layout: (u16, u32)) -> io::Result<()> {
        if self.pools.len() <= Group::Datagram as usize {
            let pool = BufRing::new(&self.ring, Group::Datagram, layout, &mut false)?;
            self.pools.push(pool);
        }
        Ok(())
    }

    /// Takes note of a receive of `len` bytes; `None` if it has no buffer, or put nothing in it.
    pub(super) fn lend(&mut self, ring: usize, len: u32, flags: u32) -> Option<RxBuf> {
        let id = cqueue::buffer_select(flags)?;
        let pool = &mut self.pools[BufRing::pool_of(id)];
        let mut buf = pool.lend(id, len, cqueue::buffer_more(flags));
        buf.ring = ring as u8;
        if len == 0 {
            pool.release(&buf);
            return None;
        }
        Some(buf)
    }

    pub(super) fn received(&self, buf: &RxBuf) -> &[u8] {
        self.pools[buf.group as usize].bytes(buf)
    }

    pub(super) fn release(&mut self, buf: &RxBuf) {
        self.pools[buf.group as usize].release(buf);
    }

    /// Never frees the receive buffers: the kernel may still write to them.
    pub(super) fn leak_pools(&mut self) {
        std::mem::forget(std::mem::take(&mut self.pools));
    }
}

/// An enter that timed out, was interrupted, or finds that completions have to be drained first
/// has done what it could.
fn forgiven(entered: io::Result<usize>) -> io::Result<()> {
    match entered {
        Ok(_) => Ok(()),
        Err(error) => match error.raw_os_error() {
            Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
            _ => Err(error),
        },
    }
}
