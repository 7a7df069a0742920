//! Who may connect, and what they may then do.
//!
//! ```text
//!   CONNECT ──► Authenticator::decide ──► Admitted(Principal)     on the core, in microseconds
//!                   │                ├──► Refused(Refusal)
//!                   │                └──► Verify(Verification) ──► Hasher, Hook: threads of their
//!                   │                          Verified ◄──────────┘   own (milliseconds)
//!                   └─ users by name, rules, keys: read only, shared by all
//! ```
//!
//! Whoever knows what a CONNECT brings decides, and nobody after:
//!
//! | CONNECT | decided by |
//! |---|---|
//! | a client certificate names a device; no user name, or the device's | then name = device = client id |
//! | the name of a configured user | the argon2id hash of its password |
//! | the password is a device's token | the token's code; then name = device = client id |
//! | the password is a JSON Web Token, and keys for such are configured | its signature and claims ([`jwt`]); the user name says nothing then |
//! | anything else, or nothing, and somebody is configured to be asked | who is asked over HTTP ([`http`]), unless the answer is that it does not know |
//! | anything else, or nothing | refused, unless anonymous clients are allowed |
//!
//! A CONNECT of MQTT 5 that names an authentication method takes another way: [`scram`] is the one
//! that is offered, to configured users, if any of them has what it takes. A core does it all.
//!
//! How long a refusal takes tells nothing about which users exist: whatever could have been a
//! user's password, a forged device's token too, is checked against a hash that nothing matches.
//! (Users whose hashes cost different amounts can be told from each other.) Only a token that was
//! truly issued, and has expired or was revoked, is refused on the spot, so that devices that come
//! back late cost little.

pub mod hasher;
pub mod http;
pub mod jwt;
pub mod rules;
pub mod scram;
pub mod token;

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::Arc;

use hashbrown::HashMap;
use sextant_mqtt::{ReasonCode, Version};
use tracing::debug;
use zeroize::Zeroizing;

use crate::config;
use hasher::{Deliver, decoy_hash, matches_hash};
use http::{Counts, Hook, HookError, Question};
use jwt::{JwtError, KeyError, Verifier};
use rules::{Names, Rule, Rules};
use token::{Generations, TokenError, TokenKey};

/// The longest password that is looked at, in bytes; a device token has 59 or 64.
pub const PASSWORD_BYTES_MAX: usize = 1024;

/// Who clients are that say no name.
const ANONYMOUS: &str = "anonymous";
/// What a device may do under its own id.
const DEVICE_RULE: &str = "all d/{client}/#";

/// What a CONNECT says of who sends it.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    /// The client identifier; where the server assigns one, the assigned one.
    pub client_id: &'a str,
    /// The user name.
    pub user_name: Option<&'a str>,
    /// The password.
    pub password: Option<&'a [u8]>,
    /// The version that it speaks.
    pub version: Version,
}

impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("client_id", &self.client_id)
            .field("user_name", &self.user_name)
            .field("password", &self.password.map(|_| "<redacted>"))
            .finish()
    }
}

/// Somebody who was let in. Clones are the same.
#[derive(Clone)]
pub struct Principal(Arc<Admitted>);

#[derive(Clone)]
struct Admitted {
    name: Arc<str>,
    /// What `{client}` stands for.
    client: Box<str>,
    /// None for whoever may do anything.
    rules: Option<Arc<Rules>>,
    is_device: bool,
    /// Milliseconds since 1970; none is never.
    expires_at: Option<NonZeroU64>,
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.0.is_device { "device" } else { "user" };
        write!(f, "Principal({kind} {:?})", self.0.name)
    }
}

impl Principal {
    /// A client without a name of its own, which may do anything.
    fn anonymous() -> Principal {
        Principal::user(ANONYMOUS.into(), "", None)
    }

    /// The user `name`, connected as `client`; without rules it may do anything.
    fn user(name: Arc<str>, client: &str, rules: Option<Arc<Rules>>) -> Principal {
        let client = client.into();
        Principal(Arc::new(Admitted { name, client, rules, is_device: false, expires_at: None }))
    }

    fn device(id: &str, rules: Arc<Rules>) -> Principal {
        let (name, client, rules) = (id.into(), id.into(), Some(rules));
        Principal(Arc::new(Admitted { name, client, rules, is_device: true, expires_at: None }))
    }

    /// The same, until `unix_ms`, in milliseconds since 1970.
    fn until(self, unix_ms: u64) -> Principal {
        let expires_at = Some(NonZeroU64::new(unix_ms).unwrap_or(NonZeroU64::MIN));
        Principal(Arc::new(Admitted { expires_at, ..Arc::unwrap_or_clone(self.0) }))
    }

    /// The same, connected as `client`: an identifier that is assigned is another one each time
    /// that a CONNECT is read.
    #[must_use]
    pub fn connected_as(self, client: &str) -> Principal {
        if self.0.rules.is_none() || *self.0.client == *client {
            return self;
        }
        Principal(Arc::new(Admitted { client: client.into(), ..Arc::unwrap_or_clone(self.0) }))
    }

    /// The user's name, the device's id, or `anonymous`.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether it may publish to `topic`, which is well formed.
    pub fn may_publish(&self, topic: &str) -> bool {
        self.rules().is_none_or(|(rules, names)| rules.may_publish(topic, names))
    }

    /// Whether it may subscribe to `filter`: each topic that the filter can match must be allowed.
    /// For `$share/group/filter` it is the filter that counts.
    pub fn may_subscribe(&self, filter: &str) -> bool {
        self.rules().is_none_or(|(rules, names)| rules.may_subscribe(filter, names))
    }

    /// The device's id, if it was let in as a device.
    pub fn is_device(&self) -> Option<&str> {
        self.0.is_device.then_some(&*self.0.name)
    }

    /// When what let it in ends, in milliseconds since 1970; none is never.
    pub fn expires_at(&self) -> Option<u64> {
        self.0.expires_at.map(NonZeroU64::get)
    }

    /// What it is kept to, and what placeholders stand for; none for whoever may do anything.
    fn rules(&self) -> Option<(&Rules, Names<'_>)> {
        let Admitted { name, client, rules, .. } = &*self.0;
        Some((rules.as_deref()?, Names { client, user: name }))
    }
}

/// What becomes of a CONNECT.
#[derive(Debug)]
pub enum Decision {
    /// It is let in.
    Admitted(Principal),
    /// It is not.
    Refused(Refusal),
    /// The [`Hasher`](hasher::Hasher) has to check its password, or its token.
    Verify(Verification),
}

/// Why a client is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// User name, password or token is wrong.
    #[error("user name or password is wrong")]
    BadCredentials,
    /// It did not say who it is, and has to.
    #[error("a user name and a password are needed")]
    NotAuthorized,
    /// It has a token or certificate that is for another client id.
    #[error("its token or certificate is for another client id")]
    ClientIdNotValid,
    /// It names an authentication method that is not offered.
    #[error("its authentication method is not offered")]
    Method,
    /// An operator has banned its client identifier or its user.
    #[error("it is banned")]
    Banned,
    /// Who would have to be asked does not answer, or is asked too much.
    #[error("who knows clients cannot be asked")]
    Unavailable,
    /// Too many passwords or tokens wait to be checked.
    #[error("too many passwords or tokens wait to be checked")]
    Busy,
}

impl From<Refusal> for ReasonCode {
    fn from(refusal: Refusal) -> ReasonCode {
        match refusal {
            Refusal::BadCredentials => ReasonCode::BadUserNameOrPassword,
            Refusal::NotAuthorized => ReasonCode::NotAuthorized,
            Refusal::ClientIdNotValid => ReasonCode::ClientIdentifierNotValid,
            Refusal::Method => ReasonCode::BadAuthenticationMethod,
            Refusal::Banned => ReasonCode::Banned,
            Refusal::Unavailable => ReasonCode::ServerUnavailable,
            Refusal::Busy => ReasonCode::ServerBusy,
        }
    }
}

/// Something that takes longer than a core has time for, and who is let in then.
pub struct Verification(Check);

enum Check {
    /// Whether a password is the one that a hash was made of.
    Password {
        /// None for a user that does not exist.
        principal: Option<Principal>,
        password: Zeroizing<Vec<u8>>,
        hash: Arc<str>,
    },
    /// Whom a token lets in at a time, in milliseconds since 1970.
    Token { verifier: Arc<Verifier>, token: Zeroizing<Vec<u8>>, client_id: Box<str>, unix_ms: u64 },
    /// Whom somebody who is asked lets in.
    Question { hook: Hook, question: Box<Question> },
}

impl fmt::Debug for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verification(<redacted>)")
    }
}

impl Verification {
    fn password(principal: Option<Principal>, password: &[u8], hash: &Arc<str>) -> Verification {
        let (password, hash) = (Zeroizing::new(password.to_vec()), Arc::clone(hash));
        Verification(Check::Password { principal, password, hash })
    }

    /// Whether it is to be known where the client comes from.
    pub fn wants_peer(&self) -> bool {
        matches!(&self.0, Check::Question { question, .. } if question.peer.is_none())
    }

    /// Where the client comes from.
    pub fn set_peer(&mut self, peer: SocketAddr) {
        if let Check::Question { question, .. } = &mut self.0 {
            question.peer = Some(peer);
        }
    }

    /// Checks: a password, which takes some 20 ms and as much memory as its hash says, or a
    /// token's signature, which takes a fraction of one.
    fn run(self) -> Verified {
        match &self.0 {
            Check::Password { password, hash, .. } => {
                let right = matches_hash(password, hash);
                self.conclude(right)
            }
            Check::Token { verifier, token, client_id, unix_ms } => {
                match verifier.verify(token, client_id, *unix_ms) {
                    Ok(principal) => Verified::Admitted(principal),
                    Err(why) => {
                        debug!(%why, client_id, "a token lets nobody in");
                        Verified::Refused(match why {
                            JwtError::ClientId => Refusal::ClientIdNotValid,
                            _ => Refusal::BadCredentials,
                        })
                    }
                }
            }
            Check::Question { .. } => unreachable!("a question is for its hook"),
        }
    }

    /// What comes of a password that is, or is not, right.
    fn conclude(self, right: bool) -> Verified {
        match self.0 {
            Check::Password { principal: Some(principal), .. } if right => {
                Verified::Admitted(principal)
            }
            _ => Verified::Refused(Refusal::BadCredentials),
        }
    }
}

/// How a check ended.
#[derive(Clone, Debug)]
pub enum Verified {
    /// It was right.
    Admitted(Principal),
    /// It was not.
    Refused(Refusal),
}

/// A client that is to prove who it is.
#[derive(Debug)]
pub struct Proving {
    /// None for a user that does not exist.
    principal: Option<Principal>,
    exchange: scram::Exchange,
}

impl Proving {
    /// Takes its proof: who is let in, and what is to be answered.
    ///
    /// # Errors
    /// It is none.
    pub fn finish(self, data: &[u8]) -> Result<(Principal, String), Refusal> {
        let finished = self.exchange.finish(data);
        let answer = finished.map_err(|why| {
            debug!(%why, "a client did not prove who it is");
            Refusal::BadCredentials
        })?;
        Ok((self.principal.ok_or(Refusal::BadCredentials)?, answer))
    }
}

struct User {
    name: Arc<str>,
    /// None if it has no password.
    hash: Option<Arc<str>>,
    /// None if it cannot prove that it knows one.
    scram: Option<Arc<scram::Verifier>>,
    rules: Arc<Rules>,
}

impl User {
    /// It, connected as `client_id`.
    fn principal(&self, client_id: &str) -> Principal {
        Principal::user(Arc::clone(&self.name), client_id, Some(Arc::clone(&self.rules)))
    }
}

/// Decides who is let in. Immutable: a changed configuration makes a new one.
pub struct Authenticator {
    users: HashMap<Arc<str>, User>,
    /// Who a client without a name is, if such are let in.
    anonymous: Option<Principal>,
    device_rules: Arc<Rules>,
    decoy: Arc<str>,
    token_key: TokenKey,
    /// None if no device is registered anywhere.
    generations: Option<Arc<dyn Generations>>,
    /// None if no key for tokens of others is configured.
    jwt: Option<Arc<Verifier>>,
    /// None if nobody is asked.
    hook: Option<Hook>,
    /// What users that do not exist are asked for; none if SCRAM is not offered.
    scram: Option<Decoys>,
}

/// Of users that do not exist.
struct Decoys {
    iterations: u32,
    key: [u8; 32],
}

/// Why nobody can be let in as it is configured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// There are no keys to check tokens with.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Nobody can be asked.
    #[error(transparent)]
    Hook(#[from] HookError),
}

/// What checks that are made elsewhere need, and what outlives a change of the configuration.
#[derive(Clone)]
pub struct Elsewhere {
    /// Is told how they ended.
    pub deliver: Deliver,
    /// What came of questions.
    pub counts: Arc<Counts>,
    /// Who knows which tokens of a device are valid, if somebody does.
    pub generations: Option<Arc<dyn Generations>>,
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator")
            .field("users", &self.users.len())
            .field("anonymous", &self.anonymous.is_some())
            .finish_non_exhaustive()
    }
}

impl Authenticator {
    /// As [`Authenticator::new`], with keys for tokens, and with somebody to ask, as configured.
    ///
    /// # Errors
    /// A file cannot be read, or holds something else; or there can be no more threads.
    ///
    /// # Panics
    /// If the configuration was not checked.
    pub fn load(
        auth: &config::Auth,
        token_key: TokenKey,
        elsewhere: &Elsewhere,
    ) -> Result<Authenticator, LoadError> {
        let jwt = match auth.jwt.is_configured() {
            true => Some(Arc::new(Verifier::load(&auth.jwt)?)),
            false => None,
        };
        let hook = match auth.http.is_configured() {
            true => Some(Hook::spawn(&auth.http, &elsewhere.counts, &elsewhere.deliver)?),
            false => None,
        };
        let generations = elsewhere.generations.clone();
        Ok(Authenticator { generations, jwt, hook, ..Authenticator::new(auth, token_key) })
    }

    /// Users and rules as configured, devices by tokens of `token_key`, and nobody else.
    ///
    /// # Panics
    /// If the configuration was not checked.
    pub fn new(auth: &config::Auth, token_key: TokenKey) -> Authenticator {
        let user = |user: &config::User| {
            let name: Arc<str> = user.name.as_str().into();
            let (hash, scram) = (user.password.expose(), user.scram.expose());
            let hash = (!hash.is_empty()).then(|| hash.into());
            let scram = (!scram.is_empty()).then(|| match scram.parse() {
                Ok(verifier) => Arc::new(verifier),
                Err(error) => panic!("the configuration was not checked: {error}"),
            });
            let rules = Arc::new(checked_rules(&user.allow));
            (Arc::clone(&name), User { name, hash, scram, rules })
        };
        let mut device_allow = vec![DEVICE_RULE.to_owned()];
        device_allow.extend_from_slice(&auth.device_allow);
        let mut hashes = auth.users.iter().map(|user| user.password.expose());
        let model = hashes.find(|hash| !hash.is_empty());
        let users: HashMap<Arc<str>, User> = auth.users.iter().map(user).collect();
        let first = auth.users.iter().find_map(|user| users[user.name.as_str()].scram.as_ref());
        let key = token_key.derive("users that do not exist");
        let scram = first.map(|first| Decoys { iterations: first.iterations(), key });
        Authenticator {
            users,
            anonymous: auth.allows_anonymous().then(Principal::anonymous),
            device_rules: Arc::new(checked_rules(&device_allow)),
            decoy: decoy_hash(model).into(),
            token_key,
            generations: None,
            jwt: None,
            hook: None,
            scram,
        }
    }

    /// What becomes of a CONNECT with these credentials at the time `unix_ms`, in milliseconds
    /// since 1970. Never waits.
    pub fn decide(&self, credentials: &Credentials<'_>, unix_ms: u64) -> Decision {
        let Credentials { client_id, user_name, password, .. } = *credentials;
        let sent = password.unwrap_or_default();
        if let Some(user) = user_name.and_then(|name| self.users.get(name)) {
            return self.user(user, client_id, sent);
        }
        if let Some(name) = user_name
            && token::looks_like_one(sent)
        {
            return self.device(client_id, name, sent, unix_ms / 1000);
        }
        if let Some(verifier) = &self.jwt
            && jwt::looks_like_one(sent)
        {
            return Self::bearer(verifier, client_id, sent, unix_ms);
        }
        if let Some(hook) = &self.hook {
            return self.ask(hook, credentials, unix_ms);
        }
        if self.anonymous.is_none() && user_name.is_some() && is_checked(sent) {
            return self.nobody(sent);
        }
        self.unnamed(credentials).into()
    }

    fn user(&self, user: &User, client_id: &str, password: &[u8]) -> Decision {
        if !is_checked(password) {
            return Decision::Refused(Refusal::BadCredentials);
        }
        let Some(hash) = &user.hash else { return self.nobody(password) };
        let principal = user.principal(client_id);
        Decision::Verify(Verification::password(Some(principal), password, hash))
    }

    /// Begins to find out by the authentication method `method`, and what the client sends with it,
    /// who `client_id` is; what is to be answered comes with it.
    ///
    /// # Errors
    /// The method is not offered, or the client does not keep to it.
    pub fn begin(
        &self,
        method: &str,
        client_id: &str,
        data: &[u8],
    ) -> Result<(Proving, String), Refusal> {
        let decoys = self.scram.as_ref().filter(|_| method == scram::METHOD);
        let decoys = decoys.ok_or(Refusal::Method)?;
        let malformed = |_| Refusal::BadCredentials;
        let first = scram::First::parse(data).map_err(malformed)?;
        let name = first.user().map_err(malformed)?;
        let user = self.users.get(name.as_str());
        let verifier = user.and_then(|user| user.scram.clone());
        // Without randomness there is no nonce that was not used before.
        let random = scram::nonce().map_err(|_| Refusal::Unavailable)?;
        let principal = user.filter(|_| verifier.is_some()).map(|user| user.principal(client_id));
        let verifier = verifier.unwrap_or_else(|| {
            Arc::new(scram::Verifier::decoy(&name, decoys.iterations, &decoys.key))
        });
        let (exchange, challenge) = scram::Exchange::begin(&first, verifier, random);
        Ok((Proving { principal, exchange }, challenge))
    }

    /// Asks who may know the client.
    fn ask(&self, hook: &Hook, credentials: &Credentials<'_>, unix_ms: u64) -> Decision {
        let Credentials { client_id, user_name, password, version } = *credentials;
        if password.is_some_and(|password| password.len() > http::PASSWORD_BYTES_MAX) {
            return Decision::Refused(Refusal::BadCredentials);
        }
        let question = Box::new(Question {
            client_id: client_id.into(),
            user_name: user_name.map(Box::from),
            password: password.map(|password| Zeroizing::new(password.to_vec())),
            peer: None,
            version,
            unix_ms,
            otherwise: self.unnamed(credentials),
        });
        Decision::Verify(Verification(Check::Question { hook: hook.clone(), question }))
    }

    /// Somebody who does not exist, and is refused when that has taken its time.
    fn nobody(&self, password: &[u8]) -> Decision {
        Decision::Verify(Verification::password(None, password, &self.decoy))
    }

    fn bearer(verifier: &Arc<Verifier>, client_id: &str, token: &[u8], unix_ms: u64) -> Decision {
        if token.len() > jwt::TOKEN_BYTES_MAX {
            return Decision::Refused(Refusal::BadCredentials);
        }
        Decision::Verify(Verification(Check::Token {
            verifier: Arc::clone(verifier),
            token: Zeroizing::new(token.to_vec()),
            client_id: client_id.into(),
            unix_ms,
        }))
    }

    /// What becomes of a CONNECT of a client whose certificate names `device`. `None` if it asks
    /// for something else by the name of a user: then [`decide`](Self::decide) does.
    pub fn decide_certified(
        &self,
        credentials: &Credentials<'_>,
        device: &str,
    ) -> Option<Decision> {
        let Credentials { client_id, user_name, .. } = *credentials;
        let means_device =
            user_name.is_none_or(|name| name == device && !self.users.contains_key(name));
        means_device.then(|| self.admit_device(client_id, device))
    }

    /// What becomes of a client without a name, or in whose name nobody is interested.
    fn unnamed(&self, credentials: &Credentials<'_>) -> Verified {
        match &self.anonymous {
            Some(anonymous) => Verified::Admitted(anonymous.clone()),
            None if credentials.user_name.is_none() && credentials.password.is_none() => {
                Verified::Refused(Refusal::NotAuthorized)
            }
            None => Verified::Refused(Refusal::BadCredentials),
        }
    }

    /// A client that has proved to be the device of that name.
    fn admit_device(&self, client_id: &str, name: &str) -> Decision {
        if client_id != name {
            return Decision::Refused(Refusal::ClientIdNotValid);
        }
        Decision::Admitted(Principal::device(name, Arc::clone(&self.device_rules)))
    }

    fn device(&self, client_id: &str, name: &str, token: &[u8], now: u64) -> Decision {
        if token.len() > PASSWORD_BYTES_MAX {
            return Decision::Refused(Refusal::BadCredentials);
        }
        let current = self.generations.as_ref().and_then(|held| held.current(name));
        match self.token_key.verify(token, name, now, current) {
            Ok(()) => self.admit_device(client_id, name),
            Err(TokenError::Expired | TokenError::Revoked) => {
                Decision::Refused(Refusal::BadCredentials)
            }
            Err(_) => self.nobody(token),
        }
    }
}

/// Whether a password is looked at.
fn is_checked(password: &[u8]) -> bool {
    (1..=PASSWORD_BYTES_MAX).contains(&password.len())
}

impl From<Verified> for Decision {
    fn from(verified: Verified) -> Decision {
        match verified {
            Verified::Admitted(principal) => Decision::Admitted(principal),
            Verified::Refused(refusal) => Decision::Refused(refusal),
        }
    }
}

fn checked_rules(texts: &[String]) -> Rules {
    let parse = |text: &String| match Rule::parse(text) {
        Ok(rule) => rule,
        Err(error) => panic!("the configuration was not checked: {error}"),
    };
    texts.iter().map(parse).collect()
}

#[cfg(test)]
mod tests;
