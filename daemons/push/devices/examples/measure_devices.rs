//! What a registry of many devices takes: memory, time to register and to replay, and time to
//! resolve targets. `cargo run --release -p sextant-devices --example measure_devices -- 1000000`
//!
//! Memory is counted as it is asked for, and beside it is what the process grew by. Times are those
//! of the thread on a processor.

#[path = "../tests/it/typical.rs"]
mod typical;

use std::error::Error;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use sextant_devices::{
    By, Expression, Gather, Limits, ListFormat, ListReader, Registry, Target, Update,
};

use typical::{id, skewed, typical};

type Outcome<T> = Result<T, Box<dyn Error>>;

const EXPRESSIONS: [&str; 12] = [
    "t0",
    "city:c3 and not t1",
    "(t5 or t6) and app_version >= 3.2.1",
    "lang:zh*",
    "platform:android",
    "age >= 18",
    "age >= 18 and t900",
    "not t0 and not t1",
    "registered >= 2023-11-20",
    "registered >= 2023-11-20 and t900",
    "t1* and not (city:c1* or age < 30)",
    "timezone:Asia/* and (t1 or t2 or t3) and platform:ios and test:false",
];

fn main() -> Outcome<()> {
    let count = std::env::args().nth(1).map_or(Ok(1_000_000), |text| text.parse())?;
    let mut registry = Registry::new(Limits::default())?;
    registry.add_app("shop")?;
    let before = resident()?;
    let mut took = Duration::ZERO;
    let mut random = fastrand::Rng::with_seed(1);
    let counted = allocation_counter::measure(|| {
        for from in (0..count).step_by(BATCH) {
            let batch = (from..count).take(BATCH);
            let devices = batch.map(|number| typical(number, &mut random)).collect::<Vec<_>>();
            let start = Start::now();
            for device in &devices {
                registry.register(device, time(from)).expect("it is within the limits");
            }
            took += start.elapsed();
        }
    });
    let grew = resident()? - before;
    let each = |bytes: i64| bytes as f64 / f64::from(count);
    println!(
        "{count} devices: {:.1} bytes each, resident {:.1}",
        each(counted.bytes_current),
        each(grew)
    );
    println!("register: {:.0} ns", took.as_secs_f64() * 1e9 / f64::from(count));
    register_again(&mut registry, count)?;
    update(&mut registry, count)?;
    expressions(&registry)?;
    let everyone = registry.resolve(0, Target::Everyone)?.devices;
    timed("by time zone", || registry.groups(0, By::TimeZone, &everyone).len());
    timed("by version", || registry.groups(0, By::AppVersion, &everyone).len());
    timed("by tag", || registry.tag_counts(0, &everyone).len());
    list(&registry, count)?;
    replay(&registry)
}

/// Operations that are timed together.
const BATCH: usize = 1000;

/// A moment of this thread's time.
struct Start(Duration);

impl Start {
    fn now() -> Start {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        Start(Duration::new(now.tv_sec.cast_unsigned(), now.tv_nsec as u32))
    }

    fn elapsed(&self) -> Duration {
        Start::now().0 - self.0
    }
}

fn time(number: u32) -> u64 {
    1_700_000_000_000 + u64::from(number) * 1000
}

/// Devices that say what they said before, as they do when an app starts.
fn register_again(registry: &mut Registry, count: u32) -> Outcome<()> {
    let mut random = fastrand::Rng::with_seed(4);
    let mut took = Duration::ZERO;
    const BATCHES: u32 = 100;
    for _ in 0..BATCHES {
        let known = (0..BATCH).filter_map(|_| registry.entry(random.u32(..count)));
        let batch = known.map(|entry| entry.device).collect::<Vec<_>>();
        let start = Start::now();
        for device in &batch {
            registry.register(device, time(count))?;
        }
        took += start.elapsed();
    }
    let each = took.as_secs_f64() * 1e9 / f64::from(BATCHES) / BATCH as f64;
    println!("register again: {each:.0} ns");
    Ok(())
}

fn update(registry: &mut Registry, count: u32) -> Outcome<()> {
    let mut random = fastrand::Rng::with_seed(2);
    let mut took = Duration::ZERO;
    const BATCHES: u32 = 100;
    for _ in 0..BATCHES {
        let mut next = || {
            let tag = format!("t{}", skewed(&mut random, 1000.0));
            (id(random.u32(..count)), Update { set_tags: vec![tag], ..Update::default() })
        };
        let batch = (0..BATCH).map(|_| next()).collect::<Vec<_>>();
        let start = Start::now();
        for (id, update) in &batch {
            registry.update(id, update, time(count))?;
        }
        took += start.elapsed();
    }
    let each = took.as_secs_f64() * 1e9 / f64::from(BATCHES) / BATCH as f64;
    println!("update: {each:.0} ns");
    Ok(())
}

fn expressions(registry: &Registry) -> Outcome<()> {
    let most = (0..250).map(|age| format!("age!={age}")).collect::<Vec<_>>().join(" or ");
    let words = vec!["*"; 80].join(" and ");
    for text in EXPRESSIONS.into_iter().chain([&*most, &words]) {
        let expression = Expression::parse(text)?;
        timed(text, || {
            registry.evaluate(0, &expression).map_or(0, |devices| devices.len() as usize)
        });
    }
    Ok(())
}

/// Prints the median of some runs, and what came out.
fn timed(what: &str, run: impl Fn() -> usize) {
    let mut times = Vec::new();
    let mut result = 0;
    for _ in 0..11 {
        let start = Start::now();
        result = run();
        times.push(start.elapsed());
    }
    times.sort_unstable();
    println!("{:8.3} ms  {result:8}  {what:.80}", times[times.len() / 2].as_secs_f64() * 1e3);
}

fn list(registry: &Registry, count: u32) -> Outcome<()> {
    let mut random = fastrand::Rng::with_seed(3);
    let mut next = || id(random.u32(..count));
    let json = (0..count)
        .map(|_| format!("{{\"device\":\"{}\",\"vars\":{{\"name\":\"Zoe\"}}}}\n", next()));
    let json = json.collect::<String>();
    let csv = (0..count).map(|_| format!("{},Zoe\n", next())).collect::<String>();
    let csv = format!("device,name\n{csv}");
    for (format, text) in [(ListFormat::Ndjson, json), (ListFormat::Csv, csv)] {
        let mut gather = Gather::new(0);
        let mut reader = ListReader::new(format);
        let mut lines = 0;
        let start = Start::now();
        let mut each = |line: sextant_devices::Line<'_>| {
            lines += 1;
            gather.add(registry, line.listed);
        };
        for chunk in text.as_bytes().chunks(16_384) {
            reader.feed(chunk, &mut each)?;
        }
        reader.finish(&mut each)?;
        let took = start.elapsed().as_secs_f64();
        let devices = gather.finish(registry).devices.len();
        println!("{format:?}: {lines} lines, {devices} devices, {:.0} ms", took * 1e3);
    }
    Ok(())
}

fn replay(registry: &Registry) -> Outcome<()> {
    let start = Start::now();
    let records = registry.records().collect::<Vec<_>>();
    let bytes = records.iter().map(Vec::len).sum::<usize>();
    let each = bytes as f64 / records.len() as f64;
    println!(
        "snapshot: {} records of {each:.0} bytes, {:.0} ms",
        records.len(),
        start.elapsed().as_secs_f64() * 1e3
    );
    let mut again = Registry::new(Limits::default())?;
    let start = Start::now();
    for record in &records {
        again.replay(record)?;
    }
    println!("replay: {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

/// Bytes of memory that the process has.
fn resident() -> Outcome<i64> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages = text.split(' ').nth(1).ok_or("no second number")?;
    Ok(pages.parse::<i64>()? * 4096)
}
