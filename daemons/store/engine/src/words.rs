//! Reading the words of a command: numbers, options, and the rules that Redis has for them.

use sextant_keyspace::canonical_int;

use crate::fault::Fault;

/// An integer of 64 bits, in its canonical form alone, as Redis takes it.
pub(crate) fn int(word: &[u8]) -> Result<i64, Fault> {
    canonical_int(word).ok_or(Fault::NotInteger)
}

/// An integer of 32 bits.
pub(crate) fn int_of_32_bits(word: &[u8]) -> Result<i32, Fault> {
    i32::try_from(int(word)?).map_err(|_| {
        Fault::text("ERR value is out of range, value must between -2147483648 and 2147483647")
    })
}

/// An integer in a range, or a fault of one's own.
pub(crate) fn int_within(
    word: &[u8],
    range: std::ops::RangeInclusive<i64>,
    fault: &'static str,
) -> Result<i64, Fault> {
    canonical_int(word).filter(|number| range.contains(number)).ok_or(Fault::text(fault))
}

/// How many elements by chance a client asks for: so many different ones, or if negative so many
/// that may be the same.
pub(crate) fn chance_count(word: &[u8]) -> Result<i64, Fault> {
    let count = int(word)?;
    match count == i64::MIN {
        false => Ok(count),
        true => Err(Fault::text(
            "ERR value is out of range, value must between -9223372036854775807 and \
             9223372036854775807",
        )),
    }
}

/// The most elements that may be the same which one reply has: memory for it is taken at once.
const REPEATED_MAX: u64 = 1 << 24;

/// How many elements a negative count asks for.
pub(crate) fn repeated(count: i64) -> Result<usize, Fault> {
    match count.unsigned_abs() {
        count @ ..=REPEATED_MAX => Ok(count as usize),
        _ => Err(Fault::text("ERR value is out of range")),
    }
}

/// A number, infinities included, as Redis takes it: no spaces, not NaN, hexadecimal too.
pub(crate) fn float(word: &[u8]) -> Result<f64, Fault> {
    parse_float(word).ok_or(Fault::NotFloat)
}

/// The same without a fault.
pub(crate) fn parse_float(word: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(word).ok()?;
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if unsigned.starts_with(['+', '-']) {
        return None;
    }
    if let Some(hex) = unsigned.strip_prefix("0x").or_else(|| unsigned.strip_prefix("0X")) {
        let number = u64::from_str_radix(hex, 16).ok()? as f64;
        return Some(if text.starts_with('-') { -number } else { number });
    }
    let number: f64 = text.parse().ok()?;
    // What is too large or too small for a double is none, unless it says that it is infinite.
    let is_digits = unsigned.starts_with(|first: char| first.is_ascii_digit() || first == '.');
    let digits = unsigned.split(['e', 'E']).next().unwrap_or_default();
    let lost =
        number.is_infinite() || number == 0.0 && digits.contains(|d| ('1'..='9').contains(&d));
    let is_refused = number.is_nan() || (is_digits && lost);
    (!is_refused).then_some(number)
}

/// Whether a word is this one, in whatever case.
pub(crate) fn is(word: &[u8], other: &str) -> bool {
    word.eq_ignore_ascii_case(other.as_bytes())
}

/// A word as text for an error's line: not too long, and up to its first zero byte.
pub(crate) fn quoted(word: &[u8]) -> String {
    const BYTES_MAX: usize = 128;
    let word = &word[..word.len().min(BYTES_MAX)];
    let end = word.iter().position(|byte| *byte == 0).unwrap_or(word.len());
    String::from_utf8_lossy(&word[..end]).into_owned()
}

/// A range of positions as GETRANGE and LRANGE take it: negative ones count from the end. Empty if
/// there is nothing in it.
pub(crate) fn range(start: i64, end: i64, len: usize) -> std::ops::Range<usize> {
    let len = len as i64;
    let start = if start < 0 { (start + len).max(0) } else { start };
    let end = if end < 0 { end + len } else { end.min(len - 1) };
    if start > end || start >= len || end < 0 {
        return 0..0;
    }
    start as usize..end as usize + 1
}

/// Whether a name matches a pattern, as KEYS and PSUBSCRIBE take it: `*`, `?`, `[a-c]`, `[^a]`,
/// and `\` before what shall stand for itself.
pub(crate) fn matches(pattern: &[u8], name: &[u8]) -> bool {
    // An empty name is no match for a star, as Redis has it.
    if name.is_empty() {
        return pattern.is_empty();
    }
    // One star is tried at a time: the work is at most the product of the lengths.
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        let step = match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, n));
                p += 1;
                continue;
            }
            None if n == name.len() => return true,
            None => None,
            Some(_) if n == name.len() => None,
            Some(_) => match_one(&pattern[p..], name[n]),
        };
        match (step, star) {
            (Some(taken), _) => (p, n) = (p + taken, n + 1),
            (None, Some((after, from))) if from < name.len() => {
                (p, n) = (after, from + 1);
                star = Some((after, from + 1));
            }
            (None, _) => return false,
        }
    }
}

/// The same where names are listed: there a star alone is every name.
pub(crate) fn lists(pattern: &[u8], name: &[u8]) -> bool {
    pattern == b"*" || matches(pattern, name)
}

/// The length of the pattern's first element, if it matches a byte.
fn match_one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'[', rest @ ..] => {
            let (matched, taken) = match_class(rest, byte);
            matched.then_some(taken + 1)
        }
        [b'\\', literal, ..] => (*literal == byte).then_some(2),
        [literal, ..] => (*literal == byte).then_some(1),
        [] => None,
    }
}

/// Whether a class, which begins behind its bracket, has a byte; and its length.
fn match_class(class: &[u8], byte: u8) -> (bool, usize) {
    let (negated, mut at) = if class.first() == Some(&b'^') { (true, 1) } else { (false, 0) };
    let mut matched = false;
    loop {
        match &class[at..] {
            [] => break,
            [b']', ..] => {
                at += 1;
                break;
            }
            [b'\\', literal, ..] => {
                matched |= *literal == byte;
                at += 2;
            }
            [from, b'-', to, ..] => {
                let (low, high) = (from.min(to), from.max(to));
                matched |= (*low..=*high).contains(&byte);
                at += 3;
            }
            [literal, ..] => {
                matched |= *literal == byte;
                at += 1;
            }
        }
    }
    (matched != negated, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_redis_has_them() {
        let cases = [
            ("*", "", false),
            ("*", "a", true),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h*llo", "heeello", true),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hallo", true),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("[", "a", false),
            ("[a", "a", true),
            ("", "", true),
            ("", "a", false),
            ("*a", "aaab", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
        // No pattern takes long.
        let pattern = "*a".repeat(500);
        assert!(!matches(pattern.as_bytes(), "a".repeat(499).as_bytes()));
    }

    #[test]
    fn ranges_count_from_either_end() {
        assert_eq!(range(0, -1, 5), 0..5);
        assert_eq!(range(-3, -2, 5), 2..4);
        assert_eq!(range(-100, 100, 5), 0..5);
        assert_eq!(range(3, 1, 5), 0..0);
        assert_eq!(range(5, 9, 5), 0..0);
        assert_eq!(range(0, -6, 5), 0..0);
        assert_eq!(range(0, -1, 0), 0..0);
    }

    #[test]
    fn floats_are_taken_as_redis_takes_them() {
        assert_eq!(parse_float(b"3.5e2"), Some(350.0));
        assert_eq!(parse_float(b"-inf"), Some(f64::NEG_INFINITY));
        assert_eq!(parse_float(b"+Infinity"), Some(f64::INFINITY));
        assert_eq!(parse_float(b"0x10"), Some(16.0));
        for bad in ["", "nan", " 1", "1 ", "abc", "1,5", "--1", "1e", "1e400", "1e-400"] {
            assert_eq!(parse_float(bad.as_bytes()), None, "{bad}");
        }
    }
}
