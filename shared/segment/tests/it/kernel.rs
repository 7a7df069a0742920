//! The kernel's own driver under the log. A record of all operations, as they are handed to the
//! driver and as it tells their ends, shows that whatever may be acknowledged was synced before:
//! `kill -9` cannot show that, since the page cache survives it. And what a thousand logs on one
//! core cost.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sextant_ring::disk::HostDisk;
use sextant_ring::driver::{
    Completion, Driver, File, FileDone, FileOp, FileOutput, Files, Kind, Op, Outcome, Token,
};
use sextant_ring::mesh::Remote;
use sextant_ring::time::Time;
use sextant_ring::uring::{self, Uring};
use sextant_segment::{AppendError, Appended, Durability, Log, Options};

use crate::rig::small_options;

const THOUSAND: &str = "SEXTANT_SEGMENT_THOUSAND";

/// What happened to a segment's file, in order.
#[derive(Clone, Debug)]
enum Event {
    WriteBegan {
        op: u64,
        segment: u32,
        offset: u64,
        bytes: Vec<u8>,
    },
    /// By an operation of its own, or as the second part of a write.
    SyncBegan {
        op: u64,
        segment: u32,
    },
    /// With success.
    Ended {
        op: u64,
    },
}

/// The kernel's driver, and what it was asked for.
struct Recorder {
    driver: Uring,
    waiting: VecDeque<(Token, Op)>,
    tickets: HashMap<u64, u64>,
    numbers: u64,
    opening: HashMap<u64, u32>,
    segments: HashMap<File, u32>,
    events: Vec<Event>,
    submitted: u64,
    /// Breaks what the log relies on: nothing is synced with its write.
    forgets_syncs: bool,
}

impl Recorder {
    /// `None` where the kernel lets nobody have a ring.
    fn new() -> Option<Recorder> {
        let options = uring::Options { sockets_max: 16, ..uring::Options::default() };
        let driver = match Uring::new(&options, Remote::host().expect("an eventfd")) {
            Ok(driver) => driver,
            Err(error) => {
                crate::lacks("IO_URING", &error);
                return None;
            }
        };
        Some(Recorder {
            driver,
            waiting: VecDeque::new(),
            tickets: HashMap::new(),
            numbers: 0,
            opening: HashMap::new(),
            segments: HashMap::new(),
            events: Vec::new(),
            submitted: 0,
            forgets_syncs: false,
        })
    }

    fn note(&mut self, op: u64, asked: &FileOp) {
        let (file, syncs) = match asked {
            FileOp::Open { path, .. } => {
                let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
                self.opening.insert(op, name[..10].parse().expect("a segment's number"));
                return;
            }
            FileOp::Write { file, .. } => (file, false),
            FileOp::WriteSync { file, .. } | FileOp::Sync { file } => (file, true),
            _ => return,
        };
        let segment = self.segments[file];
        if let FileOp::Write { offset, buf, .. } | FileOp::WriteSync { offset, buf, .. } = asked {
            let (offset, bytes) = (*offset, buf.to_vec());
            self.events.push(Event::WriteBegan { op, segment, offset, bytes });
        }
        if syncs {
            self.events.push(Event::SyncBegan { op, segment });
        }
    }

    /// Hands over what waits, and takes the next outcome, if one comes within a second.
    fn next(&mut self) -> Option<FileDone> {
        for _ in 0..1000 {
            while let Some((token, op)) = self.waiting.pop_front() {
                if let Err(op) = self.driver.submit(token, op) {
                    self.waiting.push_front((token, op));
                    break;
                }
            }
            if let Some(Completion { token, outcome: Outcome::File(result, buf), .. }) =
                self.driver.completed()
            {
                return Some(self.ended(token.number(), result, buf));
            }
            if self.tickets.is_empty() {
                return None;
            }
            self.driver.enter(Some(Duration::from_millis(1))).expect("the ring works");
        }
        None
    }

    fn ended(
        &mut self,
        op: u64,
        result: io::Result<FileOutput>,
        buf: Option<sextant_ring::buf::IoBuf>,
    ) -> FileDone {
        if let Ok(output) = &result {
            self.events.push(Event::Ended { op });
            if let FileOutput::Opened(file) = output {
                self.segments.insert(*file, self.opening[&op]);
            }
        }
        let ticket = self.tickets.remove(&op).expect("it was asked for");
        FileDone { ticket, result, buf }
    }
}

impl Files for Recorder {
    fn submit(&mut self, ticket: u64, op: FileOp) {
        let op = match op {
            FileOp::WriteSync { file, offset, buf } if self.forgets_syncs => {
                FileOp::Write { file, offset, buf }
            }
            op => op,
        };
        self.numbers += 1;
        self.submitted += 1;
        self.note(self.numbers, &op);
        self.tickets.insert(self.numbers, ticket);
        self.waiting.push_back((Token::new(Kind::File, self.numbers), Op::File(op)));
    }
}

/// Whether the events show that a record is durable: a write of it has ended with success, and a
/// sync of its file that is the same operation, or began after that, has too.
fn is_synced(events: &[Event], appended: &Appended) -> bool {
    let number = appended.position.segment.0;
    let ended = |op: u64, after: usize| {
        let is_end = |event: &Event| matches!(event, Event::Ended { op: of } if *of == op);
        events[after..].iter().position(is_end).map(|at| after + at)
    };
    let holds = |offset: u64, bytes: &[u8]| {
        let at = u64::from(appended.position.offset).checked_sub(offset).map(|at| at as usize);
        let end = at.map(|at| at + appended.stored_bytes as usize);
        let record = at.zip(end).and_then(|(at, end)| bytes.get(at..end));
        record.is_some_and(|record| record[8..16] == appended.seq.0.to_le_bytes())
    };
    events.iter().enumerate().any(|(began, event)| match event {
        Event::WriteBegan { op: write, segment, offset, bytes }
            if *segment == number && holds(*offset, bytes) =>
        {
            let Some(written) = ended(*write, began) else { return false };
            events.iter().enumerate().skip(began).any(|(at, event)| match event {
                Event::SyncBegan { op, segment } if *segment == number => {
                    (op == write || at > written) && ended(*op, at).is_some()
                }
                _ => false,
            })
        }
        _ => false,
    })
}

/// Appends, and after each outcome looks whether all that is called durable was synced; tells how
/// many records were, and how many were not.
fn trace(durability: Durability, forgets_syncs: bool) -> Option<(usize, usize)> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut files = Recorder::new()?;
    files.forgets_syncs = forgets_syncs;
    let options = small_options(durability);
    let (mut log, _) = Log::open(&HostDisk, dir.path(), options).expect("it opens");
    let (mut appended, mut seen): (Vec<Appended>, usize) = (Vec::new(), 0);
    let (mut synced, mut unsynced) = (0, 0);
    for step in 0..400u32 {
        let payload = vec![step as u8; (step * 37 % 700) as usize];
        match log.append(1, &[&payload], 0) {
            Ok(record) => appended.push(record),
            Err(AppendError::Backlog | AppendError::Full) => {}
            Err(error) => panic!("{error}"),
        }
        if step % 50 == 49 {
            log.settle();
        }
        log.commit(&mut files, Time::ZERO);
        for _ in 0..step % 4 {
            let Some(done) = files.next() else { break };
            let _ = log.handle(done, &mut files, Time::ZERO);
            while appended.get(seen).is_some_and(|record| record.seq <= log.durable()) {
                match is_synced(&files.events, &appended[seen]) {
                    true => synced += 1,
                    false => unsynced += 1,
                }
                seen += 1;
            }
        }
    }
    Some((synced, unsynced))
}

#[test]
fn what_may_be_acknowledged_was_synced_by_the_kernel_before() {
    for durability in [Durability::Always, Durability::Os] {
        let Some((synced, unsynced)) = trace(durability, false) else { return };
        assert!(synced > 80, "{durability:?}: {synced}");
        assert_eq!(unsynced, 0, "{durability:?}");
    }
}

/// The proof above is one only if it fails where syncs are missing.
#[test]
fn a_missing_sync_does_not_go_unseen() {
    let Some((synced, unsynced)) = trace(Durability::Always, true) else { return };
    assert_eq!(synced, 0);
    assert!(unsynced > 80, "{unsynced}");
}

/// Not a test of its own: a process in which nothing else takes memory.
#[test]
fn thousand_logs() {
    let Some(dir) = std::env::var_os(THOUSAND) else { return };
    let dir = Path::new(&dir);
    let Some(mut files) = Recorder::new() else { return };
    let (memory_before, files_before) = (anonymous_bytes(), descriptors());
    let mut logs: Vec<Log> = (0..1000u16)
        .map(|n| {
            let options = Options {
                segment_bytes_min: 16 << 10,
                record_bytes_max: 4 << 10,
                ..Options::new(u64::from(n) + 1, n)
            };
            Log::open(&HostDisk, &dir.join(n.to_string()), options).expect("it opens").0
        })
        .collect();
    let opened = (anonymous_bytes() - memory_before) / 1000;
    for log in &mut logs {
        log.append(1, &[&[7; 100]], 0).expect("there is room");
        log.settle();
        log.commit(&mut files, Time::ZERO);
    }
    while let Some(done) = files.next() {
        let log = &mut logs[(done.ticket >> 48) as usize];
        let _ = log.handle(done, &mut files, Time::ZERO);
        log.commit(&mut files, Time::ZERO);
    }
    assert!(logs.iter().all(Log::is_settled));
    files.events = Vec::new();
    let written = (anonymous_bytes() - memory_before) / 1000;
    let disk: u64 = logs.iter().map(Log::file_bytes).sum();
    assert_eq!(disk, 1000 * (16 << 10));
    assert_eq!(logs.iter().map(Log::open_files).sum::<usize>(), 1000);
    assert!(opened < 4 << 10 && written < 24 << 10, "{opened}, {written} bytes of memory each");

    let submitted = files.submitted;
    let began = std::time::Instant::now();
    for _ in 0..100 {
        logs.iter_mut().for_each(|log| log.commit(&mut files, Time::ZERO));
    }
    let turn_ns = began.elapsed().as_nanos() / 100_000;
    assert_eq!(files.submitted, submitted, "what is at rest asks for nothing");
    assert!(logs.iter().all(|log| log.deadline().is_none()));
    eprintln!(
        "each: {opened} bytes of memory when open, {written} when written to, {} descriptors, \
         {turn_ns} ns a turn at rest",
        (descriptors() - files_before) as f64 / 1000.0
    );
    logs.iter_mut().for_each(|log| log.close(&mut files));
    while let Some(done) = files.next() {
        let _ = logs[(done.ticket >> 48) as usize].handle(done, &mut files, Time::ZERO);
    }
    assert!(logs.iter().all(Log::is_closed));
    assert_eq!(descriptors(), files_before);
}

#[test]
fn a_thousand_logs_cost_a_small_file_and_a_descriptor_each_and_ask_for_nothing_at_rest() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "kernel::thousand_logs", "--nocapture"])
        .env(THOUSAND, dir.path())
        .output()
        .expect("this test runs again");
    let told = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{told}");
    eprintln!("{told}");
}

/// Memory of this process that no file stands behind.
fn anonymous_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux 4.5");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("Linux").count()
}
