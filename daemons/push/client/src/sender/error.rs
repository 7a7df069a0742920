//! What can go wrong: the daemon refuses, the network fails, or one side says what the other does
//! not understand.

use std::io;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::RETRY_AFTER_MAX;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The daemon, or a proxy before it, answered with an error.
    #[error(transparent)]
    Problem(Box<Problem>),
    /// No connection, no answer in time, or an answer that was cut off. What was asked may have
    /// been done.
    #[error("the daemon gave no answer: {0}")]
    Transport(#[source] io::Error),
    /// The answer has a form that this version does not know. What was asked was done.
    #[error("the daemon's answer is not understood: {0}")]
    Answer(String),
    /// The request was not made, since it cannot be: an address or a key is not of the form.
    #[error("the request cannot be made: {0}")]
    Request(String),
}

/// An error of the daemon, as RFC 9457 has it.
#[derive(Clone, Debug, PartialEq, Deserialize, thiserror::Error)]
#[error("{status} {title}{}{}", if detail.is_empty() { "" } else { ": " }, detail)]
#[non_exhaustive]
pub struct Problem {
    /// What kind of problem it is, as an address.
    #[serde(default = "about_blank", rename = "type")]
    pub kind: String,
    /// The kind, in words.
    #[serde(default)]
    pub title: String,
    /// The HTTP status.
    #[serde(default)]
    pub status: u16,
    /// What is wrong this time.
    #[serde(default)]
    pub detail: String,
    /// What else the daemon says of it, such as `rule`.
    #[serde(flatten)]
    pub more: Map<String, Value>,
    /// When the daemon asks to be asked again.
    #[serde(skip)]
    pub retry_after: Option<Duration>,
}

fn about_blank() -> String {
    "about:blank".to_owned()
}

impl Problem {
    /// The problem of an answer; one without a title or details if its body is none.
    pub(super) fn parse(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Problem {
        let told = serde_json::from_slice::<Problem>(body).ok();
        let mut problem = told.unwrap_or_else(|| Problem {
            kind: about_blank(),
            title: String::new(),
            status,
            detail: String::new(),
            more: Map::new(),
            retry_after,
        });
        if problem.title.is_empty() {
            let known = ureq::http::StatusCode::from_u16(status).ok();
            let reason = known.and_then(|status| status.canonical_reason());
            problem.title = reason.unwrap_or("an answer without a reason").to_owned();
        }
        // The status that counts is that of the answer: a proxy may have changed it.
        problem.status = status;
        problem.retry_after = retry_after;
        problem
    }

    /// The last word of its kind, such as `content-rejected`.
    pub fn name(&self) -> &str {
        self.kind.rsplit('/').next().unwrap_or(&self.kind)
    }
}

impl Error {
    /// The daemon's error, if it is one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Error::Problem(problem) => Some(problem),
            _ => None,
        }
    }

    /// How long to wait at least before the same request may have an answer; `None` if that will
    /// not help, or not soon.
    pub(super) fn worth_repeating_after(&self) -> Option<Duration> {
        match self {
            Error::Transport(_) => Some(Duration::ZERO),
            Error::Problem(problem) if matches!(problem.status, 429 | 503) => {
                let at_least = problem.retry_after.unwrap_or_default();
                (at_least <= RETRY_AFTER_MAX).then_some(at_least)
            }
            _ => None,
        }
    }

    pub(super) fn request(error: &ureq::http::Error) -> Error {
        Error::Request(error.to_string())
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Error {
        Error::Problem(Box::new(problem))
    }
}

impl From<ureq::Error> for Error {
    fn from(error: ureq::Error) -> Error {
        match error {
            ureq::Error::Http(error) => Error::request(&error),
            ureq::Error::BadUri(uri) => Error::Request(format!("{uri} is no address")),
            ureq::Error::BodyExceedsLimit(limit) => {
                Error::Answer(format!("it is longer than {limit} bytes"))
            }
            other => Error::Transport(other.into_io()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_keeps_what_it_does_not_know() {
        let body = br#"{"type":"https://x/problems/content-rejected","title":"Rejected",
            "status":422,"detail":"a word","rule":"words"}"#;
        let problem = Problem::parse(422, None, body);
        assert_eq!(problem.name(), "content-rejected");
        assert_eq!(problem.more["rule"], "words");
        assert_eq!(problem.to_string(), "422 Rejected: a word");
    }

    #[test]
    fn an_error_that_is_no_problem_has_its_status() {
        let problem = Problem::parse(502, None, b"<html>");
        assert_eq!((problem.status, problem.kind.as_str()), (502, "about:blank"));
        assert_eq!(problem.to_string(), "502 Bad Gateway");
    }
}
