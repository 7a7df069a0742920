//! The admin server over loopback sockets.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use sextant_service::admin::{self, Admin, AdminToken, Health, Limits, Problem};
use sextant_service::client::{Client, ClientError};
use sextant_service::metrics;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::Instant;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn limits() -> Limits {
    Limits {
        connections_max: 16,
        body_bytes_max: 1024,
        header_timeout: Duration::from_secs(10),
        request_timeout: Duration::from_secs(30),
        drain_timeout: Duration::from_secs(5),
        streams: &["/stream"],
    }
}

#[derive(serde::Deserialize)]
struct Message {
    payload: String,
}

async fn accept(Json(message): Json<Message>) -> Result<Json<Value>, Problem> {
    match message.payload.as_str() {
        "" => Err(Problem::bad_request("`payload` is empty").of_kind("empty", "Empty payload")),
        payload => Ok(Json(json!({ "len": payload.len() }))),
    }
}

fn admin() -> Admin {
    let mut families = metrics::Builder::new("test", "1.2.3");
    families.counter("test_total", "A test.");
    Admin {
        token: Arc::new(AdminToken::parse(TOKEN).unwrap()),
        health: Health::default(),
        metrics: Arc::new(families.build(1)),
    }
}

fn router(admin: Admin) -> Router {
    let api = Router::new()
        .route("/v1/messages", post(accept))
        .route("/v1/stuck", get(std::future::pending::<&'static str>))
        .route(
            "/v1/slow",
            get(async || {
                tokio::time::sleep(Duration::from_secs(2)).await;
                "slow"
            }),
        )
        .route("/v1/large", get(async || vec![b'x'; 64 << 20]));
    admin::router(api, Router::new(), admin)
}

struct Server {
    addr: SocketAddr,
    stop: oneshot::Sender<()>,
    done: tokio::task::JoinHandle<std::io::Result<()>>,
}

fn start(limits: Limits) -> Server {
    start_with(limits, admin())
}

fn start_with(limits: Limits, admin: Admin) -> Server {
    let addr = "127.0.0.1:0".parse().unwrap();
    let listener = sextant_service::activation::listen(addr, "test").unwrap();
    let addr = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let shutdown = async move {
        let _ = stopped.await;
    };
    let done = tokio::spawn(admin::serve(listener, router(admin), limits, shutdown));
    Server { addr, stop, done }
}

/// Runs `test` on a paused clock.
fn paused(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(test);
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn problem(&self) -> Value {
        assert!(self.head.contains("content-type: application/problem+json"), "{}", self.head);
        let problem: Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(problem["status"], self.status);
        assert!(problem["title"].is_string() && problem["type"].is_string(), "{problem}");
        problem
    }
}

/// Sends `bytes` and reads until the server closes.
async fn exchange(addr: SocketAddr, bytes: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    read_answer(&mut stream).await
}

async fn read_answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    // A reset after the answer is as good as an end.
    let _ = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}

/// A request with the token, after which the server closes.
fn request(method: &str, path: &str, more_head: &str, body: &str) -> Vec<u8> {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         authorization: Bearer {TOKEN}\r\n{more_head}\r\n{body}"
    )
    .into_bytes()
}

fn post_json(body: &str) -> Vec<u8> {
    let head = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
    request("POST", "/v1/messages", &head, body)
}

#[test]
fn only_the_right_token_opens_what_is_not_public() {
    paused(async {
        let server = start(limits());
        for (header, challenge) in [
            ("", "www-authenticate: bearer realm=\"sextant\"\r\n"),
            ("authorization: Basic abc\r\n", "www-authenticate: bearer realm=\"sextant\"\r\n"),
            ("authorization: Bearer wrong\r\n", "error=\"invalid_token\""),
            ("authorization: Bearer\r\n", "www-authenticate: bearer"),
        ] {
            for path in ["/metrics", "/v1/slow", "/nowhere"] {
                let bytes =
                    format!("GET {path} HTTP/1.1\r\nhost: x\r\n{header}connection: close\r\n\r\n");
                let answer = exchange(server.addr, bytes.as_bytes()).await;
                assert_eq!(answer.status, 401, "{header}{path}");
                assert!(format!("{}\r\n", answer.head).contains(challenge), "{}", answer.head);
                assert!(!answer.problem()["detail"].as_str().unwrap().is_empty());
            }
        }
        let answer = exchange(server.addr, &request("GET", "/metrics", "", "")).await;
        assert_eq!(answer.status, 200);
        assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
        assert!(answer.body.contains("\ntest_total 0\n"), "{}", answer.body);
    });
}

#[test]
fn health_and_readiness_need_no_token() {
    paused(async {
        let admin = admin();
        let health = admin.health.clone();
        let server = start_with(limits(), admin);
        let get = async |path: &str| {
            let bytes = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            exchange(server.addr, bytes.as_bytes()).await
        };
        assert_eq!(get("/healthz").await.status, 200);
        assert_eq!(get("/readyz").await.problem()["status"], 503);
        health.set_ready(true);
        assert_eq!(get("/readyz").await.status, 200);
        health.set_silence(&[Duration::ZERO, Duration::from_secs(11)]);
        let detail = get("/healthz").await.problem()["detail"].clone();
        assert_eq!(detail, "core 1 has not turned for 11 s");
    });
}

#[test]
fn every_error_is_a_problem() {
    paused(async {
        let server = start(limits());
        let json = "content-type: application/json\r\n";
        for (bytes, status, detail) in [
            (request("GET", "/nowhere", "", ""), 404, "nothing at this path"),
            (request("DELETE", "/v1/messages", "", ""), 405, "is not offered here, only POST"),
            (post_json("{"), 400, "EOF while parsing"),
            (post_json("{}"), 422, "missing field `payload`"),
            (post_json("{\"payload\":\"\"}"), 400, "`payload` is empty"),
            (request("POST", "/v1/messages", "content-length: 2\r\n", "{}"), 415, "Content-Type"),
            (
                request("POST", "/v1/messages", &format!("{json}content-length: 1025\r\n"), ""),
                413,
                "the body is longer than 1KiB",
            ),
        ] {
            let answer = exchange(server.addr, &bytes).await;
            assert_eq!(answer.status, status, "{}", answer.body);
            let problem = answer.problem();
            assert!(problem["detail"].as_str().unwrap().contains(detail), "{problem}");
        }
        let answer = exchange(server.addr, &request("DELETE", "/v1/messages", "", "")).await;
        assert!(answer.head.contains("allow: post"), "{}", answer.head);
        let answer = exchange(server.addr, &post_json("{\"payload\":\"abc\"}")).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "{\"len\":3}"));
    });
}

#[test]
fn a_body_that_does_not_say_how_long_it_is_is_cut_too() {
    paused(async {
        let server = start(limits());
        let head = "content-type: application/json\r\ntransfer-encoding: chunked\r\n";
        let body = format!("800\r\n\"{}\r\n0\r\n\r\n", "x".repeat(0x7ff));
        let answer = exchange(server.addr, &request("POST", "/v1/messages", head, &body)).await;
        assert_eq!(answer.status, 413);
        assert_eq!(answer.problem()["detail"], "the body is longer than 1KiB");
    });
}

#[test]
fn a_head_that_drips_is_cut_off_at_the_header_timeout() {
    paused(async {
        let server = start(limits());
        let begun = Instant::now();
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        let mut sent = 0;
        // One byte a second, for ever: each keeps the connection busy, none ends the head.
        let mut closed = [0; 64];
        loop {
            if stream
                .write_all(b"GET / HTTP/1.1\r\nx-drip: aaaaaaaaaaaaaaaa"[sent..=sent].as_ref())
                .await
                .is_err()
            {
                break;
            }
            sent += 1;
            let second = Duration::from_secs(1);
            match tokio::time::timeout(second, stream.read(&mut closed)).await {
                Err(_) => {}
                Ok(Ok(0) | Err(_)) => break,
                Ok(Ok(_)) => panic!("an answer to half a request"),
            }
        }
        let after = begun.elapsed();
        assert!((9..=11).contains(&after.as_secs()), "{after:?}");
    });
}

#[test]
fn an_idle_connection_is_closed_and_its_place_given_to_the_next() {
    paused(async {
        let server = start(Limits { connections_max: 1, ..limits() });
        let mut idle = TcpStream::connect(server.addr).await.unwrap();
        let answer = exchange(server.addr, &request("GET", "/metrics", "", "")).await;
        assert_eq!(answer.status, 200, "served once the idle one was closed");
        assert_eq!(idle.read(&mut [0; 8]).await.unwrap(), 0);
    });
}

#[test]
fn a_kept_alive_connection_is_closed_when_no_next_request_comes() {
    paused(async {
        let server = start(limits());
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let begun = Instant::now();
        assert_eq!(read_answer(&mut stream).await.status, 200);
        assert!((9..=11).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    });
}

#[test]
fn a_handler_that_does_not_end_is_answered_for() {
    paused(async {
        let server = start(limits());
        let answer = exchange(server.addr, &request("GET", "/v1/stuck", "", "")).await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.problem()["detail"], "the request took longer than 30000 ms");
    });
}

#[test]
fn a_body_that_never_ends_is_answered_for() {
    paused(async {
        let server = start(limits());
        let head = "content-type: application/json\r\ncontent-length: 100\r\n";
        let answer = exchange(server.addr, &request("POST", "/v1/messages", head, "{")).await;
        assert_eq!(answer.status, 503);
    });
}

#[test]
fn a_head_that_is_too_large_or_no_http_is_refused() {
    paused(async {
        let server = start(limits());
        let large = format!("x-large: {}\r\n", "a".repeat(20_000));
        let answer = exchange(server.addr, &request("GET", "/healthz", &large, "")).await;
        assert_eq!(answer.status, 431);
        let many = "x: y\r\n".repeat(100);
        let answer = exchange(server.addr, &request("GET", "/healthz", &many, "")).await;
        assert_eq!(answer.status, 431);
        let answer = exchange(server.addr, b"\x16\x03\x01 hello\r\n\r\n").await;
        assert_eq!(answer.status, 400);
    });
}

#[test]
fn stopping_lets_requests_end_and_takes_no_more() {
    paused(async {
        let server = start(limits());
        let mut slow = TcpStream::connect(server.addr).await.unwrap();
        slow.write_all(&request("GET", "/v1/slow", "", "")).await.unwrap();
        let mut idle = TcpStream::connect(server.addr).await.unwrap();
        idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.stop.send(()).unwrap();
        assert_eq!(read_answer(&mut slow).await.body, "slow");
        assert_eq!(read_answer(&mut idle).await.status, 200);
        server.done.await.unwrap().unwrap();
        assert!(TcpStream::connect(server.addr).await.is_err());
    });
}

#[test]
fn stopping_waits_no_longer_than_its_deadline() {
    paused(async {
        let server = start(limits());
        let mut stuck = TcpStream::connect(server.addr).await.unwrap();
        stuck.write_all(&request("GET", "/v1/stuck", "", "")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let begun = Instant::now();
        server.stop.send(()).unwrap();
        server.done.await.unwrap().unwrap();
        assert_eq!(begun.elapsed().as_secs(), 5);
        assert_eq!(read_answer(&mut stuck).await.status, 0);
    });
}

/// In real time, since it is the kernel that ends such a connection.
#[test]
fn a_client_that_does_not_take_its_answer_loses_its_place() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let patience = Duration::from_millis(300);
        let server = start(Limits { connections_max: 1, request_timeout: patience, ..limits() });
        let mut greedy = TcpStream::connect(server.addr).await.unwrap();
        greedy.write_all(&request("GET", "/v1/large", "", "")).await.unwrap();
        let next = request("GET", "/metrics", "", "");
        let answer = exchange(server.addr, &next);
        let answer = tokio::time::timeout(Duration::from_secs(20), answer).await;
        assert_eq!(answer.expect("the place became free").status, 200);
    });
}

#[test]
fn the_client_tells_failures_as_sentences() {
    let (tell, told) = std::sync::mpsc::channel();
    let server = sextant_service::runtime::spawn("server", move || async move {
        let server = start(limits());
        tell.send((server.addr, server.stop)).unwrap();
        server.done.await.unwrap().unwrap();
    })
    .unwrap();
    let (addr, stop) = told.recv().unwrap();
    let client = |token: &str| {
        let token = AdminToken::parse(token).unwrap();
        Client::new(&addr.to_string(), Some(token), Duration::from_secs(10))
    };

    let right = client(TOKEN);
    let answer: Value = right.post("/v1/messages", &json!({ "payload": "abcd" })).unwrap();
    assert_eq!(answer["len"], 4);
    assert!(right.text("/metrics").unwrap().contains("# TYPE test_total counter"));

    let error = right.post::<Value>("/v1/messages", &json!({ "payload": "" })).unwrap_err();
    assert_eq!(error.to_string(), "`payload` is empty (400 Empty payload)");
    let ClientError::Problem(problem) = error else { panic!("a problem") };
    assert_eq!(problem.kind, "urn:sextant:problem:empty");

    let error = client(&"x".repeat(32)).get::<Value>("/v1/slow").unwrap_err().to_string();
    assert_eq!(error, "this token is not the admin token (401 Unauthorized)");
    let error = right.get::<Value>("/healthz").unwrap_err().to_string();
    assert!(error.contains("makes no sense"), "{error}");

    stop.send(()).unwrap();
    server.join().unwrap();
    let error = right.get::<Value>("/metrics").unwrap_err().to_string();
    assert_eq!(
        error,
        format!("cannot reach http://{addr}/metrics: connection refused: is the daemon running?")
    );
}
