//! Certificates for tests: an authority, and what it issues, in files of a folder of its own.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    SanType, date_time_ymd,
};
use tempfile::TempDir;

/// Somebody who issues certificates.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

impl Authority {
    /// One that nobody knows yet. Its own certificate is in `ca.pem`.
    ///
    /// # Panics
    /// There is no folder to be had.
    #[track_caller]
    pub fn new() -> Authority {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, format!("authority {number}"));
        let made = CertifiedIssuer::self_signed(params, key());
        let Ok(issuer) = made else { panic!("no authority: {:?}", made.err()) };
        let Ok(dir) = tempfile::Builder::new().prefix("sextant-certs-").tempdir() else {
            panic!("no temporary folder");
        };
        let authority = Authority { issuer, dir };
        authority.write("ca.pem", &authority.issuer.pem());
        authority
    }

    /// Where a file of its folder is.
    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where its own certificate is.
    pub fn ca(&self) -> String {
        self.path("ca.pem")
    }

    /// Issues a certificate with that common name, for these addresses and `localhost`:
    /// `NAME.pem` and `NAME.key`.
    #[track_caller]
    pub fn issue(&self, name: &str, addresses: &[IpAddr]) {
        self.issue_until(name, addresses, 2096);
    }

    /// As [`issue`](Self::issue), good until a year begins.
    ///
    /// # Panics
    /// Its folder cannot be written to.
    #[track_caller]
    pub fn issue_until(&self, name: &str, addresses: &[IpAddr], year: i32) {
        let localhost = "localhost".try_into().ok().map(SanType::DnsName);
        let names = addresses.iter().copied().map(SanType::IpAddress).chain(localhost).collect();
        self.write_issued(name, names, year);
    }

    /// As [`issue`](Self::issue), for these names instead.
    ///
    /// # Panics
    /// Its folder cannot be written to, or a name is none.
    #[track_caller]
    pub fn issue_for(&self, name: &str, names: &[&str]) {
        let dns = |name: &str| match name.try_into() {
            Ok(name) => SanType::DnsName(name),
            Err(error) => panic!("{name} is no name: {error}"),
        };
        self.write_issued(name, names.iter().copied().map(dns).collect(), 2096);
    }

    #[track_caller]
    fn write_issued(&self, name: &str, names: Vec<SanType>, year: i32) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_after = date_time_ymd(year, 1, 1);
        params.subject_alt_names = names;
        let key = key();
        match params.signed_by(&key, &self.issuer) {
            Ok(certificate) => self.write(&format!("{name}.pem"), &certificate.pem()),
            Err(error) => panic!("no certificate for {name}: {error}"),
        }
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    #[track_caller]
    fn write(&self, name: &str, text: &str) {
        let path: PathBuf = self.dir.path().join(name);
        if let Err(error) = std::fs::write(&path, text) {
            panic!("cannot write {}: {error}", path.display());
        }
    }
}

impl Default for Authority {
    fn default() -> Self {
        Authority::new()
    }
}

#[track_caller]
fn key() -> KeyPair {
    match KeyPair::generate() {
        Ok(key) => key,
        Err(error) => panic!("no key: {error}"),
    }
}
