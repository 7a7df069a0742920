//! Parking: a connection that has received nothing for a while waits with a poll instead of a
//! receive. In the kernel an armed receive is a request with a message header and a poll entry
//! beside it, an armed poll is a bare request: 600 bytes less for a connection (512 and 96, by the
//! objects in use of `/proc/slabinfo` before and after 10,000 were parked; Linux 6.18, the test
//! `slab_of_connections_that_wait`). When the poll ends, a receive is armed and finds what there is.
//!
//! ```text
//!   Armed ── the hand passes twice, nothing received ──► Parking ── receive ended ──► Parked
//!     ▲                                                     │                           │
//!     ├──────────── bytes arrived after all ────────────────┘                           │
//!     └──────────── the poll ended: bytes, the peer's end, an error ────────────────────┘
//! ```
//!
//! Who has received nothing is found as a clock-hand page replacement finds cold pages: a hand goes
//! round all slots once in [`Limits::park_after`], a few slots at a time. It marks a connection as
//! quiet, whatever is received takes the mark away, and one that is still marked when the hand
//! comes round is parked. So a turn costs nothing, a receive a store, and a core whose connections
//! are all parked has no timer.

use super::*;

/// Where the hand is, and how fast it goes.
pub(super) struct Parking {
    after: Duration,
    /// Receives under way: without any there is nothing to park.
    receiving: usize,
    /// The slot that the hand looks at next.
    hand: usize,
    /// Slots that it passes at the next tick; 0 while it stands.
    share: usize,
}

/// Slots that the hand passes at a tick, unless ticks would come faster than timers fire.
const SHARE: usize = 256;
const TICK_MIN: Duration = Duration::from_millis(1);

impl Parking {
    /// `worth` is whether it saves anything.
    pub(super) fn new(after: Duration, worth: bool) -> Parking {
        let after = if worth { after.max(TICK_MIN) } else { Duration::MAX };
        Parking { after, receiving: 0, hand: 0, share: 0 }
    }

    /// How long until the next tick, and how many slots the hand passes then, so that it passes
    /// `span` of them in the given time.
    fn tick(&self, span: usize) -> (Duration, usize) {
        let part = SHARE as f64 / span.max(SHARE) as f64;
        let tick = self.after.mul_f64(part).max(TICK_MIN);
        let share = span as f64 * (tick.as_secs_f64() / self.after.as_secs_f64());
        (tick, (share.ceil() as usize).clamp(1, span.max(1)))
    }
}

impl<M> Cx<M> {
    pub(super) fn receive_began(&mut self) {
        self.parking.receiving += 1;
        if self.parking.share == 0 {
            self.move_hand();
        }
    }

    pub(super) fn receive_ended(&mut self) {
        self.parking.receiving -= 1;
    }

    /// Lets the hand go on, as long as there may be something to park.
    fn move_hand(&mut self) {
        self.parking.share = 0;
        if self.parking.receiving == 0 || self.parking.after == Duration::MAX {
            return;
        }
        let (tick, share) = self.parking.tick(self.conns.span());
        if self.wheel.arm(self.clock.now + tick, PARK_TIMER).is_some() {
            self.parking.share = share;
        }
    }

    /// Looks at the slots that the hand passes.
    pub(super) fn pass_hand(&mut self) {
        for _ in 0..self.parking.share {
            self.parking.hand = (self.parking.hand + 1) % self.conns.span().max(1);
            let Some(id) = self.conns.id_at(self.parking.hand) else { continue };
            let c = self.conns.get_mut(id).expect("it is there");
            match c.rx {
                Rx::Armed if c.phase == Phase::Open => c.rx = Rx::Quiet,
                Rx::Quiet if c.phase == Phase::Open => {
                    self.cancel(ConnId(id), Kind::Recv, Rx::Parking);
                }
                _ => {}
            }
        }
        self.move_hand();
    }

    /// Waits for a connection with a poll, now that its receive has ended.
    pub(super) fn park(&mut self, conn: ConnId) {
        let Some(c) = self.conns.get_mut(conn.0) else { return };
        if c.phase != Phase::Open {
            self.arm_recv(conn);
            return;
        }
        assert!(c.rx == Rx::Off && !c.paused, "a pause takes the wish to park back");
        c.rx = Rx::Parked;
        c.operations += 1;
        self.stats.parked += 1;
        let op = Op::Poll { socket: c.socket };
        self.ops.push_back((Token::new(Kind::Poll, conn.to_bits()), op));
    }
}

impl<D: Driver, A: App> Core<D, A> {
    /// There may be something to receive; or the poll was cancelled.
    pub(super) fn on_polled(&mut self, conn: ConnId) {
        let c = self.cx.conns.get_mut(conn.0).expect("an operation keeps the slot");
        assert!(matches!(c.rx, Rx::Parked | Rx::Cancelling), "{:?} with a poll", c.rx);
        c.rx = Rx::Off;
        self.end_operation(conn);
        self.cx.arm_recv(conn);
    }
}

impl Conn {
    /// Something was received: it is not to be parked.
    pub(super) fn heard(&mut self) {
        match self.rx {
            Rx::Quiet => self.rx = Rx::Armed,
            Rx::Parking => self.rx = Rx::Cancelling,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_hand_goes_round_in_the_given_time(
            millis in 1u64..100_000, span in 1usize..3_000_000,
        ) {
            let after = Duration::from_millis(millis);
            let (tick, share) = Parking::new(after, true).tick(span);
            prop_assert!(tick >= TICK_MIN && tick <= after);
            let round = tick.as_secs_f64() * (span as f64 / share as f64);
            prop_assert!(round <= after.as_secs_f64() * 1.001, "{round} s");
            prop_assert!(share <= SHARE + 1 || tick == TICK_MIN);
        }
    }
}
