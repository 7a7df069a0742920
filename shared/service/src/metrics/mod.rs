//! Metrics that cost a core a load and a store, summed when somebody asks.
//!
//! ```text
//!   core 0  [ words ]──┐            words: 128-byte lines of AtomicU64, one writer each
//!   core 1  [ words ]──┼─ sum ──►  Registry::render  ──►  GET /metrics
//!   control [ words ]──┘            counter = 1 word, gauge = 1, histogram = 1 + buckets
//! ```
//!
//! All families are declared to a [`Builder`] at the start; then each writer (the cores, and one
//! more for the control thread if it counts too) takes its [`CoreMetrics`]. A handle is not `Sync`
//! and is given out once, so its words have a single writer and need no read-modify-write
//! instruction. A scrape adds up relaxed loads: each number is exact for some recent moment, and
//! two numbers of one scrape may be of slightly different moments.
//!
//! Latencies are HDR histograms ([`latency`]), exported as summaries. Their quantiles are of the
//! last minute or so ([`latency::WINDOW`]), since those of a whole lifetime stop moving; their
//! `_sum` and `_count` are of the lifetime, as Prometheus wants them.
//!
//! Text format: version 0.0.4. Names and labels are checked when they are declared; a wrong one is
//! a bug and panics there.

pub mod latency;
mod process;
mod text;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use latency::Window;
pub(crate) use text::CONTENT_TYPE;
use text::{Kind, Page};

/// Series that one [`Builder::collect`] may report; those beyond are left out.
pub const COLLECTED_SERIES_MAX: usize = 1_000;

/// A number that only grows, since the start of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter(u32);

/// A number that rises and falls; each core has its share, and the shares are summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gauge(u32);

/// A distribution of latencies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    word: u32,
    window: u32,
}

/// Two cache lines: one that is written, and its neighbour that the processor fetches with it.
#[repr(align(128))]
#[derive(Default)]
struct Line([AtomicU64; WORDS_PER_LINE]);

const WORDS_PER_LINE: usize = 16;

/// One writer's numbers.
struct Words(Box<[Line]>);

impl Words {
    fn new(words: usize) -> Self {
        Self((0..words.div_ceil(WORDS_PER_LINE)).map(|_| Line::default()).collect())
    }

    fn word(&self, index: u32) -> &AtomicU64 {
        let index = index as usize;
        &self.0[index / WORDS_PER_LINE].0[index % WORDS_PER_LINE]
    }

    fn load(&self, index: u32) -> u64 {
        self.word(index).load(Ordering::Relaxed)
    }
}

type Read = Box<dyn Fn() -> f64 + Send + Sync>;
type Collect = Box<dyn Fn(&mut Collected<'_>) + Send + Sync>;

enum Source {
    Words(Vec<u32>),
    Latencies(Vec<Latency>),
    Read(Vec<Read>),
    Collect(Collect),
    /// Always 1; what it tells is in its labels.
    Info(Vec<(&'static str, String)>),
}

struct Family {
    name: String,
    help: String,
    kind: Kind,
    /// The label's name and its value for each series; no name means one series without labels.
    label: Option<(String, Vec<String>)>,
    source: Source,
}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?})", self.name, self.kind)
    }
}

/// Takes the declarations of all families, at the start.
#[derive(Debug, Default)]
pub struct Builder {
    families: Vec<Family>,
    names: BTreeSet<String>,
    words: u32,
    windows: u32,
}

impl Builder {
    /// With the families that every process has: `process_*`, and `sextant_build_info` that names
    /// the `daemon` and its `version`.
    pub fn new(daemon: &str, version: &str) -> Self {
        let mut builder = Self::default();
        process::declare(&mut builder, daemon, version);
        builder
    }

    /// Declares a counter. `name` ends in `_total`.
    pub fn counter(&mut self, name: &str, help: &str) -> Counter {
        let word = self.take_words(1);
        self.declare(name, help, Kind::Counter, None, Source::Words(vec![word]));
        Counter(word)
    }

    /// Declares a counter for each of `values` of one label.
    pub fn counters<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: [&str; N],
    ) -> [Counter; N] {
        let words = values.map(|_| self.take_words(1));
        let label = Some((label, values.to_vec()));
        self.declare(name, help, Kind::Counter, label, Source::Words(words.to_vec()));
        words.map(Counter)
    }

    /// Declares a gauge.
    pub fn gauge(&mut self, name: &str, help: &str) -> Gauge {
        let word = self.take_words(1);
        self.declare(name, help, Kind::Gauge, None, Source::Words(vec![word]));
        Gauge(word)
    }

    /// Declares a gauge for each of `values` of one label.
    pub fn gauges<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: [&str; N],
    ) -> [Gauge; N] {
        let words = values.map(|_| self.take_words(1));
        let label = Some((label, values.to_vec()));
        self.declare(name, help, Kind::Gauge, label, Source::Words(words.to_vec()));
        words.map(Gauge)
    }

    /// Declares a latency. `name` ends in `_seconds`. Costs 26 KiB for each core.
    pub fn latency(&mut self, name: &str, help: &str) -> Latency {
        let latency = self.take_latency();
        self.declare(name, help, Kind::Summary, None, Source::Latencies(vec![latency]));
        latency
    }

    /// Declares a latency for each of `values` of one label.
    pub fn latencies<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: [&str; N],
    ) -> [Latency; N] {
        let latencies = values.map(|_| self.take_latency());
        let label = Some((label, values.to_vec()));
        self.declare(name, help, Kind::Summary, label, Source::Latencies(latencies.to_vec()));
        latencies
    }

    /// Declares a gauge that is read when somebody asks. `read` runs on the scraping thread.
    pub fn gauge_fn(
        &mut self,
        name: &str,
        help: &str,
        read: impl Fn() -> f64 + Send + Sync + 'static,
    ) {
        self.declare(name, help, Kind::Gauge, None, Source::Read(vec![Box::new(read)]));
    }

    /// Declares a counter that is read when somebody asks.
    pub fn counter_fn(
        &mut self,
        name: &str,
        help: &str,
        read: impl Fn() -> f64 + Send + Sync + 'static,
    ) {
        self.declare(name, help, Kind::Counter, None, Source::Read(vec![Box::new(read)]));
    }

    /// Declares a gauge whose series, by the value of one `label`, are known only when somebody
    /// asks. At most [`COLLECTED_SERIES_MAX`].
    pub fn collect(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        collect: impl Fn(&mut Collected<'_>) + Send + Sync + 'static,
    ) {
        let label = Some((label, Vec::new()));
        self.declare(name, help, Kind::Gauge, label, Source::Collect(Box::new(collect)));
    }

    /// Declares a gauge that is always 1, for what its labels say.
    pub fn info(&mut self, name: &str, help: &str, labels: &[(&'static str, &str)]) {
        for (label, _) in labels {
            assert!(text::is_label_name(label), "{name}: {label} is no label name");
        }
        let labels = labels.iter().map(|(label, value)| (*label, (*value).to_owned())).collect();
        self.declare(name, help, Kind::Gauge, None, Source::Info(labels));
    }

    fn take_words(&mut self, count: u32) -> u32 {
        let first = self.words;
        self.words += count;
        first
    }

    fn take_latency(&mut self) -> Latency {
        let window = self.windows;
        self.windows += 1;
        // The first word is the sum in nanoseconds, then the buckets.
        Latency { word: self.take_words(1 + latency::BUCKETS as u32), window }
    }

    fn declare(
        &mut self,
        name: &str,
        help: &str,
        kind: Kind,
        label: Option<(&str, Vec<&str>)>,
        source: Source,
    ) {
        assert!(text::is_metric_name(name), "{name} is no metric name");
        assert!(!help.is_empty(), "{name} wants a help text");
        assert_eq!(
            name.ends_with("_total"),
            kind == Kind::Counter,
            "{name}: counters, and only they, end in _total"
        );
        assert!(
            kind != Kind::Summary || name.ends_with("_seconds"),
            "{name}: a latency is in seconds and says so"
        );
        assert!(self.names.insert(name.to_owned()), "{name} is declared twice");
        let label = label.map(|(label, values)| {
            assert!(text::is_label_name(label), "{name}: {label} is no label name");
            let distinct: BTreeSet<&&str> = values.iter().collect();
            assert_eq!(distinct.len(), values.len(), "{name}: two series of one label value");
            (label.to_owned(), values.into_iter().map(str::to_owned).collect())
        });
        let (name, help) = (name.to_owned(), help.to_owned());
        self.families.push(Family { name, help, kind, label, source });
    }

    /// Ends the declarations; there will be `writers` threads that count.
    pub fn build(self, writers: usize) -> Registry {
        assert!(writers > 0, "somebody must count");
        Registry {
            families: self.families,
            writers: (0..writers).map(|_| Arc::new(Words::new(self.words as usize))).collect(),
            taken: (0..writers).map(|_| AtomicBool::new(false)).collect(),
            windows: Mutex::new((0..self.windows).map(|_| Window::default()).collect()),
        }
    }
}

/// The series that a [`Builder::collect`] closure reports.
#[derive(Debug)]
pub struct Collected<'a> {
    page: &'a mut Page,
    name: &'a str,
    label: &'a str,
    seen: BTreeSet<String>,
}

impl Collected<'_> {
    /// Reports one series. A label value that was reported before is passed over.
    pub fn add(&mut self, label_value: &str, value: f64) {
        if self.seen.len() < COLLECTED_SERIES_MAX && self.seen.insert(label_value.to_owned()) {
            self.page.sample(self.name, "", &[(self.label, label_value)], value);
        }
    }
}

/// All families and everybody's numbers; lives as long as the process.
#[derive(Debug)]
pub struct Registry {
    families: Vec<Family>,
    writers: Vec<Arc<Words>>,
    taken: Vec<AtomicBool>,
    windows: Mutex<Vec<Window>>,
}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} lines", self.0.len())
    }
}

impl Registry {
    /// The handle of writer `index`. Each can be had once: a second would break the rule that a
    /// word has one writer.
    pub fn core(&self, index: usize) -> CoreMetrics {
        let taken = self.taken[index].swap(true, Ordering::Relaxed);
        assert!(!taken, "the metrics of writer {index} have an owner");
        CoreMetrics { words: Arc::clone(&self.writers[index]), not_sync: PhantomData }
    }

    /// A counter, summed over all writers.
    pub fn total(&self, counter: Counter) -> u64 {
        self.sum(counter.0)
    }

    /// A gauge, summed over all writers.
    pub fn level(&self, gauge: Gauge) -> i64 {
        self.sum(gauge.0).cast_signed()
    }

    /// A latency since the start of the process, over all writers, in nanoseconds.
    pub fn distribution(&self, latency: Latency) -> hdrhistogram::Histogram<u64> {
        latency::histogram(&self.buckets(latency))
    }

    /// The page for `GET /metrics`. `now` moves the window of the quantiles.
    pub fn render(&self, now: Instant) -> String {
        let mut page = Page::default();
        for family in &self.families {
            page.family(&family.name, &family.help, family.kind);
            self.render_family(family, now, &mut page);
        }
        page.into_text()
    }

    fn render_family(&self, family: &Family, now: Instant, page: &mut Page) {
        let name = family.name.as_str();
        let labels = |series: usize| -> Vec<(&str, &str)> {
            let label = family.label.as_ref();
            label
                .map(|(label, values)| (label.as_str(), values[series].as_str()))
                .into_iter()
                .collect()
        };
        match &family.source {
            Source::Words(words) => {
                for (series, word) in words.iter().enumerate() {
                    let sum = self.sum(*word);
                    let sum = match family.kind {
                        Kind::Gauge => i128::from(sum.cast_signed()),
                        _ => i128::from(sum),
                    };
                    page.sample_int(name, &labels(series), sum);
                }
            }
            Source::Read(reads) => {
                for (series, read) in reads.iter().enumerate() {
                    page.sample(name, "", &labels(series), read());
                }
            }
            Source::Collect(collect) => {
                let label = family.label.as_ref().map_or("", |(label, _)| label.as_str());
                collect(&mut Collected { page, name, label, seen: BTreeSet::new() });
            }
            Source::Info(labels) => {
                let labels: Vec<_> =
                    labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
                page.sample_int(name, &labels, 1);
            }
            Source::Latencies(latencies) => {
                for (series, latency) in latencies.iter().enumerate() {
                    self.render_latency(name, &labels(series), *latency, now, page);
                }
            }
        }
    }

    fn render_latency(
        &self,
        name: &str,
        labels: &[(&str, &str)],
        latency: Latency,
        now: Instant,
        page: &mut Page,
    ) {
        let buckets = self.buckets(latency);
        let count: u64 = buckets.iter().sum();
        let sum = Duration::from_nanos(self.sum(latency.word)).as_secs_f64();
        let recent = {
            let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
            windows[latency.window as usize].since(buckets, now)
        };
        let recent = latency::histogram(&recent);
        for (quantile, shown) in latency::QUANTILES {
            let seconds = match recent.is_empty() {
                true => f64::NAN,
                false => recent.value_at_quantile(quantile) as f64 / 1e9,
            };
            let mut labels = labels.to_vec();
            labels.push(("quantile", shown));
            page.sample(name, "", &labels, seconds);
        }
        page.sample(name, "_sum", labels, sum);
        page.sample(name, "_count", labels, count as f64);
    }

    fn sum(&self, word: u32) -> u64 {
        self.writers.iter().fold(0, |sum, words| sum.wrapping_add(words.load(word)))
    }

    fn buckets(&self, latency: Latency) -> Vec<u64> {
        let first = latency.word + 1;
        let mut buckets = vec![0; latency::BUCKETS];
        for words in &self.writers {
            for (bucket, word) in buckets.iter_mut().zip(first..) {
                *bucket += words.load(word);
            }
        }
        buckets
    }
}

/// One writer's handle. Every method is a relaxed load and a relaxed store.
#[derive(Debug)]
pub struct CoreMetrics {
    words: Arc<Words>,
    /// May move to its thread, and must not be shared with another.
    not_sync: PhantomData<Cell<()>>,
}

impl CoreMetrics {
    /// Counts `by` more.
    #[inline]
    pub fn add(&self, counter: Counter, by: u64) {
        self.bump(counter.0, by);
    }

    /// Counts one more.
    #[inline]
    pub fn inc(&self, counter: Counter) {
        self.bump(counter.0, 1);
    }

    /// Sets this core's share of a gauge.
    #[inline]
    pub fn set(&self, gauge: Gauge, level: i64) {
        self.words.word(gauge.0).store(level.cast_unsigned(), Ordering::Relaxed);
    }

    /// Raises, or with a negative `by` lowers, this core's share of a gauge.
    #[inline]
    pub fn shift(&self, gauge: Gauge, by: i64) {
        self.bump(gauge.0, by.cast_unsigned());
    }

    /// Records one latency. Beyond [`latency::MAX`] it counts as that.
    #[inline]
    pub fn record(&self, latency: Latency, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).min(latency::MAX_NS);
        self.bump(latency.word, ns);
        self.bump(latency.word + 1 + latency::bucket_of(ns) as u32, 1);
    }

    /// This writer's share of a counter.
    pub fn read(&self, counter: Counter) -> u64 {
        self.words.word(counter.0).load(Ordering::Relaxed)
    }

    #[inline]
    fn bump(&self, word: u32, by: u64) {
        let word = self.words.word(word);
        word.store(word.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
