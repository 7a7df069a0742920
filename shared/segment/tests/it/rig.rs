//! A log, the stand-in for its driver, and what the log ought to hold: everything that was
//! appended, in a map by its number. All that a test does to the log goes through here and is
//! checked against the map.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fastrand::Rng;
use sextant_ring::disk::Disk;
use sextant_ring::driver::{FileDone, Files};
use sextant_ring::time::Time;
use sextant_segment::{
    AppendError, Appended, Durability, FetchError, Fetched, Log, Options, Position, Progress, Read,
    ReadError, Record, Recovery, Retention, SegmentId, Seq,
};

/// A stand-in for a driver that works when the test says so.
pub(crate) trait Backend: Files {
    fn disk(&self) -> Box<dyn Disk>;
    /// Operations that were asked for and not carried out.
    fn waiting(&self) -> usize;
    /// Carries one of them out.
    fn run(&mut self, at: usize) -> FileDone;
    /// The process ends: nothing that waits is carried out.
    fn stop(&mut self);
}

/// What was appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) position: Position,
    pub(crate) kind: u8,
    pub(crate) unix_ms: u64,
    pub(crate) payload: Vec<u8>,
    pub(crate) live: bool,
}

pub(crate) struct Rig<B> {
    pub(crate) backend: B,
    pub(crate) dir: PathBuf,
    pub(crate) options: Options,
    pub(crate) log: Log,
    pub(crate) now: Time,
    pub(crate) kept: BTreeMap<u64, Kept>,
    /// What was in segments that were gone at an opening. Until the directory is synced, they may
    /// come back.
    ghosts: BTreeMap<u64, Kept>,
    /// What the log has said, which no crash may take back.
    pub(crate) durable: u64,
    pub(crate) ackable: u64,
    /// Segments that were asked to go: they may be there or not.
    pub(crate) going: BTreeSet<SegmentId>,
    /// The highest checkpoint that was asked for, and what the opening said of it.
    pub(crate) checkpoint: u64,
    pub(crate) from: u64,
    /// Records that are being fetched.
    fetching: BTreeMap<u64, Kept>,
    /// Records that were fetched, and those that could not be read.
    pub(crate) fetched: u64,
    pub(crate) unreadable: u64,
    pub(crate) progress: Progress,
}

/// Small limits, so that every case comes up often.
pub(crate) fn small_options(durability: Durability) -> Options {
    Options {
        segment_bytes_min: 4096,
        segment_bytes_max: 16384,
        bytes_max: 128 << 10,
        record_bytes_max: 1500,
        commit_bytes_max: 4096,
        backlog_bytes_max: 12288,
        hot_bytes: 3000,
        durability,
        ..Options::new(0x5EED_5EED_5EED_5EED, 7)
    }
}

pub(crate) fn any_durability(rng: &mut Rng) -> Durability {
    match rng.u8(..4) {
        0 | 1 => Durability::Always,
        2 => Durability::Every(Duration::from_millis(5)),
        _ => Durability::Os,
    }
}

pub(crate) fn any_retention(rng: &mut Rng, bytes_max: u64) -> Retention {
    let bytes_max = (bytes_max >= 32768 && rng.u8(..3) == 0).then_some(bytes_max / 2);
    let age_max = (rng.u8(..3) == 0).then(|| Duration::from_millis(rng.u64(..1 << 48)));
    Retention { bytes_max, age_max }
}

impl<B: Backend> Rig<B> {
    pub(crate) fn open(backend: B, dir: &Path, options: Options) -> Rig<B> {
        let (rig, recovery) = Rig::start(backend, dir, options, BTreeMap::new());
        assert_eq!(recovery.records, 0);
        rig
    }

    fn start(
        backend: B,
        dir: &Path,
        options: Options,
        kept: BTreeMap<u64, Kept>,
    ) -> (Rig<B>, Recovery) {
        let opened = Log::open(&*backend.disk(), dir, options.clone());
        let (log, recovery) = opened.expect("it opens");
        let rig = Rig {
            backend,
            dir: dir.to_owned(),
            options,
            log,
            now: Time::ZERO,
            kept,
            ghosts: BTreeMap::new(),
            durable: 0,
            ackable: 0,
            going: BTreeSet::new(),
            checkpoint: 0,
            from: 1,
            fetching: BTreeMap::new(),
            fetched: 0,
            unreadable: 0,
            progress: Progress::default(),
        };
        (rig, recovery)
    }

    /// A log that is there already, with what it holds.
    pub(crate) fn over(
        backend: B,
        dir: &Path,
        options: Options,
        kept: BTreeMap<u64, Kept>,
    ) -> Rig<B> {
        let (mut rig, recovery) = Rig::start(backend, dir, options, kept);
        rig.take_over(recovery);
        rig
    }

    pub(crate) fn append(
        &mut self,
        kind: u8,
        payload: &[u8],
        unix_ms: u64,
    ) -> Result<Appended, AppendError> {
        let (a, b) = payload.split_at(payload.len() / 3);
        let before = self.log.last();
        let result = self.log.append(kind, &[a, b], unix_ms);
        self.note(result, before, kind, payload, unix_ms)
    }

    fn note(
        &mut self,
        result: Result<Appended, AppendError>,
        before: Seq,
        kind: u8,
        payload: &[u8],
        unix_ms: u64,
    ) -> Result<Appended, AppendError> {
        match &result {
            Ok(appended) => {
                assert_eq!(appended.seq.0, before.0 + 1, "numbers follow without a gap");
                assert_eq!(self.log.last(), appended.seq);
                let position = appended.position;
                let payload = payload.to_vec();
                let kept = Kept { position, kind, unix_ms, payload, live: true };
                self.kept.insert(appended.seq.0, kept);
            }
            Err(_) => assert_eq!(self.log.last(), before, "nothing was accepted"),
        }
        result
    }

    pub(crate) fn commit(&mut self) {
        self.log.commit(&mut self.backend, self.now);
        self.listen();
    }

    /// Carries out one operation, if there is one.
    pub(crate) fn run(&mut self, choice: usize) -> bool {
        if self.backend.waiting() == 0 {
            return false;
        }
        let at = choice % self.backend.waiting();
        let done = self.backend.run(at);
        self.deliver(done);
        true
    }

    /// Carries out the first operation, without a look at what came of it.
    pub(crate) fn run_unchecked(&mut self) {
        let done = self.backend.run(0);
        let progress = self.log.handle(done, &mut self.backend, self.now);
        if let Some(segment) = progress.removed {
            self.kept.retain(|_, kept| kept.position.segment != segment);
        }
    }

    pub(crate) fn deliver(&mut self, done: FileDone) {
        assert!(self.log.owns(done.ticket));
        let before = self.log.ackable().0;
        let progress = self.log.handle(done, &mut self.backend, self.now);
        self.listen();
        let moved = (self.ackable != before).then_some(Seq(self.ackable));
        assert_eq!(progress.ackable, moved, "what may be acknowledged is told");
        self.progress.room |= progress.room;
        self.progress.poisoned |= progress.poisoned;
        if let Some(segment) = progress.removed {
            assert!(self.going.contains(&segment), "only what was to go is gone");
            self.kept.retain(|_, kept| kept.position.segment != segment);
            self.progress.removed = Some(segment);
        }
        self.take_fetched();
    }

    /// Reads a record as a daemon does, and has the outcome checked, now or when it comes.
    pub(crate) fn fetch(&mut self, seq: u64, bytes_guessed: Option<u32>) {
        let kept = self.kept[&seq].clone();
        let read = match self.log.read(kept.position) {
            Err(ReadError::Removed(_)) if self.going.contains(&kept.position.segment) => return,
            read => read.expect("nothing is damaged"),
        };
        if let Read::Hot(record) = read {
            return self.check(&record);
        }
        let exact = sextant_segment::stored_bytes(kept.payload.len());
        let bytes = bytes_guessed.unwrap_or(exact);
        match self.log.fetch(kept.position, bytes, seq, &mut self.backend) {
            Ok(()) => {
                self.fetching.insert(seq, kept);
            }
            Err(error) => assert_eq!(error, FetchError::Busy),
        }
    }

    fn take_fetched(&mut self) {
        while let Some(Fetched { token, position, result }) = self.log.next_fetched() {
            let kept = &self.fetching[&token];
            assert_eq!(position, kept.position);
            match result {
                Ok(record) => {
                    assert_eq!(record.seq.0, token);
                    assert_eq!((record.kind, record.unix_ms), (kept.kind, kept.unix_ms));
                    assert_eq!(record.payload, kept.payload, "of record {token}");
                    self.fetched += 1;
                }
                Err(ReadError::Removed(_)) => assert!(self.going.contains(&position.segment)),
                Err(ReadError::Io { .. }) => self.unreadable += 1,
                Err(error) => panic!("record {token}: {error}"),
            }
        }
    }

    fn listen(&mut self) {
        let (durable, ackable) = (self.log.durable().0, self.log.ackable().0);
        assert!(durable >= self.durable && ackable >= self.ackable, "a promise is kept");
        assert!(durable <= self.log.last().0 && ackable <= self.log.last().0);
        if self.options.durability == Durability::Always {
            assert_eq!(durable, ackable);
        }
        (self.durable, self.ackable) = (durable, ackable);
    }

    /// Turns until nothing is left to do without more time.
    pub(crate) fn drain(&mut self) {
        for _ in 0..100_000 {
            self.commit();
            if !self.run(0) {
                return;
            }
        }
        panic!("the log does not come to rest: {:?}", self.log);
    }

    pub(crate) fn settle(&mut self) {
        self.log.settle();
        self.drain();
        assert!(self.log.is_settled());
        if self.log.read_only().is_none() {
            assert_eq!(self.log.durable(), self.log.last());
        }
    }

    pub(crate) fn checkpoint(&mut self, seq: u64) {
        if self.log.checkpoint(Seq(seq)).is_ok() {
            self.checkpoint = self.checkpoint.max(seq.min(self.log.last().0 + 1));
        }
    }

    /// Has the log's retention looked after.
    pub(crate) fn retain(&mut self, unix_ms: u64) -> Option<Range<Seq>> {
        let before: Vec<SegmentId> = self.log.segments().map(|info| info.id).collect();
        let first = self.log.first();
        let told = self.log.retain(unix_ms);
        let left: Vec<SegmentId> = self.log.segments().map(|info| info.id).collect();
        assert!(before.ends_with(&left), "the oldest go");
        self.going.extend(&before[..before.len() - left.len()]);
        match &told {
            Some(told) => assert_eq!(*told, first..self.log.first()),
            None => assert_eq!((before, first), (left, self.log.first())),
        }
        told
    }

    pub(crate) fn retire(&mut self, seq: u64) {
        if let Some(kept) = self.kept.get_mut(&seq)
            && kept.live
        {
            kept.live = false;
            let bytes = sextant_segment::stored_bytes(kept.payload.len());
            self.log.retire(kept.position, bytes);
        }
    }

    /// Appends what lives in the oldest segment again, and asks for its removal. Tells whether
    /// that worked out without waiting for the disk.
    pub(crate) fn compact(&mut self) -> bool {
        self.compact_with(|_| false)
    }

    /// As [`Rig::compact`], waiting for the disk where need be.
    pub(crate) fn compact_patiently(&mut self) -> bool {
        self.compact_with(|rig| {
            rig.drain();
            true
        })
    }

    fn compact_with(&mut self, wait: impl Fn(&mut Self) -> bool) -> bool {
        let Some(oldest) = self.log.oldest().filter(|oldest| oldest.sealed) else { return false };
        let mut cursor = self.log.scan(oldest.id).expect("the oldest is there");
        let mut moved = Vec::new();
        while let Some(record) = cursor.next(&self.log) {
            let record = record.expect("nothing is damaged");
            self.check(&record);
            if self.kept[&record.seq.0].live {
                let result = match self.relocate(&record) {
                    Err(AppendError::Backlog) if wait(self) => self.relocate(&record),
                    result => result,
                };
                if result.is_err() {
                    return false;
                }
                moved.push(record.seq.0);
            }
        }
        // With nothing moved there is nothing to wait for.
        let last = if moved.is_empty() { Seq(0) } else { self.log.last() };
        self.log.remove_when_durable(oldest.id, last).expect("it is the oldest");
        self.going.insert(oldest.id);
        for seq in moved {
            self.kept.get_mut(&seq).expect("just read").live = false;
        }
        true
    }

    fn relocate(&mut self, record: &Record) -> Result<Appended, AppendError> {
        let before = self.log.last();
        let result = self.log.relocate(record.kind, &[&record.payload], record.unix_ms);
        self.note(result, before, record.kind, &record.payload, record.unix_ms)
    }

    fn check(&self, record: &Record) {
        let kept = self.kept.get(&record.seq.0).expect("a record that was never appended");
        assert_eq!(record.position, kept.position, "of record {}", record.seq);
        assert_eq!((record.kind, record.unix_ms), (kept.kind, kept.unix_ms), "{}", record.seq);
        assert_eq!(record.payload, kept.payload, "of record {}", record.seq);
    }

    /// Reads everything by position and in order, and compares.
    pub(crate) fn verify(&self) {
        for (seq, kept) in &self.kept {
            match self.log.load(kept.position) {
                Ok(record) => {
                    assert_eq!(record.seq.0, *seq);
                    self.check(&record);
                    match self.log.read(kept.position).expect("it was just loaded") {
                        Read::Hot(hot) => assert_eq!(hot, record),
                        Read::Cold => {}
                    }
                }
                Err(ReadError::Removed(_)) if self.going.contains(&kept.position.segment) => {}
                Err(error) => panic!("record {seq}: {error}"),
            }
        }
        let mut cursor = self.log.records();
        let mut last = None;
        while let Some(record) = cursor.next(&self.log) {
            let record = record.expect("nothing is damaged");
            match last {
                Some(last) => assert_eq!(record.seq.0, last + 1, "records are in order"),
                None if self.from >= self.log.first().0 => assert_eq!(record.seq.0, self.from),
                None => {}
            }
            last = Some(record.seq.0);
            self.check(&record);
        }
        let written = last.unwrap_or(self.from - 1).max(self.from - 1);
        assert!(written >= self.durable, "{written} read, {} durable", self.durable);
        self.verify_accounts();
    }

    fn verify_accounts(&self) {
        let mut stored: BTreeMap<SegmentId, (u64, u64, u64, u64)> = BTreeMap::new();
        for kept in self.kept.values() {
            let bytes = u64::from(sextant_segment::stored_bytes(kept.payload.len()));
            let entry = stored.entry(kept.position.segment).or_default();
            entry.0 += bytes;
            entry.1 += 1;
            entry.2 += if kept.live { bytes } else { 0 };
            entry.3 = entry.3.max(kept.unix_ms);
        }
        for info in self.log.segments() {
            let (bytes, records, live, newest) = stored.get(&info.id).copied().unwrap_or_default();
            assert_eq!((info.stored_bytes, info.records), (bytes, records), "{info:?}");
            assert_eq!((info.live_bytes, info.newest_unix_ms), (live, newest), "{info:?}");
        }
        assert!(self.log.file_bytes() <= self.options.bytes_max);
    }

    /// Opens the log anew, whatever the old one was about. What it finds has to be everything that
    /// was durable, and nothing that was not appended.
    pub(crate) fn reopen(&mut self) -> Recovery {
        self.backend.stop();
        let opened = Log::open(&*self.backend.disk(), &self.dir, self.options.clone());
        let (log, recovery) = opened.expect("the log opens");
        self.log = log;
        self.take_over(recovery)
    }

    /// Brings the map to what was found, after checking that it may be so.
    pub(crate) fn take_over(&mut self, recovery: Recovery) -> Recovery {
        assert_eq!(recovery.read_only, None, "a crash damages nothing");
        assert!(
            recovery.last.0 >= self.durable,
            "{} was durable, {} was found",
            self.durable,
            recovery.last
        );
        let first = self.log.first().0;
        self.from = recovery.from.0;
        assert!(self.from >= first && self.from <= first.max(self.checkpoint), "{recovery:?}");
        for (seq, kept) in self.kept.range(..first) {
            let allowed = self.going.contains(&kept.position.segment);
            assert!(allowed, "record {seq} is gone, its segment was not to go");
        }
        let found = self.kept.split_off(&first);
        self.ghosts.append(&mut std::mem::replace(&mut self.kept, found));
        self.kept.append(&mut self.ghosts.split_off(&first));
        self.kept.retain(|seq, _| *seq <= recovery.last.0);
        for kept in self.kept.values_mut() {
            kept.live = true;
        }
        assert_eq!(recovery.records, self.kept.len() as u64);
        self.going.clear();
        self.fetching.clear();
        self.progress = Progress::default();
        self.durable = self.log.durable().0;
        self.ackable = self.log.ackable().0;
        assert_eq!((self.durable, self.ackable), (recovery.last.0, recovery.last.0));
        self.verify();
        recovery
    }
}

/// Bytes that depend on everything they should.
pub(crate) fn payload_of(rng: &mut Rng, bytes_max: usize) -> Vec<u8> {
    let len = match rng.u8(..8) {
        0 => 0,
        1 => rng.usize(..=bytes_max),
        _ => rng.usize(..=bytes_max.min(120)),
    };
    std::iter::repeat_with(|| rng.u8(..)).take(len).collect()
}
