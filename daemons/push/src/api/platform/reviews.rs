//! Messages that wait for a reviewer.

use axum::Json;
use axum::extract::{Path, State};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sextant_platform::engine::MessageView;
use sextant_service::admin::Problem;

use super::{Asker, Need, Shared, read_id, read_json};

/// Reviews of one page: people look at them.
const REVIEWS_MAX: usize = 1000;

#[derive(Serialize)]
pub(super) struct Reviews {
    reviews: Vec<Waiting>,
}

#[derive(Serialize)]
struct Waiting {
    message: MessageView,
    reason: String,
    rule: Option<String>,
    text: String,
    since: sextant_platform::time::Time,
    expires_at: sextant_platform::time::Time,
}

pub(super) async fn list(
    State(platform): Shared,
    asker: Asker,
    Path(app): Path<String>,
) -> Result<Json<Reviews>, Problem> {
    let held = platform.read(&asker, app, |engine, app, _| {
        let held: Vec<u64> = engine.held(app).take(REVIEWS_MAX).collect();
        let views = held.into_iter().filter_map(|number| engine.brief(number).ok());
        Ok(views.collect::<Vec<_>>())
    });
    let reviews = held.await?.into_iter().filter_map(|message| {
        let review = message.review.clone()?;
        Some(Waiting {
            message,
            reason: review.reason,
            rule: review.rule,
            text: review.text,
            since: review.since,
            expires_at: review.expires_at,
        })
    });
    Ok(Json(Reviews { reviews: reviews.collect() }))
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Approve,
    Reject,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VerdictBody {
    verdict: Verdict,
    #[serde(default)]
    note: String,
}

pub(super) async fn judge(
    State(platform): Shared,
    asker: Asker,
    Path((app, id)): Path<(String, String)>,
    body: Bytes,
) -> Result<Json<MessageView>, Problem> {
    let id = read_id(&id)?;
    let VerdictBody { verdict, note } = read_json(&body)?;
    let by = asker.name().to_owned();
    let judged = platform.write(&asker, app, Need::Review, move |engine, app, now| {
        let number = engine.message_of(app, id)?;
        engine.review(number, matches!(verdict, Verdict::Approve), &by, &note, now)?;
        engine.message(app, id)
    });
    judged.await.map(Json)
}
