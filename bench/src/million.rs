//! A million devices on one `sextant-push`: each connected, subscribed to one topic, and heard
//! once a minute; then one message for all of them.
//!
//! ```text
//!   connect all ─► keep-alives for ten minutes ─► one PUBLISH ─► the last device has it
//!   memory            answered, missing, late        p50, p99, last
//! ```
//!
//! No peer is asked: where every connection is a descriptor of its process, none can hold so many
//! under the limit of a usual machine (`push-idle` compares memory at a size that it can).

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sextant_load::fleet::SessionError;
use sextant_load::{
    Connections, Fleet, Load, Outcome, Pace, ProcessCpu, Recorder, Session, Summary,
};
use sextant_mqtt::{ClientHandshake, Connect, Frame, Inbound, QoS, Version};
use sextant_ring::time::{Clock, Time};

use crate::compare::{Bench, Case, Plan, Run};
use crate::idle::{PER_ADDRESS, Progress, proc_bytes, resident_bytes, settled_bytes};
use crate::mqtt::{
    Arrived, PACKET_BYTES_MAX, PAYLOAD_BYTES, TOPIC, each_frame, publish, subscribe,
};
use crate::push::{Layout, start_push};
use crate::report::{Figure, Wanted, number};
use crate::server::Server;

/// A device is heard so often.
const PING_EVERY: Duration = Duration::from_secs(60);
/// What it says its keep-alive is. The first devices wait for all others before they are heard.
const KEEP_ALIVE_S: u16 = 600;
/// How long keep-alives are answered.
const HOLD: Duration = Duration::from_secs(600);
/// How long a message may take to the last device.
const BROADCAST_MAX: Duration = Duration::from_secs(120);

const CONNACK: u8 = 0x20;
const SUBACK: u8 = 0x90;
const PINGREQ: [u8; 2] = [0xc0, 0];
const PINGRESP: u8 = 0xd0;

/// What `push-million` is given besides.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct MillionArgs {
    /// Hold so many connections [default: 1000000; 2000 if quick]
    #[arg(long, value_name = "N")]
    connections: Option<u32>,
    /// Answer keep-alives for so many seconds [default: 600; 1 if quick]
    #[arg(long, value_name = "S")]
    hold: Option<u64>,
    /// Cores of push
    #[arg(long, value_name = "N", default_value_t = 2)]
    cores: u16,
}

/// When the one message reached each device.
type Arrivals = Arc<Mutex<Recorder>>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Connecting,
    Subscribing,
    Ready,
}

/// A device. It keeps little: there are a million of them in this process too.
struct Device {
    number: u32,
    state: State,
    /// When the PINGREQ that is not answered yet should have been sent.
    pinged: Option<Time>,
    inbound: Inbound,
    arrivals: Arrivals,
}

impl Device {
    fn new(number: u64, arrivals: &Arrivals) -> Device {
        Device {
            number: number as u32,
            state: State::Connecting,
            pinged: None,
            inbound: Inbound::new(PACKET_BYTES_MAX),
            arrivals: Arc::clone(arrivals),
        }
    }

    fn take(
        &mut self,
        now: Time,
        frame: &Frame<'_>,
        out: &mut Vec<u8>,
        recorder: &mut Recorder,
    ) -> Result<(), SessionError> {
        match (self.state, frame.first_byte) {
            (State::Connecting, CONNACK) if frame.body == [0, 0] => {
                self.state = State::Subscribing;
                subscribe(TOPIC, QoS::AtMostOnce, out)?;
            }
            (State::Subscribing, SUBACK) if frame.body == [0, 1, 0] => self.state = State::Ready,
            (State::Ready, PINGRESP) => {
                let intended = self.pinged.take().ok_or("a PINGRESP that nobody asked for")?;
                recorder.record(intended, now);
            }
            (State::Ready, _) => {
                let found = Arrived::of(frame, TOPIC).ok_or("another message than was sent")?;
                let mut arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
                arrivals.record(found.sent, now);
            }
            _ => return Err(format!("a packet of type {:#04x}", frame.first_byte).into()),
        }
        Ok(())
    }
}

impl Session for Device {
    fn handle_connected(&mut self, now: Time, out: &mut Vec<u8>) -> Result<(), SessionError> {
        let name = format!("device-{}", self.number);
        let connect = Connect { keep_alive_s: KEEP_ALIVE_S, ..Connect::new(Version::V311, &name) };
        ClientHandshake::start(now.as_millis(), &connect, out)?;
        Ok(())
    }

    fn handle_input(
        &mut self,
        now: Time,
        input: &[u8],
        out: &mut Vec<u8>,
        recorder: &mut Recorder,
    ) -> Result<(), SessionError> {
        let mut inbound = std::mem::replace(&mut self.inbound, Inbound::new(PACKET_BYTES_MAX));
        each_frame(&mut inbound, input, |frame| self.take(now, frame, out, recorder))?;
        self.inbound = inbound;
        Ok(())
    }

    fn begin(&mut self, intended: Time, out: &mut Vec<u8>) -> Result<(), SessionError> {
        if self.pinged.replace(intended).is_some() {
            return Err("no PINGRESP within a minute".into());
        }
        out.extend_from_slice(&PINGREQ);
        Ok(())
    }

    fn is_ready(&self) -> bool {
        self.state == State::Ready
    }
}

/// What was found, case by case.
struct Found {
    held: Vec<Figure>,
    answered: Vec<Figure>,
    reached: Vec<Figure>,
}

/// Runs it.
pub(crate) fn run(run: &Run, args: MillionArgs) -> Result<()> {
    let count = args.connections.unwrap_or(if run.quick { 2000 } else { 1_000_000 }).max(1);
    let hold = args.hold.map_or(if run.quick { Duration::from_secs(1) } else { HOLD }, |seconds| {
        Duration::from_secs(seconds)
    });
    let name = number(f64::from(count));
    let mut bench = Bench::new(run, "push-million", &format!("{name} devices on one daemon"))?;
    bench.note(format!(
        "MQTT 3.1.1 over TCP, both ends on this host; one process of push with {} cores, the load \
         on a thread of another. Each device has one subscription at QoS 0 and a keep-alive.",
        args.cores
    ));
    bench.note(
        "The daemon's own memory is all of its resident memory, rings and receive buffers \
         included, divided by the number of connections. The kernel's is what the system's \
         available memory shrank by, less the growth of both processes, for each of the two \
         sockets of a connection.",
    );
    bench.note(format!(
        "Each device sends a PINGREQ once in {} s, at a fixed time, for {} s. Its latency is that \
         of the PINGRESP; a connection that is lost, or a PINGREQ that is not answered before the \
         next, ends the run without results.",
        PING_EVERY.as_secs(),
        hold.as_secs()
    ));
    bench.note(format!(
        "Then one PUBLISH at QoS 0, {PAYLOAD_BYTES} bytes, to all: latency is from before it is \
         written to when a device has it."
    ));
    // The first case does it all; each takes its own figures.
    let found: Rc<RefCell<Option<Found>>> = Rc::default();
    let held = Case::new(
        format!("{name} connections"),
        "B of the daemon's own memory for each connection",
    );
    let once = Rc::clone(&found);
    let held = held.side("push", move |_| {
        let all = hold_all(args.cores, count, hold)?;
        let figures = all.held.clone();
        *once.borrow_mut() = Some(all);
        Ok(figures)
    });
    bench.add(held.limit("push", Wanted::AtMost(400.0)));
    let taken = |which: fn(&Found) -> &Vec<Figure>| {
        let found = Rc::clone(&found);
        move |_: &Plan| {
            let found = found.borrow();
            let found = found.as_ref().context("this is measured with the connections")?;
            Ok(which(found).clone())
        }
    };
    let answered = Case::new("keep-alives", "µs of CPU per PINGREQ");
    bench.add(answered.side("push", taken(|found| &found.answered)));
    let reached = Case::new("one message for all", "s until the last device has it");
    bench.add(reached.side("push", taken(|found| &found.reached)));
    bench.run()
}

fn hold_all(cores: u16, count: u32, hold: Duration) -> Result<Found> {
    let layout = Layout {
        cores,
        connections_max: count + 1000,
        pinned: false,
        addrs: u8::try_from(count / PER_ADDRESS + 1).context("too many connections")?,
    };
    let server = start_push(layout)?;
    let before = settled_bytes(server.pid())?;
    let (own_before, available_before) = (resident_bytes(std::process::id())?, available_bytes()?);
    let arrivals = Arrivals::default();
    arrivals.lock().unwrap_or_else(PoisonError::into_inner).open(Time::ZERO);
    let (began, fleet) = (Instant::now(), start_fleet(&server, count, hold, &arrivals)?);
    let progress = Progress::new(count);
    while fleet.ready() < count && !fleet.is_over() {
        progress.show(fleet.ready());
        sleep(Duration::from_millis(100));
    }
    drop(progress);
    let connecting = began.elapsed();
    let own = settled_bytes(server.pid())?;
    let kernel = available_before
        .saturating_sub(available_bytes()?)
        .saturating_sub(own.saturating_sub(before))
        .saturating_sub(resident_bytes(std::process::id())?.saturating_sub(own_before));
    wait_until_measured(&fleet, hold);
    let cpu_before = ProcessCpu::of(server.pid())?.used()?;
    let sent = broadcast(&fleet, server.addrs()[0], count, &arrivals);
    let cpu = ProcessCpu::of(server.pid())?.used()? - cpu_before;
    // The daemon looks twice a minute whether there is memory to give back.
    sleep(Duration::from_secs(40));
    let after = settled_bytes(server.pid())?;
    // What went wrong with a connection is told here; it matters more than what came of it.
    let outcome = fleet.finish()?.context("a load with a pace has an outcome")?;
    let reached = sent?;
    let each = |bytes: u64| bytes as f64 / f64::from(count);
    let held = vec![
        Figure::new("", each(own)),
        Figure::new("B 40 s after the message to all", each(after)),
        Figure::new("MiB at the start", before as f64 / f64::from(1 << 20)),
        Figure::new("B of the kernel's for each socket", each(kernel) / 2.0),
        Figure::new("connections a second", f64::from(count) / connecting.as_secs_f64()),
    ];
    let reached = vec![
        Figure::new("", reached.max_ns as f64 / 1e9),
        Figure::new("s at p50", reached.p50_ns as f64 / 1e9),
        Figure::new("s at p99", reached.p99_ns as f64 / 1e9),
        Figure::new("devices", reached.count as f64),
        Figure::new("µs of CPU per device", cpu.as_secs_f64() * 1e6 / f64::from(count)),
    ];
    Ok(Found { held, answered: answered(&outcome), reached })
}

fn start_fleet(server: &Server, count: u32, hold: Duration, arrivals: &Arrivals) -> Result<Fleet> {
    let load = Load {
        connections: Connections::Held { count, operating: count, connecting_max: 64 },
        pace: Pace::PerSecond(f64::from(count) / PING_EVERY.as_secs_f64()),
        warm_up: Duration::from_millis(500),
        measure: hold,
        drain_max: Duration::from_secs(20),
        patience: Duration::from_secs(30),
        server: Some(server.pid()),
        hold: true,
        ..Load::new(server.addrs())
    };
    let arrivals = Arc::clone(arrivals);
    Ok(Fleet::start(load, move |number| Device::new(number, &arrivals))?)
}

fn wait_until_measured(fleet: &Fleet, hold: Duration) {
    let (began, every) = (Instant::now(), Duration::from_secs(60));
    let mut told = every;
    while !fleet.is_measured() && !fleet.is_over() {
        if began.elapsed() >= told {
            let (passed, all) = (told.as_secs() / 60, hold.as_secs().div_ceil(60));
            println!("    keep-alives: {passed} of {all} minutes");
            told += every;
        }
        sleep(Duration::from_millis(100));
    }
}

/// Publishes the message for all, and waits until all have it.
fn broadcast(fleet: &Fleet, to: SocketAddr, count: u32, arrivals: &Arrivals) -> Result<Summary> {
    let mut socket = TcpStream::connect(to).context("no connection for the publisher")?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut out = Vec::new();
    let connect = Connect::new(Version::V311, "publisher");
    ClientHandshake::start(0, &connect, &mut out).context("no CONNECT for the publisher")?;
    socket.write_all(&out)?;
    let mut connack = [0; 4];
    socket.read_exact(&mut connack).context("no CONNACK for the publisher")?;
    ensure!(connack == [CONNACK, 2, 0, 0], "the publisher is refused");
    let mut packet = Vec::new();
    publish(TOPIC, None, PAYLOAD_BYTES, Clock::read().now, &mut packet);
    socket.write_all(&packet)?;
    let began = Instant::now();
    let summary = || arrivals.lock().unwrap_or_else(PoisonError::into_inner).summary();
    while summary().count < u64::from(count) {
        if fleet.is_over() || began.elapsed() > BROADCAST_MAX {
            bail!("{} of {count} devices have the message", summary().count);
        }
        sleep(Duration::from_millis(20));
    }
    Ok(summary())
}

fn answered(outcome: &Outcome) -> Vec<Figure> {
    let ms = |ns: u64| ns as f64 / 1e6;
    vec![
        Figure::new("", outcome.server_ns_each().unwrap_or(f64::NAN) / 1000.0),
        Figure::new("a second", outcome.per_second()),
        Figure::new("answered", outcome.latency.count as f64),
        Figure::new("missing", outcome.missing as f64),
        Figure::new("ms at p50", ms(outcome.latency.p50_ns)),
        Figure::new("ms at p99", ms(outcome.latency.p99_ns)),
        Figure::new("ms at most", ms(outcome.latency.max_ns)),
    ]
}

fn available_bytes() -> Result<u64> {
    proc_bytes("/proc/meminfo", "MemAvailable:")
}
