//! The gate: what the hot paths cost is what they are expected to cost.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use sextant_counts::paths::PATHS;
use sextant_counts::{TOLERANCE, count, expected};

#[test]
fn hot_paths_cost_what_they_are_expected_to_cost() {
    let program = Path::new(env!("CARGO_BIN_EXE_sextant-counts"));
    let expected = expected().unwrap();
    let told: Vec<String> = std::thread::scope(|scope| {
        let counting: Vec<_> = PATHS
            .iter()
            .map(|path| (path.name, scope.spawn(|| count(program, path.name).unwrap())))
            .collect();
        let told = counting.into_iter().filter_map(|(name, counting)| {
            let counted = counting.join().unwrap();
            let Some(wanted) = expected.get(name).copied() else {
                return Some(format!("{name}: {counted:.0} instructions, and none are expected"));
            };
            let change = counted / wanted - 1.0;
            (change.abs() > TOLERANCE).then(|| {
                let percent = change * 100.0;
                format!("{name}: {counted:.0} instructions, not {wanted:.0} ({percent:+.1} %)")
            })
        });
        told.collect()
    });
    assert!(told.is_empty(), "{}\nif that is meant: cargo xtask counts --accept", told.join("\n"));
}
