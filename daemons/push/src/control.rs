//! What the control plane asks of the cores, and what they answer. The control plane runs HTTP on
//! a thread of its own; a command travels to a core through the mesh, its answer comes back
//! through a one-shot channel. A core never waits for the control plane.

pub mod clients;
pub mod drain;
pub mod platform;
pub mod top;
pub mod trace;

use std::sync::Arc;

use bytes::Bytes;
use sextant_mqtt::{QoS, ReasonCode};
use sextant_ring::time::Time;
use tokio::sync::oneshot;

use self::clients::{ClientDetail, Evicted, Kicked, Listing};
use self::platform::{Dispatch, Known, Settled, Withdraw};
use crate::auth::{Authenticator, Verified};
use crate::bans::Bans;
use crate::sys::Level;
use crate::tls::Endpoint;

/// A message that a sender pushes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// Its identifier, a UUID version 7: unique, and ordered by time.
    pub id: u128,
    /// Where it goes.
    pub target: Target,
    /// What it says.
    pub payload: Bytes,
    /// The most that its receivers get; at most what they subscribed with.
    pub qos: QoS,
    /// Whether it is kept for later subscribers of its topic.
    pub retain: bool,
    /// When it was asked for, in milliseconds since 1970.
    pub accepted_at: u64,
    /// After this time it is not delivered any more, in milliseconds since 1970.
    pub expires_at: u64,
}

/// Where a push goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// One device: it waits until that device has a session that takes it.
    Device(String),
    /// Whoever is subscribed to this topic now.
    Topic(String),
}

impl Target {
    /// The topic that the message is published to.
    pub fn topic(&self) -> String {
        match self {
            Target::Device(device) => format!("d/{device}/push"),
            Target::Topic(topic) => topic.clone(),
        }
    }
}

/// Why a push was not accepted. Nothing of it was kept, unless it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// No room on disk, or too many wait for the device.
    #[error("there is no room for the message")]
    NoRoom,
    /// It is longer than a message may be.
    #[error("the message is too large")]
    TooLarge,
    /// The daemon stops, or its log cannot be written.
    #[error("the daemon takes no messages now")]
    Unavailable,
    /// Some core could not keep it; others did, and may have delivered it.
    #[error("the message was kept for some of its receivers only")]
    Partly(ReasonCode),
}

/// What is known of a pushed message. Times are milliseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Its identifier.
    pub id: u128,
    /// The topic that it was published to.
    pub topic: String,
    /// The device that it was for, if it was for one.
    pub device: Option<String>,
    /// Its QoS, 0 to 2.
    pub qos: u8,
    /// Sessions that it is for.
    pub recipients: u32,
    /// To how many of them it was sent.
    pub sent: u32,
    /// How many of them acknowledged it.
    pub acknowledged: u32,
    /// For how many of them it expired.
    pub expired: u32,
    /// For how many of them it was dropped: their queue was full, they refused it, or their
    /// session ended.
    pub dropped: u32,
    /// When it was accepted.
    pub accepted_at: u64,
    /// When it was first sent.
    pub sent_at: Option<u64>,
    /// When it was last acknowledged.
    pub acknowledged_at: Option<u64>,
    /// When it expired.
    pub expired_at: Option<u64>,
    /// When it expires, or would have.
    pub expires_at: u64,
}

/// How a push stands, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiptState {
    /// It is on disk, and was sent to nobody yet.
    Accepted,
    /// It was sent, and somebody has yet to acknowledge it (at QoS 0 nobody ever does).
    Sent,
    /// Everybody it was for has acknowledged it.
    Acknowledged,
    /// Its time ran out before everybody had it.
    Expired,
}

impl Receipt {
    /// How it stands.
    pub fn state(&self) -> ReceiptState {
        let open = self.recipients.saturating_sub(self.acknowledged + self.dropped);
        if self.expired_at.is_some() && (open > 0 || self.recipients == 0) {
            ReceiptState::Expired
        } else if self.acknowledged > 0 && open == 0 {
            ReceiptState::Acknowledged
        } else if self.sent > 0 {
            ReceiptState::Sent
        } else {
            ReceiptState::Accepted
        }
    }
}

/// How one core stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoreStatus {
    /// Connections, those without a session included.
    pub connections: u64,
    /// Of these, those that wait for their turn to be let in.
    pub connects_waiting: u64,
    /// CONNECT packets that had to wait, and were let in.
    pub connects_delayed: u64,
    /// CONNECT packets refused since they would have had to wait too long.
    pub connects_refused: u64,
    /// Connections that are not read from for a while, since their clients publish too fast.
    pub throttled: u64,
    /// Sessions, those without a connection included.
    pub sessions: u64,
    /// Subscriptions of those sessions.
    pub subscriptions: u64,
    /// Retained messages.
    pub retained: u64,
    /// Messages on disk that somebody has yet to get.
    pub held: u64,
    /// PUBLISH packets received.
    pub messages_in: u64,
    /// PUBLISH packets sent.
    pub messages_out: u64,
    /// Bytes of the log's files.
    pub log_bytes: u64,
    /// Segments of the log.
    pub log_segments: u64,
    /// Whether the log takes no more appends.
    pub log_read_only: bool,
}

/// Something for a core to do.
#[derive(Debug)]
pub enum Command {
    /// Takes a message in. Goes to the core that [`Target`] belongs to.
    Push {
        /// The message.
        push: Push,
        /// Answered once it is on disk wherever it has to be, with the number of recipients.
        reply: oneshot::Sender<Result<u32, PushError>>,
    },
    /// Tells what is known of a message. Goes to every core: one may know.
    Lookup {
        /// The message's identifier.
        id: u128,
        /// Answered with what this core knows.
        reply: oneshot::Sender<Option<Receipt>>,
    },
    /// Tells how the core stands.
    Status {
        /// Answered at once.
        reply: oneshot::Sender<CoreStatus>,
    },
    /// Says how the daemon stands, for whoever has subscribed to its own topics. Goes to every
    /// core.
    Levels(Arc<[Level]>),
    /// Tells of some of the core's clients.
    Clients(Listing),
    /// Tells of one client. Goes to the core where it is at home.
    Client {
        /// Its identifier.
        client_id: String,
        /// Answered once its peer is known.
        reply: oneshot::Sender<Option<ClientDetail>>,
    },
    /// Ends a client's connection. Goes to the core where it is at home.
    Kick {
        /// Its identifier.
        client_id: String,
        /// Whether its session ends, too.
        session: bool,
        /// Answered when it is done; with the session, once that is on disk.
        reply: oneshot::Sender<Kicked>,
    },
    /// Tells of one client's packets. Goes to the core where it is at home.
    Trace(trace::Tracing),
    /// Counts who and what there is most of, from now on. Goes to every core.
    TopBegin(top::TopBegin),
    /// Tells what was counted.
    TopEnd(top::TopEnd),
    /// Sends clients to another server, or serves them again. Goes to every core.
    Drain {
        /// `None` ends it.
        draining: Option<drain::Draining>,
        /// Answered at once.
        reply: oneshot::Sender<()>,
    },
    /// Tells how that stands.
    Drained {
        /// Answered at once; `None` if clients are served here.
        reply: oneshot::Sender<Option<drain::Drained>>,
    },
    /// Lets nobody in who is banned from now on; who is connected stays.
    Bans {
        /// All bans.
        bans: std::sync::Arc<Bans>,
        /// Answered at once.
        reply: oneshot::Sender<()>,
    },
    /// Ends the connections of those who are banned, among some of the core's clients.
    Evict {
        /// The slot to begin at.
        from: usize,
        /// Answered at once.
        reply: oneshot::Sender<Evicted>,
    },
    /// A password was checked: the connection's CONNECT goes on.
    Verified {
        /// The connection, as the core named it.
        conn: u64,
        /// How the check ended.
        result: Verified,
    },
    /// Says which device a session is of. Like all that the platform asks for, it goes to the core
    /// where the client is at home; without a platform it is ignored.
    Known(Known),
    /// Sends a message of the platform to devices.
    Dispatch(Arc<Dispatch>),
    /// Takes a message of the platform back.
    Withdraw(Withdraw),
    /// Answers what a client published to the platform. Goes to the core that told of it.
    Settled(Settled),
    /// Decides by these users and rules from now on; who is connected stays.
    Authenticate(std::sync::Arc<Authenticator>),
    /// Serves TLS with this from now on; who is connected stays as it is.
    Secure(std::sync::Arc<Endpoint>),
    /// Stops: clients are told, then the log is settled.
    Stop {
        /// When connections that are left are cut.
        deadline: Time,
    },
}
