//! Any bytes as records of the push daemon's log: what is read is written as bytes that are read
//! as the same.

use bytes::Bytes;

pub(crate) fn run(bytes: &[u8]) {
    sextant_push::broker::fuzz_records(&Bytes::copy_from_slice(bytes));
}
