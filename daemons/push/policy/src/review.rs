//! A message that people look at before it is sent.
//!
//! ```text
//!             approve (not its sender) ──► Approved ──► it is sent
//!   Held ─────reject ───────────────────► Rejected
//!             withdraw (its sender) ────► Withdrawn
//!             nobody until `expires_ms` ► Expired
//! ```
//!
//! Four eyes: whoever sent a message does not approve it, unless the policy says so. A verdict
//! stands; who comes later is told what it was. Instants are milliseconds since 1970.

use serde::{Deserialize, Serialize};

use crate::reason::Reason;

/// The longest name of a sender or a reviewer, in bytes.
pub const WHO_BYTES_MAX: usize = 128;
/// The longest note, in bytes.
pub const NOTE_BYTES_MAX: usize = 1_024;

/// Where a review is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum State {
    /// It waits for somebody.
    Held,
    /// It may be sent.
    Approved,
    /// It is not sent.
    Rejected,
    /// Its sender took it back.
    Withdrawn,
    /// Nobody came.
    Expired,
}

impl State {
    /// What the API calls it.
    pub const fn name(self) -> &'static str {
        match self {
            State::Held => "held",
            State::Approved => "approved",
            State::Rejected => "rejected",
            State::Withdrawn => "withdrawn",
            State::Expired => "expired",
        }
    }

    /// Why a message is not sent whose review ended so.
    pub const fn reason(self) -> Option<Reason> {
        match self {
            State::Held | State::Approved => None,
            State::Rejected => Some(Reason::ReviewRejected),
            State::Withdrawn => Some(Reason::Recalled),
            State::Expired => Some(Reason::ReviewExpired),
        }
    }
}

/// Who ended a review.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// Who.
    pub by: Box<str>,
    /// When.
    pub at_ms: u64,
    /// For people.
    #[serde(default)]
    pub note: Box<str>,
}

/// Why a review does not go where somebody wanted it to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReviewError {
    /// It has ended.
    #[error("the message is {} already", .0.name())]
    Ended(State),
    /// Its sender would approve it.
    #[error("\"{who}\" sent the message: somebody else has to approve it")]
    Own {
        /// Who.
        who: Box<str>,
    },
    /// Somebody else would withdraw it.
    #[error("\"{who}\" did not send the message: reject it instead")]
    NotOwn {
        /// Who.
        who: Box<str>,
    },
    /// A name or a note is too long, or a name empty.
    #[error("{what} must have {min} to {max} bytes")]
    Length {
        /// Which of them.
        what: &'static str,
        /// At least.
        min: usize,
        /// At most.
        max: usize,
    },
}

/// The review of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Review {
    /// Who sent the message.
    pub sender: Box<str>,
    /// Since when it is held.
    pub since_ms: u64,
    /// When it is no longer.
    pub expires_ms: u64,
    /// Where it is.
    pub state: State,
    /// Who ended it; none while it is held, and if nobody came.
    pub verdict: Option<Verdict>,
}

impl Review {
    /// Holds a message for `hold_ms`.
    ///
    /// # Errors
    /// The sender's name is empty or too long.
    pub fn hold(sender: &str, now_ms: u64, hold_ms: u64) -> Result<Review, ReviewError> {
        who(sender)?;
        Ok(Review {
            sender: sender.into(),
            since_ms: now_ms,
            expires_ms: now_ms.saturating_add(hold_ms),
            state: State::Held,
            verdict: None,
        })
    }

    /// Lets the message be sent. `own_messages` is whether its sender may.
    ///
    /// # Errors
    /// The review has ended, its sender would approve it, or a text is too long.
    pub fn approve(
        &mut self,
        by: &str,
        note: &str,
        own_messages: bool,
        now_ms: u64,
    ) -> Result<(), ReviewError> {
        if !own_messages && *self.sender == *by {
            return Err(ReviewError::Own { who: by.into() });
        }
        self.end(State::Approved, by, note, now_ms)
    }

    /// Keeps the message from being sent. Its sender may do that, too.
    ///
    /// # Errors
    /// The review has ended, or a text is too long.
    pub fn reject(&mut self, by: &str, note: &str, now_ms: u64) -> Result<(), ReviewError> {
        self.end(State::Rejected, by, note, now_ms)
    }

    /// Its sender takes the message back.
    ///
    /// # Errors
    /// The review has ended, or it is somebody else's message.
    pub fn withdraw(&mut self, by: &str, now_ms: u64) -> Result<(), ReviewError> {
        if *self.sender != *by {
            return Err(ReviewError::NotOwn { who: by.into() });
        }
        self.end(State::Withdrawn, by, "", now_ms)
    }

    /// Ends the review if its time is over; tells whether it ended now.
    pub fn expire(&mut self, now_ms: u64) -> bool {
        let ends = self.state == State::Held && now_ms >= self.expires_ms;
        if ends {
            self.state = State::Expired;
        }
        ends
    }

    fn end(&mut self, state: State, by: &str, note: &str, now_ms: u64) -> Result<(), ReviewError> {
        who(by)?;
        if note.len() > NOTE_BYTES_MAX {
            return Err(ReviewError::Length { what: "a note", min: 0, max: NOTE_BYTES_MAX });
        }
        self.expire(now_ms);
        if self.state != State::Held {
            return Err(ReviewError::Ended(self.state));
        }
        self.state = state;
        self.verdict = Some(Verdict { by: by.into(), at_ms: now_ms, note: note.into() });
        Ok(())
    }
}

fn who(name: &str) -> Result<(), ReviewError> {
    match (1..=WHO_BYTES_MAX).contains(&name.len()) {
        true => Ok(()),
        false => Err(ReviewError::Length { what: "a name", min: 1, max: WHO_BYTES_MAX }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held() -> Review {
        Review::hold("ada", 1_000, 60_000).expect("a name")
    }

    #[test]
    fn nobody_approves_a_message_of_their_own() {
        let mut review = held();
        let own = ReviewError::Own { who: "ada".into() };
        assert_eq!(review.approve("ada", "", false, 2_000), Err(own));
        assert_eq!(review.state, State::Held);
        review.approve("bob", "fine", false, 3_000).expect("another's");
        let verdict = Verdict { by: "bob".into(), at_ms: 3_000, note: "fine".into() };
        assert_eq!((review.state, review.verdict), (State::Approved, Some(verdict)));
    }

    #[test]
    fn a_policy_may_let_senders_approve() {
        let mut review = held();
        assert_eq!(review.approve("ada", "", true, 2_000), Ok(()));
        assert_eq!(review.state.reason(), None);
    }

    #[test]
    fn a_sender_may_reject_or_withdraw_and_others_may_only_reject() {
        assert_eq!(held().reject("ada", "a typo", 2_000), Ok(()));
        assert_eq!(held().withdraw("ada", 2_000), Ok(()));
        let not_own = ReviewError::NotOwn { who: "bob".into() };
        assert_eq!(held().withdraw("bob", 2_000), Err(not_own));
    }

    #[test]
    fn the_first_verdict_stands() {
        let mut review = held();
        review.reject("bob", "", 2_000).expect("held");
        let before = review.clone();
        let ended = ReviewError::Ended(State::Rejected);
        assert_eq!(review.approve("eve", "", false, 2_001), Err(ended));
        assert!(!review.expire(u64::MAX));
        assert_eq!(review, before);
    }

    #[test]
    fn a_hold_ends_at_its_instant_whether_or_not_somebody_looked() {
        let mut review = held();
        assert!(!review.expire(60_999));
        let mut looked = review.clone();
        assert!(looked.expire(61_000) && !looked.expire(61_000));
        let ended = ReviewError::Ended(State::Expired);
        assert_eq!(review.approve("bob", "", false, 61_000), Err(ended));
        assert_eq!(review, looked);
    }

    #[test]
    fn a_review_comes_back_from_its_json() {
        let mut review = held();
        review.reject("bob", "no \"offers\"", 2_000).expect("held");
        let json = serde_json::to_string(&review).expect("plain data");
        assert_eq!(serde_json::from_str::<Review>(&json).expect("as written"), review);
        assert!(json.contains("\"state\":\"rejected\""), "{json}");
    }

    #[test]
    fn names_and_notes_have_a_length() {
        assert!(Review::hold("", 0, 1).is_err());
        assert!(Review::hold(&"a".repeat(WHO_BYTES_MAX + 1), 0, 1).is_err());
        assert!(held().reject("bob", &"n".repeat(NOTE_BYTES_MAX + 1), 0).is_err());
        assert!(held().reject("bob", &"n".repeat(NOTE_BYTES_MAX), 2_000).is_ok());
    }
}
