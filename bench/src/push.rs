//! Push beside mosquitto, and beside the ring without a protocol, fanning out; and how push is
//! started.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use sextant_load::{Fleet, Outcome, Pace};
use sextant_mqtt::QoS;
use sextant_service::admin::AdminToken;
use sextant_service::client::Client as Admin;

use crate::compare::{Bench, Case, Plan, Run, load_figures};
use crate::floor::{self, Kind, SATURATED};
use crate::mqtt::{Client, PAYLOAD_BYTES, Part, TOPIC};
use crate::peers::{mosquitto, start_mosquitto};
use crate::report::Wanted;
use crate::server::{Server, free_addrs, sibling};
use crate::tls::Certificate;

/// How a `sextant-push` is laid out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) cores: u16,
    pub(crate) connections_max: u32,
    /// On the servers' CPU, or on all.
    pub(crate) pinned: bool,
    /// Addresses that it listens on.
    pub(crate) addrs: u8,
}

/// A `sextant-push` with its default settings otherwise.
pub(crate) fn start_push(layout: Layout) -> Result<Server> {
    start(layout, None).map(|pushing| pushing.server)
}

/// The same, within TLS.
pub(crate) fn start_push_with_tls(layout: Layout, certificate: &Certificate) -> Result<Server> {
    start(layout, Some(certificate)).map(|pushing| pushing.server)
}

/// The same without TLS, and a client of its HTTP API.
pub(crate) fn start_push_with_admin(layout: Layout) -> Result<(Server, Admin)> {
    start(layout, None).map(|pushing| (pushing.server, pushing.admin))
}

/// The same, and all that there is to know of it.
pub(crate) fn start_push_whole(layout: Layout) -> Result<Pushing> {
    start(layout, None)
}

/// A push, and the ways to it.
pub(crate) struct Pushing {
    pub(crate) server: Server,
    pub(crate) admin: Admin,
    pub(crate) admin_addr: SocketAddr,
    pub(crate) token: AdminToken,
}

fn start(layout: Layout, certificate: Option<&Certificate>) -> Result<Pushing> {
    let addrs = free_addrs(layout.addrs)?;
    let admin_addr = free_admin()?;
    let dir = tempfile::tempdir().context("no temporary folder")?;
    let config = dir.path().join("push.toml");
    let listen: Vec<String> = addrs.iter().map(|addr| format!("\"{addr}\"")).collect();
    let mut text = format!(
        "cores = {}\n[telemetry]\nlevel = \"error\"\n[admin]\nlisten = \"{admin_addr}\"\n[mqtt]\n\
         listen = [{}]\nconnections_max = {}\nsend_queue_bytes_max = \"16MiB\"\n",
        layout.cores,
        listen.join(", "),
        layout.connections_max
    );
    if let Some(files) = certificate {
        let (certificate, key) = files.paths();
        text.push_str(&format!("[tls]\ncertificate = \"{certificate}\"\nkey = \"{key}\"\n"));
    }
    std::fs::write(&config, text).context("cannot write push's configuration")?;
    let mut command = Command::new(sibling("sextant-push")?);
    let data = dir.path().join("data");
    command.arg("--config").arg(&config).arg("--data").arg(&data);
    let server = Server::start(&command, layout.pinned, addrs, Some(dir))?;
    let token = AdminToken::load(&data).context("the daemon has made no token")?;
    let patience = Duration::from_secs(60);
    let admin = Admin::new(&admin_addr.to_string(), Some(token.clone()), patience);
    Ok(Pushing { server, admin, admin_addr, token })
}

fn free_admin() -> Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.2.1:0").context("no port is free")?;
    Ok(listener.local_addr()?)
}

/// Messages from one publisher to a thousand subscribers.
fn fan_out(server: &Server, pace: Pace, plan: &Plan) -> Result<Outcome> {
    let load = floor::fan_out_load(server, pace, plan);
    let fleet = Fleet::start(load, |number| {
        let part = match number {
            0 => Part::Publisher(TOPIC.into(), QoS::AtMostOnce, PAYLOAD_BYTES),
            _ => Part::Subscriber(TOPIC.into(), QoS::AtMostOnce),
        };
        Client::new(part, number)
    })?;
    fleet.wait()?.context("a load with a pace has an outcome")
}

/// Runs the fan-out.
pub(crate) fn run_fan_out(run: &Run) -> Result<()> {
    let mut bench = Bench::new(run, "push-fanout", "CPU of a push to a thousand subscribers")?;
    bench.version("mosquitto", mosquitto().arg("-h"))?;
    bench.note("QoS 0, a payload of 100 bytes, MQTT 3.1.1; one publisher, 1,000 subscribers.");
    bench.note(
        "Each server is one process on one CPU, push with one core; the load has the other CPU.",
    );
    bench.note(
        "Saturated: 64 messages are published together while 64 others are under way. At 50 a second \
         each message leaves in a send of its own.",
    );
    let layout = Layout { cores: 1, connections_max: 2000, pinned: true, addrs: 1 };
    for (name, pace, gain) in
        [("50 messages a second", Pace::PerSecond(50.0), 1.6), ("saturated", SATURATED, 5.0)]
    {
        let case = Case::new(name, "µs of CPU per delivery")
            .side("push", move |plan| Ok(load_figures(&fan_out(&start_push(layout)?, pace, plan)?)))
            .side("mosquitto", move |plan| {
                Ok(load_figures(&fan_out(&start_mosquitto()?, pace, plan)?))
            })
            .side("ring", move |plan| {
                Ok(load_figures(&floor::fan_out(&floor::start(Kind::Ring)?, pace, plan)?))
            })
            .gains("push", "mosquitto", Some(Wanted::AtLeast(gain)))
            .gains("push", "ring", Some(Wanted::AtLeast(0.8)));
        bench.add(case);
    }
    bench.run()
}
