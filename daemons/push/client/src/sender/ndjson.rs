//! Values as bytes to upload: JSON, one a line.

use std::io::{self, Read};

use serde::Serialize;

/// The values of an iterator as JSON, one a line, made as they are read.
#[derive(Debug)]
pub struct Ndjson<I> {
    values: I,
    line: Vec<u8>,
    read: usize,
}

/// Values as JSON, one a line, for uploads: of a list, or of devices.
pub fn ndjson<I: IntoIterator>(values: I) -> Ndjson<I::IntoIter> {
    Ndjson { values: values.into_iter(), line: Vec::new(), read: 0 }
}

impl<I> Read for Ndjson<I>
where
    I: Iterator,
    I::Item: Serialize,
{
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            if self.read == self.line.len() {
                let Some(value) = self.values.next() else { break };
                self.line.clear();
                self.read = 0;
                serde_json::to_writer(&mut self.line, &value)?;
                self.line.push(b'\n');
            }
            let part = (buffer.len() - filled).min(self.line.len() - self.read);
            buffer[filled..filled + part].copy_from_slice(&self.line[self.read..self.read + part]);
            self.read += part;
            filled += part;
        }
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_whatever_is_read_at_once() {
        let expected = "1\n22\n333\n";
        for size in 1..12 {
            let mut reader = ndjson([1, 22, 333]);
            let mut text = Vec::new();
            let mut buffer = vec![0; size];
            loop {
                let n = reader.read(&mut buffer).unwrap();
                if n == 0 {
                    break;
                }
                text.extend_from_slice(&buffer[..n]);
            }
            assert_eq!(text, expected.as_bytes(), "{size} at once");
        }
    }
}
