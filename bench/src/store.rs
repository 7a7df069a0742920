//! Store beside Redis and Valkey: CPU and rate of plain commands without persistence, rates with
//! every reply on disk, memory of keys, and the time that a restart takes. The load is
//! `redis-benchmark`, which all of them know.

use std::cell::Cell;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sextant_load::ProcessCpu;
use sextant_resp::{encode_command, skip};

use crate::compare::{Bench, Case, Plan, Run};
use crate::report::{Figure, Wanted};
use crate::server::{LOAD_CPU, Server, free_addrs, sibling, wrapped};

/// Bytes of a value, and keys that a load writes to.
const VALUE_BYTES: usize = 64;
const KEYS: u64 = 1_000_000;
/// Keys of the runs that are about memory and restarts.
const MANY_KEYS: u64 = 10_000_000;
/// Bytes of one of their keys.
const KEY_BYTES: usize = 16;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Store,
    Valkey,
    Redis,
}

impl Which {
    const ALL: [Which; 3] = [Which::Store, Which::Valkey, Which::Redis];

    fn name(self) -> &'static str {
        match self {
            Which::Store => "store",
            Which::Valkey => "Valkey",
            Which::Redis => "Redis",
        }
    }
}

/// Whether a server keeps what it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeps {
    Nothing,
    Always,
}

/// Starts a server that keeps its files in a directory.
fn start(which: Which, keeps: Keeps, dir: &Path) -> Result<Server> {
    let addrs = free_addrs(1)?;
    let addr = *addrs.first().context("there is an address")?;
    let mut command = match which {
        Which::Store => {
            let config = dir.join("store.toml");
            let durability = if keeps == Keeps::Always { "always" } else { "none" };
            let admin = std::net::TcpListener::bind("127.0.2.1:0")?.local_addr()?;
            let text = format!(
                "cores = 1\n[telemetry]\nlevel = \"error\"\n[admin]\nlisten = \"{admin}\"\n\
                 [default]\nlisten = [\"{addr}\"]\ndurability = \"{durability}\"\n"
            );
            std::fs::write(&config, text).context("cannot write store's configuration")?;
            let mut command = Command::new(sibling("sextant-store")?);
            command.arg("--config").arg(&config).arg("--data").arg(dir.join("data"));
            command
        }
        peer => {
            let mut command = peer_command(peer)?;
            command.arg("--port").arg(addr.port().to_string());
            command.arg("--bind").arg(addr.ip().to_string()).arg("--dir").arg(dir);
            command.args(["--save", "", "--protected-mode", "no", "--loglevel", "warning"]);
            match keeps {
                Keeps::Nothing => command.args(["--appendonly", "no"]),
                Keeps::Always => command.args(["--appendonly", "yes", "--appendfsync", "always"]),
            };
            command
        }
    };
    command.current_dir(dir);
    Server::start(&command, true, addrs, None)
}

/// A peer's program: Debian's Redis, or the Valkey that `cargo xtask bench` has fetched.
fn peer_command(which: Which) -> Result<Command> {
    if which == Which::Redis {
        return Ok(Command::new("redis-server"));
    }
    let own = std::env::current_exe().context("this program has no path")?;
    let target = own.ancestors().nth(2).context("this program is not in a target folder")?;
    Ok(Command::new(target.join("peers/valkey/valkey-server")))
}

/// A load of `redis-benchmark`.
#[derive(Clone, Copy, Debug)]
struct Load {
    test: &'static str,
    clients: u32,
    pipeline: u32,
    requests: u64,
}

/// Runs it from the load's CPU; tells the rate, and what a request took.
fn load(addr: SocketAddr, load: Load) -> Result<(f64, f64)> {
    let mut command = Command::new("redis-benchmark");
    command.args(["-h", &addr.ip().to_string(), "-p", &addr.port().to_string(), "--csv"]);
    for (option, value) in [
        ("-t", load.test.to_owned()),
        ("-c", load.clients.to_string()),
        ("-P", load.pipeline.to_string()),
        ("-n", load.requests.to_string()),
        ("-r", KEYS.to_string()),
        ("-d", VALUE_BYTES.to_string()),
    ] {
        command.arg(option).arg(value);
    }
    let output = wrapped(Some(LOAD_CPU), &command)?.output().context("no redis-benchmark")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().rfind(|line| line.starts_with('"') && !line.contains("rps"));
    let line = line.with_context(|| format!("redis-benchmark said: {text}"))?;
    let numbers: Vec<f64> =
        line.split(',').skip(1).filter_map(|part| part.trim_matches('"').parse().ok()).collect();
    match numbers.as_slice() {
        // "rps","avg","min","p50","p95","p99","max"
        [rate, _, _, _, _, p99, ..] => Ok((*rate, *p99)),
        _ => bail!("redis-benchmark said: {line}"),
    }
}

/// The CPU of a server for each request of a load, in µs, and its rate.
fn cost(server: &Server, what: Load) -> Result<Vec<Figure>> {
    let addr = *server.addrs().first().context("a server has an address")?;
    let cpu = ProcessCpu::of(server.pid())?;
    let before = cpu.used()?;
    let (rate, p99) = load(addr, what)?;
    let used = cpu.used()? - before;
    Ok(vec![
        Figure::new("", used.as_secs_f64() * 1e6 / what.requests as f64),
        Figure::new("a second", rate),
        Figure::new("p99 ms", p99),
    ])
}

/// A server with all keys of a load.
fn filled(which: Which, keeps: Keeps, dir: &Path) -> Result<Server> {
    let server = start(which, keeps, dir)?;
    let addr = *server.addrs().first().context("a server has an address")?;
    fill(addr, KEYS, VALUE_BYTES, |n| format!("key:{n:012}"))?;
    Ok(server)
}

/// Sets so many keys, many at once.
fn fill(addr: SocketAddr, keys: u64, bytes: usize, name: impl Fn(u64) -> String) -> Result<()> {
    const AT_ONCE: u64 = 500;
    let mut stream = TcpStream::connect(addr).context("cannot connect")?;
    let (value, mut said, mut heard) = (vec![b'v'; bytes], Vec::new(), Vec::new());
    let mut chunk = vec![0; 64 << 10];
    for first in (0..keys).step_by(AT_ONCE as usize) {
        said.clear();
        let mut left = AT_ONCE.min(keys - first);
        for n in first..first + left {
            encode_command(&mut said, [&b"SET"[..], name(n).as_bytes(), &value]);
        }
        stream.write_all(&said)?;
        while left > 0 {
            match skip(&heard)? {
                Some(length) => {
                    if heard.first() != Some(&b'+') {
                        bail!("a key was refused: {}", String::from_utf8_lossy(&heard));
                    }
                    heard.drain(..length);
                    left -= 1;
                }
                None => {
                    let count = stream.read(&mut chunk)?;
                    if count == 0 {
                        bail!("the server has closed the connection");
                    }
                    heard.extend_from_slice(&chunk[..count]);
                }
            }
        }
    }
    Ok(())
}

fn add_versions(bench: &mut Bench<'_>) -> Result<()> {
    bench.version("redis-benchmark", Command::new("redis-benchmark").arg("--version"))?;
    for peer in [Which::Valkey, Which::Redis] {
        let output = peer_command(peer)?.arg("--version").output().with_context(|| {
            format!("{} is not installed (`cargo xtask bench` does that)", peer.name())
        })?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text.split_whitespace().find_map(|word| word.strip_prefix("v="));
        bench.told(peer.name(), version.unwrap_or("unknown"));
    }
    Ok(())
}

/// Requests of one measurement.
fn requests(plan: &Plan, a_second: u64) -> u64 {
    let seconds = plan.measure.as_secs_f64();
    ((a_second as f64 * seconds) as u64).max(20_000)
}

/// Runs plain commands without persistence.
pub(crate) fn run_commands(run: &Run) -> Result<()> {
    let mut bench = Bench::new(run, "store-commands", "CPU of SET and GET, nothing kept")?;
    add_versions(&mut bench)?;
    bench.note(format!(
        "{KEYS} keys, values of {VALUE_BYTES} B, 50 connections; each server on one CPU, one core \
         or thread, nothing on disk; redis-benchmark on the other CPU."
    ));
    bench.note("At P1 the load is the limit: its CPU is busy all the time, the server's is not.");
    for (test, name, pipeline, cpu, rate) in [
        ("set", "SET, P1", 1, 0.9, None),
        ("get", "GET, P1", 1, 0.9, None),
        ("set", "SET, P16", 16, 0.65, Some(1.5)),
        ("get", "GET, P16", 16, 0.65, Some(1.5)),
    ] {
        let mut case = Case::new(name, "µs of CPU per command");
        for which in Which::ALL {
            case = case.side(which.name(), move |plan| {
                let dir = tempfile::tempdir().context("no temporary folder")?;
                let server = filled(which, Keeps::Nothing, dir.path())?;
                let a_second = if pipeline == 1 { 50_000 } else { 500_000 };
                let requests = requests(plan, a_second);
                cost(&server, Load { test, clients: 50, pipeline, requests })
            });
        }
        case = case.costs("store", "Valkey", Some(Wanted::AtMost(cpu)));
        case = case.costs("store", "Redis", None);
        case = case.rates("a second", "store", "Valkey", rate.map(Wanted::AtLeast));
        bench.add(case);
    }
    bench.run()
}

/// What the disk allows at most: so many writes outstanding share one write and sync, and each
/// takes the server's CPU.
fn disk_bound(dir: &Path, outstanding: u32, cpu_us: f64, plan: &Plan) -> Result<Vec<Figure>> {
    const FILE_BYTES: usize = 64 << 20;
    let path = dir.join("sync");
    let file = File::options().create(true).truncate(true).write(true).open(&path)?;
    file.write_all_at(&vec![0; FILE_BYTES], 0)?;
    file.sync_all()?;
    // A record of each: its key, value and what goes with them.
    let bytes = vec![1; outstanding as usize * (KEY_BYTES + VALUE_BYTES + 6)];
    let (began, mut syncs, mut at) = (Instant::now(), 0u32, 0);
    while began.elapsed() < plan.measure.min(Duration::from_secs(2)) {
        file.write_all_at(&bytes, at as u64)?;
        file.sync_data()?;
        at = (at + bytes.len()) % (FILE_BYTES - bytes.len());
        syncs += 1;
    }
    let sync_us = began.elapsed().as_secs_f64() * 1e6 / f64::from(syncs);
    let outstanding = f64::from(outstanding);
    let rate = outstanding / (sync_us + outstanding * cpu_us) * 1e6;
    Ok(vec![Figure::new("", rate), Figure::new("µs a write and sync", sync_us)])
}

/// Runs SET with each reply on disk.
pub(crate) fn run_durable(run: &Run) -> Result<()> {
    const PIPELINE: u32 = 16;
    let mut bench = Bench::new(run, "store-durable", "SET, each reply on disk")?;
    add_versions(&mut bench)?;
    bench.note(format!(
        "{KEYS} keys, values of {VALUE_BYTES} B, P16; store with `durability = \"always\"`, its \
         default, the others with `appendonly yes` and `appendfsync always`, on the same disk."
    ));
    bench.note(
        "The disk's bound is what is outstanding by the time of a write and fdatasync of as many \
         bytes, measured beside, and the CPU that store was seen to use for as many commands.",
    );
    for clients in [50, 500] {
        let outstanding = clients * PIPELINE;
        let cpu = Rc::new(Cell::new(0.0));
        let mut case = Case::new(format!("{clients} connections"), "a second");
        for which in Which::ALL {
            let cpu = Rc::clone(&cpu);
            case = case.side(which.name(), move |plan| {
                let dir = tempfile::tempdir().context("no temporary folder")?;
                let server = filled(which, Keeps::Always, dir.path())?;
                let requests = requests(plan, 200_000);
                let load = Load { test: "set", clients, pipeline: PIPELINE, requests };
                let figures = cost(&server, load)?;
                if which == Which::Store {
                    cpu.set(figures.first().map_or(0.0, |figure| figure.value));
                }
                let rate = figures.get(1).map_or(0.0, |figure| figure.value);
                let mut all = vec![Figure::new("", rate)];
                all.extend(figures.first().map(|f| Figure::new("µs of CPU each", f.value)));
                all.extend(figures.into_iter().skip(2));
                Ok(all)
            });
        }
        let cpu = Rc::clone(&cpu);
        case = case.side("disk's bound", move |plan| {
            let dir = tempfile::tempdir().context("no temporary folder")?;
            disk_bound(dir.path(), outstanding, cpu.get(), plan)
        });
        case = case.beside_best("store", "Valkey", &["Valkey"], Some(Wanted::AtLeast(1.5)));
        case = case.beside_best("store", "Redis", &["Redis"], None);
        let bound = Some(Wanted::AtLeast(0.8));
        case = case.beside_best("store", "the disk's bound", &["disk's bound"], bound);
        bench.add(case);
    }
    bench.run()
}

/// Resident memory of a process, in bytes.
fn resident_bytes(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).context("no Rss")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib * 1024)
}

/// Runs what is about many keys: their memory.
pub(crate) fn run_memory(run: &Run) -> Result<()> {
    let keys = if run.quick { MANY_KEYS / 100 } else { MANY_KEYS };
    let mut bench = Bench::new(run, "store-memory", "Memory of a key beyond its bytes")?;
    add_versions(&mut bench)?;
    bench.note(format!("{keys} keys of {KEY_BYTES} B with values of {VALUE_BYTES} B."));
    let mut case = Case::new("short strings", "bytes beyond key and value").rounds_max(1);
    for which in Which::ALL {
        case = case.side(which.name(), move |_| {
            let dir = tempfile::tempdir().context("no temporary folder")?;
            let server = start(which, Keeps::Nothing, dir.path())?;
            let before = resident_bytes(server.pid())?;
            let addr = *server.addrs().first().context("a server has an address")?;
            fill(addr, keys, VALUE_BYTES, |n| format!("key:{n:012}"))?;
            let each = (resident_bytes(server.pid())? - before) as f64 / keys as f64;
            Ok(vec![
                Figure::new("", each - (KEY_BYTES + VALUE_BYTES) as f64),
                Figure::new("bytes in all", each),
            ])
        });
    }
    case = case.limit("store", Wanted::AtMost(32.0)).costs("store", "Valkey", None);
    bench.add(case.costs("store", "Redis", None));
    bench.run()
}

/// How a server ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Orderly,
    Killed,
}

/// The seconds from a server's start until it answers with all its keys.
fn restart(which: Which, end: End, keys: u64) -> Result<Vec<Figure>> {
    let dir = tempfile::tempdir().context("no temporary folder")?;
    let mut server = start(which, Keeps::Always, dir.path())?;
    let addr = *server.addrs().first().context("a server has an address")?;
    fill(addr, keys, VALUE_BYTES, |n| format!("key:{n:012}"))?;
    match end {
        End::Killed => server.kill()?,
        End::Orderly => drop(server),
    }
    let bytes = folder_bytes(dir.path())?;
    let began = Instant::now();
    let server = start(which, Keeps::Always, dir.path())?;
    let addr = *server.addrs().first().context("a server has an address")?;
    while size(addr)? != Some(keys) {
        if began.elapsed() > Duration::from_secs(300) {
            bail!("not all keys came back");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let seconds = began.elapsed().as_secs_f64();
    let gigabytes = bytes as f64 / 1e9;
    Ok(vec![
        Figure::new("", seconds),
        Figure::new("s a GB on disk", seconds / gigabytes),
        Figure::new("GB on disk", gigabytes),
    ])
}

/// How many keys a server has, once it can say.
fn size(addr: SocketAddr) -> Result<Option<u64>> {
    let Ok(mut stream) = TcpStream::connect(addr) else { return Ok(None) };
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(b"DBSIZE\r\n")?;
    let mut heard = [0; 256];
    let count = stream.read(&mut heard)?;
    let text = String::from_utf8_lossy(&heard[..count]).into_owned();
    Ok(text.strip_prefix(':').and_then(|number| number.trim().parse().ok()))
}

fn folder_bytes(dir: &Path) -> Result<u64> {
    let mut sum = 0;
    let mut left: Vec<PathBuf> = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(&dir)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            match meta.is_dir() {
                true => left.push(entry.path()),
                false => sum += meta.len(),
            }
        }
    }
    Ok(sum)
}

/// Runs restarts.
pub(crate) fn run_restart(run: &Run) -> Result<()> {
    let keys = if run.quick { MANY_KEYS / 100 } else { MANY_KEYS };
    let mut bench = Bench::new(run, "store-restart", "A restart, until all keys are served")?;
    add_versions(&mut bench)?;
    bench.note(format!(
        "{keys} keys of {KEY_BYTES} B with values of {VALUE_BYTES} B, each reply on disk, the page \
         cache warm. The peers read their append-only file."
    ));
    for (name, end) in [("orderly end", End::Orderly), ("kill -9", End::Killed)] {
        let mut case = Case::new(name, "seconds").rounds_max(2);
        for which in Which::ALL {
            case = case.side(which.name(), move |_| restart(which, end, keys));
        }
        if end == End::Orderly {
            case = case.limit("store", Wanted::AtMost(1.0));
        }
        bench.add(case.costs("store", "Valkey", None).costs("store", "Redis", None));
    }
    bench.run()
}
