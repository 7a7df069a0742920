//! Programs that this project did not write: mosquitto's clients, and scripts on paho.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::wait::{DEADLINE, until};

/// A command of the system.
///
/// # Panics
/// It is not installed.
#[track_caller]
pub fn command(program: &str) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    assert!(installed, "{program} is not installed: run `cargo xtask setup`");
    Command::new(program)
}

/// A Python that has paho: that of `cargo xtask setup` if it made one, else the system's.
pub fn python() -> PathBuf {
    let test = std::env::current_exe().unwrap_or_default();
    let target = test.ancestors().nth(3).unwrap_or(Path::new("target"));
    let own = target.join("python/bin/python3");
    if own.is_file() { own } else { PathBuf::from("python3") }
}

/// schemathesis, which `cargo xtask setup` installs into a Python of its own.
///
/// # Panics
/// It is not there.
#[track_caller]
pub fn schemathesis() -> Command {
    let test = std::env::current_exe().unwrap_or_default();
    let target = test.ancestors().nth(3).unwrap_or(Path::new("target"));
    let program = target.join("schemathesis/bin/schemathesis");
    assert!(program.is_file(), "schemathesis is not installed: run `cargo xtask setup`");
    Command::new(program)
}

/// What a process prints, line by line, as it prints it.
#[derive(Debug)]
pub struct Lines {
    child: Child,
    name: String,
    lines: Receiver<String>,
    /// All that was printed so far, for messages of panics.
    seen: Vec<String>,
}

impl Lines {
    /// Starts `command`, and reads its standard output and error.
    ///
    /// # Panics
    /// It cannot be started.
    #[track_caller]
    pub fn start(mut command: Command) -> Lines {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("{command:?} cannot be run: {error}"),
        };
        let (sender, lines) = channel();
        let outputs: [Option<Box<dyn std::io::Read + Send>>; 2] = [
            child.stdout.take().map(|out| Box::new(out) as _),
            child.stderr.take().map(|out| Box::new(out) as _),
        ];
        for output in outputs.into_iter().flatten() {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        Lines { child, name, lines, seen: Vec::new() }
    }

    /// The next line of which `pick` makes something; others are passed over.
    ///
    /// # Panics
    /// None comes in time, or the process ends before.
    #[track_caller]
    pub fn find<T>(&mut self, what: &str, pick: impl FnMut(&str) -> Option<T>) -> T {
        self.find_for(DEADLINE, what, pick)
    }

    /// As [`find`](Self::find), with a time limit of its own.
    ///
    /// # Panics
    /// None comes within `limit`, or the process ends before.
    #[track_caller]
    pub fn find_for<T>(
        &mut self,
        limit: Duration,
        what: &str,
        mut pick: impl FnMut(&str) -> Option<T>,
    ) -> T {
        let began = Instant::now();
        loop {
            match self.lines.recv_timeout(limit.saturating_sub(began.elapsed())) {
                Ok(line) => {
                    let picked = pick(&line);
                    self.seen.push(line);
                    if let Some(picked) = picked {
                        return picked;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    panic!(
                        "{} did not say within {limit:?}: {what}; it said\n{}",
                        self.name,
                        self.tail()
                    );
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("{} ended and did not say: {what}; it said\n{}", self.name, self.tail());
                }
            }
        }
    }

    /// Waits for a line that contains `text`, and gives it.
    ///
    /// # Panics
    /// None comes in time, or the process ends before.
    #[track_caller]
    pub fn line_with(&mut self, text: &str) -> String {
        self.find(text, |line| line.contains(text).then(|| line.to_owned()))
    }

    /// Whatever was printed and not looked at yet, without waiting.
    pub fn drain(&mut self) -> Vec<String> {
        let fresh: Vec<String> = self.lines.try_iter().collect();
        self.seen.extend_from_slice(&fresh);
        fresh
    }

    /// Waits for the end of the process; gives whether it was successful, and all it printed.
    ///
    /// # Panics
    /// It goes on.
    #[track_caller]
    pub fn end(&mut self) -> (bool, String) {
        let status = until(&format!("{} has ended", self.name), || {
            self.drain();
            self.child.try_wait().ok().flatten()
        });
        // Until the last reader has seen the end of its output.
        while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(5)) {
            self.seen.push(line);
        }
        (status.success(), self.seen.join("\n"))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&mut self, signal: Signal) {
        if let Ok(None) = self.child.try_wait()
            && let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
        {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Ends it at once: a broker sees its connection break.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn tail(&self) -> String {
        let skip = self.seen.len().saturating_sub(30);
        self.seen[skip..].join("\n")
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A message as `mosquitto_sub` shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: String,
    /// The QoS it came with.
    pub qos: u64,
    /// Whether it was retained.
    pub retain: bool,
    /// MQTT 5 properties, by their names; an object, or `null`.
    pub properties: Value,
}

/// A running `mosquitto_sub`.
#[derive(Debug)]
pub struct Sub {
    lines: Lines,
}

impl Sub {
    /// Subscribes with `args`, and waits until the broker has acknowledged that.
    ///
    /// # Panics
    /// It does not.
    #[track_caller]
    pub fn start(broker: SocketAddr, args: &[&str]) -> Sub {
        let mut sub = Sub::start_unacknowledged(broker, args);
        sub.lines.line_with("Subscribed (mid:");
        sub
    }

    /// Connects with `args`, and waits for nothing.
    ///
    /// # Panics
    /// `mosquitto_sub` is not installed.
    #[track_caller]
    pub fn start_unacknowledged(broker: SocketAddr, args: &[&str]) -> Sub {
        command("mosquitto_sub");
        // It tells of its subscription on a standard output that is otherwise not flushed.
        let mut line_buffered = command("stdbuf");
        line_buffered.args(["-oL", "mosquitto_sub", "-d", "-F", "MSG %j"]);
        line_buffered.args(["-h", &broker.ip().to_string(), "-p", &broker.port().to_string()]);
        line_buffered.args(args);
        Sub { lines: Lines::start(line_buffered) }
    }

    /// The next message.
    ///
    /// # Panics
    /// None comes.
    #[track_caller]
    pub fn message(&mut self) -> Message {
        let mut json = self.lines.find("a message", |line| {
            serde_json::from_str::<Value>(line.strip_prefix("MSG ")?).ok()
        });
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Message {
            topic: text(&json["topic"]),
            payload: text(&json["payload"]),
            qos: json["qos"].as_u64().unwrap_or(u64::MAX),
            retain: json["retain"] == 1,
            properties: json["properties"].take(),
        }
    }

    /// The payloads of the next `count` messages.
    ///
    /// # Panics
    /// They do not come.
    #[track_caller]
    pub fn payloads(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.message().payload).collect()
    }

    /// Its lines.
    pub fn lines(&mut self) -> &mut Lines {
        &mut self.lines
    }
}

/// Publishes with `mosquitto_pub`, and waits until that has ended.
///
/// # Panics
/// It fails.
#[track_caller]
pub fn publish(broker: SocketAddr, args: &[&str]) {
    let (done, said) = try_publish(broker, args);
    assert!(done, "mosquitto_pub {args:?} failed: {said}");
}

/// Publishes with `mosquitto_pub`; gives whether it was successful, and what it said.
///
/// # Panics
/// It does not end.
#[track_caller]
pub fn try_publish(broker: SocketAddr, args: &[&str]) -> (bool, String) {
    let mut command = command("mosquitto_pub");
    command.args(["-h", &broker.ip().to_string(), "-p", &broker.port().to_string()]).args(args);
    Lines::start(command).end()
}

/// A running script of `tests/clients`.
#[derive(Debug)]
pub struct Script {
    /// What it says.
    pub lines: Lines,
}

impl Script {
    /// Starts `tests/clients/NAME.py` against `broker`.
    ///
    /// # Panics
    /// There is no Python with paho.
    #[track_caller]
    pub fn start(name: &str, broker: SocketAddr, args: &[&str]) -> Script {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(format!("{name}.py"));
        let mut command = Command::new(python());
        command.arg("-u").arg(path);
        command.args(["--host", &broker.ip().to_string(), "--port", &broker.port().to_string()]);
        command.args(args);
        Script { lines: Lines::start(command) }
    }
}
