//! A process that is killed at random moments. It tells what it has acknowledged; the next one
//! has to find all of that.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use fastrand::Rng;
use sextant_ring::time::Time;
use sextant_segment::{AppendError, Durability, Log, Options};

use crate::host::HostFiles;
use crate::rig::Backend;

const CHILD: &str = "SEXTANT_SEGMENT_CHILD";

fn options() -> Options {
    Options {
        segment_bytes_min: 64 << 10,
        segment_bytes_max: 256 << 10,
        bytes_max: 2 << 20,
        record_bytes_max: 8 << 10,
        commit_bytes_max: 64 << 10,
        backlog_bytes_max: 128 << 10,
        durability: Durability::Always,
        ..Options::new(0xC0FF_EE00_C0FF_EE00, 1)
    }
}

fn payload(seq: u64) -> Vec<u8> {
    let mut rng = Rng::with_seed(seq);
    std::iter::repeat_with(|| rng.u8(..)).take((seq * 37 % 2000) as usize).collect()
}

/// Opens the log, checks all that is in it, and tells the last record.
fn open(dir: &Path) -> (Log, u64) {
    let disk = HostFiles::default().disk();
    let (log, recovery) = Log::open(&*disk, dir, options()).expect("it opens");
    assert_eq!(recovery.read_only, None);
    let mut cursor = log.records();
    let mut last = None;
    while let Some(record) = cursor.next(&log) {
        let record = record.expect("nothing is damaged");
        assert!(last.is_none_or(|last| record.seq.0 == last + 1), "records are in order");
        assert_eq!(record.payload, payload(record.seq.0), "of record {}", record.seq);
        last = Some(record.seq.0);
    }
    assert_eq!(last.unwrap_or(0), recovery.last.0);
    (log, recovery.last.0)
}

/// Not a test of its own: what the killed process does. It appends as fast as it can, tells each
/// acknowledgement on its standard output, and removes segments as the quota demands.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let (mut log, _) = open(Path::new(&dir));
    let mut files = HostFiles::default();
    let mut out = std::io::stdout();
    let mut rng = Rng::new();
    loop {
        for _ in 0..rng.u32(1..40) {
            match log.append(1, &[&payload(log.last().0 + 1)], 0) {
                Ok(_) | Err(AppendError::Backlog) => {}
                Err(AppendError::Full) => {
                    let oldest = log.oldest().expect("there is one");
                    let _ = log.remove_when_durable(oldest.id, log.last());
                }
                Err(error) => panic!("{error}"),
            }
        }
        log.commit(&mut files, Time::ZERO);
        for _ in 0..rng.u32(..4) {
            if files.waiting() == 0 {
                break;
            }
            let done = files.run(rng.usize(..files.waiting()));
            if let Some(acknowledged) = log.handle(done, &mut files, Time::ZERO).ackable {
                writeln!(out, "acknowledged {acknowledged}.").expect("the parent listens");
            }
        }
    }
}

#[test]
fn what_was_acknowledged_before_a_kill_is_there_after_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("log");
    let mut rng = Rng::new();
    let mut acknowledged = 0;
    for _ in 0..12 {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "kill::child", "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .expect("this test runs again");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let reader = std::thread::spawn(move || {
            let mut last = 0;
            while let Some(Ok(line)) = lines.next() {
                // A line that was cut short lacks its full stop.
                let number = line.strip_prefix("acknowledged ").and_then(|l| l.strip_suffix('.'));
                if let Some(Ok(number)) = number.map(str::parse::<u64>) {
                    last = number;
                }
            }
            last
        });
        std::thread::sleep(Duration::from_millis(rng.u64(20..250)));
        child.kill().expect("it runs until it is killed");
        child.wait().expect("it was killed");
        acknowledged = acknowledged.max(reader.join().expect("it only reads"));
        let (_, found) = open(&path);
        assert!(found >= acknowledged, "{acknowledged} acknowledged, {found} found");
    }
    assert!(acknowledged > 0, "nothing was ever acknowledged");
}
