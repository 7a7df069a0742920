//! Transactions: commands are queued, and done together, unless a watched key has changed.

use sextant_resp::Args;

use crate::call::{Call, Caller};
use crate::client::Multi;
use crate::command::{Flags, Group, Keys, Spec, spec};
use crate::engine::run_queued;
use crate::fault::Fault;

const FLAGS: Flags = Flags::NOSCRIPT.and(Flags::FAST).and(Flags::NO_MULTI);
const GROUP: Group = Group::Transactions;

pub(crate) const COMMANDS: &[Spec] = &[
    spec("multi", 1, FLAGS, Keys::None, GROUP, "1.2.0", "Begins a transaction.", multi),
    spec(
        "exec",
        1,
        Flags::NOSCRIPT.and(Flags::NO_MULTI),
        Keys::None,
        GROUP,
        "1.2.0",
        "Does what was queued.",
        exec,
    ),
    spec("discard", 1, FLAGS, Keys::None, GROUP, "2.0.0", "Forgets what was queued.", discard),
    spec(
        "watch",
        -2,
        FLAGS,
        Keys::ALL,
        GROUP,
        "2.2.0",
        "Lets a transaction depend on keys.",
        watch,
    ),
    spec(
        "unwatch",
        1,
        Flags::NOSCRIPT.and(Flags::FAST),
        Keys::None,
        GROUP,
        "2.2.0",
        "Forgets all watched keys.",
        unwatch,
    ),
];

fn multi(call: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    let client = call.client();
    if client.multi.is_some() {
        return Err(Fault::text("ERR MULTI calls can not be nested"));
    }
    client.multi = Some(Multi::default());
    call.out.ok();
    Ok(())
}

/// Ends a transaction, and the watching.
pub(crate) fn forget(call: &mut Call<'_>) -> Option<Multi> {
    call.engine.forget_transaction(call.id)
}

/// Whether a watched key has changed, or its time has come.
fn is_spoiled(call: &mut Call<'_>) -> bool {
    let client = call.client();
    if client.watched_changed {
        return true;
    }
    let watched = client.watched.clone();
    // A key whose time has come is deleted by the look at it, and that is a change.
    for (db, key) in &watched {
        let keys = &mut call.engine.keys;
        let was_there = keys.is_there(*db, key);
        if was_there && keys.find(*db, key).is_none() {
            return true;
        }
    }
    false
}

fn exec(call: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    if call.client().multi.is_none() {
        return Err(Fault::text("ERR EXEC without MULTI"));
    }
    let spoiled = is_spoiled(call);
    let multi = forget(call).expect("it was looked at above");
    if multi.refused {
        return Err(Fault::text("EXECABORT Transaction discarded because of previous errors."));
    }
    if spoiled {
        call.out.null_array();
        return Ok(());
    }
    let caller = std::mem::replace(&mut call.caller, Caller::Transaction);
    call.out.array(multi.commands.len());
    for command in &multi.commands {
        run_queued(call, command);
    }
    call.caller = caller;
    Ok(())
}

fn discard(call: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    if call.client().multi.is_none() {
        return Err(Fault::text("ERR DISCARD without MULTI"));
    }
    forget(call);
    call.out.ok();
    Ok(())
}

fn watch(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let db = call.db;
    let client = call.client();
    if client.multi.is_some() {
        return Err(Fault::text("ERR WATCH inside MULTI is not allowed"));
    }
    let is_first = client.watched.is_empty();
    for key in args.iter().skip(1) {
        let name = (db, key.to_vec());
        if !client.watched.contains(&name) {
            client.watched.push(name);
        }
    }
    if is_first {
        call.engine.watchers += 1;
        call.engine.watch_if_needed();
    }
    for key in args.iter().skip(1) {
        // What has expired already is gone before it is watched.
        call.keys().find(db, key);
    }
    call.out.ok();
    Ok(())
}

fn unwatch(call: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    call.engine.forget_watched(call.id);
    call.out.ok();
    Ok(())
}
