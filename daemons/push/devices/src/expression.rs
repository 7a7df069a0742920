//! Expressions over what devices registered: `(beta or staff) and app_version >= 3.2.1`.
//!
//! ```text
//!   or      = and { "or" and }
//!   and     = not { "and" not }
//!   not     = "not" not | "(" or ")" | leaf
//!   leaf    = pattern                 a tag:            vip, "big spender", promo-*
//!           | key ":" pattern         a text:           city:sz, language:zh*
//!           | key compare value       a comparison:     age >= 18, app_version < 3.2
//!   compare = "=" | "!=" | "<" | "<=" | ">" | ">="
//!   pattern = text | text "*" | "*"   exactly this, beginning with this, or any
//!   text    = word | quoted
//! ```
//!
//! A word is of any characters but spaces, control characters and `( ) " : < > = ! * & | \ , ; '`
//! and the backtick. Between `"` everything may be, with `\"` and `\\` for those two; a `*` directly
//! behind is still a pattern's. `and`, `or` and `not` are words of the language in any case, and
//! names of something else only between `"`.
//!
//! | key | of a device | compared with |
//! |---|---|---|
//! | `tag` | its tags: `tag:vip` is `vip` | |
//! | `platform`, `timezone` | its platform, its time zone | |
//! | `language`, `lang` | its language, in any case | |
//! | `app_version` | its app's version | a [`Version`] |
//! | `alias` | its alias, whole: no `*` | |
//! | `registered` | when it was registered first, to the second | a day of UTC, `2026-01-05`, or a time in quotes, `"2026-01-05T12:00:00Z"` |
//! | `test` | `true` or `false` | |
//! | any other | an attribute | a number |
//!
//! All but languages and the three words are compared with their case. `age:18`, unquoted, is the
//! text and the number; `age:*` is any text or number. A comparison holds for devices that have
//! something to compare only: `age != 18` is not `not age = 18`. A day is compared whole:
//! `registered > 2026-01-05` begins with the day after.
//!
//! `not` binds closer than `and`, and that closer than `or`. An expression has at most 4 KiB, 256
//! leaves, and 32 levels of parentheses and `not`. It is read once from left to right.

mod lex;
mod parse;
#[cfg(test)]
mod tests;

use std::fmt;

pub use parse::ParseError;

use crate::device::Number;
use crate::syntax::Version;
use lex::is_word;

/// The longest expression, in bytes.
pub const EXPRESSION_BYTES_MAX: usize = 4096;
/// The most leaves of an expression.
pub const LEAVES_MAX: usize = 256;
/// The most levels of parentheses and `not`.
pub const DEPTH_MAX: usize = 32;

/// An expression, as the [module](self) has it. It prints in a form of its own, with the parentheses and quotes that it needs,
/// which reads as the same expression; near the limit of length it may be longer than that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression(pub(crate) Node);

impl Expression {
    /// Reads an expression.
    ///
    /// # Errors
    /// It is none: where, and what was expected there.
    pub fn parse(text: &str) -> Result<Expression, ParseError> {
        parse::parse(text).map(Expression)
    }
}

impl std::str::FromStr for Expression {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Expression, ParseError> {
        Expression::parse(text)
    }
}

/// A part of an expression. No `And` is directly in an `And`, no `Or` in an `Or` and no `Not` in a
/// `Not`, and the first two have at least two parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
    Leaf(Leaf),
}

impl Node {
    pub(crate) fn all(parts: Vec<Node>) -> Node {
        let mut flat = Vec::with_capacity(parts.len());
        for part in parts {
            match part {
                Node::And(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        Node::alone(flat).unwrap_or_else(Node::And)
    }

    pub(crate) fn any(parts: Vec<Node>) -> Node {
        let mut flat = Vec::with_capacity(parts.len());
        for part in parts {
            match part {
                Node::Or(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        Node::alone(flat).unwrap_or_else(Node::Or)
    }

    fn alone(mut parts: Vec<Node>) -> Result<Node, Vec<Node>> {
        match parts.len() {
            1 => Ok(parts.remove(0)),
            _ => Err(parts),
        }
    }

    pub(crate) fn negate(self) -> Node {
        match self {
            Node::Not(inner) => *inner,
            other => Node::Not(Box::new(other)),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Leaf {
    Tag(Pattern),
    Text(TextKey, Pattern),
    Attribute(Box<str>, Pattern),
    Alias(Box<str>),
    Test(bool),
    Number(Box<str>, Compare, Number),
    Version(Compare, Literal<Version>),
    Registered(Compare, Literal<Seconds>),
}

/// What every device has a text of, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TextKey {
    Platform,
    AppVersion,
    Language,
    TimeZone,
}

impl TextKey {
    fn name(self) -> &'static str {
        match self {
            TextKey::Platform => "platform",
            TextKey::AppVersion => "app_version",
            TextKey::Language => "language",
            TextKey::TimeZone => "timezone",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    pub(crate) text: Box<str>,
    /// Whatever begins with the text is meant.
    pub(crate) is_prefix: bool,
    /// The number that an attribute's value may be too.
    pub(crate) number: Option<Number>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compare {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Compare {
    pub(crate) fn holds<T: Copy + PartialOrd>(self, left: T, right: T) -> bool {
        match self {
            Compare::Equal => left == right,
            Compare::NotEqual => left != right,
            Compare::Less => left < right,
            Compare::LessOrEqual => left <= right,
            Compare::Greater => left > right,
            Compare::GreaterOrEqual => left >= right,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Compare::Equal => "=",
            Compare::NotEqual => "!=",
            Compare::Less => "<",
            Compare::LessOrEqual => "<=",
            Compare::Greater => ">",
            Compare::GreaterOrEqual => ">=",
        }
    }
}

/// A value, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Literal<T> {
    pub(crate) text: Box<str>,
    pub(crate) value: T,
}

/// A second or a day, in seconds since 1970: from the first to before the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seconds {
    pub(crate) from: i64,
    pub(crate) until: i64,
}

impl Seconds {
    pub(crate) fn holds(self, compare: Compare, second: i64) -> bool {
        let is_within = (self.from..self.until).contains(&second);
        match compare {
            Compare::Equal => is_within,
            Compare::NotEqual => !is_within,
            Compare::Less => second < self.from,
            Compare::LessOrEqual => second < self.until,
            Compare::Greater => second >= self.until,
            Compare::GreaterOrEqual => second >= self.from,
        }
    }
}

/// Reads a number of an expression: digits, with a sign, a point and an exponent perhaps.
fn number(text: &str) -> Option<Number> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let begins = digits.starts_with(|c: char| c.is_ascii_digit());
    // What Rust takes for a number besides, `inf` and `nan`, begins with a letter.
    begins.then(|| text.parse().ok()).flatten().and_then(Number::new)
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = |f: &mut fmt::Formatter<'_>, parts: &[Node], between: &str| {
            for (place, part) in parts.iter().enumerate() {
                f.write_str(if place == 0 { "" } else { between })?;
                match (self, part) {
                    (Node::And(_), Node::Or(_)) => write!(f, "({part})")?,
                    _ => part.fmt(f)?,
                }
            }
            Ok(())
        };
        match self {
            Node::And(parts) => join(f, parts, " and "),
            Node::Or(parts) => join(f, parts, " or "),
            Node::Not(part) => match **part {
                Node::And(_) | Node::Or(_) => write!(f, "not ({part})"),
                _ => write!(f, "not {part}"),
            },
            Node::Leaf(leaf) => leaf.fmt(f),
        }
    }
}

impl fmt::Display for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Leaf::Tag(pattern) => pattern.fmt(f),
            Leaf::Text(key, pattern) => write!(f, "{}:{pattern}", key.name()),
            Leaf::Attribute(key, pattern) => {
                write!(f, "{}:", Text(key))?;
                // Unquoted it would be a number too.
                match pattern.number.is_none() && number(&pattern.text).is_some() {
                    true => write_quoted(f, &pattern.text)?,
                    false => return pattern.fmt(f),
                }
                f.write_str(if pattern.is_prefix { "*" } else { "" })
            }
            Leaf::Alias(alias) => write!(f, "alias:{}", Text(alias)),
            Leaf::Test(is) => write!(f, "test:{is}"),
            Leaf::Number(key, compare, number) => {
                write!(f, "{} {} ", Text(key), compare.name())?;
                write_number(f, number.get())
            }
            Leaf::Version(compare, version) => {
                write!(f, "app_version {} {}", compare.name(), Text(&version.text))
            }
            Leaf::Registered(compare, time) => {
                write!(f, "registered {} {}", compare.name(), Text(&time.text))
            }
        }
    }
}

fn write_number(f: &mut fmt::Formatter<'_>, number: f64) -> fmt::Result {
    match number.fract() == 0.0 && number.abs() < 1e15 {
        true => write!(f, "{number}"),
        false => write!(f, "{number:?}"),
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_prefix {
            true if self.text.is_empty() => f.write_str("*"),
            true => write!(f, "{}*", Text(&self.text)),
            false => write!(f, "{}", Text(&self.text)),
        }
    }
}

/// A text that is quoted if it has to be.
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match is_word(self.0) {
            true => f.write_str(self.0),
            false => write_quoted(f, self.0),
        }
    }
}

fn write_quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    write!(f, "\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""))
}
