//! `sextant status`: how each daemon is, as a table or as JSON.
//!
//! Every daemon is asked twice: `/readyz`, which needs no token, says whether it serves;
//! `/v1/status` says how much.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use sextant_service::client::{Client, ClientError};

use crate::cli::StatusArgs;
use crate::error::{self, Error};
use crate::place::{ANSWER_TIME_MAX, Place};
use crate::terminal::{Colour, Table, painted, say, size, span};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Ready,
    /// It answers, and starts or stops.
    NotReady,
    Unreachable,
}

/// What is known about a daemon.
#[derive(Debug, Serialize)]
struct Report {
    name: &'static str,
    url: String,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    /// Why it is not ready, or why it did not say more.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// What it says about itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Value>,
}

#[derive(Debug, Serialize)]
struct Reports {
    daemons: Vec<Report>,
}

pub(crate) fn run(place: &Place, args: &StatusArgs) -> Result<(), Error> {
    let reports = Reports { daemons: vec![ask_push(place)] };
    if args.json {
        say(serde_json::to_string_pretty(&reports).unwrap_or_default());
    } else {
        print(&reports.daemons);
    }
    let not_well: Vec<&str> = reports
        .daemons
        .iter()
        .filter(|report| !report.is_well())
        .map(|report| report.name)
        .collect();
    match not_well.is_empty() {
        true => Ok(()),
        false => Err(Error::Outcome(format!("not all is well: see {}", not_well.join(", ")))),
    }
}

impl Report {
    fn is_well(&self) -> bool {
        self.state == State::Ready && self.status.is_some()
    }

    /// A number of the status.
    fn number(&self, path: &str) -> Option<u64> {
        self.status.as_ref()?.pointer(path)?.as_u64()
    }

    /// A number of the status, and another one if there is something to say of it.
    fn with(&self, path: &str, other: &str, what: &str) -> String {
        match (self.number(path), self.number(other)) {
            (None, _) => "-".to_owned(),
            (Some(number), None | Some(0)) => number.to_string(),
            (Some(number), Some(other)) => format!("{number}, {other} {what}"),
        }
    }

    fn text(&self, path: &str) -> Option<&str> {
        self.status.as_ref()?.pointer(path)?.as_str()
    }
}

fn ask_push(place: &Place) -> Report {
    let url = place.push_url();
    let (state, mut error) = readiness(&url);
    let mut status: Option<Value> = None;
    if state != State::Unreachable {
        let answer = place
            .push()
            .and_then(|push| push.client.get("/v1/status").map_err(|source| push.failed(source)));
        match answer {
            Ok(value) => status = Some(value),
            Err(failed) => error = error.or(Some(failed.to_string())),
        }
    }
    let pid = status
        .as_ref()
        .and_then(|status| u32::try_from(status.get("pid")?.as_u64()?).ok())
        .or_else(|| place.running("push").filter(|push| push.url == url)?.pid);
    Report { name: "push", url, state, pid, error, status }
}

fn readiness(url: &str) -> (State, Option<String>) {
    match Client::new(url, None, ANSWER_TIME_MAX).text("/readyz") {
        Ok(_) => (State::Ready, None),
        Err(ClientError::Problem(problem)) => (State::NotReady, Some(problem.to_string())),
        Err(failed) => (State::Unreachable, Some(error::refusal(url, &failed))),
    }
}

fn print(reports: &[Report]) {
    let mut table = Table::new([
        "DAEMON",
        "STATE",
        "PID",
        "UP FOR",
        "CONNECTIONS",
        "SESSIONS",
        "IN",
        "OUT",
        "LOG",
    ]);
    for report in reports {
        let count = |path: &str| report.number(path).map_or("-".to_owned(), |n| n.to_string());
        let log = report.number("/log/bytes").map(|bytes| {
            let durability = report.text("/log/durability").unwrap_or("unknown");
            format!("{}, durability {durability}", size(bytes))
        });
        let state = match report.state {
            State::Ready => "ready",
            State::NotReady => "not ready",
            State::Unreachable => "not reachable",
        };
        table.row([
            report.name.to_owned(),
            state.to_owned(),
            report.pid.map_or("-".to_owned(), |pid| pid.to_string()),
            report
                .number("/uptime_s")
                .map_or("-".to_owned(), |secs| span(Duration::from_secs(secs))),
            report.with("/connections", "/connects/waiting", "waiting"),
            count("/sessions"),
            report.with("/messages_in", "/throttled", "throttled"),
            count("/messages_out"),
            log.unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    say(table);
    for report in reports {
        if let Some(error) = &report.error {
            say(format_args!(
                "{}",
                painted(Colour::Yellow, format_args!("{}: {error}", report.name))
            ));
        }
    }
}
