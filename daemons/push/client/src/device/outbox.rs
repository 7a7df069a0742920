//! What the broker is to be told: receipts and topics, kept until it has acknowledged them.
//!
//! One publish is under way at a time, of topics or of the oldest receipts; when the connection is
//! lost it is as if it had not been sent. The daemon counts a receipt once however often it comes.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How many receipts one publish has at most.
const RECEIPTS_AT_ONCE: usize = 100;
/// How many topics wait to be said at most.
const TOPICS_MAX: usize = 1000;
/// The longest topic, bytes, so that a publish of topics has a limit, too.
const TOPIC_BYTES_MAX: usize = 256;
/// How many topics one publish has at most.
const TOPICS_AT_ONCE: usize = 50;

/// How often a publish is said that the broker refuses without a reason that tells whether it will
/// ever take it.
const ATTEMPTS_MAX: u32 = 5;

/// Too much waits for the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many receipts or topics wait for the broker, or a topic is too long")]
pub struct Full;

/// What happened to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// It was shown.
    Shown,
    /// It was clicked.
    Clicked,
}

/// What happened to a message, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The message.
    pub id: Uuid,
    /// What happened.
    pub event: What,
    /// When, to the millisecond.
    pub at: Timestamp,
}

impl Receipt {
    pub(super) fn now(id: Uuid, event: What) -> Receipt {
        let now = Timestamp::now();
        Receipt { id, event, at: Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now) }
    }
}

/// What is under way.
#[derive(Debug, PartialEq, Eq)]
enum Sent {
    /// So many of the oldest receipts.
    Receipts(usize),
    Topics(BTreeMap<String, bool>),
}

/// Which topic a publish goes to, below the device's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    Receipts,
    Topics,
}

#[derive(Debug)]
pub(crate) struct Outbox {
    receipts: VecDeque<Receipt>,
    receipts_max: usize,
    /// Topics to say something of, and whether they are wanted.
    topics: BTreeMap<String, bool>,
    sent: Option<Sent>,
    /// How often the oldest was refused.
    refusals: u32,
}

impl Outbox {
    pub(super) fn new(receipts_max: usize) -> Outbox {
        let (receipts, topics) = (VecDeque::new(), BTreeMap::new());
        Outbox { receipts, receipts_max, topics, sent: None, refusals: 0 }
    }

    pub(super) fn push(&mut self, receipt: Receipt) -> Result<(), Full> {
        if self.receipts.len() >= self.receipts_max {
            return Err(Full);
        }
        self.receipts.push_back(receipt);
        Ok(())
    }

    pub(super) fn set_topic(&mut self, topic: &str, wanted: bool) -> Result<(), Full> {
        let is_full = self.topics.len() >= TOPICS_MAX && !self.topics.contains_key(topic);
        if is_full || topic.len() > TOPIC_BYTES_MAX {
            return Err(Full);
        }
        self.topics.insert(topic.to_owned(), wanted);
        Ok(())
    }

    pub(super) fn receipts_len(&self) -> usize {
        self.receipts.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.receipts.is_empty() && self.topics.is_empty()
    }

    pub(super) fn take_receipts(&mut self) -> Vec<Receipt> {
        self.sent = None;
        std::mem::take(&mut self.receipts).into()
    }

    /// The next publish, of about `bytes_max` at most, if none is under way: topics first, since
    /// they decide what comes.
    pub(crate) fn next(&mut self, bytes_max: usize) -> Option<(Channel, Vec<u8>)> {
        if self.sent.is_some() {
            return None;
        }
        if !self.topics.is_empty() {
            let some = self.topics.iter().take(TOPICS_AT_ONCE);
            let topics: BTreeMap<_, _> = some.map(|(topic, is)| (topic.clone(), *is)).collect();
            let names = |wanted: bool| -> Vec<&str> {
                let chosen = topics.iter().filter(|(_, is)| **is == wanted);
                chosen.map(|(topic, _)| topic.as_str()).collect()
            };
            let said = serde_json::json!({"subscribe": names(true), "unsubscribe": names(false)});
            let payload = said.to_string().into_bytes();
            self.sent = Some(Sent::Topics(topics));
            return Some((Channel::Topics, payload));
        }
        let mut payload = br#"{"receipts":["#.to_vec();
        let mut count = 0;
        for receipt in self.receipts.iter().take(RECEIPTS_AT_ONCE) {
            let text = serde_json::to_vec(receipt).expect("a receipt has names for keys");
            if count > 0 && payload.len() + text.len() + 3 > bytes_max {
                break;
            }
            if count > 0 {
                payload.push(b',');
            }
            payload.extend_from_slice(&text);
            count += 1;
        }
        if count == 0 {
            return None;
        }
        payload.extend_from_slice(b"]}");
        self.sent = Some(Sent::Receipts(count));
        Some((Channel::Receipts, payload))
    }

    /// The broker has taken, or refused for good, what was under way.
    pub(crate) fn done(&mut self) {
        self.refusals = 0;
        match self.sent.take() {
            Some(Sent::Receipts(count)) => drop(self.receipts.drain(..count)),
            // What was said otherwise meanwhile is still to be said.
            Some(Sent::Topics(said)) => {
                self.topics.retain(|topic, wanted| said.get(topic) != Some(wanted));
            }
            None => {}
        }
    }

    /// The broker refused what was under way, perhaps for good: whether that is given up.
    pub(crate) fn refused(&mut self) -> bool {
        self.refusals += 1;
        let is_given_up = self.refusals >= ATTEMPTS_MAX;
        if is_given_up {
            self.done();
        }
        is_given_up
    }

    /// The connection is lost, and what was under way with it.
    pub(crate) fn lost(&mut self) {
        self.sent = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn receipt(n: u128) -> Receipt {
        Receipt { id: Uuid::from_u128(n), event: What::Shown, at: Timestamp::UNIX_EPOCH }
    }

    fn said(outbox: &mut Outbox, bytes_max: usize) -> Option<(Channel, Value)> {
        let (channel, payload) = outbox.next(bytes_max)?;
        Some((channel, serde_json::from_slice(&payload).unwrap()))
    }

    fn ids(said: &Value) -> Vec<u128> {
        let receipts = said["receipts"].as_array().unwrap();
        let id = |receipt: &Value| receipt["id"].as_str().unwrap().parse::<Uuid>().unwrap();
        receipts.iter().map(|receipt| id(receipt).as_u128()).collect()
    }

    #[test]
    fn receipts_are_said_again_until_they_are_acknowledged() {
        let mut outbox = Outbox::new(200);
        for n in 0..150 {
            outbox.push(receipt(n)).unwrap();
        }
        let (channel, first) = said(&mut outbox, usize::MAX).unwrap();
        assert_eq!((channel, ids(&first)), (Channel::Receipts, (0..100).collect()));
        assert_eq!(said(&mut outbox, usize::MAX), None, "one is under way");
        outbox.lost();
        assert_eq!(said(&mut outbox, usize::MAX).unwrap().1, first);
        outbox.done();
        assert_eq!(outbox.receipts_len(), 50);
        assert_eq!(ids(&said(&mut outbox, 0).unwrap().1), [100], "one at least");
        outbox.done();
        assert_eq!(ids(&said(&mut outbox, 250).unwrap().1), [101, 102]);
    }

    #[test]
    fn a_receipt_has_the_form_of_the_contract() {
        let mut outbox = Outbox::new(1);
        let clicked = Receipt { event: What::Clicked, ..receipt(0) };
        outbox.push(clicked).unwrap();
        assert_eq!(outbox.push(receipt(1)), Err(Full));
        let expected = json!({"receipts": [{"id": "00000000-0000-0000-0000-000000000000",
            "event": "clicked", "at": "1970-01-01T00:00:00Z"}]});
        assert_eq!(said(&mut outbox, usize::MAX).unwrap().1, expected);
    }

    #[test]
    fn the_last_word_on_a_topic_counts() {
        let mut outbox = Outbox::new(1);
        outbox.push(receipt(0)).unwrap();
        outbox.set_topic("news", true).unwrap();
        outbox.set_topic("sport", true).unwrap();
        outbox.set_topic("sport", false).unwrap();
        let expected = json!({"subscribe": ["news"], "unsubscribe": ["sport"]});
        assert_eq!(said(&mut outbox, usize::MAX), Some((Channel::Topics, expected)));
        outbox.set_topic("news", false).unwrap();
        outbox.done();
        let expected = json!({"subscribe": [], "unsubscribe": ["news"]});
        assert_eq!(said(&mut outbox, usize::MAX), Some((Channel::Topics, expected)));
        outbox.done();
        assert_eq!(said(&mut outbox, usize::MAX).unwrap().0, Channel::Receipts);
    }

    #[test]
    fn what_is_refused_again_and_again_makes_room_for_what_follows() {
        let mut outbox = Outbox::new(1);
        outbox.push(receipt(0)).unwrap();
        outbox.set_topic("no topic", true).unwrap();
        for attempt in 1..=ATTEMPTS_MAX {
            assert_eq!(said(&mut outbox, usize::MAX).unwrap().0, Channel::Topics);
            assert_eq!(outbox.refused(), attempt == ATTEMPTS_MAX);
            outbox.lost();
        }
        assert_eq!(said(&mut outbox, usize::MAX).unwrap().0, Channel::Receipts);
        assert!(!outbox.refused());
    }

    #[test]
    fn topics_that_wait_have_a_limit() {
        let mut outbox = Outbox::new(1);
        for n in 0..TOPICS_MAX {
            outbox.set_topic(&n.to_string(), true).unwrap();
        }
        assert_eq!(outbox.set_topic("more", true), Err(Full));
        assert_eq!(outbox.set_topic("7", false), Ok(()));
        assert_eq!(outbox.set_topic(&"x".repeat(TOPIC_BYTES_MAX + 1), true), Err(Full));
    }
}
