//! The HTTP side: messages, receipts, tokens, errors, and who may do what.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sextant_mqtt::{Connect, ConnectProperties, Packet, QoS, ReasonCode, Secret, Version};
use sextant_tests::{Answer, DEADLINE, Daemon, Mqtt, Options, binary, publish, until};

/// Asserts that an answer is a problem by RFC 9457 with this status.
#[track_caller]
fn assert_problem(answer: &Answer, statuses: &[u16]) {
    assert!(statuses.contains(&answer.status), "{} {}", answer.status, answer.text);
    assert_eq!(answer.media_type, "application/problem+json", "{}", answer.text);
    assert_eq!(answer.json["status"], answer.status);
    assert!(answer.json["title"].as_str().is_some_and(|title| !title.is_empty()));
}

/// Milliseconds between two times of a receipt, by their text.
fn is_time(value: &Value) -> bool {
    // RFC 3339 with milliseconds, in UTC.
    let text = value.as_str().unwrap_or_default();
    text.len() == "2026-01-02T03:04:05.678Z".len() && text.ends_with('Z') && &text[19..20] == "."
}

/// A CONNECT of a device that logs in with a token.
fn device<'a>(version: Version, id: &'a str, token: &'a str) -> Connect<'a> {
    Connect {
        user_name: Some(id),
        password: Some(Secret::new(token.as_bytes())),
        ..Connect::new(version, id)
    }
}

/// Settings with a user "dashboard" whose password is "geheim", made as an operator would.
pub(crate) fn with_user() -> String {
    let mut command = Command::new(binary("sextant"));
    command.args(["push", "passwd", "dashboard"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"geheim\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let (before, _) = text.split_once("allow").unwrap();
    format!("{before}allow = [\"publish d/+/cmd\", \"subscribe d/+/#\"]\n")
}

#[test]
fn a_message_goes_from_accepted_to_acknowledged() {
    let daemon = Daemon::start();
    let api = daemon.api();
    let mut lamp = Mqtt::clean(daemon.mqtt(), "lamp");
    lamp.subscribe("d/lamp/#", QoS::AtLeastOnce);
    let answer = api.post("/v1/messages", &json!({"device": "lamp", "payload": "on"}));
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert_eq!(answer.json["topic"], "d/lamp/push");
    assert!(is_time(&answer.json["accepted_at"]), "{}", answer.text);
    let id = answer.json["id"].as_str().unwrap();
    let message = lamp.message_unanswered();
    assert_eq!((message.topic.as_str(), message.text().as_str()), ("d/lamp/push", "on"));
    let receipt = api.receipt_in(id, "sent");
    assert_eq!((&receipt["recipients"], &receipt["sent"]), (&json!(1), &json!(1)));
    assert_eq!(receipt["acknowledged"], 0);
    assert!(
        is_time(&receipt["sent_at"]) && receipt.get("acknowledged_at").is_none_or(Value::is_null)
    );
    let packet_id = message.publish().delivery.packet_id().unwrap();
    lamp.send(&Packet::PubAck(sextant_mqtt::Ack::new(packet_id, ReasonCode::Success)));
    let receipt = api.receipt_in(id, "acknowledged");
    assert_eq!(receipt["device"], "lamp");
    assert_eq!((&receipt["qos"], &receipt["acknowledged"]), (&json!(1), &json!(1)));
    for time in ["accepted_at", "sent_at", "acknowledged_at", "expires_at"] {
        assert!(is_time(&receipt[time]), "{time}: {receipt}");
    }
    let order = ["accepted_at", "sent_at", "acknowledged_at"].map(|time| receipt[time].to_string());
    assert!(order.is_sorted(), "{order:?}");
}

#[test]
fn a_message_waits_for_a_device_that_was_never_there() {
    let mut daemon = Daemon::start();
    let ids: Vec<String> = (0..3)
        .map(|n| daemon.api().send(&json!({"device": "new", "payload": format!("m{n}")})))
        .collect();
    assert_eq!(daemon.api().receipt(&ids[0])["state"], "accepted");
    daemon.kill();
    daemon.start_again();
    let api = daemon.api();
    assert_eq!(api.receipt(&ids[0])["state"], "accepted", "the receipt survives");
    let mut new = Mqtt::clean(daemon.mqtt(), "new");
    new.subscribe("d/new/push", QoS::AtLeastOnce);
    for n in 0..3 {
        assert_eq!(new.message().text(), format!("m{n}"));
    }
    for id in &ids {
        api.receipt_in(id, "acknowledged");
    }
}

#[test]
fn a_qos_2_message_is_acknowledged_when_the_exchange_is_complete() {
    let daemon = Daemon::start();
    let mut lamp = Mqtt::clean(daemon.mqtt(), "lamp");
    lamp.subscribe("d/lamp/#", QoS::ExactlyOnce);
    let id = daemon.api().send(&json!({"device": "lamp", "payload": "x", "qos": 2}));
    let message = lamp.message();
    assert_eq!(message.publish().delivery.qos(), QoS::ExactlyOnce);
    assert_eq!(daemon.api().receipt_in(&id, "acknowledged")["qos"], 2);
}

#[test]
fn a_topic_reaches_all_of_its_subscribers() {
    let daemon = Daemon::start();
    let mut subscribers: Vec<Mqtt> = (0..3)
        .map(|n| {
            let mut mqtt = Mqtt::clean(daemon.mqtt(), &format!("s{n}"));
            mqtt.subscribe("news/#", QoS::AtLeastOnce);
            mqtt
        })
        .collect();
    let id = daemon.api().send(&json!({"topic": "news/today", "payload": "x"}));
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.message().topic, "news/today");
    }
    let receipt = daemon.api().receipt_in(&id, "acknowledged");
    assert_eq!((&receipt["recipients"], &receipt["acknowledged"]), (&json!(3), &json!(3)));
}

#[test]
fn bytes_are_sent_as_base64() {
    let daemon = Daemon::start();
    let mut lamp = Mqtt::clean(daemon.mqtt(), "lamp");
    lamp.subscribe("d/lamp/#", QoS::AtLeastOnce);
    daemon.api().send(&json!({"device": "lamp", "payload_base64": "AP8Q"}));
    assert_eq!(lamp.message().payload, [0, 255, 16]);
}

#[test]
fn a_message_that_nobody_took_expires() {
    let daemon = Daemon::start();
    let api = daemon.api();
    for ttl in [json!("1s"), json!(1)] {
        let id = api.send(&json!({"device": "never", "payload": "x", "ttl": ttl}));
        let receipt = api.receipt_in(&id, "expired");
        assert!(is_time(&receipt["expired_at"]), "{receipt}");
    }
    let mut never = Mqtt::clean(daemon.mqtt(), "never");
    never.subscribe("d/never/#", QoS::AtLeastOnce);
    api.send(&json!({"device": "never", "payload": "fresh"}));
    assert_eq!(never.message().text(), "fresh");
}

#[test]
fn a_retained_push_is_there_for_those_who_come_later() {
    let daemon = Daemon::start();
    daemon.api().send(&json!({"topic": "weather", "payload": "rain", "retain": true}));
    let mut late = Mqtt::clean(daemon.mqtt(), "late");
    late.subscribe("weather", QoS::AtLeastOnce);
    let message = late.message();
    assert_eq!((message.text().as_str(), message.publish().retain), ("rain", true));
}

#[test]
fn nothing_is_told_without_the_right_token() {
    let daemon = Daemon::start();
    let wrong = "x".repeat(43);
    for token in [None, Some(wrong.as_str()), Some("short")] {
        let api = daemon.api().with_token(token);
        for path in ["/v1/status", "/metrics", "/v1/messages/1", "/nowhere"] {
            assert_problem(&api.get(path), &[401]);
        }
        let message = json!({"device": "lamp", "payload": "x"});
        assert_problem(&api.post("/v1/messages", &message), &[401]);
        assert_problem(&api.post("/v1/tokens", &json!({"device": "lamp"})), &[401]);
        for path in ["/healthz", "/readyz"] {
            assert_eq!(api.get(path).status, 200);
        }
    }
}

#[test]
fn a_request_that_is_wrong_is_refused_by_the_name_of_what_is_wrong() {
    let daemon = Daemon::start();
    let api = daemon.api();
    assert_problem(&api.post_bytes("/v1/messages", b"{\"device\": "), &[400]);
    assert_problem(&api.post_bytes("/v1/messages", b"\xFF"), &[400]);
    let cases = [
        (json!({"device": "a", "payload": "x", "qos": 3}), "qos"),
        (json!({"device": "a", "payload": "x", "qos": "one"}), "qos"),
        (json!({"device": "a", "payload": "x", "ttl": "soon"}), "ttl"),
        (json!({"device": "a", "payload": "x", "retian": true}), "retian"),
        (json!({"device": "a", "topic": "b", "payload": "x"}), "topic"),
        (json!({"payload": "x"}), "device"),
        (json!({"device": "a"}), "payload"),
        (json!({"device": "a", "payload": "x", "payload_base64": "eA=="}), "payload"),
        (json!({"device": "a", "payload_base64": "%%%"}), "payload_base64"),
        (json!({"device": "a/b", "payload": "x"}), "device"),
        (json!({"device": "", "payload": "x"}), "device"),
        (json!({"topic": "a/#", "payload": "x"}), "topic"),
        (json!({"topic": "", "payload": "x"}), "topic"),
    ];
    for (body, field) in cases {
        let answer = api.post("/v1/messages", &body);
        assert_problem(&answer, &[400, 422]);
        let detail = answer.json["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(field), "{body} does not name {field}: {detail}");
    }
    assert_problem(&api.post("/v1/tokens", &json!({"device": "a/b"})), &[400, 422]);
    assert_problem(&api.post("/v1/tokens", &json!({"device": "a", "ttl": "never"})), &[400, 422]);
}

#[test]
fn a_body_that_is_too_large_is_refused() {
    let daemon = Daemon::start();
    // By its length alone: nothing of it is sent.
    let token = std::fs::read_to_string(daemon.data().join("admin.token")).unwrap();
    let mut stream = TcpStream::connect(daemon.admin()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nHost: push\r\nContent-Type: application/json\r\n\
         Authorization: Bearer {}\r\nContent-Length: {}\r\n\r\n",
        token.trim(),
        4 << 20
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    // It fits a request, but no packet that a device may get.
    let large = json!({"device": "a", "payload": "x".repeat((1 << 20) + 1)});
    assert_problem(&daemon.api().post("/v1/messages", &large), &[413]);
}

#[test]
fn what_is_not_there_is_not_found() {
    let daemon = Daemon::start();
    let api = daemon.api();
    assert_problem(&api.get("/v1/messages/00000000-0000-7000-8000-000000000000"), &[404]);
    assert_problem(&api.get("/v1/messages/nonsense"), &[400, 404]);
    assert_problem(&api.get("/v2"), &[404]);
    assert_problem(&api.get("/v1/tokens"), &[404, 405]);
}

#[test]
fn the_status_counts_what_is_there() {
    let daemon = Daemon::start();
    let mut lamp = Mqtt::clean(daemon.mqtt(), "lamp");
    lamp.subscribe("d/lamp/#", QoS::AtLeastOnce);
    publish(daemon.mqtt(), &["-q", "1", "-r", "-t", "d/lamp/x", "-m", "x"]);
    lamp.message();
    let status = until("publisher and message are counted", || {
        let status = daemon.api().status();
        let quiet = status["connections"] == 1 && status["messages_out"] == 1;
        quiet.then_some(status)
    });
    assert_eq!(status["sessions"], 1);
    assert_eq!(status["subscriptions"], 1);
    assert_eq!(status["retained"], 1);
    assert_eq!(status["messages_in"], 1);
    assert_eq!(status["log"]["durability"], "always");
    assert!(status["log"]["bytes"].as_u64().unwrap() > 0);
    for field in ["version", "uptime_s", "cores"] {
        assert!(!status[field].is_null(), "{field}");
    }
}

#[test]
fn a_device_logs_in_with_its_token_and_keeps_to_its_own_topics() {
    let daemon = Daemon::start_with(Options::config(&with_user()));
    let token = daemon.api().device_token("lamp");
    for version in [Version::V311, Version::V5] {
        let (mut lamp, _) = Mqtt::connect(daemon.mqtt(), &device(version, "lamp", &token));
        let refused = match version {
            Version::V311 => ReasonCode::UnspecifiedError,
            Version::V5 => ReasonCode::NotAuthorized,
        };
        assert_eq!(lamp.subscribe("d/lamp/#", QoS::AtLeastOnce), ReasonCode::GrantedQos1);
        for foreign in ["d/door/#", "#", "d/+/push", "+/lamp/#", "other"] {
            assert_eq!(lamp.subscribe(foreign, QoS::AtLeastOnce), refused, "{foreign}");
        }
        lamp.publish("d/lamp/state", b"mine", QoS::AtLeastOnce);
        assert_eq!(lamp.message().text(), "mine");
        if version == Version::V5 {
            let reason = lamp.publish("d/door/state", b"foreign", QoS::AtLeastOnce);
            assert_eq!(reason, ReasonCode::NotAuthorized);
            // Nothing of a QoS 0 publish is said; it is dropped.
            lamp.publish("d/door/state", b"foreign", QoS::AtMostOnce);
            lamp.ping();
        }
    }
    assert!(daemon.api().metric("sextant_push_publishes_refused_total", "not_authorized") >= 2.0);
}

#[test]
fn a_token_is_good_for_its_device_alone() {
    let daemon = Daemon::start_with(Options::config(&with_user()));
    let token = daemon.api().device_token("lamp");
    let other_user = Connect { user_name: Some("door"), ..device(Version::V5, "lamp", &token) };
    let other_id = Connect { client_id: "door", ..device(Version::V5, "lamp", &token) };
    let other_both = device(Version::V5, "door", &token);
    let no_name = Connect::new(Version::V5, "lamp");
    for connect in [other_user, other_id, other_both, no_name] {
        let (_, answer) = Mqtt::try_connect(daemon.mqtt(), &connect);
        let Packet::ConnAck(connack) = answer.packet() else { panic!("{answer:?}") };
        assert!(connack.reason.is_error(), "{connect:?} was let in");
    }
    assert!(daemon.api().metric("sextant_push_connects_refused_total", "") >= 4.0);
}

#[test]
fn a_token_ends_with_its_time() {
    let daemon = Daemon::start_with(Options::config(&with_user()));
    let answer = daemon.api().post("/v1/tokens", &json!({"device": "lamp", "ttl": "1s"}));
    let token = answer.json["token"].as_str().unwrap().to_owned();
    assert!(is_time(&answer.json["expires_at"]) || answer.json["expires_at"].is_string());
    until("the token is refused", || {
        let (_, answer) = Mqtt::try_connect(daemon.mqtt(), &device(Version::V5, "lamp", &token));
        let Packet::ConnAck(connack) = answer.packet() else { panic!("{answer:?}") };
        connack.reason.is_error().then_some(())
    });
}

#[test]
fn a_wrong_password_is_refused_in_the_protocols_own_words() {
    let daemon = Daemon::start_with(Options::config(&with_user()));
    let login = |version, password| Connect {
        user_name: Some("dashboard"),
        password: Some(Secret::new(password)),
        ..Connect::new(version, "screen 1")
    };
    for (version, reasons) in [
        (Version::V5, [ReasonCode::BadUserNameOrPassword, ReasonCode::NotAuthorized]),
        (Version::V311, [ReasonCode::BadUserNameOrPassword, ReasonCode::NotAuthorized]),
    ] {
        let (mut refused, answer) = Mqtt::try_connect(daemon.mqtt(), &login(version, b"wrong"));
        let Packet::ConnAck(connack) = answer.packet() else { panic!("{answer:?}") };
        assert!(reasons.contains(&connack.reason), "{:?}", connack.reason);
        assert!(refused.receive_or_end().is_none(), "the connection is closed");
    }
    let (mut screen, _) = Mqtt::connect(daemon.mqtt(), &login(Version::V5, b"geheim"));
    assert_eq!(screen.subscribe("d/+/#", QoS::AtLeastOnce), ReasonCode::GrantedQos1);
    assert_eq!(screen.subscribe("#", QoS::AtLeastOnce), ReasonCode::NotAuthorized);
    assert!(!screen.publish("d/lamp/cmd", b"on", QoS::AtLeastOnce).is_error());
    assert!(screen.publish("d/lamp/state", b"x", QoS::AtLeastOnce).is_error());
    let log = daemon.log();
    assert!(!log.contains("geheim") && !log.contains("$argon2"), "no secret in the log");
}

#[test]
fn a_device_with_a_session_gets_its_messages_in_order_after_kill_9() {
    let mut daemon = Daemon::start();
    let session_expiry_s = Some(3600);
    let connect = Connect {
        clean_start: false,
        properties: ConnectProperties { session_expiry_s, ..ConnectProperties::default() },
        ..Connect::new(Version::V5, "lamp")
    };
    let (mut lamp, _) = Mqtt::connect(daemon.mqtt(), &connect);
    lamp.subscribe("d/lamp/#", QoS::AtLeastOnce);
    lamp.disconnect();
    let ids: Vec<String> = (0..50)
        .map(|n| daemon.api().send(&json!({"device": "lamp", "payload": n.to_string()})))
        .collect();
    daemon.kill();
    daemon.start_again();
    let (mut lamp, _) = Mqtt::connect(daemon.mqtt(), &connect);
    for n in 0..50 {
        assert_eq!(lamp.message().text(), n.to_string());
    }
    for id in &ids {
        daemon.api().receipt_in(id, "acknowledged");
    }
}

#[test]
fn a_push_is_durable_within_a_moment() {
    let daemon = Daemon::start();
    let api = daemon.api();
    let began = Instant::now();
    for _ in 0..100 {
        api.send(&json!({"device": "d", "payload": "x"}));
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "a hundred pushes took {took:?}");
}
