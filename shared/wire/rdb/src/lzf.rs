//! Strings that are packed with LZF.
//!
//! ```text
//!   000LLLLL                   L + 1 bytes follow as they are
//!   LLLooooo oooooooo          copy L + 2 bytes from o + 1 bytes back (L = 1..=6)
//!   111ooooo LLLLLLLL oooooooo copy L + 9 bytes
//! ```

use crate::error::RdbError;

/// The most bytes that one packed byte can become: three make 264.
const GROWTH_MAX: u64 = 88;

/// Unpacks to exactly `len` bytes.
pub(crate) fn unpack(packed: &[u8], len: u64) -> Result<Vec<u8>, RdbError> {
    const BAD: RdbError = RdbError::Corrupt("a packed string does not unpack");
    if len > (packed.len() as u64).saturating_mul(GROWTH_MAX) {
        return Err(BAD);
    }
    let len = len as usize;
    let mut out = Vec::with_capacity(len);
    let mut from = packed.iter().copied().enumerate();
    while let Some((at, control)) = from.next() {
        if control < 32 {
            let run = usize::from(control) + 1;
            let plain = packed.get(at + 1..at + 1 + run).ok_or(BAD)?;
            out.extend_from_slice(plain);
            from.nth(run - 1);
        } else {
            let mut run = usize::from(control >> 5) + 2;
            if run == 9 {
                run += usize::from(from.next().ok_or(BAD)?.1);
            }
            let low = usize::from(from.next().ok_or(BAD)?.1);
            let back = (usize::from(control & 31) << 8 | low) + 1;
            let start = out.len().checked_sub(back).ok_or(BAD)?;
            copy_back(&mut out, start, run);
        }
        if out.len() > len {
            return Err(BAD);
        }
    }
    if out.len() == len { Ok(out) } else { Err(BAD) }
}

/// Appends `run` bytes from `start` on, which may reach into what is being appended.
fn copy_back(out: &mut Vec<u8>, start: usize, run: usize) {
    let mut left = run;
    while left > 0 {
        let piece = left.min(out.len() - start);
        out.extend_from_within(start..start + piece);
        left -= piece;
    }
}
