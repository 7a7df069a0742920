//! Which entries of a ring's descriptor table are taken, as far as its driver knows, and how
//! sockets are numbered over several rings. The kernel chooses the entries; what is counted here
//! tells on which ring there is room *before* the kernel is asked: an accept that finds a full
//! table loses its caller.
//!
//! ```text
//!   bit 31        a descriptor of the process; the rest is its number
//!   bits 30…20    the ring, of which there are at most RINGS_MAX
//!   bits 19…0     the entry of its table (`IORING_MAX_FIXED_FILES` is 2²⁰)
//! ```
//!
//! A connection that another core hands over takes an entry unseen. It is noted with the first
//! operation on it, which follows with the message that tells of it.

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

/// What is known of one ring's table.
pub(super) struct Table {
    size: u32,
    used: u32,
    /// Entries that operations under way may yet take.
    promised: u32,
    /// A bit per entry.
    taken: Vec<u64>,
}

impl Table {
    pub(super) fn new(size: u32) -> Table {
        assert!(size <= ENTRIES_MAX);
        Table { size, used: 0, promised: 0, taken: vec![0; size.div_ceil(64) as usize] }
    }

    /// Entries that are neither taken nor promised.
    pub(super) fn room(&self) -> u32 {
        self.size.saturating_sub(self.used + self.promised)
    }

    /// Entries that are not taken.
    pub(super) fn free(&self) -> u32 {
        self.size - self.used
    }

    /// An operation began that may take an entry.
    pub(super) fn promise(&mut self) {
        self.promised += 1;
    }

    /// An operation ended that might have taken an entry, or has.
    pub(super) fn settle(&mut self) {
        assert!(self.promised > 0, "a promise is settled once");
        self.promised -= 1;
    }

    /// An entry is in use.
    pub(super) fn take(&mut self, entry: u32) {
        let (word, bit) = self.place(entry);
        self.used += u32::from(self.taken[word] & bit == 0);
        self.taken[word] |= bit;
    }

    /// An entry is given back.
    pub(super) fn give_back(&mut self, entry: u32) {
        let (word, bit) = self.place(entry);
        self.used -= u32::from(self.taken[word] & bit != 0);
        self.taken[word] &= !bit;
    }

    fn place(&self, entry: u32) -> (usize, u64) {
        assert!(entry < self.size, "entry {entry} of a table of {}", self.size);
        ((entry / 64) as usize, 1 << (entry % 64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn a_socket_keeps_its_ring_and_entry() {
        for (ring, entry) in [(0, 0), (1, 5), (63, ENTRIES_MAX - 1)] {
            let socket = socket_of(ring, entry);
            assert_eq!((ring_of(socket), entry_of(socket)), (ring, entry));
        }
        assert_eq!(ring_of(Socket(PROCESS_FD | 0x0123_4567)), 0);
    }

    proptest! {
        #[test]
        fn room_is_what_a_set_would_say(
            steps in prop::collection::vec((0u32..100, any::<bool>()), 1..300),
        ) {
            let mut table = Table::new(100);
            let mut oracle = HashSet::new();
            for (entry, take) in steps {
                if take {
                    table.take(entry);
                    oracle.insert(entry);
                } else {
                    table.give_back(entry);
                    oracle.remove(&entry);
                }
                prop_assert_eq!(table.free(), 100 - oracle.len() as u32);
                table.promise();
                prop_assert_eq!(table.room(), table.free().saturating_sub(1));
                table.settle();
            }
        }
    }
}
