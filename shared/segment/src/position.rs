//! Where a record is, and which one it is. A [`Seq`] names a record for good; a [`Position`] says
//! where its bytes are, until its segment is removed.

use std::fmt;

/// A record's sequence number. The first record of a log is 1, and each follows the one before it
/// without a gap, across segments and restarts. Zero stands for "none yet".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A segment's number. The first of a log is 1; numbers are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u32);

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Where a record is: a segment, and the offset of the record's header in it in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The segment.
    pub segment: SegmentId,
    /// Bytes from the segment's start.
    pub offset: u32,
}

impl Position {
    /// Both parts in one number, in the order of the log: for an index in memory or on disk.
    pub fn to_bits(self) -> u64 {
        u64::from(self.segment.0) << 32 | u64::from(self.offset)
    }

    /// The inverse of [`Position::to_bits`]. Any number is a position; whether a record is there
    /// is for [`Log::read`](crate::Log::read) to find out.
    pub fn from_bits(bits: u64) -> Position {
        Position { segment: SegmentId((bits >> 32) as u32), offset: bits as u32 }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.segment, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_survives_its_bits_and_keeps_the_order_of_the_log() {
        let early = Position { segment: SegmentId(1), offset: u32::MAX };
        let late = Position { segment: SegmentId(2), offset: 512 };
        assert_eq!(Position::from_bits(early.to_bits()), early);
        assert_eq!(Position::from_bits(late.to_bits()), late);
        assert!(early < late && early.to_bits() < late.to_bits());
    }
}
