//! The daemon put together: cores on threads of their own, the control plane on the main one, and
//! the way from start to stop.
//!
//! ```text
//!   main thread: signals, HTTP, watchdog ──commands──► core 0 … core n   (one thread each)
//!   threads for passwords, signatures, ─────verdicts──►
//!   and an HTTP hook that is asked
//! ```

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, bail};
use sextant_cores::driver::{self, Chosen, DriverError};
use sextant_cores::layout;
use sextant_cores::outside::{Busy, Outside};
use sextant_cores::threads::{self, Thread};
use sextant_mqtt::SessionLimits;
use sextant_platform::ledger::{Gauges, Handle};
use sextant_policy::Policy;
use sextant_policy::decide::Draft;
use sextant_ring::core::{Core, Envelope, Limits};
use sextant_ring::disk::{Disk, HostDisk};
use sextant_ring::driver::{Driver, Listener};
use sextant_ring::mesh::{Port, Remote, mesh};
use sextant_ring::time::Clock;
use sextant_service::activation::{Activation, listen_soon, tcp_listener};
use sextant_service::admin::{self, Admin, AdminToken, Health};
use sextant_service::config::Loaded;
use sextant_service::metrics::Builder;
use sextant_service::notify::{self, Heartbeats, Notifier, State};
use sextant_service::process::DataDir;
use sextant_service::signals::{Signal, Signals};
use sextant_service::{runtime, telemetry};
use tracing::{error, info, warn};

use crate::api::{self, Cores, Kept, Unavailable};
use crate::auth::hasher::{Deliver, Hasher};
use crate::auth::http::Counts;
use crate::auth::token::TokenKey;
use crate::auth::{Authenticator, Elsewhere};
use crate::bans::Keeper;
use crate::broker::{Broker, Message, Parts, Settings, Shared, Transports, restore};
use crate::config::{self, Config, is_loopback};
use crate::control::{self, Command};
use crate::meters::Names;
use crate::platform::{self, Ears, Running, Tokens};
use crate::presence::{self, Audience};
use crate::sys;
use crate::tls::{Certificate, Endpoint};
use crate::webhook::{self, Webhook};

/// How long clients have to go when the daemon stops.
const DRAIN: Duration = Duration::from_secs(5);
/// Passwords that may wait to be checked.
const HASHES_MAX: usize = 256;
/// The daemon's name, version and port in what it logs and reports.
const NAME: &str = "push";
/// Who has an address that is in use, most likely.
const DAEMON: &str = "sextant-push";

/// The control plane's way to the cores.
struct Commands(Outside<Message>);

impl Cores for Commands {
    fn cores(&self) -> usize {
        self.0.cores()
    }

    fn send(&self, core: usize, command: Command) -> Result<(), Unavailable> {
        self.0.tell(core, Message::Command(command)).map_err(|Busy| Unavailable)
    }
}

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
    let token_key = TokenKey::load_or_create(data.path())?;
    let (keeper, bans) = Keeper::open(data.path())?;
    let bans = Arc::new(bans);
    let admin_listener = admin_listener(config, &mut activation)?;
    let listeners = mqtt_listeners(config, &mut activation)?;
    for name in activation.left() {
        warn!(name, "a socket that was passed is not used");
    }
    let cores = layout::lay_out(config.cores, data.path())?;
    let driver = Chosen::choose(config.driver)?;
    let sockets_max = driver.sockets_max(config.mqtt.connections_max, cores);
    let mut builder = Builder::new(NAME, env!("CARGO_PKG_VERSION"));
    let names = Names::declare(&mut builder);
    builder.counter_fn(
        "sextant_push_log_lines_dropped_total",
        "Log lines dropped since nobody took them.",
        log.lines_dropped_counter(),
    );
    let certificate = Certificate::default();
    let expiry = certificate.clone();
    builder.gauge_fn(
        "sextant_push_tls_certificate_expires_seconds",
        "When the certificate that ends first ends, in seconds since 1970; 0 without one.",
        move || expiry.expires_at() as f64,
    );
    let counts = Arc::new(Counts::default());
    counts.declare(&mut builder);
    let gauges = Arc::new(Gauges::default());
    if config.platform.enabled {
        platform::declare(&gauges, &mut builder);
    }
    let (audience, webhook) = audience(&config.presence, &mut builder)?;
    let metrics = Arc::new(builder.build(cores));

    let remotes = (0..cores).map(|_| Remote::host()).collect::<std::io::Result<Vec<_>>>()?;
    let mut ports = mesh(&remotes, 3, config.mqtt.mesh_capacity as usize);
    let orders = ports.pop().context("the platform has its port")?;
    let deliver = verdicts(ports.pop().context("the checks have their port")?);
    let commands = ports.pop().context("the control plane has its port")?;
    let running = match config.platform.enabled {
        true => Some(Running::start(&config.platform, data.path(), orders, cores, gauges)?),
        false => None,
    };
    let ears = running.as_ref().map(|platform| Ears(platform.handle.clone()));
    let ears = ears.map(|ears| Arc::new(ears) as Arc<dyn control::platform::Platform>);
    let hasher = Hasher::spawn(HASHES_MAX, Arc::clone(&deliver))?;
    let generations = running.as_ref().map(|platform| {
        let tokens = Tokens(platform.handle.generations().clone());
        Arc::new(tokens) as Arc<dyn crate::auth::token::Generations>
    });
    let elsewhere = Elsewhere { deliver, counts, generations };
    let heartbeats = Heartbeats::new(cores);
    let shared = Arc::new(Shared::default());
    let endpoint = Endpoint::load(&config.tls).context("cannot serve TLS")?.map(Arc::new);
    if let Some(endpoint) = &endpoint {
        certificate.note(endpoint);
    } else if listeners.secure_from < listeners.proxied_from {
        bail!(
            "a listener is for TLS, and there is no certificate: set tls.certificate and tls.key"
        );
    }
    let auth = Arc::new(Authenticator::load(&config.auth, token_key.clone(), &elsewhere)?);
    let addresses: Vec<_> = listeners.all.iter().filter_map(|listener| listener.addr()).collect();
    let mut threads = Vec::new();
    for (core, (remote, port)) in remotes.iter().cloned().zip(ports).enumerate() {
        let parts = Parts {
            auth: Arc::clone(&auth),
            bans: Arc::clone(&bans),
            endpoint: endpoint.clone(),
            hasher: hasher.clone(),
            presence: audience.clone(),
            platform: ears.clone(),
            heartbeat: heartbeats.core(core),
            shared: Arc::clone(&shared),
            names,
            metrics: metrics.core(core),
        };
        let start = CoreStart {
            config: config.clone(),
            driver,
            sockets_max,
            cores,
            core,
            remote,
            port,
            listeners: listeners.clone(),
            dir: data.path().join(core_dir(core)),
        };
        threads.push(start.spawn(parts)?);
    }
    // A webhook ends when the cores, and nobody else, can tell of anything more.
    drop((listeners, audience, ears));
    let commands = Arc::new(Commands(Outside::new(commands)));
    let control = Control {
        config: config.clone(),
        driver,
        token,
        token_key,
        elsewhere,
        metrics,
        heartbeats,
        shared,
        remotes,
        commands,
        addresses,
        certificate,
        webhook,
        log,
    };
    let kept = Kept::new(keeper, bans);
    let sending = running.as_ref().map(|platform| platform.handle.clone());
    let outcome =
        runtime::run(control.serve(admin_listener, kept, sending, &threads, loaded, reload))?;
    let outcome = outcome.and(threads::join(threads));
    let outcome = outcome.and(running.map_or(Ok(()), Running::stop));
    info!("stopped");
    telemetry::flush();
    outcome
}

fn admin_listener(config: &Config, activation: &mut Activation) -> anyhow::Result<TcpListener> {
    match activation.take("admin").pop() {
        Some(fd) => Ok(tcp_listener(fd)?),
        None => Ok(listen_soon(config.admin.listen, DAEMON)?),
    }
}

/// Where clients connect to: then those for TLS alone, and those behind a proxy last.
#[derive(Clone)]
struct Listeners {
    all: Vec<Arc<Listener>>,
    secure_from: usize,
    proxied_from: usize,
}

fn mqtt_listeners(config: &Config, activation: &mut Activation) -> anyhow::Result<Listeners> {
    let mut all = listeners_of(config, activation, "mqtt", &config.mqtt.listen)?;
    let secure_from = all.len();
    all.extend(listeners_of(config, activation, "mqtt-tls", &config.mqtt.tls_listen)?);
    let proxied_from = all.len();
    all.extend(listeners_of(config, activation, "mqtt-proxy", &config.mqtt.proxy_listen)?);
    Ok(Listeners { all, secure_from, proxied_from })
}

/// The listeners that were passed under a name; without one, those on some addresses.
fn listeners_of(
    config: &Config,
    activation: &mut Activation,
    name: &str,
    addresses: &[SocketAddr],
) -> anyhow::Result<Vec<Arc<Listener>>> {
    let passed = activation.take(name);
    let listeners: Vec<TcpListener> = if passed.is_empty() {
        addresses.iter().map(|addr| listen_soon(*addr, DAEMON)).collect::<Result<_, _>>()?
    } else {
        passed.into_iter().map(tcp_listener).collect::<Result<_, _>>()?
    };
    let mut checked = Vec::new();
    for listener in listeners {
        let addr = listener.local_addr()?;
        if config.auth.allows_anonymous() && !is_loopback(&addr) {
            bail!(
                "{addr} is not a loopback address, and any client may do anything: configure \
                 [[auth.users]], or set auth.anonymous = false"
            );
        }
        // Accepted connections inherit it: small packets do not wait for company.
        socket2::SockRef::from(&listener).set_tcp_nodelay(true)?;
        checked.push(Arc::new(Listener::new(listener)?));
    }
    Ok(checked)
}

/// Who is told of clients that come and go.
fn audience(
    presence: &config::Presence,
    builder: &mut Builder,
) -> anyhow::Result<(Audience, Option<Webhook>)> {
    let topic = presence.topic;
    if !presence.webhook.is_configured() {
        return Ok((Audience { topic, outlet: None }, None));
    }
    let counts = Arc::new(webhook::Counts::default());
    counts.declare(builder);
    let (outlet, inlet) = presence::outlet();
    let webhook = Webhook::new(&presence.webhook, inlet, counts)?;
    Ok((Audience { topic, outlet: Some(outlet) }, Some(webhook)))
}

fn core_dir(core: usize) -> String {
    format!("log/core-{core}")
}

/// Brings what came of a check to the core that asked.
fn verdicts(port: Port<Envelope<Message>>) -> Deliver {
    let outside = Outside::new(port);
    Arc::new(move |core, conn, result| {
        let command = Command::Verified { conn, result };
        outside.tell_patiently(core, Message::Command(command));
    })
}

/// What a core's thread starts from.
struct CoreStart {
    config: Config,
    driver: Chosen,
    sockets_max: u32,
    cores: usize,
    core: usize,
    remote: Remote,
    port: Port<Envelope<Message>>,
    listeners: Listeners,
    dir: std::path::PathBuf,
}

impl CoreStart {
    /// Starts the thread; it has opened its log and has its driver when this returns.
    fn spawn(self, parts: Parts) -> anyhow::Result<Thread> {
        threads::spawn(self.core, move |starting| match self.driver {
            Chosen::IoUring => starting.run(self.start(parts, driver::io_uring)),
            Chosen::Epoll => starting.run(self.start(parts, driver::epoll)),
        })
    }

    fn start<D: Driver>(
        self,
        parts: Parts,
        make: fn(u32, Remote) -> Result<D, DriverError>,
    ) -> anyhow::Result<Core<D, Broker>> {
        let CoreStart { config, sockets_max, cores, core, remote, port, dir, .. } = self;
        let Listeners { all: listeners, secure_from, proxied_from } = self.listeners;
        let mut id = [0u8; 8];
        getrandom::fill(&mut id)?;
        let options = config.log_options(cores, u64::from_ne_bytes(id), core as u16 + 1);
        let log_bytes_max = options.bytes_max;
        HostDisk
            .create_dir_all(&dir)
            .with_context(|| format!("cannot make the directory {}", dir.display()))?;
        let restored = restore(&HostDisk, &dir, options)
            .with_context(|| format!("cannot open the log in {}", dir.display()))?;
        let transports = Transports {
            websocket: config.mqtt.websocket,
            websocket_origins: config.mqtt.websocket_origins.clone(),
            secure_from,
            proxied_from,
        };
        let settings = settings(&config, cores, log_bytes_max, transports);
        let driver = make(sockets_max, remote)?;
        let connections_max = driver.caps().sockets_max;
        if connections_max < sockets_max {
            warn!(core, connections_max, "fewer connections than configured: raise LimitNOFILE");
        }
        if core == 0 {
            info!(caps = %driver.caps(), "driver");
        }
        let limits = Limits {
            connections_max,
            timers_max: 1 << 22,
            send_bytes_max: settings.send_queue_bytes_max
                + 2 * config.mqtt.packet_bytes_max.as_usize()
                + 64 * 1024,
            ..Limits::default()
        };
        let broker = Broker::new(settings, parts, restored, cores);
        Ok(Core::new(driver, broker, port, listeners, limits, Clock::read()))
    }
}

fn settings(config: &Config, cores: usize, log_bytes_max: u64, transports: Transports) -> Settings {
    let mqtt = &config.mqtt;
    Settings {
        server: config.server_limits(),
        session: SessionLimits {
            inflight_max: mqtt.inflight_max,
            received_max: mqtt.receive_max.saturating_mul(2),
        },
        connections_max: mqtt.connections_max as usize,
        queue_messages_max: mqtt.queue_messages_max as usize,
        queue_bytes_max: mqtt.queue_bytes_max.as_usize(),
        send_queue_bytes_max: mqtt.send_queue_bytes_max.as_usize(),
        send_queue_messages_max: mqtt.send_queue_messages_max as usize,
        retained_bytes_max: mqtt.retained_bytes_max.as_usize() / cores,
        device_waiting_max: mqtt.device_waiting_max as usize,
        receipts_max: (mqtt.receipts_max as usize).div_ceil(cores),
        slow_client_timeout: mqtt.slow_client_timeout.get(),
        will_grace: mqtt.will_grace.get(),
        log_bytes_max,
        transports,
        suback_reasons: mqtt.suback_reasons,
        limits: config.limits.clone(),
    }
}

/// The control plane.
struct Control {
    config: Config,
    driver: Chosen,
    token: Arc<AdminToken>,
    token_key: TokenKey,
    elsewhere: Elsewhere,
    metrics: Arc<sextant_service::metrics::Registry>,
    heartbeats: Heartbeats,
    shared: Arc<Shared>,
    remotes: Vec<Remote>,
    commands: Arc<Commands>,
    addresses: Vec<SocketAddr>,
    certificate: Certificate,
    webhook: Option<Webhook>,
    log: telemetry::Log,
}

impl Control {
    async fn serve(
        mut self,
        listener: TcpListener,
        bans: Kept,
        sending: Option<Handle>,
        threads: &[Thread],
        loaded: Loaded<Config>,
        reload: impl Fn() -> Option<Loaded<Config>>,
    ) -> anyhow::Result<()> {
        let mut signals = Signals::new()?;
        let notifier = Notifier::from_env()?;
        let health = Health::default();
        let admin_addr = listener.local_addr()?;
        let router = self.router(&health, bans, sending.clone());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let limits =
            admin::Limits { streams: api::platform::STREAMS, ..self.config.admin.limits() };
        let server = tokio::spawn(admin::serve(listener, router, limits, async {
            // Dropped is as good as told.
            let _ = stopped.await;
        }));
        let webhook = self.webhook.take().map(|webhook| {
            let (stop, stopped) = tokio::sync::oneshot::channel();
            (stop, tokio::spawn(webhook.run(stopped)))
        });
        let attempts = self.config.platform.webhook_attempts;
        let hooks = sending.clone().map(|handle| {
            let (stop, stopped) = tokio::sync::oneshot::channel();
            (stop, tokio::spawn(crate::hooks::run(handle, attempts, stopped)))
        });
        let ready = || self.shared.ready.load(Ordering::Acquire) == self.commands.cores();
        threads::until(ready, threads).await?;
        health.set_ready(true);
        for addr in &self.addresses {
            info!(%addr, "MQTT");
        }
        info!(addr = %admin_addr, cores = self.commands.cores(), "admin and API: ready");
        let status = format!("{} cores, MQTT on {:?}", self.commands.cores(), self.addresses);
        notifier.notify(&[State::Ready, State::Status(status)])?;
        let outcome = tokio::select! {
            outcome = self.answer_signals(&mut signals, &notifier, sending.as_ref(), loaded, reload) => outcome,
            outcome = threads::watch(threads) => outcome,
            () = self.tell_levels() => Ok(()),
            () = threads::give_memory_back() => Ok(()),
            () = self.certificate.watch(|| Clock::read().unix_ms / 1000) => Ok(()),
            () = notify::watch(&notifier, self.heartbeats.clone(), &health, || self.poke()) => {
                Ok(())
            }
        };
        info!("stopping");
        health.set_ready(false);
        // The manager may be gone; it is told what can be told.
        let _ = notifier.notify(&[State::Stopping]);
        self.stop_cores().await;
        drop(stop);
        server.await??;
        if let Some((stop, running)) = hooks {
            drop(stop);
            running.await?;
        }
        if let Some((stop, running)) = webhook {
            drop(stop);
            running.await?;
        }
        outcome
    }

    fn router(&self, health: &Health, bans: Kept, sending: Option<Handle>) -> axum::Router {
        let cores: Arc<dyn Cores> = Arc::<Commands>::clone(&self.commands);
        let settings = api::Settings {
            packet_bytes_max: self.config.mqtt.packet_bytes_max.get(),
            durability: self.config.log.durability,
            driver: self.driver.name(),
            traces_max: usize::from(self.config.limits.traces_max),
            clock: || Clock::read().unix_ms,
        };
        let admin = Admin {
            token: Arc::clone(&self.token),
            health: health.clone(),
            metrics: Arc::clone(&self.metrics),
        };
        let open = sending.map_or_else(axum::Router::new, |handle| {
            api::platform::router(api::platform::Platform {
                handle,
                token: Arc::clone(&self.token),
                token_key: self.token_key.clone(),
                clock: || Clock::read().unix_ms,
            })
        });
        admin::router(api::router(cores, self.token_key.clone(), settings, bans), open, admin)
    }

    /// Never ends.
    async fn tell_levels(&self) {
        match self.config.mqtt.sys_interval.get() {
            Duration::ZERO => std::future::pending().await,
            every => sys::tell(&*self.commands, every).await,
        }
    }

    fn poke(&self) {
        self.remotes.iter().for_each(Remote::notify);
    }

    async fn answer_signals(
        &self,
        signals: &mut Signals,
        notifier: &Notifier,
        sending: Option<&Handle>,
        mut loaded: Loaded<Config>,
        reload: impl Fn() -> Option<Loaded<Config>>,
    ) -> anyhow::Result<()> {
        loop {
            match signals.next().await {
                Signal::Reload => {
                    notifier.notify(&[State::Reloading])?;
                    match reload() {
                        Some(newer) => {
                            self.take_config(sending, &loaded, &newer);
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
    fn take_config(
        &self,
        sending: Option<&Handle>,
        loaded: &Loaded<Config>,
        newer: &Loaded<Config>,
    ) {
        for key in loaded.changed_keys(newer) {
            let at_once = ["auth", "tls", "platform.policy"];
            let at_once = at_once.iter().any(|part| key.starts_with(part));
            if at_once || key == "telemetry.level" {
                info!(key, "changed");
            } else {
                warn!(key, "this change takes effect at the next start");
            }
        }
        if let Err(error) = self.log.set_level(&newer.value.telemetry.level) {
            error!(%error, "the log level stays as it was");
        }
        self.take_endpoint(&newer.value.tls);
        if let Some(sending) = sending.filter(|_| loaded.value.platform != newer.value.platform) {
            take_policy(sending.clone(), &newer.value.platform.policy);
        }
        let anonymous = newer.value.auth.allows_anonymous();
        if anonymous && self.addresses.iter().any(|addr| !is_loopback(addr)) {
            error!("anonymous clients are not allowed here: users and rules stay as they were");
            return;
        }
        let key = self.token_key.clone();
        let auth = match Authenticator::load(&newer.value.auth, key, &self.elsewhere) {
            Ok(auth) => Arc::new(auth),
            Err(error) => {
                error!(%error, "users, rules and keys stay as they were");
                return;
            }
        };
        self.tell_cores("users and rules", || Command::Authenticate(Arc::clone(&auth)));
    }

    /// Reads certificate and key anew. Connections keep the ones that they began with.
    fn take_endpoint(&self, tls: &config::Tls) {
        match Endpoint::load(tls) {
            Ok(Some(endpoint)) => {
                let endpoint = Arc::new(endpoint);
                self.certificate.note(&endpoint);
                self.certificate.tell(Clock::read().unix_ms / 1000);
                self.tell_cores("certificate", || Command::Secure(Arc::clone(&endpoint)));
            }
            Ok(None) if self.certificate.is_there() => {
                warn!("the certificate stays in service: TLS ends at the next start");
            }
            Ok(None) => {}
            Err(error) => error!(%error, "the certificate stays as it was"),
        }
    }

    fn tell_cores(&self, what: &str, command: impl Fn() -> Command) {
        for core in 0..self.commands.cores() {
            if self.commands.send(core, command()).is_err() {
                error!(core, what, "the core is too busy for what is new: reload again");
            }
        }
    }

    async fn stop_cores(&self) {
        for core in 0..self.commands.cores() {
            for _ in 0..1000 {
                let deadline = Clock::read().now + DRAIN;
                if self.commands.send(core, Command::Stop { deadline }).is_ok() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

/// Makes other rules of sending hold: they were checked when they were read.
fn take_policy(sending: Handle, policy: &Policy) {
    let draft = match Draft::new(policy.clone()) {
        Ok(draft) => draft,
        Err(error) => return error!(%error, "the rules of sending stay as they were"),
    };
    tokio::spawn(async move {
        let taken = sending.change(move |engine, now| engine.set_rules(draft, now)).await;
        match taken {
            Ok(()) => info!("the rules of sending have changed"),
            Err(error) => error!(%error, "the rules of sending stay as they were"),
        }
    });
}
