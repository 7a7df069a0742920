//! BITFIELD: integers of 1 to 64 bits at any place of a string.

use sextant_resp::Args;

use super::bytes_at;
use crate::call::Call;
use crate::commands::strings::STRING_BYTES_MAX;
use crate::fault::Fault;
use crate::notify::Class;
use crate::words::{int, is};

/// What becomes of a number that its bits cannot hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Overflow {
    Wrap,
    Saturate,
    Fail,
}

/// An integer's place.
#[derive(Clone, Copy)]
struct Field {
    signed: bool,
    bits: u32,
    offset: u64,
}

#[derive(Clone, Copy)]
enum Change {
    Set(i64),
    Add(i64),
}

struct Operation {
    field: Field,
    change: Option<(Change, Overflow)>,
}

impl Field {
    fn parse(kind: &[u8], offset: &[u8]) -> Result<Field, Fault> {
        let wrong = || {
            Fault::text(
                "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not \
                 supported but i64 is.",
            )
        };
        let (signed, bits, bits_max) = match kind {
            [b'i', bits @ ..] => (true, bits, 64),
            [b'u', bits @ ..] => (false, bits, 63),
            _ => return Err(wrong()),
        };
        let bits = int(bits).ok().filter(|bits| (1..=bits_max).contains(bits)).ok_or_else(wrong)?;
        let fault = || Fault::text("ERR bit offset is not an integer or out of range");
        let (number, scale) = match offset {
            [b'#', number @ ..] => (number, bits),
            number => (number, 1),
        };
        let offset = int(number).ok().and_then(|number| number.checked_mul(scale));
        let offset = offset.and_then(|offset| u64::try_from(offset).ok());
        let offset = offset.filter(|offset| offset >> 3 < STRING_BYTES_MAX as u64);
        Ok(Field { signed, bits: bits as u32, offset: offset.ok_or_else(fault)? })
    }

    /// Behind its last byte.
    fn end(self) -> usize {
        (self.offset + u64::from(self.bits)).div_ceil(8) as usize
    }

    /// How far its lowest bit is from the lowest of the nine bytes from its first on.
    fn shift(self) -> u32 {
        72 - (self.offset & 7) as u32 - self.bits
    }

    fn mask(self) -> u128 {
        (1 << self.bits) - 1
    }

    fn first(self) -> usize {
        (self.offset >> 3) as usize
    }

    /// The integer that these low bits are.
    fn value(self, bits: u128) -> i128 {
        let bits = bits & self.mask();
        let negative = self.signed && bits >> (self.bits - 1) != 0;
        if negative { bits as i128 - (1 << self.bits) } else { bits as i128 }
    }

    fn read(self, nine: [u8; 9]) -> i128 {
        self.value(word(nine) >> self.shift())
    }

    /// The nine bytes with another integer in them.
    fn written(self, nine: [u8; 9], value: i128) -> [u8; 9] {
        let clear = word(nine) & !(self.mask() << self.shift());
        let word = clear | (value as u128 & self.mask()) << self.shift();
        let bytes = word.to_be_bytes();
        bytes[7..].try_into().expect("nine of sixteen")
    }

    /// What is stored for a number; none if it fails.
    fn fitted(self, number: i128, overflow: Overflow) -> Option<i128> {
        let (min, max) = match self.signed {
            true => (-(1i128 << (self.bits - 1)), (1i128 << (self.bits - 1)) - 1),
            false => (0, (1i128 << self.bits) - 1),
        };
        match overflow {
            _ if (min..=max).contains(&number) => Some(number),
            Overflow::Wrap => Some(self.value(number as u128)),
            Overflow::Saturate => Some(number.clamp(min, max)),
            Overflow::Fail => None,
        }
    }
}

fn word(nine: [u8; 9]) -> u128 {
    let mut bytes = [0; 16];
    bytes[7..].copy_from_slice(&nine);
    u128::from_be_bytes(bytes)
}

fn parse(args: Args<'_>) -> Result<Vec<Operation>, Fault> {
    let (mut operations, mut overflow, mut at) = (Vec::new(), Overflow::Wrap, 2);
    while let Some(word) = args.get(at) {
        let behind = args.len() - at - 1;
        if is(word, "OVERFLOW") && behind >= 1 {
            overflow = match &args[at + 1] {
                kind if is(kind, "WRAP") => Overflow::Wrap,
                kind if is(kind, "SAT") => Overflow::Saturate,
                kind if is(kind, "FAIL") => Overflow::Fail,
                _ => return Err(Fault::text("ERR Invalid OVERFLOW type specified")),
            };
            at += 2;
            continue;
        }
        let words = match () {
            () if is(word, "GET") && behind >= 2 => 3,
            () if (is(word, "SET") || is(word, "INCRBY")) && behind >= 3 => 4,
            () => return Err(Fault::Syntax),
        };
        let field = Field::parse(&args[at + 1], &args[at + 2])?;
        let change = match words {
            3 => None,
            _ if is(word, "SET") => Some((Change::Set(int(&args[at + 3])?), overflow)),
            _ => Some((Change::Add(int(&args[at + 3])?), overflow)),
        };
        operations.push(Operation { field, change });
        at += words;
    }
    Ok(operations)
}

pub(super) fn bitfield(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let operations = parse(args)?;
    run(call, &args[1], &operations)
}

pub(super) fn bitfield_ro(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let operations = parse(args)?;
    if operations.iter().any(|operation| operation.change.is_some()) {
        return Err(Fault::text("ERR BITFIELD_RO only supports the GET subcommand"));
    }
    run(call, &args[1], &operations)
}

fn run(call: &mut Call<'_>, key: &[u8], operations: &[Operation]) -> Result<(), Fault> {
    let db = call.db;
    let len = call.keys().get(db, key)?.map_or(0, |text| text.len());
    let writes = operations.iter().filter(|operation| operation.change.is_some());
    let end = writes.map(|operation| operation.field.end()).max().unwrap_or(0);
    if end > STRING_BYTES_MAX {
        return Err(Fault::text("ERR bit offset is not an integer or out of range"));
    }
    if end > len {
        call.keys().write_at(db, key, end - 1, &[0])?;
    }
    let mut changed = false;
    call.out.array(operations.len());
    for Operation { field, change } in operations {
        let nine = bytes_at::<9>(call.engine.keys.get(db, key)?, field.first());
        let old = field.read(nine);
        let Some((change, overflow)) = change else {
            call.out.int(old as i64);
            continue;
        };
        let (wanted, replies_old) = match change {
            // An unsigned field takes a negative number for a very large one.
            Change::Set(number) if !field.signed => (i128::from(*number as u64), true),
            Change::Set(number) => (i128::from(*number), true),
            Change::Add(number) => (old + i128::from(*number), false),
        };
        let Some(new) = field.fitted(wanted, *overflow) else {
            call.out.null();
            continue;
        };
        let bytes = field.written(nine, new);
        let count = field.end() - field.first();
        call.keys().write_at(db, key, field.first(), &bytes[..count])?;
        call.out.int(if replies_old { old as i64 } else { new as i64 });
        changed = true;
    }
    if changed {
        call.notify(Class::STRING, "setbit", key);
    }
    Ok(())
}
