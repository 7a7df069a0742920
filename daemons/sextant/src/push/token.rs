//! `sextant push token`: a token with which a device logs in.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::cli::TokenArgs;
use crate::error::Error;
use crate::place::Place;
use crate::terminal::{note, say};

use super::send::Ttl;

#[derive(Debug, Serialize)]
struct Request<'a> {
    device: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<Ttl>,
}

#[derive(Debug, Deserialize)]
struct Issued {
    token: String,
    expires_at: Option<Timestamp>,
}

/// Prints the token alone to standard output, and how long it is good for beside it.
pub(super) fn run(place: &Place, args: &TokenArgs) -> Result<(), Error> {
    let push = place.push()?;
    let request = Request { device: &args.device, ttl: args.ttl.as_deref().map(Ttl::from) };
    let issued: Issued =
        push.client.post("/v1/tokens", &request).map_err(|source| push.failed(source))?;
    say(&issued.token);
    if let Some(expires) = issued.expires_at {
        note(format_args!("good until {expires}"));
    }
    Ok(())
}
