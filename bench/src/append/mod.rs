//! Durable appends beside the best that fio reaches on the same disk.
//!
//! Sixty-four writers wait for their records; what they append while one commit is on its way
//! leaves with the next, so a commit has about sixty-four records. fio writes as many bytes at a
//! time, one write after the other, to a file whose blocks were written before, as those of a
//! segment are.

mod writer;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

pub(crate) use self::writer::{Found, WriteArgs, write_log};
use crate::compare::{Bench, Case, Plan, Run};
use crate::report::{Figure, Wanted, number};
use crate::server::wrapped;

const WRITERS: u32 = 64;
const PAYLOAD_BYTES: usize = 200;
/// Of fio's file: as much as the largest segment.
const FILE_BYTES: u64 = 64 << 20;
/// Appends a second of the open loop: what most disks bear.
const RATE: f64 = 5000.0;

/// Ways to make a write durable, with the options by which fio does so.
const PATTERNS: [(&str, &[&str]); 5] = [
    ("fio, write and fdatasync", &["--ioengine=psync", "--fdatasync=1"]),
    ("fio, O_DSYNC", &["--ioengine=psync", "--sync=dsync"]),
    ("fio, O_DIRECT and O_DSYNC", &["--ioengine=psync", "--direct=1", "--sync=dsync"]),
    ("fio, io_uring and fdatasync", &["--ioengine=io_uring", "--fdatasync=1"]),
    ("fio, io_uring, O_DIRECT, O_DSYNC", &["--ioengine=io_uring", "--direct=1", "--sync=dsync"]),
];

/// What a commit of all writers writes, rounded up to what `O_DIRECT` takes.
fn group_bytes() -> u64 {
    let record = u64::from(sextant_segment::stored_bytes(PAYLOAD_BYTES));
    (record * u64::from(WRITERS)).next_multiple_of(4096)
}

/// Runs the comparison, in a folder on the disk in question.
pub(crate) fn run(run: &Run, dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let place = tempfile::tempdir_in(dir).context("no temporary folder")?;
    let file = prepare(place.path())?;
    let mut bench = Bench::new(run, "segment-append", "Durable appends of 64 writers")?;
    bench.version("fio", Command::new("fio").arg("--version"))?;
    bench.note(format!(
        "Records of {PAYLOAD_BYTES} bytes; each writer waits for its acknowledgement, which follows \
         an fdatasync. fio writes {} bytes at a time, which counts as {WRITERS} appends.",
        number(group_bytes() as f64)
    ));
    bench.note(
        "The log also zeroes and syncs each segment before it is used, within the time measured; \
         fio overwrites one file again and again.",
    );
    let (place, file) = (place.path(), file.as_path());
    let mut case = Case::new("as many as go", "appends a second")
        .side("log", move |plan| Ok(log_figures(&append(place, plan, None)?, false)));
    for (name, options) in PATTERNS {
        case = case.side(name, move |plan| fio(file, options, plan));
    }
    let fio: Vec<&str> = PATTERNS.iter().map(|(name, _)| *name).collect();
    bench.add(case.beside_best("log", "the best of fio", &fio, Some(Wanted::AtLeast(0.8))));
    let name = "5,000 appends a second, from their intended start";
    bench.add(
        Case::new(name, "p99 µs of an append")
            .side("log", move |plan| Ok(log_figures(&append(place, plan, Some(RATE))?, true))),
    );
    bench.run()
}

/// A file whose blocks have all been written, on the disk.
fn prepare(dir: &Path) -> Result<PathBuf> {
    let path = dir.join("fio");
    let mut file = File::create_new(&path).context("cannot make fio's file")?;
    let zeros = vec![0; 1 << 20];
    for _ in 0..FILE_BYTES >> 20 {
        file.write_all(&zeros).context("cannot write fio's file")?;
    }
    file.sync_all().context("cannot sync fio's file")?;
    Ok(path)
}

fn append(place: &Path, plan: &Plan, rate: Option<f64>) -> Result<Found> {
    let dir = tempfile::tempdir_in(place).context("no temporary folder")?;
    let mut command = Command::new(std::env::current_exe().context("this program has no path")?);
    command.arg("write-log").arg("--dir").arg(dir.path().join("log"));
    let mut set = |name: &str, value: String| {
        command.args([name, &value]);
    };
    set("--writers", WRITERS.to_string());
    set("--payload-bytes", PAYLOAD_BYTES.to_string());
    set("--warm-up-ms", plan.warm_up.as_millis().to_string());
    set("--measure-ms", plan.measure.as_millis().to_string());
    if let Some(rate) = rate {
        set("--rate", rate.to_string());
    }
    let output = run_to_end(&command)?;
    serde_json::from_slice(&output).context("the writers said something else")
}

/// Runs a program that ends by itself, and gives what it printed.
fn run_to_end(command: &Command) -> Result<Vec<u8>> {
    let output = wrapped(None, command)?.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        bail!("{} failed ({}): {said}", command.get_program().display(), output.status);
    }
    Ok(output.stdout)
}

fn log_figures(found: &Found, latency_first: bool) -> Vec<Figure> {
    let us = |ns: u64| ns as f64 / 1000.0;
    let seconds = found.elapsed_ns as f64 / 1e9;
    let rate = Figure::new("appends a second", found.acknowledged as f64 / seconds);
    let p99 = Figure::new("p99 µs", us(found.latency.p99_ns));
    let p50 = Figure::new("p50 µs", us(found.latency.p50_ns));
    let p999 = Figure::new("p99.9 µs", us(found.latency.p999_ns));
    let group = found.acknowledged as f64 / found.commits as f64;
    let mut figures =
        if latency_first { vec![p99, rate, p50, p999] } else { vec![rate, p50, p99, p999] };
    if !latency_first {
        // By a schedule the writers spin, and their CPU time is not the log's.
        let cpu = us(found.cpu_ns) / found.acknowledged as f64;
        figures.push(Figure::new("µs of CPU each", cpu));
    }
    figures.push(Figure::new("in a commit", group));
    figures
}

fn fio(file: &Path, options: &[&str], plan: &Plan) -> Result<Vec<Figure>> {
    let mut command = Command::new("fio");
    command.args(["--name=append", "--rw=write", "--iodepth=1", "--overwrite=1", "--time_based"]);
    command.args(["--output-format=json", "--percentile_list=50:99:99.9"]);
    // From submission: on io_uring a synchronous write may be done within that.
    command.args(["--lat_percentiles=1", "--clat_percentiles=0"]);
    command.arg(format!("--filename={}", file.display()));
    command.arg(format!("--size={FILE_BYTES}"));
    command.arg(format!("--bs={}", group_bytes()));
    command.arg(format!("--ramp_time={}ms", plan.warm_up.as_millis()));
    command.arg(format!("--runtime={}ms", plan.measure.as_millis()));
    command.args(options);
    let output = run_to_end(&command)?;
    // It may say a word about the options before.
    let start = output.iter().position(|byte| *byte == b'{').context("fio printed no JSON")?;
    let said: Value = serde_json::from_slice(&output[start..]).context("fio's JSON is broken")?;
    fio_figures(&said["jobs"][0]).context("fio's JSON has other fields")
}

fn fio_figures(job: &Value) -> Option<Vec<Figure>> {
    let number = Value::as_f64;
    let writes = &job["write"];
    let rate = number(&writes["iops"])?;
    let cpu = (number(&job["usr_cpu"])? + number(&job["sys_cpu"])?) / 100.0;
    let appends = rate * f64::from(WRITERS);
    // With fdatasync the sync is an operation of its own, behind the write.
    let syncs = &job["sync"]["lat_ns"];
    let latency = |percentile: &str| {
        let write = number(&writes["lat_ns"]["percentile"][percentile]).unwrap_or(0.0);
        let sync = number(&syncs["percentile"][percentile]).unwrap_or(0.0);
        (write + sync) / 1000.0
    };
    Some(vec![
        Figure::new("appends a second", appends),
        Figure::new("p50 µs", latency("50.000000")),
        Figure::new("p99 µs", latency("99.000000")),
        Figure::new("p99.9 µs", latency("99.900000")),
        Figure::new("µs of CPU each", cpu / appends * 1e6),
        Figure::new("in a commit", f64::from(WRITERS)),
    ])
}
