//! How fast clients may publish. Who is above `limits.client_messages_per_second` or
//! `limits.client_bytes_per_second`, or is too much for what `limits.messages_per_second` leaves to
//! this core, is not read from for a while: its own TCP connection tells it to be slower, nothing
//! of what it sends is lost, and it is not cut.
//!
//! ```text
//!   PUBLISH ─► charged to the client's buckets and the core's
//!                 │ one of them is empty: the connection is paused, what it has sent is kept
//!                 ├─ its own ─► `waiting`, by the time at which it is read from again
//!                 └─ core's ──► `queue`: each in turn a few messages
//! ```
//!
//! A client's buckets are found by its identifier, so that a new connection does not fill them;
//! they are there while it publishes, and forgotten when they are whole again. Where nothing is
//! limited there is none of this.

use std::collections::{BTreeSet, VecDeque};
use std::hash::BuildHasher;
use std::time::Duration;

use foldhash::fast::RandomState;
use sextant_ring::core::ConnId;
use sextant_ring::time::Time;

use super::conn::Stage;
use super::rates::{Bucket, Rate};
use super::{Broker, Context, Map, timer};
use crate::config::Limits;

/// What may come at once, as the time in which it would come at the rate.
const BURST: Duration = Duration::from_secs(2);
/// A connection is paused for this long at least: one message at a time would cost more.
const PAUSE: Duration = Duration::from_millis(50);
/// Messages that a connection is given when it is its turn and others wait.
const SLICE: usize = 16;
/// Clients with buckets of their own on one core; more share one.
const CLIENTS_MAX: usize = 1 << 20;
/// Clients whose buckets are looked at in a tick, to be forgotten: of as many as there can be each
/// is once a minute, and no tick takes a millisecond.
const SWEEP: usize = 8192;

/// One core's part of slowing publishers down.
pub(super) struct Throttle {
    messages: Option<Rate>,
    bytes: Option<Rate>,
    /// This core's share of what all clients may publish together.
    core: Option<Rate>,
    core_bucket: Bucket,
    /// By a hash of the client identifier: messages and bytes.
    clients: Map<u64, [Bucket; 2]>,
    /// Their keys, in the order in which they are looked at to be forgotten.
    sweep: VecDeque<u64>,
    hasher: RandomState,
    /// Connections that are paused, and how.
    paused: Map<ConnId, Paused>,
    waiting: BTreeSet<(Time, ConnId)>,
    queue: VecDeque<ConnId>,
    /// Whose turn in the queue it is, and how many messages it has left.
    turn: Option<(ConnId, usize)>,
    /// What the timer is armed for.
    armed: Option<Time>,
}

#[derive(Clone, Copy)]
struct Paused {
    since: Time,
    /// Its place in [`Throttle::waiting`]; `None` is in the queue.
    until: Option<Time>,
}

/// Why a connection is not read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// Its client's buckets are empty until then.
    Until(Time),
    /// The core's bucket is, or others come first.
    InTurn,
}

impl Throttle {
    pub(super) fn new(limits: &Limits, cores: usize) -> Throttle {
        Throttle {
            messages: Rate::new(limits.client_messages_per_second.into(), 1, BURST),
            bytes: Rate::new(limits.client_bytes_per_second.get(), 1, BURST),
            core: Rate::new(limits.messages_per_second.into(), cores, BURST),
            core_bucket: Bucket::default(),
            clients: Map::default(),
            sweep: VecDeque::new(),
            hasher: RandomState::default(),
            paused: Map::default(),
            waiting: BTreeSet::new(),
            queue: VecDeque::new(),
            turn: None,
            armed: None,
        }
    }

    /// Whether anything is limited.
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.messages.is_some() || self.bytes.is_some() || self.core.is_some()
    }

    /// Connections that are paused.
    pub(super) fn len(&self) -> usize {
        self.paused.len()
    }

    /// What the buckets of a client are found by.
    fn key(&self, client_id: &str) -> u64 {
        let key = self.hasher.hash_one(client_id);
        match self.clients.len() < CLIENTS_MAX || self.clients.contains_key(&key) {
            true => key,
            false => 0,
        }
    }

    /// Takes one message of so many bytes.
    pub(super) fn charge(&mut self, key: u64, bytes: usize, now: Time) {
        if self.messages.is_some() || self.bytes.is_some() {
            let sweep = &mut self.sweep;
            let [messages_bucket, bytes_bucket] = self.clients.entry(key).or_insert_with(|| {
                sweep.push_back(key);
                Default::default()
            });
            if let Some(rate) = &self.messages {
                messages_bucket.take(rate, 1, now);
            }
            if let Some(rate) = &self.bytes {
                bytes_bucket.take(rate, bytes as u64, now);
            }
        }
        if let Some(rate) = &self.core {
            self.core_bucket.take(rate, 1, now);
        }
        if let Some((_, left)) = &mut self.turn {
            *left = left.saturating_sub(1);
        }
    }

    /// Whether a connection is not to be read from now.
    pub(super) fn holds(&self, conn: ConnId, key: u64, now: Time) -> Option<Held> {
        if let Some([messages, bytes]) = self.clients.get(&key) {
            let next = |bucket: &Bucket, rate: &Option<Rate>| {
                rate.as_ref().map_or(Time::ZERO, |rate| bucket.next(rate))
            };
            let next = next(messages, &self.messages).max(next(bytes, &self.bytes));
            if next > now {
                return Some(Held::Until(next.max(now + PAUSE)));
            }
        }
        let core = self.core.as_ref()?;
        let others = !self.queue.is_empty();
        let its_turn = self.turn.is_some_and(|(turn, left)| turn == conn && left > 0);
        let waits = self.core_bucket.next(core) > now || (others && !its_turn);
        waits.then_some(Held::InTurn)
    }

    fn enter(&mut self, conn: ConnId, held: Held, now: Time) {
        let until = match held {
            Held::Until(time) => Some(time),
            Held::InTurn => None,
        };
        match until {
            Some(time) => drop(self.waiting.insert((time, conn))),
            None => self.queue.push_back(conn),
        }
        self.paused.insert(conn, Paused { since: now, until });
    }

    /// Forgets that a connection is paused; gives for how long it was. In the queue its place is
    /// left, until it is its turn.
    fn leave(&mut self, conn: ConnId, now: Time) -> Option<Duration> {
        let Paused { since, until } = self.paused.remove(&conn)?;
        if let Some(time) = until {
            self.waiting.remove(&(time, conn));
        }
        Some(now.since(since))
    }

    /// The next connection to read from.
    fn next(&mut self, now: Time) -> Option<ConnId> {
        if let Some((time, conn)) = self.waiting.first().copied()
            && time <= now
        {
            return Some(conn);
        }
        let core = self.core.as_ref()?;
        while self.core_bucket.next(core) <= now {
            let conn = self.queue.pop_front()?;
            if self.paused.get(&conn).is_some_and(|paused| paused.until.is_none()) {
                self.turn = Some((conn, SLICE));
                return Some(conn);
            }
        }
        None
    }

    /// When somebody is to be read from again.
    fn deadline(&self, now: Time) -> Option<Time> {
        let core = self.core.as_ref().filter(|_| !self.queue.is_empty());
        let queue = core.map(|core| self.core_bucket.next(core).max(now + PAUSE));
        let waiting = self.waiting.first().map(|(time, _)| *time);
        [queue, waiting].into_iter().flatten().min()
    }

    /// Forgets the buckets that are whole, of the next [`SWEEP`] clients.
    pub(super) fn sweep(&mut self, now: Time) {
        assert!(self.sweep.len() == self.clients.len(), "each client has its turn");
        for _ in 0..self.sweep.len().min(SWEEP) {
            let Some(key) = self.sweep.pop_front() else { return };
            let whole = |buckets: &[Bucket; 2]| buckets.iter().all(|bucket| bucket.is_whole(now));
            if self.clients.get(&key).is_none_or(whole) {
                self.clients.remove(&key);
            } else {
                self.sweep.push_back(key);
            }
        }
    }
}

impl Broker {
    /// What a connection's packets are charged to, if anything is limited.
    pub(super) fn throttle_key(&mut self, conn: ConnId) -> Option<u64> {
        let Stage::Online { session, .. } = self.conn(conn)?.stage else { return None };
        let session = self.sessions.get(session)?;
        Some(self.throttle.key(&session.client_id))
    }

    /// Stops reading from a connection for a while.
    pub(super) fn throttle(&mut self, cx: &mut Context, conn: ConnId, why: Held) {
        let Some(held) = self.conn(conn) else { return };
        if !std::mem::replace(&mut held.paused, true) {
            cx.pause(conn);
            self.throttle.enter(conn, why, cx.now());
            self.arm_throttle(cx);
        }
    }

    fn arm_throttle(&mut self, cx: &mut Context) {
        let Some(deadline) = self.throttle.deadline(cx.now()) else { return };
        let sooner = self.throttle.armed.is_none_or(|armed| deadline < armed);
        // Without a timer left the next tick looks after them.
        if sooner && cx.arm(deadline, timer::key(timer::THROTTLE, 0)).is_some() {
            self.throttle.armed = Some(deadline);
        }
    }

    /// Somebody may be read from again.
    pub(super) fn throttle_timer(&mut self, cx: &mut Context) {
        self.throttle.armed = None;
        self.let_publish(cx);
    }

    /// Goes on reading from those that have waited long enough.
    pub(super) fn let_publish(&mut self, cx: &mut Context) {
        while let Some(conn) = self.throttle.next(cx.now()) {
            self.stop_throttling(cx, conn);
            self.read_on(cx, conn);
            self.throttle.turn = None;
        }
        self.arm_throttle(cx);
    }

    /// A connection is throttled no more, since it goes on, or has ended.
    pub(super) fn stop_throttling(&mut self, cx: &Context, conn: ConnId) {
        if let Some(time) = self.throttle.leave(conn, cx.now()) {
            self.meters.core.record(self.meters.names.throttled_for, time);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conn(n: u64) -> ConnId {
        ConnId::from_bits(n)
    }

    #[test]
    fn who_waits_for_the_cores_share_gets_it_in_turn() {
        let limits = Limits { messages_per_second: 100, ..Limits::default() };
        let mut throttle = Throttle::new(&limits, 1);
        let mut now = Time::ZERO + BURST * 2;
        let mut given = [0; 4];
        // All of it was used up.
        (0..200).for_each(|_| throttle.charge(0, 1, now));
        for n in 0..4 {
            assert_eq!(throttle.holds(conn(n), n, now), Some(Held::InTurn));
            throttle.enter(conn(n), Held::InTurn, now);
        }
        for _ in 0..1000 {
            now = now + PAUSE;
            while let Some(turn) = throttle.next(now) {
                throttle.leave(turn, now);
                while throttle.holds(turn, turn.to_bits(), now).is_none() {
                    throttle.charge(turn.to_bits(), 1, now);
                    given[turn.to_bits() as usize] += 1;
                }
                throttle.turn = None;
                throttle.enter(turn, Held::InTurn, now);
            }
        }
        let all: i32 = given.iter().sum();
        assert!((4990..=5010).contains(&all), "{given:?}");
        assert!(given.iter().all(|one| (all / 4 - one).abs() <= SLICE as i32), "{given:?}");
    }

    #[test]
    fn a_clients_buckets_are_its_own_and_forgotten_when_they_are_whole() {
        let limits = Limits { client_messages_per_second: 10, ..Limits::default() };
        let mut throttle = Throttle::new(&limits, 8);
        let now = Time::ZERO + BURST * 2;
        (0..20).for_each(|_| throttle.charge(1, 5, now));
        let until = now + Duration::from_millis(100);
        assert_eq!(throttle.holds(conn(1), 1, now), Some(Held::Until(until)));
        assert_eq!(throttle.holds(conn(2), 2, now), None);
        throttle.enter(conn(1), Held::Until(until), now);
        assert_eq!(throttle.next(now + Duration::from_millis(99)), None);
        assert_eq!(throttle.next(until), Some(conn(1)));
        assert_eq!(throttle.leave(conn(1), until), Some(Duration::from_millis(100)));
        throttle.sweep(now + Duration::from_millis(1999));
        assert_eq!(throttle.clients.len(), 1);
        throttle.sweep(now + BURST);
        assert_eq!((throttle.clients.len(), throttle.len()), (0, 0));
    }

    #[test]
    fn a_tick_looks_at_some_clients_and_each_has_its_turn() {
        let limits = Limits { client_messages_per_second: 10, ..Limits::default() };
        let mut throttle = Throttle::new(&limits, 1);
        let now = Time::ZERO + BURST * 2;
        let clients = 2 * SWEEP + 100;
        (0..clients as u64).for_each(|key| throttle.charge(key, 5, now));
        // One in four goes on publishing.
        let later = now + BURST;
        (0..clients as u64).step_by(4).for_each(|key| throttle.charge(key, 5, later));
        let lively = clients.div_ceil(4);
        throttle.sweep(later);
        assert_eq!(throttle.clients.len(), clients - SWEEP * 3 / 4);
        throttle.sweep(later);
        throttle.sweep(later);
        assert_eq!((throttle.clients.len(), throttle.sweep.len()), (lively, lively));
        // Nobody is looked at twice in one tick, and who was left has his turn again.
        for _ in 0..3 {
            throttle.sweep(later);
        }
        assert_eq!((throttle.clients.len(), throttle.sweep.len()), (lively, lively));
        throttle.sweep(later + BURST);
        assert_eq!((throttle.clients.len(), throttle.sweep.len()), (0, 0));
    }
}
