//! What a reply says, taken out of its bytes.
//!
//! A reply is read when all of it is there and was walked through once, so that its counts are
//! true. Values within values are kept on a list, not on the stack of calls, and only so deep:
//!
//! ```text
//!   *2  %1  +a  :1  _          open: [array of 2: ]
//!       ▲                      open: [array of 2: ] [map of 1: a]
//!                        ▲     open: [array of 2: {a: 1}]  and then the null fills it
//! ```

use bytes::Bytes;

use crate::error::ReplyError;
use crate::number;

/// A reply, or a value in one. Strings share the memory of the bytes that were received together.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// A status.
    Simple(Bytes),
    /// An error, its code first.
    Error(Bytes),
    /// An integer.
    Int(i64),
    /// A string.
    Bulk(Bytes),
    /// No value; in RESP2 also no array.
    Null,
    /// An array.
    Array(Vec<Value>),
    /// A map, in the order of its pairs.
    Map(Vec<(Value, Value)>),
    /// A set.
    Set(Vec<Value>),
    /// What the server says unasked.
    Push(Vec<Value>),
    /// A floating point number.
    Double(f64),
    /// Yes or no.
    Bool(bool),
    /// An integer of any size, in its digits.
    BigNumber(Bytes),
    /// Text for a person.
    Verbatim {
        /// Three letters: `txt`, `mkd`.
        format: Bytes,
        /// The text.
        text: Bytes,
    },
    /// A value with facts about it.
    Attribute {
        /// The facts.
        pairs: Vec<(Value, Value)>,
        /// The value.
        of: Box<Value>,
    },
}

impl Value {
    /// The bytes of a string, a status, a verbatim string's text, or a big number's digits.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Value::Simple(bytes) | Value::Bulk(bytes) | Value::BigNumber(bytes) => Some(bytes),
            Value::Verbatim { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The text of an error.
    pub fn as_error(&self) -> Option<&[u8]> {
        match self {
            Value::Error(text) => Some(text),
            _ => None,
        }
    }
}

/// What was begun and is not full.
struct Open {
    kind: u8,
    count: usize,
    values: Vec<Value>,
}

impl Open {
    fn close(mut self) -> Value {
        match self.kind {
            b'~' => Value::Set(self.values),
            b'>' => Value::Push(self.values),
            b'%' => Value::Map(pairs(self.values)),
            b'|' => {
                let of = self.values.pop().expect("an attribute has a place for its value");
                Value::Attribute { pairs: pairs(self.values), of: Box::new(of) }
            }
            _ => Value::Array(self.values),
        }
    }
}

fn pairs(values: Vec<Value>) -> Vec<(Value, Value)> {
    let mut values = values.into_iter();
    std::iter::from_fn(|| Some((values.next()?, values.next()?))).collect()
}

/// What an element is: a value by itself, or the beginning of one of many.
enum Element {
    Value(Value),
    Open { kind: u8, count: usize },
}

/// Reads the bytes of one reply, whose end was found.
pub(crate) fn read(reply: &Bytes, depth_max: usize) -> Result<Value, ReplyError> {
    let mut open: Vec<Open> = Vec::new();
    let mut at = 0;
    loop {
        let mut value = match element(reply, &mut at)? {
            Element::Value(value) => value,
            Element::Open { .. } if open.len() >= depth_max => return Err(ReplyError::TooDeep),
            Element::Open { kind, count } => {
                open.push(Open { kind, count, values: Vec::with_capacity(count) });
                continue;
            }
        };
        // What is full is a value of what it lies in.
        loop {
            let Some(mut inner) = open.pop() else { return Ok(value) };
            inner.values.push(value);
            if inner.values.len() < inner.count {
                open.push(inner);
                break;
            }
            value = inner.close();
        }
    }
}

/// Takes the element at `at`.
fn element(reply: &Bytes, at: &mut usize) -> Result<Element, ReplyError> {
    let rest = reply.get(*at..).unwrap_or_default();
    let line = memchr::memchr(b'\r', rest).and_then(|end| rest.get(..end));
    let (kind, line) = line.and_then(<[u8]>::split_first).ok_or(ReplyError::End)?;
    *at += 1 + line.len() + number::CRLF.len();
    let text = || reply.slice_ref(line);
    let value = match kind {
        b'+' => Value::Simple(text()),
        b'-' => Value::Error(text()),
        b':' => Value::Int(number::integer(line).ok_or(ReplyError::Integer)?),
        b',' => Value::Double(double(line).ok_or(ReplyError::Double)?),
        b'(' if is_big_number(line) => Value::BigNumber(text()),
        b'(' => return Err(ReplyError::BigNumber),
        b'#' => match line {
            b"t" => Value::Bool(true),
            b"f" => Value::Bool(false),
            _ => return Err(ReplyError::Bool),
        },
        b'_' if line.is_empty() => Value::Null,
        b'_' => return Err(ReplyError::Null),
        b'$' | b'*' if line == b"-1" => Value::Null,
        b'$' | b'!' | b'=' => string(*kind, &take(reply, at, count(line)?)?)?,
        b'*' | b'~' | b'>' | b'%' | b'|' => return Ok(aggregate(*kind, count(line)?)),
        other => return Err(ReplyError::Type(*other)),
    };
    Ok(Element::Value(value))
}

fn aggregate(kind: u8, count: usize) -> Element {
    let count = match kind {
        b'%' => 2 * count,
        b'|' => 2 * count + 1,
        _ => count,
    };
    let open = Open { kind, count, values: Vec::new() };
    if count == 0 { Element::Value(open.close()) } else { Element::Open { kind, count } }
}

fn string(kind: u8, bytes: &Bytes) -> Result<Value, ReplyError> {
    match kind {
        b'$' => Ok(Value::Bulk(bytes.clone())),
        b'!' => Ok(Value::Error(bytes.clone())),
        _ if bytes.get(3) == Some(&b':') => {
            Ok(Value::Verbatim { format: bytes.slice(..3), text: bytes.slice(4..) })
        }
        _ => Err(ReplyError::Verbatim),
    }
}

/// Takes `len` bytes and what ends them.
fn take(reply: &Bytes, at: &mut usize, len: usize) -> Result<Bytes, ReplyError> {
    let end = at.checked_add(len).filter(|end| *end <= reply.len()).ok_or(ReplyError::End)?;
    let bytes = reply.slice(*at..end);
    *at = end + number::CRLF.len();
    Ok(bytes)
}

/// A length or a count.
pub(crate) fn count(line: &[u8]) -> Result<usize, ReplyError> {
    let count = number::integer(line).and_then(|count| u32::try_from(count).ok());
    count.map(|count| count as usize).ok_or(ReplyError::Length)
}

fn double(line: &[u8]) -> Option<f64> {
    std::str::from_utf8(line).ok()?.parse().ok()
}

fn is_big_number(line: &[u8]) -> bool {
    let digits = line.strip_prefix(b"-").unwrap_or(line);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}
