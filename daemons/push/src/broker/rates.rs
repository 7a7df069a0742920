//! How much there may be in a second: token buckets, told in time.
//!
//! A [`Bucket`] is one number: when it will be whole again. Taking from it moves that time on by
//! what it costs; there is something in it as long as that time is no further away than a
//! [`Rate`]'s burst. So a bucket that nobody takes from needs no looking after, and one that was
//! whole at some time may be forgotten.

use std::time::Duration;

use sextant_ring::time::Time;

/// How much there may be in a second, and how much at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    per_second: u64,
    /// The cores that share it evenly.
    among: u64,
    burst: Duration,
}

impl Rate {
    /// One core's share of so much a second; at once as much as `burst` brings, and at least one.
    /// `None` if there is no limit.
    pub(super) fn new(per_second: u64, among: usize, burst: Duration) -> Option<Rate> {
        assert!(among > 0, "somebody shares it");
        let among = among as u64;
        let rate = Rate { per_second, among, burst };
        (per_second > 0).then(|| Rate { burst: burst.max(rate.time(1)), ..rate })
    }

    /// How long so much takes.
    pub(super) fn time(&self, units: u64) -> Duration {
        const SECOND: u128 = 1_000_000_000;
        let nanos = u128::from(units) * SECOND * u128::from(self.among);
        let nanos = nanos / u128::from(self.per_second.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// What is left of a [`Rate`] now.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bucket {
    whole_at: Time,
}

impl Bucket {
    /// Takes so much, there or not: what was not is owed.
    pub(super) fn take(&mut self, rate: &Rate, units: u64, now: Time) {
        self.whole_at = self.whole_at.max(now) + rate.time(units);
    }

    /// When there is one in it; that may have been.
    pub(super) fn next(&self, rate: &Rate) -> Time {
        self.whole_at + rate.time(1) - rate.burst
    }

    /// Whether all of it is there.
    pub(super) fn is_whole(&self, now: Time) -> bool {
        self.whole_at <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_bucket_gives_its_burst_at_once_and_then_its_rate() {
        let rate = Rate::new(10, 2, SECOND).unwrap();
        let (mut bucket, begin) = (Bucket::default(), Time::ZERO + SECOND * 100);
        let mut given = 0;
        for ms in 0..10_000 {
            let now = begin + Duration::from_millis(ms);
            while bucket.next(&rate) <= now {
                bucket.take(&rate, 1, now);
                given += 1;
            }
            let expected = 5 + ms * 5 / 1000;
            assert_eq!(given, expected, "after {ms} ms");
        }
    }

    #[test]
    fn less_than_one_a_second_gives_one_after_the_other() {
        let rate = Rate::new(1, 4, SECOND).unwrap();
        let mut bucket = Bucket::default();
        let now = Time::ZERO + SECOND * 9;
        assert!(bucket.next(&rate) <= now);
        bucket.take(&rate, 1, now);
        assert_eq!(bucket.next(&rate), now + SECOND * 4);
        assert!(Rate::new(0, 4, SECOND).is_none());
    }

    proptest! {
        #[test]
        fn what_is_taken_is_never_more_than_burst_and_rate(
            per_second in 1u64..100_000,
            among in 1usize..8,
            steps in proptest::collection::vec(0u64..50_000_000, 1..200),
        ) {
            let rate = Rate::new(per_second, among, SECOND).unwrap();
            let (mut bucket, begin) = (Bucket::default(), Time::ZERO + SECOND * 10);
            let (mut now, mut given) = (begin, 0u64);
            for nanos in steps {
                now = now + Duration::from_nanos(nanos);
                while bucket.next(&rate) <= now {
                    bucket.take(&rate, 1, now);
                    given += 1;
                }
                let share = per_second as f64 / among as f64;
                let most = share.max(1.0) + now.since(begin).as_secs_f64() * share;
                // A cost is rounded down to a nanosecond.
                let most = most * (1.0 + per_second as f64 / 1e9);
                prop_assert!(given as f64 <= most + 1.0, "{given} of {most}");
            }
        }
    }
}
