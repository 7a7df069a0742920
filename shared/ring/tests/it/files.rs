//! Files through the loop, and what of them the blocking disk then sees.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use sextant_ring::buf::IoBuf;
use sextant_ring::core::Cx;
use sextant_ring::driver::{File, FileDone, FileOp, FileOutput, Files, OpenMode};

use crate::harness::{Event, Msg, Role, Shared, Stage, on_all_drivers, payload, stop_all};

on_all_drivers! {
    what_is_written_is_read_back_renamed_and_removed: 20 seeds;
    many_writes_at_once_all_end: 20 seeds;
    errors_name_their_cause_and_give_the_buffer_back: 10 seeds;
}

fn buf(bytes: &[u8]) -> IoBuf {
    let mut buf = IoBuf::with_capacity(bytes.len());
    assert_eq!(buf.push(bytes), bytes.len());
    buf
}

fn opened(done: &FileDone) -> File {
    match &done.result {
        Ok(FileOutput::Opened(file)) => *file,
        other => panic!("{other:?}"),
    }
}

fn what_is_written_is_read_back_renamed_and_removed(stage: &mut Stage) {
    let dir = stage.dir();
    let mut rng = stage.random();
    let content = payload(&mut rng, 10_000);
    let (old, new) = (dir.join("one"), dir.join("two"));
    let expected = content.clone();
    let paths = (dir.clone(), old.clone(), new.clone());
    let mut file = None;
    // One step after the other: a step's ticket is its number.
    let script = move |cx: &mut Cx<Msg>, event: Event| {
        let step = match &event {
            Event::Start => 0,
            Event::File(done) => done.ticket + 1,
            Event::Stopping => return,
            other => panic!("{other:?}"),
        };
        if let Event::File(done) = event {
            assert!(done.result.is_ok(), "step {}: {:?}", done.ticket, done.result);
            match done.ticket {
                0 => file = Some(opened(&done)),
                1 | 2 => assert!(done.buf.is_some(), "a write gives its buffer back"),
                4 => {
                    let read = done.buf.expect("a read gives its buffer back");
                    assert!(*read == expected[6000..], "{} bytes", read.len());
                }
                5 => {
                    let read = done.buf.expect("a read gives its buffer back");
                    assert!(*read == expected[..4096], "{} bytes", read.len());
                }
                6 => match done.result {
                    Ok(FileOutput::Mapped(view)) => assert!(view.bytes(0, 10_000) == expected),
                    other => panic!("{other:?}"),
                },
                _ => {}
            }
        }
        let (dir, old, new) = &paths;
        let op = match step {
            0 => FileOp::Open { path: old.clone(), mode: OpenMode::CreateNew },
            1 => {
                let file = file.expect("it is open");
                FileOp::Write { file, offset: 5000, buf: buf(&content[5000..]) }
            }
            2 => {
                let file = file.expect("it is open");
                FileOp::WriteSync { file, offset: 0, buf: buf(&content[..5000]) }
            }
            3 => FileOp::Sync { file: file.expect("it is open") },
            4 => {
                // Past the end, so it comes up short.
                let buf = IoBuf::with_capacity(8192);
                FileOp::Read { file: file.expect("it is open"), offset: 6000, buf }
            }
            5 => {
                let buf = IoBuf::with_capacity(4096);
                FileOp::Read { file: file.expect("it is open"), offset: 0, buf }
            }
            6 => FileOp::Map { file: file.expect("it is open"), len: 10_000 },
            7 => FileOp::Close { file: file.expect("it is open") },
            8 => FileOp::Rename { from: old.clone(), to: new.clone() },
            9 => FileOp::SyncDir { path: dir.clone() },
            10 => FileOp::Link { from: new.clone(), to: old.clone() },
            11 => FileOp::Remove { path: old.clone() },
            _ => {
                stop_all(cx);
                return;
            }
        };
        cx.submit(step, op);
    };
    stage.play(vec![Role::new(script)]);
    let disk = stage.disk();
    let names: Vec<_> = disk.list(&dir).unwrap();
    assert_eq!(names.len(), 1, "{names:?}");
    assert_eq!((names[0].name.as_str(), names[0].len), ("two", 10_000));
    assert_eq!(disk.view(&new).unwrap().len(), 10_000);
    assert!(disk.view(&old).is_err());
}

fn many_writes_at_once_all_end(stage: &mut Stage) {
    const BLOCKS: u64 = 64;
    let path = stage.dir().join("blocks");
    let mut left: HashMap<u64, ()> = (1..=BLOCKS).map(|ticket| (ticket, ())).collect();
    let create = path.clone();
    let script = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Start => {
            cx.submit(0, FileOp::Open { path: create.clone(), mode: OpenMode::CreateNew });
        }
        Event::File(done) if done.ticket == 0 => {
            let file = opened(&done);
            for block in 1..=BLOCKS {
                let (offset, buf) = ((block - 1) * 4096, buf(&[block as u8; 4096]));
                // Some with a sync of their own.
                let op = match block % 4 {
                    0 => FileOp::WriteSync { file, offset, buf },
                    _ => FileOp::Write { file, offset, buf },
                };
                cx.submit(block, op);
            }
        }
        Event::File(done) => {
            assert!(done.result.is_ok(), "{:?}", done.result);
            assert!(left.remove(&done.ticket).is_some(), "each ends once");
            if left.is_empty() {
                stop_all(cx);
            }
        }
        Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    stage.play(vec![Role::new(script)]);
    let view = stage.disk().view(&path).unwrap();
    assert_eq!(view.len(), BLOCKS * 4096);
    for block in 1..=BLOCKS {
        let bytes = view.bytes((block - 1) * 4096, 4096);
        assert!(bytes.iter().all(|&byte| byte == block as u8));
    }
}

fn errors_name_their_cause_and_give_the_buffer_back(stage: &mut Stage) {
    let dir = stage.dir();
    stage.disk().replace(&dir.join("there"), b"content").unwrap();
    let results: Shared<Vec<(u64, i32)>> = Shared::new(Vec::new());
    let told = results.clone();
    let at = |name: &str| -> PathBuf { dir.join(Path::new(name)) };
    let (there, missing, far) = (at("there"), at("missing"), at("no/where"));
    let mut reader = None;
    let script = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Start => {
            let open = |path: &PathBuf, mode| FileOp::Open { path: path.clone(), mode };
            cx.submit(1, open(&missing, OpenMode::Read));
            cx.submit(2, open(&there, OpenMode::CreateNew));
            cx.submit(3, open(&far, OpenMode::CreateNew));
            cx.submit(4, FileOp::Remove { path: missing.clone() });
            cx.submit(5, FileOp::Rename { from: missing.clone(), to: there.clone() });
            cx.submit(6, FileOp::SyncDir { path: missing.clone() });
            cx.submit(7, open(&there, OpenMode::Read));
        }
        Event::File(done) if done.ticket == 7 => {
            let file = opened(&done);
            reader = Some(file);
            cx.submit(8, FileOp::Write { file, offset: 0, buf: buf(b"x") });
        }
        Event::File(done) => {
            let error = done.result.expect_err("it cannot succeed");
            told.lock().push((done.ticket, error.raw_os_error().unwrap_or(0)));
            if done.ticket == 8 {
                assert!(done.buf.is_some(), "a write gives its buffer back");
                cx.submit(9, FileOp::Map { file: reader.expect("it is open"), len: 8 });
            }
            if told.lock().len() == 8 {
                stop_all(cx);
            }
        }
        Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    stage.play(vec![Role::new(script)]);
    let mut results = results.lock().clone();
    results.sort_unstable();
    let expected = [
        (1, libc::ENOENT),
        (2, libc::EEXIST),
        (3, libc::ENOENT),
        (4, libc::ENOENT),
        (5, libc::ENOENT),
        (6, libc::ENOENT),
        (8, libc::EBADF),
        // A map past the end is refused before the kernel is asked.
        (9, 0),
    ];
    assert_eq!(results, expected);
}
