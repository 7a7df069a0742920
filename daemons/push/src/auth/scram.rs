//! SCRAM-SHA-256, the server's end: a client proves that it knows a password, and the server that
//! it knows what was made of it, without either saying so (RFC 5802, RFC 7677).
//!
//! ```text
//!   CONNECT   n,,n=USER,r=NONCE                   ──►
//!                                                 ◄──  r=NONCE…MORE,s=SALT,i=ITERATIONS   AUTH
//!   AUTH      c=biws,r=NONCE…MORE,p=PROOF         ──►
//!                                                 ◄──  v=SIGNATURE                     CONNACK
//! ```
//!
//! What the server keeps, a [`Verifier`], lets nobody in who steals it. It is written as PostgreSQL
//! writes it: `SCRAM-SHA-256$ITERATIONS:SALT$STORED_KEY:SERVER_KEY`, the last three in base64.
//!
//! A user that does not exist is asked for a proof like others, with a salt that stays the same,
//! and refused where a wrong proof is. Each exchange has a nonce of the server's, so one that was
//! overheard is worth nothing. Channel binding is not offered, and acting as somebody else (an
//! authorization identity) neither. A step costs a core four hashes.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The name of the method in MQTT.
pub const METHOD: &str = "SCRAM-SHA-256";

/// Passes that a client has to make over its password at most: they are its own work, and nobody
/// asks for more.
const ITERATIONS_MAX: u32 = 10_000_000;
/// Passes at least: RFC 7677, section 4.
const ITERATIONS_MIN: u32 = 4096;
const SALT_BYTES_MIN: usize = 8;
const SALT_BYTES_MAX: usize = 256;
/// The longest message that is looked at, in bytes.
const MESSAGE_BYTES_MAX: usize = 2048;
/// The longest nonce of a client, in bytes.
const NONCE_BYTES_MAX: usize = 256;
/// The server's part of a nonce, in bytes before they are base64.
const NONCE_BYTES: usize = 18;

type Key = [u8; 32];

/// A text that is no verifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifierError {
    /// It is written otherwise.
    #[error(
        "expected \"SCRAM-SHA-256$ITERATIONS:SALT$STORED_KEY:SERVER_KEY\": make one with `sextant \
         push passwd --scram`"
    )]
    Form,
    /// There are too few passes, or its salt is too short.
    #[error("it is too weak: {ITERATIONS_MIN} iterations and a salt of {SALT_BYTES_MIN} bytes")]
    Weak,
    /// There are too many passes, or its salt is too long.
    #[error("it costs too much: at most {ITERATIONS_MAX} iterations")]
    Costly,
}

/// What a server knows of a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    iterations: u32,
    salt: Vec<u8>,
    stored_key: Key,
    server_key: Key,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(<redacted>)")
    }
}

impl FromStr for Verifier {
    type Err = VerifierError;

    fn from_str(text: &str) -> Result<Verifier, VerifierError> {
        let parts = || {
            let text = text.strip_prefix(METHOD)?.strip_prefix('$')?;
            let (cost, keys) = text.split_once('$')?;
            let (iterations, salt) = cost.split_once(':')?;
            let (stored, server) = keys.split_once(':')?;
            let key = |text: &str| Key::try_from(STANDARD.decode(text).ok()?).ok();
            Some(Verifier {
                iterations: iterations.parse().ok()?,
                salt: STANDARD.decode(salt).ok()?,
                stored_key: key(stored)?,
                server_key: key(server)?,
            })
        };
        let verifier = parts().ok_or(VerifierError::Form)?;
        if verifier.iterations < ITERATIONS_MIN || verifier.salt.len() < SALT_BYTES_MIN {
            return Err(VerifierError::Weak);
        }
        if verifier.iterations > ITERATIONS_MAX || verifier.salt.len() > SALT_BYTES_MAX {
            return Err(VerifierError::Costly);
        }
        Ok(verifier)
    }
}

impl Verifier {
    /// One that no proof matches, for the user `name`, who does not exist; it is asked for
    /// `iterations`, and always the same salt under `key`.
    pub fn decoy(name: &str, iterations: u32, key: &[u8]) -> Verifier {
        let salt = hmac(key, &[b"salt ", name.as_bytes()])[..16].to_vec();
        // Nobody knows what has these for its hash, or this one.
        let stored_key = hmac(key, &[b"stored key ", name.as_bytes()]);
        let server_key = hmac(key, &[b"server key ", name.as_bytes()]);
        Verifier { iterations, salt, stored_key, server_key }
    }

    /// Passes that a client makes over its password.
    pub fn iterations(&self) -> u32 {
        self.iterations
    }
}

/// Why an exchange lets nobody in. What of it is wrong is told to nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScramError {
    /// A message is not written as one of SCRAM, or asks for what is not offered.
    #[error("this is no message of SCRAM-SHA-256")]
    Message,
    /// The proof is wrong, or there is no such user.
    #[error("the proof is wrong")]
    Proof,
}

/// A client's first message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct First<'a> {
    /// What its last message has to repeat: `n,,` or `y,,`.
    header: &'a str,
    /// All behind that.
    bare: &'a str,
    user: &'a str,
    nonce: &'a str,
}

impl<'a> First<'a> {
    /// Reads it.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(message: &'a [u8]) -> Result<First<'a>, ScramError> {
        let text = text(message)?;
        // No channel binding, and nobody else to act as.
        let header = text.get(..3).filter(|header| matches!(*header, "n,," | "y,,"));
        let header = header.ok_or(ScramError::Message)?;
        let bare = &text[3..];
        let mut parts = bare.split(',');
        let mut attribute = |name: &str| {
            let value = parts.next().and_then(|part| part.strip_prefix(name)?.strip_prefix('='));
            value.filter(|value| !value.is_empty()).ok_or(ScramError::Message)
        };
        // An `m=` first, an extension that has to be understood, is none of these.
        let (user, nonce) = (attribute("n")?, attribute("r")?);
        let printable = nonce.bytes().all(|byte| byte.is_ascii_graphic());
        if nonce.len() > NONCE_BYTES_MAX || !printable {
            return Err(ScramError::Message);
        }
        Ok(First { header, bare, user, nonce })
    }

    /// The user's name.
    ///
    /// # Errors
    /// It is not written as SCRAM writes names.
    pub fn user(&self) -> Result<String, ScramError> {
        let mut name = String::with_capacity(self.user.len());
        let mut parts = self.user.split('=');
        name.extend(parts.next());
        for part in parts {
            let (char, rest) = match part.get(..2) {
                Some("2C") => (',', &part[2..]),
                Some("3D") => ('=', &part[2..]),
                _ => return Err(ScramError::Message),
            };
            name.push(char);
            name.push_str(rest);
        }
        Ok(name)
    }
}

/// An exchange that waits for the client's proof.
pub struct Exchange {
    verifier: Arc<Verifier>,
    header: Box<str>,
    nonce: Box<str>,
    /// The client's first message without its header, and the server's, with a comma between.
    messages: Box<str>,
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exchange(<redacted>)")
    }
}

impl Exchange {
    /// Begins: what is to be answered comes with it. `random` is used once.
    pub fn begin(
        first: &First<'_>,
        verifier: Arc<Verifier>,
        random: [u8; NONCE_BYTES],
    ) -> (Exchange, String) {
        Exchange::begin_with(first, verifier, &STANDARD.encode(random))
    }

    fn begin_with(first: &First<'_>, verifier: Arc<Verifier>, more: &str) -> (Exchange, String) {
        let nonce = format!("{}{more}", first.nonce);
        let salt = STANDARD.encode(&verifier.salt);
        let answer = format!("r={nonce},s={salt},i={}", verifier.iterations);
        let messages = format!("{},{answer}", first.bare).into();
        let (header, nonce) = (first.header.into(), nonce.into());
        (Exchange { verifier, header, nonce, messages }, answer)
    }

    /// Takes the client's last message. What is to be answered proves that this server knows it.
    ///
    /// # Errors
    /// It does not prove that the client knows the password.
    pub fn finish(self, message: &[u8]) -> Result<String, ScramError> {
        let text = text(message)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(ScramError::Message)?;
        let mut parts = without_proof.split(',');
        let mut attribute = |name: &str| {
            let value = parts.next().and_then(|part| part.strip_prefix(name)?.strip_prefix('='));
            value.ok_or(ScramError::Message)
        };
        let (binding, nonce) = (attribute("c")?, attribute("r")?);
        let binding = STANDARD.decode(binding).map_err(|_| ScramError::Message)?;
        let proof = STANDARD.decode(proof).map_err(|_| ScramError::Message)?;
        let proof = Key::try_from(proof).map_err(|_| ScramError::Message)?;
        if binding != self.header.as_bytes() || *nonce != *self.nonce {
            return Err(ScramError::Message);
        }
        let Verifier { stored_key, server_key, .. } = &*self.verifier;
        let auth_message = [self.messages.as_bytes(), b",", without_proof.as_bytes()];
        let signature = hmac(stored_key, &auth_message);
        let client_key: Key = std::array::from_fn(|at| proof[at] ^ signature[at]);
        if !bool::from(Sha256::digest(client_key).as_slice().ct_eq(stored_key)) {
            return Err(ScramError::Proof);
        }
        Ok(format!("v={}", STANDARD.encode(hmac(server_key, &auth_message))))
    }
}

/// Randomness for [`Exchange::begin`].
///
/// # Errors
/// The system has none.
pub fn nonce() -> Result<[u8; NONCE_BYTES], getrandom::Error> {
    let mut random = [0; NONCE_BYTES];
    getrandom::fill(&mut random)?;
    Ok(random)
}

fn text(message: &[u8]) -> Result<&str, ScramError> {
    let message = Some(message).filter(|message| message.len() <= MESSAGE_BYTES_MAX);
    message.and_then(|message| std::str::from_utf8(message).ok()).ok_or(ScramError::Message)
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Key {
    // HMAC takes a key of any length.
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key is a key");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests;
