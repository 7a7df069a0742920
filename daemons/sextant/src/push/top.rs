//! `sextant push top`: who and what there is most of, again and again.

use std::io::IsTerminal;

use serde::Deserialize;
use serde_json::Value;

use crate::cli::{TopArgs, TopBy};
use crate::error::Error;
use crate::place::Place;
use crate::terminal::{Table, printable, say, size};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Top {
    window_ms: u64,
    clients_by_messages: Vec<Heavy>,
    clients_by_bytes: Vec<Heavy>,
    topics: Vec<Heavy>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Heavy {
    client: String,
    topic: String,
    per_second: f64,
    error: f64,
    r#in: f64,
    out: f64,
}

pub(super) fn run(place: &Place, args: &TopArgs) -> Result<(), Error> {
    let push = place.push()?;
    let path = format!("/v1/top?for=2s&limit={}", args.limit);
    loop {
        let answer: Value = push.client.get(&path).map_err(|source| push.failed(source))?;
        if args.json {
            say(answer);
        } else {
            let top: Top = serde_json::from_value(answer).map_err(|error| {
                Error::Outcome(format!("what {} says cannot be read: {error}", push.url))
            })?;
            if !args.once && std::io::stdout().is_terminal() {
                // To the beginning of an empty screen.
                say("\x1b[2J\x1b[H");
            }
            top.print(args.by);
        }
        if args.once {
            return Ok(());
        }
    }
}

impl Top {
    fn print(&self, by: TopBy) {
        match by {
            TopBy::Topics => {
                let mut table = Table::new(["TOPIC", "MESSAGES/S"]);
                for heavy in &self.topics {
                    table.row([printable(&heavy.topic), heavy.rate(number)]);
                }
                say(table);
            }
            TopBy::Messages => clients(&self.clients_by_messages, "MESSAGES/S", number),
            TopBy::Bytes => clients(&self.clients_by_bytes, "BYTES/S", bytes),
        }
        if self.is_empty() {
            say(format_args!("nothing was published for {} ms", self.window_ms));
        }
    }

    fn is_empty(&self) -> bool {
        self.clients_by_messages.is_empty() && self.topics.is_empty()
    }
}

fn clients(all: &[Heavy], what: &str, shown: fn(f64) -> String) {
    let mut table = Table::new(["CLIENT", what, "FROM IT", "TO IT"]);
    for heavy in all {
        table.row([
            printable(&heavy.client),
            heavy.rate(shown),
            shown(heavy.r#in),
            shown(heavy.out),
        ]);
    }
    say(table);
}

impl Heavy {
    /// How much, and by how much that may be too high.
    fn rate(&self, shown: fn(f64) -> String) -> String {
        match self.error > 0.0 {
            true => format!("{}, or {} less", shown(self.per_second), shown(self.error)),
            false => shown(self.per_second),
        }
    }
}

fn number(rate: f64) -> String {
    if rate >= 100.0 { format!("{rate:.0}") } else { format!("{rate:.1}") }
}

fn bytes(rate: f64) -> String {
    size(rate as u64)
}
