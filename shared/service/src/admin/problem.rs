//! Errors as `application/problem+json` [RFC 9457].

use std::fmt;

use axum::Json;
use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

const CONTENT_TYPE: &str = "application/problem+json";
/// A longer explanation than this is not one.
const DETAIL_BYTES_MAX: usize = 4096;
/// The extension member with which [`Problem::retry_after`] says it.
const RETRY_AFTER_S: &str = "retry_after_s";

/// What went wrong with a request, for programs and for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct Problem {
    /// A URI that names the kind; `about:blank` where the status says it all.
    #[serde(rename = "type", default = "about_blank")]
    pub kind: String,
    /// The kind in words, the same for every problem of the kind.
    #[serde(default)]
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// This problem in words.
    #[serde(default)]
    pub detail: String,
    /// What else there is to say of it, by the names of RFC 9457's extension members.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

fn about_blank() -> String {
    "about:blank".to_owned()
}

impl Problem {
    /// A problem of which the status names the kind. `detail` is a sentence without its full stop.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Unknown").to_owned();
        Self {
            kind: about_blank(),
            title,
            status: status.as_u16(),
            detail: detail.into(),
            more: Map::new(),
        }
    }

    /// Gives the problem a kind of its own: `urn:sextant:problem:` and `name`.
    #[must_use]
    pub fn of_kind(mut self, name: &str, title: &str) -> Self {
        self.kind = format!("urn:sextant:problem:{name}");
        self.title = title.to_owned();
        self
    }

    /// Says something else of it.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// Says after how many seconds another try may be worth it: the header `Retry-After` says so,
    /// too [RFC 9110 section 10.2.3].
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        self.with(RETRY_AFTER_S, seconds)
    }

    /// 400: the request contradicts itself or cannot be read.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 404: there is no such thing.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 503: not now.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }
}

/// A sentence for the command line.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.detail.is_empty(), self.title.is_empty()) {
            (false, false) => write!(f, "{} ({} {})", self.detail, self.status, self.title),
            (false, true) => write!(f, "{} ({})", self.detail, self.status),
            (true, _) => write!(f, "{} ({})", self.title, self.status),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let content_type = [(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE))];
        let retry_after = self.more.get(RETRY_AFTER_S).and_then(Value::as_u64);
        let retry_after = retry_after.map(|s| [(header::RETRY_AFTER, HeaderValue::from(s))]);
        (status, content_type, retry_after, Json(self)).into_response()
    }
}

/// Middleware: what leaves as an error leaves as a problem, also what the router, an extractor or
/// a limit made; their words become the detail and their other headers stay.
pub(super) async fn from_errors(request: Request, next: Next) -> Response {
    let asked = format!("{} {}", request.method(), request.uri().path());
    let response = next.run(request).await;
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let content_type = response.headers().get(header::CONTENT_TYPE);
    if !is_error || content_type.is_some_and(|value| value == CONTENT_TYPE) {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let text = to_bytes(body, DETAIL_BYTES_MAX).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    let allowed = head.headers.get(header::ALLOW).and_then(|value| value.to_str().ok());
    let detail = match (text.is_empty(), allowed) {
        (false, _) => text,
        (true, Some(allowed)) => format!("{asked} is not offered here, only {allowed}"),
        (true, None) => String::new(),
    };
    let (problem, body) = Problem::new(status, detail).into_response().into_parts();
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.extend(problem.headers);
    Response::from_parts(head, body)
}
