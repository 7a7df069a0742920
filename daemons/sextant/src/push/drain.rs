//! `sextant push drain`: clients are sent to another server, and followed until they have gone.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::DrainArgs;
use crate::error::Error;
use crate::place::{Daemon, Place};
use crate::terminal::{note, printable, say};

/// How often the daemon is asked how far it is.
const ASK_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct State {
    draining: bool,
    server: String,
    left: u64,
    sent_away: u64,
}

pub(super) fn run(place: &Place, args: &DrainArgs) -> Result<(), Error> {
    let push = place.push()?;
    if args.end {
        let () = push.client.delete("/v1/drain").map_err(|source| push.failed(source))?;
        note("clients are served here again");
        return Ok(());
    }
    let Some(server) = &args.to else {
        return tell(&state(&push)?);
    };
    let mut body = json!({ "server": server, "moved": args.moved });
    if let Some(over) = &args.over {
        body["over"] = Value::from(over.as_str());
    }
    let begun: State =
        push.client.post("/v1/drain", &body).map_err(|source| push.failed(source))?;
    let mut left = begun.left;
    note(format_args!("clients go to {}: {left} are connected", printable(server)));
    while left > 0 {
        std::thread::sleep(ASK_EVERY);
        let now = state(&push)?;
        if !now.draining || now.server != *server {
            return Err(Error::Outcome("somebody else has ended it, or begun another".to_owned()));
        }
        left = now.left;
        note(format_args!("{} sent away, {left} left", now.sent_away));
    }
    note("all have gone; whoever comes is told to go there, until `sextant push drain --end`");
    Ok(())
}

fn state(push: &Daemon) -> Result<State, Error> {
    push.client.get("/v1/drain").map_err(|source| push.failed(source))
}

fn tell(state: &State) -> Result<(), Error> {
    match state.draining {
        true => say(format_args!(
            "clients go to {}: {} sent away, {} left",
            printable(&state.server),
            state.sent_away,
            state.left
        )),
        false => say("clients are served here"),
    }
    Ok(())
}
