//! `cargo xtask counts`: what the hot paths cost in instructions, which noise does not move.

use anyhow::Result;

use crate::setup::{self, Purpose};
use crate::sh;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Make these counts the ones that the tests expect
    #[arg(long)]
    accept: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::run(Purpose::Test)?;
    // As the tests are built, so that nothing is built twice.
    let mut build = sh::cargo();
    build.args(["build", "--workspace", "--release", "--bin", "sextant-counts"]);
    sh::run(&mut build)?;
    let mut counts = sh::command(sh::target()?.join("release/sextant-counts"));
    counts.args(args.accept.then_some("--accept"));
    sh::run(&mut counts)
}
