//! Who comes and who goes: told to subscribers, and to a webhook.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sextant_mqtt::{Connect, Packet, QoS, ReasonCode, Version};
use sextant_tests::{Asked, Daemon, HttpServer, Mqtt, Options, Reply, Sub, free_addr, until};
use sha2::Sha256;

const SECRET: &str = "what the receiver knows, too";

/// Event, client and why.
fn told(event: &Value) -> (String, String, String) {
    let word = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
    (word("event"), word("client"), word("why"))
}

fn expected(event: &str, client: &str, why: &str) -> (String, String, String) {
    (event.to_owned(), client.to_owned(), why.to_owned())
}

#[track_caller]
fn next(watch: &mut Sub) -> Value {
    let message = watch.message();
    let event: Value = serde_json::from_str(&message.payload).unwrap();
    let client = event["client"].as_str().unwrap().replace('/', "%2F");
    assert_eq!(message.topic, format!("$presence/{client}"));
    event
}

#[test]
fn mosquitto_sub_sees_clients_come_and_go_in_order_on_every_core() {
    let daemon = Daemon::start_with(Options::config("cores = 2"));
    let mut watches = ["w1", "w2", "w3"].map(|id| {
        let args = ["-i", id, "-t", "$presence/lamp%2F1", "-t", "$presence/door"];
        Sub::start(daemon.mqtt(), &args)
    });
    let mut everything = Sub::start(daemon.mqtt(), &["-i", "all", "-t", "#"]);
    let mut connect = Connect::new(Version::V5, "lamp/1");
    connect.keep_alive_s = 33;
    connect.properties.session_expiry_s = Some(600);
    let (mut first, _) = Mqtt::connect(daemon.mqtt(), &connect);
    connect.clean_start = false;
    let (second, _) = Mqtt::connect(daemon.mqtt(), &connect);
    assert!(matches!(first.receive().packet(), Packet::Disconnect(_)), "it was taken over");
    drop(second);
    until("it is seen to be gone", || {
        let lamp = daemon.api().get("/v1/clients/lamp%2F1").json;
        (lamp["connected"] == false).then_some(())
    });
    Mqtt::clean(daemon.mqtt(), "door").disconnect();
    for watch in &mut watches {
        let online = next(watch);
        assert_eq!(told(&online), expected("online", "lamp/1", ""));
        let named = |key: &str| online[key].clone();
        assert_eq!((named("user"), named("version")), (json!("anonymous"), json!("5")));
        assert_eq!((named("keep_alive_s"), named("session_expiry_s")), (json!(33), json!(600)));
        assert_eq!(named("session_present"), json!(false));
        let over = next(watch);
        assert_eq!(told(&over), expected("offline", "lamp/1", "server"));
        assert_eq!(over["reason_code"], ReasonCode::SessionTakenOver as u8);
        let again = next(watch);
        assert_eq!(told(&again), expected("online", "lamp/1", ""));
        assert_eq!(again["session_present"], true);
        let gone = next(watch);
        assert_eq!(told(&gone), expected("offline", "lamp/1", "peer_closed"));
        assert_eq!(gone["reason_code"], Value::Null);
        assert_eq!(told(&next(watch)), expected("online", "door", ""));
        let left = next(watch);
        assert_eq!(told(&left), expected("offline", "door", "disconnected"));
        assert_eq!(left["reason_code"], 0);
    }
    let mut plain = Mqtt::clean(daemon.mqtt(), "plain");
    plain.publish("a", b"the only one", QoS::AtMostOnce);
    assert_eq!(everything.message().payload, "the only one", "# has nothing of the broker's own");
    let refused = plain.publish("$presence/door", b"{}", QoS::AtLeastOnce);
    assert_eq!(refused, ReasonCode::NotAuthorized, "nobody else publishes there");
}

#[test]
fn who_may_watch_is_said_by_rules_and_nothing_is_told_where_it_is_off() {
    let users = "[[auth.users]]\nname = \"u\"\nallow = [\"subscribe #\"]\npassword = \
                 \"$argon2id$v=19$m=8,t=1,p=1$CQkJCQkJCQkJCQkJCQkJCQ$\
                 MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY\"\n";
    let daemon = Daemon::start_with(Options::config(&format!("auth.anonymous = true\n{users}")));
    let token = daemon.api().post("/v1/tokens", &json!({"device": "lamp", "ttl": "1h"})).json;
    let mut connect = Connect::new(Version::V5, "lamp");
    let password = token["token"].as_str().unwrap().to_owned();
    connect.user_name = Some("lamp");
    connect.password = Some(sextant_mqtt::Secret::new(password.as_bytes()));
    let (mut lamp, _) = Mqtt::connect(daemon.mqtt(), &connect);
    assert_eq!(lamp.subscribe("$presence/#", QoS::AtMostOnce), ReasonCode::NotAuthorized);

    let off = Daemon::start_with(Options::config("presence.topic = false"));
    let mut watch = Mqtt::clean(off.mqtt(), "watch");
    watch.subscribe("$presence/#", QoS::AtMostOnce);
    watch.subscribe("a", QoS::AtMostOnce);
    let mut other = Mqtt::clean(off.mqtt(), "other");
    other.publish("a", b"x", QoS::AtLeastOnce);
    assert_eq!(watch.message().topic, "a");
}

/// A receiver that checks signatures, and takes events while `takes`.
fn receiver(addr: SocketAddr, takes: &Arc<AtomicBool>) -> HttpServer {
    let takes = Arc::clone(takes);
    HttpServer::start(addr, move |asked| {
        let status = match (takes.load(Ordering::Acquire), is_signed(asked)) {
            (true, true) => 204,
            (_, false) => 401,
            (false, _) => 503,
        };
        Reply::Status(status, String::new())
    })
}

fn is_signed(asked: &Asked) -> bool {
    let Some((time, code)) = asked
        .header("sextant-signature")
        .and_then(|value| value.strip_prefix("t=")?.split_once(",v1="))
    else {
        return false;
    };
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(format!("{time}.").as_bytes());
    mac.update(&asked.body);
    let expected: String =
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    expected == code
}

fn posts_to(addr: SocketAddr) -> Options {
    Options::config(&format!(
        "cores = 2\n[presence.webhook]\nurl = \"http://{addr}/events\"\nsecret = \"{SECRET}\"\n\
         batch_delay = \"20ms\"\nretry_max = \"1s\"\ntimeout = \"1s\""
    ))
}

/// Events, until `count` have come.
#[track_caller]
fn events(server: &HttpServer, count: usize) -> Vec<Value> {
    let mut events = Vec::new();
    while events.len() < count {
        let asked = server.asked();
        assert!(asked.head[0].starts_with("POST /events ") && is_signed(&asked), "{asked:?}");
        events.extend(asked.json().as_array().unwrap().clone());
    }
    events
}

#[test]
fn a_webhook_is_told_in_signed_batches_and_to_the_end() {
    let addr = free_addr();
    let server = receiver(addr, &Arc::new(true.into()));
    let mut daemon = Daemon::start_with(posts_to(addr));
    Mqtt::clean(daemon.mqtt(), "door").disconnect();
    let first = events(&server, 2);
    assert_eq!(told(&first[0]), expected("online", "door", ""));
    assert_eq!(told(&first[1]), expected("offline", "door", "disconnected"));
    let _held: Vec<Mqtt> = (0..20).map(|n| Mqtt::clean(daemon.mqtt(), &format!("c{n}"))).collect();
    let more = events(&server, 20);
    daemon.stop();
    let last = events(&server, 20);
    assert!(last.iter().all(|event| event["event"] == "offline"), "{last:?}");
    let all = [first, more, last].concat();
    let seqs: Vec<u64> = all.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert!(seqs.iter().copied().eq(1..=42), "{seqs:?}");
    assert!(all.iter().all(|event| event["life"] == all[0]["life"]));
    daemon.start_again();
    drop(Mqtt::clean(daemon.mqtt(), "door"));
    let anew = events(&server, 1);
    assert_eq!(anew[0]["seq"], 1);
    assert_ne!(anew[0]["life"], all[0]["life"], "another life");
}

#[test]
fn a_receiver_that_was_away_gets_what_was_queued_in_order() {
    let addr = free_addr();
    let daemon = Daemon::start_with(posts_to(addr));
    for n in 0..5 {
        Mqtt::clean(daemon.mqtt(), &format!("c{n}")).disconnect();
    }
    let counted = |name: &str| {
        let metrics = daemon.api().get("/metrics").text;
        let name = format!("sextant_push_webhook_{name} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(name.as_str()));
        line.unwrap().parse::<u32>().unwrap()
    };
    until("nobody is there", || (counted("failures_total") >= 2).then_some(()));
    assert_eq!((counted("waiting"), counted("sent_total")), (10, 0));
    let takes = Arc::new(AtomicBool::new(false));
    let server = receiver(addr, &takes);
    assert!(is_signed(&server.asked()), "it is refused once more");
    takes.store(true, Ordering::Release);
    until("all is told", || (counted("sent_total") == 10).then_some(()));
    assert_eq!((counted("waiting"), counted("dropped_total")), (0, 0));
    let mut seqs = Vec::new();
    for asked in server.asked_so_far() {
        for event in asked.json().as_array().unwrap() {
            seqs.push(event["seq"].as_u64().unwrap());
        }
    }
    // What was refused came again.
    let mut once = seqs.clone();
    once.sort_unstable();
    once.dedup();
    assert!(once.iter().copied().eq(1..=10), "{seqs:?}");
}
