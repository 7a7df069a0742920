//! When keys expire: EXPIRE, TTL and their kin.

use sextant_resp::Args;

use crate::call::Call;
use crate::command::{Flags, Group, Keys, Spec, spec};
use crate::fault::Fault;
use crate::notify::Class;
use crate::words::{int, is, quoted};

const READ: Flags = Flags::READONLY.and(Flags::FAST);
const WRITE: Flags = Flags::WRITE.and(Flags::FAST);
const GENERIC: Group = Group::Generic;

pub(crate) const COMMANDS: &[Spec] = &[
    spec(
        "expire",
        -3,
        WRITE,
        Keys::ONE,
        GENERIC,
        "1.0.0",
        "Lets a key expire in some seconds.",
        expire,
    ),
    spec(
        "pexpire",
        -3,
        WRITE,
        Keys::ONE,
        GENERIC,
        "2.6.0",
        "Lets a key expire in some milliseconds.",
        pexpire,
    ),
    spec(
        "expireat",
        -3,
        WRITE,
        Keys::ONE,
        GENERIC,
        "1.2.0",
        "Lets a key expire at a time in seconds.",
        expireat,
    ),
    spec(
        "pexpireat",
        -3,
        WRITE,
        Keys::ONE,
        GENERIC,
        "2.6.0",
        "Lets a key expire at a time in milliseconds.",
        pexpireat,
    ),
    spec(
        "ttl",
        2,
        READ,
        Keys::ONE,
        GENERIC,
        "1.0.0",
        "Returns the seconds until a key expires.",
        ttl,
    ),
    spec(
        "pttl",
        2,
        READ,
        Keys::ONE,
        GENERIC,
        "2.6.0",
        "Returns the milliseconds until a key expires.",
        pttl,
    ),
    spec(
        "expiretime",
        2,
        READ,
        Keys::ONE,
        GENERIC,
        "7.0.0",
        "Returns when a key expires, in seconds.",
        expiretime,
    ),
    spec(
        "pexpiretime",
        2,
        READ,
        Keys::ONE,
        GENERIC,
        "7.0.0",
        "Returns when a key expires, in milliseconds.",
        pexpiretime,
    ),
    spec("persist", 2, WRITE, Keys::ONE, GENERIC, "2.2.0", "Lets a key never expire.", persist),
];

fn expire(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    expire_key(call, args, 1000, true, "expire")
}

fn pexpire(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    expire_key(call, args, 1, true, "pexpire")
}

fn expireat(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    expire_key(call, args, 1000, false, "expireat")
}

fn pexpireat(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    expire_key(call, args, 1, false, "pexpireat")
}

/// On which condition a key gets another time.
#[derive(Clone, Copy, Default)]
struct Condition {
    none: bool,
    some: bool,
    later: bool,
    earlier: bool,
}

impl Condition {
    fn parse(args: Args<'_>) -> Result<Condition, Fault> {
        let mut condition = Condition::default();
        for word in args.iter() {
            match () {
                () if is(word, "NX") => condition.none = true,
                () if is(word, "XX") => condition.some = true,
                () if is(word, "GT") => condition.later = true,
                () if is(word, "LT") => condition.earlier = true,
                () => {
                    let word = quoted(word);
                    return Err(Fault::text(format!("ERR Unsupported option {word}")));
                }
            }
        }
        let Condition { none, some, later, earlier } = condition;
        if none && (some || later || earlier) {
            return Err(Fault::text(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if later && earlier {
            return Err(Fault::text("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(condition)
    }

    /// Never is later than any time.
    fn holds(self, now: Option<u64>, then: i64) -> bool {
        let has = now.is_some();
        let now = now.map_or(i64::MAX, |now| now as i64);
        !(self.none && has || self.some && !has)
            && !(self.later && (then <= now || !has))
            && !(self.earlier && has && then >= now)
    }
}

fn expire_key(
    call: &mut Call<'_>,
    args: Args<'_>,
    scale: i64,
    relative: bool,
    name: &str,
) -> Result<(), Fault> {
    let condition = Condition::parse(args.skip(3))?;
    let number = int(&args[2])?;
    let fault = || Fault::text(format!("ERR invalid expire time in '{name}' command"));
    let scaled = number.checked_mul(scale).ok_or_else(fault)?;
    let base = if relative { call.now() as i64 } else { 0 };
    let at = scaled.checked_add(base).ok_or_else(fault)?;
    let (db, key) = (call.db, &args[1]);
    let Some(found) = call.keys().find(db, key) else {
        call.out.int(0);
        return Ok(());
    };
    if !condition.holds(call.engine.keys.expires_at(found), at) {
        call.out.int(0);
        return Ok(());
    }
    if at <= call.now() as i64 {
        call.keys().remove(found);
        call.notify(Class::GENERIC, "del", key);
    } else {
        call.keys().set_expire(found, Some(at as u64))?;
        call.notify(Class::GENERIC, "expire", key);
    }
    call.out.int(1);
    Ok(())
}

/// Answers with a key's time; -2 without a key, -1 without a time.
fn reply_time(
    call: &mut Call<'_>,
    key: &[u8],
    time: impl Fn(u64, u64) -> u64,
) -> Result<(), Fault> {
    let (db, now) = (call.db, call.now());
    let found = call.engine.keys.find(db, key);
    let answer = found.map_or(-2, |found| {
        call.engine.keys.expires_at(found).map_or(-1, |at| time(at, now) as i64)
    });
    call.out.int(answer);
    Ok(())
}

fn ttl(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    reply_time(call, &args[1], |at, now| (at.saturating_sub(now) + 500) / 1000)
}

fn pttl(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    reply_time(call, &args[1], u64::saturating_sub)
}

fn expiretime(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    reply_time(call, &args[1], |at, _| (at + 500) / 1000)
}

fn pexpiretime(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    reply_time(call, &args[1], |at, _| at)
}

fn persist(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let db = call.db;
    let found = call.keys().find(db, &args[1]);
    let found = found.filter(|found| call.engine.keys.expires_at(*found).is_some());
    if let Some(found) = found {
        call.keys().set_expire(found, None)?;
        call.notify(Class::GENERIC, "persist", &args[1]);
    }
    call.out.int(i64::from(found.is_some()));
    Ok(())
}
