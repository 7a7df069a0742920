//! A client's connection: bytes that were not understood yet, and bytes that may not be sent yet.

use std::collections::VecDeque;

use bytes::Bytes;
use sextant_engine::ClientId;
use sextant_resp::{Limits, RequestParser};
use sextant_ring::core::ConnId;

/// Memory for input that a quiet connection keeps.
const INPUT_KEPT: usize = 4 << 10;

pub(crate) struct Connection {
    pub(crate) conn: ConnId,
    pub(crate) instance: usize,
    pub(crate) client: ClientId,
    pub(crate) parser: RequestParser,
    /// What arrived and was not executed; from `done` on.
    pub(crate) input: Vec<u8>,
    pub(crate) done: usize,
    /// More bytes that a command needs which has begun.
    pub(crate) wanted: usize,
    /// Replies that may be sent and have found no room yet.
    pub(crate) waiting: VecDeque<Bytes>,
    pub(crate) waiting_bytes: usize,
    /// It is in its instance's queue of those whose commands wait for their turn.
    pub(crate) queued: bool,
    /// It is in its instance's list of those whose replies wait for the log.
    pub(crate) held: bool,
    /// Nothing is read from it.
    pub(crate) paused: bool,
    /// Nothing more is executed for it; it ends when its replies were sent.
    pub(crate) closing: bool,
}

impl Connection {
    pub(crate) fn new(
        conn: ConnId,
        instance: usize,
        client: ClientId,
        limits: Limits,
    ) -> Connection {
        Connection {
            conn,
            instance,
            client,
            parser: RequestParser::new(limits),
            input: Vec::new(),
            done: 0,
            wanted: 1,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            queued: false,
            held: false,
            paused: false,
            closing: false,
        }
    }

    /// Bytes that wait to be executed.
    pub(crate) fn unread(&self) -> usize {
        self.input.len() - self.done
    }

    /// Forgets what was executed.
    pub(crate) fn compact(&mut self) {
        if self.done == self.input.len() {
            self.input.clear();
            if self.input.capacity() > INPUT_KEPT {
                self.input = Vec::new();
            }
        } else if self.done > 0 {
            self.input.drain(..self.done);
        }
        self.done = 0;
    }
}
