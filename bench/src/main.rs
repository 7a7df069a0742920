//! `sextant-bench`: side-by-side runs against peers. `cargo xtask bench` builds what a run needs,
//! installs the peers, and runs this.

mod append;
mod campaign;
mod compare;
mod devices;
mod floor;
mod idle;
mod matrix;
mod million;
mod mqtt;
mod peers;
mod plot;
mod push;
mod report;
mod server;
mod soak;
mod store;
mod tls;
mod wake;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::compare::{Plan, Run};
use crate::report::Report;

/// Measure beside peers, interleaved in one run.
#[derive(Debug, Parser)]
#[command(name = "sextant-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// CPU of accepting, echoing and fanning out, without any protocol
    Floor(RunArgs),
    /// CPU of push to a thousand subscribers, beside mosquitto and the ring without a protocol
    PushFanout(RunArgs),
    /// Memory of idle connections to push, beside mosquitto
    PushIdle(IdleArgs),
    /// A million devices on one push: memory, keep-alives, one message for all
    PushMillion(MillionArgs),
    /// CPU and latency of a fan-out by receivers, size and QoS, beside its peers and the floor
    PushMatrix(RunArgs),
    /// CPU of messages between pairs of clients, beside its peers
    PushPairs(RunArgs),
    /// CPU of clients that come and go, beside its peers and a bare accept loop; a storm of them
    PushConnect(RunArgs),
    /// CPU of a TLS handshake and memory of a TLS connection, beside its peers
    PushTls(RunArgs),
    /// A message for all devices of an app, audit and all; and a list of devices that are away
    PushCampaign(CampaignArgs),
    /// CPU and rate of SET and GET on store, beside Valkey and Redis
    StoreCommands(RunArgs),
    /// Rate of SET with each reply on disk, beside Valkey, Redis and the disk
    StoreDurable(RunArgs),
    /// Memory of ten million keys, beside Valkey and Redis
    StoreMemory(RunArgs),
    /// How long a restart takes with ten million keys, beside Valkey and Redis
    StoreRestart(RunArgs),
    /// Everything at random for half an hour, and whether anything is left behind
    Soak(SoakArgs),
    /// Durable appends of 64 writers, beside the best of fio
    SegmentAppend(AppendArgs),
    /// Messages between cores, and how many share a wake
    Wake(RunArgs),
    /// Write tables and pictures of results anew
    Draw {
        /// Results of runs
        #[arg(required = true, value_name = "NAME.json")]
        results: Vec<PathBuf>,
    },
    /// Append to a log, and say how that went
    #[command(hide = true)]
    WriteLog(append::WriteArgs),
    /// Be a server of the floor
    #[command(hide = true)]
    ServeFloor(floor::ServeArgs),
    /// Become another program, on one CPU, until the parent ends
    #[command(hide = true)]
    Exec(server::ExecArgs),
}

/// How a run of appends goes.
#[derive(Debug, clap::Args)]
struct AppendArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Write to this folder, on the disk in question
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
}

/// How a run of idle connections goes.
#[derive(Debug, clap::Args)]
struct IdleArgs {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    own: idle::IdleArgs,
}

/// How a run of a million devices goes.
#[derive(Debug, clap::Args)]
struct MillionArgs {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    own: million::MillionArgs,
}

/// How a run of the sender platform goes.
#[derive(Debug, clap::Args)]
struct CampaignArgs {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    own: campaign::CampaignArgs,
}

/// How a soak goes.
#[derive(Debug, clap::Args)]
struct SoakArgs {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    own: soak::SoakArgs,
}

/// How a run goes.
#[derive(Debug, clap::Args)]
struct RunArgs {
    /// Run for a moment only: to see that everything works, not how fast
    #[arg(long)]
    quick: bool,
    /// Measure each side so often, in turn [default: 5, 3 of what has many cases; 1 if quick]
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// Only the cases that have this in their names (results are then of these alone)
    #[arg(long, value_name = "TEXT")]
    case: Option<String>,
    /// Write the results to this folder
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    out: PathBuf,
}

impl RunArgs {
    /// For what takes long: once, unless somebody asks for more.
    fn run_once(self, name: &str) -> Run {
        let rounds = self.rounds.unwrap_or(1).max(1);
        let mut run = self.run(name);
        run.plan.rounds = rounds;
        run
    }

    /// For what has many cases: two seconds for each, three times, unless somebody asks for more.
    fn run_briefly(self, name: &str) -> Run {
        let rounds = self.rounds.unwrap_or(if self.quick { 1 } else { 3 }).max(1);
        let mut run = self.run(name);
        run.plan.rounds = rounds;
        run.plan.warm_up = run.plan.warm_up.min(Duration::from_millis(500));
        run.plan.measure = run.plan.measure.min(Duration::from_secs(2));
        run
    }

    fn run(self, name: &str) -> Run {
        let quick = if self.quick { " --quick" } else { "" };
        let rounds = self.rounds.map(|n| format!(" --rounds {n}")).unwrap_or_default();
        let case = self.case.as_ref().map(|case| format!(" -- --case '{case}'"));
        Run {
            plan: Plan::new(self.quick, self.rounds),
            quick: self.quick,
            out: self.out,
            command: format!("cargo xtask bench {name}{quick}{rounds}{}", case.unwrap_or_default()),
            case: self.case,
        }
    }
}

fn main() -> ExitCode {
    server::raise_descriptor_limit();
    let done = match Cli::parse().command {
        What::Floor(args) => floor::run(&args.run("floor")),
        What::PushFanout(args) => push::run_fan_out(&args.run("push-fanout")),
        What::PushIdle(args) => idle::run(&args.run.run("push-idle"), args.own),
        What::PushMillion(args) => million::run(&args.run.run_once("push-million"), args.own),
        What::PushCampaign(args) => campaign::run(&args.run.run("push-campaign"), args.own),
        What::Soak(args) => soak::run(&args.run.run_once("soak"), args.own),
        What::PushMatrix(args) => matrix::run(&args.run_briefly("push-matrix")),
        What::PushPairs(args) => devices::run_pairs(&args.run_briefly("push-pairs")),
        What::PushConnect(args) => devices::run_connect(&args.run_briefly("push-connect")),
        What::PushTls(args) => tls::run(&args.run_briefly("push-tls")),
        What::StoreCommands(args) => store::run_commands(&args.run("store-commands")),
        What::StoreDurable(args) => store::run_durable(&args.run("store-durable")),
        What::StoreMemory(args) => store::run_memory(&args.run("store-memory")),
        What::StoreRestart(args) => store::run_restart(&args.run("store-restart")),
        What::Draw { results } => results.iter().try_for_each(|file| Report::draw_again(file)),
        What::SegmentAppend(args) => append::run(&args.run.run("segment-append"), &args.dir),
        What::WriteLog(args) => append::write_log(&args),
        What::Wake(args) => wake::run(&args.run("wake")),
        What::ServeFloor(args) => floor::serve(&args),
        What::Exec(args) => server::exec(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
