//! `sextant push passwd`: a password becomes a hash for the configuration file.
//!
//! The password is read from a terminal without being shown, twice, or from the first line of
//! standard input. What is printed is TOML, ready to be appended to a file.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::os::fd::AsFd;

use argon2::Argon2;
use argon2::password_hash::{PasswordHasher, SaltString};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};

use sha2::{Digest, Sha256};

use crate::cli::PasswdArgs;
use crate::error::Error;
use crate::terminal::say;

/// MQTT's limit for a password.
const PASSWORD_BYTES_MAX: usize = 65_535;
const SALT_BYTES: usize = 16;
/// Passes over a password, which each login costs the client: 15,000 take a phone some 30 ms.
const SCRAM_ITERATIONS: u32 = 15_000;

pub(super) fn run(args: &PasswdArgs) -> Result<(), Error> {
    let password = if io::stdin().is_terminal() {
        let first = ask("Password: ")?;
        if ask("Again: ")? != first {
            return Err(Error::Usage("these two differ: try again".to_owned()));
        }
        first
    } else {
        first_line()?
    };
    if password.is_empty() {
        return Err(Error::Usage("an empty password protects nothing: give another".to_owned()));
    }
    let hash = hash(password.as_bytes())?;
    let verifier = if args.scram { Some(verifier(&password, &salt()?)?) } else { None };
    say(snippet(&args.name, &hash, verifier.as_deref()));
    Ok(())
}

fn salt() -> Result<[u8; SALT_BYTES], Error> {
    let mut salt = [0; SALT_BYTES];
    getrandom::fill(&mut salt)
        .map_err(|error| Error::io("make a salt")(io::Error::other(error)))?;
    Ok(salt)
}

/// What a server has to know to check a proof of the password by SCRAM-SHA-256, as PostgreSQL
/// writes it: RFC 5802, section 3.
fn verifier(password: &str, salt: &[u8]) -> Result<String, Error> {
    // SASLprep (RFC 4013) leaves these as they are, and others would have to go through it.
    if !password.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        let words = "for --scram a password has letters, digits, marks and spaces of ASCII alone";
        return Err(Error::Usage(words.to_owned()));
    }
    let mut last = hmac(password.as_bytes(), &[salt, &1u32.to_be_bytes()].concat());
    let mut salted = last;
    for _ in 1..SCRAM_ITERATIONS {
        last = hmac(password.as_bytes(), &last);
        salted.iter_mut().zip(last).for_each(|(salted, last)| *salted ^= last);
    }
    let stored_key = Sha256::digest(hmac(&salted, b"Client Key"));
    let server_key = hmac(&salted, b"Server Key");
    let [salt, stored, server] =
        [salt, stored_key.as_slice(), &server_key].map(|bytes| STANDARD.encode(bytes));
    Ok(format!("SCRAM-SHA-256${SCRAM_ITERATIONS}:{salt}${stored}:{server}"))
}

fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    // HMAC takes a key of any length.
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key is a key");
    mac.update(text);
    mac.finalize().into_bytes().into()
}

/// An argon2id hash in PHC form, with the crate's own costs: 19 MiB, two passes.
fn hash(password: &[u8]) -> Result<String, Error> {
    let failed = |error: argon2::password_hash::Error| {
        Error::io("hash the password")(io::Error::other(error.to_string()))
    };
    let salt = SaltString::encode_b64(&salt()?).map_err(failed)?;
    let hash = Argon2::default().hash_password(password, &salt).map_err(failed)?;
    Ok(hash.to_string())
}

fn snippet(name: &str, hash: &str, verifier: Option<&str>) -> String {
    let scram = verifier.map(|verifier| format!("scram = {}\n", toml::Value::from(verifier)));
    format!(
        "[[auth.users]]\nname = {}\npassword = {}\n{}allow = [\"subscribe #\"]",
        toml::Value::from(name),
        toml::Value::from(hash),
        scram.unwrap_or_default()
    )
}

fn first_line() -> Result<String, Error> {
    let mut line = String::new();
    io::stdin()
        .lock()
        .take(PASSWORD_BYTES_MAX as u64 + 2)
        .read_line(&mut line)
        .map_err(Error::io("read the password"))?;
    let password = line.trim_end_matches(['\r', '\n']);
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(Error::Usage(format!("a password has at most {PASSWORD_BYTES_MAX} bytes")));
    }
    Ok(password.to_owned())
}

/// Asks on the terminal, and does not show what is typed.
pub(super) fn ask(prompt: &str) -> Result<String, Error> {
    let failed = || Error::io("read the password from the terminal");
    let _ = write!(io::stderr(), "{prompt}");
    let silent = Silent::new().map_err(failed())?;
    let typed = typed(&mut io::stdin().lock());
    drop(silent);
    let _ = writeln!(io::stderr());
    typed.map_err(failed())
}

/// A terminal that shows nothing and hands on each key, Ctrl-C too; as it was when dropped.
///
/// If the terminal itself acted upon Ctrl-C, it would be left without echo.
struct Silent {
    before: Termios,
}

impl Silent {
    fn new() -> io::Result<Self> {
        let before = tcgetattr(io::stdin().as_fd())?;
        let mut raw = before.clone();
        raw.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        raw.special_codes[SpecialCodeIndex::VMIN] = 1;
        raw.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(io::stdin().as_fd(), OptionalActions::Flush, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin().as_fd(), OptionalActions::Now, &self.before);
    }
}

/// What was typed until Enter.
fn typed(keys: &mut impl Read) -> io::Result<String> {
    const INTERRUPT: u8 = 0x03;
    const END: u8 = 0x04;
    const ERASE_LINE: u8 = 0x15;
    let mut line = Vec::new();
    let mut key = [0];
    loop {
        if keys.read(&mut key)? == 0 {
            break;
        }
        match key[0] {
            b'\r' | b'\n' | END => break,
            INTERRUPT => return Err(io::Error::new(io::ErrorKind::Interrupted, "given up")),
            ERASE_LINE => line.clear(),
            0x08 | 0x7F => erase_last(&mut line),
            byte if line.len() < PASSWORD_BYTES_MAX => line.push(byte),
            _ => {}
        }
    }
    String::from_utf8(line)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}

/// Removes the last character, which may have several bytes.
fn erase_last(line: &mut Vec<u8>) {
    while let Some(byte) = line.pop() {
        if byte & 0b1100_0000 != 0b1000_0000 {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use argon2::password_hash::{PasswordHash, PasswordVerifier};

    #[test]
    fn the_hash_is_argon2id_and_fits_its_password_alone() {
        let text = hash(b"secret").unwrap();
        assert!(text.starts_with("$argon2id$v=19$"), "{text}");
        let parsed = PasswordHash::new(&text).unwrap();
        assert!(Argon2::default().verify_password(b"secret", &parsed).is_ok());
        assert!(Argon2::default().verify_password(b"Secret", &parsed).is_err());
        assert_ne!(text, hash(b"secret").unwrap(), "each has a salt of its own");
    }

    #[test]
    fn what_is_printed_is_toml_for_any_name() {
        let text = snippet("a \"b\"\n", "$argon2id$x", Some("SCRAM-SHA-256$x"));
        let table: toml::Table = text.parse().unwrap();
        let user = &table["auth"]["users"][0];
        assert_eq!(user["name"].as_str(), Some("a \"b\"\n"));
        assert_eq!(user["password"].as_str(), Some("$argon2id$x"));
        assert_eq!(user["scram"].as_str(), Some("SCRAM-SHA-256$x"));
        assert!(!snippet("a", "b", None).contains("scram"));
    }

    #[test]
    fn a_verifier_is_of_its_password_and_salt_and_of_ascii_alone() {
        let text = verifier("pencil", &[7; SALT_BYTES]).unwrap();
        // Made with Python: hashlib.pbkdf2_hmac, hmac and hashlib.
        assert_eq!(
            text,
            "SCRAM-SHA-256$15000:BwcHBwcHBwcHBwcHBwcHBw==$\
             BytXTVGru5NtJ6HJk6ZYpopmBV/3BkSTLqnK6jErrgA=:\
             ierLMZ9WbzdaNlhTo9L3FNjvW1bkJdRmZiIHkB8StZE="
        );
        assert_ne!(text, verifier("pencils", &[7; SALT_BYTES]).unwrap());
        assert_ne!(text, verifier("pencil", &[8; SALT_BYTES]).unwrap());
        assert!(verifier("p\u{e9}ncil", &[7; SALT_BYTES]).is_err());
        assert!(verifier("pen\tcil", &[7; SALT_BYTES]).is_err());
    }

    #[test]
    fn typing_can_be_corrected_and_given_up() {
        let typed = |keys: &str| typed(&mut keys.as_bytes());
        assert_eq!(typed("aü\x7Fb\rx").unwrap(), "ab");
        assert_eq!(typed("no\x15yes\n").unwrap(), "yes");
        assert_eq!(typed("abc\x03").unwrap_err().kind(), io::ErrorKind::Interrupted);
    }
}
