//! A set of numbers in few bits, which may say yes of one that is not in it, and never no of one
//! that is: a split block Bloom filter. A key sets one bit in each of the eight words of one block,
//! so that a question is one line of the cache.
//!
//! ```text
//!   │ 8 words of 32 bits │ 8 words │ … │        key ─► hash ─► which block, and a bit in each word
//! ```
//!
//! At sixteen bits a key it says yes of about one in a thousand that are not in it.

/// Bits for each key.
const BITS_PER_KEY: usize = 16;

const WORDS: usize = 8;

/// The bytes of one block.
pub(crate) const BLOCK_BYTES: usize = WORDS * 4;

/// An odd number for each word of a block, with no relation to another. On disk for good: another
/// set would be another filter.
const SALTS: [u32; WORDS] = [
    0x9E37_79B1,
    0x85EB_CA77,
    0xC2B2_AE3D,
    0x27D4_EB2F,
    0x1656_67B1,
    0xB529_7A4D,
    0x68E3_1DA5,
    0x1B56_C4E9,
];

/// The blocks of a filter of so many keys.
pub(crate) fn blocks_for(keys: usize) -> usize {
    (keys * BITS_PER_KEY).div_ceil(BLOCK_BYTES * 8).max(1)
}

/// Spreads a key over all bits.
fn hash(key: u64) -> u64 {
    let mut hash = key.wrapping_add(0x9E37_79B9_7F4A_7C15);
    hash = (hash ^ hash >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    hash = (hash ^ hash >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    hash ^ hash >> 31
}

/// Where a key's block begins, in a filter of so many blocks.
fn block_at(hash: u64, blocks: usize) -> usize {
    (((hash >> 32) as usize * blocks) >> 32) * BLOCK_BYTES
}

fn bit(hash: u64, salt: u32) -> u32 {
    1 << ((hash as u32).wrapping_mul(salt) >> 27)
}

/// Adds a key to a filter, which is as many zeros as [`blocks_for`] says at first.
pub(crate) fn insert(filter: &mut [u8], key: u64) {
    let hash = hash(key);
    let at = block_at(hash, filter.len() / BLOCK_BYTES);
    for (word, salt) in filter[at..at + BLOCK_BYTES].chunks_exact_mut(4).zip(SALTS) {
        let mask = bit(hash, salt).to_le_bytes();
        word.iter_mut().zip(mask).for_each(|(byte, mask)| *byte |= mask);
    }
}

/// Whether a key may be in a filter. Of no filter it says yes.
pub(crate) fn may_have(filter: &[u8], key: u64) -> bool {
    let blocks = filter.len() / BLOCK_BYTES;
    if blocks == 0 {
        return true;
    }
    let hash = hash(key);
    let at = block_at(hash, blocks);
    filter[at..at + BLOCK_BYTES].chunks_exact(4).zip(SALTS).all(|(word, salt)| {
        let mask = bit(hash, salt).to_le_bytes();
        word.iter().zip(mask).all(|(byte, mask)| byte & mask == mask)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter_of(keys: &[u64]) -> Vec<u8> {
        let mut filter = vec![0; blocks_for(keys.len()) * BLOCK_BYTES];
        keys.iter().for_each(|key| insert(&mut filter, *key));
        filter
    }

    #[test]
    fn what_is_in_a_filter_is_found_and_little_else() {
        for (count, spread) in [(1, 1), (30, 7), (1365, 1), (4096, 0x1_0000_0001)] {
            let keys: Vec<u64> = (0..count).map(|n| n * spread).collect();
            let filter = filter_of(&keys);
            assert!(keys.iter().all(|key| may_have(&filter, *key)));
            let others = (0..100_000).map(|n| (n + count) * spread);
            let wrong = others.filter(|key| may_have(&filter, *key)).count();
            assert!(wrong < 500, "of {count} keys: {wrong} of 100,000");
            assert!(filter.len() * 8 <= keys.len() * BITS_PER_KEY + 256);
        }
    }

    #[test]
    fn no_filter_excludes_nothing() {
        assert!(may_have(&[], 7));
        assert!(may_have(&[1; BLOCK_BYTES - 1], 7));
    }
}
