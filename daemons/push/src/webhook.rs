//! Tells somebody else's HTTP server of clients that come and go.
//!
//! ```text
//!   cores ──► Inlet ──► numbered, waiting ──► a batch ──POST──► the receiver
//!              full: lost   full: the oldest     ▲  │ anything but 2xx: again, later and later
//!                           are dropped          └──┘
//! ```
//!
//! A body is a JSON array of events, each with the daemon's `life` (a UUID of its start) and a
//! number, `seq`, from 1 on without gaps. What is lost or dropped has had its number, so a receiver
//! that sees a gap, or another life, knows to ask how things are. A batch is posted until it is
//! taken, so it may come twice; nothing overtakes it.
//!
//! The header `Sextant-Signature: t=SECONDS,v1=HEX` has the time of the post, and the HMAC-SHA256
//! of that time as it is written, a dot and the body, under the secret that both know. Whoever
//! checks it, and that the time is not long past, knows that the body is the daemon's and no
//! replay.
//!
//! This is a task of the control plane: it costs a core the hand-over of an event and nothing else,
//! whatever the receiver does.

use std::collections::VecDeque;
use std::fmt::Write;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hmac::{Hmac, Mac};
use sextant_service::config::Secret;
use sextant_service::metrics::Builder;
use sha2::Sha256;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};
use ureq::Agent;

use crate::config;
use crate::outbound::{self, CertificatesError};
use crate::presence::{Event, Inlet};

/// The pause before a post is tried again for the first time, on average three quarters of it.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// Bytes of a body, about.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Events that are taken from the cores at a time.
const TAKEN_MAX: usize = 256;
/// What an event takes beside what is in it.
const EVENT_OVERHEAD_BYTES: usize = 32;

/// What became of events.
#[derive(Debug, Default)]
pub struct Counts {
    events: AtomicU64,
    sent: AtomicU64,
    dropped: AtomicU64,
    failures: AtomicU64,
    waiting: AtomicU64,
}

impl Counts {
    /// Declares them to `/metrics`.
    pub fn declare(self: &Arc<Counts>, builder: &mut Builder) {
        type Pick = fn(&Counts) -> &AtomicU64;
        let all: [(&str, &str, Pick); 4] = [
            ("events", "Events for the webhook.", |counts| &counts.events),
            ("sent", "Events that the webhook's receiver took.", |counts| &counts.sent),
            ("dropped", "Events that the webhook had no room for.", |counts| &counts.dropped),
            ("failures", "Posts of the webhook that failed.", |counts| &counts.failures),
        ];
        for (name, help, pick) in all {
            let counts = Arc::clone(self);
            let read = move || pick(&counts).load(Ordering::Relaxed) as f64;
            builder.counter_fn(&format!("sextant_push_webhook_{name}_total"), help, read);
        }
        let counts = Arc::clone(self);
        let read = move || counts.waiting.load(Ordering::Relaxed) as f64;
        builder.gauge_fn(
            "sextant_push_webhook_waiting",
            "Events that the webhook has yet to send.",
            read,
        );
    }
}

struct Numbered {
    seq: u64,
    event: Event,
}

/// Events that wait, and the batch that is being posted.
struct Outbox {
    life: String,
    next_seq: u64,
    waiting: VecDeque<Numbered>,
    /// Of what waits.
    bytes: usize,
    bytes_max: usize,
    batch_max: usize,
    batch_delay: Duration,
    /// Since when the first of them does.
    since: Option<Instant>,
    /// What is posted until it is taken, and how many events that are.
    batch: Option<(Bytes, usize)>,
    /// Posts of it that failed.
    failures: u32,
    retry_at: Option<Instant>,
    retry_max: Duration,
    counts: Arc<Counts>,
}

impl Outbox {
    fn new(webhook: &config::Webhook, life: String, counts: Arc<Counts>) -> Outbox {
        Outbox {
            life,
            next_seq: 1,
            waiting: VecDeque::new(),
            bytes: 0,
            bytes_max: webhook.queue_bytes_max.as_usize(),
            batch_max: webhook.batch_max as usize,
            batch_delay: webhook.batch_delay.get(),
            since: None,
            batch: None,
            failures: 0,
            retry_at: None,
            retry_max: webhook.retry_max.get(),
            counts,
        }
    }

    fn push(&mut self, now: Instant, event: Event) {
        self.counts.events.fetch_add(1, Ordering::Relaxed);
        let bytes = event.bytes() + EVENT_OVERHEAD_BYTES;
        while self.bytes + bytes > self.bytes_max
            && let Some(oldest) = self.pop()
        {
            debug!(seq = oldest.seq, "an event is dropped");
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
        self.bytes += bytes;
        self.waiting.push_back(Numbered { seq: self.next_seq, event });
        self.next_seq += 1;
        self.since.get_or_insert(now);
        self.show();
    }

    /// Events that cores could not hand over had their numbers.
    fn lost(&mut self, events: u64) {
        self.next_seq += events;
        self.counts.events.fetch_add(events, Ordering::Relaxed);
        self.counts.dropped.fetch_add(events, Ordering::Relaxed);
    }

    fn pop(&mut self) -> Option<Numbered> {
        let first = self.waiting.pop_front()?;
        self.bytes -= first.event.bytes() + EVENT_OVERHEAD_BYTES;
        Some(first)
    }

    fn left(&self) -> usize {
        self.waiting.len() + self.batch.as_ref().map_or(0, |(_, events)| *events)
    }

    fn show(&self) {
        self.counts.waiting.store(self.left() as u64, Ordering::Relaxed);
    }

    /// When the next post is due; at once if nothing more comes.
    fn due(&self, now: Instant, over: bool) -> Option<Instant> {
        if self.batch.is_some() {
            return Some(self.retry_at.unwrap_or(now));
        }
        let full = self.waiting.len() >= self.batch_max;
        let delay = if full || over { Duration::ZERO } else { self.batch_delay };
        Some(self.since? + delay)
    }

    /// What is to be posted now.
    fn body(&mut self, now: Instant) -> Bytes {
        if let Some((body, _)) = &self.batch {
            return body.clone();
        }
        let mut json = Vec::new();
        let mut events = 0;
        while events < self.batch_max
            && json.len() < BODY_BYTES_MAX
            && let Some(Numbered { seq, event }) = self.pop()
        {
            json.push(if events == 0 { b'[' } else { b',' });
            event.write_numbered(&self.life, seq, &mut json);
            events += 1;
        }
        assert!(events > 0, "a post that is due has events");
        json.push(b']');
        self.since = (!self.waiting.is_empty()).then_some(now);
        let body = Bytes::from(json);
        self.batch = Some((body.clone(), events));
        body
    }

    fn posted(&mut self, now: Instant, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => {
                let events = self.batch.take().map_or(0, |(_, events)| events);
                self.counts.sent.fetch_add(events as u64, Ordering::Relaxed);
                if self.failures > 0 {
                    info!(failures = self.failures, "the webhook's receiver takes events again");
                }
                (self.failures, self.retry_at) = (0, None);
                self.show();
            }
            Err(why) => {
                self.counts.failures.fetch_add(1, Ordering::Relaxed);
                if self.failures == 0 {
                    warn!(why, "the webhook's receiver takes no events: they wait");
                } else {
                    debug!(why, "the webhook fails again");
                }
                let pause = RETRY_FIRST * (1 << self.failures.min(16));
                self.failures = self.failures.saturating_add(1);
                self.retry_at = Some(now + jittered(pause.min(self.retry_max)));
            }
        }
    }
}

/// Between half of `pause` and all of it, so that daemons that failed together do not come back
/// together.
pub(crate) fn jittered(pause: Duration) -> Duration {
    let share = getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX));
    pause.mul_f64(0.5 + share / 2.0)
}

/// Tells of what comes in, until `stop` and everything is told, or for `flush_max` after `stop`.
async fn tell<F: Future<Output = Result<(), String>>>(
    mut outbox: Outbox,
    mut inlet: Inlet,
    flush_max: Duration,
    mut stop: oneshot::Receiver<()>,
    post: impl Fn(Bytes) -> F,
) {
    let mut posting: Option<Pin<Box<F>>> = None;
    let (mut events, mut lost) = (Vec::with_capacity(TAKEN_MAX), 0);
    let (mut open, mut deadline) = (true, None);
    while open || outbox.left() > 0 {
        let now = Instant::now();
        let due = outbox.due(now, deadline.is_some()).filter(|_| posting.is_none());
        tokio::select! {
            biased;
            () = async { sleep_until(deadline.unwrap_or(now)).await }, if deadline.is_some() => {
                break;
            }
            outcome = async {
                match &mut posting {
                    Some(posting) => posting.await,
                    None => std::future::pending().await,
                }
            } => {
                posting = None;
                outbox.posted(Instant::now(), outcome);
            }
            () = sleep_until(due.unwrap_or(now)), if due.is_some() => {
                posting = Some(Box::pin(post(outbox.body(Instant::now()))));
            }
            taken = inlet.events.recv_many(&mut events, TAKEN_MAX), if open => {
                let now = Instant::now();
                open = taken > 0;
                events.drain(..).for_each(|event| outbox.push(now, event));
                let before = std::mem::replace(&mut lost, inlet.lost.load(Ordering::Relaxed));
                outbox.lost(lost - before);
            }
            // Dropped is as good as told.
            _ = &mut stop, if deadline.is_none() => deadline = Some(Instant::now() + flush_max),
        }
    }
    let left = outbox.left();
    if left > 0 {
        outbox.counts.dropped.fetch_add(left as u64, Ordering::Relaxed);
        warn!(events = left, "the webhook's receiver was not told of all events");
    }
}

/// Posts to a receiver.
pub(crate) struct Poster {
    agent: Agent,
    url: config::Url,
    secret: Secret,
}

impl Poster {
    pub(crate) fn new(agent: Agent, url: config::Url, secret: Secret) -> Poster {
        Poster { agent, url, secret }
    }

    /// Posts a body, signed; what went wrong is told in words.
    pub(crate) fn post(&self, body: &[u8]) -> Result<(), String> {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let signature = signature(self.secret.expose(), since_1970.as_secs(), body);
        let sent = self
            .agent
            .post(self.url.expose())
            .header("content-type", "application/json")
            .header("sextant-signature", signature)
            .send(body);
        let status = sent.map_err(|error| error.to_string())?.status();
        match status.is_success() {
            true => Ok(()),
            false => Err(format!("the answer has the status {}", status.as_u16())),
        }
    }
}

/// The value of the header that signs `body`, posted at `unix_s`.
fn signature(secret: &str, unix_s: u64, body: &[u8]) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes());
    // HMAC takes a key of any length.
    let mut mac = mac.expect("a key is a key");
    mac.update(format!("{unix_s}.").as_bytes());
    mac.update(body);
    let mut header = format!("t={unix_s},v1=");
    for byte in mac.finalize().into_bytes() {
        // A text takes all that is written to it.
        let _ = write!(header, "{byte:02x}");
    }
    header
}

/// A webhook that is ready to run.
pub struct Webhook {
    outbox: Outbox,
    inlet: Inlet,
    flush_max: Duration,
    poster: Arc<Poster>,
}

impl Webhook {
    /// One that tells of what comes out of `inlet`.
    ///
    /// # Errors
    /// The certificates that are configured cannot be used.
    pub fn new(
        webhook: &config::Webhook,
        inlet: Inlet,
        counts: Arc<Counts>,
    ) -> Result<Webhook, CertificatesError> {
        let agent = outbound::agent(webhook.timeout.get(), 1, webhook.ca_file.as_deref())?;
        let poster = Poster::new(agent, webhook.url.clone(), webhook.secret.clone());
        let life = uuid::Uuid::now_v7().to_string();
        Ok(Webhook {
            outbox: Outbox::new(webhook, life, counts),
            inlet,
            flush_max: webhook.flush_max.get(),
            poster: Arc::new(poster),
        })
    }

    /// Tells, until `stop` was told or dropped and the cores have ended and everything is told;
    /// but not for longer after that than is configured.
    pub async fn run(self, stop: oneshot::Receiver<()>) {
        let Webhook { outbox, inlet, flush_max, poster } = self;
        let post = |body: Bytes| {
            let poster = Arc::clone(&poster);
            async move {
                let posted = tokio::task::spawn_blocking(move || poster.post(&body)).await;
                posted.unwrap_or_else(|error| Err(error.to_string()))
            }
        };
        tell(outbox, inlet, flush_max, stop, post).await;
    }
}

#[cfg(test)]
mod tests;
