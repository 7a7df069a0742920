//! Messages as a stream: requests in, outcomes out, in their order, over one connection.
//!
//! ```text
//!   requests ─► unanswered ─────────────────────────► outcome
//!   (iterator)  │ written  │ not yet │                   ▲
//!               └─────── at most WINDOW ─┘               │
//!                     │                                  │
//!                     ▼ one line each                    │ one line each
//!                   socket ──────────► daemon ───────────┘
//! ```
//!
//! When the daemon cannot go on it says so in one more line, and ends: 503 stands for the message it
//! would have been about and for all behind it, and a line that is about no message, such as 408
//! after a minute without requests, for none.
//!
//! Every message has an idempotency key. When the connection breaks, those that have no outcome yet
//! are said again over a new one, with their keys, so that none is sent twice; the number of
//! attempts counts from the last outcome.

use std::collections::VecDeque;

use ureq::http::Uri;

use super::http1::Exchange;
use super::messages::{Keyed, Told, key_of};
use super::{Error, Problem, Sender, json};
use crate::backoff::Backoff;
use crate::types::{MessageRequest, Outcome};

/// How many messages may be without an outcome.
const WINDOW: usize = 1024;
/// How much may wait to be written before no more is taken from the requests, bytes.
const UNWRITTEN_BYTES_MAX: usize = 256 << 10;
/// The longest message, as JSON, bytes: the daemon takes no longer line.
const LINE_BYTES_MAX: usize = 64 << 10;
/// How many requests are taken before the connection is looked at.
const TAKEN_AT_ONCE: usize = 256;

/// Outcomes of messages that are sent as they are taken from an iterator.
///
/// Requests are taken while the outcomes are asked for, up to 1,024 ahead: an iterator that waits
/// holds back outcomes that are there. After an error nothing follows; [`Self::into_unanswered`]
/// then has what may be sent again.
pub struct MessageStream<'s, I> {
    sender: &'s Sender,
    requests: I,
    /// No more is taken from the requests.
    exhausted: bool,
    /// Why not, where that is not their end.
    failure: Option<Error>,
    unanswered: VecDeque<Unanswered>,
    exchange: Option<Exchange>,
    /// How many of the unanswered were written to this exchange.
    written: usize,
    finished: bool,
    backoff: Backoff,
    attempt: u32,
    over: bool,
}

impl<I> std::fmt::Debug for MessageStream<'_, I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MessageStream")
            .field("unanswered", &self.unanswered.len())
            .field("over", &self.over)
            .finish_non_exhaustive()
    }
}

impl<'s, I: Iterator<Item = MessageRequest>> MessageStream<'s, I> {
    pub(super) fn new(sender: &'s Sender, requests: I) -> MessageStream<'s, I> {
        MessageStream {
            sender,
            requests,
            exhausted: false,
            failure: None,
            unanswered: VecDeque::new(),
            exchange: None,
            written: 0,
            finished: false,
            backoff: sender.backoff(),
            attempt: 1,
            over: false,
        }
    }

    /// The messages that were taken and have no outcome, each with its key: sent again, none of
    /// them is sent twice.
    pub fn into_unanswered(self) -> Vec<MessageRequest> {
        self.unanswered.into_iter().map(|unanswered| unanswered.request).collect()
    }

    /// Takes requests while there is room.
    fn take(&mut self, unwritten: usize) {
        if self.exhausted || unwritten > UNWRITTEN_BYTES_MAX {
            return;
        }
        let room = WINDOW - self.unanswered.len();
        for _ in 0..room.min(TAKEN_AT_ONCE) {
            let Some(mut request) = self.requests.next() else {
                self.exhausted = true;
                return;
            };
            match encode(&mut request) {
                Ok(line) => self.unanswered.push_back(Unanswered { request, line }),
                Err(error) => {
                    self.exhausted = true;
                    self.failure = Some(error);
                    return;
                }
            }
        }
    }

    fn open(&self) -> Result<Exchange, Error> {
        let Sender { base, key, .. } = self.sender;
        let uri: Uri = base.parse().map_err(|_| Error::Request(format!("{base} is no address")))?;
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(80);
        let path = format!(
            "{}/v1{}",
            uri.path().trim_end_matches('/'),
            self.sender.path(&["messages", "stream"])
        );
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        // What stands before an `@` is for the connection, and not the host's name.
        let authority = authority.rsplit('@').next().unwrap_or(authority);
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {authority}\r\nauthorization: Bearer {key}\r\n\
             content-type: application/x-ndjson\r\naccept: application/x-ndjson\r\n\
             transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        );
        Exchange::open(&format!("{host}:{port}"), &head).map_err(Error::Transport)
    }

    /// Goes on by one step: an outcome, or the end, or neither yet.
    fn step(&mut self) -> Result<Step, Error> {
        let unwritten = self.exchange.as_ref().map_or(0, Exchange::unwritten);
        self.take(unwritten);
        if self.unanswered.is_empty() {
            return Ok(if self.exhausted { Step::End } else { Step::More });
        }
        if self.exchange.is_none() {
            self.exchange = Some(self.open()?);
            (self.written, self.finished) = (0, false);
        }
        let Some(exchange) = &mut self.exchange else { return Ok(Step::More) };
        // What is there goes as one part: the daemon makes durable together what comes together.
        let mut part = Vec::new();
        let room = UNWRITTEN_BYTES_MAX.saturating_sub(exchange.unwritten());
        while self.written < self.unanswered.len() && part.len() < room {
            part.extend_from_slice(&self.unanswered[self.written].line);
            self.written += 1;
        }
        if !part.is_empty() {
            exchange.push(&part);
        }
        let all_written = self.written == self.unanswered.len();
        if self.exhausted && all_written && !self.finished {
            exchange.finish();
            self.finished = true;
        }
        let may_take = !self.exhausted && self.unanswered.len() < WINDOW;
        let wait = match may_take && exchange.unwritten() <= UNWRITTEN_BYTES_MAX {
            true => std::time::Duration::ZERO,
            false => self.sender.patience.attempt_time_max,
        };
        exchange.turn(wait).map_err(Error::Transport)?;
        Ok(Step::More)
    }

    /// The next outcome that is there, if one is.
    fn outcome(&mut self) -> Result<Option<Outcome>, Error> {
        let Some(exchange) = &mut self.exchange else { return Ok(None) };
        let answer = exchange.answer();
        let Some(status) = answer.status() else { return Ok(None) };
        if status != 200 {
            if !answer.is_ended() && answer.body().len() < super::PROBLEM_BYTES_MAX as usize {
                return Ok(None);
            }
            return Err(Problem::parse(status, answer.retry_after(), answer.body()).into());
        }
        let Some(line) = answer.next_line().map_err(Error::Transport)? else {
            if !answer.is_ended() {
                return Ok(None);
            }
            // The daemon may end a stream between two messages; the next one has a new connection.
            self.exchange = None;
            return match self.unanswered.is_empty() {
                true => Ok(None),
                false => Err(Error::Transport(std::io::ErrorKind::UnexpectedEof.into())),
            };
        };
        let told: Told =
            serde_json::from_slice(&line).map_err(|error| Error::Answer(error.to_string()))?;
        if self.written == 0 {
            self.exchange = None;
            return match told.into_problem() {
                Some(_) => Ok(None),
                None => Err(Error::Answer("more results than messages".into())),
            };
        }
        if told.is_unavailable() {
            let problem = told.into_problem();
            return Err(
                problem.map_or_else(|| Error::Answer("503 and no problem".into()), Error::from)
            );
        }
        let answered = self.unanswered.pop_front().expect("what was written is unanswered");
        let key = answered.request.idempotency_key.expect("every request taken has a key");
        let outcome = told.outcome(key)?;
        self.written -= 1;
        self.attempt = 1;
        self.backoff.reset();
        Ok(Some(outcome))
    }

    /// Waits before the next attempt, if there is to be one.
    fn retry(&mut self, error: Error) -> Result<(), Error> {
        self.exchange = None;
        let Some(at_least) = error.worth_repeating_after() else { return Err(error) };
        if self.attempt >= self.sender.patience.attempts_max {
            return Err(error);
        }
        self.attempt += 1;
        std::thread::sleep(at_least + self.backoff.wait());
        Ok(())
    }
}

/// A request with its key, and the line that says it.
struct Unanswered {
    request: MessageRequest,
    line: Vec<u8>,
}

/// Gives a request its key, and makes its line.
fn encode(request: &mut MessageRequest) -> Result<Vec<u8>, Error> {
    let key = key_of(request)?.into_owned();
    let mut line = json(&Keyed::new(request, &key));
    if line.len() > LINE_BYTES_MAX {
        return Err(Error::Request(format!(
            "a message has at most {LINE_BYTES_MAX} bytes of JSON"
        )));
    }
    line.push(b'\n');
    request.idempotency_key = Some(key);
    Ok(line)
}

enum Step {
    More,
    End,
}

impl<I: Iterator<Item = MessageRequest>> Iterator for MessageStream<'_, I> {
    type Item = Result<Outcome, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.over {
            let error = match self.outcome() {
                Ok(Some(outcome)) => return Some(Ok(outcome)),
                Ok(None) => match self.step() {
                    Ok(Step::More) => continue,
                    Ok(Step::End) => {
                        self.over = true;
                        return self.failure.take().map(Err);
                    }
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if let Err(error) = self.retry(error) {
                self.over = true;
                return Some(Err(error));
            }
        }
        None
    }
}
