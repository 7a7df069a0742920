//! How long to wait before the next try: twice as long each time, up to a limit, and from the
//! beginning again after something has worked for a while.

use std::time::Duration;

/// Waits that double.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    max: Duration,
    /// What works for this long is taken to work again.
    good_after: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, max: Duration, good_after: Duration) -> Self {
        assert!(!first.is_zero() && first <= max, "waits begin above zero and below their limit");
        Self { first, max, good_after, next: first }
    }

    /// How long to wait now that something ended which had worked for `lived`.
    pub(crate) fn after(&mut self, lived: Duration) -> Duration {
        if lived >= self.good_after {
            self.next = self.first;
        }
        let wait = self.next;
        self.next = (wait * 2).min(self.max);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn waits_double_up_to_their_limit() {
        let mut backoff = Backoff::new(secs(1), secs(5), secs(60));
        let waits: Vec<u64> = (0..5).map(|_| backoff.after(secs(1)).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 5, 5]);
    }

    #[test]
    fn a_minute_of_life_begins_anew() {
        let mut backoff = Backoff::new(secs(1), secs(60), secs(60));
        backoff.after(secs(0));
        backoff.after(secs(0));
        assert_eq!(backoff.after(secs(59)), secs(4));
        assert_eq!(backoff.after(secs(60)), secs(1));
        assert_eq!(backoff.after(secs(0)), secs(2));
    }
}
