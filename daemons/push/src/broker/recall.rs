//! Messages that are on disk alone, brought back for whoever is to send them, while everybody else
//! is served.
//!
//! ```text
//!   load ──► Here: sent at once
//!     └────► Away ──► ask ──► queue ──► Log::fetch ──► next_recalled ──► whoever waits looks again
//!                      │                    └ Busy: later        │
//!                      └ waits for the same message              └─► kept a while, for the others
//! ```
//!
//! A message is read once for all who wait for it. What was read is kept until newer messages need
//! its room, [`RECALLED_BYTES_MAX`]; those who wait are told before that can happen. Whoever waits
//! is known by name and looks at its own state again, so that nothing is to be taken back when a
//! connection ends, a message expires, or its record is moved.

use std::collections::VecDeque;
use std::rc::Rc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use sextant_mqtt::PacketId;
use sextant_ring::core::ConnId;
use sextant_ring::driver::Files;
use sextant_ring::slot::SlotId;
use sextant_segment::{FetchError, Log, Read, ReadError};
use tracing::error;

use super::conn::Stage;
use super::message::{Delivery, Held};
use super::once::OnceQueue;
use super::records::MessageRecord;
use super::retained::Paused;
use super::store::{LoadError, Store};
use super::{Broker, Context};
use crate::meters::Dropped;

/// Memory for messages that were read back.
const RECALLED_BYTES_MAX: usize = 8 << 20;

/// Messages that are read at once; what the log allows beyond is for compaction.
const READS_MAX: usize = Log::FETCHES_MAX - 8;

/// Messages behind the one that is waited for that are asked for with it.
pub(super) const READ_AHEAD: usize = 8;

type Map<K, V> = HashMap<K, V, RandomState>;

/// Who waits for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiter {
    /// A connection, to go on with its session.
    Conn(ConnId),
    /// A search among the retained messages.
    Search(SlotId),
}

/// A message, if it is in memory.
pub(super) enum Loaded {
    Here(Rc<MessageRecord>),
    /// It is to be [asked](Store::ask) for.
    Away,
}

/// What was read of a message; `None` if it cannot be read.
struct Recalled {
    record: Option<Rc<MessageRecord>>,
    bytes: usize,
}

/// What is being read back, and what was.
#[derive(Default)]
pub(super) struct Recall {
    kept: Map<u64, Recalled>,
    /// Oldest first. A message that is kept no more may still be named here.
    order: VecDeque<u64>,
    bytes: usize,
    /// Messages that were asked for, and who waits for them.
    asked: Map<u64, Vec<Waiter>>,
    /// Those of them whose reading has not begun.
    queue: VecDeque<u64>,
    reads: usize,
    /// Messages that are here, or gone, and whose waiters are to be told.
    settled: VecDeque<u64>,
}

impl Recall {
    fn keep(&mut self, id: u64, record: Option<Rc<MessageRecord>>) {
        /// What an entry takes beside its message, about.
        const ENTRY_BYTES: usize = 200;
        let content = record
            .as_ref()
            .map_or(0, |record| record.topic.len() + record.forward.len() + record.payload.len());
        let bytes = content + ENTRY_BYTES;
        self.forget(id);
        self.bytes += bytes;
        self.kept.insert(id, Recalled { record, bytes });
        self.order.push_back(id);
        while self.bytes > RECALLED_BYTES_MAX && self.kept.len() > 1 {
            let Some(oldest) = self.order.pop_front() else { break };
            if oldest != id {
                self.forget(oldest);
            }
        }
        // Names of what was forgotten otherwise.
        if self.order.len() > 2 * self.kept.len() + 16 {
            let Recall { order, kept, .. } = self;
            order.retain(|id| kept.contains_key(id));
        }
    }

    /// Forgets what was read of a message.
    pub(super) fn forget(&mut self, id: u64) {
        if let Some(gone) = self.kept.remove(&id) {
            self.bytes -= gone.bytes;
        }
    }

    /// Messages that somebody waits for.
    pub(super) fn asked(&self) -> usize {
        self.asked.len()
    }
}

impl Store {
    /// A message as it was kept, if it is in memory.
    pub(super) fn load(&self, held: &Held) -> Result<Loaded, LoadError> {
        if let Some(pushed) = &held.pushed {
            return Ok(Loaded::Here(Rc::clone(&pushed.record)));
        }
        if let Some(recalled) = self.recall.kept.get(&held.id) {
            let record = recalled.record.as_ref().ok_or(LoadError::Unreadable)?;
            return Ok(Loaded::Here(Rc::clone(record)));
        }
        Ok(match self.log.read(held.position.get())? {
            Read::Hot(record) => {
                Loaded::Here(Rc::new(MessageRecord::take(record.payload, held.id)?))
            }
            Read::Cold => Loaded::Away,
        })
    }

    /// Has a message that is away brought back, and whoever waits told when it is there, or cannot
    /// be.
    pub(super) fn ask(&mut self, held: &Held, waiter: Option<Waiter>, files: &mut impl Files) {
        assert!(waiter.is_none() || held.pushed.is_none(), "the platform's are in memory");
        if held.pushed.is_some() {
            return;
        }
        let recall = &mut self.recall;
        if waiter.is_none() && recall.kept.contains_key(&held.id) {
            return;
        }
        if let Some(waiters) = recall.asked.get_mut(&held.id) {
            waiters.extend(waiter);
            return;
        }
        recall.asked.insert(held.id, waiter.into_iter().collect());
        recall.queue.push_back(held.id);
        self.read_some(files);
    }

    /// Starts reading what was asked for, as far as the log reads as much at once.
    fn read_some(&mut self, files: &mut impl Files) {
        while self.recall.reads < READS_MAX {
            let Some(id) = self.recall.queue.pop_front() else { return };
            let Some(held) = self.held.get(&id) else {
                self.recall.settled.push_back(id);
                continue;
            };
            let position = held.position.get();
            // It may have been moved since it was asked for, and be among the newest.
            let started = match self.log.read(position) {
                Ok(Read::Hot(record)) => {
                    let record = MessageRecord::take(record.payload, id).ok().map(Rc::new);
                    self.recall.keep(id, record);
                    self.recall.settled.push_back(id);
                    continue;
                }
                Ok(Read::Cold) => self.log.fetch(position, held.stored_bytes.get(), id, files),
                Err(error) => Err(error.into()),
            };
            match started {
                Ok(()) => self.recall.reads += 1,
                Err(FetchError::Read(error)) => self.unreadable(id, &error),
                Err(_) => return self.recall.queue.push_front(id),
            }
        }
    }

    fn unreadable(&mut self, id: u64, error: &dyn std::fmt::Display) {
        error!(%error, message = id, "a message cannot be read back");
        self.recall.keep(id, None);
        self.recall.settled.push_back(id);
    }

    /// Whoever waited for the next message that is here now, or gone. They are to be told before
    /// this is asked again.
    pub(super) fn next_recalled(&mut self, files: &mut impl Files) -> Option<(u64, Vec<Waiter>)> {
        while self.recall.settled.is_empty() {
            match self.log.next_fetched() {
                Some(fetched) => self.take_fetched(fetched.token, fetched.position, fetched.result),
                None if self.recall.queue.is_empty() => return None,
                None => {
                    let before = (self.recall.queue.len(), self.recall.settled.len());
                    self.read_some(files);
                    if before == (self.recall.queue.len(), self.recall.settled.len()) {
                        return None;
                    }
                }
            }
        }
        let id = self.recall.settled.pop_front()?;
        self.read_some(files);
        Some((id, self.recall.asked.remove(&id).unwrap_or_default()))
    }

    fn take_fetched(
        &mut self,
        id: u64,
        position: sextant_segment::Position,
        result: Result<sextant_segment::Record, ReadError>,
    ) {
        self.recall.reads -= 1;
        let moved = self.held.get(&id).map(|held| held.position.get() != position);
        match (result, moved) {
            // Nobody is to get it any more.
            (_, None) => self.recall.settled.push_back(id),
            (Err(ReadError::Removed(_)), Some(true)) => self.recall.queue.push_front(id),
            (Ok(record), _) => match MessageRecord::take(record.payload, id) {
                Ok(message) => {
                    self.recall.keep(id, Some(Rc::new(message)));
                    self.recall.settled.push_back(id);
                }
                Err(error) => self.unreadable(id, &error),
            },
            (Err(error), _) => self.unreadable(id, &error),
        }
    }
}

/// What a connection waits for: the disk, or that it takes more.
#[derive(Default)]
pub(super) struct Reading {
    /// By which part of it, the message that it was last told to wait for.
    awaited: [u64; 3],
    /// What is to be sent again next, when it is there; nothing new overtakes it.
    pub(super) resending: Option<PacketId>,
    /// What is to be sent at QoS 0, in this order.
    pub(super) once: OnceQueue,
    /// What goes on when it takes more retained messages.
    pub(super) searches: Vec<Paused>,
}

/// The parts of a connection that may wait for a message each.
#[derive(Clone, Copy)]
pub(super) enum Part {
    Queue = 0,
    Later = 1,
    Once = 2,
}

impl Broker {
    /// Goes on with whatever waited for messages that have come.
    pub(super) fn take_recalled(&mut self, cx: &mut Context) {
        while let Some((id, waiters)) = self.store.next_recalled(cx) {
            for waiter in waiters {
                match waiter {
                    Waiter::Conn(conn) => self.go_on(cx, conn, id),
                    Waiter::Search(search) => self.search(cx, search),
                }
            }
        }
    }

    fn go_on(&mut self, cx: &mut Context, conn: ConnId, id: u64) {
        let Some(held) = self.conn(conn) else { return };
        let Stage::Online { session, .. } = held.stage else { return };
        if let Some(reading) = held.reading_mut() {
            reading.awaited.iter_mut().filter(|awaited| **awaited == id).for_each(|at| *at = 0);
        }
        self.send_waiting(cx, conn, session);
        self.send_later(cx, conn, session);
        self.resend(cx, session);
        if let Some(held) = self.conn(conn)
            && held.reading().is_some_and(Reading::is_idle)
        {
            held.read_nothing();
        }
    }

    /// Lets a part of a connection wait for a message.
    pub(super) fn await_message(
        &mut self,
        cx: &mut Context,
        conn: ConnId,
        part: Part,
        message: &Held,
    ) {
        let Some(held) = self.conn(conn) else { return };
        let awaited = &mut held.reading_or_new().awaited[part as usize];
        if std::mem::replace(awaited, message.id) != message.id {
            self.store.ask(message, Some(Waiter::Conn(conn)), cx);
        }
    }

    /// Whether a session is to send something again first, which is being read.
    pub(super) fn awaits_resend(&mut self, slot: SlotId) -> bool {
        let conn = self.sessions.get(slot).and_then(|session| session.conn);
        conn.and_then(|conn| self.conn(conn))
            .and_then(|held| held.reading())
            .is_some_and(|reading| reading.resending.is_some())
    }

    /// Sends a message that waited for a device at QoS 0, as soon as it is in memory. There are as
    /// many as may wait for a device.
    pub(super) fn send_when_read(&mut self, cx: &mut Context, slot: SlotId, delivery: Delivery) {
        let conn = self.sessions.get(slot).and_then(|session| session.conn);
        let Some(held) = conn.and_then(|conn| self.conn(conn)) else {
            return self.settle(cx, delivery, Some(Dropped::SessionEnded));
        };
        held.reading_or_new().once.push_claimed(delivery);
        let conn = held.id;
        self.receivers_change(cx);
        self.send_waiting(cx, conn, slot);
    }

    /// A connection that waits for messages ends.
    pub(super) fn stop_reading(&mut self, cx: &mut Context, reading: Reading) {
        self.drop_waiting(cx, reading.once);
        self.drop_searches(cx, reading.searches);
    }
}

impl Reading {
    pub(super) fn is_idle(&self) -> bool {
        self.awaited == [0; 3]
            && self.resending.is_none()
            && self.once.is_empty()
            && self.searches.is_empty()
    }
}
