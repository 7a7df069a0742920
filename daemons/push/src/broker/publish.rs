//! From a PUBLISH to everybody it is for: this core's sessions, other cores, the retained message
//! of its topic.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use sextant_mqtt::{PacketId, Publish, QoS, ReasonCode, Received, Version};
use sextant_ring::core::ConnId;
use sextant_ring::slot::SlotId;
use sextant_segment::AppendError;

use super::conn::{Answer, Conn, Stage};
use super::message::{Delivery, Held, Incoming, Message, Publication, device_of};
use super::packets::Flow;
use super::records::{Fact, MessageRecord, Origin, Publisher, Recipient, Told};
use super::relays::Relayed;
use super::session::Subscriber;
use super::store::Gated;
use super::{Broker, Context, Then};
use crate::home::home;
use crate::meters::{Closed, PublishRefused};

/// Other cores, as bits.
type Cores = u128;

/// A QoS 2 message that goes to other cores once this one is sure to remember it.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) publication: Arc<Publication>,
    pub(super) ticket: SlotId,
    deliver: Cores,
    keep: Option<usize>,
}

/// A message that came from another core.
pub(super) struct Postponed {
    pub(super) publication: Arc<Publication>,
    /// Whether it is to be kept as its topic's retained message here.
    pub(super) keep: bool,
    /// Whether this core's sessions get it.
    pub(super) deliver: bool,
    /// The core that wants to know, and the name it gave the question.
    pub(super) answer: Option<(usize, u64)>,
}

/// What became of a message on this core.
pub(super) struct Delivered {
    /// Sessions that its receipt counts.
    recipients: u32,
    /// Its record, if it has one. To be released.
    held: Option<Rc<Held>>,
}

impl Broker {
    /// A client published.
    pub(super) fn published(
        &mut self,
        cx: &mut Context,
        conn: ConnId,
        slot: SlotId,
        topic: &str,
        publish: &Publish<'_>,
    ) -> Flow {
        let qos = publish.delivery.qos();
        self.meters.core.inc(self.meters.names.published[qos as usize]);
        let allowed = !topic.starts_with('$')
            && self
                .sessions
                .get(slot)
                .and_then(|session| session.owner.principal())
                .is_some_and(|principal| principal.may_publish(topic));
        if !allowed {
            self.end_burst(cx);
            self.meters.publish_refused(PublishRefused::NotAuthorized);
            return self.refuse_publish(cx, conn, publish, ReasonCode::NotAuthorized);
        }
        if let Some(report) = self.is_report(slot, topic) {
            return self.reported(cx, conn, slot, report, publish);
        }
        let unix_ms = cx.clock().unix_ms;
        let expiry_s = publish.properties.message_expiry_s;
        let mut forward = Vec::new();
        publish.properties.write_forward(&mut forward);
        let mut incoming = Incoming {
            topic,
            payload: publish.payload,
            forward: &forward,
            expires_at: expiry_s.map_or(0, |s| unix_ms + u64::from(s) * 1000),
            qos,
            retain: publish.retain,
            from: Some(slot),
            publisher: None,
            origin: None,
            receipt: None,
            device: None,
            shares: &[],
            for_groups_alone: false,
        };
        let Some(packet_id) = publish.delivery.packet_id() else {
            // What does not reach everybody at QoS 0 was promised to nobody.
            let _ = self.route(cx, &incoming, None);
            return if self.conn(conn).is_some() { Flow::Continue } else { Flow::Ended };
        };
        self.end_burst(cx);
        if qos == QoS::ExactlyOnce {
            match self.take_in(cx, conn, slot, packet_id) {
                TakenIn::First(publisher) => incoming.publisher = publisher,
                TakenIn::Before => return Flow::Continue,
                TakenIn::Full => {
                    return self.refuse_publish(cx, conn, publish, ReasonCode::QuotaExceeded);
                }
            }
        }
        // [MQTT-3.3.4-1]
        let answer = match qos {
            QoS::ExactlyOnce => Answer::Pubrec(packet_id),
            _ => Answer::Puback(packet_id),
        };
        let Some(held) = self.conn(conn) else { return Flow::Ended };
        let number = held.busy().answers.push(answer);
        let ticket = self.open_ticket(cx, Then::Answer(conn, number));
        let refused = self.route(cx, &incoming, Some(ticket)).err();
        if refused.is_some() && qos == QoS::ExactlyOnce {
            self.forget_packet_id(slot, packet_id);
        }
        if refused.is_none() && incoming.publisher.is_some() {
            // Also where no record of the message says so.
            self.store.gate(Gated::Part(ticket));
            self.add_part(ticket);
        }
        self.part_done(cx, ticket, 0, refused);
        if self.conn(conn).is_some() { Flow::Continue } else { Flow::Ended }
    }

    /// Takes a QoS 2 packet identifier in, once.
    fn take_in(
        &mut self,
        cx: &mut Context,
        conn: ConnId,
        slot: SlotId,
        packet_id: PacketId,
    ) -> TakenIn {
        let Some(session) = self.sessions.get_mut(slot) else { return TakenIn::Full };
        match session.flight.receive(packet_id) {
            Received::First => TakenIn::First(session.is_persistent().then_some(Publisher {
                session: session.number,
                packet_id: packet_id.get(),
                relayed: None,
            })),
            Received::Full => TakenIn::Full,
            Received::Duplicate => {
                let session = session.number;
                self.taken_before(cx, conn, session, packet_id);
                TakenIn::Before
            }
        }
    }

    /// A QoS 2 message that this core has comes again `[MQTT-4.3.3-10]`: it is answered, not
    /// delivered; and not before the first one would be, which may wait for other cores.
    fn taken_before(&mut self, cx: &mut Context, conn: ConnId, session: u64, packet_id: PacketId) {
        let Some(held) = self.conn(conn) else { return };
        let number = held.busy().answers.push(Answer::Pubrec(packet_id));
        let ticket = self.open_ticket(cx, Then::Answer(conn, number));
        self.store.gate(Gated::Part(ticket));
        let Broker { relays, tickets, conns, .. } = self;
        if let Some(relayed) = relays.pending(session, packet_id) {
            // Those of connections that are gone are owed nothing.
            relayed.waiting.retain(|waiting| {
                let asker = tickets.get(*waiting).and_then(|ticket| ticket.then.first());
                let Some(Then::Answer(asker, _)) = asker else { return false };
                let held = conns.get(asker.index()).and_then(Option::as_ref);
                let is_there = held.is_some_and(|held| held.id == *asker);
                if !is_there {
                    tickets.remove(*waiting);
                }
                is_there
            });
            relayed.waiting.push(ticket);
            self.add_part(ticket);
        }
    }

    fn forget_packet_id(&mut self, slot: SlotId, packet_id: PacketId) {
        if let Some(session) = self.sessions.get_mut(slot) {
            session.flight.release(packet_id);
            if session.is_persistent() {
                self.store.fact(&Fact::Forgotten(session.number, packet_id.get()));
            }
        }
    }

    /// Answers a PUBLISH that was not taken. An MQTT 3.1.1 client cannot be told, so its
    /// connection is closed rather than acknowledging what was not kept `[3.1.1: MQTT-3.3.5-2]`.
    pub(super) fn refuse_publish(
        &mut self,
        cx: &mut Context,
        conn: ConnId,
        publish: &Publish<'_>,
        reason: ReasonCode,
    ) -> Flow {
        let Some(held) = self.conn(conn) else { return Flow::Ended };
        let Stage::Online { link, .. } = &held.stage else { return Flow::Ended };
        let Some(packet_id) = publish.delivery.packet_id() else { return Flow::Continue };
        if link.version() == Version::V311 {
            self.disconnect(cx, conn, reason, Closed::Server);
            return Flow::Ended;
        }
        let answer = match publish.delivery.qos() {
            QoS::ExactlyOnce => Answer::Pubrec(packet_id),
            _ => Answer::Puback(packet_id),
        };
        let number = held.busy().answers.push(answer);
        self.resolve_answer(cx, conn, number, reason);
        if self.conn(conn).is_some() { Flow::Continue } else { Flow::Ended }
    }

    /// Brings a message to everybody, and tells how many sessions of this core its receipt
    /// counts. The ticket gets a part for each promise that has to wait.
    ///
    /// # Errors
    /// Why this core could not keep it; then nobody got it.
    pub(super) fn route(
        &mut self,
        cx: &mut Context,
        incoming: &Incoming<'_>,
        ticket: Option<SlotId>,
    ) -> Result<u32, ReasonCode> {
        let shares = self.choose_shares(incoming.topic);
        let incoming = &Incoming { shares: &shares, ..*incoming };
        let (deliver, keep) = self.elsewhere(cx, incoming);
        let keep_here = incoming.retain && keep.is_none();
        let relays = deliver != 0 || keep.is_some();
        let mut here = *incoming;
        if let Some(publisher) = &mut here.publisher {
            publisher.relayed = relays.then_some(self.life);
        }
        let delivered = self.deliver(cx, &here, keep_here, ticket)?;
        if relays {
            match (&delivered.held, here.publisher, ticket) {
                // Exactly once needs a memory of having sent it on.
                (Some(held), Some(publisher), Some(ticket)) => {
                    let told = Told { life: self.life, id: held.id };
                    let origin = Origin { core: cx.core() as u16, told };
                    let publication = Publication::new(incoming, Some(origin));
                    let held = Rc::clone(held);
                    self.relays.insert(held.id, held, publisher);
                    self.add_part(ticket);
                    let relay = Relay { publication, ticket, deliver, keep };
                    self.store.gate(Gated::Relay(Box::new(relay)));
                }
                _ => {
                    let publication = Publication::new(incoming, None);
                    self.tell_cores(cx, &publication, deliver, keep, ticket);
                }
            }
        }
        if let Some(held) = delivered.held {
            self.store.release(held);
        }
        Ok(delivered.recipients)
    }

    /// The other cores that deliver a message, and the one that keeps it as retained.
    fn elsewhere(&self, cx: &Context, incoming: &Incoming<'_>) -> (Cores, Option<usize>) {
        let mut deliver: Cores = 0;
        self.interest.matches(incoming.topic, |cores| {
            cores.iter().for_each(|core| deliver |= 1 << core);
        });
        // What is a device's own is not announced: its home is known.
        if let Some(device) = device_of(incoming.topic) {
            deliver |= 1 << home(device, cx.cores());
        }
        incoming.shares.iter().for_each(|(core, _)| deliver |= 1 << core);
        deliver &= !(1 << cx.core());
        let keeper = home(incoming.topic, cx.cores());
        (deliver, Some(keeper).filter(|keeper| incoming.retain && *keeper != cx.core()))
    }

    fn tell_cores(
        &mut self,
        cx: &mut Context,
        publication: &Arc<Publication>,
        deliver: Cores,
        keep: Option<usize>,
        ticket: Option<SlotId>,
    ) {
        for core in 0..cx.cores() {
            let (deliver, keep) = (deliver >> core & 1 == 1, keep == Some(core));
            if !deliver && !keep {
                continue;
            }
            if let Some(ticket) = ticket {
                self.add_part(ticket);
            }
            let answer = ticket.map(|ticket| (cx.core(), ticket.to_bits()));
            let publication = Arc::clone(publication);
            cx.tell(core, Message::Publish { publication, keep, deliver, answer });
        }
    }

    /// Asks every other core to take a message in that some of them may have.
    pub(super) fn tell_all(
        &mut self,
        cx: &mut Context,
        publication: &Arc<Publication>,
        ticket: SlotId,
    ) {
        let incoming = publication.incoming();
        let keeper = home(incoming.topic, cx.cores());
        let keep = Some(keeper).filter(|core| incoming.retain && *core != cx.core());
        self.tell_cores(cx, publication, !(1 << cx.core()), keep, Some(ticket));
    }

    /// A message that this core is sure to remember goes to the others.
    pub(super) fn relay(&mut self, cx: &mut Context, relay: Relay) {
        let Relay { publication, ticket, deliver, keep } = relay;
        if let Some(origin) = publication.incoming().origin
            && let Some(ticket) = self.tickets.get_mut(ticket)
        {
            ticket.then.push(Then::Relayed(origin.told.id));
        }
        self.tell_cores(cx, &publication, deliver, keep, Some(ticket));
        self.part_done(cx, ticket, 0, None);
    }

    /// A message that this core is not sure to remember goes nowhere.
    pub(super) fn refuse_relay(
        &mut self,
        cx: &mut Context,
        relay: &Relay,
        refused: Option<ReasonCode>,
    ) {
        if let Some(origin) = relay.publication.incoming().origin {
            self.relay_done(cx, origin.told.id, refused);
        }
        self.part_done(cx, relay.ticket, 0, refused);
    }

    /// All other cores have a message, or will not take it.
    pub(super) fn relay_done(&mut self, cx: &mut Context, id: u64, refused: Option<ReasonCode>) {
        if let Some(Relayed { held, publisher, waiting }) = self.relays.remove(id) {
            if refused.is_some()
                && let Some(slot) = self.sessions.of_number(publisher.session)
                && let Some(packet_id) = PacketId::new(publisher.packet_id)
            {
                // It is its publisher's to send again, and then counts as new.
                self.forget_packet_id(slot, packet_id);
            }
            self.store.fact(&Fact::Relayed(id));
            self.store.release(held);
            for ticket in waiting {
                self.part_done(cx, ticket, 0, refused);
            }
        }
    }

    /// Takes in what came from other cores, as far as the disk keeps up.
    pub(super) fn take_postponed(&mut self, cx: &mut Context) {
        while !self.postponed_full && !self.store.log.is_backlogged() {
            let Some(next) = self.postponed.pop_front() else { return };
            if let Some(again) = self.take_publication(cx, next) {
                self.postponed.push_front(again);
                self.postponed_full = true;
            }
        }
    }

    /// A message came from another core. It is given back if it has to be tried again: what was
    /// published at QoS 2 was taken in by its publisher's core, where it is not refused any more.
    fn take_publication(&mut self, cx: &mut Context, message: Postponed) -> Option<Postponed> {
        let Postponed { ref publication, keep, deliver, answer } = message;
        let incoming = publication.incoming();
        let mark = incoming.origin.map(|origin| self.origins[usize::from(origin.core)]);
        let seen = incoming.origin.zip(mark).is_some_and(|(origin, mark)| origin.told <= mark);
        let ticket = answer.map(|(core, name)| self.open_ticket(cx, Then::Core(core, name)));
        if seen {
            // It was taken in before a crash: its disk has it, or will before this is answered.
            if let Some(ticket) = ticket {
                self.store.gate(Gated::Part(ticket));
            }
            return None;
        }
        let delivered = match deliver {
            true => self.deliver(cx, &incoming, keep, ticket),
            false => self.keep_only(cx, &incoming, ticket),
        };
        let (recipients, refused) = match delivered {
            Ok(delivered) => {
                if let Some(held) = delivered.held {
                    self.store.release(held);
                }
                (delivered.recipients, None)
            }
            Err(reason) => (0, Some(reason)),
        };
        let no_room = refused == Some(ReasonCode::QuotaExceeded)
            && !(keep && self.check_retained(&incoming).is_err());
        if incoming.origin.is_some() && no_room {
            if let Some(ticket) = ticket {
                self.tickets.remove(ticket);
            }
            return Some(message);
        }
        if let Some(origin) = incoming.origin {
            self.origins[usize::from(origin.core)] = origin.told;
        }
        if let Some(ticket) = ticket {
            self.part_done(cx, ticket, recipients, refused);
        }
        None
    }

    fn keep_only(
        &mut self,
        cx: &mut Context,
        incoming: &Incoming<'_>,
        ticket: Option<SlotId>,
    ) -> Result<Delivered, ReasonCode> {
        self.matches.clear();
        self.deliver_matches(cx, incoming, true, ticket)
    }

    /// Gives up what a delivery was asked for.
    pub(super) fn let_go_of(&mut self, delivered: Delivered) {
        if let Some(held) = delivered.held {
            self.store.release(held);
        }
    }

    /// Delivers a message to this core's sessions.
    ///
    /// # Errors
    /// As [`Broker::route`].
    pub(super) fn deliver(
        &mut self,
        cx: &mut Context,
        incoming: &Incoming<'_>,
        keep: bool,
        ticket: Option<SlotId>,
    ) -> Result<Delivered, ReasonCode> {
        if self.joins_burst(cx, incoming) {
            return Ok(Delivered { recipients: 0, held: None });
        }
        let mut matches = std::mem::take(&mut self.matches);
        matches.clear();
        // [MQTT-3.3.2-3], [MQTT-4.6.0-6]
        let mut filters = match incoming.for_groups_alone {
            true => 0,
            false => self.filters.matches(incoming.topic, |held| {
                matches.extend(held.iter().map(|subscriber| (subscriber.session, *subscriber)));
            }),
        };
        let me = cx.core() as u16;
        for (_, group) in incoming.shares.iter().filter(|(core, _)| *core == me) {
            let member = self.choose_member(cx, group, incoming.qos);
            filters += usize::from(member.is_some());
            // [MQTT-4.8.2-3]
            matches.extend(member.map(|member| (member.session, member)));
        }
        if filters > 1 {
            // Stable: a session's subscriptions stay in the order of the filters.
            matches.sort_by_key(|(session, _)| *session);
        }
        if let Some(from) = incoming.from {
            // [MQTT-3.8.3-3]
            matches.retain(|(session, subscriber)| !(subscriber.no_local && *session == from));
        }
        self.matches = matches;
        let delivered = self.deliver_matches(cx, incoming, keep, ticket);
        self.may_begin_burst(incoming);
        delivered
    }

    fn deliver_matches(
        &mut self,
        cx: &mut Context,
        incoming: &Incoming<'_>,
        keep: bool,
        ticket: Option<SlotId>,
    ) -> Result<Delivered, ReasonCode> {
        let matches = std::mem::take(&mut self.matches);
        let result = self.deliver_to(cx, incoming, keep, ticket, &matches);
        self.matches = matches;
        result
    }

    fn deliver_to(
        &mut self,
        cx: &mut Context,
        incoming: &Incoming<'_>,
        keep: bool,
        ticket: Option<SlotId>,
        matches: &[(SlotId, Subscriber)],
    ) -> Result<Delivered, ReasonCode> {
        let groups = || matches.chunk_by(|a, b| a.0 == b.0);
        let mut delivered = Delivered { recipients: 0, held: None };
        let mut recipients = Vec::new();
        let mut acknowledged = false;
        // At QoS 0, and without a receipt, nobody counts and nothing is kept for anybody.
        let matters = incoming.qos > QoS::AtMostOnce || incoming.receipt.is_some();
        for group in groups().take_while(|_| matters) {
            let (session, wanted) = (group[0].0, Wanted::of(group, incoming));
            let counts = self.counts(session, incoming, &wanted);
            delivered.recipients += u32::from(counts);
            if wanted.qos == QoS::AtMostOnce {
                continue;
            }
            acknowledged = true;
            // [MQTT-4.5.0-1], [3.1.1: MQTT-3.1.2-5]
            let kept = self.sessions.get(session).filter(|session| session.is_persistent());
            if let Some(session) = kept {
                recipients.push(Recipient {
                    session: session.number,
                    qos: wanted.qos,
                    retain: wanted.retain,
                    tracked: counts,
                    subscription_ids: wanted.subscription_ids(),
                });
            }
        }
        // It waits on the device's home, and nowhere else.
        let waits_for = incoming
            .device
            .filter(|device| delivered.recipients == 0 && home(device, cx.cores()) == cx.core());
        if let Some(device) = waits_for {
            self.check_waiting(device)?;
        }
        if keep {
            self.check_retained(incoming)?;
        }
        // [MQTT-3.3.1-5], [MQTT-3.3.1-7]
        let stays = keep && !incoming.payload.is_empty();
        let relayed = incoming.publisher.is_some_and(|publisher| publisher.relayed.is_some());
        if acknowledged || stays || waits_for.is_some() || relayed {
            // All others are gone themselves after a crash.
            let survives = keep
                || !recipients.is_empty()
                || waits_for.is_some()
                || incoming.receipt.is_some()
                || incoming.publisher.is_some()
                || incoming.origin.is_some();
            let record = MessageRecord {
                id: 0,
                topic: incoming.topic.into(),
                forward: Bytes::copy_from_slice(incoming.forward),
                expires_at: incoming.expires_at,
                qos: incoming.qos as u8,
                retain: incoming.retain,
                retained: keep,
                receipt: incoming.receipt,
                waits_for: waits_for.map(Box::from),
                publisher: incoming.publisher,
                origin: incoming.origin,
                recipients,
                listed: 0,
                shares: if relayed { incoming.shares.to_vec() } else { Vec::new() },
                payload: Bytes::new(),
            };
            let kept = self.store.keep(record, incoming.payload, cx.clock().unix_ms);
            let held = kept.map_err(|error| self.refused_by(error))?;
            self.arm_held(cx, &held);
            // [MQTT-4.3.2-4], [MQTT-4.3.3-8]: answered once it is on disk, if there is somebody
            // whom it could reach from there.
            match ticket {
                Some(ticket) if survives => {
                    self.add_part(ticket);
                    self.store.gate(Gated::Part(ticket));
                }
                None if survives => self.store.hurry(),
                _ => {}
            }
            delivered.held = Some(held);
        }
        // [MQTT-3.3.1-8]
        if keep {
            self.keep_retained(incoming, delivered.held.as_ref(), ticket);
        }
        if delivered.held.is_none() {
            self.note_taken(incoming, keep);
        }
        if let (Some(device), Some(held)) = (waits_for, &delivered.held) {
            super::filters::entry(&mut self.waiting, device).push_back(Rc::clone(held));
            delivered.recipients = 1;
        }
        let alias = if matches.is_empty() { None } else { self.alias_of(cx, incoming.topic) };
        let mut shared = super::encodings::Shared::new(incoming).with_alias(alias);
        for group in groups() {
            let (session, wanted) = (group[0].0, Wanted::of(group, incoming));
            let counts = self.counts(session, incoming, &wanted);
            match (wanted.qos, &delivered.held) {
                (QoS::AtMostOnce, _) => {
                    self.send_once(cx, session, &mut shared, &wanted, counts);
                }
                (qos, Some(held)) => {
                    let delivery = Delivery {
                        held: Rc::clone(held),
                        qos,
                        retain: wanted.retain,
                        tracked: counts,
                        device: 0,
                        subscription_ids: wanted.subscription_ids(),
                    };
                    self.offer(cx, session, delivery, Some(incoming));
                }
                (_, None) => unreachable!("what is acknowledged has a record"),
            }
        }
        Ok(delivered)
    }

    /// Says that a message which has no record was taken in; behind what it did, so that the disk
    /// never has this without that.
    fn note_taken(&mut self, incoming: &Incoming<'_>, keep: bool) {
        if let Some(publisher) = incoming.publisher {
            let taken = match publisher.will() {
                Some(number) => Fact::WillGone(number),
                None => Fact::Received(publisher.session, publisher.packet_id),
            };
            self.store.fact(&taken);
            self.store.hurry();
        }
        if let Some(origin) = incoming.origin.filter(|_| keep) {
            self.store.fact(&Fact::OriginMark(origin.core, origin.told));
        }
    }

    /// Whether a message's receipt counts a session: any that it can reach, or that of the device
    /// it was for. QoS 0 reaches nobody who is not connected.
    fn counts(&self, session: SlotId, incoming: &Incoming<'_>, wanted: &Wanted<'_>) -> bool {
        if incoming.receipt.is_none() {
            return false;
        }
        let Some(session) = self.sessions.get(session) else { return false };
        (wanted.qos > QoS::AtMostOnce || session.conn.is_some())
            && incoming.device.is_none_or(|device| *session.client_id == *device)
    }

    /// What to say of a log that did not take a message.
    pub(super) fn refused_by(&self, error: AppendError) -> ReasonCode {
        match error {
            AppendError::ReadOnly => {
                self.meters.publish_refused(PublishRefused::Unavailable);
                ReasonCode::ImplementationSpecificError
            }
            AppendError::TooLarge => ReasonCode::PacketTooLarge,
            _ => {
                self.meters.publish_refused(PublishRefused::NoRoom);
                ReasonCode::QuotaExceeded
            }
        }
    }

    /// An answer need not wait any more; it leaves when those before it have.
    pub(super) fn resolve_answer(
        &mut self,
        cx: &mut Context,
        conn: ConnId,
        number: u32,
        result: ReasonCode,
    ) {
        if let Some(held) = self.conn(conn) {
            if let Some(busy) = &mut held.busy {
                busy.answers.resolve(number, result);
            }
            let Stage::Online { link, .. } = &held.stage else { return };
            if result.is_error() && link.version() == Version::V311 {
                // There are no words for this refusal, and an acknowledgement would be a lie. What
                // comes behind it is not read: it would overtake what is sent again.
                self.disconnect(cx, conn, result, Closed::Server);
                return;
            }
        }
        while let Some((answer, result)) = self.conn(conn).and_then(Conn::next_answer) {
            self.answer(cx, conn, &answer, result);
        }
    }

    fn answer(&mut self, cx: &mut Context, conn: ConnId, answer: &Answer, result: ReasonCode) {
        let Some(held) = self.conn(conn) else { return };
        let Stage::Online { session, .. } = &held.stage else { return };
        let session = *session;
        // A log that failed may have kept the message all the same: neither yes nor no is true.
        let unsure = result == ReasonCode::ImplementationSpecificError;
        let wordless = match answer {
            Answer::Puback(_) => false,
            Answer::Pubrec(_) => unsure,
            Answer::Pubcomp(..) | Answer::Suback(..) | Answer::Unsuback(..) => true,
        };
        if let Answer::Pubrec(packet_id) = answer
            && result.is_error()
            && !wordless
        {
            self.forget_packet_id(session, *packet_id);
        }
        if result.is_error() && wordless {
            // No more are there for this one.
            self.disconnect(cx, conn, result, Closed::Server);
            return;
        }
        self.write(cx, conn, |link, out| match answer {
            Answer::Puback(packet_id) => link.puback(*packet_id, result, out),
            Answer::Pubrec(packet_id) => link.pubrec(*packet_id, result, out),
            Answer::Pubcomp(packet_id, reason) => link.pubcomp(*packet_id, *reason, out),
            Answer::Suback(packet_id, reasons) => link.suback(*packet_id, reasons, out),
            Answer::Unsuback(packet_id, reasons) => link.unsuback(*packet_id, reasons, out),
        });
    }
}

enum TakenIn {
    First(Option<Publisher>),
    Before,
    Full,
}

/// How one session gets a message: its subscriptions that match, taken together.
pub(super) struct Wanted<'a> {
    pub(super) qos: QoS,
    pub(super) retain: bool,
    group: &'a [(SlotId, Subscriber)],
}

impl<'a> Wanted<'a> {
    pub(super) fn of(group: &'a [(SlotId, Subscriber)], incoming: &Incoming<'_>) -> Wanted<'a> {
        // [MQTT-3.3.4-2]: once, with the highest QoS of all.
        let granted = group.iter().map(|(_, subscriber)| subscriber.qos).max();
        let as_published = group.iter().any(|(_, subscriber)| subscriber.retain_as_published);
        Wanted {
            // [MQTT-3.8.4-8]
            qos: granted.unwrap_or(QoS::AtMostOnce).min(incoming.qos),
            // [MQTT-3.3.1-12], [MQTT-3.3.1-13], [3.1.1: MQTT-3.3.1-9]
            retain: incoming.retain && as_published,
            group,
        }
    }

    /// The identifiers of the subscriptions that have one `[MQTT-3.3.4-3]`,
    /// `[MQTT-3.3.4-4]`.
    pub(super) fn subscription_ids(&self) -> Box<[u32]> {
        self.group.iter().map(|(_, s)| s.subscription_id).filter(|id| *id != 0).collect()
    }

    /// Whether the packet differs between subscribers in its flags alone.
    pub(super) fn is_plain(&self) -> bool {
        self.group.iter().all(|(_, subscriber)| subscriber.subscription_id == 0)
    }
}
