//! What was slow, and what is done right now: SLOWLOG, LATENCY, MONITOR.

use sextant_resp::Args;

use crate::call::{Call, Caller};
use crate::command::{Flags, Group, Handler, Keys, Spec, container, spec};
use crate::commands::help::{HELP, wrong_sub};
use crate::fault::Fault;
use crate::words::{int_within, quoted};

const ADMIN: Flags = Flags::ADMIN.and(Flags::NOSCRIPT);
const GROUP: Group = Group::Server;

const fn row(
    name: &'static str,
    arity: i32,
    since: &'static str,
    summary: &'static str,
    handler: Handler,
) -> Spec {
    spec(name, arity, ADMIN, Keys::None, GROUP, since, summary, handler)
}

pub(crate) const COMMANDS: &[Spec] = &[
    container("slowlog", GROUP, "2.2.12", "Is about commands that were slow.", SLOWLOG),
    container("latency", GROUP, "2.8.13", "Is about what took long.", LATENCY),
    row("monitor", 1, "1.0.0", "Shows all commands as they are done.", monitor),
];

const SLOWLOG: &[Spec] = &[
    row("get", -2, "2.2.12", "Tells which commands were slow.", get),
    HELP,
    row("len", 2, "2.2.12", "Counts commands that were slow.", len),
    row("reset", 2, "2.2.12", "Forgets commands that were slow.", reset),
];

const LATENCY: &[Spec] = &[
    row("doctor", 2, "2.8.13", "Tells about what took long, in words.", doctor),
    HELP,
    row("histogram", -2, "7.0.0", "Tells how long commands took.", histogram),
    row("history", 3, "2.8.13", "Tells when something took long.", history),
    row("latest", 2, "2.8.13", "Tells what took long last.", latest),
    row("reset", -2, "2.8.13", "Forgets what took long.", reset_latency),
];

fn get(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    const WRONG: &str = "ERR count should be greater than or equal to -1";
    let count = match args.get(2) {
        None => 10,
        Some(_) if args.len() > 3 => return Err(wrong_sub(args)),
        Some(word) => int_within(word, -1..=i64::MAX, WRONG)?,
    };
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let (slow, out) = (&call.engine.stats.slow, &mut call.out);
    out.array(slow.len().min(count));
    for slow in slow.iter().take(count) {
        out.array(6);
        out.int(slow.id as i64);
        out.int(slow.at as i64);
        out.int(slow.micros as i64);
        out.array(slow.words.len());
        slow.words.iter().for_each(|word| out.bulk(word));
        out.bulk(slow.address.as_bytes());
        out.bulk(&slow.name);
    }
    Ok(())
}

fn len(call: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    let len = call.engine.stats.slow.len();
    call.out.int(len as i64);
    Ok(())
}

fn reset(call: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    call.engine.stats.slow.clear();
    call.out.ok();
    Ok(())
}

fn latest(call: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    let (latency, out) = (&call.engine.stats.latency, &mut call.out);
    out.array(latency.len());
    for (event, of) in latency {
        let (at, ms) = *of.samples.back().expect("an event has happened");
        out.array(4);
        out.bulk(event.as_bytes());
        [at, ms, of.longest_ms].iter().for_each(|number| out.int(*number as i64));
    }
    Ok(())
}

fn history(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let event = std::str::from_utf8(&args[2]).ok();
    let of = event.and_then(|event| call.engine.stats.latency.get(event));
    let out = &mut call.out;
    out.array(of.map_or(0, |of| of.samples.len()));
    for (at, ms) in of.iter().flat_map(|of| &of.samples) {
        out.array(2);
        out.int(*at as i64);
        out.int(*ms as i64);
    }
    Ok(())
}

fn reset_latency(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let latency = &mut call.engine.stats.latency;
    let before = latency.len();
    let named = |event: &str| args.iter().skip(2).any(|word| word == event.as_bytes());
    latency.retain(|event, _| args.len() > 2 && !named(event));
    let gone = before - latency.len();
    call.out.int(gone as i64);
    Ok(())
}

fn doctor(call: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    let stats = &call.engine.stats;
    let mut text = match (stats.latency_min_ms, stats.latency.is_empty()) {
        (0, _) => "Latencies are not watched: set latency-monitor-threshold.\n".to_owned(),
        (_, true) => "Nothing took long since the start, or since it was forgotten.\n".to_owned(),
        _ => String::new(),
    };
    for (event, of) in &stats.latency {
        let (count, longest) = (of.samples.len(), of.longest_ms);
        text.push_str(&format!("{event}: {count} times, {longest} ms at most\n"));
    }
    call.out.verbatim("txt", text.as_bytes());
    Ok(())
}

fn histogram(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let rows = call.engine.table.rows();
    let asked: Vec<u16> = match args.len() {
        2 => (0..rows.len() as u16).collect(),
        _ => args
            .iter()
            .skip(2)
            .filter_map(|name| call.engine.table.find_whole(name))
            .flat_map(|known| known.number..=known.number + known.spec.subs.len() as u16)
            .collect(),
    };
    let stats = &call.engine.stats;
    let told = asked.into_iter().filter(|number| stats.command(*number).timed > 0);
    let told: Vec<u16> = told.collect();
    let out = &mut call.out;
    out.map(told.len());
    for number in told {
        let (stat, points) = (stats.command(number), stats.command(number).histogram());
        out.bulk(rows[number as usize].name.as_bytes());
        out.map(2);
        out.bulk(b"calls");
        out.int(stat.calls as i64);
        out.bulk(b"histogram_usec");
        out.map(points.len());
        for (micros, calls) in points {
            out.int(micros as i64);
            out.int(calls as i64);
        }
    }
    Ok(())
}

fn monitor(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    if call.caller != Caller::Client {
        let name = quoted(&args[0]).to_uppercase();
        return Err(Fault::text(format!("ERR {name} isn't allowed for DENY BLOCKING client")));
    }
    let id = call.id;
    if !std::mem::replace(&mut call.client().monitors, true) {
        call.engine.monitors.push(id);
    }
    call.out.ok();
    Ok(())
}
