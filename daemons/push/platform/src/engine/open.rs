//! Opening the platform: its log says what there is, its audit how far that has come.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;

use hashbrown::HashSet;
use roaring::RoaringBitmap;
use sextant_audit::{Stage, Writer};
use sextant_devices::{LimitError, Registry};
use sextant_policy::decide::Draft;
use sextant_policy::{Counters, IdempotencyKeys, Reason, SenderQuotas, Throttle, Zones};
use sextant_segment::{BlockingLog, Durability, Record};

use super::credentials::Credentials;
use super::hooks::Hooks;
use super::lists::Lists;
use super::rewrite::Rewrite;
use super::{CAMPAIGNS_MAX, Engine, Generations, Happened, Map, Message, Timer};
use crate::copies::Copies;
use crate::id::{Ids, KEY_BYTES};
use crate::model::{State, Stored};
use crate::options::Options;
use crate::records::{self, Take, Unreadable};
use crate::refusal::Refusal;

/// What opening found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// There was none before.
    pub created: bool,
    /// Devices.
    pub devices: u32,
    /// Messages that are not over.
    pub open: usize,
    /// Facts that were read of the audit.
    pub scanned: u64,
}

/// Why the platform cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The operator's: limits of the registry that cannot be.
    #[error("platform.devices: {0:?}")]
    Limits(LimitError),
    /// The log.
    #[error("the platform's log: {0}")]
    Log(#[from] sextant_segment::OpenError),
    /// What was durable is damaged.
    #[error("the platform's log is damaged: {0}")]
    Damaged(String),
    /// A record is of another version, or contradicts those before it.
    #[error("record {seq} of the platform's log: {why}")]
    Record {
        /// Its number.
        seq: u64,
        /// What is wrong with it.
        why: String,
    },
    /// The audit.
    #[error("the audit: {0}")]
    Audit(#[from] sextant_audit::OpenError),
    /// The rules name more than can be counted.
    #[error("{0}")]
    Rules(#[from] sextant_policy::counters::TooManyRules),
    /// The file system, or the system's randomness.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// What the log has said so far.
struct Replay {
    key: Option<[u8; KEY_BYTES]>,
    registry: Registry,
    counters: Counters,
    quotas: SenderQuotas,
    credentials: Credentials,
    lists: Lists,
    messages: BTreeMap<u64, Replayed>,
    targets: Map<u64, RoaringBitmap>,
    scanned: u64,
    last: u64,
    generations: Generations,
    hooks: Hooks,
}

struct Replayed {
    message: Message,
    stored: Stored,
}

impl Engine {
    /// Opens the platform in its directory, or makes a new one there. Blocks: it reads the log, and
    /// what the audit has since the log was last told how far messages are.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(options: Options, draft: Draft, now: u64) -> Result<(Engine, Opened), OpenError> {
        std::fs::create_dir_all(options.dir.join("log"))?;
        std::fs::create_dir_all(options.dir.join("audit"))?;
        let log_options = sextant_segment::Options {
            bytes_max: options.log_bytes_max,
            segment_bytes_min: 4 << 20,
            record_bytes_max: 1 << 20,
            hot_bytes: 8 << 20,
            durability: Durability::Always,
            ..sextant_segment::Options::new(random()?, 0)
        };
        let (log, recovery) = BlockingLog::open(&options.dir.join("log"), log_options)?;
        if let Some(corruption) = recovery.read_only {
            return Err(OpenError::Damaged(corruption.to_string()));
        }
        let (audit, reader, audit_opened) =
            Writer::open(&options.dir.join("audit"), options.audit.clone())?;
        let mut zones = Zones::new();
        let mut counters = Counters::new(options.counters);
        let keys = draft.policy().keys.clone();
        let rules = draft.adopt(&mut zones, &mut counters)?;
        let registry = Registry::new(options.devices.clone()).map_err(OpenError::Limits)?;
        let mut replay = Replay {
            key: None,
            registry,
            counters,
            quotas: SenderQuotas::new(),
            credentials: Credentials::default(),
            lists: Lists::default(),
            messages: BTreeMap::new(),
            targets: Map::default(),
            scanned: 0,
            last: 0,
            generations: Generations::default(),
            hooks: Hooks::default(),
        };
        let zone = zones.get(rules.zone());
        let mut cursor = log.log().records();
        while let Some(record) = cursor.next(log.log()) {
            let record = record.map_err(|error| OpenError::Damaged(error.to_string()))?;
            let seq = record.seq.0;
            replay
                .take(&record, zone, now)
                .map_err(|why| OpenError::Record { seq, why: why.to_string() })?;
        }
        let Replay { key, registry, counters, quotas, credentials, lists, messages, .. } = replay;
        let is_new = key.is_none();
        let mut fresh_key = [0; KEY_BYTES];
        getrandom::fill(&mut fresh_key).map_err(io::Error::other)?;
        let key = key.unwrap_or(fresh_key);
        let keep_ms = u64::try_from(keys.idempotency_keep.get().as_millis()).unwrap_or(u64::MAX);
        let mut engine = Engine {
            ids: Ids::new(key),
            last: replay.last,
            registry,
            zones,
            counters,
            quotas,
            idempotency: IdempotencyKeys::new(keep_ms, keys.idempotency_max as usize),
            throttle: Throttle::new(CAMPAIGNS_MAX),
            credentials,
            lists,
            messages: BTreeMap::new(),
            over: VecDeque::new(),
            finished: Vec::new(),
            finished_at: now,
            open: 0,
            many: BTreeSet::new(),
            by_device: Map::default(),
            by_key: Map::default(),
            held: BTreeSet::new(),
            reviews: Map::default(),
            links: Map::default(),
            online: RoaringBitmap::new(),
            strangers: Map::default(),
            timers: BTreeSet::new(),
            deferred: BTreeMap::new(),
            contents: Map::default(),
            fresh: Vec::new(),
            settled: Vec::new(),
            orders: Vec::new(),
            facts: Vec::new(),
            looks: HashSet::default(),
            recent: HashSet::default(),
            generations: replay.generations,
            hooks: replay.hooks,
            facts_since: 0,
            facts_told: audit_opened.facts,
            rewrite: Rewrite::default(),
            counted_at: now,
            dirty: false,
            audit_dirty: false,
            failed: None,
            rules,
            log,
            audit,
            reader,
            options,
        };
        if is_new {
            engine.must_append(records::KEY_OF_IDS, &[&key], now);
        }
        engine.set_rates(now);
        let scanned = engine.resume(messages, replay.scanned, now);
        engine.rewrite.begin_with(engine.log.log().file_bytes());
        let opened = Opened {
            created: recovery.created,
            devices: engine.registry.len(),
            open: engine.open,
            scanned,
        };
        Ok((engine, opened))
    }

    /// Tells the throttle how fast all and each app may be.
    pub(super) fn set_rates(&mut self, now: u64) {
        self.throttle.set_overall(self.rules.overall_rate(), now);
        for number in 0..self.registry.apps().count() {
            let number = u16::try_from(number).expect("apps are numbered so");
            let Some(name) = self.registry.app_name(number) else { continue };
            let rate = self.rules.app_rate(name);
            self.throttle.set_app(number, rate, now);
        }
    }

    /// Makes other rules hold from now on, also for messages that wait.
    ///
    /// # Errors
    /// There were too many caps and quotas since the start; the rules are those of before.
    pub fn set_rules(&mut self, draft: Draft, now: u64) -> Result<(), Refusal> {
        let rules = draft
            .adopt(&mut self.zones, &mut self.counters)
            .map_err(|error| Refusal::Conflict(error.to_string()))?;
        self.rules = rules;
        // What is kept ready to be sent was planned by the rules of before.
        self.contents.clear();
        self.set_rates(now);
        let rules = serde_json::json!({});
        self.event((0, 0), Happened::RulesChanged, "", &rules, now);
        Ok(())
    }

    /// Goes on with the messages of the log, as far as the audit says they have come.
    fn resume(&mut self, messages: BTreeMap<u64, Replayed>, from: u64, now: u64) -> u64 {
        let mut stored_of = Vec::new();
        for (number, Replayed { message, stored }) in messages {
            if let Some(key) = &stored.request.idempotency_key {
                // One that was taken is another message's, which was first.
                let _ = self.idempotency.claim(stored.app, key, number, stored.accepted_ms);
            }
            self.messages.insert(number, message);
            stored_of.push((number, stored));
        }
        let reader = self.reader.clone();
        let (mut facts, mut run) = (0, Vec::new());
        let scanned = reader.scan_facts(from, |_, fact| {
            run.push(*fact);
            facts += 1;
            if run.len() == 1 << 16 {
                self.count_again(&mut run);
            }
        });
        self.count_again(&mut run);
        self.facts_since = facts;
        if !scanned.unreadable.is_empty() {
            tracing::warn!(places = scanned.unreadable.len(), "the audit cannot be read whole");
        }
        for (number, stored) in stored_of {
            self.resume_one(number, &stored, now);
        }
        facts
    }

    /// Counts what the audit says, without saying it again.
    fn count_again(&mut self, facts: &mut Vec<sextant_audit::Fact>) {
        for run in facts.chunk_by(|a, b| {
            (a.message, a.stage, a.reason, a.at) == (b.message, b.stage, b.reason, b.at)
        }) {
            let first = run[0];
            let Some(message) = self.messages.get_mut(&first.message) else { continue };
            let mut devices: Vec<u32> = run.iter().map(|fact| fact.device).collect();
            devices.sort_unstable();
            devices.dedup();
            message.reach(first.stage, first.reason, &devices, first.at, |_| {});
        }
        facts.clear();
    }

    fn resume_one(&mut self, number: u64, stored: &Stored, now: u64) {
        let Some(message) = self.messages.get_mut(&number) else { return };
        message.changed = false;
        if let Some(review) = stored.review.as_ref().filter(|_| message.state != State::Held) {
            self.reviews.insert(number, review.clone());
        }
        self.open += 1;
        if message.state.is_over() {
            // What was on its way to devices when it was taken back.
            let open: Vec<u32> = match message.state {
                State::Recalled => message.copies.pending().iter().collect(),
                _ => Vec::new(),
            };
            self.lose(number, &open, Stage::Recalled, Reason::Recalled, now);
            return self.is_over(number);
        }
        let (state, expires_ms, list) = (message.state, message.expires_ms, message.list);
        let (app, has_key) = (message.app, message.has_key);
        if let Some(list) = list {
            self.lists.hold(list);
        }
        if has_key && let Some(key) = &stored.request.collapse_key {
            self.by_key.entry((app, Box::from(&**key))).or_default().push(number);
        }
        match state {
            State::Held => {
                self.held.insert(number);
                let expires = stored.review.as_ref().map_or(now, |review| review.expires_ms);
                self.timers.insert((expires, Timer::Review(number)));
            }
            _ => {
                self.timers.insert((expires_ms, Timer::Expire(number)));
                self.fresh.push(number);
            }
        }
    }
}

impl Replay {
    fn take(
        &mut self,
        record: &Record,
        zone: &sextant_policy::Zone,
        now: u64,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let mut from = Take(&record.payload);
        match record.kind {
            records::KEY_OF_IDS => {
                self.key = Some(from.rest().try_into().map_err(|_| Unreadable)?);
            }
            records::REGISTRY => self.registry.replay(&record.payload)?,
            records::CREDENTIAL => self.credentials.replay(&record.payload)?,
            records::GONE_CREDENTIAL => self.credentials.replay_gone(&record.payload)?,
            records::COUNTERS => self.counters.replay(&record.payload, now)?,
            records::QUOTA => self.quotas.replay(&record.payload, now, zone)?,
            records::HOOK | records::DEAD_LETTER | records::GONE_HOOK => {
                self.hooks.replay(record.kind, &record.payload)?;
            }
            records::GENERATION => {
                let least = from.u32()?;
                self.generations.set(std::str::from_utf8(from.rest())?, least);
            }
            records::SCANNED => self.scanned = from.u64()?,
            records::TARGETS => {
                let number = from.u64()?;
                let part = records::bitmap_of(from.rest())?;
                *self.targets.entry(number).or_default() |= part;
            }
            records::MESSAGE => self.message(record)?,
            records::STATE => self.state(from)?,
            records::REACHED => {
                let (number, stage) = (from.u64()?, from.u8()?);
                let part = records::bitmap_of(from.rest())?;
                if let Some(Replayed { message, .. }) = self.messages.get_mut(&number) {
                    message.copies.restore(stage, &part);
                }
            }
            records::TOLD => {
                let number = from.u64()?;
                let told = serde_json::from_slice(from.rest())?;
                if let Some(Replayed { message, .. }) = self.messages.get_mut(&number) {
                    message.copies.restore_told(told);
                }
            }
            records::FEW => {
                while !from.0.is_empty() {
                    let (number, count) = (from.u64()?, from.u8()?);
                    for _ in 0..count {
                        let (device, bits, reason) = (from.u32()?, from.u16()?, from.u8()?);
                        if let Some(Replayed { message, .. }) = self.messages.get_mut(&number) {
                            message.copies.restore_one(device, bits, reason);
                        }
                    }
                }
            }
            records::LIST | records::LISTED | records::VARS | records::GONE_LIST => {
                self.lists.replay(record)?;
            }
            _ => return Err(Unreadable.into()),
        }
        Ok(())
    }

    fn message(&mut self, record: &Record) -> Result<(), Box<dyn std::error::Error>> {
        let mut from = Take(&record.payload);
        let number = from.u64()?;
        let bytes = from.u32()? as usize;
        let own = from.bytes(bytes)?;
        let stored: Stored = serde_json::from_slice(from.rest())?;
        let targets = match (own.is_empty(), self.targets.remove(&number)) {
            (true, in_parts) => in_parts.unwrap_or_default(),
            (false, _) => records::bitmap_of(own)?,
        };
        self.last = self.last.max(number);
        // It was written anew: what is known of it goes on.
        if let Some(known) = self.messages.get_mut(&number) {
            known.message.record = record.position;
            return Ok(());
        }
        let message = Message::of(&stored, targets, record.position)?;
        self.messages.insert(number, Replayed { message, stored });
        Ok(())
    }

    fn state(&mut self, mut from: Take<'_>) -> Result<(), Box<dyn std::error::Error>> {
        #[derive(serde::Deserialize)]
        struct Said {
            state: State,
            review: Option<sextant_policy::Review>,
        }
        let number = from.u64()?;
        let said: Said = serde_json::from_slice(from.rest())?;
        if let Some(Replayed { message, stored }) = self.messages.get_mut(&number) {
            message.state = said.state;
            if said.review.is_some() {
                stored.review = said.review;
            }
        }
        Ok(())
    }
}

impl Message {
    /// A message as its record says it.
    pub(super) fn of(
        stored: &Stored,
        targets: RoaringBitmap,
        record: sextant_segment::Position,
    ) -> Result<Message, Unreadable> {
        let schedule = match &stored.request.schedule {
            None => None,
            Some(when) => Some(when.parse().map_err(|_| Unreadable)?),
        };
        let is_held = stored.review.is_some();
        let rate = stored.request.rate.and_then(sextant_policy::throttle::Rate::per_second);
        let list = match &stored.request.target {
            crate::model::Target::List(list) => Some(list.as_u128()),
            _ => None,
        };
        Ok(Message {
            app: stored.app,
            priority: stored.priority,
            state: if is_held { State::Held } else { State::Scheduled },
            changed: false,
            record,
            accepted_ms: stored.accepted_ms,
            expires_ms: stored.expires_ms,
            ttl_ms: stored.ttl_ms,
            schedule,
            rate,
            recall_of: stored.recall_of,
            list,
            has_key: stored.request.collapse_key.is_some(),
            copies: Copies::new(targets),
        })
    }

    /// Devices, which ascend, reached a stage at a time; calls `each` for those that had not.
    pub(super) fn reach(
        &mut self,
        stage: Stage,
        reason: u8,
        devices: &[u32],
        at: u64,
        mut each: impl FnMut(u32),
    ) -> u32 {
        let mut count = 0;
        self.copies.reach(stage, reason, devices, |device| {
            count += 1;
            each(device);
        });
        if count > 0 {
            self.changed = true;
            let due = match self.schedule {
                None => Some(self.accepted_ms),
                Some(sextant_policy::Schedule::At(due)) => Some(due.max(self.accepted_ms)),
                Some(sextant_policy::Schedule::Local(_)) => None,
            };
            let latency =
                due.filter(|_| stage == Stage::Acknowledged).map(|due| at.saturating_sub(due));
            self.copies.count_at(stage, at, latency, count);
        }
        count
    }
}

fn random() -> Result<u64, io::Error> {
    getrandom::u64().map_err(io::Error::other)
}
