//! What people see: colours where there is a terminal, text that cannot play tricks on it, and
//! output that survives the loss of its reader.

use std::fmt::{self, Display};
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

/// A colour of a terminal, as its SGR number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    Red = 31,
    Green = 32,
    Yellow = 33,
    Cyan = 36,
    Grey = 90,
}

/// Whether a stream gets colours: it is a terminal, and nobody set `NO_COLOR`.
fn has_colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// `text` in `colour` where `on`.
pub(crate) fn paint(colour: Colour, text: impl Display, on: bool) -> String {
    if on { format!("\x1b[{}m{text}\x1b[0m", colour as u8) } else { text.to_string() }
}

/// `text` in `colour` if standard output shows colours.
pub(crate) fn painted(colour: Colour, text: impl Display) -> String {
    paint(colour, text, has_colours(&io::stdout()))
}

/// Prints a line to standard output. Whether somebody still reads it does not matter here: a
/// supervisor goes on without its terminal.
pub(crate) fn say(line: impl Display) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// Prints a line of progress to standard error.
pub(crate) fn note(line: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Prints an error.
pub(crate) fn complain(error: &dyn Display) {
    let head = paint(Colour::Red, "error:", has_colours(&io::stderr()));
    note(format_args!("{head} {error}"));
}

/// `text` without anything that moves a cursor, changes colours or breaks the line.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_invisible(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Marks that change the direction of what follows, and line separators.
const fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// A time span for people: `340 ms`, `12 s`, `3 m 20 s`, `5 h 2 m`, `12 d 4 h`.
pub(crate) fn span(span: Duration) -> String {
    let s = span.as_secs();
    match s {
        0 => format!("{} ms", span.as_millis()),
        1..60 => format!("{s} s"),
        60..3600 => format!("{} m {} s", s / 60, s % 60),
        3600..86_400 => format!("{} h {} m", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

/// A size for people: `340 B`, `1.2 KiB`, `3.4 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes as f64, 0);
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// The time of day here, to the millisecond.
pub(crate) fn clock(at: jiff::Timestamp) -> impl Display {
    at.to_zoned(jiff::tz::TimeZone::system()).strftime("%H:%M:%S%.3f").to_string()
}

/// Rows under a heading, each column as wide as it needs to be.
#[derive(Debug)]
pub(crate) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub(crate) fn new(heading: [&str; N]) -> Self {
        Self { rows: vec![heading.map(str::to_owned)] }
    }

    pub(crate) fn row(&mut self, row: [String; N]) {
        self.rows.push(row);
    }
}

impl<const N: usize> Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)
        };
        let widths: [usize; N] = std::array::from_fn(width);
        for (number, row) in self.rows.iter().enumerate() {
            let line: Vec<String> =
                row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            let line = line.join("  ");
            let end = if number + 1 == self.rows.len() { "" } else { "\n" };
            write!(f, "{}{end}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_reach_the_terminal() {
        assert_eq!(printable("grüß\x1b[2J\n\u{202E}x"), "grüß\\u{1b}[2J\\n\\u{202e}x");
    }

    #[test]
    fn spans_and_sizes_have_two_digits_or_so() {
        assert_eq!(span(Duration::from_millis(340)), "340 ms");
        assert_eq!(span(Duration::from_secs(200)), "3 m 20 s");
        assert_eq!(span(Duration::from_secs(90_000)), "1 d 1 h");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(3_650_722_202), "3.4 GiB");
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(["A", "LONG"]);
        table.row(["xyz".to_owned(), "1".to_owned()]);
        assert_eq!(table.to_string(), "A    LONG\nxyz  1");
    }
}
