//! Reading what is on disk alone, while the log goes on: what is hot and what is not, errors that
//! concern one record, limits, and sweeps over whole segments.

use std::io::ErrorKind;
use std::path::Path;

use sextant_ring::driver::FileOp;
use sextant_segment::{
    AppendError, Durability, FetchError, Fetched, Log, Options, Position, Read, ReadError,
    ReadOnly, Record, Swept, stored_bytes,
};

use crate::memory::MemoryFiles;
use crate::rig::{Backend, Rig, small_options};

const DIR: &str = "/log";

fn options(hot_bytes: u32) -> Options {
    Options { hot_bytes, ..small_options(Durability::Always) }
}

fn rig(options: Options) -> Rig<MemoryFiles> {
    Rig::open(MemoryFiles::default(), Path::new(DIR), options)
}

/// Appends records of these many bytes, each in a commit of its own.
fn fill(rig: &mut Rig<MemoryFiles>, lens: impl IntoIterator<Item = usize>) -> Vec<Position> {
    let mut positions = Vec::new();
    for (n, len) in lens.into_iter().enumerate() {
        loop {
            match rig.append(n as u8, &vec![n as u8; len], n as u64) {
                Ok(appended) => break positions.push(appended.position),
                Err(AppendError::Backlog) => rig.drain(),
                Err(error) => panic!("{error}"),
            }
        }
        rig.drain();
    }
    positions
}

fn fetch(rig: &mut Rig<MemoryFiles>, position: Position, bytes: u32) -> Result<Record, ReadError> {
    rig.log.fetch(position, bytes, 99, &mut rig.backend).expect("nothing else is read");
    loop {
        if let Some(Fetched { token, position: of, result }) = rig.log.next_fetched() {
            assert_eq!((token, of), (99, position));
            return result;
        }
        let done = rig.backend.run(0);
        let _ = rig.log.handle(done, &mut rig.backend, rig.now);
    }
}

#[test]
fn the_newest_records_are_hot_and_what_is_older_is_fetched() {
    let mut rig = rig(options(3000));
    let positions = fill(&mut rig, [500; 12]);
    let hot = |at: &Position| matches!(rig.log.read(*at), Ok(Read::Hot(_)));
    let first_hot = positions.iter().position(hot).expect("the newest is hot");
    assert!((5..11).contains(&first_hot), "{first_hot}");
    assert!(positions[first_hot..].iter().all(hot), "no hole in what is hot");
    for (n, position) in positions[..first_hot].iter().enumerate() {
        assert_eq!(rig.log.read(*position), Ok(Read::Cold));
        let record = fetch(&mut rig, *position, stored_bytes(500)).expect("it is whole");
        assert_eq!((record.seq.0, record.kind, record.unix_ms), (n as u64 + 1, n as u8, n as u64));
        assert_eq!((record.position, record.payload), (*position, vec![n as u8; 500].into()));
    }
}

#[test]
fn after_an_opening_everything_is_cold_and_what_comes_then_is_hot() {
    let mut rig = rig(options(1 << 20));
    let old = fill(&mut rig, [100; 3]);
    rig.reopen();
    let new = rig.append(9, b"new", 0).expect("there is room").position;
    rig.drain();
    assert!(matches!(rig.log.read(new), Ok(Read::Hot(_))));
    for position in old {
        assert_eq!(rig.log.read(position), Ok(Read::Cold));
        fetch(&mut rig, position, 200).expect("it is whole");
    }
}

#[test]
fn a_length_that_was_guessed_too_short_takes_a_second_read() {
    let mut rig = rig(options(0));
    // Longer than a page, which is what a read takes in at least.
    let position = {
        rig.options.segment_bytes_min = 64 << 10;
        rig.options.segment_bytes_max = 64 << 10;
        rig.options.bytes_max = 1 << 20;
        rig.options.record_bytes_max = 20_000;
        rig.options.backlog_bytes_max = 64 << 10;
        let (backend, options) = (MemoryFiles::default(), rig.options.clone());
        rig = Rig::open(backend, Path::new(DIR), options);
        fill(&mut rig, [9000])[0]
    };
    for guess in [0, 24, 200, 9000, 9024, 60_000, u32::MAX] {
        let record = fetch(&mut rig, position, guess).expect("it is whole");
        assert_eq!(record.payload.len(), 9000, "guessed {guess}");
    }
}

#[test]
fn a_bad_sector_is_the_error_of_the_record_that_it_holds() {
    let mut rig = rig(options(0));
    let positions = fill(&mut rig, [400; 6]);
    let bad = u64::from(positions[2].offset);
    rig.backend.fault = Some(Box::new(move |op| match op {
        FileOp::Read { offset, .. } => (*offset == bad).then_some(ErrorKind::Other),
        _ => None,
    }));
    for (n, position) in positions.iter().enumerate() {
        let result = fetch(&mut rig, *position, stored_bytes(400));
        match n {
            2 => {
                let error = ReadError::Io { position: *position, kind: ErrorKind::Other };
                assert_eq!(result, Err(error));
            }
            _ => assert!(result.is_ok(), "{result:?}"),
        }
    }
    assert_eq!(rig.log.read_only(), None, "the log goes on");
    rig.append(1, b"more", 0).expect("there is room");
    rig.drain();
}

#[test]
fn damage_of_a_cold_record_is_found_and_its_neighbours_are_whole() {
    let mut rig = rig(options(0));
    let positions = fill(&mut rig, [400; 4]);
    for bit in [0, 3, 40, 70, 200 * 8, 423 * 8] {
        let at = positions[1].offset as usize * 8 + bit;
        let flip = |bytes: &mut Vec<u8>| bytes[at / 8] ^= 1 << (at % 8);
        rig.backend.disk.tamper(Path::new("/log/0000000001.seg"), flip);
        let corrupt = Err(ReadError::Corrupt(positions[1]));
        assert_eq!(fetch(&mut rig, positions[1], stored_bytes(400)), corrupt, "bit {bit}");
        for whole in [0, 2, 3] {
            assert!(fetch(&mut rig, positions[whole], stored_bytes(400)).is_ok());
        }
        rig.backend.disk.tamper(Path::new("/log/0000000001.seg"), flip);
    }
}

#[test]
fn what_was_never_a_record_is_not_fetched_as_one() {
    let mut rig = rig(options(0));
    let position = fill(&mut rig, [400])[0];
    let at = |segment, offset| Position { segment: sextant_segment::SegmentId(segment), offset };
    for nowhere in [at(0, 544), at(7, 544), at(1, 0), at(1, 545), at(1, 4000)] {
        let error = rig.log.fetch(nowhere, 100, 0, &mut rig.backend);
        assert_eq!(error, Err(ReadError::Nowhere(nowhere).into()));
    }
    let mark = at(1, 512);
    assert_eq!(fetch(&mut rig, mark, 100), Err(ReadError::Nowhere(mark)));
    let inside = at(1, position.offset + 8);
    assert_eq!(fetch(&mut rig, inside, 100), Err(ReadError::Corrupt(inside)));
    assert_eq!(rig.backend.waiting(), 0);
}

#[test]
fn what_is_read_at_once_has_a_limit_and_goes_on_when_there_is_room() {
    let mut rig = rig(options(0));
    let position = fill(&mut rig, [100])[0];
    let bytes = stored_bytes(100);
    for token in 0..Log::FETCHES_MAX as u64 {
        rig.log.fetch(position, bytes, token, &mut rig.backend).expect("within the limit");
    }
    let busy = rig.log.fetch(position, bytes, 1000, &mut rig.backend);
    assert_eq!(busy, Err(FetchError::Busy));
    while rig.backend.waiting() > 0 {
        let done = rig.backend.run(0);
        let _ = rig.log.handle(done, &mut rig.backend, rig.now);
    }
    // What was not taken yet counts.
    let busy = rig.log.fetch(position, bytes, 1000, &mut rig.backend);
    assert_eq!(busy, Err(FetchError::Busy));
    for token in 0..Log::FETCHES_MAX as u64 {
        let fetched = rig.log.next_fetched().expect("all have ended");
        assert_eq!(fetched.token, token);
        assert!(fetched.result.is_ok());
    }
    assert_eq!(rig.log.next_fetched(), None);
    assert!(fetch(&mut rig, position, bytes).is_ok());
}

#[test]
fn few_files_are_open_however_many_segments_are_read() {
    let mut rig = rig(options(0));
    let positions = fill(&mut rig, [1400; 60]);
    assert!(rig.log.segments().count() > 6);
    for round in 0..3 {
        for position in &positions {
            fetch(&mut rig, *position, stored_bytes(1400)).expect("it is whole");
            assert!(rig.log.open_files() <= 6, "round {round}: {}", rig.log.open_files());
        }
    }
    // All at once, from more segments than may be open.
    for (token, position) in positions.iter().enumerate() {
        rig.log.fetch(*position, 1424, token as u64, &mut rig.backend).expect("within the limit");
    }
    let mut fetched = 0;
    while rig.backend.waiting() > 0 {
        let done = rig.backend.run(rig.backend.waiting() - 1);
        let _ = rig.log.handle(done, &mut rig.backend, rig.now);
        while let Some(one) = rig.log.next_fetched() {
            assert!(one.result.is_ok());
            fetched += 1;
        }
        assert!(rig.log.open_files() <= 6);
    }
    assert_eq!(fetched, positions.len());
}

#[test]
fn a_segment_that_is_removed_while_it_is_read_is_let_go() {
    for delivered_before in [false, true] {
        let mut rig = rig(options(0));
        let positions = fill(&mut rig, [1400; 12]);
        fetch(&mut rig, positions[0], 1424).expect("it is whole");
        for seq in 1..=12 {
            rig.retire(seq);
        }
        let before = rig.log.open_files();
        rig.log.fetch(positions[0], 1424, 5, &mut rig.backend).expect("nothing else is read");
        if delivered_before {
            rig.run_unchecked();
        }
        assert!(rig.compact());
        rig.commit();
        while rig.backend.waiting() > 0 {
            rig.run_unchecked();
        }
        let fetched = rig.log.next_fetched().expect("it has ended");
        assert!(fetched.result.is_ok(), "it was open: {fetched:?}");
        assert_eq!(rig.log.open_files(), before - 1, "the removed file takes no room");
        let gone = rig.log.fetch(positions[0], 1424, 5, &mut rig.backend);
        assert_eq!(gone, Err(ReadError::Removed(positions[0]).into()));
    }
}

#[test]
fn a_file_that_cannot_be_opened_fails_what_waited_for_it_alone() {
    let mut rig = rig(options(0));
    let positions = fill(&mut rig, [1400; 4]);
    rig.backend.fault = Some(Box::new(|op| match op {
        FileOp::Open { .. } => Some(ErrorKind::QuotaExceeded),
        _ => None,
    }));
    let error = ReadError::Io { position: positions[0], kind: ErrorKind::QuotaExceeded };
    assert_eq!(fetch(&mut rig, positions[0], 1424), Err(error));
    rig.backend.fault = None;
    assert!(fetch(&mut rig, positions[0], 1424).is_ok());
}

/// All records of a segment, swept while the disk is answered one operation at a time.
fn swept(rig: &mut Rig<MemoryFiles>, segment: sextant_segment::SegmentId) -> Vec<Record> {
    let mut sweep = rig.log.sweep(segment).expect("it is there");
    let mut records = Vec::new();
    loop {
        let before = sweep.clone();
        match sweep.next(&mut rig.log, &mut rig.backend).expect("nothing is damaged") {
            Swept::Record(record) => {
                if record.seq.0.is_multiple_of(3) {
                    let mut again = before;
                    let mut same = again.next(&mut rig.log, &mut rig.backend);
                    if same == Ok(Swept::Waiting) {
                        rig.run_unchecked();
                        same = again.next(&mut rig.log, &mut rig.backend);
                    }
                    assert!(same == Ok(Swept::Record(record.clone())), "a clone is the way back");
                }
                records.push(record);
            }
            Swept::Waiting => {
                assert!(rig.backend.waiting() > 0, "it waits for something");
                rig.run_unchecked();
            }
            Swept::Ended => return records,
        }
    }
}

#[test]
fn a_sweep_tells_what_a_cursor_tells() {
    let options = Options {
        segment_bytes_min: 1 << 20,
        segment_bytes_max: 1 << 20,
        bytes_max: 64 << 20,
        record_bytes_max: 600 << 10,
        commit_bytes_max: 64 << 10,
        backlog_bytes_max: 1 << 20,
        ..options(0)
    };
    let mut rig = rig(options);
    let lens = (0..300).map(|n: usize| match n % 50 {
        0 => 400 << 10,
        1 => 256 << 10,
        _ => n * 37 % 5000,
    });
    fill(&mut rig, lens);
    let segments: Vec<_> = rig.log.segments().map(|info| info.id).collect();
    assert!(segments.len() > 3);
    for segment in segments {
        let mut cursor = rig.log.scan(segment).expect("it is there");
        let mut told = Vec::new();
        while let Some(record) = cursor.next(&rig.log) {
            told.push(record.expect("nothing is damaged"));
        }
        assert_eq!(swept(&mut rig, segment), told, "of segment {segment}");
    }
}

#[test]
fn a_sweep_ends_where_the_disk_or_the_bytes_fail() {
    let mut rig = rig(options(0));
    let positions = fill(&mut rig, [1400; 4]);
    let segment = positions[0].segment;
    let flip = |bytes: &mut Vec<u8>| bytes[positions[1].offset as usize + 30] ^= 1;
    rig.backend.disk.tamper(Path::new("/log/0000000001.seg"), flip);
    let mut sweep = rig.log.sweep(segment).expect("it is there");
    let mut outcome = Vec::new();
    for _ in 0..20 {
        let next = sweep.next(&mut rig.log, &mut rig.backend);
        if next == Ok(Swept::Waiting) {
            rig.run_unchecked();
        } else {
            outcome.push(next.map(|swept| matches!(swept, Swept::Record(_))));
        }
    }
    assert_eq!(outcome[..3], [Ok(true), Err(ReadError::Corrupt(positions[1])), Ok(false)]);

    rig.backend.fault =
        Some(Box::new(|op| matches!(op, FileOp::Read { .. }).then_some(ErrorKind::Other)));
    let mut sweep = rig.log.sweep(segment).expect("it is there");
    assert_eq!(sweep.next(&mut rig.log, &mut rig.backend), Ok(Swept::Waiting));
    rig.run_unchecked();
    let error = sweep.next(&mut rig.log, &mut rig.backend);
    assert!(matches!(error, Err(ReadError::Io { .. })), "{error:?}");
    assert_eq!(sweep.next(&mut rig.log, &mut rig.backend), Ok(Swept::Ended));
}

#[test]
fn a_log_that_is_closed_holds_no_file() {
    // With nothing under way, and with everything at once.
    for busy in [false, true] {
        let mut rig = rig(options(0));
        let positions = fill(&mut rig, [1400; 6]);
        fetch(&mut rig, positions[0], 1424).expect("it is whole");
        assert!(rig.backend.open_files() > 1);
        if busy {
            rig.append(1, &[1; 1000], 0).expect("there is room");
            rig.log.fetch(positions[5], 1424, 1, &mut rig.backend).expect("nothing is read");
            rig.log.commit(&mut rig.backend, rig.now);
            assert!(rig.backend.waiting() > 1);
        } else {
            rig.settle();
        }
        rig.log.close(&mut rig.backend);
        assert_eq!(rig.append(1, b"late", 0), Err(AppendError::ReadOnly));
        while rig.backend.waiting() > 0 {
            rig.run_unchecked();
        }
        assert!(rig.log.is_closed());
        assert_eq!((rig.backend.open_files(), rig.log.open_files()), (0, 0));
        assert_eq!(rig.log.read_only(), Some(ReadOnly::Closed));
        let closed = rig.log.fetch(positions[0], 1424, 1, &mut rig.backend);
        assert_eq!(closed, Err(ReadError::Closed(positions[0]).into()));
        rig.reopen();
    }
}
