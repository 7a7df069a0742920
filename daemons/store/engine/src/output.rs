//! What waits to be sent to one client: replies, and large values between them that are sent from
//! where they lie.

use std::ops::{Deref, DerefMut};

use bytes::Bytes;
use sextant_keyspace::packed::Word;
use sextant_resp::Reply;

/// A value longer than this is not copied.
const COPIED_MAX: usize = 16 << 10;

/// Replies to one client.
#[derive(Default)]
pub struct Output {
    reply: Reply,
    /// Large pieces, and at which byte of the replies they stand.
    pieces: Vec<(usize, Bytes)>,
    pieces_bytes: usize,
}

impl Output {
    /// Nothing to send.
    pub fn new(resp3: bool) -> Output {
        Output { reply: Reply { out: Vec::new(), resp3 }, ..Output::default() }
    }

    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.reply.out.len() + self.pieces_bytes
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds bytes that stay where they are.
    pub fn piece(&mut self, bytes: Bytes) {
        if bytes.len() <= COPIED_MAX {
            self.reply.out.extend_from_slice(&bytes);
            return;
        }
        self.pieces_bytes += bytes.len();
        self.pieces.push((self.reply.out.len(), bytes));
    }

    /// Adds a bulk string that is in pieces.
    pub fn bulk_pieces(&mut self, len: usize, pieces: impl Iterator<Item = Bytes>) {
        self.reply.bulk_head(len);
        pieces.for_each(|piece| self.piece(piece));
        self.reply.crlf();
    }

    /// Adds an element of a collection as a bulk string.
    #[inline]
    pub(crate) fn word(&mut self, word: Word<'_>) {
        match word {
            Word::Bytes(bytes) => self.reply.bulk(bytes),
            Word::Int(number) => self.reply.bulk_int(number),
        }
    }

    /// Whether all of it is in one piece: [`Output::bytes`].
    pub fn is_plain(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The replies, but for large pieces.
    pub fn bytes(&self) -> &[u8] {
        &self.reply.out
    }

    /// Takes everything, in the order in which it is to be sent.
    pub fn take(&mut self, mut each: impl FnMut(Bytes)) {
        if self.pieces.is_empty() {
            if !self.reply.out.is_empty() {
                each(Bytes::from(std::mem::take(&mut self.reply.out)));
            }
            return;
        }
        let plain = Bytes::from(std::mem::take(&mut self.reply.out));
        let mut from = 0;
        for (at, piece) in self.pieces.drain(..) {
            if at > from {
                each(plain.slice(from..at));
            }
            each(piece);
            from = at;
        }
        if plain.len() > from {
            each(plain.slice(from..));
        }
        self.pieces_bytes = 0;
    }

    /// Forgets everything; its memory is kept if it is little.
    pub fn clear(&mut self) {
        const KEEP: usize = 16 << 10;
        self.cut(0);
        if self.reply.out.capacity() > KEEP {
            self.reply.out = Vec::new();
        }
    }

    /// Takes back what was added since it was so long: see [`Output::mark`].
    pub(crate) fn cut(&mut self, mark: usize) {
        self.reply.out.truncate(mark);
        while let Some((at, piece)) = self.pieces.last() {
            if *at < mark {
                break;
            }
            self.pieces_bytes -= piece.len();
            self.pieces.pop();
        }
    }

    /// A place to come back to.
    pub(crate) fn mark(&self) -> usize {
        self.reply.out.len()
    }

    /// Adds what another has, behind this.
    pub(crate) fn append(&mut self, other: &mut Output) {
        let shift = self.reply.out.len();
        self.reply.out.append(&mut other.reply.out);
        self.pieces.extend(other.pieces.drain(..).map(|(at, piece)| (at + shift, piece)));
        self.pieces_bytes += std::mem::take(&mut other.pieces_bytes);
    }
}

impl Deref for Output {
    type Target = Reply;

    fn deref(&self) -> &Reply {
        &self.reply
    }
}

impl DerefMut for Output {
    fn deref_mut(&mut self) -> &mut Reply {
        &mut self.reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_pieces_are_sent_where_they_stand() {
        let mut output = Output::new(false);
        output.simple("OK");
        let large = Bytes::from(vec![b'x'; COPIED_MAX + 1]);
        output
            .bulk_pieces(large.len() + 3, [large.clone(), Bytes::from_static(b"abc")].into_iter());
        let mark = output.mark();
        output.bulk_pieces(large.len(), [large.clone()].into_iter());
        output.cut(mark);
        output.int(1);
        let mut sent = Vec::new();
        let len = output.len();
        output.take(|bytes| sent.extend_from_slice(&bytes));
        let expected = [b"+OK\r\n$16388\r\n", &large[..], b"abc\r\n:1\r\n"].concat();
        assert!(sent == expected && len == expected.len() && output.is_empty());
    }
}
