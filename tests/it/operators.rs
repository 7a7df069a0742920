//! What operators see of clients, and do to them.

use serde_json::json;
use sextant_mqtt::{Connect, Packet, QoS, ReasonCode, Version};
use sextant_tests::{Answer, Daemon, Mqtt, Options, Sub, publish, until};

/// The identifiers of a listing, all pages of it, in order.
#[track_caller]
fn listed(daemon: &Daemon, query: &str) -> Vec<String> {
    let (api, mut names, mut after) = (daemon.api(), Vec::new(), String::new());
    for _ in 0..1000 {
        let page = api.get(&format!("/v1/clients?{query}{after}"));
        assert_eq!(page.status, 200, "{}", page.text);
        let clients = page.json["clients"].as_array().unwrap();
        names.extend(clients.iter().map(|client| client["client"].as_str().unwrap().to_owned()));
        match page.json["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    names.sort();
    names
}

#[track_caller]
fn delete(daemon: &Daemon, path: &str) -> u16 {
    daemon.api().ask("DELETE", path, None).unwrap().status
}

#[test]
fn a_mosquitto_sub_is_listed_shown_and_kicked() {
    let daemon = Daemon::start_with(Options::config("cores = 2"));
    let args = ["-V", "5", "-i", "lamp/1", "-t", "d/#", "-q", "1", "-k", "33", "-c", "-x", "600"];
    let mut sub = Sub::start(daemon.mqtt(), &args);
    assert_eq!(listed(&daemon, "like=lamp*"), ["lamp/1"]);
    assert!(listed(&daemon, "like=lamp").is_empty());
    let lamp = daemon.api().get("/v1/clients/lamp%2F1");
    assert_eq!(lamp.status, 200, "{}", lamp.text);
    let peer = lamp.json["peer"].as_str().unwrap();
    assert!(peer.starts_with("127.") && peer.contains(':'), "{peer}");
    let told = |key: &str| lamp.json[key].clone();
    assert_eq!((told("connected"), told("version")), (json!(true), json!("5")));
    assert!(told("connected_at").is_string() && told("left_at").is_null(), "{}", lamp.text);
    assert_eq!((told("keep_alive_s"), told("session_expiry_s")), (json!(33), json!(600)));
    assert_eq!((told("user"), told("subscriptions")), (json!("anonymous"), json!(1)));
    assert_eq!((&lamp.json["filters"][0]["filter"], told("in_flight")), (&json!("d/#"), json!(0)));

    assert_eq!(delete(&daemon, "/v1/clients/lamp%2F1"), 204);
    sub.lines().line_with("152");
    sub.lines().kill();
    until("the client is away", || {
        let lamp = daemon.api().get("/v1/clients/lamp%2F1").json;
        let left = lamp["left_at"].is_string() && lamp["connected_at"].is_null();
        (lamp["connected"] == false && left).then_some(())
    });
    publish(daemon.mqtt(), &["-q", "1", "-t", "d/x", "-m", "hello"]);
    let lamp = daemon.api().get("/v1/clients/lamp%2F1").json;
    assert_eq!(lamp["queued"], 1, "its session is still there: {lamp}");
    assert!(lamp["queued_bytes"].as_u64().unwrap() >= 5, "{lamp}");
    assert_eq!(delete(&daemon, "/v1/clients/lamp%2F1"), 404, "it is not connected");
    assert_eq!(delete(&daemon, "/v1/clients/lamp%2F1?session=true"), 204);
    assert_eq!(delete(&daemon, "/v1/clients/lamp%2F1?session=true"), 404);
    assert_eq!(daemon.api().get("/v1/clients/lamp%2F1").status, 404);
}

#[test]
fn a_kick_is_said_in_the_words_that_the_version_has() {
    let daemon = Daemon::start();
    let mut five = Mqtt::clean(daemon.mqtt(), "five");
    let (mut three, _) = Mqtt::connect(daemon.mqtt(), &Connect::new(Version::V311, "three"));
    for client in ["five", "three"] {
        assert_eq!(delete(&daemon, &format!("/v1/clients/{client}")), 204);
    }
    let last = five.receive();
    let Packet::Disconnect(disconnect) = last.packet() else { panic!("{last:?}") };
    assert_eq!(disconnect.reason, ReasonCode::AdministrativeAction);
    assert!(five.receive_or_end().is_none());
    assert!(three.receive_or_end().is_none());
    assert_eq!(daemon.api().metric("sextant_push_connections_closed_total", "kicked"), 2.0);
}

#[test]
fn a_session_that_was_ended_stays_ended_after_a_crash() {
    let mut daemon = Daemon::start();
    for name in ["kept", "ended"] {
        let args = ["-V", "5", "-i", name, "-t", "d/#", "-q", "1", "-c", "-x", "600"];
        Sub::start(daemon.mqtt(), &args).lines().kill();
    }
    assert_eq!(listed(&daemon, ""), ["ended", "kept"]);
    assert_eq!(delete(&daemon, "/v1/clients/ended?session=true"), 204);
    daemon.kill();
    daemon.start_again();
    assert_eq!(listed(&daemon, ""), ["kept"]);
}

#[test]
fn every_client_of_all_cores_is_in_one_page_of_a_listing() {
    let daemon = Daemon::start_with(Options::config("cores = 2"));
    let names: Vec<String> = (0..57).map(|n| format!("client-{n:02}")).collect();
    let mut clients: Vec<Mqtt> =
        names.iter().map(|name| Mqtt::clean(daemon.mqtt(), name)).collect();
    clients[0].subscribe("t/#", QoS::AtLeastOnce);
    for limit in [1, 7, 56, 57, 1000] {
        assert_eq!(listed(&daemon, &format!("limit={limit}")), names);
    }
    assert_eq!(listed(&daemon, "like=*-1*&limit=3").len(), 10);
    let problem = daemon.api().get("/v1/clients?after=x");
    assert_eq!((problem.status, &problem.json["status"]), (400, &json!(400)));
    let untold = daemon.api().with_token(None);
    for (method, path) in [
        ("GET", "/v1/clients"),
        ("GET", "/v1/clients/client-01"),
        ("DELETE", "/v1/clients/client-01"),
    ] {
        assert_eq!(untold.ask(method, path, None).unwrap().status, 401, "{method} {path}");
    }
    clients[1].ping();
}

/// The reason of the answer to a CONNECT.
#[track_caller]
fn answer(daemon: &Daemon, version: Version, client: &str) -> ReasonCode {
    let (_, answer) = Mqtt::try_connect(daemon.mqtt(), &Connect::new(version, client));
    let Packet::ConnAck(connack) = answer.packet() else { panic!("{answer:?}") };
    connack.reason
}

#[track_caller]
fn ban(daemon: &Daemon, path: &str, body: &str) -> Answer {
    daemon.api().ask("PUT", &format!("/v1/bans/{path}"), Some(body.as_bytes())).unwrap()
}

#[test]
fn a_banned_mosquitto_sub_is_disconnected_and_stays_out_through_a_crash() {
    let mut daemon = Daemon::start_with(Options::config("cores = 2"));
    let mut sub = Sub::start(daemon.mqtt(), &["-V", "5", "-i", "lamp", "-t", "d/#"]);
    let made = ban(&daemon, "client/lamp", r#"{"why": "it is noisy"}"#);
    assert_eq!((made.status, &made.json["disconnected"]), (200, &json!(1)), "{}", made.text);
    sub.lines().line_with("DISCONNECT (152)");
    let args = ["-V", "5", "-i", "lamp", "-t", "d/#"];
    Sub::start_unacknowledged(daemon.mqtt(), &args).lines().line_with("CONNACK (138)");
    assert_eq!(answer(&daemon, Version::V5, "lamp"), ReasonCode::Banned);
    assert_eq!(answer(&daemon, Version::V311, "lamp"), ReasonCode::NotAuthorized);
    assert_eq!(answer(&daemon, Version::V5, "door"), ReasonCode::Success);
    daemon.kill();
    daemon.start_again();
    assert_eq!(answer(&daemon, Version::V5, "lamp"), ReasonCode::Banned);
    let bans = daemon.api().get("/v1/bans").json;
    assert_eq!(
        (&bans["bans"][0]["name"], &bans["bans"][0]["why"]),
        (&json!("lamp"), &json!("it is noisy"))
    );
    assert_eq!(delete(&daemon, "/v1/bans/client/lamp"), 204);
    assert_eq!(delete(&daemon, "/v1/bans/client/lamp"), 404);
    assert_eq!(answer(&daemon, Version::V5, "lamp"), ReasonCode::Success);
    assert_eq!(daemon.api().metric("sextant_push_connects_refused_total", "banned"), 1.0);
}

#[test]
fn a_banned_user_loses_every_connection_on_all_cores_until_the_ban_ends() {
    let daemon = Daemon::start_with(Options::config("cores = 2"));
    let mut clients: Vec<Mqtt> =
        (0..20).map(|n| Mqtt::clean(daemon.mqtt(), &format!("c{n}"))).collect();
    let made = ban(&daemon, "user/anonymous", r#"{"for": "1s"}"#);
    assert_eq!((made.status, &made.json["disconnected"]), (200, &json!(20)), "{}", made.text);
    for client in &mut clients {
        let last = client.receive();
        let Packet::Disconnect(disconnect) = last.packet() else { panic!("{last:?}") };
        assert_eq!(disconnect.reason, ReasonCode::AdministrativeAction);
    }
    until("the ban has ended", || {
        (answer(&daemon, Version::V5, "c1") == ReasonCode::Success).then_some(())
    });
    assert_eq!(daemon.api().get("/v1/bans").json, json!({"bans": []}));
    let untold = daemon.api().with_token(None);
    for (method, path) in
        [("GET", "/v1/bans"), ("PUT", "/v1/bans/user/a"), ("DELETE", "/v1/bans/user/a")]
    {
        assert_eq!(untold.ask(method, path, None).unwrap().status, 401, "{method}");
    }
}

#[test]
fn a_daemon_whose_bans_cannot_be_read_does_not_start() {
    let mut daemon = Daemon::start();
    daemon.stop();
    std::fs::write(daemon.data().join("bans.json"), "[{\"kind\": \"client\"").unwrap();
    daemon.adopt(daemon.command());
    assert!(!daemon.wait().success());
    assert!(daemon.log().contains("bans.json does not hold bans"), "{}", daemon.log());
}

#[test]
fn a_drained_mosquitto_sub_is_told_and_who_comes_is_told_the_other_server() {
    let daemon = Daemon::start_with(Options::config("cores = 2"));
    let mut sub = Sub::start(daemon.mqtt(), &["-V", "5", "-i", "lamp", "-t", "d/#", "-c"]);
    let mut five = Mqtt::clean(daemon.mqtt(), "five");
    let (mut three, _) = Mqtt::connect(daemon.mqtt(), &Connect::new(Version::V311, "three"));
    let body = json!({ "server": "mqtt2.example.org:1883", "over": "1s" });
    let told = daemon.api().post("/v1/drain", &body);
    assert_eq!((told.status, &told.json["draining"]), (200, &json!(true)), "{}", told.text);
    sub.lines().line_with("DISCONNECT (156)");
    let last = five.receive();
    let Packet::Disconnect(disconnect) = last.packet() else { panic!("{last:?}") };
    assert_eq!(disconnect.reason, ReasonCode::UseAnotherServer);
    assert_eq!(disconnect.properties.server_reference, Some("mqtt2.example.org:1883"));
    assert!(three.receive_or_end().is_none());
    let state = daemon.api().get("/v1/drain").json;
    assert_eq!((&state["left"], &state["sent_away"]), (&json!(0), &json!(3)));

    let (_, refused) = Mqtt::try_connect(daemon.mqtt(), &Connect::new(Version::V5, "five"));
    let Packet::ConnAck(connack) = refused.packet() else { panic!("{refused:?}") };
    assert_eq!(connack.reason, ReasonCode::UseAnotherServer);
    assert_eq!(connack.properties.server_reference, Some("mqtt2.example.org:1883"));
    assert_eq!(answer(&daemon, Version::V311, "three"), ReasonCode::ServerUnavailable);
    assert_eq!(daemon.api().metric("sextant_push_connects_refused_total", "redirected"), 2.0);
    assert_eq!(daemon.api().metric("sextant_push_connections_closed_total", "redirected"), 3.0);
    assert_eq!(daemon.api().post("/v1/drain", &json!({ "server": "a b" })).status, 422);
    assert_eq!(daemon.api().with_token(None).ask("GET", "/v1/drain", None).unwrap().status, 401);

    assert_eq!(delete(&daemon, "/v1/drain"), 204);
    assert_eq!(answer(&daemon, Version::V5, "five"), ReasonCode::Success);
    assert_eq!(daemon.api().get("/v1/drain").json["draining"], false);
}
