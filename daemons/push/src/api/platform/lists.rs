//! Lists that are uploaded, read as they come.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use sextant_devices::ListFormat;
use sextant_platform::engine::ListSummary;
use sextant_platform::time::Time;
use sextant_service::admin::Problem;
use uuid::Uuid;

use super::lines::piece;
use super::{Asker, Need, Platform, Shared, at, problem};

#[derive(Serialize)]
struct ListView {
    #[serde(flatten)]
    summary: ListSummary,
    expires_at: Time,
}

fn format_of(headers: &HeaderMap) -> Result<ListFormat, Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.map(|kind| kind.split(';').next().unwrap_or_default().trim());
    match kind {
        Some("text/csv") => Ok(ListFormat::Csv),
        None | Some("application/x-ndjson" | "application/ndjson" | "application/json") => {
            Ok(ListFormat::Ndjson)
        }
        Some(_) => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "a list is `application/x-ndjson` or `text/csv`",
        )),
    }
}

/// Gives a list up whose upload ends early, whatever ended it.
struct Guard {
    platform: Arc<Platform>,
    list: Option<Uuid>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(list) = self.list.take() else { return };
        let platform = Arc::clone(&self.platform);
        tokio::spawn(async move {
            // The platform may have ended, and with it the list.
            let _ = platform.handle.ask(move |engine, _| engine.abandon_list(list)).await;
        });
    }
}

pub(super) async fn upload(
    State(platform): Shared,
    asker: Asker,
    Path(app): Path<String>,
    headers: HeaderMap,
    mut body: Body,
) -> Result<Response, Problem> {
    let format = format_of(&headers)?;
    let begun = platform.write(&asker, app, Need::Send, move |engine, app, now| {
        engine.begin_list(app, format, now)
    });
    let list = begun.await?;
    let mut guard = Guard { platform: Arc::clone(&platform), list: Some(list) };
    while let Some(piece) = piece(&mut body).await? {
        let fed = platform.handle.ask(move |engine, now| engine.feed_list(list, &piece, now));
        fed.await.and_then(|fed| fed).map_err(problem)?;
    }
    let ended = platform.handle.change(move |engine, now| engine.end_list(list, now));
    let summary = ended.await.map_err(problem)?;
    guard.list = None;
    let expires_at = Time(summary.expires_ms);
    Ok(at(StatusCode::CREATED, format!("#{list}"), ListView { summary, expires_at }))
}
