//! The HTTP API of senders: what they push, what became of it, and the tokens of devices.
//!
//! ```text
//!   POST /v1/messages      202 the message is on disk     413 422 503 504 507
//!   GET  /v1/messages/{id} 200 its receipt                400 404 503 504
//!   POST /v1/tokens        200 a device's token           422
//!   GET  /v1/status        200 all cores in one           503 504
//!
//!   GET    /v1/clients      200 a page of all clients      400 503 504
//!   GET    /v1/clients/{id} 200 one, with what it is subscribed to  404 503 504
//!   DELETE /v1/clients/{id} 204 its connection is closed   404 503 504
//!
//!   GET    /v1/clients/{id}/trace 200 what happens to it, as it happens  400 409 503
//!
//!   GET    /v1/bans               200 all of them
//!   PUT    /v1/bans/{kind}/{name} 200 nobody of that name is let in  404 409 422 503 504
//!   DELETE /v1/bans/{kind}/{name} 204 as before            404 503 504
//!
//!   GET    /v1/top 200 who and what there is most of         400 503 504
//!
//!   GET    /v1/drain 200 whether clients are sent elsewhere, and how far that is
//!   POST   /v1/drain 200 they are from now on              422 503 504
//!   DELETE /v1/drain 204 they are served again             503 504
//! ```
//!
//! Handlers run on the thread of the control plane and speak to the cores through [`Cores`]: one
//! command to the core where a message is at home, or one to each. A core that does not answer
//! within [`ANSWER_MAX`] costs its asker the answer, and nobody else anything. The token of the
//! admin port, limits of requests and the form of errors are those of
//! [`sextant_service::admin`].
//!
//! Bodies are JSON objects, whatever their content type says, and read strictly: an unknown or
//! repeated key, a value of another type or out of its range is an error that names the key.

mod bans;
mod body;
mod clients;
#[cfg(test)]
mod described;
mod drain;
pub mod platform;
mod query;
mod top;
mod trace;

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use sextant_mqtt::QoS;
use sextant_mqtt::topic::{self, TopicLimits};
use sextant_service::admin::Problem;
use sextant_service::config;
use tokio::sync::{Mutex, Semaphore, oneshot};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

pub use self::bans::Kept;
use self::body::Fields;
use crate::auth::token::{TokenKey, check_device};
use crate::config::Durability;
use crate::control::{Command, CoreStatus, Push, PushError, Receipt, ReceiptState, Target};
use crate::home::home;

/// How long a request waits for a core.
pub const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long a message lives that does not say.
pub const TTL_DEFAULT: Duration = Duration::from_secs(24 * 3600);
/// How long a message may live.
pub const TTL_MAX: Duration = Duration::from_secs(30 * 86_400);
/// How long a token is valid that does not say.
pub const TOKEN_TTL_DEFAULT: Duration = Duration::from_secs(30 * 86_400);
/// How long a token may be valid.
pub const TOKEN_TTL_MAX: Duration = Duration::from_secs(3650 * 86_400);

const TTL_MIN: Duration = Duration::from_secs(1);

/// What a PUBLISH takes besides topic and payload, at most, in bytes: the fixed header 5, the
/// length of the topic 2, the packet id 2, the length of the properties 4, the expiry 5, a content
/// type or further subscription ids the rest.
const PUBLISH_OVERHEAD_BYTES: u64 = 64;

/// The cores, as the API sees them.
pub trait Cores: Send + Sync + 'static {
    /// How many there are; never none, and always as many.
    fn cores(&self) -> usize;

    /// Hands `command` to `core` without waiting. What comes of it comes through the command's
    /// own channel, or never.
    ///
    /// # Errors
    /// The core takes no commands, and does not have this one.
    fn send(&self, core: usize, command: Command) -> Result<(), Unavailable>;
}

/// A core takes no commands: the daemon stops, or too many wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the core takes no commands now")]
pub struct Unavailable;

/// What the API has to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The largest MQTT packet, in bytes: no message may make a larger one.
    pub packet_bytes_max: u64,
    /// What is told of the log.
    pub durability: Durability,
    /// What the cores ask the kernel through, by name.
    pub driver: &'static str,
    /// Traces at once.
    pub traces_max: usize,
    /// The time, in milliseconds since 1970.
    pub clock: fn() -> u64,
}

/// The API's routes, for [`sextant_service::admin::router`].
pub fn router(
    cores: Arc<dyn Cores>,
    token_key: TokenKey,
    settings: Settings,
    bans: Kept,
) -> Router {
    let bans = Mutex::new(bans);
    let traces = Arc::new(Semaphore::new(settings.traces_max));
    let (counting, started) = (Mutex::new(()), Instant::now());
    let api = Api { cores, token_key, settings, bans, traces, counting, started };
    Router::new()
        .route("/v1/messages", post(push))
        .route("/v1/messages/{id}", get(receipt))
        .route("/v1/tokens", post(token))
        .route("/v1/status", get(status))
        .route("/v1/clients", get(clients::list))
        .route("/v1/clients/{id}", get(clients::one).delete(clients::kick))
        .route("/v1/clients/{id}/trace", get(trace::trace))
        .route("/v1/drain", get(drain::state).post(drain::begin).delete(drain::end))
        .route("/v1/top", get(top::top))
        .route("/v1/bans", get(bans::list))
        .route("/v1/bans/{kind}/{name}", put(bans::put).delete(bans::lift))
        .with_state(Arc::new(api))
}

struct Api {
    cores: Arc<dyn Cores>,
    token_key: TokenKey,
    settings: Settings,
    bans: Mutex<Kept>,
    /// Traces that may yet begin.
    traces: Arc<Semaphore>,
    /// Held by whoever has the cores count.
    counting: Mutex<()>,
    started: Instant,
}

#[derive(Serialize)]
struct Accepted {
    id: Uuid,
    topic: String,
    accepted_at: Time,
}

async fn push(State(api): State<Arc<Api>>, body: Bytes) -> Result<Response, Problem> {
    let push = read_push(&body, &api.settings)?;
    let core = match &push.target {
        Target::Device(name) | Target::Topic(name) => home(name, api.cores.cores()),
    };
    let id = Uuid::from_u128(push.id);
    let accepted = Accepted { id, topic: push.target.topic(), accepted_at: Time(push.accepted_at) };
    let (reply, answer) = oneshot::channel();
    api.cores
        .send(core, Command::Push { push, reply })
        .map_err(|_| Problem::unavailable("the daemon takes no messages now"))?;
    match timeout(ANSWER_MAX, answer).await {
        Ok(Ok(Ok(_recipients))) => {
            let place = HeaderValue::try_from(format!("/v1/messages/{id}"));
            let place = place.map(|place| [(header::LOCATION, place)]).ok();
            Ok((StatusCode::ACCEPTED, place, Json(accepted)).into_response())
        }
        Ok(Ok(Err(error))) => Err(not_accepted(error, id)),
        Ok(Err(_)) => Err(Problem::unavailable(format!(
            "the core stopped before it answered; message {id} may have been accepted"
        ))),
        Err(_) => Err(Problem::new(
            StatusCode::GATEWAY_TIMEOUT,
            format!(
                "the disk did not answer within {} s; message {id} may have been accepted",
                ANSWER_MAX.as_secs()
            ),
        )),
    }
}

fn not_accepted(error: PushError, id: Uuid) -> Problem {
    let (status, kind, title) = match error {
        PushError::NoRoom => (StatusCode::INSUFFICIENT_STORAGE, "no-room", "No room"),
        PushError::TooLarge => {
            return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string());
        }
        PushError::Unavailable => return Problem::unavailable(error.to_string()),
        PushError::Partly(reason) => {
            let detail = format!("{error}; message {id} was refused elsewhere: {reason:?}");
            let title = "Kept for some receivers only";
            return Problem::unavailable(detail).of_kind("partly-kept", title);
        }
    };
    Problem::new(status, error.to_string()).of_kind(kind, title)
}

/// Reads the body of a push and makes the message.
fn read_push(body: &[u8], settings: &Settings) -> Result<Push, Problem> {
    let known = &["device", "topic", "payload", "payload_base64", "qos", "ttl", "retain"];
    let mut fields = Fields::parse(body, known)?;
    let target = read_target(fields.string("device")?, fields.string("topic")?)?;
    let payload = read_payload(fields.string("payload")?, fields.string("payload_base64")?)?;
    let qos = match fields.integer("qos", 0, 2)? {
        Some(0) => QoS::AtMostOnce,
        Some(2) => QoS::ExactlyOnce,
        _ => QoS::AtLeastOnce,
    };
    let ttl = fields.span("ttl", TTL_MIN, TTL_MAX)?.unwrap_or(TTL_DEFAULT);
    let retain = fields.boolean("retain")?.unwrap_or(false);
    let topic_len = target.topic().len() as u64;
    let room = settings.packet_bytes_max.saturating_sub(PUBLISH_OVERHEAD_BYTES + topic_len);
    if payload.len() as u64 > room {
        return Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!(
                "the payload has {} bytes, and at most {room} fit in a packet of {}",
                payload.len(),
                config::Bytes::new(settings.packet_bytes_max)
            ),
        ));
    }
    let accepted_at = (settings.clock)();
    let expires_at = accepted_at.saturating_add(millis(ttl));
    let id = Uuid::now_v7().as_u128();
    Ok(Push { id, target, payload, qos, retain, accepted_at, expires_at })
}

fn read_target(device: Option<String>, topic: Option<String>) -> Result<Target, Problem> {
    match (device, topic) {
        (Some(device), None) => match check_device(&device) {
            Ok(()) => Ok(Target::Device(device)),
            Err(error) => Err(unprocessable(format!("`device`: {error}"))),
        },
        (None, Some(topic)) => {
            let well_formed = topic::check_name(&topic);
            let sized = well_formed.and_then(|()| TopicLimits::default().check(&topic));
            match sized {
                Ok(()) if !topic.starts_with('$') => Ok(Target::Topic(topic)),
                Ok(()) => Err(unprocessable(
                    "`topic`: names that begin with `$` are the server's own [MQTT-4.7.2-1]",
                )),
                Err(error) => Err(unprocessable(format!("`topic`: {error}"))),
            }
        }
        (Some(_), Some(_)) => {
            Err(unprocessable("`device` and `topic` exclude each other: give one"))
        }
        (None, None) => Err(unprocessable("give `device` or `topic`")),
    }
}

fn read_payload(text: Option<String>, base64: Option<String>) -> Result<Bytes, Problem> {
    match (text, base64) {
        (Some(text), None) => Ok(Bytes::from(text)),
        (None, Some(base64)) => match STANDARD.decode(base64) {
            Ok(payload) => Ok(Bytes::from(payload)),
            Err(error) => Err(unprocessable(format!("`payload_base64`: not base64: {error}"))),
        },
        (Some(_), Some(_)) => {
            Err(unprocessable("`payload` and `payload_base64` exclude each other: give one"))
        }
        (None, None) => {
            Err(unprocessable("give `payload` or `payload_base64`; an empty one is fine"))
        }
    }
}

/// A [`Receipt`] as it is told.
#[derive(Serialize)]
struct Told {
    id: Uuid,
    topic: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    qos: u8,
    state: &'static str,
    recipients: u32,
    sent: u32,
    acknowledged: u32,
    expired: u32,
    dropped: u32,
    accepted_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    acknowledged_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expired_at: Option<Time>,
    expires_at: Time,
}

impl From<Receipt> for Told {
    fn from(receipt: Receipt) -> Told {
        let state = match receipt.state() {
            ReceiptState::Accepted => "accepted",
            ReceiptState::Sent => "sent",
            ReceiptState::Acknowledged => "acknowledged",
            ReceiptState::Expired => "expired",
        };
        Told {
            id: Uuid::from_u128(receipt.id),
            topic: receipt.topic,
            device: receipt.device,
            qos: receipt.qos,
            state,
            recipients: receipt.recipients,
            sent: receipt.sent,
            acknowledged: receipt.acknowledged,
            expired: receipt.expired,
            dropped: receipt.dropped,
            accepted_at: Time(receipt.accepted_at),
            sent_at: receipt.sent_at.map(Time),
            acknowledged_at: receipt.acknowledged_at.map(Time),
            expired_at: receipt.expired_at.map(Time),
            expires_at: Time(receipt.expires_at),
        }
    }
}

async fn receipt(
    State(api): State<Arc<Api>>,
    Path(text): Path<String>,
) -> Result<Json<Told>, Problem> {
    // Of the ways to write a UUID only the one that it was given out in.
    let id = Uuid::try_parse(&text).ok().filter(|_| text.len() == 36).ok_or_else(|| {
        Problem::bad_request("a message id is a UUID, as the answer to its POST told it")
    })?;
    let (answers, sent_to_all) = ask(&*api.cores, |reply| {
        let id = id.as_u128();
        Command::Lookup { id, reply }
    });
    let Ok((found, answered)) = timeout(ANSWER_MAX, first(answers)).await else {
        return Err(no_answer());
    };
    match found {
        Some(receipt) => Ok(Json(receipt.into())),
        None if sent_to_all && answered => {
            Err(Problem::not_found(format!("no message {id} is known (any more)")))
        }
        None => Err(stopping()),
    }
}

/// The first receipt that comes, and whether every core that was asked before it answered.
async fn first(mut answers: Vec<oneshot::Receiver<Option<Receipt>>>) -> (Option<Receipt>, bool) {
    let mut all_answered = true;
    poll_fn(move |context| {
        let mut found = None;
        answers.retain_mut(|answer| match Pin::new(answer).poll(context) {
            Poll::Pending => true,
            Poll::Ready(answer) => {
                all_answered &= answer.is_ok();
                found = found.take().or(answer.ok().flatten());
                false
            }
        });
        match found.is_some() || answers.is_empty() {
            true => Poll::Ready((found, all_answered)),
            false => Poll::Pending,
        }
    })
    .await
}

#[derive(Serialize)]
struct Token {
    device: String,
    token: String,
    expires_at: Time,
}

async fn token(State(api): State<Arc<Api>>, body: Bytes) -> Result<Response, Problem> {
    let mut fields = Fields::parse(&body, &["device", "ttl"])?;
    let device = fields.string("device")?.ok_or_else(|| unprocessable("give `device`"))?;
    let ttl = fields.span("ttl", TTL_MIN, TOKEN_TTL_MAX)?.unwrap_or(TOKEN_TTL_DEFAULT);
    let expires_at = (api.settings.clock)().saturating_add(millis(ttl)).div_ceil(1000);
    let token = api
        .token_key
        .issue(&device, expires_at)
        .map_err(|error| unprocessable(format!("`device`: {error}")))?;
    tracing::info!(device, expires_at, "issued a device token");
    let expires_at = Time(expires_at.saturating_mul(1000));
    let unstored: [(HeaderName, HeaderValue); 1] =
        [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((unstored, Json(Token { device, token, expires_at })).into_response())
}

#[derive(Serialize)]
struct Status {
    version: &'static str,
    uptime_s: u64,
    cores: usize,
    driver: &'static str,
    connections: u64,
    connects: ConnectStatus,
    throttled: u64,
    sessions: u64,
    subscriptions: u64,
    retained: u64,
    held: u64,
    messages_in: u64,
    messages_out: u64,
    log: LogStatus,
}

#[derive(Serialize)]
struct ConnectStatus {
    waiting: u64,
    delayed: u64,
    refused: u64,
}

#[derive(Serialize)]
struct LogStatus {
    bytes: u64,
    segments: u64,
    durability: String,
    read_only: bool,
}

async fn status(State(api): State<Arc<Api>>) -> Result<Json<Status>, Problem> {
    let sum = sum(&*api.cores).await?;
    Ok(Json(Status {
        version: env!("CARGO_PKG_VERSION"),
        uptime_s: api.started.elapsed().as_secs(),
        cores: api.cores.cores(),
        driver: api.settings.driver,
        connections: sum.connections,
        connects: ConnectStatus {
            waiting: sum.connects_waiting,
            delayed: sum.connects_delayed,
            refused: sum.connects_refused,
        },
        throttled: sum.throttled,
        sessions: sum.sessions,
        subscriptions: sum.subscriptions,
        retained: sum.retained,
        held: sum.held,
        messages_in: sum.messages_in,
        messages_out: sum.messages_out,
        log: LogStatus {
            bytes: sum.log_bytes,
            segments: sum.log_segments,
            durability: api.settings.durability.to_string(),
            read_only: sum.log_read_only,
        },
    }))
}

/// How all cores stand together.
pub(crate) async fn sum(cores: &dyn Cores) -> Result<CoreStatus, Problem> {
    let (answers, sent_to_all) = ask(cores, |reply| Command::Status { reply });
    let mut sum = CoreStatus::default();
    let all = timeout(ANSWER_MAX, async {
        for answer in answers {
            sum = add(sum, answer.await?);
        }
        Ok::<_, oneshot::error::RecvError>(())
    });
    match all.await {
        Ok(Ok(())) if sent_to_all => Ok(sum),
        Ok(_) => Err(stopping()),
        Err(_) => Err(no_answer()),
    }
}

fn add(a: CoreStatus, b: CoreStatus) -> CoreStatus {
    CoreStatus {
        connections: a.connections + b.connections,
        connects_waiting: a.connects_waiting + b.connects_waiting,
        connects_delayed: a.connects_delayed + b.connects_delayed,
        connects_refused: a.connects_refused + b.connects_refused,
        throttled: a.throttled + b.throttled,
        sessions: a.sessions + b.sessions,
        subscriptions: a.subscriptions + b.subscriptions,
        retained: a.retained + b.retained,
        held: a.held + b.held,
        messages_in: a.messages_in + b.messages_in,
        messages_out: a.messages_out + b.messages_out,
        log_bytes: a.log_bytes + b.log_bytes,
        log_segments: a.log_segments + b.log_segments,
        log_read_only: a.log_read_only || b.log_read_only,
    }
}

/// Sends one command to each core; gives the answers to come, and whether each core took its own.
fn ask<T>(
    cores: &dyn Cores,
    command: impl Fn(oneshot::Sender<T>) -> Command,
) -> (Vec<oneshot::Receiver<T>>, bool) {
    let ask_one = |core| {
        let (reply, answer) = oneshot::channel();
        cores.send(core, command(reply)).ok().map(|()| answer)
    };
    let answers: Vec<_> = (0..cores.cores()).filter_map(ask_one).collect();
    let sent_to_all = answers.len() == cores.cores();
    (answers, sent_to_all)
}

fn no_answer() -> Problem {
    let detail = format!("a core did not answer within {} s", ANSWER_MAX.as_secs());
    Problem::new(StatusCode::GATEWAY_TIMEOUT, detail)
}

fn stopping() -> Problem {
    Problem::unavailable("a core takes no commands now")
}

fn unprocessable(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds since 1970, written as RFC 3339 in UTC with three decimals.
#[derive(Clone, Copy)]
struct Time(u64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = i64::try_from(self.0).unwrap_or(i64::MAX);
        write!(f, "{:.3}", Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX))
    }
}

impl Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests;
