//! `sextant-push`: reads its flags and settings, and runs the daemon.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use sextant_push::config::{Config, Driver};
use sextant_push::daemon;
use sextant_service::args::CommonArgs;
use sextant_service::config::Flag;
use sextant_service::process::abort_on_panic;

/// Pushes messages to devices over MQTT, each on disk before it is acknowledged.
///
/// Without any flag: MQTT on 127.0.0.1:1883, the HTTP API on 127.0.0.1:7701 with the token in
/// ./data/push/admin.token.
#[derive(Parser)]
#[command(name = "sextant-push", version, max_term_width = 100)]
struct Args {
    #[command(flatten)]
    common: CommonArgs,

    /// Listen for MQTT here (repeatable) [default: 127.0.0.1:1883]
    #[arg(long, value_name = "ADDR")]
    mqtt: Vec<SocketAddr>,

    /// Listen for HTTP here [default: 127.0.0.1:7701]
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,

    /// Threads that serve devices; 0 is one per CPU [default: 0]
    #[arg(long, value_name = "N")]
    cores: Option<u16>,

    /// What these threads ask the kernel through; auto is io_uring where it is allowed, else epoll
    /// [default: auto]
    #[arg(long, value_name = "NAME", value_parser = Driver::NAMES)]
    driver: Option<String>,
}

impl Args {
    fn flags(&self) -> Vec<Flag> {
        let mut flags = Vec::new();
        if !self.mqtt.is_empty() {
            let addresses: Vec<String> = self.mqtt.iter().map(SocketAddr::to_string).collect();
            flags.push(Flag::new("--mqtt", "mqtt.listen", addresses));
        }
        if let Some(admin) = self.admin {
            flags.push(Flag::new("--admin", "admin.listen", admin.to_string()));
        }
        if let Some(cores) = self.cores {
            flags.push(Flag::new("--cores", "cores", i64::from(cores)));
        }
        if let Some(driver) = &self.driver {
            flags.push(Flag::new("--driver", "driver", driver.clone()));
        }
        flags
    }
}

fn main() -> ExitCode {
    abort_on_panic();
    let args = Args::parse();
    let loaded = match args.common.load::<Config>("push", args.flags()) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let reload = || args.common.load::<Config>("push", args.flags()).ok();
    match daemon::run(loaded, reload) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            sextant_service::telemetry::flush();
            eprintln!("sextant-push: {error:#}");
            ExitCode::FAILURE
        }
    }
}
