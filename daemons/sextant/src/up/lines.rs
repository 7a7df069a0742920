//! A daemon's output, line by line, each with the daemon's name before it.

use std::fmt::Display;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::terminal::say;

/// A longer line is printed in pieces.
const LINE_BYTES_MAX: usize = 16 << 10;
const READ_BYTES: usize = 8 << 10;

/// Cuts bytes into lines.
#[derive(Debug, Default)]
struct Lines {
    /// The beginning of a line whose end has not come yet.
    partial: Vec<u8>,
}

impl Lines {
    /// Takes bytes, and gives `line` each line that they complete.
    fn take(&mut self, bytes: &[u8], mut line: impl FnMut(&[u8])) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            let is_whole = piece.ends_with(b"\n");
            if is_whole || self.partial.len() >= LINE_BYTES_MAX {
                line(self.partial.trim_ascii_end());
                self.partial.clear();
            }
        }
    }

    fn end(&mut self, mut line: impl FnMut(&[u8])) {
        if !self.partial.is_empty() {
            line(self.partial.trim_ascii_end());
            self.partial.clear();
        }
    }
}

/// Prints what `output` gives, until its end.
pub(super) async fn prefix(mut output: impl AsyncRead + Unpin, prefix: impl Display) {
    let print = |line: &[u8]| say(format_args!("{prefix} {}", String::from_utf8_lossy(line)));
    let mut lines = Lines::default();
    let mut buffer = [0; READ_BYTES];
    while let Ok(len @ 1..) = output.read(&mut buffer).await {
        lines.take(&buffer[..len], print);
    }
    lines.end(print);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(pieces: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        let mut keep = |line: &[u8]| found.push(String::from_utf8_lossy(line).into_owned());
        for piece in pieces {
            lines.take(piece, &mut keep);
        }
        lines.end(&mut keep);
        found
    }

    #[test]
    fn lines_are_whole_however_they_come() {
        assert_eq!(lines_of(&[b"a", b"b\nc", b"\r\n\nd"]), ["ab", "c", "", "d"]);
    }

    #[test]
    fn a_line_without_an_end_does_not_grow_for_ever() {
        let found = lines_of(&[&[b'x'; LINE_BYTES_MAX], b"yz\n"]);
        assert_eq!(found[0].len(), LINE_BYTES_MAX);
        assert_eq!(found[1], "yz");
    }
}
