//! Draining over HTTP: it begins, how it stands, it ends. It is on no disk: a daemon that is started
//! again serves.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use bytes::Bytes;
use serde::Serialize;
use sextant_service::admin::Problem;

use super::body::Fields;
use super::clients::ask;
use super::{Api, unprocessable};
use crate::control::Command;
use crate::control::drain::Draining;

/// Over how long clients are sent away where that is not said.
const OVER_DEFAULT: Duration = Duration::from_secs(60);
/// The longest time.
const OVER_MAX: Duration = Duration::from_secs(86_400);
/// The longest name of a server, in bytes.
const SERVER_BYTES_MAX: usize = 512;

#[derive(Serialize)]
pub(super) struct Told {
    draining: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    moved: Option<bool>,
    /// Connections of clients that are still there.
    left: usize,
    sent_away: usize,
}

pub(super) async fn begin(State(api): State<Arc<Api>>, body: Bytes) -> Result<Json<Told>, Problem> {
    let mut fields = Fields::parse(&body, &["server", "over", "moved"])?;
    let server = fields.string("server")?.ok_or_else(|| unprocessable("give `server`"))?;
    if !is_server(&server) {
        return Err(unprocessable(
            "`server`: is HOST or HOST:PORT, such as mqtt2.example.org:8883",
        ));
    }
    let over = fields.span("over", Duration::ZERO, OVER_MAX)?.unwrap_or(OVER_DEFAULT);
    let moved = fields.boolean("moved")?.unwrap_or(false);
    tracing::warn!(server, ?over, "clients are sent to another server");
    change(&api, Some(Draining { server: server.into(), moved, over })).await?;
    state(State(api)).await
}

pub(super) async fn end(State(api): State<Arc<Api>>) -> Result<StatusCode, Problem> {
    change(&api, None).await?;
    tracing::warn!("clients are served here again");
    Ok(StatusCode::NO_CONTENT)
}

async fn change(api: &Api, draining: Option<Draining>) -> Result<(), Problem> {
    for core in 0..api.cores.cores() {
        let draining = draining.clone();
        ask(api, core, |reply| Command::Drain { draining, reply }).await?;
    }
    Ok(())
}

pub(super) async fn state(State(api): State<Arc<Api>>) -> Result<Json<Told>, Problem> {
    let mut told = Told { draining: false, server: None, moved: None, left: 0, sent_away: 0 };
    for core in 0..api.cores.cores() {
        let drained = ask(&api, core, |reply| Command::Drained { reply }).await?;
        let Some(drained) = drained else { continue };
        told.draining = true;
        told.left += drained.left;
        told.sent_away += drained.sent_away;
        told.server = Some(drained.draining.server.to_string());
        told.moved = Some(drained.draining.moved);
    }
    Ok(Json(told))
}

/// Whether clients can be told of such a server: several would be parted by spaces.
fn is_server(text: &str) -> bool {
    let plain = |c: char| !c.is_whitespace() && !c.is_control();
    let port = text.rsplit_once(':').filter(|_| !text.ends_with(']')).map(|(_, port)| port);
    (1..=SERVER_BYTES_MAX).contains(&text.len())
        && text.chars().all(plain)
        && !text.contains('/')
        && !text.starts_with(':')
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_host_and_perhaps_a_port() {
        for good in ["a", "a.b:1883", "10.0.0.1:8883", "[::1]:1883", "[fe80::1]"] {
            assert!(is_server(good), "{good}");
        }
        for bad in ["", "a b", "a:", "a:0", "a:x", ":1883", "mqtt://a", "a\n", "a:70000"] {
            assert!(!is_server(bad), "{bad}");
        }
    }
}
