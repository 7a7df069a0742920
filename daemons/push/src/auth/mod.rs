//! Who may connect, and what they may then do.
//!
//! ```text
//!   CONNECT ──► Authenticator::decide ──► Admitted(Principal)     on the core, in microseconds
//!                   │                ├──► Refused(Refusal)
//!                   │                └──► Verify(Verification) ──► Hasher, a thread of its own
//!                   │                          Verified ◄──────────┘   (argon2id, milliseconds)
//!                   └─ users by name, rules, the key of device tokens: read only, shared by all
//! ```
//!
//! | CONNECT | decided by |
//! |---|---|
//! | no user name | refused, unless anonymous clients are allowed |
//! | the name of a configured user | the argon2id hash of its password |
//! | another name, the password is a token | the token's code; then name = device = client id |
//! | another name | refused, unless anonymous clients are allowed |
//!
//! How long a refusal takes tells nothing about which users exist: whatever could have been a
//! user's password, a forged token too, is checked against a hash that nothing matches. (Users
//! whose hashes cost different amounts can be told from each other.) Only a token that was truly
//! issued and has expired is refused on the spot, so that devices that come back late cost little.

pub mod hasher;
pub mod rules;
pub mod token;

use std::fmt;
use std::sync::Arc;

use hashbrown::HashMap;
use sextant_mqtt::ReasonCode;
use zeroize::Zeroizing;

use crate::config;
use hasher::{decoy_hash, matches_hash};
use rules::{Names, Rule, Rules};
use token::{TokenError, TokenKey};

/// The longest password that is looked at, in bytes; a device token has 59.
pub const PASSWORD_BYTES_MAX: usize = 1024;

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

enum Admitted {
    Anonymous,
    User { name: Arc<str>, client: Box<str>, rules: Arc<Rules> },
    Device { id: Box<str>, rules: Arc<Rules> },
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Admitted::Anonymous => f.write_str("Principal(anonymous)"),
            Admitted::User { name, .. } => write!(f, "Principal(user {name:?})"),
            Admitted::Device { id, .. } => write!(f, "Principal(device {id:?})"),
        }
    }
}

impl Principal {
    /// The user's name, the device's id, or `anonymous`.
    pub fn name(&self) -> &str {
        match &*self.0 {
            Admitted::Anonymous => "anonymous",
            Admitted::User { name, .. } => name,
            Admitted::Device { id, .. } => id,
        }
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
        match &*self.0 {
            Admitted::Device { id, .. } => Some(id),
            Admitted::Anonymous | Admitted::User { .. } => None,
        }
    }

    /// What it is kept to, and what placeholders stand for; none for whoever may do anything.
    fn rules(&self) -> Option<(&Rules, Names<'_>)> {
        match &*self.0 {
            Admitted::Anonymous => None,
            Admitted::User { name, client, rules } => Some((rules, Names { client, user: name })),
            Admitted::Device { id, rules } => Some((rules, Names { client: id, user: id })),
        }
    }
}

/// What becomes of a CONNECT.
#[derive(Debug)]
pub enum Decision {
    /// It is let in.
    Admitted(Principal),
    /// It is not.
    Refused(Refusal),
    /// Its password has to be checked by the [`Hasher`](hasher::Hasher).
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
    /// It has a device's token, and another client id.
    #[error("the client id of a device is its device id")]
    ClientIdNotValid,
    /// An operator has banned its client identifier or its user.
    #[error("it is banned")]
    Banned,
    /// Too many passwords wait to be checked.
    #[error("too many passwords wait to be checked")]
    Busy,
}

impl From<Refusal> for ReasonCode {
    fn from(refusal: Refusal) -> ReasonCode {
        match refusal {
            Refusal::BadCredentials => ReasonCode::BadUserNameOrPassword,
            Refusal::NotAuthorized => ReasonCode::NotAuthorized,
            Refusal::ClientIdNotValid => ReasonCode::ClientIdentifierNotValid,
            Refusal::Banned => ReasonCode::Banned,
            Refusal::Busy => ReasonCode::ServerBusy,
        }
    }
}

/// A password that has to be checked, and who is let in if it is right.
pub struct Verification {
    /// None for a user that does not exist.
    principal: Option<Principal>,
    password: Zeroizing<Vec<u8>>,
    hash: Arc<str>,
}

impl fmt::Debug for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verification(<redacted>)")
    }
}

impl Verification {
    /// Checks the password, which takes some 20 ms and as much memory as its hash says.
    fn run(self) -> Verified {
        let right = matches_hash(&self.password, &self.hash);
        self.conclude(right)
    }

    fn conclude(self, right: bool) -> Verified {
        match self.principal {
            Some(principal) if right => Verified::Admitted(principal),
            _ => Verified::Refused(Refusal::BadCredentials),
        }
    }
}

/// How the check of a password ended.
#[derive(Clone, Debug)]
pub enum Verified {
    /// It was right.
    Admitted(Principal),
    /// It was not.
    Refused(Refusal),
}

struct User {
    name: Arc<str>,
    hash: Arc<str>,
    rules: Arc<Rules>,
}

/// Decides who is let in. Immutable: a changed configuration makes a new one.
pub struct Authenticator {
    users: HashMap<Arc<str>, User>,
    /// Who a client without a name is, if such are let in.
    anonymous: Option<Principal>,
    device_rules: Arc<Rules>,
    decoy: Arc<str>,
    token_key: TokenKey,
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
    /// Users and rules as configured, devices by tokens of `token_key`.
    ///
    /// # Panics
    /// If the configuration was not checked.
    pub fn new(auth: &config::Auth, token_key: TokenKey) -> Authenticator {
        let user = |user: &config::User| {
            let name: Arc<str> = user.name.as_str().into();
            let hash = user.password.expose().into();
            let rules = Arc::new(checked_rules(&user.allow));
            (Arc::clone(&name), User { name, hash, rules })
        };
        let mut device_allow = vec![DEVICE_RULE.to_owned()];
        device_allow.extend_from_slice(&auth.device_allow);
        let model = auth.users.first().map(|user| user.password.expose());
        Authenticator {
            users: auth.users.iter().map(user).collect(),
            anonymous: auth.allows_anonymous().then(|| Principal(Arc::new(Admitted::Anonymous))),
            device_rules: Arc::new(checked_rules(&device_allow)),
            decoy: decoy_hash(model).into(),
            token_key,
        }
    }

    /// What becomes of a CONNECT with these credentials at the time `unix_ms`, in milliseconds
    /// since 1970. Never waits.
    pub fn decide(&self, credentials: &Credentials<'_>, unix_ms: u64) -> Decision {
        let Credentials { client_id, user_name, password } = *credentials;
        let Some(name) = user_name else {
            return match password {
                None => self.unnamed(Refusal::NotAuthorized),
                Some(_) => self.unnamed(Refusal::BadCredentials),
            };
        };
        let password = password.unwrap_or_default();
        let user = self.users.get(name);
        let is_token = password.starts_with(token::PREFIX.as_bytes());
        if user.is_none() && self.anonymous.is_some() && !is_token {
            return self.unnamed(Refusal::BadCredentials);
        }
        if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
            return Decision::Refused(Refusal::BadCredentials);
        }
        match user {
            Some(user) => {
                let User { name, hash, rules } = user;
                let (name, rules) = (Arc::clone(name), Arc::clone(rules));
                let admitted = Admitted::User { name, client: client_id.into(), rules };
                verify(Some(Principal(Arc::new(admitted))), password, hash)
            }
            None if is_token => self.device(client_id, name, password, unix_ms / 1000),
            None => verify(None, password, &self.decoy),
        }
    }

    /// A client without a name, or in whose name nobody is interested.
    fn unnamed(&self, otherwise: Refusal) -> Decision {
        match &self.anonymous {
            Some(anonymous) => Decision::Admitted(anonymous.clone()),
            None => Decision::Refused(otherwise),
        }
    }

    fn device(&self, client_id: &str, name: &str, token: &[u8], now: u64) -> Decision {
        match self.token_key.verify(token, name, now) {
            Ok(()) if client_id == name => {
                let rules = Arc::clone(&self.device_rules);
                let admitted = Admitted::Device { id: name.into(), rules };
                Decision::Admitted(Principal(Arc::new(admitted)))
            }
            Ok(()) => Decision::Refused(Refusal::ClientIdNotValid),
            Err(TokenError::Expired) => Decision::Refused(Refusal::BadCredentials),
            Err(_) => verify(None, token, &self.decoy),
        }
    }
}

fn verify(principal: Option<Principal>, password: &[u8], hash: &Arc<str>) -> Decision {
    let (password, hash) = (Zeroizing::new(password.to_vec()), Arc::clone(hash));
    Decision::Verify(Verification { principal, password, hash })
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
