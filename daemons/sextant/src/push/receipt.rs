//! What became of a message: `sextant push show`, and the following of a receipt.
//!
//! ```text
//!   accepted ─► sent ─► acknowledged
//!       └─────────┴───► expired
//! ```

use std::fmt::Display;
use std::thread::sleep;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::cli::ShowArgs;
use crate::error::Error;
use crate::place::{Daemon, Place};
use crate::terminal::{Colour, clock, note, painted, printable, say, span};

const ASK_EVERY_MIN: Duration = Duration::from_millis(20);
const ASK_EVERY_MAX: Duration = Duration::from_secs(1);
/// How long a topic's message without receivers is given to find one in the daemon.
const RECIPIENTS_TIME_MAX: Duration = Duration::from_secs(1);

/// A receipt, as far as this program looks at it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Receipt {
    topic: String,
    device: Option<String>,
    state: String,
    recipients: u64,
    sent: u64,
    acknowledged: u64,
    expired: u64,
    dropped: u64,
    accepted_at: Option<Timestamp>,
    sent_at: Option<Timestamp>,
    acknowledged_at: Option<Timestamp>,
    expired_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
}

pub(super) fn run(place: &Place, args: &ShowArgs) -> Result<(), Error> {
    let push = place.push()?;
    let answer: Value = ask(&push, &args.id)?;
    if args.json {
        say(serde_json::to_string_pretty(&answer).unwrap_or_default());
        return Ok(());
    }
    let receipt = read(&push, answer)?;
    let to = match &receipt.device {
        Some(device) => {
            format!("device {}, topic {}", printable(device), printable(&receipt.topic))
        }
        None => format!("topic {}", printable(&receipt.topic)),
    };
    say(format_args!("to            {to}"));
    say(format_args!("state         {}", coloured(&receipt.state)));
    for line in receipt.steps() {
        say(line);
    }
    if let (Some(expires), None) = (receipt.expires_at, receipt.expired_at) {
        say(format_args!("{:<13} {expires}", "good until"));
    }
    if receipt.dropped > 0 {
        say(format_args!("{:<13} by {} of {}", "dropped", receipt.dropped, receipt.recipients));
    }
    Ok(())
}

/// Says each step of a message's way until it is acknowledged by all or has expired.
pub(super) fn follow(push: &Daemon, id: &str) -> Result<(), Error> {
    let mut said = 0;
    let mut every = ASK_EVERY_MIN;
    let mut waited = Duration::ZERO;
    loop {
        let receipt = read(push, ask(push, id)?)?;
        let steps = receipt.steps();
        for step in steps.iter().skip(said) {
            note(step);
        }
        said = said.max(steps.len());
        match receipt.state.as_str() {
            "acknowledged" => return Ok(()),
            "expired" => return Err(receipt.expiry(id)),
            _ => {}
        }
        let nobody = receipt.device.is_none() && receipt.recipients == 0;
        if nobody && waited >= RECIPIENTS_TIME_MAX {
            return Err(Error::Outcome(format!(
                "nobody is subscribed to {}: see who would be with `sextant push watch '#'`, or \
                 send with --retain for those who come later",
                printable(&receipt.topic)
            )));
        }
        sleep(every);
        waited += every;
        every = (every * 3 / 2).min(ASK_EVERY_MAX);
    }
}

fn ask(push: &Daemon, id: &str) -> Result<Value, Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if id.is_empty() || !id.chars().all(plain) {
        return Err(Error::Usage(format!(
            "\"{}\" is no message id: give one that `sextant push send` printed",
            printable(id)
        )));
    }
    push.client.get(&format!("/v1/messages/{id}")).map_err(|source| push.failed(source))
}

fn read(push: &Daemon, answer: Value) -> Result<Receipt, Error> {
    serde_json::from_value(answer).map_err(|error| {
        Error::Outcome(format!("the receipt from {} cannot be read: {error}", push.url))
    })
}

impl Receipt {
    /// A line for each state that the message has reached.
    fn steps(&self) -> Vec<String> {
        let of = self.recipients;
        let steps: [(&str, Option<Timestamp>, &dyn Display); 4] = [
            ("accepted", self.accepted_at, &"durable"),
            ("sent", self.sent_at, &format!("to {} of {of}", self.sent)),
            ("acknowledged", self.acknowledged_at, &format!("by {} of {of}", self.acknowledged)),
            ("expired", self.expired_at, &format!("for {} of {of}", self.expired.max(1))),
        ];
        let line = |(state, at, what): (&str, Option<Timestamp>, &dyn Display)| {
            let at = at?;
            let after = self.accepted_at.map_or(Duration::ZERO, |from| {
                at.duration_since(from).try_into().unwrap_or_default()
            });
            let after = if state == "accepted" {
                String::new()
            } else {
                format!(", {} after it was accepted", span(after))
            };
            // The width counts letters, not the codes of colours.
            let pad = " ".repeat(13_usize.saturating_sub(state.len()));
            Some(format!("{}{pad} {}  {what}{after}", coloured(state), clock(at)))
        };
        steps.into_iter().filter_map(line).collect()
    }

    fn expiry(&self, id: &str) -> Error {
        let who = match &self.device {
            Some(device) => format!("device {} did not take it", printable(device)),
            None => format!("{} of {} took it", self.acknowledged, self.recipients),
        };
        Error::Outcome(format!("message {id} expired: {who} in time; send it with a longer --ttl"))
    }
}

fn coloured(state: &str) -> String {
    let colour = match state {
        "acknowledged" => Colour::Green,
        "expired" => Colour::Red,
        "sent" => Colour::Cyan,
        _ => Colour::Grey,
    };
    painted(colour, printable(state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_that_was_reached_is_a_line_with_its_time() {
        let receipt: Receipt = serde_json::from_str(
            r#"{"id":"x","topic":"d/a/push","device":"a","qos":1,"state":"acknowledged",
                "recipients":1,"sent":1,"acknowledged":1,"expired":0,"dropped":0,
                "accepted_at":"2026-01-02T03:04:05.000Z","sent_at":"2026-01-02T03:04:05.007Z",
                "acknowledged_at":"2026-01-02T03:04:06.500Z","expires_at":"2026-01-03T03:04:05Z"}"#,
        )
        .unwrap();
        let steps = receipt.steps();
        assert_eq!(steps.len(), 3);
        assert!(steps[1].starts_with("sent") && steps[1].ends_with("7 ms after it was accepted"));
        assert!(steps[2].contains("by 1 of 1, 1 s after"), "{}", steps[2]);
    }
}
