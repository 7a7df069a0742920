//! Tells webhooks of apps what became of their messages.
//!
//! ```text
//!   audit ──from where it was told──► some entries ──POST, signed──► the receiver
//!                     ▲                                  │ 2xx: told up to there
//!                     └───── again, later and later ◄────┤
//!                            given up: a dead letter ◄───┘ after the last attempt
//! ```
//!
//! A body is `{"app":NAME,"events":[…]}`, each event with an `id`, its place in the audit, which
//! ascends; one that comes twice has the same. It is signed as those of [`crate::webhook`] are. A
//! receiver that is slow holds up its own app alone.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use sextant_audit::{Content, Cursor, Entry, Page, Query, Stage, Stages};
use sextant_platform::engine::{DeadLetter, Happened, Hook, HookEvent};
use sextant_platform::ledger::Handle;
use sextant_platform::time::Time;
use sextant_policy::Reason;
use sextant_service::config::Secret;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{debug, info, warn};
use ureq::Agent;
use uuid::Uuid;

use crate::config::Url;
use crate::outbound;
use crate::webhook::{Poster, jittered};

/// How often it is looked whether there is something to tell.
const EVERY: Duration = Duration::from_millis(500);
/// How long a post may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Events of one post.
const EVENTS_MAX: usize = 500;
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// An event as a receiver gets it.
#[derive(Serialize)]
struct Told {
    id: String,
    event: HookEvent,
    at: Time,
    message: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

#[derive(Serialize)]
struct Body<'a> {
    app: &'a str,
    events: &'a [Told],
}

/// What is to be told of one app.
struct Letter {
    body: Vec<u8>,
    events: usize,
    /// The place behind it.
    to: String,
}

/// How a post of an app ended.
struct Ended {
    app: u16,
    to: String,
    events: usize,
    outcome: Result<(), String>,
}

#[derive(Default)]
struct Pace {
    failures: u32,
    again_at: Option<Instant>,
    /// Nothing to tell up to here: not worth a record of the log.
    looked: Option<String>,
}

/// Tells until `stop` was told or dropped.
/// What a receiver does not take after so many attempts is a dead letter.
pub async fn run(handle: Handle, attempts_max: u32, mut stop: oneshot::Receiver<()>) {
    let agent = match outbound::agent(TIMEOUT, 8, None) {
        Ok(agent) => agent,
        Err(error) => return warn!(%error, "webhooks are not told"),
    };
    let (done, mut ended) = mpsc::channel::<Ended>(64);
    let (mut under_way, mut paces) = (HashSet::new(), HashMap::<u16, Pace>::new());
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // Dropped is as good as told.
            _ = &mut stop => return,
            Some(end) = ended.recv() => {
                under_way.remove(&end.app);
                settle(&handle, attempts_max, end, &mut paces).await;
            }
            _ = ticks.tick() => {
                let Ok((hooks, head)) = handle.ask(|engine, _| engine.hooks()).await else { return };
                let now = Instant::now();
                for hook in hooks {
                    let pace = paces.entry(hook.app).or_default();
                    let is_due = pace.again_at.is_none_or(|at| at <= now);
                    if !is_due || under_way.contains(&hook.app) {
                        continue;
                    }
                    match next(&handle, &hook, pace, head).await {
                        Some(letter) => {
                            under_way.insert(hook.app);
                            tokio::spawn(post(agent.clone(), hook, letter, done.clone()));
                        }
                        None => debug!(app = hook.app, "nothing to tell"),
                    }
                }
            }
        }
    }
}

/// What a webhook is to be told next.
async fn next(handle: &Handle, hook: &Hook, pace: &mut Pace, head: u64) -> Option<Letter> {
    // What was looked at in vain is behind what was told.
    let from = pace.looked.as_ref().unwrap_or(&hook.told);
    let found = read(handle, hook, from, None).await?;
    if found.events > 0 {
        pace.looked = None;
        return Some(found);
    }
    let behind = if found.to.is_empty() { format!("{}-0", head + 1) } else { found.to };
    pace.looked = Some(behind);
    None
}

/// What the audit has for a webhook from one place on, up to another if there is one.
async fn read(handle: &Handle, hook: &Hook, from: &str, to: Option<Cursor>) -> Option<Letter> {
    let query = Query {
        app: Some(hook.app),
        stages: stages(&hook.events),
        events: true,
        limit: EVENTS_MAX,
        after: from.parse().ok(),
        ..Query::default()
    };
    let reader = handle.reader().clone();
    let asked = tokio::task::spawn_blocking(move || reader.query(&query));
    let Page { entries, after, .. } = asked.await.ok()?;
    let is_before = |entry: &Entry| {
        to.is_none_or(|to| {
            format!("{}-{}", entry.seq, entry.index).parse::<Cursor>().is_ok_and(|at| at < to)
        })
    };
    let entries: Vec<Entry> = entries.into_iter().filter(is_before).collect();
    let behind = entries.last().map(|last| format!("{}-{}", last.seq, last.index + 1));
    let to = after.map(|after| after.to_string()).or(behind).unwrap_or_default();
    let (events, app) = tell(handle, hook, entries).await?;
    let body =
        serde_json::to_vec(&Body { app: &app, events: &events }).expect("plain data is JSON");
    Some(Letter { body, events: events.len(), to })
}

fn stages(events: &[HookEvent]) -> Stages {
    events.iter().fold(Stages::NONE, |stages, event| match event {
        HookEvent::Delivered => stages.with(Stage::Acknowledged),
        HookEvent::Shown => stages.with(Stage::Shown),
        HookEvent::Clicked => stages.with(Stage::Clicked),
        HookEvent::Dropped => {
            stages.with(Stage::Dropped).with(Stage::Expired).with(Stage::Recalled)
        }
        HookEvent::Finished | HookEvent::Held => stages,
    })
}

/// Entries as a receiver gets them, without those that it is not told of.
async fn tell(handle: &Handle, hook: &Hook, entries: Vec<Entry>) -> Option<(Vec<Told>, String)> {
    let (app, devices) = (hook.app, entries.iter().filter_map(Entry::fact).map(|fact| fact.device));
    let devices: HashSet<u32> = devices.collect();
    let names = handle.ask(move |engine, _| {
        let registry = engine.registry();
        let name = |number: u32| Some((number, registry.id(number)?.to_owned()));
        let names: HashMap<u32, String> = devices.into_iter().filter_map(name).collect();
        (names, registry.app_name(app).unwrap_or_default().to_owned())
    });
    let (names, app) = names.await.ok()?;
    let ids = handle.ids();
    let told = entries.into_iter().filter_map(|entry| {
        let id = format!("{}-{}", entry.seq, entry.index);
        match entry.content {
            Content::Fact(fact) => {
                let event = match fact.stage {
                    Stage::Acknowledged => HookEvent::Delivered,
                    Stage::Shown => HookEvent::Shown,
                    Stage::Clicked => HookEvent::Clicked,
                    _ => HookEvent::Dropped,
                };
                Some(Told {
                    id,
                    event,
                    at: Time(fact.at),
                    message: ids.uuid(fact.message),
                    device: names.get(&fact.device).cloned(),
                    reason: Reason::from_code(fact.reason).map(Reason::name),
                })
            }
            Content::Event(event) => {
                let kind = match event.kind.0 {
                    kind if kind == Happened::Finished as u8 => HookEvent::Finished,
                    kind if kind == Happened::Held as u8 => HookEvent::Held,
                    _ => return None,
                };
                hook.events.contains(&kind).then(|| Told {
                    id,
                    event: kind,
                    at: Time(event.at),
                    message: ids.uuid(event.message),
                    device: None,
                    reason: None,
                })
            }
        }
    });
    Some((told.collect(), app))
}

async fn post(agent: Agent, hook: Hook, letter: Letter, done: mpsc::Sender<Ended>) {
    let Letter { body, events, to } = letter;
    let poster = Poster::new(agent, Url::new(hook.url), Secret::new(hook.secret));
    let posted = tokio::task::spawn_blocking(move || poster.post(&body)).await;
    let outcome = posted.unwrap_or_else(|error| Err(error.to_string()));
    // Whoever waits for it may have ended.
    let _ = done.send(Ended { app: hook.app, to, events, outcome }).await;
}

/// Notes how a post ended.
async fn settle(handle: &Handle, attempts_max: u32, end: Ended, paces: &mut HashMap<u16, Pace>) {
    let Ended { app, to, events, outcome } = end;
    let pace = paces.entry(app).or_default();
    let noted = match outcome {
        Ok(()) => {
            if pace.failures > 0 {
                info!(app, "the webhook's receiver takes events again");
            }
            (pace.failures, pace.again_at) = (0, None);
            handle.change(move |engine, now| engine.hook_told(app, &to, now)).await
        }
        Err(why) => {
            pace.failures += 1;
            if pace.failures < attempts_max {
                debug!(app, why, failures = pace.failures, "the webhook fails");
                let pause = RETRY_FIRST * (1 << pace.failures.min(16));
                pace.again_at = Some(Instant::now() + jittered(pause.min(RETRY_MAX)));
                return;
            }
            warn!(app, why, events, "the webhook's receiver takes nothing: a dead letter");
            (pace.failures, pace.again_at) = (0, None);
            handle
                .change(move |engine, now| engine.hook_failed(app, &to, attempts_max, &why, now))
                .await
        }
    };
    if let Err(refusal) = noted {
        debug!(app, %refusal, "the webhook is gone");
    }
}

/// What a dead letter says, as JSON: for people, and to be told again.
pub async fn content(handle: &Handle, hook: &Hook, letter: &DeadLetter) -> Option<Vec<u8>> {
    let to = letter.to.parse().ok();
    read(handle, hook, &letter.from, to).await.map(|letter| letter.body)
}

/// Tells a dead letter once more.
///
/// # Errors
/// The receiver does not take it; why.
pub async fn tell_again(handle: &Handle, hook: Hook, letter: &DeadLetter) -> Result<(), String> {
    let body = content(handle, &hook, letter).await.ok_or("the audit does not have it any more")?;
    let agent = outbound::agent(TIMEOUT, 1, None).map_err(|error| error.to_string())?;
    let poster = Arc::new(Poster::new(agent, Url::new(hook.url), Secret::new(hook.secret)));
    let posted = tokio::task::spawn_blocking(move || poster.post(&body)).await;
    posted.unwrap_or_else(|error| Err(error.to_string()))
}
