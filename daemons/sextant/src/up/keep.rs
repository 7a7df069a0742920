//! Keeps one daemon running.
//!
//! ```text
//!   start ─► starting ─► ready ─────► stop asked ─► SIGTERM ─ 15 s ─► SIGKILL ─► end
//!     ▲          └──────────┴─ exit ─► code 2: give up, the configuration is wrong
//!     └──────── wait, twice as long each time ◄┘ else
//! ```

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal as Number};
use sextant_service::args::EXIT_USAGE;
use sextant_service::client::{Client, ClientError};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::backoff::Backoff;
use crate::terminal::{Colour, painted, say, span};

use super::lines;
use super::program::Program;

const RESTART_AFTER: Duration = Duration::from_secs(1);
const RESTART_AFTER_MAX: Duration = Duration::from_secs(60);
/// A daemon that has lived this long is taken to be well.
const WELL_AFTER: Duration = Duration::from_secs(60);
/// How long a daemon may take to stop.
const STOP_TIME_MAX: Duration = Duration::from_secs(15);
/// When to say that a stop takes its time.
const STOP_SAID_AFTER: Duration = Duration::from_secs(2);
const PROBE_EVERY: Duration = Duration::from_millis(100);
const PROBE_TIME_MAX: Duration = Duration::from_secs(2);
/// When to say that a start takes its time.
const START_SAID_AFTER: Duration = Duration::from_secs(10);
/// How long to wait for the last lines of a daemon that has ended.
const LINES_TIME_MAX: Duration = Duration::from_secs(1);

/// What a keeper tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// It runs, as this process.
    Started(u32),
    /// It serves.
    Ready,
    /// It ended, and will be started again.
    Down,
    /// It will not be started again.
    GivenUp,
}

/// One daemon, and who wants to know about it.
pub(super) struct Keeper {
    index: usize,
    program: Program,
    stop: watch::Receiver<bool>,
    news: mpsc::Sender<(usize, News)>,
}

/// A started daemon, with the tasks that print its lines.
struct Started {
    child: Child,
    pid: u32,
    at: Instant,
    printers: [JoinHandle<()>; 2],
}

/// Why a daemon no longer needs to be waited for.
enum Ended {
    ByItself(ExitStatus),
    ByUs,
}

impl Keeper {
    pub(super) fn new(
        index: usize,
        program: Program,
        stop: watch::Receiver<bool>,
        news: mpsc::Sender<(usize, News)>,
    ) -> Self {
        Self { index, program, stop, news }
    }

    /// Runs the daemon until it is to stop or cannot run.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(RESTART_AFTER, RESTART_AFTER_MAX, WELL_AFTER);
        loop {
            let (why, lived) = match self.start() {
                Err(error) => (format!("cannot be started ({error})"), Duration::ZERO),
                Ok(started) => {
                    let at = started.at;
                    self.tell(News::Started(started.pid)).await;
                    match self.attend(started).await {
                        Ended::ByUs => return,
                        Ended::ByItself(status) if status.code() == Some(EXIT_USAGE.into()) => {
                            self.say(Colour::Red, "its configuration is wrong (exit code 2): not started again until that is mended");
                            self.tell(News::GivenUp).await;
                            return;
                        }
                        Ended::ByItself(status) => {
                            (format!("ended with {}", describe(status)), at.elapsed())
                        }
                    }
                }
            };
            self.tell(News::Down).await;
            let wait = backoff.after(lived);
            let lived = span(lived);
            self.say(Colour::Red, format!("{why} after {lived}; next try in {}", span(wait)));
            tokio::select! {
                () = sleep(wait) => {}
                () = stopped(&mut self.stop) => return,
            }
        }
    }

    async fn tell(&self, what: News) {
        // Nobody listens any more when everything stops.
        let _ = self.news.send((self.index, what)).await;
    }

    fn say(&self, colour: Colour, what: impl std::fmt::Display) {
        let name = painted(self.program.colour, self.program.name);
        say(format_args!("{name} {}", painted(colour, what)));
    }

    fn start(&self) -> std::io::Result<Started> {
        // This very program, even if its file was replaced since it was started.
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("sextant")
            .args(["__exec", "--parent", &std::process::id().to_string(), "--"])
            .arg(&self.program.path)
            .args(&self.program.args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        // What a service manager said, it said to this process.
        for name in ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS"] {
            command.env_remove(name);
        }
        let mut child = command.spawn()?;
        let prefix = painted(self.program.colour, format_args!("{} │", self.program.name));
        let stdout = child.stdout.take().map(|out| lines::prefix(out, prefix.clone()));
        let stderr = child.stderr.take().map(|out| lines::prefix(out, prefix));
        let (Some(stdout), Some(stderr), Some(pid)) = (stdout, stderr, child.id()) else {
            unreachable!("a child that was just started has its pipes and its id");
        };
        let printers = [tokio::spawn(stdout), tokio::spawn(stderr)];
        Ok(Started { child, pid, at: Instant::now(), printers })
    }

    /// Waits for the daemon's end, and says when it is ready.
    async fn attend(&mut self, mut started: Started) -> Ended {
        let mut ready = std::pin::pin!(probe(self.program.url.clone()));
        let mut is_ready = false;
        let mut slow = std::pin::pin!(sleep(START_SAID_AFTER));
        let mut said_slow = false;
        let mut stop = self.stop.clone();
        loop {
            tokio::select! {
                status = started.child.wait() => {
                    finish_lines(started.printers).await;
                    // A child that cannot be waited for is gone all the same.
                    return Ended::ByItself(status.unwrap_or_default());
                }
                () = &mut ready, if !is_ready => {
                    is_ready = true;
                    let took = span(started.at.elapsed());
                    self.say(Colour::Green, format!("is ready after {took} (pid {})", started.pid));
                    self.tell(News::Ready).await;
                }
                () = &mut slow, if !is_ready && !said_slow => {
                    said_slow = true;
                    self.say(Colour::Yellow, format!("is not ready yet: {}", unready(&self.program.url).await));
                }
                () = stopped(&mut stop) => {
                    self.terminate(started).await;
                    return Ended::ByUs;
                }
            }
        }
    }

    async fn terminate(&self, mut started: Started) {
        self.say(Colour::Grey, "is asked to stop");
        let asked = Instant::now();
        signal(started.pid, Number::TERM);
        let mut status = timeout(STOP_SAID_AFTER, started.child.wait()).await;
        if status.is_err() {
            let most = span(STOP_TIME_MAX);
            self.say(Colour::Yellow, format!("takes its time to stop; it has {most}"));
            status = timeout(STOP_TIME_MAX - STOP_SAID_AFTER, started.child.wait()).await;
        }
        if status.is_err() {
            let most = span(STOP_TIME_MAX);
            self.say(Colour::Red, format!("did not stop within {most}, and is killed"));
            signal(started.pid, Number::KILL);
            status = Ok(started.child.wait().await);
        }
        finish_lines(started.printers).await;
        if let Ok(Ok(status)) = status {
            let took = span(asked.elapsed());
            self.say(Colour::Grey, format!("stopped after {took} with {}", describe(status)));
        }
    }
}

/// Sends a signal to a child that was not waited for yet, so that its id is still its own.
pub(super) fn signal(pid: u32, number: Number) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have ended just now.
        let _ = rustix::process::kill_process(pid, number);
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        // The supervisor is gone, and this task with it.
        std::future::pending::<()>().await;
    }
}

async fn finish_lines([stdout, stderr]: [JoinHandle<()>; 2]) {
    let _ = timeout(LINES_TIME_MAX, async { tokio::join!(stdout, stderr) }).await;
}

/// Ends when the daemon at `url` says that it is ready.
async fn probe(url: String) {
    while ask(&url).await.is_err() {
        sleep(PROBE_EVERY).await;
    }
}

async fn unready(url: &str) -> String {
    match ask(url).await {
        Ok(_) => "it has just become so".to_owned(),
        Err(error) => error.to_string(),
    }
}

async fn ask(url: &str) -> Result<String, ClientError> {
    let client = Client::new(url, None, PROBE_TIME_MAX);
    match tokio::task::spawn_blocking(move || client.text("/readyz")).await {
        Ok(answer) => answer,
        Err(error) => Err(ClientError::Request { url: url.to_owned(), why: error.to_string() }),
    }
}

/// How a process ended, in words.
fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(number)) => format!("signal {number}{}", signal_name(number)),
        (None, None) => "no status".to_owned(),
    }
}

const fn signal_name(number: i32) -> &'static str {
    match number {
        1 => " (SIGHUP)",
        2 => " (SIGINT)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        15 => " (SIGTERM)",
        31 => " (SIGSYS)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_said_with_its_code_or_signal() {
        assert_eq!(describe(ExitStatus::from_raw(3 << 8)), "exit code 3");
        assert_eq!(describe(ExitStatus::from_raw(9)), "signal 9 (SIGKILL)");
    }
}
