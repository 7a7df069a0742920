//! Enhanced authentication: clients that prove that they know a password, by SCRAM-SHA-256.
//!
//! No client that others wrote and that is at hand speaks it, so it is spoken here, from RFC 5802.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use rustix::process::Signal;
use sextant_mqtt::{
    Auth, AuthProperties, Connect, Packet, Publish, QoS, ReasonCode, Secret, Version,
};
use sextant_tests::{Daemon, Mqtt, Options, binary, publish, try_publish, until};
use sha2::{Digest, Sha256};

const METHOD: &str = "SCRAM-SHA-256";

/// The user `lamp`, password `pencil`, as the command line makes it.
fn config() -> &'static str {
    static CONFIG: OnceLock<String> = OnceLock::new();
    CONFIG.get_or_init(|| {
        let mut passwd = Command::new(binary("sextant"));
        passwd.args(["push", "passwd", "lamp", "--scram"]);
        let mut passwd = passwd.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        passwd.stdin.take().unwrap().write_all(b"pencil\n").unwrap();
        let output = passwd.wait_with_output().unwrap();
        assert!(output.status.success());
        let user = String::from_utf8(output.stdout).unwrap();
        user.replace("[\"subscribe #\"]", "[\"all d/{client}/#\"]")
    })
}

fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text);
    mac.finalize().into_bytes().into()
}

/// A client's side of an exchange.
struct Scram {
    password: &'static str,
    bare: String,
}

impl Scram {
    fn new(user: &str, password: &'static str) -> Scram {
        Scram { password, bare: format!("n={user},r=fyko+d2lbbFgONRv9qkxdawL") }
    }

    fn first(&self) -> Vec<u8> {
        format!("n,,{}", self.bare).into_bytes()
    }

    /// The proof, and what the server has to answer.
    fn last(&self, challenge: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let challenge = std::str::from_utf8(challenge).unwrap();
        let parts: Vec<&str> = challenge.split(',').map(|part| &part[2..]).collect();
        let [nonce, salt, iterations] = parts[..] else { panic!("{challenge}") };
        let (salt, passes) = (STANDARD.decode(salt).unwrap(), iterations.parse().unwrap());
        let password = self.password.as_bytes();
        let mut last = hmac(password, &[&salt[..], &[0, 0, 0, 1]].concat());
        let mut salted = last;
        for _ in 1..passes {
            last = hmac(password, &last);
            salted.iter_mut().zip(last).for_each(|(salted, last)| *salted ^= last);
        }
        let client_key = hmac(&salted, b"Client Key");
        let without_proof = format!("c=biws,r={nonce}");
        let message = format!("{},{challenge},{without_proof}", self.bare);
        let signature = hmac(&Sha256::digest(client_key), message.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(a, b)| a ^ b).collect();
        let server = hmac(&hmac(&salted, b"Server Key"), message.as_bytes());
        let proof = format!("{without_proof},p={}", STANDARD.encode(proof));
        (proof.into_bytes(), format!("v={}", STANDARD.encode(server)).into_bytes())
    }
}

fn auth<'a>(reason: ReasonCode, method: &'a str, data: &'a [u8]) -> Packet<'a> {
    let properties = AuthProperties {
        auth_method: Some(method),
        auth_data: Some(Secret::new(data)),
        ..AuthProperties::default()
    };
    Packet::Auth(Auth { reason, properties })
}

/// The reason and the data of an AUTH.
#[track_caller]
fn told(mqtt: &mut Mqtt) -> (ReasonCode, Vec<u8>) {
    match mqtt.receive().packet() {
        Packet::Auth(auth) => {
            assert_eq!(auth.properties.auth_method, Some(METHOD));
            (auth.reason, auth.properties.auth_data.unwrap().expose().to_vec())
        }
        other => panic!("{other:?} is no AUTH"),
    }
}

/// A connection whose client has been asked for its proof.
#[track_caller]
fn asked(daemon: &Daemon, client_id: &str, scram: &Scram) -> (Mqtt, Vec<u8>) {
    let first = scram.first();
    let mut connect = Connect::new(Version::V5, client_id);
    connect.properties.auth_method = Some(METHOD);
    connect.properties.auth_data = Some(Secret::new(&first));
    let mut mqtt = Mqtt::open(daemon.mqtt(), Version::V5);
    mqtt.send(&Packet::Connect(connect));
    let (reason, challenge) = told(&mut mqtt);
    assert_eq!(reason, ReasonCode::ContinueAuthentication);
    (mqtt, challenge)
}

/// A connection that was accepted.
#[track_caller]
fn proved(daemon: &Daemon, client_id: &str) -> Mqtt {
    let scram = Scram::new("lamp", "pencil");
    let (mut mqtt, challenge) = asked(daemon, client_id, &scram);
    let (proof, answer) = scram.last(&challenge);
    mqtt.send(&auth(ReasonCode::ContinueAuthentication, METHOD, &proof));
    match mqtt.receive().packet() {
        Packet::ConnAck(connack) => {
            assert_eq!(connack.reason, ReasonCode::Success);
            assert_eq!(connack.properties.auth_method, Some(METHOD));
            let data = connack.properties.auth_data.unwrap();
            assert_eq!(data.expose(), answer, "the server knows the password, too");
        }
        other => panic!("{other:?} is no CONNACK"),
    }
    mqtt
}

/// The reason that a connection ends with.
#[track_caller]
fn ended_with(mqtt: &mut Mqtt) -> ReasonCode {
    let reason = match mqtt.receive().packet() {
        Packet::ConnAck(connack) => connack.reason,
        Packet::Disconnect(disconnect) => disconnect.reason,
        other => panic!("{other:?}"),
    };
    assert!(mqtt.receive_or_end().is_none(), "closed");
    reason
}

// [MQTT-4.12.0-2], [MQTT-4.12.0-5]
#[test]
fn mqtt_4_12_0_2_a_client_proves_that_it_knows_its_password_and_so_does_the_server() {
    let daemon = Daemon::start_with(Options::config(&format!("cores = 2\n{}", config())));
    // At home on either core.
    for client_id in ["a", "b", "c", "d", ""] {
        let mut mqtt = proved(&daemon, client_id);
        if client_id.is_empty() {
            mqtt.ping();
            continue;
        }
        let (own, others) = (format!("d/{client_id}/up"), "d/other/up");
        assert_eq!(mqtt.publish(&own, b"x", QoS::AtLeastOnce), ReasonCode::Success);
        assert_eq!(mqtt.publish(others, b"x", QoS::AtLeastOnce), ReasonCode::NotAuthorized);
    }
    let _held = proved(&daemon, "held");
    assert_eq!(daemon.api().get("/v1/clients/held").json["user"], "lamp");
    // The password itself is as good, for who has no SCRAM.
    publish(daemon.mqtt(), &["-i", "p", "-u", "lamp", "-P", "pencil", "-t", "d/p/x", "-m", "x"]);
}

#[test]
fn an_assigned_client_identifier_is_the_one_that_rules_speak_of() {
    let daemon = Daemon::start_with(Options::config(config()));
    let mut connect = Connect::new(Version::V5, "");
    connect.user_name = Some("lamp");
    connect.password = Some(Secret::new(b"pencil"));
    let (mut mqtt, connack) = Mqtt::connect(daemon.mqtt(), &connect);
    let Packet::ConnAck(connack) = connack.packet() else { panic!("{connack:?}") };
    let topic = format!("d/{}/up", connack.properties.assigned_client_id.unwrap());
    assert_eq!(mqtt.publish(&topic, b"x", QoS::AtLeastOnce), ReasonCode::Success);
}

// [MQTT-4.12.0-1], [MQTT-4.12.0-4]
#[test]
fn mqtt_4_12_0_4_who_does_not_prove_it_is_told_so_in_connack() {
    let daemon = Daemon::start_with(Options::config(config()));
    for (user, password) in [("lamp", "pencils"), ("nobody", "pencil")] {
        let scram = Scram::new(user, password);
        let (mut mqtt, challenge) = asked(&daemon, "c", &scram);
        let (proof, _) = scram.last(&challenge);
        mqtt.send(&auth(ReasonCode::ContinueAuthentication, METHOD, &proof));
        assert_eq!(ended_with(&mut mqtt), ReasonCode::BadUserNameOrPassword, "{user}");
    }
    // One that was overheard is worth nothing, though it begins the same.
    let scram = Scram::new("lamp", "pencil");
    let (mut first, challenge) = asked(&daemon, "c", &scram);
    let (proof, _) = scram.last(&challenge);
    let (mut again, _) = asked(&daemon, "c", &scram);
    again.send(&auth(ReasonCode::ContinueAuthentication, METHOD, &proof));
    assert_eq!(ended_with(&mut again), ReasonCode::BadUserNameOrPassword);
    first.send(&auth(ReasonCode::ContinueAuthentication, METHOD, &proof));
    assert!(matches!(first.receive().packet(), Packet::ConnAck(ack) if !ack.reason.is_error()));
    let mut connect = Connect::new(Version::V5, "c");
    for (method, data, reason) in [
        (METHOD, &b""[..], ReasonCode::BadUserNameOrPassword),
        (METHOD, b"n,,n=\xff", ReasonCode::BadUserNameOrPassword),
        ("SCRAM-SHA-1", b"n,,n=lamp,r=x", ReasonCode::BadAuthenticationMethod),
        ("", b"", ReasonCode::BadAuthenticationMethod),
    ] {
        connect.properties.auth_method = Some(method);
        connect.properties.auth_data = Some(Secret::new(data));
        let mut mqtt = Mqtt::open(daemon.mqtt(), Version::V5);
        mqtt.send(&Packet::Connect(connect));
        assert_eq!(ended_with(&mut mqtt), reason, "{method}");
    }
}

// [MQTT-3.1.2-30]
#[test]
fn mqtt_3_1_2_30_before_its_connack_such_a_client_sends_auth_or_leaves() {
    let daemon = Daemon::start_with(Options::config(config()));
    let scram = Scram::new("lamp", "pencil");
    let (mut mqtt, challenge) = asked(&daemon, "c", &scram);
    mqtt.send(&Packet::PingReq);
    assert_eq!(ended_with(&mut mqtt), ReasonCode::ProtocolError);
    let (mut mqtt, _) = asked(&daemon, "c", &scram);
    mqtt.send(&auth(ReasonCode::ContinueAuthentication, "other", b"x"));
    assert!(ended_with(&mut mqtt).is_error());
    let (mut mqtt, _) = asked(&daemon, "c", &scram);
    mqtt.send(&auth(ReasonCode::ReAuthenticate, METHOD, &scram.first()));
    assert!(ended_with(&mut mqtt).is_error());
    let (mqtt, _) = asked(&daemon, "c", &scram);
    mqtt.disconnect();
    drop(challenge);
    // Byte by byte, and with what it could not wait to send.
    let (mut mqtt, challenge) = asked(&daemon, "c", &scram);
    let (proof, _) = scram.last(&challenge);
    let mut bytes = Vec::new();
    auth(ReasonCode::ContinueAuthentication, METHOD, &proof)
        .encode(Version::V5, &mut bytes)
        .unwrap();
    bytes.iter().for_each(|byte| mqtt.send_bytes(&[*byte]));
    assert!(matches!(mqtt.receive().packet(), Packet::ConnAck(ack) if !ack.reason.is_error()));
    mqtt.ping();
}

// [MQTT-4.12.1-1], [MQTT-4.12.1-2], [MQTT-3.15.2-1]
#[test]
fn mqtt_4_12_1_a_client_authenticates_again_while_it_goes_on() {
    let daemon = Daemon::start_with(Options::config(config()));
    let scram = Scram::new("lamp", "pencil");
    let mut mqtt = proved(&daemon, "c");
    mqtt.subscribe("d/c/#", QoS::AtMostOnce);
    for _ in 0..3 {
        mqtt.send(&auth(ReasonCode::ReAuthenticate, METHOD, &scram.first()));
        let (reason, challenge) = told(&mut mqtt);
        assert_eq!(reason, ReasonCode::ContinueAuthentication);
        let delivery = sextant_mqtt::Delivery::AtMostOnce;
        let properties = sextant_mqtt::PublishProperties::default();
        let (topic, payload) = ("d/c/x", &b"meanwhile"[..]);
        mqtt.send(&Packet::Publish(Publish {
            delivery,
            retain: false,
            topic,
            properties,
            payload,
        }));
        assert_eq!(mqtt.message().payload, b"meanwhile");
        let (proof, answer) = scram.last(&challenge);
        mqtt.send(&auth(ReasonCode::ContinueAuthentication, METHOD, &proof));
        assert_eq!(told(&mut mqtt), (ReasonCode::Success, answer));
    }
    let wrong = Scram::new("lamp", "pencils");
    mqtt.send(&auth(ReasonCode::ReAuthenticate, METHOD, &wrong.first()));
    let (_, challenge) = told(&mut mqtt);
    let (proof, _) = wrong.last(&challenge);
    mqtt.send(&auth(ReasonCode::ContinueAuthentication, METHOD, &proof));
    assert_eq!(ended_with(&mut mqtt), ReasonCode::NotAuthorized);

    let mut other = proved(&daemon, "c");
    other.send(&auth(ReasonCode::ReAuthenticate, "SCRAM-SHA-1", &scram.first()));
    assert!(ended_with(&mut other).is_error());
    let mut unasked = proved(&daemon, "c");
    unasked.send(&auth(ReasonCode::ContinueAuthentication, METHOD, b"x"));
    assert_eq!(ended_with(&mut unasked), ReasonCode::ProtocolError);
}

#[test]
fn who_authenticates_again_has_the_rules_of_now() {
    let mut daemon = Daemon::prepare(Options::config(config()));
    daemon.start_again();
    let scram = Scram::new("lamp", "pencil");
    let mut mqtt = proved(&daemon, "c");
    assert_eq!(mqtt.subscribe("d/c/#", QoS::AtMostOnce), ReasonCode::Success);
    let fewer = config().replace("all d/{client}/#", "publish d/{client}/#");
    std::fs::write(daemon.dir().join("push.toml"), fewer).unwrap();
    daemon.signal(Signal::HUP);
    let login = ["-V", "5", "-i", "p", "-u", "lamp", "-P", "pencil", "-q", "1"];
    until("the new rules are in force", || {
        let (mut probe, challenge) = asked(&daemon, "probe", &scram);
        let (proof, _) = scram.last(&challenge);
        probe.send(&auth(ReasonCode::ContinueAuthentication, METHOD, &proof));
        assert!(matches!(probe.receive().packet(), Packet::ConnAck(_)));
        (probe.subscribe("d/probe/#", QoS::AtMostOnce) == ReasonCode::NotAuthorized).then_some(())
    });
    let (done, words) =
        try_publish(daemon.mqtt(), &[&login[..], &["-t", "d/p/x", "-m", "x"]].concat());
    assert!(done, "{words}");
    assert_eq!(mqtt.publish("d/c/x", b"before", QoS::AtLeastOnce), ReasonCode::Success);
    assert_eq!(mqtt.message().payload, b"before", "who is connected stays as it was");
    mqtt.send(&auth(ReasonCode::ReAuthenticate, METHOD, &scram.first()));
    let (proof, answer) = scram.last(&told(&mut mqtt).1);
    mqtt.send(&auth(ReasonCode::ContinueAuthentication, METHOD, &proof));
    assert_eq!(told(&mut mqtt), (ReasonCode::Success, answer));
    assert_eq!(mqtt.publish("d/c/x", b"after", QoS::AtLeastOnce), ReasonCode::Success);
    mqtt.ping();
    assert_eq!(mqtt.subscribe("d/c/#", QoS::AtMostOnce), ReasonCode::NotAuthorized);
}
