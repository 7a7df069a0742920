//! What is counted and timed: each command, errors by their code, commands that were slow, and
//! what took long enough to be remembered.
//!
//! To read the clock twice is too dear for a command that takes a few hundred nanoseconds. So of
//! the commands that are flagged FAST one in sixteen is timed, its first call among them, and the
//! others always are; what is told of all calls is reckoned from those that were timed.

use std::collections::{BTreeMap, VecDeque};

use sextant_resp::Args;

use crate::command::{COMMANDS_MAX, Flags, Known};

/// One call of so many is timed, of a command that is fast.
const SAMPLED: u64 = 16;
/// Kinds of errors that are counted apart.
const ERROR_KINDS_MAX: usize = 128;
/// Words of a slow command that are kept, and bytes of each.
const SLOW_WORDS_MAX: usize = 32;
const SLOW_WORD_BYTES_MAX: usize = 128;
/// Samples of an event of latency.
const LATENCY_SAMPLES: usize = 160;

/// What was counted of a command.
#[derive(Default)]
pub(crate) struct CommandStat {
    pub(crate) calls: u64,
    /// Calls that were timed, and how long they took.
    pub(crate) timed: u64,
    pub(crate) timed_ns: u64,
    /// Calls that were not admitted, and those that failed.
    pub(crate) rejected: u64,
    pub(crate) failed: u64,
    /// Timed calls by the power of two of their microseconds.
    histogram: Option<Box<[u64; 32]>>,
}

impl CommandStat {
    /// Microseconds of all calls.
    pub(crate) fn micros(&self) -> u64 {
        let timed = self.timed_ns as f64 / 1000.0;
        (timed * self.calls as f64 / self.timed.max(1) as f64) as u64
    }

    /// Calls that took up to so many microseconds, for each power of two that has any.
    pub(crate) fn histogram(&self) -> Vec<(u64, u64)> {
        let Some(histogram) = &self.histogram else { return Vec::new() };
        let (mut sum, mut points) = (0, Vec::new());
        for (power, count) in histogram.iter().enumerate().filter(|(_, count)| **count > 0) {
            sum += count;
            let calls = (sum as f64 * self.calls as f64 / self.timed.max(1) as f64).round();
            points.push((1 << power, calls as u64));
        }
        points
    }

    /// Up to how many microseconds this share of the calls took, by powers of two.
    pub(crate) fn percentile(&self, share: f64) -> Option<u64> {
        let points = self.histogram();
        let all = points.last()?.1 as f64;
        points.iter().find(|(_, calls)| *calls as f64 >= all * share).map(|(micros, _)| *micros)
    }
}

/// A command that was slow.
pub(crate) struct Slow {
    pub(crate) id: u64,
    /// Seconds since 1970.
    pub(crate) at: u64,
    pub(crate) micros: u64,
    pub(crate) words: Vec<Vec<u8>>,
    pub(crate) address: String,
    pub(crate) name: Vec<u8>,
}

/// What took long of one kind: seconds since 1970, and milliseconds.
#[derive(Default)]
pub(crate) struct Latency {
    pub(crate) samples: VecDeque<(u64, u64)>,
    pub(crate) longest_ms: u64,
}

/// What was counted and timed.
pub(crate) struct Stats {
    clock: fn() -> u64,
    commands: Vec<CommandStat>,
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) errors_total: u64,
    pub(crate) slow: VecDeque<Slow>,
    next_slow: u64,
    pub(crate) latency: BTreeMap<&'static str, Latency>,
    /// Microseconds from which on a command is slow; none is, if negative.
    pub(crate) slower_than_us: i64,
    pub(crate) slow_max: usize,
    /// Milliseconds from which on a latency is remembered; none is, if zero.
    pub(crate) latency_min_ms: u64,
    pub(crate) memory_peak: u64,
    /// Commands a second lately, and how far they were counted.
    pub(crate) ops: u64,
    ops_counted: (u64, u64),
}

impl Stats {
    pub(crate) fn new(clock: fn() -> u64) -> Stats {
        Stats {
            clock,
            commands: (0..COMMANDS_MAX).map(|_| CommandStat::default()).collect(),
            errors: BTreeMap::new(),
            errors_total: 0,
            slow: VecDeque::new(),
            next_slow: 0,
            latency: BTreeMap::new(),
            slower_than_us: 10_000,
            slow_max: 128,
            latency_min_ms: 0,
            memory_peak: 0,
            ops: 0,
            ops_counted: (0, 0),
        }
    }

    /// What was counted of a command, by its number.
    pub(crate) fn command(&self, number: u16) -> &CommandStat {
        &self.commands[number as usize]
    }

    /// Forgets what was counted of commands and errors.
    pub(crate) fn reset(&mut self) {
        self.commands.iter_mut().for_each(|stat| *stat = CommandStat::default());
        self.errors.clear();
        self.errors_total = 0;
    }

    /// A command begins; returns when, if it is timed.
    #[inline]
    pub(crate) fn begin(&mut self, known: Known) -> Option<u64> {
        let stat = &mut self.commands[known.number as usize];
        stat.calls += 1;
        let often = known.spec.flags.has(Flags::FAST) && self.slower_than_us != 0;
        (!often || stat.calls % SAMPLED == 1).then(|| (self.clock)())
    }

    /// A command waits instead of being done.
    pub(crate) fn unbegin(&mut self, known: Known) {
        self.commands[known.number as usize].calls -= 1;
    }

    pub(crate) fn rejected(&mut self, number: u16) {
        self.commands[number as usize].rejected += 1;
    }

    pub(crate) fn failed(&mut self, number: u16) {
        self.commands[number as usize].failed += 1;
    }

    /// An error was answered.
    pub(crate) fn error(&mut self, line: &str) {
        self.errors_total += 1;
        let code = line.split(' ').next().unwrap_or("ERR");
        if let Some(count) = self.errors.get_mut(code) {
            *count += 1;
        } else if self.errors.len() < ERROR_KINDS_MAX {
            self.errors.insert(code.to_owned(), 1);
        }
    }

    /// A timed command is done; returns its microseconds.
    pub(crate) fn end(&mut self, known: Known, began: u64, at: u64) -> u64 {
        let ns = (self.clock)().saturating_sub(began);
        let micros = ns / 1000;
        let stat = &mut self.commands[known.number as usize];
        stat.timed += 1;
        stat.timed_ns += ns;
        let power = u64::BITS - micros.saturating_sub(1).leading_zeros();
        let power = if micros <= 1 { 0 } else { power.min(31) as usize };
        stat.histogram.get_or_insert_with(|| Box::new([0; 32]))[power] += 1;
        let event = if known.spec.flags.has(Flags::FAST) { "fast-command" } else { "command" };
        self.latency(event, micros / 1000, at);
        micros
    }

    /// Whether a command that took so long is to be kept.
    pub(crate) fn is_slow(&self, known: Known, micros: u64) -> bool {
        let limit = u64::try_from(self.slower_than_us);
        self.slow_max > 0
            && !known.spec.flags.has(Flags::SECRET)
            && limit.is_ok_and(|limit| micros >= limit)
    }

    /// Keeps a slow command.
    pub(crate) fn keep_slow(
        &mut self,
        args: Args<'_>,
        micros: u64,
        at: u64,
        address: String,
        name: Vec<u8>,
    ) {
        let shown = if args.len() > SLOW_WORDS_MAX { SLOW_WORDS_MAX - 1 } else { args.len() };
        let mut words: Vec<Vec<u8>> = args.iter().take(shown).map(shortened).collect();
        if shown < args.len() {
            words.push(format!("... ({} more arguments)", args.len() - shown).into_bytes());
        }
        let id = self.next_slow;
        self.next_slow += 1;
        self.slow.push_front(Slow { id, at: at / 1000, micros, words, address, name });
        self.slow.truncate(self.slow_max);
    }

    /// Something took so long.
    pub(crate) fn latency(&mut self, event: &'static str, ms: u64, at: u64) {
        if self.latency_min_ms == 0 || ms < self.latency_min_ms {
            return;
        }
        let latency = self.latency.entry(event).or_default();
        latency.longest_ms = latency.longest_ms.max(ms);
        match latency.samples.back_mut() {
            Some((second, longest)) if *second == at / 1000 => *longest = (*longest).max(ms),
            _ => latency.samples.push_back((at / 1000, ms)),
        }
        if latency.samples.len() > LATENCY_SAMPLES {
            latency.samples.pop_front();
        }
    }

    /// Looks at how far commands were counted, about once a second.
    pub(crate) fn count_ops(&mut self, now: u64, commands: u64) {
        let (then, before) = self.ops_counted;
        let passed = now.saturating_sub(then);
        if passed >= 1000 {
            self.ops = commands.saturating_sub(before) * 1000 / passed;
            self.ops_counted = (now, commands);
        }
    }
}

fn shortened(word: &[u8]) -> Vec<u8> {
    match word.len().checked_sub(SLOW_WORD_BYTES_MAX) {
        None | Some(0) => word.to_vec(),
        Some(more) => {
            let mut short = word[..SLOW_WORD_BYTES_MAX].to_vec();
            short.extend_from_slice(format!("... ({more} more bytes)").as_bytes());
            short
        }
    }
}

/// A line for those who see all commands.
pub(crate) fn monitor_line(now_ms: u64, db: usize, address: &str, args: Args<'_>) -> String {
    let mut line = format!("{}.{:06} [{db} {address}]", now_ms / 1000, now_ms % 1000 * 1000);
    for word in args.iter() {
        line.push_str(" \"");
        for byte in word {
            match byte {
                b'"' | b'\\' => line.extend(['\\', *byte as char]),
                b'\n' => line.push_str("\\n"),
                b'\r' => line.push_str("\\r"),
                b'\t' => line.push_str("\\t"),
                7 => line.push_str("\\a"),
                8 => line.push_str("\\b"),
                b' '..=b'~' => line.push(*byte as char),
                _ => line.push_str(&format!("\\x{byte:02x}")),
            }
        }
        line.push('"');
    }
    line
}
