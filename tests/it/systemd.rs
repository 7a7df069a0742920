//! The units in `systemd/`, and what the daemon and a service manager tell each other.

use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sextant_mqtt::QoS;
use sextant_tests::{DEADLINE, Daemon, Mqtt, Options, binary, command};

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("systemd")
}

/// The units in a folder of their own, with the program of this build in place of the installed
/// one.
fn copied() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let programs = ["sextant-push", "sextant-store"];
    let built = programs.map(|name| (format!("/usr/bin/{name}"), binary(name)));
    for entry in std::fs::read_dir(units()).unwrap() {
        let path = entry.unwrap().path();
        let kind = path.extension().and_then(|kind| kind.to_str());
        if matches!(kind, Some("service" | "socket")) {
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(!text.contains("/usr/local"), "{}", path.display());
            let text = built.iter().fold(text, |text, (installed, built)| {
                text.replace(installed, &built.display().to_string())
            });
            std::fs::write(dir.path().join(path.file_name().unwrap()), text).unwrap();
        }
    }
    dir
}

fn names(dir: &Path, kind: &str) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(kind))
        .collect();
    names.sort();
    names
}

/// Runs a command; gives whether it was successful, and all it printed.
fn run(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn every_unit_is_well_formed() {
    let dir = copied();
    let all = [names(dir.path(), ".service"), names(dir.path(), ".socket")].concat();
    assert!(all.len() >= 2, "{all:?}");
    let (success, said) =
        run(command("systemd-analyze").arg("verify").args(&all).current_dir(dir.path()));
    assert!(success && said.trim().is_empty(), "{said}");
}

#[test]
fn every_service_is_shut_in() {
    let dir = copied();
    for service in names(dir.path(), ".service") {
        let (success, said) = run(command("systemd-analyze")
            .args(["security", "--offline=true", "--threshold=20", "--no-pager", &service])
            .current_dir(dir.path()));
        let last = said.lines().last().unwrap_or_default();
        println!("{last}");
        assert!(success, "exposed to more than 2.0: {said}");
    }
}

/// The calls that a filter of systemd names: a call, or a set with its subsets.
fn calls_of(name: &str) -> BTreeSet<String> {
    if !name.starts_with('@') {
        return BTreeSet::from([name.to_owned()]);
    }
    let (success, listed) = run(command("systemd-analyze").args(["syscall-filter", name]));
    assert!(success, "{listed}");
    let members = listed.lines().skip(1).map(str::trim);
    members.filter(|line| !line.is_empty() && !line.starts_with('#')).flat_map(calls_of).collect()
}

/// A process under strace, which goes on when strace is killed: ended with this value.
struct Traced(rustix::process::Pid);

impl Traced {
    fn find(trace: &Path) -> Traced {
        let trace = std::fs::read_to_string(trace).unwrap();
        let pid = trace.split_whitespace().next().and_then(|pid| pid.parse().ok()).unwrap();
        Traced(rustix::process::Pid::from_raw(pid).unwrap())
    }

    fn signal(&self, signal: Signal) {
        let _ = rustix::process::kill_process(self.0, signal);
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.signal(Signal::KILL);
        }
    }
}

#[test]
fn the_daemon_makes_no_call_that_its_service_forbids() {
    let unit = std::fs::read_to_string(units().join("sextant-push.service")).unwrap();
    let mut allowed = BTreeSet::new();
    for filter in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let (is_denied, names) = match filter.strip_prefix('~') {
            Some(names) => (true, names),
            None => (false, filter),
        };
        for call in names.split_whitespace().flat_map(calls_of) {
            if is_denied {
                allowed.remove(&call);
            } else {
                allowed.insert(call);
            }
        }
    }
    assert!(allowed.len() > 100, "{allowed:?}");
    let mut daemon = Daemon::prepare(Options::default());
    let trace = daemon.dir().join("trace");
    let plain = daemon.command();
    let mut traced = command("strace");
    traced.args(["-f", "-qq", "-o"]).arg(&trace);
    traced.arg(plain.get_program()).args(plain.get_args());
    daemon.adopt(traced);
    daemon.wait_ready();
    let traced = Traced::find(&trace);
    let mut client = Mqtt::clean(daemon.mqtt(), "client");
    client.subscribe("x", QoS::ExactlyOnce);
    client.publish("x", b"seen by strace", QoS::ExactlyOnce);
    assert_eq!(client.message().text(), "seen by strace");
    assert_eq!(daemon.api().get("/metrics").status, 200);
    client.disconnect();
    traced.signal(Signal::TERM);
    assert!(daemon.wait().success());
    let trace = std::fs::read_to_string(&trace).unwrap();
    let made: BTreeSet<&str> = trace
        .lines()
        .filter_map(|line| line.split_once(char::is_whitespace)?.1.trim().split_once('('))
        .map(|(call, _)| call)
        .filter(|call| {
            call.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        })
        .collect();
    assert!(made.contains("io_uring_enter") || made.contains("epoll_wait"), "{made:?}");
    let forbidden: Vec<_> = made.iter().filter(|call| !allowed.contains(**call)).collect();
    assert!(forbidden.is_empty(), "not in the filter of the service: {forbidden:?}");
}

#[test]
fn users_and_folders_are_made_as_the_service_wants_them() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("etc")).unwrap();
    let at_root = format!("--root={}", root.path().display());
    let (success, said) =
        run(command("systemd-sysusers").arg(&at_root).arg(units().join("sysusers.d/sextant.conf")));
    assert!(success, "{said}");
    let users = std::fs::read_to_string(root.path().join("etc/passwd")).unwrap();
    assert!(users.contains("sextant:"), "{users}");
    let (success, said) = run(command("systemd-tmpfiles")
        .args([&at_root, "--create"])
        .arg(units().join("tmpfiles.d/sextant.conf")));
    assert!(success, "{said}");
    let config = root.path().join("etc/sextant/push.toml");
    let (success, said) =
        run(Command::new(binary("sextant-push")).arg("--config").arg(config).arg("--check-config"));
    assert!(success && said.contains("config ok"), "{said}");
}

#[test]
fn every_sysctl_exists() {
    for name in names(&units().join("sysctl.d"), ".conf") {
        let text = std::fs::read_to_string(units().join("sysctl.d").join(&name)).unwrap();
        let settings = text.lines().map(str::trim).filter(|line| !line.is_empty());
        for line in settings.filter(|line| !line.starts_with('#')) {
            let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{name}: {line}"));
            assert!(!value.trim().is_empty(), "{name}: {line}");
            let path = Path::new("/proc/sys").join(key.trim().replace('.', "/"));
            // A container may not see all of them; the kernel has them all the same.
            if !path.exists() {
                println!("not visible here: {}", key.trim());
                assert!(key.trim().starts_with("net."), "{name}: no such key: {key}");
            }
        }
    }
}

#[test]
fn sockets_of_the_service_manager_are_adopted_by_their_names() {
    let mut daemon = Daemon::prepare(Options::default());
    let (mqtt, admin) = (daemon.mqtt(), daemon.admin());
    let mut activate = command("systemd-socket-activate");
    activate
        .args(["-l", &mqtt.to_string(), "-l", &admin.to_string(), "--fdname=mqtt:admin"])
        .arg(binary("sextant-push"))
        .arg("--data")
        .arg(daemon.data())
        // Addresses that nobody can listen on: what is passed is used instead.
        .args(["--mqtt", "127.0.0.1:1", "--admin", "127.0.0.1:2"]);
    // The first connection, that of the readiness check, starts the daemon.
    daemon.adopt(activate);
    daemon.wait_ready();
    let mut client = Mqtt::clean(mqtt, "client");
    client.subscribe("x", QoS::AtLeastOnce);
    client.publish("x", b"through the socket", QoS::AtLeastOnce);
    assert_eq!(client.message().text(), "through the socket");
    daemon.stop();
}

/// A service manager's end of the notification socket.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn listen(dir: &Path) -> Manager {
        let path = dir.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        Manager { socket, path }
    }

    /// Waits for a message with the line `wanted`, and gives the whole of it.
    #[track_caller]
    fn hears(&self, wanted: &str) -> String {
        let began = Instant::now();
        let mut buffer = [0; 4096];
        loop {
            let left = DEADLINE.saturating_sub(began.elapsed());
            assert!(!left.is_zero(), "{wanted} was not said");
            self.socket.set_read_timeout(Some(left)).unwrap();
            if let Ok(len) = self.socket.recv(&mut buffer) {
                let message = String::from_utf8_lossy(&buffer[..len]).into_owned();
                if message.lines().any(|line| line == wanted) {
                    return message;
                }
            }
        }
    }
}

#[test]
fn the_service_manager_hears_of_ready_watchdog_reload_and_stop() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::listen(dir.path());
    let env = [
        ("NOTIFY_SOCKET", manager.path.display().to_string()),
        ("WATCHDOG_USEC", Duration::from_millis(600).as_micros().to_string()),
    ];
    let env = env.map(|(name, value)| (name.to_owned(), value)).to_vec();
    let mut daemon = Daemon::prepare(Options { env, ..Options::default() });
    daemon.adopt(daemon.command());
    manager.hears("READY=1");
    daemon.wait_ready();
    let began = Instant::now();
    for _ in 0..4 {
        manager.hears("WATCHDOG=1");
    }
    assert!(began.elapsed() < Duration::from_millis(4 * 600), "{:?}", began.elapsed());
    daemon.signal(Signal::HUP);
    let reload = manager.hears("RELOADING=1");
    assert!(reload.contains("MONOTONIC_USEC="), "{reload}");
    manager.hears("READY=1");
    daemon.signal(Signal::TERM);
    manager.hears("STOPPING=1");
    assert!(daemon.wait().success());
}

#[test]
fn a_reload_takes_over_what_can_change_and_says_what_cannot() {
    let daemon = Daemon::start_with(Options::config("[telemetry]\nlevel = \"info\"\n"));
    let changed =
        "[telemetry]\nlevel = \"debug\"\n[mqtt]\nconnections_max = 5\n[log]\ndurability = \"os\"\n";
    std::fs::write(daemon.dir().join("push.toml"), changed).unwrap();
    daemon.signal(Signal::HUP);
    sextant_tests::until("the log says what needs a restart", || {
        let log = daemon.log();
        let told = |line: &str| line.contains("log.durability") && line.contains("next start");
        log.lines().any(told).then_some(())
    });
    std::fs::write(daemon.dir().join("push.toml"), "[mqtt]\nnonsense = 1\n").unwrap();
    daemon.signal(Signal::HUP);
    sextant_tests::until("the log says what is wrong", || {
        daemon.log().contains("nonsense").then_some(())
    });
    Mqtt::clean(daemon.mqtt(), "still served").ping();
}

#[test]
fn a_wrong_configuration_ends_with_the_code_that_is_not_restarted() {
    let daemon = Daemon::prepare(Options::config("[mqtt]\nreceive_max = \"many\"\n"));
    let output = daemon.command().output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("mqtt.receive_max"));
    for service in names(&units(), ".service") {
        let text = std::fs::read_to_string(units().join(service)).unwrap();
        assert!(text.contains("RestartPreventExitStatus=2"));
    }
}
