//! Any bytes on a connection, cut anywhere: the header of a proxy, TLS, WebSocket. They come to the
//! same MQTT however they are cut. With a real client's handshake before them they are within TLS,
//! or instead of its records; what was changed on its way is never read.

use std::cell::OnceCell;
use std::io::Write;
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, RootCertStore};
use sextant_push::broker::TransportAlone;
use sextant_push::config::Tls;
use sextant_push::tls::Endpoint;

/// Who serves TLS, and who knows him.
struct Both {
    endpoint: Arc<Endpoint>,
    client: Arc<ClientConfig>,
}

impl Both {
    fn new() -> Both {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]);
        let made = made.expect("a certificate");
        let dir = tempfile::tempdir().expect("a folder");
        let (certificate, key) = (dir.path().join("it.pem"), dir.path().join("it.key"));
        std::fs::write(&certificate, made.cert.pem()).expect("a file");
        std::fs::write(&key, made.signing_key.serialize_pem()).expect("a file");
        let tls = Tls { certificate: Some(certificate), key: Some(key), ..Tls::default() };
        let endpoint = Endpoint::load(&tls).expect("it goes together").expect("there is one");
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Both { endpoint: Arc::new(endpoint), client: Arc::new(client) }
    }
}

thread_local! {
    static BOTH: OnceCell<Both> = const { OnceCell::new() };
}

/// A server's side, and what came of it.
struct Server {
    transport: TransportAlone,
    mqtt: Vec<u8>,
    answers: Vec<u8>,
    goes_on: bool,
}

impl Server {
    fn new(proxied: bool, endpoint: Option<&Arc<Endpoint>>) -> Server {
        let transport = TransportAlone::new(proxied, endpoint.cloned());
        Server { transport, mqtt: Vec::new(), answers: Vec::new(), goes_on: true }
    }

    fn take(&mut self, bytes: &[u8], piece: usize) {
        for piece in bytes.chunks(piece) {
            self.goes_on = self.transport.handle_input(piece, &mut self.mqtt, &mut self.answers);
        }
    }
}

fn sent(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).expect("memory takes all");
    }
    bytes
}

/// Until both have said all that belongs to a handshake.
fn shake_hands(client: &mut ClientConnection, server: &mut Server, piece: usize) {
    for _ in 0..4 {
        server.take(&sent(client), piece);
        let answers = std::mem::take(&mut server.answers);
        let mut answers = &answers[..];
        while !answers.is_empty() {
            client.read_tls(&mut answers).expect("memory gives all");
            client.process_new_packets().expect("the server keeps the rules");
        }
    }
    assert!(!client.is_handshaking() && server.goes_on, "both keep the rules");
}

pub(crate) fn run(bytes: &[u8]) {
    let [how, piece, rest @ ..] = bytes else { return };
    let piece = usize::from(*piece).max(1);
    BOTH.with(|both| {
        let both = both.get_or_init(Both::new);
        match how % 4 {
            0 => anything(how & 4 != 0, None, rest, piece),
            1 => anything(how & 4 != 0, Some(&both.endpoint), rest, piece),
            2 => within(both, rest, piece),
            _ => changed(both, how & 4 != 0, rest, piece),
        }
    });
}

/// Nobody keeps any rules.
fn anything(proxied: bool, endpoint: Option<&Arc<Endpoint>>, bytes: &[u8], piece: usize) {
    let mut whole = Server::new(proxied, endpoint);
    whole.take(bytes, usize::MAX);
    let mut cut = Server::new(proxied, endpoint);
    cut.take(bytes, piece);
    assert_eq!(cut.mqtt, whole.mqtt);
    // A request that is wrong is found wrong at the end of a line.
    assert!(whole.goes_on <= cut.goes_on, "it is wrong in pieces alone");
    assert!(whole.mqtt.len() <= bytes.len(), "nothing comes from nothing");
    let _ = (whole.transport.goodbye(), cut.transport.goodbye());
}

/// Whatever is within TLS is what it is without.
fn within(both: &Both, bytes: &[u8], piece: usize) {
    let name = "localhost".try_into().expect("a name");
    let mut client = ClientConnection::new(Arc::clone(&both.client), name).expect("a client");
    let mut server = Server::new(false, Some(&both.endpoint));
    shake_hands(&mut client, &mut server, piece);
    client.writer().write_all(bytes).expect("memory takes all");
    server.take(&sent(&mut client), piece);
    let mut plain = Server::new(false, None);
    plain.take(bytes, usize::MAX);
    assert_eq!(server.mqtt, plain.mqtt);
    assert_eq!(server.goes_on, plain.goes_on);
    let mut goodbye = &server.transport.goodbye().expect("TLS has an end")[..];
    client.read_tls(&mut goodbye).expect("memory gives all");
}

/// Anything instead of a record, or a record in which a byte is another.
fn changed(both: &Both, raw: bool, bytes: &[u8], piece: usize) {
    let name = "localhost".try_into().expect("a name");
    let mut client = ClientConnection::new(Arc::clone(&both.client), name).expect("a client");
    let mut server = Server::new(false, Some(&both.endpoint));
    shake_hands(&mut client, &mut server, piece);
    if raw {
        server.take(bytes, piece);
    } else {
        let [at, with, message @ ..] = bytes else { return };
        if message.is_empty() || *with == 0 {
            return;
        }
        client.writer().write_all(message).expect("memory takes all");
        let mut record = sent(&mut client);
        // Not its length, which only says when it is whole.
        let at = 5 + usize::from(*at) % (record.len() - 5);
        record[at] ^= with;
        server.take(&record, piece);
        assert!(!server.goes_on, "byte {at} does not count");
    }
    assert!(server.mqtt.is_empty(), "nobody has sealed that");
    let _ = server.transport.goodbye();
}
