//! An expression's tokens, each with where it is.

use super::Compare;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// A name or a value; whether it was quoted.
    Text(Box<str>, bool),
    And,
    Or,
    Not,
    Open,
    Close,
    Colon,
    Star,
    Compare(Compare),
    End,
}

/// Why there is no token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Malformed {
    /// The byte that is wrong.
    pub(super) at: usize,
    pub(super) expected: &'static str,
}

/// Characters of which no word has any.
fn is_special(c: char) -> bool {
    c.is_whitespace() || c.is_control() || "()\":<>=!*&|\\,;'`".contains(c)
}

fn keyword(word: &str) -> Option<Token> {
    let all = [("and", Token::And), ("or", Token::Or), ("not", Token::Not)];
    let found = all.into_iter().find(|(name, _)| word.eq_ignore_ascii_case(name));
    found.map(|(_, token)| token)
}

/// Whether a text need not be quoted.
pub(super) fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(is_special) && keyword(text).is_none()
}

/// Reads tokens off a text.
pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Lexer<'a> {
        Lexer { text, at: 0 }
    }

    /// The next token, where it begins and where it ends.
    pub(super) fn next(&mut self) -> Result<(Token, usize, usize), Malformed> {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
        let rest = &self.text[self.at..];
        let start = self.at;
        let mut chars = rest.chars();
        let Some(first) = chars.next() else { return Ok((Token::End, start, start)) };
        let is_followed = chars.next() == Some('=');
        let (token, len) = match first {
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            ':' => (Token::Colon, 1),
            '*' => (Token::Star, 1),
            '=' => (Token::Compare(Compare::Equal), 1),
            '<' if is_followed => (Token::Compare(Compare::LessOrEqual), 2),
            '<' => (Token::Compare(Compare::Less), 1),
            '>' if is_followed => (Token::Compare(Compare::GreaterOrEqual), 2),
            '>' => (Token::Compare(Compare::Greater), 1),
            '!' if is_followed => (Token::Compare(Compare::NotEqual), 2),
            '!' => return Err(Malformed { at: start, expected: "`not`, or `!=`" }),
            '&' => return Err(Malformed { at: start, expected: "`and`" }),
            '|' => return Err(Malformed { at: start, expected: "`or`" }),
            '"' => self.quoted(rest)?,
            c if is_special(c) => {
                let expected = "a name or a value, in quotes if it has this character";
                return Err(Malformed { at: start, expected });
            }
            _ => {
                let word = &rest[..rest.find(is_special).unwrap_or(rest.len())];
                let token = keyword(word).unwrap_or_else(|| Token::Text(word.into(), false));
                (token, word.len())
            }
        };
        self.at += len;
        Ok((token, start, self.at))
    }

    fn quoted(&self, rest: &str) -> Result<(Token, usize), Malformed> {
        let mut text = String::new();
        let mut chars = rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => return Ok((Token::Text(text.into(), true), at + 1)),
                '\\' => match chars.next() {
                    Some((_, c @ ('"' | '\\'))) => text.push(c),
                    _ => {
                        let expected = "`\\\"` or `\\\\`";
                        return Err(Malformed { at: self.at + at, expected });
                    }
                },
                c => text.push(c),
            }
        }
        Err(Malformed { at: self.text.len(), expected: "the `\"` that ends the text" })
    }
}
