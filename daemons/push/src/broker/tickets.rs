//! Tickets: questions whose answer has several parts, such as this core's disk and other cores.
//! A ticket counts the parts that are missing, and then answers whoever waits for it.

use std::sync::Arc;

use sextant_mqtt::ReasonCode;
use sextant_ring::core::ConnId;
use sextant_ring::slot::SlotId;
use sextant_ring::time::Time;
use tokio::sync::oneshot;

use super::message::Message;
use super::{Broker, Context};
use crate::control::PushError;
use crate::control::clients::Kicked;

/// Who waits for a ticket.
pub(super) enum Then {
    /// A connection, for the answer of this number.
    Answer(ConnId, u32),
    /// Another core, by the name that it gave its question.
    Core(usize, u64),
    /// The sender of a pushed message.
    Push {
        id: u128,
        reply: oneshot::Sender<Result<u32, PushError>>,
        /// Recipients that the receipt knows of.
        counted: u32,
    },
    /// Nobody, but other cores shall have the relayed message.
    Relayed(u64),
    /// Another question, of which this one is a part.
    Part(SlotId),
    /// Nobody, but all other cores know of this filter.
    Heard(Arc<str>),
    /// Nobody: a will is published once it is in the log.
    Nobody,
    /// Whoever ended a client's session.
    Kicked(oneshot::Sender<Kicked>),
}

/// A question, and the parts of its answer that are missing.
pub(super) struct Ticket {
    parts: u32,
    pub(super) recipients: u32,
    refused: Option<ReasonCode>,
    pub(super) then: Vec<Then>,
    asked: Time,
}

impl Broker {
    /// A question of one part: the asker's own, ended by [`Broker::part_done`].
    pub(super) fn open_ticket(&mut self, cx: &Context, then: Then) -> SlotId {
        let ticket =
            Ticket { parts: 1, recipients: 0, refused: None, then: vec![then], asked: cx.now() };
        match self.tickets.insert(ticket) {
            Ok(id) => id,
            Err(_) => panic!("tickets are bounded by what connections may have in flight"),
        }
    }

    pub(super) fn add_part(&mut self, ticket: SlotId) {
        if let Some(ticket) = self.tickets.get_mut(ticket) {
            ticket.parts += 1;
        }
    }

    /// One part of a question is answered.
    pub(super) fn part_done(
        &mut self,
        cx: &mut Context,
        id: SlotId,
        recipients: u32,
        refused: Option<ReasonCode>,
    ) {
        let Some(ticket) = self.tickets.get_mut(id) else { return };
        ticket.parts -= 1;
        ticket.recipients += recipients;
        ticket.refused = ticket.refused.or(refused);
        if ticket.parts > 0 {
            return;
        }
        let Some(mut ticket) = self.tickets.remove(id) else { return };
        let is_relay = |then: &Then| matches!(then, Then::Relayed(_));
        if ticket.refused == Some(ReasonCode::ImplementationSpecificError)
            && ticket.then.iter().any(is_relay)
        {
            // Another core's log has failed. This one's has the message, and asks again when the
            // daemon starts the next time.
            ticket.refused = None;
            for then in ticket.then.extract_if(.., |then| is_relay(then)) {
                let Then::Relayed(id) = then else { continue };
                for waiting in self.relays.answered(id) {
                    self.part_done(cx, waiting, 0, None);
                }
            }
        }
        let result = ticket.refused.unwrap_or(ReasonCode::Success);
        if !matches!(ticket.then.first(), Some(Then::Heard(_) | Then::Nobody)) {
            self.meters.core.record(self.meters.names.acknowledged, cx.now().since(ticket.asked));
        }
        for then in ticket.then {
            match then {
                Then::Answer(conn, number) => self.resolve_answer(cx, conn, number, result),
                Then::Core(core, ticket_name) => {
                    let (recipients, refused) = (ticket.recipients, ticket.refused);
                    cx.tell(core, Message::Stored { ticket: ticket_name, recipients, refused });
                }
                Then::Push { id: push, reply, counted } => {
                    let recipients = (ticket.recipients, counted);
                    self.answer_push(cx, push, recipients, ticket.refused, reply);
                }
                Then::Relayed(message) => self.relay_done(cx, message, ticket.refused),
                Then::Nobody => {}
                Then::Part(of) => self.part_done(cx, of, 0, None),
                Then::Kicked(reply) => {
                    let kept = ticket.refused.is_none();
                    // Whoever asked may have gone.
                    let _ = reply.send(if kept { Kicked::Done } else { Kicked::NotKept });
                }
                Then::Heard(filter) => {
                    if self.announced.get(&filter) == Some(&id) {
                        self.announced.remove(&filter);
                    }
                }
            }
        }
    }

    /// Tells all other cores something; if a ticket waits until they know, each answer is a part of
    /// it.
    pub(super) fn tell_others(
        &mut self,
        cx: &mut Context,
        ticket: Option<SlotId>,
        message: impl Fn(Option<u64>) -> Message,
    ) {
        let me = cx.core();
        for core in (0..cx.cores()).filter(|core| *core != me) {
            if let Some(ticket) = ticket {
                self.add_part(ticket);
            }
            cx.tell(core, message(ticket.map(SlotId::to_bits)));
        }
    }
}
