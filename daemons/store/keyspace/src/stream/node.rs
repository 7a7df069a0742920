//! Entries of a stream that follow each other, packed.
//!
//! ```text
//!   node:   n, then n names (length, bytes)  │ entry │ entry │ entry │ …
//!   entry:  bytes that follow │ ms above the base │ seq │ n │ fields
//!                                                         0: the node's names, so values alone
//!                                                         n: name, value in turn
//! ```
//!
//! All numbers are LEB128. The names are those of the first entry that was put in. A node is found
//! by its base, an identifier that none of its entries is below; what is removed leaves no trace.

use crate::stream::StreamId;

/// Appends a number.
pub(crate) fn push_number(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

/// Takes a number off bytes; none, if they are not one.
#[inline]
pub(crate) fn take_number(from: &mut &[u8]) -> Option<u64> {
    let (mut number, mut shift) = (0u64, 0);
    loop {
        let (first, rest) = from.split_first()?;
        *from = rest;
        if shift == 63 && *first > 1 {
            return None;
        }
        number |= u64::from(first & 0x7f) << shift;
        if *first < 0x80 {
            return Some(number);
        }
        shift += 7;
    }
}

/// Takes bytes with their length before them.
#[inline]
pub(crate) fn take_bytes<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let count = usize::try_from(take_number(from)?).ok()?;
    let (bytes, rest) = from.split_at_checked(count)?;
    *from = rest;
    Some(bytes)
}

pub(crate) fn push_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    push_number(to, bytes.len() as u64);
    to.extend_from_slice(bytes);
}

fn number_bytes(number: u64) -> usize {
    (number | 1).ilog2() as usize / 7 + 1
}

/// Number and bytes that this module wrote.
const OWN: &str = "a node is as it was packed";

/// The fields of an entry that is to be added, packed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldList {
    bytes: Vec<u8>,
    count: usize,
}

impl FieldList {
    /// None yet.
    pub fn new() -> FieldList {
        FieldList::default()
    }

    /// One more.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        push_bytes(&mut self.bytes, name);
        push_bytes(&mut self.bytes, value);
        self.count += 1;
    }

    /// Forgets them.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.count = 0;
    }

    pub(crate) fn packed(&self) -> PackedFields<'_> {
        PackedFields { bytes: &self.bytes, count: self.count }
    }
}

/// Names and values in turn, each with its length before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackedFields<'a> {
    pub(crate) bytes: &'a [u8],
    count: usize,
}

impl<'a> PackedFields<'a> {
    /// Bytes of a log; none, if they are no fields or there is no field.
    pub(crate) fn check(bytes: &'a [u8]) -> Option<PackedFields<'a>> {
        let (mut rest, mut count) = (bytes, 0);
        while !rest.is_empty() {
            take_bytes(&mut rest)?;
            take_bytes(&mut rest)?;
            count += 1;
        }
        (count > 0).then_some(PackedFields { bytes, count })
    }

    fn iter(self) -> Fields<'a> {
        Fields { names: None, rest: self.bytes, left: self.count }
    }
}

/// Fields and values of an entry, in order.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    /// The names, where they stand apart from the values.
    names: Option<&'a [u8]>,
    rest: &'a [u8],
    left: usize,
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a [u8], &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let name = match &mut self.names {
            Some(names) => take_bytes(names).expect(OWN),
            None => take_bytes(&mut self.rest).expect(OWN),
        };
        Some((name, take_bytes(&mut self.rest).expect(OWN)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Fields<'_> {}

/// An entry of a stream.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Its identifier.
    pub id: StreamId,
    fields: Fields<'a>,
}

impl<'a> Entry<'a> {
    /// Its fields and values.
    pub fn fields(&self) -> Fields<'a> {
        self.fields
    }
}

/// How large a node gets before another is begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeLimits {
    pub(crate) bytes: usize,
    pub(crate) entries: usize,
}

/// Entries that follow each other. It holds one at least.
#[derive(Debug)]
pub(crate) struct Node {
    /// The names, and the entries.
    bytes: Vec<u8>,
    /// Where the entries begin.
    names_bytes: u32,
    entries: u32,
    last: StreamId,
}

/// How an entry will be written.
struct Form {
    /// With the node's names.
    same: bool,
    /// Bytes behind the first number.
    body: usize,
}

impl Node {
    /// A node of one entry, which is its base.
    pub(crate) fn new(id: StreamId, fields: PackedFields<'_>) -> Node {
        let mut node = Node::empty(id);
        push_number(&mut node.bytes, fields.count as u64);
        fields.iter().for_each(|(name, _)| push_bytes(&mut node.bytes, name));
        match u32::try_from(node.bytes.len()) {
            Ok(bytes) => node.names_bytes = bytes,
            Err(_) => node.no_names(),
        }
        node.push(id, id, fields);
        node
    }

    fn empty(last: StreamId) -> Node {
        Node { bytes: Vec::new(), names_bytes: 0, entries: 0, last }
    }

    /// The names are of no field.
    fn no_names(&mut self) {
        self.bytes = vec![0];
        self.names_bytes = 1;
    }

    /// The highest identifier.
    pub(crate) fn last(&self) -> StreamId {
        self.last
    }

    pub(crate) fn len(&self) -> usize {
        self.entries as usize
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// How many names, and those.
    fn names(&self) -> (usize, &[u8]) {
        let mut names = &self.bytes[..self.names_bytes as usize];
        let count = take_number(&mut names).expect(OWN);
        (count as usize, names)
    }

    fn form(&self, base: StreamId, id: StreamId, fields: PackedFields<'_>) -> Form {
        let (count, mut names) = self.names();
        let mut names_bytes = 0;
        let same = count == fields.count
            && fields.iter().all(|(name, _)| {
                names_bytes += number_bytes(name.len() as u64) + name.len();
                take_bytes(&mut names) == Some(name)
            });
        let (n, payload) = match same {
            true => (0, fields.bytes.len() - names_bytes),
            false => (fields.count, fields.bytes.len()),
        };
        let head = number_bytes(id.ms - base.ms) + number_bytes(id.seq) + number_bytes(n as u64);
        Form { same, body: head + payload }
    }

    /// Whether there is room for an entry.
    pub(crate) fn has_room(
        &self,
        base: StreamId,
        id: StreamId,
        fields: PackedFields<'_>,
        limits: NodeLimits,
    ) -> bool {
        // What is too large by itself is so with the node's names or without.
        if self.len() >= limits.entries || self.bytes.len() >= limits.bytes {
            return false;
        }
        let form = self.form(base, id, fields);
        self.bytes.len() + number_bytes(form.body as u64) + form.body <= limits.bytes
    }

    /// Adds an entry above all others.
    pub(crate) fn push(&mut self, base: StreamId, id: StreamId, fields: PackedFields<'_>) {
        assert!(self.entries == 0 || id > self.last, "entries rise");
        let form = self.form(base, id, fields);
        self.bytes.reserve(number_bytes(form.body as u64) + form.body);
        push_number(&mut self.bytes, form.body as u64);
        let end = self.bytes.len() + form.body;
        push_number(&mut self.bytes, id.ms - base.ms);
        push_number(&mut self.bytes, id.seq);
        if form.same {
            push_number(&mut self.bytes, 0);
            fields.iter().for_each(|(_, value)| push_bytes(&mut self.bytes, value));
        } else {
            push_number(&mut self.bytes, fields.count as u64);
            self.bytes.extend_from_slice(fields.bytes);
        }
        assert_eq!(self.bytes.len(), end, "an entry is as large as was told");
        self.entries += 1;
        self.last = id;
    }

    /// Adds an entry between others, or before them, as a log may have it.
    pub(crate) fn insert(&mut self, base: StreamId, id: StreamId, fields: PackedFields<'_>) {
        let (end, last) = (self.bytes.len(), self.last);
        if id > last {
            return self.push(base, id, fields);
        }
        let at = self.place(base, id);
        self.last = StreamId::MIN;
        self.push(base, id, fields);
        let added = self.bytes.len() - end;
        self.bytes[at..].rotate_right(added);
        self.last = last;
    }

    /// Where the first entry stands that is not below an identifier.
    fn place(&self, base: StreamId, id: StreamId) -> usize {
        let mut at = self.names_bytes as usize;
        while at < self.bytes.len() {
            let (entry, next) = self.read(base, at);
            if entry.id >= id {
                break;
            }
            at = next;
        }
        at
    }

    /// The entry that begins there, and where the next one does.
    #[inline]
    pub(crate) fn read(&self, base: StreamId, at: usize) -> (Entry<'_>, usize) {
        let mut rest = &self.bytes[at..];
        let mut body = take_bytes(&mut rest).expect(OWN);
        let ms = base.ms + take_number(&mut body).expect(OWN);
        let seq = take_number(&mut body).expect(OWN);
        let fields = match take_number(&mut body).expect(OWN) {
            0 => {
                let (left, names) = self.names();
                Fields { names: Some(names), rest: body, left }
            }
            count => Fields { names: None, rest: body, left: count as usize },
        };
        let next = self.bytes.len() - rest.len();
        (Entry { id: StreamId { ms, seq }, fields }, next)
    }

    /// Where the first entry begins.
    pub(crate) fn start(&self) -> usize {
        self.names_bytes as usize
    }

    /// Where the last ends.
    pub(crate) fn end(&self) -> usize {
        self.bytes.len()
    }

    /// Where the entries begin.
    pub(crate) fn places(&self) -> Vec<u32> {
        let mut places = Vec::with_capacity(self.len());
        let mut rest = &self.bytes[self.start()..];
        while !rest.is_empty() {
            // Only a node of one entry can be so large that this is not a place of 32 bits, and
            // that one begins behind its names.
            places.push((self.bytes.len() - rest.len()) as u32);
            take_bytes(&mut rest).expect(OWN);
        }
        places
    }

    /// Removes an entry; returns whether it was there.
    pub(crate) fn remove(&mut self, base: StreamId, id: StreamId) -> bool {
        let (mut at, mut before) = (self.start(), StreamId::MIN);
        while at < self.end() {
            let (entry, next) = self.read(base, at);
            let found = entry.id;
            if found >= id {
                if found == id {
                    self.bytes.drain(at..next);
                    self.entries -= 1;
                    self.last = if id == self.last { before } else { self.last };
                    self.give_back();
                }
                return found == id;
            }
            (at, before) = (next, found);
        }
        false
    }

    /// Removes entries from the front, but never the last; returns the highest that was removed.
    pub(crate) fn remove_front(&mut self, base: StreamId, count: usize) -> Option<StreamId> {
        assert!(count < self.len(), "one stays");
        let (start, mut at, mut last) = (self.start(), self.start(), None);
        for _ in 0..count {
            let (entry, next) = self.read(base, at);
            (at, last) = (next, Some(entry.id));
        }
        self.bytes.drain(start..at);
        self.entries -= count as u32;
        self.give_back();
        last
    }

    /// How many entries are not above an identifier.
    pub(crate) fn count_up_to(&self, base: StreamId, id: StreamId) -> usize {
        let (mut at, mut count) = (self.start(), 0);
        while at < self.end() {
            let (entry, next) = self.read(base, at);
            if entry.id > id {
                break;
            }
            (at, count) = (next, count + 1);
        }
        count
    }

    /// Gives memory back if half of it is for nothing.
    fn give_back(&mut self) {
        const WORTH: usize = 256;
        if self.bytes.capacity() > 2 * self.bytes.len() + WORTH {
            self.bytes.shrink_to_fit();
        }
    }

    /// It is full: no memory is kept for more.
    pub(crate) fn close(&mut self) {
        self.bytes.shrink_to_fit();
    }

    /// Takes the entries that are above an identifier out, to a node of their own with its base.
    pub(crate) fn split(&mut self, base: StreamId, id: StreamId) -> (StreamId, Node) {
        assert!(id < self.last, "there are entries above");
        let at = self.place(base, id);
        let (first, _) = self.read(base, at);
        let new_base = first.id;
        let mut new = Node::empty(self.last);
        new.bytes.extend_from_slice(&self.bytes[..self.start()]);
        new.names_bytes = self.names_bytes;
        let (mut from, mut before) = (at, StreamId::MIN);
        while from < self.end() {
            let (entry, next) = self.read(base, from);
            new.copy(new_base, entry);
            from = next;
        }
        let mut place = self.start();
        while place < at {
            let (entry, next) = self.read(base, place);
            (place, before) = (next, entry.id);
        }
        self.bytes.truncate(at);
        self.entries -= new.entries;
        self.last = before;
        (new_base, new)
    }

    /// Adds an entry of a node that has the same names.
    fn copy(&mut self, base: StreamId, entry: Entry<'_>) {
        let (ms, fields) = (entry.id.ms - base.ms, entry.fields);
        let n = if fields.names.is_some() { 0 } else { fields.left as u64 };
        let head = number_bytes(ms) + number_bytes(entry.id.seq) + number_bytes(n);
        push_number(&mut self.bytes, (head + fields.rest.len()) as u64);
        [ms, entry.id.seq, n].into_iter().for_each(|number| push_number(&mut self.bytes, number));
        self.bytes.extend_from_slice(fields.rest);
        self.entries += 1;
    }
}
