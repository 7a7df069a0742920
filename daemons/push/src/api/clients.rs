//! Clients over HTTP: a listing in pages, one client, and its end.
//!
//! A page's cursor is `CORE-SLOT`, where the next page begins (`control::clients` says what that
//! promises). A page that finds few of many clients ends early, so that no request takes long; the
//! listing is over when a page has no cursor.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use sextant_mqtt::Version;
use sextant_service::admin::Problem;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::query::read;
use super::{ANSWER_MAX, Api, Time, no_answer, stopping};
use crate::control::Command;
use crate::control::clients::{Client, ClientDetail, Kicked, Like, Listed, Listing, Subscribed};
use crate::home::home;

/// Clients of a page that does not say how many.
const PAGE_DEFAULT: usize = 100;
/// Clients of a page at most.
const PAGE_MAX: usize = 1000;
/// The longest pattern, in bytes.
const LIKE_BYTES_MAX: usize = 256;

/// Questions to cores for one page.
const LOOKS_MAX: usize = 256;
/// Bytes of identifiers in a page; what the last question finds may go beyond.
const PAGE_BYTES_MAX: usize = 1 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    limit: Option<usize>,
    after: Option<String>,
    like: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KickQuery {
    #[serde(default)]
    session: bool,
}

/// Where a listing goes on.
#[derive(Clone, Copy, Default)]
struct Cursor {
    core: usize,
    slot: usize,
}

impl Cursor {
    fn parse(text: &str, cores: usize) -> Option<Cursor> {
        let (core, slot) = text.split_once('-')?;
        let number = |text: &str| -> Option<usize> {
            let plain = text.len() <= 10 && text.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| text.parse().ok())?
        };
        let cursor = Cursor { core: number(core)?, slot: number(slot)? };
        (cursor.core < cores).then_some(cursor)
    }
}

#[derive(Serialize)]
pub(super) struct Page {
    clients: Vec<Told>,
    /// For `after`, if there is more.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Serialize)]
struct Told {
    client: Box<str>,
    user: Box<str>,
    connected: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    connected_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    left_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_alive_s: Option<u16>,
    /// `null` is for ever.
    session_expiry_s: Option<u32>,
    subscriptions: usize,
    queued: usize,
    queued_bytes: usize,
    in_flight: usize,
    unsent_bytes: usize,
    core: usize,
}

#[derive(Serialize)]
pub(super) struct ToldDetail {
    #[serde(flatten)]
    client: Told,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<SocketAddr>,
    filters: Vec<ToldFilter>,
}

#[derive(Serialize)]
struct ToldFilter {
    filter: Box<str>,
    qos: u8,
    no_local: bool,
    retain_as_published: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscription_id: Option<u32>,
}

impl Told {
    fn new(client: Client, core: usize) -> Told {
        let connection = client.connection;
        Told {
            client: client.client_id,
            user: client.user,
            connected: connection.is_some(),
            connected_at: connection.is_some().then_some(Time(client.since)),
            left_at: connection.is_none().then_some(Time(client.since)),
            version: connection.map(|connection| match connection.version {
                Version::V311 => "3.1.1",
                Version::V5 => "5",
            }),
            keep_alive_s: connection.map(|connection| connection.keep_alive_s),
            session_expiry_s: Some(client.session_expiry_s).filter(|expiry| *expiry != u32::MAX),
            subscriptions: client.subscriptions,
            queued: client.queued,
            queued_bytes: client.queued_bytes,
            in_flight: client.in_flight,
            unsent_bytes: connection.map_or(0, |connection| connection.unsent_bytes),
            core,
        }
    }
}

impl From<Subscribed> for ToldFilter {
    fn from(held: Subscribed) -> ToldFilter {
        ToldFilter {
            filter: held.filter,
            qos: held.qos as u8,
            no_local: held.no_local,
            retain_as_published: held.retain_as_published,
            subscription_id: Some(held.subscription_id).filter(|id| *id != 0),
        }
    }
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Page>, Problem> {
    let query = read(query)?;
    let limit = query.limit.unwrap_or(PAGE_DEFAULT);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(Problem::bad_request(format!("`limit`: must be 1 to {PAGE_MAX}")));
    }
    let like = query.like.as_deref().map_or_else(Like::default, Like::new);
    if query.like.is_some_and(|like| like.len() > LIKE_BYTES_MAX) {
        return Err(Problem::bad_request(format!(
            "`like`: has at most {LIKE_BYTES_MAX} bytes, with * for any text"
        )));
    }
    let from = match query.after.as_deref() {
        None => Cursor::default(),
        Some(after) => Cursor::parse(after, api.cores.cores()).ok_or_else(|| {
            Problem::bad_request("`after`: is not what an earlier page gave as `next`")
        })?,
    };
    match timeout(ANSWER_MAX, page(&api, from, limit, &like)).await {
        Ok(page) => page.map(Json),
        Err(_) => Err(no_answer()),
    }
}

async fn page(api: &Api, from: Cursor, limit: usize, like: &Like) -> Result<Page, Problem> {
    let cores = api.cores.cores();
    let Cursor { mut core, mut slot } = from;
    let mut clients = Vec::new();
    let mut bytes = 0;
    for _ in 0..LOOKS_MAX {
        if core == cores || clients.len() >= limit || bytes >= PAGE_BYTES_MAX {
            break;
        }
        let limit = limit - clients.len();
        let found = ask(api, core, |reply| {
            Command::Clients(Listing { from: slot, limit, like: like.clone(), reply })
        });
        let Listed { clients: found, next } = found.await?;
        for client in found {
            bytes += client.client_id.len() + client.user.len();
            clients.push(Told::new(client, core));
        }
        (core, slot) = next.map_or((core + 1, 0), |next| (core, next));
    }
    let next = (core < cores).then(|| format!("{core}-{slot}"));
    Ok(Page { clients, next })
}

/// Asks one core, and waits.
pub(super) async fn ask<T>(
    api: &Api,
    core: usize,
    command: impl FnOnce(oneshot::Sender<T>) -> Command,
) -> Result<T, Problem> {
    let (reply, answer) = oneshot::channel();
    api.cores.send(core, command(reply)).map_err(|_| stopping())?;
    match timeout(ANSWER_MAX, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(stopping()),
        Err(_) => Err(no_answer()),
    }
}

pub(super) async fn one(
    State(api): State<Arc<Api>>,
    Path(client_id): Path<String>,
) -> Result<Json<ToldDetail>, Problem> {
    let core = home(&client_id, api.cores.cores());
    let command = |reply| Command::Client { client_id: client_id.clone(), reply };
    match ask(&api, core, command).await? {
        Some(ClientDetail { client, filters, peer }) => Ok(Json(ToldDetail {
            client: Told::new(client, core),
            peer,
            filters: filters.into_iter().map(ToldFilter::from).collect(),
        })),
        None => Err(unknown(&client_id)),
    }
}

pub(super) async fn kick(
    State(api): State<Arc<Api>>,
    Path(client_id): Path<String>,
    query: Result<Query<KickQuery>, QueryRejection>,
) -> Result<StatusCode, Problem> {
    let KickQuery { session } = read(query)?;
    let core = home(&client_id, api.cores.cores());
    let command = |reply| Command::Kick { client_id: client_id.clone(), session, reply };
    match ask(&api, core, command).await? {
        Kicked::Done => {
            tracing::info!(client_id, session, "kicked a client");
            Ok(StatusCode::NO_CONTENT)
        }
        Kicked::Unknown => Err(unknown(&client_id)),
        Kicked::NotConnected => Err(Problem::not_found(format!(
            "client {client_id:?} is not connected; ?session=true ends its session"
        ))
        .of_kind("not-connected", "Not connected")),
        Kicked::NotKept => Err(Problem::unavailable(
            "the connection is closed; the log does not take the end of the session",
        )),
    }
}

fn unknown(client_id: &str) -> Problem {
    Problem::not_found(format!("no client {client_id:?} has a session"))
}
