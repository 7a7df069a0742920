//! Clients, as operators see them: what a core tells of its sessions, and the pattern that picks
//! them.
//!
//! A core has its sessions in numbered slots, and a listing goes through these in their order, a
//! bounded number at a time; the slot where the next part begins is the listing's place. So a
//! session that is there all the while is told once, whatever comes and goes beside it.

use std::net::SocketAddr;

use sextant_mqtt::{QoS, Version};
use tokio::sync::oneshot;

/// A client that has a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its identifier.
    pub client_id: Box<str>,
    /// Who it was let in as: a user, a device, or `anonymous`.
    pub user: Box<str>,
    /// Its connection, if it has one now.
    pub connection: Option<Connection>,
    /// Since when it has that, or has none, in milliseconds since 1970.
    pub since: u64,
    /// How long its session outlives its connection, in seconds; [`u32::MAX`] is for ever.
    pub session_expiry_s: u32,
    /// Its subscriptions.
    pub subscriptions: usize,
    /// Messages that wait for it.
    pub queued: usize,
    /// Their bytes.
    pub queued_bytes: usize,
    /// QoS 1 and 2 messages that it was sent and has yet to acknowledge.
    pub in_flight: usize,
}

/// The connection of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Its version of MQTT.
    pub version: Version,
    /// The keep-alive in force, in seconds; zero is none.
    pub keep_alive_s: u16,
    /// Bytes that it has yet to take.
    pub unsent_bytes: usize,
}

/// A client with what a listing leaves out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientDetail {
    /// What a listing tells.
    pub client: Client,
    /// What it is subscribed to; not all of it where the filters are very long.
    pub filters: Vec<Subscribed>,
    /// Where its connection comes from, if it has one and the kernel knows.
    pub peer: Option<SocketAddr>,
}

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribed {
    /// Its topic filter.
    pub filter: Box<str>,
    /// The most that messages come with.
    pub qos: QoS,
    /// Whether the client's own messages are left out.
    pub no_local: bool,
    /// Whether a message keeps the retain flag that it was published with.
    pub retain_as_published: bool,
    /// The subscription identifier; zero is none.
    pub subscription_id: u32,
}

/// A question for clients, part of a listing.
#[derive(Debug)]
pub struct Listing {
    /// The slot to begin at.
    pub from: usize,
    /// How many clients are wanted at most.
    pub limit: usize,
    /// Which.
    pub like: Like,
    /// Answered at once.
    pub reply: oneshot::Sender<Listed>,
}

/// Some of a core's clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// They, in the order of their slots; none is no sign of the end.
    pub clients: Vec<Client>,
    /// The slot to go on at; none is the end.
    pub next: Option<usize>,
}

/// What came of looking for those who are banned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evicted {
    /// Connections that were closed.
    pub disconnected: usize,
    /// The slot to go on at; none is the end.
    pub next: Option<usize>,
}

/// What came of kicking a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kicked {
    /// It is done.
    Done,
    /// There is no such client.
    Unknown,
    /// It has no connection, and its session was to stay.
    NotConnected,
    /// The log does not take the end of its session; the connection is closed.
    NotKept,
}

/// A pattern of client identifiers. `*` stands for any text, everything else for itself, and the
/// whole identifier has to match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Like(Box<str>);

impl Like {
    /// The pattern that `text` is.
    pub fn new(text: &str) -> Like {
        Like(text.into())
    }

    /// Whether `client_id` is one of those that are meant. Takes time as it is long, whatever the
    /// pattern.
    pub fn matches(&self, client_id: &str) -> bool {
        let mut parts = self.0.split('*');
        let begin = parts.next().unwrap_or_default();
        let Some(mut rest) = client_id.strip_prefix(begin) else { return false };
        let Some(end) = parts.next_back() else { return rest.is_empty() };
        for part in parts {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(end)
    }
}

impl Default for Like {
    fn default() -> Like {
        Like::new("*")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the pattern means, by trying everything.
    fn means(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('*', rest)) => (0..=text.len()).any(|skip| means(rest, &text[skip..])),
            Some((c, rest)) => text.first() == Some(c) && means(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn a_pattern_matches_what_it_means(pattern in "[abé*]{0,8}", text in "[abé]{0,10}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            let expected = means(&chars(&pattern), &chars(&text));
            prop_assert_eq!(Like::new(&pattern).matches(&text), expected);
        }
    }
}
