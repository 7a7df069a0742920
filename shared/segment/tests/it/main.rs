//! The log against everything that is not the log: an oracle, the host's file system, a disk that
//! forgets what was not synced, damage, faults, full disks, and `kill -9`.

mod blocking;
mod checkpoint;
mod crash;
mod damage;
mod faults;
mod fetch;
mod file;
mod host;
mod kernel;
mod kill;
mod life;
mod limits;
mod memory;
mod oracle;
mod retain;
mod rig;
mod sim;
mod snapshot;

use sextant_ring::driver::File;

/// Names for the open files of a stand-in for a driver.
#[derive(Default)]
struct FileNames {
    given: i32,
}

impl FileNames {
    /// A name that was not given before.
    fn next(&mut self) -> File {
        self.given += 1;
        File::new(self.given)
    }
}

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
