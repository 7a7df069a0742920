//! Listings as iterators that ask for the next page when the last one is used up.

use std::collections::VecDeque;

use super::{Error, Sender};
use crate::types::Page;

/// How a page after a cursor is asked for.
pub(super) type Fetch<'s, T> =
    Box<dyn FnMut(&Sender, Option<&str>) -> Result<Page<T>, Error> + Send + 's>;

/// All of a listing, page after page. It ends after an error.
pub struct Pages<'s, T> {
    sender: &'s Sender,
    fetch: Fetch<'s, T>,
    items: VecDeque<T>,
    /// What to ask for next; `None` when there is no more.
    next: Option<Cursor>,
}

enum Cursor {
    First,
    After(String),
}

impl<'s, T> Pages<'s, T> {
    pub(super) fn new(sender: &'s Sender, fetch: Fetch<'s, T>) -> Pages<'s, T> {
        Pages { sender, fetch, items: VecDeque::new(), next: Some(Cursor::First) }
    }
}

impl<T> std::fmt::Debug for Pages<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pages").field("read", &self.items.len()).finish_non_exhaustive()
    }
}

impl<T> Iterator for Pages<'_, T> {
    type Item = Result<T, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.items.is_empty() {
            let page = match self.next.take()? {
                Cursor::First => (self.fetch)(self.sender, None),
                Cursor::After(cursor) => (self.fetch)(self.sender, Some(&cursor)),
            };
            match page {
                Ok(page) => {
                    self.items = page.items.into();
                    self.next = page.next.map(Cursor::After);
                }
                Err(error) => return Some(Err(error)),
            }
        }
        self.items.pop_front().map(Ok)
    }
}
