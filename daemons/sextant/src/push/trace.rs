//! `sextant push trace`: one client's packets, as they come and go.

use std::fmt::Write;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Deserialize;

use super::clients::escaped;
use super::watch::shown;
use crate::cli::TraceArgs;
use crate::error::Error;
use crate::place::Place;
use crate::terminal::{Colour, clock, note, painted, printable, say};

/// A line of a trace, as far as this program looks at it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Line {
    at: Timestamp,
    event: String,
    lost: u64,
    connected: bool,
    messages: u64,
    why: String,
    packet: String,
    bytes: u64,
    topic: Option<String>,
    qos: Option<u64>,
    id: Option<u64>,
    dup: bool,
    retain: bool,
    payload_base64: Option<String>,
    payload_bytes: Option<u64>,
    reasons: Vec<u64>,
    detail: String,
}

pub(super) fn run(place: &Place, args: &TraceArgs) -> Result<(), Error> {
    let push = place.push()?;
    let mut path = format!("/v1/clients/{}/trace?payload={}", escaped(&args.id), args.payload);
    if let Some(length) = &args.length {
        let _ = write!(path, "&for={}", escaped(length));
    }
    // Longer than any trace: the daemon ends it.
    let longest = Duration::from_secs(2 * 86_400);
    let mut unread = None;
    let mut each = |text: &str| {
        if args.json {
            say(text);
            return;
        }
        match serde_json::from_str::<Line>(text) {
            Ok(line) => line.print(),
            Err(error) => unread = Some(error),
        }
    };
    push.client.lines(&path, longest, &mut each).map_err(|source| push.failed(source))?;
    match unread {
        None => Ok(()),
        Some(error) => Err(Error::Outcome(format!(
            "some of what {} said of the client cannot be read: {error}",
            push.url
        ))),
    }
}

impl Line {
    fn print(&self) {
        if self.lost > 0 {
            let lost = format_args!("{} more happened here, too fast to be told", self.lost);
            say(painted(Colour::Yellow, lost));
        }
        let at = clock(self.at);
        match self.event.as_str() {
            "began" => note(format_args!("{at}  {}", self.began())),
            "in" => say(format_args!("{at}  {} {}", painted(Colour::Cyan, "→"), self.told())),
            "out" => say(format_args!("{at}  {} {}", painted(Colour::Green, "←"), self.told())),
            "dropped" => say(format_args!(
                "{at}  {} {} messages at qos 0: it does not take what waits for it",
                painted(Colour::Yellow, "dropped"),
                self.messages
            )),
            "closed" => say(format_args!(
                "{at}  {} {}",
                painted(Colour::Yellow, "closed:"),
                printable(&self.why)
            )),
            other => say(format_args!("{at}  {}", printable(other))),
        }
    }

    fn began(&self) -> &'static str {
        match self.connected {
            true => "it is connected; → is what it sends, ← what it is sent",
            false => "it is not connected; → is what it sends, ← what it is sent",
        }
    }

    /// A packet in words.
    fn told(&self) -> String {
        let mut text = format!("{:<11}", printable(&self.packet));
        if let Some(topic) = &self.topic {
            let _ = write!(text, " topic={}", printable(topic));
        }
        if let Some(qos) = self.qos {
            let _ = write!(text, " qos={qos}");
        }
        if let Some(id) = self.id {
            let _ = write!(text, " id={id}");
        }
        for (flag, name) in [(self.dup, " dup"), (self.retain, " retain")] {
            text.push_str(if flag { name } else { "" });
        }
        // That an exchange goes as it should is not worth a word, but for the first answer.
        if self.reasons.iter().any(|reason| *reason != 0) || self.packet == "CONNACK" {
            let reasons: Vec<String> = self.reasons.iter().map(|r| format!("{r:#04x}")).collect();
            let _ = write!(text, " reason={}", reasons.join(","));
        }
        if !self.detail.is_empty() {
            let _ = write!(text, " {}", printable(&self.detail));
        }
        let _ = write!(text, " {} B", self.bytes);
        if let Some(payload) = self.payload_base64.as_ref().and_then(|p| STANDARD.decode(p).ok()) {
            let cut = self.payload_bytes.is_some_and(|bytes| bytes > payload.len() as u64);
            let _ = write!(text, "  {}{}", shown(&payload), if cut { "…" } else { "" });
        }
        text
    }
}
