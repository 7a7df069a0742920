//! `sextant push clients`, `client` and `kick`: who is there, one of them whole, and its end.

use std::fmt::Write;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::cli::{ClientArgs, ClientsArgs, KickArgs};
use crate::error::Error;
use crate::place::{Daemon, Place};
use crate::terminal::{Colour, Table, note, painted, printable, say, size, span};

/// Clients that one question asks for: as many as the daemon tells at once.
const PAGE: u64 = 1000;

#[derive(Deserialize)]
struct Page {
    clients: Vec<Value>,
    next: Option<String>,
}

/// A client, as far as this program looks at it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Client {
    client: String,
    user: String,
    connected: bool,
    connected_at: Option<Timestamp>,
    left_at: Option<Timestamp>,
    version: Option<String>,
    keep_alive_s: Option<u64>,
    session_expiry_s: Option<u64>,
    subscriptions: u64,
    queued: u64,
    queued_bytes: u64,
    in_flight: u64,
    unsent_bytes: u64,
    core: u64,
    peer: Option<String>,
    filters: Vec<Filter>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Filter {
    filter: String,
    qos: u64,
    no_local: bool,
    retain_as_published: bool,
    subscription_id: Option<u64>,
}

pub(super) fn list(place: &Place, args: &ClientsArgs) -> Result<(), Error> {
    let push = place.push()?;
    let mut table = Table::new([
        "CLIENT",
        "USER",
        "CONNECTED",
        "MQTT",
        "KEEP-ALIVE",
        "SESSION",
        "SUBSCRIPTIONS",
        "QUEUED",
        "IN FLIGHT",
        "UNSENT",
        "CORE",
    ]);
    let mut left = args.limit;
    let mut next: Option<String> = None;
    loop {
        let mut path = format!("/v1/clients?limit={}", left.min(PAGE));
        for (key, value) in [("like", &args.like), ("after", &next)] {
            if let Some(value) = value {
                let _ = write!(path, "&{key}={}", escaped(value));
            }
        }
        let page: Page = push.client.get(&path).map_err(|source| push.failed(source))?;
        left = left.saturating_sub(page.clients.len() as u64);
        for client in page.clients {
            if args.json {
                say(client);
            } else {
                table.row(read(&push, client)?.row());
            }
        }
        next = page.next;
        if next.is_none() || left == 0 {
            break;
        }
    }
    if !args.json {
        say(table);
    }
    if next.is_some() {
        note(format_args!("there may be more: give a larger --limit than {}", args.limit));
    }
    Ok(())
}

pub(super) fn show(place: &Place, args: &ClientArgs) -> Result<(), Error> {
    let push = place.push()?;
    let path = format!("/v1/clients/{}", escaped(&args.id));
    let answer: Value = push.client.get(&path).map_err(|source| push.failed(source))?;
    if args.json {
        say(serde_json::to_string_pretty(&answer).unwrap_or_default());
        return Ok(());
    }
    let client = read(&push, answer)?;
    for (name, value) in client.facts() {
        say(format_args!("{name:<14} {value}"));
    }
    let mut table = Table::new(["FILTER", "QOS", "OPTIONS"]);
    for filter in &client.filters {
        table.row([printable(&filter.filter), filter.qos.to_string(), filter.options()]);
    }
    if !client.filters.is_empty() {
        say(table);
    }
    Ok(())
}

pub(super) fn kick(place: &Place, args: &KickArgs) -> Result<(), Error> {
    let push = place.push()?;
    let query = if args.session { "?session=true" } else { "" };
    let path = format!("/v1/clients/{}{query}", escaped(&args.id));
    let () = push.client.delete(&path).map_err(|source| push.failed(source))?;
    let id = printable(&args.id);
    match args.session {
        // Whether it was connected, too, is not told.
        true => {
            note(format_args!("the session of {id} has ended, and its connection if it had one"));
        }
        false => note(format_args!("{id} is disconnected; it may come back")),
    }
    Ok(())
}

fn read(push: &Daemon, answer: Value) -> Result<Client, Error> {
    serde_json::from_value(answer).map_err(|error| {
        Error::Outcome(format!("what {} says of a client cannot be read: {error}", push.url))
    })
}

impl Client {
    /// Whether it is there, and for how long that has been so.
    fn presence(&self) -> String {
        let (is_there, since) = match self.connected {
            true => ("yes", self.connected_at),
            false => ("no", self.left_at),
        };
        match since {
            Some(since) => {
                let ago = Timestamp::now().duration_since(since);
                format!("{is_there}, for {}", span(ago.try_into().unwrap_or_default()))
            }
            None => is_there.to_owned(),
        }
    }

    fn keep_alive(&self) -> String {
        match self.keep_alive_s {
            Some(0) => "none".to_owned(),
            Some(seconds) => span(Duration::from_secs(seconds)),
            None => "-".to_owned(),
        }
    }

    fn session(&self) -> String {
        match self.session_expiry_s {
            None => "for ever".to_owned(),
            Some(0) => "ends with it".to_owned(),
            Some(seconds) => span(Duration::from_secs(seconds)),
        }
    }

    fn queue(&self) -> String {
        match self.queued {
            0 => "0".to_owned(),
            queued => format!("{queued}, {}", size(self.queued_bytes)),
        }
    }

    fn row(&self) -> [String; 11] {
        [
            printable(&self.client),
            printable(&self.user),
            self.presence(),
            self.version.as_deref().map_or("-".to_owned(), printable),
            self.keep_alive(),
            self.session(),
            self.subscriptions.to_string(),
            self.queue(),
            self.in_flight.to_string(),
            size(self.unsent_bytes),
            self.core.to_string(),
        ]
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let colour = if self.connected { Colour::Green } else { Colour::Grey };
        let mut facts = vec![
            ("client", printable(&self.client)),
            ("user", printable(&self.user)),
            ("connected", painted(colour, self.presence())),
        ];
        if self.connected {
            let peer = self.peer.as_deref().map_or("unknown".to_owned(), printable);
            facts.push(("from", peer));
            let version = self.version.as_deref().map_or("-".to_owned(), printable);
            facts.push(("MQTT", version));
            facts.push(("keep-alive", self.keep_alive()));
        }
        facts.extend([
            ("session", self.session()),
            ("queued", self.queue()),
            ("in flight", self.in_flight.to_string()),
            ("unsent", size(self.unsent_bytes)),
            ("core", self.core.to_string()),
            ("subscriptions", self.subscriptions.to_string()),
        ]);
        facts
    }
}

impl Filter {
    fn options(&self) -> String {
        let mut options = Vec::new();
        if self.no_local {
            options.push("no local".to_owned());
        }
        if self.retain_as_published {
            options.push("retain as published".to_owned());
        }
        if let Some(id) = self.subscription_id {
            options.push(format!("id {id}"));
        }
        if options.is_empty() { "-".to_owned() } else { options.join(", ") }
    }
}

/// A name as one segment of a path, or a value of a query.
pub(super) fn escaped(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'_' | b'.' | b'~' => {
                text.push(char::from(byte));
            }
            _ => {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_segment_whatever_it_holds() {
        assert_eq!(escaped("a-b_c.~9"), "a-b_c.~9");
        assert_eq!(escaped("a/b ?#%é*"), "a%2Fb%20%3F%23%25%C3%A9%2A");
    }
}
