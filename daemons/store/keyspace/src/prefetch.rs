//! Asks the processor for memory that will be looked at soon, so that the waits for many keys
//! overlap. It changes nothing but time.

/// Asks for the cache line that a slice begins in.
#[inline]
#[cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "an instruction of the processor"))]
pub(crate) fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing and faults nowhere, whatever the address; this one is a
        // live slice's.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}
