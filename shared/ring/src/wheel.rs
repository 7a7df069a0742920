//! A hierarchical timer wheel, after Varghese and Lauck (1987): arming and disarming cost a few
//! stores, whatever the number of timers, and a turn without a due timer costs a comparison.
//!
//! ```text
//!   level 0   64 slots of 1 tick        (1.05 ms)
//!   level 1   64 slots of 64 ticks      (67 ms)
//!   …
//!   level 5   64 slots of 2³⁰ ticks     (13 days); later deadlines wait in its last slot
//! ```
//!
//! A tick is 2²⁰ ns. Timers fire at the end of the tick of their deadline, never before it. The
//! timers of a slot form a list through the slab of timers; a bitmap per level finds the next
//! slot in use. As time passes a slot's border, its timers move down a level.

use std::time::Duration;

use crate::slot::{SlotId, Slots};
use crate::time::Time;

const TICK_BITS: u32 = 20;
const LEVELS: usize = 6;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const NONE: u32 = u32::MAX;

/// Names a timer until it fires or is disarmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerId(SlotId);

struct Timer {
    deadline: u64,
    key: u64,
    previous: u32,
    next: u32,
    /// Level × 64 + slot.
    home: u16,
}

/// A wheel of timers, each with a key that says what it is for.
pub struct Wheel {
    timers: Slots<Timer>,
    /// The first timer of each slot, by its number in `timers`.
    heads: [[u32; SLOTS]; LEVELS],
    used: [u64; LEVELS],
    /// The tick that the wheel stands at.
    tick: u64,
    /// The latest tick that a caller has named.
    seen: u64,
}

impl Wheel {
    /// An empty wheel for at most `max` timers, at time `now`.
    pub fn new(max: u32, now: Time) -> Wheel {
        let tick = now.as_nanos() >> TICK_BITS;
        Wheel {
            timers: Slots::new(max),
            heads: [[NONE; SLOTS]; LEVELS],
            used: [0; LEVELS],
            tick,
            seen: tick,
        }
    }

    /// Arms a timer; `None` when there are as many as the wheel may hold. A deadline in the past
    /// fires at the next tick: a timer that arms itself again does not hold up the turn.
    pub fn arm(&mut self, deadline: Time, key: u64) -> Option<TimerId> {
        let nanos = deadline.as_nanos();
        let tick = (nanos >> TICK_BITS) + u64::from(nanos & ((1 << TICK_BITS) - 1) != 0);
        let deadline = tick.max(self.seen + 1);
        let timer = Timer { deadline, key, previous: NONE, next: NONE, home: 0 };
        let id = self.timers.insert(timer).ok()?;
        self.link(id.index() as u32);
        Some(TimerId(id))
    }

    /// Disarms a timer, and tells whether it was still armed.
    pub fn disarm(&mut self, id: TimerId) -> bool {
        if self.timers.get(id.0).is_none() {
            return false;
        }
        self.unlink(id.0.index() as u32);
        self.timers.remove(id.0).is_some()
    }

    /// Timers armed.
    pub fn len(&self) -> usize {
        self.timers.len()
    }

    /// Whether no timer is armed.
    pub fn is_empty(&self) -> bool {
        self.timers.is_empty()
    }

    /// Takes the next timer that is due at `now` and gives its key.
    pub fn fire(&mut self, now: Time) -> Option<u64> {
        let target = now.as_nanos() >> TICK_BITS;
        self.seen = self.seen.max(target);
        while let Some((level, slot, tick)) = self.next_slot().filter(|next| next.2 <= target) {
            assert!(tick >= self.tick, "time on the wheel goes forward");
            self.tick = tick;
            if level > 0 {
                self.move_down(level, slot);
                continue;
            }
            let at = self.heads[0][slot];
            self.unlink(at);
            let id = self.timers.id_at(at as usize).expect("a list holds armed timers");
            return self.timers.remove(id).map(|timer| timer.key);
        }
        self.tick = self.tick.max(target);
        None
    }

    /// How long after `now` the next timer may be due, at the earliest; `None` without timers.
    pub fn next_wait(&self, now: Time) -> Option<Duration> {
        let (_, _, tick) = self.next_slot()?;
        Some(Time::from_nanos(tick << TICK_BITS).since(now))
    }

    /// The first slot in use, and the tick at which it begins.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        (0..LEVELS)
            .filter(|&level| self.used[level] != 0)
            .map(|level| {
                let shift = SLOT_BITS * level as u32;
                let position = self.tick >> shift;
                let ahead = self.used[level].rotate_right((position % SLOTS as u64) as u32);
                let distance = match u64::from(ahead.trailing_zeros()) {
                    // Above level 0 the slot that time is in was emptied when time entered it:
                    // what it holds now is a whole revolution ahead.
                    0 if level > 0 => match (ahead & !1).trailing_zeros() {
                        64 => SLOTS as u64,
                        other => u64::from(other),
                    },
                    distance => distance,
                };
                let slot = ((position + distance) % SLOTS as u64) as usize;
                (level, slot, (position + distance) << shift)
            })
            // Of two that begin together the upper one goes first: its timers may be due now.
            .min_by_key(|&(level, _, tick)| (tick, std::cmp::Reverse(level)))
    }

    /// Spreads a slot's timers over the levels below, now that time has entered it.
    fn move_down(&mut self, level: usize, slot: usize) {
        let mut at = std::mem::replace(&mut self.heads[level][slot], NONE);
        self.used[level] &= !(1 << slot);
        while at != NONE {
            let next = self.timer(at).next;
            self.link(at);
            at = next;
        }
    }

    fn link(&mut self, at: u32) {
        let (level, slot) = place(self.tick, self.timer(at).deadline);
        let head = self.heads[level][slot];
        let timer = self.timer_mut(at);
        timer.home = (level * SLOTS + slot) as u16;
        timer.previous = NONE;
        timer.next = head;
        if head != NONE {
            self.timer_mut(head).previous = at;
        }
        self.heads[level][slot] = at;
        self.used[level] |= 1 << slot;
    }

    fn unlink(&mut self, at: u32) {
        let Timer { previous, next, home, .. } = *self.timer(at);
        let (level, slot) = (home as usize / SLOTS, home as usize % SLOTS);
        if next != NONE {
            self.timer_mut(next).previous = previous;
        }
        if previous != NONE {
            self.timer_mut(previous).next = next;
        } else {
            self.heads[level][slot] = next;
            if next == NONE {
                self.used[level] &= !(1 << slot);
            }
        }
    }

    fn timer(&self, at: u32) -> &Timer {
        self.timers.at(at as usize).expect("a list holds armed timers")
    }

    fn timer_mut(&mut self, at: u32) -> &mut Timer {
        self.timers.at_mut(at as usize).expect("a list holds armed timers")
    }
}

/// The level and slot of a deadline as seen from tick `from`: the level of the highest group of
/// bits in which the two differ.
fn place(from: u64, deadline: u64) -> (usize, usize) {
    let horizon = 1u64 << (SLOT_BITS * LEVELS as u32);
    let deadline = deadline.max(from).min(from.saturating_add(horizon - 1));
    let differing = (from ^ deadline) | 1;
    let level = ((63 - differing.leading_zeros()) / SLOT_BITS) as usize;
    // A deadline just short of the horizon may differ in a bit above the highest level.
    let level = level.min(LEVELS - 1);
    let slot = (deadline >> (SLOT_BITS * level as u32)) % SLOTS as u64;
    (level, slot as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drain(wheel: &mut Wheel, now: Time) -> Vec<u64> {
        std::iter::from_fn(|| wheel.fire(now)).collect()
    }

    #[test]
    fn a_timer_fires_within_a_tick_after_its_deadline_and_never_before() {
        let start = Time::from_nanos(123_456_789_000);
        for millis in [0, 1, 5, 63, 64, 65, 1000, 70_000, 4_000_000, 90_000_000] {
            let mut wheel = Wheel::new(4, start);
            let deadline = start + Duration::from_millis(millis);
            wheel.arm(deadline, 9).unwrap();
            if millis > 0 {
                assert_eq!(wheel.fire(deadline - Duration::from_nanos(1)), None, "{millis} ms");
            }
            assert_eq!(wheel.fire(deadline + Duration::from_millis(3)), Some(9), "{millis} ms");
            assert!(wheel.is_empty());
        }
    }

    #[test]
    fn a_disarmed_timer_does_not_fire() {
        let mut wheel = Wheel::new(4, Time::ZERO);
        let at = Time::from_nanos(5_000_000);
        let one = wheel.arm(at, 1).unwrap();
        wheel.arm(at, 2).unwrap();
        assert!(wheel.disarm(one));
        assert!(!wheel.disarm(one));
        assert_eq!(drain(&mut wheel, at + Duration::from_millis(2)), [2]);
    }

    #[test]
    fn a_full_wheel_says_so() {
        let mut wheel = Wheel::new(1, Time::ZERO);
        assert!(wheel.arm(Time::ZERO, 1).is_some());
        assert!(wheel.arm(Time::ZERO, 2).is_none());
    }

    proptest! {
        #[test]
        fn timers_fire_as_a_sorted_list_would(
            start in 0u64..1 << 50,
            steps in prop::collection::vec((0u64..1 << 42, 0u64..1 << 38, any::<bool>()), 1..60),
        ) {
            let mut now = Time::from_nanos(start);
            let mut wheel = Wheel::new(1000, now);
            let mut oracle: Vec<(Time, u64, TimerId)> = Vec::new();
            for (key, (after, pass, disarm)) in steps.into_iter().enumerate() {
                let deadline = now + Duration::from_nanos(after);
                let id = wheel.arm(deadline, key as u64).unwrap();
                oracle.push((deadline, key as u64, id));
                if disarm {
                    let (_, _, id) = oracle.swap_remove(key % oracle.len());
                    prop_assert!(wheel.disarm(id));
                }
                if let Some(wait) = wheel.next_wait(now) {
                    let first = oracle.iter().map(|(deadline, ..)| *deadline).min().unwrap();
                    prop_assert!(now + wait <= first + Duration::from_nanos(2 << TICK_BITS));
                }
                now = now + Duration::from_nanos(pass);
                let fired = drain(&mut wheel, now);
                let tick = now - Duration::from_nanos(1 << TICK_BITS);
                for key in &fired {
                    let at = oracle.iter().position(|(_, k, _)| k == key).expect("fired once");
                    let (deadline, ..) = oracle.swap_remove(at);
                    prop_assert!(deadline <= now);
                }
                for (deadline, key, _) in &oracle {
                    prop_assert!(*deadline > tick || after == 0, "{key} is late: {deadline} at {now}");
                }
                prop_assert_eq!(wheel.len(), oracle.len());
            }
        }
    }
}
