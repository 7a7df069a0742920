//! Memory that the process has freed and its allocator keeps.
//!
//! glibc gives back what is free at a heap's end. What is free below it, once a storm of large
//! queues is over, stays resident for as long as anything lives above it: 180 of 280 MiB were free
//! in a daemon at rest. [`give_back`] returns such pages, which takes the allocator's locks for as
//! long as it lasts, some milliseconds for 100 MiB: so it is for when it is worth that.

/// What an allocator holds, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heap {
    /// Of what is in use.
    pub used_bytes: usize,
    /// Of what is free and was not given back.
    pub free_bytes: usize,
}

impl Heap {
    /// Whether giving memory back is worth it: there is much of it, and more than an eighth of
    /// what is in use.
    pub fn is_slack(&self) -> bool {
        const MUCH: usize = 16 << 20;
        self.free_bytes >= MUCH && self.free_bytes > self.used_bytes / 8
    }
}

/// Gives free pages back to the system if there are many; what was found before.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
pub fn give_back() -> Heap {
    // SAFETY: it takes nothing and returns a struct of numbers; it locks each heap while it looks.
    let found = unsafe { libc::mallinfo2() };
    let heap = Heap { used_bytes: found.uordblks, free_bytes: found.fordblks };
    if heap.is_slack() {
        // SAFETY: it changes nothing that is in use, and locks each heap while it works on it.
        unsafe { libc::malloc_trim(0) };
    }
    heap
}

/// Other allocators give back by themselves, or not at all.
#[cfg(not(target_env = "gnu"))]
pub fn give_back() -> Heap {
    Heap::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident_pages() -> usize {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap();
        text.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[test]
    #[cfg(target_env = "gnu")]
    fn what_is_free_below_what_lives_is_given_back() {
        // Each below the size from which the allocator asks the system for itself.
        let mut all: Vec<Vec<u8>> = (0..2000).map(|_| vec![1; 64 << 10]).collect();
        let full = resident_pages();
        let last = all.pop();
        drop(all);
        let heap = give_back();
        assert!(heap.is_slack(), "{heap:?}");
        let left = resident_pages();
        assert!(left + (64 << 20) / 4096 < full, "{left} of {full} pages");
        drop(last);
    }

    #[test]
    fn little_is_not_worth_it() {
        let mib =
            |used: usize, free: usize| Heap { used_bytes: used << 20, free_bytes: free << 20 };
        assert!(!mib(1, 15).is_slack());
        assert!(mib(1, 16).is_slack());
        assert!(!mib(400, 49).is_slack());
    }
}
