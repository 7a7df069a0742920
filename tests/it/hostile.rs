//! Clients that break rules, send garbage or do not read, and a disk that is full. Others must not
//! notice.

use std::io::Write;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;
use sextant_mqtt::{Connect, ConnectProperties, Packet, QoS, ReasonCode, Version};
use sextant_tests::{Daemon, Mqtt, Options, publish, until};

/// A client that does nothing but ping and echo, and notices how long that takes.
struct Bystander {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Bystander {
    fn start(daemon: &Daemon) -> Bystander {
        let stop = Arc::new(AtomicBool::new(false));
        let mut mqtt = Mqtt::clean(daemon.mqtt(), "bystander");
        mqtt.subscribe("bystander", QoS::AtLeastOnce);
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut slowest = Duration::ZERO;
            while !stopped.load(Ordering::Relaxed) {
                slowest = slowest.max(mqtt.ping());
                let began = Instant::now();
                mqtt.publish("bystander", b"echo", QoS::AtMostOnce);
                mqtt.message();
                slowest = slowest.max(began.elapsed());
            }
            slowest
        });
        Bystander { stop, thread }
    }

    /// The longest that an answer took.
    fn slowest(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Sends bytes on a fresh connection, and gives what the broker said until it closed it.
#[track_caller]
fn shout(daemon: &Daemon, bytes: &[u8]) -> Vec<u8> {
    let mut stream = std::net::TcpStream::connect(daemon.mqtt()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    // A reset is an end, too.
    match std::io::Read::read_to_end(&mut stream, &mut answer) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            panic!("the broker does not close a connection with {bytes:02x?}")
        }
        _ => answer,
    }
}

/// The DISCONNECT of MQTT 5 that the broker closes a connection with.
#[track_caller]
fn disconnected_with(mqtt: &mut Mqtt) -> ReasonCode {
    let last = mqtt.receive_to_end().pop().expect("a DISCONNECT before the end");
    match last.packet() {
        Packet::Disconnect(disconnect) => disconnect.reason,
        other => panic!("{other:?} is no DISCONNECT"),
    }
}

#[test]
fn garbage_ends_its_own_connection_alone() {
    let mut daemon = Daemon::start();
    let mut bystander = Mqtt::clean(daemon.mqtt(), "bystander");
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    println!("seed {state:#x}");
    for round in 0..200 {
        let bytes: Vec<u8> = (0..round * 7 % 500 + 5)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            })
            // A first byte that waits for no body: not a CONNECT, which could be waited for.
            .collect();
        let bytes = [&[0xFF][..], &bytes].concat();
        shout(&daemon, &bytes);
    }
    for bytes in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], b"\x16\x03\x01\x02\x00\x01", &[0; 64]]
    {
        shout(&daemon, bytes);
    }
    bystander.ping();
    assert!(daemon.is_running());
}

#[test]
fn a_connection_that_says_too_little_is_closed_in_time() {
    let daemon = Daemon::start_with(Options::config("[mqtt]\nconnect_timeout = \"500ms\"\n"));
    let mut connect = Vec::new();
    Packet::Connect(Connect::new(Version::V5, "truncated"))
        .encode(Version::V5, &mut connect)
        .unwrap();
    for bytes in [&b""[..], &connect[..1], &connect[..connect.len() - 1], b"\x10\xFF\xFF\xFF\x01"] {
        let began = Instant::now();
        shout(&daemon, bytes);
        let took = began.elapsed();
        assert!(took < Duration::from_secs(5), "{bytes:02x?} held a connection for {took:?}");
    }
    assert!(daemon.api().metric("sextant_push_connections_closed_total", "connect_timeout") >= 3.0);
}

#[test]
fn a_packet_that_is_too_large_is_refused_by_its_header() {
    let daemon = Daemon::start();
    let (mut mqtt, connack) = Mqtt::connect(daemon.mqtt(), &Connect::new(Version::V5, "large"));
    let Packet::ConnAck(connack) = connack.packet() else { panic!("{connack:?}") };
    assert_eq!(connack.properties.packet_bytes_max, NonZeroU32::new(1 << 20));
    // PUBLISH with a remaining length of 2 MiB, of which nothing follows.
    mqtt.send_bytes(&[0x30, 0x80, 0x80, 0x80, 0x01]);
    assert_eq!(disconnected_with(&mut mqtt), ReasonCode::PacketTooLarge);
}

// [MQTT-4.13.1-1], [MQTT-4.13.2-1], [MQTT-3.1.0-2], [MQTT-3.14.4-2], [3.1.1: MQTT-4.8.0-1]
#[test]
fn rules_that_are_broken_end_the_connection_with_their_reason() {
    let daemon = Daemon::start();
    let cases: [(&str, &[u8], &[ReasonCode]); 12] = [
        (
            "a second CONNECT",
            b"\x10\x0E\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01a",
            &[ReasonCode::ProtocolError],
        ),
        ("a CONNACK", b"\x20\x03\x00\x00\x00", &[ReasonCode::ProtocolError]),
        ("packet type 0", b"\x00\x00", &[ReasonCode::MalformedPacket]),
        ("reserved flags", b"\xC1\x00", &[ReasonCode::MalformedPacket]),
        ("QoS 3", b"\x36\x06\x00\x01a\x00\x01\x00", &[ReasonCode::MalformedPacket]),
        (
            "a topic that is no UTF-8",
            b"\x30\x05\x00\x02\xC3\x28\x00",
            &[ReasonCode::MalformedPacket],
        ),
        ("a topic with U+0000", b"\x30\x05\x00\x02a\x00\x00", &[ReasonCode::MalformedPacket]),
        (
            "a topic with a wildcard",
            b"\x30\x06\x00\x03a/#\x00",
            &[ReasonCode::MalformedPacket, ReasonCode::TopicNameInvalid],
        ),
        ("an empty SUBSCRIBE", b"\x82\x03\x00\x01\x00", &[ReasonCode::ProtocolError]),
        (
            "a filter that is none",
            b"\x82\x09\x00\x01\x00\x00\x03a#b\x00",
            &[ReasonCode::MalformedPacket, ReasonCode::TopicFilterInvalid],
        ),
        (
            "packet id 0",
            b"\x32\x06\x00\x01a\x00\x00\x00",
            &[ReasonCode::MalformedPacket, ReasonCode::ProtocolError],
        ),
        ("a length that never ends", b"\x30\xFF\xFF\xFF\xFF\xFF", &[ReasonCode::MalformedPacket]),
    ];
    for (what, bytes, reasons) in cases {
        let mut mqtt = Mqtt::clean(daemon.mqtt(), "rude");
        mqtt.send_bytes(bytes);
        let reason = disconnected_with(&mut mqtt);
        assert!(reasons.contains(&reason), "{what} was answered with {reason:?}");
        // MQTT 3.1.1 has no DISCONNECT from the server: it closes.
        let (mut old, _) = Mqtt::connect(daemon.mqtt(), &Connect::new(Version::V311, "rude"));
        old.send_bytes(bytes);
        assert!(old.receive_to_end().is_empty(), "{what} was answered in MQTT 3.1.1");
    }
}

// [MQTT-3.1.0-1], [MQTT-3.14.0-1]
#[test]
fn nothing_is_served_before_connect() {
    let daemon = Daemon::start();
    let first: [&[u8]; 4] =
        [b"\xC0\x00", b"\x30\x04\x00\x01ax", b"\x82\x06\x00\x01\x00\x01#\x00", b"\xE0\x00"];
    for bytes in first {
        assert!(shout(&daemon, bytes).is_empty(), "{bytes:02x?} was answered");
    }
}

#[test]
fn a_protocol_that_is_not_spoken_is_refused_so() {
    let daemon = Daemon::start();
    // Level 6, and MQTT 3.1's own name.
    let six = shout(&daemon, b"\x10\x0E\x00\x04MQTT\x06\x02\x00\x00\x00\x00\x01a");
    assert!(six.is_empty() || six[3] == 0x84 || six[3] == 0x01, "{six:02x?}");
    let old = shout(&daemon, b"\x10\x0F\x00\x06MQIsdp\x03\x02\x00\x00\x00\x01a");
    assert!(old.is_empty() || old[3] == 0x84 || old[3] == 0x01, "{old:02x?}");
}

#[test]
fn connections_beyond_the_limit_are_turned_away_and_counted() {
    let daemon = Daemon::start_with(Options::config("[mqtt]\nconnections_max = 8\n"));
    let mut held: Vec<Mqtt> =
        (0..8).map(|n| Mqtt::clean(daemon.mqtt(), &format!("held {n}"))).collect();
    let mut late = Mqtt::open(daemon.mqtt(), Version::V5);
    // It may be closed before this is sent.
    let mut connect = Vec::new();
    Packet::Connect(Connect::new(Version::V5, "late")).encode(Version::V5, &mut connect).unwrap();
    let _ = late.stream().write_all(&connect);
    for received in late.receive_to_end() {
        let Packet::ConnAck(connack) = received.packet() else { panic!("{received:?}") };
        assert!(connack.reason.is_error(), "the ninth of eight connections was accepted");
    }
    for mqtt in &mut held {
        mqtt.ping();
    }
    drop(held.pop());
    until("there is room again", || {
        let mut mqtt = Mqtt::open(daemon.mqtt(), Version::V5);
        let _ = mqtt.stream().write_all(&connect);
        matches!(mqtt.receive_or_end()?.packet(), Packet::ConnAck(connack) if !connack.reason.is_error())
            .then_some(())
    });
    let api = daemon.api();
    let turned_away = api.metric("sextant_push_connections_refused_total", "")
        + api.metric("sextant_push_connects_refused_total", "busy");
    assert!(turned_away >= 1.0, "{turned_away}");
}

/// Memory that no client may make the daemon exceed with default settings and a hundred clients.
const MEMORY_BYTES_MAX: f64 = (256 << 20) as f64;

/// Asserts that others did not notice what a client did, and that it did not fill the memory.
#[track_caller]
fn assert_undisturbed(daemon: &Daemon, bystander: Bystander) {
    let slowest = bystander.slowest();
    println!("the slowest answer to the bystander took {slowest:?}");
    assert!(slowest < Duration::from_secs(2), "a bystander waited {slowest:?}");
    let memory = daemon.api().metric("process_resident_memory_bytes", "");
    println!("the daemon takes {} MiB", memory as u64 >> 20);
    assert!(memory < MEMORY_BYTES_MAX, "{memory} bytes of memory");
}

#[test]
fn a_subscriber_that_does_not_read_costs_itself_and_nobody_else() {
    let daemon = Daemon::start();
    let mut slow = Mqtt::clean(daemon.mqtt(), "slow");
    slow.subscribe("flood", QoS::AtMostOnce);
    let mut reader = Mqtt::clean(daemon.mqtt(), "reader");
    reader.subscribe("end", QoS::AtLeastOnce);
    let bystander = Bystander::start(&daemon);
    let mut sender = Mqtt::clean(daemon.mqtt(), "sender");
    let payload = vec![b'x'; 32 << 10];
    // 128 MiB: more than all buffers between the two can hold.
    for _ in 0..64 {
        for _ in 0..64 {
            sender.publish("flood", &payload, QoS::AtMostOnce);
        }
        sender.ping();
    }
    sender.publish("end", b"x", QoS::AtLeastOnce);
    assert_eq!(reader.message().text(), "x");
    let api = daemon.api();
    let received = api.metric("sextant_push_messages_received_total", "qos=\"0\"");
    assert!(received >= 4096.0, "of 4096 messages {received} arrived");
    let dropped = api.metric("sextant_push_messages_dropped_total", "slow_client")
        + api.metric("sextant_push_connections_closed_total", "reason=\"slow\"");
    assert!(dropped > 0.0, "nothing was dropped, or nothing was counted");
    assert_undisturbed(&daemon, bystander);
}

#[test]
fn a_subscriber_that_does_not_acknowledge_has_a_full_window_and_a_bounded_queue() {
    let config = "[mqtt]\nqueue_messages_max = 100\n";
    let daemon = Daemon::start_with(Options::config(config));
    let mut mute = Mqtt::clean(daemon.mqtt(), "mute");
    mute.subscribe("window", QoS::AtLeastOnce);
    let bystander = Bystander::start(&daemon);
    let mut sender = Mqtt::clean(daemon.mqtt(), "sender");
    for number in 0..300 {
        let payload = format!("{number}");
        assert!(!sender.publish("window", payload.as_bytes(), QoS::AtLeastOnce).is_error());
    }
    let in_flight: Vec<String> = (0..64).map(|_| mute.message_unanswered().text()).collect();
    assert_eq!(in_flight[63], "63");
    // Whatever was to come before the answer to a ping has come.
    mute.send(&Packet::PingReq);
    assert!(matches!(mute.receive().packet(), Packet::PingResp));
    let dropped = daemon.api().metric("sextant_push_messages_dropped_total", "queue_full");
    assert!((136.0..=200.0).contains(&dropped), "{dropped} of 300 were dropped");
    assert_undisturbed(&daemon, bystander);
}

#[test]
fn a_client_that_asks_and_does_not_read_the_answers_is_held_back() {
    let daemon = Daemon::start();
    let bystander = Bystander::start(&daemon);
    let rude = Mqtt::clean(daemon.mqtt(), "rude");
    rude.stream().set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let pings = b"\xC0\x00".repeat(32 << 10);
    // Until the broker reads no more, or closes; 256 MiB of pings are answered with as much.
    let taken = (0..4096).take_while(|_| rude.stream().write_all(&pings).is_ok()).count();
    println!("{taken} times {} bytes were taken", pings.len());
    assert!(taken < 4096, "all was read although no answer was");
    assert_undisturbed(&daemon, bystander);
}

#[test]
fn connections_that_say_nothing_do_not_keep_others_waiting() {
    let daemon = Daemon::start();
    let _silent: Vec<Mqtt> = (0..500).map(|_| Mqtt::open(daemon.mqtt(), Version::V5)).collect();
    let bystander = Bystander::start(&daemon);
    for number in 0..100 {
        Mqtt::clean(daemon.mqtt(), &format!("client {number}")).ping();
    }
    assert_undisturbed(&daemon, bystander);
}

#[test]
fn a_queue_that_is_full_drops_and_counts() {
    let daemon = Daemon::start_with(Options::config("[mqtt]\nqueue_messages_max = 10\n"));
    let session_expiry_s = Some(3600);
    let connect = Connect {
        clean_start: false,
        properties: ConnectProperties { session_expiry_s, ..ConnectProperties::default() },
        ..Connect::new(Version::V5, "away")
    };
    let (mut away, _) = Mqtt::connect(daemon.mqtt(), &connect);
    away.subscribe("q", QoS::AtLeastOnce);
    away.disconnect();
    let mut sender = Mqtt::clean(daemon.mqtt(), "sender");
    for number in 0..15 {
        sender.publish("q", format!("{number}").as_bytes(), QoS::AtLeastOnce);
    }
    let dropped = daemon.api().metric("sextant_push_messages_dropped_total", "queue_full");
    assert_eq!(dropped, 5.0);
    let (mut away, _) = Mqtt::connect(daemon.mqtt(), &connect);
    let got: Vec<String> = (0..10).map(|_| away.message().text()).collect();
    sender.publish("q", b"end", QoS::AtLeastOnce);
    assert_eq!(away.message().text(), "end", "after {got:?}");
}

/// A small file system of its own, gone with this value.
struct SmallDisk {
    dir: PathBuf,
    _parent: tempfile::TempDir,
}

impl SmallDisk {
    /// Mounts one of `mib` MiB; none where this user may not.
    fn mount(mib: u32) -> Option<SmallDisk> {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("disk");
        std::fs::create_dir(&dir).unwrap();
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m,mode=0700"), "tmpfs"])
            .arg(&dir)
            .status();
        if status.is_ok_and(|status| status.success()) {
            return Some(SmallDisk { dir, _parent: parent });
        }
        assert!(std::env::var_os("CI").is_none(), "a file system must be mounted: run as root");
        eprintln!("SKIPPED: no file system can be mounted here; run as root to test a full disk");
        None
    }

    /// Writes a file until nothing more fits.
    fn fill(&self) -> PathBuf {
        let path = self.dir.join("filler");
        let mut file = std::fs::File::create(&path).unwrap();
        for block in [1 << 20, 4096, 1] {
            while file.write_all(&vec![0; block]).is_ok() {}
        }
        path
    }

    fn path(&self) -> &Path {
        &self.dir
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.dir).status();
    }
}

#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    let Some(disk) = SmallDisk::mount(96) else { return };
    let options = Options {
        config: "[log]\nsegment_bytes_max = \"4MiB\"\n".to_owned(),
        data: Some(disk.path().join("push")),
        ..Options::default()
    };
    let mut daemon = Daemon::start_with(options);
    let session_expiry_s = Some(3600);
    let keeper = Connect {
        clean_start: false,
        properties: ConnectProperties { session_expiry_s, ..ConnectProperties::default() },
        ..Connect::new(Version::V5, "keeper")
    };
    let (mut kept, _) = Mqtt::connect(daemon.mqtt(), &keeper);
    kept.subscribe("disk", QoS::AtLeastOnce);
    kept.disconnect();
    let filler = disk.fill();
    let mut sender = Mqtt::clean(daemon.mqtt(), "sender");
    let mut accepted = Vec::new();
    let mut number = 0;
    // What was made ready before the disk was full can still be written.
    let refused = until("a publish is refused", || {
        let mut payload = format!("{number}").into_bytes();
        payload.resize(16 << 10, b' ');
        let reason = sender.publish("disk", &payload, QoS::AtLeastOnce);
        if !reason.is_error() {
            accepted.push(number.to_string());
        }
        number += 1;
        reason.is_error().then_some(reason)
    });
    assert_eq!(refused, ReasonCode::QuotaExceeded);
    assert!(daemon.api().metric("sextant_push_publishes_refused_total", "no_room") >= 1.0);
    // A push over HTTP is refused, too, and says why.
    let answer = daemon
        .api()
        .post("/v1/messages", &json!({"topic": "disk", "payload": "x".repeat(16 << 10)}));
    assert!([503, 507].contains(&answer.status), "{} {}", answer.status, answer.text);
    // Others go on: what needs no disk is delivered.
    let mut live = Mqtt::clean(daemon.mqtt(), "live");
    live.subscribe("live", QoS::AtMostOnce);
    publish(daemon.mqtt(), &["-q", "0", "-t", "live", "-m", "x"]);
    assert_eq!(live.message().text(), "x");
    std::fs::remove_file(&filler).unwrap();
    until("there is room again", || {
        let reason = sender.publish("disk", b"again", QoS::AtLeastOnce);
        (!reason.is_error()).then_some(())
    });
    accepted.push("again".to_owned());
    daemon.kill();
    daemon.start_again();
    let (mut kept, _) = Mqtt::connect(daemon.mqtt(), &keeper);
    for expected in &accepted {
        assert_eq!(kept.message().text().trim_end(), expected);
    }
}
