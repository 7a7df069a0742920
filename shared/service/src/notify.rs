//! What the service manager is told: ready, reloading, stopping, alive.
//!
//! ```text
//!   core 0 ─ beat ─┐                    tick: did every core beat since the last feed?
//!   core 1 ─ beat ─┼─► Heartbeats ─►     yes → WATCHDOG=1, remember the counts
//!   control ─ tick ┘                     no  → nothing: systemd kills what stays silent
//!                                        then poke the cores, so that a sleeping one beats
//! ```
//!
//! The protocol is `sd_notify(3)`: lines of `NAME=value` in one datagram to the socket that
//! `NOTIFY_SOCKET` names. Without that variable every message is a success that goes nowhere, so
//! that a daemon need not ask where it runs.

use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::time::ClockId;

/// A message to the service manager.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// The daemon serves. Also ends a reload.
    Ready,
    /// The daemon reads its configuration again. Sent with the monotonic time, by which systemd
    /// tells this reload from an earlier one (`Type=notify-reload`).
    Reloading,
    /// The daemon has begun to stop.
    Stopping,
    /// One line for `systemctl status`.
    Status(String),
    /// Every core turned.
    Watchdog,
}

impl State {
    fn lines(&self) -> String {
        match self {
            Self::Ready => "READY=1\n".to_owned(),
            Self::Reloading => {
                let now = rustix::time::clock_gettime(ClockId::Monotonic);
                let usec = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
                format!("RELOADING=1\nMONOTONIC_USEC={usec}\n")
            }
            Self::Stopping => "STOPPING=1\n".to_owned(),
            Self::Status(text) => format!("STATUS={}\n", text.replace(['\n', '\r'], " ")),
            Self::Watchdog => "WATCHDOG=1\n".to_owned(),
        }
    }
}

/// The way to the service manager, or to nobody.
#[derive(Debug)]
pub struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// As the environment says: `NOTIFY_SOCKET`, and `WATCHDOG_USEC` where `WATCHDOG_PID` is this
    /// process or not given.
    ///
    /// # Errors
    ///
    /// The socket's name is none, or no socket can be made.
    pub fn from_env() -> io::Result<Self> {
        let text = |name: &str| std::env::var(name).ok();
        let for_us = text("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let watchdog = text("WATCHDOG_USEC")
            .filter(|_| for_us)
            .and_then(|usec| usec.parse().ok())
            .filter(|usec| *usec > 0)
            .map(Duration::from_micros);
        Self::new(std::env::var_os("NOTIFY_SOCKET").as_deref(), watchdog)
    }

    /// To the socket at `path` (a leading `@` is one in the abstract namespace), with the interval
    /// in which the watchdog wants to be fed.
    ///
    /// # Errors
    ///
    /// The path is no socket address, or no socket can be made.
    pub fn new(path: Option<&OsStr>, watchdog: Option<Duration>) -> io::Result<Self> {
        let socket = match path.filter(|path| !path.is_empty()) {
            None => None,
            Some(path) => {
                let address = match path.as_bytes().strip_prefix(b"@") {
                    Some(name) => SocketAddr::from_abstract_name(name)?,
                    None => SocketAddr::from_pathname(PathBuf::from(path))?,
                };
                let socket = UnixDatagram::unbound()?;
                // A service manager that does not read must not stop the control thread.
                socket.set_nonblocking(true)?;
                Some((socket, address))
            }
        };
        Ok(Self { socket, watchdog })
    }

    /// Whether somebody listens.
    pub fn is_supervised(&self) -> bool {
        self.socket.is_some()
    }

    /// How often the watchdog wants to be fed, if at all.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Sends `states` in one datagram.
    ///
    /// # Errors
    ///
    /// The socket is gone or its queue is full. Nothing that a daemon should stop for.
    pub fn notify(&self, states: &[State]) -> io::Result<()> {
        let Some((socket, address)) = &self.socket else {
            return Ok(());
        };
        let message: String = states.iter().map(State::lines).collect();
        socket.send_to_addr(message.as_bytes(), address)?;
        Ok(())
    }

    /// Gives open descriptors into the service manager's keeping under `name`; after a restart
    /// they come back as activation sockets of that name (`FileDescriptorStoreMax=`).
    ///
    /// # Errors
    ///
    /// As [`notify`](Self::notify), and a name that `sd_notify(3)` does not allow.
    pub fn store(&self, name: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let allowed = |c: char| c.is_ascii_graphic() && c != ':';
        if name.is_empty() || name.len() > 255 || !name.chars().all(allowed) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no name for a descriptor"));
        }
        let Some((socket, address)) = &self.socket else {
            return Ok(());
        };
        // The kernel passes at most SCM_MAX_FD = 253 at once.
        for fds in fds.chunks(STORED_AT_ONCE) {
            let message = format!("FDSTORE=1\nFDNAME={name}\n");
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(STORED_AT_ONCE))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            assert!(
                control.push(SendAncillaryMessage::ScmRights(fds)),
                "the buffer has their size"
            );
            let address = match address.as_abstract_name() {
                Some(name) => rustix::net::SocketAddrUnix::new_abstract_name(name)?,
                None => {
                    rustix::net::SocketAddrUnix::new(address.as_pathname().unwrap_or("".as_ref()))?
                }
            };
            let parts = [IoSlice::new(message.as_bytes())];
            rustix::net::sendmsg_addr(socket, &address, &parts, &mut control, SendFlags::NOSIGNAL)?;
        }
        Ok(())
    }
}

const STORED_AT_ONCE: usize = 64;

/// A count that its core raises at each turn, alone in its cache lines.
#[repr(align(128))]
#[derive(Debug, Default)]
struct Beat(AtomicU64);

/// The pulse of every core.
#[derive(Clone, Debug)]
pub struct Heartbeats(Arc<[Beat]>);

impl Heartbeats {
    /// For `cores` cores.
    pub fn new(cores: usize) -> Self {
        assert!(cores > 0, "a daemon without cores has no pulse");
        Self((0..cores).map(|_| Beat::default()).collect())
    }

    /// The handle of core `index`. Each core takes its own, once.
    pub fn core(&self, index: usize) -> Heartbeat {
        assert!(index < self.0.len(), "there are {} cores", self.0.len());
        Heartbeat { beats: Arc::clone(&self.0), index }
    }

    fn counts(&self) -> Vec<u64> {
        self.0.iter().map(|beat| beat.0.load(Ordering::Relaxed)).collect()
    }
}

/// What one core holds.
#[derive(Debug)]
pub struct Heartbeat {
    beats: Arc<[Beat]>,
    index: usize,
}

impl Heartbeat {
    /// Says that the core turned. A load and a store: call it every turn.
    #[inline]
    pub fn beat(&self) {
        let beat = &self.beats[self.index].0;
        beat.store(beat.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }
}

/// Judges the pulse, in the time that its caller tells.
#[derive(Debug)]
pub struct Pulse {
    heartbeats: Heartbeats,
    /// The counts when the watchdog was fed last.
    fed: Vec<u64>,
    /// The counts at the last tick, and when each core was last seen to have moved on.
    seen: Vec<(u64, Instant)>,
}

/// What a tick found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Every core turned since the watchdog was fed last: feed it.
    pub feed: bool,
    /// For each core how long ago it was last seen to have turned.
    pub silent: Vec<Duration>,
}

impl Pulse {
    /// Begins to listen at `now`; every core has until the first judgement to turn.
    pub fn new(heartbeats: Heartbeats, now: Instant) -> Self {
        let counts = heartbeats.counts();
        let seen = counts.iter().map(|count| (*count, now)).collect();
        Self { heartbeats, fed: counts, seen }
    }

    /// Looks at every core.
    pub fn tick(&mut self, now: Instant) -> Verdict {
        let counts = self.heartbeats.counts();
        for (seen, count) in self.seen.iter_mut().zip(&counts) {
            if seen.0 != *count {
                *seen = (*count, now);
            }
        }
        let silent = self.seen.iter().map(|(_, at)| now.duration_since(*at)).collect();
        let feed = self.fed.iter().zip(&counts).all(|(fed, count)| fed != count);
        if feed {
            self.fed = counts;
        }
        Verdict { feed, silent }
    }
}

/// How often the pulse is taken when no watchdog asks for more.
pub const TICK: Duration = Duration::from_secs(1);

/// Feeds the watchdog and keeps `health` up to date, until it is dropped.
///
/// `poke` wakes every core: it is called after each look, so that a core which sleeps in its ring
/// has turned by the next one. A look is taken every third of the watchdog's interval, and at
/// least every [`TICK`]; so one late turn is no reason for a restart yet.
pub async fn watch(
    notifier: &Notifier,
    heartbeats: Heartbeats,
    health: &crate::admin::Health,
    poke: impl Fn(),
) {
    let period = notifier.watchdog().map_or(TICK, |interval| (interval / 3).min(TICK));
    let now = || tokio::time::Instant::now().into_std();
    let mut pulse = Pulse::new(heartbeats, now());
    let mut ticks = tokio::time::interval(period.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    poke();
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let verdict = pulse.tick(now());
        if verdict.feed && notifier.watchdog().is_some() {
            // The next tick tries again; there are three in an interval.
            let _ = notifier.notify(&[State::Watchdog]);
        }
        health.set_silence(&verdict.silent);
        poke();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::os::fd::AsFd;

    fn manager() -> (tempfile::TempDir, UnixDatagram, Notifier) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let notifier = Notifier::new(Some(path.as_os_str()), Some(Duration::from_secs(3))).unwrap();
        (dir, socket, notifier)
    }

    fn received(socket: &UnixDatagram) -> Option<String> {
        let mut buffer = [0; 1024];
        let len = socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..len].to_vec()).unwrap())
    }

    #[test]
    fn states_arrive_as_sd_notify_wants_them() {
        let (_dir, socket, notifier) = manager();
        notifier.notify(&[State::Ready, State::Status("2 cores\nup".to_owned())]).unwrap();
        assert_eq!(received(&socket).unwrap(), "READY=1\nSTATUS=2 cores up\n");
        notifier.notify(&[State::Stopping]).unwrap();
        assert_eq!(received(&socket).unwrap(), "STOPPING=1\n");
        notifier.notify(&[State::Reloading]).unwrap();
        let reloading = received(&socket).unwrap();
        let usec = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().trim();
        assert!(usec.parse::<u64>().unwrap() > 0);
    }

    #[test]
    fn without_a_manager_every_message_succeeds() {
        let notifier = Notifier::new(None, None).unwrap();
        notifier.notify(&[State::Ready]).unwrap();
        assert!(!notifier.is_supervised());
    }

    #[test]
    fn a_manager_in_the_abstract_namespace_is_reached() {
        let name = format!("sextant-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        let notifier = Notifier::new(Some(format!("@{name}").as_ref()), None).unwrap();
        notifier.notify(&[State::Ready]).unwrap();
        assert_eq!(received(&socket).unwrap(), "READY=1\n");
    }

    #[test]
    fn stored_descriptors_arrive_open_and_named() {
        let (_dir, socket, notifier) = manager();
        let kept = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        notifier.store("mqtt", &[kept.as_fd()]).unwrap();
        let mut bytes = [0; 256];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = rustix::net::RecvAncillaryBuffer::new(&mut space);
        let got = rustix::net::recvmsg(
            &socket,
            &mut [io::IoSliceMut::new(&mut bytes)],
            &mut control,
            rustix::net::RecvFlags::empty(),
        )
        .unwrap();
        assert_eq!(&bytes[..got.bytes], b"FDSTORE=1\nFDNAME=mqtt\n");
        let fds: Vec<_> = control
            .drain()
            .filter_map(|message| match message {
                rustix::net::RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                _ => None,
            })
            .flatten()
            .collect();
        let copy = std::net::TcpListener::from(fds.into_iter().next().unwrap());
        assert_eq!(copy.local_addr().unwrap(), kept.local_addr().unwrap());
        assert!(notifier.store("a:b", &[kept.as_fd()]).is_err());
    }

    #[test]
    fn the_watchdog_is_fed_only_when_every_core_turned_since_the_last_feed() {
        let heartbeats = Heartbeats::new(2);
        let (first, second) = (heartbeats.core(0), heartbeats.core(1));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut pulse = Pulse::new(heartbeats, start);
        assert!(!pulse.tick(at(1)).feed, "nobody turned");
        first.beat();
        let verdict = pulse.tick(at(2));
        assert!(!verdict.feed, "one of two turned");
        assert_eq!(verdict.silent, [Duration::ZERO, Duration::from_secs(2)]);
        second.beat();
        assert!(pulse.tick(at(3)).feed, "both turned since the start");
        assert!(!pulse.tick(at(4)).feed, "nobody turned since the feed");
        first.beat();
        second.beat();
        assert!(pulse.tick(at(5)).feed);
    }

    #[test]
    fn a_sleeping_core_is_poked_and_a_stuck_one_starves_the_watchdog() {
        let (_dir, socket, notifier) = manager();
        let heartbeats = Heartbeats::new(2);
        let (first, second) = (heartbeats.core(0), heartbeats.core(1));
        let stuck = std::sync::atomic::AtomicBool::new(false);
        let poke = || {
            first.beat();
            if !stuck.load(Ordering::Relaxed) {
                second.beat();
            }
        };
        let health = crate::admin::Health::default();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let watching = watch(&notifier, heartbeats.clone(), &health, poke);
            let _ = tokio::time::timeout(Duration::from_millis(10_500), watching).await;
            let feeds = std::iter::from_fn(|| received(&socket)).count();
            assert_eq!(feeds, 10, "one a second");
            assert!(health.is_alive());
            stuck.store(true, Ordering::Relaxed);
            let watching = watch(&notifier, heartbeats.clone(), &health, poke);
            let _ = tokio::time::timeout(Duration::from_secs(30), watching).await;
            assert_eq!(received(&socket), None);
            assert!(!health.is_alive());
        });
    }
}
