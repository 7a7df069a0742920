//! Caches at clients: who is told when a key changes.
//!
//! By default the keys that a client has read are remembered, and it is told once of each that
//! changes. Under BCAST nothing is remembered, and it is told of all keys that begin with what it
//! said. The table of keys is bounded, `tracking-table-max-keys`: a key that finds no room makes
//! another go, whose readers are told as if it had changed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use hashbrown::HashMap;
use sextant_resp::Args;

use crate::client::ClientId;
use crate::command::{Flags, Spec};
use crate::engine::Engine;

/// Keys whose readers are remembered, by default.
const KEYS_MAX: usize = 1_000_000;

/// Which of a client's reads count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Choice {
    /// All.
    #[default]
    All,
    /// Those behind CLIENT CACHING YES.
    OptIn,
    /// All but those behind CLIENT CACHING NO.
    OptOut,
}

/// What a client wants to be told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tracking {
    /// Who is told in its place.
    pub(crate) redirect: Option<ClientId>,
    /// Who was to be told in its place is no more.
    pub(crate) broken: bool,
    pub(crate) broadcast: bool,
    pub(crate) choice: Choice,
    /// Not of what it changes itself.
    pub(crate) noloop: bool,
    /// What CLIENT CACHING said of the next command.
    pub(crate) caching: Option<bool>,
    /// What keys begin with that it is told of, under BCAST.
    pub(crate) prefixes: BTreeSet<Vec<u8>>,
}

impl Tracking {
    fn remembers(&self) -> bool {
        !self.broadcast
            && match self.choice {
                Choice::All => true,
                Choice::OptIn => self.caching == Some(true),
                Choice::OptOut => self.caching != Some(false),
            }
    }
}

/// Which keys were read by whom, and which changed.
pub(crate) struct Tracked {
    clients: usize,
    readers: HashMap<Arc<[u8]>, BTreeSet<ClientId>, foldhash::fast::RandomState>,
    /// Keys in the order in which they came, those that are no more among them.
    order: VecDeque<Arc<[u8]>>,
    items: usize,
    pub(crate) keys_max: usize,
    by_prefix: HashMap<Vec<u8>, BTreeSet<ClientId>, foldhash::fast::RandomState>,
    /// How many prefixes have a length.
    lengths: BTreeMap<usize, usize>,
    /// Keys that changed, and by whom.
    news: Vec<(Vec<u8>, Option<ClientId>)>,
    flushed: bool,
}

impl Default for Tracked {
    fn default() -> Tracked {
        Tracked {
            clients: 0,
            readers: HashMap::default(),
            order: VecDeque::new(),
            items: 0,
            keys_max: KEYS_MAX,
            by_prefix: HashMap::default(),
            lengths: BTreeMap::new(),
            news: Vec::new(),
            flushed: false,
        }
    }
}

impl Tracked {
    /// Whether nobody is told anything.
    #[inline]
    pub(crate) fn is_off(&self) -> bool {
        self.clients == 0
    }

    /// Clients that are told.
    pub(crate) fn clients(&self) -> usize {
        self.clients
    }

    /// Keys whose readers are remembered, those readers, and prefixes.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        (self.readers.len(), self.items, self.by_prefix.len())
    }

    /// A client is told from now on.
    pub(crate) fn start(&mut self) {
        self.clients += 1;
    }

    /// A client is told of keys that begin so.
    pub(crate) fn add_prefix(&mut self, id: ClientId, prefix: &[u8]) {
        if !self.by_prefix.contains_key(prefix) {
            *self.lengths.entry(prefix.len()).or_default() += 1;
        }
        self.by_prefix.entry(prefix.to_vec()).or_default().insert(id);
    }

    /// A client is told no more. What was remembered of it is forgotten when those keys change:
    /// its number is never used again, or tells then that it is not to be told.
    pub(crate) fn stop(&mut self, id: ClientId, own: &Tracking) {
        self.clients -= 1;
        for prefix in &own.prefixes {
            let Some(ids) = self.by_prefix.get_mut(prefix) else { continue };
            ids.remove(&id);
            if ids.is_empty() {
                self.by_prefix.remove(prefix);
                let length = self.lengths.entry(prefix.len()).or_default();
                *length = length.saturating_sub(1);
                if *length == 0 {
                    self.lengths.remove(&prefix.len());
                }
            }
        }
        if self.clients == 0 {
            (self.readers, self.order, self.items) = Default::default();
            self.news.clear();
        }
    }

    fn remember(&mut self, id: ClientId, key: &[u8]) {
        if let Some(ids) = self.readers.get_mut(key) {
            self.items += usize::from(ids.insert(id));
            return;
        }
        let key: Arc<[u8]> = key.into();
        self.order.push_back(key.clone());
        self.readers.insert(key, BTreeSet::from([id]));
        self.items += 1;
        self.make_room();
        if self.order.len() > 2 * self.readers.len() + 64 {
            let readers = &self.readers;
            self.order.retain(|key| readers.contains_key(key));
        }
    }

    /// Lets keys go that came first, as if they had changed, until there are no more than may be.
    pub(crate) fn make_room(&mut self) {
        let mut over = self.readers.len().saturating_sub(self.keys_max.max(1));
        while over > 0 {
            let Some(key) = self.order.pop_front() else { break };
            if self.readers.contains_key(&key) {
                self.news.push((key.to_vec(), None));
                over -= 1;
            }
        }
    }

    /// A key has changed.
    pub(crate) fn changed(&mut self, key: Vec<u8>, by: Option<ClientId>) {
        let anybody = !self.by_prefix.is_empty() || self.readers.contains_key(&*key);
        if anybody && !self.flushed {
            self.news.push((key, by));
        }
    }

    /// All keys of a database have changed.
    pub(crate) fn flushed(&mut self) {
        self.flushed = self.clients > 0;
    }

    pub(crate) fn has_news(&self) -> bool {
        self.flushed || !self.news.is_empty()
    }

    fn take_readers(&mut self, key: &[u8]) -> BTreeSet<ClientId> {
        let ids = self.readers.remove(key).unwrap_or_default();
        self.items -= ids.len();
        ids
    }

    /// The prefixes that a key has of those that clients want.
    fn prefixes_of<'a>(&'a self, key: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let lengths = self.lengths.range(..=key.len());
        lengths
            .map(|(length, _)| &key[..*length])
            .filter(|prefix| self.by_prefix.contains_key(*prefix))
    }
}

impl Engine {
    /// Remembers the keys of a command that was done, for a client that wants to be told of them.
    pub(crate) fn remember_reads(&mut self, id: ClientId, spec: &Spec, args: Args<'_>) {
        let own = self.client_mut(id).tracking.as_ref();
        if !spec.flags.has(Flags::READONLY) || !own.is_some_and(|own| own.remembers()) {
            return;
        }
        for at in spec.keys.places(args) {
            if let Some(key) = args.get(at) {
                self.tracked.remember(id, key);
            }
        }
    }

    /// Tells what changed to those who want to know.
    pub(crate) fn tell_tracking(&mut self) {
        let news = std::mem::take(&mut self.tracked.news);
        if std::mem::take(&mut self.tracked.flushed) {
            (self.tracked.readers, self.tracked.order, self.tracked.items) = Default::default();
            let wants = self.clients.iter().filter(|client| client.tracking.is_some());
            let ids: Vec<ClientId> = wants.map(|client| client.id).collect();
            ids.into_iter().for_each(|id| self.tell_changed(id, None));
            return;
        }
        let mut by_prefix: BTreeMap<Vec<u8>, BTreeMap<&[u8], Option<ClientId>>> = BTreeMap::new();
        for (key, by) in &news {
            for id in self.tracked.take_readers(key) {
                let own = self.clients.get(id).and_then(|client| client.tracking.as_ref());
                let Some(own) = own.filter(|own| !own.broadcast) else { continue };
                if !(own.noloop && *by == Some(id)) {
                    self.tell_changed(id, Some(&[key]));
                }
            }
            for prefix in self.tracked.prefixes_of(key) {
                by_prefix.entry(prefix.to_vec()).or_default().insert(key, *by);
            }
        }
        for (prefix, keys) in &by_prefix {
            for id in self.tracked.by_prefix.get(prefix).cloned().unwrap_or_default() {
                let own = self.clients.get(id).and_then(|client| client.tracking.as_ref());
                let noloop = own.is_some_and(|own| own.noloop);
                let is_news = |(_, by): &(&&[u8], &Option<ClientId>)| !(noloop && **by == Some(id));
                let keys: Vec<&[u8]> = keys.iter().filter(is_news).map(|(key, _)| *key).collect();
                if !keys.is_empty() {
                    self.tell_changed(id, Some(&keys));
                }
            }
        }
    }

    /// Tells a client, or who is told in its place, of keys that changed; of all, if none are
    /// named.
    fn tell_changed(&mut self, id: ClientId, keys: Option<&[&[u8]]>) {
        let Some(client) = self.clients.get_mut(id) else { return };
        let Some(own) = &mut client.tracking else { return };
        let target = own.redirect.unwrap_or(id);
        if target != id && self.clients.get(target).is_none() {
            self.tell_broken(id, target);
            return;
        }
        let Some(client) = self.clients.get_mut(target) else { return };
        let hears = client.subscriptions.is_some();
        let out = &mut client.output;
        match (out.resp3, target != id && hears) {
            (true, _) => {
                out.push(2);
                out.bulk(b"invalidate");
            }
            (false, true) => {
                out.push(3);
                out.bulk(b"message");
                out.bulk(b"__redis__:invalidate");
            }
            (false, false) => return,
        }
        match keys {
            Some(keys) => {
                out.array(keys.len());
                keys.iter().for_each(|key| out.bulk(key));
            }
            None => out.null(),
        }
        self.clients.tell(target);
    }

    fn tell_broken(&mut self, id: ClientId, target: ClientId) {
        let client = self.client_mut(id);
        if let Some(own) = &mut client.tracking {
            own.broken = true;
        }
        if client.output.resp3 {
            client.output.push(2);
            client.output.bulk(b"tracking-redir-broken");
            client.output.int(target.0 as i64);
            self.clients.tell(id);
        }
    }
}
