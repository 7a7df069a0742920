//! What devices say themselves over HTTP, with their own tokens.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use sextant_platform::engine::ReceiptsTaken;
use sextant_service::admin::Problem;

use super::{Platform, Shared, bearer, problem, unauthorized};

/// The header that names the device.
const DEVICE: &str = "x-device";

/// A device that has shown its token.
pub(super) struct Own(String);

impl FromRequestParts<Arc<Platform>> for Own {
    type Rejection = Response;

    async fn from_request_parts(
        parts: &mut Parts,
        platform: &Arc<Platform>,
    ) -> Result<Own, Response> {
        let device = parts.headers.get(DEVICE).and_then(|device| device.to_str().ok());
        let (Some(device), Some(token)) = (device, bearer(parts)) else {
            return Err(unauthorized(
                "this path wants the headers `X-Device: ID` and `Authorization: Bearer TOKEN`, the \
                 device's own",
            ));
        };
        let now = (platform.clock)() / 1000;
        let least = platform.handle.generations().least(device);
        match platform.token_key.verify(token.as_bytes(), device, now, Some(least)) {
            Ok(()) => Ok(Own(device.to_owned())),
            Err(error) => Err(unauthorized(&error.to_string())),
        }
    }
}

pub(super) async fn receipts(
    State(platform): Shared,
    Own(device): Own,
    body: Bytes,
) -> Result<Json<ReceiptsTaken>, Problem> {
    let taken =
        platform.handle.change(move |engine, now| engine.take_receipts(&device, &body, now));
    taken.await.map(Json).map_err(problem)
}

#[derive(Serialize)]
pub(super) struct Topics {
    topics: Vec<String>,
}

pub(super) async fn topics(
    State(platform): Shared,
    Own(device): Own,
    body: Bytes,
) -> Result<Json<Topics>, Problem> {
    let taken = platform.handle.change(move |engine, now| engine.take_topics(&device, &body, now));
    taken.await.map(|topics| Json(Topics { topics })).map_err(problem)
}
