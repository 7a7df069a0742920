//! Who may send how much now: many campaigns, their rates, and the rates of their apps and of all.
//!
//! ```text
//!              priority 9 ──► app ──► campaign        a turn each, so many messages a turn
//!   overall ──►    …      ──► app ──► campaign
//!   bucket     priority 0     bucket  campaign
//!                             of app  bucket
//! ```
//!
//! A campaign with a higher priority goes first, always: a transactional message overtakes a
//! broadcast in its midst. Among campaigns of one priority the apps take turns, and the campaigns
//! of an app (deficit round robin; a message is the unit), so none starves, and an app with many
//! campaigns gets no more than one with a single. A campaign or an app whose bucket is empty is
//! out of the way until it has a message's worth again, so a call costs no more when thousands
//! wait.
//!
//! **Rates are exact.** A bucket holds thousandths of messages, which a rate per second adds in
//! whole numbers a millisecond. In no window of any length does more go out than the rate times
//! its length and the burst. **Nothing idles**: if a campaign could send, [`Throttle::next`] names
//! one. A clock that is set back adds nothing, and nobody waits until it is where it was.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};

/// Priorities are 0 to 9; 9 goes first.
pub const PRIORITY_MAX: u8 = 9;
/// The fastest rate, in messages a second.
pub const RATE_MAX: u32 = 10_000_000;
/// Messages that a campaign sends before it is the next one's turn.
const TURN: u32 = 64;

const PRIORITIES: usize = PRIORITY_MAX as usize + 1;

/// So many messages a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    per_second: u32,
    burst: u32,
}

impl Rate {
    /// A rate whose burst is a twentieth of a second's messages, at least one. None if it is 0 or
    /// above [`RATE_MAX`].
    pub fn per_second(per_second: u32) -> Option<Rate> {
        Rate::with_burst(per_second, (per_second / 20).max(1))
    }

    /// A rate, and how many messages may go at once after a pause.
    pub fn with_burst(per_second: u32, burst: u32) -> Option<Rate> {
        let within = 1..=RATE_MAX;
        (within.contains(&per_second) && within.contains(&burst))
            .then_some(Rate { per_second, burst })
    }
}

/// Thousandths of a message.
const MESSAGE: u64 = 1000;
/// The longest that anybody waits: for a message's worth at one a second, in milliseconds. What is
/// further ahead was said before the clock was set back.
const WAIT_MS_MAX: u64 = 1000;

#[derive(Clone, Copy, Debug)]
struct Bucket {
    rate: Rate,
    tokens: u64,
    filled_ms: u64,
}

impl Bucket {
    fn new(rate: Rate, now_ms: u64) -> Bucket {
        Bucket { rate, tokens: u64::from(rate.burst) * MESSAGE, filled_ms: now_ms }
    }

    fn set(&mut self, rate: Rate) {
        self.rate = rate;
        self.tokens = self.tokens.min(u64::from(rate.burst) * MESSAGE);
    }

    /// Messages that there are tokens for.
    fn has(&mut self, now_ms: u64) -> u64 {
        if now_ms > self.filled_ms {
            let added = (now_ms - self.filled_ms).saturating_mul(u64::from(self.rate.per_second));
            let full = u64::from(self.rate.burst) * MESSAGE;
            self.tokens = self.tokens.saturating_add(added).min(full);
            self.filled_ms = now_ms;
        } else if self.filled_ms - now_ms > WAIT_MS_MAX {
            self.filled_ms = now_ms;
        }
        self.tokens / MESSAGE
    }

    fn take(&mut self, messages: u64) {
        assert!(self.tokens >= messages * MESSAGE, "what is granted was there");
        self.tokens -= messages * MESSAGE;
    }

    /// When there is a message's worth.
    fn ready_ms(&self) -> u64 {
        let missing = MESSAGE.saturating_sub(self.tokens);
        self.filled_ms.saturating_add(missing.div_ceil(u64::from(self.rate.per_second)))
    }
}

/// Messages without a limit are no bucket.
fn has(bucket: &mut Option<Bucket>, now_ms: u64) -> u64 {
    bucket.as_mut().map_or(u64::MAX, |bucket| bucket.has(now_ms))
}

fn take(bucket: &mut Option<Bucket>, messages: u64) {
    if let Some(bucket) = bucket {
        bucket.take(messages);
    }
}

/// What may be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Of which campaign.
    pub campaign: u64,
    /// How many messages, at least one.
    pub messages: u32,
}

/// Why a campaign is not scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ThrottleError {
    /// There are as many as there may be.
    #[error("{max} campaigns are being sent: one has to end first")]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// It is scheduled already.
    #[error("campaign {campaign} is being sent already")]
    Known {
        /// Which one.
        campaign: u64,
    },
    /// Its priority is above [`PRIORITY_MAX`].
    #[error("priority {priority} is above {PRIORITY_MAX}")]
    Priority {
        /// What was asked for.
        priority: u8,
    },
}

#[derive(Debug)]
struct Campaign {
    app: u16,
    priority: u8,
    bucket: Option<Bucket>,
    pending: u64,
    /// What is left of its turn.
    turn: u32,
    place: Place,
}

/// Where a campaign is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// It has no messages.
    Nowhere,
    /// Among those of its app that take turns.
    Ring,
    /// It waits for its own bucket until then. What else the heap says of it no longer holds.
    Waits(u64),
}

/// An app's campaigns of one priority.
#[derive(Debug, Default)]
struct Ring {
    campaigns: VecDeque<u64>,
    /// What is left of the app's turn.
    turn: u32,
    /// The app is among those of this priority that take turns.
    placed: bool,
}

#[derive(Debug, Default)]
struct App {
    bucket: Option<Bucket>,
    rings: [Ring; PRIORITIES],
    campaigns: usize,
    /// It waits for its bucket until then, and takes no turns.
    waits: Option<u64>,
}

/// Who waits for a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Waiter {
    App(u16),
    Campaign(u64),
}

/// Campaigns being sent, and how fast they may be.
#[derive(Debug)]
pub struct Throttle {
    overall: Option<Bucket>,
    /// Apps with campaigns, or with a rate.
    apps: BTreeMap<u16, App>,
    campaigns: HashMap<u64, Campaign>,
    campaigns_max: usize,
    /// For each priority, whose turn it is.
    turns: [VecDeque<u16>; PRIORITIES],
    /// Those with an empty bucket, by when they have a message's worth.
    waiting: BinaryHeap<Reverse<(u64, Waiter)>>,
}

impl Throttle {
    /// No campaigns, and no rate; at most `campaigns_max` at once.
    pub fn new(campaigns_max: usize) -> Throttle {
        Throttle {
            overall: None,
            apps: BTreeMap::new(),
            campaigns: HashMap::new(),
            campaigns_max,
            turns: Default::default(),
            waiting: BinaryHeap::new(),
        }
    }

    /// How fast all together may be; none is no limit.
    pub fn set_overall(&mut self, rate: Option<Rate>, now_ms: u64) {
        set(&mut self.overall, rate, now_ms);
    }

    /// How fast an app may be; none is no limit.
    pub fn set_app(&mut self, app: u16, rate: Option<Rate>, now_ms: u64) {
        let entry = self.apps.entry(app).or_default();
        set(&mut entry.bucket, rate, now_ms);
        if entry.campaigns == 0 && rate.is_none() {
            self.apps.remove(&app);
            self.turns.iter_mut().for_each(|turns| turns.retain(|other| *other != app));
        } else {
            // Its wait is another one now.
            self.place_app(app);
        }
    }

    /// Begins a campaign of `pending` messages.
    ///
    /// # Errors
    /// There are too many, it is known, or its priority is none.
    pub fn add(
        &mut self,
        campaign: u64,
        app: u16,
        priority: u8,
        rate: Option<Rate>,
        pending: u64,
        now_ms: u64,
    ) -> Result<(), ThrottleError> {
        if priority > PRIORITY_MAX {
            return Err(ThrottleError::Priority { priority });
        }
        if self.campaigns.contains_key(&campaign) {
            return Err(ThrottleError::Known { campaign });
        }
        if self.campaigns.len() >= self.campaigns_max {
            return Err(ThrottleError::TooMany { max: self.campaigns_max });
        }
        let bucket = rate.map(|rate| Bucket::new(rate, now_ms));
        let entry = Campaign { app, priority, bucket, pending, turn: 0, place: Place::Nowhere };
        self.campaigns.insert(campaign, entry);
        self.apps.entry(app).or_default().campaigns += 1;
        self.place(campaign);
        Ok(())
    }

    /// A campaign has more messages: further targets, or what was granted and not sent. Tells
    /// whether there is such a campaign.
    pub fn more(&mut self, campaign: u64, messages: u64) -> bool {
        let Some(entry) = self.campaigns.get_mut(&campaign) else { return false };
        entry.pending = entry.pending.saturating_add(messages);
        self.place(campaign);
        true
    }

    /// Changes a campaign's own rate. Tells whether there is such a campaign.
    pub fn set_rate(&mut self, campaign: u64, rate: Option<Rate>, now_ms: u64) -> bool {
        let Some(entry) = self.campaigns.get_mut(&campaign) else { return false };
        set(&mut entry.bucket, rate, now_ms);
        if let Place::Waits(_) = entry.place {
            // For the rate of before.
            self.enter_ring(campaign);
        }
        true
    }

    /// Ends a campaign; tells how many messages were pending, if there is such a campaign.
    pub fn end(&mut self, campaign: u64) -> Option<u64> {
        let entry = self.campaigns.remove(&campaign)?;
        let app = self.apps.get_mut(&entry.app).expect("an app stays while it has campaigns");
        app.campaigns -= 1;
        app.rings[usize::from(entry.priority)].campaigns.retain(|other| *other != campaign);
        if app.campaigns == 0 && app.bucket.is_none() {
            self.apps.remove(&entry.app);
            self.turns.iter_mut().for_each(|turns| turns.retain(|other| *other != entry.app));
        }
        Some(entry.pending)
    }

    /// Messages that a campaign still has, if there is such a campaign.
    pub fn pending(&self, campaign: u64) -> Option<u64> {
        self.campaigns.get(&campaign).map(|entry| entry.pending)
    }

    /// Which campaign may send at `now_ms`, and how many of the `budget` that there is room for.
    /// None if nobody may, or `budget` is 0. Asked again until then, it says all that may go.
    pub fn next(&mut self, now_ms: u64, budget: u32) -> Option<Grant> {
        self.wake(now_ms);
        let allowed = has(&mut self.overall, now_ms).min(u64::from(budget));
        if allowed == 0 {
            return None;
        }
        (0..PRIORITIES).rev().find_map(|priority| self.next_of(priority, now_ms, allowed))
    }

    /// When somebody may send who may not now, in milliseconds since 1970; none if nobody waits
    /// for a rate. Only of interest when [`next`](Throttle::next) found nobody.
    pub fn wake_at(&self) -> Option<u64> {
        let first = self.waiting.peek().map(|Reverse((at_ms, _))| *at_ms);
        let ready = self.turns.iter().any(|turns| !turns.is_empty());
        match &self.overall {
            Some(bucket) if ready => Some(bucket.ready_ms()),
            Some(bucket) => first.map(|first| first.max(bucket.ready_ms())),
            None => first,
        }
    }

    fn next_of(&mut self, priority: usize, now_ms: u64, allowed: u64) -> Option<Grant> {
        // Each round grants, or takes a campaign or an app out of the way.
        while let Some(&number) = self.turns[priority].front() {
            let app = self.apps.get_mut(&number).expect("an app that goes takes no turns");
            let of_app = has(&mut app.bucket, now_ms);
            let ring = &mut app.rings[priority];
            if app.waits.is_some() || ring.campaigns.is_empty() {
                (ring.placed, ring.turn) = (false, 0);
                self.turns[priority].pop_front();
                continue;
            }
            if of_app == 0 {
                self.park_app(number);
                continue;
            }
            if ring.turn == 0 {
                ring.turn = TURN;
            }
            let allowed = allowed.min(of_app).min(u64::from(ring.turn));
            let campaign = *ring.campaigns.front().expect("seen above");
            let Some(messages) = self.grant_of(campaign, now_ms, allowed) else { continue };
            self.took(number, priority, messages);
            return Some(Grant { campaign, messages });
        }
        None
    }

    /// What a campaign at the front of its ring may send; if nothing, it is there no more.
    fn grant_of(&mut self, number: u64, now_ms: u64, allowed: u64) -> Option<u32> {
        let campaign = self.campaigns.get_mut(&number).expect("rings name campaigns that are");
        let app = self.apps.get_mut(&campaign.app).expect("an app stays while it has campaigns");
        let ring = &mut app.rings[usize::from(campaign.priority)];
        let own = has(&mut campaign.bucket, now_ms);
        if campaign.pending == 0 || own == 0 {
            ring.campaigns.pop_front();
            (campaign.turn, campaign.place) = (0, Place::Nowhere);
            if let (1.., Some(bucket)) = (campaign.pending, &campaign.bucket) {
                campaign.place = Place::Waits(bucket.ready_ms());
                self.waiting.push(Reverse((bucket.ready_ms(), Waiter::Campaign(number))));
            }
            return None;
        }
        if campaign.turn == 0 {
            campaign.turn = TURN;
        }
        let messages = allowed.min(own).min(campaign.pending).min(u64::from(campaign.turn)) as u32;
        campaign.pending -= u64::from(messages);
        campaign.turn -= messages;
        take(&mut campaign.bucket, u64::from(messages));
        if campaign.turn == 0 {
            ring.campaigns.rotate_left(1);
        }
        Some(messages)
    }

    fn took(&mut self, number: u16, priority: usize, messages: u32) {
        take(&mut self.overall, u64::from(messages));
        let app = self.apps.get_mut(&number).expect("it was just served");
        take(&mut app.bucket, u64::from(messages));
        let ring = &mut app.rings[priority];
        ring.turn -= messages;
        if ring.turn == 0 {
            self.turns[priority].rotate_left(1);
        }
    }

    /// Who has waited long enough takes turns again.
    fn wake(&mut self, now_ms: u64) {
        while let Some(Reverse((at_ms, waiter))) = self.waiting.peek().copied() {
            if at_ms > now_ms && at_ms - now_ms <= WAIT_MS_MAX {
                break;
            }
            self.waiting.pop();
            match waiter {
                Waiter::App(number) => {
                    if self.apps.get(&number).is_some_and(|app| app.waits == Some(at_ms)) {
                        self.place_app(number);
                    }
                }
                Waiter::Campaign(number) => {
                    let waits = Place::Waits(at_ms);
                    if self.campaigns.get(&number).is_some_and(|entry| entry.place == waits) {
                        self.enter_ring(number);
                    }
                }
            }
        }
    }

    fn park_app(&mut self, number: u16) {
        let app = self.apps.get_mut(&number).expect("it has its turn");
        let bucket = app.bucket.as_ref().expect("only a bucket is ever empty");
        app.waits = Some(bucket.ready_ms());
        self.waiting.push(Reverse((bucket.ready_ms(), Waiter::App(number))));
    }

    /// An app that waited, or may not have to any longer, takes turns.
    fn place_app(&mut self, number: u16) {
        let Some(app) = self.apps.get_mut(&number) else { return };
        app.waits = None;
        for (ring, turns) in app.rings.iter_mut().zip(&mut self.turns) {
            if !ring.placed && !ring.campaigns.is_empty() {
                ring.placed = true;
                turns.push_back(number);
            }
        }
    }

    /// A campaign that has messages takes turns, unless it does or waits already.
    fn place(&mut self, number: u64) {
        let campaign = &self.campaigns[&number];
        if campaign.place == Place::Nowhere && campaign.pending > 0 {
            self.enter_ring(number);
        }
    }

    fn enter_ring(&mut self, number: u64) {
        let campaign = self.campaigns.get_mut(&number).expect("asked of those that are");
        let app = self.apps.get_mut(&campaign.app).expect("an app stays while it has campaigns");
        let ring = &mut app.rings[usize::from(campaign.priority)];
        campaign.place = Place::Ring;
        ring.campaigns.push_back(number);
        if app.waits.is_none() && !ring.placed {
            ring.placed = true;
            self.turns[usize::from(campaign.priority)].push_back(campaign.app);
        }
    }
}

fn set(bucket: &mut Option<Bucket>, rate: Option<Rate>, now_ms: u64) {
    match (bucket.as_mut(), rate) {
        (Some(bucket), Some(rate)) => {
            bucket.has(now_ms);
            bucket.set(rate);
        }
        (_, rate) => *bucket = rate.map(|rate| Bucket::new(rate, now_ms)),
    }
}

#[cfg(test)]
mod tests;
