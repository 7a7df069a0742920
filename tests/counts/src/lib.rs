//! What the hot paths cost in instructions of the processor, a number that a busy machine does not
//! move. Each path is a function that does something `n` times; valgrind counts two runs of
//! different lengths, and their difference is what one time costs, without start and end.
//!
//! `expected.toml` has what each path cost when it was last looked at. The test `it` fails when one
//! costs more, or less, than [`is_expected`] lets it; `cargo xtask counts` prints all of them, and
//! with `--accept` makes them the expected ones.
//!
//! - [`wire`]: a driver without a kernel, whose peers are this program.
//! - [`paths`]: the paths.

pub mod paths;
mod store;
pub mod wire;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How far a count may be from the expected one, as a share of it.
const TOLERANCE: f64 = 0.03;
/// How far a count may be from the expected one in instructions, where that is more: a short path
/// is moved this far by the seeds of hash tables and by where a compiler puts a block.
const TOLERANCE_INSTRUCTIONS: f64 = 6.0;

/// Whether a count is what was expected, in instructions.
pub fn is_expected(counted: f64, wanted: f64) -> bool {
    (counted - wanted).abs() <= (wanted * TOLERANCE).max(TOLERANCE_INSTRUCTIONS)
}

/// Times that a path is gone in the two runs.
const TIMES: (u64, u64) = (500, 2500);

/// Why a path was not counted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CountError {
    /// This program does not know where it is.
    #[error("this program has no path: {0}")]
    Program(io::Error),
    /// There is no valgrind to run.
    #[error("cannot run valgrind, which counts the instructions: {0}")]
    Valgrind(io::Error),
    /// The path failed, or valgrind did.
    #[error("{path} was not counted: {output}")]
    Failed {
        /// Which path.
        path: &'static str,
        /// What was said.
        output: String,
    },
}

/// What going a path once costs, in instructions, counted with the program of this crate.
///
/// # Errors
/// See [`CountError`].
pub fn count(program: &Path, path: &'static str) -> Result<f64, CountError> {
    let (few, many) = TIMES;
    let (less, more) = (instructions(program, path, few)?, instructions(program, path, many)?);
    Ok((more as f64 - less as f64) / (many - few) as f64)
}

fn instructions(program: &Path, path: &'static str, times: u64) -> Result<u64, CountError> {
    let output = Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"])
        .arg(program)
        .args([path, &times.to_string()])
        .output()
        .map_err(CountError::Valgrind)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let counted = said.lines().find_map(|line| {
        let (_, number) = line.split_once("I refs:").or_else(|| line.split_once("I   refs:"))?;
        number.replace(',', "").trim().parse().ok()
    });
    match counted.filter(|_| output.status.success()) {
        Some(count) => Ok(count),
        None => Err(CountError::Failed { path, output: said }),
    }
}

/// Where the expected counts are.
pub fn expected_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("expected.toml")
}

/// The expected counts, by path.
///
/// # Errors
/// When the file is not there or is no list of numbers.
pub fn expected() -> io::Result<BTreeMap<String, f64>> {
    let text = std::fs::read_to_string(expected_path())?;
    let counts: BTreeMap<String, u64> =
        toml::from_str(&text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(counts.into_iter().map(|(path, count)| (path, count as f64)).collect())
}
