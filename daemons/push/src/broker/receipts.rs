//! What is known of pushed messages, on the core that took them in. As many are kept as
//! configured; the oldest go first.

use std::collections::VecDeque;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use sextant_segment::Position;

use super::records::{self, Fact, Progress, put_receipt};
use super::store::Store;
use crate::control::Receipt;

struct Kept {
    receipt: Receipt,
    /// Its record, which the log's facts go on from.
    record: (Position, u32),
}

/// Receipts by the identifier of their message.
pub(super) struct Receipts {
    kept: HashMap<u128, Kept, RandomState>,
    /// Oldest first; an identifier that is kept no more may still be named here.
    order: VecDeque<u128>,
    max: usize,
}

impl Receipts {
    pub(super) fn new(max: usize) -> Receipts {
        Receipts { kept: HashMap::default(), order: VecDeque::new(), max: max.max(1) }
    }

    pub(super) fn get(&self, id: u128) -> Option<&Receipt> {
        self.kept.get(&id).map(|kept| &kept.receipt)
    }

    /// Keeps a receipt whose record was appended, and drops the oldest past the limit.
    pub(super) fn insert(&mut self, receipt: Receipt, record: (Position, u32), store: &mut Store) {
        self.order.push_back(receipt.id);
        self.kept.insert(receipt.id, Kept { receipt, record });
        while self.kept.len() > self.max {
            let Some(id) = self.order.pop_front() else { return };
            self.remove(id, store);
        }
    }

    pub(super) fn remove(&mut self, id: u128, store: &mut Store) {
        if let Some(kept) = self.kept.remove(&id) {
            let (position, bytes) = kept.record;
            store.log.retire(position, bytes);
        }
    }

    /// Notes that a message moved on, on disk too.
    pub(super) fn advance(&mut self, id: u128, progress: Progress, at: u64, store: &mut Store) {
        if let Some(kept) = self.kept.get_mut(&id) {
            apply(&mut kept.receipt, progress, at);
            store.fact(&Fact::Receipt(id, progress, at));
        }
    }

    /// Writes a receipt anew if its record is the one at `position`.
    pub(super) fn relocate(
        &mut self,
        id: u128,
        position: Position,
        store: &mut Store,
        unix_ms: u64,
    ) -> Result<(), sextant_segment::AppendError> {
        let Some(kept) = self.kept.get_mut(&id).filter(|kept| kept.record.0 == position) else {
            return Ok(());
        };
        let mut content = Vec::new();
        put_receipt(&kept.receipt, &mut content);
        kept.record = store.replace(records::RECEIPT, &content, Some(kept.record), unix_ms)?;
        Ok(())
    }
}

/// Moves a receipt on.
pub(super) fn apply(receipt: &mut Receipt, progress: Progress, at: u64) {
    match progress {
        Progress::Recipients(count) => receipt.recipients += count,
        Progress::Sent => {
            receipt.sent += 1;
            receipt.sent_at.get_or_insert(at);
        }
        Progress::Acknowledged => {
            receipt.acknowledged += 1;
            receipt.acknowledged_at = Some(at);
        }
        Progress::Expired(count) => {
            receipt.expired += count;
            receipt.expired_at.get_or_insert(at);
        }
        Progress::Dropped => receipt.dropped += 1,
    }
}
