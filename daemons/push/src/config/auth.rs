//! The settings of those who know clients besides the users of `[[auth.users]]`: tokens that
//! others sign (`[auth.jwt]`), and an HTTP server that is asked (`[auth.http]`).
//!
//! What is written here is checked for its form; whether a file holds a key is found when it is
//! read, at the start and at each reload.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sextant_service::config::{Faults, Secret, Span};
use ureq::http::{HeaderName, HeaderValue};

use super::check_rules;
use super::url::Url;

/// What whoever is let in by name may do, unless it is said otherwise: its own topics.
const OWN_TOPICS: &str = "all d/{user}/#";
/// The shortest secret of HMAC-SHA256, in bytes: RFC 7518, section 3.2.
const SECRET_BYTES_MIN: usize = 32;
/// Files of public keys; a token is tried on each that fits.
const KEY_FILES_MAX: usize = 32;

/// The settings under `[auth.jwt]`: JSON Web Tokens as passwords.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwt {
    /// The key of HS256, HS384 and HS512: text of at least 32, 48 or 64 bytes.
    pub secret: Secret,
    /// A file that holds that key; all of its bytes, save a line's end at the end.
    pub secret_file: Option<PathBuf>,
    /// Files with one public key each, as PEM: RSA (RS256, RS384, RS512), P-256 (ES256), P-384
    /// (ES384) or Ed25519 (EdDSA).
    pub public_keys: Vec<PathBuf>,
    /// A file with a set of public keys as JSON: RFC 7517, section 5.
    pub jwks_file: Option<PathBuf>,
    /// A token's `aud` has to name one of these; without any, a token that names somebody is
    /// refused.
    pub audience: Vec<String>,
    /// A token's `iss` has to be one of these; without any, it is not looked at.
    pub issuer: Vec<String>,
    /// By how much the clocks of who signs and who checks may differ.
    pub leeway: Span,
    /// Whether a token has to have an end, `exp`.
    pub expiry_required: bool,
    /// What the bearer of any token may do besides its `allow`.
    pub allow: Vec<String>,
}

impl Default for Jwt {
    fn default() -> Self {
        Jwt {
            secret: Secret::default(),
            secret_file: None,
            public_keys: Vec::new(),
            jwks_file: None,
            audience: Vec::new(),
            issuer: Vec::new(),
            leeway: Span::secs(10),
            expiry_required: true,
            allow: vec![OWN_TOPICS.to_owned()],
        }
    }
}

impl Jwt {
    /// Whether there is a key, so that tokens are looked at.
    pub fn is_configured(&self) -> bool {
        !self.secret.is_empty()
            || self.secret_file.is_some()
            || !self.public_keys.is_empty()
            || self.jwks_file.is_some()
    }

    pub(super) fn check(&self, faults: &mut Faults<'_>) {
        let secret = self.secret.expose();
        faults.require(
            "auth.jwt.secret",
            secret.is_empty() || secret.len() >= SECRET_BYTES_MIN,
            format_args!("must have {SECRET_BYTES_MIN} bytes or more"),
        );
        faults.require(
            "auth.jwt.secret_file",
            secret.is_empty() || self.secret_file.is_none(),
            "one secret is enough: leave out auth.jwt.secret, or this",
        );
        faults.require(
            "auth.jwt.public_keys",
            self.public_keys.len() <= KEY_FILES_MAX,
            format_args!("must be {KEY_FILES_MAX} files or fewer"),
        );
        faults.require(
            "auth.jwt.leeway",
            self.leeway.get() <= Duration::from_secs(600),
            "must be 10m or less",
        );
        check_rules("auth.jwt.allow", &self.allow, faults);
    }
}

/// What becomes of a client when the hook does not answer: `"deny"` or `"ignore"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// It is refused, as the server is unavailable.
    #[default]
    Deny,
    /// As if nobody had been asked.
    Ignore,
}

/// The settings under `[auth.http]`: an HTTP server that is asked of clients that nobody here
/// knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Http {
    /// Where questions are posted to; empty is nowhere. Beyond this machine it should be
    /// `https://…`: passwords go there.
    pub url: Url,
    /// Header lines that go with each question, such as a key that the server knows.
    pub headers: BTreeMap<String, Secret>,
    /// A file with the certificates, as PEM, that the server's is to be signed by; without one,
    /// those that browsers know.
    pub ca_file: Option<PathBuf>,
    /// How long a question may wait to be asked, and again until it is answered.
    pub timeout: Span,
    /// Questions that are asked at once; each has a thread and a connection.
    pub requests_max: u16,
    /// Questions that wait to be asked.
    pub queue_max: u32,
    /// What becomes of a client when there is no answer, or one that makes no sense.
    pub on_failure: OnFailure,
    /// What whoever is let in may do besides the answer's `allow`.
    pub allow: Vec<String>,
}

impl Default for Http {
    fn default() -> Self {
        Http {
            url: Url::default(),
            headers: BTreeMap::new(),
            ca_file: None,
            timeout: Span::secs(2),
            requests_max: 16,
            queue_max: 1000,
            on_failure: OnFailure::default(),
            allow: vec![OWN_TOPICS.to_owned()],
        }
    }
}

impl Http {
    /// Whether somebody is asked.
    pub fn is_configured(&self) -> bool {
        !self.url.is_empty()
    }

    pub(super) fn check(&self, connect_timeout: Span, faults: &mut Faults<'_>) {
        let headers = "a header line of auth.http.headers goes with each question, such as \
                       authorization = \"Basic …\"";
        self.url.check("auth.http.url", headers, faults);
        for (name, value) in &self.headers {
            let known = HeaderName::try_from(name.as_str()).is_ok()
                && HeaderValue::try_from(value.expose()).is_ok();
            faults.require(
                &format!("auth.http.headers.{name}"),
                known,
                "is no header line: a name of letters, digits and dashes, and a value on one line",
            );
        }
        let timeout = self.timeout.get();
        let in_time = !self.is_configured() || timeout * 2 <= connect_timeout.get();
        faults.require(
            "auth.http.timeout",
            (Duration::from_millis(10)..=Duration::from_secs(60)).contains(&timeout) && in_time,
            "must be 10ms or more, and at most half of mqtt.connect_timeout",
        );
        faults.require(
            "auth.http.requests_max",
            (1..=256).contains(&self.requests_max),
            "must be 1 to 256",
        );
        faults.require(
            "auth.http.queue_max",
            (1..=100_000).contains(&self.queue_max),
            "must be 1 to 100000",
        );
        check_rules("auth.http.allow", &self.allow, faults);
    }
}
