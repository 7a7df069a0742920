//! Lists of devices as they are uploaded, read in pieces of any size. Nothing is held but the line
//! that is not whole yet.
//!
//! NDJSON has a JSON value a line, and empty lines mean nothing:
//!
//! ```text
//!   "d1"
//!   {"device":"d2","vars":{"name":"Zoe"}}
//!   {"alias":"zoe@example.com"}
//! ```
//!
//! CSV is that of RFC 4180, with a header that has a column `device` or `alias`; other columns are
//! variables, whose values are texts:
//!
//! ```text
//!   device,name
//!   d2,"Zoe ""Z"" Zimmer"
//! ```
//!
//! Both are UTF-8, with or without a byte order mark, and their lines end with LF or CRLF. A line,
//! in CSV one with all that its quotes have in them, has at most 64 KiB. The first line that is
//! wrong ends the reading: half a list is none.

mod csv;
mod ndjson;
#[cfg(test)]
mod tests;

use crate::target::{Listed, Name};

/// The longest line, in bytes, without its end.
pub const LINE_BYTES_MAX: usize = 1 << 16;
/// The most columns of CSV.
pub const COLUMNS_MAX: usize = 64;

const MARK: &[u8] = b"\xEF\xBB\xBF";

/// How a list is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListFormat {
    /// A JSON value a line.
    Ndjson,
    /// Comma-separated values with a header.
    Csv,
}

/// A line of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// What it names, and where it is: of a line of CSV that goes over several, the first.
    pub listed: Listed<'a>,
    /// The variables of a template: a JSON object, as it was written or made of columns.
    pub vars: Option<&'a str>,
}

/// Why a list ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct ListError {
    /// The line, from one.
    pub line: u64,
    /// What is wrong with it.
    pub problem: ListProblem,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListProblem {
    /// It is too long, which in CSV may mean that a quote does not end.
    #[error("it has more than {LINE_BYTES_MAX} bytes; does a quote not end?")]
    TooLong,
    /// It is not UTF-8.
    #[error("it is not UTF-8")]
    Encoding,
    /// It is not JSON, or not such a value.
    #[error("column {column}: {message}")]
    Json {
        /// Where, from one.
        column: usize,
        /// What is wrong there.
        message: String,
    },
    /// It names no device.
    #[error("it is neither a text nor has one of `device` and `alias`")]
    Nobody,
    /// Its variables are no JSON object.
    #[error("`vars` is no object")]
    Vars,
    /// The list ends between quotes.
    #[error("a quote does not end")]
    Quote,
    /// The header has not one column that names devices.
    #[error("the header has not one column `device` or `alias`")]
    Header,
    /// The header has a column twice, or one without a name.
    #[error("the header has the column {0:?} twice, or without a name")]
    Column(String),
    /// There are too many columns.
    #[error("it has more than {COLUMNS_MAX} columns")]
    Columns,
    /// It has not as many fields as the header.
    #[error("it has {fields} fields, and the header {columns}")]
    Fields {
        /// How many it has.
        fields: usize,
        /// How many it should have.
        columns: usize,
    },
}

enum Format {
    Ndjson(ndjson::Reader),
    Csv(Box<csv::Reader>),
}

/// Reads a list.
pub struct ListReader {
    format: Format,
    /// How many bytes of a byte order mark came; `None` once it is decided what came.
    mark: Option<usize>,
    failed: Option<ListError>,
}

impl ListReader {
    /// Reads a list from its beginning.
    pub fn new(format: ListFormat) -> ListReader {
        let format = match format {
            ListFormat::Ndjson => Format::Ndjson(ndjson::Reader::default()),
            ListFormat::Csv => Format::Csv(Box::default()),
        };
        ListReader { format, mark: Some(0), failed: None }
    }

    /// Takes the next piece, and tells each line that is whole.
    ///
    /// # Errors
    /// A line is wrong; lines before it were told. From then on this is the answer to everything.
    pub fn feed(&mut self, chunk: &[u8], each: &mut impl FnMut(Line<'_>)) -> Result<(), ListError> {
        let rest = self.skip_mark(chunk, each)?;
        self.read(rest, each)
    }

    /// Ends the list, and tells its last line if that has no end of its own.
    ///
    /// # Errors
    /// A line is wrong, or there is no header.
    pub fn finish(mut self, each: &mut impl FnMut(Line<'_>)) -> Result<(), ListError> {
        if let Some(came) = self.mark.take() {
            self.read(&MARK[..came], each)?;
        }
        if let Some(error) = self.failed {
            return Err(error);
        }
        match &mut self.format {
            Format::Ndjson(reader) => reader.finish(each),
            Format::Csv(reader) => reader.finish(each),
        }
    }

    /// Skips the byte order mark, which may come byte by byte.
    fn skip_mark<'a>(
        &mut self,
        chunk: &'a [u8],
        each: &mut impl FnMut(Line<'_>),
    ) -> Result<&'a [u8], ListError> {
        let Some(came) = self.mark else { return Ok(chunk) };
        let missing = &MARK[came..];
        let matching = missing.iter().zip(chunk).take_while(|(a, b)| a == b).count();
        if matching == missing.len() {
            self.mark = None;
            return Ok(&chunk[matching..]);
        }
        if matching == chunk.len() {
            self.mark = Some(came + matching);
            return Ok(&[]);
        }
        self.mark = None;
        self.read(&MARK[..came], each)?;
        Ok(chunk)
    }

    fn read(&mut self, chunk: &[u8], each: &mut impl FnMut(Line<'_>)) -> Result<(), ListError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let read = match &mut self.format {
            Format::Ndjson(reader) => reader.feed(chunk, each),
            Format::Csv(reader) => reader.feed(chunk, each),
        };
        self.failed = read.clone().err();
        read
    }
}

fn wrong(line: u64, problem: ListProblem) -> ListError {
    ListError { line, problem }
}

fn line<'a>(line: u64, name: Name<'a>, vars: Option<&'a str>) -> Line<'a> {
    Line { listed: Listed { line, name }, vars }
}
