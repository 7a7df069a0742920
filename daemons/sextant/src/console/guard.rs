//! What a request must be before it is looked at, and what every answer says to the browser.
//!
//! ```text
//!   Host            an IP address or `localhost`: a name could be made to point here by anybody
//!                   who owns it (DNS rebinding), an address cannot
//!   Sec-Fetch-Site  if the browser says that another site's page asks: refused
//!   Origin          of what changes something: this very host and port
//! ```
//!
//! A cookie is sent to every port of a host, and `SameSite` does not tell ports apart; `Origin` and
//! `Sec-Fetch-Site` do.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sextant_service::admin::Problem;

/// Scripts, styles and data come from here alone, and nobody may put this page into theirs.
const CONTENT_SECURITY: &str = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; \
     object-src 'none'";

const SAID: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Lets a request pass that comes from the console's own pages, or from no page at all.
pub(super) async fn check(request: Request, next: Next) -> Response {
    let mut response = match fault(request.method(), request.headers()) {
        Some(detail) => Problem::new(StatusCode::FORBIDDEN, detail).into_response(),
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    for (name, value) in SAID {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn fault(method: &Method, headers: &HeaderMap) -> Option<&'static str> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let Some(host) = text(header::HOST).filter(|host| is_address(host)) else {
        return Some(
            "the console is asked for by an IP address or as localhost, and by no other name; from \
             another machine use `ssh -L 7700:127.0.0.1:7700`",
        );
    };
    let site = text(HeaderName::from_static("sec-fetch-site"));
    if site.is_some_and(|site| !["same-origin", "none"].contains(&site)) {
        // A link that leads here is no fault: the page itself tells nothing.
        let is_visit = *method == Method::GET
            && text(HeaderName::from_static("sec-fetch-mode")) == Some("navigate");
        if !is_visit {
            return Some("a page of another site asks");
        }
    }
    let changes = !matches!(*method, Method::GET | Method::HEAD);
    let origin = text(header::ORIGIN).and_then(|origin| origin.split_once("://"));
    if changes && origin.is_none_or(|(_, from)| from != host) {
        return Some("what changes something is asked with the console's own `Origin`");
    }
    None
}

/// Whether `host`, perhaps with a port, is an IP address or `localhost`.
fn is_address(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => name,
        _ => host,
    };
    let inner = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    name.eq_ignore_ascii_case("localhost") || inner.unwrap_or(name).parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault_of(method: &Method, pairs: &[(&'static str, &'static str)]) -> bool {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        fault(method, &pairs.collect()).is_some()
    }

    #[test]
    fn only_addresses_and_localhost_are_hosts() {
        for good in ["127.0.0.1:7700", "localhost", "LOCALHOST:1", "[::1]:7700", "10.0.0.1"] {
            assert!(is_address(good), "{good}");
        }
        for bad in ["", "evil.example", "evil.example:7700", "127.0.0.1.nip.io", "localhost:x"] {
            assert!(!is_address(bad), "{bad}");
        }
        assert!(fault_of(&Method::GET, &[]), "no host at all");
        assert!(fault_of(&Method::GET, &[("host", "rebound.example:7700")]));
    }

    #[test]
    fn what_changes_something_comes_from_this_origin() {
        let host = ("host", "127.0.0.1:7700");
        assert!(!fault_of(&Method::GET, &[host]));
        assert!(fault_of(&Method::POST, &[host]));
        assert!(fault_of(&Method::DELETE, &[host, ("origin", "null")]));
        assert!(fault_of(&Method::POST, &[host, ("origin", "http://127.0.0.1:8080")]));
        assert!(!fault_of(&Method::POST, &[host, ("origin", "http://127.0.0.1:7700")]));
    }

    #[test]
    fn another_sites_page_may_lead_here_and_not_read() {
        let host = ("host", "127.0.0.1:7700");
        let cross = ("sec-fetch-site", "same-site");
        assert!(fault_of(&Method::GET, &[host, cross, ("sec-fetch-mode", "no-cors")]));
        assert!(!fault_of(&Method::GET, &[host, cross, ("sec-fetch-mode", "navigate")]));
        assert!(!fault_of(&Method::GET, &[host, ("sec-fetch-site", "same-origin")]));
    }
}
