//! The command line of Sextant: runs the daemons together, and speaks to them.
//!
//! ```text
//!   cli ─► up       starts the daemons, prefixes their output, restarts what dies;
//!                   `console` beside them: the web page of all of them
//!       ─► status   asks each daemon how it is                    ┐ HTTP, with the admin token
//!       ─► push     send, show, clients, …: the daemon's HTTP API ┘ that `place` finds
//!                   watch: an MQTT 5 client;  passwd: nothing but this machine
//! ```
//!
//! Results go to standard output, one thing a line, so that they can be piped; progress and
//! errors go to standard error. An error is a sentence that says what to do. Exit codes: 0 done,
//! 1 not done, 2 the command line or a configuration is wrong.

mod backoff;
mod cli;
mod console;
mod error;
mod place;
mod push;
mod status;
mod terminal;
mod up;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::place::Place;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let place = Place { data: cli.data, url: cli.url, token: cli.token };
    let done = match cli.command {
        Command::Up(args) => up::run(&place, &args),
        Command::Status(args) => status::run(&place, &args),
        Command::Push { command } => push::run(&place, &command),
        Command::Exec(args) => up::exec(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::complain(&error);
            ExitCode::from(error.exit_code())
        }
    }
}
