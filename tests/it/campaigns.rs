//! kill -9 at random moments of a campaign: what was accepted reaches every device that it is for,
//! and nobody is counted twice. The devices are rumqttc, a client of somebody else's.
//!
//! `SEXTANT_SEED` names a seed; without it a new one is printed.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
use serde_json::{Value, json};
use sextant_tests::{Api, Daemon, binary, until_for};

const DEVICES: usize = 25;
const KILLS: usize = 8;
/// How long all of it may take to come to rest on a slow machine.
const REST: Duration = Duration::from_secs(90);

/// A small generator: what it gives depends on the seed alone.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        // xorshift64, Marsaglia 2003.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn seed() -> u64 {
    let given = std::env::var("SEXTANT_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |now| now.as_nanos() as u64 | 1)
    });
    println!("seed {seed}");
    seed
}

/// What a device got, by message: how often.
type Got = Arc<Mutex<BTreeMap<String, u32>>>;

/// A device that comes back whenever it is cut off.
struct Device {
    got: Got,
    ends: Arc<AtomicBool>,
    client: Client,
    thread: Option<JoinHandle<()>>,
}

impl Device {
    fn start(daemon: &Daemon, id: &str, token: &str) -> Device {
        let mut options =
            MqttOptions::new(id, daemon.mqtt().ip().to_string(), daemon.mqtt().port());
        options.set_credentials(id, token).set_keep_alive(Duration::from_secs(5));
        options.set_clean_session(false);
        let (client, mut connection) = Client::new(options, 64);
        let (got, ends) = (Got::default(), Arc::new(AtomicBool::new(false)));
        let (own_got, own_ends, own_client) = (Arc::clone(&got), Arc::clone(&ends), client.clone());
        let topic = format!("d/{id}/push");
        let thread = std::thread::spawn(move || {
            for event in connection.iter() {
                if own_ends.load(Ordering::Acquire) {
                    return;
                }
                match event {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => {
                        own_client.try_subscribe(&topic, QoS::AtLeastOnce).unwrap();
                    }
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let message: Value = serde_json::from_slice(&publish.payload).unwrap();
                        let id = message["id"].as_str().unwrap().to_owned();
                        let mut got = own_got.lock().unwrap_or_else(PoisonError::into_inner);
                        *got.entry(id).or_default() += 1;
                    }
                    Ok(_) => {}
                    Err(_) => std::thread::sleep(Duration::from_millis(30)),
                }
            }
        });
        Device { got, ends, client, thread: Some(thread) }
    }

    fn ids(&self) -> BTreeSet<String> {
        let got = self.got.lock().unwrap_or_else(PoisonError::into_inner);
        got.keys().cloned().collect()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        // It may have been cut off.
        let _ = self.client.try_disconnect();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A message that was accepted: for which devices.
struct Accepted {
    id: String,
    targets: BTreeSet<usize>,
}

/// Sends a message until it is accepted, whatever happens to the daemon meanwhile.
fn send(api: &Api, number: usize, random: &mut Random) -> Accepted {
    let targets: BTreeSet<usize> = match random.below(3) {
        0 => (0..DEVICES).collect(),
        1 => [random.below(DEVICES as u64) as usize].into(),
        _ => (0..5).map(|_| random.below(DEVICES as u64) as usize).collect(),
    };
    let target = match targets.len() {
        DEVICES => json!({"everyone": true}),
        _ => json!({"devices": targets.iter().map(|at| name(*at)).collect::<Vec<_>>()}),
    };
    let body = json!({
        "target": target, "class": "transactional", "data": {"number": number},
        "idempotency_key": format!("message-{number}"),
    });
    let body = body.to_string();
    let id = until_for(REST, "the message is accepted", || {
        let answer = api.ask("POST", "/v1/apps/shop/messages", Some(body.as_bytes())).ok()?;
        assert!(matches!(answer.status, 200 | 202 | 503), "{}: {}", answer.status, answer.text);
        answer.json["id"].as_str().map(str::to_owned)
    });
    Accepted { id, targets }
}

fn name(number: usize) -> String {
    format!("device-{number}")
}

#[test]
fn a_campaign_survives_kill_9_at_any_moment_and_counts_each_device_once() {
    let mut random = Random(seed());
    let mut daemon = Daemon::start();
    let api = daemon.api();
    api.ask("PUT", "/v1/apps/shop", None).unwrap();
    let devices: Vec<Device> = (0..DEVICES)
        .map(|number| {
            let path = format!("/v1/apps/shop/devices/{}", name(number));
            let put = api.ask("PUT", &path, Some(br#"{"platform":"linux"}"#)).unwrap();
            assert_eq!(put.status, 201);
            let token = api.post(&format!("{path}/tokens"), &json!({})).json;
            Device::start(&daemon, &name(number), token["token"].as_str().unwrap())
        })
        .collect();
    let ends = Arc::new(AtomicBool::new(false));
    let (sender_ends, sender_api) = (Arc::clone(&ends), daemon.api());
    let mut sender_random = Random(random.below(u64::MAX) | 1);
    let sender = std::thread::spawn(move || {
        let mut accepted = Vec::new();
        while !sender_ends.load(Ordering::Acquire) {
            accepted.push(send(&sender_api, accepted.len(), &mut sender_random));
        }
        accepted
    });
    for _ in 0..KILLS {
        std::thread::sleep(Duration::from_millis(50 + random.below(900)));
        daemon.kill();
        daemon.start_again();
    }
    ends.store(true, Ordering::Release);
    let accepted = sender.join().unwrap();
    println!("{} messages accepted through {KILLS} kills", accepted.len());
    comes_to_rest(&api, &devices, &accepted);
    // One more life tells the same.
    daemon.kill();
    daemon.start_again();
    comes_to_rest(&api, &devices, &accepted);
    is_verified(&daemon);
}

/// Everybody has got what was for them, and the funnels say so.
fn comes_to_rest(api: &Api, devices: &[Device], accepted: &[Accepted]) {
    let began = Instant::now();
    for Accepted { id, targets } in accepted {
        for target in targets {
            let left = REST.saturating_sub(began.elapsed());
            until_for(left, &format!("device {target} has message {id}"), || {
                devices[*target].ids().contains(id).then_some(())
            });
        }
        let path = format!("/v1/apps/shop/messages/{id}/funnel");
        let left = REST.saturating_sub(began.elapsed());
        let count = targets.len() as u64;
        until_for(left, &format!("message {id} is counted for {count}"), || {
            let funnel = api.get(&path).json;
            let of = |stage: &str| funnel[stage].as_u64().unwrap();
            assert!(of("delivered") <= count && of("sent") <= count, "{id}: {funnel}");
            assert_eq!(of("targeted"), count, "{id}");
            (of("delivered") == count).then_some(())
        });
    }
    let known: BTreeSet<&str> = accepted.iter().map(|accepted| accepted.id.as_str()).collect();
    assert_eq!(known.len(), accepted.len(), "a key named two messages");
    for device in devices {
        for id in device.ids() {
            assert!(known.contains(id.as_str()), "{id} was never accepted, and went out");
        }
    }
}

fn is_verified(daemon: &Daemon) {
    let output = Command::new(binary("sextant"))
        .args(["push", "audit", "verify", "--dir"])
        .arg(daemon.data().join("platform/audit"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
