//! The databases of one store instance in memory: no I/O, no clock, no protocol.
//!
//! ```text
//!   Keyspace ── databases: an Index each ──► blocks of the Heap: key, expiry, small value
//!      │                                         └─ large value: the number of an Object
//!      ├── journal: each change as an Effect ──► the log (elsewhere) ──► apply, at a start
//!      └── expiry: which key may expire next
//! ```
//!
//! Everything is bounded work: tables grow page by page, large values are freed in slices
//! ([`Keyspace::shed`]), keys expire a few at a time ([`Keyspace::expire_due`]), scans are resumed
//! by a cursor.

mod apply;
mod collection;
mod effect;
mod entry;
mod eviction;
mod expiry;
mod hash;
mod heap;
mod image;
mod index;
mod keyspace;
mod list;
mod long;
#[cfg(test)]
mod measure;
mod object;
pub mod packed;
mod prefetch;
#[cfg(test)]
mod replay_tests;
mod set;
pub mod stream;
mod strings;
mod table;
pub mod tree;
mod zset;

pub use apply::ApplyError;
pub use collection::{Encoding, Removed};
pub use effect::{Effect, Effects, Journal, NoEffect, Side, Target};
pub use entry::{EXPIRE_MAX, Kind};
pub use eviction::{Frequency, Sample};
pub use hash::{Fields, FieldsIter};
pub use heap::{Heap, OutOfMemory, Ref};
pub use image::{ImageError, Mark};
pub use index::Cursor;
pub use keyspace::{Event, Found, Keyspace, Refused, Type};
pub use list::{Elements, ElementsIter};
pub use long::{Long, PART_BYTES};
pub use set::{Ints, Members, MembersIter};
pub use strings::{Text, canonical_int};
pub use table::{Items, Pool, Table};
pub use zset::{Scored, Scores};
