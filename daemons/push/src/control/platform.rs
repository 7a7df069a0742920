//! The sender platform, as the cores know it: who keeps the registry of devices and the queue of
//! what is sent to them.
//!
//! ```text
//!   platform ──Known, Dispatch, Withdraw, Settled──► core     as commands, through the mesh
//!      ▲                                               │
//!      └──────────── told once a turn, in order ───────┘     Told
//! ```
//!
//! The platform has each message on disk until the device acknowledged it. A core has a delivery
//! of it in memory alone, with the device's session: it sends it, sends it again on the session's
//! next connection, and says what came of it. Each device of a [`Dispatch`] comes to exactly one
//! end, [`Told::Acknowledged`], [`Told::Returned`], [`Told::Dropped`] or a [`Told::Sent`] that is
//! the last, while the daemon runs; what a restart takes the platform dispatches again.
//!
//! Times are milliseconds since 1970.

use std::sync::Arc;

use bytes::Bytes;
use roaring::RoaringBitmap;

/// The longest payload of a [`Told::Receipts`], in bytes; what is longer is refused.
pub const RECEIPTS_BYTES_MAX: usize = 64 * 1024;

/// Who is told what becomes of devices and messages. Called by the cores' threads: nothing here
/// may wait.
pub trait Platform: Send + Sync {
    /// Takes what a core has to tell, in the order in which it happened; once a turn, if there is
    /// anything.
    fn tell(&self, core: u16, told: Vec<Told>);

    /// Whether it cannot keep up with what it is told. Then the cores read nothing from clients
    /// until it can.
    fn is_behind(&self) -> bool;
}

/// What a core tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A client that is connected is now subscribed to its own `d/{client}/push`. Told once for a
    /// connection, unless the subscription is given up meanwhile.
    Arrived {
        /// The client identifier.
        client_id: Box<str>,
        /// The session's number on its core: no other one has it while the daemon runs.
        session: u64,
    },
    /// A session that is [known](Known) lost its connection, or its subscription. What it has not
    /// acknowledged stays with it until it ends.
    Left {
        /// The device.
        device: u32,
        /// The session's number.
        session: u64,
    },
    /// A session that had [arrived](Told::Arrived) did so before it was known.
    LeftUnknown {
        /// The client identifier.
        client_id: Box<str>,
        /// The session's number.
        session: u64,
    },
    /// A message is on its way to the device. Told once for each dispatch, even if it has to be
    /// sent again on another connection.
    Sent {
        /// The message.
        message: u64,
        /// The device.
        device: u32,
        /// The app.
        app: u16,
        /// When.
        at: u64,
        /// At QoS 0: nothing follows.
        last: bool,
    },
    /// The device has the message.
    Acknowledged {
        /// The message.
        message: u64,
        /// The device.
        device: u32,
        /// The app.
        app: u16,
        /// When.
        at: u64,
    },
    /// The core has the message no more, and the device did not acknowledge it: it is not
    /// connected, its session ended, its queue is full, the message expired or was withdrawn. If
    /// it was sent, the device may have it all the same.
    Returned {
        /// The message.
        message: u64,
        /// The device.
        device: u32,
        /// The app.
        app: u16,
        /// When.
        at: u64,
    },
    /// The device does not take the message: to try again is of no use.
    Dropped {
        /// The message.
        message: u64,
        /// The device.
        device: u32,
        /// The app.
        app: u16,
        /// When.
        at: u64,
        /// Why.
        why: NotTaken,
    },
    /// A client published to its own `d/{client}/receipts` or `d/{client}/topics`. At QoS 1 and 2
    /// it may do so again before this is settled, with the same content.
    Receipts {
        /// The client identifier.
        client_id: Box<str>,
        /// To which of them.
        topic: ReceiptTopic,
        /// At most [`RECEIPTS_BYTES_MAX`].
        payload: Bytes,
        /// What a [`Settled`] has to name; zero if nobody waits for one.
        ticket: u64,
    },
}

/// Why a device does not take a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// It is larger than the client takes.
    TooLarge,
    /// The client refused it.
    Refused,
}

/// What a client tells the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiptTopic {
    /// What became of messages: `d/{client}/receipts`.
    Receipts,
    /// Which topics it subscribes to: `d/{client}/topics`.
    Topics,
}

/// Says which device a session is of. A session of another number is left as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The client identifier.
    pub client_id: Box<str>,
    /// The session's number, as it was told.
    pub session: u64,
    /// The device.
    pub device: u32,
    /// Its app.
    pub app: u16,
}

/// A message for devices of one core.
#[derive(Debug)]
pub struct Dispatch {
    /// The message.
    pub message: u64,
    /// After this time it is not sent any more; zero is never.
    pub expires_at: u64,
    /// What it says.
    pub payload: Bytes,
    /// The devices; for each of them that has no known session here which is connected and takes
    /// it, [`Told::Returned`] follows.
    pub devices: Devices,
    /// Their app.
    pub app: u16,
}

/// Devices of one core.
#[derive(Clone, Debug)]
pub enum Devices {
    /// This one: at once, before those whose turn is later.
    One(u32),
    /// All of these, some each turn.
    Many(Arc<RoaringBitmap>),
}

/// Takes a message back from whom it was not sent to yet; [`Told::Returned`] follows for each.
#[derive(Clone, Debug)]
pub struct Withdraw {
    /// The message.
    pub message: u64,
    /// From these devices; `None`: from all.
    pub devices: Option<Arc<RoaringBitmap>>,
}

/// Answers a [`Told::Receipts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Its ticket.
    pub ticket: u64,
    /// Whether it was refused, rather than counted and durable.
    pub refused: bool,
}
