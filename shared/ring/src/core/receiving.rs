//! Receiving: what a completion brings goes to the app, or is held for it; receives that ended are
//! armed again.

use super::*;

impl<D: Driver, A: App> Core<D, A> {
    pub(super) fn on_recv(&mut self, conn: ConnId, result: io::Result<Option<RxBuf>>, more: bool) {
        let ended = match result {
            Ok(Some(buf)) => {
                self.take_bytes(conn, &buf);
                self.released = true;
                self.driver.release(buf);
                None
            }
            // The end is behind what is held: it is met again by the next receive.
            Ok(None) if self.cx.conns.get(conn.0).is_some_and(Conn::is_held_up) => None,
            Ok(None) => Some(CloseReason::PeerClosed),
            Err(error) if is_starved(&error) => {
                self.cx.stats.starved += 1;
                let c = self.cx.conns.get_mut(conn.0).expect("an operation keeps the slot");
                if matches!(c.rx, Rx::Armed | Rx::Quiet) {
                    c.rx = Rx::Starved;
                    self.cx.starved.push_back(conn);
                }
                None
            }
            Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => None,
            Err(error) => Some(CloseReason::Failed(error)),
        };
        let mut parks = false;
        if !more {
            let c = self.cx.conns.get_mut(conn.0).expect("an operation keeps the slot");
            parks = c.rx == Rx::Parking;
            if c.rx != Rx::Starved {
                c.rx = Rx::Off;
            }
            self.cx.receive_ended();
        }
        if let Some(reason) = ended {
            self.end(conn, reason);
        }
        if !more {
            self.end_operation(conn);
            match self.cx.conns.get(conn.0).map(|c| c.rx) {
                Some(Rx::Off) if parks => self.cx.park(conn),
                Some(Rx::Off) => self.cx.arm_recv(conn),
                _ => {}
            }
        }
    }

    pub(super) fn take_bytes(&mut self, conn: ConnId, buf: &RxBuf) {
        let data = self.driver.received(buf);
        self.cx.stats.received_bytes += data.len() as u64;
        let c = self.cx.conns.get_mut(conn.0).expect("an operation keeps the slot");
        c.heard();
        match c.phase {
            Phase::Open if !c.paused && c.held.is_none() => {
                let other_pool = c.prefers_other_pool(data.len());
                self.app.on_data(&mut self.cx, conn, data);
                if other_pool && self.is_open(conn) {
                    self.cx.cancel_recv(conn);
                }
            }
            Phase::Open | Phase::Moving => {
                c.held.get_or_insert_default().0.extend_from_slice(data);
            }
            Phase::Flushing | Phase::Lingering | Phase::Parting | Phase::Closing => {}
        }
    }

    pub(super) fn deliver_held(&mut self) {
        for _ in 0..self.cx.resumed.len() {
            let Some(conn) = self.cx.resumed.pop_front() else { return };
            let Some(c) = self.cx.conns.get_mut(conn.0) else { continue };
            if c.phase != Phase::Open || c.paused {
                continue;
            }
            if let Some(held) = c.held.take().filter(|held| !held.0.is_empty()) {
                self.app.on_data(&mut self.cx, conn, &held.0);
            }
            self.cx.arm_recv(conn);
        }
    }

    pub(super) fn rearm_starved(&mut self) {
        // A core holds a buffer only while its app looks at it. So a pool that was empty has
        // buffers again once all completions were handled, or one of them was released meanwhile.
        let released = std::mem::take(&mut self.released);
        if !(released || self.drained) {
            return;
        }
        while let Some(conn) = self.cx.starved.pop_front() {
            if self.cx.conns.get(conn.0).is_some_and(|c| c.rx == Rx::Starved) {
                self.cx.arm_recv(conn);
            }
        }
    }

    pub(super) fn on_datagram(
        &mut self,
        socket: usize,
        result: io::Result<(SocketAddr, RxBuf)>,
        more: bool,
    ) {
        match result {
            Ok((from, buf)) => {
                let data = self.driver.received(&buf);
                self.app.on_datagram(&mut self.cx, UdpId(socket), from, data);
                self.released = true;
                self.driver.release(buf);
            }
            Err(error) => debug!(%error, "receiving datagrams"),
        }
        if !more && self.cx.stop.is_none() {
            self.arm_udp(socket);
        }
    }

    pub(super) fn arm_udp(&mut self, socket: usize) {
        let op = Op::RecvFrom { socket: self.cx.udp[socket], group: Group::Datagram };
        self.cx.ops.push_back((Token::new(Kind::RecvFrom, socket as u64), op));
    }
}

impl Conn {
    /// Whether its app has not been given everything that was received.
    pub(super) fn is_held_up(&self) -> bool {
        self.phase == Phase::Open && (self.paused || self.held.is_some())
    }

    /// Counts a receive, and changes the pool when enough in a row speak for the other one.
    /// The caller then ends the receive, so that the next one draws from the new pool.
    pub(super) fn prefers_other_pool(&mut self, len: usize) -> bool {
        const BULKY: usize = 1024;
        let (speaks, other, enough) = match self.group {
            Group::Small => (len >= BULKY, Group::Bulk, 8),
            Group::Bulk | Group::Datagram => (len < BULKY, Group::Small, 64),
        };
        self.streak = if speaks { self.streak + 1 } else { 0 };
        if self.streak < enough {
            return false;
        }
        self.streak = 0;
        self.group = other;
        true
    }
}
