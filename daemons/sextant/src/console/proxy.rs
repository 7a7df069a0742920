//! `/api/{daemon}/…` is that daemon's admin port, with its token.
//!
//! ```text
//!   browser ─ cookie ─► console ─ Authorization: Bearer ADMIN-TOKEN ─► daemon
//!           ◄──────── head and body as they come, nothing gathered ────────
//! ```
//!
//! One connection a request: both ends are on this machine, a connection costs tens of
//! microseconds, and none can be found dead. Bodies stream both ways, so that an event stream or
//! lines that are judged one by one pass as they are made. When the browser goes, so does the
//! connection.

use std::net::SocketAddr;
use std::path::PathBuf;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use sextant_service::admin::{AdminToken, Problem};
use tokio::net::TcpStream;

/// A daemon behind the console.
#[derive(Clone, Debug)]
pub(crate) struct Backend {
    pub(crate) name: &'static str,
    /// Its admin port.
    pub(crate) admin: SocketAddr,
    /// Its data directory, where its token is.
    pub(crate) data: PathBuf,
}

/// What concerns one connection only [RFC 9110 section 7.6.1], and what is the console's own.
const KEPT_HERE: [HeaderName; 10] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::HOST,
    header::ORIGIN,
    header::COOKIE,
    header::SET_COOKIE,
];

impl Backend {
    /// The daemon's token as it is now: a daemon makes it at its first start, after the console's.
    pub(super) fn token(&self) -> Option<AdminToken> {
        AdminToken::load(&self.data).ok()
    }

    /// Asks the daemon for `path`, as `request` asks.
    pub(super) async fn forward(&self, path: &str, request: Request) -> Response {
        match self.ask(path, request).await {
            Ok(response) if response.status() == StatusCode::UNAUTHORIZED => bad_gateway(format!(
                "{} refuses the token in its own data directory: start it again",
                self.name
            )),
            Ok(response) => response,
            Err(detail) => bad_gateway(detail),
        }
    }

    async fn ask(&self, path: &str, request: Request) -> Result<Response, String> {
        let name = self.name;
        let token = self.token().ok_or_else(|| format!("{name} has no token yet: it starts"))?;
        let (mut head, body) = request.into_parts();
        head.uri = Uri::try_from(path).map_err(|error| format!("{path}: {error}"))?;
        remove_own(&mut head.headers);
        let bearer = HeaderValue::try_from(format!("Bearer {}", token.expose()));
        let host = HeaderValue::try_from(self.admin.to_string());
        let (Ok(mut bearer), Ok(host)) = (bearer, host) else {
            return Err(format!("{name}'s token is none"));
        };
        bearer.set_sensitive(true);
        head.headers.insert(header::AUTHORIZATION, bearer);
        head.headers.insert(header::HOST, host);
        let failed = |error: &dyn std::fmt::Display| format!("{name} does not answer: {error}");
        let stream = TcpStream::connect(self.admin).await.map_err(|error| failed(&error))?;
        // A refinement; without it small pieces may come later.
        let _ = stream.set_nodelay(true);
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
        tokio::spawn(async move {
            // Whoever reads the body learns of a connection that breaks.
            let _ = connection.await;
        });
        let answer = sender.send_request(Request::from_parts(head, body)).await;
        let (mut head, body) = answer.map_err(|error| failed(&error))?.into_parts();
        remove_own(&mut head.headers);
        Ok(Response::from_parts(head, Body::new(body)))
    }
}

fn remove_own(headers: &mut HeaderMap) {
    // `Connection` may name further ones.
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::try_from(name.trim()).ok())
        .collect();
    for name in named.iter().chain(&KEPT_HERE) {
        headers.remove(name);
    }
}

fn bad_gateway(detail: String) -> Response {
    Problem::new(StatusCode::BAD_GATEWAY, detail)
        .of_kind("daemon-unreachable", "The daemon does not answer")
        .into_response()
}
