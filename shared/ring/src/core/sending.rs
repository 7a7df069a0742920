//! Sending: what waits on a connection leaves as one operation, one at a time.

use super::*;

/// Connections that a turn may send to without asking for memory anew.
const DIRTY_KEPT: usize = 64 * 1024;

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

    /// Starts what there is to send: for this turn's connections first, then for those that an
    /// earlier turn left. A turn that sends to a hundred thousand would keep everybody else waiting
    /// for as long as that takes.
    pub(super) fn flush_outboxes(&mut self) {
        let mut pages = std::mem::take(&mut self.cx.printed);
        self.cx.pages.print(&mut pages);
        let most = self.cx.limits.sends_max;
        let mut room = most;
        let mut dirty = std::mem::take(&mut self.cx.dirty);
        for conn in dirty.drain(..) {
            if room == 0 && self.cx.leave_for_later(conn, &pages) {
                continue;
            }
            room = room.saturating_sub(usize::from(self.flush(conn, &pages)));
        }
        dirty.shrink_to(DIRTY_KEPT);
        self.cx.dirty = dirty;
        if !self.cx.left.is_empty() {
            // Those that come anew each turn do not keep these waiting for ever.
            self.flush_left(room.max(most / 4).max(1), &pages);
        }
        pages.forget();
        self.cx.printed = pages;
    }

    #[cold]
    fn flush_left(&mut self, mut room: usize, pages: &Printed) {
        while room > 0
            && let Some(conn) = self.cx.left.pop_front()
        {
            room -= usize::from(self.flush(conn, pages));
        }
        if self.cx.left.is_empty() {
            self.cx.left = VecDeque::new();
        }
    }

    /// Starts what waits on a connection; whether that is a send.
    #[inline(always)]
    fn flush(&mut self, conn: ConnId, pages: &Printed) -> bool {
        let Some(c) = self.cx.conns.get_mut(conn.0) else { return false };
        c.dirty = false;
        if c.sending > 0 || c.phase == Phase::Closing {
            c.outbox.settle(pages);
            return false;
        }
        if !c.outbox.is_empty() {
            let data = c.outbox.take(pages);
            c.sending = data.len() as u32;
            c.operations += 1;
            self.cx.stats.sends += 1;
            self.cx.stats.sent_bytes += data.len() as u64;
            let op = Op::Send { socket: c.socket, data };
            self.start(Token::new(Kind::Send, conn.to_bits()), op);
            return true;
        }
        match c.phase {
            Phase::Flushing => {
                c.phase = Phase::Lingering;
                c.operations += 1;
                let op = Op::Shutdown { socket: c.socket, how: Shutdown::Write };
                self.start(Token::new(Kind::Shutdown, conn.to_bits()), op);
            }
            Phase::Parting => self.cx.close(conn),
            _ => {}
        }
        false
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

impl<M> Cx<M> {
    /// Leaves a connection that may be sent to now for a later turn; false if there is nothing to
    /// send. What it has of a page it keeps of that page.
    fn leave_for_later(&mut self, conn: ConnId, pages: &Printed) -> bool {
        let Some(c) = self.conns.get_mut(conn.0) else { return false };
        if c.sending > 0 || c.phase == Phase::Closing || c.outbox.is_empty() {
            return false;
        }
        c.outbox.keep(pages);
        self.left.push_back(conn);
        true
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
