use super::*;

use std::path::PathBuf;

use crate::config;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
    date_time_ymd,
};

/// Somebody who issues certificates, and a folder for them.
pub(crate) struct Authority {
    pub(crate) issuer: CertifiedIssuer<'static, KeyPair>,
    dir: tempfile::TempDir,
}

/// A certificate and its key, in files.
pub(crate) struct Issued {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) paths: (PathBuf, PathBuf),
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        // Whoever has another's name is another only by its signature.
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("test authority {}", NUMBER.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority { issuer, dir };
        authority.write("ca.pem", authority.issuer.pem());
        authority
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A certificate whose common name is `name`, with what `change` makes of it.
    pub(crate) fn issue(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let file = name.replace('/', "_");
        Issued {
            certificate: certificate.der().clone(),
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            paths: (
                self.write(&format!("{file}.pem"), certificate.pem()),
                self.write(&format!("{file}.key"), key.serialize_pem()),
            ),
        }
    }

    /// What is served with a certificate for localhost, with what `change` makes of the settings.
    pub(crate) fn endpoint(&self, change: impl FnOnce(&mut Tls)) -> Arc<Endpoint> {
        Arc::new(Endpoint::load(&self.settings(change)).unwrap().unwrap())
    }

    pub(crate) fn settings(&self, change: impl FnOnce(&mut Tls)) -> Tls {
        let (certificate, key) = self.issue("server", |_| ()).paths;
        let mut tls = Tls { certificate: Some(certificate), key: Some(key), ..Tls::default() };
        change(&mut tls);
        tls
    }

    /// A list of revoked certificates, in a file.
    pub(crate) fn revoke(&self, serials: &[u8]) -> PathBuf {
        let revoked = |serial: &u8| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&[*serial]),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2096, 1, 1),
            crl_number: SerialNumber::from_slice(&[1]),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        self.write("crl.pem", params.signed_by(&self.issuer).unwrap().pem().unwrap())
    }
}

/// Asks clients for certificates of this authority.
pub(crate) fn asking(authority: &Authority, tls: &mut Tls) {
    tls.client_ca = Some(authority.path("ca.pem"));
    tls.client_certificate = ClientCertificate::Required;
}

fn load(tls: &Tls) -> String {
    Endpoint::load(tls).expect_err("it cannot be loaded").to_string()
}

#[test]
fn without_a_certificate_there_is_no_tls() {
    assert!(Endpoint::load(&Tls::default()).unwrap().is_none());
}

#[test]
fn a_certificate_tells_when_it_ends() {
    let authority = Authority::new();
    let (certificate, key) =
        authority.issue("short", |params| params.not_after = date_time_ymd(2030, 1, 1)).paths;
    let tls = Tls { certificate: Some(certificate), key: Some(key), ..Tls::default() };
    let endpoint = Endpoint::load(&tls).unwrap().unwrap();
    let told = Certificate::default();
    assert!(!told.is_there());
    told.note(&endpoint);
    assert_eq!(told.expires_at(), 1_893_456_000);
}

#[test]
fn what_cannot_be_loaded_is_named_with_its_file() {
    let authority = Authority::new();
    let good = authority.settings(|_| ());
    let other = authority.issue("other", |_| ()).paths;
    let empty = authority.write("empty.pem", "nothing\n");
    let broken = authority
        .write("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let with = |change: &dyn Fn(&mut Tls)| {
        let mut tls = good.clone();
        change(&mut tls);
        load(&tls)
    };
    assert!(with(&|tls| tls.key = None).contains("go together"));
    let missing = with(&|tls| tls.certificate = Some("/nowhere/server.pem".into()));
    assert!(missing.contains("/nowhere/server.pem") && missing.contains("No such file"));
    let said = with(&|tls| tls.certificate = Some(empty.clone()));
    assert!(said.ends_with("empty.pem does not hold a certificate in PEM"), "{said}");
    let said = with(&|tls| tls.certificate = Some(broken.clone()));
    assert!(said.ends_with("broken.pem does not hold a certificate in PEM"), "{said}");
    let said = with(&|tls| tls.key = Some(empty.clone()));
    assert!(said.ends_with("empty.pem does not hold a private key in PEM"), "{said}");
    let said = with(&|tls| tls.key = Some(other.1.clone()));
    assert!(said.contains("cannot be used together"), "{said}");
    let said = with(&|tls| tls.client_certificate = ClientCertificate::Optional);
    assert!(said.contains("tls.client_ca"), "{said}");
    let said = with(&|tls| {
        asking(&authority, tls);
        tls.client_crl = Some(empty.clone());
    });
    assert!(said.contains("a list of revoked certificates"), "{said}");
}

/// Certificates for these names, besides the first.
fn several(authority: &Authority, all: &[(&str, &[&str])]) -> Tls {
    authority.settings(|tls| {
        for (file, names) in all {
            let issued = authority.issue(file, |params| {
                params.subject_alt_names = names
                    .iter()
                    .map(|name| SanType::DnsName((*name).try_into().unwrap()))
                    .collect();
            });
            let (certificate, key) = issued.paths;
            tls.certificates.push(config::CertificateAndKey { certificate, key });
        }
    })
}

#[test]
fn the_certificate_that_ends_first_is_told_of() {
    let authority = Authority::new();
    let issued = authority.issue("short", |params| params.not_after = date_time_ymd(2030, 1, 1));
    let (certificate, key) = issued.paths;
    let mut tls = several(&authority, &[("a", &["a.example"])]);
    (tls.certificate, tls.key) = (Some(certificate), Some(key));
    let endpoint = Endpoint::load(&tls).unwrap().unwrap();
    assert_eq!(endpoint.expires_at, 1_893_456_000);
    (tls.certificate, tls.key) = (None, None);
    assert!(Endpoint::load(&tls).unwrap().is_some(), "the first of the list is the first");
}

#[test]
fn certificates_that_cannot_be_told_apart_are_named() {
    let authority = Authority::new();
    let said =
        load(&several(&authority, &[("a", &["a.example", "b.example"]), ("b", &["B.example."])]));
    assert!(said.starts_with("b.example is in both ") && said.contains("a.pem"), "{said}");
    assert!(said.contains("b.pem: each name is to have one certificate"), "{said}");
    let wild = load(&several(&authority, &[("c", &["*.example"]), ("d", &["*.example"])]));
    assert!(wild.starts_with("*.example is in both"), "{wild}");
    // As in the first.
    let said = load(&several(&authority, &[("e", &["localhost"])]));
    assert!(said.contains("server.pem and ") && said.contains("e.pem"), "{said}");
    let said = load(&several(&authority, &[("f", &[])]));
    assert!(said.contains("f.pem has no DNS name"), "{said}");
    let mut tls = several(&authority, &[("g", &["g.example"]), ("h", &["h.example"])]);
    tls.certificates[1].key = tls.certificates[0].key.clone();
    let said = load(&tls);
    assert!(
        said.contains("h.pem and ") && said.contains("g.key cannot be used together"),
        "{said}"
    );
}

#[test]
fn a_certificate_names_a_device_where_it_is_configured() {
    let authority = Authority::new();
    let issued = authority.issue("lamp", |params| {
        params.subject_alt_names = vec![
            SanType::DnsName("lamp.example".try_into().unwrap()),
            SanType::URI("urn:lamp:1".try_into().unwrap()),
            SanType::URI("urn:lamp:2".try_into().unwrap()),
        ];
    });
    for (identity, device) in [
        (Identity::Cn, "lamp"),
        (Identity::SanDns, "lamp.example"),
        (Identity::SanUri, "urn:lamp:1"),
    ] {
        let endpoint = authority.endpoint(|tls| tls.identity = identity);
        assert_eq!(endpoint.device(&issued.certificate).as_deref(), Some(device));
    }
    let endpoint = authority.endpoint(|_| ());
    for none in ["a/b", "#", "+", "$SYS"] {
        let issued = authority.issue(none, |_| ());
        assert_eq!(endpoint.device(&issued.certificate), None, "{none}");
    }
    let endpoint = authority.endpoint(|tls| tls.identity = Identity::SanUri);
    assert_eq!(endpoint.device(&authority.issue("plain", |_| ()).certificate), None);
    assert_eq!(endpoint.device(&CertificateDer::from(vec![0x30, 0x03, 1, 2, 3])), None);
}
