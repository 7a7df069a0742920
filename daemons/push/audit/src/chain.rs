//! The chain: each record's payload begins with the hash of the payload before, so that whoever
//! knows the last one's hash knows of every change to any of them.

use std::fmt;
use std::str::FromStr;

/// The length of a hash in bytes.
pub(crate) const HASH_BYTES: usize = 32;

/// The BLAKE3 hash of a record's payload.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Hash(pub [u8; HASH_BYTES]);

impl Hash {
    /// What the first record of a log continues.
    pub const NONE: Hash = Hash([0; HASH_BYTES]);

    /// Of a payload, the concatenation of `parts`.
    pub(crate) fn of(parts: &[&[u8]]) -> Hash {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(part);
        }
        Hash(*hasher.finalize().as_bytes())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The end of the chain: which record is the last, and its hash. As text `seq:hash`, the hash in
/// hexadecimal digits. Published, it is what a log is later held to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Head {
    /// The last record's number; zero of a log without records.
    pub seq: u64,
    /// The hash of its payload.
    pub hash: Hash,
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.hash)
    }
}

/// A text that is no head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a head is a number, a colon and 64 hexadecimal digits")]
pub struct HeadError;

impl FromStr for Head {
    type Err = HeadError;

    fn from_str(text: &str) -> Result<Head, HeadError> {
        let (seq, digits) = text.split_once(':').ok_or(HeadError)?;
        let is_number = !seq.is_empty() && seq.bytes().all(|byte| byte.is_ascii_digit());
        let is_hex =
            digits.len() == 2 * HASH_BYTES && digits.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_number || !is_hex {
            return Err(HeadError);
        }
        let mut hash = [0; HASH_BYTES];
        for (byte, pair) in hash.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| HeadError)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| HeadError)?;
        }
        Ok(Head { seq: seq.parse().map_err(|_| HeadError)?, hash: Hash(hash) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_does_not_depend_on_how_the_payload_is_cut() {
        assert_eq!(Hash::of(&[b"ab", b"", b"c"]), Hash::of(&[b"abc"]));
        assert_ne!(Hash::of(&[b"abc"]), Hash::of(&[b"abd"]));
    }

    #[test]
    fn a_head_survives_as_text_and_other_text_is_refused() {
        let head = Head { seq: u64::MAX, hash: Hash::of(&[b"x"]) };
        assert_eq!(head.to_string().parse(), Ok(head));
        let hex = head.hash.to_string();
        for wrong in [
            hex.clone(),
            format!(":{hex}"),
            format!("+1:{hex}"),
            format!("1:{}", &hex[1..]),
            format!("1:{}g", &hex[1..]),
            format!("1:é{}", &hex[2..]),
            format!("18446744073709551616:{hex}"),
        ] {
            assert_eq!(wrong.parse::<Head>(), Err(HeadError), "{wrong}");
        }
    }
}
