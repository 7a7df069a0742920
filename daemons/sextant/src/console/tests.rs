use super::*;

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::HeaderName;
use http_body_util::BodyExt;
use sextant_service::admin::AdminToken;
use sextant_service::runtime;
use tokio::sync::mpsc;
use tower::ServiceExt;

const PORT: u16 = 7700;
const HOST: &str = "127.0.0.1:7700";
const ORIGIN: &str = "http://127.0.0.1:7700";

/// A console in front of a daemon that the test plays.
struct Scene {
    router: Router,
    sessions: Arc<Sessions>,
    token: String,
    _data: tempfile::TempDir,
}

impl Scene {
    async fn new(daemon: Router) -> Scene {
        let data = tempfile::tempdir().unwrap();
        let token = AdminToken::load_or_create(data.path()).unwrap().expose().to_owned();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin = listener.local_addr().unwrap();
        let listener = listener.into_std().unwrap();
        tokio::spawn(admin::serve(listener, daemon, LIMITS, std::future::pending()));
        let backend = Backend { name: "push", admin, data: data.path().to_owned() };
        let sessions = Arc::<Sessions>::default();
        let router = router(Arc::clone(&sessions), PORT, vec![backend]);
        Scene { router, sessions, token, _data: data }
    }

    async fn ask(&self, request: Request) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// The header of somebody who is logged in.
    fn cookie(&self) -> String {
        let secret = self.sessions.open(Instant::now()).unwrap();
        format!("other=1; sextant_session_{PORT}={secret}")
    }
}

fn request(method: &str, path: &str, headers: &[(HeaderName, &str)], body: Body) -> Request {
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, HOST);
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    request.body(body).unwrap()
}

fn login(body: &str) -> Request {
    let headers = [(header::ORIGIN, ORIGIN), (header::CONTENT_TYPE, "application/json")];
    request("POST", "/session", &headers, Body::from(body.to_owned()))
}

async fn text(response: Response) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// A body that the test makes while it is sent.
struct Pieces(mpsc::UnboundedReceiver<Bytes>);

impl futures_core::Stream for Pieces {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|piece| piece.map(Ok))
    }
}

/// A daemon that tells what it was asked, and echoes bodies as they come.
fn echo() -> Router {
    async fn tell(request: Request) -> String {
        let headers = request.headers();
        let value = |name| headers.get(name).map_or("-", |value| value.to_str().unwrap_or("?"));
        let shown = ["authorization", "cookie", "origin", "x-own"].map(value);
        format!("{} {} {}", request.method(), request.uri(), shown.join(" "))
    }
    async fn echo(request: Request) -> Response {
        let kind = [(header::CONTENT_TYPE, "text/event-stream"), (header::SET_COOKIE, "evil=1")];
        (kind, request.into_body()).into_response()
    }
    let refuse = async || Problem::new(StatusCode::UNAUTHORIZED, "who are you").into_response();
    Router::new().route("/v1/echo", any(echo)).route("/v1/refuse", any(refuse)).fallback(tell)
}

#[test]
fn a_link_logs_in_once_and_the_cookie_opens_the_api() {
    let scene = async {
        let scene = Scene::new(echo()).await;
        let refused = scene.ask(request("GET", "/api/push/v1/x", &[], Body::empty())).await;
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(refused.headers()[header::CONTENT_TYPE], "application/problem+json");
        let link = scene.sessions.link(Instant::now()).unwrap();
        let entered = scene.ask(login(&format!("{{\"link\":\"{link}\"}}"))).await;
        assert_eq!(entered.status(), StatusCode::NO_CONTENT);
        let cookie = entered.headers()[header::SET_COOKIE].to_str().unwrap().to_owned();
        assert!(cookie.contains("HttpOnly; SameSite=Strict; Max-Age=43200"), "{cookie}");
        let (cookie, _) = cookie.split_once(';').unwrap();
        let headers = [(header::COOKIE, cookie)];
        let shown = scene.ask(request("GET", "/session", &headers, Body::empty())).await;
        assert!(text(shown).await.contains("\"daemons\":[\"push\"]"));
        let again = scene.ask(login(&format!("{{\"link\":\"{link}\"}}"))).await;
        assert_eq!(again.status(), StatusCode::UNAUTHORIZED);

        let headers = [(header::COOKIE, cookie), (header::ORIGIN, ORIGIN)];
        let out = scene.ask(request("DELETE", "/session", &headers, Body::empty())).await;
        assert!(out.headers()[header::SET_COOKIE].to_str().unwrap().contains("Max-Age=0"));
        let refused = scene.ask(request("GET", "/api/push/v1/x", &headers, Body::empty())).await;
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    };
    runtime::run(scene).unwrap();
}

#[test]
fn the_admin_token_logs_in_and_nothing_else_does() {
    let scene = async {
        let scene = Scene::new(echo()).await;
        let entered = scene.ask(login(&format!("{{\"token\":\" {} \"}}", scene.token))).await;
        assert_eq!(entered.status(), StatusCode::NO_CONTENT);
        for wrong in ["{\"token\":\"\"}", "{\"token\":\"x\"}", "{\"link\":\"\"}"] {
            assert_eq!(scene.ask(login(wrong)).await.status(), StatusCode::UNAUTHORIZED, "{wrong}");
        }
        for bad in ["", "{}", "{\"link\":\"a\",\"token\":\"b\"}", "[]"] {
            assert!(scene.ask(login(bad)).await.status().is_client_error(), "{bad}");
        }
    };
    runtime::run(scene).unwrap();
}

#[test]
fn the_daemon_gets_its_token_and_nothing_of_the_browsers_login() {
    let scene = async {
        let scene = Scene::new(echo()).await;
        let cookie = scene.cookie();
        let own = HeaderName::from_static("x-own");
        let headers = [
            (header::COOKIE, cookie.as_str()),
            (header::ORIGIN, ORIGIN),
            (header::AUTHORIZATION, "Bearer mine"),
            (own, "y"),
        ];
        let asked = request("PUT", "/api/push/v1/a%2Fb//c?d=e%20f", &headers, Body::empty());
        let said = text(scene.ask(asked).await).await;
        assert_eq!(said, format!("PUT /v1/a%2Fb//c?d=e%20f Bearer {} - - y", scene.token));
        let headers = [(header::COOKIE, cookie.as_str())];
        let echo = scene.ask(request("GET", "/api/push/v1/echo", &headers, Body::empty())).await;
        assert!(!echo.headers().contains_key(header::SET_COOKIE));
        let unknown = scene.ask(request("GET", "/api/pull/v1", &headers, Body::empty())).await;
        assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
        // A refusal of the console's own token does not look like a session that has ended.
        let refused = scene.ask(request("GET", "/api/push/v1/refuse", &headers, Body::empty()));
        assert_eq!(refused.await.status(), StatusCode::BAD_GATEWAY);
    };
    runtime::run(scene).unwrap();
}

#[test]
fn bodies_pass_both_ways_piece_by_piece() {
    let scene = async {
        let scene = Scene::new(echo()).await;
        let (pieces, body) = mpsc::unbounded_channel();
        let cookie = scene.cookie();
        let headers = [(header::COOKIE, cookie.as_str()), (header::ORIGIN, ORIGIN)];
        let body = Body::from_stream(Pieces(body));
        pieces.send(Bytes::from_static(b"one\n")).unwrap();
        let answer = scene.ask(request("POST", "/api/push/v1/echo", &headers, body)).await;
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "text/event-stream");
        let mut body = answer.into_body();
        // Each piece is back before the next is made: nothing waits for more.
        for piece in ["one\n", "two\n", "three\n"] {
            if piece != "one\n" {
                pieces.send(Bytes::from(piece)).unwrap();
            }
            let frame = body.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), piece);
        }
        drop(pieces);
        assert!(body.frame().await.is_none());
    };
    runtime::run(scene).unwrap();
}

#[test]
fn a_daemon_that_is_down_is_said() {
    let scene = async {
        let mut scene = Scene::new(echo()).await;
        let data = tempfile::tempdir().unwrap();
        AdminToken::load_or_create(data.path()).unwrap();
        let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin = free.local_addr().unwrap();
        drop(free);
        let backend = Backend { name: "push", admin, data: data.path().to_owned() };
        scene.router = router(Arc::clone(&scene.sessions), PORT, vec![backend]);
        let cookie = scene.cookie();
        let headers = [(header::COOKIE, cookie.as_str())];
        let down = scene.ask(request("GET", "/api/push/v1/status", &headers, Body::empty())).await;
        assert_eq!(down.status(), StatusCode::BAD_GATEWAY);
        let said = text(down).await;
        assert!(said.contains("push does not answer"), "{said}");
    };
    runtime::run(scene).unwrap();
}

#[test]
fn every_answer_says_what_the_browser_may_do_with_it() {
    let scene = async {
        let scene = Scene::new(echo()).await;
        for path in ["/", "/nothing", "/session", "/api/push/v1/x", "/.keep"] {
            let answer = scene.ask(request("GET", path, &[], Body::empty())).await;
            let said = answer.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
            assert!(said.starts_with("default-src 'self';") && !said.contains("unsafe"), "{said}");
            assert_eq!(answer.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff", "{path}");
        }
        let page = scene.ask(request("GET", "/", &[], Body::empty())).await;
        assert_eq!(page.status(), StatusCode::OK);
        let kept = scene.ask(request("GET", "/.keep", &[], Body::empty())).await;
        assert_eq!(kept.status(), StatusCode::NOT_FOUND);
    };
    runtime::run(scene).unwrap();
}

#[test]
fn a_request_under_another_name_or_of_another_origin_reaches_nothing() {
    let scene = async {
        let scene = Scene::new(echo()).await;
        let cookie = scene.cookie();
        let mut rebound =
            request("GET", "/api/push/v1/x", &[(header::COOKIE, &cookie)], Body::empty());
        rebound.headers_mut().insert(header::HOST, HeaderValue::from_static("evil.example:7700"));
        assert_eq!(scene.ask(rebound).await.status(), StatusCode::FORBIDDEN);
        let headers = [(header::COOKIE, cookie.as_str()), (header::ORIGIN, "http://127.0.0.1:1")];
        let forged = request("POST", "/api/push/v1/x", &headers, Body::empty());
        assert_eq!(scene.ask(forged).await.status(), StatusCode::FORBIDDEN);
    };
    runtime::run(scene).unwrap();
}
