//! How long to wait before the next attempt: exponential back-off with full jitter.
//!
//! ```text
//!   attempt   1        2             3                        n
//!   wait      0 … b    0 … 2b        0 … 4b       …           0 … min(cap, b·2ⁿ⁻¹)
//! ```
//!
//! Every wait is drawn evenly from the whole interval, so that clients that were cut off at one
//! moment do not come back at one moment.

use std::time::Duration;

/// The waits between attempts.
#[derive(Clone, Debug)]
pub struct Backoff {
    first_max: Duration,
    max: Duration,
    ceiling: Duration,
    random: fastrand::Rng,
}

impl Backoff {
    /// Waits of at most `first_max` at first, and of at most `max` in the end.
    pub fn new(first_max: Duration, max: Duration) -> Backoff {
        let first_max = first_max.min(max);
        Backoff { first_max, max, ceiling: first_max, random: fastrand::Rng::new() }
    }

    /// The next wait. The limit of the one after it is twice as long.
    pub fn wait(&mut self) -> Duration {
        let wait = self.ceiling.mul_f64(self.random.f64());
        self.ceiling = self.ceiling.saturating_mul(2).min(self.max);
        wait
    }

    /// Begins again: something succeeded.
    pub fn reset(&mut self) {
        self.ceiling = self.first_max;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_secs(1);
    const MAX: Duration = Duration::from_secs(120);

    #[test]
    fn waits_spread_over_an_interval_that_doubles_up_to_the_cap() {
        let mut longest = [Duration::ZERO; 10];
        let mut shortest = [MAX; 10];
        for _ in 0..2000 {
            let mut backoff = Backoff::new(FIRST, MAX);
            for (longest, shortest) in longest.iter_mut().zip(&mut shortest) {
                let wait = backoff.wait();
                *longest = (*longest).max(wait);
                *shortest = (*shortest).min(wait);
            }
        }
        for (n, (longest, shortest)) in longest.into_iter().zip(shortest).enumerate() {
            let limit = (FIRST * 2u32.pow(n as u32)).min(MAX);
            assert!(longest <= limit, "wait {n} is at most {limit:?}: {longest:?}");
            assert!(longest > limit.mul_f64(0.9), "wait {n} comes near {limit:?}: {longest:?}");
            assert!(shortest < limit.mul_f64(0.1), "wait {n} comes near zero: {shortest:?}");
        }
    }

    #[test]
    fn success_begins_again() {
        let mut backoff = Backoff::new(FIRST, MAX);
        for _ in 0..100 {
            backoff.wait();
        }
        backoff.reset();
        assert!(backoff.wait() <= FIRST);
    }
}
