//! Publish and subscribe: who hears what, and the way of a message to them.
//!
//! ```text
//!   PUBLISH ─► channel ─► its subscribers ─┐
//!           └► patterns that match ────────┴─► head │ message │ CRLF in each client's output
//!   SPUBLISH ─► shard channel ─► its subscribers       └─ one piece for all, if it is long
//! ```
//!
//! A message's head is encoded once for each version of the protocol, and a long message is in the
//! outputs of all who hear it without a copy. A client that does not take what it is sent is
//! disconnected at a limit, `client-output-buffer-limit`.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use sextant_resp::Reply;

use crate::client::{ClientId, Clients};
use crate::output::Output;
use crate::words::matches;

/// Names that a client subscribes to at most.
pub(crate) const SUBSCRIPTIONS_MAX: usize = 1 << 20;

/// A kind of subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    /// Channels by name.
    Channels = 0,
    /// Channels whose name matches.
    Patterns = 1,
    /// Channels of SPUBLISH.
    Shards = 2,
}

impl Space {
    pub(crate) const ALL: [Space; 3] = [Space::Channels, Space::Patterns, Space::Shards];

    /// What a subscription is confirmed with.
    pub(crate) fn subscribed(self) -> &'static [u8] {
        [&b"subscribe"[..], b"psubscribe", b"ssubscribe"][self as usize]
    }

    /// What its end is confirmed with.
    pub(crate) fn unsubscribed(self) -> &'static [u8] {
        [&b"unsubscribe"[..], b"punsubscribe", b"sunsubscribe"][self as usize]
    }
}

/// What a client subscribes to.
#[derive(Default)]
pub(crate) struct Subscriptions {
    names: [BTreeSet<Arc<[u8]>>; 3],
    /// Since when, in milliseconds since 1970, more waits for it than the lower limit.
    behind_since: Option<u64>,
}

impl Subscriptions {
    /// Names of a kind.
    pub(crate) fn count(&self, space: Space) -> usize {
        self.names[space as usize].len()
    }

    /// The number that confirmations tell: channels and patterns together, shard channels apart.
    pub(crate) fn told(&self, space: Space) -> usize {
        match space {
            Space::Shards => self.count(Space::Shards),
            _ => self.count(Space::Channels) + self.count(Space::Patterns),
        }
    }

    fn total(&self) -> usize {
        self.names.iter().map(BTreeSet::len).sum()
    }
}

/// How much may wait for a client that subscribes; zero is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutputLimit {
    /// More than so many bytes end the connection at once.
    pub(crate) hard_bytes: u64,
    /// More than so many do after a while.
    pub(crate) soft_bytes: u64,
    pub(crate) soft_seconds: u64,
}

impl Default for OutputLimit {
    fn default() -> OutputLimit {
        OutputLimit { hard_bytes: 32 << 20, soft_bytes: 8 << 20, soft_seconds: 60 }
    }
}

type Receivers = HashMap<Arc<[u8]>, BTreeSet<ClientId>, foldhash::fast::RandomState>;

/// Who subscribes to what.
#[derive(Default)]
pub(crate) struct PubSub {
    receivers: [Receivers; 3],
    pub(crate) limit: OutputLimit,
}

impl PubSub {
    /// Names of a kind that somebody subscribes to.
    pub(crate) fn count(&self, space: Space) -> usize {
        self.receivers[space as usize].len()
    }

    /// Those names.
    pub(crate) fn names(&self, space: Space) -> impl Iterator<Item = &[u8]> {
        self.receivers[space as usize].keys().map(|name| &**name)
    }

    /// Subscribers of a name.
    pub(crate) fn subscribers(&self, space: Space, name: &[u8]) -> usize {
        self.receivers[space as usize].get(name).map_or(0, BTreeSet::len)
    }

    /// Adds a name to what a client subscribes to; returns whether there was room.
    pub(crate) fn subscribe(
        &mut self,
        id: ClientId,
        to: &mut Subscriptions,
        space: Space,
        name: &[u8],
    ) -> bool {
        let own = &mut to.names[space as usize];
        if own.contains(name) {
            return true;
        }
        if to.total() >= SUBSCRIPTIONS_MAX {
            return false;
        }
        let receivers = &mut self.receivers[space as usize];
        let shared = receivers.get_key_value(name).map(|(name, _)| name.clone());
        let name: Arc<[u8]> = shared.unwrap_or_else(|| name.into());
        receivers.entry(name.clone()).or_default().insert(id);
        to.names[space as usize].insert(name);
        true
    }

    /// Takes a name out of what a client subscribes to.
    pub(crate) fn unsubscribe(
        &mut self,
        id: ClientId,
        from: &mut Subscriptions,
        space: Space,
        name: &[u8],
    ) {
        if from.names[space as usize].remove(name) {
            self.forget(id, space, name);
        }
    }

    /// Takes one name of a kind out, as long as there are any.
    pub(crate) fn unsubscribe_one(
        &mut self,
        id: ClientId,
        from: &mut Subscriptions,
        space: Space,
    ) -> Option<Arc<[u8]>> {
        let name = from.names[space as usize].pop_first()?;
        self.forget(id, space, &name);
        Some(name)
    }

    /// Takes everything out, for a client that goes.
    pub(crate) fn remove(&mut self, id: ClientId, mut from: Subscriptions) {
        for space in Space::ALL {
            while self.unsubscribe_one(id, &mut from, space).is_some() {}
        }
    }

    fn forget(&mut self, id: ClientId, space: Space, name: &[u8]) {
        let receivers = &mut self.receivers[space as usize];
        if let Some(ids) = receivers.get_mut(name) {
            ids.remove(&id);
            if ids.is_empty() {
                receivers.remove(name);
            }
        }
    }

    /// Sends a message to all who hear a channel; returns to how many. `gate` is the batch of the
    /// journal that has to be durable before any of them is told.
    pub(crate) fn publish(
        &self,
        clients: &mut Clients,
        now: u64,
        gate: u64,
        space: Space,
        channel: &[u8],
        message: &[u8],
    ) -> usize {
        let mut reached = 0;
        let mut body = None;
        if let Some(ids) = self.receivers[space as usize].get(channel) {
            let kind = if space == Space::Shards { &b"smessage"[..] } else { b"message" };
            let words = [kind, channel];
            let mut letter = Letter::new(&words, message, &mut body);
            reached += self.send(clients, now, gate, ids, &mut letter);
        }
        if space == Space::Channels {
            for (pattern, ids) in &self.receivers[Space::Patterns as usize] {
                if matches(pattern, channel) {
                    let words = [b"pmessage", &**pattern, channel];
                    let mut letter = Letter::new(&words, message, &mut body);
                    reached += self.send(clients, now, gate, ids, &mut letter);
                }
            }
        }
        reached
    }

    fn send(
        &self,
        clients: &mut Clients,
        now: u64,
        gate: u64,
        ids: &BTreeSet<ClientId>,
        letter: &mut Letter<'_>,
    ) -> usize {
        for id in ids {
            let Some(client) = clients.get_mut(*id) else { continue };
            letter.put_into(&mut client.output);
            client.gate = client.gate.max(gate);
            let waits = client.output.len() as u64;
            let behind_since = client.subscriptions.as_mut().map(|own| &mut own.behind_since);
            if behind_since.is_some_and(|since| self.is_too_much(waits, now, since)) {
                client.output.clear();
                client.closing = true;
            }
            clients.tell(*id);
        }
        ids.len()
    }

    fn is_too_much(&self, waits: u64, now: u64, behind_since: &mut Option<u64>) -> bool {
        let OutputLimit { hard_bytes, soft_bytes, soft_seconds } = self.limit;
        if hard_bytes > 0 && waits > hard_bytes {
            return true;
        }
        if soft_bytes == 0 || waits <= soft_bytes {
            *behind_since = None;
            return false;
        }
        let since = *behind_since.get_or_insert(now);
        now.saturating_sub(since) > soft_seconds * 1000
    }
}

/// A message that is on its way to several clients.
struct Letter<'a> {
    words: &'a [&'a [u8]],
    /// What stands before the message, for each version of the protocol.
    heads: [Option<Vec<u8>>; 2],
    message: Bytes,
}

impl<'a> Letter<'a> {
    /// `body` keeps the message's bytes, which several letters share.
    fn new(words: &'a [&'a [u8]], message: &[u8], body: &mut Option<Bytes>) -> Letter<'a> {
        let message = body.get_or_insert_with(|| Bytes::copy_from_slice(message)).clone();
        Letter { words, heads: [None, None], message }
    }

    fn put_into(&mut self, output: &mut Output) {
        let head = self.heads[usize::from(output.resp3)].get_or_insert_with(|| {
            let mut reply = Reply { out: Vec::new(), resp3: output.resp3 };
            reply.push(self.words.len() + 1);
            self.words.iter().for_each(|word| reply.bulk(word));
            reply.bulk_head(self.message.len());
            reply.out
        });
        output.out.extend_from_slice(head);
        output.piece(self.message.clone());
        output.crlf();
    }
}
