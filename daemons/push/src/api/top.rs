//! Top talkers over HTTP. A request has the cores count for a moment, and adds up what they found;
//! one after the other, so that each has a window of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};
use sextant_service::admin::Problem;

use super::query::{self, read};
use super::{ANSWER_MAX, Api, ask, stopping};
use crate::control::Command;
use crate::control::top::{Heavy, TOP_COUNTERS, TopBegin, TopEnd, Topped};

/// How long is counted where that is not said.
const FOR_DEFAULT: Duration = Duration::from_secs(2);
/// The longest count: a request waits for it.
const FOR_MAX: Duration = Duration::from_secs(5);
/// Of each kind where that is not said.
const LIMIT_DEFAULT: usize = 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TopQuery {
    #[serde(rename = "for")]
    length: Option<String>,
    limit: Option<usize>,
}

#[derive(Serialize)]
pub(super) struct Told {
    window_ms: u64,
    /// Clients by PUBLISH packets, both ways, a second.
    clients_by_messages: Vec<ToldClient>,
    /// Clients by the bytes of these, both ways, a second.
    clients_by_bytes: Vec<ToldClient>,
    /// Topics by PUBLISH packets received, a second.
    topics: Vec<ToldTopic>,
}

#[derive(Serialize)]
struct ToldClient {
    client: String,
    per_second: f64,
    /// By how much that may be too high.
    #[serde(skip_serializing_if = "is_zero")]
    error: f64,
    r#in: f64,
    out: f64,
}

#[derive(Serialize)]
struct ToldTopic {
    topic: String,
    per_second: f64,
    #[serde(skip_serializing_if = "is_zero")]
    error: f64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &f64) -> bool {
    *number == 0.0
}

pub(super) async fn top(
    State(api): State<Arc<Api>>,
    asked: Result<Query<TopQuery>, QueryRejection>,
) -> Result<Json<Told>, Problem> {
    let TopQuery { length, limit } = read(asked)?;
    let allowed = Duration::from_millis(10)..=FOR_MAX;
    let length = query::length(length.as_deref(), FOR_DEFAULT, allowed, "from 10ms to 5s")?;
    let limit = limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=TOP_COUNTERS).contains(&limit) {
        let detail = format!("`limit`: must be 1 to {TOP_COUNTERS}");
        return Err(Problem::bad_request(detail));
    }
    let _alone = api.counting.lock().await;
    let longest = length + ANSWER_MAX;
    for core in 0..api.cores.cores() {
        let begin = Command::TopBegin(TopBegin { longest });
        api.cores.send(core, begin).map_err(|_| stopping())?;
    }
    tokio::time::sleep(length).await;
    let (answers, sent_to_all) = ask(&*api.cores, |reply| Command::TopEnd(TopEnd { limit, reply }));
    let mut all = Vec::new();
    for answer in answers {
        let answer = tokio::time::timeout(ANSWER_MAX, answer).await;
        all.extend(answer.map_err(|_| super::no_answer())?.map_err(|_| stopping())?);
    }
    if !sent_to_all || all.len() != api.cores.cores() {
        return Err(stopping());
    }
    Ok(Json(together(all, limit)))
}

/// What all cores have counted. A client is on one core, a topic may be on all.
fn together(all: Vec<Topped>, limit: usize) -> Told {
    let window = all.iter().map(|core| core.window).max().unwrap_or_default();
    let seconds = window.as_secs_f64().max(0.001);
    let rate = |count: u64| (count as f64 / seconds * 10.0).round() / 10.0;
    let (mut messages, mut bytes) = (Vec::new(), Vec::new());
    let mut topics: HashMap<String, Heavy> = HashMap::new();
    for core in all {
        messages.extend(core.messages);
        bytes.extend(core.bytes);
        for heavy in core.topics {
            match topics.get_mut(&heavy.name) {
                Some(sum) => {
                    sum.count += heavy.count;
                    sum.error += heavy.error;
                }
                None => drop(topics.insert(heavy.name.clone(), heavy)),
            }
        }
    }
    let client = |heavy: Heavy| ToldClient {
        client: heavy.name,
        per_second: rate(heavy.count),
        error: rate(heavy.error),
        r#in: rate(heavy.ways[0]),
        out: rate(heavy.ways[1]),
    };
    let topic = |heavy: Heavy| ToldTopic {
        topic: heavy.name,
        per_second: rate(heavy.count),
        error: rate(heavy.error),
    };
    Told {
        window_ms: super::millis(window),
        clients_by_messages: highest(messages, limit).map(client).collect(),
        clients_by_bytes: highest(bytes, limit).map(client).collect(),
        topics: highest(topics.into_values().collect(), limit).map(topic).collect(),
    }
}

fn highest(mut all: Vec<Heavy>, limit: usize) -> impl Iterator<Item = Heavy> {
    all.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.name.cmp(&b.name)));
    all.into_iter().take(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cores_counted_is_added_up_and_told_by_the_second() {
        let heavy =
            |name: &str, count| Heavy { name: name.into(), count, error: 0, ways: [count, 0] };
        let core = |client: &str, count| Topped {
            window: Duration::from_secs(2),
            messages: vec![heavy(client, count)],
            bytes: vec![heavy(client, 100 * count)],
            topics: vec![heavy("t", count), heavy(client, 1)],
        };
        let told = together(vec![core("a", 10), core("b", 31), core("c", 5)], 2);
        let rates = |clients: &[ToldClient]| -> Vec<(String, f64)> {
            clients.iter().map(|one| (one.client.clone(), one.per_second)).collect()
        };
        assert_eq!(rates(&told.clients_by_messages), [("b".into(), 15.5), ("a".into(), 5.0)]);
        assert_eq!(rates(&told.clients_by_bytes), [("b".into(), 1550.0), ("a".into(), 500.0)]);
        assert_eq!((told.topics[0].topic.as_str(), told.topics[0].per_second), ("t", 23.0));
        assert_eq!(told.window_ms, 2000);
    }
}
