//! The ends of connections and of the core: a slot is freed when its last operation has ended, and
//! what is left at a stop's deadline is ended.

use super::*;

impl<D: Driver, A: App> Core<D, A> {
    /// A connection came to an end that the app did not ask for, or had asked for earlier.
    pub(super) fn end(&mut self, conn: ConnId, reason: CloseReason) {
        let Some(c) = self.cx.conns.get(conn.0) else { return };
        let phase = c.phase;
        if phase == Phase::Moving {
            // The other core meets the end of the stream, or the error, by itself.
            return;
        }
        self.cx.close(conn);
        if phase == Phase::Open {
            self.app.on_close(&mut self.cx, conn, reason);
        }
    }

    pub(super) fn end_operation(&mut self, conn: ConnId) {
        let c = self.cx.conns.get_mut(conn.0).expect("an operation keeps the slot");
        assert!(c.operations > 0, "an operation ends once");
        c.operations -= 1;
        if c.operations == 0 && c.phase == Phase::Closing {
            self.cx.give_up(conn);
        } else if c.operations == 0 && c.phase == Phase::Moving {
            self.cx.resting.push(conn);
        }
    }

    pub(super) fn tell_stop(&mut self) {
        if self.cx.stop.is_none() || std::mem::replace(&mut self.cx.stop_told, true) {
            return;
        }
        let Cx { ops, acceptors, connects, udp, .. } = &mut self.cx;
        let mut cancel = |target, socket| {
            ops.push_back((Token::new(Kind::Refuse, 0), Op::Cancel { target, socket }));
        };
        for (id, _) in acceptors.iter().filter(|(_, acceptor)| acceptor.armed) {
            cancel(Token::new(Kind::Accept, id.to_bits()), None);
        }
        for (id, _) in connects.iter() {
            cancel(Token::new(Kind::Connect, id.to_bits()), None);
        }
        for (n, &socket) in udp.iter().enumerate() {
            cancel(Token::new(Kind::RecvFrom, n as u64), Some(socket));
        }
        self.app.on_stop(&mut self.cx);
    }

    /// Ends what is left past the deadline of a stop, connections included that only arrive then,
    /// from another core or of a connect.
    pub(super) fn end_overdue(&mut self) {
        if self.cx.stop.is_none_or(|deadline| self.cx.clock.now < deadline) {
            return;
        }
        let all: Vec<ConnId> = self.cx.conns.iter().map(|(id, _)| ConnId(id)).collect();
        for conn in all {
            self.end(conn, CloseReason::Stopped);
        }
    }
}
