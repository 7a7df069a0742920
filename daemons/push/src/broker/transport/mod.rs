//! What is between a connection's socket and its MQTT: nothing, for most, or a proxy's word on
//! whom it speaks for, TLS, and WebSocket. A connection's first bytes say what it is, so one port
//! serves all:
//!
//! ```text
//!   first bytes            on a listener behind a proxy
//!                          0d 0a 0d 0a 00 0d 0a 51 55 49 54 0a … ─► then as below
//!   16           handshake ─► TLS ─► within it as below
//!   10           CONNECT ─► MQTT
//!   47 "GET "    request ─► answer ─► frames ─► MQTT
//! ```
//!
//! [`Transport`] takes bytes and gives bytes; [`Broker`]'s part here joins it to the ring. A plain
//! connection has none: it pays for a comparison, and no memory. What arrives goes through
//! [`Broker::received`], what is sent through [`send`], and what is the same for many is encoded
//! once for all who speak plain MQTT and once for all on WebSocket ([`Framing`]); records of TLS
//! are each connection's own.

mod alone;
mod secure;
mod tls;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use sextant_ring::core::{ConnId, SendError, Shared};
use sextant_websocket::{
    Close, Fault, Head, Policy, REQUEST_BYTES_MAX, Receiver, Refusal, Upgrade, upgrade,
};
use tracing::debug;

use super::conn::{Conn, Stage};
use super::message::Message;
use super::presence::End;
use super::proxy::{self, ProxyError};
use super::{Broker, Context};
use crate::meters::Closed;
use crate::tls::Endpoint;
#[doc(hidden)]
pub use alone::TransportAlone;
pub(super) use secure::Secured;
#[doc(hidden)]
pub use tls::IDLE_BYTES;
use tls::{Completed, Tls, TlsFault};

/// The first byte of a handshake of TLS.
const HANDSHAKE: u8 = 0x16;
/// What a client that begins one is told when too many are under way: `internal_error`, after
/// which it may try again.
const BUSY_ALERT: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 80];

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
    /// Listeners from this number on take TLS alone.
    pub secure_from: usize,
    /// Those from this number on are behind a proxy: each connection begins with its word. They
    /// come after the others.
    pub proxied_from: usize,
}

impl Default for Transports {
    fn default() -> Transports {
        Transports {
            websocket: true,
            websocket_origins: Vec::new(),
            secure_from: usize::MAX,
            proxied_from: usize::MAX,
        }
    }
}

/// What a connection is offered now.
struct Offer<'a> {
    transports: &'a Transports,
    /// `None` if there is no TLS.
    tls: Option<&'a Arc<Endpoint>>,
    /// As many handshakes as may be are under way.
    busy: bool,
}

/// What was made of what arrived.
#[derive(Default)]
struct Taken {
    mqtt: Vec<u8>,
    /// What is owed at once.
    answers: Vec<u8>,
    handshake: Option<Completed>,
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
pub(super) struct Transport {
    /// Whom a proxy speaks for.
    peer: Option<SocketAddr>,
    /// Nothing but TLS is taken.
    secure: bool,
    tls: Option<Box<Tls>>,
    /// Within TLS, if there is TLS.
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
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
enum Over {
    #[error("the client closed its side")]
    Closed(Option<u16>),
    #[error(transparent)]
    Fault(#[from] Fault),
    #[error("no WebSocket: {0}")]
    Refused(#[from] Refusal),
    #[error("no PROXY header: {0}")]
    Proxy(#[from] ProxyError),
    #[error("TLS: {0}")]
    Tls(#[from] Box<TlsFault>),
    #[error("not TLS, which is required here")]
    NotSecure,
    #[error("too many handshakes are under way")]
    Busy,
}

impl Over {
    fn why(&self) -> Closed {
        match self {
            Over::Closed(_) => Closed::ByPeer,
            Over::Fault(_) | Over::Refused(_) | Over::Tls(_) | Over::NotSecure => Closed::Protocol,
            Over::Proxy(_) => Closed::Malformed,
            Over::Busy => Closed::Server,
        }
    }
}

impl From<TlsFault> for Over {
    fn from(fault: TlsFault) -> Over {
        Over::Tls(Box::new(fault))
    }
}

/// A connection on its way to the core of its session: what it is, and what was read of its MQTT.
pub struct Arrival {
    transport: Box<Transport>,
    read: Vec<u8>,
}

impl fmt::Debug for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arrival").finish_non_exhaustive()
    }
}

impl Transport {
    fn new(layer: Layer, secure: bool) -> Box<Transport> {
        Box::new(Transport { peer: None, secure, tls: None, layer, over: None })
    }

    /// Whom a proxy speaks for.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// The device that the client's certificate names.
    pub(super) fn device(&self) -> Option<&str> {
        self.tls.as_ref()?.device()
    }

    /// Whether each packet has to be sealed for this connection alone.
    pub(super) fn is_sealed(&self) -> bool {
        self.tls.is_some()
    }

    fn framing(&self) -> Framing {
        match self.layer {
            Layer::WebSocket(_) => Framing::WebSocket,
            _ => Framing::Plain,
        }
    }

    /// Takes what arrived apart.
    fn handle_input(&mut self, data: &[u8], offer: &Offer<'_>, taken: &mut Taken) {
        if self.over.is_some() {
            return;
        }
        let result = match self.tls {
            None => self.take_apart(data, offer, taken),
            Some(_) => self.take_records(data, offer, taken),
        };
        self.over = result.err();
    }

    /// What is within TLS is taken apart, and answers to it are sealed.
    fn take_records(
        &mut self,
        data: &[u8],
        offer: &Offer<'_>,
        taken: &mut Taken,
    ) -> Result<(), Over> {
        let Some(mut tls) = self.tls.take() else { return Ok(()) };
        let mut inner = Vec::new();
        let mut records = std::mem::take(&mut taken.answers);
        let handled = tls.handle_input(data, &mut inner, &mut records);
        let closed = tls.is_closed();
        // It is there, so that there is no TLS within TLS.
        self.tls = Some(tls);
        // What came before a fault counts.
        let result = match inner.is_empty() {
            true => Ok(()),
            false => self.take_apart(&inner, offer, taken),
        };
        let answers = std::mem::replace(&mut taken.answers, records);
        if let (Some(tls), Ok(_)) = (&mut self.tls, &handled) {
            tls.seal(&answers, &mut taken.answers)?;
        }
        taken.handshake = handled?;
        result?;
        if closed { Err(Over::Closed(None)) } else { Ok(()) }
    }

    /// Layer by layer, as far as the bytes go.
    fn take_apart(
        &mut self,
        data: &[u8],
        offer: &Offer<'_>,
        taken: &mut Taken,
    ) -> Result<(), Over> {
        let mut left;
        let mut data = data;
        loop {
            let layer = match &mut self.layer {
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
                    if *first == HANDSHAKE && self.begin_tls(offer, taken)? {
                        return self.take_records(data, offer, taken);
                    }
                    if self.secure && self.tls.is_none() {
                        return Err(Over::NotSecure);
                    }
                    self.layer = match *first {
                        b'G' if offer.transports.websocket => Layer::Request(Vec::new()),
                        _ => Layer::Plain,
                    };
                    continue;
                }
                Layer::Plain => {
                    taken.mqtt.extend_from_slice(data);
                    return Ok(());
                }
                Layer::Request(bytes) => {
                    bytes.extend_from_slice(data);
                    if !is_due(bytes.len(), data) {
                        return Ok(());
                    }
                    let Some(length) = answer_request(bytes, offer.transports, &mut taken.answers)?
                    else {
                        return Ok(());
                    };
                    left = bytes.split_off(length);
                    Layer::WebSocket(Receiver::default())
                }
                Layer::WebSocket(receiver) => {
                    let closed =
                        receiver.handle_input(data, &mut taken.mqtt, &mut taken.answers)?;
                    return closed.map_or(Ok(()), |Close(code)| Err(Over::Closed(code)));
                }
            };
            self.layer = layer;
            data = &left;
        }
    }

    /// Begins TLS, if it is offered and this is not within it; whether it did.
    fn begin_tls(&mut self, offer: &Offer<'_>, taken: &mut Taken) -> Result<bool, Over> {
        let Some(endpoint) = offer.tls.filter(|_| self.tls.is_none()) else { return Ok(false) };
        if offer.busy {
            taken.answers.extend_from_slice(&BUSY_ALERT);
            return Err(Over::Busy);
        }
        self.tls = Some(Box::new(Tls::new(endpoint)?));
        Ok(true)
    }

    /// The last bytes: a frame, if there are frames, and the end of TLS.
    fn goodbye(&mut self) -> Option<Vec<u8>> {
        let frame = match self.framing() {
            Framing::Plain => Vec::new(),
            Framing::WebSocket => sextant_websocket::close(match &self.over {
                Some(Over::Closed(code)) => *code,
                Some(Over::Fault(fault)) => Some(fault.close_code()),
                _ => Some(sextant_websocket::NORMAL_CLOSURE),
            }),
        };
        let Some(tls) = &mut self.tls else { return Some(frame).filter(|frame| !frame.is_empty()) };
        let mut records = Vec::new();
        // After a fault there is nothing to be said any more.
        let _ = tls.seal(&frame, &mut records);
        tls.close(&mut records);
        Some(records).filter(|records| !records.is_empty())
    }
}

/// Whether a request of so many bytes, of which `data` came last, is to be looked at: at the end of
/// a line, of which there cannot be many, rather than at each byte.
fn is_due(bytes: usize, data: &[u8]) -> bool {
    bytes >= REQUEST_BYTES_MAX || data.contains(&b'\n')
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
    transport: Option<&mut Transport>,
    packet: &mut Vec<u8>,
    payload: Option<Bytes>,
) -> Result<(), SendError> {
    let Some(transport) = transport else {
        cx.send_copy(conn, packet)?;
        return payload.map_or(Ok(()), |payload| cx.send(conn, payload));
    };
    if transport.framing() == Framing::WebSocket {
        let rest = payload.as_ref().map_or(0, Bytes::len);
        Head::of(packet.len() + rest).put_before(packet);
    }
    if let Some(tls) = &mut transport.tls {
        return secure::send(cx, conn, tls, packet, &payload.unwrap_or_default());
    }
    cx.send_copy(conn, packet)?;
    payload.map_or(Ok(()), |payload| cx.send(conn, payload))
}

/// Sends what was shared in this turn, with its framing.
pub(super) fn send_shared(
    cx: &mut Context,
    conn: ConnId,
    transport: Option<&mut Transport>,
    shared: &Shared,
) -> Result<(), SendError> {
    match transport.and_then(|transport| transport.tls.as_mut()) {
        None => cx.send_shared(conn, shared),
        Some(tls) => secure::send_shared(cx, conn, tls, shared),
    }
}

/// Sends a packet that has its framing.
pub(super) fn send_framed(
    cx: &mut Context,
    conn: ConnId,
    transport: Option<&mut Transport>,
    packet: Bytes,
) -> Result<(), SendError> {
    match transport.and_then(|transport| transport.tls.as_mut()) {
        None => cx.send(conn, packet),
        Some(tls) => secure::send(cx, conn, tls, &mut Vec::new(), &packet),
    }
}

impl Broker {
    /// A connection was accepted from the listener of that number.
    pub(super) fn accepted_from(&mut self, cx: &mut Context, conn: ConnId, listener: usize) {
        self.accepted(cx, conn);
        let Transports { secure_from, proxied_from, .. } = self.settings.transports;
        let required = self.endpoint.as_ref().is_some_and(|endpoint| endpoint.is_required());
        let layer = match listener {
            _ if listener >= proxied_from => Layer::Proxy(Vec::new()),
            _ if listener >= secure_from || required => Layer::Unknown,
            _ => return,
        };
        let secure = required || (secure_from..proxied_from).contains(&listener);
        if let Some(held) = self.conn(conn) {
            held.set_transport(Transport::new(layer, secure));
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
        self.secured.note(None, Some(&arrival.transport));
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
                self.secured.note(Some(&transport), None);
                let arrival = Box::new(Arrival { transport, read: read.to_vec() });
                cx.hand_over(conn, home, Message::Arrived(Some(arrival)), &[]);
            }
        }
    }

    /// Bytes arrived on a connection.
    pub(super) fn received(&mut self, cx: &mut Context, conn: ConnId, data: &[u8]) {
        let websocket = self.settings.transports.websocket;
        let tls = self.endpoint.is_some();
        let Some(held) = self.conn(conn) else { return };
        if held.transport().is_some() {
            return self.unwrap(cx, conn, data, Vec::new());
        }
        if let Stage::Awaiting { gathered, .. } = &held.stage
            && gathered.is_empty()
            && match data.first() {
                Some(&b'G') => websocket,
                Some(&HANDSHAKE) => tls,
                _ => false,
            }
        {
            held.set_transport(Transport::new(Layer::Unknown, false));
            return self.unwrap(cx, conn, data, Vec::new());
        }
        self.received_mqtt(cx, conn, data);
    }

    /// Takes what arrived through a connection's transport, and in, behind what was read of its
    /// MQTT before.
    fn unwrap(&mut self, cx: &mut Context, conn: ConnId, data: &[u8], mqtt: Vec<u8>) {
        let Broker { settings, endpoint, secured, conns, .. } = self;
        let held = conns.get_mut(conn.index()).and_then(Option::as_mut);
        let held = held.filter(|held| held.id == conn);
        let Some(transport) = held.and_then(Conn::transport_mut) else { return };
        let offer = Offer {
            transports: &settings.transports,
            tls: endpoint.as_ref(),
            busy: endpoint.as_ref().is_some_and(|endpoint| secured.is_busy(endpoint)),
        };
        let mut taken = Taken { mqtt, ..Taken::default() };
        let before = secured.before(transport);
        transport.handle_input(data, &offer, &mut taken);
        secured.after(before, transport);
        self.note_handshake(cx, conn, before, taken.handshake);
        if !taken.answers.is_empty() {
            // Before a burst's packets or after them is the same to everybody; what is sealed is
            // sent before anything else is.
            if cx.send_copy(conn, &taken.answers) == Err(SendError::Full) {
                return self.cut_off(cx, conn);
            }
        }
        if !taken.mqtt.is_empty() {
            self.received_mqtt(cx, conn, &taken.mqtt);
        }
        let over = self.conn(conn).and_then(|held| held.transport()?.over.as_ref());
        if let Some(over) = over {
            debug!(%over, "a connection ends");
            let why = over.why();
            self.end_burst(cx);
            self.closes(cx, conn, why);
            self.detach(cx, conn, End::silent(why));
            cx.finish(conn);
        }
    }

    /// Its answers alone are more than a connection may have waiting: it does not read.
    pub(super) fn cut_off(&mut self, cx: &mut Context, conn: ConnId) {
        self.end_burst(cx);
        self.closes(cx, conn, Closed::Slow);
        self.detach(cx, conn, End::silent(Closed::Slow));
        cx.abort(conn);
    }

    /// Tells the client of a connection that is being forgotten that nothing more comes.
    pub(super) fn say_goodbye(&mut self, cx: &mut Context, held: &mut Conn) {
        let id = held.id;
        let Some(transport) = held.transport_mut() else { return };
        self.forget_secured(transport);
        if let Some(last) = transport.goodbye() {
            // It may be gone; then there is nobody to tell.
            let _ = cx.send_copy(id, &last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_in_pieces_is_looked_at_once_a_line_and_when_it_is_too_long() {
        let request = format!("GET /mqtt HTTP/1.1\r\nHost: {}\r\n\r\n", "h".repeat(5000));
        let due = |bytes: &[u8]| -> Vec<usize> {
            (1..=bytes.len()).filter(|at| is_due(*at, &bytes[at - 1..*at])).collect()
        };
        assert_eq!(due(request.as_bytes()).len(), 3);
        let endless = vec![b'G'; REQUEST_BYTES_MAX];
        assert_eq!(due(&endless), [REQUEST_BYTES_MAX]);
    }
}
