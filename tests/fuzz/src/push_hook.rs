//! Any bytes as what an HTTP hook answers: whoever is let in has a name, and time left.

use sextant_push::auth::http::fuzz_answer;
use sextant_push::config::USER_NAME_BYTES_MAX;

pub(crate) fn run(bytes: &[u8]) {
    const NOW: u64 = 1_800_000_000_000;
    let Some(principal) = fuzz_answer(bytes, "lamp", NOW) else { return };
    assert!((1..=USER_NAME_BYTES_MAX).contains(&principal.name().len()));
    assert!(principal.expires_at().is_none_or(|end| end > NOW));
    for topic in ["a", "d/lamp/x", "$SYS/x"] {
        let _ = (principal.may_publish(topic), principal.may_subscribe(topic));
    }
}
