//! Devices as an app has them: a UUID, an alias, three of 1,000 tags of which few are frequent, a
//! city and an age, a version, a language and a time zone.

use sextant_devices::{Device, Value};

/// A number below `max`, small ones far more often.
pub(crate) fn skewed(random: &mut fastrand::Rng, max: f64) -> u32 {
    max.powf(random.f64()) as u32 - 1
}

/// The id of a device.
pub(crate) fn id(number: u32) -> String {
    let mut random = fastrand::Rng::with_seed(u64::from(number));
    let (a, b) = (random.u64(..), random.u64(..));
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        a >> 32,
        a >> 16 & 0xFFFF,
        a & 0xFFF,
        b >> 48,
        b << 16 >> 16
    )
}

/// A device.
pub(crate) fn typical(number: u32, random: &mut fastrand::Rng) -> Device {
    let mut device = Device::new(&id(number), "shop", ["android", "ios", "web"][random.usize(..3)]);
    device.alias = Some(format!("u{:09}", random.u32(..1_000_000_000)));
    device.app_version = Some(format!("3.{}.{}", skewed(random, 10.0), skewed(random, 10.0)));
    while device.tags.len() < 3 {
        device.tags.insert(format!("t{}", skewed(random, 1000.0)));
    }
    let city = format!("c{}", skewed(random, 300.0));
    device.attributes.insert("city".to_owned(), Value::Text(city));
    device.attributes.insert("age".to_owned(), Value::Number(random.i32(10..80).into()));
    device.time_zone =
        Some(["Asia/Shanghai", "Asia/Tokyo", "UTC", "Europe/Paris"][random.usize(..4)].to_owned());
    device.language = Some(["zh-CN", "zh-TW", "en", "ja", "fr"][random.usize(..5)].to_owned());
    device
}
