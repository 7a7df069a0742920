//! The audit of the push platform: what happened to every message, for its whole life, in a log
//! that nobody changes unseen.
//!
//! A [`Fact`] is one thing that happened to one message on one device; an [`Event`] is one that
//! happened to a message as a whole, or to the platform. They are records of a log, chained by
//! their hashes, and an index beside each segment finds them by message, device, app and time.
//!
//! ```text
//!   ledger thread                             any thread
//!   Writer ── facts, event, tick ──► log ◄──── Reader ── query, export, scan_facts
//!      │                            ├ 0000000001.seg  records, checksummed and chained
//!      └── flush: durable           ├ 0000000001.idx  what is in which record
//!                                   └ 0000000002.seg                ▲
//!                                                           verify ─┘ (any process)
//! ```
//!
//! One thread owns the [`Writer`], which may wait for the disk. A [`Reader`] takes a snapshot of
//! what was written and goes on by itself. [`verify()`] reads everything, of an audit at rest or
//! of one that is written, and says which record was changed, is missing or out of order; a
//! [`Head`] that was published before finds a log whose end was cut off.
//!
//! What it costs, half of the facts being of broadcasts and half of messages to one device: 60 ns of
//! a processor for a fact, and 12 bytes for a delivery of three, index included. Among a hundred
//! million facts the life of a message is found in 0.2 ms (the 99th percentile is 4 ms), and all
//! that a device ever got in 8 ms (22 ms), through 55 records; all of it is verified in 2.3 s.
//! (`cargo run --release -p sextant-audit --example measure_audit -- --facts 100000000`, on two busy cores
//! of an AMD EPYC.)
//!
//! The bytes are described in `FORMAT.md`. What the numbers of messages, devices and apps mean,
//! and who may ask for what, is the caller's.

mod chain;
mod export;
mod fact;
mod filter;
mod index;
mod open;
mod options;
mod query;
mod reader;
mod record;
mod shared;
mod sidecar;
mod verify;
mod writer;

pub use chain::{Hash, Head, HeadError};
pub use export::Exported;
pub use fact::{Event, EventError, EventKind, Fact, Stage, Stages};
pub use open::{OpenError, Opened};
pub use options::Options;
pub use query::{Content, Cursor, CursorError, Entry, Page, Query};
pub use reader::{Reader, Scanned};
#[doc(hidden)]
pub use record::fuzz_record;
pub use sextant_segment::{Position, ReadError, Retention, SegmentId};
#[doc(hidden)]
pub use sidecar::fuzz_index;
pub use verify::{Damage, Expected, Progress, Report, What, verify};
pub use writer::{WriteError, Writer};
