//! `cargo xtask up`: from a fresh clone to a message that arrives, and the daemons stay up.
//!
//! ```text
//!   setup ─► build ─► sextant up ─► proof ─► what to try next ─► Ctrl-C ─► stop
//!                                     └─ --check: in a folder and on ports of its own, then stop
//! ```

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};
use signal_hook::consts::SIGINT;

use crate::proof::{self, Push};
use crate::setup::{self, Purpose};
use crate::sh;
use crate::web;

/// How long the daemons may take until they serve.
const READY_TIME_MAX: Duration = Duration::from_secs(60);
/// How long they may take to stop: `sextant up` has its own limit below this.
const STOP_TIME_MAX: Duration = Duration::from_secs(25);
const POLL_EVERY: Duration = Duration::from_millis(50);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Do it in a temporary folder, on ports that are free, and stop: exit code 0 if all was well
    #[arg(long)]
    check: bool,

    /// Options of `sextant up`, such as --set push.mqtt.listen=127.0.0.1:1884
    #[arg(last = true, value_name = "OPTIONS")]
    options: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::run(Purpose::Up)?;
    // `sextant` embeds the console's pages, and says how to build them where they are not.
    match web::build() {
        Err(error) if args.check => return Err(error),
        Err(error) => println!("the console is left out: {error:#}"),
        Ok(()) => {}
    }
    sh::run(sh::cargo().args(["build", "--release", "-p", "sextant", "-p", "sextant-push"]))?;
    let asked = sh::stops_asked()?;
    let temporary = match args.check {
        true => Some(tempfile::tempdir().context("no temporary folder")?),
        false => None,
    };
    let data = match &temporary {
        Some(dir) => dir.path().join("data"),
        None => PathBuf::from("./data"),
    };
    let mut options = args.options.clone();
    if args.check {
        let [mqtt, admin, console] = free_ports()?;
        options.push(format!("--set=push.mqtt.listen={mqtt}"));
        options.push(format!("--set=push.admin.listen={admin}"));
        options.push(format!("--console={console}"));
    }
    let began = Instant::now();
    let mut daemons = Daemons::start(&data, &options)?;
    let push = daemons.wait_ready(&data, &asked)?;
    proof::run(&push, began).context("the message did not arrive")?;
    if args.check {
        daemons.stop()?;
        println!("{}", sh::paint(sh::GREEN, "✓ everything works"));
        return Ok(());
    }
    next(&push);
    daemons.wait(&asked)
}

/// Three addresses of this machine that nobody listens on.
fn free_ports() -> Result<[SocketAddr; 3]> {
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port is free");
    let [first, second, third] = [listen()?, listen()?, listen()?];
    Ok([first.local_addr()?, second.local_addr()?, third.local_addr()?])
}

/// A running `sextant up`, stopped when dropped.
struct Daemons {
    child: Child,
}

impl Daemons {
    fn start(data: &Path, options: &[String]) -> Result<Daemons> {
        let sextant = sh::target()?.join("release/sextant");
        let mut command = sh::command(&sextant);
        command.args(["up", "--no-hints", "--data"]).arg(data).args(options);
        println!("{}", sh::paint(sh::GREY, format_args!("$ {}", sh::shown(&command))));
        // Started by way of itself: it is told to stop when this process is gone, even by kill -9.
        let mut wrapped = sh::command(&sextant);
        wrapped.args(["__exec", "--parent", &std::process::id().to_string(), "--"]);
        wrapped.arg(&sextant).args(command.get_args());
        let child = wrapped.spawn().with_context(|| format!("cannot run {}", sextant.display()))?;
        Ok(Daemons { child })
    }

    /// Waits until the push daemon serves.
    fn wait_ready(&mut self, data: &Path, asked: &AtomicUsize) -> Result<Push> {
        let began = Instant::now();
        // `sextant up` works in the workspace, and relative paths are meant so.
        let data = sh::root().join(data);
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("`sextant up` ended ({status}): it has said why");
            }
            if asked.load(Ordering::Relaxed) != 0 {
                bail!("given up");
            }
            if let Some(push) = Push::find(&data).filter(Push::is_ready) {
                return Ok(push);
            }
            if began.elapsed() > READY_TIME_MAX {
                bail!("the daemons are not ready after {}", sh::seconds(READY_TIME_MAX));
            }
            sleep(POLL_EVERY);
        }
    }

    /// Waits until the daemons have stopped, asked by Ctrl-C or by a signal to this process.
    fn wait(&mut self, asked: &AtomicUsize) -> Result<()> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return ended(status);
            }
            match asked.load(Ordering::Relaxed) as i32 {
                0 => sleep(POLL_EVERY),
                // Ctrl-C reached `sextant up`, too; a second signal would cut its stop short.
                SIGINT => return self.wait_stopped(),
                _ => return self.stop(),
            }
        }
    }

    /// Asks for a stop, and waits for it.
    fn stop(&mut self) -> Result<()> {
        self.signal(Signal::TERM);
        self.wait_stopped()
    }

    fn wait_stopped(&mut self) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < STOP_TIME_MAX {
            if let Some(status) = self.child.try_wait()? {
                return ended(status);
            }
            sleep(POLL_EVERY);
        }
        bail!("the daemons did not stop within {}", sh::seconds(STOP_TIME_MAX))
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended just now.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

impl Drop for Daemons {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) && self.stop().is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn ended(status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("`sextant up` ended ({status})");
    }
    Ok(())
}

fn next(push: &Push) {
    let data = "./data";
    let host = push.mqtt.ip();
    let port = push.mqtt.port();
    println!();
    println!("{}", sh::paint(sh::GREEN, "It works, and stays up until Ctrl-C."));
    println!("  MQTT     {}", push.mqtt);
    println!("  API      {}   (metrics at /metrics, health at /healthz)", push.url);
    println!("  token    {data}/push/admin.token");
    println!("  console  the link above opens it, once; later log in with the token");
    println!("Try this in another terminal:");
    println!("  target/release/sextant status");
    println!("  target/release/sextant push watch '#'");
    println!("  mosquitto_sub -h {host} -p {port} -V 5 -i lamp -q 1 -t 'd/lamp/#'");
    println!("  target/release/sextant push send --device lamp --payload hello --wait");
    println!();
}
