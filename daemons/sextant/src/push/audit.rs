//! `sextant push audit`: whether the audit is as it was written, and its end, to be published.
//!
//! A verification reads the files themselves: it needs no daemon, and trusts none.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Instant;

use serde::Deserialize;
use sextant_audit::{Expected, Head, Report};

use crate::cli::{AuditCommand, AuditVerifyArgs};
use crate::error::Error;
use crate::place::Place;
use crate::terminal::{Colour, note, painted, say};

/// Where the push daemon has its audit, in the data directory.
const DIR: &str = "push/platform/audit";

pub(super) fn run(place: &Place, command: &AuditCommand) -> Result<(), Error> {
    match command {
        AuditCommand::Verify(args) => verify(place, args),
        AuditCommand::Head => head(place),
    }
}

#[derive(Deserialize)]
struct Told {
    seq: u64,
    hash: String,
}

/// The end of the chain, as the daemon tells it.
fn head(place: &Place) -> Result<(), Error> {
    let push = place.push()?;
    let told: Told = push.client.get("/v1/audit/head").map_err(|source| push.failed(source))?;
    say(format_args!("{}:{}", told.seq, told.hash));
    Ok(())
}

fn verify(place: &Place, args: &AuditVerifyArgs) -> Result<(), Error> {
    let dir: PathBuf = args.dir.clone().unwrap_or_else(|| place.data.join(DIR));
    let expected = args.expect.as_deref().map(str::parse::<Head>).transpose();
    let expected = expected.map_err(|error| Error::Usage(format!("--expect: {error}")))?;
    let begin = Instant::now();
    let shows_progress = std::io::stderr().is_terminal();
    let mut told = 0;
    let report = sextant_audit::verify(&dir, expected, |progress| {
        if shows_progress && begin.elapsed().as_secs() > told {
            told = begin.elapsed().as_secs();
            let (segment, segments) = (progress.segment, progress.segments);
            note(format_args!("segment {segment} of {segments}, {} records", progress.records));
        }
    });
    let report = report.map_err(Error::io(format!("read {}", dir.display())))?;
    tell(&report);
    match (report.is_whole(), report.records) {
        (true, 0) => Err(Error::Outcome(format!("there is no audit in {}", dir.display()))),
        (true, _) => Ok(()),
        (false, _) => Err(Error::Outcome("the audit is not as it was written".to_owned())),
    }
}

fn tell(report: &Report) {
    for damage in &report.damage {
        say(format_args!("{} {damage}", painted(Colour::Red, "✗")));
    }
    if report.damage_more > 0 {
        say(format_args!("  and {} more places", report.damage_more));
    }
    if let Some(torn) = report.torn {
        say(format_args!("  {torn}: the last record is cut off, as a crash leaves it"));
    }
    let Report { records, facts, events, first_seq, head, .. } = report;
    say(format_args!("records   {records} ({facts} facts, {events} events), from {first_seq} on"));
    say(format_args!("head      {head}"));
    match report.expected {
        None => {}
        Some(Expected::Met) => say("expected  it is there, and is the one"),
        Some(Expected::Removed) => {
            say("expected  it was removed by age or size, so that nothing can be said of it");
        }
        Some(Expected::Missed) => say("expected  it is not there, or is another"),
    }
    if report.is_whole() && report.records > 0 {
        say(format_args!("{} every record is as it was written", painted(Colour::Green, "✓")));
    }
}
