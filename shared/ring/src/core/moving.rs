//! Connections on their way between cores: one leaves when its last operation here has ended.

use super::*;

impl<D: Driver, A: App> Core<D, A> {
    pub(super) fn take_handed(&mut self, handed: Handed<A::Message>) {
        match self.cx.adopt(handed.socket) {
            Ok(conn) => {
                self.app.on_handed(&mut self.cx, conn, handed.note, &handed.data);
                self.cx.arm_recv(conn);
            }
            Err(socket) => self.cx.refuse(socket),
        }
    }

    pub(super) fn on_moved(&mut self, bits: u64, result: io::Result<Socket>) {
        let conn = ConnId::from_bits(bits);
        let (core, note) = self.cx.moves.remove(&conn).expect("a move ends once");
        match result {
            Ok(socket) => {
                let c = self.cx.conns.remove(conn.0).expect("a moving connection has its slot");
                let data = c.held.unwrap_or_default().0;
                let handed = Handed { socket, data, note };
                self.cx.port.send(core, Envelope::Connection(handed));
            }
            Err(error) => {
                let c = self.cx.conns.get_mut(conn.0).expect("a moving connection has its slot");
                c.operations -= 1;
                c.phase = Phase::Open;
                c.paused = true;
                self.app.on_hand_over_failed(&mut self.cx, conn, error);
            }
        }
    }

    pub(super) fn start_moves(&mut self) {
        while let Some(conn) = self.cx.resting.pop() {
            let Some(c) = self.cx.conns.get_mut(conn.0) else { continue };
            let idle = c.operations == 0 && c.outbox.is_empty() && c.rx == Rx::Off;
            if c.phase == Phase::Moving && idle {
                let (core, _) = self.cx.moves[&conn];
                let to = self.cx.port.remote(core).expect("it is another core").clone();
                c.operations = 1;
                let op = Op::HandOver { socket: c.socket, to };
                self.cx.ops.push_back((Token::new(Kind::HandOver, conn.to_bits()), op));
            }
        }
    }
}
