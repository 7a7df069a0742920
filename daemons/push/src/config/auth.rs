//! The settings of those who know clients besides the users of `[[auth.users]]`: tokens that
//! others sign (`[auth.jwt]`).
//!
//! What is written here is checked for its form; whether a file holds a key is found when it is
//! read, at the start and at each reload.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sextant_service::config::{Faults, Secret, Span};

use super::check_rules;

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
