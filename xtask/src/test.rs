//! `cargo xtask test`: every check there is, cheapest first, in the one profile.
//!
//! The tests come last, so that the last lines are those of their own runner. Everything is built
//! by one command, tests and programs alike, with one choice of features for the dependencies:
//! the stages after it build nothing.

use std::process::Command;
use std::time::Instant;

use anyhow::Result;
use clap::ValueEnum;

use crate::setup::{self, Purpose};
use crate::{conformance, sh, web};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run one part of it
    #[arg(long, value_name = "PART")]
    only: Option<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Formatting
    Fmt,
    /// What is said of the MQTT standards
    Conformance,
    /// Lints
    Clippy,
    /// The tests of each crate and each package of npm by itself, and those in documentation
    Unit,
    /// Real clients against the programs
    E2e,
    /// Units, socket activation, notifications
    Systemd,
}

/// The crate of the end-to-end tests.
const E2E: &str = "sextant-tests";

pub(crate) fn run(args: &Args) -> Result<()> {
    let began = Instant::now();
    let runs = |part: Part| args.only.is_none_or(|only| only == part);
    let is_tested = [Part::Unit, Part::E2e, Part::Systemd].into_iter().any(runs);
    if is_tested {
        sh::stage("setup", || setup::run(Purpose::Test))?;
    }
    if runs(Part::Fmt) {
        sh::stage("fmt", || sh::run(sh::cargo().args(["fmt", "--all", "--check"])))?;
    }
    if runs(Part::Conformance) {
        sh::stage("conformance", conformance::check)?;
    }
    if is_tested {
        sh::stage("npm build", web::build)?;
    }
    if runs(Part::Clippy) {
        sh::stage("clippy", || {
            let flags = ["--workspace", "--all-targets", "--release", "--", "-D", "warnings"];
            sh::run(sh::cargo().arg("clippy").args(flags))
        })?;
    }
    if !is_tested {
        return Ok(());
    }
    sh::stage("build", || {
        sh::run(sh::cargo().args(["build", "--workspace", "--all-targets", "--release"]))
    })?;
    if runs(Part::Unit) {
        sh::stage("npm tests", web::test)?;
        sh::stage("doc tests", || {
            sh::run(sh::cargo().args(["test", "--workspace", "--release", "--doc", "--quiet"]))
        })?;
    }
    sh::headline(&format!("tests, after {}", sh::seconds(began.elapsed())));
    let tests = match setup::has_nextest() {
        true => nextest(args.only),
        false => cargo_test(args.only),
    };
    // Their runner has the last word.
    sh::become_command(tests)
}

fn nextest(only: Option<Part>) -> Command {
    let mut command = sh::cargo();
    command.args(["nextest", "run", "--workspace", "--release", "--no-fail-fast"]);
    let filter = match only {
        Some(Part::Unit) => Some(format!("not package({E2E})")),
        Some(Part::E2e) => Some(format!("package({E2E}) and not test(/^systemd::/)")),
        Some(Part::Systemd) => Some(format!("package({E2E}) and test(/^systemd::/)")),
        _ => None,
    };
    command.args(filter.iter().flat_map(|filter| ["--filterset", filter.as_str()]));
    command
}

fn cargo_test(only: Option<Part>) -> Command {
    let mut command = sh::cargo();
    command.args(["test", "--release", "--no-fail-fast", "--lib", "--bins", "--tests"]);
    let parts: &[&str] = match only {
        Some(Part::Unit) => &["--workspace", "--exclude", E2E],
        Some(Part::E2e) => &["--package", E2E, "--", "--skip", "systemd::"],
        Some(Part::Systemd) => &["--package", E2E, "--", "systemd::"],
        _ => &["--workspace"],
    };
    command.args(parts);
    command
}
