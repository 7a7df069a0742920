//! `sextant push watch`: an MQTT 5 client that prints what it gets.
//!
//! ```text
//!   connect ─► CONNECT ─► CONNACK ─► SUBSCRIBE ─► SUBACK ─► PUBLISH … ─► lost ─┐
//!      ▲            refused: end ◄┘      refused: end ◄┘                       │
//!      └──────────────── wait, twice as long each time ◄───────────────────────┘
//! ```
//!
//! The session is clean: what is published while the connection is lost is not seen, and that is
//! said. A connection that could not be made the first time ends the program.

use std::io::{self, IsTerminal, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use sextant_mqtt::{
    Ack, ClientEvent, ClientHandshake, ClientLink, ClientStep, Connect, ConnectProperties,
    Delivery, Fault, Frame, Inbound, Packet, PacketId, Publish, QoS, ReasonCode, Secret, SubAck,
    Subscription, Version,
};

use crate::backoff::Backoff;
use crate::cli::WatchArgs;
use crate::error::Error;
use crate::place::Place;
use crate::terminal::{Colour, clock, note, painted, printable, say, span};

use super::passwd;

const KEEP_ALIVE_S: u16 = 30;
/// How long a connection, and each answer to what we ask, may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
const PACKET_BYTES_MAX: u32 = 16 << 20;
const READ_BYTES: usize = 64 << 10;
/// Other bytes than text are shown as hexadecimal digits up to here, and as base64 beyond.
const HEX_BYTES_MAX: usize = 32;
const PORT: u16 = 1883;

/// What every connection is made with.
struct Watch<'a> {
    addr: String,
    client_id: String,
    user: Option<&'a str>,
    password: Option<String>,
    topics: &'a [String],
    qos: QoS,
    /// Messages to print until the end.
    left: Option<u64>,
    started: Instant,
    connected_before: bool,
}

/// Why a connection ended.
enum Ended {
    /// Enough was printed.
    Done,
    /// Another try would end alike.
    Refused(Error),
    /// It is lost, after it had worked for a while or not at all.
    Lost(String),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Lost(error.to_string())
    }
}

impl From<Fault> for Ended {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::KeepAliveTimeout => Self::Lost("the broker does not answer pings".to_owned()),
            fault => Self::Lost(format!("the broker broke the protocol: {fault}")),
        }
    }
}

pub(super) fn run(place: &Place, args: &WatchArgs) -> Result<(), Error> {
    let addr = args.mqtt.clone().unwrap_or_else(|| place.push_mqtt());
    let mut watch = Watch {
        addr: with_port(&addr),
        client_id: args.client_id.clone().map_or_else(own_client_id, Ok)?,
        user: args.user.as_deref(),
        password: password(args)?,
        topics: &args.topics,
        qos: QoS::from_u8(args.qos).unwrap_or_default(),
        left: args.count,
        started: Instant::now(),
        connected_before: false,
    };
    let second = Duration::from_secs(1);
    let mut backoff = Backoff::new(second, 30 * second, 10 * second);
    loop {
        let began = Instant::now();
        let why = match watch.connection() {
            Ended::Done => return Ok(()),
            Ended::Refused(error) => return Err(error),
            Ended::Lost(why) if !watch.connected_before => {
                return Err(Error::Mqtt(format!(
                    "cannot connect to the broker at {}: {why}; start it with `sextant up`, or \
                     give its address with --mqtt",
                    watch.addr
                )));
            }
            Ended::Lost(why) => why,
        };
        let wait = backoff.after(began.elapsed());
        let now = clock(Timestamp::now());
        note(painted(
            Colour::Yellow,
            format_args!("{now}  disconnected: {why}; next try in {}", span(wait)),
        ));
        std::thread::sleep(wait);
    }
}

fn with_port(addr: &str) -> String {
    let addr = addr.strip_prefix("mqtt://").unwrap_or(addr);
    let has_port = addr.rsplit_once(':').is_some_and(|(host, port)| {
        port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']'))
    });
    if has_port { addr.to_owned() } else { format!("{addr}:{PORT}") }
}

fn own_client_id() -> Result<String, Error> {
    let number = getrandom::u32()
        .map_err(|error| Error::io("make a client identifier")(io::Error::other(error)))?;
    Ok(format!("sextant-watch-{number:08x}"))
}

fn password(args: &WatchArgs) -> Result<Option<String>, Error> {
    match (&args.user, &args.password) {
        (Some(user), None) if io::stdin().is_terminal() => {
            passwd::ask(&format!("Password of {}: ", printable(user))).map(Some)
        }
        (_, password) => Ok(password.clone()),
    }
}

impl Watch<'_> {
    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Makes a connection, and prints what comes until it ends.
    fn connection(&mut self) -> Ended {
        match self.try_connection() {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    fn try_connection(&mut self) -> Result<std::convert::Infallible, Ended> {
        let stream = connect(&self.addr)?;
        let mut wire = Wire { stream, inbound: Inbound::new(PACKET_BYTES_MAX), out: Vec::new() };
        let mut link = self.shake_hands(&mut wire)?;
        self.subscribe(&mut wire, &mut link)?;
        self.connected_before = true;
        let now = clock(Timestamp::now());
        note(painted(
            Colour::Grey,
            format_args!(
                "{now}  connected to {} as {}, waiting for messages",
                self.addr,
                printable(&self.client_id)
            ),
        ));
        loop {
            let now_ms = self.now_ms();
            link.handle_timeout(now_ms, &mut wire.out)?;
            wire.flush()?;
            let wait = link.deadline().map(|at| Duration::from_millis(at - now_ms.min(at)));
            wire.receive(wait, |frame, out| {
                let now_ms = self.now_ms();
                match link.handle_frame(frame)? {
                    ClientEvent::Publish { topic, publish } => {
                        answer(&mut link, now_ms, &publish, out);
                        self.print(&topic, &publish)
                    }
                    ClientEvent::PubRel(ack) => {
                        let comp = Ack::new(ack.packet_id, ReasonCode::Success);
                        let _ = link.send(now_ms, &Packet::PubComp(comp), out);
                        Ok(())
                    }
                    ClientEvent::Disconnect(disconnect) => {
                        let words = disconnect.properties.reason_string;
                        Err(Ended::Lost(told("the broker says", disconnect.reason, words)))
                    }
                    _ => Ok(()),
                }
            })?;
        }
    }

    fn shake_hands(&self, wire: &mut Wire) -> Result<ClientLink, Ended> {
        let connect = Connect {
            keep_alive_s: KEEP_ALIVE_S,
            user_name: self.user,
            password: self.password.as_deref().map(|text| Secret::new(text.as_bytes())),
            properties: ConnectProperties {
                packet_bytes_max: std::num::NonZeroU32::new(PACKET_BYTES_MAX),
                ..ConnectProperties::default()
            },
            ..Connect::new(Version::V5, &self.client_id)
        };
        let refuse = |why: String| Ended::Refused(Error::Mqtt(why));
        let handshake = ClientHandshake::start(self.now_ms(), &connect, &mut wire.out)
            .map_err(|error| refuse(format!("these credentials fit no packet: {error}")))?;
        wire.flush()?;
        let mut waiting = Some(handshake);
        let mut link = None;
        let until = Instant::now() + ANSWER_TIME_MAX;
        while link.is_none() {
            wire.receive_until(until, |frame, _| {
                let Some(handshake) = waiting.take() else {
                    return Err(Ended::Lost("the broker sent more than it was asked".to_owned()));
                };
                match handshake.handle(frame)? {
                    ClientStep::Connected(connected, _) => link = Some(connected),
                    ClientStep::Refused(connack) => {
                        let words = connack.properties.reason_string;
                        return Err(refuse(refusal(connack.reason, words)));
                    }
                    _ => return Err(Ended::Lost("the broker wants to authenticate".to_owned())),
                }
                Ok(())
            })?;
        }
        link.ok_or_else(|| Ended::Lost("no answer".to_owned()))
    }

    fn subscribe(&mut self, wire: &mut Wire, link: &mut ClientLink) -> Result<(), Ended> {
        let subscriptions: Vec<Subscription<'_>> =
            self.topics.iter().map(|topic| Subscription::new(topic, self.qos)).collect();
        link.subscribe(self.now_ms(), PacketId::MIN, &subscriptions, &mut wire.out).map_err(
            |error| {
                Ended::Refused(Error::Usage(format!(
                    "these topics cannot be subscribed to ({error}): + stands alone between \
                     slashes, # alone at the end"
                )))
            },
        )?;
        wire.flush()?;
        let until = Instant::now() + ANSWER_TIME_MAX;
        let mut granted = false;
        while !granted {
            wire.receive_until(until, |frame, out| match link.handle_frame(frame)? {
                ClientEvent::SubAck(suback) => {
                    granted = true;
                    self.check_granted(&suback)
                }
                // Retained messages may come before the answer (section 3.8.4).
                ClientEvent::Publish { topic, publish } => {
                    answer(link, self.now_ms(), &publish, out);
                    self.print(&topic, &publish)
                }
                ClientEvent::Disconnect(disconnect) => {
                    let words = disconnect.properties.reason_string;
                    Err(Ended::Lost(told("the broker says", disconnect.reason, words)))
                }
                _ => Ok(()),
            })?;
        }
        Ok(())
    }

    fn check_granted(&self, suback: &SubAck<'_>) -> Result<(), Ended> {
        for (topic, reason) in self.topics.iter().zip(suback.reasons.iter()) {
            if reason.is_error() {
                let words = suback.properties.reason_string;
                let why = told("the broker refuses", reason, words);
                return Err(Ended::Refused(Error::Mqtt(format!(
                    "cannot watch {}: {why}; watch what this user may, or log in with --user",
                    printable(topic)
                ))));
            }
        }
        Ok(())
    }

    fn print(&mut self, topic: &str, publish: &Publish<'_>) -> Result<(), Ended> {
        let qos = publish.delivery.qos() as u8;
        let retained = if publish.retain { "  retained" } else { "" };
        let again = if publish.delivery.dup() { "  again" } else { "" };
        say(format_args!(
            "{}  {}  qos {qos}{retained}{again}  {}",
            painted(Colour::Grey, clock(Timestamp::now())),
            painted(Colour::Cyan, printable(topic)),
            shown(publish.payload)
        ));
        match &mut self.left {
            Some(0 | 1) => Err(Ended::Done),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// Acknowledges a message above QoS 0.
fn answer(link: &mut ClientLink, now_ms: u64, publish: &Publish<'_>, out: &mut Vec<u8>) {
    let success = |packet_id| Ack::new(packet_id, ReasonCode::Success);
    let packet = match publish.delivery {
        Delivery::AtMostOnce => return,
        Delivery::AtLeastOnce { packet_id, .. } => Packet::PubAck(success(packet_id)),
        Delivery::ExactlyOnce { packet_id, .. } => Packet::PubRec(success(packet_id)),
    };
    // A broker that takes no packet of four bytes will close the connection, and that is said.
    let _ = link.send(now_ms, &packet, out);
}

/// Text as it is, other bytes as digits.
pub(super) fn shown(payload: &[u8]) -> String {
    let is_text = |text: &&str| !text.chars().any(|c| c.is_control() && !"\t\r\n".contains(c));
    match std::str::from_utf8(payload).ok().filter(is_text) {
        Some(text) => printable(text),
        None if payload.len() <= HEX_BYTES_MAX => {
            let digits: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("hex {digits}")
        }
        None => format!("base64 {}", STANDARD.encode(payload)),
    }
}

/// A reason code in words, with the broker's own if it has some.
fn told(who: &str, reason: ReasonCode, words: Option<&str>) -> String {
    let code = format!("{who} {reason:?} ({:#04x})", reason.as_u8());
    match words {
        Some(words) => format!("{code}, {}", printable(words)),
        None => code,
    }
}

fn refusal(reason: ReasonCode, words: Option<&str>) -> String {
    let what = told("the broker refuses the connection:", reason, words);
    let advice = match reason {
        ReasonCode::BadUserNameOrPassword | ReasonCode::NotAuthorized => {
            "; log in with --user and --password (a device with its id as --user and --client-id, \
             and a token from `sextant push token`)"
        }
        ReasonCode::ClientIdentifierNotValid => "; give another one with --client-id",
        _ => "",
    };
    format!("{what}{advice}")
}

fn connect(addr: &str) -> Result<TcpStream, Ended> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no such host");
    for addr in addr.to_socket_addrs()? {
        match TcpStream::connect_timeout(&addr, ANSWER_TIME_MAX) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_write_timeout(Some(ANSWER_TIME_MAX))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last.into())
}

/// A connection as bytes.
struct Wire {
    stream: TcpStream,
    inbound: Inbound,
    out: Vec<u8>,
}

impl Wire {
    fn flush(&mut self) -> Result<(), Ended> {
        self.stream.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// Waits for bytes, at most `wait`, and hands each packet on; what `handle` has to say is then
    /// sent.
    fn receive(
        &mut self,
        wait: Option<Duration>,
        mut handle: impl FnMut(&Frame<'_>, &mut Vec<u8>) -> Result<(), Ended>,
    ) -> Result<(), Ended> {
        let mut buffer = [0; READ_BYTES];
        self.stream.set_read_timeout(wait.map(|wait| wait.max(Duration::from_millis(1))))?;
        let mut input = match self.stream.read(&mut buffer) {
            Ok(0) => return Err(Ended::Lost("the broker closed the connection".to_owned())),
            Ok(len) => &buffer[..len],
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => return Ok(()),
                _ => return Err(error.into()),
            },
        };
        let mut result = Ok(());
        while result.is_ok() {
            match self.inbound.next_frame(&mut input).map_err(Fault::from)? {
                Some(frame) => result = handle(&frame, &mut self.out),
                None => break,
            }
        }
        // What was acknowledged before the end is acknowledged.
        self.flush()?;
        result
    }

    /// As [`receive`](Self::receive), for an answer that must come by `until`.
    fn receive_until(
        &mut self,
        until: Instant,
        handle: impl FnMut(&Frame<'_>, &mut Vec<u8>) -> Result<(), Ended>,
    ) -> Result<(), Ended> {
        let wait = until.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            return Err(Ended::Lost(format!("no answer for {}", span(ANSWER_TIME_MAX))));
        }
        self.receive(Some(wait), handle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_shown_as_text_and_other_bytes_as_digits() {
        assert_eq!(shown("{\"a\":\t1}\n".as_bytes()), "{\"a\":\\t1}\\n");
        assert_eq!(shown(b"\x1b[2J"), "hex 1b5b324a");
        assert_eq!(shown(&[0xFF; 33]), format!("base64 {}", STANDARD.encode([0xFF; 33])));
    }

    #[test]
    fn an_address_without_a_port_has_mqtts() {
        assert_eq!(with_port("broker"), "broker:1883");
        assert_eq!(with_port("mqtt://broker:8"), "broker:8");
        assert_eq!(with_port("[::1]"), "[::1]:1883");
        assert_eq!(with_port("[::1]:9"), "[::1]:9");
    }
}
