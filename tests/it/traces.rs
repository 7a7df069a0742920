//! Traces of real clients, as `sextant push trace` shows them.

use std::process::Command;

use serde_json::{Value, json};
use sextant_tests::{Daemon, Lines, Options, Sub, binary, publish, until};

/// A trace that has begun.
#[track_caller]
fn trace(daemon: &Daemon, args: &[&str]) -> Lines {
    let mut command = Command::new(binary("sextant"));
    command.env_remove("SEXTANT_TOKEN").env("SEXTANT_DATA", daemon.dir());
    command.env("SEXTANT_URL", format!("http://{}", daemon.admin()));
    command.args(["push", "trace"]).args(args);
    Lines::start(command)
}

#[track_caller]
fn event(lines: &mut Lines) -> Value {
    lines.find("an event", |line| serde_json::from_str(line).ok())
}

/// What an event says, without its time.
#[track_caller]
fn packet(lines: &mut Lines) -> (String, Value) {
    let mut event = event(lines);
    let way = event["event"].as_str().unwrap().to_owned();
    assert!(event["at"].as_str().unwrap().ends_with('Z'), "{event}");
    let fields = event.as_object_mut().unwrap();
    fields.remove("at");
    fields.remove("event");
    (way, event)
}

#[test]
fn a_mosquitto_pub_at_qos_2_is_traced_packet_by_packet() {
    let daemon = Daemon::start_with(Options::config("cores = 2"));
    let mut lines = trace(&daemon, &["pub", "--json", "--payload"]);
    assert_eq!(event(&mut lines)["event"], "began");
    let args = ["-V", "5", "-i", "pub", "-q", "2", "-t", "t/a", "-m", "hello", "-k", "33"];
    publish(daemon.mqtt(), &args);
    let (way, connect) = packet(&mut lines);
    assert_eq!((way.as_str(), &connect["packet"]), ("in", &json!("CONNECT")));
    assert!(connect["detail"].as_str().unwrap().starts_with("MQTT 5, keep-alive 33 s"));
    let (way, connack) = packet(&mut lines);
    assert_eq!((way.as_str(), &connack["packet"]), ("out", &json!("CONNACK")));
    assert_eq!(connack["reasons"], json!([0]));
    let published = json!({
        "packet": "PUBLISH", "bytes": 15, "topic": "t/a", "qos": 2, "id": 1, "payload_bytes": 5,
        "payload_base64": "aGVsbG8=",
    });
    assert_eq!(packet(&mut lines), ("in".to_owned(), published));
    for (way, name) in [("out", "PUBREC"), ("in", "PUBREL"), ("out", "PUBCOMP")] {
        let expected = json!({ "packet": name, "bytes": 4, "id": 1, "reasons": [0] });
        assert_eq!(packet(&mut lines), (way.to_owned(), expected), "{name}");
    }
    let expected = json!({ "packet": "DISCONNECT", "bytes": 2, "reasons": [0] });
    assert_eq!(packet(&mut lines), ("in".to_owned(), expected));
    assert_eq!(packet(&mut lines), ("closed".to_owned(), json!({ "why": "disconnected" })));
}

#[test]
fn every_message_of_a_fan_out_is_traced_and_a_line_is_readable() {
    let daemon = Daemon::start_with(Options::config("cores = 2"));
    let subscribed = ["-i", "lamp", "-t", "d/#"];
    let _lamp = Sub::start(daemon.mqtt(), &subscribed);
    let _door = Sub::start(daemon.mqtt(), &["-i", "door", "-t", "d/#"]);
    let mut lines = trace(&daemon, &["lamp", "--payload"]);
    lines.line_with("it is connected");
    publish(daemon.mqtt(), &["-t", "d/x", "-m", "on", "--repeat", "200"]);
    for n in 0..200 {
        let line = lines.line_with("PUBLISH");
        let (at, told) = line.split_once("  ").unwrap();
        assert_eq!(told, "← PUBLISH     topic=d/x qos=0 9 B  on", "{n}");
        assert_eq!(at.len(), "12:01:02.345".len());
    }
    assert_eq!(daemon.api().ask("DELETE", "/v1/clients/lamp", None).unwrap().status, 204);
    lines.line_with("closed: kicked");
}

#[test]
fn there_are_so_many_traces_and_one_ends_when_its_reader_leaves() {
    let daemon = Daemon::start_with(Options::config("[limits]\ntraces_max = 1"));
    let mut first = trace(&daemon, &["lamp"]);
    first.line_with("it is not connected");
    let (done, said) = trace(&daemon, &["door"]).end();
    assert!(!done && said.contains("limits.traces_max"), "{said}");
    first.kill();
    until("its place is free", || {
        let mut next = trace(&daemon, &["door", "--for", "50ms"]);
        let (done, _) = next.end();
        done.then_some(())
    });
    assert_eq!(daemon.api().get("/v1/clients/a/trace?for=25h").status, 400);
    let untold = daemon.api().with_token(None);
    assert_eq!(untold.ask("GET", "/v1/clients/a/trace", None).unwrap().status, 401);
}
