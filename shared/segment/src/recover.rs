//! Opening: what the files of a log come to after a clean end, a crash, or damage. `FORMAT.md`
//! tells the steps and why they are right.
//!
//! ```text
//!    segment 1       segment 2        segment 3                  segment 4
//!   │…records…│seal│ │…records…│seal│ │…records…│ tail │ zeros …│ │ header │ zeros …          │
//!    sealed           sealed           active                     ready
//! ```
//!
//! Nothing is written before all was read; and nothing at all if acknowledged data is damaged. Of
//! segments that a checkpoint makes unnecessary only the first items are read.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sextant_ring::disk::{Disk, View};

use crate::checkpoint::Start;
use crate::error::{Corruption, OpenError, ReadOnly};
use crate::format::{
    self, ALIGN, BadHeader, CHECKPOINT_BYTES, Checkpoint, HEADER_BYTES, Item, Key, MARK_BYTES,
    NoItem, RECORD_HEADER_BYTES, RESERVED_BYTES, SEAL_BYTES, SegmentHeader,
    VERSION_WITH_CHECKPOINTS,
};
use crate::log::{Recovered, Segment};
use crate::options::Options;
use crate::position::{SegmentId, Seq};
use crate::prepare::Ready;

/// Behind a segment's header: the mark and the checkpoint that it begins with.
const START_BYTES: u32 = MARK_BYTES + CHECKPOINT_BYTES;

/// What opening a log found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Whether there was no log before.
    pub created: bool,
    /// Records that are there, in order: whole from `from` on, and not looked at before.
    pub records: u64,
    /// The first record that is needed, as the newest [checkpoint](crate::Log::checkpoint) says:
    /// the first that there is if nobody said anything, the next one's number if none is needed.
    /// [`Log::records`](crate::Log::records) begins with it.
    pub from: Seq,
    /// The last of them; zero if there is none.
    pub last: Seq,
    /// Segments, without one that is only prepared.
    pub segments: usize,
    /// Bytes of a torn tail that were cut: part of what was appended, and not acknowledged, when
    /// the log ended.
    pub torn_bytes: u64,
    /// Acknowledged data is damaged: the log takes no appends, and nothing was changed. Damage to
    /// segments that lie before the one that holds `from` is not looked for, beyond how they begin:
    /// whoever reads there is told [`ReadError::Corrupt`](crate::ReadError::Corrupt).
    pub read_only: Option<Corruption>,
}

/// How a walk through a segment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Sealed,
    /// Nothing but zeros follows.
    Open,
    /// Something follows that is not what was written.
    Damaged,
}

/// A segment as a walk through it shows.
struct Walk {
    end: End,
    /// Where the walk ended: the first byte behind the last item that is whole.
    tail: u32,
    /// The last byte that is not zero, plus one.
    dirty_end: u32,
    /// The number of the next record, if any item told it.
    next_seq: Option<u64>,
    first_seq: u64,
    records: u64,
    stored_bytes: u64,
    newest_unix_ms: u64,
    /// The highest that a checkpoint says.
    needed: u64,
    /// From here on a mark has not said that the bytes were durable.
    unsure: u32,
    /// The last item is a mark that covers all before it.
    marked: bool,
}

/// A segment file, as its first bytes show it.
struct Candidate {
    number: u32,
    path: PathBuf,
    view: View,
    /// If it is whole, and fits the file.
    header: Option<SegmentHeader>,
    start: Option<Start>,
    /// All of it, if somebody had to look already, or if nobody has to.
    walk: Option<Walk>,
}

/// A segment file that has a header of this log.
struct Found {
    number: u32,
    version: u16,
    path: PathBuf,
    view: View,
    size: u32,
    key: Key,
    walk: Walk,
}

/// What was read, before anything is decided.
#[derive(Default)]
struct Findings {
    log_id: Option<u64>,
    segments: Vec<Found>,
    /// The file behind the active segment that holds no record.
    ready: Option<Found>,
    /// That file, if it is of no use.
    useless: Option<PathBuf>,
    corruption: Option<Corruption>,
}

pub(crate) fn recover(
    disk: &dyn Disk,
    dir: &Path,
    options: &Options,
) -> Result<(Recovered, Recovery), OpenError> {
    disk.create_dir_all(dir).map_err(at(dir))?;
    let mut numbers = Vec::new();
    let mut temporary = Vec::new();
    for entry in disk.list(dir).map_err(at(dir))? {
        if let Some(number) = format::number_of(&entry.name) {
            numbers.push(number);
        } else if is_temporary(&entry.name) {
            temporary.push(dir.join(entry.name));
        }
    }
    numbers.sort_unstable();
    let created = numbers.is_empty();
    if created {
        create_first(disk, dir, options)?;
        numbers.push(1);
    }
    let mut findings = find(disk, dir, &numbers, options.whole)?;
    if findings.corruption.is_none() {
        findings.corruption = judge_last(&findings);
    }
    if let Some(corruption) = findings.corruption {
        tracing::error!(
            dir = %dir.display(), %corruption,
            "the log is read-only: data that was acknowledged is damaged"
        );
        return Ok(hand_over(findings, created, options.whole, 0));
    }
    for path in temporary.iter().chain(findings.useless.iter()) {
        disk.remove(path).map_err(at(path))?;
    }
    if let Some(ready) = findings.ready.take_if(|ready| ready.size < options.segment_bytes_min) {
        disk.remove(&ready.path).map_err(at(&ready.path))?;
    }
    let torn_bytes = repair(disk, &mut findings)?;
    if torn_bytes > 0 {
        tracing::warn!(
            dir = %dir.display(), torn_bytes,
            "cut a torn tail: appends that were under way when the log ended"
        );
    }
    Ok(hand_over(findings, created, options.whole, torn_bytes))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> OpenError + '_ {
    move |source| OpenError::Io { path: path.to_owned(), source }
}

fn is_temporary(name: &str) -> bool {
    name.strip_suffix(format::TEMP_SUFFIX).is_some_and(|name| format::number_of(name).is_some())
}

fn create_first(disk: &dyn Disk, dir: &Path, options: &Options) -> Result<(), OpenError> {
    let path = dir.join(format::file_name(1));
    let size = options.segment_bytes_min;
    let header = SegmentHeader { version: format::VERSION, log_id: options.id, number: 1, size };
    let mut bytes = header.encode().to_vec();
    bytes.resize(size as usize, 0);
    disk.replace(&path, &bytes).map_err(at(&path))
}

/// Reads all segments in order.
fn find(disk: &dyn Disk, dir: &Path, numbers: &[u32], whole: bool) -> Result<Findings, OpenError> {
    let mut candidates = Vec::with_capacity(numbers.len());
    for number in numbers.iter().copied() {
        let path = dir.join(format::file_name(number));
        let view = disk.view(&path).map_err(at(&path))?;
        let header = match SegmentHeader::decode(&view.bytes(0, HEADER_BYTES as usize)) {
            Err(BadHeader::Newer(version)) => {
                return Err(OpenError::Version { segment: SegmentId(number), version });
            }
            Err(BadHeader::Damaged) => None,
            Ok(header) if header.number != number => None,
            Ok(header) if u64::from(header.size) != view.len() => None,
            Ok(header) => Some(header),
        };
        let start = header.as_ref().and_then(|header| {
            let bytes = view.bytes(u64::from(HEADER_BYTES), START_BYTES as usize);
            Start::read(Key::new(header.log_id, number), &bytes)
        });
        candidates.push(Candidate { number, path, view, header, start, walk: None });
    }
    if !whole {
        skip_unneeded(&mut candidates);
    }
    let mut findings = Findings::default();
    let count = candidates.len();
    for (at, candidate) in candidates.into_iter().enumerate() {
        findings.take(candidate, at + 1 == count);
    }
    Ok(findings)
}

/// Finds the newest checkpoint, and notes what is known of the segments whose records it makes
/// unnecessary, so that nobody walks through them. What does not fit together is walked through.
fn skip_unneeded(candidates: &mut [Candidate]) {
    // The newest one that begins with a checkpoint repeats there what was said before.
    let says =
        |candidate: &Candidate| candidate.start.is_some_and(|start| start.checkpoint.is_some());
    let Some(newest) = candidates.iter().rposition(says) else { return };
    let candidate = &mut candidates[newest];
    let Some(header) = candidate.header else { return };
    let bytes = candidate.view.bytes(0, header.size as usize);
    let walked = walk(Key::new(header.log_id, header.number), &bytes, None);
    let needed = walked.needed;
    candidate.walk = Some(walked);
    let begins_before =
        |candidate: &Candidate| candidate.start.is_some_and(|start| start.first_seq <= needed);
    let first_needed = candidates[..=newest].iter().rposition(begins_before).unwrap_or(0);
    for at in 0..first_needed {
        candidates[at].walk = unneeded(&candidates[at], &candidates[at + 1]);
    }
}

/// What a walk through a sealed segment would show, by the first items of the next: those were
/// written when it was sealed for good.
fn unneeded(candidate: &Candidate, next: &Candidate) -> Option<Walk> {
    let (header, start, next_start) = (candidate.header?, candidate.start?, next.start?);
    let Checkpoint { stored_bytes, newest_unix_ms, .. } = next_start.checkpoint?;
    let records = next_start.first_seq.checked_sub(start.first_seq)?;
    let begun = start.checkpoint.is_some()
        || candidate.number == 1
        || header.version < VERSION_WITH_CHECKPOINTS;
    let follows = next.number == candidate.number + 1;
    let least = records.checked_mul(u64::from(RECORD_HEADER_BYTES));
    let holds = least.is_some_and(|least| least <= stored_bytes);
    let fits = begun && follows && holds && stored_bytes <= u64::from(header.size);
    fits.then_some(Walk {
        end: End::Sealed,
        tail: header.size,
        dirty_end: header.size,
        next_seq: Some(next_start.first_seq),
        first_seq: start.first_seq,
        records,
        stored_bytes,
        newest_unix_ms,
        needed: 0,
        unsure: header.size,
        marked: false,
    })
}

impl Findings {
    fn corrupt(&mut self, corruption: Corruption) {
        self.corruption.get_or_insert(corruption);
    }

    /// Places one more segment behind those that were found before.
    fn take(&mut self, candidate: Candidate, last: bool) {
        let Candidate { number, path, view, header, walk: walked, .. } = candidate;
        let id = SegmentId(number);
        let previous = self.segments.last();
        let follows = previous.is_none_or(|previous| previous.number + 1 == number);
        if let (false, Some(previous)) = (follows, previous) {
            let missing = SegmentId(previous.number + 1);
            self.corrupt(Corruption::Missing(missing));
        }
        // Behind a segment without a seal only one that was not used yet can stand.
        let unsealed = self.segments.last().filter(|previous| previous.walk.end != End::Sealed);
        let unsealed = unsealed.map(|previous| (previous.number, previous.walk.tail));
        let Some(header) = header else {
            match unsealed {
                Some(_) if last && follows => self.useless = Some(path),
                _ => self.corrupt(Corruption::Header(id)),
            }
            return;
        };
        if *self.log_id.get_or_insert(header.log_id) != header.log_id {
            return self.corrupt(Corruption::Foreign(id));
        }
        let key = Key::new(header.log_id, number);
        let bytes = view.bytes(0, header.size as usize);
        let expected = match self.segments.last() {
            None if number == 1 => Some(1),
            Some(previous) if follows && unsealed.is_none() => previous.walk.next_seq,
            _ => None,
        };
        let fits = |walk: &Walk| expected.is_none_or(|seq| seq == walk.first_seq);
        let walk = walked.filter(fits).unwrap_or_else(|| walk(key, &bytes, expected));
        let SegmentHeader { version, size, .. } = header;
        let found = Found { number, version, path, view, size, key, walk };
        let Some((segment, offset)) = unsealed else {
            self.segments.push(found);
            return;
        };
        let written = HEADER_BYTES..found.walk.dirty_end;
        if highest_mark(key, &bytes, written, 0).is_some() || !last {
            self.corrupt(Corruption::Damaged { segment: SegmentId(segment), offset });
            self.segments.push(found);
        } else if found.walk.dirty_end == HEADER_BYTES && follows {
            self.ready = Some(found);
        } else {
            self.useless = Some(found.path);
        }
    }
}

impl Findings {
    /// What the newest checkpoint says.
    fn needed(&self) -> u64 {
        self.segments.iter().map(|found| found.walk.needed).max().unwrap_or(0)
    }

    /// The checkpoint with which the last segment begins, if nothing was written to it.
    fn checkpoint(&self) -> Option<Checkpoint> {
        let before = self.segments.iter().rev().nth(1)?;
        let Walk { stored_bytes, newest_unix_ms, .. } = before.walk;
        Some(Checkpoint { needed: self.needed(), stored_bytes, newest_unix_ms })
    }
}

/// Whether the log's end shows that something is missing or damaged that was durable.
fn judge_last(findings: &Findings) -> Option<Corruption> {
    let first = findings.segments.first()?;
    let last = findings.segments.last()?;
    if last.walk.end == End::Sealed {
        return Some(Corruption::Missing(SegmentId(last.number.saturating_add(1))));
    }
    let damaged = Corruption::Damaged { segment: SegmentId(last.number), offset: last.walk.tail };
    // A segment is removed only once a record behind it is durable.
    if last.number == first.number && first.number > 1 && last.walk.next_seq.is_none() {
        return Some(damaged);
    }
    if last.walk.end == End::Open {
        return None;
    }
    let bytes = last.view.bytes(0, last.size as usize);
    let torn = last.walk.next_seq.unwrap_or(1);
    let mark = highest_mark(last.key, &bytes, last.walk.tail..last.walk.dirty_end, torn);
    mark.filter(|durable| *durable >= torn).map(|_| damaged)
}

/// Follows the items of a segment. `expected` is the number of its first record, if known.
fn walk(key: Key, bytes: &Bytes, expected: Option<u64>) -> Walk {
    let size = bytes.len() as u32;
    let mut walk = Walk {
        end: End::Open,
        tail: HEADER_BYTES,
        dirty_end: dirty_end(bytes),
        next_seq: expected,
        first_seq: expected.unwrap_or(1),
        records: 0,
        stored_bytes: 0,
        newest_unix_ms: 0,
        needed: 0,
        unsure: HEADER_BYTES,
        marked: false,
    };
    // Where commits begin, and with which record, as far as no mark has covered them.
    let mut unsure: VecDeque<(u64, u32)> = VecDeque::new();
    loop {
        let rest = bytes.get(walk.tail as usize..).unwrap_or_default();
        let item = match format::decode(key, walk.tail, rest) {
            Ok(item) => item,
            Err(NoItem::Unwritten) if walk.dirty_end <= walk.tail => break,
            Err(_) => {
                walk.end = End::Damaged;
                break;
            }
        };
        if !walk.accept(item, size, &mut unsure) {
            walk.end = End::Damaged;
            break;
        }
        walk.tail += item.span();
        if let Item::Seal { .. } = item {
            walk.end = End::Sealed;
            break;
        }
    }
    // A mark that was followed by the seal alone, and the seal did not make it: without the mark
    // there is room for both again.
    if walk.end != End::Sealed && walk.tail > size - RESERVED_BYTES {
        walk.tail -= MARK_BYTES;
        walk.marked = false;
    }
    walk.unsure = unsure.front().map_or(walk.tail, |(_, offset)| walk.tail.min(*offset));
    walk
}

impl Walk {
    /// Takes the item at the tail, if it can follow what came before it.
    fn accept(&mut self, item: Item, size: u32, unsure: &mut VecDeque<(u64, u32)>) -> bool {
        let begun = self.tail > HEADER_BYTES;
        let behind = match item {
            Item::Record { .. } | Item::Checkpoint { .. } => RESERVED_BYTES,
            Item::Mark { .. } => SEAL_BYTES,
            Item::Seal { .. } => 0,
        };
        if item.span() + behind > size - self.tail {
            return false;
        }
        match item {
            Item::Mark { seq, durable } => {
                if seq == 0 || durable >= seq || self.next_seq.is_some_and(|next| next != seq) {
                    return false;
                }
                if !begun {
                    self.first_seq = seq;
                }
                self.next_seq = Some(seq);
                unsure.push_back((seq, self.tail));
                // All below the second commit's first record was durable: so was the first commit.
                while unsure.get(1).is_some_and(|(seq, _)| *seq <= durable + 1) {
                    unsure.pop_front();
                }
                self.marked = durable + 1 == seq;
                true
            }
            Item::Record { seq, unix_ms, .. } => {
                if !begun || self.next_seq != Some(seq) || seq == u64::MAX {
                    return false;
                }
                self.next_seq = Some(seq + 1);
                self.records += 1;
                self.stored_bytes += u64::from(item.span());
                self.newest_unix_ms = self.newest_unix_ms.max(unix_ms);
                self.marked = false;
                true
            }
            Item::Checkpoint { seq, checkpoint } => {
                if !begun || self.next_seq != Some(seq) || checkpoint.needed > seq {
                    return false;
                }
                self.needed = self.needed.max(checkpoint.needed);
                self.marked = false;
                true
            }
            Item::Seal { seq } => {
                self.marked = false;
                begun && self.next_seq == Some(seq)
            }
        }
    }
}

/// The highest number of a durable record that any whole mark tells which begins in `range`, of
/// marks that can have been written once the record `seq` was.
fn highest_mark(key: Key, bytes: &Bytes, range: Range<u32>, seq: u64) -> Option<u64> {
    let mut highest = None;
    for offset in range.step_by(ALIGN as usize) {
        let rest = &bytes[offset as usize..];
        if !format::resembles_mark(rest) {
            continue;
        }
        if let Ok(Item::Mark { seq: at, durable }) = format::decode(key, offset, rest)
            && at >= seq
            && durable < at
        {
            highest = highest.max(Some(durable));
        }
    }
    highest
}

/// Where a segment's last byte that is not zero ends; at least behind the header.
fn dirty_end(bytes: &Bytes) -> u32 {
    let mut end = bytes.len();
    // By whole chunks first: most of a segment may be zeros.
    const CHUNK: usize = 4096;
    while end > HEADER_BYTES as usize {
        let start = end.saturating_sub(CHUNK).max(HEADER_BYTES as usize);
        let chunk = &bytes[start..end];
        if let Some(at) = chunk.iter().rposition(|byte| *byte != 0) {
            return (start + at + 1) as u32;
        }
        end = start;
    }
    HEADER_BYTES
}

/// Cuts a torn tail, makes all that was found durable, and marks it as such. Tells the bytes that
/// were cut.
///
/// What is above the last mark, and that mark, is written again as it is, not merely synced: after
/// a sync that failed the kernel may hold bytes that it takes for written although the disk never
/// got them.
fn repair(disk: &dyn Disk, findings: &mut Findings) -> Result<u64, OpenError> {
    let next_seq = findings.segments.last().and_then(|last| last.walk.next_seq).unwrap_or(1);
    // With the last segment still empty, the seal before it may not be durable either.
    let empty = findings.segments.last().is_some_and(|last| last.walk.tail == HEADER_BYTES);
    let from = findings.segments.len().saturating_sub(if empty { 2 } else { 1 });
    let mut torn_bytes = 0;
    for found in &findings.segments[from..] {
        let Walk { unsure, tail, dirty_end, end, .. } = found.walk;
        let torn = if end == End::Sealed { 0 } else { dirty_end.saturating_sub(tail) };
        torn_bytes += u64::from(torn);
        let mut bytes = found.view.bytes(u64::from(unsure), (tail - unsure) as usize).to_vec();
        bytes.resize(bytes.len() + torn as usize, 0);
        if !bytes.is_empty() {
            disk.overwrite(&found.path, u64::from(unsure), &bytes).map_err(at(&found.path))?;
        }
    }
    let begin = findings.checkpoint();
    let Some(last) = findings.segments.last_mut() else { return Ok(torn_bytes) };
    let tail = last.walk.tail;
    let room = last.size - tail;
    if next_seq > 1 && !last.walk.marked && room >= MARK_BYTES + RESERVED_BYTES {
        let mut end = format::mark(last.key, tail, next_seq, next_seq - 1).to_vec();
        let fits = room >= MARK_BYTES + CHECKPOINT_BYTES + MARK_BYTES + RESERVED_BYTES;
        if let Some(begin) = begin.filter(|_| fits && last.begins_with_checkpoint()) {
            let at = tail + MARK_BYTES;
            end.extend_from_slice(&format::checkpoint(last.key, at, next_seq, begin));
            let at = at + CHECKPOINT_BYTES;
            end.extend_from_slice(&format::mark(last.key, at, next_seq, next_seq - 1));
        }
        disk.overwrite(&last.path, u64::from(tail), &end).map_err(at(&last.path))?;
        last.walk.tail += end.len() as u32;
        last.walk.marked = true;
    }
    Ok(torn_bytes)
}

fn hand_over(
    findings: Findings,
    created: bool,
    whole: bool,
    torn_bytes: u64,
) -> (Recovered, Recovery) {
    let corruption = findings.corruption;
    let ends = findings.segments.iter().rev().find_map(|found| found.walk.next_seq);
    let next_seq = ends.unwrap_or(1);
    let first = findings.segments.first().map_or(1, |first| first.walk.first_seq);
    let needed = findings.needed();
    let from = if whole { 0 } else { needed };
    let recovery = Recovery {
        created,
        records: findings.segments.iter().map(|found| found.walk.records).sum(),
        from: Seq(from.clamp(first.min(next_seq), next_seq)),
        last: Seq(next_seq - 1),
        segments: findings.segments.len(),
        torn_bytes,
        read_only: corruption,
    };
    let tail = findings.segments.last().map_or(HEADER_BYTES, |last| last.walk.tail);
    let marked = findings.segments.last().is_some_and(|last| last.walk.marked);
    let segments = findings.segments.into_iter().map(|found| found.into_segment(corruption));
    let recovered = Recovered {
        id: findings.log_id.unwrap_or(0),
        segments: segments.collect(),
        ready: findings.ready.map(|found| Ready {
            number: found.number,
            version: found.version,
            size: found.size,
            view: found.view,
            file: None,
        }),
        tail,
        next_seq,
        needed,
        marked,
        read_only: corruption.map(ReadOnly::Corrupt),
    };
    (recovered, recovery)
}

impl Found {
    /// Whether nothing was written to a segment that has to begin with a checkpoint.
    fn begins_with_checkpoint(&self) -> bool {
        self.walk.tail == HEADER_BYTES
            && self.number > 1
            && self.version >= VERSION_WITH_CHECKPOINTS
    }

    fn into_segment(self, corruption: Option<Corruption>) -> Segment {
        let Walk { first_seq, records, .. } = self.walk;
        Segment {
            number: self.number,
            version: self.version,
            path: self.path,
            size: self.size,
            key: self.key,
            view: self.view,
            file: None,
            // What lies behind the damage may still be whole; its checksum tells.
            written: if corruption.is_some() { self.size } else { self.walk.tail },
            first_seq,
            last_seq: first_seq - 1 + records,
            stored_bytes: self.walk.stored_bytes,
            live_bytes: self.walk.stored_bytes,
            newest_unix_ms: self.walk.newest_unix_ms,
            sealed: self.walk.end == End::Sealed,
        }
    }
}
