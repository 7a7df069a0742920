use super::*;

use serde_json::{Value, json};
use std::io::Write;
use std::net::TcpListener;
use std::sync::mpsc::channel;

fn question() -> Question {
    Question {
        client_id: "c1".into(),
        user_name: Some("lamp".into()),
        password: Some(Zeroizing::new(b"hunter2".to_vec())),
        peer: Some("192.0.2.7:1234".parse().unwrap()),
        version: Version::V5,
        unix_ms: 5_000_000,
        otherwise: Verified::Refused(Refusal::NotAuthorized),
    }
}

fn written(question: &Question) -> Value {
    serde_json::from_slice(&question.to_json().unwrap()).unwrap()
}

fn read(answer: &Value) -> Result<Answer, serde_json::Error> {
    serde_json::from_value(answer.clone())
}

fn admit(question: &Question, answer: &Value) -> Result<Principal, String> {
    let allow = Arc::new(checked_rules(&["all d/{user}/#".to_owned()]));
    question.admit(&read(answer).unwrap(), &allow)
}

#[test]
fn a_question_says_what_the_client_sent() {
    let whole = json!({"client_id": "c1", "username": "lamp", "password": "hunter2",
        "peer": "192.0.2.7:1234", "protocol": "mqtt", "version": "5"});
    assert_eq!(written(&question()), whole);
    let bare = Question {
        user_name: None,
        password: None,
        peer: None,
        version: Version::V311,
        ..question()
    };
    let expected = json!({"client_id": "c1", "protocol": "mqtt", "version": "3.1.1"});
    assert_eq!(written(&bare), expected);
    let binary = Question { password: Some(Zeroizing::new(vec![0xff, 0])), ..question() };
    assert_eq!(written(&binary)["password_base64"], "/wA=");
    assert_eq!(written(&binary)["password"], Value::Null);
}

#[test]
fn a_question_is_written_without_moving() {
    let longest = Zeroizing::new(vec![1; PASSWORD_BYTES_MAX]);
    let question = Question { password: Some(longest), ..question() };
    let json = question.to_json().unwrap();
    let room = 6 * (PASSWORD_BYTES_MAX + "c1lamp".len()) + 256;
    assert!(json.len() <= room && json.capacity() == room, "{} {}", json.len(), json.capacity());
}

#[test]
fn an_answer_says_who_the_client_is_and_what_it_may_do() {
    let plain = admit(&question(), &json!({"result": "allow", "later": [1]})).unwrap();
    assert_eq!((plain.name(), plain.expires_at()), ("lamp", None));
    assert!(plain.may_publish("d/lamp/up") && !plain.may_publish("d/c1/up"));
    let more = json!({"result": "allow", "user": "u", "allow": ["publish log/{user}/{client}"]});
    let more = admit(&question(), &more).unwrap();
    assert!(more.name() == "u" && more.may_publish("log/u/c1") && more.may_publish("d/u/up"));
    for key in ["superuser", "is_superuser"] {
        let root = admit(&question(), &json!({"result": "allow", key: true})).unwrap();
        assert!(root.may_publish("a") && root.may_subscribe("#"), "{key}");
    }
    let nameless = Question { user_name: Some("".into()), ..question() };
    assert_eq!(admit(&nameless, &json!({"result": "allow"})).unwrap().name(), "c1");
    let short = admit(&question(), &json!({"result": "allow", "expires_in": 1.5})).unwrap();
    assert_eq!(short.expires_at(), Some(5_001_500));
    let until = json!({"result": "allow", "expires_in": 900, "expire_at": 5600});
    assert_eq!(admit(&question(), &until).unwrap().expires_at(), Some(5_600_000));
}

#[test]
fn an_answer_that_makes_no_sense_lets_nobody_in() {
    for answer in [
        json!({"result": "allow", "allow": ["write a"]}),
        json!({"result": "allow", "allow": vec!["all a"; RULES_MAX + 1]}),
        json!({"result": "allow", "user": ""}),
        json!({"result": "allow", "user": "u".repeat(257)}),
        json!({"result": "allow", "expires_in": 0}),
        json!({"result": "allow", "expires_in": -1}),
        json!({"result": "allow", "expire_at": 4999}),
    ] {
        assert!(admit(&question(), &answer).is_err(), "{answer}");
    }
    for answer in [
        json!({}),
        json!({"result": "Allow"}),
        json!({"result": true}),
        json!({"result": "allow", "superuser": "yes"}),
        json!({"result": "allow", "allow": "all #"}),
        json!([]),
        json!(null),
    ] {
        assert!(read(&answer).is_err(), "{answer}");
    }
}

/// Answers each question with these bytes and a closed connection.
fn server(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/auth", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
            while !request.ends_with(b"}") {
                match stream.read(&mut buffer) {
                    Ok(0) | Err(_) => break,
                    Ok(len) => request.extend_from_slice(&buffer[..len]),
                }
            }
            let text = String::from_utf8(request).unwrap();
            assert!(text.contains("x-api-key: k1") && text.contains("\"hunter2\""), "{text}");
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    url
}

/// What comes of a question.
fn asked(url: String, on_failure: OnFailure, question: Question) -> (Verified, Arc<Counts>) {
    let (deliver, delivered) = channel();
    let counts = Arc::new(Counts::default());
    let deliver: Deliver = Arc::new(move |core, conn, verified| {
        deliver.send((core, conn, verified)).unwrap();
    });
    let headers = [("x-api-key".to_owned(), sextant_service::config::Secret::new("k1"))].into();
    let url = config::Url::new(url);
    let http = config::Http { url, on_failure, headers, ..config::Http::default() };
    let hook = Hook::spawn(&http, &counts, &deliver).unwrap();
    hook.try_ask(3, 7, question).unwrap();
    drop((hook, deliver));
    let (core, conn, verified) = delivered.recv().unwrap();
    assert_eq!((core, conn), (3, 7));
    assert!(delivered.recv().is_err(), "one question has one answer, and the threads end");
    (verified, counts)
}

#[test]
fn who_is_asked_decides() {
    let counted = |counts: &Counts| {
        [&counts.allowed, &counts.denied, &counts.ignored, &counts.failed]
            .map(|counter| counter.load(Ordering::Relaxed))
    };
    let ok = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
    for (answer, expected, numbers) in [
        ("{\"result\":\"allow\"}", Ok("lamp"), [1, 0, 0, 0]),
        ("{\"result\":\"deny\"}", Err(Refusal::BadCredentials), [0, 1, 0, 0]),
        ("{\"result\":\"ignore\"}", Err(Refusal::NotAuthorized), [0, 0, 1, 0]),
        ("{\"result\":\"what\"}", Err(Refusal::Unavailable), [0, 0, 0, 1]),
        ("{\"result\":\"allow\",\"allow\":[\"x\"]}", Err(Refusal::Unavailable), [0, 0, 0, 1]),
    ] {
        let url = server(String::leak(format!("{ok}{answer}")));
        let (verified, counts) = asked(url, OnFailure::Deny, question());
        match (&verified, expected) {
            (Verified::Admitted(principal), Ok(name)) => assert_eq!(principal.name(), name),
            (Verified::Refused(refusal), Err(expected)) => assert_eq!(*refusal, expected),
            other => panic!("{answer}: {other:?}"),
        }
        assert_eq!(counted(&counts), numbers, "{answer}");
    }
    let no_content = server("HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n");
    let (verified, _) = asked(no_content, OnFailure::Deny, question());
    assert!(matches!(verified, Verified::Admitted(_)), "{verified:?}");
}

#[test]
fn what_becomes_of_a_failure_is_configured() {
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/", listener.local_addr().unwrap())
    };
    for url in [
        nobody,
        server("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n"),
        server("HTTP/1.1 302 Found\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n"),
        server("HTTP/1.1 201 Created\r\ncontent-length: 18\r\n\r\n{\"result\":\"allow\"}"),
        server("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"result\":\"allow\"}"),
        server("garbage\r\n\r\n"),
        server(""),
    ] {
        let (verified, counts) = asked(url.clone(), OnFailure::Deny, question());
        let refused = matches!(verified, Verified::Refused(Refusal::Unavailable));
        assert!(refused, "{url} {verified:?}");
        assert_eq!(counts.failed.load(Ordering::Relaxed), 1);
        let (verified, _) = asked(url, OnFailure::Ignore, question());
        assert!(matches!(verified, Verified::Refused(Refusal::NotAuthorized)), "{verified:?}");
    }
}
