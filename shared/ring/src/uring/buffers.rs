//! A pool of receive buffers that the kernel picks from (a provided-buffer ring). An idle
//! connection owns no buffer: it is given one when bytes arrive.
//!
//! Where the kernel can (`IOU_PBUF_RING_INC`), a buffer is filled in pieces, one receive behind
//! the other, so that a small receive does not take a whole buffer:
//!
//! ```text
//!   buffer 7   │ piece │ piece │ piece │ free …      one after the other, each its own loan
//! ```
//!
//! A buffer returns to the kernel when the kernel is done with it *and* every piece of it was
//! released.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use crate::driver::{Group, RxBuf};

/// `IOU_PBUF_RING_INC` of `linux/io_uring.h`.
const INCREMENTAL: u16 = 2;

/// A buffer's identifier begins with its pool's two bits: a completion tells the buffer, not the
/// pool.
const POOL_SHIFT: u32 = 14;
const INDEX: u16 = (1 << POOL_SHIFT) - 1;

/// What is known of one buffer.
#[derive(Clone, Copy, Default)]
struct State {
    /// Bytes of it that were received.
    filled: u32,
    /// Pieces on loan.
    loans: u32,
    /// The kernel is done with it.
    spent: bool,
}

pub(super) struct BufRing {
    group: Group,
    entries: NonNull<BufRingEntry>,
    entries_layout: Layout,
    memory: NonNull<u8>,
    memory_layout: Layout,
    states: Vec<State>,
    buffer_bytes: u32,
    tail: u16,
    incremental: bool,
}

impl BufRing {
    /// Makes a pool and registers it; `incremental` becomes false where the kernel cannot fill
    /// buffers in pieces. Datagrams never are: what is left of a buffer might cut one off.
    pub(super) fn new(
        ring: &IoUring,
        group: Group,
        (count, bytes): (u16, u32),
        incremental: &mut bool,
    ) -> io::Result<BufRing> {
        const PAGE: usize = 4096;
        const WORD: usize = align_of::<u64>();
        assert!(count.is_power_of_two() && count - 1 <= INDEX, "a pool's size is a power of two");
        assert!(bytes > 0, "a buffer holds something");
        let entries_layout =
            Layout::from_size_align(usize::from(count) * size_of::<BufRingEntry>(), PAGE)
                .map_err(|_| io::ErrorKind::InvalidInput)?;
        // No stricter than the allocator's own: it clears aligned memory by writing to it, and a
        // buffer that was never filled shall take none.
        let memory_layout = Layout::from_size_align(usize::from(count) * bytes as usize, WORD)
            .map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut pool = BufRing {
            group,
            entries: allocate(entries_layout).cast(),
            entries_layout,
            memory: allocate(memory_layout),
            memory_layout,
            states: vec![State::default(); usize::from(count)],
            buffer_bytes: bytes,
            tail: 0,
            incremental: *incremental && group != Group::Datagram,
        };
        pool.register(ring, count, incremental)?;
        for index in 0..count {
            pool.provide(index);
        }
        Ok(pool)
    }

    #[allow(unsafe_code)]
    fn register(&mut self, ring: &IoUring, count: u16, incremental: &mut bool) -> io::Result<()> {
        let address = self.entries.as_ptr() as u64;
        let group = self.group as u16;
        let register = |flags| {
            // SAFETY: the entries are page-aligned, zeroed, `count` long, and live until the ring
            // is gone: the driver drops its ring before its pools.
            unsafe { ring.submitter().register_buf_ring_with_flags(address, count, group, flags) }
        };
        if self.incremental {
            match register(INCREMENTAL) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    *incremental = false;
                    self.incremental = false;
                }
                other => return other,
            }
        }
        register(0)
    }

    /// The number of the pool that a completion's buffer belongs to.
    pub(super) fn pool_of(id: u16) -> usize {
        usize::from(id >> POOL_SHIFT)
    }

    /// Takes note of `len` bytes that the kernel has put into buffer `id`; `more` if it goes on
    /// filling that buffer.
    pub(super) fn lend(&mut self, id: u16, len: u32, more: bool) -> RxBuf {
        let state = &mut self.states[usize::from(id & INDEX)];
        assert!(!state.spent, "the kernel fills a buffer that it was given");
        let offset = state.filled;
        state.filled += len;
        assert!(state.filled <= self.buffer_bytes, "the kernel fills a buffer to its end");
        state.loans += 1;
        state.spent = !more;
        RxBuf { group: self.group, ring: 0, id, offset, len, shared: more }
    }

    #[allow(unsafe_code)]
    pub(super) fn bytes(&self, buf: &RxBuf) -> &[u8] {
        let index = usize::from(buf.id & INDEX);
        assert!(buf.offset + buf.len <= self.states[index].filled, "a loan of this pool");
        let start = index * self.buffer_bytes as usize + buf.offset as usize;
        // SAFETY: the range lies within buffer `index` (its filled part is at most its size), all
        // of it initialised (zeroed when made). The kernel does not write it again before the
        // buffer is provided again, which `release` does only after this loan was given back;
        // what it goes on filling lies behind `filled`.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().add(start), buf.len as usize) }
    }

    pub(super) fn release(&mut self, buf: &RxBuf) {
        let index = buf.id & INDEX;
        let state = &mut self.states[usize::from(index)];
        assert!(state.loans > 0, "a buffer is released once");
        state.loans -= 1;
        if state.loans == 0 && state.spent {
            *state = State::default();
            self.provide(index);
        }
    }

    /// Gives a buffer to the kernel.
    #[allow(unsafe_code)]
    fn provide(&mut self, index: u16) {
        let mask = self.states.len() as u16 - 1;
        let at = usize::from(self.tail & mask);
        let pool = (self.group as u16) << POOL_SHIFT;
        // SAFETY: `at` is below the number of entries. The kernel reads an entry only once the
        // tail has passed it, and there are as many entries as buffers, so it is done with this
        // one. The tail lies in the first entry, where the kernel looks for it.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(at);
            entry.set_addr(
                self.memory.as_ptr().add(usize::from(index) * self.buffer_bytes as usize) as u64,
            );
            entry.set_len(self.buffer_bytes);
            entry.set_bid(index | pool);
            self.tail = self.tail.wrapping_add(1);
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }
}

#[allow(unsafe_code)]
fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: the layout's size is not zero: a pool has entries and buffers.
    let start = NonNull::new(unsafe { alloc_zeroed(layout) });
    start.unwrap_or_else(|| handle_alloc_error(layout))
}

impl Drop for BufRing {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: both came from `alloc_zeroed` with these layouts, and are freed once. The
        // driver drops its pools after its ring, so the kernel knows them no more.
        unsafe {
            dealloc(self.entries.as_ptr().cast(), self.entries_layout);
            dealloc(self.memory.as_ptr(), self.memory_layout);
        }
    }
}
