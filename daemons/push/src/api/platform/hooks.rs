//! Webhooks of apps, and what they could not be told. Whoever sets one has the daemon speak to any
//! host that it reaches, so only the admin token does.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sextant_platform::engine::{DeadLetter, Hook, HookEvent};
use sextant_platform::time::Time;
use sextant_service::admin::Problem;

use super::{Asker, Need, Shared, read_after, read_json, read_limit};
use crate::api::query::read;
use crate::api::unprocessable;
use crate::config::Url;
use crate::hooks;

#[derive(Serialize)]
pub(super) struct HookView {
    url: String,
    events: Vec<HookEvent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

impl HookView {
    fn of(hook: Hook, with_secret: bool) -> HookView {
        let Hook { url, events, secret, .. } = hook;
        HookView { url, events, secret: with_secret.then_some(secret) }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HookBody {
    url: String,
    events: Vec<HookEvent>,
    #[serde(default)]
    secret: Option<String>,
}

pub(super) async fn set(
    State(platform): Shared,
    asker: Asker,
    Path(app): Path<String>,
    body: Bytes,
) -> Result<Response, Problem> {
    let HookBody { url, events, secret } = read_json(&body)?;
    if let Some(why) = Url::new(url.clone()).why_not() {
        return Err(unprocessable(format!("`url`: {why}")));
    }
    let set = platform.write(&asker, app, Need::Admin, move |engine, app, now| {
        engine.set_hook(app, &url, &events, secret.as_deref(), "admin", now)
    });
    let unstored = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((unstored, Json(HookView::of(set.await?, true))).into_response())
}

pub(super) async fn show(
    State(platform): Shared,
    asker: Asker,
    Path(app): Path<String>,
) -> Result<Json<HookView>, Problem> {
    let hook = platform.read(&asker, app, |engine, app, _| engine.hook(app).cloned());
    Ok(Json(HookView::of(hook.await?, false)))
}

pub(super) async fn remove(
    State(platform): Shared,
    asker: Asker,
    Path(app): Path<String>,
) -> Result<StatusCode, Problem> {
    let removed = platform
        .write(&asker, app, Need::Admin, |engine, app, now| engine.remove_hook(app, "admin", now));
    removed.await.map(|()| StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Find {
    limit: Option<usize>,
    after: Option<String>,
}

#[derive(Serialize)]
struct LetterView {
    id: String,
    at: Time,
    attempts: u32,
    error: String,
}

#[derive(Serialize)]
pub(super) struct Letters {
    dead_letters: Vec<LetterView>,
    next: Option<String>,
}

pub(super) async fn letters(
    State(platform): Shared,
    asker: Asker,
    Path(app): Path<String>,
    asked: Result<Query<Find>, QueryRejection>,
) -> Result<Json<Letters>, Problem> {
    let Find { limit, after } = read(asked)?;
    let (limit, after) = (read_limit(limit)?, read_after(after.as_deref())?);
    let found = platform
        .read(&asker, app, move |engine, app, _| Ok(engine.dead_letters(app, after, limit)));
    let found = found.await?;
    let is_full = found.len() == limit;
    let next = found.last().filter(|_| is_full).map(|letter| letter.id.to_string());
    let view = |letter: DeadLetter| LetterView {
        id: letter.id.to_string(),
        at: Time(letter.at_ms),
        attempts: letter.attempts,
        error: letter.error,
    };
    Ok(Json(Letters { dead_letters: found.into_iter().map(view).collect(), next }))
}

/// The number of a dead letter, as its page told it.
fn read_number(text: &str) -> Result<u64, Problem> {
    text.parse().map_err(|_| Problem::not_found("there is no such dead letter"))
}

/// What a dead letter says: what the receiver would have got.
pub(super) async fn letter(
    State(platform): Shared,
    asker: Asker,
    Path((app, id)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let id = read_number(&id)?;
    let found = platform.read(&asker, app, move |engine, app, _| {
        Ok((engine.hook(app)?.clone(), engine.dead_letter(app, id)?))
    });
    let (hook, letter) = found.await?;
    let content = hooks::content(&platform.handle, &hook, &letter).await;
    let content =
        content.ok_or_else(|| Problem::not_found("the audit does not have it any more"))?;
    let json = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    Ok((json, content).into_response())
}

/// Tells a dead letter once more, and forgets it if the receiver takes it.
pub(super) async fn retry(
    State(platform): Shared,
    asker: Asker,
    Path((app, id)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let id = read_number(&id)?;
    platform.may(&asker, &app, Need::Send).await?;
    let found = platform.read(&asker, app.clone(), move |engine, app, _| {
        Ok((engine.hook(app)?.clone(), engine.dead_letter(app, id)?))
    });
    let (hook, letter) = found.await?;
    hooks::tell_again(&platform.handle, hook, &letter).await.map_err(|why| {
        Problem::new(StatusCode::BAD_GATEWAY, format!("the receiver does not take it: {why}"))
    })?;
    drop_it(&platform, &asker, app, id).await
}

pub(super) async fn drop_letter(
    State(platform): Shared,
    asker: Asker,
    Path((app, id)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let id = read_number(&id)?;
    drop_it(&platform, &asker, app, id).await
}

async fn drop_it(
    platform: &super::Platform,
    asker: &Asker,
    app: String,
    id: u64,
) -> Result<StatusCode, Problem> {
    let dropped = platform.write(asker, app, Need::Send, move |engine, app, now| {
        engine.drop_dead_letter(app, id, now)
    });
    dropped.await.map(|()| StatusCode::NO_CONTENT)
}
