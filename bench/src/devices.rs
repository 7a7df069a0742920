//! Push and its peers with many devices: fan-outs of several sizes, pairs of clients that talk to
//! each other, clients that come and go, and all of them at once.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sextant_load::{Connections, Fleet, Load, Outcome, Pace};
use sextant_mqtt::QoS;

use crate::compare::{Bench, Case, Plan, Run, load_figures};
use crate::floor;
use crate::idle::{PER_ADDRESS, Progress};
use crate::mqtt::{Client, Part, TOPIC};
use crate::push::{Layout, mosquitto, nats, start_mosquitto, start_nats, start_push};
use crate::report::{Figure, Wanted, number};
use crate::server::Server;

/// What a peer can hold whose every connection is a descriptor of its process.
const PEER_CONNECTIONS_MAX: u32 = 15_000;
/// Connections that are being made at once, before what is measured.
const CONNECTING: u32 = 256;

/// A server on the servers' CPU, with one core.
fn push(connections: u32) -> Result<Server> {
    start_push(Layout {
        cores: 1,
        connections_max: connections + 1000,
        pinned: true,
        addrs: u8::try_from(connections / PER_ADDRESS + 1).context("too many connections")?,
    })
}

type Start = fn(u32) -> Result<Server>;

/// Push, and the peers that can hold so many connections.
fn sides(connections: u32) -> Vec<(&'static str, Start)> {
    let mut sides: Vec<(&'static str, Start)> = vec![("push", push)];
    if connections < PEER_CONNECTIONS_MAX {
        sides.push(("mosquitto", |_| start_mosquitto()));
        sides.push(("NATS", |_| start_nats()));
    }
    sides
}

fn bench<'m>(run: &'m Run, name: &str, title: &str) -> Result<Bench<'m>> {
    let mut bench = Bench::new(run, name, title)?;
    bench.version("mosquitto", mosquitto().arg("-h"))?;
    bench.version("NATS", nats().arg("-v"))?;
    bench.note(
        "MQTT 3.1.1. Each server is one process on one CPU, push with one core; the load has the \
         other CPU.",
    );
    Ok(bench)
}

/// Runs `push-matrix`.
pub(crate) fn run_matrix(run: &Run) -> Result<()> {
    let mut bench = bench(run, "push-matrix", "CPU of a fan-out, by receivers, size and QoS")?;
    bench.note(format!(
        "One publisher; saturated: 16 messages are published together while 16 others are under \
         way. With {} connections and more only push is asked: a peer has a descriptor for each.",
        number(f64::from(PEER_CONNECTIONS_MAX))
    ));
    for receivers in [1, 100, 10_000, 100_000] {
        for bytes in [100, 1024] {
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
                let name = format!(
                    "{} receivers, {bytes} B, QoS {}",
                    number(f64::from(receivers)),
                    qos as u8
                );
                let mut case = Case::new(name, "µs of CPU per delivery");
                for (side, start) in sides(receivers) {
                    case = case.side(side, move |plan| {
                        let server = start(receivers)?;
                        Ok(load_figures(&fan_out(&server, receivers, bytes, qos, plan)?))
                    });
                }
                for peer in ["mosquitto", "NATS"] {
                    case = case.gains("push", peer, Some(Wanted::AtLeast(5.0)));
                }
                bench.add(case);
            }
        }
    }
    bench.run()
}

fn fan_out(
    server: &Server,
    receivers: u32,
    bytes: usize,
    qos: QoS,
    plan: &Plan,
) -> Result<Outcome> {
    let load = Load {
        connections: Connections::Held {
            count: receivers + 1,
            operating: 1,
            connecting_max: CONNECTING,
        },
        pace: Pace::Saturated { window: 32, lot: 16 },
        completions: receivers,
        ..floor::load(server, plan)
    };
    let fleet = Fleet::start(load, move |number| {
        let part = match number {
            0 => Part::Publisher(TOPIC.into(), qos, bytes),
            _ => Part::Subscriber(TOPIC.into(), qos),
        };
        Client::new(part, number)
    })?;
    fleet.wait()?.context("a load with a pace has an outcome")
}

/// Pairs of `push-pairs`.
const PAIRS: u32 = 5000;

/// Runs `push-pairs`.
pub(crate) fn run_pairs(run: &Run) -> Result<()> {
    let pairs = if run.quick { 50 } else { PAIRS };
    let mut bench = bench(run, "push-pairs", "CPU of messages from one client to one other")?;
    bench.note(format!(
        "{} pairs, each with a topic of its own; payloads of 100 bytes. Saturated: 256 messages \
         are under way.",
        number(f64::from(pairs))
    ));
    let paces = [
        ("5,000 a second", Pace::PerSecond(5000.0)),
        ("saturated", Pace::Saturated { window: 256, lot: 1 }),
    ];
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        for (pace_name, pace) in paces {
            let name = format!("QoS {}, {pace_name}", qos as u8);
            let mut case = Case::new(name, "µs of CPU per message");
            for (side, start) in sides(2 * pairs) {
                case = case.side(side, move |plan| {
                    let server = start(2 * pairs)?;
                    Ok(load_figures(&talk(&server, pairs, qos, pace, plan)?))
                });
            }
            for peer in ["mosquitto", "NATS"] {
                case = case.gains("push", peer, Some(Wanted::AtLeast(2.0)));
            }
            bench.add(case);
        }
    }
    bench.run()
}

fn talk(server: &Server, pairs: u32, qos: QoS, pace: Pace, plan: &Plan) -> Result<Outcome> {
    let load = Load {
        connections: Connections::Held {
            count: 2 * pairs,
            operating: pairs,
            connecting_max: CONNECTING,
        },
        pace,
        ..floor::load(server, plan)
    };
    let fleet = Fleet::start(load, move |number| {
        let topic = format!("pair/{}", number % u64::from(pairs));
        let part = match number < u64::from(pairs) {
            true => Part::Publisher(topic, qos, 100),
            false => Part::Subscriber(topic, qos),
        };
        Client::new(part, number)
    })?;
    fleet.wait()?.context("a load with a pace has an outcome")
}

/// Clients of the storm.
const STORM: u32 = 200_000;

/// Runs `push-connect`.
pub(crate) fn run_connect(run: &Run) -> Result<()> {
    let storm = if run.quick { 2000 } else { STORM };
    let mut bench = bench(run, "push-connect", "CPU of clients that come and go")?;
    bench.note(
        "A visit is TCP, CONNECT, CONNACK and DISCONNECT, after which the server closes; bare \
         epoll accepts, reads one byte and closes. Latency is until the CONNACK.",
    );
    bench.note(
        "Storm: all clients call at the same moment and stay. A client's wait is from its call to \
         its CONNACK. No peer is asked: mosquitto reset connections in a storm of 14,000.",
    );
    let paces = [
        ("4,000 a second", Pace::PerSecond(4000.0)),
        ("saturated", Pace::Saturated { window: 64, lot: 1 }),
    ];
    for (name, pace) in paces {
        let case = Case::new(name, "µs of CPU per visit")
            .side("push", move |plan| Ok(load_figures(&visits(&push(10_000)?, pace, plan)?)))
            .side("mosquitto", move |plan| {
                Ok(load_figures(&visits(&start_mosquitto()?, pace, plan)?))
            })
            .side("bare epoll", move |plan| {
                let server = floor::start(floor::Kind::BareEpoll)?;
                Ok(load_figures(&floor::accept(&server, pace, plan)?))
            })
            .costs("push", "bare epoll", Some(Wanted::AtMost(1.4)))
            .gains("push", "mosquitto", None);
        bench.add(case);
    }
    let name = format!("storm of {}", number(f64::from(storm)));
    let case = Case::new(name, "s until the last client has its session")
        .side("push", move |_| all_at_once(&push(storm)?, storm))
        .limit("push", Wanted::AtMost(60.0));
    bench.add(case);
    bench.run()
}

fn visits(server: &Server, pace: Pace, plan: &Plan) -> Result<Outcome> {
    let connections = Connections::PerOperation { at_once_max: 4096 };
    let load = Load { connections, pace, ..floor::load(server, plan) };
    let fleet = Fleet::start(load, |number| Client::new(Part::Visitor, number))?;
    fleet.wait()?.context("a load with a pace has an outcome")
}

fn all_at_once(server: &Server, count: u32) -> Result<Vec<Figure>> {
    let load = Load {
        connections: Connections::Held { count, operating: 0, connecting_max: count },
        pace: Pace::Idle,
        patience: Duration::from_secs(60),
        server: Some(server.pid()),
        ..Load::new(server.addrs())
    };
    let cpu = sextant_load::ProcessCpu::of(server.pid())?;
    let (began, used) = (Instant::now(), cpu.used()?);
    let fleet = Fleet::start(load, |number| Client::new(Part::Idle, number))?;
    let progress = Progress::new(count);
    while fleet.connects().is_none() && !fleet.is_over() {
        progress.show(fleet.ready());
        sleep(Duration::from_millis(10));
    }
    drop(progress);
    let (took, used) = (began.elapsed(), cpu.used()? - used);
    let Some(waits) = fleet.connects() else {
        fleet.wait()?;
        bail!("the clients did not all connect");
    };
    fleet.finish()?;
    let seconds = |ns: u64| ns as f64 / 1e9;
    Ok(vec![
        Figure::new("", seconds(waits.max_ns)),
        Figure::new("s at p50", seconds(waits.p50_ns)),
        Figure::new("s at p99", seconds(waits.p99_ns)),
        Figure::new("connections a second", f64::from(count) / took.as_secs_f64()),
        Figure::new("µs of CPU per connection", used.as_secs_f64() * 1e6 / f64::from(count)),
    ])
}
