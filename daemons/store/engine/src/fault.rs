//! Why a command was not done, in the words that Redis' clients know.

use std::borrow::Cow;

use sextant_keyspace::{OutOfMemory, Refused};

/// Why a command was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The key holds a value of another type.
    WrongType,
    /// The words are in no order that the command knows.
    Syntax,
    /// A word should be an integer of 64 bits.
    NotInteger,
    /// A word should be a number.
    NotFloat,
    /// There is no such key.
    NoSuchKey,
    /// An index is beyond what there is.
    IndexOutOfRange,
    /// The instance's memory is used up.
    OutOfMemory,
    /// Anything else: the error's line, its code first.
    Text(Cow<'static, str>),
}

impl Fault {
    /// An error line that was put together.
    pub(crate) fn text(text: impl Into<Cow<'static, str>>) -> Fault {
        Fault::Text(text.into())
    }

    /// The wrong number of words for a command.
    pub(crate) fn arity(command: &str) -> Fault {
        Fault::Text(format!("ERR wrong number of arguments for '{command}' command").into())
    }

    /// The error's line.
    pub(crate) fn line(&self) -> &str {
        match self {
            Fault::WrongType => "WRONGTYPE Operation against a key holding the wrong kind of value",
            Fault::Syntax => "ERR syntax error",
            Fault::NotInteger => "ERR value is not an integer or out of range",
            Fault::NotFloat => "ERR value is not a valid float",
            Fault::NoSuchKey => "ERR no such key",
            Fault::IndexOutOfRange => "ERR index out of range",
            Fault::OutOfMemory => "OOM command not allowed when used memory > 'maxmemory'.",
            Fault::Text(text) => text,
        }
    }
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Fault {
        match refused {
            Refused::WrongType => Fault::WrongType,
            _ => Fault::OutOfMemory,
        }
    }
}

impl From<OutOfMemory> for Fault {
    fn from(_: OutOfMemory) -> Fault {
        Fault::OutOfMemory
    }
}
