//! The sender platform: a message for all devices that are connected, beside the same fan-out to the
//! subscribers of a topic, of which nothing is told to the audit; and a list of devices that are
//! away.
//!
//! ```text
//!   devices, each subscribed to  d/ID/push  and to  news
//!   a round:   POST /v1/messages to the topic ─► all have acknowledged it
//!              POST /v1/apps/…/messages to all ─► the funnel says that all have
//! ```

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use sextant_load::fleet::SessionError;
use sextant_load::{Connections, Fleet, Load, Pace, ProcessCpu, Recorder, Session};
use sextant_mqtt::{ClientHandshake, Connect, Frame, Inbound, QoS, Version};
use sextant_push_client::Sender;
use sextant_push_client::types::{DeviceEntry, ListFormat};
use sextant_ring::time::Time;
use sextant_service::client::Client as Admin;

use crate::compare::{Bench, Case, Run};
use crate::devices::{CONNECTING, addrs};
use crate::idle::{Progress, settled_bytes};
use crate::mqtt::{KEEP_ALIVE_S, PACKET_BYTES_MAX, each_frame, subscribe};
use crate::push::{Layout, Pushing, start_push_whole};
use crate::report::{Figure, Wanted, number};

const APP: &str = "bench";
const TOPIC: &str = "news";
/// Connections of one core of push: a descriptor table is bounded.
const PER_CORE: u32 = 12_000;
/// How long a message may take to the last device.
const FAN_OUT_MAX: Duration = Duration::from_secs(120);

const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const PUBACK: u8 = 0x40;
const SUBACK: u8 = 0x90;

/// What `push-campaign` is given besides.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct CampaignArgs {
    /// Devices that are connected [default: 100000; 1000 if quick]
    #[arg(long, value_name = "N")]
    devices: Option<u32>,
    /// Devices of the list, which are away [default: 1000000; 10000 if quick]
    #[arg(long, value_name = "N")]
    listed: Option<u32>,
}

/// A device that acknowledges all that comes.
struct Device {
    number: u64,
    /// SUBACKs that are to come; none before its CONNACK.
    subscribing: Option<u8>,
    inbound: Inbound,
    acknowledged: Arc<AtomicU64>,
}

fn id(number: u64) -> String {
    format!("device-{number:07}")
}

impl Session for Device {
    fn handle_connected(&mut self, now: Time, out: &mut Vec<u8>) -> Result<(), SessionError> {
        let name = id(self.number);
        let connect = Connect { keep_alive_s: KEEP_ALIVE_S, ..Connect::new(Version::V311, &name) };
        ClientHandshake::start(now.as_millis(), &connect, out)?;
        Ok(())
    }

    fn handle_input(
        &mut self,
        _now: Time,
        input: &[u8],
        out: &mut Vec<u8>,
        _recorder: &mut Recorder,
    ) -> Result<(), SessionError> {
        let mut inbound = std::mem::replace(&mut self.inbound, Inbound::new(PACKET_BYTES_MAX));
        each_frame(&mut inbound, input, |frame| self.take(frame, out))?;
        self.inbound = inbound;
        Ok(())
    }

    fn begin(&mut self, _intended: Time, _out: &mut Vec<u8>) -> Result<(), SessionError> {
        Err("a device sends nothing by itself".into())
    }

    fn is_ready(&self) -> bool {
        self.subscribing == Some(0)
    }
}

impl Device {
    fn take(&mut self, frame: &Frame<'_>, out: &mut Vec<u8>) -> Result<(), SessionError> {
        match (self.subscribing, frame.first_byte & 0xf0) {
            (None, CONNACK) if frame.body == [0, 0] => {
                subscribe(&format!("d/{}/push", id(self.number)), QoS::AtLeastOnce, out)?;
                subscribe(TOPIC, QoS::AtLeastOnce, out)?;
                self.subscribing = Some(2);
            }
            (Some(left @ 1..), SUBACK) => self.subscribing = Some(left - 1),
            (Some(_), PUBLISH) => {
                let len = frame.body.first_chunk().map(|len| usize::from(u16::from_be_bytes(*len)));
                let id = len.and_then(|len| frame.body.get(2 + len..)?.first_chunk::<2>());
                let id = id.ok_or("a PUBLISH without an identifier")?;
                out.extend_from_slice(&[PUBACK, 2, id[0], id[1]]);
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            (_, kind) => return Err(format!("a packet of type {kind:#04x}").into()),
        }
        Ok(())
    }
}

/// The daemon with its devices, for all rounds.
struct Scene {
    pushing: Pushing,
    count: u32,
    acknowledged: Arc<AtomicU64>,
    fleet: Fleet,
    /// What has to be said to all: as long as what the platform makes of a message.
    payload: String,
}

/// Runs it.
pub(crate) fn run(run: &Run, args: CampaignArgs) -> Result<()> {
    let count = args.devices.unwrap_or(if run.quick { 1000 } else { 100_000 }).max(1);
    let listed = args.listed.unwrap_or(if run.quick { 10_000 } else { 1_000_000 }).max(1);
    let name = number(f64::from(count));
    let mut bench = Bench::new(run, "push-campaign", "The sender platform, audit and all")?;
    bench.note(format!(
        "{name} devices, MQTT 3.1.1, QoS 1, on one daemon with {} cores; both ends on this host, \
         the load on a thread of its own. Each is subscribed to its own topic and to one for all.",
        cores(count)
    ));
    bench.note(
        "campaign: one message to everyone of an app, with its fact for each device accepted, sent \
         and acknowledged in the audit, until the funnel counts all; class `transactional`. \
         topic: the same bytes to the topic, until all have acknowledged; nothing is told to the \
         audit. CPU is the daemon's, all threads.",
    );
    let scene: Rc<RefCell<Option<Scene>>> = Rc::default();
    let sides = |campaign: bool| {
        let scene = Rc::clone(&scene);
        move |_: &crate::compare::Plan| {
            let mut scene = scene.borrow_mut();
            if scene.is_none() {
                *scene = Some(Scene::begin(count)?);
            }
            let scene = scene.as_mut().context("it was just begun")?;
            if campaign { scene.campaign() } else { scene.topic() }
        }
    };
    let fan_out = Case::new(format!("{name} devices that are there"), "µs of CPU per delivery");
    let fan_out = fan_out.side("campaign", sides(true)).side("topic", sides(false));
    bench.add(fan_out.gains("campaign", "topic", Some(Wanted::AtLeast(0.7))));
    let away = number(f64::from(listed));
    let list = Case::new(
        format!("a list of {away} devices that are away"),
        "s until it is accepted and durable",
    );
    let list = list.side("push", move |_| offline(listed)).rounds_max(1);
    bench.add(list.limit("push", Wanted::AtMost(20.0)));
    bench.run()
}

fn cores(count: u32) -> u16 {
    u16::try_from(count.div_ceil(PER_CORE)).unwrap_or(u16::MAX)
}

fn failed(error: sextant_push_client::Error) -> anyhow::Error {
    anyhow::Error::new(error)
}

fn sender(pushing: &Pushing) -> Result<Sender> {
    let made: Value = pushing.admin.put(&format!("/v1/apps/{APP}"), &json!({}))?;
    ensure!(made["app"] == APP, "the app was not made: {made}");
    Sender::new(&format!("http://{}", pushing.admin_addr), APP, pushing.token.expose())
        .map_err(failed)
}

/// Registers devices; tells how long that took.
fn register(sender: &Sender, count: u32) -> Result<Duration> {
    let began = Instant::now();
    let entry = DeviceEntry { platform: "linux".to_owned(), ..DeviceEntry::default() };
    let all = (0..u64::from(count)).map(|number| (id(number), entry.clone()));
    let imported = sender.import_devices(all).map_err(failed)?;
    ensure!(imported.registered == u64::from(count), "not all were registered: {imported:?}");
    Ok(began.elapsed())
}

fn submit(admin: &Admin, target: &Value) -> Result<String> {
    let request = json!({
        "target": target, "class": "transactional",
        "notification": {"title": "A message for everyone", "body": "of a hundred bytes or so"},
    });
    let message: Value = admin.post(&format!("/v1/apps/{APP}/messages"), &request)?;
    message["id"].as_str().map(str::to_owned).with_context(|| format!("no id in {message}"))
}

impl Scene {
    fn begin(count: u32) -> Result<Scene> {
        let layout = Layout {
            cores: cores(count),
            connections_max: count + 1000,
            pinned: false,
            addrs: addrs(count)?,
        };
        let pushing = start_push_whole(layout)?;
        register(&sender(&pushing)?, count)?;
        let acknowledged = Arc::new(AtomicU64::new(0));
        let load = Load {
            connections: Connections::Held { count, operating: 0, connecting_max: CONNECTING },
            pace: Pace::Idle,
            patience: Duration::from_secs(60),
            server: Some(pushing.server.pid()),
            ..Load::new(pushing.server.addrs())
        };
        let shared = Arc::clone(&acknowledged);
        let fleet = Fleet::start(load, move |number| Device {
            number,
            subscribing: None,
            inbound: Inbound::new(PACKET_BYTES_MAX),
            acknowledged: Arc::clone(&shared),
        })?;
        let progress = Progress::new(count);
        while fleet.connects().is_none() && !fleet.is_over() {
            progress.show(fleet.ready());
            sleep(Duration::from_millis(50));
        }
        drop(progress);
        if fleet.is_over() {
            fleet.wait()?;
            bail!("the devices did not all connect");
        }
        wait("every device is known to be there", || {
            let status: Value = pushing.admin.get("/v1/platform")?;
            Ok(status["online"] == count)
        })?;
        let payload = json!({
            "id": "01a2082f-0a58-7000-8027-2a68aae79e6e", "type": "message",
            "notification": {"title": "A message for everyone", "body": "of a hundred bytes or so"},
        });
        let payload = payload.to_string();
        Ok(Scene { pushing, count, acknowledged, fleet, payload })
    }

    fn topic(&mut self) -> Result<Vec<Figure>> {
        let body = json!({"topic": TOPIC, "payload": self.payload, "qos": 1});
        self.measure(|scene| {
            let _: Value = scene.pushing.admin.post("/v1/messages", &body)?;
            Ok(None)
        })
    }

    fn campaign(&mut self) -> Result<Vec<Figure>> {
        let before = self.audit_bytes()?;
        let mut figures = self
            .measure(|scene| submit(&scene.pushing.admin, &json!({"everyone": true})).map(Some))?;
        let bytes = self.audit_bytes()?.saturating_sub(before) as f64 / f64::from(self.count);
        figures.push(Figure::new("B of audit per delivery", bytes));
        Ok(figures)
    }

    /// What one message to all costs.
    fn measure(
        &mut self,
        send: impl FnOnce(&Scene) -> Result<Option<String>>,
    ) -> Result<Vec<Figure>> {
        let cpu = ProcessCpu::of(self.pushing.server.pid())?;
        let target = self.acknowledged.load(Ordering::Relaxed) + u64::from(self.count);
        let (began, used) = (Instant::now(), cpu.used()?);
        let id = send(self)?;
        wait("all have the message", || {
            ensure!(!self.fleet.is_over(), "the devices have gone");
            Ok(self.acknowledged.load(Ordering::Relaxed) >= target)
        })?;
        let took = began.elapsed();
        if let Some(id) = id {
            let path = format!("/v1/apps/{APP}/messages/{id}/funnel");
            wait("the funnel counts all", || {
                let funnel: Value = self.pushing.admin.get(&path)?;
                Ok(funnel["delivered"] == self.count)
            })?;
        }
        // What was begun is written within a second.
        sleep(Duration::from_millis(1500));
        let used = cpu.used()? - used;
        let count = f64::from(self.count);
        Ok(vec![
            Figure::new("", used.as_secs_f64() * 1e6 / count),
            Figure::new("deliveries a second", count / took.as_secs_f64()),
        ])
    }

    fn audit_bytes(&self) -> Result<u64> {
        let status: Value = self.pushing.admin.get("/v1/platform")?;
        status["audit"]["bytes"].as_u64().with_context(|| format!("no bytes in {status}"))
    }
}

/// Waits until something is so.
fn wait(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !is_so()? {
        if began.elapsed() > FAN_OUT_MAX {
            bail!("waited in vain until {what}");
        }
        sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// A message to a list of devices none of which is there.
fn offline(count: u32) -> Result<Vec<Figure>> {
    let layout = Layout { cores: 2, connections_max: 1000, pinned: false, addrs: 1 };
    let pushing = start_push_whole(layout)?;
    let sender = sender(&pushing)?;
    let registered = register(&sender, count)?;
    let before = settled_bytes(pushing.server.pid())?;
    let mut lines = String::with_capacity(count as usize * 16);
    for number in 0..u64::from(count) {
        lines.push_str(&id(number));
        lines.push('\n');
    }
    let lines = format!("device\n{lines}");
    let began = Instant::now();
    let list = sender.upload_list(ListFormat::Csv, lines.as_bytes()).map_err(failed)?;
    let uploaded = began.elapsed();
    let message = submit(&pushing.admin, &json!({"list": list.list}))?;
    let took = began.elapsed();
    let path = format!("/v1/apps/{APP}/messages/{message}/funnel");
    wait("all are queued", || {
        let funnel: Value = pushing.admin.get(&path)?;
        Ok(funnel["queued"] == count)
    })?;
    let queued = began.elapsed();
    let grown = settled_bytes(pushing.server.pid())?.saturating_sub(before);
    Ok(vec![
        Figure::new("", took.as_secs_f64()),
        Figure::new("s of it to upload the list", uploaded.as_secs_f64()),
        Figure::new("s until the audit has all queued", queued.as_secs_f64()),
        Figure::new("MiB of memory more", grown as f64 / f64::from(1 << 20)),
        Figure::new("s to register them before", registered.as_secs_f64()),
    ])
}
