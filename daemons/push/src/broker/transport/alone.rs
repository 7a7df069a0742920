//! A connection's transport without a connection: for the fuzzer.

use std::sync::Arc;

use super::{Layer, Offer, Taken, Transport, Transports};
use crate::tls::Endpoint;

/// Takes bytes apart as a connection's transport does.
pub struct TransportAlone {
    transport: Box<Transport>,
    endpoint: Option<Arc<Endpoint>>,
    transports: Transports,
}

impl TransportAlone {
    /// One that is behind a proxy or not, and is offered TLS or not.
    pub fn new(proxied: bool, endpoint: Option<Arc<Endpoint>>) -> TransportAlone {
        let layer = if proxied { Layer::Proxy(Vec::new()) } else { Layer::Unknown };
        let transports = Transports::default();
        TransportAlone { transport: Transport::new(layer, false), endpoint, transports }
    }

    /// Takes what arrived: what there is of MQTT is appended to `mqtt`, and what is owed at once to
    /// `answers`. Whether anything more is read.
    pub fn handle_input(&mut self, data: &[u8], mqtt: &mut Vec<u8>, answers: &mut Vec<u8>) -> bool {
        let offer =
            Offer { transports: &self.transports, tls: self.endpoint.as_ref(), busy: false };
        let mut taken = Taken::default();
        self.transport.handle_input(data, &offer, &mut taken);
        mqtt.append(&mut taken.mqtt);
        answers.append(&mut taken.answers);
        self.transport.over.is_none()
    }

    /// The last bytes.
    pub fn goodbye(&mut self) -> Option<Vec<u8>> {
        self.transport.goodbye()
    }
}
