//! The settings of who is told of clients that come and go.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sextant_service::config::{Bytes, Faults, Secret, Span};

use super::url::Url;

/// The shortest secret, in bytes.
const SECRET_BYTES_MIN: usize = 16;

/// The settings under `[presence]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// Whether it is published on `$presence/{client}`.
    pub topic: bool,
    /// Who else is told.
    pub webhook: Webhook,
}

impl Default for Presence {
    fn default() -> Self {
        Presence { topic: true, webhook: Webhook::default() }
    }
}

/// The settings under `[presence.webhook]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// Where events are posted to; empty is nowhere.
    pub url: Url,
    /// What posts are signed with: text of 16 bytes or more, which the receiver knows too.
    pub secret: Secret,
    /// A file with the certificates, as PEM, that the receiver's is to be signed by; without one,
    /// those that browsers know.
    pub ca_file: Option<PathBuf>,
    /// How long a post may take.
    pub timeout: Span,
    /// Events of one post.
    pub batch_max: u32,
    /// How long an event waits for others to be posted with it.
    pub batch_delay: Span,
    /// What events that wait may take in memory; then the oldest are dropped.
    pub queue_bytes_max: Bytes,
    /// The longest pause before a post that failed is tried again; the first is half a second.
    pub retry_max: Span,
    /// How long the daemon waits for what is still to be told when it stops.
    pub flush_max: Span,
}

impl Default for Webhook {
    fn default() -> Self {
        Webhook {
            url: Url::default(),
            secret: Secret::default(),
            ca_file: None,
            timeout: Span::secs(5),
            batch_max: 500,
            batch_delay: Span::millis(200),
            queue_bytes_max: Bytes::mib(16),
            retry_max: Span::secs(60),
            flush_max: Span::secs(5),
        }
    }
}

impl Webhook {
    /// Whether somebody is told.
    pub fn is_configured(&self) -> bool {
        !self.url.is_empty()
    }
}

impl Presence {
    pub(super) fn check(&self, faults: &mut Faults<'_>) {
        let hook = &self.webhook;
        let signed = "the receiver knows a post by its signature, with presence.webhook.secret";
        hook.url.check("presence.webhook.url", signed, faults);
        faults.require(
            "presence.webhook.secret",
            !hook.is_configured() || hook.secret.expose().len() >= SECRET_BYTES_MIN,
            format_args!("must have {SECRET_BYTES_MIN} bytes or more"),
        );
        let minute = Duration::from_secs(60);
        for (key, value, min, max) in [
            ("timeout", hook.timeout, Duration::from_millis(10), minute),
            ("batch_delay", hook.batch_delay, Duration::ZERO, minute),
            ("retry_max", hook.retry_max, Duration::from_secs(1), 60 * minute),
            ("flush_max", hook.flush_max, Duration::ZERO, minute),
        ] {
            faults.require(
                &format!("presence.webhook.{key}"),
                (min..=max).contains(&value.get()),
                format_args!("must be {min:?} to {max:?}"),
            );
        }
        faults.require(
            "presence.webhook.batch_max",
            (1..=10_000).contains(&hook.batch_max),
            "must be 1 to 10000",
        );
        faults.require(
            "presence.webhook.queue_bytes_max",
            (Bytes::mib(1)..=Bytes::gib(16)).contains(&hook.queue_bytes_max),
            "must be 1MiB to 16GiB",
        );
    }
}
