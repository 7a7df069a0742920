//! A connection's TLS: records in, bytes out, and the other way round, by rustls.
//!
//! ```text
//!   what arrives ─► incoming, until a record is whole ─► bytes for what is within TLS
//!                                                    └─► records that are owed: handshake, alerts
//!   what is sent ─► records
//! ```
//!
//! rustls' unbuffered interface leaves all buffers to its user, so an idle connection has none:
//! what was gathered for a record is given back with it. What is left is the state of rustls, and
//! the client's certificate if it has one ([`IDLE_BYTES`]).

use std::sync::Arc;

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError,
    UnbufferedStatus, WriteTraffic,
};
use rustls::{CertificateError, Error, HandshakeKind};

use crate::meters::HandshakeFailed;
use crate::tls::Endpoint;

/// What one of TLS 1.3 that is idle takes of the allocator, without a client's certificate. A test
/// holds it to that.
pub const IDLE_BYTES: usize = 3584;
/// What may be gathered until it is whole: the largest message of a handshake that rustls takes,
/// and a record.
const INCOMING_BYTES_MAX: usize = (64 + 18) << 10;
/// The payload of a record, at most.
const RECORD_BYTES_MAX: usize = 16 << 10;
/// What a record has besides its payload, at most.
const RECORD_OVERHEAD_BYTES: usize = 32;
/// What is sent behind the last record: an alert, and perhaps a new key before it.
const LAST_BYTES_MAX: usize = 256;
/// `decode_error`, before there are keys.
const DECODE_ALERT: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 50];

/// TLS of a connection.
pub(super) struct Tls {
    records: UnbufferedServerConnection,
    endpoint: Arc<Endpoint>,
    /// What arrived and is not whole yet. rustls knows places in it, so it is shown all of it each
    /// time.
    incoming: Vec<u8>,
    /// The device that the client's certificate names.
    device: Option<Box<str>>,
    stage: Stage,
    /// The client has said that it sends nothing more.
    closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Handshake,
    Traffic,
    /// Nothing is to be had of it any more.
    Failed,
}

/// A handshake that was completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Completed {
    Full,
    Resumed,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(super) enum TlsFault {
    #[error("{0}")]
    Records(#[from] Error),
    #[error("more than {INCOMING_BYTES_MAX} bytes that are no whole message")]
    TooLong,
    #[error("the keys of this connection are used up")]
    KeysUsedUp,
}

impl TlsFault {
    /// What it counts as, if it ends a handshake.
    pub(super) fn of_handshake(&self) -> HandshakeFailed {
        match self {
            TlsFault::Records(
                Error::InvalidCertificate(_)
                | Error::NoCertificatesPresented
                | Error::InvalidCertRevocationList(_),
            ) => HandshakeFailed::Certificate,
            TlsFault::Records(Error::AlertReceived(_)) => HandshakeFailed::ByPeer,
            TlsFault::Records(Error::PeerIncompatible(_) | Error::NoApplicationProtocol) => {
                HandshakeFailed::Incompatible
            }
            _ => HandshakeFailed::Protocol,
        }
    }

    /// In words for an operator.
    pub(super) fn explain(&self) -> String {
        match self {
            TlsFault::Records(Error::NoCertificatesPresented) => {
                "the client has no certificate, and tls.client_certificate requires one".to_owned()
            }
            TlsFault::Records(Error::InvalidCertificate(error)) => {
                let what = match error {
                    CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                        "has expired"
                    }
                    CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                        "is not valid yet"
                    }
                    CertificateError::Revoked => "is revoked",
                    CertificateError::UnknownIssuer => "is of an issuer not in tls.client_ca",
                    CertificateError::UnknownRevocationStatus => {
                        "is of an issuer whose list is not in tls.client_crl"
                    }
                    // rustls has no name for it; `openssl x509 -req` makes such ones.
                    other if other.to_string().contains("UnsupportedCertVersion") => {
                        "is of version 1 of X.509: only one of version 3, with extensions, is taken"
                    }
                    _ => return format!("the client's certificate is not accepted: {error}"),
                };
                format!("the client's certificate {what}")
            }
            TlsFault::Records(Error::AlertReceived(alert)) => {
                format!("the client does not go on: {alert:?}")
            }
            other => other.to_string(),
        }
    }
}

impl Tls {
    pub(super) fn new(endpoint: &Arc<Endpoint>) -> Result<Tls, TlsFault> {
        Ok(Tls {
            records: UnbufferedServerConnection::new(endpoint.server())?,
            endpoint: Arc::clone(endpoint),
            incoming: Vec::new(),
            device: None,
            stage: Stage::Handshake,
            closed: false,
        })
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.stage == Stage::Handshake
    }

    /// Whether the client has said that it sends nothing more.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// The device that the client's certificate names.
    pub(super) fn device(&self) -> Option<&str> {
        self.device.as_deref()
    }

    /// Takes what arrived: what is within TLS is appended to `inner`, and records that are owed to
    /// `out`, an alert with a fault too. Tells of the end of the handshake.
    pub(super) fn handle_input(
        &mut self,
        data: &[u8],
        inner: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Completed>, TlsFault> {
        if self.stage == Stage::Failed {
            return Err(TlsFault::KeysUsedUp);
        }
        if self.closed {
            return Ok(None);
        }
        self.incoming.extend_from_slice(data);
        if let Err(fault) = self.advance(inner, out) {
            self.fail(out);
            return Err(fault);
        }
        let completed = self.complete();
        if self.incoming.len() > INCOMING_BYTES_MAX {
            self.fail(out);
            return Err(TlsFault::TooLong);
        }
        Ok(completed)
    }

    /// As far as there are whole records.
    fn advance(&mut self, inner: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<(), TlsFault> {
        let mut used = 0;
        loop {
            let UnbufferedStatus { discard, state } =
                self.records.process_tls_records(&mut self.incoming[used..]);
            let mut more = true;
            match state? {
                ConnectionState::EncodeTlsData(mut owed) => encode(&mut owed, out),
                ConnectionState::TransmitTlsData(sent) => sent.done(),
                ConnectionState::ReadTraffic(mut records) => {
                    while let Some(record) = records.next_record() {
                        inner.extend_from_slice(record?.payload);
                    }
                }
                ConnectionState::PeerClosed => self.closed = true,
                _ => more = false,
            }
            used += discard;
            if !more {
                break;
            }
        }
        if used == self.incoming.len() || self.closed {
            self.incoming = Vec::new();
        } else {
            self.incoming.drain(..used);
        }
        Ok(())
    }

    /// Notes the end of the handshake.
    fn complete(&mut self) -> Option<Completed> {
        if self.stage != Stage::Handshake || self.records.is_handshaking() {
            return None;
        }
        self.stage = Stage::Traffic;
        let certificate = self.records.peer_certificates().and_then(<[_]>::first);
        self.device = certificate.and_then(|certificate| self.endpoint.device(certificate));
        Some(match self.records.handshake_kind() {
            Some(HandshakeKind::Resumed) => Completed::Resumed,
            _ => Completed::Full,
        })
    }

    /// Puts the alert out that says what is wrong, and whatever waits before it.
    fn fail(&mut self, out: &mut Vec<u8>) {
        // As long as something is to be sent rustls does not look at what arrived, which it would
        // find wrong again.
        while self.records.wants_write() {
            match self.records.process_tls_records(&mut self.incoming).state {
                Ok(ConnectionState::EncodeTlsData(mut owed)) => encode(&mut owed, out),
                Ok(ConnectionState::ReadTraffic(mut records)) => {
                    while records.next_record().is_some() {}
                }
                _ => break,
            }
        }
        // rustls has no alert for some of what is no handshake at all.
        if out.is_empty() && self.records.negotiated_cipher_suite().is_none() {
            out.extend_from_slice(&DECODE_ALERT);
        }
        self.stage = Stage::Failed;
        self.incoming = Vec::new();
    }

    /// What so many bytes are as records, at most.
    pub(super) fn sealed_bytes_max(bytes: usize) -> usize {
        bytes + (bytes / RECORD_BYTES_MAX + 1) * RECORD_OVERHEAD_BYTES + LAST_BYTES_MAX
    }

    /// Appends bytes as records.
    pub(super) fn seal(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), TlsFault> {
        if bytes.is_empty() {
            return Ok(());
        }
        let sealed = self.write(out, Put::Payload(bytes));
        if sealed.is_err() {
            self.stage = Stage::Failed;
        }
        sealed
    }

    /// Appends the word that nothing more comes.
    pub(super) fn close(&mut self, out: &mut Vec<u8>) {
        if self.stage != Stage::Failed {
            // What cannot be said is left out: the connection ends all the same.
            let _ = self.write(out, Put::Close);
            self.stage = Stage::Failed;
        }
    }

    /// Writes behind `out`, once rustls has got rid of what is owed before.
    fn write(&mut self, out: &mut Vec<u8>, what: Put<'_>) -> Result<(), TlsFault> {
        if self.stage == Stage::Failed {
            return Err(TlsFault::KeysUsedUp);
        }
        loop {
            match self.records.process_tls_records(&mut self.incoming).state? {
                ConnectionState::EncodeTlsData(mut owed) => encode(&mut owed, out),
                ConnectionState::TransmitTlsData(sent) => sent.done(),
                ConnectionState::WriteTraffic(mut traffic) => {
                    let before = out.len();
                    out.resize(before + what.bytes_max(), 0);
                    let mut written = what.put(&mut traffic, &mut out[before..]);
                    if let Err(EncryptError::InsufficientSize(more)) = written {
                        out.resize(before + more.required_size, 0);
                        written = what.put(&mut traffic, &mut out[before..]);
                    }
                    out.truncate(before + written.as_ref().copied().unwrap_or(0));
                    return written.map(drop).map_err(|_| TlsFault::KeysUsedUp);
                }
                // Before the end of the handshake nothing is sent, and nothing was left unread.
                _ => return Err(TlsFault::KeysUsedUp),
            }
        }
    }

    /// What it takes of the allocator besides [`IDLE_BYTES`].
    pub(super) fn extra_bytes(&self) -> usize {
        let certificates = self.records.peer_certificates().unwrap_or_default();
        let certificates: usize = certificates.iter().map(|one| one.len()).sum();
        self.incoming.capacity() + certificates
    }
}

/// What is written.
#[derive(Clone, Copy)]
enum Put<'a> {
    Payload(&'a [u8]),
    Close,
}

impl Put<'_> {
    fn bytes_max(self) -> usize {
        match self {
            Put::Payload(bytes) => Tls::sealed_bytes_max(bytes.len()),
            Put::Close => LAST_BYTES_MAX,
        }
    }

    fn put(
        self,
        traffic: &mut WriteTraffic<'_, Data>,
        room: &mut [u8],
    ) -> Result<usize, EncryptError> {
        match self {
            Put::Payload(bytes) => traffic.encrypt(bytes, room),
            Put::Close => traffic.queue_close_notify(room),
        }
    }
}

type Data = rustls::server::ServerConnectionData;

fn encode(owed: &mut EncodeTlsData<'_, Data>, out: &mut Vec<u8>) {
    let before = out.len();
    if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) =
        owed.encode(&mut [])
    {
        out.resize(before + required_size, 0);
        let written = owed.encode(&mut out[before..]).unwrap_or(0);
        out.truncate(before + written);
    }
}

#[cfg(test)]
mod tests;
