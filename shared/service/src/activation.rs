#![allow(unsafe_code)]
//! Listening sockets: those that the service manager opened, and those we open ourselves.
//!
//! ```text
//!   LISTEN_PID=4711  LISTEN_FDS=2  LISTEN_FDNAMES=mqtt:admin
//!   descriptor 3 ─ "mqtt"
//!   descriptor 4 ─ "admin"                                    sd_listen_fds(3)
//! ```
//!
//! What was passed is checked before it is used: an open, listening stream socket, or the start
//! fails with a sentence. Ours get a long backlog, since a fleet that lost its daemon comes back
//! all at once.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::io::{Errno, FdFlags};
use rustix::net::SocketType;
use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait to be accepted; the kernel lowers it to `net.core.somaxconn`.
pub const BACKLOG: i32 = 4096;

/// The first descriptor that is passed.
const FIRST_FD: RawFd = 3;
/// More than any unit of ours passes.
const PASSED_MAX: usize = 256;

/// Why the sockets that were passed cannot be used. All of these are the unit's fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ActivationError {
    /// A variable does not hold what it must.
    #[error("{variable}=\"{value}\" is not what a service manager passes")]
    Variable {
        /// `LISTEN_PID` or `LISTEN_FDS`.
        variable: &'static str,
        /// What it holds.
        value: String,
    },
    /// As many names as descriptors are wanted.
    #[error("LISTEN_FDS says {fds} sockets, LISTEN_FDNAMES names {names}")]
    Names {
        /// The number of descriptors.
        fds: usize,
        /// The number of names.
        names: usize,
    },
    /// A descriptor is closed, no stream socket, or does not listen.
    #[error("descriptor {fd} (\"{name}\") was passed to us, but {what}")]
    Descriptor {
        /// Its number.
        fd: RawFd,
        /// Its name.
        name: String,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// The sockets that the service manager passed, by name.
#[derive(Debug, Default)]
pub struct Activation {
    sockets: Vec<(String, OwnedFd)>,
}

static TAKEN: AtomicBool = AtomicBool::new(false);

impl Activation {
    /// Takes over what was passed to this process. Nothing was, if `LISTEN_PID` is not ours.
    ///
    /// Goes near the beginning of `main`, before anything opens descriptors. A second call finds
    /// nothing.
    ///
    /// # Errors
    ///
    /// Variables or descriptors that are not what the protocol says.
    pub fn from_env() -> Result<Self, ActivationError> {
        if TAKEN.swap(true, Ordering::SeqCst) {
            return Ok(Self::default());
        }
        let variable = |name: &str| std::env::var(name).ok();
        let names = announced(
            std::process::id(),
            variable("LISTEN_PID").as_deref(),
            variable("LISTEN_FDS").as_deref(),
            variable("LISTEN_FDNAMES").as_deref(),
        )?;
        let mut sockets = Vec::new();
        for (fd, name) in (FIRST_FD..).zip(names) {
            sockets.push((name.clone(), adopt(fd, &name)?));
        }
        Ok(Self { sockets })
    }

    /// Takes out the sockets called `name`.
    pub fn take(&mut self, name: &str) -> Vec<OwnedFd> {
        self.sockets.extract_if(.., |(found, _)| found == name).map(|(_, fd)| fd).collect()
    }

    /// The names of those that nobody took, which deserve a warning.
    pub fn left(&self) -> Vec<&str> {
        self.sockets.iter().map(|(name, _)| name.as_str()).collect()
    }
}

/// The names of the sockets that the variables announce to process `pid`.
fn announced(
    pid: u32,
    listen_pid: Option<&str>,
    listen_fds: Option<&str>,
    names: Option<&str>,
) -> Result<Vec<String>, ActivationError> {
    let wrong = |variable, value: &str| {
        let value = value.to_owned();
        Err(ActivationError::Variable { variable, value })
    };
    let (Some(listen_pid), Some(listen_fds)) = (listen_pid, listen_fds) else {
        return Ok(Vec::new());
    };
    match listen_pid.parse::<u32>() {
        Ok(announced_to) if announced_to == pid => {}
        Ok(_) => return Ok(Vec::new()),
        Err(_) => return wrong("LISTEN_PID", listen_pid),
    }
    let fds = match listen_fds.parse::<usize>() {
        Ok(fds) if fds <= PASSED_MAX => fds,
        _ => return wrong("LISTEN_FDS", listen_fds),
    };
    let names: Vec<String> = match names {
        Some(names) if fds > 0 => names.split(':').map(str::to_owned).collect(),
        _ => vec!["unknown".to_owned(); fds],
    };
    if names.len() == fds {
        Ok(names)
    } else {
        Err(ActivationError::Names { fds, names: names.len() })
    }
}

/// Makes sure that `fd` is a listening stream socket, and takes ownership of it.
fn adopt(fd: RawFd, name: &str) -> Result<OwnedFd, ActivationError> {
    let wrong = |what| ActivationError::Descriptor { fd, name: name.to_owned(), what };
    if std::fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_err() {
        return Err(wrong("it is not open"));
    }
    // SAFETY: `fd` is open: the kernel lists it, as the line above found. It belongs to nothing
    // else of this process that could close it: whoever set LISTEN_PID to our id gave it, by the
    // protocol of `sd_listen_fds(3)`, to the one reader of those variables, and `TAKEN` lets only
    // the first call of `from_env` come here, once for each number.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    check(owned.as_fd()).map_err(wrong)?;
    Ok(owned)
}

fn check(fd: BorrowedFd<'_>) -> Result<(), &'static str> {
    rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC).map_err(|_| "it cannot be kept from children")?;
    match rustix::net::sockopt::socket_type(fd) {
        Ok(SocketType::STREAM) => {}
        Ok(_) => return Err("it is no stream socket"),
        Err(_) => return Err("it is no socket"),
    }
    match rustix::net::sockopt::socket_acceptconn(fd) {
        Ok(true) => Ok(()),
        _ => Err("it does not listen (Accept= must be no)"),
    }
}

/// Why an address cannot be listened on. The operator's to mend.
#[derive(Debug)]
pub struct ListenError {
    /// The address.
    pub addr: SocketAddr,
    /// Why.
    pub source: io::Error,
    daemon: &'static str,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}: ", self.addr)?;
        match self.source.kind() {
            io::ErrorKind::AddrInUse => {
                write!(f, "address in use: is another {} running?", self.daemon)
            }
            io::ErrorKind::AddrNotAvailable => f.write_str("this machine has no such address"),
            io::ErrorKind::PermissionDenied => {
                f.write_str("permission denied: ports below 1024 need CAP_NET_BIND_SERVICE")
            }
            _ => write!(f, "{}", self.source),
        }
    }
}

impl std::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Listens on `addr`: address reuse on, [`BACKLOG`], non-blocking, and IPv6 alone where the address
/// is of that kind (so that `0.0.0.0` and `[::]` can both be given). `daemon` is who the error
/// suspects, such as `sextant-push`.
///
/// # Errors
///
/// The kernel refuses; the error says the address, and why in words.
pub fn listen(addr: SocketAddr, daemon: &'static str) -> Result<TcpListener, ListenError> {
    let open = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    open().map_err(|source| ListenError { addr, source, daemon })
}

/// As [`listen`], with two seconds of patience. The kernel may take a moment to close the sockets
/// of a ring whose process was killed: a daemon that is started again at once has that moment.
///
/// # Errors
///
/// As [`listen`].
pub fn listen_soon(addr: SocketAddr, daemon: &'static str) -> Result<TcpListener, ListenError> {
    const TRIES: u32 = 20;
    const PAUSE: Duration = Duration::from_millis(100);
    for _ in 1..TRIES {
        match listen(addr, daemon) {
            Err(error) if error.source.kind() == io::ErrorKind::AddrInUse => {
                std::thread::sleep(PAUSE);
            }
            other => return other,
        }
    }
    listen(addr, daemon)
}

/// A passed socket as a non-blocking TCP listener.
///
/// # Errors
///
/// It is not a TCP socket (a Unix one, say).
pub fn tcp_listener(fd: OwnedFd) -> io::Result<TcpListener> {
    let listener = TcpListener::from(fd);
    rustix::net::getsockname(listener.as_fd())
        .and_then(|addr| SocketAddr::try_from(addr).map_err(|_| Errno::AFNOSUPPORT))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_announced_to_one_process() {
        let to_7 = |pid, fds, names| announced(7, pid, fds, names);
        assert_eq!(to_7(Some("7"), Some("2"), Some("mqtt:admin")).unwrap(), ["mqtt", "admin"]);
        assert_eq!(to_7(Some("7"), Some("1"), None).unwrap(), ["unknown"]);
        assert_eq!(to_7(Some("8"), Some("2"), Some("mqtt:admin")).unwrap(), [""; 0]);
        assert_eq!(to_7(None, Some("2"), None).unwrap(), [""; 0]);
        assert_eq!(to_7(Some("7"), Some("0"), Some("")).unwrap(), [""; 0]);
    }

    #[test]
    fn variables_that_contradict_each_other_are_refused() {
        let to_7 = |pid, fds, names| announced(7, Some(pid), Some(fds), names);
        assert!(matches!(
            to_7("7", "2", Some("mqtt")),
            Err(ActivationError::Names { fds: 2, names: 1 })
        ));
        for fds in ["-1", "x", "100000"] {
            assert!(matches!(to_7("7", fds, None), Err(ActivationError::Variable { .. })), "{fds}");
        }
        assert!(to_7("seven", "1", None).is_err());
    }

    #[test]
    fn only_a_listening_stream_socket_is_accepted() {
        let listening = listen("127.0.0.1:0".parse().unwrap(), "test").unwrap();
        check(listening.as_fd()).unwrap();
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(check(udp.as_fd()), Err("it is no stream socket"));
        let connected = std::net::TcpStream::connect(listening.local_addr().unwrap()).unwrap();
        assert!(check(connected.as_fd()).unwrap_err().starts_with("it does not listen"));
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(check(file.as_fd()), Err("it is no socket"));
    }

    #[test]
    fn an_address_in_use_is_said_with_the_suspect() {
        let first = listen("127.0.0.1:0".parse().unwrap(), "sextant-push").unwrap();
        let addr = first.local_addr().unwrap();
        let error = listen(addr, "sextant-push").unwrap_err().to_string();
        assert_eq!(
            error,
            format!("cannot listen on {addr}: address in use: is another sextant-push running?")
        );
    }

    #[test]
    fn ipv4_and_ipv6_can_have_the_same_port() {
        let Ok(six) = listen("[::]:0".parse().unwrap(), "test") else {
            println!("this machine has no IPv6");
            return;
        };
        let port = six.local_addr().unwrap().port();
        listen(SocketAddr::from(([0, 0, 0, 0], port)), "test").unwrap();
    }

    #[test]
    fn a_unix_socket_is_no_tcp_listener() {
        let dir = tempfile::tempdir().unwrap();
        let unix = std::os::unix::net::UnixListener::bind(dir.path().join("s")).unwrap();
        check(unix.as_fd()).unwrap();
        assert!(tcp_listener(unix.into()).is_err());
    }
}
