//! Sets: SADD, SMEMBERS, SINTER and their kin.

use std::borrow::Cow;
use std::cmp::Reverse;

use hashbrown::HashSet;
use sextant_keyspace::Members;
use sextant_keyspace::packed::Word;
use sextant_resp::Args;

use super::keys::{ScanOptions, reply_scan, scan_found};
use crate::call::Call;
use crate::command::{Flags, Group, Keys, Spec, spec};
use crate::fault::Fault;
use crate::notify::Class;
use crate::words::{chance_count, int_within, is, repeated};

const READ: Flags = Flags::READONLY.and(Flags::FAST);
const READ_SLOW: Flags = Flags::READONLY;
const COUNTED: Flags = Flags::READONLY.and(Flags::MOVABLE_KEYS);
const WRITE: Flags = Flags::WRITE.and(Flags::DENYOOM);
const WRITE_FAST: Flags = WRITE.and(Flags::FAST);
const REMOVE: Flags = Flags::WRITE.and(Flags::FAST);
const TWO: Keys = Keys::At { first: 1, last: 2, step: 1 };
const SET: Group = Group::Set;

pub(crate) const COMMANDS: &[Spec] = &[
    spec("sadd", -3, WRITE_FAST, Keys::ONE, SET, "1.0.0", "Adds members to a set.", sadd),
    spec("srem", -3, REMOVE, Keys::ONE, SET, "1.0.0", "Takes members out of a set.", srem),
    spec("smove", 4, REMOVE, TWO, SET, "1.0.0", "Moves a member to another set.", smove),
    spec("scard", 2, READ, Keys::ONE, SET, "1.0.0", "Counts the members of a set.", scard),
    spec(
        "sismember",
        3,
        READ,
        Keys::ONE,
        SET,
        "1.0.0",
        "Tells whether something is a member.",
        sismember,
    ),
    spec(
        "smismember",
        -3,
        READ,
        Keys::ONE,
        SET,
        "6.2.0",
        "Tells of each whether it is a member.",
        smismember,
    ),
    spec("smembers", 2, READ_SLOW, Keys::ONE, SET, "1.0.0", "Returns all members.", smembers),
    spec("spop", -2, REMOVE, Keys::ONE, SET, "1.0.0", "Takes members out by chance.", spop),
    spec(
        "srandmember",
        -2,
        READ_SLOW,
        Keys::ONE,
        SET,
        "1.0.0",
        "Returns members by chance.",
        srandmember,
    ),
    spec(
        "sscan",
        -3,
        READ_SLOW,
        Keys::ONE,
        SET,
        "2.8.0",
        "Goes through the members of a set, some at a time.",
        sscan,
    ),
    spec("sinter", -2, READ_SLOW, Keys::ALL, SET, "1.0.0", "Returns what all sets have.", sinter),
    spec(
        "sintercard",
        -3,
        COUNTED,
        Keys::Counted { count: 1, store: None },
        SET,
        "7.0.0",
        "Counts what all sets have.",
        sintercard,
    ),
    spec(
        "sinterstore",
        -3,
        WRITE,
        Keys::ALL,
        SET,
        "1.0.0",
        "Keeps what all sets have.",
        sinterstore,
    ),
    spec("sunion", -2, READ_SLOW, Keys::ALL, SET, "1.0.0", "Returns what any set has.", sunion),
    spec("sunionstore", -3, WRITE, Keys::ALL, SET, "1.0.0", "Keeps what any set has.", sunionstore),
    spec(
        "sdiff",
        -2,
        READ_SLOW,
        Keys::ALL,
        SET,
        "1.0.0",
        "Returns what the first set alone has.",
        sdiff,
    ),
    spec(
        "sdiffstore",
        -3,
        WRITE,
        Keys::ALL,
        SET,
        "1.0.0",
        "Keeps what the first set alone has.",
        sdiffstore,
    ),
];

fn sadd(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (db, key) = (call.db, &args[1]);
    let new = call.keys().set_add(db, key, args.iter().skip(2))?;
    if new > 0 {
        call.notify(Class::SET, "sadd", key);
    }
    call.out.int(new as i64);
    Ok(())
}

fn srem(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (db, key) = (call.db, &args[1]);
    let removed = call.keys().set_remove(db, key, args.iter().skip(2))?;
    if removed.count > 0 {
        call.notify(Class::SET, "srem", key);
    }
    if removed.gone {
        call.notify(Class::GENERIC, "del", key);
    }
    call.out.int(removed.count as i64);
    Ok(())
}

fn smove(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (db, from, to, member) = (call.db, &args[1], &args[2], &args[3]);
    let source = call.keys().set_of(db, from)?;
    let Some(is_there) = source.map(|members| members.contains(member)) else {
        call.out.int(0);
        return Ok(());
    };
    call.keys().set_of(db, to)?;
    call.out.int(i64::from(is_there));
    if !is_there || from == to {
        return Ok(());
    }
    // Added first, so that it is not lost if there is no memory.
    let new = call.keys().set_add(db, to, std::iter::once(member))?;
    let removed = call.keys().set_remove(db, from, std::iter::once(member))?;
    call.notify(Class::SET, "srem", from);
    if removed.gone {
        call.notify(Class::GENERIC, "del", from);
    }
    if new > 0 {
        call.notify(Class::SET, "sadd", to);
    }
    Ok(())
}

fn scard(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let found = call.look(&args[1]);
    let members = found.map(|found| call.engine.keys.members(found)).transpose()?;
    call.out.int(members.map_or(0, Members::len) as i64);
    Ok(())
}

fn sismember(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let found = call.look(&args[1]);
    let members = found.map(|found| call.engine.keys.members(found)).transpose()?;
    let is_there = members.is_some_and(|members| members.contains(&args[2]));
    call.out.int(i64::from(is_there));
    Ok(())
}

fn smismember(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let found = call.look(&args[1]);
    let members = found.map(|found| call.engine.keys.members(found)).transpose()?;
    call.out.array(args.len() - 2);
    for member in args.iter().skip(2) {
        let is_there = members.is_some_and(|members| members.contains(member));
        call.out.int(i64::from(is_there));
    }
    Ok(())
}

fn smembers(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let found = call.look(&args[1]);
    let members = found.map(|found| call.engine.keys.members(found)).transpose()?;
    call.out.set(members.map_or(0, Members::len) as usize);
    members.into_iter().flat_map(Members::iter).for_each(|member| call.out.word(member));
    Ok(())
}

fn spop(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    const RANGE: &str = "ERR value is out of range, must be positive";
    let (db, key) = (call.db, &args[1]);
    let count = match args.len() {
        2 => 1,
        3 => int_within(&args[2], 0..=i64::MAX, RANGE)? as usize,
        _ => return Err(Fault::Syntax),
    };
    let (popped, gone) = match count {
        0 => call.keys().set_of(db, key).map(|_| (Vec::new(), false))?,
        _ => call.keys().set_pop(db, key, count)?,
    };
    if !popped.is_empty() {
        call.notify(Class::SET, "spop", key);
    }
    if gone {
        call.notify(Class::GENERIC, "del", key);
    }
    if args.len() == 2 {
        match popped.first() {
            Some(member) => call.out.bulk(member),
            None => call.out.null(),
        }
        return Ok(());
    }
    call.out.set(popped.len());
    popped.iter().for_each(|member| call.out.bulk(member));
    Ok(())
}

fn srandmember(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let mut random = call.keys().random();
    if args.len() == 2 {
        let found = call.look(&args[1]);
        let members = found.map(|found| call.engine.keys.members(found)).transpose()?;
        match members.and_then(|members| members.sample(&mut random)) {
            Some(member) => call.out.word(member),
            None => call.out.null(),
        }
        return Ok(());
    }
    if args.len() > 3 {
        return Err(Fault::Syntax);
    }
    let count = chance_count(&args[2])?;
    let found = call.look(&args[1]);
    let members = found.map(|found| call.engine.keys.members(found)).transpose()?;
    let Some(members) = members else {
        call.out.array(0);
        return Ok(());
    };
    if let Ok(count) = usize::try_from(count) {
        let chosen = members.choose(count, &mut random);
        call.out.array(chosen.len());
        chosen.into_iter().for_each(|member| call.out.word(member));
        return Ok(());
    }
    let count = repeated(count)?;
    call.out.array(count);
    for _ in 0..count {
        let member = members.sample(&mut random).expect("a set that is there has a member");
        call.out.word(member);
    }
    Ok(())
}

fn sscan(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let Some(found) = scan_found(call, args)? else { return Ok(()) };
    let members = call.engine.keys.members(found)?;
    let options = ScanOptions::parse(args.skip(2), false)?;
    let (mut met, mut buffer) = (Vec::new(), [0; 20]);
    let cursor = members.scan(options.cursor, options.count, |member| {
        if options.takes(member.as_bytes(&mut buffer)) {
            met.push(member);
        }
    });
    reply_scan(&mut call.out, cursor, met.len());
    met.into_iter().for_each(|member| call.out.word(member));
    Ok(())
}

/// What is made of several sets.
#[derive(Clone, Copy)]
enum Combine {
    Inter,
    Union,
    Diff,
}

/// Finds sets by their keys. Keys that are not there are none.
fn sets<'c, 'k>(
    call: &'c mut Call<'_>,
    keys: impl Iterator<Item = &'k [u8]> + Clone,
) -> Result<Vec<Option<Members<'c>>>, Fault> {
    // Whatever has to expire does so first; then nothing changes any more.
    for key in keys.clone() {
        call.look(key);
    }
    let (space, db) = (&call.engine.keys, call.db);
    let set = |key: &[u8]| space.peek(db, key).map(|found| space.members(found)).transpose();
    Ok(keys.map(set).collect::<Result<_, _>>()?)
}

/// Members of all sets, the first `limit` that are met.
fn inter<'a>(sets: &[Option<Members<'a>>], limit: usize) -> Vec<Word<'a>> {
    let Some(mut sets) = sets.iter().copied().collect::<Option<Vec<_>>>() else {
        return Vec::new();
    };
    sets.sort_by_key(|set| set.len());
    let Some((least, others)) = sets.split_first() else { return Vec::new() };
    let mut buffer = [0; 20];
    let is_in_all = |member: &Word<'_>| {
        let member = member.as_bytes(&mut buffer);
        others.iter().all(|set| set.contains(member))
    };
    least.iter().filter(is_in_all).take(limit).collect()
}

/// Members, whoever's, by their bytes.
type Seen<'a> = HashSet<Cow<'a, [u8]>, foldhash::fast::RandomState>;

fn bytes_of(member: Word<'_>) -> Cow<'_, [u8]> {
    match member {
        Word::Bytes(bytes) => Cow::Borrowed(bytes),
        Word::Int(_) => Cow::Owned(member.as_bytes(&mut [0; 20]).to_vec()),
    }
}

fn union<'a>(sets: &[Option<Members<'a>>]) -> Vec<Word<'a>> {
    let sets: Vec<Members<'a>> = sets.iter().copied().flatten().collect();
    if let [only] = sets[..] {
        return only.iter().collect();
    }
    let mut seen = Seen::default();
    let all = sets.into_iter().flat_map(Members::iter);
    all.filter(|member| seen.insert(bytes_of(*member))).collect()
}

fn diff<'a>(sets: &[Option<Members<'a>>]) -> Vec<Word<'a>> {
    let Some((Some(first), others)) = sets.split_first() else { return Vec::new() };
    let mut others: Vec<Members<'a>> = others.iter().copied().flatten().collect();
    // To look each member up in all others is twice the work of meeting a member, at most.
    let (looks, all) = (first.len() * others.len() as u64 / 2, others.iter().map(|set| set.len()));
    if looks <= first.len() + all.sum::<u64>() {
        others.sort_by_key(|set| Reverse(set.len()));
        let mut buffer = [0; 20];
        let is_alone = |member: &Word<'_>| {
            let member = member.as_bytes(&mut buffer);
            !others.iter().any(|set| set.contains(member))
        };
        return first.iter().filter(is_alone).collect();
    }
    let mut left: Seen<'_> = first.iter().map(bytes_of).collect();
    for member in others.into_iter().flat_map(Members::iter) {
        left.remove(&bytes_of(member));
    }
    first.iter().filter(|member| left.contains(&bytes_of(*member))).collect()
}

fn combined<'a>(sets: &[Option<Members<'a>>], how: Combine) -> Vec<Word<'a>> {
    match how {
        Combine::Inter => inter(sets, usize::MAX),
        Combine::Union => union(sets),
        Combine::Diff => diff(sets),
    }
}

fn reply_combined(call: &mut Call<'_>, args: Args<'_>, how: Combine) -> Result<(), Fault> {
    let mut out = std::mem::take(&mut call.out);
    let done = sets(call, args.iter().skip(1)).map(|sets| {
        let members = combined(&sets, how);
        out.set(members.len());
        members.into_iter().for_each(|member| out.word(member));
    });
    call.out = out;
    done
}

fn store_combined(
    call: &mut Call<'_>,
    args: Args<'_>,
    how: Combine,
    event: &'static str,
) -> Result<(), Fault> {
    let (db, to) = (call.db, &args[1]);
    let sets = sets(call, args.iter().skip(2))?;
    let members: Vec<Vec<u8>> =
        combined(&sets, how).into_iter().map(|member| bytes_of(member).into_owned()).collect();
    drop(sets);
    let was_there = call.keys().find(db, to).is_some();
    call.keys().set_store(db, to, &members)?;
    if !members.is_empty() {
        call.notify(Class::SET, event, to);
    } else if was_there {
        call.notify(Class::GENERIC, "del", to);
    }
    call.out.int(members.len() as i64);
    Ok(())
}

fn sinter(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    reply_combined(call, args, Combine::Inter)
}

fn sunion(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    reply_combined(call, args, Combine::Union)
}

fn sdiff(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    reply_combined(call, args, Combine::Diff)
}

fn sinterstore(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    store_combined(call, args, Combine::Inter, "sinterstore")
}

fn sunionstore(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    store_combined(call, args, Combine::Union, "sunionstore")
}

fn sdiffstore(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    store_combined(call, args, Combine::Diff, "sdiffstore")
}

fn sintercard(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    const COUNT: &str = "ERR numkeys should be greater than 0";
    const LIMIT: &str = "ERR LIMIT can't be negative";
    let count = int_within(&args[1], 1..=i64::MAX, COUNT)? as u64;
    if count > args.len() as u64 - 2 {
        return Err(Fault::text("ERR Number of keys can't be greater than number of args"));
    }
    let (keys, mut at, mut limit) = (count as usize, 2 + count as usize, 0);
    while at < args.len() {
        match args.get(at + 1) {
            Some(number) if is(&args[at], "LIMIT") => {
                limit = int_within(number, 0..=i64::MAX, LIMIT)? as usize;
            }
            _ => return Err(Fault::Syntax),
        }
        at += 2;
    }
    let sets = sets(call, args.iter().skip(2).take(keys))?;
    let limit = if limit == 0 { usize::MAX } else { limit };
    let members = inter(&sets, limit).len();
    drop(sets);
    call.out.int(members as i64);
    Ok(())
}

#[cfg(test)]
mod tests;
