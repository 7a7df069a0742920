//! The HTTP API of the platform: apps and their credentials, devices, lists, messages, reviews and
//! the audit. `openapi.json` describes every route, and is served at `/v1/openapi.json`.
//!
//! ```text
//!   Authorization ──► Asker ──► Scope: may they, in this app? ──► engine, on its thread
//!     admin token, a key of the app, or a device's token
//! ```
//!
//! A credential works in its own app alone, and what it may do its role says. That is looked at on
//! the platform's thread, together with what is asked: nothing changes between the two.

mod apps;
mod audit;
mod devices;
mod hooks;
mod lines;
mod lists;
mod live;
mod messages;
mod own;
mod reviews;

use std::sync::Arc;

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::de::DeserializeOwned;
use sextant_devices::Refused;
use sextant_platform::Refusal;
use sextant_platform::engine::{Credential, Engine};
use sextant_platform::ledger::Handle;
use sextant_platform::model::Role;
use sextant_platform::strict::Object;
use sextant_ring::time::Clock;
use sextant_service::admin::{AdminToken, Problem};
use uuid::Uuid;

use crate::auth::token::TokenKey;

/// Paths whose bodies may be of any length, by how they end: they are read as they come.
pub const STREAMS: &[&str] = &["/lists", "/devices/import", "/messages/stream"];

/// The description of all routes.
const OPENAPI: &str = include_str!("../../../openapi.json");

/// Entries of a page that does not say.
const LIMIT_DEFAULT: usize = 100;
/// Entries of a page.
const LIMIT_MAX: usize = 1000;

/// What the routes need.
pub struct Platform {
    /// The way to the platform.
    pub handle: Handle,
    /// Who may do anything.
    pub token: Arc<AdminToken>,
    /// Issues devices' tokens, and checks them.
    pub token_key: TokenKey,
    /// The time, in milliseconds since 1970.
    pub clock: fn() -> u64,
}

type Shared = State<Arc<Platform>>;

/// The routes. Each looks itself at who asks.
pub fn router(platform: Platform) -> Router {
    Router::new()
        .route("/v1/openapi.json", get(openapi))
        .route("/v1/platform", get(apps::status))
        .route("/v1/audit/head", get(apps::audit_head))
        .route("/v1/policy", get(apps::policy))
        .route("/v1/apps", get(apps::list))
        .route("/v1/apps/{app}", get(apps::show).put(apps::make))
        .route("/v1/apps/{app}/keys", get(apps::keys).post(apps::make_key))
        .route("/v1/apps/{app}/keys/{name}", axum::routing::delete(apps::remove_key))
        .route("/v1/apps/{app}/devices", get(devices::list))
        .route("/v1/apps/{app}/devices/import", post(devices::import))
        .route(
            "/v1/apps/{app}/devices/{device}",
            put(devices::put).patch(devices::patch).get(devices::show).delete(devices::remove),
        )
        .route(
            "/v1/apps/{app}/devices/{device}/tokens",
            post(devices::issue_token).delete(devices::revoke_tokens),
        )
        .route("/v1/apps/{app}/targets/count", post(messages::count))
        .route("/v1/apps/{app}/lists", post(lists::upload))
        .route("/v1/apps/{app}/messages", get(messages::list).post(messages::submit))
        .route("/v1/apps/{app}/messages/batch", post(messages::batch))
        .route("/v1/apps/{app}/messages/stream", post(messages::stream))
        .route("/v1/apps/{app}/messages/{id}", get(messages::show))
        .route("/v1/apps/{app}/messages/{id}/recall", post(messages::recall))
        .route("/v1/apps/{app}/messages/{id}/funnel", get(messages::funnel))
        .route("/v1/apps/{app}/messages/{id}/live", get(live::live))
        .route("/v1/apps/{app}/reviews", get(reviews::list))
        .route("/v1/apps/{app}/reviews/{id}", post(reviews::judge))
        .route("/v1/apps/{app}/audit", get(audit::query))
        .route("/v1/apps/{app}/audit/export", get(audit::export))
        .route("/v1/apps/{app}/webhook", get(hooks::show).put(hooks::set).delete(hooks::remove))
        .route("/v1/apps/{app}/webhook/dead-letters", get(hooks::letters))
        .route(
            "/v1/apps/{app}/webhook/dead-letters/{id}",
            get(hooks::letter).delete(hooks::drop_letter),
        )
        .route("/v1/apps/{app}/webhook/dead-letters/{id}/retry", post(hooks::retry))
        .route("/v1/receipts", post(own::receipts))
        .route("/v1/topics", post(own::topics))
        .with_state(Arc::new(platform))
}

async fn openapi() -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], OPENAPI).into_response()
}

/// Who asks.
#[derive(Clone, Debug)]
enum Asker {
    Admin,
    Key(Credential),
}

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Read,
    Send,
    Review,
    Admin,
}

impl Asker {
    fn name(&self) -> &str {
        match self {
            Asker::Admin => "admin",
            Asker::Key(credential) => &credential.name,
        }
    }

    /// Whether they may, in an app of this number.
    fn check(&self, app: u16, need: Need) -> Result<(), Refusal> {
        let Asker::Key(credential) = self else { return Ok(()) };
        if credential.app != app {
            return Err(Refusal::Forbidden("this key is another app's".to_owned()));
        }
        let may = match need {
            Need::Read => true,
            Need::Send => credential.role == Role::Send,
            Need::Review => credential.role == Role::Review,
            Need::Admin => false,
        };
        let wanted = match need {
            Need::Admin => "only the admin token may do this",
            Need::Send => "a key may do this whose role is `send`",
            _ => "a key may do this whose role is `review`",
        };
        if may { Ok(()) } else { Err(Refusal::Forbidden(wanted.to_owned())) }
    }

    fn check_admin(&self) -> Result<(), Problem> {
        match self {
            Asker::Admin => Ok(()),
            Asker::Key(_) => {
                Err(problem(Refusal::Forbidden("only the admin token may do this".to_owned())))
            }
        }
    }
}

/// What follows `Bearer` in a request's `Authorization`.
fn bearer(parts: &Parts) -> Option<&str> {
    let value = parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case("bearer ").then(|| token.trim())
}

fn unauthorized(detail: &str) -> Response {
    let mut response = Problem::new(StatusCode::UNAUTHORIZED, detail).into_response();
    let challenge = HeaderValue::from_static("Bearer realm=\"sextant\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

impl FromRequestParts<Arc<Platform>> for Asker {
    type Rejection = Response;

    async fn from_request_parts(
        parts: &mut Parts,
        platform: &Arc<Platform>,
    ) -> Result<Asker, Response> {
        let Some(token) = bearer(parts) else {
            return Err(unauthorized(
                "this path wants the header `Authorization: Bearer TOKEN`: a key of the app, or the \
                 admin token in DATA/admin.token",
            ));
        };
        if platform.token.matches(token.as_bytes()) {
            return Ok(Asker::Admin);
        }
        match platform.handle.keys().find(token) {
            Some(credential) => Ok(Asker::Key(credential)),
            None => Err(unauthorized("this is neither a key of an app nor the admin token")),
        }
    }
}

impl Platform {
    /// Asks something of an app.
    async fn read<T: Send + 'static>(
        &self,
        asker: &Asker,
        app: String,
        question: impl FnOnce(&mut Engine, u16, u64) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Problem> {
        let asker = asker.clone();
        let asked = self.handle.ask(move |engine, now| {
            let app = engine.app(&app)?;
            asker.check(app, Need::Read)?;
            question(engine, app, now)
        });
        asked.await.and_then(|answer| answer).map_err(problem)
    }

    /// Changes something of an app; answered once it is durable.
    async fn write<T: Send + 'static>(
        &self,
        asker: &Asker,
        app: String,
        need: Need,
        change: impl FnOnce(&mut Engine, u16, u64) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Problem> {
        let asker = asker.clone();
        let changed = self.handle.change(move |engine, now| {
            let app = engine.app(&app)?;
            asker.check(app, need)?;
            change(engine, app, now)
        });
        changed.await.map_err(problem)
    }

    /// Whether somebody may do something in an app, before a body is read.
    async fn may(&self, asker: &Asker, app: &str, need: Need) -> Result<u16, Problem> {
        let (asker, app) = (asker.clone(), app.to_owned());
        let asked = self.handle.ask(move |engine, _| {
            let app = engine.app(&app)?;
            asker.check(app, need)?;
            Ok(app)
        });
        asked.await.and_then(|answer| answer).map_err(problem)
    }
}

/// A refusal as HTTP tells it.
fn problem(refusal: Refusal) -> Problem {
    let detail = refusal.to_string();
    let status = match &refusal {
        Refusal::Unknown(_) => StatusCode::NOT_FOUND,
        Refusal::Conflict(_) => StatusCode::CONFLICT,
        Refusal::Forbidden(_) => StatusCode::FORBIDDEN,
        Refusal::Quota(_) => StatusCode::TOO_MANY_REQUESTS,
        Refusal::Full(_) => StatusCode::INSUFFICIENT_STORAGE,
        Refusal::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::Device(refused) => status_of(refused),
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    };
    let problem = Problem::new(status, detail);
    match refusal {
        Refusal::Content { rule, .. } => {
            let problem = problem.of_kind("content-rejected", "A content rule rejected it");
            match rule {
                Some(rule) => problem.with("rule", rule),
                None => problem,
            }
        }
        Refusal::Quota(quota) => problem
            .of_kind("sender-quota", "The sender has none left today")
            .retry_after(quota.resets_ms.saturating_sub(Clock::read().unix_ms).div_ceil(1000))
            .with("resets_at", sextant_platform::time::Time(quota.resets_ms).to_string())
            .with("limit", quota.limit)
            .with("left", quota.left),
        _ => problem,
    }
}

/// What the registry does not take: a name that is none, or one too many.
fn status_of(refused: &Refused) -> StatusCode {
    match refused {
        Refused::UnknownApp | Refused::UnknownDevice => StatusCode::NOT_FOUND,
        Refused::TagsFull { .. }
        | Refused::KeysFull { .. }
        | Refused::ValuesFull { .. }
        | Refused::AppsFull { .. }
        | Refused::DevicesFull { .. }
        | Refused::NumbersFull { .. }
        | Refused::RowsFull
        | Refused::GenerationsFull => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    }
}

/// Reads a JSON body strictly.
fn read_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let read = serde_json::from_slice(body).map(|Object(read)| read);
    read.map_err(|error| {
        let detail = format!("the body: {error}");
        match error.classify() {
            serde_json::error::Category::Data => {
                Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
            }
            _ => Problem::bad_request(detail),
        }
    })
}

/// The id of a message, as it was given out.
fn read_id(text: &str) -> Result<Uuid, Problem> {
    let id = Uuid::try_parse(text).ok().filter(|_| text.len() == 36);
    id.ok_or_else(|| Problem::bad_request("a message id is a UUID, as its answer told it"))
}

/// How many entries of a page are wanted.
fn read_limit(limit: Option<usize>) -> Result<usize, Problem> {
    match limit {
        None => Ok(LIMIT_DEFAULT),
        Some(limit @ 1..=LIMIT_MAX) => Ok(limit),
        Some(_) => Err(Problem::bad_request(format!("`limit`: is 1 to {LIMIT_MAX}"))),
    }
}

/// A number that a page's `next` told.
fn read_after<T: std::str::FromStr>(after: Option<&str>) -> Result<Option<T>, Problem> {
    let read = |text: &str| {
        text.parse().map_err(|_| Problem::bad_request("`after`: is what `next` of a page told"))
    };
    after.map(read).transpose()
}

/// An answer that says where the thing is that it is about.
fn at(status: StatusCode, place: String, body: impl serde::Serialize) -> Response {
    let place = HeaderValue::try_from(place).ok().map(|place| [(header::LOCATION, place)]);
    (status, place, Json(body)).into_response()
}
