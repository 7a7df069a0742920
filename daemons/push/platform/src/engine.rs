//! The platform's engine: devices, messages, rules, audit, in one piece that one thread owns.
//!
//! ```text
//!   request ──► rules ──► targets ──► log (durable) ──► answered
//!                                        │
//!   device arrives ──► ready ◄───────────┘
//!                        │ throttle, hours, caps
//!                        ▼
//!                     dispatch ──► cores ──► what became of it ──► audit, counts
//! ```
//!
//! What was accepted is in the log: the message, and whom it is for. Where it stands is in the
//! audit, fact by fact; both together say after a crash who has yet to get it. A device that was
//! sent a message and whose acknowledgement was not yet written gets it once more, under the same
//! id, and is counted once: [`Copies`] count devices, not what is said of them.
//!
//! [`Engine::commit`] makes all that was done durable. Whoever is promised something is answered
//! behind it, and a message goes to no device before it.

mod accept;
mod arrive;
mod credentials;
mod deliver;
mod devices;
mod hooks;
mod lists;
mod open;
mod receipts;
mod review;
mod rewrite;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};
use roaring::RoaringBitmap;
use serde::Serialize;
use sextant_audit::{Event, EventKind, Fact, Reader, Stage, Writer};
use sextant_devices::Registry;
use sextant_policy::throttle::Rate;
use sextant_policy::{
    Counters, IdempotencyKeys, Names, Plan, Reason, Rules, Schedule, SenderQuotas, Template,
    Throttle, Zones,
};
use sextant_segment::{AppendError, BlockingLog, Position};

use crate::copies::Copies;
use crate::id::{self, Ids};
use crate::model::{State, Stored};
use crate::options::Options;
use crate::records;
use crate::refusal::Refusal;
use crate::told::{Cores, Order};

pub use accept::{DryRun, Submitted};
pub use credentials::{Credential, Keys};
pub use devices::{Generations, Imported};
pub use hooks::{DeadLetter, Hook, HookEvent};
pub use lists::ListSummary;
pub use open::{OpenError, Opened};
pub use receipts::{ReceiptEvent, ReceiptsTaken};
pub use view::{AppView, AuditView, DeviceView, Funnel, FunnelBy, MessageView, Status};

type Map<K, V> = HashMap<K, V, RandomState>;

/// What events of the audit are about: the numbers are those on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Happened {
    /// A message was asked for.
    Requested = 1,
    /// Rules looked at it.
    Judged = 2,
    /// Its target was resolved.
    Expanded = 3,
    /// It waits for a reviewer.
    Held = 4,
    /// A reviewer let it pass.
    Approved = 5,
    /// A rule or a reviewer did not, or nobody came.
    Rejected = 6,
    /// Its sender took it back before it was reviewed.
    Withdrawn = 7,
    /// Its sender took it back.
    Recalled = 8,
    /// Nobody is left whom it could go to.
    Finished = 9,
    /// An app was made.
    AppMade = 20,
    /// A credential was made.
    KeyMade = 21,
    /// A credential was removed.
    KeyRemoved = 22,
    /// A device was removed: its number is told with its id.
    DeviceRemoved = 23,
    /// A device's tokens were revoked.
    TokensRevoked = 24,
    /// The rules were changed.
    RulesChanged = 25,
    /// An app's webhook was set.
    HookSet = 26,
    /// An app's webhook was removed.
    HookRemoved = 27,
}

impl Happened {
    const ALL: [Happened; 17] = [
        Happened::Requested,
        Happened::Judged,
        Happened::Expanded,
        Happened::Held,
        Happened::Approved,
        Happened::Rejected,
        Happened::Withdrawn,
        Happened::Recalled,
        Happened::Finished,
        Happened::AppMade,
        Happened::KeyMade,
        Happened::KeyRemoved,
        Happened::DeviceRemoved,
        Happened::TokensRevoked,
        Happened::RulesChanged,
        Happened::HookSet,
        Happened::HookRemoved,
    ];

    /// The name of an event of this number.
    pub fn name_of(kind: EventKind) -> Option<&'static str> {
        let found = Happened::ALL.into_iter().find(|happened| *happened as u8 == kind.0)?;
        Some(match found {
            Happened::Requested => "requested",
            Happened::Judged => "judged",
            Happened::Expanded => "expanded",
            Happened::Held => "held",
            Happened::Approved => "approved",
            Happened::Rejected => "rejected",
            Happened::Withdrawn => "withdrawn",
            Happened::Recalled => "recalled",
            Happened::Finished => "finished",
            Happened::AppMade => "app_made",
            Happened::KeyMade => "key_made",
            Happened::KeyRemoved => "key_removed",
            Happened::DeviceRemoved => "device_removed",
            Happened::TokensRevoked => "tokens_revoked",
            Happened::RulesChanged => "rules_changed",
            Happened::HookSet => "webhook_set",
            Happened::HookRemoved => "webhook_removed",
        })
    }
}

/// A message as it is held in memory; what it says is in the log.
#[derive(Debug)]
pub(crate) struct Message {
    app: u16,
    priority: u8,
    state: State,
    /// Its numbers changed since they were last said to the log.
    changed: bool,
    record: Position,
    accepted_ms: u64,
    expires_ms: u64,
    ttl_ms: u64,
    schedule: Option<Schedule>,
    rate: Option<Rate>,
    recall_of: Option<u64>,
    list: Option<u128>,
    /// It has a collapse key.
    has_key: bool,
    copies: Copies,
}

/// What a message says, as far as it is needed to send it.
pub(crate) struct Content {
    stored: Stored,
    names: Names,
    template: Template,
    plan: Plan,
    /// What all devices get, if that is the same.
    payload: Option<bytes::Bytes>,
}

/// A device's connection, and what is on its way to it.
#[derive(Clone, Copy, Debug)]
struct Link {
    session: u64,
    core: u16,
    in_flight: u8,
    online: bool,
    /// Something waits for room among what is on its way.
    skipped: bool,
}

/// What is to be done at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A message is due.
    Due(u64),
    /// Devices of a message may have it now.
    Deferred(u64),
    /// A message came back from a device that is still there.
    Retry(u32),
    /// Nobody reviewed a message.
    Review(u64),
    /// A message's time is over.
    Expire(u64),
}

/// The platform.
pub struct Engine {
    options: Options,
    log: BlockingLog,
    audit: Writer,
    reader: Reader,
    ids: Ids,
    last: u64,
    registry: Registry,
    rules: Rules,
    zones: Zones,
    counters: Counters,
    quotas: SenderQuotas,
    idempotency: IdempotencyKeys,
    throttle: Throttle,
    credentials: credentials::Credentials,
    lists: lists::Lists,
    messages: BTreeMap<u64, Message>,
    /// Messages that are over, oldest first.
    over: VecDeque<u64>,
    /// Messages that have finished, which the log is to be told, and since when the first waits.
    finished: Vec<(u64, Vec<u8>)>,
    finished_at: u64,
    open: usize,
    /// Messages for many devices that are sent now.
    many: BTreeSet<u64>,
    /// Messages for a few devices, by each device that they wait for.
    by_device: Map<u32, Vec<u64>>,
    /// Messages with a collapse key that are not over.
    by_key: Map<(u16, Box<str>), Vec<u64>>,
    held: BTreeSet<u64>,
    /// Reviews that ended since their messages were written.
    reviews: Map<u64, sextant_policy::Review>,
    links: Map<u32, Link>,
    online: RoaringBitmap,
    /// Who is connected and is no device.
    strangers: Map<Box<str>, (u16, u64)>,
    timers: BTreeSet<(u64, Timer)>,
    deferred: BTreeMap<(u64, u64), RoaringBitmap>,
    contents: Map<u64, Arc<Content>>,
    /// Messages to begin with once they are durable.
    fresh: Vec<u64>,
    /// Answers to cores once what they said is durable.
    settled: Vec<(u16, u64, bool)>,
    /// What goes to cores.
    orders: Vec<(u16, Order)>,
    facts: Vec<Fact>,
    /// Devices whose next message is looked for.
    looks: HashSet<u32, RandomState>,
    /// Receipts of messages that only the audit knows, and may not tell of yet.
    recent: HashSet<(u64, u32, u8), RandomState>,
    generations: Generations,
    hooks: hooks::Hooks,
    /// Facts since what messages have come to was last said to the log.
    facts_since: u64,
    facts_told: u64,
    rewrite: rewrite::Rewrite,
    counted_at: u64,
    /// The log has something that is not durable.
    dirty: bool,
    audit_dirty: bool,
    failed: Option<String>,
}

/// Contents that are kept ready.
const CONTENTS_MAX: usize = 4096;
/// Campaigns that are sent at once.
const CAMPAIGNS_MAX: usize = 2_000_000;

impl Engine {
    /// The names of messages.
    pub fn ids(&self) -> &Ids {
        &self.ids
    }

    /// Asks the audit, from any thread.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// The devices.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The rules in force.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The number of an app.
    ///
    /// # Errors
    /// There is none.
    pub fn app(&self, name: &str) -> Result<u16, Refusal> {
        self.registry.app(name).ok_or(Refusal::Unknown("such app"))
    }

    /// Why nothing is taken any more, if so.
    pub fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// Appends a record to the log; durable with the next commit.
    fn append(&mut self, kind: u8, parts: &[&[u8]], now: u64) -> Result<Position, Refusal> {
        if let Some(failed) = &self.failed {
            return Err(Refusal::Unavailable(failed.clone()));
        }
        match self.log.append(kind, parts, now) {
            Ok(appended) => {
                self.dirty = true;
                Ok(appended.position)
            }
            Err(AppendError::Full | AppendError::Backlog) => {
                Err(Refusal::Full("the platform's log has no room".to_owned()))
            }
            Err(AppendError::TooLarge) => Err(Refusal::Full("a record is too large".to_owned())),
            Err(error) => Err(Refusal::Unavailable(error.to_string())),
        }
    }

    /// Says something to the log that has to be said: where it cannot be, the engine has failed.
    fn must_append(&mut self, kind: u8, parts: &[&[u8]], now: u64) {
        if let Err(error) = self.append(kind, parts, now) {
            self.fail(error.to_string());
        }
    }

    fn fail(&mut self, why: String) {
        if self.failed.is_none() {
            tracing::error!(why, "the platform takes nothing any more");
            self.failed = Some(why);
        }
    }

    /// Says what happened to the audit.
    fn event(
        &mut self,
        (message, app): (u64, u16),
        happened: Happened,
        actor: &str,
        detail: &impl Serialize,
        at: u64,
    ) {
        let detail = serde_json::to_vec(detail).expect("plain data is JSON");
        let detail = match detail.len() <= Event::DETAIL_BYTES_MAX {
            true => detail,
            false => b"{\"too_long\":true}".to_vec(),
        };
        let event = Event {
            message,
            at,
            app,
            kind: EventKind(happened as u8),
            actor: actor.chars().take(Event::ACTOR_BYTES_MAX / 4).collect::<String>().into(),
            detail: detail.into(),
        };
        // That a message has finished the log is told later, and then this is made durable.
        self.audit_dirty |= happened != Happened::Finished;
        if let Err(error) = self.audit.event(&event) {
            self.fail(format!("audit: {error}"));
        }
    }

    /// Says facts to the audit.
    fn tell_audit(&mut self) {
        if self.facts.is_empty() {
            return;
        }
        let facts = std::mem::take(&mut self.facts);
        self.facts_since += facts.len() as u64;
        self.facts_told += facts.len() as u64;
        let at_once = self.options.audit.batch_facts.max(1);
        for facts in facts.chunks(at_once) {
            if let Err(error) = self.audit.facts(facts) {
                self.fail(format!("audit: {error}"));
                break;
            }
        }
        self.facts = facts;
        self.facts.clear();
    }

    fn fact(&mut self, message: u64, app: u16, device: u32, stage: Stage, reason: u8, at: u64) {
        self.facts.push(Fact { message, at, device, app, stage, reason });
        // A batch of the audit takes as many at once.
        if self.facts.len() >= 1 << 14 {
            self.tell_audit();
        }
    }

    /// Makes all that was done durable, and lets go what waited for that: orders to cores, and
    /// messages that are new.
    ///
    /// # Errors
    /// The disk refused: nothing of what waits is promised.
    pub fn commit(&mut self, cores: &mut dyn Cores, now: u64) -> Result<(), Refusal> {
        self.tell_audit();
        // The audit first: what the log says to be over is counted whole.
        if self.audit_dirty && self.failed.is_none() {
            if let Err(error) = self.audit.flush() {
                self.fail(format!("audit: {error}"));
            }
            self.audit_dirty = false;
        }
        if self.dirty && self.failed.is_none() {
            if let Err(error) = self.log.flush() {
                self.fail(format!("log: {error}"));
            }
            self.dirty = false;
        }
        let refused = self.failed.is_some();
        for (core, ticket, was_refused) in std::mem::take(&mut self.settled) {
            cores.order(core, Order::Settled { ticket, refused: refused || was_refused });
        }
        if let Some(failed) = &self.failed {
            return Err(Refusal::Unavailable(failed.clone()));
        }
        for message in std::mem::take(&mut self.fresh) {
            self.begin(message, now);
        }
        self.give_orders(cores);
        Ok(())
    }

    fn give_orders(&mut self, cores: &mut dyn Cores) {
        for (core, order) in self.orders.drain(..) {
            cores.order(core, order);
        }
    }

    /// Whether something waits for a commit.
    pub fn needs_commit(&self) -> bool {
        self.dirty || self.audit_dirty || !self.settled.is_empty() || !self.fresh.is_empty()
    }

    /// Does what is due, and sends what may be sent. Tells when there is more to do, in
    /// milliseconds since 1970.
    pub fn run(&mut self, cores: &mut dyn Cores, now: u64) -> Option<u64> {
        if self.failed.is_some() {
            return None;
        }
        self.pass_time(now);
        self.look(now);
        let more = self.dispatch(now);
        self.tell_audit();
        self.give_orders(cores);
        if let Err(error) = self.audit.tick(now) {
            self.fail(format!("audit: {error}"));
        }
        let rewriting = self.rewrite_some(now);
        self.keep_counts(now);
        let timer = self.timers.first().map(|(at, _)| *at);
        let throttled = self.throttle.wake_at();
        match more || rewriting || !self.looks.is_empty() {
            true => Some(now),
            false => [timer, throttled].into_iter().flatten().min(),
        }
    }

    /// Ends in order: all is durable, and the logs are closed.
    ///
    /// # Errors
    /// The disk refused.
    pub fn close(mut self) -> Result<(), Refusal> {
        self.tell_audit();
        let unavailable = |error: String| Refusal::Unavailable(error);
        self.log.close().map_err(|error| unavailable(error.to_string()))?;
        self.audit.close().map_err(|error| unavailable(error.to_string()))?;
        Ok(())
    }

    /// The number of a new message.
    fn next_number(&mut self, now: u64) -> u64 {
        self.last = id::next(self.last, now);
        self.last
    }

    /// Says to the log how far a message is.
    fn set_state(&mut self, number: u64, state: State, review: Option<&Stored>, now: u64) {
        #[derive(Serialize)]
        struct Said<'a> {
            state: State,
            #[serde(skip_serializing_if = "Option::is_none")]
            review: Option<&'a sextant_policy::Review>,
        }
        let Some(message) = self.messages.get_mut(&number) else { return };
        let was_over = std::mem::replace(&mut message.state, state).is_over();
        let review = review.and_then(|stored| stored.review.as_ref());
        let json = serde_json::to_vec(&Said { state, review }).expect("plain data is JSON");
        match state {
            // What it came to is in the audit, and that has to be durable first.
            State::Finished => self.finished.push((number, json)),
            _ => {
                self.finished.retain(|(other, _)| *other != number);
                self.must_append(records::STATE, &[&number.to_le_bytes(), &json], now);
            }
        }
        if state.is_over() && !was_over {
            self.is_over(number);
        }
    }

    /// A message is over: nothing looks for it any more, and the oldest of those goes.
    fn is_over(&mut self, number: u64) {
        self.open -= 1;
        self.many.remove(&number);
        self.held.remove(&number);
        self.throttle.end(number);
        if let Some(message) = self.messages.get_mut(&number) {
            message.copies.clear_ready();
            let (app, expires_ms, list) = (message.app, message.expires_ms, message.list.take());
            let has_key = message.has_key;
            self.timers.remove(&(expires_ms, Timer::Expire(number)));
            if let Some(list) = list {
                self.lists.release(list);
            }
            if has_key {
                self.forget_key(number, app);
            }
            self.forget_devices(number);
        }
        self.over.push_back(number);
        while self.over.len() > self.options.messages_kept_max {
            if let Some(oldest) = self.over.pop_front() {
                self.messages.remove(&oldest);
                self.contents.remove(&oldest);
                self.reviews.remove(&oldest);
            }
        }
    }

    /// A message for a few devices waits for none of them any more.
    fn forget_devices(&mut self, number: u64) {
        let Some(message) = self.messages.get(&number) else { return };
        if message.copies.is_many() {
            return;
        }
        for device in message.copies.targets() {
            let Some(waiting) = self.by_device.get_mut(&device) else { continue };
            waiting.retain(|other| *other != number);
            if waiting.is_empty() {
                self.by_device.remove(&device);
            }
        }
    }

    fn forget_key(&mut self, number: u64, app: u16) {
        let Some(content) = self.content(number) else { return };
        let Some(key) = &content.stored.request.collapse_key else { return };
        let key = (app, Box::from(&**key));
        if let Some(with_key) = self.by_key.get_mut(&key) {
            with_key.retain(|other| *other != number);
            if with_key.is_empty() {
                self.by_key.remove(&key);
            }
        }
    }

    /// Drops a message for devices of it that wait, for a reason.
    fn lose(&mut self, number: u64, devices: &[u32], stage: Stage, reason: Reason, now: u64) {
        let Some(message) = self.messages.get_mut(&number) else { return };
        let app = message.app;
        let mut lost = Vec::new();
        message.copies.reach(stage, reason.code(), devices, |device| lost.push(device));
        message.changed = true;
        for device in lost {
            self.fact(number, app, device, stage, reason.code(), now);
        }
    }

    /// A message whose devices are all done is over.
    fn finish_if_settled(&mut self, number: u64, now: u64) {
        let Some(message) = self.messages.get(&number) else { return };
        if message.state != State::Running || !message.copies.is_settled() {
            return;
        }
        self.set_state(number, State::Finished, None, now);
    }
}
