//! The project's own commands, run as `cargo xtask …`.
//!
//! ```text
//!   setup   installs what is missing, and says each command that it runs
//!   up      setup, build, `sextant up`, and a message to a real device before your eyes
//!   test    setup, rustfmt, clippy, build, doc tests, all tests, those of npm's packages, too
//!   sim     plays simulations with seeds that nobody has played, for hours
//!   fuzz    looks for inputs that break what reads them, for minutes
//!   bench   measures beside peers, and leaves a table, a picture and JSON
//!   counts  counts the instructions of the hot paths
//!   conformance  writes which code and test each statement of MQTT has
//! ```
//!
//! One profile, release, is used throughout, so that what is built once serves all of them.

mod bench;
mod conformance;
mod counts;
mod fuzz;
mod proof;
mod setup;
mod sh;
mod sim;
mod test;
mod up;
mod web;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::setup::Purpose;

/// Build, run and test this project.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install what running and testing need and this machine lacks
    Setup,
    /// Build and run everything, and see a message arrive
    Up(up::Args),
    /// Check and test everything
    Test(test::Args),
    /// Play simulations with new seeds for hours; a failure is printed with what reproduces it
    Sim(sim::Args),
    /// Fuzz what reads bytes that others wrote; the corpora grow, findings are kept as tests
    Fuzz(fuzz::Args),
    /// Measure beside peers, interleaved in one run
    Bench(bench::Args),
    /// Count the instructions of the hot paths, beside those that are expected
    Counts(counts::Args),
    /// Write which code meets each statement of the MQTT standards, and which test proves it
    Conformance(conformance::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Setup => setup::run(Purpose::Test),
        Command::Up(args) => up::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Sim(args) => sim::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Counts(args) => counts::run(&args),
        Command::Conformance(args) => conformance::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{} {error:#}", sh::paint(sh::RED, "error:"));
            ExitCode::FAILURE
        }
    }
}
