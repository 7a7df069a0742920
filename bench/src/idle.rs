//! Memory of connections that only stay: what each takes of the server's resident memory, and what
//! CPU the server spends on nothing happening.
//!
//! The kernel's memory for a socket is not in it; it is the same for both servers, but for what an
//! armed receive takes.

use std::io::{IsTerminal, Write};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sextant_load::{Connections, Fleet, Load, Pace, ProcessCpu, Session};

use crate::compare::{Bench, Case, Plan, Run};
use crate::mqtt::{Client, Part};
use crate::peers::{mosquitto, start_mosquitto};
use crate::push::{Layout, start_push};
use crate::report::{Figure, Wanted, number};
use crate::server::Server;

/// Connections to one address, well below the number of ephemeral ports.
pub(crate) const PER_ADDRESS: u32 = 12_000;
/// Connections of one core of push: its home is chosen by hash, and a descriptor table is bounded.
const PER_CORE: u32 = 14_000;
/// What mosquitto can hold, whose every connection is a descriptor of its process.
const MOSQUITTO_MAX: u32 = 15_000;

/// What `push-idle` is given besides.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct IdleArgs {
    /// Hold so many connections [default: 100000; 2000 if quick]
    #[arg(long, value_name = "N")]
    connections: Option<u32>,
    /// Cores of push [default: as many as the connections need]
    #[arg(long, value_name = "N")]
    cores: Option<u16>,
}

/// Runs it.
pub(crate) fn run(run: &Run, args: IdleArgs) -> Result<()> {
    let most = args.connections.unwrap_or(if run.quick { 2000 } else { 100_000 }).max(1);
    let few = most.min(mosquitto_max());
    let mut bench = Bench::new(run, "push-idle", "Memory of idle MQTT connections")?;
    bench.version("mosquitto", mosquitto().arg("-h"))?;
    bench.note("MQTT 3.1.1, clean session, no subscription, no keep-alive.");
    bench.note(
        "What the server's resident memory grew by, divided by the number of connections. Memory of \
         the kernel's sockets is not in it.",
    );
    if few < most {
        bench.note(format!(
            "mosquitto needs a descriptor for each connection, and this process may have {} of them.",
            descriptors_max()
        ));
    }
    bench.note(format!(
        "push has {} cores for {} connections, {} for {}.",
        cores(args, most),
        number(f64::from(most)),
        cores(args, few),
        number(f64::from(few))
    ));
    let push = move |count: u32| {
        move |plan: &Plan| {
            let layout = Layout {
                cores: cores(args, count),
                // Those that are about to move to another core count twice.
                connections_max: count + count / 8 + 1000,
                pinned: false,
                addrs: u8::try_from(count / PER_ADDRESS + 1).context("too many connections")?,
            };
            hold(&start_push(layout)?, count, plan)
        }
    };
    let headline = "B of resident memory per connection";
    let case = Case::new(format!("{} connections", number(f64::from(few))), headline)
        .side("push", push(few))
        .side("mosquitto", move |plan| hold(&start_mosquitto()?, few, plan))
        .gains("push", "mosquitto", None);
    bench.add(case);
    if few < most {
        let case = Case::new(format!("{} connections", number(f64::from(most))), headline)
            .side("push", push(most));
        bench.add(case.limit("push", Wanted::AtMost(600.0)));
    }
    bench.run()
}

fn cores(args: IdleArgs, connections: u32) -> u16 {
    let needed = connections.div_ceil(PER_CORE).max(2);
    args.cores.unwrap_or(u16::try_from(needed).unwrap_or(u16::MAX))
}

fn descriptors_max() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX)
}

fn mosquitto_max() -> u32 {
    let allowed = u32::try_from(descriptors_max()).unwrap_or(u32::MAX);
    // Some are for other things than connections.
    MOSQUITTO_MAX.min(allowed.saturating_sub(100).max(1))
}

/// Holds connections to a server that has none, and tells what they take.
fn hold(server: &Server, count: u32, plan: &Plan) -> Result<Vec<Figure>> {
    hold_with(server, count, plan, |number| Client::new(Part::Idle, number))
}

/// The same with connections of another kind.
pub(crate) fn hold_with<S: Session + 'static>(
    server: &Server,
    count: u32,
    plan: &Plan,
    session: impl FnMut(u64) -> S + Send + 'static,
) -> Result<Vec<Figure>> {
    let before = settled_bytes(server.pid())?;
    let began = Instant::now();
    let load = Load {
        connections: Connections::Held { count, operating: 0, connecting_max: 64 },
        pace: Pace::Idle,
        ..Load::new(server.addrs())
    };
    let fleet = Fleet::start(load, session)?;
    let progress = Progress::new(count);
    while fleet.ready() < count && !fleet.is_over() {
        progress.show(fleet.ready());
        sleep(Duration::from_millis(100));
    }
    drop(progress);
    if fleet.is_over() {
        fleet.wait()?;
        bail!("the connections were not held");
    }
    let took = began.elapsed();
    let grown = settled_bytes(server.pid())?.saturating_sub(before);
    let cpu = ProcessCpu::of(server.pid())?;
    let (used, from) = (cpu.used()?, Instant::now());
    sleep(plan.measure);
    let busy = (cpu.used()? - used).as_secs_f64() / from.elapsed().as_secs_f64();
    // A connection that broke meanwhile is told here.
    fleet.finish()?;
    Ok(vec![
        Figure::new("", grown as f64 / f64::from(count)),
        Figure::new("MiB before", before as f64 / f64::from(1 << 20)),
        Figure::new("connections a second", f64::from(count) / took.as_secs_f64()),
        Figure::new("ms of CPU a second, idle", busy * 1000.0),
    ])
}

/// Resident memory once it has stopped changing.
pub(crate) fn settled_bytes(pid: u32) -> Result<u64> {
    const TRIES: u32 = 50;
    let mut last = resident_bytes(pid)?;
    for _ in 0..TRIES {
        sleep(Duration::from_millis(200));
        let now = resident_bytes(pid)?;
        if now.abs_diff(last) <= 16 << 10 {
            return Ok(now);
        }
        last = now;
    }
    Ok(last)
}

pub(crate) fn resident_bytes(pid: u32) -> Result<u64> {
    proc_bytes(&format!("/proc/{pid}/smaps_rollup"), "Rss:")
}

/// A number of kB that a file of the kernel's tells behind a name, in bytes.
pub(crate) fn proc_bytes(path: &str, name: &str) -> Result<u64> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let kib = text.lines().find_map(|line| {
        line.strip_prefix(name)?.trim().trim_end_matches("kB").trim().parse::<u64>().ok()
    });
    Ok(kib.with_context(|| format!("{path} has no {name}"))? << 10)
}

/// How many connections there are, on a terminal, for as long as it lives.
pub(crate) struct Progress {
    count: u32,
}

impl Progress {
    pub(crate) fn new(count: u32) -> Progress {
        Progress { count }
    }

    pub(crate) fn show(&self, ready: u32) {
        let mut stderr = std::io::stderr();
        if stderr.is_terminal() {
            let _ = write!(stderr, "\r\x1b[K    {ready} of {} connected", self.count);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        let mut stderr = std::io::stderr();
        if stderr.is_terminal() {
            let _ = write!(stderr, "\r\x1b[K");
        }
    }
}
