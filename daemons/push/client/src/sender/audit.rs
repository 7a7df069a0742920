//! What was written down: of a message, of a device, of all of the app.

use serde::Deserialize;

use super::{Error, Pages, Query, Sender};
use crate::types::{AuditQuery, Entry, Page};

#[derive(Deserialize)]
struct Entries {
    entries: Vec<Entry>,
    #[serde(default)]
    next: Option<String>,
    #[serde(default)]
    incomplete: bool,
}

impl Sender {
    /// A page of what was written down, after the cursor of the page before.
    ///
    /// # Errors
    ///
    /// Those of every request: see [`Error`].
    pub fn audit_page(&self, what: &AuditQuery, after: Option<&str>) -> Result<Page<Entry>, Error> {
        let mut query = Query::default();
        query.add_some("message", what.message);
        query.add_some("device", what.device.as_ref());
        query.add_some("from", what.from);
        query.add_some("to", what.to);
        if !what.stages.is_empty() {
            query.add("stages", &what.stages.join(","));
        }
        query.add_some("events", what.events);
        query.add_some("newest", what.newest.then_some(true));
        query.add_some("limit", what.limit);
        query.add_some("after", after);
        let Entries { entries, next, incomplete } = self.get(self.path(&["audit"]) + &query.0)?;
        Ok(Page { items: entries, next, incomplete })
    }

    /// All that was written down, page after page.
    pub fn audit(&self, what: AuditQuery) -> Pages<'_, Entry> {
        Pages::new(self, Box::new(move |sender, after| sender.audit_page(&what, after)))
    }
}
