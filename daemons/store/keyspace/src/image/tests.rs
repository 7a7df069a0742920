use crate::effect::Journal;
use crate::image::{ImageError, Mark};
use crate::keyspace::Keyspace;
use crate::replay_tests::{DATABASES, dump, played};

const MARK: Mark = *b"0123456789abcdef";

fn image_of(keys: &mut Keyspace) -> Vec<u8> {
    while keys.shed(1000) {}
    let mut image = Vec::new();
    keys.write_image(&MARK, &mut image).expect("memory takes it");
    image
}

fn read(image: &[u8]) -> Result<Keyspace, ImageError> {
    let mut keys = Keyspace::new(99, DATABASES, Journal::off());
    let mut from = image;
    assert_eq!(Keyspace::read_image_mark(&mut from)?, MARK);
    keys.read_image(from)?;
    Ok(keys)
}

#[test]
fn an_image_holds_what_the_databases_held() {
    for seed in 0..60 {
        let mut keys = played(seed, 600);
        let image = image_of(&mut keys);
        let mut other = read(&image).expect("it was just written");
        other.set_now(keys.now());
        assert_eq!(dump(&mut other), dump(&mut keys), "seed {seed}");
        // It goes on as any other.
        for number in 0..2000u32 {
            let key = number.to_le_bytes();
            other.set(0, &key, b"value", None).expect("there is memory");
            assert!(other.find(0, &key).is_some());
        }
        other.flush_all();
        while other.shed(1000) {}
        assert_eq!(other.pool.heap.used_bytes(), 0, "seed {seed}: nothing was lost on the way");
    }
}

#[test]
fn a_damaged_image_is_refused() {
    let mut keys = played(3, 400);
    let image = image_of(&mut keys);
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..300 {
        let mut damaged = image.clone();
        let at = random.usize(28..damaged.len());
        damaged[at] ^= 1 << random.u8(0..8);
        assert!(read(&damaged).is_err(), "byte {at}");
        assert!(read(&image[..random.usize(28..image.len())]).is_err());
    }
}
