//! A message's funnel as it fills: server-sent events (WHATWG HTML, section 9.2), at most one a
//! second, and only when something changed.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_core::Stream;
use serde::Serialize;
use sextant_platform::engine::Funnel;
use sextant_platform::model::State as Stage;
use sextant_service::admin::Problem;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::{Asker, Platform, Shared, read_id};

/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(1);

#[derive(PartialEq, Serialize)]
struct Progress {
    state: Stage,
    funnel: Funnel,
}

/// Events as they come.
struct Events(mpsc::Receiver<Event>);

impl Stream for Events {
    type Item = Result<Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|event| event.map(Ok))
    }
}

pub(super) async fn live(
    State(platform): Shared,
    asker: Asker,
    Path((app, id)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let id = read_id(&id)?;
    let first = platform.read(&asker, app, move |engine, app, _| {
        let view = engine.message(app, id)?;
        let number = engine.message_of(app, id)?;
        Ok((number, Progress { state: view.state, funnel: view.funnel }))
    });
    let (number, first) = first.await?;
    let (sink, events) = mpsc::channel(4);
    tokio::spawn(look_on(platform, number, first, sink));
    Ok(Sse::new(Events(events)).keep_alive(KeepAlive::default()).into_response())
}

/// Tells what changes until the message is over, or nobody listens.
async fn look_on(
    platform: Arc<Platform>,
    number: u64,
    mut last: Progress,
    sink: mpsc::Sender<Event>,
) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        let data = serde_json::to_string(&last).expect("plain data is JSON");
        if sink.send(Event::default().event("funnel").data(data)).await.is_err() {
            return;
        }
        if last.state.is_over() {
            return;
        }
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = sink.closed() => return,
            }
            let progress = platform.handle.ask(move |engine, _| engine.progress(number));
            let Ok(Some((state, funnel))) = progress.await else { return };
            let next = Progress { state, funnel };
            if next != last {
                last = next;
                break;
            }
        }
    }
}

/// Pieces of a body as they come.
pub(super) struct Chunks(pub(super) mpsc::Receiver<Bytes>);

impl Stream for Chunks {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|piece| piece.map(Ok))
    }
}
