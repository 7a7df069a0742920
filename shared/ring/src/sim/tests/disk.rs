//! The simulated disk.

use super::*;

fn after_crash(world: &World, path: &str) -> Option<Vec<u8>> {
    let view = world.disk().view(Path::new(path)).ok()?;
    Some(view.bytes(0, view.len() as usize).to_vec())
}

#[test]
fn what_is_written_is_read_through_file_map_and_view() {
    let world = World::new(1);
    let mut rig = Rig::new(&world);
    let disk = world.disk();
    disk.create_dir_all(Path::new("data/log")).unwrap();
    assert_eq!(errno(rig.open("data/none/a", OpenMode::CreateNew)), libc::ENOENT);
    assert_eq!(errno(rig.open("data/log/a", OpenMode::Write)), libc::ENOENT);
    let file = rig.open("./data/log/a", OpenMode::CreateNew).unwrap();
    assert_eq!(errno(rig.open("data/log/a", OpenMode::CreateNew)), libc::EEXIST);
    rig.write(file, 0, &pattern(3000)).unwrap();
    rig.write(file, 5000, b"end").unwrap();
    let read = rig.read(file, 2990).unwrap();
    assert_eq!(read.len(), 5003 - 2990);
    assert_eq!((&read[..10], &read[10..20]), (&pattern(3000)[2990..], &[0; 10][..]));
    let (map, _) = rig.file(FileOp::Map { file, len: 5003 });
    let FileOutput::Mapped(view) = map.unwrap() else { panic!() };
    assert_eq!(view.bytes(5000, 100), Bytes::from_static(b"end"));
    assert!(rig.file(FileOp::Map { file, len: 5004 }).0.is_err());
    rig.write(file, 5000, b"END").unwrap();
    assert_eq!(view.bytes(5000, 100), Bytes::from_static(b"END"));
    let reader = rig.open("data/log/a", OpenMode::Read).unwrap();
    assert_eq!(errno(rig.write(reader, 0, b"x")), libc::EBADF);
    let names = disk.list(Path::new("data/log")).unwrap();
    assert_eq!((names.len(), names[0].name.as_str(), names[0].len), (1, "a", 5003));
    assert!(disk.list(Path::new("data")).unwrap().is_empty());
    let (from, to) = (PathBuf::from("data/log/a"), PathBuf::from("data/b"));
    rig.file(FileOp::Rename { from, to }).0.unwrap();
    rig.file(FileOp::Close { file }).0.unwrap();
    assert_eq!(after_crash(&world, "data/b").unwrap().len(), 5003);
    rig.file(FileOp::Remove { path: "data/b".into() }).0.unwrap();
    assert!(disk.list(Path::new("data")).unwrap().is_empty());
}

/// Writes at random, sync at random, crashes, and compares with all that may be found.
#[test]
fn a_crash_keeps_what_was_synced_and_any_version_of_every_other_sector() {
    let mut seen_old = false;
    let mut seen_new = false;
    for seed in seeds(300) {
        let world = World::new(seed);
        let mut rng = world.random();
        let mut rig = Rig::new(&world);
        let file = rig.open("log", OpenMode::CreateNew).unwrap();
        rig.write(file, 0, &[0; 8 * 512]).unwrap();
        rig.file(FileOp::Sync { file }).0.unwrap();
        rig.file(FileOp::SyncDir { path: "".into() }).0.unwrap();
        assert!(world.is_durable());
        let mut cache = [0u8; 8];
        let mut possible: Vec<Vec<u8>> = vec![vec![0]; 8];
        for version in 1..=rng.u8(1..12) {
            if rng.u8(..4) == 0 {
                rig.file(FileOp::Sync { file }).0.unwrap();
                possible = cache.iter().map(|&byte| vec![byte]).collect();
            } else {
                let first = rng.usize(..8);
                let last = rng.usize(first..8);
                rig.write(file, first as u64 * 512, &vec![version; (last - first + 1) * 512])
                    .unwrap();
                for sector in first..=last {
                    cache[sector] = version;
                    possible[sector].push(version);
                }
            }
        }
        world.crash_disk();
        let found = after_crash(&world, "log").expect("its entry was synced");
        assert_eq!(found.len(), 8 * 512);
        for (sector, bytes) in found.chunks(512).enumerate() {
            assert!(bytes.iter().all(|byte| *byte == bytes[0]), "sectors are never torn");
            let at = possible[sector].iter().rposition(|&version| version == bytes[0]);
            let at = at.unwrap_or_else(|| panic!("sector {sector}: {} (seed {seed})", bytes[0]));
            seen_old |= at == 0 && possible[sector].len() > 1;
            seen_new |= at + 1 == possible[sector].len() && at > 0;
        }
    }
    if std::env::var_os("SEXTANT_SEED").is_none() {
        assert!(seen_old && seen_new, "both kinds of luck happen");
    }
}

#[test]
fn a_sync_covers_what_was_complete_when_it_was_asked_for() {
    let mut lost = 0;
    for seed in seeds(100) {
        let world = World::new(seed);
        let mut rig = Rig::new(&world);
        let file = rig.open("log", OpenMode::CreateNew).unwrap();
        rig.file(FileOp::SyncDir { path: "".into() }).0.unwrap();
        rig.write(file, 0, &[1; 512]).unwrap();
        // The second write is under way when the sync is asked for.
        let buf = IoBuf::zeroed(512);
        let write = rig.start(Op::File(FileOp::Write { file, offset: 512, buf }));
        rig.file(FileOp::Sync { file }).0.unwrap();
        rig.next(write);
        world.crash_disk();
        let found = after_crash(&world, "log").expect("its entry was synced");
        assert!(found.starts_with(&[1; 512]), "seed {seed}");
        lost += u32::from(found.len() == 512);
    }
    if std::env::var_os("SEXTANT_SEED").is_none() {
        assert!(lost > 10, "the second write was not covered ({lost})");
    }
}

#[test]
fn a_write_with_a_sync_is_durable_when_it_is_done() {
    for seed in seeds(50) {
        let world = World::new(seed);
        let mut rig = Rig::new(&world);
        let file = rig.open("log", OpenMode::CreateNew).unwrap();
        rig.file(FileOp::SyncDir { path: ".".into() }).0.unwrap();
        let mut buf = IoBuf::with_capacity(4096);
        buf.push(&pattern(4000));
        let (result, buf) = rig.file(FileOp::WriteSync { file, offset: 0, buf });
        result.unwrap();
        assert_eq!(buf.unwrap().len(), 4000);
        world.crash_disk();
        assert!(after_crash(&world, "log").unwrap() == pattern(4000), "seed {seed}");
    }
}

#[test]
fn changes_of_a_directory_are_kept_once_it_is_synced_and_at_random_before() {
    let mut found_sets: BTreeMap<Vec<String>, u32> = BTreeMap::new();
    for seed in seeds(200) {
        let world = World::new(seed);
        let mut rig = Rig::new(&world);
        let dir = Path::new("dir");
        world.disk().create_dir_all(dir).unwrap();
        for name in ["a", "b", "c"] {
            rig.open(&format!("dir/{name}"), OpenMode::CreateNew).unwrap();
        }
        rig.file(FileOp::SyncDir { path: dir.into() }).0.unwrap();
        rig.file(FileOp::Remove { path: dir.join("a") }).0.unwrap();
        rig.file(FileOp::Rename { from: dir.join("b"), to: dir.join("d") }).0.unwrap();
        if seed % 2 == 0 {
            rig.file(FileOp::SyncDir { path: dir.into() }).0.unwrap();
        }
        world.crash_disk();
        let found: Vec<String> =
            world.disk().list(dir).unwrap().into_iter().map(|entry| entry.name).collect();
        if seed % 2 == 0 {
            assert_eq!(found, ["c", "d"], "seed {seed}");
        }
        assert!(found.contains(&"c".to_owned()));
        assert!(found.contains(&"b".to_owned()) != found.contains(&"d".to_owned()));
        *found_sets.entry(found).or_default() += 1;
    }
    if std::env::var_os("SEXTANT_SEED").is_none() {
        assert_eq!(found_sets.len(), 4, "every outcome happens: {found_sets:?}");
    }
}

#[test]
fn what_a_failed_sync_should_have_covered_is_never_durable() {
    let mut lost = 0;
    for seed in seeds(100) {
        let world = World::new(seed);
        let mut rig = Rig::new(&world);
        let file = rig.open("log", OpenMode::CreateNew).unwrap();
        rig.file(FileOp::SyncDir { path: "".into() }).0.unwrap();
        rig.write(file, 0, &[1; 512]).unwrap();
        world.fail_disk(Some(Access::Sync), 0, libc::EIO);
        assert_eq!(errno(rig.file(FileOp::Sync { file }).0), libc::EIO);
        rig.file(FileOp::Sync { file }).0.unwrap();
        assert_eq!(rig.read(file, 0).unwrap(), [1; 512], "the cache still shows it");
        assert!(!world.is_durable());
        world.crash_disk();
        lost += u32::from(after_crash(&world, "log").unwrap() != [1; 512]);
    }
    if std::env::var_os("SEXTANT_SEED").is_none() {
        assert!(lost > 10, "{lost}");
    }
}

#[test]
fn a_full_disk_takes_what_it_has_room_for() {
    let world = World::new(1);
    world.disk_limit(10_000);
    let mut rig = Rig::new(&world);
    let file = rig.open("log", OpenMode::CreateNew).unwrap();
    rig.write(file, 0, &[1; 8000]).unwrap();
    assert_eq!(errno(rig.write(file, 8000, &[2; 4000])), libc::ENOSPC);
    assert_eq!(rig.read(file, 4000).unwrap().len(), 6000);
    assert!(world.disk().replace(Path::new("small"), &[3; 10]).is_err());
    rig.write(file, 0, &[3; 8000]).unwrap();
    rig.file(FileOp::Remove { path: "log".into() }).0.unwrap();
    world.disk().replace(Path::new("small"), &[3; 10]).unwrap();
    world.crash_disk();
    assert_eq!(after_crash(&world, "small").unwrap(), [3; 10]);
}

#[test]
fn any_access_can_be_made_to_fail() {
    let world = World::new(1);
    world.fail_disk(None, 2, libc::EIO);
    let mut files = world.files();
    let mut results = Vec::new();
    for ticket in 0..4u64 {
        let path = PathBuf::from(format!("{ticket}"));
        files.submit(ticket, FileOp::Open { path, mode: OpenMode::CreateNew });
        let done = files.wait().unwrap();
        assert_eq!(done.ticket, ticket);
        results.push(done.result.is_ok());
    }
    assert_eq!(results, [true, true, false, true]);
    assert!(files.wait().is_none());
}

#[test]
fn a_core_from_before_a_crash_is_of_no_use() {
    let world = World::new(1);
    let mut rig = Rig::new(&world);
    let (_, peer) = rig.accepted(1);
    world.crash_disk();
    assert!(rig.driver.enter(None).is_err());
    world.run_for(&mut [], Duration::from_millis(10));
    assert!(peer.is_reset());
}
