//! A stream's part of an image: the words that a log has of it, for all that is so.

use std::io::{self, Read, Write};

use crate::image::{ImageError, In, Out};
use crate::stream::log::Word;
use crate::stream::node::{FieldList, NodeLimits};
use crate::stream::{Stream, StreamId};

impl Stream {
    pub(crate) fn write_image(&self, out: &mut Out<impl Write>) -> io::Result<()> {
        let mut count = 1 + self.len;
        for (_, group) in self.groups() {
            count += 1 + group.consumers_len() as u64 + group.pending_len() as u64;
        }
        out.number(count)?;
        let (mut name, mut value) = (Vec::new(), Vec::new());
        let mut written = 0;
        self.for_each_word(|word| {
            name.clear();
            value.clear();
            let item = word.encode(&mut name, &mut value);
            if let Word::Entry { fields, .. } = &word {
                value.extend_from_slice(fields);
            }
            written += 1;
            out.number(u64::from(item))?;
            out.string(&name)?;
            out.string(&value)
        })?;
        assert_eq!(written, count, "everything in a stream is a word");
        Ok(())
    }

    /// Calls `each` for words that make this stream of an empty one.
    fn for_each_word<E>(&self, mut each: impl FnMut(Word<'_>) -> Result<(), E>) -> Result<(), E> {
        let mut list = FieldList::new();
        for entry in self.range(StreamId::MIN, StreamId::MAX) {
            list.clear();
            entry.fields().for_each(|(name, value)| list.push(name, value));
            each(Word::Entry { id: entry.id, added: 0, fields: list.packed().bytes })?;
        }
        for (group, of) in self.groups() {
            let (last_id, entries_read) = (of.last_id(), of.entries_read());
            each(Word::Group { group, last_id, entries_read })?;
            for consumer in of.consumers() {
                let (seen, active) = (consumer.seen(), consumer.active());
                each(Word::Consumer { group, consumer: consumer.name(), seen, active })?;
            }
            for (id, pending) in of.pending(StreamId::MIN, StreamId::MAX) {
                let consumer = of.holder(pending).name();
                let (delivered, count) = (pending.delivered, pending.count);
                each(Word::Pending { group, consumer, id, delivered, count })?;
            }
        }
        // Last, since entries raise what it says.
        let (last_id, max_deleted, added) = (self.last_id, self.max_deleted, self.added);
        each(Word::State { last_id, max_deleted, added })
    }

    pub(crate) fn read_image(
        image: &mut In<impl Read>,
        limits: NodeLimits,
    ) -> Result<Stream, ImageError> {
        let mut stream = Stream::default();
        for _ in 0..image.count()? {
            let item = u8::try_from(image.number()?).unwrap_or(u8::MAX);
            let (name, value) = (image.string()?, image.string()?);
            let word = Word::decode(item, &name, &value);
            let taken = word.is_some_and(|word| stream.take_word(word, limits).is_ok());
            if !taken {
                return Err(ImageError::Damaged("a stream says what no stream can"));
            }
        }
        Ok(stream)
    }
}
