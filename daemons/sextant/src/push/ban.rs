//! `sextant push ban`: who is not let in.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::clients::escaped;
use super::send::Ttl;
use crate::cli::{BanCommand, BanListArgs, BanMakeArgs, BanNameArgs, BanOf};
use crate::error::Error;
use crate::place::Place;
use crate::terminal::{Table, note, printable, say, span};

#[derive(Debug, Serialize)]
struct Request<'a> {
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    length: Option<Ttl>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
}

#[derive(Debug, Deserialize)]
struct Ban {
    kind: String,
    name: String,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    #[serde(default)]
    why: String,
    #[serde(default)]
    disconnected: u64,
}

#[derive(Debug, Deserialize)]
struct All {
    bans: Vec<Ban>,
}

pub(super) fn run(place: &Place, command: &BanCommand) -> Result<(), Error> {
    match command {
        BanCommand::Client(args) => make(place, BanOf::Client, args),
        BanCommand::User(args) => make(place, BanOf::User, args),
        BanCommand::Lift(args) => lift(place, args),
        BanCommand::List(args) => list(place, args),
    }
}

fn path(of: BanOf, name: &str) -> String {
    let kind = match of {
        BanOf::Client => "client",
        BanOf::User => "user",
    };
    format!("/v1/bans/{kind}/{}", escaped(name))
}

fn make(place: &Place, of: BanOf, args: &BanMakeArgs) -> Result<(), Error> {
    let push = place.push()?;
    let request =
        Request { length: args.length.as_deref().map(Ttl::from), why: args.why.as_deref() };
    let ban: Ban =
        push.client.put(&path(of, &args.name), &request).map_err(|source| push.failed(source))?;
    note(format_args!(
        "{} {} is banned {}; connections closed: {}",
        printable(&ban.kind),
        printable(&ban.name),
        ban.end(),
        ban.disconnected
    ));
    Ok(())
}

fn lift(place: &Place, args: &BanNameArgs) -> Result<(), Error> {
    let push = place.push()?;
    let () =
        push.client.delete(&path(args.of, &args.name)).map_err(|source| push.failed(source))?;
    note(format_args!("{} may come back", printable(&args.name)));
    Ok(())
}

fn list(place: &Place, args: &BanListArgs) -> Result<(), Error> {
    let push = place.push()?;
    if args.json {
        let all: Value = push.client.get("/v1/bans").map_err(|source| push.failed(source))?;
        say(serde_json::to_string_pretty(&all).unwrap_or_default());
        return Ok(());
    }
    let all: All = push.client.get("/v1/bans").map_err(|source| push.failed(source))?;
    let mut table = Table::new(["KIND", "NAME", "SINCE", "ENDS", "WHY"]);
    for ban in &all.bans {
        table.row([
            printable(&ban.kind),
            printable(&ban.name),
            ban.since.map_or("-".to_owned(), |since| format!("{since:.0}")),
            ban.end(),
            if ban.why.is_empty() { "-".to_owned() } else { printable(&ban.why) },
        ]);
    }
    say(table);
    Ok(())
}

impl Ban {
    /// How long it is still to be, to the second.
    fn end(&self) -> String {
        match self.until {
            None => "until it is lifted".to_owned(),
            Some(until) => {
                let left: Duration =
                    until.duration_since(Timestamp::now()).try_into().unwrap_or_default();
                // Rounded: what was just made for an hour is told so.
                format!("for {}", span(Duration::from_secs((left.as_millis() + 500) as u64 / 1000)))
            }
        }
    }
}
