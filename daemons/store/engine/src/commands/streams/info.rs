//! XINFO: what an operator wants to know of a stream.

use sextant_keyspace::Keyspace;
use sextant_keyspace::stream::{Consumer, Group as Readers, Stream, StreamId};
use sextant_resp::Args;

use crate::call::Call;
use crate::command::{Flags, Group, Keys, Spec, spec};
use crate::fault::Fault;
use crate::output::Output;
use crate::words::{int, is};

use super::groups::{no_group, wrong_words};
use super::{reply_entries, reply_entry, reply_id};

const KEY: Keys = Keys::At { first: 2, last: 2, step: 1 };
const READ: Flags = Flags::READONLY;
const STREAM: Group = Group::Stream;

pub(super) const COMMANDS: &[Spec] = &[
    spec("stream", -3, READ, KEY, STREAM, "5.0.0", "Tells about a stream.", stream),
    spec("groups", 3, READ, KEY, STREAM, "5.0.0", "Tells about a stream's groups.", groups),
    spec("consumers", 4, READ, KEY, STREAM, "5.0.0", "Tells about a group.", consumers),
    spec("help", 2, Flags::NONE, Keys::None, STREAM, "5.0.0", "Tells of XINFO.", help),
];

const HELP: &[&str] = &[
    "XINFO <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CONSUMERS <key> <group>",
    "    Tells about the consumers of a group.",
    "GROUPS <key>",
    "    Tells about the groups of a stream.",
    "STREAM <key> [FULL [COUNT <count>]]",
    "    Tells about a stream, with its entries and groups if asked.",
    "HELP",
    "    Tells this.",
];

fn help(call: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    call.out.array(HELP.len());
    HELP.iter().for_each(|line| call.out.simple(line));
    Ok(())
}

fn find<'a>(keys: &'a mut Keyspace, db: usize, key: &[u8]) -> Result<&'a Stream, Fault> {
    keys.stream(db, key)?.ok_or(Fault::NoSuchKey)
}

/// A number by its name.
fn field(out: &mut Output, name: &str, number: u64) {
    out.bulk(name.as_bytes());
    out.int(i64::try_from(number).unwrap_or(i64::MAX));
}

/// A number by its name, if it is known.
fn field_if_known(out: &mut Output, name: &str, number: Option<i64>) {
    out.bulk(name.as_bytes());
    match number {
        Some(number) => out.int(number),
        None => out.null(),
    }
}

fn field_id(out: &mut Output, name: &str, id: StreamId) {
    out.bulk(name.as_bytes());
    reply_id(out, id);
}

/// How many entries XINFO STREAM FULL tells of each kind; none without FULL.
fn full_count(args: Args<'_>) -> Result<Option<usize>, Fault> {
    const USUAL: usize = 10;
    let wrong = || wrong_words(&args[1], "XINFO");
    let Some(full) = args.get(3) else { return Ok(None) };
    if !is(full, "FULL") {
        return Err(wrong());
    }
    match (args.len(), args.get(4), args.get(5)) {
        (4, ..) => Ok(Some(USUAL)),
        (6, Some(word), Some(count)) if is(word, "COUNT") => Ok(Some(match int(count)? {
            0 => usize::MAX,
            count => usize::try_from(count).unwrap_or(USUAL),
        })),
        _ => Err(wrong()),
    }
}

fn stream(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let stream = find(&mut call.engine.keys, call.db, &args[2])?;
    let (count, out) = (full_count(args)?, &mut call.out);
    out.map(if count.is_some() { 9 } else { 10 });
    field(out, "length", stream.len());
    field(out, "radix-tree-keys", stream.nodes() as u64);
    field(out, "radix-tree-nodes", stream.nodes() as u64 + 1);
    field_id(out, "last-generated-id", stream.last_id());
    field_id(out, "max-deleted-entry-id", stream.max_deleted());
    field(out, "entries-added", stream.added());
    field_id(out, "recorded-first-entry-id", stream.first_id().unwrap_or_default());
    match count {
        Some(count) => in_full(out, stream, count),
        None => in_short(out, stream),
    }
    Ok(())
}

fn in_short(out: &mut Output, stream: &Stream) {
    field(out, "groups", stream.groups().len() as u64);
    let ends = [("first-entry", stream.first_id()), ("last-entry", stream.top_id())];
    for (name, id) in ends {
        out.bulk(name.as_bytes());
        match id.and_then(|id| stream.entry(id)) {
            Some(entry) => reply_entry(out, &entry),
            None => out.null(),
        }
    }
}

fn in_full(out: &mut Output, stream: &Stream, count: usize) {
    out.bulk(b"entries");
    reply_entries(out, stream.range(StreamId::MIN, StreamId::MAX).take(count));
    out.bulk(b"groups");
    out.array(stream.groups().len());
    for (name, group) in stream.groups() {
        out.map(7);
        out.bulk(b"name");
        out.bulk(name);
        field_id(out, "last-delivered-id", group.last_id());
        field_if_known(out, "entries-read", group.entries_read().map(|read| read as i64));
        field_if_known(out, "lag", stream.lag(group));
        field(out, "pel-count", group.pending_len() as u64);
        out.bulk(b"pending");
        out.array(group.pending_len().min(count));
        for (id, pending) in group.pending(StreamId::MIN, StreamId::MAX).take(count) {
            out.array(4);
            reply_id(out, id);
            out.bulk(group.holder(pending).name());
            out.int(pending.delivered as i64);
            out.int(pending.count as i64);
        }
        out.bulk(b"consumers");
        out.array(group.consumers_len());
        group.consumers().for_each(|consumer| consumer_in_full(out, group, consumer, count));
    }
}

fn consumer_in_full(out: &mut Output, group: &Readers, consumer: &Consumer, count: usize) {
    out.map(5);
    out.bulk(b"name");
    out.bulk(consumer.name());
    field(out, "seen-time", consumer.seen());
    out.bulk(b"active-time");
    out.int(consumer.active().map_or(-1, |active| active as i64));
    field(out, "pel-count", consumer.pending_len() as u64);
    out.bulk(b"pending");
    out.array(consumer.pending_len().min(count));
    for id in consumer.pending(StreamId::MIN, StreamId::MAX).take(count) {
        let Some(pending) = group.pending_entry(id) else { continue };
        out.array(3);
        reply_id(out, id);
        out.int(pending.delivered as i64);
        out.int(pending.count as i64);
    }
}

fn groups(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let stream = find(&mut call.engine.keys, call.db, &args[2])?;
    let out = &mut call.out;
    out.array(stream.groups().len());
    for (name, group) in stream.groups() {
        out.map(6);
        out.bulk(b"name");
        out.bulk(name);
        field(out, "consumers", group.consumers_len() as u64);
        field(out, "pending", group.pending_len() as u64);
        field_id(out, "last-delivered-id", group.last_id());
        field_if_known(out, "entries-read", group.entries_read().map(|read| read as i64));
        field_if_known(out, "lag", stream.lag(group));
    }
    Ok(())
}

fn consumers(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let now = call.now();
    let stream = find(&mut call.engine.keys, call.db, &args[2])?;
    let group = stream.group(&args[3]).ok_or_else(|| no_group(&args[2], &args[3]))?;
    let out = &mut call.out;
    out.array(group.consumers_len());
    for consumer in group.consumers() {
        out.map(4);
        out.bulk(b"name");
        out.bulk(consumer.name());
        field(out, "pending", consumer.pending_len() as u64);
        field(out, "idle", now.saturating_sub(consumer.seen()));
        let inactive = consumer.active().map(|active| now.saturating_sub(active));
        out.bulk(b"inactive");
        out.int(inactive.map_or(-1, |inactive| inactive as i64));
    }
    Ok(())
}
