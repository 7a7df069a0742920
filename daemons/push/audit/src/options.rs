//! The limits of an audit.

use sextant_segment::{Durability, Retention};

use crate::record::PAYLOAD_BYTES_MAX;

/// The limits of an audit. All of them may change between one opening and the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Facts that gather before they are sorted and cut into blocks, 24 bytes of memory each; and
    /// as many as one [`Writer::facts`](crate::Writer::facts) takes.
    pub batch_facts: usize,
    /// How long they gather at most, in milliseconds, by the times that
    /// [`Writer::tick`](crate::Writer::tick) is told.
    pub batch_ms: u64,
    /// The size of the first segment in bytes, a multiple of 4096, and at least 128 KiB. Each that
    /// follows is twice as large as the one before it.
    pub segment_bytes_min: u32,
    /// What that doubling ends at. The index of one segment is in memory while it is written, and
    /// an opening reads one.
    pub segment_bytes_max: u32,
    /// What all segments together may be, in bytes: more is refused. The files of indexes, about
    /// an eighth of that, are not counted.
    pub bytes_max: u64,
    /// Indexes of sealed segments that are kept in memory once they were asked: at most half a
    /// megabyte each, of segments of 64 MiB. Of others a question reads the files again.
    pub indexes_kept: usize,
    /// What may stay: at most half of `bytes_max`, so that nothing is refused.
    pub retention: Retention,
}

impl Default for Options {
    /// 64 Ki facts or a second; segments from 1 MiB to 64 MiB; 64 GiB of them, of which the newest
    /// 32 GiB stay; 128 indexes in memory.
    fn default() -> Options {
        Options {
            batch_facts: 64 << 10,
            batch_ms: 1000,
            segment_bytes_min: 1 << 20,
            segment_bytes_max: 64 << 20,
            bytes_max: 64 << 30,
            indexes_kept: 128,
            retention: Retention { bytes_max: Some(32 << 30), age_max: None },
        }
    }
}

impl Options {
    /// The most facts that may gather.
    pub const BATCH_FACTS_MAX: usize = 1 << 20;

    /// Whether the limits fit together.
    ///
    /// # Errors
    /// Which of them do not, in words for whoever configured them.
    pub fn check(&self) -> Result<(), &'static str> {
        if !(1..=Self::BATCH_FACTS_MAX).contains(&self.batch_facts) {
            return Err("batch_facts is between 1 and 1,048,576");
        }
        self.log(0).check()
    }

    /// The limits of the log. What is written is synced by a flush, or when a segment is full.
    pub(crate) fn log(&self, id: u64) -> sextant_segment::Options {
        sextant_segment::Options {
            segment_bytes_min: self.segment_bytes_min,
            segment_bytes_max: self.segment_bytes_max,
            bytes_max: self.bytes_max,
            record_bytes_max: PAYLOAD_BYTES_MAX as u32,
            hot_bytes: 0,
            durability: Durability::Os,
            retention: self.retention,
            ..sextant_segment::Options::new(id, 0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_of_a_new_audit_fit_together_and_others_are_named() {
        assert_eq!(Options::default().check(), Ok(()));
        let smallest = Options { segment_bytes_min: 128 << 10, ..Options::default() };
        assert_eq!(smallest.check(), Ok(()));
        let none = Options { batch_facts: 0, ..Options::default() };
        assert!(none.check().is_err_and(|why| why.contains("batch_facts")));
        let small = Options { segment_bytes_min: 64 << 10, ..Options::default() };
        assert!(small.check().is_err_and(|why| why.contains("record_bytes_max")));
        let retention = Retention { bytes_max: Some(64 << 30), age_max: None };
        let much = Options { retention, ..Options::default() };
        assert!(much.check().is_err_and(|why| why.contains("half")));
    }
}
