//! How sockets are numbered over several rings.
//!
//! ```text
//!   bit 31        a descriptor of the process; the rest is its number
//!   bits 30…20    the ring
//!   bits 19…0     the entry of its descriptor table (`IORING_MAX_FIXED_FILES` is 2²⁰)
//! ```

use crate::driver::Socket;

/// A socket whose number has this bit is a descriptor of the process, not of a ring's table.
pub(super) const PROCESS_FD: u32 = 1 << 31;

const ENTRY_BITS: u32 = 20;

/// The most entries that a table can have.
pub(super) const ENTRIES_MAX: u32 = 1 << ENTRY_BITS;

/// The number of an entry of a ring's table.
pub(super) fn socket_of(ring: usize, entry: u32) -> Socket {
    assert!(entry < ENTRIES_MAX, "the kernel's tables have 2^20 entries at most");
    Socket((ring as u32) << ENTRY_BITS | entry)
}

/// The ring that a socket is on; a descriptor of the process is on the first.
pub(super) fn ring_of(socket: Socket) -> usize {
    if socket.0 & PROCESS_FD != 0 { 0 } else { (socket.0 >> ENTRY_BITS) as usize }
}

/// The socket's entry in its ring's table.
pub(super) fn entry_of(socket: Socket) -> u32 {
    assert!(socket.0 & PROCESS_FD == 0, "a connection is an entry of a table");
    socket.0 & (ENTRIES_MAX - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_keeps_its_ring_and_entry() {
        for (ring, entry) in [(0, 0), (1, 5), (63, ENTRIES_MAX - 1)] {
            let socket = socket_of(ring, entry);
            assert_eq!((ring_of(socket), entry_of(socket)), (ring, entry));
        }
        assert_eq!(ring_of(Socket(PROCESS_FD | 0x0123_4567)), 0);
    }
}
