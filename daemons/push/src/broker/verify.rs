//! Handing over what a core cannot check itself, once it is known where the client comes from for
//! those checks that ask.

use std::net::SocketAddr;

use sextant_ring::core::ConnId;

use super::{Broker, Context};
use crate::auth::{Refusal, Verification, Verified};

impl Broker {
    /// Hands a check over; [`Broker::verified`] is told how it ended.
    ///
    /// # Errors
    /// Too many wait.
    pub(super) fn verify(
        &mut self,
        cx: &mut Context,
        conn: ConnId,
        mut verification: Verification,
    ) -> Result<(), Refusal> {
        if verification.wants_peer() {
            match self.conn(conn).and_then(|held| held.transport()?.peer()) {
                Some(peer) => verification.set_peer(peer),
                None => {
                    cx.ask_peer(conn);
                    self.verifying.insert(conn.to_bits(), verification);
                    return Ok(());
                }
            }
        }
        self.hasher.try_submit(cx.core(), conn.to_bits(), verification)
    }

    /// The kernel has said where a connection comes from, or does not know: a check that waited
    /// for it does so no more.
    pub(super) fn verify_peer(&mut self, cx: &mut Context, conn: ConnId, peer: Option<SocketAddr>) {
        let Some(mut verification) = self.verifying.remove(&conn.to_bits()) else { return };
        if let Some(peer) = peer {
            verification.set_peer(peer);
        }
        if let Err(refusal) = self.hasher.try_submit(cx.core(), conn.to_bits(), verification) {
            self.end_burst(cx);
            self.verified(cx, conn, Verified::Refused(refusal));
        }
    }
}
