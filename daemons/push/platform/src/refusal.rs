//! Why the platform does not do what it was asked: what an API tells whoever asked.

use sextant_devices::{EvaluateError, ListError, ParseError, Refused};
use sextant_policy::{QuotaExceeded, Reason, ReviewError};

/// Why something was not done. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// There is no such thing: an app, a device, a message, a list, a key.
    #[error("there is no {0}")]
    Unknown(&'static str),
    /// The request says what cannot be; which part, and why.
    #[error("`{part}`: {why}")]
    Invalid {
        /// The key of the request.
        part: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// Something else stands in the way: the name is taken, the message is over.
    #[error("{0}")]
    Conflict(String),
    /// Whoever asked may not.
    #[error("{0}")]
    Forbidden(String),
    /// The registry's.
    #[error(transparent)]
    Device(#[from] Refused),
    /// A content rule.
    #[error("{}", if text.is_empty() { Reason::ContentRejected.text() } else { text })]
    Content {
        /// Which one; none if the content is too long to be looked at.
        rule: Option<String>,
        /// What it says to senders.
        text: String,
    },
    /// The sender has sent as many as a day allows.
    #[error(transparent)]
    Quota(#[from] QuotaExceeded),
    /// There is no room for more; which limit.
    #[error("{0}")]
    Full(String),
    /// What keeps the platform's records takes nothing now.
    #[error("the platform takes nothing now: {0}")]
    Unavailable(String),
}

impl Refusal {
    /// A part of a request that cannot be.
    pub fn invalid(part: &'static str, why: impl std::fmt::Display) -> Refusal {
        Refusal::Invalid { part, why: why.to_string() }
    }
}

impl From<ParseError> for Refusal {
    fn from(error: ParseError) -> Refusal {
        Refusal::invalid("expression", error)
    }
}

impl From<EvaluateError> for Refusal {
    fn from(error: EvaluateError) -> Refusal {
        Refusal::invalid("expression", error)
    }
}

impl From<ListError> for Refusal {
    fn from(error: ListError) -> Refusal {
        Refusal::invalid("list", error)
    }
}

impl From<ReviewError> for Refusal {
    fn from(error: ReviewError) -> Refusal {
        match error {
            ReviewError::Ended(_) => Refusal::Conflict(error.to_string()),
            ReviewError::Own { .. } | ReviewError::NotOwn { .. } => {
                Refusal::Forbidden(error.to_string())
            }
            _ => Refusal::invalid("note", error),
        }
    }
}
