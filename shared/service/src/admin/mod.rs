//! The control plane's HTTP: who may speak to it, what it says of itself, and how it fails.
//!
//! ```text
//!   GET /healthz   open    200 every core turned lately, 503 names those that did not
//!   GET /readyz    open    200 the daemon serves, 503 it starts or stops
//!   GET /metrics   token   Prometheus' text format
//!   the daemon's   token   its own routes
//!   anything else  token   404
//! ```
//!
//! Every error that leaves here, whoever made it (a handler, an extractor, the router, a limit), is
//! `application/problem+json` by RFC 9457; only a head that is no HTTP at all is answered by hyper
//! itself, with a bare 400 or 431. [`serve`] keeps to [`Limits`] so that no client can hold more
//! than its share: connections, heads, bodies and requests all end.

mod problem;
mod server;
mod token;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};

use crate::config::{Bytes, Faults, Span};
use crate::metrics::Registry;

pub use problem::Problem;
pub use server::{Limits, serve};
pub use token::{AdminToken, TOKEN_FILE, TokenError};

/// The settings under `[admin]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Where the admin port and the HTTP API are.
    pub listen: SocketAddr,
    /// Connections at once; further ones wait in the kernel's queue.
    pub connections_max: u32,
    /// The longest request body.
    pub body_bytes_max: Bytes,
    /// A client has this long to send the head of a request, and a connection may be idle so long
    /// between two.
    pub header_timeout: Span,
    /// A request has this long from its head to its answer, and an answer so long until the client
    /// took it.
    pub request_timeout: Span,
    /// What is under way has this long to end when the daemon stops.
    pub drain_timeout: Span,
}

impl Settings {
    /// The defaults, on `port` of this machine alone.
    pub fn on(port: u16) -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            connections_max: 512,
            body_bytes_max: Bytes::mib(1),
            header_timeout: Span::secs(10),
            request_timeout: Span::secs(30),
            drain_timeout: Span::secs(5),
        }
    }

    /// For a daemon's [`check`](crate::config::Config::check).
    pub fn check(&self, faults: &mut Faults<'_>) {
        let positive = |span: Span| span.get() >= Duration::from_millis(1);
        faults.require("admin.connections_max", self.connections_max > 0, "must be 1 or more");
        faults.require(
            "admin.body_bytes_max",
            self.body_bytes_max <= Bytes::gib(1),
            "must be 1GiB or less: a body is held in memory",
        );
        faults.require(
            "admin.header_timeout",
            positive(self.header_timeout),
            "must be 1ms or more",
        );
        faults.require(
            "admin.request_timeout",
            positive(self.request_timeout),
            "must be 1ms or more",
        );
    }

    /// The limits for [`serve`].
    pub fn limits(&self) -> Limits {
        Limits {
            connections_max: self.connections_max as usize,
            body_bytes_max: self.body_bytes_max.as_usize(),
            header_timeout: self.header_timeout.get(),
            request_timeout: self.request_timeout.get(),
            drain_timeout: self.drain_timeout.get(),
            streams: &[],
        }
    }
}

/// A core that has not turned for this long makes the daemon unhealthy: it missed ten looks
/// ([`notify::TICK`](crate::notify::TICK)).
pub const SILENCE_MAX: Duration = Duration::from_secs(10);

/// How the daemon is, for `/healthz` and `/readyz`. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<HealthState>);

#[derive(Debug, Default)]
struct HealthState {
    ready: AtomicBool,
    silence: Mutex<Vec<Duration>>,
}

impl Health {
    /// Says that the daemon serves, or that it does not (yet, or any longer).
    pub fn set_ready(&self, ready: bool) {
        self.0.ready.store(ready, Ordering::Relaxed);
    }

    /// Whether the daemon serves.
    pub fn is_ready(&self) -> bool {
        self.0.ready.load(Ordering::Relaxed)
    }

    /// Notes for each core how long ago it turned; [`notify::watch`](crate::notify::watch) does.
    pub fn set_silence(&self, silence: &[Duration]) {
        let mut known = self.0.silence.lock().unwrap_or_else(PoisonError::into_inner);
        known.clear();
        known.extend_from_slice(silence);
    }

    /// Whether every core turned lately.
    pub fn is_alive(&self) -> bool {
        self.silent_core().is_none()
    }

    /// The first core that did not, and for how long.
    fn silent_core(&self) -> Option<(usize, Duration)> {
        let known = self.0.silence.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().copied().enumerate().find(|(_, silence)| *silence >= SILENCE_MAX)
    }
}

/// What [`router`] needs of the daemon.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Who may speak to it.
    pub token: Arc<AdminToken>,
    /// How it is.
    pub health: Health,
    /// What it counts.
    pub metrics: Arc<Registry>,
}

/// The daemon's routes `api`, with those that every daemon has, behind the token; and those of
/// `open`, which look themselves at who asks.
pub fn router(api: Router, open: Router, admin: Admin) -> Router {
    let Admin { token, health, metrics } = admin;
    Router::new()
        .route("/metrics", get(page).with_state(metrics))
        .merge(api)
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "there is nothing at this path"))
        .layer(middleware::from_fn_with_state(token, authorize))
        .merge(open)
        .route("/healthz", get(healthz).with_state(health.clone()))
        .route("/readyz", get(readyz).with_state(health))
}

async fn page(State(metrics): State<Arc<Registry>>) -> impl IntoResponse {
    let content_type = HeaderValue::from_static(crate::metrics::CONTENT_TYPE);
    ([(header::CONTENT_TYPE, content_type)], metrics.render(Instant::now()))
}

async fn healthz(State(health): State<Health>) -> Result<&'static str, Problem> {
    match health.silent_core() {
        None => Ok("ok\n"),
        Some((core, silence)) => Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("core {core} has not turned for {} s", silence.as_secs()),
        )),
    }
}

async fn readyz(State(health): State<Health>) -> Result<&'static str, Problem> {
    if health.is_ready() {
        Ok("ready\n")
    } else {
        Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the daemon is starting or stopping"))
    }
}

/// Lets a request pass that bears the token [RFC 6750 section 2.1].
async fn authorize(State(token): State<Arc<AdminToken>>, request: Request, next: Next) -> Response {
    let presented = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let (detail, challenge) = match presented.map(bearer) {
        Some(Some(presented)) if token.matches(presented) => return next.run(request).await,
        Some(Some(_)) => (
            "this token is not the admin token",
            "Bearer realm=\"sextant\", error=\"invalid_token\"",
        ),
        _ => (
            "this path wants the header `Authorization: Bearer TOKEN`; the token is in \
             DATA/admin.token",
            "Bearer realm=\"sextant\"",
        ),
    };
    let mut response = Problem::new(StatusCode::UNAUTHORIZED, detail).into_response();
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    response
}

/// What follows `Bearer`, in any case [RFC 9110 section 11.1].
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bearer_scheme_is_read_in_any_case() {
        assert_eq!(bearer(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"bearer  abc "), Some(&b"abc"[..]));
        assert_eq!(bearer(b"Basic abc"), None);
        assert_eq!(bearer(b"Bear"), None);
    }

    #[test]
    fn a_core_that_is_silent_for_long_is_named() {
        let health = Health::default();
        assert!(health.is_alive());
        health.set_silence(&[Duration::from_secs(1), SILENCE_MAX]);
        assert_eq!(health.silent_core(), Some((1, SILENCE_MAX)));
    }
}
