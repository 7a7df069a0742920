//! The limits of a log, and when what was appended counts as safe.

use std::time::Duration;

use crate::format::{CHECKPOINT_BYTES, HEADER_BYTES, MARK_BYTES, RESERVED_BYTES, stored_bytes};

/// When an append may be acknowledged, and when the disk is told to keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Acknowledged once an `fdatasync` has covered it. What is appended in one turn, and while
    /// the sync before is under way, shares the next.
    Always,
    /// Acknowledged at once, written and synced this long after the turn in which it was
    /// appended. A crash of the process or of the machine loses at most what was appended in
    /// that time and in the time that the disk takes.
    Every(Duration),
    /// Acknowledged once the kernel has it, so that a crash of the process loses nothing that was
    /// acknowledged; a crash of the machine loses what the kernel had not yet written. A segment
    /// is synced when it is full.
    Os,
}

/// What may stay, by [`Log::retain`](crate::Log::retain); without limits everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Whole segments go, the oldest first, until all files together are at most this many bytes.
    /// At least four of the smallest segments and at most half of
    /// [`bytes_max`](Options::bytes_max), so that appends never wait for it.
    pub bytes_max: Option<u64>,
    /// A segment goes once its latest record is this old, by the times that the records'
    /// writer gave. The newest segment stays until it is full.
    pub age_max: Option<Duration>,
}

/// The limits of a log. All of them may change between one opening and the next.
#[derive(Clone, Debug)]
pub struct Options {
    /// The identity of a log that does not exist yet: a random number that no client ever sees,
    /// since it keys the checksums against forged records. An existing log keeps its own.
    pub id: u64,
    /// The upper 16 bits of every [ticket](sextant_ring::driver::FileDone::ticket) of this log,
    /// so that several can share one core.
    pub ticket_space: u16,
    /// The size of the first segment in bytes, a multiple of 4096. Each that follows is twice as
    /// large as the one before it.
    pub segment_bytes_min: u32,
    /// What that doubling ends at. It ends at a quarter of `bytes_max` too, and of what
    /// `retention` lets stay.
    pub segment_bytes_max: u32,
    /// All segment files together, a prepared one included. At least four of the smallest.
    pub bytes_max: u64,
    /// The longest payload of a record in bytes. It has to fit in the smallest segment.
    pub record_bytes_max: u32,
    /// What one write and sync covers, in bytes, unless a single record is longer.
    pub commit_bytes_max: u32,
    /// Bytes that were appended and whose write has not completed, before
    /// [`AppendError::Backlog`](crate::AppendError::Backlog).
    pub backlog_bytes_max: u32,
    /// Memory for what was written last, in bytes: it is read from there, what is older by
    /// [`Log::fetch`](crate::Log::fetch).
    pub hot_bytes: u32,
    /// When an append may be acknowledged.
    pub durability: Durability,
    /// How long appends stay in memory that nobody [waits for][hurry], so that many share
    /// one write and sync; shorter if they fill one. With zero, by default, everybody is taken to
    /// wait for every append. [`Durability::Every`] has its own time.
    ///
    /// [hurry]: crate::Log::hurry
    pub linger: Duration,
    /// What may stay.
    pub retention: Retention,
    /// An opening reads everything, whatever [checkpoints](crate::Log::checkpoint) say: for whoever
    /// has lost what made the rest unnecessary.
    pub whole: bool,
}

impl Options {
    /// The largest segment, in bytes.
    pub const SEGMENT_BYTES_LIMIT: u32 = 1 << 30;

    /// Segments from 4 MiB to 64 MiB, 8 GiB together; records and commits of 1 MiB, a backlog of
    /// 8 MiB; the newest 16 MiB in memory; durable before acknowledged;
    /// nothing goes by itself.
    pub fn new(id: u64, ticket_space: u16) -> Options {
        Options {
            id,
            ticket_space,
            segment_bytes_min: 4 << 20,
            segment_bytes_max: 64 << 20,
            bytes_max: 8 << 30,
            record_bytes_max: 1 << 20,
            commit_bytes_max: 1 << 20,
            backlog_bytes_max: 8 << 20,
            hot_bytes: 16 << 20,
            durability: Durability::Always,
            linger: Duration::ZERO,
            retention: Retention::default(),
            whole: false,
        }
    }

    /// Whether the limits fit together.
    ///
    /// # Errors
    /// Which of them do not, in words for whoever configured them.
    pub fn check(&self) -> Result<(), &'static str> {
        let record_segment = u64::from(HEADER_BYTES)
            + u64::from(MARK_BYTES)
            + u64::from(CHECKPOINT_BYTES + MARK_BYTES)
            + u64::from(stored_bytes(self.record_bytes_max as usize))
            + u64::from(RESERVED_BYTES);
        let kept = self.retention.bytes_max.unwrap_or(self.bytes_max / 2);
        let rules = [
            (
                self.segment_bytes_min.is_multiple_of(4096) && self.segment_bytes_min > 0,
                "segment_bytes_min is a positive multiple of 4096",
            ),
            (
                self.segment_bytes_min <= self.segment_bytes_max,
                "segment_bytes_min is at most segment_bytes_max",
            ),
            (
                self.segment_bytes_max <= Self::SEGMENT_BYTES_LIMIT,
                "segment_bytes_max is at most 1 GiB",
            ),
            (
                self.bytes_max / 4 >= u64::from(self.segment_bytes_min),
                "bytes_max is at least four times segment_bytes_min",
            ),
            (
                record_segment <= u64::from(self.segment_bytes_min),
                "record_bytes_max fits in a segment of segment_bytes_min",
            ),
            (
                (4096..=64 << 20).contains(&self.commit_bytes_max),
                "commit_bytes_max is between 4 KiB and 64 MiB",
            ),
            (
                self.backlog_bytes_max >= self.commit_bytes_max
                    && u64::from(self.backlog_bytes_max)
                        >= u64::from(stored_bytes(self.record_bytes_max as usize)) + 128,
                "backlog_bytes_max is at least commit_bytes_max and the longest record",
            ),
            (
                self.durability != Durability::Every(Duration::ZERO),
                "the time between two syncs is not zero",
            ),
            (
                kept / 4 >= u64::from(self.segment_bytes_min) || self.retention.bytes_max.is_none(),
                "retention.bytes_max is at least four times segment_bytes_min",
            ),
            (kept <= self.bytes_max / 2, "retention.bytes_max is at most half of bytes_max"),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(rule),
            None => Ok(()),
        }
    }

    /// The largest segment that these limits lead to: a multiple of 4096.
    pub(crate) fn segment_bytes_top(&self) -> u32 {
        let kept = self.retention.bytes_max.unwrap_or(self.bytes_max).min(self.bytes_max);
        let quarter = u32::try_from(kept / 4).unwrap_or(u32::MAX);
        let top = self.segment_bytes_max.min(quarter) / 4096 * 4096;
        top.max(self.segment_bytes_min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_of_a_new_log_fit_together() {
        assert_eq!(Options::new(1, 0).check(), Ok(()));
    }

    #[test]
    fn limits_that_do_not_fit_together_are_named() {
        let broken = |change: fn(&mut Options)| {
            let mut options = Options::new(1, 0);
            change(&mut options);
            options.check().expect_err("it has to be refused")
        };
        assert!(broken(|o| o.segment_bytes_min = 5000).contains("4096"));
        assert!(broken(|o| o.segment_bytes_max = 4096).contains("segment_bytes_max"));
        assert!(broken(|o| o.segment_bytes_max = u32::MAX).contains("1 GiB"));
        assert!(broken(|o| o.bytes_max = 4 << 20).contains("four times"));
        assert!(broken(|o| o.record_bytes_max = u32::MAX).contains("record_bytes_max"));
        assert!(broken(|o| o.commit_bytes_max = 1).contains("commit_bytes_max"));
        assert!(broken(|o| o.backlog_bytes_max = 1 << 20).contains("backlog_bytes_max"));
        assert!(broken(|o| o.durability = Durability::Every(Duration::ZERO)).contains("zero"));
        assert!(broken(|o| o.retention.bytes_max = Some(15 << 20)).contains("four times"));
        assert!(broken(|o| o.retention.bytes_max = Some(5 << 30)).contains("half"));
    }

    #[test]
    fn no_segment_takes_more_than_a_quarter_of_the_quota() {
        let options = Options { bytes_max: 40 << 20, ..Options::new(1, 0) };
        assert_eq!(options.segment_bytes_top(), 10 << 20);
        assert_eq!(Options::new(1, 0).segment_bytes_top(), 64 << 20);
        let retention = Retention { bytes_max: Some(20 << 20), age_max: None };
        let options = Options { retention, ..Options::new(1, 0) };
        assert_eq!(options.segment_bytes_top(), 5 << 20);
    }
}
