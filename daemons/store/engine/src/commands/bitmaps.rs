//! Bits of strings: SETBIT, BITCOUNT, BITOP, BITFIELD and their kin.
//!
//! The first bit is the highest of the first byte. Strings are read in pieces and written where
//! they change, so that neither memory nor the log sees the whole of a long one for a bit of it.

use sextant_keyspace::Text;
use sextant_resp::Args;

use crate::call::Call;
use crate::command::{Flags, Group, Keys, Spec, spec};
use crate::commands::strings::STRING_BYTES_MAX;
use crate::fault::Fault;
use crate::notify::Class;
use crate::words::{int, is};

mod field;

const READ: Flags = Flags::READONLY.and(Flags::FAST);
const READ_SLOW: Flags = Flags::READONLY;
const WRITE: Flags = Flags::WRITE.and(Flags::DENYOOM);
const BEHIND: Keys = Keys::At { first: 2, last: -1, step: 1 };

const fn row(
    name: &'static str,
    arity: i32,
    flags: Flags,
    since: &'static str,
    summary: &'static str,
    handler: crate::command::Handler,
) -> Spec {
    spec(name, arity, flags, Keys::ONE, Group::Bitmap, since, summary, handler)
}

pub(crate) const COMMANDS: &[Spec] = &[
    row("setbit", 4, WRITE, "2.2.0", "Sets a bit, and returns what it was.", setbit),
    row("getbit", 3, READ, "2.2.0", "Returns a bit.", getbit),
    row("bitcount", -2, READ_SLOW, "2.6.0", "Counts bits that are set.", bitcount),
    row("bitpos", -3, READ_SLOW, "2.8.7", "Finds the first bit that is set or clear.", bitpos),
    Spec {
        keys: BEHIND,
        ..row("bitop", -4, WRITE, "2.6.0", "Combines strings bit by bit into another.", bitop)
    },
    row(
        "bitfield",
        -2,
        WRITE,
        "3.2.0",
        "Reads and changes integers of any width.",
        field::bitfield,
    ),
    row("bitfield_ro", -2, READ, "6.0.0", "Reads integers of any width.", field::bitfield_ro),
];

/// Bytes that are looked at in one go.
const PIECE_BYTES: usize = 16 << 10;

/// The place of a bit, as a word says it.
fn offset(word: &[u8]) -> Result<u64, Fault> {
    let fault = || Fault::text("ERR bit offset is not an integer or out of range");
    let offset = int(word).ok().and_then(|offset| u64::try_from(offset).ok());
    offset.filter(|offset| offset >> 3 < STRING_BYTES_MAX as u64).ok_or_else(fault)
}

fn bit(word: &[u8]) -> Result<bool, Fault> {
    match int(word) {
        Ok(0) => Ok(false),
        Ok(1) => Ok(true),
        _ => Err(Fault::text("ERR bit is not an integer or out of range")),
    }
}

/// Some bytes of a string; zeros behind its end.
fn bytes_at<const N: usize>(text: Option<Text<'_>>, at: usize) -> [u8; N] {
    let (mut bytes, mut found) = ([0; N], Vec::with_capacity(N));
    if let Some(text) = text {
        text.copy_range(at..at + N, &mut found);
    }
    bytes[..found.len()].copy_from_slice(&found);
    bytes
}

/// Calls `each` for the pieces of a range of a string in order, with where they begin, until it
/// returns something.
fn find_in_pieces<R>(
    text: Text<'_>,
    range: std::ops::Range<usize>,
    mut each: impl FnMut(usize, &[u8]) -> Option<R>,
) -> Option<R> {
    let mut piece = Vec::new();
    range.clone().step_by(PIECE_BYTES).find_map(|at| {
        piece.clear();
        text.copy_range(at..(at + PIECE_BYTES).min(range.end), &mut piece);
        each(at, &piece)
    })
}

fn setbit(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (offset, on) = (offset(&args[2])?, bit(&args[3])?);
    let (db, at, mask) = (call.db, (offset >> 3) as usize, 0x80 >> (offset & 7));
    let text = call.engine.keys.get(db, &args[1])?;
    let (len, [byte]) = (text.map_or(0, |text| text.len()), bytes_at(text, at));
    let was_on = byte & mask != 0;
    if was_on != on || at >= len {
        let byte = if on { byte | mask } else { byte & !mask };
        call.keys().write_at(db, &args[1], at, &[byte])?;
        call.notify(Class::STRING, "setbit", &args[1]);
    }
    call.out.int(i64::from(was_on));
    Ok(())
}

fn getbit(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let offset = offset(&args[2])?;
    let text = call.engine.keys.get(call.db, &args[1])?;
    let [byte] = bytes_at(text, (offset >> 3) as usize);
    call.out.int(i64::from(byte >> (7 - (offset & 7)) & 1));
    Ok(())
}

/// Whether a range is told in bits.
fn unit(word: Option<&[u8]>) -> Result<bool, Fault> {
    match word {
        Some(word) if is(word, "BIT") => Ok(true),
        Some(word) if is(word, "BYTE") => Ok(false),
        None => Ok(false),
        Some(_) => Err(Fault::Syntax),
    }
}

/// A range of bits: the first, and behind the last.
fn bits_of(start: i64, end: i64, in_bits: bool, len: usize) -> std::ops::Range<u64> {
    let total = (len as i64) << if in_bits { 3 } else { 0 };
    let from_end = |at: i64| if at < 0 { (total + at).max(0) } else { at };
    let (start, end) = (from_end(start), from_end(end).min(total - 1));
    if start > end {
        return 0..0;
    }
    let scale = if in_bits { 0 } else { 3 };
    (start as u64) << scale..(end as u64 + 1) << scale
}

/// Without the bits of a byte, which stands at `at`, that are not in a range of bits.
fn masked(byte: u8, at: usize, bits: &std::ops::Range<u64>) -> u8 {
    let first = (at as u64) << 3;
    let before = bits.start.saturating_sub(first).min(8) as u32;
    let behind = (first + 8).saturating_sub(bits.end).min(8) as u32;
    let mask = 0xffu8.checked_shr(before).unwrap_or(0) & 0xffu8.checked_shl(behind).unwrap_or(0);
    byte & mask
}

fn bitcount(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let Some(text) = call.engine.keys.get(call.db, &args[1])? else {
        call.out.int(0);
        return Ok(());
    };
    let bits = match args.len() {
        2 => 0..(text.len() as u64) << 3,
        4 | 5 => {
            let (start, end) = (int(&args[2])?, int(&args[3])?);
            let nothing = start < 0 && end < 0 && start > end;
            if nothing { 0..0 } else { bits_of(start, end, unit(args.get(4))?, text.len()) }
        }
        _ => return Err(Fault::Syntax),
    };
    let mut count = 0u64;
    let range = (bits.start >> 3) as usize..bits.end.div_ceil(8) as usize;
    let last = range.end.wrapping_sub(1);
    let _: Option<()> = find_in_pieces(text, range.clone(), |from, piece| {
        count += ones(piece);
        // The bits around the range are in its first and its last byte.
        let mut outer = vec![range.start, last];
        outer.dedup();
        for at in outer {
            if let Some(byte) = at.checked_sub(from).and_then(|at| piece.get(at)) {
                count -= u64::from(byte.count_ones() - masked(*byte, at, &bits).count_ones());
            }
        }
        None
    });
    call.out.int(count as i64);
    Ok(())
}

/// Bits that are set.
fn ones(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let words: u64 =
        words.iter().map(|word| u64::from(u64::from_le_bytes(*word).count_ones())).sum();
    words + rest.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>()
}

fn bitpos(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let wanted = match int(&args[2])? {
        0 => false,
        1 => true,
        _ => return Err(Fault::text("ERR The bit argument must be 1 or 0.")),
    };
    let Some(text) = call.engine.keys.get(call.db, &args[1])? else {
        call.out.int(if wanted { -1 } else { 0 });
        return Ok(());
    };
    let bits = match args.len() {
        3 => 0..(text.len() as u64) << 3,
        4..=6 => {
            let start = int(&args[3])?;
            let in_bits = unit(args.get(5))?;
            let end = args.get(4).map_or(Ok(i64::MAX), int)?;
            bits_of(start, end, in_bits, text.len())
        }
        _ => return Err(Fault::Syntax),
    };
    let range = (bits.start >> 3) as usize..bits.end.div_ceil(8) as usize;
    let found = find_in_pieces(text, range, |from, piece| {
        piece.iter().enumerate().find_map(|(at, byte)| {
            let byte = if wanted { *byte } else { !byte };
            let byte = masked(byte, from + at, &bits);
            (byte != 0).then(|| ((from + at) as u64) << 3 | u64::from(byte.leading_zeros()))
        })
    });
    let position = match found {
        Some(position) => position as i64,
        // Behind the end there are zeros, unless an end was told.
        None if !wanted && args.len() < 5 && !bits.is_empty() => bits.end as i64,
        None => -1,
    };
    call.out.int(position);
    Ok(())
}

fn bitop(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let word = &args[1];
    let combine: fn(u8, u8) -> u8 = match () {
        () if is(word, "AND") => |one, other| one & other,
        () if is(word, "OR") => |one, other| one | other,
        () if is(word, "XOR") => |one, other| one ^ other,
        () if is(word, "NOT") => |one, _| !one,
        () => return Err(Fault::Syntax),
    };
    let inverts = is(word, "NOT");
    if inverts && args.len() != 4 {
        return Err(Fault::text("ERR BITOP NOT must be called with a single source key."));
    }
    let (db, to) = (call.db, &args[2]);
    let mut result: Vec<u8> = Vec::new();
    let mut len = 0;
    for key in args.iter().skip(3) {
        len = call.keys().get(db, key)?.map_or(0, |text| text.len()).max(len);
    }
    result.reserve_exact(len);
    for (number, key) in args.iter().skip(3).enumerate() {
        let text = call.engine.keys.get(db, key)?;
        if number == 0 {
            text.inspect(|text| text.copy_range(0..len, &mut result));
            result.resize(len, 0);
            if inverts {
                result.iter_mut().for_each(|byte| *byte = combine(*byte, 0));
            }
            continue;
        }
        let end = text.map_or(0, |text| text.len());
        if let Some(text) = text {
            let _: Option<()> = find_in_pieces(text, 0..end, |from, piece| {
                let result = &mut result[from..from + piece.len()];
                result.iter_mut().zip(piece).for_each(|(one, other)| *one = combine(*one, *other));
                None
            });
        }
        result[end..].iter_mut().for_each(|byte| *byte = combine(*byte, 0));
    }
    if result.is_empty() {
        if call.keys().delete(db, to) {
            call.notify(Class::GENERIC, "del", to);
        }
    } else {
        call.keys().set(db, to, &result, None)?;
        call.notify(Class::STRING, "set", to);
    }
    call.out.int(result.len() as i64);
    Ok(())
}
