//! The daemon's settings: every key that exists, its default, and which values go together.
//!
//! [`Config`] is what `--print-config` shows. What the parts of the daemon want to know is derived
//! here and nowhere else, so that a checked configuration never fails later:
//! [`server_limits`](Config::server_limits) for the protocol, [`log_options`](Config::log_options)
//! for the log of one core, [`cores`](Config::cores) for their number. What the rules and hashes
//! of `[auth]` mean is the affair of [`auth`](crate::auth).

mod auth;
mod limits;
mod platform;
mod presence;
mod url;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sextant_cores::layout::{self, CORES_MAX};
use sextant_mqtt::ServerLimits;
use sextant_segment::{Options, stored_bytes};
use sextant_service::config::{Bytes, Faults, Secret, Span};
use sextant_service::{admin, telemetry};

pub use sextant_cores::driver::Driver;
pub use sextant_service::config::Durability;

pub use self::auth::{Http, Jwt, OnFailure};
pub use self::limits::Limits;
pub use self::platform::Platform;
pub use self::presence::{Presence, Webhook};
pub use self::url::Url;
use crate::api::ANSWER_MAX;
use crate::auth::hasher::check_hash;
use crate::auth::rules::Rule;
use crate::auth::scram::Verifier;
use crate::tls::{Endpoint, TlsError};

/// The admin port where none is configured.
pub const ADMIN_PORT: u16 = 7701;
/// The longest user name, in bytes.
pub const USER_NAME_BYTES_MAX: usize = 256;

/// What a stored message takes besides its packet, at most: who it is for, and when. In bytes.
const RECORD_OVERHEAD_BYTES: u64 = 64 << 10;
/// What a segment takes besides its records, in bytes; the log's own check knows exactly.
const SEGMENT_OVERHEAD_BYTES: u64 = 4096;
/// The first segment of a log, unless records or the quota ask for another size; in bytes.
const SEGMENT_BYTES_FIRST: u64 = 4 << 20;
const BACKLOG_BYTES_MIN: u32 = 8 << 20;
/// How long what nobody waits for stays in memory: a crash takes back what happened in it, so that
/// what was acknowledged then comes again.
const LINGER: Duration = Duration::from_millis(20);
/// Certificates besides the first.
const CERTIFICATES_MAX: usize = 1000;

/// The settings of `sextant-push`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The directory of log, token and key.
    pub data: PathBuf,
    /// Threads that serve devices; 0 is one per CPU.
    pub cores: u16,
    /// What the cores ask the kernel through.
    pub driver: Driver,
    /// Logs.
    pub telemetry: telemetry::Settings,
    /// The admin port and the HTTP API on it.
    pub admin: admin::Settings,
    /// What devices are offered.
    pub mqtt: Mqtt,
    /// What is kept on disk.
    pub log: Log,
    /// Who may connect, and what they may do.
    pub auth: Auth,
    /// How fast clients may come.
    pub limits: Limits,
    /// What TLS is served with.
    pub tls: Tls,
    /// Who is told of clients that come and go.
    pub presence: Presence,
    /// Whom senders send to, by which rules.
    pub platform: Platform,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            data: PathBuf::from("./data/push"),
            cores: 0,
            driver: Driver::default(),
            telemetry: telemetry::Settings::default(),
            // A payload of 1 MiB takes 1.4 MiB in base64.
            admin: admin::Settings {
                body_bytes_max: Bytes::mib(2),
                ..admin::Settings::on(ADMIN_PORT)
            },
            mqtt: Mqtt::default(),
            log: Log::default(),
            auth: Auth::default(),
            limits: Limits::default(),
            tls: Tls::default(),
            presence: Presence::default(),
            platform: Platform::default(),
        }
    }
}

/// The settings under `[mqtt]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mqtt {
    /// Where devices connect to, over TCP or, if `websocket` says so, WebSocket, and either within
    /// TLS, if there is a certificate: a connection's first bytes tell which.
    pub listen: Vec<SocketAddr>,
    /// As `listen`, for TLS alone; by convention port 8883.
    pub tls_listen: Vec<SocketAddr>,
    /// As `listen`, but behind a proxy: each connection begins with a header of the PROXY protocol,
    /// version 2, and its address is what that says. Whoever reaches such a port past its proxy may
    /// say any address.
    pub proxy_listen: Vec<SocketAddr>,
    /// Whether WebSocket is served, at `/mqtt`.
    pub websocket: bool,
    /// The origins whose pages may use it, such as `https://example.org`; `*` is any. Without one,
    /// those on loopback. A client that is no browser names no origin, and may.
    pub websocket_origins: Vec<String>,
    /// Connections at once, all cores together.
    pub connections_max: u32,
    /// From the first byte to the CONNACK.
    pub connect_timeout: Span,
    /// The largest packet, its header included.
    pub packet_bytes_max: Bytes,
    /// QoS 1 and 2 publishes in flight from one client.
    pub receive_max: u16,
    /// QoS 1 and 2 publishes in flight to one client.
    pub inflight_max: u16,
    /// Topic aliases that a client may use.
    pub topic_alias_max: u16,
    /// Topic aliases that are used towards clients which take them: a core numbers the topics that
    /// are published again and again, at most as many; 0 uses none.
    pub outgoing_topic_alias_max: u16,
    /// The longest keep-alive, in whole seconds; 0 leaves it to the client.
    pub keep_alive_max: Span,
    /// Whether a subscription that is refused is told why: 0x87 if it is not allowed, 0x97 if there
    /// are too many. Otherwise, and always in MQTT 3.1.1, the answer is 0x80.
    pub suback_reasons: bool,
    /// How long a session may outlive its connection, in whole seconds.
    pub session_expiry_max: Span,
    /// How long after a start the wills of clients that were connected, or whose will waited, when
    /// the daemon ended wait for them to come back.
    pub will_grace: Span,
    /// How often what has changed on the broker's own topics, `$SYS/#`, is told; 0 is never.
    pub sys_interval: Span,
    /// Bytes that wait for a client's socket. Past them QoS 1 and 2 stay in the session's queue;
    /// QoS 0 waits in one of as many bytes again, and when that is full the oldest is dropped.
    pub send_queue_bytes_max: Bytes,
    /// QoS 0 messages in that queue.
    pub send_queue_messages_max: u32,
    /// A client that takes no byte for this long while some wait for it is disconnected.
    pub slow_client_timeout: Span,
    /// QoS 1 and 2 messages that wait for one session.
    pub queue_messages_max: u32,
    /// The bytes of those messages.
    pub queue_bytes_max: Bytes,
    /// Retained messages of all cores together; 0 keeps none.
    pub retained_bytes_max: Bytes,
    /// Messages that wait for one device that has no session yet.
    pub device_waiting_max: u32,
    /// Receipts of pushed messages that are kept, all cores together.
    pub receipts_max: u32,
    /// Messages that one core may have under way to another.
    pub mesh_capacity: u32,
}

impl Default for Mqtt {
    fn default() -> Self {
        Mqtt {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 1883))],
            tls_listen: Vec::new(),
            proxy_listen: Vec::new(),
            websocket: true,
            websocket_origins: Vec::new(),
            connections_max: 10_000,
            connect_timeout: Span::secs(10),
            packet_bytes_max: Bytes::mib(1),
            receive_max: 64,
            inflight_max: 64,
            topic_alias_max: 16,
            outgoing_topic_alias_max: 16,
            keep_alive_max: Span::mins(20),
            suback_reasons: true,
            session_expiry_max: Span::days(7),
            will_grace: Span::secs(30),
            sys_interval: Span::secs(10),
            send_queue_bytes_max: Bytes::mib(1),
            send_queue_messages_max: 1000,
            slow_client_timeout: Span::secs(30),
            queue_messages_max: 10_000,
            queue_bytes_max: Bytes::mib(64),
            retained_bytes_max: Bytes::mib(64),
            device_waiting_max: 1000,
            receipts_max: 100_000,
            mesh_capacity: 4096,
        }
    }
}

/// The settings under `[log]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// When a message counts as kept. What each promises is said at
    /// [`sextant_segment::Durability`].
    pub durability: Durability,
    /// All segments of all cores together.
    pub bytes_max: Bytes,
    /// The largest segment.
    pub segment_bytes_max: Bytes,
}

impl Default for Log {
    fn default() -> Self {
        Log {
            durability: Durability::Always,
            bytes_max: Bytes::gib(8),
            segment_bytes_max: Bytes::mib(64),
        }
    }
}

/// What a setting is to a log.
fn of_log(durability: Durability) -> sextant_segment::Durability {
    match durability {
        Durability::Always => sextant_segment::Durability::Always,
        Durability::Every(span) => sextant_segment::Durability::Every(span.get()),
        Durability::Os => sextant_segment::Durability::Os,
    }
}

/// The settings under `[auth]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Auth {
    /// Whether a client needs no name; see [`Auth::allows_anonymous`].
    pub anonymous: Option<bool>,
    /// What every device may do besides `all d/{client}/#`.
    pub device_allow: Vec<String>,
    /// Who may connect with a password.
    pub users: Vec<User>,
    /// Who may connect with a token that others sign.
    pub jwt: Jwt,
    /// Who is asked of all others.
    pub http: Http,
}

impl Auth {
    /// Whether a client may connect without a name and do anything: what is configured, else yes
    /// if nobody is known by a name.
    pub fn allows_anonymous(&self) -> bool {
        let nobody =
            self.users.is_empty() && !self.jwt.is_configured() && !self.http.is_configured();
        self.anonymous.unwrap_or(nobody)
    }
}

/// One of `[[auth.users]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The user name of its CONNECT.
    pub name: String,
    /// The argon2id hash of its password, as a PHC string; empty if it has none.
    #[serde(default)]
    pub password: Secret,
    /// What it proves by SCRAM-SHA-256 (enhanced authentication of MQTT 5) that it knows, as
    /// PostgreSQL writes it; empty if it does not.
    #[serde(default)]
    pub scram: Secret,
    /// What it may do, as [`Rule`]s.
    #[serde(default)]
    pub allow: Vec<String>,
}

/// The settings under `[tls]`. All of them are read anew at a reload, and the files that they name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// The certificate and those that lead to its root, in PEM. With it TLS is served wherever
    /// MQTT is.
    pub certificate: Option<PathBuf>,
    /// Its private key, in PEM.
    pub key: Option<PathBuf>,
    /// Further certificates: a client that asks for a name (SNI) that is in one of them, as it is
    /// or by a wildcard, is shown that one. Any other is shown the first of all.
    pub certificates: Vec<CertificateAndKey>,
    /// Whether nothing but TLS is served, on any listener.
    pub required: bool,
    /// Who issues clients' certificates: one certificate or several, in PEM.
    pub client_ca: Option<PathBuf>,
    /// Whether clients are asked for certificates.
    pub client_certificate: ClientCertificate,
    /// Which of them are revoked: a list of each issuer, in PEM.
    pub client_crl: Option<PathBuf>,
    /// Where a client's certificate names its device.
    pub identity: Identity,
    /// Handshakes that one core may have under way.
    pub handshakes_max: u32,
}

/// One of `[[tls.certificates]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateAndKey {
    /// As `tls.certificate`. It has a DNS name among its alternative names, which no other has.
    pub certificate: PathBuf,
    /// As `tls.key`.
    pub key: PathBuf,
}

impl Tls {
    /// Whether there is a certificate, so that TLS is served.
    pub fn is_configured(&self) -> bool {
        self.certificate.is_some() || !self.certificates.is_empty()
    }
}

impl Default for Tls {
    fn default() -> Self {
        Tls {
            certificate: None,
            key: None,
            certificates: Vec::new(),
            required: false,
            client_ca: None,
            client_certificate: ClientCertificate::default(),
            client_crl: None,
            identity: Identity::default(),
            handshakes_max: 1000,
        }
    }
}

/// Whether clients are asked for certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificate {
    /// They are not.
    #[default]
    None,
    /// They are, and one without may say by name and password who it is.
    Optional,
    /// One without is not served.
    Required,
}

/// Where a client's certificate names its device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Identity {
    /// The common name of its subject.
    #[default]
    Cn,
    /// The first DNS name among its alternative names.
    SanDns,
    /// The first URI among them.
    SanUri,
}

impl Config {
    /// The number of cores: what is configured, else one per CPU that this process may use.
    pub fn cores(&self) -> usize {
        layout::cores(self.cores)
    }

    /// The limits of the protocol.
    ///
    /// # Panics
    /// If the configuration was not checked.
    pub fn server_limits(&self) -> ServerLimits {
        let mqtt = &self.mqtt;
        let packet_bytes_max = u32::try_from(mqtt.packet_bytes_max.get()).ok();
        let limits = packet_bytes_max
            .and_then(NonZeroU32::new)
            .zip(NonZeroU16::new(mqtt.receive_max))
            .zip(whole_secs::<u16>(mqtt.keep_alive_max))
            .zip(whole_secs::<u32>(mqtt.session_expiry_max));
        let Some((((packet_bytes_max, receive_max), keep_alive_max_s), session_expiry_max_s)) =
            limits
        else {
            panic!("the configuration was not checked");
        };
        ServerLimits {
            connect_timeout_ms: millis(mqtt.connect_timeout),
            packet_bytes_max,
            receive_max,
            inbound_alias_max: mqtt.topic_alias_max,
            outbound_alias_max: mqtt.outgoing_topic_alias_max,
            keep_alive_max_s,
            session_expiry_max_s,
            ..ServerLimits::default()
        }
    }

    /// The limits of the log of one core out of `cores`, whose identity is `id` if it is new. The
    /// quota is split evenly. A segment holds at least the largest message.
    pub fn log_options(&self, cores: usize, id: u64, ticket_space: u16) -> Options {
        assert!(cores > 0, "there is a core");
        let bytes_max = self.log.bytes_max.get() / cores as u64;
        let record_bytes_max = u32_saturating(self.record_bytes_max());
        // Small where the quota is small: a log has four segments.
        let first = SEGMENT_BYTES_FIRST.min(bytes_max / 4).min(self.log.segment_bytes_max.get());
        let first = (first / 4096 * 4096).max(self.segment_bytes_needed());
        let longest = stored_bytes(record_bytes_max as usize);
        Options {
            segment_bytes_min: u32_saturating(first),
            segment_bytes_max: u32_saturating(self.log.segment_bytes_max.get() / 4096 * 4096),
            bytes_max,
            record_bytes_max,
            backlog_bytes_max: longest.saturating_mul(4).saturating_add(128).max(BACKLOG_BYTES_MIN),
            durability: of_log(self.log.durability),
            linger: LINGER,
            ..Options::new(id, ticket_space)
        }
    }

    /// The longest record of the log: a message of the largest packet.
    fn record_bytes_max(&self) -> u64 {
        self.mqtt.packet_bytes_max.get().saturating_add(RECORD_OVERHEAD_BYTES)
    }

    /// The smallest segment that such a record fits in, a multiple of 4096.
    fn segment_bytes_needed(&self) -> u64 {
        let all = self.record_bytes_max().saturating_add(SEGMENT_OVERHEAD_BYTES);
        all.checked_next_multiple_of(4096).unwrap_or(u64::MAX / 4096 * 4096)
    }

    fn check_mqtt(&self, faults: &mut Faults<'_>) {
        let mqtt = &self.mqtt;
        let counts = [
            ("mqtt.connections_max", u64::from(mqtt.connections_max), 1, 100_000_000),
            ("mqtt.receive_max", u64::from(mqtt.receive_max), 1, 65_535),
            (
                "mqtt.inflight_max",
                u64::from(mqtt.inflight_max),
                1,
                sextant_mqtt::INFLIGHT_MAX as u64,
            ),
            ("mqtt.queue_messages_max", u64::from(mqtt.queue_messages_max), 1, 10_000_000),
            (
                "mqtt.send_queue_messages_max",
                u64::from(mqtt.send_queue_messages_max),
                1,
                10_000_000,
            ),
            ("mqtt.device_waiting_max", u64::from(mqtt.device_waiting_max), 1, 1_000_000),
            ("mqtt.receipts_max", u64::from(mqtt.receipts_max), 1, 100_000_000),
            ("mqtt.outgoing_topic_alias_max", u64::from(mqtt.outgoing_topic_alias_max), 0, 64),
            ("mqtt.mesh_capacity", u64::from(mqtt.mesh_capacity), 16, 1 << 20),
        ];
        for (key, value, min, max) in counts {
            faults.require(
                key,
                (min..=max).contains(&value),
                format_args!("must be {min} to {max}"),
            );
        }
        let packet = mqtt.packet_bytes_max;
        let amounts = [
            ("mqtt.packet_bytes_max", packet, Bytes::kib(1), Bytes::mib(256)),
            ("mqtt.send_queue_bytes_max", mqtt.send_queue_bytes_max, Bytes::kib(1), Bytes::gib(1)),
            ("mqtt.queue_bytes_max", mqtt.queue_bytes_max, Bytes::kib(1), Bytes::gib(1024)),
            ("mqtt.retained_bytes_max", mqtt.retained_bytes_max, Bytes::new(0), Bytes::gib(1024)),
        ];
        for (key, value, min, max) in amounts {
            faults.require(
                key,
                (min..=max).contains(&value),
                format_args!("must be {min} to {max}"),
            );
        }
        for (key, value) in [
            ("mqtt.send_queue_bytes_max", mqtt.send_queue_bytes_max),
            ("mqtt.queue_bytes_max", mqtt.queue_bytes_max),
        ] {
            faults.require(
                key,
                value >= packet,
                format_args!("must hold a packet of mqtt.packet_bytes_max: raise it to {packet}"),
            );
        }
        for (index, origin) in mqtt.websocket_origins.iter().enumerate() {
            faults.require(
                &format!("mqtt.websocket_origins[{index}]"),
                is_origin(origin),
                "must be scheme://host or scheme://host:port without a path, \"null\", or \"*\"",
            );
        }
        let hour = Duration::from_secs(3600);
        for (key, value) in [
            ("mqtt.connect_timeout", mqtt.connect_timeout),
            ("mqtt.slow_client_timeout", mqtt.slow_client_timeout),
        ] {
            let sane = (Duration::from_millis(10)..=hour).contains(&value.get());
            faults.require(key, sane, "must be 10ms to 1h");
        }
        let day = Duration::from_secs(86_400);
        faults.require("mqtt.will_grace", mqtt.will_grace.get() <= day, "must be at most 24h");
        faults.require(
            "mqtt.keep_alive_max",
            whole_secs::<u16>(mqtt.keep_alive_max).is_some(),
            "must be whole seconds, at most 65535s; 0 leaves it to the client",
        );
        let sys = mqtt.sys_interval.get();
        faults.require(
            "mqtt.sys_interval",
            sys.is_zero() || (Duration::from_millis(100)..=hour).contains(&sys),
            "must be 100ms to 1h; 0 is never",
        );
        faults.require(
            "mqtt.session_expiry_max",
            whole_secs::<u32>(mqtt.session_expiry_max).is_some(),
            "must be whole seconds",
        );
    }

    fn check_log(&self, faults: &mut Faults<'_>) {
        let packet = self.mqtt.packet_bytes_max;
        if packet > Bytes::mib(256) || self.cores > CORES_MAX {
            return; // Said already.
        }
        let (cores, needed) = (self.cores(), self.segment_bytes_needed());
        let segment = self.log.segment_bytes_max;
        if segment > Bytes::gib(1) {
            return faults.add("log.segment_bytes_max", "must be 1GiB or less");
        }
        if segment.get() / 4096 * 4096 < needed {
            let what = "must hold a message of mqtt.packet_bytes_max: raise it to";
            return faults
                .add("log.segment_bytes_max", format_args!("{what} {}", Bytes::new(needed)));
        }
        let least = needed.saturating_mul(4 * cores as u64);
        if self.log.bytes_max.get() < least {
            let what = "must hold four segments for each of";
            let least = Bytes::new(least.next_multiple_of(1 << 20));
            return faults
                .add("log.bytes_max", format_args!("{what} {cores} cores: raise it to {least}"));
        }
        if let Err(what) = self.log.durability.check() {
            return faults.add("log.durability", what);
        }
        if let Err(rule) = self.log_options(cores, 0, 0).check() {
            faults.add("log", rule);
        }
    }

    fn check_auth(&self, faults: &mut Faults<'_>) {
        let mut names = HashSet::new();
        for (index, user) in self.auth.users.iter().enumerate() {
            let key = |field: &str| format!("auth.users[{index}].{field}");
            let sized = (1..=USER_NAME_BYTES_MAX).contains(&user.name.len());
            let what = format!("must be 1 to {USER_NAME_BYTES_MAX} bytes");
            faults.require(&key("name"), sized, what);
            let new = names.insert(user.name.as_str());
            faults.require(&key("name"), new, "another user has this name");
            let (password, scram) = (user.password.expose(), user.scram.expose());
            // A user has to have one of them.
            if let (true, Err(error)) =
                (!password.is_empty() || scram.is_empty(), check_hash(password))
            {
                faults.add(&key("password"), error);
            }
            if let (false, Err(error)) = (scram.is_empty(), scram.parse::<Verifier>()) {
                faults.add(&key("scram"), error);
            }
            check_rules(&key("allow"), &user.allow, faults);
        }
        check_rules("auth.device_allow", &self.auth.device_allow, faults);
        self.auth.jwt.check(faults);
        self.auth.http.check(self.mqtt.connect_timeout, faults);
        if !self.auth.allows_anonymous() {
            return;
        }
        let Mqtt { listen, tls_listen, proxy_listen, .. } = &self.mqtt;
        let all = [("listen", listen), ("tls_listen", tls_listen), ("proxy_listen", proxy_listen)];
        let each =
            all.iter().flat_map(|(key, list)| list.iter().enumerate().map(move |at| (key, at)));
        for (key, (index, addr)) in each {
            faults.require(
                &format!("mqtt.{key}[{index}]"),
                is_loopback(addr),
                format_args!(
                    "anybody who reaches {addr} could read and send everything: set \
                     auth.anonymous = false (devices then connect with tokens, others as one of \
                     [[auth.users]]), or listen on 127.0.0.1 alone"
                ),
            );
        }
    }
}

/// Looks into the files, too, so that `--check-config` says what is wrong with them.
fn check_tls(tls: &Tls, listens: bool, faults: &mut Faults<'_>) {
    let handshakes = (1..=1_000_000).contains(&tls.handshakes_max);
    faults.require("tls.handshakes_max", handshakes, "must be 1 to 1000000");
    faults.require(
        "tls.certificates",
        tls.certificates.len() <= CERTIFICATES_MAX,
        format_args!("must be {CERTIFICATES_MAX} or fewer"),
    );
    if !tls.is_configured() {
        faults.require("mqtt.tls_listen", !listens, "needs tls.certificate and tls.key");
        faults.require("tls.required", !tls.required, "needs tls.certificate and tls.key");
    }
    match Endpoint::load(tls) {
        Ok(_) => {}
        Err(error @ TlsError::NoAuthority) => faults.add("tls.client_certificate", error),
        Err(error) => faults.add("tls", error),
    }
}

impl sextant_service::config::Config for Config {
    fn check(&self, faults: &mut Faults<'_>) {
        let cores = format!("must be {CORES_MAX} or less; 0 is one per CPU");
        faults.require("cores", self.cores <= CORES_MAX, cores);
        faults.require("data", !self.data.as_os_str().is_empty(), "must not be empty");
        self.telemetry.check(faults);
        self.admin.check(faults);
        faults.require(
            "admin.request_timeout",
            self.admin.request_timeout.get() > ANSWER_MAX,
            format_args!("must be more than {} s, which a core may take", ANSWER_MAX.as_secs()),
        );
        self.check_mqtt(faults);
        self.check_log(faults);
        self.check_auth(faults);
        self.limits.check(faults);
        check_tls(&self.tls, !self.mqtt.tls_listen.is_empty(), faults);
        self.presence.check(faults);
        self.platform.check(faults);
    }
}

/// Whether only this machine reaches a listener at `addr`.
pub fn is_loopback(addr: &SocketAddr) -> bool {
    addr.ip().to_canonical().is_loopback()
}

/// Whether a browser may send this as a page's origin, or it is the word for any.
fn is_origin(text: &str) -> bool {
    let authority = text.split_once("://").map(|(_, rest)| rest);
    matches!(text, "*" | "null")
        || authority.is_some_and(|rest| !rest.is_empty() && !rest.contains(['/', ' ', ',']))
}

fn check_rules(key: &str, rules: &[String], faults: &mut Faults<'_>) {
    for (index, rule) in rules.iter().enumerate() {
        if let Err(error) = Rule::parse(rule) {
            faults.add(&format!("{key}[{index}]"), error);
        }
    }
}

fn whole_secs<T: TryFrom<u64>>(span: Span) -> Option<T> {
    let whole = span.get().subsec_nanos() == 0;
    whole.then(|| T::try_from(span.get().as_secs()).ok())?
}

fn millis(span: Span) -> u64 {
    u64::try_from(span.get().as_millis()).unwrap_or(u64::MAX)
}

fn u32_saturating(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
