//! Whole processes: the test binary starts itself again, in the role that a variable names.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use serde::{Deserialize, Serialize};
use sextant_service::activation::{self, Activation};
use sextant_service::admin::{self, Admin, AdminToken, Health};
use sextant_service::args::CommonArgs;
use sextant_service::client::Client;
use sextant_service::config::Config;
use sextant_service::notify::{self, Heartbeats, Notifier, State};
use sextant_service::process::DataDir;
use sextant_service::signals::{Signal, Signals};
use sextant_service::{metrics, process, runtime, telemetry};

const ROLE: &str = "ROLE_OF_CHILD";

/// Does nothing as a test, and plays its role as a child.
#[test]
fn child_role() {
    match std::env::var(ROLE).as_deref() {
        Ok("panics") => panics(),
        Ok("signals") => waits_for_signals(),
        Ok("activated") => shows_activation(),
        Ok("daemon") => daemon(),
        Ok(role) => panic!("no role {role}"),
        Err(_) => {}
    }
}

/// This binary in a role, as words for a command line.
fn words() -> Vec<String> {
    let this = std::env::current_exe().unwrap();
    let words = [this.to_str().unwrap(), "child::child_role", "--exact", "--nocapture"];
    words.map(str::to_owned).to_vec()
}

fn command(role: &str) -> Command {
    let words = words();
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).env(ROLE, role).env("RUST_BACKTRACE", "0");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A child that is killed if the test fails.
struct Role {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Role {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    fn wait_for_line(&mut self, wanted: &str) {
        let mut seen = String::new();
        while self.stdout.read_line(&mut seen).unwrap() > 0 {
            // The test harness writes on the same line before ours.
            if seen.lines().last().is_some_and(|line| line.ends_with(wanted)) {
                return;
            }
        }
        let mut stderr = String::new();
        let _ = self.child.stderr.take().unwrap().read_to_string(&mut stderr);
        panic!("the child ended before it said {wanted}: {seen}{stderr}");
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    fn end(&mut self) -> (std::process::ExitStatus, String) {
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        (self.child.wait().unwrap(), stderr)
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn panics() {
    process::abort_on_panic();
    let settings = telemetry::Settings { format: telemetry::Format::Json, ..Default::default() };
    let _log = telemetry::init(&settings).unwrap();
    tracing::info!("the line before");
    let core = std::thread::Builder::new().name("core-1".to_owned());
    let empty: Vec<u8> = Vec::new();
    let core = core.spawn(move || empty[std::hint::black_box(7)]).unwrap();
    let _ = core.join();
    println!("survived");
}

#[test]
fn a_panic_in_any_thread_is_logged_and_aborts_the_process() {
    let mut role = Role::start(command("panics"));
    let (status, stderr) = role.end();
    assert_eq!(status.signal(), Some(6), "SIGABRT: {stderr}");
    let lines: Vec<&str> = stderr.lines().collect();
    assert!(lines[0].contains("the line before"), "{stderr}");
    let panic: serde_json::Value = serde_json::from_str(lines[1]).unwrap();
    assert_eq!(panic["thread"], "core-1");
    assert_eq!(panic["level"], "ERROR");
    assert!(panic["message"].as_str().unwrap().contains("index out of bounds"), "{panic}");
    assert!(stderr.contains("thread core-1 panicked at shared/service/tests/"), "{stderr}");
}

fn waits_for_signals() {
    runtime::run(async {
        let mut signals = Signals::new().unwrap();
        println!("waiting");
        loop {
            match signals.next().await {
                Signal::Reload => println!("reload"),
                Signal::Shutdown => println!("shutdown"),
                _ => unreachable!("there are two"),
            }
        }
    })
    .unwrap();
}

#[test]
fn hup_reloads_term_stops_and_a_second_one_ends_at_once() {
    for (first, second, code) in [
        (rustix::process::Signal::TERM, rustix::process::Signal::INT, 130),
        (rustix::process::Signal::INT, rustix::process::Signal::TERM, 143),
    ] {
        let mut role = Role::start(command("signals"));
        role.wait_for_line("waiting");
        role.signal(rustix::process::Signal::HUP);
        role.wait_for_line("reload");
        role.signal(first);
        role.wait_for_line("shutdown");
        role.signal(rustix::process::Signal::HUP);
        role.wait_for_line("reload");
        role.signal(second);
        assert_eq!(role.end().0.code(), Some(code));
    }
}

fn shows_activation() {
    let mut activation = Activation::from_env().unwrap();
    for fd in activation.take("mqtt") {
        let listener = activation::tcp_listener(fd).unwrap();
        let flags = rustix::io::fcntl_getfd(&listener).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC), "not for children of ours");
        println!("mqtt {}", listener.local_addr().unwrap());
    }
    println!("left {:?}", activation.left());
    assert!(Activation::from_env().unwrap().left().is_empty(), "the second finds nothing");
}

/// Starts the role with `listener` as descriptor 3, the way a service manager does: the shell puts
/// its own process id, which `exec` keeps, into `LISTEN_PID`.
fn activated(listener: TcpListener, variables: &str) -> Role {
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("exec 3<&0 0</dev/null; export LISTEN_PID=$$ {variables}; exec \"$@\""))
        .arg("sh")
        .args(words())
        .env(ROLE, "activated")
        .stdin(OwnedFd::from(listener))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Role::start(command)
}

#[test]
fn a_socket_that_was_passed_is_taken_by_its_name() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let mut role = activated(listener, "LISTEN_FDS=1 LISTEN_FDNAMES=mqtt");
    role.wait_for_line(&format!("mqtt {addr}"));
    role.wait_for_line("left []");
    assert!(role.end().0.success());

    let mut role =
        activated(TcpListener::bind("127.0.0.1:0").unwrap(), "LISTEN_FDS=1 LISTEN_FDNAMES=other");
    role.wait_for_line("left [\"other\"]");
}

#[derive(Serialize, Deserialize)]
struct Settings {
    data: PathBuf,
    admin: admin::Settings,
    telemetry: telemetry::Settings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data: "./data/test".into(),
            admin: admin::Settings::on(0),
            telemetry: telemetry::Settings::default(),
        }
    }
}

impl Config for Settings {}

/// A whole daemon, with a core that does nothing but turn when it is woken.
fn daemon() {
    process::abort_on_panic();
    let args = CommonArgs { config: Some("daemon.toml".into()), ..CommonArgs::default() };
    let Ok(loaded) = args.load::<Settings>("test", Vec::new()) else {
        std::process::exit(2);
    };
    let settings = loaded.value;
    let _log = telemetry::init(&settings.telemetry).unwrap();
    let data = DataDir::open(settings.data).unwrap();
    let token = Arc::new(AdminToken::load_or_create(data.path()).unwrap());
    let listener = activation::listen(settings.admin.listen, "test").unwrap();
    std::fs::write("port", listener.local_addr().unwrap().to_string()).unwrap();

    let mut families = metrics::Builder::new("test", "1");
    let turns = families.counter("test_turns_total", "Turns of the core.");
    let registry = Arc::new(families.build(1));
    let heartbeats = Heartbeats::new(1);
    let (beat, counts) = (heartbeats.core(0), registry.core(0));
    let core = std::thread::spawn(move || {
        loop {
            beat.beat();
            counts.inc(turns);
            std::thread::park();
        }
    });

    let control = runtime::spawn("control", move || async move {
        let mut signals = Signals::new().unwrap();
        let notifier = Notifier::from_env().unwrap();
        let health = Health::default();
        let admin = Admin { token, health: health.clone(), metrics: registry };
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = tokio::spawn(admin::serve(
            listener,
            admin::router(Router::new(), Router::new(), admin),
            settings.admin.limits(),
            async {
                let _ = stopped.await;
            },
        ));
        health.set_ready(true);
        notifier.notify(&[State::Ready, State::Status("one core".to_owned())]).unwrap();
        let watching = notify::watch(&notifier, heartbeats, &health, || core.thread().unpark());
        let requests = async {
            while signals.next().await == Signal::Reload {
                notifier.notify(&[State::Reloading]).unwrap();
                notifier.notify(&[State::Ready]).unwrap();
            }
        };
        tokio::select! {
            () = watching => {}
            () = requests => {}
        }
        health.set_ready(false);
        notifier.notify(&[State::Stopping]).unwrap();
        stop.send(()).unwrap();
        serving.await.unwrap().unwrap();
    });
    control.unwrap().join().unwrap();
    drop(data);
}

fn next_message(manager: &UnixDatagram) -> String {
    let mut bytes = [0; 1024];
    let len = manager.recv(&mut bytes).expect("the daemon says something in time");
    String::from_utf8(bytes[..len].to_vec()).unwrap()
}

/// The next message that is not about the watchdog.
fn next_state(manager: &UnixDatagram) -> String {
    std::iter::repeat_with(|| next_message(manager))
        .find(|message| message != "WATCHDOG=1\n")
        .unwrap()
}

fn start_daemon(dir: &Path) -> (Role, UnixDatagram) {
    let manager = UnixDatagram::bind(dir.join("notify")).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut command = command("daemon");
    command
        .current_dir(dir)
        .env("NOTIFY_SOCKET", dir.join("notify"))
        .env("WATCHDOG_USEC", "300000")
        .env("SEXTANT_TEST_ADMIN__REQUEST_TIMEOUT", "5s")
        .env_remove("WATCHDOG_PID");
    (Role::start(command), manager)
}

#[test]
fn a_daemon_lives_and_dies_as_its_manager_wants() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("daemon.toml"), "data = \"data\"\n").unwrap();
    let (mut role, manager) = start_daemon(dir.path());
    assert_eq!(next_state(&manager), "READY=1\nSTATUS=one core\n");
    assert_eq!(next_message(&manager), "WATCHDOG=1\n");
    assert_eq!(next_message(&manager), "WATCHDOG=1\n");

    let addr = std::fs::read_to_string(dir.path().join("port")).unwrap();
    let token = AdminToken::load(&dir.path().join("data")).unwrap();
    let client = Client::new(&addr, Some(token), Duration::from_secs(10));
    assert_eq!(client.text("/healthz").unwrap(), "ok\n");
    assert_eq!(client.text("/readyz").unwrap(), "ready\n");
    assert!(client.text("/metrics").unwrap().contains("\ntest_turns_total "));
    let error = DataDir::open(dir.path().join("data")).unwrap_err().to_string();
    assert!(error.contains(&format!("process {}", role.child.id())), "{error}");

    role.signal(rustix::process::Signal::HUP);
    assert!(next_state(&manager).starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(next_state(&manager), "READY=1\n");

    role.signal(rustix::process::Signal::TERM);
    assert_eq!(next_state(&manager), "STOPPING=1\n");
    let (status, stderr) = role.end();
    assert!(status.success(), "{stderr}");
    DataDir::open(dir.path().join("data")).unwrap();
}

#[test]
fn a_daemon_with_faulty_settings_says_each_and_exits_with_2() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("daemon.toml"), "dta = \"x\"\n[admin]\nlisten = 1\n").unwrap();
    let (mut role, _manager) = start_daemon(dir.path());
    let (status, stderr) = role.end();
    assert_eq!(status.code(), Some(2));
    assert_eq!(
        stderr,
        "daemon.toml:3: `admin.listen`: expected socket address, found 1\n\
         daemon.toml:1: `dta`: unknown key; did you mean `data`?\n"
    );
}
