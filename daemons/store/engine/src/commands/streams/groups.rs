//! XGROUP: groups of consumers.

use sextant_keyspace::stream::{Stream, StreamId};
use sextant_resp::Args;

use crate::call::Call;
use crate::command::{Flags, Group, Keys, Spec, spec};
use crate::fault::Fault;
use crate::notify::Class;
use crate::words::{int, is, quoted};

use super::words::{id, id_or_end};

const KEY: Keys = Keys::At { first: 2, last: 2, step: 1 };
const GROWS: Flags = Flags::WRITE.and(Flags::DENYOOM);
const STREAM: Group = Group::Stream;

pub(super) const COMMANDS: &[Spec] = &[
    spec("create", -5, GROWS, KEY, STREAM, "5.0.0", "Makes a group.", create),
    spec("setid", -5, Flags::WRITE, KEY, STREAM, "5.0.0", "Sets how far a group is.", set_id),
    spec("destroy", 4, Flags::WRITE, KEY, STREAM, "5.0.0", "Removes a group.", destroy),
    spec(
        "createconsumer",
        5,
        GROWS,
        KEY,
        STREAM,
        "6.2.0",
        "Makes a consumer of a group.",
        create_consumer,
    ),
    spec(
        "delconsumer",
        5,
        Flags::WRITE,
        KEY,
        STREAM,
        "5.0.0",
        "Removes a consumer of a group.",
        delete_consumer,
    ),
    spec("help", 2, Flags::NONE, Keys::None, STREAM, "5.0.0", "Tells of XGROUP.", help),
];

const HELP: &[&str] = &[
    "XGROUP <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CREATE <key> <group> <id|$> [MKSTREAM] [ENTRIESREAD <count>]",
    "    Makes a group that is given what comes after an entry, and the stream with it if asked.",
    "SETID <key> <group> <id|$> [ENTRIESREAD <count>]",
    "    Sets the last entry that a group was given.",
    "DESTROY <key> <group>",
    "    Removes a group.",
    "CREATECONSUMER <key> <group> <consumer>",
    "    Makes a consumer.",
    "DELCONSUMER <key> <group> <consumer>",
    "    Removes a consumer and forgets what it has not acknowledged.",
    "HELP",
    "    Tells this.",
];

fn help(call: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    call.out.array(HELP.len());
    HELP.iter().for_each(|line| call.out.simple(line));
    Ok(())
}

/// Words that the subcommand does not know, or too many.
pub(super) fn wrong_words(sub: &[u8], command: &str) -> Fault {
    let sub = quoted(sub);
    Fault::text(format!(
        "ERR unknown subcommand or wrong number of arguments for '{sub}'. Try {command} HELP."
    ))
}

/// There is no such group of a key that is there.
pub(super) fn no_group(key: &[u8], group: &[u8]) -> Fault {
    let (key, group) = (quoted(key), quoted(group));
    Fault::text(format!("NOGROUP No such consumer group '{group}' for key name '{key}'"))
}

fn stream<'a>(call: &'a mut Call<'_>, key: &[u8]) -> Result<&'a Stream, Fault> {
    let stream = call.engine.keys.stream(call.db, key)?;
    stream.ok_or(Fault::text(
        "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to \
         use the MKSTREAM option to create an empty stream automatically.",
    ))
}

/// The options behind the identifier: MKSTREAM, and ENTRIESREAD.
fn options(args: Args<'_>, creates: bool) -> Result<(bool, Option<u64>), Fault> {
    let (mut make, mut read, mut at) = (false, None, 5);
    while let Some(word) = args.get(at) {
        if creates && is(word, "MKSTREAM") {
            make = true;
        } else if is(word, "ENTRIESREAD")
            && let Some(number) = args.get(at + 1)
        {
            read = match int(number)? {
                -1 => None,
                number => Some(u64::try_from(number).map_err(|_| {
                    Fault::text("ERR value for ENTRIESREAD must be positive or -1")
                })?),
            };
            at += 1;
        } else {
            return Err(wrong_words(&args[1], "XGROUP"));
        }
        at += 1;
    }
    Ok((make, read))
}

fn create(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (db, key, group) = (call.db, &args[2], &args[3]);
    let (make, read) = options(args, true)?;
    let stream = match make {
        true => call.engine.keys.stream(db, key)?,
        false => Some(stream(call, key)?),
    };
    let last_id = match &args[4] {
        b"$" => stream.map_or(StreamId::MIN, Stream::last_id),
        word => id(word, 0)?,
    };
    match stream {
        None => call.keys().stream_create(db, key)?,
        Some(stream) if stream.group(group).is_some() => {
            return Err(Fault::text("BUSYGROUP Consumer Group name already exists"));
        }
        Some(_) => {}
    }
    call.keys().group_set(db, key, group, last_id, read)?;
    call.notify(Class::STREAM, "xgroup-create", key);
    call.out.ok();
    Ok(())
}

/// A stream that has such a group.
fn stream_with<'a>(call: &'a mut Call<'_>, args: Args<'_>) -> Result<&'a Stream, Fault> {
    let stream = stream(call, &args[2])?;
    match stream.group(&args[3]) {
        Some(_) => Ok(stream),
        None => Err(no_group(&args[2], &args[3])),
    }
}

fn set_id(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (_, read) = options(args, false)?;
    let stream = stream_with(call, args)?;
    let last_id = match &args[4] {
        b"$" => stream.last_id(),
        word => id_or_end(word, 0)?,
    };
    let db = call.db;
    call.keys().group_set(db, &args[2], &args[3], last_id, read)?;
    call.notify(Class::STREAM, "xgroup-setid", &args[2]);
    call.out.ok();
    Ok(())
}

fn destroy(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    stream(call, &args[2])?;
    let db = call.db;
    let gone = call.keys().group_destroy(db, &args[2], &args[3])?;
    if gone {
        call.notify(Class::STREAM, "xgroup-destroy", &args[2]);
    }
    call.out.int(i64::from(gone));
    Ok(())
}

fn create_consumer(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let is_there = stream_with(call, args)?
        .group(&args[3])
        .is_some_and(|group| group.consumer(&args[4]).is_some());
    if !is_there {
        super::read::see_consumer(call, &args[2], &args[3], &args[4])?;
    }
    call.out.int(i64::from(!is_there));
    Ok(())
}

fn delete_consumer(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    stream_with(call, args)?;
    let db = call.db;
    let pending = call.keys().consumer_delete(db, &args[2], &args[3], &args[4])?;
    if pending.is_some() {
        call.notify(Class::STREAM, "xgroup-delconsumer", &args[2]);
    }
    call.out.int(pending.unwrap_or(0) as i64);
    Ok(())
}
