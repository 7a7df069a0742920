//! What the log is told now and then: how far messages have come, what devices have had. And the
//! log written anew, a little at a time, when most of it is of messages that are over.
//!
//! ```text
//!   │ old records … │ all that holds, anew, between what happens │ what happens …
//!                   ▲                                            ▲
//!                   from here on an opening reads ◄── said here ─┘   what is before goes
//! ```

use sextant_devices::Snapshot;
use sextant_segment::{SegmentId, Seq};

use super::{Engine, Happened};
use crate::copies::Copies;
use crate::records;

/// Facts after which the log is told what messages have come to: an opening reads as many of the
/// audit again, at about 100 ns each.
const FACTS_MAX: u64 = 5_000_000;
/// A log below this is not written anew, in bytes.
const LOG_BYTES_MIN: u64 = 64 << 20;
/// Records of the registry, or messages, that one step writes.
const STEP: usize = 2000;
/// What devices have had is told to the log so often, in milliseconds.
const COUNTS_EVERY_MS: u64 = 10_000;
/// The log is told so often which messages have finished, in milliseconds.
const FINISHED_EVERY_MS: u64 = 1000;
/// Records of counters that are written at once.
const COUNTERS_AT_ONCE: usize = 4096;

/// How far writing the log anew is.
#[derive(Debug, Default)]
pub(super) struct Rewrite {
    stage: Stage,
    /// The first record of what is written anew, and the first segment that may hold it.
    from: Option<(Seq, SegmentId)>,
    /// The log's size when it was last written anew, or opened.
    bytes: u64,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Idle,
    Registry(Snapshot),
    Rest,
    Messages(u64),
    /// Written; it goes when it is durable.
    Written,
}

impl Rewrite {
    /// A log is there, of this size.
    pub(super) fn begin_with(&mut self, bytes: u64) {
        self.bytes = bytes.min(LOG_BYTES_MIN);
    }
}

impl Engine {
    /// Goes on with writing the log anew, if that is worth it; whether there is more to do at once.
    pub(super) fn rewrite_some(&mut self, now: u64) -> bool {
        match std::mem::take(&mut self.rewrite.stage) {
            Stage::Idle => self.begin_rewrite(),
            Stage::Registry(snapshot) => self.rewrite_registry(snapshot, now),
            Stage::Rest => self.rewrite_rest(now),
            Stage::Messages(after) => self.rewrite_messages(after, now),
            Stage::Written => self.end_rewrite(now),
        }
        !matches!(self.rewrite.stage, Stage::Idle)
    }

    fn begin_rewrite(&mut self) {
        let bytes = self.log.log().file_bytes();
        if bytes < LOG_BYTES_MIN.max(2 * self.rewrite.bytes) {
            return;
        }
        let Some(active) = self.log.log().segments().last().map(|info| info.id) else { return };
        self.rewrite.from = Some((Seq(self.log.log().last().0 + 1), active));
        self.rewrite.stage = Stage::Registry(Snapshot::default());
        tracing::debug!(bytes, "the platform's log is written anew");
    }

    fn rewrite_registry(&mut self, mut snapshot: Snapshot, now: u64) {
        for _ in 0..STEP {
            let Some(record) = self.registry.next_record(&mut snapshot) else {
                self.rewrite.stage = Stage::Rest;
                return;
            };
            self.must_append(records::REGISTRY, &[&record], now);
        }
        self.rewrite.stage = Stage::Registry(snapshot);
    }

    /// All that is little.
    fn rewrite_rest(&mut self, now: u64) {
        let key = self.ids.key();
        self.must_append(records::KEY_OF_IDS, &[&key], now);
        for record in self.credentials.records() {
            self.must_append(records::CREDENTIAL, &[&record], now);
        }
        for (device, least) in self.generations.all() {
            let parts: [&[u8]; 2] = [&least.to_le_bytes(), device.as_bytes()];
            self.must_append(records::GENERATION, &parts, now);
        }
        for (kind, record) in self.hooks.records() {
            self.must_append(kind, &[&record], now);
        }
        for list in self.list_ids() {
            self.rewrite_list(list, now);
        }
        self.counters.all_changed();
        self.write_counters(usize::MAX, now);
        self.write_quotas(now);
        self.rewrite.stage = Stage::Messages(0);
    }

    fn rewrite_messages(&mut self, after: u64, now: u64) {
        let numbers: Vec<u64> =
            self.messages.range(after + 1..).map(|(number, _)| *number).take(STEP).collect();
        let Some(last) = numbers.last().copied() else {
            self.rewrite.stage = Stage::Written;
            return;
        };
        for number in numbers {
            self.rewrite_message(number, now);
        }
        self.rewrite.stage = Stage::Messages(last);
    }

    fn rewrite_message(&mut self, number: u64, now: u64) {
        let Some(message) = self.messages.get(&number) else { return };
        let record = match self.log.log().load(message.record) {
            Ok(record) => record,
            Err(error) => {
                tracing::error!(message = number, %error, "a message cannot be read");
                return;
            }
        };
        let (state, targets) = (message.state, message.copies.targets());
        if !records::is_one_part(&targets) {
            for part in records::parts(&targets) {
                self.must_append(records::TARGETS, &[&number.to_le_bytes(), &part], now);
            }
        }
        match self.append(records::MESSAGE, &[&record.payload], now) {
            Ok(position) => {
                if let Some(message) = self.messages.get_mut(&number) {
                    message.record = position;
                    message.changed = true;
                }
            }
            Err(error) => return self.fail(error.to_string()),
        }
        if state.is_over() {
            let stored = self.messages.get(&number).and_then(|message| self.stored(message).ok());
            self.set_state(number, state, stored.as_ref(), now);
        } else if state == crate::model::State::Scheduled || state == crate::model::State::Running {
            // One that was held has passed its review.
            let said = serde_json::json!({"state": "scheduled"}).to_string();
            let parts: [&[u8]; 2] = [&number.to_le_bytes(), said.as_bytes()];
            self.must_append(records::STATE, &parts, now);
        }
    }

    /// What was written anew is said to be all there is, once it is durable.
    fn end_rewrite(&mut self, now: u64) {
        self.write_finished(now);
        self.write_reached(now);
        if let Err(error) = self.log.flush() {
            return self.fail(format!("log: {error}"));
        }
        let Some((from, segment)) = self.rewrite.from.take() else { return };
        // What is refused here was refused before: the log takes nothing any more.
        let _ = self.log.log_mut().checkpoint(from);
        let _ = self.log.flush();
        let before: Vec<SegmentId> = self.log.log().segments().map(|info| info.id).collect();
        for id in before.into_iter().filter(|id| *id < segment) {
            if self.log.log_mut().remove_when_durable(id, from).is_err() {
                break;
            }
        }
        if let Err(error) = self.log.write() {
            self.fail(format!("log: {error}"));
        }
        self.rewrite.bytes = self.log.log().file_bytes();
        tracing::debug!(bytes = self.rewrite.bytes, "the platform's log was written anew");
    }

    /// Tells the log what devices have had, now and then, and how far messages are, when an opening
    /// would have much to read otherwise.
    pub(super) fn keep_counts(&mut self, now: u64) {
        if self.facts_since >= FACTS_MAX {
            self.write_reached(now);
        }
        if now >= self.finished_at.saturating_add(FINISHED_EVERY_MS) {
            self.finished_at = now;
            self.write_finished(now);
        }
        if now < self.counted_at.saturating_add(COUNTS_EVERY_MS) {
            return;
        }
        self.counted_at = now;
        self.recent.clear();
        // The audit first: it says what was sent, which is not counted again.
        self.tell_audit();
        if let Err(error) = self.audit.flush() {
            return self.fail(format!("audit: {error}"));
        }
        self.write_counters(COUNTERS_AT_ONCE, now);
        self.write_quotas(now);
        self.counters.sweep(64, now);
        self.drop_lists(now);
    }

    /// Tells the log which messages have finished, once the audit has what they came to.
    fn write_finished(&mut self, now: u64) {
        if self.finished.is_empty() {
            return;
        }
        self.tell_audit();
        if let Err(error) = self.audit.flush() {
            return self.fail(format!("audit: {error}"));
        }
        for (number, json) in std::mem::take(&mut self.finished) {
            if let Some(app) = self.messages.get(&number).map(|message| message.app) {
                let counts = self.finished_counts(number);
                self.event((number, app), Happened::Finished, "", &counts, now);
            }
            self.must_append(records::STATE, &[&number.to_le_bytes(), &json], now);
        }
    }

    fn write_counters(&mut self, at_once: usize, now: u64) {
        for _ in 0..at_once {
            let Some(record) = self.counters.take_record(now) else { return };
            self.must_append(records::COUNTERS, &[&record], now);
        }
    }

    fn write_quotas(&mut self, now: u64) {
        let zone = self.zones.get(self.rules.zone());
        let quotas: Vec<Vec<u8>> = self.quotas.records(now, zone).collect();
        for record in quotas {
            self.must_append(records::QUOTA, &[&record], now);
        }
    }

    /// Tells the log how far messages have come, and that the facts of the audit up to here are in
    /// that.
    pub(super) fn write_reached(&mut self, now: u64) {
        self.tell_audit();
        if let Err(error) = self.audit.flush() {
            return self.fail(format!("audit: {error}"));
        }
        let next = self.audit.head().seq + 1;
        let messages = self.messages.iter_mut();
        let changed: Vec<u64> = messages
            .filter_map(|(number, message)| std::mem::take(&mut message.changed).then_some(*number))
            .collect();
        let mut few = Vec::new();
        for number in changed {
            let Some(message) = self.messages.get(&number) else { continue };
            if message.copies.is_many() {
                let records = many_records(number, &message.copies);
                for (kind, record) in records {
                    self.must_append(kind, &[&record], now);
                }
                continue;
            }
            put_few(number, &message.copies, &mut few);
            if few.len() > 32 << 10 {
                let record = std::mem::take(&mut few);
                self.must_append(records::FEW, &[&record], now);
            }
        }
        if !few.is_empty() {
            self.must_append(records::FEW, &[&few], now);
        }
        self.must_append(records::SCANNED, &[&next.to_le_bytes()], now);
        self.facts_since = 0;
    }
}

fn many_records(number: u64, copies: &Copies) -> Vec<(u8, Vec<u8>)> {
    let mut out = Vec::new();
    for (code, bitmap) in copies.bitmaps() {
        for part in records::parts(bitmap) {
            out.push((records::REACHED, [&number.to_le_bytes()[..], &[code], &part].concat()));
        }
    }
    let aside = serde_json::to_vec(&copies.aside()).expect("plain data is JSON");
    out.push((records::TOLD, [&number.to_le_bytes()[..], &aside].concat()));
    out
}

fn put_few(number: u64, copies: &Copies, out: &mut Vec<u8>) {
    let count = u8::try_from(copies.len()).expect("few are at most sixteen");
    out.extend_from_slice(&number.to_le_bytes());
    out.push(count);
    for (device, bits, reason) in copies.each() {
        out.extend_from_slice(&device.to_le_bytes());
        out.extend_from_slice(&bits.to_le_bytes());
        out.push(reason);
    }
}
