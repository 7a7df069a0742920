//! Webhooks: who is told of an app's messages over HTTP, how far they have been told, and what could
//! not be told.
//!
//! What there is to tell is in the audit, and a webhook is a place in it: whoever tells asks the
//! audit from there on, and says here how far that went. So a crash loses nothing that is to be
//! told, and what waits takes no memory.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Engine, Happened};
use crate::records;
use crate::refusal::Refusal;

/// Dead letters of an app; beyond, the oldest is forgotten.
const DEAD_LETTERS_MAX: usize = 1000;
/// The longest URL, in bytes.
const URL_BYTES_MAX: usize = 2048;
/// The shortest secret, and the longest, in bytes.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 16..=256;
/// What is kept of why a letter is dead, in characters.
const ERROR_CHARS_MAX: usize = 300;

/// What a webhook is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum HookEvent {
    /// A message has come to its end on all of its devices.
    #[serde(rename = "message.finished")]
    Finished,
    /// A message waits for a reviewer.
    #[serde(rename = "message.held")]
    Held,
    /// A device has a message.
    #[serde(rename = "receipt.delivered")]
    Delivered,
    /// A device has shown it.
    #[serde(rename = "receipt.shown")]
    Shown,
    /// It was opened.
    #[serde(rename = "receipt.clicked")]
    Clicked,
    /// A device does not get it: dropped, expired or recalled.
    #[serde(rename = "receipt.dropped")]
    Dropped,
}

/// Who is told.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// The app's number.
    pub app: u16,
    /// Where it is posted to.
    pub url: String,
    /// Of what.
    pub events: Vec<HookEvent>,
    /// What posts are signed with.
    pub secret: String,
    /// The place in the audit up to which it was told.
    pub told: String,
}

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hook")
            .field("app", &self.app)
            .field("told", &self.told)
            .finish_non_exhaustive()
    }
}

/// Something that could not be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Its number.
    pub id: u64,
    /// The app's number.
    pub app: u16,
    /// When it was given up, in milliseconds since 1970.
    pub at_ms: u64,
    /// How often it was tried.
    pub attempts: u32,
    /// Why the last attempt failed.
    pub error: String,
    /// The places in the audit between which it is.
    pub from: String,
    /// Where it ends.
    pub to: String,
}

#[derive(Serialize, Deserialize)]
struct Gone {
    app: u16,
    #[serde(default)]
    id: Option<u64>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    hooks: BTreeMap<u16, Hook>,
    dead: BTreeMap<(u16, u64), DeadLetter>,
    last: u64,
}

impl Hooks {
    pub(super) fn replay(&mut self, kind: u8, json: &[u8]) -> Result<(), serde_json::Error> {
        match kind {
            records::HOOK => {
                let hook: Hook = serde_json::from_slice(json)?;
                self.hooks.insert(hook.app, hook);
            }
            records::DEAD_LETTER => {
                let letter: DeadLetter = serde_json::from_slice(json)?;
                self.last = self.last.max(letter.id);
                self.dead.insert((letter.app, letter.id), letter);
            }
            _ => {
                let Gone { app, id } = serde_json::from_slice(json)?;
                match id {
                    Some(id) => drop(self.dead.remove(&(app, id))),
                    None => drop(self.hooks.remove(&app)),
                }
            }
        }
        Ok(())
    }

    /// All of them as records.
    pub(super) fn records(&self) -> Vec<(u8, Vec<u8>)> {
        let hooks = self.hooks.values().map(|hook| (records::HOOK, bytes(hook)));
        let dead = self.dead.values().map(|letter| (records::DEAD_LETTER, bytes(letter)));
        hooks.chain(dead).collect()
    }

    fn of(&self, app: u16) -> impl DoubleEndedIterator<Item = &DeadLetter> {
        self.dead.range((app, 0)..=(app, u64::MAX)).map(|(_, letter)| letter)
    }
}

fn bytes(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain data is JSON")
}

impl Engine {
    /// Has an app's webhook told from now on. Without a secret one is made.
    ///
    /// # Errors
    /// The URL or the secret will not do, or nothing is to be told.
    pub fn set_hook(
        &mut self,
        app: u16,
        url: &str,
        events: &[HookEvent],
        secret: Option<&str>,
        by: &str,
        now: u64,
    ) -> Result<Hook, Refusal> {
        if url.len() > URL_BYTES_MAX {
            return Err(Refusal::invalid("url", format!("has at most {URL_BYTES_MAX} bytes")));
        }
        if events.is_empty() {
            return Err(Refusal::invalid("events", "name at least one"));
        }
        let secret = match secret {
            Some(secret) if SECRET_BYTES.contains(&secret.len()) => secret.to_owned(),
            Some(_) => return Err(Refusal::invalid("secret", "has 16 to 256 bytes")),
            None => {
                let mut secret = [0; 32];
                getrandom::fill(&mut secret)
                    .map_err(|error| Refusal::Unavailable(error.to_string()))?;
                URL_SAFE_NO_PAD.encode(secret)
            }
        };
        let mut events = events.to_vec();
        events.sort_unstable();
        events.dedup();
        let told = match self.hooks.hooks.get(&app) {
            Some(known) => known.told.clone(),
            None => format!("{}-0", self.audit.head().seq + 1),
        };
        let hook = Hook { app, url: url.to_owned(), events, secret, told };
        self.append(records::HOOK, &[&bytes(&hook)], now)?;
        self.event((0, app), Happened::HookSet, by, &json!({"events": hook.events}), now);
        self.hooks.hooks.insert(app, hook.clone());
        Ok(hook)
    }

    /// An app's webhook.
    ///
    /// # Errors
    /// It has none.
    pub fn hook(&self, app: u16) -> Result<&Hook, Refusal> {
        self.hooks.hooks.get(&app).ok_or(Refusal::Unknown("webhook"))
    }

    /// All webhooks, and the number of the audit's last record.
    pub fn hooks(&self) -> (Vec<Hook>, u64) {
        (self.hooks.hooks.values().cloned().collect(), self.audit.head().seq)
    }

    /// Nobody is told of an app's messages any more.
    ///
    /// # Errors
    /// It has no webhook.
    pub fn remove_hook(&mut self, app: u16, by: &str, now: u64) -> Result<(), Refusal> {
        self.hook(app)?;
        self.append(records::GONE_HOOK, &[&bytes(&Gone { app, id: None })], now)?;
        self.event((0, app), Happened::HookRemoved, by, &json!({}), now);
        self.hooks.hooks.remove(&app);
        Ok(())
    }

    /// A webhook was told up to a place in the audit.
    ///
    /// # Errors
    /// It is gone, or the log takes nothing.
    pub fn hook_told(&mut self, app: u16, told: &str, now: u64) -> Result<(), Refusal> {
        let mut hook = self.hook(app)?.clone();
        told.clone_into(&mut hook.told);
        self.append(records::HOOK, &[&bytes(&hook)], now)?;
        self.hooks.hooks.insert(app, hook);
        Ok(())
    }

    /// A webhook could not be told what is up to a place in the audit, and is told what follows.
    ///
    /// # Errors
    /// It is gone, or the log takes nothing.
    pub fn hook_failed(
        &mut self,
        app: u16,
        to: &str,
        attempts: u32,
        error: &str,
        now: u64,
    ) -> Result<(), Refusal> {
        let from = self.hook(app)?.told.clone();
        self.hooks.last += 1;
        let letter = DeadLetter {
            id: self.hooks.last,
            app,
            at_ms: now,
            attempts,
            error: error.chars().take(ERROR_CHARS_MAX).collect(),
            from,
            to: to.to_owned(),
        };
        self.append(records::DEAD_LETTER, &[&bytes(&letter)], now)?;
        self.hooks.dead.insert((app, letter.id), letter);
        let is_over = self.hooks.of(app).count() > DEAD_LETTERS_MAX;
        let oldest = self.hooks.of(app).next().map(|letter| letter.id);
        if let Some(oldest) = oldest.filter(|_| is_over) {
            tracing::warn!(app, letter = oldest, "the oldest dead letter is forgotten");
            self.drop_dead_letter(app, oldest, now)?;
        }
        self.hook_told(app, to, now)
    }

    /// What an app's webhook could not be told: those behind a number, oldest first.
    pub fn dead_letters(&self, app: u16, after: Option<u64>, limit: usize) -> Vec<DeadLetter> {
        let from = after.map_or(0, |after| after.saturating_add(1));
        self.hooks.of(app).filter(|letter| letter.id >= from).take(limit).cloned().collect()
    }

    /// One of them.
    ///
    /// # Errors
    /// There is none.
    pub fn dead_letter(&self, app: u16, id: u64) -> Result<DeadLetter, Refusal> {
        self.hooks.dead.get(&(app, id)).cloned().ok_or(Refusal::Unknown("such dead letter"))
    }

    /// Forgets one of them: it was told after all, or need not be.
    ///
    /// # Errors
    /// There is none.
    pub fn drop_dead_letter(&mut self, app: u16, id: u64, now: u64) -> Result<(), Refusal> {
        self.dead_letter(app, id)?;
        self.append(records::GONE_HOOK, &[&bytes(&Gone { app, id: Some(id) })], now)?;
        self.hooks.dead.remove(&(app, id));
        Ok(())
    }
}
