//! Traces over HTTP: a line of JSON for each thing that happens to a client, as it happens, until
//! its time is over, the daemon stops, or whoever reads it has gone.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_core::Stream;
use serde::{Deserialize, Serialize};
use sextant_service::admin::Problem;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Sleep, sleep};

use super::query::{self, read};
use super::{Api, Time, stopping};
use crate::control::Command;
use crate::control::trace::{TRACE_ENTRIES_MAX, TraceEvent, Traced, Tracing};
use crate::home::home;

/// How long a trace is that does not say.
const FOR_DEFAULT: Duration = Duration::from_secs(600);
/// How long a trace may be.
const FOR_MAX: Duration = Duration::from_secs(86_400);
/// Bytes of lines that are given to the connection together.
const CHUNK_BYTES: usize = 16 << 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TraceQuery {
    #[serde(default)]
    payload: bool,
    #[serde(rename = "for")]
    length: Option<String>,
}

/// A line.
#[derive(Serialize)]
struct Line<'a> {
    at: Time,
    #[serde(flatten)]
    event: &'a TraceEvent,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    /// What happened before it, and is not told.
    #[serde(skip_serializing_if = "is_zero")]
    lost: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

pub(super) async fn trace(
    State(api): State<Arc<Api>>,
    Path(client_id): Path<String>,
    asked: Result<Query<TraceQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let TraceQuery { payload, length } = read(asked)?;
    let allowed = Duration::from_millis(1)..=FOR_MAX;
    let length =
        query::length(length.as_deref(), FOR_DEFAULT, allowed, "such as 60s, at most 24h")?;
    let permit = Arc::clone(&api.traces).try_acquire_owned().map_err(|_| {
        let detail = "as many traces as limits.traces_max are under way: end one";
        Problem::new(StatusCode::CONFLICT, detail).of_kind("too-many-traces", "Too many traces")
    })?;
    let (sink, entries) = mpsc::channel(TRACE_ENTRIES_MAX);
    let core = home(&client_id, api.cores.cores());
    tracing::info!(client_id, payload, "an operator traces a client");
    let tracing = Tracing { client_id, payloads: payload, sink };
    api.cores.send(core, Command::Trace(tracing)).map_err(|_| stopping())?;
    let lines = Lines { entries, over: Box::pin(sleep(length)), _permit: permit };
    let kind = [(header::CONTENT_TYPE, "application/jsonl")];
    Ok((kind, Body::from_stream(lines)).into_response())
}

/// The lines of a trace.
struct Lines {
    entries: mpsc::Receiver<Traced>,
    over: Pin<Box<Sleep>>,
    /// Its place among the traces that there may be.
    _permit: OwnedSemaphorePermit,
}

impl Stream for Lines {
    type Item = Result<Bytes, serde_json::Error>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<Option<Self::Item>> {
        if self.over.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        let mut chunk = Vec::new();
        while chunk.len() < CHUNK_BYTES {
            match self.entries.poll_recv(context) {
                Poll::Ready(Some(traced)) => match write(&traced, &mut chunk) {
                    Ok(()) => {}
                    Err(error) => return Poll::Ready(Some(Err(error))),
                },
                Poll::Ready(None) if chunk.is_empty() => return Poll::Ready(None),
                Poll::Pending if chunk.is_empty() => return Poll::Pending,
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        Poll::Ready(Some(Ok(chunk.into())))
    }
}

fn write(traced: &Traced, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    let payload = match &traced.event {
        TraceEvent::In(packet) | TraceEvent::Out(packet) => packet.payload.as_ref(),
        _ => None,
    };
    let line = Line {
        at: Time(traced.at),
        event: &traced.event,
        payload_base64: payload.map(|payload| STANDARD.encode(payload)),
        lost: traced.lost,
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.push(b'\n');
    Ok(())
}
