//! Keep-alives: who has been silent for longer than he said he would be is disconnected
//! `[MQTT-3.1.2-22]`.
//!
//! A hand goes round all connections once in [`ROUND`], a few at a time, and compares: a client is
//! cut that much late at most. A timer for each would take 40 bytes of every connection, and of a
//! million of them each fires, finds that its client has spoken meanwhile, and is armed again. The
//! hand stands while no client has a keep-alive.

use std::time::Duration;

use sextant_mqtt::ReasonCode;
use sextant_ring::core::ConnId;
use tracing::warn;

use super::conn::Stage;
use super::{Broker, Context, timer};
use crate::meters::Closed;

/// How long the hand takes to go round.
const ROUND: Duration = Duration::from_secs(1);
/// Connections that it passes at a tick, unless there are more ticks than [`TICKS_MAX`].
const SHARE: usize = 2048;
/// Ticks of a round at most.
const TICKS_MAX: usize = 250;

/// Where the hand is.
#[derive(Default)]
pub(super) struct Hand {
    /// Connections with a keep-alive.
    watched: usize,
    /// The entry that it looks at next.
    at: usize,
    /// Entries that it passes at the next tick; 0 while it stands.
    share: usize,
}

/// How long until the next tick, and how many entries the hand passes then.
fn tick(span: usize) -> (Duration, usize) {
    let ticks = span.div_ceil(SHARE).clamp(1, TICKS_MAX);
    (ROUND / ticks as u32, span.div_ceil(ticks))
}

impl Broker {
    /// A connection with a keep-alive begins.
    pub(super) fn watch(&mut self, cx: &mut Context) {
        self.hand.watched += 1;
        if self.hand.share == 0 {
            self.move_hand(cx);
        }
    }

    /// A connection with a keep-alive has ended.
    pub(super) fn unwatch(&mut self) {
        self.hand.watched -= 1;
    }

    /// Lets a hand go on that found no timer.
    pub(super) fn keep_hand_going(&mut self, cx: &mut Context) {
        if self.hand.share == 0 {
            self.move_hand(cx);
        }
    }

    fn move_hand(&mut self, cx: &mut Context) {
        self.hand.share = 0;
        if self.hand.watched == 0 {
            return;
        }
        let (wait, share) = tick(self.conns.span());
        match cx.arm(cx.now() + wait, timer::key(timer::HAND, 0)) {
            Some(_) => self.hand.share = share,
            // The next tick tries again.
            None => warn!("no timer left: silent clients are found late"),
        }
    }

    /// Looks at the connections that the hand passes.
    pub(super) fn pass_hand(&mut self, cx: &mut Context) {
        let now = cx.now().as_millis();
        let mut silent: Vec<ConnId> = Vec::new();
        for _ in 0..self.hand.share {
            self.hand.at = (self.hand.at + 1) % self.conns.span().max(1);
            let Some(Some(held)) = self.conns.get(self.hand.at) else { continue };
            // Who is not read from may have spoken.
            if let Stage::Online { link, .. } = &held.stage
                && !held.paused
                && link.handle_timeout(now).is_err()
            {
                silent.push(held.id);
            }
        }
        for conn in silent {
            self.disconnect(cx, conn, ReasonCode::KeepAliveTimeout, Closed::KeepAlive);
        }
        self.move_hand(cx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_hand_goes_round_in_time(span in 1usize..5_000_000) {
            let (wait, share) = tick(span);
            prop_assert!(share >= 1 && wait >= Duration::from_millis(4));
            let round = wait.as_secs_f64() * (span as f64 / share as f64);
            prop_assert!(round <= ROUND.as_secs_f64() * 1.001, "{round} s");
        }
    }
}
