//! The gate: what the hot paths cost is what they are expected to cost, and an idle connection
//! takes no more memory than it is expected to.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use allocation_counter::measure;
use rustls::client::Resumption;
use rustls::pki_types::PrivateKeyDer;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use sextant_push::broker::TLS_IDLE_BYTES;
use sextant_push::config::{ClientCertificate, Identity, Tls};
use sextant_push::tls::Endpoint;

use sextant_counts::paths::{Idle, PATHS};
use sextant_counts::{count, expected, is_expected};

#[test]
fn hot_paths_cost_what_they_are_expected_to_cost() {
    let program = Path::new(env!("CARGO_BIN_EXE_sextant-counts"));
    let expected = expected().unwrap();
    let told: Vec<String> = std::thread::scope(|scope| {
        let counting: Vec<_> = PATHS
            .iter()
            .map(|path| (path.name, scope.spawn(|| count(program, path.name).unwrap())))
            .collect();
        let told = counting.into_iter().filter_map(|(name, counting)| {
            let counted = counting.join().unwrap();
            let Some(wanted) = expected.get(name).copied() else {
                return Some(format!("{name}: {counted:.0} instructions, and none are expected"));
            };
            (!is_expected(counted, wanted)).then(|| {
                let percent = (counted / wanted - 1.0) * 100.0;
                format!("{name}: {counted:.0} instructions, not {wanted:.0} ({percent:+.1} %)")
            })
        });
        told.collect()
    });
    assert!(told.is_empty(), "{}\nif that is meant: cargo xtask counts --accept", told.join("\n"));
}

/// Bytes that a core may ask of the allocator for an idle MQTT connection and its session: 72 for
/// the ring's entry, 88 for the broker's, 152 for the session, 11 for the client identifier, the
/// rest for the indexes of sessions, half of which may be empty.
const IDLE_BYTES: u64 = 345;

#[test]
fn an_idle_connection_takes_no_more_memory_than_expected() {
    const CLIENTS: u64 = 8000;
    let mut idle = Idle::new();
    idle.connect(1000);
    let grown = measure(|| idle.connect(CLIENTS)).bytes_current;
    let each = u64::try_from(grown).unwrap() / CLIENTS;
    assert!(each <= IDLE_BYTES, "{each} B");
    assert!(each >= IDLE_BYTES - 20, "{each} B: {IDLE_BYTES} B is out of date");
}

/// What an idle connection may take within TLS, in bytes: a client certificate of its own included.
const IDLE_TLS_BYTES_MAX: u64 = 10_000;

/// An authority that serves and is a client, too.
struct Certificates {
    certificate: rcgen::CertifiedKey<rcgen::KeyPair>,
    dir: tempfile::TempDir,
}

impl Certificates {
    fn new() -> Certificates {
        let certificate = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("it.pem"), certificate.cert.pem()).unwrap();
        std::fs::write(dir.path().join("it.key"), certificate.signing_key.serialize_pem()).unwrap();
        Certificates { certificate, dir }
    }

    fn endpoint(&self, client_certificate: ClientCertificate) -> Arc<Endpoint> {
        let path = |name: &str| Some(self.dir.path().join(name));
        let (certificate, key, client_ca) = (path("it.pem"), path("it.key"), path("it.pem"));
        // It has none, so that a client with a certificate is not the device that it names.
        let identity = Identity::SanUri;
        let tls =
            Tls { certificate, key, client_ca, client_certificate, identity, ..Tls::default() };
        Arc::new(Endpoint::load(&tls).unwrap().unwrap())
    }

    fn client(&self, version: &'static SupportedProtocolVersion, own: bool) -> Arc<ClientConfig> {
        let certificate = self.certificate.cert.der().clone();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots);
        let key = PrivateKeyDer::try_from(self.certificate.signing_key.serialize_der()).unwrap();
        let mut config = match own {
            true => builder.with_client_auth_cert(vec![certificate], key).unwrap(),
            false => builder.with_no_client_auth(),
        };
        // What a client remembers is not to be counted.
        config.resumption = Resumption::disabled();
        Arc::new(config)
    }
}

fn connect_secure(idle: &mut Idle, config: &Arc<ClientConfig>) {
    let name = "localhost".try_into().unwrap();
    let mut client = ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut answered = false;
    idle.connect_within(|mut got, connect| {
        if got.is_empty() {
            client.writer().write_all(connect).unwrap();
        }
        while !got.is_empty() {
            client.read_tls(&mut got).unwrap();
            client.process_new_packets().unwrap();
        }
        let mut connack = [0; 4];
        answered |= client.reader().read_exact(&mut connack).is_ok() && connack == [0x20, 2, 0, 0];
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        bytes
    });
    assert!(answered, "CONNACK");
}

#[test]
fn an_idle_connection_within_tls_takes_no_more_memory_than_expected() {
    const CLIENTS: u64 = 500;
    let certificates = Certificates::new();
    for (version, own) in [(&TLS13, false), (&TLS12, false), (&TLS13, true), (&TLS12, true)] {
        let wanted = if own { ClientCertificate::Required } else { ClientCertificate::None };
        let mut idle = Idle::served(Some(certificates.endpoint(wanted)));
        let config = certificates.client(version, own);
        (0..20).for_each(|_| connect_secure(&mut idle, &config));
        let grown = measure(|| (0..CLIENTS).for_each(|_| connect_secure(&mut idle, &config)));
        let each = u64::try_from(grown.bytes_current).unwrap() / CLIENTS;
        println!("{:?}, client certificate {own}: {each} B", version.version);
        assert!(each <= IDLE_TLS_BYTES_MAX, "{each} B");
        let tls = each.saturating_sub(IDLE_BYTES);
        if !own && version.version == TLS13.version {
            // It is what the operator is told.
            let told = TLS_IDLE_BYTES as u64;
            assert!(tls <= told, "{tls} B, and {told} are told");
            assert!(tls >= told - 500, "{tls} B: {told} is out of date");
        }
    }
}
