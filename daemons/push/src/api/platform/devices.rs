//! Devices over HTTP.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};
use sextant_devices::{Device, Edit, Number, Update, Value, What};
use sextant_platform::Refusal;
use sextant_platform::engine::{DeviceView, Engine, Imported};
use sextant_platform::strict::Object;
use sextant_platform::time::Time;
use sextant_service::admin::Problem;
use sextant_service::config::Span;

use super::lines::{Line, Lines};
use super::{Asker, Need, Shared, read_after, read_json, read_limit};
use crate::api::query::read;
use crate::api::{TOKEN_TTL_DEFAULT, TOKEN_TTL_MAX, millis, unprocessable};

/// Lines of an import that are registered, and made durable, together.
const IMPORT_AT_ONCE: usize = 500;
/// Lines of an import whose errors are told.
const ERRORS_MAX: usize = 100;

#[derive(Deserialize)]
#[serde(untagged)]
enum Attribute {
    Text(String),
    Number(f64),
}

impl Attribute {
    fn into_value(self) -> Result<Value, Refusal> {
        match self {
            Attribute::Text(text) => Ok(Value::Text(text)),
            Attribute::Number(number) => Number::new(number)
                .map(Value::Number)
                .ok_or_else(|| Refusal::invalid("attributes", "a number is finite")),
        }
    }
}

/// A device as it is registered.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceBody {
    #[serde(default)]
    device: Option<String>,
    platform: String,
    #[serde(default)]
    app_version: Option<String>,
    #[serde(default)]
    alias: Option<String>,
    #[serde(default)]
    tags: BTreeSet<String>,
    #[serde(default)]
    attributes: BTreeMap<String, Attribute>,
    #[serde(default)]
    time_zone: Option<String>,
    #[serde(default)]
    language: Option<String>,
    #[serde(default)]
    test: bool,
}

impl DeviceBody {
    fn into_device(self, app: &str, id: &str) -> Result<Device, Refusal> {
        let attributes = self.attributes.into_iter();
        let attributes = attributes.map(|(key, value)| Ok((key, value.into_value()?)));
        Ok(Device {
            id: id.to_owned(),
            app: app.to_owned(),
            platform: self.platform,
            app_version: self.app_version,
            alias: self.alias,
            tags: self.tags,
            attributes: attributes.collect::<Result<_, Refusal>>()?,
            time_zone: self.time_zone,
            language: self.language,
            test: self.test,
        })
    }
}

pub(super) async fn put(
    State(platform): Shared,
    asker: Asker,
    Path((app, id)): Path<(String, String)>,
    body: Bytes,
) -> Result<Response, Problem> {
    let body: DeviceBody = read_json(&body)?;
    if body.device.as_ref().is_some_and(|device| *device != id) {
        return Err(unprocessable("`device`: is that of the path, or left out"));
    }
    let put = platform.write(&asker, app.clone(), Need::Send, move |engine, number, now| {
        let device = body.into_device(&app, &id)?;
        let what = engine.register(&device, now)?;
        Ok((what, engine.device(number, &id)?))
    });
    let (what, view) = put.await?;
    let status = if what == What::Registered { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(view)).into_response())
}

/// A field that may be left out, be null, or have a value.
#[allow(clippy::option_option, reason = "left out and null are two things")]
fn edit<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(from).map(Some)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(clippy::option_option, reason = "left out and null are two things")]
struct UpdateBody {
    #[serde(default)]
    platform: Option<String>,
    #[serde(default, deserialize_with = "edit")]
    app_version: Option<Option<String>>,
    #[serde(default, deserialize_with = "edit")]
    alias: Option<Option<String>>,
    #[serde(default, deserialize_with = "edit")]
    time_zone: Option<Option<String>>,
    #[serde(default, deserialize_with = "edit")]
    language: Option<Option<String>>,
    #[serde(default)]
    test: Option<bool>,
    #[serde(default)]
    set_tags: Vec<String>,
    #[serde(default)]
    remove_tags: Vec<String>,
    #[serde(default)]
    set_attributes: BTreeMap<String, Attribute>,
    #[serde(default)]
    remove_attributes: Vec<String>,
}

#[allow(clippy::option_option, reason = "left out and null are two things")]
fn to_edit(field: Option<Option<String>>) -> Edit {
    match field {
        None => Edit::Keep,
        Some(None) => Edit::Clear,
        Some(Some(value)) => Edit::Set(value),
    }
}

impl UpdateBody {
    fn into_update(self) -> Result<Update, Refusal> {
        let attributes = self.set_attributes.into_iter();
        let attributes = attributes.map(|(key, value)| Ok((key, value.into_value()?)));
        Ok(Update {
            platform: self.platform,
            app_version: to_edit(self.app_version),
            alias: to_edit(self.alias),
            time_zone: to_edit(self.time_zone),
            language: to_edit(self.language),
            test: self.test,
            remove_tags: self.remove_tags,
            set_tags: self.set_tags,
            remove_attributes: self.remove_attributes,
            set_attributes: attributes.collect::<Result<_, Refusal>>()?,
        })
    }
}

pub(super) async fn patch(
    State(platform): Shared,
    asker: Asker,
    Path((app, id)): Path<(String, String)>,
    body: Bytes,
) -> Result<Json<DeviceView>, Problem> {
    let body: UpdateBody = read_json(&body)?;
    let patched = platform.write(&asker, app, Need::Send, move |engine, app, now| {
        engine.update(app, &id, &body.into_update()?, now)?;
        engine.device(app, &id)
    });
    patched.await.map(Json)
}

pub(super) async fn show(
    State(platform): Shared,
    asker: Asker,
    Path((app, id)): Path<(String, String)>,
) -> Result<Json<DeviceView>, Problem> {
    platform.read(&asker, app, move |engine, app, _| engine.device(app, &id)).await.map(Json)
}

pub(super) async fn remove(
    State(platform): Shared,
    asker: Asker,
    Path((app, id)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let by = asker.name().to_owned();
    let removed = platform
        .write(&asker, app, Need::Send, move |engine, app, now| engine.remove(app, &id, &by, now));
    removed.await.map(|()| StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Find {
    expression: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Found {
    devices: Vec<DeviceView>,
    total: u64,
    next: Option<String>,
}

pub(super) async fn list(
    State(platform): Shared,
    asker: Asker,
    Path(app): Path<String>,
    asked: Result<Query<Find>, QueryRejection>,
) -> Result<Json<Found>, Problem> {
    let Find { expression, limit, after } = read(asked)?;
    let (limit, after) = (read_limit(limit)?, read_after(after.as_deref())?);
    let found = platform.read(&asker, app, move |engine, app, _| {
        let expression = expression.as_deref().filter(|text| !text.trim().is_empty());
        engine.find_devices(app, expression, after, limit)
    });
    let (total, page) = found.await?;
    let is_full = page.len() == limit;
    let next = page.last().filter(|_| is_full).map(|(number, _)| number.to_string());
    let devices = page.into_iter().map(|(_, device)| device).collect();
    Ok(Json(Found { devices, total, next }))
}

#[derive(Default, Serialize)]
pub(super) struct ImportSummary {
    registered: u64,
    updated: u64,
    unchanged: u64,
    refused: u64,
    errors: Vec<LineError>,
}

#[derive(Serialize)]
struct LineError {
    line: u64,
    detail: String,
}

impl ImportSummary {
    fn refuse(&mut self, line: u64, detail: String) {
        self.refused += 1;
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(LineError { line, detail });
        }
    }
}

fn import_line(
    engine: &mut Engine,
    app: &str,
    text: &[u8],
    now: u64,
    imported: &mut Imported,
) -> Result<(), String> {
    let Object(mut body): Object<DeviceBody> =
        serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let id = body.device.take().ok_or("it has no `device`")?;
    let device = body.into_device(app, &id).map_err(|error| error.to_string())?;
    match engine.register(&device, now).map_err(|error| error.to_string())? {
        What::Registered => imported.registered += 1,
        What::Unchanged => imported.unchanged += 1,
        _ => imported.updated += 1,
    }
    Ok(())
}

pub(super) async fn import(
    State(platform): Shared,
    asker: Asker,
    Path(app): Path<String>,
    body: Body,
) -> Result<Json<ImportSummary>, Problem> {
    platform.may(&asker, &app, Need::Send).await?;
    let mut summary = ImportSummary::default();
    let mut lines = Lines::new(body);
    loop {
        let some: Vec<Line> = lines.next(IMPORT_AT_ONCE).await?;
        if some.is_empty() {
            return Ok(Json(summary));
        }
        let name = app.clone();
        let done = platform.write(&asker, app.clone(), Need::Send, move |engine, _, now| {
            let (mut imported, mut refused) = (Imported::default(), Vec::new());
            for Line { number, text } in some {
                if let Err(detail) = import_line(engine, &name, &text, now, &mut imported) {
                    refused.push((number, detail));
                }
            }
            Ok((imported, refused))
        });
        let (imported, refused) = done.await?;
        summary.registered += imported.registered;
        summary.updated += imported.updated;
        summary.unchanged += imported.unchanged;
        refused.into_iter().for_each(|(line, detail)| summary.refuse(line, detail));
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenBody {
    #[serde(default)]
    ttl: Option<Span>,
}

#[derive(Serialize)]
struct TokenView {
    device: String,
    token: String,
    expires_at: Time,
}

pub(super) async fn issue_token(
    State(platform): Shared,
    asker: Asker,
    Path((app, id)): Path<(String, String)>,
    body: Bytes,
) -> Result<Response, Problem> {
    let TokenBody { ttl } = match body.is_empty() {
        true => TokenBody::default(),
        false => read_json(&body)?,
    };
    let ttl = ttl.map_or(TOKEN_TTL_DEFAULT, Span::get);
    if !(Duration::from_secs(1)..=TOKEN_TTL_MAX).contains(&ttl) {
        return Err(unprocessable("`ttl`: must be 1s to 3650d"));
    }
    let device = id.clone();
    let generation = platform.write(&asker, app, Need::Send, move |engine, app, _| {
        engine.device_of(app, &device)?;
        Ok(engine.generations().least(&device))
    });
    let generation = generation.await?;
    let expires_at = (platform.clock)().saturating_add(millis(ttl)).div_ceil(1000);
    let token = platform
        .token_key
        .issue_at(&id, expires_at, generation)
        .map_err(|error| unprocessable(format!("`device`: {error}")))?;
    tracing::info!(device = id, expires_at, "issued a device token");
    let unstored = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    let expires_at = Time(expires_at.saturating_mul(1000));
    Ok((unstored, Json(TokenView { device: id, token, expires_at })).into_response())
}

pub(super) async fn revoke_tokens(
    State(platform): Shared,
    asker: Asker,
    Path((app, id)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let by = asker.name().to_owned();
    let revoked = platform.write(&asker, app, Need::Send, move |engine, app, now| {
        engine.revoke_tokens(app, &id, &by, now)
    });
    revoked.await.map(|()| StatusCode::NO_CONTENT)
}
