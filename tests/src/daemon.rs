//! A daemon of the build under test, as a process of its own.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::api::Api;
use crate::wait::{DEADLINE, until, until_for};

/// The path of a program of this build.
///
/// Programs lie two folders above the test's own file, `target/release/deps/it-…`; the variable
/// `SEXTANT_BIN_DIR` names another folder, to test what is installed.
///
/// # Panics
/// It was not built.
#[track_caller]
pub fn binary(name: &str) -> PathBuf {
    let dir = match std::env::var_os("SEXTANT_BIN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => {
            let test = std::env::current_exe().unwrap_or_default();
            test.parent().and_then(Path::parent).map(Path::to_owned).unwrap_or_default()
        }
    };
    let path = dir.join(name);
    assert!(
        path.is_file(),
        "{} is not there: build it first with `cargo build --release`, or run the tests with \
         `cargo xtask test`",
        path.display()
    );
    path
}

/// An address of 127/8 with a port that nobody uses: by process and by call, so that it stays so.
///
/// # Panics
/// The kernel has none to give.
#[track_caller]
pub fn free_addr() -> SocketAddr {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let pid = std::process::id();
    let (b, c) = (64 + (pid >> 8) % 64, pid % 256);
    let ip = Ipv4Addr::from(127 << 24 | b << 16 | c << 8 | (1 + call % 254));
    let listener = TcpListener::bind((IpAddr::V4(ip), 0));
    match listener.and_then(|listener| listener.local_addr()) {
        Ok(addr) => addr,
        Err(error) => panic!("no port on {ip}: {error}"),
    }
}

/// Which daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// `sextant-push`: its clients' address is for MQTT.
    #[default]
    Push,
    /// `sextant-store`: its clients' address is the default instance's.
    Store,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Push => "push",
            Kind::Store => "store",
        }
    }

    fn listen_flag(self) -> &'static str {
        match self {
            Kind::Push => "--mqtt",
            Kind::Store => "--listen",
        }
    }
}

/// How a daemon is started.
#[derive(Debug, Default)]
pub struct Options {
    /// Which it is.
    pub kind: Kind,
    /// Its settings, as TOML; listeners and data are given beside them.
    pub config: String,
    /// Its data directory, if not one of its own.
    pub data: Option<PathBuf>,
    /// Variables of its environment.
    pub env: Vec<(String, String)>,
}

impl Options {
    /// With these settings.
    pub fn config(config: &str) -> Options {
        Options { config: config.to_owned(), ..Options::default() }
    }
}

/// A daemon that runs as long as this value lives, or less.
#[derive(Debug)]
pub struct Daemon {
    child: Option<Child>,
    options: Options,
    dir: TempDir,
    clients: SocketAddr,
    admin: SocketAddr,
}

impl Daemon {
    /// Starts one with default settings, and waits until it is ready.
    ///
    /// # Panics
    /// It does not become so; what it logged is in the message.
    #[track_caller]
    pub fn start() -> Daemon {
        Daemon::start_with(Options::default())
    }

    /// Starts one, and waits until it is ready.
    ///
    /// # Panics
    /// It does not become so.
    #[track_caller]
    pub fn start_with(options: Options) -> Daemon {
        let mut daemon = Daemon::prepare(options);
        daemon.start_again();
        daemon
    }

    /// A folder, settings and addresses for one that is not started yet.
    ///
    /// # Panics
    /// There is no folder to be had.
    #[track_caller]
    pub fn prepare(options: Options) -> Daemon {
        let dir = match tempfile::Builder::new().prefix("sextant-test-").tempdir() {
            Ok(dir) => dir,
            Err(error) => panic!("no temporary folder: {error}"),
        };
        if let Err(error) =
            std::fs::write(dir.path().join(config_name(options.kind)), &options.config)
        {
            panic!("no configuration file: {error}");
        }
        Daemon { child: None, options, dir, clients: free_addr(), admin: free_addr() }
    }

    /// The command that starts it, for tests that start it differently.
    ///
    /// # Panics
    /// The program was not built.
    #[track_caller]
    pub fn command(&self) -> Command {
        let kind = self.options.kind;
        let mut command = Command::new(binary(&format!("sextant-{}", kind.name())));
        command
            .arg("--config")
            .arg(self.dir.path().join(config_name(kind)))
            .arg("--data")
            .arg(self.data())
            .args([kind.listen_flag(), &self.clients.to_string()])
            .args(["--admin", &self.admin.to_string()])
            .envs(self.options.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts it after [`kill`](Self::kill) or [`stop`](Self::stop), at the same addresses with
    /// the same data, and waits until it is ready.
    ///
    /// # Panics
    /// It does not become so, or runs already.
    #[track_caller]
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "it runs");
        self.adopt(self.command());
        self.wait_ready();
    }

    /// Runs `command` as this daemon's process, with its log in the folder.
    ///
    /// # Panics
    /// It cannot be run.
    #[track_caller]
    pub fn adopt(&mut self, mut command: Command) {
        let log = File::options().create(true).append(true).open(self.log_path());
        let Ok(log) = log else { panic!("no log file: {log:?}") };
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        match child {
            Ok(child) => self.child = Some(child),
            Err(error) => panic!("{command:?} cannot be run: {error}"),
        }
    }

    /// Waits until it says that it serves.
    ///
    /// # Panics
    /// It ends, or does not say so in time.
    #[track_caller]
    pub fn wait_ready(&mut self) {
        let api = Api::new(self.admin, None);
        until("the daemon is ready", || {
            if let Some(child) = &mut self.child
                && let Ok(Some(status)) = child.try_wait()
            {
                self.child = None;
                panic!("the daemon ended with {status}:\n{}", self.log());
            }
            let ready = api.ask("GET", "/readyz", None).ok()?;
            (ready.status == 200).then_some(())
        });
    }

    /// Where MQTT is, of push.
    pub fn mqtt(&self) -> SocketAddr {
        self.clients
    }

    /// Where the default instance is, of store.
    pub fn redis(&self) -> SocketAddr {
        self.clients
    }

    /// Where HTTP is.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        let own = || self.dir.path().join(self.options.kind.name());
        self.options.data.clone().unwrap_or_else(own)
    }

    /// A folder of its own, which holds the data directory unless that was chosen.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its process id.
    ///
    /// # Panics
    /// It does not run.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        match &self.child {
            Some(child) => child.id(),
            None => panic!("it does not run"),
        }
    }

    /// Its HTTP API, with the admin token.
    ///
    /// # Panics
    /// There is no token.
    #[track_caller]
    pub fn api(&self) -> Api {
        let path = self.data().join("admin.token");
        match std::fs::read_to_string(&path) {
            Ok(token) => Api::new(self.admin, Some(token.trim().to_owned())),
            Err(error) => panic!("no admin token in {}: {error}", path.display()),
        }
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// It does not run.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        let Some(pid) = pid else { panic!("{} is no process id", self.pid()) };
        if let Err(error) = rustix::process::kill_process(pid, signal) {
            panic!("no {signal:?} to {pid:?}: {error}");
        }
    }

    /// Ends it at once, as a power cut would end the process.
    ///
    /// # Panics
    /// It does not run, or is not ended by this.
    #[track_caller]
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        let status = self.wait();
        assert_eq!(status.signal(), Some(9), "ended before it was killed:\n{}", self.log());
        // The kernel takes a ring apart after its process has ended, and its sockets with it.
        for addr in [self.clients, self.admin] {
            until("the kernel has closed what listened", || TcpListener::bind(addr).ok());
        }
    }

    /// Asks it to stop, and waits until it has.
    ///
    /// # Panics
    /// It does not run, does not stop in time or not with success.
    #[track_caller]
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        let status = self.wait();
        assert!(status.success(), "stopped with {status}:\n{}", self.log());
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// It does not run, or goes on.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let Some(mut child) = self.child.take() else { panic!("it does not run") };
        until_for(DEADLINE, "the daemon has ended", || child.try_wait().ok().flatten())
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// What it logged.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join(format!("{}.log", self.options.kind.name()))
    }
}

fn config_name(kind: Kind) -> String {
    format!("{}.toml", kind.name())
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let skip = log.lines().count().saturating_sub(40);
            let tail: Vec<&str> = log.lines().skip(skip).collect();
            eprintln!("the daemon's last lines:\n{}", tail.join("\n"));
        }
    }
}
