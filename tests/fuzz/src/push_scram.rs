//! Any text as what a server knows of a password, and as a client's two messages: who does not know
//! the password proves nothing.

use std::sync::Arc;

use sextant_push::auth::scram::{Exchange, First, Verifier};

pub(crate) fn run(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = text.parse::<Verifier>();
    }
    let (len, rest) = bytes.split_first().unwrap_or((&0, &[]));
    let (first, last) = rest.split_at(usize::from(*len).min(rest.len()));
    let Ok(first) = First::parse(first) else { return };
    let _ = first.user();
    let verifier = Arc::new(Verifier::decoy("user", 4096, &[7; 32]));
    // What the client cannot know is the same each time, so that it can be met.
    for last in [last.to_vec(), with_nonce(&first, &verifier, last)] {
        let (exchange, answer) = Exchange::begin(&first, Arc::clone(&verifier), [9; 18]);
        assert!(answer.starts_with("r="), "{answer}");
        assert!(exchange.finish(&last).is_err(), "nobody knows this password");
    }
}

/// A last message with the nonce that it has to have, and any proof.
fn with_nonce(first: &First<'_>, verifier: &Arc<Verifier>, proof: &[u8]) -> Vec<u8> {
    let (_, answer) = Exchange::begin(first, Arc::clone(verifier), [9; 18]);
    let nonce = answer.split(',').next().unwrap_or_default();
    [b"c=biws,", nonce.as_bytes(), b",p=", proof].concat()
}
