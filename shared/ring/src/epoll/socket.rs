//! A socket of the driver: its descriptor, what the kernel last said of its readiness, and the
//! operations that wait for it.
//!
//! Readiness is told once, when it begins, and so is remembered here until a call finds that it is
//! over. Mostly the call that finds it is one that was due anyway: a receive that comes back with
//! less than there was room for has emptied a stream. That does not hold where the kernel cuts a
//! receive short for another reason, or where the end of the stream is behind the bytes and was
//! told together with them: [`Sock::thorough`] says that, and such a socket is asked until it has
//! nothing.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use bytes::Bytes;
use mio::event::Event;
use rustix::io::Errno;
use rustix::net::{
    RecvFlags, SendAncillaryBuffer, SendFlags, recv, recvfrom, send, sendmsg, sendto,
};

use crate::driver::{Group, Outgoing, Token};

pub(super) struct Sock {
    pub(super) fd: OwnedFd,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// A short receive does not mean that nothing is left.
    thorough: bool,
    /// It is in a list of sockets that can go on.
    pub(super) queued: bool,
    /// The round of the driver in which it last received, and how often it did.
    pub(super) served: (u32, u8),
    /// The kernel would not watch it: every operation that had to wait fails with this.
    pub(super) broken: Option<Errno>,
    pub(super) receiving: Option<(Token, Group)>,
    pub(super) out: Out,
}

/// What waits for a socket to take something.
pub(super) enum Out {
    Nothing,
    Connect(Token),
    Send(Box<Sending>),
    /// Of a datagram socket, in order.
    Datagrams(VecDeque<Datagram>),
}

/// A send that the socket has not taken whole.
pub(super) struct Sending {
    pub(super) token: Token,
    pub(super) data: Outgoing,
}

/// Why a receive brought no bytes.
pub(super) enum Stop {
    /// There is nothing now.
    Empty,
    /// The peer is done.
    Ended,
    Failed(io::Error),
}

pub(super) struct Datagram {
    pub(super) token: Token,
    pub(super) to: SocketAddr,
    pub(super) data: Bytes,
}

impl Sock {
    /// A socket that was just made: it takes bytes until it says otherwise, and has none until
    /// the kernel says so.
    pub(super) fn new(fd: OwnedFd, out: Out) -> Sock {
        Sock {
            fd,
            readable: false,
            writable: true,
            thorough: false,
            queued: false,
            served: (0, 0),
            broken: None,
            receiving: None,
            out,
        }
    }

    pub(super) fn is_datagram(&self) -> bool {
        matches!(self.out, Out::Datagrams(_))
    }

    /// Whether no operation is under way.
    pub(super) fn is_idle(&self) -> bool {
        let out_idle = match &self.out {
            Out::Nothing => true,
            Out::Datagrams(waiting) => waiting.is_empty(),
            Out::Connect(_) | Out::Send(_) => false,
        };
        out_idle && self.receiving.is_none()
    }

    /// Takes note of what the kernel tells.
    pub(super) fn observe(&mut self, event: &Event) {
        let failed = event.is_error();
        self.readable |= event.is_readable() || event.is_read_closed() || failed;
        self.writable |= event.is_writable() || event.is_write_closed() || failed;
        self.thorough |= event.is_read_closed() || event.is_priority() || failed;
    }

    /// Lets everything that waits find out what became of the connection.
    pub(super) fn look_again(&mut self) {
        (self.readable, self.writable, self.thorough) = (true, true, true);
    }

    /// Whether an operation can go on.
    pub(super) fn can_go_on(&self) -> bool {
        self.can_receive() || self.can_send()
    }

    pub(super) fn can_receive(&self) -> bool {
        self.receiving.is_some() && self.readable
    }

    pub(super) fn can_send(&self) -> bool {
        self.writable
            && match &self.out {
                Out::Nothing => false,
                Out::Datagrams(waiting) => !waiting.is_empty(),
                Out::Connect(_) | Out::Send(_) => true,
            }
    }

    /// How many receives it has had in this round of the driver's.
    pub(super) fn served_in(&self, round: u32) -> u8 {
        if self.served.0 == round { self.served.1 } else { 0 }
    }

    /// Receives into `room`, of which there is some.
    pub(super) fn receive(&mut self, room: &mut [u8]) -> Result<usize, Stop> {
        let len = room.len();
        loop {
            match recv(&self.fd, &mut *room, RecvFlags::empty()) {
                // At its end a stream stays readable: the end is met again and again.
                Ok((0, _)) => return Err(Stop::Ended),
                Ok((got, _)) => {
                    self.readable = self.thorough || got == len;
                    return Ok(got);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(self.stop(error)),
            }
        }
    }

    fn stop(&mut self, error: Errno) -> Stop {
        if error == Errno::AGAIN {
            self.readable = false;
            return Stop::Empty;
        }
        Stop::Failed(error.into())
    }

    /// Receives a datagram, cut off where it is longer than `room`.
    pub(super) fn receive_from(&mut self, room: &mut [u8]) -> Result<(usize, SocketAddr), Stop> {
        loop {
            match recvfrom(&self.fd, &mut *room, RecvFlags::empty()) {
                Ok((got, _, from)) => {
                    let from = from.and_then(|from| SocketAddr::try_from(from).ok());
                    let unknown = || Stop::Failed(io::ErrorKind::InvalidData.into());
                    return from.map(|from| (got, from)).ok_or_else(unknown);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(self.stop(error)),
            }
        }
    }

    /// Sends as much as the socket takes; whether that is all.
    pub(super) fn transmit(&mut self, data: &mut Outgoing) -> io::Result<bool> {
        let mut left = data.len();
        while left > 0 {
            match transmit_some(&self.fd, data) {
                Ok(sent) if sent >= left => return Ok(true),
                Ok(sent) => {
                    left -= sent;
                    data.skip(sent);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.writable = false;
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Sends a datagram, unless the socket takes none now.
    pub(super) fn transmit_to(&mut self, to: SocketAddr, data: &[u8]) -> io::Result<bool> {
        loop {
            match sendto(&self.fd, data, SendFlags::NOSIGNAL, &to) {
                Ok(_) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.writable = false;
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// How a connect ended, or `None` if it goes on.
    pub(super) fn connected(&mut self) -> Option<io::Result<()>> {
        match rustix::net::sockopt::socket_error(&self.fd) {
            Err(error) | Ok(Err(error)) => return Some(Err(error.into())),
            Ok(Ok(())) => {}
        }
        match rustix::net::getpeername(&self.fd) {
            Ok(_) => Some(Ok(())),
            Err(Errno::NOTCONN) => {
                self.writable = false;
                None
            }
            Err(error) => Some(Err(error.into())),
        }
    }
}

fn transmit_some(fd: impl AsFd, data: &Outgoing) -> rustix::io::Result<usize> {
    match data {
        Outgoing::One(bytes) => send(fd, bytes, SendFlags::NOSIGNAL),
        Outgoing::Many(runs) => {
            let mut slices = [IoSlice::new(&[]); Outgoing::RUNS_MAX];
            for (slice, run) in slices.iter_mut().zip(runs) {
                *slice = IoSlice::new(run);
            }
            let slices = &slices[..runs.len().min(Outgoing::RUNS_MAX)];
            sendmsg(fd, slices, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)
        }
    }
}
