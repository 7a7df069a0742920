//! The audit over HTTP: in pages, or all of it as NDJSON. It is asked without the platform's
//! thread, but for the names of devices.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sextant_audit::{Content, Cursor, Entry, Page, Query as Question, Stage, Stages};
use sextant_platform::Refusal;
use sextant_platform::copies::AT_MOST_ONCE;
use sextant_platform::engine::Happened;
use sextant_platform::time::Time;
use sextant_policy::Reason;
use sextant_service::admin::Problem;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::live::Chunks;
use super::{Asker, Need, Platform, Shared, problem, read_after, read_id, read_limit};
use crate::api::query::read;

/// Entries of an export that are read together.
const EXPORT_AT_ONCE: usize = 5000;
/// Pieces of an export that wait for whoever reads it.
const PIECES_MAX: usize = 4;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    message: Option<String>,
    device: Option<String>,
    from: Option<String>,
    to: Option<String>,
    stages: Option<String>,
    events: Option<bool>,
    newest: Option<bool>,
    limit: Option<usize>,
    after: Option<String>,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Told {
    Fact {
        seq: u64,
        at: Time,
        message: Uuid,
        device: String,
        stage: &'static str,
        reason: Option<&'static str>,
    },
    Event {
        seq: u64,
        at: Time,
        message: Option<Uuid>,
        event: &'static str,
        actor: String,
        detail: Box<RawValue>,
    },
}

#[derive(Serialize)]
pub(super) struct Answer {
    entries: Vec<Told>,
    next: Option<String>,
    /// Something could not be read that may belong here.
    incomplete: bool,
}

fn time(text: Option<&str>, part: &str, default: u64) -> Result<u64, Problem> {
    let Some(text) = text else { return Ok(default) };
    let at = text.parse::<Timestamp>().ok().and_then(|at| u64::try_from(at.as_millisecond()).ok());
    at.ok_or_else(|| {
        Problem::bad_request(format!("`{part}`: is a time such as 2026-11-24T10:00:00Z"))
    })
}

fn stages(text: Option<&str>) -> Result<Stages, Problem> {
    let Some(text) = text else { return Ok(Stages::ALL) };
    let one = |name: &str| Stage::ALL.into_iter().find(|stage| stage.name() == name.trim());
    let all: Option<Stages> = text.split(',').map(one).collect();
    all.ok_or_else(|| {
        let names: Vec<&str> = Stage::ALL.into_iter().map(Stage::name).collect();
        Problem::bad_request(format!("`stages`: some of {}, with commas", names.join(", ")))
    })
}

/// What is asked, as the audit understands it.
async fn question(
    platform: &Platform,
    asker: &Asker,
    app: &str,
    asked: &Asked,
) -> Result<Question, Problem> {
    let number = platform.may(asker, app, Need::Read).await?;
    let message = match &asked.message {
        None => None,
        Some(text) => {
            let known = platform.handle.ids().number(read_id(text)?);
            let unknown = || problem(Refusal::Unknown("such message"));
            Some(known.ok_or_else(unknown)?)
        }
    };
    let device = match &asked.device {
        None => None,
        Some(id) => {
            let id = id.clone();
            let found = platform.handle.ask(move |engine, _| engine.device_of(number, &id));
            Some(found.await.and_then(|found| found).map_err(problem)?)
        }
    };
    Ok(Question {
        message,
        device,
        app: Some(number),
        from: time(asked.from.as_deref(), "from", 0)?,
        to: time(asked.to.as_deref(), "to", u64::MAX)?,
        stages: stages(asked.stages.as_deref())?,
        events: asked.events.unwrap_or(true),
        newest_first: asked.newest.unwrap_or(false),
        limit: read_limit(asked.limit)?,
        after: read_after::<Cursor>(asked.after.as_deref())?,
    })
}

/// Asks the audit, on a thread that may wait for the disk.
async fn ask(platform: &Arc<Platform>, question: Question) -> Result<Page, Problem> {
    let reader = platform.handle.reader().clone();
    let page = tokio::task::spawn_blocking(move || reader.query(&question)).await;
    page.map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the audit was not read"))
}

/// What entries say, with the names that API has for what they are about.
async fn tell(platform: &Platform, entries: Vec<Entry>) -> Result<Vec<Told>, Problem> {
    let numbers: BTreeSet<u32> =
        entries.iter().filter_map(|entry| entry.fact().map(|fact| fact.device)).collect();
    let names = platform.handle.ask(move |engine, _| {
        let name = |number: u32| {
            let id = engine.registry().id(number).map(str::to_owned);
            // One that was removed: an event says which it was.
            (number, id.unwrap_or_else(|| format!("#{number}")))
        };
        numbers.into_iter().map(name).collect::<BTreeMap<u32, String>>()
    });
    let names = names.await.map_err(problem)?;
    let ids = platform.handle.ids();
    let told = entries.into_iter().map(|entry| match entry.content {
        Content::Fact(fact) => Told::Fact {
            seq: entry.seq,
            at: Time(fact.at),
            message: ids.uuid(fact.message),
            device: names.get(&fact.device).cloned().unwrap_or_default(),
            stage: fact.stage.name(),
            reason: reason(fact.reason),
        },
        Content::Event(event) => Told::Event {
            seq: entry.seq,
            at: Time(event.at),
            message: (event.message != 0).then(|| ids.uuid(event.message)),
            event: Happened::name_of(event.kind).unwrap_or("unknown"),
            actor: event.actor.into(),
            detail: detail(&event.detail),
        },
    });
    Ok(told.collect())
}

fn reason(code: u8) -> Option<&'static str> {
    match code {
        0 => None,
        AT_MOST_ONCE => Some("at_most_once"),
        _ => Some(Reason::from_code(code).map_or("unknown", Reason::name)),
    }
}

fn detail(json: &[u8]) -> Box<RawValue> {
    serde_json::from_slice(json).unwrap_or_else(|_| {
        RawValue::from_string("{}".to_owned()).expect("an empty object is JSON")
    })
}

pub(super) async fn query(
    State(platform): Shared,
    asker: Asker,
    Path(app): Path<String>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<Answer>, Problem> {
    let question = question(&platform, &asker, &app, &read(asked)?).await?;
    let Page { entries, after, unreadable, .. } = ask(&platform, question).await?;
    let entries = tell(&platform, entries).await?;
    let next = after.map(|after| after.to_string());
    Ok(Json(Answer { entries, next, incomplete: !unreadable.is_empty() }))
}

pub(super) async fn export(
    State(platform): Shared,
    asker: Asker,
    Path(app): Path<String>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Response, Problem> {
    let mut question = question(&platform, &asker, &app, &read(asked)?).await?;
    question.limit = EXPORT_AT_ONCE;
    let (sink, pieces) = mpsc::channel(PIECES_MAX);
    tokio::spawn(async move {
        loop {
            let Ok(page) = ask(&platform, question.clone()).await else { return };
            let Ok(entries) = tell(&platform, page.entries).await else { return };
            let mut piece = Vec::new();
            for entry in entries {
                serde_json::to_writer(&mut piece, &entry).expect("plain data is JSON");
                piece.push(b'\n');
            }
            if !piece.is_empty() && sink.send(Bytes::from(piece)).await.is_err() {
                return;
            }
            match page.after {
                Some(after) => question.after = Some(after),
                None => return,
            }
        }
    });
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"))];
    Ok((kind, Body::from_stream(Chunks(pieces))).into_response())
}
