//! What became of operations. A [`Recorder`] is told the intended start of each operation and when
//! it was done; the difference goes into an HDR histogram (three digits, up to ten minutes).
//!
//! ```text
//!   warm-up │ window                      │ drain
//!           open                          close
//!      ×    ├── counts, if intended here ─┤   … even if it is done here
//! ```
//!
//! Which operations are measured goes by their intended start. Those of the window that are done
//! after it count too; else the slowest ones would be left out.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use sextant_ring::time::Time;

const LATENCY_NS_MAX: u64 = 600_000_000_000;

/// Latencies of the operations that were intended within a window.
#[derive(Debug)]
pub struct Recorder {
    latency_ns: Histogram<u64>,
    from: Time,
    until: Time,
    done: u64,
}

impl Default for Recorder {
    fn default() -> Recorder {
        let latency_ns = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3);
        Recorder {
            latency_ns: latency_ns.expect("these bounds are right"),
            from: Time::NEVER,
            until: Time::NEVER,
            done: 0,
        }
    }
}

impl Recorder {
    /// Begins the window: operations intended from now on are measured.
    pub fn open(&mut self, now: Time) {
        self.from = now;
    }

    /// Ends the window: operations intended from now on are not measured.
    pub fn close(&mut self, now: Time) {
        self.until = now;
    }

    /// Whether an operation intended then is measured.
    pub fn covers(&self, intended: Time) -> bool {
        self.from <= intended && intended < self.until
    }

    /// An operation that should have started at `intended` is done.
    pub fn record(&mut self, intended: Time, now: Time) {
        self.done += 1;
        if self.covers(intended) {
            let latency = u64::try_from(now.since(intended).as_nanos()).unwrap_or(u64::MAX);
            self.latency_ns.saturating_record(latency);
        }
    }

    /// Operations that are done, in the window or not.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// The latency that this share of the measured operations does not exceed, in nanoseconds.
    pub fn quantile_ns(&self, quantile: f64) -> u64 {
        self.latency_ns.value_at_quantile(quantile)
    }

    /// The measured operations in a few numbers.
    pub fn summary(&self) -> Summary {
        Summary {
            count: self.latency_ns.len(),
            mean_ns: self.latency_ns.mean() as u64,
            p50_ns: self.quantile_ns(0.5),
            p90_ns: self.quantile_ns(0.9),
            p99_ns: self.quantile_ns(0.99),
            p999_ns: self.quantile_ns(0.999),
            max_ns: self.latency_ns.max(),
        }
    }
}

/// Latencies in a few numbers, in nanoseconds, exact to three digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Summary {
    /// Operations measured.
    pub count: u64,
    pub mean_ns: u64,
    pub p50_ns: u64,
    pub p90_ns: u64,
    pub p99_ns: u64,
    pub p999_ns: u64,
    pub max_ns: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_goes_by_the_intended_start() {
        let mut recorder = Recorder::default();
        let at = Time::from_nanos;
        recorder.record(at(1), at(50));
        recorder.open(at(100));
        recorder.record(at(99), at(150));
        recorder.record(at(100), at(150));
        recorder.close(at(200));
        recorder.record(at(199), at(5_199));
        recorder.record(at(200), at(201));
        let summary = recorder.summary();
        assert_eq!((summary.count, recorder.done()), (2, 5));
        assert_eq!(summary.p50_ns, 50);
        assert!(summary.max_ns.abs_diff(5_000) <= 5, "{}", summary.max_ns);
    }

    #[test]
    fn an_answer_from_before_its_request_has_no_latency() {
        let mut recorder = Recorder::default();
        recorder.open(Time::ZERO);
        recorder.record(Time::from_nanos(10), Time::from_nanos(5));
        assert_eq!(recorder.summary().count, 1);
        assert!(recorder.summary().max_ns <= 1);
    }
}
