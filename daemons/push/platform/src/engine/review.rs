//! Messages that people look at first.

use serde_json::json;

use super::{Engine, Happened, Timer};
use crate::model::{State, Stored};
use crate::refusal::Refusal;

impl Engine {
    /// Messages of an app that wait for a reviewer, the oldest first.
    pub fn held(&self, app: u16) -> impl Iterator<Item = u64> + '_ {
        let is_of = move |number: &&u64| {
            self.messages.get(number).is_some_and(|message| message.app == app)
        };
        self.held.iter().filter(is_of).copied()
    }

    /// Lets a message pass, or not.
    ///
    /// # Errors
    /// There is none that is held, or `by` may not.
    pub fn review(
        &mut self,
        number: u64,
        passes: bool,
        by: &str,
        note: &str,
        now: u64,
    ) -> Result<(), Refusal> {
        let own_messages = self.rules.policy().review.own_messages;
        let mut stored = self.held_message(number)?;
        let review = stored.review.as_mut().ok_or(Refusal::Unknown("such review"))?;
        match passes {
            true => review.approve(by, note, own_messages, now)?,
            false => review.reject(by, note, now)?,
        }
        let (happened, state) = match passes {
            true => (Happened::Approved, State::Scheduled),
            false => (Happened::Rejected, State::Rejected),
        };
        self.end_review(number, &stored, happened, state, by, now);
        Ok(())
    }

    /// Its sender takes back a message that is held.
    pub(super) fn withdraw(&mut self, number: u64, by: &str, now: u64) -> Result<(), Refusal> {
        let mut stored = self.held_message(number)?;
        let review = stored.review.as_mut().ok_or(Refusal::Unknown("such review"))?;
        review.withdraw(by, now)?;
        self.end_review(number, &stored, Happened::Withdrawn, State::Withdrawn, by, now);
        Ok(())
    }

    /// Nobody looked at a message in time.
    pub(super) fn review_expires(&mut self, number: u64, now: u64) {
        let Ok(mut stored) = self.held_message(number) else { return };
        if stored.review.as_mut().is_some_and(|review| review.expire(now)) {
            self.end_review(number, &stored, Happened::Rejected, State::Rejected, "", now);
        }
    }

    fn held_message(&self, number: u64) -> Result<Stored, Refusal> {
        let message = self.messages.get(&number).ok_or(Refusal::Unknown("such message"))?;
        if message.state != State::Held {
            let name = message.state.name();
            return Err(Refusal::Conflict(format!("the message is {name}, and not held")));
        }
        self.stored(message).map_err(Refusal::Unavailable)
    }

    fn end_review(
        &mut self,
        number: u64,
        stored: &Stored,
        happened: Happened,
        state: State,
        by: &str,
        now: u64,
    ) {
        let Some(message) = self.messages.get(&number) else { return };
        let (app, expires_ms) = (message.app, message.expires_ms);
        self.held.remove(&number);
        if let Some(review) = &stored.review {
            self.timers.remove(&(review.expires_ms, Timer::Review(number)));
        }
        let verdict = stored.review.as_ref().and_then(|review| review.verdict.as_ref());
        let note = verdict.map_or("nobody came in time", |verdict| &*verdict.note);
        self.event((number, app), happened, by, &json!({"note": note}), now);
        if let Some(review) = &stored.review {
            self.reviews.insert(number, review.clone());
        }
        self.set_state(number, state, Some(stored), now);
        if state == State::Scheduled {
            self.timers.insert((expires_ms, Timer::Expire(number)));
            self.fresh.push(number);
        }
    }
}
