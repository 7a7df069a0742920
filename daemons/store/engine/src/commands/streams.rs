//! Streams: XADD, XRANGE, XREAD, groups of consumers and their kin.
//!
//! What is said about entries is here, what about reading in `read`, about groups in `groups`, about
//! what is pending in `pending`, and about all of it to operators in `info`.

mod groups;
mod info;
mod pending;
mod read;
#[cfg(test)]
mod tests;
mod words;

use sextant_keyspace::stream::{Entry, FieldList, Keep, Stream, StreamId, Trim};
use sextant_resp::Args;

use crate::call::Call;
use crate::command::{Flags, Group, Keys, Spec, container, spec};
use crate::fault::Fault;
use crate::notify::Class;
use crate::output::Output;
use crate::words::{int, is};
use words::{Asked, add_words, id, interval};

const READ: Flags = Flags::READONLY;
const READ_FAST: Flags = Flags::READONLY.and(Flags::FAST);
const WRITE: Flags = Flags::WRITE;
const WRITE_FAST: Flags = Flags::WRITE.and(Flags::FAST);
const GROWS: Flags = Flags::WRITE.and(Flags::DENYOOM);
const WAITS: Flags = Flags::BLOCKING.and(Flags::MOVABLE_KEYS);
const STREAMS: Keys = Keys::Found(read::keys);
const STREAM: Group = Group::Stream;

pub(crate) const COMMANDS: &[Spec] = &[
    spec(
        "xadd",
        -5,
        GROWS.and(Flags::FAST).and(Flags::RANDOM),
        Keys::ONE,
        STREAM,
        "5.0.0",
        "Adds an entry to a stream.",
        xadd,
    ),
    spec("xlen", 2, READ_FAST, Keys::ONE, STREAM, "5.0.0", "Returns how many entries.", xlen),
    spec("xrange", -4, READ, Keys::ONE, STREAM, "5.0.0", "Returns entries upwards.", xrange),
    spec(
        "xrevrange",
        -4,
        READ,
        Keys::ONE,
        STREAM,
        "5.0.0",
        "Returns entries downwards.",
        xrevrange,
    ),
    spec("xdel", -3, WRITE_FAST, Keys::ONE, STREAM, "5.0.0", "Deletes entries.", xdel),
    spec("xtrim", -4, WRITE, Keys::ONE, STREAM, "5.0.0", "Deletes the oldest entries.", xtrim),
    spec(
        "xsetid",
        -3,
        GROWS.and(Flags::FAST),
        Keys::ONE,
        STREAM,
        "5.0.0",
        "Sets what a stream knows of its past.",
        xsetid,
    ),
    spec(
        "xread",
        -4,
        READ.and(WAITS),
        STREAMS,
        STREAM,
        "5.0.0",
        "Returns entries above an identifier, or waits for some.",
        read::xread,
    ),
    spec(
        "xreadgroup",
        -7,
        WRITE.and(WAITS),
        STREAMS,
        STREAM,
        "5.0.0",
        "Returns entries that none of a group was given, or waits for some.",
        read::xreadgroup,
    ),
    spec(
        "xack",
        -4,
        WRITE_FAST,
        Keys::ONE,
        STREAM,
        "5.0.0",
        "Acknowledges entries.",
        pending::xack,
    ),
    spec(
        "xpending",
        -3,
        READ,
        Keys::ONE,
        STREAM,
        "5.0.0",
        "Returns what is not acknowledged.",
        pending::xpending,
    ),
    spec(
        "xclaim",
        -6,
        WRITE_FAST,
        Keys::ONE,
        STREAM,
        "5.0.0",
        "Gives entries to another consumer.",
        pending::xclaim,
    ),
    spec(
        "xautoclaim",
        -6,
        WRITE_FAST,
        Keys::ONE,
        STREAM,
        "6.2.0",
        "Gives entries that wait for long to another consumer.",
        pending::xautoclaim,
    ),
    container("xgroup", STREAM, "5.0.0", "Manages groups of consumers.", groups::COMMANDS),
    container("xinfo", STREAM, "5.0.0", "Tells about a stream.", info::COMMANDS),
];

/// An identifier as a bulk string.
fn reply_id(out: &mut Output, id: StreamId) {
    let (mut ms, mut seq) = (itoa::Buffer::new(), itoa::Buffer::new());
    out.bulk_parts(&[ms.format(id.ms).as_bytes(), b"-", seq.format(id.seq).as_bytes()]);
}

fn reply_entry(out: &mut Output, entry: &Entry<'_>) {
    out.array(2);
    reply_id(out, entry.id);
    let fields = entry.fields();
    out.array(2 * fields.len());
    for (name, value) in fields {
        out.bulk(name);
        out.bulk(value);
    }
}

/// An array of entries.
fn reply_entries<'a>(out: &mut Output, entries: impl Iterator<Item = Entry<'a>>) {
    let (array, mut count) = (out.deferred_array(), 0);
    for entry in entries {
        reply_entry(out, &entry);
        count += 1;
    }
    out.end_array(array, count);
}

fn is_too_low() -> Fault {
    Fault::text("ERR The ID specified in XADD is equal or smaller than the target stream top item")
}

/// The identifier that a new entry gets.
fn next_id(asked: Asked, last: StreamId, now: u64) -> Result<StreamId, Fault> {
    if last == StreamId::MAX {
        return Err(Fault::text(
            "ERR The stream has exhausted the last possible ID, unable to add more items",
        ));
    }
    let id = match asked {
        Asked::Any if now > last.ms => StreamId::new(now, 0),
        Asked::Any => last.next().ok_or_else(is_too_low)?,
        Asked::In(ms) if ms == last.ms => {
            StreamId::new(ms, last.seq.checked_add(1).ok_or_else(is_too_low)?)
        }
        Asked::In(ms) => StreamId::new(ms, 0),
        Asked::This(id) => id,
    };
    (id > last).then_some(id).ok_or_else(is_too_low)
}

fn xadd(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let words = add_words(call, args, true)?;
    let fields = args.skip(words.end);
    if fields.is_empty() || !fields.len().is_multiple_of(2) {
        return Err(Fault::arity("xadd"));
    }
    if words.id == Asked::This(StreamId::MIN) {
        return Err(Fault::text("ERR The ID specified in XADD must be greater than 0-0"));
    }
    let (db, now) = (call.db, call.now());
    let stream = call.keys().stream(db, &args[1])?;
    if stream.is_none() && words.only_if_there {
        call.out.null();
        return Ok(());
    }
    let id = next_id(words.id, stream.map_or(StreamId::MIN, Stream::last_id), now)?;
    let mut list = FieldList::new();
    (0..fields.len()).step_by(2).for_each(|at| list.push(&fields[at], &fields[at + 1]));
    call.keys().stream_add(db, &args[1], id, &list)?;
    reply_id(&mut call.out, id);
    call.notify(Class::STREAM, "xadd", &args[1]);
    if let Some(trim) = words.trim {
        cut(call, &args[1], trim)?;
    }
    Ok(())
}

/// Cuts the front of a stream off, and tells that.
fn cut(call: &mut Call<'_>, key: &[u8], trim: Trim) -> Result<u64, Fault> {
    let db = call.db;
    let count = call.keys().stream_trim(db, key, trim)?;
    if count > 0 {
        call.notify(Class::STREAM, "xtrim", key);
    }
    Ok(count)
}

fn xtrim(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let words = add_words(call, args, false)?;
    let trim = words.trim.unwrap_or(Trim { keep: Keep::Newest(u64::MAX), about: true, limit: 0 });
    let count = cut(call, &args[1], trim)?;
    call.out.int(count as i64);
    Ok(())
}

fn xlen(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let len = call.engine.keys.stream(call.db, &args[1])?.map_or(0, Stream::len);
    call.out.int(len as i64);
    Ok(())
}

fn range(call: &mut Call<'_>, args: Args<'_>, upwards: bool) -> Result<(), Fault> {
    let (from, to) = if upwards { (2, 3) } else { (3, 2) };
    let (from, to) = interval(&args[from], &args[to])?;
    let (mut count, mut at) = (None, 4);
    while let Some(word) = args.get(at) {
        let number = args.get(at + 1).filter(|_| is(word, "COUNT")).ok_or(Fault::Syntax)?;
        count = Some(int(number)?.max(0) as usize);
        at += 2;
    }
    let Some(stream) = call.engine.keys.stream(call.db, &args[1])? else {
        call.out.array(0);
        return Ok(());
    };
    let count = count.unwrap_or(usize::MAX);
    match (count, upwards) {
        (0, _) => call.out.null_array(),
        (_, true) => reply_entries(&mut call.out, stream.range(from, to).take(count)),
        (_, false) => reply_entries(&mut call.out, stream.range_back(from, to).take(count)),
    }
    Ok(())
}

fn xrange(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    range(call, args, true)
}

fn xrevrange(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    range(call, args, false)
}

/// The identifiers from a word on.
fn ids(args: Args<'_>, from: usize) -> Result<Vec<StreamId>, Fault> {
    args.skip(from).iter().map(|word| id(word, 0)).collect()
}

fn xdel(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let db = call.db;
    let mut count = 0;
    if call.keys().stream(db, &args[1])?.is_some() {
        count = call.keys().stream_delete(db, &args[1], &ids(args, 2)?)?;
    }
    if count > 0 {
        call.notify(Class::STREAM, "xdel", &args[1]);
    }
    call.out.int(count as i64);
    Ok(())
}

fn xsetid(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let last_id = id(&args[2], 0)?;
    let (mut added, mut max_deleted, mut at) = (None, StreamId::MIN, 3);
    while let Some(word) = args.get(at) {
        let value = args.get(at + 1).ok_or(Fault::Syntax)?;
        if is(word, "ENTRIESADDED") {
            let negative = |_| Fault::text("ERR entries_added must be positive");
            added = Some(u64::try_from(int(value)?).map_err(negative)?);
        } else if is(word, "MAXDELETEDID") {
            max_deleted = id(value, 0)?;
            if last_id < max_deleted {
                return Err(Fault::text(
                    "ERR The ID specified in XSETID is smaller than the provided \
                     max_deleted_entry_id",
                ));
            }
        } else {
            return Err(Fault::Syntax);
        }
        at += 2;
    }
    let db = call.db;
    let stream = call.keys().stream(db, &args[1])?.ok_or(Fault::NoSuchKey)?;
    if last_id < stream.max_deleted() {
        return Err(Fault::text(
            "ERR The ID specified in XSETID is smaller than current max_deleted_entry_id",
        ));
    }
    if stream.top_id().is_some_and(|top| last_id < top) {
        return Err(Fault::text(
            "ERR The ID specified in XSETID is smaller than the target stream top item",
        ));
    }
    if added.is_some_and(|added| added < stream.len()) {
        return Err(Fault::text(
            "ERR The entries_added specified in XSETID is smaller than the target stream length",
        ));
    }
    let added = added.unwrap_or(stream.added());
    if max_deleted == StreamId::MIN {
        max_deleted = stream.max_deleted();
    }
    call.keys().stream_set_state(db, &args[1], last_id, added, max_deleted)?;
    call.notify(Class::STREAM, "xsetid", &args[1]);
    call.out.ok();
    Ok(())
}
