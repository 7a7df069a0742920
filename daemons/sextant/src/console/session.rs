//! Who is logged in to the console.
//!
//! ```text
//!   link ── works once, for an hour ──┐
//!                                     ├─► session: a secret in a cookie, for twelve hours
//!   admin token ── as often as asked ─┘
//! ```
//!
//! Both are random secrets of 256 bits that live in memory alone: a new start of `sextant up` logs
//! everybody out. A secret is compared with all that there are, in the same time wherever it
//! differs. Time is an argument, so that nothing here waits.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq;

/// How long a login link works.
pub(super) const LINK_LIFE: Duration = Duration::from_secs(3600);
/// How long a session lasts, whatever is done in it.
pub(super) const SESSION_LIFE: Duration = Duration::from_secs(12 * 3600);
/// Secrets of a kind at once; the oldest goes when there is another.
const SECRETS_MAX: usize = 64;
const SECRET_BYTES: usize = 32;

/// The links that were given out, and the sessions that came of them.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    links: Secrets,
    sessions: Secrets,
}

impl Sessions {
    /// A new login link's secret.
    ///
    /// # Errors
    ///
    /// The system has no random numbers; so for the others.
    pub(super) fn link(&self, now: Instant) -> Result<String, getrandom::Error> {
        self.lock().links.add(now + LINK_LIFE)
    }

    /// Spends a login link: a session's secret if it was one.
    ///
    /// # Errors
    ///
    /// See [`Self::link`].
    pub(super) fn spend(
        &self,
        link: &str,
        now: Instant,
    ) -> Result<Option<String>, getrandom::Error> {
        let mut inner = self.lock();
        match inner.links.take(link, now) {
            true => inner.sessions.add(now + SESSION_LIFE).map(Some),
            false => Ok(None),
        }
    }

    /// Opens a session for someone who has shown the admin token.
    ///
    /// # Errors
    ///
    /// See [`Self::link`].
    pub(super) fn open(&self, now: Instant) -> Result<String, getrandom::Error> {
        self.lock().sessions.add(now + SESSION_LIFE)
    }

    /// How long the session of this secret lasts yet.
    pub(super) fn left(&self, secret: &str, now: Instant) -> Option<Duration> {
        let inner = self.lock();
        let at = inner.sessions.find(secret, now)?;
        Some(inner.sessions.0[at].until.saturating_duration_since(now))
    }

    pub(super) fn close(&self, secret: &str, now: Instant) {
        self.lock().sessions.take(secret, now);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Secrets with their ends, the oldest first.
#[derive(Default)]
struct Secrets(Vec<Secret>);

struct Secret {
    text: String,
    until: Instant,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

impl Secrets {
    fn add(&mut self, until: Instant) -> Result<String, getrandom::Error> {
        let mut bytes = [0; SECRET_BYTES];
        getrandom::fill(&mut bytes)?;
        let text = URL_SAFE_NO_PAD.encode(bytes);
        if self.0.len() == SECRETS_MAX {
            self.0.remove(0);
        }
        self.0.push(Secret { text: text.clone(), until });
        Ok(text)
    }

    /// Which one `text` is; every one is looked at.
    fn find(&self, text: &str, now: Instant) -> Option<usize> {
        let mut found = None;
        for (at, secret) in self.0.iter().enumerate() {
            let same: bool = secret.text.as_bytes().ct_eq(text.as_bytes()).into();
            if same && now < secret.until {
                found = Some(at);
            }
        }
        found
    }

    fn take(&mut self, text: &str, now: Instant) -> bool {
        self.0.retain(|secret| now < secret.until);
        let found = self.find(text, now);
        found.is_some_and(|at| !self.0.remove(at).text.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_works_once_and_for_an_hour() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let link = sessions.link(now).unwrap();
        assert!(sessions.spend("", now).unwrap().is_none());
        assert!(sessions.spend(&link[1..], now).unwrap().is_none());
        let session = sessions.spend(&link, now).unwrap().unwrap();
        assert_eq!(sessions.left(&session, now), Some(SESSION_LIFE));
        assert!(sessions.spend(&link, now).unwrap().is_none(), "it is spent");
        let late = sessions.link(now).unwrap();
        assert!(sessions.spend(&late, now + LINK_LIFE).unwrap().is_none());
    }

    #[test]
    fn a_session_ends_by_itself_and_when_it_is_closed() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let (first, second) = (sessions.open(now).unwrap(), sessions.open(now).unwrap());
        assert!(sessions.left(&first, now + SESSION_LIFE).is_none());
        sessions.close(&first, now);
        assert!(sessions.left(&first, now).is_none());
        assert!(sessions.left(&second, now).is_some());
    }

    #[test]
    fn a_link_is_no_session_and_the_oldest_gives_way() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let link = sessions.link(now).unwrap();
        assert!(sessions.left(&link, now).is_none());
        let first = sessions.open(now).unwrap();
        for _ in 1..SECRETS_MAX {
            sessions.open(now).unwrap();
        }
        assert!(sessions.left(&first, now).is_some());
        sessions.open(now).unwrap();
        assert!(sessions.left(&first, now).is_none());
    }

    #[test]
    fn debug_shows_no_secret() {
        let sessions = Sessions::default();
        let secret = sessions.open(Instant::now()).unwrap();
        assert!(!format!("{sessions:?}").contains(&secret));
    }
}
