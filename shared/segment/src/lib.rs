//! An append-only, checksummed log, written and read through the ring.
//!
//! A [`Log`] is a directory of segment files of fixed size, zeroed before they are used. One core
//! owns it. It performs no operation itself and never blocks after [`Log::open`]: it asks for file
//! operations through [`Files`](sextant_ring::driver::Files), and is fed what they came to.
//!
//! ```text
//!   append ──► commit buffer ──► WriteSync ──► handle ──► ackable()      acknowledge up to here
//!     │         (one a turn,      (one at a     │
//!     │          grows while       time)        └──────► durable()       what a crash cannot take
//!     │          one is out)
//!     └─ Err: nothing was accepted
//!
//!   read ──► Hot: from the commit buffers, or the newest bytes, which stay in memory
//!     └────► Cold ──► fetch ──► Read ──► handle ──► next_fetched()
//! ```
//!
//! One turn of the loop:
//!
//! 1. [`Log::append`] for each thing that must not be lost;
//! 2. [`Log::handle`] for each completion whose ticket the log [owns](Log::owns), then
//!    acknowledge up to [`Log::ackable`];
//! 3. [`Log::commit`] once, at the turn's end, and a timer at [`Log::deadline`].
//!
//! Only at the start, before the loop runs, is a log read through maps, and may block:
//! [`Log::open`], [`Log::records`], [`Log::load`]. While it runs no page fault and no bad sector
//! is the core's: see [`Log::read`] and [`Log::sweep`].
//!
//! A segment whose content is no longer needed is freed whole. What is needed still of the oldest
//! one is read with [`Log::sweep`], appended again with [`Log::relocate`], and the segment goes
//! once that is durable: [`Log::remove_when_durable`]. What "needed" means is the caller's;
//! [`Log::retire`] keeps the count. Where age or size alone decide, [`Log::retain`] asks for the
//! removal.
//!
//! [`Log::checkpoint`] says from which record on an opening has to read: it reads little of what
//! is older than that.
//!
//! [`Log::snapshot`] makes a copy that opens as a log: sealed segments get a second name, the active
//! one is copied.
//!
//! A thread that has no ring and may wait for the disk owns a [`BlockingLog`]. Whoever is not the
//! owner reads with a [`SegmentFile`].
//!
//! The bytes are described in `FORMAT.md`; module `format` is their only reader and writer.
//! Locking the directory against other processes is left to whoever owns the data directory.

mod block;
mod blocking;
mod checkpoint;
mod commit;
mod error;
mod fetch;
mod file;
mod format;
mod hot;
mod log;
mod options;
mod position;
mod prepare;
mod read;
mod recover;
mod remove;
mod retain;
mod snapshot;
mod sweep;

pub use block::{BlockBuilder, Fact, FactError, Facts};
pub use blocking::BlockingLog;
pub use error::{
    AppendError, Corruption, FetchError, OpenError, ReadError, ReadOnly, RemoveError, SnapshotError,
};
pub use fetch::Fetched;
pub use file::{Items, ItemsEnd, Passed, SegmentFile, segments_in};
pub use format::stored_bytes;
pub use log::{Appended, Log, Progress, SegmentInfo};
pub use options::{Durability, Options, Retention};
pub use position::{Position, SegmentId, Seq};
pub use read::{Cursor, Read, Record};
pub use recover::Recovery;
pub use snapshot::Snapshot;
pub use sweep::{Sweep, Swept};
