//! How values are kept, and what memory they take: OBJECT, MEMORY.

use sextant_keyspace::Found;
use sextant_resp::Args;

use crate::call::Call;
use crate::command::{Flags, Group, Handler, Keys, Spec, container, spec};
use crate::commands::help::HELP;
use crate::fault::Fault;
use crate::words::{int, is};

const READ: Flags = Flags::READONLY;
const KEY: Keys = Keys::At { first: 2, last: 2, step: 1 };

const fn row(
    name: &'static str,
    arity: i32,
    flags: Flags,
    keys: Keys,
    since: &'static str,
    summary: &'static str,
    handler: Handler,
) -> Spec {
    spec(name, arity, flags, keys, Group::Generic, since, summary, handler)
}

pub(crate) const COMMANDS: &[Spec] = &[
    container("object", Group::Generic, "2.2.3", "Tells how values are kept.", OBJECT),
    container("memory", Group::Server, "4.0.0", "Is about memory.", MEMORY),
];

const OBJECT: &[Spec] = &[
    row("encoding", 3, READ, KEY, "2.2.3", "Tells how a value is kept.", encoding),
    row("freq", 3, READ, KEY, "4.0.0", "Tells how often a key is used.", freq),
    HELP,
    row("idletime", 3, READ, KEY, "2.2.3", "Tells how long a key was not used.", idletime),
    row("refcount", 3, READ, KEY, "2.2.3", "Tells how many use a value.", refcount),
];

const MEMORY: &[Spec] = &[
    row("doctor", 2, Flags::NONE, Keys::None, "4.0.0", "Tells about memory, in words.", doctor),
    HELP,
    row("purge", 2, Flags::NONE, Keys::None, "4.0.0", "Gives memory back.", purge),
    row("stats", 2, Flags::NONE, Keys::None, "4.0.0", "Tells what takes memory.", stats),
    row("usage", -3, READ, KEY, "4.0.0", "Tells what memory a key takes.", usage),
];

/// A key that counts as not used by the look at it; no reply but null without it.
fn key(call: &mut Call<'_>, args: Args<'_>) -> Option<Found> {
    let found = call.engine.keys.peek(call.db, &args[2]);
    if found.is_none() {
        call.out.null();
    }
    found
}

fn encoding(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    if let Some(found) = key(call, args) {
        let name = call.engine.keys.encoding_name(found);
        call.out.bulk(name.as_bytes());
    }
    Ok(())
}

fn refcount(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    if key(call, args).is_some() {
        call.out.int(1);
    }
    Ok(())
}

fn freq(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let Some(found) = key(call, args) else { return Ok(()) };
    match call.engine.keys.frequency(found) {
        Some(frequency) => call.out.int(i64::from(frequency)),
        None => {
            return Err(Fault::text(
                "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please \
                 note that when switching between policies at runtime LRU and LFU data will take \
                 some time to adjust.",
            ));
        }
    }
    Ok(())
}

fn idletime(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let Some(found) = key(call, args) else { return Ok(()) };
    match call.engine.keys.idle_seconds(found) {
        Some(seconds) => call.out.int(i64::from(seconds)),
        None => {
            return Err(Fault::text(
                "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that \
                 when switching between policies at runtime LRU and LFU data will take some time \
                 to adjust.",
            ));
        }
    }
    Ok(())
}

fn usage(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    match (args.get(3), args.get(4)) {
        (None, _) => {}
        (Some(word), Some(samples)) if is(word, "SAMPLES") && args.len() == 5 => {
            if int(samples)? < 0 {
                return Err(Fault::Syntax);
            }
        }
        _ => return Err(Fault::Syntax),
    }
    if let Some(found) = key(call, args) {
        let bytes = call.engine.keys.memory_of(found);
        call.out.int(bytes as i64);
    }
    Ok(())
}

fn doctor(call: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    let (used, dataset) = (call.engine.keys.memory_bytes(), call.engine.keys.payload_bytes());
    let text = match (dataset, used) {
        (0, _) => "There are no keys.\n".to_owned(),
        (dataset, used) if used > 3 * dataset + (64 << 20) => {
            "Keys and values take a third of the memory or less: many are small, or many were \
             deleted lately.\n"
                .to_owned()
        }
        _ => "Memory is in order.\n".to_owned(),
    };
    call.out.verbatim("txt", text.as_bytes());
    Ok(())
}

fn purge(call: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    call.out.ok();
    Ok(())
}

fn stats(call: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    let (used, dataset) = (call.engine.keys.memory_bytes(), call.engine.keys.payload_bytes());
    let databases = call.engine.keys.databases();
    let keys: u64 = (0..databases).map(|db| call.engine.keys.count(db)).sum();
    let peak = call.engine.stats.memory_peak.max(used);
    let numbers = [
        ("peak.allocated", peak),
        ("total.allocated", used),
        ("overhead.total", used.saturating_sub(dataset)),
        ("keys.count", keys),
        ("keys.bytes-per-key", used.checked_div(keys).unwrap_or(0)),
        ("dataset.bytes", dataset),
    ];
    let out = &mut call.out;
    out.map(numbers.len() + 2);
    for (name, number) in numbers {
        out.bulk(name.as_bytes());
        out.int(number as i64);
    }
    let share = |part: u64, of: u64| part as f64 * 100.0 / of.max(1) as f64;
    for (name, percent) in
        [("dataset.percentage", share(dataset, used)), ("peak.percentage", share(used, peak))]
    {
        out.bulk(name.as_bytes());
        out.double(percent);
    }
    Ok(())
}
