//! The request with which a client asks for WebSocket, and its answer.

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

/// A request that is longer is refused.
pub const REQUEST_BYTES_MAX: usize = 8 * 1024;
const HEADERS_MAX: usize = 64;
/// RFC 6455, 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What is offered, and to whom.
#[derive(Clone, Copy, Debug)]
pub struct Policy<'a> {
    /// The path, such as `/mqtt`.
    pub path: &'a str,
    /// The subprotocol that a client has to offer.
    pub protocol: &'a str,
    /// The origins whose pages may connect, such as `https://example.org`; `*` is any. Without one,
    /// those on loopback. Whoever names no origin is no browser, and may.
    pub origins: &'a [String],
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// It is not whole yet. The caller keeps what it has.
    Incomplete,
    /// It is granted: after `request_bytes` frames begin, once `answer` is sent.
    Granted {
        /// The length of the request.
        request_bytes: usize,
        /// The answer.
        answer: Vec<u8>,
    },
    /// It is not: the answer says why, in words, and the connection ends with it.
    Refused(Refusal, Vec<u8>),
}

/// Why a request is not granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It cannot be understood.
    #[error("this is no HTTP/1.1 request")]
    Malformed,
    /// It is longer than [`REQUEST_BYTES_MAX`], or has too many fields.
    #[error("the request is too large")]
    TooLarge,
    /// A browser that was pointed here, say.
    #[error("no WebSocket was asked for")]
    NoUpgrade,
    /// Another version of WebSocket than 13.
    #[error("only version 13 of WebSocket is spoken")]
    Version,
    /// There is nothing at that path.
    #[error("nothing is served at this path")]
    Path,
    /// `Sec-WebSocket-Key` is missing, twice there, or not 16 bytes in base64.
    #[error("the Sec-WebSocket-Key is not what it has to be")]
    Key,
    /// `[MQTT-6.0.0-3]`.
    #[error("the subprotocol was not offered")]
    Protocol,
    /// The page may not connect.
    #[error("pages of this origin may not connect")]
    Origin,
}

impl Refusal {
    fn status(self) -> &'static str {
        match self {
            Refusal::Malformed | Refusal::Key | Refusal::Protocol => "400 Bad Request",
            Refusal::Origin => "403 Forbidden",
            Refusal::Path => "404 Not Found",
            Refusal::NoUpgrade | Refusal::Version => "426 Upgrade Required",
            Refusal::TooLarge => "431 Request Header Fields Too Large",
        }
    }

    fn answer(self, policy: &Policy<'_>) -> Vec<u8> {
        let (path, protocol) = (policy.path, policy.protocol);
        let text = format!(
            "{self}: connect here with a client of {protocol}, over TCP or over WebSocket at \
             {path} with the subprotocol {protocol}.\n"
        );
        let more = match self {
            Refusal::NoUpgrade => "Upgrade: websocket\r\n",
            Refusal::Version => "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            _ => "",
        };
        let (status, length) = (self.status(), text.len());
        format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\n{more}Content-Type: text/plain\r\n\
             Content-Length: {length}\r\n\r\n{text}"
        )
        .into_bytes()
    }
}

/// Reads a request, from its first byte on.
pub fn upgrade(bytes: &[u8], policy: &Policy<'_>) -> Upgrade {
    let refused = |why: Refusal| Upgrade::Refused(why, why.answer(policy));
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let head = &bytes[..bytes.len().min(REQUEST_BYTES_MAX)];
    match request.parse(head) {
        Ok(httparse::Status::Partial) if bytes.len() >= REQUEST_BYTES_MAX => {
            refused(Refusal::TooLarge)
        }
        Ok(httparse::Status::Partial) => Upgrade::Incomplete,
        Ok(httparse::Status::Complete(request_bytes)) => match check(&request, policy) {
            Ok(key) => {
                Upgrade::Granted { request_bytes, answer: grant(key.as_bytes(), policy.protocol) }
            }
            Err(why) => refused(why),
        },
        Err(httparse::Error::TooManyHeaders) => refused(Refusal::TooLarge),
        Err(_) => refused(Refusal::Malformed),
    }
}

/// The key of a request that asks for what is offered and may have it.
fn check<'a>(request: &httparse::Request<'_, 'a>, policy: &Policy<'_>) -> Result<&'a str, Refusal> {
    let all = |name: &str| {
        let named = |header: &&httparse::Header<'a>| header.name.eq_ignore_ascii_case(name);
        let found: Vec<_> = request.headers.iter().filter(named).collect();
        found.into_iter().filter_map(|header| std::str::from_utf8(header.value).ok())
    };
    let lists = |name: &str, token: &str| {
        all(name)
            .flat_map(|value| value.split(','))
            .any(|one| one.trim().eq_ignore_ascii_case(token))
    };
    if request.method != Some("GET") || request.version != Some(1) {
        return Err(Refusal::Malformed);
    }
    if !lists("Connection", "upgrade") || !lists("Upgrade", "websocket") {
        return Err(Refusal::NoUpgrade);
    }
    let path = request.path.and_then(|path| path.split('?').next());
    if path != Some(policy.path) {
        return Err(Refusal::Path);
    }
    if all("Sec-WebSocket-Version").next().map(str::trim) != Some("13") {
        return Err(Refusal::Version);
    }
    let mut origins = all("Origin");
    if let Some(origin) = origins.next()
        && (origins.next().is_some() || !may_connect(origin.trim(), policy.origins))
    {
        return Err(Refusal::Origin);
    }
    if !lists("Sec-WebSocket-Protocol", policy.protocol) {
        return Err(Refusal::Protocol);
    }
    let mut keys = all("Sec-WebSocket-Key").map(str::trim);
    let key = keys.next().filter(|key| STANDARD.decode(key).is_ok_and(|key| key.len() == 16));
    key.filter(|_| keys.next().is_none()).ok_or(Refusal::Key)
}

fn may_connect(origin: &str, origins: &[String]) -> bool {
    if origins.is_empty() {
        return is_on_loopback(origin);
    }
    origins.iter().any(|known| known == "*" || known.eq_ignore_ascii_case(origin))
}

fn is_on_loopback(origin: &str) -> bool {
    let Some((_, rest)) = origin.split_once("://") else { return false };
    let host = match rest.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => rest.split(':').next(),
    };
    host.is_some_and(|host| {
        host.eq_ignore_ascii_case("localhost")
            || host.parse::<IpAddr>().is_ok_and(|addr| addr.to_canonical().is_loopback())
    })
}

fn grant(key: &[u8], protocol: &str) -> Vec<u8> {
    let accept = STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: Policy<'_> = Policy { path: "/mqtt", protocol: "mqtt", origins: &[] };

    const REQUEST: &str = "GET /mqtt?x=1 HTTP/1.1\r\nHost: here\r\nUpgrade: WebSocket\r\n\
        Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Protocol: mqttv3.1, mqtt\r\nSec-WebSocket-Version: 13\r\n\r\n";

    fn refusal(request: &str) -> Refusal {
        match upgrade(request.as_bytes(), &POLICY) {
            Upgrade::Refused(why, answer) => {
                let answer = String::from_utf8(answer).unwrap();
                let (head, text) = answer.split_once("\r\n\r\n").unwrap();
                assert!(head.contains(&format!("Content-Length: {}", text.len())), "{answer}");
                assert!(text.contains("/mqtt"), "{answer}");
                why
            }
            other => panic!("{other:?}"),
        }
    }

    fn with_origin(origin: &str) -> String {
        REQUEST.replace("Host: here", &format!("Host: here\r\nOrigin: {origin}"))
    }

    #[test]
    fn a_request_is_granted_with_the_answer_of_the_standard() {
        for cut in 0..REQUEST.len() {
            assert_eq!(upgrade(&REQUEST.as_bytes()[..cut], &POLICY), Upgrade::Incomplete);
        }
        let whole = [REQUEST.as_bytes(), b"frames"].concat();
        match upgrade(&whole, &POLICY) {
            Upgrade::Granted { request_bytes, answer } => {
                assert_eq!(request_bytes, REQUEST.len());
                let answer = String::from_utf8(answer).unwrap();
                // RFC 6455, 1.3.
                assert!(answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
                assert!(answer.contains("Sec-WebSocket-Protocol: mqtt\r\n"), "[MQTT-6.0.0-4]");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_not_granted_is_told_why() {
        let cases = [
            (REQUEST.replace("/mqtt?", "/other?"), Refusal::Path),
            (REQUEST.replace("Upgrade: WebSocket\r\n", ""), Refusal::NoUpgrade),
            (REQUEST.replace(": 13", ": 8"), Refusal::Version),
            (REQUEST.replace(", mqtt\r", "\r"), Refusal::Protocol),
            (REQUEST.replace("==", ""), Refusal::Key),
            (REQUEST.replace("HTTP/1.1", "HTTP/1.0"), Refusal::Malformed),
            (REQUEST.replace("GET ", "GO\u{0} "), Refusal::Malformed),
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\n".into(), Refusal::NoUpgrade),
            (format!("GET /{} HTTP/1.1\r\n", "x".repeat(REQUEST_BYTES_MAX)), Refusal::TooLarge),
            (format!("GET / HTTP/1.1\r\n{}", "a: b\r\n".repeat(100)), Refusal::TooLarge),
        ];
        for (request, why) in cases {
            assert_eq!(refusal(&request), why, "{request}");
        }
    }

    #[test]
    fn a_page_of_somebody_else_may_not_connect() {
        for origin in ["https://evil.example", "null", "http://127.0.0.1.evil.example", "http://["]
        {
            assert_eq!(refusal(&with_origin(origin)), Refusal::Origin, "{origin}");
        }
        let granted = |origin: &str, origins: &[String]| {
            let policy = Policy { origins, ..POLICY };
            matches!(upgrade(with_origin(origin).as_bytes(), &policy), Upgrade::Granted { .. })
        };
        for origin in ["http://localhost:8080", "https://127.0.0.1", "http://[::1]:3000"] {
            assert!(granted(origin, &[]), "{origin}");
        }
        let known = ["https://app.example".to_owned()];
        assert!(granted("https://APP.example", &known));
        assert!(!granted("http://localhost", &known), "what is listed is all");
        assert!(granted("https://evil.example", &["*".to_owned()]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = upgrade(&bytes, &POLICY);
        }
    }
}
