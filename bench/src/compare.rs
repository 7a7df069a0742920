//! Comparisons: cases, each asked of several sides. All sides are measured in each round, one after
//! the other (A B C A B C …), so that what the machine does besides meets all of them; a ratio is
//! taken within each round, and its median is what counts.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use sextant_load::Outcome;

use crate::report::{self, CaseReport, Figure, Host, Ratio, Report, Side, Wanted, number};

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) rounds: u32,
    pub(crate) warm_up: Duration,
    pub(crate) measure: Duration,
}

impl Plan {
    /// Seconds, five times; or just long enough to see that it works.
    pub(crate) fn new(quick: bool, rounds: Option<u32>) -> Plan {
        let (usual, warm_up, measure) = if quick { (1, 100, 300) } else { (5, 1000, 4000) };
        Plan {
            rounds: rounds.unwrap_or(usual).max(1),
            warm_up: Duration::from_millis(warm_up),
            measure: Duration::from_millis(measure),
        }
    }
}

/// One run of this program.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) plan: Plan,
    pub(crate) quick: bool,
    /// Where results go.
    pub(crate) out: PathBuf,
    /// How it was asked for.
    pub(crate) command: String,
}

type Measure<'m> = Box<dyn FnMut(&Plan) -> Result<Vec<Figure>> + 'm>;

/// How two sides are put beside each other.
struct RatioPlan {
    of: String,
    to: String,
    /// Whether the headline is a cost (`of` / `to`), or what is bought for one is told (`to` /
    /// `of`).
    gain: bool,
    wanted: Option<Wanted>,
}

/// A question, and whom it is asked of.
pub(crate) struct Case<'m> {
    name: String,
    headline: String,
    sides: Vec<(String, Measure<'m>)>,
    ratios: Vec<RatioPlan>,
}

impl<'m> Case<'m> {
    /// A case whose first figure is `headline`.
    pub(crate) fn new(name: impl Into<String>, headline: impl Into<String>) -> Case<'m> {
        Case { name: name.into(), headline: headline.into(), sides: Vec::new(), ratios: Vec::new() }
    }

    /// Asks a side too.
    pub(crate) fn side(
        mut self,
        name: impl Into<String>,
        measure: impl FnMut(&Plan) -> Result<Vec<Figure>> + 'm,
    ) -> Case<'m> {
        self.sides.push((name.into(), Box::new(measure)));
        self
    }

    /// What `of` costs in terms of `to`.
    pub(crate) fn costs(mut self, of: &str, to: &str, wanted: Option<Wanted>) -> Case<'m> {
        let (of, to) = (of.to_owned(), to.to_owned());
        self.ratios.push(RatioPlan { of, to, gain: false, wanted });
        self
    }

    /// How often `of` does for the same cost what `to` does once.
    pub(crate) fn gains(mut self, of: &str, to: &str, wanted: Option<Wanted>) -> Case<'m> {
        let (of, to) = (of.to_owned(), to.to_owned());
        self.ratios.push(RatioPlan { of, to, gain: true, wanted });
        self
    }
}

/// A run in the making.
pub(crate) struct Bench<'m> {
    run: &'m Run,
    report: Report,
    cases: Vec<Case<'m>>,
}

impl<'m> Bench<'m> {
    /// One without cases yet.
    ///
    /// # Errors
    /// This program does not know its own version.
    pub(crate) fn new(run: &'m Run, name: &str, title: &str) -> Result<Bench<'m>> {
        let now = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string();
        let mut report = Report {
            name: name.to_owned(),
            title: title.to_owned(),
            date: now,
            command: run.command.clone(),
            quick: run.quick,
            rounds: run.plan.rounds,
            host: Host::here(),
            versions: Vec::new(),
            notes: Vec::new(),
            cases: Vec::new(),
        };
        report.versions.push(("sextant".to_owned(), own_version()));
        println!("{title}");
        if report.host.load_before > 0.5 {
            println!(
                "This machine is busy (load average {}): the numbers will be the worse for it.",
                report.host.load_before
            );
        }
        Ok(Bench { run, report, cases: Vec::new() })
    }

    /// Says something beside the results.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.report.notes.push(note.into());
    }

    /// Tells the version of a peer: what `command` says first.
    ///
    /// # Errors
    /// It cannot be run.
    pub(crate) fn version(&mut self, name: &str, command: &mut Command) -> Result<()> {
        let output = command
            .output()
            .with_context(|| format!("{name} is not installed (`cargo xtask bench` does that)"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let first = text.lines().next().unwrap_or_default();
        let version = first.rsplit([' ', '-']).next().unwrap_or("unknown");
        self.report.versions.push((name.to_owned(), version.to_owned()));
        Ok(())
    }

    /// Adds a case.
    pub(crate) fn add(&mut self, case: Case<'m>) {
        self.cases.push(case);
    }

    /// Measures everything, and leaves the results where they belong.
    ///
    /// # Errors
    /// A measurement fails: then there are no results.
    pub(crate) fn run(mut self) -> Result<()> {
        let plan = self.run.plan;
        for case in &self.cases {
            let sides =
                case.sides.iter().map(|(name, _)| Side { name: name.clone(), rounds: Vec::new() });
            self.report.cases.push(CaseReport {
                name: case.name.clone(),
                headline: case.headline.clone(),
                sides: sides.collect(),
                ratios: Vec::new(),
            });
        }
        for round in 1..=plan.rounds {
            println!("round {round} of {}", plan.rounds);
            for (case, found) in self.cases.iter_mut().zip(&mut self.report.cases) {
                println!("  {}", case.name);
                for ((name, measure), side) in case.sides.iter_mut().zip(&mut found.sides) {
                    let mut figures =
                        measure(&plan).with_context(|| format!("{}, {name}", case.name))?;
                    if let Some(first) = figures.first_mut() {
                        first.name.clone_from(&case.headline);
                    }
                    println!("    {name:<14} {}", line(&figures));
                    side.rounds.push(figures);
                }
            }
        }
        for (case, found) in self.cases.iter().zip(&mut self.report.cases) {
            found.ratios = case.ratios.iter().filter_map(|plan| ratio(found, plan)).collect();
        }
        self.report.host.load_after = report::load_average();
        let table = self.report.write(&self.run.out)?;
        println!("\n{}", self.report.markdown());
        println!("Written: {}, and .json and .svg beside it", table.display());
        Ok(())
    }
}

/// The figures of one measurement, on a line.
fn line(figures: &[Figure]) -> String {
    let words: Vec<String> =
        figures.iter().map(|figure| format!("{} {}", number(figure.value), figure.name)).collect();
    words.join("  ")
}

fn ratio(found: &CaseReport, plan: &RatioPlan) -> Option<Ratio> {
    let values = |name: &str| {
        let side = found.sides.iter().find(|side| side.name == name)?;
        Some(side.values(0))
    };
    let (of, to) = (values(&plan.of)?, values(&plan.to)?);
    let rounds: Vec<f64> = of
        .iter()
        .zip(&to)
        .map(|(of, to)| if plan.gain { to / of } else { of / to })
        .filter(|ratio| ratio.is_finite())
        .collect();
    let what = if plan.gain {
        format!("{}, for one of {} at the same cost", plan.of, plan.to)
    } else {
        format!("{} / {}", plan.of, plan.to)
    };
    Ratio::of(what, &rounds, plan.wanted)
}

/// The version of this build, and the commit of the sources if they are here.
fn own_version() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let sources = env!("CARGO_MANIFEST_DIR");
    let git = Command::new("git")
        .args(["-C", sources, "describe", "--always", "--dirty", "--abbrev=10"])
        .output();
    match git {
        Ok(output) if output.status.success() => {
            format!("{version} ({})", String::from_utf8_lossy(&output.stdout).trim())
        }
        _ => version.to_owned(),
    }
}

/// The figures of a load: the server's CPU for each completion first.
pub(crate) fn load_figures(outcome: &Outcome) -> Vec<Figure> {
    let us = |ns: u64| ns as f64 / 1000.0;
    let elapsed = outcome.elapsed.as_secs_f64();
    let share = |used: Duration| used.as_secs_f64() / elapsed * 100.0;
    vec![
        Figure::new("", outcome.server_ns_each().unwrap_or(f64::NAN) / 1000.0),
        Figure::new("a second", outcome.per_second()),
        Figure::new("p50 µs", us(outcome.latency.p50_ns)),
        Figure::new("p99 µs", us(outcome.latency.p99_ns)),
        Figure::new("p99.9 µs", us(outcome.latency.p999_ns)),
        Figure::new("missing", outcome.missing as f64),
        Figure::new("% server busy", share(outcome.server_cpu.unwrap_or_default())),
        Figure::new("% load busy", share(outcome.client_cpu)),
        Figure::new("p99 µs begun late", us(outcome.lateness.p99_ns)),
    ]
}
