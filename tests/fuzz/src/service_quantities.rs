//! Any text as a length of time or an amount of bytes, as the configuration and the API's queries
//! have them: what is read is printed so that it reads as the same.

use sextant_service::config::{Bytes, Span};

pub(crate) fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(span) = text.parse::<Span>() {
        assert_eq!(span.to_string().parse::<Span>(), Ok(span));
    }
    if let Ok(amount) = text.parse::<Bytes>() {
        assert_eq!(amount.to_string().parse::<Bytes>(), Ok(amount));
    }
}
