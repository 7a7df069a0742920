//! What a client can do wrong before its words are a command at all.

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
