//! Push within TLS beside its peers: what a handshake takes of the server's CPU, in full and
//! resumed, and what an idle connection takes of its memory.
//!
//! The client is [`Client`] within rustls, on the same load as everything else. It checks no
//! signature and no certificate, so that it keeps up with the server; what the server does is the
//! same for any client.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, NamedGroup,
    SignatureScheme,
};
use sextant_load::fleet::SessionError;
use sextant_load::{Connections, Fleet, Load, Outcome, Pace, Recorder, Session};
use sextant_ring::time::Time;

use crate::compare::{Case, Plan, Run, load_figures};
use crate::devices::{bench, layout, peer_figures};
use crate::floor;
use crate::idle::hold_with;
use crate::mqtt::{Client, Part};
use crate::push::start_push_with_tls;
use crate::report::{Figure, Wanted, number};
use crate::server::Server;

/// Who the server says it is.
const NAME: &str = "localhost";
/// Tickets that clients remember, more than are under way at once.
const TICKETS_MAX: usize = 4096;
/// Plain bytes that are read at once.
const READ_BYTES: usize = 16 << 10;
/// Idle connections whose memory is measured.
const IDLE: u32 = 5000;

/// A certificate that signs itself, with a key of ECDSA on P-256, and its files.
pub(crate) struct Certificate {
    dir: tempfile::TempDir,
}

impl Certificate {
    /// A new one.
    ///
    /// # Errors
    /// Its files cannot be written.
    pub(crate) fn new() -> Result<Certificate> {
        let dir = tempfile::tempdir().context("no temporary folder")?;
        let made = Certificate { dir };
        let certificate = rcgen::generate_simple_self_signed(vec![NAME.to_owned()])?;
        let (path, key_path) = made.paths();
        std::fs::write(path, certificate.cert.pem()).context("cannot write a certificate")?;
        std::fs::write(key_path, certificate.signing_key.serialize_pem())
            .context("cannot write a key")?;
        Ok(made)
    }

    /// Where it is, and where its key is, both in PEM.
    pub(crate) fn paths(&self) -> (String, String) {
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        (path("server.pem"), path("server.key"))
    }
}

/// Whether clients resume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Full,
    Resumed,
}

/// What clients share.
#[derive(Clone)]
struct Shared {
    config: Arc<ClientConfig>,
    done: Arc<Done>,
}

/// Handshakes that are done.
#[derive(Debug, Default)]
struct Done {
    all: AtomicU64,
    resumed: AtomicU64,
}

impl Shared {
    fn new(kind: Kind) -> Result<Shared> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unseen))
            .with_no_client_auth();
        config.resumption = match kind {
            Kind::Full => Resumption::disabled(),
            Kind::Resumed => Resumption::store(Arc::new(Tickets::default())),
        };
        Ok(Shared { config: Arc::new(config), done: Arc::default() })
    }

    fn client(&self, part: Part, number: u64) -> Secure {
        let name = ServerName::try_from(NAME).expect("it is a name");
        let tls = ClientConnection::new(Arc::clone(&self.config), name);
        Secure {
            tls: tls.expect("a client of this configuration can be made"),
            client: Client::with_keep_alive(part, number),
            connected: false,
            done: Arc::clone(&self.done),
        }
    }

    /// How many of a hundred handshakes were resumed.
    fn resumed(&self) -> f64 {
        let all = self.done.all.load(Ordering::Relaxed).max(1);
        self.done.resumed.load(Ordering::Relaxed) as f64 / all as f64 * 100.0
    }
}

/// Takes any server at its word.
#[derive(Debug)]
struct Unseen;

impl ServerCertVerifier for Unseen {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// The tickets of all clients, each used once. rustls' own store keeps eight for a server, and more
/// clients than that are under way at once.
#[derive(Debug, Default)]
struct Tickets {
    kept: Mutex<VecDeque<Tls13ClientSessionValue>>,
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == TICKETS_MAX {
            kept.pop_front();
        }
        kept.push_back(ticket);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

/// A client within TLS.
struct Secure {
    tls: ClientConnection,
    client: Client,
    /// The handshake is done, and the client knows.
    connected: bool,
    done: Arc<Done>,
}

impl Secure {
    /// Says these plain bytes, and whatever else TLS has to say. That it ends is said by MQTT alone:
    /// a server that closes at its DISCONNECT, as mosquitto does, would reset the connection for
    /// any byte behind it.
    fn say(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), SessionError> {
        self.tls.writer().write_all(plain)?;
        while self.tls.wants_write() {
            self.tls.write_tls(out)?;
        }
        Ok(())
    }

    fn take_handshake(&mut self, now: Time, plain: &mut Vec<u8>) -> Result<(), SessionError> {
        if self.tls.is_handshaking() || std::mem::replace(&mut self.connected, true) {
            return Ok(());
        }
        self.done.all.fetch_add(1, Ordering::Relaxed);
        if self.tls.handshake_kind() == Some(HandshakeKind::Resumed) {
            self.done.resumed.fetch_add(1, Ordering::Relaxed);
        }
        self.client.handle_connected(now, plain)
    }
}

impl Session for Secure {
    fn handle_connected(&mut self, _now: Time, out: &mut Vec<u8>) -> Result<(), SessionError> {
        self.say(&[], out)
    }

    fn handle_input(
        &mut self,
        now: Time,
        mut input: &[u8],
        out: &mut Vec<u8>,
        recorder: &mut Recorder,
    ) -> Result<(), SessionError> {
        let (mut plain, mut heard) = (Vec::new(), [0; READ_BYTES]);
        while !input.is_empty() && self.tls.wants_read() {
            self.tls.read_tls(&mut input)?;
            self.tls.process_new_packets()?;
            self.take_handshake(now, &mut plain)?;
            loop {
                let len = match self.tls.reader().read(&mut heard) {
                    Ok(0) => break,
                    Ok(len) => len,
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.into()),
                };
                self.client.handle_input(now, &heard[..len], &mut plain, recorder)?;
            }
        }
        self.say(&plain, out)
    }

    fn begin(&mut self, intended: Time, out: &mut Vec<u8>) -> Result<(), SessionError> {
        let mut plain = Vec::new();
        self.client.begin(intended, &mut plain)?;
        self.say(&plain, out)
    }

    fn is_ready(&self) -> bool {
        self.client.is_ready()
    }

    fn handle_closed(&mut self, now: Time, recorder: &mut Recorder) -> Result<(), SessionError> {
        self.client.handle_closed(now, recorder)
    }
}

/// Runs `push-tls`.
pub(crate) fn run(run: &Run) -> Result<()> {
    let certificate = Certificate::new()?;
    let certificate = &certificate;
    let (mut bench, peers) =
        bench(run, "push-tls", "CPU of a TLS handshake, memory of a TLS connection")?;
    bench.note(
        "TLS 1.3, X25519, a certificate of ECDSA P-256. A visit is TCP, the handshake, CONNECT, \
         CONNACK and DISCONNECT; latency is until the CONNACK. Saturated: 64 visits are under way, \
         or as many as the load can make, which does as much of a handshake as the server.",
    );
    bench.note(
        "Resumed: each client has a ticket of one before it. `% resumed` says how many handshakes \
         the server did resume, from the start on.",
    );
    bench.note(
        "Memory is what the server's resident memory grew by, divided by the number of \
         connections; that of the kernel's sockets is not in it.",
    );
    let saturated = Pace::Saturated { window: 64, lot: 1 };
    let cases = [
        ("500 full handshakes a second", Kind::Full, Pace::PerSecond(500.0)),
        ("full handshakes, saturated", Kind::Full, saturated),
        ("resumed handshakes, saturated", Kind::Resumed, saturated),
    ];
    for (name, kind, pace) in cases {
        let push = move |plan: &Plan| {
            let server = start_push_with_tls(layout(10_000)?, certificate)?;
            visits(&server, kind, pace, plan, |outcome| Ok(load_figures(outcome)))
        };
        let mut case = Case::new(name, "µs of CPU per visit").side("push", push);
        for &peer in &peers {
            case = case
                .peer(peer.name(), move |plan| {
                    visits(&peer.start(Some(certificate))?, kind, pace, plan, peer_figures)
                })
                .gains("push", peer.name(), None);
        }
        bench.add(case);
    }
    let count = if run.quick { 500 } else { IDLE };
    let name = format!("{} idle connections", number(f64::from(count)));
    let mut case = Case::new(name, "B of resident memory per connection")
        .side("push", move |plan| {
            hold(&start_push_with_tls(layout(count)?, certificate)?, count, plan)
        })
        .limit("push", Wanted::AtMost(10_000.0));
    for &peer in &peers {
        case = case
            .peer(peer.name(), move |plan| hold(&peer.start(Some(certificate))?, count, plan))
            .gains("push", peer.name(), None);
    }
    bench.add(case.rounds_max(2));
    bench.run()
}

fn visits(
    server: &Server,
    kind: Kind,
    pace: Pace,
    plan: &Plan,
    figures: impl Fn(&Outcome) -> Result<Vec<Figure>>,
) -> Result<Vec<Figure>> {
    let shared = Shared::new(kind)?;
    let clients = shared.clone();
    let connections = Connections::PerOperation { at_once_max: 4096 };
    let load = Load { connections, pace, ..floor::load(server, plan) };
    let fleet = Fleet::start(load, move |number| clients.client(Part::Visitor, number))?;
    let outcome = fleet.wait()?.context("a load with a pace has an outcome")?;
    let mut figures = figures(&outcome)?;
    figures.push(Figure::new("% resumed", shared.resumed()));
    Ok(figures)
}

fn hold(server: &Server, count: u32, plan: &Plan) -> Result<Vec<Figure>> {
    let shared = Shared::new(Kind::Full)?;
    hold_with(server, count, plan, move |number| shared.client(Part::Idle, number))
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
    use rustls::{ServerConfig, ServerConnection};

    use super::*;

    fn server() -> Arc<ServerConfig> {
        let (certificate, key) = {
            let made = Certificate::new().unwrap();
            let (certificate, key) = made.paths();
            (
                CertificateDer::from_pem_file(certificate).unwrap(),
                PrivateKeyDer::from_pem_file(key).unwrap(),
            )
        };
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key);
        Arc::new(config.unwrap())
    }

    /// A visit whose server answers CONNECT with CONNACK; what the server heard.
    fn visit(shared: &Shared, server: &Arc<ServerConfig>, recorder: &mut Recorder) -> Vec<u8> {
        let mut client = shared.client(Part::Visitor, 7);
        let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
        let (mut out, mut heard) = (Vec::new(), Vec::new());
        client.handle_connected(Time::ZERO, &mut out).unwrap();
        client.begin(Time::from_nanos(1), &mut out).unwrap();
        while !out.is_empty() {
            let mut bytes = out.as_slice();
            while !bytes.is_empty() {
                server.read_tls(&mut bytes).unwrap();
                server.process_new_packets().unwrap();
            }
            out.clear();
            let was_silent = heard.is_empty();
            // There is nothing more to read, or there is.
            let _ = server.reader().read_to_end(&mut heard);
            if was_silent && !heard.is_empty() {
                server.writer().write_all(&[0x20, 2, 0, 0]).unwrap();
            }
            let mut answer = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut answer).unwrap();
            }
            client.handle_input(Time::from_nanos(9), &answer, &mut out, recorder).unwrap();
        }
        heard
    }

    #[test]
    fn a_visit_within_tls_is_a_visit_and_the_next_one_resumes() {
        for (kind, resumed) in [(Kind::Full, 0.0), (Kind::Resumed, 50.0)] {
            let (shared, server) = (Shared::new(kind).unwrap(), server());
            let mut recorder = Recorder::default();
            recorder.open(Time::ZERO);
            for visits in 1..=2 {
                let heard = visit(&shared, &server, &mut recorder);
                assert_eq!((heard[0], &heard[heard.len() - 2..]), (0x10, &[0xe0, 0][..]));
                assert_eq!(recorder.done(), visits);
            }
            assert_eq!((recorder.summary().max_ns, shared.resumed()), (8, resumed), "{kind:?}");
        }
    }
}
