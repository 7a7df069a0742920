//! Strings: GET, SET and their kin.

use sextant_keyspace::{EXPIRE_MAX, Found, Text};
use sextant_resp::Args;

use crate::call::Call;
use crate::command::{Flags, Group, Keys, Spec, spec};
use crate::fault::Fault;
use crate::notify::Class;
use crate::words::{int, is, range};

const READ: Flags = Flags::READONLY.and(Flags::FAST);
const READ_SLOW: Flags = Flags::READONLY;
const WRITE: Flags = Flags::WRITE.and(Flags::DENYOOM);
const WRITE_FAST: Flags = WRITE.and(Flags::FAST);
const PAIRS: Keys = Keys::At { first: 1, last: -1, step: 2 };
const STRING: Group = Group::String;

pub(crate) const COMMANDS: &[Spec] = &[
    spec("get", 2, READ, Keys::ONE, STRING, "1.0.0", "Returns the string value of a key.", get),
    spec("set", -3, WRITE, Keys::ONE, STRING, "1.0.0", "Sets the string value of a key.", set),
    spec(
        "setnx",
        3,
        WRITE_FAST,
        Keys::ONE,
        STRING,
        "1.0.0",
        "Sets a key that is not there.",
        setnx,
    ),
    spec("setex", 4, WRITE, Keys::ONE, STRING, "2.0.0", "Sets a key for some seconds.", setex),
    spec(
        "psetex",
        4,
        WRITE,
        Keys::ONE,
        STRING,
        "2.6.0",
        "Sets a key for some milliseconds.",
        psetex,
    ),
    spec(
        "getset",
        3,
        WRITE_FAST,
        Keys::ONE,
        STRING,
        "1.0.0",
        "Sets a key and returns what it was.",
        getset,
    ),
    spec(
        "getdel",
        2,
        Flags::WRITE.and(Flags::FAST),
        Keys::ONE,
        STRING,
        "6.2.0",
        "Returns a key's value and deletes it.",
        getdel,
    ),
    spec(
        "getex",
        -2,
        Flags::WRITE.and(Flags::FAST),
        Keys::ONE,
        STRING,
        "6.2.0",
        "Returns a key's value and sets when it expires.",
        getex,
    ),
    spec("mget", -2, READ, Keys::ALL, STRING, "1.0.0", "Returns the values of some keys.", mget),
    spec("mset", -3, WRITE, PAIRS, STRING, "1.0.1", "Sets some keys.", mset),
    spec(
        "msetnx",
        -3,
        WRITE,
        PAIRS,
        STRING,
        "1.0.1",
        "Sets some keys if none of them is there.",
        msetnx,
    ),
    spec("append", 3, WRITE_FAST, Keys::ONE, STRING, "2.0.0", "Appends to a string.", append),
    spec("strlen", 2, READ, Keys::ONE, STRING, "2.2.0", "Returns a string's length.", strlen),
    spec(
        "getrange",
        4,
        READ_SLOW,
        Keys::ONE,
        STRING,
        "2.4.0",
        "Returns a part of a string.",
        getrange,
    ),
    spec(
        "substr",
        4,
        READ_SLOW,
        Keys::ONE,
        STRING,
        "1.0.0",
        "Returns a part of a string.",
        getrange,
    ),
    spec(
        "setrange",
        4,
        WRITE,
        Keys::ONE,
        STRING,
        "2.2.0",
        "Overwrites a part of a string.",
        setrange,
    ),
];

/// The longest string: Redis' `proto-max-bulk-len`.
pub(crate) const STRING_BYTES_MAX: usize = 512 << 20;

/// Writes a string as a bulk reply, without a copy if it is long.
pub(crate) fn reply_text(out: &mut crate::output::Output, text: Text<'_>) {
    match text {
        Text::Short(bytes) => out.bulk(bytes),
        Text::Int(number) => out.bulk_int(number),
        Text::Long(long) => out.bulk_pieces(long.len(), long.pieces()),
    }
}

/// Writes the string of a key, or a null.
fn reply_key(call: &mut Call<'_>, key: &[u8]) -> Result<Option<Found>, Fault> {
    let found = call.engine.keys.find(call.db, key);
    let Some(found) = found else {
        call.engine.counts.misses += 1;
        call.notify(Class::MISS, "keymiss", key);
        call.out.null();
        return Ok(None);
    };
    call.engine.counts.hits += 1;
    reply_text(&mut call.out, call.engine.keys.text(found)?);
    Ok(Some(found))
}

fn get(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    reply_key(call, &args[1]).map(drop)
}

/// When a key that is written shall expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    Never,
    Keep,
    At(u64),
}

/// An option that says when to expire, and the number that was given with it.
#[derive(Clone, Copy)]
struct Timed<'a> {
    option: &'static str,
    number: &'a [u8],
}

impl<'a> Timed<'a> {
    /// Takes an option: its word, and the number behind it.
    fn parse(word: &[u8], number: Option<&'a [u8]>) -> Option<Timed<'a>> {
        let option = ["EX", "PX", "EXAT", "PXAT"].into_iter().find(|option| is(word, option))?;
        Some(Timed { option, number: number? })
    }

    /// The same option may be given again: the last one counts. Another may not.
    fn goes_with(self, other: Option<Timed<'_>>) -> bool {
        other.is_none_or(|other| other.option == self.option)
    }

    fn at(self, now: u64, command: &str) -> Result<Until, Fault> {
        let scale = if self.option.starts_with('E') { 1000 } else { 1 };
        let relative = !self.option.ends_with("AT");
        expire_at(now, int(self.number)?, scale, relative, command).map(Until::At)
    }
}

/// A time to expire at, in milliseconds since 1970, that lies after the beginning of time.
pub(crate) fn expire_at(
    now: u64,
    number: i64,
    scale: i64,
    relative: bool,
    command: &str,
) -> Result<u64, Fault> {
    let fault = || Fault::text(format!("ERR invalid expire time in '{command}' command"));
    let scaled = number.checked_mul(scale).filter(|at| *at > 0).ok_or_else(fault)?;
    let base = if relative { now as i64 } else { 0 };
    let at = scaled.checked_add(base).ok_or_else(fault)?;
    Ok((at as u64).min(EXPIRE_MAX))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Only {
    Always,
    IfNew,
    IfThere,
}

fn set(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (key, value) = (&args[1], &args[2]);
    let (mut only, mut timed, mut keeps, mut returns) = (Only::Always, None, false, false);
    let mut at = 3;
    while let Some(word) = args.get(at) {
        if is(word, "NX") && only != Only::IfThere {
            only = Only::IfNew;
        } else if is(word, "XX") && only != Only::IfNew {
            only = Only::IfThere;
        } else if is(word, "GET") {
            returns = true;
        } else if is(word, "KEEPTTL") && timed.is_none() {
            keeps = true;
        } else if let Some(told) = Timed::parse(word, args.get(at + 1))
            && !keeps
            && told.goes_with(timed)
        {
            timed = Some(told);
            at += 1;
        } else {
            return Err(Fault::Syntax);
        }
        at += 1;
    }
    let until = match timed {
        Some(timed) => timed.at(call.now(), "set")?,
        None if keeps => Until::Keep,
        None => Until::Never,
    };
    if returns || only != Only::Always || until == Until::Keep {
        return set_if(call, key, value, only, until, returns);
    }
    let expire = if let Until::At(at) = until { Some(at) } else { None };
    store(call, key, value, expire)?;
    call.out.ok();
    Ok(())
}

/// Sets a key and tells it.
fn store(call: &mut Call<'_>, key: &[u8], value: &[u8], expire: Option<u64>) -> Result<(), Fault> {
    check_length(value.len())?;
    // A time that has passed already is as if it had passed a moment later.
    let db = call.db;
    call.keys().set(db, key, value, expire)?;
    call.notify(Class::STRING, "set", key);
    if expire.is_some() {
        call.notify(Class::GENERIC, "expire", key);
    }
    Ok(())
}

fn check_length(bytes: usize) -> Result<(), Fault> {
    match bytes <= STRING_BYTES_MAX {
        true => Ok(()),
        false => Err(Fault::text("ERR string exceeds maximum allowed size (proto-max-bulk-len)")),
    }
}

fn set_if(
    call: &mut Call<'_>,
    key: &[u8],
    value: &[u8],
    only: Only,
    until: Until,
    returns: bool,
) -> Result<(), Fault> {
    let db = call.db;
    let found = call.keys().find(db, key);
    if returns {
        match found {
            Some(found) => reply_text(&mut call.out, call.engine.keys.text(found)?),
            None => call.out.null(),
        }
    }
    let allowed = match only {
        Only::Always => true,
        Only::IfNew => found.is_none(),
        Only::IfThere => found.is_some(),
    };
    if !allowed {
        if !returns {
            call.out.null();
        }
        return Ok(());
    }
    let expire = match until {
        Until::Never => None,
        Until::Keep => found.and_then(|found| call.keys().expires_at(found)),
        Until::At(at) => Some(at),
    };
    store(call, key, value, expire)?;
    if !returns {
        call.out.ok();
    }
    Ok(())
}

fn setnx(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let db = call.db;
    let is_new = call.keys().find(db, &args[1]).is_none();
    if is_new {
        store(call, &args[1], &args[2], None)?;
    }
    call.out.int(i64::from(is_new));
    Ok(())
}

fn set_for(call: &mut Call<'_>, args: Args<'_>, scale: i64, name: &str) -> Result<(), Fault> {
    let at = expire_at(call.now(), int(&args[2])?, scale, true, name)?;
    store(call, &args[1], &args[3], Some(at))?;
    call.out.ok();
    Ok(())
}

fn setex(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    set_for(call, args, 1000, "setex")
}

fn psetex(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    set_for(call, args, 1, "psetex")
}

fn getset(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    reply_key(call, &args[1])?;
    store(call, &args[1], &args[2], None)
}

fn getdel(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    if let Some(found) = reply_key(call, &args[1])? {
        call.keys().remove(found);
        call.notify(Class::GENERIC, "del", &args[1]);
    }
    Ok(())
}

fn getex(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (mut timed, mut persists, mut at) = (None, false, 2);
    while let Some(word) = args.get(at) {
        if is(word, "PERSIST") && timed.is_none() {
            persists = true;
        } else if let Some(told) = Timed::parse(word, args.get(at + 1))
            && !persists
            && told.goes_with(timed)
        {
            timed = Some(told);
            at += 1;
        } else {
            return Err(Fault::Syntax);
        }
        at += 1;
    }
    let Some(found) = reply_key(call, &args[1])? else { return Ok(()) };
    let until = match timed {
        Some(timed) => timed.at(call.now(), "getex")?,
        None if persists => Until::Never,
        None => Until::Keep,
    };
    match until {
        Until::Keep => {}
        Until::Never => {
            if call.keys().expires_at(found).is_some() {
                call.keys().set_expire(found, None)?;
                call.notify(Class::GENERIC, "persist", &args[1]);
            }
        }
        Until::At(at) if at <= call.now() => {
            call.keys().remove(found);
            call.notify(Class::GENERIC, "del", &args[1]);
        }
        Until::At(at) => {
            call.keys().set_expire(found, Some(at))?;
            call.notify(Class::GENERIC, "expire", &args[1]);
        }
    }
    Ok(())
}

fn mget(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    call.out.array(args.len() - 1);
    for key in args.iter().skip(1) {
        match call.engine.keys.find(call.db, key) {
            Some(found) => match call.engine.keys.text(found) {
                Ok(text) => reply_text(&mut call.out, text),
                Err(_) => call.out.null(),
            },
            None => call.out.null(),
        }
    }
    Ok(())
}

fn check_pairs(args: Args<'_>, name: &str) -> Result<(), Fault> {
    match args.len() % 2 {
        1 => Ok(()),
        _ => Err(Fault::arity(name)),
    }
}

fn store_pairs(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    (2..args.len()).step_by(2).try_for_each(|at| check_length(args[at].len()))?;
    (1..args.len()).step_by(2).try_for_each(|at| store(call, &args[at], &args[at + 1], None))
}

fn mset(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    check_pairs(args, "mset")?;
    store_pairs(call, args)?;
    call.out.ok();
    Ok(())
}

fn msetnx(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    check_pairs(args, "msetnx")?;
    let db = call.db;
    let there = (1..args.len()).step_by(2).any(|at| call.keys().find(db, &args[at]).is_some());
    if !there {
        store_pairs(call, args)?;
    }
    call.out.int(i64::from(!there));
    Ok(())
}

fn append(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let db = call.db;
    let len = call.keys().get(db, &args[1])?.map_or(0, |text| text.len());
    check_length(len.saturating_add(args[2].len()))?;
    let len = call.keys().append(db, &args[1], &args[2])?;
    call.notify(Class::STRING, "append", &args[1]);
    call.out.int(len as i64);
    Ok(())
}

fn strlen(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let len = call.engine.keys.get(call.db, &args[1])?.map_or(0, |text| text.len());
    call.out.int(len as i64);
    Ok(())
}

fn getrange(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (start, end) = (int(&args[2])?, int(&args[3])?);
    let Some(text) = call.engine.keys.get(call.db, &args[1])? else {
        call.out.bulk(b"");
        return Ok(());
    };
    let mut part = Vec::new();
    // Both from the end and in the wrong order: nothing, whatever the length.
    if !(start < 0 && end < 0 && start > end) {
        // An end before the beginning is the beginning.
        let len = text.len() as i64;
        let end = if end < 0 { (end + len).max(0) } else { end };
        text.copy_range(range(start, end, text.len()), &mut part);
    }
    call.out.bulk(&part);
    Ok(())
}

fn setrange(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let at = int(&args[2])?;
    let at = usize::try_from(at).map_err(|_| Fault::text("ERR offset is out of range"))?;
    let db = call.db;
    if args[3].is_empty() {
        let len = call.keys().get(db, &args[1])?.map_or(0, |text| text.len());
        call.out.int(len as i64);
        return Ok(());
    }
    call.keys().get(db, &args[1])?;
    check_length(at.saturating_add(args[3].len()))?;
    let len = call.keys().write_at(db, &args[1], at, &args[3])?;
    call.notify(Class::STRING, "setrange", &args[1]);
    call.out.int(len as i64);
    Ok(())
}
