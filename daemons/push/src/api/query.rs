//! What stands behind the `?` of a request.

use std::ops::RangeInclusive;
use std::time::Duration;

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use sextant_service::admin::Problem;
use sextant_service::config::Span;

/// Reads it.
pub(super) fn read<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Problem> {
    match query {
        Ok(Query(query)) => Ok(query),
        Err(error) => Err(Problem::bad_request(error.body_text())),
    }
}

/// A length of time such as `for=60s`; `expected` says which there may be.
pub(super) fn length(
    text: Option<&str>,
    default: Duration,
    allowed: RangeInclusive<Duration>,
    expected: &str,
) -> Result<Duration, Problem> {
    let Some(text) = text else { return Ok(default) };
    let length = text.parse::<Span>().ok().map(Span::get);
    length
        .filter(|length| allowed.contains(length))
        .ok_or_else(|| Problem::bad_request(format!("`for`: is a time {expected}")))
}
