//! What `/metrics` tells of the default instance: the control plane asks it once in a while, so
//! that nothing is counted twice and no command pays for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sextant_service::metrics::Builder;
use sextant_shard::Instance;

/// Numbers of an instance, as it last told them.
#[derive(Default)]
pub struct Levels {
    commands: AtomicU64,
    connections: AtomicU64,
    expired: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
    clients: AtomicU64,
    keys: AtomicU64,
    memory_bytes: AtomicU64,
    log_bytes: AtomicU64,
    log_read_only: AtomicU64,
}

impl Levels {
    /// Names all of them.
    pub fn declare(self: &Arc<Levels>, builder: &mut Builder) {
        type Number = fn(&Levels) -> &AtomicU64;
        let gauges: [(&'static str, &'static str, Number); 10] = [
            ("sextant_store_commands", "Commands executed since the start.", |l| &l.commands),
            ("sextant_store_accepted", "Connections since the start.", |l| &l.connections),
            ("sextant_store_expired_keys", "Keys that have expired.", |l| &l.expired),
            ("sextant_store_hits", "Keys that were looked for and found.", |l| &l.hits),
            ("sextant_store_misses", "Keys that were looked for in vain.", |l| &l.misses),
            ("sextant_store_clients", "Connected clients.", |l| &l.clients),
            ("sextant_store_keys", "Keys of all databases.", |l| &l.keys),
            ("sextant_store_memory_bytes", "Memory of keys and values.", |l| &l.memory_bytes),
            ("sextant_store_log_bytes", "Segment files.", |l| &l.log_bytes),
            (
                "sextant_store_log_read_only",
                "1 if the log takes nothing more: see the daemon's log.",
                |l| &l.log_read_only,
            ),
        ];
        for (name, help, number) in gauges {
            let levels = Arc::clone(self);
            builder.gauge_fn(name, help, move || number(&levels).load(Ordering::Relaxed) as f64);
        }
    }

    /// Reads an instance's numbers.
    pub fn note(&self, instance: &mut Instance) {
        let counts = instance.engine.counts();
        let set = |to: &AtomicU64, value: u64| to.store(value, Ordering::Relaxed);
        set(&self.commands, counts.commands);
        set(&self.connections, counts.connections);
        set(&self.expired, counts.expired);
        set(&self.hits, counts.hits);
        set(&self.misses, counts.misses);
        set(&self.clients, instance.engine.clients() as u64);
        let keys = instance.engine.keyspace();
        set(&self.keys, (0..keys.databases()).map(|db| keys.len(db)).sum());
        set(&self.memory_bytes, keys.memory_bytes());
        // The look was nobody's who waits for an answer.
        keys.take_seen();
        if let Some(keeper) = &instance.keeper {
            set(&self.log_bytes, keeper.log().file_bytes());
            set(&self.log_read_only, u64::from(keeper.log().read_only().is_some()));
        }
    }
}
