//! Push and its peers with many devices: pairs of clients that talk to each other, clients that come
//! and go, and all of them at once; and whom such runs ask.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sextant_load::{Connections, Fleet, Load, Outcome, Pace};
use sextant_mqtt::QoS;

use crate::compare::{Bench, Case, Plan, Run, load_figures};
use crate::floor;
use crate::idle::{PER_ADDRESS, Progress};
use crate::mqtt::{Client, Part};
use crate::peers::Peer;
use crate::push::{Layout, start_push};
use crate::report::{Figure, Wanted, number};
use crate::server::Server;

/// What a peer can hold whose every connection is a descriptor of its process.
pub(crate) const PEER_CONNECTIONS_MAX: u32 = 15_000;
/// Connections that are being made at once, before what is measured.
pub(crate) const CONNECTING: u32 = 256;

/// A push on the servers' CPU, with one core.
pub(crate) fn push(connections: u32) -> Result<Server> {
    start_push(layout(connections)?)
}

/// One core on the servers' CPU, for so many connections.
pub(crate) fn layout(connections: u32) -> Result<Layout> {
    Ok(Layout {
        cores: 1,
        connections_max: connections + 1000,
        pinned: true,
        addrs: addrs(connections)?,
    })
}

/// How many addresses so many connections need.
pub(crate) fn addrs(connections: u32) -> Result<u8> {
    u8::try_from(connections / PER_ADDRESS + 1).context("too many connections")
}

/// Those of the peers that can hold so many connections.
pub(crate) fn that_hold(peers: &[Peer], connections: u32) -> &[Peer] {
    if connections < PEER_CONNECTIONS_MAX { peers } else { &[] }
}

/// What a load came to at a peer.
///
/// # Errors
/// It lost a hundredth of what it took or more: then its figures are of other work than push's.
pub(crate) fn peer_figures(outcome: &Outcome) -> Result<Vec<Figure>> {
    let share = outcome.missing as f64 / (outcome.missing + outcome.latency.count).max(1) as f64;
    if share >= 0.01 {
        bail!("{} of a hundred deliveries never came", number(share * 100.0));
    }
    Ok(load_figures(outcome))
}

/// A comparison with the peers, and those of them that are here.
///
/// # Errors
/// A peer of Debian's is not installed. Of the others, which have to be built, that is a note.
pub(crate) fn bench<'m>(run: &'m Run, name: &str, title: &str) -> Result<(Bench<'m>, Vec<Peer>)> {
    let mut bench = Bench::new(run, name, title)?;
    let mut peers = Vec::new();
    for peer in Peer::ALL {
        match peer.tell_version(&mut bench) {
            Ok(()) => peers.push(peer),
            Err(_) if peer.is_built() => {
                bench.note(format!("{} is left out: it could not be built here.", peer.name()));
            }
            Err(error) => return Err(error),
        }
    }
    bench.note(
        "MQTT 3.1.1. Each server is one process on one CPU, push with one core; the load has the \
         other CPU. Where one does fewer a second than it is asked, that is all it can do.",
    );
    Ok((bench, peers))
}

/// Pairs of `push-pairs`.
const PAIRS: u32 = 5000;

/// Runs `push-pairs`.
pub(crate) fn run_pairs(run: &Run) -> Result<()> {
    let pairs = if run.quick { 50 } else { PAIRS };
    let (mut bench, peers) =
        bench(run, "push-pairs", "CPU of messages from one client to one other")?;
    bench.note(format!(
        "{} pairs, each with a topic of its own; payloads of 100 bytes. Saturated: 256 messages \
         are under way.",
        number(f64::from(pairs))
    ));
    let paces = [
        ("5,000 messages a second", Pace::PerSecond(5000.0)),
        ("saturated", Pace::Saturated { window: 256, lot: 1 }),
    ];
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        for (pace_name, pace) in paces {
            let name = format!("QoS {}, {pace_name}", qos as u8);
            let mut case = Case::new(name, "µs of CPU per message").side("push", move |plan| {
                Ok(load_figures(&talk(&push(2 * pairs)?, pairs, qos, pace, plan)?))
            });
            for &peer in that_hold(&peers, 2 * pairs) {
                case = case
                    .peer(peer.name(), move |plan| {
                        peer_figures(&talk(&peer.start(None)?, pairs, qos, pace, plan)?)
                    })
                    .gains("push", peer.name(), Some(Wanted::AtLeast(2.0)));
            }
            bench.add(case.rounds_max(2));
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
        Client::with_keep_alive(part, number)
    })?;
    fleet.wait()?.context("a load with a pace has an outcome")
}

/// Clients of the storm.
const STORM: u32 = 200_000;

/// Runs `push-connect`.
pub(crate) fn run_connect(run: &Run) -> Result<()> {
    let storm = if run.quick { 2000 } else { STORM };
    let (mut bench, peers) = bench(run, "push-connect", "CPU of clients that come and go")?;
    bench.note(
        "A visit is TCP, CONNECT, CONNACK and DISCONNECT, after which the server closes; bare \
         epoll accepts, reads one byte and closes. Latency is until the CONNACK.",
    );
    bench.note(
        "Storm: all clients call at the same moment and stay. A client's wait is from its call to \
         its CONNACK. No peer is asked: mosquitto reset connections in a storm of 14,000.",
    );
    let paces = [
        ("4,000 visits a second", Pace::PerSecond(4000.0)),
        ("visits, saturated", Pace::Saturated { window: 64, lot: 1 }),
    ];
    for (name, pace) in paces {
        let mut case = Case::new(name, "µs of CPU per visit")
            .side("push", move |plan| Ok(load_figures(&visits(&push(10_000)?, pace, plan)?)));
        for &peer in &peers {
            case = case
                .peer(peer.name(), move |plan| {
                    peer_figures(&visits(&peer.start(None)?, pace, plan)?)
                })
                .gains("push", peer.name(), None);
        }
        case = case
            .side("bare epoll", move |plan| {
                let server = floor::start(floor::Kind::BareEpoll)?;
                Ok(load_figures(&floor::accept(&server, pace, plan)?))
            })
            .costs("push", "bare epoll", Some(Wanted::AtMost(1.4)));
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
    let fleet = Fleet::start(load, |number| Client::with_keep_alive(Part::Visitor, number))?;
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
    let fleet = Fleet::start(load, |number| Client::with_keep_alive(Part::Idle, number))?;
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
