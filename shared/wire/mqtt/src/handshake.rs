//! The server's handshake as types: [`AwaitingConnect`] consumes the first packet and becomes
//! [`Connecting`], which is accepted and becomes a [`Link`], or is refused. No packet can be
//! handled out of turn, and no CONNACK sent twice `[MQTT-3.2.0-2]`.

use std::num::{NonZeroU16, NonZeroU32};

use crate::decode::Frame;
use crate::error::{DecodeError, EncodeError, Fault};
use crate::link::{Link, Rare, effective_max, encode_within};
use crate::packet::{Auth, ConnAck, Connect, Disconnect, Packet, PacketType, Secret, Version};
use crate::property::{ConnAckProperties, UserProperties};
use crate::reason::ReasonCode;
use crate::topic::TopicLimits;

/// What a server tells its clients it takes. One value serves all connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerLimits {
    /// How long a connection may take until its CONNACK, milliseconds.
    pub connect_timeout_ms: u64,
    /// The largest packet, bytes.
    pub packet_bytes_max: NonZeroU32,
    /// QoS 1 and 2 publishes in flight from one client.
    pub receive_max: NonZeroU16,
    /// The highest topic alias a client may use.
    pub inbound_alias_max: u16,
    /// The highest topic alias this server uses, if the client takes so many; each new PUBLISH
    /// looks through them, so some tens at most.
    pub outbound_alias_max: u16,
    /// The longest keep-alive, seconds; 0 leaves it to the client.
    pub keep_alive_max_s: u16,
    /// How long a session may outlive its connection, seconds.
    pub session_expiry_max_s: u32,
    /// How long and deep topic names and filters may be.
    pub topics: TopicLimits,
    /// Whether subscriptions may be shared.
    pub shared_subscriptions: bool,
}

impl Default for ServerLimits {
    fn default() -> Self {
        ServerLimits {
            connect_timeout_ms: 10_000,
            packet_bytes_max: NonZeroU32::MIN.saturating_add((1 << 20) - 1),
            receive_max: NonZeroU16::MIN.saturating_add(63),
            inbound_alias_max: 16,
            outbound_alias_max: 0,
            keep_alive_max_s: 1200,
            session_expiry_max_s: 7 * 24 * 3600,
            topics: TopicLimits::default(),
            shared_subscriptions: true,
        }
    }
}

/// A connection of which nothing was received.
#[derive(Debug)]
pub struct AwaitingConnect {
    deadline_ms: u64,
}

/// The first packet was not one that a connection can begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct ConnectRefused {
    /// What was wrong.
    pub fault: Fault,
    /// The version of the CONNACK that may be sent; none where the peer may not speak MQTT.
    pub version: Option<Version>,
}

impl ConnectRefused {
    /// Appends the CONNACK that says why, where the standard lets a server send one: an
    /// unsupported version `[MQTT-3.1.2-2]`, or a CONNECT of MQTT 5 `[MQTT-3.1.4-2]`. The
    /// connection is then closed.
    pub fn answer(&self, out: &mut Vec<u8>) {
        let reason = self.fault.reason();
        // 3.1.1 has a return code for few faults; for all others it says to close in silence.
        // [3.1.1: MQTT-3.1.2-2], [3.1.1: MQTT-3.1.4-1], [3.1.1: MQTT-3.2.2-6]
        let Some(version) = self.version else { return };
        let silent = version == Version::V311
            && !matches!(
                reason,
                ReasonCode::UnsupportedProtocolVersion | ReasonCode::ClientIdentifierNotValid
            );
        if silent || !reason.allowed_in(PacketType::ConnAck) {
            return;
        }
        let connack = ConnAck { reason, ..ConnAck::default() };
        // A CONNACK without properties always fits; were it otherwise, silence is an answer too.
        let _ = Packet::ConnAck(connack).encode(version, out);
    }
}

impl AwaitingConnect {
    /// A connection accepted at `now_ms`.
    pub const fn new(now_ms: u64, limits: &ServerLimits) -> Self {
        AwaitingConnect { deadline_ms: now_ms.saturating_add(limits.connect_timeout_ms) }
    }

    /// When to call [`AwaitingConnect::handle_timeout`].
    pub const fn deadline(&self) -> u64 {
        self.deadline_ms
    }

    /// Tells the time.
    ///
    /// # Errors
    /// The CONNECT did not come in time: close without a word.
    pub const fn handle_timeout(&self, now_ms: u64) -> Result<(), Fault> {
        if now_ms >= self.deadline_ms { Err(Fault::ConnectTimeout) } else { Ok(()) }
    }

    /// Takes the first packet. The caller then authenticates the client, finds its session, and
    /// accepts or refuses.
    ///
    /// # Errors
    /// It is no CONNECT `[MQTT-3.1.0-1]`, or not a valid one: send
    /// [`ConnectRefused::answer`] and close.
    pub fn handle<'p>(
        self,
        now_ms: u64,
        frame: &Frame<'p>,
        limits: &ServerLimits,
    ) -> Result<(Connecting, Connect<'p>), ConnectRefused> {
        let version = frame.connect_version();
        let refuse = |fault, version| ConnectRefused { fault, version };
        let connect =
            match frame.packet_type().map(|kind| (kind, Packet::decode(frame, Version::V5))) {
                Ok((PacketType::Connect, Ok(Packet::Connect(connect)))) => connect,
                Ok((PacketType::Connect, Err(error))) => {
                    let version = match error {
                        // Both the old and the new form begin alike, and a client of a version we do
                        // not know is answered as 3.1.1 did, or as MQTT 5 if it is newer.
                        DecodeError::ProtocolVersion(level) if level > 5 => Some(Version::V5),
                        DecodeError::ProtocolVersion(_) => Some(Version::V311),
                        _ => version,
                    };
                    return Err(refuse(error.into(), version));
                }
                Ok((kind, _)) => return Err(refuse(Fault::NotConnect(kind), None)),
                Err(error) => return Err(refuse(error.into(), None)),
            };
        Connecting::check(&connect, limits).map_err(|fault| refuse(fault, version))?;
        Ok((Connecting::new(now_ms, self.deadline_ms, &connect, limits), connect))
    }
}

/// A packet received before the CONNACK, in an extended authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectingEvent<'p> {
    /// The client's next step.
    Auth(Auth<'p>),
    /// The client leaves.
    Disconnect(Disconnect<'p>),
}

/// A connection that sent its CONNECT and waits for its CONNACK.
#[derive(Debug)]
pub struct Connecting {
    link: Link,
    deadline_ms: u64,
    asked_keep_alive_s: u16,
    clean_start: bool,
    session_expiry_s: u32,
    asked_session_expiry_s: u32,
    wants_response_info: bool,
}

/// What a CONNACK says beside the limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AcceptOptions<'a> {
    /// Whether the session existed and goes on.
    pub session_present: bool,
    /// The client identifier given to a client that sent none `[MQTT-3.2.2-16]`.
    pub assigned_client_id: Option<&'a str>,
    /// The last data of an extended authentication.
    pub auth_data: Option<&'a [u8]>,
    /// What response topics begin with; sent only to who asked `[MQTT-3.1.2-28]`.
    pub response_info: Option<&'a str>,
    /// Pairs of strings that MQTT gives no meaning.
    pub user_properties: UserProperties<'a>,
}

impl Connecting {
    fn check(connect: &Connect<'_>, limits: &ServerLimits) -> Result<(), Fault> {
        // [3.1.1: MQTT-3.1.3-7], [3.1.1: MQTT-3.1.3-8]
        let nameless = connect.client_id.is_empty() && !connect.clean_start;
        if connect.version == Version::V311 && nameless {
            return Err(Fault::ClientIdMissing);
        }
        match &connect.will {
            Some(will) => limits.topics.check(will.topic).map_err(|_| Fault::TopicNameLimit),
            None => Ok(()),
        }
    }

    fn new(now_ms: u64, deadline_ms: u64, connect: &Connect<'_>, limits: &ServerLimits) -> Self {
        let asked = &connect.properties;
        let asked_session_expiry_s = connect.session_expiry_s();
        let session_expiry_s = asked_session_expiry_s.min(limits.session_expiry_max_s);
        let too_long = connect.keep_alive_s == 0 || connect.keep_alive_s > limits.keep_alive_max_s;
        // MQTT 3.1.1 has no way to tell the client another keep-alive.
        let keep_alive_s =
            if connect.version == Version::V5 && limits.keep_alive_max_s != 0 && too_long {
                limits.keep_alive_max_s
            } else {
                connect.keep_alive_s
            };
        let link = Link {
            last_received_ms: now_ms,
            rare: asked.auth_method.map(|method| {
                Box::new(Rare { auth_method: Some(Box::from(method)), ..Rare::default() })
            }),
            packet_bytes_max: asked.packet_bytes_max.map_or(u32::MAX, NonZeroU32::get),
            topics: limits.topics,
            receive_max: limits.receive_max.get(),
            receiving: 0,
            peer_receive_max: effective_max(asked.receive_max, u16::MAX),
            keep_alive_s,
            inbound_alias_max: limits.inbound_alias_max,
            // [MQTT-3.1.2-26], [MQTT-3.1.2-27]
            outbound_alias_max: asked.topic_alias_max.unwrap_or(0).min(limits.outbound_alias_max),
            version: connect.version,
            problem_info: asked.request_problem_info.unwrap_or(true),
            expires_at_close: asked_session_expiry_s == 0,
        };
        Connecting {
            link,
            deadline_ms,
            asked_keep_alive_s: connect.keep_alive_s,
            clean_start: connect.clean_start,
            session_expiry_s,
            asked_session_expiry_s,
            wants_response_info: asked.request_response_info == Some(true),
        }
    }

    /// The version that the client asked for.
    pub const fn version(&self) -> Version {
        self.link.version
    }

    /// How long the session will outlive the connection, within the server's limit, seconds.
    pub const fn session_expiry_s(&self) -> u32 {
        self.session_expiry_s
    }

    /// When to call [`Connecting::handle_timeout`].
    pub const fn deadline(&self) -> u64 {
        self.deadline_ms
    }

    /// Tells the time.
    ///
    /// # Errors
    /// The connection was not accepted in time: refuse it or close.
    pub const fn handle_timeout(&self, now_ms: u64) -> Result<(), Fault> {
        if now_ms >= self.deadline_ms { Err(Fault::ConnectTimeout) } else { Ok(()) }
    }

    /// Appends an AUTH that goes on with an extended authentication `[MQTT-4.12.0-2]`.
    ///
    /// # Errors
    /// CONNECT named no method, or the packet is larger than the client takes.
    pub fn challenge(&mut self, data: Option<&[u8]>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.link.auth(ReasonCode::ContinueAuthentication, data, out)
    }

    /// Takes a packet before the CONNACK. A client without an authentication method may send
    /// packets without waiting for its CONNACK (section 3.1.4); do not feed them here but to the
    /// [`Link`], once there is one.
    ///
    /// # Errors
    /// The client broke a rule `[MQTT-3.1.2-30]`: refuse with [`Fault::reason`].
    pub fn handle<'p>(
        &mut self,
        now_ms: u64,
        frame: &Frame<'p>,
    ) -> Result<ConnectingEvent<'p>, Fault> {
        self.link.last_received_ms = now_ms;
        match Packet::decode(frame, self.link.version)? {
            Packet::Auth(auth) => {
                self.link.check_auth(&auth)?;
                // [MQTT-4.12.0-3]; a re-authentication needs an authentication first.
                if auth.reason != ReasonCode::ContinueAuthentication {
                    return Err(Fault::ReasonNotAllowed(auth.reason));
                }
                Ok(ConnectingEvent::Auth(auth))
            }
            Packet::Disconnect(disconnect) => Ok(ConnectingEvent::Disconnect(disconnect)),
            Packet::Connect(_) => Err(Fault::SecondConnect),
            other => Err(Fault::Unexpected(other.packet_type())),
        }
    }

    /// Accepts: appends the CONNACK with what differs from what the client asked for or assumes
    /// without being told.
    ///
    /// # Errors
    /// The CONNACK is larger than the client takes; close.
    pub fn accept(
        self,
        now_ms: u64,
        limits: &ServerLimits,
        options: &AcceptOptions<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Link, EncodeError> {
        let Connecting { mut link, .. } = self;
        let properties = ConnAckProperties {
            session_expiry_s: (self.session_expiry_s != self.asked_session_expiry_s)
                .then_some(self.session_expiry_s),
            receive_max: Some(limits.receive_max).filter(|max| max.get() != u16::MAX),
            packet_bytes_max: Some(limits.packet_bytes_max),
            assigned_client_id: options.assigned_client_id,
            topic_alias_max: Some(limits.inbound_alias_max).filter(|&max| max != 0),
            // [MQTT-3.2.2-22]: what is not said is what the client asked for.
            // [MQTT-3.2.2-21]
            server_keep_alive_s: (link.keep_alive_s != self.asked_keep_alive_s)
                .then_some(link.keep_alive_s),
            shared_available: (!limits.shared_subscriptions).then_some(false),
            response_info: options.response_info.filter(|_| self.wants_response_info),
            // [MQTT-4.12.0-5]
            auth_method: link.auth_method(),
            auth_data: options.auth_data.map(Secret::new).filter(|_| link.auth_method().is_some()),
            user_properties: options.user_properties,
            ..ConnAckProperties::default()
        };
        let connack = ConnAck {
            // [MQTT-3.2.2-2]
            // [MQTT-3.2.2-3]
            session_present: options.session_present && !self.clean_start,
            reason: ReasonCode::Success,
            properties,
        };
        encode_within(&Packet::ConnAck(connack), link.version, link.packet_bytes_max, out)?;
        link.last_received_ms = now_ms;
        Ok(link)
    }

    /// Refuses: appends a CONNACK with `reason`. The connection is then closed
    /// `[MQTT-3.2.2-7]`.
    ///
    /// # Errors
    /// `reason` is no failure that a CONNACK may carry, or the CONNACK is larger than the client
    /// takes; close all the same.
    pub fn refuse(
        self,
        reason: ReasonCode,
        reason_string: Option<&str>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let properties = ConnAckProperties { reason_string, ..ConnAckProperties::default() };
        self.refuse_as(reason, properties, out)
    }

    /// Refuses, and names another server (section 4.11); an MQTT 3.1.1 client is not told which.
    ///
    /// # Errors
    /// As [`Connecting::refuse`].
    pub fn redirect(
        self,
        reason: ReasonCode,
        server_reference: &str,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let server_reference = Some(server_reference);
        let properties = ConnAckProperties { server_reference, ..ConnAckProperties::default() };
        self.refuse_as(reason, properties, out)
    }

    fn refuse_as(
        self,
        reason: ReasonCode,
        properties: ConnAckProperties<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        if !reason.is_error() {
            return Err(EncodeError::Forbidden);
        }
        let connack = ConnAck { session_present: false, reason, properties };
        encode_within(&Packet::ConnAck(connack), self.link.version, self.link.packet_bytes_max, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::frame;
    use Version::{V5, V311};

    fn encoded(packet: &Packet<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        packet.encode(V5, &mut bytes).unwrap();
        bytes
    }

    fn first(bytes: &[u8]) -> Result<(Connecting, Connect<'_>), ConnectRefused> {
        let limits = ServerLimits::default();
        let frame = frame(bytes, u32::MAX).unwrap().unwrap();
        AwaitingConnect::new(0, &limits).handle(5, &frame, &limits)
    }

    fn connecting(connect: &Connect<'_>) -> Connecting {
        first(&encoded(&Packet::Connect(*connect))).unwrap().0
    }

    fn answer(refused: &ConnectRefused) -> Vec<u8> {
        let mut out = Vec::new();
        refused.answer(&mut out);
        out
    }

    /// The properties of the CONNACK, and the link.
    fn accept(connect: &Connect<'_>, limits: &ServerLimits) -> (String, Link) {
        let mut out = Vec::new();
        let bytes = encoded(&Packet::Connect(*connect));
        let connect_frame = frame(&bytes, u32::MAX).unwrap().unwrap();
        let awaiting = AwaitingConnect::new(0, limits);
        let connecting = awaiting.handle(5, &connect_frame, limits).unwrap().0;
        let link = connecting.accept(7, limits, &AcceptOptions::default(), &mut out).unwrap();
        let connack = frame(&out, u32::MAX).unwrap().unwrap();
        let shown = format!("{:?}", Packet::decode(&connack, connect.version).unwrap());
        (shown, link)
    }

    // [MQTT-3.1.0-1]
    #[test]
    fn mqtt_3_1_0_1_the_first_packet_is_connect() {
        let refused = first(&[0xC0, 0]).unwrap_err();
        assert_eq!(refused.fault, Fault::NotConnect(PacketType::PingReq));
        assert!(answer(&refused).is_empty());
        let refused = first(&[0x40, 0]).unwrap_err();
        assert_eq!(refused.fault, Fault::NotConnect(PacketType::PubAck));
    }

    #[test]
    fn a_connect_that_does_not_come_ends_in_a_timeout() {
        let limits = ServerLimits { connect_timeout_ms: 100, ..ServerLimits::default() };
        let awaiting = AwaitingConnect::new(50, &limits);
        assert_eq!(awaiting.deadline(), 150);
        assert_eq!(awaiting.handle_timeout(149), Ok(()));
        assert_eq!(awaiting.handle_timeout(150), Err(Fault::ConnectTimeout));
        let connecting = connecting(&Connect::new(V5, "c"));
        assert_eq!(connecting.handle_timeout(9_999), Ok(()));
        assert_eq!(connecting.handle_timeout(10_000), Err(Fault::ConnectTimeout));
    }

    // [MQTT-3.1.2-2], [3.1.1: MQTT-3.1.2-2]
    #[test]
    fn mqtt_3_1_2_2_an_unsupported_version_is_answered_in_its_own_form() {
        let old = first(b"\x10\x0F\x00\x06MQIsdp\x03\x02\0\0\0\x01c").unwrap_err();
        assert_eq!(answer(&old), [0x20, 2, 0, 1]);
        let new = first(b"\x10\x0E\x00\x04MQTT\x06\x02\0\0\0\0\x01c").unwrap_err();
        assert_eq!(answer(&new), [0x20, 3, 0, 0x84, 0]);
        let other = first(b"\x10\x0D\x00\x04HTTP\x04\x02\0\0\0\x01c").unwrap_err();
        assert!(answer(&other).is_empty());
    }

    // [MQTT-3.1.4-1], [3.1.1: MQTT-3.1.4-1], [3.1.1: MQTT-3.2.2-6]
    #[test]
    fn mqtt_3_1_4_2_a_bad_connect_of_mqtt_5_is_told_why_and_one_of_3_1_1_is_not() {
        let five = first(b"\x10\x0E\x00\x04MQTT\x05\x03\0\0\0\0\x01c").unwrap_err();
        assert_eq!(answer(&five), [0x20, 3, 0, 0x81, 0]);
        let three = first(b"\x10\x0D\x00\x04MQTT\x04\x03\0\0\0\x01c").unwrap_err();
        assert!(answer(&three).is_empty());
    }

    // [3.1.1: MQTT-3.1.3-7], [3.1.1: MQTT-3.1.3-8]
    #[test]
    fn mqtt_3_1_3_8_of_3_1_1_a_nameless_client_needs_a_clean_session() {
        let mut connect = Connect::new(V311, "");
        assert!(first(&encoded(&Packet::Connect(connect))).is_ok());
        connect.clean_start = false;
        let bytes = encoded(&Packet::Connect(connect));
        let refused = first(&bytes).unwrap_err();
        assert_eq!(refused.fault, Fault::ClientIdMissing);
        assert_eq!(answer(&refused), [0x20, 2, 0, 2]);
        connect.version = V5;
        assert!(first(&encoded(&Packet::Connect(connect))).is_ok());
    }

    // [MQTT-3.2.2-22]
    #[test]
    fn mqtt_3_2_2_21_a_server_keep_alive_is_told_to_clients_of_mqtt_5() {
        let limits = ServerLimits { keep_alive_max_s: 60, ..ServerLimits::default() };
        for (version, asked, in_force) in
            [(V5, 0, 60), (V5, 61, 60), (V5, 60, 60), (V5, 5, 5), (V311, 0, 0), (V311, 99, 99)]
        {
            let mut connect = Connect::new(version, "c");
            connect.keep_alive_s = asked;
            let (connack, link) = accept(&connect, &limits);
            assert_eq!(link.keep_alive_s(), in_force);
            let told = connack.contains("server_keep_alive_s: Some(60)");
            assert_eq!(told, version == V5 && asked != in_force, "{asked}");
        }
        let limits = ServerLimits { keep_alive_max_s: 0, ..ServerLimits::default() };
        assert_eq!(accept(&Connect::new(V5, "c"), &limits).1.keep_alive_s(), 0);
    }

    #[test]
    fn mqtt_3_2_2_a_connack_tells_the_limits() {
        let mut connect = Connect::new(V5, "c");
        connect.properties.session_expiry_s = Some(u32::MAX);
        let (connack, link) = accept(&connect, &ServerLimits::default());
        for told in [
            "session_expiry_s: Some(604800)",
            "receive_max: Some(64)",
            "packet_bytes_max: Some(1048576)",
            "topic_alias_max: Some(16)",
        ] {
            assert!(connack.contains(told), "{told} in {connack}");
        }
        assert!(!link.expires_at_close);
        connect.properties.session_expiry_s = None;
        let (connack, link) = accept(&connect, &ServerLimits::default());
        assert!(connack.contains("session_expiry_s: None"));
        assert!(link.expires_at_close);
    }

    #[test]
    fn a_server_without_shared_subscriptions_says_so() {
        let connect = Connect::new(V5, "c");
        for (shared_subscriptions, told) in [(true, "None"), (false, "Some(false)")] {
            let limits = ServerLimits { shared_subscriptions, ..ServerLimits::default() };
            let told = format!("shared_available: {told}");
            assert!(accept(&connect, &limits).0.contains(&told));
        }
    }

    // [MQTT-3.2.2-2]
    #[test]
    fn mqtt_3_2_2_2_a_clean_start_has_no_session_present() {
        let limits = ServerLimits::default();
        for clean_start in [true, false] {
            let connect = Connect { clean_start, ..Connect::new(V311, "c") };
            let mut out = Vec::new();
            let options = AcceptOptions { session_present: true, ..AcceptOptions::default() };
            connecting(&connect).accept(0, &limits, &options, &mut out).unwrap();
            assert_eq!(out, [0x20, 2, u8::from(!clean_start), 0]);
        }
    }

    // [MQTT-3.1.2-28]
    #[test]
    fn mqtt_3_1_2_28_response_information_is_for_who_asked() {
        let limits = ServerLimits::default();
        let options = AcceptOptions { response_info: Some("r/"), ..AcceptOptions::default() };
        for asked in [None, Some(false), Some(true)] {
            let mut connect = Connect::new(V5, "c");
            connect.properties.request_response_info = asked;
            let mut out = Vec::new();
            connecting(&connect).accept(0, &limits, &options, &mut out).unwrap();
            assert_eq!(out.ends_with(b"r/"), asked == Some(true));
        }
    }

    // [MQTT-3.2.2-6], [MQTT-4.12.0-4]
    #[test]
    fn mqtt_3_2_2_7_a_refusal_says_why_in_either_version() {
        let reason = ReasonCode::BadUserNameOrPassword;
        let mut out = Vec::new();
        connecting(&Connect::new(V311, "c")).refuse(reason, Some("no"), &mut out).unwrap();
        assert_eq!(out, [0x20, 2, 0, 4]);
        out.clear();
        connecting(&Connect::new(V5, "c")).refuse(reason, Some("no"), &mut out).unwrap();
        assert_eq!(out, b"\x20\x08\0\x86\x05\x1F\0\x02no");
        let success =
            connecting(&Connect::new(V5, "c")).refuse(ReasonCode::Success, None, &mut out);
        assert_eq!(success, Err(EncodeError::Forbidden));
    }

    // [MQTT-3.1.2-30], [MQTT-4.12.0-2], [MQTT-4.12.0-5]
    #[test]
    fn mqtt_3_1_2_30_only_auth_and_disconnect_come_before_connack() {
        let mut connect = Connect::new(V5, "c");
        connect.properties.auth_method = Some("m");
        let mut connecting = connecting(&connect);
        let mut out = Vec::new();
        connecting.challenge(Some(b"1"), &mut out).unwrap();
        assert_eq!(out, b"\xF0\x0A\x18\x08\x15\0\x01m\x16\0\x011");
        let step = frame(&out, 100).unwrap().unwrap();
        assert!(matches!(connecting.handle(1, &step), Ok(ConnectingEvent::Auth(_))));
        let ping = frame(&[0xC0, 0], 100).unwrap().unwrap();
        let fault = connecting.handle(1, &ping).unwrap_err();
        assert_eq!(fault, Fault::Unexpected(PacketType::PingReq));
        let again = encoded(&Packet::Auth(Auth {
            reason: ReasonCode::ReAuthenticate,
            properties: crate::AuthProperties {
                auth_method: Some("m"),
                ..crate::AuthProperties::default()
            },
        }));
        let again = frame(&again, 100).unwrap().unwrap();
        assert!(connecting.handle(1, &again).is_err());
        let leave = frame(&[0xE0, 0], 100).unwrap().unwrap();
        assert!(matches!(connecting.handle(1, &leave), Ok(ConnectingEvent::Disconnect(_))));
        // [MQTT-4.12.0-5]
        out.clear();
        let options = AcceptOptions { auth_data: Some(b"2"), ..AcceptOptions::default() };
        connecting.accept(1, &ServerLimits::default(), &options, &mut out).unwrap();
        assert!(out.windows(8).any(|bytes| bytes == b"\x15\0\x01m\x16\0\x012"));
    }
}
