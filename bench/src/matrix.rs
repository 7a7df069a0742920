//! Push beside its peers and the floor, fanning out from one publisher: to how many, how much, and
//! at which QoS. Each cell is asked twice: saturated, for what a delivery costs at most, and at a
//! rate that all can keep, for what it costs then and how long it takes.

use anyhow::{Context, Result};
use sextant_load::{Connections, Fleet, Load, Outcome, Pace};
use sextant_mqtt::QoS;

use crate::compare::{Case, Plan, Run, load_figures};
use crate::devices::{
    CONNECTING, PEER_CONNECTIONS_MAX, addrs, bench, peer_figures, push, that_hold,
};
use crate::floor;
use crate::mqtt::{Client, PAYLOAD_BYTES, Part, TOPIC};
use crate::peers::Peer;
use crate::report::{Wanted, number};
use crate::server::Server;

/// Who receives how much, at which QoS.
#[derive(Clone, Copy, Debug)]
struct Cell {
    receivers: u32,
    bytes: usize,
    qos: QoS,
}

/// Deliveries a second in the cells that are asked unsaturated, too: about half of what one CPU of an
/// AMD EPYC does of them at the slowest peer that can do them at all, by its CPU per delivery. That
/// is mosquitto at QoS 0 (10 µs, 20 to 10,000 receivers) and NATS at QoS 1 (50 µs); NATS does not hold
/// 10,000 subscribers. For 100,000 receivers it is half of what push does, one message at a time.
const RATES: [(u32, usize, QoS, f64); 7] = [
    (1, 100, QoS::AtMostOnce, 40_000.0),
    (1, 1024, QoS::AtLeastOnce, 10_000.0),
    (100, 100, QoS::AtMostOnce, 50_000.0),
    (100, 1024, QoS::AtLeastOnce, 15_000.0),
    (10_000, 100, QoS::AtMostOnce, 30_000.0),
    (10_000, 1024, QoS::AtLeastOnce, 20_000.0),
    (100_000, 100, QoS::AtMostOnce, 80_000.0),
];

/// Messages wait at every socket: so many are published together, and as many again are under way.
const SATURATED: Pace = Pace::Saturated { window: 32, lot: 16 };

/// So many receivers take longer for each message, and are measured for longer.
const MANY: u32 = 10_000;

/// Runs `push-matrix`.
pub(crate) fn run(run: &Run) -> Result<()> {
    let (mut bench, peers) = bench(run, "push-matrix", "A fan-out, by receivers, size and QoS")?;
    bench.note(
        "One publisher. Saturated: 16 messages are published together while 16 others are under \
         way. Otherwise so many deliveries a second as the case says, about half of what the \
         slowest peer sustains; latency is from when a message should have been published.",
    );
    bench.note(format!(
        "floor is the ring without a protocol, with frames as long as these packets. With {} \
         connections and more no peer is asked: each has a descriptor for every connection.",
        number(f64::from(PEER_CONNECTIONS_MAX))
    ));
    let sizes: &[u32] = if run.quick { &[1, 100, 1000] } else { &[1, 100, 10_000, 100_000] };
    for &receivers in sizes {
        for bytes in [PAYLOAD_BYTES, 1024] {
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
                let cell = Cell { receivers, bytes, qos };
                let peers = that_hold(&peers, receivers);
                bench.add(case(cell, peers, SATURATED, "saturated", 5.0));
                if let Some(rate) = cell.rate() {
                    let pace = Pace::PerSecond(rate / f64::from(receivers));
                    let name = format!("{} deliveries a second", number(rate));
                    bench.add(beside_latency(peers, case(cell, peers, pace, &name, 1.6)));
                }
            }
        }
    }
    bench.run()
}

impl Cell {
    fn rate(self) -> Option<f64> {
        let own = |(receivers, bytes, qos, _): &&(u32, usize, QoS, f64)| {
            (*receivers, *bytes, *qos) == (self.receivers, self.bytes, self.qos)
        };
        RATES.iter().find(own).map(|(.., rate)| *rate)
    }
}

/// All sides of a cell. Mosquitto does for the same cost `gain` times less than push, or less.
fn case<'m>(cell: Cell, peers: &[Peer], pace: Pace, name: &str, gain: f64) -> Case<'m> {
    let Cell { receivers, bytes, qos } = cell;
    let of = match receivers {
        1 => "1 receiver".to_owned(),
        _ => format!("{} receivers", number(f64::from(receivers))),
    };
    let name = format!("{of}, {bytes} B, QoS {}, {name}", qos as u8);
    let mut case = Case::new(name, "µs of CPU per delivery")
        .side("push", move |plan| Ok(load_figures(&fan_out(&push(receivers)?, cell, pace, plan)?)));
    for &peer in peers {
        let wanted = if peer == Peer::Mosquitto { gain } else { 1.0 };
        case = case
            .peer(peer.name(), move |plan| {
                peer_figures(&fan_out(&peer.start(None)?, cell, pace, plan)?)
            })
            .gains("push", peer.name(), Some(Wanted::AtLeast(wanted)));
    }
    // Its frames have one length, and nobody acknowledges them.
    if bytes == PAYLOAD_BYTES && qos == QoS::AtMostOnce {
        case = case
            .side("floor", move |plan| {
                let server = floor::start_ring(receivers + 1000, addrs(receivers)?)?;
                let load = load(&server, cell, pace, plan);
                Ok(load_figures(&floor::fan_out_with(load)?))
            })
            .gains("push", "floor", Some(Wanted::AtLeast(0.85)));
    }
    let rounds_max = match receivers {
        PEER_CONNECTIONS_MAX.. => 1,
        MANY.. => 2,
        _ => u32::MAX,
    };
    case.rounds_max(rounds_max)
}

/// Push shall be no later than the peer that is soonest.
fn beside_latency<'m>(peers: &[Peer], mut case: Case<'m>) -> Case<'m> {
    let names: Vec<&str> = peers.iter().map(|peer| peer.name()).collect();
    if !names.is_empty() {
        for figure in ["p50 µs", "p99 µs"] {
            let wanted = Some(Wanted::AtMost(1.0));
            case = case.beside_least(figure, "push", "best peer", &names, wanted);
        }
    }
    case
}

fn load(server: &Server, cell: Cell, pace: Pace, plan: &Plan) -> Load {
    let longer = if cell.receivers < MANY { 1 } else { 2 };
    Load {
        measure: plan.measure * longer,
        connections: Connections::Held {
            count: cell.receivers + 1,
            operating: 1,
            connecting_max: CONNECTING,
        },
        pace,
        completions: cell.receivers,
        ..floor::load(server, plan)
    }
}

fn fan_out(server: &Server, cell: Cell, pace: Pace, plan: &Plan) -> Result<Outcome> {
    let Cell { bytes, qos, .. } = cell;
    let fleet = Fleet::start(load(server, cell, pace, plan), move |number| {
        let part = match number {
            0 => Part::Publisher(TOPIC.into(), qos, bytes),
            _ => Part::Subscriber(TOPIC.into(), qos),
        };
        Client::with_keep_alive(part, number)
    })?;
    fleet.wait()?.context("a load with a pace has an outcome")
}
