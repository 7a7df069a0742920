//! Lists whose lines are comma-separated values.

use std::collections::BTreeSet;

use csv_core::ReadRecordResult;

use super::{COLUMNS_MAX, LINE_BYTES_MAX, Line, ListError, ListProblem, line, wrong};
use crate::target::Name;

/// Bytes of the end of a line that is read with it.
const END_BYTES: usize = 1;

#[derive(Debug, Default)]
struct Header {
    /// The columns; of those that are variables, how an object's member begins.
    columns: Vec<Column>,
}

#[derive(Debug)]
enum Column {
    Device,
    Alias,
    Variable(String),
}

pub(super) struct Reader {
    core: csv_core::Reader,
    header: Option<Header>,
    /// Ends of lines that came.
    ends_of_lines: u64,
    record: Record,
    vars: Vec<u8>,
}

/// The record that is being read.
struct Record {
    /// Its first line; `None` before its first byte.
    line: Option<u64>,
    /// How many bytes of it came.
    came: usize,
    bytes: Vec<u8>,
    bytes_len: usize,
    ends: Vec<usize>,
    ends_len: usize,
}

impl Record {
    fn fields(&self) -> impl Iterator<Item = &[u8]> {
        let mut from = 0;
        self.ends[..self.ends_len].iter().map(move |end| {
            let field = &self.bytes[from..*end];
            from = *end;
            field
        })
    }

    fn restart(&mut self) {
        (self.line, self.came) = (None, 0);
        (self.bytes_len, self.ends_len) = (0, 0);
    }
}

impl Default for Reader {
    fn default() -> Reader {
        let record = Record {
            line: None,
            came: 0,
            bytes: vec![0; LINE_BYTES_MAX + END_BYTES + 1],
            bytes_len: 0,
            ends: vec![0; COLUMNS_MAX + 1],
            ends_len: 0,
        };
        let mut core = csv_core::Reader::new();
        // At its first bytes the library skips a byte order mark, but only one that comes whole.
        core.read_record(b"\n", &mut [0; 1], &mut [0; 1]);
        Reader { core, header: None, ends_of_lines: 0, record, vars: Vec::new() }
    }
}

impl Reader {
    pub(super) fn feed(
        &mut self,
        mut chunk: &[u8],
        each: &mut impl FnMut(Line<'_>),
    ) -> Result<(), ListError> {
        loop {
            if self.record.line.is_none() {
                chunk = self.skip_ends(chunk);
            }
            // Without input the library would take the list for ended.
            if chunk.is_empty() {
                return Ok(());
            }
            self.record.line.get_or_insert(self.ends_of_lines + 1);
            let (read, whole) = self.read(chunk)?;
            chunk = &chunk[read..];
            if whole {
                self.take(each)?;
            }
        }
    }

    pub(super) fn finish(&mut self, each: &mut impl FnMut(Line<'_>)) -> Result<(), ListError> {
        if let Some(first) = self.record.line {
            // The end that the last line may lack: between quotes it ends nothing.
            match self.read(b"\n")? {
                (_, true) => self.take(each)?,
                (_, false) => return Err(wrong(first, ListProblem::Quote)),
            }
        }
        match self.header {
            Some(_) => Ok(()),
            None => Err(wrong(1, ListProblem::Header)),
        }
    }

    /// Skips ends of lines that nothing is before.
    fn skip_ends<'a>(&mut self, chunk: &'a [u8]) -> &'a [u8] {
        let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
        let len = chunk.iter().take_while(|byte| is_end(byte)).count();
        self.ends_of_lines += count_ends(&chunk[..len]);
        &chunk[len..]
    }

    /// Reads on in the record: how many bytes, and whether it is whole.
    fn read(&mut self, chunk: &[u8]) -> Result<(usize, bool), ListError> {
        let record = &mut self.record;
        let first = record.line.unwrap_or_default();
        let (bytes, ends) =
            (&mut record.bytes[record.bytes_len..], &mut record.ends[record.ends_len..]);
        let (result, read, written, ended) = self.core.read_record(chunk, bytes, ends);
        record.came += read;
        record.bytes_len += written;
        record.ends_len += ended;
        self.ends_of_lines += count_ends(&chunk[..read]);
        if record.came > LINE_BYTES_MAX + END_BYTES {
            return Err(wrong(first, ListProblem::TooLong));
        }
        match result {
            ReadRecordResult::InputEmpty | ReadRecordResult::End => Ok((read, false)),
            ReadRecordResult::OutputFull => Err(wrong(first, ListProblem::TooLong)),
            ReadRecordResult::OutputEndsFull => Err(wrong(first, ListProblem::Columns)),
            ReadRecordResult::Record => Ok((read, true)),
        }
    }

    /// Takes the record that is whole.
    fn take(&mut self, each: &mut impl FnMut(Line<'_>)) -> Result<(), ListError> {
        let number = self.record.line.unwrap_or_default();
        let wrong = |problem| wrong(number, problem);
        let text = |field| std::str::from_utf8(field).map_err(|_| wrong(ListProblem::Encoding));
        let Some(header) = &self.header else {
            let names = self.record.fields().map(text).collect::<Result<Vec<_>, _>>()?;
            self.header = Some(Header::read(&names).map_err(wrong)?);
            self.record.restart();
            return Ok(());
        };
        let (fields, columns) = (self.record.ends_len, header.columns.len());
        if fields != columns {
            return Err(wrong(ListProblem::Fields { fields, columns }));
        }
        let mut name = Name::Device("");
        self.vars.clear();
        for (column, field) in header.columns.iter().zip(self.record.fields()) {
            let value = text(field)?;
            match column {
                Column::Device => name = Name::Device(value),
                Column::Alias => name = Name::Alias(value),
                Column::Variable(begin) => {
                    self.vars.push(if self.vars.is_empty() { b'{' } else { b',' });
                    self.vars.extend_from_slice(begin.as_bytes());
                    serde_json::to_writer(&mut self.vars, value).expect("a text is JSON");
                }
            }
        }
        let vars = if self.vars.is_empty() { None } else { Some(closed(&mut self.vars)) };
        each(line(number, name, vars));
        self.record.restart();
        Ok(())
    }
}

/// An object that lacks its end only.
fn closed(vars: &mut Vec<u8>) -> &str {
    vars.push(b'}');
    std::str::from_utf8(vars).expect("it is made of texts")
}

fn count_ends(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

impl Header {
    fn read(names: &[&str]) -> Result<Header, ListProblem> {
        if names.len() > COLUMNS_MAX {
            return Err(ListProblem::Columns);
        }
        let mut seen = BTreeSet::new();
        let mut columns = Vec::with_capacity(names.len());
        let mut naming = 0;
        for name in names.iter().map(|name| name.trim()) {
            if name.is_empty() || !seen.insert(name) {
                return Err(ListProblem::Column(name.chars().take(64).collect()));
            }
            columns.push(match name {
                "device" => Column::Device,
                "alias" => Column::Alias,
                _ => Column::Variable(format!(
                    "{}:",
                    serde_json::to_string(name).expect("a text is JSON")
                )),
            });
            naming += usize::from(!matches!(columns.last(), Some(Column::Variable(_))));
        }
        match naming {
            1 => Ok(Header { columns }),
            _ => Err(ListProblem::Header),
        }
    }
}
