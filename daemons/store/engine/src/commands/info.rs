//! INFO: what an instance tells of itself.

use std::fmt::{Display, Write};

use sextant_resp::Args;

use crate::call::Call;
use crate::command::{Flags, Group, Keys, Spec, spec};
use crate::engine::Engine;
use crate::fault::Fault;
use crate::pubsub::Space;
use crate::words::is;

pub(crate) const COMMANDS: &[Spec] = &[spec(
    "info",
    -1,
    Flags::NONE,
    Keys::None,
    Group::Server,
    "1.0.0",
    "Tells of the instance.",
    info,
)];

/// A section's name, whether it is told by default, and what it has.
type Section = (&'static str, bool, fn(&Engine, &mut Lines));

const SECTIONS: [Section; 12] = [
    ("Server", true, server),
    ("Clients", true, clients),
    ("Memory", true, memory),
    ("Persistence", true, persistence),
    ("Stats", true, stats),
    ("Replication", true, replication),
    ("Modules", true, |_, _| {}),
    ("Commandstats", false, commandstats),
    ("Errorstats", true, errorstats),
    ("Latencystats", false, latencystats),
    ("Cluster", true, |_, lines| lines.add("cluster_enabled", 0)),
    ("Keyspace", true, keyspace),
];

struct Lines(String);

impl Lines {
    fn add(&mut self, name: impl Display, value: impl Display) {
        write!(self.0, "{name}:{value}\r\n").expect("a string takes everything");
    }
}

fn info(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let asked: Vec<&[u8]> = args.iter().skip(1).collect();
    let everything = asked.iter().any(|word| is(word, "all") || is(word, "everything"));
    let defaults = asked.is_empty() || asked.iter().any(|word| is(word, "default"));
    let mut lines = Lines(String::new());
    for (name, default, tell) in SECTIONS {
        let named = asked.iter().any(|word| is(word, name));
        if everything || named || defaults && default {
            if !lines.0.is_empty() {
                lines.0.push_str("\r\n");
            }
            write!(lines.0, "# {name}\r\n").expect("a string takes everything");
            tell(call.engine, &mut lines);
        }
    }
    call.out.verbatim("txt", lines.0.as_bytes());
    Ok(())
}

/// Bytes as a person reads them.
fn human(bytes: u64) -> String {
    let size = bytes as f64;
    match bytes {
        0..1024 => format!("{bytes}B"),
        1024..0x10_0000 => format!("{:.2}K", size / 1024.0),
        0x10_0000..0x4000_0000 => format!("{:.2}M", size / 1048576.0),
        _ => format!("{:.2}G", size / 1073741824.0),
    }
}

fn server(engine: &Engine, lines: &mut Lines) {
    let up = engine.keys.now().saturating_sub(engine.started) / 1000;
    lines.add("redis_version", "7.2.0");
    lines.add("redis_mode", "standalone");
    lines.add("sextant_version", env!("CARGO_PKG_VERSION"));
    lines.add("os", std::env::consts::OS);
    lines.add("arch_bits", usize::BITS);
    lines.add("process_id", std::process::id());
    lines.add("run_id", &engine.run_id);
    lines.add("tcp_port", engine.settings.get("port"));
    lines.add("server_time_usec", engine.keys.now() * 1000);
    lines.add("uptime_in_seconds", up);
    lines.add("uptime_in_days", up / 86400);
    lines.add("hz", engine.settings.get("hz"));
    lines.add("configured_hz", engine.settings.get("hz"));
}

fn clients(engine: &Engine, lines: &mut Lines) {
    let subscribed = engine.clients.iter().filter(|client| client.subscriptions.is_some()).count();
    lines.add("connected_clients", engine.clients.len());
    lines.add("maxclients", engine.settings.get("maxclients"));
    lines.add("blocked_clients", engine.blocking.len());
    lines.add("tracking_clients", engine.tracked.clients());
    lines.add("pubsub_clients", subscribed);
    lines.add("watching_clients", engine.watchers);
}

fn memory(engine: &Engine, lines: &mut Lines) {
    let (used, dataset) = (engine.keys.memory_bytes(), engine.keys.payload_bytes());
    let peak = engine.stats.memory_peak.max(used);
    lines.add("used_memory", used);
    lines.add("used_memory_human", human(used));
    lines.add("used_memory_peak", peak);
    lines.add("used_memory_peak_human", human(peak));
    lines.add("used_memory_overhead", used.saturating_sub(dataset));
    lines.add("used_memory_dataset", dataset);
    let max: u64 = engine.settings.get("maxmemory").parse().unwrap_or(0);
    lines.add("maxmemory", max);
    lines.add("maxmemory_human", human(max));
    lines.add("maxmemory_policy", engine.settings.get("maxmemory-policy"));
}

fn persistence(engine: &Engine, lines: &mut Lines) {
    let status = if engine.room == crate::engine::Room::Enough { "ok" } else { "err" };
    lines.add("loading", 0);
    lines.add("async_loading", 0);
    lines.add("rdb_changes_since_last_save", 0);
    lines.add("rdb_bgsave_in_progress", 0);
    lines.add("aof_enabled", u8::from(engine.journals));
    lines.add("aof_rewrite_in_progress", 0);
    lines.add("aof_last_write_status", status);
}

fn stats(engine: &Engine, lines: &mut Lines) {
    let counts = &engine.counts;
    let (keys, items, prefixes) = engine.tracked.counts();
    lines.add("total_connections_received", counts.connections);
    lines.add("total_commands_processed", counts.commands);
    lines.add("instantaneous_ops_per_sec", engine.stats.ops);
    lines.add("expired_keys", counts.expired);
    lines.add("evicted_keys", counts.evicted);
    lines.add("keyspace_hits", counts.hits);
    lines.add("keyspace_misses", counts.misses);
    lines.add("pubsub_channels", engine.pubsub.count(Space::Channels));
    lines.add("pubsub_patterns", engine.pubsub.count(Space::Patterns));
    lines.add("pubsubshard_channels", engine.pubsub.count(Space::Shards));
    lines.add("tracking_total_keys", keys);
    lines.add("tracking_total_items", items);
    lines.add("tracking_total_prefixes", prefixes);
    lines.add("total_error_replies", engine.stats.errors_total);
}

fn replication(engine: &Engine, lines: &mut Lines) {
    lines.add("role", "master");
    lines.add("connected_slaves", 0);
    lines.add("master_failover_state", "no-failover");
    lines.add("master_replid", &engine.run_id);
    lines.add("master_repl_offset", 0);
}

fn commandstats(engine: &Engine, lines: &mut Lines) {
    for (number, row) in engine.table.rows().iter().enumerate() {
        let stat = engine.stats.command(number as u16);
        if stat.calls + stat.rejected == 0 {
            continue;
        }
        let micros = stat.micros();
        let each = micros as f64 / stat.calls.max(1) as f64;
        let (calls, rejected, failed) = (stat.calls, stat.rejected, stat.failed);
        lines.add(
            format_args!("cmdstat_{}", row.name),
            format_args!(
                "calls={calls},usec={micros},usec_per_call={each:.2},rejected_calls={rejected},\
                 failed_calls={failed}"
            ),
        );
    }
}

fn errorstats(engine: &Engine, lines: &mut Lines) {
    for (code, count) in &engine.stats.errors {
        lines.add(format_args!("errorstat_{code}"), format_args!("count={count}"));
    }
}

fn latencystats(engine: &Engine, lines: &mut Lines) {
    for (number, row) in engine.table.rows().iter().enumerate() {
        let stat = engine.stats.command(number as u16);
        let at = |share| stat.percentile(share);
        let (Some(half), Some(most), Some(all)) = (at(0.5), at(0.99), at(0.999)) else { continue };
        lines.add(
            format_args!("latency_percentiles_usec_{}", row.name),
            format_args!("p50={half},p99={most},p99.9={all}"),
        );
    }
}

fn keyspace(engine: &Engine, lines: &mut Lines) {
    for db in 0..engine.keys.databases() {
        let keys = engine.keys.count(db);
        if keys > 0 {
            let expires = engine.keys.volatile(db);
            lines.add(format_args!("db{db}"), format_args!("keys={keys},expires={expires}"));
        }
    }
}
