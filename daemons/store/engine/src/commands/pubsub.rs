//! Publish and subscribe: SUBSCRIBE, PUBLISH, PUBSUB and their kin.

use sextant_resp::Args;

use crate::call::{Call, Caller};
use crate::command::{Flags, Group, Keys, Spec, container, spec};
use crate::commands::help::HELP;
use crate::fault::Fault;
use crate::pubsub::{SUBSCRIPTIONS_MAX, Space};
use crate::words::matches;

const OPEN: Flags = Flags::PUBSUB.and(Flags::NOSCRIPT).and(Flags::SUBSCRIBED);
const SAY: Flags = Flags::PUBSUB.and(Flags::FAST);
const ASK: Flags = Flags::PUBSUB;
const GROUP: Group = Group::PubSub;

const fn row(
    name: &'static str,
    arity: i32,
    flags: Flags,
    since: &'static str,
    summary: &'static str,
    handler: crate::command::Handler,
) -> Spec {
    spec(name, arity, flags, Keys::None, GROUP, since, summary, handler)
}

pub(crate) const COMMANDS: &[Spec] = &[
    row("subscribe", -2, OPEN, "2.0.0", "Hears messages to channels.", subscribe),
    row("psubscribe", -2, OPEN, "2.0.0", "Hears messages to channels that match.", psubscribe),
    row("ssubscribe", -2, OPEN, "7.0.0", "Hears messages to shard channels.", ssubscribe),
    row("unsubscribe", -1, OPEN, "2.0.0", "Hears channels no more.", unsubscribe),
    row("punsubscribe", -1, OPEN, "2.0.0", "Hears what matches no more.", punsubscribe),
    row("sunsubscribe", -1, OPEN, "7.0.0", "Hears shard channels no more.", sunsubscribe),
    row("publish", 3, SAY, "2.0.0", "Sends a message to a channel.", publish),
    row("spublish", 3, SAY, "7.0.0", "Sends a message to a shard channel.", spublish),
    container("pubsub", GROUP, "2.8.0", "Tells of channels and their subscribers.", PUBSUB),
];

const PUBSUB: &[Spec] = &[
    row("channels", -2, ASK, "2.8.0", "Lists channels that somebody subscribes to.", channels),
    row("numsub", -2, ASK, "2.8.0", "Counts the subscribers of channels.", numsub),
    row("numpat", 2, ASK, "2.8.0", "Counts patterns that somebody subscribes to.", numpat),
    row("shardchannels", -2, ASK, "7.0.0", "Lists shard channels.", shardchannels),
    row("shardnumsub", -2, ASK, "7.0.0", "Counts the subscribers of shard channels.", shardnumsub),
    HELP,
];

fn subscribe(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    subscribe_to(call, args, Space::Channels)
}

fn psubscribe(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    subscribe_to(call, args, Space::Patterns)
}

fn ssubscribe(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    if call.caller == Caller::Transaction {
        return Err(Fault::text("ERR SSUBSCRIBE isn't allowed for a DENY BLOCKING client"));
    }
    subscribe_to(call, args, Space::Shards)
}

fn subscribe_to(call: &mut Call<'_>, args: Args<'_>, space: Space) -> Result<(), Fault> {
    let id = call.id;
    let mut own = call.client().subscriptions.take().unwrap_or_default();
    let mut fault = None;
    for name in args.iter().skip(1) {
        if !call.engine.pubsub.subscribe(id, &mut own, space, name) {
            fault = Some(Fault::text(format!(
                "ERR a connection subscribes to {SUBSCRIPTIONS_MAX} names at most"
            )));
            break;
        }
        confirm(call, space.subscribed(), Some(name), own.told(space));
    }
    call.client().subscriptions = Some(own);
    call.engine.guard(id);
    fault.map_or(Ok(()), Err)
}

fn confirm(call: &mut Call<'_>, what: &[u8], name: Option<&[u8]>, count: usize) {
    let out = &mut call.out;
    out.push(3);
    out.bulk(what);
    match name {
        Some(name) => out.bulk(name),
        None => out.null(),
    }
    out.int(count as i64);
}

fn unsubscribe(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    unsubscribe_from(call, args, Space::Channels);
    Ok(())
}

fn punsubscribe(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    unsubscribe_from(call, args, Space::Patterns);
    Ok(())
}

fn sunsubscribe(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    unsubscribe_from(call, args, Space::Shards);
    Ok(())
}

fn unsubscribe_from(call: &mut Call<'_>, args: Args<'_>, space: Space) {
    let id = call.id;
    let mut own = call.client().subscriptions.take().unwrap_or_default();
    let what = space.unsubscribed();
    for name in args.iter().skip(1) {
        call.engine.pubsub.unsubscribe(id, &mut own, space, name);
        confirm(call, what, Some(name), own.told(space));
    }
    if args.len() == 1 {
        let mut any = false;
        while let Some(name) = call.engine.pubsub.unsubscribe_one(id, &mut own, space) {
            any = true;
            confirm(call, what, Some(&name), own.told(space));
        }
        if !any {
            confirm(call, what, None, own.told(space));
        }
    }
    let left = Space::ALL.iter().any(|space| own.count(*space) > 0);
    call.client().subscriptions = left.then_some(own);
    call.engine.guard(id);
}

fn publish(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    publish_to(call, args, Space::Channels);
    Ok(())
}

fn spublish(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    publish_to(call, args, Space::Shards);
    Ok(())
}

fn publish_to(call: &mut Call<'_>, args: Args<'_>, space: Space) {
    let reached = call.engine.publish(space, &args[1], &args[2]);
    call.out.int(reached as i64);
}

fn list(call: &mut Call<'_>, args: Args<'_>, space: Space) -> Result<(), Fault> {
    if args.len() > 3 {
        return Err(crate::commands::help::wrong_sub(args));
    }
    let pattern = args.get(2);
    let names = call.engine.pubsub.names(space);
    let names = names.filter(|name| pattern.is_none_or(|pattern| matches(pattern, name)));
    let mut names: Vec<&[u8]> = names.collect();
    names.sort_unstable();
    call.out.array(names.len());
    names.iter().for_each(|name| call.out.bulk(name));
    Ok(())
}

fn channels(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    list(call, args, Space::Channels)
}

fn shardchannels(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    list(call, args, Space::Shards)
}

fn count(call: &mut Call<'_>, args: Args<'_>, space: Space) {
    // Not a map in RESP3 either.
    call.out.array(2 * (args.len() - 2));
    for name in args.iter().skip(2) {
        call.out.bulk(name);
        let count = call.engine.pubsub.subscribers(space, name);
        call.out.int(count as i64);
    }
}

fn numsub(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    count(call, args, Space::Channels);
    Ok(())
}

fn shardnumsub(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    count(call, args, Space::Shards);
    Ok(())
}

fn numpat(call: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    let count = call.engine.pubsub.count(Space::Patterns);
    call.out.int(count as i64);
    Ok(())
}
