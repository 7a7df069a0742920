//! What can go wrong, and whose fault it is: bytes that are no packet ([`DecodeError`]), values
//! that fit no packet ([`EncodeError`], ours), and a peer that breaks the rules of a connection
//! ([`Fault`]).

use crate::packet::PacketType;
use crate::reason::ReasonCode;

/// Bytes of a peer that are not a valid packet. Always the peer's fault; the connection must be
/// closed `[MQTT-4.13.1-1]`, with [`DecodeError::reason`] said first where the version allows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// A field or a list ends past the end of its packet.
    #[error("a field ends past the end of its packet")]
    Truncated,
    /// Bytes follow the last field of the packet.
    #[error("bytes follow the last field of the packet")]
    TrailingBytes,
    /// A variable byte integer is longer than four bytes or than it needs to be.
    #[error("a variable byte integer is not in its shortest form [MQTT-1.5.5-1]")]
    VariableInteger,
    /// A string is not UTF-8.
    #[error("a string is not well-formed UTF-8 [MQTT-1.5.4-1]")]
    IllFormedString,
    /// A string holds U+0000.
    #[error("a string holds the null character [MQTT-1.5.4-2]")]
    NullCharacter,
    /// Packet type 0, or 15 (AUTH) in MQTT 3.1.1.
    #[error("packet type {0} does not exist in this version")]
    ReservedPacketType(u8),
    /// Reserved bits of the first byte are not as listed.
    #[error("reserved flags {flags:#06b} in {packet:?} [MQTT-2.1.3-1]")]
    ReservedFlags {
        /// The packet.
        packet: PacketType,
        /// Its four flag bits.
        flags: u8,
    },
    /// QoS 3.
    #[error("QoS 3 does not exist [MQTT-3.3.1-4]")]
    QosReserved,
    /// DUP set on QoS 0.
    #[error("DUP is set on QoS 0 [MQTT-3.3.1-2]")]
    DupOnQos0,
    /// The packet identifier is 0.
    #[error("the packet identifier is 0 [MQTT-2.2.1-3]")]
    PacketIdZero,
    /// A topic name is empty, too long, or has a wildcard.
    #[error("a topic name is empty or holds a wildcard [MQTT-3.3.2-2]")]
    TopicName,
    /// A topic filter is empty or its wildcards or share name are misplaced.
    #[error("a topic filter is not well formed [MQTT-4.7.1-1]")]
    TopicFilter,
    /// No topic and no alias.
    #[error("the topic name is empty and there is no topic alias")]
    TopicMissing,
    /// The topic alias is 0.
    #[error("the topic alias is 0 [MQTT-3.3.2-8]")]
    TopicAliasZero,
    /// SUBSCRIBE, UNSUBSCRIBE, SUBACK or UNSUBACK (MQTT 5) with an empty list.
    #[error("the list of the packet is empty [MQTT-3.8.3-2]")]
    EmptyList,
    /// Reserved bits of a subscription's options.
    #[error("reserved bits in subscription options [MQTT-3.8.3-5]")]
    SubscriptionOptions,
    /// Retain handling 3.
    #[error("retain handling 3 does not exist")]
    RetainHandling,
    /// No Local on a shared subscription.
    #[error("No Local on a shared subscription [MQTT-3.8.3-4]")]
    NoLocalOnShared,
    /// The identifier of a property is not known, or not for this packet.
    #[error("property {0:#04x} is not for this packet")]
    PropertyNotAllowed(u8),
    /// A property that may occur once occurs twice.
    #[error("property {0:#04x} occurs twice")]
    PropertyTwice(u8),
    /// A property has a value that MQTT 5 forbids, such as a Receive Maximum of 0.
    #[error("property {0:#04x} has a forbidden value")]
    PropertyValue(u8),
    /// Authentication data without a method, or AUTH without a method.
    #[error("authentication data without an authentication method")]
    AuthenticationMethodMissing,
    /// A reason code that does not exist or is not for this packet.
    #[error("reason code {0:#04x} is not for this packet")]
    ReasonCode(u8),
    /// Bits of CONNECT's or CONNACK's flags that must be 0.
    #[error("reserved connect flag is set [MQTT-3.1.2-3]")]
    ConnectFlags,
    /// Will QoS or will retain without a will, or will QoS 3.
    #[error("will flags contradict each other [MQTT-3.1.2-11]")]
    WillFlags,
    /// A password without a user name in MQTT 3.1.1.
    #[error("a password without a user name [3.1.1: MQTT-3.1.2-22]")]
    PasswordWithoutUserName,
    /// The protocol name is not MQTT.
    #[error("the protocol name is not MQTT [MQTT-3.1.2-1]")]
    ProtocolName,
    /// A protocol level other than 4 and 5.
    #[error("protocol level {0} is not supported [MQTT-3.1.2-2]")]
    ProtocolVersion(u8),
    /// A refusing CONNACK claims a session.
    #[error("a refusing CONNACK claims a session [MQTT-3.2.2-6]")]
    SessionPresent,
    /// The packet is larger than the receiver said it takes.
    #[error("a packet of {len} bytes is over the limit of {max}")]
    TooLarge {
        /// The packet's length with its header, bytes.
        len: u32,
        /// The limit, bytes.
        max: u32,
    },
}

impl DecodeError {
    /// What to say in a CONNACK or DISCONNECT.
    pub const fn reason(self) -> ReasonCode {
        match self {
            DecodeError::TooLarge { .. } => ReasonCode::PacketTooLarge,
            DecodeError::ProtocolVersion(_) => ReasonCode::UnsupportedProtocolVersion,
            DecodeError::TopicAliasZero => ReasonCode::TopicAliasInvalid,
            DecodeError::TopicMissing
            | DecodeError::EmptyList
            | DecodeError::RetainHandling
            | DecodeError::NoLocalOnShared
            | DecodeError::PropertyTwice(_)
            | DecodeError::PropertyValue(_)
            | DecodeError::AuthenticationMethodMissing
            | DecodeError::ReasonCode(_)
            | DecodeError::SessionPresent => ReasonCode::ProtocolError,
            _ => ReasonCode::MalformedPacket,
        }
    }
}

/// A value of ours that fits no packet. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A string or binary field is longer than 65,535 bytes.
    #[error("a field is longer than 65,535 bytes")]
    FieldTooLong,
    /// The packet is longer than its remaining length can say.
    #[error("the packet is longer than 268,435,455 bytes")]
    PacketTooLong,
    /// MQTT 3.1.1 has no AUTH packet.
    #[error("MQTT 3.1.1 has no AUTH packet")]
    NotInVersion,
    /// A forbidden value: an empty list, a null character, an ill-formed topic.
    #[error("a field holds a value that MQTT forbids")]
    Forbidden,
    /// The packet is larger than its receiver takes. It is dropped, and for a PUBLISH the sender
    /// goes on as if it had been delivered `[MQTT-3.1.2-25]`.
    #[error("a packet of {len} bytes is over the receiver's limit of {max} [MQTT-3.1.2-24]")]
    TooLarge {
        /// The packet's length with its header, bytes.
        len: u32,
        /// The receiver's Maximum Packet Size, bytes.
        max: u32,
    },
}

/// A peer broke the rules of a connection, or stayed silent. The connection must be closed
/// `[MQTT-4.13.1-1]`, with [`Fault::reason`] said first where the version allows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The bytes are no packet.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The first packet was not CONNECT `[MQTT-3.1.0-1]`.
    #[error("the first packet is {0:?}, not CONNECT [MQTT-3.1.0-1]")]
    NotConnect(PacketType),
    /// A second CONNECT `[MQTT-3.1.0-2]`.
    #[error("a second CONNECT [MQTT-3.1.0-2]")]
    SecondConnect,
    /// No CONNECT, or no CONNACK, in time.
    #[error("no connection was established in time")]
    ConnectTimeout,
    /// Nothing received for one and a half keep-alives `[MQTT-3.1.2-22]`, or no PINGRESP.
    #[error("nothing was received within the keep-alive [MQTT-3.1.2-22]")]
    KeepAliveTimeout,
    /// A packet that this end never receives, or not in this state.
    #[error("{0:?} is not for this end of the connection")]
    Unexpected(PacketType),
    /// AUTH although CONNECT named no method, or with another one `[MQTT-4.12.0-6]`.
    #[error("AUTH without the authentication method of CONNECT [MQTT-4.12.1-1]")]
    AuthenticationMethod,
    /// More QoS 1 and 2 publishes in flight than Receive Maximum `[MQTT-3.3.4-7]`.
    #[error("more publishes in flight than Receive Maximum [MQTT-3.3.4-7]")]
    ReceiveMaximumExceeded,
    /// An alias above the maximum `[MQTT-3.3.2-9]`.
    #[error("topic alias {0} is above the maximum [MQTT-3.3.2-9]")]
    TopicAliasInvalid(u16),
    /// An alias that stands for nothing yet (section 3.3.2.3.4).
    #[error("topic alias {0} stands for no topic")]
    TopicAliasUnknown(u16),
    /// An empty client identifier for a session that is to be kept `[3.1.1: MQTT-3.1.3-8]`.
    #[error("an empty client identifier without a clean session [3.1.1: MQTT-3.1.3-8]")]
    ClientIdMissing,
    /// A topic name beyond this server's limits of length or levels.
    #[error("the topic name is longer or deeper than this server accepts")]
    TopicNameLimit,
    /// A topic filter beyond this server's limits of length or levels.
    #[error("the topic filter is longer or deeper than this server accepts")]
    TopicFilterLimit,
    /// A client's PUBLISH with a subscription identifier `[MQTT-3.3.4-6]`.
    #[error("a subscription identifier in a client's PUBLISH [MQTT-3.3.4-6]")]
    SubscriptionIdFromClient,
    /// A DISCONNECT gives a session that ended with its connection a longer life.
    #[error("DISCONNECT sets a session expiry after CONNECT said 0")]
    SessionExpiryRaised,
    /// A server's DISCONNECT with a session expiry `[MQTT-3.14.2-2]`.
    #[error("a server's DISCONNECT holds a session expiry [MQTT-3.14.2-2]")]
    SessionExpiryFromServer,
    /// An AUTH or DISCONNECT reason that is the other end's alone.
    #[error("reason {0:?} is not for the other end to send")]
    ReasonNotAllowed(ReasonCode),
}

impl Fault {
    /// What to say in a CONNACK or DISCONNECT.
    pub const fn reason(self) -> ReasonCode {
        match self {
            Fault::Decode(error) => error.reason(),
            Fault::KeepAliveTimeout => ReasonCode::KeepAliveTimeout,
            Fault::ConnectTimeout => ReasonCode::UnspecifiedError,
            Fault::ReceiveMaximumExceeded => ReasonCode::ReceiveMaximumExceeded,
            Fault::ClientIdMissing => ReasonCode::ClientIdentifierNotValid,
            Fault::TopicAliasInvalid(_) => ReasonCode::TopicAliasInvalid,
            Fault::TopicNameLimit => ReasonCode::TopicNameInvalid,
            Fault::TopicFilterLimit => ReasonCode::TopicFilterInvalid,
            _ => ReasonCode::ProtocolError,
        }
    }

    /// Whether the peer broke the protocol. A timeout is silence, of the peer or of the network.
    pub const fn is_violation(self) -> bool {
        !matches!(self, Fault::KeepAliveTimeout | Fault::ConnectTimeout)
    }
}
