//! The packages of npm in this workspace: installed from their lock files, built, and tested.
//!
//! ```text
//!   package-lock.json ─► npm ci ─► node_modules ─► npm run build ─► dist ─► npm test
//!                          └─ skipped while node_modules is what this lock file made
//! ```
//!
//! A package has the scripts `build` and `test`, and a lock file that names versions and checksums
//! but no registry: it is installed from whichever one npm is set to. `node_modules` and `dist` are
//! made here and in no commit. Scripts of what is installed are not run.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::sh;

/// The packages by their folders, each before those that use it.
const PACKAGES: &[&str] = &["daemons/push/client-ts", "daemons/sextant/console"];

/// What a package was installed from: a copy of the lock file, kept in what it made.
const INSTALLED: &str = "node_modules/.installed-from.json";

/// Installs and builds all packages, which is what programs may embed of them.
///
/// # Errors
///
/// A package cannot be installed, or does not build; npm has said why.
pub(crate) fn build() -> Result<()> {
    PACKAGES.iter().try_for_each(|package| {
        let dir = sh::root().join(package);
        install(&dir)?;
        sh::run(npm(&dir).args(["run", "build"]))
    })
}

/// Runs the tests of all packages, which [`build`] has built.
///
/// # Errors
///
/// A test fails; it has said why.
pub(crate) fn test() -> Result<()> {
    PACKAGES.iter().try_for_each(|package| sh::run(npm(&sh::root().join(package)).arg("test")))
}

/// Installs what a package depends on, unless that is there.
fn install(dir: &Path) -> Result<()> {
    let lock_file = dir.join("package-lock.json");
    let lock = fs::read_to_string(&lock_file)
        .with_context(|| format!("{} cannot be read", lock_file.display()))?;
    // A registry in the lock file would be asked even where another one is set.
    if lock.contains("\"resolved\": \"http") {
        bail!(
            "{} names a registry: write it with `npm install --omit-lockfile-registry-resolved`",
            lock_file.display()
        );
    }
    let installed = dir.join(INSTALLED);
    if fs::read_to_string(&installed).is_ok_and(|before| before == lock) {
        return Ok(());
    }
    let mut ci = npm(dir);
    ci.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
    sh::run(&mut ci).with_context(|| {
        format!(
            "npm cannot install what {} needs: is this machine online, and is npm's registry right?",
            dir.display()
        )
    })?;
    fs::write(&installed, lock)
        .with_context(|| format!("{} cannot be written", installed.display()))
}

fn npm(dir: &Path) -> Command {
    let mut npm = sh::command("npm");
    npm.current_dir(dir);
    npm
}
