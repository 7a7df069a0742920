//! Which core is the home of a name: of a device and its session by the device's id, which is its
//! client id; of a topic's retained message by the topic.
//!
//! What a core keeps is on disk in its own log, so this decides where data lives. The function is
//! part of the format and never changes:
//!
//! ```text
//!   h = FNV-1a 64 of the name's bytes      offset cbf29ce484222325, prime 100000001b3
//!   h = h ^ (h >> 33) * ff51afd7ed558ccd ^ (h >> 33) * c4ceb9fe1a85ec53 ^ (h >> 33)
//!   home = high 64 bits of h * cores       as a product of 128 bits
//! ```
//!
//! FNV-1a alone leaves the high bits of short names alike; the second line, the finaliser of
//! MurmurHash3, spreads them. The hash has no secret: clients that choose their names can choose
//! their core, and a core has to bear it.

/// The core that `name` is at home on, out of `cores`.
///
/// # Panics
/// If there is no core.
pub fn home(name: &str, cores: usize) -> usize {
    assert!(cores > 0, "there is a core");
    let mixed = mix(fnv1a(name.as_bytes()));
    ((u128::from(mixed) * cores as u128) >> 64) as usize
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn mix(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fnv_is_that_of_its_published_vectors() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn the_mixer_is_that_of_murmur3() {
        assert_eq!(mix(0), 0);
        assert_eq!(mix(1), 0xb456_bcfc_34c2_cb2c);
    }

    #[test]
    fn a_name_never_moves() {
        let homes = |name| [1, 2, 3, 8, 64].map(|cores| home(name, cores));
        assert_eq!(homes(""), [0, 1, 2, 7, 59]);
        assert_eq!(homes("d1"), [0, 0, 0, 2, 17]);
        assert_eq!(homes("device-000001"), [0, 0, 1, 3, 28]);
        assert_eq!(homes("a/b"), [0, 1, 2, 7, 60]);
        assert_eq!(homes("é"), [0, 1, 1, 4, 39]);
    }

    #[test]
    fn similar_names_are_spread_evenly() {
        for cores in [1, 2, 3, 8, 64] {
            let mut counts = vec![0_usize; cores];
            for number in 0..100_000 {
                counts[home(&format!("device-{number:06}"), cores)] += 1;
            }
            let fair = 100_000 / cores;
            let even = |count: &usize| count.abs_diff(fair) < fair / 8;
            assert!(counts.iter().all(even), "{cores} cores: {counts:?}");
        }
    }
}
