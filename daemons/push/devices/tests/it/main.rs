//! What a registry costs, seen from outside.

mod typical;

use sextant_devices::{Limits, Registry};

#[test]
fn a_typical_device_takes_at_most_150_bytes() {
    const DEVICES: u32 = 200_000;
    let mut random = fastrand::Rng::with_seed(1);
    let mut registry = Registry::new(Limits::default()).unwrap();
    registry.add_app("shop").unwrap();
    let counted = allocation_counter::measure(|| {
        for number in 0..DEVICES {
            let device = typical::typical(number, &mut random);
            registry.register(&device, 1_700_000_000_000).unwrap();
        }
    });
    let each = counted.bytes_current / i64::from(DEVICES);
    println!("{each} bytes a device");
    assert!(each <= 150, "{each} bytes a device");
    let freed = allocation_counter::measure(|| {
        for number in 0..DEVICES {
            registry.remove(&typical::id(number), 0).unwrap();
        }
    });
    let left = counted.bytes_current + freed.bytes_current;
    assert!(left < counted.bytes_current / 4, "{left} bytes are left of no devices");
}
