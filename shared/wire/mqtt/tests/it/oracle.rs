//! `Session` against a model of maps, over random operations.

use std::collections::{BTreeMap, BTreeSet};

use sextant_mqtt::{
    Inflight, PacketId, Puback, Pubcomp, Pubrec, QoS, ReasonCode, Received, Released, Session,
    SessionLimits,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Puback(u32),
    Pubrec(u32),
    Pubcomp,
}

/// The simplest session that could be right: a map by order and a scan for everything.
#[derive(Default)]
struct Model {
    /// By the order of `begin`: identifier, step, whether it was sent and counts as a publish on
    /// this connection.
    flights: BTreeMap<u64, (u16, Step, bool, bool)>,
    reserved: BTreeSet<u16>,
    received: BTreeSet<u16>,
    begun: u64,
    peer_receive_max: usize,
}

impl Model {
    fn key(&self, id: u16) -> Option<u64> {
        self.flights.iter().find(|(_, flight)| flight.0 == id).map(|(&key, _)| key)
    }

    fn counted(&self) -> usize {
        self.flights.values().filter(|flight| flight.3).count()
    }

    fn has_room(&self, inflight_max: usize) -> bool {
        self.flights.values().all(|flight| flight.2)
            && self.counted() < self.peer_receive_max
            && self.flights.len() < inflight_max
    }

    fn resend(&mut self) -> Option<(u16, Step)> {
        let counted = self.counted();
        let flight = self.flights.values_mut().find(|flight| !flight.2)?;
        let publish = flight.1 != Step::Pubcomp;
        if publish && counted >= self.peer_receive_max {
            return None;
        }
        flight.2 = true;
        flight.3 = publish;
        Some((flight.0, flight.1))
    }
}

fn step(inflight: Inflight<&u32>) -> Step {
    match inflight {
        Inflight::AwaitPuback(&message) => Step::Puback(message),
        Inflight::AwaitPubrec(&message) => Step::Pubrec(message),
        Inflight::AwaitPubcomp => Step::Pubcomp,
    }
}

struct Run {
    random: fastrand::Rng,
    session: Session<u32>,
    model: Model,
    limits: SessionLimits,
    next_message: u32,
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut random = fastrand::Rng::with_seed(seed);
        let limits =
            SessionLimits { inflight_max: random.u16(1..20), received_max: random.u16(1..20) };
        let model = Model { peer_receive_max: 65_535, ..Model::default() };
        Run { session: Session::new(limits), model, limits, random, next_message: 0 }
    }

    /// An identifier that is in flight, or one of any kind.
    fn some_id(&mut self) -> PacketId {
        let known: Vec<u16> = self
            .model
            .flights
            .values()
            .map(|flight| flight.0)
            .chain(self.model.reserved.clone())
            .collect();
        let id = match self.random.choice(&known) {
            Some(&id) if self.random.u8(..10) > 0 => id,
            _ => self.random.u16(1..=30),
        };
        PacketId::new(id).unwrap()
    }

    fn reason(&mut self) -> ReasonCode {
        if self.random.u8(..4) == 0 { ReasonCode::QuotaExceeded } else { ReasonCode::Success }
    }

    fn begin(&mut self) {
        self.next_message += 1;
        let message = self.next_message;
        let (qos, step) = if self.random.bool() {
            (QoS::AtLeastOnce, Step::Puback(message))
        } else {
            (QoS::ExactlyOnce, Step::Pubrec(message))
        };
        let room = self.model.has_room(usize::from(self.limits.inflight_max));
        assert_eq!(self.session.has_room(), room);
        match self.session.begin(qos, message) {
            Ok(id) => {
                assert!(room && self.model.key(id.get()).is_none());
                assert!(!self.model.reserved.contains(&id.get()));
                self.model.begun += 1;
                self.model.flights.insert(self.model.begun, (id.get(), step, true, true));
            }
            Err(back) => assert!(!room && back == message),
        }
    }

    fn puback(&mut self) {
        let (id, reason) = (self.some_id(), self.reason());
        let key = self.model.key(id.get());
        let expected = match key.map(|key| self.model.flights[&key].1) {
            None => Puback::Unknown,
            Some(Step::Puback(message)) => {
                self.model.flights.remove(&key.unwrap());
                if reason.is_error() {
                    Puback::Refused(message)
                } else {
                    Puback::Acknowledged(message)
                }
            }
            Some(_) => Puback::WrongState,
        };
        assert_eq!(self.session.puback(id, reason), expected);
    }

    fn pubrec(&mut self) {
        let (id, reason) = (self.some_id(), self.reason());
        let key = self.model.key(id.get());
        let expected = match key.map(|key| self.model.flights[&key].1) {
            None => Pubrec::Unknown,
            Some(Step::Puback(_)) => Pubrec::WrongState,
            Some(Step::Pubrec(message)) if reason.is_error() => {
                self.model.flights.remove(&key.unwrap());
                Pubrec::Refused(message)
            }
            Some(step) => {
                let flight = self.model.flights.get_mut(&key.unwrap()).unwrap();
                flight.1 = Step::Pubcomp;
                flight.2 = true;
                match step {
                    Step::Pubrec(message) => Pubrec::Release(message),
                    _ => Pubrec::ReleaseAgain,
                }
            }
        };
        assert_eq!(self.session.pubrec(id, reason), expected);
    }

    fn pubcomp(&mut self) {
        let id = self.some_id();
        let key = self.model.key(id.get());
        let expected = match key.map(|key| self.model.flights[&key].1) {
            None => Pubcomp::Unknown,
            Some(Step::Pubcomp) => {
                self.model.flights.remove(&key.unwrap());
                Pubcomp::Completed
            }
            Some(_) => Pubcomp::WrongState,
        };
        assert_eq!(self.session.pubcomp(id), expected);
    }

    fn reserve_or_free(&mut self) {
        if self.random.bool() {
            if let Some(id) = self.session.reserve_id() {
                assert!(self.model.key(id.get()).is_none());
                assert!(self.model.reserved.insert(id.get()));
            }
        } else {
            let id = self.some_id();
            assert_eq!(self.session.free_id(id), self.model.reserved.remove(&id.get()));
        }
    }

    fn receive_or_release(&mut self) {
        let id = PacketId::new(self.random.u16(1..40)).unwrap();
        let full = self.model.received.len() >= usize::from(self.limits.received_max);
        if self.random.bool() {
            let expected = if self.model.received.contains(&id.get()) {
                Received::Duplicate
            } else if full {
                Received::Full
            } else {
                self.model.received.insert(id.get());
                Received::First
            };
            assert_eq!(self.session.receive(id), expected);
        } else {
            let known = self.model.received.remove(&id.get());
            let expected = if known { Released::Known } else { Released::Unknown };
            assert_eq!(self.session.release(id), expected);
        }
    }

    fn resume(&mut self) {
        let peer_receive_max = self.random.u16(1..20);
        self.model.peer_receive_max = usize::from(peer_receive_max);
        self.model.reserved.clear();
        for flight in self.model.flights.values_mut() {
            (flight.2, flight.3) = (false, false);
        }
        self.session.resume(peer_receive_max);
    }

    fn resend(&mut self) {
        for _ in 0..self.random.u8(1..6) {
            let expected = self.model.resend();
            let actual = self.session.resend();
            assert_eq!(actual.map(|(id, inflight)| (id.get(), step(inflight))), expected);
        }
    }

    /// Writes the session down and reads it into a new one, as a restart does.
    fn restart(&mut self) {
        let mut restored = Session::new(self.limits);
        for (id, inflight) in self.session.inflight() {
            let inflight = match inflight {
                Inflight::AwaitPuback(&message) => Inflight::AwaitPuback(message),
                Inflight::AwaitPubrec(&message) => Inflight::AwaitPubrec(message),
                Inflight::AwaitPubcomp => Inflight::AwaitPubcomp,
            };
            restored.restore_inflight(id, inflight).unwrap();
        }
        for id in self.session.received() {
            assert!(restored.restore_received(id));
        }
        self.session = restored;
        self.resume();
    }

    fn check(&self) {
        let walked: Vec<_> =
            self.session.inflight().map(|(id, inflight)| (id.get(), step(inflight))).collect();
        let expected: Vec<_> =
            self.model.flights.values().map(|flight| (flight.0, flight.1)).collect();
        assert_eq!(walked, expected);
        assert_eq!(self.session.inflight_len(), expected.len());
        let received: Vec<_> = self.session.received().map(PacketId::get).collect();
        assert_eq!(received, self.model.received.iter().copied().collect::<Vec<_>>());
        let empty = expected.is_empty() && received.is_empty() && self.model.reserved.is_empty();
        assert_eq!(self.session.is_empty(), empty);
    }

    fn turn(&mut self) {
        match self.random.u8(..100) {
            0..=29 => self.begin(),
            30..=44 => self.puback(),
            45..=59 => self.pubrec(),
            60..=74 => self.pubcomp(),
            75..=80 => self.reserve_or_free(),
            81..=92 => self.receive_or_release(),
            93..=97 => self.resend(),
            98 => self.resume(),
            _ if self.random.bool() => self.restart(),
            _ => self.session.shrink(),
        }
    }
}

#[test]
fn a_session_does_what_its_model_does() {
    let first = fastrand::u64(..);
    for seed in (first..).take(300) {
        println!("seed {seed}");
        let mut run = Run::new(seed);
        for _ in 0..2000 {
            run.turn();
            run.check();
        }
    }
}

#[test]
fn a_session_does_what_its_model_does_after_the_identifiers_went_round() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut run = Run::new(seed);
    // 65,500 identifiers used up, then on with one that stays.
    for _ in 0..65_500 {
        let id = run.session.begin(QoS::AtLeastOnce, 0).unwrap();
        assert_eq!(run.session.puback(id, ReasonCode::Success), Puback::Acknowledged(0));
    }
    for _ in 0..100_000 {
        run.turn();
        run.check();
    }
}
