//! Who is let in: tokens that others sign.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header, encode};
use rustix::process::Signal;
use serde_json::{Value, json};
use sextant_mqtt::{Connect, Packet, QoS, ReasonCode, Secret, Version};
use sextant_tests::{Daemon, Mqtt, Options, Sub, publish, try_publish, until};

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
