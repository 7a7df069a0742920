//! Connections whose clients are let in until some time. Each has a timer for it; others pay
//! nothing.

use sextant_mqtt::ReasonCode;
use sextant_ring::core::ConnId;
use sextant_ring::slot::SlotId;

use super::{Broker, Context};
use crate::meters::Closed;

impl Broker {
    /// What let a client in may have ended.
    pub(super) fn expiry_timer(&mut self, cx: &mut Context, conn: ConnId, session: SlotId) {
        match self.expiry(cx, session) {
            Some(expiry) if expiry <= cx.now().as_millis() => {
                // No longer is it authorized to be connected.
                self.disconnect(cx, conn, ReasonCode::MaximumConnectTime, Closed::Expired);
            }
            Some(expiry) => self.arm_conn(cx, conn, expiry),
            None => {}
        }
    }

    /// When what let a session's client in ends, or is to be looked at again: in milliseconds of
    /// the core's clock.
    pub(super) fn expiry(&self, cx: &Context, slot: SlotId) -> Option<u64> {
        /// The wall clock may be set meanwhile.
        const LOOK_MS: u64 = 3_600_000;
        let end = self.sessions.get(slot)?.owner.principal()?.expires_at()?;
        let left = end.saturating_sub(cx.clock().unix_ms);
        Some(cx.now().as_millis() + left.min(LOOK_MS))
    }
}
