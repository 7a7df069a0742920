//! XACK, XPENDING, XCLAIM and XAUTOCLAIM: what consumers were given and have not acknowledged.

use sextant_keyspace::stream::{Group, Pending, Stream, StreamId};
use sextant_keyspace::{Keyspace, canonical_int};
use sextant_resp::Args;

use crate::call::Call;
use crate::fault::Fault;
use crate::output::Output;
use crate::words::{int, is, quoted};

use super::read::see_consumer;
use super::words::{id, interval, start};
use super::{ids, reply_entry, reply_id};

/// The group that the second and third word name.
fn group<'a>(
    keys: &'a mut Keyspace,
    db: usize,
    args: Args<'_>,
) -> Result<(&'a Stream, &'a Group), Fault> {
    let stream = keys.stream(db, &args[1])?;
    let group = stream.and_then(|stream| Some((stream, stream.group(&args[2])?)));
    group.ok_or_else(|| {
        let (key, group) = (quoted(&args[1]), quoted(&args[2]));
        Fault::text(format!("NOGROUP No such key '{key}' or consumer group '{group}'"))
    })
}

pub(super) fn xack(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let db = call.db;
    let stream = call.keys().stream(db, &args[1])?;
    let mut count = 0;
    if stream.is_some_and(|stream| stream.group(&args[2]).is_some()) {
        count = call.keys().acknowledge(db, &args[1], &args[2], &ids(args, 3)?)?;
    }
    call.out.int(count as i64);
    Ok(())
}

/// Milliseconds since an entry was given to somebody.
fn idle(pending: &Pending, now: u64) -> u64 {
    now.saturating_sub(pending.delivered)
}

pub(super) fn xpending(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    match args.len() {
        3 => pending_in_short(call, args),
        6..=9 => pending_in_full(call, args),
        _ => Err(Fault::Syntax),
    }
}

fn pending_in_short(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (_, group) = group(&mut call.engine.keys, call.db, args)?;
    let out = &mut call.out;
    out.array(4);
    out.int(group.pending_len() as i64);
    let mut all = group.pending(StreamId::MIN, StreamId::MAX).map(|(id, _)| id);
    let Some(first) = all.next() else {
        out.null();
        out.null();
        out.null_array();
        return Ok(());
    };
    reply_id(out, first);
    reply_id(out, all.next_back().unwrap_or(first));
    let (array, mut count) = (out.deferred_array(), 0);
    for consumer in group.consumers().filter(|consumer| consumer.pending_len() > 0) {
        out.array(2);
        out.bulk(consumer.name());
        out.bulk_int(consumer.pending_len() as i64);
        count += 1;
    }
    out.end_array(array, count);
    Ok(())
}

fn reply_pending(out: &mut Output, group: &Group, (id, pending): (StreamId, &Pending), now: u64) {
    out.array(4);
    reply_id(out, id);
    out.bulk(group.holder(pending).name());
    out.int(idle(pending, now) as i64);
    out.int(pending.count as i64);
}

fn pending_in_full(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (mut idle_min, mut at) = (0, 3);
    if is(&args[3], "IDLE") {
        idle_min = int(&args[4])?;
        at = 5;
        if args.len() < 8 {
            return Err(Fault::Syntax);
        }
    }
    let count = int(&args[at + 2])?.max(0) as usize;
    let (from, to) = interval(&args[at], &args[at + 1])?;
    let (consumer, now) = (args.get(at + 3), call.now());
    let (_, group) = group(&mut call.engine.keys, call.db, args)?;
    let out = &mut call.out;
    let (array, mut told) = (out.deferred_array(), 0);
    let mut tell = |entry: (StreamId, &Pending)| {
        if told < count && i64::try_from(idle(entry.1, now)).is_ok_and(|idle| idle >= idle_min) {
            reply_pending(out, group, entry, now);
            told += 1;
        }
        told < count
    };
    match consumer {
        None => _ = group.pending(from, to).all(&mut tell),
        Some(name) => {
            let consumer = group.consumer(name);
            let ids = consumer.into_iter().flat_map(|consumer| consumer.pending(from, to));
            _ = ids.filter_map(|id| Some((id, group.pending_entry(id)?))).all(&mut tell);
        }
    }
    call.out.end_array(array, told);
    Ok(())
}

/// An integer, or a fault that names its option.
fn number(word: &[u8], what: &str) -> Result<i64, Fault> {
    canonical_int(word).ok_or_else(|| Fault::text(format!("ERR Invalid {what}")))
}

/// What XCLAIM says besides the identifiers.
#[derive(Default)]
struct Claim {
    idle_min: u64,
    delivered: Option<i64>,
    count: Option<u64>,
    force: bool,
    just_id: bool,
    last_id: StreamId,
}

fn claim_options(args: Args<'_>, from: usize, now: u64) -> Result<Claim, Fault> {
    let (mut claim, mut at) = (Claim::default(), from);
    while let Some(word) = args.get(at) {
        let value = args.get(at + 1);
        if is(word, "FORCE") {
            claim.force = true;
        } else if is(word, "JUSTID") {
            claim.just_id = true;
        } else if let Some(value) = value
            && ["IDLE", "TIME", "RETRYCOUNT", "LASTID"].iter().any(|option| is(word, option))
        {
            if is(word, "IDLE") {
                let idle = number(value, "IDLE option argument for XCLAIM")?;
                claim.delivered = Some((now as i64).saturating_sub(idle));
            } else if is(word, "TIME") {
                claim.delivered = Some(number(value, "TIME option argument for XCLAIM")?);
            } else if is(word, "RETRYCOUNT") {
                let count = number(value, "RETRYCOUNT option argument for XCLAIM")?;
                claim.count = u64::try_from(count).ok();
            } else {
                claim.last_id = id(value, 0)?;
            }
            at += 1;
        } else {
            let word = quoted(word);
            return Err(Fault::text(format!("ERR Unrecognized XCLAIM option '{word}'")));
        }
        at += 1;
    }
    Ok(claim)
}

/// What becomes of an entry that is claimed.
enum Fate {
    /// It stays where it is.
    Stays,
    /// It is not in the stream any more, and pending no more.
    Gone,
    /// It was given so many times.
    Claimed(u64),
}

fn fate(stream: &Stream, group: &Group, id: StreamId, claim: &Claim, now: u64) -> Fate {
    let pending = group.pending_entry(id);
    if !stream.has(id) {
        return if pending.is_some() { Fate::Gone } else { Fate::Stays };
    }
    let before = match pending {
        Some(pending) if claim.idle_min > 0 && idle(pending, now) < claim.idle_min => {
            return Fate::Stays;
        }
        Some(pending) => pending.count,
        // A pending entry begins as given once.
        None if claim.force => 1,
        None => return Fate::Stays,
    };
    let again = before.saturating_add(u64::from(!claim.just_id));
    Fate::Claimed(claim.count.unwrap_or(again))
}

fn idle_min(word: &[u8], command: &str) -> Result<u64, Fault> {
    let idle_min = number(word, &format!("min-idle-time argument for {command}"))?;
    Ok(idle_min.max(0) as u64)
}

pub(super) fn xclaim(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (db, now, key, name, consumer) = (call.db, call.now(), &args[1], &args[2], &args[3]);
    let (_, of) = group(call.keys(), db, args)?;
    let (last_id, read) = (of.last_id(), of.entries_read());
    let idle_min = idle_min(&args[4], "XCLAIM")?;
    let ids: Vec<StreamId> = args.skip(5).iter().map_while(|word| id(word, 0).ok()).collect();
    let claim = Claim { idle_min, ..claim_options(args, 5 + ids.len(), now)? };
    if claim.last_id > last_id {
        call.keys().group_set(db, key, name, claim.last_id, read)?;
    }
    // A time that cannot be is now.
    let delivered = claim.delivered.and_then(|at| u64::try_from(at).ok());
    let delivered = delivered.filter(|at| *at <= now).unwrap_or(now);
    see_consumer(call, key, name, consumer)?;
    let (array, mut count) = (call.out.deferred_array(), 0);
    for id in ids {
        let (stream, of) = group(call.keys(), db, args)?;
        match fate(stream, of, id, &claim, now) {
            Fate::Stays => {}
            Fate::Gone => _ = call.keys().acknowledge(db, key, name, &[id])?,
            Fate::Claimed(times) => {
                call.keys().claim(db, key, name, consumer, &[(id, delivered, times)])?;
                reply_claimed(call, key, id, claim.just_id)?;
                count += 1;
            }
        }
    }
    call.out.end_array(array, count);
    Ok(())
}

fn reply_claimed(
    call: &mut Call<'_>,
    key: &[u8],
    id: StreamId,
    just_id: bool,
) -> Result<(), Fault> {
    if just_id {
        reply_id(&mut call.out, id);
        return Ok(());
    }
    let stream = call.engine.keys.stream(call.db, key)?;
    if let Some(entry) = stream.and_then(|stream| stream.entry(id)) {
        reply_entry(&mut call.out, &entry);
    }
    Ok(())
}

/// What XAUTOCLAIM finds.
#[derive(Default)]
struct Finds {
    /// Entries, when they are given and how many times they were then.
    claimed: Vec<(StreamId, u64, u64)>,
    /// Entries that are no more in the stream.
    gone: Vec<StreamId>,
    /// Where to go on.
    next: StreamId,
}

/// Looks for `count` entries to claim, from one on.
fn look(
    (stream, group): (&Stream, &Group),
    from: StreamId,
    mut count: u64,
    claim: &Claim,
    now: u64,
) -> Finds {
    /// Entries that are looked at for each that is asked for.
    const LOOKS: u64 = 10;
    let (mut finds, mut looks) = (Finds::default(), count.saturating_mul(LOOKS));
    let mut entries = group.pending(from, StreamId::MAX).map(|(id, _)| id);
    while looks > 0
        && count > 0
        && let Some(id) = entries.next()
    {
        looks -= 1;
        match fate(stream, group, id, claim, now) {
            Fate::Stays => continue,
            Fate::Gone => finds.gone.push(id),
            Fate::Claimed(times) => finds.claimed.push((id, now, times)),
        }
        count -= 1;
    }
    finds.next = entries.next().unwrap_or(StreamId::MIN);
    finds
}

/// The words of XAUTOCLAIM behind the identifier: how many entries, and how they are told.
fn autoclaim_options(args: Args<'_>) -> Result<(u64, bool), Fault> {
    const USUAL: u64 = 100;
    const COUNT_MAX: i64 = i64::MAX / 16;
    let (mut count, mut just_id, mut at) = (USUAL, false, 6);
    while let Some(word) = args.get(at) {
        if let Some(value) = args.get(at + 1)
            && is(word, "COUNT")
        {
            let within = |count: &i64| (1..=COUNT_MAX).contains(count);
            let wrong = Fault::text("ERR COUNT must be > 0");
            count = canonical_int(value).filter(within).ok_or(wrong)? as u64;
            at += 1;
        } else if is(word, "JUSTID") {
            just_id = true;
        } else {
            return Err(Fault::Syntax);
        }
        at += 1;
    }
    Ok((count, just_id))
}

pub(super) fn xautoclaim(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let idle_min = idle_min(&args[4], "XAUTOCLAIM")?;
    let from = start(&args[5])?;
    let (count, just_id) = autoclaim_options(args)?;
    let claim = Claim { idle_min, just_id, ..Claim::default() };
    let (db, now, key, name, consumer) = (call.db, call.now(), &args[1], &args[2], &args[3]);
    group(call.keys(), db, args)?;
    see_consumer(call, key, name, consumer)?;
    let Finds { claimed, gone, next } =
        look(group(call.keys(), db, args)?, from, count, &claim, now);
    call.keys().acknowledge(db, key, name, &gone)?;
    call.keys().claim(db, key, name, consumer, &claimed)?;
    call.out.array(3);
    reply_id(&mut call.out, next);
    call.out.array(claimed.len());
    for (id, ..) in claimed {
        reply_claimed(call, key, id, just_id)?;
    }
    call.out.array(gone.len());
    gone.into_iter().for_each(|id| reply_id(&mut call.out, id));
    Ok(())
}
