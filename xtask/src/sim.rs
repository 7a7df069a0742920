//! `cargo xtask sim`: simulations with seeds that nobody has played, for as long as one likes.
//!
//! A suite is a random test whose seeds come from `SEXTANT_SEED`. Each CPU plays a stretch of
//! seeds of one suite after another; a seed that fails is printed with what reproduces it, its
//! output is kept, and the rest of its stretch is played on.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::sh;

/// How long a stretch is meant to take.
const STRETCH: Duration = Duration::from_secs(20);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long to play, in hours
    #[arg(long, default_value_t = 1.0)]
    hours: f64,

    /// The first seed; by default one that the clock gives, so that each run plays new ones
    #[arg(long)]
    from: Option<u64>,

    /// Play this suite alone
    #[arg(long, value_enum)]
    suite: Option<Suite>,

    /// How many play at once [default: one per CPU]
    #[arg(long)]
    jobs: Option<usize>,
}

/// What can be played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Suite {
    /// The whole push broker: clients, cores, network, disk, crashes
    Push,
    /// Cores of the ring, with faults of every kind
    Ring,
    /// A log that crashes, at the level of sectors
    Segment,
}

impl Suite {
    const ALL: [Suite; 3] = [Suite::Push, Suite::Ring, Suite::Segment];

    fn package(self) -> &'static str {
        match self {
            Suite::Push => "sextant-push",
            Suite::Ring => "sextant-ring",
            Suite::Segment => "sextant-segment",
        }
    }

    /// Its tests, by the beginnings of their names in the package's test `it`.
    fn tests(self) -> &'static [&'static str] {
        match self {
            Suite::Push => &["random::what_was_acknowledged"],
            Suite::Ring => &["chaos::sim::"],
            Suite::Segment => &["crash::", "sim::"],
        }
    }
}

/// A suite that is built, and how far it was played.
struct Built {
    suite: Suite,
    program: PathBuf,
    next: u64,
    /// Seeds of the next stretch.
    stretch: u64,
    played: u64,
}

struct Plan {
    suites: Vec<Built>,
    /// Whose turn it is.
    turn: usize,
}

/// What all players share.
struct Play {
    plan: Mutex<Plan>,
    ends: Instant,
    began: Instant,
    failures: AtomicU64,
    given_up: AtomicBool,
    commit: String,
    logs: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if !(args.hours > 0.0 && args.hours < 10_000.0) {
        bail!("--hours is a number above 0, not {}", args.hours);
    }
    let suites =
        Suite::ALL.into_iter().filter(|suite| args.suite.is_none_or(|only| only == *suite));
    let from = args.from.unwrap_or_else(new_seed);
    let messages = build()?;
    let built = suites
        .map(|suite| {
            let program = program(suite, &messages)?;
            Ok(Built { suite, program, next: from, stretch: 16, played: 0 })
        })
        .collect::<Result<Vec<_>>>()?;
    let logs = sh::target()?.join("sim");
    std::fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
    let jobs = match args.jobs {
        Some(jobs) => jobs.max(1),
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let began = Instant::now();
    let play = Play {
        plan: Mutex::new(Plan { suites: built, turn: 0 }),
        ends: began + Duration::from_secs_f64(args.hours * 3600.0),
        began,
        failures: AtomicU64::new(0),
        given_up: AtomicBool::new(false),
        commit: commit(),
        logs,
    };
    sh::headline(&format!("playing on {jobs} threads from seed {from}, commit {}", play.commit));
    let done: Vec<Result<()>> = std::thread::scope(|scope| {
        let players: Vec<_> = (0..jobs).map(|_| scope.spawn(|| play.player())).collect();
        players.into_iter().map(|player| player.join().expect("no player panics")).collect()
    });
    done.into_iter().collect::<Result<()>>()?;
    println!("{}", play.summary());
    match play.failures.load(Ordering::Relaxed) {
        0 => Ok(()),
        count => bail!("{count} seeds failed; their output is in {}", play.logs.display()),
    }
}

/// A first seed for a run: far from those of the tests, and from those of another second.
fn new_seed() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs() * 1_000_000
}

fn commit() -> String {
    let git = |args: &[&str]| {
        let output = sh::command("git").args(args).stderr(Stdio::null()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(head) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".to_owned() };
    match git(&["status", "--porcelain", "--untracked-files=no"]).is_none_or(|text| text.is_empty())
    {
        true => head,
        false => format!("{head} with changes"),
    }
}

/// Builds the tests `it`, all of them as `cargo xtask test` does, so that nothing is built twice.
/// Tells what cargo said.
fn build() -> Result<Vec<Value>> {
    let mut cargo = sh::cargo();
    cargo.args(["test", "--workspace", "--release", "--no-run", "--test", "it"]);
    cargo.arg("--message-format=json-render-diagnostics");
    println!("{}", sh::paint(sh::GREY, format_args!("$ {}", sh::shown(&cargo))));
    let output = cargo.stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    if !output.status.success() {
        bail!("the tests do not build");
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// The program of a suite among what was built.
fn program(suite: Suite, messages: &[Value]) -> Result<PathBuf> {
    let named = format!("#{}@", suite.package());
    let is_it = |message: &&Value| {
        let id = message["package_id"].as_str().unwrap_or_default();
        message["target"]["name"] == "it" && id.contains(&named)
    };
    let program = messages.iter().filter(is_it).find_map(|message| message["executable"].as_str());
    let program = program.with_context(|| format!("cargo built no test of {}", suite.package()))?;
    Ok(PathBuf::from(program))
}

impl Play {
    /// Plays stretches until the time is over.
    fn player(&self) -> Result<()> {
        while Instant::now() < self.ends && !self.given_up.load(Ordering::Relaxed) {
            let (at, suite, program, from, to) = {
                let mut plan = self.plan.lock().expect("no player panics");
                let at = plan.turn % plan.suites.len();
                plan.turn += 1;
                let built = &mut plan.suites[at];
                let from = built.next;
                built.next += built.stretch;
                (at, built.suite, built.program.clone(), from, built.next)
            };
            let began = Instant::now();
            let played = self.stretch(suite, &program, from, to);
            if played.is_err() {
                self.given_up.store(true, Ordering::Relaxed);
            }
            self.note(at, played?, began.elapsed());
        }
        Ok(())
    }

    /// Plays a stretch of seeds, those behind one that failed included. Tells how many.
    fn stretch(&self, suite: Suite, program: &Path, mut from: u64, to: u64) -> Result<u64> {
        let first = from;
        while from < to && Instant::now() < self.ends {
            let seeds = format!("{from}..{to}");
            let output = play(suite, program, &seeds)?;
            if output.status.success() {
                return Ok(to - first);
            }
            let text = String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr);
            let Some(seed) = failed_seed(&text).filter(|seed| (from..to).contains(seed)) else {
                bail!("{} {seeds} failed without naming a seed:\n{text}", suite.package());
            };
            self.tell_failure(suite, seed, &text)?;
            from = seed + 1;
        }
        Ok(from.min(to) - first)
    }

    fn tell_failure(&self, suite: Suite, seed: u64, text: &str) -> Result<()> {
        self.failures.fetch_add(1, Ordering::Relaxed);
        let log = self.logs.join(format!("{}-{seed}.log", suite.package()));
        std::fs::write(&log, text).with_context(|| format!("cannot write {}", log.display()))?;
        let why = text.lines().skip_while(|line| !line.contains("panicked at")).nth(1);
        println!(
            "{} {} seed {seed} at commit {}: {}",
            sh::paint(sh::RED, "failed:"),
            suite.package(),
            self.commit,
            why.unwrap_or("see its output")
        );
        println!(
            "  SEXTANT_SEED={seed} cargo test --release -p {} --test it -- {}",
            suite.package(),
            suite.tests().join(" ")
        );
        println!("  {}", log.display());
        Ok(())
    }

    /// Notes a stretch, and says how far the play is.
    fn note(&self, at: usize, played: u64, took: Duration) {
        let mut plan = self.plan.lock().expect("no player panics");
        let built = &mut plan.suites[at];
        built.played += played;
        let fits = STRETCH.as_secs_f64() / took.as_secs_f64().max(0.001) * built.stretch as f64;
        built.stretch = (fits as u64).clamp(1, built.stretch * 4);
        drop(plan);
        println!("{}", self.summary());
    }

    fn summary(&self) -> String {
        let plan = self.plan.lock().expect("no player panics");
        let mut text = format!("{:>6.0} s:", self.began.elapsed().as_secs_f64());
        for built in &plan.suites {
            let name = built.suite.package().trim_start_matches("sextant-");
            let _ = write!(text, " {} {name},", built.played);
        }
        let failures = self.failures.load(Ordering::Relaxed);
        let colour = if failures == 0 { sh::GREEN } else { sh::RED };
        format!("{text} {}", sh::paint(colour, format_args!("{failures} failed")))
    }
}

fn play(suite: Suite, program: &Path, seeds: &str) -> Result<Output> {
    let mut command = sh::command(program);
    // One thread, so that the first failure is that of the seed that is named.
    command.args(suite.tests()).args(["--test-threads", "1"]);
    command.env("SEXTANT_SEED", seeds).env("RUST_BACKTRACE", "1").stdin(Stdio::null());
    command.output().with_context(|| format!("cannot run {}", program.display()))
}

/// The seed that a failed test names.
fn failed_seed(text: &str) -> Option<u64> {
    let (_, behind) = text.rsplit_once("SEXTANT_SEED=")?;
    let digits = behind.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_that_failed_is_read_off_the_output() {
        let text = "run it again with SEXTANT_SEED=17\nand [SEXTANT_SEED=18]";
        assert_eq!(failed_seed(text), Some(18));
        assert_eq!(failed_seed("SEXTANT_SEED=…"), None);
        assert_eq!(failed_seed("nothing"), None);
    }
}
