//! The whole of a server's side, driven by arbitrary bytes cut anywhere and by the passing of
//! time. Whatever the client sends, what the server answers is a stream of valid packets.

use sextant_mqtt::{
    AcceptOptions, AwaitingConnect, Connecting, ConnectingEvent, Delivery, EncodeError, Event,
    Fault, Frame, Inbound, Link, Packet, Puback, Pubcomp, PublishHead, Pubrec, QoS, ReasonCode,
    Received, Released, ServerLimits, Session, SessionLimits, Version, frame,
};

enum State {
    Awaiting(AwaitingConnect),
    Connecting(Connecting),
    Connected(Box<Link>),
    Closed,
}

struct Server {
    state: State,
    version: Version,
    session: Session<u32>,
    limits: ServerLimits,
    out: Vec<u8>,
}

impl Server {
    fn handle(&mut self, now_ms: u64, whole: &Frame<'_>) {
        self.state = match std::mem::replace(&mut self.state, State::Closed) {
            State::Awaiting(awaiting) => match awaiting.handle(now_ms, whole, &self.limits) {
                Ok((connecting, connect)) => {
                    self.version = connect.version;
                    if connect.properties.auth_method.is_some() {
                        State::Connecting(connecting)
                    } else {
                        self.accept(now_ms, connecting)
                    }
                }
                Err(refused) => {
                    self.version = refused.version.unwrap_or(Version::V5);
                    refused.answer(&mut self.out);
                    State::Closed
                }
            },
            State::Connecting(mut connecting) => match connecting.handle(now_ms, whole) {
                Ok(ConnectingEvent::Auth(auth)) => {
                    if auth.properties.auth_data.is_some() {
                        let _ = connecting.challenge(Some(b"more"), &mut self.out);
                        State::Connecting(connecting)
                    } else {
                        self.accept(now_ms, connecting)
                    }
                }
                Ok(_) => State::Closed,
                Err(fault) => {
                    match connecting.refuse(fault.reason(), Some("fault"), &mut self.out) {
                        Ok(()) | Err(EncodeError::TooLarge { .. }) => State::Closed,
                        Err(error) => panic!("{fault:?} cannot be said: {error}"),
                    }
                }
            },
            State::Connected(mut link) => match link.handle_frame(now_ms, whole) {
                Ok(Event::Disconnect(_)) => State::Closed,
                Ok(event) => {
                    self.answer(&mut link, event);
                    State::Connected(link)
                }
                Err(fault) => self.close(&mut link, fault),
            },
            State::Closed => State::Closed,
        };
    }

    fn accept(&mut self, now_ms: u64, connecting: Connecting) -> State {
        let options = AcceptOptions { session_present: true, ..AcceptOptions::default() };
        match connecting.accept(now_ms, &self.limits, &options, &mut self.out) {
            Ok(link) => {
                self.session.resume(link.peer_receive_max());
                State::Connected(Box::new(link))
            }
            Err(_) => State::Closed,
        }
    }

    fn close(&mut self, link: &mut Link, fault: Fault) -> State {
        match link.disconnect(fault.reason(), Some("fault"), &mut self.out) {
            Ok(()) | Err(EncodeError::TooLarge { .. }) => State::Closed,
            Err(error) => panic!("{fault:?} cannot be said: {error}"),
        }
    }

    fn answer(&mut self, link: &mut Link, event: Event<'_>) {
        let out = &mut self.out;
        let success = ReasonCode::Success;
        let _ = match event {
            Event::Publish { topic, publish } => {
                self.echo(link, &topic, publish.payload);
                let out = &mut self.out;
                match publish.delivery {
                    Delivery::AtMostOnce => Ok(()),
                    Delivery::AtLeastOnce { packet_id, .. } => link.puback(packet_id, success, out),
                    Delivery::ExactlyOnce { packet_id, .. } => {
                        match self.session.receive(packet_id) {
                            Received::First | Received::Duplicate => {
                                link.pubrec(packet_id, success, out)
                            }
                            Received::Full => {
                                link.pubrec(packet_id, ReasonCode::QuotaExceeded, out)
                            }
                        }
                    }
                }
            }
            Event::PubAck(ack) => {
                if let Puback::Acknowledged(message) | Puback::Refused(message) =
                    self.session.puback(ack.packet_id, ack.reason)
                {
                    assert_eq!(message % 3, 1);
                }
                Ok(())
            }
            Event::PubRec(ack) => match self.session.pubrec(ack.packet_id, ack.reason) {
                Pubrec::Release(message) => {
                    assert_eq!(message % 3, 2);
                    link.pubrel(ack.packet_id, success, out)
                }
                Pubrec::ReleaseAgain => link.pubrel(ack.packet_id, success, out),
                _ => Ok(()),
            },
            Event::PubComp(ack) => {
                let len = self.session.inflight_len();
                let completed = self.session.pubcomp(ack.packet_id) == Pubcomp::Completed;
                assert_eq!(self.session.inflight_len(), len - usize::from(completed));
                Ok(())
            }
            Event::PubRel(ack) => match self.session.release(ack.packet_id) {
                Released::Known => link.pubcomp(ack.packet_id, success, out),
                Released::Unknown => {
                    link.pubcomp(ack.packet_id, ReasonCode::PacketIdentifierNotFound, out)
                }
            },
            Event::Subscribe(subscribe) => {
                let reasons: Vec<_> =
                    subscribe.subscriptions.iter().map(|each| each.qos.granted()).collect();
                link.suback(subscribe.packet_id, &reasons, out)
            }
            Event::Unsubscribe(unsubscribe) => {
                let reasons: Vec<_> = unsubscribe.filters.iter().map(|_| success).collect();
                link.unsuback(unsubscribe.packet_id, &reasons, out)
            }
            Event::PingReq => link.pingresp(out),
            Event::Auth(_) => link.auth(success, None, out),
            Event::Disconnect(_) => Ok(()),
        };
        self.resend(link);
    }

    /// Sends every message back, each with the next QoS.
    fn echo(&mut self, link: &mut Link, topic: &str, payload: &[u8]) {
        for (message, qos) in [(0, QoS::AtMostOnce), (1, QoS::AtLeastOnce), (2, QoS::ExactlyOnce)] {
            let packet_id = match qos {
                QoS::AtMostOnce => None,
                _ => match self.session.begin(qos, message) {
                    Ok(packet_id) => Some(packet_id),
                    Err(_) => continue,
                },
            };
            let delivery = Delivery::new(qos, packet_id, false).expect("an identifier");
            let head = PublishHead::new(delivery, topic, payload.len());
            match link.publish_head(&head, &mut self.out) {
                Ok(()) => self.out.extend_from_slice(payload),
                Err(_) => drop(packet_id.and_then(|packet_id| self.session.cancel(packet_id))),
            }
        }
    }

    fn resend(&mut self, link: &mut Link) {
        while let Some((packet_id, inflight)) = self.session.resend() {
            use sextant_mqtt::Inflight;
            let delivery = match inflight {
                Inflight::AwaitPuback(_) => Delivery::AtLeastOnce { packet_id, dup: true },
                Inflight::AwaitPubrec(_) => Delivery::ExactlyOnce { packet_id, dup: true },
                Inflight::AwaitPubcomp => {
                    let _ = link.pubrel(packet_id, ReasonCode::Success, &mut self.out);
                    continue;
                }
            };
            let _ = link.publish_head(&PublishHead::new(delivery, "again", 0), &mut self.out);
        }
    }

    fn handle_timeout(&mut self, now_ms: u64) {
        let state = std::mem::replace(&mut self.state, State::Closed);
        self.state = match state {
            State::Awaiting(awaiting) if awaiting.handle_timeout(now_ms).is_err() => State::Closed,
            State::Connecting(connecting) if connecting.handle_timeout(now_ms).is_err() => {
                let reason = ReasonCode::ServerBusy;
                let _ = connecting.refuse(reason, None, &mut self.out);
                State::Closed
            }
            State::Connected(mut link) => match link.handle_timeout(now_ms) {
                Ok(()) => State::Connected(link),
                Err(fault) => self.close(&mut link, fault),
            },
            other => other,
        };
    }

    /// What was written is a sequence of whole, valid packets.
    fn check_output(&mut self) {
        let mut rest = &self.out[..];
        while !rest.is_empty() {
            let whole = frame(rest, u32::MAX).expect("a header").expect("a whole packet");
            Packet::decode(&whole, self.version).expect("a valid packet");
            rest = &rest[whole.total_len..];
        }
        self.out.clear();
    }
}

pub(crate) fn run(bytes: &[u8]) {
    let limits = ServerLimits { outbound_alias_max: 2, ..ServerLimits::default() };
    let mut server = Server {
        state: State::Awaiting(AwaitingConnect::new(0, &limits)),
        version: Version::V5,
        session: Session::new(SessionLimits { inflight_max: 8, received_max: 8 }),
        limits,
        out: Vec::new(),
    };
    let mut inbound = Inbound::new(4096);
    let mut now_ms = 0u64;
    let mut rest = bytes;
    // One byte in front of each chunk: its length, and how much time passes before it.
    while let Some((&control, after)) = rest.split_first() {
        let len = usize::from(control).min(after.len());
        let (mut input, after) = after.split_at(len);
        rest = after;
        now_ms += u64::from(control).pow(2);
        server.handle_timeout(now_ms);
        loop {
            match inbound.next_frame(&mut input) {
                Ok(Some(whole)) => server.handle(now_ms, &whole),
                Ok(None) => break,
                Err(error) => {
                    if let State::Connected(mut link) =
                        std::mem::replace(&mut server.state, State::Closed)
                    {
                        server.state = server.close(&mut link, error.into());
                    }
                    break;
                }
            }
        }
        assert!(inbound.partial_len() <= 4096);
        server.check_output();
        if matches!(server.state, State::Closed) {
            // The client comes back to its session.
            server.state = State::Awaiting(AwaitingConnect::new(now_ms, &server.limits));
            inbound = Inbound::new(4096);
        }
    }
    assert!(server.session.inflight_len() <= 8 && server.session.received_len() <= 8);
}
