//! The writers: one core with a log, and so many writers, each of which appends a record, waits for
//! its acknowledgement, and appends the next; at once, or when the schedule says so. It runs as a
//! process of its own (`sextant-bench write-log`) and prints what it found as JSON.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sextant_load::{ProcessCpu, Recorder, Schedule, Steady, Summary};
use sextant_ring::core::{App, CloseReason, ConnId, Core, Cx, Limits};
use sextant_ring::disk::HostDisk;
use sextant_ring::driver::FileDone;
use sextant_ring::mesh::{Remote, mesh};
use sextant_ring::time::{Clock, Time};
use sextant_ring::uring::{self, Uring};
use sextant_ring::wheel::TimerId;
use sextant_segment::{AppendError, Log, Options, Seq};

/// What `sextant-bench write-log` is given.
#[derive(Debug, clap::Args)]
pub(crate) struct WriteArgs {
    /// A folder that is empty or not there yet
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    writers: u32,
    /// Bytes of a record's payload
    #[arg(long)]
    payload_bytes: usize,
    /// Appends a second, all writers together; as many as go, if not given
    #[arg(long)]
    rate: Option<f64>,
    #[arg(long)]
    warm_up_ms: u64,
    #[arg(long)]
    measure_ms: u64,
}

/// What the writers found.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Found {
    /// In the window.
    pub(crate) acknowledged: u64,
    /// Times that acknowledgements came, each for one write and sync.
    pub(crate) commits: u64,
    pub(crate) elapsed_ns: u64,
    pub(crate) cpu_ns: u64,
    pub(crate) latency: Summary,
}

/// Writes, and says what came of it.
pub(crate) fn write_log(args: &WriteArgs) -> Result<()> {
    std::fs::create_dir_all(&args.dir).context("cannot make the log's folder")?;
    let options = Options { record_bytes_max: 64 << 10, ..Options::new(1, 1) };
    let (log, _) = Log::open(&HostDisk, &args.dir, options).context("cannot open the log")?;
    let remote = Remote::host()?;
    let ring = uring::Options { sockets_max: 16, ..uring::Options::default() };
    let driver = Uring::new(&ring, remote.clone()).context("no ring")?;
    let mut ports = mesh(&[remote], 0, 16);
    let port = ports.pop().context("a mesh of one core has a port")?;
    let app = Writers::new(args, log)?;
    let core = Core::new(driver, app, port, Vec::new(), Limits::default(), Clock::read());
    let app = core.run().context("the core ended")?;
    if let Some(failure) = app.failure {
        bail!(failure);
    }
    let found = app.found.context("the window was not closed")?;
    println!("{}", serde_json::to_string(&found)?);
    Ok(())
}

struct Writers {
    log: Log,
    payload: Vec<u8>,
    warm_up: Duration,
    measure: Duration,
    schedule: Option<Schedule<Steady>>,
    rate: Option<f64>,
    /// Writers that have nothing to wait for.
    free: u32,
    /// What is to be appended, by when it should have been.
    due: VecDeque<Time>,
    /// What was appended and is not acknowledged.
    waiting: VecDeque<(Seq, Time)>,
    recorder: Recorder,
    commits: u64,
    cpu: ProcessCpu,
    timer: Option<(TimerId, Time)>,
    /// When the window opens, and, from then on, when it closes.
    phase_ends: Time,
    opened: Option<(Time, u64, u64, Duration)>,
    found: Option<Found>,
    failure: Option<String>,
}

/// A timer may be two milliseconds late: the last stretch before an append is due is turned
/// through.
const SPIN: Duration = Duration::from_millis(3);

impl Writers {
    fn new(args: &WriteArgs, log: Log) -> Result<Writers> {
        Ok(Writers {
            log,
            payload: vec![b'.'; args.payload_bytes],
            warm_up: Duration::from_millis(args.warm_up_ms),
            measure: Duration::from_millis(args.measure_ms),
            schedule: None,
            rate: args.rate,
            free: args.writers,
            due: VecDeque::new(),
            waiting: VecDeque::new(),
            recorder: Recorder::default(),
            commits: 0,
            cpu: ProcessCpu::of(std::process::id())?,
            timer: None,
            phase_ends: Time::NEVER,
            opened: None,
            found: None,
            failure: None,
        })
    }

    fn fail(&mut self, cx: &mut Cx<()>, failure: String) {
        self.failure.get_or_insert(failure);
        cx.stop(cx.now());
    }

    fn keep_time(&mut self, cx: &mut Cx<()>) {
        if cx.now() < self.phase_ends || self.found.is_some() {
            return;
        }
        let cpu = match self.cpu.used() {
            Ok(cpu) => cpu,
            Err(error) => return self.fail(cx, error.to_string()),
        };
        let now = cx.now();
        let Some((since, done, commits, cpu_before)) = self.opened else {
            self.recorder.open(now);
            self.opened = Some((now, self.recorder.done(), self.commits, cpu));
            self.phase_ends = now + self.measure;
            return;
        };
        self.recorder.close(now);
        self.found = Some(Found {
            acknowledged: self.recorder.done() - done,
            commits: self.commits - commits,
            elapsed_ns: now.since(since).as_nanos() as u64,
            cpu_ns: (cpu - cpu_before).as_nanos() as u64,
            latency: self.recorder.summary(),
        });
        cx.stop(now);
    }

    /// Appends what is due, as far as there are writers for it.
    fn append(&mut self, cx: &mut Cx<()>) {
        while self.free > 0 && !cx.is_stopping() {
            if self.due.is_empty() {
                let next = match &mut self.schedule {
                    Some(schedule) => schedule.take_due(cx.now()),
                    None => Some(cx.now()),
                };
                self.due.extend(next);
            }
            let Some(intended) = self.due.front().copied() else { return };
            match self.log.append(1, &[&self.payload], cx.clock().unix_ms) {
                Ok(appended) => {
                    self.due.pop_front();
                    self.waiting.push_back((appended.seq, intended));
                    self.free -= 1;
                }
                // There will be room with a later completion.
                Err(AppendError::Backlog) => return,
                Err(error) => return self.fail(cx, error.to_string()),
            }
        }
    }

    fn plan_wake(&mut self, cx: &mut Cx<()>) {
        if cx.is_stopping() {
            return;
        }
        let next = self.schedule.as_mut().and_then(Schedule::next_time);
        if next.is_some_and(|next| next <= cx.now() + SPIN) && self.free > 0 {
            return cx.tell(cx.core(), ());
        }
        // With no writer free the next append comes after a completion.
        let next = next.filter(|_| self.free > 0).map(|next| next - SPIN);
        let wanted = [Some(self.phase_ends), self.log.deadline(), next];
        let at = wanted.into_iter().flatten().min().unwrap_or(Time::NEVER);
        if self.timer.is_some_and(|(_, armed)| armed == at) {
            return;
        }
        if let Some((timer, _)) = self.timer.take() {
            cx.disarm(timer);
        }
        self.timer = cx.arm(at, 0).map(|timer| (timer, at));
    }

    fn acknowledge(&mut self, now: Time, up_to: Seq) {
        self.commits += 1;
        while let Some((_, intended)) = self.waiting.pop_front_if(|(seq, _)| *seq <= up_to) {
            self.recorder.record(intended, now);
            self.free += 1;
        }
    }
}

impl App for Writers {
    type Message = ();

    fn on_start(&mut self, cx: &mut Cx<()>) {
        let now = cx.now();
        self.schedule = self.rate.map(|rate| Schedule::new(Steady::new(now, rate)));
        self.phase_ends = now + self.warm_up;
    }

    fn on_accept(&mut self, cx: &mut Cx<()>, conn: ConnId, _listener: usize) {
        cx.abort(conn);
    }

    fn on_data(&mut self, _cx: &mut Cx<()>, _conn: ConnId, _data: &[u8]) {}

    fn on_close(&mut self, _cx: &mut Cx<()>, _conn: ConnId, _reason: CloseReason) {}

    fn on_file(&mut self, cx: &mut Cx<()>, done: FileDone) {
        let now = cx.now();
        let progress = self.log.handle(done, cx, now);
        if progress.poisoned {
            self.fail(cx, "a write or sync failed".to_owned());
        }
        if let Some(up_to) = progress.ackable {
            self.acknowledge(now, up_to);
        }
    }

    fn on_timer(&mut self, _cx: &mut Cx<()>, _key: u64) {
        self.timer = None;
    }

    fn on_message(&mut self, _cx: &mut Cx<()>, (): ()) {}

    fn on_turn_end(&mut self, cx: &mut Cx<()>) {
        self.keep_time(cx);
        self.append(cx);
        let now = cx.now();
        self.log.commit(cx, now);
        self.plan_wake(cx);
    }
}
