//! The buckets of a latency, and the window over which its quantiles are told.
//!
//! ```text
//!   ns     0 ─ 262,144 ─ 524,288 ─ 1,048,576 ─ … ─ 4.4e12
//!   width    1,024       2,048       4,096            2^34     256 linear, then 128 an octave
//! ```
//!
//! The layout is that of an HDR histogram with a lowest discernible value of 1,024 ns and two
//! significant digits: a value is known to 1 µs or to 1 %, whichever is more. So buckets of many
//! cores add up, and the `hdrhistogram` crate's type is made from them without loss.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// The longest latency that is told apart: an hour.
pub const MAX: Duration = Duration::from_secs(3_600);
pub(super) const MAX_NS: u64 = MAX.as_nanos() as u64;

/// The quantiles that are exported, as numbers and as label values.
pub const QUANTILES: [(f64, &str); 4] =
    [(0.5, "0.5"), (0.9, "0.9"), (0.99, "0.99"), (0.999, "0.999")];

/// Exported quantiles are of this much time before a scrape, or of the time since the last one if
/// scrapes are rarer.
pub const WINDOW: Duration = Duration::from_secs(60);

/// How often, at most, the state of the buckets is kept as a later beginning of the window.
const WINDOW_STEP: Duration = Duration::from_secs(10);

const UNIT_BITS: u32 = 10;
const HALF_BITS: u32 = 7;
const SUB_BUCKETS: u64 = 1 << (HALF_BITS + 1);
const HALF: usize = 1 << HALF_BITS;
const OCTAVES: usize = {
    let mut octaves = 1;
    let mut beyond = SUB_BUCKETS << UNIT_BITS;
    while beyond <= MAX_NS {
        beyond <<= 1;
        octaves += 1;
    }
    octaves
};

/// Buckets of one latency on one core.
pub(super) const BUCKETS: usize = (OCTAVES + 1) * HALF;

/// The bucket that `ns` counts in.
#[inline]
pub(super) fn bucket_of(ns: u64) -> usize {
    debug_assert!(ns <= MAX_NS, "{ns} ns is past the last bucket");
    const BASE: u32 = u64::BITS - UNIT_BITS - HALF_BITS - 1;
    let octave = BASE - (ns | ((SUB_BUCKETS - 1) << UNIT_BITS)).leading_zeros();
    let sub = (ns >> (octave + UNIT_BITS)) as usize;
    ((octave as usize + 1) << HALF_BITS) + sub - HALF
}

/// The lowest value of a bucket.
fn lowest_of(bucket: usize) -> u64 {
    let sub = (bucket & (HALF - 1)) as u64;
    match bucket >> HALF_BITS {
        0 => sub << UNIT_BITS,
        row => (sub + HALF as u64) << (row as u32 - 1 + UNIT_BITS),
    }
}

/// The same distribution as a `hdrhistogram` type, in nanoseconds.
pub(super) fn histogram(buckets: &[u64]) -> Histogram<u64> {
    assert_eq!(buckets.len(), BUCKETS, "all buckets of a latency belong together");
    let mut histogram = match Histogram::new_with_bounds(1 << UNIT_BITS, MAX_NS, 2) {
        Ok(histogram) => histogram,
        Err(error) => panic!("constant bounds are refused: {error}"),
    };
    for (bucket, count) in buckets.iter().enumerate().filter(|(_, count)| **count > 0) {
        histogram.saturating_record_n(lowest_of(bucket), *count);
    }
    histogram
}

/// Remembers the buckets as they were at some moments of the last minute.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// Oldest first. At most `WINDOW / WINDOW_STEP + 2`.
    kept: VecDeque<(Instant, Vec<u64>)>,
}

impl Window {
    /// What was added to the buckets since the window began.
    pub(super) fn since(&mut self, buckets: Vec<u64>, now: Instant) -> Vec<u64> {
        // The window begins at the youngest state that is old enough.
        while self.kept.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW) {
            self.kept.pop_front();
        }
        let recent = match self.kept.front() {
            Some((_, then)) => buckets.iter().zip(then).map(|(now, then)| now - then).collect(),
            None => buckets.clone(),
        };
        let due = |(at, _): &(Instant, _)| now.duration_since(*at) >= WINDOW_STEP;
        if self.kept.back().is_none_or(due) {
            self.kept.push_back((now, buckets));
        }
        assert!(
            self.kept.len() as u64 <= WINDOW.as_secs() / WINDOW_STEP.as_secs() + 2,
            "the window keeps a bounded number of states"
        );
        recent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_those_of_an_hdr_histogram() {
        let hdr: Histogram<u64> = Histogram::new_with_bounds(1024, MAX_NS, 2).unwrap();
        let mut random = fastrand::Rng::with_seed(11);
        for _ in 0..100_000 {
            let ns = (random.u64(..) >> random.u32(0..64)).min(MAX_NS);
            let bucket = bucket_of(ns);
            assert!(bucket < BUCKETS, "{ns}");
            assert_eq!(lowest_of(bucket), hdr.lowest_equivalent(ns), "{ns}");
        }
        assert_eq!(bucket_of(0), 0);
        assert!(BUCKETS - bucket_of(MAX_NS) <= HALF, "no octave goes unused");
    }

    #[test]
    fn quantiles_are_those_of_the_recorded_values() {
        let mut buckets = vec![0; BUCKETS];
        let mut oracle: Histogram<u64> = Histogram::new_with_bounds(1024, MAX_NS, 2).unwrap();
        let mut random = fastrand::Rng::with_seed(12);
        for _ in 0..50_000 {
            let ns = random.u64(..) >> random.u32(24..60);
            buckets[bucket_of(ns.min(MAX_NS))] += 1;
            oracle.saturating_record(ns);
        }
        let made = histogram(&buckets);
        for (quantile, _) in QUANTILES {
            assert_eq!(made.value_at_quantile(quantile), oracle.value_at_quantile(quantile));
        }
        assert_eq!(made.len(), oracle.len());
    }

    #[test]
    fn the_window_forgets_what_is_older_than_a_minute() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut window = Window::default();
        assert_eq!(window.since(vec![100], at(0)), [100], "the first scrape shows all there is");
        assert_eq!(window.since(vec![110], at(30)), [10]);
        assert_eq!(window.since(vec![111], at(60)), [11]);
        assert_eq!(window.since(vec![112], at(95)), [2], "since the state of 30");
        assert_eq!(window.since(vec![113], at(1_000)), [1], "since the last scrape");
    }

    #[test]
    fn frequent_scrapes_keep_few_states() {
        let start = Instant::now();
        let mut window = Window::default();
        for second in 0..1_000 {
            window.since(vec![second], start + Duration::from_secs(second));
        }
        assert!(window.kept.len() <= 8, "{}", window.kept.len());
    }
}
