//! The reason codes of MQTT 5, which packets may carry each of them, and how they map to the few
//! return codes of MQTT 3.1.1.

use crate::packet::{PacketType, Version};

macro_rules! reason_codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal in [$($packet:ident),*];)*) => {
        /// Why something succeeded or failed, in one byte: below `0x80` is success (MQTT 5, table 2-6).
        ///
        /// Three names share the value 0: [`ReasonCode::Success`],
        /// [`ReasonCode::NORMAL_DISCONNECTION`] and [`ReasonCode::GRANTED_QOS_0`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
        #[repr(u8)]
        pub enum ReasonCode {
            $($(#[$doc])* $name = $value,)*
        }

        impl ReasonCode {
            /// Every reason code, in ascending order.
            pub const ALL: &'static [ReasonCode] = &[$(ReasonCode::$name),*];

            /// The reason code of this value, if MQTT 5 defines one.
            pub const fn from_u8(value: u8) -> Option<ReasonCode> {
                match value {
                    $($value => Some(ReasonCode::$name),)*
                    _ => None,
                }
            }

            /// Whether MQTT 5 lets a packet of type `packet` carry this code.
            pub const fn allowed_in(self, packet: PacketType) -> bool {
                match self {
                    $(ReasonCode::$name => matches!(packet, $(PacketType::$packet)|*),)*
                }
            }
        }
    };
}

reason_codes! {
    /// Success, a normal disconnection, or QoS 0 granted.
    #[default]
    Success = 0x00 in [ConnAck, PubAck, PubRec, PubRel, PubComp, SubAck, UnsubAck, Disconnect, Auth];
    /// QoS 1 granted.
    GrantedQos1 = 0x01 in [SubAck];
    /// QoS 2 granted.
    GrantedQos2 = 0x02 in [SubAck];
    /// The client leaves and wants its will published.
    DisconnectWithWill = 0x04 in [Disconnect];
    /// Accepted, and nobody is subscribed.
    NoMatchingSubscribers = 0x10 in [PubAck, PubRec];
    /// Nothing to unsubscribe.
    NoSubscriptionExisted = 0x11 in [UnsubAck];
    /// The authentication goes on.
    ContinueAuthentication = 0x18 in [Auth];
    /// The client starts a re-authentication.
    ReAuthenticate = 0x19 in [Auth];
    /// The sender does not wish to reveal the reason.
    UnspecifiedError = 0x80 in [ConnAck, PubAck, PubRec, SubAck, UnsubAck, Disconnect];
    /// The packet cannot be parsed.
    MalformedPacket = 0x81 in [ConnAck, Disconnect];
    /// The packet breaks the protocol.
    ProtocolError = 0x82 in [ConnAck, Disconnect];
    /// Valid, but not accepted by this implementation.
    ImplementationSpecificError = 0x83 in [ConnAck, PubAck, PubRec, SubAck, UnsubAck, Disconnect];
    /// The server does not speak this version.
    UnsupportedProtocolVersion = 0x84 in [ConnAck];
    /// The client identifier is not allowed.
    ClientIdentifierNotValid = 0x85 in [ConnAck];
    /// User name or password not accepted.
    BadUserNameOrPassword = 0x86 in [ConnAck];
    /// Not authorised.
    NotAuthorized = 0x87 in [ConnAck, PubAck, PubRec, SubAck, UnsubAck, Disconnect];
    /// The server is not available.
    ServerUnavailable = 0x88 in [ConnAck];
    /// The server is busy.
    ServerBusy = 0x89 in [ConnAck, Disconnect];
    /// Banned by administrative action.
    Banned = 0x8A in [ConnAck];
    /// The server shuts down.
    ServerShuttingDown = 0x8B in [Disconnect];
    /// The authentication method is not supported or changed.
    BadAuthenticationMethod = 0x8C in [ConnAck, Disconnect];
    /// Nothing was received for one and a half keep-alives.
    KeepAliveTimeout = 0x8D in [Disconnect];
    /// Another connection uses the client identifier now.
    SessionTakenOver = 0x8E in [Disconnect];
    /// The filter is well formed but not accepted.
    TopicFilterInvalid = 0x8F in [SubAck, UnsubAck, Disconnect];
    /// The topic name is well formed but not accepted.
    TopicNameInvalid = 0x90 in [ConnAck, PubAck, PubRec, Disconnect];
    /// The packet identifier is already in use.
    PacketIdentifierInUse = 0x91 in [PubAck, PubRec, SubAck, UnsubAck];
    /// The packet identifier is not known.
    PacketIdentifierNotFound = 0x92 in [PubRel, PubComp];
    /// More than Receive Maximum publishes in flight.
    ReceiveMaximumExceeded = 0x93 in [Disconnect];
    /// The alias is 0 or above the maximum.
    TopicAliasInvalid = 0x94 in [Disconnect];
    /// The packet is larger than the maximum.
    PacketTooLarge = 0x95 in [ConnAck, Disconnect];
    /// The rate of messages is too high.
    MessageRateTooHigh = 0x96 in [Disconnect];
    /// An implementation or administrative limit is exceeded.
    QuotaExceeded = 0x97 in [ConnAck, PubAck, PubRec, SubAck, Disconnect];
    /// Closed by an administrator.
    AdministrativeAction = 0x98 in [Disconnect];
    /// The payload is not what its format indicator says.
    PayloadFormatInvalid = 0x99 in [ConnAck, PubAck, PubRec, Disconnect];
    /// Retained messages are not supported.
    RetainNotSupported = 0x9A in [ConnAck, Disconnect];
    /// The QoS is above the server's maximum.
    QosNotSupported = 0x9B in [ConnAck, Disconnect];
    /// Use another server for now.
    UseAnotherServer = 0x9C in [ConnAck, Disconnect];
    /// Use another server from now on.
    ServerMoved = 0x9D in [ConnAck, Disconnect];
    /// Shared subscriptions are not supported.
    SharedSubscriptionsNotSupported = 0x9E in [SubAck, Disconnect];
    /// The rate of connections is exceeded.
    ConnectionRateExceeded = 0x9F in [ConnAck, Disconnect];
    /// The connection lasted as long as it may.
    MaximumConnectTime = 0xA0 in [Disconnect];
    /// Subscription identifiers are not supported.
    SubscriptionIdentifiersNotSupported = 0xA1 in [SubAck, Disconnect];
    /// Wildcard subscriptions are not supported.
    WildcardSubscriptionsNotSupported = 0xA2 in [SubAck, Disconnect];
}

impl ReasonCode {
    /// The value 0 in a DISCONNECT.
    pub const NORMAL_DISCONNECTION: ReasonCode = ReasonCode::Success;
    /// The value 0 in a SUBACK.
    pub const GRANTED_QOS_0: ReasonCode = ReasonCode::Success;

    /// The value on the wire.
    pub const fn as_u8(self) -> u8 {
        self as u8
    }

    /// Whether the operation failed (`0x80` and above).
    pub const fn is_error(self) -> bool {
        self.as_u8() >= 0x80
    }

    /// The return code byte of a CONNACK in `version` (3.1.1, table 3.1).
    ///
    /// 3.1.1 knows five refusals. What has no counterpart is "server unavailable".
    pub const fn connack_code(self, version: Version) -> u8 {
        match version {
            Version::V5 => self.as_u8(),
            Version::V311 => match self {
                ReasonCode::Success => 0,
                ReasonCode::UnsupportedProtocolVersion => 1,
                ReasonCode::ClientIdentifierNotValid => 2,
                ReasonCode::BadUserNameOrPassword => 4,
                ReasonCode::NotAuthorized
                | ReasonCode::Banned
                | ReasonCode::BadAuthenticationMethod => 5,
                _ => 3,
            },
        }
    }

    /// The reason a CONNACK's code byte stands for in `version`.
    pub const fn from_connack_code(code: u8, version: Version) -> Option<ReasonCode> {
        match version {
            Version::V5 => match ReasonCode::from_u8(code) {
                Some(reason) if reason.allowed_in(PacketType::ConnAck) => Some(reason),
                _ => None,
            },
            Version::V311 => match code {
                0 => Some(ReasonCode::Success),
                1 => Some(ReasonCode::UnsupportedProtocolVersion),
                2 => Some(ReasonCode::ClientIdentifierNotValid),
                3 => Some(ReasonCode::ServerUnavailable),
                4 => Some(ReasonCode::BadUserNameOrPassword),
                5 => Some(ReasonCode::NotAuthorized),
                _ => None,
            },
        }
    }

    /// The return code byte of a SUBACK in `version`: 3.1.1 knows one failure, `0x80`.
    pub const fn suback_code(self, version: Version) -> u8 {
        match version {
            Version::V311 if self.is_error() => 0x80,
            _ => self.as_u8(),
        }
    }
}
