//! The records of [`Counters`].
//!
//! ```text
//!   rules   1  count  (rule  key  period)…                period: 0 a day, else the span in ms
//!   page    2  page   (device  count  (rule  newest  present  counts…)…)…
//! ```
//!
//! Numbers are varints, `device` is counted from the page's first, `newest` is the number of the
//! newest bucket since 1970, `present` has a bit for each bucket that has a count, and counts are
//! bytes. A rule is named by a number that the rules record before says. Counters that ran out are not written.

use super::{
    BUCKETS, Counter, Counters, HashMap, PAGE_DEVICES, Period, RuleId, SPAN_MS_MAX, Unreadable,
};
use crate::bytes::{Parsed, Put, Take};

const RULES: u8 = 1;
const PAGE: u8 = 2;

/// A period as a number of its own.
pub(super) fn period_code(period: Period) -> u64 {
    match period {
        Period::Day => 0,
        Period::Span(span_ms) => span_ms,
    }
}

fn period_of(code: u64) -> Parsed<Period> {
    match code {
        0 => Ok(Period::Day),
        span_ms if span_ms <= SPAN_MS_MAX => Ok(Period::Span(span_ms)),
        _ => Err(Unreadable),
    }
}

impl Counters {
    /// The next record of what changed since it was last written, if something did; it is taken to
    /// be written. One record is at most 256 devices long, or names the rules.
    ///
    /// A record may only be replayed behind all that were taken before it, back to the last
    /// [`all_changed`](Counters::all_changed).
    pub fn take_record(&mut self, now_ms: u64) -> Option<Vec<u8>> {
        if std::mem::take(&mut self.rules_changed) {
            return Some(self.rules_record());
        }
        let word = self.changed.iter().position(|word| *word != 0)?;
        let bit = self.changed[word].trailing_zeros();
        self.changed[word] &= !(1 << bit);
        Some(self.page_record(word * 64 + bit as usize, now_ms))
    }

    /// Has all be written anew: records that were taken before are no longer needed once those
    /// that follow are durable.
    pub fn all_changed(&mut self) {
        self.rules_changed = true;
        self.changed.iter_mut().for_each(|word| *word = 0);
        for page in 0..self.pages.len() {
            if self.pages[page].is_some() {
                self.page_changed((page * PAGE_DEVICES) as u32);
            }
        }
    }

    fn rules_record(&self) -> Vec<u8> {
        let mut out = vec![RULES];
        let live = || self.slots.iter().enumerate().filter(|(_, slot)| slot.live);
        out.number(live().count() as u64);
        for (number, slot) in live() {
            out.number(number as u64);
            out.text(&slot.key);
            out.number(period_code(slot.period));
        }
        out
    }

    fn page_record(&self, page: usize, now_ms: u64) -> Vec<u8> {
        let mut out = vec![PAGE];
        out.number(page as u64);
        for at in 0..PAGE_DEVICES {
            let counters: Vec<(&Counter, u64)> =
                self.live((page * PAGE_DEVICES + at) as u32, now_ms).collect();
            if counters.is_empty() {
                continue;
            }
            out.number(at as u64);
            out.number(counters.len() as u64);
            for (counter, newest) in counters {
                out.number(u64::from(counter.rule.0));
                out.number(newest);
                let present = |(at, count): (usize, &u8)| u8::from(*count != 0) << at;
                out.push(counter.counts.iter().enumerate().map(present).sum());
                out.extend(counter.counts.iter().filter(|count| **count != 0));
            }
        }
        out
    }

    /// The counters of a device that may not have run out, the newest bucket of each.
    fn live(&self, device: u32, now_ms: u64) -> impl Iterator<Item = (&Counter, u64)> {
        self.chain(device).filter_map(move |(_, counter)| {
            let slot = &self.slots[usize::from(counter.rule.0)];
            let about = slot.period.about(now_ms);
            let newest = about.bucket.saturating_add_signed(-counter.behind(about.bucket));
            (slot.live && about.has(counter)).then_some((counter, newest))
        })
    }

    /// Takes in a record of an earlier life, or of this one. Counts under rules that there are no
    /// longer are left out; so are those that have run out by `now_ms`.
    ///
    /// # Errors
    /// The record is none of this version's. What it said of other pages stands.
    pub fn replay(&mut self, record: &[u8], now_ms: u64) -> Result<(), Unreadable> {
        let mut from = Take::new(record);
        match from.byte()? {
            RULES => self.replay_rules(&mut from),
            PAGE => self.replay_page(&mut from, now_ms),
            _ => Err(Unreadable),
        }
    }

    fn replay_rules(&mut self, from: &mut Take<'_>) -> Parsed<()> {
        let ours: HashMap<(&str, u64), RuleId> = (self.slots.iter().zip(0..))
            .filter(|(slot, _)| slot.live)
            .map(|(slot, rule)| ((&*slot.key, period_code(slot.period)), RuleId(rule)))
            .collect();
        let mut replayed = HashMap::new();
        for _ in 0..from.number()? {
            let rule = from.small()?;
            let key = from.text()?;
            let period = period_code(period_of(from.number()?)?);
            replayed.insert(rule, ours.get(&(key, period)).copied());
        }
        if !from.is_empty() {
            return Err(Unreadable);
        }
        self.replayed = replayed;
        Ok(())
    }

    fn replay_page(&mut self, from: &mut Take<'_>, now_ms: u64) -> Parsed<()> {
        let page = from.medium()?;
        let first = page.checked_mul(PAGE_DEVICES as u32).ok_or(Unreadable)?;
        if first >= self.limits.devices_max {
            return Ok(());
        }
        // Read as a whole before anything is changed.
        let mut read = Vec::new();
        while !from.is_empty() {
            let at = from.medium()?;
            if at >= PAGE_DEVICES as u32 {
                return Err(Unreadable);
            }
            for _ in 0..from.number()? {
                read.push((first + at, self.take_counter(from)?));
            }
        }
        if self.pages.get(page as usize).is_some_and(Option::is_some) {
            (first..first + PAGE_DEVICES as u32).for_each(|device| self.retain(device, |_| false));
        }
        for (device, (rule, newest, counts)) in read {
            let Some(rule) = rule else { continue };
            let about = self.slots[usize::from(rule.0)].period.about(now_ms);
            if about.bucket.abs_diff(newest) > about.reach {
                continue;
            }
            if let Some(counter) = self.find_or_add(device, rule, newest) {
                counter.begin(newest);
                counter.counts = counts;
            }
        }
        Ok(())
    }

    /// A counter: its rule, if that is one of ours, its newest bucket, its counts.
    fn take_counter(&self, from: &mut Take<'_>) -> Parsed<(Option<RuleId>, u64, [u8; BUCKETS])> {
        let rule = *self.replayed.get(&from.small()?).ok_or(Unreadable)?;
        let newest = from.number()?;
        let present = from.byte()?;
        if present >> BUCKETS != 0 {
            return Err(Unreadable);
        }
        let mut counts = [0; BUCKETS];
        for (at, count) in counts.iter_mut().enumerate() {
            if present >> at & 1 == 1 {
                *count = from.byte()?;
            }
        }
        Ok((rule, newest, counts))
    }
}
