//! The rules put together: what may be sent, and to each device now, later or never.
//!
//! ```text
//!   a message    Rules::judge      content rules, review of its class     allowed, held, rejected
//!   its plan     Rules::plan       what applies to it, looked up once
//!   a device     decide            schedule ─► hours ─► quiet hours ─► caps and quotas
//! ```
//!
//! [`decide`] says of one device what the rules say at an instant, and changes nothing: whoever
//! sends counts with [`Counters::note`](crate::Counters::note), and asks again when what it was
//! told to wait for has come. A cap that drops does so even where another would have it wait.

use std::collections::HashMap;

use serde::Serialize;

use crate::config::{Faults, Policy, PolicyError};
use crate::content::rules::Outcome;
use crate::content::{Content, Contents};
use crate::counters::{CountRule, Counters, Period, RuleId, TooManyRules};
use crate::hours::{Action, Hours, QuietHours, When, when};
use crate::reason::Reason;
use crate::schedule::Schedule;
use crate::throttle::Rate;
use crate::zones::{ZoneId, Zones};

/// A [`Policy`], ready to be asked; a [`Draft`] becomes it.
#[derive(Debug)]
pub struct Rules {
    policy: Policy,
    zone: ZoneId,
    app_zones: HashMap<Box<str>, ZoneId>,
    /// Of each class with a daily quota, its rule.
    quotas: HashMap<Box<str>, RuleId>,
    /// Of each cap, its rule; in the order of their names.
    caps: Vec<RuleId>,
    content: Contents,
}

/// What applies to a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// 0 to 9; 9 goes first.
    pub priority: u8,
    /// How long after it is due it is sent, where it does not say itself, in milliseconds.
    pub ttl_ms: u64,
    /// Whether somebody has to approve it, whatever it says.
    pub review: bool,
    hours: Hours,
    quiet: Option<QuietHours>,
    zone: ZoneId,
    rules: Box<[RuleId]>,
    /// What becomes of those beyond each rule, and whether the rule is a quota.
    beyond: Box<[(Action, bool)]>,
}

impl Plan {
    /// Of messages that no rule holds back or counts.
    pub fn free() -> Plan {
        Plan {
            priority: crate::throttle::PRIORITY_MAX,
            ttl_ms: 86_400_000,
            review: false,
            hours: Hours::ALL,
            quiet: None,
            zone: ZoneId::UTC,
            rules: Box::default(),
            beyond: Box::default(),
        }
    }

    /// The rules that count it: what [`Counters::note`](crate::Counters::note) is told.
    pub fn rules(&self) -> &[RuleId] {
        &self.rules
    }

    /// The same, but nothing that counts: for what a device was sent before, and is sent again.
    #[must_use]
    pub fn again(&self) -> Plan {
        Plan { rules: Box::default(), beyond: Box::default(), ..self.clone() }
    }

    /// Whether a message that is due may go to any device at any time: no hours, no quiet hours,
    /// and nothing that counts.
    pub fn is_free(&self) -> bool {
        self.hours == Hours::ALL && self.quiet.is_none() && self.rules.is_empty()
    }

    /// The zone of devices that tell none.
    pub fn zone(&self) -> ZoneId {
        self.zone
    }
}

/// A message on its way to devices. Instants are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What applies to it.
    pub plan: Plan,
    /// When it was accepted.
    pub accepted_ms: u64,
    /// When it is due, if not at once.
    pub schedule: Option<Schedule>,
    /// How long after it is due it is still sent.
    pub ttl_ms: u64,
}

/// A device, as far as the rules ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its number.
    pub number: u32,
    /// Its zone; none is its app's.
    pub zone: Option<ZoneId>,
}

/// What a decision depends on besides message and device.
#[derive(Clone, Copy, Debug)]
pub struct State<'a> {
    /// Where the zones are from that message and device name.
    pub zones: &'a Zones,
    /// What devices have had.
    pub counters: &'a Counters,
}

/// Why, and by which rule that counts, if by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Why {
    /// Why.
    pub reason: Reason,
    /// Which rule; [`Counters::key`](crate::Counters::key) says its name: `class marketing`, `cap
    /// weekly`.
    pub rule: Option<RuleId>,
}

impl From<Reason> for Why {
    fn from(reason: Reason) -> Why {
        Why { reason, rule: None }
    }
}

/// What becomes of a message for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is sent.
    Now,
    /// It is asked for again at an instant, in milliseconds since 1970.
    At(u64, Why),
    /// It is not sent.
    Never(Why),
}

/// What becomes of a message as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Judgement<'r> {
    /// It may go to devices.
    Allowed,
    /// Somebody has to approve it.
    Held {
        /// Why.
        reason: Reason,
        /// The content rule that says so, if one does.
        rule: Option<&'r str>,
        /// What that says to sender and reviewer.
        text: &'r str,
    },
    /// It is not sent.
    Rejected {
        /// Why.
        reason: Reason,
        /// The content rule that says so; none if there is no such class, or the content is too
        /// long to be looked at.
        rule: Option<&'r str>,
        /// What that says to its sender.
        text: &'r str,
    },
}

/// A [`Policy`] that was checked, and whose content rules are ready. This is the part that takes
/// time, a second for 100,000 keywords, and may be done on another thread than that which sends.
#[derive(Debug)]
pub struct Draft {
    policy: Policy,
    content: Contents,
}

impl Draft {
    /// Checks a policy.
    ///
    /// # Errors
    /// Everything that is wrong with it, by its keys.
    pub fn new(policy: Policy) -> Result<Draft, PolicyError> {
        let mut faults = Faults::default();
        policy.check(&mut faults);
        let mut zones = Zones::new();
        for (key, name) in zones_of(&policy) {
            if let Err(error) = zones.intern(name) {
                faults.add(key, error);
            }
        }
        let content = Contents::new(&policy.content, &mut faults);
        match faults.0.is_empty() {
            true => Ok(Draft { policy, content }),
            false => Err(PolicyError { faults: faults.0 }),
        }
    }

    /// The policy that it is of.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Makes it what is asked from now on: the zones that it names are interned, and its caps and
    /// quotas take the place of those that were counted before. Plans of before are good still;
    /// caps that are gone no longer hold for them, and new ones do not yet.
    ///
    /// # Errors
    /// There were too many caps and quotas since the start; what is counted is what was before.
    pub fn adopt(self, zones: &mut Zones, counters: &mut Counters) -> Result<Rules, TooManyRules> {
        let Draft { policy, content } = self;
        let named = counters.adopt(&counts_of(&policy))?;
        let (quotas, caps) = named.split_at(named.len() - policy.caps.len());
        let with_quota = policy.classes.iter().filter(|(_, class)| class.per_day > 0);
        let quotas = with_quota.zip(quotas).map(|((name, _), rule)| (name.as_str().into(), *rule));
        let (quotas, caps) = (quotas.collect(), caps.to_vec());
        let mut known = |name: &str| zones.intern(name).expect("checked: the database has it");
        let zone = known(&policy.time_zone);
        let with_zone = policy.apps.iter().filter_map(|(app, rules)| {
            let name = rules.time_zone.as_deref()?;
            Some((app.as_str().into(), known(name)))
        });
        let app_zones = with_zone.collect();
        Ok(Rules { zone, app_zones, quotas, caps, content, policy })
    }
}

/// The zones that a policy names, and by which keys.
fn zones_of(policy: &Policy) -> impl Iterator<Item = (String, &str)> {
    let of_apps = policy.apps.iter().filter_map(|(app, rules)| {
        Some((format!("apps.{app}.time_zone"), rules.time_zone.as_deref()?))
    });
    std::iter::once(("time_zone".to_owned(), policy.time_zone.as_str())).chain(of_apps)
}

impl Rules {
    /// The policy that they are of.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// What applies to messages of a class and a category to devices of an app; none if there is
    /// no such class ([`Reason::UnknownClass`]).
    pub fn plan(&self, class: &str, app: &str, category: Option<&str>) -> Option<Plan> {
        let of_class = self.policy.classes.get(class)?;
        let of_app = self.policy.apps.get(app);
        let mut counted: Vec<(RuleId, (Action, bool))> = Vec::new();
        if let Some(quota) = self.quotas.get(class) {
            counted.push((*quota, (of_class.beyond, true)));
        }
        if of_class.capped {
            for (rule, cap) in self.caps.iter().zip(self.policy.caps.values()) {
                let is_app = cap.app.as_deref().is_none_or(|only| only == app);
                let is_category = cap.category.is_none() || cap.category.as_deref() == category;
                if is_app && is_category {
                    counted.push((*rule, (cap.beyond, false)));
                }
            }
        }
        let (rules, beyond): (Vec<_>, Vec<_>) = counted.into_iter().unzip();
        let quiet = of_app.and_then(|app| app.quiet_hours).filter(|_| of_class.quiet_hours);
        Some(Plan {
            priority: of_class.priority,
            ttl_ms: u64::try_from(of_class.ttl.get().as_millis()).expect("checked: 366 days"),
            review: of_class.review,
            hours: of_class.hours,
            quiet,
            zone: self.app_zones.get(app).copied().unwrap_or(self.zone),
            rules: rules.into(),
            beyond: beyond.into(),
        })
    }

    /// Whether a message of a class to devices of an app may be sent, by what it says and by its
    /// class. Content rules go first; an exception from them is none from the review of a class.
    pub fn judge(&self, class: &str, app: &str, content: &Content<'_>) -> Judgement<'_> {
        let Some(of_class) = self.policy.classes.get(class) else {
            return Judgement::Rejected { reason: Reason::UnknownClass, rule: None, text: "" };
        };
        if content.is_too_long() {
            let text = "title, text and links have more than 16 KiB";
            return Judgement::Rejected { reason: Reason::ContentRejected, rule: None, text };
        }
        let hit = self.content.decide(app, class, content);
        match hit.map(|hit| (hit.outcome, Some(hit.rule), hit.reason)) {
            Some((Outcome::Reject, rule, text)) => {
                Judgement::Rejected { reason: Reason::ContentRejected, rule, text }
            }
            Some((Outcome::Review, rule, text)) => {
                Judgement::Held { reason: Reason::ContentReview, rule, text }
            }
            _ if of_class.review => {
                Judgement::Held { reason: Reason::ClassReview, rule: None, text: "" }
            }
            _ => Judgement::Allowed,
        }
    }

    /// Whether a schedule is no further ahead of `now_ms` than schedules may be.
    ///
    /// # Errors
    /// [`Reason::BeyondSchedule`].
    pub fn check_schedule(&self, schedule: Schedule, now_ms: u64) -> Result<(), Reason> {
        let ahead_ms = self.policy.schedule_ahead_max.get().as_millis();
        let is_ahead = u128::from(schedule.last().saturating_sub(now_ms)) > ahead_ms;
        if is_ahead { Err(Reason::BeyondSchedule) } else { Ok(()) }
    }

    /// How many messages a day a credential may send; 0 is no limit.
    pub fn sender_limit(&self, credential: &str) -> u64 {
        let quotas = &self.policy.quotas;
        quotas.credentials.get(credential).copied().unwrap_or(quotas.per_day)
    }

    /// The zone whose days are those of senders' quotas.
    pub fn zone(&self) -> ZoneId {
        self.zone
    }

    /// How fast all may be; none is no limit.
    pub fn overall_rate(&self) -> Option<Rate> {
        Rate::per_second(self.policy.throttle.messages_per_second)
    }

    /// How fast an app may be; none is no limit.
    pub fn app_rate(&self, app: &str) -> Option<Rate> {
        let own = self.policy.apps.get(app).and_then(|app| app.messages_per_second);
        Rate::per_second(own.unwrap_or(self.policy.throttle.app_messages_per_second))
    }

    /// How fast a campaign is that does not say itself; none is no limit.
    pub fn campaign_rate(&self) -> Option<Rate> {
        Rate::per_second(self.policy.throttle.campaign_messages_per_second)
    }
}

/// The rules of a policy that count: the quotas of its classes, then its caps.
fn counts_of(policy: &Policy) -> Vec<CountRule> {
    let quotas = policy.classes.iter().filter(|(_, class)| class.per_day > 0);
    let quotas = quotas.map(|(name, class)| {
        let key = format!("class {name}").into();
        CountRule { key, limit: class.per_day, period: Period::Day }
    });
    let caps = policy.caps.iter().map(|(name, cap)| {
        let span_ms = u64::try_from(cap.per.get().as_millis()).expect("checked: 400 days");
        let key = format!("cap {name}").into();
        CountRule { key, limit: cap.messages, period: Period::Span(span_ms) }
    });
    quotas.chain(caps).collect()
}

/// What becomes of a message for a device at `now_ms`.
pub fn decide(message: &Message, device: Device, state: State<'_>, now_ms: u64) -> Decision {
    let plan = &message.plan;
    let zone = state.zones.get(device.zone.unwrap_or(plan.zone));
    let due_ms = message.schedule.map_or(message.accepted_ms, |schedule| schedule.due_in(zone));
    // What was due before it was accepted lives from then on.
    let due_ms = due_ms.max(message.accepted_ms);
    let expires_ms = due_ms.saturating_add(message.ttl_ms);
    let window = |from_ms| when(from_ms, zone, plan.hours, plan.quiet, expires_ms);
    match window(now_ms.max(due_ms)) {
        When::Never(reason) => return Decision::Never(reason.into()),
        When::At(at_ms, reason) => return Decision::At(at_ms, reason.into()),
        When::Now if due_ms > now_ms => return Decision::At(due_ms, Reason::Scheduled.into()),
        When::Now => {}
    }
    let mut waits: Option<(u64, Why, bool)> = None;
    for (rule, (beyond, is_quota)) in plan.rules.iter().zip(&plan.beyond) {
        let Some(until_ms) = state.counters.capped_until(device.number, *rule, now_ms, zone) else {
            continue;
        };
        let reason = if *is_quota { Reason::DailyQuota } else { Reason::FrequencyCap };
        let why = Why { reason, rule: Some(*rule) };
        if *beyond == Action::Drop {
            return Decision::Never(why);
        }
        if waits.is_none_or(|(latest_ms, ..)| until_ms > latest_ms) {
            waits = Some((until_ms, why, *is_quota));
        }
    }
    let Some((until_ms, why, is_quota)) = waits else { return Decision::Now };
    match window(until_ms) {
        When::Now => Decision::At(until_ms, why),
        When::At(at_ms, _) => Decision::At(at_ms, why),
        When::Never(Reason::Expired) => {
            let reason =
                if is_quota { Reason::ExpiresBeforeQuota } else { Reason::ExpiresBeforeCap };
            Decision::Never(Why { reason, ..why })
        }
        When::Never(reason) => Decision::Never(reason.into()),
    }
}

#[cfg(test)]
mod tests;
