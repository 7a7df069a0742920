//! Taking a message in: the rules look at it, its target is resolved, and the log has it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use roaring::RoaringBitmap;
use serde::Serialize;
use serde_json::{Map, Value, json};
use sextant_audit::Stage;
use sextant_devices::{Expression, Gather, Listed, Name, Resolved};
use sextant_policy::template::TemplateLimits;
use sextant_policy::throttle::{RATE_MAX, Rate};
use sextant_policy::{
    Content as Wording, Decision, Device, Judgement, Missing, Names, Plan, Reason, Review,
    Schedule, State as RuleState, Template, Values, decide,
};

use super::{Content, Engine, Happened, Message, Timer};
use crate::model::{DEVICES_MAX, HeldBy, NAME_BYTES_MAX, Request, State, Stored, Target, When};
use crate::records;
use crate::refusal::Refusal;

/// The class of a message that says none.
const CLASS_DEFAULT: &str = "operational";
const TTL_MS_MIN: u64 = 1000;

/// The tag of devices that subscribed to a topic begins so.
pub(super) const TOPIC_TAG: &str = "topic/";

/// What became of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Submitted {
    /// The message of this number, durable with the next commit.
    New(u64),
    /// The message that its idempotency key names already.
    Known(u64),
    /// Nothing: what would have.
    Dry(DryRun),
}

/// What would become of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DryRun {
    /// Always true.
    pub dry_run: bool,
    /// `allowed`, `held` or `rejected`.
    pub judgement: &'static str,
    /// Why it is held or rejected.
    pub reason: Option<&'static str>,
    /// The content rule that says so, if one does.
    pub rule: Option<String>,
    /// Its devices.
    pub targets: u64,
    /// Names of its target that no device has.
    pub unknown: u64,
    /// Those that are connected.
    pub online: u64,
    /// Devices that may have it at once.
    pub now: u64,
    /// Devices that may have it later, by reason.
    pub later: BTreeMap<&'static str, u64>,
    /// Devices that may not have it, by reason.
    pub never: BTreeMap<&'static str, u64>,
}

/// What a request says, read.
#[derive(Clone, Copy)]
struct Form {
    ttl_ms: Option<u64>,
    schedule: Option<Schedule>,
}

/// A request that was looked at, and may be taken in.
struct Checked {
    plan: Plan,
    schedule: Option<Schedule>,
    ttl_ms: u64,
    expires_ms: u64,
    found: Resolved,
}

impl Engine {
    /// Takes a message in for an app; `sender` is who asks.
    ///
    /// # Errors
    /// See [`Refusal`]. Nothing was taken in.
    pub fn submit(
        &mut self,
        app: u16,
        sender: &str,
        request: Request,
        now: u64,
    ) -> Result<Submitted, Refusal> {
        let form = check_form(&request)?;
        if let Some(key) = &request.idempotency_key
            && !request.dry_run
            && let Some(known) = self.idempotency.get(app, key, now)
        {
            return Ok(Submitted::Known(known));
        }
        if self.open >= self.options.messages_open_max {
            let max = self.options.messages_open_max;
            return Err(Refusal::Full(format!(
                "{max} messages are not over, and no more are taken"
            )));
        }
        let checked = self.check(app, &request, form, now)?;
        let class = request.class.as_deref().unwrap_or(CLASS_DEFAULT);
        let held_by = match self.judge(app, class, &request) {
            Ok(held_by) => held_by,
            Err(refusal) if request.dry_run => {
                return Ok(Submitted::Dry(self.dry_run_rejected(&checked, &refusal)));
            }
            Err(refusal) => {
                let detail = json!({"request": request, "reason": refusal.to_string()});
                self.event((0, app), Happened::Rejected, sender, &detail, now);
                return Err(refusal);
            }
        };
        if request.dry_run {
            return Ok(Submitted::Dry(self.dry_run(app, &checked, held_by.as_ref(), now)));
        }
        self.take_quota(app, sender, checked.found.devices.len(), now)?;
        let review = match &held_by {
            None => None,
            Some(_) => Some(Review::hold(sender, now, self.hold_ms())?),
        };
        let stored = Stored {
            sender: sender.to_owned(),
            app,
            accepted_ms: now,
            expires_ms: checked.expires_ms,
            priority: checked.plan.priority,
            ttl_ms: checked.ttl_ms,
            unknown: checked.found.unknown,
            recall_of: None,
            review,
            held_by,
            request,
        };
        let messages = checked.found.devices.len();
        let taken = self.take_in(&stored, checked.found, now);
        if taken.is_err() {
            self.give_quota_back(app, sender, messages, now);
        }
        taken.map(Submitted::New)
    }

    fn give_quota_back(&mut self, app: u16, sender: &str, messages: u64, now: u64) {
        let Some(app) = self.registry.app_name(app) else { return };
        let zone = self.zones.get(self.rules.zone());
        self.quotas.give_back(&format!("{app}/{sender}"), messages, now, zone);
    }

    fn hold_ms(&self) -> u64 {
        let span = self.rules.policy().review.hold_max.get();
        u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
    }

    /// Everything else about a request that can be wrong, and whom it is for.
    fn check(
        &mut self,
        app: u16,
        request: &Request,
        form: Form,
        now: u64,
    ) -> Result<Checked, Refusal> {
        let app_name = self.registry.app_name(app).ok_or(Refusal::Unknown("such app"))?;
        let class = request.class.as_deref().unwrap_or(CLASS_DEFAULT);
        let plan = self
            .rules
            .plan(class, app_name, request.category.as_deref())
            .ok_or_else(|| Refusal::invalid("class", Reason::UnknownClass))?;
        let Form { ttl_ms, schedule } = form;
        let ttl_ms = ttl_ms.unwrap_or(plan.ttl_ms);
        if let Some(schedule) = schedule {
            let checked = self.rules.check_schedule(schedule, now);
            checked.map_err(|reason| Refusal::invalid("schedule", reason))?;
        }
        let due_last = schedule.map_or(now, |schedule| schedule.last().max(now));
        let expires_ms = due_last.saturating_add(ttl_ms);
        self.check_template(request)?;
        let found = self.resolve(app, request)?;
        Ok(Checked { plan, schedule, ttl_ms, expires_ms, found })
    }

    /// Whether what it says can be said to devices.
    fn check_template(&self, request: &Request) -> Result<(), Refusal> {
        let content = said(request);
        let mut names = Names::new();
        let limits = self.template_limits();
        let template = Template::json(&content, &mut names, &limits)
            .map_err(|error| Refusal::invalid("notification", error))?;
        let vars = vars_of(request);
        let values = Values::of_json(&names, &vars).map_err(|why| Refusal::invalid("vars", why))?;
        // What a list brings for its devices is not known yet.
        let missing = match &request.target {
            Target::List(list) if self.lists.has_vars(list.as_u128()) => Missing::Empty,
            _ => Missing::Error,
        };
        let mut out = String::new();
        template
            .render(&names, &values, missing, &mut out)
            .map_err(|error| Refusal::invalid("vars", error))
    }

    pub(super) fn template_limits(&self) -> TemplateLimits {
        let bytes_max = self.options.payload_bytes_max;
        TemplateLimits {
            source_bytes_max: bytes_max,
            output_bytes_max: bytes_max,
            ..TemplateLimits::default()
        }
    }

    /// The devices of a target.
    ///
    /// # Errors
    /// It names none, or nothing.
    pub fn resolve(&mut self, app: u16, request: &Request) -> Result<Resolved, Refusal> {
        use sextant_devices::Target as Who;
        check_target(&request.target)?;
        let mut found = match &request.target {
            Target::Device(id) => self.registry.resolve(app, Who::Device(id))?,
            Target::Alias(alias) => self.registry.resolve(app, Who::Alias(alias))?,
            Target::Devices(ids) => {
                let mut gather = Gather::new(app);
                for (id, line) in ids.iter().zip(1..) {
                    gather.add(&self.registry, Listed { line, name: Name::Device(id) });
                }
                gather.finish(&self.registry)
            }
            Target::List(list) => self.lists.resolve(app, list.as_u128(), &self.registry)?,
            Target::Topic(topic) => {
                let tag = format!("tag:\"{TOPIC_TAG}{}\"", topic.replace(['"', '\\'], ""));
                let expression = Expression::parse(&tag)?;
                self.registry.resolve(app, Who::Expression(&expression))?
            }
            Target::Expression(text) => {
                let expression = Expression::parse(text)?;
                self.registry.resolve(app, Who::Expression(&expression))?
            }
            Target::Everyone(_) => self.registry.resolve(app, Who::Everyone)?,
        };
        if request.test {
            let tests = Expression::parse("test:true")?;
            found.devices &= self.registry.evaluate(app, &tests)?;
        }
        let is_named =
            matches!(request.target, Target::Device(_) | Target::Devices(_) | Target::Alias(_));
        if is_named && found.devices.is_empty() {
            let test = if request.test { " that is used for tests" } else { "" };
            return Err(Refusal::invalid("target", format!("the app has no such device{test}")));
        }
        Ok(found)
    }

    /// How many of a bitmap's devices are connected.
    pub fn online_among(&self, devices: &RoaringBitmap) -> u64 {
        self.online.intersection_len(devices)
    }

    /// What the content rules say: why it is held, if it is.
    fn judge(&self, app: u16, class: &str, request: &Request) -> Result<Option<HeldBy>, Refusal> {
        let app_name = self.registry.app_name(app).ok_or(Refusal::Unknown("such app"))?;
        let shown = request.notification.as_ref();
        let links: Vec<&str> = shown
            .into_iter()
            .flat_map(|shown| [&shown.link, &shown.image])
            .filter_map(|link| link.as_deref())
            .collect();
        let wording = Wording {
            title: shown.and_then(|shown| shown.title.as_deref()).unwrap_or_default(),
            text: shown.and_then(|shown| shown.body.as_deref()).unwrap_or_default(),
            links: &links,
            category: request.category.as_deref(),
        };
        match self.rules.judge(class, app_name, &wording) {
            Judgement::Allowed => Ok(None),
            Judgement::Held { reason, rule, text } => Ok(Some(HeldBy {
                reason: reason.name().to_owned(),
                rule: rule.map(str::to_owned),
                text: text.to_owned(),
            })),
            Judgement::Rejected { rule, text, .. } => {
                Err(Refusal::Content { rule: rule.map(str::to_owned), text: text.to_owned() })
            }
        }
    }

    fn take_quota(
        &mut self,
        app: u16,
        sender: &str,
        messages: u64,
        now: u64,
    ) -> Result<(), Refusal> {
        let app_name = self.registry.app_name(app).ok_or(Refusal::Unknown("such app"))?;
        let credential = format!("{app_name}/{sender}");
        let limit = self.rules.sender_limit(&credential);
        let zone = self.zones.get(self.rules.zone());
        self.quotas.take(&credential, messages, limit, now, zone)?;
        Ok(())
    }

    fn dry_run_rejected(&self, checked: &Checked, refusal: &Refusal) -> DryRun {
        let rule = match refusal {
            Refusal::Content { rule, .. } => rule.clone(),
            _ => None,
        };
        DryRun {
            dry_run: true,
            judgement: "rejected",
            reason: Some(Reason::ContentRejected.name()),
            rule,
            targets: checked.found.devices.len(),
            unknown: checked.found.unknown,
            online: self.online_among(&checked.found.devices),
            ..DryRun::default()
        }
    }

    fn dry_run(
        &mut self,
        app: u16,
        checked: &Checked,
        held_by: Option<&HeldBy>,
        now: u64,
    ) -> DryRun {
        let devices = &checked.found.devices;
        let mut run = DryRun {
            dry_run: true,
            judgement: if held_by.is_some() { "held" } else { "allowed" },
            reason: held_by.map(|held| match &*held.reason {
                "class_review" => Reason::ClassReview.name(),
                _ => Reason::ContentReview.name(),
            }),
            rule: held_by.and_then(|held| held.rule.clone()),
            targets: devices.len(),
            unknown: checked.found.unknown,
            online: self.online_among(devices),
            ..DryRun::default()
        };
        let message = sextant_policy::Message {
            plan: checked.plan.clone(),
            accepted_ms: now,
            schedule: checked.schedule,
            ttl_ms: checked.ttl_ms,
        };
        for (zone, devices) in self.by_zone(app, devices) {
            let state = RuleState { zones: &self.zones, counters: &self.counters };
            for number in devices {
                match decide(&message, Device { number, zone }, state, now) {
                    Decision::Now => run.now += 1,
                    Decision::At(_, why) => *run.later.entry(why.reason.name()).or_default() += 1,
                    Decision::Never(why) => *run.never.entry(why.reason.name()).or_default() += 1,
                }
            }
        }
        run
    }

    /// Writes a message to the log, and begins it once that is durable.
    pub(super) fn take_in(
        &mut self,
        stored: &Stored,
        found: Resolved,
        now: u64,
    ) -> Result<u64, Refusal> {
        let number = self.next_number(now);
        let json = serde_json::to_vec(stored).expect("plain data is JSON");
        let own = match records::is_one_part(&found.devices) {
            true => records::bytes_of(&found.devices),
            false => {
                for part in records::parts(&found.devices) {
                    self.append(records::TARGETS, &[&number.to_le_bytes(), &part], now)?;
                }
                Vec::new()
            }
        };
        let own_bytes = u32::try_from(own.len()).expect("a part is below a mebibyte").to_le_bytes();
        let parts: [&[u8]; 4] = [&number.to_le_bytes(), &own_bytes, &own, &json];
        let record = self.append(records::MESSAGE, &parts, now)?;
        let targets = found.devices.len();
        let message = Message::of(stored, found.devices, record)
            .map_err(|error| Refusal::invalid("schedule", error))?;
        self.tell_of_new(number, stored, targets, now);
        if let Some(key) = &stored.request.idempotency_key {
            self.idempotency
                .claim(stored.app, key, number, now)
                .map_err(|error| Refusal::invalid("idempotency_key", error))?;
        }
        if let Some(key) = &stored.request.collapse_key {
            let key = (stored.app, Box::from(&**key));
            self.by_key.entry(key).or_default().push(number);
        }
        if let Some(list) = message.list {
            self.lists.hold(list);
        }
        self.open += 1;
        match &stored.review {
            Some(review) => {
                self.held.insert(number);
                self.timers.insert((review.expires_ms, Timer::Review(number)));
            }
            None => {
                self.timers.insert((message.expires_ms, Timer::Expire(number)));
                self.fresh.push(number);
            }
        }
        self.messages.insert(number, message);
        Ok(number)
    }

    fn tell_of_new(&mut self, number: u64, stored: &Stored, targets: u64, now: u64) {
        let of = (number, stored.app);
        self.event(of, Happened::Requested, &stored.sender, &stored, now);
        let expanded = json!({"targets": targets, "unknown": stored.unknown});
        self.event(of, Happened::Expanded, "", &expanded, now);
        match &stored.held_by {
            None => self.event(of, Happened::Judged, "", &json!({"judgement": "allowed"}), now),
            Some(held_by) => self.event(of, Happened::Held, "", held_by, now),
        }
    }

    /// Begins a message that is durable: those whom it replaces are told so, and it waits for its
    /// time, or goes.
    pub(super) fn begin(&mut self, number: u64, now: u64) {
        let Some(message) = self.messages.get_mut(&number) else { return };
        if message.state.is_over() || message.state == State::Held {
            return;
        }
        let (app, has_key) = (message.app, message.has_key);
        let all: Vec<u32> = message.copies.targets().iter().collect();
        let mut new = Vec::new();
        message.copies.reach(Stage::Accepted, 0, &all, |device| new.push(device));
        for device in new {
            self.fact(number, app, device, Stage::Accepted, 0, now);
        }
        if has_key {
            self.replace_older(number, now);
        }
        let Some(message) = self.messages.get_mut(&number) else { return };
        match message.schedule {
            Some(Schedule::At(due)) if due > now => {
                message.state = State::Scheduled;
                self.timers.insert((due, Timer::Due(number)));
            }
            Some(Schedule::Local(_)) => self.defer_by_zone(number, now),
            _ => self.start(number, now),
        }
    }

    /// An older message with the same collapse key goes to no device that it still waits for and
    /// that this one is for.
    fn replace_older(&mut self, number: u64, now: u64) {
        let Some(content) = self.content(number) else { return };
        let Some(key) = &content.stored.request.collapse_key else { return };
        let key = (content.stored.app, Box::from(&**key));
        let Some(with_key) = self.by_key.get(&key) else { return };
        let older: Vec<u64> = with_key.iter().copied().filter(|other| *other < number).collect();
        let Some(targets) = self.messages.get(&number).map(|own| own.copies.targets()) else {
            return;
        };
        for other in older {
            let Some(message) = self.messages.get(&other) else { continue };
            let replaced: Vec<u32> = (message.copies.pending() & &targets).iter().collect();
            self.lose(other, &replaced, Stage::Dropped, Reason::Replaced, now);
            self.finish_if_settled(other, now);
        }
    }

    /// Lets the devices of each zone wait until it is time there.
    fn defer_by_zone(&mut self, number: u64, now: u64) {
        let Some(message) = self.messages.get_mut(&number) else { return };
        message.state = State::Scheduled;
        let (app, schedule, pending) = (message.app, message.schedule, message.copies.pending());
        let Some(schedule) = schedule else { return };
        let fallback = self.content(number).map(|content| content.plan.zone());
        for (zone, devices) in self.by_zone(app, &pending) {
            let Some(zone) = zone.or(fallback) else { continue };
            let due = schedule.due_in(self.zones.get(zone)).max(now);
            self.defer(number, &devices, due);
        }
        if pending.is_empty() {
            self.start(number, now);
        }
    }

    /// Takes a message of an app back. Who has not got it does not; who has, or may have, is sent a message
    /// that says so.
    ///
    /// # Errors
    /// There is none, or it was taken back before.
    pub fn recall(
        &mut self,
        app: u16,
        number: u64,
        by: &str,
        now: u64,
    ) -> Result<(u64, Option<u64>), Refusal> {
        let Some(message) = self.messages.get(&number) else {
            return self.recall_of_audit(app, number, by, now);
        };
        let state = message.state;
        if message.app != app {
            return Err(Refusal::Unknown("such message"));
        }
        match state {
            State::Recalled | State::Withdrawn | State::Rejected => {
                return Err(Refusal::Conflict(format!("the message is {} already", state.name())));
            }
            State::Held => return self.withdraw(number, by, now).map(|()| (0, None)),
            _ if message.recall_of.is_some() => {
                return Err(Refusal::Conflict("a recall is not taken back".to_owned()));
            }
            _ => {}
        }
        let content = self.content(number).ok_or(Refusal::Unknown("such message"))?;
        let message = self.messages.get(&number).ok_or(Refusal::Unknown("such message"))?;
        let pending: Vec<u32> = message.copies.pending().iter().collect();
        let flying = message.copies.in_flight();
        let had = &flying | message.copies.reached(Stage::Sent);
        let had = had | message.copies.reached(Stage::Acknowledged);
        self.event((number, app), Happened::Recalled, by, &json!({"waiting": pending.len()}), now);
        self.lose(number, &pending, Stage::Recalled, Reason::Recalled, now);
        self.withdraw_orders(number, &flying);
        self.set_state(number, State::Recalled, None, now);
        let recall = self.send_recall(number, &content.stored, had, by, now)?;
        Ok((pending.len() as u64, recall))
    }

    /// Takes a message back that is held in memory no more: it is over, and nobody waits for it.
    fn recall_of_audit(
        &mut self,
        app: u16,
        number: u64,
        by: &str,
        now: u64,
    ) -> Result<(u64, Option<u64>), Refusal> {
        let (message, stored) = self.message_of_audit(app, number)?;
        if message.state != State::Finished || stored.recall_of.is_some() {
            let name = message.state.name();
            return Err(Refusal::Conflict(format!("the message is {name} already")));
        }
        let had = message.copies.reached(Stage::Sent) | message.copies.reached(Stage::Acknowledged);
        self.event((number, stored.app), Happened::Recalled, by, &json!({"waiting": 0}), now);
        let recall = self.send_recall(number, &stored, had, by, now)?;
        Ok((0, recall))
    }

    /// Tells devices that a message was taken back.
    fn send_recall(
        &mut self,
        number: u64,
        of: &Stored,
        had: RoaringBitmap,
        by: &str,
        now: u64,
    ) -> Result<Option<u64>, Refusal> {
        if had.is_empty() {
            return Ok(None);
        }
        let target = Target::Devices(Vec::new());
        let (app, name, ttl_ms) = (of.app, of.request.name.clone(), of.ttl_ms);
        let stored = Stored {
            request: Request { target, name, ..Request::default() },
            sender: by.to_owned(),
            app,
            accepted_ms: now,
            expires_ms: now.saturating_add(ttl_ms),
            priority: sextant_policy::throttle::PRIORITY_MAX,
            ttl_ms,
            unknown: 0,
            recall_of: Some(number),
            review: None,
            held_by: None,
        };
        let found = Resolved { devices: had, ..Resolved::default() };
        self.take_in(&stored, found, now).map(Some)
    }

    /// What a message says, ready to be sent.
    pub(super) fn content(&mut self, number: u64) -> Option<Arc<Content>> {
        if let Some(content) = self.contents.get(&number) {
            return Some(Arc::clone(content));
        }
        let message = self.messages.get(&number)?;
        let content = match self.load(number, message) {
            Ok(content) => Arc::new(content),
            Err(why) => {
                tracing::error!(message = number, why, "a message cannot be read");
                return None;
            }
        };
        if self.contents.len() >= super::CONTENTS_MAX {
            self.contents.clear();
        }
        self.contents.insert(number, Arc::clone(&content));
        Some(content)
    }

    /// What the log has of a message.
    pub(super) fn stored(&self, message: &Message) -> Result<Stored, String> {
        let record = self.log.log().load(message.record).map_err(|error| error.to_string())?;
        let mut from = records::Take(&record.payload);
        let rest = from.u64().and_then(|_| from.u32()).and_then(|bytes| {
            from.bytes(bytes as usize)?;
            Ok(from.rest())
        });
        let rest = rest.map_err(|error| error.to_string())?;
        serde_json::from_slice(rest).map_err(|error| error.to_string())
    }

    fn load(&self, number: u64, message: &Message) -> Result<Content, String> {
        let stored = self.stored(message)?;
        let app = self.registry.app_name(stored.app).unwrap_or_default();
        let request = &stored.request;
        let class = request.class.as_deref().unwrap_or(CLASS_DEFAULT);
        let plan = match stored.recall_of {
            Some(_) => Some(Plan::free()),
            None => self.rules.plan(class, app, request.category.as_deref()),
        };
        // Its class may be gone since: it goes by the rules of those that say none.
        let plan = plan.or_else(|| self.rules.plan(CLASS_DEFAULT, app, None));
        let plan = plan.or_else(|| {
            let first = self.rules.policy().classes.keys().next()?;
            self.rules.plan(first, app, None)
        });
        let plan = plan.ok_or("there is no class")?;
        let mut names = Names::new();
        let template = Template::json(&said(request), &mut names, &self.template_limits())
            .map_err(|error| error.to_string())?;
        let has_vars = message.list.is_some_and(|list| self.lists.has_vars(list));
        let payload = match (stored.recall_of, has_vars && !template.is_constant()) {
            (Some(of), _) => {
                let recall = json!({"id": self.ids.uuid(of), "type": "recall"});
                Some(Bytes::from(recall.to_string()))
            }
            (None, true) => None,
            (None, false) => {
                let vars = vars_of(request);
                let values = Values::of_json(&names, &vars).map_err(|error| error.to_string())?;
                let mut out = self.opening(number);
                template
                    .render(&names, &values, Missing::Error, &mut out)
                    .map_err(|error| error.to_string())?;
                Some(close_payload(out))
            }
        };
        Ok(Content { stored, names, template, plan, payload })
    }

    /// What a message says to one device that has variables of its own.
    pub(super) fn render(&self, number: u64, content: &Content, device: u32) -> Option<Bytes> {
        let vars = vars_of(&content.stored.request);
        let own = self.messages.get(&number)?.list;
        let own = own.and_then(|list| self.lists.vars(list, device, &self.log));
        let own = own.as_deref().unwrap_or("{}");
        let common = Values::of_json(&content.names, &vars).ok()?;
        let values = Values::of_json(&content.names, own).ok()?.or(common);
        let mut out = self.opening(number);
        content.template.render(&content.names, &values, Missing::Error, &mut out).ok()?;
        Some(close_payload(out))
    }

    /// How a payload begins; what is said follows, a JSON object without its opening brace.
    fn opening(&self, number: u64) -> String {
        format!("{{\"id\":\"{}\",\"type\":\"message\",\"said\":", self.ids.uuid(number))
    }
}

/// Joins what a message is called and what it says into one object.
fn close_payload(out: String) -> Bytes {
    let joined = match out.split_once("\"said\":{") {
        Some((head, "}")) => format!("{}}}", head.trim_end_matches(',')),
        Some((head, rest)) => format!("{head}{rest}"),
        None => out,
    };
    Bytes::from(joined)
}

/// What a message says, as a JSON document that is a template.
fn said(request: &Request) -> String {
    let mut said = Map::new();
    if let Some(notification) = &request.notification {
        let shown = serde_json::to_value(notification).expect("plain data is JSON");
        said.insert("notification".to_owned(), shown);
    }
    if let Some(data) = &request.data {
        said.insert("data".to_owned(), Value::Object(data.clone()));
    }
    Value::Object(said).to_string()
}

fn vars_of(request: &Request) -> String {
    request.vars.as_ref().map_or_else(
        || "{}".to_owned(),
        |vars| serde_json::to_string(vars).expect("plain data is JSON"),
    )
}

/// What can be said of a request by itself: that it is wrong is told even where its idempotency key
/// names a message.
fn check_form(request: &Request) -> Result<Form, Refusal> {
    check_texts(request)?;
    if request.rate.is_some_and(|rate| Rate::per_second(rate).is_none()) {
        return Err(Refusal::invalid("rate", format!("must be 1 to {RATE_MAX}")));
    }
    if request.class.as_deref().is_some_and(|name| !sextant_policy::config::is_name(name)) {
        return Err(Refusal::invalid("class", Reason::UnknownClass));
    }
    check_target(&request.target)?;
    let ttl_ms = request.ttl.map(|ttl| u64::try_from(ttl.get().as_millis()).unwrap_or(u64::MAX));
    let lives = TTL_MS_MIN..=sextant_policy::config::TTL_MS_MAX;
    if ttl_ms.is_some_and(|ms| !lives.contains(&ms)) {
        return Err(Refusal::invalid("ttl", "must be between 1s and 366d"));
    }
    let schedule = request.schedule.as_ref().map(When::parse).transpose();
    Ok(Form { ttl_ms, schedule: schedule.map_err(|why| Refusal::invalid("schedule", why))? })
}

fn check_target(target: &Target) -> Result<(), Refusal> {
    match target {
        Target::Devices(ids) if !(1..=DEVICES_MAX).contains(&ids.len()) => {
            let why = format!("1 to {DEVICES_MAX}; upload a list for more");
            Err(Refusal::invalid("devices", why))
        }
        Target::Everyone(false) => {
            Err(Refusal::invalid("target", "`everyone` is true, or not there"))
        }
        _ => Ok(()),
    }
}

fn check_texts(request: &Request) -> Result<(), Refusal> {
    if request.notification.is_none() && request.data.is_none() {
        return Err(Refusal::invalid("notification", "give `notification`, `data`, or both"));
    }
    let is_name = |name: &str| {
        (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
    };
    if request.name.as_deref().is_some_and(|name| !is_name(name)) {
        let why = format!("has 1 to {NAME_BYTES_MAX} bytes, and no control characters");
        return Err(Refusal::invalid("name", why));
    }
    if request.category.as_deref().is_some_and(|name| !sextant_policy::config::is_name(name)) {
        return Err(Refusal::invalid("category", "is 1 to 64 of a-z, 0-9, `.`, `_` and `-`"));
    }
    let keys = [
        ("idempotency_key", &request.idempotency_key, 128),
        ("collapse_key", &request.collapse_key, 64),
    ];
    for (part, key, max) in keys {
        let is_key =
            |key: &String| (1..=max).contains(&key.len()) && !key.chars().any(char::is_control);
        if !key.as_ref().is_none_or(is_key) {
            let why = format!("has 1 to {max} bytes, and no control characters");
            return Err(Refusal::invalid(part, why));
        }
    }
    Ok(())
}
