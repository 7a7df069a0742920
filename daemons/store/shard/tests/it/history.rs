//! What clients asked and were told, and whether it is true.
//!
//! Every transaction that writes also appends its name to one string, the order, whose length its
//! reply tells; so the order in which transactions were done needs no guessing. After a crash the
//! order on the disk says which of them are left, and then a model that did the same has to have
//! the same databases, and to have given the same replies.
//!
//! ```text
//!   session 1   MULTI … APPEND order "1:1;" … EXEC ─► [… 12 …]
//!   session 2   MULTI … STRLEN order … GET a … EXEC ─► [12 … "x"]   is what the model says at 12
//!   the disk    order = "1:1;2:1;1:2;"
//! ```

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use sextant_resp::Value;
use sextant_ring::time::Time;
use sextant_segment::Durability;

use crate::client::{Words, words};
use crate::local::Local;

/// The database of the order. Nothing else happens there.
const ORDER_DB: usize = 3;
/// What the disk may take beyond the time that [`Durability::Every`] promises.
const DISK_TIME: Duration = Duration::from_millis(300);

/// A transaction.
pub(crate) struct Asked {
    pub(crate) commands: Vec<Words>,
    writes: bool,
    begun: Time,
    ended: Option<Time>,
    reply: Option<Vec<Value>>,
    refused: bool,
}

/// All transactions, and the model that has done those that are on the disk.
pub(crate) struct History {
    pub(crate) asked: HashMap<(u64, u64), Asked>,
    sessions: HashMap<u64, u64>,
    model: Local,
    /// What the model has done: the order, and how many of each session.
    order: Vec<u8>,
    done: BTreeMap<u64, u64>,
    /// The latest beginning of what was done.
    begun: Time,
    pub(crate) acknowledged: u64,
    pub(crate) lost: u64,
    /// Of the counters that clients raise without transactions: asked, and acknowledged.
    pub(crate) raised: HashMap<u64, (u64, u64)>,
}

/// How the daemon ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Crash,
    Kill,
    Stop,
}

impl History {
    pub(crate) fn new(unix_ms: u64) -> History {
        History {
            asked: HashMap::new(),
            sessions: HashMap::new(),
            model: Local::model(unix_ms),
            order: Vec::new(),
            done: BTreeMap::new(),
            begun: Time::ZERO,
            acknowledged: 0,
            lost: 0,
            raised: HashMap::new(),
        }
    }

    /// A new transaction of a session, with what is sent for it.
    pub(crate) fn ask(
        &mut self,
        session: u64,
        inner: Vec<Words>,
        writes: bool,
        now: Time,
    ) -> ((u64, u64), Vec<Words>) {
        let number = match writes {
            true => {
                let last = self.sessions.entry(session).or_default();
                *last += 1;
                *last
            }
            // Those that only read have numbers of their own.
            false => 1 << 32 | self.asked.len() as u64,
        };
        let order = match writes {
            true => format!("APPEND order {session}:{number};"),
            false => "STRLEN order".to_owned(),
        };
        let mut commands = vec![words("SELECT 3"), words(&order)];
        commands.extend(inner);
        let mut sent = vec![words("MULTI")];
        sent.extend(commands.iter().cloned());
        sent.push(words("EXEC"));
        let asked =
            Asked { commands, writes, begun: now, ended: None, reply: None, refused: false };
        self.asked.insert((session, number), asked);
        ((session, number), sent)
    }

    /// EXEC was answered.
    pub(crate) fn answer(&mut self, id: (u64, u64), reply: Value, now: Time, may_refuse: bool) {
        let asked = self.asked.get_mut(&id).expect("it was asked");
        asked.ended = Some(now);
        match reply {
            Value::Array(replies) => asked.reply = Some(replies),
            refused => {
                assert!(may_refuse, "{id:?} was refused: {refused:?}");
                asked.refused = true;
            }
        }
        self.acknowledged += 1;
    }

    /// Compares what a start found with what was promised.
    pub(crate) fn check(
        &mut self,
        found: &mut Local,
        end: End,
        durability: Durability,
        (now, unix_ms): (Time, u64),
        seed: u64,
    ) {
        found.ask(&format!("SELECT {ORDER_DB}"));
        let order = found.ask("GET order").as_bytes().unwrap_or_default().to_vec();
        assert!(order.starts_with(&self.order), "seed {seed}: what was there once is gone");
        let readers = self.readers(seed);
        let mut next = readers.iter().peekable();
        while let Some((at, id)) = next.next_if(|(at, _)| *at <= self.order.len()) {
            assert!(*at == self.order.len(), "seed {seed}: a reader sees an order of the past");
            self.verify_reader(*id, seed);
        }
        let rest = order[self.order.len()..].to_vec();
        for name in rest.split_inclusive(|byte| *byte == b';') {
            self.take(name, seed);
            while let Some((_, id)) = next.next_if(|(at, _)| *at == self.order.len()) {
                self.verify_reader(*id, seed);
            }
        }
        let patience = match (durability, end) {
            (_, End::Stop) | (Durability::Always, _) | (Durability::Os, End::Kill) => None,
            (Durability::Every(time), _) => Some(time + DISK_TIME),
            (Durability::Os, End::Crash) => Some(Duration::MAX),
        };
        self.forget_the_lost(patience, now, seed);
        self.check_raised(found, patience, seed);
        self.model.set_now(unix_ms);
        let (found, right) = (found.dump(), self.model.dump());
        for at in found.keys().chain(right.keys()).filter(|(db, key)| !is_raised(*db, key)) {
            if found.get(at) != right.get(at) {
                let tell = |value: Option<&(Value, Value, Value)>| {
                    let mut told = format!("{value:?}");
                    told.truncate(200);
                    told
                };
                let (found, right) = (tell(found.get(at)), tell(right.get(at)));
                panic!("seed {seed}: {at:?} is {found}, and not {right}");
            }
        }
    }

    /// What only read and was answered, by the order's length that it saw.
    fn readers(&self, seed: u64) -> Vec<(usize, (u64, u64))> {
        let mut readers: Vec<_> = self
            .asked
            .iter()
            .filter(|(_, asked)| !asked.writes)
            .filter_map(|(id, asked)| {
                let reply = asked.reply.as_ref()?;
                let Value::Int(at) = reply[1] else { panic!("seed {seed}: {reply:?}") };
                Some((at as usize, *id))
            })
            .collect();
        readers.sort_unstable();
        readers
    }

    /// Does in the model what a name in the order stands for.
    fn take(&mut self, name: &[u8], seed: u64) {
        let text = std::str::from_utf8(name).expect("names are text");
        let (session, number) = text.trim_end_matches(';').split_once(':').expect("two numbers");
        let id: (u64, u64) = (session.parse().unwrap(), number.parse().unwrap());
        let done = self.done.entry(id.0).or_default();
        assert!(id.1 > *done, "seed {seed}: {text} after {done} of its session");
        assert!(
            (*done + 1..id.1).all(|n| self.asked.get(&(id.0, n)).is_none_or(|gone| gone.refused)),
            "seed {seed}: {text} is there, and one before it in its session is not"
        );
        *done = id.1;
        self.order.extend_from_slice(name);
        let asked = self.asked.remove(&id).unwrap_or_else(|| panic!("seed {seed}: {text} twice"));
        assert!(!asked.refused, "seed {seed}: {text} was refused, and done");
        self.in_time(&asked, text, seed);
        self.verify(&asked, text, seed);
    }

    fn in_time(&mut self, asked: &Asked, text: &str, seed: u64) {
        let early = asked.ended.is_some_and(|ended| ended < self.begun);
        assert!(!early, "seed {seed}: {text} had ended before one began that was done earlier");
        self.begun = self.begun.max(asked.begun);
    }

    fn verify_reader(&mut self, id: (u64, u64), seed: u64) {
        let asked = self.asked.remove(&id).expect("it was listed");
        let early = asked.ended.is_some_and(|ended| ended < self.begun);
        assert!(!early, "seed {seed}: reader {id:?} sees the future");
        self.verify(&asked, &format!("reader {id:?}"), seed);
    }

    /// The model answers as the daemon did.
    fn verify(&mut self, asked: &Asked, text: &str, seed: u64) {
        self.model.ask("SELECT 0");
        let replies: Vec<Value> =
            asked.commands.iter().map(|command| self.model.run(command)).collect();
        let Some(told) = &asked.reply else { return };
        for (command, (told, right)) in asked.commands.iter().zip(told.iter().zip(&replies)) {
            let words: Vec<_> = command
                .iter()
                .map(|word| word[..word.len().min(20)].escape_ascii().to_string())
                .collect();
            assert!(
                told == right,
                "seed {seed}: {text}: {words:?} gave another reply than {right:?}"
            );
        }
    }

    /// What was asked before this end and is not on the disk will never be.
    fn forget_the_lost(&mut self, patience: Option<Duration>, now: Time, seed: u64) {
        for (id, asked) in self.asked.drain() {
            let Some(ended) = asked.ended.filter(|_| !asked.refused) else { continue };
            let excused = patience.is_some_and(|patience| {
                Duration::from_nanos(now.as_nanos() - ended.as_nanos()) <= patience
            });
            assert!(excused, "seed {seed}: {id:?} was acknowledged, and is lost");
            self.lost += 1;
        }
    }

    fn check_raised(&mut self, found: &mut Local, patience: Option<Duration>, seed: u64) {
        for (slot, (asked, acknowledged)) in &mut self.raised {
            let value = found.ask(&format!("GET raised:{slot}"));
            let value = value
                .as_bytes()
                .map_or(0, |digits| std::str::from_utf8(digits).unwrap().parse::<u64>().unwrap());
            assert!(value <= *asked, "seed {seed}: a counter was raised that nobody raised");
            let lost = value < *acknowledged;
            assert!(
                !lost || patience.is_some(),
                "seed {seed}: counter {slot} is {value}, and was {acknowledged}"
            );
            (*asked, *acknowledged) = (value, value);
        }
    }
}

fn is_raised(db: usize, key: &[u8]) -> bool {
    db == ORDER_DB && key.starts_with(b"raised:")
}
