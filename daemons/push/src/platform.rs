//! The sender platform ([`sextant_platform`]) joined to the cores: what each says in the words of
//! the other, and the way between their threads.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::Context;
use sextant_platform::Refusal;
use sextant_platform::engine::{Engine, Generations};
use sextant_platform::ledger::{self, Gauges, Handle};
use sextant_platform::told::{self, Cores, Moved, Order};
use sextant_policy::decide::Draft;
use sextant_ring::core::Envelope;
use sextant_ring::mesh::Port;
use sextant_ring::time::Clock;
use sextant_service::metrics::Builder;
use tokio::sync::oneshot;
use tracing::info;

use crate::auth::token;
use crate::broker::Message;
use crate::config;
use crate::control::Command;
use crate::control::platform::{
    Devices, Dispatch, Known, Platform, ReceiptTopic, Settled, Told, Withdraw,
};

/// The platform's files, in the data directory.
const DIR: &str = "platform";

/// The platform, while it runs.
pub struct Running {
    /// The way to it.
    pub handle: Handle,
    thread: JoinHandle<Result<(), Refusal>>,
}

impl Running {
    /// Opens the platform in the data directory, and gives it a thread that reaches the cores by
    /// `port`.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn start(
        settings: &config::Platform,
        data: &Path,
        port: Port<Envelope<Message>>,
        cores: usize,
        gauges: Arc<Gauges>,
    ) -> anyhow::Result<Running> {
        let draft = Draft::new(settings.policy.clone()).context("platform.policy")?;
        let options = settings.options(data.join(DIR));
        let now = Clock::read().unix_ms;
        let (engine, opened) = Engine::open(options, draft, now)
            .with_context(|| format!("cannot open {}", data.join(DIR).display()))?;
        info!(
            devices = opened.devices,
            open = opened.open,
            facts = opened.scanned,
            "the platform is open"
        );
        let waiting = (0..cores).map(|_| VecDeque::new()).collect();
        let orders = Orders { port, waiting };
        let (handle, thread) = ledger::spawn(engine, orders, gauges, || Clock::read().unix_ms)?;
        Ok(Running { handle, thread })
    }

    /// Ends it, once the cores have told all that they had to.
    ///
    /// # Errors
    /// Its disk refused.
    pub fn stop(self) -> anyhow::Result<()> {
        self.handle.stop();
        match self.thread.join() {
            Ok(ended) => ended.context("the platform"),
            // A panic has ended the process before.
            Err(_) => anyhow::bail!("the platform ended in a panic"),
        }
    }
}

/// Declares how the platform stands to `/metrics`.
pub fn declare(gauges: &Arc<Gauges>, builder: &mut Builder) {
    for (at, (name, help, grows)) in Gauges::ALL.into_iter().enumerate() {
        let gauges = Arc::clone(gauges);
        let read = move || gauges.read(at) as f64;
        match grows {
            true => builder.counter_fn(&format!("sextant_push_platform_{name}_total"), help, read),
            false => builder.gauge_fn(&format!("sextant_push_platform_{name}"), help, read),
        }
    }
}

/// The platform's way to the cores. What finds a core's queue full waits here.
struct Orders {
    port: Port<Envelope<Message>>,
    waiting: Vec<VecDeque<Command>>,
}

impl Cores for Orders {
    fn order(&mut self, core: u16, order: Order) {
        let Some(waiting) = self.waiting.get_mut(usize::from(core)) else { return };
        waiting.push_back(command(order));
    }

    fn flush(&mut self) -> bool {
        let mut all = true;
        for (core, waiting) in self.waiting.iter_mut().enumerate() {
            while !self.port.is_full(core)
                && let Some(command) = waiting.pop_front()
            {
                self.port.send(core, Envelope::Message(Message::Command(command)));
            }
            all &= waiting.is_empty();
        }
        self.port.flush();
        all
    }
}

fn command(order: Order) -> Command {
    match order {
        Order::Known { client_id, session, device, app } => {
            Command::Known(Known { client_id, session, device, app })
        }
        Order::Dispatch(dispatch) => {
            let told::Dispatch { message, app, expires_at, payload, devices } = &*dispatch;
            let devices = match devices {
                told::Devices::One(device) => Devices::One(*device),
                told::Devices::Many(devices) => Devices::Many(Arc::clone(devices)),
            };
            let (message, app, expires_at) = (*message, *app, *expires_at);
            let payload = payload.clone();
            Command::Dispatch(Arc::new(Dispatch { message, expires_at, payload, devices, app }))
        }
        Order::Withdraw { message, devices } => {
            Command::Withdraw(Withdraw { message, devices: Some(devices) })
        }
        Order::Settled { ticket, refused } => Command::Settled(Settled { ticket, refused }),
        Order::Kick { client_id } => {
            // Nobody waits for it.
            let (reply, _) = oneshot::channel();
            Command::Kick { client_id: client_id.into(), session: false, reply }
        }
    }
}

/// The platform as the cores know it.
#[derive(Debug)]
pub struct Ears(pub Handle);

impl Platform for Ears {
    fn tell(&self, core: u16, told: Vec<Told>) {
        self.0.tell(core, told.into_iter().map(heard).collect());
    }

    fn is_behind(&self) -> bool {
        self.0.is_behind()
    }
}

fn heard(told: Told) -> told::Told {
    let moved = |message, device, at, what| told::Told::Moved { message, device, at, what };
    match told {
        Told::Arrived { client_id, session } => told::Told::Arrived { client_id, session },
        Told::Left { device, session } => told::Told::Left { device, session },
        Told::LeftUnknown { client_id, session } => told::Told::LeftUnknown { client_id, session },
        Told::Sent { message, device, at, last, .. } => {
            let what = if last { Moved::SentAtMostOnce } else { Moved::Sent };
            moved(message, device, at, what)
        }
        Told::Acknowledged { message, device, at, .. } => {
            moved(message, device, at, Moved::Acknowledged)
        }
        Told::Returned { message, device, at, .. } => moved(message, device, at, Moved::Returned),
        Told::Dropped { message, device, at, .. } => moved(message, device, at, Moved::Refused),
        Told::Receipts { client_id, topic, payload, ticket } => {
            let topic = match topic {
                ReceiptTopic::Receipts => told::Topic::Receipts,
                ReceiptTopic::Topics => told::Topic::Topics,
            };
            told::Told::Published { client_id, topic, payload, ticket }
        }
    }
}

/// The generations of devices' tokens, as whoever checks these asks for them.
#[derive(Debug)]
pub struct Tokens(pub Generations);

impl token::Generations for Tokens {
    fn current(&self, device: &str) -> Option<u32> {
        Some(self.0.least(device))
    }
}
