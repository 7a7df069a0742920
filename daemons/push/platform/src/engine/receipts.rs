//! What devices say themselves: that a message was shown, or clicked, and which topics they want.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sextant_audit::{Query, Stage, Stages};
use uuid::Uuid;

use super::Engine;
use crate::refusal::Refusal;
use crate::strict::Object;
use crate::told::Topic;

/// Receipts at once.
const RECEIPTS_MAX: usize = 1000;
/// How far ahead of the platform's clock a device's may be, in milliseconds: what is later happened
/// now.
const AHEAD_MS_MAX: u64 = 60_000;

/// What a device says of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReceiptEvent {
    /// It was shown.
    Shown,
    /// Somebody has opened it.
    Clicked,
}

/// One receipt.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Receipt {
    id: Uuid,
    event: ReceiptEvent,
    #[serde(default)]
    at: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Receipts {
    receipts: Vec<Object<Receipt>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Topics {
    #[serde(default)]
    subscribe: Vec<String>,
    #[serde(default)]
    unsubscribe: Vec<String>,
}

/// What became of receipts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReceiptsTaken {
    /// They say something new.
    pub accepted: u64,
    /// It was known.
    pub repeated: u64,
    /// Of messages that there are not, or that are not the device's.
    pub unknown: u64,
}

impl Engine {
    /// Takes in what a device published; the core that asks is answered with the next commit.
    pub(super) fn published(
        &mut self,
        core: u16,
        client_id: &str,
        topic: Topic,
        payload: &[u8],
        ticket: u64,
        now: u64,
    ) {
        let outcome = match topic {
            Topic::Receipts => self.take_receipts(client_id, payload, now).map(drop),
            Topic::Topics => self.take_topics(client_id, payload, now).map(drop),
        };
        if let Err(refusal) = &outcome {
            tracing::debug!(client_id, %refusal, "what a device says is refused");
        }
        if ticket != 0 {
            self.settled.push((core, ticket, outcome.is_err()));
        }
    }

    /// Takes in receipts of a device, as JSON; durable with the next commit.
    ///
    /// # Errors
    /// It is no device, or these are no receipts.
    pub fn take_receipts(
        &mut self,
        device: &str,
        json: &[u8],
        now: u64,
    ) -> Result<ReceiptsTaken, Refusal> {
        let Object(Receipts { receipts }) =
            serde_json::from_slice(json).map_err(|why| Refusal::invalid("receipts", why))?;
        if receipts.len() > RECEIPTS_MAX {
            return Err(Refusal::invalid("receipts", format!("at most {RECEIPTS_MAX} at once")));
        }
        let number = self.registry.number(device).ok_or(Refusal::Unknown("such device"))?;
        let mut taken = ReceiptsTaken::default();
        for Object(receipt) in receipts {
            let at = receipt.at.as_deref().map(str::parse::<Timestamp>).transpose();
            let at = at.map_err(|why| Refusal::invalid("at", why))?;
            let at = at.and_then(|at| u64::try_from(at.as_millisecond()).ok());
            let at = at.filter(|at| *at <= now + AHEAD_MS_MAX).unwrap_or(now);
            match self.take_receipt(number, receipt.id, receipt.event, at) {
                Some(true) => taken.accepted += 1,
                Some(false) => taken.repeated += 1,
                None => taken.unknown += 1,
            }
        }
        self.audit_dirty |= taken.accepted > 0;
        Ok(taken)
    }

    /// Whether a receipt says something new; `None` if it is of nothing that the device was sent.
    fn take_receipt(
        &mut self,
        device: u32,
        id: Uuid,
        event: ReceiptEvent,
        at: u64,
    ) -> Option<bool> {
        let number = self.ids.number(id)?;
        let stage = match event {
            ReceiptEvent::Shown => Stage::Shown,
            ReceiptEvent::Clicked => Stage::Clicked,
        };
        let (app, is_new) = match self.messages.get_mut(&number) {
            Some(message) if message.copies.has(device) => {
                (message.app, message.reach(stage, 0, &[device], at, |_| {}) > 0)
            }
            Some(_) => return None,
            None => self.look_up(number, device, stage)?,
        };
        if is_new {
            self.fact(number, app, device, stage, 0, at);
        }
        Some(is_new)
    }

    /// What the audit knows of a message that is held in memory no more: its app, and whether the
    /// device has not reached a stage.
    fn look_up(&mut self, number: u64, device: u32, stage: Stage) -> Option<(u16, bool)> {
        self.tell_audit();
        let query = Query {
            message: Some(number),
            device: Some(device),
            stages: Stages::NONE.with(Stage::Sent).with(Stage::Acknowledged).with(stage),
            ..Query::default()
        };
        let page = self.reader.query(&query);
        let mut facts = page.entries.iter().filter_map(|entry| entry.fact());
        let app = facts.clone().next()?.app;
        let waits = self.recent.contains(&(number, device, stage.code()));
        let is_new = !waits && !facts.any(|fact| fact.stage == stage);
        if is_new {
            self.recent.insert((number, device, stage.code()));
        }
        Some((app, is_new))
    }

    /// Takes in which topics a device wants, as JSON.
    ///
    /// # Errors
    /// It is no device, or this is no such thing.
    pub fn take_topics(
        &mut self,
        device: &str,
        json: &[u8],
        now: u64,
    ) -> Result<Vec<String>, Refusal> {
        let Object(Topics { subscribe, unsubscribe }) =
            serde_json::from_slice(json).map_err(|why| Refusal::invalid("topics", why))?;
        self.set_topics(device, &subscribe, &unsubscribe, now)
    }
}
