//! Retention: which segments go for their age, or since all together are too many bytes.
//!
//! ```text
//!   │ 41 sealed │ 42 sealed │ 43 sealed │ 44 active │
//!    ─────────── ▲
//!     too old,   └ the first record that is left
//!     or too much
//! ```
//!
//! Only whole sealed segments go, the oldest first, by the lane that removes them durably.

use std::ops::Range;

use crate::log::Log;
use crate::options::Retention;
use crate::position::Seq;

impl Log {
    /// Asks for the removal of the segments that [`Options::retention`](crate::Options::retention)
    /// does not let stay, whether their records are live or not. Tells which records are going:
    /// the range ends with the first that is left. Those can be read until
    /// [`Progress::removed`](crate::Progress::removed) tells that their segment is gone; a crash
    /// before may bring them back, and they are told again.
    ///
    /// `unix_ms` is the time now. This costs next to nothing when nothing is to go: call it once
    /// a turn, or by a timer.
    pub fn retain(&mut self, unix_ms: u64) -> Option<Range<Seq>> {
        let Retention { bytes_max, age_max } = self.options.retention;
        if self.read_only.is_some() || (bytes_max.is_none() && age_max.is_none()) {
            return None;
        }
        let mut excess = bytes_max.map_or(0, |bytes_max| self.excess_bytes(bytes_max));
        let mut going: Option<Range<Seq>> = None;
        while let Some(oldest) = self.oldest().filter(|oldest| oldest.sealed) {
            let aged = age_max.is_some_and(|age_max| {
                let age_ms = u64::try_from(age_max.as_millis()).unwrap_or(u64::MAX);
                oldest.newest_unix_ms.saturating_add(age_ms) <= unix_ms
            });
            if !aged && excess == 0 {
                break;
            }
            excess = excess.saturating_sub(oldest.file_bytes);
            let first = self.first();
            self.remove_when_durable(oldest.id, Seq(0)).expect("it is the oldest, and sealed");
            let left = self.first();
            going = Some(going.map_or(first, |going| going.start)..left);
        }
        going
    }

    /// By how much the files that nobody asked to remove are more than they may be.
    fn excess_bytes(&self, bytes_max: u64) -> u64 {
        if self.file_bytes() <= bytes_max {
            return 0;
        }
        let going = self.segments.len() - self.segments().count();
        let going: u64 = self.segments.iter().take(going).map(|held| u64::from(held.size)).sum();
        (self.file_bytes() - going - self.remove.file_bytes()).saturating_sub(bytes_max)
    }
}
