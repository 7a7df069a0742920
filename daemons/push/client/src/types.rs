//! What the daemon is asked and what it answers, as values.
//!
//! Requests have public fields and a `Default`, so that a literal names what it needs and no more.
//! Answers may grow: fields that this version does not know are passed over, and words that it does
//! not know become `Unknown`.

mod audit;
mod device;
mod message;

pub use audit::{AuditQuery, Entry, Event, Fact};
pub use device::{
    Device, DeviceEntry, DeviceUpdate, Import, LineError, ListFormat, ListProblem, ListUpload,
    Token,
};
pub(crate) use message::span;
pub use message::{
    By, DryRun, Funnel, FunnelPart, FunnelPoint, Judgement, Latency, Live, Message, MessageQuery,
    MessageRequest, Notification, Outcome, Recalled, Schedule, Sent, State, Target,
};

/// A part of a listing.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Page<T> {
    /// At most as many as were asked for.
    pub items: Vec<T>,
    /// What to ask for the next part with; `None` at the end.
    pub next: Option<String>,
    /// Entries of the audit alone: some were not to be had.
    pub incomplete: bool,
}
