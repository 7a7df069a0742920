//! Hashes: HSET, HGET and their kin.

use sextant_keyspace::packed::Word;
use sextant_keyspace::{Fields, canonical_int};
use sextant_resp::Args;

use super::keys::{ScanOptions, reply_scan, scan_found};
use super::numbers::add_floats;
use crate::call::Call;
use crate::command::{Flags, Group, Keys, Spec, spec};
use crate::fault::Fault;
use crate::notify::Class;
use crate::output::Output;
use crate::words::{chance_count, float, int, is, parse_float, repeated};

const READ: Flags = Flags::READONLY.and(Flags::FAST);
const READ_SLOW: Flags = Flags::READONLY;
const WRITE: Flags = Flags::WRITE.and(Flags::DENYOOM).and(Flags::FAST);
const REMOVE: Flags = Flags::WRITE.and(Flags::FAST);
const HASH: Group = Group::Hash;

pub(crate) const COMMANDS: &[Spec] = &[
    spec("hset", -4, WRITE, Keys::ONE, HASH, "2.0.0", "Sets fields of a hash.", hset),
    spec("hmset", -4, WRITE, Keys::ONE, HASH, "2.0.0", "Sets fields of a hash.", hmset),
    spec("hsetnx", 4, WRITE, Keys::ONE, HASH, "2.0.0", "Sets a field that is not there.", hsetnx),
    spec("hget", 3, READ, Keys::ONE, HASH, "2.0.0", "Returns the value of a field.", hget),
    spec("hmget", -3, READ, Keys::ONE, HASH, "2.0.0", "Returns the values of fields.", hmget),
    spec("hdel", -3, REMOVE, Keys::ONE, HASH, "2.0.0", "Deletes fields of a hash.", hdel),
    spec("hlen", 2, READ, Keys::ONE, HASH, "2.0.0", "Counts the fields of a hash.", hlen),
    spec("hstrlen", 3, READ, Keys::ONE, HASH, "3.2.0", "Returns a value's length.", hstrlen),
    spec("hexists", 3, READ, Keys::ONE, HASH, "2.0.0", "Tells whether a field is there.", hexists),
    spec("hincrby", 4, WRITE, Keys::ONE, HASH, "2.0.0", "Adds to a field's integer.", hincrby),
    spec(
        "hincrbyfloat",
        4,
        WRITE,
        Keys::ONE,
        HASH,
        "2.6.0",
        "Adds to a field's number.",
        hincrbyfloat,
    ),
    spec("hkeys", 2, READ_SLOW, Keys::ONE, HASH, "2.0.0", "Returns all fields.", hkeys),
    spec("hvals", 2, READ_SLOW, Keys::ONE, HASH, "2.0.0", "Returns all values.", hvals),
    spec(
        "hgetall",
        2,
        READ_SLOW,
        Keys::ONE,
        HASH,
        "2.0.0",
        "Returns all fields and their values.",
        hgetall,
    ),
    spec(
        "hrandfield",
        -2,
        READ_SLOW,
        Keys::ONE,
        HASH,
        "6.2.0",
        "Returns fields by chance.",
        hrandfield,
    ),
    spec(
        "hscan",
        -3,
        READ_SLOW,
        Keys::ONE,
        HASH,
        "2.8.0",
        "Goes through the fields of a hash, some at a time.",
        hscan,
    ),
];

/// Sets the fields that a command's words from the third on are, in turn with their values;
/// returns how many are new.
fn set_pairs(call: &mut Call<'_>, args: Args<'_>, name: &str) -> Result<u64, Fault> {
    if !args.len().is_multiple_of(2) {
        return Err(Fault::arity(name));
    }
    let (db, key) = (call.db, &args[1]);
    let pairs = (2..args.len()).step_by(2).map(|at| (&args[at], &args[at + 1]));
    let new = call.keys().hash_set(db, key, pairs)?;
    call.notify(Class::HASH, "hset", key);
    Ok(new)
}

fn hset(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let new = set_pairs(call, args, "hset")?;
    call.out.int(new as i64);
    Ok(())
}

fn hmset(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    set_pairs(call, args, "hmset")?;
    call.out.ok();
    Ok(())
}

fn hsetnx(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let fields = call.engine.keys.hash(call.db, &args[1])?;
    let is_there = fields.is_some_and(|fields| fields.get(&args[2]).is_some());
    if !is_there {
        set_pairs(call, args, "hsetnx")?;
    }
    call.out.int(i64::from(!is_there));
    Ok(())
}

fn reply_value(out: &mut Output, value: Option<Word<'_>>) {
    match value {
        Some(value) => out.word(value),
        None => out.null(),
    }
}

fn hget(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let value = match call.look(&args[1]) {
        Some(found) => call.engine.keys.fields(found)?.get(&args[2]),
        None => None,
    };
    reply_value(&mut call.out, value);
    Ok(())
}

fn hmget(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let found = call.look(&args[1]);
    let fields = found.map(|found| call.engine.keys.fields(found)).transpose()?;
    call.out.array(args.len() - 2);
    for field in args.iter().skip(2) {
        reply_value(&mut call.out, fields.and_then(|fields| fields.get(field)));
    }
    Ok(())
}

fn hdel(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (db, key) = (call.db, &args[1]);
    let removed = call.keys().hash_delete(db, key, args.iter().skip(2))?;
    if removed.count > 0 {
        call.notify(Class::HASH, "hdel", key);
    }
    if removed.gone {
        call.notify(Class::GENERIC, "del", key);
    }
    call.out.int(removed.count as i64);
    Ok(())
}

fn hlen(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let found = call.look(&args[1]);
    let fields = found.map(|found| call.engine.keys.fields(found)).transpose()?;
    call.out.int(fields.map_or(0, Fields::len) as i64);
    Ok(())
}

fn hstrlen(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let found = call.look(&args[1]);
    let fields = found.map(|found| call.engine.keys.fields(found)).transpose()?;
    let value = fields.and_then(|fields| fields.get(&args[2]));
    call.out.int(value.map_or(0, |value| value.len()) as i64);
    Ok(())
}

fn hexists(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let found = call.look(&args[1]);
    let fields = found.map(|found| call.engine.keys.fields(found)).transpose()?;
    let is_there = fields.is_some_and(|fields| fields.get(&args[2]).is_some());
    call.out.int(i64::from(is_there));
    Ok(())
}

fn hincrby(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (db, key, field, by) = (call.db, &args[1], &args[2], int(&args[3])?);
    let value = call.keys().hash(db, key)?.and_then(|fields| fields.get(field));
    let number = match value {
        Some(Word::Int(number)) => number,
        Some(Word::Bytes(bytes)) => {
            canonical_int(bytes).ok_or(Fault::text("ERR hash value is not an integer"))?
        }
        None => 0,
    };
    let sum = number.checked_add(by);
    let sum = sum.ok_or(Fault::text("ERR increment or decrement would overflow"))?;
    let mut text = itoa::Buffer::new();
    let pair = (field, text.format(sum).as_bytes());
    call.keys().hash_set(db, key, std::iter::once(pair))?;
    call.notify(Class::HASH, "hincrby", key);
    call.out.int(sum);
    Ok(())
}

fn hincrbyfloat(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (db, key, field) = (call.db, &args[1], &args[2]);
    if float(&args[3])?.is_infinite() {
        return Err(Fault::text("ERR value is NaN or Infinity"));
    }
    let value = call.keys().hash(db, key)?.and_then(|fields| fields.get(field));
    let mut buffer = [0; 20];
    let number = value.as_ref().map_or(&b"0"[..], |value| value.as_bytes(&mut buffer));
    if parse_float(number).is_none() {
        return Err(Fault::text("ERR hash value is not a float"));
    }
    let sum = add_floats(number, &args[3])?;
    call.keys().hash_set(db, key, std::iter::once((field, sum.as_bytes())))?;
    call.notify(Class::HASH, "hincrbyfloat", key);
    call.out.bulk(sum.as_bytes());
    Ok(())
}

/// Replies with one thing or another of each field.
fn reply_each(
    call: &mut Call<'_>,
    key: &[u8],
    each: fn(&mut Output, (Word<'_>, Word<'_>)),
) -> Result<(), Fault> {
    let found = call.look(key);
    let fields = found.map(|found| call.engine.keys.fields(found)).transpose()?;
    call.out.array(fields.map_or(0, Fields::len) as usize);
    let all = fields.into_iter().flat_map(Fields::iter);
    all.for_each(|pair| each(&mut call.out, pair));
    Ok(())
}

fn hkeys(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    reply_each(call, &args[1], |out, (field, _)| out.word(field))
}

fn hvals(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    reply_each(call, &args[1], |out, (_, value)| out.word(value))
}

fn hgetall(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let found = call.look(&args[1]);
    let fields = found.map(|found| call.engine.keys.fields(found)).transpose()?;
    call.out.map(fields.map_or(0, Fields::len) as usize);
    for (field, value) in fields.into_iter().flat_map(Fields::iter) {
        call.out.word(field);
        call.out.word(value);
    }
    Ok(())
}

fn hrandfield(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let mut random = call.keys().random();
    if args.len() == 2 {
        let found = call.look(&args[1]);
        let fields = found.map(|found| call.engine.keys.fields(found)).transpose()?;
        let field = fields.and_then(|fields| fields.sample(&mut random));
        reply_value(&mut call.out, field.map(|(field, _)| field));
        return Ok(());
    }
    let count = chance_count(&args[2])?;
    let with_values = match args.len() {
        3 => false,
        4 if is(&args[3], "WITHVALUES") => true,
        _ => return Err(Fault::Syntax),
    };
    if with_values && count.unsigned_abs() > i64::MAX as u64 / 2 {
        return Err(Fault::text("ERR value is out of range"));
    }
    let found = call.look(&args[1]);
    let fields = found.map(|found| call.engine.keys.fields(found)).transpose()?;
    let Some(fields) = fields else {
        call.out.array(0);
        return Ok(());
    };
    if let Ok(count) = usize::try_from(count) {
        let chosen = fields.choose(count, &mut random);
        begin_pairs(&mut call.out, chosen.len(), with_values);
        chosen.into_iter().for_each(|pair| reply_pair(&mut call.out, pair, with_values));
        return Ok(());
    }
    let count = repeated(count)?;
    begin_pairs(&mut call.out, count, with_values);
    for _ in 0..count {
        let pair = fields.sample(&mut random).expect("a hash that is there has a field");
        reply_pair(&mut call.out, pair, with_values);
    }
    Ok(())
}

/// RESP3 has a pair in an array of its own.
fn begin_pairs(out: &mut Output, count: usize, with_values: bool) {
    let words = if with_values && !out.resp3 { 2 * count } else { count };
    out.array(words);
}

fn reply_pair(out: &mut Output, (field, value): (Word<'_>, Word<'_>), with_value: bool) {
    if with_value && out.resp3 {
        out.array(2);
    }
    out.word(field);
    if with_value {
        out.word(value);
    }
}

fn hscan(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let Some(found) = scan_found(call, args)? else { return Ok(()) };
    let fields = call.engine.keys.fields(found)?;
    let options = ScanOptions::parse(args.skip(2), false)?;
    let (mut met, mut buffer) = (Vec::new(), [0; 20]);
    let cursor = fields.scan(options.cursor, options.count, |field, value| {
        if options.takes(field.as_bytes(&mut buffer)) {
            met.push((field, value));
        }
    });
    reply_scan(&mut call.out, cursor, 2 * met.len());
    for (field, value) in met {
        call.out.word(field);
        call.out.word(value);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
