//! What a core looks after twice a second: whoever takes nothing, whatever waits for a timer that
//! could not be armed, the wall clock, and the levels that `/metrics` shows.

use std::time::Duration;

use sextant_mqtt::ReasonCode;
use tracing::warn;

use super::{Broker, Context, timer};
use crate::meters::Closed;

impl Broker {
    pub(super) fn tick(&mut self, cx: &mut Context) {
        const TICK: Duration = Duration::from_millis(500);
        let _ = cx.arm(cx.now() + TICK, timer::key(timer::TICK, 0));
        self.cut_slow_clients(cx);
        self.give_up_on_peers();
        self.keep_hand_going(cx);
        self.let_in(cx);
        self.let_publish(cx);
        self.throttle.sweep(cx.now());
        self.sweep_traces();
        self.sweep_top(cx.now());
        self.send_away(cx);
        self.arm_wills(cx);
        self.look_at_the_wall_clock(cx);
        self.shed_scratch(cx);
        self.postponed_full = false;
        self.meters.take_stats(cx.stats());
        let names = self.meters.names;
        let (mut stored, mut live, mut segments) = (0, 0, 0);
        for segment in self.store.log.segments() {
            stored += segment.stored_bytes;
            live += segment.live_bytes;
            segments += 1;
        }
        let [tls_connections, tls_handshakes, tls_bytes] = self.secured.levels();
        let levels = [
            (names.tls_connections, tls_connections as i64),
            (names.tls_handshakes, tls_handshakes as i64),
            (names.tls_bytes, tls_bytes as i64),
            (names.connections, cx.connections() as i64),
            (names.connects_waiting, self.admission.len() as i64),
            (names.throttled, self.throttle.len() as i64),
            (names.sessions, self.sessions.len() as i64),
            (names.subscriptions, self.subscriptions as i64),
            (names.retained, self.retained.len() as i64),
            (names.held, self.store.held() as i64),
            (names.log_bytes, self.store.log.file_bytes() as i64),
            (names.log_live_bytes, live as i64),
            (names.log_segments, segments),
            (names.log_read_only, i64::from(self.store.log.read_only().is_some())),
        ];
        for (gauge, level) in levels {
            self.meters.core.set(gauge, level);
        }
        self.consider_compaction(stored, live);
    }

    /// Gives back what a fan-out to very many left of memory to work in, some 60 bytes for each.
    fn shed_scratch(&mut self, cx: &mut Context) {
        const KEPT: usize = 16 * 1024;
        if self.matches.capacity() > KEPT {
            self.receivers_change(cx);
            self.matches = Vec::new();
            self.burst.shed();
        }
    }

    /// Messages expire by the wall clock, and their timers wait on the monotonic one: when the
    /// former leaps forward, they wait anew. (When it leaps back, a timer that fires is right.)
    fn look_at_the_wall_clock(&mut self, cx: &mut Context) {
        /// Less than that is drift, or a clock that is being slewed.
        const LEAP_MS: i64 = 1000;
        let clock = cx.clock();
        let ahead_ms = clock.unix_ms as i64 - clock.now.as_millis() as i64;
        let before = *self.wall_ahead_ms.get_or_insert(ahead_ms);
        if ahead_ms < before {
            self.wall_ahead_ms = Some(ahead_ms);
        } else if ahead_ms >= before + LEAP_MS {
            self.wall_ahead_ms = Some(ahead_ms);
            warn!(by_ms = ahead_ms - before, "the wall clock was set forward");
            for held in self.store.all_held() {
                if let Some(timer) = held.timer.take() {
                    cx.disarm(timer);
                    self.arm_held(cx, &held);
                }
                self.store.release(held);
            }
        }
    }

    fn cut_slow_clients(&mut self, cx: &mut Context) {
        let (now, limit) = (cx.now(), self.settings.slow_client_timeout);
        let mut blocked = std::mem::take(&mut self.blocked);
        // One that took something, and then nothing again, is there twice.
        blocked.sort_unstable();
        blocked.dedup();
        for conn in blocked {
            let held = self.conn(conn).and_then(|held| held.busy.as_ref());
            match held.and_then(|busy| busy.blocked) {
                Some(since) if now.since(since) >= limit => {
                    warn!(conn = conn.index(), "a client takes nothing: disconnected");
                    self.disconnect(cx, conn, ReasonCode::QuotaExceeded, Closed::Slow);
                }
                Some(_) => self.blocked.push(conn),
                None => {}
            }
        }
    }
}
