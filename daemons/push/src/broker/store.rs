//! What this core keeps on disk: its log, the messages that somebody is to get, the small changes
//! of this turn, and whatever has to wait until they are durable.
//!
//! Nothing here is sent or acknowledged. A caller says what has to be remembered, in order, and
//! puts what may only be done afterwards behind a [`Gated`]: it comes out of
//! [`Store::next_open`] once everything said before it may be acknowledged.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use sextant_mqtt::{PacketId, QoS};
use sextant_ring::core::ConnId;
use sextant_ring::driver::{FileDone, Files};
use sextant_ring::slot::SlotId;
use sextant_ring::time::Clock;
use sextant_ring::wheel::TimerId;
use sextant_segment::{AppendError, Appended, Log, Position, Progress, ReadError, Seq};

use super::message::Held;
use super::recall::Recall;
use super::records::{self, Fact, MessageRecord, Recipient, RecipientLists, Unreadable};
use crate::auth::Principal;

/// What waits until the disk has what was said before it.
#[derive(Debug)]
pub(super) enum Gated {
    /// One part of a ticket is done.
    Part(SlotId),
    /// A QoS 2 PUBLISH may be sent to this session on this connection.
    Publish { session: SlotId, conn: ConnId, packet_id: PacketId, dup: bool },
    /// A PUBREL may be sent to this session on this connection.
    Release { session: SlotId, conn: ConnId, packet_id: PacketId },
    /// A connection whose client began anew may go on: its old session is gone for good.
    Connect(ConnId, Principal),
    /// A message may be relayed to other cores.
    Relay(Box<super::publish::Relay>),
}

/// Facts in one record, until one more makes it full. A record may be twice as long and more,
/// however short the packets are that clients may send.
const FACTS_BYTES: usize = 32 * 1024;

/// A log, and what is known of its content.
pub(super) struct Store {
    pub(super) log: Log,
    pub(super) held: HashMap<u64, Rc<Held>, RandomState>,
    pub(super) recall: Recall,
    /// Records of facts that have yet to be appended; never an empty one.
    facts: VecDeque<Vec<u8>>,
    /// Whether somebody waits for them.
    facts_hurry: bool,
    /// One of them says how far another core's messages were taken in.
    marks: bool,
    /// Memory for the next of them.
    spare: Vec<u8>,
    /// Of messages that are gone.
    timers: Vec<TimerId>,
    /// Opened by the record that the facts of this turn will be in.
    unplaced: Vec<Gated>,
    gates: VecDeque<(Seq, Gated)>,
    scratch: Vec<u8>,
    unix_ms: u64,
    /// Facts that could not be appended, in a row.
    stuck_turns: u32,
    life: Life,
}

/// How far it is with saying that this life began. Before that is durable no other core may hear
/// of anything by its name in this life: a crash could make the next life name it so again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Unsaid,
    /// Among the facts that have no record yet.
    Saying,
    /// By a record up to this one.
    Said(Seq),
    Durable,
}

/// Why a held message could not be read back.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Record(#[from] Unreadable),
    /// That was tried, and told, a moment ago.
    #[error("the message could not be read back")]
    Unreadable,
}

impl Store {
    pub(super) fn new(log: Log) -> Store {
        Store {
            log,
            held: HashMap::default(),
            recall: Recall::default(),
            facts: VecDeque::new(),
            facts_hurry: false,
            marks: false,
            spare: Vec::new(),
            timers: Vec::new(),
            unplaced: Vec::new(),
            gates: VecDeque::new(),
            scratch: Vec::new(),
            unix_ms: 0,
            stuck_turns: 0,
            life: Life::Unsaid,
        }
    }

    /// Says that a life begins.
    pub(super) fn begin_life(&mut self, life: u64) {
        self.fact(&Fact::Life(life));
        self.life = Life::Saying;
    }

    /// Messages that somebody is to get.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    pub(super) fn find(&self, id: u64) -> Option<&Rc<Held>> {
        self.held.get(&id)
    }

    /// Remembers a small change.
    pub(super) fn fact(&mut self, fact: &Fact) {
        self.facts_together(std::slice::from_ref(fact));
    }

    /// Remembers small changes of which the disk has all or none.
    pub(super) fn facts_together(&mut self, together: &[Fact]) {
        self.marks |= together.iter().any(|fact| matches!(fact, Fact::OriginMark(..)));
        match self.facts.back_mut().filter(|facts| facts.len() < FACTS_BYTES) {
            Some(facts) => together.iter().for_each(|fact| fact.put(facts)),
            None => {
                let mut facts = std::mem::take(&mut self.spare);
                together.iter().for_each(|fact| fact.put(&mut facts));
                self.facts.push_back(facts);
            }
        }
    }

    /// Puts something behind everything that was said so far.
    pub(super) fn gate(&mut self, gated: Gated) {
        self.hurry();
        if self.facts.is_empty() {
            self.gates.push_back((self.log.last(), gated));
        } else {
            self.unplaced.push(gated);
        }
    }

    /// Has everything that was said so far on disk soon, though nothing waits for that.
    pub(super) fn hurry(&mut self) {
        if self.facts.is_empty() {
            self.log.hurry();
        } else {
            self.facts_hurry = true;
        }
    }

    /// Whether something that is in the log may not be acknowledged yet.
    pub(super) fn is_behind(&self) -> bool {
        self.log.ackable() < self.log.last()
    }

    /// Things that wait for the disk.
    pub(super) fn gated(&self) -> usize {
        self.gates.len() + self.unplaced.len()
    }

    /// The next thing that need not wait any more.
    pub(super) fn next_open(&mut self) -> Option<Gated> {
        let ackable = self.log.ackable();
        let (seq, gated) = self.gates.front()?;
        if *seq > ackable {
            return None;
        }
        if matches!(gated, Gated::Relay(_)) && self.life != Life::Durable {
            return None;
        }
        self.gates.pop_front().map(|(_, gated)| gated)
    }

    /// Takes everything that waits for a log which will not go on.
    pub(super) fn take_gates(&mut self) -> Vec<Gated> {
        self.facts.clear();
        let waiting = self.gates.drain(..).map(|(_, gated)| gated);
        waiting.chain(self.unplaced.drain(..)).collect()
    }

    /// Keeps a message for those whom its record names. Its record comes before the changes of
    /// this turn, with two exceptions. If it is a topic's retained one, they say that the one before
    /// it went. And if another core relayed it, it says that all which that core relayed before was
    /// taken in, so that any of them which is among the changes comes first. The caller drops its
    /// own reference by [`Store::release`], as do all who get one.
    pub(super) fn keep(
        &mut self,
        mut record: MessageRecord,
        payload: &[u8],
        unix_ms: u64,
    ) -> Result<Rc<Held>, AppendError> {
        self.unix_ms = unix_ms;
        let behind_facts = record.retained || record.origin.is_some() && self.marks;
        if behind_facts && !self.place_facts(unix_ms) {
            return Err(AppendError::Backlog);
        }
        if record.recipients.len() > records::INLINE_MAX {
            record.listed = self.list(std::mem::take(&mut record.recipients), unix_ms)?;
        }
        self.scratch.clear();
        record.put_head(payload.len(), &mut self.scratch);
        let parts: [&[u8]; 2] = [&self.scratch, payload];
        let Appended { seq, position, stored_bytes } =
            self.log.append(records::MESSAGE, &parts, unix_ms)?;
        let bytes = record.topic.len() + record.forward.len() + payload.len();
        let held = Rc::new(Held {
            id: seq.0,
            position: Cell::new(position),
            stored_bytes: Cell::new(stored_bytes),
            bytes: bytes as u32,
            expires_at: record.expires_at,
            qos: QoS::from_u8(record.qos).unwrap_or(QoS::AtMostOnce),
            topic: record.topic_to_remember(),
            timer: Cell::new(None),
            expired: Cell::new(false),
            queued_in: RefCell::default(),
            receipt: record.receipt,
            waits_for: record.waits_for,
            retained: record.retained,
            pushed: None,
        });
        self.held.insert(seq.0, Rc::clone(&held));
        Ok(held)
    }

    /// Appends who the next record's message is for, and tells in how many records.
    fn list(&mut self, recipients: Vec<Recipient>, unix_ms: u64) -> Result<u64, AppendError> {
        let mut listed = 0;
        for list in RecipientLists::new(recipients) {
            let appended = self.log.append(records::RECIPIENTS, &[&list], unix_ms)?;
            self.log.retire(appended.position, appended.stored_bytes);
            listed += 1;
        }
        Ok(listed)
    }

    /// All messages that somebody is to get, oldest first. Each is to be released.
    pub(super) fn all_held(&self) -> Vec<Rc<Held>> {
        let mut held: Vec<Rc<Held>> = self.held.values().cloned().collect();
        held.sort_unstable_by_key(|held| held.id);
        held
    }

    /// Takes a message in that recovery found.
    pub(super) fn restore(&mut self, held: Held) -> Rc<Held> {
        let held = Rc::new(held);
        self.held.insert(held.id, Rc::clone(&held));
        held
    }

    /// Timers of messages that are gone, to be disarmed.
    pub(super) fn take_timers(&mut self) -> Vec<TimerId> {
        std::mem::take(&mut self.timers)
    }

    /// Gives a reference up; with the last one the message's record is dead.
    #[allow(clippy::needless_pass_by_value)] // The reference is what is given up.
    pub(super) fn release(&mut self, held: Rc<Held>) {
        // One in the table, and this one; the platform's are in none.
        if Rc::strong_count(&held) == 2 && held.pushed.is_none() {
            self.held.remove(&held.id);
            self.recall.forget(held.id);
            self.timers.extend(held.timer.take());
            self.log.retire(held.position.get(), held.stored_bytes.get());
        }
    }

    /// Appends a message's record again, in place of the one at its position.
    pub(super) fn move_message(
        &mut self,
        held: &Held,
        record: &MessageRecord,
        unix_ms: u64,
    ) -> Result<(), AppendError> {
        self.scratch.clear();
        record.put_head(record.payload.len(), &mut self.scratch);
        let parts: [&[u8]; 2] = [&self.scratch, &record.payload];
        let appended = self.log.relocate(records::MESSAGE, &parts, unix_ms)?;
        self.log.retire(held.position.get(), held.stored_bytes.get());
        held.position.set(appended.position);
        held.stored_bytes.set(appended.stored_bytes);
        Ok(())
    }

    /// Appends a whole record, in place of `before`, for which it may use the room that is kept
    /// for moving things.
    pub(super) fn replace(
        &mut self,
        kind: u8,
        content: &[u8],
        before: Option<(Position, u32)>,
        unix_ms: u64,
    ) -> Result<(Position, u32), AppendError> {
        // What was said of it before stays before.
        if !self.place_facts(unix_ms) {
            return Err(AppendError::Backlog);
        }
        let parts: [&[u8]; 1] = [content];
        let appended = match before {
            Some(_) => self.log.relocate(kind, &parts, unix_ms)?,
            None => self.log.append(kind, &parts, unix_ms)?,
        };
        if let Some((position, bytes)) = before {
            self.log.retire(position, bytes);
        }
        Ok((appended.position, appended.stored_bytes))
    }

    /// Appends the facts so far; whether it could. They take the room that is kept for
    /// moving things: most of them say that something is no longer needed.
    pub(super) fn place_facts(&mut self, unix_ms: u64) -> bool {
        while let Some(facts) = self.facts.front() {
            let Ok(appended) = self.log.relocate(records::FACTS, &[facts], unix_ms) else {
                self.stuck_turns += 1;
                return false;
            };
            // Relocation never needs them: they are dead once the records around them are.
            self.log.retire(appended.position, appended.stored_bytes);
            if let Some(mut facts) = self.facts.pop_front() {
                facts.clear();
                self.spare = facts;
            }
        }
        self.stuck_turns = 0;
        self.marks = false;
        let last = self.log.last();
        if std::mem::take(&mut self.facts_hurry) {
            self.log.hurry();
        }
        if self.life == Life::Saying {
            self.life = Life::Said(last);
        }
        self.gates.extend(self.unplaced.drain(..).map(|gated| (last, gated)));
        true
    }

    /// Whether the disk has not taken this core's changes for some turns, so that no more should
    /// be let in.
    pub(super) fn is_stuck(&self) -> bool {
        self.stuck_turns > 0 && self.facts.iter().map(Vec::len).sum::<usize>() >= FACTS_BYTES / 2
    }

    /// Starts the commit of what this turn brought.
    pub(super) fn end_turn(&mut self, files: &mut impl Files, clock: Clock) {
        self.unix_ms = clock.unix_ms;
        self.place_facts(clock.unix_ms);
        if self.life != Life::Durable {
            // Whatever the log's durability; and what is appended meanwhile revokes it.
            self.log.settle();
        }
        self.log.commit(files, clock.now);
    }

    pub(super) fn handle(
        &mut self,
        done: FileDone,
        files: &mut impl Files,
        clock: Clock,
    ) -> Progress {
        let progress = self.log.handle(done, files, clock.now);
        if let Life::Said(seq) = self.life
            && seq <= self.log.durable()
        {
            self.life = Life::Durable;
        }
        progress
    }

    /// Whether everything that was said is durable, and nothing waits.
    pub(super) fn is_settled(&self) -> bool {
        self.log.is_settled() && (self.log.read_only().is_some() || self.facts.is_empty())
    }
}
