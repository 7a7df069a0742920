//! Asking somebody else's HTTP server who a client is.
//!
//! ```text
//!   core ──► question ──► queue, bounded ──► one of some threads ──POST──► the hook
//!              full: 0x88                       ▼                           │
//!                                deliver(core, connection, how) ◄──answer───┘
//! ```
//!
//! The question is JSON: `client_id`, `username` and `password` if the client sent them
//! (`password_base64` instead where it is no text), `peer`, `protocol` and `version`. So is the
//! answer:
//!
//! | answer | what it says |
//! |---|---|
//! | `result` | `"allow"`, `"deny"`, or `"ignore"`: as if nobody had been asked |
//! | `superuser`, or `is_superuser` | whether the client may do anything |
//! | `allow` | rules beside those of `auth.http.allow`, as `[[auth.users]]` have them |
//! | `user` | its name, if not the user name that it sent (or its client identifier) |
//! | `expires_in` | seconds after which it is disconnected; or `expire_at`, since 1970 |
//! | `reason` | for the log |
//!
//! The status 204 is `allow`, too. Anything else is a failure: no answer in time, another status,
//! an answer that cannot be read. What becomes of the client then is configured. One that is not
//! let in for it is told that the server is unavailable, since its own fault it is not.
//!
//! A question waits for a thread as long as an answer may take, and not longer: whoever asked
//! would be gone.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sextant_mqtt::Version;
use sextant_service::metrics::Builder;
use tracing::{debug, warn};
use ureq::Agent;
use zeroize::Zeroizing;

use super::hasher::Deliver;
use super::jwt::RULES_MAX;
use super::rules::{Rule, Rules};
use super::{Principal, Refusal, Verified, checked_rules};
use crate::config::{self, OnFailure, USER_NAME_BYTES_MAX};
use crate::outbound::{self, CertificatesError};

/// The longest password that is passed on, in bytes.
pub const PASSWORD_BYTES_MAX: usize = 8192;

/// The longest answer, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// Failures are told of so often at most.
const WARNING_PAUSE: Duration = Duration::from_secs(10);

/// Why nobody can be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HookError {
    /// The certificates that are configured cannot be used.
    #[error(transparent)]
    Certificates(#[from] CertificatesError),
    /// There can be no more threads.
    #[error("no thread for {url}: {source}")]
    Thread {
        /// Whom it would have asked.
        url: config::Url,
        /// Why there is none.
        source: io::Error,
    },
}

/// What came of questions, whichever hook was asked.
#[derive(Debug, Default)]
pub struct Counts {
    allowed: AtomicU64,
    denied: AtomicU64,
    ignored: AtomicU64,
    failed: AtomicU64,
    full: AtomicU64,
}

impl Counts {
    /// Declares them to `/metrics`.
    pub fn declare(self: &Arc<Counts>, builder: &mut Builder) {
        type Pick = fn(&Counts) -> &AtomicU64;
        let all: [(&str, &str, Pick); 5] = [
            ("allowed", "Clients that the HTTP hook let in.", |counts| &counts.allowed),
            ("denied", "Clients that the HTTP hook refused.", |counts| &counts.denied),
            ("ignored", "Clients that the HTTP hook did not know.", |counts| &counts.ignored),
            ("failed", "Questions that the HTTP hook did not answer.", |counts| &counts.failed),
            ("full", "Questions that were not asked: too many waited.", |counts| &counts.full),
        ];
        for (name, help, pick) in all {
            let counts = Arc::clone(self);
            let read = move || pick(&counts).load(Ordering::Relaxed) as f64;
            builder.counter_fn(&format!("sextant_push_auth_http_{name}_total"), help, read);
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What is asked of a client.
pub(super) struct Question {
    pub(super) client_id: Box<str>,
    pub(super) user_name: Option<Box<str>>,
    pub(super) password: Option<Zeroizing<Vec<u8>>>,
    pub(super) peer: Option<SocketAddr>,
    pub(super) version: Version,
    /// When the client came, in milliseconds since 1970.
    pub(super) unix_ms: u64,
    /// What becomes of it if the hook does not know it.
    pub(super) otherwise: Verified,
}

/// A question as it is written.
#[derive(Serialize)]
struct Asked<'a> {
    client_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password_base64: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<SocketAddr>,
    protocol: &'static str,
    version: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Allow,
    Deny,
    Ignore,
}

/// An answer as it is read.
#[derive(Deserialize)]
struct Answer {
    result: Outcome,
    #[serde(default, alias = "is_superuser")]
    superuser: bool,
    #[serde(default)]
    allow: Vec<String>,
    user: Option<String>,
    expires_in: Option<f64>,
    #[serde(alias = "expires_at")]
    expire_at: Option<f64>,
    reason: Option<String>,
}

/// The status 204.
const ALLOWED: Answer = Answer {
    result: Outcome::Allow,
    superuser: false,
    allow: Vec::new(),
    user: None,
    expires_in: None,
    expire_at: None,
    reason: None,
};

impl Question {
    fn to_json(&self) -> Result<Zeroizing<Vec<u8>>, serde_json::Error> {
        let password = self.password.as_ref().map(|password| password.as_slice());
        let text = password.and_then(|password| std::str::from_utf8(password).ok());
        let base64 = password.filter(|_| text.is_none());
        let base64 = base64.map(|bytes| Zeroizing::new(STANDARD.encode(bytes)));
        let asked = Asked {
            client_id: &self.client_id,
            username: self.user_name.as_deref(),
            password: text,
            password_base64: base64.as_ref().map(|base64| base64.as_str()),
            peer: self.peer,
            protocol: "mqtt",
            version: match self.version {
                Version::V311 => "3.1.1",
                Version::V5 => "5",
            },
        };
        // As long as it gets, so that no part of it is left behind where it was moved from.
        let longest = 6 * password.map_or(0, <[u8]>::len)
            + 6 * (self.client_id.len() + self.user_name.as_ref().map_or(0, |name| name.len()));
        let mut json = Zeroizing::new(Vec::with_capacity(longest + 256));
        serde_json::to_writer(&mut *json, &asked)?;
        Ok(json)
    }

    /// Who is let in by an answer.
    fn admit(&self, answer: &Answer, allow: &Arc<Rules>) -> Result<Principal, String> {
        let sent = self.user_name.as_deref().filter(|name| !name.is_empty());
        let name = answer.user.as_deref().or(sent).unwrap_or(&self.client_id);
        if !(1..=USER_NAME_BYTES_MAX).contains(&name.len()) {
            return Err(format!("a user's name has 1 to {USER_NAME_BYTES_MAX} bytes"));
        }
        let rules = match answer.allow.as_slice() {
            _ if answer.superuser => None,
            [] => Some(Arc::clone(allow)),
            texts if texts.len() > RULES_MAX => {
                return Err(format!("`allow` has more than {RULES_MAX} rules"));
            }
            texts => {
                let own: Result<Vec<Rule>, _> =
                    texts.iter().map(|text| Rule::parse(text)).collect();
                Some(Arc::new(allow.with(own.map_err(|error| error.to_string())?)))
            }
        };
        let user = Principal::user(name.into(), &self.client_id, rules);
        let millis = |seconds: f64| (seconds * 1000.0) as u64;
        let in_time = answer.expires_in.map(|seconds| self.unix_ms.saturating_add(millis(seconds)));
        let ends = in_time.into_iter().chain(answer.expire_at.map(millis)).min();
        match ends {
            Some(end) if end <= self.unix_ms => Err("its time is over".to_owned()),
            Some(end) => Ok(user.until(end)),
            None => Ok(user),
        }
    }
}

struct Job {
    core: usize,
    conn: u64,
    question: Question,
    asked: Instant,
}

/// The way to the threads that ask. When the last clone is dropped they end, after what is queued.
#[derive(Clone)]
pub struct Hook {
    queue: SyncSender<Job>,
    counts: Arc<Counts>,
}

struct Asker {
    url: config::Url,
    headers: Vec<(String, sextant_service::config::Secret)>,
    agent: Agent,
    timeout: Duration,
    on_failure: OnFailure,
    allow: Arc<Rules>,
    counts: Arc<Counts>,
    deliver: Deliver,
    warned: Mutex<Option<Instant>>,
}

impl Hook {
    /// Starts as many threads as questions may be asked at once; they tell `deliver`.
    ///
    /// # Errors
    /// The certificates cannot be used, or there can be no more threads.
    ///
    /// # Panics
    /// If the configuration was not checked.
    pub fn spawn(
        http: &config::Http,
        counts: &Arc<Counts>,
        deliver: &Deliver,
    ) -> Result<Hook, HookError> {
        let threads = http.requests_max;
        let (queue, jobs) = sync_channel(http.queue_max as usize);
        let jobs = Arc::new(Mutex::new(jobs));
        let asker = Arc::new(Asker {
            url: http.url.clone(),
            headers: http.headers.clone().into_iter().collect(),
            agent: outbound::agent(http.timeout.get(), threads.into(), http.ca_file.as_deref())?,
            timeout: http.timeout.get(),
            on_failure: http.on_failure,
            allow: Arc::new(checked_rules(&http.allow)),
            counts: Arc::clone(counts),
            deliver: Arc::clone(deliver),
            warned: Mutex::new(None),
        });
        for _ in 0..threads {
            let (asker, jobs) = (Arc::clone(&asker), Arc::clone(&jobs));
            std::thread::Builder::new()
                .name("auth-http".to_owned())
                .spawn(move || asker.work(&jobs))
                .map_err(|source| HookError::Thread { url: http.url.clone(), source })?;
        }
        Ok(Hook { queue, counts: Arc::clone(counts) })
    }

    /// Hands a question over for `conn` of `core`; what comes of it is delivered. Never waits.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`]: too many wait.
    pub(super) fn try_ask(
        &self,
        core: usize,
        conn: u64,
        question: Question,
    ) -> Result<(), Refusal> {
        let job = Job { core, conn, question, asked: Instant::now() };
        self.queue.try_send(job).map_err(|_| {
            count(&self.counts.full);
            Refusal::Unavailable
        })
    }
}

impl Asker {
    fn work(&self, jobs: &Mutex<Receiver<Job>>) {
        loop {
            let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(Job { core, conn, question, asked }) = job else { return };
            let answer = match asked.elapsed() < self.timeout {
                true => self.ask(&question),
                false => Err("too many questions wait for an answer".to_owned()),
            };
            (self.deliver)(core, conn, self.conclude(question, answer));
        }
    }

    fn conclude(&self, question: Question, answer: Result<Answer, String>) -> Verified {
        let admitted = answer.and_then(|answer| {
            let reason = answer.reason.as_deref();
            debug!(client_id = &*question.client_id, result = ?answer.result, reason, "hook");
            match answer.result {
                Outcome::Allow => Ok((Outcome::Allow, Some(question.admit(&answer, &self.allow)?))),
                other => Ok((other, None)),
            }
        });
        match admitted {
            Ok((_, Some(principal))) => {
                count(&self.counts.allowed);
                Verified::Admitted(principal)
            }
            Ok((Outcome::Deny, _)) => {
                count(&self.counts.denied);
                Verified::Refused(Refusal::BadCredentials)
            }
            Ok(_) => {
                count(&self.counts.ignored);
                question.otherwise
            }
            Err(why) => {
                count(&self.counts.failed);
                self.warn(&why);
                match self.on_failure {
                    OnFailure::Deny => Verified::Refused(Refusal::Unavailable),
                    OnFailure::Ignore => question.otherwise,
                }
            }
        }
    }

    fn warn(&self, why: &str) {
        let now = Instant::now();
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|last| now.duration_since(last) >= WARNING_PAUSE) {
            *warned = Some(now);
            warn!(url = %self.url, why, "the authentication hook fails");
        }
    }

    fn ask(&self, question: &Question) -> Result<Answer, String> {
        let json = question.to_json().map_err(|error| error.to_string())?;
        let mut request =
            self.agent.post(self.url.expose()).header("content-type", "application/json");
        for (name, value) in &self.headers {
            request = request.header(name, value.expose());
        }
        let response = request.send(json.as_slice()).map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        let reader = response.into_body().into_reader();
        let read = reader.take(ANSWER_BYTES_MAX + 1).read_to_end(&mut body);
        read.map_err(|error| error.to_string())?;
        read_answer(status, &body)
    }
}

fn read_answer(status: u16, body: &[u8]) -> Result<Answer, String> {
    match status {
        204 => Ok(ALLOWED),
        200 if body.len() as u64 <= ANSWER_BYTES_MAX => serde_json::from_slice(body)
            .map_err(|error| format!("the answer cannot be read: {error}")),
        200 => Err(format!("the answer has more than {ANSWER_BYTES_MAX} bytes")),
        other => Err(format!("the answer has the status {other}")),
    }
}

/// What an answer with this body says of a client, who came at `unix_ms`: for the fuzzer.
#[doc(hidden)]
pub fn fuzz_answer(body: &[u8], client_id: &str, unix_ms: u64) -> Option<Principal> {
    let question = Question {
        client_id: client_id.into(),
        user_name: None,
        password: None,
        peer: None,
        version: Version::V5,
        unix_ms,
        otherwise: Verified::Refused(Refusal::BadCredentials),
    };
    let answer = read_answer(200, body).ok()?;
    let allowed = answer.result == Outcome::Allow;
    question.admit(&answer, &Arc::default()).ok().filter(|_| allowed)
}

#[cfg(test)]
mod tests;
