//! The credentials of an app: secrets by which senders, reviewers and readers are known.
//!
//! A key is 32 random bytes, told once. What is kept is its hash, by which it is found; whoever
//! checks keys on another thread has [`Keys`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::{Engine, Happened, Map};
use crate::model::Role;
use crate::records;
use crate::refusal::Refusal;

/// What every key begins with.
const PREFIX: &str = "spk_";
const SECRET_BYTES: usize = 32;
/// Who holds the admin token.
const ADMIN: &str = "admin";

/// A credential, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// The app's number.
    pub app: u16,
    /// Its name, its own within the app.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    credential: Credential,
    hash: [u8; 32],
}

#[derive(Serialize, Deserialize)]
struct Gone {
    app: u16,
    name: String,
}

/// Says whose a key is, on any thread.
#[derive(Clone, Default)]
pub struct Keys(Arc<RwLock<Map<[u8; 32], Credential>>>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(<redacted>)")
    }
}

impl Keys {
    /// Whose a key is.
    pub fn find(&self, key: &str) -> Option<Credential> {
        let hash = hash_of(key.strip_prefix(PREFIX)?);
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        // It is found by what only its holder can make; the rest tells nothing by its time.
        let (found, credential) = keys.get_key_value(&hash)?;
        bool::from(found.ct_eq(&hash)).then(|| credential.clone())
    }

    fn insert(&self, hash: [u8; 32], credential: Credential) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(hash, credential);
    }

    fn remove(&self, hash: &[u8; 32]) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(hash);
    }
}

fn hash_of(secret: &str) -> [u8; 32] {
    *blake3::hash(secret.as_bytes()).as_bytes()
}

/// All credentials.
#[derive(Debug, Default)]
pub(super) struct Credentials {
    kept: BTreeMap<(u16, String), ([u8; 32], Credential)>,
    keys: Keys,
}

impl Credentials {
    pub(super) fn replay(&mut self, json: &[u8]) -> Result<(), serde_json::Error> {
        let Kept { credential, hash } = serde_json::from_slice(json)?;
        self.keys.insert(hash, credential.clone());
        self.kept.insert((credential.app, credential.name.clone()), (hash, credential));
        Ok(())
    }

    pub(super) fn replay_gone(&mut self, json: &[u8]) -> Result<(), serde_json::Error> {
        let Gone { app, name } = serde_json::from_slice(json)?;
        if let Some((hash, _)) = self.kept.remove(&(app, name)) {
            self.keys.remove(&hash);
        }
        Ok(())
    }

    /// All of them as records.
    pub(super) fn records(&self) -> Vec<Vec<u8>> {
        let kept = self.kept.values();
        kept.map(|(hash, credential)| {
            let kept = Kept { credential: credential.clone(), hash: *hash };
            serde_json::to_vec(&kept).expect("plain data is JSON")
        })
        .collect()
    }
}

impl Engine {
    /// Says whose a key is, on any thread.
    pub fn keys(&self) -> Keys {
        self.credentials.keys.clone()
    }

    /// The credentials of an app, by their names.
    pub fn credentials(&self, app: u16) -> impl Iterator<Item = &Credential> {
        let of_app = self.credentials.kept.range((app, String::new())..);
        of_app.take_while(move |((of, _), _)| *of == app).map(|(_, (_, credential))| credential)
    }

    /// Makes a credential; gives its key, which is told here alone.
    ///
    /// # Errors
    /// The name is none or taken, or there are too many.
    pub fn make_key(
        &mut self,
        app: u16,
        name: &str,
        role: Role,
        by: &str,
        now: u64,
    ) -> Result<(Credential, String), Refusal> {
        if !sextant_policy::config::is_name(name) || name == ADMIN {
            let why = "is 1 to 64 of a-z, 0-9, `.`, `_` and `-`, and not `admin`";
            return Err(Refusal::invalid("name", why));
        }
        if self.credentials.kept.contains_key(&(app, name.to_owned())) {
            return Err(Refusal::Conflict(format!("the app has a key named {name} already")));
        }
        if self.credentials(app).count() >= self.options.keys_per_app {
            let max = self.options.keys_per_app;
            return Err(Refusal::Full(format!("an app has {max} keys at most")));
        }
        let mut secret = [0; SECRET_BYTES];
        getrandom::fill(&mut secret).map_err(|error| Refusal::Unavailable(error.to_string()))?;
        let secret = URL_SAFE_NO_PAD.encode(secret);
        let credential = Credential { app, name: name.to_owned(), role, created_ms: now };
        let kept = Kept { credential: credential.clone(), hash: hash_of(&secret) };
        let json = serde_json::to_vec(&kept).expect("plain data is JSON");
        self.append(records::CREDENTIAL, &[&json], now)?;
        self.event((0, app), Happened::KeyMade, by, &credential, now);
        self.credentials.keys.insert(kept.hash, credential.clone());
        let place = (app, name.to_owned());
        self.credentials.kept.insert(place, (kept.hash, credential.clone()));
        Ok((credential, format!("{PREFIX}{secret}")))
    }

    /// Removes a credential: its key is nobody's from now on.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn remove_key(&mut self, app: u16, name: &str, by: &str, now: u64) -> Result<(), Refusal> {
        let place = (app, name.to_owned());
        let Some((hash, _)) = self.credentials.kept.get(&place) else {
            return Err(Refusal::Unknown("such key"));
        };
        let hash = *hash;
        let gone = Gone { app, name: name.to_owned() };
        let json = serde_json::to_vec(&gone).expect("plain data is JSON");
        self.append(records::GONE_CREDENTIAL, &[&json], now)?;
        self.event((0, app), Happened::KeyRemoved, by, &gone, now);
        self.credentials.kept.remove(&place);
        self.credentials.keys.remove(&hash);
        Ok(())
    }
}
