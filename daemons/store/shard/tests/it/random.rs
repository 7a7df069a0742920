//! Plays with everything at once: which client does what, and when the machine crashes, is drawn
//! from the seed.

use std::collections::{HashSet, VecDeque};
use std::sync::OnceLock;
use std::time::Duration;

use fastrand::Rng;
use sextant_engine::Engine;
use sextant_resp::Value;
use sextant_ring::sim::seeds;
use sextant_segment::Durability;

use crate::client::{Client, Words, words};
use crate::history::{End, History};
use crate::rig::{Rig, Setup};

/// Commands as text: `K` is a key, `W` a word, `N` a small number, `B` some bytes, `X` a key that
/// is only set with a time to expire, `T` that time, `P` a time long ago, `F` one far away.
const WRITES: &[&str] = &[
    "SET K B",
    "SET K B",
    "SET K B",
    "SET K N",
    "APPEND K B",
    "SETRANGE K N B",
    "INCRBY K N",
    "DEL K",
    "DEL K K",
    "UNLINK K",
    "RENAME K K",
    "RENAMENX K K",
    "MOVE K 1",
    "COPY K K REPLACE",
    "MSET K B K W",
    "GETSET K B",
    "GETDEL K",
    "SETNX K W",
    "PEXPIREAT K P",
    "PEXPIREAT K F",
    "PERSIST K",
    "SET X W PXAT T",
    "SET X B PXAT T",
    "SWAPDB 0 1",
    "SWAPDB 1 2",
    "FLUSHDB",
    "HSET K W B",
    "HSET K W W W W",
    "HDEL K W W",
    "HINCRBY K W N",
    "SADD K W W W",
    "SREM K W W",
    "SMOVE K K W",
    "SUNIONSTORE K K K",
    "SINTERSTORE K K K",
    "SDIFFSTORE K K K",
    "RPUSH K W W B",
    "LPUSH K B",
    "LPOP K",
    "RPOP K N",
    "LSET K 0 W",
    "LTRIM K 1 N",
    "LREM K 1 W",
    "LINSERT K BEFORE W B",
    "LMOVE K K LEFT RIGHT",
    "ZADD K N W N W",
    "ZINCRBY K N W",
    "ZREM K W",
    "ZPOPMIN K",
    "ZRANGESTORE K K 0 N",
    "ZUNIONSTORE K 2 K K",
    "ZREMRANGEBYRANK K 0 0",
    "XADD K 1-* W B",
    "XDEL K 1-1",
    "XTRIM K MAXLEN N",
    "SETBIT K N 1",
    "PFADD K W W",
];

const READS: &[&str] = &[
    "GET K",
    "STRLEN K",
    "EXISTS K K",
    "TYPE K",
    "PEXPIRETIME K",
    "MGET K K K",
    "HLEN K",
    "HGET K W",
    "SCARD K",
    "SISMEMBER K W",
    "LRANGE K 0 -1",
    "ZRANGE K 0 -1 WITHSCORES",
    "XLEN K",
];

/// Those of them that the engine has.
fn known(all: &'static [&'static str]) -> Vec<&'static str> {
    static NAMES: OnceLock<HashSet<String>> = OnceLock::new();
    let names = NAMES.get_or_init(|| Engine::commands().map(|command| command.name).collect());
    let name = |text: &str| text.split(' ').next().unwrap_or_default().to_lowercase();
    all.iter().copied().filter(|text| names.contains(&name(text))).collect()
}

struct Temper {
    durability: Durability,
    /// In so many of 1000 steps.
    end: u32,
    ends: &'static [End],
    part: u32,
    steps: u32,
    bytes_max: usize,
    pipeline: usize,
}

impl Temper {
    fn draw(rng: &mut Rng) -> Temper {
        let every = Durability::Every(Duration::from_millis(20));
        let bulk = rng.u8(..3) == 0;
        Temper {
            durability: [Durability::Always, Durability::Always, every, Durability::Os]
                [rng.usize(..4)],
            end: [8, 20, 50][rng.usize(..3)],
            ends: [&[End::Crash][..], &[End::Crash, End::Kill, End::Stop], &[End::Kill, End::Stop]]
                [rng.usize(..3)],
            part: [0, 10, 40][rng.usize(..3)],
            steps: rng.u32(100..400),
            bytes_max: if bulk { 40_000 } else { [20, 3000][rng.usize(..2)] },
            pipeline: [1, 3, 12][rng.usize(..3)],
        }
    }
}

/// What a client waits for.
enum Expected {
    /// Replies of a transaction that say little, and then that of EXEC.
    Transaction((u64, u64), usize),
    Raised,
}

/// A place for one client after another.
struct Slot {
    number: u64,
    client: Option<(u64, Client)>,
    expected: VecDeque<Expected>,
}

struct Play {
    rig: Rig,
    rng: Rng,
    history: History,
    temper: Temper,
    slots: Vec<Slot>,
    sessions: u64,
    writes: Vec<&'static str>,
    reads: Vec<&'static str>,
    seed: u64,
    compacted: u32,
}

impl Play {
    fn new(seed: u64) -> Play {
        let mut rng = Rng::with_seed(seed ^ 0x5707_e5ee);
        let temper = Temper::draw(&mut rng);
        let setup = Setup {
            durability: temper.durability,
            hot_bytes: [0, 1 << 20][rng.usize(..2)],
            commit_bytes_max: [4096, 64 << 10, 1 << 20][rng.usize(..3)],
            segment_bytes_max: [0, 512 << 10, 2 << 20][rng.usize(..3)],
            ..Setup::default()
        };
        let rig = Rig::new(seed, setup, |plan| {
            plan.reset = [0.0, 0.0, 0.002][rng.usize(..3)];
            plan.starve = [0.0, 0.01][rng.usize(..2)];
            plan.wake_early = [0.0, 0.05][rng.usize(..2)];
            if rng.u8(..3) == 0 {
                plan.disk_delay = Duration::from_micros(50)..=Duration::from_micros(20_000);
            }
            if rng.bool() {
                plan.small = (8, 256);
                plan.bulk = (4, 4096);
            }
            plan.lasting_ends = [0.02, 0.3][rng.usize(..2)];
            plan.cancel_late = [0.0, 0.5][rng.usize(..2)];
            plan.completions_max = [2, 4096, 4096][rng.usize(..3)];
            plan.submissions_max = [4, 256, 256][rng.usize(..3)];
            plan.stall = [0.0, 0.001][rng.usize(..2)];
            plan.stall_time = Duration::from_micros(100)..=Duration::from_millis(40);
        });
        let slot = |number| Slot { number, client: None, expected: VecDeque::new() };
        let history = History::new(rig.world.clock().unix_ms);
        Play {
            rig,
            rng,
            history,
            temper,
            slots: (0..5).map(slot).collect(),
            sessions: 0,
            writes: known(WRITES),
            reads: known(READS),
            seed,
            compacted: 0,
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        let most = match self.rng.u16(..400) {
            // Several records.
            0 => 700_000,
            1..20 => self.temper.bytes_max,
            _ => self.temper.bytes_max.min(100) + self.temper.bytes_max / 4,
        };
        let len = self.rng.usize(..=most);
        vec![self.rng.u8(b'a'..=b'z'); len]
    }

    fn fill(&mut self, text: &str) -> Words {
        let now = self.rig.world.clock().unix_ms;
        let fill = |word: &str, play: &mut Play| match word {
            "K" => vec![b'a' + play.rng.u8(..6)],
            "X" => vec![b'x', b'0' + play.rng.u8(..3)],
            "W" => vec![b'w', b'0' + play.rng.u8(..30)],
            "N" => play.rng.u8(..40).to_string().into_bytes(),
            "B" => play.bytes(),
            "T" => (now + play.rng.u64(1..600)).to_string().into_bytes(),
            "P" => b"1000".to_vec(),
            "F" => b"4000000000000".to_vec(),
            other => other.as_bytes().to_vec(),
        };
        text.split(' ').map(|word| fill(word, self)).collect()
    }

    fn transaction(&mut self, writes: bool) -> Vec<Words> {
        let db = [0, 0, 0, 1, 2][self.rng.usize(..5)];
        let mut commands = vec![words(&format!("SELECT {db}"))];
        for _ in 0..self.rng.usize(1..5) {
            let from = if writes && self.rng.u8(..4) > 0 { &self.writes } else { &self.reads };
            let text = from[self.rng.usize(..from.len())];
            // What happens to so much at once is rare.
            let rare = matches!(text, "FLUSHDB" | "SWAPDB 0 1" | "SWAPDB 1 2");
            if rare && self.rng.u8(..8) > 0 {
                continue;
            }
            commands.push(self.fill(text));
        }
        commands
    }

    fn act(&mut self, at: usize) {
        let now = self.rig.world.now();
        if self.slots[at].client.is_none() {
            self.sessions += 1;
            let client = Client::new(&self.rig, 0);
            self.slots[at].client = Some((self.sessions, client));
            self.slots[at].expected.clear();
        }
        if self.slots[at].expected.len() >= self.temper.pipeline {
            return;
        }
        let session = self.slots[at].client.as_ref().expect("it was made above").0;
        let mut sent = Vec::new();
        for _ in 0..self.rng.usize(1..=self.temper.pipeline) {
            if self.rng.u8(..6) == 0 {
                let number = self.slots[at].number;
                sent.push(words("SELECT 3"));
                sent.push(words(&format!("INCR raised:{number}")));
                self.history.raised.entry(number).or_default().0 += 1;
                self.slots[at].expected.push_back(Expected::Raised);
                continue;
            }
            let writes = self.rng.u8(..3) > 0;
            let inner = self.transaction(writes);
            let (id, commands) = self.history.ask(session, inner, writes, now);
            self.slots[at].expected.push_back(Expected::Transaction(id, commands.len()));
            sent.extend(commands);
        }
        self.slots[at].client.as_ref().expect("it was made above").1.send(&sent);
    }

    /// Takes what clients were told.
    fn listen(&mut self) {
        let now = self.rig.world.now();
        for slot in &mut self.slots {
            let Some((_, client)) = &mut slot.client else { continue };
            client.poll();
            while let Some(expected) = slot.expected.front() {
                let count = match expected {
                    Expected::Transaction(_, count) => *count,
                    Expected::Raised => 2,
                };
                if client.replies.len() < count {
                    break;
                }
                let last = client.replies.drain(..count).next_back().expect("there are some");
                match slot.expected.pop_front().expect("it was looked at") {
                    Expected::Transaction(id, _) => self.history.answer(id, last, now, false),
                    Expected::Raised => {
                        let raised = self.history.raised.entry(slot.number).or_default();
                        assert!(matches!(last, Value::Int(_)), "seed {}: {last:?}", self.seed);
                        raised.1 += 1;
                    }
                }
            }
            if client.peer.is_closed() {
                slot.client = None;
            }
        }
    }

    fn end(&mut self, end: End) {
        self.listen();
        if self.rig.oldest_segment(0) > 1 {
            self.compacted += 1;
        }
        match end {
            End::Crash => self.rig.crash(),
            End::Kill => self.rig.kill(),
            End::Stop => assert!(self.rig.stop(), "seed {}: it does not stop", self.seed),
        }
        // Up to the end replies were on their way.
        self.listen();
        // Nothing of what is on its way reaches who starts next.
        for slot in &mut self.slots {
            if let Some((_, mut client)) = slot.client.take() {
                client.peer.reset();
            }
            slot.expected.clear();
        }
        self.rig.pass(Duration::from_millis(50));
        let clock = self.rig.world.clock();
        let (history, durability) = (&mut self.history, self.temper.durability);
        let seed = self.seed;
        self.rig.start(|_, found| {
            history.check(found, end, durability, (clock.now, clock.unix_ms), seed);
        });
    }

    fn step(&mut self) {
        let at = self.rng.usize(..self.slots.len());
        self.act(at);
        if self.rng.u32(..1000) < self.temper.part
            && let Some((_, mut client)) = self.slots[at].client.take()
        {
            match self.rng.bool() {
                true => client.peer.reset(),
                false => client.peer.close(),
            }
        }
        let time = Duration::from_micros(self.rng.u64(50..3000));
        self.rig.pass(time);
        self.listen();
        if self.rng.u32(..1000) < self.temper.end {
            let end = self.temper.ends[self.rng.usize(..self.temper.ends.len())];
            self.end(end);
        }
    }

    /// Everybody who still waits is answered.
    fn settle(&mut self) {
        for _ in 0..40_000 {
            self.listen();
            if self.slots.iter().all(|slot| slot.client.is_none() || slot.expected.is_empty()) {
                return;
            }
            self.rig.pass(Duration::from_micros(500));
        }
        panic!("seed {}: a client is never answered", self.seed);
    }
}

fn play(seed: u64) -> (u64, u32, u64) {
    let mut play = Play::new(seed);
    for _ in 0..play.temper.steps {
        play.step();
    }
    play.settle();
    play.end(End::Stop);
    let end = play.temper.ends[0];
    play.end(end);
    (play.history.acknowledged, play.compacted, play.rig.world.trace())
}

#[test]
fn what_was_acknowledged_is_there_after_every_end() {
    let (mut acknowledged, mut compacted) = (0, 0);
    for seed in seeds(12) {
        let played = play(seed);
        acknowledged += played.0;
        compacted += played.1;
    }
    println!("{acknowledged} transactions acknowledged, {compacted} ends after a compaction");
}
