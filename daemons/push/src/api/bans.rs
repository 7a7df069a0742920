//! Bans over HTTP. A ban that is answered is on disk, every core refuses by it, and whoever it is
//! of has been disconnected.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use bytes::Bytes;
use serde::Serialize;
use sextant_service::admin::Problem;
use tokio::task::{spawn, spawn_blocking};

use super::body::Fields;
use super::clients::ask;
use super::{Api, TTL_MIN, Time, millis, stopping, unprocessable};
use crate::bans::{Ban, BanError, Banned, Bans, Keeper, NAME_BYTES_MAX, WHY_BYTES_MAX};
use crate::control::Command;
use crate::control::clients::{Evicted, Kicked};
use crate::home::home;

/// How long a ban may be that has an end.
const BAN_MAX: Duration = Duration::from_secs(3650 * 86_400);

/// The bans in force, and where they are kept.
#[derive(Debug)]
pub struct Kept {
    keeper: Arc<Keeper>,
    bans: Arc<Bans>,
    /// Whether every core has them.
    told: bool,
}

impl Kept {
    /// What was found in the data directory, which the cores start with.
    pub fn new(keeper: Keeper, bans: Arc<Bans>) -> Kept {
        Kept { keeper: Arc::new(keeper), bans, told: true }
    }

    /// Puts other bans in force: on disk first, then on every core.
    async fn change(&mut self, api: &Api, bans: Bans) -> Result<(), Problem> {
        let (keeper, bans) = (Arc::clone(&self.keeper), Arc::new(bans));
        let written = Arc::clone(&bans);
        let written = spawn_blocking(move || keeper.keep(&written)).await;
        written.map_err(|_| stopping())?.map_err(|error| not_kept(&error))?;
        (self.bans, self.told) = (bans, false);
        self.tell(api).await
    }

    async fn tell(&mut self, api: &Api) -> Result<(), Problem> {
        for core in 0..api.cores.cores() {
            let bans = Arc::clone(&self.bans);
            ask(api, core, |reply| Command::Bans { bans, reply }).await.map_err(|_| {
                Problem::unavailable(format!("kept, but core {core} does not know: ask again"))
            })?;
        }
        self.told = true;
        Ok(())
    }
}

#[derive(Serialize)]
struct Told {
    kind: Banned,
    name: String,
    since: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Time>,
    why: String,
}

#[derive(Serialize)]
pub(super) struct All {
    bans: Vec<Told>,
}

#[derive(Serialize)]
pub(super) struct Made {
    #[serde(flatten)]
    ban: Told,
    disconnected: usize,
}

impl From<Ban> for Told {
    fn from(ban: Ban) -> Told {
        let Ban { kind, name, since, until, why } = ban;
        Told { kind, name, since: Time(since), until: until.map(Time), why }
    }
}

fn not_kept(error: &BanError) -> Problem {
    match error {
        BanError::TooMany => Problem::new(StatusCode::CONFLICT, error.to_string())
            .of_kind("too-many-bans", "Too many bans"),
        _ => Problem::unavailable(error.to_string()),
    }
}

fn read_kind(kind: &str) -> Result<Banned, Problem> {
    match kind {
        "client" => Ok(Banned::Client),
        "user" => Ok(Banned::User),
        _ => Err(Problem::not_found("bans are of a `client` or a `user`")),
    }
}

pub(super) async fn list(State(api): State<Arc<Api>>) -> Json<All> {
    let bans = Arc::clone(&api.bans.lock().await.bans);
    let now = (api.settings.clock)();
    Json(All { bans: bans.list(now).into_iter().cloned().map(Told::from).collect() })
}

pub(super) async fn put(
    State(api): State<Arc<Api>>,
    Path((kind, name)): Path<(String, String)>,
    body: Bytes,
) -> Result<Json<Made>, Problem> {
    let kind = read_kind(&kind)?;
    if name.len() > NAME_BYTES_MAX {
        return Err(unprocessable(format!("the name: has at most {NAME_BYTES_MAX} bytes")));
    }
    let body = if body.is_empty() { Bytes::from_static(b"{}") } else { body };
    let mut fields = Fields::parse(&body, &["for", "why"])?;
    let length = fields.span("for", TTL_MIN, BAN_MAX)?;
    let why = fields.string("why")?.unwrap_or_default();
    if why.len() > WHY_BYTES_MAX {
        return Err(unprocessable(format!("`why`: has at most {WHY_BYTES_MAX} bytes")));
    }
    let since = (api.settings.clock)();
    let until = length.map(|length| since.saturating_add(millis(length)));
    let ban = Ban { kind, name, since, until, why };
    // To its end, though whoever asked may go meanwhile.
    let made = spawn(async move { make(&api, ban).await }).await;
    made.map_err(|_| stopping())?.map(Json)
}

async fn make(api: &Api, ban: Ban) -> Result<Made, Problem> {
    let mut kept = api.bans.lock().await;
    let bans = kept.bans.with(ban.clone(), ban.since).map_err(|error| not_kept(&error))?;
    kept.change(api, bans).await?;
    drop(kept);
    tracing::info!(kind = ?ban.kind, name = ban.name, until = ban.until, why = ban.why, "banned");
    let disconnected = match ban.kind {
        Banned::Client => kick(api, &ban.name).await?,
        Banned::User => evict(api).await?,
    };
    Ok(Made { ban: ban.into(), disconnected })
}

async fn kick(api: &Api, name: &str) -> Result<usize, Problem> {
    let core = home(name, api.cores.cores());
    let command = |reply| Command::Kick { client_id: name.to_owned(), session: false, reply };
    Ok(usize::from(ask(api, core, command).await? == Kicked::Done))
}

/// Has every core disconnect whoever is banned, a part of its sessions at a time.
async fn evict(api: &Api) -> Result<usize, Problem> {
    let mut disconnected = 0;
    for core in 0..api.cores.cores() {
        let mut from = Some(0);
        while let Some(at) = from {
            let evicted = ask(api, core, |reply| Command::Evict { from: at, reply });
            let Evicted { disconnected: here, next } = evicted.await?;
            disconnected += here;
            from = next;
        }
    }
    Ok(disconnected)
}

pub(super) async fn lift(
    State(api): State<Arc<Api>>,
    Path((kind, name)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let kind = read_kind(&kind)?;
    let lifted = spawn(async move { end(&api, kind, &name).await }).await;
    lifted.map_err(|_| stopping())?.map(|()| StatusCode::NO_CONTENT)
}

async fn end(api: &Api, kind: Banned, name: &str) -> Result<(), Problem> {
    let mut kept = api.bans.lock().await;
    match kept.bans.without(kind, name, (api.settings.clock)()) {
        Some(bans) => {
            kept.change(api, bans).await?;
            tracing::info!(?kind, name, "lifted a ban");
            Ok(())
        }
        // Somebody may ask again, since a core did not know.
        None if !kept.told => kept.tell(api).await,
        None => Err(Problem::not_found(format!("no such ban: {name:?}"))),
    }
}
