//! Messages over HTTP: one, a batch, or a stream of them.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sextant_platform::Refusal;
use sextant_platform::engine::{DryRun, Engine, Funnel, FunnelBy, MessageView, Submitted};
use sextant_platform::model::{Request, State as Stage, Target};
use sextant_platform::strict::Object;
use sextant_service::admin::Problem;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::lines::Lines;
use super::live::Chunks;
use super::{Asker, Need, Shared, at, problem, read_after, read_id, read_json, read_limit};
use crate::api::query::read;
use crate::api::unprocessable;

/// Messages of a batch.
const BATCH_MAX: usize = 1000;
/// Messages of a stream that are made durable together.
const STREAM_AT_ONCE: usize = 256;
/// Answers of a stream that wait for whoever reads them.
const ANSWERS_MAX: usize = 16;

const KEY: &str = "idempotency-key";

/// What became of a request.
enum Answer {
    New(Box<MessageView>),
    Known(Box<MessageView>),
    Dry(DryRun),
}

fn submit_to(
    engine: &mut Engine,
    app: u16,
    sender: &str,
    request: Request,
    now: u64,
) -> Result<Answer, Refusal> {
    let view = |engine: &Engine, number: u64| match engine.brief(number) {
        Ok(view) => Ok(Box::new(view)),
        // It was over long ago.
        Err(_) => engine.message(app, engine.ids().uuid(number)).map(Box::new),
    };
    Ok(match engine.submit(app, sender, request, now)? {
        Submitted::New(number) => Answer::New(view(engine, number)?),
        Submitted::Known(number) => Answer::Known(view(engine, number)?),
        Submitted::Dry(run) => Answer::Dry(run),
    })
}

pub(super) async fn submit(
    State(platform): Shared,
    asker: Asker,
    Path(app): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let mut request: Request = read_json(&body)?;
    if let Some(key) = headers.get(KEY) {
        let key = key.to_str().map_err(|_| {
            Problem::bad_request("`Idempotency-Key`: is at most 128 visible characters of ASCII")
        })?;
        if request.idempotency_key.as_ref().is_some_and(|own| own != key) {
            return Err(unprocessable("`idempotency_key`: is that of the header, or left out"));
        }
        request.idempotency_key = Some(key.to_owned());
    }
    let sender = asker.name().to_owned();
    let submitted = platform.write(&asker, app.clone(), Need::Send, move |engine, app, now| {
        submit_to(engine, app, &sender, request, now)
    });
    Ok(match submitted.await? {
        Answer::New(view) => {
            at(StatusCode::ACCEPTED, format!("/v1/apps/{app}/messages/{}", view.id), view)
        }
        Answer::Known(view) => {
            let replayed = [("idempotency-replayed", HeaderValue::from_static("true"))];
            (replayed, Json(view)).into_response()
        }
        Answer::Dry(run) => Json(run).into_response(),
    })
}

/// What became of one message of several.
#[derive(Serialize)]
struct Outcome {
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Box<MessageView>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dry_run: Option<DryRun>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Problem>,
}

impl Outcome {
    fn of(answer: Result<Answer, Problem>) -> Outcome {
        let none = Outcome { status: 200, message: None, dry_run: None, problem: None };
        match answer {
            Ok(Answer::New(view)) => Outcome { status: 202, message: Some(view), ..none },
            Ok(Answer::Known(view)) => Outcome { message: Some(view), ..none },
            Ok(Answer::Dry(run)) => Outcome { dry_run: Some(run), ..none },
            Err(problem) => Outcome { status: problem.status, problem: Some(problem), ..none },
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchBody {
    messages: Vec<Box<RawValue>>,
}

#[derive(Serialize)]
pub(super) struct Batch {
    results: Vec<Outcome>,
}

/// Takes several messages in; each is taken or refused by itself.
async fn submit_all(
    platform: &super::Platform,
    asker: &Asker,
    app: String,
    requests: Vec<Result<Request, Problem>>,
) -> Result<Vec<Outcome>, Problem> {
    let sender = asker.name().to_owned();
    let submitted = platform.write(asker, app, Need::Send, move |engine, app, now| {
        let outcome = |request: Result<Request, Problem>| {
            let answer = request
                .and_then(|request| submit_to(engine, app, &sender, request, now).map_err(problem));
            Outcome::of(answer)
        };
        Ok(requests.into_iter().map(outcome).collect())
    });
    submitted.await
}

pub(super) async fn batch(
    State(platform): Shared,
    asker: Asker,
    Path(app): Path<String>,
    body: Bytes,
) -> Result<Json<Batch>, Problem> {
    let BatchBody { messages } = read_json(&body)?;
    if !(1..=BATCH_MAX).contains(&messages.len()) {
        return Err(unprocessable(format!("`messages`: 1 to {BATCH_MAX}")));
    }
    let requests = messages.into_iter().map(|message| {
        let read = serde_json::from_str(message.get()).map(|Object(request)| request);
        read.map_err(|error| unprocessable(error.to_string()))
    });
    let results = submit_all(&platform, &asker, app, requests.collect()).await?;
    Ok(Json(Batch { results }))
}

/// Takes messages in as they come, and tells what became of each once it is durable.
pub(super) async fn stream(
    State(platform): Shared,
    asker: Asker,
    Path(app): Path<String>,
    body: Body,
) -> Result<Response, Problem> {
    platform.may(&asker, &app, Need::Send).await?;
    let (sink, answers) = mpsc::channel(ANSWERS_MAX);
    tokio::spawn(async move {
        let mut lines = Lines::new(body);
        loop {
            let outcomes = match lines.next(STREAM_AT_ONCE).await {
                Ok(some) if some.is_empty() => return,
                Ok(some) => {
                    let requests = some.iter().map(|line| {
                        let read =
                            serde_json::from_slice(&line.text).map(|Object(request)| request);
                        read.map_err(|error| {
                            unprocessable(format!("line {}: {error}", line.number))
                        })
                    });
                    submit_all(&platform, &asker, app.clone(), requests.collect()).await
                }
                Err(problem) => Err(problem),
            };
            let (outcomes, ends) = match outcomes {
                Ok(outcomes) => (outcomes, false),
                Err(problem) => (vec![Outcome::of(Err(problem))], true),
            };
            let mut chunk = Vec::new();
            for outcome in outcomes {
                serde_json::to_writer(&mut chunk, &outcome).expect("plain data is JSON");
                chunk.push(b'\n');
            }
            if sink.send(Bytes::from(chunk)).await.is_err() || ends {
                return;
            }
        }
    });
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"))];
    Ok((kind, Body::from_stream(Chunks(answers))).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Find {
    state: Option<Stage>,
    limit: Option<usize>,
    after: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Found {
    messages: Vec<MessageView>,
    next: Option<Uuid>,
}

pub(super) async fn list(
    State(platform): Shared,
    asker: Asker,
    Path(app): Path<String>,
    asked: Result<Query<Find>, QueryRejection>,
) -> Result<Json<Found>, Problem> {
    let Find { state, limit, after } = read(asked)?;
    let (limit, after) = (read_limit(limit)?, read_after::<Uuid>(after.as_deref())?);
    let ids = platform.handle.ids();
    let before = after.map(|id| ids.number(id)).map(|number| {
        number.ok_or_else(|| Problem::bad_request("`after`: is what `next` of a page told"))
    });
    let before = before.transpose()?;
    let found = platform.read(&asker, app, move |engine, app, _| {
        Ok(engine.find_messages(app, state, before, limit))
    });
    let found = found.await?;
    let is_full = found.len() == limit;
    let next = found.last().filter(|_| is_full).map(|(_, message)| message.id);
    Ok(Json(Found { messages: found.into_iter().map(|(_, message)| message).collect(), next }))
}

pub(super) async fn show(
    State(platform): Shared,
    asker: Asker,
    Path((app, id)): Path<(String, String)>,
) -> Result<Json<MessageView>, Problem> {
    let id = read_id(&id)?;
    platform.read(&asker, app, move |engine, app, _| engine.message(app, id)).await.map(Json)
}

#[derive(Serialize)]
pub(super) struct Recalled {
    id: Uuid,
    withdrawn: u64,
    recall_message: Option<Uuid>,
}

pub(super) async fn recall(
    State(platform): Shared,
    asker: Asker,
    Path((app, id)): Path<(String, String)>,
) -> Result<Json<Recalled>, Problem> {
    let id = read_id(&id)?;
    let by = asker.name().to_owned();
    let recalled = platform.write(&asker, app, Need::Send, move |engine, app, now| {
        let number = engine.message_of(app, id)?;
        let (withdrawn, recall) = engine.recall(app, number, &by, now)?;
        let recall_message = recall.map(|number| engine.ids().uuid(number));
        Ok(Recalled { id, withdrawn, recall_message })
    });
    recalled.await.map(Json)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct By {
    by: Option<FunnelBy>,
}

pub(super) async fn funnel(
    State(platform): Shared,
    asker: Asker,
    Path((app, id)): Path<(String, String)>,
    asked: Result<Query<By>, QueryRejection>,
) -> Result<Json<Funnel>, Problem> {
    let (id, By { by }) = (read_id(&id)?, read(asked)?);
    platform.read(&asker, app, move |engine, app, _| engine.funnel(app, id, by)).await.map(Json)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CountBody {
    target: Target,
    #[serde(default)]
    test: bool,
}

#[derive(Serialize)]
pub(super) struct Count {
    devices: u64,
    online: u64,
    unknown: u64,
}

pub(super) async fn count(
    State(platform): Shared,
    asker: Asker,
    Path(app): Path<String>,
    body: Bytes,
) -> Result<Json<Count>, Problem> {
    let CountBody { target, test } = read_json(&body)?;
    let counted = platform.read(&asker, app, move |engine, app, _| {
        let request = Request { target, test, ..Request::default() };
        let found = engine.resolve(app, &request)?;
        let online = engine.online_among(&found.devices);
        Ok(Count { devices: found.devices.len(), online, unknown: found.unknown })
    });
    counted.await.map(Json)
}
