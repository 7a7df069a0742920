//! How fast clients may come and publish, with real ones.

use std::time::{Duration, Instant};

use serde_json::json;
use sextant_mqtt::{Connect, Packet, ReasonCode, Version};
use sextant_tests::{Daemon, Lines, Mqtt, Options, Sub, command, until};

#[test]
fn a_storm_of_mosquitto_subs_is_let_in_at_its_rate() {
    let daemon =
        Daemon::start_with(Options::config("cores = 2\n[limits]\nconnects_per_second = 10"));
    // What a second brings is there.
    until("the daemon is a second old", || {
        (daemon.api().get("/v1/status").json["uptime_s"].as_u64()? >= 2).then_some(())
    });
    let begun = Instant::now();
    let mut subs: Vec<Sub> = (0..40)
        .map(|n| {
            let name = format!("sub-{n}");
            let args = ["-V", "5", "-i", &name, "-t", "t/#"];
            Sub::start_unacknowledged(daemon.mqtt(), &args)
        })
        .collect();
    for sub in &mut subs {
        sub.lines().line_with("Subscribed (mid:");
    }
    let took = begun.elapsed();
    // Ten at once, and thirty at ten a second; homes are not spread evenly among so few.
    assert!(took > Duration::from_millis(2500), "{took:?}");
    let status = daemon.api().get("/v1/status").json;
    assert_eq!((&status["connections"], &status["connects"]["waiting"]), (&json!(40), &json!(0)));
    let delayed = status["connects"]["delayed"].as_u64().unwrap();
    assert!((10..=30).contains(&delayed), "{delayed}");
    let counted = daemon.api().metric("sextant_push_connects_delayed_total", "");
    assert_eq!(counted, delayed as f64);
}

#[test]
fn a_connect_that_would_wait_too_long_is_told_when_to_come() {
    let config = "cores = 1\n[limits]\nconnects_per_second = 1\nconnect_wait_max = \"100ms\"";
    let daemon = Daemon::start_with(Options::config(config));
    let _first = Mqtt::clean(daemon.mqtt(), "first");
    let (_, answer) = Mqtt::try_connect(daemon.mqtt(), &Connect::new(Version::V5, "second"));
    let Packet::ConnAck(connack) = answer.packet() else { panic!("{answer:?}") };
    assert_eq!(connack.reason, ReasonCode::ConnectionRateExceeded);
    let why = connack.properties.reason_string.unwrap_or_default();
    assert_eq!(why, "too many connect at once: come back in 1 s");
    let (_, answer) = Mqtt::try_connect(daemon.mqtt(), &Connect::new(Version::V311, "third"));
    let Packet::ConnAck(connack) = answer.packet() else { panic!("{answer:?}") };
    assert_eq!(connack.reason, ReasonCode::ServerUnavailable);
    assert_eq!(daemon.api().metric("sextant_push_connects_refused_total", "rate"), 2.0);
    let (done, said) = sextant_tests::try_publish(
        daemon.mqtt(),
        &["-V", "5", "-i", "fourth", "-t", "t", "-m", "x"],
    );
    assert!(!done && said.contains("rate exceeded"), "{said}");
}

/// A `mosquitto_pub` that says more than anybody reads.
fn flood(daemon: &Daemon) -> Lines {
    let broker = daemon.mqtt();
    let mut command = command("mosquitto_pub");
    command.args(["-h", &broker.ip().to_string(), "-p", &broker.port().to_string()]);
    command.args(["-i", "flood", "-t", "t/a", "-m", "x", "--repeat", "1000000"]);
    Lines::start(command)
}

#[test]
fn a_mosquitto_pub_that_floods_is_read_from_at_its_rate() {
    let config = "cores = 2\n[limits]\nclient_messages_per_second = 500";
    let daemon = Daemon::start_with(Options::config(config));
    let mut flood = flood(&daemon);
    let read = || daemon.api().get("/v1/status").json["messages_in"].as_u64().unwrap();
    until("what comes at once has come", || (read() >= 1000).then_some(()));
    let (begun, before) = (Instant::now(), read());
    let mut other = Mqtt::clean(daemon.mqtt(), "other");
    until("three seconds have passed", || {
        // Nobody else notices.
        other.ping();
        (begun.elapsed() >= Duration::from_secs(3)).then_some(())
    });
    let (came, took) = ((read() - before) as f64, begun.elapsed().as_secs_f64());
    let rate = came / took;
    assert!((400.0..=600.0).contains(&rate), "{rate} messages/s");
    until("it is seen to be throttled", || {
        (daemon.api().get("/v1/status").json["throttled"] == 1).then_some(())
    });
    assert!(daemon.api().metric("sextant_push_throttled_seconds_count", "") >= 1.0);
    flood.kill();
}

#[test]
fn who_floods_and_what_is_found_at_the_top() {
    let config = "cores = 2\n[limits]\nclient_messages_per_second = 500";
    let daemon = Daemon::start_with(Options::config(config));
    let _lamp = Sub::start(daemon.mqtt(), &["-i", "lamp", "-t", "t/#"]);
    let _door = Mqtt::clean(daemon.mqtt(), "door");
    let mut flood = flood(&daemon);
    let read = || daemon.api().get("/v1/status").json["messages_in"].as_u64().unwrap();
    until("what comes at once has come", || (read() >= 1000).then_some(()));
    let top = daemon.api().get("/v1/top?for=3s&limit=5");
    assert_eq!(top.status, 200, "{}", top.text);
    let names = |kind: &str, name: &str| -> Vec<String> {
        let all = top.json[kind].as_array().unwrap();
        all.iter().map(|one| one[name].as_str().unwrap().to_owned()).collect()
    };
    for kind in ["clients_by_messages", "clients_by_bytes"] {
        let mut clients = names(kind, "client");
        clients.sort();
        assert_eq!(clients, ["flood", "lamp"], "{}", top.text);
    }
    assert_eq!(names("topics", "topic"), ["t/a"]);
    for one in top.json["clients_by_messages"].as_array().unwrap() {
        let way = if one["client"] == "flood" { "in" } else { "out" };
        let rate = one[way].as_f64().unwrap();
        assert!((400.0..=600.0).contains(&rate), "{one}");
        assert_eq!(one["per_second"], one[way], "{one}");
    }
    flood.kill();
    assert_eq!(daemon.api().get("/v1/top?for=1h").status, 400);
    assert_eq!(daemon.api().get("/v1/top?limit=513").status, 400);
    assert_eq!(daemon.api().with_token(None).ask("GET", "/v1/top", None).unwrap().status, 401);
}
