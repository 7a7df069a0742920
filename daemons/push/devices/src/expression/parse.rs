//! Reads an expression: one token ahead, recursing as deep as [`DEPTH_MAX`] says and no deeper.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::lex::{Lexer, Token};
use super::{
    Compare, DEPTH_MAX, EXPRESSION_BYTES_MAX, LEAVES_MAX, Leaf, Literal, Node, Pattern, Seconds,
    TextKey, number,
};
use crate::syntax::Version;

const DAY_S: i64 = 86_400;
/// How much an error shows of what was found, in characters.
const FOUND_CHARS_MAX: usize = 40;

/// Why a text is no expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {at}: expected {expected}, found {found}")]
pub struct ParseError {
    /// Where, in bytes from the beginning.
    pub at: usize,
    /// What would have been right there.
    pub expected: &'static str,
    /// What is there.
    pub found: Box<str>,
}

type Parsed<T> = Result<T, ParseError>;

pub(super) fn parse(text: &str) -> Parsed<Node> {
    if text.len() > EXPRESSION_BYTES_MAX {
        let found = format!("{} bytes", text.len()).into();
        let expected = "an expression of at most 4096 bytes";
        return Err(ParseError { at: EXPRESSION_BYTES_MAX, expected, found });
    }
    let lexer = Lexer::new(text);
    let mut parser = Parser { text, lexer, token: Token::End, start: 0, end: 0, leaves: 0 };
    parser.advance()?;
    let node = parser.any(0)?;
    match parser.token {
        Token::End => Ok(node),
        _ => Err(parser.error("`and`, `or` or the end")),
    }
}

struct Parser<'a> {
    text: &'a str,
    lexer: Lexer<'a>,
    /// The token that is looked at, and where it is.
    token: Token,
    start: usize,
    end: usize,
    leaves: usize,
}

impl Parser<'_> {
    fn advance(&mut self) -> Parsed<Token> {
        match self.lexer.next() {
            Ok((token, start, end)) => {
                (self.start, self.end) = (start, end);
                Ok(std::mem::replace(&mut self.token, token))
            }
            Err(wrong) => Err(self.error_at(wrong.at, wrong.at + 1, wrong.expected)),
        }
    }

    fn error(&self, expected: &'static str) -> ParseError {
        self.error_at(self.start, self.end, expected)
    }

    fn error_at(&self, at: usize, end: usize, expected: &'static str) -> ParseError {
        let shown = self.text[at..].chars().take((end - at).clamp(1, FOUND_CHARS_MAX));
        let shown = shown.map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c });
        let shown = shown.collect::<String>();
        let found = match shown.is_empty() {
            true => "the end".into(),
            false => format!("`{shown}`").into(),
        };
        ParseError { at, expected, found }
    }

    fn any(&mut self, depth: usize) -> Parsed<Node> {
        let mut parts = vec![self.all(depth)?];
        while self.token == Token::Or {
            self.advance()?;
            parts.push(self.all(depth)?);
        }
        Ok(Node::any(parts))
    }

    fn all(&mut self, depth: usize) -> Parsed<Node> {
        let mut parts = vec![self.unary(depth)?];
        while self.token == Token::And {
            self.advance()?;
            parts.push(self.unary(depth)?);
        }
        Ok(Node::all(parts))
    }

    fn unary(&mut self, depth: usize) -> Parsed<Node> {
        let nests = matches!(self.token, Token::Not | Token::Open);
        if nests && depth == DEPTH_MAX {
            return Err(self.error("at most 32 levels of parentheses and `not`"));
        }
        match self.token {
            Token::Not => {
                self.advance()?;
                Ok(self.unary(depth + 1)?.negate())
            }
            Token::Open => {
                self.advance()?;
                let node = self.any(depth + 1)?;
                match self.token {
                    Token::Close => self.advance().map(|_| node),
                    _ => Err(self.error("`and`, `or` or `)`")),
                }
            }
            Token::Text(..) | Token::Star => {
                if self.leaves == LEAVES_MAX {
                    return Err(self.error("at most 256 conditions"));
                }
                self.leaves += 1;
                self.leaf().map(Node::Leaf)
            }
            _ => Err(self.error("a tag, a key, `not` or `(`")),
        }
    }

    fn leaf(&mut self) -> Parsed<Leaf> {
        let (at, end) = (self.start, self.end);
        let (pattern, _) = self.pattern()?;
        let is_key = matches!(self.token, Token::Colon | Token::Compare(_));
        if !is_key {
            return self.tag(at, end, pattern);
        }
        if pattern.is_prefix || pattern.text.is_empty() {
            return Err(self.error_at(at, end, "a key"));
        }
        match self.advance()? {
            Token::Compare(compare) => self.comparison((at, end), &pattern.text, compare),
            _ => self.matching(&pattern.text),
        }
    }

    /// A text with or without a star, or a star; whether the text was quoted.
    fn pattern(&mut self) -> Parsed<(Pattern, bool)> {
        let mut pattern = Pattern { text: "".into(), is_prefix: false, number: None };
        let mut quoted = false;
        let mut end = self.start;
        if let Token::Text(..) = self.token {
            end = self.end;
            if let Token::Text(text, was_quoted) = self.advance()? {
                pattern.text = text;
                quoted = was_quoted;
            }
        } else if self.token != Token::Star {
            return Err(self.error("a value"));
        }
        if self.token == Token::Star && self.start == end {
            pattern.is_prefix = true;
            self.advance()?;
        }
        Ok((pattern, quoted))
    }

    fn tag(&self, at: usize, end: usize, pattern: Pattern) -> Parsed<Leaf> {
        match pattern.text.is_empty() && !pattern.is_prefix {
            true => Err(self.error_at(at, end, "a tag that is not empty")),
            false => Ok(Leaf::Tag(pattern)),
        }
    }

    /// What comes behind a key and `:`.
    fn matching(&mut self, key: &str) -> Parsed<Leaf> {
        let (at, end) = (self.start, self.end);
        if key == "registered" {
            return Err(self.error_at(at, end, "a comparison, as in `registered >= 2026-01-05`"));
        }
        let (mut pattern, quoted) = self.pattern()?;
        let text = |key| Ok(Leaf::Text(key, pattern.clone()));
        match key {
            "tag" => self.tag(at, end, pattern),
            "platform" => text(TextKey::Platform),
            "app_version" => text(TextKey::AppVersion),
            "language" | "lang" => text(TextKey::Language),
            "timezone" => text(TextKey::TimeZone),
            "alias" if pattern.is_prefix => Err(self.error_at(at, end, "an alias without `*`")),
            "alias" => Ok(Leaf::Alias(pattern.text)),
            "test" => match (&*pattern.text, pattern.is_prefix) {
                ("true", false) => Ok(Leaf::Test(true)),
                ("false", false) => Ok(Leaf::Test(false)),
                _ => Err(self.error_at(at, end, "`true` or `false`")),
            },
            _ => {
                if !quoted && !pattern.is_prefix {
                    pattern.number = number(&pattern.text);
                }
                Ok(Leaf::Attribute(key.into(), pattern))
            }
        }
    }

    /// What comes behind a key and a comparison.
    fn comparison(&mut self, of: (usize, usize), key: &str, compare: Compare) -> Parsed<Leaf> {
        let expected = match key {
            "app_version" => "a version, as 3.2.1",
            "registered" => "a day, as 2026-01-05, or a time, as \"2026-01-05T12:00:00Z\"",
            "tag" | "platform" | "language" | "lang" | "timezone" | "alias" | "test" => {
                return Err(self.error_at(of.0, of.1, "a key that is compared, or `:` behind it"));
            }
            _ => "a number; a text is matched with `:`",
        };
        let wrong = self.error(expected);
        let Token::Text(text, quoted) = self.advance()? else { return Err(wrong) };
        let leaf = match key {
            "app_version" => {
                Version::parse(&text).map(|value| Leaf::Version(compare, Literal { text, value }))
            }
            "registered" => {
                seconds(&text).map(|value| Leaf::Registered(compare, Literal { text, value }))
            }
            _ if quoted => None,
            _ => number(&text).map(|number| Leaf::Number(key.into(), compare, number)),
        };
        leaf.ok_or(wrong)
    }
}

/// Reads a day or a time.
fn seconds(text: &str) -> Option<Seconds> {
    const DATE_BYTES: usize = "2026-01-05".len();
    if text.len() == DATE_BYTES {
        let day = text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok()?;
        let from = day.timestamp().as_second();
        return Some(Seconds { from, until: from + DAY_S });
    }
    let time = text.parse::<Timestamp>().ok()?;
    // Before 1970 a part of a second is rounded up, where no device was registered.
    Some(Seconds { from: time.as_second(), until: time.as_second() + 1 })
}
