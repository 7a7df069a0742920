//! The daemon on each of its drivers, and where one of them is forbidden.

use std::process::Command;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
use sextant_mqtt::QoS;
use sextant_tests::{Daemon, Mqtt, Options, Sub, publish, until};

/// What the daemon says of the driver that it runs on.
fn driver_of(daemon: &Daemon) -> String {
    let status = daemon.api().get("/v1/status").json;
    status["driver"].as_str().unwrap().to_owned()
}

/// A round trip through a durable session, a moved connection and a restart.
fn serves(daemon: &mut Daemon) {
    let mut sub = Sub::start(daemon.mqtt(), &["-q", "2", "-t", "drivers/#"]);
    // Connections are accepted on any core and move to the one where their name is at home.
    for sender in 0..16 {
        let (id, payload) = (format!("sender-{sender}"), format!("message {sender}"));
        let qos = (sender % 3).to_string();
        publish(daemon.mqtt(), &["-i", &id, "-q", &qos, "-t", "drivers/x", "-m", &payload]);
        let message = sub.message();
        assert_eq!((message.payload, message.qos.to_string()), (payload, qos));
    }
    publish(daemon.mqtt(), &["-r", "-q", "1", "-t", "drivers/kept", "-m", "on disk"]);
    assert_eq!(sub.message().payload, "on disk");
    daemon.kill();
    daemon.start_again();
    let mut mqtt = Mqtt::clean(daemon.mqtt(), "after the restart");
    mqtt.subscribe("drivers/kept", QoS::AtLeastOnce);
    assert_eq!(mqtt.message().text(), "on disk");
}

#[test]
fn mosquittos_clients_are_served_on_either_driver() {
    for driver in ["io_uring", "epoll"] {
        let mut daemon = Daemon::start_with(Options::config(&format!("driver = \"{driver}\"")));
        assert_eq!(driver_of(&daemon), driver);
        let told = format!("{driver}: up to ");
        until("it says what it runs on", || daemon.log().contains(&told).then_some(()));
        serves(&mut daemon);
    }
}

/// Everything that is tested in `smoke` on the default driver, once more on epoll: by this test's
/// own program, whose daemons inherit the variable.
#[test]
fn what_mqtt_promises_is_kept_on_epoll_too() {
    let smoke = Command::new(std::env::current_exe().unwrap())
        .args(["smoke::", "--test-threads", "4"])
        .env("SEXTANT_PUSH_DRIVER", "epoll")
        .output()
        .unwrap();
    let said = [smoke.stdout, smoke.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(smoke.status.success(), "{said}");
    assert!(!said.contains(" 0 passed"), "no test was run: {said}");
}

/// Runs `act` on a thread that may not use io_uring, by the filter that container runtimes set:
/// its system calls fail with `EPERM`, on this thread and in the processes that it starts.
fn without_io_uring<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    let calls = [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];
    let filter = SeccompFilter::new(
        calls.map(|call| (call, Vec::new())).into(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM as u32),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let filter = BpfProgram::try_from(filter.unwrap()).unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            apply_filter(&filter).unwrap();
            act()
        });
        thread.join().unwrap()
    })
}

#[test]
fn where_io_uring_is_forbidden_the_daemon_runs_on_epoll_and_says_why() {
    without_io_uring(|| {
        let mut daemon = Daemon::start();
        assert_eq!(driver_of(&daemon), "epoll");
        let log = daemon.log();
        let why = "io_uring cannot be used here";
        assert!(log.contains(why) && log.contains("Operation not permitted"), "{log}");
        serves(&mut daemon);
    });
}

#[test]
fn io_uring_that_is_configured_and_forbidden_is_an_error_that_says_what_to_do() {
    without_io_uring(|| {
        let daemon = Daemon::prepare(Options::config("driver = \"io_uring\""));
        let output = daemon.command().output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("seccomp") && said.contains("driver = \"auto\""), "{said}");
    });
}
