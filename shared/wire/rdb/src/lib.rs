//! Redis' files of a data set (RDB) and its payloads of one value (DUMP), without I/O: read and
//! written.
//!
//! Files of versions 1 to 11 are read, which is everything up to Redis 7.2, and those of Valkey
//! up to 9 as long as no field of a hash has an expiry of its own. What is written is version 10,
//! in encodings that every server since Redis 7.0 loads.
//!
//! ```text
//!   bytes of a file ──► Reader::push        one value ──► dump ──► type · value · version · CRC
//!                          │                                           │
//!                          ▼                one value ◄── restore ◄────┘
//!                       Reader::next
//!          Aux  Function  Sizes  Begin  Elements…  End  Done
//!                                  │       │        │
//!   bytes of a file ◄── Writer ◄───┴───────┴────────┘
//! ```
//!
//! A collection comes in batches of bounded size, so a file is read in memory that its longest
//! string or packed node sets, not its longest collection. Nothing here panics on what a file
//! says, allocates for a length that a file only claims, or reads a byte more than a few times.
//!
//! Times are milliseconds since 1970; lengths are bytes unless they count elements.

mod crc64;
mod decode;
mod dump;
mod error;
mod input;
mod lzf;
mod node;
mod reader;
mod stream;
mod value;
mod writer;

#[cfg(test)]
mod tests;

pub use dump::{RestoreError, dump, restore};
pub use error::RdbError;
pub use input::STRING_BYTES_MAX;
pub use reader::{Item, Reader};
pub use value::{
    BATCH_BYTES, BATCH_ELEMENTS, Consumer, Elements, Group, Header, Kind, Pending, Stream,
    StreamEntry, StreamId, StreamState, Value,
};
pub use writer::{VERSION, WriteError, Writer};
