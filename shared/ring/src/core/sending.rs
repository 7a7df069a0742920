//! Sending: what waits on a connection leaves as one operation, one at a time.

use super::*;

impl<D: Driver, A: App> Core<D, A> {
    pub(super) fn on_sent(&mut self, conn: ConnId, result: io::Result<()>) {
        let half = self.cx.limits.send_bytes_max / 2;
        let c = self.cx.conns.get_mut(conn.0).expect("an operation keeps the slot");
        c.sending = 0;
        let drained = c.refused && c.outbox.len() < half && c.phase == Phase::Open;
        match result {
            Ok(()) => {
                if drained {
                    c.refused = false;
                }
                self.cx.mark_dirty(conn);
            }
            Err(error) => {
                c.outbox = Outbox::Empty;
                self.end(conn, CloseReason::Failed(error));
            }
        }
        self.end_operation(conn);
        if drained && self.is_open(conn) {
            self.app.on_drained(&mut self.cx, conn);
        }
    }

    pub(super) fn flush_outboxes(&mut self) {
        let pages = self.cx.pages.print();
        let mut dirty = std::mem::take(&mut self.cx.dirty);
        for conn in dirty.drain(..) {
            let Some(c) = self.cx.conns.get_mut(conn.0) else { continue };
            c.dirty = false;
            if c.sending > 0 || c.phase == Phase::Closing {
                c.outbox.settle(&pages);
                continue;
            }
            if !c.outbox.is_empty() {
                let data = c.outbox.take(&pages);
                c.sending = data.len() as u32;
                c.operations += 1;
                self.cx.stats.sends += 1;
                self.cx.stats.sent_bytes += data.len() as u64;
                let op = Op::Send { socket: c.socket, data };
                self.start(Token::new(Kind::Send, conn.to_bits()), op);
            } else if c.phase == Phase::Flushing {
                c.phase = Phase::Lingering;
                c.operations += 1;
                let op = Op::Shutdown { socket: c.socket, how: Shutdown::Write };
                self.start(Token::new(Kind::Shutdown, conn.to_bits()), op);
            }
        }
        self.cx.dirty = dirty;
    }

    /// Starts an operation at once, unless others wait before it.
    fn start(&mut self, token: Token, op: Op) {
        if !self.cx.ops.is_empty() {
            self.cx.ops.push_back((token, op));
        } else if let Err(op) = self.driver.submit(token, op) {
            self.cx.ops.push_back((token, op));
        }
    }
}

impl Conn {
    /// Has the outbox of this connection looked at when the turn ends.
    #[inline]
    pub(super) fn mark_dirty(&mut self, conn: ConnId, dirty: &mut Vec<ConnId>) {
        if !std::mem::replace(&mut self.dirty, true) {
            dirty.push(conn);
        }
    }
}
