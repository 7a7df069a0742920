//! The device against mosquitto: what its clients publish, and what they see of the device. Ports
//! are the system's choice; a broker that was ended is started again on the same one.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uuid::Uuid;

use super::*;

const WAIT_MAX: Duration = Duration::from_secs(20);

/// A broker, ended when dropped.
struct Broker {
    child: Child,
    port: u16,
}

impl Broker {
    fn start() -> Broker {
        // Another process may take the port meanwhile; then another one is tried.
        (0..5).find_map(|_| Broker::try_start()).expect("mosquitto runs on a port that was free")
    }

    fn try_start() -> Option<Broker> {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let program = ["mosquitto", "/usr/sbin/mosquitto"]
            .into_iter()
            .find(|program| Command::new(program).arg("-h").output().is_ok())
            .expect("mosquitto is installed");
        let mut child = Command::new(program)
            .args(["-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let until = Instant::now() + WAIT_MAX;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if child.try_wait().unwrap().is_some() {
                return None;
            }
            assert!(Instant::now() < until, "mosquitto listens");
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(Broker { child, port })
    }

    /// Ends it; the value is its port.
    fn end(self) -> u16 {
        self.port
    }

    fn publish(&self, topic: &str, payloads: &[Value]) {
        let mut child = Command::new("mosquitto_pub")
            .args(["-p", &self.port.to_string(), "-q", "1", "-l", "-t", topic])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        for payload in payloads {
            writeln!(stdin, "{payload}").unwrap();
        }
        drop(stdin);
        assert!(child.wait().unwrap().success());
    }

    fn watch(&self, filter: &str) -> Watch {
        let mut child = Command::new("mosquitto_sub")
            .args(["-p", &self.port.to_string(), "-q", "1", "-t", filter, "-t", "ready"])
            .args(["-F", "%t %p"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut watch = Watch { child, lines };
        // A retained message is seen as soon as the subscription is made.
        let retain = ["-p", &self.port.to_string(), "-r", "-t", "ready", "-m", "{}"];
        assert!(Command::new("mosquitto_pub").args(retain).status().unwrap().success());
        watch.next("ready");
        watch
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// What a client of mosquitto sees.
struct Watch {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Watch {
    fn next(&mut self, topic: &str) -> Value {
        loop {
            let mut line = String::new();
            assert!(self.lines.read_line(&mut line).unwrap() > 0, "the watch goes on");
            let (seen, payload) = line.split_once(' ').unwrap();
            if seen == topic {
                return serde_json::from_str(payload).unwrap();
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Lets one connection to a port through to another.
fn forward(from: u16, to: u16) {
    let listener = TcpListener::bind(("127.0.0.1", from)).unwrap();
    std::thread::spawn(move || {
        let (mut near, _) = listener.accept().unwrap();
        let mut far = TcpStream::connect(("127.0.0.1", to)).unwrap();
        let (mut near_too, mut far_too) = (near.try_clone().unwrap(), far.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut near_too, &mut far_too));
        std::io::copy(&mut far, &mut near)
    });
}

#[derive(Debug, PartialEq)]
enum Came {
    Message(u128, Option<String>),
    Recall(u128),
    Connected,
    Disconnected(Duration),
    Ignored,
}

struct Recorder {
    came: Sender<Came>,
    shows: bool,
}

impl Handler for Recorder {
    fn message(&mut self, message: Message, outgoing: &Outgoing) {
        if self.shows {
            outgoing.shown(message.id).unwrap();
        }
        let title = message.notification.and_then(|notification| notification.title);
        self.came.send(Came::Message(message.id.as_u128(), title)).unwrap();
    }

    fn recall(&mut self, id: Uuid, _: &Outgoing) {
        self.came.send(Came::Recall(id.as_u128())).unwrap();
    }

    fn event(&mut self, event: &Event<'_>) {
        let came = match event {
            Event::Connected => Came::Connected,
            Event::Disconnected { wait, .. } => Came::Disconnected(*wait),
            Event::Ignored { .. } | Event::Refused { .. } => Came::Ignored,
        };
        // The test may have ended.
        let _ = self.came.send(came);
    }
}

fn start(port: u16, shows: bool) -> (Device, Receiver<Came>) {
    let (came, seen) = channel();
    let options = Options {
        first_wait_max: Duration::from_millis(50),
        wait_max: Duration::from_millis(200),
        ..Options::new(&format!("127.0.0.1:{port}"), "phone-1", "sxd1.x")
    };
    (Device::start(options, Recorder { came, shows }).unwrap(), seen)
}

fn next(seen: &Receiver<Came>) -> Came {
    seen.recv_timeout(WAIT_MAX).expect("something comes in time")
}

fn next_connected(seen: &Receiver<Came>) {
    while next(seen) != Came::Connected {}
}

fn message(id: u128) -> Value {
    json!({"id": Uuid::from_u128(id), "type": "message", "sent_at": "2026-11-23T10:00:00.000Z",
        "notification": {"title": format!("n{id}")}, "data": {"a": [1]}})
}

fn recall(id: u128) -> Value {
    json!({"id": Uuid::from_u128(id), "type": "recall"})
}

const PUSH: &str = "d/phone-1/push";

#[test]
fn a_message_that_comes_twice_is_given_once_and_one_that_was_recalled_not_at_all() {
    let broker = Broker::start();
    let (device, seen) = start(broker.port, false);
    assert_eq!(next(&seen), Came::Connected);
    let payloads = [
        message(1),
        message(1),
        message(2),
        recall(1),
        recall(1),
        recall(3),
        message(3),
        json!("nothing"),
        json!({"id": Uuid::nil(), "type": "song"}),
        message(4),
    ];
    broker.publish(PUSH, &payloads);
    let given = |id: u128| Came::Message(id, Some(format!("n{id}")));
    let expected = [
        given(1),
        given(2),
        Came::Recall(1),
        Came::Recall(3),
        Came::Ignored,
        Came::Ignored,
        given(4),
    ];
    for expected in expected {
        assert_eq!(next(&seen), expected);
    }
    assert_eq!(device.stop(), []);
}

#[test]
fn a_device_that_is_cut_off_comes_back_and_says_what_it_could_not() {
    let broker = Broker::start();
    let (device, seen) = start(broker.port, false);
    assert_eq!(next(&seen), Came::Connected);
    broker.publish(PUSH, &[message(1)]);
    assert!(matches!(next(&seen), Came::Message(1, _)));
    let port = broker.end();
    assert!(matches!(next(&seen), Came::Disconnected(_)));
    assert!(!device.outgoing().is_connected());
    device.outgoing().shown(Uuid::from_u128(1)).unwrap();
    device.outgoing().clicked(Uuid::from_u128(1)).unwrap();
    device.outgoing().subscribe("news").unwrap();
    assert_eq!(device.outgoing().receipts_waiting(), 2);
    // The new broker is watched before the device finds a way to it.
    let broker = Broker::start();
    let mut watch = broker.watch("d/phone-1/+");
    forward(port, broker.port);
    next_connected(&seen);
    assert_eq!(watch.next("d/phone-1/topics")["subscribe"], json!(["news"]));
    let receipts = &watch.next("d/phone-1/receipts")["receipts"];
    let events = [&receipts[0]["event"], &receipts[1]["event"]];
    assert_eq!(events, [&json!("shown"), &json!("clicked")]);
    broker.publish(PUSH, &[message(1), message(2)]);
    assert!(matches!(next(&seen), Came::Message(2, _)), "the first was given before");
    assert_eq!(device.stop(), [], "all were acknowledged");
}

#[test]
fn receipts_and_topics_are_published_in_the_form_of_the_contract() {
    let broker = Broker::start();
    let mut watch = broker.watch("d/phone-1/+");
    let (device, seen) = start(broker.port, true);
    device.outgoing().subscribe("news").unwrap();
    device.outgoing().unsubscribe("sport").unwrap();
    assert_eq!(next(&seen), Came::Connected);
    let topics = watch.next("d/phone-1/topics");
    assert_eq!(topics, json!({"subscribe": ["news"], "unsubscribe": ["sport"]}));
    broker.publish(PUSH, &[message(1)]);
    let receipts = watch.next("d/phone-1/receipts");
    let receipt = &receipts["receipts"][0];
    assert_eq!((&receipt["id"], &receipt["event"]), (&json!(Uuid::from_u128(1)), &json!("shown")));
    receipt["at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    device.stop();
}

#[test]
fn a_device_that_stops_says_all_it_has_or_gives_it_back() {
    let broker = Broker::start();
    let mut watch = broker.watch("d/phone-1/receipts");
    let (device, seen) = start(broker.port, false);
    next_connected(&seen);
    for id in 0..250 {
        device.outgoing().shown(Uuid::from_u128(id)).unwrap();
    }
    assert_eq!(device.stop(), []);
    let mut count = 0;
    while count < 250 {
        count += watch.next("d/phone-1/receipts")["receipts"].as_array().unwrap().len();
    }
    assert_eq!(count, 250);
    let port = broker.end();
    let (device, seen) = start(port, false);
    assert!(matches!(next(&seen), Came::Disconnected(_)));
    device.outgoing().shown(Uuid::from_u128(7)).unwrap();
    let left = device.stop();
    assert_eq!(left.iter().map(|receipt| receipt.id.as_u128()).collect::<Vec<_>>(), [7]);
}

#[test]
fn messages_that_came_while_it_was_stopped_come_when_it_is_started_again() {
    let broker = Broker::start();
    let (device, seen) = start(broker.port, false);
    assert_eq!(next(&seen), Came::Connected);
    device.stop();
    broker.publish(PUSH, &(0..100).map(message).collect::<Vec<_>>());
    let (device, seen) = start(broker.port, false);
    let mut ids = Vec::new();
    while ids.len() < 100 {
        if let Came::Message(id, _) = next(&seen) {
            ids.push(id);
        }
    }
    assert_eq!(ids, (0..100).collect::<Vec<_>>());
    drop(device);
}

#[test]
fn a_broker_that_refuses_or_says_nonsense_is_tried_again_with_longer_waits() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answers: [&[u8]; 4] = [b"\x20\x03\0\x87\0", b"\xFF\xFF\xFF\xFF\xFF", b"\xD0\0", b""];
    let (device, seen) = start(port, false);
    for answer in answers {
        let (mut socket, _) = listener.accept().unwrap();
        socket.write_all(answer).unwrap();
        drop(socket);
        assert!(matches!(next(&seen), Came::Disconnected(_)));
    }
    drop(device);
}

#[test]
fn a_device_stops_while_it_connects_and_while_it_waits() {
    // Nobody accepts: the connection is made by the system, and stays silent.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (device, _seen) = start(listener.local_addr().unwrap().port(), false);
    let began = Instant::now();
    drop(device);
    let (came, seen) = channel();
    let options = Options { first_wait_max: WAIT_MAX, ..Options::new("127.0.0.1:1", "d", "t") };
    let device = Device::start(options, Recorder { came, shows: false }).unwrap();
    assert!(matches!(next(&seen), Came::Disconnected(_)));
    drop(device);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn an_id_that_no_topic_can_have_is_refused() {
    for id in ["", "a+", "#", "a\0"] {
        let (came, _seen) = channel();
        let options = Options::new("127.0.0.1:1", id, "t");
        let device = Device::start(options, Recorder { came, shows: false });
        assert!(matches!(device, Err(StartError::Device)), "{id:?}");
    }
}

#[test]
fn a_handler_that_panics_ends_the_device_and_says_so() {
    struct Panics(Sender<()>);
    impl Handler for Panics {
        fn message(&mut self, _: Message, _: &Outgoing) {}
        fn recall(&mut self, _: Uuid, _: &Outgoing) {}
        fn event(&mut self, _: &Event<'_>) {
            self.0.send(()).unwrap();
            panic!("as the test wants");
        }
    }
    let (called, is_called) = channel();
    let device = Device::start(Options::new("127.0.0.1:1", "d", "t"), Panics(called)).unwrap();
    is_called.recv_timeout(WAIT_MAX).unwrap();
    let stopped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| device.stop()));
    let panic = stopped.unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"as the test wants"));
}
