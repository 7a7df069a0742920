//! What can be wrong with a file or a payload.

/// Why a file cannot be read, or not further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RdbError {
    /// The first bytes are not those of such a file.
    #[error("not a file of Redis or Valkey")]
    NotRdb,
    /// Written by a server that is newer than what is read here.
    #[error("version {0} is not read here")]
    Version(u16),
    /// The sum at the end of the file does not fit its bytes.
    #[error("the checksum is {expected:016x} in the file and {found:016x} of its bytes")]
    Checksum {
        /// What the file says.
        expected: u64,
        /// What its bytes give.
        found: u64,
    },
    /// A type of value or an opcode that is not known.
    #[error("type or opcode {0} is not known")]
    Unknown(u8),
    /// A value that only its module can tell the end of.
    #[error("a value of a module, in a form that cannot be skipped")]
    Module,
    /// A string is longer than [`STRING_BYTES_MAX`](crate::STRING_BYTES_MAX).
    #[error("a string of {0} bytes is too long")]
    TooLong(u64),
    /// Bytes that do not mean anything.
    #[error("{0}")]
    Corrupt(&'static str),
    /// The file ends before its end is marked.
    #[error("the file ends early")]
    Truncated,
}

/// Why a part could not be read now.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It has not arrived as a whole.
    More,
    /// It never will be.
    Fault(RdbError),
}

impl From<RdbError> for Stop {
    fn from(fault: RdbError) -> Stop {
        Stop::Fault(fault)
    }
}

pub(crate) fn corrupt<T>(what: &'static str) -> Result<T, Stop> {
    Err(Stop::Fault(RdbError::Corrupt(what)))
}
