//! JSON Web Tokens as passwords: who somebody else, whose key is configured, says a client is.
//!
//! ```text
//!   header.claims.signature     header  alg, and kid where there are several keys
//!                               claims  sub        the user                           required
//!                                       exp        when it ends      required, by configuration
//!                                       nbf        when it begins
//!                                       iss, aud   compared with the configuration
//!                                       client_id  the client identifier that it is good for
//!                                       allow      rules, as `[[auth.users]]` have them
//! ```
//!
//! A key says which algorithms it is for, and a token's `alg` only picks among these: a public key
//! is never taken for a secret, and `none` is no key's. A token with a critical extension is
//! refused, as none is known (RFC 7515, section 4.1.11). Keys that a token brings along or points
//! to are not looked at.
//!
//! Signatures are the affair of the library; this module chooses keys, and reads claims against a
//! time that it is given. Files are read when a [`Verifier`] is made.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::rules::{Rule, RuleError, Rules};
use super::{Principal, checked_rules};
use crate::config::{self, USER_NAME_BYTES_MAX};

/// The longest token that is looked at, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8192;
/// Rules in one token.
pub const RULES_MAX: usize = 64;

/// The longest file of keys, in bytes.
const FILE_BYTES_MAX: u64 = 256 << 10;
/// Keys of one set; a token without `kid` is tried on each that fits.
const KEYS_MAX: usize = 32;
/// The shortest modulus of an RSA key, in bytes: RFC 7518, section 3.3.
const RSA_BYTES_MIN: usize = 256;
/// The beginning of every token: a JSON object, in base64.
const PREFIX: &[u8] = b"eyJ";

/// Why there are no keys to check tokens with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The file holds something else, or a key that is too short.
    #[error("{}: {why}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// Why a token lets nobody in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JwtError {
    /// Header, signature, `iss` or `aud` are not as they have to be.
    #[error(transparent)]
    Token(#[from] jsonwebtoken::errors::Error),
    /// It has an extension that has to be understood, and is not.
    #[error("the token has a critical extension")]
    Critical,
    /// No key is for its algorithm and `kid`.
    #[error("no key is for the token's algorithm and kid")]
    NoKey,
    /// It has no end, and needs one.
    #[error("the token has no `exp`")]
    NoExpiry,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time has yet to come.
    #[error("the token is not valid yet")]
    NotYet,
    /// Its `sub` cannot be a user's name.
    #[error("`sub` has 1 to {USER_NAME_BYTES_MAX} bytes")]
    Subject,
    /// One of its rules is none.
    #[error("`allow`: {0}")]
    Rule(#[from] RuleError),
    /// It has too many rules.
    #[error("`allow` has more than {RULES_MAX} rules")]
    Rules,
    /// It is for another client identifier.
    #[error("the token is for another client id")]
    ClientId,
}

/// What is read of a token, besides what the library compares.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    /// Seconds since 1970, not always whole: RFC 7519, section 2.
    exp: Option<f64>,
    nbf: Option<f64>,
    client_id: Option<String>,
    #[serde(default)]
    allow: Vec<String>,
    /// The library takes one of any other form for none.
    #[serde(rename = "aud")]
    _aud: Option<Names>,
    #[serde(rename = "iss")]
    _iss: Option<Names>,
}

/// One or several.
#[derive(Deserialize)]
#[serde(untagged)]
#[expect(dead_code, reason = "that they can be read is all that is asked")]
enum Names {
    One(String),
    Several(Vec<String>),
}

struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

/// Checks tokens. Immutable: a changed configuration makes a new one.
pub struct Verifier {
    keys: Vec<Key>,
    audience: Vec<String>,
    issuer: Vec<String>,
    leeway_ms: u64,
    expiry_required: bool,
    allow: Arc<Rules>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

/// Whether `password` is written as a token is.
pub fn looks_like_one(password: &[u8]) -> bool {
    let is_text = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    password.starts_with(PREFIX)
        && password.iter().filter(|byte| **byte == b'.').count() == 2
        && password.iter().all(is_text)
}

impl Verifier {
    /// Reads the keys that are configured.
    ///
    /// # Errors
    /// A file cannot be read, or holds no key that is good for anything.
    ///
    /// # Panics
    /// If the configuration was not checked.
    pub fn load(jwt: &config::Jwt) -> Result<Verifier, KeyError> {
        let mut keys = Vec::new();
        if !jwt.secret.is_empty() {
            keys.extend(secret_key(jwt.secret.expose().as_bytes()));
        }
        if let Some(path) = &jwt.secret_file {
            let secret = read(path)?;
            let secret = secret.strip_suffix(b"\n").unwrap_or(&secret);
            let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
            keys.push(secret_key(secret).ok_or_else(|| unusable(path, "needs 32 bytes or more"))?);
        }
        for path in &jwt.public_keys {
            keys.push(pem_key(&read(path)?).map_err(|why| unusable(path, why))?);
        }
        if let Some(path) = &jwt.jwks_file {
            keys.extend(key_set(&read(path)?).map_err(|why| unusable(path, why))?);
        }
        Ok(Verifier {
            keys,
            audience: jwt.audience.clone(),
            issuer: jwt.issuer.clone(),
            leeway_ms: u64::try_from(jwt.leeway.get().as_millis()).unwrap_or(u64::MAX),
            expiry_required: jwt.expiry_required,
            allow: Arc::new(checked_rules(&jwt.allow)),
        })
    }

    /// Whom `token` lets in as `client_id` at the time `unix_ms`, in milliseconds since 1970. Takes
    /// a fraction of a millisecond.
    ///
    /// # Errors
    /// Why nobody.
    pub fn verify(
        &self,
        token: &[u8],
        client_id: &str,
        unix_ms: u64,
    ) -> Result<Principal, JwtError> {
        let claims = self.claims(token)?;
        let expires_at = claims.exp.map(millis);
        if self.expiry_required && expires_at.is_none() {
            return Err(JwtError::NoExpiry);
        }
        // What is late by the leeway is cut off then, and not later.
        let expires_at = expires_at.map(|end| end.saturating_add(self.leeway_ms));
        if expires_at.is_some_and(|end| end <= unix_ms) {
            return Err(JwtError::Expired);
        }
        if claims.nbf.is_some_and(|begin| millis(begin) > unix_ms.saturating_add(self.leeway_ms)) {
            return Err(JwtError::NotYet);
        }
        if !(1..=USER_NAME_BYTES_MAX).contains(&claims.sub.len()) {
            return Err(JwtError::Subject);
        }
        if claims.client_id.is_some_and(|named| named != client_id) {
            return Err(JwtError::ClientId);
        }
        let rules = match claims.allow.as_slice() {
            [] => Arc::clone(&self.allow),
            texts if texts.len() > RULES_MAX => return Err(JwtError::Rules),
            texts => {
                let own = texts.iter().map(|text| Rule::parse(text));
                let own: Vec<Rule> = own.collect::<Result<_, _>>()?;
                Arc::new(self.allow.with(own))
            }
        };
        let user = Principal::user(claims.sub.into(), client_id, Some(rules));
        Ok(match expires_at {
            Some(end) => user.until(end),
            None => user,
        })
    }

    /// What a token that one of the keys has signed says.
    fn claims(&self, token: &[u8]) -> Result<Claims, JwtError> {
        let header = decode_header(token)?;
        if header.crit.is_some() {
            return Err(JwtError::Critical);
        }
        let fits = |key: &&Key| {
            let other = key.id.is_some() && header.kid.is_some() && key.id != header.kid;
            !other && key.algorithms.contains(&header.alg)
        };
        let validation = self.validation(header.alg);
        let mut why = JwtError::NoKey;
        for key in self.keys.iter().filter(fits) {
            match decode(token, &key.key, &validation) {
                Ok(token) => return Ok(token.claims),
                Err(error) => why = error.into(),
            }
        }
        Err(why)
    }

    /// What the library compares. Times it would compare with a clock of its own.
    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let mut required = vec!["sub"];
        if !self.audience.is_empty() {
            validation.set_audience(&self.audience);
            required.push("aud");
        }
        if !self.issuer.is_empty() {
            validation.set_issuer(&self.issuer);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        validation
    }
}

/// Of seconds; what is before 1970, or no number, has ended.
fn millis(seconds: f64) -> u64 {
    (seconds * 1000.0) as u64
}

fn unusable(path: &Path, why: impl Into<String>) -> KeyError {
    KeyError::Unusable { path: path.to_owned(), why: why.into() }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let io = |source| KeyError::Io { path: path.to_owned(), source };
    let mut bytes = Zeroizing::new(Vec::new());
    let file = File::open(path).map_err(io)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(unusable(path, format!("has more than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

/// A secret, for those algorithms whose hash is no longer than it (RFC 7518, section 3.2).
fn secret_key(secret: &[u8]) -> Option<Key> {
    let all = [(32, Algorithm::HS256), (48, Algorithm::HS384), (64, Algorithm::HS512)];
    let fitting = all.iter().filter(|(bytes, _)| secret.len() >= *bytes);
    let algorithms: Vec<Algorithm> = fitting.map(|(_, algorithm)| *algorithm).collect();
    let key = DecodingKey::from_secret(secret);
    (!algorithms.is_empty()).then_some(Key { id: None, algorithms, key })
}

const RSA: [Algorithm; 3] = [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512];

fn pem_key(pem: &[u8]) -> Result<Key, String> {
    let says = |words: &[u8]| pem.windows(words.len()).any(|window| window == words);
    if says(b"PRIVATE KEY") {
        return Err("is a private key, which belongs to who signs: give the public one".to_owned());
    }
    let none = || "holds no public key of RSA, P-256, P-384 or Ed25519 as PEM".to_owned();
    // A certificate holds one too, and promises more than is looked at here.
    if !says(b"PUBLIC KEY-----") {
        return Err(none());
    }
    let made = |key, algorithms: &[Algorithm]| Key { id: None, algorithms: algorithms.into(), key };
    if let Ok(key) = DecodingKey::from_ed_pem(pem) {
        return match key.try_get_as_bytes().map(<[u8]>::len) {
            Ok(32) => Ok(made(key, &[Algorithm::EdDSA])),
            _ => Err("is no key of Ed25519".to_owned()),
        };
    }
    if let Ok(key) = DecodingKey::from_ec_pem(pem) {
        // An uncompressed point: RFC 5480, section 2.2.
        return match key.try_get_as_bytes().map(<[u8]>::len) {
            Ok(65) => Ok(made(key, &[Algorithm::ES256])),
            Ok(97) => Ok(made(key, &[Algorithm::ES384])),
            _ => Err("is on no curve that is known: P-256 and P-384 are".to_owned()),
        };
    }
    match DecodingKey::from_rsa_pem(pem) {
        // The modulus is nearly all of it.
        Ok(key) if key.try_get_as_bytes().is_ok_and(|der| der.len() >= RSA_BYTES_MIN) => {
            Ok(made(key, &RSA))
        }
        Ok(_) => Err("is an RSA key of less than 2048 bits".to_owned()),
        Err(_) => Err(none()),
    }
}

fn key_set(json: &[u8]) -> Result<Vec<Key>, String> {
    let set: JwkSet = serde_json::from_slice(json)
        // Its own words would quote what is in the file.
        .map_err(|error| format!("is no set of keys from line {} on", error.line()))?;
    if set.keys.len() > KEYS_MAX {
        return Err(format!("has more than {KEYS_MAX} keys"));
    }
    // Sets hold keys for other uses and of kinds that are to come.
    let keys: Vec<Key> = set.keys.iter().filter_map(set_key).collect();
    if keys.is_empty() {
        return Err("has no public key for signatures of a kind that is known".to_owned());
    }
    Ok(keys)
}

fn set_key(jwk: &Jwk) -> Option<Key> {
    let for_signatures =
        jwk.common.public_key_use.as_ref().is_none_or(|of| *of == PublicKeyUse::Signature);
    let algorithms: Vec<Algorithm> = match &jwk.algorithm {
        AlgorithmParameters::RSA(params) => {
            let modulus = URL_SAFE_NO_PAD.decode(&params.n).ok()?;
            if modulus.len() < RSA_BYTES_MIN { Vec::new() } else { RSA.into() }
        }
        AlgorithmParameters::EllipticCurve(params) => match params.curve {
            EllipticCurve::P256 => vec![Algorithm::ES256],
            EllipticCurve::P384 => vec![Algorithm::ES384],
            _ => Vec::new(),
        },
        AlgorithmParameters::OctetKeyPair(params) => match params.curve {
            EllipticCurve::Ed25519 => vec![Algorithm::EdDSA],
            _ => Vec::new(),
        },
        // A secret is no part of a set that is published.
        _ => Vec::new(),
    };
    // What the set says of a key narrows down what it is for.
    let named = jwk.common.key_algorithm.map(Algorithm::try_from);
    let algorithms = match named {
        None => algorithms,
        Some(named) => {
            let named = named.ok()?;
            algorithms.into_iter().filter(|algorithm| *algorithm == named).collect()
        }
    };
    let key = DecodingKey::from_jwk(jwk).ok()?;
    let good = for_signatures && !algorithms.is_empty();
    good.then(|| Key { id: jwk.common.key_id.clone(), algorithms, key })
}

#[cfg(test)]
mod tests;
