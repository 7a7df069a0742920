use super::*;

use std::io::{Read, Write};

use proptest::prelude::*;
use rcgen::{SanType, SerialNumber, date_time_ymd};
use rustls::crypto::ring;
use rustls::version::{TLS12, TLS13};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion,
};

use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config;
use crate::tls::tests::{Authority, Issued, asking};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

fn client_config(
    authority: &Authority,
    version: &'static SupportedProtocolVersion,
    own: Option<&Issued>,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(authority.issuer.der().clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    match own {
        None => builder.with_no_client_auth(),
        Some(own) => builder
            .with_client_auth_cert(vec![own.certificate.clone()], own.key.clone_key())
            .unwrap(),
    }
}

/// A client and a server, and what is between them.
struct Pair {
    client: ClientConnection,
    server: Tls,
    /// What the server read within TLS.
    inner: Vec<u8>,
    completed: Vec<Completed>,
}

impl Pair {
    fn new(endpoint: &Arc<Endpoint>, config: ClientConfig) -> Pair {
        Pair::with(endpoint, &Arc::new(config))
    }

    fn with(endpoint: &Arc<Endpoint>, config: &Arc<ClientConfig>) -> Pair {
        Pair::asking_for("localhost", endpoint, config)
    }

    fn asking_for(name: &str, endpoint: &Arc<Endpoint>, config: &Arc<ClientConfig>) -> Pair {
        let name = name.to_owned().try_into().unwrap();
        let client = ClientConnection::new(Arc::clone(config), name).unwrap();
        let server = Tls::new(endpoint).unwrap();
        Pair { client, server, inner: Vec::new(), completed: Vec::new() }
    }

    /// What the client has to send.
    fn sent(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    /// The server takes bytes in pieces of at most so many; what it owes, and its fault.
    fn serve(&mut self, bytes: &[u8], piece: usize) -> (Vec<u8>, Option<TlsFault>) {
        let mut owed = Vec::new();
        for piece in bytes.chunks(piece) {
            match self.server.handle_input(piece, &mut self.inner, &mut owed) {
                Ok(completed) => self.completed.extend(completed),
                Err(fault) => return (owed, Some(fault)),
            }
        }
        (owed, None)
    }

    /// The client takes bytes.
    fn take(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            self.client.read_tls(&mut bytes).unwrap();
            self.client.process_new_packets()?;
        }
        Ok(())
    }

    /// Goes on until nobody has anything to say; the server's fault, and the client's.
    fn go(&mut self, piece: usize) -> (Option<TlsFault>, Option<Error>) {
        loop {
            let bytes = self.sent();
            if bytes.is_empty() {
                return (None, None);
            }
            let (owed, fault) = self.serve(&bytes, piece);
            let refused = self.take(&owed).err();
            if fault.is_some() || refused.is_some() {
                return (fault, refused);
            }
        }
    }

    fn read(&mut self) -> Vec<u8> {
        let mut read = Vec::new();
        // It blocks once there is no more.
        let _ = self.client.reader().read_to_end(&mut read);
        read
    }

    fn extra(&self) -> usize {
        self.server.extra_bytes()
    }
}

#[test]
fn bytes_go_both_ways_however_they_are_cut() {
    let authority = Authority::new();
    let endpoint = authority.endpoint(|_| ());
    for version in VERSIONS {
        for piece in [1, 2, 5, 6, 100, 1000, 1 << 20] {
            let mut pair = Pair::new(&endpoint, client_config(&authority, version, None));
            assert!(pair.server.is_handshaking());
            pair.client.writer().write_all(b"early").unwrap();
            assert_eq!(pair.go(piece), (None, None));
            assert_eq!(pair.completed, [Completed::Full]);
            assert_eq!(pair.inner, b"early");
            assert_eq!(pair.extra(), 0, "an idle connection has no buffer");
            let long: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
            let mut records = Vec::new();
            pair.server.seal(b"a", &mut records).unwrap();
            pair.server.seal(&long, &mut records).unwrap();
            assert!(records.len() <= Tls::sealed_bytes_max(long.len() + 1));
            let mut read = Vec::new();
            for records in records.chunks(10_000) {
                pair.take(records).unwrap();
                read.extend(pair.read());
            }
            assert_eq!((read[0], &read[1..]), (b'a', &long[..]));
            pair.inner.clear();
            for piece_of in long.chunks(20_000) {
                pair.client.writer().write_all(piece_of).unwrap();
                assert_eq!(pair.go(piece), (None, None));
            }
            assert!(pair.inner == long);
            assert_eq!(pair.extra(), 0);
        }
    }
}

#[test]
fn a_key_is_updated_in_between_without_a_gap() {
    let authority = Authority::new();
    let endpoint = authority.endpoint(|_| ());
    let mut pair = Pair::new(&endpoint, client_config(&authority, &TLS13, None));
    assert_eq!(pair.go(1000), (None, None));
    for round in 0..20u8 {
        pair.client.refresh_traffic_keys().unwrap();
        pair.client.writer().write_all(&[round; 50]).unwrap();
        assert_eq!(pair.go(7), (None, None));
        let mut records = Vec::new();
        pair.server.seal(&[round; 60], &mut records).unwrap();
        pair.take(&records).unwrap();
        assert_eq!(pair.read(), [round; 60]);
    }
    assert_eq!(pair.inner.len(), 1000);
}

#[test]
fn a_close_is_told_and_taken() {
    let authority = Authority::new();
    let endpoint = authority.endpoint(|_| ());
    for version in VERSIONS {
        let mut pair = Pair::new(&endpoint, client_config(&authority, version, None));
        assert_eq!(pair.go(1000), (None, None));
        // All at once: what it says last, and that it says no more.
        pair.client.writer().write_all(b"last").unwrap();
        pair.client.send_close_notify();
        assert_eq!(pair.go(1000), (None, None));
        assert!(pair.server.is_closed());
        assert_eq!(pair.inner, b"last");
        // The other way is open still.
        let mut records = Vec::new();
        pair.server.seal(b"bye", &mut records).unwrap();
        pair.server.close(&mut records);
        pair.take(&records).unwrap();
        let mut read = Vec::new();
        assert_eq!(pair.client.reader().read_to_end(&mut read).unwrap(), 3, "a clean end");
        assert_eq!(pair.serve(b"more", 4).1, Some(TlsFault::KeysUsedUp));
        assert!(pair.server.seal(b"more", &mut records).is_err());
    }
}

#[test]
fn a_handshake_that_ends_with_all_that_there_is_to_say_is_complete() {
    let authority = Authority::new();
    let endpoint = authority.endpoint(|_| ());
    let mut pair = Pair::new(&endpoint, client_config(&authority, &TLS13, None));
    let hello = pair.sent();
    let (owed, None) = pair.serve(&hello, 1000) else { panic!("a good hello") };
    pair.take(&owed).unwrap();
    pair.client.writer().write_all(b"all").unwrap();
    pair.client.send_close_notify();
    let rest = pair.sent();
    assert_eq!(pair.serve(&rest, rest.len()).1, None);
    assert_eq!((&pair.completed[..], &pair.inner[..]), (&[Completed::Full][..], &b"all"[..]));
    assert!(pair.server.is_closed());
}

#[test]
fn a_ticket_resumes_a_session_with_its_certificate_and_not_at_another_endpoint() {
    let authority = Authority::new();
    let endpoint = authority.endpoint(|tls| asking(&authority, tls));
    let other = authority.endpoint(|tls| asking(&authority, tls));
    let lamp = authority.issue("lamp", |_| ());
    for version in VERSIONS {
        let config = Arc::new(client_config(&authority, version, Some(&lamp)));
        for (endpoint, kind) in [
            (&endpoint, Completed::Full),
            (&endpoint, Completed::Resumed),
            (&endpoint, Completed::Resumed),
            (&other, Completed::Full),
        ] {
            let mut pair = Pair::with(endpoint, &config);
            assert_eq!(pair.go(1000), (None, None));
            assert_eq!(pair.completed, [kind]);
            assert_eq!(pair.server.device(), Some("lamp"));
        }
    }
}

/// What the server says is wrong, and the alert that the client gets.
fn refused(endpoint: &Arc<Endpoint>, config: ClientConfig) -> (TlsFault, AlertDescription) {
    let mut pair = Pair::new(endpoint, config);
    match pair.go(1000) {
        (Some(fault), Some(Error::AlertReceived(alert))) => (fault, alert),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_client_certificate_that_is_missing_or_not_good_is_told_by_an_alert() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let crl = authority.revoke(&[13]);
    let endpoint = authority.endpoint(|tls| {
        asking(&authority, tls);
        tls.client_crl = Some(crl);
    });
    let expired = authority.issue("old", |params| params.not_after = date_time_ymd(2020, 1, 1));
    let revoked = authority.issue("revoked", |params| {
        params.serial_number = Some(SerialNumber::from_slice(&[13]));
    });
    let foreign = stranger.issue("foreign", |_| ());
    for version in VERSIONS {
        for (own, said, alert) in [
            (None, "has no certificate", AlertDescription::CertificateRequired),
            (Some(&expired), "has expired", AlertDescription::CertificateExpired),
            (Some(&revoked), "is revoked", AlertDescription::CertificateRevoked),
            (Some(&foreign), "not in tls.client_ca", AlertDescription::UnknownCA),
        ] {
            let (fault, told) = refused(&endpoint, client_config(&authority, version, own));
            assert!(fault.explain().contains(said), "{}", fault.explain());
            assert_eq!(fault.of_handshake(), HandshakeFailed::Certificate);
            assert_eq!(told, alert);
        }
        let good = authority.issue("good", |_| ());
        let mut pair = Pair::new(&endpoint, client_config(&authority, version, Some(&good)));
        assert_eq!(pair.go(1000), (None, None));
        assert_eq!(pair.server.device(), Some("good"));
    }
}

#[test]
fn a_certificate_that_is_optional_may_be_missing_and_not_be_wrong() {
    let authority = Authority::new();
    let endpoint = authority.endpoint(|tls| {
        asking(&authority, tls);
        tls.client_certificate = config::ClientCertificate::Optional;
    });
    let mut pair = Pair::new(&endpoint, client_config(&authority, &TLS13, None));
    assert_eq!(pair.go(1000), (None, None));
    assert_eq!((pair.server.device(), &pair.completed[..]), (None, &[Completed::Full][..]));
    let foreign = Authority::new().issue("foreign", |_| ());
    let (fault, _) = refused(&endpoint, client_config(&authority, &TLS13, Some(&foreign)));
    assert_eq!(fault.of_handshake(), HandshakeFailed::Certificate);
}

#[test]
fn a_protocol_is_agreed_on_if_the_client_names_any() {
    let authority = Authority::new();
    let endpoint = authority.endpoint(|_| ());
    for (offered, agreed) in [
        (vec![], None),
        (vec![b"mqtt".to_vec()], Some(&b"mqtt"[..])),
        (vec![b"h2".to_vec(), b"http/1.1".to_vec()], Some(b"http/1.1")),
    ] {
        let mut config = client_config(&authority, &TLS13, None);
        config.alpn_protocols = offered;
        let mut pair = Pair::new(&endpoint, config);
        assert_eq!(pair.go(1000), (None, None));
        assert_eq!(pair.client.alpn_protocol(), agreed);
    }
    let mut config = client_config(&authority, &TLS13, None);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (fault, alert) = refused(&endpoint, config);
    assert_eq!(fault.of_handshake(), HandshakeFailed::Incompatible);
    assert_eq!(alert, AlertDescription::NoApplicationProtocol);
}

#[test]
fn a_client_that_does_not_trust_the_certificate_is_counted_as_such() {
    let authority = Authority::new();
    let endpoint = authority.endpoint(|_| ());
    let stranger = Authority::new();
    let mut pair = Pair::new(&endpoint, client_config(&stranger, &TLS13, None));
    let (None, Some(Error::InvalidCertificate(_))) = pair.go(1000) else { panic!("not trusted") };
    let alert = pair.sent();
    let (_, Some(fault)) = pair.serve(&alert, 1000) else { panic!("told") };
    assert_eq!(fault.of_handshake(), HandshakeFailed::ByPeer);
    assert!(fault.explain().contains("UnknownCA"), "{}", fault.explain());
}

#[test]
fn what_is_no_handshake_is_answered_with_an_alert_once() {
    let authority = Authority::new();
    let endpoint = authority.endpoint(|_| ());
    for garbage in [
        &b"\x16\x03\x01\x00\x05hello"[..],
        b"\x16\x03\x01\xff\xff",
        b"\x16GET / HTTP/1.1\r\n",
        b"\x17\x03\x03\x00\x01x",
        b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",
    ] {
        let mut pair = Pair::new(&endpoint, client_config(&authority, &TLS13, None));
        let (owed, fault) = pair.serve(garbage, 1000);
        assert_eq!(fault.unwrap().of_handshake(), HandshakeFailed::Protocol, "{garbage:02x?}");
        assert_eq!(owed.len(), 7, "{garbage:02x?}: {owed:02x?}");
        assert_eq!((owed[0], owed[5]), (0x15, 2), "{owed:02x?}: a fatal alert");
        assert!(!pair.server.is_handshaking());
        let (owed, fault) = pair.serve(garbage, 1000);
        assert_eq!((owed.len(), fault), (0, Some(TlsFault::KeysUsedUp)));
        assert_eq!(pair.extra(), 0);
    }
}

#[test]
fn a_handshake_without_end_is_ended() {
    let authority = Authority::new();
    let endpoint = authority.endpoint(|_| ());
    // A hello of 65535 bytes that never is whole, in records of one byte each.
    let mut pair = Pair::new(&endpoint, client_config(&authority, &TLS13, None));
    let (_, fault) = pair.serve(b"\x16\x03\x01\x00\x04\x01\x00\xff\xff", 1000);
    assert_eq!(fault, None);
    let mut taken = 0;
    let fault = loop {
        let (_, fault) = pair.serve(b"\x16\x03\x01\x00\x01\x00", 1000);
        if let Some(fault) = fault {
            break fault;
        }
        taken += 6;
        assert!(pair.extra() <= 2 * INCOMING_BYTES_MAX);
        assert!(taken < 1 << 20, "it goes on");
    };
    assert!(matches!(fault, TlsFault::TooLong | TlsFault::Records(_)), "{fault}");
    assert_eq!(pair.extra(), 0);
}

#[test]
fn a_flipped_bit_after_the_handshake_is_a_bad_record() {
    let authority = Authority::new();
    let endpoint = authority.endpoint(|_| ());
    for version in VERSIONS {
        let mut pair = Pair::new(&endpoint, client_config(&authority, version, None));
        assert_eq!(pair.go(1000), (None, None));
        pair.client.writer().write_all(b"good").unwrap();
        let mut bytes = pair.sent();
        pair.client.writer().write_all(b"bad").unwrap();
        bytes.extend(pair.sent());
        *bytes.last_mut().unwrap() ^= 1;
        let (owed, fault) = pair.serve(&bytes, 10_000);
        assert_eq!(fault, Some(TlsFault::Records(Error::DecryptError)));
        assert_eq!(pair.inner, b"good", "what came before counts");
        let alert = pair.take(&owed).expect_err("an alert");
        assert_eq!(alert, Error::AlertReceived(AlertDescription::BadRecordMac));
    }
}

/// The flights of a client that is let in, up to its first data.
fn flights(authority: &Authority, endpoint: &Arc<Endpoint>) -> Vec<Vec<u8>> {
    let mut pair = Pair::new(endpoint, client_config(authority, &TLS12, None));
    let mut flights = Vec::new();
    loop {
        let bytes = pair.sent();
        if bytes.is_empty() {
            return flights;
        }
        let (owed, _) = pair.serve(&bytes, 1000);
        pair.take(&owed).unwrap();
        flights.push(bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_change_of_a_handshake_ends_it_or_does_nothing(
        at in any::<prop::sample::Index>(),
        changed in prop::collection::vec(any::<u8>(), 1..9),
        piece in 1usize..300,
    ) {
        let authority = authority();
        let (authority, endpoint, flights) = &*authority;
        let mut bytes = flights.concat();
        let at = at.index(bytes.len());
        let end = (at + changed.len()).min(bytes.len());
        bytes[at..end].copy_from_slice(&changed[..end - at]);
        let mut pair = Pair::new(endpoint, client_config(authority, &TLS12, None));
        // Another server has other keys: at the latest its Finished is wrong.
        let _ = pair.serve(&bytes, piece);
        prop_assert_eq!(&pair.completed[..], &[]);
        prop_assert!(pair.extra() <= 2 * INCOMING_BYTES_MAX);
    }

    #[test]
    fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..500), piece in 1usize..99) {
        let authority = authority();
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = HANDSHAKE_RECORD;
        }
        let mut pair = Pair::new(&authority.1, client_config(&authority.0, &TLS13, None));
        let _ = pair.serve(&bytes, piece);
    }

    #[test]
    fn any_bytes_within_tls_records_are_taken(
        records in prop::collection::vec((20u8..25, prop::collection::vec(any::<u8>(), 0..40)), 0..9),
        piece in 1usize..99,
    ) {
        let authority = authority();
        let mut pair = Pair::new(&authority.1, client_config(&authority.0, &TLS13, None));
        prop_assert_eq!(pair.go(1000), (None, None));
        let mut bytes = Vec::new();
        for (kind, body) in records {
            bytes.extend([kind, 3, 3, 0, body.len() as u8]);
            bytes.extend(body);
        }
        let (_, fault) = pair.serve(&bytes, piece);
        prop_assert!(fault.is_some() || pair.inner.is_empty());
    }
}

const HANDSHAKE_RECORD: u8 = 0x16;

type Played = (Authority, Arc<Endpoint>, Vec<Vec<u8>>);

/// Made once: it takes as long as a case.
fn authority() -> std::sync::Arc<Played> {
    static AUTHORITY: std::sync::OnceLock<Arc<Played>> = std::sync::OnceLock::new();
    let make = || {
        let authority = Authority::new();
        let endpoint = authority.endpoint(|_| ());
        let flights = flights(&authority, &endpoint);
        Arc::new((authority, endpoint, flights))
    };
    Arc::clone(AUTHORITY.get_or_init(make))
}

#[test]
fn a_client_is_shown_the_certificate_of_the_name_that_it_asks_for() {
    let authority = Authority::new();
    let names: [(&str, &[&str]); 3] = [
        ("one", &["one.example", "*.one.example"]),
        ("two", &["two.example"]),
        ("wild", &["*.wild.example", "*.deep.one.example"]),
    ];
    let endpoint = authority.endpoint(|tls| {
        for (file, names) in names {
            let issued = authority.issue(file, |params| {
                let names = names.iter().map(|name| SanType::DnsName((*name).try_into().unwrap()));
                params.subject_alt_names = names.collect();
            });
            let (certificate, key) = issued.paths;
            tls.certificates.push(config::CertificateAndKey { certificate, key });
        }
    });
    for version in VERSIONS {
        let config = Arc::new(client_config(&authority, version, None));
        for (asked, shown) in [
            ("localhost", "server"),
            ("one.example", "one"),
            ("One.Example", "one"),
            ("a.one.example", "one"),
            ("two.example", "two"),
            ("three.wild.example", "wild"),
            ("a.deep.one.example", "wild"),
        ] {
            let mut pair = Pair::asking_for(asked, &endpoint, &config);
            assert_eq!(pair.go(usize::MAX), (None, None), "{asked}");
            let certificate = &pair.client.peer_certificates().unwrap()[0];
            let (_, parsed) = X509Certificate::from_der(certificate).unwrap();
            let name = parsed.subject().iter_common_name().next().unwrap().as_str().unwrap();
            assert_eq!(name, shown, "{asked}");
        }
        // A star is one label, and whoever asks for nobody's name, or none, is shown the first.
        for asked in ["a.two.example", "a.b.one.example", "elsewhere", "127.0.0.1"] {
            let mut pair = Pair::asking_for(asked, &endpoint, &config);
            let (_, refused) = pair.go(usize::MAX);
            let said = refused.expect("it is not for that name").to_string();
            assert!(said.contains("localhost"), "{asked}: {said}");
        }
    }
}
