//! Connections that come: accepted ones, and those that the app asked for.

use super::*;

impl<D: Driver, A: App> Core<D, A> {
    pub(super) fn on_accept(&mut self, acceptor: usize, result: io::Result<Socket>, more: bool) {
        /// Without a descriptor left, accepting again at once would only spin.
        const BACK_OFF: Duration = Duration::from_millis(50);
        let failed = result.is_err();
        match result {
            Ok(socket) if self.cx.stop.is_some() => self.cx.refuse(socket),
            Ok(socket) => match self.cx.adopt(socket) {
                Ok(conn) => {
                    self.cx.stats.accepted += 1;
                    self.app.on_accept(&mut self.cx, conn, acceptor);
                    self.cx.arm_recv(conn);
                }
                Err(socket) => self.cx.refuse(socket),
            },
            Err(error) if self.cx.stop.is_some() => debug!(%error, "accepting ended"),
            Err(error) => warn!(%error, "cannot accept"),
        }
        if more {
            return;
        }
        self.cx.acceptors[acceptor].armed = false;
        if self.cx.stop.is_some() {
            return;
        }
        if failed {
            let _ = self.cx.wheel.arm(self.cx.clock.now + BACK_OFF, ACCEPT_TIMER);
        } else {
            self.cx.arm_accepts();
        }
    }

    pub(super) fn on_connect(&mut self, bits: u64, result: io::Result<Socket>) {
        let key = self.cx.connects.remove(SlotId::from_bits(bits)).expect("a connect ends once");
        let adopted = result.and_then(|socket| {
            self.cx.adopt(socket).map_err(|socket| {
                self.cx.refuse(socket);
                io::Error::from_raw_os_error(libc::ENFILE)
            })
        });
        let conn = adopted.as_ref().ok().copied();
        self.app.on_connect(&mut self.cx, key, adopted);
        if let Some(conn) = conn {
            self.cx.arm_recv(conn);
        }
    }
}
