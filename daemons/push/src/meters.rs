//! What the daemon counts, for `/metrics`.

use sextant_service::metrics::{Builder, CoreMetrics, Counter, Gauge, Latency};

/// The names of all numbers. Copied to every core.
#[derive(Clone, Copy)]
pub struct Names {
    pub(crate) accepted: Counter,
    pub(crate) refused: Counter,
    pub(crate) connections: Gauge,
    pub(crate) sessions: Gauge,
    pub(crate) subscriptions: Gauge,
    pub(crate) retained: Gauge,
    pub(crate) held: Gauge,
    pub(crate) published: [Counter; 3],
    pub(crate) delivered: [Counter; 3],
    pub(crate) dropped: [Counter; 7],
    pub(crate) closed: [Counter; 13],
    pub(crate) connect_refused: [Counter; 8],
    pub(crate) connects_waiting: Gauge,
    pub(crate) connects_delayed: Counter,
    pub(crate) throttled: Gauge,
    pub(crate) throttled_for: Latency,
    pub(crate) publish_refused: [Counter; 3],
    pub(crate) handshakes: [Counter; 2],
    pub(crate) handshakes_failed: [Counter; 7],
    pub(crate) tls_connections: Gauge,
    pub(crate) tls_handshakes: Gauge,
    pub(crate) tls_bytes: Gauge,
    pub(crate) pushes: Counter,
    pub(crate) received_bytes: Counter,
    pub(crate) sent_bytes: Counter,
    pub(crate) sends: Counter,
    pub(crate) turns: Counter,
    pub(crate) starved: Counter,
    pub(crate) log_bytes: Gauge,
    pub(crate) log_live_bytes: Gauge,
    pub(crate) log_segments: Gauge,
    pub(crate) log_read_only: Gauge,
    pub(crate) acknowledged: Latency,
}

/// Why a message did not reach a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// QoS 0, and the client does not take what waits for it.
    SlowClient = 0,
    /// Its queue is full.
    QueueFull = 1,
    /// Its time ran out.
    Expired = 2,
    /// It is larger than the client takes.
    TooLarge = 3,
    /// The client refused it.
    Refused = 4,
    /// Its session ended.
    SessionEnded = 5,
    /// It cannot be read back from the disk.
    Unreadable = 6,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    Disconnected = 0,
    ByPeer = 1,
    Failed = 2,
    KeepAlive = 3,
    ConnectTimeout = 4,
    Malformed = 5,
    Protocol = 6,
    TooLarge = 7,
    Slow = 8,
    Server = 9,
    Kicked = 10,
    Expired = 11,
    /// Sent to another server.
    Redirected = 12,
}

impl Closed {
    /// As they are written, in their order.
    const NAMES: [&str; 13] = [
        "disconnected",
        "peer_closed",
        "failed",
        "keep_alive",
        "connect_timeout",
        "malformed",
        "protocol",
        "too_large",
        "slow",
        "server",
        "kicked",
        "expired",
        "redirected",
    ];

    /// As it is written.
    pub(crate) fn name(self) -> &'static str {
        Closed::NAMES[self as usize]
    }
}

/// Why a CONNECT was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectRefused {
    Credentials = 0,
    NotAuthorized = 1,
    Invalid = 2,
    Busy = 3,
    Unavailable = 4,
    Banned = 5,
    /// Too many came at once.
    Rate = 6,
    /// Sent to another server.
    Redirected = 7,
}

/// Why a TLS handshake was not completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandshakeFailed {
    /// The client's certificate is missing, or not accepted.
    Certificate = 0,
    /// The client said that it does not go on; often it does not trust our certificate.
    ByPeer = 1,
    /// There is no version, cipher or protocol that both have.
    Incompatible = 2,
    /// What came is no handshake.
    Protocol = 3,
    /// The connection ended before.
    Unfinished = 4,
    /// As many as may be were under way.
    Busy = 5,
    /// It did not begin with one, and should.
    NotSecure = 6,
}

/// Why a PUBLISH was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PublishRefused {
    NotAuthorized = 0,
    NoRoom = 1,
    Unavailable = 2,
}

impl Names {
    /// Declares everything.
    pub fn declare(builder: &mut Builder) -> Names {
        let qos = ["0", "1", "2"];
        Names {
            accepted: builder
                .counter("sextant_push_connections_accepted_total", "Connections accepted."),
            refused: builder.counter(
                "sextant_push_connections_refused_total",
                "Connections closed on arrival: as many as allowed were open.",
            ),
            connections: builder.gauge("sextant_push_connections", "Connections open."),
            sessions: builder
                .gauge("sextant_push_sessions", "Sessions, those without a connection included."),
            subscriptions: builder.gauge("sextant_push_subscriptions", "Subscriptions."),
            retained: builder.gauge("sextant_push_retained_messages", "Retained messages."),
            held: builder.gauge(
                "sextant_push_held_messages",
                "Messages on disk that somebody has yet to get.",
            ),
            published: builder.counters(
                "sextant_push_messages_received_total",
                "PUBLISH packets received.",
                "qos",
                qos,
            ),
            delivered: builder.counters(
                "sextant_push_messages_sent_total",
                "PUBLISH packets sent.",
                "qos",
                qos,
            ),
            dropped: builder.counters(
                "sextant_push_messages_dropped_total",
                "Messages that did not reach a session.",
                "reason",
                [
                    "slow_client",
                    "queue_full",
                    "expired",
                    "too_large",
                    "refused",
                    "session_ended",
                    "unreadable",
                ],
            ),
            closed: builder.counters(
                "sextant_push_connections_closed_total",
                "Connections that ended.",
                "reason",
                Closed::NAMES,
            ),
            connect_refused: builder.counters(
                "sextant_push_connects_refused_total",
                "CONNECT packets refused.",
                "reason",
                [
                    "credentials",
                    "not_authorized",
                    "invalid",
                    "busy",
                    "unavailable",
                    "banned",
                    "rate",
                    "redirected",
                ],
            ),
            connects_waiting: builder.gauge(
                "sextant_push_connects_waiting",
                "CONNECT packets that wait for their turn to be let in.",
            ),
            connects_delayed: builder.counter(
                "sextant_push_connects_delayed_total",
                "CONNECT packets that had to wait for their turn, and were let in.",
            ),
            throttled: builder.gauge(
                "sextant_push_throttled_clients",
                "Clients that are not read from for a while, since they publish too fast.",
            ),
            throttled_for: builder.latency(
                "sextant_push_throttled_seconds",
                "How long a client that published too fast was not read from.",
            ),
            publish_refused: builder.counters(
                "sextant_push_publishes_refused_total",
                "PUBLISH packets refused.",
                "reason",
                ["not_authorized", "no_room", "unavailable"],
            ),
            handshakes: builder.counters(
                "sextant_push_tls_handshakes_total",
                "TLS handshakes completed.",
                "kind",
                ["full", "resumed"],
            ),
            handshakes_failed: builder.counters(
                "sextant_push_tls_handshakes_failed_total",
                "TLS handshakes not completed.",
                "reason",
                [
                    "certificate",
                    "peer",
                    "incompatible",
                    "protocol",
                    "unfinished",
                    "busy",
                    "not_tls",
                ],
            ),
            tls_connections: builder
                .gauge("sextant_push_tls_connections", "Connections open that speak TLS."),
            tls_handshakes: builder
                .gauge("sextant_push_tls_handshakes", "TLS handshakes under way."),
            tls_bytes: builder.gauge(
                "sextant_push_tls_bytes",
                "Bytes of memory that connections take for their TLS.",
            ),
            pushes: builder.counter("sextant_push_pushes_total", "Messages pushed over HTTP."),
            received_bytes: builder
                .counter("sextant_push_received_bytes_total", "Bytes received from clients."),
            sent_bytes: builder.counter("sextant_push_sent_bytes_total", "Bytes sent to clients."),
            sends: builder.counter("sextant_push_sends_total", "Send operations."),
            turns: builder.counter("sextant_push_turns_total", "Turns of the cores' loops."),
            starved: builder.counter(
                "sextant_push_receive_starved_total",
                "Times that a pool of receive buffers was found empty.",
            ),
            log_bytes: builder.gauge("sextant_push_log_bytes", "Bytes of the log's files."),
            log_live_bytes: builder.gauge(
                "sextant_push_log_live_bytes",
                "Bytes of records in the log that are still needed.",
            ),
            log_segments: builder.gauge("sextant_push_log_segments", "Segments of the log."),
            log_read_only: builder
                .gauge("sextant_push_log_read_only", "Cores whose log takes no more appends."),
            acknowledged: builder.latency(
                "sextant_push_acknowledged_seconds",
                "From a QoS 1 or 2 PUBLISH, or a push, to its acknowledgement.",
            ),
        }
    }
}

/// One core's hand on the numbers.
pub(crate) struct Meters {
    pub(crate) names: Names,
    pub(crate) core: CoreMetrics,
    seen: sextant_ring::core::Stats,
}

impl Meters {
    pub(crate) fn new(names: Names, core: CoreMetrics) -> Meters {
        Meters { names, core, seen: sextant_ring::core::Stats::default() }
    }

    pub(crate) fn dropped(&self, why: Dropped) {
        self.dropped_many(why, 1);
    }

    pub(crate) fn dropped_many(&self, why: Dropped, messages: u64) {
        self.core.add(self.names.dropped[why as usize], messages);
    }

    pub(crate) fn closed(&self, why: Closed) {
        self.core.inc(self.names.closed[why as usize]);
    }

    pub(crate) fn connect_refused(&self, why: ConnectRefused) {
        self.core.inc(self.names.connect_refused[why as usize]);
    }

    /// CONNECT packets refused since too many came at once.
    pub(crate) fn storm_refused(&self) -> u64 {
        self.core.read(self.names.connect_refused[ConnectRefused::Rate as usize])
    }

    pub(crate) fn publish_refused(&self, why: PublishRefused) {
        self.core.inc(self.names.publish_refused[why as usize]);
    }

    /// Takes over what the ring counted since the last time.
    pub(crate) fn take_stats(&mut self, now: sextant_ring::core::Stats) {
        let seen = std::mem::replace(&mut self.seen, now);
        let names = self.names;
        for (counter, now, seen) in [
            (names.accepted, now.accepted, seen.accepted),
            (names.refused, now.refused, seen.refused),
            (names.received_bytes, now.received_bytes, seen.received_bytes),
            (names.sent_bytes, now.sent_bytes, seen.sent_bytes),
            (names.sends, now.sends, seen.sends),
            (names.turns, now.turns, seen.turns),
            (names.starved, now.starved, seen.starved),
        ] {
            self.core.add(counter, now - seen);
        }
    }
}
