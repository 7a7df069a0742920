//! An MQTT client that keeps all rules of the standard, and forgets nothing of its session. It
//! tells the model what it sees.

use std::collections::{BTreeMap, VecDeque};
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use sextant_mqtt::{
    Ack, ClientEvent, ClientHandshake, ClientLink, ClientStep, Connect, Delivery, Fault, Filters,
    Inbound, Inflight, Packet, PacketId, Puback, Pubcomp, Publish, PublishProperties, Pubrec, QoS,
    ReasonCode, Received, Released, RetainHandling, Session, SessionLimits, Subscribe,
    Subscription, Subscriptions, Unsubscribe, Version, Will, WillProperties,
};
use sextant_ring::sim::SimPeer;

use crate::model::{Model, MsgId};

/// What a client asks for when it connects.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    pub(crate) name: String,
    pub(crate) version: Version,
    /// Whether its session outlives a connection.
    pub(crate) persistent: bool,
    /// For how long, in MQTT 5.
    pub(crate) expiry_s: u32,
    pub(crate) receive_max: Option<u16>,
    /// Topic aliases that it takes.
    pub(crate) alias_max: u16,
    /// The longest packet that it takes, in MQTT 5; zero: any.
    pub(crate) packet_bytes_max: u32,
    /// Zero: none.
    pub(crate) keep_alive_s: u16,
    pub(crate) will: Option<WillOf>,
}

impl Profile {
    pub(crate) fn persistent(name: &str, version: Version) -> Profile {
        Profile {
            name: name.to_owned(),
            version,
            persistent: true,
            expiry_s: 24 * 3600,
            receive_max: None,
            alias_max: name.len() as u16 % 4,
            packet_bytes_max: 0,
            keep_alive_s: 0,
            will: None,
        }
    }

    pub(crate) fn clean(name: &str, version: Version) -> Profile {
        Profile { persistent: false, expiry_s: 0, ..Profile::persistent(name, version) }
    }
}

/// The will of a client.
#[derive(Clone, Debug)]
pub(crate) struct WillOf {
    pub(crate) message: MsgId,
    pub(crate) delay_s: u32,
}

enum Stage {
    Connecting(ClientHandshake),
    Online(ClientLink),
    /// Nothing more is to be read.
    Over,
}

/// A connection.
struct Wire {
    peer: SimPeer,
    inbound: Inbound,
    stage: Stage,
    /// What is to be sent, in packets that may be cut anywhere.
    out: Vec<u8>,
}

impl Wire {
    fn is_connecting(&self) -> bool {
        matches!(self.stage, Stage::Connecting(_))
    }
}

/// How long a packet may be on its way, for all a client knows.
const GRACE_MS: u64 = 5000;

enum Request {
    Subscribe(Vec<String>),
    Unsubscribe,
}

/// How a connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parting {
    /// By a reset, in the middle of a packet if one is under way.
    Reset,
    /// In order, as far as TCP goes.
    Close,
    /// With DISCONNECT.
    Disconnect,
}

/// The direction of bytes, as their client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Sent,
    Received,
}

/// Cuts a connection behind so many bytes of one direction: what comes behind them is lost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fuse {
    pub(crate) way: Way,
    pub(crate) left: usize,
    /// How the connection ends then.
    pub(crate) how: Parting,
    /// It has been cut.
    pub(crate) blown: bool,
}

impl Fuse {
    /// How many of so many more bytes may pass.
    fn pass(&mut self, way: Way, bytes: usize) -> usize {
        if self.blown || self.way != way {
            return bytes;
        }
        let passed = bytes.min(self.left);
        self.left -= passed;
        self.blown = self.left == 0;
        passed
    }
}

/// A client.
pub(crate) struct Client {
    pub(crate) me: usize,
    pub(crate) profile: Profile,
    wire: Option<Wire>,
    /// Connections that another one took the place of.
    abandoned: Vec<SimPeer>,
    flight: Session<MsgId>,
    outbox: VecDeque<MsgId>,
    requests: BTreeMap<PacketId, Request>,
    /// Acknowledgements that it has yet to send, while it is lazy.
    acks: VecDeque<Packet<'static>>,
    pub(crate) lazy: bool,
    /// It refuses what comes at QoS 1, where its version has words for that.
    pub(crate) refuses: bool,
    /// Of its next connection, or this one.
    pub(crate) fuse: Option<Fuse>,
    /// CONNECT asks for a clean start until that was granted.
    wants_clean: bool,
    /// Something was acknowledged in this session, so that the broker cannot forget it.
    certain: bool,
    /// Since when it has no connection, milliseconds.
    offline_since_ms: u64,
    /// Until then it does not try again: a CONNECT that asked for a clean start is still on its way
    /// on a connection that was lost, and would end whatever session there is by then.
    not_before_ms: u64,
    /// When it was last looked after.
    now_ms: u64,
    /// Why the last connection was refused or ended by the broker.
    pub(crate) told: Option<ReasonCode>,
    /// Of the last CONNACK.
    pub(crate) session_present: Option<bool>,
    /// Message numbers in the order in which they came, with QoS and RETAIN flag.
    pub(crate) inbox: Vec<(MsgId, QoS, bool)>,
    /// Messages that came with an alias in place of their topic.
    pub(crate) by_alias: u32,
    /// Reason codes of PUBACK and PUBREC that were refusals.
    pub(crate) refusals: Vec<(MsgId, ReasonCode)>,
    sending: BTreeMap<PacketId, MsgId>,
    /// Whether it sends what is new under the least identifier that is free, rather than under one
    /// after the other.
    pub(crate) reuses_ids: bool,
    /// The packet identifiers in use, as its session numbers them and as they are sent.
    wire_ids: BTreeMap<PacketId, PacketId>,
}

impl Client {
    pub(crate) fn new(profile: Profile, model: &mut Model) -> Client {
        let me = model.add_client(profile.persistent);
        Client {
            me,
            profile,
            wire: None,
            abandoned: Vec::new(),
            flight: Session::new(SessionLimits { inflight_max: 16, received_max: u16::MAX }),
            outbox: VecDeque::new(),
            requests: BTreeMap::new(),
            acks: VecDeque::new(),
            lazy: false,
            refuses: false,
            fuse: None,
            wants_clean: false,
            certain: false,
            offline_since_ms: 0,
            not_before_ms: 0,
            now_ms: 0,
            told: None,
            session_present: None,
            inbox: Vec::new(),
            by_alias: 0,
            refusals: Vec::new(),
            sending: BTreeMap::new(),
            reuses_ids: true,
            wire_ids: BTreeMap::new(),
        }
    }

    pub(crate) fn is_offline(&self) -> bool {
        self.wire.is_none()
    }

    pub(crate) fn is_online(&self) -> bool {
        self.wire.as_ref().is_some_and(|wire| matches!(wire.stage, Stage::Online(_)))
    }

    /// Whether it waits for nothing.
    pub(crate) fn is_settled(&self) -> bool {
        self.is_online()
            && self.outbox.is_empty()
            && self.requests.is_empty()
            && self.acks.is_empty()
            && self.flight.is_empty()
    }

    /// What it waits for, in words.
    pub(crate) fn waits_for(&self) -> String {
        format!(
            "client {} {:?}: online {}, {} to publish, {} requests, {} in flight, {} received",
            self.me,
            self.profile.name,
            self.is_online(),
            self.outbox.len(),
            self.requests.len(),
            self.flight.inflight_len(),
            self.flight.received_len(),
        )
    }

    /// The machine stood still: what was on its way has not come closer.
    pub(crate) fn suspended(&mut self, time: Duration) {
        self.not_before_ms += time.as_millis() as u64;
    }

    /// The next connection begins anew.
    pub(crate) fn want_clean(&mut self) {
        self.wants_clean = true;
    }

    /// Opens a connection; one that is open already is left to itself.
    pub(crate) fn connect(&mut self, peer: SimPeer, now_ms: u64, model: &mut Model) {
        let connecting = self.wire.as_ref().is_some_and(Wire::is_connecting);
        if now_ms < self.not_before_ms || (self.wants_clean && connecting) {
            return;
        }
        self.drop_wire(now_ms, model).into_iter().for_each(|peer| self.abandoned.push(peer));
        let Profile { name, version, persistent, expiry_s, receive_max, .. } = self.profile.clone();
        let Profile { alias_max, packet_bytes_max, keep_alive_s, will, .. } = self.profile.clone();
        let payload;
        let topic;
        let mut connect = Connect::new(version, &name);
        connect.clean_start = !persistent || self.wants_clean;
        connect.keep_alive_s = keep_alive_s;
        if version == Version::V5 {
            connect.properties.session_expiry_s = persistent.then_some(expiry_s);
            connect.properties.receive_max = receive_max.and_then(NonZeroU16::new);
            connect.properties.topic_alias_max = Some(alias_max).filter(|max| *max > 0);
            connect.properties.packet_bytes_max = NonZeroU32::new(packet_bytes_max);
        }
        if let Some(will) = will {
            let message = &model.messages[will.message];
            payload = message.payload(will.message);
            topic = message.topic.clone();
            let (qos, retain) = (message.qos, message.retain);
            connect.will = Some(Will {
                qos,
                retain,
                topic: &topic,
                payload: &payload,
                properties: WillProperties {
                    will_delay_s: Some(will.delay_s)
                        .filter(|delay| *delay > 0 && version == Version::V5),
                    ..WillProperties::default()
                },
            });
            model.sent(will.message);
        }
        let mut out = Vec::new();
        let handshake = ClientHandshake::start(now_ms, &connect, &mut out).unwrap();
        if connect.clean_start {
            self.forget_session(model);
        }
        let stage = Stage::Connecting(handshake);
        self.told = None;
        self.session_present = None;
        self.wire = Some(Wire { peer, inbound: Inbound::new(u32::MAX), stage, out });
    }

    fn forget_session(&mut self, model: &mut Model) {
        self.flight = Session::new(SessionLimits { inflight_max: 16, received_max: u16::MAX });
        self.certain = false;
        self.sending.clear();
        self.wire_ids.clear();
        model.session_is_new(self.me);
    }

    fn drop_wire(&mut self, now_ms: u64, model: &mut Model) -> Option<SimPeer> {
        let wire = self.wire.take()?;
        for (packet_id, _) in std::mem::take(&mut self.requests) {
            self.wire_ids.remove(&packet_id);
        }
        self.acks.clear();
        self.offline_since_ms = now_ms;
        if self.wants_clean && wire.is_connecting() {
            self.not_before_ms = now_ms + GRACE_MS;
        }
        model.disconnected(self.me);
        if !self.profile.persistent {
            self.forget_session(model);
        }
        Some(wire.peer)
    }

    /// Ends the connection.
    pub(crate) fn part(&mut self, how: Parting, cut: usize, now_ms: u64, model: &mut Model) {
        let Some(wire) = &mut self.wire else { return };
        if how == Parting::Disconnect
            && let Stage::Online(link) = &mut wire.stage
        {
            link.disconnect(now_ms, ReasonCode::Success, &mut wire.out).unwrap();
            wire.peer.send(&wire.out);
        } else {
            let cut = cut.min(wire.out.len());
            wire.peer.send(&wire.out[..cut]);
        }
        self.end_wire(how, now_ms, model);
    }

    fn end_wire(&mut self, how: Parting, now_ms: u64, model: &mut Model) {
        if let Some(mut peer) = self.drop_wire(now_ms, model) {
            match how {
                Parting::Reset => peer.reset(),
                Parting::Close | Parting::Disconnect => peer.close(),
            }
        }
    }

    pub(crate) fn pause_reading(&self) {
        self.wire.iter().for_each(|wire| wire.peer.pause_reading());
    }

    pub(crate) fn resume_reading(&self) {
        self.wire.iter().for_each(|wire| wire.peer.resume_reading());
    }

    pub(crate) fn publish(&mut self, id: MsgId) {
        self.outbox.push_back(id);
    }

    /// Messages that it has not sent.
    pub(crate) fn outbox_len(&self) -> usize {
        self.outbox.len()
    }

    /// Subscribes, if it is online and does not wait to hear of the same filter; with the options of MQTT 5 where that is spoken.
    pub(crate) fn subscribe(
        &mut self,
        filters: &[&str],
        qos: QoS,
        no_local: bool,
        model: &mut Model,
    ) -> bool {
        let waits = |filter: &&str| {
            self.requests.values().any(|request| match request {
                Request::Subscribe(asked) => asked.iter().any(|other| other == filter),
                Request::Unsubscribe => false,
            })
        };
        if filters.iter().any(waits) {
            return false;
        }
        let Some(Wire { stage: Stage::Online(link), out, .. }) = &mut self.wire else {
            return false;
        };
        let Some(packet_id) = self.flight.reserve_id() else { return false };
        let wire_id = wire_id(&mut self.wire_ids, packet_id, self.reuses_ids);
        let no_local = no_local && link.version() == Version::V5;
        let list: Vec<Subscription<'_>> = filters
            .iter()
            .map(|filter| Subscription { no_local, ..Subscription::new(filter, qos) })
            .collect();
        assert!(list.iter().all(|one| one.retain_handling == RetainHandling::Send));
        let subscribe = Packet::Subscribe(Subscribe {
            packet_id: wire_id,
            properties: sextant_mqtt::SubscribeProperties::default(),
            subscriptions: Subscriptions::new(&list),
        });
        link.send(self.now_ms, &subscribe, out).unwrap();
        let filters: Vec<String> = filters.iter().map(|&filter| filter.to_owned()).collect();
        for filter in &filters {
            model.subscribing(self.me, filter, qos, no_local);
        }
        self.requests.insert(packet_id, Request::Subscribe(filters));
        true
    }

    pub(crate) fn unsubscribe(&mut self, filter: &str, model: &mut Model) -> bool {
        let Some(Wire { stage: Stage::Online(link), out, .. }) = &mut self.wire else {
            return false;
        };
        let Some(packet_id) = self.flight.reserve_id() else { return false };
        let filters = [filter];
        let unsubscribe = Packet::Unsubscribe(Unsubscribe {
            packet_id: wire_id(&mut self.wire_ids, packet_id, self.reuses_ids),
            properties: sextant_mqtt::UnsubscribeProperties::default(),
            filters: Filters::new(&filters),
        });
        link.send(self.now_ms, &unsubscribe, out).unwrap();
        model.unsubscribing(self.me, filter);
        self.requests.insert(packet_id, Request::Unsubscribe);
        true
    }

    // --- What happens by itself ---

    /// Reads and writes. `cut` says how much of what is to be sent is sent now.
    pub(crate) fn poll(&mut self, now_ms: u64, cut: Option<usize>, model: &mut Model) {
        self.now_ms = now_ms;
        self.abandoned.retain_mut(|peer| {
            let _ = peer.received();
            !peer.is_closed()
        });
        let Some(mut wire) = self.wire.take() else { return };
        let mut bytes = wire.peer.received();
        if let Some(fuse) = &mut self.fuse {
            bytes.truncate(fuse.pass(Way::Received, bytes.len()));
        }
        // Asked behind the bytes: what comes in between is read next time.
        let over = wire.peer.is_closed() && wire.peer.received_len() == 0;
        let mut data = &bytes[..];
        while let Ok(Some(frame)) = wire.inbound.next_frame(&mut data) {
            let stage = std::mem::replace(&mut wire.stage, Stage::Over);
            wire.stage = self.read(stage, &frame, now_ms, &mut wire.out, model);
        }
        if let Stage::Online(link) = &mut wire.stage {
            match link.handle_timeout(now_ms, &mut wire.out) {
                Ok(()) => {
                    self.send_acks(link, &mut wire.out);
                    self.send_messages(link, &mut wire.out, model);
                }
                Err(Fault::KeepAliveTimeout) => {
                    model.tell(|| format!("client {} hears nothing", self.me));
                    wire.stage = Stage::Over;
                }
                Err(fault) => panic!("client {}: {fault}", self.me),
            }
        }
        let mut cut = cut.unwrap_or(wire.out.len()).min(wire.out.len());
        if let Some(fuse) = &mut self.fuse {
            cut = fuse.pass(Way::Sent, cut);
        }
        wire.peer.send(&wire.out[..cut]);
        wire.out.drain(..cut);
        if let Some(how) = self.fuse.filter(|fuse| fuse.blown).map(|fuse| fuse.how) {
            self.wire = Some(wire);
            self.end_wire(how, now_ms, model);
            return;
        }
        let over = over || wire.peer.is_refused() || matches!(wire.stage, Stage::Over);
        self.wire = Some(wire);
        if over {
            drop(self.drop_wire(now_ms, model));
        }
    }

    fn read(
        &mut self,
        stage: Stage,
        frame: &sextant_mqtt::Frame<'_>,
        now_ms: u64,
        out: &mut Vec<u8>,
        model: &mut Model,
    ) -> Stage {
        match stage {
            Stage::Over => Stage::Over,
            Stage::Connecting(handshake) => match handshake.handle(frame) {
                Ok(ClientStep::Connected(link, connack)) => {
                    let mut link = link;
                    let stays = self.connected(connack.session_present, now_ms, model);
                    if !stays {
                        link.disconnect(now_ms, ReasonCode::Success, out).unwrap();
                        return Stage::Over;
                    }
                    self.flight.resume(link.peer_receive_max());
                    self.resend(&mut link, out, model);
                    Stage::Online(link)
                }
                Ok(ClientStep::Refused(connack)) => {
                    self.told = Some(connack.reason);
                    Stage::Over
                }
                Ok(ClientStep::Auth(..)) => panic!("nobody asked for an authentication"),
                Err(fault) => panic!("client {}: {fault}", self.me),
            },
            Stage::Online(mut link) => {
                let event = match link.handle_frame(frame) {
                    Ok(event) => event,
                    Err(fault) => panic!("client {}: the broker broke a rule: {fault}", self.me),
                };
                if let ClientEvent::Disconnect(disconnect) = &event {
                    self.disconnected_by_broker(disconnect.reason, model);
                    return Stage::Over;
                }
                self.event(&event, &mut link, out, model);
                Stage::Online(link)
            }
        }
    }

    fn disconnected_by_broker(&mut self, reason: ReasonCode, model: &Model) {
        self.told = Some(reason);
        let fair = [
            ReasonCode::SessionTakenOver,
            ReasonCode::ServerShuttingDown,
            ReasonCode::QuotaExceeded,
            ReasonCode::ImplementationSpecificError,
            ReasonCode::AdministrativeAction,
            ReasonCode::UseAnotherServer,
            ReasonCode::ServerMoved,
        ];
        let late = reason == ReasonCode::KeepAliveTimeout && model.clients_may_be_late;
        assert!(late || fair.contains(&reason), "client {} was told {reason:?}", self.me);
    }

    /// Whether the client goes on with this connection.
    fn connected(&mut self, session_present: bool, now_ms: u64, model: &mut Model) -> bool {
        self.session_present = Some(session_present);
        model.tell(|| format!("client {} is connected, session {session_present}", self.me));
        let clean = !self.profile.persistent || self.wants_clean;
        assert!(!(clean && session_present), "a clean start has no session");
        let offline_ms = now_ms.saturating_sub(self.offline_since_ms);
        // Half a second for the broker to find out about expiry, either way.
        let expired = self.profile.version == Version::V5
            && offline_ms + 500 >= u64::from(self.profile.expiry_s) * 1000;
        if !clean && !session_present {
            assert!(
                !self.certain || expired,
                "client {} {:?}: its session is lost",
                self.me,
                self.profile.name
            );
            self.forget_session(model);
        }
        self.wants_clean = false;
        // In 3.1.1 a clean session ends with its connection: one that is to last takes another.
        !(self.profile.version == Version::V311 && self.profile.persistent && clean)
    }

    /// Sends again what was not answered on the last connection.
    fn resend(&mut self, link: &mut ClientLink, out: &mut Vec<u8>, model: &mut Model) {
        while let Some((packet_id, inflight)) = self.flight.resend() {
            let packet_id = wire_id(&mut self.wire_ids, packet_id, self.reuses_ids);
            match inflight {
                Inflight::AwaitPuback(id) | Inflight::AwaitPubrec(id) => {
                    let id = *id;
                    send_message(link, self.now_ms, out, model, id, packet_id, true);
                }
                Inflight::AwaitPubcomp => {
                    let ack = Ack::new(packet_id, ReasonCode::Success);
                    link.send(self.now_ms, &Packet::PubRel(ack), out).unwrap();
                }
            }
        }
    }

    fn send_messages(&mut self, link: &mut ClientLink, out: &mut Vec<u8>, model: &mut Model) {
        while let Some(&id) = self.outbox.front() {
            let qos = model.messages[id].qos;
            if qos == QoS::AtMostOnce {
                self.outbox.pop_front();
                send_message(link, self.now_ms, out, model, id, PacketId::MIN, false);
                continue;
            }
            let Ok(packet_id) = self.flight.begin(qos, id) else { return };
            self.outbox.pop_front();
            self.sending.insert(packet_id, id);
            let packet_id = wire_id(&mut self.wire_ids, packet_id, self.reuses_ids);
            send_message(link, self.now_ms, out, model, id, packet_id, false);
        }
    }

    fn send_acks(&mut self, link: &mut ClientLink, out: &mut Vec<u8>) {
        while !self.lazy
            && let Some(ack) = self.acks.pop_front()
        {
            link.send(self.now_ms, &ack, out).unwrap();
        }
    }

    fn event(
        &mut self,
        event: &ClientEvent<'_>,
        link: &mut ClientLink,
        out: &mut Vec<u8>,
        model: &mut Model,
    ) {
        match event {
            ClientEvent::Publish { topic, publish } => {
                self.by_alias += u32::from(publish.topic.is_empty());
                self.published(topic, publish, model);
            }
            ClientEvent::PubAck(ack) => {
                let packet_id = self.freed(ack.packet_id);
                match self.flight.puback(packet_id, ack.reason) {
                    Puback::Acknowledged(id) => model.acknowledged(id),
                    Puback::Refused(id) => self.refused(id, ack.reason, model),
                    other => panic!("client {}: PUBACK {}: {other:?}", self.me, ack.packet_id),
                }
            }
            ClientEvent::PubRec(ack) => {
                match self.flight.pubrec(self.own_id(ack.packet_id), ack.reason) {
                    Pubrec::Release(id) => {
                        self.certain = self.profile.persistent;
                        model.acknowledged(id);
                        let ack = Ack::new(ack.packet_id, ReasonCode::Success);
                        link.send(self.now_ms, &Packet::PubRel(ack), out).unwrap();
                    }
                    Pubrec::Refused(id) => {
                        self.freed(ack.packet_id);
                        self.refused(id, ack.reason, model);
                    }
                    other => panic!("client {}: PUBREC {}: {other:?}", self.me, ack.packet_id),
                }
            }
            ClientEvent::PubComp(ack) => {
                let packet_id = self.freed(ack.packet_id);
                match self.flight.pubcomp(packet_id) {
                    Pubcomp::Completed => self.certain = self.profile.persistent,
                    other => panic!("client {}: PUBCOMP {}: {other:?}", self.me, ack.packet_id),
                }
            }
            ClientEvent::PubRel(ack) => {
                let reason = match self.flight.release(ack.packet_id) {
                    Released::Known => ReasonCode::Success,
                    Released::Unknown => ReasonCode::PacketIdentifierNotFound,
                };
                self.acks.push_back(Packet::PubComp(Ack::new(ack.packet_id, reason)));
            }
            ClientEvent::SubAck(suback) => {
                let packet_id = self.freed(suback.packet_id);
                let request = self.requests.remove(&packet_id);
                let Some(Request::Subscribe(filters)) = request else {
                    panic!("client {}: nobody asked for {suback:?}", self.me);
                };
                self.flight.free_id(packet_id);
                self.certain = self.profile.persistent;
                assert_eq!(suback.reasons.iter().count(), filters.len());
                for (filter, reason) in filters.iter().zip(suback.reasons.iter()) {
                    assert!(!reason.is_error(), "{filter:?}: {reason:?}");
                    model.subscribed(self.me, filter);
                }
            }
            ClientEvent::UnsubAck(unsuback) => {
                let packet_id = self.freed(unsuback.packet_id);
                let request = self.requests.remove(&packet_id);
                assert!(matches!(request, Some(Request::Unsubscribe)), "{unsuback:?}");
                self.flight.free_id(packet_id);
                self.certain = self.profile.persistent;
            }
            ClientEvent::PingResp => {}
            ClientEvent::Disconnect(_) | ClientEvent::Auth(_) => panic!("{event:?}"),
        }
        // An acknowledgement makes room for what has to be sent again.
        self.resend(link, out, model);
    }

    /// What its session calls a packet identifier that the broker names.
    fn own_id(&self, wire_id: PacketId) -> PacketId {
        let found = self.wire_ids.iter().find(|(_, used)| **used == wire_id);
        let Some((packet_id, _)) = found else {
            panic!("client {}: nothing is under way as {wire_id}", self.me);
        };
        *packet_id
    }

    /// As [`own_id`](Self::own_id), of one that may be used again.
    fn freed(&mut self, wire_id: PacketId) -> PacketId {
        let packet_id = self.own_id(wire_id);
        self.wire_ids.remove(&packet_id);
        packet_id
    }

    fn refused(&mut self, id: MsgId, reason: ReasonCode, model: &mut Model) {
        self.refusals.push((id, reason));
        model.refused(id);
    }

    /// A message came. It is the application's at once; the packet identifier of QoS 2 is kept
    /// until it is released.
    fn published(&mut self, topic: &str, publish: &Publish<'_>, model: &mut Model) {
        let (qos, retain) = (publish.delivery.qos(), publish.retain);
        let mut new = true;
        match publish.delivery {
            Delivery::AtMostOnce => {}
            Delivery::AtLeastOnce { packet_id, .. } => {
                let reason = match self.refuses && self.profile.version == Version::V5 {
                    true => ReasonCode::ImplementationSpecificError,
                    false => ReasonCode::Success,
                };
                self.acks.push_back(Packet::PubAck(Ack::new(packet_id, reason)));
            }
            Delivery::ExactlyOnce { packet_id, .. } => {
                new = self.flight.receive(packet_id) == Received::First;
                self.acks.push_back(Packet::PubRec(Ack::new(packet_id, ReasonCode::Success)));
            }
        }
        if new {
            if let Some(id) = publish.payload.first_chunk() {
                self.inbox.push((u64::from_le_bytes(*id) as MsgId, qos, retain));
            }
            model.delivered(self.me, topic, qos, retain, publish.payload);
        }
    }
}

/// What a packet identifier of a session is sent as: if it `reuses` them the least that is free, so
/// that one is used again as soon as the standard allows.
fn wire_id(used: &mut BTreeMap<PacketId, PacketId>, packet_id: PacketId, reuses: bool) -> PacketId {
    if let Some(wire_id) = used.get(&packet_id) {
        return *wire_id;
    }
    let is_free = |id: &PacketId| !used.values().any(|other| other == id);
    let least = || (1..=u16::MAX).filter_map(PacketId::new).find(is_free).expect("one is free");
    let wire_id = if reuses { least() } else { packet_id };
    used.insert(packet_id, wire_id);
    wire_id
}

fn send_message(
    link: &mut ClientLink,
    now_ms: u64,
    out: &mut Vec<u8>,
    model: &mut Model,
    id: MsgId,
    packet_id: PacketId,
    dup: bool,
) {
    let message = &model.messages[id];
    let payload = message.payload(id);
    let publish = Publish {
        delivery: Delivery::new(message.qos, Some(packet_id), dup).unwrap(),
        retain: message.retain,
        topic: &message.topic,
        properties: PublishProperties {
            message_expiry_s: (message.expires && link.version() == Version::V5).then_some(1),
            ..PublishProperties::default()
        },
        payload: &payload,
    };
    link.send(now_ms, &Packet::Publish(publish), out).unwrap();
    model.sent(id);
}
