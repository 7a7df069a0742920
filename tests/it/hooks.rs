//! Webhooks of apps: what became of messages is told to a receiver, signed, until it takes it; and
//! what it does not take is a dead letter.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sextant_mqtt::QoS;
use sextant_tests::{Api, Asked, Daemon, HttpServer, Mqtt, Options, Reply, free_addr, until};
use sha2::Sha256;

const SECRET: &str = "sixteen bytes or more";

fn receiver(addr: SocketAddr, takes: &Arc<AtomicBool>) -> HttpServer {
    let takes = Arc::clone(takes);
    HttpServer::start(addr, move |_| {
        Reply::Status(if takes.load(Ordering::Acquire) { 204 } else { 503 }, String::new())
    })
}

fn is_signed(asked: &Asked) -> bool {
    let value = asked.header("sextant-signature");
    let parts = value.and_then(|value| value.strip_prefix("t=")?.split_once(",v1="));
    let Some((time, code)) = parts else { return false };
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(format!("{time}.").as_bytes());
    mac.update(&asked.body);
    let bytes = mac.finalize().into_bytes();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() == code
}

/// Events, until one is so.
#[track_caller]
fn events_until(server: &HttpServer, is_last: impl Fn(&Value) -> bool) -> Vec<Value> {
    let mut events: Vec<Value> = Vec::new();
    while !events.last().is_some_and(&is_last) {
        let asked = server.asked();
        assert!(asked.head[0].starts_with("POST /hook ") && is_signed(&asked), "{asked:?}");
        let body = asked.json();
        assert_eq!(body["app"], "shop");
        events.extend(body["events"].as_array().unwrap().clone());
    }
    events
}

fn set_up(daemon: &Daemon, addr: SocketAddr) -> Api {
    let api = daemon.api();
    let ask = |method: &str, path: &str, body: Value| {
        let answer = api.ask(method, path, Some(body.to_string().as_bytes())).unwrap();
        assert!(answer.status < 300, "{method} {path}: {} {}", answer.status, answer.text);
    };
    ask("PUT", "/v1/apps/shop", json!({}));
    for device in ["here", "away"] {
        ask("PUT", &format!("/v1/apps/shop/devices/{device}"), json!({"platform": "linux"}));
    }
    let events = ["message.finished", "receipt.delivered", "receipt.shown", "receipt.dropped"];
    let url = format!("http://{addr}/hook");
    let hook = json!({"url": url, "events": events, "secret": SECRET});
    ask("PUT", "/v1/apps/shop/webhook", hook);
    until("its devices are counted", || {
        (api.metric("sextant_push_platform_devices", "") == 2.0).then_some(())
    });
    api
}

fn send(api: &Api, ttl: &str) -> String {
    let request = json!({
        "target": {"everyone": true}, "class": "transactional", "data": {}, "ttl": ttl,
    });
    let answer = api.post("/v1/apps/shop/messages", &request);
    assert_eq!(answer.status, 202, "{}", answer.text);
    answer.json["id"].as_str().unwrap().to_owned()
}

fn be_there(daemon: &Daemon) -> Mqtt {
    let mut device = Mqtt::clean(daemon.mqtt(), "here");
    device.subscribe("d/here/push", QoS::AtLeastOnce);
    device
}

#[test]
fn a_receiver_is_told_what_became_of_a_message_also_after_a_crash() {
    let addr = free_addr();
    let takes = Arc::new(AtomicBool::new(false));
    let server = receiver(addr, &takes);
    let mut daemon = Daemon::start();
    let api = set_up(&daemon, addr);
    let mut device = be_there(&daemon);
    let id = send(&api, "2s");
    device.message();
    let shown = json!({"receipts": [{"id": id, "event": "shown"}]}).to_string();
    device.publish("d/here/receipts", shown.as_bytes(), QoS::AtLeastOnce);
    until("the receiver is asked", || server.asked_so_far().into_iter().next());
    daemon.kill();
    daemon.start_again();
    takes.store(true, Ordering::Release);
    server.asked_so_far();
    let events = events_until(&server, |event| event["event"] == "message.finished");
    let told: Vec<(&str, Option<&str>)> = events
        .iter()
        .map(|event| (event["event"].as_str().unwrap(), event["device"].as_str()))
        .collect();
    for expected in [
        ("receipt.delivered", Some("here")),
        ("receipt.shown", Some("here")),
        ("receipt.dropped", Some("away")),
    ] {
        assert!(told.contains(&expected), "{expected:?} is not among {told:?}");
    }
    assert!(events.iter().all(|event| event["message"] == id.as_str()));
}

#[test]
fn what_a_receiver_does_not_take_is_a_dead_letter_that_can_be_told_again() {
    let addr = free_addr();
    let takes = Arc::new(AtomicBool::new(false));
    let server = receiver(addr, &takes);
    let daemon = Daemon::start_with(Options::config("[platform]\nwebhook_attempts = 2"));
    let api = set_up(&daemon, addr);
    let mut device = be_there(&daemon);
    let id = send(&api, "1d");
    device.message();
    let path = "/v1/apps/shop/webhook/dead-letters";
    let letter = until("there is a dead letter", || {
        let letters = api.get(path).json;
        Some(letters["dead_letters"].as_array()?.first()?.clone())
    });
    assert_eq!(letter["attempts"], 2);
    assert_eq!(letter["error"], "the answer has the status 503");
    let own = format!("{path}/{}", letter["id"].as_str().unwrap());
    let content = api.get(&own).json;
    assert_eq!(content["events"][0]["event"], "receipt.delivered");
    assert_eq!(content["events"][0]["message"], id.as_str());
    let again = api.ask("POST", &format!("{own}/retry"), None).unwrap();
    assert_eq!(again.status, 502, "{}", again.text);
    takes.store(true, Ordering::Release);
    server.asked_so_far();
    let again = api.ask("POST", &format!("{own}/retry"), None).unwrap();
    assert_eq!(again.status, 204, "{}", again.text);
    let events = events_until(&server, |event| event["event"] == "receipt.delivered");
    assert_eq!(events[0], content["events"][0]);
    assert_eq!(api.get(path).json["dead_letters"], json!([]));
    assert_eq!(api.get(&own).status, 404);
}
