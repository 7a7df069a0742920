//! The other side, for tests: scripted peers that a test drives from outside of any core. What
//! they do takes effect as virtual time passes.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

use super::World;
use super::net::{EndId, Owner, addr_of};
use super::state::Event;
use crate::driver::Listener;

/// A scripted end of a connection. It reads whatever arrives, unless told not to, and closes when
/// it is dropped.
pub struct SimPeer {
    world: World,
    end: EndId,
    local: SocketAddr,
    /// What was left when the connection was forgotten by the world.
    closed: bool,
}

impl SimPeer {
    pub(super) fn connect(world: World, to: SocketAddr) -> SimPeer {
        let mut state = world.lock();
        let end = state.net.new_caller(Owner::Peer, to);
        let local = state.end(end).expect("it was just made").local;
        let at = state.after_network();
        state.schedule(at, Event::Syn { from: end, to });
        drop(state);
        SimPeer { world, end, local, closed: false }
    }

    fn accepted(world: World, end: EndId) -> SimPeer {
        let mut state = world.lock();
        let accepted = state.end(end).expect("it waited");
        accepted.owner = Owner::Peer;
        let local = accepted.local;
        state.became_readable(end);
        drop(state);
        SimPeer { world, end, local, closed: false }
    }

    /// Its own address.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Sends bytes, as the other side's window lets them through.
    pub fn send(&self, bytes: &[u8]) {
        let mut state = self.world.lock();
        let at = state.after_local();
        let end = self.end;
        if let Some(sender) = state.end(end)
            && !sender.dead
            && !bytes.is_empty()
        {
            assert!(sender.fin == super::net::Fin::No, "a peer that has finished sends no more");
            sender.outbox.push_back(Bytes::copy_from_slice(bytes));
            state.schedule(at, Event::Pump { end });
        }
    }

    /// Bytes that [`SimPeer::send`] was given and the window has not let through.
    pub fn unsent(&self) -> usize {
        let mut state = self.world.lock();
        state.end(self.end).map_or(0, |end| end.outbox.iter().map(Bytes::len).sum())
    }

    /// Takes what it has read since it was last asked.
    pub fn received(&self) -> Vec<u8> {
        let mut state = self.world.lock();
        state.end(self.end).map(|end| std::mem::take(&mut end.read)).unwrap_or_default()
    }

    /// How many bytes [`SimPeer::received`] would give.
    pub fn received_len(&self) -> usize {
        self.world.lock().end(self.end).map_or(0, |end| end.read.len())
    }

    /// Stops reading: the other side soon finds the window full.
    pub fn pause_reading(&self) {
        if let Some(end) = self.world.lock().end(self.end) {
            end.paused = true;
        }
    }

    /// Goes on reading.
    pub fn resume_reading(&self) {
        let mut state = self.world.lock();
        if let Some(end) = state.end(self.end) {
            end.paused = false;
        }
        state.became_readable(self.end);
    }

    /// Ends sending, behind what is still to be sent, and goes on reading.
    pub fn finish(&self) {
        self.world.lock().finish_sending(self.end);
    }

    /// Closes in order, behind what is still to be sent; what arrives afterwards is answered by a
    /// reset. Take what was received first.
    pub fn close(&mut self) {
        if !std::mem::replace(&mut self.closed, true) {
            self.world.lock().close_end(self.end);
        }
    }

    /// Ends the connection with a reset.
    pub fn reset(&mut self) {
        if !std::mem::replace(&mut self.closed, true) {
            self.world.lock().abandon(self.end);
        }
    }

    /// Whether the connection is established.
    pub fn is_connected(&self) -> bool {
        self.with(|end| end.peer.is_some()).unwrap_or(false)
    }

    /// Whether the other side refused the connection.
    pub fn is_refused(&self) -> bool {
        self.with(|end| end.refused).unwrap_or(false)
    }

    /// Whether the other side has ended its sending, in order, and everything was read.
    pub fn is_finished(&self) -> bool {
        self.with(|end| end.eof && end.queue_bytes == 0).unwrap_or(false)
    }

    /// Whether the other side has reset the connection.
    pub fn is_reset(&self) -> bool {
        self.with(|end| end.error.is_some()).unwrap_or(false)
    }

    /// Whether the other side has ended the connection, in whichever way, or this one has.
    pub fn is_closed(&self) -> bool {
        self.closed
            || self.with(|end| end.dead || (end.eof && end.queue_bytes == 0)).unwrap_or(true)
    }

    fn with<T>(&self, look: impl FnOnce(&super::net::End) -> T) -> Option<T> {
        self.world.lock().end(self.end).map(|end| look(end))
    }
}

impl Drop for SimPeer {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for SimPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimPeer({})", self.local)
    }
}

/// Accepts connections for a test, for cores that connect to somewhere.
pub struct SimListener {
    world: World,
    listener: Arc<Listener>,
}

impl SimListener {
    pub(super) fn new(world: World, addr: SocketAddr) -> SimListener {
        let listener = Arc::new(Listener::sim(addr));
        world.lock().listen(&listener);
        SimListener { world, listener }
    }

    /// The next connection that has arrived.
    pub fn accept(&self) -> Option<SimPeer> {
        let end = self.world.lock().take_backlog(addr_of(&self.listener))?;
        Some(SimPeer::accepted(self.world.clone(), end))
    }
}

impl fmt::Debug for SimListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimListener({})", addr_of(&self.listener))
    }
}

/// A scripted datagram socket. It is closed when it is dropped.
pub struct SimUdp {
    world: World,
    addr: SocketAddr,
}

impl SimUdp {
    pub(super) fn bind(world: World, addr: SocketAddr) -> std::io::Result<SimUdp> {
        let addr = world.lock().net.bind_datagram(addr, None)?;
        Ok(SimUdp { world, addr })
    }

    /// Its own address.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Sends a datagram.
    pub fn send_to(&self, to: SocketAddr, data: &[u8]) {
        self.world.lock().send_datagram(self.addr, to, &Bytes::copy_from_slice(data));
    }

    /// Takes the next datagram that has arrived, with its sender.
    pub fn receive(&self) -> Option<(SocketAddr, Bytes)> {
        self.world.lock().net.datagrams.get_mut(&self.addr)?.queue.pop_front()
    }
}

impl Drop for SimUdp {
    fn drop(&mut self) {
        self.world.lock().net.datagrams.remove(&self.addr);
    }
}

impl fmt::Debug for SimUdp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimUdp({})", self.addr)
    }
}
