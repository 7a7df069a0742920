//! `cargo xtask bench NAME`: installs what a run needs, builds it, sets what the kernel has to
//! allow for it, runs it, and puts the kernel's settings back, however it ended.
//!
//! The measuring is done by `sextant-bench`, which prints the table; a full run leaves its results
//! in `bench/results`, a quick one in the target folder.

mod sysctl;

use std::path::PathBuf;
use std::process::Child;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use rustix::process::{Pid, Signal};
use signal_hook::consts::SIGTERM;

use self::sysctl::Settings;
use crate::setup;
use crate::sh;

const POLL_EVERY: Duration = Duration::from_millis(50);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to measure
    name: Name,
    /// Run for a moment only: to see that everything works, not how fast
    #[arg(long)]
    quick: bool,
    /// Measure each side so often, in turn [default: 5, 3 of what has many cases; 1 if quick]
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// Further options of `sextant-bench NAME`, behind `--`
    #[arg(last = true, value_name = "OPTION")]
    options: Vec<String>,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    /// CPU of accepting, echoing and fanning out, without any protocol
    Floor,
    /// CPU of push to a thousand subscribers, beside mosquitto
    PushFanout,
    /// Memory of idle connections to push, beside mosquitto
    PushIdle,
    /// A million devices on one push: memory, keep-alives, one message for all
    PushMillion,
    /// A message for all devices of an app, audit and all; and a list of devices that are away
    PushCampaign,
    /// CPU and latency of a fan-out by receivers, size and QoS, beside its peers and the floor
    PushMatrix,
    /// CPU of messages between pairs of clients, beside its peers
    PushPairs,
    /// CPU of clients that come and go, beside its peers and a bare accept loop; a storm of them
    PushConnect,
    /// CPU of a TLS handshake and memory of a TLS connection, beside its peers
    PushTls,
    /// CPU and rate of SET and GET on store, beside Valkey and Redis
    StoreCommands,
    /// Rate of SET with each reply on disk, beside Valkey, Redis and the disk
    StoreDurable,
    /// Memory of ten million keys, beside Valkey and Redis
    StoreMemory,
    /// How long a restart takes with ten million keys, beside Valkey and Redis
    StoreRestart,
    /// Everything at random for half an hour, and whether anything is left behind
    Soak,
    /// Durable appends of 64 writers, beside the best of fio on the same disk
    SegmentAppend,
    /// Messages between cores, and how many share a wake
    Wake,
}

impl Name {
    /// Whether push is measured beside all its peers.
    fn has_all_peers(self) -> bool {
        matches!(self, Name::PushMatrix | Name::PushPairs | Name::PushConnect | Name::PushTls)
    }

    /// Whether store is measured beside its peers.
    fn is_of_store(self) -> bool {
        use Name::{StoreCommands, StoreDurable, StoreMemory, StoreRestart};
        matches!(self, StoreCommands | StoreDurable | StoreMemory | StoreRestart)
    }

    /// Programs of the system, with the Debian packages that have them.
    fn programs(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Name::PushFanout | Name::PushIdle => &[("mosquitto", "mosquitto")],
            Name::SegmentAppend => &[("fio", "fio")],
            _ if self.is_of_store() => {
                &[("redis-server", "redis-server"), ("redis-benchmark", "redis-tools")]
            }
            _ if self.has_all_peers() => {
                &[("mosquitto", "mosquitto"), ("nats-server", "nats-server")]
            }
            _ => &[],
        }
    }

    /// The programs of this workspace that it runs.
    fn binaries(self) -> &'static [&'static str] {
        match self {
            Name::Floor | Name::SegmentAppend | Name::Wake => &["sextant-bench"],
            _ if self.is_of_store() => &["sextant-bench", "sextant-store"],
            _ => &["sextant-bench", "sextant-push"],
        }
    }

    /// What the kernel has to be set to.
    fn sysctls(self) -> &'static [(&'static str, &'static str)] {
        match self {
            // Pages for all sockets of the machine: both ends of all connections are here.
            Name::PushIdle | Name::PushMatrix | Name::PushConnect => {
                &[("net.ipv4.tcp_mem", "800000 1000000 1200000")]
            }
            Name::PushMillion => &[("net.ipv4.tcp_mem", "2000000 2500000 3000000")],
            _ => &[],
        }
    }
}

/// # Errors
///
/// Something is missing, does not build, or the run fails.
pub(crate) fn run(args: &Args) -> Result<()> {
    let asked = sh::stops_asked()?;
    setup::programs(args.name.programs())?;
    if args.name.has_all_peers() {
        setup::rumqttd()?;
    }
    if args.name.is_of_store() {
        setup::valkey()?;
    }
    let mut build = sh::cargo();
    // Of the whole workspace: with another choice of packages, dependencies have other features and
    // are built again.
    build.args(["build", "--release", "--workspace"]);
    build.args(args.name.binaries().iter().flat_map(|name| ["--bin", name]));
    sh::run(&mut build)?;
    let _settings = Settings::change(args.name.sysctls())?;
    let outcome = measure(args, &asked);
    if asked.load(Ordering::Relaxed) != 0 {
        bail!("given up");
    }
    outcome
}

fn measure(args: &Args, asked: &AtomicUsize) -> Result<()> {
    let name = args.name.to_possible_value().context("every run has a name")?;
    let mut command = sh::command(sh::target()?.join("release/sextant-bench"));
    command.arg(name.get_name()).arg("--out").arg(results(args.quick)?);
    if args.quick {
        command.arg("--quick");
    }
    if let Some(rounds) = args.rounds {
        command.args(["--rounds", &rounds.to_string()]);
    }
    command.args(&args.options);
    // What a run that is given up leaves behind goes with it; and it is on the disk of the build,
    // not on a file system in memory.
    let place = sh::target()?.join("bench");
    std::fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
    let files = tempfile::tempdir_in(&place).context("no temporary folder")?;
    command.env("TMPDIR", files.path());
    println!("{}", sh::paint(sh::GREY, format_args!("$ {}", sh::shown(&command))));
    let mut child = command.spawn().context("cannot run sextant-bench")?;
    let mut told = false;
    loop {
        if let Some(status) = child.try_wait()? {
            if !status.success() {
                bail!("the run failed ({status})");
            }
            return Ok(());
        }
        // Ctrl-C reached it, too.
        if asked.load(Ordering::Relaxed) == SIGTERM as usize && !std::mem::replace(&mut told, true)
        {
            terminate(&child);
        }
        sleep(POLL_EVERY);
    }
}

fn terminate(child: &Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // It may have ended just now.
        let _ = rustix::process::kill_process(pid, Signal::TERM);
    }
}

/// Where results go: those of a quick run are not kept.
fn results(quick: bool) -> Result<PathBuf> {
    if quick { Ok(sh::target()?.join("bench")) } else { Ok(sh::root().join("bench/results")) }
}
