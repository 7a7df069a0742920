//! How many messages each device has had: what frequency caps and daily quotas ask.
//!
//! A million devices under two rules take 36 MB. A device is an entry of a page, which leads to a
//! chain of counters, one for each rule that it has messages under:
//!
//! ```text
//!   pages      ┌──── 256 heads ────┐         arena   16 bytes each
//!   by device  │ · │ ● │ · │ · │ ● │         ┌──────┬──────┬────────┬─────────────────────┐
//!              └─────┼───────────┼─┘     ┌──►│ next │ rule │ newest │ 7 counts of a byte  │
//!                    └───────────────────┘   └──────┴──────┴────────┴─────────────────────┘
//! ```
//!
//! **A cap over a span** counts in buckets of a sixth of it and looks at seven: so no span, from
//! whatever instant it begins, has more than the limit, and a message is forgotten at the latest a
//! sixth of the span after it could be. **A daily quota** counts by the date that the device's own
//! calendar shows.
//!
//! A counter that has run out is as good as none, and is freed when [`Counters::sweep`] comes by.
//! Where a counter would be one more than there may be, a message is let through uncounted: caps
//! are a kindness, and no reason to lose messages. A clock that is set back a little finds its
//! counts as they were; those of more than a span ahead are forgotten.
//!
//! # What is kept
//! [`Counters::take_record`] says what changed since it was last asked, page by page, each record
//! replacing all that was said of its page before. What a crash takes is what was not yet asked
//! for or not yet durable: messages since then are not counted, so that a device may get more than
//! its caps let through by as many as it was sent in that time, and never fewer.

mod records;

use std::collections::HashMap;

use crate::bytes::Unreadable;
use crate::zones::Zone;

/// The most that a rule may let through: counts are bytes.
pub const COUNT_MAX: u8 = u8::MAX;
/// The shortest span of a cap, in milliseconds.
pub const SPAN_MS_MIN: u64 = 60_000;
/// The longest span of a cap, in milliseconds: 400 days.
pub const SPAN_MS_MAX: u64 = 400 * DAY_MS;
/// Rules at once, and rules that there were since the start.
pub const RULES_MAX: usize = u16::MAX as usize;

const DAY_MS: u64 = 86_400_000;
/// Counts of a counter.
const BUCKETS: usize = 7;
const PAGE_DEVICES: usize = 256;
const CHUNK_COUNTERS: usize = 4096;
const NIL: u32 = u32::MAX;
/// Bucket numbers are kept by their lowest 24 bits: at the shortest span they come again after
/// five years.
const EPOCH_BITS: u32 = 24;

/// What time a rule counts over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// Any stretch of so many milliseconds, [`SPAN_MS_MIN`] to [`SPAN_MS_MAX`].
    Span(u64),
    /// A day of the device's calendar.
    Day,
}

impl Period {
    fn bucket_ms(self) -> u64 {
        match self {
            Period::Span(span_ms) => span_ms.div_ceil(BUCKETS as u64 - 1).max(1),
            Period::Day => DAY_MS,
        }
    }

    /// The bucket that a message at an instant counts in.
    fn bucket(self, at_ms: u64, zone: &Zone) -> u64 {
        match self {
            Period::Span(_) => at_ms / self.bucket_ms(),
            Period::Day => zone.day(at_ms).max(0) as u64,
        }
    }

    /// The buckets that may count at an instant, whatever the zone: a calendar is a day before or
    /// after that of UTC at most.
    fn about(self, at_ms: u64) -> About {
        let reach = match self {
            Period::Span(_) => BUCKETS as u64,
            Period::Day => 1,
        };
        About { bucket: at_ms / self.bucket_ms(), reach }
    }
}

/// The buckets around one.
#[derive(Clone, Copy, Debug)]
struct About {
    bucket: u64,
    reach: u64,
}

impl About {
    fn has(self, counter: &Counter) -> bool {
        counter.behind(self.bucket).unsigned_abs() <= self.reach
    }
}

/// A rule that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountRule {
    /// Names it among all, now and after a restart.
    pub key: Box<str>,
    /// Messages that it lets through, at least one.
    pub limit: u8,
    /// Over what time.
    pub period: Period,
}

/// The name of a rule, for as long as its [`Counters`] live: no other is given it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(u16);

/// A device has had as many messages as a rule lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capped {
    /// Which rule; of several the one that lets through last.
    pub rule: RuleId,
    /// When it lets the next through, in milliseconds since 1970.
    pub until_ms: u64,
}

/// There were too many rules since the start; a restart numbers them anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {RULES_MAX} rules that count: restart to forget those that are gone")]
pub struct TooManyRules;

/// Bounds of [`Counters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountLimits {
    /// Device numbers are below this; others are not counted. 16,777,216 by default: 512 KiB.
    pub devices_max: u32,
    /// Counters at once, 16 bytes each. 33,554,432 by default: 512 MiB.
    pub counters_max: u32,
}

impl Default for CountLimits {
    fn default() -> CountLimits {
        CountLimits { devices_max: 1 << 24, counters_max: 1 << 25 }
    }
}

/// What messages under one rule a device has had.
#[derive(Clone, Copy, Debug)]
struct Counter {
    next: u32,
    rule: RuleId,
    /// The bucket of the first count.
    newest: [u8; 3],
    /// Of the newest bucket and those before it.
    counts: [u8; BUCKETS],
}

const _: () = assert!(size_of::<Counter>() == 16);

impl Counter {
    const FREE: Counter =
        Counter { next: NIL, rule: RuleId(0), newest: [0; 3], counts: [0; BUCKETS] };

    /// How many buckets `bucket` is after the newest; negative if before.
    fn behind(&self, bucket: u64) -> i64 {
        let [a, b, c] = self.newest;
        let newest = i64::from(u32::from_le_bytes([a, b, c, 0]));
        let ahead = ((bucket as i64) - newest) & ((1 << EPOCH_BITS) - 1);
        if ahead >> (EPOCH_BITS - 1) == 0 { ahead } else { ahead - (1 << EPOCH_BITS) }
    }

    fn begin(&mut self, bucket: u64) {
        let [a, b, c, ..] = bucket.to_le_bytes();
        self.newest = [a, b, c];
        self.counts = [0; BUCKETS];
    }

    /// Makes `bucket` the newest unless it is older; tells its place among the counts.
    fn turn_to(&mut self, bucket: u64) -> usize {
        let behind = self.behind(bucket);
        if behind.unsigned_abs() >= BUCKETS as u64 {
            self.begin(bucket);
            return 0;
        }
        if behind < 0 {
            return behind.unsigned_abs() as usize;
        }
        let counts = self.counts;
        self.begin(bucket);
        let behind = behind as usize;
        self.counts[behind..].copy_from_slice(&counts[..BUCKETS - behind]);
        0
    }
}

/// A rule as counters know it.
#[derive(Clone, Debug)]
struct Slot {
    key: Box<str>,
    limit: u8,
    period: Period,
    live: bool,
}

#[derive(Debug)]
struct Page {
    heads: [u32; PAGE_DEVICES],
    /// Counters of its devices.
    counters: u32,
}

/// How many messages each device has had under each rule.
#[derive(Debug)]
pub struct Counters {
    limits: CountLimits,
    /// By [`RuleId`].
    slots: Vec<Slot>,
    pages: Vec<Option<Box<Page>>>,
    arena: Vec<Box<[Counter]>>,
    free: u32,
    counters: u32,
    swept: usize,
    uncounted: u64,
    /// A bit for each page whose record is to be written.
    changed: Vec<u64>,
    rules_changed: bool,
    /// The rules of the log that is replayed, as ours.
    replayed: HashMap<u16, Option<RuleId>>,
}

impl Counters {
    /// Nothing counted, and no rules.
    pub fn new(limits: CountLimits) -> Counters {
        Counters {
            limits,
            slots: Vec::new(),
            pages: Vec::new(),
            arena: Vec::new(),
            free: NIL,
            counters: 0,
            swept: 0,
            uncounted: 0,
            changed: Vec::new(),
            rules_changed: true,
            replayed: HashMap::new(),
        }
    }

    /// Replaces the rules, and says by what each is named from now on, in their order. What was
    /// counted under one that has the same key and period as before is kept, and so is its name;
    /// what was counted under others is forgotten, and their names count nothing any longer.
    ///
    /// # Errors
    /// There were too many since the start; the rules are those of before.
    pub fn adopt(&mut self, rules: &[CountRule]) -> Result<Vec<RuleId>, TooManyRules> {
        let known: HashMap<(&str, u64), usize> = (self.slots.iter().enumerate())
            .filter(|(_, slot)| slot.live)
            .map(|(at, slot)| ((&*slot.key, records::period_code(slot.period)), at))
            .collect();
        let mut new = Vec::new();
        let mut names = Vec::new();
        for CountRule { key, limit, period } in rules {
            let found = known.get(&(&**key, records::period_code(*period))).copied();
            let number = found.unwrap_or_else(|| {
                let (key, limit, period) = (key.clone(), *limit, *period);
                new.push(Slot { key, limit, period, live: true });
                self.slots.len() + new.len() - 1
            });
            names.push(u16::try_from(number).map(RuleId).map_err(|_| TooManyRules)?);
        }
        self.slots.extend(new);
        self.slots.iter_mut().for_each(|slot| slot.live = false);
        for (name, rule) in names.iter().zip(rules) {
            let slot = &mut self.slots[usize::from(name.0)];
            (slot.live, slot.limit) = (true, rule.limit);
        }
        self.rules_changed = true;
        Ok(names)
    }

    /// The key of a rule that there is, or was.
    pub fn key(&self, rule: RuleId) -> Option<&str> {
        self.slots.get(usize::from(rule.0)).map(|slot| &*slot.key)
    }

    /// Whether a device whose clock is of `zone` may have a message under these rules at `now_ms`.
    ///
    /// # Errors
    /// One of the rules lets no more through before an instant.
    pub fn admit(
        &self,
        device: u32,
        rules: &[RuleId],
        now_ms: u64,
        zone: &Zone,
    ) -> Result<(), Capped> {
        let capped = rules.iter().filter_map(|rule| {
            let until_ms = self.capped_until(device, *rule, now_ms, zone)?;
            Some(Capped { rule: *rule, until_ms })
        });
        capped.max_by_key(|capped| capped.until_ms).map_or(Ok(()), Err)
    }

    /// When a rule lets a device have its next message, if not at once.
    pub(crate) fn capped_until(
        &self,
        device: u32,
        rule: RuleId,
        now_ms: u64,
        zone: &Zone,
    ) -> Option<u64> {
        let Slot { limit, period, .. } = *self.slot(rule)?;
        let counter = self.find(device, rule)?;
        let bucket = period.bucket(now_ms, zone);
        let behind = counter.behind(bucket);
        if behind.unsigned_abs() >= BUCKETS as u64 {
            return None;
        }
        if period == Period::Day {
            let before = usize::try_from(-behind).ok()?;
            return (counter.counts[before] >= limit).then(|| zone.next_day(now_ms));
        }
        // Counts of a clock that was set back are those of now.
        let oldest = BUCKETS - behind.max(0) as usize;
        let mut sum: u32 = counter.counts[..oldest].iter().map(|count| u32::from(*count)).sum();
        if sum < u32::from(limit) {
            return None;
        }
        for at in (0..oldest).rev() {
            sum -= u32::from(counter.counts[at]);
            if sum < u32::from(limit) {
                let newest = bucket.saturating_add_signed(-behind);
                let ends = newest - (at as u64).min(newest) + BUCKETS as u64;
                return Some(ends.saturating_mul(period.bucket_ms()));
            }
        }
        None
    }

    /// Counts a message that a device was sent at `at_ms`.
    pub fn note(&mut self, device: u32, rules: &[RuleId], at_ms: u64, zone: &Zone) {
        for rule in rules {
            let Some(period) = self.slot(*rule).map(|slot| slot.period) else { continue };
            let bucket = period.bucket(at_ms, zone);
            let Some(counter) = self.find_or_add(device, *rule, bucket) else {
                self.uncounted += 1;
                continue;
            };
            let mut at = counter.turn_to(bucket);
            if period != Period::Day {
                // An older bucket would be forgotten too early.
                at = 0;
            }
            counter.counts[at] = counter.counts[at].saturating_add(1);
            self.page_changed(device);
        }
    }

    /// Takes back a message that was counted at `noted_ms`: it was recalled, or not sent.
    pub fn undo(&mut self, device: u32, rules: &[RuleId], noted_ms: u64, zone: &Zone) {
        for rule in rules {
            let Some(period) = self.slot(*rule).map(|slot| slot.period) else { continue };
            let bucket = period.bucket(noted_ms, zone);
            let Some(counter) = self.find_mut(device, *rule) else { continue };
            let before = usize::try_from(-counter.behind(bucket)).ok();
            let count = before.and_then(|before| counter.counts.get_mut(before));
            let Some(count) = count else { continue };
            *count = count.saturating_sub(1);
            self.page_changed(device);
        }
    }

    /// Forgets a device that is gone.
    pub fn forget(&mut self, device: u32) {
        let page = device as usize / PAGE_DEVICES;
        if self.pages.get(page).is_some_and(Option::is_some) {
            self.retain(device, |_| false);
            self.page_changed(device);
        }
    }

    /// Frees what has run out by `now_ms`, and what was counted under rules that are gone, among
    /// the next `pages` pages of 256 devices. Tells how many counters were freed.
    pub fn sweep(&mut self, pages: usize, now_ms: u64) -> u32 {
        let before = self.counters;
        let abouts: Vec<Option<About>> =
            (self.slots.iter()).map(|slot| slot.live.then(|| slot.period.about(now_ms))).collect();
        for _ in 0..pages.min(self.pages.len()) {
            let page = self.swept % self.pages.len();
            self.swept = page + 1;
            if self.pages[page].is_some() {
                self.sweep_page(page, &abouts);
            }
        }
        before - self.counters
    }

    fn sweep_page(&mut self, page: usize, abouts: &[Option<About>]) {
        for device in page * PAGE_DEVICES..(page + 1) * PAGE_DEVICES {
            self.retain(device as u32, |counter| {
                abouts[usize::from(counter.rule.0)].is_some_and(|about| about.has(counter))
            });
        }
        if self.pages[page].as_ref().is_some_and(|page| page.counters == 0) {
            self.pages[page] = None;
        }
    }

    /// Counters that are held, run out or not.
    pub fn counters(&self) -> u32 {
        self.counters
    }

    /// Messages that were let through uncounted, for want of room.
    pub fn uncounted(&self) -> u64 {
        self.uncounted
    }

    /// Memory that is held, in bytes.
    pub fn memory_bytes(&self) -> usize {
        let pages = self.pages.iter().flatten().count();
        self.arena.len() * CHUNK_COUNTERS * size_of::<Counter>()
            + pages * size_of::<Page>()
            + self.pages.capacity() * size_of::<Option<Box<Page>>>()
            + self.changed.capacity() * size_of::<u64>()
    }

    /// A rule, unless it is gone.
    fn slot(&self, rule: RuleId) -> Option<&Slot> {
        self.slots.get(usize::from(rule.0)).filter(|slot| slot.live)
    }

    fn at(&self, counter: u32) -> &Counter {
        &self.arena[counter as usize / CHUNK_COUNTERS][counter as usize % CHUNK_COUNTERS]
    }

    fn at_mut(&mut self, counter: u32) -> &mut Counter {
        &mut self.arena[counter as usize / CHUNK_COUNTERS][counter as usize % CHUNK_COUNTERS]
    }

    fn head(&self, device: u32) -> u32 {
        let device = device as usize;
        let page = self.pages.get(device / PAGE_DEVICES).and_then(Option::as_ref);
        page.map_or(NIL, |page| page.heads[device % PAGE_DEVICES])
    }

    /// A device's counters and their numbers.
    fn chain(&self, device: u32) -> impl Iterator<Item = (u32, &Counter)> {
        let mut next = self.head(device);
        std::iter::from_fn(move || {
            let number = next;
            let counter = (number != NIL).then(|| self.at(number))?;
            next = counter.next;
            Some((number, counter))
        })
    }

    /// The number of a device's counter.
    fn number(&self, device: u32, rule: RuleId) -> Option<u32> {
        self.chain(device).find(|(_, counter)| counter.rule == rule).map(|(number, _)| number)
    }

    fn find(&self, device: u32, rule: RuleId) -> Option<&Counter> {
        self.chain(device).map(|(_, counter)| counter).find(|counter| counter.rule == rule)
    }

    fn find_mut(&mut self, device: u32, rule: RuleId) -> Option<&mut Counter> {
        self.number(device, rule).map(|number| self.at_mut(number))
    }

    fn find_or_add(&mut self, device: u32, rule: RuleId, bucket: u64) -> Option<&mut Counter> {
        let number = match self.number(device, rule) {
            Some(number) => number,
            None => self.add(device, rule, bucket)?,
        };
        Some(self.at_mut(number))
    }

    /// A new counter at the head of a device's, if there is room.
    fn add(&mut self, device: u32, rule: RuleId, bucket: u64) -> Option<u32> {
        if device >= self.limits.devices_max || self.counters >= self.limits.counters_max {
            return None;
        }
        if self.free == NIL {
            self.grow();
        }
        let number = self.free;
        self.free = self.at(number).next;
        self.counters += 1;
        let page = device as usize / PAGE_DEVICES;
        if page >= self.pages.len() {
            self.pages.resize_with(page + 1, || None);
        }
        let page = self.pages[page]
            .get_or_insert_with(|| Box::new(Page { heads: [NIL; PAGE_DEVICES], counters: 0 }));
        page.counters += 1;
        let next = std::mem::replace(&mut page.heads[device as usize % PAGE_DEVICES], number);
        let counter = self.at_mut(number);
        *counter = Counter { next, rule, ..Counter::FREE };
        counter.begin(bucket);
        Some(number)
    }

    fn grow(&mut self) {
        let first = (self.arena.len() * CHUNK_COUNTERS) as u32;
        let mut chunk = vec![Counter::FREE; CHUNK_COUNTERS].into_boxed_slice();
        for (number, counter) in (first + 1..).zip(&mut chunk) {
            counter.next = number;
        }
        chunk[CHUNK_COUNTERS - 1].next = self.free;
        self.arena.push(chunk);
        self.free = first;
    }

    /// Frees those counters of a device that are not `kept`.
    fn retain(&mut self, device: u32, kept: impl Fn(&Counter) -> bool) {
        let mut next = self.head(device);
        let mut before = NIL;
        while next != NIL {
            let number = next;
            let counter = *self.at(number);
            next = counter.next;
            if kept(&counter) {
                before = number;
                continue;
            }
            let page = self.pages[device as usize / PAGE_DEVICES].as_mut();
            let page = page.expect("a device with counters has a page");
            page.counters -= 1;
            match before {
                NIL => page.heads[device as usize % PAGE_DEVICES] = next,
                before => self.at_mut(before).next = next,
            }
            self.at_mut(number).next = self.free;
            self.free = number;
            self.counters -= 1;
        }
        if self.counters == 0 {
            // The busiest time is over, and nothing points here.
            self.arena.clear();
            self.free = NIL;
        }
    }

    fn page_changed(&mut self, device: u32) {
        let page = device as usize / PAGE_DEVICES;
        let word = page / 64;
        if word >= self.changed.len() {
            self.changed.resize(word + 1, 0);
        }
        self.changed[word] |= 1 << (page % 64);
    }
}

#[cfg(test)]
mod tests;
