//! What there is to know of a command besides how it is done: the table that COMMAND, ACL and the
//! README's list are made of.

use std::cell::Cell;

use hashbrown::HashMap;
use sextant_resp::Args;

use crate::call::Call;
use crate::fault::Fault;

/// Does a command: writes its reply, or says why not.
pub(crate) type Handler = fn(&mut Call<'_>, Args<'_>) -> Result<(), Fault>;

/// Properties of a command, as COMMAND tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flags(pub(crate) u32);

impl Flags {
    pub(crate) const NONE: Flags = Flags(0);
    /// It may change keys.
    pub(crate) const WRITE: Flags = Flags(1);
    /// It reads keys and changes none.
    pub(crate) const READONLY: Flags = Flags(1 << 1);
    /// It may take memory: refused when there is none left.
    pub(crate) const DENYOOM: Flags = Flags(1 << 2);
    /// For operators.
    pub(crate) const ADMIN: Flags = Flags(1 << 3);
    /// It is about publish and subscribe.
    pub(crate) const PUBSUB: Flags = Flags(1 << 4);
    /// Not to be called by scripts.
    pub(crate) const NOSCRIPT: Flags = Flags(1 << 5);
    /// It may wait.
    pub(crate) const BLOCKING: Flags = Flags(1 << 6);
    /// Its time does not grow with what there is.
    pub(crate) const FAST: Flags = Flags(1 << 7);
    /// Allowed before a client has said who it is.
    pub(crate) const NO_AUTH: Flags = Flags(1 << 8);
    /// Allowed while a script is running too long.
    pub(crate) const ALLOW_BUSY: Flags = Flags(1 << 9);
    /// Not to be queued by MULTI.
    pub(crate) const NO_MULTI: Flags = Flags(1 << 10);
    /// Its keys are found by looking at its words.
    pub(crate) const MOVABLE_KEYS: Flags = Flags(1 << 11);
    /// Allowed in a connection of RESP2 that has subscribed.
    pub(crate) const SUBSCRIBED: Flags = Flags(1 << 12);
    /// Not told to MONITOR and SLOWLOG, since it has secrets.
    pub(crate) const SECRET: Flags = Flags(1 << 13);
    /// Its reply cannot be foreseen.
    pub(crate) const RANDOM: Flags = Flags(1 << 14);

    pub(crate) const fn and(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    #[inline]
    pub(crate) const fn has(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }
}

/// What a command is about, as ACL and COMMAND DOCS sort it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    Generic,
    String,
    List,
    Set,
    SortedSet,
    Hash,
    PubSub,
    Transactions,
    Connection,
    Server,
    Scripting,
    HyperLogLog,
    Geo,
    Stream,
    Bitmap,
}

/// Which of a command's words are keys.
#[derive(Clone, Copy)]
pub(crate) enum Keys {
    /// None.
    None,
    /// From the first to the last (from the end, if negative), every so many.
    At { first: usize, last: i32, step: usize },
    /// Their number stands at a place, and they behind it; a destination may stand at another.
    Counted { count: usize, store: Option<usize> },
    /// As a function finds them: the places of the keys.
    Found(fn(Args<'_>) -> Vec<usize>),
}

impl Keys {
    /// The first word is the only key.
    pub(crate) const ONE: Keys = Keys::At { first: 1, last: 1, step: 1 };
    /// All words are keys.
    pub(crate) const ALL: Keys = Keys::At { first: 1, last: -1, step: 1 };

    /// The places of a command's keys.
    pub(crate) fn places(&self, args: Args<'_>) -> Vec<usize> {
        let len = args.len();
        match self {
            Keys::None => Vec::new(),
            Keys::At { first, last, step } => {
                let last = if *last < 0 { len as i64 + i64::from(*last) } else { i64::from(*last) };
                let last = last.min(len as i64 - 1);
                (*first..).step_by(*step).take_while(|at| *at as i64 <= last).collect()
            }
            Keys::Counted { count, store } => {
                let number = args.get(*count).and_then(sextant_keyspace::canonical_int);
                let number = usize::try_from(number.unwrap_or(0)).unwrap_or(0);
                let end = (count + 1).saturating_add(number).min(len);
                store.iter().copied().chain(count + 1..end).collect()
            }
            Keys::Found(find) => find(args),
        }
    }
}

/// A command.
pub(crate) struct Spec {
    /// In lower case; a subcommand's own name alone.
    pub(crate) name: &'static str,
    /// Its words, its name among them; if negative, at least so many.
    pub(crate) arity: i32,
    pub(crate) flags: Flags,
    pub(crate) keys: Keys,
    pub(crate) group: Group,
    /// The version of Redis that had it first.
    pub(crate) since: &'static str,
    /// What it does, in a line.
    pub(crate) summary: &'static str,
    pub(crate) handler: Handler,
    /// The commands that its second word chooses from.
    pub(crate) subs: &'static [Spec],
}

impl Spec {
    /// Whether a number of words is right.
    #[inline]
    pub(crate) fn takes(&self, words: usize) -> bool {
        match usize::try_from(self.arity) {
            Ok(exactly) => words == exactly,
            Err(_) => words >= self.arity.unsigned_abs() as usize,
        }
    }
}

/// Short for a line of a table of commands.
#[expect(clippy::too_many_arguments, reason = "a row of a table")]
pub(crate) const fn spec(
    name: &'static str,
    arity: i32,
    flags: Flags,
    keys: Keys,
    group: Group,
    since: &'static str,
    summary: &'static str,
    handler: Handler,
) -> Spec {
    Spec { name, arity, flags, keys, group, since, summary, handler, subs: &[] }
}

/// Short for a line about a command that has subcommands, and does nothing without one.
pub(crate) const fn container(
    name: &'static str,
    group: Group,
    since: &'static str,
    summary: &'static str,
    subs: &'static [Spec],
) -> Spec {
    let (flags, keys, handler) = (Flags::NONE, Keys::None, unknown_sub as Handler);
    Spec { name, arity: -2, flags, keys, group, since, summary, handler, subs }
}

fn unknown_sub(_: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    Err(Fault::Syntax)
}

/// A command, and its number in the table.
#[derive(Clone, Copy)]
pub(crate) struct Known {
    pub(crate) spec: &'static Spec,
    /// What is kept for each command is kept by this: less than [`Table::count`].
    pub(crate) number: u16,
}

/// A command or subcommand in the order of numbers.
pub(crate) struct Row {
    pub(crate) spec: &'static Spec,
    /// Its whole name: `config|get`.
    pub(crate) name: String,
    /// The number of the command that it belongs to, if it is a subcommand.
    pub(crate) parent: Option<u16>,
}

/// Commands by name.
pub(crate) struct Table {
    specs: Vec<&'static Spec>,
    by_name: HashMap<&'static [u8], u16, foldhash::fast::RandomState>,
    /// The number of each of `specs`; those of its subcommands follow.
    numbers: Vec<u16>,
    rows: Vec<Row>,
    /// The place in `specs` of the one that was found last: commands come in runs.
    last: Cell<usize>,
}

/// The longest name of a command.
const NAME_BYTES_MAX: usize = 32;

impl Table {
    pub(crate) fn new(families: &[&'static [Spec]]) -> Table {
        let specs: Vec<&'static Spec> = families.iter().flat_map(|family| family.iter()).collect();
        let (mut by_name, mut numbers, mut rows) = (HashMap::default(), Vec::new(), Vec::new());
        for (number, spec) in specs.iter().enumerate() {
            assert!(spec.name.len() <= NAME_BYTES_MAX, "{} is a short name", spec.name);
            let double = by_name.insert(spec.name.as_bytes(), number as u16);
            assert!(double.is_none(), "{} is in the table once", spec.name);
            let parent = rows.len() as u16;
            numbers.push(parent);
            rows.push(Row { spec, name: spec.name.to_owned(), parent: None });
            rows.extend(spec.subs.iter().map(|sub| Row {
                spec: sub,
                name: format!("{}|{}", spec.name, sub.name),
                parent: Some(parent),
            }));
        }
        assert!(rows.len() <= COMMANDS_MAX, "there are few commands");
        Table { specs, by_name, numbers, rows, last: Cell::new(0) }
    }

    /// Finds a command by its name, in whatever case, and its number in the table.
    #[inline]
    pub(crate) fn find(&self, name: &[u8]) -> Option<Known> {
        let last = self.last.get();
        if name.eq_ignore_ascii_case(self.specs[last].name.as_bytes()) {
            return Some(Known { spec: self.specs[last], number: self.numbers[last] });
        }
        let mut lower = [0; NAME_BYTES_MAX];
        let lower = lower.get_mut(..name.len())?;
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        let at = *self.by_name.get(&*lower)? as usize;
        self.last.set(at);
        Some(Known { spec: self.specs[at], number: self.numbers[at] })
    }

    /// Finds a command by its whole name: `config|get`, or `config` for all that it has.
    pub(crate) fn find_whole(&self, name: &[u8]) -> Option<Known> {
        let Some(bar) = name.iter().position(|byte| *byte == b'|') else { return self.find(name) };
        let sub = &name[bar + 1..];
        self.find(&name[..bar])?.sub(sub)
    }

    /// Commands with their subcommands, by number.
    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// All commands, without their subcommands.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Known> + '_ {
        let known = |(spec, number): (&&'static Spec, &u16)| Known { spec, number: *number };
        self.specs.iter().zip(&self.numbers).map(known)
    }

    pub(crate) fn len(&self) -> usize {
        self.specs.len()
    }
}

/// Commands and subcommands at most.
pub(crate) const COMMANDS_MAX: usize = 512;

impl Known {
    /// The subcommand of a name, in whatever case.
    #[inline]
    pub(crate) fn sub(self, name: &[u8]) -> Option<Known> {
        let is_it = |known: &Spec| name.eq_ignore_ascii_case(known.name.as_bytes());
        let at = self.spec.subs.iter().position(is_it)?;
        Some(Known { spec: &self.spec.subs[at], number: self.number + 1 + at as u16 })
    }
}
