//! The floor: what accepting, echoing and fanning out cost without any protocol, on the ring, on
//! the ring's epoll driver, and on an epoll loop written by hand. Nothing built on a ring can be
//! cheaper than this.
//!
//! All servers speak the same: the client's first byte says what it wants, the server answers `+`.
//!
//! ```text
//!   E   echo              each frame comes back
//!   S   subscribe         each frame that a publisher sends comes
//!   P   publish           each frame goes to all subscribers
//!   C   close             the server closes, without an answer
//! ```
//!
//! A frame has 110 bytes, as many as an MQTT PUBLISH with a topic of six and a payload of a hundred;
//! its first eight are the client's clock at its intended start.

mod bare;
mod on_ring;
mod session;

use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use sextant_load::{Connections, Fleet, Load, Outcome, Pace};

use self::session::{Role, Talk};
use crate::compare::{Bench, Case, Plan, Run, load_figures};
use crate::report::Wanted;
use crate::server::{LOAD_CPU, Server, free_addrs};

/// Bytes of a frame.
pub(crate) const FRAME_BYTES: usize = 110;

/// A server without a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// The ring, on io_uring
    Ring,
    /// An epoll loop written by hand
    BareEpoll,
    /// The ring, on its epoll driver
    RingEpoll,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Ring => "ring",
            Kind::BareEpoll => "bare epoll",
            Kind::RingEpoll => "ring on epoll",
        }
    }
}

/// What `sextant-bench serve-floor` is given.
#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    #[arg(long)]
    kind: Kind,
    /// Listen here (repeatable)
    #[arg(long, required = true)]
    listen: Vec<SocketAddr>,
    /// Hold so many connections at most, on a ring
    #[arg(long, value_name = "N", default_value_t = 16_384)]
    connections_max: u32,
}

/// Serves until it is killed.
pub(crate) fn serve(args: &ServeArgs) -> Result<()> {
    let listeners = args
        .listen
        .iter()
        .map(|addr| TcpListener::bind(addr).with_context(|| format!("cannot listen on {addr}")))
        .collect::<Result<Vec<_>>>()?;
    for listener in &listeners {
        // Accepted connections inherit it.
        rustix::net::sockopt::set_tcp_nodelay(listener, true)?;
    }
    match args.kind {
        Kind::Ring => on_ring::serve_on_uring(listeners, args.connections_max),
        Kind::BareEpoll => bare::serve(listeners),
        Kind::RingEpoll => on_ring::serve_on_epoll(listeners),
    }
}

/// A server of this kind, for measuring.
pub(crate) fn start(kind: Kind) -> Result<Server> {
    serving(kind, &[], 4)
}

/// A ring that can hold so many connections, on so many addresses.
pub(crate) fn start_ring(connections_max: u32, addrs: u8) -> Result<Server> {
    serving(Kind::Ring, &["--connections-max", &connections_max.to_string()], addrs)
}

fn serving(kind: Kind, options: &[&str], addrs: u8) -> Result<Server> {
    let addrs = free_addrs(addrs)?;
    let mut command = Command::new(std::env::current_exe().context("this program has no path")?);
    let value = kind.to_possible_value().context("every kind has a name")?;
    command.args(["serve-floor", "--kind", value.get_name()]).args(options);
    for addr in &addrs {
        command.args(["--listen", &addr.to_string()]);
    }
    Server::start(&command, true, addrs, None)
}

/// Who takes part in a fan-out.
pub(crate) const SUBSCRIBERS: u32 = 1000;

/// The fan-out of the floor at this pace, over any server of this kind.
pub(crate) fn fan_out(server: &Server, pace: Pace, plan: &Plan) -> Result<Outcome> {
    fan_out_with(fan_out_load(server, pace, plan))
}

/// A fan-out of the floor whose first connection publishes.
pub(crate) fn fan_out_with(load: Load) -> Result<Outcome> {
    talk(load, |number| if number == 0 { Role::Publish } else { Role::Subscribe })
}

/// One that publishes to [`SUBSCRIBERS`]: the first connection operates, the others receive.
pub(crate) fn fan_out_load(server: &Server, pace: Pace, plan: &Plan) -> Load {
    Load {
        connections: Connections::Held {
            count: SUBSCRIBERS + 1,
            operating: 1,
            connecting_max: 128,
        },
        pace,
        completions: SUBSCRIBERS,
        ..load(server, plan)
    }
}

/// A load for this server: warm-up and window as planned, on the load's CPU.
pub(crate) fn load(server: &Server, plan: &Plan) -> Load {
    Load {
        warm_up: plan.warm_up,
        measure: plan.measure,
        drain_max: Duration::from_secs(20),
        spin: true,
        server: Some(server.pid()),
        cpu: Some(LOAD_CPU),
        ..Load::new(server.addrs())
    }
}

fn talk(load: Load, role: impl Fn(u64) -> Role + Send + 'static) -> Result<Outcome> {
    let fleet = Fleet::start(load, move |number| Talk::new(role(number)))?;
    fleet.wait()?.context("a load with a pace has an outcome")
}

fn echo(server: &Server, pace: Pace, plan: &Plan) -> Result<Outcome> {
    let connections = Connections::Held { count: 64, operating: 64, connecting_max: 64 };
    talk(Load { connections, pace, ..load(server, plan) }, |_| Role::Echo)
}

pub(crate) fn accept(server: &Server, pace: Pace, plan: &Plan) -> Result<Outcome> {
    let connections = Connections::PerOperation { at_once_max: 4096 };
    talk(Load { connections, pace, ..load(server, plan) }, |_| Role::Close)
}

type Measure = fn(&Server, Pace, &Plan) -> Result<Outcome>;

/// Runs the floor.
pub(crate) fn run(run: &Run) -> Result<()> {
    let saturated = Pace::Saturated { window: 64, lot: 1 };
    let cases: [(&str, &str, Measure, Pace, f64); 6] = [
        ("accept, 4,000 a second", "connection", accept, Pace::PerSecond(4000.0), 1.2),
        ("accept, saturated", "connection", accept, saturated, 1.2),
        ("echo, 20,000 a second over 64", "echo", echo, Pace::PerSecond(20_000.0), 0.8),
        ("echo, saturated, 64 at once", "echo", echo, saturated, 0.8),
        ("fan-out, 50 a second to 1,000", "delivery", fan_out, Pace::PerSecond(50.0), 0.8),
        ("fan-out, saturated, to 1,000", "delivery", fan_out, SATURATED, 0.8),
    ];
    let kinds = Kind::value_variants();
    let mut bench = Bench::new(run, "floor", "CPU of a server without a protocol")?;
    bench.note("Server and load each have a CPU of their own; sockets are on loopback.");
    for (name, operation, measure, pace, at_most) in cases {
        let mut case = Case::new(name, format!("µs of CPU per {operation}"));
        for kind in kinds {
            case = case.side(kind.name(), move |plan| {
                let server = start(*kind)?;
                Ok(load_figures(&measure(&server, pace, plan)?))
            });
        }
        let wanted = Some(Wanted::AtMost(at_most));
        bench.add(case.costs("ring", "bare epoll", wanted).costs(
            "ring on epoll",
            "bare epoll",
            None,
        ));
    }
    bench.run()
}

/// A fan-out in which messages wait at every socket: so many are published together, and again as
/// many wait behind them.
pub(crate) const SATURATED: Pace = Pace::Saturated { window: 128, lot: 64 };
