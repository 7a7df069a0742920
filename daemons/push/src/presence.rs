//! Who comes and who goes: what is told of it, to subscribers of `$presence/{client}` and to a
//! webhook ([`crate::webhook`]).
//!
//! One topic has all of a client's comings and goings, so that they arrive in their order
//! (`[MQTT-4.6.0-6]`; EMQX has a topic for each, whose messages may pass each other). A client
//! identifier is one level of it, with `%`, `/`, `+` and `#` percent-encoded. Who may subscribe is
//! said by rules, as for any topic; nobody but the broker publishes there, at QoS 0, and nothing is
//! retained: who is there now is asked over HTTP.
//!
//! A connection that is taken over ends before the one that takes it over begins. A crash of the
//! daemon is told to nobody: whoever keeps account begins anew when the daemon does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use serde::Serialize;
use sextant_mqtt::{ReasonCode, Version};
use tokio::sync::mpsc;

/// What begins the names of all these topics.
pub const PREFIX: &str = "$presence/";

/// Events on their way from the cores to whom a webhook tells them; more are lost, and counted.
const OUTLET_MAX: usize = 1024;

/// A client came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// Its client identifier.
    pub client_id: Box<str>,
    /// Who it was let in as.
    pub user: Box<str>,
    /// How long its session outlives its connection, in seconds; [`u32::MAX`] is for ever.
    pub session_expiry_s: u32,
    /// What happened.
    pub change: Change,
}

/// What happened to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was let in.
    Online {
        /// Its version of MQTT.
        version: Version,
        /// The keep-alive in force, in seconds; zero is none.
        keep_alive_s: u16,
        /// Whether its session was there before.
        session_present: bool,
    },
    /// Its connection ended.
    Offline {
        /// Why, in one word.
        why: &'static str,
        /// The reason code of the DISCONNECT that was sent or received, if one was.
        reason: Option<ReasonCode>,
    },
}

/// An event as it is written.
#[derive(Serialize)]
struct Written<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    life: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    event: &'static str,
    client: &'a str,
    user: &'a str,
    at: String,
    session_expiry_s: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_alive_s: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_present: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason_code: Option<u8>,
}

impl Event {
    /// As it is published.
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = Vec::new();
        self.write(None, &mut json);
        json
    }

    /// Appends it as a webhook tells it: the number `seq` in this life of the daemon.
    pub fn write_numbered(&self, life: &str, seq: u64, json: &mut Vec<u8>) {
        self.write(Some((life, seq)), json);
    }

    fn write(&self, number: Option<(&str, u64)>, json: &mut Vec<u8>) {
        let at = i64::try_from(self.at).ok().and_then(|at| Timestamp::from_millisecond(at).ok());
        let mut written = Written {
            life: number.map(|(life, _)| life),
            seq: number.map(|(_, seq)| seq),
            event: "offline",
            client: &self.client_id,
            user: &self.user,
            at: format!("{:.3}", at.unwrap_or(Timestamp::MAX)),
            session_expiry_s: Some(self.session_expiry_s).filter(|expiry| *expiry != u32::MAX),
            version: None,
            keep_alive_s: None,
            session_present: None,
            why: None,
            reason_code: None,
        };
        match self.change {
            Change::Online { version, keep_alive_s, session_present } => {
                written.event = "online";
                written.version = Some(match version {
                    Version::V311 => "3.1.1",
                    Version::V5 => "5",
                });
                written.keep_alive_s = Some(keep_alive_s);
                written.session_present = Some(session_present);
            }
            Change::Offline { why, reason } => {
                written.why = Some(why);
                written.reason_code = reason.map(|reason| reason as u8);
            }
        }
        // Texts and numbers are always JSON, and a vector takes all of it.
        serde_json::to_writer(json, &written).expect("it can be written");
    }

    /// What it takes in memory, at most, in bytes.
    pub fn bytes(&self) -> usize {
        size_of::<Event>() + self.client_id.len() + self.user.len()
    }
}

/// The topic of a client.
pub fn topic(client_id: &str) -> String {
    let mut topic = String::with_capacity(PREFIX.len() + client_id.len());
    topic.push_str(PREFIX);
    for char in client_id.chars() {
        match char {
            '%' => topic.push_str("%25"),
            '/' => topic.push_str("%2F"),
            '+' => topic.push_str("%2B"),
            '#' => topic.push_str("%23"),
            _ => topic.push(char),
        }
    }
    topic
}

/// The cores' way to a webhook. Never waits.
#[derive(Clone, Debug)]
pub struct Outlet {
    events: mpsc::Sender<Event>,
    lost: Arc<AtomicU64>,
}

/// The webhook's end of it.
#[derive(Debug)]
pub struct Inlet {
    /// Events; none when the cores have ended.
    pub events: mpsc::Receiver<Event>,
    /// Those that found no room, since the start.
    pub lost: Arc<AtomicU64>,
}

/// A way from cores to a webhook.
pub fn outlet() -> (Outlet, Inlet) {
    let (sender, receiver) = mpsc::channel(OUTLET_MAX);
    let lost = Arc::<AtomicU64>::default();
    let outlet = Outlet { events: sender, lost: Arc::clone(&lost) };
    (outlet, Inlet { events: receiver, lost })
}

impl Outlet {
    /// Tells of an event, or counts it if there is no room.
    pub fn tell(&self, event: Event) {
        if self.events.try_send(event).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Whom a core tells.
#[derive(Clone, Debug)]
pub struct Audience {
    /// Whether subscribers.
    pub topic: bool,
    /// Whether a webhook.
    pub outlet: Option<Outlet>,
}

impl Default for Audience {
    fn default() -> Audience {
        Audience { topic: true, outlet: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use serde_json::{Value, json};

    fn online() -> Event {
        Event {
            at: 1_800_000_000_123,
            client_id: "lamp".into(),
            user: "u".into(),
            session_expiry_s: 60,
            change: Change::Online {
                version: Version::V5,
                keep_alive_s: 30,
                session_present: false,
            },
        }
    }

    #[test]
    fn a_coming_and_a_going_are_written_in_the_words_of_the_api() {
        let read = |json: &[u8]| serde_json::from_slice::<Value>(json).unwrap();
        let expected = json!({"event": "online", "client": "lamp", "user": "u",
            "at": "2027-01-15T08:00:00.123Z", "session_expiry_s": 60, "version": "5",
            "keep_alive_s": 30, "session_present": false});
        assert_eq!(read(&online().to_json()), expected);
        let mut numbered = Vec::new();
        let change =
            Change::Offline { why: "disconnected", reason: Some(ReasonCode::DisconnectWithWill) };
        let gone = Event { session_expiry_s: u32::MAX, change, ..online() };
        gone.write_numbered("L", 7, &mut numbered);
        let expected = json!({"life": "L", "seq": 7, "event": "offline", "client": "lamp",
            "user": "u", "at": "2027-01-15T08:00:00.123Z", "session_expiry_s": null,
            "why": "disconnected", "reason_code": 4});
        assert_eq!(read(&numbered), expected);
    }

    #[test]
    fn any_client_identifier_is_one_level_of_a_topic() {
        assert_eq!(topic("lamp"), "$presence/lamp");
        assert_eq!(topic("a/b+c#%é "), "$presence/a%2Fb%2Bc%23%25é ");
        for id in ["+", "#", "a/#", "$SYS", "%2F"] {
            let topic = topic(id);
            assert_eq!(topic.matches('/').count(), 1, "{topic}");
            assert!(!topic.contains(['+', '#']), "{topic}");
        }
        assert_ne!(topic("%2F"), topic("/"));
    }

    #[test]
    fn an_event_that_finds_no_room_is_counted_and_nobody_waits() {
        let (outlet, mut inlet) = outlet();
        for _ in 0..OUTLET_MAX + 3 {
            outlet.tell(online());
        }
        assert_eq!(inlet.lost.load(Ordering::Relaxed), 3);
        assert_eq!(inlet.events.try_recv(), Ok(online()));
        drop(inlet);
        outlet.tell(online());
    }
}
