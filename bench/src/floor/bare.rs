//! The floor's server as one would write it by hand: one thread, level-triggered epoll, `accept4`,
//! `recv` and `send`. A lone message leaves in a `send` of its own, from where it was received;
//! what comes to wait at a socket within one round of the loop leaves together, and what the kernel
//! does not take waits for `EPOLLOUT`.

use std::net::TcpListener;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send};

use super::FRAME_BYTES;
use super::session::Role;

/// What `data` of an event holds: a listener's index with this bit, or a connection's.
const LISTENER: u64 = 1 << 63;
const EVENTS_MAX: usize = 1024;
const READ_BYTES: usize = 64 * 1024;

struct Conn {
    fd: OwnedFd,
    /// `None` until it has asked for one.
    role: Option<Role>,
    /// What waits to be sent, from `sent` on.
    backlog: Vec<u8>,
    sent: usize,
    /// Listed in `dirty`.
    dirty: bool,
    /// `EPOLLOUT` is asked for.
    blocked: bool,
}

struct Server {
    epoll: OwnedFd,
    listeners: Vec<TcpListener>,
    conns: Vec<Option<Conn>>,
    free: Vec<usize>,
    subscribers: Vec<usize>,
    /// Connections with something to send at the round's end.
    dirty: Vec<usize>,
    /// A publisher's frame whose end is still to come.
    partial: Vec<u8>,
}

pub(super) fn serve(listeners: Vec<TcpListener>) -> Result<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for (n, listener) in listeners.iter().enumerate() {
        listener.set_nonblocking(true)?;
        let data = EventData::new_u64(LISTENER | n as u64);
        epoll::add(&epoll, listener, data, EventFlags::IN)?;
    }
    let mut server = Server {
        epoll,
        listeners,
        conns: Vec::new(),
        free: Vec::new(),
        subscribers: Vec::new(),
        dirty: Vec::new(),
        partial: Vec::new(),
    };
    let mut events = Vec::with_capacity(EVENTS_MAX);
    let mut buf = vec![0; READ_BYTES];
    loop {
        events.clear();
        match epoll::wait(&server.epoll, spare_capacity(&mut events), None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error).context("epoll_wait"),
        }
        for event in &events {
            let (data, flags) = (event.data.u64(), event.flags);
            if data & LISTENER != 0 {
                server.accept((data & !LISTENER) as usize)?;
                continue;
            }
            let at = data as usize;
            if flags.contains(EventFlags::OUT) {
                server.flush(at)?;
            }
            if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                server.read(at, &mut buf)?;
            }
        }
        server.flush_dirty()?;
    }
}

impl Server {
    fn accept(&mut self, listener: usize) -> Result<()> {
        loop {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let fd = match accept_with(&self.listeners[listener], flags) {
                Ok(fd) => fd,
                Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => return Ok(()),
                Err(error) => return Err(error).context("accept4"),
            };
            let at = self.free.pop().unwrap_or_else(|| {
                self.conns.push(None);
                self.conns.len() - 1
            });
            epoll::add(&self.epoll, &fd, EventData::new_u64(at as u64), EventFlags::IN)?;
            self.conns[at] = Some(Conn {
                fd,
                role: None,
                backlog: Vec::new(),
                sent: 0,
                dirty: false,
                blocked: false,
            });
        }
    }

    fn close(&mut self, at: usize) {
        // Closing the descriptor takes it out of the epoll set.
        if let Some(conn) = self.conns[at].take() {
            if conn.role == Some(Role::Subscribe) {
                self.subscribers.retain(|other| *other != at);
            }
            self.free.push(at);
        }
    }

    fn read(&mut self, at: usize, buf: &mut [u8]) -> Result<()> {
        let Some(conn) = &self.conns[at] else { return Ok(()) };
        let len = match recv(&conn.fd, &mut *buf, RecvFlags::empty()) {
            Ok((0, _)) | Err(Errno::CONNRESET) => {
                self.close(at);
                return Ok(());
            }
            Ok((len, _)) => len,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(error) => return Err(error).context("recv"),
        };
        match conn.role {
            None => self.greet(at, Role::of(buf[0])),
            Some(Role::Echo) => self.send(at, &buf[..len]),
            Some(Role::Publish) => self.publish(&buf[..len]),
            Some(Role::Subscribe | Role::Close) => Ok(()),
        }
    }

    fn greet(&mut self, at: usize, role: Role) -> Result<()> {
        if role == Role::Close {
            self.close(at);
            return Ok(());
        }
        if let Some(conn) = &mut self.conns[at] {
            conn.role = Some(role);
        }
        if role == Role::Subscribe {
            self.subscribers.push(at);
        }
        self.send(at, b"+")
    }

    fn publish(&mut self, data: &[u8]) -> Result<()> {
        if self.partial.is_empty() && data.len() == FRAME_BYTES {
            for n in 0..self.subscribers.len() {
                self.send(self.subscribers[n], data)?;
            }
            return Ok(());
        }
        let mut rest = data;
        while !rest.is_empty() {
            let missing = (FRAME_BYTES - self.partial.len()).min(rest.len());
            self.partial.extend_from_slice(&rest[..missing]);
            rest = &rest[missing..];
            if self.partial.len() == FRAME_BYTES {
                let frame = std::mem::take(&mut self.partial);
                for n in 0..self.subscribers.len() {
                    self.queue(self.subscribers[n], &frame);
                }
                self.partial = frame;
                self.partial.clear();
            }
        }
        Ok(())
    }

    /// Sends at once if nothing waits before it.
    fn send(&mut self, at: usize, data: &[u8]) -> Result<()> {
        let Some(conn) = &mut self.conns[at] else { return Ok(()) };
        if !conn.backlog.is_empty() {
            conn.backlog.extend_from_slice(data);
            return Ok(());
        }
        let sent = match send(&conn.fd, data, SendFlags::NOSIGNAL) {
            Ok(sent) => sent,
            Err(Errno::AGAIN) => 0,
            Err(_) => {
                self.close(at);
                return Ok(());
            }
        };
        if sent < data.len() {
            conn.backlog.extend_from_slice(&data[sent..]);
            self.ask_for_room(at, true)?;
        }
        Ok(())
    }

    /// Sends at the round's end.
    fn queue(&mut self, at: usize, data: &[u8]) {
        let Some(conn) = &mut self.conns[at] else { return };
        conn.backlog.extend_from_slice(data);
        if !conn.blocked && !std::mem::replace(&mut conn.dirty, true) {
            self.dirty.push(at);
        }
    }

    fn flush_dirty(&mut self) -> Result<()> {
        let mut dirty = std::mem::take(&mut self.dirty);
        for at in dirty.drain(..) {
            if let Some(conn) = &mut self.conns[at] {
                conn.dirty = false;
                self.flush(at)?;
            }
        }
        self.dirty = dirty;
        Ok(())
    }

    fn flush(&mut self, at: usize) -> Result<()> {
        let Some(conn) = &mut self.conns[at] else { return Ok(()) };
        match send(&conn.fd, &conn.backlog[conn.sent..], SendFlags::NOSIGNAL) {
            Ok(sent) => conn.sent += sent,
            Err(Errno::AGAIN) => {}
            Err(_) => {
                self.close(at);
                return Ok(());
            }
        }
        let is_empty = conn.sent == conn.backlog.len();
        if is_empty {
            conn.backlog.clear();
            conn.sent = 0;
        }
        self.ask_for_room(at, !is_empty)
    }

    fn ask_for_room(&mut self, at: usize, blocked: bool) -> Result<()> {
        let Some(conn) = &mut self.conns[at] else { return Ok(()) };
        if std::mem::replace(&mut conn.blocked, blocked) != blocked {
            let out = if blocked { EventFlags::OUT } else { EventFlags::empty() };
            let data = EventData::new_u64(at as u64);
            epoll::modify(&self.epoll, &conn.fd, data, EventFlags::IN | out)?;
        }
        Ok(())
    }
}
