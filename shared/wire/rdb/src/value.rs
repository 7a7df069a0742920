//! Keys and values as they pass between a file and who reads or writes it.

use bytes::Bytes;

/// The most elements of one batch.
pub const BATCH_ELEMENTS: usize = 256;
/// A batch that has reached as many bytes gets no further element.
pub const BATCH_BYTES: usize = 64 << 10;

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A string.
    Text,
    /// A list.
    List,
    /// A set.
    Set,
    /// A sorted set.
    ZSet,
    /// A hash.
    Hash,
    /// A stream.
    Stream,
    /// A value of a module, whose bytes are skipped: it has no elements here.
    Module,
}

/// A key, and what is said of it beside its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Number of the database.
    pub db: u64,
    /// The key.
    pub key: Bytes,
    /// What it holds.
    pub kind: Kind,
    /// When it expires. A time that has passed is given as it is; 0 where the file has one
    /// before 1970.
    pub expire_ms: Option<u64>,
    /// Seconds since it was used, where the server counted them.
    pub idle_seconds: Option<u64>,
    /// How often it was used, on the server's logarithmic scale.
    pub frequency: Option<u8>,
}

/// The place of an entry in a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// Milliseconds.
    pub ms: u64,
    /// Number within the millisecond.
    pub seq: u64,
}

impl StreamId {
    /// As 16 bytes, the highest first.
    pub(crate) fn bytes(self) -> [u8; 16] {
        (u128::from(self.ms) << 64 | u128::from(self.seq)).to_be_bytes()
    }

    pub(crate) fn from_bytes(bytes: [u8; 16]) -> StreamId {
        let both = u128::from_be_bytes(bytes);
        StreamId { ms: (both >> 64) as u64, seq: both as u64 }
    }
}

/// One entry of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamEntry {
    /// Its place.
    pub id: StreamId,
    /// Names and values, in order.
    pub fields: Vec<(Bytes, Bytes)>,
}

/// What a stream knows beside its entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamState {
    /// How many entries there are.
    pub len: u64,
    /// The greatest place ever given.
    pub last_id: StreamId,
    /// The first place in use; zero for none. Files before version 10 do not say it: zero.
    pub first_id: StreamId,
    /// The greatest place of an entry that was deleted.
    pub max_deleted: StreamId,
    /// How many entries were ever added. As `len` where the file does not say it.
    pub added: u64,
}

/// An entry that was delivered and not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Which one.
    pub id: StreamId,
    /// When it was last delivered.
    pub delivered_ms: u64,
    /// How often.
    pub count: u64,
}

/// Elements of the value that was begun last.
#[derive(Clone, Debug, PartialEq)]
pub enum Elements {
    /// The whole string.
    Text(Bytes),
    /// From head to tail.
    List(Vec<Bytes>),
    /// In no order.
    Set(Vec<Bytes>),
    /// Members with their scores, in no order; no score is NaN.
    ZSet(Vec<(Bytes, f64)>),
    /// Fields with their values, in no order.
    Hash(Vec<(Bytes, Bytes)>),
    /// Entries of a stream in ascending order.
    Entries(Vec<StreamEntry>),
    /// After all entries, once.
    State(StreamState),
    /// A group of consumers, after the state.
    Group {
        /// Its name.
        name: Bytes,
        /// The last entry that was delivered to it.
        last_id: StreamId,
        /// How many entries were read, if that is known.
        entries_read: Option<u64>,
    },
    /// What is pending in the group that was begun last.
    Pending(Vec<Pending>),
    /// A consumer of that group, after all that is pending in it.
    Consumer {
        /// Its name.
        name: Bytes,
        /// When it last asked for something.
        seen_ms: u64,
        /// When it last got something, if ever.
        active_ms: Option<u64>,
    },
    /// What of the group's pending entries is that consumer's.
    Held(Vec<StreamId>),
}

/// A consumer of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// Its name.
    pub name: Bytes,
    /// When it last asked for something.
    pub seen_ms: u64,
    /// When it last got something, if ever.
    pub active_ms: Option<u64>,
    /// What of the group's pending entries is its own.
    pub held: Vec<StreamId>,
}

/// A group of consumers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: Bytes,
    /// The last entry that was delivered to it.
    pub last_id: StreamId,
    /// How many entries were read, if that is known.
    pub entries_read: Option<u64>,
    /// What is pending, in ascending order.
    pub pending: Vec<Pending>,
    /// Its consumers.
    pub consumers: Vec<Consumer>,
}

/// A stream as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// Its entries in ascending order.
    pub entries: Vec<StreamEntry>,
    /// What it knows beside them.
    pub state: StreamState,
    /// Its groups.
    pub groups: Vec<Group>,
}

/// A value as a whole.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A string.
    Text(Bytes),
    /// From head to tail.
    List(Vec<Bytes>),
    /// In no order.
    Set(Vec<Bytes>),
    /// Members with their scores.
    ZSet(Vec<(Bytes, f64)>),
    /// Fields with their values.
    Hash(Vec<(Bytes, Bytes)>),
    /// A stream.
    Stream(Box<Stream>),
}

impl Value {
    /// A value of this kind with nothing in it; none for what a module keeps.
    pub fn empty(kind: Kind) -> Option<Value> {
        Some(match kind {
            Kind::Text => Value::Text(Bytes::new()),
            Kind::List => Value::List(Vec::new()),
            Kind::Set => Value::Set(Vec::new()),
            Kind::ZSet => Value::ZSet(Vec::new()),
            Kind::Hash => Value::Hash(Vec::new()),
            Kind::Stream => Value::Stream(Box::default()),
            Kind::Module => return None,
        })
    }

    /// Which kind it is.
    pub fn kind(&self) -> Kind {
        match self {
            Value::Text(_) => Kind::Text,
            Value::List(_) => Kind::List,
            Value::Set(_) => Kind::Set,
            Value::ZSet(_) => Kind::ZSet,
            Value::Hash(_) => Kind::Hash,
            Value::Stream(_) => Kind::Stream,
        }
    }

    /// Takes what a reader gave after the value's beginning. False, and nothing is taken, if
    /// the elements are of another kind or come out of order.
    pub fn extend(&mut self, elements: Elements) -> bool {
        match (self, elements) {
            (Value::Text(text), Elements::Text(more)) => *text = more,
            (Value::List(list), Elements::List(more)) => list.extend(more),
            (Value::Set(set), Elements::Set(more)) => set.extend(more),
            (Value::ZSet(zset), Elements::ZSet(more)) => zset.extend(more),
            (Value::Hash(hash), Elements::Hash(more)) => hash.extend(more),
            (Value::Stream(stream), elements) => return stream.extend(elements),
            _ => return false,
        }
        true
    }
}

impl Stream {
    fn extend(&mut self, elements: Elements) -> bool {
        let group = self.groups.last_mut();
        match (elements, group) {
            (Elements::Entries(more), _) => self.entries.extend(more),
            (Elements::State(state), _) => self.state = state,
            (Elements::Group { name, last_id, entries_read }, _) => self.groups.push(Group {
                name,
                last_id,
                entries_read,
                pending: Vec::new(),
                consumers: Vec::new(),
            }),
            (Elements::Pending(more), Some(group)) => group.pending.extend(more),
            (Elements::Consumer { name, seen_ms, active_ms }, Some(group)) => {
                group.consumers.push(Consumer { name, seen_ms, active_ms, held: Vec::new() });
            }
            (Elements::Held(more), Some(group)) => match group.consumers.last_mut() {
                Some(consumer) => consumer.held.extend(more),
                None => return false,
            },
            _ => return false,
        }
        true
    }
}
