//! Waiting for something to become so.

use std::time::{Duration, Instant};

/// How long anything may take that should be immediate: generous, since machines that run tests
/// are busy.
pub const DEADLINE: Duration = Duration::from_secs(30);

const EVERY: Duration = Duration::from_millis(10);

/// Asks until there is an answer.
///
/// # Panics
/// There is none within [`DEADLINE`]; `what` says what was waited for.
#[track_caller]
pub fn until<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    until_for(DEADLINE, what, ask)
}

/// As [`until`], with a time limit of its own.
///
/// # Panics
/// There is no answer within `limit`.
#[track_caller]
pub fn until_for<T>(limit: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(began.elapsed() < limit, "waited {limit:?} in vain: {what}");
        std::thread::sleep(EVERY);
    }
}
