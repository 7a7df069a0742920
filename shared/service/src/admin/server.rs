//! The HTTP/1.1 server under the admin port, with every limit set.
//!
//! ```text
//!   accept ─ permit ─► head ────────► body ──────► answer ─────► next head …
//!            ^ of       ^ header_     ^ body_bytes_ ^ request_     ^ header_timeout
//!              connections_max timeout    max         timeout
//! ```
//!
//! A connection past `connections_max` waits in the kernel's queue. An answer that its client does
//! not take is ended by the kernel (`TCP_USER_TIMEOUT`, which counts a closed window too), so that
//! it holds no permit for ever.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use http_body_util::Limited;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::problem::{self, Problem};
use crate::config::Bytes;

/// What one server may be made to hold, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once.
    pub connections_max: usize,
    /// Bytes of one request's body.
    pub body_bytes_max: usize,
    /// From the end of an answer, or the beginning of the connection, to the end of the next head.
    /// One limit for a slow head and for an idle connection, since hyper has one timer for both.
    pub header_timeout: Duration,
    /// From the end of a head to the answer; and for bytes of the answer to be acknowledged.
    pub request_timeout: Duration,
    /// From the call to stop to the end of the last connection.
    pub drain_timeout: Duration,
    /// How the paths of POSTs end whose bodies may be of any length, and take any time: whoever
    /// reads them does so as they come, and gives up on one that is silent.
    pub streams: &'static [&'static str],
}

impl Limits {
    fn is_stream(&self, request: &Request) -> bool {
        let path = request.uri().path();
        request.method() == Method::POST && self.streams.iter().any(|end| path.ends_with(end))
    }
}

const HEAD_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 64;
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// How long to wait when the process has no descriptors left, before another try to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` on `listener` until `shutdown` ends, then lets what is under way end within
/// `drain_timeout`.
///
/// # Errors
///
/// `listener` cannot be used by the runtime.
pub async fn serve(
    listener: std::net::TcpListener,
    router: Router,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    assert!(limits.connections_max > 0, "a server takes at least one connection");
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let router = within(router, &limits);
    let permits = Arc::new(Semaphore::new(limits.connections_max.min(Semaphore::MAX_PERMITS)));
    let (stop, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &permits) => accepted,
        };
        let Some((stream, permit)) = accepted else { continue };
        let connection = connection(stream, router.clone(), limits.clone(), stopped.clone());
        connections.spawn(async move {
            connection.await;
            drop(permit);
        });
    }
    drop(listener);
    let _ = stop.send(());
    let drained = async { while connections.join_next().await.is_some() {} };
    // What is left after the deadline is dropped with the set.
    let _ = tokio::time::timeout(limits.drain_timeout, drained).await;
    Ok(())
}

/// The next connection that there is room for; `None` when accepting failed for now.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, permit)),
        Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => None,
        Err(error) => {
            tracing::warn!(%error, "cannot accept an admin connection");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn connection(
    stream: TcpStream,
    router: Router,
    limits: Limits,
    mut stopped: watch::Receiver<()>,
) {
    // Both are refinements; a kernel that refuses them serves all the same.
    let _ = stream.set_nodelay(true);
    let patience = u32::try_from(limits.request_timeout.as_millis()).unwrap_or(u32::MAX);
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, patience);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(HEADERS_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "an admin connection ended early");
    }
}

/// `router`, kept to the limits of a request.
fn within(router: Router, limits: &Limits) -> Router {
    let (bytes_max, patience) = (limits.body_bytes_max, limits.request_timeout);
    let limits = limits.clone();
    // A router adds `Allow` to a 405 outside of its own layers, and the outermost layer here wants
    // to see it: hence a router around the router.
    Router::new()
        .fallback_service(router)
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn(move |request: Request, next: Next| {
            let is_stream = limits.is_stream(&request);
            async move {
                match is_stream {
                    true => next.run(request).await,
                    false => timed(request, next, bytes_max, patience).await,
                }
            }
        }))
        .layer(middleware::from_fn(problem::from_errors))
}

/// Refuses a body that says it is too long, and cuts one that turns out to be.
async fn bounded(request: Request, next: Next, bytes_max: usize) -> Response {
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > bytes_max as u64) {
        return too_long(bytes_max);
    }
    let request = request.map(|body| Body::new(Limited::new(body, bytes_max)));
    let response = next.run(request).await;
    match response.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_long(bytes_max),
        _ => response,
    }
}

fn too_long(bytes_max: usize) -> Response {
    let detail = format!("the body is longer than {}", Bytes::new(bytes_max as u64));
    closing(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail))
}

/// A body of bounded length, answered in bounded time.
async fn timed(request: Request, next: Next, bytes_max: usize, patience: Duration) -> Response {
    match tokio::time::timeout(patience, bounded(request, next, bytes_max)).await {
        Ok(response) => response,
        Err(_) => closing(Problem::unavailable(format!(
            "the request took longer than {} ms",
            patience.as_millis()
        ))),
    }
}

/// Ends the connection after `problem`: part of the request may be unread.
fn closing(problem: Problem) -> Response {
    let mut response = problem.into_response();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
