//! A client: what it is told to, it sends; what it gets, it keeps.

use std::collections::VecDeque;

use sextant_resp::{ReplyLimits, ReplyParser, Value, encode_command};
use sextant_ring::sim::SimPeer;

use crate::rig::Rig;

pub(crate) type Words = Vec<Vec<u8>>;

/// A command of words of text.
pub(crate) fn words(text: &str) -> Words {
    text.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

pub(crate) fn encode(out: &mut Vec<u8>, command: &Words) {
    encode_command(out, command.iter().map(Vec::as_slice));
}

pub(crate) struct Client {
    pub(crate) peer: SimPeer,
    parser: ReplyParser,
    /// Replies that nobody has taken.
    pub(crate) replies: VecDeque<Value>,
}

impl Client {
    pub(crate) fn new(rig: &Rig, instance: usize) -> Client {
        let parser = ReplyParser::new(ReplyLimits::default());
        Client { peer: rig.connect(instance), parser, replies: VecDeque::new() }
    }

    pub(crate) fn send(&self, commands: &[Words]) {
        let mut bytes = Vec::new();
        commands.iter().for_each(|command| encode(&mut bytes, command));
        self.peer.send(&bytes);
    }

    /// Reads what has arrived.
    pub(crate) fn poll(&mut self) {
        self.parser.push(&self.peer.received());
        while let Some(reply) = self.parser.next_reply().expect("replies can be read") {
            self.replies.push_back(reply);
        }
    }

    /// Whether that many replies are there.
    pub(crate) fn has(&mut self, count: usize) -> bool {
        self.poll();
        self.replies.len() >= count
    }

    /// Sends a command and waits for its reply; `None` if none comes.
    pub(crate) fn ask(&mut self, rig: &mut Rig, text: &str) -> Option<Value> {
        self.ask_words(rig, &words(text))
    }

    pub(crate) fn ask_words(&mut self, rig: &mut Rig, command: &Words) -> Option<Value> {
        assert!(self.replies.is_empty(), "replies are taken first");
        self.send(std::slice::from_ref(command));
        rig.until(|| self.has(1) || self.peer.is_closed());
        self.replies.pop_front()
    }
}

pub(crate) fn bulk(text: &str) -> Option<Value> {
    Some(Value::Bulk(text.as_bytes().to_vec().into()))
}

pub(crate) fn ok() -> Option<Value> {
    Some(Value::Simple("OK".into()))
}

pub(crate) fn is_misconf(reply: &Option<Value>) -> bool {
    let error = reply.as_ref().and_then(Value::as_error);
    error.is_some_and(|error| error.starts_with(b"MISCONF"))
}
