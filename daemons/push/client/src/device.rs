//! The device: it gets messages, shows each once, and says what became of them.
//!
//! ```text
//!   caller ──► Outgoing ──► receipts, topics ──┐ bounded, kept until acknowledged
//!                 │ wakes                      ▼
//!              one thread:  connect ─► subscribe ─► live ──┐
//!                 │            ▲                           │ cut off
//!                 │            └── back-off, full jitter ◄─┘
//!                 ▼
//!              Handler::message, Handler::recall ─► acknowledged when they return
//! ```
//!
//! Connections are MQTT 5 over TCP with a session that the broker keeps. There is no TLS in here: a
//! device of an open network wants a tunnel, or a client of its platform. A message may come twice,
//! by the broker's promise of at least once; [`Seen`] tells.

mod outbox;
mod protocol;
mod run;
mod seen;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};
use uuid::Uuid;

pub use outbox::{Full, Receipt, What};
pub use seen::{Kind, Seen, SeenIds};

use crate::types::Notification;
use outbox::Outbox;
use run::{Waker, Worker};

/// How long receipts may still be acknowledged when the device stops.
pub(crate) const STOP_TIME_MAX: Duration = Duration::from_secs(2);
/// The longest id of a device, bytes: its topics are a little longer, and a topic has 65,535.
const DEVICE_BYTES_MAX: usize = 65_000;

/// A message that came.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Message {
    /// What it is called in receipts.
    pub id: Uuid,
    /// When it was sent.
    pub sent_at: Option<Timestamp>,
    /// What to show.
    pub notification: Option<Notification>,
    /// What the app is given.
    pub data: Option<Map<String, Value>>,
}

/// What else a device may want to know.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// It is connected, and gets messages from now on.
    Connected,
    /// It is not, or could not be, connected, and tries again after a wait.
    Disconnected {
        /// Why.
        why: &'a str,
        /// How long it waits.
        wait: Duration,
    },
    /// Something came that is no message of the platform.
    Ignored {
        /// Why.
        why: &'a str,
    },
    /// The broker refused receipts or topics for good; they are gone.
    Refused {
        /// Why.
        why: &'a str,
    },
}

/// What a device does with what comes. All of it is called in the device's thread; what takes as
/// long as half a keep-alive delays the connection's own life.
pub trait Handler: Send {
    /// A message came, for the first time. It is acknowledged when this returns.
    fn message(&mut self, message: Message, outgoing: &Outgoing);

    /// A message was taken back: it is shown no longer. It may be one that never came.
    fn recall(&mut self, id: Uuid, outgoing: &Outgoing);

    /// Something else happened.
    fn event(&mut self, event: &Event<'_>) {
        let _ = event;
    }
}

/// How a device connects.
pub struct Options {
    /// Where the broker listens, `host:port`.
    pub address: String,
    /// The device's id.
    pub device: String,
    /// Its token, from [`Sender::token`](crate::Sender::token).
    pub token: String,
    /// How often it says that it is there, at least a second.
    pub keep_alive: Duration,
    /// The longest wait before the first attempt to connect again; it doubles with each.
    pub first_wait_max: Duration,
    /// The longest wait before any attempt.
    pub wait_max: Duration,
    /// How long the broker is asked to keep the session when the device is gone.
    pub session_expiry: Duration,
    /// How many receipts wait for the broker at most.
    pub receipts_max: usize,
    /// How a message is known that came before.
    pub seen: Box<dyn Seen>,
}

impl Options {
    /// A device with a keep-alive of a minute, waits of 1 s to 2 min, a session of a week, room for
    /// 10,000 receipts, and a memory of 10,000 messages that ends with the process.
    pub fn new(address: &str, device: &str, token: &str) -> Options {
        Options {
            address: address.to_owned(),
            device: device.to_owned(),
            token: token.to_owned(),
            keep_alive: Duration::from_secs(60),
            first_wait_max: Duration::from_secs(1),
            wait_max: Duration::from_secs(120),
            session_expiry: Duration::from_secs(7 * 86_400),
            receipts_max: 10_000,
            seen: Box::new(SeenIds::new(10_000)),
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("address", &self.address)
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

/// Why there is no device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Its id cannot be part of a topic.
    #[error("the id of a device is empty, too long, or holds one of + # NUL")]
    Device,
    /// The system has no thread or no file for it.
    #[error("the device's thread cannot be started: {0}")]
    System(#[from] std::io::Error),
}

/// What a device says: receipts and topics. Cheap to clone, for any thread.
#[derive(Clone, Debug)]
pub struct Outgoing {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    waker: Waker,
}

pub(crate) struct State {
    pub(crate) outbox: Outbox,
    pub(crate) token: String,
    pub(crate) stopping: bool,
    pub(crate) connected: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("connected", &self.connected).finish_non_exhaustive()
    }
}

impl Shared {
    /// What the threads share. No code of a caller runs while it is held, so a panic elsewhere
    /// leaves it whole.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outgoing {
    /// A message was shown. The receipt is kept until the broker has it, and told once a message.
    ///
    /// # Errors
    ///
    /// Too many receipts wait already.
    pub fn shown(&self, id: Uuid) -> Result<(), Full> {
        self.receipt(Receipt::now(id, What::Shown))
    }

    /// A message was clicked; as [`Outgoing::shown`].
    ///
    /// # Errors
    ///
    /// As [`Outgoing::shown`].
    pub fn clicked(&self, id: Uuid) -> Result<(), Full> {
        self.receipt(Receipt::now(id, What::Clicked))
    }

    /// A receipt with a time of its own, such as one that [`Device::stop`] gave back.
    ///
    /// # Errors
    ///
    /// As [`Outgoing::shown`].
    pub fn receipt(&self, receipt: Receipt) -> Result<(), Full> {
        self.shared.state().outbox.push(receipt)?;
        self.shared.waker.wake();
        Ok(())
    }

    /// Subscribes to a topic of the app. The last word on a topic counts.
    ///
    /// # Errors
    ///
    /// Too many topics wait to be said already.
    pub fn subscribe(&self, topic: &str) -> Result<(), Full> {
        self.topic(topic, true)
    }

    /// Unsubscribes from a topic of the app.
    ///
    /// # Errors
    ///
    /// As [`Outgoing::subscribe`].
    pub fn unsubscribe(&self, topic: &str) -> Result<(), Full> {
        self.topic(topic, false)
    }

    fn topic(&self, topic: &str, wanted: bool) -> Result<(), Full> {
        self.shared.state().outbox.set_topic(topic, wanted)?;
        self.shared.waker.wake();
        Ok(())
    }

    /// How many receipts the broker does not have yet.
    pub fn receipts_waiting(&self) -> usize {
        self.shared.state().outbox.receipts_len()
    }

    /// Whether the device is connected and subscribed.
    pub fn is_connected(&self) -> bool {
        self.shared.state().connected
    }

    /// Connects with another token from the next time on.
    pub fn set_token(&self, token: &str) {
        token.clone_into(&mut self.shared.state().token);
    }
}

/// A device that is connected, or tries to be, until it is stopped or dropped.
#[derive(Debug)]
pub struct Device {
    outgoing: Outgoing,
    thread: Option<JoinHandle<()>>,
}

impl Device {
    /// Starts a device in a thread of its own. It connects in the background.
    ///
    /// # Errors
    ///
    /// Its id is none, or the system has no thread for it.
    pub fn start(options: Options, handler: impl Handler + 'static) -> Result<Device, StartError> {
        let is_id = (1..=DEVICE_BYTES_MAX).contains(&options.device.len())
            && !options.device.contains(['+', '#', '\0']);
        if !is_id {
            return Err(StartError::Device);
        }
        let state = State {
            outbox: Outbox::new(options.receipts_max),
            token: options.token.clone(),
            stopping: false,
            connected: false,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), waker: Waker::new()? });
        let outgoing = Outgoing { shared: Arc::clone(&shared) };
        let worker = Worker::new(options, outgoing.clone(), Box::new(handler));
        let thread = std::thread::Builder::new()
            .name("push-device".to_owned())
            .spawn(move || worker.run())?;
        Ok(Device { outgoing, thread: Some(thread) })
    }

    /// What the device says.
    pub fn outgoing(&self) -> &Outgoing {
        &self.outgoing
    }

    /// Stops: receipts that wait are acknowledged within two seconds, or given back for another
    /// time. The broker keeps the session, and what comes meanwhile.
    ///
    /// # Panics
    ///
    /// The handler did.
    pub fn stop(mut self) -> Vec<Receipt> {
        if let Err(panic) = self.join() {
            std::panic::resume_unwind(panic);
        }
        self.outgoing.shared.state().outbox.take_receipts()
    }

    fn join(&mut self) -> std::thread::Result<()> {
        self.outgoing.shared.state().stopping = true;
        self.outgoing.shared.waker.wake();
        self.thread.take().map_or(Ok(()), JoinHandle::join)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // A handler that panicked has said so.
        let _ = self.join();
    }
}

#[cfg(test)]
mod tests;
