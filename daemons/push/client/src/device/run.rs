//! The device's thread: the socket, the clock, and the handler.
//!
//! It sleeps in one place, `poll`, on the socket and on the waker, until the next deadline.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Deserialize;
use sextant_mqtt::ReasonCode;
use socket2::{Domain, Socket, Type};
use uuid::Uuid;

use super::protocol::{End, Hello, Inbox, Protocol, Topics};
use super::{Event, Handler, Kind, Message, Options, Outgoing, STOP_TIME_MAX};
use crate::backoff::Backoff;

/// How long it may take until a device is connected and subscribed, for each address.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(15);
/// How long a connection must have lasted for the next wait to be a short one again.
const STABLE_AFTER: Duration = Duration::from_secs(10);
/// How long the last packet may take.
const GOODBYE_TIME_MAX: Duration = Duration::from_secs(1);
const READ_BYTES: usize = 16 << 10;

/// Wakes the thread from elsewhere.
#[derive(Debug)]
pub(super) struct Waker {
    give: UnixStream,
    take: UnixStream,
}

impl Waker {
    pub(super) fn new() -> io::Result<Waker> {
        let (give, take) = UnixStream::pair()?;
        give.set_nonblocking(true)?;
        take.set_nonblocking(true)?;
        Ok(Waker { give, take })
    }

    pub(super) fn wake(&self) {
        // A pipe that is full wakes as well.
        let _ = (&self.give).write(&[0]);
    }

    fn clear(&self) {
        let mut buffer = [0; 64];
        while matches!((&self.take).read(&mut buffer), Ok(n) if n == buffer.len()) {}
    }
}

pub(super) struct Worker {
    options: Options,
    outgoing: Outgoing,
    handler: Box<dyn Handler>,
    began: Instant,
}

/// What the daemon publishes.
#[derive(Deserialize)]
struct Payload {
    id: Uuid,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    sent_at: Option<jiff::Timestamp>,
    #[serde(default)]
    notification: Option<crate::types::Notification>,
    #[serde(default)]
    data: Option<serde_json::Map<String, serde_json::Value>>,
}

impl Worker {
    pub(super) fn new(options: Options, outgoing: Outgoing, handler: Box<dyn Handler>) -> Worker {
        Worker { options, outgoing, handler, began: Instant::now() }
    }

    /// Connects again and again until told to stop.
    pub(super) fn run(mut self) {
        let mut backoff = Backoff::new(self.options.first_wait_max, self.options.wait_max);
        while !self.is_stopping() {
            let mut subscribed_at = None;
            let end = self.connect(&mut subscribed_at);
            {
                let mut state = self.outgoing.shared.state();
                state.connected = false;
                state.outbox.lost();
            }
            if self.is_stopping() {
                return;
            }
            if subscribed_at.is_some_and(|at: Instant| at.elapsed() >= STABLE_AFTER) {
                backoff.reset();
            }
            let wait = backoff.wait();
            let why = end.to_string();
            self.handler.event(&Event::Disconnected { why: &why, wait });
            self.sleep(wait);
        }
    }

    fn is_stopping(&self) -> bool {
        self.outgoing.shared.state().stopping
    }

    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis().try_into().unwrap_or(u64::MAX)
    }

    /// Sleeps, unless told to stop.
    fn sleep(&self, wait: Duration) {
        let until = Instant::now() + wait;
        while !self.is_stopping() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let mut fds = [PollFd::new(&self.outgoing.shared.waker.take, PollFlags::IN)];
            // A signal, or a receipt that comes meanwhile, is one more turn.
            let _ = poll(&mut fds, Some(&timespec(left)));
            self.outgoing.shared.waker.clear();
        }
    }

    /// Tries each address of the broker, and stays with the first that answers.
    fn connect(&mut self, subscribed_at: &mut Option<Instant>) -> End {
        let addresses = match self.options.address.to_socket_addrs() {
            Ok(addresses) => addresses.collect::<Vec<_>>(),
            Err(error) => return error.into(),
        };
        let mut end = io::Error::new(io::ErrorKind::NotFound, "the broker has no address").into();
        for address in addresses {
            end = match open(address) {
                Ok(socket) => self.serve(&socket, subscribed_at).unwrap_or_else(|end| end),
                Err(error) => error.into(),
            };
            if subscribed_at.is_some() || self.is_stopping() {
                break;
            }
        }
        end
    }

    /// Serves a connection until its end.
    fn serve(
        &mut self,
        socket: &TcpStream,
        subscribed_at: &mut Option<Instant>,
    ) -> Result<End, End> {
        let topics = Topics::new(&self.options.device);
        let mut protocol = self.hello(&topics)?;
        let connect_by = Instant::now() + CONNECT_TIME_MAX;
        let mut stop_by = None;
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let now_ms = self.now_ms();
            protocol.handle_timeout(now_ms)?;
            self.publish(&mut protocol)?;
            let (stopping, is_idle) = {
                let state = self.outgoing.shared.state();
                (state.stopping, state.outbox.is_empty())
            };
            if stopping {
                let by = *stop_by.get_or_insert_with(|| Instant::now() + STOP_TIME_MAX);
                if is_idle || !protocol.is_subscribed() || Instant::now() >= by {
                    protocol.disconnect(now_ms);
                    say_goodbye(socket, protocol.out());
                    return Ok(End::Stopped);
                }
            }
            let connect_by = (!protocol.is_subscribed()).then_some(connect_by);
            if connect_by.is_some_and(|by| Instant::now() >= by) {
                return Err(End::Silence);
            }
            let keep_alive = protocol.deadline_ms().map(|at| at.saturating_sub(now_ms));
            let until = [stop_by, connect_by].into_iter().flatten().min();
            let until = until.map(|by| by.saturating_duration_since(Instant::now()));
            let wait = [keep_alive.map(Duration::from_millis), until].into_iter().flatten().min();
            let ready = self.wait(socket, !protocol.out().is_empty(), wait)?;
            if ready.intersects(PollFlags::OUT | PollFlags::ERR | PollFlags::HUP)
                && let Some(error) = socket.take_error()?
            {
                return Err(error.into());
            }
            if ready.contains(PollFlags::OUT) {
                write(socket, protocol.out())?;
            }
            if ready.intersects(PollFlags::IN | PollFlags::HUP) {
                let count = read(socket, &mut buffer)?;
                let mut arrivals = Arrivals { worker: self, subscribed_at };
                protocol.handle_input(now_ms, &buffer[..count], &mut arrivals)?;
            }
        }
    }

    fn hello<'t>(&self, topics: &'t Topics) -> Result<Protocol<'t>, End> {
        let token = self.outgoing.shared.state().token.clone();
        let keep_alive_s = self.options.keep_alive.as_secs().clamp(1, u64::from(u16::MAX));
        let hello = Hello {
            device: &self.options.device,
            token: &token,
            keep_alive_s: keep_alive_s as u16,
            session_expiry_s: self.options.session_expiry.as_secs().try_into().unwrap_or(u32::MAX),
        };
        Protocol::start(self.now_ms(), &hello, topics)
    }

    /// Publishes what waits, if nothing is under way.
    fn publish(&mut self, protocol: &mut Protocol<'_>) -> Result<(), End> {
        let Some(bytes_max) = protocol.publish_bytes_max() else { return Ok(()) };
        let next = self.outgoing.shared.state().outbox.next(bytes_max);
        if let Some((channel, payload)) = next {
            protocol.publish(self.now_ms(), channel, &payload)?;
        }
        Ok(())
    }

    /// Waits for the socket, for a wake-up, or for the time.
    fn wait(
        &self,
        socket: &TcpStream,
        has_output: bool,
        wait: Option<Duration>,
    ) -> Result<PollFlags, End> {
        let waker = &self.outgoing.shared.waker;
        let mut flags = PollFlags::IN;
        flags.set(PollFlags::OUT, has_output);
        let mut fds = [PollFd::new(socket, flags), PollFd::new(&waker.take, PollFlags::IN)];
        let timeout = wait.map(timespec);
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(PollFlags::empty()),
            Err(error) => return Err(io::Error::from(error).into()),
        }
        let ready = fds[0].revents();
        if !fds[1].revents().is_empty() {
            waker.clear();
        }
        Ok(ready)
    }
}

/// Gives what came to the handler.
struct Arrivals<'w> {
    worker: &'w mut Worker,
    subscribed_at: &'w mut Option<Instant>,
}

impl Inbox for Arrivals<'_> {
    fn subscribed(&mut self) {
        *self.subscribed_at = Some(Instant::now());
        self.worker.outgoing.shared.state().connected = true;
        self.worker.handler.event(&Event::Connected);
    }

    fn deliver(&mut self, payload: &[u8]) {
        let Worker { options, outgoing, handler, .. } = &mut *self.worker;
        let payload: Payload = match serde_json::from_slice(payload) {
            Ok(payload) => payload,
            Err(error) => {
                return handler.event(&Event::Ignored { why: &error.to_string() });
            }
        };
        let Payload { id, kind, sent_at, notification, data } = payload;
        let kind = match kind.as_str() {
            "message" => Kind::Message,
            "recall" => Kind::Recall,
            other => {
                let why = format!("it is of the type {other}, which this version does not know");
                return handler.event(&Event::Ignored { why: &why });
            }
        };
        if options.seen.is_seen(id, kind) {
            return;
        }
        match kind {
            Kind::Message => {
                handler.message(Message { id, sent_at, notification, data }, outgoing);
            }
            Kind::Recall => {
                handler.recall(id, outgoing);
                // Should the message come after all, it is not to be shown.
                options.seen.record(id, Kind::Message);
            }
        }
        options.seen.record(id, kind);
    }

    fn acknowledged(&mut self, refused: Option<ReasonCode>) -> bool {
        let mut state = self.worker.outgoing.shared.state();
        let is_done = match refused {
            // The broker, or its disk, has too much to do.
            Some(ReasonCode::QuotaExceeded | ReasonCode::UnspecifiedError) => return false,
            Some(ReasonCode::ImplementationSpecificError) => state.outbox.refused(),
            _ => {
                state.outbox.done();
                true
            }
        };
        drop(state);
        if let Some(reason) = refused.filter(|_| is_done) {
            self.worker.handler.event(&Event::Refused { why: &format!("{reason:?}") });
        }
        is_done
    }
}

/// Begins to connect.
fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error)
            if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) => return Err(error),
    }
    Ok(socket.into())
}

/// Reads what is there, which may be nothing.
fn read(mut socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    match socket.read(buffer) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(count) => Ok(count),
        Err(error) if is_passing(&error) => Ok(0),
        Err(error) => Err(error),
    }
}

fn write(mut socket: &TcpStream, out: &mut Vec<u8>) -> io::Result<()> {
    while !out.is_empty() {
        match socket.write(out) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => drop(out.drain(..count)),
            Err(error) if is_passing(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes the last packets, for as long as that may take.
fn say_goodbye(socket: &TcpStream, out: &mut Vec<u8>) {
    let by = Instant::now() + GOODBYE_TIME_MAX;
    while write(socket, out).is_ok() && !out.is_empty() {
        let left = by.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(socket, PollFlags::OUT)];
        if left.is_zero() || poll(&mut fds, Some(&timespec(left))).is_err() {
            return;
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// A span for `poll`, rounded up, so that it does not end before a deadline of milliseconds.
fn timespec(span: Duration) -> Timespec {
    let span = span + Duration::from_micros(999);
    Timespec {
        tv_sec: span.as_secs().min(i64::MAX as u64) as i64,
        tv_nsec: i64::from(span.subsec_nanos()),
    }
}
