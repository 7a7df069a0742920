//! The URL of somebody who is told or asked. A user in it, and a password, are refused: there are
//! keys for secrets, which are shown nowhere. What stands behind the question mark may be one all
//! the same, so it is sent to whom it is for and not shown either.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sextant_service::config::{Faults, REDACTED};
use ureq::http::Uri;

/// `http://HOST[:PORT]/PATH[?QUERY]` or `https://…`; empty is nobody. `Debug`, `Display` and
/// `Serialize` give it without what is behind the question mark.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Url(String);

impl Url {
    /// One that is not checked yet.
    pub fn new(text: impl Into<String>) -> Url {
        Url(text.into())
    }

    /// All of it, for whoever speaks to it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it is nobody's.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `secrets` says where secrets go.
    pub(super) fn check(&self, key: &str, secrets: &str, faults: &mut Faults<'_>) {
        if self.is_empty() {
            return;
        }
        match self.fault() {
            Some(UrlFault::Form) => faults.add(key, FORM),
            Some(UrlFault::User) => faults.add(key, format_args!("{USER}: {secrets}")),
            None => {}
        }
    }

    /// Why it will not do, in words, if so.
    pub fn why_not(&self) -> Option<&'static str> {
        self.fault().map(|fault| match fault {
            UrlFault::Form => FORM,
            UrlFault::User => USER,
        })
    }

    fn fault(&self) -> Option<UrlFault> {
        let uri = Uri::try_from(self.0.as_str()).ok();
        let authority = uri.as_ref().and_then(Uri::authority);
        let known = uri.as_ref().is_some_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https")) && authority.is_some()
        });
        match (known, authority) {
            (false, _) => Some(UrlFault::Form),
            (true, Some(authority)) if authority.as_str().contains('@') => Some(UrlFault::User),
            (true, _) => None,
        }
    }
}

enum UrlFault {
    Form,
    User,
}

const FORM: &str = "must be http://HOST[:PORT]/PATH or https://…";
const USER: &str = "must be without a user and a password";

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.split_once('?') {
            None => f.write_str(&self.0),
            Some((shown, _)) => write!(f, "{shown}?{REDACTED}"),
        }
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Url({self})")
    }
}

impl Serialize for Url {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Url {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.ends_with(REDACTED) {
            return Err(serde::de::Error::custom(
                "this is what a printed configuration shows in place of what is behind the \
                 question mark: write that itself",
            ));
        }
        Ok(Url(text))
    }
}
