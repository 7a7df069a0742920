//! What is told of messages, devices and the platform as a whole.

use std::collections::BTreeMap;

use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};
use sextant_audit::{Content as Said, Fact, Query, Stage};
use sextant_devices::{By, Entry, Expression, Value};
use sextant_policy::{Reason, Review};
use uuid::Uuid;

use super::{Engine, Happened, Message};
use crate::copies::{Copies, Counts, LINES, Latency};
use crate::model::{HeldBy, State, Stored};
use crate::refusal::Refusal;
use crate::time::Time;

/// Groups of a funnel at most.
const GROUPS_MAX: usize = 50;

/// What a funnel is split by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FunnelBy {
    /// When devices reached the stages.
    Time,
    /// The app's version.
    Version,
    /// The platform.
    Platform,
    /// The language.
    Language,
    /// Tags, of which a device may have several.
    Tag,
}

/// A message as the API tells it.
#[derive(Clone, Debug, Serialize)]
pub struct MessageView {
    /// Its name.
    pub id: Uuid,
    /// Its app.
    pub app: String,
    /// How far it is.
    pub state: State,
    /// Who asked for it.
    pub sender: String,
    /// As it was asked for.
    #[serde(flatten)]
    pub request: Map<String, serde_json::Value>,
    /// Its class.
    pub class: String,
    /// 0 to 9; 9 goes first.
    pub priority: u8,
    /// Its devices.
    pub targets: u64,
    /// Names of its target that no device has.
    pub unknown: u64,
    /// When it was accepted.
    pub accepted_at: Time,
    /// When it expires for the last of its devices.
    pub expires_at: Time,
    /// The message that it takes back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recall_of: Option<Uuid>,
    /// Its review.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub review: Option<ReviewView>,
    /// What became of it.
    pub funnel: Funnel,
}

/// A review as the API tells it.
#[derive(Clone, Debug, Serialize)]
pub struct ReviewView {
    /// `held`, `approved`, `rejected`, `withdrawn` or `expired`.
    pub state: &'static str,
    /// Why it was held.
    pub reason: String,
    /// The content rule that held it, if one did.
    pub rule: Option<String>,
    /// What that says.
    pub text: String,
    /// Since when it is held.
    pub since: Time,
    /// When nobody is waited for any longer.
    pub expires_at: Time,
    /// Who ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// What they said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Numbers of distinct devices, by how far a message has come on them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Funnel {
    /// All it is for.
    pub targeted: u64,
    /// Without those to whom rules did not let it go.
    pub eligible: u64,
    /// Those for whom it had to wait.
    pub queued: u64,
    /// It was written to their connection.
    pub sent: u64,
    /// They acknowledged it.
    pub delivered: u64,
    /// It was shown.
    pub shown: u64,
    /// It was opened.
    pub clicked: u64,
    /// Its time was over.
    pub expired: u64,
    /// It was taken back before they had it.
    pub recalled: u64,
    /// They did not get it, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
    /// The sum of these.
    pub dropped_total: u64,
    /// It waits for them.
    pub pending: u64,
    /// It is on its way to them.
    pub in_flight: u64,
    /// How long it took until they had it.
    pub latency_ms: Option<LatencyView>,
    /// By time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub series: Option<Vec<Point>>,
    /// By what devices have in common.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<GroupView>>,
}

/// Latencies in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LatencyView {
    count: u64,
    p50: u64,
    p90: u64,
    p99: u64,
    max: u64,
}

impl From<Latency> for LatencyView {
    fn from(latency: Latency) -> LatencyView {
        let Latency { count, p50, p90, p99, max } = latency;
        LatencyView { count, p50, p90, p99, max }
    }
}

/// How many devices reached stages in a stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    at: Time,
    sent: u32,
    delivered: u32,
    shown: u32,
    clicked: u32,
}

/// A part of the devices.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GroupView {
    value: Option<String>,
    targeted: u64,
    sent: u64,
    delivered: u64,
    shown: u64,
    clicked: u64,
}

/// A device as the API tells it.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceView {
    /// Its id, which is its MQTT client identifier.
    pub device: String,
    /// What it registered.
    pub platform: String,
    /// The app's version.
    pub app_version: Option<String>,
    /// Who uses it.
    pub alias: Option<String>,
    /// Its tags.
    pub tags: Vec<String>,
    /// Its attributes.
    pub attributes: Map<String, serde_json::Value>,
    /// Its time zone.
    pub time_zone: Option<String>,
    /// Its language.
    pub language: Option<String>,
    /// It is used for tests.
    pub test: bool,
    /// When it was registered first.
    pub registered_at: Time,
    /// When something of it changed last.
    pub updated_at: Time,
    /// It is connected, and takes what is pushed to it.
    pub online: bool,
    /// Messages that wait for it.
    pub pending: u64,
}

/// How the platform stands.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Devices of all apps.
    pub devices: u32,
    /// Those that are connected.
    pub online: u64,
    /// Messages that are not over.
    pub open_messages: usize,
    /// Messages that wait for a reviewer.
    pub held: usize,
    /// Messages on their way to devices.
    pub in_flight: u64,
    /// Facts that the audit was told, those that retention removed not counted after a restart.
    pub facts: u64,
    /// The audit.
    pub audit: AuditStatus,
    /// Bytes of the log's files.
    pub log_bytes: u64,
}

/// How the audit stands.
#[derive(Clone, Debug, Serialize)]
pub struct AuditStatus {
    /// Records that were ever written.
    pub records: u64,
    /// Bytes of those that are there.
    pub bytes: u64,
    /// The end of its chain.
    pub head: AuditView,
}

/// The end of the audit's chain.
#[derive(Clone, Debug, Serialize)]
pub struct AuditView {
    /// The number of the last record.
    pub seq: u64,
    /// Its hash, in hexadecimal.
    pub hash: String,
}

/// An app as the API tells it.
#[derive(Clone, Debug, Serialize)]
pub struct AppView {
    /// Its name.
    pub app: String,
    /// Its devices.
    pub devices: u64,
    /// Those that are used for tests.
    pub test_devices: u64,
    /// Those that are connected.
    pub online: u64,
    /// Its messages that are not over.
    pub open_messages: usize,
}

impl Engine {
    /// What [`Gauges`](crate::ledger::Gauges) show, in their order.
    pub(crate) fn levels(&self) -> [u64; 6] {
        [
            u64::from(self.registry.len()),
            self.online.len(),
            self.open as u64,
            self.held.len() as u64,
            self.facts_told,
            u64::from(self.failed.is_some()),
        ]
    }

    /// How the platform stands.
    pub fn status(&self) -> Status {
        Status {
            devices: self.registry.len(),
            online: self.online.len(),
            open_messages: self.open,
            held: self.held.len(),
            in_flight: self.links.values().map(|link| u64::from(link.in_flight)).sum(),
            facts: self.facts_told,
            audit: AuditStatus {
                records: self.audit.head().seq,
                bytes: self.audit.stored_bytes(),
                head: self.audit_head(),
            },
            log_bytes: self.log.log().file_bytes(),
        }
    }

    /// Entries of messages for a few devices that wait for a device: for tests, which end with none.
    #[doc(hidden)]
    pub fn waiting(&self) -> usize {
        self.by_device.values().map(Vec::len).sum()
    }

    /// The end of the audit's chain.
    pub fn audit_head(&self) -> AuditView {
        let head = self.audit.head();
        AuditView { seq: head.seq, hash: head.hash.to_string() }
    }

    /// All apps.
    pub fn apps(&self) -> Vec<AppView> {
        let mut open = vec![0; self.registry.apps().count()];
        for message in self.messages.values().filter(|message| !message.state.is_over()) {
            if let Some(open) = open.get_mut(usize::from(message.app)) {
                *open += 1;
            }
        }
        let numbered = (0..).zip(self.registry.apps());
        numbered
            .map(|(number, name)| {
                let usage = self.registry.usage(number).unwrap_or_default();
                let everyone = self.registry.resolve(number, sextant_devices::Target::Everyone);
                let online = everyone.map_or(0, |all| self.online_among(&all.devices));
                AppView {
                    app: name.to_owned(),
                    devices: usage.devices,
                    test_devices: usage.tests,
                    online,
                    open_messages: open[usize::from(number)],
                }
            })
            .collect()
    }

    /// A device of an app.
    ///
    /// # Errors
    /// There is none.
    pub fn device(&self, app: u16, id: &str) -> Result<DeviceView, Refusal> {
        let number = self.device_of(app, id)?;
        self.device_view(number).ok_or(Refusal::Unknown("such device"))
    }

    /// The device of a number.
    pub fn device_view(&self, number: u32) -> Option<DeviceView> {
        let Entry { device, registered_at, updated_at, .. } = self.registry.entry(number)?;
        let value = |value: &Value| match value {
            Value::Text(text) => json!(text),
            Value::Number(number) => number_json(number.get()),
        };
        let few = self.by_device.get(&number).into_iter().flatten();
        let waits = |number_of: &&u64| {
            let message = self.messages.get(number_of);
            message.is_some_and(|message| message.copies.is_pending(number))
        };
        let pending = few.chain(&self.many).filter(waits).count() as u64;
        Some(DeviceView {
            device: device.id,
            platform: device.platform,
            app_version: device.app_version,
            alias: device.alias,
            tags: device.tags.into_iter().collect(),
            attributes: device.attributes.iter().map(|(k, v)| (k.clone(), value(v))).collect(),
            time_zone: device.time_zone,
            language: device.language,
            test: device.test,
            registered_at: Time(registered_at),
            updated_at: Time(updated_at),
            online: self.online.contains(number),
            pending,
        })
    }

    /// Devices of an app that an expression names, or all of them: those behind a number, and how
    /// many there are altogether.
    ///
    /// # Errors
    /// The expression is none.
    pub fn find_devices(
        &self,
        app: u16,
        expression: Option<&str>,
        after: Option<u32>,
        limit: usize,
    ) -> Result<(u64, Vec<(u32, DeviceView)>), Refusal> {
        let found = match expression {
            Some(text) => self.registry.evaluate(app, &Expression::parse(text)?)?,
            None => self.registry.resolve(app, sextant_devices::Target::Everyone)?.devices,
        };
        let from = after.map_or(0, |after| after.saturating_add(1));
        let page = found.range(from..).take(limit);
        let page = page.filter_map(|number| Some((number, self.device_view(number)?)));
        Ok((found.len(), page.collect()))
    }

    /// Messages of an app, the newest first: those before a number.
    pub fn find_messages(
        &self,
        app: u16,
        state: Option<State>,
        before: Option<u64>,
        limit: usize,
    ) -> Vec<(u64, MessageView)> {
        let older = self.messages.range(..before.unwrap_or(u64::MAX)).rev();
        let wanted = older.filter(|(_, message)| {
            message.app == app && state.is_none_or(|state| message.state == state)
        });
        let views = wanted.filter_map(|(number, message)| {
            let stored = self.stored(message).ok()?;
            Some((*number, self.view(*number, message, &stored, self.funnel_of(message))))
        });
        views.take(limit).collect()
    }

    /// A message of an app.
    ///
    /// # Errors
    /// There is none.
    pub fn message(&self, app: u16, id: Uuid) -> Result<MessageView, Refusal> {
        let number = self.message_of(app, id)?;
        match self.messages.get(&number) {
            Some(message) => {
                let stored = self.stored(message).map_err(Refusal::Unavailable)?;
                let funnel = self.funnel_with_times(number, message);
                Ok(self.view(number, message, &stored, funnel))
            }
            None => {
                let (message, stored) = self.message_of_audit(app, number)?;
                let funnel = self.funnel_with_times(number, &message);
                Ok(self.view(number, &message, &stored, funnel))
            }
        }
    }

    /// A message that is held in memory, with what is counted there: without asking the audit.
    ///
    /// # Errors
    /// There is none.
    pub fn brief(&self, number: u64) -> Result<MessageView, Refusal> {
        let message = self.messages.get(&number).ok_or(Refusal::Unknown("such message"))?;
        let stored = self.stored(message).map_err(Refusal::Unavailable)?;
        Ok(self.view(number, message, &stored, self.funnel_of(message)))
    }

    /// The number of a message of an app; of one that is held in memory no more the audit knows.
    ///
    /// # Errors
    /// There is none.
    pub fn message_of(&self, app: u16, id: Uuid) -> Result<u64, Refusal> {
        let number = self.ids.number(id).ok_or(Refusal::Unknown("such message"))?;
        match self.messages.get(&number) {
            Some(message) if message.app != app => Err(Refusal::Unknown("such message")),
            _ => Ok(number),
        }
    }

    /// How far a message has come.
    ///
    /// # Errors
    /// There is none.
    pub fn funnel(&self, app: u16, id: Uuid, by: Option<FunnelBy>) -> Result<Funnel, Refusal> {
        let number = self.message_of(app, id)?;
        let of_audit;
        let message = match self.messages.get(&number) {
            Some(message) => message,
            None => {
                of_audit = self.message_of_audit(app, number)?;
                &of_audit.0
            }
        };
        let mut funnel = self.funnel_with_times(number, message);
        if by != Some(FunnelBy::Time) {
            funnel.series = None;
        }
        match by {
            None | Some(FunnelBy::Time) => {}
            Some(by) => funnel.groups = Some(self.groups(message, by)),
        }
        Ok(funnel)
    }

    /// How far a message is that is not over, and how far it has come: for who looks on.
    pub fn progress(&self, number: u64) -> Option<(State, Funnel)> {
        let message = self.messages.get(&number)?;
        Some((shown_state(message), self.funnel_of(message)))
    }

    pub(super) fn finished_counts(&self, number: u64) -> serde_json::Value {
        let Some(message) = self.messages.get(&number) else { return json!({}) };
        let funnel = self.funnel_of(message);
        match message.copies.is_many() {
            true => serde_json::to_value(funnel).expect("plain data is JSON"),
            false => json!({"targeted": funnel.targeted, "delivered": funnel.delivered}),
        }
    }

    fn view(&self, number: u64, message: &Message, stored: &Stored, funnel: Funnel) -> MessageView {
        let mut request = match serde_json::to_value(&stored.request) {
            Ok(serde_json::Value::Object(request)) => request,
            _ => Map::new(),
        };
        request.remove("idempotency_key");
        let class = request.remove("class").and_then(|class| class.as_str().map(str::to_owned));
        MessageView {
            id: self.ids.uuid(number),
            app: self.registry.app_name(stored.app).unwrap_or_default().to_owned(),
            state: shown_state(message),
            sender: stored.sender.clone(),
            request,
            class: class.unwrap_or_else(|| "operational".to_owned()),
            priority: stored.priority,
            targets: message.copies.len(),
            unknown: stored.unknown,
            accepted_at: Time(stored.accepted_ms),
            expires_at: Time(stored.expires_ms),
            recall_of: stored.recall_of.map(|of| self.ids.uuid(of)),
            review: self.review_view(number, stored),
            funnel,
        }
    }

    fn review_view(&self, number: u64, stored: &Stored) -> Option<ReviewView> {
        let review: &Review = self.reviews.get(&number).or(stored.review.as_ref())?;
        let held_by = stored.held_by.clone();
        let HeldBy { reason, rule, text } =
            held_by.unwrap_or(HeldBy { reason: String::new(), rule: None, text: String::new() });
        let verdict = review.verdict.as_ref();
        Some(ReviewView {
            state: review.state.name(),
            reason,
            rule,
            text,
            since: Time(review.since_ms),
            expires_at: Time(review.expires_ms),
            by: verdict.map(|verdict| verdict.by.to_string()),
            note: verdict.map(|verdict| verdict.note.to_string()),
        })
    }

    fn funnel_of(&self, message: &Message) -> Funnel {
        funnel(&message.copies.counts(), &message.copies)
    }

    /// With latencies and times, which the audit knows of those for a few devices.
    fn funnel_with_times(&self, number: u64, message: &Message) -> Funnel {
        let mut funnel = self.funnel_of(message);
        let points = |line: Vec<(u64, [u32; LINES.len()])>| {
            let point = |(at, [sent, delivered, shown, clicked]): (u64, [u32; 4])| Point {
                at: Time(at),
                sent,
                delivered,
                shown,
                clicked,
            };
            line.into_iter().map(point).collect()
        };
        if message.copies.is_many() {
            funnel.series = Some(points(message.copies.line()));
            return funnel;
        }
        let mut line: BTreeMap<u64, [u32; LINES.len()]> = BTreeMap::new();
        let mut latencies = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for fact in self.facts_of(number) {
            if !seen.insert((fact.device, fact.stage)) {
                continue;
            }
            if let Some(at) = LINES.iter().position(|stage| *stage == fact.stage) {
                line.entry(fact.at - fact.at % 60_000).or_default()[at] += 1;
            }
            if fact.stage == Stage::Acknowledged {
                latencies.push(fact.at.saturating_sub(message.accepted_ms));
            }
        }
        latencies.sort_unstable();
        let quantile = |q: usize| latencies[(latencies.len() * q).div_ceil(100).max(1) - 1];
        funnel.latency_ms = (!latencies.is_empty()).then(|| LatencyView {
            count: latencies.len() as u64,
            p50: quantile(50),
            p90: quantile(90),
            p99: quantile(99),
            max: quantile(100),
        });
        funnel.series = Some(points(line.into_iter().collect()));
        funnel
    }

    fn facts_of(&self, number: u64) -> Vec<Fact> {
        let query = Query {
            message: Some(number),
            events: false,
            limit: Query::LIMIT_MAX,
            ..Query::default()
        };
        let page = self.reader.query(&query);
        page.entries.iter().filter_map(|entry| entry.fact().copied()).collect()
    }

    /// A message that is held in memory no more, as the audit tells it.
    pub(super) fn message_of_audit(
        &self,
        app: u16,
        number: u64,
    ) -> Result<(Message, Stored), Refusal> {
        let query = Query { message: Some(number), limit: Query::LIMIT_MAX, ..Query::default() };
        let page = self.reader.query(&query);
        let mut stored = None;
        let mut state = State::Finished;
        let mut targets = RoaringBitmap::new();
        for entry in &page.entries {
            match &entry.content {
                Said::Fact(fact) => {
                    targets.insert(fact.device);
                }
                Said::Event(event) if event.kind.0 == Happened::Requested as u8 => {
                    stored = serde_json::from_slice::<Stored>(&event.detail).ok();
                }
                Said::Event(event) => match event.kind.0 {
                    kind if kind == Happened::Recalled as u8 => state = State::Recalled,
                    kind if kind == Happened::Rejected as u8 => state = State::Rejected,
                    kind if kind == Happened::Withdrawn as u8 => state = State::Withdrawn,
                    _ => {}
                },
            }
        }
        let unknown = Refusal::Unknown("such message");
        let stored = stored.filter(|stored| stored.app == app).ok_or(unknown.clone())?;
        let place = self.log.log().oldest().map(|info| info.id).ok_or(unknown.clone())?;
        let position = sextant_segment::Position { segment: place, offset: 0 };
        let mut message = Message::of(&stored, targets, position).map_err(|_| unknown)?;
        message.state = state;
        for fact in page.entries.iter().filter_map(|entry| entry.fact()) {
            message.reach(fact.stage, fact.reason, &[fact.device], fact.at, |_| {});
        }
        Ok((message, stored))
    }

    fn groups(&self, message: &Message, by: FunnelBy) -> Vec<GroupView> {
        let targets = message.copies.targets();
        let view = |value: Option<&str>, devices: &RoaringBitmap| {
            let counts = message.copies.counts_among(devices);
            GroupView {
                value: value.map(str::to_owned),
                targeted: counts.targeted,
                sent: counts.of(Stage::Sent),
                delivered: counts.of(Stage::Acknowledged),
                shown: counts.of(Stage::Shown),
                clicked: counts.of(Stage::Clicked),
            }
        };
        let by = match by {
            FunnelBy::Version => By::AppVersion,
            FunnelBy::Language => By::Language,
            FunnelBy::Platform | FunnelBy::Time => By::Platform,
            FunnelBy::Tag => {
                let tags = self.registry.tag_counts(message.app, &targets);
                let tags = tags.into_iter().take(GROUPS_MAX).filter_map(|(tag, _)| {
                    let text =
                        format!("tag:\"{}\"", tag.replace('\\', "\\\\").replace('"', "\\\""));
                    let expression = Expression::parse(&text).ok()?;
                    let devices = self.registry.evaluate(message.app, &expression).ok()?;
                    Some(view(Some(tag), &devices))
                });
                return tags.collect();
            }
        };
        let groups = self.registry.groups(message.app, by, &targets);
        let mut groups: Vec<GroupView> =
            groups.iter().map(|group| view(group.value, &group.devices)).collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.targeted));
        groups.truncate(GROUPS_MAX);
        groups
    }
}

fn funnel(counts: &Counts, copies: &Copies) -> Funnel {
    let mut dropped = BTreeMap::new();
    let mut by_rules = 0;
    for (code, count) in copies.losses() {
        let reason = Reason::from_code(code);
        let is_other = matches!(reason, Some(Reason::Expired | Reason::Recalled));
        if is_other || count == 0 {
            continue;
        }
        if reason.is_some_and(is_rule) {
            by_rules += count;
        }
        *dropped.entry(reason.map_or("unknown", Reason::name)).or_default() += count;
    }
    Funnel {
        targeted: counts.targeted,
        eligible: counts.targeted - by_rules.min(counts.targeted),
        queued: counts.of(Stage::Queued),
        sent: counts.of(Stage::Sent),
        delivered: counts.of(Stage::Acknowledged),
        shown: counts.of(Stage::Shown),
        clicked: counts.of(Stage::Clicked),
        expired: counts.of(Stage::Expired),
        recalled: counts.of(Stage::Recalled),
        dropped_total: dropped.values().sum(),
        dropped,
        pending: counts.pending,
        in_flight: counts.in_flight,
        latency_ms: copies.latency().map(LatencyView::from),
        series: None,
        groups: None,
    }
}

/// Of one that goes at once, and begins as soon as it is durable, that it runs.
fn shown_state(message: &Message) -> State {
    match (message.state, message.schedule) {
        (State::Scheduled, None) => State::Running,
        (state, _) => state,
    }
}

/// A whole number without a point, as it was most likely registered.
fn number_json(number: f64) -> serde_json::Value {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    match number.fract() == 0.0 && number.abs() <= EXACT_MAX {
        true => json!(number as i64),
        false => json!(number),
    }
}

/// Whether a device does not get a message for a rule of sending, rather than for what happened.
fn is_rule(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::ExpiresOutsideHours
            | Reason::ExpiresInQuietHours
            | Reason::NoHours
            | Reason::FrequencyCap
            | Reason::DailyQuota
            | Reason::ExpiresBeforeCap
            | Reason::ExpiresBeforeQuota
    )
}
