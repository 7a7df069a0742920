//! What a world is made of, and how its time passes: events in a queue ordered by time, and cores
//! of which each has a moment at which it wants to be turned.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fastrand::Rng;

use super::disk::{InodeRef, Store};
use super::net::{EndId, Net};
use super::ops::Work;
use super::plan::Plan;
use crate::driver::{Completion, Group, OpenMode, Outcome, Socket, Token};
use crate::mesh::Remote;

/// Panics with the seed if a rule was broken by the code under test or by the simulation itself.
macro_rules! rule {
    ($state:expr, $holds:expr, $($message:tt)+) => {
        assert!($holds, "{} [SEXTANT_SEED={}]", format_args!($($message)+), $state.seed)
    };
}
pub(super) use rule;

/// The wall clock at the origin of virtual time: 2025-01-01 00:00:00 UTC.
const UNIX_MS_AT_ORIGIN: u64 = 1_735_689_600_000;

/// Virtual time does not begin at zero, so that a subtraction too many is noticed.
const ORIGIN_NANOS: u64 = 1_000_000_000_000;

#[derive(Debug)]
pub(super) enum Event {
    /// An operation goes on.
    Op { core: usize, op: u64 },
    /// An operation that was cancelled ends, if it has not ended by itself.
    Cancelled { core: usize, op: u64 },
    /// The first piece on the wire to an end arrives there.
    Arrive { end: EndId },
    /// A reset arrives at an end.
    Reset { end: EndId },
    /// An end may send more.
    Pump { end: EndId },
    /// A request for a connection arrives.
    Syn { from: EndId, to: std::net::SocketAddr },
    /// Somebody may accept, and somebody may wait.
    Accept { to: std::net::SocketAddr },
    /// A datagram arrives.
    Datagram { from: std::net::SocketAddr, to: std::net::SocketAddr, data: bytes::Bytes },
}

/// An operation under way.
pub(super) struct Pending {
    pub(super) token: Token,
    pub(super) work: Work,
    /// Whether an [`Event::Op`] of it is in the queue.
    pub(super) scheduled: bool,
}

/// A completion that has arrived and was not looked at.
pub(super) struct Ready {
    pub(super) completion: Completion,
    /// What was received, with the buffer that it goes into.
    pub(super) loan: Option<(Group, u16, Vec<u8>)>,
    /// The socket whose operation this is.
    pub(super) of: Option<Of>,
}

/// Which of a socket's operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Of {
    pub(super) socket: Socket,
    pub(super) direction: Direction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    In,
    Out,
    Other,
}

/// What a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SocketKind {
    Stream(EndId),
    Datagram(std::net::SocketAddr),
}

#[derive(Debug)]
pub(super) struct SocketEntry {
    pub(super) kind: SocketKind,
    /// Operations under way, or ended and not looked at.
    pub(super) operations: u32,
    pub(super) receiving: Option<u64>,
    pub(super) sending: Option<u64>,
    /// A close or a hand-over was asked for.
    pub(super) leaving: bool,
}

#[derive(Default)]
pub(super) struct SocketSlot {
    pub(super) generation: u32,
    pub(super) entry: Option<SocketEntry>,
}

/// A socket's number: the slot in the lower bits, its generation above, so that a socket that
/// was closed is known for what it is.
const SLOT_BITS: u32 = 20;

pub(super) struct Pool {
    pub(super) free: Vec<u16>,
    pub(super) lent: Vec<bool>,
    pub(super) bytes: usize,
}

impl Pool {
    pub(super) fn new((count, bytes): (u16, u32)) -> Pool {
        assert!(count > 0 && bytes > 0, "a pool has buffers");
        Pool {
            free: (0..count).collect(),
            lent: vec![false; usize::from(count)],
            bytes: bytes as usize,
        }
    }

    pub(super) fn on_loan(&self) -> usize {
        self.lent.len() - self.free.len()
    }
}

pub(super) struct OpenFile {
    pub(super) inode: InodeRef,
    pub(super) mode: OpenMode,
}

/// A driver's side of the world.
pub(super) struct CoreState {
    pub(super) remote: Remote,
    pub(super) alive: bool,
    pub(super) sockets: Vec<SocketSlot>,
    pub(super) free_sockets: Vec<u32>,
    pub(super) sockets_max: u32,
    pub(super) pools: [Pool; 3],
    pub(super) files: BTreeMap<i32, OpenFile>,
    pub(super) ops: BTreeMap<u64, Pending>,
    /// Completions that have arrived, at most `completions_max`.
    pub(super) ready: VecDeque<Ready>,
    /// Those that found no room there.
    pub(super) overflown: VecDeque<Ready>,
    pub(super) completions_max: usize,
    /// When it wants to be turned though nothing has happened; `None`: never.
    pub(super) wake_at: Option<u64>,
    pub(super) busy_until: u64,
}

impl CoreState {
    /// When it is next to be turned.
    fn turn_at(&self, now: u64) -> Option<u64> {
        let nothing = self.ready.is_empty() && self.overflown.is_empty();
        let at = if nothing { self.wake_at? } else { now };
        Some(at.max(self.busy_until).max(now))
    }

    fn is_full(&self) -> bool {
        self.ready.len() >= self.completions_max
    }

    /// Lets completions in that had found no room. Tells whether all of them are in.
    pub(super) fn take_overflown(&mut self) -> bool {
        while !self.is_full() {
            let Some(ready) = self.overflown.pop_front() else { return true };
            self.ready.push_back(ready);
        }
        self.overflown.is_empty()
    }

    pub(super) fn slot(socket: Socket) -> usize {
        (socket.0 & ((1 << SLOT_BITS) - 1)) as usize
    }

    pub(super) fn socket(&mut self, socket: Socket) -> Option<&mut SocketEntry> {
        let slot = self.sockets.get_mut(CoreState::slot(socket))?;
        if slot.generation != socket.0 >> SLOT_BITS {
            return None;
        }
        slot.entry.as_mut()
    }

    /// Takes the slot that was freed last: what still uses its old content is found soonest.
    pub(super) fn open_socket(&mut self, kind: SocketKind) -> Option<Socket> {
        let slot = match self.free_sockets.pop() {
            Some(slot) => slot,
            None if self.sockets.len() < self.sockets_max as usize => {
                self.sockets.push(SocketSlot::default());
                self.sockets.len() as u32 - 1
            }
            None => return None,
        };
        let SocketSlot { generation, entry } = &mut self.sockets[slot as usize];
        assert!(entry.is_none(), "a free slot is empty");
        *entry = Some(SocketEntry {
            kind,
            operations: 0,
            receiving: None,
            sending: None,
            leaving: false,
        });
        Some(Socket(*generation << SLOT_BITS | slot))
    }

    pub(super) fn free_socket(&mut self, socket: Socket) {
        let index = CoreState::slot(socket);
        let slot = &mut self.sockets[index];
        assert!(slot.entry.take().is_some(), "a socket is freed once");
        slot.generation = (slot.generation + 1) & (u32::MAX >> SLOT_BITS);
        self.free_sockets.push(index as u32);
    }

    pub(super) fn open_connections(&self) -> usize {
        let entries = self.sockets.iter().filter_map(|slot| slot.entry.as_ref());
        entries.filter(|entry| matches!(entry.kind, SocketKind::Stream(_))).count()
    }

    pub(super) fn pool(&mut self, group: Group) -> &mut Pool {
        &mut self.pools[group as usize]
    }
}

/// What has to be turned next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Core(usize),
    /// Nothing happens before the limit.
    Limit,
}

pub(super) struct State {
    pub(super) seed: u64,
    pub(super) rng: Rng,
    pub(super) plan: Plan,
    pub(super) now: u64,
    unix_ms_at_origin: u64,
    events: BTreeMap<(u64, u64), Event>,
    last_event: u64,
    last_op: u64,
    pub(super) last_file: i32,
    pub(super) cores: Vec<CoreState>,
    pub(super) net: Net,
    pub(super) store: Store,
    trace: u64,
}

impl State {
    pub(super) fn new(seed: u64) -> State {
        State {
            seed,
            rng: Rng::with_seed(seed),
            plan: Plan::default(),
            now: ORIGIN_NANOS,
            unix_ms_at_origin: UNIX_MS_AT_ORIGIN,
            events: BTreeMap::new(),
            last_event: 0,
            last_op: 0,
            last_file: 0,
            cores: Vec::new(),
            net: Net::default(),
            store: Store::default(),
            trace: seed,
        }
    }

    pub(super) fn unix_ms(&self) -> u64 {
        self.unix_ms_at_origin + (self.now - ORIGIN_NANOS) / 1_000_000
    }

    pub(super) fn set_unix_ms(&mut self, unix_ms: u64) {
        self.unix_ms_at_origin = unix_ms.saturating_sub((self.now - ORIGIN_NANOS) / 1_000_000);
    }

    pub(super) fn trace(&self) -> u64 {
        self.trace
    }

    /// Mixes something that happened into the trace.
    pub(super) fn note(&mut self, parts: &[u64]) {
        for part in parts.iter().chain([&self.now]) {
            self.trace = (self.trace ^ part).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
        }
    }

    pub(super) fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.rng.f64() < probability
    }

    /// A delay within a range; a few are much longer.
    pub(super) fn delay(&mut self, range: &RangeInclusive<Duration>) -> u64 {
        let nanos = self.rng.u64(range.start().as_nanos() as u64..=range.end().as_nanos() as u64);
        if self.rng.u8(..) < 2 { nanos * 16 } else { nanos }
    }

    pub(super) fn after_local(&mut self) -> u64 {
        let range = self.plan.local_delay.clone();
        self.now + self.delay(&range)
    }

    pub(super) fn after_network(&mut self) -> u64 {
        let range = self.plan.network_delay.clone();
        self.now + self.delay(&range)
    }

    pub(super) fn after_disk(&mut self) -> u64 {
        let range = self.plan.disk_delay.clone();
        self.now + self.delay(&range)
    }

    pub(super) fn schedule(&mut self, at: u64, event: Event) {
        assert!(at >= self.now, "nothing happens in the past");
        self.last_event += 1;
        self.events.insert((at, self.last_event), event);
    }

    /// Lets an operation go on at `at`, unless that is arranged already.
    pub(super) fn schedule_op(&mut self, at: u64, core: usize, op: u64) {
        let Some(pending) = self.cores[core].ops.get_mut(&op) else { return };
        if !std::mem::replace(&mut pending.scheduled, true) {
            self.schedule(at, Event::Op { core, op });
        }
    }

    pub(super) fn add_core(&mut self, remote: Remote) -> usize {
        let number = self.cores.len();
        remote.set_ring(number as i32);
        self.cores.push(CoreState {
            remote,
            alive: true,
            sockets: Vec::new(),
            free_sockets: Vec::new(),
            sockets_max: self.plan.sockets_max.min(1 << SLOT_BITS),
            pools: [self.plan.small, self.plan.bulk, self.plan.datagrams].map(Pool::new),
            files: BTreeMap::new(),
            ops: BTreeMap::new(),
            ready: VecDeque::new(),
            overflown: VecDeque::new(),
            completions_max: self.plan.completions_max,
            wake_at: Some(self.now),
            busy_until: self.now,
        });
        number
    }

    pub(super) fn add_op(&mut self, core: usize, token: Token, work: Work) -> u64 {
        self.last_op += 1;
        let pending = Pending { token, work, scheduled: false };
        self.cores[core].ops.insert(self.last_op, pending);
        self.last_op
    }

    /// Gives a core an operation's completion.
    pub(super) fn complete(&mut self, core: usize, op: u64, outcome: Outcome, more: bool) {
        self.complete_with(core, op, outcome, more, None);
    }

    pub(super) fn complete_with(
        &mut self,
        core: usize,
        op: u64,
        outcome: Outcome,
        more: bool,
        loan: Option<(Group, u16, Vec<u8>)>,
    ) {
        let pending = self.cores[core].ops.get(&op).expect("an operation completes while it is");
        let (token, of) = (pending.token, pending.work.of());
        let (kind, detail) = outcome_hash(&outcome);
        self.note(&[core as u64, token.0, kind, detail, u64::from(more)]);
        tracing::trace!(core, token = token.0, ?outcome, more, now = self.now, "completes");
        let state = &mut self.cores[core];
        if !more {
            state.ops.remove(&op);
        }
        let completion = Completion { token, outcome, more };
        let ready = Ready { completion, loan, of };
        if state.overflown.is_empty() && !state.is_full() {
            state.ready.push_back(ready);
        } else {
            state.overflown.push_back(ready);
        }
    }

    /// Whether a lasting operation goes on behind a completion that it is about to have.
    pub(super) fn lasts(&mut self, core: usize) -> bool {
        let ends = self.plan.lasting_ends;
        let state = &self.cores[core];
        let no_room = !state.overflown.is_empty() || state.is_full();
        !(self.chance(ends) || (no_room && self.rng.bool()))
    }

    /// The machine stands still for so long, and its monotonic clock does not: whatever was under
    /// way comes about that much later, and every deadline that passes is due at once.
    pub(super) fn suspend(&mut self, nanos: u64) {
        self.now += nanos;
        let events = std::mem::take(&mut self.events);
        self.events = events.into_iter().map(|((at, n), event)| ((at + nanos, n), event)).collect();
        self.note(&[nanos]);
    }

    /// Passes time until one of the cores that `may_turn` wants to be turned, but not past
    /// `limit`.
    pub(super) fn next(&mut self, limit: u64, may_turn: impl Fn(usize) -> bool) -> Next {
        loop {
            self.net_sweep();
            self.take_notifications();
            let turn = self.next_turn(&may_turn);
            let event = self.next_event();
            match (turn, event) {
                (Some((at, core)), event)
                    if event.is_none_or(|event| at < event) && at <= limit =>
                {
                    self.now = at;
                    self.note(&[core as u64]);
                    return Next::Core(core);
                }
                (_, Some(at)) if at <= limit => self.pass_event(),
                _ => {
                    self.now = self.now.max(limit);
                    return Next::Limit;
                }
            }
        }
    }

    /// Passes time until something has happened; false if nothing is going to.
    pub(super) fn pass(&mut self) -> bool {
        let any = !self.events.is_empty();
        if any {
            self.pass_event();
        }
        any
    }

    /// When something happens next, unless a core does something before.
    pub(super) fn next_event(&self) -> Option<u64> {
        self.events.first_key_value().map(|(&(at, _), _)| at)
    }

    fn next_turn(&mut self, may_turn: &impl Fn(usize) -> bool) -> Option<(u64, usize)> {
        let mut earliest: Option<u64> = None;
        let mut among = Vec::new();
        for (number, core) in self.cores.iter().enumerate() {
            if !core.alive || !may_turn(number) {
                continue;
            }
            let Some(at) = core.turn_at(self.now) else { continue };
            if earliest.is_none_or(|earliest| at < earliest) {
                earliest = Some(at);
                among.clear();
            }
            if earliest == Some(at) {
                among.push(number);
            }
        }
        let at = earliest?;
        let core = if among.len() == 1 { among[0] } else { among[self.rng.usize(..among.len())] };
        Some((at, core))
    }

    fn take_notifications(&mut self) {
        for core in 0..self.cores.len() {
            if self.cores[core].alive && self.cores[core].remote.acknowledge() {
                let lost = self.plan.wake_lost;
                if self.chance(lost) {
                    continue;
                }
                let at = self.after_local();
                let wake_at = &mut self.cores[core].wake_at;
                *wake_at = Some(wake_at.map_or(at, |earlier| earlier.min(at)));
            }
        }
    }

    fn pass_event(&mut self) {
        let ((at, _), event) = self.events.pop_first().expect("the caller has seen it");
        assert!(at >= self.now, "time goes forward");
        self.now = at;
        self.note(&[event_hash(&event)]);
        match event {
            Event::Op { core, op } => {
                if let Some(pending) = self.cores[core].ops.get_mut(&op) {
                    pending.scheduled = false;
                    self.go_on(core, op);
                }
            }
            Event::Cancelled { core, op } => self.end_late(core, op),
            Event::Arrive { end } => self.arrive(end),
            Event::Reset { end } => self.reset_arrives(end),
            Event::Pump { end } => self.pump(end),
            Event::Syn { from, to } => self.syn_arrives(from, to),
            Event::Accept { to } => self.match_accepts(to),
            Event::Datagram { from, to, data } => self.datagram_arrives(from, to, data),
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (seed, commit) = (self.seed, commit().unwrap_or_else(|| "unknown".to_owned()));
            eprintln!(
                "a simulation failed at commit {commit}; run it again with SEXTANT_SEED={seed}"
            );
        }
    }
}

/// The commit that is checked out, if the sources are where they were built, in Git's work tree.
/// (What was changed since then it does not tell.)
pub(super) fn commit() -> Option<String> {
    let read = |path: PathBuf| std::fs::read_to_string(path).ok();
    let dot_git = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|dir| dir.join(".git"))
        .find(|path| path.exists())?;
    // A second work tree has a file that names its own directory, which names the common one.
    let own = match read(dot_git.clone()) {
        Some(text) => dot_git.parent()?.join(text.strip_prefix("gitdir:")?.trim()),
        None => dot_git,
    };
    let common = read(own.join("commondir")).map_or(own.clone(), |text| own.join(text.trim()));
    let head = read(own.join("HEAD"))?;
    let Some(name) = head.strip_prefix("ref:").map(str::trim) else {
        return Some(head.trim().to_owned());
    };
    let loose = read(common.join(name)).map(|text| text.trim().to_owned());
    loose.or_else(|| {
        let packed = read(common.join("packed-refs"))?;
        let line = packed.lines().find(|line| line.split(' ').nth(1) == Some(name))?;
        line.split(' ').next().map(str::to_owned)
    })
}

fn event_hash(event: &Event) -> u64 {
    match event {
        Event::Op { core, op } => 1 << 56 | (*core as u64) << 48 | op,
        Event::Cancelled { core, op } => 8 << 56 | (*core as u64) << 48 | op,
        Event::Arrive { end } => 2 << 56 | end,
        Event::Reset { end } => 3 << 56 | end,
        Event::Pump { end } => 4 << 56 | end,
        Event::Syn { to, .. } => 5 << 56 | u64::from(to.port()),
        Event::Accept { to } => 6 << 56 | u64::from(to.port()),
        Event::Datagram { to, data, .. } => {
            7 << 56 | (data.len() as u64) << 16 | u64::from(to.port())
        }
    }
}

fn outcome_hash(outcome: &Outcome) -> (u64, u64) {
    fn errno<T>(result: &std::io::Result<T>, ok: impl Fn(&T) -> u64) -> u64 {
        match result {
            Ok(value) => ok(value),
            Err(error) => 1 << 63 | error.raw_os_error().unwrap_or(0) as u64,
        }
    }
    match outcome {
        Outcome::Socket(result) => (1, errno(result, |socket| u64::from(socket.0))),
        Outcome::Recv(result) => {
            (2, errno(result, |buf| buf.as_ref().map_or(0, |buf| u64::from(buf.len) + 1)))
        }
        Outcome::RecvFrom(result) => (3, errno(result, |(_, buf)| u64::from(buf.len))),
        Outcome::Sent(result) => (4, errno(result, |()| 0)),
        Outcome::PeerAddr(result) => (5, errno(result, |addr| u64::from(addr.port()))),
        Outcome::File(result, buf) => {
            (6, errno(result, |_| buf.as_ref().map_or(0, |buf| buf.len() as u64)))
        }
        Outcome::Done => (7, 0),
    }
}
