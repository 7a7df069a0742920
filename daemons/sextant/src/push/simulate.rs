//! `sextant push simulate`: devices that are none, to see a campaign before there is an app. They
//! are registered, log in with tokens of their own, get what is sent to them over MQTT, and some of
//! them show it and click it, as people would.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sextant_push_client::Sender;
use sextant_push_client::Uuid;
use sextant_push_client::device::{Device, Handler, Message, Options, Outgoing};
use sextant_push_client::types::DeviceEntry;

use crate::cli::SimulateArgs;
use crate::error::Error;
use crate::place::Place;
use crate::terminal::{note, say};

const TOKEN_TTL: Duration = Duration::from_secs(86_400);
/// How often the counts are told.
const EVERY: Duration = Duration::from_secs(1);

const PLATFORMS: [&str; 4] = ["android", "android", "ios", "harmony"];
const VERSIONS: [&str; 4] = ["1.8.0", "2.0.0", "2.1.0", "2.1.0"];
const CITIES: [(&str, &str, &str); 5] = [
    ("sz", "Asia/Shanghai", "zh-CN"),
    ("bj", "Asia/Shanghai", "zh-CN"),
    ("berlin", "Europe/Berlin", "de-DE"),
    ("delhi", "Asia/Kolkata", "hi-IN"),
    ("lima", "America/Lima", "es-PE"),
];

/// What all devices did.
#[derive(Debug, Default)]
struct Counts {
    got: AtomicU64,
    shown: AtomicU64,
    clicked: AtomicU64,
    recalled: AtomicU64,
}

/// One of them: what it does depends on its number and the message alone.
struct Person {
    number: u64,
    counts: Arc<Counts>,
}

impl Person {
    /// One of a hundred, for a message.
    fn die(&self, id: Uuid) -> u64 {
        let (upper, lower) = id.as_u64_pair();
        let mixed = (upper ^ lower ^ self.number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed >> 32) % 100
    }
}

impl Handler for Person {
    fn message(&mut self, message: Message, outgoing: &Outgoing) {
        self.counts.got.fetch_add(1, Ordering::Relaxed);
        let die = self.die(message.id);
        // What finds no room is not told: a phone is as forgetful.
        if die < 70 && outgoing.shown(message.id).is_ok() {
            self.counts.shown.fetch_add(1, Ordering::Relaxed);
        }
        if die < 18 && outgoing.clicked(message.id).is_ok() {
            self.counts.clicked.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn recall(&mut self, _id: Uuid, _outgoing: &Outgoing) {
        self.counts.recalled.fetch_add(1, Ordering::Relaxed);
    }
}

fn entry(number: usize) -> DeviceEntry {
    let (city, time_zone, language) = CITIES[number % CITIES.len()];
    let attributes: BTreeMap<String, Value> =
        [("city".to_owned(), json!(city)), ("age".to_owned(), json!(18 + number * 7 % 50))].into();
    let tags = [("vip", 10), ("beta", 17)];
    let tags = tags.iter().filter(|(_, every)| number.is_multiple_of(*every));
    DeviceEntry {
        platform: PLATFORMS[number % PLATFORMS.len()].to_owned(),
        app_version: Some(VERSIONS[number / 3 % VERSIONS.len()].to_owned()),
        alias: Some(format!("user-{}", number / 2)),
        tags: tags.map(|(tag, _)| (*tag).to_owned()).collect(),
        attributes,
        time_zone: Some(time_zone.to_owned()),
        language: Some(language.to_owned()),
        test: number < 2,
    }
}

pub(super) fn run(place: &Place, args: &SimulateArgs) -> Result<(), Error> {
    let push = place.push()?;
    let failed = |error: sextant_push_client::Error| Error::Outcome(error.to_string());
    let _: Value = push
        .client
        .put(&format!("/v1/apps/{}", args.app), &json!({}))
        .map_err(|source| push.failed(source))?;
    let sender = Sender::new(&push.url, &args.app, push.token.expose()).map_err(failed)?;
    let address = place.push_mqtt();
    let id = |number: usize| format!("sim-{number:04}");
    let all = (0..args.devices).map(|number| (id(number), entry(number)));
    let imported = sender.import_devices(all).map_err(failed)?;
    note(format_args!(
        "{} devices of app {} are registered, {} of them new",
        args.devices, args.app, imported.registered
    ));
    let counts = Arc::new(Counts::default());
    let mut devices = Vec::with_capacity(args.devices);
    for number in 0..args.devices {
        let token = sender.token(&id(number), TOKEN_TTL).map_err(failed)?;
        let person = Person { number: number as u64, counts: Arc::clone(&counts) };
        let options = Options::new(&address, &id(number), &token.token);
        let device = Device::start(options, person)
            .map_err(|error| Error::Outcome(format!("device {}: {error}", id(number))))?;
        devices.push(device);
    }
    say(format_args!(
        "{} devices take what is sent to app {}; Ctrl-C ends them",
        devices.len(),
        args.app
    ));
    let begin = Instant::now();
    let mut told = String::new();
    while args.seconds.is_none_or(|seconds| begin.elapsed() < Duration::from_secs(seconds)) {
        std::thread::sleep(EVERY);
        let connected = devices.iter().filter(|device| device.outgoing().is_connected()).count();
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let line = format!(
            "connected {connected}  got {}  shown {}  clicked {}  recalls {}",
            of(&counts.got),
            of(&counts.shown),
            of(&counts.clicked),
            of(&counts.recalled)
        );
        if line != told {
            say(&line);
            told = line;
        }
    }
    Ok(())
}
