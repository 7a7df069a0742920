//! How fast clients are let in. A storm of CONNECT packets is taken in at the rate of
//! `limits.connects_per_second`; those beyond wait on their home core, in the order in which they
//! came, and cost nothing until it is their turn: no password is looked at before.
//!
//! ```text
//!   CONNECT whole, at home ─► a token left, nobody waits ─────────────► goes on
//!                          ─► its turn comes in time ─► waits ─ turn ─► goes on
//!                          ─► it would not ───────────► CONNACK 0x9F, with the seconds
//! ```
//!
//! A connection that ends while it waits gives its place up, so whoever waits is never later than
//! was reckoned. What a client sends behind its CONNECT is kept once; then it is not read from.

use std::collections::BTreeMap;
use std::time::Duration;

use sextant_mqtt::{AwaitingConnect, Connecting, ReasonCode};
use sextant_ring::core::ConnId;
use sextant_ring::time::Time;

use super::conn::Stage;
use super::gather::Gathered;
use super::rates::{Bucket, Rate};
use super::{Broker, Context, timer};
use crate::config::Limits;
use crate::meters::ConnectRefused;

/// What may come at once, as the time in which it would come at the rate.
const BURST: Duration = Duration::from_secs(1);
/// Bytes of CONNECT packets that wait on one core.
const BYTES_MAX: usize = 32 << 20;

/// One core's part of letting clients in.
pub(super) struct Admission {
    /// `None` is no limit.
    rate: Option<Rate>,
    bucket: Bucket,
    waiting_max: usize,
    wait_max: Duration,
    /// Who waits, by turn, with the bytes of its CONNECT.
    waiting: BTreeMap<u64, (ConnId, usize)>,
    bytes: usize,
    last_turn: u64,
    /// The one whose turn it is.
    called: Option<ConnId>,
    /// The timer for the next turn is armed.
    armed: bool,
}

/// Whether a CONNECT goes on.
pub(super) enum Admitted {
    Now,
    /// It waits.
    Later,
    /// It would have to wait for this long, which is too long.
    Never(Duration),
}

impl Admission {
    pub(super) fn new(limits: &Limits, cores: usize) -> Admission {
        Admission {
            rate: Rate::new(limits.connects_per_second.into(), cores, BURST),
            bucket: Bucket::default(),
            waiting_max: (limits.connects_waiting_max as usize).div_ceil(cores),
            wait_max: limits.connect_wait_max.get(),
            waiting: BTreeMap::new(),
            bytes: 0,
            last_turn: 0,
            called: None,
            armed: false,
        }
    }

    /// Connections that wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Takes a place for a CONNECT of so many bytes, or a token if nobody waits.
    fn enter(&mut self, conn: ConnId, bytes: usize, now: Time) -> Result<Option<u64>, Duration> {
        let Some(rate) = self.rate else { return Ok(None) };
        let next = self.bucket.next(&rate);
        if self.waiting.is_empty() && next <= now {
            self.bucket.take(&rate, 1, now);
            return Ok(None);
        }
        let wait = (next + rate.time(self.waiting.len() as u64)).since(now);
        let has_room = self.waiting.len() < self.waiting_max && self.bytes + bytes <= BYTES_MAX;
        if !has_room || wait > self.wait_max {
            return Err(wait);
        }
        self.last_turn += 1;
        self.bytes += bytes;
        self.waiting.insert(self.last_turn, (conn, bytes));
        Ok(Some(self.last_turn))
    }

    /// Gives a place up.
    pub(super) fn leave(&mut self, turn: u64) {
        let (_, bytes) = self.waiting.remove(&turn).expect("who waits has a place");
        self.bytes -= bytes;
    }

    /// The next one whose turn has come.
    fn call(&mut self, now: Time) -> Option<ConnId> {
        let rate = self.rate.filter(|rate| self.bucket.next(rate) <= now)?;
        let (turn, (conn, _)) =
            self.waiting.first_key_value().map(|(turn, held)| (*turn, *held))?;
        self.bucket.take(&rate, 1, now);
        self.leave(turn);
        Some(conn)
    }
}

impl Broker {
    /// Whether a CONNECT goes on; `bytes` is all that its connection has sent. If it waits, it is
    /// looked at again when its turn has come.
    pub(super) fn admit(&mut self, cx: &mut Context, conn: ConnId, bytes: &[u8]) -> Admitted {
        if self.admission.called == Some(conn) {
            return Admitted::Now;
        }
        let turn = match self.admission.enter(conn, bytes.len(), cx.now()) {
            Ok(None) => return Admitted::Now,
            Ok(Some(turn)) => turn,
            Err(wait) => return Admitted::Never(wait),
        };
        if let Some(held) = self.conn(conn) {
            held.stage = Stage::Waiting { bytes: bytes.to_vec(), turn };
            // It is let in when its turn has come, which is known to be in time.
            if let Some(timer) = held.timer.take() {
                cx.disarm(timer);
            }
        }
        self.arm_admission(cx);
        Admitted::Later
    }

    fn arm_admission(&mut self, cx: &mut Context) {
        let admission = &mut self.admission;
        let Some(rate) = admission.rate else { return };
        if !admission.armed && !admission.waiting.is_empty() {
            // Without a timer left the next tick calls who waits.
            let timer = cx.arm(admission.bucket.next(&rate), timer::key(timer::ADMIT, 0));
            admission.armed = timer.is_some();
        }
    }

    /// The timer for the next turn.
    pub(super) fn admission_timer(&mut self, cx: &mut Context) {
        self.admission.armed = false;
        self.let_in(cx);
    }

    /// Goes on with those whose turn has come.
    pub(super) fn let_in(&mut self, cx: &mut Context) {
        let limits = self.settings.server;
        while let Some(conn) = self.admission.call(cx.now()) {
            let awaiting = AwaitingConnect::new(cx.now().as_millis(), &limits);
            let deadline = awaiting.deadline();
            let Some(held) = self.conn(conn) else { continue };
            let awaiting = Stage::Awaiting { awaiting, gathered: Gathered::default() };
            let Stage::Waiting { bytes, .. } = std::mem::replace(&mut held.stage, awaiting) else {
                unreachable!("who has a place waits")
            };
            self.meters.core.inc(self.meters.names.connects_delayed);
            cx.resume(conn);
            self.arm_conn(cx, conn, deadline);
            self.admission.called = Some(conn);
            self.read_connect(cx, conn, &bytes, None);
            self.admission.called = None;
        }
        self.arm_admission(cx);
    }

    /// Refuses a CONNECT that would wait too long.
    pub(super) fn refuse_storm(
        &mut self,
        cx: &mut Context,
        conn: ConnId,
        connecting: Connecting,
        wait: Duration,
    ) {
        self.meters.connect_refused(ConnectRefused::Rate);
        let seconds = wait.as_millis().div_ceil(1000);
        let why = format!("too many connect at once: come back in {seconds} s");
        self.refuse_because(cx, conn, connecting, ReasonCode::ConnectionRateExceeded, Some(&why));
    }
}
