//! XREAD and XREADGROUP: what is above an identifier in some streams, or waiting for it.

use sextant_keyspace::Type;
use sextant_keyspace::stream::{Stream, StreamId};
use sextant_resp::{Args, OwnedArgs};

use crate::blocking::Wait;
use crate::call::Call;
use crate::fault::Fault;
use crate::notify::Class;
use crate::words::{int, is, quoted};

use super::words::id;
use super::{reply_entries, reply_id};

/// Where the streams stand: the first key, and how many.
fn streams(args: Args<'_>) -> Option<(usize, usize)> {
    let at = args.iter().skip(1).position(|word| is(word, "STREAMS"))? + 2;
    Some((at, (args.len() - at) / 2))
}

/// The places of the keys.
pub(super) fn keys(args: Args<'_>) -> Vec<usize> {
    streams(args).map_or_else(Vec::new, |(at, count)| (at..at + count).collect())
}

/// What is read of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// What is above this.
    Above(StreamId),
    /// What none of the group was given.
    New,
}

/// The words before the streams.
struct Words<'a> {
    /// Entries of each stream at most; zero for all.
    count: usize,
    /// Milliseconds; zero for as long as it takes.
    block: Option<u64>,
    /// The group, and the consumer.
    group: Option<(&'a [u8], &'a [u8])>,
    to_acknowledge: bool,
    /// Where the first key stands.
    first: usize,
    streams: usize,
}

/// Milliseconds to wait for, as BLOCK has them.
fn timeout(word: &[u8]) -> Result<u64, Fault> {
    let number = sextant_keyspace::canonical_int(word)
        .ok_or(Fault::text("ERR timeout is not an integer or out of range"))?;
    u64::try_from(number).map_err(|_| Fault::text("ERR timeout is negative"))
}

fn only_of_groups(option: &str) -> Fault {
    Fault::text(format!(
        "ERR The {option} option is only supported by XREADGROUP. You called XREAD instead."
    ))
}

fn words(args: Args<'_>, of_group: bool) -> Result<Words<'_>, Fault> {
    let mut words =
        Words { count: 0, block: None, group: None, to_acknowledge: true, first: 0, streams: 0 };
    let mut at = 1;
    while let Some(word) = args.get(at) {
        let more = args.len() - at - 1;
        if more > 0 && is(word, "BLOCK") {
            words.block = args.get(at + 1).map(timeout).transpose()?;
            at += 1;
        } else if more > 0 && is(word, "COUNT") {
            let count = args.get(at + 1).map(int).transpose()?;
            words.count = count.map_or(0, |count| count.max(0) as usize);
            at += 1;
        } else if more > 0 && is(word, "STREAMS") {
            if !more.is_multiple_of(2) {
                return Err(unbalanced(of_group));
            }
            (words.first, words.streams) = (at + 1, more / 2);
            break;
        } else if more > 1 && is(word, "GROUP") {
            if !of_group {
                return Err(only_of_groups("GROUP"));
            }
            words.group = args.get(at + 1).zip(args.get(at + 2));
            at += 2;
        } else if is(word, "NOACK") {
            if !of_group {
                return Err(only_of_groups("NOACK"));
            }
            words.to_acknowledge = false;
        } else {
            return Err(Fault::Syntax);
        }
        at += 1;
    }
    if words.first == 0 {
        return Err(Fault::Syntax);
    }
    if of_group && words.group.is_none() {
        return Err(Fault::text("ERR Missing GROUP option for XREADGROUP"));
    }
    Ok(words)
}

fn unbalanced(of_group: bool) -> Fault {
    let (command, mark) = if of_group { ("xreadgroup", '>') } else { ("xread", '$') };
    Fault::text(format!(
        "ERR Unbalanced '{command}' list of streams: for each stream key an ID or '{mark}' must be \
         specified."
    ))
}

/// Where each stream is read from.
fn froms(call: &mut Call<'_>, args: Args<'_>, words: &Words<'_>) -> Result<Vec<From>, Fault> {
    let mut froms = Vec::with_capacity(words.streams);
    for at in words.first..words.first + words.streams {
        let (key, from) = (&args[at], &args[at + words.streams]);
        let stream = call.engine.keys.stream(call.db, key)?;
        if let Some((group, _)) = words.group
            && stream.is_none_or(|stream| stream.group(group).is_none())
        {
            let (key, group) = (quoted(key), quoted(group));
            return Err(Fault::text(format!(
                "NOGROUP No such key '{key}' or consumer group '{group}' in XREADGROUP with GROUP \
                 option"
            )));
        }
        froms.push(match (from, words.group.is_some()) {
            (b"$", true) => {
                return Err(Fault::text(
                    "ERR The $ ID is meaningless in the context of XREADGROUP: you want to read \
                     the history of this consumer by specifying a proper ID, or use the > ID to \
                     get new messages. The $ ID would just return an empty result set.",
                ));
            }
            (b"$", false) => From::Above(stream.map_or(StreamId::MIN, Stream::last_id)),
            (b">", true) => From::New,
            (b">", false) => {
                return Err(Fault::text(
                    "ERR The > ID can be specified only when calling XREADGROUP using the GROUP \
                     <group> <consumer> option.",
                ));
            }
            (from, of_group) => match id(from, 0)? {
                // Nothing can be above, so it is another way to say `>`.
                StreamId::MAX if of_group => From::New,
                id => From::Above(id),
            },
        });
    }
    Ok(froms)
}

/// An array or a map of streams, that has no entry yet.
struct Streams {
    array: Option<sextant_resp::Deferred>,
    count: usize,
}

impl Streams {
    fn new() -> Streams {
        Streams { array: None, count: 0 }
    }

    /// Begins a stream.
    fn begin(&mut self, call: &mut Call<'_>, key: &[u8]) {
        if self.array.is_none() {
            self.array = Some(call.out.deferred_array());
        }
        if !call.out.resp3 {
            call.out.array(2);
        }
        call.out.bulk(key);
        self.count += 1;
    }

    /// Ends the reply; returns whether there is one.
    fn end(self, call: &mut Call<'_>) -> bool {
        let Some(array) = self.array else { return false };
        match call.out.resp3 {
            true => call.out.end_map(array, self.count),
            false => call.out.end_array(array, self.count),
        }
        true
    }
}

pub(super) fn xread(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let words = words(args, false)?;
    let froms = froms(call, args, &words)?;
    let mut streams = Streams::new();
    for (number, from) in froms.iter().enumerate() {
        let key = &args[words.first + number];
        let From::Above(above) = *from else { continue };
        let stream = call.engine.keys.stream(call.db, key)?;
        if stream.and_then(Stream::top_id).is_none_or(|top| top <= above) {
            continue;
        }
        streams.begin(call, key);
        reply_above(call, key, above, words.count)?;
    }
    if !streams.end(call) {
        wait(call, args, &words, &froms);
    }
    Ok(())
}

/// What a count means of which zero is no limit.
fn limit(count: usize) -> usize {
    if count == 0 { usize::MAX } else { count }
}

fn reply_above(
    call: &mut Call<'_>,
    key: &[u8],
    above: StreamId,
    count: usize,
) -> Result<(), Fault> {
    let stream = call.engine.keys.stream(call.db, key)?;
    match stream.zip(above.next()) {
        Some((stream, from)) => {
            let entries = stream.range(from, StreamId::MAX);
            reply_entries(&mut call.out, entries.take(limit(count)));
        }
        None => call.out.array(0),
    }
    Ok(())
}

pub(super) fn xreadgroup(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let words = words(args, true)?;
    let froms = froms(call, args, &words)?;
    let Some((group, consumer)) = words.group else { return Err(Fault::Syntax) };
    let mut streams = Streams::new();
    for (number, from) in froms.iter().enumerate() {
        let key = &args[words.first + number];
        see_consumer(call, key, group, consumer)?;
        match *from {
            From::Above(above) => {
                streams.begin(call, key);
                reply_again(call, key, (group, consumer), above, words.count)?;
            }
            From::New => {
                let db = call.db;
                let (count, keep) = (limit(words.count), words.to_acknowledge);
                let ids = call.keys().deliver(db, key, group, consumer, count, keep)?;
                if let (Some(first), Some(last)) = (ids.first(), ids.last()) {
                    streams.begin(call, key);
                    if let Some(stream) = call.engine.keys.stream(call.db, key)? {
                        reply_entries(&mut call.out, stream.range(*first, *last));
                    }
                }
            }
        }
    }
    if !streams.end(call) {
        wait(call, args, &words, &froms);
    }
    Ok(())
}

/// A consumer of a group is there, and was seen now.
pub(super) fn see_consumer(
    call: &mut Call<'_>,
    key: &[u8],
    group: &[u8],
    consumer: &[u8],
) -> Result<(), Fault> {
    let db = call.db;
    if call.keys().consumer_ensure(db, key, group, consumer)? == Some(true) {
        call.notify(Class::STREAM, "xgroup-createconsumer", key);
    }
    Ok(())
}

/// What a consumer has pending above an identifier.
fn reply_again(
    call: &mut Call<'_>,
    key: &[u8],
    (group, consumer): (&[u8], &[u8]),
    above: StreamId,
    count: usize,
) -> Result<(), Fault> {
    let db = call.db;
    let ids = call.keys().deliver_again(db, key, group, consumer, above, limit(count))?;
    let Some(stream) = call.engine.keys.stream(db, key)? else { return Ok(()) };
    call.out.array(ids.len());
    for id in ids {
        match stream.entry(id) {
            Some(entry) => super::reply_entry(&mut call.out, &entry),
            None => {
                call.out.array(2);
                reply_id(&mut call.out, id);
                call.out.null_array();
            }
        }
    }
    Ok(())
}

/// Waits, or answers that there is nothing.
fn wait(call: &mut Call<'_>, args: Args<'_>, words: &Words<'_>, froms: &[From]) {
    let Some(block) = words.block else { return call.out.null_array() };
    let deadline = (block > 0).then(|| call.now().saturating_add(block));
    let keys = args.iter().skip(words.first).take(words.streams).map(<[u8]>::to_vec).collect();
    let wait = Wait {
        keys,
        kind: Type::Stream,
        // A group that is gone is to be told.
        gone_too: words.group.is_some(),
        deadline,
        give_up: |out| out.null_array(),
    };
    if !call.wait(wait) {
        call.out.null_array();
        return;
    }
    // What is the end of a stream now will not be so when there is more.
    let ends = words.first + words.streams;
    if args.iter().skip(ends).any(|word| word == b"$") {
        let ids: Vec<String> = froms
            .iter()
            .map(|from| match from {
                From::Above(id) => id.to_string(),
                From::New => ">".to_owned(),
            })
            .collect();
        let ids = ids.iter().map(String::as_bytes);
        call.again = Some(OwnedArgs::from_words(args.iter().take(ends).chain(ids)));
    }
}
