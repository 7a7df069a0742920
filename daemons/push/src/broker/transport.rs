//! What is between a connection's socket and its MQTT: nothing, for most, or a proxy's word on
//! whom it speaks for, and WebSocket. A connection's first bytes say what it is, so one port
//! serves all:
//!
//! ```text
//!   first bytes            on a listener behind a proxy
//!                          0d 0a 0d 0a 00 0d 0a 51 55 49 54 0a … ─► then as below
//!   10           CONNECT ─► MQTT
//!   47 "GET "    request ─► answer ─► frames ─► MQTT
//! ```
//!
//! [`Transport`] takes bytes and gives bytes; [`Broker`]'s part here joins it to the ring. A plain
//! connection has none: it pays for a comparison, and no memory. What arrives goes through
//! [`Broker::received`], what is sent through [`send`], and what is the same for many is encoded
//! once for all who speak plain MQTT and once for all on WebSocket ([`Framing`]).

use std::net::SocketAddr;

use bytes::Bytes;
use sextant_ring::core::{ConnId, SendError};
use sextant_websocket::{Close, Fault, Head, Policy, Receiver, Refusal, Upgrade, upgrade};
use tracing::debug;

use super::conn::{Conn, Stage};
use super::message::Message;
use super::proxy::{self, ProxyError};
use super::{Broker, Context};
use crate::meters::Closed;

/// Where WebSocket is served.
const PATH: &str = "/mqtt";
/// `[MQTT-6.0.0-3]`, `[MQTT-6.0.0-4]`.
const PROTOCOL: &str = "mqtt";

/// What connections may come by, besides plain TCP.
#[derive(Clone, Debug)]
pub struct Transports {
    /// WebSocket, on every listener.
    pub websocket: bool,
    /// The origins whose pages may use it: [`Policy::origins`].
    pub websocket_origins: Vec<String>,
    /// Listeners from this number on are behind a proxy: each connection begins with its word.
    pub proxied_from: usize,
}

impl Default for Transports {
    fn default() -> Transports {
        Transports { websocket: true, websocket_origins: Vec::new(), proxied_from: usize::MAX }
    }
}

/// What goes before a packet on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Plain = 0,
    WebSocket = 1,
}

impl Framing {
    /// Makes a packet what is sent.
    pub(super) fn apply(self, packet: &mut Vec<u8>) {
        if self == Framing::WebSocket {
            Head::of(packet.len()).put_before(packet);
        }
    }
}

/// A connection that is not, or may not be, plain TCP.
#[derive(Debug)]
pub(super) struct Transport {
    /// Whom a proxy speaks for.
    peer: Option<SocketAddr>,
    layer: Layer,
    over: Option<Over>,
}

#[derive(Debug)]
enum Layer {
    /// A proxy's word, as far as it has arrived.
    Proxy(Vec<u8>),
    /// The first byte is yet to say.
    Unknown,
    Plain,
    /// A request for WebSocket, as far as it has arrived.
    Request(Vec<u8>),
    WebSocket(Receiver),
}

/// Why nothing more is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Over {
    #[error("the client closed its WebSocket")]
    Closed(Option<u16>),
    #[error(transparent)]
    Fault(#[from] Fault),
    #[error("no WebSocket: {0}")]
    Refused(#[from] Refusal),
    #[error("no PROXY header: {0}")]
    Proxy(#[from] ProxyError),
}

impl Over {
    fn why(self) -> Closed {
        match self {
            Over::Closed(_) => Closed::ByPeer,
            Over::Fault(_) | Over::Refused(_) => Closed::Protocol,
            Over::Proxy(_) => Closed::Malformed,
        }
    }
}

/// A connection on its way to the core of its session: what it is, and what was read of its MQTT.
#[derive(Debug)]
pub struct Arrival {
    transport: Box<Transport>,
    read: Vec<u8>,
}

impl Transport {
    fn new(layer: Layer) -> Box<Transport> {
        Box::new(Transport { peer: None, layer, over: None })
    }

    /// Of a connection behind a proxy.
    pub(super) fn proxied() -> Box<Transport> {
        Transport::new(Layer::Proxy(Vec::new()))
    }

    /// Whom a proxy speaks for.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    fn framing(&self) -> Framing {
        match self.layer {
            Layer::WebSocket(_) => Framing::WebSocket,
            _ => Framing::Plain,
        }
    }

    /// Takes what arrived apart: MQTT is appended to `mqtt`, and what is owed at once to `answers`.
    fn handle_input(
        &mut self,
        data: &[u8],
        transports: &Transports,
        mqtt: &mut Vec<u8>,
        answers: &mut Vec<u8>,
    ) {
        if self.over.is_none() {
            self.over = self.take_apart(data, transports, mqtt, answers).err();
        }
    }

    /// Layer by layer, as far as the bytes go.
    fn take_apart(
        &mut self,
        data: &[u8],
        transports: &Transports,
        mqtt: &mut Vec<u8>,
        answers: &mut Vec<u8>,
    ) -> Result<(), Over> {
        let mut left;
        let mut data = data;
        loop {
            let taken = match &mut self.layer {
                Layer::Proxy(bytes) => {
                    bytes.extend_from_slice(data);
                    let Some(header) = proxy::header(bytes)? else { return Ok(()) };
                    self.peer = header.peer;
                    if let Some(addr) = header.peer {
                        debug!(%addr, "a connection by way of a proxy");
                    }
                    left = bytes.split_off(header.bytes);
                    Layer::Unknown
                }
                Layer::Unknown => {
                    let Some(first) = data.first() else { return Ok(()) };
                    self.layer = match *first {
                        b'G' if transports.websocket => Layer::Request(Vec::new()),
                        _ => Layer::Plain,
                    };
                    continue;
                }
                Layer::Plain => {
                    mqtt.extend_from_slice(data);
                    return Ok(());
                }
                Layer::Request(bytes) => {
                    bytes.extend_from_slice(data);
                    let Some(length) = answer_request(bytes, transports, answers)? else {
                        return Ok(());
                    };
                    left = bytes.split_off(length);
                    Layer::WebSocket(Receiver::default())
                }
                Layer::WebSocket(receiver) => {
                    let closed = receiver.handle_input(data, mqtt, answers)?;
                    return closed.map_or(Ok(()), |Close(code)| Err(Over::Closed(code)));
                }
            };
            self.layer = taken;
            data = &left;
        }
    }

    /// The last frame, if there are frames.
    fn goodbye(&self) -> Option<Vec<u8>> {
        if self.framing() == Framing::Plain {
            return None;
        }
        let code = match self.over {
            Some(Over::Closed(code)) => code,
            Some(Over::Fault(fault)) => Some(fault.close_code()),
            _ => Some(sextant_websocket::NORMAL_CLOSURE),
        };
        Some(sextant_websocket::close(code))
    }
}

/// Answers a request once it is whole; its length if it is granted.
fn answer_request(
    bytes: &[u8],
    transports: &Transports,
    answers: &mut Vec<u8>,
) -> Result<Option<usize>, Over> {
    let policy = Policy { path: PATH, protocol: PROTOCOL, origins: &transports.websocket_origins };
    match upgrade(bytes, &policy) {
        Upgrade::Incomplete => Ok(None),
        Upgrade::Granted { request_bytes, answer } => {
            answers.extend_from_slice(&answer);
            Ok(Some(request_bytes))
        }
        Upgrade::Refused(why, answer) => {
            answers.extend_from_slice(&answer);
            Err(why.into())
        }
    }
}

/// The framing of a connection.
pub(super) fn framing(transport: Option<&Transport>) -> Framing {
    transport.map_or(Framing::Plain, Transport::framing)
}

/// Sends a packet: its beginning, which is framed in place, and the rest of it if that is shared.
pub(super) fn send(
    cx: &mut Context,
    conn: ConnId,
    framing: Framing,
    packet: &mut Vec<u8>,
    payload: Option<Bytes>,
) -> Result<(), SendError> {
    if framing == Framing::WebSocket {
        let rest = payload.as_ref().map_or(0, Bytes::len);
        Head::of(packet.len() + rest).put_before(packet);
    }
    cx.send_copy(conn, packet)?;
    payload.map_or(Ok(()), |payload| cx.send(conn, payload))
}

impl Broker {
    /// A connection was accepted from the listener of that number.
    pub(super) fn accepted_from(&mut self, cx: &mut Context, conn: ConnId, listener: usize) {
        self.accepted(cx, conn);
        if listener >= self.settings.transports.proxied_from
            && let Some(held) = self.conn(conn)
        {
            held.set_transport(Transport::proxied());
        }
    }

    /// A connection came home, with what was read of it elsewhere, and has sent `data` since.
    pub(super) fn arrived(
        &mut self,
        cx: &mut Context,
        conn: ConnId,
        arrival: Option<Box<Arrival>>,
        data: &[u8],
    ) {
        self.accepted(cx, conn);
        let Some(arrival) = arrival else { return self.received(cx, conn, data) };
        if let Some(held) = self.conn(conn) {
            held.set_transport(arrival.transport);
        }
        self.unwrap(cx, conn, data, arrival.read);
    }

    /// Gives a connection to the core of its session, with what was read of its MQTT.
    pub(super) fn send_home(&mut self, cx: &mut Context, conn: ConnId, home: usize, read: &[u8]) {
        let transport = self.conn(conn).and_then(Conn::take_transport);
        self.forget_conn(cx, conn);
        match transport {
            None => cx.hand_over(conn, home, Message::Arrived(None), read),
            // What follows on the wire is not MQTT: it does not go behind what is.
            Some(transport) => {
                let arrival = Box::new(Arrival { transport, read: read.to_vec() });
                cx.hand_over(conn, home, Message::Arrived(Some(arrival)), &[]);
            }
        }
    }

    /// Bytes arrived on a connection.
    pub(super) fn received(&mut self, cx: &mut Context, conn: ConnId, data: &[u8]) {
        let websocket = self.settings.transports.websocket;
        let Some(held) = self.conn(conn) else { return };
        if held.transport().is_some() {
            return self.unwrap(cx, conn, data, Vec::new());
        }
        if let Stage::Awaiting { bytes, .. } = &held.stage
            && bytes.is_empty()
            && websocket
            && data.first() == Some(&b'G')
        {
            held.set_transport(Transport::new(Layer::Unknown));
            return self.unwrap(cx, conn, data, Vec::new());
        }
        self.received_mqtt(cx, conn, data);
    }

    /// Takes what arrived through a connection's transport, and in, behind what was read of its
    /// MQTT before.
    fn unwrap(&mut self, cx: &mut Context, conn: ConnId, data: &[u8], mut mqtt: Vec<u8>) {
        let settings = std::sync::Arc::clone(&self.settings);
        let Some(transport) = self.conn(conn).and_then(Conn::transport_mut) else {
            return;
        };
        let mut answers = Vec::new();
        transport.handle_input(data, &settings.transports, &mut mqtt, &mut answers);
        if !answers.is_empty() {
            // Before a burst's packets or after them is the same to everybody.
            if cx.send_copy(conn, &answers) == Err(SendError::Full) {
                return self.cut_off(cx, conn);
            }
        }
        if !mqtt.is_empty() {
            self.received_mqtt(cx, conn, &mqtt);
        }
        let over = self.conn(conn).and_then(|held| held.transport()?.over);
        if let Some(over) = over {
            debug!(%over, "a connection ends");
            self.end_burst(cx);
            self.meters.closed(over.why());
            self.detach(cx, conn, false);
            cx.finish(conn);
        }
    }

    /// Its answers alone are more than a connection may have waiting: it does not read.
    pub(super) fn cut_off(&mut self, cx: &mut Context, conn: ConnId) {
        self.end_burst(cx);
        self.meters.closed(Closed::Slow);
        self.detach(cx, conn, false);
        cx.abort(conn);
    }
}

/// Tells the client of a connection that is being forgotten that nothing more comes.
pub(super) fn say_goodbye(cx: &mut Context, conn: ConnId, transport: Option<&Transport>) {
    if let Some(frame) = transport.and_then(Transport::goodbye) {
        // It may be gone; then there is nobody to tell.
        let _ = cx.send_copy(conn, &frame);
    }
}
