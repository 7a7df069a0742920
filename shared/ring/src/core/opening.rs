//! Connections that come: accepted ones, and those that the app asked for.

use super::*;

impl<D: Driver, A: App> Core<D, A> {
    pub(super) fn on_accept(&mut self, bits: u64, result: io::Result<Socket>, more: bool) {
        let id = SlotId::from_bits(bits);
        if self.cx.stop.is_some() || self.cx.acceptors.get(id).is_none() {
            self.on_unwanted(id, result, more);
            return;
        }
        let failed = result.is_err();
        match result {
            Ok(socket) => match self.cx.adopt(socket) {
                Ok(conn) => {
                    self.cx.stats.accepted += 1;
                    self.app.on_accept(&mut self.cx, conn, id.index());
                    self.cx.arm_recv(conn);
                }
                Err(socket) => self.cx.refuse(socket),
            },
            Err(error) => warn!(%error, "cannot accept"),
        }
        // The app may have taken the listener away.
        let Some(acceptor) = self.cx.acceptors.get_mut(id).filter(|_| !more) else { return };
        acceptor.armed = false;
        if failed {
            self.cx.accept_later();
        } else {
            self.cx.arm_accept(id);
        }
    }

    /// Of a core that stops, or of a listener that was taken away.
    fn on_unwanted(&mut self, id: SlotId, result: io::Result<Socket>, more: bool) {
        match result {
            Ok(socket) => self.cx.refuse(socket),
            Err(error) => debug!(%error, "accepting ended"),
        }
        if let Some(acceptor) = self.cx.acceptors.get_mut(id) {
            acceptor.armed = more;
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
