//! A log's directory, as its own library, crashes, and then anybody at all may leave it. The input
//! is a script in two acts, each of steps of a few bytes:
//!
//! ```text
//!   use    append, commit, checkpoint, retain, settle, close, lose power (while opening, too)
//!   harm   flip, fill, cut, copy, swap, remove; forge headers and items with right checksums
//! ```
//!
//! As long as there was no harm, an opening finds the log sound, with all that was durable, each
//! record as it was appended. After any harm
//!
//! - nothing panics, and reading ends;
//! - a log that is read-only, or of a later version, is left as it was found;
//! - a sound one has all records from the one that is needed first to the last, none left out;
//!   opening it again finds the same and changes not a byte; and it takes appends, which the next
//!   opening finds behind all others;
//! - unless checksums were forged, no record is other than it was appended.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sextant_ring::disk::{Disk, View};
use sextant_ring::sim::{SimFiles, World};
use sextant_ring::time::Time;
use sextant_segment::{
    AppendError, Cursor, Durability, Log, OpenError, Options, Position, Record, Recovery,
    SegmentId, Seq,
};

const ID: u64 = 0x5EED;
const DIR: &str = "/log";
const HEADER_BYTES: usize = 512;
/// No file is made longer than this.
const FILE_BYTES_MAX: usize = 16 << 10;
/// Segments are numbered up to this by whoever forges them.
const NUMBER_MAX: u8 = 12;
const STEPS_MAX: usize = 300;
/// No forged log can count on from here to the end of all numbers.
const SEQ_MAX: u64 = 1 << 62;

/// The rest of the input.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    /// Zero when there is nothing left, which ends an act.
    fn byte(&mut self) -> u8 {
        let (byte, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *byte
    }

    fn short(&mut self) -> usize {
        usize::from(u16::from_le_bytes([self.byte(), self.byte()]))
    }

    /// Mostly small numbers, and the ends of the range.
    fn number(&mut self) -> u64 {
        match self.byte() {
            255 => u64::MAX,
            254 => u64::MAX - 1,
            253 => 1 << 48,
            252 => (1 << 32) + 1,
            small => u64::from(small),
        }
    }
}

/// What was appended: kind and payload.
type Kept = BTreeMap<u64, (u8, Vec<u8>)>;

/// A log in use, and what it has to hold.
struct Used {
    world: World,
    files: SimFiles,
    options: Options,
    log: Log,
    now: Time,
    kept: Kept,
}

fn options(durability: u8) -> Options {
    Options {
        segment_bytes_min: 4096,
        segment_bytes_max: 8192,
        bytes_max: 64 << 10,
        record_bytes_max: 1024,
        commit_bytes_max: 4096,
        backlog_bytes_max: 8192,
        hot_bytes: 2000,
        durability: match durability % 3 {
            0 => Durability::Always,
            1 => Durability::Every(Duration::from_millis(5)),
            _ => Durability::Os,
        },
        ..Options::new(ID, 1)
    }
}

fn open(world: &World, options: &Options) -> Result<(Log, Recovery), OpenError> {
    Log::open(&world.disk(), Path::new(DIR), options.clone())
}

impl Used {
    fn new(world: World, options: Options, kept: Kept) -> (Used, Recovery) {
        let (log, recovery) = open(&world, &options).expect("there is nothing in the way");
        let (files, now) = (world.files(), world.now());
        (Used { world, files, options, log, now, kept }, recovery)
    }

    /// Tells whether the record was accepted.
    fn append(&mut self, kind: u8, fill: u8, len: usize) -> bool {
        let payload = vec![fill; len];
        for _ in 0..3 {
            match self.log.append(kind, &[&payload], u64::from(fill) * 1000) {
                Ok(appended) => {
                    let read = self.log.load(appended.position).expect("just appended");
                    assert_eq!(read.payload, payload);
                    self.kept.insert(appended.seq.0, (kind, payload));
                    return true;
                }
                Err(AppendError::Backlog) => self.drain(),
                Err(AppendError::Full) => return false,
                Err(error) => panic!("a sound log takes a short record: {error}"),
            }
        }
        false
    }

    fn run_one(&mut self) -> bool {
        let Some(done) = self.files.wait() else { return false };
        let _ = self.log.handle(done, &mut self.files, self.now);
        true
    }

    /// Turns until nothing is left to do but by itself.
    fn drain(&mut self) {
        self.now = self.now + Duration::from_secs(1);
        for _ in 0..10_000 {
            self.log.commit(&mut self.files, self.now);
            if !self.run_one() {
                return;
            }
        }
        panic!("the log does not come to rest: {:?}", self.log);
    }

    fn settle(&mut self) {
        self.log.settle();
        self.drain();
        assert!(self.log.is_settled(), "{:?}", self.log);
    }

    /// Loses power, openings after that too, and finds all that was durable.
    fn crash(mut self, mut again: u8) -> Used {
        let durable = self.log.durable().0;
        self.world.crash_disk();
        while again & 1 != 0 {
            self.world.fail_disk(None, u64::from(again >> 5), 5);
            let _ = open(&self.world, &self.options);
            self.world.crash_disk();
            again = (again >> 1) & !16;
        }
        self.files = self.world.files();
        let (mut used, recovery) = Used::new(self.world, self.options, self.kept);
        assert_eq!(recovery.read_only, None, "no crash damages what is durable");
        assert!(recovery.last.0 >= durable, "{durable} were durable: {recovery:?}");
        used.kept.split_off(&(recovery.last.0 + 1));
        let found = read_all(&used.log, &recovery);
        assert_eq!(found.len() as u64, recovery.last.0 + 1 - recovery.from.0);
        assert_kept(&found, &used.kept);
        for info in used.log.segments().collect::<Vec<_>>() {
            let mut cursor = used.log.scan(info.id).expect("it is there");
            let found = read(&used.log, &mut cursor).expect("no crash damages a sealed segment");
            assert_eq!(found.len() as u64, info.records);
            assert_kept(&found, &used.kept);
        }
        used
    }

    fn step(mut self, script: &mut Script<'_>, step: u8) -> Used {
        match step % 10 {
            1 | 2 => {
                self.append(step, script.byte(), script.short() % 1025);
            }
            3 => self.drain(),
            4 => {
                self.log.commit(&mut self.files, self.now);
                self.run_one();
            }
            5 => {
                let seq = self.log.last().0 + 1 - script.number().min(self.log.last().0 + 1);
                self.log.checkpoint(Seq(seq)).expect("a sound log takes it");
            }
            6 => self.settle(),
            7 => return self.crash(script.byte()),
            8 => {
                if let Some(oldest) = self.log.oldest().filter(|oldest| oldest.sealed) {
                    self.log.remove_when_durable(oldest.id, Seq(0)).expect("it is the oldest");
                }
            }
            _ => {
                for kind in 0..10 {
                    self.append(kind, step, 300);
                }
            }
        }
        self
    }
}

/// What a cursor gives until it ends. Less, if damage ends it.
fn read(log: &Log, cursor: &mut Cursor) -> Result<Vec<Record>, Vec<Record>> {
    let mut records = Vec::new();
    while let Some(record) = cursor.next(log) {
        match record {
            Ok(record) => records.push(record),
            Err(_) => return Err(records),
        }
        // A record takes 24 bytes or more of files that are no more than a directory may hold.
        assert!(records.len() < 100_000, "reading ends");
    }
    Ok(records)
}

/// All that a sound log has from the first record on that is needed.
fn read_all(log: &Log, recovery: &Recovery) -> Vec<Record> {
    let records = read(log, &mut log.records());
    let records = records.unwrap_or_else(|read| {
        panic!("what is sound is readable, and not behind {} records: {recovery:?}", read.len())
    });
    let mut next = recovery.from.0;
    for record in &records {
        assert_eq!(record.seq.0, next, "no record is left out: {recovery:?}");
        next += 1;
    }
    assert_eq!(next, recovery.last.0 + 1, "the last one is there: {recovery:?}");
    records
}

fn assert_kept(records: &[Record], kept: &Kept) {
    for record in records {
        let (kind, payload) = kept.get(&record.seq.0).expect("a record that was appended");
        assert_eq!((record.kind, &record.payload[..]), (*kind, &payload[..]), "{}", record.seq);
    }
}

/// A directory that is being harmed.
struct Harmed {
    world: World,
    /// Something was done at all.
    harmed: bool,
    /// Something was given a right checksum.
    forged: bool,
}

impl Harmed {
    fn content(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let disk = self.world.disk();
        let entries = disk.list(Path::new(DIR)).expect("the directory is there");
        let read = |path: &Path| {
            let view: View = disk.view(path).expect("it was listed");
            view.bytes(0, view.len() as usize).to_vec()
        };
        let paths = entries.into_iter().map(|entry| Path::new(DIR).join(entry.name));
        paths.map(|path| (path.clone(), read(&path))).collect()
    }

    fn put(&mut self, path: &Path, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(FILE_BYTES_MAX)];
        self.world.disk().replace(path, bytes).expect("there is room");
        self.harmed = true;
    }

    fn step(&mut self, script: &mut Script<'_>, step: u8) {
        let mut files: Vec<(PathBuf, Vec<u8>)> = self.content().into_iter().collect();
        let count = files.len();
        if step % 14 == 13 || count == 0 {
            return self.forge_segment(script, &files);
        }
        let at = usize::from(script.byte()) % count;
        let (path, mut bytes) = files.swap_remove(at);
        let len = bytes.len();
        let place = |script: &mut Script<'_>| script.short() % len.max(1);
        match step % 14 {
            1 => {
                let at = place(script);
                bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= step | 1);
            }
            2 => {
                let (at, many, fill) = (place(script), usize::from(script.byte()), script.byte());
                bytes.iter_mut().skip(at).take(many * 8).for_each(|byte| *byte = fill);
            }
            3 => bytes.resize(script.short() % FILE_BYTES_MAX / 8 * 8, 0),
            4 => bytes.truncate(place(script)),
            5 | 6 if count > 1 => {
                let (other, source) = &files[usize::from(script.byte()) % files.len()];
                if step % 14 == 6 {
                    self.put(other, &bytes);
                    bytes.clone_from(source);
                } else {
                    let (from, to) = (place(script) / 8 * 8, place(script) / 8 * 8);
                    let piece = source.get(from..).unwrap_or_default();
                    let piece = &piece[..piece.len().min(place(script)).min(len - to.min(len))];
                    bytes[to..to + piece.len()].copy_from_slice(piece);
                }
            }
            7 => {
                self.harmed = true;
                return self.world.disk().remove(&path).expect("it is there");
            }
            8 => {
                let number = script.byte() % NUMBER_MAX;
                let suffix = if step & 0x80 == 0 { "" } else { ".new" };
                let path = Path::new(DIR).join(format!("{number:010}.seg{suffix}"));
                return self.put(&path, &bytes);
            }
            9 => {
                let sector = place(script) / 512 * 512;
                bytes.iter_mut().skip(sector).take(512).for_each(|byte| *byte = 0);
            }
            _ => return self.forge_items(script, step, (&path, bytes), &files),
        }
        self.put(&path, &bytes);
    }

    /// A segment with a right header, and often with what one begins with.
    fn forge_segment(&mut self, script: &mut Script<'_>, files: &[(PathBuf, Vec<u8>)]) {
        let shape = script.byte();
        let behind = files.last().and_then(|(path, _)| number_of(path)).unwrap_or(0) + 1;
        let number = match shape & 3 {
            0 => u32::from(script.byte() % NUMBER_MAX),
            _ => behind,
        };
        let size = match shape & 4 {
            0 => 4096,
            _ => script.short() % FILE_BYTES_MAX / 8 * 8,
        };
        let version: u16 = [2, 1, 2, 3][usize::from(shape >> 3 & 3)];
        let mut bytes = vec![0; size.max(HEADER_BYTES)];
        bytes[..8].copy_from_slice(b"SXTNTSEG");
        bytes[8..10].copy_from_slice(&version.to_le_bytes());
        bytes[12..16].copy_from_slice(&number.to_le_bytes());
        bytes[16..24].copy_from_slice(&ID.to_le_bytes());
        bytes[24..32].copy_from_slice(&(size as u64).to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..508]);
        bytes[508..512].copy_from_slice(&crc.to_le_bytes());
        let path = Path::new(DIR).join(format!("{number:010}.seg"));
        if shape & 0x20 == 0 {
            let next = next_of(number, files);
            put_item(&mut bytes, number, Item { seq: next, flag: 1, number: next - 1, ..ITEM });
            if version > 1 && number > 1 {
                let checkpoint = Item { seq: next, flag: 3, number: script.number(), ..ITEM };
                put_item(&mut bytes, number, Item { more: script.number(), ..checkpoint });
            }
        }
        self.forged = true;
        self.put(&path, &bytes);
    }

    /// Items with right checksums behind those that a file has.
    fn forge_items(
        &mut self,
        script: &mut Script<'_>,
        step: u8,
        (path, mut bytes): (&Path, Vec<u8>),
        others: &[(PathBuf, Vec<u8>)],
    ) {
        let Some(number) = number_of(path) else { return };
        let next = match end_of(&bytes) {
            (HEADER_BYTES, _) => next_of(number, others),
            (_, next) => next,
        };
        let seq = if step & 0x80 == 0 { next } else { script.number() };
        let mark = Item { seq, flag: 1, number: seq.wrapping_sub(1), ..ITEM };
        match step % 14 {
            10 => {
                put_item(&mut bytes, number, mark);
                let payload_bytes = usize::from(script.byte());
                put_item(&mut bytes, number, Item { seq, payload_bytes, ..ITEM });
            }
            11 => {
                put_item(&mut bytes, number, mark);
                put_item(&mut bytes, number, Item { seq, flag: 2, ..ITEM });
            }
            _ => {
                let flag = script.byte() % 5;
                let (number_said, more) = (script.number(), script.number());
                let payload_bytes = usize::from(script.byte());
                let item = Item { seq, flag, number: number_said, more, payload_bytes };
                put_item(&mut bytes, number, item);
            }
        }
        self.forged = true;
        self.put(path, &bytes);
    }
}

/// An item to be forged. A mark says `number`, a checkpoint `more` too.
#[derive(Clone, Copy)]
struct Item {
    seq: u64,
    flag: u8,
    number: u64,
    more: u64,
    payload_bytes: usize,
}

const ITEM: Item = Item { seq: 1, flag: 0, number: 0, more: 0, payload_bytes: 0 };

/// Writes an item behind the others, by what FORMAT.md says, if there is room at all.
fn put_item(bytes: &mut [u8], number: u32, item: Item) {
    let (tail, _) = end_of(bytes);
    let payload = match item.flag {
        1 => item.number.to_le_bytes().to_vec(),
        2 => Vec::new(),
        3 => [item.number, item.more].map(u64::to_le_bytes).concat(),
        _ => vec![7; item.payload_bytes],
    };
    let length = 24 + payload.len();
    let Some(room) = bytes.get_mut(tail..tail + length.next_multiple_of(8)) else { return };
    room.fill(0);
    room[..4].copy_from_slice(&(length as u32).to_le_bytes());
    room[8..16].copy_from_slice(&item.seq.to_le_bytes());
    room[23] = item.flag;
    room[24..length].copy_from_slice(&payload);
    let mut signed = ID.to_le_bytes().to_vec();
    for part in [number, tail as u32, length as u32] {
        signed.extend_from_slice(&part.to_le_bytes());
    }
    signed.extend_from_slice(&room[8..]);
    room[4..8].copy_from_slice(&crc32c::crc32c(&signed).to_le_bytes());
}

fn number_of(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.strip_suffix(".seg")?.parse().ok()
}

/// Where the items of a segment end, as their lengths and nothing else tell, and the number of the
/// next record.
fn end_of(bytes: &[u8]) -> (usize, u64) {
    let (mut at, mut next) = (HEADER_BYTES, 1);
    while let Some(head) = bytes.get(at..).and_then(|rest| rest.first_chunk::<24>()) {
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if length < 24 || length > bytes.len() - at {
            break;
        }
        let seq = u64::from_le_bytes(head[8..16].try_into().expect("eight bytes"));
        next = if head[23] == 0 { seq.wrapping_add(1) } else { seq };
        at += length.next_multiple_of(8);
    }
    (at, next.max(1))
}

/// The number of the first record of a segment, if the one before it says so.
fn next_of(number: u32, files: &[(PathBuf, Vec<u8>)]) -> u64 {
    let before = files.iter().find(|(path, _)| number_of(path) == number.checked_sub(1));
    before.map_or(1, |(_, bytes)| end_of(bytes).1)
}

/// Reads what a damaged log has left.
fn check_damaged(mut log: Log, kept: Option<&Kept>) {
    assert_eq!(log.append(1, &[b"x"], 0), Err(AppendError::ReadOnly));
    let records = read(&log, &mut log.records()).unwrap_or_else(|read| read);
    if let Some(kept) = kept {
        assert_kept(&records, kept);
    }
    scan_all(&log, kept);
}

/// Reads each segment, what is not needed included, whose damage nobody has to have seen.
fn scan_all(log: &Log, kept: Option<&Kept>) {
    for info in log.segments().collect::<Vec<_>>() {
        let mut cursor = log.scan(info.id).expect("it is there");
        let records = read(log, &mut cursor).unwrap_or_else(|read| read);
        if let Some(kept) = kept {
            assert_kept(&records, kept);
        }
    }
}

/// Reads records from disk as a daemon does, where there are some and where there are none.
fn fetch(used: &mut Used, records: &[Record], place: Position) {
    let token = |record: &Record| (record.position, record.seq.0);
    let wanted = records.iter().rev().take(3).map(token).chain([(place, 0)]);
    for (position, token) in wanted.collect::<Vec<_>>() {
        let _ = used.log.load(position);
        let Ok(sextant_segment::Read::Cold) = used.log.read(position) else { continue };
        if used.log.fetch(position, 100, token, &mut used.files).is_err() {
            continue;
        }
        used.drain();
        let fetched = used.log.next_fetched().expect("a fetch comes to an end");
        assert_eq!((fetched.token, fetched.position), (token, position));
        if token > 0 {
            assert_eq!(fetched.result.expect("it was read before").seq.0, token);
        }
    }
}

/// Goes on with a log that is sound, for as long as it takes records.
fn check_goes_on(
    world: World,
    options: Options,
    script: &mut Script<'_>,
    before: (&Recovery, &[Record]),
) {
    let (mut used, recovery) = Used::new(world, options, Kept::new());
    let records = read_all(&used.log, &recovery);
    let place = Position { segment: SegmentId(script.byte().into()), offset: script.byte().into() };
    fetch(&mut used, &records, Position { offset: place.offset * 16, ..place });
    for at in 0..6 {
        let len = usize::from(script.byte()) * 4;
        used.append(at, at, len);
        if len % 8 == 0 {
            used.drain();
        }
    }
    used.settle();
    let (last, kept) = (used.log.last(), used.kept);
    assert_eq!(last.0, recovery.last.0 + kept.len() as u64);
    let (used, again) = Used::new(used.world, used.options, kept);
    assert_eq!((again.read_only, again.torn_bytes, again.last), (None, 0, last));
    let found = read_all(&used.log, &again);
    let (old, new) = found.split_at(before.1.len());
    assert_eq!(old, before.1, "what was there stays");
    assert_eq!(again.from, before.0.from);
    assert_kept(new, &used.kept);
}

pub(crate) fn run(bytes: &[u8]) {
    let mut script = Script(bytes);
    let world = World::new(script.byte().into());
    let options = options(script.byte());
    let (mut used, created) = Used::new(world.clone(), options.clone(), Kept::new());
    assert!(created.created);
    for _ in 0..STEPS_MAX {
        let step = script.byte();
        if step % 10 == 0 {
            break;
        }
        used = used.step(&mut script, step);
    }
    let Used { kept, .. } = used.crash(script.byte());
    let mut harmed = Harmed { world: world.clone(), harmed: false, forged: false };
    for _ in 0..STEPS_MAX {
        let step = script.byte();
        if step % 14 == 0 {
            break;
        }
        harmed.step(&mut script, step);
    }
    let kept = Some(&kept).filter(|_| !harmed.forged);
    let before = harmed.content();
    let (log, recovery) = match open(&world, &options) {
        Ok(opened) => opened,
        Err(OpenError::Version { .. }) if harmed.forged => {
            return assert!(harmed.content() == before, "a later version is left as it is");
        }
        Err(error) => panic!("whatever files hold is no error: {error}"),
    };
    if recovery.read_only.is_some() {
        assert!(harmed.harmed, "only harm damages: {recovery:?}");
        assert!(harmed.content() == before, "a damaged log is left as it is");
        return check_damaged(log, kept);
    }
    let records = read_all(&log, &recovery);
    if let Some(kept) = kept.filter(|_| !recovery.created) {
        assert_kept(&records, kept);
    }
    scan_all(&log, kept);
    drop(log);
    let repaired = harmed.content();
    let (log, again) = open(&world, &options).expect("what was opened opens again");
    let same = Recovery { created: false, torn_bytes: 0, ..recovery.clone() };
    assert_eq!(again, same, "nothing is left to repair");
    assert_eq!(read_all(&log, &again), records, "the same records");
    assert!(harmed.content() == repaired, "what was repaired is not changed");
    if recovery.last.0 < SEQ_MAX {
        check_goes_on(world, options, &mut script, (&recovery, &records));
    }
}
