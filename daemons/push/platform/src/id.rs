//! The names of messages: a number inside, a UUID outside.
//!
//! ```text
//!   number  64 bits   milliseconds since 1970, 44 │ count within it, 20
//!   UUID   128 bits   milliseconds, 48 │ 7 │ count's upper 12 │ 10 │ its lower 8 │ code, 54
//! ```
//!
//! Bitmaps, queues and the audit have the number; senders and devices have the UUID, of version 7,
//! in which the number is. The code is made of the number with a key that the data directory has: a
//! UUID that this platform did not give out names nothing, and none is guessed.

use uuid::Uuid;

const COUNT_BITS: u32 = 20;
const CODE_BITS: u32 = 54;
const CODE_MASK: u64 = (1 << CODE_BITS) - 1;

/// The bytes of the key that codes are made with.
pub const KEY_BYTES: usize = 32;

/// Translates between numbers and UUIDs.
#[derive(Clone)]
pub struct Ids([u8; KEY_BYTES]);

impl std::fmt::Debug for Ids {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ids(<redacted>)")
    }
}

impl Ids {
    /// Those of this key.
    pub fn new(key: [u8; KEY_BYTES]) -> Ids {
        Ids(key)
    }

    /// The key, for the log that keeps it.
    pub(crate) fn key(&self) -> [u8; KEY_BYTES] {
        self.0
    }

    /// The UUID of a number.
    pub fn uuid(&self, number: u64) -> Uuid {
        let (ms, count) = (number >> COUNT_BITS, number & ((1 << COUNT_BITS) - 1));
        let upper = (ms << 16) | (7 << 12) | (count >> 8);
        let lower = (2 << 62) | ((count & 0xff) << CODE_BITS) | self.code(number);
        Uuid::from_u64_pair(upper, lower)
    }

    /// The number of a UUID that was given out here.
    pub fn number(&self, uuid: Uuid) -> Option<u64> {
        let (upper, lower) = uuid.as_u64_pair();
        let count = (upper & 0xfff) << 8 | (lower >> CODE_BITS) & 0xff;
        let number = (upper >> 16) << COUNT_BITS | count;
        (self.uuid(number) == uuid).then_some(number)
    }

    fn code(&self, number: u64) -> u64 {
        let hash = blake3::keyed_hash(&self.0, &number.to_be_bytes());
        let [a, b, c, d, e, f, g, h, ..] = *hash.as_bytes();
        u64::from_be_bytes([a, b, c, d, e, f, g, h]) & CODE_MASK
    }
}

/// The number behind `last` at the time `now_ms`. Numbers ascend, even if the clock was set back.
pub fn next(last: u64, now_ms: u64) -> u64 {
    (now_ms << COUNT_BITS).max(last + 1)
}

/// About when a number was given, in milliseconds since 1970.
pub fn time(number: u64) -> u64 {
    number >> COUNT_BITS
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_795_000_000_000;

    #[test]
    fn a_number_comes_back_from_its_uuid_which_is_of_version_7() {
        let ids = Ids::new([7; KEY_BYTES]);
        let mut last = next(0, NOW_MS);
        for _ in 0..100_000 {
            let uuid = ids.uuid(last);
            assert_eq!(ids.number(uuid), Some(last));
            assert_eq!((uuid.get_version_num(), time(last)), (7, NOW_MS));
            assert_eq!(uuid.get_variant(), uuid::Variant::RFC4122);
            last = next(last, NOW_MS);
        }
    }

    #[test]
    fn a_uuid_of_somebody_else_names_nothing() {
        let ids = Ids::new([7; KEY_BYTES]);
        let uuid = ids.uuid(next(0, NOW_MS)).as_u128();
        for bit in 0..128 {
            assert_eq!(ids.number(Uuid::from_u128(uuid ^ 1 << bit)), None, "bit {bit}");
        }
        assert_eq!(Ids::new([8; KEY_BYTES]).number(Uuid::from_u128(uuid)), None);
    }

    #[test]
    fn numbers_ascend_when_the_clock_is_set_back() {
        let first = next(0, NOW_MS);
        assert!(next(first, NOW_MS - 10_000) > first);
        assert!(next(first, NOW_MS + 1) > next(first, NOW_MS));
    }
}
