//! What keys cost: ignored tests that print it.

use std::time::Instant;

use crate::effect::Journal;
use crate::keyspace::Keyspace;

const VALUE: [u8; 64] = [b'v'; 64];

fn key(n: u64) -> [u8; 16] {
    let mut key = *b"key:000000000000";
    let digits = format!("{n:012}");
    key[4..].copy_from_slice(digits.as_bytes());
    key
}

fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * 4096
}

/// `cargo nextest run --release -p sextant-keyspace --run-ignored only measure_keys --no-capture`
#[test]
#[ignore = "a measurement"]
fn measure_keys() {
    for count in [1_000_000u64, 10_000_000] {
        let before = resident_bytes();
        let mut keys = Keyspace::new(1, 16, Journal::default());
        let mut effects = Vec::new();
        let began = Instant::now();
        for n in 0..count {
            keys.set(0, &key(n), &VALUE, None).expect("there is memory");
            if n % 2000 == 1999 {
                effects.push(keys.journal().bytes().to_vec());
                keys.journal().clear();
            }
        }
        let filled = began.elapsed();
        let log_bytes: usize = effects.iter().map(Vec::len).sum();
        let memory = (resident_bytes() - before - log_bytes as u64) / count;
        let counted = keys.memory_bytes() / count;
        let mut random = fastrand::Rng::with_seed(5);
        let began = Instant::now();
        for _ in 0..1_000_000 {
            let key = key(random.u64(0..count));
            assert!(keys.get(0, &key).expect("a string").is_some());
        }
        let got = began.elapsed();
        let began = Instant::now();
        for _ in 0..1_000_000 {
            keys.set(0, &key(random.u64(0..count)), &VALUE, None).expect("there is memory");
            keys.journal().clear();
        }
        let set = began.elapsed();
        let path = std::env::temp_dir().join(format!("sextant-image-{}", std::process::id()));
        let began = Instant::now();
        let file = std::fs::File::create(&path).expect("a file");
        keys.write_image(&[0; 16], file).expect("the disk takes it");
        let written = began.elapsed();
        drop(keys);
        let mut keys = Keyspace::new(2, 16, Journal::off());
        let began = Instant::now();
        let mut file = std::fs::File::open(&path).expect("it is there");
        Keyspace::read_image_mark(&mut file).expect("an image");
        keys.read_image(file).expect("an image");
        let read = began.elapsed();
        std::fs::remove_file(&path).expect("it is there");
        assert_eq!(keys.len(0), count);
        let mut keys = Keyspace::new(2, 16, Journal::off());
        let began = Instant::now();
        keys.begin_replay();
        effects.iter().for_each(|bytes| keys.apply(bytes).expect("they are effects"));
        keys.end_replay();
        let replayed = began.elapsed();
        println!(
            "image written {written:?}, read {read:?}; {count} keys: {memory} B resident a key ({counted} counted) for 80; fill {:?}, get {} ns, \
             set {} ns, replay of {} MB {replayed:?}",
            filled,
            got.as_nanos() / 1_000_000,
            set.as_nanos() / 1_000_000,
            log_bytes >> 20,
        );
    }
}
