//! Servers under test: processes of their own, each on the first CPU, so that what one uses is
//! exactly what its process uses. They are gone when their [`Server`] is dropped, and when this
//! process ends in whatever way.

use std::ffi::OsString;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// The CPU of the server under test, and that of the load, as [`sextant_load::pin`] counts.
pub(crate) const SERVER_CPU: usize = 0;
pub(crate) const LOAD_CPU: usize = 1;

const READY_TIME_MAX: Duration = Duration::from_secs(20);
const STOP_TIME_MAX: Duration = Duration::from_secs(10);
const POLL_EVERY: Duration = Duration::from_millis(10);

/// What `sextant-bench exec` is given.
#[derive(Debug, clap::Args)]
pub(crate) struct ExecArgs {
    /// Stay on this CPU
    #[arg(long)]
    cpu: Option<usize>,
    /// End when this process ends
    #[arg(long)]
    parent: i32,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Becomes another program, which stays on one CPU and ends with its parent.
pub(crate) fn exec(args: &ExecArgs) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("no signal at the parent's end")?;
    if getppid() != Pid::from_raw(args.parent) {
        bail!("the parent has ended");
    }
    if let Some(cpu) = args.cpu {
        sextant_load::pin(cpu).context("cannot stay on one CPU")?;
    }
    let (program, rest) = args.command.split_first().context("no program is named")?;
    let error = Command::new(program).args(rest).exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}

/// A command that is run by way of [`exec`].
pub(crate) fn wrapped(cpu: Option<usize>, command: &Command) -> Result<Command> {
    let own = std::env::current_exe().context("this program has no path")?;
    let mut wrapped = Command::new(own);
    wrapped.args(["exec", "--parent", &std::process::id().to_string()]);
    if let Some(cpu) = cpu {
        wrapped.args(["--cpu", &cpu.to_string()]);
    }
    wrapped.arg("--").arg(command.get_program()).args(command.get_args());
    Ok(wrapped)
}

/// A server that runs as long as this value lives.
pub(crate) struct Server {
    child: Child,
    addrs: Vec<SocketAddr>,
    /// What it keeps its files in.
    _dir: Option<tempfile::TempDir>,
}

impl Server {
    /// Starts one, on the servers' CPU if `pinned`, and waits until it takes connections on all of
    /// these addresses.
    ///
    /// # Errors
    /// It ends, or does not do so in time; with what it said.
    pub(crate) fn start(
        command: &Command,
        pinned: bool,
        addrs: Vec<SocketAddr>,
        dir: Option<tempfile::TempDir>,
    ) -> Result<Server> {
        let mut wrapped = wrapped(pinned.then_some(SERVER_CPU), command)?;
        wrapped.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let name = PathBuf::from(command.get_program());
        let child = wrapped.spawn().with_context(|| format!("cannot run {}", name.display()))?;
        let mut server = Server { child, addrs, _dir: dir };
        server.wait_ready().with_context(|| format!("{} does not serve", name.display()))?;
        Ok(server)
    }

    fn wait_ready(&mut self) -> Result<()> {
        let began = Instant::now();
        for addr in self.addrs.clone() {
            while let Err(error) = TcpStream::connect_timeout(&addr, READY_TIME_MAX) {
                if let Some(status) = self.child.try_wait()? {
                    bail!("it ended ({status}): {}", self.said());
                }
                if began.elapsed() > READY_TIME_MAX {
                    bail!("{addr}: {error}");
                }
                sleep(POLL_EVERY);
            }
        }
        Ok(())
    }

    /// What it wrote to its standard error before it ended.
    fn said(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            // It may not be text.
            let _ = stderr.read_to_string(&mut text);
        }
        text.trim().to_owned()
    }

    /// Ends it at once, as a crash would.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it serves.
    pub(crate) fn addrs(&self) -> Vec<SocketAddr> {
        self.addrs.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended.
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
        let began = Instant::now();
        while began.elapsed() < STOP_TIME_MAX {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            sleep(POLL_EVERY);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `count` addresses of this host, on one port that nobody uses.
pub(crate) fn free_addrs(count: u8) -> Result<Vec<SocketAddr>> {
    let ip = |last: u8| std::net::Ipv4Addr::new(127, 0, 1, last);
    let first = TcpListener::bind((ip(1), 0)).context("no port is free on 127.0.1.1")?;
    let port = first.local_addr()?.port();
    Ok((1..=count).map(|last| SocketAddr::from((ip(last), port))).collect())
}

/// Lets this process, and those that it starts, have as many descriptors as they may.
pub(crate) fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Without it, whatever wants more says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// A program of this build, beside this one.
pub(crate) fn sibling(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("this program has no path")?;
    let path = own.with_file_name(name);
    if !path.is_file() {
        bail!(
            "{} is not there: build it with `cargo build --release -p {name}`, or run this with \
             `cargo xtask bench`",
            path.display()
        );
    }
    Ok(path)
}
