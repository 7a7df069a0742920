//! Lists whose lines are JSON.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{LINE_BYTES_MAX, Line, ListError, ListProblem, line, wrong};
use crate::target::Name;

#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Object<'a> {
    #[serde(borrow)]
    device: Option<Text<'a>>,
    #[serde(borrow)]
    alias: Option<Text<'a>>,
    #[serde(borrow)]
    vars: Option<&'a RawValue>,
}

#[derive(Default)]
pub(super) struct Reader {
    /// Lines that were whole.
    lines: u64,
    /// The beginning of the next.
    partial: Vec<u8>,
}

impl Reader {
    pub(super) fn feed(
        &mut self,
        mut chunk: &[u8],
        each: &mut impl FnMut(Line<'_>),
    ) -> Result<(), ListError> {
        while let Some(end) = chunk.iter().position(|byte| *byte == b'\n') {
            let (whole, rest) = (&chunk[..end], &chunk[end + 1..]);
            chunk = rest;
            self.check_length(whole)?;
            if self.partial.is_empty() {
                read(self.lines + 1, whole, each)?;
            } else {
                self.partial.extend_from_slice(whole);
                read(self.lines + 1, &self.partial, each)?;
                self.partial.clear();
            }
            self.lines += 1;
        }
        self.check_length(chunk)?;
        self.partial.extend_from_slice(chunk);
        Ok(())
    }

    pub(super) fn finish(&mut self, each: &mut impl FnMut(Line<'_>)) -> Result<(), ListError> {
        read(self.lines + 1, &self.partial, each)
    }

    fn check_length(&self, more: &[u8]) -> Result<(), ListError> {
        match self.partial.len() + more.len() > LINE_BYTES_MAX {
            true => Err(wrong(self.lines + 1, ListProblem::TooLong)),
            false => Ok(()),
        }
    }
}

fn read(number: u64, bytes: &[u8], each: &mut impl FnMut(Line<'_>)) -> Result<(), ListError> {
    let wrong = |problem| wrong(number, problem);
    let text = std::str::from_utf8(bytes).map_err(|_| wrong(ListProblem::Encoding))?;
    let text = text.trim_end_matches(['\r', ' ', '\t']);
    let trimmed = text.trim_start_matches([' ', '\t']);
    if trimmed.is_empty() {
        return Ok(());
    }
    let json = |error: serde_json::Error| wrong(problem(&error));
    if trimmed.starts_with('"') {
        let Text(id) = serde_json::from_str(text).map_err(json)?;
        each(line(number, Name::Device(&id), None));
        return Ok(());
    }
    if !trimmed.starts_with('{') {
        return Err(wrong(ListProblem::Nobody));
    }
    let object = serde_json::from_str::<Object<'_>>(text).map_err(json)?;
    let vars = object.vars.map(RawValue::get);
    if vars.is_some_and(|vars| !vars.starts_with('{')) {
        return Err(wrong(ListProblem::Vars));
    }
    let name = match (&object.device, &object.alias) {
        (Some(Text(id)), None) => Name::Device(id),
        (None, Some(Text(alias))) => Name::Alias(alias),
        _ => return Err(wrong(ListProblem::Nobody)),
    };
    each(line(number, name, vars));
    Ok(())
}

/// What JSON's reader says, without its own count of lines.
fn problem(error: &serde_json::Error) -> ListProblem {
    let mut message = error.to_string();
    if let Some(end) = message.rfind(" at line ") {
        message.truncate(end);
    }
    ListProblem::Json { column: error.column(), message }
}
