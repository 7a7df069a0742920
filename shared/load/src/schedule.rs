//! When operations shall start. A [`Schedule`] hands out intended times one after the other, each
//! once, and never skips one: a generator that was held up for a second starts all operations of
//! that second late, and their latency is measured from when they should have started. (The fault
//! of leaving them out instead is known as coordinated omission.)
//!
//! ```text
//!   intended   │ │ │ │ │ │ │ │ │
//!   begun      │ │ │       ││││││      held up here: late, but not fewer
//! ```
//!
//! The times come from any iterator: [`Steady`] for a rate, recorded times for a replay.

use std::iter::Peekable;
use std::time::Duration;

use sextant_ring::time::Time;

/// Intended times, in order.
#[derive(Debug)]
pub struct Schedule<I: Iterator<Item = Time>> {
    times: Peekable<I>,
}

impl<I: Iterator<Item = Time>> Schedule<I> {
    /// A schedule of these times, which do not go backwards.
    pub fn new(times: I) -> Schedule<I> {
        Schedule { times: times.peekable() }
    }

    /// When the next operation shall start; `None` after the last.
    pub fn next_time(&mut self) -> Option<Time> {
        self.times.peek().copied()
    }

    /// Takes the next operation if it is due: the time at which it shall start, or should have.
    pub fn take_due(&mut self, now: Time) -> Option<Time> {
        self.times.next_if(|intended| *intended <= now)
    }
}

/// A constant rate, without end.
///
/// The n-th time is computed from the first and not from the one before it, so that rounding does
/// not add up.
#[derive(Clone, Copy, Debug)]
pub struct Steady {
    start: Time,
    per_second: f64,
    taken: u64,
}

impl Steady {
    /// Operations at `start`, and `per_second` times a second from there on.
    ///
    /// # Panics
    /// If the rate is not a positive number.
    pub fn new(start: Time, per_second: f64) -> Steady {
        assert!(per_second.is_finite() && per_second > 0.0, "a rate is positive");
        Steady { start, per_second, taken: 0 }
    }
}

impl Iterator for Steady {
    type Item = Time;

    fn next(&mut self) -> Option<Time> {
        let nanos = self.taken as f64 / self.per_second * 1e9;
        self.taken += 1;
        Some(self.start + Duration::from_nanos(nanos as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::Recorder;

    const MS: u64 = 1_000_000;

    fn at_ms(ms: u64) -> Time {
        Time::from_nanos(ms * MS)
    }

    #[test]
    fn a_rate_keeps_its_step_over_a_day() {
        let mut steady = Steady::new(at_ms(5), 3.0);
        assert_eq!(steady.next(), Some(at_ms(5)));
        let day = steady.nth(3 * 86_400 - 1).unwrap();
        assert!(day.since(at_ms(5)).abs_diff(Duration::from_secs(86_400)).as_nanos() < 1_000);
    }

    #[test]
    fn nothing_is_due_before_its_time() {
        let mut schedule = Schedule::new(Steady::new(at_ms(10), 1000.0));
        assert_eq!(schedule.take_due(at_ms(9)), None);
        assert_eq!(schedule.next_time(), Some(at_ms(10)));
        assert_eq!(schedule.take_due(at_ms(10)), Some(at_ms(10)));
        assert_eq!(schedule.take_due(at_ms(10)), None);
    }

    #[test]
    fn recorded_times_end() {
        let mut schedule = Schedule::new([at_ms(1), at_ms(1), at_ms(4)].into_iter());
        assert_eq!(schedule.take_due(at_ms(9)), Some(at_ms(1)));
        assert_eq!(schedule.take_due(at_ms(9)), Some(at_ms(1)));
        assert_eq!(schedule.take_due(at_ms(9)), Some(at_ms(4)));
        assert_eq!((schedule.next_time(), schedule.take_due(at_ms(9))), (None, None));
    }

    /// A server that answers within the millisecond, but stands still for one second out of ten:
    /// a tenth of all operations meets the pause, and the percentiles have to show that.
    #[test]
    fn a_server_that_stands_still_shows_in_the_percentiles() {
        let mut schedule = Schedule::new(Steady::new(Time::ZERO, 1000.0));
        let mut recorder = Recorder::default();
        recorder.open(Time::ZERO);
        for ms in 0..10_000 {
            if (4_000..5_000).contains(&ms) {
                continue; // Neither answers nor, in a closed loop, the next request.
            }
            while let Some(intended) = schedule.take_due(at_ms(ms)) {
                recorder.record(intended, at_ms(ms));
            }
        }
        let summary = recorder.summary();
        assert_eq!(summary.count, 10_000);
        let (p89, p95) = (recorder.quantile_ns(0.89), recorder.quantile_ns(0.95));
        assert!(p89 <= MS, "{p89}");
        assert!((450 * MS..=550 * MS).contains(&p95), "{p95}");
        assert!(summary.max_ns >= 999 * MS);
    }
}
