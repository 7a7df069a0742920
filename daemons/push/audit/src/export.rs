//! The audit as lines of JSON, one an entry.
//!
//! ```text
//!   {"seq":7,"index":0,"at":1700000000000,"message":"42","device":9,"app":1,"stage":"dropped","reason":3}
//!   {"seq":8,"index":0,"at":1700000000000,"message":"42","app":1,"event":2,"actor":"ann","detail":{…}}
//! ```
//!
//! A message's number is a string, since readers of JSON may know no number of 64 bits. A reason or
//! message of zero is left out.

use std::io::{self, Write};
use std::ops::ControlFlow;

use sextant_segment::ReadError;

use crate::fact::{Event, Fact, is_json_object};
use crate::query::{Content, Entry, Query};
use crate::reader::Reader;

/// What an export has come to.
#[derive(Clone, Debug, Default)]
pub struct Exported {
    /// Lines that were written.
    pub entries: u64,
    /// What could not be read, and is missing.
    pub unreadable: Vec<ReadError>,
}

/// How much of what could not be read is listed.
const UNREADABLE_MAX: usize = 1000;

impl Reader {
    /// Gives every entry that a question asks for, page by page, whatever its limit, until `each`
    /// breaks.
    pub fn each(&self, query: &Query, mut each: impl FnMut(&Entry) -> ControlFlow<()>) -> Exported {
        let mut query = Query { limit: Query::LIMIT_MAX, ..query.clone() };
        let mut exported = Exported::default();
        loop {
            let page = self.query(&query);
            let room = UNREADABLE_MAX.saturating_sub(exported.unreadable.len());
            let new = page.unreadable.iter().filter(|error| !exported.unreadable.contains(error));
            let new: Vec<ReadError> = new.take(room).copied().collect();
            exported.unreadable.extend(new);
            for entry in &page.entries {
                exported.entries += 1;
                if each(entry).is_break() {
                    return exported;
                }
            }
            query.after = page.after;
            if query.after.is_none() {
                return exported;
            }
        }
    }

    /// Writes every entry that a question asks for as a line of JSON, whatever its limit.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn export(&self, query: &Query, out: &mut dyn Write) -> io::Result<Exported> {
        let mut outcome = Ok(());
        let mut line = Vec::new();
        let exported = self.each(query, |entry| {
            line.clear();
            outcome = entry.put_json(&mut line).and_then(|()| {
                line.push(b'\n');
                out.write_all(&line)
            });
            if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        outcome.and_then(|()| out.flush())?;
        Ok(exported)
    }
}

impl Entry {
    /// Appends the entry as an object of JSON, in one line without its end.
    ///
    /// # Errors
    /// None that is known: those of the encoder.
    pub fn put_json(&self, out: &mut Vec<u8>) -> io::Result<()> {
        let Entry { seq, index, content } = self;
        write!(out, "{{\"seq\":{seq},\"index\":{index},\"at\":{}", self.at())?;
        match content {
            Content::Fact(fact) => put_fact(fact, out),
            Content::Event(event) => put_event(event, out),
        }
    }
}

fn put_fact(fact: &Fact, out: &mut Vec<u8>) -> io::Result<()> {
    let Fact { message, device, app, stage, reason, .. } = fact;
    write!(out, ",\"message\":\"{message}\",\"device\":{device},\"app\":{app}")?;
    write!(out, ",\"stage\":\"{stage}\"")?;
    if *reason != 0 {
        write!(out, ",\"reason\":{reason}")?;
    }
    out.push(b'}');
    Ok(())
}

fn put_event(event: &Event, out: &mut Vec<u8>) -> io::Result<()> {
    let Event { message, app, kind, actor, detail, .. } = event;
    if *message != 0 {
        write!(out, ",\"message\":\"{message}\"")?;
    }
    write!(out, ",\"app\":{app},\"event\":{},\"actor\":", kind.0)?;
    serde_json::to_writer(&mut *out, actor)?;
    out.extend_from_slice(b",\"detail\":");
    if is_json_object(detail) {
        // Of an object only white space has ends of lines.
        let one_line = |byte: &u8| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte };
        out.extend(detail.iter().map(one_line));
    } else {
        // Not written by the audit: told as it is, as far as it is text.
        serde_json::to_writer(&mut *out, &String::from_utf8_lossy(detail))?;
    }
    out.push(b'}');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::{EventKind, Stage};

    fn line(content: Content) -> String {
        let mut out = Vec::new();
        Entry { seq: 7, index: 2, content }.put_json(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
        text
    }

    #[test]
    fn an_entry_is_one_line_of_json() {
        let fact =
            Fact { message: u64::MAX, at: 5, device: 9, app: 1, stage: Stage::Dropped, reason: 3 };
        assert_eq!(
            line(Content::Fact(fact)),
            "{\"seq\":7,\"index\":2,\"at\":5,\"message\":\"18446744073709551615\",\"device\":9,\
             \"app\":1,\"stage\":\"dropped\",\"reason\":3}"
        );
        let event = |message, actor: &str, detail: &[u8]| {
            let (actor, detail) = (actor.into(), detail.into());
            line(Content::Event(Event {
                message,
                at: 5,
                app: 1,
                kind: EventKind(4),
                actor,
                detail,
            }))
        };
        assert_eq!(
            event(42, "a\"\n", b"{\"b\":\r\n[1]}"),
            "{\"seq\":7,\"index\":2,\"at\":5,\"message\":\"42\",\"app\":1,\"event\":4,\
             \"actor\":\"a\\\"\\n\",\"detail\":{\"b\":  [1]}}"
        );
        let odd = event(0, "", b"no \xFF object\n");
        assert!(odd.ends_with("\"actor\":\"\",\"detail\":\"no \u{FFFD} object\\n\"}"), "{odd}");
        assert!(!odd.contains("message"));
    }
}
