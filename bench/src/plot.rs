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
/// Where bars begin, and how long the longest is.
const BAR_LEFT: f64 = 190.0;
const BAR_LENGTH: f64 = 580.0;
const BAR_HEIGHT: f64 = 18.0;
const ROW: f64 = 27.0;
const LINE: f64 = 19.0;

const INK: &str = "#1d2733";
const QUIET: &str = "#66727f";
const GOOD: &str = "#1a7f4b";
const BAD: &str = "#b3362b";
/// Told apart in black and white, too: the first side, ours, is the darkest.
const BARS: [&str; 4] = ["#2a5c8a", "#e09f3e", "#8fb8d8", "#a8a29a"];

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
    for case in &report.cases {
        y += 22.0;
        (group, y) = draw_case(group, case, y);
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

fn draw_case(mut group: Group, case: &CaseReport, mut y: f64) -> (Group, f64) {
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
    let scale = |value: f64| if highest > 0.0 { value / highest * BAR_LENGTH } else { 0.0 };
    for (n, side) in case.sides.iter().enumerate() {
        let values: Vec<f64> =
            side.values(0).into_iter().filter(|value| value.is_finite()).collect();
        let middle = y + BAR_HEIGHT / 2.0;
        let label = text(BAR_LEFT - 10.0, middle + 4.5, &side.name).set("text-anchor", "end");
        group = group.add(label);
        if let Some(median) = median(&values) {
            let bar = Rectangle::new()
                .set("x", BAR_LEFT)
                .set("y", y)
                .set("width", round(scale(median).max(1.0)))
                .set("height", BAR_HEIGHT)
                .set("rx", 2)
                .set("fill", BARS[n % BARS.len()]);
            group = group.add(bar);
            for value in &values {
                let dot = Circle::new()
                    .set("cx", round(BAR_LEFT + scale(*value)))
                    .set("cy", middle)
                    .set("r", 2.6)
                    .set("fill", INK)
                    .set("stroke", "#ffffff")
                    .set("stroke-width", 0.8);
                group = group.add(dot);
            }
            let value = text(WIDTH - MARGIN, middle + 4.5, &number(median));
            group = group.add(value.set("text-anchor", "end").set("font-weight", 600));
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
        group = group.add(text(BAR_LEFT, y, &line).set("fill", colour).set("font-size", 12));
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
        report.cases[0].sides[0].rounds[0][0].value = f64::NAN;
        assert!(!draw(&report).contains("NaN"));
    }
}
