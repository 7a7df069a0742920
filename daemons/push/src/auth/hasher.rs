//! Threads that check passwords against their argon2id hashes, and signatures of tokens, so that no
//! core ever does.
//!
//! ```text
//!   cores ─┬► passwords, bounded ─► [known right?] ─► argon2id ─► deliver(core, connection, how)
//!          │   full: Busy                └───────────────────────► ^
//!          └► tokens, bounded ──────────────────────► signature ─► ^
//! ```
//!
//! What was right once is right again at once, until it is forgotten: so a thousand clients of one
//! user that come back together cost one hash. What is remembered is a code of user, hash and
//! password under a key that lives and dies with the thread; a changed hash is another code.
//! What was wrong is not remembered: it costs a hash each time. Tokens, which take a hundredth of
//! that, do not wait for it.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use argon2::password_hash::{
    Output, PasswordHash, PasswordHasher, PasswordVerifier, Salt, SaltString,
};
use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use hashbrown::HashSet;
use hmac::Mac;
use zeroize::Zeroizing;

use super::token::keyed;
use super::{Check, Refusal, Verification, Verified};

/// Right passwords that are remembered.
const REMEMBERED_MAX: usize = 10_000;

/// Tokens that may wait for each password that may.
const TOKENS_PER_PASSWORD: usize = 16;

/// Memory that one check may take, in KiB.
const MEMORY_KIB_MAX: u32 = 1 << 20;
/// Passes that one check may make over it.
const PASSES_MAX: u32 = 64;
const LANES_MAX: u32 = 64;

const SALT_BYTES: usize = 16;
const OUTPUT_BYTES: usize = 32;

/// Why a text is no password hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HashError {
    /// It is no PHC string of argon2id, version 19, with salt and hash.
    #[error(
        "expected an argon2id hash such as \"$argon2id$v=19$m=19456,t=2,p=1$...\": make one with \
         `sextant push passwd`"
    )]
    Form,
    /// Its salt has less than 8 bytes, or its output less than 16.
    #[error("the hash is too short to be safe: make one with `sextant push passwd`")]
    Weak,
    /// It costs more than a login may.
    #[error("the hash costs too much: at most m={MEMORY_KIB_MAX}, t={PASSES_MAX}, p={LANES_MAX}")]
    Costly,
}

/// Checks the hash of a password.
///
/// # Errors
/// Why it is none. The error does not quote it.
pub fn check_hash(text: &str) -> Result<(), HashError> {
    let hash = PasswordHash::new(text).map_err(|_| HashError::Form)?;
    let argon2id = hash.algorithm == argon2::ARGON2ID_IDENT;
    if !argon2id || hash.version != Some(u32::from(Version::V0x13)) {
        return Err(HashError::Form);
    }
    let params = Params::try_from(&hash).map_err(|_| HashError::Form)?;
    let (Some(salt), Some(output)) = (hash.salt, hash.hash) else {
        return Err(HashError::Form);
    };
    let mut buffer = [0; Salt::MAX_LENGTH];
    let salt = salt.decode_b64(&mut buffer).map_err(|_| HashError::Form)?;
    if salt.len() < 8 || output.len() < 16 {
        return Err(HashError::Weak);
    }
    let bounded = params.m_cost() <= MEMORY_KIB_MAX
        && params.t_cost() <= PASSES_MAX
        && params.p_cost() <= LANES_MAX;
    if bounded { Ok(()) } else { Err(HashError::Costly) }
}

/// The hash to configure for `password`: argon2id with 19 MiB, two passes and one lane, which is
/// what OWASP's Password Storage Cheat Sheet asks for.
///
/// # Errors
/// The system has no randomness for a salt.
pub fn hash_password(password: &str) -> io::Result<String> {
    let salt = random_salt()?;
    let params = Params::DEFAULT; // m=19456, t=2, p=1
    let hasher = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash = hasher.hash_password(password.as_bytes(), &salt);
    Ok(hash.map_err(|error| io::Error::other(error.to_string()))?.to_string())
}

fn random_salt() -> io::Result<SaltString> {
    let mut bytes = [0; SALT_BYTES];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    SaltString::encode_b64(&bytes).map_err(|error| io::Error::other(error.to_string()))
}

/// A hash that no password matches and that costs as much to check as `model`, or as
/// [`hash_password`]'s: its output is not that of any password but all zero.
pub(super) fn decoy_hash(model: Option<&str>) -> String {
    let salt = STANDARD_NO_PAD.encode([0; SALT_BYTES]);
    let zeros = STANDARD_NO_PAD.encode([0; OUTPUT_BYTES]);
    let plain = format!("$argon2id$v=19$m=19456,t=2,p=1${salt}${zeros}");
    let Some(Ok(mut hash)) = model.map(PasswordHash::new) else { return plain };
    let len = hash.hash.map_or(OUTPUT_BYTES, |output| output.len());
    match Output::new(&vec![0; len]) {
        Ok(output) => hash.hash = Some(output),
        Err(_) => return plain,
    }
    hash.to_string()
}

/// Whether `password` is the one that `hash` was made of. In constant time for one hash.
pub(super) fn matches_hash(password: &[u8], hash: &str) -> bool {
    let hash = PasswordHash::new(hash);
    hash.is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok())
}

struct Job {
    core: usize,
    conn: u64,
    verification: Verification,
}

/// Is told of each check: the core and connection that asked, and how it ended.
pub type Deliver = Arc<dyn Fn(usize, u64, Verified) + Send + Sync>;

/// The way to the threads. Clones lead to the same; when the last one is dropped they end, after
/// what is queued.
#[derive(Clone, Debug)]
pub struct Hasher {
    passwords: SyncSender<Job>,
    tokens: SyncSender<Job>,
}

impl Hasher {
    /// Starts the threads, which tell `deliver`. At most `queue_max` passwords wait, and sixteen
    /// times as many tokens; with passwords of [`PASSWORD_BYTES_MAX`](super::PASSWORD_BYTES_MAX)
    /// and tokens of [`TOKEN_BYTES_MAX`](super::jwt::TOKEN_BYTES_MAX) each that bounds their
    /// memory.
    ///
    /// # Errors
    /// There can be no more threads, or no randomness.
    pub fn spawn(queue_max: usize, deliver: Deliver) -> io::Result<Hasher> {
        let known = Known::new(REMEMBERED_MAX)?;
        let (passwords, jobs) = sync_channel(queue_max);
        let (tokens, token_jobs) = sync_channel(queue_max.saturating_mul(TOKENS_PER_PASSWORD));
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let also_deliver = Arc::clone(&deliver);
        thread("hasher").spawn(move || check_passwords(&jobs, known, &deliver))?;
        thread("tokens").spawn(move || check_tokens(&token_jobs, &also_deliver))?;
        Ok(Hasher { passwords, tokens })
    }

    /// Hands a check over for `conn` of `core`, a question to its hook; what comes of it is
    /// delivered. Never waits.
    ///
    /// # Errors
    /// [`Refusal::Busy`], or [`Refusal::Unavailable`] for a question: too many wait.
    pub fn try_submit(
        &self,
        core: usize,
        conn: u64,
        verification: Verification,
    ) -> Result<(), Refusal> {
        let (queue, verification) = match verification.0 {
            Check::Question { hook, question } => return hook.try_ask(core, conn, *question),
            check @ Check::Password { .. } => (&self.passwords, Verification(check)),
            check @ Check::Token { .. } => (&self.tokens, Verification(check)),
        };
        queue.try_send(Job { core, conn, verification }).map_err(|_| Refusal::Busy)
    }
}

fn check_tokens(jobs: &Receiver<Job>, deliver: &Deliver) {
    for Job { core, conn, verification } in jobs {
        deliver(core, conn, verification.run());
    }
}

fn check_passwords(jobs: &Receiver<Job>, mut known: Known, deliver: &Deliver) {
    for Job { core, conn, verification } in jobs {
        let code = known.code(&verification);
        let verified = if code.is_some_and(|code| known.holds(&code)) {
            verification.conclude(true)
        } else {
            let verified = verification.run();
            if let (Verified::Admitted(_), Some(code)) = (&verified, code) {
                known.remember(code);
            }
            verified
        };
        deliver(core, conn, verified);
    }
}

type Code = [u8; 32];

/// Right passwords, the oldest forgotten first.
struct Known {
    key: Zeroizing<[u8; 32]>,
    codes: HashSet<Code>,
    order: VecDeque<Code>,
    len_max: usize,
}

impl Known {
    fn new(len_max: usize) -> io::Result<Known> {
        let mut key = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *key).map_err(io::Error::other)?;
        Ok(Known { key, codes: HashSet::new(), order: VecDeque::new(), len_max })
    }

    /// The code of a user's password; none where there is no such user.
    fn code(&self, verification: &Verification) -> Option<Code> {
        let Check::Password { principal, password, hash } = &verification.0 else { return None };
        let user = principal.as_ref()?.name();
        let mut mac = keyed(&self.key);
        for part in [user.as_bytes(), hash.as_bytes(), password] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        Some(mac.finalize().into_bytes().into())
    }

    fn holds(&self, code: &Code) -> bool {
        self.codes.contains(code)
    }

    fn remember(&mut self, code: Code) {
        if !self.codes.insert(code) {
            return;
        }
        self.order.push_back(code);
        if self.order.len() > self.len_max
            && let Some(oldest) = self.order.pop_front()
        {
            self.codes.remove(&oldest);
        }
        assert!(self.codes.len() == self.order.len(), "both hold the same codes");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::auth::token::TokenKey;
    use crate::auth::{Authenticator, Credentials, Decision};
    use crate::config;
    use sextant_service::config::Secret;
    use std::sync::Mutex;
    use std::sync::mpsc::channel;

    /// As cheap as argon2 gets.
    fn cheap_hash(password: &str) -> String {
        let hasher =
            Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(8, 1, 1, None).unwrap());
        let salt = random_salt().unwrap();
        hasher.hash_password(password.as_bytes(), &salt).unwrap().to_string()
    }

    fn authenticator(hash: &str) -> Authenticator {
        let user = config::User {
            name: "u".to_owned(),
            password: Secret::new(hash),
            scram: Secret::default(),
            allow: vec!["all a/#".to_owned()],
        };
        let auth = config::Auth { users: vec![user], ..config::Auth::default() };
        Authenticator::new(&auth, TokenKey::from_bytes([1; 32]))
    }

    fn verification(authenticator: &Authenticator, user: &str, password: &str) -> Verification {
        let credentials = Credentials {
            client_id: "c",
            user_name: Some(user),
            password: Some(password.as_bytes()),
            version: sextant_mqtt::Version::V5,
        };
        match authenticator.decide(&credentials, 0) {
            Decision::Verify(verification) => verification,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_hash_of_ours_is_accepted_and_matches_its_password_alone() {
        let hash = hash_password("hunter2").unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_eq!(check_hash(&hash), Ok(()));
        assert!(matches_hash(b"hunter2", &hash));
        assert!(!matches_hash(b"hunter3", &hash) && !matches_hash(b"", &hash));
        assert_ne!(hash, hash_password("hunter2").unwrap());
    }

    #[test]
    fn what_is_no_safe_hash_is_refused() {
        let salt = "c2FsdHNhbHRzYWx0c2FsdA";
        let out = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY";
        let with = |head: &str| check_hash(&format!("{head}${salt}${out}"));
        assert_eq!(with("$argon2id$v=19$m=19456,t=2,p=1"), Ok(()));
        for head in ["$argon2i$v=19$m=19456,t=2,p=1", "$argon2id$v=16$m=19456,t=2,p=1"] {
            assert_eq!(with(head), Err(HashError::Form), "{head}");
        }
        for text in ["", "hunter2", "$2b$12$abcdefghijklmnopqrstuv", "$argon2id$v=19$m=8,t=1,p=1"] {
            assert_eq!(check_hash(text), Err(HashError::Form), "{text}");
        }
        assert_eq!(with("$argon2id$m=19456,t=2,p=1"), Err(HashError::Form));
        assert_eq!(with("$argon2id$v=19$m=4194304,t=2,p=1"), Err(HashError::Costly));
        assert_eq!(with("$argon2id$v=19$m=19456,t=65,p=1"), Err(HashError::Costly));
        let short = format!("$argon2id$v=19$m=19456,t=2,p=1${salt}$MDEyMzQ1Njc4OQ");
        assert_eq!(check_hash(&short), Err(HashError::Weak));
    }

    #[test]
    fn a_decoy_costs_what_the_model_costs() {
        let model = cheap_hash("x");
        let decoy = decoy_hash(Some(&model));
        assert!(decoy.starts_with("$argon2id$v=19$m=8,t=1,p=1$"), "{decoy}");
        assert_eq!(check_hash(&decoy), Ok(()));
        assert!(!matches_hash(b"x", &decoy));
        assert_eq!(check_hash(&decoy_hash(None)), Ok(()));
    }

    #[test]
    fn every_check_is_delivered_to_who_asked() {
        let authenticator = authenticator(&cheap_hash("right"));
        let (deliver, delivered) = channel();
        let deliver: Deliver = Arc::new(move |core, conn, verified| {
            deliver.send((core, conn, verified)).unwrap();
        });
        let hasher = Hasher::spawn(16, deliver).unwrap();
        for (conn, (user, password)) in
            [("u", "right"), ("u", "wrong"), ("nobody", "right"), ("u", "right")]
                .into_iter()
                .enumerate()
        {
            let check = verification(&authenticator, user, password);
            hasher.try_submit(conn % 2, conn as u64, check).unwrap();
        }
        drop(hasher);
        let results: Vec<_> = delivered
            .iter()
            .map(|(core, conn, verified)| {
                let admitted = match verified {
                    Verified::Admitted(principal) => Some(principal.name().to_owned()),
                    Verified::Refused(refusal) => {
                        assert_eq!(refusal, Refusal::BadCredentials);
                        None
                    }
                };
                (core, conn, admitted)
            })
            .collect();
        let u = Some("u".to_owned());
        assert_eq!(results, [(0, 0, u.clone()), (1, 1, None), (0, 2, None), (1, 3, u)]);
    }

    #[test]
    fn a_full_queue_is_said_to_be_busy() {
        let authenticator = authenticator(&cheap_hash("right"));
        let (release, wait) = channel::<()>();
        let (deliver, delivered) = channel();
        let wait = Mutex::new(wait);
        let deliver: Deliver = Arc::new(move |_, conn, _| {
            wait.lock().unwrap().recv().unwrap();
            deliver.send(conn).unwrap();
        });
        let hasher = Hasher::spawn(2, deliver).unwrap();
        let submitted = (0..10)
            .filter(|conn| {
                let check = verification(&authenticator, "u", "right");
                match hasher.try_submit(0, *conn, check) {
                    Ok(()) => true,
                    Err(refusal) => {
                        assert_eq!(refusal, Refusal::Busy);
                        false
                    }
                }
            })
            .count();
        // Two in the queue, and one in the thread's hands if it was quick.
        assert!((2..=3).contains(&submitted), "{submitted}");
        (0..submitted).for_each(|_| release.send(()).unwrap());
        drop(hasher);
        assert_eq!(delivered.iter().count(), submitted);
    }

    #[test]
    fn what_was_right_is_remembered_for_its_user_and_hash_alone() {
        let first = authenticator(&cheap_hash("right"));
        let mut known = Known::new(10).unwrap();
        let code = known.code(&verification(&first, "u", "right")).unwrap();
        known.remember(code);
        assert!(known.holds(&known.code(&verification(&first, "u", "right")).unwrap()));
        assert!(!known.holds(&known.code(&verification(&first, "u", "wrong")).unwrap()));
        assert_eq!(known.code(&verification(&first, "nobody", "right")), None);
        let rehashed = authenticator(&cheap_hash("right"));
        assert!(!known.holds(&known.code(&verification(&rehashed, "u", "right")).unwrap()));
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut known = Known::new(3).unwrap();
        for byte in [1, 2, 3, 1, 4] {
            known.remember([byte; 32]);
        }
        let held: Vec<u8> = (1..=4).filter(|byte| known.holds(&[*byte; 32])).collect();
        assert_eq!(held, [2, 3, 4]);
    }
}
