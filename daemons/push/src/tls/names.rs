//! Which certificate a client is shown: the one for the name that it asks for (SNI), else the
//! first. A name is that of one certificate alone; where one has the name itself and another a
//! wildcard for it, the former is meant.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::TlsError;

/// All certificates, by the names in them.
#[derive(Debug)]
pub(super) struct ByName {
    first: Arc<CertifiedKey>,
    /// In lower case; a wildcard without its star, `.example.org`.
    named: HashMap<String, Named>,
}

#[derive(Debug)]
struct Named {
    key: Arc<CertifiedKey>,
    /// Where the certificate was read.
    path: PathBuf,
}

impl ByName {
    /// Only this one so far, which was read from `path`, whatever a client asks for.
    pub(super) fn first(path: &Path, key: CertifiedKey) -> ByName {
        let key = Arc::new(key);
        let mut all = ByName { first: Arc::clone(&key), named: HashMap::new() };
        for name in key.cert.first().map(names).unwrap_or_default() {
            let path = path.to_owned();
            all.named.insert(name, Named { key: Arc::clone(&key), path });
        }
        all
    }

    /// One more, which was read from `path`, for the names in it.
    ///
    /// # Errors
    /// It has no names, or one that another has.
    pub(super) fn add(&mut self, path: &Path, key: CertifiedKey) -> Result<(), TlsError> {
        let key = Arc::new(key);
        let names = key.cert.first().map(names).unwrap_or_default();
        if names.is_empty() {
            return Err(TlsError::Nameless { path: path.to_owned() });
        }
        let mut added = HashMap::new();
        for name in names {
            if let Some(other) = self.named.get(&name) {
                let paths = (other.path.clone(), path.to_owned());
                return Err(TlsError::SameName { name: shown(&name), paths });
            }
            added.insert(name, Named { key: Arc::clone(&key), path: path.to_owned() });
        }
        self.named.extend(added);
        Ok(())
    }

    fn find(&self, name: &str) -> &Arc<CertifiedKey> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        // A star is one label.
        let wildcard = || self.named.get(&name[name.find('.')?..]);
        let found = self.named.get(&name).or_else(wildcard);
        found.map_or(&self.first, |named| &named.key)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked = hello.server_name();
        Some(Arc::clone(asked.map_or(&self.first, |name| self.find(name))))
    }
}

/// The names that clients may ask for. Those of a subject are none: no client looks there.
fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let Ok(Some(alternatives)) = parsed.subject_alternative_name() else { return Vec::new() };
    let dns = alternatives.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.trim_end_matches('.').to_ascii_lowercase()),
        _ => None,
    });
    dns.map(|name| match name.strip_prefix('*') {
        Some(rest) if rest.starts_with('.') => rest.to_owned(),
        _ => name,
    })
    .collect()
}

/// As it is written in a certificate.
fn shown(name: &str) -> String {
    let star = if name.starts_with('.') { "*" } else { "" };
    format!("{star}{name}")
}
