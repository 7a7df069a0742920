use super::*;

use std::sync::Mutex;

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request};
use serde_json::{Value, json};
use sextant_mqtt::Version;
use tower::ServiceExt;

use crate::bans::{Banned, Bans, Keeper};
use crate::control::clients::{
    Client, ClientDetail, Connection, Evicted, Kicked, Listed, Listing, Subscribed,
};

const NOW: u64 = 1_790_000_000_123;
const NOW_TOLD: &str = "2026-09-21T14:13:20.123Z";
const PACKET_BYTES_MAX: u64 = 2000;

/// What cores do about a command.
type Behaviour = Box<dyn Fn(usize, Command) -> Result<(), Unavailable> + Send + Sync>;

struct Fake {
    cores: usize,
    behaviour: Behaviour,
}

impl Cores for Fake {
    fn cores(&self) -> usize {
        self.cores
    }

    fn send(&self, core: usize, command: Command) -> Result<(), Unavailable> {
        assert!(core < self.cores, "there is no core {core}");
        (self.behaviour)(core, command)
    }
}

fn key() -> TokenKey {
    TokenKey::from_bytes([3; 32])
}

fn api(
    cores: usize,
    behaviour: impl Fn(usize, Command) -> Result<(), Unavailable> + Send + Sync + 'static,
) -> Router {
    let dir = tempfile::tempdir().unwrap();
    let (keeper, bans) = Keeper::open(dir.path()).unwrap();
    let kept = Kept::new(keeper, Arc::new(bans));
    router(Arc::new(Fake { cores, behaviour: Box::new(behaviour) }), key(), settings(), kept)
}

fn settings() -> Settings {
    Settings {
        packet_bytes_max: PACKET_BYTES_MAX,
        durability: "50ms".parse().unwrap(),
        driver: "sim",
        traces_max: 2,
        clock: || NOW,
    }
}

type Pushes = Arc<Mutex<Vec<(usize, Push)>>>;

/// Cores that accept every push, and what they accepted.
fn accepting(cores: usize) -> (Router, Pushes) {
    let pushes = Pushes::default();
    let seen = Arc::clone(&pushes);
    let api = api(cores, move |core, command| {
        let Command::Push { push, reply } = command else { panic!("{command:?}") };
        seen.lock().unwrap().push((core, push));
        reply.send(Ok(1)).unwrap();
        Ok(())
    });
    (api, pushes)
}

async fn call(api: &Router, method: Method, path: &str, body: &str) -> (Response, Value) {
    let request =
        Request::builder().method(method).uri(path).body(Body::from(body.to_owned())).unwrap();
    let (head, body) = api.clone().oneshot(request).await.unwrap().into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let json = serde_json::from_slice(&body).unwrap_or(Value::Null);
    (Response::from_parts(head, Body::empty()), json)
}

async fn post_json(api: &Router, path: &str, body: &str) -> (u16, Value) {
    let (response, json) = call(api, Method::POST, path, body).await;
    (response.status().as_u16(), json)
}

async fn get_json(api: &Router, path: &str) -> (u16, Value) {
    let (response, json) = call(api, Method::GET, path, "").await;
    (response.status().as_u16(), json)
}

/// The status and detail of a push that is not taken, after checking that it was not.
async fn refused(body: &str) -> (u16, String) {
    let (api, pushes) = accepting(1);
    let (status, problem) = post_json(&api, "/v1/messages", body).await;
    assert!(pushes.lock().unwrap().is_empty(), "{body} was taken");
    assert_eq!(problem["status"], status, "{problem}");
    (status, problem["detail"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_message_for_a_device_goes_to_the_devices_home() {
    for cores in [1, 3, 8] {
        let (api, pushes) = accepting(cores);
        for device in ["d1", "d2", "device-000003"] {
            let body = format!(r#"{{"device":"{device}","payload":"hello"}}"#);
            let (response, json) = call(&api, Method::POST, "/v1/messages", &body).await;
            assert_eq!(response.status(), StatusCode::ACCEPTED);
            let (core, push) = pushes.lock().unwrap().pop().unwrap();
            assert_eq!(core, home(device, cores));
            let id = Uuid::from_u128(push.id);
            assert_eq!(id.get_version_num(), 7);
            assert_eq!(
                json,
                json!({
                    "id": id.hyphenated().to_string(),
                    "topic": format!("d/{device}/push"),
                    "accepted_at": NOW_TOLD,
                })
            );
            assert_eq!(response.headers()["location"], format!("/v1/messages/{id}"));
            let expected = Push {
                id: push.id,
                target: Target::Device(device.to_owned()),
                payload: Bytes::from("hello"),
                qos: QoS::AtLeastOnce,
                retain: false,
                accepted_at: NOW,
                expires_at: NOW + 86_400_000,
            };
            assert_eq!(push, expected);
        }
    }
}

#[tokio::test]
async fn a_message_for_a_topic_goes_to_the_topics_home_with_all_it_asks_for() {
    let (api, pushes) = accepting(8);
    let body = r#"{"topic":"a/b","payload_base64":"AP8=","qos":2,"ttl":"1h30m","retain":true}"#;
    let (status, json) = post_json(&api, "/v1/messages", body).await;
    assert_eq!((status, &json["topic"]), (202, &json!("a/b")));
    let (core, push) = pushes.lock().unwrap().pop().unwrap();
    assert_eq!(core, home("a/b", 8));
    assert_eq!(push.target, Target::Topic("a/b".to_owned()));
    assert_eq!(
        (push.payload.as_ref(), push.qos, push.retain),
        (&[0, 255][..], QoS::ExactlyOnce, true)
    );
    assert_eq!(push.expires_at, NOW + 5_400_000);
}

#[tokio::test]
async fn times_to_live_are_text_or_seconds_within_bounds() {
    let (api, pushes) = accepting(1);
    for (ttl, seconds) in
        [("1", 1), ("\"1s\"", 1), ("3600", 3600), ("\"30d\"", 2_592_000), ("2592000", 2_592_000)]
    {
        let body = format!(r#"{{"topic":"a","payload":"","ttl":{ttl}}}"#);
        assert_eq!(post_json(&api, "/v1/messages", &body).await.0, 202, "{ttl}");
        let (_, push) = pushes.lock().unwrap().pop().unwrap();
        assert_eq!(push.expires_at, NOW + seconds * 1000, "{ttl}");
    }
    for ttl in ["0", "-1", "1.5", "2592001", "\"31d\"", "\"999ms\"", "\"1\"", "\"\"", "null", "[1]"]
    {
        let (status, detail) =
            refused(&format!(r#"{{"topic":"a","payload":"","ttl":{ttl}}}"#)).await;
        assert!(status == 422 && detail.contains("`ttl`"), "{ttl} {status} {detail}");
    }
}

#[tokio::test]
async fn what_a_push_must_not_say_is_named() {
    for (body, named) in [
        (r#"{"device":"d","payloda":"x"}"#, "unknown key `payloda`; did you mean `payload`?"),
        (r#"{"device":"d","payload":"","QOS":1}"#, "unknown key `QOS`; did you mean `qos`?"),
        (r#"{"device":"d","payload":"","zzzzzz":1}"#, "unknown key `zzzzzz`; there are `device`"),
        (r#"{"payload":"x"}"#, "give `device` or `topic`"),
        (r#"{"device":"d","topic":"t","payload":"x"}"#, "exclude each other"),
        (r#"{"device":"d"}"#, "give `payload` or `payload_base64`"),
        (r#"{"device":"d","payload":"","payload_base64":""}"#, "exclude each other"),
        (r#"{"device":"d","payload_base64":"x!"}"#, "`payload_base64`: not base64"),
        (r#"{"device":"d/e","payload":""}"#, "`device`: "),
        (r#"{"device":"","payload":""}"#, "`device`: "),
        (r#"{"device":7,"payload":""}"#, "`device`: expected a string, found 7"),
        (r#"{"device":null,"payload":""}"#, "`device`: expected a string, found null"),
        (r#"{"device":"d","device":"e","payload":""}"#, "the key `device` is given twice"),
        (r#"{"topic":"a/+","payload":""}"#, "`topic`: a topic name holds a wildcard"),
        (r#"{"topic":"","payload":""}"#, "`topic`: it is empty"),
        (r#"{"topic":"a\u0000","payload":""}"#, "`topic`: it holds the null character"),
        (r#"{"topic":"$SYS/a","payload":""}"#, "`topic`: names that begin with `$`"),
        (r#"{"device":"d","payload":{}}"#, "`payload`: expected a string, found an object"),
        (r#"{"device":"d","payload":"","qos":3}"#, "`qos`: expected a whole number from 0 to 2"),
        (r#"{"device":"d","payload":"","qos":"1"}"#, "`qos`: "),
        (r#"{"device":"d","payload":"","retain":1}"#, "`retain`: expected true or false"),
        ("[]", "expected an object"),
        ("null", "expected an object"),
    ] {
        let (status, detail) = refused(body).await;
        assert!(status == 422 && detail.contains(named), "{body}: {status} {detail}");
    }
    for body in ["", "{", "hello", r#"{"device":"d"} x"#, "{\"device\":\"\u{1}\"}"] {
        assert_eq!(refused(body).await.0, 400, "{body}");
    }
    let deep = format!(r#"{{"topic":"{}","payload":""}}"#, "a/".repeat(200));
    assert!(refused(&deep).await.1.contains("too many levels"));
    let long_key = format!(r#"{{"{}":1}}"#, "k".repeat(100_000));
    let (status, detail) = refused(&long_key).await;
    assert!(status == 422 && detail.len() < 300, "{detail}");
    let keys: Vec<String> = (0..40).map(|key| format!("\"k{key}\":1")).collect();
    assert!(refused(&format!("{{{}}}", keys.join(","))).await.1.contains("more than 32 keys"));
}

#[tokio::test]
async fn a_payload_must_fit_in_a_packet() {
    let room = PACKET_BYTES_MAX - PUBLISH_OVERHEAD_BYTES - "d/d1/push".len() as u64;
    let body = |len: u64| format!(r#"{{"device":"d1","payload":"{}"}}"#, "x".repeat(len as usize));
    let (api, pushes) = accepting(1);
    assert_eq!(post_json(&api, "/v1/messages", &body(room)).await.0, 202);
    assert_eq!(pushes.lock().unwrap().len(), 1);
    let (status, detail) = refused(&body(room + 1)).await;
    assert!(status == 413 && detail.contains(&format!("at most {room}")), "{status} {detail}");
    let topic = format!(r#"{{"topic":"{}","payload":"x"}}"#, "t".repeat(3000));
    assert_eq!(refused(&topic).await.0, 413);
}

#[tokio::test]
async fn what_a_core_does_not_take_is_told_by_its_status() {
    for (error, status, kind) in [
        (PushError::NoRoom, 507, "urn:sextant:problem:no-room"),
        (PushError::TooLarge, 413, "about:blank"),
        (PushError::Unavailable, 503, "about:blank"),
        (
            PushError::Partly(sextant_mqtt::ReasonCode::QuotaExceeded),
            503,
            "urn:sextant:problem:partly-kept",
        ),
    ] {
        let api = api(2, move |_, command| {
            let Command::Push { reply, .. } = command else { panic!("{command:?}") };
            reply.send(Err(error)).unwrap();
            Ok(())
        });
        let (told, problem) =
            post_json(&api, "/v1/messages", r#"{"device":"d","payload":""}"#).await;
        assert_eq!((told, problem["type"].as_str()), (status, Some(kind)), "{problem}");
    }
    let stopped = api(1, |_, _| Err(Unavailable));
    for (method, path) in [
        (Method::POST, "/v1/messages"),
        (Method::GET, "/v1/messages/0192d3a4-0000-7000-8000-000000000000"),
        (Method::GET, "/v1/status"),
    ] {
        let (response, problem) =
            call(&stopped, method, path, r#"{"device":"d","payload":""}"#).await;
        assert_eq!(response.status(), 503, "{path} {problem}");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
    }
}

#[tokio::test(start_paused = true)]
async fn a_core_that_never_answers_costs_ten_seconds_and_says_which_message_is_in_doubt() {
    let kept = Mutex::new(Vec::new());
    let api = api(2, move |_, command| {
        kept.lock().unwrap().push(command);
        Ok(())
    });
    let begun = Instant::now();
    let (status, problem) = post_json(&api, "/v1/messages", r#"{"device":"d","payload":""}"#).await;
    assert_eq!((status, begun.elapsed().as_secs()), (504, 10));
    let detail = problem["detail"].as_str().unwrap();
    let id = detail.split("message ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    assert!(Uuid::try_parse(id).is_ok(), "{detail}");
    assert!(detail.contains("may have been accepted"), "{detail}");
    assert_eq!(get_json(&api, &format!("/v1/messages/{id}")).await.0, 504);
    assert_eq!(get_json(&api, "/v1/status").await.0, 504);
}

#[tokio::test]
async fn a_core_that_stops_before_it_answers_leaves_the_message_in_doubt() {
    let api = api(2, |_, command| {
        drop(command);
        Ok(())
    });
    let (status, problem) = post_json(&api, "/v1/messages", r#"{"device":"d","payload":""}"#).await;
    assert_eq!(status, 503);
    assert!(problem["detail"].as_str().unwrap().contains("may have been accepted"), "{problem}");
    let id = "0192d3a4-0000-7000-8000-000000000000";
    assert_eq!(get_json(&api, &format!("/v1/messages/{id}")).await.0, 503);
    assert_eq!(get_json(&api, "/v1/status").await.0, 503);
}

const ID: &str = "0192d3a4-5b6c-7d8e-9fa0-b1c2d3e4f506";

fn delivered() -> Receipt {
    Receipt {
        id: Uuid::try_parse(ID).unwrap().as_u128(),
        topic: "d/d1/push".to_owned(),
        device: Some("d1".to_owned()),
        qos: 1,
        recipients: 1,
        sent: 1,
        acknowledged: 1,
        accepted_at: NOW,
        sent_at: Some(NOW + 1),
        acknowledged_at: Some(NOW + 2),
        expires_at: NOW + 86_400_000,
        ..Receipt::default()
    }
}

#[tokio::test]
async fn a_receipt_is_found_on_whichever_core_has_it() {
    for place in 0..3 {
        let api = api(3, move |core, command| {
            let Command::Lookup { id, reply } = command else { panic!("{command:?}") };
            assert_eq!(Uuid::from_u128(id).to_string(), ID);
            reply.send((core == place).then(delivered)).unwrap();
            Ok(())
        });
        let (status, json) = get_json(&api, &format!("/v1/messages/{ID}")).await;
        assert_eq!(status, 200);
        assert_eq!(
            json,
            json!({
                "id": ID, "topic": "d/d1/push", "device": "d1", "qos": 1, "state": "acknowledged",
                "recipients": 1, "sent": 1, "acknowledged": 1, "expired": 0, "dropped": 0,
                "accepted_at": NOW_TOLD,
                "sent_at": "2026-09-21T14:13:20.124Z",
                "acknowledged_at": "2026-09-21T14:13:20.125Z",
                "expires_at": "2026-09-22T14:13:20.123Z",
            })
        );
    }
}

#[tokio::test]
async fn a_receipt_is_told_though_another_core_is_silent() {
    let kept = Mutex::new(Vec::new());
    let api = api(3, move |core, command| {
        match (core, command) {
            (0, command) => kept.lock().unwrap().push(command),
            (1, _) => return Err(Unavailable),
            (_, Command::Lookup { reply, .. }) => reply.send(Some(delivered())).unwrap(),
            (_, command) => panic!("{command:?}"),
        }
        Ok(())
    });
    assert_eq!(get_json(&api, &format!("/v1/messages/{ID}")).await.0, 200);
}

#[tokio::test]
async fn a_message_that_no_core_knows_is_not_found() {
    let api = api(2, |_, command| {
        let Command::Lookup { reply, .. } = command else { panic!("{command:?}") };
        reply.send(None).unwrap();
        Ok(())
    });
    assert_eq!(get_json(&api, &format!("/v1/messages/{ID}")).await.0, 404);
    for id in ["x", "1", &ID.replace('-', ""), &format!("{{{ID}}}"), &format!("urn:uuid:{ID}")] {
        let id = id.replace('{', "%7B").replace('}', "%7D");
        assert_eq!(get_json(&api, &format!("/v1/messages/{id}")).await.0, 400, "{id}");
    }
}

#[tokio::test]
async fn a_token_lets_its_device_in_until_the_time_told() {
    let api = api(1, |_, command| panic!("{command:?}"));
    let (response, json) =
        call(&api, Method::POST, "/v1/tokens", r#"{"device":"d1","ttl":"1h"}"#).await;
    assert_eq!((response.status().as_u16(), &json["device"]), (200, &json!("d1")));
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert_eq!(json["expires_at"], "2026-09-21T15:13:21.000Z");
    let token = json["token"].as_str().unwrap().as_bytes();
    let expires_at = NOW.div_ceil(1000) + 3600;
    assert_eq!(key().verify(token, "d1", expires_at - 1, None), Ok(()));
    assert!(key().verify(token, "d1", expires_at, None).is_err());
    let (_, json) = post_json(&api, "/v1/tokens", r#"{"device":"d1"}"#).await;
    assert_eq!(json["expires_at"], "2026-10-21T14:13:21.000Z");
}

#[tokio::test]
async fn a_token_for_what_is_no_device_is_refused() {
    let api = api(1, |_, command| panic!("{command:?}"));
    for (body, named) in [
        ("{}", "give `device`"),
        (r#"{"device":"a/b"}"#, "`device`: "),
        (r#"{"device":"d","ttl":"3651d"}"#, "`ttl`: must be 1s to 3650d"),
        (r#"{"device":"d","ttl":0}"#, "`ttl`: "),
        (r#"{"devices":"d"}"#, "did you mean `device`?"),
    ] {
        let (status, problem) = post_json(&api, "/v1/tokens", body).await;
        let detail = problem["detail"].as_str().unwrap();
        assert!(status == 422 && detail.contains(named), "{body}: {status} {detail}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_status_is_the_sum_of_all_cores() {
    let api = api(3, |core, command| {
        let Command::Status { reply } = command else { panic!("{command:?}") };
        let status = CoreStatus {
            connections: 1,
            connects_waiting: 9,
            connects_delayed: 10,
            connects_refused: 11,
            throttled: 12,
            sessions: 2,
            subscriptions: 3,
            retained: 4,
            held: 5,
            messages_in: 6,
            messages_out: 7,
            log_bytes: 100,
            log_segments: 8,
            log_read_only: core == 1,
        };
        reply.send(status).unwrap();
        Ok(())
    });
    tokio::time::advance(Duration::from_millis(90_500)).await;
    let (status, json) = get_json(&api, "/v1/status").await;
    assert_eq!(status, 200);
    assert_eq!(
        json,
        json!({
            "version": env!("CARGO_PKG_VERSION"), "uptime_s": 90, "cores": 3, "driver": "sim",
            "connections": 3,
            "connects": { "waiting": 27, "delayed": 30, "refused": 33 }, "throttled": 36, "sessions": 6, "subscriptions": 9, "retained": 12, "held": 15,
            "messages_in": 18, "messages_out": 21,
            "log": { "bytes": 300, "segments": 24, "durability": "50ms", "read_only": true },
        })
    );
}

#[test]
fn times_are_told_with_milliseconds_whatever_they_are() {
    assert_eq!(Time(0).to_string(), "1970-01-01T00:00:00.000Z");
    assert_eq!(Time(NOW).to_string(), NOW_TOLD);
    assert!(Time(u64::MAX).to_string().starts_with("9999-12-30T"));
}

fn client(client_id: &str) -> Client {
    Client {
        client_id: client_id.into(),
        user: "anonymous".into(),
        connection: Some(Connection { version: Version::V5, keep_alive_s: 60, unsent_bytes: 7 }),
        since: NOW,
        session_expiry_s: 3600,
        subscriptions: 1,
        queued: 2,
        queued_bytes: 300,
        in_flight: 4,
    }
}

/// Cores with `each` clients that look at `look` slots for one question.
fn with_clients(cores: usize, each: usize, look: usize) -> Router {
    api(cores, move |core, command| {
        let Command::Clients(Listing { from, limit, like, reply }) = command else {
            panic!("{command:?}")
        };
        let mut listed = Listed::default();
        let end = each.min(from + look);
        for slot in from..end {
            if listed.clients.len() == limit {
                listed.next = Some(slot);
                break;
            }
            let found = client(&format!("c{core}-{slot}"));
            listed.clients.extend(like.matches(&found.client_id).then_some(found));
        }
        listed.next = listed.next.or((end < each).then_some(end));
        reply.send(listed).unwrap();
        Ok(())
    })
}

#[tokio::test]
async fn pages_tell_each_client_of_all_cores_once() {
    for (cores, each, look, limit) in [(1, 0, 5, 10), (3, 25, 4, 10), (2, 10, 100, 1), (4, 3, 1, 7)]
    {
        let api = with_clients(cores, each, look);
        let (mut told, mut after) = (Vec::new(), String::new());
        for _ in 0..200 {
            let path = format!("/v1/clients?limit={limit}{after}");
            let (status, page) = get_json(&api, &path).await;
            assert_eq!(status, 200, "{page}");
            let clients = page["clients"].as_array().unwrap();
            assert!(clients.len() <= limit);
            told.extend(clients.iter().map(|told| told["client"].as_str().unwrap().to_owned()));
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
        }
        let every = (0..cores).flat_map(|core| (0..each).map(move |n| format!("c{core}-{n}")));
        assert_eq!(told, every.collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_page_ends_early_where_few_of_many_clients_are_meant() {
    let api = with_clients(1, 1000, 1);
    let (_, page) = get_json(&api, "/v1/clients?like=*-900").await;
    assert_eq!(page, json!({"clients": [], "next": "0-256"}));
    let (_, page) = get_json(&api, "/v1/clients?like=*-900&after=0-850").await;
    assert_eq!(page["clients"][0]["client"], "c0-900");
    assert_eq!((page["clients"].as_array().unwrap().len(), &page["next"]), (1, &Value::Null));
}

#[tokio::test]
async fn a_listing_that_makes_no_sense_is_refused_by_the_name_of_what_is_wrong() {
    let api = with_clients(2, 1, 1);
    let long = format!("like={}", "x".repeat(257));
    for (query, named) in [
        ("limit=0", "`limit`"),
        ("limit=1001", "`limit`"),
        ("limit=many", "limit"),
        ("after=", "`after`"),
        ("after=2-0", "`after`"),
        ("after=0", "`after`"),
        ("after=0-+1", "`after`"),
        ("after=0-99999999999", "`after`"),
        ("afetr=0-0", "afetr"),
        (&long, "`like`"),
    ] {
        let (status, problem) = get_json(&api, &format!("/v1/clients?{query}")).await;
        let detail = problem["detail"].as_str().unwrap();
        assert!(status == 400 && detail.contains(named), "{query}: {status} {detail}");
    }
    let (_, page) = get_json(&api, "/v1/clients?after=1-4000000000").await;
    assert_eq!(page, json!({"clients": []}));
}

#[tokio::test]
async fn one_client_is_told_by_its_home_with_its_subscriptions() {
    let api = api(8, |core, command| {
        let Command::Client { client_id, reply } = command else { panic!("{command:?}") };
        assert_eq!((core, client_id.as_str()), (home("a/b c", 8), "a/b c"));
        let filters = vec![Subscribed {
            filter: "d/#".into(),
            qos: QoS::ExactlyOnce,
            no_local: true,
            retain_as_published: false,
            subscription_id: 5,
        }];
        let peer = Some("127.0.0.1:9".parse().unwrap());
        reply.send(Some(ClientDetail { client: client(&client_id), filters, peer })).unwrap();
        Ok(())
    });
    let (status, told) = get_json(&api, "/v1/clients/a%2Fb%20c").await;
    assert_eq!(status, 200);
    assert_eq!(
        told,
        json!({
            "client": "a/b c", "user": "anonymous", "connected": true,
            "connected_at": NOW_TOLD, "version": "5", "keep_alive_s": 60, "session_expiry_s": 3600, "subscriptions": 1, "queued": 2,
            "queued_bytes": 300, "in_flight": 4, "unsent_bytes": 7, "core": home("a/b c", 8),
            "peer": "127.0.0.1:9",
            "filters": [{
                "filter": "d/#", "qos": 2, "no_local": true, "retain_as_published": false,
                "subscription_id": 5,
            }],
        })
    );
}

#[tokio::test]
async fn a_client_that_is_away_is_told_with_when_it_left() {
    let api = api(1, |_, command| {
        let Command::Client { client_id, reply } = command else { panic!("{command:?}") };
        let away = Client {
            connection: None,
            since: NOW,
            session_expiry_s: u32::MAX,
            ..client(&client_id)
        };
        reply.send(Some(ClientDetail { client: away, filters: Vec::new(), peer: None })).unwrap();
        Ok(())
    });
    let (_, told) = get_json(&api, "/v1/clients/lamp").await;
    assert_eq!((&told["connected"], &told["left_at"]), (&json!(false), &json!(NOW_TOLD)));
    assert!(told.get("connected_at").is_none(), "{told}");
    assert!(told["session_expiry_s"].is_null() && told.get("version").is_none(), "{told}");
}

#[tokio::test]
async fn what_comes_of_a_kick_is_told_by_its_status() {
    for (kicked, status) in [
        (Kicked::Done, 204),
        (Kicked::Unknown, 404),
        (Kicked::NotConnected, 404),
        (Kicked::NotKept, 503),
    ] {
        for (query, ends) in [("", false), ("?session=false", false), ("?session=true", true)] {
            let api = api(1, move |_, command| {
                let Command::Kick { session, reply, .. } = command else { panic!("{command:?}") };
                assert_eq!(session, ends);
                reply.send(kicked).unwrap();
                Ok(())
            });
            let path = format!("/v1/clients/lamp{query}");
            let (response, _) = call(&api, Method::DELETE, &path, "").await;
            assert_eq!(response.status(), status, "{path} {kicked:?}");
        }
    }
    let nobody = api(1, |_, command| panic!("{command:?}"));
    for query in ["session=perhaps", "sesion=true"] {
        let path = format!("/v1/clients/lamp?{query}");
        let (response, _) = call(&nobody, Method::DELETE, &path, "").await;
        assert_eq!(response.status(), 400, "{query}");
    }
}

/// Cores that were given bans, with who is connected: everybody is disconnected once.
fn with_bans(cores: usize, dir: &std::path::Path) -> (Router, Arc<Mutex<Vec<Arc<Bans>>>>) {
    let held = Arc::new(Mutex::new(vec![Arc::<Bans>::default(); cores]));
    let seen = Arc::clone(&held);
    let behaviour = move |core: usize, command| {
        match command {
            Command::Bans { bans, reply } => {
                seen.lock().unwrap()[core] = bans;
                reply.send(()).unwrap();
            }
            Command::Kick { client_id, session, reply } => {
                assert!(core == home(&client_id, cores) && !session);
                let bans = Arc::clone(&seen.lock().unwrap()[core]);
                assert!(bans.refuses(Banned::Client, &client_id, NOW), "banned first");
                reply.send(Kicked::Done).unwrap();
            }
            Command::Evict { from, reply } => {
                let next = (from < 2).then_some(from + 1);
                reply.send(Evicted { disconnected: 1, next }).unwrap();
            }
            command => panic!("{command:?}"),
        }
        Ok(())
    };
    let (keeper, bans) = Keeper::open(dir).unwrap();
    let kept = Kept::new(keeper, Arc::new(bans));
    (
        router(Arc::new(Fake { cores, behaviour: Box::new(behaviour) }), key(), settings(), kept),
        held,
    )
}

#[tokio::test]
async fn a_ban_is_on_disk_and_on_every_core_before_it_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let (api, held) = with_bans(3, dir.path());
    let body = r#"{"for":"1h","why":"noise"}"#;
    let (response, made) = call(&api, Method::PUT, "/v1/bans/client/a%2Fb", body).await;
    assert_eq!(response.status(), 200, "{made}");
    let told = json!({
        "kind": "client", "name": "a/b", "since": NOW_TOLD,
        "until": "2026-09-21T15:13:20.123Z", "why": "noise",
    });
    let mut expected = told.clone();
    expected["disconnected"] = json!(1);
    assert_eq!(made, expected);
    let (_, made) = call(&api, Method::PUT, "/v1/bans/user/bob", "").await;
    assert_eq!((&made["disconnected"], made.get("until")), (&json!(9), None), "{made}");
    let on_disk = Keeper::open(dir.path()).unwrap().1;
    assert!(held.lock().unwrap().iter().all(|bans| **bans == on_disk));
    let (_, all) = get_json(&api, "/v1/bans").await;
    assert_eq!(all["bans"][0], told);
    assert_eq!(
        (all["bans"].as_array().unwrap().len(), &all["bans"][1]["name"]),
        (2, &json!("bob"))
    );

    let again = with_bans(3, dir.path()).0;
    assert_eq!(get_json(&again, "/v1/bans").await.1, all, "they outlive the daemon");
    for status in [204, 404] {
        let (response, _) = call(&api, Method::DELETE, "/v1/bans/client/a%2Fb", "").await;
        assert_eq!(response.status(), status);
    }
    assert!(!held.lock().unwrap()[2].refuses(Banned::Client, "a/b", NOW));
    assert_eq!(Keeper::open(dir.path()).unwrap().1.list(NOW).len(), 1);
}

#[tokio::test]
async fn what_a_ban_must_not_say_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (api, held) = with_bans(1, dir.path());
    let (long_name, long_why) = ("n".repeat(1025), "w".repeat(257));
    for (path, body, status, named) in [
        ("client/a", r#"{"for":"soon"}"#, 422, "`for`"),
        ("client/a", r#"{"for":0}"#, 422, "`for`"),
        ("client/a", r#"{"until":1}"#, 422, "until"),
        ("client/a", &format!(r#"{{"why":"{long_why}"}}"#), 422, "`why`"),
        ("client/a", "{", 400, "body"),
        ("device/a", "", 404, "`client` or a `user`"),
        (&format!("user/{long_name}"), "", 422, "name"),
    ] {
        let (response, problem) = call(&api, Method::PUT, &format!("/v1/bans/{path}"), body).await;
        let detail = problem["detail"].as_str().unwrap();
        assert!(response.status() == status && detail.contains(named), "{body} {problem}");
    }
    assert!(held.lock().unwrap()[0].list(NOW).is_empty());
}

#[tokio::test]
async fn a_ban_that_cannot_be_kept_is_not_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let (api, held) = with_bans(1, dir.path());
    drop(dir);
    let (response, problem) = call(&api, Method::PUT, "/v1/bans/client/a", "").await;
    assert_eq!(response.status(), 503, "{problem}");
    assert!(held.lock().unwrap()[0].list(NOW).is_empty());
    assert_eq!(get_json(&api, "/v1/bans").await.1, json!({"bans": []}));
}
