//! The other end of [`admin`](crate::admin): a small blocking HTTP client for the command line.
//!
//! JSON in and out, the token in its header, and every failure as a sentence that says what to do
//! next. No redirects, no proxies, no TLS: it speaks to a daemon of this machine or one reached
//! through a tunnel.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::{Method, Request, Response, StatusCode};
use ureq::{Agent, Body, Error};

use crate::admin::{AdminToken, Problem, TokenError};

/// The longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// The longest line of an answer in lines.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody answered. The daemon is not there, or the network is not.
    #[error("cannot reach {url}: {why}")]
    Unreachable {
        /// What was asked.
        url: String,
        /// Why, in words.
        why: String,
    },
    /// The daemon refused, and said why.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// The answer is not what it should be: is it another program's port?
    #[error("{url} gave an answer that makes no sense: {why}")]
    Answer {
        /// What was asked.
        url: String,
        /// What is wrong with the answer.
        why: String,
    },
    /// The request cannot be made. A bug, or a wrong base URL.
    #[error("cannot ask {url}: {why}")]
    Request {
        /// What was to be asked.
        url: String,
        /// Why it cannot be.
        why: String,
    },
    /// There is no usable token.
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// Talks to one daemon.
#[derive(Debug)]
pub struct Client {
    agent: Agent,
    base: String,
    token: Option<AdminToken>,
}

impl Client {
    /// For the daemon at `base`, such as `http://127.0.0.1:7701`, with its token. Each call may
    /// take `timeout`.
    pub fn new(base: &str, token: Option<AdminToken>, timeout: Duration) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_global(Some(timeout))
            .user_agent(concat!("sextant/", env!("CARGO_PKG_VERSION")))
            .build();
        let base = base.trim_end_matches('/');
        let base = if base.contains("://") { base.to_owned() } else { format!("http://{base}") };
        Self { agent: config.new_agent(), base, token }
    }

    /// The token for the daemon whose data is in `data`: `SEXTANT_TOKEN` if set, else the file
    /// there.
    ///
    /// # Errors
    ///
    /// Neither is usable.
    pub fn find_token(data: &Path) -> Result<AdminToken, TokenError> {
        match std::env::var("SEXTANT_TOKEN") {
            Ok(text) => AdminToken::parse(&text),
            Err(_) => AdminToken::load(data),
        }
    }

    /// `GET path`.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]; so for the others.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.json(Method::GET, path, None)
    }

    /// `POST path` with a JSON body.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.json(Method::POST, path, Some(self.encode(path, body)?))
    }

    /// `PUT path` with a JSON body.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.json(Method::PUT, path, Some(self.encode(path, body)?))
    }

    /// `DELETE path`; an answer without a body reads as JSON's `null`.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.json(Method::DELETE, path, None)
    }

    /// `GET path` as text, for `/metrics`.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn text(&self, path: &str) -> Result<String, ClientError> {
        let body = self.call(Method::GET, path, None)?;
        String::from_utf8(body)
            .map_err(|_| ClientError::Answer { url: self.url(path), why: "not text".to_owned() })
    }

    /// `GET path`, whose answer is lines that come while they happen, for as long as `longest`;
    /// empty ones are left out.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]; also where the connection breaks in between.
    pub fn lines(
        &self,
        path: &str,
        longest: Duration,
        each: &mut dyn FnMut(&str),
    ) -> Result<(), ClientError> {
        let (url, response) = self.ask(Method::GET, path, None, Some(longest))?;
        let broken = |error: io::Error| ClientError::Unreachable {
            url: url.clone(),
            why: error.to_string(),
        };
        let mut reader = BufReader::new(response.into_body().into_reader());
        let mut line = String::new();
        loop {
            line.clear();
            let limited = &mut (&mut reader).take(LINE_BYTES_MAX);
            if limited.read_line(&mut line).map_err(broken)? == 0 {
                return Ok(());
            }
            match line.trim_end() {
                "" => {}
                line => each(line),
            }
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}/{}", self.base, path.trim_start_matches('/'))
    }

    fn encode(&self, path: &str, body: &impl Serialize) -> Result<Vec<u8>, ClientError> {
        serde_json::to_vec(body)
            .map_err(|error| ClientError::Request { url: self.url(path), why: error.to_string() })
    }

    fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<T, ClientError> {
        let mut answer = self.call(method, path, body)?;
        if answer.is_empty() {
            answer.extend_from_slice(b"null");
        }
        serde_json::from_slice(&answer)
            .map_err(|error| ClientError::Answer { url: self.url(path), why: error.to_string() })
    }

    fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Vec<u8>, ClientError> {
        let (url, response) = self.ask(method, path, body, None)?;
        read(url, response)
    }

    /// Asks, and gives an answer that is a success and has yet to be read. It may take `longest`,
    /// if that is not what all calls may take.
    fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        longest: Option<Duration>,
    ) -> Result<(String, Response<Body>), ClientError> {
        let url = self.url(path);
        let mut request = Request::builder().method(method).uri(&url);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {}", token.expose()));
        }
        let wrong = |error: ureq::http::Error| ClientError::Request {
            url: url.clone(),
            why: error.to_string(),
        };
        let result = match body {
            Some(body) => {
                let request =
                    request.header("content-type", "application/json").body(body).map_err(wrong)?;
                self.agent.run(request)
            }
            None => {
                let request = request.body(()).map_err(wrong)?;
                let request = match longest {
                    None => request,
                    Some(_) => {
                        self.agent.configure_request(request).timeout_global(longest).build()
                    }
                };
                self.agent.run(request)
            }
        };
        let response = result.map_err(|error| transport_error(&url, error))?;
        let status = response.status();
        if status.is_success() {
            return Ok((url, response));
        }
        let answer = read(url.clone(), response)?;
        Err(refusal(url, status, &answer))
    }
}

fn read(url: String, response: Response<Body>) -> Result<Vec<u8>, ClientError> {
    let mut answer = Vec::new();
    let reader = &mut response.into_body().into_reader().take(ANSWER_BYTES_MAX + 1);
    if let Err(error) = reader.read_to_end(&mut answer) {
        return Err(ClientError::Unreachable { url, why: error.to_string() });
    }
    if answer.len() as u64 > ANSWER_BYTES_MAX {
        return Err(ClientError::Answer { url, why: "too long".to_owned() });
    }
    Ok(answer)
}

/// What a daemon said with a status that is no success.
fn refusal(url: String, status: StatusCode, answer: &[u8]) -> ClientError {
    match serde_json::from_slice::<Problem>(answer) {
        Ok(problem) => ClientError::Problem(Box::new(problem)),
        Err(_) => ClientError::Answer { url, why: format!("status {status} without a reason") },
    }
}

fn transport_error(url: &str, error: Error) -> ClientError {
    let url = url.to_owned();
    let why = match error {
        Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            "connection refused: is the daemon running?".to_owned()
        }
        Error::Timeout(_) => "no answer in time".to_owned(),
        Error::HostNotFound => "no such host".to_owned(),
        Error::BadUri(why) => return ClientError::Request { url, why },
        Error::Protocol(error) => return ClientError::Answer { url, why: error.to_string() },
        error => error.to_string(),
    };
    ClientError::Unreachable { url, why }
}
