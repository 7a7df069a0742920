//! A connection on its core: how far it has come on the way to its session, the answers that it is
//! owed, and what it has only while it is busy.
//!
//! Most connections are idle, and there may be a million of them: [`Conn`] holds what each one
//! needs, and [`Busy`] is made when something is to be remembered beyond a packet, and freed when
//! nothing is any more.

use std::collections::VecDeque;

use sextant_mqtt::{AwaitingConnect, Link, PacketId, ReasonCode};
use sextant_ring::core::ConnId;
use sextant_ring::slot::SlotId;
use sextant_ring::time::Time;
use sextant_ring::wheel::TimerId;

use super::enhanced::Enhanced;
use super::gather::Gathered;
use super::recall::Reading;
use super::transport::Transport;

/// An answer to the client that may have to wait for the disk or for other cores. Those of one
/// connection leave in the order of what they answer `[MQTT-4.6.0-2]`, `[MQTT-4.6.0-3]`.
#[derive(Debug)]
pub(super) enum Answer {
    Puback(PacketId),
    Pubrec(PacketId),
    Pubcomp(PacketId, ReasonCode),
    Suback(PacketId, Box<[ReasonCode]>),
    Unsuback(PacketId, Box<[ReasonCode]>),
}

struct Waiting {
    answer: Answer,
    /// `None` while it waits.
    result: Option<ReasonCode>,
}

/// The answers that a connection has yet to get, numbered from the connection's first on.
pub(super) struct Answers {
    waiting: VecDeque<Waiting>,
    /// The number of the first; numbers start anew after 2³², of which a connection is never owed
    /// more than some.
    first: u32,
}

impl Answers {
    fn new(first: u32) -> Answers {
        Answers { waiting: VecDeque::new(), first }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Adds an answer that waits, and gives its number.
    pub(super) fn push(&mut self, answer: Answer) -> u32 {
        let number = self.first.wrapping_add(self.waiting.len() as u32);
        self.waiting.push_back(Waiting { answer, result: None });
        number
    }

    fn at(&mut self, number: u32) -> Option<&mut Waiting> {
        self.waiting.get_mut(number.wrapping_sub(self.first) as usize)
    }

    /// Says what an answer is to be, now that it is known.
    pub(super) fn replace(&mut self, number: u32, answer: Answer) {
        if let Some(waiting) = self.at(number) {
            waiting.answer = answer;
        }
    }

    /// Says that an answer need not wait any more.
    pub(super) fn resolve(&mut self, number: u32, result: ReasonCode) {
        if let Some(waiting) = self.at(number) {
            waiting.result = Some(result);
        }
    }

    /// The next answer that may leave.
    pub(super) fn next(&mut self) -> Option<(Answer, ReasonCode)> {
        let result = self.waiting.front()?.result?;
        let waiting = self.waiting.pop_front()?;
        self.first = self.first.wrapping_add(1);
        Some((waiting.answer, result))
    }
}

/// How far a connection has come.
pub(super) enum Stage {
    /// Nothing but perhaps a part of its CONNECT has arrived.
    Awaiting {
        awaiting: AwaitingConnect,
        gathered: Gathered,
    },
    /// It has yet to be let in, when its turn has come; what has arrived waits, its CONNECT first.
    Waiting {
        bytes: Vec<u8>,
        turn: u64,
    },
    /// Its password is being checked; what has arrived waits, its CONNECT first.
    Verifying {
        bytes: Vec<u8>,
    },
    /// It is to prove who it is; what has arrived waits, its CONNECT first.
    Proving {
        gathered: Gathered,
    },
    Online {
        link: Link,
        session: SlotId,
    },
}

/// A connection.
pub(super) struct Conn {
    pub(super) id: ConnId,
    pub(super) stage: Stage,
    pub(super) timer: Option<TimerId>,
    /// `None` if it is plain TCP and waits for nothing from the disk.
    pub(super) apart: Option<Box<Apart>>,
    /// `None` while it is idle.
    pub(super) busy: Option<Box<Busy>>,
    /// The number of the answer that it is owed next, if it is owed none.
    next_answer: u32,
    /// Not read from, since it is owed too many answers, or this core cannot keep up.
    pub(super) paused: bool,
}

/// What few connections have.
#[derive(Default)]
pub(super) struct Apart {
    /// `None` if it is plain TCP.
    transport: Option<Box<Transport>>,
    /// What it waits for that is on disk alone.
    pub(super) reading: Option<Box<Reading>>,
    /// `None` if no enhanced authentication is under way.
    enhanced: Option<Box<Enhanced>>,
}

impl Apart {
    fn is_over(&self) -> bool {
        self.transport.is_none() && self.reading.is_none() && self.enhanced.is_none()
    }
}

/// What a connection has while it is not idle.
pub(super) struct Busy {
    pub(super) answers: Answers,
    /// Since when it takes nothing.
    pub(super) blocked: Option<Time>,
    /// The beginning of a packet that is cut off.
    pub(super) partial: Vec<u8>,
    /// What it had sent when it was paused, and was not looked at.
    pub(super) unread: Vec<u8>,
    /// QoS 2 messages that are to be sent as soon as it takes more; whether they are duplicates.
    pub(super) later: VecDeque<(PacketId, bool)>,
}

impl Busy {
    fn is_over(&self) -> bool {
        self.answers.len() == 0
            && self.blocked.is_none()
            && self.partial.is_empty()
            && self.unread.is_empty()
            && self.later.is_empty()
    }
}

impl Conn {
    pub(super) fn new(id: ConnId, stage: Stage) -> Conn {
        Conn { id, stage, timer: None, apart: None, busy: None, next_answer: 0, paused: false }
    }

    pub(super) fn transport(&self) -> Option<&Transport> {
        self.apart.as_ref()?.transport.as_deref()
    }

    pub(super) fn transport_mut(&mut self) -> Option<&mut Transport> {
        self.apart.as_mut()?.transport.as_deref_mut()
    }

    pub(super) fn set_transport(&mut self, transport: Box<Transport>) {
        self.apart.get_or_insert_default().transport = Some(transport);
    }

    pub(super) fn take_transport(&mut self) -> Option<Box<Transport>> {
        self.apart.as_mut()?.transport.take()
    }

    pub(super) fn reading(&self) -> Option<&Reading> {
        self.apart.as_ref()?.reading.as_deref()
    }

    pub(super) fn reading_mut(&mut self) -> Option<&mut Reading> {
        self.apart.as_mut()?.reading.as_deref_mut()
    }

    /// Whether something is to be sent at QoS 0 before anything else is.
    #[inline]
    pub(super) fn holds_once(&self) -> bool {
        self.reading().is_some_and(|reading| !reading.once.is_empty())
    }

    /// To wait for something from the disk until [`Conn::read_nothing`].
    pub(super) fn reading_or_new(&mut self) -> &mut Reading {
        self.apart.get_or_insert_default().reading.get_or_insert_default()
    }

    /// Nothing is waited for any more.
    pub(super) fn read_nothing(&mut self) {
        if let Some(apart) = &mut self.apart {
            apart.reading = None;
        }
        self.apart.take_if(|apart| apart.is_over());
    }

    pub(super) fn enhanced(&self) -> Option<&Enhanced> {
        self.apart.as_ref()?.enhanced.as_deref()
    }

    pub(super) fn set_enhanced(&mut self, enhanced: Enhanced) {
        self.apart.get_or_insert_default().enhanced = Some(Box::new(enhanced));
    }

    pub(super) fn take_enhanced(&mut self) -> Option<Enhanced> {
        let enhanced = self.apart.as_mut()?.enhanced.take();
        self.apart.take_if(|apart| apart.is_over());
        enhanced.map(|enhanced| *enhanced)
    }

    /// To remember something until [`Conn::rest`] finds it gone.
    pub(super) fn busy(&mut self) -> &mut Busy {
        self.busy.get_or_insert_with(|| {
            Box::new(Busy {
                answers: Answers::new(self.next_answer),
                blocked: None,
                partial: Vec::new(),
                unread: Vec::new(),
                later: VecDeque::new(),
            })
        })
    }

    /// To be called when something was taken out of [`Conn::busy`].
    pub(super) fn rest(&mut self) {
        if let Some(busy) = self.busy.take_if(|busy| busy.is_over()) {
            self.next_answer = busy.answers.first;
        }
    }

    /// Whether it is owed so many answers that no more packets should be read: a client that
    /// knows no receive maximum may ask without end. What it is owed waits for the disk or other
    /// cores, never for the client.
    pub(super) fn owes_too_much(&self) -> bool {
        const ANSWERS_MAX: usize = 256;
        self.busy.as_ref().is_some_and(|busy| busy.answers.len() >= ANSWERS_MAX)
    }

    /// Takes the next answer that may leave.
    pub(super) fn next_answer(&mut self) -> Option<(Answer, ReasonCode)> {
        let next = self.busy.as_mut()?.answers.next();
        self.rest();
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u16) -> PacketId {
        PacketId::new(n).unwrap()
    }

    #[test]
    fn answers_leave_in_the_order_of_what_they_answer() {
        let mut answers = Answers::new(u32::MAX);
        let first = answers.push(Answer::Puback(id(1)));
        let second = answers.push(Answer::Puback(id(2)));
        answers.resolve(second, ReasonCode::Success);
        assert!(answers.next().is_none(), "the first still waits");
        answers.resolve(first, ReasonCode::QuotaExceeded);
        assert!(
            matches!(answers.next(), Some((Answer::Puback(i), ReasonCode::QuotaExceeded)) if i == id(1))
        );
        assert!(
            matches!(answers.next(), Some((Answer::Puback(i), ReasonCode::Success)) if i == id(2))
        );
        assert!(answers.next().is_none());
        answers.resolve(first, ReasonCode::Success);
        let third = answers.push(Answer::Puback(id(3)));
        assert_eq!((third, answers.len()), (1, 1));
    }

    #[test]
    fn an_idle_connection_is_small_and_its_answers_keep_their_numbers() {
        assert!(size_of::<Conn>() <= 88, "{}", size_of::<Conn>());
        assert_eq!(size_of::<Option<Conn>>(), size_of::<Conn>());
        let id = ConnId::from_bits(0);
        let mut conn = Conn::new(id, Stage::Verifying { bytes: Vec::new() });
        let first = conn.busy().answers.push(Answer::Puback(self::id(1)));
        conn.rest();
        assert!(conn.busy.is_some(), "it is owed an answer");
        let answers = &mut conn.busy().answers;
        answers.resolve(first, ReasonCode::Success);
        assert!(answers.next().is_some());
        conn.rest();
        assert!(conn.busy.is_none());
        let answers = &mut conn.busy().answers;
        let second = answers.push(Answer::Puback(self::id(1)));
        answers.resolve(first, ReasonCode::Success);
        assert!(answers.next().is_none(), "that was the first one's");
        answers.resolve(second, ReasonCode::Success);
        assert!(answers.next().is_some());
    }
}
