//! Comparisons: cases, each asked of several sides. All sides are measured in each round, one after
//! the other (A B C A B C …), so that what the machine does besides meets all of them; a ratio is
//! taken within each round, and its median is what counts.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
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
    /// What the names of cases have in them, if not all shall run.
    pub(crate) case: Option<String>,
}

type Measure<'m> = Box<dyn FnMut(&Plan) -> Result<Vec<Figure>> + 'm>;

/// Somebody who is asked.
struct Asked<'m> {
    name: String,
    measure: Measure<'m>,
    /// That it cannot do what it is asked is a result, too.
    may_fail: bool,
}

/// How a side is put beside others.
struct RatioPlan {
    what: String,
    /// Of which figure; without one, of the headline.
    figure: Option<&'static str>,
    of: String,
    /// Several only for [`Beside::Best`] and [`Beside::Least`].
    to: Vec<String>,
    how: Beside,
    wanted: Option<Wanted>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Beside {
    /// The headline is a cost: `of` / `to`.
    Cost,
    /// The headline is a cost, and what is bought for one is told: `to` / `of`.
    Gain,
    /// The figure is a rate: `of` / the highest of `to`.
    Best,
    /// The figure is a time: `of` / the lowest of `to`.
    Least,
    /// The headline itself.
    Alone,
}

/// A question, and whom it is asked of.
pub(crate) struct Case<'m> {
    name: String,
    headline: String,
    sides: Vec<Asked<'m>>,
    ratios: Vec<RatioPlan>,
    rounds_max: u32,
}

impl<'m> Case<'m> {
    /// A case whose first figure is `headline`.
    pub(crate) fn new(name: impl Into<String>, headline: impl Into<String>) -> Case<'m> {
        Case {
            name: name.into(),
            headline: headline.into(),
            sides: Vec::new(),
            ratios: Vec::new(),
            rounds_max: u32::MAX,
        }
    }

    /// Asks a side too.
    pub(crate) fn side(
        mut self,
        name: impl Into<String>,
        measure: impl FnMut(&Plan) -> Result<Vec<Figure>> + 'm,
    ) -> Case<'m> {
        self.sides.push(Asked { name: name.into(), measure: Box::new(measure), may_fail: false });
        self
    }

    /// Asks a peer too. If it fails, that is told with the results, and it is not asked again.
    pub(crate) fn peer(
        mut self,
        name: impl Into<String>,
        measure: impl FnMut(&Plan) -> Result<Vec<Figure>> + 'm,
    ) -> Case<'m> {
        self.sides.push(Asked { name: name.into(), measure: Box::new(measure), may_fail: true });
        self
    }

    /// Asks so often at most, however many rounds there are: what takes long.
    pub(crate) fn rounds_max(mut self, rounds: u32) -> Case<'m> {
        self.rounds_max = rounds;
        self
    }

    fn ratio(mut self, ratio: RatioPlan) -> Case<'m> {
        self.ratios.push(ratio);
        self
    }

    /// What `of` costs in terms of `to`.
    pub(crate) fn costs(self, of: &str, to: &str, wanted: Option<Wanted>) -> Case<'m> {
        let what = format!("{of} / {to}");
        let (of, to) = (of.to_owned(), vec![to.to_owned()]);
        self.ratio(RatioPlan { what, figure: None, of, to, how: Beside::Cost, wanted })
    }

    /// How often `of` does for the same cost what `to` does once.
    pub(crate) fn gains(self, of: &str, to: &str, wanted: Option<Wanted>) -> Case<'m> {
        let what = format!("at the same cost, {of} / {to}");
        let (of, to) = (of.to_owned(), vec![to.to_owned()]);
        self.ratio(RatioPlan { what, figure: None, of, to, how: Beside::Gain, wanted })
    }

    /// What the headline of `of` shall be by itself.
    pub(crate) fn limit(self, of: &str, wanted: Wanted) -> Case<'m> {
        let what = format!("{of}, {}", self.headline);
        let (of, wanted) = (of.to_owned(), Some(wanted));
        let how = Beside::Alone;
        self.ratio(RatioPlan { what, figure: None, of, to: Vec::new(), how, wanted })
    }

    /// The rate of `of` beside the highest of others in the same round, which go by one name.
    pub(crate) fn beside_best(
        self,
        of: &str,
        name: &str,
        others: &[&str],
        wanted: Option<Wanted>,
    ) -> Case<'m> {
        let what = format!("{of} / {name}");
        let to = others.iter().map(|&name| name.to_owned()).collect();
        let (of, how) = (of.to_owned(), Beside::Best);
        self.ratio(RatioPlan { what, figure: None, of, to, how, wanted })
    }

    /// A rate of `of`, which is one of its figures, beside that of `to` in the same round.
    pub(crate) fn rates(
        self,
        figure: &'static str,
        of: &str,
        to: &str,
        wanted: Option<Wanted>,
    ) -> Case<'m> {
        let what = format!("{figure}: {of} / {to}");
        let (of, to, how) = (of.to_owned(), vec![to.to_owned()], Beside::Best);
        self.ratio(RatioPlan { what, figure: Some(figure), of, to, how, wanted })
    }

    /// A time of `of`, which is one of its figures, beside the shortest of others in the same
    /// round, which go by one name.
    pub(crate) fn beside_least(
        self,
        figure: &'static str,
        of: &str,
        name: &str,
        others: &[&str],
        wanted: Option<Wanted>,
    ) -> Case<'m> {
        let what = format!("{figure}: {of} / {name}");
        let to = others.iter().map(|&name| name.to_owned()).collect();
        let (of, how) = (of.to_owned(), Beside::Least);
        self.ratio(RatioPlan { what, figure: Some(figure), of, to, how, wanted })
    }
}

impl Case<'_> {
    /// Measures all sides once.
    fn ask(&mut self, plan: &Plan, found: &mut CaseReport) -> Result<()> {
        say(format_args!("  {}", self.name));
        let width = self.sides.iter().map(|asked| asked.name.len()).max().unwrap_or(0);
        for (asked, side) in self.sides.iter_mut().zip(&mut found.sides) {
            if side.failed.is_some() {
                continue;
            }
            let name = &asked.name;
            match (asked.measure)(plan) {
                Ok(mut figures) => {
                    if let Some(first) = figures.first_mut() {
                        first.name.clone_from(&self.headline);
                    }
                    say(format_args!("    {name:<width$}  {}", line(&figures)));
                    side.rounds.push(figures);
                }
                Err(error) if asked.may_fail => {
                    let why = format!("{error:#}");
                    say(format_args!("    {name:<width$}  fails: {why}"));
                    side.failed = Some(why);
                }
                Err(error) => return Err(error.context(format!("{}, {name}", self.name))),
            }
        }
        Ok(())
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
        say(title);
        if report.host.load_before > 0.5 {
            say(format_args!(
                "This machine is busy (load average {}): the numbers will be the worse for it.",
                report.host.load_before
            ));
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

    /// Tells the version of a peer that says it in a way of its own.
    pub(crate) fn told(&mut self, name: &str, version: &str) {
        self.report.versions.push((name.to_owned(), version.to_owned()));
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
        if let Some(part) = &self.run.case {
            let names: Vec<String> = self.cases.iter().map(|case| case.name.clone()).collect();
            self.cases.retain(|case| case.name.contains(part.as_str()));
            if self.cases.is_empty() {
                bail!("no case has {part:?} in its name; there are: {}", names.join("; "));
            }
        }
        for case in &self.cases {
            let sides = case.sides.iter().map(|asked| Side::new(&asked.name));
            self.report.cases.push(CaseReport {
                name: case.name.clone(),
                headline: case.headline.clone(),
                sides: sides.collect(),
                ratios: Vec::new(),
            });
        }
        for round in 1..=plan.rounds {
            say(format_args!("round {round} of {}", plan.rounds));
            for (case, found) in self.cases.iter_mut().zip(&mut self.report.cases) {
                if round > case.rounds_max {
                    continue;
                }
                case.ask(&plan, found)?;
            }
        }
        for (case, found) in self.cases.iter().zip(&mut self.report.cases) {
            found.ratios = case.ratios.iter().filter_map(|plan| ratio(found, plan)).collect();
        }
        self.report.host.load_after = report::load_average();
        let table = self.report.write(&self.run.out)?;
        say(format_args!("\n{}", self.report.markdown()));
        say(format_args!("Written: {}, and .json and .svg beside it", table.display()));
        Ok(())
    }
}

/// Says something on standard output. Results are kept in files too: that nobody listens any more
/// does not end a run.
fn say(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// The figures of one measurement, on a line.
fn line(figures: &[Figure]) -> String {
    let words: Vec<String> =
        figures.iter().map(|figure| format!("{} {}", number(figure.value), figure.name)).collect();
    words.join("  ")
}

fn ratio(found: &CaseReport, plan: &RatioPlan) -> Option<Ratio> {
    let side = |name: &String| found.sides.iter().find(|side| side.name == *name);
    let values = |side: &Side| match plan.figure {
        None => side.values(0),
        Some(name) => side.values_of(name),
    };
    let of = values(side(&plan.of)?);
    let others: Vec<Vec<f64>> = plan.to.iter().filter_map(side).map(values).collect();
    let rounds: Vec<f64> = of
        .iter()
        .enumerate()
        .filter_map(|(round, of)| {
            let to = others.iter().filter_map(|values| values.get(round).copied());
            let to = match plan.how {
                Beside::Least => to.reduce(f64::min),
                _ => to.reduce(f64::max),
            };
            Some(match plan.how {
                Beside::Alone => *of,
                Beside::Gain => to? / of,
                Beside::Cost | Beside::Best | Beside::Least => of / to?,
            })
        })
        .filter(|ratio| ratio.is_finite())
        .collect();
    Ratio::of(plan.what.clone(), &rounds, plan.wanted)
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
        Figure::new("p99 µs begun late", us(outcome.lateness.p99_ns)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(case: &Case<'_>) -> CaseReport {
        CaseReport {
            name: case.name.clone(),
            headline: case.headline.clone(),
            sides: case.sides.iter().map(|asked| Side::new(&asked.name)).collect(),
            ratios: Vec::new(),
        }
    }

    #[test]
    fn a_peer_that_fails_is_told_and_not_asked_again() {
        let plan = Plan::new(true, None);
        let mut asked = 0;
        let mut case = Case::new("a case", "µs")
            .side("ours", |_| Ok(vec![Figure::new("", 1.0), Figure::new("p50 µs", 6.0)]))
            .peer("theirs", |_| {
                asked += 1;
                if asked == 2 { bail!("reset") } else { Ok(vec![Figure::new("", 4.0)]) }
            })
            .peer("others", |_| Ok(vec![Figure::new("", 5.0), Figure::new("p50 µs", 3.0)]))
            .gains("ours", "theirs", None)
            .beside_least("p50 µs", "ours", "best", &["theirs", "others"], None);
        let mut found = found(&case);
        for _ in 0..3 {
            case.ask(&plan, &mut found).unwrap();
        }
        let ratios: Vec<f64> =
            case.ratios.iter().map(|plan| ratio(&found, plan).unwrap().median).collect();
        assert_eq!(ratios, [4.0, 2.0]);
        drop(case);
        let rounds: Vec<usize> = found.sides.iter().map(|side| side.rounds.len()).collect();
        assert_eq!((asked, rounds), (2, vec![3, 1, 3]));
        assert_eq!(found.sides[1].failed.as_deref(), Some("reset"));
    }

    #[test]
    fn our_own_failure_ends_the_run() {
        let mut case = Case::new("a case", "µs").side("ours", |_| bail!("broken"));
        let mut found = found(&case);
        let error = case.ask(&Plan::new(true, None), &mut found).unwrap_err();
        assert_eq!(format!("{error:#}"), "a case, ours: broken");
    }
}
