//! The broker's own topics, `$SYS/broker/…`: how it stands, told to whoever subscribes to them.
//! Names and forms are mosquitto's where what they say is the same, so that its dashboards work.
//!
//! The control plane asks the cores now and then and gives all of them the sums; each core tells
//! its own subscribers what has changed, and a new subscriber all of it.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::api::{Cores, sum};
use crate::control::{Command, CoreStatus};

/// What begins the names of all these topics.
pub const PREFIX: &str = "$SYS/";

/// A topic, and what is published there.
pub type Level = (&'static str, Bytes);

/// Tells the cores how the daemon stands, every so often and for as long as they take commands.
pub async fn tell(cores: &dyn Cores, every: Duration) {
    let started = Instant::now();
    loop {
        // A core that does not answer is told of elsewhere.
        if let Ok(status) = sum(cores).await {
            let levels: Arc<[Level]> = levels(&status, started.elapsed()).into();
            for core in 0..cores.cores() {
                let _ = cores.send(core, Command::Levels(Arc::clone(&levels)));
            }
        }
        tokio::time::sleep(every).await;
    }
}

fn levels(status: &CoreStatus, uptime: Duration) -> Vec<Level> {
    let level = |topic, value: &dyn Display| (topic, Bytes::from(value.to_string()));
    let connected = status.connections.min(status.sessions);
    vec![
        level("$SYS/broker/version", &concat!("sextant-push ", env!("CARGO_PKG_VERSION"))),
        level("$SYS/broker/uptime", &format_args!("{} seconds", uptime.as_secs())),
        level("$SYS/broker/clients/connected", &connected),
        level("$SYS/broker/clients/disconnected", &(status.sessions - connected)),
        level("$SYS/broker/clients/total", &status.sessions),
        level("$SYS/broker/subscriptions/count", &status.subscriptions),
        level("$SYS/broker/retained messages/count", &status.retained),
        level("$SYS/broker/store/messages/count", &status.held),
        level("$SYS/broker/publish/messages/received", &status.messages_in),
        level("$SYS/broker/publish/messages/sent", &status.messages_out),
    ]
}
