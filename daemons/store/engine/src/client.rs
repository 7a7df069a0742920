//! A client's connection, as far as the engine knows it.

use std::cell::Cell;
use std::sync::Arc;

use hashbrown::HashMap;
use sextant_resp::OwnedArgs;

use crate::blocking::Waiting;
use crate::output::Output;
use crate::pubsub::{Space, Subscriptions};
use crate::tracking::Tracking;

/// Names a client: the number that CLIENT ID tells. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(pub u64);

/// Where a client comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Its address and port, or the unix socket's path.
    pub address: String,
    /// The address and port that it connected to.
    pub local: String,
    /// It came by a unix socket.
    pub unix: bool,
}

/// What is still to come of a transaction.
#[derive(Default)]
pub(crate) struct Multi {
    pub(crate) commands: Vec<OwnedArgs>,
    /// A command was refused while it was queued: EXEC does nothing.
    pub(crate) refused: bool,
    pub(crate) bytes: usize,
    /// The flags of all commands together.
    pub(crate) flags: u32,
}

/// Which replies a client wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mute {
    /// All.
    #[default]
    No,
    /// None.
    Yes,
    /// None to the next command.
    Next,
}

/// A client.
pub(crate) struct Client {
    pub(crate) id: ClientId,
    pub(crate) peer: Peer,
    pub(crate) name: Vec<u8>,
    pub(crate) db: usize,
    pub(crate) output: Output,
    pub(crate) multi: Option<Multi>,
    /// Keys that it watches, and whether one of them has changed.
    pub(crate) watched: Vec<(usize, Vec<u8>)>,
    pub(crate) watched_changed: bool,
    pub(crate) waiting: Option<Waiting>,
    /// The connection ends once what waits was sent.
    pub(crate) closing: bool,
    /// It is in the list of those that have something to send.
    pub(crate) listed: bool,
    /// What its replies, and what it was told, hold of what is not durable: a batch's number.
    pub(crate) gate: u64,
    /// Milliseconds since 1970.
    pub(crate) created: u64,
    pub(crate) last_active: u64,
    /// A command's number in the table.
    pub(crate) last_command: Option<u16>,
    /// There is more to look at before its commands are done: see
    /// [`Engine::admit`](crate::engine::Engine::admit).
    pub(crate) guarded: bool,
    /// Who it is; none before it has said so where that is needed.
    pub(crate) user: Option<Arc<[u8]>>,
    pub(crate) mute: Mute,
    /// It sees all commands that are done.
    pub(crate) monitors: bool,
    pub(crate) no_evict: bool,
    pub(crate) no_touch: bool,
    /// The library that it says it uses, and its version.
    pub(crate) library: Option<Box<[Vec<u8>; 2]>>,
    pub(crate) subscriptions: Option<Box<Subscriptions>>,
    pub(crate) tracking: Option<Box<Tracking>>,
    /// What it said in a pause, to be done when that is over.
    pub(crate) postponed: Option<OwnedArgs>,
}

impl Client {
    /// Names of a kind that it subscribes to.
    pub(crate) fn subscribed(&self, space: Space) -> usize {
        self.subscriptions.as_ref().map_or(0, |own| own.count(space))
    }

    /// Whether its next command has to wait.
    pub(crate) fn waits(&self) -> bool {
        self.waiting.is_some() || self.postponed.is_some()
    }
}

/// All clients of an instance.
#[derive(Default)]
pub(crate) struct Clients {
    slots: Vec<Option<Box<Client>>>,
    free: Vec<usize>,
    by_id: HashMap<u64, usize, foldhash::fast::RandomState>,
    last: Cell<usize>,
    next: u64,
    /// Clients that were told something that was no reply to what they said just now.
    told: Vec<ClientId>,
}

impl Clients {
    pub(crate) fn add(&mut self, peer: Peer, now: u64) -> ClientId {
        self.next += 1;
        let id = ClientId(self.next);
        let client = Client {
            id,
            peer,
            name: Vec::new(),
            db: 0,
            output: Output::new(false),
            multi: None,
            watched: Vec::new(),
            watched_changed: false,
            waiting: None,
            closing: false,
            listed: false,
            gate: 0,
            created: now,
            last_active: now,
            last_command: None,
            guarded: false,
            user: None,
            mute: Mute::No,
            monitors: false,
            no_evict: false,
            no_touch: false,
            library: None,
            subscriptions: None,
            tracking: None,
            postponed: None,
        };
        let client = Some(Box::new(client));
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = client;
                slot
            }
            None => {
                self.slots.push(client);
                self.slots.len() - 1
            }
        };
        self.by_id.insert(id.0, slot);
        id
    }

    pub(crate) fn remove(&mut self, id: ClientId) -> Option<Client> {
        let slot = self.by_id.remove(&id.0)?;
        self.free.push(slot);
        self.slots[slot].take().map(|client| *client)
    }

    /// The slot of a client. The one that was looked for last is most often looked for again.
    #[inline]
    fn slot(&self, id: ClientId) -> Option<usize> {
        let last = self.last.get();
        let is_it = |client: &Option<Box<Client>>| client.as_ref().is_some_and(|c| c.id == id);
        if self.slots.get(last).is_some_and(is_it) {
            return Some(last);
        }
        let slot = *self.by_id.get(&id.0)?;
        self.last.set(slot);
        Some(slot)
    }

    #[inline]
    pub(crate) fn get(&self, id: ClientId) -> Option<&Client> {
        self.slots[self.slot(id)?].as_deref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: ClientId) -> Option<&mut Client> {
        let slot = self.slot(id)?;
        self.slots[slot].as_deref_mut()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Client> {
        self.slots.iter_mut().filter_map(Option::as_deref_mut)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Client> {
        self.slots.iter().filter_map(Option::as_deref)
    }

    /// Something was put into a client's output: whoever sends shall look.
    pub(crate) fn tell(&mut self, id: ClientId) {
        if let Some(client) = self.get_mut(id)
            && !std::mem::replace(&mut client.listed, true)
        {
            self.told.push(id);
        }
    }

    /// The next client that was told something.
    pub(crate) fn next_told(&mut self) -> Option<ClientId> {
        let id = self.told.pop()?;
        if let Some(client) = self.get_mut(id) {
            client.listed = false;
        }
        Some(id)
    }
}
