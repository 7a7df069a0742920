//! `sextant push send`: hands a message to the daemon, which answers once it is durable.

use std::io::{IsTerminal, Read};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sextant_service::client::ClientError;

use crate::cli::SendArgs;
use crate::error::Error;
use crate::place::Place;
use crate::terminal::{say, size};

use super::receipt;

/// More than any MQTT packet holds.
const PAYLOAD_BYTES_MAX: u64 = 268_435_455;
/// Below this no daemon refuses a message for its length.
const LARGE_BYTES: usize = 512 << 10;

#[derive(Debug, Serialize)]
struct Message<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    #[serde(flatten)]
    payload: Payload,
    #[serde(skip_serializing_if = "Option::is_none")]
    qos: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<Ttl>,
    retain: bool,
}

/// Text where it is text, so that the request reads well in a log.
#[derive(Debug, PartialEq, Eq, Serialize)]
enum Payload {
    #[serde(rename = "payload")]
    Text(String),
    #[serde(rename = "payload_base64")]
    Base64(String),
}

impl Payload {
    /// Bytes of it in the request.
    fn len(&self) -> usize {
        match self {
            Self::Text(text) | Self::Base64(text) => text.len(),
        }
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(text) => Self::Text(text),
            Err(error) => Self::Base64(STANDARD.encode(error.as_bytes())),
        }
    }
}

/// A time to live: seconds, or a number with its unit, which the daemon reads.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(super) enum Ttl {
    Seconds(u64),
    Text(String),
}

impl From<&str> for Ttl {
    fn from(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Text(text.to_owned()), Self::Seconds)
    }
}

#[derive(Debug, Deserialize)]
struct Accepted {
    id: String,
}

pub(super) fn run(place: &Place, args: &SendArgs) -> Result<(), Error> {
    let push = place.push()?;
    let payload = payload(args)?;
    let len = payload.len();
    let message = Message {
        device: args.device.as_deref(),
        topic: args.topic.as_deref(),
        payload,
        qos: args.qos,
        ttl: args.ttl.as_deref().map(Ttl::from),
        retain: args.retain,
    };
    let accepted: Accepted =
        push.client.post("/v1/messages", &message).map_err(|source| match source {
            // A daemon that refuses a body by its length need not read it before it closes.
            ClientError::Unreachable { .. } if len > LARGE_BYTES => Error::Outcome(format!(
                "{} broke off while it was given {}: the daemon takes what fits \
                 mqtt.packet_bytes_max and admin.body_bytes_max of its settings, if it is there \
                 (`sextant status`)",
                push.url,
                size(len as u64)
            )),
            source => push.failed(source),
        })?;
    say(&accepted.id);
    match args.wait {
        true => receipt::follow(&push, &accepted.id),
        false => Ok(()),
    }
}

fn payload(args: &SendArgs) -> Result<Payload, Error> {
    let stdin = std::io::stdin();
    match (&args.payload, &args.file) {
        (Some(text), _) => Ok(Payload::Text(text.clone())),
        (None, Some(path)) if path != Path::new("-") => {
            let action = format!("read {}", path.display());
            let file = std::fs::File::open(path).map_err(Error::io(&action))?;
            read(file, &action)
        }
        (None, None) if stdin.is_terminal() => Err(Error::Usage(
            "there is nothing to send: give --payload TEXT or --file FILE, or pipe it in"
                .to_owned(),
        )),
        _ => read(stdin.lock(), "read standard input"),
    }
}

fn read(from: impl Read, action: &str) -> Result<Payload, Error> {
    let mut bytes = Vec::new();
    from.take(PAYLOAD_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(Error::io(action))?;
    if bytes.len() as u64 > PAYLOAD_BYTES_MAX {
        return Err(Error::Usage(format!(
            "a message has at most {PAYLOAD_BYTES_MAX} bytes: send a link to it instead"
        )));
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(payload: Payload) -> serde_json::Value {
        let ttl = Some("600".into());
        let (device, topic, qos) = (Some("lamp"), None, None);
        serde_json::to_value(Message { device, topic, payload, qos, ttl, retain: false }).unwrap()
    }

    #[test]
    fn text_goes_as_text_and_other_bytes_as_base64() {
        assert_eq!(
            json(b"on".to_vec().into()),
            serde_json::json!({"device": "lamp", "payload": "on", "ttl": 600, "retain": false})
        );
        assert_eq!(json(vec![0xFF, 0].into())["payload_base64"], "/wA=");
    }

    #[test]
    fn a_time_to_live_is_a_number_or_text() {
        assert_eq!(Ttl::from("90"), Ttl::Seconds(90));
        assert_eq!(Ttl::from("10m"), Ttl::Text("10m".to_owned()));
    }
}
