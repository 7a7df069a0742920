//! The sender: requests to the daemon's API, one after the other, in the caller's thread.
//!
//! ```text
//!   call ─► HTTP ─► 2xx ───────────────────────────────► answer
//!    ▲               ├─ 429, 503, no answer, and the
//!    │               │  request may be said twice ──► wait ─┐
//!    │               └─ anything else ─────────────────────┼─► Error
//!    └──────────────────── at most `attempts_max` ──────────┘
//! ```
//!
//! A request may be said twice where twice does the same as once: reading, putting, changing, and
//! sending a message, since every message has an idempotency key. Removing, recalling, tokens and
//! uploads are said once; whoever repeats them knows what a second time means.

mod audit;
mod devices;
mod error;
mod http1;
mod live;
mod messages;
mod ndjson;
mod pages;
mod stream;

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::request::Builder;
use ureq::http::{Method, Request, Response, Uri};
use ureq::{Agent, AsSendBody, Body};

pub use error::{Error, Problem};
pub use live::LiveMessage;
pub use ndjson::{Ndjson, ndjson};
pub use pages::Pages;
pub use stream::MessageStream;

use crate::backoff::Backoff;

/// How long connecting may take.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// The longest answer that is read whole, bytes: a thousand messages with long texts.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// The longest error that is read, bytes.
const PROBLEM_BYTES_MAX: u64 = 64 << 10;
/// The longest `Retry-After` that is waited for; after a longer one the error is the caller's.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// How patient a sender is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// How often a request is said that may be said twice, at least once.
    pub attempts_max: u32,
    /// The longest wait after the first attempt; it doubles with each.
    pub first_wait_max: Duration,
    /// The longest wait after any attempt.
    pub wait_max: Duration,
    /// How long one attempt may take, save uploads, which may take long. A stream of messages gives
    /// up on a connection that brings nothing for so long.
    pub attempt_time_max: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            attempts_max: 5,
            first_wait_max: Duration::from_millis(200),
            wait_max: Duration::from_secs(10),
            attempt_time_max: Duration::from_secs(30),
        }
    }
}

/// Speaks to the daemon for one app.
///
/// It keeps connections open between requests, may be shared by threads, and is cheap to clone.
#[derive(Clone)]
pub struct Sender {
    agent: Agent,
    /// Scheme, host and port, and no slash at the end.
    base: String,
    app: String,
    key: String,
    patience: Patience,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Sender { base, app, patience, .. } = self;
        f.debug_struct("Sender")
            .field("base", base)
            .field("app", app)
            .field("patience", patience)
            .finish_non_exhaustive()
    }
}

/// A request whose body is in memory.
struct Call<'a> {
    method: Method,
    /// What follows the version, encoded, with its query.
    path: String,
    body: Option<(&'static str, &'a [u8])>,
    idempotency_key: Option<&'a str>,
    may_repeat: bool,
}

impl Call<'_> {
    fn get(path: String) -> Call<'static> {
        let method = Method::GET;
        Call { method, path, body: None, idempotency_key: None, may_repeat: true }
    }

    fn once(method: Method, path: String) -> Call<'static> {
        Call { method, path, body: None, idempotency_key: None, may_repeat: false }
    }
}

const JSON: &str = "application/json";

/// The body of a request. Nothing of it can fail to be JSON.
fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("requests have names for keys, and no value that is not JSON")
}

impl Sender {
    /// A sender for `app` with one of its keys, `spk_…`, or the admin token.
    ///
    /// `base` is where the daemon's API is, without the version: `http://127.0.0.1:7701`. There is
    /// no TLS in here: a daemon elsewhere is reached through a proxy or a tunnel that has it.
    ///
    /// # Errors
    ///
    /// [`Error::Request`]: `base` is not of this form.
    pub fn new(base: &str, app: &str, key: &str) -> Result<Sender, Error> {
        let base = base.trim_end_matches('/');
        let uri: Uri = base.parse().map_err(|_| Error::Request(format!("{base} is no address")))?;
        if uri.scheme_str() != Some("http") || uri.host().is_none_or(str::is_empty) {
            return Err(Error::Request(format!("{base} does not begin with http:// and a host")));
        }
        if uri.query().is_some() {
            return Err(Error::Request(format!("{base} has a query")));
        }
        let is_header = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        if !is_header(key) {
            return Err(Error::Request("the key is empty or has characters no key has".into()));
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT_TIME_MAX))
            .user_agent(concat!("sextant-push-client/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Sender {
            agent: config.into(),
            base: base.to_owned(),
            app: app.to_owned(),
            key: key.to_owned(),
            patience: Patience::default(),
        })
    }

    /// The same sender, more patient or less.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Sender {
        self.patience = patience;
        self
    }

    /// `/apps/{app}` and what follows, each segment encoded.
    fn path(&self, segments: &[&str]) -> String {
        let mut path = "/apps/".to_owned();
        encode(&self.app, &mut path);
        for segment in segments {
            path.push('/');
            encode(segment, &mut path);
        }
        path
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(self.patience.first_wait_max, self.patience.wait_max)
    }

    /// Reads something.
    fn get<T: DeserializeOwned>(&self, path: String) -> Result<T, Error> {
        self.exchange(&Call::get(path)).and_then(read)
    }

    /// Says something that may be said twice.
    fn say<T: DeserializeOwned>(
        &self,
        method: Method,
        path: String,
        value: &impl Serialize,
    ) -> Result<T, Error> {
        let body = json(value);
        let body = Some((JSON, body.as_slice()));
        self.exchange(&Call { method, path, body, idempotency_key: None, may_repeat: true })
            .and_then(read)
    }

    /// Makes a call, again and again where that is safe and may help.
    fn exchange(&self, call: &Call<'_>) -> Result<Response<Body>, Error> {
        let mut backoff = self.backoff();
        let mut attempt = 1;
        loop {
            let error = match self.attempt(call) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if !call.may_repeat || attempt >= self.patience.attempts_max {
                return Err(error);
            }
            let Some(at_least) = error.worth_repeating_after() else { return Err(error) };
            std::thread::sleep(at_least + backoff.wait());
            attempt += 1;
        }
    }

    fn attempt(&self, call: &Call<'_>) -> Result<Response<Body>, Error> {
        let mut request = self.request(call.method.clone(), &call.path);
        if let Some(key) = call.idempotency_key {
            request = request.header("idempotency-key", key);
        }
        let answer = match call.body {
            Some((content_type, body)) => {
                self.run(request.header("content-type", content_type), body)
            }
            None if call.method == Method::POST => self.run(request, &[][..]),
            None => self.run(request, ()),
        }?;
        accept(answer)
    }

    fn run(&self, request: Builder, body: impl AsSendBody) -> Result<Response<Body>, Error> {
        let request = request.body(body).map_err(|error| Error::request(&error))?;
        let request = self.agent.configure_request(request);
        let request = request.timeout_global(Some(self.patience.attempt_time_max)).build();
        Ok(self.agent.run(request)?)
    }

    fn request(&self, method: Method, path: &str) -> Builder {
        Request::builder()
            .method(method)
            .uri(format!("{}/v1{path}", self.base))
            .header("authorization", format!("Bearer {}", self.key))
    }

    /// Uploads what is read, once.
    fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        content_type: &'static str,
        mut body: impl std::io::Read,
    ) -> Result<T, Error> {
        let request = self
            .request(Method::POST, path)
            .header("content-type", content_type)
            .body(ureq::SendBody::from_reader(&mut body))
            .map_err(|error| Error::request(&error))?;
        let configured = self.agent.configure_request(request);
        let time_max = Some(self.patience.attempt_time_max);
        let answer = self.agent.run(configured.timeout_recv_response(time_max).build())?;
        accept(answer).and_then(read)
    }
}

/// Tells answers from errors.
fn accept(mut answer: Response<Body>) -> Result<Response<Body>, Error> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let retry_after = answer.headers().get("retry-after").and_then(|value| value.to_str().ok());
    let retry_after = retry_after.and_then(|text| text.trim().parse().ok());
    let body = answer.body_mut().with_config().limit(PROBLEM_BYTES_MAX).read_to_vec();
    let body = body.unwrap_or_default();
    Err(Problem::parse(status.as_u16(), retry_after.map(Duration::from_secs), &body).into())
}

/// Reads an answer whole.
fn read<T: DeserializeOwned>(mut answer: Response<Body>) -> Result<T, Error> {
    let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec()?;
    serde_json::from_slice(&body).map_err(|error| Error::Answer(error.to_string()))
}

/// Encodes a segment of a path, or a value of a query.
fn encode(segment: &str, out: &mut String) {
    use std::fmt::Write as _;
    for byte in segment.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(byte as char);
            }
            _ => write!(out, "%{byte:02X}").expect("a string takes what is written"),
        }
    }
}

/// A query, built value by value.
#[derive(Default)]
struct Query(String);

impl Query {
    fn add(&mut self, name: &str, value: &str) {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(name);
        self.0.push('=');
        encode(value, &mut self.0);
    }

    fn add_some(&mut self, name: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.add(name, &value.to_string());
        }
    }
}

#[cfg(test)]
pub(crate) mod server;
#[cfg(test)]
mod tests;
