//! Owned, page-aligned memory for file operations. Alignment lets a driver write past the page
//! cache where that is faster; ownership lets it hand the memory to the kernel and get it back.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// A buffer of fixed capacity, aligned to [`IoBuf::ALIGN`] bytes.
pub struct IoBuf {
    start: NonNull<u8>,
    capacity: u32,
    len: u32,
}

impl IoBuf {
    /// A page: what direct I/O asks of every disk in use.
    pub const ALIGN: usize = 4096;

    /// An empty buffer of at least `capacity` bytes, rounded up to whole pages.
    #[allow(unsafe_code)]
    pub fn with_capacity(capacity: usize) -> IoBuf {
        let capacity = capacity.max(1).next_multiple_of(Self::ALIGN);
        assert!(capacity <= u32::MAX as usize, "a file buffer is at most 4 GiB");
        let layout = Self::layout(capacity);
        // SAFETY: the layout's size is at least one page, so not zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) });
        let Some(start) = start else { handle_alloc_error(layout) };
        IoBuf { start, capacity: capacity as u32, len: 0 }
    }

    /// A buffer of zeros, all of it in use.
    pub fn zeroed(len: usize) -> IoBuf {
        let mut buf = IoBuf::with_capacity(len);
        buf.len = u32::try_from(len).expect("with_capacity has checked it");
        buf
    }

    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity, Self::ALIGN).expect("a capacity below 4 GiB is a layout")
    }

    /// The most bytes that it can hold.
    pub fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// The room that is left.
    pub fn room(&self) -> usize {
        (self.capacity - self.len) as usize
    }

    /// Appends as many bytes as there is room for, and tells how many.
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.room());
        let at = self.len as usize;
        self.len += n as u32;
        self[at..at + n].copy_from_slice(&bytes[..n]);
        n
    }

    /// Forgets the content, keeps the memory.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Declares the first `len` bytes in use. All of a buffer's memory is initialised, so this
    /// is safe; what was not written since it was made or cleared is old content or zeros.
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity(), "length {len} past the capacity {}", self.capacity);
        self.len = len as u32;
    }
}

impl Deref for IoBuf {
    type Target = [u8];

    #[allow(unsafe_code)]
    fn deref(&self) -> &[u8] {
        // SAFETY: `start` owns `capacity` initialised bytes (zeroed when made), `len` is at most
        // `capacity`, and the borrow of `self` keeps anyone from writing them.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len as usize) }
    }
}

impl DerefMut for IoBuf {
    #[allow(unsafe_code)]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`, and the exclusive borrow of `self` is the only access.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len as usize) }
    }
}

impl Drop for IoBuf {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: `start` came from `alloc_zeroed` with this very layout, and is freed once.
        unsafe { dealloc(self.start.as_ptr(), Self::layout(self.capacity as usize)) }
    }
}

// SAFETY: an `IoBuf` owns its memory alone, like a `Box<[u8]>`.
#[allow(unsafe_code)]
unsafe impl Send for IoBuf {}

impl fmt::Debug for IoBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IoBuf({} of {} bytes)", self.len, self.capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_aligned_and_takes_what_fits() {
        let mut buf = IoBuf::with_capacity(5000);
        assert_eq!(buf.capacity(), 8192);
        assert_eq!(buf.as_ptr() as usize % IoBuf::ALIGN, 0);
        assert_eq!(buf.push(&[7; 8000]), 8000);
        assert_eq!(buf.push(&[8; 8000]), 192);
        assert_eq!(buf.len(), 8192);
        assert_eq!((buf[7999], buf[8000]), (7, 8));
        buf.clear();
        assert!(buf.is_empty());
    }
}
