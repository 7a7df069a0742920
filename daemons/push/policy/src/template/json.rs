//! Payloads: where the strings of a JSON document are, and how a value goes into one.

use serde::de::IgnoredAny;

use super::parse::{self, Piece};
use super::{Names, Parts, TemplateError};

/// Gives the parts of a document: the bytes of its source, except for what its variables bring.
pub(super) fn payload(
    source: &str,
    names: &mut Names,
    parts: &mut Parts,
) -> Result<(), TemplateError> {
    // From here on every quote begins a string, and every string ends.
    serde_json::from_str::<IgnoredAny>(source)
        .map_err(|error| TemplateError::Json { why: error.to_string() })?;
    let mut at = 0;
    while let Some(open) = source[at..].find('"') {
        let open = at + open;
        let close = open + 1 + string_len(&source.as_bytes()[open + 1..]);
        let is_name = source[close + 1..].trim_start_matches(JSON_SPACES).starts_with(':');
        parts.push(Piece::Text(&source[at..=open]))?;
        string(&source[open..=close], open, is_name, names, parts)?;
        parts.push(Piece::Text("\""))?;
        at = close + 1;
    }
    parts.push(Piece::Text(&source[at..]))
}

const JSON_SPACES: [char; 4] = [' ', '\t', '\n', '\r'];

/// The bytes before the quote that ends a string.
fn string_len(behind_quote: &[u8]) -> usize {
    let mut escaped = false;
    let end = behind_quote.iter().position(|byte| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    });
    end.expect("the document was read, so its strings end")
}

/// Gives the parts of a string between its quotes.
fn string(
    quoted: &str,
    at: usize,
    is_name: bool,
    names: &mut Names,
    parts: &mut Parts,
) -> Result<(), TemplateError> {
    let content: String = serde_json::from_str(quoted)
        .map_err(|error| TemplateError::Json { why: error.to_string() })?;
    if !content.contains("{{") {
        // As its author wrote it.
        return parts.push(Piece::Text(&quoted[1..quoted.len() - 1]));
    }
    if is_name {
        return Err(TemplateError::Member { at });
    }
    let mut escaped = String::new();
    parse::text(&content, at + 1, names, &mut |piece| match piece {
        Piece::Text(text) => {
            escaped.clear();
            push_escaped(text, &mut escaped);
            parts.push(Piece::Text(&escaped))
        }
        variable @ Piece::Variable(..) => parts.push(variable),
    })
}

/// Appends a value as it stands between the quotes of a JSON string.
pub(super) fn push_escaped(value: &str, out: &mut String) {
    let mut plain = 0;
    for (at, byte) in value.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.push_str(&value[plain..at]);
        plain = at + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            _ => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.push_str("\\u00");
                out.push(char::from(HEX[usize::from(byte >> 4)]));
                out.push(char::from(HEX[usize::from(byte & 15)]));
            }
        }
    }
    out.push_str(&value[plain..]);
}
