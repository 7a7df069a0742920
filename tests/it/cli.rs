//! `sextant`: what a person at a terminal sees, also when something is wrong.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use sextant_mqtt::QoS;
use sextant_tests::{Daemon, Lines, Mqtt, Options, binary, free_addr, publish, until};

/// `sextant` with the data of `daemon`, and its addresses.
fn sextant(daemon: &Daemon, args: &[&str]) -> Command {
    let mut command = plain(daemon.dir(), args);
    command.env("SEXTANT_URL", format!("http://{}", daemon.admin()));
    command
}

/// `sextant` with a data directory and nothing else of this test's environment.
fn plain(data: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(binary("sextant"));
    for name in ["SEXTANT_TOKEN", "SEXTANT_URL", "SEXTANT_MQTT_PASSWORD"] {
        command.env_remove(name);
    }
    command.args(args).env("SEXTANT_DATA", data);
    command
}

/// Runs a command to its end; gives its exit code, and what it printed.
#[track_caller]
fn run(mut command: Command) -> (i32, String, String) {
    let output = command.stdin(std::process::Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// A `sextant up` with a folder and ports of its own.
struct Up {
    dir: tempfile::TempDir,
    sets: Vec<String>,
}

impl Up {
    fn new() -> Up {
        let dir = tempfile::tempdir().unwrap();
        let sets = vec![
            format!("push.mqtt.listen={}", free_addr()),
            format!("push.admin.listen={}", free_addr()),
        ];
        Up { dir, sets }
    }

    fn start(&self) -> Lines {
        let mut command = plain(self.dir.path(), &["up", "--console", "off"]);
        for set in &self.sets {
            command.args(["--set", set]);
        }
        Lines::start(command)
    }

    fn sextant(&self, args: &[&str]) -> Command {
        plain(self.dir.path(), args)
    }

    /// The process of the push daemon.
    #[track_caller]
    fn push_pid(&self) -> u64 {
        until("the push daemon has a process", || {
            let text = std::fs::read_to_string(self.dir.path().join("up.json")).ok()?;
            let up: Value = serde_json::from_str(&text).ok()?;
            up["daemons"][0]["pid"].as_u64()
        })
    }
}

fn is_alive(pid: u64) -> bool {
    // A process that has ended and was not waited for has no command line.
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

fn kill(pid: u64) {
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
}

#[test]
fn up_starts_again_what_was_killed_and_stops_all_on_ctrl_c() {
    let up = Up::new();
    let mut lines = up.start();
    lines.line_with("push is ready");
    lines.line_with("Ctrl-C stops everything");
    let first = up.push_pid();
    let (code, _, _) = run(up.sextant(&["push", "send", "--device", "lamp", "--payload", "kept"]));
    assert_eq!(code, 0);
    kill(first);
    let line = lines.line_with("next try in 1 s");
    assert!(line.contains("signal 9 (SIGKILL)"), "{line}");
    lines.line_with("push is ready");
    let second =
        until("there is another process", || Some(up.push_pid()).filter(|pid| *pid != first));
    let (code, table, _) = run(up.sextant(&["status"]));
    assert_eq!(code, 0, "{table}");
    assert!(table.contains("ready") && table.contains(&second.to_string()), "{table}");
    lines.signal(Signal::INT);
    let (success, all) = lines.end();
    assert!(success && all.contains("All daemons have stopped"), "{all}");
    assert!(all.contains("with exit code 0"), "the daemon drained: {all}");
    assert!(!is_alive(second));
    assert!(!up.dir.path().join("up.json").exists());
}

#[test]
fn daemons_end_with_an_up_that_is_killed() {
    let up = Up::new();
    let mut lines = up.start();
    lines.line_with("push is ready");
    let push = up.push_pid();
    lines.kill();
    until("the daemon has ended, too", || (!is_alive(push)).then_some(()));
}

#[test]
fn up_prints_a_link_that_opens_the_console_once() {
    let up = Up::new();
    let console = free_addr();
    let mut command = plain(up.dir.path(), &["up", "--console", &console.to_string()]);
    for set in &up.sets {
        command.args(["--set", set]);
    }
    let mut lines = Lines::start(command);
    let line = lines.line_with("#login=");
    let (url, link) = line.trim().trim_start_matches("open").trim().split_once("#login=").unwrap();
    assert_eq!(url, format!("http://{console}/"));
    let config = ureq::Agent::config_builder().http_status_as_error(false).build();
    let agent: ureq::Agent = config.into();
    let status = format!("{url}api/push/v1/status");
    assert_eq!(agent.get(&status).call().unwrap().status(), 401);
    let enter = || {
        let origin = url.trim_end_matches('/');
        let request = agent.post(format!("{url}session")).header("origin", origin);
        request.send_json(json!({ "link": link })).unwrap()
    };
    let entered = enter();
    assert_eq!(entered.status(), 204);
    let cookie = entered.headers()["set-cookie"].to_str().unwrap().to_owned();
    let (cookie, _) = cookie.split_once(';').unwrap();
    let mut answer = agent.get(&status).header("cookie", cookie).call().unwrap();
    let told: Value = answer.body_mut().read_json().unwrap();
    assert_eq!(told["connections"], 0, "{told}");
    assert_eq!(enter().status(), 401, "it works once");
    lines.signal(Signal::TERM);
    assert!(lines.end().0);
}

#[test]
fn up_says_which_port_is_taken_and_how_to_move() {
    let daemon = Daemon::start();
    let up = Up { sets: vec![format!("push.mqtt.listen={}", daemon.mqtt())], ..Up::new() };
    let (success, said) = up.start().end();
    assert!(!success);
    assert!(said.contains(&daemon.mqtt().to_string()) && said.contains("--set"), "{said}");
}

#[test]
fn up_does_not_share_its_data() {
    let up = Up::new();
    let mut first = up.start();
    first.line_with("push is ready");
    let (success, said) = up.start().end();
    assert!(!success && said.contains("in use"), "{said}");
    assert!(said.contains(&first.pid().to_string()), "{said}");
}

#[test]
fn a_wrong_key_is_answered_with_the_nearest_right_one() {
    let up = Up { sets: vec!["push.mqtt.conections_max=5".to_owned()], ..Up::new() };
    let (code, _, said) = run({
        let mut command = up.sextant(&["up"]);
        command.args(["--set", &up.sets[0]]);
        command
    });
    assert_eq!(code, 2);
    assert!(said.contains("connections_max"), "{said}");
    let file = up.dir.path().join("push.toml");
    std::fs::write(&file, "[mqtt]\nlissten = [\"127.0.0.1:1\"]\n").unwrap();
    let mut check = Command::new(binary("sextant-push"));
    let (code, out, said) = run({
        check.arg("--config").arg(&file).arg("--check-config");
        check
    });
    assert_eq!(code, 2, "{out}{said}");
    assert!(said.contains("lissten") && said.contains("listen"), "{said}");
    assert!(said.contains("push.toml"), "it names the file: {said}");
}

#[test]
fn what_the_settings_are_is_printed_and_can_be_read_back() {
    let daemon = Daemon::start_with(Options::config("[mqtt]\nconnections_max = 77\n"));
    let mut command = daemon.command();
    command.arg("--print-config");
    let (code, printed, _) = run(command);
    assert_eq!(code, 0);
    assert!(printed.contains("connections_max = 77"), "{printed}");
    let file = daemon.dir().join("printed.toml");
    std::fs::write(&file, &printed).unwrap();
    let mut check = Command::new(binary("sextant-push"));
    check.arg("--config").arg(&file).arg("--check-config");
    let (code, out, said) = run(check);
    assert_eq!(code, 0, "{out}{said}");
}

#[test]
fn send_with_wait_shows_each_step_to_acknowledged() {
    let daemon = Daemon::start();
    let mut lamp = Mqtt::clean(daemon.mqtt(), "lamp");
    let args = ["push", "send", "--device", "lamp", "--payload", "on", "--wait"];
    let mut send = Lines::start(sextant(&daemon, &args));
    send.line_with("accepted");
    lamp.subscribe("d/lamp/#", QoS::AtLeastOnce);
    assert_eq!(lamp.message().text(), "on");
    send.line_with("acknowledged");
    let (success, said) = send.end();
    assert!(success && said.contains("sent"), "{said}");
    let id = said.lines().find(|line| !line.contains(' ')).unwrap();
    let (code, shown, _) = run(sextant(&daemon, &["push", "show", id]));
    assert_eq!(code, 0);
    assert!(shown.contains("acknowledged") && shown.contains("lamp"), "{shown}");
    let (_, shown, _) = run(sextant(&daemon, &["push", "show", id, "--json"]));
    assert_eq!(serde_json::from_str::<Value>(&shown).unwrap()["id"], id);
}

#[test]
fn send_with_wait_fails_when_the_message_expires() {
    let daemon = Daemon::start();
    let args = ["push", "send", "--device", "never", "--payload", "x", "--ttl", "1s", "--wait"];
    let (code, id, said) = run(sextant(&daemon, &args));
    assert_eq!(code, 1);
    assert!(said.contains("expired") && said.contains("never"), "{said}");
    assert_eq!(id.lines().count(), 1, "standard output has the id alone: {id}");
}

#[test]
fn a_file_is_sent_byte_by_byte() {
    let daemon = Daemon::start();
    let mut lamp = Mqtt::clean(daemon.mqtt(), "lamp");
    lamp.subscribe("firmware", QoS::AtLeastOnce);
    let file = daemon.dir().join("firmware.bin");
    let bytes: Vec<u8> = (0..=255).collect();
    std::fs::write(&file, &bytes).unwrap();
    let args = ["push", "send", "--topic", "firmware", "--file", file.to_str().unwrap()];
    let (code, _, said) = run(sextant(&daemon, &args));
    assert_eq!(code, 0, "{said}");
    assert_eq!(lamp.message().payload, bytes);
}

#[test]
fn a_message_that_is_too_large_is_refused_with_its_size() {
    let daemon = Daemon::start();
    let file = daemon.dir().join("large.bin");
    for mib in [1, 8] {
        std::fs::write(&file, vec![0xFF; mib << 20]).unwrap();
        let args = ["push", "send", "--topic", "x", "--file", file.to_str().unwrap()];
        let (code, _, said) = run(sextant(&daemon, &args));
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("packet_bytes_max") || said.contains("413"), "{said}");
    }
}

#[test]
fn watch_prints_what_comes_and_connects_again() {
    let mut daemon = Daemon::start();
    let broker = daemon.mqtt().to_string();
    let args = ["push", "watch", "a/#", "b", "--qos", "2", "--mqtt", &broker];
    let mut watch = Lines::start(sextant(&daemon, &args));
    watch.line_with("waiting for messages");
    publish(daemon.mqtt(), &["-q", "2", "-t", "a/x", "-m", "hello"]);
    let line = watch.line_with("hello");
    assert!(line.contains("a/x") && line.contains("qos 2"), "{line}");
    let mut binary = Mqtt::clean(daemon.mqtt(), "binary");
    binary.publish("b", &[0xFF, 0], QoS::AtMostOnce);
    watch.line_with("hex ff00");
    daemon.kill();
    watch.line_with("disconnected");
    daemon.start_again();
    watch.line_with("waiting for messages");
    publish(daemon.mqtt(), &["-r", "-q", "1", "-t", "a/y", "-m", "again"]);
    watch.line_with("again");
    let args = ["push", "watch", "a/y", "--count", "1", "--mqtt", &broker];
    let (code, line, _) = run(sextant(&daemon, &args));
    assert_eq!(code, 0);
    assert!(line.contains("retained") && line.contains("again"), "{line}");
}

#[test]
fn watch_says_what_it_may_not_see() {
    let config = "[auth]\nanonymous = false\n";
    let daemon = Daemon::start_with(Options::config(config));
    let broker = daemon.mqtt().to_string();
    let (code, _, said) = run(sextant(&daemon, &["push", "watch", "#", "--mqtt", &broker]));
    assert_eq!(code, 1);
    assert!(said.contains("refuses the connection") && said.contains("--user"), "{said}");
    let (code, token, said) = run(sextant(&daemon, &["push", "token", "lamp", "--ttl", "1h"]));
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("good until"), "{said}");
    let login = ["--user", "lamp", "--client-id", "lamp", "--password", token.trim()];
    let foreign = [&["push", "watch", "d/door/#", "--mqtt", &broker][..], &login].concat();
    let (code, _, said) = run(sextant(&daemon, &foreign));
    assert_eq!(code, 1);
    assert!(said.contains("cannot watch d/door/#"), "{said}");
    let own = ["push", "watch", "d/lamp/#", "--qos", "1", "--count", "1", "--mqtt", &broker];
    let mut watch = Lines::start(sextant(&daemon, &[&own[..], &login].concat()));
    watch.line_with("waiting for messages");
    daemon.api().send(&json!({"device": "lamp", "payload": "for the lamp"}));
    watch.line_with("for the lamp");
    assert!(watch.end().0);
}

#[test]
fn status_tells_what_is_there_and_what_is_not() {
    let mut daemon = Daemon::start();
    let _lamp = Mqtt::clean(daemon.mqtt(), "lamp");
    let (code, table, _) = run(sextant(&daemon, &["status"]));
    assert_eq!(code, 0);
    assert!(table.contains("CONNECTIONS") && table.contains("durability always"), "{table}");
    let (_, text, _) = run(sextant(&daemon, &["status", "--json"]));
    let status: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status["daemons"][0]["state"], "ready");
    assert_eq!(status["daemons"][0]["status"]["connections"], 1);
    daemon.stop();
    let (code, table, _) = run(sextant(&daemon, &["status"]));
    assert_eq!(code, 1);
    assert!(table.contains("not reachable") && table.contains("sextant up"), "{table}");
    let (code, text, _) = run(sextant(&daemon, &["status", "--json"]));
    assert_eq!(code, 1);
    let status: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status["daemons"][0]["state"], "unreachable");
}

#[test]
fn an_error_is_one_sentence_that_says_what_to_do() {
    let mut daemon = Daemon::start();
    let send = ["push", "send", "--device", "lamp", "--payload", "x"];
    let said = |command: Command| {
        let (code, _, said) = run(command);
        assert!(code == 1 && said.lines().count() == 1, "{code} {said}");
        said
    };
    let mut wrong = sextant(&daemon, &send);
    wrong.env("SEXTANT_TOKEN", "x".repeat(43));
    let text = said(wrong);
    assert!(text.contains("refuses this token") && text.contains("admin.token"), "{text}");
    let empty = tempfile::tempdir().unwrap();
    let mut none = plain(empty.path(), &send);
    none.env("SEXTANT_URL", format!("http://{}", daemon.admin()));
    let text = said(none);
    assert!(text.contains("no admin token") && text.contains("--data"), "{text}");
    let text = said(sextant(&daemon, &["push", "show", "00000000-0000-7000-8000-000000000000"]));
    assert!(text.contains("404"), "{text}");
    let text = said(sextant(&daemon, &["push", "send", "--topic", "a/#", "--payload", "x"]));
    assert!(text.contains("topic"), "{text}");
    daemon.stop();
    let text = said(sextant(&daemon, &send));
    assert!(text.contains("cannot reach") && text.contains("sextant up"), "{text}");
    let nobody = free_addr().to_string();
    let text = said(plain(empty.path(), &["push", "watch", "#", "--mqtt", &nobody]));
    assert!(text.contains("cannot connect") && text.contains("--mqtt"), "{text}");
}

#[test]
fn two_daemons_do_not_share_a_data_directory() {
    let daemon = Daemon::start();
    let mut second = daemon.command();
    second.args(["--mqtt", &free_addr().to_string()]);
    let (code, out, said) = run(second);
    assert_ne!(code, 0);
    assert!(format!("{out}{said}").contains("in use"), "{out}{said}");
}

#[test]
fn anonymous_clients_are_for_this_machine_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut open = Command::new(binary("sextant-push"));
    open.arg("--data").arg(dir.path().join("push"));
    open.args(["--mqtt", "0.0.0.0:0", "--check-config"]);
    let (code, out, said) = run(open);
    assert_eq!(code, 2, "{out}{said}");
    assert!(said.contains("anonymous"), "{said}");
}

#[test]
fn a_stop_is_quick_when_nothing_is_under_way() {
    let mut daemon = Daemon::start();
    let _idle: Vec<Mqtt> =
        (0..50).map(|n| Mqtt::clean(daemon.mqtt(), &format!("idle {n}"))).collect();
    let began = std::time::Instant::now();
    daemon.stop();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn clients_are_listed_shown_and_kicked_by_hand() {
    let daemon = Daemon::start();
    let mut lamp = Mqtt::clean(daemon.mqtt(), "lamp/1");
    lamp.subscribe("d/lamp/#", QoS::AtLeastOnce);
    let _door = Mqtt::clean(daemon.mqtt(), "door");
    let (code, table, said) = run(sextant(&daemon, &["push", "clients"]));
    assert_eq!(code, 0, "{said}");
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(table.starts_with("CLIENT") && table.contains("lamp/1"), "{table}");
    let (_, table, said) = run(sextant(&daemon, &["push", "clients", "--limit", "1"]));
    assert!(table.lines().count() == 2 && said.contains("--limit"), "{table}{said}");
    let (_, json, _) = run(sextant(&daemon, &["push", "clients", "--like", "l*", "--json"]));
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["client"], "lamp/1");
    let (code, shown, _) = run(sextant(&daemon, &["push", "client", "lamp/1"]));
    assert_eq!(code, 0);
    assert!(shown.contains("d/lamp/#") && shown.contains("127."), "{shown}");
    let (code, _, said) = run(sextant(&daemon, &["push", "kick", "lamp/1"]));
    assert!(code == 0 && said.contains("lamp/1 is disconnected"), "{said}");
    lamp.receive_to_end();
    let (code, _, said) = run(sextant(&daemon, &["push", "kick", "lamp/1"]));
    assert!(code == 1 && said.contains("lamp/1"), "{said}");
}

#[test]
fn bans_are_made_listed_and_lifted_by_hand() {
    let daemon = Daemon::start();
    let _lamp = Mqtt::clean(daemon.mqtt(), "lamp");
    let args = ["push", "ban", "client", "lamp", "--for", "1h", "--why", "too noisy"];
    let (code, _, said) = run(sextant(&daemon, &args));
    assert!(code == 0 && said.contains("lamp is banned for 1 h 0 m"), "{said}");
    assert!(said.contains("connections closed: 1"), "{said}");
    let (code, _, said) = run(sextant(&daemon, &["push", "ban", "user", "bob"]));
    assert!(code == 0 && said.contains("bob is banned until it is lifted"), "{said}");
    let (code, table, _) = run(sextant(&daemon, &["push", "ban", "list"]));
    assert!(code == 0 && table.contains("too noisy") && table.contains("bob"), "{table}");
    let (_, json, _) = run(sextant(&daemon, &["push", "ban", "list", "--json"]));
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["bans"][0]["name"], "lamp");
    for (code, text) in [(0, "lamp may come back"), (1, "no such ban")] {
        let (ended, _, said) = run(sextant(&daemon, &["push", "ban", "lift", "client", "lamp"]));
        assert!(ended == code && said.contains(text), "{said}");
    }
}
