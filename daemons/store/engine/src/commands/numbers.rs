//! Counting: INCR and its kin.

use sextant_resp::Args;

use crate::call::Call;
use crate::command::{Flags, Group, Keys, Spec, spec};
use crate::fault::Fault;
use crate::notify::Class;
use crate::words::{float, int, parse_float};

const FLAGS: Flags = Flags::WRITE.and(Flags::DENYOOM).and(Flags::FAST);
const STRING: Group = Group::String;

pub(crate) const COMMANDS: &[Spec] = &[
    spec("incr", 2, FLAGS, Keys::ONE, STRING, "1.0.0", "Adds one to an integer.", incr),
    spec("decr", 2, FLAGS, Keys::ONE, STRING, "1.0.0", "Takes one from an integer.", decr),
    spec("incrby", 3, FLAGS, Keys::ONE, STRING, "1.0.0", "Adds to an integer.", incrby),
    spec("decrby", 3, FLAGS, Keys::ONE, STRING, "1.0.0", "Takes from an integer.", decrby),
    spec("incrbyfloat", 3, FLAGS, Keys::ONE, STRING, "2.6.0", "Adds to a number.", incrbyfloat),
];

fn incr(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    add(call, &args[1], 1, "incrby")
}

fn decr(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    add(call, &args[1], -1, "decrby")
}

fn incrby(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    add(call, &args[1], int(&args[2])?, "incrby")
}

fn decrby(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let by = int(&args[2])?.checked_neg();
    let by = by.ok_or(Fault::text("ERR decrement would overflow"))?;
    add(call, &args[1], by, "decrby")
}

fn add(call: &mut Call<'_>, key: &[u8], by: i64, event: &'static str) -> Result<(), Fault> {
    let db = call.db;
    let found = call.keys().find(db, key);
    let (number, expire) = match found {
        Some(found) => {
            let number = call.engine.keys.text(found)?.int().ok_or(Fault::NotInteger)?;
            (number, call.engine.keys.expires_at(found))
        }
        None => (0, None),
    };
    let number =
        number.checked_add(by).ok_or(Fault::text("ERR increment or decrement would overflow"))?;
    let mut text = itoa::Buffer::new();
    let text = text.format(number).as_bytes();
    call.keys().set_found(db, key, found, text, expire)?;
    call.notify(Class::STRING, event, key);
    call.out.int(number);
    Ok(())
}

fn incrbyfloat(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let db = call.db;
    let found = call.keys().find(db, &args[1]);
    let (number, expire) = match found {
        Some(found) => {
            let text = call.engine.keys.text(found)?.bytes().into_owned();
            (text, call.engine.keys.expires_at(found))
        }
        None => (b"0".to_vec(), None),
    };
    let sum = add_floats(&number, &args[2])?;
    call.keys().set_found(db, &args[1], found, sum.as_bytes(), expire)?;
    call.notify(Class::STRING, "incrbyfloat", &args[1]);
    call.out.bulk(sum.as_bytes());
    Ok(())
}

/// The sum of two numbers as text, in the form that Redis gives it: no exponent, and 17 digits
/// behind the point at most.
pub(crate) fn add_floats(one: &[u8], other: &[u8]) -> Result<String, Fault> {
    let sum = float(one)? + float(other)?;
    if sum.is_nan() || sum.is_infinite() {
        return Err(Fault::text("ERR increment would produce NaN or Infinity"));
    }
    // Redis adds with more digits than a double has, so that 0.1 and 0.2 are 0.3. Where both have
    // as few digits as people write, their sum is exact.
    let exact = decimal(one).zip(decimal(other)).and_then(|(one, other)| one.checked_add(other));
    Ok(exact.map_or_else(|| trimmed(&format!("{sum:.17}")), decimal_text))
}

const PLACES: usize = 17;

/// A number in units of the 17th digit behind the point, if it is a plain one.
fn decimal(text: &[u8]) -> Option<i128> {
    parse_float(text)?;
    let text = std::str::from_utf8(text).ok()?;
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    if part.len() > PLACES || whole.len() > 19 || !plain(whole) || !plain(part) {
        return None;
    }
    let number: i128 = format!("0{whole}{part:0<PLACES$}").parse().ok()?;
    Some(if negative { -number } else { number })
}

fn decimal_text(number: i128) -> String {
    const UNIT: u128 = 10u128.pow(PLACES as u32);
    let sign = if number < 0 { "-" } else { "" };
    let size = number.unsigned_abs();
    trimmed(&format!("{sign}{}.{:017}", size / UNIT, size % UNIT))
}

/// Without zeros at the end.
fn trimmed(text: &str) -> String {
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_what_people_expect() {
        let cases = [
            ("0.1", "0.2", "0.3"),
            ("10.50", "0.1", "10.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("-1.5", "1.5", "0"),
            ("1e20", "0", "100000000000000000000"),
            ("3", "-5", "-2"),
            ("0.00000000000000001", "0", "0.00000000000000001"),
        ];
        for (one, other, sum) in cases {
            assert_eq!(add_floats(one.as_bytes(), other.as_bytes()), Ok(sum.to_owned()));
        }
        assert!(add_floats(b"inf", b"1").is_err() && add_floats(b"x", b"1").is_err());
    }
}
