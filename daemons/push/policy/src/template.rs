//! Texts with variables: `Hello {{name | default: "friend"}}, {{count}} new`. Parsed once, rendered
//! for each target.
//!
//! | written | becomes |
//! |---|---|
//! | `{{name}}` | the target's variable; a letter or `_`, then letters, digits, `_` `.` `-` |
//! | `{{name \| default: "friend"}}` | `friend` where the target has no such variable, or null |
//! | `{{name \| upper}}`, `lower` | in capitals, in small letters |
//! | `{{name \| truncate: 20}}` | cut to 20 characters, the last an ellipsis |
//! | `{{"{{"}}` | what is in the quotes, `\"` and `\\` for those two: here two braces |
//!
//! Filters apply from left to right. Anything else is text as it stands, a single brace too. There
//! are no loops, no conditions and no includes, so rendering is one pass over the parts.
//!
//! A **payload** is a JSON document whose strings are such texts. What a variable brings is
//! escaped, so that it never ends its string: a document stays the document that it was, whatever
//! the values. Names of members have no variables.

mod json;
mod parse;
mod values;

use std::borrow::Cow;

pub use values::{ValueError, Values};

/// The longest name of a variable, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Variables of a message at most.
pub const NAMES_MAX: usize = 64;

/// Bounds of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemplateLimits {
    /// The longest source, in bytes. 64 KiB by default.
    pub source_bytes_max: usize,
    /// Variables in it at most, repeated ones counted again. 256 by default.
    pub parts_max: usize,
    /// The longest result, in bytes. 64 KiB by default.
    pub output_bytes_max: usize,
}

impl Default for TemplateLimits {
    fn default() -> TemplateLimits {
        TemplateLimits { source_bytes_max: 64 << 10, parts_max: 256, output_bytes_max: 64 << 10 }
    }
}

/// A source that is no template: its author's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// It reads otherwise than a template.
    #[error("at byte {at}: expected {expected}")]
    Syntax {
        /// Where; in a payload from the beginning of the string that it is in, plus where that is.
        at: usize,
        /// What should be there.
        expected: &'static str,
    },
    /// A payload is no JSON.
    #[error("the payload is not JSON: {why}")]
    Json {
        /// What is wrong with it.
        why: String,
    },
    /// The name of a member has a variable.
    #[error("at byte {at}: variables stand in values, not in names of members")]
    Member {
        /// Where the name begins.
        at: usize,
    },
    /// It is longer than it may be.
    #[error("the template is {bytes} bytes long: at most {max}")]
    TooLong {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        max: usize,
    },
    /// It has more variables than it may have.
    #[error("the template has more than {max} variables")]
    TooMany {
        /// How many it may have.
        max: usize,
    },
}

/// A target that a template cannot be rendered for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RenderError {
    /// It does not have a variable that has no default.
    #[error("the target has no variable \"{name}\", and the template no default for it")]
    Missing {
        /// Which one.
        name: Box<str>,
    },
    /// What it gives is too long.
    #[error("the result is longer than {max} bytes")]
    TooLong {
        /// How long it may be.
        max: usize,
    },
}

/// What becomes of a variable that a target does not have and that has no default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Missing {
    /// The target is left out.
    #[default]
    Error,
    /// Nothing stands in its place.
    Empty,
}

/// The variables of a message: of its title, its text and its payload together, so that a
/// target's values are read once for all.
#[derive(Clone, Debug, Default)]
pub struct Names(Vec<Box<str>>);

impl Names {
    /// None yet.
    pub fn new() -> Names {
        Names::default()
    }

    /// In the order in which they were met.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|name| &**name)
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|known| **known == *name)
    }

    fn intern(&mut self, name: &str) -> Result<u16, TemplateError> {
        if let Some(known) = self.find(name) {
            return Ok(known as u16);
        }
        if self.0.len() >= NAMES_MAX {
            return Err(TemplateError::TooMany { max: NAMES_MAX });
        }
        self.0.push(name.into());
        Ok((self.0.len() - 1) as u16)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Filter {
    Default(Box<str>),
    Upper,
    Lower,
    /// To so many characters.
    Truncate(usize),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// As it stands in the result.
    Text(Box<str>),
    /// The variable of a number, filtered.
    Variable(u16, Box<[Filter]>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escape {
    None,
    Json,
}

/// A text, or a payload, to be rendered for many targets.
#[derive(Clone, Debug)]
pub struct Template {
    parts: Box<[Part]>,
    escape: Escape,
    output_bytes_max: usize,
}

impl Template {
    /// A text whose variables are among `names`, which is given those that are new.
    ///
    /// # Errors
    /// It is too long, has too many variables, or braces that name none.
    pub fn text(
        source: &str,
        names: &mut Names,
        limits: &TemplateLimits,
    ) -> Result<Template, TemplateError> {
        bound(source, limits)?;
        let mut parts = Parts::new(limits.parts_max);
        parse::text(source, 0, names, &mut |piece| parts.push(piece))?;
        Ok(parts.into_template(Escape::None, limits))
    }

    /// A JSON document whose strings are texts.
    ///
    /// # Errors
    /// Those of [`text`](Template::text); it is no JSON; or a name in it has a variable.
    pub fn json(
        source: &str,
        names: &mut Names,
        limits: &TemplateLimits,
    ) -> Result<Template, TemplateError> {
        bound(source, limits)?;
        let mut parts = Parts::new(limits.parts_max);
        json::payload(source, names, &mut parts)?;
        Ok(parts.into_template(Escape::Json, limits))
    }

    /// Whether it is the same for every target.
    pub fn is_constant(&self) -> bool {
        !self.parts.iter().any(|part| matches!(part, Part::Variable(..)))
    }

    /// Appends what it is for a target to `out`.
    ///
    /// # Errors
    /// A variable is missing, or the result is too long; `out` is as it was.
    pub fn render(
        &self,
        names: &Names,
        values: &Values<'_>,
        missing: Missing,
        out: &mut String,
    ) -> Result<(), RenderError> {
        let begin = out.len();
        let rendered = self.append(names, values, missing, out);
        if rendered.is_err() {
            out.truncate(begin);
        }
        rendered
    }

    fn append(
        &self,
        names: &Names,
        values: &Values<'_>,
        missing: Missing,
        out: &mut String,
    ) -> Result<(), RenderError> {
        let end_max = out.len().saturating_add(self.output_bytes_max);
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Variable(number, filters) => {
                    let value = values.get(usize::from(*number)).map(Cow::Borrowed);
                    match (filter(value, filters), missing) {
                        (Some(value), _) => self.push(&value, out),
                        (None, Missing::Empty) => {}
                        (None, Missing::Error) => {
                            let name = names.0.get(usize::from(*number)).cloned();
                            return Err(RenderError::Missing { name: name.unwrap_or_default() });
                        }
                    }
                }
            }
            if out.len() > end_max {
                return Err(RenderError::TooLong { max: self.output_bytes_max });
            }
        }
        Ok(())
    }

    fn push(&self, value: &str, out: &mut String) {
        match self.escape {
            Escape::None => out.push_str(value),
            Escape::Json => json::push_escaped(value, out),
        }
    }
}

fn bound(source: &str, limits: &TemplateLimits) -> Result<(), TemplateError> {
    let (bytes, max) = (source.len(), limits.source_bytes_max);
    if bytes > max { Err(TemplateError::TooLong { bytes, max }) } else { Ok(()) }
}

/// Gathers parts; texts that follow each other become one.
struct Parts {
    parts: Vec<Part>,
    text: String,
    variables_left: usize,
    variables_max: usize,
}

impl Parts {
    fn new(variables_max: usize) -> Parts {
        Parts {
            parts: Vec::new(),
            text: String::new(),
            variables_left: variables_max,
            variables_max,
        }
    }

    fn push(&mut self, piece: parse::Piece<'_>) -> Result<(), TemplateError> {
        match piece {
            parse::Piece::Text(text) => self.text.push_str(text),
            parse::Piece::Variable(name, filters) => {
                let left = self.variables_left.checked_sub(1);
                self.variables_left =
                    left.ok_or(TemplateError::TooMany { max: self.variables_max })?;
                self.end_text();
                self.parts.push(Part::Variable(name, filters));
            }
        }
        Ok(())
    }

    fn end_text(&mut self) {
        if !self.text.is_empty() {
            self.parts.push(Part::Text(std::mem::take(&mut self.text).into()));
        }
    }

    fn into_template(mut self, escape: Escape, limits: &TemplateLimits) -> Template {
        self.end_text();
        let parts = self.parts.into();
        Template { parts, escape, output_bytes_max: limits.output_bytes_max }
    }
}

fn filter<'a>(value: Option<Cow<'a, str>>, filters: &'a [Filter]) -> Option<Cow<'a, str>> {
    filters.iter().fold(value, |value, filter| match (filter, value) {
        (Filter::Default(instead), None) => Some(Cow::Borrowed(&**instead)),
        (_, None) => None,
        (Filter::Default(_), value) => value,
        (Filter::Upper, Some(value)) => Some(Cow::Owned(value.to_uppercase())),
        (Filter::Lower, Some(value)) => Some(Cow::Owned(value.to_lowercase())),
        (Filter::Truncate(max), Some(value)) => Some(truncate(value, *max)),
    })
}

fn truncate(value: Cow<'_, str>, chars_max: usize) -> Cow<'_, str> {
    let is_longer = value.char_indices().nth(chars_max).is_some();
    let cut = value.char_indices().nth(chars_max - 1).map(|(at, _)| at);
    match cut.filter(|_| is_longer) {
        Some(cut) => Cow::Owned(format!("{}…", &value[..cut])),
        None => value,
    }
}

#[cfg(test)]
mod tests;
