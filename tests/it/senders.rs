//! The project's own clients against the daemon: who sends, and a device that gets it and says so,
//! in Rust and in TypeScript.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender as Give, channel};
use std::time::Duration;

use serde_json::json;
use sextant_push_client::device::{self, Event, Handler, Outgoing};
use sextant_push_client::types::{
    AuditQuery, By, DeviceEntry, Entry, ListFormat, MessageQuery, MessageRequest, Notification,
    State, Target,
};
use sextant_push_client::{Device, Sender, Uuid};
use sextant_tests::{Daemon, Lines, command, until};

const WAIT_MAX: Duration = Duration::from_secs(20);
const DAY: Duration = Duration::from_secs(86_400);

/// An app, and a key of it that may send.
fn app(daemon: &Daemon) -> String {
    let api = daemon.api();
    let made = api.ask("PUT", "/v1/apps/shop", None).unwrap();
    assert_eq!(made.status, 201, "{}", made.text);
    let key = json!({"name": "crm", "role": "send"}).to_string();
    let key = api.ask("POST", "/v1/apps/shop/keys", Some(key.as_bytes())).unwrap();
    assert_eq!(key.status, 201, "{}", key.text);
    key.json["key"].as_str().unwrap().to_owned()
}

fn sender(daemon: &Daemon, key: &str) -> Sender {
    Sender::new(&format!("http://{}", daemon.admin()), "shop", key).unwrap()
}

fn entry(platform: &str, tag: &str) -> DeviceEntry {
    let tags = vec![tag.to_owned()];
    DeviceEntry { platform: platform.to_owned(), tags, ..DeviceEntry::default() }
}

/// A message of the class that goes out at any hour and in any number.
fn titled(title: &str, target: Target) -> MessageRequest {
    let notification = Notification { title: Some(title.to_owned()), ..Notification::default() };
    MessageRequest {
        notification: Some(notification),
        class: Some("transactional".into()),
        ..MessageRequest::to(target)
    }
}

fn to_phone(title: &str) -> MessageRequest {
    titled(title, Target::Device("phone-1".into()))
}

#[derive(Debug, PartialEq)]
enum Came {
    Message(Uuid, String),
    Recall(Uuid),
    Connected,
}

/// Shows everything, and clicks what says so.
struct Screen(Give<Came>);

impl Handler for Screen {
    fn message(&mut self, message: device::Message, outgoing: &Outgoing) {
        let title = message.notification.and_then(|told| told.title).unwrap_or_default();
        outgoing.shown(message.id).unwrap();
        if title.contains("click") {
            outgoing.clicked(message.id).unwrap();
        }
        self.0.send(Came::Message(message.id, title)).unwrap();
    }

    fn recall(&mut self, id: Uuid, _: &Outgoing) {
        self.0.send(Came::Recall(id)).unwrap();
    }

    fn event(&mut self, event: &Event<'_>) {
        if matches!(event, Event::Connected) {
            // The test may have ended.
            let _ = self.0.send(Came::Connected);
        }
    }
}

fn phone(daemon: &Daemon, sender: &Sender, id: &str) -> (Device, Receiver<Came>) {
    let token = sender.token(id, DAY).unwrap();
    let options = device::Options {
        first_wait_max: Duration::from_millis(100),
        wait_max: Duration::from_millis(500),
        ..device::Options::new(&daemon.mqtt().to_string(), id, &token.token)
    };
    let (give, take) = channel();
    let device = Device::start(options, Screen(give)).unwrap();
    assert_eq!(take.recv_timeout(WAIT_MAX).unwrap(), Came::Connected);
    (device, take)
}

#[test]
fn a_message_is_sent_shown_clicked_counted_and_written_down() {
    let daemon = Daemon::start();
    let sender = sender(&daemon, &app(&daemon));
    let put = sender.put_device("phone-1", &entry("android", "vip")).unwrap();
    assert_eq!((put.device.as_str(), put.online), ("phone-1", false));
    let (device, came) = phone(&daemon, &sender, "phone-1");
    let request = MessageRequest { idempotency_key: Some("order-7".into()), ..to_phone("click") };
    let sent = sender.send(&request).unwrap();
    let again = sender.send(&request).unwrap();
    let id = sent.message.id;
    assert_eq!((again.message.id, sent.replayed, again.replayed), (id, false, true));
    assert_eq!(came.recv_timeout(WAIT_MAX).unwrap(), Came::Message(id, "click".into()));
    let funnel = until("the funnel is full", || {
        let funnel = sender.funnel(id, Some(By::Platform)).unwrap();
        (funnel.clicked == 1).then_some(funnel)
    });
    assert_eq!((funnel.targeted, funnel.delivered, funnel.shown), (1, 1, 1));
    assert_eq!(funnel.groups[0].value.as_deref(), Some("android"));
    assert_eq!(funnel.latency_ms.unwrap().count, 1);
    let last = sender.live(id).last().unwrap().unwrap();
    assert_eq!((last.state, last.funnel.delivered), (State::Finished, 1));
    let query = || AuditQuery { message: Some(id), limit: Some(2), ..AuditQuery::default() };
    let stages = until("all is written down", || {
        let entries = sender.audit(query()).map(Result::unwrap);
        let stages = entries.filter_map(|entry| match entry {
            Entry::Fact(fact) => Some(fact.stage),
            _ => None,
        });
        let stages: Vec<String> = stages.collect();
        stages.contains(&"clicked".to_owned()).then_some(stages)
    });
    for stage in ["sent", "acknowledged", "shown"] {
        assert!(stages.iter().any(|one| one == stage), "{stages:?}");
    }
    let recalled = sender.recall(id).unwrap();
    assert_eq!(came.recv_timeout(WAIT_MAX).unwrap(), Came::Recall(id));
    assert!(recalled.recall_message.is_some());
    assert_eq!(sender.recall(id).unwrap_err().problem().unwrap().status, 409);
    assert_eq!(device.stop(), []);
}

#[test]
fn a_stream_of_messages_outlives_the_daemon_and_each_is_shown_once() {
    const COUNT: usize = 2000;
    let mut daemon = Daemon::start();
    let sender = sender(&daemon, &app(&daemon));
    sender.put_device("phone-1", &entry("android", "vip")).unwrap();
    let (device, came) = phone(&daemon, &sender, "phone-1");
    let mut stream = sender.stream((0..COUNT).map(|n| to_phone(&n.to_string())));
    let mut ids = BTreeMap::new();
    for n in 0..COUNT {
        if n == COUNT / 2 {
            daemon.kill();
            daemon.start_again();
        }
        let outcome = stream.next().unwrap().unwrap();
        ids.insert(outcome.result.unwrap().id, n.to_string());
    }
    assert!(stream.next().is_none());
    assert_eq!(ids.len(), COUNT, "each was accepted once");
    let mut shown = BTreeMap::new();
    while shown.len() < COUNT {
        if let Came::Message(id, title) = came.recv_timeout(WAIT_MAX).unwrap() {
            assert_eq!(shown.insert(id, title), None, "{id} is shown once");
        }
    }
    assert_eq!(shown, ids);
    drop(device);
}

#[test]
fn devices_lists_batches_and_what_is_wrong() {
    let daemon = Daemon::start();
    let sender = sender(&daemon, &app(&daemon));
    let devices = (0..250).map(|n| (format!("d{n}"), entry("ios", if n < 9 { "vip" } else { "" })));
    let devices = devices.map(|(id, mut entry)| {
        entry.tags.retain(|tag| !tag.is_empty());
        (id, entry)
    });
    let import = sender.import_devices(devices).unwrap();
    assert_eq!((import.registered, import.refused), (250, 0));
    assert_eq!(sender.devices(None).map(Result::unwrap).count(), 250);
    assert_eq!(sender.devices(Some("vip")).map(Result::unwrap).count(), 9);
    let list = sender.upload_list(ListFormat::Csv, &b"device,name\nd1,Li\nd2,Bo\nx,\n"[..]);
    let list = list.unwrap();
    assert_eq!((list.devices, list.unknown, list.examples[0].line), (2, 1, 4));
    let requests = [
        titled("Hi {{name}}", Target::List(list.list)),
        titled("no", Target::Expression("and and".into())),
        titled("all", Target::Everyone),
    ];
    let outcomes = sender.send_batch(&requests).unwrap();
    let targets = |n: usize| outcomes[n].result.as_ref().unwrap().targets;
    assert_eq!((targets(0), targets(2)), (2, 250));
    assert_eq!(outcomes[1].result.as_ref().unwrap_err().status, 422);
    let dry_run = sender.dry_run(&titled("all", Target::Everyone)).unwrap();
    assert_eq!((dry_run.targets, dry_run.online), (250, 0));
    let query = MessageQuery { limit: Some(1), ..MessageQuery::default() };
    let listed: Vec<u64> = sender.messages(query).map(|message| message.unwrap().targets).collect();
    assert_eq!(listed, [250, 2], "the newest first, page after page");
    sender.remove_device("d1").unwrap();
    assert_eq!(sender.device("d1").unwrap_err().problem().unwrap().status, 404);
    let stranger = Sender::new(&format!("http://{}", daemon.admin()), "shop", "spk_x").unwrap();
    assert_eq!(stranger.device("d2").unwrap_err().problem().unwrap().status, 401);
}

/// The package of npm, which `cargo xtask test` builds.
fn package() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("../daemons/push/client-ts");
    assert!(
        package.join("dist/device.js").is_file() && package.join("node_modules").is_dir(),
        "the package is not built: run `cargo xtask test`, or `npm ci && npm run build` in {}",
        package.display()
    );
    package
}

#[test]
fn the_clients_in_typescript_send_and_show_over_websocket() {
    let daemon = Daemon::start();
    let key = app(&daemon);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/push.mjs");
    let mut node = command("node");
    node.arg(script).arg(package().join("dist"));
    node.args([&format!("http://{}", daemon.admin()), &key]);
    node.arg(format!("ws://{}/mqtt", daemon.mqtt()));
    let (well, said) = Lines::start(node).end();
    assert!(well && said.contains("done"), "{said}");
}
