//! `sextant-store`: reads its flags and settings, and runs the daemon.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use sextant_service::args::CommonArgs;
use sextant_service::config::Flag;
use sextant_service::process::abort_on_panic;
use sextant_store::config::{Config, Driver};
use sextant_store::daemon;

/// Serves databases over Redis' protocol, each change on disk before it is acknowledged.
///
/// Without any flag: a database instance on 127.0.0.1:6380, the HTTP API on 127.0.0.1:7702 with the
/// token in ./data/store/admin.token.
#[derive(Parser)]
#[command(name = "sextant-store", version, max_term_width = 100)]
struct Args {
    #[command(flatten)]
    common: CommonArgs,

    /// Let clients of the default instance connect here (repeatable) [default: 127.0.0.1:6380]
    #[arg(long, value_name = "ADDR")]
    listen: Vec<SocketAddr>,

    /// When a change of the default instance counts as kept: always, os, none, or a time such as
    /// 50ms [default: always]
    #[arg(long, value_name = "WHEN")]
    durability: Option<String>,

    /// Listen for HTTP here [default: 127.0.0.1:7702]
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,

    /// Threads that serve clients; 0 is one per CPU [default: 0]
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
        if !self.listen.is_empty() {
            let addresses: Vec<String> = self.listen.iter().map(SocketAddr::to_string).collect();
            flags.push(Flag::new("--listen", "default.listen", addresses));
        }
        if let Some(durability) = &self.durability {
            flags.push(Flag::new("--durability", "default.durability", durability.clone()));
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
    let loaded = match args.common.load::<Config>("store", args.flags()) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let reload = || args.common.load::<Config>("store", args.flags()).ok();
    match daemon::run(loaded, reload) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            sextant_service::telemetry::flush();
            eprintln!("sextant-store: {error:#}");
            ExitCode::FAILURE
        }
    }
}
