//! The checksum of files and payloads: CRC-64 with the polynomial of Jones.

use crc::{CRC_64_REDIS, Crc, Digest, Table};

static CRC64: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_REDIS);

/// A sum that grows with the bytes that pass.
#[derive(Clone)]
pub(crate) struct Sum(Digest<'static, u64, Table<16>>);

impl Sum {
    pub(crate) fn new() -> Sum {
        Sum(CRC64.digest())
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.clone().finalize()
    }
}

pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    CRC64.checksum(bytes)
}
