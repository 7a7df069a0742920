//! A message watched: its state and its numbers as they change, from server-sent events.
//!
//! Every event tells all there is to tell, so a connection that breaks is made again and nothing is
//! missed but what was overtaken.

use std::io::{self, BufRead, BufReader, Read};
use std::time::Duration;

use ureq::BodyReader;
use ureq::http::Method;
use uuid::Uuid;

use super::{Error, Sender, accept};
use crate::backoff::Backoff;
use crate::types::Live;

/// The longest line of an event, bytes.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// How long nothing may change before the connection is made again: it may be gone unnoticed.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// What [`Sender::live`] gives: a message's state and numbers as they change. It ends when the
/// message has finished, and after an error.
pub struct LiveMessage<'s> {
    sender: &'s Sender,
    path: String,
    events: Option<BufReader<BodyReader<'static>>>,
    last: Option<Live>,
    backoff: Backoff,
    attempt: u32,
    over: bool,
}

impl std::fmt::Debug for LiveMessage<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveMessage").field("path", &self.path).finish_non_exhaustive()
    }
}

impl<'s> LiveMessage<'s> {
    pub(super) fn new(sender: &'s Sender, id: Uuid) -> LiveMessage<'s> {
        LiveMessage {
            sender,
            path: sender.path(&["messages", &id.to_string(), "live"]),
            events: None,
            last: None,
            backoff: sender.backoff(),
            attempt: 1,
            over: false,
        }
    }

    fn connect(&self) -> Result<BufReader<BodyReader<'static>>, Error> {
        let request = self.sender.request(Method::GET, &self.path);
        let request = request.header("accept", "text/event-stream");
        let request = request.body(()).map_err(|error| Error::request(&error))?;
        let request = self.sender.agent.configure_request(request);
        let request = request
            .timeout_recv_response(Some(self.sender.patience.attempt_time_max))
            .timeout_per_read(Some(SILENCE_MAX))
            .build();
        let answer = accept(self.sender.agent.run(request)?)?;
        Ok(BufReader::new(answer.into_body().into_reader()))
    }

    /// The data of the next event of the right kind; `None` at the end of the connection.
    fn event(&mut self) -> Result<Option<Live>, Error> {
        if self.events.is_none() {
            self.events = Some(self.connect()?);
        }
        let Some(events) = &mut self.events else { return Ok(None) };
        let (mut kind, mut data) = (String::new(), String::new());
        loop {
            let mut line = String::new();
            let limited = events.take(LINE_BYTES_MAX).read_line(&mut line);
            match limited.map_err(Error::Transport)? {
                0 => return Ok(None),
                _ if !line.ends_with('\n') && line.len() as u64 == LINE_BYTES_MAX => {
                    return Err(Error::Answer("an event is too long".into()));
                }
                _ => {}
            }
            let line = line.trim_end_matches(['\r', '\n']);
            if line.is_empty() {
                if kind == "funnel" {
                    return match serde_json::from_str(&data) {
                        Ok(live) => Ok(Some(live)),
                        Err(error) => Err(Error::Answer(error.to_string())),
                    };
                }
                (kind, data) = (String::new(), String::new());
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut kind),
                "data" if (data.len() + value.len()) as u64 > LINE_BYTES_MAX => {
                    return Err(Error::Answer("an event is too long".into()));
                }
                "data" => data.push_str(value),
                _ => {}
            }
        }
    }
}

/// Whether a connection that was silent for long was given up.
fn is_silence(error: &Error) -> bool {
    matches!(error, Error::Transport(error) if error.kind() == io::ErrorKind::TimedOut)
}

impl Iterator for LiveMessage<'_> {
    type Item = Result<Live, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.over {
            let was_open = self.events.is_some();
            let error = match self.event() {
                Ok(Some(live)) => {
                    self.attempt = 1;
                    self.backoff.reset();
                    self.over = live.state.is_final();
                    if self.last.as_ref() == Some(&live) {
                        continue;
                    }
                    self.last = Some(live.clone());
                    return Some(Ok(live));
                }
                Ok(None) => Error::Transport(io::ErrorKind::UnexpectedEof.into()),
                Err(error) => error,
            };
            self.events = None;
            if was_open && is_silence(&error) {
                continue;
            }
            let worth = error.worth_repeating_after();
            let Some(at_least) = worth.filter(|_| self.attempt < self.sender.patience.attempts_max)
            else {
                self.over = true;
                return Some(Err(error));
            };
            self.attempt += 1;
            std::thread::sleep(at_least + self.backoff.wait());
        }
        None
    }
}
