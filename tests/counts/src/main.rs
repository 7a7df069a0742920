//! Counts what the hot paths cost, or goes one of them.

use std::fmt::Write as _;
use std::process::ExitCode;

use sextant_counts::paths::PATHS;
use sextant_counts::{CountError, count, expected, expected_path};

const USAGE: &str = "\
usage: sextant-counts [--accept]     count all paths, and make these counts the expected ones
       sextant-counts PATH TIMES     go one path so many times, for a profiler";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] => table(false),
        ["--accept"] => table(true),
        [path, times] => go(path, times),
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}\npaths:");
    PATHS.iter().for_each(|path| eprintln!("  {:<16} {}", path.name, path.what));
    ExitCode::from(2)
}

fn go(path: &str, times: &str) -> ExitCode {
    let path = PATHS.iter().find(|known| known.name == path);
    match (path, times.parse()) {
        (Some(path), Ok(times)) => {
            (path.run)(times);
            ExitCode::SUCCESS
        }
        _ => usage(),
    }
}

/// Counts all paths, prints them, and writes them down if they are to be expected from now on.
fn table(accept: bool) -> ExitCode {
    let before = expected().unwrap_or_default();
    match count_all(&before) {
        Ok(counts) if accept => match std::fs::write(expected_path(), counts) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("cannot write {}: {error}", expected_path().display());
                ExitCode::FAILURE
            }
        },
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Tells the counts in the form of the file.
fn count_all(before: &std::collections::BTreeMap<String, f64>) -> Result<String, CountError> {
    let program = std::env::current_exe().map_err(CountError::Program)?;
    let mut text =
        String::from("# Instructions that each path takes once: `cargo xtask counts`.\n");
    println!("{:<16} {:>12} {:>9}", "path", "instructions", "expected");
    for path in PATHS {
        let counted = count(&program, path.name)?;
        let wanted = before.get(path.name);
        let shown = wanted.map_or("-".to_owned(), |wanted| format!("{wanted:.0}"));
        let change = wanted
            .map_or(String::new(), |wanted| format!("{:+.1} %", (counted / wanted - 1.0) * 100.0));
        println!("{:<16} {counted:>12.0} {shown:>9} {change:>8}  {}", path.name, path.what);
        let _ = writeln!(text, "{} = {:.0}", path.name, counted);
    }
    Ok(text)
}
