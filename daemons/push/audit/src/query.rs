//! What can be asked of the audit, and how answers come: in pages, each bounded in length and in
//! work.

use std::fmt;
use std::str::FromStr;

use sextant_segment::ReadError;

use crate::fact::{Event, Fact, Stages};

/// A question. What is `None` is not asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// What was said of this message.
    pub message: Option<u64>,
    /// What was said of this device: no event then.
    pub device: Option<u32>,
    /// What was said of this app.
    pub app: Option<u16>,
    /// From this time on, in milliseconds since 1970.
    pub from: u64,
    /// Up to this time, and not of it.
    pub to: u64,
    /// Facts of these stages.
    pub stages: Stages,
    /// Events too.
    pub events: bool,
    /// The latest in the log first.
    pub newest_first: bool,
    /// As many at most; [`Query::LIMIT_MAX`] if that is less.
    pub limit: usize,
    /// Where an earlier [page](Page::after) has ended. The rest of the question has to be the same.
    pub after: Option<Cursor>,
}

impl Default for Query {
    /// All of everything, the first hundred.
    fn default() -> Query {
        Query {
            message: None,
            device: None,
            app: None,
            from: 0,
            to: u64::MAX,
            stages: Stages::ALL,
            events: true,
            newest_first: false,
            limit: 100,
            after: None,
        }
    }
}

impl Query {
    /// The longest page.
    pub const LIMIT_MAX: usize = 10_000;

    pub(crate) fn takes_events(&self) -> bool {
        self.events && self.device.is_none()
    }

    pub(crate) fn takes(&self, fact: &Fact) -> bool {
        self.message.is_none_or(|message| message == fact.message)
            && self.device.is_none_or(|device| device == fact.device)
            && self.app.is_none_or(|app| app == fact.app)
            && (self.from..self.to).contains(&fact.at)
            && self.stages.has(fact.stage)
    }

    pub(crate) fn takes_event(&self, event: &Event) -> bool {
        self.takes_events()
            && self.message.is_none_or(|message| message == event.message)
            && self.app.is_none_or(|app| app == event.app)
            && (self.from..self.to).contains(&event.at)
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit.clamp(1, Query::LIMIT_MAX)
    }
}

/// Where a page has ended. As text `seq-index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor {
    /// The record to go on with.
    pub(crate) seq: u64,
    /// In it the first entry that was not looked at yet; with the newest first, the one behind it.
    pub(crate) index: u32,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.seq, self.index)
    }
}

/// A text that is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a place where a page has ended")]
pub struct CursorError;

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Cursor, CursorError> {
        let (seq, index) = text.split_once('-').ok_or(CursorError)?;
        let seq = seq.parse().map_err(|_| CursorError)?;
        let index = index.parse().map_err(|_| CursorError)?;
        Ok(Cursor { seq, index })
    }
}

/// A part of an answer.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// What was found, in the order of the log; its blocks are sorted by message, device and time,
    /// so this is not the order of time. Where the question names a message and the page is the
    /// whole answer, they are in the order of time.
    pub entries: Vec<Entry>,
    /// Where to go on; `None` if that was all. A page may have ended for the work that it was, with
    /// few entries or none; and there may be nothing more all the same.
    pub after: Option<Cursor>,
    /// Blocks and events that were read for it: at most [`Page::RECORDS_MAX`].
    pub records_read: u32,
    /// Records of which the index was asked: at most [`Page::SUMMARIES_MAX`].
    pub summaries_seen: u32,
    /// Indexes of sealed segments that were not in memory: at most [`Page::INDEXES_MAX`].
    pub indexes_read: u32,
    /// What could not be read and may have held something: the page lacks it. A segment whose
    /// index could not be made whole is told of by its start.
    pub unreadable: Vec<ReadError>,
}

impl Page {
    /// Records that are read for one page.
    pub const RECORDS_MAX: u32 = 1024;
    /// Records of which the index is asked for one page.
    pub const SUMMARIES_MAX: u32 = 1 << 20;
    /// Indexes that are read from files for one page.
    pub const INDEXES_MAX: u32 = 32;
}

/// One thing that the audit says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The number of the record that says it.
    pub seq: u64,
    /// Which of the record's facts it is, counted from zero.
    pub index: u32,
    /// What it says.
    pub content: Content,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Of one message on one device.
    Fact(Fact),
    /// Of a message as a whole, or of the platform.
    Event(Event),
}

impl Entry {
    /// When that was, in milliseconds since 1970.
    pub fn at(&self) -> u64 {
        match &self.content {
            Content::Fact(fact) => fact.at,
            Content::Event(event) => event.at,
        }
    }

    /// The fact, if it is one.
    pub fn fact(&self) -> Option<&Fact> {
        match &self.content {
            Content::Fact(fact) => Some(fact),
            Content::Event(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_as_text() {
        let cursor = Cursor { seq: u64::MAX, index: 7 };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for wrong in ["", "1", "-", "1-", "-1", "1--1", "1-x", "1-4294967296"] {
            assert_eq!(wrong.parse::<Cursor>(), Err(CursorError), "{wrong}");
        }
    }

    #[test]
    fn a_limit_is_at_least_one_and_at_most_ten_thousand() {
        let limit = |limit| Query { limit, ..Query::default() }.limit();
        assert_eq!((limit(0), limit(5), limit(usize::MAX)), (1, 5, 10_000));
    }
}
