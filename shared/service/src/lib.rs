//! What every daemon's `main` needs, so that a daemon is its library and little more.
//!
//! ```text
//!   args ──► config ──► telemetry ──► process ──► activation ──► runtime (one thread)
//!                                                                  ├─ admin    HTTP
//!                                                                  ├─ signals  TERM, INT, HUP
//!                                                                  └─ notify   systemd, watchdog
//!   cores (threads of the daemon's own) ──► metrics, notify::Heartbeat: plain stores, no locks
//! ```
//!
//! The crate knows nothing of rings, logs or protocols. What a core touches here
//! ([`metrics::CoreMetrics`], [`notify::Heartbeat`]) are stores to memory that no other thread
//! writes; everything else runs on the control thread, and nothing on it can stall a core.
//!
//! A daemon's `main`, in whole:
//!
//! ```no_run
//! use std::process::ExitCode;
//! use std::sync::Arc;
//!
//! use clap::Parser;
//! use sextant_service::activation::{self, Activation};
//! use sextant_service::admin::{self, Admin, AdminToken, Health};
//! use sextant_service::args::CommonArgs;
//! use sextant_service::config::{Config, Faults, Flag};
//! use sextant_service::notify::{self, Heartbeats, Notifier, State};
//! use sextant_service::process::{self, DataDir};
//! use sextant_service::signals::{Signal, Signals};
//! use sextant_service::{metrics, runtime, telemetry};
//!
//! #[derive(serde::Serialize, serde::Deserialize)]
//! struct Settings {
//!     data: std::path::PathBuf,
//!     admin: admin::Settings,
//!     telemetry: telemetry::Settings,
//! }
//!
//! impl Default for Settings {
//!     fn default() -> Self {
//!         let telemetry = telemetry::Settings::default();
//!         Self { data: "./data/scene".into(), admin: admin::Settings::on(7706), telemetry }
//!     }
//! }
//!
//! impl Config for Settings {
//!     fn check(&self, faults: &mut Faults<'_>) {
//!         self.admin.check(faults);
//!         self.telemetry.check(faults);
//!     }
//! }
//!
//! #[derive(clap::Parser)]
//! struct Args {
//!     #[command(flatten)]
//!     common: CommonArgs,
//!     /// Serve the admin port here
//!     #[arg(long, value_name = "ADDR")]
//!     admin: Option<String>,
//! }
//!
//! fn main() -> ExitCode {
//!     process::abort_on_panic();
//!     let args = Args::parse();
//!     let own = args.admin.iter().map(|addr| Flag::new("--admin", "admin.listen", addr.clone()));
//!     match args.common.load::<Settings>("scene", own.collect()) {
//!         Err(code) => code,
//!         Ok(loaded) => match run(loaded.value) {
//!             Ok(()) => ExitCode::SUCCESS,
//!             Err(error) => {
//!                 tracing::error!("{error}");
//!                 telemetry::flush();
//!                 ExitCode::FAILURE
//!             }
//!         },
//!     }
//! }
//!
//! fn run(settings: Settings) -> Result<(), Box<dyn std::error::Error>> {
//!     let log = telemetry::init(&settings.telemetry)?;
//!     let data = DataDir::open(&settings.data)?;
//!     let token = Arc::new(AdminToken::load_or_create(data.path())?);
//!     let mut passed = Activation::from_env()?;
//!     let listener = match passed.take("admin").pop() {
//!         Some(fd) => activation::tcp_listener(fd)?,
//!         None => activation::listen(settings.admin.listen, "sextant-scene")?,
//!     };
//!     let mut families = metrics::Builder::new("scene", env!("CARGO_PKG_VERSION"));
//!     families.counter_fn(
//!         "sextant_log_lines_dropped_total",
//!         "Log lines dropped because their reader was slow.",
//!         log.lines_dropped_counter(),
//!     );
//!     let registry = Arc::new(families.build(1));
//!     let heartbeats = Heartbeats::new(1);
//!     // Here the cores start, each with its `registry.core(i)` and its `heartbeats.core(i)`.
//!     let wake_all_cores = || {};
//!
//!     let control = runtime::spawn("control", move || async move {
//!         let notifier = Notifier::from_env()?;
//!         let mut signals = Signals::new()?;
//!         let health = Health::default();
//!         let admin = Admin { token, health: health.clone(), metrics: registry };
//!         let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
//!         let shutdown = async {
//!             let _ = stopped.await;
//!         };
//!         let router = admin::router(axum::Router::new(), axum::Router::new(), admin);
//!         let limits = settings.admin.limits();
//!         let server = tokio::spawn(admin::serve(listener, router, limits, shutdown));
//!         health.set_ready(true);
//!         notifier.notify(&[State::Ready])?;
//!         tokio::select! {
//!             () = notify::watch(&notifier, heartbeats, &health, wake_all_cores) => {}
//!             () = async { while signals.next().await != Signal::Shutdown {} } => {}
//!         }
//!         health.set_ready(false);
//!         notifier.notify(&[State::Stopping])?;
//!         // Here the cores drain and stop.
//!         drop(stop);
//!         server.await?
//!     })?;
//!     control.join().map_err(|_| "the control thread panicked")??;
//!     telemetry::flush();
//!     Ok(())
//! }
//! ```
//!
//! - [`config`]: defaults, a TOML file, the environment and flags, merged into one checked type.
//! - [`args`]: the flags that all daemons share.
//! - [`telemetry`] and [`metrics`]: logs by `tracing`, metrics in Prometheus' text format.
//! - [`admin`]: the HTTP server of the control plane, its token and its errors.
//! - [`process`], [`signals`], [`notify`], [`activation`]: the life of a process under systemd.
//! - [`runtime`]: the control thread itself.
//! - [`client`]: the other end of [`admin`], for the command line.

pub mod activation;
pub mod admin;
pub mod args;
pub mod client;
pub mod config;
pub mod metrics;
pub mod notify;
pub mod process;
pub mod runtime;
pub mod signals;
pub mod telemetry;
