//! What a run found, as it is kept: the results with where, when and how they came about, as JSON,
//! and the same as a table in Markdown. The picture is drawn by [`plot`](crate::plot).

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::plot;

/// A run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// What was run: the name of its files.
    pub(crate) name: String,
    /// What it is about.
    pub(crate) title: String,
    /// When it began, in UTC.
    pub(crate) date: String,
    /// How to run it again.
    pub(crate) command: String,
    /// A short run, to see that it works: its numbers say little.
    pub(crate) quick: bool,
    /// Of each side, in turn.
    pub(crate) rounds: u32,
    pub(crate) host: Host,
    /// What was compared, in which version.
    pub(crate) versions: Vec<(String, String)>,
    pub(crate) notes: Vec<String>,
    pub(crate) cases: Vec<CaseReport>,
}

/// The machine.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Host {
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) memory_gib: f64,
    /// The load average of the minute before, and at the end: what else the machine did.
    pub(crate) load_before: f64,
    pub(crate) load_after: f64,
}

/// One question, asked of several sides in turn.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CaseReport {
    pub(crate) name: String,
    /// What the first figure of each round is.
    pub(crate) headline: String,
    pub(crate) sides: Vec<Side>,
    pub(crate) ratios: Vec<Ratio>,
}

/// What one side did.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Side {
    pub(crate) name: String,
    pub(crate) rounds: Vec<Vec<Figure>>,
    /// Why it has no more of them, if it could not do what it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failed: Option<String>,
}

/// A number, and what it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) value: f64,
}

impl Figure {
    pub(crate) fn new(name: impl Into<String>, value: f64) -> Figure {
        Figure { name: name.into(), value }
    }
}

/// Two sides beside each other, round by round.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ratio {
    pub(crate) what: String,
    pub(crate) median: f64,
    pub(crate) lowest: f64,
    pub(crate) highest: f64,
    pub(crate) wanted: Option<Wanted>,
}

/// What a ratio shall be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Wanted {
    AtMost(f64),
    AtLeast(f64),
}

impl Wanted {
    /// Whether a ratio is what is wanted.
    pub(crate) fn is_met(self, ratio: f64) -> bool {
        match self {
            Wanted::AtMost(most) => ratio <= most,
            Wanted::AtLeast(least) => ratio >= least,
        }
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Wanted::AtMost(most) => write!(f, "at most {}", number(*most)),
            Wanted::AtLeast(least) => write!(f, "at least {}", number(*least)),
        }
    }
}

impl Ratio {
    /// Of what each round found; none if there was no round.
    pub(crate) fn of(what: String, rounds: &[f64], wanted: Option<Wanted>) -> Option<Ratio> {
        let (lowest, highest) = spread(rounds)?;
        Some(Ratio { what, median: median(rounds)?, lowest, highest, wanted })
    }
}

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (median, lowest, highest) =
            (number(self.median), number(self.lowest), number(self.highest));
        write!(f, "{}: **{median}** ({lowest} to {highest})", self.what)?;
        match self.wanted {
            Some(wanted) if wanted.is_met(self.median) => write!(f, ", wanted {wanted}: ✓"),
            Some(wanted) => write!(f, ", wanted {wanted}: ✗"),
            None => Ok(()),
        }
    }
}

impl Side {
    /// One that was not asked yet.
    pub(crate) fn new(name: &str) -> Side {
        Side { name: name.to_owned(), rounds: Vec::new(), failed: None }
    }

    /// The values of the figure with this name, round by round.
    pub(crate) fn values_of(&self, name: &str) -> Vec<f64> {
        let figures = self.rounds.iter().flatten().filter(|figure| figure.name == name);
        figures.map(|figure| figure.value).collect()
    }

    /// The values of a figure, round by round.
    pub(crate) fn values(&self, figure: usize) -> Vec<f64> {
        self.rounds.iter().filter_map(|round| Some(round.get(figure)?.value)).collect()
    }
}

/// The middle value; the mean of the two middle ones of an even number.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(sorted[sorted.len() / 2 - 1], upper))
}

/// The least and the greatest value.
pub(crate) fn spread(values: &[f64]) -> Option<(f64, f64)> {
    let least = values.iter().copied().reduce(f64::min)?;
    let greatest = values.iter().copied().reduce(f64::max)?;
    Some((least, greatest))
}

/// A number as one reads it: three digits, or whole with its thousands set apart.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 1000.0 {
        let whole = format!("{size:.0}");
        let groups: Vec<&str> = whole
            .as_bytes()
            .rchunks(3)
            .rev()
            .map(|group| std::str::from_utf8(group).unwrap_or("?"))
            .collect();
        return format!("{}{}", if value < 0.0 { "-" } else { "" }, groups.join(","));
    }
    let decimals = match size {
        _ if value == 0.0 || size >= 100.0 => 0,
        _ if size >= 10.0 => 1,
        _ if size >= 0.1 => 2,
        _ if size >= 0.01 => 3,
        _ => 4,
    };
    format!("{value:.decimals$}")
}

impl Host {
    /// This machine, now.
    pub(crate) fn here() -> Host {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let uname = rustix::system::uname();
        let kib: Option<f64> = field(&read("/proc/meminfo"), "MemTotal")
            .and_then(|text| text.trim_end_matches("kB").trim().parse().ok());
        Host {
            kernel: format!(
                "{} {}",
                uname.sysname().to_string_lossy(),
                uname.release().to_string_lossy()
            ),
            cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".into()),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: kib.map_or(0.0, |kib| (kib / f64::from(1 << 20) * 10.0).round() / 10.0),
            load_before: load_average(),
            load_after: 0.0,
        }
    }
}

impl Host {
    /// Whether the machine did much besides: a server and its load are two that run.
    fn is_busy(&self) -> bool {
        self.load_before > 1.0 || self.load_after > 3.0
    }
}

/// Of the last minute; 0 where the kernel does not tell.
pub(crate) fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

impl Report {
    /// Writes the results, the table and the picture, and tells where the table is.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(crate) fn write(&self, dir: &Path) -> Result<PathBuf> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let mut json = serde_json::to_string_pretty(self)?;
        json.push('\n');
        self.write_file(dir, "json", &json)?;
        self.draw(dir)
    }

    fn draw(&self, dir: &Path) -> Result<PathBuf> {
        self.write_file(dir, "svg", &plot::draw(self))?;
        self.write_file(dir, "md", &self.markdown())
    }

    fn write_file(&self, dir: &Path, ending: &str, text: &str) -> Result<PathBuf> {
        let path = dir.join(format!("{}.{ending}", self.name));
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Writes table and picture of a run's results beside them.
    ///
    /// # Errors
    /// The file cannot be read, or is not of a run; a file cannot be written.
    pub(crate) fn draw_again(results: &Path) -> Result<()> {
        let name = || results.display().to_string();
        let report: Report =
            serde_json::from_slice(&fs::read(results).with_context(name)?).with_context(name)?;
        report.draw(results.parent().unwrap_or(Path::new("."))).map(drop)
    }

    /// The results as tables.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.write_markdown(&mut text);
        text
    }

    fn write_markdown(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "# {}\n", self.title)?;
        if self.quick {
            writeln!(text, "**A quick run: it shows that everything works, not how fast.**\n")?;
        }
        let host = &self.host;
        if host.is_busy() {
            writeln!(
                text,
                "**The machine was busy with other things: compare within a round, and believe no \
                 latency.**\n"
            )?;
        }
        writeln!(
            text,
            "{}, rounds of each side in turn: {}, `{}`  ",
            self.date, self.rounds, self.command
        )?;
        writeln!(
            text,
            "{}, {} CPUs, {} GiB, {}; load average {} before, {} after  ",
            host.cpu, host.cpus, host.memory_gib, host.kernel, host.load_before, host.load_after
        )?;
        let versions: Vec<String> =
            self.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
        writeln!(text, "{}\n", versions.join(", "))?;
        for note in &self.notes {
            writeln!(text, "- {note}")?;
        }
        for case in &self.cases {
            case.write_markdown(text)?;
        }
        Ok(())
    }
}

impl CaseReport {
    fn write_markdown(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "\n## {}\n", self.name)?;
        // Not all sides tell the same: a peer may tell less.
        let mut names: Vec<&str> = Vec::new();
        let figures = self.sides.iter().flat_map(|side| side.rounds.iter().flatten());
        for figure in figures {
            if !names.contains(&figure.name.as_str()) {
                names.push(&figure.name);
            }
        }
        writeln!(text, "| | {} |", names.join(" | "))?;
        writeln!(text, "|---|{}", "---:|".repeat(names.len()))?;
        for side in &self.sides {
            write!(text, "| {} |", side.name)?;
            for (n, name) in names.iter().enumerate() {
                let values = side.values_of(name);
                match (median(&values), spread(&values)) {
                    (Some(median), Some((least, greatest))) if n == 0 => write!(
                        text,
                        " **{}** ({} to {}) |",
                        number(median),
                        number(least),
                        number(greatest)
                    )?,
                    (Some(median), _) => write!(text, " {} |", number(median))?,
                    (None, _) => write!(text, " – |")?,
                }
            }
            writeln!(text)?;
        }
        let mut failed = self
            .sides
            .iter()
            .filter_map(|side| Some((&side.name, side.failed.as_ref()?)))
            .peekable();
        if failed.peek().is_some() || !self.ratios.is_empty() {
            writeln!(text)?;
        }
        for (name, why) in failed {
            writeln!(text, "- {name} failed: {why}")?;
        }
        for ratio in &self.ratios {
            writeln!(text, "- {ratio}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn example() -> Report {
        let side = |name: &str, values: [f64; 3]| Side {
            name: name.into(),
            rounds: values
                .iter()
                .map(|value| vec![Figure::new("µs", *value), Figure::new("a second", 2e6)])
                .collect(),
            failed: None,
        };
        Report {
            name: "example".into(),
            title: "An <example>".into(),
            date: "2026-01-01".into(),
            command: "cargo xtask bench example".into(),
            quick: false,
            rounds: 3,
            host: Host::here(),
            versions: vec![("peer".into(), "1.0".into())],
            notes: vec!["A note.".into()],
            cases: vec![CaseReport {
                name: "a case".into(),
                headline: "µs".into(),
                sides: vec![side("ours", [1.0, 3.0, 2.0]), side("theirs", [4.0, 4.0, 5.0])],
                ratios: Ratio::of(
                    "ours / theirs".into(),
                    &[0.25, 0.75, 0.4],
                    Some(Wanted::AtMost(0.4)),
                )
                .into_iter()
                .collect(),
            }],
        }
    }

    #[test]
    fn numbers_read_well() {
        let pairs = [
            (0.0, "0"),
            (0.01234, "0.012"),
            (0.00123, "0.0012"),
            (0.8, "0.80"),
            (4.704, "4.70"),
            (65.43, "65.4"),
            (123.4, "123"),
            (1_999.6, "2,000"),
            (1_234_567.0, "1,234,567"),
            (-1_000.0, "-1,000"),
        ];
        for (value, text) in pairs {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn the_table_shows_medians_spreads_and_whether_it_is_good_enough() {
        let text = example().markdown();
        assert!(text.contains("| ours | **2.00** (1.00 to 3.00) | 2,000,000 |"), "{text}");
        assert!(text.contains("- ours / theirs: **0.40** (0.25 to 0.75), wanted at most 0.40: ✓"));
    }

    #[test]
    fn the_table_shows_who_failed_and_why() {
        let mut report = example();
        report.cases[0].sides[1].failed = Some("connection reset".to_owned());
        let text = report.markdown();
        assert!(text.contains("\n\n- theirs failed: connection reset\n- ours / theirs"), "{text}");
    }

    #[test]
    fn results_are_read_back_as_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let report = example();
        report.write(dir.path()).unwrap();
        let json = fs::read_to_string(dir.path().join("example.json")).unwrap();
        let read: Report = serde_json::from_str(&json).unwrap();
        assert_eq!(read.markdown(), report.markdown());
        let svg = fs::read_to_string(dir.path().join("example.svg")).unwrap();
        assert!(svg.contains("An &lt;example&gt;"), "text is escaped: {svg}");
    }
}
