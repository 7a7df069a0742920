//! The daemon put together: cores on threads of their own, the control plane on the main one, and
//! the way from start to stop.
//!
//! ```text
//!   main thread: signals, HTTP, watchdog ──commands──► core 0 … core n   (one thread each)
//! ```

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use sextant_cores::driver::{self, Chosen, DriverError};
use sextant_cores::layout;
use sextant_cores::outside::Outside;
use sextant_cores::threads::{self, Thread};
use sextant_ring::core::{Core, Envelope, Limits};
use sextant_ring::driver::Driver;
use sextant_ring::mesh::{Port, Remote, mesh};
use sextant_ring::time::Clock;
use sextant_service::activation::{Activation, listen_soon, tcp_listener};
use sextant_service::admin::{self, Admin, AdminToken, Health};
use sextant_service::config::Loaded;
use sextant_service::metrics::{Builder, Registry};
use sextant_service::notify::{self, Heartbeat, Heartbeats, Notifier, State};
use sextant_service::process::DataDir;
use sextant_service::signals::{Signal, Signals};
use sextant_service::{runtime, telemetry};
use sextant_shard::{Command, Message, Shard};
use tracing::{error, info, warn};

use crate::config::Config;
use crate::instances;
use crate::meters::Levels;

/// How long clients have to go when the daemon stops.
const DRAIN: Duration = Duration::from_secs(5);
/// Messages that may wait for a core.
const MESH_CAPACITY: usize = 1024;
/// How often an instance is asked for its numbers.
const LEVELS_EVERY: Duration = Duration::from_secs(1);
/// Bytes that may wait to be sent on one connection.
const SEND_BYTES_MAX: usize = 4 << 20;
/// Sockets of a core beside clients: listeners, and connections that are closing.
const SPARE_SOCKETS: u32 = 1024;
/// The daemon's name in what it reports.
const NAME: &str = "store";

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// What kept it from starting, or a core that failed.
pub fn run(
    loaded: Loaded<Config>,
    reload: impl Fn() -> Option<Loaded<Config>>,
) -> anyhow::Result<()> {
    let config = &loaded.value;
    let log = telemetry::init(&config.telemetry)?;
    let mut activation = Activation::from_env()?;
    let data = DataDir::open(&config.data)?;
    let token = Arc::new(AdminToken::load_or_create(data.path())?);
    let admin_listener = match activation.take("admin").pop() {
        Some(fd) => tcp_listener(fd)?,
        None => listen_soon(config.admin.listen, "sextant-store")?,
    };
    let cores = layout::lay_out(config.cores, data.path())?;
    let driver = Chosen::choose(config.driver)?;
    let sockets_max = driver.sockets_max(config.limits.connections_max + SPARE_SOCKETS, cores);
    let mut builder = Builder::new(NAME, env!("CARGO_PKG_VERSION"));
    builder.counter_fn(
        "sextant_store_log_lines_dropped_total",
        "Log lines dropped since nobody took them.",
        log.lines_dropped_counter(),
    );
    let levels = Arc::new(Levels::default());
    levels.declare(&mut builder);
    let metrics = Arc::new(builder.build(cores));
    let remotes = (0..cores).map(|_| Remote::host()).collect::<std::io::Result<Vec<_>>>()?;
    let mut ports = mesh(&remotes, 1, MESH_CAPACITY);
    let outside = Outside::new(ports.pop().context("the control plane has its port")?);
    let heartbeats = Heartbeats::new(cores);
    let mut threads = Vec::new();
    for (core, (remote, port)) in remotes.iter().cloned().zip(ports).enumerate() {
        let heartbeat = heartbeats.core(core);
        threads.push(CoreStart { driver, sockets_max, core, remote, port, heartbeat }.spawn()?);
    }
    let mut addresses = Vec::new();
    if config.default.enabled {
        let instance = instances::open_default(&config.default, data.path(), 1, &mut activation)?;
        addresses.extend(instance.listeners.iter().filter_map(|listener| listener.addr()));
        outside.tell_patiently(0, Message::Command(Command::Open(Box::new(instance))));
    }
    for name in activation.left() {
        warn!(name, "a socket that was passed is not used");
    }
    let control = Control {
        config: config.clone(),
        token,
        metrics,
        heartbeats,
        levels,
        remotes,
        outside,
        addresses,
        log,
    };
    let mut outcome = runtime::run(control.serve(admin_listener, &threads, loaded, reload))?;
    if let Err(error) = threads::join(threads) {
        outcome = Err(error);
    }
    info!("stopped");
    telemetry::flush();
    outcome
}

/// What a core's thread starts from.
struct CoreStart {
    driver: Chosen,
    sockets_max: u32,
    core: usize,
    remote: Remote,
    port: Port<Envelope<Message>>,
    heartbeat: Heartbeat,
}

impl CoreStart {
    fn spawn(self) -> anyhow::Result<Thread> {
        threads::spawn(self.core, move |starting| match self.driver {
            Chosen::IoUring => starting.run(self.start(driver::io_uring)),
            Chosen::Epoll => starting.run(self.start(driver::epoll)),
        })
    }

    fn start<D: Driver>(
        self,
        make: fn(u32, Remote) -> Result<D, DriverError>,
    ) -> anyhow::Result<Core<D, Shard>> {
        let CoreStart { sockets_max, core, remote, port, heartbeat, .. } = self;
        let driver = make(sockets_max, remote)?;
        let connections_max = driver.caps().sockets_max;
        if connections_max < sockets_max {
            warn!(core, connections_max, "fewer connections than configured: raise LimitNOFILE");
        }
        if core == 0 {
            info!(caps = %driver.caps(), "driver");
        }
        let limits =
            Limits { connections_max, send_bytes_max: SEND_BYTES_MAX, ..Limits::default() };
        let shard = Shard::new(Box::new(move || heartbeat.beat()));
        Ok(Core::new(driver, shard, port, Vec::new(), limits, Clock::read()))
    }
}

/// The control plane.
struct Control {
    config: Config,
    token: Arc<AdminToken>,
    metrics: Arc<Registry>,
    heartbeats: Heartbeats,
    levels: Arc<Levels>,
    remotes: Vec<Remote>,
    outside: Outside<Message>,
    addresses: Vec<SocketAddr>,
    log: telemetry::Log,
}

impl Control {
    async fn serve(
        self,
        listener: TcpListener,
        threads: &[Thread],
        loaded: Loaded<Config>,
        reload: impl Fn() -> Option<Loaded<Config>>,
    ) -> anyhow::Result<()> {
        let mut signals = Signals::new()?;
        let notifier = Notifier::from_env()?;
        let health = Health::default();
        let admin_addr = listener.local_addr()?;
        let admin = Admin {
            token: Arc::clone(&self.token),
            health: health.clone(),
            metrics: Arc::clone(&self.metrics),
        };
        let router = admin::router(axum::Router::new(), axum::Router::new(), admin);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let limits = self.config.admin.limits();
        let server = tokio::spawn(admin::serve(listener, router, limits, async {
            // Dropped is as good as told.
            let _ = stopped.await;
        }));
        let opened = self.ask_when_open();
        threads::until(|| opened.load(Ordering::Acquire), threads).await?;
        health.set_ready(true);
        for addr in &self.addresses {
            info!(%addr, "RESP");
        }
        info!(addr = %admin_addr, cores = self.outside.cores(), "admin and API: ready");
        let status = format!("{} cores, RESP on {:?}", self.outside.cores(), self.addresses);
        notifier.notify(&[State::Ready, State::Status(status)])?;
        let outcome = tokio::select! {
            outcome = self.answer_signals(&mut signals, &notifier, loaded, reload) => outcome,
            outcome = threads::watch(threads) => outcome,
            () = self.note_levels() => Ok(()),
            () = threads::give_memory_back() => Ok(()),
            () = notify::watch(&notifier, self.heartbeats.clone(), &health, || self.poke()) => {
                Ok(())
            }
        };
        info!("stopping");
        health.set_ready(false);
        // The manager may be gone; it is told what can be told.
        let _ = notifier.notify(&[State::Stopping]);
        for core in 0..self.outside.cores() {
            let deadline = Clock::read().now + DRAIN;
            self.outside.tell_patiently(core, Message::Command(Command::Stop { deadline }));
        }
        drop(stop);
        server.await??;
        outcome
    }

    /// Becomes true once the core of the default instance has opened it.
    fn ask_when_open(&self) -> Arc<AtomicBool> {
        let opened = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&opened);
        let act = Box::new(move |_: Option<&mut sextant_shard::Instance>| {
            told.store(true, Ordering::Release);
        });
        let command = Command::With { id: instances::DEFAULT, act };
        self.outside.tell_patiently(0, Message::Command(command));
        opened
    }

    /// Never ends.
    async fn note_levels(&self) {
        loop {
            tokio::time::sleep(LEVELS_EVERY).await;
            let levels = Arc::clone(&self.levels);
            let act = Box::new(move |instance: Option<&mut sextant_shard::Instance>| {
                instance.into_iter().for_each(|instance| levels.note(instance));
            });
            let command = Command::With { id: instances::DEFAULT, act };
            // A core that is too busy is asked the next time.
            let _ = self.outside.tell(0, Message::Command(command));
        }
    }

    fn poke(&self) {
        self.remotes.iter().for_each(Remote::notify);
    }

    async fn answer_signals(
        &self,
        signals: &mut Signals,
        notifier: &Notifier,
        mut loaded: Loaded<Config>,
        reload: impl Fn() -> Option<Loaded<Config>>,
    ) -> anyhow::Result<()> {
        loop {
            match signals.next().await {
                Signal::Reload => {
                    notifier.notify(&[State::Reloading])?;
                    match reload() {
                        Some(newer) => {
                            self.take_config(&loaded, &newer);
                            loaded = newer;
                        }
                        None => error!("the configuration is faulty: the old one stays in force"),
                    }
                    notifier.notify(&[State::Ready])?;
                }
                _ => return Ok(()),
            }
        }
    }

    /// Takes over what can change while the daemon runs, and says what cannot.
    fn take_config(&self, loaded: &Loaded<Config>, newer: &Loaded<Config>) {
        for key in loaded.changed_keys(newer) {
            match key == "telemetry.level" {
                true => info!(key, "changed"),
                false => warn!(key, "this change takes effect at the next start"),
            }
        }
        if let Err(error) = self.log.set_level(&newer.value.telemetry.level) {
            error!(%error, "the log level stays as it was");
        }
    }
}
