//! The audit against everything that is not the audit: a plain list, changed bytes, lost files, a
//! full disk, and `kill -9`.

mod full;
mod kill;
mod oracle;
mod retain;
mod rig;
mod sidecar;
mod tamper;

/// Fails on a host that cannot play a test, unless whoever runs the tests knows: nothing is
/// skipped in silence.
fn lacks(what: &str, why: &dyn std::fmt::Display) {
    let name = format!("SEXTANT_TESTS_WITHOUT_{what}");
    assert!(
        std::env::var_os(&name).is_some(),
        "this host does not let the test run ({why}); {name}=1 leaves it out"
    );
    eprintln!("left out, by {name}: {why}");
}
