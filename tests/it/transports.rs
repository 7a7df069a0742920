//! One port for all: MQTT, WebSocket, and both behind a proxy. By paho and curl, and by single
//! frames where no client does what is to be shown.

use std::io::{Read, Write};
use std::net::TcpStream;

use sextant_mqtt::{
    Connect, Packet, PacketId, QoS, Subscribe, SubscribeProperties, Subscription, Subscriptions,
    Version, Will, WillProperties,
};
use sextant_tests::{
    BINARY, DEADLINE, Daemon, Mqtt, Options, Script, Sub, Web, command, free_addr, publish,
};

const TWO_CORES: &str = "cores = 2\n";

/// The words of a proxy that speaks for 192.0.2.7, port 4660.
const PROXIED: [u8; 28] =
    *b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x0a\0\0\x01\x12\x34\x07\x5b";

fn subscribe(web: &mut Web, version: Version, filter: &str, qos: QoS) {
    let list = [Subscription::new(filter, qos)];
    let packet_id = PacketId::new(1).unwrap();
    let properties = SubscribeProperties::default();
    let subscriptions = Subscriptions::new(&list);
    let subscribe = Subscribe { packet_id, properties, subscriptions };
    web.send_packet(&Packet::Subscribe(subscribe), version);
    assert_eq!(web.packet()[0], 0x90, "SUBACK");
}

/// The payload of a QoS 0 PUBLISH.
fn payload(packet: &[u8], version: Version) -> Vec<u8> {
    let whole = sextant_mqtt::frame(packet, u32::MAX).unwrap().unwrap();
    match Packet::decode(&whole, version).unwrap() {
        Packet::Publish(publish) => publish.payload.to_vec(),
        other => panic!("{other:?} is no PUBLISH"),
    }
}

/// The answer to bytes that are sent alone, until the end.
fn answer(daemon: &Daemon, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect_timeout(&daemon.mqtt(), DEADLINE).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

// [MQTT-6.0.0-3], [MQTT-6.0.0-4]: paho insists on the subprotocol.
#[test]
fn paho_over_websocket_gets_what_mosquitto_and_paho_send() {
    let daemon = Daemon::start_with(Options::config(TWO_CORES));
    for (version, qos) in [("4", "2"), ("5", "1")] {
        let topic = format!("web/{version}");
        let args =
            ["--transport", "websockets", "--version", version, "--qos", qos, "--topic", &topic];
        let mut subscriber = Script::start("subscriber", daemon.mqtt(), &args);
        subscriber.lines.line_with("subscribed");
        publish(daemon.mqtt(), &["-q", qos, "-t", &topic, "-m", "from TCP"]);
        subscriber.lines.line_with("got from TCP");
        let mut tcp = Sub::start(daemon.mqtt(), &["-q", qos, "-t", &topic]);
        let args = [&args[..], &["--count", "200"]].concat();
        let mut publisher = Script::start("publisher", daemon.mqtt(), &args);
        publisher.lines.line_with("done");
        for n in 0..200 {
            let payload = tcp.message().payload;
            subscriber.lines.line_with(&format!("got {payload}"));
            assert!(payload.contains(&n.to_string()), "{payload} is not number {n}");
        }
    }
}

#[test]
fn curl_is_told_what_this_port_is() {
    let daemon = Daemon::start();
    for (path, more, status) in [
        ("/", &[][..], "426"),
        ("/mqtt", &["-H", "Upgrade: websocket", "-H", "Connection: Upgrade"], "426"),
        ("/other", &["-H", "Upgrade: websocket", "-H", "Connection: Upgrade"], "404"),
    ] {
        let url = format!("http://{}{path}", daemon.mqtt());
        let mut curl = command("curl");
        curl.args(["-sS", "--http1.1", "--noproxy", "*", "-w", "\n%{http_code}", "-m", "20", &url]);
        let output = curl.args(more).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let (text, code) = said.rsplit_once('\n').unwrap();
        assert_eq!((code, output.status.success()), (status, true), "{said}");
        assert!(text.contains("/mqtt with the subprotocol mqtt"), "{said}");
    }
}

#[test]
fn a_page_of_another_origin_is_refused_unless_it_is_listed() {
    let origin = "Origin: https://app.example\r\n";
    let listed = "[mqtt]\nwebsocket_origins = [\"https://app.example\"]\n";
    for (config, status) in [("", "403"), (listed, "101")] {
        let daemon = Daemon::start_with(Options::config(config));
        let request = Web::request(origin);
        // The frame after it closes a connection that is granted.
        let bytes = [request.as_bytes(), b"\x88\x80\0\0\0\0"].concat();
        let answer = answer(&daemon, &bytes);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    let daemon = Daemon::start_with(Options::config("[mqtt]\nwebsocket = false\n"));
    assert_eq!(answer(&daemon, Web::request("").as_bytes()), "", "it is not spoken");
}

#[test]
fn a_fan_out_reaches_every_version_and_transport_whole_and_in_order() {
    const MESSAGES: u32 = 3000;
    let daemon = Daemon::start_with(Options::config(TWO_CORES));
    let versions = [Version::V311, Version::V5];
    let mut webs = Vec::new();
    let mut plain = Vec::new();
    for n in 0..8 {
        let version = versions[n % 2];
        let mut web = Web::connect(daemon.mqtt(), &Connect::new(version, &format!("web {n}")));
        subscribe(&mut web, version, "fan/#", QoS::AtMostOnce);
        webs.push((web, version));
        let (mut mqtt, _) =
            Mqtt::connect(daemon.mqtt(), &Connect::new(version, &format!("plain {n}")));
        mqtt.subscribe("fan/#", QoS::AtMostOnce);
        plain.push(mqtt);
    }
    let mut publisher = Mqtt::clean(daemon.mqtt(), "publisher");
    let text = |n: u32| format!("{n} {}", "x".repeat((n * 37 % 2500) as usize));
    for n in 0..MESSAGES {
        let payload = text(n);
        publisher.publish("fan/out", payload.as_bytes(), QoS::AtMostOnce);
        // Now and then, so that nobody is behind by more than may wait.
        if n % 100 == 99 {
            for (web, version) in &mut webs {
                for n in n - 99..=n {
                    assert_eq!(payload_text(&web.packet(), *version), text(n));
                }
            }
            for mqtt in &mut plain {
                (n - 99..=n).for_each(|n| assert_eq!(mqtt.message().text(), text(n)));
            }
        }
    }
}

fn payload_text(packet: &[u8], version: Version) -> String {
    String::from_utf8(payload(packet, version)).unwrap()
}

// [MQTT-6.0.0-1]
#[test]
fn a_client_that_breaks_the_rules_of_frames_is_told_by_a_code() {
    let daemon = Daemon::start();
    let connect = Connect::new(Version::V311, "rules");
    let broken: [(&[u8], u16); 4] = [
        (b"\x81\x80\0\0\0\0", 1003),
        (b"\x82\x01x", 1002),
        (b"\xc2\x80\0\0\0\0", 1002),
        (b"\x80\x80\0\0\0\0", 1002),
    ];
    for (bytes, code) in broken {
        let mut web = Web::connect(daemon.mqtt(), &connect);
        web.send_bytes(bytes);
        assert_eq!(web.frame(), Some((0x88, code.to_be_bytes().to_vec())), "{bytes:02x?}");
        assert_eq!(web.frame(), None);
    }
    let mut web = Web::connect(daemon.mqtt(), &connect);
    web.send(0x89, b"are you there");
    assert_eq!(web.frame(), Some((0x8a, b"are you there".to_vec())));
    // What came before a close is answered, and then the close.
    web.send_packet(&Packet::PingReq, Version::V311);
    web.send(0x88, &1001u16.to_be_bytes());
    assert_eq!(web.frame(), Some((BINARY, vec![0xd0, 0])));
    assert_eq!(web.frame(), Some((0x88, 1001u16.to_be_bytes().to_vec())));
    assert_eq!(web.frame(), None);
}

#[test]
fn a_will_is_published_when_its_websocket_is_closed_without_a_word() {
    let daemon = Daemon::start();
    let mut watcher = Mqtt::clean(daemon.mqtt(), "watcher");
    watcher.subscribe("wills", QoS::AtLeastOnce);
    let will = Will {
        topic: "wills",
        payload: b"gone",
        qos: QoS::AtMostOnce,
        retain: false,
        properties: WillProperties::default(),
    };
    let connect = Connect { will: Some(will), ..Connect::new(Version::V5, "victim") };
    let mut web = Web::connect(daemon.mqtt(), &connect);
    web.send(0x88, b"");
    assert_eq!(watcher.message().text(), "gone");
    assert_eq!(web.frame(), Some((0x88, vec![])));
}

// [MQTT-6.0.0-2]: its CONNECT comes in frames of one byte.
#[test]
fn a_takeover_moves_between_transports() {
    let daemon = Daemon::start_with(Options::config(TWO_CORES));
    for _ in 0..20 {
        let connect = Connect::new(Version::V5, "taken");
        let mut web = Web::connect(daemon.mqtt(), &connect);
        let (mut plain, _) = Mqtt::connect(daemon.mqtt(), &connect);
        assert_eq!(web.packet(), [0xe0, 1, 0x8e], "session taken over");
        assert_eq!(web.frame(), Some((0x88, 1000u16.to_be_bytes().to_vec())));
        plain.ping();
    }
}

#[test]
fn behind_a_proxy_both_are_served_and_its_word_is_required() {
    let proxied = free_addr();
    let config = format!(
        "cores = 2\n[mqtt]\nproxy_listen = [\"{proxied}\"]\n[telemetry]\nlevel = \"debug\"\n"
    );
    let daemon = Daemon::start_with(Options::config(&config));
    for n in 0..8 {
        let id = format!("behind-{n}");
        let mut mqtt = Mqtt::open(proxied, Version::V5);
        mqtt.send_bytes(&PROXIED[..n]);
        mqtt.send_bytes(&PROXIED[n..]);
        mqtt.send(&Packet::Connect(Connect::new(Version::V5, &id)));
        assert!(matches!(mqtt.receive().packet(), Packet::ConnAck(_)));
        mqtt.ping();
        let told = daemon.api().get(&format!("/v1/clients/behind-{n}"));
        assert_eq!(told.json["peer"].as_str(), Some("192.0.2.7:4660"), "{told:?}");
        let mut web = Web::open_behind(proxied, &PROXIED);
        web.send_packet(&Packet::Connect(Connect::new(Version::V5, &id)), Version::V5);
        assert_eq!(web.packet()[0], 0x20);
    }
    assert!(daemon.log().contains("192.0.2.7:4660"), "the log names the client:\n{}", daemon.log());
    // Past the proxy, or with its word where there is none, nobody gets in.
    let mut past = Mqtt::open(proxied, Version::V5);
    past.send(&Packet::Connect(Connect::new(Version::V5, "past")));
    assert!(past.receive_to_end().is_empty());
    let mut liar = Mqtt::open(daemon.mqtt(), Version::V5);
    liar.send_bytes(&PROXIED);
    assert!(liar.receive_to_end().is_empty());
}

#[test]
fn a_request_that_is_never_whole_is_closed_in_time() {
    let daemon = Daemon::start_with(Options::config("[mqtt]\nconnect_timeout = \"300ms\"\n"));
    assert_eq!(answer(&daemon, b"GET /mqtt HTTP/1.1\r\nHost: "), "");
    let endless = format!("GET /{} HTTP/1.1\r\n", "x".repeat(8192));
    assert!(answer(&daemon, endless.as_bytes()).starts_with("HTTP/1.1 431 "));
    // Granted, and then silent.
    let said = answer(&daemon, Web::request("").as_bytes());
    assert!(said.starts_with("HTTP/1.1 101 "), "{said}");
}
