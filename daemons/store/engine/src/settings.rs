//! Settings that CONFIG tells and changes: a table of names with what each may be, what it is by
//! default, and what follows of it.
//!
//! What clients and tools of Redis ask for and has no meaning here is in the table too where an
//! answer helps them, and cannot be changed unless that does nothing anyway. Values are kept as the
//! text that CONFIG GET tells. Those that a client changed last until the next start, or longer
//! once CONFIG REWRITE has put them into the log.

use hashbrown::HashMap;

use crate::engine::Engine;
use crate::notify::Notices;
use crate::pubsub::OutputLimit;

/// What a setting may be.
pub(crate) enum Kind {
    /// Yes or no.
    Flag,
    /// An integer.
    Number(i64, i64),
    /// A number of bytes, with a unit perhaps.
    Bytes(u64, u64),
    /// One of some words.
    Choice(&'static [&'static str]),
    /// Anything.
    Text,
    /// Text in an order of its own; what is returned is what is kept. It is given what is kept now.
    Own(fn(&str, &str) -> Result<String, &'static str>),
}

/// A setting.
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    kind: Kind,
    default: &'static str,
    /// It is not changed while the instance runs.
    fixed: bool,
    /// What follows of a new value, which was checked.
    apply: fn(&mut Engine, &str),
}

const fn setting(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    apply: fn(&mut Engine, &str),
) -> Setting {
    Setting { name, kind, default, fixed: false, apply }
}

const fn fixed(name: &'static str, default: &'static str) -> Setting {
    Setting { name, kind: Kind::Text, default, fixed: true, apply: nothing }
}

fn nothing(_: &mut Engine, _: &str) {}

const INT: i64 = i32::MAX as i64;
const LONG: i64 = i64::MAX;
const ANY: u64 = i64::MAX as u64;
const POLICIES: &[&str] = &[
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "noeviction",
];

fn size(text: &str) -> usize {
    text.parse().expect("a number that was checked")
}

fn number<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    text.parse().expect("a number that was checked, in its range")
}

/// All settings, by name.
pub(crate) const SETTINGS: &[Setting] = &[
    setting(
        "acl-pubsub-default",
        Kind::Choice(&["allchannels", "resetchannels"]),
        "resetchannels",
        nothing,
    ),
    setting("acllog-max-len", Kind::Number(0, LONG), "128", nothing),
    setting("active-expire-effort", Kind::Number(1, 10), "1", nothing),
    fixed("aclfile", ""),
    setting("activedefrag", Kind::Flag, "no", nothing),
    setting("appendfsync", Kind::Choice(&["always", "everysec", "no"]), "always", nothing),
    fixed("appendonly", "yes"),
    fixed("bind", ""),
    setting("busy-reply-threshold", Kind::Number(0, LONG), "5000", nothing),
    setting(
        "client-output-buffer-limit",
        Kind::Own(output_limits),
        "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
        apply_output_limits,
    ),
    setting("client-query-buffer-limit", Kind::Bytes(1 << 20, ANY), "1073741824", nothing),
    fixed("cluster-enabled", "no"),
    fixed("databases", "16"),
    fixed("dbfilename", "dump.rdb"),
    fixed("dir", ""),
    setting("enable-debug-command", Kind::Choice(&["no", "yes", "local"]), "yes", nothing),
    setting("hash-max-listpack-entries", Kind::Number(0, LONG), "128", |engine, text| {
        engine.keys.encoding.hash_entries_max = size(text);
    }),
    setting("hash-max-listpack-value", Kind::Number(0, LONG), "64", |engine, text| {
        engine.keys.encoding.hash_value_max = size(text);
    }),
    setting("hll-sparse-max-bytes", Kind::Number(0, LONG), "3000", nothing),
    setting("hz", Kind::Number(0, INT), "10", nothing),
    setting("io-threads", Kind::Number(1, 128), "1", nothing),
    setting("latency-monitor-threshold", Kind::Number(0, LONG), "0", |engine, text| {
        engine.stats.latency_min_ms = number(text);
    }),
    setting("latency-tracking", Kind::Flag, "yes", nothing),
    setting("lazyfree-lazy-eviction", Kind::Flag, "yes", nothing),
    setting("lazyfree-lazy-expire", Kind::Flag, "yes", nothing),
    setting("lazyfree-lazy-server-del", Kind::Flag, "yes", nothing),
    setting("lazyfree-lazy-user-del", Kind::Flag, "yes", nothing),
    setting("lazyfree-lazy-user-flush", Kind::Flag, "yes", nothing),
    setting("lfu-decay-time", Kind::Number(0, INT), "1", apply_eviction),
    setting("lfu-log-factor", Kind::Number(0, INT), "10", apply_eviction),
    setting("list-compress-depth", Kind::Number(0, INT), "0", nothing),
    setting("list-max-listpack-size", Kind::Number(-5, INT), "-2", |engine, text| {
        engine.keys.encoding.list_max = number(text);
    }),
    setting(
        "loglevel",
        Kind::Choice(&["debug", "verbose", "notice", "warning", "nothing"]),
        "notice",
        nothing,
    ),
    setting("lua-time-limit", Kind::Number(0, LONG), "5000", nothing),
    setting("maxclients", Kind::Number(1, INT), "10000", nothing),
    setting("maxmemory", Kind::Bytes(0, ANY), "0", apply_eviction),
    setting("maxmemory-clients", Kind::Bytes(0, ANY), "0", nothing),
    setting("maxmemory-eviction-tenacity", Kind::Number(0, 100), "10", nothing),
    setting("maxmemory-policy", Kind::Choice(POLICIES), "noeviction", apply_eviction),
    setting("maxmemory-samples", Kind::Number(1, 64), "5", apply_eviction),
    setting("min-replicas-max-lag", Kind::Number(0, INT), "10", nothing),
    setting("min-replicas-to-write", Kind::Number(0, INT), "0", nothing),
    setting("notify-keyspace-events", Kind::Own(event_classes), "", |engine, text| {
        let right = engine.notices.set(text.as_bytes());
        assert!(right, "the letters were checked");
    }),
    fixed("port", "6379"),
    setting("proto-max-bulk-len", Kind::Bytes(1 << 20, 512 << 20), "536870912", nothing),
    setting("rdbcompression", Kind::Flag, "yes", nothing),
    fixed("replicaof", ""),
    setting("repl-backlog-size", Kind::Bytes(1, ANY), "1048576", nothing),
    setting("replica-read-only", Kind::Flag, "yes", nothing),
    setting("requirepass", Kind::Text, "", Engine::set_default_password),
    setting("sanitize-dump-payload", Kind::Choice(&["no", "yes", "clients"]), "yes", nothing),
    setting("save", Kind::Own(save_points), "", nothing),
    setting("set-max-intset-entries", Kind::Number(0, LONG), "512", |engine, text| {
        engine.keys.encoding.set_ints_max = size(text);
    }),
    setting("set-max-listpack-entries", Kind::Number(0, LONG), "128", |engine, text| {
        engine.keys.encoding.set_entries_max = size(text);
    }),
    setting("set-max-listpack-value", Kind::Number(0, LONG), "64", |engine, text| {
        engine.keys.encoding.set_value_max = size(text);
    }),
    setting("slowlog-log-slower-than", Kind::Number(-1, LONG), "10000", |engine, text| {
        engine.stats.slower_than_us = number(text);
    }),
    setting("slowlog-max-len", Kind::Number(0, 1 << 20), "128", |engine, text| {
        engine.stats.slow_max = number(text);
        engine.stats.slow.truncate(engine.stats.slow_max);
    }),
    setting("stop-writes-on-bgsave-error", Kind::Flag, "yes", nothing),
    setting("stream-node-max-bytes", Kind::Bytes(0, ANY), "4096", |engine, text| {
        engine.keys.encoding.stream_node_bytes_max = size(text);
    }),
    setting("stream-node-max-entries", Kind::Number(0, LONG), "100", |engine, text| {
        engine.keys.encoding.stream_node_entries_max = size(text);
    }),
    setting("tcp-keepalive", Kind::Number(0, INT), "300", nothing),
    setting("timeout", Kind::Number(0, INT), "0", nothing),
    fixed("tls-port", "0"),
    setting("tracking-table-max-keys", Kind::Number(1, 100_000_000), "1000000", |engine, text| {
        engine.tracked.keys_max = size(text);
        engine.tracked.make_room();
    }),
    fixed("unixsocket", ""),
    setting("zset-max-listpack-entries", Kind::Number(0, LONG), "128", |engine, text| {
        engine.keys.encoding.zset_entries_max = size(text);
    }),
    setting("zset-max-listpack-value", Kind::Number(0, LONG), "64", |engine, text| {
        engine.keys.encoding.zset_value_max = size(text);
    }),
];

/// Names that stand for others, from before they were called so.
const ALIASES: [(&str, &str); 6] = [
    ("hash-max-ziplist-entries", "hash-max-listpack-entries"),
    ("hash-max-ziplist-value", "hash-max-listpack-value"),
    ("list-max-ziplist-size", "list-max-listpack-size"),
    ("slave-read-only", "replica-read-only"),
    ("zset-max-ziplist-entries", "zset-max-listpack-entries"),
    ("zset-max-ziplist-value", "zset-max-listpack-value"),
];

fn event_classes(text: &str, _: &str) -> Result<String, &'static str> {
    let mut notices = Notices::default();
    match notices.set(text.as_bytes()) {
        true => Ok(notices.letters()),
        false => Err("Invalid event class character. Use 'Ag$lshzxeKEtmdn'."),
    }
}

fn save_points(text: &str, _: &str) -> Result<String, &'static str> {
    const WRONG: &str = "Invalid save parameters";
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let positive = |word: &&str| word.parse::<i64>().is_ok_and(|number| number >= 1);
    match words.len().is_multiple_of(2) && words.iter().all(positive) {
        true => Ok(words.join(" ")),
        false => Err(WRONG),
    }
}

fn output_limits(text: &str, now: &str) -> Result<String, &'static str> {
    const CLASSES: [&str; 3] = ["normal", "slave", "pubsub"];
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    if words.is_empty() || !words.len().is_multiple_of(4) {
        return Err("Wrong number of arguments in buffer limit configuration.");
    }
    let mut limits: Vec<String> = now.split(' ').map(str::to_owned).collect();
    for part in words.chunks_exact(4) {
        let class = if part[0] == "replica" { "slave" } else { part[0] };
        let class = CLASSES.iter().position(|known| class.eq_ignore_ascii_case(known));
        let class = class.ok_or("Invalid client class specified in buffer limit configuration.")?;
        let wrong = "Error in hard, soft or soft_seconds setting in buffer limit configuration.";
        let (hard, soft) = (memory(part[1]).ok_or(wrong)?, memory(part[2]).ok_or(wrong)?);
        let seconds: u32 = part[3].parse().map_err(|_| wrong)?;
        let values = [hard.to_string(), soft.to_string(), seconds.to_string()];
        limits[4 * class + 1..4 * class + 4].clone_from_slice(&values);
    }
    Ok(limits.join(" "))
}

fn apply_output_limits(engine: &mut Engine, text: &str) {
    let words: Vec<&str> = text.split(' ').collect();
    engine.pubsub.limit = OutputLimit {
        hard_bytes: number(words[9]),
        soft_bytes: number(words[10]),
        soft_seconds: number(words[11]),
    };
}

fn apply_eviction(engine: &mut Engine, _: &str) {
    engine.set_eviction();
}

/// A number of bytes, as Redis reads it: `100mb` is 100 · 2²⁰, `100m` 100 · 10⁶.
fn memory(text: &str) -> Option<u64> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let unit = match text[digits..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(unit)
}

/// What settings are now.
pub(crate) struct Settings {
    by_name: HashMap<&'static str, usize, foldhash::fast::RandomState>,
    values: Vec<String>,
}

impl Default for Settings {
    fn default() -> Settings {
        let mut by_name: HashMap<&'static str, usize, foldhash::fast::RandomState> =
            SETTINGS.iter().enumerate().map(|(at, setting)| (setting.name, at)).collect();
        for (alias, name) in ALIASES {
            let at = by_name[name];
            by_name.insert(alias, at);
        }
        let values = SETTINGS.iter().map(|setting| setting.default.to_owned()).collect();
        Settings { by_name, values }
    }
}

impl Settings {
    /// The number of a setting.
    pub(crate) fn find(&self, name: &[u8]) -> Option<usize> {
        let name = std::str::from_utf8(name).ok()?.to_ascii_lowercase();
        self.by_name.get(name.as_str()).copied()
    }

    /// All names, aliases among them, with what they are.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let value = |(name, at): (&&'static str, &usize)| (*name, self.values[*at].as_str());
        self.by_name.iter().map(value)
    }

    /// What a setting is.
    ///
    /// # Panics
    /// There is none of this name.
    pub(crate) fn get(&self, name: &str) -> &str {
        &self.values[self.by_name[name]]
    }

    /// What a setting would be kept as, or why it may not be that.
    pub(crate) fn check(&self, at: usize, value: &[u8]) -> Result<String, String> {
        let setting = &SETTINGS[at];
        let text = std::str::from_utf8(value).map_err(|_| "argument must be text".to_owned())?;
        match setting.kind {
            Kind::Flag => match text.to_ascii_lowercase().as_str() {
                word @ ("yes" | "no") => Ok(word.to_owned()),
                _ => Err("argument must be 'yes' or 'no'".to_owned()),
            },
            Kind::Number(min, max) => {
                let parsed = text.parse::<i64>();
                let number = parsed.map_err(|_| "argument couldn't be parsed into an integer")?;
                match (min..=max).contains(&number) {
                    true => Ok(number.to_string()),
                    false => Err(format!("argument must be between {min} and {max} inclusive")),
                }
            }
            Kind::Bytes(min, max) => {
                let bytes = memory(text).ok_or("argument must be a memory value")?;
                match (min..=max).contains(&bytes) {
                    true => Ok(bytes.to_string()),
                    false => Err(format!("argument must be between {min} and {max} inclusive")),
                }
            }
            Kind::Choice(words) => {
                let word = words.iter().find(|word| text.eq_ignore_ascii_case(word));
                let all = words.join(", ");
                let wrong = || format!("argument(s) must be one of the following: {all}");
                word.map(|word| (*word).to_owned()).ok_or_else(wrong)
            }
            Kind::Text => Ok(text.to_owned()),
            Kind::Own(check) => check(text, &self.values[at]).map_err(str::to_owned),
        }
    }

    pub(crate) fn is_fixed(&self, at: usize) -> bool {
        SETTINGS[at].fixed
    }
}

impl Engine {
    /// Gives a setting a value that was checked.
    pub(crate) fn put_setting(&mut self, at: usize, value: &str) {
        value.clone_into(&mut self.settings.values[at]);
        (SETTINGS[at].apply)(self, value);
    }

    /// Gives a setting a value as an operator's file has it, those among them that a client cannot
    /// change.
    ///
    /// # Errors
    /// Why it may not be that.
    pub fn configure(&mut self, name: &str, value: &str) -> Result<(), String> {
        let at = self.settings.find(name.as_bytes());
        let at = at.ok_or_else(|| format!("there is no setting {name}"))?;
        let value = self.settings.check(at, value.as_bytes())?;
        self.put_setting(at, &value);
        Ok(())
    }

    /// What a setting is, as CONFIG GET tells it: for whoever owns the connections, whose limits
    /// are among them.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.find(name.as_bytes()).map(|at| self.settings.values[at].as_str())
    }

    /// Keeps in the log all settings that are not as they are by default.
    pub(crate) fn keep_settings(&mut self) {
        for (at, setting) in SETTINGS.iter().enumerate() {
            if setting.fixed || setting.name == "requirepass" {
                continue;
            }
            let name = format!("config:{}", setting.name);
            let value = self.settings.values[at].clone();
            let kept = self.keys.meta(name.as_bytes());
            if value == setting.default && kept.is_some() {
                self.keys.set_meta(name.as_bytes(), b"");
            } else if value != setting.default && kept != Some(value.as_bytes()) {
                self.keys.set_meta(name.as_bytes(), value.as_bytes());
            }
        }
    }

    /// Takes the settings that the log has.
    pub(crate) fn restore_settings(&mut self) {
        let kept: Vec<(Vec<u8>, Vec<u8>)> = self
            .keys
            .metas(b"config:")
            .map(|(name, value)| (name[b"config:".len()..].to_vec(), value.to_vec()))
            .collect();
        for (name, value) in kept {
            let Some(at) = self.settings.find(&name) else { continue };
            if let Ok(value) = self.settings.check(at, &value) {
                self.put_setting(at, &value);
            }
        }
    }
}
