//! The 27 properties of MQTT 5 (section 2.2.2), as one typed struct for each packet that has
//! them. What may occur more than once, user properties and subscription identifiers, stays in
//! the packet's bytes, validated, and is walked when iterated.
//!
//! ```text
//! property block:  | length (variable) | id | value | id | value | ...
//!                                        └ 1 byte, the type of the value follows from it
//! ```

use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};

use crate::REMAINING_LEN_MAX;
use crate::error::DecodeError;
use crate::packet::{QoS, Secret};
use crate::topic;
use crate::wire::{Counter, Reader, Sink};

/// Identifiers of table 2-4.
pub(crate) mod id {
    pub(crate) const PAYLOAD_FORMAT: u8 = 0x01;
    pub(crate) const MESSAGE_EXPIRY: u8 = 0x02;
    pub(crate) const CONTENT_TYPE: u8 = 0x03;
    pub(crate) const RESPONSE_TOPIC: u8 = 0x08;
    pub(crate) const CORRELATION_DATA: u8 = 0x09;
    pub(crate) const SUBSCRIPTION_ID: u8 = 0x0B;
    pub(crate) const SESSION_EXPIRY: u8 = 0x11;
    pub(crate) const ASSIGNED_CLIENT_ID: u8 = 0x12;
    pub(crate) const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub(crate) const AUTH_METHOD: u8 = 0x15;
    pub(crate) const AUTH_DATA: u8 = 0x16;
    pub(crate) const REQUEST_PROBLEM_INFO: u8 = 0x17;
    pub(crate) const WILL_DELAY: u8 = 0x18;
    pub(crate) const REQUEST_RESPONSE_INFO: u8 = 0x19;
    pub(crate) const RESPONSE_INFO: u8 = 0x1A;
    pub(crate) const SERVER_REFERENCE: u8 = 0x1C;
    pub(crate) const REASON_STRING: u8 = 0x1F;
    pub(crate) const RECEIVE_MAX: u8 = 0x21;
    pub(crate) const TOPIC_ALIAS_MAX: u8 = 0x22;
    pub(crate) const TOPIC_ALIAS: u8 = 0x23;
    pub(crate) const QOS_MAX: u8 = 0x24;
    pub(crate) const RETAIN_AVAILABLE: u8 = 0x25;
    pub(crate) const USER_PROPERTY: u8 = 0x26;
    pub(crate) const PACKET_BYTES_MAX: u8 = 0x27;
    pub(crate) const WILDCARDS_AVAILABLE: u8 = 0x28;
    pub(crate) const SUBSCRIPTION_IDS_AVAILABLE: u8 = 0x29;
    pub(crate) const SHARED_AVAILABLE: u8 = 0x2A;
}

/// What the sender says about its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PayloadFormat {
    /// Unspecified bytes.
    Bytes = 0,
    /// UTF-8 text.
    Text = 1,
}

/// A subscription identifier, 1 to 268,435,455.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(NonZeroU32);

impl SubscriptionId {
    /// The identifier of this number, if it is one.
    pub const fn new(value: u32) -> Option<SubscriptionId> {
        match NonZeroU32::new(value) {
            Some(nonzero) if value <= REMAINING_LEN_MAX => Some(SubscriptionId(nonzero)),
            _ => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

/// The value of a property that occurs at most once.
trait Value<'a>: Copy {
    /// Reads the value of property `id`.
    fn read(id: u8, reader: &mut Reader<'a>) -> Result<Self, DecodeError>;
    /// Writes the value.
    fn write<S: Sink>(&self, sink: &mut S);
}

impl<'a> Value<'a> for bool {
    fn read(id: u8, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        match reader.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::PropertyValue(id)),
        }
    }
    fn write<S: Sink>(&self, sink: &mut S) {
        sink.u8(u8::from(*self));
    }
}

impl<'a> Value<'a> for PayloadFormat {
    fn read(id: u8, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        bool::read(id, reader)
            .map(|text| if text { PayloadFormat::Text } else { PayloadFormat::Bytes })
    }
    fn write<S: Sink>(&self, sink: &mut S) {
        sink.u8(*self as u8);
    }
}

impl<'a> Value<'a> for QoS {
    fn read(id: u8, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        // Maximum QoS is 0 or 1; 2 is said by its absence (section 3.2.2.3.4).
        bool::read(id, reader).map(|one| if one { QoS::AtLeastOnce } else { QoS::AtMostOnce })
    }
    fn write<S: Sink>(&self, sink: &mut S) {
        sink.u8(*self as u8);
    }
}

impl<'a> Value<'a> for u16 {
    fn read(_: u8, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        reader.u16()
    }
    fn write<S: Sink>(&self, sink: &mut S) {
        sink.u16(*self);
    }
}

impl<'a> Value<'a> for u32 {
    fn read(_: u8, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        reader.u32()
    }
    fn write<S: Sink>(&self, sink: &mut S) {
        sink.u32(*self);
    }
}

impl<'a> Value<'a> for NonZeroU16 {
    fn read(id: u8, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        NonZeroU16::new(reader.u16()?).ok_or(if id == id::TOPIC_ALIAS {
            DecodeError::TopicAliasZero // [MQTT-3.3.2-8]
        } else {
            DecodeError::PropertyValue(id)
        })
    }
    fn write<S: Sink>(&self, sink: &mut S) {
        sink.u16(self.get());
    }
}

impl<'a> Value<'a> for NonZeroU32 {
    fn read(id: u8, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        NonZeroU32::new(reader.u32()?).ok_or(DecodeError::PropertyValue(id))
    }
    fn write<S: Sink>(&self, sink: &mut S) {
        sink.u32(self.get());
    }
}

impl<'a> Value<'a> for SubscriptionId {
    fn read(id: u8, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        SubscriptionId::new(reader.variable()?).ok_or(DecodeError::PropertyValue(id))
    }
    fn write<S: Sink>(&self, sink: &mut S) {
        sink.variable(self.get());
    }
}

impl<'a> Value<'a> for &'a str {
    fn read(id: u8, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        // [MQTT-3.3.2-13], [MQTT-3.3.2-19]
        let text = reader.string()?;
        // [MQTT-3.3.2-14]
        if id == id::RESPONSE_TOPIC && topic::check_name(text).is_err() {
            return Err(DecodeError::TopicName);
        }
        Ok(text)
    }
    fn write<S: Sink>(&self, sink: &mut S) {
        sink.string(self);
    }
}

impl<'a> Value<'a> for &'a [u8] {
    fn read(_: u8, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        reader.binary()
    }
    fn write<S: Sink>(&self, sink: &mut S) {
        sink.binary(self);
    }
}

impl<'a> Value<'a> for Secret<'a> {
    fn read(_: u8, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        reader.binary().map(Secret::new)
    }
    fn write<S: Sink>(&self, sink: &mut S) {
        sink.binary(self.expose());
    }
}

/// A field of a property struct: what happens at each occurrence, and how it is written.
trait Slot<'a> {
    /// Takes one occurrence of property `id`; `from` is the block from that property on.
    fn fill(&mut self, id: u8, from: &'a [u8], reader: &mut Reader<'a>) -> Result<(), DecodeError>;
    /// Writes every occurrence, each with its identifier.
    fn write<S: Sink>(&self, id: u8, sink: &mut S);
}

impl<'a, T: Value<'a>> Slot<'a> for Option<T> {
    fn fill(&mut self, id: u8, _: &'a [u8], reader: &mut Reader<'a>) -> Result<(), DecodeError> {
        if self.is_some() {
            return Err(DecodeError::PropertyTwice(id));
        }
        *self = Some(T::read(id, reader)?);
        Ok(())
    }

    fn write<S: Sink>(&self, id: u8, sink: &mut S) {
        if let Some(value) = self {
            sink.u8(id);
            value.write(sink);
        }
    }
}

/// User properties: pairs of strings, in order, names may repeat.
#[derive(Clone, Copy)]
pub struct UserProperties<'a>(Users<'a>);

#[derive(Clone, Copy)]
enum Users<'a> {
    /// A validated block from its first user property on; the user properties in it take
    /// `bytes` in all, and follow each other without a gap if `dense`.
    Wire {
        from: &'a [u8],
        bytes: u32,
        dense: bool,
    },
    Pairs(&'a [(&'a str, &'a str)]),
}

impl<'a> UserProperties<'a> {
    /// The user properties of a packet to encode.
    pub const fn new(pairs: &'a [(&'a str, &'a str)]) -> Self {
        UserProperties(Users::Pairs(pairs))
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        match self.0 {
            Users::Wire { bytes, .. } => bytes == 0,
            Users::Pairs(pairs) => pairs.is_empty(),
        }
    }

    /// Names and values in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let (mut walk, mut pairs) = match self.0 {
            Users::Wire { from, bytes, dense } => {
                let end = if dense { bytes as usize } else { from.len() };
                (Walk(Reader::new(&from[..end])), [].iter())
            }
            Users::Pairs(pairs) => (Walk(Reader::new(&[])), pairs.iter()),
        };
        std::iter::from_fn(move || {
            walk.next_of(id::USER_PROPERTY)
                .and_then(|mut value| Some((value.string().ok()?, value.string().ok()?)))
                .or_else(|| pairs.next().copied())
        })
    }
}

impl Default for UserProperties<'_> {
    fn default() -> Self {
        UserProperties(Users::Pairs(&[]))
    }
}

impl PartialEq for UserProperties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for UserProperties<'_> {}

impl fmt::Debug for UserProperties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> Slot<'a> for UserProperties<'a> {
    fn fill(&mut self, _: u8, here: &'a [u8], reader: &mut Reader<'a>) -> Result<(), DecodeError> {
        // [MQTT-1.5.7-1]
        reader.string()?;
        reader.string()?;
        let len = (here.len() - reader.rest().len()) as u32;
        self.0 = match self.0 {
            Users::Wire { from, bytes, dense } => Users::Wire {
                from,
                bytes: bytes + len,
                dense: dense && from.len() - here.len() == bytes as usize,
            },
            Users::Pairs(_) => Users::Wire { from: here, bytes: len, dense: true },
        };
        Ok(())
    }

    fn write<S: Sink>(&self, id: u8, sink: &mut S) {
        if let Users::Wire { from, bytes, dense: true } = self.0 {
            sink.put(&from[..bytes as usize]);
            return;
        }
        for (name, value) in self.iter() {
            sink.u8(id);
            sink.string(name);
            sink.string(value);
        }
    }
}

/// The subscription identifiers of a PUBLISH: one for each subscription that it matched.
#[derive(Clone, Copy)]
pub struct SubscriptionIds<'a>(Ids<'a>);

#[derive(Clone, Copy)]
enum Ids<'a> {
    /// A validated block from its first subscription identifier on.
    Wire(&'a [u8]),
    List(&'a [SubscriptionId]),
}

impl<'a> SubscriptionIds<'a> {
    /// The identifiers of a packet to encode.
    pub const fn new(ids: &'a [SubscriptionId]) -> Self {
        SubscriptionIds(Ids::List(ids))
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        match self.0 {
            Ids::Wire(from) => from.is_empty(),
            Ids::List(list) => list.is_empty(),
        }
    }

    /// The identifiers in their order.
    pub fn iter(&self) -> impl Iterator<Item = SubscriptionId> + use<'a> {
        let (mut walk, mut list) = match self.0 {
            Ids::Wire(from) => (Walk(Reader::new(from)), [].iter()),
            Ids::List(list) => (Walk(Reader::new(&[])), list.iter()),
        };
        std::iter::from_fn(move || {
            walk.next_of(id::SUBSCRIPTION_ID)
                .and_then(|mut value| SubscriptionId::new(value.variable().ok()?))
                .or_else(|| list.next().copied())
        })
    }
}

impl Default for SubscriptionIds<'_> {
    fn default() -> Self {
        SubscriptionIds(Ids::List(&[]))
    }
}

impl PartialEq for SubscriptionIds<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for SubscriptionIds<'_> {}

impl fmt::Debug for SubscriptionIds<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> Slot<'a> for SubscriptionIds<'a> {
    fn fill(&mut self, id: u8, here: &'a [u8], reader: &mut Reader<'a>) -> Result<(), DecodeError> {
        SubscriptionId::read(id, reader)?;
        if let Ids::List(_) = self.0 {
            self.0 = Ids::Wire(here);
        }
        Ok(())
    }

    fn write<S: Sink>(&self, id: u8, sink: &mut S) {
        for subscription_id in self.iter() {
            sink.u8(id);
            sink.variable(subscription_id.get());
        }
    }
}

/// Walks a validated block.
struct Walk<'a>(Reader<'a>);

impl<'a> Walk<'a> {
    /// The next property `wanted`, as a reader at its value.
    fn next_of(&mut self, wanted: u8) -> Option<Reader<'a>> {
        while !self.0.is_empty() {
            let id = self.0.u8().ok()?;
            let value = self.0;
            skip(id, &mut self.0).ok()?;
            if id == wanted {
                return Some(value);
            }
        }
        None
    }
}

/// Skips the value of property `id` by its type (table 2-4).
fn skip(id: u8, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    let len = match id {
        id::PAYLOAD_FORMAT
        | id::REQUEST_PROBLEM_INFO
        | id::REQUEST_RESPONSE_INFO
        | id::QOS_MAX
        | id::RETAIN_AVAILABLE
        | id::WILDCARDS_AVAILABLE
        | id::SUBSCRIPTION_IDS_AVAILABLE
        | id::SHARED_AVAILABLE => 1,
        id::SERVER_KEEP_ALIVE | id::RECEIVE_MAX | id::TOPIC_ALIAS_MAX | id::TOPIC_ALIAS => 2,
        id::MESSAGE_EXPIRY | id::SESSION_EXPIRY | id::WILL_DELAY | id::PACKET_BYTES_MAX => 4,
        id::SUBSCRIPTION_ID => return reader.variable().map(drop),
        id::USER_PROPERTY => {
            reader.binary()?;
            return reader.binary().map(drop);
        }
        id::CONTENT_TYPE
        | id::RESPONSE_TOPIC
        | id::CORRELATION_DATA
        | id::ASSIGNED_CLIENT_ID
        | id::AUTH_METHOD
        | id::AUTH_DATA
        | id::RESPONSE_INFO
        | id::SERVER_REFERENCE
        | id::REASON_STRING => return reader.binary().map(drop),
        _ => return Err(DecodeError::PropertyNotAllowed(id)),
    };
    reader.take(len).map(drop)
}

macro_rules! properties {
    ($(
        $(#[$doc:meta])*
        $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $id:ident,)* }
    )*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct $name<'a> {
            $($(#[$field_doc])* pub $field: $type,)*
            /// Pairs of strings that MQTT gives no meaning.
            pub user_properties: UserProperties<'a>,
        }

        impl<'a> $name<'a> {
            /// Takes the properties out of a block. What is not listed for this packet is
            /// malformed, and so is what has the wrong type (section 2.2.2.2).
            pub(crate) fn parse(block: &'a [u8]) -> Result<Self, DecodeError> {
                let mut properties = Self::default();
                let mut reader = Reader::new(block);
                while !reader.is_empty() {
                    let here = reader.rest();
                    match reader.u8()? {
                        $(id::$id => properties.$field.fill(id::$id, here, &mut reader)?,)*
                        id::USER_PROPERTY => {
                            properties.user_properties.fill(id::USER_PROPERTY, here, &mut reader)?;
                        }
                        other => return Err(DecodeError::PropertyNotAllowed(other)),
                    }
                }
                Ok(properties)
            }

            /// Writes the block without its length.
            pub(crate) fn write<S: Sink>(&self, sink: &mut S) {
                $(self.$field.write(id::$id, sink);)*
                self.user_properties.write(id::USER_PROPERTY, sink);
            }

            /// Writes the length of the block, then the block `[MQTT-2.2.2-1]`.
            pub(crate) fn write_block<S: Sink>(&self, sink: &mut S) {
                sink.variable(self.block_len());
                self.write(sink);
            }

            /// Length of the block, without that of its length field.
            pub(crate) fn block_len(&self) -> u32 {
                let mut counter = Counter::default();
                self.write(&mut counter);
                u32::try_from(counter.len).unwrap_or(u32::MAX)
            }
        }
    )*};
}

properties! {
    /// Properties of CONNECT (section 3.1.2.11).
    ConnectProperties {
        /// How long the session outlives the connection, seconds; `u32::MAX` is for ever.
        session_expiry_s: Option<u32> = SESSION_EXPIRY,
        /// How many QoS 1 and 2 publishes the client takes at once.
        receive_max: Option<NonZeroU16> = RECEIVE_MAX,
        /// The largest packet the client takes, bytes.
        packet_bytes_max: Option<NonZeroU32> = PACKET_BYTES_MAX,
        /// The highest topic alias the client takes.
        topic_alias_max: Option<u16> = TOPIC_ALIAS_MAX,
        /// Whether CONNACK may hold response information; absent is no.
        request_response_info: Option<bool> = REQUEST_RESPONSE_INFO,
        /// Whether reason strings and user properties may be sent with failures; absent is yes.
        request_problem_info: Option<bool> = REQUEST_PROBLEM_INFO,
        /// The method of an extended authentication.
        auth_method: Option<&'a str> = AUTH_METHOD,
        /// Data of that method.
        auth_data: Option<Secret<'a>> = AUTH_DATA,
    }

    /// Properties of a will (section 3.1.3.2).
    WillProperties {
        /// How long to wait before publishing it, seconds.
        will_delay_s: Option<u32> = WILL_DELAY,
        /// Whether the payload is text.
        payload_format: Option<PayloadFormat> = PAYLOAD_FORMAT,
        /// How long the message is worth delivering, seconds.
        message_expiry_s: Option<u32> = MESSAGE_EXPIRY,
        /// A media type, or whatever the ends agree on.
        content_type: Option<&'a str> = CONTENT_TYPE,
        /// Where to answer.
        response_topic: Option<&'a str> = RESPONSE_TOPIC,
        /// What the answer repeats.
        correlation_data: Option<&'a [u8]> = CORRELATION_DATA,
    }

    /// Properties of CONNACK (section 3.2.2.3).
    ConnAckProperties {
        /// How long the session outlives the connection if not as asked for, seconds.
        session_expiry_s: Option<u32> = SESSION_EXPIRY,
        /// How many QoS 1 and 2 publishes the server takes at once.
        receive_max: Option<NonZeroU16> = RECEIVE_MAX,
        /// The highest QoS the server takes, if not 2. Encoding 2 is an error.
        qos_max: Option<QoS> = QOS_MAX,
        /// Whether messages can be retained; absent is yes.
        retain_available: Option<bool> = RETAIN_AVAILABLE,
        /// The largest packet the server takes, bytes.
        packet_bytes_max: Option<NonZeroU32> = PACKET_BYTES_MAX,
        /// The client identifier the server gave.
        assigned_client_id: Option<&'a str> = ASSIGNED_CLIENT_ID,
        /// The highest topic alias the server takes.
        topic_alias_max: Option<u16> = TOPIC_ALIAS_MAX,
        /// Words for a person.
        reason_string: Option<&'a str> = REASON_STRING,
        /// Whether filters may have wildcards; absent is yes.
        wildcards_available: Option<bool> = WILDCARDS_AVAILABLE,
        /// Whether subscriptions may have identifiers; absent is yes.
        subscription_ids_available: Option<bool> = SUBSCRIPTION_IDS_AVAILABLE,
        /// Whether subscriptions may be shared; absent is yes.
        shared_available: Option<bool> = SHARED_AVAILABLE,
        /// The keep-alive that the client must use instead of its own, seconds.
        server_keep_alive_s: Option<u16> = SERVER_KEEP_ALIVE,
        /// What response topics begin with.
        response_info: Option<&'a str> = RESPONSE_INFO,
        /// Another server.
        server_reference: Option<&'a str> = SERVER_REFERENCE,
        /// The method of an extended authentication.
        auth_method: Option<&'a str> = AUTH_METHOD,
        /// Data of that method.
        auth_data: Option<Secret<'a>> = AUTH_DATA,
    }

    /// Properties of PUBLISH (section 3.3.2.3).
    PublishProperties {
        /// Whether the payload is text.
        payload_format: Option<PayloadFormat> = PAYLOAD_FORMAT,
        /// How long the message is worth delivering, seconds.
        message_expiry_s: Option<u32> = MESSAGE_EXPIRY,
        /// A number for the topic.
        topic_alias: Option<NonZeroU16> = TOPIC_ALIAS,
        /// Where to answer.
        response_topic: Option<&'a str> = RESPONSE_TOPIC,
        /// What the answer repeats.
        correlation_data: Option<&'a [u8]> = CORRELATION_DATA,
        /// The subscriptions that it matched; only a server sends them.
        subscription_ids: SubscriptionIds<'a> = SUBSCRIPTION_ID,
        /// A media type, or whatever the ends agree on.
        content_type: Option<&'a str> = CONTENT_TYPE,
    }

    /// Properties of PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK.
    AckProperties {
        /// Words for a person.
        reason_string: Option<&'a str> = REASON_STRING,
    }

    /// Properties of SUBSCRIBE (section 3.8.2.1).
    SubscribeProperties {
        /// The identifier of these subscriptions.
        subscription_id: Option<SubscriptionId> = SUBSCRIPTION_ID,
    }

    /// Properties of UNSUBSCRIBE (section 3.10.2.1).
    UnsubscribeProperties {
    }

    /// Properties of DISCONNECT (section 3.14.2.2).
    DisconnectProperties {
        /// How long the session outlives the connection, seconds; only a client sends it.
        session_expiry_s: Option<u32> = SESSION_EXPIRY,
        /// Words for a person.
        reason_string: Option<&'a str> = REASON_STRING,
        /// Another server.
        server_reference: Option<&'a str> = SERVER_REFERENCE,
    }

    /// Properties of AUTH (section 3.15.2.2).
    AuthProperties {
        /// The method of the authentication.
        auth_method: Option<&'a str> = AUTH_METHOD,
        /// Data of that method.
        auth_data: Option<Secret<'a>> = AUTH_DATA,
        /// Words for a person.
        reason_string: Option<&'a str> = REASON_STRING,
    }
}

impl AckProperties<'_> {
    /// Whether there is no property, so that the block may be left out.
    pub const fn is_empty(&self) -> bool {
        self.reason_string.is_none() && self.user_properties.is_empty()
    }
}

impl<'a> PublishProperties<'a> {
    /// Appends the block of the properties that a server forwards unaltered, without a length:
    /// payload format, content type, response topic, correlation data and user properties
    /// `[MQTT-3.3.2-4]`, `[MQTT-3.3.2-15]`, `[MQTT-3.3.2-16]`, `[MQTT-3.3.2-17]`,
    /// `[MQTT-3.3.2-18]`, `[MQTT-3.3.2-20]`. [`ForwardProperties::parse`]
    /// reads it. Only fields of a decoded packet, or ones of at most 65,535 bytes, may be
    /// given; longer ones are an invariant violated.
    pub fn write_forward(&self, out: &mut Vec<u8>) {
        let forwarded = PublishProperties {
            message_expiry_s: None,
            topic_alias: None,
            subscription_ids: SubscriptionIds::default(),
            ..*self
        };
        out.reserve(forwarded.block_len() as usize);
        forwarded.write(out);
    }
}

impl<'a> WillProperties<'a> {
    /// The properties of the PUBLISH that the will becomes.
    pub fn publish(&self) -> PublishProperties<'a> {
        PublishProperties {
            payload_format: self.payload_format,
            message_expiry_s: self.message_expiry_s,
            content_type: self.content_type,
            response_topic: self.response_topic,
            correlation_data: self.correlation_data,
            user_properties: self.user_properties,
            ..PublishProperties::default()
        }
    }
}

/// The properties of a message that go unaltered to every receiver, encoded once.
///
/// A broker keeps these bytes beside the payload, and
/// [`PublishHead`](crate::PublishHead) copies them.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct ForwardProperties<'a>(&'a [u8]);

impl<'a> ForwardProperties<'a> {
    /// None.
    pub const EMPTY: ForwardProperties<'static> = ForwardProperties(&[]);

    /// Validates a block that [`PublishProperties::write_forward`] wrote, read back from
    /// wherever it was kept.
    ///
    /// # Errors
    /// It is no such block: a property is unknown or one that is not forwarded.
    pub fn parse(block: &'a [u8]) -> Result<Self, DecodeError> {
        let properties = PublishProperties::parse(block)?;
        if properties.message_expiry_s.is_some() {
            return Err(DecodeError::PropertyNotAllowed(id::MESSAGE_EXPIRY));
        }
        if properties.topic_alias.is_some() {
            return Err(DecodeError::PropertyNotAllowed(id::TOPIC_ALIAS));
        }
        if !properties.subscription_ids.is_empty() {
            return Err(DecodeError::PropertyNotAllowed(id::SUBSCRIPTION_ID));
        }
        Ok(ForwardProperties(block))
    }

    /// A block that is known to come from [`PublishProperties::write_forward`]: not checked
    /// again. Other bytes would make packets that their receivers refuse.
    pub const fn trusted(block: &'a [u8]) -> Self {
        ForwardProperties(block)
    }

    /// The block, without a length.
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The properties, one by one; none where the bytes were trusted wrongly.
    pub fn properties(self) -> PublishProperties<'a> {
        PublishProperties::parse(self.0).unwrap_or_default()
    }
}

impl fmt::Debug for ForwardProperties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ForwardProperties({} bytes)", self.0.len())
    }
}
