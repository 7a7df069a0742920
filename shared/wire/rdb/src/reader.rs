//! A file as items, from pieces of any size.

use bytes::Bytes;

use crate::crc64::Sum;
use crate::decode::{Decoder, skip_of_module};
use crate::error::{RdbError, Stop, corrupt};
use crate::input::Input;
use crate::value::{Elements, Header};

/// The greatest version of Redis' that is read: that of Redis 7.2.
pub(crate) const REDIS_VERSION_MAX: u16 = 11;
/// The version that Valkey 9 writes, in a file that begins with its own name.
pub(crate) const VALKEY_VERSION: u16 = 80;
/// Files before this version end without a checksum.
const VERSION_WITH_SUM: u16 = 5;
/// What has been read is let go of once it is at least as long.
const COMPACT_BYTES: usize = 64 << 10;

pub(crate) mod op {
    pub(crate) const SLOT_SIZES: u8 = 244;
    pub(crate) const FUNCTION: u8 = 245;
    pub(crate) const MODULE_AUX: u8 = 247;
    pub(crate) const IDLE: u8 = 248;
    pub(crate) const FREQUENCY: u8 = 249;
    pub(crate) const AUX: u8 = 250;
    pub(crate) const SIZES: u8 = 251;
    pub(crate) const EXPIRE_MS: u8 = 252;
    pub(crate) const EXPIRE_SECONDS: u8 = 253;
    pub(crate) const DATABASE: u8 = 254;
    pub(crate) const END: u8 = 255;
}

/// What a file says, in its order.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Item {
    /// Something about the file or the server, as `redis-ver` or `lua`.
    Aux {
        /// What it is.
        name: Bytes,
        /// What it says.
        value: Bytes,
    },
    /// The source of a library of functions.
    Function(Bytes),
    /// How many keys of a database follow: a hint, which may be wrong.
    Sizes {
        /// Number of the database.
        db: u64,
        /// Keys.
        keys: u64,
        /// Of these, such as expire.
        volatile: u64,
    },
    /// A key begins. Its elements follow.
    Begin(Header),
    /// Elements of that key.
    Elements(Elements),
    /// The key is whole.
    End,
    /// The file is whole and its checksum fits. Nothing follows.
    Done,
}

enum State {
    Head,
    Between,
    ModuleAux,
    Value(Decoder),
    Sum,
    Done,
    Failed(RdbError),
}

/// What is said of a key before it comes.
#[derive(Default)]
struct Marks {
    expire_ms: Option<u64>,
    idle_seconds: Option<u64>,
    frequency: Option<u8>,
}

/// Reads a file.
///
/// What is pushed is held until it is read, so push a piece (a few hundred KiB serve well), then
/// take items until there is none.
pub struct Reader {
    buffer: Vec<u8>,
    at: usize,
    sum: Sum,
    version: u16,
    db: u64,
    marks: Marks,
    state: State,
}

impl Default for Reader {
    fn default() -> Reader {
        Reader::new()
    }
}

impl Reader {
    /// For a file from its beginning.
    pub fn new() -> Reader {
        Reader {
            buffer: Vec::new(),
            at: 0,
            sum: Sum::new(),
            version: 0,
            db: 0,
            marks: Marks::default(),
            state: State::Head,
        }
    }

    /// The file's version, 0 before that is known.
    pub fn version(&self) -> u16 {
        self.version
    }

    /// Takes the next bytes of the file. What follows the file's end is not kept.
    pub fn push(&mut self, bytes: &[u8]) {
        if matches!(self.state, State::Done | State::Failed(_)) {
            return;
        }
        if self.at >= COMPACT_BYTES && self.at >= self.buffer.len() / 2 {
            self.buffer.drain(..self.at);
            self.at = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next item; none if it has not all arrived, or after [`Item::Done`]. An error stays.
    // Not an iterator, as more can come after none.
    #[expect(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Item>, RdbError> {
        let buffer = std::mem::take(&mut self.buffer);
        let got = loop {
            let mut input = Input::new(&buffer[self.at..]);
            let got = self.step(&mut input);
            self.sum.add(&buffer[self.at..self.at + input.at]);
            self.at += input.at;
            match got {
                Ok(None) => {}
                Ok(item) => break Ok(item),
                Err(Stop::More) => break Ok(None),
                Err(Stop::Fault(fault)) => {
                    self.state = State::Failed(fault);
                    break Err(fault);
                }
            }
        };
        self.buffer = buffer;
        got
    }

    /// To be asked at the end of the input: whether that was the end of the file too.
    pub fn finish(&self) -> Result<(), RdbError> {
        match self.state {
            State::Done => Ok(()),
            State::Failed(fault) => Err(fault),
            _ => Err(RdbError::Truncated),
        }
    }

    /// Reads one part. None is to be asked again.
    fn step(&mut self, input: &mut Input<'_>) -> Result<Option<Item>, Stop> {
        match &mut self.state {
            State::Head => {
                self.version = input.whole(head)?;
                self.state = State::Between;
                Ok(None)
            }
            State::Between => input.whole(|input| self.between(input)),
            State::ModuleAux => {
                if skip_of_module(input)? {
                    self.state = State::Between;
                }
                Ok(None)
            }
            State::Value(decoder) => {
                let Some(elements) = decoder.next(input)? else {
                    self.state = State::Between;
                    return Ok(Some(Item::End));
                };
                Ok(Some(Item::Elements(elements)))
            }
            State::Sum => {
                if self.version >= VERSION_WITH_SUM {
                    let found = self.sum.value();
                    let expected = u64::from_le_bytes(input.array()?);
                    // A server that is told not to compute it writes zero.
                    if expected != 0 && expected != found {
                        return Err(RdbError::Checksum { expected, found }.into());
                    }
                }
                self.state = State::Done;
                Ok(Some(Item::Done))
            }
            State::Done => Err(Stop::More),
            State::Failed(fault) => Err(Stop::Fault(*fault)),
        }
    }

    /// Reads an opcode with what belongs to it, or the type and the name of a key.
    fn between(&mut self, input: &mut Input<'_>) -> Result<Option<Item>, Stop> {
        match input.byte()? {
            op::AUX => {
                let (name, value) = input.two_strings()?;
                return Ok(Some(Item::Aux { name, value }));
            }
            op::FUNCTION => return Ok(Some(Item::Function(input.string()?))),
            op::SIZES => {
                let (keys, volatile) = (input.length()?, input.length()?);
                return Ok(Some(Item::Sizes { db: self.db, keys, volatile }));
            }
            op::DATABASE => self.db = input.length()?,
            op::EXPIRE_MS => {
                let ms = i64::from_le_bytes(input.array()?);
                self.marks.expire_ms = Some(u64::try_from(ms).unwrap_or(0));
            }
            op::EXPIRE_SECONDS => {
                let seconds = i32::from_le_bytes(input.array()?);
                self.marks.expire_ms = Some(u64::try_from(seconds).unwrap_or(0) * 1000);
            }
            op::IDLE => self.marks.idle_seconds = Some(input.length()?),
            op::FREQUENCY => self.marks.frequency = Some(input.byte()?),
            op::SLOT_SIZES => {
                for _ in 0..3 {
                    input.length()?;
                }
            }
            op::MODULE_AUX => {
                input.length()?;
                self.state = State::ModuleAux;
            }
            op::END => self.state = State::Sum,
            value_type => {
                let decoder = Decoder::new(value_type)?;
                let key = input.string()?;
                let marks = std::mem::take(&mut self.marks);
                let header = Header {
                    db: self.db,
                    key,
                    kind: decoder.kind(),
                    expire_ms: marks.expire_ms,
                    idle_seconds: marks.idle_seconds,
                    frequency: marks.frequency,
                };
                self.state = State::Value(decoder);
                return Ok(Some(Item::Begin(header)));
            }
        }
        Ok(None)
    }
}

/// The name and the version that a file begins with.
fn head(input: &mut Input<'_>) -> Result<u16, Stop> {
    let head: [u8; 9] = input.array()?;
    let (digits, is_valkey) = match (head.strip_prefix(b"REDIS"), head.strip_prefix(b"VALKEY")) {
        (Some(digits), _) => (digits, false),
        (_, Some(digits)) => (digits, true),
        _ => return Err(RdbError::NotRdb.into()),
    };
    if !digits.iter().all(u8::is_ascii_digit) {
        return corrupt("the version is not a number");
    }
    let version = digits.iter().fold(0, |version, digit| version * 10 + u16::from(digit - b'0'));
    let is_read = if is_valkey {
        version == VALKEY_VERSION
    } else {
        (1..=REDIS_VERSION_MAX).contains(&version)
    };
    if is_read { Ok(version) } else { Err(RdbError::Version(version).into()) }
}
