//! The console: one web page for all daemons, on a port of `sextant up`.
//!
//! ```text
//!   GET    /               the pages, compiled in
//!   POST   /session        {"link": …} or {"token": …}: logs in     401
//!   GET    /session        who is there, and until when             401
//!   DELETE /session        logs out
//!   any    /api/{daemon}/… the daemon's admin port ([`proxy`])      401 without a session
//! ```
//!
//! A session ([`session`]) is opened with the one-time link that `sextant up` prints, or with the
//! admin token of the first daemon. The token itself never reaches the browser's storage, and no
//! daemon sees the cookie. What a page of another site may not do is in [`guard`]. The console
//! promises no encryption: from another machine it is reached through ssh.

mod assets;
mod guard;
mod proxy;
mod session;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router, middleware};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sextant_service::admin::{self, Limits, Problem};

use crate::error::Error;

pub(crate) use assets::are_built;
pub(crate) use proxy::Backend;
use session::{SESSION_LIFE, Sessions};

/// Where the console is unless told otherwise.
const ADDR_DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7700);

/// What the console may be made to hold. A list of devices passes through it, so a body may be
/// long and take its time; none is held here.
const LIMITS: Limits = Limits {
    connections_max: 256,
    body_bytes_max: 1 << 30,
    header_timeout: Duration::from_secs(60),
    request_timeout: Duration::from_secs(600),
    drain_timeout: Duration::from_millis(500),
    // What daemons read as it comes, goes through as it comes.
    streams: &["/lists", "/devices/import", "/messages/stream"],
};

/// Where to serve the console, as the command line says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    At(SocketAddr),
    Off,
}

impl Default for Place {
    fn default() -> Self {
        Self::At(ADDR_DEFAULT)
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            text => text.parse().map(Self::At).map_err(|_| {
                "give an address and a port, such as 127.0.0.1:7700, or off".to_owned()
            }),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(addr) => addr.fmt(f),
            Self::Off => f.write_str("off"),
        }
    }
}

/// A console that has its port.
pub(crate) struct Console {
    listener: TcpListener,
    addr: SocketAddr,
    sessions: Arc<Sessions>,
}

impl Console {
    /// Takes the port; none where there is to be no console.
    pub(crate) fn open(place: Place) -> Result<Option<Self>, Error> {
        let Place::At(addr) = place else { return Ok(None) };
        let listener = TcpListener::bind(addr).map_err(|error| match error.kind() {
            std::io::ErrorKind::AddrInUse => Error::Usage(format!(
                "{addr} is in use, and the console wants it: move it with --console, such as \
                 --console 127.0.0.1:7710, or leave it out with --console off"
            )),
            _ => Error::Usage(format!("the console cannot listen on {addr}: {error}")),
        })?;
        let addr = listener.local_addr().map_err(Error::io("learn the console's address"))?;
        Ok(Some(Self { listener, addr, sessions: Arc::default() }))
    }

    /// Its address, for a browser.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.addr)
    }

    /// An address that logs in whoever opens it first.
    pub(crate) fn link(&self) -> Result<String, Error> {
        let made = self.sessions.link(Instant::now());
        let secret = made.map_err(std::io::Error::other).map_err(Error::io("make a login link"))?;
        Ok(format!("{}#login={secret}", self.url()))
    }

    /// Serves it, beside whatever else this thread does, until the handle that this gives goes.
    pub(crate) fn serve(&self, backends: Vec<Backend>) -> Result<Serving, Error> {
        let cannot = || Error::io("serve the console");
        let listener = self.listener.try_clone().map_err(cannot())?;
        let router = router(Arc::clone(&self.sessions), self.addr.port(), backends);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let stopped = async {
            // Its other end is dropped, and nothing sent.
            let _ = stopped.await;
        };
        let task = tokio::spawn(admin::serve(listener, router, LIMITS, stopped));
        Ok(Serving { stop, task })
    }
}

/// A console that serves.
pub(crate) struct Serving {
    stop: tokio::sync::oneshot::Sender<()>,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Serving {
    pub(crate) async fn stop(self) {
        drop(self.stop);
        let _ = self.task.await;
    }
}

struct Shared {
    sessions: Arc<Sessions>,
    /// Cookies are shared by all ports of a host: the name keeps two consoles apart.
    cookie: String,
    backends: Vec<Backend>,
}

fn router(sessions: Arc<Sessions>, port: u16, backends: Vec<Backend>) -> Router {
    let cookie = format!("sextant_session_{port}");
    Router::new()
        .route("/session", get(show).post(log_in).delete(log_out))
        .route("/api/{daemon}/{*path}", any(api))
        .fallback(get(async |uri: Uri, headers: HeaderMap| assets::serve(uri.path(), &headers)))
        .with_state(Arc::new(Shared { sessions, cookie, backends }))
        .layer(middleware::from_fn(guard::check))
}

/// Either of the two ways to log in.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
enum Login {
    Link(String),
    Token(String),
}

async fn log_in(
    State(shared): State<Arc<Shared>>,
    Json(login): Json<Login>,
) -> Result<Response, Problem> {
    let now = Instant::now();
    let (opened, detail) = match login {
        Login::Link(link) => (
            shared.sessions.spend(&link, now),
            "this login link was used already or is older than an hour",
        ),
        Login::Token(token) => {
            let known = shared.backends.first().and_then(Backend::token);
            let matches = known.is_some_and(|known| known.matches(token.trim().as_bytes()));
            let opened = matches.then(|| shared.sessions.open(now)).transpose();
            (opened, "this is not the admin token")
        }
    };
    match opened {
        Ok(Some(secret)) => Ok(with_cookie(&shared, &secret, SESSION_LIFE)),
        Ok(None) => Err(Problem::new(StatusCode::UNAUTHORIZED, detail)),
        Err(error) => Err(Problem::unavailable(format!("no random numbers: {error}"))),
    }
}

#[derive(Serialize)]
struct Shown {
    version: &'static str,
    daemons: Vec<&'static str>,
    expires_at: String,
}

async fn show(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Json<Shown>, Problem> {
    let left = shared.left(&headers).ok_or_else(logged_out)?;
    let until = Timestamp::try_from(SystemTime::now() + left);
    Ok(Json(Shown {
        version: env!("CARGO_PKG_VERSION"),
        daemons: shared.backends.iter().map(|backend| backend.name).collect(),
        expires_at: format!("{:.3}", until.unwrap_or(Timestamp::MAX)),
    }))
}

async fn log_out(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    for secret in cookies(&headers, &shared.cookie) {
        shared.sessions.close(secret, Instant::now());
    }
    with_cookie(&shared, "", Duration::ZERO)
}

async fn api(
    State(shared): State<Arc<Shared>>,
    Path((daemon, _)): Path<(String, String)>,
    request: Request,
) -> Response {
    if shared.left(request.headers()).is_none() {
        return logged_out().into_response();
    }
    let Some(backend) = shared.backends.iter().find(|backend| backend.name == daemon) else {
        return Problem::not_found("no such daemon runs here").into_response();
    };
    // As it came, not decoded and encoded again: `/api/NAME` is cut off, nothing else.
    let whole = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let path =
        whole["/api/".len()..].find('/').map_or("/", |slash| &whole["/api/".len() + slash..]);
    let path = path.to_owned();
    backend.forward(&path, request).await
}

impl Shared {
    /// How long the session lasts yet that a request belongs to.
    fn left(&self, headers: &HeaderMap) -> Option<Duration> {
        let now = Instant::now();
        cookies(headers, &self.cookie).find_map(|secret| self.sessions.left(secret, now))
    }
}

fn logged_out() -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "log in first")
        .of_kind("logged-out", "Nobody is logged in")
}

/// The values of all cookies of this name.
fn cookies<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
    pairs.filter(move |(key, _)| key.trim() == name).map(|(_, value)| value.trim())
}

fn with_cookie(shared: &Shared, secret: &str, life: Duration) -> Response {
    let cookie = format!(
        "{}={secret}; Path=/; HttpOnly; SameSite=Strict; Max-Age={}",
        shared.cookie,
        life.as_secs()
    );
    let mut response = StatusCode::NO_CONTENT.into_response();
    if let Ok(mut cookie) = HeaderValue::try_from(cookie) {
        cookie.set_sensitive(true);
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}
