//! What an app acts through. Every call notes what is wanted; the turn's end does it.

use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;

use super::*;

impl<M> Files for Cx<M> {
    fn submit(&mut self, ticket: u64, op: FileOp) {
        match self.files.insert(ticket) {
            Ok(id) => self.ops.push_back((Token::new(Kind::File, id.to_bits()), Op::File(op))),
            Err(ticket) => {
                let result = Err(io::Error::from_raw_os_error(libc::EAGAIN));
                let buf = op.into_buf();
                self.declined.push_back(Declined::File(FileDone { ticket, result, buf }));
            }
        }
    }
}

impl<M> Cx<M> {
    /// Lanes of [`Cx::share`].
    pub const LANES: usize = Pages::LANES;

    /// The time at which this turn began.
    pub fn now(&self) -> Time {
        self.clock.now
    }

    /// Both clocks at the time at which this turn began.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// What this core has counted.
    pub fn stats(&self) -> Stats {
        Stats { wakes_sent: self.port.wakes(), wakes_received: self.remote.wakes(), ..self.stats }
    }

    /// This core's number.
    pub fn core(&self) -> usize {
        self.port.me()
    }

    /// The number of cores.
    pub fn cores(&self) -> usize {
        self.port.cores()
    }

    /// Connections on this core, those that are closing included.
    pub fn connections(&self) -> usize {
        self.conns.len()
    }

    /// Sends bytes that other connections may share.
    ///
    /// # Errors
    /// [`SendError::Full`] past the limit: nothing was taken. [`SendError::Closed`].
    pub fn send(&mut self, conn: ConnId, bytes: Bytes) -> Result<(), SendError> {
        self.admit(conn, bytes.len(), |outbox, pages| outbox.push(bytes, pages))
    }

    /// Takes bytes in that go to many connections within this turn. They are copied once; a
    /// connection to which all that was shared on a lane since its first piece is sent, and nothing
    /// else, has no copy of its own. So each stream of messages that has the same receivers should
    /// have a lane, as far as there are lanes: [`Cx::LANES`].
    pub fn share(&mut self, lane: usize, bytes: &[u8]) -> Shared {
        self.pages.share(lane, bytes)
    }

    /// Sends what was shared in this turn.
    ///
    /// # Errors
    /// As [`Cx::send`].
    pub fn send_shared(&mut self, conn: ConnId, shared: &Shared) -> Result<(), SendError> {
        self.admit(conn, shared.len(), |outbox, pages| outbox.push_shared(shared, pages))
    }

    /// A copy of what was shared in this turn, which outlives it.
    pub fn copy_shared(&self, shared: &Shared) -> Bytes {
        self.pages.copy(shared)
    }

    /// What was shared in this turn.
    pub fn shared_bytes<'a>(&'a self, shared: &'a Shared) -> &'a [u8] {
        self.pages.shared_bytes(shared)
    }

    /// Sends a copy of some bytes: for short ones.
    ///
    /// # Errors
    /// As [`Cx::send`].
    pub fn send_copy(&mut self, conn: ConnId, bytes: &[u8]) -> Result<(), SendError> {
        self.admit(conn, bytes.len(), |outbox, pages| outbox.push_copy(bytes, pages))
    }

    /// Bytes that wait or are under way on a connection; 0 if it is gone.
    pub fn unsent(&self, conn: ConnId) -> usize {
        self.conns.get(conn.0).map_or(0, |c| c.outbox.len() + c.sending as usize)
    }

    /// Bytes that a connection takes now; `None` if it is gone, or takes none any more.
    pub fn room(&self, conn: ConnId) -> Option<usize> {
        let c = self.conns.get(conn.0).filter(|c| c.phase == Phase::Open)?;
        let waiting = c.outbox.len() + c.sending as usize;
        Some(self.limits.send_bytes_max.saturating_sub(waiting))
    }

    /// Asks for [`App::on_drained`] once less than half of what may wait on a connection does.
    /// For an app with a limit of its own.
    pub fn tell_drained(&mut self, conn: ConnId) {
        if let Some(c) = self.conns.get_mut(conn.0) {
            c.refused = true;
        }
    }

    fn admit(
        &mut self,
        conn: ConnId,
        len: usize,
        push: impl FnOnce(&mut Outbox, &mut Pages),
    ) -> Result<(), SendError> {
        let max = self.limits.send_bytes_max;
        let c = self
            .conns
            .get_mut(conn.0)
            .filter(|c| c.phase == Phase::Open)
            .ok_or(SendError::Closed)?;
        if c.outbox.len() + c.sending as usize + len > max {
            c.refused = true;
            return Err(SendError::Full);
        }
        push(&mut c.outbox, &mut self.pages);
        c.mark_dirty(conn, &mut self.dirty);
        Ok(())
    }

    pub(super) fn mark_dirty(&mut self, conn: ConnId) {
        if let Some(c) = self.conns.get_mut(conn.0) {
            c.mark_dirty(conn, &mut self.dirty);
        }
    }

    /// Ends a connection in order: what waits is sent, then the peer has a moment to close.
    pub fn finish(&mut self, conn: ConnId) {
        self.send_last(conn, Phase::Flushing);
    }

    /// Ends a connection whose peer has said, in its protocol, that it sends nothing more: what
    /// waits is sent, and nobody waits for the peer behind that. [`Cx::finish`] does, lest what the
    /// peer still sends resets the connection before it has read all.
    pub fn part(&mut self, conn: ConnId) {
        match self.conns.get(conn.0) {
            Some(c) if c.phase == Phase::Open && c.sending == 0 && c.outbox.is_empty() => {
                self.close(conn);
            }
            _ => self.send_last(conn, Phase::Parting),
        }
    }

    fn send_last(&mut self, conn: ConnId, phase: Phase) {
        if let Some(c) = self.conns.get_mut(conn.0)
            && c.phase == Phase::Open
        {
            c.phase = phase;
            c.held = None;
            let resume = std::mem::take(&mut c.paused);
            let deadline = self.clock.now + self.limits.linger;
            // Without a timer left it ends at once: a connection never stays for good.
            if self.wheel.arm(deadline, CORE_TIMER | conn.to_bits()).is_none() {
                self.close(conn);
                return;
            }
            if resume {
                self.arm_recv(conn);
            }
            self.mark_dirty(conn);
        }
    }

    /// Ends a connection at once; what waits is dropped.
    pub fn abort(&mut self, conn: ConnId) {
        if self.conns.get(conn.0).is_some_and(|c| c.phase != Phase::Moving) {
            self.close(conn);
        }
    }

    /// Stops reading from a connection until [`Cx::resume`]. What arrives in the meantime is
    /// kept and counts against nobody: the peer is held up by its own window within a few reads.
    pub fn pause(&mut self, conn: ConnId) {
        if let Some(c) = self.conns.get_mut(conn.0)
            && c.phase == Phase::Open
            && !std::mem::replace(&mut c.paused, true)
        {
            self.cancel_recv(conn);
        }
    }

    /// Goes on reading from a paused connection, with what arrived in the meantime first.
    pub fn resume(&mut self, conn: ConnId) {
        if let Some(c) = self.conns.get_mut(conn.0)
            && c.phase == Phase::Open
            && std::mem::replace(&mut c.paused, false)
        {
            self.resumed.push_back(conn);
        }
    }

    /// Gives a connection to another core, with a note that says what it is. What waits to be
    /// sent goes out first; bytes that arrive until it has moved go along.
    pub fn hand_over(&mut self, conn: ConnId, core: usize, note: M, unread: &[u8]) {
        assert!(core != self.core(), "a connection moves to another core");
        if let Some(c) = self.conns.get_mut(conn.0)
            && c.phase == Phase::Open
        {
            c.phase = Phase::Moving;
            let mut kept = unread.to_vec();
            kept.extend(c.held.take().unwrap_or_default().0);
            c.held = Some(Box::new(Held(kept)));
            self.moves.insert(conn, (core, note));
            self.resting.push(conn);
            self.cancel_recv(conn);
            self.mark_dirty(conn);
        }
    }

    /// Asks for a connection's peer address: [`App::on_peer`]. On a connection of a unix socket
    /// the answer is an error.
    pub fn ask_peer(&mut self, conn: ConnId) {
        if let Some(c) = self.conns.get_mut(conn.0)
            && c.phase == Phase::Open
        {
            c.operations += 1;
            let op = Op::PeerAddr { socket: c.socket };
            self.ops.push_back((Token::new(Kind::Peer, conn.to_bits()), op));
        }
    }

    /// Opens a connection: [`App::on_connect`] with the same key. It fails with `EAGAIN` when as
    /// many are under way as there may be connections, and with `ECANCELED` once the core stops.
    pub fn connect(&mut self, to: SocketAddr, key: u64) {
        let inserted = match self.stop {
            None => self.connects.insert(key).map_err(|_| libc::EAGAIN),
            Some(_) => Err(libc::ECANCELED),
        };
        match inserted {
            Ok(id) => {
                self.ops.push_back((Token::new(Kind::Connect, id.to_bits()), Op::Connect { to }));
            }
            Err(errno) => {
                let error = io::Error::from_raw_os_error(errno);
                self.declined.push_back(Declined::Connect(key, error));
            }
        }
    }

    /// Sends a datagram; whether it left is not told.
    pub fn send_to(&mut self, socket: UdpId, to: SocketAddr, data: Bytes) {
        let op = Op::SendTo { socket: self.udp[socket.0], to, data };
        self.ops.push_back((Token::new(Kind::SendTo, socket.0 as u64), op));
    }

    /// Arms a timer: [`App::on_timer`] with this key, at the deadline or up to two milliseconds
    /// later. `None` if there are as many as allowed. Keys are below 2⁶³.
    pub fn arm(&mut self, deadline: Time, key: u64) -> Option<TimerId> {
        assert!(key & CORE_TIMER == 0, "a timer's key is below 2^63");
        self.wheel.arm(deadline, key)
    }

    /// Disarms a timer, and tells whether it was still armed.
    pub fn disarm(&mut self, timer: TimerId) -> bool {
        self.wheel.disarm(timer)
    }

    /// Sends a message to a core, or to this one: it arrives with a later turn.
    pub fn tell(&mut self, core: usize, message: M) {
        self.port.send(core, Envelope::Message(message));
    }

    /// Messages that wait because another core's queue is full. While there are many, an app
    /// takes in less.
    pub fn backlog(&self) -> usize {
        self.port.backlog()
    }

    /// Stops the core: nothing is accepted any more, connections may end until `deadline`.
    pub fn stop(&mut self, deadline: Time) {
        if self.stop.is_none() {
            self.stop = Some(deadline);
            let _ = self.wheel.arm(deadline, STOP_TIMER);
        }
    }

    /// Whether the core is stopping.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_some()
    }

    pub(super) fn arm_recv(&mut self, conn: ConnId) {
        let Some(c) = self.conns.get_mut(conn.0) else { return };
        let reads = match c.phase {
            Phase::Open => !c.paused,
            Phase::Flushing | Phase::Lingering | Phase::Parting => true,
            Phase::Moving | Phase::Closing => false,
        };
        if reads && matches!(c.rx, Rx::Off | Rx::Starved) {
            c.rx = Rx::Armed;
            c.operations += 1;
            let op = Op::Recv { socket: c.socket, group: c.group };
            self.ops.push_back((Token::new(Kind::Recv, conn.to_bits()), op));
            self.receive_began();
        }
    }

    /// Ends reading from a connection for now, however it is waited for.
    pub(super) fn cancel_recv(&mut self, conn: ConnId) {
        let Some(c) = self.conns.get_mut(conn.0) else { return };
        match c.rx {
            Rx::Armed | Rx::Quiet => self.cancel(conn, Kind::Recv, Rx::Cancelling),
            Rx::Parked => self.cancel(conn, Kind::Poll, Rx::Cancelling),
            Rx::Parking => c.rx = Rx::Cancelling,
            Rx::Starved => c.rx = Rx::Off,
            Rx::Off | Rx::Cancelling => {}
        }
    }

    /// Cancels a connection's operation of that kind, which is under way.
    pub(super) fn cancel(&mut self, conn: ConnId, kind: Kind, rx: Rx) {
        let c = self.conns.get_mut(conn.0).expect("an operation keeps the slot");
        c.rx = rx;
        c.operations += 1;
        let target = Token::new(kind, conn.to_bits());
        let op = Op::Cancel { target, socket: Some(c.socket) };
        self.ops.push_back((Token::new(Kind::Cancel, conn.to_bits()), op));
    }

    /// Enters [`Phase::Closing`]: lets what is under way end, then gives the socket up.
    pub(super) fn close(&mut self, conn: ConnId) {
        let Some(c) = self.conns.get_mut(conn.0) else { return };
        if c.phase == Phase::Closing {
            return;
        }
        c.phase = Phase::Closing;
        c.outbox = Outbox::Empty;
        c.held = None;
        if c.sending > 0 {
            // It may have been cut short and go on: only this ends it for sure. On io_uring a
            // shutdown goes by way of a kernel thread, which costs as much as all the rest of a
            // connection's end, so it is not the way for those that only receive.
            c.operations += 1;
            let op = Op::Shutdown { socket: c.socket, how: Shutdown::Both };
            self.ops.push_back((Token::new(Kind::Shutdown, conn.to_bits()), op));
        } else if c.operations > 0 {
            self.cancel_recv(conn);
        } else {
            self.give_up(conn);
        }
    }

    pub(super) fn give_up(&mut self, conn: ConnId) {
        let c = self.conns.get_mut(conn.0).expect("a closing connection has its slot");
        assert!(c.operations == 0, "a socket is closed after its last operation");
        c.operations = 1;
        self.ops
            .push_back((Token::new(Kind::Close, conn.to_bits()), Op::Close { socket: c.socket }));
    }

    pub(super) fn adopt(&mut self, socket: Socket) -> Result<ConnId, Socket> {
        let conn = Conn {
            socket,
            phase: Phase::Open,
            rx: Rx::Off,
            group: Group::Small,
            paused: false,
            dirty: false,
            refused: false,
            streak: 0,
            operations: 0,
            sending: 0,
            outbox: Outbox::Empty,
            held: None,
        };
        self.conns.insert(conn).map(ConnId).map_err(|conn| conn.socket)
    }

    pub(super) fn refuse(&mut self, socket: Socket) {
        self.stats.refused += 1;
        self.ops.push_back((Token::new(Kind::Refuse, 0), Op::Close { socket }));
    }

    /// Accepts connections from a further listener, which the core does not have yet, and tells the
    /// number that [`App::on_accept`] is given with them. Numbers are small, and used again. `None`
    /// if there are as many listeners as allowed.
    pub fn listen(&mut self, listener: Arc<Listener>) -> Option<usize> {
        let id = self.acceptors.insert(Acceptor { listener, armed: false }).ok()?;
        self.arm_accept(id);
        Some(id.index())
    }

    /// Accepts no connection from that listener any more, and has its number free for another; one
    /// that is accepted in this moment is closed. The connections that came from it stay.
    ///
    /// Its socket is closed once its accept has ended, within a few turns, and nobody else holds
    /// the listener; who still waits there to be accepted is reset. Without such a listener nothing
    /// happens.
    pub fn unlisten(&mut self, listener: usize) {
        let Some(id) = self.acceptors.id_at(listener) else { return };
        let acceptor = self.acceptors.remove(id).expect("it was just there");
        if acceptor.armed {
            let target = Token::new(Kind::Accept, id.to_bits());
            let op = Op::Cancel { target, socket: None };
            self.ops.push_back((Token::new(Kind::Refuse, 0), op));
        }
    }

    /// Whether connections are accepted; they are from the first turn on, unless
    /// [`App::on_start`] says otherwise. Those under way when it is taken back still come.
    pub fn set_accepting(&mut self, accepting: bool) {
        self.accepting = accepting;
        self.arm_accepts();
    }

    pub(super) fn arm_accepts(&mut self) {
        if self.accepting {
            for index in 0..self.acceptors.span() {
                if let Some(id) = self.acceptors.id_at(index) {
                    self.arm_accept(id);
                }
            }
        }
    }

    /// Begins to accept on a listener, unless it does or the core stops.
    pub(super) fn arm_accept(&mut self, id: SlotId) {
        let acceptor = self.acceptors.get_mut(id).filter(|_| self.accepting && self.stop.is_none());
        if let Some(acceptor) = acceptor.filter(|acceptor| !acceptor.armed) {
            acceptor.armed = true;
            let op = Op::Accept { listener: Arc::clone(&acceptor.listener) };
            self.ops.push_back((Token::new(Kind::Accept, id.to_bits()), op));
        }
    }

    /// Accepts again in a moment, on every listener that has to: without a descriptor left, doing
    /// so at once would only spin.
    pub(super) fn accept_later(&mut self) {
        const BACK_OFF: Duration = Duration::from_millis(50);
        if !self.backing_off {
            let deadline = self.clock.now + BACK_OFF;
            self.backing_off = self.wheel.arm(deadline, ACCEPT_TIMER).is_some();
        }
    }
}
