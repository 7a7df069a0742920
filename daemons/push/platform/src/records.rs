//! The records of the platform's log.
//!
//! ```text
//!   kind      payload                                              integers are little-endian
//!   KEY_OF_IDS  32 bytes
//!   REGISTRY    a record of the registry
//!   CREDENTIAL  JSON          GONE_CREDENTIAL  JSON
//!   TARGETS     message u64 ‖ roaring bitmap                        before its message
//!   MESSAGE     message u64 ‖ bitmap bytes u32 ‖ bitmap ‖ JSON      commits the targets before it
//!   STATE       message u64 ‖ JSON
//!   REACHED     message u64 ‖ stage u8 ‖ roaring bitmap             of many devices
//!   TOLD        message u64 ‖ JSON: losses, latencies, time line    of many devices
//!   FEW         (message u64 ‖ count u8 ‖ (device u32 ‖ bits u16 ‖ reason u8)…)…
//!   SCANNED     u64: facts of audit records below are in what was said before
//!   COUNTERS    a record of what devices have had
//!   QUOTA       a record of what a sender has used
//!   LIST        list u128 ‖ JSON   LISTED  list u128 ‖ bitmap   VARS  list u128 ‖ (device u32 ‖ len u32 ‖ JSON)…
//!   GONE_LIST   list u128
//!   HOOK        JSON          DEAD_LETTER  JSON          GONE_HOOK  JSON
//!   GENERATION  u32 ‖ device id: the least of its tokens'
//! ```
//!
//! A bitmap that is larger than a record is in several, each of four million numbers of devices.

use roaring::RoaringBitmap;

pub(crate) const KEY_OF_IDS: u8 = 1;
pub(crate) const REGISTRY: u8 = 2;
pub(crate) const CREDENTIAL: u8 = 3;
pub(crate) const GONE_CREDENTIAL: u8 = 4;
pub(crate) const TARGETS: u8 = 5;
pub(crate) const MESSAGE: u8 = 6;
pub(crate) const STATE: u8 = 7;
pub(crate) const REACHED: u8 = 8;
pub(crate) const TOLD: u8 = 9;
pub(crate) const FEW: u8 = 10;
pub(crate) const SCANNED: u8 = 11;
pub(crate) const COUNTERS: u8 = 12;
pub(crate) const QUOTA: u8 = 13;
pub(crate) const LIST: u8 = 14;
pub(crate) const LISTED: u8 = 15;
pub(crate) const VARS: u8 = 16;
pub(crate) const GONE_LIST: u8 = 17;
pub(crate) const GENERATION: u8 = 18;
pub(crate) const HOOK: u8 = 19;
pub(crate) const DEAD_LETTER: u8 = 20;
pub(crate) const GONE_HOOK: u8 = 21;

/// Numbers of devices in one record: 64 containers of a bitmap, at most 8 KiB each.
const PART_BITS: u32 = 22;

/// A record that is none of this version's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record of the platform's log has a form that this version does not know")]
pub(crate) struct Unreadable;

/// Reads bytes from their front.
pub(crate) struct Take<'a>(pub(crate) &'a [u8]);

impl<'a> Take<'a> {
    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Unreadable> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or(Unreadable)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        self.bytes(N)?.try_into().map_err(|_| Unreadable)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Unreadable> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Unreadable> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Unreadable> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Unreadable> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn u128(&mut self) -> Result<u128, Unreadable> {
        self.array().map(u128::from_le_bytes)
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

/// The parts of a bitmap, each as it is kept in one record.
pub(crate) fn parts(bitmap: &RoaringBitmap) -> impl Iterator<Item = Vec<u8>> {
    let last = bitmap.max().map_or(0, |max| max >> PART_BITS);
    let whole = last == 0;
    (0..=last).filter_map(move |part| {
        if whole {
            return Some(bytes_of(bitmap));
        }
        let mut range = RoaringBitmap::new();
        range.insert_range(part << PART_BITS..=(part << PART_BITS) + ((1 << PART_BITS) - 1));
        range &= bitmap;
        (!range.is_empty()).then(|| bytes_of(&range))
    })
}

/// Whether a bitmap is in one record.
pub(crate) fn is_one_part(bitmap: &RoaringBitmap) -> bool {
    bitmap.max().is_none_or(|max| max >> PART_BITS == 0)
}

pub(crate) fn bytes_of(bitmap: &RoaringBitmap) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(bitmap.serialized_size());
    bitmap.serialize_into(&mut bytes).expect("a vector takes all of it");
    bytes
}

pub(crate) fn bitmap_of(bytes: &[u8]) -> Result<RoaringBitmap, Unreadable> {
    RoaringBitmap::deserialize_from(bytes).map_err(|_| Unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bitmap_comes_back_from_its_parts() {
        let small: RoaringBitmap = [1, 70_000, 4_000_000].into_iter().collect();
        let mut large: RoaringBitmap = (0..1000).map(|number| number * 9973).collect();
        large.insert_range(30_000_000..31_000_000);
        large.insert(u32::MAX);
        for bitmap in [RoaringBitmap::new(), small, large] {
            let parts: Vec<_> = parts(&bitmap).collect();
            assert_eq!(parts.len() == 1, is_one_part(&bitmap));
            assert!(parts.iter().all(|part| part.len() < 600 << 10));
            let mut again = RoaringBitmap::new();
            for part in parts {
                again |= bitmap_of(&part).expect("as written");
            }
            assert_eq!(again, bitmap);
        }
    }
}
