//! Reads a text: what stands between `{{` and `}}`, and what stands around.

use super::{Filter, NAME_BYTES_MAX, Names, TemplateError};

const FILTERS_MAX: usize = 8;
const TRUNCATE_MAX: usize = 65_536;

/// A piece of a text, in order.
pub(super) enum Piece<'a> {
    Text(&'a str),
    Variable(u16, Box<[Filter]>),
}

/// Gives the pieces of `source`, whose first byte is the byte `begins` of what errors speak of.
pub(super) fn text(
    source: &str,
    begins: usize,
    names: &mut Names,
    give: &mut dyn FnMut(Piece<'_>) -> Result<(), TemplateError>,
) -> Result<(), TemplateError> {
    let mut at = 0;
    while let Some(open) = source[at..].find("{{") {
        give(Piece::Text(&source[at..at + open]))?;
        let mut inside = Inside { source, at: at + open + 2, begins };
        inside.expression(names, give)?;
        at = inside.at;
    }
    give(Piece::Text(&source[at..]))
}

/// What is between braces.
struct Inside<'a> {
    source: &'a str,
    at: usize,
    begins: usize,
}

impl<'a> Inside<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn fault(&self, expected: &'static str) -> TemplateError {
        TemplateError::Syntax { at: self.begins + self.at, expected }
    }

    fn skip_spaces(&mut self) {
        self.at = self.source.len() - self.rest().trim_start_matches([' ', '\t']).len();
    }

    /// Whether `token` comes next; it is passed if so.
    fn takes(&mut self, token: &str) -> bool {
        self.skip_spaces();
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn expression(
        &mut self,
        names: &mut Names,
        give: &mut dyn FnMut(Piece<'_>) -> Result<(), TemplateError>,
    ) -> Result<(), TemplateError> {
        self.skip_spaces();
        if self.rest().starts_with('"') {
            let text = self.quoted()?;
            self.close("\"}}\" behind the quotes")?;
            return give(Piece::Text(&text));
        }
        let name = self.word("the name of a variable, or \"{{\" in quotes for two braces")?;
        let name = names.intern(name)?;
        let mut filters = Vec::new();
        while self.takes("|") {
            if filters.len() >= FILTERS_MAX {
                return Err(self.fault("no more than 8 filters"));
            }
            filters.push(self.filter()?);
        }
        self.close("\"|\" and a filter, or \"}}\"")?;
        give(Piece::Variable(name, filters.into()))
    }

    fn close(&mut self, expected: &'static str) -> Result<(), TemplateError> {
        if self.takes("}}") { Ok(()) } else { Err(self.fault(expected)) }
    }

    fn word(&mut self, expected: &'static str) -> Result<&'a str, TemplateError> {
        self.skip_spaces();
        let rest = self.rest();
        let begins = rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let other = |c: char| !(c.is_ascii_alphanumeric() || "_.-".contains(c));
        let len = rest.find(other).unwrap_or(rest.len());
        if !begins || len > NAME_BYTES_MAX {
            return Err(self.fault(expected));
        }
        self.at += len;
        Ok(&rest[..len])
    }

    fn filter(&mut self) -> Result<Filter, TemplateError> {
        const FILTERS: &str = "a filter: default: \"…\", upper, lower, or truncate: N";
        self.skip_spaces();
        let begins = self.at;
        match self.word(FILTERS)? {
            "upper" => Ok(Filter::Upper),
            "lower" => Ok(Filter::Lower),
            "default" => {
                self.colon()?;
                self.quoted().map(|text| Filter::Default(text.into()))
            }
            "truncate" => {
                self.colon()?;
                self.count().map(Filter::Truncate)
            }
            _ => {
                self.at = begins;
                Err(self.fault(FILTERS))
            }
        }
    }

    fn colon(&mut self) -> Result<(), TemplateError> {
        if self.takes(":") { Ok(()) } else { Err(self.fault("\":\" and what it is")) }
    }

    fn count(&mut self) -> Result<usize, TemplateError> {
        self.skip_spaces();
        let rest = self.rest();
        let len = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let count = rest[..len].parse().ok().filter(|count| (1..=TRUNCATE_MAX).contains(count));
        let count = count.ok_or_else(|| self.fault("a number of characters, 1 to 65536"))?;
        self.at += len;
        Ok(count)
    }

    fn quoted(&mut self) -> Result<String, TemplateError> {
        const UNESCAPED: &str = "\\\" or \\\\ behind a backslash";
        self.skip_spaces();
        if !self.takes("\"") {
            return Err(self.fault("a text in quotes"));
        }
        let mut text = String::new();
        loop {
            let rest = self.rest();
            let Some(len) = rest.find(['"', '\\']) else {
                self.at = self.source.len();
                return Err(self.fault("quotes at the end of the text"));
            };
            text.push_str(&rest[..len]);
            self.at += len + 1;
            if rest[len..].starts_with('"') {
                return Ok(text);
            }
            match self.rest().chars().next() {
                Some(escaped @ ('"' | '\\')) => text.push(escaped),
                _ => return Err(self.fault(UNESCAPED)),
            }
            self.at += 1;
        }
    }
}
