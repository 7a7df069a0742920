//! `cargo xtask fuzz`: libFuzzer over every target of `tests/fuzz`.
//!
//! ```text
//!   tests/fuzz/corpus/NAME.hex ──► target/fuzz/corpus/NAME/… ──► libFuzzer ──► merged ──┐
//!              ▲                                                    │                   │
//!              └────────────────────────────────────────────────────│───────────────────┘
//!   tests/fuzz/findings/NAME.hex ◄── made small ◄── an input that breaks the target
//! ```
//!
//! The fuzzer needs no nightly compiler: the instrumentation is LLVM's own, asked for by name.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::sh;

/// Inputs longer than this are not tried, in bytes.
const INPUT_BYTES_MAX: u32 = 4096;
/// How long one input may take.
const INPUT_TIME_MAX: Duration = Duration::from_secs(5);
/// How long making a finding smaller may take.
const SHRINK_TIME: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long to fuzz, in minutes, all targets together
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,

    /// These targets alone
    targets: Vec<String>,
}

/// The flags that make rustc put LLVM's coverage counters in, for libFuzzer to follow.
const INSTRUMENTATION: [&str; 7] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions=yes",
    "-Ccodegen-units=1",
];

pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(args.minutes > 0.0, "--minutes is a number above 0, not {}", args.minutes);
    let all = targets()?;
    for name in &args.targets {
        ensure!(all.contains(name), "no target is called {name}: there are {}", all.join(", "));
    }
    let chosen: Vec<&String> = match args.targets.is_empty() {
        true => all.iter().collect(),
        false => args.targets.iter().collect(),
    };
    let program = build()?;
    let time = Duration::from_secs_f64(args.minutes * 60.0 / chosen.len() as f64);
    let mut found = Vec::new();
    for name in chosen {
        let target = Fuzzed::new(name, &program)?;
        if let Some(finding) = target.run(time)? {
            found.push(finding);
        }
    }
    if !found.is_empty() {
        bail!("inputs that break their targets were found; `cargo test -p sextant-fuzz` runs them");
    }
    Ok(())
}

/// The names of all targets, from the table in their crate.
fn targets() -> Result<Vec<String>> {
    let path = sh::root().join("tests/fuzz/src/lib.rs");
    let text = fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))?;
    let names = text.lines().filter_map(|line| {
        let name = line.trim().strip_prefix("Target { name: \"")?;
        name.split_once('"').map(|(name, _)| name.to_owned())
    });
    let names: Vec<String> = names.collect();
    ensure!(!names.is_empty(), "{} names no target", path.display());
    Ok(names)
}

fn build() -> Result<PathBuf> {
    let host = host()?;
    let target_dir = sh::target()?.join("fuzz");
    let mut cargo = sh::cargo();
    cargo.args(["build", "--release", "-p", "sextant-fuzz", "--features", "libfuzzer"]);
    // With a target named, build scripts and macros are not instrumented.
    cargo.args(["--target", &host]).arg("--target-dir").arg(&target_dir);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", INSTRUMENTATION.join("\u{1f}"));
    sh::run(&mut cargo).context("the fuzzer does not build: it needs a C++ compiler")?;
    Ok(target_dir.join(host).join("release/sextant-fuzz"))
}

fn host() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = sh::command(rustc).arg("-vV").output().context("cannot run rustc")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc does not tell its host")
}

/// A target that is being fuzzed.
struct Fuzzed<'a> {
    name: &'a str,
    program: &'a Path,
    /// Its inputs, a file each.
    corpus: PathBuf,
    /// What libFuzzer finds.
    artifacts: PathBuf,
}

impl<'a> Fuzzed<'a> {
    fn new(name: &'a str, program: &'a Path) -> Result<Fuzzed<'a>> {
        let dir = sh::target()?.join("fuzz");
        let fuzzed = Fuzzed {
            name,
            program,
            corpus: dir.join("corpus").join(name),
            artifacts: dir.join("artifacts").join(name),
        };
        // What was found before is among the findings.
        let _ = fs::remove_dir_all(&fuzzed.artifacts);
        for dir in [&fuzzed.corpus, &fuzzed.artifacts] {
            fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        for kept in ["corpus", "findings"] {
            for input in read_inputs(&kept_path(kept, name))? {
                write_input(&fuzzed.corpus, &input)?;
            }
        }
        Ok(fuzzed)
    }

    fn command(&self) -> Command {
        let mut command = sh::command(self.program);
        command.env("SEXTANT_FUZZ_TARGET", self.name);
        let mut prefix = self.artifacts.clone().into_os_string();
        prefix.push("/");
        command.arg(flag("artifact_prefix", prefix));
        command.arg(flag("timeout", INPUT_TIME_MAX.as_secs().to_string()));
        command.arg(flag("max_len", INPUT_BYTES_MAX.to_string()));
        command
    }

    /// Fuzzes for a time, and puts what is new into the corpus. Tells what broke the target.
    fn run(&self, time: Duration) -> Result<Option<PathBuf>> {
        sh::headline(&format!("{} for {}", self.name, sh::seconds(time)));
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        let mut fuzzer = self.command();
        fuzzer.arg(flag("max_total_time", time.as_secs().max(1).to_string()));
        fuzzer.arg(flag("fork", jobs.to_string())).args(["-print_final_stats=1"]);
        fuzzer.arg(&self.corpus);
        let succeeded = self.follow(&mut fuzzer)?;
        self.merge()?;
        if succeeded {
            return Ok(None);
        }
        let artifact = self.artifact()?;
        let input = self.shrunk(&artifact)?;
        let path = kept_path("findings", self.name);
        let mut inputs = fs::read_to_string(&path).unwrap_or_default();
        let _ = writeln!(inputs, "# What it broke:\n{}", hex(&input));
        write_text(&path, &inputs)?;
        println!(
            "{} {} bytes break {}: added to {}, where a line should say what they broke",
            sh::paint(sh::RED, "found:"),
            input.len(),
            self.name,
            path.display()
        );
        Ok(Some(path))
    }

    /// Runs the fuzzer, tells how far it is, and keeps all that it says. Whether it found nothing.
    fn follow(&self, fuzzer: &mut Command) -> Result<bool> {
        let mut child = fuzzer
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run the fuzzer")?;
        let log = self.artifacts.with_extension("log");
        let mut kept =
            fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let said = child.stderr.take().context("the fuzzer says nothing")?;
        for line in BufReader::new(said).lines() {
            let line = line.context("the fuzzer cannot be read")?;
            writeln!(kept, "{line}")?;
            if let Some(progress) = progress(&line) {
                println!("  {progress}");
            } else if line.contains("panicked at") || line.starts_with("==") {
                println!("  {}", sh::paint(sh::RED, &line));
            }
        }
        let status = child.wait().context("the fuzzer is gone")?;
        if !status.success() {
            println!("  {}", sh::paint(sh::GREY, format_args!("all of it: {}", log.display())));
        }
        Ok(status.success())
    }

    /// Keeps of the corpus what is needed to reach all that it reaches.
    fn merge(&self) -> Result<()> {
        let merged = self.corpus.with_extension("merged");
        let _ = fs::remove_dir_all(&merged);
        fs::create_dir_all(&merged)?;
        let mut fuzzer = self.command();
        fuzzer.arg("-merge=1").arg(&merged).arg(&self.corpus);
        fuzzer.stdout(Stdio::null()).stderr(Stdio::null());
        let status = fuzzer.status().context("cannot run the fuzzer")?;
        ensure!(status.success(), "the corpus of {} cannot be merged ({status})", self.name);
        let mut inputs = BTreeSet::new();
        for entry in fs::read_dir(&merged)? {
            inputs.insert(fs::read(entry?.path())?);
        }
        // What a finding is stays with the findings.
        for finding in read_inputs(&kept_path("findings", self.name))? {
            inputs.remove(&finding);
        }
        let mut text = String::new();
        inputs.iter().for_each(|input| {
            let _ = writeln!(text, "{}", hex(input));
        });
        write_text(&kept_path("corpus", self.name), &text)?;
        fs::remove_dir_all(&self.corpus)?;
        fs::rename(&merged, &self.corpus)?;
        println!("{}", sh::paint(sh::GREEN, format_args!("✓ {} inputs kept", inputs.len())));
        Ok(())
    }

    /// The shortest input that broke the target.
    fn artifact(&self) -> Result<PathBuf> {
        let mut shortest = None;
        for entry in fs::read_dir(&self.artifacts)? {
            let entry = entry?;
            let found = (entry.metadata()?.len(), entry.path());
            if shortest.as_ref().is_none_or(|shortest| found < *shortest) {
                shortest = Some(found);
            }
        }
        shortest.map(|(_, path)| path).context("the fuzzer failed and left no input")
    }

    /// A smaller input that breaks the target too, if one is found in time.
    fn shrunk(&self, artifact: &Path) -> Result<Vec<u8>> {
        let smaller = self.artifacts.join("smaller");
        let _ = fs::remove_file(&smaller);
        let mut fuzzer = self.command();
        fuzzer.arg("-minimize_crash=1");
        fuzzer.arg(flag("max_total_time", SHRINK_TIME.as_secs().to_string()));
        fuzzer.arg(flag("exact_artifact_path", &smaller)).arg(artifact);
        fuzzer.stdout(Stdio::null()).stderr(Stdio::null());
        let _ = fuzzer.status().context("cannot run the fuzzer")?;
        // It may have been stopped while it wrote.
        let is_whole = fs::metadata(&smaller).is_ok_and(|found| found.len() > 0);
        let path = if is_whole { &smaller } else { artifact };
        fs::read(path).with_context(|| format!("cannot read {}", path.display()))
    }
}

/// What a line of libFuzzer's tells of its progress:
/// `#4499671: cov: 152 ft: 237 corp: 91 exec/s: 167028 oom/timeout/crash: 0/0/0 time: 20s …`.
fn progress(line: &str) -> Option<String> {
    let (count, rest) = line.strip_prefix('#')?.split_once(':')?;
    let field = |name: &str| {
        let (_, behind) = rest.split_once(&format!(" {name}: "))?;
        behind.split_whitespace().next()
    };
    Some(format!(
        "{:>4}: {count} inputs, {} a second; {} branches reached, by {} inputs",
        field("time")?,
        field("exec/s")?,
        field("cov")?,
        field("corp")?
    ))
}

fn flag(name: &str, value: impl AsRef<OsStr>) -> std::ffi::OsString {
    let mut flag = std::ffi::OsString::from(format!("-{name}="));
    flag.push(value);
    flag
}

fn kept_path(kind: &str, name: &str) -> PathBuf {
    sh::root().join("tests/fuzz").join(kind).join(name).with_extension("hex")
}

/// The inputs of a file that lists them in hexadecimal digits; none if there is no such file.
fn read_inputs(path: &Path) -> Result<Vec<Vec<u8>>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let lines = text.lines().enumerate();
    let inputs = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    inputs
        .map(|(at, line)| {
            unhex(line).with_context(|| format!("{}:{}: no input", path.display(), at + 1))
        })
        .collect()
}

/// Writes an input into a folder, under a name that its content gives.
fn write_input(dir: &Path, input: &[u8]) -> Result<()> {
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    let path = dir.join(format!("{:016x}", hasher.finish()));
    fs::write(&path, input).with_context(|| format!("cannot write {}", path.display()))
}

fn write_text(path: &Path, text: &str) -> Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    bytes.iter().for_each(|byte| {
        let _ = write!(text, "{byte:02x}");
    });
    text
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks(2).map(|digits| pair(digits).filter(|_| digits.len() == 2)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_read_as_they_are_written() {
        for input in [&b"\x00\xff\x10"[..], b"a"] {
            assert_eq!(unhex(&hex(input)).as_deref(), Some(input));
        }
        assert_eq!(unhex("0"), None);
        assert_eq!(unhex("0g"), None);
    }

    #[test]
    fn progress_is_read_off_a_line() {
        let line = "#79792: cov: 789 ft: 1595 corp: 469 exec/s: 18881 oom/timeout/crash: 0/0/0 \
                    time: 3s job: 2 dft_time: 0";
        let told = "  3s: 79792 inputs, 18881 a second; 789 branches reached, by 469 inputs";
        assert_eq!(progress(line).as_deref(), Some(told));
        assert_eq!(progress("INFO: Seed: 1"), None);
    }

    #[test]
    fn all_targets_are_found_in_their_table() {
        let names = targets().unwrap();
        assert!(names.contains(&"mqtt-decode".to_owned()), "{names:?}");
    }
}
