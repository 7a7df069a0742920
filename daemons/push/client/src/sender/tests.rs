//! The sender against a server that answers as it is told.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uuid::Uuid;

use super::server::{Reply, Server};
use super::*;
use crate::types::{
    AuditQuery, By, DeviceEntry, DeviceUpdate, Entry, Judgement, ListFormat, MessageRequest,
    Notification, State, Target,
};

fn message(id: u128) -> Value {
    json!({
        "id": Uuid::from_u128(id), "app": "shop", "name": null, "state": "running",
        "class": "operational", "category": null, "priority": 5, "sender": "crm",
        "target": {"everyone": true}, "notification": {"title": "Hi"}, "data": null,
        "targets": 3, "unknown": 0, "accepted_at": "2026-11-23T10:00:00.000Z",
        "expires_at": "2026-11-24T10:00:00.000Z", "schedule": null, "collapse_key": null,
        "rate": null, "test": false, "recall_of": null, "review": null,
        "funnel": {"targeted": 3, "eligible": 3, "dropped": {}, "latency_ms": null},
    })
}

fn answer(status: u16, body: &Value) -> Reply {
    Reply::Answer(status, "", body.to_string())
}

fn request() -> MessageRequest {
    MessageRequest {
        notification: Some(Notification { title: Some("Hi".into()), ..Default::default() }),
        ..MessageRequest::to(Target::Everyone)
    }
}

#[test]
fn a_message_is_sent_again_with_the_same_key_until_it_has_an_answer() {
    let server = Server::start(vec![
        Reply::Close,
        Reply::Answer(503, "", String::new()),
        Reply::Answer(429, "retry-after: 0\r\n", String::new()),
        Reply::Answer(200, "idempotency-replayed: true\r\n", message(7).to_string()),
    ]);
    let sent = server.sender().send(&request()).unwrap();
    assert_eq!((sent.message.id, sent.replayed), (Uuid::from_u128(7), true));
    let asked = server.asked();
    assert_eq!(asked.len(), 4);
    for asked in &asked {
        assert_eq!(asked.line, "POST /v1/apps/shop/messages HTTP/1.1");
        assert_eq!(asked.header("authorization"), Some("Bearer spk_test"));
        assert_eq!(asked.header("content-type"), Some("application/json"));
        assert_eq!(asked.header("idempotency-key"), Some(sent.idempotency_key.as_str()));
        let expected = json!({"target": {"everyone": true}, "notification": {"title": "Hi"}});
        assert_eq!(asked.body.parse::<Value>().unwrap(), expected);
    }
    assert_eq!(Uuid::parse_str(&sent.idempotency_key).unwrap().get_version_num(), 7);
}

#[test]
fn attempts_are_bounded() {
    let unavailable = || Reply::Answer(503, "", String::new());
    let server = Server::start((0..4).map(|_| unavailable()).collect());
    let error = server.sender().send(&request()).unwrap_err();
    assert_eq!(error.problem().unwrap().status, 503);
    assert_eq!(server.asked().len(), 4);
}

#[test]
fn retry_after_is_waited_for_and_a_long_one_is_the_callers() {
    let server = Server::start(vec![
        Reply::Answer(429, "retry-after: 1\r\n", String::new()),
        answer(202, &message(1)),
    ]);
    let began = Instant::now();
    server.sender().send(&request()).unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1));
    let server = Server::start(vec![Reply::Answer(429, "retry-after: 3600\r\n", String::new())]);
    let error = server.sender().send(&request()).unwrap_err();
    assert_eq!(error.problem().unwrap().retry_after, Some(Duration::from_secs(3600)));
}

#[test]
fn what_the_daemon_refuses_is_not_said_again() {
    let problem = json!({"type": "https://sextant/problems/content-rejected", "title": "Rejected",
        "status": 422, "detail": "it has a word", "rule": "words"});
    let server = Server::start(vec![answer(422, &problem)]);
    let error = server.sender().send(&request()).unwrap_err();
    let problem = error.problem().unwrap();
    assert_eq!((problem.name(), &problem.more["rule"]), ("content-rejected", &json!("words")));
}

#[test]
fn a_recall_is_said_once() {
    let server = Server::start(vec![Reply::Close]);
    let error = server.sender().recall(Uuid::from_u128(7)).unwrap_err();
    assert!(matches!(error, Error::Transport(_)));
    let asked = server.asked();
    assert!(
        asked[0].line.ends_with("/messages/00000000-0000-0000-0000-000000000007/recall HTTP/1.1")
    );
    assert_eq!(asked[0].header("content-length"), Some("0"));
}

#[test]
fn a_recall_says_what_it_did() {
    let id = Uuid::from_u128(7);
    let server =
        Server::start(vec![answer(200, &json!({"id": id, "withdrawn": 2, "recall_message": id}))]);
    let recalled = server.sender().recall(id).unwrap();
    assert_eq!((recalled.withdrawn, recalled.recall_message), (2, Some(id)));
}

#[test]
fn a_key_that_no_header_can_have_is_refused_before_anything_is_said() {
    let sender = Sender::new("http://127.0.0.1:1", "shop", "spk").unwrap();
    for key in ["", "a b", "a\r\nb", &"x".repeat(129)] {
        let request = MessageRequest { idempotency_key: Some(key.into()), ..request() };
        assert!(matches!(sender.send(&request), Err(Error::Request(_))), "{key:?}");
    }
    for base in ["https://127.0.0.1", "127.0.0.1:7701", "http://", "http://a?b", "http://a b"] {
        assert!(matches!(Sender::new(base, "shop", "spk"), Err(Error::Request(_))), "{base}");
    }
    assert!(Sender::new("http://a", "shop", "spk\r\nx: y").is_err());
}

#[test]
fn a_batch_tells_of_each_message_with_its_key() {
    let problem = json!({"type": "about:blank", "title": "No", "status": 422, "detail": "target"});
    let server = Server::start(vec![
        Reply::Close,
        answer(
            200,
            &json!({"results": [{"status": 202, "message": message(1)},
                {"status": 422, "problem": problem}]}),
        ),
    ]);
    let own = MessageRequest { idempotency_key: Some("own".into()), ..request() };
    let outcomes = server.sender().send_batch(&[request(), own]).unwrap();
    assert_eq!(outcomes[0].result.as_ref().unwrap().id, Uuid::from_u128(1));
    assert_eq!(outcomes[1].result.as_ref().unwrap_err().status, 422);
    assert_eq!(outcomes[1].idempotency_key, "own");
    let asked = server.asked();
    assert_eq!(asked[0].body, asked[1].body);
    let body: Value = asked[1].body.parse().unwrap();
    assert_eq!(body["messages"][0]["idempotency_key"], json!(outcomes[0].idempotency_key));
    assert_eq!(body["messages"][1]["idempotency_key"], json!("own"));
}

fn accepted(line: &str) -> String {
    let asked: Value = line.parse().unwrap();
    let id = asked["data"]["n"].as_u64().unwrap();
    json!({"status": 202, "message": message(u128::from(id))}).to_string()
}

fn numbered(n: u64) -> MessageRequest {
    let data = json!({"n": n}).as_object().cloned();
    MessageRequest { data, ..MessageRequest::to(Target::Device("d".into())) }
}

#[test]
fn a_stream_that_breaks_goes_on_with_what_has_no_outcome() {
    let server = Server::start(vec![
        Reply::Lines(3, accepted, false),
        Reply::Close,
        Reply::Lines(usize::MAX, accepted, true),
    ]);
    let sender = server.sender();
    let outcomes: Vec<_> = sender.stream((0..5000).map(numbered)).collect();
    assert_eq!(outcomes.len(), 5000);
    for (n, outcome) in outcomes.iter().enumerate() {
        let outcome = outcome.as_ref().unwrap();
        assert_eq!(outcome.result.as_ref().unwrap().id, Uuid::from_u128(n as u128));
    }
    let asked = server.asked();
    assert_eq!(asked[0].line, "POST /v1/apps/shop/messages/stream HTTP/1.1");
    // The third connection begins where outcomes ended, with the keys of the first.
    let key_of = |line: &str| line.parse::<Value>().unwrap()["idempotency_key"].clone();
    let first = asked[2].body.lines().next().unwrap();
    assert_eq!(key_of(first), json!(outcomes[3].as_ref().unwrap().idempotency_key));
}

#[test]
fn a_stream_gives_outcomes_before_its_requests_end() {
    let server = Server::start(vec![Reply::Lines(usize::MAX, accepted, true)]);
    let sender = server.sender();
    let taken = std::cell::Cell::new(0);
    let requests = (0..5000).map(numbered).inspect(|_| taken.set(taken.get() + 1));
    let mut stream = sender.stream(requests);
    let first = stream.next().unwrap().unwrap();
    assert_eq!(first.result.unwrap().id, Uuid::from_u128(0));
    assert!(taken.get() <= 1024, "no more than the window is taken ahead: {}", taken.get());
    assert_eq!(stream.count(), 4999);
    drop(server.asked());
}

#[test]
fn a_stream_that_the_daemon_ends_goes_on_where_it_ended() {
    fn unavailable(_: &str) -> String {
        let problem = json!({"type": "about:blank", "title": "No", "status": 503, "detail": ""});
        json!({"status": 503, "problem": problem}).to_string()
    }
    let server = Server::start(vec![
        Reply::Lines(1, unavailable, true),
        Reply::Lines(2, accepted, true),
        Reply::Lines(usize::MAX, accepted, true),
    ]);
    let sender = server.sender();
    let ids =
        sender.stream((0..5).map(numbered)).map(|outcome| outcome.unwrap().result.unwrap().id);
    assert_eq!(ids.collect::<Vec<_>>(), (0..5).map(Uuid::from_u128).collect::<Vec<_>>());
    assert_eq!(server.asked().len(), 3);
}

#[test]
fn a_message_that_is_too_long_for_a_stream_ends_it_behind_those_before() {
    let server = Server::start(vec![Reply::Lines(usize::MAX, accepted, true)]);
    let sender = server.sender();
    let long = MessageRequest { name: Some("x".repeat(70_000)), ..numbered(1) };
    let mut stream = sender.stream([numbered(0), long, numbered(2)]);
    assert!(stream.next().unwrap().is_ok());
    assert!(matches!(stream.next(), Some(Err(Error::Request(_)))));
    assert!(stream.next().is_none());
    drop(server.asked());
}

#[test]
fn an_empty_batch_asks_nothing() {
    let sender = Sender::new("http://127.0.0.1:1", "shop", "spk").unwrap();
    assert_eq!(sender.send_batch(&[]).unwrap(), []);
}

#[test]
fn a_stream_that_is_refused_says_so_once_and_keeps_what_was_taken() {
    let problem = json!({"type": "about:blank", "title": "No", "status": 403, "detail": "role"});
    let server = Server::start(vec![answer(403, &problem)]);
    let sender = server.sender();
    let mut stream = sender.stream((0..3).map(numbered));
    let error = stream.next().unwrap().unwrap_err();
    assert_eq!(error.problem().unwrap().status, 403);
    assert!(stream.next().is_none());
    let unanswered = stream.into_unanswered();
    assert_eq!(unanswered.len(), 3);
    assert!(unanswered.iter().all(|request| request.idempotency_key.is_some()));
}

#[test]
fn devices_are_put_changed_read_and_removed() {
    let device = json!({"device": "a/b c", "platform": "android", "app_version": null,
        "alias": "u", "tags": ["vip"], "attributes": {"age": 33}, "time_zone": null,
        "language": null, "test": false, "registered_at": "2026-11-23T10:00:00.000Z",
        "updated_at": "2026-11-23T10:00:00.000Z", "online": true, "pending": 2});
    let server = Server::start(vec![
        answer(201, &device),
        answer(200, &device),
        answer(200, &device),
        Reply::Answer(204, "", String::new()),
    ]);
    let sender = server.sender();
    let entry = DeviceEntry { platform: "android".into(), ..DeviceEntry::default() };
    let put = sender.put_device("a/b c", &entry).unwrap();
    assert_eq!((put.entry.attributes["age"].as_u64(), put.pending), (Some(33), 2));
    let update = DeviceUpdate { set_tags: vec!["vip".into()], ..DeviceUpdate::default() };
    sender.update_device("a/b c", &update).unwrap();
    assert_eq!(sender.device("a/b c").unwrap().entry.tags, ["vip"]);
    sender.remove_device("a/b c").unwrap();
    let asked = server.asked();
    let methods = ["PUT", "PATCH", "GET", "DELETE"];
    for (asked, method) in asked.iter().zip(methods) {
        assert_eq!(asked.line, format!("{method} /v1/apps/shop/devices/a%2Fb%20c HTTP/1.1"));
    }
    assert_eq!(asked[0].body, r#"{"platform":"android"}"#);
}

#[test]
fn devices_lists_and_tokens_are_uploaded_and_asked_for() {
    let list = Uuid::from_u128(9);
    let server = Server::start(vec![
        answer(200, &json!({"registered": 2, "updated": 0, "unchanged": 0, "refused": 0})),
        answer(
            201,
            &json!({"list": list, "devices": 1, "repeated": 0, "unknown": 1,
                "examples": [{"line": 3, "name": "x"}], "expires_at": "2026-11-24T10:00:00Z"}),
        ),
        answer(
            200,
            &json!({"device": "d", "token": "sxd1.x", "expires_at": "2026-12-23T10:00:00Z"}),
        ),
    ]);
    let sender = server.sender();
    let entry = |n: u32| DeviceEntry { platform: format!("p{n}"), ..DeviceEntry::default() };
    let devices = (0..2).map(|n| (format!("d{n}"), entry(n)));
    assert_eq!(sender.import_devices(devices).unwrap().registered, 2);
    let rows = "device,name\nd0,Li\nx,\n";
    let upload = sender.upload_list(ListFormat::Csv, rows.as_bytes()).unwrap();
    assert_eq!((upload.list, upload.examples[0].line), (list, 3));
    let token = sender.token("d", Duration::from_secs(30 * 86_400)).unwrap();
    assert_eq!(token.token, "sxd1.x");
    let asked = server.asked();
    let lines =
        "{\"device\":\"d0\",\"platform\":\"p0\"}\n{\"device\":\"d1\",\"platform\":\"p1\"}\n";
    assert_eq!(asked[0].body, lines);
    assert_eq!(asked[0].header("content-type"), Some("application/x-ndjson"));
    assert_eq!((asked[1].body.as_str(), asked[1].header("content-type")), (rows, Some("text/csv")));
    assert_eq!(asked[2].body, r#"{"ttl":"2592000s"}"#);
}

#[test]
fn pages_are_asked_for_until_there_are_no_more() {
    let fact = |seq: u64| {
        json!({"kind": "fact", "seq": seq, "at": "2026-11-23T10:00:00.000Z",
            "message": Uuid::nil(), "device": "d", "stage": "sent", "reason": null})
    };
    let server = Server::start(vec![
        answer(200, &json!({"entries": [fact(1), fact(2)], "next": "c/2", "incomplete": false})),
        Reply::Close,
        answer(200, &json!({"entries": [fact(3)], "next": null, "incomplete": false})),
    ]);
    let sender = server.sender();
    let query = AuditQuery {
        device: Some("d&e".into()),
        stages: vec!["sent".into(), "shown".into()],
        limit: Some(2),
        ..AuditQuery::default()
    };
    let seqs: Vec<u64> = sender
        .audit(query)
        .map(|entry| match entry.unwrap() {
            Entry::Fact(fact) => fact.seq,
            Entry::Event(event) => event.seq,
        })
        .collect();
    assert_eq!(seqs, [1, 2, 3]);
    let asked = server.asked();
    let path = "GET /v1/apps/shop/audit?device=d%26e&stages=sent%2Cshown&limit=2";
    assert_eq!(asked[0].line, format!("{path} HTTP/1.1"));
    assert_eq!(asked[2].line, format!("{path}&after=c%2F2 HTTP/1.1"));
}

#[test]
fn a_dry_run_and_a_funnel_are_read() {
    let server = Server::start(vec![
        answer(
            200,
            &json!({"dry_run": true, "judgement": "held", "reason": "content_review", "targets": 9,
                "online": 3, "now": 5, "later": {"quiet_hours": 3}, "never": {"daily_quota": 1}}),
        ),
        answer(
            200,
            &json!({"targeted": 9, "sent": 8, "delivered": 7, "dropped": {"daily_quota": 1},
                "latency_ms": {"count": 7, "p50": 1.5, "p90": 3, "p99": 4, "max": 9},
                "groups": [{"value": null, "targeted": 9, "sent": 8}]}),
        ),
    ]);
    let sender = server.sender();
    let dry_run = sender.dry_run(&request()).unwrap();
    assert_eq!((dry_run.judgement, dry_run.later["quiet_hours"]), (Judgement::Held, 3));
    let funnel = sender.funnel(Uuid::nil(), Some(By::Version)).unwrap();
    assert_eq!((funnel.groups[0].sent, funnel.latency_ms.unwrap().count), (8, 7));
    let asked = server.asked();
    assert_eq!(asked[0].body.parse::<Value>().unwrap()["dry_run"], json!(true));
    assert_eq!(asked[0].header("idempotency-key"), None);
    assert!(asked[1].line.contains("/funnel?by=version "));
}

#[test]
fn a_message_is_watched_until_it_has_finished_over_as_many_connections_as_it_takes() {
    let event = |state: &str, sent: u64| {
        format!(
            "event: funnel\r\ndata: {}\r\n\r\n",
            json!({"state": state, "funnel": {"sent": sent}})
        )
    };
    let first = format!(": hello\n\nevent: other\ndata: x\n\n{}", event("running", 1));
    let second = event("running", 1) + &event("running", 2) + &event("finished", 3);
    let server = Server::start(vec![
        Reply::Answer(200, "content-type: text/event-stream\r\n", first),
        Reply::Close,
        Reply::Answer(200, "content-type: text/event-stream\r\n", second),
    ]);
    let sender = server.sender();
    let seen: Vec<_> = sender
        .live(Uuid::nil())
        .map(|live| live.unwrap())
        .map(|live| (live.state, live.funnel.sent))
        .collect();
    assert_eq!(seen, [(State::Running, 1), (State::Running, 2), (State::Finished, 3)]);
    assert_eq!(server.asked()[0].header("accept"), Some("text/event-stream"));
}

#[test]
fn no_secret_is_in_what_debug_prints() {
    let sender = Sender::new("http://127.0.0.1:7701/", "shop", "spk_secret").unwrap();
    assert!(!format!("{sender:?}").contains("secret"));
}
