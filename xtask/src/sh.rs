//! Running commands before the eyes of whoever started this.

use std::ffi::OsStr;
use std::fmt::Display;
use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGINT, SIGTERM};

pub(crate) const RED: u8 = 31;
pub(crate) const GREEN: u8 = 32;
pub(crate) const CYAN: u8 = 36;
pub(crate) const GREY: u8 = 90;

/// `text` in a colour, where standard output is a terminal.
pub(crate) fn paint(colour: u8, text: impl Display) -> String {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if std::io::stdout().is_terminal() && !plain {
        format!("\x1b[{colour}m{text}\x1b[0m")
    } else {
        text.to_string()
    }
}

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// The target folder that this program was built into.
pub(crate) fn target() -> Result<PathBuf> {
    let own = std::env::current_exe().context("this program has no path")?;
    match own.ancestors().nth(2) {
        Some(target) => Ok(target.to_owned()),
        None => bail!("{} is not in a target folder", own.display()),
    }
}

/// A command in the workspace.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// The cargo that runs this.
pub(crate) fn cargo() -> Command {
    command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// A command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let quote = |text: &OsStr| {
        let text = text.to_string_lossy();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%^".contains(c);
        if !text.is_empty() && text.chars().all(plain) {
            text.into_owned()
        } else {
            format!("'{}'", text.replace('\'', r"'\''"))
        }
    };
    let program = Path::new(command.get_program());
    let program = match program.file_name() {
        Some(name) if name == "cargo" => name.to_owned(),
        _ => program.as_os_str().to_owned(),
    };
    let words: Vec<String> =
        std::iter::once(program.as_os_str()).chain(command.get_args()).map(quote).collect();
    words.join(" ")
}

/// Says a command, and runs it.
///
/// # Errors
///
/// It cannot be run, or fails; it has said why.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    println!("{}", paint(GREY, format_args!("$ {}", shown(command))));
    let status = command.status().with_context(|| format!("cannot run {}", shown(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(())
}

/// Says a command, and goes on as it: its exit code is this process's, its last line the last.
///
/// # Errors
///
/// It cannot be run.
pub(crate) fn become_command(mut command: Command) -> Result<()> {
    println!("{}", paint(GREY, format_args!("$ {}", shown(&command))));
    let error = command.exec();
    Err(error).with_context(|| format!("cannot run {}", shown(&command)))
}

/// Whether a command succeeds, without its output.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Whether a program is on PATH.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Takes note of the signals that ask this process to stop, instead of ending at once: what it has
/// begun is its own to end or put back. The value is the number of the last one, zero before.
pub(crate) fn stops_asked() -> Result<Arc<AtomicUsize>> {
    let asked = Arc::new(AtomicUsize::new(0));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_usize(signal, Arc::clone(&asked), signal as usize)
            .context("cannot listen for signals")?;
    }
    Ok(asked)
}

/// Runs a stage between its headline and how long it took.
///
/// # Errors
///
/// Those of `run`, with the stage's name.
pub(crate) fn stage(name: &str, run: impl FnOnce() -> Result<()>) -> Result<()> {
    headline(name);
    let began = Instant::now();
    run().with_context(|| format!("stage {name}"))?;
    println!("{}", paint(GREEN, format_args!("✓ {name}, {}", seconds(began.elapsed()))));
    Ok(())
}

/// The headline of a stage.
pub(crate) fn headline(name: &str) {
    println!("{}", paint(CYAN, format_args!("── {name}")));
}

/// A duration in seconds.
pub(crate) fn seconds(took: Duration) -> String {
    format!("{:.1} s", took.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_one_would_type_it() {
        let mut command = Command::new("/some/where/cargo");
        command.args(["test", "a b", "it's", ""]);
        assert_eq!(shown(&command), r"cargo test 'a b' 'it'\''s' ''");
    }
}
