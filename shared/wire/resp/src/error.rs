//! What either end can do wrong: a client before its words are a command at all
//! ([`ProtocolError`]), and a server whose bytes are no reply ([`ReplyError`]).

/// Bytes that are no request. Always the client's fault. What follows them cannot be understood:
/// the connection is closed after the error was answered, which
/// [`Reply::protocol_error`](crate::Reply::protocol_error) writes.
///
/// Displayed it is what stands behind `-ERR Protocol error: ` in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The count of words is not a number, or above [`Limits::args_max`](crate::Limits).
    #[error("invalid multibulk length")]
    InvalidMultibulkLength,
    /// The length of a word is not a number, below zero, or above
    /// [`Limits::bulk_bytes_max`](crate::Limits).
    #[error("invalid bulk length")]
    InvalidBulkLength,
    /// A word begins with another byte than `$`: this one.
    #[error("expected '$', got '{}'", printed(*.0) as char)]
    ExpectedDollar(u8),
    /// The line with the count of words does not end.
    #[error("too big mbulk count string")]
    TooBigMultibulkCount,
    /// The line with the length of a word does not end.
    #[error("too big bulk count string")]
    TooBigBulkCount,
    /// An inline command does not end.
    #[error("too big inline request")]
    TooBigInline,
    /// A quote in an inline command is not closed, or a word goes on behind a closing one.
    #[error("unbalanced quotes in request")]
    UnbalancedQuotes,
    /// More words than a client may send before it is authenticated.
    #[error("unauthenticated multibulk length")]
    UnauthenticatedMultibulk,
    /// A longer word than a client may send before it is authenticated.
    #[error("unauthenticated bulk length")]
    UnauthenticatedBulk,
    /// All words together are above [`Limits::request_bytes_max`](crate::Limits).
    #[error("too big request")]
    TooBigRequest,
}

/// The byte as an error's line can hold it.
pub(crate) fn printed(byte: u8) -> u8 {
    if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }
}

/// Bytes that are no reply. Always the server's fault. What follows them cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// No type begins with this byte.
    #[error("no reply begins with '{}'", .0.escape_ascii())]
    Type(u8),
    /// A length or a count is not a number, is below zero, or is above what fits 32 bits.
    #[error("a length is not one")]
    Length,
    /// A line or a string ends in other bytes than a carriage return and a line feed.
    #[error("what ends a line is not where it must be")]
    End,
    /// An integer is not a number, or does not fit 64 bits.
    #[error("an integer is not a number of 64 bits")]
    Integer,
    /// A floating point number is not a number.
    #[error("a double is not a number")]
    Double,
    /// A truth value is neither `t` nor `f`.
    #[error("a truth value is neither true nor false")]
    Bool,
    /// A null has content.
    #[error("a null has content")]
    Null,
    /// An integer of any size is not in decimal digits.
    #[error("a big number is not a number")]
    BigNumber,
    /// A verbatim string does not begin with the three letters of its format and a colon.
    #[error("a verbatim string has no format")]
    Verbatim,
    /// Values lie in one another deeper than [`ReplyLimits::depth_max`](crate::ReplyLimits).
    #[error("values lie too deep in one another")]
    TooDeep,
    /// The reply is above [`ReplyLimits::reply_bytes_max`](crate::ReplyLimits).
    #[error("the reply is too long")]
    TooLong,
}
