//! What can go wrong, and whose doing it is.

use std::io;
use std::path::PathBuf;

use crate::position::{Position, SegmentId};

/// Why a log could not be opened at all. Damage is not among the reasons: a damaged log opens
/// read-only, see [`Recovery::read_only`](crate::Recovery::read_only).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The operator's: limits that do not fit together.
    #[error("the log's limits do not fit together: {0}")]
    Options(&'static str),
    /// The operator's: the log was written by a later version, and is left as it is.
    #[error("segment {segment} has format version {version}, newer than this program's")]
    Version {
        /// The first segment of that version.
        segment: SegmentId,
        /// The version in its header.
        version: u16,
    },
    /// The system's.
    #[error("{}: {source}", path.display())]
    Io {
        /// What was worked on.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why an append was refused. Nothing of it was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// Resource: the quota is used up, or the disk had no room for another segment. It may work
    /// after a segment was removed, or after room was made on the disk.
    #[error("the log is full")]
    Full,
    /// Local: the log is damaged or a write failed; see [`Log::read_only`](crate::Log::read_only).
    #[error("the log is read-only")]
    ReadOnly,
    /// The caller's: longer than `record_bytes_max`.
    #[error("the record is longer than the log takes")]
    TooLarge,
    /// Resource: the disk has not kept up. It will work after some later
    /// [`Log::handle`](crate::Log::handle), which says so with
    /// [`Progress::room`](crate::Progress::room).
    #[error("the disk has not kept up with the log")]
    Backlog,
}

/// Why there is no record to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The segment was removed.
    #[error("the segment of {0} was removed")]
    Removed(Position),
    /// The caller's: nothing was ever written there, or no record begins there.
    #[error("no record begins at {0}")]
    Nowhere(Position),
    /// Local: the bytes there are not what was written.
    #[error("the record at {0} is damaged")]
    Corrupt(Position),
    /// The caller's: the log was closed.
    #[error("{0} is of a log that was closed")]
    Closed(Position),
    /// The system's: the disk did not give the bytes. Other records may be whole.
    #[error("the record at {position} cannot be read: {kind}")]
    Io {
        /// Where the record is.
        position: Position,
        /// What the system said.
        kind: io::ErrorKind,
    },
}

/// Why a record is not being fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// Resource: as much is being read as may be. It will work after some later
    /// [`Log::handle`](crate::Log::handle).
    #[error("too much is being read at once")]
    Busy,
    /// There is nothing to read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why a segment cannot be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RemoveError {
    /// The caller's: segments go in order, the oldest first.
    #[error("segment {0} is not the oldest")]
    NotOldest(SegmentId),
    /// The caller's: the segment is still appended to.
    #[error("segment {0} is not sealed")]
    NotSealed(SegmentId),
    /// Local: the log is damaged or a write failed.
    #[error("the log is read-only")]
    ReadOnly,
}

/// Why there is no snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// Resource: another one is under way.
    #[error("a snapshot of this log is under way")]
    Busy,
    /// Local: the log is damaged, or a write failed, so that nobody can say what the disk holds.
    #[error("the log is read-only")]
    ReadOnly,
    /// The system's. What was made of it was removed, as far as the disk let that happen.
    #[error("a snapshot up to segment {segment} could not be made: {kind}")]
    Io {
        /// The last segment that it was to have.
        segment: SegmentId,
        /// What the system said.
        kind: io::ErrorKind,
    },
}

/// Acknowledged data is damaged or gone: not the work of a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Corruption {
    /// Bytes that were durable are not what was written.
    #[error("segment {segment} is damaged at byte {offset}, below what was durable")]
    Damaged {
        /// Which segment.
        segment: SegmentId,
        /// The first byte of the first record that is damaged.
        offset: u32,
    },
    /// A segment's header, or its file's length, is not what was written.
    #[error("the header or length of segment {0} is damaged")]
    Header(SegmentId),
    /// A segment is of another log.
    #[error("segment {0} belongs to another log")]
    Foreign(SegmentId),
    /// A segment that has to be there is not.
    #[error("segment {0} is missing")]
    Missing(SegmentId),
}

/// Why a log takes no more appends until it is opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadOnly {
    /// It was opened so, since acknowledged data is damaged.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// It was [closed](crate::Log::close).
    #[error("the log was closed")]
    Closed,
    /// A write or sync failed, after which nobody can say what the disk holds.
    #[error("the write or sync of segment {segment} failed: {kind}")]
    Poisoned {
        /// Which segment.
        segment: SegmentId,
        /// What the system said.
        kind: io::ErrorKind,
    },
}
