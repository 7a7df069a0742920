//! What the audit costs, and how fast it answers: writes facts as a platform would, then asks.
//!
//! ```text
//!   cargo run --release -p sextant-audit --example measure_audit -- --facts 100000000 [--dir DIR] [--scattered]
//! ```
//!
//! Half of the facts are of broadcasts to 100,000 devices, half of messages to one device each:
//! queued, sent, and acknowledged somewhat later, as they come out of several cores. The numbers of
//! messages are counted; scattered, they are anything.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fastrand::Rng;
use hdrhistogram::Histogram;
use sextant_audit::{Fact, Options, Page, Query, Reader, Retention, Stage, Writer, verify};

/// Devices, of which each broadcast goes to a tenth in a row.
const DEVICES: u32 = 1_000_000;
const BROADCAST: u32 = 100_000;
const APPS: u16 = 20;
/// Facts that one call hands over.
const BATCH: usize = 1000;
const QUERIES: usize = 1000;
const START_MS: u64 = 1_760_000_000_000;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let facts = option("--facts").map_or(Ok(10_000_000), |text| text.parse::<u64>())?;
    let parent = option("--dir").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(parent)?;
    let options = Options {
        bytes_max: 64 << 30,
        retention: Retention { bytes_max: Some(32 << 30), age_max: None },
        ..Options::default()
    };
    let (mut writer, reader, _) = Writer::open(dir.path(), options.clone())?;
    let mut platform = Platform::new(std::env::args().any(|arg| arg == "--scattered"));
    platform.write(&mut writer, facts)?;
    let head = writer.head();
    println!("records                   {:>12}", head.seq);
    report_sizes(dir.path(), platform.written)?;
    report_memory();
    ask_all(&reader, &platform)?;
    report_memory();

    let began = Instant::now();
    writer.close()?;
    println!("close                     {:>12.1} ms", millis(began));
    let began = Instant::now();
    let (writer, reader, opened) = Writer::open(dir.path(), options)?;
    println!("open                      {:>12.1} ms", millis(began));
    assert_eq!((opened.facts, opened.head), (platform.written, head), "everything is there");
    let began = Instant::now();
    let mut sum = 0u64;
    let scanned = reader.scan_facts(0, |_, fact| sum = sum.wrapping_add(fact.at));
    let per_fact = began.elapsed().as_nanos() as f64 / scanned.facts as f64;
    println!("scan                      {per_fact:>12.1} ns a fact (sum {sum})");
    let began = Instant::now();
    let report = verify(dir.path(), Some(writer.head()), |_| ())?;
    println!(
        "verify                    {:>12.1} ms, {} damaged",
        millis(began),
        report.damage.len()
    );
    Ok(())
}

fn option(name: &str) -> Option<String> {
    let mut args = std::env::args().skip_while(|arg| arg != name);
    args.nth(1)
}

fn millis(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e3
}

/// Makes facts.
struct Platform {
    rng: Rng,
    now: u64,
    next_message: u64,
    scattered: bool,
    broadcasts: Vec<(u64, u32)>,
    singles: Vec<(u64, u32)>,
    written: u64,
    /// What is acknowledged when its time has come.
    pending: std::collections::VecDeque<Fact>,
    out: Vec<Fact>,
    /// Time within the writer, and of a processor there.
    spent: Duration,
    spent_cpu: Duration,
}

impl Platform {
    fn new(scattered: bool) -> Platform {
        Platform {
            rng: Rng::with_seed(7),
            now: START_MS,
            next_message: 1 << 33,
            scattered,
            broadcasts: Vec::new(),
            singles: Vec::new(),
            written: 0,
            pending: std::collections::VecDeque::new(),
            out: Vec::with_capacity(BATCH),
            spent: Duration::ZERO,
            spent_cpu: Duration::ZERO,
        }
    }

    fn write(&mut self, writer: &mut Writer, facts: u64) -> Outcome<()> {
        let began = Instant::now();
        while self.written < facts {
            if (self.written / 600_000).is_multiple_of(2) {
                self.broadcast(writer)?;
            } else {
                self.single(writer)?;
            }
        }
        while let Some(fact) = self.pending.pop_front() {
            self.put(writer, fact)?;
        }
        self.hand_over(writer)?;
        self.timed(|| writer.flush())?;
        let count = self.written as f64;
        println!("facts                     {:>12}", self.written);
        let per_fact = |spent: Duration| spent.as_nanos() as f64 / count;
        println!("wall                      {:>12.1} s", began.elapsed().as_secs_f64());
        println!("in the writer             {:>12.1} ns a fact", per_fact(self.spent));
        println!("of a processor there      {:>12.1} ns a fact", per_fact(self.spent_cpu));
        Ok(())
    }

    /// To devices in a row, 20 a millisecond; acknowledged a while later.
    fn broadcast(&mut self, writer: &mut Writer) -> Outcome<()> {
        let message = self.next_message();
        let first = self.rng.u32(..DEVICES / BROADCAST) * BROADCAST;
        self.broadcasts.push((message, first));
        for n in 0..BROADCAST {
            self.now += u64::from(n % 20 == 0);
            self.deliver(writer, message, first + n)?;
        }
        Ok(())
    }

    fn single(&mut self, writer: &mut Writer) -> Outcome<()> {
        let (message, device) = (self.next_message(), self.rng.u32(..DEVICES));
        if self.singles.len() < 1 << 20 {
            self.singles.push((message, device));
        }
        self.now += u64::from(message.is_multiple_of(10));
        self.deliver(writer, message, device)
    }

    fn next_message(&mut self) -> u64 {
        self.next_message += 1;
        match self.scattered {
            false => self.next_message,
            true => self.rng.u64(..),
        }
    }

    fn deliver(&mut self, writer: &mut Writer, message: u64, device: u32) -> Outcome<()> {
        let app = (message % u64::from(APPS)) as u16;
        let fact = Fact { message, at: self.now, device, app, stage: Stage::Queued, reason: 0 };
        self.put(writer, fact)?;
        self.put(writer, Fact { stage: Stage::Sent, at: self.now + 1, ..fact })?;
        let at = self.now + self.rng.u64(20..300);
        self.pending.push_back(Fact { stage: Stage::Acknowledged, at, ..fact });
        while self.pending.len() > 2000 {
            let at = self.rng.usize(..64);
            if let Some(fact) = self.pending.remove(at) {
                self.put(writer, fact)?;
            }
        }
        Ok(())
    }

    fn put(&mut self, writer: &mut Writer, fact: Fact) -> Outcome<()> {
        self.out.push(fact);
        if self.out.len() == BATCH {
            self.hand_over(writer)?;
        }
        Ok(())
    }

    fn hand_over(&mut self, writer: &mut Writer) -> Outcome<()> {
        self.written += self.out.len() as u64;
        let (out, now) = (std::mem::take(&mut self.out), self.now);
        self.timed(|| writer.facts(&out).and_then(|()| writer.tick(now)))?;
        self.out = out;
        self.out.clear();
        Ok(())
    }

    fn timed<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let (began, cpu) = (Instant::now(), cpu_time());
        let outcome = work();
        self.spent += began.elapsed();
        self.spent_cpu += cpu_time().saturating_sub(cpu);
        outcome
    }
}

/// What this thread has had of a processor, the kernel's part included.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn report_sizes(dir: &Path, facts: u64) -> Outcome<()> {
    let (mut segments, mut used, mut indexes) = (0, 0, 0);
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().into_string().unwrap_or_default();
        let bytes = entry.metadata()?.len();
        match name.rsplit('.').next() {
            Some("idx") => indexes += bytes,
            Some("seg") => {
                segments += bytes;
                let number = name.trim_end_matches(".seg").parse()?;
                used += used_bytes(dir, number)?;
            }
            _ => {}
        }
    }
    let per = |bytes: u64| bytes as f64 / facts as f64;
    println!("segments, zeros too       {:>12.2} bytes a fact", per(segments));
    println!("records                   {:>12.2} bytes a fact", per(used));
    println!("indexes                   {:>12.2} bytes a fact", per(indexes));
    println!("a delivery of three facts {:>12.2} bytes", 3.0 * per(used + indexes));
    Ok(())
}

/// What was written of a segment.
fn used_bytes(dir: &Path, number: u32) -> Outcome<u64> {
    let file =
        sextant_segment::SegmentFile::open(dir, sextant_segment::SegmentId(number), 1 << 16)?;
    let mut items = file.items();
    for passed in items.by_ref() {
        passed?;
    }
    Ok(u64::from(items.place().offset))
}

fn report_memory() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    for line in status.lines().filter(|line| line.starts_with("VmHWM") || line.starts_with("Rss")) {
        println!("{line}");
    }
}

fn ask_all(reader: &Reader, platform: &Platform) -> Outcome<()> {
    let mut rng = Rng::with_seed(11);
    let mut singles = platform.singles.clone();
    rng.shuffle(&mut singles);
    let broadcasts = &platform.broadcasts;
    let limit = Query::LIMIT_MAX;
    let mut single = singles.iter().cycle();
    let mut next_single = move || *single.next().expect("there are some");
    ask(reader, "first, which reads the index", 1, || Query {
        message: Some(1),
        ..Query::default()
    })?;
    ask(reader, "a message to one device", QUERIES, || Query {
        message: Some(next_single().0),
        ..Query::default()
    })?;
    ask(reader, "a broadcast on one device", QUERIES, || {
        let (message, first) = broadcasts[rng.usize(..broadcasts.len())];
        let device = Some(first + rng.u32(..BROADCAST));
        Query { message: Some(message), device, ..Query::default() }
    })?;
    ask(reader, "a broadcast's first 10,000", QUERIES / 5, || Query {
        message: Some(broadcasts[rng.usize(..broadcasts.len())].0),
        limit,
        ..Query::default()
    })?;
    ask(reader, "a device's newest hundred", QUERIES, || Query {
        device: Some(rng.u32(..DEVICES)),
        newest_first: true,
        ..Query::default()
    })?;
    ask(reader, "a device's everything", QUERIES / 5, || Query {
        device: Some(rng.u32(..DEVICES)),
        limit,
        ..Query::default()
    })?;
    let span = platform.now - START_MS;
    ask(reader, "an app's hundred in a second", QUERIES, || {
        let from = START_MS + rng.u64(..span);
        Query { app: Some(rng.u16(..APPS)), from, to: from + 1000, ..Query::default() }
    })
}

fn ask(reader: &Reader, what: &str, times: usize, mut query: impl FnMut() -> Query) -> Outcome<()> {
    let mut micros = Histogram::<u64>::new(3)?;
    let (mut entries, mut records, mut most) = (0, 0, 0);
    for _ in 0..times {
        let query = query();
        let began = Instant::now();
        let Page { entries: found, records_read, unreadable, .. } = reader.query(&query);
        micros.record(began.elapsed().as_micros() as u64)?;
        assert!(unreadable.is_empty(), "nothing is damaged");
        entries += found.len();
        records += u64::from(records_read);
        most = most.max(records_read);
    }
    let at = |quantile| micros.value_at_quantile(quantile) as f64 / 1e3;
    println!(
        "{what:<30} p50 {:>8.3} p99 {:>8.3} max {:>8.3} ms; {:.1} entries, {:.1} records ({most} at most)",
        at(0.5),
        at(0.99),
        at(1.0),
        entries as f64 / times as f64,
        records as f64 / times as f64,
    );
    Ok(())
}
