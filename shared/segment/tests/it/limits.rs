//! Limits, modes, and the small promises of the interface.

use std::path::Path;
use std::time::Duration;

use fastrand::Rng;
use sextant_ring::driver::{FileOp, Files};
use sextant_ring::time::Time;
use sextant_segment::{
    AppendError, Durability, Log, Options, Position, ReadError, RemoveError, SegmentId, Seq,
    stored_bytes,
};

use crate::host::HostFiles;
use crate::memory::MemoryFiles;
use crate::rig::{Backend, Rig, payload_of, small_options};

const DIR: &str = "/log";

fn rig(options: Options) -> Rig<MemoryFiles> {
    Rig::open(MemoryFiles::default(), Path::new(DIR), options)
}

fn always() -> Options {
    small_options(Durability::Always)
}

#[test]
fn segments_double_up_to_their_limit() {
    let mut rig = rig(always());
    while rig.log.segments().count() < 5 {
        match rig.append(1, &[1; 200], 0) {
            Ok(_) | Err(AppendError::Backlog) => rig.drain(),
            Err(error) => panic!("{error}"),
        }
    }
    let sizes: Vec<u64> = rig.log.segments().map(|info| info.file_bytes).collect();
    assert_eq!(sizes, [4096, 8192, 16384, 16384, 16384]);
}

#[test]
fn a_record_is_refused_past_its_limit_and_taken_at_it() {
    let mut rig = rig(always());
    assert_eq!(rig.append(1, &[0; 1501], 0), Err(AppendError::TooLarge));
    let appended = rig.append(1, &[0; 1500], 0).expect("at the limit");
    assert_eq!(appended.stored_bytes, stored_bytes(1500));
    assert_eq!((appended.seq, appended.position.segment), (Seq(1), SegmentId(1)));
    rig.settle();
    rig.verify();
}

#[test]
fn what_the_disk_does_not_keep_up_with_is_refused_and_room_is_told() {
    let options = Options { segment_bytes_min: 16384, ..always() };
    let mut rig = rig(options.clone());
    let mut accepted = 0;
    while rig.append(1, &[1; 1000], 0).is_ok() {
        accepted += 1;
    }
    assert_eq!(rig.append(1, &[1; 1000], 0), Err(AppendError::Backlog));
    let bytes = accepted * u64::from(stored_bytes(1000));
    let max = u64::from(options.backlog_bytes_max);
    assert!(bytes <= max && bytes + 2048 > max, "{bytes} of {max}");
    assert!(!rig.progress.room);
    rig.drain();
    assert!(rig.progress.room);
    rig.append(1, &[1; 1000], 0).expect("there is room");
}

#[test]
fn a_log_that_is_full_can_always_be_made_smaller() {
    for seed in 0..20 {
        let mut rng = Rng::with_seed(seed);
        let mut rig = rig(Options { bytes_max: 65536, ..always() });
        let mut fulls = 0;
        for step in 0..2000u32 {
            let payload = payload_of(&mut rng, 1500);
            match rig.append(1, &payload, u64::from(step)) {
                Ok(appended) => {
                    // Most of what there is goes on living.
                    if rng.u8(..4) == 0 {
                        rig.retire(rng.u64(1..=appended.seq.0));
                    }
                }
                Err(AppendError::Backlog) => rig.drain(),
                Err(AppendError::Full) => {
                    fulls += 1;
                    rig.drain();
                    assert!(
                        rig.compact_patiently(),
                        "seed {seed}: no room to move the oldest segment"
                    );
                    rig.drain();
                    assert!(rig.progress.removed.take().is_some(), "seed {seed}");
                    let live = rig.kept.iter().filter(|(_, kept)| kept.live);
                    let live: Vec<u64> = live.map(|(seq, _)| *seq).collect();
                    for _ in 0..live.len() / 10 {
                        rig.retire(live[rng.usize(..live.len())]);
                    }
                }
                Err(error) => panic!("seed {seed}: {error}"),
            }
            assert!(rig.log.file_bytes() <= 65536);
        }
        assert!(fulls > 20, "seed {seed}: {fulls}");
        rig.settle();
        rig.reopen();
    }
}

#[test]
fn an_append_is_refused_when_the_quota_is_used_up_and_taken_after_a_removal() {
    let mut rig = rig(Options { bytes_max: 32768, ..always() });
    let refusal = loop {
        match rig.append(1, &[1; 500], 0) {
            Err(error @ AppendError::Full) => break error,
            _ => rig.drain(),
        }
    };
    assert_eq!(refusal, AppendError::Full);
    assert_eq!(rig.log.read_only(), None);
    let seqs: Vec<u64> = rig.kept.keys().copied().collect();
    seqs.iter().for_each(|seq| rig.retire(*seq));
    rig.progress.room = false;
    assert!(rig.compact());
    rig.drain();
    assert!(rig.progress.room);
    rig.append(1, &[1; 500], 0).expect("there is room");
    rig.verify();
}

#[test]
fn appends_of_a_turn_and_of_the_time_of_a_sync_share_the_next() {
    let mut rig = rig(Options { segment_bytes_min: 16384, ..always() });
    let syncs = |rig: &Rig<MemoryFiles>| {
        rig.backend.waiting_ops().filter(|op| matches!(op, FileOp::WriteSync { .. })).count()
    };
    rig.append(1, b"warm", 0).expect("there is room");
    rig.drain();
    for _ in 0..20 {
        rig.append(1, b"first", 0).expect("there is room");
    }
    rig.commit();
    assert_eq!(syncs(&rig), 1);
    for _ in 0..30 {
        rig.append(1, b"second", 0).expect("there is room");
        rig.commit();
    }
    assert_eq!((syncs(&rig), rig.ackable), (1, 1), "one is under way, the others wait for it");
    rig.run(0);
    assert_eq!(rig.ackable, 21);
    rig.commit();
    assert_eq!(syncs(&rig), 1);
    rig.run(0);
    assert_eq!(rig.ackable, 51);
    rig.commit();
    assert_eq!(rig.backend.waiting(), 0);
}

#[test]
fn a_record_can_be_read_before_while_and_after_it_is_written() {
    let mut rig = rig(always());
    let position = rig.append(3, b"payload", 77).expect("there is room").position;
    rig.verify();
    rig.drain();
    let second = rig.append(4, b"second", 78).expect("there is room").position;
    rig.commit();
    assert_eq!(rig.backend.waiting(), 1);
    let third = rig.append(5, b"third", 79).expect("there is room").position;
    for (position, kind, payload) in
        [(position, 3, &b"payload"[..]), (second, 4, b"second"), (third, 5, b"third")]
    {
        let record = rig.log.load(position).expect("it is there");
        assert_eq!((record.kind, &record.payload[..]), (kind, payload));
    }
    rig.drain();
    rig.verify();
}

#[test]
fn positions_where_no_record_begins_are_errors() {
    let mut rig = rig(always());
    let position = rig.append(3, b"payload", 77).expect("there is room").position;
    rig.drain();
    let at = |segment, offset| Position { segment: SegmentId(segment), offset };
    for nowhere in [
        at(0, 544),
        at(9, 544),
        at(1, 0),
        at(1, 512),
        at(1, position.offset + 1),
        at(1, position.offset + 800),
        at(1, u32::MAX),
    ] {
        assert_eq!(rig.log.load(nowhere), Err(ReadError::Nowhere(nowhere)));
    }
    let inside = at(1, position.offset + 8);
    assert_eq!(rig.log.load(inside), Err(ReadError::Nowhere(inside)));
    rig.reopen();
    assert_eq!(rig.log.load(inside), Err(ReadError::Corrupt(inside)));
}

#[test]
fn every_acknowledges_at_once_and_writes_when_it_is_due() {
    let mut rig = rig(small_options(Durability::Every(Duration::from_millis(50))));
    rig.now = Time::from_nanos(1_000_000_000);
    let first = rig.append(1, b"a", 0).expect("there is room").seq;
    assert_eq!(rig.log.ackable(), first);
    rig.drain();
    let due = rig.now + Duration::from_millis(50);
    assert_eq!((rig.log.deadline(), rig.log.durable()), (Some(due), Seq(0)));
    rig.now = rig.now + Duration::from_millis(30);
    let second = rig.append(1, b"b", 0).expect("there is room").seq;
    rig.drain();
    assert_eq!((rig.log.deadline(), rig.log.durable()), (Some(due), Seq(0)));
    rig.now = due;
    rig.commit();
    assert_eq!(rig.log.deadline(), None, "it is under way");
    rig.drain();
    assert_eq!((rig.log.ackable(), rig.log.durable(), rig.log.deadline()), (second, second, None));
}

#[test]
fn what_nobody_waits_for_lingers_until_it_is_due_or_fills_a_write() {
    for durability in [Durability::Always, Durability::Os] {
        let linger = Duration::from_millis(20);
        let options = Options { linger, segment_bytes_min: 16 << 10, ..small_options(durability) };
        let mut rig =
            rig(Options { record_bytes_max: 2500, backlog_bytes_max: 16 << 10, ..options });
        rig.now = Time::from_nanos(1_000_000_000);
        rig.append(1, b"a", 0).expect("there is room");
        rig.drain();
        let due = rig.now + linger;
        assert_eq!((rig.log.deadline(), rig.log.ackable()), (Some(due), Seq(0)));
        rig.now = due;
        let late = rig.append(1, b"b", 0).expect("there is room").seq;
        rig.drain();
        assert_eq!((rig.log.deadline(), rig.log.ackable()), (None, late));
        // Somebody waits for the first of two, and the second is at hand.
        rig.append(1, b"c", 0).expect("there is room");
        rig.log.hurry();
        let along = rig.append(1, b"d", 0).expect("there is room").seq;
        rig.drain();
        assert_eq!((rig.log.deadline(), rig.log.ackable()), (None, along));
        // Nobody waits for what came since.
        rig.append(1, b"e", 0).expect("there is room");
        rig.drain();
        assert_eq!(rig.log.ackable(), along);
        // More than one write holds: the full one goes.
        let [full, last] =
            [2500, 1600].map(|len| rig.append(1, &vec![1; len], 0).expect("there is room").seq);
        rig.drain();
        assert_eq!(rig.log.ackable(), full);
        rig.settle();
        assert_eq!(rig.log.durable(), last);
    }
}

#[test]
fn os_acknowledges_what_was_written_and_syncs_when_asked() {
    let mut rig = rig(small_options(Durability::Os));
    let seq = rig.append(1, b"a", 0).expect("there is room").seq;
    assert_eq!(rig.log.ackable(), Seq(0));
    rig.drain();
    assert_eq!((rig.log.ackable(), rig.log.durable()), (seq, Seq(0)));
    rig.settle();
    assert_eq!(rig.log.durable(), seq);
    rig.backend.power_failure(&mut Rng::with_seed(1), 0.0);
    assert_eq!(rig.reopen().last, seq);
}

#[test]
fn a_segment_goes_only_when_what_replaced_it_is_durable() {
    for durability in [Durability::Always, Durability::Os, Durability::Every(Duration::MAX)] {
        let mut rig = rig(small_options(durability));
        assert_eq!(
            rig.log.remove_when_durable(SegmentId(1), Seq(0)),
            Err(RemoveError::NotSealed(SegmentId(1)))
        );
        while rig.log.segments().filter(|info| info.sealed).count() < 2 {
            let _ = rig.append(1, &[1; 300], 5);
            rig.drain();
        }
        assert_eq!(
            rig.log.remove_when_durable(SegmentId(2), Seq(0)),
            Err(RemoveError::NotOldest(SegmentId(2)))
        );
        let first = rig.kept[&1].position;
        assert!(rig.compact_patiently());
        assert_eq!(rig.log.oldest().map(|info| info.id), Some(SegmentId(2)));
        let last = rig.log.last();
        for _ in 0..1000 {
            if rig.log.read(first).is_err() {
                break;
            }
            assert_eq!(rig.progress.removed, None);
            rig.commit();
            rig.run(0);
        }
        assert!(rig.log.durable() >= last, "{durability:?}");
        assert_eq!(rig.log.load(first), Err(ReadError::Removed(first)));
        rig.drain();
        assert_eq!(rig.progress.removed, Some(SegmentId(1)));
        assert!(!rig.backend.disk.names().contains(&"0000000001.seg".to_owned()));
    }
}

/// An empty log that begins with segment 2 could not tell where its numbers go on.
#[test]
fn a_segment_stays_until_a_record_behind_it_is_durable() {
    let mut rig = rig(always());
    while rig.append(1, &[1; 300], 5).expect("there is room").position.segment == SegmentId(1) {
        if rig.log.last().0.is_multiple_of(3) {
            rig.drain();
        }
    }
    while !rig.log.oldest().expect("there is one").sealed {
        rig.commit();
        rig.run(0);
    }
    rig.log.remove_when_durable(SegmentId(1), Seq(0)).expect("it is the oldest");
    rig.going.insert(SegmentId(1));
    let removes = |rig: &Rig<MemoryFiles>| {
        rig.backend.waiting_ops().any(|op| matches!(op, FileOp::Remove { .. }))
    };
    rig.commit();
    while rig.durable < rig.log.last().0 {
        assert!(!removes(&rig));
        assert!(rig.run(0));
    }
    rig.commit();
    assert!(removes(&rig));
}

#[test]
fn what_was_read_stays_valid_when_its_segment_is_removed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut rig = Rig::open(HostFiles::default(), dir.path(), always());
    while rig.log.segments().filter(|info| info.sealed).count() < 1 {
        let _ = rig.append(1, &[42; 300], 5);
        rig.drain();
    }
    let record = rig.log.load(rig.kept[&1].position).expect("it is there");
    assert!(rig.compact());
    rig.drain();
    assert_eq!(rig.progress.removed, Some(SegmentId(1)));
    assert_eq!(&record.payload[..], &[42; 300]);
}

#[test]
fn a_cursor_goes_on_where_it_stopped() {
    let mut rig = rig(always());
    let mut cursor = rig.log.records();
    for seq in 1..100 {
        while rig.append(1, &[seq as u8; 100], 0).is_err() {
            rig.drain();
        }
        assert!(cursor.next(&rig.log).is_none(), "what is not written is not shown");
        rig.drain();
        let record = cursor.next(&rig.log).expect("it is there").expect("it is whole");
        assert_eq!(record.seq, Seq(seq));
        assert!(cursor.next(&rig.log).is_none());
    }
}

#[test]
fn an_idle_log_asks_for_nothing() {
    let mut rig = rig(always());
    rig.commit();
    assert_eq!((rig.backend.waiting(), rig.log.deadline()), (0, None));
    assert!(rig.log.is_settled());
    rig.append(1, b"x", 0).expect("there is room");
    rig.settle();
    let before = rig.backend.disk.bytes(Path::new("/log/0000000001.seg"));
    rig.reopen();
    rig.settle();
    rig.reopen();
    rig.commit();
    assert_eq!((rig.backend.waiting(), rig.log.deadline()), (0, None));
    let after = rig.backend.disk.bytes(Path::new("/log/0000000001.seg"));
    assert_eq!(before, after, "an orderly end leaves nothing to repair");
}

#[test]
fn logs_of_one_core_know_their_own_tickets() {
    #[derive(Default)]
    struct Tickets(Vec<u64>);
    impl Files for Tickets {
        fn submit(&mut self, ticket: u64, _: FileOp) {
            self.0.push(ticket);
        }
    }
    let disk = MemoryFiles::default().disk();
    let open = |space| {
        let options = Options { ticket_space: space, ..always() };
        Log::open(&*disk, Path::new(&format!("/log{space}")), options).expect("it opens").0
    };
    let (mut a, mut b) = (open(1), open(0xFFFF));
    let mut tickets = Tickets::default();
    a.append(1, &[], 0).expect("there is room");
    a.commit(&mut tickets, Time::ZERO);
    b.append(1, &[], 0).expect("there is room");
    b.commit(&mut tickets, Time::ZERO);
    let [of_a, of_b] = tickets.0[..] else { panic!("two operations") };
    assert!(a.owns(of_a) && !a.owns(of_b) && b.owns(of_b) && !b.owns(of_a));
}

#[test]
fn what_was_half_prepared_is_cleared_away_and_strangers_are_left_alone() {
    let rig = rig(always());
    let place = |name: &str| rig.backend.disk.place(&Path::new(DIR).join(name), b"abc");
    place("0000000002.seg.new");
    place("notes.txt");
    place("7.seg");
    let mut rig = rig;
    rig.reopen();
    assert_eq!(rig.backend.disk.names(), ["0000000001.seg", "7.seg", "notes.txt"]);
}

#[test]
fn limits_may_change_between_openings() {
    let mut rig = rig(always());
    while rig.log.segments().count() < 2 {
        let _ = rig.append(1, &[1; 300], 5);
        rig.drain();
    }
    rig.options = Options {
        segment_bytes_min: 32768,
        segment_bytes_max: 65536,
        bytes_max: 1 << 20,
        record_bytes_max: 20000,
        backlog_bytes_max: 65536,
        ..rig.options
    };
    rig.reopen();
    let mut taken = 0;
    for _ in 0..200 {
        match rig.append(1, &[9; 20000], 0) {
            Ok(_) => taken += 1,
            Err(AppendError::Backlog) => {}
            Err(AppendError::Full) => break,
            Err(error) => panic!("{error}"),
        }
        rig.drain();
    }
    assert!(taken > 10, "{taken}");
    rig.verify();
    rig.options = always();
    rig.options.bytes_max = 1 << 20;
    rig.reopen();
}
