//! The gate: what the hot paths cost is what they are expected to cost, and an idle connection
//! takes no more memory than it is expected to.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use allocation_counter::measure;

use sextant_counts::paths::{Idle, PATHS};
use sextant_counts::{count, expected, is_expected};

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
            (!is_expected(counted, wanted)).then(|| {
                let percent = (counted / wanted - 1.0) * 100.0;
                format!("{name}: {counted:.0} instructions, not {wanted:.0} ({percent:+.1} %)")
            })
        });
        told.collect()
    });
    assert!(told.is_empty(), "{}\nif that is meant: cargo xtask counts --accept", told.join("\n"));
}

/// Bytes that a core may ask of the allocator for an idle MQTT connection and its session: 72 for
/// the ring's entry, 88 for the broker's, 152 for the session, 11 for the client identifier, the
/// rest for the indexes of sessions, half of which may be empty.
const IDLE_BYTES: u64 = 345;

#[test]
fn an_idle_connection_takes_no_more_memory_than_expected() {
    const CLIENTS: u64 = 8000;
    let mut idle = Idle::new();
    idle.connect(1000);
    let grown = measure(|| idle.connect(CLIENTS)).bytes_current;
    let each = u64::try_from(grown).unwrap() / CLIENTS;
    assert!(each <= IDLE_BYTES, "{each} B");
    assert!(each >= IDLE_BYTES - 20, "{each} B: {IDLE_BYTES} B is out of date");
}
