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

/// Bytes that a core may ask of the allocator for an idle MQTT connection and its session: 48 for
/// the ring's entry, 88 for the broker's, 152 for the session, 11 for the client identifier, the
/// rest for the indexes of sessions, half of which may be empty.
const IDLE_BYTES: u64 = 320;

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
    connect_secure_in_pieces(idle, config, 0, usize::MAX);
}

fn connect_secure_in_pieces(
    idle: &mut Idle,
    config: &Arc<ClientConfig>,
    will_bytes: usize,
    piece: usize,
) {
    let name = "localhost".try_into().unwrap();
    let mut client = ClientConnection::new(Arc::clone(config), name).unwrap();
    client.set_buffer_limit(None);
    let mut answered = false;
    idle.connect_in_pieces(will_bytes, piece, |mut got, connect| {
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

/// A request for WebSocket, and its one frame.
fn within_websocket(connect: &[u8]) -> Vec<u8> {
    let request = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
                   Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                   Sec-WebSocket-Protocol: mqtt\r\n\r\n";
    let length = (connect.len() as u64).to_be_bytes();
    let length =
        if connect.len() > 0xffff { [&[0xff], &length[..]] } else { [&[0xfe], &length[6..]] };
    [request.as_bytes(), &[0x82], &length.concat(), &[0; 4], connect].concat()
}

/// What the allocator gives meanwhile, in bytes. It is what is copied: whoever grows memory copies
/// what was in it.
fn given(mut work: impl FnMut()) -> u64 {
    measure(&mut work).bytes_total
}

/// Has a client come, with a will of so many bytes.
type Way<'a> = Box<dyn FnMut(&mut Idle, usize) + 'a>;

#[test]
fn a_connect_that_comes_byte_by_byte_takes_work_by_its_length_and_not_by_its_square() {
    const WILL: usize = 15_000;
    let certificates = Certificates::new();
    let config = certificates.client(&TLS13, false);
    let mut idle = Idle::served(Some(certificates.endpoint(ClientCertificate::None)));
    let plainly = |idle: &mut Idle, will: usize, wrap: fn(&[u8]) -> Vec<u8>| {
        let mut asked = None;
        idle.connect_in_pieces(will, 1, |got, connect| {
            let first = asked.replace(got.to_vec()).is_none();
            if first { wrap(connect) } else { Vec::new() }
        });
        assert!(asked.is_some_and(|got| got.ends_with(&[0x20, 2, 0, 0])), "CONNACK");
    };
    let mut ways: [(&str, Way<'_>); 3] = [
        ("TCP", Box::new(|idle, will| plainly(idle, will, <[u8]>::to_vec))),
        ("WebSocket", Box::new(|idle, will| plainly(idle, will, within_websocket))),
        ("TLS", Box::new(|idle, will| connect_secure_in_pieces(idle, &config, will, 1))),
    ];
    for (name, way) in &mut ways {
        way(&mut idle, WILL);
        let once = given(|| way(&mut idle, WILL));
        let fourfold = given(|| way(&mut idle, 4 * WILL));
        println!("{name}: {once} B for {WILL} bytes, {fourfold} B for four times as many");
        assert!(fourfold < 5 * once, "{name}: {once} B, then {fourfold} B");
    }
}
