//! Words of an inline command: a line as a person types it.
//!
//! Space parts the words. Between double quotes `\n`, `\r`, `\t`, `\b`, `\a` and `\xHH` stand for
//! a byte and a backslash makes any other byte stand for itself; between single quotes only `\'`
//! does. Quotes may open within a word, but what closes them ends it.

use crate::args::Span;
use crate::error::ProtocolError;

/// Appends the words of `line` to `words`, and their bytes to `bytes`. The line has no null
/// character and is shorter than 4 GiB.
pub(crate) fn split(
    line: &[u8],
    bytes: &mut Vec<u8>,
    words: &mut Vec<Span>,
) -> Result<(), ProtocolError> {
    let mut rest = line;
    loop {
        rest = rest.trim_ascii_start();
        // ASCII's vertical tab is space to C and not to Rust.
        while let [0x0B, after @ ..] = rest {
            rest = after.trim_ascii_start();
        }
        if rest.is_empty() {
            return Ok(());
        }
        let start = bytes.len();
        rest = word(rest, bytes)?;
        words.push(Span { start: start as u32, len: (bytes.len() - start) as u32 });
    }
}

/// Takes the word that `rest` begins with, and gives what follows it.
fn word<'a>(mut rest: &'a [u8], bytes: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    while let Some((&byte, after)) = rest.split_first() {
        match byte {
            b' ' | b'\n' | b'\r' | b'\t' => break,
            b'"' => return closed(double_quoted(after, bytes)),
            b'\'' => return closed(single_quoted(after, bytes)),
            _ => bytes.push(byte),
        }
        rest = after;
    }
    Ok(rest)
}

/// What follows a closing quote, which must be space or nothing.
fn closed(rest: Option<&[u8]>) -> Result<&[u8], ProtocolError> {
    rest.filter(|rest| rest.first().is_none_or(|byte| is_space(*byte)))
        .ok_or(ProtocolError::UnbalancedQuotes)
}

fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0B
}

/// Takes what is quoted, and gives what follows the closing quote, if there is one.
fn double_quoted<'a>(mut rest: &'a [u8], bytes: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        let (byte, after) = match rest {
            [b'"', after @ ..] => return Some(after),
            [b'\\', b'x', high, low, after @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                (hex(*high) << 4 | hex(*low), after)
            }
            [b'\\', escaped, after @ ..] => (unescaped(*escaped), after),
            [byte, after @ ..] => (*byte, after),
            [] => return None,
        };
        bytes.push(byte);
        rest = after;
    }
}

/// The same between single quotes.
fn single_quoted<'a>(mut rest: &'a [u8], bytes: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        let (byte, after) = match rest {
            [b'\'', after @ ..] => return Some(after),
            [b'\\', b'\'', after @ ..] => (b'\'', after),
            [byte, after @ ..] => (*byte, after),
            [] => return None,
        };
        bytes.push(byte);
        rest = after;
    }
}

fn unescaped(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        byte => byte,
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Args;

    fn words(line: &[u8]) -> Result<Vec<Vec<u8>>, ProtocolError> {
        let (mut bytes, mut words) = (Vec::new(), Vec::new());
        split(line, &mut bytes, &mut words)?;
        Ok(Args::new(&bytes, &words).iter().map(<[u8]>::to_vec).collect())
    }

    #[test]
    fn space_parts_words() {
        let two = Ok(vec![b"ECHO".to_vec(), b"x".to_vec()]);
        for line in [&b"ECHO x"[..], b"  ECHO \t x  ", b"\x0b\x0cECHO \x0bx\r", b"ECHO\rx"] {
            assert_eq!(words(line), two, "{}", line.escape_ascii());
        }
        assert_eq!(words(b""), Ok(vec![]));
        assert_eq!(words(b" \t\x0b "), Ok(vec![]));
        // Not within a word, though.
        assert_eq!(words(b"ECHO\x0bx"), Ok(vec![b"ECHO\x0bx".to_vec()]));
    }

    #[test]
    fn quotes_keep_a_word_together_and_escapes_stand_for_bytes() {
        for (line, word) in [
            (&br#""\x41\n\r\t\a\b\q\\\"""#[..], &b"A\n\r\t\x07\x08q\\\""[..]),
            (br#""\xzz\x4\X4a\xfF""#, b"xzzx4X4a\xff"),
            (br#"'a\'b\n"'"#, b"a'b\\n\""),
            (br#"ab"cd""#, b"abcd"),
            (br#"ab'c d'"#, b"abc d"),
            (br#""""#, b""),
            (b"''", b""),
            (br"foo\x41", br"foo\x41"),
            (b"\xa0\xff", b"\xa0\xff"),
        ] {
            assert_eq!(words(line), Ok(vec![word.to_vec()]), "{}", line.escape_ascii());
        }
        assert_eq!(words(b"\"a\"\x0b'b'"), Ok(vec![b"a".to_vec(), b"b".to_vec()]));
    }

    #[test]
    fn quotes_that_do_not_close_or_are_followed_are_refused() {
        for line in [
            &br#""abc"#[..],
            b"'abc",
            br#""abc"d"#,
            b"'abc'd",
            br#"a""b"#,
            br#""a\"#,
            br#""a\""#,
            br"'a\'",
            b"\"",
            b"'",
        ] {
            assert_eq!(
                words(line),
                Err(ProtocolError::UnbalancedQuotes),
                "{}",
                line.escape_ascii()
            );
        }
    }
}
