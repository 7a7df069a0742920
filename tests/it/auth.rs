//! Who is let in: tokens that others sign, and whom an HTTP hook knows.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header, encode};
use rustix::process::Signal;
use serde_json::{Value, json};
use sextant_mqtt::{Connect, Packet, QoS, ReasonCode, Secret, Version};
use sextant_tests::{
    Daemon, HttpServer, Mqtt, Options, Reply, Sub, free_addr, publish, try_publish, until,
};

const SECRET: &str = "a secret of thirty-two bytes, or more";

fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

fn token(secret: &str, claims: &Value) -> String {
    encode(&Header::default(), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

/// For an hour.
fn token_for(sub: &str) -> String {
    token(SECRET, &json!({"sub": sub, "exp": now_s() + 3600.0}))
}

fn with_password<'a>(client_id: &'a str, user: &'a str, password: &'a str) -> Connect<'a> {
    let mut connect = Connect::new(Version::V5, client_id);
    connect.user_name = Some(user);
    connect.password = Some(Secret::new(password.as_bytes()));
    connect
}

/// The reason of the CONNACK.
#[track_caller]
fn connack(daemon: &Daemon, connect: &Connect<'_>) -> ReasonCode {
    match Mqtt::try_connect(daemon.mqtt(), connect).1.packet() {
        Packet::ConnAck(connack) => connack.reason,
        other => panic!("{other:?} is no CONNACK"),
    }
}

#[test]
fn mosquitto_is_let_in_by_a_signed_token_and_has_its_rules() {
    let config = format!("cores = 2\n[auth.jwt]\nsecret = \"{SECRET}\"\naudience = [\"push\"]");
    let daemon = Daemon::start_with(Options::config(&config));
    let claims = json!({"sub": "lamp", "aud": "push", "exp": now_s() + 3600.0,
        "allow": ["publish log/{client}", "subscribe d/+/up"]});
    let good = token(SECRET, &claims);
    let login = ["-V", "5", "-u", "any", "-P", &good, "-q", "1"];
    let mut sub = Sub::start(daemon.mqtt(), &[&login[..], &["-i", "s", "-t", "d/+/up"]].concat());
    publish(daemon.mqtt(), &[&login[..], &["-i", "p", "-t", "d/lamp/up", "-m", "on"]].concat());
    assert_eq!(sub.message().payload, "on");
    publish(daemon.mqtt(), &[&login[..], &["-i", "p", "-t", "log/p", "-m", "x"]].concat());
    let (_, words) =
        try_publish(daemon.mqtt(), &[&login[..], &["-i", "p", "-t", "log/q", "-m", "x"]].concat());
    assert!(words.contains("Not authorized"), "{words}");
    for wrong in [
        token("another secret of as many bytes as the other", &claims),
        token(SECRET, &json!({"sub": "lamp", "aud": "push", "exp": now_s() - 3600.0})),
        token_for("lamp"),
        good.replacen('.', "..", 1),
    ] {
        let args = ["-V", "5", "-u", "any", "-P", &wrong, "-i", "p", "-t", "d/lamp/up", "-m", "x"];
        let (done, words) = try_publish(daemon.mqtt(), &args);
        assert!(!done && words.contains("Bad User Name or Password"), "{words}");
    }
    let listed = daemon.api().get("/v1/clients/s").json;
    assert_eq!(listed["user"], "lamp", "{listed}");
    assert!(!daemon.log().contains(&good[..40]), "no token is logged");
}

#[test]
fn a_client_is_cut_off_when_its_token_ends() {
    let config = format!("[auth.jwt]\nsecret = \"{SECRET}\"\nleeway = \"0\"");
    let daemon = Daemon::start_with(Options::config(&config));
    let soon = token(SECRET, &json!({"sub": "lamp", "exp": now_s() + 1.5}));
    let (mut short, _) = Mqtt::connect(daemon.mqtt(), &with_password("c1", "", &soon));
    let later = token_for("lamp");
    let (mut long, _) = Mqtt::connect(daemon.mqtt(), &with_password("c2", "", &later));
    assert!(short.ping() < Duration::from_secs(1), "it is connected until then");
    match short.receive().packet() {
        Packet::Disconnect(disconnect) => {
            assert_eq!(disconnect.reason, ReasonCode::MaximumConnectTime);
        }
        other => panic!("{other:?}"),
    }
    assert!(short.receive_or_end().is_none());
    long.ping();
    let refused = connack(&daemon, &with_password("c1", "", &soon));
    assert_eq!(refused, ReasonCode::BadUserNameOrPassword);
    let metrics = daemon.api().get("/metrics").text;
    let counted = "sextant_push_connections_closed_total{reason=\"expired\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
}

#[test]
fn keys_are_read_again_on_sighup_and_stay_if_they_cannot_be() {
    let mut daemon = Daemon::prepare(Options::default());
    let file = daemon.dir().join("secret");
    let config = format!("[auth.jwt]\nsecret_file = \"{}\"", file.display());
    std::fs::write(daemon.dir().join("push.toml"), config).unwrap();
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    daemon.start_again();
    let old = token_for("lamp");
    let other = "the other secret, which has no fewer bytes";
    let new = token(other, &json!({"sub": "lamp", "exp": now_s() + 3600.0}));
    let is_in = |daemon: &Daemon, token: &str| {
        connack(daemon, &with_password("c", "u", token)) == ReasonCode::Success
    };
    assert!(is_in(&daemon, &old) && !is_in(&daemon, &new));

    std::fs::write(&file, "short").unwrap();
    daemon.signal(Signal::HUP);
    until("the file is found wanting", || daemon.log().contains("32 bytes").then_some(()));
    assert!(is_in(&daemon, &old) && !is_in(&daemon, &new));

    let (mut held, _) = Mqtt::connect(daemon.mqtt(), &with_password("held", "u", &old));
    std::fs::write(&file, other).unwrap();
    daemon.signal(Signal::HUP);
    until("the new key is in force", || is_in(&daemon, &new).then_some(()));
    assert!(!is_in(&daemon, &old));
    assert_eq!(held.publish("d/lamp/up", b"x", QoS::AtLeastOnce), ReasonCode::Success);
}

#[test]
fn a_key_that_cannot_be_read_keeps_the_daemon_from_starting() {
    let config = "[auth.jwt]\njwks_file = \"/nowhere/keys.json\"";
    let mut daemon = Daemon::prepare(Options::config(config));
    let command = daemon.command();
    daemon.adopt(command);
    assert!(!daemon.wait().success());
    assert!(daemon.log().contains("/nowhere/keys.json"), "{}", daemon.log());
}

/// Asked of each client, and answers by its user name.
fn hook(addr: SocketAddr) -> HttpServer {
    HttpServer::start(addr, |asked| {
        let json = asked.json();
        let answer = match json["username"].as_str() {
            Some("lamp") if json["password"] == "on" => json!({"result": "allow"}),
            Some("root") => json!({"result": "allow", "superuser": true}),
            Some("brief") => json!({"result": "allow", "expires_in": 0.5}),
            Some("log") => json!({"result": "allow", "allow": ["publish log/#"]}),
            Some("unknown") => json!({"result": "ignore"}),
            Some("slow") => return Reply::Silence,
            Some("garbage") => return Reply::Bytes(b"\x00\xffgarbage\r\n\r\n".to_vec()),
            Some("broken") => return Reply::Status(500, json!({"result": "allow"}).to_string()),
            _ => json!({"result": "deny", "reason": "not today"}),
        };
        Reply::Status(200, answer.to_string())
    })
}

fn asks(addr: SocketAddr, more: &str) -> Options {
    Options::config(&format!(
        "cores = 2\n[auth.http]\nurl = \"http://{addr}/auth\"\ntimeout = \"500ms\"\n\
         headers = {{ x-api-key = \"a key that both know\" }}\n{more}"
    ))
}

#[test]
fn a_hook_says_who_is_let_in_and_what_they_may_do() {
    let addr = free_addr();
    let hook = hook(addr);
    let daemon = Daemon::start_with(asks(addr, ""));
    let login = ["-V", "5", "-i", "c1", "-u", "lamp", "-P", "on", "-q", "1"];
    publish(daemon.mqtt(), &[&login[..], &["-t", "d/lamp/up", "-m", "x"]].concat());
    let asked = hook.asked();
    assert!(asked.head[0].starts_with("POST /auth "), "{asked:?}");
    assert_eq!(asked.header("x-api-key"), Some("a key that both know"));
    assert_eq!(asked.header("content-type"), Some("application/json"));
    let mut json = asked.json();
    let peer = json["peer"].take();
    assert!(peer.as_str().unwrap().starts_with("127."), "{peer}");
    assert_eq!(
        json,
        json!({"client_id": "c1", "username": "lamp", "password": "on", "protocol": "mqtt",
            "version": "5", "peer": null})
    );
    let (_, words) =
        try_publish(daemon.mqtt(), &[&login[..], &["-t", "d/other/up", "-m", "x"]].concat());
    assert!(words.contains("Not authorized"), "{words}");

    let (mut root, _) = Mqtt::connect(daemon.mqtt(), &with_password("c2", "root", "x"));
    assert_eq!(root.subscribe("#", QoS::AtMostOnce), ReasonCode::Success);
    let (mut log, _) = Mqtt::connect(daemon.mqtt(), &with_password("c3", "log", "x"));
    assert_eq!(log.publish("log/a", b"x", QoS::AtLeastOnce), ReasonCode::Success);
    assert_eq!(root.message().topic, "log/a");
    let refused =
        |user: &str, password: &str| connack(&daemon, &with_password("c", user, password));
    assert_eq!(refused("lamp", "off"), ReasonCode::BadUserNameOrPassword);
    assert_eq!(refused("unknown", "x"), ReasonCode::BadUserNameOrPassword);
    let nameless = Connect::new(Version::V311, "c");
    assert_eq!(
        connack(&daemon, &nameless),
        ReasonCode::BadUserNameOrPassword,
        "it is asked of, too"
    );

    let (mut brief, _) = Mqtt::connect(daemon.mqtt(), &with_password("c4", "brief", "x"));
    match brief.receive().packet() {
        Packet::Disconnect(disconnect) => {
            assert_eq!(disconnect.reason, ReasonCode::MaximumConnectTime);
        }
        other => panic!("{other:?}"),
    }
    assert!(!daemon.log().contains("a key that both know"), "{}", daemon.log());
}

#[test]
fn a_hook_that_fails_is_not_taken_for_a_word_against_the_client() {
    let addr = free_addr();
    let serving = hook(addr);
    let daemon = Daemon::start_with(asks(addr, ""));
    let reason = |daemon: &Daemon, user: &str| connack(daemon, &with_password("c", user, "on"));
    for user in ["slow", "garbage", "broken"] {
        assert_eq!(reason(&daemon, user), ReasonCode::ServerUnavailable, "{user}");
    }
    drop(serving);
    assert_eq!(reason(&daemon, "lamp"), ReasonCode::ServerUnavailable);
    let metrics = daemon.api().get("/metrics").text;
    assert!(metrics.contains("sextant_push_auth_http_failed_total 4"), "{metrics}");
    let _serving = hook(addr);
    assert_eq!(reason(&daemon, "lamp"), ReasonCode::Success, "it is asked again");

    // A failure may also be as if nobody had been asked.
    let open = Daemon::start_with(asks(addr, "on_failure = \"ignore\"\n[auth]\nanonymous = true"));
    assert_eq!(reason(&open, "slow"), ReasonCode::Success);
    until("nobody is left", || (open.api().status()["sessions"] == 0).then_some(()));
    assert_eq!(reason(&open, "nobody"), ReasonCode::BadUserNameOrPassword, "it is denied");
}

#[test]
fn a_hook_that_does_not_answer_holds_nobody_else_up() {
    let addr = free_addr();
    let _serving = hook(addr);
    let more = "requests_max = 1\nqueue_max = 1\n[auth.jwt]\nsecret = ";
    let daemon = Daemon::start_with(asks(addr, &format!("{more}\"{SECRET}\"")));
    let slow: Vec<Mqtt> = (0..8)
        .map(|n| {
            let mut mqtt = Mqtt::open(daemon.mqtt(), Version::V5);
            mqtt.send(&Packet::Connect(with_password(&format!("slow{n}"), "slow", "x")));
            mqtt
        })
        .collect();
    let good = token_for("lamp");
    let (mut lamp, _) = Mqtt::connect(daemon.mqtt(), &with_password("c1", "", &good));
    assert!(lamp.ping() < Duration::from_millis(400), "it waits for nobody");
    for mut mqtt in slow {
        match mqtt.receive().packet() {
            Packet::ConnAck(connack) => assert_eq!(connack.reason, ReasonCode::ServerUnavailable),
            other => panic!("{other:?}"),
        }
    }
    let metrics = daemon.api().get("/metrics").text;
    let full =
        metrics.lines().find_map(|line| line.strip_prefix("sextant_push_auth_http_full_total "));
    assert!(full.unwrap().parse::<u32>().unwrap() >= 5, "{metrics}");
}
