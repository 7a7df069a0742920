//! Clients that this project did not write, each on the same journey: it connects with a will and a
//! session, subscribes and publishes at each QoS, is lost without a word, and comes back to its
//! session and to what came meanwhile.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS as TheirQoS;
use rumqttc::v5::mqttbytes::v5::{LastWill, Packet as TheirPacket};
use rumqttc::v5::{Client, Connection, Event, MqttOptions};
use sextant_mqtt::QoS;
use sextant_tests::{Daemon, Lines, Mqtt, command};

const LIVE: [&str; 3] = ["got 0 live", "got 1 live", "got 2 live"];

/// Where `cargo xtask setup` puts what these clients need.
fn installed() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(3).unwrap().join("clients")
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name)
}

/// Has a client make its journey; the will is seen by somebody else.
fn journey(daemon: &Daemon, name: &str, tells_of_session: bool, client: Command) {
    let mut watcher = Mqtt::clean(daemon.mqtt(), &format!("watcher of {name}"));
    watcher.subscribe("will/#", QoS::AtLeastOnce);
    let mut lines = Lines::start(client);
    lines.line_with("connected");
    let live: BTreeSet<String> = (0..3).map(|_| lines.line_with("got ")).collect();
    assert!(live.iter().eq(LIVE), "{live:?}");
    lines.line_with("left");
    let will = watcher.message();
    assert_eq!((will.topic.as_str(), will.text().as_str()), (&*format!("will/{name}"), "gone"));
    let reason = watcher.publish(&format!("c/{name}/1"), b"meanwhile", QoS::AtLeastOnce);
    assert!(!reason.is_error(), "{reason:?}");
    let (well, said) = lines.end();
    assert!(well && said.contains("got 1 meanwhile") && said.contains("done"), "{said}");
    assert!(!tells_of_session || said.contains("session present"), "{said}");
}

#[test]
fn mqtt_js_makes_its_journey_over_tcp_and_websocket() {
    let daemon = Daemon::start();
    for (scheme, path) in [("mqtt", ""), ("ws", "/mqtt")] {
        for version in ["4", "5"] {
            let name = format!("js-{scheme}-{version}");
            let mut node = command("node");
            node.env("NODE_PATH", installed().join("node_modules")).arg(source("journey.js"));
            node.args([&format!("{scheme}://{}{path}", daemon.mqtt()), version, &name]);
            journey(&daemon, &name, true, node);
        }
    }
}

#[test]
fn paho_c_makes_its_journey() {
    let daemon = Daemon::start();
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("journey");
    let mut cc = command("cc");
    cc.args(["-Wall", "-Wextra", "-Werror", "-o"]).arg(&program).arg(source("journey.c"));
    let (compiled, said) = Lines::start({
        cc.arg("-lpaho-mqtt3c");
        cc
    })
    .end();
    assert!(compiled, "{said}");
    for version in ["4", "5"] {
        let name = format!("c-{version}");
        let mut paho = Command::new(&program);
        paho.args([&format!("tcp://{}", daemon.mqtt()), version, &name]);
        // In MQTT 5 it does not tell.
        journey(&daemon, &name, version == "4", paho);
    }
}

/// The payloads of the next messages.
fn payloads(connection: &mut Connection, count: usize) -> (Option<bool>, BTreeSet<String>) {
    let (mut present, mut got) = (None, BTreeSet::new());
    while got.len() < count {
        match connection.recv_timeout(Duration::from_secs(10)).unwrap().unwrap() {
            Event::Incoming(TheirPacket::ConnAck(connack)) => {
                present = Some(connack.session_present);
            }
            Event::Incoming(TheirPacket::Publish(publish)) => {
                let payload = String::from_utf8_lossy(&publish.payload).into_owned();
                got.insert(format!("got {} {payload}", publish.qos as u8));
            }
            _ => {}
        }
    }
    (present, got)
}

#[test]
fn rumqttc_makes_its_journey() {
    let daemon = Daemon::start();
    let name = "rumqttc";
    let mut watcher = Mqtt::clean(daemon.mqtt(), "watcher");
    watcher.subscribe("will/#", QoS::AtLeastOnce);
    let (host, port) = (daemon.mqtt().ip().to_string(), daemon.mqtt().port());
    let mut options = MqttOptions::new(name, host, port);
    options.set_clean_start(false).set_session_expiry_interval(Some(60));
    options.set_keep_alive(Duration::from_secs(30));
    let will = LastWill::new(format!("will/{name}"), "gone", TheirQoS::AtLeastOnce, false, None);
    options.set_last_will(will);
    let (client, mut connection) = Client::new(options.clone(), 16);
    for (number, qos) in
        [TheirQoS::AtMostOnce, TheirQoS::AtLeastOnce, TheirQoS::ExactlyOnce].into_iter().enumerate()
    {
        client.subscribe(format!("c/{name}/{number}"), qos).unwrap();
        client.publish(format!("c/{name}/{number}"), qos, false, "live").unwrap();
    }
    let (present, live) = payloads(&mut connection, 3);
    assert!(live.iter().eq(LIVE) && present == Some(false), "{live:?}, {present:?}");
    drop((connection, client));
    assert_eq!(watcher.message().topic, format!("will/{name}"));
    watcher.publish(&format!("c/{name}/1"), b"meanwhile", QoS::AtLeastOnce);
    let (_client, mut connection) = Client::new(options, 16);
    let (mut present, mut got) = payloads(&mut connection, 1);
    while !got.contains("got 1 meanwhile") {
        // What it had not acknowledged to the end comes again.
        let (again, more) = payloads(&mut connection, 1);
        present = present.or(again);
        got = more;
    }
    assert_eq!(present, Some(true));
}

/// Serves a page and its script, and passes on what the page says.
fn serve(listener: &TcpListener, files: &[(&str, &str, Vec<u8>)], said: &Sender<String>) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { return };
        let Some(path) = requested(&stream) else { continue };
        let path = path.split('?').next().unwrap_or_default();
        let file = files.iter().find(|(name, ..)| *name == path);
        let (kind, body) = match file {
            Some((_, kind, body)) => (*kind, &body[..]),
            None => ("text/plain", &b""[..]),
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        if let Some(line) = path.strip_prefix("/said/")
            && said.send(line.replace("%20", " ")).is_err()
        {
            return;
        }
    }
}

fn requested(stream: &TcpStream) -> Option<String> {
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let first = lines.next()?;
    // The whole head, or the answer is cut off by a reset.
    let _ = lines.find(String::is_empty);
    first.split(' ').nth(1).map(str::to_owned)
}

#[test]
fn a_page_in_chromium_speaks_mqtt_over_websocket() {
    let daemon = Daemon::start();
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let addr = listener.local_addr().unwrap();
    let script = installed().join("node_modules/mqtt/dist/mqtt.min.js");
    let files = [
        ("/page.html", "text/html", std::fs::read(source("page.html")).unwrap()),
        ("/mqtt.min.js", "text/javascript", std::fs::read(script).unwrap()),
    ];
    let (sender, said) = channel();
    std::thread::spawn(move || serve(&listener, &files, &sender));
    for version in ["4", "5"] {
        let profile = tempfile::tempdir().unwrap();
        let mut chromium = command("chromium");
        chromium.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"]);
        chromium.args(["--disable-background-networking", "--disable-component-update"]);
        chromium.args(["--disable-sync", "--disable-dev-shm-usage"]);
        chromium.arg(format!("--user-data-dir={}", profile.path().display()));
        chromium.arg(format!(
            "http://{addr}/page.html?ws://{}/mqtt%20{version}%20page-{version}",
            daemon.mqtt()
        ));
        let _browser = Lines::start(chromium);
        let mut lines = BTreeSet::new();
        while !lines.contains("done") {
            let line = said.recv_timeout(Duration::from_secs(60)).unwrap();
            assert!(!line.starts_with("failed"), "{line}");
            lines.insert(line);
        }
        assert!(lines.iter().eq(["connected", "done", LIVE[0], LIVE[1], LIVE[2]]), "{lines:?}");
    }
}
