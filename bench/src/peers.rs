//! The peers: who they are, and how each is started so that it keeps nothing on disk that it need
//! not, logs as little as it can, and drops nothing for want of room. A peer is one process on the
//! servers' CPU, all its threads included.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::compare::Bench;
use crate::server::{Server, free_addrs};
use crate::tls::Certificate;

/// A server that is measured beside push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Mosquitto,
    Nats,
    Rumqttd,
}

impl Peer {
    /// All of them.
    pub(crate) const ALL: [Peer; 3] = [Peer::Mosquitto, Peer::Nats, Peer::Rumqttd];

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Peer::Mosquitto => "mosquitto",
            Peer::Nats => "NATS",
            Peer::Rumqttd => "rumqttd",
        }
    }

    /// Whether it has to be built, since Debian does not have it.
    pub(crate) fn is_built(self) -> bool {
        self == Peer::Rumqttd
    }

    /// Has its version told with the results.
    ///
    /// # Errors
    /// It is not installed.
    pub(crate) fn tell_version(self, bench: &mut Bench<'_>) -> Result<()> {
        let mut command = match self {
            Peer::Mosquitto => mosquitto(),
            Peer::Nats => nats(),
            Peer::Rumqttd => rumqttd()?,
        };
        let option = match self {
            Peer::Mosquitto => "-h",
            Peer::Nats => "-v",
            Peer::Rumqttd => "--version",
        };
        bench.version(self.name(), command.arg(option))
    }

    /// One that serves MQTT, within TLS if there is a certificate.
    ///
    /// # Errors
    /// It does not serve.
    pub(crate) fn start(self, certificate: Option<&Certificate>) -> Result<Server> {
        match self {
            Peer::Mosquitto => start_mosquitto_with(certificate),
            Peer::Nats => start_nats(certificate),
            Peer::Rumqttd => start_rumqttd(certificate),
        }
    }
}

/// Debian's mosquitto, which not every user has on its path.
pub(crate) fn mosquitto() -> Command {
    let path = PathBuf::from("/usr/sbin/mosquitto");
    Command::new(if path.is_file() { path } else { "mosquitto".into() })
}

/// A mosquitto that keeps nothing on disk, logs nothing, and drops nothing for want of room.
pub(crate) fn start_mosquitto() -> Result<Server> {
    start_mosquitto_with(None)
}

/// The same, within TLS 1.3 if there is a certificate.
fn start_mosquitto_with(certificate: Option<&Certificate>) -> Result<Server> {
    let addrs = free_addrs(1)?;
    let dir = tempfile::tempdir().context("no temporary folder")?;
    let config = dir.path().join("mosquitto.conf");
    let listener = addrs.first().context("there is an address")?;
    let mut text = format!(
        "listener {} {}\nallow_anonymous true\npersistence false\nlog_dest none\nsys_interval 0\n\
         set_tcp_nodelay true\nmax_queued_messages 0\nmax_queued_bytes 0\nmax_connections -1\n",
        listener.port(),
        listener.ip()
    );
    if let Some(files) = certificate {
        let (certificate, key) = files.paths();
        let tls = format!("certfile {certificate}\nkeyfile {key}\ntls_version tlsv1.3\n");
        text.push_str(&tls);
    }
    std::fs::write(&config, text).context("cannot write mosquitto's configuration")?;
    let mut command = mosquitto();
    command.arg("-c").arg(&config);
    Server::start(&command, true, addrs, Some(dir))
}

/// A NATS server that speaks MQTT.
fn start_nats(certificate: Option<&Certificate>) -> Result<Server> {
    let addrs = free_addrs(1)?;
    let dir = tempfile::tempdir().context("no temporary folder")?;
    let config = dir.path().join("nats.conf");
    let listener = addrs.first().context("there is an address")?;
    let tls = certificate.map_or_else(String::new, |files| {
        let (certificate, key) = files.paths();
        format!(" tls {{ cert_file: \"{certificate}\", key_file: \"{key}\" }}\n")
    });
    let text = format!(
        "server_name: bench\nhost: 127.0.2.1\nport: -1\njetstream {{ store_dir: \"{}\" }}\n\
         mqtt {{ host: \"{}\"\n port: {}\n{tls} }}\n",
        dir.path().display(),
        listener.ip(),
        listener.port()
    );
    std::fs::write(&config, text).context("cannot write the configuration of NATS")?;
    let mut command = nats();
    command.arg("-c").arg(&config);
    Server::start(&command, true, addrs, Some(dir))
}

/// Debian's NATS server.
fn nats() -> Command {
    let path = PathBuf::from("/usr/sbin/nats-server");
    Command::new(if path.is_file() { path } else { "nats-server".into() })
}

/// A rumqttd whose limits are higher than what it is asked. It keeps its messages in logs in memory,
/// 1 GB of them for each filter at most.
fn start_rumqttd(certificate: Option<&Certificate>) -> Result<Server> {
    let addrs = free_addrs(1)?;
    let dir = tempfile::tempdir().context("no temporary folder")?;
    let config = dir.path().join("rumqttd.toml");
    let listener = addrs.first().context("there is an address")?;
    let mut text = format!(
        "id = 0\n[router]\nid = 0\nmax_connections = 16000\nmax_outgoing_packet_count = 10000\n\
         max_segment_size = 104857600\nmax_segment_count = 10\n\
         [v4.1]\nname = \"v4-1\"\nlisten = \"{listener}\"\nnext_connection_delay_ms = 0\n\
         [v4.1.connections]\nconnection_timeout_ms = 60000\nmax_payload_size = 1048576\n\
         max_inflight_count = 1000\ndynamic_filters = true\n"
    );
    if let Some(files) = certificate {
        let (certificate, key) = files.paths();
        let tls = format!("[v4.1.tls]\ncertpath = \"{certificate}\"\nkeypath = \"{key}\"\n");
        text.push_str(&tls);
    }
    std::fs::write(&config, text).context("cannot write rumqttd's configuration")?;
    let mut command = rumqttd()?;
    command.arg("--quiet").arg("--config").arg(&config);
    Server::start(&command, true, addrs, Some(dir))
}

/// The rumqttd that `cargo xtask bench` has built, in the target folder that this program is in.
fn rumqttd() -> Result<Command> {
    let own = std::env::current_exe().context("this program has no path")?;
    let target = own.ancestors().nth(2).context("this program is not in a target folder")?;
    Ok(Command::new(target.join("peers/bin/rumqttd")))
}
