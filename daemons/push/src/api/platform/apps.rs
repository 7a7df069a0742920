//! Apps, their credentials, and the platform as a whole.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sextant_platform::Refusal;
use sextant_platform::engine::{AppView, AuditView, Credential, Engine, Status};
use sextant_platform::model::Role;
use sextant_platform::time::Time;
use sextant_policy::Policy;
use sextant_service::admin::Problem;

use super::{Asker, Need, Shared, problem, read_json};

#[derive(Serialize)]
pub(super) struct Apps {
    apps: Vec<AppView>,
}

pub(super) async fn list(State(platform): Shared, asker: Asker) -> Result<Json<Apps>, Problem> {
    let apps = platform.handle.ask(|engine, _| engine.apps()).await.map_err(problem)?;
    let apps = match asker {
        Asker::Admin => apps,
        Asker::Key(credential) => {
            apps.into_iter().skip(usize::from(credential.app)).take(1).collect()
        }
    };
    Ok(Json(Apps { apps }))
}

fn app_of(engine: &Engine, app: u16) -> Result<AppView, Refusal> {
    engine.apps().into_iter().nth(usize::from(app)).ok_or(Refusal::Unknown("such app"))
}

pub(super) async fn show(
    State(platform): Shared,
    asker: Asker,
    Path(app): Path<String>,
) -> Result<Json<AppView>, Problem> {
    platform.read(&asker, app, |engine, app, _| app_of(engine, app)).await.map(Json)
}

pub(super) async fn make(
    State(platform): Shared,
    asker: Asker,
    Path(app): Path<String>,
) -> Result<Response, Problem> {
    asker.check_admin()?;
    let made = platform.handle.change(move |engine, now| {
        let (number, is_new) = engine.make_app(&app, "admin", now)?;
        Ok((app_of(engine, number)?, is_new))
    });
    let (view, is_new) = made.await.map_err(problem)?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(view)).into_response())
}

#[derive(Serialize)]
struct KeyView {
    name: String,
    role: Role,
    created_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

impl KeyView {
    fn of(credential: &Credential, key: Option<String>) -> KeyView {
        let Credential { name, role, created_ms, .. } = credential.clone();
        KeyView { name, role, created_at: Time(created_ms), key }
    }
}

#[derive(Serialize)]
pub(super) struct Keys {
    keys: Vec<KeyView>,
}

pub(super) async fn keys(
    State(platform): Shared,
    asker: Asker,
    Path(app): Path<String>,
) -> Result<Json<Keys>, Problem> {
    asker.check_admin()?;
    let keys = platform.read(&asker, app, |engine, app, _| {
        Ok(engine.credentials(app).map(|credential| KeyView::of(credential, None)).collect())
    });
    Ok(Json(Keys { keys: keys.await? }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKey {
    name: String,
    role: Role,
}

pub(super) async fn make_key(
    State(platform): Shared,
    asker: Asker,
    Path(app): Path<String>,
    body: Bytes,
) -> Result<Response, Problem> {
    let NewKey { name, role } = read_json(&body)?;
    let made = platform.write(&asker, app, Need::Admin, move |engine, app, now| {
        engine.make_key(app, &name, role, "admin", now)
    });
    let (credential, key) = made.await?;
    tracing::info!(name = credential.name, "made a key of an app");
    let unstored = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    let view = Json(KeyView::of(&credential, Some(key)));
    Ok((StatusCode::CREATED, unstored, view).into_response())
}

pub(super) async fn remove_key(
    State(platform): Shared,
    asker: Asker,
    Path((app, name)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let removed = platform.write(&asker, app, Need::Admin, move |engine, app, now| {
        engine.remove_key(app, &name, "admin", now)
    });
    removed.await.map(|()| StatusCode::NO_CONTENT)
}

pub(super) async fn status(State(platform): Shared, asker: Asker) -> Result<Json<Status>, Problem> {
    asker.check_admin()?;
    platform.handle.ask(|engine, _| engine.status()).await.map(Json).map_err(problem)
}

pub(super) async fn audit_head(
    State(platform): Shared,
    asker: Asker,
) -> Result<Json<AuditView>, Problem> {
    asker.check_admin()?;
    platform.handle.ask(|engine, _| engine.audit_head()).await.map(Json).map_err(problem)
}

pub(super) async fn policy(
    State(platform): Shared,
    _asker: Asker,
) -> Result<Json<Policy>, Problem> {
    let policy = platform.handle.ask(|engine, _| engine.rules().policy().clone());
    policy.await.map(Json).map_err(problem)
}
