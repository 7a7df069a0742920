//! Bodies of any length, read line by line as they come.

use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use sextant_service::admin::Problem;
use tokio::time::timeout;

/// The longest line, in bytes.
const LINE_BYTES_MAX: usize = 64 << 10;
/// How long a body may say nothing.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A line that is not empty.
pub(super) struct Line {
    /// Counted from one, empty ones too.
    pub(super) number: u64,
    pub(super) text: Bytes,
}

/// The lines of a body.
pub(super) struct Lines {
    body: Body,
    held: BytesMut,
    /// Up to here no end of a line was found.
    seen: usize,
    number: u64,
    ended: bool,
}

/// The next piece of a body.
pub(super) async fn piece(body: &mut Body) -> Result<Option<Bytes>, Problem> {
    loop {
        let frame = timeout(SILENCE_MAX, body.frame()).await.map_err(|_| {
            let seconds = SILENCE_MAX.as_secs();
            Problem::new(StatusCode::REQUEST_TIMEOUT, format!("nothing came for {seconds} s"))
        })?;
        match frame {
            None => return Ok(None),
            Some(Err(error)) => return Err(Problem::bad_request(format!("the body: {error}"))),
            // Trailers say nothing here.
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if !data.is_empty() => return Ok(Some(data)),
                _ => {}
            },
        }
    }
}

impl Lines {
    pub(super) fn new(body: Body) -> Lines {
        Lines { body, held: BytesMut::new(), seen: 0, number: 0, ended: false }
    }

    /// At least one line, at most `max`, as many as have come; none at the end.
    ///
    /// # Errors
    /// The body ends in the middle, is silent for too long, or has a line that is too long.
    pub(super) async fn next(&mut self, max: usize) -> Result<Vec<Line>, Problem> {
        let mut lines = Vec::new();
        loop {
            while lines.len() < max
                && let Some(line) = self.take()?
            {
                lines.extend(line);
            }
            if !lines.is_empty() || (self.ended && self.held.is_empty()) {
                return Ok(lines);
            }
            match piece(&mut self.body).await? {
                Some(piece) => self.held.extend_from_slice(&piece),
                None => self.ended = true,
            }
        }
    }

    /// A whole line that is held; within it `None` if the line is empty.
    fn take(&mut self) -> Result<Option<Option<Line>>, Problem> {
        let end = self.held[self.seen..].iter().position(|byte| *byte == b'\n');
        let text = match end {
            Some(at) => {
                let text = self.held.split_to(self.seen + at + 1);
                self.seen = 0;
                text
            }
            None if self.ended && !self.held.is_empty() => {
                self.seen = 0;
                self.held.split()
            }
            None => {
                self.seen = self.held.len();
                if self.seen > LINE_BYTES_MAX {
                    let line = self.number + 1;
                    let detail = format!("line {line}: it has more than {LINE_BYTES_MAX} bytes");
                    return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
                }
                return Ok(None);
            }
        };
        self.number += 1;
        let text = text.freeze();
        let trimmed = text.trim_ascii();
        if trimmed.is_empty() {
            return Ok(Some(None));
        }
        let text = text.slice_ref(trimmed);
        Ok(Some(Some(Line { number: self.number, text })))
    }
}
