//! Keys, whatever their values are: DEL, RENAME, SCAN and their kin.

use sextant_keyspace::{Cursor, Found, Type};
use sextant_resp::Args;

use crate::call::Call;
use crate::command::{Flags, Group, Keys, Spec, spec};
use crate::fault::Fault;
use crate::notify::Class;
use crate::output::Output;
use crate::words::{int, int_of_32_bits, is, lists};

const READ: Flags = Flags::READONLY.and(Flags::FAST);
const READ_SLOW: Flags = Flags::READONLY;
const WRITE: Flags = Flags::WRITE;
const WRITE_FAST: Flags = Flags::WRITE.and(Flags::FAST);
const TWO: Keys = Keys::At { first: 1, last: 2, step: 1 };
const GENERIC: Group = Group::Generic;

pub(crate) const COMMANDS: &[Spec] = &[
    spec("del", -2, WRITE, Keys::ALL, GENERIC, "1.0.0", "Deletes keys.", del),
    spec("unlink", -2, WRITE_FAST, Keys::ALL, GENERIC, "4.0.0", "Deletes keys.", del),
    spec("exists", -2, READ, Keys::ALL, GENERIC, "1.0.0", "Counts keys that are there.", exists),
    spec(
        "touch",
        -2,
        READ,
        Keys::ALL,
        GENERIC,
        "3.2.1",
        "Counts keys that are there, and uses them.",
        exists,
    ),
    spec("type", 2, READ, Keys::ONE, GENERIC, "1.0.0", "Tells what a key's value is.", type_of),
    spec("rename", 3, WRITE, TWO, GENERIC, "1.0.0", "Gives a key another name.", rename),
    spec(
        "renamenx",
        3,
        WRITE_FAST,
        TWO,
        GENERIC,
        "1.0.0",
        "Gives a key a name that no key has.",
        renamenx,
    ),
    spec(
        "move",
        3,
        WRITE_FAST,
        Keys::ONE,
        GENERIC,
        "1.0.0",
        "Moves a key to another database.",
        move_key,
    ),
    spec(
        "keys",
        2,
        READ_SLOW,
        Keys::None,
        GENERIC,
        "1.0.0",
        "Returns all keys that match a pattern.",
        keys,
    ),
    spec(
        "scan",
        -2,
        READ_SLOW,
        Keys::None,
        GENERIC,
        "2.8.0",
        "Goes through the keys, some at a time.",
        scan,
    ),
    spec(
        "randomkey",
        1,
        READ_SLOW,
        Keys::None,
        GENERIC,
        "1.0.0",
        "Returns a key by chance.",
        randomkey,
    ),
    spec(
        "dbsize",
        1,
        READ,
        Keys::None,
        Group::Server,
        "1.0.0",
        "Counts the keys of the database.",
        dbsize,
    ),
    spec(
        "flushdb",
        -1,
        WRITE,
        Keys::None,
        Group::Server,
        "1.0.0",
        "Empties the database.",
        flushdb,
    ),
    spec(
        "flushall",
        -1,
        WRITE,
        Keys::None,
        Group::Server,
        "1.0.0",
        "Empties all databases.",
        flushall,
    ),
    spec(
        "swapdb",
        3,
        WRITE_FAST,
        Keys::None,
        Group::Server,
        "4.0.0",
        "Makes two databases change places.",
        swapdb,
    ),
];

fn del(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let mut deleted = 0;
    for key in args.iter().skip(1) {
        let db = call.db;
        if call.keys().delete(db, key) {
            call.notify(Class::GENERIC, "del", key);
            deleted += 1;
        }
    }
    call.out.int(deleted);
    Ok(())
}

fn exists(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let db = call.db;
    let there = args.iter().skip(1).filter(|key| call.keys().find(db, key).is_some()).count();
    call.out.int(there as i64);
    Ok(())
}

fn type_of(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let db = call.db;
    let found = call.keys().find(db, &args[1]);
    let name = found.map_or("none", |found| call.engine.keys.type_of(found).name());
    call.out.simple(name);
    Ok(())
}

/// Renames a key; returns whether a key of the new name was in the way, and had to be.
fn rename_key(call: &mut Call<'_>, args: Args<'_>, over: bool) -> Result<bool, Fault> {
    let (db, from, to) = (call.db, &args[1], &args[2]);
    let found = call.keys().find(db, from).ok_or(Fault::NoSuchKey)?;
    let is_taken = call.keys().find(db, to).is_some();
    if from == to {
        return Ok(over);
    }
    if is_taken && !over {
        return Ok(false);
    }
    call.keys().rename(found, db, to)?;
    call.notify(Class::GENERIC, "rename_from", from);
    call.notify(Class::GENERIC, "rename_to", to);
    Ok(true)
}

fn rename(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    rename_key(call, args, true)?;
    call.out.ok();
    Ok(())
}

fn renamenx(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let renamed = rename_key(call, args, false)?;
    call.out.int(i64::from(renamed));
    Ok(())
}

/// The database of a number that a client gives.
pub(crate) fn database(call: &mut Call<'_>, word: &[u8]) -> Result<usize, Fault> {
    let number = int_of_32_bits(word)?;
    let databases = call.keys().databases();
    let number = usize::try_from(number).ok().filter(|number| *number < databases);
    number.ok_or(Fault::text("ERR DB index is out of range"))
}

fn move_key(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (db, key) = (call.db, &args[1]);
    let to = database(call, &args[2])?;
    if to == db {
        return Err(Fault::text("ERR source and destination objects are the same"));
    }
    let is_taken = call.keys().find(to, key).is_some();
    let found = call.keys().find(db, key).filter(|_| !is_taken);
    if let Some(found) = found {
        call.keys().rename(found, to, key)?;
        call.notify(Class::GENERIC, "move_from", key);
        call.engine.notices.note(Class::GENERIC, "move_to", to, key);
    }
    call.out.int(i64::from(found.is_some()));
    Ok(())
}

fn keys(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (db, pattern) = (call.db, &args[1]);
    let deferred = call.out.deferred_array();
    let (out, mut count) = (&mut call.out, 0);
    let mut cursor = Cursor(0);
    loop {
        cursor = call.engine.keys.scan_keys(db, cursor, 1 << 16, |key| {
            if lists(pattern, key) {
                out.bulk(key);
                count += 1;
            }
        });
        if cursor == Cursor(0) {
            break;
        }
    }
    call.out.end_array(deferred, count);
    Ok(())
}

/// A cursor, as the C library reads a number: with a sign or without, and nothing is zero.
pub(crate) fn scan_cursor(word: &[u8]) -> Result<Cursor, Fault> {
    let text = std::str::from_utf8(word).unwrap_or("?");
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let digits = if text.is_empty() { "0" } else { digits };
    let plain = digits.bytes().all(|digit| digit.is_ascii_digit());
    let number = digits.parse().ok().filter(|_| plain);
    let number: u64 = number.ok_or(Fault::text("ERR invalid cursor"))?;
    Ok(Cursor(if negative { number.wrapping_neg() } else { number }))
}

/// Begins HSCAN and its kin: finds the key, or answers that there is nothing.
pub(crate) fn scan_found(call: &mut Call<'_>, args: Args<'_>) -> Result<Option<Found>, Fault> {
    scan_cursor(&args[2])?;
    let found = call.look(&args[1]);
    if found.is_none() {
        reply_scan(&mut call.out, Cursor(0), 0);
    }
    Ok(found)
}

/// Begins the reply of a scan of so many words.
pub(crate) fn reply_scan(out: &mut Output, cursor: Cursor, words: usize) {
    out.array(2);
    out.bulk(cursor.0.to_string().as_bytes());
    out.array(words);
}

/// The options of the SCAN family.
pub(crate) struct ScanOptions<'a> {
    pub(crate) cursor: Cursor,
    pub(crate) count: usize,
    pub(crate) pattern: Option<&'a [u8]>,
    pub(crate) kind: Option<&'a [u8]>,
}

impl<'a> ScanOptions<'a> {
    /// Takes them from the cursor's word on.
    pub(crate) fn parse(args: Args<'a>, with_type: bool) -> Result<ScanOptions<'a>, Fault> {
        let words: Vec<&'a [u8]> = args.iter().collect();
        let cursor = scan_cursor(words[0])?;
        let mut options = ScanOptions { cursor, count: 10, pattern: None, kind: None };
        let mut at = 1;
        while at < words.len() {
            let value = *words.get(at + 1).ok_or(Fault::Syntax)?;
            match words[at] {
                word if is(word, "COUNT") => {
                    let count = usize::try_from(int(value)?).ok().filter(|count| *count > 0);
                    options.count = count.ok_or(Fault::Syntax)?;
                }
                word if is(word, "MATCH") => options.pattern = Some(value),
                word if with_type && is(word, "TYPE") => options.kind = Some(value),
                _ => return Err(Fault::Syntax),
            }
            at += 2;
        }
        // More than this at once would hold others up for long.
        options.count = options.count.min(1 << 16);
        Ok(options)
    }

    pub(crate) fn takes(&self, name: &[u8]) -> bool {
        self.pattern.is_none_or(|pattern| lists(pattern, name))
    }
}

fn scan(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let options = ScanOptions::parse(args.skip(1), true)?;
    let (db, mut found) = (call.db, Vec::new());
    let cursor = call.keys().scan_keys(db, options.cursor, options.count, |key| {
        if options.takes(key) {
            found.push(key.to_vec());
        }
    });
    if let Some(kind) = options.kind {
        let is_it = |kind: &[u8], of: Type| kind.eq_ignore_ascii_case(of.name().as_bytes());
        let keys = call.keys();
        found
            .retain(|key| keys.peek(db, key).is_some_and(|found| is_it(kind, keys.type_of(found))));
    }
    reply_scan(&mut call.out, cursor, found.len());
    found.iter().for_each(|key| call.out.bulk(key));
    Ok(())
}

fn randomkey(call: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    let db = call.db;
    match call.keys().random_key(db) {
        Some(key) => call.out.bulk(&key),
        None => call.out.null(),
    }
    Ok(())
}

fn dbsize(call: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    let db = call.db;
    let len = call.keys().len(db);
    call.out.int(len as i64);
    Ok(())
}

/// Memory is always freed a little at a time: SYNC and ASYNC are the same.
fn check_flush(args: Args<'_>) -> Result<(), Fault> {
    match args.len() {
        1 => Ok(()),
        2 if is(&args[1], "SYNC") || is(&args[1], "ASYNC") => Ok(()),
        _ => Err(Fault::Syntax),
    }
}

fn flushdb(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    check_flush(args)?;
    let db = call.db;
    call.keys().flush(db);
    call.engine.tracked.flushed();
    call.out.ok();
    Ok(())
}

fn flushall(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    check_flush(args)?;
    call.keys().flush_all();
    call.engine.tracked.flushed();
    call.out.ok();
    Ok(())
}

fn swapdb(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let first = Fault::text("ERR invalid first DB index");
    let second = Fault::text("ERR invalid second DB index");
    int_of_32_bits(&args[1]).map_err(|_| first)?;
    int_of_32_bits(&args[2]).map_err(|_| second)?;
    let (one, other) = (database(call, &args[1])?, database(call, &args[2])?);
    call.keys().swap(one, other);
    call.out.ok();
    Ok(())
}
