//! The picture of a run, as SVG: for each case a bar for each side, as long as its median, and a dot
//! for each round.
//!
//! ```text
//!   case                          headline
//!            ours  ████████·█··              4.70
//!          theirs  ███████████████·██·       7.10
//!                  ours / theirs: 0.66 (0.61 to 0.70), wanted at most 0.80 ✓
//! ```

use svg::Document;
use svg::node::element::{Circle, Group, Rectangle, Text};

use crate::report::{CaseReport, Report, median, number, spread};

const WIDTH: f64 = 900.0;
const MARGIN: f64 = 28.0;
/// Between a side's name and its bar.
const GAP: f64 = 10.0;
/// Of a letter, at most: what reads this has a font of its own.
const LETTER: f64 = 7.6;
/// For the number behind a bar.
const NUMBER: f64 = 100.0;
const BAR_HEIGHT: f64 = 18.0;
const ROW: f64 = 27.0;
const LINE: f64 = 19.0;

const INK: &str = "#1d2733";
const QUIET: &str = "#66727f";
const GOOD: &str = "#1a7f4b";
const BAD: &str = "#b3362b";
/// Told apart in black and white, too: the first side, ours, is the darkest.
const BARS: [&str; 6] = ["#2a5c8a", "#e09f3e", "#8fb8d8", "#a8a29a", "#7a5c8e", "#8db580"];

/// Draws a run.
pub(crate) fn draw(report: &Report) -> String {
    let mut group = Group::new()
        .set("font-family", "system-ui, 'DejaVu Sans', sans-serif")
        .set("font-size", 13)
        .set("fill", INK);
    let mut y = MARGIN + 14.0;
    group = group.add(text(MARGIN, y, &report.title).set("font-size", 19).set("font-weight", 600));
    y += 22.0;
    let host = &report.host;
    let versions: Vec<String> =
        report.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    let quick =
        if report.quick { "a quick run, which shows that it works and not how fast; " } else { "" };
    let lines = [
        format!("{quick}{}, rounds of each side in turn: {}", report.date, report.rounds),
        format!("{}, {} CPUs, {}", host.cpu, host.cpus, host.kernel),
        versions.join(", "),
    ];
    for line in &lines {
        group = group.add(text(MARGIN, y, line).set("fill", QUIET).set("font-size", 12));
        y += 16.0;
    }
    let left = bars_left(report);
    for case in &report.cases {
        y += 22.0;
        (group, y) = draw_case(group, case, left, y);
    }
    let height = y + MARGIN / 2.0;
    let ground = Rectangle::new().set("width", WIDTH).set("height", height).set("fill", "#ffffff");
    let document = Document::new()
        .set("viewBox", (0.0, 0.0, WIDTH, height))
        .set("width", WIDTH)
        .set("height", height)
        .add(ground)
        .add(group);
    format!("{document}\n")
}

/// Where bars begin: behind the longest name.
fn bars_left(report: &Report) -> f64 {
    let sides = report.cases.iter().flat_map(|case| &case.sides);
    let longest = sides.map(|side| side.name.chars().count()).max().unwrap_or(0);
    MARGIN + longest as f64 * LETTER + GAP
}

fn draw_case(mut group: Group, case: &CaseReport, left: f64, mut y: f64) -> (Group, f64) {
    let length = WIDTH - MARGIN - NUMBER - left;
    group = group.add(text(MARGIN, y, &case.name).set("font-weight", 600));
    group = group
        .add(text(WIDTH - MARGIN, y, &case.headline).set("text-anchor", "end").set("fill", QUIET));
    y += 12.0;
    let highest = case
        .sides
        .iter()
        .filter_map(|side| Some(spread(&side.values(0))?.1))
        .filter(|value| value.is_finite())
        .fold(0.0, f64::max);
    let scale = |value: f64| if highest > 0.0 { value / highest * length } else { 0.0 };
    for (n, side) in case.sides.iter().enumerate() {
        let values: Vec<f64> =
            side.values(0).into_iter().filter(|value| value.is_finite()).collect();
        let middle = y + BAR_HEIGHT / 2.0;
        let label = text(left - GAP, middle + 4.5, &side.name).set("text-anchor", "end");
        group = group.add(label);
        if let Some(median) = median(&values) {
            let bar = Rectangle::new()
                .set("x", left)
                .set("y", y)
                .set("width", round(scale(median).max(1.0)))
                .set("height", BAR_HEIGHT)
                .set("rx", 2)
                .set("fill", BARS[n % BARS.len()]);
            group = group.add(bar);
            for value in &values {
                let dot = Circle::new()
                    .set("cx", round(left + scale(*value)))
                    .set("cy", middle)
                    .set("r", 2.6)
                    .set("fill", INK)
                    .set("stroke", "#ffffff")
                    .set("stroke-width", 0.8);
                group = group.add(dot);
            }
            let value = text(WIDTH - MARGIN, middle + 4.5, &number(median));
            group = group.add(value.set("text-anchor", "end").set("font-weight", 600));
        } else {
            let why = if side.failed.is_some() { "failed" } else { "no figure" };
            group = group.add(text(left, middle + 4.5, why).set("fill", QUIET));
        }
        y += ROW;
    }
    y += 6.0;
    for ratio in &case.ratios {
        let good = ratio.wanted.map(|wanted| wanted.is_met(ratio.median));
        let colour = match good {
            Some(true) => GOOD,
            Some(false) => BAD,
            None => QUIET,
        };
        // The table's emphasis is not for here.
        let line = ratio.to_string().replace("**", "");
        group = group.add(text(left, y, &line).set("fill", colour).set("font-size", 12));
        y += LINE;
    }
    (group, y)
}

fn text(x: f64, y: f64, content: &str) -> Text {
    Text::new(content).set("x", x).set("y", round(y))
}

/// Tenths of a pixel are fine enough.
fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::example;

    #[test]
    fn every_round_has_its_dot_and_the_longest_bar_fits() {
        let mut report = example();
        let svg = draw(&report);
        assert_eq!(svg.matches("<circle").count(), 6);
        assert!(!svg.contains("NaN"), "{svg}");
        assert!(bars_left(&report) < WIDTH / 3.0);
        report.cases[0].sides[0].name = "a name of some thirty letters".to_owned();
        assert!(bars_left(&report) > 200.0, "there is room for it");
        report.cases[0].sides[0].rounds[0][0].value = f64::NAN;
        assert!(!draw(&report).contains("NaN"));
    }
}
