//! Keeping the log small: what is still needed of its oldest segment is appended again, a little
//! each turn, and the segment is freed once that is durable.
//!
//! Needed are: messages that somebody is to get, the last record of each session, the last of each
//! receipt, and wills that may be published yet. Small facts are not: each goes on from one of those
//! records in the same segment or an earlier one, and all of these are written anew here before the
//! segment goes.

use std::rc::Rc;

use sextant_segment::{AppendError, Record, SegmentId, Sweep, Swept};
use tracing::{error, warn};

use super::records::{self, Fact, MessageRecord, Unreadable};
use super::{Broker, Context};

/// A segment that is being freed.
pub(super) struct Compaction {
    segment: SegmentId,
    sweep: Sweep,
    /// All that is needed of it was appended again.
    moved: bool,
    /// And what is known of other cores was said again.
    told: bool,
}

/// Records of the oldest segment that one turn looks at.
const RECORDS_A_TURN: usize = 256;
/// Bytes that one turn appends again.
const BYTES_A_TURN: usize = 256 * 1024;

#[derive(Debug, thiserror::Error)]
enum MoveError {
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Read(#[from] sextant_segment::ReadError),
    #[error(transparent)]
    Record(#[from] Unreadable),
}

impl Broker {
    /// Begins to free the oldest segment when that is worth it: nothing in it is needed, most of
    /// the log is not, or the log is near its limit.
    pub(super) fn consider_compaction(&mut self, stored_bytes: u64, live_bytes: u64) {
        let log = &mut self.store.log;
        if self.compaction.is_some() || log.read_only().is_some() {
            return;
        }
        let Some(oldest) = log.oldest().filter(|oldest| oldest.sealed) else { return };
        let mostly_dead = live_bytes < stored_bytes / 2;
        let nearly_full = log.file_bytes() >= self.settings.log_bytes_max / 4 * 3
            && oldest.live_bytes < oldest.stored_bytes * 9 / 10;
        if oldest.live_bytes > 0 && !mostly_dead && !nearly_full {
            return;
        }
        if let Ok(sweep) = log.sweep(oldest.id) {
            self.compaction =
                Some(Compaction { segment: oldest.id, sweep, moved: false, told: false });
        }
    }

    /// One turn's share of the work.
    pub(super) fn compact(&mut self, cx: &mut Context) {
        let Some(mut compaction) = self.compaction.take() else { return };
        if !compaction.moved {
            match self.move_some(cx, &mut compaction) {
                Ok(()) => {}
                // The disk has to catch up first.
                Err(MoveError::Append(AppendError::Backlog)) => {}
                Err(MoveError::Append(AppendError::Full)) => {
                    warn!("no room to move what the oldest segment holds");
                    return;
                }
                Err(error) => {
                    error!(%error, "the oldest segment cannot be freed");
                    return;
                }
            }
        }
        if !compaction.moved {
            self.compaction = Some(compaction);
            return;
        }
        if !std::mem::replace(&mut compaction.told, true) {
            for (core, told) in self.origins.iter().enumerate() {
                self.store.fact(&Fact::OriginMark(core as u16, *told));
            }
            self.store.fact(&Fact::Life(self.life));
        }
        if !self.store.place_facts(cx.clock().unix_ms) {
            self.compaction = Some(compaction);
            return;
        }
        let last = self.store.log.last();
        if let Err(error) = self.store.log.remove_when_durable(compaction.segment, last) {
            error!(%error, "the oldest segment cannot be freed");
        }
    }

    fn move_some(
        &mut self,
        cx: &mut Context,
        compaction: &mut Compaction,
    ) -> Result<(), MoveError> {
        let unix_ms = cx.clock().unix_ms;
        let mut bytes = 0;
        for _ in 0..RECORDS_A_TURN {
            let before = compaction.sweep.clone();
            let record = match compaction.sweep.next(&mut self.store.log, cx)? {
                Swept::Record(record) => record,
                Swept::Waiting => return Ok(()),
                Swept::Ended => {
                    compaction.moved = true;
                    return Ok(());
                }
            };
            if let Err(error) = self.move_record(&record, unix_ms) {
                compaction.sweep = before;
                return Err(error);
            }
            bytes += record.payload.len();
            if bytes >= BYTES_A_TURN {
                return Ok(());
            }
        }
        Ok(())
    }

    fn move_record(&mut self, record: &Record, unix_ms: u64) -> Result<(), MoveError> {
        match record.kind {
            records::MESSAGE => self.move_message(record, unix_ms),
            records::SESSION => {
                let number = records::SessionRecord::take(record.payload.clone())?.number;
                let slot = self.sessions.of_number(number);
                let session = slot.and_then(|slot| self.sessions.get_mut(slot));
                let current = session
                    .filter(|session| session.record.is_some_and(|(at, _)| at == record.position));
                if let Some(session) = current {
                    let mut content = Vec::new();
                    session.to_record().put(&mut content);
                    let before = session.record;
                    let placed = self.store.replace(records::SESSION, &content, before, unix_ms)?;
                    session.record = Some(placed);
                }
                Ok(())
            }
            records::WILL => {
                let said = records::WillRecord::take(record.payload.clone())?;
                self.move_will(&said, record.position, unix_ms)?;
                Ok(())
            }
            records::RECEIPT => {
                let id = records::take_receipt(record.payload.clone())?.id;
                self.receipts.relocate(id, record.position, &mut self.store, unix_ms)?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn move_message(&mut self, record: &Record, unix_ms: u64) -> Result<(), MoveError> {
        let mut message = MessageRecord::take(record.payload.clone(), record.seq.0)?;
        let Some(held) = self.store.find(message.id).cloned() else { return Ok(()) };
        if held.position.get() == record.position {
            // Whose it is, their own records say; what it came with is settled, unless it is
            // still on its way to other cores.
            (message.recipients, message.listed) = (Vec::new(), 0);
            message.publisher = message.publisher.filter(|_| self.relays.get(message.id).is_some());
            if let Some(publisher) = &mut message.publisher {
                // Its packet identifier is its session's to remember, or not any more.
                publisher.session = records::NOBODY;
            }
            message.retained =
                self.retained.get(&*message.topic).is_some_and(|kept| Rc::ptr_eq(kept, &held));
            message.waits_for = message.waits_for.filter(|device| {
                self.waiting
                    .get(&**device)
                    .is_some_and(|waiting| waiting.iter().any(|other| Rc::ptr_eq(other, &held)))
            });
            let moved = self.store.move_message(&held, &message, unix_ms);
            self.store.release(held);
            moved?;
            return Ok(());
        }
        self.store.release(held);
        Ok(())
    }
}
