//! What the broker's cores tell the platform, and what it has them do.

use std::sync::Arc;

use bytes::Bytes;
use roaring::RoaringBitmap;

/// What a core tells. Times are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A client is connected, and takes what is pushed to it.
    Arrived {
        /// Its client identifier.
        client_id: Box<str>,
        /// The number of its session, on that core.
        session: u64,
    },
    /// A device has lost its connection, or takes nothing any more.
    Left {
        /// Its number.
        device: u32,
        /// The number of its session.
        session: u64,
    },
    /// So has a client that the platform has not said to be a device.
    LeftUnknown {
        /// Its client identifier.
        client_id: Box<str>,
        /// The number of its session.
        session: u64,
    },
    /// What became of a message on its way to a device.
    Moved {
        /// The message's number.
        message: u64,
        /// The device's number.
        device: u32,
        /// When.
        at: u64,
        /// What.
        what: Moved,
    },
    /// A client has published to a topic of its own that the platform reads.
    Published {
        /// Its client identifier.
        client_id: Box<str>,
        /// Which topic.
        topic: Topic,
        /// What it says.
        payload: Bytes,
        /// By what the core knows it; zero if nobody waits for an answer.
        ticket: u64,
    },
}

/// What became of a message on its way to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moved {
    /// It was written to the connection, and will be acknowledged.
    Sent,
    /// It was written to the connection, and nothing follows.
    SentAtMostOnce,
    /// The device has it.
    Acknowledged,
    /// The core has it no more, and the device did not acknowledge it.
    Returned,
    /// The device cannot take it, or did not want it.
    Refused,
}

/// A topic by which devices speak to the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// `d/{device}/receipts`.
    Receipts,
    /// `d/{device}/topics`.
    Topics,
}

/// What a core does for the platform.
#[derive(Clone, Debug)]
pub enum Order {
    /// A client is this device.
    Known {
        /// Its client identifier.
        client_id: Box<str>,
        /// The number of its session.
        session: u64,
        /// The device's number.
        device: u32,
        /// The number of its app.
        app: u16,
    },
    /// A message goes to devices.
    Dispatch(Arc<Dispatch>),
    /// A message that was not sent yet goes to these devices no more.
    Withdraw {
        /// The message's number.
        message: u64,
        /// Which devices.
        devices: Arc<RoaringBitmap>,
    },
    /// What a client published was taken in, or was not.
    Settled {
        /// As the core named it.
        ticket: u64,
        /// Whether it was refused.
        refused: bool,
    },
    /// A client's connection ends: its token is not valid any more.
    Kick {
        /// Its client identifier.
        client_id: Box<str>,
    },
}

/// A message for devices of one core.
#[derive(Clone, Debug, PartialEq)]
pub struct Dispatch {
    /// The message's number.
    pub message: u64,
    /// The number of its app.
    pub app: u16,
    /// After this it is not sent, in milliseconds since 1970.
    pub expires_at: u64,
    /// What it says.
    pub payload: Bytes,
    /// To whom.
    pub devices: Devices,
}

/// Numbers of devices.
#[derive(Clone, Debug, PartialEq)]
pub enum Devices {
    /// One.
    One(u32),
    /// More.
    Many(Arc<RoaringBitmap>),
}

/// Takes orders to the cores. None of this waits; what finds a core's queue full is kept and
/// handed over later, in its order.
pub trait Cores {
    /// Tells one core.
    fn order(&mut self, core: u16, order: Order);

    /// Hands over what was ordered, as far as there is room; whether that was all.
    fn flush(&mut self) -> bool;
}
